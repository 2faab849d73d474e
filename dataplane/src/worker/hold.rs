//! Packets that wait at a worker for a bucket's flows, while the bucket changes its worker. Worker thread only.
//!
//! Packets of one source stay in the order in which they came: first all wait, then those of sources that have been
//! released go on waiting in `due` until they can be sent, and what comes of these sources meanwhile waits behind them.
//!
//! A giver that loses its core for a while goes on with nothing, and what arrives meanwhile is as much as the links carry. So
//! a hold is bounded by frame memory and not by a number of packets: at most half of a worker's share, which leaves enough to
//! receive with and to lend (see [`crate::worker::handoff`]). Its lists have room for that from the start.

use crate::ids::{PortId, WorkerId};
use crate::packet::Packet;
use crate::worker::moves::bit;
use crate::xsk::Frame;
use std::collections::VecDeque;

/// A packet that waits for its flow.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The worker that sent it, or received it.
    pub(super) source: WorkerId,
    pub(super) frame: Frame,
    pub(super) packet: Packet,
    pub(super) ingress: PortId,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Hold {
    /// Those behind whose sources' words something may come that is older.
    closed: Vec<Waiting>,
    /// Those that may be judged.
    due: VecDeque<Waiting>,
    /// Chunks of all their frames, and the most there may be.
    chunks: usize,
    chunks_max: usize,
}

impl Hold {
    /// Room for packets of so many chunks together.
    pub(super) fn new(chunks_max: usize) -> Self {
        Self {
            closed: Vec::with_capacity(chunks_max),
            due: VecDeque::with_capacity(chunks_max),
            chunks: 0,
            chunks_max,
        }
    }

    /// Whether a frame may wait here.
    pub(super) const fn has_room(&self, frame: &Frame) -> bool {
        self.chunks + frame.segments() as usize <= self.chunks_max
    }

    /// Has a packet wait; `released` says whether its source has been released.
    pub(super) fn push(&mut self, waiting: Waiting, released: bool) {
        self.chunks += waiting.frame.segments() as usize;
        if released {
            self.due.push_back(waiting);
        } else {
            self.closed.push(waiting);
        }
    }

    /// Releases sources, one bit each: their packets are due behind those that are already, `first`'s before the others'.
    pub(super) fn release(&mut self, sources: u64, first: WorkerId) {
        let parts = [sources & bit(first), sources & !bit(first)];
        for some in parts.into_iter().filter(|some| *some != 0) {
            self.due.extend(self.closed.extract_if(.., |waiting| some & bit(waiting.source) != 0));
        }
    }

    /// The packet that is due next.
    pub(super) fn next(&self) -> Option<&Waiting> {
        self.due.front()
    }

    /// Takes it.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.due.pop_front()?;
        self.chunks -= waiting.frame.segments() as usize;
        Some(waiting)
    }

    /// Chunks of all frames that wait.
    pub(super) const fn chunks(&self) -> usize {
        self.chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xsk::{FramePool, Umem, UmemConfig};

    const GIVER: WorkerId = WorkerId(2);

    fn hold(pool: &mut FramePool, chunks_max: usize, sources: &[u8]) -> Hold {
        let mut hold = Hold::new(chunks_max);
        for (number, source) in (0..).zip(sources) {
            push(&mut hold, pool, *source, number, false);
        }
        hold
    }

    fn push(hold: &mut Hold, pool: &mut FramePool, source: u8, number: u8, released: bool) {
        let frame = pool.alloc_filled(&[0; 60]).unwrap();
        let packet = Packet { bucket: number, ..Packet::EMPTY };
        assert!(hold.has_room(&frame));
        hold.push(Waiting { source: WorkerId(source), frame, packet, ingress: PortId(0) }, released);
    }

    fn numbers(hold: &mut Hold, pool: &mut FramePool) -> Vec<u8> {
        std::iter::from_fn(|| {
            let Waiting { frame, packet, .. } = hold.pop()?;
            pool.free(frame);
            Some(packet.bucket)
        })
        .collect()
    }

    #[test]
    fn the_givers_packets_come_first_and_each_sources_in_order() {
        let umem = Umem::new(&UmemConfig::plain(64, 1)).unwrap();
        let mut pool = FramePool::new(&umem, WorkerId(0));
        let mut hold = hold(&mut pool, 64, &[0, 1, 2, 0, 1, 2, 0]);
        assert!(hold.next().is_none(), "nobody was released");
        hold.release(bit(WorkerId(0)) | bit(GIVER), GIVER);
        push(&mut hold, &mut pool, 0, 7, true);
        push(&mut hold, &mut pool, 1, 8, false);
        assert_eq!(hold.next().map(|waiting| waiting.packet.bucket), Some(2));
        assert_eq!(numbers(&mut hold, &mut pool), [2, 5, 0, 3, 6, 7]);
        hold.release(bit(WorkerId(1)), GIVER);
        assert_eq!(numbers(&mut hold, &mut pool), [1, 4, 8]);
        assert_eq!((hold.chunks(), pool.len()), (0, 64));
    }

    #[test]
    fn it_is_chunks_that_are_bounded() {
        let umem = Umem::new(&UmemConfig::plain(16, 1)).unwrap();
        let mut pool = FramePool::new(&umem, WorkerId(0));
        let mut hold = hold(&mut pool, 4, &[0, 0]);
        let jumbo = pool.alloc_filled(&[0; 4000]).unwrap();
        assert_eq!((jumbo.segments(), hold.has_room(&jumbo)), (3, false));
        pool.free(jumbo);
        let double = pool.alloc_filled(&[0; 3000]).unwrap();
        assert_eq!((double.segments(), hold.has_room(&double)), (2, true));
        let waiting = Waiting { source: GIVER, frame: double, packet: Packet::EMPTY, ingress: PortId(0) };
        hold.push(waiting, false);
        let single = pool.alloc_filled(&[0; 60]).unwrap();
        assert_eq!((hold.chunks(), hold.has_room(&single)), (4, false));
    }
}
