//! What grew between two pictures of the counters, a second. Pure.

use crate::api::types::{PortStats, QueueStats, Rate, Stats, Traffic, WorkerStats};

/// Everything a second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rates {
    pub(super) ports: Vec<PortRates>,
    pub(super) workers: Vec<WorkerRates>,
    /// The same order as [`Stats::drops`].
    pub(super) drops: Vec<Rate>,
    /// By cause.
    pub(super) invalid: Vec<(String, u64)>,
    /// Flows made, evicted for room, and refused for lack of it.
    pub(super) inserted: u64,
    pub(super) evicted: u64,
    pub(super) refused: u64,
}

/// One NIC's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortRates {
    pub(super) rx: Rate,
    pub(super) tx: Rate,
    pub(super) queues: Vec<QueueRates>,
}

/// One queue's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueRates {
    pub(super) rx: u64,
    pub(super) tx: u64,
    /// Lost by the kernel for whatever reason, and of those at a full rx ring.
    pub(super) rx_dropped: u64,
    pub(super) rx_ring_full: u64,
    pub(super) fill_ring_empty: u64,
    pub(super) invalid_descs: u64,
    pub(super) kicks: u64,
}

/// One worker's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WorkerRates {
    pub(super) rx: Rate,
    /// Polls that brought packets, of 100; `None` if it slept all the time.
    pub(super) busy_percent: Option<u64>,
    /// Packets of a burst, in tenths.
    pub(super) burst_tenths: u64,
    pub(super) handed_off: u64,
    pub(super) taken_over: u64,
    pub(super) sleeps: u64,
}

/// The time between.
#[derive(Clone, Copy)]
struct Span {
    ms: u64,
}

impl Span {
    /// Growth a second; a counter that went back stood still.
    fn per_sec(self, before: u64, now: u64) -> u64 {
        let grown = u128::from(now.saturating_sub(before)) * 1000 / u128::from(self.ms.max(1));
        u64::try_from(grown).unwrap_or(u64::MAX)
    }

    fn rate(self, before: Traffic, now: Traffic) -> Rate {
        Rate {
            packets_per_sec: self.per_sec(before.packets, now.packets),
            bits_per_sec: self.per_sec(before.bytes, now.bytes).saturating_mul(8),
        }
    }

    fn queue(self, before: &QueueStats, now: &QueueStats) -> QueueRates {
        let of = |counter: fn(&QueueStats) -> u64| self.per_sec(counter(before), counter(now));
        QueueRates {
            rx: of(|queue| queue.rx_descs),
            tx: of(|queue| queue.tx_descs),
            rx_dropped: of(|queue| queue.rx_dropped),
            rx_ring_full: of(|queue| queue.rx_ring_full),
            fill_ring_empty: of(|queue| queue.fill_ring_empty),
            invalid_descs: of(|queue| queue.invalid_descs),
            kicks: of(|queue| queue.kicks),
        }
    }

    fn port(self, before: &PortStats, now: &PortStats) -> PortRates {
        PortRates {
            rx: self.rate(before.rx, now.rx),
            tx: self.rate(before.tx, now.tx),
            queues: before
                .queues
                .iter()
                .zip(&now.queues)
                .map(|(before, now)| self.queue(before, now))
                .collect(),
        }
    }

    fn worker(self, before: &WorkerStats, now: &WorkerStats) -> WorkerRates {
        let grown = |counter: fn(&WorkerStats) -> u64| counter(now).saturating_sub(counter(before));
        let (bursts, idle) = (grown(|worker| worker.bursts), grown(|worker| worker.idle_polls));
        WorkerRates {
            rx: self.rate(before.rx, now.rx),
            busy_percent: (bursts * 100).checked_div(bursts + idle),
            burst_tenths: (grown(|worker| worker.rx.packets) * 10).checked_div(bursts).unwrap_or(0),
            handed_off: self.per_sec(before.handed_off, now.handed_off),
            taken_over: self.per_sec(before.taken_over, now.taken_over),
            sleeps: self.per_sec(before.sleeps, now.sleeps),
        }
    }
}

impl Rates {
    /// From one picture of a daemon to a later one of the same.
    pub(super) fn between(before: &Stats, now: &Stats) -> Self {
        let span = Span { ms: now.uptime_ms.saturating_sub(before.uptime_ms) };
        let volume =
            |drop: &crate::api::types::DropCount| Traffic { packets: drop.packets, bytes: drop.bytes };
        let flows = |counter: fn(&crate::api::types::FlowStats) -> u64| {
            span.per_sec(counter(&before.flows), counter(&now.flows))
        };
        Self {
            ports: before.ports.iter().zip(&now.ports).map(|(before, now)| span.port(before, now)).collect(),
            workers: before
                .workers
                .iter()
                .zip(&now.workers)
                .map(|(before, now)| span.worker(before, now))
                .collect(),
            drops: before
                .drops
                .iter()
                .zip(&now.drops)
                .map(|(before, now)| span.rate(volume(before), volume(now)))
                .collect(),
            invalid: now
                .invalid
                .iter()
                .map(|(cause, packets)| {
                    let before = before.invalid.get(cause).copied().unwrap_or(0);
                    (cause.clone(), span.per_sec(before, *packets))
                })
                .collect(),
            inserted: flows(|flows| flows.inserted),
            evicted: flows(|flows| flows.evicted),
            refused: flows(|flows| flows.refused),
        }
    }

    /// Received by all NICs.
    pub(super) fn rx(&self) -> Rate {
        sum(self.ports.iter().map(|port| port.rx))
    }

    /// Sent by all NICs.
    pub(super) fn tx(&self) -> Rate {
        sum(self.ports.iter().map(|port| port.tx))
    }

    /// Dropped for whatever reason.
    pub(super) fn dropped(&self) -> Rate {
        sum(self.drops.iter().copied())
    }
}

/// Rates together.
pub(super) fn sum(rates: impl Iterator<Item = Rate>) -> Rate {
    rates.fold(Rate::default(), |sum, rate| Rate {
        packets_per_sec: sum.packets_per_sec.saturating_add(rate.packets_per_sec),
        bits_per_sec: sum.bits_per_sec.saturating_add(rate.bits_per_sec),
    })
}
