//! Exact rule counters without a lock and, for a flow whose verdict is known, with a single increment per packet.
//!
//! A packet raises the counter of every rule it matched on its way: jumps, rules that only count, and the rule that
//! decided. Packets of one flow take the same way again and again, so ways are interned as *paths* and counted as such;
//! control adds a path's count to each of its lines when somebody asks.
//!
//! One set per snapshot and worker. The worker is the only writer; control reads at any time. A path's lines are
//! written before the number of paths that covers it is published, and never change afterwards.

use crate::worker::Counter;
use std::sync::atomic::{AtomicU32, Ordering};

/// Most lines of a path that can be interned; longer ones are counted line by line.
const PATH_LINES_MAX: usize = 12;
/// Most paths per set. Rulesets of any size see few: one per rule that traffic really hits.
const PATHS_MAX: usize = 4096;
/// Slots looked at before giving up on interning.
const PROBES_MAX: usize = 16;
/// What a buffer for matched lines holds before it has to grow.
pub(super) const MATCHED_MAX: usize = 64;

/// An interned way through the rules. Fits in 23 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathId(pub u32);

impl PathId {
    /// No way through these rules: the packet's flow goes on under earlier ones.
    pub const KEPT: Self = Self(0);

    /// Stands where the line that decided would.
    pub(super) const KEPT_LINE: u32 = u32::MAX;
}

const _: () = assert!(PATHS_MAX < (1 << 23) - 1);

/// Packets and IP bytes.
#[derive(Debug, Default)]
struct Hits {
    packets: Counter,
    bytes: Counter,
}

/// Two cache lines; counting touches the first only.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Path {
    hits: Hits,
    len: AtomicU32,
    /// The line that decided.
    decider: AtomicU32,
    lines: [AtomicU32; PATH_LINES_MAX],
}

/// One worker's rule counters.
#[derive(Debug)]
pub struct RuleCounters {
    lines: Box<[Hits]>,
    paths: Box<[Path]>,
    path_count: AtomicU32,
    /// Open-addressed index over paths: path number plus one, zero for none. Only the worker uses it.
    index: Box<[AtomicU32]>,
}

impl RuleCounters {
    /// Zeroes, for a compiled form with `lines` lines.
    #[must_use]
    pub fn new(lines: usize) -> Self {
        let paths = (lines * 4).clamp(64, PATHS_MAX);
        let counters = Self {
            lines: (0..lines).map(|_| Hits::default()).collect(),
            paths: (0..paths).map(|_| Path::default()).collect(),
            path_count: AtomicU32::new(1),
            index: (0..(paths * 2).next_power_of_two()).map(|_| AtomicU32::new(0)).collect(),
        };
        counters.path(PathId::KEPT).decider.store(PathId::KEPT_LINE, Ordering::Relaxed);
        counters
    }

    /// The path made of these lines and decided by one of them, made now if it is new; `None` if there is no room for
    /// it. Worker only.
    #[must_use]
    pub fn intern(&self, lines: &[u32], decider: u32) -> Option<PathId> {
        if lines.len() > PATH_LINES_MAX {
            return None;
        }
        let start = lines
            .iter()
            .fold(0x9e37_79b9_u32, |hash, line| (hash.rotate_left(5) ^ line).wrapping_mul(0x85eb_ca6b));
        for probe in 0..PROBES_MAX {
            let slot = &self.index[(start as usize + probe) & (self.index.len() - 1)];
            match slot.load(Ordering::Relaxed) {
                0 => return self.add(slot, lines, decider),
                taken if self.path_lines(taken - 1).eq(lines.iter().copied()) => {
                    return Some(PathId(taken - 1));
                }
                _ => {}
            }
        }
        None
    }

    fn add(&self, slot: &AtomicU32, lines: &[u32], decider: u32) -> Option<PathId> {
        let number = self.path_count.load(Ordering::Relaxed);
        let path = self.paths.get(number as usize)?;
        for (to, line) in path.lines.iter().zip(lines) {
            to.store(*line, Ordering::Relaxed);
        }
        path.decider.store(decider, Ordering::Relaxed);
        path.len.store(u32::try_from(lines.len()).ok()?, Ordering::Relaxed);
        self.path_count.store(number + 1, Ordering::Release);
        slot.store(number + 1, Ordering::Relaxed);
        Some(PathId(number))
    }

    fn path_lines(&self, number: u32) -> impl Iterator<Item = u32> + '_ {
        let path = &self.paths[number as usize];
        let len = path.len.load(Ordering::Relaxed) as usize;
        path.lines[..len.min(PATH_LINES_MAX)].iter().map(|line| line.load(Ordering::Relaxed))
    }

    fn path(&self, path: PathId) -> &Path {
        &self.paths[path.0 as usize]
    }

    /// Packets and bytes that met none of the rules, since their flows go on under earlier ones.
    #[must_use]
    pub fn kept(&self) -> (u64, u64) {
        let hits = &self.path(PathId::KEPT).hits;
        (hits.packets.get(), hits.bytes.get())
    }

    /// The line that decided on this path. Worker only.
    #[inline]
    #[must_use]
    pub fn deciding_line(&self, path: PathId) -> u32 {
        self.path(path).decider.load(Ordering::Relaxed)
    }

    /// Counts one packet that took this path. Worker only.
    #[inline]
    pub fn count_path(&self, path: PathId, bytes: u64) {
        let hits = &self.path(path).hits;
        hits.packets.add(1);
        hits.bytes.add(bytes);
    }

    /// Counts one packet that matched these lines. Worker only.
    pub fn count_lines(&self, lines: &[u32], bytes: u64) {
        for line in lines {
            let hits = &self.lines[*line as usize];
            hits.packets.add(1);
            hits.bytes.add(bytes);
        }
    }

    /// Packets and bytes per line so far.
    #[must_use]
    pub fn totals(&self) -> Vec<(u64, u64)> {
        let mut totals: Vec<_> =
            self.lines.iter().map(|hits| (hits.packets.get(), hits.bytes.get())).collect();
        for number in 0..self.path_count.load(Ordering::Acquire) {
            let hits = &self.paths[number as usize].hits;
            let (packets, bytes) = (hits.packets.get(), hits.bytes.get());
            for line in self.path_lines(number) {
                let total = &mut totals[line as usize];
                total.0 += packets;
                total.1 += bytes;
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_lines_add_up_per_line() {
        let counters = RuleCounters::new(10);
        let path = counters.intern(&[0, 3, 9], 9).unwrap();
        assert_eq!(counters.intern(&[0, 3, 9], 9), Some(path));
        assert_ne!(counters.intern(&[0, 9], 9), Some(path));
        assert_eq!(counters.deciding_line(path), 9);
        counters.count_path(path, 100);
        counters.count_path(path, 60);
        counters.count_lines(&[0, 9], 40);
        let totals = counters.totals();
        assert_eq!(totals[0], (3, 200));
        assert_eq!(totals[3], (2, 160));
        assert_eq!(totals[9], (3, 200));
        assert_eq!(totals.iter().map(|total| total.0).sum::<u64>(), 8);
    }

    #[test]
    fn interning_ends_when_full_and_never_forgets() {
        let counters = RuleCounters::new(1000);
        let made: Vec<_> = (0..10_000).map(|n| counters.intern(&[n % 1000, n / 1000, 999], 999)).collect();
        assert!(made.iter().flatten().count() <= PATHS_MAX);
        assert!(made.iter().flatten().count() > PATHS_MAX / 2);
        for (n, path) in (0..10_000).zip(made) {
            if let Some(path) = path {
                assert_eq!(counters.intern(&[n % 1000, n / 1000, 999], 999), Some(path));
            }
        }
        assert_eq!(counters.intern(&(0..20).collect::<Vec<_>>(), 19), None);
    }
}
