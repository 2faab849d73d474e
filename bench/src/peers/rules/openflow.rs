//! The rules as flows of Open vSwitch: table 0 sends packets through conntrack, table 1 judges them, table 2 sends what
//! passes out of the other port.
//!
//! A match has masks, not ranges: a range of ports is as many flows as it takes aligned blocks.

use super::{Family, OPEN_PORTS, Rules, Shape, Stranger};
use std::fmt::Write as _;
use std::ops::RangeInclusive;

/// What passes and is a connection from now on; `zone` keeps it apart from anybody else's.
const COMMIT: &str = "ct(commit,zone=1),goto_table:2";

/// What passes as it is.
const PASS: &str = "goto_table:2";

/// One flow a line.
pub(super) fn flows(rules: &Rules) -> String {
    // ARP is nobody's connection, and neither is its successor.
    let mut text = format!("table=0,priority=100,arp,actions={PASS}\n");
    for kind in [135, 136] {
        let _ = writeln!(text, "table=0,priority=100,icmp6,icmp_type={kind},actions={PASS}");
    }
    for family in [Family::V4, Family::V6] {
        let Words { ip, icmp, tcp, udp, echo, .. } = words(family);
        let _ = writeln!(text, "table=0,priority=50,{ip},actions=ct(table=1,zone=1)");
        for state in ["est", "rel"] {
            let _ = writeln!(text, "table=1,priority=100,ct_state=+trk+{state},{ip},actions={PASS}");
        }
        for stranger in rules.strangers() {
            let actions = if stranger.accepts { COMMIT } else { "drop" };
            for conditions in conditions(&stranger, family) {
                let _ = writeln!(text, "table=1,priority=50,{conditions},actions={actions}");
            }
        }
        let new = "ct_state=+trk+new";
        let _ = writeln!(text, "table=1,priority=10,{new},{icmp},icmp_type={echo},actions={COMMIT}");
        for protocol in [tcp, udp] {
            for (port, mask) in blocks(OPEN_PORTS) {
                let _ = writeln!(
                    text,
                    "table=1,priority=10,{new},{protocol},tp_dst={port:#x}/{mask:#x},actions={COMMIT}"
                );
            }
        }
    }
    // By port, not by MAC address: the flows that the datapath derives then look at no address of Ethernet's.
    text.push_str("table=2,in_port=1,actions=output:2\ntable=2,in_port=2,actions=output:1\n");
    text
}

/// How a family is spelled.
struct Words {
    ip: &'static str,
    icmp: &'static str,
    tcp: &'static str,
    udp: &'static str,
    src: &'static str,
    dst: &'static str,
    /// Type of an echo request.
    echo: u8,
}

const fn words(family: Family) -> Words {
    match family {
        Family::V4 => {
            Words { ip: "ip", icmp: "icmp", tcp: "tcp", udp: "udp", src: "nw_src", dst: "nw_dst", echo: 8 }
        }
        Family::V6 => Words {
            ip: "ipv6",
            icmp: "icmp6",
            tcp: "tcp6",
            udp: "udp6",
            src: "ipv6_src",
            dst: "ipv6_dst",
            echo: 128,
        },
    }
}

fn conditions(stranger: &Stranger, family: Family) -> Vec<String> {
    let Words { ip, tcp, udp, src, dst, .. } = words(family);
    let (net, host, port) = (family.net(stranger.net), family.host(stranger.host), stranger.port);
    match stranger.shape {
        Shape::NetHostPort => vec![format!("{tcp},{src}={net},{dst}={host},tp_dst={port}")],
        Shape::HostPort => vec![format!("{udp},{dst}={host},tp_dst={port}")],
        Shape::NetPorts => {
            let flow = |(port, mask)| format!("{tcp},{src}={net},tp_dst={port:#x}/{mask:#x}");
            blocks(port..=stranger.port_last()).into_iter().map(flow).collect()
        }
        Shape::HostNet => vec![format!("{ip},{src}={host},{dst}={net}")],
    }
}

/// The fewest aligned blocks, as value and mask, that make up a range of ports.
pub(super) fn blocks(ports: RangeInclusive<u16>) -> Vec<(u16, u16)> {
    let (mut first, end) = (u32::from(*ports.start()), u32::from(*ports.end()) + 1);
    let mut blocks = Vec::new();
    while first < end {
        // As large as where it begins allows, and as what is left does.
        let aligned = if first == 0 { 1 << 16 } else { 1 << first.trailing_zeros() };
        let size = aligned.min(1 << (end - first).ilog2());
        let mask = u16::try_from((1 << 16) - size).unwrap_or_default();
        blocks.push((u16::try_from(first).unwrap_or_default(), mask));
        first += size;
    }
    blocks
}
