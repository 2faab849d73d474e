//! INVALID packets, from the workers' rings to the daemon's log (`nf_conntrack_log_invalid`). Control thread.

use super::plane::Plane;
use crate::packet_log;
use dataplane::worker::InvalidNote;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How often is said how many were too many.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// Writes them out, as often as it is told to look.
#[derive(Debug)]
pub(super) struct InvalidLog {
    /// Packets not logged that have been spoken of.
    unlogged: u64,
    said: Instant,
}

impl InvalidLog {
    pub(super) fn new() -> Self {
        Self { unlogged: 0, said: Instant::now() }
    }

    /// Logs what has come since it last looked.
    pub(super) fn look(&mut self, plane: &Plane) {
        for worker in &plane.workers {
            let mut notes = worker.invalid.lock().unwrap_or_else(PoisonError::into_inner);
            while let Ok(note) = notes.pop() {
                let interface = plane.ports.get(note.ingress.index()).map_or("?", |port| &port.nic.name);
                info!("{}", line(&note, interface));
            }
        }
        if self.said.elapsed() < SAY_EVERY {
            return;
        }
        self.said = Instant::now();
        let unlogged = plane.workers.iter().map(|worker| worker.counters.polls.unlogged.get()).sum();
        let more = unlogged - std::mem::replace(&mut self.unlogged, unlogged);
        if more > 0 {
            warn!("{more} more INVALID packets were too many to be logged");
        }
    }
}

/// One packet, as the kernel logs it but for the words that say why.
fn line(note: &InvalidNote, interface: &str) -> String {
    let prefix = format!("nf_ct_proto_{}: {} ", note.proto, note.reason.name());
    packet_log::line(&prefix, interface, note.head(), usize::from(note.l3_offset))
}
