//! What iptables 1.8 has and we do not: so that a message can tell "valid, not supported yet" from "unknown".

/// Matches of iptables-extensions(8) and ip6tables that are not in [`super::EXTENSIONS`], with why not where it is final.
const MATCHES: &[&str] = &[
    "bpf", "cgroup", "cluster", "cpu", "devgroup", "ipcomp", "ipvs", "mh", "nfacct", "osf", "owner",
    "policy", "rateest", "realm", "rpfilter", "socket", "srh", "standard",
];

/// Matches that will stay unsupported, and why.
const FINAL: &[(&str, &str)] = &[
    ("cgroup", LOCAL),
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
    "SNAT",
    "SNPT",
    "SYNPROXY",
    "TEE",
    "TPROXY",
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
    let of_match = FINAL.iter().find(|(known, _)| *known == name).map(|(_, why)| *why);
    let target = FINAL_TARGETS.iter().find(|(names, _)| names.contains(&name)).map(|(_, why)| *why);
    of_match.or(target)
}

/// All matches, for hints.
pub fn match_names() -> impl Iterator<Item = &'static str> {
    MATCHES.iter().copied()
}

/// All targets, for hints.
pub fn target_names() -> impl Iterator<Item = &'static str> {
    TARGETS.iter().copied()
}
