//! From worker to worker: packets that arrived where their flow does not live, judged packets that another worker has to
//! send, and frames going home. Each worker owns its [`Handoff`]; what two of them share is rings.
//!
//! Every ordered pair of workers has two single-producer single-consumer rings: one carries packets (their frames, no bytes
//! copied), one carries foreign frames back to the worker whose pool they come from. What a burst has for one peer is
//! published at once and wakes it at most once.
//!
//! No pool runs dry, whatever the skew: a worker lends frames only while an eighth of its own are left to receive with
//! (`Path::may_lend`), what ends elsewhere goes home before its holder does anything else, and the return ring holds as
//! many frames as its reader's pool has, so it can never be full. The packet ring may be, and the packet is then dropped
//! with a reason; nobody ever waits. Packets of one flow take one ring there and, if another worker sends them, one ring
//! on, so their order is kept.

use super::counters::{Counter, HandoffCounters};
use super::idle::Waker;
use crate::clock::Now;
use crate::device::BURST_MAX;
use crate::ids::{PORTS_MAX, PortId, WORKERS_MAX, WorkerId};
use crate::packet::{Fragment, Packet};
use crate::xsk::{Frame, FramePool, PackedFrame, Umem};
use ::handoff::{Outbox, ring};
use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Packets one worker may have waiting at another.
const HANDOFF_RING: usize = 1024;

/// Frames that go home without waking the worker they belong to, which seldom waits for them.
const HOMEWARD_QUIET: usize = 32;

/// Why a packet goes from one worker to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HandoffCause {
    /// The NIC put it on another queue than that of its flow's owner.
    Misdirected,
    /// A fragment: on its way to where those of its datagram meet, or from there to the datagram's flow.
    Fragment,
    /// An ICMP error, on its way to the flow it is about.
    IcmpError,
    /// Its flow has moved to another worker after it was handed over.
    Moved,
    /// It was judged and leaves on a NIC of which its owner has no queue.
    Transmit,
}

/// How many causes there are.
pub const HANDOFF_CAUSES: usize = HandoffCause::ALL.len();

impl HandoffCause {
    /// Every cause, in counter order.
    pub const ALL: &'static [Self] =
        &[Self::Misdirected, Self::Fragment, Self::IcmpError, Self::Moved, Self::Transmit];

    /// Stable name: what `fwctl stats` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Misdirected => "misdirected",
            Self::Fragment => "fragment",
            Self::IcmpError => "icmp_error",
            Self::Moved => "moved",
            Self::Transmit => "transmit",
        }
    }
}

/// What another worker is to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Judge it.
    Judge(HandoffCause),
    /// Judge a fragment by itself: it is none to the tracker.
    JudgeAlone,
    /// Send it out of the other NIC of its wire.
    Forward,
    /// Send it out of the NIC the packet that it answers came in on.
    Answer,
}

impl Errand {
    /// Every errand, by the byte that stands for it on the way.
    const ALL: [Self; 8] = [
        Self::Judge(HandoffCause::Misdirected),
        Self::Judge(HandoffCause::Fragment),
        Self::Judge(HandoffCause::IcmpError),
        Self::Judge(HandoffCause::Moved),
        Self::Judge(HandoffCause::Transmit),
        Self::JudgeAlone,
        Self::Forward,
        Self::Answer,
    ];

    #[inline]
    const fn byte(self) -> u8 {
        match self {
            Self::Judge(cause) => cause as u8,
            Self::JudgeAlone => 5,
            Self::Forward => 6,
            Self::Answer => 7,
        }
    }

    const fn cause(self) -> HandoffCause {
        match self {
            Self::Judge(cause) => cause,
            Self::JudgeAlone => HandoffCause::Fragment,
            Self::Forward | Self::Answer => HandoffCause::Transmit,
        }
    }
}

/// What is said of a packet on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// Where it came in.
    pub(super) ingress: PortId,
    /// What is to be done with it.
    pub(super) errand: Errand,
    /// The bucket of its flow: a fragment by itself does not tell.
    pub(super) bucket: u8,
}

/// A packet on its way. Its taker parses it again: that costs 10 ns of work, and what was parsed would cost two cache lines
/// more that go from core to core, at 30 to 100 ns each. Four on their way share a line.
#[derive(Debug)]
pub(super) struct Parcel(PackedFrame);

impl Parcel {
    #[inline]
    fn new(frame: Frame, Label { ingress, errand, bucket }: Label) -> Self {
        Self(PackedFrame::new(frame, [ingress.0, errand.byte(), bucket]))
    }

    #[inline]
    pub(super) fn open(self) -> (Frame, Label) {
        let (frame, [ingress, errand, bucket]) = self.0.unpack();
        let errand = Errand::ALL[usize::from(errand) % Errand::ALL.len()];
        (frame, Label { ingress: PortId(ingress), errand, bucket })
    }
}

/// A burst that was taken over.
pub(super) type Parcels = ArrayVec<(Frame, Label), BURST_MAX>;

/// One worker's ends of all rings between it and one other worker.
#[derive(Debug)]
struct Peer {
    id: WorkerId,
    out: Outbox<Parcel>,
    coming: Consumer<Parcel>,
    homeward: Producer<u32>,
    homecoming: Consumer<u32>,
    waker: Arc<Waker>,
    /// Whether something was left for it since the last [`Handoff::flush`].
    has_news: bool,
    /// Packets staged since, by cause.
    given: [u64; HANDOFF_CAUSES],
    /// Frames sent home since the peer was last woken.
    quiet: usize,
    /// Most frames it is not woken for: peers together leave it half of its own.
    quiet_max: usize,
    /// When we last stamped what we gave, and what was given since.
    stamp: Arc<Stamp>,
    unstamped: u32,
    /// The same from the other side, and the last stamp that was looked at.
    stamp_coming: Arc<Stamp>,
    stamp_seen: u64,
}

/// When a burst was given, in nanoseconds, so that its taker can tell how long it was on its way. Written before the burst is
/// published, so whoever finds the burst finds the stamp, and of one burst in [`STAMP_EVERY`]: the line stays in the taker's cache.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Stamp(AtomicU64);

/// Bursts from one stamp to the next.
const STAMP_EVERY: u32 = 16;

/// One worker's connections to all others. Without any when there is one worker.
#[derive(Debug)]
pub struct Handoff {
    id: WorkerId,
    /// In worker order, without ourselves.
    peers: Vec<Peer>,
    /// Who sends out of a NIC for us, by [`PortId`].
    senders: [Option<WorkerId>; PORTS_MAX],
}

impl Handoff {
    /// Connects workers with each other: one [`Handoff`] per waker, in worker order. `frames_per_worker` is the
    /// size of each worker's pool.
    ///
    /// # Panics
    /// If there are more than [`WORKERS_MAX`].
    #[must_use]
    pub fn mesh(wakers: &[Arc<Waker>], frames_per_worker: usize) -> Vec<Self> {
        assert!(wakers.len() <= WORKERS_MAX, "at most {WORKERS_MAX} workers");
        let id = |index| WorkerId(u8::try_from(index).unwrap_or(u8::MAX));
        let lone = |index| Self { id: id(index), peers: Vec::new(), senders: [None; PORTS_MAX] };
        let mut mesh: Vec<Self> = (0..wakers.len()).map(lone).collect();
        let quiet_max = HOMEWARD_QUIET.min(frames_per_worker / 2 / wakers.len().max(1));
        for low in 0..wakers.len() {
            for high in low + 1..wakers.len() {
                let (up, from_below) = ring(HANDOFF_RING);
                let (down, from_above) = ring(HANDOFF_RING);
                let (home_up, home_from_below) = ring(frames_per_worker);
                let (home_down, home_from_above) = ring(frames_per_worker);
                let stamps = [Arc::<Stamp>::default(), Arc::default()];
                let peer = |other: usize, out, coming, homeward, homecoming| Peer {
                    stamp: Arc::clone(&stamps[usize::from(other == low)]),
                    unstamped: 0,
                    stamp_coming: Arc::clone(&stamps[usize::from(other == high)]),
                    stamp_seen: 0,
                    id: id(other),
                    out: Outbox::new(out),
                    coming,
                    homeward,
                    homecoming,
                    waker: Arc::clone(&wakers[other]),
                    has_news: false,
                    given: [0; HANDOFF_CAUSES],
                    quiet: 0,
                    quiet_max,
                };
                mesh[low].peers.push(peer(high, up, from_above, home_up, home_from_above));
                mesh[high].peers.push(peer(low, down, from_below, home_down, home_from_below));
            }
        }
        mesh
    }

    /// Tells workers who sends out of which NIC, given the NICs that each of them has queues of. One without a queue of a
    /// NIC always goes to the same other worker, so that packets keep their order; workers share those that have one.
    pub fn share_lanes(mesh: &mut [Self], lanes: &[Vec<PortId>]) {
        for port in (0..).map(PortId).take(PORTS_MAX) {
            let having: Vec<_> = (0..)
                .map(WorkerId)
                .zip(lanes)
                .filter(|(_, ports)| ports.contains(&port))
                .map(|(id, _)| id)
                .collect();
            for (index, handoff) in mesh.iter_mut().enumerate().filter(|_| !having.is_empty()) {
                handoff.senders[port.index()] = Some(having[index % having.len()]);
            }
        }
    }

    /// Which other worker sends out of a NIC for us.
    #[inline]
    pub(super) const fn sender(&self, port: PortId) -> Option<WorkerId> {
        self.senders[port.index()]
    }

    #[inline]
    fn peer(&mut self, id: WorkerId) -> Option<&mut Peer> {
        let at = id.index().checked_sub(usize::from(id > self.id))?;
        self.peers.get_mut(at).filter(|peer| peer.id == id)
    }

    /// Gives a packet to another worker, who gets it with the rest of the burst.
    ///
    /// # Errors
    /// Gives it back when that worker has too many waiting already.
    #[inline]
    pub(super) fn hand(&mut self, to: WorkerId, frame: Frame, label: Label) -> Result<(), Frame> {
        let Some(peer) = self.peer(to) else { return Err(frame) };
        peer.out.stage(Parcel::new(frame, label)).map_err(|parcel| parcel.open().0)?;
        peer.given[label.errand.cause() as usize] += 1;
        peer.has_news = true;
        Ok(())
    }

    /// Whether another worker can be given a packet more.
    pub(super) fn has_room(&self, to: WorkerId) -> bool {
        self.peers.iter().any(|peer| peer.id == to && peer.out.room() > 0)
    }

    /// Packets given to another worker that [`HandoffCounters`] do not count yet.
    pub(super) fn staged_for(&self, to: WorkerId) -> u64 {
        let peer = self.peers.iter().find(|peer| peer.id == to);
        peer.map_or(0, |peer| peer.given.iter().sum())
    }

    /// Has another worker woken with the next [`Self::flush`]: something that is no packet was left for it.
    pub(super) fn nudge(&mut self, to: WorkerId) {
        if let Some(peer) = self.peer(to) {
            peer.has_news = true;
        }
    }

    /// Which worker that is, by its position among the others.
    #[inline]
    pub(super) fn peer_id(&self, peer: usize) -> WorkerId {
        self.peers[peer].id
    }

    /// How many other workers there are.
    pub(super) fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// How many packets one of them has waiting for us.
    #[inline]
    pub(super) fn waiting(&self, peer: usize) -> usize {
        self.peers[peer].coming.slots()
    }

    /// Takes a burst from one of them, in order.
    pub(super) fn take(
        &mut self,
        peer: usize,
        now: Now,
        counters: &HandoffCounters,
        umem: &Umem,
        burst: &mut Parcels,
    ) {
        let Peer { id, coming, stamp_coming, stamp_seen, .. } = &mut self.peers[peer];
        let Ok(parcels) = coming.read_chunk(coming.slots().min(BURST_MAX)) else { return };
        let mut taken = [0; HANDOFF_CAUSES];
        for parcel in parcels {
            let (frame, label) = parcel.open();
            // Its headers lie in the giver's cache.
            umem.prefetch(&frame);
            taken[label.errand.cause() as usize] += 1;
            burst.push((frame, label));
        }
        count(&counters.taken, &counters.peers[id.index()].taken, taken);
        if !burst.is_empty() {
            counters.bursts.record(burst.len() as u64);
            let given = stamp_coming.0.load(Ordering::Relaxed);
            if given != *stamp_seen {
                *stamp_seen = given;
                counters.wait_nanos.record(now.nanos.saturating_sub(given));
            }
        }
    }

    /// Publishes what was staged, and wakes every worker that sleeps and was given something.
    pub(super) fn flush(&mut self, now: Now, counters: &HandoffCounters) {
        for peer in &mut self.peers {
            if std::mem::take(&mut peer.has_news) {
                if peer.unstamped == 0 {
                    peer.unstamped = STAMP_EVERY;
                    peer.stamp.0.store(now.nanos, Ordering::Relaxed);
                }
                peer.unstamped -= 1;
                peer.out.publish();
                let given = std::mem::take(&mut peer.given);
                count(&counters.out, &counters.peers[peer.id.index()].out, given);
                peer.quiet = 0;
                peer.waker.wake();
            }
        }
    }

    /// Sends frames home that ended here, and takes our own back.
    pub(super) fn exchange_frames(&mut self, pool: &mut FramePool) {
        for peer in &mut self.peers {
            if let Ok(chunks) = peer.homecoming.read_chunk(peer.homecoming.slots()) {
                pool.take_back(chunks);
            }
            let count = pool.foreign_count(peer.id);
            if count == 0 {
                continue;
            }
            let places = peer.homeward.write_chunk_uninit(count);
            let places = places.expect("the return ring holds every frame of its home");
            places.fill_from_iter(pool.foreign_of(peer.id));
            peer.quiet += count;
            if peer.quiet > peer.quiet_max {
                peer.quiet = 0;
                peer.waker.wake();
            }
        }
    }

    /// Whether no other worker has left anything for us.
    pub(super) fn is_empty(&self) -> bool {
        self.peers.iter().all(|peer| peer.coming.is_empty() && peer.homecoming.is_empty())
    }

    /// Chunks on their way to this worker, packets and frames that come home, and those staged for others: for the frame
    /// accounting.
    pub(super) fn frames_under_way(&mut self) -> usize {
        let of_parcel = |parcel: &Parcel| parcel.0.segments();
        let of_peer = |peer: &mut Peer| {
            let mut staged = 0;
            peer.out.look(|parcel| staged += of_parcel(parcel));
            let waiting = peer.coming.read_chunk(peer.coming.slots());
            let coming: usize = waiting.map_or(0, |parcels| {
                let (first, second) = parcels.as_slices();
                first.iter().chain(second).map(of_parcel).sum()
            });
            staged + coming + peer.homecoming.slots()
        };
        self.peers.iter_mut().map(of_peer).sum()
    }
}

/// Counts a burst, by cause and for its peer.
fn count(causes: &[Counter; HANDOFF_CAUSES], peer: &Counter, burst: [u64; HANDOFF_CAUSES]) {
    causes.iter().zip(burst).for_each(|(counter, packets)| counter.add(packets));
    peer.add(burst.iter().sum());
}

/// Why a packet has to leave for its owner; `is_error` says whether it is an ICMP error about a flow.
pub(super) const fn cause(packet: &Packet, is_error: bool) -> HandoffCause {
    match packet.fragment {
        Fragment::Whole if is_error => HandoffCause::IcmpError,
        Fragment::Whole => HandoffCause::Misdirected,
        Fragment::First | Fragment::Later => HandoffCause::Fragment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errand_arrives_as_itself() {
        for (byte, errand) in Errand::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(errand.byte()), byte);
        }
        assert_eq!(Errand::ALL.len(), HANDOFF_CAUSES + 3, "a cause more is an errand more");
    }
}
