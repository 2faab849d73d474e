//! The forest as it lies in memory.

use super::block::Block;
use super::select::Bits;
use super::ternary::Thresholds;
use super::{NONE, Shape};

/// A node. A leaf has no bits and is its own child. One half of a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(super) struct Node {
    pub(super) masks: [u64; 2],
    /// First child.
    pub(super) base: u32,
    /// Lowest rule below.
    pub(super) min: u32,
    /// First of a leaf's blocks.
    pub(super) block: u32,
    /// From the lowest bit: bits in the first mask 6, words the masks are for 3 and 3, blocks of a leaf 20.
    form: u32,
}

/// All trees of one set.
#[derive(Debug)]
pub(super) struct Forest<const A: usize> {
    pub(super) thresholds: Thresholds,
    /// Nodes that are the trees' roots, in the order of their lowest rules.
    pub(super) roots: Vec<u32>,
    pub(super) nodes: Vec<Node>,
    pub(super) blocks: Vec<Block<A>>,
    pub(super) depth: usize,
    pub(super) cost: f64,
    /// Rules that some leaf leaves out, although headers that come to it match them: one before them hides them there.
    pub(super) hidden: Vec<u32>,
}

impl Node {
    /// A leaf at `at` that has no rules.
    pub(super) const fn empty(at: u32) -> Self {
        Self::leaf(at, NONE, 0, 0)
    }

    /// A leaf at `at`.
    pub(super) const fn leaf(at: u32, min: u32, block: u32, blocks: u32) -> Self {
        Self { masks: [0; 2], base: at, min, block, form: blocks << 12 }
    }

    /// An inner node whose children begin at `base`.
    pub(super) const fn inner(bits: &Bits, base: u32, min: u32) -> Self {
        let words = (bits.words[0] as u32) << 6 | (bits.words[1] as u32) << 9;
        Self { masks: bits.masks, base, min, block: 0, form: bits.masks[0].count_ones() | words }
    }

    #[inline(always)]
    pub(super) const fn is_inner(&self) -> bool {
        self.masks[0] | self.masks[1] != 0
    }

    #[inline(always)]
    pub(super) const fn shift(&self) -> u32 {
        self.form & 63
    }

    #[inline(always)]
    pub(super) const fn words(&self) -> [usize; 2] {
        [(self.form >> 6 & 7) as usize, (self.form >> 9 & 7) as usize]
    }

    #[inline(always)]
    pub(super) const fn blocks(&self) -> u32 {
        self.form >> 12
    }
}

impl<const A: usize> Forest<A> {
    pub(super) const fn shape(&self) -> Shape {
        Shape {
            trees: self.roots.len(),
            depth: self.depth,
            blocks: self.blocks.len(),
            bytes: self.bytes(),
            cost: self.cost,
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>() + self.blocks.len() * size_of::<Block<A>>()
    }
}
