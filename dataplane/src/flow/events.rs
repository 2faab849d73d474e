//! What happens to flows, told to control: made, changed, gone. Owner thread writes, control reads, over a ring of its
//! own. Nothing is told unless somebody listens, which a worker looks up once per poll; an event that finds the ring full
//! is counted and lost, never waited for.

use super::record::Slot;
use super::region::Region;
use super::view::FlowView;
use crate::clock::Tick;
use crate::rules::conn::CtEvents;
use rtrb::Producer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The flow has entered the table.
    New,
    /// Its state, status or mark has changed.
    Update,
    /// It is leaving the table; these are its last counts.
    Destroy,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct FlowEvent {
    /// What happened.
    pub kind: EventKind,
    /// The flow as it is then.
    pub view: FlowView,
}

/// Who listens, shared by all workers and control.
#[derive(Debug, Default)]
pub struct Listening {
    /// Whether anybody does.
    pub on: AtomicBool,
    /// Events that found no room.
    pub lost: AtomicU64,
}

/// A tracker's end.
#[derive(Debug)]
pub(super) struct Events {
    out: Producer<FlowEvent>,
    listening: Arc<Listening>,
    on: bool,
}

impl Events {
    pub(super) const fn new(out: Producer<FlowEvent>, listening: Arc<Listening>) -> Self {
        Self { out, listening, on: false }
    }

    /// Looks up whether somebody listens.
    #[inline]
    pub(super) fn look(&mut self) {
        self.on = self.listening.on.load(Relaxed);
    }

    /// Tells what happened to the flow in a slot, if it is one that tells.
    #[inline]
    pub(super) fn tell(&mut self, what: CtEvents, region: &Region, slot: Slot, now: Tick) {
        if self.on {
            self.tell_listener(what, region, slot, now);
        }
    }

    #[cold]
    fn tell_listener(&mut self, what: CtEvents, region: &Region, slot: Slot, now: Tick) {
        let told = region.record(slot).and_then(|record| record.tail.extra().events);
        if told.is_some_and(|told| told.and(what).is_empty()) {
            return;
        }
        let Some(view) = region.view(slot, now) else { return };
        let kind = match what {
            CtEvents::NEW | CtEvents::RELATED => EventKind::New,
            CtEvents::DESTROY => EventKind::Destroy,
            _ => EventKind::Update,
        };
        if self.out.push(FlowEvent { kind, view }).is_err() {
            self.listening.lost.fetch_add(1, Relaxed);
        }
    }
}
