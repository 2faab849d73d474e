//! The web page: files made part of the program, what browsers are told about them, and what is not answered because it
//! comes from another site.
//!
//! Used by the API's thread only. The page is the API's client like `fwctl`: nothing is computed here.
//!
//! Invariants: no answer may be framed, run a script of another origin or be read by one. Whatever comes from a browser
//! that shows another site is refused before a handler sees it, on every listener: a Unix socket too can be reached by a
//! browser, through `ssh -L 8080:/run/palisade/fwd.sock`.

mod access;
mod files;
mod origin;

pub use access::Access;
pub use origin::{Hosts, Refusal};

pub(crate) use files::pages;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;

/// What every page may do: run and show what this daemon serves, and ask this daemon. Markup is never made from text
/// (`require-trusted-types-for`), so that nothing a packet or a rule says can become part of the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// Headers that each answer has. Nothing is kept by browsers: numbers age, and the page changes with the daemon.
const HEADERS: &[(&str, &str)] = &[
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Adds the headers that every answer has.
pub(crate) async fn add_headers(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    for &(name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}
