//! Everything that can join the rig's two NICs, started and stopped alike: Palisade, the firewalls it is measured against,
//! and two floors that look at nothing.
//!
//! Whatever a peer changes is put back when it is stopped, and when its [`Running`] is dropped by an error or a panic:
//! the next one finds the rig as the first did. What spins runs on the worker's core, everything else of a peer on the
//! generator's.

mod changes;
mod child;
mod floor;
mod kernel;
mod nics;
mod ovs;
pub mod palisade;
mod rules;
mod testpmd;

pub use rules::{OPEN_PORTS, Rules};

use crate::Error;
use crate::bed::Bed;
use kernel::{Filter, Path};
use nics::Nics;
use palisade_tests::daemon::find_binary;
use std::env;

/// Who is to forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Peer {
    /// The bare AF_XDP forwarder on our own rings.
    Floor,
    /// DPDK's testpmd on net_af_xdp.
    Testpmd,
    /// Palisade.
    Palisade,
    /// Linux's bridge with iptables.
    BridgeIptables,
    /// Linux's routing with iptables.
    RoutingIptables,
    /// Linux's bridge with nftables.
    BridgeNft,
    /// Linux's routing with nftables.
    RoutingNft,
    /// Open vSwitch's userspace datapath on AF_XDP.
    Ovs,
}

/// What every firewall among them is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// The rules.
    pub rules: Rules,
    /// Connections there has to be room for.
    pub max_flows: u32,
    /// Whether Palisade guards against floods of half-open connections, as it does for its users (`half_open_percent`).
    /// A load that never answers makes no others: the guard would keep most of them out, which no peer else does.
    pub half_open_guard: bool,
}

/// A peer that forwards. Ends with this value, and so does what it changed.
pub struct Running<'bed> {
    peer: Peer,
    // Ended before the NICs are put back.
    forwarder: Option<Box<dyn Forwarder + 'bed>>,
    nics: Nics<'bed>,
    dst_mac: [u8; 6],
    /// Its end has been reported already.
    is_reported: bool,
}

/// What a peer can be asked while it runs.
trait Forwarder {
    /// Says why it does not run any more, if so.
    fn check(&mut self) -> Result<(), Error>;

    /// Exchanges the rules as its users do.
    fn swap_rules(&mut self, rules: &Rules) -> Result<(), Error>;

    /// Connections it knows.
    fn flows(&self) -> Option<u64>;

    /// MAC address of the NIC that the left host has to send to, if it is not a bump in the wire.
    fn router_mac(&self) -> Option<[u8; 6]> {
        None
    }

    /// Ends it and puts back what it changed, NICs excepted. Called again it does nothing.
    fn end(&mut self) -> Result<(), Error>;
}

impl Default for Setup {
    /// Ten rules, room for a million connections, for loads that never answer.
    fn default() -> Self {
        Self { rules: Rules::new(10), max_flows: 1_000_000, half_open_guard: false }
    }
}

impl Peer {
    /// All of them, floors first.
    pub const ALL: [Self; 8] = [
        Self::Floor,
        Self::Testpmd,
        Self::Palisade,
        Self::BridgeIptables,
        Self::RoutingIptables,
        Self::BridgeNft,
        Self::RoutingNft,
        Self::Ovs,
    ];

    /// Its name in tables and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Testpmd => "dpdk-testpmd",
            Self::Palisade => "palisade",
            Self::BridgeIptables => "kernel bridge, iptables",
            Self::RoutingIptables => "kernel routing, iptables",
            Self::BridgeNft => "kernel bridge, nftables",
            Self::RoutingNft => "kernel routing, nftables",
            Self::Ovs => "open vswitch",
        }
    }

    /// Whether it has rules; the others forward everything and look at nothing.
    #[must_use]
    pub const fn is_firewall(self) -> bool {
        !matches!(self, Self::Floor | Self::Testpmd)
    }

    /// What this machine lacks for it, by Debian package where it comes from one; `None` if nothing.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let ours = |name: &&str| find_binary(name).is_none();
        let missing: Vec<String> = match self {
            Self::Floor => ["floor"].iter().filter(|name| ours(name)).map(built).collect(),
            Self::Palisade => ["fwd", "fwctl"].iter().filter(|name| ours(name)).map(built).collect(),
            Self::Testpmd => packages(&[("dpdk-testpmd", "dpdk-dev")]),
            Self::BridgeIptables | Self::RoutingIptables => packages(&[
                ("iptables-restore", "iptables"),
                ("ip6tables-restore", "iptables"),
                ("nft", "nftables"),
                ("conntrack", "conntrack"),
            ]),
            Self::BridgeNft | Self::RoutingNft => {
                packages(&[("nft", "nftables"), ("conntrack", "conntrack")])
            }
            Self::Ovs => packages(&[
                ("ovs-vswitchd", "openvswitch-switch"),
                ("ovsdb-server", "openvswitch-common"),
                ("ovs-vsctl", "openvswitch-common"),
                ("ovs-ofctl", "openvswitch-common"),
            ]),
        };
        (!missing.is_empty()).then(|| missing.join(", "))
    }

    /// Starts it between the rig's NICs and returns when it forwards. The calling thread is the one that made the rig,
    /// or pinned like it: what is started and does not spin stays on its core.
    ///
    /// # Errors
    /// If it is missing, the rules make no sense, or it does not get ready; with its last words.
    pub fn start<'bed>(self, bed: &'bed Bed, setup: &Setup) -> Result<Running<'bed>, Error> {
        if let Some(missing) = self.missing() {
            return Err(format!("{} is not installed: {missing} missing", self.name()).into());
        }
        setup.rules.check()?;
        let nics = Nics::read(&bed.lab)?;
        let mut running =
            Running { peer: self, forwarder: None, nics, dst_mac: bed.lab.right.mac, is_reported: false };
        // Dropped on failure, which puts the NICs back.
        let forwarder = self.launch(bed, setup).map_err(|error| format!("{}: {error}", self.name()))?;
        running.dst_mac = forwarder.router_mac().unwrap_or(running.dst_mac);
        running.forwarder = Some(forwarder);
        Ok(running)
    }

    fn launch<'bed>(self, bed: &'bed Bed, setup: &Setup) -> Result<Box<dyn Forwarder + 'bed>, Error> {
        let kernel = |path, filter| kernel::start(bed, (path, filter), setup);
        match self {
            Self::Floor => floor::start(bed),
            Self::Testpmd => testpmd::start(bed),
            Self::Palisade => palisade::start(bed, setup),
            Self::BridgeIptables => kernel(Path::Bridge, Filter::Iptables),
            Self::RoutingIptables => kernel(Path::Routing, Filter::Iptables),
            Self::BridgeNft => kernel(Path::Bridge, Filter::Nft),
            Self::RoutingNft => kernel(Path::Routing, Filter::Nft),
            Self::Ovs => ovs::start(bed, setup),
        }
    }
}

impl Running<'_> {
    /// Which peer this is.
    #[must_use]
    pub const fn peer(&self) -> Peer {
        self.peer
    }

    /// Whom the left host sends to: the right host through a bump in the wire, or else the router's left NIC.
    #[must_use]
    pub const fn dst_mac(&self) -> [u8; 6] {
        self.dst_mac
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If it does not: its name and its last words.
    pub fn is_alive(&mut self) -> Result<(), Error> {
        let alive = self.ask(|forwarder| forwarder.check());
        self.is_reported |= alive.is_err();
        alive
    }

    /// Exchanges its rules at once, as its users do: `fwctl apply`, `iptables-restore`, `nft -f`, or a bundle of
    /// OpenFlow. Connections it knows stay.
    ///
    /// # Errors
    /// If it has no rules or does not take these.
    pub fn swap_rules(&mut self, rules: &Rules) -> Result<(), Error> {
        rules.check()?;
        self.ask(|forwarder| forwarder.swap_rules(rules))
    }

    /// Connections it knows now, if it can tell.
    #[must_use]
    pub fn flows(&self) -> Option<u64> {
        self.forwarder.as_ref()?.flows()
    }

    /// Ends it and puts everything back.
    ///
    /// # Errors
    /// If it ended badly, unless [`Self::is_alive`] has said so, or something could not be put back. What could be, has
    /// been.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end()
    }

    fn ask<T>(&mut self, question: impl FnOnce(&mut dyn Forwarder) -> Result<T, Error>) -> Result<T, Error> {
        let forwarder = self.forwarder.as_mut().ok_or("it has been stopped")?;
        question(forwarder.as_mut()).map_err(|error| format!("{}: {error}", self.peer.name()).into())
    }

    fn end(&mut self) -> Result<(), Error> {
        let ended = match self.forwarder.take() {
            Some(mut forwarder) => {
                forwarder.end().or_else(|error| if self.is_reported { Ok(()) } else { Err(error) })
            }
            None => Ok(()),
        };
        let restored = self.nics.restore();
        ended.and(restored).map_err(|error| format!("{}: {error}", self.peer.name()).into())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error}");
        }
    }
}

fn built(name: &&str) -> String {
    format!("{name} (cargo build --workspace --bins)")
}

/// Packages of the programs that are not there, each once.
pub(crate) fn packages(needs: &[(&str, &str)]) -> Vec<String> {
    let missing = needs.iter().filter(|(program, _)| !is_installed(program));
    let mut packages: Vec<String> = missing.map(|(_, package)| format!("package {package}")).collect();
    packages.dedup();
    packages
}

/// Whether a program can be started by its name, or is where only root looks for it.
fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    env::split_paths(&path).chain(system).any(|dir| dir.join(program).is_file())
}
