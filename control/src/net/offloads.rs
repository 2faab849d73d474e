//! Offloads that break AF_XDP, one by one: what each does to frames we read and write, and its switch.
//!
//! | feature | what it does to us |
//! |---|---|
//! | `gro` | merges received packets into frames larger than a chunk before generic XDP sees them |
//! | `lro` | the same in hardware; native XDP refuses to attach, or frames arrive merged |
//! | `rxvlan` | takes the VLAN tag out of the frame: we would judge, and forward, a tagged frame as untagged |
//! | `txvlan` | the same on the way out of a veth |
//! | `tx`, `tso`, `gso`, `sg` | a veth's sender leaves checksums and cutting to us, and nobody does it |
//! | `rx` | harmless to frames, but a NIC that trusts its own verdict may pass frames we should see as broken |

use super::ioctl;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;

/// An offload and how it is switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name for `ethtool -K`.
    pub name: &'static str,
    switch: Switch,
}

/// Numbers from `include/uapi/linux/ethtool.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    /// A pair of commands of its own: get, set.
    Command(u32, u32),
    /// A bit of `ETHTOOL_GFLAGS`.
    Flag(u32),
}

const GFLAGS: u32 = 0x25;
const SFLAGS: u32 = 0x26;

/// In the order in which they are put back: a feature stands behind those it needs.
pub(super) const FEATURES: [Feature; 9] = [
    Feature { name: "rx", switch: Switch::Command(0x14, 0x15) },
    Feature { name: "tx", switch: Switch::Command(0x16, 0x17) },
    Feature { name: "sg", switch: Switch::Command(0x18, 0x19) },
    Feature { name: "tso", switch: Switch::Command(0x1e, 0x1f) },
    Feature { name: "gso", switch: Switch::Command(0x23, 0x24) },
    Feature { name: "gro", switch: Switch::Command(0x2b, 0x2c) },
    Feature { name: "lro", switch: Switch::Flag(1 << 15) },
    Feature { name: "rxvlan", switch: Switch::Flag(1 << 8) },
    Feature { name: "txvlan", switch: Switch::Flag(1 << 7) },
];

/// Which offloads are on, by name. What a driver does not know is not listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offloads(pub BTreeMap<String, bool>);

impl Feature {
    fn get(self, socket: &OwnedFd, nic: &str) -> io::Result<bool> {
        Ok(match self.switch {
            Switch::Command(get, _) => ioctl::ethtool_get(socket, nic, get)? != 0,
            Switch::Flag(bit) => ioctl::ethtool_get(socket, nic, GFLAGS)? & bit != 0,
        })
    }

    fn set(self, socket: &OwnedFd, nic: &str, on: bool) -> io::Result<()> {
        match self.switch {
            Switch::Command(_, set) => ioctl::ethtool_set(socket, nic, set, u32::from(on)),
            Switch::Flag(bit) => {
                let flags = ioctl::ethtool_get(socket, nic, GFLAGS)?;
                let flags = if on { flags | bit } else { flags & !bit };
                ioctl::ethtool_set(socket, nic, SFLAGS, flags)
            }
        }
    }
}

impl Offloads {
    /// What is on now.
    pub(super) fn read(socket: &OwnedFd, nic: &str) -> Self {
        let state = |feature: &Feature| Some((feature.name.to_owned(), feature.get(socket, nic).ok()?));
        Self(FEATURES.iter().filter_map(state).collect())
    }

    /// Switches everything off that can be. Returns what would not go.
    pub(super) fn switch_off(socket: &OwnedFd, nic: &str) -> Vec<&'static str> {
        // Dependants first: tso before sg before tx.
        for feature in FEATURES.iter().rev() {
            if feature.get(socket, nic).unwrap_or(false) {
                // Whether it worked is read back below.
                let _ = feature.set(socket, nic, false);
            }
        }
        FEATURES
            .iter()
            .filter(|feature| feature.get(socket, nic).unwrap_or(false))
            .map(|feature| feature.name)
            .collect()
    }

    /// Makes the NIC what it was. Returns what could not be put back.
    pub(super) fn restore(&self, socket: &OwnedFd, nic: &str) -> Vec<String> {
        let mut failed = Vec::new();
        for feature in FEATURES {
            let Some(&wanted) = self.0.get(feature.name) else { continue };
            if feature.get(socket, nic).is_ok_and(|now| now != wanted) {
                let _ = feature.set(socket, nic, wanted);
                if feature.get(socket, nic).is_ok_and(|now| now != wanted) {
                    failed.push(feature.name.to_owned());
                }
            }
        }
        failed
    }
}
