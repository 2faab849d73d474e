//! Rates from counters: what grew since a picture taken a second or two ago.

use super::types::{Rate, Stats, Traffic};
use std::collections::VecDeque;
use std::time::Duration;

/// Time between two pictures.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Shortest time a rate is computed over: below it a burst would look like a flood.
const SPAN_MIN_MS: u64 = 500;

/// The last pictures taken.
#[derive(Default)]
pub(super) struct Sampler {
    /// Oldest first, two at most: the older one is one to two sampling intervals old.
    samples: VecDeque<Stats>,
}

impl Sampler {
    /// Keeps a picture.
    pub(super) fn push(&mut self, stats: Stats) {
        if self.samples.len() == 2 {
            self.samples.pop_front();
        }
        self.samples.push_back(stats);
    }

    /// Fills in the rates of `now`; they stay zero for what was not there before.
    pub(super) fn rate(&self, now: &mut Stats) {
        let old_enough = |old: &&Stats| now.uptime_ms.saturating_sub(old.uptime_ms) >= SPAN_MIN_MS;
        // The newest picture that is old enough would be livelier, the oldest is steadier: one to two seconds.
        let Some(old) = self.samples.iter().find(old_enough) else { return };
        let ms = now.uptime_ms - old.uptime_ms;
        for wire in &mut now.wires {
            if let Some(before) = old.wires.iter().find(|before| before.name == wire.name) {
                wire.left_to_right_rate = rate(before.left_to_right, wire.left_to_right, ms);
                wire.right_to_left_rate = rate(before.right_to_left, wire.right_to_left, ms);
            }
        }
        for port in &mut now.ports {
            if let Some(before) = old.ports.iter().find(|before| before.name == port.name) {
                port.rx_rate = rate(before.rx, port.rx, ms);
                port.tx_rate = rate(before.tx, port.tx, ms);
            }
        }
        for worker in &mut now.workers {
            if let Some(before) = old.workers.iter().find(|before| before.id == worker.id) {
                worker.rx_rate = rate(before.rx, worker.rx, ms);
            }
        }
    }
}

/// Growth per second; counters that went backwards (a daemon started anew) count as standing still.
fn rate(before: Traffic, now: Traffic, ms: u64) -> Rate {
    let per_sec = |before: u64, now: u64| {
        let per_sec = u128::from(now.saturating_sub(before)) * 1000 / u128::from(ms.max(1));
        u64::try_from(per_sec).unwrap_or(u64::MAX)
    };
    Rate {
        packets_per_sec: per_sec(before.packets, now.packets),
        bits_per_sec: per_sec(before.bytes, now.bytes).saturating_mul(8),
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::{PortStats, WireStats, WorkerStats};
    use super::*;

    fn stats(uptime_ms: u64, packets: u64) -> Stats {
        let traffic = Traffic { packets, bytes: packets * 100 };
        Stats {
            uptime_ms,
            wires: vec![WireStats { name: "w".into(), left_to_right: traffic, ..WireStats::default() }],
            ports: vec![PortStats { name: "a".into(), rx: traffic, ..PortStats::default() }],
            workers: vec![WorkerStats { rx: traffic, ..WorkerStats::default() }],
            ..Stats::default()
        }
    }

    #[test]
    fn rates_are_growth_over_the_older_picture() {
        let mut sampler = Sampler::default();
        let mut now = stats(10_000, 7);
        sampler.rate(&mut now);
        assert_eq!(now.ports[0].rx_rate, Rate::default());
        sampler.push(stats(1_000, 0));
        sampler.push(stats(2_000, 1_000));
        sampler.push(stats(3_000, 3_000));
        let mut now = stats(3_500, 4_000);
        sampler.rate(&mut now);
        let expected = Rate { packets_per_sec: 2_000, bits_per_sec: 1_600_000 };
        assert_eq!((now.ports[0].rx_rate, now.wires[0].left_to_right_rate), (expected, expected));
        assert_eq!((now.workers[0].rx_rate, now.wires[0].right_to_left_rate), (expected, Rate::default()));
    }

    #[test]
    fn too_short_a_time_and_counters_that_went_back_give_no_rate() {
        let mut sampler = Sampler::default();
        sampler.push(stats(1_000, 50));
        let mut now = stats(1_100, 90);
        sampler.rate(&mut now);
        assert_eq!(now.ports[0].rx_rate, Rate::default());
        let mut now = stats(9_000, 10);
        sampler.rate(&mut now);
        assert_eq!(now.ports[0].rx_rate, Rate::default());
    }
}
