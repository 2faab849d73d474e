//! Workers on cores without a kernel: real ones, on [`Conveyor`]s, with stateful rules and flows that are open already.
//!
//! Whoever owns a flow is found by trying, so that nothing here knows how ownership is decided: its first packet comes in
//! at the first worker, and the one that sends it out owns it. Flows are taken until every worker owns as many as the
//! others.

use crate::{Error, affinity};
use dataplane::clock::Now;
use dataplane::device::{BURST_MAX, Device, DeviceCounters};
use dataplane::flow::Seed;
use dataplane::ids::{Generation, PortId};
use dataplane::packet::Family;
use dataplane::reason::DropReason;
use dataplane::testing::gateway::{LEFT, RIGHT};
use dataplane::worker::{
    Counter, HANDOFF_CAUSES, HandoffCounters, IdlePolicy, Mailbox, Snapshot, Worker, WorkerCounters,
};
use stages::device::{Arrival, Conveyor};
use stages::gateway::{self, Gateway, Plan, SIDES};
use stages::traffic::{PACKET, Talk, Talks, shuffle};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Ten rules; the last one accepts the load's first packets.
pub const RULES: &str = include_str!("../../../tests/data/rules/bench10.v4.rules");

/// Time that workers work at a stretch. So short that on a machine where others work too there are stretches in which
/// nobody took a core away from them.
const SLICE: Duration = Duration::from_millis(3);

/// Share of its cores from which on a slice counts as left alone. Those that were not are left out, unless there are no others.
const QUIET: f64 = 0.97;

/// How many times the length of a measurement may be spent on waiting for such slices.
const PATIENCE: u32 = 8;

/// Which worker a packet arrives at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rss {
    /// The one that owns its flow.
    Agrees,
    /// Always another one.
    IsWrong,
}

/// A worker that shares no cache line with its neighbour in the list: the daemon's live on their own threads.
#[derive(Debug)]
#[repr(align(128))]
struct Apart(Worker<Conveyor>);

impl std::ops::Deref for Apart {
    type Target = Worker<Conveyor>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl std::ops::DerefMut for Apart {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// Workers, and what they share.
#[derive(Debug)]
pub struct Crew {
    workers: Vec<Apart>,
    counters: Vec<Arc<WorkerCounters>>,
    mailbox: Arc<Mailbox>,
    /// The clock's zero.
    started: Instant,
    /// Flows by owner.
    owned: Vec<Vec<Talk>>,
}

/// What workers did in one measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shift {
    /// Packets sent by all of them.
    pub packets: u64,
    /// Packets dropped on their way to the worker that owns them.
    pub dropped: u64,
    /// Seconds it took, from the first one's beginning to the last one's end.
    pub secs: f64,
    /// Of the workers' time, what the machine gave them: less than one when others wanted the cores too.
    pub share: f64,
    /// How many there were.
    pub workers: usize,
}

impl Shift {
    fn add(&mut self, other: &Self) {
        let secs = self.secs + other.secs;
        let share = (self.share * self.secs + other.share * other.secs) / secs;
        let (packets, dropped) = (self.packets + other.packets, self.dropped + other.dropped);
        *self = Self { packets, dropped, secs, share, workers: other.workers };
    }

    /// Packets per second, in millions.
    #[must_use]
    pub fn mpps(&self) -> f64 {
        self.packets as f64 / self.secs / 1e6
    }

    /// Nanoseconds of a core's time per packet.
    #[must_use]
    pub fn nanos(&self) -> f64 {
        self.secs * 1e9 * self.workers as f64 / self.packets as f64
    }
}

impl Crew {
    /// Workers with `flows` open flows, the same number each.
    ///
    /// # Errors
    /// If memory is short or the rules do not compile.
    ///
    /// # Panics
    /// If a packet does not pass.
    pub fn new(workers: usize, flows: usize) -> Result<Self, Error> {
        let mut crew = Self::idle(workers, flows)?;
        let (wanted, talks) = (flows / workers, Talks::new());
        for number in 0_u32.. {
            if crew.owned.iter().all(|owned| owned.len() == wanted) {
                break;
            }
            let talk = talks.of(number);
            let owner = crew.carry(LEFT, &talk[0]);
            if crew.owned[owner].len() < wanted {
                assert_eq!(crew.carry(RIGHT, &talk[1]), owner, "a flow has one owner");
                crew.owned[owner].push(talk);
            }
        }
        // Neighbours in time are not neighbours in the table.
        for owned in &mut crew.owned {
            shuffle(owned, 0);
        }
        Ok(crew)
    }

    fn idle(count: usize, flows: usize) -> Result<Self, Error> {
        let plan = Plan {
            workers: count,
            // Flows that are tried and not wanted stay until they expire.
            max_flows: u32::try_from(flows * 2 + 1024).unwrap_or(u32::MAX),
            seed: Seed::random(),
            hugepages: true,
            burst: BURST_MAX,
            arrival: Arrival::PastCaches,
        };
        let Gateway { workers, counters, mailbox } =
            Gateway::new(&plan, snapshot(Generation(1), RULES, count)?)?;
        let workers = workers.into_iter().map(Apart).collect();
        let owned = vec![Vec::new(); count];
        Ok(Self { workers, counters, mailbox, started: Instant::now(), owned })
    }

    /// Sends one packet in at the first worker; which one sent it out.
    fn carry(&mut self, side: PortId, packet: &[u8; PACKET]) -> usize {
        let before: Vec<_> = self.each_sent();
        self.workers[0].lanes_mut()[side.index()].device.play([*packet].into(), 1);
        self.drain();
        let after = self.each_sent();
        let found = before.iter().zip(&after).position(|(before, after)| after > before);
        found.expect("every packet passes")
    }

    /// Polls until nobody has anything to do.
    fn drain(&mut self) {
        let now = Now::since(self.started);
        // What is polled may give work to one that was polled before it.
        let mut quiet = 0;
        while quiet < 2 {
            let handled: usize = self.workers.iter_mut().map(|worker| worker.poll(now)).sum();
            quiet = if handled == 0 { quiet + 1 } else { 0 };
        }
    }

    fn each_sent(&mut self) -> Vec<u64> {
        let sent = |worker: &mut Apart| count(worker, |counters| counters.tx_descs);
        self.workers.iter_mut().map(sent).collect()
    }

    /// Lets all flows speak, arriving where `rss` says.
    pub fn load(&mut self, rss: Rss) {
        let workers = self.workers.len();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let owner = if rss == Rss::Agrees { index } else { (index + 1) % workers };
            for (side, lane) in worker.lanes_mut().iter_mut().enumerate() {
                lane.device.play(self.owned[owner].iter().map(|talk| talk[side]).collect(), 0);
            }
        }
    }

    /// All workers at once, the first on `core` and each other one on the next, for this long.
    ///
    /// # Errors
    /// If a thread cannot be pinned.
    ///
    /// # Panics
    /// If a packet was not forwarded.
    pub fn work(&mut self, core: usize, length: Duration) -> Result<Shift, Error> {
        let shifts = side_by_side(&mut [self], core, length)?;
        Ok(shifts[0])
    }

    /// The same, each poll that found packets timed: nanoseconds, sorted, by worker. `control` runs meanwhile on the
    /// calling thread and says when it is over.
    ///
    /// # Errors
    /// If a thread cannot be pinned, or what `control` returns.
    ///
    /// # Panics
    /// If a packet was not forwarded.
    pub fn polls(
        &mut self,
        control: impl FnOnce(&Mailbox) -> Result<(), Error>,
    ) -> Result<Vec<Vec<u32>>, Error> {
        let stop = AtomicBool::new(false);
        self.allow(u64::MAX);
        let (started, mailbox) = (self.started, Arc::clone(&self.mailbox));
        let timed = thread::scope(|scope| {
            let (stop, mut threads) = (&stop, Vec::new());
            for (core, worker) in self.workers.iter_mut().enumerate() {
                threads.push(scope.spawn(move || timed_polls(core, worker, started, stop)));
            }
            let done = control(&mailbox);
            stop.store(true, Ordering::Relaxed);
            let joined = threads.into_iter().map(|thread| thread.join().expect("no panic"));
            let timed = joined.collect::<Result<Vec<_>, Error>>();
            done.and(timed)
        })?;
        self.check();
        Ok(timed)
    }

    fn allow(&mut self, budget: u64) {
        for worker in &mut self.workers {
            worker.lanes_mut().iter_mut().for_each(|lane| lane.device.allow(budget));
        }
    }

    /// Packets handed from worker to worker so far.
    #[must_use]
    pub fn handed_off(&self) -> u64 {
        self.sum(|handoff| &handoff.out)
    }

    fn sum(&self, of: impl Fn(&HandoffCounters) -> &[Counter; HANDOFF_CAUSES]) -> u64 {
        self.counters.iter().flat_map(|counters| of(&counters.handoff)).map(Counter::get).sum()
    }

    /// Packets dropped because the worker that owns them had too many waiting, or too many of the giver's frames.
    fn dropped(&self) -> u64 {
        let counted = |counters: &Arc<WorkerCounters>| -> u64 {
            let of = |side: &PortId| {
                let drops = &counters.port(*side).drops;
                drops[DropReason::HandoffFull as usize].packets.get()
                    + drops[DropReason::FramesLent as usize].packets.get()
            };
            SIDES.iter().map(of).sum()
        };
        self.counters.iter().map(counted).sum()
    }

    /// Every packet that came in has gone out or was dropped on the way to its owner, once those on their way are through.
    fn check(&mut self) {
        self.allow(0);
        self.drain();
        let received: u64 =
            self.workers.iter_mut().map(|worker| count(worker, |counters| counters.rx_descs)).sum();
        let sent: u64 = self.each_sent().iter().sum();
        assert_eq!(received, sent + self.dropped(), "a packet was lost");
        assert_eq!(
            self.handed_off(),
            self.sum(|handoff| &handoff.taken),
            "a packet was lost between workers"
        );
    }
}

/// Crews that share nothing, all at once, for this long: the first worker on `core`, each other one on the next.
///
/// # Errors
/// If a thread cannot be pinned.
///
/// # Panics
/// If a packet was not forwarded.
pub fn side_by_side(crews: &mut [&mut Crew], core: usize, length: Duration) -> Result<Vec<Shift>, Error> {
    let mut shifts = vec![Shift::default(); crews.len()];
    let mut disturbed = shifts.clone();
    let start = Instant::now();
    while shifts[0].secs < length.as_secs_f64() && start.elapsed() < length * PATIENCE {
        let slice = slice(crews, core)?;
        let is_quiet = slice.iter().all(|shift| shift.share > QUIET);
        let sums = if is_quiet { &mut shifts } else { &mut disturbed };
        sums.iter_mut().zip(&slice).for_each(|(sum, shift)| sum.add(shift));
    }
    Ok(if shifts[0].packets > 0 { shifts } else { disturbed })
}

/// All at once for [`SLICE`].
fn slice(crews: &mut [&mut Crew], core: usize) -> Result<Vec<Shift>, Error> {
    let (stop, ready) = (AtomicBool::new(false), AtomicUsize::new(0));
    let count: usize = crews.iter().map(|crew| crew.workers.len()).sum();
    let sent = |crew: &mut Crew| crew.each_sent().iter().sum::<u64>();
    let before: Vec<_> = crews.iter_mut().map(|crew| (sent(crew), crew.dropped())).collect();
    let times = thread::scope(|scope| {
        let (stop, ready, mut cores, mut threads) = (&stop, &ready, core.., Vec::new());
        for crew in crews.iter_mut() {
            crew.allow(u64::MAX);
            let started = crew.started;
            for (worker, core) in crew.workers.iter_mut().zip(cores.by_ref()) {
                threads.push(scope.spawn(move || {
                    let pinned = affinity::pin_to(core);
                    // Nobody begins before all have their cores.
                    ready.fetch_add(1, Ordering::AcqRel);
                    while ready.load(Ordering::Acquire) < count {
                        std::hint::spin_loop();
                    }
                    let (from, cpu) = (Instant::now(), affinity::thread_secs());
                    worker.run(started, IdlePolicy::Spin, stop);
                    pinned.map(|()| (from, Instant::now(), affinity::thread_secs() - cpu))
                }));
            }
        }
        while ready.load(Ordering::Acquire) < count {
            thread::sleep(Duration::from_micros(50));
        }
        thread::sleep(SLICE);
        stop.store(true, Ordering::Relaxed);
        let join = |thread: thread::ScopedJoinHandle<'_, Result<_, Error>>| thread.join().expect("no panic");
        threads.into_iter().map(join).collect::<Result<Vec<(Instant, Instant, f64)>, Error>>()
    })?;
    let from = times.iter().map(|time| time.0).min().unwrap_or_else(Instant::now);
    let to = times.iter().map(|time| time.1).max().unwrap_or(from);
    let secs = (to - from).as_secs_f64();
    let share = times.iter().map(|time| time.2).sum::<f64>() / (secs * count as f64);
    let shift = |(crew, before): (&mut &mut Crew, (u64, u64))| {
        let (packets, dropped) = (sent(crew) - before.0, crew.dropped() - before.1);
        crew.check();
        Shift { packets, dropped, secs, share, workers: crew.workers.len() }
    };
    Ok(crews.iter_mut().zip(before).map(shift).collect())
}

/// Polls on a core until told to stop; nanoseconds of each poll that found packets, sorted.
fn timed_polls(
    core: usize,
    worker: &mut Worker<Conveyor>,
    started: Instant,
    stop: &AtomicBool,
) -> Result<Vec<u32>, Error> {
    affinity::pin_to(core)?;
    let mut times = Vec::with_capacity(1 << 22);
    while !stop.load(Ordering::Relaxed) {
        let from = Instant::now();
        if worker.poll(Now::since(started)) > 0 && times.len() < times.capacity() {
            times.push(u32::try_from(from.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
    }
    times.sort_unstable();
    Ok(times)
}

fn count(worker: &mut Worker<Conveyor>, what: fn(&DeviceCounters) -> u64) -> u64 {
    worker.lanes_mut().iter().map(|lane| what(&lane.device.counters())).sum()
}

/// Rules in force for so many workers.
///
/// # Errors
/// If they do not compile.
///
/// # Panics
/// If they are not rules.
pub fn snapshot(generation: Generation, rules: &str, workers: usize) -> Result<Snapshot, Error> {
    let loaded = control::rules_file::understand(rules.as_bytes(), "bench", Family::V4, &[]);
    gateway::snapshot(generation, loaded.ruleset.expect("good rules"), workers)
}
