//! A whole gateway without a kernel: one wire or more, loopback devices, real workers polled by hand, a clock that the caller
//! turns. Tests talk to it packet by packet; `fwctl replay` feeds it a capture.

use super::loopback::LoopbackDevice;
use crate::clock::Now;
use crate::explain::Live;
use crate::flow::{Cursor, Expired, Request, Seed, Tracker, TrackerConfig};
use crate::ids::{Generation, PortId, WorkerId};
use crate::packet::{Family, Packet};
use crate::rss::{self, BUCKETS, Fields};
use crate::rules::model::Ruleset;
use crate::rules::{CompileError, Compiled};
use crate::sets::SetAsk;
use crate::wire;
use crate::worker::{
    BucketMove, FamilyRules, Fate, Handoff, Lane, Mailbox, Moves, NoteReader, Observer, Parts, PortState,
    SetAsks, Settings, Snapshot, Spread, Stage, Steering, Waker, Worker, WorkerCounters, deal_lanes,
    note_rings,
};
use crate::xsk::{FramePool, Umem, UmemConfig};
use rtrb::{Consumer, Producer, RingBuffer};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};

/// The left NIC of the first wire.
pub const LEFT: PortId = PortId(0);
/// The right NIC of the first wire.
pub const RIGHT: PortId = PortId(1);

const TX_RING: usize = 512;
/// Packets that may wait to be looked at, and bytes of all of them.
const NOTES: usize = 256;
const NOTES_BYTES: usize = 64 * 1024;

/// What a gateway is asked to be.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Names of the left and right NIC, for `-i` and `-o`. Those of further wires have a number behind, from 1.
    pub names: [String; 2],
    /// How many wires there are: a left and a right NIC each, in turn.
    pub wires: usize,
    /// How many workers share the flows.
    pub workers: usize,
    /// By what.
    pub spread: Spread,
    /// Queues of every NIC, dealt out as the daemon does; `None` for one per worker.
    pub queues: Option<u32>,
    /// Whether with every packet the bucket it belongs to moves to another worker.
    pub is_restless: bool,
    /// Settings of the first snapshot.
    pub settings: Settings,
    /// Whether packets are tracked even if no rule asks for a connection state.
    pub track_always: bool,
    /// Most flows per worker.
    pub max_flows: u32,
    /// Largest frame either NIC sends, in bytes.
    pub frame_len_max: u32,
    /// Packet buffers per worker, of 2 KiB.
    pub frames_per_worker: u32,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            names: ["left".to_owned(), "right".to_owned()],
            wires: 1,
            workers: 1,
            spread: Spread::Rss(Fields::ALL),
            queues: None,
            is_restless: false,
            settings: Settings::default(),
            track_always: true,
            max_flows: 4096,
            frame_len_max: 9018,
            frames_per_worker: 1024,
        }
    }
}

/// Why a gateway could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The rules do not compile.
    #[error(transparent)]
    Rules(#[from] CompileError),
    /// No memory for frames.
    #[error(transparent)]
    Umem(#[from] crate::xsk::XskError),
    /// No memory for flows, or no file descriptor.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What became of one packet sent through the gateway, and of others that it freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which packet it is: they are counted from zero.
    pub number: u64,
    /// What the worker says happened; `None` if the packet never reached a verdict (no frame free, still held).
    pub fate: Option<Fate>,
    /// Which rules judged it; `None` if it is not IP or could not be parsed.
    pub family: Option<Family>,
    /// Whether it waits for the rest of its datagram.
    pub is_held: bool,
    /// Packets sent before that have waited until now, with their fates.
    pub released: Vec<Released>,
    /// What left on the other side.
    pub forwarded: Vec<Vec<u8>>,
    /// What came back on the side it was sent from.
    pub answers: Vec<Vec<u8>>,
}

/// What became of a packet that was held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Which packet, see [`Outcome::number`].
    pub number: u64,
    /// Its family.
    pub family: Option<Family>,
    /// What happened.
    pub fate: Fate,
}

/// Takes down the fate of every packet, by its frame.
#[derive(Debug, Default)]
pub struct Notes(Vec<(u64, Option<Family>, Fate)>);

impl Observer for Notes {
    fn fate(&mut self, frame: u64, packet: Option<&Packet>, fate: &Fate) {
        self.0.push((frame, packet.and_then(Packet::family), *fate));
    }
}

/// The gateway.
#[derive(Debug)]
pub struct Gateway {
    config: GatewayConfig,
    /// The workers, all polled by [`Gateway::send`].
    pub workers: Vec<Worker<LoopbackDevice, Notes>>,
    /// Their counters.
    pub counters: Vec<Arc<WorkerCounters>>,
    /// Where new snapshots go.
    pub mailbox: Arc<Mailbox>,
    /// Packets that rules wanted logged, and INVALID ones, by worker.
    pub notes: Vec<NoteReader>,
    /// Which worker owns which flows.
    pub steering: Arc<Steering>,
    ports: Arc<[PortState]>,
    umem: Arc<Umem>,
    seed: Seed,
    expired: Vec<Producer<Expired>>,
    requests: Vec<Producer<Request>>,
    set_asks: Vec<Consumer<SetAsk>>,
    now: Now,
    /// Packets sent so far.
    sent: u64,
    /// Those whose fate is not known yet, by frame.
    under_way: HashMap<u64, u64>,
}

impl Gateway {
    /// A gateway with these rules; a family without rules accepts everything, as in the kernel.
    ///
    /// # Errors
    /// If the rules do not compile or memory is short.
    pub fn new(rules: &[Ruleset], config: GatewayConfig) -> Result<Self, GatewayError> {
        let first = snapshot(Generation(1), rules, &config)?;
        let workers = config.workers;
        let mailbox = Arc::new(Mailbox::new(first, workers));
        let umem =
            Umem::new(&UmemConfig::plain(config.frames_per_worker, u32::try_from(workers).unwrap_or(1)))?;
        let ports: Arc<[PortState]> = (0..config.wires * 2)
            .map(|_| PortState {
                frame_len_max: AtomicU32::new(config.frame_len_max),
                link_up: AtomicBool::new(true),
            })
            .collect();
        let wakers: Vec<_> = (0..workers).map(|_| Waker::new().map(Arc::new)).collect::<Result<_, _>>()?;
        let mut gateway = Self {
            workers: Vec::new(),
            counters: Vec::new(),
            notes: Vec::new(),
            expired: Vec::new(),
            requests: Vec::new(),
            set_asks: Vec::new(),
            now: Now::from_secs(1),
            sent: 0,
            under_way: HashMap::new(),
            mailbox,
            steering: Arc::new(Steering::new(config.spread, workers, BUCKETS)),
            ports: Arc::clone(&ports),
            umem,
            seed: Seed::random(),
            config,
        };
        let trackers = gateway.trackers()?;
        let mut handoffs = Handoff::mesh(&wakers, gateway.config.frames_per_worker as usize);
        Handoff::share_lanes(&mut handoffs, &gateway.lanes());
        let moves = Moves::mesh(&gateway.steering, workers);
        for (index, ((handoff, moves), tracker)) in handoffs.into_iter().zip(moves).zip(trackers).enumerate()
        {
            gateway.add_worker(index, (handoff, moves), tracker, &wakers[index], &ports);
        }
        Ok(gateway)
    }

    fn trackers(&self) -> io::Result<Vec<Tracker>> {
        let tracker = |index| {
            Tracker::new(&TrackerConfig {
                max_flows: self.config.max_flows,
                max_flows_v6: self.config.max_flows,
                worker: WorkerId(u8::try_from(index).expect("at most 64 workers")),
                seed: self.seed,
                hugepages: false,
                prefault: false,
            })
        };
        let mut trackers = (0..self.config.workers).map(tracker).collect::<io::Result<Vec<_>>>()?;
        Tracker::join(&mut trackers);
        Ok(trackers)
    }

    /// The NICs that each worker has a queue of.
    fn lanes(&self) -> Vec<Vec<PortId>> {
        let workers = self.config.workers;
        let queues = self.config.queues.unwrap_or_else(|| u32::try_from(workers).unwrap_or(1));
        let dealt = deal_lanes(&vec![queues; self.config.wires * 2], workers);
        dealt.into_iter().map(|hand| hand.into_iter().map(|(port, _)| port).collect()).collect()
    }

    fn add_worker(
        &mut self,
        index: usize,
        (handoff, moves): (Handoff, Moves),
        tracker: Tracker,
        waker: &Arc<Waker>,
        ports: &Arc<[PortState]>,
    ) {
        let id = WorkerId(u8::try_from(index).expect("at most 64 workers"));
        let (named, expired) = RingBuffer::new(1024);
        let (asked, requests) = RingBuffer::new(1024);
        let (asked_of_sets, set_asks) = RingBuffer::new(1024);
        let (noted, notes) = note_rings(NOTES, NOTES_BYTES);
        let ports_count = self.config.wires * 2;
        let nics = self.lanes().swap_remove(index);
        let counters = Arc::new(WorkerCounters::new(ports_count, &nics));
        let lane = |port| Lane { port, device: LoopbackDevice::new(Arc::clone(&self.umem), TX_RING) };
        let parts = Parts {
            id,
            moves,
            pool: FramePool::new(&self.umem, id),
            umem: Arc::clone(&self.umem),
            lanes: nics.iter().copied().map(lane).collect(),
            ports: Arc::clone(ports),
            tracker,
            mailbox: Arc::clone(&self.mailbox),
            counters: Arc::clone(&counters),
            handoff,
            waker: Arc::clone(waker),
            expired,
            requests,
            notes: Some(noted),
            // Nobody sleeps on it: tests look for themselves.
            set_asks: Some(SetAsks::new(asked_of_sets, Arc::clone(waker))),
        };
        self.workers.push(Worker::new(parts, Notes::default()));
        self.counters.push(counters);
        self.notes.push(notes);
        self.expired.push(named);
        self.requests.push(asked);
        self.set_asks.push(set_asks);
    }

    /// Sends one packet into `side` through worker 0 and waits until all workers are quiet.
    pub fn send(&mut self, side: PortId, packet: &[u8]) -> Outcome {
        self.send_via(0, side, packet)
    }

    /// The same through a given worker's queue, whoever owns the flow. A worker without one is as good as the next that
    /// has one.
    pub fn send_via(&mut self, worker: usize, side: PortId, packet: &[u8]) -> Outcome {
        let number = self.sent;
        self.sent += 1;
        // What waited and has ended meanwhile: its frames may be given out again.
        let mut released = self.fates();
        let frame = self.deliver_via(worker, side, packet);
        if let Some(frame) = frame {
            self.under_way.insert(frame, number);
        }
        if self.config.is_restless {
            self.stir(packet);
        }
        self.settle();
        released.extend(self.fates());
        let own = released.iter().position(|fate| fate.number == number).map(|at| released.remove(at));
        Outcome {
            number,
            fate: own.map(|own| own.fate),
            family: own.and_then(|own| own.family),
            is_held: frame.is_some() && own.is_none(),
            released,
            forwarded: self.collect(side.peer()),
            answers: self.collect(side),
        }
    }

    /// The same through the queue where NICs bring it that spread packets as workers own flows.
    pub fn send_steered(&mut self, side: PortId, packet: &[u8]) -> Outcome {
        let Spread::Rss(fields) = self.config.spread else { return self.send(side, packet) };
        let owner = bucket(fields, packet).map(|bucket| self.steering.owners()[usize::from(bucket)]);
        self.send_via(owner.map_or(0, WorkerId::index), side, packet)
    }

    /// Lets a packet arrive and polls nobody; gives the id of its frame.
    ///
    /// # Panics
    /// If no worker has a queue of that NIC.
    pub fn deliver_via(&mut self, worker: usize, side: PortId, packet: &[u8]) -> Option<u64> {
        let count = self.workers.len();
        let mut having = (worker..worker + count).map(|index| index % count);
        let has = |worker: &mut Worker<_, _>| worker.lanes_mut().iter().position(|lane| lane.port == side);
        let found = having.find_map(|index| Some((index, has(&mut self.workers[index])?)));
        let (worker, lane) = found.expect("every NIC has a queue");
        let (lanes, pool) = self.workers[worker].lanes_and_pool();
        lanes[lane].device.deliver(pool, packet)
    }

    /// Has the bucket of a packet move on to the next worker, or that of its addresses alone, where fragments meet.
    fn stir(&self, packet: &[u8]) {
        let fields = if self.sent.is_multiple_of(3) { Fields::NONE } else { Fields::ALL };
        let Some(bucket) = bucket(fields, packet) else { return };
        let from = self.steering.owners()[usize::from(bucket)];
        let to = (from.index() + 1) % self.workers.len();
        let to = WorkerId(u8::try_from(to).expect("at most 64 workers"));
        self.steering.ask(BucketMove { bucket, from, to });
    }

    /// Packets whose fate workers have noted since the last time.
    fn fates(&mut self) -> Vec<Released> {
        let noted = self.workers.iter_mut().flat_map(|worker| worker.observer_mut().0.drain(..));
        let under_way = &mut self.under_way;
        let numbered =
            |(frame, family, fate)| under_way.remove(&frame).map(|number| Released { number, family, fate });
        noted.filter_map(numbered).collect()
    }

    /// Polls until no worker finds anything to do.
    fn settle(&mut self) {
        let now = self.now;
        let has_more = |worker: &mut Worker<LoopbackDevice, Notes>| {
            worker.poll(now) > 0 || worker.tracker_mut().is_flushing()
        };
        // All of them, every time. A move of a bucket goes on as if control were there.
        loop {
            // What waited for its flow is judged between bursts, and may be for a worker that was polled before.
            let stage = self.steering.stage();
            let is_busy = self.workers.iter_mut().map(has_more).fold(false, |any, more| any | more);
            if stage == Stage::HandedOver {
                self.steering.release();
            }
            if !is_busy && stage == Stage::Idle && self.steering.stage() == Stage::Idle {
                break;
            }
        }
    }

    /// What there is at this moment, for [`crate::explain`].
    pub fn look<T>(&mut self, look: impl FnOnce(&Live<'_>) -> T) -> T {
        let snapshot = self.mailbox.newest();
        let regions: Vec<_> = self.workers.iter_mut().map(|worker| worker.tracker_mut().region()).collect();
        let expectations = Arc::clone(self.workers[0].tracker_mut().expectations());
        look(&Live {
            snapshot: &snapshot,
            names: &names(&self.config),
            ports: &self.ports,
            steering: &self.steering,
            regions: &regions,
            expectations: &expectations,
            now: self.now,
        })
    }

    /// What left on a NIC since the last time.
    pub fn collect(&mut self, side: PortId) -> Vec<Vec<u8>> {
        let lanes = self.workers.iter_mut().flat_map(|worker| worker.lanes_mut());
        lanes.filter(|lane| lane.port == side).flat_map(|lane| lane.device.collect()).collect()
    }

    /// What rules have asked of sets since the last time.
    pub fn set_asks(&mut self) -> Vec<SetAsk> {
        let mut asks = Vec::new();
        for worker in &mut self.set_asks {
            asks.extend(std::iter::from_fn(|| worker.pop().ok()));
        }
        asks
    }

    /// Turns the clock to `now`.
    pub fn set_clock(&mut self, now: Now) {
        self.now = now;
    }

    /// Removes flows whose time is up, as control's ager does now and then. Nothing depends on when: the tracker
    /// does not match an expired flow.
    pub fn age(&mut self) {
        let now = self.now;
        for (worker, named) in self.workers.iter_mut().zip(&mut self.expired) {
            let region = worker.tracker_mut().region();
            let mut found = Vec::new();
            let mut cursor = Cursor::default();
            loop {
                cursor = region.expired(now.tick(), cursor, 4096, &mut found);
                for flow in found.drain(..) {
                    while let Err(rtrb::PushError::Full(_)) = named.push(flow) {
                        worker.poll(now);
                    }
                }
                if cursor.is_start() {
                    break;
                }
            }
        }
        self.settle();
    }

    /// Asks a worker for something, as control does; it is done when it polls next.
    ///
    /// # Errors
    /// When it has many requests waiting already.
    pub fn ask(&mut self, worker: usize, request: Request) -> Result<(), Request> {
        self.requests[worker].push(request).map_err(|rtrb::PushError::Full(request)| request)
    }

    /// Turns the clock forward and removes what expired meanwhile.
    pub fn advance_millis(&mut self, millis: u64) {
        self.set_clock(self.now.plus_nanos(millis * 1_000_000));
        self.age();
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    /// Replaces the rules, keeping flows, as a reload does.
    ///
    /// # Errors
    /// If the rules do not compile; the old ones stay in force.
    pub fn reload(&mut self, rules: &[Ruleset]) -> Result<(), GatewayError> {
        let next = self.next_generation();
        self.mailbox.publish(snapshot(next, rules, &self.config)?);
        self.settle();
        Ok(())
    }

    /// The same, but flows that the rules so far let pass go on whatever the new ones say.
    ///
    /// # Errors
    /// If the rules do not compile; the old ones stay in force.
    pub fn reload_keeping(&mut self, rules: &[Ruleset]) -> Result<(), GatewayError> {
        let before = self.mailbox.newest();
        let next = snapshot(self.next_generation(), rules, &self.config)?;
        let keeping = |new: Arc<FamilyRules>, old: &FamilyRules| {
            let new = Arc::into_inner(new).expect("nobody has them yet");
            Arc::new(new.keeping_flows_of(old))
        };
        let (v4, v6) = (keeping(next.v4, &before.v4), keeping(next.v6, &before.v6));
        self.mailbox.publish(Snapshot { v4, v6, ..next });
        self.settle();
        Ok(())
    }

    fn next_generation(&self) -> Generation {
        Generation(self.mailbox.newest().generation.0 + 1)
    }

    /// Changes settings, and the rules with them: all at once, as at run time.
    ///
    /// # Errors
    /// If the rules do not compile.
    pub fn change(
        &mut self,
        rules: &[Ruleset],
        change: impl FnOnce(&mut Settings),
    ) -> Result<(), GatewayError> {
        change(&mut self.config.settings);
        self.reload(rules)
    }

    /// Frames now anywhere: in pools, in devices, held as fragments or on their way between workers. Always
    /// [`Gateway::frames_total`].
    pub fn frames_accounted(&mut self) -> usize {
        let held = |worker: &mut Worker<LoopbackDevice, Notes>| {
            let devices: usize = worker.lanes_mut().iter().map(|lane| lane.device.frames_held()).sum();
            devices + worker.pool_mut().len() + worker.frames_held() + worker.frames_under_way()
        };
        self.workers.iter_mut().map(held).sum()
    }

    /// Frames the UMEM was made with.
    #[must_use]
    pub fn frames_total(&self) -> usize {
        self.config.frames_per_worker as usize * self.config.workers
    }
}

/// The bucket a NIC finds for a packet, if that can be parsed.
fn bucket(fields: Fields, packet: &[u8]) -> Option<u8> {
    let parsed = wire::parse(packet, u32::try_from(packet.len()).ok()?).ok()?;
    Some(rss::bucket(fields, &parsed.tuple))
}

/// Names of all NICs.
fn names(config: &GatewayConfig) -> Vec<String> {
    let further =
        (1..config.wires).flat_map(|wire| config.names.each_ref().map(|name| format!("{name}{wire}")));
    config.names.iter().cloned().chain(further).collect()
}

/// A snapshot of these rules.
fn snapshot(
    generation: Generation,
    rules: &[Ruleset],
    config: &GatewayConfig,
) -> Result<Snapshot, CompileError> {
    let names = names(config);
    let family = |family: Family| -> Result<Arc<FamilyRules>, CompileError> {
        let asked = rules.iter().find(|ruleset| ruleset.family == family);
        let ruleset = asked.cloned().unwrap_or_else(|| Ruleset::empty(family));
        let compiled = Compiled::new(Arc::new(ruleset), &names)?;
        Ok(Arc::new(FamilyRules::new(compiled, generation, config.workers, config.track_always)))
    };
    Ok(Snapshot {
        generation,
        v4: family(Family::V4)?,
        v6: family(Family::V6)?,
        settings: config.settings.clone(),
    })
}
