//! What rules have counted, without the rules.

use super::{Family, KeptView, RulesView};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Packets and bytes, as a pair: lists of them are long.
pub type Counted = (u64, u64);

/// One family's counters, in the order of [`RulesView`] of the same generation. For who asks often: of ten thousand rules
/// it is a tenth of the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleCounters {
    /// Which packets were judged.
    pub family: Family,
    /// Number of the snapshot they belong to: if it is another one than that of the rules at hand, those are out of date.
    pub generation: u32,
    /// Chains in the order of [`RulesView::chains`].
    pub chains: Vec<ChainCounters>,
    /// What met no rules.
    #[serde(default)]
    pub kept: KeptView,
}

/// One chain's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChainCounters {
    /// What came to its policy; `None` for user chains.
    pub policy: Option<Counted>,
    /// What its rules have counted, in order.
    pub rules: Vec<Counted>,
}

impl From<&RulesView> for RuleCounters {
    fn from(view: &RulesView) -> Self {
        let chains = view.chains.iter().map(|chain| ChainCounters {
            policy: chain.policy.as_ref().map(|policy| (policy.packets, policy.bytes)),
            rules: chain.rules.iter().map(|rule| (rule.packets, rule.bytes)).collect(),
        });
        Self { family: view.family, generation: view.generation, chains: chains.collect(), kept: view.kept }
    }
}
