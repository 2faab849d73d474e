//! Connections that helpers expect: listed, and told of as they come and go.

use super::LiveBackend;
use super::events::{COLLECT_EVERY, LISTENERS_MAX, QUIET_ROUNDS, too_many};
use crate::api::expect_row;
use crate::api::types::{EventKind, ExpectEventRow, ExpectRow, Family};
use dataplane::flow;
use std::ops::ControlFlow;
use std::sync::{MutexGuard, PoisonError};

/// One listener, for as long as it listens.
struct Expecting<'a>(&'a LiveBackend);

impl<'a> Expecting<'a> {
    /// Takes in a listener, and says from which event on it hears.
    fn new(backend: &'a LiveBackend) -> Result<(Self, u64), String> {
        let mut count = backend.expecting();
        if *count >= LISTENERS_MAX {
            return Err(too_many());
        }
        *count += 1;
        Ok((Self(backend), backend.expectations.listen()))
    }
}

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        *self.0.expecting() -= 1;
        self.0.expectations.stop_listening();
    }
}

impl LiveBackend {
    fn expecting(&self) -> MutexGuard<'_, usize> {
        self.expecting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of one family or both, the next one to be given up first.
    pub(super) fn expected(&self, family: Option<Family>) -> Vec<ExpectRow> {
        let now = self.now().tick();
        let mut rows: Vec<_> =
            self.expectations.list(now).iter().map(|expected| expect_row(expected, now)).collect();
        rows.retain(|row| family.is_none_or(|family| family == row.family));
        rows.sort_by_key(|row| (row.timeout_secs, row.src, row.dst, row.dport));
        rows
    }

    /// Calls `each` for what becomes of them until it says stop.
    pub(super) fn listen_to_expectations(
        &self,
        family: Option<Family>,
        each: &mut dyn FnMut(Option<ExpectEventRow>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let (_listening, mut next) = Expecting::new(self)?;
        let mut quiet = 0;
        while quiet % QUIET_ROUNDS != 0 || each(None).is_continue() {
            let now = self.now();
            let (mut events, after, mut lost) = self.expectations.events_from(next, now.tick());
            next = after;
            quiet = if events.is_empty() { quiet + 1 } else { 0 };
            if !self.hub.is_enabled() {
                events.clear();
            }
            let at_us = self.wall_at(now).micros;
            for flow::ExpectEvent { kind, at, expectation } in events {
                let row = expect_row(&expectation, at.unwrap_or(now.tick()));
                if family.is_some_and(|family| family != row.family) {
                    continue;
                }
                let kind = if kind == flow::EventKind::New { EventKind::New } else { EventKind::Destroy };
                let row = ExpectEventRow { kind, at_us, lost: std::mem::take(&mut lost), expectation: row };
                if each(Some(row)).is_break() {
                    return Ok(());
                }
            }
            std::thread::sleep(COLLECT_EVERY);
        }
        Ok(())
    }
}
