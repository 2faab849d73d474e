//! What happens to flows and expectations.

use super::{ExpectRow, FlowRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventKind {
    /// It was made.
    New,
    /// It has changed.
    Update,
    /// It has gone.
    Destroy,
}

/// What changed about a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Changed {
    /// It was answered.
    Reply,
    /// It became safe from being ended early.
    Assured,
    /// The state of its protocol.
    Protoinfo,
    /// Its mark.
    Mark,
    /// Its labels.
    Label,
}

/// Something that happened to a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventRow {
    /// What.
    pub kind: EventKind,
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// Events before this one that this listener has lost: they came faster than it took them.
    pub lost: u64,
    /// What changed: of an `UPDATE`, or of a `NEW` flow that rules have given a mark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<Changed>,
    /// Whether somebody asked for it to happen (`fwctl flows -D`), rather than a packet or time.
    #[serde(default)]
    pub asked: bool,
    /// The flow as it was then.
    pub flow: FlowRow,
}

/// Something that happened to an expectation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExpectEventRow {
    /// What; an expectation is never updated.
    pub kind: EventKind,
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// Events before this one that this listener has lost.
    pub lost: u64,
    /// The expectation.
    pub expectation: ExpectRow,
}
