//! Looking headers up, written once for all instruction sets: [`Kernel`] has what differs.
//!
//! A burst goes through all trees level by level, so that what a step needs is on its way from memory while the steps of
//! the other headers are taken. A step has no branch: a leaf's masks are empty and its child is itself.

use super::block::{Block, LANES, Probe};
use super::forest::{Forest, Node};
use super::ternary::Words;
use super::{BURST, Cursor, NONE, TREES_MAX};

/// What processors do differently.
pub(super) trait Kernel {
    /// The bits of a word that a mask has, packed together.
    fn extract(word: u64, mask: u64) -> u64;
    /// Which lanes of a block match.
    fn hits<const A: usize>(block: &Block<A>, probe: &Probe<A>) -> u32;
    /// Which lanes have an id of at least `from`.
    fn from<const A: usize>(block: &Block<A>, from: u32) -> u32;
    /// Has a cache line fetched.
    fn prefetch<T>(at: &T, line: usize);
}

/// The child of a node for a header.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a node has few children")]
pub(super) fn step<K: Kernel, const A: usize>(node: &Node, key: &Words<A>) -> usize {
    let [first, second] =
        if A == 1 { [key.addr[0], key.rest] } else { node.words().map(|word| key.get(word)) };
    let low = K::extract(first, node.masks[0]);
    let high = K::extract(second, node.masks[1]);
    node.base as usize + (low | high << node.shift()) as usize
}

/// [`super::Classifier::first`] for any number of headers.
#[inline(always)]
pub(super) fn first<K: Kernel, const A: usize>(forest: &Forest<A>, keys: &[Words<A>], found: &mut [u32]) {
    for (keys, found) in keys.chunks(BURST).zip(found.chunks_mut(BURST)) {
        burst::<K, A>(forest, keys, found);
    }
}

/// Headers up to which it costs less to take one after the other.
const FEW: usize = 12;
/// Trees gone through together.
const GROUP: usize = 4;

#[inline(always)]
fn burst<K: Kernel, const A: usize>(forest: &Forest<A>, from: &[Words<A>], found: &mut [u32]) {
    let mut keys = [Words::<A>::ZERO; BURST];
    let count = from.len().min(BURST);
    for (key, from) in keys.iter_mut().zip(from) {
        *key = *from;
        forest.thresholds.complete(key);
    }
    let (keys, found) = (&keys[..count], &mut found[..count]);
    found.fill(NONE);
    for roots in forest.roots.chunks(GROUP) {
        let at = leaves::<K, A>(forest, roots, keys);
        let at = at.chunks(BURST).take(roots.len());
        if count > FEW {
            at.for_each(|at| together::<K, A>(forest, at, keys, found));
        } else {
            one_by_one::<K, A>(forest, &at, keys, found);
        }
    }
}

/// Where each header comes out of each of a few trees: header `i` and tree `t` at `t * BURST + i`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "nodes have 32-bit numbers, places are few")]
fn leaves<K: Kernel, const A: usize>(
    forest: &Forest<A>,
    roots: &[u32],
    keys: &[Words<A>],
) -> [u32; GROUP * BURST] {
    let mut at = [0_u32; GROUP * BURST];
    let mut active = [0_u8; GROUP * BURST];
    let mut left = 0;
    for (tree, root) in roots.iter().enumerate() {
        let node = &forest.nodes[*root as usize];
        for (i, key) in keys.iter().enumerate() {
            let place = tree * BURST + i;
            let next = step::<K, A>(node, key);
            K::prefetch(&forest.nodes[next], 0);
            at[place] = next as u32;
            active[left] = place as u8;
            left += 1;
        }
    }
    while left > 0 {
        let mut still = 0;
        for n in 0..left {
            let place = usize::from(active[n]);
            let node = &forest.nodes[at[place] as usize];
            let next = step::<K, A>(node, &keys[place % BURST]);
            K::prefetch(&forest.nodes[next], 0);
            let block = &forest.blocks[node.block as usize];
            for line in 0..4 {
                K::prefetch(block, line);
            }
            at[place] = next as u32;
            active[still] = place as u8;
            still += usize::from(node.is_inner());
        }
        left = still;
    }
    at
}

/// Compares headers with the rules of their leaves, one header after the other.
#[inline(always)]
fn one_by_one<'a, K: Kernel, const A: usize>(
    forest: &Forest<A>,
    leaves: &(impl Iterator<Item = &'a [u32]> + Clone),
    keys: &[Words<A>],
    found: &mut [u32],
) {
    for (i, (key, best)) in keys.iter().zip(found).enumerate() {
        let probe = Probe::of(key);
        for leaves in leaves.clone() {
            let node = &forest.nodes[leaves[i] as usize];
            if node.min >= *best {
                continue;
            }
            for block in &forest.blocks[node.block as usize..][..node.blocks() as usize] {
                let hits = K::hits(block, &probe);
                if hits != 0 {
                    *best = block.ids[hits.trailing_zeros() as usize % LANES].min(*best);
                    break;
                }
            }
        }
    }
}

/// The same block by block, for all headers at once: how many blocks a leaf takes, no processor foresees, so there is no
/// branch on it. No header goes on that has found a rule, nor starts where a lower one is known.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a burst is small")]
fn together<K: Kernel, const A: usize>(
    forest: &Forest<A>,
    leaves: &[u32],
    keys: &[Words<A>],
    found: &mut [u32],
) {
    // Made once: vector instructions read them from memory for less than from registers.
    let mut probes = [Probe::<A>::ZERO; BURST];
    for (probe, key) in probes.iter_mut().zip(keys) {
        *probe = Probe::of(key);
    }
    let mut ranges = [(0_u32, 0_u32); BURST];
    let mut active = [0_u8; BURST];
    let mut left = 0;
    for (i, (leaf, best)) in leaves.iter().zip(found.iter()).enumerate().take(BURST) {
        let node = &forest.nodes[*leaf as usize];
        ranges[i] = (node.block, node.block + node.blocks());
        active[left] = i as u8;
        left += usize::from(node.min < *best);
    }
    while left > 0 {
        let mut still = 0;
        for n in 0..left {
            let i = usize::from(active[n]) % BURST;
            let (at, end) = ranges[i];
            let block = &forest.blocks[at as usize];
            let hits = K::hits(block, &probes[i]);
            let id = block.ids[hits.trailing_zeros() as usize % LANES];
            let id = if hits == 0 { NONE } else { id };
            found[i] = found[i].min(id);
            ranges[i].0 = at + 1;
            active[still] = i as u8;
            still += usize::from(hits == 0) & usize::from(at + 1 < end);
        }
        left = still;
    }
}

/// [`super::Classifier::find`].
#[inline(always)]
pub(super) fn find<K: Kernel, const A: usize>(forest: &Forest<A>, key: &Words<A>) -> Cursor {
    let mut full = *key;
    forest.thresholds.complete(&mut full);
    let mut left = [(0, 0); TREES_MAX];
    for (left, root) in left.iter_mut().zip(&forest.roots) {
        let mut node = &forest.nodes[*root as usize];
        while node.is_inner() {
            node = &forest.nodes[step::<K, A>(node, &full)];
        }
        *left = (node.block, node.block + node.blocks());
    }
    Cursor { key: key.widened(), left }
}

/// [`super::Classifier::next`].
#[inline(always)]
pub(super) fn next<K: Kernel, const A: usize>(forest: &Forest<A>, cursor: &mut Cursor, from: u32) -> u32 {
    let probe = Probe::<A>::of(&Words::narrowed(&cursor.key));
    let mut best = NONE;
    for (first, end) in &mut cursor.left[..forest.roots.len()] {
        let mut at = *first;
        while at < *end {
            let block = &forest.blocks[at as usize];
            if block.ids[0] >= best {
                break;
            }
            let hits = K::hits(block, &probe) & K::from(block, from);
            if hits != 0 {
                best = best.min(block.ids[hits.trailing_zeros() as usize % LANES]);
                break;
            }
            // Nothing from `from` on matches in this block, and `from` only grows.
            at += 1;
            *first = at;
        }
    }
    best
}
