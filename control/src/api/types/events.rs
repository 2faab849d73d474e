//! What happens to flows.

use super::FlowRow;
use serde::{Deserialize, Serialize};

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
