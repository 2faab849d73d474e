//! Real workers without a kernel: one gateway of two NICs whose queues are [`Conveyor`]s.

use crate::Error;
use crate::device::{Arrival, Conveyor};
use dataplane::device::Device;
use dataplane::flow::{Seed, Tracker, TrackerConfig};
use dataplane::ids::{Generation, PortId, WorkerId};
use dataplane::packet::Family;
use dataplane::rss::{BUCKETS, Fields};
use dataplane::rules::Compiled;
use dataplane::rules::model::Ruleset;
use dataplane::testing::gateway::{LEFT, RIGHT};
use dataplane::worker::{
    FamilyRules, Handoff, Lane, Mailbox, Moves, Parts, PortState, Settings, Snapshot, Spread, Steering,
    Waker, Worker, WorkerCounters,
};
use dataplane::xsk::{FramePool, Umem, UmemConfig};
use rtrb::RingBuffer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

/// Both NICs.
pub const SIDES: [PortId; 2] = [LEFT, RIGHT];
const NAMES: [&str; 2] = ["left", "right"];

/// Packet buffers of each worker. All that may be lent fit a handoff ring.
const FRAMES: u32 = 1024;

/// What a gateway is to be.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many workers share the flows.
    pub workers: usize,
    /// Most flows of each.
    pub max_flows: u32,
    /// What flows are hashed with.
    pub seed: Seed,
    /// Whether tables ask for pages of 2 MiB and take all memory at once.
    pub hugepages: bool,
    /// Most packets received at once.
    pub burst: usize,
    /// How they come.
    pub arrival: Arrival,
}

/// Its workers, and what they share.
#[derive(Debug)]
pub struct Gateway {
    /// By number.
    pub workers: Vec<Worker<Conveyor>>,
    /// Theirs.
    pub counters: Vec<Arc<WorkerCounters>>,
    /// Where new rules go.
    pub mailbox: Arc<Mailbox>,
}

impl Gateway {
    /// Puts one together whose rules are `first`.
    ///
    /// # Errors
    /// If memory is short.
    pub fn new(plan: &Plan, first: Snapshot) -> Result<Self, Error> {
        let count = plan.workers;
        let mailbox = Arc::new(Mailbox::new(first, count));
        let umem = Umem::new(&UmemConfig::plain(FRAMES, u32::try_from(count)?))?;
        let state = || PortState { frame_len_max: AtomicU32::new(1518), link_up: AtomicBool::new(true) };
        let ports: Arc<[PortState]> = SIDES.iter().map(|_| state()).collect();
        let wakers = (0..count).map(|_| Waker::new().map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<_> = (0..u8::try_from(count)?).map(WorkerId).collect();
        let mut trackers = ids.iter().map(|id| plan.table(*id)).collect::<Result<Vec<_>, _>>()?;
        Tracker::join(&mut trackers);
        let (mut workers, mut counters) = (Vec::new(), Vec::new());
        let handoffs = Handoff::mesh(&wakers, FRAMES as usize);
        // As NICs would find them that hash ports.
        let steering = Arc::new(Steering::new(Spread::Rss(Fields::ALL), count, BUCKETS));
        let moves = Moves::mesh(&steering, count);
        let ends = ids.into_iter().zip(handoffs).zip(trackers).zip(wakers).zip(moves);
        for ((((id, handoff), tracker), waker), moves) in ends {
            let own = Arc::new(WorkerCounters::new(SIDES.len(), &SIDES));
            counters.push(Arc::clone(&own));
            let queue = || Conveyor::new(&umem).in_bursts_of(plan.burst).by(plan.arrival);
            let parts = Parts {
                id,
                moves,
                pool: FramePool::new(&umem, id),
                umem: Arc::clone(&umem),
                lanes: SIDES.map(|port| Lane { port, device: queue() }).into(),
                ports: Arc::clone(&ports),
                tracker,
                mailbox: Arc::clone(&mailbox),
                counters: own,
                handoff,
                waker,
                expired: RingBuffer::new(1).1,
                requests: RingBuffer::new(1).1,
                notes: None,
                set_asks: None,
            };
            workers.push(Worker::new(parts, ()));
        }
        Ok(Self { workers, counters, mailbox })
    }
}

impl Plan {
    fn table(&self, worker: WorkerId) -> Result<Tracker, Error> {
        let Self { workers: _, max_flows, seed, hugepages, burst: _, arrival: _ } = *self;
        let config =
            TrackerConfig { max_flows, max_flows_v6: 64, worker, seed, hugepages, prefault: hugepages };
        Ok(Tracker::new(&config)?)
    }
}

/// Rules in force for so many workers.
///
/// # Errors
/// If they do not compile.
pub fn snapshot(generation: Generation, v4: Ruleset, workers: usize) -> Result<Snapshot, Error> {
    let names = NAMES.map(str::to_owned);
    let family = |ruleset: Ruleset| -> Result<_, Error> {
        let compiled = Compiled::new(Arc::new(ruleset), &names)?;
        Ok(Arc::new(FamilyRules::new(compiled, generation, workers, false)))
    };
    let (v4, v6) = (family(v4)?, family(Ruleset::empty(Family::V6))?);
    Ok(Snapshot { generation, v4, v6, settings: Settings::default() })
}

/// Packets that a worker's queues have sent.
pub fn sent(worker: &mut Worker<Conveyor>) -> u64 {
    worker.lanes_mut().iter().map(|lane| lane.device.counters().tx_descs).sum()
}
