//! From worker to worker: packets that arrived where their flow does not live, and frames going home.
//!
//! Every ordered pair of workers has two single-producer single-consumer rings: one carries packets (the frame and
//! what was parsed, no bytes copied) to the flow's owner, one carries foreign frames back to the worker whose pool
//! they come from, so that no pool runs dry whatever the skew. The packet ring may fill, and the packet is then
//! dropped with a reason; the return ring holds as many frames as its reader's pool has and so can never be full.
//! Packets of one flow take one ring, so their order is kept.

use super::idle::Waker;
use crate::ids::{PortId, WorkerId};
use crate::packet::Packet;
use crate::xsk::Frame;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;

/// Packets one worker may have waiting at another.
const HANDOFF_RING: usize = 1024;

/// A packet on its way to its owner.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) frame: Frame,
    pub(super) packet: Packet,
    pub(super) ingress: PortId,
}

/// One worker's ends of all rings between it and one other worker.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: WorkerId,
    pub(super) packets_out: Producer<Handed>,
    pub(super) packets_in: Consumer<Handed>,
    pub(super) homeward: Producer<Frame>,
    pub(super) homecoming: Consumer<Frame>,
    waker: Arc<Waker>,
    /// Whether `packets_out` or `homeward` got something since the last [`Handoff::flush`].
    dirty: bool,
}

/// One worker's connections to all others. Empty when there is one worker.
#[derive(Debug, Default)]
pub struct Handoff {
    pub(super) peers: Vec<Peer>,
}

impl Handoff {
    /// Connects workers with each other: one [`Handoff`] per waker, in worker order. `frames_per_worker` is the
    /// size of each worker's pool.
    #[must_use]
    pub fn mesh(wakers: &[Arc<Waker>], frames_per_worker: usize) -> Vec<Self> {
        let mut mesh: Vec<Self> = wakers.iter().map(|_| Self::default()).collect();
        for low in 0..wakers.len() {
            for high in low + 1..wakers.len() {
                let (up_tx, up_rx) = RingBuffer::new(HANDOFF_RING);
                let (down_tx, down_rx) = RingBuffer::new(HANDOFF_RING);
                let (up_home, up_coming) = RingBuffer::new(frames_per_worker);
                let (down_home, down_coming) = RingBuffer::new(frames_per_worker);
                mesh[low].peers.push(Peer::new(high, up_tx, down_rx, up_home, down_coming, &wakers[high]));
                mesh[high].peers.push(Peer::new(low, down_tx, up_rx, down_home, up_coming, &wakers[low]));
            }
        }
        mesh
    }

    /// The rings to `owner`.
    #[inline]
    pub(super) fn to(&mut self, owner: WorkerId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.id == owner)
    }

    /// Chunks that other workers have sent home and this one has not taken yet, for the frame accounting.
    pub(super) fn frames_coming_home(&mut self) -> usize {
        let coming = |peer: &mut Peer| {
            let waiting = peer.homecoming.slots();
            let Ok(chunk) = peer.homecoming.read_chunk(waiting) else { return 0 };
            let (first, second) = chunk.as_slices();
            first.iter().chain(second).map(|frame| frame.segments() as usize).sum()
        };
        self.peers.iter_mut().map(coming).sum()
    }

    /// Wakes every worker that sleeps and was given something.
    pub(super) fn flush(&mut self) {
        for peer in &mut self.peers {
            if std::mem::take(&mut peer.dirty) {
                peer.waker.wake();
            }
        }
    }
}

impl Peer {
    fn new(
        id: usize,
        packets_out: Producer<Handed>,
        packets_in: Consumer<Handed>,
        homeward: Producer<Frame>,
        homecoming: Consumer<Frame>,
        waker: &Arc<Waker>,
    ) -> Self {
        let id = WorkerId(u8::try_from(id).expect("at most 64 workers"));
        Self { id, packets_out, packets_in, homeward, homecoming, waker: Arc::clone(waker), dirty: false }
    }

    /// Gives a packet to its owner.
    ///
    /// # Errors
    /// Gives it back when the owner has too many waiting already.
    #[expect(clippy::result_large_err, reason = "what did not fit goes back to its owner, by value")]
    pub(super) fn hand(&mut self, handed: Handed) -> Result<(), Handed> {
        self.dirty = true;
        self.packets_out.push(handed).map_err(|rtrb::PushError::Full(back)| back)
    }

    /// Has the worker woken with the next [`Handoff::flush`]: something else was left for it.
    pub(super) const fn nudge(&mut self) {
        self.dirty = true;
    }

    /// Sends a frame back to the pool it comes from.
    ///
    /// # Panics
    /// If the ring is full, which would mean that more frames of one home exist than were made.
    pub(super) fn send_home(&mut self, frame: Frame) {
        self.dirty = true;
        assert!(self.homeward.push(frame).is_ok(), "the return ring holds every frame of its home");
    }
}
