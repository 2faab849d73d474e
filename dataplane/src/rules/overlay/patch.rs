//! How one chain differs from what was compiled: which of its rules are gone, and where others came in. Control builds
//! it; workers ask it for the numbers that rules have now.

/// Rules of a chain removed and added, both by the places that the compiled rules have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Patch {
    /// Rules in the chain as it was compiled.
    compiled: u32,
    /// Compiled rules that are gone, in order.
    pub(super) removed: Vec<u32>,
    /// For each added rule the compiled one in front of which it stands, or their number at the end; in order.
    pub(super) added: Vec<u32>,
}

/// What stands at a place of the chain as it is now.
enum Standing {
    Added(usize),
    Compiled(u32),
    End,
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Patch {
    pub(super) fn of(compiled: usize) -> Self {
        Self { compiled: number(compiled), ..Self::default() }
    }

    /// Where a compiled rule stands now, `None` if it is gone.
    pub(super) fn now(&self, rule: u32) -> Option<u32> {
        let gone = self.removed.binary_search(&rule).err()?;
        Some(rule - number(gone) + number(self.added.partition_point(|at| *at <= rule)))
    }

    /// Where the added rule of that number stands now.
    pub(super) fn now_added(&self, added: usize) -> u32 {
        let at = self.added[added];
        number(added) + at - number(self.removed.partition_point(|gone| *gone < at))
    }

    fn at(&self, place: u32) -> Standing {
        if let Some(added) = (0..self.added.len()).find(|added| self.now_added(*added) == place) {
            return Standing::Added(added);
        }
        // Counting all that went before as gone or added: no rule can have come from further away.
        let first = place.saturating_sub(number(self.added.len()));
        let last = place.saturating_add(number(self.removed.len())).min(self.compiled);
        (first..=last)
            .find(|rule| *rule < self.compiled && self.now(*rule) == Some(place))
            .map_or(Standing::End, Standing::Compiled)
    }

    /// Adds a rule at a place of the chain as it is now.
    pub(super) fn add(&mut self, place: u32) {
        let (index, at) = match self.at(place) {
            Standing::Added(added) => (added, self.added[added]),
            Standing::Compiled(rule) => (self.added.partition_point(|at| *at <= rule), rule),
            Standing::End => (self.added.len(), self.compiled),
        };
        self.added.insert(index, at);
    }

    /// Takes out the rule at a place of the chain as it is now.
    pub(super) fn remove(&mut self, place: u32) {
        match self.at(place) {
            Standing::Added(added) => {
                self.added.remove(added);
            }
            Standing::Compiled(rule) => {
                let index = self.removed.partition_point(|gone| *gone < rule);
                self.removed.insert(index, rule);
            }
            Standing::End => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_patch_knows_where_every_rule_stands(edits in prop::collection::vec((any::<bool>(), 0..12_u32), 0..20)) {
            const COMPILED: u32 = 6;
            let mut patch = Patch::of(COMPILED as usize);
            // Compiled rules by their number, added ones as none.
            let mut chain: Vec<Option<u32>> = (0..COMPILED).map(Some).collect();
            for (adds, at) in edits {
                let at = at.min(number(chain.len()));
                if adds {
                    chain.insert(at as usize, None);
                    patch.add(at);
                } else if at < number(chain.len()) {
                    chain.remove(at as usize);
                    patch.remove(at);
                }
                let place = |wanted| chain.iter().position(|rule| *rule == Some(wanted)).map(number);
                for rule in 0..COMPILED {
                    prop_assert_eq!(patch.now(rule), place(rule));
                }
                let added = (0_u32..).zip(&chain).filter(|(_, rule)| rule.is_none()).map(|(at, _)| at);
                let known: Vec<u32> = (0..patch.added.len()).map(|added| patch.now_added(added)).collect();
                prop_assert_eq!(known, added.collect::<Vec<_>>());
            }
        }
    }
}
