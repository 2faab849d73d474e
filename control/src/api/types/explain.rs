//! A packet explained: what it is, whose it is, what connection tracking and the rules say of it, and what becomes of it. The
//! answer to `POST /v1/explain`, and of the same form what `fwctl trace` tells of packets that did pass by.

use super::FlowRow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A packet to explain. Nothing is sent and nothing is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The NIC it comes in on.
    #[serde(rename = "in")]
    pub ingress: String,
    /// The packet by what it says; instead of `frame`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<PacketSpec>,
    /// The frame in hexadecimal digits, Ethernet header on; instead of `packet`. Spaces, colons and the offsets that `tcpdump
    /// -xx` prints may be among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// Whether the frame was cut, and filled up with zeros: its checksums say nothing then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_cut: bool,
}

/// A packet by what it says. What is left out is what a first packet to that place would have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PacketSpec {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, `udplite`, `gre`, `esp`, `ah`, or a number.
    pub proto: String,
    /// Source address.
    pub src: Option<IpAddr>,
    /// Destination address, of the same family.
    pub dst: Option<IpAddr>,
    /// Source port; 40000 unless given, of protocols with ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// TCP flags, comma-separated: `syn`, `syn,ack`, `fin,psh,urg`, `none`. Unless given: `syn`, or `ack` if the connection is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// TCP sequence number. Unless given: the one that the connection has come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u32>,
    /// TCP acknowledgement number, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<u32>,
    /// ICMP type and code, by name or as `3/1`. Unless given: an echo request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<String>,
    /// ICMP identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp_id: Option<u16>,
    /// TTL or hop limit; 64 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
    /// TOS or traffic class; 0 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<u8>,
    /// Bytes of the IP packet, header on. Unless given: as many as the headers have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u16>,
    /// Source MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_src: Option<String>,
    /// Destination MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_dst: Option<String>,
    /// VLAN tags, outer one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlan: Vec<u16>,
}

/// Everything about one packet, in the order in which it happens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// Generation of the rules and settings it was judged by.
    pub generation: u32,
    /// What it is.
    pub packet: ExplainedPacket,
    /// Which worker judges it; `None` if it ends before that is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<ExplainedOwner>,
    /// The flow it belongs to or is about; `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<ExplainedFlow>,
    /// Its connection state; `None` if it ends before it is tracked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ct: Option<ExplainedState>,
    /// Its way through the rules: each that it matched, and those that it did not match and that would have decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<ExplainedStep>,
    /// Rules asked in all.
    #[serde(default)]
    pub tried: u64,
    /// Rules that would have decided but did not match, and that are not among the steps because they are too many.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: u64,
    /// What becomes of it.
    pub verdict: ExplainedVerdict,
    /// What else is to be known: assumptions, and what cannot be foreseen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A name that counters and rules have for something, and a sentence about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Named {
    /// The name, as `fwctl stats` prints it.
    pub name: String,
    /// The sentence.
    pub text: String,
}

/// What a packet is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedPacket {
    /// The NIC it comes in on.
    pub ingress: String,
    /// The NIC it would leave on.
    pub egress: String,
    /// One line: `IPv4 tcp 10.0.0.1:40000 > 10.0.0.2:443 SYN ttl 64 length 60`.
    pub summary: String,
    /// Bytes of the frame, Ethernet header on.
    pub frame_len: u32,
    /// Its headers one by one, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Why it is no packet that could be judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed: Option<Named>,
}

/// Which worker judges a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedOwner {
    /// The worker.
    pub worker: u8,
    /// Its bucket, of 256.
    pub bucket: u8,
    /// How that was found.
    pub why: String,
}

/// How a packet relates to a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// It belongs to it and goes the way of its first packet.
    #[default]
    Original,
    /// It belongs to it and goes the other way.
    Reply,
    /// It is an ICMP error about a packet of it.
    About,
}

/// The flow that a packet belongs to or is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedFlow {
    /// How they relate.
    pub relation: Relation,
    /// The flow as it is before the packet.
    pub flow: FlowRow,
    /// What the packet changes about it: `tcp SYN_SENT -> SYN_RECV`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// Whether workers remember what rules said of such packets, and need not ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembered: Option<String>,
}

/// Connection state of a packet, and why it has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedState {
    /// `NEW`, `ESTABLISHED`, `RELATED`, `INVALID` or `UNTRACKED`.
    pub state: String,
    /// Of an INVALID packet, the reason by its counter's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Named>,
    /// One sentence.
    pub why: String,
}

/// What a step is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A rule whose conditions hold.
    #[default]
    Matched,
    /// A rule with a condition that does not.
    Failed,
    /// A built-in chain's policy.
    Policy,
    /// The end of another chain: back to the one that called it.
    Return,
}

/// A rule as people find it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RulePlace {
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its number in the chain, from 1, as `iptables -L --line-numbers` counts; `None` for a policy and for a chain's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// What it says, as iptables-save prints it.
    pub text: String,
    /// Where that stands: file and line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// A step of a packet through the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedStep {
    /// What it is.
    pub kind: StepKind,
    /// How many chains deep it is: 0 in a built-in chain.
    pub depth: u32,
    /// The rule.
    #[serde(flatten)]
    pub rule: RulePlace,
    /// Of a rule that did not match, the condition that failed, and what the packet has instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// What the rule did: `mark 0x0 -> 0x1`, `would log "..."`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It leaves on the other NIC.
    #[default]
    Accept,
    /// It does not.
    Drop,
    /// It does not, and its sender is told.
    Reject,
    /// It is a fragment, and waits for the rest of its datagram.
    Held,
}

/// What becomes of a packet, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedVerdict {
    /// What becomes of it.
    pub verdict: Fate,
    /// Why it is dropped, by the name of the counter that counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Named>,
    /// The rule or policy that decided, if rules did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RulePlace>,
    /// What the sender is answered: `TCP RST`, `ICMP port unreachable (3/3)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

impl Fate {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Held => "held",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}
