//! Expectations: connections that a helper has read of in another one, and that are RELATED when they come.
//!
//! The one part of tracking that workers share, because the announced connection may belong to any of them. Packets of
//! known flows never come here; the first packet of an unknown one reads a single word of a small filter, and only if
//! something may expect it takes the lock. An outsider cannot aim at the lock without knowing an announced address and
//! port, and what it hits there it uses up.
//!
//! Semantics follow Linux `nf_conntrack_expect.c`: used once, forgotten after a while or with the connection that
//! announced it, replaced by the next one of the same connection.

use super::events::EventKind;
use super::record::FlowId;
use crate::clock::Tick;
use crate::packet::{Family, Tuple};
use crate::rules::conn::Helper;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Seconds an announced connection is waited for. The kernel's helpers all say five minutes.
pub(super) const WAIT_SECS: u32 = 300;

/// Words of the filter.
const FILTER: usize = 1024;

/// Events kept for listeners that have not asked for them yet.
const LOG_MAX: usize = 4096;

/// A connection that is expected: from one address, any port, to one address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Where it comes from.
    pub src: u128,
    /// Where it goes.
    pub dst: u128,
    /// The port there.
    pub dst_port: u16,
    /// Protocol.
    pub proto: u8,
    /// Family of the addresses.
    pub family: Family,
    /// Number of the zone it is expected in, whatever direction of the announcing one was in it.
    pub zone: u16,
    /// The connection that announced it.
    pub master: FlowId,
    /// Tuple of that connection's original direction.
    pub master_orig: Tuple,
    /// That connection's helper.
    pub helper: Helper,
    /// When it is given up.
    pub deadline: Tick,
    /// Whether listeners hear of its beginning, and of its end.
    pub tells: (bool, bool),
}

/// Something that happened to an expectation: it was made, or it has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectEvent {
    /// What; never [`EventKind::Update`].
    pub kind: EventKind,
    /// When, of one that was made.
    pub at: Option<Tick>,
    /// The expectation.
    pub expectation: Expectation,
}

/// What has happened lately, for any number of listeners who each know how far they have read. Nothing is written down
/// while there is none.
#[derive(Debug, Default)]
struct Log {
    events: VecDeque<ExpectEvent>,
    /// Number of the first of them.
    first: u64,
    listeners: u32,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<Key, Vec<Expectation>>,
    log: Log,
}

/// Where it goes: what an expectation is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    dst: u128,
    dst_port: u16,
    proto: u8,
    family: Family,
}

/// Why an expectation was not taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Another connection expects the same.
    Clash,
    /// There are as many as may be.
    Full,
}

/// All expectations of a gateway.
#[derive(Debug)]
pub struct Expectations {
    /// How many expectations have a key that falls on this word.
    filter: Box<[AtomicU32; FILTER]>,
    inner: Mutex<Inner>,
}

impl Default for Expectations {
    fn default() -> Self {
        Self { filter: Box::new([const { AtomicU32::new(0) }; FILTER]), inner: Mutex::default() }
    }
}

impl Key {
    const fn of(tuple: &Tuple) -> Self {
        let Tuple { src: _, dst, src_port: _, dst_port, proto, family } = *tuple;
        Self { dst, dst_port, proto, family }
    }

    #[expect(clippy::cast_possible_truncation, reason = "mixes the halves")]
    fn word(self) -> usize {
        let mixed = (self.dst as u64 ^ (self.dst >> 64) as u64)
            .wrapping_add(u64::from(self.dst_port) << 8 | u64::from(self.proto))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 54) as usize % FILTER
    }
}

impl Expectation {
    const fn key(&self) -> Key {
        Key { dst: self.dst, dst_port: self.dst_port, proto: self.proto, family: self.family }
    }
}

impl Log {
    fn note(&mut self, kind: EventKind, expectation: Expectation, at: Option<Tick>) {
        let (new, destroy) = expectation.tells;
        let is_told = if kind == EventKind::New { new } else { destroy };
        if self.listeners == 0 || !is_told {
            return;
        }
        if self.events.len() == LOG_MAX {
            self.events.pop_front();
            self.first += 1;
        }
        self.events.push_back(ExpectEvent { kind, at, expectation });
    }
}

impl Expectations {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something may be expected where a packet goes.
    #[inline]
    pub(super) fn may_expect(&self, tuple: &Tuple) -> bool {
        self.filter[Key::of(tuple).word()].load(Relaxed) != 0
    }

    /// The expectation a packet fulfils, used up by it.
    #[inline]
    pub(super) fn take(&self, tuple: &Tuple, zone: u16, now: Tick) -> Option<Expectation> {
        if !self.may_expect(tuple) {
            return None;
        }
        self.take_slowly(tuple.src, Key::of(tuple), zone, now)
    }

    #[cold]
    fn take_slowly(&self, src: u128, key: Key, zone: u16, now: Tick) -> Option<Expectation> {
        let Inner { by_key, log } = &mut *self.inner();
        let list = by_key.get_mut(&key)?;
        let at = list.iter().position(|expected| {
            expected.src == src && expected.zone == zone && !expected.deadline.is_past(now)
        })?;
        let found = list.remove(at);
        if list.is_empty() {
            by_key.remove(&key);
        }
        self.filter[key.word()].fetch_sub(1, Relaxed);
        log.note(EventKind::Destroy, found, None);
        Some(found)
    }

    /// Takes up an expectation. The one its connection had before is replaced: helpers may have one at a time.
    pub(super) fn expect(&self, new: Expectation, max: u32, now: Tick) -> Result<(), Refused> {
        let inner = &mut *self.inner();
        let same = |old: &Expectation| old.src == new.src && old.zone == new.zone && old.master != new.master;
        let clashes = inner
            .by_key
            .get(&new.key())
            .is_some_and(|list| list.iter().any(|old| same(old) && !old.deadline.is_past(now)));
        if clashes {
            return Err(Refused::Clash);
        }
        self.retain(inner, |old| old.master != new.master && !old.deadline.is_past(now));
        if inner.by_key.values().map(Vec::len).sum::<usize>() >= max as usize {
            return Err(Refused::Full);
        }
        self.filter[new.key().word()].fetch_add(1, Relaxed);
        inner.by_key.entry(new.key()).or_default().push(new);
        inner.log.note(EventKind::New, new, Some(now));
        Ok(())
    }

    /// A connection goes by another name: it has changed its worker.
    pub(super) fn rename(&self, master: FlowId, now: FlowId) {
        let mut inner = self.inner();
        let all = inner.by_key.values_mut().flatten();
        all.filter(|expected| expected.master == master).for_each(|expected| expected.master = now);
    }

    /// Forgets what a connection that is gone has announced.
    pub(super) fn forget(&self, master: FlowId) {
        self.retain(&mut self.inner(), |old| old.master != master);
    }

    /// Forgets all. Says how many there were.
    pub fn flush(&self) -> usize {
        let inner = &mut *self.inner();
        let count = inner.by_key.values().map(Vec::len).sum();
        self.retain(inner, |_| false);
        count
    }

    fn retain(&self, inner: &mut Inner, keep: impl Fn(&Expectation) -> bool) {
        let Inner { by_key, log } = inner;
        by_key.retain(|key, list| {
            let gone = list.extract_if(.., |expected| !keep(expected));
            let gone = gone.map(|expected| log.note(EventKind::Destroy, expected, None)).count();
            self.filter[key.word()].fetch_sub(u32::try_from(gone).unwrap_or(0), Relaxed);
            !list.is_empty()
        });
    }

    /// Those waiting now, for listing.
    #[must_use]
    pub fn list(&self, now: Tick) -> Vec<Expectation> {
        let inner = self.inner();
        inner.by_key.values().flatten().filter(|expected| !expected.deadline.is_past(now)).copied().collect()
    }

    /// The same expectations, with nobody listening.
    pub(super) fn copy(&self, now: Tick) -> Self {
        let copy = Self::default();
        for expected in self.list(now) {
            copy.filter[expected.key().word()].fetch_add(1, Relaxed);
            copy.inner().by_key.entry(expected.key()).or_default().push(expected);
        }
        copy
    }

    /// Begins to listen; gives the number of the next event. Ends with [`Self::stop_listening`].
    pub fn listen(&self) -> u64 {
        let mut inner = self.inner();
        inner.log.listeners += 1;
        inner.log.first + inner.log.events.len() as u64
    }

    /// One listener less.
    pub fn stop_listening(&self) {
        let log = &mut self.inner().log;
        log.listeners = log.listeners.saturating_sub(1);
        if log.listeners == 0 {
            log.first += log.events.len() as u64;
            log.events.clear();
        }
    }

    /// Events from this number on, the next number to ask for, and how many were lost because they were asked for too
    /// late. An expectation that nobody fulfils ends when somebody looks.
    #[must_use]
    pub fn events_from(&self, number: u64, now: Tick) -> (Vec<ExpectEvent>, u64, u64) {
        let inner = &mut *self.inner();
        self.retain(inner, |old| !old.deadline.is_past(now));
        let log = &inner.log;
        let lost = log.first.saturating_sub(number);
        let known = usize::try_from(number.saturating_sub(log.first)).unwrap_or(usize::MAX);
        let events = log.events.iter().skip(known).copied().collect();
        (events, log.first + log.events.len() as u64, lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Slot;
    use crate::ids::WorkerId;
    use crate::packet::proto;

    fn master(seq: u32) -> FlowId {
        FlowId { worker: WorkerId(0), slot: Slot::default(), seq }
    }

    fn expectation(seq: u32, port: u16) -> Expectation {
        Expectation {
            src: 1,
            dst: 2,
            dst_port: port,
            proto: proto::TCP,
            family: Family::V4,
            zone: 0,
            master: master(seq),
            master_orig: packet(7, 21),
            helper: Helper::Ftp,
            deadline: Tick(0).plus_secs(WAIT_SECS),
            tells: (true, true),
        }
    }

    fn packet(src: u128, port: u16) -> Tuple {
        Tuple { src, dst: 2, src_port: 4242, dst_port: port, proto: proto::TCP, family: Family::V4 }
    }

    const NOW: Tick = Tick(100);

    #[test]
    fn an_expectation_is_used_once_and_only_by_the_address_it_is_for() {
        let all = Expectations::default();
        all.expect(expectation(1, 2000), 10, NOW).unwrap();
        assert_eq!(all.take(&packet(9, 2000), 0, NOW), None);
        assert_eq!(all.take(&packet(1, 2001), 0, NOW), None);
        assert_eq!(all.take(&packet(1, 2000), 5, NOW), None);
        assert!(all.take(&packet(1, 2000), 0, NOW).is_some());
        assert_eq!(all.take(&packet(1, 2000), 0, NOW), None);
        assert!(all.filter.iter().all(|word| word.load(Relaxed) == 0));
    }

    #[test]
    fn the_next_announcement_replaces_the_one_before_and_others_must_not_clash() {
        let all = Expectations::default();
        all.expect(expectation(1, 2000), 10, NOW).unwrap();
        assert_eq!(all.expect(expectation(2, 2000), 10, NOW), Err(Refused::Clash));
        all.expect(expectation(1, 2001), 10, NOW).unwrap();
        assert_eq!(all.list(NOW).len(), 1);
        all.expect(expectation(2, 2000), 10, NOW).unwrap();
        all.forget(master(1));
        assert_eq!(all.take(&packet(1, 2001), 0, NOW), None);
        assert!(all.take(&packet(1, 2000), 0, NOW).is_some());
    }

    #[test]
    fn expectations_are_limited_and_time_out() {
        let all = Expectations::default();
        for seq in 0..10 {
            all.expect(expectation(seq, 2000 + u16::try_from(seq).unwrap()), 10, NOW).unwrap();
        }
        assert_eq!(all.expect(expectation(10, 3000), 10, NOW), Err(Refused::Full));
        let later = NOW.plus_secs(WAIT_SECS);
        assert_eq!(all.take(&packet(1, 2000), 0, later), None);
        assert!(all.list(later).is_empty());
        all.expect(expectation(10, 3000), 10, later).unwrap();
        assert_eq!(all.list(later).len(), 0, "made with a deadline of its own, long past");
    }

    #[test]
    fn beginnings_and_ends_are_told_to_everybody_who_listens() {
        use EventKind::{Destroy, New};
        let all = Expectations::default();
        let told = |from: &mut u64, now| -> (Vec<(EventKind, u16)>, u64) {
            let (events, next, lost) = all.events_from(*from, now);
            *from = next;
            (events.iter().map(|event| (event.kind, event.expectation.dst_port)).collect(), lost)
        };
        all.expect(expectation(1, 2000), 10, NOW).unwrap();
        let (mut first, mut second) = (all.listen(), all.listen());
        assert_eq!(told(&mut first, NOW), (Vec::new(), 0), "what was before is no news");
        all.expect(expectation(1, 2001), 10, NOW).unwrap();
        all.expect(expectation(2, 2002), 10, NOW).unwrap();
        let news = vec![(Destroy, 2000), (New, 2001), (New, 2002)];
        assert_eq!(told(&mut first, NOW), (news.clone(), 0));
        assert!(all.take(&packet(1, 2001), 0, NOW).is_some());
        all.forget(master(2));
        assert_eq!(told(&mut first, NOW), (vec![(Destroy, 2001), (Destroy, 2002)], 0));
        assert_eq!(told(&mut second, NOW).0, [news, vec![(Destroy, 2001), (Destroy, 2002)]].concat());
        // Given up after a while, flushed, or not to be told of.
        let silent = Expectation { tells: (true, false), ..expectation(3, 2003) };
        all.expect(silent, 10, NOW).unwrap();
        let later = NOW.plus_secs(WAIT_SECS);
        assert_eq!(told(&mut first, later), (vec![(New, 2003)], 0));
        all.expect(Expectation { deadline: later.plus_secs(WAIT_SECS), ..expectation(4, 2004) }, 10, later)
            .unwrap();
        assert_eq!(all.flush(), 1);
        assert_eq!(told(&mut first, later), (vec![(New, 2004), (Destroy, 2004)], 0));
        assert!(all.filter.iter().all(|word| word.load(Relaxed) == 0));
        // Who lags too far is told how far.
        for _ in 0..LOG_MAX {
            all.expect(
                Expectation { deadline: later.plus_secs(WAIT_SECS), ..expectation(5, 2005) },
                10,
                later,
            )
            .unwrap();
        }
        let (events, lost) = told(&mut second, later);
        assert_eq!(events.len(), LOG_MAX);
        assert_eq!(lost, 3 + 2 * LOG_MAX as u64 - 1 - LOG_MAX as u64, "each but the first replaces one");
        all.stop_listening();
        all.stop_listening();
        all.flush();
        assert_eq!(told(&mut first, later).0, []);
    }
}
