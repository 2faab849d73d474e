//! `GET /metrics`: what is counted, as OpenMetrics 1.0 text, or in Prometheus' older text format for clients that take no
//! other. API threads.
//!
//! Names, labels and units stay as they are: dashboards and alerts hang on them. How many series there are is bounded by the
//! machine and the rules' chains, never by traffic: they go by port, queue, worker, wire, drop reason and the like. Rules
//! have series only where `metrics.rules` asks for them, and only rules with a comment; how many are left out is told.
//! Nothing is left out for being zero, so that rates are right from the first packet on.

mod more;
mod page;

pub use page::{Format, exposition};

use crate::api::types::{Stats, TrackRow, Traffic, Version};

/// Everything that is told.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Which daemon.
    pub version: Version,
    /// What `fwctl stats` shows.
    pub stats: Stats,
    /// What `fwctl flows -S` shows.
    pub track: Vec<TrackRow>,
    /// When the daemon started, in seconds since 1970.
    pub started_secs: f64,
    /// The rules.
    pub rules: RulesFacts,
    /// More about workers than [`Stats`] says, in their order.
    pub workers: Vec<WorkerFacts>,
    /// Who hears of events of flows.
    pub events: EventFacts,
    /// Clients of the API.
    pub clients: ClientFacts,
    /// Flow records; `None` if there is no collector.
    pub ipfix: Option<IpfixFacts>,
}

/// What is told of rules.
#[derive(Clone, Debug, Default)]
pub struct RulesFacts {
    /// When those in force were put into force, in seconds since 1970.
    pub applied_secs: f64,
    /// Seconds left to confirm them in; `None` if nothing waits for that.
    pub confirm_secs: Option<u32>,
    /// How many there are of each family, by its name.
    pub count: Vec<(&'static str, u64)>,
    /// Policies, by their chains.
    pub policies: Vec<PolicyFacts>,
    /// Rules that have series of their own.
    pub rules: Vec<RuleFacts>,
    /// Rules that have a comment and would have series, were there not too many.
    pub left_out: u64,
    /// Packets of flows that go on under earlier rules, by family.
    pub kept: Vec<(&'static str, Traffic)>,
}

/// A policy and what it met.
#[derive(Clone, Debug, Default)]
pub struct PolicyFacts {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// Table.
    pub table: &'static str,
    /// Chain.
    pub chain: String,
    /// `ACCEPT` or `DROP`.
    pub verdict: String,
    /// What came to the end of the chain; bytes as iptables counts them, IP header on.
    pub traffic: Traffic,
}

/// A rule and what it matched. Several with the same place and comment are told as one.
#[derive(Clone, Debug, Default)]
pub struct RuleFacts {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// Table.
    pub table: &'static str,
    /// Chain.
    pub chain: String,
    /// Comment.
    pub comment: String,
    /// What it matched; bytes as iptables counts them, IP header on.
    pub traffic: Traffic,
}

/// What is told of a worker besides [`crate::api::types::WorkerStats`].
#[derive(Clone, Debug, Default)]
pub struct WorkerFacts {
    /// Number, from zero.
    pub id: u8,
    /// Packets that should have been logged and were too many.
    pub unlogged: u64,
    /// Changes of sets that rules asked for and that found no room.
    pub unasked: u64,
    /// Verdicts taken from flows.
    pub verdict_hits: u64,
    /// Walks through the rules.
    pub classified: u64,
    /// Frames that are free.
    pub frames_free: u64,
    /// Nanoseconds of rounds that found packets.
    pub busy_nanos: HistogramFacts,
    /// Packets that such rounds found.
    pub busy_packets: HistogramFacts,
    /// Packets taken over from other workers in one go.
    pub handoff_bursts: HistogramFacts,
    /// Nanoseconds that such bursts were on their way.
    pub handoff_wait: HistogramFacts,
}

/// A histogram: upper bound and count of each bucket, the last one without a bound, and the sum of all values.
#[derive(Clone, Debug, Default)]
pub struct HistogramFacts {
    /// Bounds and counts; counts are of the bucket alone.
    pub buckets: Vec<(Option<u64>, u64)>,
    /// Sum.
    pub sum: u64,
}

/// What is told of events of flows.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventFacts {
    /// How many listen.
    pub listeners: u64,
    /// Events that found no room on their way from the workers.
    pub lost: u64,
}

/// What is told of flow records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpfixFacts {
    /// Messages sent, templates included.
    pub messages: u64,
    /// Records in them.
    pub records: u64,
    /// Their octets.
    pub bytes: u64,
    /// Records that were not sent, or that the collector's host refused.
    pub records_lost: u64,
    /// Ends of flows that were not heard of in time.
    pub events_lost: u64,
    /// Messages that could not be sent.
    pub send_errors: u64,
    /// Flows that were reported and go on.
    pub known: u64,
    /// Whether the collector can be reached, as far as is known.
    pub is_up: bool,
}

/// What is told of clients, all listeners of the API together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientFacts {
    /// Connections taken.
    pub connections: u64,
    /// Connections closed to make room for others.
    pub closed: u64,
    /// Requests refused because others of their client were being served.
    pub refused: u64,
}
