//! Rules and headers as words of bits, the form in which bits are chosen and rules compared.
//!
//! A header is `A` address words (one for IPv4: source above destination; four for IPv6) and one word of everything
//! else, from its lowest bit: source port 16, destination port 16, protocol 8, facts 16, port thresholds 8. Facts are
//! flags of which a rule refuses some. Thresholds say of each port whether it is at least one of four values that the
//! ranges of this set of rules turn around: a range like 1024-65535 fixes none of its port's bits, but one of these.

use super::{FACT_GROUPS, Header, Rule};
use std::collections::HashMap;

/// Where the fields of the last word begin.
const DST_PORT: u32 = 16;
const PROTO: u32 = 32;
const FACTS: u32 = 40;
const THRESHOLDS: u32 = 56;
/// Bits of the last word that are derived from the others.
const DERIVED: u64 = !0 << THRESHOLDS;
/// Bits of the last word that hold ports.
const PORTS: u64 = 0xffff_ffff;
/// Thresholds for each of the two ports.
const EACH: usize = 4;

/// A header in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Words<const A: usize> {
    pub(super) addr: [u64; A],
    pub(super) rest: u64,
}

impl<const A: usize> Words<A> {
    /// No bit set.
    pub(super) const ZERO: Self = Self { addr: [0; A], rest: 0 };

    /// One of the words: the last one is [`Words::rest`].
    #[inline(always)]
    pub(super) fn get(&self, word: usize) -> u64 {
        if word < A { self.addr[word] } else { self.rest }
    }

    pub(super) fn get_mut(&mut self, word: usize) -> &mut u64 {
        if word < A { &mut self.addr[word] } else { &mut self.rest }
    }

    /// Source and destination address as they stand in the words.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes addresses apart")]
    const fn addresses(src: u128, dst: u128) -> [u64; A] {
        let mut addr = [0; A];
        if A == 1 {
            addr[0] = (src as u64) << 32 | dst as u64 & 0xffff_ffff;
        } else {
            addr[0] = (src >> 64) as u64;
            addr[1] = src as u64;
            addr[2] = (dst >> 64) as u64;
            addr[3] = dst as u64;
        }
        addr
    }

    /// A header, its thresholds left out.
    #[inline(always)]
    pub(super) const fn of(header: &Header) -> Self {
        let rest = header.src_port as u64
            | (header.dst_port as u64) << DST_PORT
            | (header.proto as u64) << PROTO
            | (header.facts as u64) << FACTS;
        Self { addr: Self::addresses(header.src, header.dst), rest }
    }

    /// The same in more words, those left over zero.
    #[inline(always)]
    pub(super) fn widened(&self) -> Words<4> {
        let mut addr = [0; 4];
        addr[..A].copy_from_slice(&self.addr);
        Words { addr, rest: self.rest }
    }

    /// What [`Words::widened`] was made of.
    #[inline(always)]
    pub(super) fn narrowed(wide: &Words<4>) -> Self {
        let mut addr = [0; A];
        addr.copy_from_slice(&wide.addr[..A]);
        Self { addr, rest: wide.rest }
    }

    /// Both ports, source lowest.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the ports are the low half")]
    pub(super) const fn ports(&self) -> u32 {
        self.rest as u32
    }

    /// Protocol.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "eight bits of the word")]
    pub(super) const fn proto(&self) -> u8 {
        (self.rest >> PROTO) as u8
    }

    /// Facts.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of the word")]
    pub(super) const fn facts(&self) -> u16 {
        (self.rest >> FACTS) as u16
    }
}

/// A rule, or a part of all headers, as the bits it fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ternary<const A: usize> {
    /// Values of the fixed bits; others are zero.
    pub(super) value: Words<A>,
    /// Which bits are fixed.
    pub(super) mask: Words<A>,
}

impl<const A: usize> Ternary<A> {
    /// All headers.
    pub(super) const ALL: Self = Self { value: Words::ZERO, mask: Words::ZERO };

    /// The bits that every header of a rule shares.
    pub(super) fn of(rule: &Rule, thresholds: &Thresholds) -> Self {
        let (src_value, src_mask) = shared_bits(rule.src_ports);
        let (dst_value, dst_mask) = shared_bits(rule.dst_ports);
        let (fact_value, fact_mask) = implied(0, rule.refuses);
        let (derived_value, derived_mask) = thresholds.of_ranges(rule.src_ports, rule.dst_ports);
        let proto = rule.proto.map_or((0, 0), |proto| (u64::from(proto), 0xff));
        let word = |src: u16, dst: u16, proto: u64, facts: u16, derived: u64| {
            u64::from(src)
                | u64::from(dst) << DST_PORT
                | proto << PROTO
                | u64::from(facts) << FACTS
                | derived << THRESHOLDS
        };
        let mask = Words::addresses(rule.src_mask, rule.dst_mask);
        let mut addr = Words::<A>::addresses(rule.src, rule.dst);
        addr.iter_mut().zip(&mask).for_each(|(addr, mask)| *addr &= mask);
        Self {
            value: Words { addr, rest: word(src_value, dst_value, proto.0, fact_value, derived_value) },
            mask: Words { addr: mask, rest: word(src_mask, dst_mask, proto.1, fact_mask, derived_mask) },
        }
    }

    /// The part of these headers in which a bit has a value.
    pub(super) fn with(mut self, word: usize, bit: u32, set: bool) -> Self {
        *self.mask.get_mut(word) |= 1 << bit;
        *self.value.get_mut(word) |= u64::from(set) << bit;
        if word == A && set && (FACTS..THRESHOLDS).contains(&bit) {
            self.settle_facts();
        }
        self
    }

    /// One of a group of facts that holds rules the others out.
    fn settle_facts(&mut self) {
        for group in FACT_GROUPS {
            if self.value.facts() & group != 0 {
                self.mask.rest |= u64::from(group) << FACTS;
            }
        }
    }

    /// Ports that headers of this part may have, source or destination: what spans them.
    fn port_span(&self, shift: u32) -> (u16, u16) {
        let (value, mask) = self.ports(shift);
        (value, value | !mask)
    }

    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits of the word")]
    const fn ports(&self, shift: u32) -> (u16, u16) {
        ((self.value.rest >> shift) as u16, (self.mask.rest >> shift) as u16)
    }

    /// Whether a rule matches every header of this part.
    pub(super) fn is_covered_by(&self, rule: &Rule, bits: &Self) -> bool {
        let contains = |range: (u16, u16), span: (u16, u16)| range.0 <= span.0 && span.1 <= range.1;
        // Which one of a group of facts a header has follows from those it does not have.
        let asked = bits.mask.rest & !(DERIVED | PORTS | bits.value.rest & u64::from(u16::MAX) << FACTS);
        bits.mask.addr.iter().zip(&self.mask.addr).all(|(asked, fixed)| asked & !fixed == 0)
            && asked & !self.mask.rest == 0
            && contains(rule.src_ports, self.port_span(0))
            && contains(rule.dst_ports, self.port_span(DST_PORT))
    }

    /// Whether a rule that agrees with this part in the bits both fix can match in it at all, given its port ranges.
    pub(super) fn meets_ranges(&self, rule: &Rule) -> bool {
        [(rule.src_ports, 0), (rule.dst_ports, DST_PORT)].into_iter().all(|(range, shift)| {
            let (value, mask) = self.ports(shift);
            mask == 0 || range == (0, u16::MAX) || range_meets(range, value, mask)
        })
    }
}

/// The bits that all ports of a range share.
fn shared_bits((low, high): (u16, u16)) -> (u16, u16) {
    let same = (low ^ high).leading_zeros();
    let mask = !u16::MAX.checked_shr(same).unwrap_or(0);
    (low & mask, mask)
}

/// Whether some port of a range has the bits `mask` as in `value`.
fn range_meets((low, high): (u16, u16), value: u16, mask: u16) -> bool {
    // The lowest such port that is not below `low`: its fixed bits are given, so carry over them.
    let (low, value, mask) = (u32::from(low), u32::from(value), u32::from(mask));
    let mut at = low;
    while at <= u32::from(high) {
        let wrong = (at ^ value) & mask;
        if wrong == 0 {
            return true;
        }
        // Up to the next number that changes the highest wrong bit, everything stays wrong.
        let bit = 1 << (31 - wrong.leading_zeros());
        at = (at | (bit - 1)) + 1;
    }
    false
}

/// The facts that a refusal fixes: those refused are not there, and of a group of which one is left, that one is.
fn implied(value: u16, refuses: u16) -> (u16, u16) {
    FACT_GROUPS.iter().fold((value, refuses), |(value, mask), group| {
        let left = group & !refuses;
        if left.is_power_of_two() { (value | left, mask | left) } else { (value, mask) }
    })
}

/// Ports that a set's ranges turn around.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Thresholds {
    /// Source ports, then destination ports; zero where there is none.
    at: [u16; 2 * EACH],
    /// How many of each are in use.
    used: [usize; 2],
}

impl Thresholds {
    /// The most frequent ends of ranges that are neither one port nor all.
    pub(super) fn of(rules: &[Rule]) -> Self {
        let mut thresholds = Self::default();
        for side in 0..2 {
            let mut ends: HashMap<u16, u32> = HashMap::new();
            for rule in rules {
                let (low, high) = [rule.src_ports, rule.dst_ports][side];
                if low < high {
                    let ends_at = [(low > 0).then_some(low), high.checked_add(1)];
                    ends_at.into_iter().flatten().for_each(|end| *ends.entry(end).or_default() += 1);
                }
            }
            let mut ends: Vec<(u32, u16)> = ends.into_iter().map(|(end, count)| (count, end)).collect();
            ends.sort_unstable_by(|a, b| b.cmp(a));
            ends.truncate(EACH);
            ends.retain(|(count, _)| *count as usize * 50 >= rules.len());
            for (place, (_, end)) in thresholds.at[side * EACH..].iter_mut().zip(&ends) {
                *place = *end;
            }
            thresholds.used[side] = ends.len();
        }
        thresholds
    }

    /// Adds the bits of a header.
    #[inline(always)]
    pub(super) fn complete<const A: usize>(&self, words: &mut Words<A>) {
        let ports = [words.rest & 0xffff, words.rest >> DST_PORT & 0xffff];
        for (side, port) in ports.into_iter().enumerate() {
            for n in side * EACH..side * EACH + self.used[side] {
                words.rest |= u64::from(port >= u64::from(self.at[n])) << (THRESHOLDS as usize + n);
            }
        }
    }

    /// The bits that two ranges fix.
    fn of_ranges(&self, src: (u16, u16), dst: (u16, u16)) -> (u64, u64) {
        let (mut value, mut mask) = (0, 0);
        for (side, range) in [src, dst].into_iter().enumerate() {
            for n in side * EACH..side * EACH + self.used[side] {
                let (above, below) = (range.0 >= self.at[n], range.1 < self.at[n]);
                value |= u64::from(above) << n;
                mask |= u64::from(above || below) << n;
            }
        }
        (value, mask)
    }
}
