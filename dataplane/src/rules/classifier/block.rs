//! Eight rules side by side, compared with one header at once: four cache lines for IPv4, ten for IPv6.

use super::Rule;
use super::ternary::{Ternary, Words};

/// Rules of a block.
pub(super) const LANES: usize = 8;

/// Eight rules by field, in the order of their numbers. Lanes without a rule match nothing.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Block<const A: usize> {
    /// Address words under their masks.
    pub(super) value: [[u64; LANES]; A],
    pub(super) mask: [[u64; LANES]; A],
    /// Four 16-bit limits that a header's [`Probe::ports`] must not be below: lowest source and destination port,
    /// complements of the highest ones.
    pub(super) ports: [u64; LANES],
    /// Lowest protocol, complement of the highest, and the 16 facts that are refused.
    pub(super) proto: [u32; LANES],
    pub(super) ids: [u32; LANES],
}

/// A header as blocks want it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe<const A: usize> {
    pub(super) addr: [u64; A],
    /// Source and destination port, then their complements.
    pub(super) ports: u64,
    /// Protocol, its complement, and ones.
    pub(super) proto: u32,
    /// Zeros, and the facts.
    pub(super) facts: u32,
}

impl<const A: usize> Probe<A> {
    /// Zeros.
    pub(super) const ZERO: Self = Self { addr: [0; A], ports: 0, proto: 0, facts: 0 };

    #[inline(always)]
    pub(super) fn of(key: &Words<A>) -> Self {
        let (ports, proto) = (key.ports(), key.proto());
        Self {
            addr: key.addr,
            ports: u64::from(ports) | u64::from(!ports) << 32,
            proto: u32::from(proto) | u32::from(!proto) << 8 | 0xffff_0000,
            facts: u32::from(key.facts()) << 16,
        }
    }
}

impl<const A: usize> Block<A> {
    /// No rules.
    pub(super) const EMPTY: Self = Self {
        value: [[0; LANES]; A],
        mask: [[0; LANES]; A],
        // No port is both at least 65535 and at most 0.
        ports: [u64::MAX; LANES],
        proto: [0; LANES],
        ids: [super::NONE; LANES],
    };

    /// Puts a rule into a lane.
    pub(super) fn set(&mut self, lane: usize, id: u32, rule: &Rule, bits: &Ternary<A>) {
        for word in 0..A {
            self.value[word][lane] = bits.value.addr[word];
            self.mask[word][lane] = bits.mask.addr[word];
        }
        let limits = |(low, high): (u16, u16)| (u64::from(low), u64::from(!high));
        let (src, dst) = (limits(rule.src_ports), limits(rule.dst_ports));
        self.ports[lane] = src.0 | dst.0 << 16 | src.1 << 32 | dst.1 << 48;
        let proto = rule.proto.map_or(0, |proto| u32::from(proto) | u32::from(!proto) << 8);
        self.proto[lane] = proto | u32::from(rule.refuses) << 16;
        self.ids[lane] = id;
    }

    /// Which lanes match, one bit each: in plain words, the meaning of the vector forms.
    pub(super) fn plain_hits(&self, probe: &Probe<A>) -> u32 {
        (0..LANES).fold(0, |hits, lane| {
            let differs = (0..A).fold(0, |differs, word| {
                differs | (self.value[word][lane] ^ probe.addr[word]) & self.mask[word][lane]
            });
            let below = |field: u32| self.ports[lane] >> field & 0xffff > probe.ports >> field & 0xffff;
            let other = |field: u32| self.proto[lane] >> field & 0xff > probe.proto >> field & 0xff;
            let is_out = below(0) | below(16) | below(32) | below(48) | other(0) | other(8);
            let refused = self.proto[lane] & probe.facts;
            hits | u32::from(differs == 0 && !is_out && refused == 0) << lane
        })
    }
}
