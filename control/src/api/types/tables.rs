//! What `recent` and `hashlimit` rules keep of addresses.

use super::Family;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Which tables are asked for; all that there are unless told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TablesRequest {
    /// Those of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Those of rules of this family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
}

impl TablesRequest {
    /// Whether it asks for a table.
    #[must_use]
    pub fn fits(&self, name: &str, family: Family) -> bool {
        self.name.as_ref().is_none_or(|wanted| wanted == name)
            && self.family.is_none_or(|wanted| wanted == family)
    }
}

/// One line of an answer: a table, and then what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableLine<T> {
    /// Here begins a table.
    Table {
        /// Its name.
        name: String,
        /// The family of its rules.
        family: Family,
    },
    /// It has this entry.
    Entry(T),
}

/// An address of a `recent` list. Moments are in ticks of 4 ms since the daemon's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecentEntry {
    /// The address.
    pub address: IpAddr,
    /// TTL or hop limit of the last packet; 0 if it was added by hand.
    pub ttl: u8,
    /// When it was seen last.
    pub last_seen: u64,
    /// Which of the moments is the next to be forgotten, from 0.
    pub oldest_pkt: u32,
    /// All moments that are kept.
    pub stamps: Vec<u64>,
}

/// An entry of a `hashlimit` table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HashlimitEntry {
    /// Seconds until it is forgotten unless it is asked again.
    pub expires_secs: u64,
    /// Source address under its mask; zero if the table does not tell sources apart.
    pub src: IpAddr,
    /// Source port, likewise.
    pub sport: u16,
    /// Destination address.
    pub dst: IpAddr,
    /// Destination port.
    pub dport: u16,
    /// What is left, in the kernel's credits. Of a rate match the interval in seconds, 2^32 more if the one before was
    /// over the rate.
    pub credit: u64,
    /// Most that can be left. Of bytes how often that may be filled up; of a rate match what this interval has seen.
    pub credit_cap: u64,
    /// What a packet costs, or 16 bytes. Of a rate match the rate.
    pub cost: u64,
}

/// A change of a `recent` list by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecentEdit {
    /// The list. An address is for the list of its family.
    pub name: String,
    /// What to do.
    pub edit: RecentChange,
}

/// What is done to a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecentChange {
    /// The address is seen now.
    Add(IpAddr),
    /// It is forgotten, if it is known.
    Del(IpAddr),
    /// All are, of both families.
    Flush,
}
