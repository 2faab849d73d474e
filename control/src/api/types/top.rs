//! Who has how much traffic: flows, hosts, services and rules by rate over a moment.

use super::{Family, FlowKey, Net, Rate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::net::IpAddr;

/// What the largest are largest by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TopBy {
    /// Bytes a second, both directions.
    #[default]
    Bytes,
    /// Packets a second, both directions.
    Packets,
    /// Flows begun a second. Of flows, only new ones are listed, by bytes.
    New,
}

/// How long to look, and what for. In a URL beside the parameters of [`super::FlowFilter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopRequest {
    /// Milliseconds that rates are worked out over, 200 to 10000. Who asks again and again gets the time since the last
    /// answer, if that is not far from this.
    pub interval_ms: u64,
    /// What lists are ordered by.
    pub by: TopBy,
    /// Most entries of each list, 1 to 1000.
    pub n: usize,
    /// Only flows one end of which is there: an address or `ADDRESS/BITS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Net>,
    /// Only flows with that port at one end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl TopRequest {
    /// Shortest and longest interval in milliseconds.
    pub const INTERVAL_MS: std::ops::RangeInclusive<u64> = 200..=10_000;

    /// Least and most entries of a list.
    pub const ENTRIES: std::ops::RangeInclusive<usize> = 1..=1000;

    /// Names of the parameters; all others are the filter's.
    pub const NAMES: [&'static str; 5] = ["interval_ms", "by", "n", "host", "port"];

    /// Whether a flow from and to there, with these ports if it has ports, is asked for.
    #[must_use]
    pub fn fits(&self, ends: [IpAddr; 2], ports: Option<[u16; 2]>) -> bool {
        self.host.is_none_or(|host| ends.into_iter().any(|end| host.contains(end)))
            && self.port.is_none_or(|port| ports.is_some_and(|ports| ports.contains(&port)))
    }

    /// Whether it can be done.
    ///
    /// # Errors
    /// Says what is out of range.
    pub fn check(&self) -> Result<(), String> {
        let (ms, entries) = (Self::INTERVAL_MS, Self::ENTRIES);
        if !ms.contains(&self.interval_ms) {
            return Err(format!("interval_ms must be from {} to {}", ms.start(), ms.end()));
        }
        if !entries.contains(&self.n) {
            return Err(format!("n must be from {} to {}", entries.start(), entries.end()));
        }
        Ok(())
    }
}

impl Default for TopRequest {
    fn default() -> Self {
        Self { interval_ms: 1000, by: TopBy::default(), n: 10, host: None, port: None }
    }
}

/// Who had the most traffic in a moment just past. Bytes are of IP packets, header on; traffic of flows that ended within
/// it is not part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopReport {
    /// Milliseconds looked at.
    pub interval_ms: u64,
    /// Microseconds that the walk over all flows took.
    pub walk_us: u64,
    /// What lists are ordered by.
    pub by: TopBy,
    /// Flows in the table, whether they fit the filter or not.
    pub flows_count: u64,
    /// Flows that had a packet and fit the filter.
    pub flows_active: u64,
    /// Of those, flows begun within.
    pub flows_new: u64,
    /// All of them, in the direction of their first packets.
    pub forth: Rate,
    /// The other way.
    pub back: Rate,
    /// The flows.
    pub flows: Vec<TopFlow>,
    /// Hosts, whoever began the flow.
    pub hosts: Vec<TopHost>,
    /// Hosts that began flows.
    pub sources: Vec<TopHost>,
    /// Hosts that flows were begun to.
    pub destinations: Vec<TopHost>,
    /// Protocols and ports that flows were begun to.
    pub services: Vec<TopService>,
    /// Rules and policies, whatever the filter. By packets if by new flows is asked for.
    pub rules: Vec<TopRule>,
    /// How far hosts and services may be off.
    pub slack: TopSlack,
}

/// There may be more hosts than are kept count of. Then an entry can be too low by no more than this, in bits, packets or
/// new flows a second, as the lists are ordered by; and who had less than that may be missing. 0: exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopSlack {
    /// Of [`TopReport::hosts`].
    pub hosts: u64,
    /// Of [`TopReport::sources`].
    pub sources: u64,
    /// Of [`TopReport::destinations`].
    pub destinations: u64,
    /// Of [`TopReport::services`].
    pub services: u64,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopFlow {
    /// Address family.
    pub family: Family,
    /// IP protocol number.
    pub proto: u8,
    /// Its name, `unknown` if it has none.
    pub proto_name: Cow<'static, str>,
    /// Who began it.
    pub src: IpAddr,
    /// With whom.
    pub dst: IpAddr,
    /// Ports, or what the protocol has instead.
    #[serde(flatten)]
    pub key: FlowKey,
    /// Protocol state; `None` where the protocol has none.
    pub state: Option<Cow<'static, str>>,
    /// Worker that tracks it.
    pub worker: u8,
    /// Names it, as [`super::FlowRow::id`] does.
    pub id: u64,
    /// Whether it began within the interval.
    pub is_new: bool,
    /// In the direction of its first packet.
    pub forth: Rate,
    /// The other way.
    pub back: Rate,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopHost {
    /// Its address.
    pub addr: IpAddr,
    /// What it sent.
    pub sent: Rate,
    /// What was sent to it.
    pub received: Rate,
    /// Its flows that had a packet.
    pub flows: u64,
    /// Flows begun a second.
    pub new_per_sec: u64,
}

/// A protocol, and the port that flows were begun to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopService {
    /// IP protocol number.
    pub proto: u8,
    /// Its name, `unknown` if it has none.
    pub proto_name: Cow<'static, str>,
    /// Destination port; `None` where the protocol has none.
    pub port: Option<u16>,
    /// To the port.
    pub forth: Rate,
    /// From it.
    pub back: Rate,
    /// Flows that had a packet.
    pub flows: u64,
    /// Flows begun a second.
    pub new_per_sec: u64,
}

/// A rule or a chain's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TopRule {
    /// Which packets it judges.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Number within the chain, from 1; `None`: the chain's policy.
    pub num: Option<u32>,
    /// The rule as `iptables-save` prints it, `-P CHAIN VERDICT` for a policy.
    pub rule: String,
    /// What matched it.
    pub rate: Rate,
}
