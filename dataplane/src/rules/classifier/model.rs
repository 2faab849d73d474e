//! What a header costs, by a simple model: nodes on its way, blocks compared, trees entered.

use super::block::Probe;
use super::forest::Forest;
use super::kernel::Plain;
use super::lookup::Kernel;
use super::ternary::Words;
use super::{FACT_GROUPS, Header, NONE, Rule};

/// Headers that a forest is judged by.
const SAMPLES: usize = 1024;
/// What a block or a tree costs, in steps from node to node.
const BLOCK: f64 = 1.5;
/// What a tree costs more for each doubling of all memory beyond the cache, in steps.
const FAR: f64 = 0.25;
/// Bytes that a core has near it.
const CACHE: f64 = 1_048_576.0;
/// Bytes for each rule that are worth a step.
const BYTES_PER_RULE: f64 = 400.0;

/// Headers, each anywhere in a rule drawn at random.
pub(super) fn samples(rules: &[Rule]) -> Vec<Header> {
    let mut state = 0x5eed_c1a5_51f1_e500_u64;
    let mut random = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    };
    if rules.is_empty() {
        return Vec::new();
    }
    (0..SAMPLES)
        .map(|_| {
            let at = usize::try_from(random() >> 16).unwrap_or(0) % rules.len();
            inside(&rules[at], &mut random)
        })
        .collect()
}

/// A header that a rule matches.
fn inside(rule: &Rule, random: &mut impl FnMut() -> u64) -> Header {
    let mut wide = || u128::from(random()) << 64 | u128::from(random());
    let src = rule.src & rule.src_mask | wide() & !rule.src_mask;
    let dst = rule.dst & rule.dst_mask | wide() & !rule.dst_mask;
    let mut within = |(low, high): (u16, u16)| {
        let span = u64::from(high.saturating_sub(low)) + 1;
        low.saturating_add(u16::try_from(random() % span).unwrap_or(0))
    };
    let (src_port, dst_port) = (within(rule.src_ports), within(rule.dst_ports));
    let facts = FACT_GROUPS.iter().fold(0, |facts, group| {
        let left = group & !rule.refuses;
        facts | left & left.wrapping_neg()
    });
    let proto = rule.proto.unwrap_or(if random() & 1 == 0 { 6 } else { 17 });
    Header { src, dst, src_port, dst_port, proto, facts }
}

/// What one of these headers costs, on average, and what the memory is worth.
pub(super) fn cost<const A: usize>(forest: &Forest<A>, rules: usize, samples: &[Header]) -> f64 {
    let total: f64 = samples.iter().map(|header| cost_of(forest, &Words::of(header))).sum();
    let bytes = forest.bytes() as f64;
    // Each step of a tree that the cache does not hold waits for memory, less the more there are at once.
    let misses = FAR * forest.roots.len() as f64 * (bytes / CACHE).max(1.0).log2();
    total / samples.len().max(1) as f64 + misses + bytes / rules.max(1) as f64 / BYTES_PER_RULE
}

fn cost_of<const A: usize>(forest: &Forest<A>, key: &Words<A>) -> f64 {
    let mut key = *key;
    forest.thresholds.complete(&mut key);
    let probe = Probe::of(&key);
    let (mut steps, mut blocks, mut best) = (0.0, 0.0, NONE);
    for root in &forest.roots {
        let mut node = &forest.nodes[*root as usize];
        while node.is_inner() {
            node = &forest.nodes[super::lookup::step::<Plain, A>(node, &key)];
            steps += 1.0;
        }
        if node.min >= best {
            continue;
        }
        for block in &forest.blocks[node.block as usize..][..node.blocks() as usize] {
            blocks += 1.0;
            let hits = Plain::hits(block, &probe);
            if hits != 0 {
                best = best.min(block.ids[hits.trailing_zeros() as usize & 7]);
                break;
            }
        }
    }
    steps + BLOCK * (blocks + forest.roots.len() as f64)
}
