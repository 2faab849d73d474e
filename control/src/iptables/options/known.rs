//! What iptables 1.8 has and we do not: so that a message can tell "valid, not supported yet" from "unknown".

/// Matches of iptables-extensions(8) and ip6tables that are not in [`super::EXTENSIONS`], with why not where it is final.
const MATCHES: &[&str] = &[
    "addrtype",
    "ah",
    "bpf",
    "cgroup",
    "cluster",
    "connlabel",
    "cpu",
    "devgroup",
    "dscp",
    "dst",
    "ecn",
    "esp",
    "eui64",
    "frag",
    "hashlimit",
    "hbh",
    "hl",
    "ipcomp",
    "iprange",
    "ipv6header",
    "ipvs",
    "length",
    "limit",
    "mac",
    "mh",
    "nfacct",
    "osf",
    "owner",
    "physdev",
    "pkttype",
    "policy",
    "quota",
    "rateest",
    "realm",
    "recent",
    "rpfilter",
    "rt",
    "set",
    "socket",
    "srh",
    "standard",
    "statistic",
    "string",
    "tcpmss",
    "time",
    "tos",
    "ttl",
    "u32",
];

/// Matches that ask about the local host, which a bump in the wire is not.
const HOST_MATCHES: &[&str] = &["cgroup", "cpu", "owner", "policy", "rpfilter", "socket"];

/// Targets of iptables-extensions(8) that are not in [`super::EXTENSIONS`].
const TARGETS: &[&str] = &[
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CLUSTERIP",
    "CONNSECMARK",
    "DNAT",
    "DNPT",
    "HMARK",
    "IDLETIMER",
    "LED",
    "MASQUERADE",
    "NETMAP",
    "NFQUEUE",
    "QUEUE",
    "RATEEST",
    "REDIRECT",
    "SECMARK",
    "SET",
    "SNAT",
    "SNPT",
    "SYNPROXY",
    "TEE",
    "TPROXY",
    "TRACE",
    "ULOG",
];

/// Why targets will stay unsupported.
const FINAL_TARGETS: &[(&[&str], &str)] = &[
    (
        &["AUDIT"],
        "it tells the local host's audit system of verdicts; `-j LOG` or `-j NFLOG` before the rule that decides says as much",
    ),
    (
        &["CHECKSUM"],
        "it fills in checksums that a local sender left to its NIC; here packets have been on a wire",
    ),
    (&["CLASSIFY"], "it chooses a class of the local host's traffic control, which packets here never meet"),
    (
        &["CONNSECMARK", "SECMARK"],
        "security marks are for the local host's security module, which packets here never meet",
    ),
    (&["IDLETIMER", "LED"], "it drives a device of the local host's kernel"),
    (
        &["NFQUEUE", "QUEUE"],
        "it hands packets to a program through the local host's kernel, which never has them here",
    ),
    (&["TEE"], "it sends copies by the local host's routes; a bump in the wire has none"),
    (&["TPROXY"], "it hands packets to a local socket; a bump in the wire only sees packets pass"),
    (&["TRACE"], "`fwctl replay` shows which rule decides a packet, and `-j LOG` logs it on its way"),
    (&["ULOG"], "Linux has it no more; use `-j NFLOG`"),
    (
        &["CLUSTERIP", "DNAT", "DNPT", "MASQUERADE", "NETMAP", "REDIRECT", "SNAT", "SNPT"],
        "it translates addresses; a bump in the wire forwards packets with the addresses they have",
    ),
];

/// Whether `-m NAME` is valid iptables.
#[must_use]
pub fn is_match(name: &str) -> bool {
    MATCHES.contains(&name)
}

/// Whether `-j NAME` is valid iptables.
#[must_use]
pub fn is_target(name: &str) -> bool {
    TARGETS.contains(&name)
}

/// Why a match or target will stay unsupported, if it will.
#[must_use]
pub fn why_not(name: &str) -> Option<&'static str> {
    let host = "it asks about the local host; a bump in the wire only sees packets pass";
    let target = FINAL_TARGETS.iter().find(|(names, _)| names.contains(&name)).map(|(_, why)| *why);
    HOST_MATCHES.contains(&name).then_some(host).or(target)
}

/// All matches, for hints.
pub fn match_names() -> impl Iterator<Item = &'static str> {
    MATCHES.iter().copied()
}

/// All targets, for hints.
pub fn target_names() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().copied()
}
