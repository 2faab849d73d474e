//! What is told of a flow, in a list or by an event; the formats only write it down. Pure.

use crate::api::types::{Changed, EventKind, EventRow, FlowRow};
use std::time::{SystemTime, UNIX_EPOCH};

/// A flow, and what of it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) row: &'a FlowRow,
    /// What happened to it; `None` in a list.
    pub(super) kind: Option<EventKind>,
    /// Seconds until it ends. A timer that has run out is not mentioned when the flow goes.
    pub(super) timer: Option<u32>,
    /// Of an event, only if it is new.
    pub(super) state: Option<&'a str>,
    /// Packets and bytes: of an event, only with the last word.
    pub(super) counters: bool,
    /// Of an event, only if there is one or it has just changed.
    pub(super) mark: Option<u32>,
    /// By name or number.
    pub(super) labels: &'a [String],
    /// Not with the last word.
    pub(super) helper: Option<&'a str>,
    /// Whether it is said how long it has lasted: in a list and with the last word.
    pub(super) times: bool,
    /// When the event was, in microseconds since 1970.
    pub(super) at_us: Option<u64>,
    /// Whether somebody asked for it to happen.
    pub(super) asked: bool,
}

impl<'a> Facts<'a> {
    /// In a list.
    pub(super) fn of_flow(row: &'a FlowRow) -> Self {
        Self {
            row,
            kind: None,
            timer: Some(row.timeout_secs),
            state: row.state.as_deref(),
            counters: true,
            mark: Some(row.mark),
            labels: &row.labels,
            helper: row.helper.as_deref(),
            times: true,
            at_us: None,
            asked: false,
        }
    }

    /// Of one that is being deleted: a list to all formats but one, which says what was done.
    pub(super) fn of_deleted(row: &'a FlowRow) -> Self {
        Self { kind: Some(EventKind::Destroy), ..Self::of_flow(row) }
    }

    /// By an event.
    pub(super) fn of_event(event: &'a EventRow) -> Self {
        let EventRow { kind, at_us, lost: _, changed, asked, flow: row } = event;
        let is_last = *kind == EventKind::Destroy;
        let has_changed = |what| changed.contains(&what);
        Self {
            row,
            kind: Some(*kind),
            timer: Some(row.timeout_secs).filter(|secs| !is_last || *secs > 0),
            state: row
                .state
                .as_deref()
                .filter(|_| *kind != EventKind::Update || has_changed(Changed::Protoinfo)),
            counters: is_last,
            mark: Some(row.mark).filter(|mark| *mark != 0 || has_changed(Changed::Mark)),
            labels: &row.labels,
            helper: row.helper.as_deref().filter(|_| !is_last),
            times: is_last,
            at_us: Some(*at_us),
            asked: *asked,
        }
    }

    /// When it began, in milliseconds since 1970, and how many seconds it has lasted; if that is known and told.
    pub(super) fn lasted(&self) -> Option<(u64, u64)> {
        let start = self.row.start_ms.filter(|_| self.times)?;
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let stop = self.row.stop_ms.map_or_else(now, |stop| stop / 1000);
        Some((start, stop.saturating_sub(start / 1000)))
    }
}
