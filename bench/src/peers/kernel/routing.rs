//! A router between hosts that believe themselves in one network: each knows the other by the MAC address of the router's
//! NIC, and nobody has to ask for an address. Everything but the right host is on the left, the made-up senders of the
//! load included; frames for them go to the left host.

use crate::Error;
use crate::peers::changes::{Changes, run};
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, HOST_IFACE, Host, Lab};
use std::net::IpAddr;

/// What the router says is its own address when it has to complain.
const ADDRESS: &str = "10.77.0.254/32";

/// Makes the gateway route; returns the MAC address of its left NIC.
///
/// # Errors
/// If the kernel refuses something.
pub(super) fn make<'bed>(changes: &mut Changes<'bed>, lab: &'bed Lab) -> Result<[u8; 6], Error> {
    let gateway = &lab.gateway;
    changes.sysctl(gateway, "net.ipv4.ip_forward", "1")?;
    for name in ["all", GATEWAY_LEFT, GATEWAY_RIGHT] {
        changes.sysctl(gateway, &format!("net.ipv4.conf.{name}.rp_filter"), "0")?;
    }
    for name in [GATEWAY_LEFT, GATEWAY_RIGHT] {
        // Before IPv6 is switched on: an address of its own would be announced to the hosts.
        changes.sysctl(gateway, &format!("net.ipv6.conf.{name}.addr_gen_mode"), "1")?;
        changes.sysctl(gateway, &format!("net.ipv6.conf.{name}.disable_ipv6"), "0")?;
    }
    changes.sysctl(gateway, "net.ipv6.conf.all.forwarding", "1")?;
    for name in [GATEWAY_LEFT, GATEWAY_RIGHT] {
        let [add, del] = ["add", "del"].map(|verb| ["ip", "addr", verb, ADDRESS, "dev", name]);
        changes.run(gateway, &add, &del)?;
    }
    for is_v6 in [false, true] {
        routes(changes, lab, is_v6)?;
    }
    let [left, right] = [GATEWAY_LEFT, GATEWAY_RIGHT].map(|name| mac(lab, name));
    let (left, right) = (left?, right?);
    for (host, other, mac) in [(&lab.left, &lab.right, left), (&lab.right, &lab.left, right)] {
        knows(changes, host, other.v4.into(), mac)?;
        if speaks_v6(host)? {
            knows(changes, host, other.v6.into(), mac)?;
        }
    }
    Ok(left)
}

/// The right host on the right, everything else by way of the left host. Routes and neighbours go with these commands'
/// undoing, not with the addresses, which are others.
fn routes<'bed>(changes: &mut Changes<'bed>, lab: &'bed Lab, is_v6: bool) -> Result<(), Error> {
    let gateway = &lab.gateway;
    for (name, host) in [(GATEWAY_LEFT, &lab.left), (GATEWAY_RIGHT, &lab.right)] {
        let (address, mac) = (host.addr(is_v6).to_string(), mac_text(host.mac));
        let family = if is_v6 { "-6" } else { "-4" };
        let neighbour = ["ip", family, "neigh", "replace", &address, "lladdr", &mac, "dev", name];
        changes.run(gateway, &neighbour, &["ip", family, "neigh", "del", &address, "dev", name])?;
        let [add, del] = ["replace", "del"].map(|verb| ["ip", family, "route", verb, &address, "dev", name]);
        changes.run(gateway, &add, &del)?;
        if name == GATEWAY_LEFT {
            let [add, del] = ["replace", "del"]
                .map(|verb| ["ip", family, "route", verb, "default", "via", &address, "dev", name, "onlink"]);
            changes.run(gateway, &add, &del)?;
        }
    }
    Ok(())
}

/// Tells a host at which MAC address another one is.
fn knows<'bed>(
    changes: &mut Changes<'bed>,
    host: &'bed Host,
    other: IpAddr,
    mac: [u8; 6],
) -> Result<(), Error> {
    let (other, mac) = (other.to_string(), mac_text(mac));
    let entry = ["neigh", "replace", &other, "lladdr", &mac, "nud", "permanent", "dev", HOST_IFACE];
    let forget = ["ip", "neigh", "del", &other, "dev", HOST_IFACE];
    changes.run(&host.netns, &[&["ip"], &entry[..]].concat(), &forget)
}

/// Whether IPv6 is on at a host: where it is off, there are no neighbours either.
fn speaks_v6(host: &Host) -> Result<bool, Error> {
    let path = format!("/proc/sys/net/ipv6/conf/{HOST_IFACE}/disable_ipv6");
    Ok(run(&host.netns, &["cat", &path])?.trim() == "0")
}

/// MAC address of one of the gateway's NICs.
fn mac(lab: &Lab, name: &str) -> Result<[u8; 6], Error> {
    let text = run(&lab.gateway, &["cat", &format!("/sys/class/net/{name}/address")])?;
    let bytes: Result<Vec<u8>, _> = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
    bytes?.try_into().map_err(|_| format!("{name} has no MAC address of six bytes but {text}").into())
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
