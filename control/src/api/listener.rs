//! Where the API listens besides its own socket: TCP, each address for what the configuration opens it for and nothing
//! else. There are no rights to check on TCP, so whatever changes something is not served there unless a setting says so.
//!
//! One task per listener accepts; each connection has a task, one request, and the limits of [`Limits`]. API thread only.

use super::access::{Caller, Groups};
use super::backend::Peer;
use super::failure::Failure;
use super::gate::{Client, Gate, Guest, Tally};
use super::limits::{Limits, WATCHES_PER_CLIENT};
use super::routes;
use super::server::{ServeError, Shared};
use super::stall::Stalling;
use super::types::{ErrorBody, ErrorKind};
use crate::web::Access;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

/// How often it is said that no connection can be taken.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// What a TCP listener serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Serves {
    /// `GET /metrics`, nothing else.
    Metrics,
    /// The web page and what it asks for.
    Web(Access),
}

/// A TCP listener to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Address and port.
    pub addr: SocketAddr,
    /// The setting that asks for it, for messages.
    pub setting: &'static str,
    /// What it serves.
    pub serves: Serves,
}

/// A TCP listener, open but not served yet.
pub(super) struct Opened {
    pub(super) listener: std::net::TcpListener,
    pub(super) addr: SocketAddr,
    serves: Serves,
}

/// A listener of either kind.
pub(super) enum Listener {
    Unix(tokio::net::UnixListener, Arc<Groups>),
    Tcp(tokio::net::TcpListener),
}

/// The guest on whose connection a request came.
#[derive(Clone)]
pub(super) struct Lasting(Arc<Guest>);

impl Lasting {
    /// Somebody listens to events on this connection: it may last longer than others.
    pub(super) fn begin(&self) {
        self.0.last();
    }

    /// It is about to look at packets, or at all flows for a while.
    ///
    /// # Errors
    /// If its client does so as often as one may.
    pub(super) fn watch(&self) -> Result<(), Failure> {
        let why = || {
            let most = "captures, traces and lists of the top flows at once for one client, and no more";
            Failure::new(ErrorKind::Busy, format!("{WATCHES_PER_CLIENT} {most}"))
        };
        self.0.watch().then_some(()).ok_or_else(why)
    }
}

tokio::task_local! {
    /// Whose request is being answered.
    static GUEST: Arc<Guest>;
}

/// Whose request the running task answers. Work that goes on by itself holds on to it: its place is not free before that is
/// done, even if its client has gone.
pub(super) fn guest() -> Option<Arc<Guest>> {
    GUEST.try_with(Arc::clone).ok()
}

/// Does work in a task of its own, on behalf of whoever's request the running one answers.
pub(super) fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    match guest() {
        Some(guest) => tokio::spawn(GUEST.scope(guest, work)),
        None => tokio::spawn(work),
    }
}

/// Limits of a TCP listener: fewer than at the socket, for there are fewer that have business there.
const fn tcp_limits(limits: Limits) -> Limits {
    Limits { connections_max: limits.connections_max / 2, requests_max: limits.requests_max / 2, ..limits }
}

/// Opens a TCP listener.
pub(super) fn open(place: &Place) -> Result<Opened, ServeError> {
    let failed = |source: std::io::Error| ServeError::Tcp {
        addr: place.addr,
        setting: place.setting,
        advice: advice(source.kind()),
        source,
    };
    let listener = std::net::TcpListener::bind(place.addr).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok(Opened { listener, addr, serves: place.serves.clone() })
}

/// What to do about an address that cannot be listened on.
const fn advice(kind: std::io::ErrorKind) -> &'static str {
    match kind {
        std::io::ErrorKind::AddrInUse => "another program has this port: choose another one",
        std::io::ErrorKind::AddrNotAvailable => "no interface of this machine has the address",
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: choose another one"
        }
        _ => "choose another address",
    }
}

impl Opened {
    /// Its address, if it serves the page.
    pub(super) fn page(&self) -> Option<SocketAddr> {
        matches!(self.serves, Serves::Web(_)).then_some(self.addr)
    }

    /// What is to be served there, and within which limits.
    pub(super) fn service(&self, shared: &Arc<Shared>) -> (Router, Limits) {
        let router = match &self.serves {
            Serves::Metrics => {
                let only = async || {
                    let message = "only /metrics is served here".to_owned();
                    failure(StatusCode::NOT_FOUND, ErrorKind::NotFound, message)
                };
                let router = Router::new().route("/metrics", get(routes::metrics)).fallback(only);
                let router = router.with_state(Arc::clone(shared));
                // Others come to any address they can reach; a browser on this machine is what rebinding makes use of.
                if self.addr.ip().to_canonical().is_loopback() {
                    routes::guarded(router, Access::metrics())
                } else {
                    router
                }
            }
            Serves::Web(access) => routes::router(Arc::clone(shared), access.clone()),
        };
        (router, tcp_limits(shared.limits))
    }
}

impl Listener {
    pub(super) fn tcp(opened: Opened) -> std::io::Result<Self> {
        tokio::net::TcpListener::from_std(opened.listener).map(Self::Tcp)
    }

    /// Takes connections until the task is aborted.
    pub(super) async fn serve(
        self,
        router: Router,
        limits: Limits,
        tally: Arc<Tally>,
        graceful: Arc<GracefulShutdown>,
    ) {
        let gate = Gate::new(limits, tally);
        let mut warned: Option<Instant> = None;
        loop {
            let taken = match &self {
                Self::Unix(listener, groups) => listener.accept().await.map(|(stream, _)| {
                    let caller = groups.caller(&stream);
                    let client = match caller.peer {
                        Peer { pid: Some(pid), .. } => Client::Process(pid),
                        Peer { uid: Some(uid), .. } => Client::User(uid),
                        Peer { .. } => Client::Unknown,
                    };
                    receive(stream, client, caller, &gate, &router, limits, &graceful);
                }),
                Self::Tcp(listener) => listener.accept().await.map(|(stream, addr)| {
                    let client = Client::host(addr.ip());
                    receive(stream, client, Caller::guest(), &gate, &router, limits, &graceful);
                }),
            };
            if let Err(error) = taken {
                // Out of file descriptors, most likely: others have to finish first.
                if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    warned = Some(Instant::now());
                    tracing::warn!("the API cannot take a connection: {error}");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves a connection from a task of its own, if it is let in.
fn receive(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    client: Client,
    caller: Caller,
    gate: &Arc<Gate>,
    router: &Router,
    limits: Limits,
    graceful: &GracefulShutdown,
) {
    let Some(guest) = gate.enter(client).map(Arc::new) else { return };
    let service = answering(router.clone(), caller, Arc::clone(&guest));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.head_max_bytes)
        // One request each: connecting is cheap here, and an idle connection would hold a place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(Stalling::new(stream, limits.write_timeout)), service_fn(service));
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        let mut connection = std::pin::pin!(connection);
        loop {
            tokio::select! {
                // Errors are the client's: gone, too slow, not speaking HTTP.
                _ = connection.as_mut() => break,
                () = guest.closed() => break,
                () = tokio::time::sleep(limits.connection_timeout) => {
                    if !guest.is_lasting() {
                        break;
                    }
                }
            }
        }
    });
}

/// Answers one request once it is its turn.
fn answering(
    router: Router,
    caller: Caller,
    guest: Arc<Guest>,
) -> impl Fn(hyper::Request<Incoming>) -> AnswerFuture {
    move |request| {
        let (router, caller, guest) = (router.clone(), caller.clone(), Arc::clone(&guest));
        Box::pin(async move {
            if !guest.turn().await {
                let message = "too many requests at once; try again".to_owned();
                return Ok(failure(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Busy, message));
            }
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(Lasting(Arc::clone(&guest)));
            GUEST.scope(guest, TowerToHyperService::new(router).call(request)).await
        })
    }
}

type AnswerFuture = std::pin::Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// An answer that says why not.
fn failure(status: StatusCode, kind: ErrorKind, message: String) -> Response {
    (status, Json(ErrorBody { kind, message, diagnostics: Vec::new() })).into_response()
}

/// Takes over the socket of the API, for members of these groups.
pub(super) fn unix(
    listener: std::os::unix::net::UnixListener,
    groups: Arc<Groups>,
) -> std::io::Result<Listener> {
    tokio::net::UnixListener::from_std(listener).map(|listener| Listener::Unix(listener, groups))
}
