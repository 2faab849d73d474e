//! The workers' loads, and buckets moved between them. API threads, and a thread of the supervisor's if it is to go by
//! itself; one rebalance at a time.

use super::LiveBackend;
use super::stats::judged_elsewhere;
use crate::api::address;
use crate::api::types::{Elephant, MovedBucket, RebalanceReport, WorkerLoad, WorkersReport};
use crate::net::RssTable;
use crate::rebalance::{self, Plan};
use crate::supervisor::rss;
use dataplane::flow::FlowView;
use dataplane::ids::WorkerId;
use dataplane::packet::Tuple;
use dataplane::rss::BUCKETS;
use dataplane::worker::{BucketMove, Spread, Stage, Steering, Waker};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Flows with fewer packets than this are taken for new ones when rates are worked out.
const FLOOR: u64 = 64;

/// Flows listed as the largest.
const ELEPHANTS: usize = 10;

/// How long a stage of a move may take. Workers look between two bursts.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often is looked how far a move has come.
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// What a NIC may need between taking a new table and delivering by it.
const NIC_GRACE: Duration = Duration::from_millis(1);

/// Load of the busiest worker from which on buckets move by themselves, in percent of the mean.
const AUTO_PERCENT: u64 = 130;

/// Who owns what, and how to change it.
#[derive(Debug)]
pub(super) struct Ownership {
    pub(super) steering: Arc<Steering>,
    pub(super) wakers: Vec<Arc<Waker>>,
    pub(super) stride: usize,
    /// NIC, queue and worker of every socket.
    pub(super) lanes: Vec<(usize, u32, WorkerId)>,
    /// Tables of the NICs with several queues; where one cannot be changed, why.
    pub(super) tables: Vec<(usize, Result<RssTable, String>)>,
    /// One at a time.
    pub(super) moving: Mutex<()>,
}

/// Counts at one moment.
struct Counts {
    at: Instant,
    /// Packets by worker and bucket.
    buckets: Vec<[u64; BUCKETS]>,
    /// Packets handed to other workers and taken over from them, by worker.
    handed: Vec<(u64, u64)>,
}

#[expect(clippy::cast_precision_loss, reason = "a share to be printed")]
fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 * 100.0 / of as f64 }
}

fn per_sec(count: u64, over: Duration) -> u64 {
    u64::try_from(u128::from(count) * 1_000_000 / over.as_micros().max(1)).unwrap_or(u64::MAX)
}

impl LiveBackend {
    fn counts(&self) -> Counts {
        Counts {
            at: Instant::now(),
            buckets: self
                .workers
                .iter()
                .map(|worker| std::array::from_fn(|bucket| worker.counters.buckets[bucket].get()))
                .collect(),
            handed: self.workers.iter().map(|worker| judged_elsewhere(&worker.counters.handoff)).collect(),
        }
    }

    /// Packets of each bucket between two moments, and the time between.
    fn between(before: &Counts, after: &Counts) -> ([u64; BUCKETS], Duration) {
        let sum =
            |counts: &Counts, bucket: usize| -> u64 { counts.buckets.iter().map(|all| all[bucket]).sum() };
        let grown = std::array::from_fn(|bucket| sum(after, bucket).saturating_sub(sum(before, bucket)));
        (grown, after.at - before.at)
    }

    /// Packets of all flows that have had more than a few.
    fn busy_flows(&self) -> HashMap<(u8, u32, u32), (u64, FlowView)> {
        let mut flows = HashMap::new();
        for worker in &self.workers {
            worker.region.walk(self.now().tick(), |view| {
                let packets = view.packets.iter().sum();
                if packets >= FLOOR {
                    flows.insert((view.worker.0, view.slot.raw(), view.seq), (packets, *view));
                }
            });
        }
        flows
    }

    /// Looks at the workers for a while.
    pub(super) fn look_at_workers(&self, interval: Duration) -> WorkersReport {
        let (before, flows_before) = (self.counts(), self.busy_flows());
        std::thread::sleep(interval);
        let (after, flows) = (self.counts(), self.busy_flows());
        let over = after.at - before.at;
        let grown = |worker: usize| -> u64 {
            let sum = |counts: &Counts| counts.buckets[worker].iter().sum::<u64>();
            sum(&after).saturating_sub(sum(&before))
        };
        let all: u64 = (0..self.workers.len()).map(grown).sum();
        let flow_count = |worker: usize| u64::from(self.workers[worker].region.flow_count());
        let all_flows: u64 = (0..self.workers.len()).map(flow_count).sum();
        let owners = self.ownership.steering.owners();
        let load = |worker: usize| WorkerLoad {
            id: u8::try_from(worker).unwrap_or(u8::MAX),
            core: self.workers[worker].core.into(),
            packets_per_sec: per_sec(grown(worker), over),
            packets_percent: share(grown(worker), all),
            buckets: u32::try_from(owners.iter().filter(|owner| owner.index() == worker).count())
                .unwrap_or(0),
            flows: flow_count(worker),
            flows_percent: share(flow_count(worker), all_flows),
            handed_off_per_sec: per_sec(after.handed[worker].0 - before.handed[worker].0, over),
            taken_over_per_sec: per_sec(after.handed[worker].1 - before.handed[worker].1, over),
        };
        let mut largest: Vec<(u64, FlowView)> = flows
            .into_iter()
            .map(|(name, (packets, view))| {
                let before = flows_before.get(&name).map_or(0, |(packets, _)| *packets);
                (packets.saturating_sub(before), view)
            })
            .filter(|(packets, _)| *packets > 0)
            .collect();
        largest.sort_unstable_by_key(|(packets, _)| std::cmp::Reverse(*packets));
        let elephant = |(packets, view): &(u64, FlowView)| Elephant {
            worker: view.worker.0,
            bucket: self.bucket_of(&view.orig),
            packets_per_sec: per_sec(*packets, over),
            worker_percent: share(*packets, grown(view.worker.index())),
            proto: view.orig.proto,
            src: SocketAddr::new(address(view.orig.src, view.orig.family), view.orig.src_port).to_string(),
            dst: SocketAddr::new(address(view.orig.dst, view.orig.family), view.orig.dst_port).to_string(),
        };
        WorkersReport {
            interval_ms: u64::try_from(over.as_millis()).unwrap_or(u64::MAX),
            ownership: match self.ownership.steering.spread() {
                Spread::Rss(_) => "rss".to_owned(),
                Spread::Secret => "secret".to_owned(),
            },
            stride: u32::try_from(self.ownership.stride).unwrap_or(u32::MAX),
            nics_stay: self.nics_stay(),
            workers: (0..self.workers.len()).map(load).collect(),
            elephants: largest.iter().take(ELEPHANTS).map(elephant).collect(),
        }
    }

    fn bucket_of(&self, tuple: &Tuple) -> u8 {
        let hash = self.workers.first().map_or(0, |worker| worker.region.hash(tuple));
        self.ownership.steering.spread().bucket(tuple, hash)
    }

    fn nics_stay(&self) -> Vec<String> {
        let refused = |(port, table): &(usize, Result<RssTable, String>)| {
            let why = table.as_ref().err()?;
            Some(format!("{}: {why}", self.ports[*port].name))
        };
        self.ownership.tables.iter().filter_map(refused).collect()
    }

    /// Evens the workers' loads out, by what comes in during `interval`.
    pub(super) fn rebalance_workers(&self, interval: Duration, dry_run: bool) -> RebalanceReport {
        let (plan, packets, over) = self.plan(interval);
        self.carry_out(&plan, &packets, over, dry_run)
    }

    /// The same if loads are far apart, for the supervisor.
    pub(in crate::supervisor) fn rebalance_if_uneven(&self, interval: Duration) {
        let (plan, packets, over) = self.plan(interval);
        if plan.before_percent < AUTO_PERCENT || plan.moves.is_empty() {
            return;
        }
        let done = self.carry_out(&plan, &packets, over, false);
        let RebalanceReport { before_percent, after_percent, moves, notes, .. } = &done;
        tracing::info!(
            "workers rebalanced: {} buckets moved, the busiest had {before_percent} % of the mean and should have \
             {after_percent} %. {}",
            moves.iter().filter(|one| one.done).count(),
            notes.join("; ")
        );
    }

    fn plan(&self, interval: Duration) -> (Plan, [u64; BUCKETS], Duration) {
        let before = self.counts();
        std::thread::sleep(interval);
        let (packets, over) = Self::between(&before, &self.counts());
        let owners = self.ownership.steering.owners();
        (rebalance::plan(&packets, &owners, self.workers.len(), self.ownership.stride), packets, over)
    }

    fn carry_out(
        &self,
        plan: &Plan,
        packets: &[u64; BUCKETS],
        over: Duration,
        dry_run: bool,
    ) -> RebalanceReport {
        let _one = self.ownership.moving.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, lost_before) = self.ownership.steering.tally();
        let mut report = RebalanceReport {
            before_percent: plan.before_percent,
            after_percent: plan.after_percent,
            notes: self.nics_stay().into_iter().map(|why| format!("does not follow: {why}")).collect(),
            ..RebalanceReport::default()
        };
        if plan.is_stuck_on_elephant {
            report.notes.push("one bucket alone is more than a fair share: a flow is never split".to_owned());
        }
        for wanted in &plan.moves {
            let done = if dry_run { Ok(false) } else { self.move_bucket(*wanted).map(|()| true) };
            let trouble = done.as_ref().err().cloned();
            report.moves.push(MovedBucket {
                bucket: wanted.bucket,
                from: wanted.from.0,
                to: wanted.to.0,
                packets_per_sec: per_sec(packets[usize::from(wanted.bucket)], over),
                done: done.unwrap_or(false),
            });
            if let Some(trouble) = trouble {
                report.notes.push(trouble);
                break;
            }
        }
        report.flows_lost = u64::from(self.ownership.steering.tally().1 - lost_before);
        report
    }

    /// Moves one bucket, its flows, and as far as they go along the NICs.
    fn move_bucket(&self, wanted: BucketMove) -> Result<(), String> {
        // Nobody deletes or changes flows that are on their way.
        let desks = [wanted.from.index(), wanted.to.index()];
        let (low, high) = (desks[0].min(desks[1]), desks[0].max(desks[1]));
        let _desks = [low, high]
            .map(|worker| self.workers[worker].desk.lock().unwrap_or_else(PoisonError::into_inner));
        let steering = &self.ownership.steering;
        if !steering.ask(wanted) {
            return Err(format!("bucket {} cannot move: another move is not over", wanted.bucket));
        }
        self.wait_for(Stage::HandedOver)?;
        let mut owners = steering.owners();
        owners[usize::from(wanted.bucket)] = wanted.to;
        let mut refused = None;
        for (port, table) in &self.ownership.tables {
            let Ok(table) = table else { continue };
            let queues = rss::queues(&rss::lanes_of(&self.ownership.lanes, *port), &owners);
            if let Err(error) = table.point(&queues) {
                refused = Some(format!("{}: its RSS table cannot be set: {error}", self.ports[*port].name));
            }
        }
        if self.ownership.tables.iter().any(|(_, table)| table.is_ok()) {
            std::thread::sleep(NIC_GRACE);
        }
        steering.release();
        self.wait_for(Stage::Idle)?;
        refused.map_or(Ok(()), Err)
    }

    /// Wakes everybody and waits until the move has come so far.
    fn wait_for(&self, wanted: Stage) -> Result<(), String> {
        self.ownership.wakers.iter().for_each(|waker| waker.wake());
        let since = Instant::now();
        while self.ownership.steering.stage() != wanted {
            if since.elapsed() > PATIENCE {
                let (BucketMove { bucket, from, to }, stage) = self.ownership.steering.order();
                return Err(format!(
                    "bucket {bucket} is on its way from worker {} to worker {} ({stage:?}): a worker does not poll",
                    from.0, to.0
                ));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }
}
