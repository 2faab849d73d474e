//! Which flows are asked for.

use super::{FlowKey, FlowRow, Mark, Net};
use crate::labels::LabelNames;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which flows are asked for; what is not given does not narrow. In a URL each field is a parameter of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FlowFilter {
    /// Address family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub family: Option<u8>,
    /// IP protocol number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Source of the original direction: an address or `ADDRESS/BITS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub src: Option<Net>,
    /// Destination of the original direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst: Option<Net>,
    /// Source of the reply direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_src: Option<Net>,
    /// Destination of the reply direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_dst: Option<Net>,
    /// Source port of the original direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Destination port of the original direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Source port of the reply direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_sport: Option<u16>,
    /// Destination port of the reply direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_dport: Option<u16>,
    /// ICMP or ICMPv6 type of the original direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_type: Option<u8>,
    /// Its code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_code: Option<u8>,
    /// Its identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_id: Option<u16>,
    /// Protocol state, in capitals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Whether it is safe from being ended early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assured: Option<bool>,
    /// Whether a packet came in reply direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_reply: Option<bool>,
    /// Whether another flow announced it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<bool>,
    /// Mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
    /// All of these labels: comma-separated names or numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Zone of both directions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<u16>,
    /// Zone of the original direction alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orig_zone: Option<u16>,
    /// Zone of the reply direction alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_zone: Option<u16>,
    /// What no flow of ours is: translated, offloaded, or with a timer that stands still. No flow fits.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub never: bool,
}

impl FlowFilter {
    /// Whether a flow is one of those asked for.
    #[must_use]
    pub fn fits(&self, row: &FlowRow) -> bool {
        fn is<T: PartialEq + Copy>(wanted: Option<T>, got: T) -> bool {
            wanted.is_none_or(|wanted| wanted == got)
        }
        fn has<T: PartialEq + Copy>(wanted: Option<T>, got: Option<T>) -> bool {
            wanted.is_none() || wanted == got
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
            reply_sport,
            reply_dport,
            icmp_type,
            icmp_code,
            icmp_id,
            state,
            assured,
            seen_reply,
            expected,
            mark,
            label,
            zone,
            orig_zone,
            reply_zone,
            never,
        } = self;
        let ports = |key| match key {
            FlowKey::Ports { sport, dport } => Some((sport, dport)),
            _ => None,
        };
        let icmp = match row.orig.key {
            FlowKey::Icmp { ty, code, id } => Some((ty, code, id)),
            _ => None,
        };
        let (orig, reply) = (ports(row.orig.key), ports(row.reply.key));
        !never
            && is(*family, row.family.number())
            && is(*proto, row.proto)
            && within(*src, row.orig.src)
            && within(*dst, row.orig.dst)
            && within(*reply_src, row.reply.src)
            && within(*reply_dst, row.reply.dst)
            && has(*sport, orig.map(|(sport, _)| sport))
            && has(*dport, orig.map(|(_, dport)| dport))
            && has(*reply_sport, reply.map(|(sport, _)| sport))
            && has(*reply_dport, reply.map(|(_, dport)| dport))
            && has(*icmp_type, icmp.map(|(ty, ..)| ty))
            && has(*icmp_code, icmp.map(|(_, code, _)| code))
            && has(*icmp_id, icmp.map(|(.., id)| id))
            && has(state.as_deref(), row.state.as_deref())
            && is(*assured, row.assured)
            && is(*seen_reply, row.seen_reply)
            && is(*expected, row.expected)
            && mark.is_none_or(|mark| mark.fits(row.mark))
            && label
                .as_deref()
                .is_none_or(|label| label.split(',').all(|label| row.labels.iter().any(|has| has == label)))
            && is(*zone, row.zone)
            && is(*orig_zone, row.orig.zone)
            && is(*reply_zone, row.reply.zone)
    }

    /// The same with labels called as flows' are ([`FlowRow::labels`]).
    ///
    /// # Errors
    /// Names the first word that is no label.
    pub fn with_labels(self, names: &LabelNames) -> Result<Self, String> {
        let label = self.label.as_deref().map(|list| names.set(list)).transpose()?;
        Ok(Self { label: label.map(|labels| names.list(labels).join(",")), ..self })
    }

    /// Whether every flow fits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
