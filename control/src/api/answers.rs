//! Answers that take a while: calls into the daemon that may wait, and bodies that are sent as they are made, a piece at a
//! time. What is made waits for its client, never the daemon.

use super::backend::{ApplyError, Backend};
use super::failure::Failure;
use super::ledger::Entry;
use super::limits::{CHUNK_BYTES, CHUNKS_IN_FLIGHT};
use super::listener::{self, Lasting};
use super::server::Shared;
use super::types::{ErrorKind, FlowRow, Tally, TallyLine};
use crate::system::cores;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use serde_json::json;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

impl Shared {
    /// An answer of JSON lines, and where to put them. From within the server's runtime only.
    fn lines(&self) -> (Lines, Response) {
        let (sender, body) = Channel::<Bytes, io::Error>::new(CHUNKS_IN_FLIGHT);
        let lines = Lines {
            sender: Some(sender),
            chunk: Vec::with_capacity(CHUNK_BYTES),
            runtime: tokio::runtime::Handle::current(),
            timeout: self.limits.write_timeout,
        };
        (lines, ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response())
    }

    /// An answer of the rows that `work` goes over, one per line, as it does.
    pub(super) fn rows<R: serde::Serialize + 'static>(
        self: Arc<Self>,
        work: impl FnOnce(&dyn Backend, &mut dyn FnMut(R) -> ControlFlow<()>) + Send + 'static,
    ) -> Response {
        let (mut lines, answer) = self.lines();
        // Not awaited: it ends with the walk, or with the client.
        spawn_last(move || {
            let mut whole = true;
            work(&*self.backend, &mut |row| {
                let sent = lines.push(&row);
                whole &= sent.is_continue();
                sent
            });
            lines.end(whole);
        });
        answer
    }

    /// An answer of the events that `work` hands out, one per line, and empty lines in between. Begins once somebody
    /// listens, so that who may not is told why.
    pub(super) async fn listen<E: serde::Serialize + 'static>(
        self: Arc<Self>,
        lasting: Lasting,
        work: impl FnOnce(&dyn Backend, &mut dyn FnMut(Option<E>) -> ControlFlow<()>) -> Result<(), ApplyError>
        + Send
        + 'static,
    ) -> Result<Response, Failure> {
        self.stream(lasting, "application/x-ndjson", move |backend, out| {
            work(backend, &mut |event| {
                out.begin();
                match event {
                    Some(event) => out.lines.push(&event),
                    None => out.push_bytes(b"\n"),
                }
            })
        })
        .await
    }

    /// An answer that lasts until the client goes. Begins once `work` says so, so that who may not is told why.
    pub(super) async fn stream(
        self: Arc<Self>,
        lasting: Lasting,
        kind: &'static str,
        work: impl FnOnce(&dyn Backend, &mut Lasts) -> Result<(), ApplyError> + Send + 'static,
    ) -> Result<Response, Failure> {
        let (lines, mut answer) = self.lines();
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let (started, begun) = oneshot::channel();
        let mut out = Lasts { lines, started: Some(started) };
        spawn_held(move || {
            let worked = work(&*self.backend, &mut out);
            match (worked, out.started.take()) {
                (Err(why), Some(started)) => {
                    let _ = started.send(Err(why));
                }
                _ => out.lines.end(true),
            }
        });
        match begun.await {
            Ok(Ok(())) => {
                lasting.begin();
                Ok(answer)
            }
            Ok(Err(why)) => Err(why.into()),
            Err(_) => Err(Failure::new(
                ErrorKind::Internal,
                "the daemon does not tell of events; its log may say why",
            )),
        }
    }

    /// An answer of the flows that `work` goes over, as it does, and at the end how many they were.
    pub(super) fn tally(
        self: Arc<Self>,
        entry: Entry,
        work: impl FnOnce(&dyn Backend, &mut dyn FnMut(FlowRow) -> ControlFlow<()>) -> Tally + Send + 'static,
    ) -> Response {
        let (mut lines, answer) = self.lines();
        entry.keep_open();
        spawn_last(move || {
            let mut whole = true;
            let tally = work(&*self.backend, &mut |row| {
                let sent = lines.push(&TallyLine::Flow(row));
                whole &= sent.is_continue();
                sent
            });
            entry.after(json!(tally));
            entry.done();
            whole &= lines.push(&TallyLine::End(tally)).is_continue();
            lines.end(whole);
        });
        answer
    }
}

/// An answer that lasts.
pub(super) struct Lasts {
    lines: Lines,
    /// Whoever waits for its beginning.
    started: Option<oneshot::Sender<Result<(), ApplyError>>>,
}

impl Lasts {
    /// It begins now, if it has not.
    pub(super) fn begin(&mut self) {
        if let Some(started) = self.started.take() {
            let _ = started.send(Ok(()));
        }
    }

    /// Sends these bytes, with what waited before them.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        self.lines.chunk.extend_from_slice(bytes);
        self.lines.send()
    }
}

/// Flows on their way to a client, a piece at a time. Only an aborted body tells the client that lines are missing; one that just
/// ends looks complete: dropped without an end, as by a panic, it is aborted.
struct Lines {
    sender: Option<Sender<Bytes, io::Error>>,
    chunk: Vec<u8>,
    runtime: tokio::runtime::Handle,
    timeout: Duration,
}

impl Lines {
    fn push(&mut self, row: &impl serde::Serialize) -> ControlFlow<()> {
        if serde_json::to_writer(&mut self.chunk, row).is_err() {
            return ControlFlow::Break(());
        }
        self.chunk.push(b'\n');
        if self.chunk.len() < CHUNK_BYTES - 1024 { ControlFlow::Continue(()) } else { self.send() }
    }

    /// Sends what is left.
    fn end(mut self, whole: bool) {
        if whole && self.send().is_continue() {
            self.sender = None;
        }
    }

    /// Waits until the client has taken enough for another piece; breaks if it is gone or too slow.
    fn send(&mut self) -> ControlFlow<()> {
        if self.chunk.is_empty() {
            return ControlFlow::Continue(());
        }
        let Some(sender) = &mut self.sender else { return ControlFlow::Break(()) };
        let chunk = Bytes::from(std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK_BYTES)));
        // Within the runtime: this thread is none of its own.
        let sending = async { tokio::time::timeout(self.timeout, sender.send_data(chunk)).await };
        let sent = self.runtime.block_on(sending);
        if matches!(sent, Ok(Ok(()))) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            sender.abort(io::Error::other("lines are missing"));
        }
    }
}

/// Runs a call into the daemon where it may wait.
pub(super) async fn call<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    spawn_held(work).await.map_err(failed)
}

/// Runs a call that looks at all flows, behind whatever else there is to do.
pub(super) async fn call_last<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (done, answer) = oneshot::channel();
    spawn_last(move || drop(done.send(work())));
    answer.await.map_err(failed)
}

pub(super) fn failed(_: impl std::error::Error) -> Failure {
    Failure::new(ErrorKind::Internal, "the daemon failed on this request; its log says more")
}

/// Runs work where it may wait. The request's place is taken until it is done, whatever becomes of the client.
fn spawn_held<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> tokio::task::JoinHandle<T> {
    let guest = listener::guest();
    tokio::task::spawn_blocking(move || {
        let done = work();
        drop(guest);
        done
    })
}

/// The same for work that goes on for long, behind whatever else there is to do: where every core is a worker's, packets come
/// first. In a thread of its own, for it cannot be made urgent again.
fn spawn_last(work: impl FnOnce() + Send + 'static) {
    let guest = listener::guest();
    let run = move || {
        cores::come_last();
        work();
        drop(guest);
    };
    if let Err(error) = std::thread::Builder::new().name("api-list".to_owned()).spawn(run) {
        // With the work its answer has been dropped: the client is told.
        tracing::warn!("a request is not served: no thread for it: {error}");
    }
}
