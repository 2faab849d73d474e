//! The second step of compilation: a decision tree that leaves a packet only the lines it could match.
//!
//! A packet is ten numbers (address halves, ports, protocol, connection state, NICs); a line claims an interval of each
//! that is at least as wide as what it matches. An inner node compares one number with a threshold; a leaf lists lines
//! in order. Thresholds are chosen greedily among the intervals' ends: the one that leaves the least work, counting
//! lines that go both ways twice. A branch stops when it is short, when no cut helps, or when the budget for copies is
//! spent, so that an awkward ruleset costs time per packet and never memory without bound.
//!
//! Only facts that all packets of a flow and direction share are cut on, so walking the tree never makes a verdict
//! depend on a single packet.

use super::Facts;
use super::program::{ALL_STATES, ANY_PROTO, Action, Line};
use crate::packet::Family;

/// Numbers a packet is cut by.
pub(super) const WORDS: usize = 10;
/// A leaf this short is not cut further: testing a line costs about as much as a level.
const LEAF_LINES: usize = 6;
/// Deepest leaf.
const DEPTH_MAX: usize = 40;
/// Copies a line may have on average.
const COPIES_MAX: usize = 12;
/// Thresholds tried per number and node.
const CANDIDATES: usize = 24;

/// The numbers of one packet.
pub(super) type Words = [u64; WORDS];

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "takes the halves of an address apart")]
pub(super) const fn words(facts: &Facts<'_>) -> Words {
    let tuple = &facts.packet.tuple;
    [
        (tuple.src >> 64) as u64,
        tuple.src as u64,
        (tuple.dst >> 64) as u64,
        tuple.dst as u64,
        tuple.src_port as u64,
        tuple.dst_port as u64,
        tuple.proto as u64,
        facts.ct_state as u64,
        facts.ingress.0 as u64,
        facts.egress.0 as u64,
    ]
}

/// The intervals a line claims, both ends included.
type Claim = [(u64, u64); WORDS];

/// A node: `word < threshold` goes to `below`, else to the node after it. A leaf has `word == LEAF`; its lines are
/// `leaf_lines[below..][..threshold]`.
#[derive(Clone, Copy, Debug)]
struct Node {
    threshold: u64,
    below: u32,
    word: u8,
}

const LEAF: u8 = u8::MAX;

/// The tree.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    above: Vec<u32>,
    leaf_lines: Vec<u32>,
}

impl Tree {
    pub(super) fn build(lines: &[Line], family: Family) -> Self {
        let claims: Vec<Claim> = lines.iter().map(|line| claim(line, family)).collect();
        let all: Vec<u32> = (0..u32::try_from(lines.len()).unwrap_or(u32::MAX)).collect();
        let budget = lines.len() * COPIES_MAX + 4096;
        let mut build = Build { lines, claims: &claims, family, budget, tree: Self::empty() };
        let everything = everything(family);
        let reachable = build.possible(&all, &everything);
        build.node(&reachable, &everything, 0);
        build.tree
    }

    const fn empty() -> Self {
        Self { nodes: Vec::new(), above: Vec::new(), leaf_lines: Vec::new() }
    }

    /// The lines this packet could match, in order.
    #[inline]
    pub(super) fn leaf(&self, words: &Words) -> &[u32] {
        let mut at = 0;
        loop {
            let node = &self.nodes[at];
            if node.word == LEAF {
                let from = node.below as usize;
                #[expect(clippy::cast_possible_truncation, reason = "a leaf's length fits 32 bits")]
                return &self.leaf_lines[from..from + node.threshold as usize];
            }
            let below = words[usize::from(node.word)] < node.threshold;
            at = if below { node.below } else { self.above[at] } as usize;
        }
    }

    /// Bytes the tree takes.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.len() * (size_of::<Node>() + 4) + self.leaf_lines.len() * 4
    }
}

/// All packets of a family.
fn everything(family: Family) -> Claim {
    let (high_half, low_half) = match family {
        Family::V4 => ((0, 0), (0, u64::from(u32::MAX))),
        Family::V6 => ((0, u64::MAX), (0, u64::MAX)),
    };
    let port = (0, u64::from(u16::MAX));
    [high_half, low_half, high_half, low_half, port, port, (0, 255), (0, 7), (0, 63), (0, 63)]
}

/// The bits of an address that a mask fixes; those above an IPv4 address are always zero, and so fixed.
const fn fixed_bits(mask: u128, family: Family) -> u128 {
    match family {
        Family::V4 => mask | !(u32::MAX as u128),
        Family::V6 => mask,
    }
}

/// What a line claims: its fields exactly where they are intervals, else what spans them.
#[expect(clippy::cast_possible_truncation, reason = "takes the halves of an address apart")]
fn claim(line: &Line, family: Family) -> Claim {
    let half = |addr: u128, mask: u128, shift: u32| {
        let (addr, mask) = ((addr >> shift) as u64, (fixed_bits(mask, family) >> shift) as u64);
        // Bits behind the first hole in the mask may be anything.
        let leading = mask.leading_ones();
        let span = if leading == 64 { 0 } else { u64::MAX >> leading };
        (addr & !span, addr | span)
    };
    let bits = |set: u64| (u64::from(set.trailing_zeros()), u64::from(63 - set.leading_zeros()));
    let ports = |range: (u16, u16)| (u64::from(range.0), u64::from(range.1));
    let states = |set: u8| if set == ALL_STATES { (0, 7) } else { bits(u64::from(set)) };
    let proto =
        if line.proto == ANY_PROTO { (0, 255) } else { (u64::from(line.proto), u64::from(line.proto)) };
    [
        half(line.src, line.src_mask, 64),
        half(line.src, line.src_mask, 0),
        half(line.dst, line.dst_mask, 64),
        half(line.dst, line.dst_mask, 0),
        ports(line.src_ports),
        ports(line.dst_ports),
        proto,
        states(line.states),
        bits(line.ingress),
        bits(line.egress),
    ]
}

struct Build<'a> {
    lines: &'a [Line],
    claims: &'a [Claim],
    family: Family,
    /// Leaf entries that may still be made.
    budget: usize,
    tree: Tree,
}

impl Build<'_> {
    /// Builds the subtree for the packets in `region`, which could match only `lines`. Returns its node.
    fn node(&mut self, lines: &[u32], region: &Claim, depth: usize) -> u32 {
        let at = self.tree.nodes.len();
        let index = u32::try_from(at).unwrap_or(u32::MAX);
        self.tree.nodes.push(Node { threshold: 0, below: 0, word: LEAF });
        self.tree.above.push(0);
        let cut =
            if depth < DEPTH_MAX && lines.len() > LEAF_LINES { self.best_cut(lines, region) } else { None };
        let Some((word, threshold)) = cut else {
            self.leaf(at, lines);
            return index;
        };
        let (mut below, mut above) = (*region, *region);
        below[word].1 = threshold - 1;
        above[word].0 = threshold;
        let below_lines = self.possible(lines, &below);
        let above_lines = self.possible(lines, &above);
        let copies = (below_lines.len() + above_lines.len()).saturating_sub(lines.len());
        if copies > self.budget {
            self.leaf(at, lines);
            return index;
        }
        self.budget -= copies;
        let below_node = self.node(&below_lines, &below, depth + 1);
        let above_node = self.node(&above_lines, &above, depth + 1);
        self.tree.nodes[at] = Node { threshold, below: below_node, word: u8::try_from(word).unwrap_or(LEAF) };
        self.tree.above[at] = above_node;
        index
    }

    fn leaf(&mut self, at: usize, lines: &[u32]) {
        let from = u32::try_from(self.tree.leaf_lines.len()).unwrap_or(u32::MAX);
        self.tree.leaf_lines.extend_from_slice(lines);
        self.tree.nodes[at] = Node { threshold: lines.len() as u64, below: from, word: LEAF };
    }

    /// The lines that packets of `region` could match and reach: none behind a line that decides about all of them,
    /// unless an earlier line may skip over that one.
    fn possible(&self, lines: &[u32], region: &Claim) -> Vec<u32> {
        let mut possible = Vec::with_capacity(lines.len());
        let mut skipped_to = 0;
        for &index in lines {
            let claim = &self.claims[index as usize];
            let overlaps = claim.iter().zip(region).all(|(have, want)| have.0 <= want.1 && have.1 >= want.0);
            if !overlaps {
                continue;
            }
            possible.push(index);
            let line = &self.lines[index as usize];
            match line.action {
                Action::Skip(to) | Action::SkipSilently(to) | Action::Pass(to) | Action::Gate(to) => {
                    skipped_to = skipped_to.max(to);
                }
                Action::Decide(_) if index >= skipped_to && covers(line, claim, region, self.family) => break,
                Action::Decide(_) | Action::Count | Action::Do(_) => {}
            }
        }
        possible
    }

    /// The cut that leaves the fewest lines to the two sides together, weighted by how many there are.
    fn best_cut(&self, lines: &[u32], region: &Claim) -> Option<(usize, u64)> {
        let total = lines.len() as u64;
        // Without a cut the cost is that of all packets testing all lines.
        let mut best_cost = total * total * 2 * 19 / 20;
        let mut best = None;
        let mut ends: (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
        for (word, bounds) in region.iter().enumerate() {
            let (low, high) = *bounds;
            ends.0.clear();
            ends.1.clear();
            for &index in lines {
                let claim = self.claims[index as usize][word];
                ends.0.push(claim.0.max(low));
                ends.1.push(claim.1.min(high));
            }
            ends.0.sort_unstable();
            ends.1.sort_unstable();
            if ends.0.last() == Some(&low) && ends.1.first() == Some(&high) {
                continue;
            }
            for threshold in candidates(&ends.0, &ends.1, low, high) {
                let below = ends.0.partition_point(|start| *start < threshold) as u64;
                let above = total - ends.1.partition_point(|end| *end < threshold) as u64;
                let cost = below * below + above * above;
                if cost < best_cost {
                    best_cost = cost;
                    best = Some((word, threshold));
                }
            }
        }
        best
    }
}

/// Whether a line matches every packet of the region, whatever else the packet is like.
fn covers(line: &Line, claim: &Claim, region: &Claim, family: Family) -> bool {
    let contains = claim.iter().zip(region).all(|(have, want)| have.0 <= want.0 && have.1 >= want.1);
    contains && line.more.is_empty() && !line.needs_ports && is_exact(line, family)
}

/// Whether a line matches exactly what it claims: masks without holes, sets without gaps.
fn is_exact(line: &Line, family: Family) -> bool {
    let prefix = |mask: u128| {
        let mask = fixed_bits(mask, family);
        mask.leading_ones() + mask.trailing_zeros() >= 128
    };
    let solid = |set: u64| {
        let run = set >> set.trailing_zeros();
        run & run.wrapping_add(1) == 0
    };
    prefix(line.src_mask)
        && prefix(line.dst_mask)
        && solid(u64::from(line.states))
        && solid(line.ingress)
        && solid(line.egress)
}

/// Thresholds worth trying: where an interval starts or has just ended, evenly spread over the sorted ends.
fn candidates(starts: &[u64], ends: &[u64], low: u64, high: u64) -> impl Iterator<Item = u64> {
    let step = (starts.len() / CANDIDATES).max(1);
    let starts: Vec<u64> = starts.iter().step_by(step).copied().collect();
    let ends: Vec<u64> = ends.iter().step_by(step).map(|end| end.saturating_add(1)).collect();
    let mut all: Vec<u64> = starts.into_iter().chain(ends).filter(|at| *at > low && *at <= high).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}
