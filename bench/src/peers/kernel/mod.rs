//! Linux itself as a peer: a bridge or a router, filtering with iptables or nftables, conntrack in either case.
//!
//! What a competent operator sets, and no more:
//!
//! * Receive packet steering moves the work to the worker's core, for the core that a frame arrives on is the generator's.
//!   Every peer has that one core to forward with. Steering to both, the generator's too, was up to a third faster in the
//!   one comparison there is, on a busy machine; it takes from the generator, which then makes less of a load for it.
//! * GRO is on: frames that come by an XDP redirect need an interface that runs NAPI.
//! * The connection table has room for the flows, and as many buckets. Both limits are the whole machine's: they are
//!   raised from outside, if they are too low, and lowered again.
//! * Timeouts and everything else of conntrack is as the kernel has it.

mod bridge;
mod filter;
mod routing;

pub(super) use filter::Filter;

use super::changes::{Changes, run};
use super::nics::rps_path;
use super::{Forwarder, Rules, Setup};
use crate::Error;
use crate::bed::Bed;
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, Netns};

/// Most connections; of the whole machine.
const CONNTRACK_MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Buckets of its table; of the whole machine.
const CONNTRACK_BUCKETS: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";

/// Connections now, of one namespace.
const CONNTRACK_COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// How packets get from one NIC to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// A bridge, its IP packets shown to the filter.
    Bridge,
    /// Routes.
    Routing,
}

struct Kernel<'bed> {
    gateway: &'bed Netns,
    filter: Filter,
    router_mac: Option<[u8; 6]>,
    changes: Changes<'bed>,
}

/// Makes the gateway forward.
///
/// # Errors
/// If the kernel refuses something; what was changed before is put back.
pub(super) fn start<'bed>(
    bed: &'bed Bed,
    (path, filter): (Path, Filter),
    setup: &Setup,
) -> Result<Box<dyn Forwarder + 'bed>, Error> {
    let (gateway, mut changes) = (&bed.lab.gateway, Changes::default());
    changes.raise(CONNTRACK_BUCKETS, setup.max_flows)?;
    changes.raise(CONNTRACK_MAX, setup.max_flows)?;
    // The rules first: they take their connections' memory along, and nothing passes before they are there.
    filter.empty_on_undo(&mut changes, gateway);
    filter.load(gateway, &setup.rules)?;
    let rps = format!("{:x}", 1_u64 << bed.worker_core());
    for name in [GATEWAY_LEFT, GATEWAY_RIGHT] {
        run(gateway, &["ethtool", "-K", name, "gro", "on"])?;
        changes.write(gateway, &rps_path(name), &rps)?;
    }
    let router_mac = match path {
        Path::Bridge => bridge::make(&mut changes, gateway).map(|()| None),
        Path::Routing => routing::make(&mut changes, &bed.lab).map(Some),
    }?;
    Ok(Box::new(Kernel { gateway, filter, router_mac, changes }))
}

impl Forwarder for Kernel<'_> {
    fn check(&mut self) -> Result<(), Error> {
        // Whoever asks still runs, and so does the kernel.
        Ok(())
    }

    fn swap_rules(&mut self, rules: &Rules) -> Result<(), Error> {
        self.filter.load(self.gateway, rules)
    }

    fn flows(&self) -> Option<u64> {
        let count = self.gateway.within(|| std::fs::read_to_string(CONNTRACK_COUNT));
        count.ok()?.trim().parse().ok()
    }

    fn router_mac(&self) -> Option<[u8; 6]> {
        self.router_mac
    }

    fn end(&mut self) -> Result<(), Error> {
        self.changes.undo()
    }
}
