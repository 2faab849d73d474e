//! What a ruleset must be like before it can run, checked once on control.

use super::model::{ChainId, Ruleset, Target};
use crate::ids::PORTS_MAX;

/// Most user chains below a built-in one, as nftables counts (`NFT_JUMP_STACK_SIZE` less the built-in chain itself).
pub(super) const CHAIN_DEPTH_MAX: usize = 15;

/// Why a ruleset cannot run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A jump or goto leads to a chain that does not exist, or to a built-in one.
    #[error("chain `{chain}`, rule {rule}: jumps to something that is not a user chain")]
    BadTarget {
        /// Where.
        chain: String,
        /// Which rule, from 1.
        rule: usize,
    },
    /// Chains call each other in a circle.
    #[error("chains call each other in a loop: {}", .0.join(" -> "))]
    Loop(
        /// The chains of the circle, the first one again at the end.
        Vec<String>,
    ),
    /// Chains are nested too deeply.
    #[error("chain `{0}` is nested more than {CHAIN_DEPTH_MAX} jumps deep")]
    TooDeep(
        /// The chain that is too deep.
        String,
    ),
    /// Chains that are called from very many places.
    #[error("the chains called from FORWARD unfold to more than {0} rules")]
    TooManyLines(
        /// The limit.
        usize,
    ),
    /// The compiled form was caught giving another verdict than the rules mean.
    #[error("the compiled rules disagree with their meaning, please report this: {0}")]
    SelfCheck(
        /// The header, and what either said.
        String,
    ),
    /// Rules that count packets and bytes, or limits and rates, in one table.
    #[error("hashlimit rules count different things in one table: --hashlimit-name {0}")]
    MixedTable(
        /// Its name.
        String,
    ),
    /// More NICs than rules can tell apart.
    #[error("{0} NICs, but rules can tell at most {PORTS_MAX} apart")]
    TooManyPorts(
        /// How many there are.
        usize,
    ),
}

/// Checks jumps: targets, loops, depth.
pub(super) fn validate(ruleset: &Ruleset) -> Result<(), CompileError> {
    for chain in &ruleset.chains {
        for (index, rule) in chain.rules.iter().enumerate() {
            if let Target::Jump(to) | Target::Goto(to) = rule.target
                && ruleset.chains.get(to.0 as usize).is_none_or(|target| target.policy.is_some())
            {
                return Err(CompileError::BadTarget { chain: chain.name.clone(), rule: index + 1 });
            }
        }
    }
    let mut visit = Visit { ruleset, height: vec![None; ruleset.chains.len()], path: Vec::new() };
    for index in 0..u32::try_from(ruleset.chains.len()).unwrap_or(u32::MAX) {
        visit.chain(ChainId(index))?;
    }
    Ok(())
}

struct Visit<'a> {
    ruleset: &'a Ruleset,
    /// How many jumps deep the chains below nest; known once a chain has been visited.
    height: Vec<Option<usize>>,
    path: Vec<ChainId>,
}

impl Visit<'_> {
    /// Visits a chain and all it calls, each chain once. Recursion is bounded by the depth limit.
    fn chain(&mut self, id: ChainId) -> Result<usize, CompileError> {
        if let Some(height) = self.height[id.0 as usize] {
            return self.bounded(id, height);
        }
        let name = |id: &ChainId| self.ruleset.chain(*id).name.clone();
        if let Some(start) = self.path.iter().position(|on_path| *on_path == id) {
            return Err(CompileError::Loop(self.path[start..].iter().chain([&id]).map(name).collect()));
        }
        self.bounded(id, 0)?;
        self.path.push(id);
        let mut height = 0;
        for rule in &self.ruleset.chain(id).rules {
            if let Target::Jump(to) | Target::Goto(to) = rule.target {
                height = height.max(self.chain(to)? + 1);
            }
        }
        self.path.pop();
        self.height[id.0 as usize] = Some(height);
        Ok(height)
    }

    fn bounded(&self, id: ChainId, height: usize) -> Result<usize, CompileError> {
        if self.path.len() + height > CHAIN_DEPTH_MAX {
            return Err(CompileError::TooDeep(self.ruleset.chain(id).name.clone()));
        }
        Ok(height)
    }
}
