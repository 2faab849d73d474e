//! What happens to flows, told to control: made, changed, gone. Owner thread writes, control reads, over a ring of its
//! own. Nothing is told unless somebody listens, which a worker looks up once per poll; an event that finds the ring full
//! is counted and lost, never waited for. Whoever keeps accounts hears of ends alone, but of all of them: that costs packets
//! nothing.
//!
//! What one packet brings its flow is told once, after the rules have spoken: an answer that also gets a mark is one
//! event. As in the kernel, news of a packet that is dropped waits for one of its flow that passes.

use super::record::Slot;
use super::region::Region;
use super::view::FlowView;
use crate::clock::Now;
use crate::rules::conn::CtEvents;
use rtrb::Producer;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Most flows whose news may wait for a packet that passes. News of further ones is lost.
const WAITING_MAX: usize = 1 << 16;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The flow has entered the table.
    New,
    /// Its state, status, mark or labels have changed.
    Update,
    /// It is leaving the table; these are its last counts.
    Destroy,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct FlowEvent {
    /// What happened.
    pub kind: EventKind,
    /// What exactly.
    pub news: CtEvents,
    /// When.
    pub at: Now,
    /// Whether control asked for it, rather than a packet or time.
    pub asked: bool,
    /// Whether it is told for accounts alone: nobody else listens, or rules keep it from them.
    pub for_accounts: bool,
    /// The flow as it is then.
    pub view: FlowView,
}

/// Who listens, shared by all workers and control.
#[derive(Debug, Default)]
pub struct Listening {
    /// Whether anybody does, to everything.
    pub on: AtomicBool,
    /// Whether anybody keeps accounts and has to hear of the end of every flow.
    pub ends: AtomicBool,
    /// Events that found no room.
    pub lost: AtomicU64,
}

/// A tracker's end.
#[derive(Debug)]
pub(super) struct Events {
    out: Producer<FlowEvent>,
    listening: Arc<Listening>,
    on: bool,
    ends: bool,
    /// When the current poll began.
    now: Now,
    /// What the packet being judged has brought so far, and to which flow.
    noted: Option<(Slot, CtEvents)>,
    /// News of packets that did not pass.
    waiting: HashMap<Slot, CtEvents>,
    /// Whether what happens now happens because control asked for it.
    pub(super) asked: bool,
}

impl Events {
    pub(super) fn new(out: Producer<FlowEvent>, listening: Arc<Listening>) -> Self {
        Self {
            out,
            listening,
            on: false,
            ends: false,
            now: Now::default(),
            noted: None,
            waiting: HashMap::new(),
            asked: false,
        }
    }

    /// Looks up whether somebody listens. Once per poll.
    #[inline]
    pub(super) fn look(&mut self, now: Now) {
        self.now = now;
        self.ends = self.listening.ends.load(Relaxed);
        let on = self.listening.on.load(Relaxed);
        if on != self.on {
            self.on = on;
            self.noted = None;
            self.waiting = HashMap::new();
        }
    }

    /// Whether somebody listens to everything.
    #[inline]
    pub(super) const fn is_on(&self) -> bool {
        self.on
    }

    /// Whether anybody has to hear of a flow's end.
    pub(super) const fn tells_ends(&self) -> bool {
        self.on || self.ends
    }

    /// Notes what the packet being judged has brought a flow.
    #[inline]
    pub(super) fn note(&mut self, slot: Slot, news: CtEvents) {
        if self.on {
            let before =
                self.noted.filter(|(of, _)| *of == slot).map_or(CtEvents::default(), |(_, news)| news);
            self.noted = Some((slot, before.or(news)));
        }
    }

    /// The packet has been judged: tells what was noted, and what waited for a packet of this flow to pass.
    #[cold]
    pub(super) fn tell(&mut self, of: Option<Slot>, passed: bool, region: &Region) {
        let (slot, noted) = match (self.noted.take(), of) {
            (Some((slot, news)), _) => (slot, news),
            (None, Some(slot)) => (slot, CtEvents::default()),
            (None, None) => return,
        };
        if passed {
            let waited = self.waiting.remove(&slot).unwrap_or_default();
            self.push(noted.or(waited), region, slot);
        } else if !noted.is_empty() {
            self.wait(slot, noted);
        }
    }

    /// News of a flow that changes its worker.
    pub(super) fn take_waiting(&mut self, slot: Slot) -> Option<CtEvents> {
        self.waiting.remove(&slot)
    }

    /// The same, of one that has come.
    pub(super) fn put_waiting(&mut self, slot: Slot, news: CtEvents) {
        if self.on {
            self.wait(slot, news);
        }
    }

    fn wait(&mut self, slot: Slot, news: CtEvents) {
        if self.waiting.len() >= WAITING_MAX && !self.waiting.contains_key(&slot) {
            self.listening.lost.fetch_add(1, Relaxed);
            return;
        }
        let waiting = self.waiting.entry(slot).or_default();
        *waiting = waiting.or(news);
    }

    /// A flow is leaving the table. One of which nothing was told yet leaves without a word.
    #[cold]
    pub(super) fn gone(&mut self, slot: Slot, region: &Region) {
        self.waiting.remove(&slot);
        let noted = self.noted.take_if(|(of, _)| *of == slot).map_or(CtEvents::default(), |(_, news)| news);
        if noted.and(CtEvents::NEW.or(CtEvents::RELATED)).is_empty() {
            self.push(CtEvents::DESTROY, region, slot);
        }
    }

    /// Tells, if the flow is one that tells such things.
    fn push(&mut self, news: CtEvents, region: &Region, slot: Slot) {
        let told = region.record(slot).and_then(|record| record.tail.extra().events);
        let has = |event| !news.and(event).is_empty();
        let for_accounts = !self.on || told.is_some_and(|told| told.and(news).is_empty());
        if news.is_empty() || for_accounts && !(self.ends && has(CtEvents::DESTROY)) {
            return;
        }
        let Some(view) = region.view(slot, self.now.tick()) else { return };
        let kind = if has(CtEvents::DESTROY) {
            EventKind::Destroy
        } else if has(CtEvents::NEW.or(CtEvents::RELATED)) {
            EventKind::New
        } else {
            EventKind::Update
        };
        let event = FlowEvent { kind, news, at: self.now, asked: self.asked, for_accounts, view };
        if self.out.push(event).is_err() {
            self.listening.lost.fetch_add(1, Relaxed);
        }
    }
}
