//! The rules for nftables. Rules of the same shape are one lookup in a map from what they look at to a verdict: by hash
//! where each names one host and port, in a set of intervals where networks or ranges are among it.

use super::{Family, OPEN_PORTS, Rules, Shape, Stranger};
use std::fmt::Write as _;

/// Shapes, the map of each, and whether it has intervals.
const SHAPES: [(Shape, &str, bool); 4] = [
    (Shape::NetHostPort, "net_host_port", true),
    (Shape::HostPort, "host_port", false),
    (Shape::NetPorts, "net_ports", true),
    (Shape::HostNet, "host_net", true),
];

/// A whole file. Naming the table before it is deleted makes the file right for the first time too.
pub(super) fn file(rules: &Rules) -> String {
    let strangers: Vec<Stranger> = rules.strangers().collect();
    let mut text = String::from("table inet firewall\ndelete table inet firewall\ntable inet firewall {\n");
    for family in [Family::V4, Family::V6] {
        for (shape, name, has_intervals) in SHAPES {
            let elements = strangers.iter().filter(|stranger| stranger.shape == shape);
            map(&mut text, &map_name(name, family), (shape, family, has_intervals), elements);
        }
    }
    for family in [Family::V4, Family::V6] {
        let _ = writeln!(text, "chain {} {{", chain(family));
        for (shape, name, _) in SHAPES {
            let _ = writeln!(text, "{} vmap @{}", selector(shape, family), map_name(name, family));
        }
        text.push_str("}\n");
    }
    let (first, last) = (OPEN_PORTS.start(), OPEN_PORTS.end());
    let _ = write!(
        text,
        "chain forward {{\n\
         type filter hook forward priority filter; policy drop;\n\
         ct state established,related accept\n\
         meta nfproto vmap {{ ipv4 : jump strangers4, ipv6 : jump strangers6 }}\n\
         icmp type echo-request accept\n\
         icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, echo-request }} accept\n\
         ct state new meta l4proto {{ tcp, udp }} th dport {first}-{last} accept\n\
         }}\n}}\n"
    );
    text
}

fn map<'rules>(
    text: &mut String,
    name: &str,
    (shape, family, has_intervals): (Shape, Family, bool),
    elements: impl Iterator<Item = &'rules Stranger>,
) {
    let address = match family {
        Family::V4 => "ipv4_addr",
        Family::V6 => "ipv6_addr",
    };
    let key = match shape {
        Shape::NetHostPort => format!("{address} . {address} . inet_service"),
        Shape::HostPort | Shape::NetPorts => format!("{address} . inet_service"),
        Shape::HostNet => format!("{address} . {address}"),
    };
    let _ = writeln!(text, "map {name} {{\ntype {key} : verdict");
    if has_intervals {
        text.push_str("flags interval\n");
    }
    let elements: Vec<String> = elements.map(|stranger| element(stranger, family)).collect();
    // The grammar has no empty list.
    if !elements.is_empty() {
        let _ = writeln!(text, "elements = {{ {} }}", elements.join(",\n"));
    }
    text.push_str("}\n");
}

fn element(stranger: &Stranger, family: Family) -> String {
    let (net, host, port) = (family.net(stranger.net), family.host(stranger.host), stranger.port);
    let key = match stranger.shape {
        Shape::NetHostPort => format!("{net} . {host} . {port}"),
        Shape::HostPort => format!("{host} . {port}"),
        Shape::NetPorts => format!("{net} . {port}-{}", stranger.port_last()),
        Shape::HostNet => format!("{host} . {net}"),
    };
    format!("{key} : {}", if stranger.accepts { "accept" } else { "drop" })
}

/// The fields of a packet that a map is asked for.
fn selector(shape: Shape, family: Family) -> String {
    let ip = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    match shape {
        Shape::NetHostPort => format!("{ip} saddr . {ip} daddr . tcp dport"),
        Shape::HostPort => format!("{ip} daddr . udp dport"),
        Shape::NetPorts => format!("{ip} saddr . tcp dport"),
        Shape::HostNet => format!("{ip} saddr . {ip} daddr"),
    }
}

fn map_name(name: &str, family: Family) -> String {
    match family {
        Family::V4 => format!("{name}4"),
        Family::V6 => format!("{name}6"),
    }
}

const fn chain(family: Family) -> &'static str {
    match family {
        Family::V4 => "strangers4",
        Family::V6 => "strangers6",
    }
}
