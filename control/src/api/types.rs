//! What the API says, as data: shared by the server and `fwctl`. Field names are the JSON names and stay as they are.
//! All counters count since the daemon started unless said otherwise; bytes of packets are Ethernet frames without FCS.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Which daemon is talking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Program version.
    pub version: String,
    /// Process id.
    pub pid: u32,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// How many packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How fast a [`Traffic`] grew over the last second or so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Packets a second.
    pub packets_per_sec: u64,
    /// Bits a second.
    pub bits_per_sec: u64,
}

/// Everything the daemon counts, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Milliseconds since the daemon started, by the clock that never jumps.
    pub uptime_ms: u64,
    /// Number of the rules and settings in force; grows by one with every `apply`.
    pub generation: u32,
    /// The wires.
    pub wires: Vec<WireStats>,
    /// The NICs, two per wire, left first.
    pub ports: Vec<PortStats>,
    /// The worker threads.
    pub workers: Vec<WorkerStats>,
    /// Dropped packets by reason, all wires together: every reason, in the order of `DropReason`.
    pub drops: Vec<DropCount>,
    /// Packets that connection tracking found INVALID, by cause. Not drops: rules decide about them.
    pub invalid: BTreeMap<String, u64>,
    /// The flow table.
    pub flows: FlowStats,
}

/// A wire. Packets that came in are forwarded, dropped for one reason, or still on their way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WireStats {
    /// Name.
    pub name: String,
    /// Interface name of the left NIC.
    pub left: String,
    /// Interface name of the right NIC.
    pub right: String,
    /// Forwarded from left to right.
    pub left_to_right: Traffic,
    /// Forwarded from right to left.
    pub right_to_left: Traffic,
    /// Rate of `left_to_right`; the server fills it in.
    #[serde(default)]
    pub left_to_right_rate: Rate,
    /// Rate of `right_to_left`; the server fills it in.
    #[serde(default)]
    pub right_to_left_rate: Rate,
    /// Dropped packets by reason, every reason.
    pub drops: Vec<DropCount>,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// Stable name, `DropReason::name`.
    pub reason: String,
    /// How many packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Which end of its wire a NIC is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The left one.
    #[default]
    Left,
    /// The right one.
    Right,
}

/// Where the XDP program of a NIC runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortMode {
    /// In the driver.
    #[default]
    Native,
    /// In the kernel's generic hook.
    Generic,
}

/// A NIC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortStats {
    /// Interface name.
    pub name: String,
    /// Name of its wire.
    pub wire: String,
    /// Which end of it.
    pub side: Side,
    /// Where the XDP program runs.
    pub mode: PortMode,
    /// Whether the NIC reads and writes our memory itself, as the kernel reports it.
    pub zero_copy: bool,
    /// Whether the link is up.
    pub link_up: bool,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Received by us.
    pub rx: Traffic,
    /// Given to the NIC to send.
    pub tx: Traffic,
    /// Rate of `rx`; the server fills it in.
    #[serde(default)]
    pub rx_rate: Rate,
    /// Rate of `tx`; the server fills it in.
    #[serde(default)]
    pub tx_rate: Rate,
    /// Its queues.
    pub queues: Vec<QueueStats>,
}

/// One queue of a NIC. Drops here are the kernel's: such packets never reached us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// Queue number.
    pub queue: u32,
    /// Worker that serves it.
    pub worker: u8,
    /// Descriptors received.
    pub rx_descs: u64,
    /// Descriptors put on the tx ring.
    pub tx_descs: u64,
    /// Packets the kernel dropped: rx ring full, or the packet did not fit a buffer.
    pub rx_dropped: u64,
    /// Of those, because the rx ring was full.
    pub rx_ring_full: u64,
    /// Times the kernel found no buffer in the fill ring.
    pub fill_ring_empty: u64,
    /// Packets we dropped because the tx ring was full.
    pub tx_ring_full: u64,
    /// Descriptors the kernel refused as invalid.
    pub invalid_descs: u64,
    /// System calls made to wake the kernel.
    pub kicks: u64,
    /// Kicks answered with "again".
    pub kicks_again: u64,
}

/// A worker thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Number, from zero.
    pub id: u8,
    /// Core it is pinned to.
    pub core: u32,
    /// Packets taken from its queues.
    pub rx: Traffic,
    /// Rate of `rx`; the server fills it in.
    #[serde(default)]
    pub rx_rate: Rate,
    /// Packets forwarded.
    pub forwarded: Traffic,
    /// Packets dropped, whatever the reason.
    pub dropped: u64,
    /// RSTs and ICMP errors sent for REJECT.
    pub reject_answers: u64,
    /// Receive calls that brought packets.
    pub bursts: u64,
    /// Receive calls that brought none.
    pub idle_polls: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// Flows it tracks now.
    pub flows: u64,
    /// Packets handed to the worker that owns their flow.
    pub handed_off: u64,
    /// Packets taken over from other workers.
    pub taken_over: u64,
    /// Number of the rules and settings it works with.
    pub generation: u32,
}

/// The flow table, all workers together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStats {
    /// Flows now.
    pub count: u64,
    /// Most flows there may be.
    pub max: u64,
    /// Flows made.
    pub inserted: u64,
    /// Flows ended by their timeout.
    pub expired: u64,
    /// Flows ended to make room for others.
    pub evicted: u64,
    /// Flows ended by a packet: reset before an answer, or the same ports opened anew.
    pub closed: u64,
    /// Flows refused because the table was full.
    pub refused: u64,
}

/// Address family, written 4 and 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// One family's rules, as they are in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesView {
    /// Which packets they judge.
    pub family: Family,
    /// Number of the snapshot they belong to.
    pub generation: u32,
    /// As `iptables-save` prints them, from `*filter` to `COMMIT`: ready to be applied again.
    pub text: String,
    /// Chains in the order of `iptables -L`.
    pub chains: Vec<ChainView>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainView {
    /// Name.
    pub name: String,
    /// Default verdict (`ACCEPT`, `DROP`) and what it met; `None` for user chains.
    pub policy: Option<PolicyView>,
    /// Rules that jump or go here; what `-L` shows for user chains.
    pub references: u32,
    /// Its rules in order.
    pub rules: Vec<RuleView>,
}

/// A chain's policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// `ACCEPT` or `DROP`.
    pub verdict: String,
    /// Packets that came to the end of the chain.
    pub packets: u64,
    /// Their bytes, IP header on.
    pub bytes: u64,
}

/// A rule, in the columns of `iptables -L -v -n`. A negated column starts with `!`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Number within the chain, from 1.
    pub num: u32,
    /// Stable name, hexadecimal.
    pub id: String,
    /// Packets that matched.
    pub packets: u64,
    /// Their bytes, IP header on.
    pub bytes: u64,
    /// Target or chain name; empty for a rule that only counts.
    pub target: String,
    /// Whether `target` is a chain that is gone to (`-g`).
    pub goto: bool,
    /// Protocol number, `0` for all.
    pub prot: String,
    /// `--`, `-f` or `!f`.
    pub opt: String,
    /// Ingress interface, `*` for any.
    #[serde(rename = "in")]
    pub in_iface: String,
    /// Egress interface, `*` for any.
    #[serde(rename = "out")]
    pub out_iface: String,
    /// Source network.
    pub source: String,
    /// Destination network.
    pub destination: String,
    /// Everything else the rule asks for and does, as `-L` words it.
    pub extra: String,
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSide {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// What tells flows between the same addresses apart.
    #[serde(flatten)]
    pub key: FlowKey,
    /// Packets seen.
    pub packets: u64,
    /// Their bytes, IP header on.
    pub bytes: u64,
}

/// What tells flows between the same addresses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FlowKey {
    /// TCP, UDP, UDP-Lite, SCTP, DCCP.
    Ports {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
    },
    /// ICMP and ICMPv6.
    Icmp {
        /// Type.
        #[serde(rename = "type")]
        ty: u8,
        /// Code.
        code: u8,
        /// Identifier.
        id: u16,
    },
    /// GRE: keys, which are zero unless it carries PPTP.
    Gre {
        /// Source key.
        srckey: u16,
        /// Destination key.
        dstkey: u16,
    },
    /// Nothing: one flow per pair of addresses and protocol.
    None {},
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRow {
    /// Address family.
    pub family: Family,
    /// IP protocol number.
    pub proto: u8,
    /// Its name as `conntrack -L` writes it, `unknown` if it has none.
    pub proto_name: String,
    /// Seconds until it ends if nothing more comes.
    pub timeout_secs: u32,
    /// Protocol state as netfilter calls it (`ESTABLISHED`, `SYN_SENT`); `None` where the protocol has none.
    pub state: Option<String>,
    /// The direction of the first packet.
    pub orig: FlowSide,
    /// The other one.
    pub reply: FlowSide,
    /// Whether a packet came in reply direction.
    pub seen_reply: bool,
    /// Whether it is safe from being ended early.
    pub assured: bool,
    /// Mark.
    pub mark: u32,
    /// Worker that tracks it.
    pub worker: u8,
}

/// Which flows are asked for; what is `None` does not narrow. In a URL each field is a parameter of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowFilter {
    /// Address family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<u8>,
    /// IP protocol number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Source of the original direction: an address or `ADDRESS/BITS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<Net>,
    /// Destination of the original direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<Net>,
    /// Source of the reply direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_src: Option<Net>,
    /// Destination of the reply direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_dst: Option<Net>,
    /// Source port of the original direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Destination port of the original direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Protocol state, in capitals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Whether it is safe from being ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assured: Option<bool>,
    /// Whether a packet came in reply direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_reply: Option<bool>,
    /// Mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<u32>,
}

/// An address with the number of leading bits that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Net {
    addr: IpAddr,
    bits: u8,
}

/// How many flows there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCount {
    /// That many.
    pub count: u64,
}

/// New rules. A family without text keeps the rules it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// IPv4 rules.
    #[serde(default)]
    pub v4: Option<RulesText>,
    /// IPv6 rules.
    #[serde(default)]
    pub v6: Option<RulesText>,
}

/// A rules file, sent along with its name so that errors can point into it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesText {
    /// File name as the operator wrote it.
    pub file: String,
    /// The text.
    pub text: String,
}

/// What an `apply` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyReport {
    /// Number of the snapshot now in force on every worker.
    pub generation: u32,
    /// Rules in force, both families and all chains together.
    pub rules: u64,
    /// Flows kept.
    pub flows_kept: u64,
    /// What the operator should know although it was no error.
    pub warnings: Vec<String>,
}

/// What kind of "no" an answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request made no sense.
    BadRequest,
    /// There is no such thing here.
    NotFound,
    /// The rules are wrong.
    BadRules,
    /// The rules are right but ask for something not supported.
    Unsupported,
    /// Another `apply` is under way.
    Busy,
    /// The daemon failed.
    #[default]
    Internal,
}

/// Why a request was not done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What kind of "no".
    pub kind: ErrorKind,
    /// One sentence.
    pub message: String,
    /// Everything that is wrong with the rules.
    #[serde(default)]
    pub diagnostics: Vec<Diagnostic>,
}

/// One thing that is wrong with a rules file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// File name as given.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The whole report with the line and a caret, for a terminal.
    pub rendered: String,
}

impl Family {
    /// 4 or 6.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }
}

impl TryFrom<u8> for Family {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            4 => Ok(Self::V4),
            6 => Ok(Self::V6),
            other => Err(format!("a family is 4 or 6, not {other}")),
        }
    }
}

impl From<Family> for u8 {
    fn from(family: Family) -> Self {
        family.number()
    }
}

impl From<dataplane::packet::Family> for Family {
    fn from(family: dataplane::packet::Family) -> Self {
        match family {
            dataplane::packet::Family::V4 => Self::V4,
            dataplane::packet::Family::V6 => Self::V6,
        }
    }
}

impl From<Family> for dataplane::packet::Family {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::V4,
            Family::V6 => Self::V6,
        }
    }
}

impl Net {
    /// Whether `addr` is inside.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (net.to_bits() ^ addr.to_bits()) & mask == 0
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                (net.to_bits() ^ addr.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl std::str::FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, bits) = text.split_once('/').map_or((text, None), |(addr, bits)| (addr, Some(bits)));
        let addr: IpAddr = addr.parse().map_err(|_| format!("`{addr}` is no IP address"))?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= most)
                .ok_or_else(|| format!("`/{bits}` is no prefix length; 0 to {most} are"))?,
        };
        Ok(Self { addr, bits })
    }
}

impl TryFrom<String> for Net {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Net> for String {
    fn from(net: Net) -> Self {
        format!("{}/{}", net.addr, net.bits)
    }
}

impl FlowFilter {
    /// Whether a flow is one of those asked for.
    #[must_use]
    pub fn fits(&self, row: &FlowRow) -> bool {
        fn is<T: PartialEq + Copy>(wanted: Option<T>, got: T) -> bool {
            wanted.is_none_or(|wanted| wanted == got)
        }
        let within = |net: Option<Net>, addr| net.is_none_or(|net| net.contains(addr));
        let Self {
            family,
            proto,
            src,
            dst,
            reply_src,
            reply_dst,
            sport,
            dport,
            state,
            assured,
            seen_reply,
            mark,
        } = self;
        let port = |wanted: Option<u16>, pick: fn(u16, u16) -> u16| {
            wanted.is_none_or(|wanted| match row.orig.key {
                FlowKey::Ports { sport, dport } => pick(sport, dport) == wanted,
                _ => false,
            })
        };
        is(*family, row.family.number())
            && is(*proto, row.proto)
            && within(*src, row.orig.src)
            && within(*dst, row.orig.dst)
            && within(*reply_src, row.reply.src)
            && within(*reply_dst, row.reply.dst)
            && port(*sport, |sport, _| sport)
            && port(*dport, |_, dport| dport)
            && state.as_ref().is_none_or(|state| row.state.as_ref() == Some(state))
            && is(*assured, row.assured)
            && is(*seen_reply, row.seen_reply)
            && is(*mark, row.mark)
    }
}

/// Names `conntrack -L` has for protocols; all others are `unknown`.
#[must_use]
pub const fn proto_name(proto: u8) -> &'static str {
    match proto {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        47 => "gre",
        58 => "icmpv6",
        132 => "sctp",
        136 => "udplite",
        _ => "unknown",
    }
}
