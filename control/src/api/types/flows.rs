//! Tracked flows, and how to ask for some of them.

use super::Family;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

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
    /// Its helper, if a rule gave it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper: Option<String>,
    /// Its zone; 0 is where flows are that no rule put elsewhere.
    #[serde(default)]
    pub zone: u16,
    /// Worker that tracks it.
    pub worker: u8,
    /// Names it, for as long as the daemon runs.
    pub id: u64,
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

/// What was deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// How many have gone.
    pub count: u64,
    /// Which, unless all were to go.
    pub flows: Vec<FlowRow>,
}

/// What happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventKind {
    /// It was made.
    New,
    /// Its state, status or mark has changed.
    Update,
    /// It has gone.
    Destroy,
}

/// Something that happened to a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// What.
    pub kind: EventKind,
    /// Events before this one that were lost because nobody took them in time.
    pub lost: u64,
    /// The flow as it was then.
    pub flow: FlowRow,
}

/// One worker's tracker, under the names of `conntrack -S`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackRow {
    /// The worker.
    pub worker: u8,
    /// Packets that belonged to a flow.
    pub found: u64,
    /// INVALID packets.
    pub invalid: u64,
    /// Flows inserted.
    pub insert: u64,
    /// Flows that could not be inserted although there was room.
    pub insert_failed: u64,
    /// Flows refused because the table was full.
    pub drop: u64,
    /// Flows evicted for others.
    pub early_drop: u64,
}

/// A setting to change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRequest {
    /// Its name, without `net.netfilter.nf_conntrack_`.
    pub name: String,
    /// Its new value.
    pub value: String,
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

impl Net {
    /// The address as given, bits that do not count included.
    #[must_use]
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    /// How many leading bits count.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

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
