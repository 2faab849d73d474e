//! How rules are written: each rule's canonical text as `iptables-save` prints it, and its columns in `iptables -L`.

use dataplane::packet::Family;
use dataplane::rules::model::{ChainId, Policy, RuleRef, Ruleset};
use std::fmt::Write as _;

/// One rule as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleText {
    /// What follows `-A CHAIN`, without a leading blank; empty for a rule that matches everything and does nothing.
    pub spec: String,
    /// Target or chain name; empty for a rule that only counts.
    pub target: String,
    /// Whether `target` is gone to (`-g`).
    pub goto: bool,
    /// Protocol number as `-L -n` prints it, `0` for all.
    pub prot: String,
    /// `--`, `-f` or `!f`.
    pub opt: String,
    /// Ingress interface, `*` for any.
    pub in_iface: String,
    /// Egress interface, `*` for any.
    pub out_iface: String,
    /// Source.
    pub source: String,
    /// Destination.
    pub destination: String,
    /// Matches and target options in `-L`'s words.
    pub extra: String,
}

/// The texts of a ruleset's rules, in the order of its chains and their rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// By chain, by rule.
    pub rules: Vec<Vec<RuleText>>,
}

impl Texts {
    /// The text of a rule, as `-A CHAIN ...`; of a policy as `-P CHAIN VERDICT`.
    #[must_use]
    pub fn line(&self, ruleset: &Ruleset, by: RuleRef) -> String {
        let chain = ruleset.chain(by.chain);
        match by.rule {
            None => format!("-P {} {}", chain.name, policy_name(chain.policy)),
            Some(rule) => {
                let text = self.rule(by.chain, rule);
                let spec = text.map_or("", |text| text.spec.as_str());
                if spec.is_empty() { format!("-A {}", chain.name) } else { format!("-A {} {spec}", chain.name) }
            }
        }
    }

    /// One rule.
    #[must_use]
    pub fn rule(&self, chain: ChainId, rule: u32) -> Option<&RuleText> {
        self.rules.get(chain.0 as usize)?.get(rule as usize)
    }

    /// The whole table as iptables-save prints it, without its comment lines. `policies` gives packets and bytes of a
    /// built-in chain's policy.
    #[must_use]
    pub fn save(&self, ruleset: &Ruleset, policies: impl Fn(RuleRef) -> (u64, u64)) -> String {
        let mut text = String::from("*filter\n");
        let ids = || (0_u32..).map(ChainId).zip(&ruleset.chains);
        for (id, chain) in ids() {
            let (packets, bytes) = match chain.policy {
                Some(_) => policies(RuleRef { chain: id, rule: None }),
                None => (0, 0),
            };
            let _ = writeln!(text, ":{} {} [{packets}:{bytes}]", chain.name, policy_name(chain.policy));
        }
        for (id, chain) in ids() {
            for rule in 0..u32::try_from(chain.rules.len()).unwrap_or(u32::MAX) {
                text.push_str(&self.line(ruleset, RuleRef { chain: id, rule: Some(rule) }));
                text.push('\n');
            }
        }
        text.push_str("COMMIT\n");
        text
    }
}

/// `ACCEPT`, `DROP`, or `-` for a chain without policy.
#[must_use]
pub const fn policy_name(policy: Option<Policy>) -> &'static str {
    match policy {
        Some(Policy::Accept) => "ACCEPT",
        Some(Policy::Drop) => "DROP",
        None => "-",
    }
}

/// `ip`, as command names begin.
#[must_use]
pub const fn command(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}
