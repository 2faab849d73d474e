//! Requests' bodies: taken in within limits of size, time and memory, and understood.

use super::failure::Failure;
use super::limits::{LARGE_BODIES_MAX, Limits, SMALL_BODY_BYTES};
use super::types::ErrorKind;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use std::ops::Deref;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bodies larger than [`SMALL_BODY_BYTES`] that are in memory at one time, of all clients together.
static LARGE_BODIES: Semaphore = Semaphore::const_new(LARGE_BODIES_MAX);

/// A request's body. While it is there, one that is large keeps others that are from coming in.
pub(super) struct Taken {
    bytes: Vec<u8>,
    _place: Option<SemaphorePermit<'static>>,
}

impl Deref for Taken {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The body of a request that holds neither rules nor sets: [`SMALL_BODY_BYTES`] at most, so that it takes no place from such
/// as do.
pub(super) async fn small_body_of(request: Request, limits: &Limits) -> Result<Taken, Failure> {
    let body_max_bytes = limits.body_max_bytes.min(SMALL_BODY_BYTES);
    body_of(request, &Limits { body_max_bytes, ..*limits }).await
}

/// The body of a request, within its limits of size and time.
pub(super) async fn body_of(request: Request, limits: &Limits) -> Result<Taken, Failure> {
    let body_max = limits.body_max_bytes;
    let too_large = || {
        Failure::new(ErrorKind::BadRequest, format!("the request has more than {body_max} bytes"))
            .with_status(StatusCode::PAYLOAD_TOO_LARGE)
    };
    // Refused by its announced length, before a byte of it is taken in.
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if announced.and_then(|length| length.parse().ok()).is_some_and(|length: usize| length > body_max) {
        return Err(too_large());
    }
    let take = async {
        let (mut body, mut bytes, mut place) = (request.into_body(), Vec::new(), None);
        while let Some(frame) = body.frame().await {
            let cut_off = |_| Failure::new(ErrorKind::BadRequest, "the request ends before its body does");
            let Ok(data) = frame.map_err(cut_off)?.into_data() else { continue };
            if bytes.len() + data.len() > body_max {
                return Err(too_large());
            }
            if place.is_none() && bytes.len() + data.len() > SMALL_BODY_BYTES {
                // Nobody closes the semaphore.
                place = LARGE_BODIES.acquire().await.ok();
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Taken { bytes, _place: place })
    };
    tokio::time::timeout(limits.body_timeout, take).await.map_err(|_| {
        Failure::new(ErrorKind::BadRequest, "the request did not come in time")
            .with_status(StatusCode::REQUEST_TIMEOUT)
    })?
}

pub(super) fn understand<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::new(ErrorKind::BadRequest, format!("the request is not understood: {error}"))
    })
}
