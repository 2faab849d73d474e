//! What the workers have to do, and moving it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The workers over a moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkersReport {
    /// How long was looked, in milliseconds: rates are of that time.
    pub interval_ms: u64,
    /// How flows are given to workers: `rss` as NICs spread packets, `secret` where none does it alike.
    pub ownership: String,
    /// Buckets that NICs tell apart.
    pub stride: u32,
    /// Why NICs cannot follow when a bucket moves: one sentence each. Its packets are handed over then.
    pub nics_stay: Vec<String>,
    /// The workers.
    pub workers: Vec<WorkerLoad>,
    /// The flows with the most packets, the first one the most.
    pub elephants: Vec<Elephant>,
}

/// One worker's load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerLoad {
    /// Number, from zero.
    pub id: u8,
    /// Core it is pinned to.
    pub core: u32,
    /// Packets judged a second.
    pub packets_per_sec: u64,
    /// Share of all packets, in percent.
    pub packets_percent: f64,
    /// Buckets it owns.
    pub buckets: u32,
    /// Flows it has.
    pub flows: u64,
    /// Share of all flows, in percent.
    pub flows_percent: f64,
    /// Packets a second that came in here and were handed to their owner.
    pub handed_off_per_sec: u64,
    /// Packets a second that others handed over.
    pub taken_over_per_sec: u64,
}

/// A flow with many packets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Elephant {
    /// Worker that has it.
    pub worker: u8,
    /// Its bucket.
    pub bucket: u8,
    /// Packets a second, both directions.
    pub packets_per_sec: u64,
    /// Share of its worker's packets, in percent.
    pub worker_percent: f64,
    /// IP protocol number.
    pub proto: u8,
    /// Address and port the first packet came from.
    pub src: String,
    /// Address and port it went to.
    pub dst: String,
}

/// What a rebalance did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RebalanceReport {
    /// Load of the busiest worker in percent of the mean.
    pub before_percent: u64,
    /// The same with all moves done, by the same packets.
    pub after_percent: u64,
    /// The moves, in order.
    pub moves: Vec<MovedBucket>,
    /// Flows that found no room at their new worker.
    pub flows_lost: u64,
    /// What has to be known about it: NICs that do not follow, flows that cannot be split, a move that got stuck.
    pub notes: Vec<String>,
}

/// A bucket that moves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MovedBucket {
    /// Which one.
    pub bucket: u8,
    /// Whose it was.
    pub from: u8,
    /// Whose it is now.
    pub to: u8,
    /// Packets a second in it.
    pub packets_per_sec: u64,
    /// Whether it is done; false in a dry run.
    pub done: bool,
}
