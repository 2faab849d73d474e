//! The API server: one thread with a single-threaded runtime that owns the socket and the TCP listeners. Calls into the
//! daemon run on a bounded pool of helper threads, so that a slow one holds up neither other clients nor the daemon.

use super::access::{GroupNames, Groups};
use super::backend::Backend;
use super::gate::Tally;
use super::limits::{LASTING_MAX, Limits, SHUTDOWN_TIMEOUT};
use super::listener::{self, Listener, Opened, Place};
use super::rates::{SAMPLE_EVERY, Sampler};
use super::{routes, socket};
use crate::audit::AuditLog;
use crate::web::Access;
use hyper_util::server::graceful::GracefulShutdown;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

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
    /// `api.group` or `api.write_group` names nobody.
    #[error("there is no group `{group}`; create it (groupadd {group}) or change {setting}")]
    NoGroup {
        /// The name.
        group: String,
        /// Which setting names it.
        setting: &'static str,
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
    /// A TCP address cannot be used.
    #[error("cannot listen on {addr} ({setting}): {source}; {advice}")]
    Tcp {
        /// The address.
        addr: SocketAddr,
        /// The setting that asks for it.
        setting: &'static str,
        /// What to do about it.
        advice: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread could not be started.
    #[error("cannot start the API thread: {0}")]
    Thread(std::io::Error),
}

/// Sockets that are open, and served once [`Server::serve`] is called: opening them may take rights that serving does not.
pub struct Bound {
    listener: UnixListener,
    file: socket::SocketFile,
    opened: Vec<Opened>,
    groups: Groups,
}

/// The running server. Dropping it stops it: no new requests, a short time for answers under way, socket file removed.
pub struct Server {
    addrs: Vec<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What every request handler shares.
pub(super) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) sampler: Mutex<Sampler>,
    pub(super) limits: Limits,
    /// What became of connections.
    pub(super) tally: Arc<Tally>,
    /// Where the web page is on TCP, if it is.
    pub(super) page: Option<SocketAddr>,
    /// Who may do what.
    pub(super) groups: Arc<Groups>,
    /// Where changes are written down.
    pub(super) audit: Arc<AuditLog>,
}

impl Server {
    /// Listens on `path` and serves `backend` from a thread of its own.
    ///
    /// # Errors
    /// Socket in use, path unusable, group unknown: each says what to do.
    pub fn start(
        path: &Path,
        groups: impl Into<GroupNames>,
        backend: Arc<dyn Backend>,
    ) -> Result<Self, ServeError> {
        Self::start_with(path, groups, backend, Limits::default(), &[])
    }

    /// As [`Self::start`], with other limits, and on TCP as well.
    ///
    /// # Errors
    /// As [`Self::start`], and if a TCP address cannot be used.
    pub fn start_with(
        path: &Path,
        groups: impl Into<GroupNames>,
        backend: Arc<dyn Backend>,
        limits: Limits,
        places: &[Place],
    ) -> Result<Self, ServeError> {
        Self::start_for(path, groups, backend, limits, places, Access::socket(&[], false))
    }

    /// As [`Self::start_with`], with what browsers may do at the socket.
    ///
    /// # Errors
    /// As [`Self::start_with`].
    pub fn start_for(
        path: &Path,
        groups: impl Into<GroupNames>,
        backend: Arc<dyn Backend>,
        limits: Limits,
        places: &[Place],
        access: Access,
    ) -> Result<Self, ServeError> {
        Self::serve(Self::bind(path, groups, places)?, backend, limits, access)
    }

    /// Opens the sockets.
    ///
    /// # Errors
    /// As [`Self::start_with`].
    pub fn bind(path: &Path, groups: impl Into<GroupNames>, places: &[Place]) -> Result<Bound, ServeError> {
        let groups = socket::find_groups(&groups.into())?;
        let opened = places.iter().map(listener::open).collect::<Result<Vec<_>, _>>()?;
        let (listener, file) = socket::listen(path, &groups)?;
        Ok(Bound { listener, file, opened, groups })
    }

    /// Serves `backend` at open sockets, from a thread of its own.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn serve(
        bound: Bound,
        backend: Arc<dyn Backend>,
        limits: Limits,
        access: Access,
    ) -> Result<Self, ServeError> {
        let Bound { listener, file, opened, groups } = bound;
        let page = opened.iter().find_map(Opened::page);
        let addrs = opened.iter().map(|opened| opened.addr).collect();
        // A call per request at each listener, those of whoever listens to events, and the sampler's.
        let calls_max = 2 * limits.requests_max * (1 + opened.len()) + LASTING_MAX + 1;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(calls_max)
            .thread_name("api-call")
            .build()
            .map_err(ServeError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::new(Shared {
            audit: backend.audit(),
            backend,
            sampler: Mutex::default(),
            limits,
            groups: Arc::new(groups),
            tally: Arc::default(),
            page,
        });
        let body = move || {
            runtime.block_on(serve(listener, access, opened, &shared, stopped));
            drop(file);
            // Calls still under way finish on their own; the process does not wait for them.
            runtime.shutdown_background();
        };
        let thread =
            std::thread::Builder::new().name("api".to_owned()).spawn(body).map_err(ServeError::Thread)?;
        Ok(Self { addrs, stop: Some(stop), thread: Some(thread) })
    }

    /// The TCP addresses it listens on, in the order asked for; with the port that the system chose where it was to.
    #[must_use]
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
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

/// Serves all listeners until told to stop; then answers under way have a short time.
async fn serve(
    socket: UnixListener,
    access: Access,
    opened: Vec<Opened>,
    shared: &Arc<Shared>,
    stopped: oneshot::Receiver<()>,
) {
    let graceful = Arc::new(GracefulShutdown::new());
    let mut listeners = JoinSet::new();
    let mut listen = |listener: std::io::Result<Listener>, router, limits| match listener {
        Ok(listener) => drop(listeners.spawn(listener.serve(
            router,
            limits,
            Arc::clone(&shared.tally),
            Arc::clone(&graceful),
        ))),
        Err(error) => tracing::error!("a socket of the API cannot be polled: {error}"),
    };
    let socket = listener::unix(socket, Arc::clone(&shared.groups));
    listen(socket, routes::router(shared.clone(), access), shared.limits);
    for opened in opened {
        let (router, limits) = opened.service(shared);
        listen(Listener::tcp(opened), router, limits);
    }
    let sampler = tokio::spawn(sample(shared.clone()));
    // Whoever could tell us to stop may be gone; that says it too.
    let _ = stopped.await;
    sampler.abort();
    listeners.shutdown().await;
    let Some(graceful) = Arc::into_inner(graceful) else { return };
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await;
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
