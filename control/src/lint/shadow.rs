//! Rules behind an earlier rule of their chain that already decides about all their packets. Pure.
//!
//! Earlier rules are found by what they ask for exactly: source and destination prefix, protocol, a single port. All that
//! ask for the same kinds of things (the same prefix lengths, and so on) are looked up together with one hash, so a rule costs one
//! look-up per kind, not one per earlier rule. Whatever is found is then compared whole.

use super::logic::{implies, is_known};
use dataplane::packet::Family;
use dataplane::rules::model::{Match, PortSide, Rule, Table};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// Look-ups spent on one file: some tenths of a second. Rules beyond are taken to be alive.
const LOOKUPS_MAX: usize = 20_000_000;

/// Earlier rules compared per look-up, the newest of those that asked for the same.
const CANDIDATES_MAX: usize = 32;

/// No earlier rule.
const NONE: u32 = u32::MAX;

/// What is left of the work that one file may cost.
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(LOOKUPS_MAX)
    }
}

/// The rules of one chain so far that decide about all they match.
pub(super) struct Earlier<'a> {
    family: Family,
    table: Table,
    kinds: Vec<Kind>,
    known_kinds: HashSet<Kind>,
    /// Newest rule that asks for something, by the hash of it.
    newest: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    rules: Vec<Entry<'a>>,
}

struct Entry<'a> {
    rule: &'a Rule,
    number: u32,
    /// The one before it that asks for the same.
    before: u32,
}

/// Which things a rule asks for, not which values of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    src_len: u8,
    dst_len: u8,
    proto: bool,
    src_port: bool,
    dst_port: bool,
}

/// What a rule asks for exactly. Addresses begin at the highest bit.
#[derive(Clone, Copy, Default)]
struct Asked {
    src: (u8, u128),
    dst: (u8, u128),
    proto: Option<u8>,
    src_port: Option<u16>,
    dst_port: Option<u16>,
}

impl<'a> Earlier<'a> {
    pub(super) fn new(family: Family, table: Table) -> Self {
        Self {
            family,
            table,
            kinds: Vec::new(),
            known_kinds: HashSet::new(),
            newest: HashMap::default(),
            rules: Vec::new(),
        }
    }

    /// Notes a rule that ends the walk of whatever matches it.
    pub(super) fn note(&mut self, number: u32, rule: &'a Rule) {
        if !rule.matches.iter().all(|condition| is_known(condition, self.table)) {
            return;
        }
        let asked = Asked::by(rule.matches.iter(), self.family);
        let kind = asked.kind();
        if self.known_kinds.insert(kind) {
            self.kinds.push(kind);
        }
        let index = u32::try_from(self.rules.len()).unwrap_or(NONE);
        let before = self.newest.insert(asked.hash(kind), index).unwrap_or(NONE);
        self.rules.push(Entry { rule, number, before });
    }

    /// The number of an earlier rule that matches every packet that could match this one; `known` is what is known of the
    /// chain's packets.
    pub(super) fn covering(&self, known: &[&Match], rule: &Rule, budget: &mut Budget) -> Option<u32> {
        let asked = Asked::by(known.iter().copied().chain(&rule.matches), self.family);
        budget.0 = budget.0.checked_sub(self.kinds.len())?;
        self.kinds.iter().filter(|kind| asked.is_of(**kind)).find_map(|kind| {
            let mut at = self.newest.get(&asked.hash(*kind)).copied().unwrap_or(NONE);
            for _ in 0..CANDIDATES_MAX {
                let entry = self.rules.get(at as usize)?;
                if self.covers(entry.rule, known, rule) {
                    return Some(entry.number);
                }
                at = entry.before;
            }
            None
        })
    }

    fn covers(&self, earlier: &Rule, known: &[&Match], rule: &Rule) -> bool {
        let given = || known.iter().copied().chain(&rule.matches);
        earlier.matches.iter().all(|wanted| given().any(|given| implies(given, wanted, self.table)))
    }
}

impl Asked {
    fn by<'m>(conditions: impl Iterator<Item = &'m Match>, family: Family) -> Self {
        let mut asked = Self::default();
        for condition in conditions {
            match *condition {
                Match::Src { addr, mask, invert: false } => longer(&mut asked.src, addr, mask, family),
                Match::Dst { addr, mask, invert: false } => longer(&mut asked.dst, addr, mask, family),
                Match::Proto { proto, invert: false } => asked.proto = Some(proto),
                Match::Ports { which, ref ranges, invert: false } => {
                    let &[(low, high)] = ranges.as_slice() else { continue };
                    match which {
                        _ if low != high => {}
                        PortSide::Src => asked.src_port = Some(low),
                        PortSide::Dst => asked.dst_port = Some(low),
                        PortSide::Either => {}
                    }
                }
                _ => {}
            }
        }
        asked
    }

    const fn kind(&self) -> Kind {
        Kind {
            src_len: self.src.0,
            dst_len: self.dst.0,
            proto: self.proto.is_some(),
            src_port: self.src_port.is_some(),
            dst_port: self.dst_port.is_some(),
        }
    }

    /// Whether a rule of that kind could cover what is asked for here.
    const fn is_of(&self, kind: Kind) -> bool {
        kind.src_len <= self.src.0
            && kind.dst_len <= self.dst.0
            && (!kind.proto || self.proto.is_some())
            && (!kind.src_port || self.src_port.is_some())
            && (!kind.dst_port || self.dst_port.is_some())
    }

    /// A hash of what is asked for, as far as that kind goes.
    fn hash(&self, kind: Kind) -> u64 {
        let prefix = |addr: u128, len: u8| {
            addr & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(if len == 0 { 0 } else { u128::MAX })
        };
        let (src, dst) = (prefix(self.src.1, kind.src_len), prefix(self.dst.1, kind.dst_len));
        let small = |wanted: bool, value: Option<u16>| {
            if wanted { value.map_or(0, |value| u64::from(value) + 1) } else { 0 }
        };
        let head = u64::from(kind.src_len) << 56
            | u64::from(kind.dst_len) << 48
            | small(kind.proto, self.proto.map(u16::from)) << 36
            | small(kind.src_port, self.src_port) << 18
            | small(kind.dst_port, self.dst_port);
        [src >> 64, src, dst >> 64, dst].iter().fold(mix(head), |hash, half| {
            #[expect(clippy::cast_possible_truncation, reason = "takes the halves of an address apart")]
            mix(hash ^ *half as u64)
        })
    }
}

/// Takes up a prefix if it is one and the longest so far.
fn longer(best: &mut (u8, u128), addr: u128, mask: u128, family: Family) {
    let (addr, mask) = match family {
        Family::V4 => (addr << 96, mask << 96),
        Family::V6 => (addr, mask),
    };
    let len = mask.leading_ones();
    if len + mask.trailing_zeros() < 128 && mask != 0 {
        return;
    }
    if let Ok(len) = u8::try_from(len)
        && len > best.0
    {
        *best = (len, addr);
    }
}

/// Spreads the bits (the finaliser of splitmix64).
const fn mix(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// Keys that are hashes already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| mix(hash ^ u64::from(*byte)));
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
