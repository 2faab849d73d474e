//! Which bits of a header a node takes: one after the other, each time the one that leaves the smallest children.
//!
//! Smallest is the least sum of squares, in which a rule that leaves the bit open counts on both sides: the time of a
//! header that belongs to a rule drawn at random, with a price on copies.

use super::block::LANES;
use super::ternary::Ternary;

/// Bits of the header, packed: those of one word below those of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    pub(super) words: [u8; 2],
    pub(super) masks: [u64; 2],
}

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Most bits.
    pub(super) bits: u32,
    /// Most rules in all children, over the rules in the node.
    pub(super) copies: f64,
    /// Steps that are worth one copy of each rule.
    pub(super) copy_price: f64,
    /// Steps that are worth a child for each rule.
    pub(super) node_price: f64,
}

impl Bits {
    /// How many.
    pub(super) const fn count(&self) -> u32 {
        self.masks[0].count_ones() + self.masks[1].count_ones()
    }

    /// The number of children.
    pub(super) const fn children(&self) -> usize {
        1 << self.count()
    }

    /// The child a rule belongs to as far as it fixes the bits, and the bits of that number which it leaves open.
    pub(super) fn place<const A: usize>(&self, rule: &Ternary<A>) -> (usize, usize) {
        let pack = |of: [u64; 2]| {
            let low = extract(of[0], self.masks[0]);
            let high = extract(of[1], self.masks[1]);
            usize::try_from(low | high << self.masks[0].count_ones()).unwrap_or(0)
        };
        let value = self.words.map(|word| rule.value.get(usize::from(word)));
        let open = self.words.map(|word| !rule.mask.get(usize::from(word)));
        (pack(value), pack(open))
    }

    /// The part of `region` that a child is for.
    pub(super) fn region<const A: usize>(&self, region: &Ternary<A>, child: usize) -> Ternary<A> {
        let mut region = *region;
        let mut place = 0;
        for (&word, &mask) in self.words.iter().zip(&self.masks) {
            let mut mask = mask;
            while mask != 0 {
                region = region.with(usize::from(word), mask.trailing_zeros(), child >> place & 1 != 0);
                place += 1;
                mask &= mask - 1;
            }
        }
        region
    }

    /// With one more bit, of a word that there is room for.
    fn with<const A: usize>(mut self, word: usize, bit: u32) -> Self {
        if let Some(place) = self.room_for::<A>(word) {
            self.words[place] = u8::try_from(word).unwrap_or(0);
            self.masks[place] |= 1 << bit;
        }
        self
    }

    /// Which of the two places a word has or can have. With two words in all, each has its own.
    fn room_for<const A: usize>(&self, word: usize) -> Option<usize> {
        if A == 1 {
            return Some(word);
        }
        (0..2).find(|&place| self.masks[place] == 0 || usize::from(self.words[place]) == word)
    }

    /// Whether a bit is among them.
    fn has(&self, word: usize, bit: u32) -> bool {
        self.words.iter().zip(self.masks).any(|(at, mask)| usize::from(*at) == word && mask >> bit & 1 != 0)
    }
}

/// The bits of a word that a mask has, packed together.
fn extract(word: u64, mask: u64) -> u64 {
    let (mut mask, mut packed, mut place) = (mask, 0, 0);
    while mask != 0 {
        packed |= (word >> mask.trailing_zeros() & 1) << place;
        place += 1;
        mask &= mask - 1;
    }
    packed
}

/// Chooses bits for a node with these rules; `None` if none helps.
pub(super) fn choose<const A: usize>(rules: &[Ternary<A>], list: &[u32], limits: &Limits) -> Option<Bits> {
    let mut chosen = Bits::default();
    if A == 1 {
        chosen.words = [0, 1];
    }
    // Children that are still to be split, one after the other in `members`.
    let stride = list.len().div_ceil(SAMPLE);
    let mut members: Vec<u32> = list.iter().step_by(stride).copied().collect();
    let mut cells: Vec<usize> = vec![members.len()];
    let rules_here = members.len() as f64;
    // Those that are small enough: their members and the squares of these.
    let mut done = (0.0, 0.0);
    let mut tally = Tally::<A>::default();
    let mut best = (SCAN * blocks_of(list.len()) - 1.0, Bits::default());
    while chosen.count() < limits.bits && !cells.is_empty() {
        tally.clear();
        let mut start = 0;
        for len in &cells {
            tally.add(rules, &members[start..start + len]);
            start += len;
        }
        let Some((word, bit)) = tally.best(&chosen) else { break };
        chosen = chosen.with::<A>(word, bit);
        (members, cells) = split(rules, &members, &cells, word, bit, stride, &mut done);
        let still: f64 = cells.iter().map(|len| *len as f64).sum();
        let copies = (done.0 + still) / rules_here;
        if copies > limits.copies {
            break;
        }
        let blocks = cells.iter().map(|len| *len as f64 * blocks_of(*len * stride)).sum::<f64>() + done.0;
        let nodes = chosen.children() as f64 / list.len() as f64;
        let score = SCAN * blocks / (done.0 + still) + limits.copy_price * copies + limits.node_price * nodes;
        if score < best.0 {
            best = (score, chosen);
        }
    }
    (best.1.count() > 0).then_some(best.1)
}

/// Rules that a choice looks at, evenly drawn from more.
const SAMPLE: usize = 8192;
/// What comparing a block costs in a leaf of which half is read on average, in steps from node to node.
const SCAN: f64 = 0.9;

/// Blocks of a leaf.
fn blocks_of(rules: usize) -> f64 {
    rules.div_ceil(LANES) as f64
}

/// Splits all children by a bit and drops those that are small enough then.
fn split<const A: usize>(
    rules: &[Ternary<A>],
    members: &[u32],
    cells: &[usize],
    word: usize,
    bit: u32,
    stride: usize,
    done: &mut (f64, f64),
) -> (Vec<u32>, Vec<usize>) {
    let mut next = Vec::with_capacity(members.len() * 5 / 4);
    let mut lens = Vec::with_capacity(cells.len() * 2);
    let mut start = 0;
    for len in cells {
        let cell = &members[start..start + len];
        start += len;
        for side in [0, 1] {
            let from = next.len();
            next.extend(cell.iter().copied().filter(|&id| {
                let rule = &rules[id as usize];
                rule.mask.get(word) >> bit & 1 == 0 || rule.value.get(word) >> bit & 1 == side
            }));
            let len = next.len() - from;
            if len * stride <= LANES {
                next.truncate(from);
                done.0 += len as f64;
                done.1 += (len * len) as f64;
            } else {
                lens.push(len);
            }
        }
    }
    (next, lens)
}

/// For each bit, what splitting by it would come to: children's sizes, summed and squared and summed.
#[derive(Debug)]
struct Tally<const A: usize> {
    squares: [[f64; 64]; 5],
}

impl<const A: usize> Default for Tally<A> {
    fn default() -> Self {
        Self { squares: [[0.0; 64]; 5] }
    }
}

impl<const A: usize> Tally<A> {
    fn clear(&mut self) {
        self.squares = [[0.0; 64]; 5];
    }

    /// Adds a child.
    fn add(&mut self, rules: &[Ternary<A>], cell: &[u32]) {
        let all = u32::try_from(cell.len()).unwrap_or(u32::MAX);
        for word in 0..=A {
            let ones = count(cell.iter().map(|&id| rules[id as usize].value.get(word)));
            let fixed = count(cell.iter().map(|&id| rules[id as usize].mask.get(word)));
            for bit in 0..64 {
                let one = f64::from(all - (fixed[bit] - ones[bit]));
                let zero = f64::from(all - ones[bit]);
                self.squares[word][bit] += one * one + zero * zero;
            }
        }
    }

    /// The bit with the least sum of squares, of the words that there is room for.
    fn best(&self, chosen: &Bits) -> Option<(usize, u32)> {
        let mut best = (f64::INFINITY, None);
        for word in (0..=A).filter(|&word| chosen.room_for::<A>(word).is_some()) {
            for bit in 0..64 {
                let squares = self.squares[word][bit as usize];
                if squares < best.0 && !chosen.has(word, bit) {
                    best = (squares, Some((word, bit)));
                }
            }
        }
        best.1
    }
}

/// The bits of a byte, a byte each.
static SPREAD: [u64; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            table[byte] |= (byte as u64 >> bit & 1) << (8 * bit);
            bit += 1;
        }
        byte += 1;
    }
    table
};

/// How many of some words have each bit.
fn count(words: impl Iterator<Item = u64>) -> [u32; 64] {
    let mut totals = [0; 64];
    let mut bytes = [0_u64; 8];
    let mut pending = 0;
    let mut flush = |bytes: &mut [u64; 8]| {
        for (at, bytes) in bytes.iter_mut().enumerate() {
            for (bit, count) in bytes.to_le_bytes().into_iter().enumerate() {
                totals[at * 8 + bit] += u32::from(count);
            }
            *bytes = 0;
        }
    };
    for word in words {
        for (byte, into) in word.to_le_bytes().into_iter().zip(&mut bytes) {
            *into += SPREAD[usize::from(byte)];
        }
        pending += 1;
        if pending == 255 {
            flush(&mut bytes);
            pending = 0;
        }
    }
    flush(&mut bytes);
    totals
}
