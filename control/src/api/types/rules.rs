//! Rules as they are in force, and as they are handed in.

use super::{Family, FlowsChoice};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One family's rules, as they are in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RulesView {
    /// Which packets they judge.
    pub family: Family,
    /// Number of the snapshot they belong to.
    pub generation: u32,
    /// As `iptables-save` prints them, from `*filter` to `COMMIT`: ready to be applied again.
    pub text: String,
    /// Chains in the order of `iptables -L`.
    pub chains: Vec<ChainView>,
    /// What met none of these rules, nor of others before, because its flow went on under earlier ones.
    #[serde(default)]
    pub kept: KeptView,
}

/// Traffic of flows that go on under earlier rules, counted since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptView {
    /// Packets.
    pub packets: u64,
    /// Their bytes, IP header on.
    pub bytes: u64,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChainView {
    /// Its table.
    pub table: String,
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyView {
    /// `ACCEPT` or `DROP`.
    pub verdict: String,
    /// Packets that came to the end of the chain.
    pub packets: u64,
    /// Their bytes, IP header on.
    pub bytes: u64,
}

/// A rule, in the columns of `iptables -L -v -n`. A negated column starts with `!`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// New rules. A family without text keeps the rules it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// IPv4 rules.
    #[serde(default)]
    pub v4: Option<RulesText>,
    /// IPv6 rules.
    #[serde(default)]
    pub v6: Option<RulesText>,
    /// Sets that come with them, as `ipset save` prints them: in place of those with the same names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sets: Option<RulesText>,
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

/// A rules file, sent along with its name so that errors can point into it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RulesText {
    /// File name as the operator wrote it.
    pub file: String,
    /// The text.
    pub text: String,
}

/// What an `apply` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyReport {
    /// Number of the snapshot now in force on every worker.
    pub generation: u32,
    /// Rules in force, both families and all chains together.
    pub rules: u64,
    /// Flows that are there, whatever will become of them.
    pub flows_kept: u64,
    /// What the operator should know although it was no error.
    pub warnings: Vec<String>,
    /// Number in the history.
    #[serde(default)]
    pub number: u64,
    /// Number of the rules that were in force before.
    #[serde(default)]
    pub before: u64,
    /// Seconds left to confirm the rules in; `None` if they need not be.
    #[serde(default)]
    pub confirm_secs: Option<u32>,
    /// Flows removed because the rules do not allow them; `None` if that was not asked for.
    #[serde(default)]
    pub flows_killed: Option<u64>,
    /// Flows that go on whatever the rules say; `None` if that was not asked for.
    #[serde(default)]
    pub flows_exempt: Option<u64>,
}

/// One thing that is wrong with a rules file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
