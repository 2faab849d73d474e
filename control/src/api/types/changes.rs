//! Changes of the rules: what they would do, what they did, and how to take them back.

use super::Family;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of live flows when rules change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowsChoice {
    /// Those that the rules so far let pass go on to pass until they end, whatever the new ones say.
    Keep,
    /// Their next packet meets the new rules, as in netfilter.
    #[default]
    Reevaluate,
    /// As before, and those that could not begin under the new rules are removed.
    Kill,
}

/// What new rules would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiffReport {
    /// One for each family that rules were given for.
    pub families: Vec<FamilyDiff>,
    /// Sets that come with the rules.
    #[serde(default)]
    pub sets: Vec<SetDiff>,
    /// What would become of the flows there are.
    pub flows: FlowFates,
    /// What the operator should know although it is no error.
    pub warnings: Vec<String>,
}

/// A set that comes with rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetDiff {
    /// Its name.
    pub name: String,
    /// Entries of the set in whose place it comes; `None` if it is new.
    pub before: Option<u64>,
    /// Its entries.
    pub after: u64,
}

/// What changes for one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FamilyDiff {
    /// Which.
    pub family: Family,
    /// Chains in which something changes.
    pub chains: Vec<ChainDiff>,
    /// Rules that stay, moved ones included; they keep their counters.
    pub kept: u64,
}

/// What changes in one chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChainDiff {
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Whether the chain itself comes, goes or stays.
    pub change: ChainChange,
    /// Policy before and after, if it changes.
    pub policy: Option<(String, String)>,
    /// Rules that change: those removed, then the others in their new order.
    pub rules: Vec<RuleDiff>,
}

/// What happens to a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChainChange {
    /// It is there before and after.
    #[default]
    Stays,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

/// A rule that comes, goes or moves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleDiff {
    /// Its number before, from 1; `None` for a new one.
    pub from: Option<u32>,
    /// Its number after; `None` for one that goes.
    pub to: Option<u32>,
    /// As iptables-save prints it.
    pub rule: String,
    /// Packets it has counted.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What rules say about the flows there are, each judged as if it began now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowFates {
    /// They could begin.
    pub allowed: u64,
    /// They could not: `--flows kill` removes them.
    pub refused: u64,
    /// It hangs on more than is known of them (TCP flags, lengths, rates, the NIC they came in on). They stay.
    pub unsure: u64,
    /// All those that `--flows keep` would let go on: the rules in force have let their last packets pass.
    #[serde(default)]
    pub kept: u64,
}

/// Back to rules that ran before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Number in the history; without it, what ran before the rules in force.
    #[serde(default)]
    pub number: Option<u64>,
    /// What becomes of the flows there are.
    #[serde(default)]
    pub flows: FlowsChoice,
    /// Seconds within which the rules must be confirmed, or the ones before come back.
    #[serde(default)]
    pub confirm_secs: Option<u32>,
    /// Why; for the history.
    #[serde(default)]
    pub comment: Option<String>,
}

/// Rules that ran, newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryReport {
    /// All that is remembered.
    pub entries: Vec<HistoryEntry>,
    /// The one that runs.
    pub running: u64,
    /// The change that waits for its confirmation.
    pub pending: Option<PendingView>,
    /// Directory it is kept in; `None` if in memory only.
    pub dir: Option<String>,
    /// Why it is not on disk, or not all of it.
    pub trouble: Option<String>,
}

/// Rules that run or ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// Number, never given twice.
    pub number: u64,
    /// When they came into force, microseconds since 1970.
    pub at_us: u64,
    /// Who did it.
    pub who: String,
    /// What was done.
    pub what: String,
    /// Why, if somebody said.
    pub comment: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// What ran before.
    pub replaces: Option<u64>,
    /// The entry whose rules came back by this one.
    pub restores: Option<u64>,
    /// Rules, both families together.
    pub rules: u64,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds; no confirmation was asked for.
    #[default]
    Applied,
    /// It waits for confirmation.
    Unconfirmed,
    /// It was confirmed.
    Confirmed,
    /// It was taken back: not confirmed in time, or by hand.
    RolledBack,
}

/// A change that waits for its confirmation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingView {
    /// Number of the change.
    pub number: u64,
    /// Seconds left.
    pub secs_left: u32,
    /// What comes back without confirmation.
    pub back_to: u64,
}

/// A small change of the rules in force, in iptables' words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EditRequest {
    /// Whose rules.
    pub family: Family,
    /// Which table.
    pub table: String,
    /// What to do.
    pub edit: EditKind,
    /// In which chain.
    pub chain: String,
    /// What follows the chain: a number, a specification, or both.
    pub words: Vec<String>,
    /// What becomes of the flows there are.
    #[serde(default)]
    pub flows: FlowsChoice,
    /// Seconds within which the change must be confirmed, or it is taken back.
    #[serde(default)]
    pub confirm_secs: Option<u32>,
    /// Why; for the history.
    #[serde(default)]
    pub comment: Option<String>,
}

/// What is done to a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EditKind {
    /// `-A`: at its end.
    Add,
    /// `-I`: at its beginning, or at a number.
    Insert,
    /// `-D`: by number or specification.
    Delete,
    /// `-R`: at a number.
    Replace,
}

impl EditKind {
    /// The word `fwctl rule` has for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Insert => "insert",
            Self::Delete => "delete",
            Self::Replace => "replace",
        }
    }
}
