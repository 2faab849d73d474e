//! Names that stand for numbers: protocols, services, ICMP types; and the names of everything iptables knows, so that
//! "not supported" can be told from "no such thing".

use dataplane::packet::{Family, proto};
use std::collections::HashMap;
use std::sync::OnceLock;

/// Protocols by number, named as Debian's `/etc/protocols` names them.
const PROTOCOLS: &[(u8, &str)] = &[
    (1, "icmp"), (2, "igmp"), (3, "ggp"), (4, "ipencap"), (5, "st"), (6, "tcp"), (8, "egp"), (9, "igp"), (12, "pup"),
    (17, "udp"), (20, "hmp"), (22, "xns-idp"), (27, "rdp"), (29, "iso-tp4"), (33, "dccp"), (36, "xtp"), (37, "ddp"),
    (38, "idpr-cmtp"), (41, "ipv6"), (43, "ipv6-route"), (44, "ipv6-frag"), (45, "idrp"), (46, "rsvp"), (47, "gre"),
    (50, "esp"), (51, "ah"), (57, "skip"), (58, "ipv6-icmp"), (59, "ipv6-nonxt"), (60, "ipv6-opts"), (73, "rspf"),
    (81, "vmtp"), (88, "eigrp"), (89, "ospf"), (93, "ax.25"), (94, "ipip"), (97, "etherip"), (98, "encap"),
    (103, "pim"), (108, "ipcomp"), (112, "vrrp"), (115, "l2tp"), (124, "isis"), (132, "sctp"), (133, "fc"),
    (135, "mobility-header"), (136, "udplite"), (137, "mpls-in-ip"), (138, "manet"), (139, "hip"), (140, "shim6"),
    (141, "wesp"), (142, "rohc"), (143, "ethernet"),
];

/// Other names iptables takes.
const PROTOCOL_ALIASES: &[(u8, &str)] = &[(58, "icmpv6"), (135, "mh"), (135, "ipv6-mh"), (0, "all")];

/// Number of a protocol given by number or name; 0 is `all`.
pub(super) fn protocol(text: &str) -> Option<u8> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let lower = text.to_ascii_lowercase();
    PROTOCOLS.iter().chain(PROTOCOL_ALIASES).find(|(_, name)| *name == lower).map(|(number, _)| *number)
}

/// A protocol as iptables-save writes it.
pub(super) fn protocol_name(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

/// Port of a service name, by the system's table and a few that every system has.
pub(super) fn service(name: &str, protocol: u8) -> Option<u16> {
    static SYSTEM: OnceLock<HashMap<(String, String), u16>> = OnceLock::new();
    const EVERYWHERE: &[(&str, u16)] = &[
        ("ftp-data", 20), ("ftp", 21), ("ssh", 22), ("telnet", 23), ("smtp", 25), ("domain", 53), ("bootps", 67),
        ("bootpc", 68), ("tftp", 69), ("http", 80), ("www", 80), ("kerberos", 88), ("pop3", 110), ("sunrpc", 111),
        ("ntp", 123), ("netbios-ns", 137), ("netbios-dgm", 138), ("netbios-ssn", 139), ("imap2", 143), ("imap", 143),
        ("snmp", 161), ("bgp", 179), ("ldap", 389), ("https", 443), ("microsoft-ds", 445), ("isakmp", 500),
        ("syslog", 514), ("submission", 587), ("ldaps", 636), ("imaps", 993), ("pop3s", 995), ("openvpn", 1194),
        ("mysql", 3306), ("postgresql", 5432),
    ];
    let system = SYSTEM.get_or_init(|| parse_services(&std::fs::read_to_string("/etc/services").unwrap_or_default()));
    let transport = protocol_name(protocol);
    system
        .get(&(name.to_owned(), transport))
        .copied()
        .or_else(|| EVERYWHERE.iter().find(|(known, _)| *known == name).map(|(_, port)| *port))
}

/// Reads services(5): name, port/protocol, aliases, comment.
fn parse_services(text: &str) -> HashMap<(String, String), u16> {
    let mut services = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let (Some(name), Some((port, transport))) = (words.next(), words.next().and_then(|word| word.split_once('/')))
        else {
            continue;
        };
        let Ok(port) = port.parse() else { continue };
        for name in std::iter::once(name).chain(words) {
            services.entry((name.to_owned(), transport.to_owned())).or_insert(port);
        }
    }
    services
}

/// ICMP types by name: type and range of codes. Source: the list `iptables -p icmp -h` prints.
const ICMP: &[(&str, u8, u8, u8)] = &[
    ("echo-reply", 0, 0, 255), ("pong", 0, 0, 255),
    ("destination-unreachable", 3, 0, 255), ("network-unreachable", 3, 0, 0), ("host-unreachable", 3, 1, 1),
    ("protocol-unreachable", 3, 2, 2), ("port-unreachable", 3, 3, 3), ("fragmentation-needed", 3, 4, 4),
    ("source-route-failed", 3, 5, 5), ("network-unknown", 3, 6, 6), ("host-unknown", 3, 7, 7),
    ("network-prohibited", 3, 9, 9), ("host-prohibited", 3, 10, 10), ("TOS-network-unreachable", 3, 11, 11),
    ("TOS-host-unreachable", 3, 12, 12), ("communication-prohibited", 3, 13, 13),
    ("host-precedence-violation", 3, 14, 14), ("precedence-cutoff", 3, 15, 15),
    ("source-quench", 4, 0, 255),
    ("redirect", 5, 0, 255), ("network-redirect", 5, 0, 0), ("host-redirect", 5, 1, 1),
    ("TOS-network-redirect", 5, 2, 2), ("TOS-host-redirect", 5, 3, 3),
    ("echo-request", 8, 0, 255), ("ping", 8, 0, 255),
    ("router-advertisement", 9, 0, 255), ("router-solicitation", 10, 0, 255),
    ("time-exceeded", 11, 0, 255), ("ttl-exceeded", 11, 0, 255), ("ttl-zero-during-transit", 11, 0, 0),
    ("ttl-zero-during-reassembly", 11, 1, 1),
    ("parameter-problem", 12, 0, 255), ("ip-header-bad", 12, 0, 0), ("required-option-missing", 12, 1, 1),
    ("timestamp-request", 13, 0, 255), ("timestamp-reply", 14, 0, 255),
    ("address-mask-request", 17, 0, 255), ("address-mask-reply", 18, 0, 255),
];

/// ICMPv6 types by name. Source: the list `ip6tables -p icmpv6 -h` prints.
const ICMPV6: &[(&str, u8, u8, u8)] = &[
    ("destination-unreachable", 1, 0, 255), ("no-route", 1, 0, 0), ("communication-prohibited", 1, 1, 1),
    ("beyond-scope", 1, 2, 2), ("address-unreachable", 1, 3, 3), ("port-unreachable", 1, 4, 4),
    ("failed-policy", 1, 5, 5), ("reject-route", 1, 6, 6),
    ("packet-too-big", 2, 0, 255),
    ("time-exceeded", 3, 0, 255), ("ttl-exceeded", 3, 0, 255), ("ttl-zero-during-transit", 3, 0, 0),
    ("ttl-zero-during-reassembly", 3, 1, 1),
    ("parameter-problem", 4, 0, 255), ("bad-header", 4, 0, 0), ("unknown-header-type", 4, 1, 1),
    ("unknown-option", 4, 2, 2),
    ("echo-request", 128, 0, 255), ("ping", 128, 0, 255), ("echo-reply", 129, 0, 255), ("pong", 129, 0, 255),
    ("router-solicitation", 133, 0, 255), ("router-advertisement", 134, 0, 255),
    ("neighbour-solicitation", 135, 0, 255), ("neighbor-solicitation", 135, 0, 255),
    ("neighbour-advertisement", 136, 0, 255), ("neighbor-advertisement", 136, 0, 255), ("redirect", 137, 0, 255),
];

/// Type and codes of an ICMP type given by name (or an unambiguous beginning of one).
pub(super) fn icmp_type(name: &str, family: Family) -> Option<(u8, (u8, u8))> {
    let table = if family == Family::V4 { ICMP } else { ICMPV6 };
    let lower = name.to_ascii_lowercase();
    let named = |entry: &&(&str, u8, u8, u8)| entry.0.to_ascii_lowercase() == lower;
    let begins = |entry: &&(&str, u8, u8, u8)| entry.0.to_ascii_lowercase().starts_with(&lower);
    let entry = table.iter().find(named).or_else(|| {
        let mut candidates = table.iter().filter(begins);
        candidates.next().filter(|_| candidates.next().is_none())
    })?;
    Some((entry.1, (entry.2, entry.3)))
}

/// The ICMP of a family.
pub(super) const fn icmp_proto(family: Family) -> u8 {
    match family {
        Family::V4 => proto::ICMP,
        Family::V6 => proto::ICMPV6,
    }
}

/// Matches iptables knows and we do not (yet). Source: iptables-extensions(8).
const OTHER_MATCHES: &[&str] = &[
    "addrtype", "ah", "bpf", "cgroup", "cluster", "connbytes", "connlabel", "connlimit", "connmark", "cpu", "dccp",
    "devgroup", "dscp", "dst", "ecn", "esp", "eui64", "frag", "hashlimit", "hbh", "helper", "hl", "ipcomp", "iprange",
    "ipv6header", "ipvs", "l2tp", "length", "limit", "mac", "mark", "mh", "nfacct", "osf", "owner", "physdev",
    "pkttype", "policy", "quota", "rateest", "realm", "recent", "rpfilter", "rt", "set", "socket", "srh", "statistic",
    "string", "tcpmss", "time", "tos", "ttl", "u32",
];

/// Targets iptables knows and we do not (yet).
const OTHER_TARGETS: &[&str] = &[
    "AUDIT", "CHECKSUM", "CLASSIFY", "CLUSTERIP", "CONNMARK", "CONNSECMARK", "CT", "DNAT", "DNPT", "DSCP", "ECN", "HL",
    "HMARK", "IDLETIMER", "LED", "LOG", "MARK", "MASQUERADE", "NETMAP", "NFLOG", "NFQUEUE", "NOTRACK", "QUEUE",
    "RATEEST", "REDIRECT", "SECMARK", "SET", "SNAT", "SNPT", "SYNPROXY", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS",
    "TPROXY", "TRACE", "TTL", "ULOG",
];

/// Whether iptables has a match of this name.
pub(super) fn is_known_match(name: &str) -> bool {
    OTHER_MATCHES.contains(&name)
}

/// Whether iptables has a target of this name.
pub(super) fn is_known_target(name: &str) -> bool {
    OTHER_TARGETS.contains(&name)
}
