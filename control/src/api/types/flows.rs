//! Tracked flows.

use super::{Family, FlowFilter, Mark};
use crate::labels::LabelNames;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FlowSide {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// What tells flows between the same addresses apart.
    #[serde(flatten)]
    pub key: FlowKey,
    /// Zone of this direction alone; 0 if it has none of its own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub zone: u16,
    /// Packets seen; missing while `acct` is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Their bytes, IP header on; missing while `acct` is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A [`FlowSide`] as it is read. Serde reads what is flattened or untagged by keeping everything as text first, which for a
/// million flows takes longer than all the rest.
#[derive(Deserialize)]
struct FlatSide {
    src: IpAddr,
    dst: IpAddr,
    sport: Option<u16>,
    dport: Option<u16>,
    #[serde(rename = "type")]
    ty: Option<u8>,
    code: Option<u8>,
    id: Option<u16>,
    srckey: Option<u16>,
    dstkey: Option<u16>,
    #[serde(default)]
    zone: u16,
    packets: Option<u64>,
    bytes: Option<u64>,
}

impl<'de> Deserialize<'de> for FlowSide {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(FlatSide::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl TryFrom<FlatSide> for FlowSide {
    type Error = &'static str;

    fn try_from(flat: FlatSide) -> Result<Self, Self::Error> {
        let FlatSide { src, dst, sport, dport, ty, code, id, srckey, dstkey, zone, packets, bytes } = flat;
        let key = match (sport, dport, ty, code, id, srckey, dstkey) {
            (Some(sport), Some(dport), None, None, None, None, None) => FlowKey::Ports { sport, dport },
            (None, None, Some(ty), Some(code), Some(id), None, None) => FlowKey::Icmp { ty, code, id },
            (None, None, None, None, None, Some(srckey), Some(dstkey)) => FlowKey::Gre { srckey, dstkey },
            (None, None, None, None, None, None, None) => FlowKey::None {},
            _ => return Err("ports, ICMP's type, code and id, or GRE's keys: one of the three, and whole"),
        };
        Ok(Self { src, dst, key, zone, packets, bytes })
    }
}

/// What tells flows between the same addresses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowRow {
    /// Address family.
    pub family: Family,
    /// IP protocol number.
    pub proto: u8,
    /// Its name as `conntrack -L` writes it, `unknown` if it has none.
    pub proto_name: Cow<'static, str>,
    /// Seconds until it ends if nothing more comes.
    pub timeout_secs: u32,
    /// Protocol state as netfilter calls it (`ESTABLISHED`, `SYN_SENT`); `None` where the protocol has none.
    pub state: Option<Cow<'static, str>>,
    /// The direction of the first packet.
    pub orig: FlowSide,
    /// The other one.
    pub reply: FlowSide,
    /// Whether a packet came in reply direction.
    pub seen_reply: bool,
    /// Whether it is safe from being ended early.
    pub assured: bool,
    /// Whether another flow announced it.
    #[serde(default)]
    pub expected: bool,
    /// Whether its packets pass for what earlier rules said, and meet none of those in force.
    #[serde(default, skip_serializing_if = "is_false")]
    pub kept: bool,
    /// Mark.
    pub mark: u32,
    /// Its labels, by name or else by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Its helper, if a rule gave it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub helper: Option<Cow<'static, str>>,
    /// Zone of both directions; 0 is where flows are that no rule put elsewhere.
    #[serde(default)]
    pub zone: u16,
    /// When its first packet came, in milliseconds since 1970; only while `timestamp` is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ms: Option<u64>,
    /// When it ended; only of a flow that has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_ms: Option<u64>,
    /// Worker that tracks it.
    pub worker: u8,
    /// Names it, for as long as the daemon runs.
    pub id: u64,
}

/// How many flows there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowCount {
    /// That many.
    pub count: u64,
}

/// What has come of flows that were to be deleted or changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// How many it was done to.
    pub count: u64,
    /// How many are as they were, because a worker does not answer.
    pub remained: u64,
    /// How many have not got the labels they were to get: they began while no rule spoke of labels, and can have none.
    #[serde(default)]
    pub unlabelled: u64,
}

/// A line of the answer to a request that deletes or changes flows: the flows, and at the end how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub enum TallyLine {
    /// The last line.
    End(Tally),
    /// A flow: as it was before it was deleted, as it is since it was changed.
    Flow(FlowRow),
}

/// What to change about flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateRequest {
    /// Which flows.
    #[serde(default)]
    pub filter: FlowFilter,
    /// Their new mark: bits of the mask are cleared, then those of the value flipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// Labels that they get, comma-separated names or numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_add: Option<String>,
    /// Labels that they lose; empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_del: Option<String>,
    /// Seconds until they end if nothing more comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<u32>,
}

impl UpdateRequest {
    /// Labels that flows lose, and labels that they get; `None` if labels stay as they are.
    ///
    /// # Errors
    /// Names the first word that is no label.
    pub fn labels(&self, names: &LabelNames) -> Result<Option<(u128, u128)>, String> {
        let set = |list: &Option<String>| list.as_deref().map(|list| names.set(list)).transpose();
        let lost = match self.label_del.as_deref() {
            Some("") => Some(u128::MAX),
            _ => set(&self.label_del)?,
        };
        let given = set(&self.label_add)?;
        Ok((lost.is_some() || given.is_some()).then(|| (lost.unwrap_or(0), given.unwrap_or(0))))
    }

    /// Whether it changes nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let Self { filter: _, mark, label_add, label_del, timeout_secs } = self;
        mark.is_none() && label_add.is_none() && label_del.is_none() && timeout_secs.is_none()
    }
}

/// One worker's tracker, under the names of `conntrack -S`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetRequest {
    /// Its name, without `net.netfilter.nf_conntrack_`.
    pub name: String,
    /// Its new value.
    pub value: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_zero(number: &u16) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_of_every_kind_are_read_as_they_are_written() {
        let keys = [
            FlowKey::Ports { sport: 1, dport: 65_535 },
            FlowKey::Icmp { ty: 8, code: 0, id: 7 },
            FlowKey::Gre { srckey: 1, dstkey: 2 },
            FlowKey::None {},
        ];
        for key in keys {
            for (zone, packets) in [(0, None), (3, Some(9))] {
                let (src, dst) = ([10, 0, 0, 1].into(), "fd00::1".parse().unwrap());
                let side = FlowSide { src, dst, key, zone, packets, bytes: packets };
                let text = serde_json::to_string(&side).unwrap();
                assert_eq!(serde_json::from_str::<FlowSide>(&text).unwrap(), side, "{text}");
            }
        }
        let half = r#"{"src":"10.0.0.1","dst":"10.0.0.2","sport":1}"#;
        assert!(serde_json::from_str::<FlowSide>(half).is_err());
    }
}
