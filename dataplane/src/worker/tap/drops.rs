//! The last drops of a worker: always on, so that "why was this dropped?" has an answer for what has already happened.
//!
//! A ring that the worker writes over and over and anybody may read meanwhile. Each place has a version that is odd while it
//! is being written: a reader that sees it change has read a mixture, and leaves it out. Nothing waits for anybody.

use crate::clock::Now;
use crate::ids::{Generation, PortId};
use crate::packet::Family;
use crate::reason::DropReason;
use crate::rules::model::{ChainId, CtState, RuleId, RuleRef};
use crate::worker::{FamilyRules, Fate};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
    fence,
};

/// Drops that are kept, per worker.
pub const DROPS_KEPT: usize = 512;

/// Bytes kept of each frame: all headers of nearly every packet, and of an ICMP error those of the packet it is about.
pub const DROP_BYTES: usize = 128;

/// A packet that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drop {
    /// Which drop of this worker's, counted from zero.
    pub number: u64,
    /// When: its burst's time.
    pub at: Now,
    /// What became of it; `dropped` is never `None`.
    pub fate: Fate,
    /// By which family's rules, if it was an IP packet.
    pub family: Option<Family>,
    /// Generation of these rules.
    pub since: Generation,
    /// Stable name of the rule that dropped it, if it was none of the policies.
    pub rule: Option<RuleId>,
    /// Bytes of the whole frame.
    pub frame_len: u32,
    /// Its first bytes.
    pub bytes: Vec<u8>,
}

/// Words of a place: number, time, rule's name, where the rule stands, lengths, facts; then the bytes.
const HEAD: usize = 6;
const WORDS: usize = HEAD + DROP_BYTES / 8;

const _: () = assert!(DROP_BYTES <= u8::MAX as usize && DROP_BYTES.is_multiple_of(8));

#[derive(Debug)]
#[repr(align(64))]
struct Place {
    version: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The ring. Written by one worker, read by anybody.
#[derive(Debug)]
pub struct DropLog {
    next: AtomicU64,
    places: Box<[Place]>,
}

impl Default for DropLog {
    fn default() -> Self {
        let place = || Place { version: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; WORDS] };
        Self { next: AtomicU64::new(0), places: (0..DROPS_KEPT).map(|_| place()).collect() }
    }
}

/// Whose rules a packet met, and the name of the one that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Judge {
    pub(in crate::worker) family: Option<Family>,
    pub(in crate::worker) since: Generation,
    pub(in crate::worker) rule: Option<RuleId>,
}

impl Judge {
    pub(in crate::worker) fn new(family: Option<Family>, rules: &FamilyRules, by: Option<RuleRef>) -> Self {
        let rule = by.and_then(|by| {
            let chain = rules.compiled.ruleset().chain(by.chain);
            chain.rules.get(by.rule? as usize).map(|rule| rule.id)
        });
        Self { family, since: rules.since, rule }
    }
}

/// Stands for "none" where a rule's chain or number is kept.
const NONE: u32 = u32::MAX;

const fn pair(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

#[expect(clippy::cast_possible_truncation, reason = "takes apart what `pair` put together")]
const fn apart(pair: u64) -> (u32, u32) {
    ((pair >> 32) as u32, pair as u32)
}

impl DropLog {
    /// Notes a drop. Owning thread only.
    pub(in crate::worker) fn note(&self, at: Now, fate: &Fate, judge: Judge, frame_len: u32, bytes: &[u8]) {
        let Some(reason) = fate.dropped else { return };
        let number = self.next.load(Relaxed);
        let place = self.place(number);
        let version = place.version.load(Relaxed);
        place.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        let (chain, rule) = fate.rule.map_or((NONE, NONE), |by| (by.chain.0, by.rule.unwrap_or(NONE)));
        let bytes = &bytes[..bytes.len().min(DROP_BYTES)];
        let facts = [
            reason as u8,
            fate.ingress.0,
            fate.ct_state.map_or(0, |state| state as u8 + 1),
            judge.family.map_or(0, |family| family as u8),
            u8::try_from(bytes.len()).unwrap_or(0),
            u8::from(judge.rule.is_some()),
            0,
            0,
        ];
        let head = [
            number,
            at.nanos,
            judge.rule.map_or(0, |rule| rule.0),
            pair(judge.since.0, rule),
            pair(chain, frame_len),
            u64::from_le_bytes(facts),
        ];
        let (words, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let words =
            words.iter().chain((!rest.is_empty()).then_some(&last)).map(|word| u64::from_le_bytes(*word));
        for (to, word) in place.words.iter().zip(head.into_iter().chain(words)) {
            to.store(word, Relaxed);
        }
        place.version.store(version.wrapping_add(2), Release);
        self.next.store(number.wrapping_add(1), Release);
    }

    fn place(&self, number: u64) -> &Place {
        &self.places[usize::try_from(number % DROPS_KEPT as u64).unwrap_or(0)]
    }

    /// How many there were since the start.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.next.load(Acquire)
    }

    /// The last ones, oldest first; less those that were overwritten while they were read.
    #[must_use]
    pub fn last(&self) -> Vec<Drop> {
        let end = self.count();
        (end.saturating_sub(DROPS_KEPT as u64)..end).filter_map(|number| self.read(number)).collect()
    }

    fn read(&self, number: u64) -> Option<Drop> {
        let place = self.place(number);
        let version = place.version.load(Acquire);
        let words = place.words.each_ref().map(|word| word.load(Relaxed));
        fence(Acquire);
        let is_whole = version.is_multiple_of(2) && place.version.load(Relaxed) == version;
        if !is_whole || words[0] != number {
            return None;
        }
        let [_, nanos, id, standing, lengths, facts, ..] = words;
        let ((since, rule), (chain, frame_len)) = (apart(standing), apart(lengths));
        let [reason, ingress, state, family, kept, has_id, ..] = facts.to_le_bytes();
        let by = RuleRef { chain: ChainId(chain), rule: Some(rule).filter(|rule| *rule != NONE) };
        let fate = Fate {
            ingress: PortId(ingress),
            dropped: Some(*DropReason::ALL.get(usize::from(reason))?),
            ct_state: usize::from(state).checked_sub(1).and_then(|state| STATES.get(state).copied()),
            rule: (chain != NONE).then_some(by),
        };
        let family = match family {
            4 => Some(Family::V4),
            6 => Some(Family::V6),
            _ => None,
        };
        let mut bytes: Vec<u8> = words[HEAD..].iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(usize::from(kept));
        let rule = (has_id != 0).then_some(RuleId(id));
        Some(Drop {
            number,
            at: Now { nanos },
            fate,
            family,
            since: Generation(since),
            rule,
            frame_len,
            bytes,
        })
    }
}

const STATES: [CtState; 5] =
    [CtState::New, CtState::Established, CtState::Related, CtState::Invalid, CtState::Untracked];

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    fn fate(reason: DropReason, rule: Option<u32>) -> Fate {
        let rule = Some(RuleRef { chain: ChainId(3), rule });
        Fate { ingress: PortId(1), dropped: Some(reason), ct_state: Some(CtState::Untracked), rule }
    }

    const JUDGE: Judge =
        Judge { family: Some(Family::V6), since: Generation(7), rule: Some(RuleId(0xfeed_beef_0123)) };

    #[test]
    fn what_was_noted_is_read_and_only_the_last_are_kept() {
        let log = DropLog::default();
        assert!(log.last().is_empty());
        let total = DROPS_KEPT as u64 + 100;
        for number in 0..total {
            let bytes = vec![u8::try_from(number % 251).unwrap(); usize::try_from(number % 200).unwrap()];
            log.note(Now { nanos: number }, &fate(DropReason::RuleDrop, Some(2)), JUDGE, 1500, &bytes);
        }
        let last = log.last();
        assert_eq!((last.len(), last[0].number, log.count()), (DROPS_KEPT, 100, total));
        for drop in &last {
            assert_eq!(drop.at.nanos, drop.number);
            assert_eq!(drop.fate, fate(DropReason::RuleDrop, Some(2)));
            assert_eq!((drop.family, drop.since, drop.rule), (JUDGE.family, JUDGE.since, JUDGE.rule));
            assert_eq!(drop.frame_len, 1500);
            let len = usize::try_from(drop.number % 200).unwrap().min(DROP_BYTES);
            assert_eq!(drop.bytes, vec![u8::try_from(drop.number % 251).unwrap(); len]);
        }
    }

    #[test]
    fn what_there_is_none_of_stays_none() {
        let log = DropLog::default();
        let nobody = Judge { family: None, since: Generation(1), rule: None };
        let bad =
            Fate { ingress: PortId(0), dropped: Some(DropReason::Ipv4Version), ct_state: None, rule: None };
        log.note(Now { nanos: 5 }, &bad, nobody, 14, &[1, 2, 3]);
        log.note(Now { nanos: 6 }, &fate(DropReason::PolicyDrop, None), nobody, 60, &[]);
        log.note(Now { nanos: 7 }, &Fate { dropped: None, ..bad }, nobody, 60, &[]);
        let last = log.last();
        assert_eq!(last.len(), 2, "what was not dropped is none");
        assert_eq!((last[0].fate, &last[0].bytes[..]), (bad, &[1, 2, 3][..]));
        assert_eq!((last[0].family, last[0].rule), (None, None));
        assert_eq!(last[1].fate, fate(DropReason::PolicyDrop, None));
    }

    #[test]
    fn a_reader_never_sees_a_mixture() {
        let log = Arc::new(DropLog::default());
        let stop = Arc::new(AtomicBool::new(false));
        let writer = std::thread::spawn({
            let (log, stop) = (Arc::clone(&log), Arc::clone(&stop));
            move || {
                let mut number = 0_u64;
                while !stop.load(Relaxed) {
                    let bytes = [u8::try_from(number % 256).unwrap(); DROP_BYTES];
                    log.note(Now { nanos: number }, &fate(DropReason::RuleDrop, Some(1)), JUDGE, 64, &bytes);
                    number += 1;
                }
            }
        });
        let mut seen = 0;
        while seen < 20_000 {
            for drop in log.last() {
                assert_eq!(drop.at.nanos, drop.number);
                assert!(drop.bytes.iter().all(|byte| u64::from(*byte) == drop.number % 256));
                seen += 1;
            }
        }
        stop.store(true, Relaxed);
        writer.join().unwrap();
    }
}
