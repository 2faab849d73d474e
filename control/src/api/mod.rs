//! The daemon's API: HTTP with JSON on a Unix socket, and parts of it on TCP where asked for, the same for `fwctl`, `curl
//! --unix-socket` and dashboards. [`ROUTES`] lists the requests; the book's reference of them is made from [`openapi`].
//!
//! What each route asks of whoever calls it is declared where it is listed, and checked before its handler is called
//! ([`access`]); what changes something goes into the audit log ([`crate::audit`]).
//!
//! Whatever fails is answered with [`types::ErrorBody`]. The server runs on a thread of its own and reaches the daemon
//! through [`backend::Backend`] only; nothing here is near the packet path.

pub mod access;
mod answers;
pub mod backend;
mod body;
mod event_rows;
mod failure;
mod flow_rows;
mod gate;
#[cfg(test)]
mod guard_tests;
mod ledger;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod openapi;
mod rates;
mod routes;
pub mod server;
mod socket;
mod stall;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod types;

pub use event_rows::event_row;
pub use flow_rows::{Shown, Wall, expect_row, flow_id, flow_row, is_kept};
pub(crate) use flow_rows::{address, flow_key};
pub use routes::ROUTES;
