//! Answers that say no.

use super::backend::ApplyError;
use super::ledger::Said;
use super::types::{ErrorBody, ErrorKind};
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

/// An answer that is an [`ErrorBody`].
pub(super) struct Failure {
    status: StatusCode,
    body: Box<ErrorBody>,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let status = match kind {
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::BadRules | ErrorKind::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Busy => StatusCode::CONFLICT,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, body: Box::new(ErrorBody { kind, message: message.into(), diagnostics: Vec::new() }) }
    }

    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        let ApplyError { kind, message, diagnostics } = error;
        let mut failure = Self::new(kind, message);
        failure.body.diagnostics = diagnostics;
        failure
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ErrorKind::BadRequest, rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let said = Extension(Said(self.body.message.clone()));
        (self.status, said, Json(*self.body)).into_response()
    }
}
