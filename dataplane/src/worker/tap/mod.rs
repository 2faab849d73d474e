//! Taps: looking at packets as they go by, for `fwctl capture` and `fwctl trace`. Control makes a [`Tap`], which says what it
//! wants to see and where, and hangs it into a snapshot; each worker that takes the snapshot up writes what fits into a ring
//! of its own of that tap. What finds the ring full is counted and not waited for.
//!
//! A worker without taps pays one branch per burst, and two for each packet that goes the long way. All else here is cold.
//!
//! Invariant: a seat's writer is with its worker from when that takes up the snapshot until it takes up one without the tap,
//! and with control before and after. So rings are made and freed by control.

mod drops;
mod filter;
mod ring;

pub use drops::{DROP_BYTES, DROPS_KEPT, Drop, DropLog};
pub use filter::{FILTER_MAX, Filter, FilterError, Instruction};
pub use ring::{Findings, FlowPart, STEPS_MAX, Sighting, TapReader, TapWriter, tap_rings};

pub(super) use drops::Judge;

use super::answers::AnswerBucket;
use super::counters::Counter;
use super::observer::Fate;
use super::snapshot::{AnswerRate, FamilyRules};
use crate::clock::Now;
use crate::ids::{PortId, WorkerId};
use crate::packet::Packet;
use crate::rules::model::RuleId;
use crate::rules::trace::Step;
use arrayvec::ArrayVec;
use ring::Steps;
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};

/// Most taps at one time.
pub const TAPS_MAX: usize = 8;

/// Most bytes of a frame that a tap keeps.
pub const SNAP_MAX: u32 = 65_536;

/// Bytes kept of a packet that is followed, from before any rule changed it.
const FOLLOW_BYTES: usize = 256;

/// Where on its way a packet is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Point {
    /// As it comes in, whatever it is.
    Rx = 1,
    /// Once it is known what becomes of it: as it leaves, changes by rules included, or as it was dropped.
    Verdict = 2,
    /// As it is put on a NIC's tx ring; answers to rejected packets too.
    Tx = 4,
}

impl Point {
    /// All points, in a packet's order.
    pub const ALL: [Self; 3] = [Self::Rx, Self::Verdict, Self::Tx];

    /// Its bit in [`TapSpec::points`].
    #[must_use]
    pub const fn bit(self) -> u8 {
        self as u8
    }

    /// The name it is asked for by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Verdict => "verdict",
            Self::Tx => "tx",
        }
    }
}

/// What a tap wants to see.
#[derive(Clone, Debug)]
pub struct TapSpec {
    /// Where, by [`Point::bit`].
    pub points: u8,
    /// Whether packets are followed through the rules: those that fit go the long way, and their steps are noted. Seen at
    /// [`Point::Verdict`], with their bytes as they came in; fragments as they leave.
    pub follows: bool,
    /// Which packets; all without.
    pub filter: Option<Filter>,
    /// Which NICs, by [`PortId`], one bit each.
    pub ports: u64,
    /// Only packets that were dropped, for these reasons, one bit each.
    pub reasons: Option<u64>,
    /// Only packets about which this rule decided.
    pub rule: Option<RuleId>,
    /// Bytes kept of each frame, [`SNAP_MAX`] at most.
    pub snap: u32,
    /// One in so many of those that fit, per worker; 1 is all.
    pub every: u32,
    /// At most so many a second, per worker; 0 is no limit.
    pub per_sec: u32,
}

const _: () = assert!(crate::reason::DROP_REASONS <= 64, "a word has a bit for every reason");

/// What one worker's share of a tap has counted.
#[derive(Debug, Default)]
pub struct TapCounters {
    /// Packets written down.
    pub taken: Counter,
    /// Packets that were wanted, and left out for `every` or `per_sec`.
    pub skipped: Counter,
    /// Packets lost because nobody had read those before.
    pub lost: Counter,
}

/// A tap.
#[derive(Debug)]
pub struct Tap {
    /// What it wants to see.
    pub spec: TapSpec,
    seats: Box<[Seat]>,
}

/// One worker's share of a tap.
#[derive(Debug)]
struct Seat {
    writer: Mutex<Option<TapWriter>>,
    counters: TapCounters,
}

impl Tap {
    /// A tap for as many workers as there are rings, `sightings` and `bytes` long each; and where to read.
    #[must_use]
    pub fn new(spec: TapSpec, workers: usize, sightings: usize, bytes: usize) -> (Self, Vec<TapReader>) {
        let (writers, readers): (Vec<_>, Vec<_>) = (0..workers).map(|_| tap_rings(sightings, bytes)).unzip();
        let seat = |writer| Seat { writer: Mutex::new(Some(writer)), counters: TapCounters::default() };
        (Self { spec, seats: writers.into_iter().map(seat).collect() }, readers)
    }

    /// What each worker has counted.
    pub fn counters(&self) -> impl Iterator<Item = &TapCounters> {
        self.seats.iter().map(|seat| &seat.counters)
    }
}

/// A tap that a worker writes to.
#[derive(Debug)]
struct Seated {
    tap: Arc<Tap>,
    at: usize,
    writer: TapWriter,
    bucket: AnswerBucket,
    /// How many that fit are left out before the next one is taken.
    to_skip: u32,
}

/// A packet to be looked at.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) at: Now,
    pub(super) point: Point,
    pub(super) port: PortId,
    pub(super) fate: Option<&'a Fate>,
    pub(super) judge: Judge,
    pub(super) bytes: &'a [u8],
    pub(super) frame_len: u32,
}

/// A worker's taps.
#[derive(Debug)]
pub(super) struct Taps {
    on: ArrayVec<Seated, TAPS_MAX>,
    /// Where any of them wants to see packets.
    points: u8,
    /// Which of them follow packets at all, one bit each.
    followers: u8,
    /// Which of them follow the packet being judged; `None` while none is.
    following: Option<u8>,
    findings: Option<Findings>,
    steps: RefCell<Steps>,
    has_more_steps: Cell<bool>,
    /// The packet being followed, as it came; nothing of a fragment, which may come last and leave first.
    came: ArrayVec<u8, FOLLOW_BYTES>,
}

impl Taps {
    pub(super) fn new() -> Self {
        Self {
            on: ArrayVec::new(),
            points: 0,
            followers: 0,
            following: None,
            findings: None,
            steps: RefCell::new(Steps::new()),
            has_more_steps: Cell::new(false),
            came: ArrayVec::new(),
        }
    }

    /// Whether there is any.
    #[inline]
    pub(super) const fn is_on(&self) -> bool {
        self.points != 0
    }

    /// Whether any wants to see packets there.
    pub(super) const fn watches(&self, point: Point) -> bool {
        self.points & point.bit() != 0
    }

    /// Whether any follows packets.
    pub(super) const fn follow(&self) -> bool {
        self.followers != 0
    }

    /// Takes up the taps of a new snapshot.
    pub(super) fn adopt(&mut self, taps: &[Arc<Tap>], worker: WorkerId) {
        let is_listed = |seated: &Seated| taps.iter().any(|tap| Arc::ptr_eq(tap, &seated.tap));
        for at in (0..self.on.len()).rev() {
            if !is_listed(&self.on[at]) {
                let Seated { tap, at, writer, .. } = self.on.remove(at);
                *tap.seats[at].writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
            }
        }
        for tap in taps {
            let Some(seat) = tap.seats.get(worker.index()) else { continue };
            if self.on.is_full() || self.on.iter().any(|seated| Arc::ptr_eq(tap, &seated.tap)) {
                continue;
            }
            let writer = seat.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(writer) = writer else { continue };
            let (tap, at) = (Arc::clone(tap), worker.index());
            self.on.push(Seated { tap, at, writer, bucket: AnswerBucket::default(), to_skip: 0 });
        }
        (self.points, self.followers) = (0, 0);
        for (at, Seated { tap, .. }) in self.on.iter().enumerate() {
            self.points |= tap.spec.points;
            self.followers |= u8::from(tap.spec.follows) << at;
        }
        (self.following, self.findings) = (None, None);
    }

    /// Between bursts.
    pub(super) fn refill(&mut self, now: Now) {
        for Seated { tap, bucket, .. } in &mut self.on {
            let per_sec = tap.spec.per_sec;
            bucket.refill(AnswerRate { per_sec, burst: per_sec }, now);
        }
    }

    /// Whether any would follow a packet.
    pub(super) fn would_follow(&self, bytes: &[u8], frame_len: u32, port: PortId) -> bool {
        let wants = |Seated { tap, .. }: &Seated| tap.spec.follows && tap.spec.fits(bytes, frame_len, port);
        self.follow() && self.on.iter().any(wants)
    }

    /// A packet is about to be judged. Whether it is followed.
    pub(super) fn begin(&mut self, bytes: &[u8], frame_len: u32, port: PortId) -> bool {
        let mut following = 0;
        for (at, seated) in self.on.iter_mut().enumerate() {
            let spec = &seated.tap.spec;
            if !spec.follows || !spec.fits(bytes, frame_len, port) {
                continue;
            }
            // What is wanted for its fate has its turn once that is known, or packets that pass would take the turns of the
            // few that are dropped. To follow one costs more than to judge it: none is where there are no turns left.
            let may_be_taken =
                if spec.is_about_fate() { !seated.bucket.is_empty() } else { seated.is_its_turn() };
            if may_be_taken {
                following |= 1 << at;
            }
        }
        self.following = Some(following);
        self.findings = None;
        self.steps.get_mut().clear();
        self.has_more_steps.set(false);
        self.came.clear();
        if following != 0 {
            self.came.extend(bytes.iter().copied().take(FOLLOW_BYTES));
        }
        following != 0
    }

    /// A step of the packet that is followed.
    pub(super) fn note_step(&self, step: Step) {
        // Nobody else holds them: steps are noted one at a time.
        let is_noted = self.steps.try_borrow_mut().is_ok_and(|mut steps| steps.try_push(step).is_ok());
        if !is_noted {
            self.has_more_steps.set(true);
        }
    }

    /// What was found out about it.
    pub(super) fn find(&mut self, findings: Findings) {
        let has_more_steps = self.has_more_steps.get();
        self.findings = Some(Findings { has_more_steps, ..findings });
    }

    /// It is a fragment, and others are dropped, or sent with it: each is shown as it is. Says who follows the datagram, for
    /// [`Self::go_on`].
    pub(super) fn set_aside(&mut self) -> Option<u8> {
        self.came.clear();
        self.following.take()
    }

    /// Back to the datagram.
    pub(super) const fn go_on(&mut self, following: Option<u8>) {
        self.following = following;
    }

    /// It was judged.
    pub(super) fn end(&mut self) {
        self.following = None;
    }

    /// Shows a packet that leaves by the express way, unchanged.
    pub(super) fn see_passing(
        &mut self,
        at: Now,
        packet: &Packet,
        bytes: &[u8],
        fate: &Fate,
        rules: &FamilyRules,
    ) {
        let judge = Judge::new(packet.family(), rules, fate.rule);
        let frame_len = packet.frame_len;
        let (point, port) = (Point::Verdict, fate.ingress);
        let verdict = Seen { at, point, port, fate: Some(fate), judge, bytes, frame_len };
        self.see(&verdict);
        self.see(&Seen { point: Point::Tx, port: port.peer(), fate: None, ..verdict });
    }

    /// Writes a packet down for all taps that want it.
    pub(super) fn see(&mut self, seen: &Seen<'_>) {
        let Self { on, following, findings, steps, came, .. } = self;
        for (at, seated) in on.iter_mut().enumerate() {
            let spec = &seated.tap.spec;
            if spec.points & seen.point.bit() == 0 || !spec.wants(seen) {
                continue;
            }
            let (follows, is_about_fate) = (spec.follows, spec.is_about_fate());
            match *following {
                Some(following) if follows && following & 1 << at != 0 => {
                    if !is_about_fate || seated.is_its_turn() {
                        let bytes = if came.is_empty() { seen.bytes } else { &**came };
                        seated.write(seen, *findings, steps.get_mut(), bytes);
                    }
                }
                // Its turn was looked at when it began to be judged.
                Some(_) if follows && !is_about_fate => {}
                // Dropped before it was judged, or a fragment of a datagram that is followed by its last one.
                _ => {
                    if spec.fits(seen.bytes, seen.frame_len, seen.port) && seated.is_its_turn() {
                        seated.write(seen, None, &[], seen.bytes);
                    }
                }
            }
        }
    }
}

impl TapSpec {
    /// Whether a packet may be wanted, by itself.
    fn fits(&self, bytes: &[u8], frame_len: u32, port: PortId) -> bool {
        self.ports & 1 << port.0 != 0
            && self.filter.as_ref().is_none_or(|filter| filter.passes(bytes, frame_len))
    }

    /// Whether packets are wanted for what becomes of them.
    const fn is_about_fate(&self) -> bool {
        self.reasons.is_some() || self.rule.is_some()
    }

    /// Whether it is wanted for what becomes of it.
    fn wants(&self, seen: &Seen<'_>) -> bool {
        let dropped = seen.fate.and_then(|fate| fate.dropped);
        self.reasons.is_none_or(|reasons| dropped.is_some_and(|reason| reasons & 1 << reason as u8 != 0))
            && self.rule.is_none_or(|rule| seen.judge.rule == Some(rule))
    }
}

impl Seated {
    /// Whether a packet that is wanted is to be written. Counts it if not.
    fn is_its_turn(&mut self) -> bool {
        let is_sampled = self.to_skip == 0;
        self.to_skip = if is_sampled { self.tap.spec.every.saturating_sub(1) } else { self.to_skip - 1 };
        let is_taken = is_sampled && self.bucket.take();
        if !is_taken {
            self.tap.seats[self.at].counters.skipped.add(1);
        }
        is_taken
    }

    fn write(&mut self, seen: &Seen<'_>, findings: Option<Findings>, steps: &[Step], bytes: &[u8]) {
        let Seen { at, point, port, fate, judge, frame_len, .. } = *seen;
        let sighting = Sighting {
            at,
            point,
            port,
            fate: fate.copied(),
            family: judge.family,
            since: judge.since,
            rule: judge.rule,
            findings,
            frame_len,
            kept: 0,
            steps: 0,
        };
        let bytes = &bytes[..bytes.len().min(self.tap.spec.snap as usize)];
        let TapCounters { taken, lost, .. } = &self.tap.seats[self.at].counters;
        if self.writer.write(&sighting, steps, bytes) { taken.add(1) } else { lost.add(1) }
    }
}
