//! What the checks look at: the machine as far as it matters to a gateway. Plain data, so that tests can make up any machine.

use crate::api::types::Stats;
use crate::config::{Config, Cores};
use crate::net::Spreading;
use crate::placement::{self, Placement, PlacementError};
use dataplane::ids::PortId;
use dataplane::worker::deal_lanes;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Machine, NICs and what is meant to run, or runs, on them.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// What the gateway is to be started with; defaults where nobody says.
    pub config: Config,
    /// The gateway, if it runs.
    pub daemon: Option<Daemon>,
    /// Kernel and memory.
    pub host: Host,
    /// Cores, and interrupts of the NICs: those of [`Self::nics`], in the same order.
    pub cores: placement::Machine,
    /// The NICs in pairs.
    pub wires: Vec<Wire>,
    /// NICs that a daemon, dead by now, has not put back.
    pub left_behind: Vec<String>,
}

/// A gateway that runs.
#[derive(Clone, Debug, Default)]
pub struct Daemon {
    /// Its process.
    pub pid: u32,
    /// What it counts.
    pub stats: Stats,
    /// Where its web page is on TCP, if it is.
    pub page: Option<SocketAddr>,
    /// The rights it has, if it can be seen.
    pub runs_as: Option<RunsAs>,
}

/// The rights a process has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RunsAs {
    /// Its user.
    pub user: String,
    /// Whether that is root.
    pub is_root: bool,
    /// What it may do beyond that user.
    pub capabilities: Vec<String>,
    /// Whether all its workers have a filter of system calls.
    pub workers_filtered: bool,
}

/// What all NICs have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Major and minor number of the kernel.
    pub kernel: (u32, u32),
    /// What the kernel tells the time by.
    pub clocksource: String,
    /// Whether the kernel translates BPF programs; `None` if it does not say.
    pub jit: Option<bool>,
    /// Frequency governor of each core that has one.
    pub governors: BTreeMap<u16, String>,
    /// Process id of irqbalance, if it runs.
    pub irqbalance: Option<u32>,
    /// 2 MiB pages that are free.
    pub hugepages_free: u64,
    /// 2 MiB pages there are.
    pub hugepages: u64,
    /// Bytes of memory that may be locked; `None`: any number.
    pub memlock: Option<u64>,
    /// What rights this process lacks to run the gateway, as a sentence.
    pub missing_rights: Option<String>,
}

/// A pair of NICs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// What reports call it.
    pub name: String,
    /// Left and right.
    pub nics: [Nic; 2],
}

/// One NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nic {
    /// Interface name.
    pub name: String,
    /// Why nothing else is known of it, if so.
    pub trouble: Option<String>,
    /// Its number.
    pub ifindex: u32,
    /// What drives it.
    pub driver: String,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Whether it was set up.
    pub up: bool,
    /// Whether the cable is in and the other end up.
    pub carrier: bool,
    /// Addresses other than link-local ones.
    pub addresses: u32,
    /// Offloads by the names `ethtool -K` takes.
    pub offloads: BTreeMap<String, bool>,
    /// Receive queues in use.
    pub queues: u32,
    /// How it spreads packets over queues, if it says.
    pub rss: Option<Spreading>,
    /// XDP programs on it.
    pub programs: Vec<Program>,
    /// Whether its driver runs XDP programs itself.
    pub native: bool,
    /// Whether its driver can read and write frames without copying.
    pub zero_copy: bool,
    /// Whether its driver takes packets that span buffers.
    pub multi_buffer: bool,
}

/// An XDP program on a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The kernel's number for it.
    pub id: u32,
    /// What is known of it, in words.
    pub words: String,
    /// Whether it is ours.
    pub ours: bool,
    /// Who holds the link it is attached by; `None` if nobody does, or nobody that we may see.
    pub held_by: Option<u32>,
    /// Whether it is attached without a link, and so stays until it is taken off.
    pub stays: bool,
}

impl Machine {
    /// All NICs there are to look at, with the other end of the wire of each.
    pub fn nics(&self) -> impl Iterator<Item = &Nic> {
        self.wires.iter().flat_map(|wire| &wire.nics).filter(|nic| nic.trouble.is_none())
    }

    /// The wires of which both NICs can be looked at.
    pub fn whole_wires(&self) -> impl Iterator<Item = (&Wire, &Nic, &Nic)> {
        let whole = |wire: &&Wire| wire.nics.iter().all(|nic| nic.trouble.is_none());
        self.wires.iter().filter(whole).map(|wire| (wire, &wire.nics[0], &wire.nics[1]))
    }

    /// Where the workers run, or would if the gateway were started, and what speaks against it.
    ///
    /// # Errors
    /// If they could not be placed.
    pub fn placement(&self) -> Result<Placement, PlacementError> {
        let queues: Vec<u32> = self.nics().map(|nic| nic.queues).collect();
        let asked = match &self.daemon {
            Some(daemon) => {
                let cores = daemon.stats.workers.iter().filter_map(|worker| u16::try_from(worker.core).ok());
                Cores::List(cores.collect())
            }
            None => self.config.workers.cores.clone(),
        };
        let Some(fewest) = queues.iter().min() else { return Ok(Placement::default()) };
        placement::choose(&self.cores, &asked, *fewest as usize, |count| deal_lanes(&queues, count))
    }

    /// Cores of the workers.
    #[must_use]
    pub fn worker_cores(&self) -> Vec<u16> {
        self.placement().unwrap_or_default().workers.iter().map(|placed| placed.core).collect()
    }

    /// NICs and queues of each worker.
    #[must_use]
    pub fn hands(&self) -> Vec<Vec<(PortId, u32)>> {
        let queues: Vec<u32> = self.nics().map(|nic| nic.queues).collect();
        deal_lanes(&queues, self.worker_cores().len())
    }
}
