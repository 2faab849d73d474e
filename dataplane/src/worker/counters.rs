//! What a worker counts. Each worker owns its counters and is their only writer; control reads them whenever it likes.
//! A counter is therefore a relaxed load and store, never a locked instruction, and a reader may see one counter a
//! packet ahead of another; over a quiet moment `rx = forwarded + drops` holds exactly.

use super::handoff::HANDOFF_CAUSES;
use super::histogram::Histogram;
use super::tap::DropLog;
use crate::device::DeviceCounters;
use crate::flow::{INVALID_REASONS, TrackStats};
use crate::ids::{PortId, WORKERS_MAX};
use crate::reason::{DROP_REASONS, DropReason};
use crate::rss::BUCKETS;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number with one writing thread and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `n`. Only the owning thread may call this; a second writer would lose counts, nothing worse.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Replaces the value (gauges).
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Packets and their bytes (whole frames, Ethernet header on).
#[derive(Debug, Default)]
pub struct Volume {
    /// How many packets.
    pub packets: Counter,
    /// How many bytes they had.
    pub bytes: Counter,
}

impl Volume {
    /// Counts one packet. Owning thread only.
    #[inline]
    pub fn count(&self, bytes: u64) {
        self.packets.add(1);
        self.bytes.add(bytes);
    }

    /// Counts several packets at once. Owning thread only.
    #[inline]
    pub fn count_many(&self, packets: u64, bytes: u64) {
        self.packets.add(packets);
        self.bytes.add(bytes);
    }
}

/// What happened to packets that came in on one NIC, as one worker saw it. Handed-off packets are counted as received
/// by the worker that polled them and as forwarded or dropped by their owner.
#[derive(Debug)]
#[repr(align(128))]
pub struct PortCounters {
    /// Packets received.
    pub rx: Volume,
    /// Of those, packets put on the other NIC's tx ring.
    pub forwarded: Volume,
    /// Answers (TCP RST, ICMP errors) sent back out of this NIC.
    pub answers: Volume,
    /// Of the packets received, those dropped, by reason.
    pub drops: [Volume; DROP_REASONS],
}

impl Default for PortCounters {
    fn default() -> Self {
        let zero = Volume::default;
        Self { rx: zero(), forwarded: zero(), answers: zero(), drops: std::array::from_fn(|_| zero()) }
    }
}

/// How a worker spends its time.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct LoopCounters {
    /// Polls that found at least one packet.
    pub busy_polls: Counter,
    /// Polls that found nothing.
    pub idle_polls: Counter,
    /// Times the worker went to sleep in `poll(2)`.
    pub sleeps: Counter,
    /// Cached verdicts used.
    pub verdict_hits: Counter,
    /// Classifier walks.
    pub classified: Counter,
    /// Flows now in this worker's table.
    pub flows: Counter,
    /// Packets that should have been logged, for a rule or as INVALID, and were too many.
    pub unlogged: Counter,
    /// Orders of rules about sets that found no room on the way to control.
    pub unasked: Counter,
    /// Requests of control's done.
    pub served: Counter,
    /// Frames in this worker's pool: neither in a ring nor in anybody's hands.
    pub frames_free: Counter,
    /// Nanoseconds that a round over its queues took which found packets, sending them included: from 256 on.
    pub busy_nanos: Histogram<18, 8>,
    /// Packets that such a round found.
    pub busy_packets: Histogram<12, 0>,
}

impl LoopCounters {
    /// Polls of any kind so far: grows as long as the worker polls.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.busy_polls.get().wrapping_add(self.idle_polls.get())
    }
}

/// What went from worker to worker, as one of them saw it.
#[derive(Debug)]
pub struct HandoffCounters {
    /// Packets given away, by [`super::HandoffCause`].
    pub out: [Counter; HANDOFF_CAUSES],
    /// Packets taken over, by [`super::HandoffCause`].
    pub taken: [Counter; HANDOFF_CAUSES],
    /// The same by worker on the other side.
    pub peers: Box<[PeerCounters]>,
    /// Packets that were taken over in one go.
    pub bursts: Histogram<8, 0>,
    /// Nanoseconds from the beginning of the round in which a burst was given to that of the one in which it was taken over, of
    /// one burst in some: from 256 on.
    pub wait_nanos: Histogram<18, 8>,
}

/// What went to one other worker and came from it. Never goes back: a message that stands behind packets says how many were
/// given before it.
#[derive(Debug, Default)]
pub struct PeerCounters {
    /// Packets given to it.
    pub out: Counter,
    /// Packets taken over from it.
    pub taken: Counter,
}

impl Default for HandoffCounters {
    fn default() -> Self {
        Self {
            out: Default::default(),
            taken: Default::default(),
            peers: (0..WORKERS_MAX).map(|_| PeerCounters::default()).collect(),
            bursts: Histogram::default(),
            wait_nanos: Histogram::default(),
        }
    }
}

/// Ring health of one queue, copied out of its device by the worker every [`super::PUBLISH_NANOS`].
#[derive(Debug)]
pub struct LaneCounters {
    /// The NIC.
    pub port: PortId,
    values: [Counter; 9],
}

impl LaneCounters {
    fn new(port: PortId) -> Self {
        Self { port, values: Default::default() }
    }

    /// Copies out what the device has counted. Owning thread only.
    pub(super) fn publish(&self, counters: &DeviceCounters) {
        let DeviceCounters {
            rx_descs,
            tx_descs,
            kicks,
            kicks_again,
            rx_dropped,
            rx_ring_full,
            rx_fill_ring_empty,
            invalid_descs,
            frames_held,
        } = *counters;
        let values = [
            rx_descs,
            tx_descs,
            kicks,
            kicks_again,
            rx_dropped,
            rx_ring_full,
            rx_fill_ring_empty,
            invalid_descs,
            frames_held,
        ];
        for (counter, value) in self.values.iter().zip(values) {
            counter.set(value);
        }
    }

    /// What was last copied out.
    #[must_use]
    pub fn get(&self) -> DeviceCounters {
        let [
            rx_descs,
            tx_descs,
            kicks,
            kicks_again,
            rx_dropped,
            rx_ring_full,
            rx_fill_ring_empty,
            invalid_descs,
            frames_held,
        ] = self.values.each_ref().map(Counter::get);
        DeviceCounters {
            rx_descs,
            tx_descs,
            kicks,
            kicks_again,
            rx_dropped,
            rx_ring_full,
            rx_fill_ring_empty,
            invalid_descs,
            frames_held,
        }
    }
}

/// What the worker's flow table has counted, copied out as [`LaneCounters`] are.
#[derive(Debug, Default)]
pub struct TrackCounters {
    values: [Counter; 9],
    invalid: [Counter; INVALID_REASONS],
}

impl TrackCounters {
    /// Copies out what the tracker has counted. Owning thread only.
    pub(super) fn publish(&self, stats: &TrackStats) {
        let TrackStats {
            found,
            invalid,
            untracked,
            related,
            insert,
            insert_failed,
            drop,
            early_drop,
            expired,
            delete,
        } = *stats;
        let values = [found, untracked, related, insert, insert_failed, drop, early_drop, expired, delete];
        let copied = self.values.iter().zip(values).chain(self.invalid.iter().zip(invalid));
        copied.for_each(|(counter, value)| counter.set(value));
    }

    /// What was last copied out.
    #[must_use]
    pub fn get(&self) -> TrackStats {
        let [found, untracked, related, insert, insert_failed, drop, early_drop, expired, delete] =
            self.values.each_ref().map(Counter::get);
        let invalid = self.invalid.each_ref().map(Counter::get);
        TrackStats {
            found,
            invalid,
            untracked,
            related,
            insert,
            insert_failed,
            drop,
            early_drop,
            expired,
            delete,
        }
    }
}

/// Everything one worker counts.
#[derive(Debug)]
pub struct WorkerCounters {
    /// In the order of the worker's lanes.
    pub lanes: Box<[LaneCounters]>,
    /// Indexed by [`PortId`].
    pub ports: Box<[PortCounters]>,
    /// The poll loop.
    pub polls: LoopCounters,
    /// The flow table.
    pub track: TrackCounters,
    /// What other workers were given and gave.
    pub handoff: HandoffCounters,
    /// Packets judged here, by bucket.
    pub buckets: Box<[Counter; BUCKETS]>,
    /// The last packets dropped here.
    pub drops: DropLog,
}

impl WorkerCounters {
    /// Zeroes, for `ports` NICs, for a worker whose lanes are on the NICs in `lanes`.
    #[must_use]
    pub fn new(ports: usize, lanes: &[PortId]) -> Self {
        Self {
            lanes: lanes.iter().copied().map(LaneCounters::new).collect(),
            ports: (0..ports).map(|_| PortCounters::default()).collect(),
            polls: LoopCounters::default(),
            track: TrackCounters::default(),
            handoff: HandoffCounters::default(),
            buckets: Box::new([const { Counter::new() }; BUCKETS]),
            drops: DropLog::default(),
        }
    }

    /// The counters of one NIC.
    ///
    /// # Panics
    /// If `port` is not one of those the counters were made for.
    #[must_use]
    pub fn port(&self, port: PortId) -> &PortCounters {
        &self.ports[port.index()]
    }
}

impl PortCounters {
    /// Counts a drop. Owning thread only.
    #[inline]
    pub fn dropped(&self, reason: DropReason, bytes: u32) {
        self.drops[reason as usize].count(u64::from(bytes));
    }

    /// Packets dropped for any reason.
    #[must_use]
    pub fn dropped_packets(&self) -> u64 {
        self.drops.iter().map(|drop| drop.packets.get()).sum()
    }
}
