//! When a driver interrupts. With busy polling it should not as long as somebody polls: `napi_defer_hard_irqs` rounds
//! without packets go by, `gro_flush_timeout` nanoseconds apart, before interrupts are let in again.
//!
//! The kernel has this in `/sys` only (before Linux 6.13), which may show the devices of another namespace: nothing is read
//! or written there unless the device of our name has our number.

use super::held::Held;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Both settings of one NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Napi {
    pub(super) defer_hard_irqs: u32,
    pub(super) gro_flush_timeout_ns: u64,
}

const DEFER: &str = "napi_defer_hard_irqs";
const FLUSH: &str = "gro_flush_timeout";

impl Napi {
    /// For busy polling. Source: the kernel's own advice for `SO_PREFER_BUSY_POLL`, `Documentation/networking/napi.rst`.
    pub(super) const DEFERRED: Self = Self { defer_hard_irqs: 2, gro_flush_timeout_ns: 200_000 };

    /// What a NIC has now.
    pub(super) fn read(name: &str, ifindex: u32) -> io::Result<Self> {
        Self::read_in(&dir(name, ifindex)?)
    }

    /// Gives it to a NIC.
    pub(super) fn write(self, name: &str, ifindex: u32, held: &Held) -> io::Result<()> {
        self.write_in(&dir(name, ifindex)?, held)
    }

    /// Opens what [`Self::write`] writes to.
    pub(super) fn hold(name: &str, ifindex: u32, held: &mut Held) {
        if let Ok(dir) = dir(name, ifindex) {
            held.hold(dir.join(DEFER));
            held.hold(dir.join(FLUSH));
        }
    }

    fn read_in(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            defer_hard_irqs: number(&dir.join(DEFER))?,
            gro_flush_timeout_ns: number(&dir.join(FLUSH))?,
        })
    }

    fn write_in(self, dir: &Path, held: &Held) -> io::Result<()> {
        held.write(&dir.join(DEFER), &self.defer_hard_irqs.to_string())?;
        held.write(&dir.join(FLUSH), &self.gro_flush_timeout_ns.to_string())
    }
}

/// Where the settings of our NIC are.
fn dir(name: &str, ifindex: u32) -> io::Result<PathBuf> {
    let dir = Path::new("/sys/class/net").join(name);
    let shown: u32 = number(&dir.join("ifindex"))?;
    if shown == ifindex {
        return Ok(dir);
    }
    Err(io::Error::other("/sys shows the devices of another network namespace"))
}

fn number<T: std::str::FromStr>(path: &Path) -> io::Result<T> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| io::Error::other(format!("{} is no number", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_only_of_our_own_nic() {
        let dir = tempfile::tempdir().unwrap();
        Napi::DEFERRED.write_in(dir.path(), &Held::default()).unwrap();
        assert_eq!(Napi::read_in(dir.path()).unwrap(), Napi::DEFERRED);
        // The loopback is number 1 in every namespace.
        assert!(Napi::read("lo", 1).is_ok());
        assert!(Napi::read("lo", 2).is_err());
    }
}
