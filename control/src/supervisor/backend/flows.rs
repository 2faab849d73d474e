//! Flows listed, removed and changed. A table is walked slice by slice, and what is asked of its worker is asked slice by
//! slice too, so memory is bounded however many flows there are.

use super::{LiveBackend, WorkerFacts};
use crate::api::backend::Backend as _;
use crate::api::types::{FlowFilter, FlowRow, Tally, UpdateRequest};
use crate::api::{Shown, Wall, flow_row, is_kept};
use crate::requests::{Desk, REQUEST_RING};
use crate::supervisor::wall::WallClock;
use dataplane::clock::Now;
use dataplane::flow::{Change, Cursor, FlowView, Request, Tenure, TrackSettings};
use std::ops::ControlFlow;
use std::sync::{MutexGuard, PoisonError};

/// Slots looked at in one go.
pub(super) const SLICE_SLOTS: usize = 4096;

const _: () = assert!(SLICE_SLOTS <= REQUEST_RING);

/// Takes a flow; says whether it wants more.
type Each<'a> = &'a mut dyn FnMut(FlowRow) -> ControlFlow<()>;

/// Whether a change would take labels from a flow that has none of them, and no more.
fn is_moot(change: Change, view: &FlowView) -> bool {
    matches!(change, Change::Update { mark: None, labels: Some((lost, 0)), timeout_secs: None }
        if view.labels.unwrap_or(0) & lost == 0)
}

/// Whether a flow was to get labels and can have none.
fn can_have_none(change: Change, view: Option<&FlowView>) -> bool {
    matches!(change, Change::Update { labels: Some((_, given)), .. } if given != 0)
        && view.is_some_and(|view| view.labels.is_none())
}

impl WorkerFacts {
    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveBackend {
    /// Calls `each` for every flow that fits, until it says stop. Each is shown as it is found: nothing is kept.
    pub(super) fn list(&self, filter: &FlowFilter, each: Each<'_>) {
        let mut goes_on = ControlFlow::Continue(());
        for worker in &self.workers {
            let mut cursor = Cursor::default();
            loop {
                let (now, shown) = (self.now().tick(), self.shown());
                cursor = worker.region.walk_some(now, cursor, SLICE_SLOTS, |view| {
                    if goes_on.is_break() || view.is_expired(now) {
                        return;
                    }
                    let row = flow_row(view, &shown);
                    if filter.fits(&row) {
                        goes_on = each(row);
                    }
                });
                if goes_on.is_break() {
                    return;
                }
                if cursor.is_start() {
                    break;
                }
            }
        }
    }

    /// How many flows fit.
    pub(super) fn count(&self, filter: &FlowFilter) -> u64 {
        if filter.is_empty() {
            return self.workers.iter().map(|worker| u64::from(worker.region.flow_count())).sum();
        }
        let mut count = 0;
        self.list(filter, &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        });
        count
    }

    /// Flows of one slice of a worker's table that fit, and where the next slice begins. A flow whose time is up is none,
    /// whether it was removed yet or not.
    fn slice(
        &self,
        worker: &WorkerFacts,
        from: Cursor,
        filter: &FlowFilter,
    ) -> (Vec<(FlowView, FlowRow)>, Cursor) {
        let (now, shown) = (self.now().tick(), self.shown());
        let mut found = Vec::new();
        let next = worker.region.walk_some(now, from, SLICE_SLOTS, |view| {
            let row = flow_row(view, &shown);
            if !view.is_expired(now) && filter.fits(&row) {
                found.push((*view, row));
            }
        });
        (found, next)
    }

    /// Removes the flows that fit.
    pub(super) fn delete(&self, filter: &FlowFilter, each: Each<'_>) -> Tally {
        self.change(filter, Change::Delete, each)
    }

    /// Changes the flows that fit.
    pub(super) fn update(&self, request: &UpdateRequest, each: Each<'_>) -> Tally {
        let UpdateRequest { filter, mark, label_add: _, label_del: _, timeout_secs } = request;
        let mark = mark.map(|mark| (mark.mask, mark.value));
        // The API has looked: unknown ones do not come here.
        let labels = request.labels(&self.label_names()).unwrap_or_default();
        self.change(filter, Change::Update { mark, labels, timeout_secs: *timeout_secs }, each)
    }

    fn change(&self, filter: &FlowFilter, change: Change, each: Each<'_>) -> Tally {
        let mut tally = Tally::default();
        for worker in &self.workers {
            let mut cursor = Cursor::default();
            loop {
                let (mut found, next) = self.slice(worker, cursor, filter);
                found.retain(|(view, _)| !is_moot(change, view));
                let requests =
                    found.iter().map(|(view, _)| Request::Flow { slot: view.slot, seq: view.seq, change });
                let is_stuck = !found.is_empty() && worker.desk().ask(requests).is_err();
                let (now, shown) = (self.now().tick(), self.shown());
                for (view, row) in found {
                    let after = worker.region.view(view.slot, now).filter(|after| after.seq == view.seq);
                    let row = match (change, after.as_ref()) {
                        (Change::Delete, None) => row,
                        (Change::Update { .. }, Some(after)) if !is_stuck => flow_row(after, &shown),
                        // It went before it could be changed.
                        (Change::Update { .. }, None) => continue,
                        (_, Some(_)) => {
                            tally.remained += 1;
                            continue;
                        }
                    };
                    if can_have_none(change, after.as_ref()) {
                        tally.unlabelled += 1;
                        continue;
                    }
                    tally.count += 1;
                    if each(row).is_break() {
                        return tally;
                    }
                }
                cursor = next;
                if cursor.is_start() {
                    break;
                }
                if is_stuck {
                    tally.remained += self.rest(worker, cursor, filter);
                    break;
                }
            }
        }
        tally
    }

    /// Flows that fit from a cursor on.
    fn rest(&self, worker: &WorkerFacts, mut cursor: Cursor, filter: &FlowFilter) -> u64 {
        let mut count = 0;
        while !cursor.is_start() {
            let (found, next) = self.slice(worker, cursor, filter);
            count += found.len() as u64;
            cursor = next;
        }
        count
    }

    /// Has every worker remove all its flows.
    pub(super) fn flush(&self) -> Tally {
        let mut tally = Tally::default();
        for worker in &self.workers {
            let before = u64::from(worker.region.flow_count());
            match worker.desk().ask([Request::Flush]) {
                Ok(()) => tally.count += before,
                Err(_) => {
                    let remained = u64::from(worker.region.flow_count());
                    tally.remained += remained;
                    tally.count += before.saturating_sub(remained);
                }
            }
        }
        tally
    }

    /// What is shown of flows now.
    pub(super) fn shown(&self) -> Shown {
        self.shown_at(self.wall_at(self.now()))
    }

    /// What is shown of flows at a moment.
    pub(super) fn shown_at(&self, wall: Wall) -> Shown {
        let TrackSettings { acct, timestamp, .. } = self.publisher.track_settings();
        let newest = self.publisher.mailbox().newest();
        let tenures = Some([newest.v4.tenure(), newest.v6.tenure()]);
        Shown { counters: acct, start: timestamp.then_some(wall), labels: self.label_names(), tenures }
    }

    /// How many flows go on under earlier rules if these are the tenures of IPv4's and IPv6's.
    pub(super) fn count_kept(&self, tenures: [Tenure; 2]) -> u64 {
        let (now, mut count) = (self.now().tick(), 0);
        for worker in &self.workers {
            worker
                .region
                .walk(now, |view| count += u64::from(!view.is_expired(now) && is_kept(view, tenures)));
        }
        count
    }

    /// A moment of the workers' clock, by the calendar too.
    pub(super) fn wall_at(&self, then: Now) -> Wall {
        Wall { tick: then.tick(), micros: WallClock::read(self.started).micros(then) }
    }
}
