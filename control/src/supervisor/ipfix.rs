//! Sends flow records to a collector. One thread, far from packets: it hears of the ends of flows from the workers' event
//! rings and walks their tables, read-only and a slice at a time, for flows that last.
//!
//! Whatever the collector does, nothing waits for it: a message is sent or lost, and what is lost is counted and told once.

use super::backend::LiveBackend;
use super::{Fatal, plane::Plane};
use crate::api::Wall;
use crate::api::metrics::IpfixFacts;
use crate::config::IpfixConfig;
use crate::ipfix::ledger::{Account, Ledger};
use crate::ipfix::message::{Message, Packer, Record};
use dataplane::clock::{Now, TICK_NANOS, Tick};
use dataplane::flow::{Cursor, FlowView, Region, TrackSettings};
use dataplane::ids::PortId;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How often ends of flows are collected.
const TURN: Duration = Duration::from_millis(5);
/// So many at once, and the next turn comes at once.
const MANY: usize = 1024;
/// How long records wait for others to share a message with.
const FLUSH_AFTER: Duration = Duration::from_secs(1);
/// Least time for a pass over all tables, and the share of `active_secs` it may take.
const PASS_MIN: Duration = Duration::from_millis(500);
const PASS_SHARE: u32 = 4;
/// How often a collector that cannot be reached is looked up anew, and sent templates to find out whether it is back.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// A collector that is sent to and has not refused for so long is back: more than two tries.
const GOOD_AFTER: Duration = Duration::from_secs(12);
/// Longest that sending a message may take.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);
/// Longest that reporting flows may take when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// What was sent and what was not.
#[derive(Debug, Default)]
pub(super) struct Tally {
    messages: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    records_lost: AtomicU64,
    events_lost: AtomicU64,
    send_errors: AtomicU64,
    known: AtomicU64,
    is_up: AtomicBool,
}

impl Tally {
    /// What is told to monitoring.
    pub(super) fn facts(&self) -> IpfixFacts {
        IpfixFacts {
            messages: self.messages.load(Relaxed),
            records: self.records.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            records_lost: self.records_lost.load(Relaxed),
            events_lost: self.events_lost.load(Relaxed),
            send_errors: self.send_errors.load(Relaxed),
            known: self.known.load(Relaxed),
            is_up: self.is_up.load(Relaxed),
        }
    }
}

/// The running exporter. Dropping it reports what there is and stops.
#[derive(Debug)]
pub(super) struct Exporter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Starts it if there is a collector.
    pub(super) fn start(
        config: &IpfixConfig,
        plane: &Plane,
        backend: &Arc<LiveBackend>,
    ) -> Result<Option<Self>, Fatal> {
        let Some(collector) = config.collector.clone() else { return Ok(None) };
        let counts = Arc::new(Tally::default());
        backend.note_exporter(Arc::clone(&counts));
        let stop = Arc::new(AtomicBool::new(false));
        let mut work = Work {
            started: plane.started,
            regions: plane.workers.iter().map(|worker| Arc::clone(&worker.region)).collect(),
            interfaces: plane.ports.iter().map(|port| port.nic.ifindex).collect(),
            wall: Wall { tick: Tick::default(), micros: 0 },
            settings: backend.track_settings(),
            ledger: Ledger::new(config.active_secs, config.idle_secs),
            packer: Packer::new(config.observation_domain, config.message_bytes),
            line: Line::new(collector, counts),
            template_every: Duration::from_secs(u64::from(config.template_secs)),
            template_sent: None,
            batch_since: None,
        };
        // Slots of one table that a turn looks at: all of them, of both families, within a pass.
        let pass = (Duration::from_secs(u64::from(config.active_secs.min(config.idle_secs))) / PASS_SHARE)
            .max(PASS_MIN);
        let turns = u32::try_from(pass.as_millis() / TURN.as_millis()).unwrap_or(u32::MAX).max(1);
        let slots = backend.flows_max().div_ceil(turns).max(64) as usize * 2;
        let (backend, stopped) = (Arc::clone(backend), Arc::clone(&stop));
        let run = move || work.run(&backend, &stopped, slots, pass);
        let thread = std::thread::Builder::new().name("ipfix".to_owned()).spawn(run);
        let thread = thread.map_err(|source| Fatal::System { what: "starting a thread", source })?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the thread that sends flow records ended with a panic");
        }
    }
}

/// What the thread works with.
#[derive(Debug)]
struct Work {
    started: Instant,
    regions: Vec<Arc<Region>>,
    /// Index of each NIC, by [`PortId`].
    interfaces: Vec<u32>,
    /// What the clock on the wall shows at a tick, as of this turn.
    wall: Wall,
    settings: TrackSettings,
    ledger: Ledger,
    packer: Packer,
    line: Line,
    template_every: Duration,
    template_sent: Option<Instant>,
    /// Since when records wait to be sent.
    batch_since: Option<Instant>,
}

impl Work {
    fn run(&mut self, backend: &LiveBackend, stop: &AtomicBool, slots: usize, pass: Duration) {
        let ends = backend.keep_accounts();
        let cursors = vec![(Cursor::default(), false); self.regions.len()];
        let mut walk = Walk { cursors, began: Instant::now(), done: false };
        while !stop.load(Relaxed) {
            backend.collect_events();
            let (events, lost) = ends.take();
            self.line.counts.events_lost.fetch_add(lost, Relaxed);
            self.wall = backend.wall_now();
            self.settings = backend.track_settings();
            self.refresh_templates();
            let many = events.len() >= MANY;
            for event in events {
                let account = self.ledger.ended(&event.view, event.at.tick(), event.asked, &self.settings);
                self.report(&event.view, account);
            }
            self.walk(&mut walk, slots, pass);
            self.flush(FLUSH_AFTER);
            self.line.counts.known.store(self.ledger.len() as u64, Relaxed);
            if !many {
                std::thread::sleep(TURN);
            }
        }
        backend.collect_events();
        for event in ends.take().0 {
            let account = self.ledger.ended(&event.view, event.at.tick(), event.asked, &self.settings);
            self.report(&event.view, account);
        }
        self.take_leave();
    }

    /// Looks at some flows of every table.
    fn walk(&mut self, walk: &mut Walk, slots: usize, pass: Duration) {
        if walk.done {
            if walk.began.elapsed() < pass {
                return;
            }
            (walk.began, walk.done) = (Instant::now(), false);
        }
        let now = Now::since(self.started).tick();
        for (region, (cursor, is_through)) in self.regions.clone().iter().zip(&mut walk.cursors) {
            // One that is through waits for the others.
            if !*is_through {
                *cursor = region.walk_some(now, *cursor, slots, |view| self.look(view, now));
                *is_through = cursor.is_start();
            }
        }
        if walk.cursors.iter().all(|(_, is_through)| *is_through) {
            walk.cursors.fill((Cursor::default(), false));
            walk.done = true;
            self.ledger.end_pass();
        }
    }

    fn look(&mut self, view: &FlowView, now: Tick) {
        let account = self.ledger.look(view, now, &self.settings);
        self.report(view, account);
    }

    /// The daemon ends: flows that go on are reported a last time, as far as the time allows.
    fn take_leave(&mut self) {
        let (began, now) = (Instant::now(), Now::since(self.started).tick());
        for region in self.regions.clone() {
            let mut cursor = Cursor::default();
            while began.elapsed() < FAREWELL {
                cursor = region.walk_some(now, cursor, 4096, |view| {
                    let account = self.ledger.left(view, now, &self.settings);
                    self.report(view, account);
                });
                if cursor.is_start() {
                    break;
                }
            }
        }
        self.flush(Duration::ZERO);
    }

    fn report(&mut self, view: &FlowView, account: Option<Account>) {
        let Some(account) = account else { return };
        let record = self.record(view, &account);
        self.batch_since.get_or_insert_with(Instant::now);
        if let Some(full) = self.packer.push(&record, self.wall_secs()) {
            self.batch_since = Some(Instant::now());
            self.line.send(&full);
        }
    }

    fn record(&self, view: &FlowView, account: &Account) -> Record {
        let index = |port: Option<PortId>| {
            port.and_then(|port| self.interfaces.get(port.index()).copied()).unwrap_or(0)
        };
        Record {
            tuple: view.orig,
            bytes: account.bytes,
            packets: account.packets,
            start_ms: self.millis_at(account.start),
            end_ms: self.millis_at(account.end),
            interfaces: [index(view.ingress), index(view.ingress.map(PortId::peer))],
            reason: account.reason,
            flow_id: crate::api::flow_id(view),
        }
    }

    /// Sends what has waited for so long.
    fn flush(&mut self, after: Duration) {
        if self.batch_since.is_some_and(|since| since.elapsed() >= after) {
            self.batch_since = None;
            if let Some(message) = self.packer.finish(self.wall_secs()) {
                self.line.send(&message);
            }
        }
    }

    fn refresh_templates(&mut self) {
        self.line.look_up();
        let every = if self.line.refused.is_some() {
            RETRY_EVERY.min(self.template_every)
        } else {
            self.template_every
        };
        let is_due = self.template_sent.is_none_or(|sent| sent.elapsed() >= every);
        if self.line.socket.is_some() && (std::mem::take(&mut self.line.is_new) || is_due) {
            self.template_sent = Some(Instant::now());
            let templates = self.packer.templates(self.wall_secs());
            self.line.send(&templates);
        }
    }

    /// What the clock on the wall showed at a tick, or will, in milliseconds since 1970.
    fn millis_at(&self, then: Tick) -> u64 {
        let ticks = i64::from(then.0.wrapping_sub(self.wall.tick.0).cast_signed());
        let tick_micros = i64::try_from(TICK_NANOS / 1000).unwrap_or(i64::MAX);
        self.wall.micros.saturating_add_signed(ticks * tick_micros) / 1000
    }

    fn wall_secs(&self) -> u32 {
        u32::try_from(self.wall.micros / 1_000_000).unwrap_or(u32::MAX)
    }
}

/// How far a pass over the tables is.
struct Walk {
    /// Of each table: where to go on, and whether it is through.
    cursors: Vec<(Cursor, bool)>,
    began: Instant,
    done: bool,
}

/// The way to the collector.
#[derive(Debug)]
struct Line {
    collector: String,
    socket: Option<(UdpSocket, SocketAddr)>,
    /// Whether the collector has not been sent templates over this socket yet.
    is_new: bool,
    /// The collector being looked up: names can take their time.
    looking: Option<JoinHandle<io::Result<(UdpSocket, SocketAddr)>>>,
    looked_up: Option<Instant>,
    /// Records of the message before.
    before: u32,
    /// When it was last found that nobody is there, since that was told.
    refused: Option<Instant>,
    counts: Arc<Tally>,
}

impl Line {
    const fn new(collector: String, counts: Arc<Tally>) -> Self {
        Self {
            collector,
            socket: None,
            is_new: false,
            looking: None,
            looked_up: None,
            before: 0,
            refused: None,
            counts,
        }
    }

    /// Looks the collector up where there is no way to it, or none that works.
    fn look_up(&mut self) {
        if let Some(looked) = self.looking.take_if(|looking| looking.is_finished()) {
            let failed = |_| Err(io::Error::other("looking it up failed"));
            match looked.join().unwrap_or_else(failed) {
                // As known; a fresh socket would only forget what is wrong with it.
                Ok((_, addr)) if self.socket.as_ref().is_some_and(|(_, known)| *known == addr) => {}
                Ok(connected) => {
                    info!("flow records go to {} ({})", self.collector, connected.1);
                    self.is_new = true;
                    self.before = 0;
                    self.socket = Some(connected);
                    self.counts.is_up.store(self.refused.is_none(), Relaxed);
                }
                // Of a collector with a socket, what is sent says more.
                Err(_) if self.socket.is_some() => {}
                Err(error) => self.fail(&error),
            }
        }
        let is_time = self.looked_up.is_none_or(|at| at.elapsed() >= RETRY_EVERY);
        if is_time && self.looking.is_none() && (self.socket.is_none() || self.refused.is_some()) {
            self.looked_up = Some(Instant::now());
            let collector = self.collector.clone();
            let thread = std::thread::Builder::new().name("ipfix-lookup".to_owned());
            match thread.spawn(move || connect(&collector)) {
                Ok(looking) => self.looking = Some(looking),
                Err(_) if self.socket.is_some() => {}
                Err(error) => self.fail(&error),
            }
        }
    }

    /// Sends a message, or counts it as lost.
    fn send(&mut self, message: &Message) {
        let lost = |records: u32| self.counts.records_lost.fetch_add(u64::from(records), Relaxed);
        let Some((socket, _)) = &self.socket else {
            lost(message.records);
            return;
        };
        let before = std::mem::replace(&mut self.before, message.records);
        let mut sent = socket.send(&message.bytes);
        let mut refusal = None;
        if let Err(error) = sent.as_ref()
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            // Said of the message before: nothing was sent of this one yet.
            lost(before);
            refusal = Some(io::Error::from(error.kind()));
            sent = socket.send(&message.bytes);
        }
        match sent {
            Ok(_) => {
                self.counts.messages.fetch_add(1, Relaxed);
                self.counts.records.fetch_add(u64::from(message.records), Relaxed);
                self.counts.bytes.fetch_add(message.bytes.len() as u64, Relaxed);
            }
            Err(error) => {
                lost(message.records);
                self.before = 0;
                refusal = Some(error);
            }
        }
        match refusal {
            Some(error) => {
                self.counts.send_errors.fetch_add(1, Relaxed);
                self.fail(&error);
            }
            None if self.refused.is_some_and(|at| at.elapsed() >= GOOD_AFTER) => {
                self.refused = None;
                self.counts.is_up.store(true, Relaxed);
                info!("the collector {} takes flow records again", self.collector);
            }
            None => {}
        }
    }

    /// Tells once that the collector cannot be reached.
    fn fail(&mut self, error: &io::Error) {
        self.counts.is_up.store(false, Relaxed);
        if self.refused.replace(Instant::now()).is_none() {
            warn!(
                "the collector {} cannot be reached: {error}; flow records are lost and counted until it can (does it run, \
                 is ipfix.collector right?)",
                self.collector
            );
        }
    }
}

/// A socket to the collector.
fn connect(collector: &str) -> io::Result<(UdpSocket, SocketAddr)> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for addr in collector.to_socket_addrs()? {
        let any: SocketAddr = match addr {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let connected = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(addr)?;
            socket.set_write_timeout(Some(SEND_TIMEOUT))?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => return Ok((socket, addr)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_found_keeps_no_collector_down() {
        let collector = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let counts = Arc::new(Tally::default());
        // Nothing to be found by this name, now.
        let mut line = Line::new("no name".to_owned(), Arc::clone(&counts));
        line.socket = Some(connect(&collector.local_addr().unwrap().to_string()).unwrap());
        let refused = Instant::now().checked_sub(GOOD_AFTER);
        line.refused = refused;
        line.look_up();
        while line.looking.as_ref().is_some_and(|looking| !looking.is_finished()) {
            std::thread::sleep(Duration::from_millis(1));
        }
        line.look_up();
        assert_eq!(line.refused, refused);
        line.send(&Message { bytes: vec![0], records: 0 });
        assert!(line.refused.is_none() && counts.is_up.load(Relaxed));
    }
}
