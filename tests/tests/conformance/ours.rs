//! Our side of every scenario, and the one place where gateways are made: the one worker that the kernel judges, and beside
//! it gateways of two, four and eight workers. They get the same frames at the same moments, each frame at a worker drawn by
//! lot (`PALISADE_SEED`), whoever owns its flow, and everything that becomes of them must be the same: verdicts, states,
//! frames and answers of each packet, then events, connections, expectations and counters. What differs is said, and
//! fails the test, when the gateways end.

use super::hear::{self, Line};
use super::random::{Random, seed};
use super::{list, log};
use control::cli::Output;
use control::sets::Store;
use control::sets::file::services;
use dataplane::clock::Now;
use dataplane::flow::{FlowEvent, Listening, Request, TrackStats};
use dataplane::ids::PortId;
use dataplane::packet::Family;
use dataplane::reason::DropReason;
use dataplane::rules::model::Ruleset;
use dataplane::testing::gateway::{Gateway, GatewayConfig, LEFT, Outcome, RIGHT};
use dataplane::worker::Fate;
use rtrb::{Consumer, RingBuffer};
use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How many workers the other gateways have.
const WORKERS: [usize; 3] = [2, 4, 8];

/// Differences that are told of one gateway.
const TOLD: usize = 8;

/// Packets that a ring between two workers holds.
const HANDOFF_RING: usize = 1024;

/// Events that may wait to be written down.
const EVENTS: usize = 1 << 14;

/// Gateways that differ only in the number of their workers.
#[derive(Debug)]
pub(crate) struct Ours {
    /// The one with one worker first.
    sides: Vec<Side>,
    random: Random,
    frames: u64,
    differences: Vec<String>,
}

#[derive(Debug)]
struct Side {
    gateway: Gateway,
    /// Sets that its rules name: those that change them are its own too.
    sets: Store,
    events: Vec<Consumer<FlowEvent>>,
    /// Lines of events since the last comparison.
    heard: Vec<String>,
}

impl Side {
    fn workers(&self) -> usize {
        self.gateway.workers.len()
    }

    /// Takes down what was told since the last time.
    fn hear(&mut self) -> Vec<FlowEvent> {
        let events: Vec<_> =
            self.events.iter_mut().flat_map(|ring| std::iter::from_fn(|| ring.pop().ok())).collect();
        self.heard.extend(events.iter().map(|event| hear::line(event, &Output::default())));
        events
    }
}

impl Ours {
    /// Gateways with these rules, which are made anew for each: what rules count goes with them.
    #[must_use]
    pub(crate) fn new(rules: impl Fn() -> Vec<Ruleset>, config: &GatewayConfig) -> Self {
        Self::with_sets("", Instant::now(), |_| rules(), config)
    }

    /// The same, with sets that rules may name, as `ipset save` prints them. Clocks begin at one second, at `started`.
    #[must_use]
    pub(crate) fn with_sets(
        sets: &str,
        started: Instant,
        rules: impl Fn(&Store) -> Vec<Ruleset>,
        config: &GatewayConfig,
    ) -> Self {
        let side = |workers| {
            let store = Store::new(&["left".to_owned(), "right".to_owned()]);
            store.restore(sets.as_bytes(), false, &services()).unwrap();
            store.start_clock(started.checked_sub(Duration::from_secs(1)).unwrap());
            let gateway = Gateway::new(&rules(&store), GatewayConfig { workers, ..config.clone() }).unwrap();
            Side { gateway, sets: store, events: Vec::new(), heard: Vec::new() }
        };
        Self {
            sides: std::iter::once(1).chain(WORKERS).map(side).collect(),
            random: Random(seed() | 1),
            frames: 0,
            differences: Vec::new(),
        }
    }

    /// The gateway that the kernel judges, for reading.
    pub(crate) fn one(&mut self) -> &mut Gateway {
        &mut self.sides[0].gateway
    }

    /// Reads the same off all gateways, which must be equal. The first one's.
    pub(crate) fn read<T: PartialEq + Debug>(
        &mut self,
        what: impl Display,
        mut read: impl FnMut(&mut Gateway) -> T,
    ) -> T {
        self.read_sides(what, |side| read(&mut side.gateway))
    }

    fn read_sides<T: PartialEq + Debug>(
        &mut self,
        what: impl Display,
        mut read: impl FnMut(&mut Side) -> T,
    ) -> T {
        let mut of = self.sides.iter_mut().map(|side| (side.workers(), read(side)));
        let (_, one) = of.next().expect("one worker is always there");
        for (workers, many) in of {
            if many != one {
                self.differences.push(format!("{workers} workers, {what}: {many:?}\n  one: {one:?}"));
            }
        }
        one
    }

    /// Sends a frame into one side.
    pub(crate) fn send(&mut self, side: PortId, frame: &[u8]) -> Outcome {
        self.frames += 1;
        let lot = usize::try_from(self.random.below(840)).unwrap();
        let number = self.frames;
        let mut short = Vec::new();
        let outcome = self.read(format_args!("frame {number} from {side:?}, {frame:02x?}"), |gateway| {
            let mut outcome = gateway.send_via(lot % gateway.workers.len(), side, frame);
            short.push(is_out_of_rings(&outcome));
            // Between datagrams given up there is no order.
            outcome.released.sort_by_key(|released| released.number);
            outcome
        });
        // The kernel does it while the packet passes.
        self.read_sides("orders about sets", |side| {
            let asks = side.gateway.set_asks();
            asks.iter().for_each(|ask| side.sets.carry_out(ask));
            asks.iter().map(|ask| format!("{ask:?}")).collect::<Vec<_>>()
        });
        if short.contains(&true) {
            let mut short = short.iter();
            self.sides.retain(|_| short.next() != Some(&true));
            // What they said to this frame is the difference that is known.
            self.differences.retain(|said| !said.contains(&format!("frame {number} ")));
        }
        outcome
    }

    /// Lines of the log since the last time.
    pub(crate) fn log(&mut self) -> Vec<String> {
        self.read("lines of the log", |gateway| {
            gateway.notes.iter_mut().flat_map(log::ours).collect::<Vec<_>>()
        })
    }

    /// Changes the sets of all.
    pub(crate) fn change_sets(&mut self, commands: &str) {
        for side in &self.sides {
            side.sets.restore(commands.as_bytes(), false, &services()).unwrap();
        }
    }

    /// What is in the sets, line by line.
    pub(crate) fn sets(&mut self) -> Vec<String> {
        self.read_sides("sets", |side| {
            list::lines_of_sets(&side.sets.command(b"save", &services()).unwrap().text)
        })
    }

    /// Turns all clocks to `now`.
    pub(crate) fn set_clock(&mut self, now: Now) {
        self.sides.iter_mut().for_each(|side| side.gateway.set_clock(now));
    }

    /// Removes what has expired.
    pub(crate) fn age(&mut self) {
        self.sides.iter_mut().for_each(|side| side.gateway.age());
    }

    /// Forgets all connections.
    pub(crate) fn flush(&mut self) {
        for side in &mut self.sides {
            for worker in 0..side.workers() {
                side.gateway.ask(worker, Request::Flush).expect("there is room for one request");
            }
        }
        self.age();
    }

    /// From here on all tell what happens to flows.
    pub(crate) fn listen(&mut self) {
        for side in &mut self.sides {
            let listening = Arc::new(Listening::default());
            listening.on.store(true, Relaxed);
            for worker in &mut side.gateway.workers {
                let (out, events) = RingBuffer::new(EVENTS);
                worker.tracker_mut().report_to(out, Arc::clone(&listening));
                side.events.push(events);
            }
        }
        // A poll looks up that somebody listens.
        self.age();
    }

    /// What the one worker has told since the last time.
    pub(crate) fn hear(&mut self) -> Vec<FlowEvent> {
        let mut heard = self.sides.iter_mut().map(Side::hear);
        let one = heard.next().unwrap_or_default();
        heard.for_each(drop);
        one
    }

    /// Compares what has become of all frames together.
    fn compare(&mut self) {
        self.hear();
        let mut heard: Vec<BTreeMap<String, Vec<Line>>> =
            self.sides.iter_mut().map(|side| hear::by_flow(&std::mem::take(&mut side.heard))).collect();
        heard.reverse();
        // Between flows there is no order.
        self.read("events", |_| heard.pop());
        for family in [Family::V4, Family::V6] {
            self.read(format_args!("{family:?} connections"), |gateway| {
                sorted(&list::our_text(gateway, family, &Output::default()))
            });
            self.read(format_args!("{family:?} expectations"), |gateway| {
                sorted(&list::our_expectations(gateway, family))
            });
            self.read(format_args!("{family:?} rule counters"), |gateway| rule_counters(gateway, family));
        }
        self.sets();
        self.read("counters of NICs", port_counters);
        self.read("counters of connection tracking", track_counters);
        for side in &mut self.sides {
            assert_eq!(side.gateway.frames_accounted(), side.gateway.frames_total(), "no frame is missing");
        }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.compare();
        let (count, frames) = (self.differences.len(), self.frames);
        self.differences.truncate(TOLD);
        assert!(count == 0, "{count} differences in {frames} frames:\n{}", self.differences.join("\n"));
    }
}

/// Whether a datagram had more pieces than fit the ring to the worker that owns its flow: the one difference by which a
/// gateway leaves the comparison.
fn is_out_of_rings(outcome: &Outcome) -> bool {
    let is_full = |fate: Fate| fate.dropped == Some(DropReason::HandoffFull);
    outcome.released.len() > HANDOFF_RING && outcome.released.iter().any(|released| is_full(released.fate))
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Packets and bytes of every line, all workers together.
fn rule_counters(gateway: &mut Gateway, family: Family) -> Vec<(u64, u64)> {
    let snapshot = gateway.mailbox.newest();
    let rules = snapshot.rules(family);
    let mut sums = Vec::new();
    for counters in &rules.counters {
        let totals = counters.totals();
        sums.resize(totals.len(), (0, 0));
        for (sum, (packets, bytes)) in sums.iter_mut().zip(totals) {
            *sum = (sum.0 + packets, sum.1 + bytes);
        }
    }
    sums
}

/// What came, went, was answered and dropped for which reason, by side.
fn port_counters(gateway: &mut Gateway) -> Vec<Vec<(u64, u64)>> {
    let of = |side: PortId| -> Vec<(u64, u64)> {
        let mut sums = Vec::new();
        for counters in &gateway.counters {
            let port = counters.port(side);
            let volumes = [&port.rx, &port.forwarded, &port.answers].into_iter().chain(&port.drops);
            for (at, volume) in volumes.enumerate() {
                sums.resize(sums.len().max(at + 1), (0, 0));
                let sum: &mut (u64, u64) = &mut sums[at];
                *sum = (sum.0 + volume.packets.get(), sum.1 + volume.bytes.get());
            }
        }
        sums
    };
    [LEFT, RIGHT].map(of).to_vec()
}

/// What `conntrack -S` would say.
fn track_counters(gateway: &mut Gateway) -> Vec<u64> {
    let mut sums = Vec::new();
    for worker in &mut gateway.workers {
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
        } = *worker.tracker_mut().stats();
        let all = [found, untracked, related, insert, insert_failed, drop, early_drop, expired, delete];
        let all = all.into_iter().chain(invalid);
        sums = all.enumerate().map(|(at, count)| count + sums.get(at).copied().unwrap_or(0)).collect();
    }
    sums
}
