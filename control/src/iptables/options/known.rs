//! What iptables 1.8 has and we do not: so that a message can tell "valid, not supported yet" from "unknown".

/// Matches of iptables-extensions(8) and ip6tables that are not in [`super::EXTENSIONS`], with why not where it is final.
const MATCHES: &[&str] = &[
    "bpf",
    "cgroup",
    "cluster",
    "connlabel",
    "cpu",
    "devgroup",
    "ipcomp",
    "ipvs",
    "mh",
    "nfacct",
    "osf",
    "owner",
    "policy",
    "rateest",
    "realm",
    "rpfilter",
    "set",
    "socket",
    "srh",
    "standard",
];

/// Matches that will stay unsupported, and why.
const FINAL: &[(&str, &str)] = &[
    ("cgroup", LOCAL),
    ("connlabel", "flows have no labels here; `-m connmark` gives them 32 bits"),
    ("cpu", "which core takes a packet is for the NIC's queues to say; a rule must not hang on it"),
    ("mh", "Mobile IPv6's headers are not looked into; `-p mh` matches packets that carry one"),
    ("owner", LOCAL),
    ("policy", LOCAL),
    ("rpfilter", LOCAL),
    ("socket", LOCAL),
];

const LOCAL: &str = "it asks about the local host; a bump in the wire only sees packets pass";

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
    "SET",
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
    FINAL.iter().find(|(known, _)| *known == name).map(|(_, why)| *why)
}

/// All matches, for hints.
pub fn match_names() -> impl Iterator<Item = &'static str> {
    MATCHES.iter().copied()
}

/// All targets, for hints.
pub fn target_names() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().copied()
}
