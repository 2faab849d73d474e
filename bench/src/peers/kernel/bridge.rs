//! A bridge of both NICs that shows IP packets to iptables and nftables. Conntrack of the bridge itself would be cheaper
//! for nftables, but is a module that few kernels have loaded (`nf_conntrack_bridge`); `br_netfilter` serves both.

use crate::Error;
use crate::peers::changes::Changes;
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, Netns};

/// Its name.
const BRIDGE: &str = "br0";

/// Makes it.
///
/// # Errors
/// If the kernel refuses something.
pub(super) fn make<'bed>(changes: &mut Changes<'bed>, gateway: &'bed Netns) -> Result<(), Error> {
    // Without the delay of a bridge that looks for loops, and without snooping, which swallows neighbour discovery where
    // nobody asks for groups.
    let words = ["type", "bridge", "mcast_snooping", "0", "stp_state", "0", "forward_delay", "0"];
    let add = [&["ip", "link", "add", BRIDGE], &words[..]].concat();
    changes.run(gateway, &add, &["ip", "link", "del", BRIDGE])?;
    for family in ["ip", "ip6"] {
        changes.sysctl(gateway, &format!("net.bridge.bridge-nf-call-{family}tables"), "1")?;
    }
    for name in [GATEWAY_LEFT, GATEWAY_RIGHT] {
        let into = ["ip", "link", "set", "dev", name, "master", BRIDGE];
        changes.run(gateway, &into, &["ip", "link", "set", "dev", name, "nomaster"])?;
    }
    changes.run(gateway, &["ip", "link", "set", BRIDGE, "up"], &["ip", "link", "set", BRIDGE, "down"])
}
