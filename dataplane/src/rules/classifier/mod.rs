//! Which of very many rules a header matches: a forest of trees that select by bits, with blocks of eight rules as
//! leaves, compared at once by vector instructions.
//!
//! A rule is a box: two addresses under masks, two port ranges, a protocol or any, and flags it refuses. Rules have
//! numbers, the lowest that matches comes first. Each rule is in one tree, in every leaf that a header of its could
//! reach. A node takes a few bits of the header for the number of its child; bits are chosen so that children are small.
//! Rules that leave many of these bits open would have to be in most children; they go to another tree, unless copying
//! them is cheap. A leaf's rules are compared exactly: a tree can make an answer slow, never say that a rule matches
//! which does not. That it misses none is what tests hold against looking at every rule.
//!
//! Built on control, immutable, asked by workers. Nothing here depends on what a rule decides, except that it may say
//! which later rules do not matter where it matches ([`Rule::hides_to`]).

mod block;
mod build;
mod forest;
mod kernel;
mod lookup;
mod model;
mod select;
mod ternary;
#[cfg(test)]
mod tests;

pub use kernel::Level;

use forest::Forest;
use ternary::Words;

/// Answer when no rule matches.
pub const NONE: u32 = u32::MAX;
/// Headers looked up together at most; longer bursts are cut.
pub const BURST: usize = 32;
/// Most rules.
pub const RULES_MAX: usize = 1 << 22;
/// Most trees.
const TREES_MAX: usize = 8;
/// Groups of facts of which a header has exactly one each.
const FACT_GROUPS: [u16; 3] = [0b1_1111, 0b1_1111 << 6, 0b1_1111 << 11];
/// NICs that have a flag of their own, for each direction; all others share one.
pub const NIC_FLAGS: u32 = 4;

/// A rule: which headers it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Source address, under its mask.
    pub src: u128,
    /// Bits of the source address that are compared.
    pub src_mask: u128,
    /// Destination address, under its mask.
    pub dst: u128,
    /// Bits of the destination address that are compared.
    pub dst_mask: u128,
    /// Source ports, both ends included.
    pub src_ports: (u16, u16),
    /// Destination ports, both ends included.
    pub dst_ports: (u16, u16),
    /// Protocol; `None` is any.
    pub proto: Option<u8>,
    /// Flags that a header must not have, see [`facts`].
    pub refuses: u16,
    /// Where this rule matches, later ones before this number need not be found. Zero hides none.
    pub hides_to: u32,
}

/// What rules are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source address; IPv4 in the low 32 bits.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Protocol.
    pub proto: u8,
    /// Flags, see [`facts`].
    pub facts: u16,
}

/// Flags of a header: its connection state (0 to 4), whether it has ports, the NIC it came by and the one it leaves by.
#[must_use]
#[inline]
pub fn facts(state: u8, has_ports: bool, ingress: u8, egress: u8) -> u16 {
    let nic = |nic: u8| 1_u16 << u32::from(nic).min(NIC_FLAGS);
    1 << state | u16::from(!has_ports) << 5 | nic(ingress) << 6 | nic(egress) << 11
}

/// The flag that a header without ports has: a rule that asks for ports refuses it.
pub const NO_PORTS: u16 = 1 << 5;

/// What a rule refuses that is for these connection states and NICs, one bit each. NICs without a flag of their own are
/// refused only if all of them are.
#[must_use]
pub fn refusal(states: u8, ingress: u64, egress: u64) -> u16 {
    let nics = |set: u64| {
        let others = u16::from(set >> NIC_FLAGS != 0) << NIC_FLAGS;
        u16::try_from(set & 0b1111).unwrap_or(0) | others
    };
    !(u16::from(states & 0b1_1111) | nics(ingress) << 6 | nics(egress) << 11) & !NO_PORTS
}

/// What a classifier came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Trees.
    pub trees: usize,
    /// Most nodes on a way to a leaf.
    pub depth: usize,
    /// Blocks of rules, copies counted.
    pub blocks: usize,
    /// Memory, in bytes.
    pub bytes: usize,
    /// What a header costs by the model that chose this form.
    pub cost: f64,
}

/// Rules of one family, ready to be asked.
#[derive(Debug)]
pub struct Classifier {
    forest: Family,
    level: Level,
}

#[derive(Debug)]
enum Family {
    V4(Forest<1>),
    V6(Forest<4>),
}

/// Headers to look up, made for one family.
#[derive(Clone, Debug)]
pub struct Keys(Packed);

#[derive(Clone, Debug)]
enum Packed {
    V4(Vec<Words<1>>),
    V6(Vec<Words<4>>),
}

/// Where a header's rules are: one leaf of each tree, and how far each has been read.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    key: Words<4>,
    /// Blocks not yet passed, by tree: first and end.
    left: [(u32, u32); TREES_MAX],
}

impl Classifier {
    /// Builds a classifier for IPv4 or IPv6 rules, numbered as they stand. It never fails: an awkward set takes more
    /// time per header, and memory is bounded by a multiple of the rules.
    ///
    /// # Panics
    /// If there are more than [`RULES_MAX`].
    #[must_use]
    pub fn new(rules: &[Rule], wide: bool) -> Self {
        Self::with_level(rules, wide, Level::best())
    }

    /// The same for given vector instructions; those the processor does not have are replaced by what it has.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_level(rules: &[Rule], wide: bool, level: Level) -> Self {
        assert!(rules.len() <= RULES_MAX, "{} rules", rules.len());
        let forest = if wide { Family::V6(build::forest(rules)) } else { Family::V4(build::forest(rules)) };
        Self { forest, level: level.min(Level::best()) }
    }

    /// What it came to.
    #[must_use]
    pub fn shape(&self) -> Shape {
        match &self.forest {
            Family::V4(forest) => forest.shape(),
            Family::V6(forest) => forest.shape(),
        }
    }

    /// Rules that are left out where one before them hides them, in order.
    #[must_use]
    pub fn hidden(&self) -> &[u32] {
        match &self.forest {
            Family::V4(forest) => &forest.hidden,
            Family::V6(forest) => &forest.hidden,
        }
    }

    /// The instructions it uses.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// Headers in the form in which they are looked up.
    #[must_use]
    pub fn keys(&self, headers: &[Header]) -> Keys {
        Keys(match self.forest {
            Family::V4(_) => Packed::V4(headers.iter().map(Words::of).collect()),
            Family::V6(_) => Packed::V6(headers.iter().map(Words::of).collect()),
        })
    }

    /// Finds for each of some headers the first rule that matches it, [`NONE`] if none does.
    ///
    /// # Panics
    /// If the keys were made for the other family, or there are fewer than `range` says.
    pub fn first(&self, keys: &Keys, range: std::ops::Range<usize>, found: &mut [u32]) {
        match (&self.forest, &keys.0) {
            (Family::V4(forest), Packed::V4(keys)) => self.level.first(forest, &keys[range], found),
            (Family::V6(forest), Packed::V6(keys)) => self.level.first(forest, &keys[range], found),
            _ => panic!("keys of one family for a classifier of the other"),
        }
    }

    /// Finds the leaves of one header.
    #[must_use]
    #[inline]
    pub fn find(&self, header: &Header) -> Cursor {
        match &self.forest {
            Family::V4(forest) => self.level.find(forest, &Words::of(header)),
            Family::V6(forest) => self.level.find(forest, &Words::of(header)),
        }
    }

    /// The lowest rule from `from` on that matches the header of the cursor, [`NONE`] if none does. `from` must not be
    /// less than it was before. Rules hidden by one that matches may be left out.
    #[inline]
    pub fn next(&self, cursor: &mut Cursor, from: u32) -> u32 {
        match &self.forest {
            Family::V4(forest) => self.level.next(forest, cursor, from),
            Family::V6(forest) => self.level.next(forest, cursor, from),
        }
    }
}
