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
    "DSCP",
    "ECN",
    "HL",
    "HMARK",
    "IDLETIMER",
    "LED",
    "LOG",
    "MASQUERADE",
    "NETMAP",
    "NFLOG",
    "NFQUEUE",
    "QUEUE",
    "RATEEST",
    "REDIRECT",
    "SECMARK",
    "SNAT",
    "SNPT",
    "SYNPROXY",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TPROXY",
    "TRACE",
    "TTL",
    "ULOG",
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

/// Why a match will stay unsupported, if it will.
#[must_use]
pub fn why_not(name: &str) -> Option<&'static str> {
    HOST_MATCHES
        .contains(&name)
        .then_some("it asks about the local host; a bump in the wire only sees packets pass")
}

/// All matches, for hints.
pub fn match_names() -> impl Iterator<Item = &'static str> {
    MATCHES.iter().copied()
}

/// All targets, for hints.
pub fn target_names() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().copied()
}
