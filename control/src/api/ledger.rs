//! What a request does, as it goes into the audit log. The gate in front of every handler ([`super::access`]) opens an entry
//! for each request that may change something, and closes it with what came of it; handlers fill in what is between. An
//! entry that a handler knows nothing of still says who, which address, and how it ended.

use super::access::Access;
use super::answers::call;
use super::backend::Peer;
use super::failure::Failure;
use crate::audit::{AuditLog, Outcome, Record, Who};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

/// The entry of a request. Handlers take it as an extension.
#[derive(Clone, Debug)]
pub(super) struct Entry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    log: Arc<AuditLog>,
    is_looking: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    record: Record,
    /// Nothing is to be written: it was only looked.
    is_dropped: bool,
    /// Whoever answers closes it, at the end of the answer.
    is_kept_open: bool,
}

/// Why a request was not done, on its way through the layers.
#[derive(Clone, Debug)]
pub(super) struct Said(pub(super) String);

impl Entry {
    /// Opens an entry. Users' names may come from another machine: they are asked for where others need not wait.
    pub(super) async fn open(
        log: Arc<AuditLog>,
        access: Access,
        peer: Peer,
        path: &str,
        query: &str,
    ) -> Result<Self, Failure> {
        let action = path.trim_start_matches("/v1/").replace('/', " ");
        let who = call(move || Who::of(peer)).await?;
        let record = Record { who, action, what: query.to_owned(), ..Record::default() };
        let state = Mutex::new(State { record, ..State::default() });
        Ok(Self(Arc::new(Inner { log, is_looking: access == Access::Look, state })))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What exactly is to be done.
    pub(super) fn what(&self, what: impl Into<String>) {
        self.with(|state| state.record.what = what.into());
    }

    /// How things are before it.
    pub(super) fn before(&self, before: impl Into<Value>) {
        self.with(|state| state.record.before = before.into());
    }

    /// How they are after it.
    pub(super) fn after(&self, after: impl Into<Value>) {
        self.with(|state| state.record.after = after.into());
    }

    /// It turned out to change nothing.
    pub(super) fn drop_it(&self) {
        self.with(|state| state.is_dropped = true);
    }

    /// The answer takes its time: whoever gives it closes the entry.
    pub(super) fn keep_open(&self) {
        self.with(|state| state.is_kept_open = true);
    }

    /// Closes it as done.
    pub(super) fn done(&self) {
        self.close(if self.0.is_looking { Outcome::Looked } else { Outcome::Done }, None);
    }

    fn close(&self, result: Outcome, error: Option<String>) {
        let record = self.with(|state| {
            let is_dropped = std::mem::replace(&mut state.is_dropped, true);
            (!is_dropped).then(|| Record { result, error, ..std::mem::take(&mut state.record) })
        });
        if let Some(record) = record {
            self.0.log.write(record);
        }
    }

    /// Whether [`Self::answered`] has something to write.
    pub(super) fn is_open(&self) -> bool {
        self.with(|state| !state.is_dropped && !state.is_kept_open)
    }

    /// Closes it by how the request was answered.
    pub(super) fn answered(&self, status: StatusCode, said: Option<Said>) {
        if status.is_success() {
            return self.done();
        }
        let result = if status.is_server_error() { Outcome::Failed } else { Outcome::Refused };
        self.close(result, said.map(|Said(why)| why));
    }
}

/// Why a request was not done, if that is so and somebody said it.
pub(super) fn said(answer: &Response) -> Option<Said> {
    answer.extensions().get::<Said>().cloned()
}
