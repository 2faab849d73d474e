//! Links that go down, come up, change their MTU or disappear. Asked for many times a second rather than listened for:
//! nothing can be missed, and a kick on a dead link tells the worker sooner than any message could.

use super::plane::Plane;
use crate::net::Nic;
use dataplane::ids::PortId;
use std::sync::atomic::Ordering::Relaxed;
use tracing::{error, info, warn};

/// What was last seen of each NIC.
pub(super) struct Links<'a> {
    plane: &'a Plane,
    seen: Vec<Option<crate::net::LinkState>>,
}

impl<'a> Links<'a> {
    pub(super) fn new(plane: &'a Plane) -> Self {
        let mut links = Self { plane, seen: Vec::new() };
        links.seen = plane.ports.iter().map(|port| port.nic.link().ok()).collect();
        links
    }

    /// Looks at every NIC, tells the workers, and logs what changed.
    pub(super) fn look(&mut self) {
        for (index, port) in self.plane.ports.iter().enumerate() {
            let now = port.nic.link().ok();
            let state = &self.plane.states[PortId(port.id.0).index()];
            state.link_up.store(now.is_some_and(|link| link.up), Relaxed);
            if let Some(link) = now {
                let fits = Nic::frame_len_max(link.mtu).min(port.frame_len_max);
                state.frame_len_max.store(fits, Relaxed);
            }
            let before = std::mem::replace(&mut self.seen[index], now);
            let name = &port.nic.name;
            match (before, now) {
                (Some(_), None) => error!("{name} is gone: its wire is cut; the others go on"),
                (None, Some(_)) => {
                    warn!("an interface called {name} is back, but it is another one: restart to use it");
                }
                (Some(before), Some(now)) => {
                    if before.up != now.up {
                        info!("{name}: link {}", if now.up { "up" } else { "down" });
                    }
                    if before.mtu != now.mtu {
                        info!("{name}: MTU {} is now {}", before.mtu, now.mtu);
                    }
                }
                (None, None) => {}
            }
        }
    }
}
