//! The daemon's API: HTTP with JSON on a Unix socket, and parts of it on TCP where asked for, the same for `fwctl`, `curl --unix-socket` and dashboards.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the web page, see [`crate::web`] |
//! | `GET /metrics` | OpenMetrics text, see [`metrics`] |
//! | `GET /v1/web` | [`types::WebView`] |
//! | `GET /v1/version` | [`types::Version`] |
//! | `GET /v1/openapi.json` | the description of all of these, [`openapi::document`] |
//! | `GET /v1/stats` | [`types::Stats`] |
//! | `GET /v1/rules?family=4` | list of [`types::RulesView`], both families without `family` |
//! | `GET /v1/rules/counters?family=4` | list of [`types::RuleCounters`] |
//! | `GET /v1/flows?FILTER` | one [`types::FlowRow`] per line, as [`types::FlowFilter`] narrows them |
//! | `GET /v1/flows/count?FILTER` | [`types::FlowCount`] |
//! | `GET /v1/flows/events?FILTER` | one [`types::EventRow`] per line, until the client goes; empty lines in between |
//! | `GET /v1/flows/stats` | list of [`types::TrackRow`] |
//! | `POST /v1/flows/delete?FILTER` | one [`types::TallyLine`] per line |
//! | `POST /v1/flows/update` with [`types::UpdateRequest`] | one [`types::TallyLine`] per line |
//! | `POST /v1/flows/flush` | [`types::Tally`] |
//! | `GET /v1/expectations?family=4` | list of [`types::ExpectRow`] |
//! | `GET /v1/expectations/events?family=4` | one [`types::ExpectEventRow`] per line, until the client goes |
//! | `POST /v1/expectations/flush` | [`types::Tally`] |
//! | `POST /v1/capture` with [`types::CaptureRequest`] | a pcapng file, until the client goes |
//! | `POST /v1/trace` with [`types::TapFilter`] | one [`types::TraceRow`] per line, until the client goes; empty lines in between |
//! | `GET /v1/drops` | list of [`types::DropRow`], the last ones |
//! | `GET /v1/sysctl` | list of pairs, name and number |
//! | `POST /v1/sysctl?name=NAME&value=VALUE` | `null` |
//! | `GET /v1/top?interval_ms=MS&by=bytes&n=10&host=NET&port=N&FILTER` | [`types::TopReport`], as [`types::TopRequest`] and [`types::FlowFilter`] ask |
//! | `GET /v1/workers?interval_ms=MS` | [`types::WorkersReport`] |
//! | `POST /v1/workers/rebalance?interval_ms=MS&dry_run=BOOL` | [`types::RebalanceReport`] |
//! | `POST /v1/explain` with [`types::ExplainRequest`] | [`types::Explanation`]; nothing is sent, nothing changes |
//! | `POST /v1/apply` with [`types::ApplyRequest`] | [`types::ApplyReport`] |
//! | `POST /v1/diff` with [`types::ApplyRequest`] | [`types::DiffReport`]; nothing changes |
//! | `POST /v1/rules/edit` with [`types::EditRequest`] | [`types::ApplyReport`] |
//! | `POST /v1/confirm` | [`types::HistoryEntry`] |
//! | `POST /v1/rollback` with [`types::RollbackRequest`] | [`types::ApplyReport`] |
//! | `GET /v1/history` | [`types::HistoryReport`] |
//! | `GET /v1/history/rules?number=N&family=4` | text as iptables-save prints it |
//! | `GET /v1/config` | [`types::ConfigView`] |
//! | `POST /v1/config/set` with [`types::ConfigSetRequest`] | [`types::ConfigReport`] |
//! | `POST /v1/config/reload` | [`types::ConfigReport`] |
//! | `GET /v1/audit?count=N` | [`crate::audit::AuditReport`] |
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
