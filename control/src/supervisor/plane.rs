//! The packet path, put together: NICs, frame memory, sockets, XDP programs, flow tables and the threads that run them.
//!
//! Order matters. NICs are prepared first, since their MTU decides the frame size; sockets are bound and registered
//! before the program is attached, so that the first frame finds a worker; and the program is detached before a socket
//! is closed. Fields drop in that order.

use super::frames::{Geometry, open_sockets};
use super::ports::{
    Port, align_queues, deal, find_nics, lanes, place, port_states, prepare, read_machine, steer_irqs,
};
use super::watchdog::SharedHealth;
use super::{Fatal, rss};
use crate::ager::{self, Aged};
use crate::config::{Config, Idle, Irqs, Rss, XdpMode};
use crate::placement::Placed;
use crate::publish::Publisher;
use crate::requests::{Desk, REQUEST_RING};
use crate::sets::orders::ASK_RING;
use crate::system::{capabilities, cores, privileges};
use bpf::{AttachMode, XdpPort};
use dataplane::flow::{Expectations, Expired, FlowEvent, Listening, Region, Seed, Tracker, TrackerConfig};
use dataplane::ids::{PortId, WorkerId};
use dataplane::sets::SetAsk;
use dataplane::worker::{
    Handoff, IdlePolicy, Lane, Moves, NoteReader, Parts, PortState, SetAsks, Steering, Waker, Worker,
    WorkerCounters, note_rings,
};
use dataplane::xsk::{FramePool, Umem, XskDevice};
use rtrb::{Consumer, Producer, RingBuffer};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Expired flows the ager may name ahead of a worker's removing them.
const EXPIRED_RING: usize = 4096;

/// Events of flows that may wait for a listener, per worker: what a worker can tell within 5 ms when very many flows end at
/// once. Its pages are taken once they are written.
const EVENT_RING: usize = 16_384;

/// Packets that may wait to be logged, per worker, and bytes of all of them.
const NOTE_RING: usize = 4096;
const NOTE_BYTES: usize = 1 << 20;

/// How long threads may take to end. One that is stalled may never.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// A worker as control knows it.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    pub(super) core: u16,
    /// Why that one.
    pub(super) why: String,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) region: Arc<Region>,
    pub(super) waker: Arc<Waker>,
    /// Where it takes requests about its flows.
    pub(super) desk: Arc<Mutex<Desk>>,
    /// What happens to its flows.
    pub(super) events: Arc<Mutex<Consumer<FlowEvent>>>,
    /// INVALID packets to be logged.
    pub(super) notes: Mutex<NoteReader>,
    /// NIC and queue of each lane.
    pub(super) lanes: Vec<(PortId, u32)>,
    /// Whether it polls.
    pub(super) health: SharedHealth,
    /// The kernel's number for its thread, 0 until it runs.
    thread_id: Arc<AtomicI32>,
    thread: Option<JoinHandle<()>>,
    /// What the thread will run; taken by [`Plane::start`].
    worker: Option<Worker<XskDevice>>,
}

/// Everything that forwards.
#[derive(Debug)]
pub(super) struct Plane {
    stop: Arc<AtomicBool>,
    pub(super) started: Instant,
    pub(super) workers: Vec<WorkerHandle>,
    ager: Option<JoinHandle<()>>,
    aged: Vec<Aged>,
    pub(super) ports: Vec<Port>,
    pub(super) states: Arc<[PortState]>,
    /// Which worker owns which flows.
    pub(super) steering: Arc<Steering>,
    /// Buckets that NICs tell apart.
    pub(super) stride: usize,
    pub(super) publisher: Arc<Publisher>,
    pub(super) listening: Arc<Listening>,
    pub(super) expectations: Arc<Expectations>,
    /// What rules want done to sets.
    pub(super) set_asks: Vec<Consumer<SetAsk>>,
    /// What wakes whoever does it.
    pub(super) sets_waker: Arc<Waker>,
}

impl Plane {
    /// Builds everything; nothing runs and no frame is taken yet.
    pub(super) fn build(
        config: &Config,
        publisher: impl FnOnce(&[String], usize) -> Result<Publisher, Fatal>,
    ) -> Result<Self, Fatal> {
        let nics = find_nics(config)?;
        // Programs are loaded before anything about a NIC is changed: a NIC that is taken stays as it is.
        let mut loaded = Vec::new();
        for (nic, queues) in nics {
            let ifindex = i32::try_from(nic.ifindex).unwrap_or(i32::MAX);
            let xdp = XdpPort::load(&nic.name, ifindex)?;
            loaded.push((nic, queues, xdp));
        }
        align_queues(config, &mut loaded)?;
        let names: Vec<String> = loaded.iter().map(|(nic, ..)| nic.name.clone()).collect();
        let machine = read_machine(&loaded);
        let placed = place(config, &machine, &loaded)?;
        let hands = deal(&loaded, placed.len());
        let publisher = Arc::new(publisher(&names, placed.len())?);
        let mut ports = prepare(config, loaded, &machine)?;
        if config.net.irqs == Irqs::Steer {
            steer_irqs(&machine, &ports, &hands, &placed);
        }
        let program = config.net.rss == Rss::Program;
        let (spread, stride) = rss::agree(&mut ports, program);
        let geometry = Geometry::of(config, &ports, &hands)?;
        capabilities::may_lock(geometry.umem_bytes()).map_err(Fatal::Rights)?;
        let umem = Umem::new(&geometry.umem(config))?;
        let devices = open_sockets(config, &umem, &ports, &geometry)?;
        for (device, (port, queue)) in devices.iter().zip(lanes(&ports)) {
            let port = &mut ports[port.index()];
            port.zero_copy = device.is_zero_copy();
            port.xdp.register(queue, device.as_raw_fd())?;
        }
        for port in &mut ports {
            port.frame_len_max = geometry.frame_len_max;
        }
        let states = port_states(&ports);
        let made = |source| Fatal::System { what: "making an event descriptor", source };
        let sets_waker = Arc::new(Waker::new().map_err(made)?);
        let mut plane = Self {
            stop: Arc::new(AtomicBool::new(false)),
            started: Instant::now(),
            workers: Vec::new(),
            ager: None,
            aged: Vec::new(),
            ports,
            states,
            steering: Arc::new(Steering::new(spread, placed.len(), stride)),
            stride,
            publisher,
            listening: Arc::default(),
            expectations: Arc::default(),
            set_asks: Vec::new(),
            sets_waker,
        };
        plane.make_workers(config, placed, &hands, &umem, devices)?;
        let lanes = plane.lanes();
        rss::point(&mut plane.ports, &lanes, &plane.steering.owners(), program);
        rss::report(&plane.ports, plane.workers.len());
        Ok(plane)
    }

    /// NIC, queue and worker of every socket.
    pub(super) fn lanes(&self) -> Vec<(usize, u32, WorkerId)> {
        let ids = (0..).map(WorkerId);
        let of = |(id, worker): (WorkerId, &WorkerHandle)| -> Vec<_> {
            worker.lanes.iter().map(|(port, queue)| (port.index(), *queue, id)).collect()
        };
        ids.zip(&self.workers).flat_map(of).collect()
    }

    /// Deals out the devices and makes a worker of each hand.
    fn make_workers(
        &mut self,
        config: &Config,
        placed: Vec<Placed>,
        hands: &[Vec<(PortId, u32)>],
        umem: &Arc<Umem>,
        devices: Vec<XskDevice>,
    ) -> Result<(), Fatal> {
        let system = |what| move |source| Fatal::System { what, source };
        let wakers: Result<Vec<_>, _> = placed.iter().map(|_| Waker::new().map(Arc::new)).collect();
        let wakers = wakers.map_err(system("making event descriptors"))?;
        let count = placed.len();
        let mut dealt: Vec<Vec<Lane<XskDevice>>> = placed.iter().map(|_| Vec::new()).collect();
        for (device, lane) in devices.into_iter().zip(lanes(&self.ports)) {
            let worker = hands.iter().position(|hand| hand.contains(&lane));
            dealt[worker.expect("every queue was dealt to a worker")].push(Lane { port: lane.0, device });
        }
        let seed = Seed::random();
        let mut meshes = Handoff::mesh(&wakers, umem.frames_per_worker() as usize);
        let ports_of = |lanes: &Vec<Lane<XskDevice>>| lanes.iter().map(|lane| lane.port).collect::<Vec<_>>();
        Handoff::share_lanes(&mut meshes, &dealt.iter().map(ports_of).collect::<Vec<_>>());
        let ids = (0..count).map(|index| WorkerId(u8::try_from(index).unwrap_or(u8::MAX)));
        let trackers = ids.map(|id| make_tracker(config, id, count, seed));
        let mut trackers = trackers.collect::<Result<Vec<_>, _>>()?;
        Tracker::join(&mut trackers);
        if let Some(tracker) = trackers.first() {
            self.expectations = Arc::clone(tracker.expectations());
        }
        let meshes = meshes.into_iter().zip(Moves::mesh(&self.steering, count));
        let parts = dealt.into_iter().zip(meshes).zip(wakers).zip(trackers).zip(placed);
        for (index, ((((lanes, (handoff, moves)), waker), mut tracker), placed)) in parts.enumerate() {
            let (out, events) = RingBuffer::<FlowEvent>::new(EVENT_RING);
            tracker.report_to(out, Arc::clone(&self.listening));
            let id = WorkerId(u8::try_from(index).unwrap_or(u8::MAX));
            let ports = ports_of(&lanes);
            let counters = Arc::new(WorkerCounters::new(self.ports.len(), &ports));
            let (named, expired) = RingBuffer::<Expired>::new(EXPIRED_RING);
            let region = tracker.region();
            self.aged.push(Aged { region: Arc::clone(&region), named: named as Producer<Expired> });
            let (asked, requests) = RingBuffer::new(REQUEST_RING);
            let (ask_sets, set_asks) = RingBuffer::new(ASK_RING);
            self.set_asks.push(set_asks);
            let (noted, notes) = note_rings(NOTE_RING, NOTE_BYTES);
            let desk = Desk::new(asked, Arc::clone(&waker), Arc::clone(&counters));
            let handle = WorkerHandle {
                core: placed.core,
                why: placed.why,
                counters: Arc::clone(&counters),
                region,
                waker: Arc::clone(&waker),
                desk: Arc::new(Mutex::new(desk)),
                events: Arc::new(Mutex::new(events)),
                notes: Mutex::new(notes),
                lanes: lanes.iter().map(|lane| (lane.port, lane.device.queue().queue)).collect(),
                health: SharedHealth::default(),
                thread_id: Arc::default(),
                thread: None,
                worker: Some(Worker::new(
                    Parts {
                        id,
                        moves,
                        umem: Arc::clone(umem),
                        pool: FramePool::new(umem, id),
                        lanes,
                        ports: Arc::clone(&self.states),
                        tracker,
                        mailbox: self.publisher.mailbox(),
                        counters,
                        handoff,
                        waker,
                        expired,
                        requests,
                        notes: Some(noted),
                        set_asks: Some(SetAsks::new(ask_sets, Arc::clone(&self.sets_waker))),
                    },
                    (),
                )),
            };
            self.workers.push(handle);
        }
        Ok(())
    }

    /// Takes this thread, and with it all that it starts but the workers, off their cores, if there are others.
    pub(super) fn leave_workers_cores(&self) {
        let theirs: Vec<u16> = self.workers.iter().map(|handle| handle.core).collect();
        match cores::leave(&theirs) {
            Ok(true) => {}
            Ok(false) => info!("every core is a worker's: what else the daemon does is done there, too"),
            Err(error) => warn!("control threads cannot be kept off the workers' cores: {error}"),
        }
    }

    /// Starts the threads and lets the frames in.
    pub(super) fn start(&mut self, config: &Config) -> Result<(), Fatal> {
        let system = |what| move |source| Fatal::System { what, source };
        let idle = idle_policy(config.workers.idle);
        let started = self.started;
        for (index, handle) in self.workers.iter_mut().enumerate() {
            let Some(mut worker) = handle.worker.take() else { continue };
            let (stop, core) = (Arc::clone(&self.stop), handle.core);
            let thread_id = Arc::clone(&handle.thread_id);
            let filter = config.privileges.seccomp;
            let run = move || {
                thread_id.store(rustix::thread::gettid().as_raw_pid(), Ordering::Relaxed);
                if let Err(error) = cores::pin(core) {
                    warn!(
                        "worker {index} cannot be pinned to core {core}: {error}; it runs where the kernel puts it"
                    );
                }
                privileges::confine(filter);
                worker.run(started, idle, &stop);
            };
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(run);
            handle.thread = Some(thread.map_err(system("starting a worker thread"))?);
        }
        let mut aged = std::mem::take(&mut self.aged);
        let stop = Arc::clone(&self.stop);
        let ager = std::thread::Builder::new().name("ager".to_owned());
        let ager = ager.spawn(move || ager::run(&mut aged, started, &stop));
        self.ager = Some(ager.map_err(system("starting the ager thread"))?);
        let mode = match config.xdp.mode {
            XdpMode::Auto => AttachMode::Auto,
            XdpMode::Native => AttachMode::Native,
            XdpMode::Generic => AttachMode::Generic,
        };
        for port in &mut self.ports {
            port.xdp.attach(mode)?;
            let kind = if port.xdp.is_native() { "native" } else { "generic" };
            let copy = if port.zero_copy { "zero-copy" } else { "copy" };
            info!("{}: {kind} XDP, {copy} mode, {} queue(s), MTU {}", port.nic.name, port.queues, port.mtu);
            if let Some(refusal) = port.xdp.native_refusal() {
                warn!("{}: generic XDP is slow; native was refused: {refusal}", port.nic.name);
            }
        }
        Ok(())
    }

    /// Waits until every worker has polled its queues.
    pub(super) fn wait_until_polling(&self, timeout: Duration) -> Result<(), Fatal> {
        let deadline = Instant::now() + timeout;
        for (index, handle) in self.workers.iter().enumerate() {
            while handle.counters.polls.all() == 0 {
                if Instant::now() > deadline || self.ended_worker().is_some() {
                    return Err(Fatal::WorkerEnded(u8::try_from(index).unwrap_or(u8::MAX)));
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// A worker whose thread has ended, if there is one.
    pub(super) fn ended_worker(&self) -> Option<u8> {
        let ended = |handle: &WorkerHandle| handle.thread.as_ref().is_some_and(JoinHandle::is_finished);
        self.workers.iter().position(ended).and_then(|index| u8::try_from(index).ok())
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        // Frames stop coming first, then the workers stop; what is still in a ring is lost with the link.
        for port in &mut self.ports {
            port.xdp.detach();
        }
        self.stop.store(true, Ordering::Relaxed);
        for handle in &self.workers {
            handle.waker.wake();
        }
        let deadline = Instant::now() + END_TIMEOUT;
        let workers = self.workers.iter_mut().filter_map(|handle| handle.thread.take());
        for thread in workers.chain(self.ager.take()) {
            thread.thread().unpark();
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                // A panic was reported when it happened.
                let _ = thread.join();
            } else {
                // It holds on to all it uses, and ends with the process.
                warn!("{} does not end: left behind", thread.thread().name().unwrap_or("a thread"));
            }
        }
    }
}

impl WorkerHandle {
    /// The kernel's number for its thread, once it runs.
    pub(super) fn thread_id(&self) -> Option<i32> {
        Some(self.thread_id.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }
}

/// What workers do when no packet comes.
pub(super) const fn idle_policy(idle: Idle) -> IdlePolicy {
    match idle {
        Idle::Spin => IdlePolicy::Spin,
        Idle::Adaptive => IdlePolicy::Adaptive,
        Idle::Sleep => IdlePolicy::Sleep,
    }
}

fn make_tracker(config: &Config, worker: WorkerId, workers: usize, seed: Seed) -> Result<Tracker, Fatal> {
    let share = config.flows.max.div_ceil(u32::try_from(workers).unwrap_or(1)).max(64);
    let tracker = Tracker::new(&TrackerConfig {
        max_flows: share,
        max_flows_v6: share,
        worker,
        seed,
        hugepages: true,
        prefault: false,
    });
    tracker.map_err(|source| Fatal::System { what: "mapping a flow table (lower flows.max?)", source })
}
