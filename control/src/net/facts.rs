//! What a NIC is like, for those who only look, and mending what they find.

use super::journal;
use super::rss::{HashConfig, Rss as _, TOEPLITZ};
use super::{Nic, Offloads, ioctl};
use dataplane::packet::{Family, proto};
use dataplane::rss::FlowType;
use std::io;
use std::path::Path;

/// Receive-side scaling as the driver reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spreading {
    /// Hash key.
    pub key: Vec<u8>,
    /// Queue by hash.
    pub indirection: Vec<u32>,
    /// Whether the hash function is Toeplitz; `None` if the driver does not say.
    pub toeplitz: Option<bool>,
    /// What is hashed of TCP over IPv4 and UDP over IPv4, bits of `RXH_*`; `None` if the driver does not say.
    pub fields: [Option<u64>; 2],
}

/// NICs that have an entry in the journal: those of a daemon that runs, or that one which died has not put back.
#[must_use]
pub fn left_behind(journal_dir: &Path) -> Vec<String> {
    let still_there =
        |entry: &journal::Entry| Nic::find(&entry.name).is_ok_and(|nic| nic.ifindex == entry.ifindex);
    journal::all(journal_dir).into_iter().filter(still_there).map(|entry| entry.name).collect()
}

impl Nic {
    /// Name of its driver, if it has one.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        ioctl::driver(&self.socket, &self.name).ok().filter(|name| !name.is_empty())
    }

    /// Whether it was set up, with or without a carrier.
    #[must_use]
    pub fn is_set_up(&self) -> bool {
        ioctl::flags(&self.socket, &self.name).is_ok_and(|flags| flags & libc::IFF_UP != 0)
    }

    /// Which of the offloads that matter to us are on.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        Offloads::read(&self.socket, &self.name)
    }

    /// How it spreads packets over its queues; `None` if the driver does not say.
    #[must_use]
    pub fn spreading(&self) -> Option<Spreading> {
        let nic = self.ethtool();
        let HashConfig { key, indirection, function, .. } = nic.config().ok()?;
        let flows = [proto::TCP, proto::UDP].map(|proto| FlowType { proto, family: Family::V4 });
        let fields = flows.map(|flow| nic.fields(flow).ok());
        let toeplitz = (function != 0).then_some(function == TOEPLITZ);
        Some(Spreading { key, indirection, toeplitz, fields })
    }

    /// Switches off the offloads that break AF_XDP. Returns those that stay on.
    #[must_use]
    pub fn switch_offloads_off(&self) -> Vec<String> {
        Offloads::switch_off(&self.socket, &self.name).into_iter().map(str::to_owned).collect()
    }

    /// Sets the MTU, in bytes.
    ///
    /// # Errors
    /// If the driver does not take it.
    pub fn set_mtu(&self, mtu: u32) -> io::Result<()> {
        ioctl::set_mtu(&self.socket, &self.name, mtu)
    }

    /// Makes it what it was before a daemon that died, if there is an entry of it. Returns what could not be put back.
    #[must_use]
    pub fn put_back(&mut self, journal_dir: &Path) -> Vec<String> {
        self.before = journal::left_behind(journal_dir, &self.name, self.ifindex)
            .map(|entry| (entry, journal_dir.to_owned()));
        self.restore()
    }
}
