//! What the daemon counts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Traffic {
    /// How many packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How fast a [`Traffic`] grew over the last second or so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rate {
    /// Packets a second.
    pub packets_per_sec: u64,
    /// Bits a second.
    pub bits_per_sec: u64,
}

/// Everything the daemon counts, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stats {
    /// Milliseconds since the daemon started, by the clock that never jumps.
    pub uptime_ms: u64,
    /// Number of the rules and settings in force; grows by one with every `apply`.
    pub generation: u32,
    /// The wires.
    pub wires: Vec<WireStats>,
    /// The NICs, two per wire, left first.
    pub ports: Vec<PortStats>,
    /// The worker threads.
    pub workers: Vec<WorkerStats>,
    /// Dropped packets by reason, all wires together: every reason, in the order of `DropReason`.
    pub drops: Vec<DropCount>,
    /// Packets that connection tracking found INVALID, by cause. Not drops: rules decide about them.
    pub invalid: BTreeMap<String, u64>,
    /// The flow table.
    pub flows: FlowStats,
}

/// A wire. Packets that came in are forwarded, dropped for one reason, or still on their way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WireStats {
    /// Name.
    pub name: String,
    /// Interface name of the left NIC.
    pub left: String,
    /// Interface name of the right NIC.
    pub right: String,
    /// Forwarded from left to right.
    pub left_to_right: Traffic,
    /// Forwarded from right to left.
    pub right_to_left: Traffic,
    /// Rate of `left_to_right`; the server fills it in.
    #[serde(default)]
    pub left_to_right_rate: Rate,
    /// Rate of `right_to_left`; the server fills it in.
    #[serde(default)]
    pub right_to_left_rate: Rate,
    /// Dropped packets by reason, every reason.
    pub drops: Vec<DropCount>,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DropCount {
    /// Stable name, `DropReason::name`.
    pub reason: String,
    /// How many packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Which end of its wire a NIC is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The left one.
    #[default]
    Left,
    /// The right one.
    Right,
}

/// Where the XDP program of a NIC runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PortMode {
    /// In the driver.
    #[default]
    Native,
    /// In the kernel's generic hook.
    Generic,
}

/// A NIC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PortStats {
    /// Interface name.
    pub name: String,
    /// Name of its wire.
    pub wire: String,
    /// Which end of it.
    pub side: Side,
    /// Where the XDP program runs.
    pub mode: PortMode,
    /// Whether the NIC reads and writes our memory itself, as the kernel reports it.
    pub zero_copy: bool,
    /// Whether the link is up.
    pub link_up: bool,
    /// Largest IP packet in bytes.
    pub mtu: u32,
    /// Received by us.
    pub rx: Traffic,
    /// Given to the NIC to send.
    pub tx: Traffic,
    /// Rate of `rx`; the server fills it in.
    #[serde(default)]
    pub rx_rate: Rate,
    /// Rate of `tx`; the server fills it in.
    #[serde(default)]
    pub tx_rate: Rate,
    /// How it spreads packets over its queues.
    #[serde(default)]
    pub rss: RssStats,
    /// Its queues.
    pub queues: Vec<QueueStats>,
}

/// How a NIC spreads packets over its queues, beside how workers own flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RssStats {
    /// In one word.
    pub state: RssWord,
    /// What the NIC refused, or has otherwise than workers go by: one sentence each.
    pub refused: Vec<String>,
    /// Entries of its table; 0 without RSS.
    pub entries: u32,
    /// Whether its table may be changed.
    pub movable: bool,
}

/// See [`RssStats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RssWord {
    /// There is one queue.
    #[default]
    SingleQueue,
    /// Packets come in where their flows live.
    Agrees,
    /// Packets are handed over between workers.
    Differs,
}

/// One queue of a NIC. Drops here are the kernel's: such packets never reached us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueStats {
    /// Queue number.
    pub queue: u32,
    /// Worker that serves it.
    pub worker: u8,
    /// Descriptors received.
    pub rx_descs: u64,
    /// Descriptors put on the tx ring.
    pub tx_descs: u64,
    /// Packets the kernel dropped: rx ring full, or the packet did not fit a buffer.
    pub rx_dropped: u64,
    /// Of those, because the rx ring was full.
    pub rx_ring_full: u64,
    /// Times the kernel found no buffer in the fill ring.
    pub fill_ring_empty: u64,
    /// Descriptors the kernel refused as invalid.
    pub invalid_descs: u64,
    /// Frames out of the worker's hands now: on the fill and tx rings, with the NIC, or waiting on the rx and completion rings.
    #[serde(default)]
    pub frames_held: u64,
    /// System calls made to wake the kernel.
    pub kicks: u64,
    /// Kicks answered with "again".
    pub kicks_again: u64,
}

/// A worker thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerStats {
    /// Number, from zero.
    pub id: u8,
    /// Core it is pinned to.
    pub core: u32,
    /// Why that one, in words.
    #[serde(default)]
    pub core_why: String,
    /// Packets taken from its queues.
    pub rx: Traffic,
    /// Rate of `rx`; the server fills it in.
    #[serde(default)]
    pub rx_rate: Rate,
    /// Packets forwarded.
    pub forwarded: Traffic,
    /// Packets dropped, whatever the reason.
    pub dropped: u64,
    /// RSTs and ICMP errors sent for REJECT.
    pub reject_answers: u64,
    /// Receive calls that brought packets.
    pub bursts: u64,
    /// Receive calls that brought none.
    pub idle_polls: u64,
    /// Times it slept.
    pub sleeps: u64,
    /// Flows it tracks now.
    pub flows: u64,
    /// Packets handed to the worker that owns their flow.
    pub handed_off: u64,
    /// Packets taken over from other workers.
    pub taken_over: u64,
    /// What went from worker to worker, every cause. Judged packets that another worker had to send (`transmit`) are not
    /// part of the two sums above.
    #[serde(default)]
    pub handoffs: Vec<HandoffRow>,
    /// The same by worker on the other side; those it has to do with.
    #[serde(default)]
    pub peers: Vec<PeerRow>,
    /// Number of the rules and settings it works with.
    pub generation: u32,
    /// Times it stopped polling for longer than a second.
    #[serde(default)]
    pub stalls: u64,
    /// That it does not poll now; `null` while it does.
    #[serde(default)]
    pub stalled: Option<Stalled>,
}

/// A worker that does not poll: packets of its queues are lost, and so are those of flows it owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stalled {
    /// Milliseconds since it was last seen polling.
    pub ms: u64,
    /// What its thread does instead.
    pub why: String,
    /// What can be done about it.
    pub advice: String,
}

/// Packets that went from worker to worker for one cause, as one of them saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HandoffRow {
    /// Stable name, `HandoffCause::name`.
    pub cause: String,
    /// Packets given away.
    pub out: u64,
    /// Packets taken over.
    pub taken: u64,
}

/// Packets that went to one other worker and came from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PeerRow {
    /// Number of the other worker.
    pub worker: u8,
    /// Packets given to it.
    pub out: u64,
    /// Packets taken over from it.
    pub taken: u64,
}

/// The flow table, all workers together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlowStats {
    /// Flows now.
    pub count: u64,
    /// Most flows there may be.
    pub max: u64,
    /// Flows made.
    pub inserted: u64,
    /// Flows ended by their timeout.
    pub expired: u64,
    /// Flows ended to make room for others.
    pub evicted: u64,
    /// Flows ended by a packet: reset before an answer, or the same ports opened anew.
    pub closed: u64,
    /// Flows refused because the table was full.
    pub refused: u64,
}
