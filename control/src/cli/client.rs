//! HTTP over the daemon's Unix socket. One request per connection; answers are taken in pieces.

use super::CliError;
use crate::api::types::{ErrorBody, ErrorKind};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// Time the daemon has to begin its answer. Compiling very many rules takes a while.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Most of an error answer that is read.
const ERROR_MAX_BYTES: usize = 64 << 20;

/// Talks to one daemon.
pub(super) struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    pub(super) fn new(socket: &Path) -> Result<Self, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// Where the daemon is talked to.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// `GET`, the whole answer as data.
    pub(super) fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, CliError> {
        self.parse(&self.get_bytes(target)?)
    }

    /// `GET`, the whole answer as it comes.
    pub(super) fn get_bytes(&self, target: &str) -> Result<Vec<u8>, CliError> {
        let mut answer = Vec::new();
        self.stream(Request::get(target), Bytes::new(), &mut |piece| {
            answer.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(answer)
    }

    /// `POST`, the whole answer as it comes.
    pub(super) fn post_bytes(&self, target: &str, body: Vec<u8>) -> Result<Vec<u8>, CliError> {
        let mut answer = Vec::new();
        self.stream(Request::post(target), body.into(), &mut |piece| {
            answer.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(answer)
    }

    /// `GET`, line by line as they come.
    pub(super) fn get_lines(
        &self,
        target: &str,
        each: &mut dyn FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        self.lines(Request::get(target), Bytes::new(), each)
    }

    /// `POST`, line by line as they come.
    pub(super) fn post_lines(
        &self,
        target: &str,
        body: Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        self.lines(Request::post(target), body.into(), each)
    }

    /// `POST`, piece by piece as they come.
    pub(super) fn post_pieces(
        &self,
        target: &str,
        body: Vec<u8>,
        each: &mut dyn FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        self.stream(Request::post(target), body.into(), each)
    }

    fn lines(
        &self,
        request: hyper::http::request::Builder,
        body: Bytes,
        each: &mut dyn FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut partial: Vec<u8> = Vec::new();
        self.stream(request, body, &mut |mut piece| {
            while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
                let (line, rest) = piece.split_at(end);
                if partial.is_empty() {
                    each(line)?;
                } else {
                    partial.extend_from_slice(line);
                    each(&partial)?;
                    partial.clear();
                }
                piece = rest.get(1..).unwrap_or_default();
            }
            partial.extend_from_slice(piece);
            Ok(())
        })
    }

    /// Understands an answer.
    pub(super) fn parse<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, CliError> {
        serde_json::from_slice(answer).map_err(|error| {
            let socket = self.socket.display();
            CliError::Unreachable(format!("{socket} answers, but not as fwd of this version would: {error}"))
        })
    }

    fn stream(
        &self,
        request: hyper::http::request::Builder,
        body: Bytes,
        each: &mut dyn FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let request = request
            .header("host", "fwd")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|error| CliError::Usage(format!("this cannot be asked: {error}")))?;
        self.runtime.block_on(async {
            let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.not_there(&error))?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|e| self.broke_off(&e))?;
            let driver = tokio::spawn(connection);
            let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
            let answer = answer
                .map_err(|_| CliError::Unreachable(format!("{} does not answer", self.socket.display())))?
                .map_err(|error| self.broke_off(&error))?;
            let done = self.take(answer, each).await;
            driver.abort();
            done
        })
    }

    async fn take(
        &self,
        answer: Response<Incoming>,
        each: &mut dyn FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let status = answer.status();
        let mut body = answer.into_body();
        let mut refused = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| {
                CliError::Unreachable("the answer was cut short; what was printed is not all".to_owned())
            })?;
            let Some(piece) = frame.data_ref() else { continue };
            if status.is_success() {
                each(piece)?;
            } else if refused.len() + piece.len() <= ERROR_MAX_BYTES {
                refused.extend_from_slice(piece);
            }
        }
        if status.is_success() { Ok(()) } else { Err(refusal(status, &refused)) }
    }

    /// Nobody took the connection: why, most likely, and what to do.
    fn not_there(&self, error: &io::Error) -> CliError {
        let socket = self.socket.display();
        CliError::Unreachable(match error.kind() {
            io::ErrorKind::NotFound => format!(
                "there is no socket {socket}: is fwd running? Its `api.socket` goes here with --socket PATH"
            ),
            io::ErrorKind::ConnectionRefused => {
                format!("nobody listens on {socket}: fwd is not running any more; start it again")
            }
            io::ErrorKind::PermissionDenied => format!(
                "no permission to use {socket}: run fwctl as root, or as a member of the group in fwd's `api.group` \
                 (to look) or `api.write_group` (to change things)"
            ),
            _ => format!("cannot connect to {socket}: {error}; name fwd's socket with --socket PATH"),
        })
    }

    fn broke_off(&self, error: &hyper::Error) -> CliError {
        CliError::Unreachable(format!("{} broke off: {error}; fwd's log may say why", self.socket.display()))
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> CliError {
    let body = serde_json::from_slice(body).unwrap_or_else(|_| ErrorBody {
        kind: ErrorKind::Internal,
        message: format!("the daemon answered {status}"),
        diagnostics: Vec::new(),
    });
    CliError::Refused(Box::new(body))
}
