//! The rules as `iptables-save` prints them: for iptables itself, and for Palisade.

use super::{Family, OPEN_PORTS, Rules, Shape, Stranger};
use std::fmt::Write as _;

/// A whole file.
pub(super) fn save(rules: &Rules, family: Family) -> String {
    let mut text = String::from("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n");
    text.push_str("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n");
    for stranger in rules.strangers() {
        let _ = writeln!(
            text,
            "-A FORWARD {} -j {}",
            conditions(&stranger, family),
            if stranger.accepts { "ACCEPT" } else { "DROP" }
        );
    }
    text.push_str(match family {
        Family::V4 => "-A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT\n",
        // Neighbour solicitation and advertisement, then the echo request.
        Family::V6 => {
            "-A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT\n\
             -A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 136 -j ACCEPT\n\
             -A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT\n"
        }
    });
    let (first, last) = (OPEN_PORTS.start(), OPEN_PORTS.end());
    for protocol in ["tcp", "udp"] {
        let _ = writeln!(
            text,
            "-A FORWARD -p {protocol} -m {protocol} --dport {first}:{last} -m conntrack --ctstate NEW -j ACCEPT"
        );
    }
    text.push_str("COMMIT\n");
    text
}

fn conditions(stranger: &Stranger, family: Family) -> String {
    let (net, port) = (family.net(stranger.net), stranger.port);
    let host = match family {
        Family::V4 => format!("{}/32", family.host(stranger.host)),
        Family::V6 => format!("{}/128", family.host(stranger.host)),
    };
    match stranger.shape {
        Shape::NetHostPort => format!("-s {net} -d {host} -p tcp -m tcp --dport {port}"),
        Shape::HostPort => format!("-d {host} -p udp -m udp --dport {port}"),
        Shape::NetPorts => format!("-s {net} -p tcp -m tcp --dport {port}:{}", stranger.port_last()),
        Shape::HostNet => format!("-s {host} -d {net}"),
    }
}
