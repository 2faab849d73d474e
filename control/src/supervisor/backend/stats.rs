//! Everything counted: wires, NICs, workers, flows. Read from the workers' own counters.

use super::LiveBackend;
use crate::api::types::{
    DropCount, FlowStats, HandoffRow, PeerRow, PortMode, PortStats, QueueStats, RssStats, RssWord, Side,
    Stalled, Stats, TrackRow, Traffic, WireStats, WorkerStats,
};
use crate::net::{Programmed, RssState};
use dataplane::flow::InvalidReason;
use dataplane::ids::{PortId, WorkerId};
use dataplane::reason::DropReason;
use dataplane::worker::{HandoffCause, HandoffCounters, Volume};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

/// What came of making a NIC's RSS agree.
pub(super) fn rss_stats(rss: &Programmed) -> RssStats {
    RssStats {
        state: match rss.state {
            RssState::SingleQueue => RssWord::SingleQueue,
            RssState::Agrees => RssWord::Agrees,
            RssState::Differs => RssWord::Differs,
        },
        refused: rss.refused.clone(),
        entries: u32::try_from(rss.entries).unwrap_or(u32::MAX),
        movable: rss.is_movable,
    }
}

impl LiveBackend {
    /// Everything, now.
    pub(super) fn all_stats(&self) -> Stats {
        let all: Vec<PortId> =
            (0..self.ports.len()).filter_map(|port| u8::try_from(port).ok().map(PortId)).collect();
        let invalid = |reason: &InvalidReason| {
            let count =
                self.workers.iter().map(|worker| worker.counters.track.get().invalid[*reason as usize]).sum();
            (reason.name().to_owned(), count)
        };
        Stats {
            uptime_ms: self.now().nanos / 1_000_000,
            generation: self.publisher.generation().0,
            wires: (0..self.ports.len()).step_by(2).map(|left| self.wire_stats(left)).collect(),
            ports: (0..self.ports.len()).map(|port| self.port_stats(port)).collect(),
            workers: (0..self.workers.len()).map(|worker| self.worker_stats(worker)).collect(),
            drops: self.drops(&all),
            invalid: InvalidReason::ALL.iter().map(invalid).collect(),
            flows: self.flow_stats(),
        }
    }

    /// What each worker's tracker has counted.
    pub(super) fn tracked(&self) -> Vec<TrackRow> {
        let row = |(worker, facts): (u8, &super::WorkerFacts)| {
            let stats = facts.counters.track.get();
            TrackRow {
                worker,
                found: stats.found,
                invalid: stats.invalid_total(),
                insert: stats.insert,
                insert_failed: stats.insert_failed,
                drop: stats.drop,
                early_drop: stats.early_drop,
            }
        };
        (0..).zip(&self.workers).map(row).collect()
    }

    fn port_stats(&self, index: usize) -> PortStats {
        let facts = &self.ports[index];
        let id = PortId(u8::try_from(index).unwrap_or(u8::MAX));
        let state = &self.states[index];
        let mut stats = PortStats {
            name: facts.name.clone(),
            wire: facts.wire.clone(),
            side: if id.is_left() { Side::Left } else { Side::Right },
            mode: match self.generic.lock().unwrap_or_else(PoisonError::into_inner).get(index) {
                Some(true) => PortMode::Generic,
                _ => PortMode::Native,
            },
            zero_copy: facts.zero_copy,
            rss: facts.rss.clone(),
            link_up: state.link_up.load(Relaxed),
            mtu: state.frame_len_max.load(Relaxed).saturating_sub(18),
            ..PortStats::default()
        };
        for (number, worker) in (0_u8..).zip(&self.workers) {
            add(&mut stats.rx, &worker.counters.port(id).rx);
            add(&mut stats.tx, &worker.counters.port(id.peer()).forwarded);
            add(&mut stats.tx, &worker.counters.port(id).answers);
            for ((port, queue), lane) in worker.lanes.iter().zip(&worker.counters.lanes) {
                if *port != id {
                    continue;
                }
                let counted = lane.get();
                stats.queues.push(QueueStats {
                    queue: *queue,
                    worker: number,
                    rx_descs: counted.rx_descs,
                    tx_descs: counted.tx_descs,
                    rx_dropped: counted.rx_dropped,
                    rx_ring_full: counted.rx_ring_full,
                    fill_ring_empty: counted.rx_fill_ring_empty,
                    invalid_descs: counted.invalid_descs,
                    frames_held: counted.frames_held,
                    kicks: counted.kicks,
                    kicks_again: counted.kicks_again,
                });
            }
        }
        stats
    }

    /// Drops of packets that came in on these NICs, every reason.
    fn drops(&self, ports: &[PortId]) -> Vec<DropCount> {
        let count = |reason: &DropReason| {
            let mut traffic = Traffic::default();
            for worker in &self.workers {
                for port in ports {
                    add(&mut traffic, &worker.counters.port(*port).drops[*reason as usize]);
                }
            }
            DropCount { reason: reason.name().to_owned(), packets: traffic.packets, bytes: traffic.bytes }
        };
        DropReason::ALL.iter().map(count).collect()
    }

    fn wire_stats(&self, left: usize) -> WireStats {
        let id = PortId(u8::try_from(left).unwrap_or(u8::MAX));
        let mut stats = WireStats {
            name: self.ports[left].wire.clone(),
            left: self.ports[left].name.clone(),
            right: self.ports[left + 1].name.clone(),
            drops: self.drops(&[id, id.peer()]),
            ..WireStats::default()
        };
        for worker in &self.workers {
            add(&mut stats.left_to_right, &worker.counters.port(id).forwarded);
            add(&mut stats.right_to_left, &worker.counters.port(id.peer()).forwarded);
        }
        stats
    }

    fn worker_stats(&self, index: usize) -> WorkerStats {
        let worker = &self.workers[index];
        let id = WorkerId(u8::try_from(index).unwrap_or(u8::MAX));
        let polls = &worker.counters.polls;
        let health = worker.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut stats = WorkerStats {
            id: id.0,
            core: u32::from(worker.core),
            bursts: polls.busy_polls.get(),
            idle_polls: polls.idle_polls.get(),
            sleeps: polls.sleeps.get(),
            flows: polls.flows.get(),
            core_why: worker.why.clone(),
            handoffs: handoffs(&worker.counters.handoff),
            peers: peers(&worker.counters.handoff),
            generation: self.publisher.adopted(id).0,
            stalls: health.stalls,
            stalled: health.stall.map(|stall| Stalled {
                ms: u64::try_from(stall.since.elapsed().as_millis()).unwrap_or(u64::MAX),
                why: stall.why,
                advice: stall.advice,
            }),
            ..WorkerStats::default()
        };
        for port in &worker.counters.ports {
            add(&mut stats.rx, &port.rx);
            add(&mut stats.forwarded, &port.forwarded);
            stats.dropped += port.dropped_packets();
            stats.reject_answers += port.answers.packets.get();
        }
        (stats.handed_off, stats.taken_over) = judged_elsewhere(&worker.counters.handoff);
        stats
    }

    /// Flows of all workers.
    pub(super) fn flow_stats(&self) -> FlowStats {
        let mut stats = FlowStats { max: u64::from(self.flows_max_now()), ..FlowStats::default() };
        for worker in &self.workers {
            let counted = worker.counters.track.get();
            stats.count += u64::from(worker.region.flow_count());
            stats.inserted += counted.insert;
            stats.expired += counted.expired;
            stats.evicted += counted.early_drop;
            stats.closed += counted.delete;
            stats.refused += counted.drop + counted.insert_failed;
        }
        stats
    }
}

/// Packets handed to other workers to be judged, and taken over from them for that.
pub(super) fn judged_elsewhere(counters: &HandoffCounters) -> (u64, u64) {
    let causes = HandoffCause::ALL.iter().filter(|cause| **cause != HandoffCause::Transmit);
    let counts =
        |cause: &HandoffCause| (counters.out[*cause as usize].get(), counters.taken[*cause as usize].get());
    causes.map(counts).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1))
}

fn handoffs(counters: &HandoffCounters) -> Vec<HandoffRow> {
    let row = |cause: &HandoffCause| HandoffRow {
        cause: cause.name().to_owned(),
        out: counters.out[*cause as usize].get(),
        taken: counters.taken[*cause as usize].get(),
    };
    HandoffCause::ALL.iter().map(row).collect()
}

/// Workers that there was something to do with.
fn peers(counters: &HandoffCounters) -> Vec<PeerRow> {
    let rows = (0..).zip(&counters.peers).map(|(worker, peer)| PeerRow {
        worker,
        out: peer.out.get(),
        taken: peer.taken.get(),
    });
    rows.filter(|row| row.out + row.taken > 0).collect()
}

fn add(sum: &mut Traffic, volume: &Volume) {
    sum.packets += volume.packets.get();
    sum.bytes += volume.bytes.get();
}
