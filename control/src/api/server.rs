//! The API server: one thread with a single-threaded runtime that owns the socket. Calls into the daemon run on a
//! bounded pool of helper threads, so that a slow one holds up neither other clients nor the daemon.

use super::backend::{Backend, Peer};
use super::limits::{Limits, SHUTDOWN_TIMEOUT};
use super::rates::{SAMPLE_EVERY, Sampler};
use super::{routes, socket};
use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, oneshot};

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody listens there.
    #[error(
        "{by} listens on {path}; give this one a socket of its own with --socket PATH (and fwctl the same --socket PATH)"
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// Who.
        by: String,
    },
    /// Something else stands there.
    #[error("{path} exists and is no socket; remove it or choose another path with --socket PATH")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The kernel does not take such a path.
    #[error(
        "the path of the socket has more than {max} bytes: {path}; choose a shorter one with --socket PATH"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Bytes allowed.
        max: usize,
    },
    /// `api.group` names nobody.
    #[error("there is no group `{group}`; create it (groupadd {group}) or change api.group")]
    NoGroup {
        /// The name.
        group: String,
    },
    /// The system refused.
    #[error("cannot {action} {path}: {source}; check permissions, or choose another path with --socket PATH")]
    Socket {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start the API thread: {0}")]
    Thread(std::io::Error),
}

/// The running server. Dropping it stops it: no new requests, a short time for answers under way, socket file removed.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What every request handler shares.
pub(super) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) sampler: Mutex<Sampler>,
    pub(super) limits: Limits,
}

/// Whether a connection may last longer than others: somebody listens to events on it.
#[derive(Clone, Default)]
pub(super) struct Lasting(pub(super) Arc<AtomicBool>);

impl Server {
    /// Listens on `path` and serves `backend` from a thread of its own.
    ///
    /// # Errors
    /// Socket in use, path unusable, group unknown: each says what to do.
    pub fn start(path: &Path, group: Option<&str>, backend: Arc<dyn Backend>) -> Result<Self, ServeError> {
        Self::start_with(path, group, backend, Limits::default())
    }

    /// As [`Self::start`], with other limits.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        path: &Path,
        group: Option<&str>,
        backend: Arc<dyn Backend>,
        limits: Limits,
    ) -> Result<Self, ServeError> {
        let (listener, file) = socket::listen(path, group)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // A call per connection, and the sampler's.
            .max_blocking_threads(limits.connections_max + 1)
            .thread_name("api-call")
            .build()
            .map_err(ServeError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::new(Shared { backend, sampler: Mutex::default(), limits });
        let body = move || {
            runtime.block_on(serve(listener, &shared, stopped));
            drop(file);
            // Calls still under way finish on their own; the process does not wait for them.
            runtime.shutdown_background();
        };
        let thread =
            std::thread::Builder::new().name("api".to_owned()).spawn(body).map_err(ServeError::Thread)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The thread may be gone already; then there is nobody to tell.
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the API thread ended with a panic");
        }
    }
}

async fn serve(listener: UnixListener, shared: &Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!("the API socket cannot be polled: {error}"),
    };
    let sampler = tokio::spawn(sample(shared.clone()));
    let router = routes::router(shared.clone());
    let graceful = GracefulShutdown::new();
    let connection_timeout = shared.limits.connection_timeout;
    let slots = Arc::new(Semaphore::new(shared.limits.connections_max));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            _ = &mut stopped => break,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others have to finish first.
                tracing::warn!("the API cannot take a connection: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let lasting = Lasting::default();
        let peer = stream
            .peer_cred()
            .map_or_else(|_| Peer::default(), |peer| Peer { uid: Some(peer.uid()), pid: peer.pid() });
        let service = router.clone().layer(Extension(lasting.clone())).layer(Extension(peer));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(shared.limits.head_timeout)
            // One request each: connecting is cheap here, and an idle connection would hold a slot.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let mut connection = std::pin::pin!(connection);
            // Errors are the client's: gone, too slow, not speaking HTTP.
            while tokio::time::timeout(connection_timeout, connection.as_mut()).await.is_err()
                && lasting.0.load(Ordering::Relaxed)
            {}
            drop(slot);
        });
    }
    sampler.abort();
    drop(listener);
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await;
}

async fn accept(
    listener: &tokio::net::UnixListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(tokio::net::UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

/// Takes a picture of the counters every second, for the rates.
async fn sample(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let taken = shared.clone();
        let stats = tokio::task::spawn_blocking(move || taken.backend.stats()).await;
        if let Ok(stats) = stats {
            shared.sampler.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(stats);
        }
    }
}
