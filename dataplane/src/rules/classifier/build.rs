//! Builds the forest: by a few plans, of which the one is kept that a header costs least by a simple model.

use super::block::{Block, LANES};
use super::forest::{Forest, Node};
use super::select::{self, Bits, Limits};
use super::ternary::{Ternary, Thresholds};
use super::{Header, NONE, Rule, TREES_MAX, kernel, model};
use std::collections::HashMap;

/// Most rules of a set that is tried as one list.
const LIST_MAX: usize = 256;
/// Rules from which on a part of them, of this size, chooses the plans.
const MANY: usize = 24_576;
const PART: usize = 8_192;
/// Bytes for each rule, from which on no node is divided further.
const BYTES_MAX: usize = 1_024;
/// Deepest node.
const DEPTH_MAX: usize = 6;

/// How to build.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Which of a rule's wide sides, source 1 and destination 2, send it to another tree.
    classes: usize,
    /// Bits of a root that a rule may leave open before it goes to a later tree.
    open_max: u32,
    root: Limits,
    inner: Limits,
    /// Copies of rules, over rules.
    copies: usize,
}

/// What is tried: one tree and many copies; trees apart for rules with a wide side; and with less copying the more
/// trees there are.
const PLANS: [Plan; 6] = [
    Plan::new(0, u32::MAX),
    Plan::new(1, u32::MAX),
    Plan::new(1, 7),
    Plan::new(2, u32::MAX),
    Plan::new(2, 6),
    Plan::new(3, 4),
];

impl Plan {
    const fn new(classes: usize, open_max: u32) -> Self {
        let price = Limits { bits: 0, copies: 10.0, copy_price: 0.15, node_price: 0.15 };
        Self {
            classes,
            open_max,
            root: Limits { bits: 13, ..price },
            inner: Limits { bits: 8, copies: 6.0, ..price },
            copies: 10,
        }
    }
}

/// The best forest for these rules.
pub(super) fn forest<const A: usize>(rules: &[Rule]) -> Forest<A> {
    let few: Vec<Rule>;
    let set = Set::new(rules);
    let mut plans: Vec<&Plan> = PLANS.iter().collect();
    if rules.len() > MANY {
        // A part of them tells which plans are worth trying on all.
        few = rules.iter().step_by(rules.len().div_ceil(PART)).cloned().collect();
        let part = Set::<A>::new(&few);
        let mut costs: Vec<(f64, &Plan)> =
            plans.iter().map(|plan| (part.by_plan(plan).cost, *plan)).collect();
        costs.sort_by(|a, b| a.0.total_cmp(&b.0));
        plans = costs.into_iter().map(|(_, plan)| plan).take(2).collect();
    }
    let list = (rules.len() <= LIST_MAX).then(|| set.judged(set.start().list(&set.all())));
    let trees = plans.into_iter().map(|plan| set.by_plan(plan));
    let best = list.into_iter().chain(trees).min_by(|a, b| a.cost.total_cmp(&b.cost));
    let mut best = best.unwrap_or_else(|| set.start().list(&[]));
    best.nodes.shrink_to_fit();
    best.blocks.shrink_to_fit();
    kernel::settle(&best.nodes);
    kernel::settle(&best.blocks);
    best
}

/// Rules and what is derived from them for all plans.
struct Set<'a, const A: usize> {
    rules: &'a [Rule],
    bits: Vec<Ternary<A>>,
    hides_to: Vec<u32>,
    thresholds: Thresholds,
    samples: Vec<Header>,
}

impl<'a, const A: usize> Set<'a, A> {
    fn new(rules: &'a [Rule]) -> Self {
        let thresholds = Thresholds::of(rules);
        let bits = rules.iter().map(|rule| Ternary::of(rule, &thresholds)).collect();
        Self { rules, bits, hides_to: hides_to(rules), thresholds, samples: model::samples(rules) }
    }

    fn all(&self) -> Vec<u32> {
        (0..u32::try_from(self.rules.len()).unwrap_or(u32::MAX)).collect()
    }

    fn start(&self) -> Build<'_, A> {
        Build::new(self)
    }

    fn by_plan(&self, plan: &Plan) -> Forest<A> {
        self.judged(self.start().trees(&self.all(), plan))
    }

    fn judged(&self, mut forest: Forest<A>) -> Forest<A> {
        forest.cost = model::cost(&forest, self.rules.len(), &self.samples);
        forest
    }
}

/// Up to where each rule hides others, wherever it matches. One that may be hidden itself hides none: whether it does
/// would depend on more than where it matches.
fn hides_to(rules: &[Rule]) -> Vec<u32> {
    let mut hidden_to = 0;
    let own = (0_u32..).zip(rules).map(|(id, rule)| {
        let may_be_hidden = id < hidden_to;
        if rule.hides_to != u32::MAX {
            hidden_to = hidden_to.max(rule.hides_to);
        }
        if may_be_hidden { 0 } else { rule.hides_to }
    });
    own.collect()
}

struct Build<'a, const A: usize> {
    rules: &'a [Rule],
    bits: &'a [Ternary<A>],
    hides_to: &'a [u32],
    forest: Forest<A>,
    /// Blocks by the rules in them.
    leaves: HashMap<Box<[u32]>, (u32, u32)>,
    /// Copies that may still be made.
    budget: usize,
    /// Rules left out somewhere.
    hidden: Vec<bool>,
}

impl<'a, const A: usize> Build<'a, A> {
    fn new(set: &'a Set<'a, A>) -> Self {
        let forest = Forest {
            thresholds: set.thresholds,
            roots: Vec::new(),
            nodes: Vec::new(),
            blocks: vec![Block::EMPTY],
            depth: 0,
            cost: f64::INFINITY,
            hidden: Vec::new(),
        };
        let Set { rules, bits, hides_to, .. } = set;
        let hidden = vec![false; rules.len()];
        Self { rules, bits, hides_to, forest, leaves: HashMap::new(), budget: 0, hidden }
    }

    fn finish(mut self) -> Forest<A> {
        let hidden = (0_u32..).zip(self.hidden).filter(|(_, is_hidden)| *is_hidden);
        self.forest.hidden = hidden.map(|(id, _)| id).collect();
        self.forest
    }

    /// No tree.
    fn list(mut self, list: &[u32]) -> Forest<A> {
        let root = self.add_root();
        let list = self.reachable(list, &Ternary::ALL);
        self.leaf(root, &list);
        self.finish()
    }

    fn trees(mut self, list: &[u32], plan: &Plan) -> Forest<A> {
        self.budget = list.len() * plan.copies + 4096;
        let list = self.reachable(list, &Ternary::ALL);
        let mut waiting = self.classes(&list, plan.classes);
        let mut later = Vec::new();
        while let Some(list) = waiting.pop() {
            let room = self.forest.roots.len() + waiting.len() + 2 < TREES_MAX;
            let open_max = if room { plan.open_max } else { u32::MAX };
            later.extend(self.tree(&list, plan, open_max));
            if waiting.is_empty() && !later.is_empty() {
                later.sort_unstable();
                waiting.push(std::mem::take(&mut later));
            }
        }
        let Forest { roots, nodes, .. } = &mut self.forest;
        roots.sort_by_key(|root| nodes[*root as usize].min);
        if roots.is_empty() {
            self.add_root();
        }
        self.finish()
    }

    /// Lists of the rules with and without source and destination.
    fn classes(&self, list: &[u32], sides: usize) -> Vec<Vec<u32>> {
        let mut classes = vec![Vec::new(); 4];
        for &id in list {
            let rule = &self.rules[id as usize];
            let is_wide = |mask: u128| usize::from(mask.count_ones() < 4);
            classes[(is_wide(rule.src_mask) | is_wide(rule.dst_mask) << 1) & sides].push(id);
        }
        classes.retain(|class| !class.is_empty());
        classes
    }

    /// Makes a tree of these rules; returns those that do not fit it.
    fn tree(&mut self, list: &[u32], plan: &Plan, open_max: u32) -> Vec<u32> {
        let root = self.add_root();
        let bits = if list.len() > LANES { select::choose(self.bits, list, &plan.root) } else { None };
        let Some(bits) = bits else {
            self.leaf(root, list);
            return Vec::new();
        };
        let opens = |id: &u32| bits.place(&self.bits[*id as usize]).1.count_ones() > open_max;
        let (mut later, own): (Vec<u32>, Vec<u32>) = list.iter().partition(|id| opens(id));
        // A tree for very few is not worth a root, nor is one without which nothing is left.
        let mut own = own;
        if later.len() <= LANES / 2 || own.is_empty() {
            own = list.to_vec();
            later.clear();
        }
        self.inner(root, &own, &Ternary::ALL, &bits, plan, 0);
        later
    }

    fn add_root(&mut self) -> usize {
        let at = self.forest.nodes.len();
        let name = u32::try_from(at).unwrap_or(u32::MAX);
        self.forest.nodes.push(Node::empty(name));
        self.forest.roots.push(name);
        at
    }

    /// Makes the node at `at`, for the headers of `region` that could match only `list`.
    fn node(&mut self, at: usize, list: &[u32], region: &Ternary<A>, plan: &Plan, depth: usize) {
        let mut limits = plan.inner;
        // No more children than rules, roughly: a node has a price too.
        limits.bits = limits.bits.min(list.len().ilog2() + 1);
        let bits = if list.len() > LANES && depth < DEPTH_MAX && self.has_room() {
            select::choose(self.bits, list, &limits)
        } else {
            None
        };
        match bits {
            Some(bits) => self.inner(at, list, region, &bits, plan, depth),
            None => self.leaf(at, list),
        }
    }

    /// Whether more copies and nodes may be made.
    fn has_room(&self) -> bool {
        self.budget > 0 && self.forest.bytes() < self.rules.len() * BYTES_MAX + (1 << 20)
    }

    fn inner(
        &mut self,
        at: usize,
        list: &[u32],
        region: &Ternary<A>,
        bits: &Bits,
        plan: &Plan,
        depth: usize,
    ) {
        let mut children = vec![Vec::new(); bits.children()];
        for &id in list {
            let (fixed, open) = bits.place(&self.bits[id as usize]);
            // All subsets of the open bits.
            let mut subset = 0_usize;
            loop {
                children[fixed | subset].push(id);
                subset = subset.wrapping_sub(open) & open;
                if subset == 0 {
                    break;
                }
            }
        }
        let base = self.forest.nodes.len();
        let name = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.forest.nodes.extend((base..base + children.len()).map(|at| Node::empty(name(at))));
        let min = list.first().copied().unwrap_or(NONE);
        self.forest.nodes[at] = Node::inner(bits, name(base), min);
        self.forest.depth = self.forest.depth.max(depth + 1);
        let mut copies = 0;
        for (child, list) in children.iter_mut().enumerate() {
            let region = bits.region(region, child);
            *list = self.reachable(list, &region);
            copies += list.len();
        }
        self.budget = self.budget.saturating_sub(copies.saturating_sub(list.len()));
        for (child, list) in children.into_iter().enumerate() {
            if !list.is_empty() {
                self.node(base + child, &list, &bits.region(region, child), plan, depth + 1);
            }
        }
    }

    /// The rules of a list that headers of `region` can match and that none before them hides there.
    fn reachable(&mut self, list: &[u32], region: &Ternary<A>) -> Vec<u32> {
        let mut reachable = Vec::with_capacity(list.len());
        let mut hidden_to = 0;
        for &id in list {
            let (rule, bits) = (&self.rules[id as usize], &self.bits[id as usize]);
            if !region.meets_ranges(rule) {
                continue;
            }
            if id < hidden_to {
                self.hidden[id as usize] = true;
                continue;
            }
            reachable.push(id);
            let hides_to = self.hides_to[id as usize];
            if hides_to > id && region.is_covered_by(rule, bits) {
                hidden_to = hidden_to.max(hides_to);
            }
        }
        reachable
    }

    /// Makes a leaf. Leaves with the same rules share their blocks.
    fn leaf(&mut self, at: usize, list: &[u32]) {
        let name = u32::try_from(at).unwrap_or(u32::MAX);
        let Some(&min) = list.first() else { return };
        let blocks = &mut self.forest.blocks;
        let (first, count) = *self.leaves.entry(list.into()).or_insert_with(|| {
            let first = blocks.len();
            for ids in list.chunks(LANES) {
                let mut block = Block::EMPTY;
                for (lane, &id) in ids.iter().enumerate() {
                    block.set(lane, id, &self.rules[id as usize], &self.bits[id as usize]);
                }
                blocks.push(block);
            }
            let count = blocks.len() - first;
            (u32::try_from(first).unwrap_or(u32::MAX), u32::try_from(count).unwrap_or(u32::MAX))
        });
        self.forest.nodes[at] = Node::leaf(name, min, first, count);
    }
}
