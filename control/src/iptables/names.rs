//! Names for numbers: protocols and services. Pure tables, plus a reader for the text of `/etc/services` that the
//! caller fetches. Control thread and tools only.

use crate::labels::LabelNames;
use dataplane::flow::TimeoutPolicy;
use dataplane::sets::Slot;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Protocol numbers and names as in Debian's `/etc/protocols`; the first name is the one printed.
const PROTOCOLS: &[(u8, &[&str])] = &[
    (0, &["ip", "IP"]),
    (0, &["hopopt", "HOPOPT"]),
    (1, &["icmp", "ICMP"]),
    (2, &["igmp", "IGMP"]),
    (3, &["ggp", "GGP"]),
    (4, &["ipencap", "IP-ENCAP"]),
    (5, &["st", "ST"]),
    (6, &["tcp", "TCP"]),
    (8, &["egp", "EGP"]),
    (9, &["igp", "IGP"]),
    (12, &["pup", "PUP"]),
    (17, &["udp", "UDP"]),
    (20, &["hmp", "HMP"]),
    (22, &["xns-idp", "XNS-IDP"]),
    (27, &["rdp", "RDP"]),
    (29, &["iso-tp4", "ISO-TP4"]),
    (33, &["dccp", "DCCP"]),
    (36, &["xtp", "XTP"]),
    (37, &["ddp", "DDP"]),
    (38, &["idpr-cmtp", "IDPR-CMTP"]),
    (41, &["ipv6", "IPv6"]),
    (43, &["ipv6-route", "IPv6-Route"]),
    (44, &["ipv6-frag", "IPv6-Frag"]),
    (45, &["idrp", "IDRP"]),
    (46, &["rsvp", "RSVP"]),
    (47, &["gre", "GRE"]),
    (50, &["esp", "IPSEC-ESP"]),
    (51, &["ah", "IPSEC-AH"]),
    (57, &["skip", "SKIP"]),
    (58, &["ipv6-icmp", "IPv6-ICMP"]),
    (59, &["ipv6-nonxt", "IPv6-NoNxt"]),
    (60, &["ipv6-opts", "IPv6-Opts"]),
    (73, &["rspf", "RSPF", "CPHB"]),
    (81, &["vmtp", "VMTP"]),
    (88, &["eigrp", "EIGRP"]),
    (89, &["ospf", "OSPFIGP"]),
    (93, &["ax.25", "AX.25"]),
    (94, &["ipip", "IPIP"]),
    (97, &["etherip", "ETHERIP"]),
    (98, &["encap", "ENCAP"]),
    (103, &["pim", "PIM"]),
    (108, &["ipcomp", "IPCOMP"]),
    (112, &["vrrp", "VRRP"]),
    (115, &["l2tp", "L2TP"]),
    (124, &["isis", "ISIS"]),
    (132, &["sctp", "SCTP"]),
    (133, &["fc", "FC"]),
    (135, &["mobility-header", "Mobility-Header"]),
    (136, &["udplite", "UDPLite"]),
    (137, &["mpls-in-ip", "MPLS-in-IP"]),
    (138, &["manet"]),
    (139, &["hip", "HIP"]),
    (140, &["shim6", "Shim6"]),
    (141, &["wesp", "WESP"]),
    (142, &["rohc", "ROHC"]),
    (143, &["ethernet", "Ethernet"]),
];

/// Names that iptables itself knows besides the file's.
const EXTRA_PROTOCOLS: &[(u8, &str)] = &[(58, "icmpv6"), (135, "mh"), (0, "all")];

/// Services everybody writes into rules: name, protocol, port.
const SERVICES: &[(&str, &str, u16)] = &[
    ("amqp", "tcp", 5672),
    ("auth", "tcp", 113),
    ("bgp", "tcp", 179),
    ("bootpc", "udp", 68),
    ("bootps", "udp", 67),
    ("dhcpv6-client", "udp", 546),
    ("dhcpv6-server", "udp", 547),
    ("domain", "tcp", 53),
    ("domain", "udp", 53),
    ("domain-s", "tcp", 853),
    ("domain-s", "udp", 853),
    ("epmap", "tcp", 135),
    ("finger", "tcp", 79),
    ("ftp", "tcp", 21),
    ("ftp-data", "tcp", 20),
    ("ftps", "tcp", 990),
    ("ftps-data", "tcp", 989),
    ("git", "tcp", 9418),
    ("gopher", "tcp", 70),
    ("http", "tcp", 80),
    ("http-alt", "tcp", 8080),
    ("https", "tcp", 443),
    ("https", "udp", 443),
    ("imap", "tcp", 143),
    ("imap2", "tcp", 143),
    ("imaps", "tcp", 993),
    ("ipp", "tcp", 631),
    ("ipsec-nat-t", "udp", 4500),
    ("isakmp", "udp", 500),
    ("iscsi-target", "tcp", 3260),
    ("iso-tsap", "tcp", 102),
    ("kerberos", "tcp", 88),
    ("kerberos", "udp", 88),
    ("kpasswd", "tcp", 464),
    ("kpasswd", "udp", 464),
    ("l2f", "udp", 1701),
    ("l2tp", "udp", 1701),
    ("ldap", "tcp", 389),
    ("ldap", "udp", 389),
    ("ldaps", "tcp", 636),
    ("ldaps", "udp", 636),
    ("mail", "tcp", 25),
    ("mdns", "udp", 5353),
    ("microsoft-ds", "tcp", 445),
    ("ms-sql-m", "udp", 1434),
    ("ms-sql-s", "tcp", 1433),
    ("ms-wbt-server", "tcp", 3389),
    ("mysql", "tcp", 3306),
    ("netbios-dgm", "udp", 138),
    ("netbios-ns", "udp", 137),
    ("netbios-ssn", "tcp", 139),
    ("nfs", "tcp", 2049),
    ("nfs", "udp", 2049),
    ("nntp", "tcp", 119),
    ("nntps", "tcp", 563),
    ("ntp", "udp", 123),
    ("openvpn", "tcp", 1194),
    ("openvpn", "udp", 1194),
    ("pop-3", "tcp", 110),
    ("pop3", "tcp", 110),
    ("pop3s", "tcp", 995),
    ("portmapper", "tcp", 111),
    ("portmapper", "udp", 111),
    ("postgresql", "tcp", 5432),
    ("printer", "tcp", 515),
    ("radius", "tcp", 1812),
    ("radius", "udp", 1812),
    ("radius-acct", "tcp", 1813),
    ("radius-acct", "udp", 1813),
    ("redis", "tcp", 6379),
    ("route", "udp", 520),
    ("router", "udp", 520),
    ("rsync", "tcp", 873),
    ("shell", "tcp", 514),
    ("sip", "tcp", 5060),
    ("sip", "udp", 5060),
    ("sip-tls", "tcp", 5061),
    ("sip-tls", "udp", 5061),
    ("smtp", "tcp", 25),
    ("smtps", "tcp", 465),
    ("snmp", "tcp", 161),
    ("snmp", "udp", 161),
    ("snmp-trap", "tcp", 162),
    ("snmp-trap", "udp", 162),
    ("snmptrap", "tcp", 162),
    ("snmptrap", "udp", 162),
    ("socks", "tcp", 1080),
    ("ssh", "tcp", 22),
    ("ssmtp", "tcp", 465),
    ("submission", "tcp", 587),
    ("submissions", "tcp", 465),
    ("sunrpc", "tcp", 111),
    ("sunrpc", "udp", 111),
    ("svn", "tcp", 3690),
    ("syslog", "udp", 514),
    ("tacacs", "tcp", 49),
    ("tacacs", "udp", 49),
    ("telnet", "tcp", 23),
    ("tftp", "udp", 69),
    ("time", "tcp", 37),
    ("time", "udp", 37),
    ("webcache", "tcp", 8080),
    ("whois", "tcp", 43),
    ("www", "tcp", 80),
    ("x11", "tcp", 6000),
    ("xmpp-client", "tcp", 5222),
    ("xmpp-server", "tcp", 5269),
];

/// What names in rules stand for that the rules do not say: ports of services, timeout policies, sets, labels.
pub trait Services {
    /// The port of `name` for protocol `proto` (`tcp`, `udp`, ...; `None` is any of them).
    fn port(&self, name: &str, proto: Option<&str>) -> Option<u16>;

    /// The timeout policies there are.
    fn timeout_policies(&self) -> &[TimeoutPolicy] {
        &[]
    }

    /// The set of that name.
    fn set(&self, _name: &str) -> Option<Arc<Slot>> {
        None
    }

    /// What labels are called.
    fn labels(&self) -> &LabelNames {
        static NONE: LabelNames = LabelNames::none();
        &NONE
    }
}

/// The built-in table of services.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuiltinServices;

/// The built-in table, overridden by what `/etc/services` says.
#[derive(Clone, Debug, Default)]
pub struct FileServices {
    ports: HashMap<(String, String), u16>,
    timeout_policies: Vec<TimeoutPolicy>,
    sets: BTreeMap<String, Arc<Slot>>,
    labels: LabelNames,
}

impl Services for BuiltinServices {
    fn port(&self, name: &str, proto: Option<&str>) -> Option<u16> {
        SERVICES
            .iter()
            .find(|(service, of, _)| *service == name && proto.is_none_or(|proto| proto == *of))
            .map(|&(_, _, port)| port)
    }
}

impl FileServices {
    /// Reads text in the form of `/etc/services`: `name port/proto alias...`, `#` starts a comment. Lines of another
    /// form are skipped, as the C library skips them.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut ports = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
            let Some((port, proto)) = value.split_once('/') else { continue };
            let Ok(port) = port.parse::<u16>() else { continue };
            for name in std::iter::once(name).chain(words) {
                ports.entry((name.to_owned(), proto.to_owned())).or_insert(port);
            }
        }
        Self { ports, ..Self::default() }
    }

    /// The same, with these timeout policies.
    #[must_use]
    pub fn with_timeout_policies(self, timeout_policies: &[TimeoutPolicy]) -> Self {
        Self { timeout_policies: timeout_policies.to_vec(), ..self }
    }

    /// The same with sets that rules may name.
    #[must_use]
    pub fn with_sets(self, sets: BTreeMap<String, Arc<Slot>>) -> Self {
        Self { sets, ..self }
    }

    /// The same with names of labels.
    #[must_use]
    pub fn with_labels(self, labels: LabelNames) -> Self {
        Self { labels, ..self }
    }
}

impl Services for FileServices {
    fn port(&self, name: &str, proto: Option<&str>) -> Option<u16> {
        let protos: &[&str] = &["tcp", "udp", "sctp", "dccp"];
        let lookup = |proto: &str| self.ports.get(&(name.to_owned(), proto.to_owned())).copied();
        proto
            .map_or_else(|| protos.iter().find_map(|proto| lookup(proto)), lookup)
            .or_else(|| BuiltinServices.port(name, proto))
    }

    fn timeout_policies(&self) -> &[TimeoutPolicy] {
        &self.timeout_policies
    }

    fn set(&self, name: &str) -> Option<Arc<Slot>> {
        self.sets.get(name).cloned()
    }

    fn labels(&self) -> &LabelNames {
        &self.labels
    }
}

/// The protocol a `-p` value names: a number up to 255, or a name in any case.
#[must_use]
pub fn protocol_number(text: &str) -> Option<u8> {
    if let Some(number) = super::options::number(text, 255) {
        return u8::try_from(number).ok();
    }
    let lower = text.to_ascii_lowercase();
    let in_file =
        |wanted: &str| PROTOCOLS.iter().find(|(_, names)| names.contains(&wanted)).map(|&(number, _)| number);
    in_file(&lower)
        .or_else(|| in_file(text))
        .or_else(|| EXTRA_PROTOCOLS.iter().find(|(_, name)| *name == lower).map(|&(number, _)| number))
}

/// The name iptables-save prints for a protocol, if it has one.
#[must_use]
pub fn protocol_name(number: u8) -> Option<&'static str> {
    PROTOCOLS.iter().find(|&&(known, _)| known == number).and_then(|(_, names)| names.first().copied())
}

/// All protocol names, for hints.
pub fn protocol_names() -> impl Iterator<Item = &'static str> {
    let file = PROTOCOLS.iter().filter_map(|(_, names)| names.first().copied());
    file.chain(EXTRA_PROTOCOLS.iter().map(|&(_, name)| name))
}

/// The candidate closest to `text`, if it is close enough to be what was meant (one or two wrong letters).
pub fn nearest<'a>(text: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = if text.len() < 5 { 1 } else { 2 };
    if text.is_empty() || text.len() > 32 {
        return None;
    }
    candidates
        .map(|candidate| (distance(&text.to_ascii_lowercase(), &candidate.to_ascii_lowercase()), candidate))
        .filter(|&(distance, candidate)| distance <= allowed && distance < candidate.len())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, change, swap of neighbours) that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, &cb) in b.iter().enumerate() {
            let mut best = (row[j] + usize::from(ca != cb)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && ca == b[j - 1] && a[i - 1] == cb {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_names_numbers_and_aliases() {
        assert_eq!(protocol_number("tcp"), Some(6));
        assert_eq!(protocol_number("Tcp"), Some(6));
        assert_eq!(protocol_number("0x6"), Some(6));
        assert_eq!(protocol_number("icmpv6"), Some(58));
        assert_eq!(protocol_number("mh"), Some(135));
        assert_eq!(protocol_number("all"), Some(0));
        assert_eq!(protocol_number("256"), None);
        assert_eq!(protocol_number("nosuch"), None);
        assert_eq!(protocol_name(58), Some("ipv6-icmp"));
        assert_eq!(protocol_name(253), None);
    }

    #[test]
    fn services_come_from_the_file_first_and_the_table_second() {
        let services = FileServices::parse("# x\nssh 2222/tcp # odd\nfoo 77/udp bar\njunk\nbad x/tcp\n");
        assert_eq!(services.port("ssh", Some("tcp")), Some(2222));
        assert_eq!(services.port("bar", Some("udp")), Some(77));
        assert_eq!(services.port("bar", Some("tcp")), None);
        assert_eq!(services.port("http", Some("tcp")), Some(80));
        assert_eq!(BuiltinServices.port("domain", Some("udp")), Some(53));
    }

    #[test]
    fn a_typing_error_finds_its_word() {
        assert_eq!(nearest("tpc", ["udp", "tcp"].into_iter()), Some("tcp"));
        assert_eq!(nearest("REJCT", ["ACCEPT", "REJECT"].into_iter()), Some("REJECT"));
        assert_eq!(nearest("zzz", ["udp", "tcp"].into_iter()), None);
    }
}
