//! A worker's free chunks. Belongs to the worker; no other thread touches it.
//!
//! Each chunk has a home, the worker whose pool it came from. A chunk freed elsewhere waits in `foreign` until the
//! worker sends it home, so that no pool runs dry however lopsided the traffic is.

use super::{Frame, HEADROOM, Umem};
use crate::ids::WorkerId;
use arrayvec::ArrayVec;
use std::sync::Arc;

/// Chunks of one other worker there is room for from the start.
const FOREIGN_ROOM: usize = 256;

/// Free chunks.
#[derive(Debug)]
pub struct FramePool {
    umem: Arc<Umem>,
    /// Our own chunks: the first of them, and how many there are.
    first: u32,
    count: u32,
    free: Vec<u32>,
    /// Chunks of other workers, by the worker they belong to.
    foreign: Box<[Vec<u32>]>,
}

impl FramePool {
    /// All chunks of one worker; none for a worker that the memory was not made for. Make one pool per worker, once: two
    /// would hand out the same chunks.
    #[must_use]
    pub fn new(umem: &Arc<Umem>, home: WorkerId) -> Self {
        let homes = umem.workers() as usize;
        let count = if home.index() < homes { umem.frames_per_worker() } else { 0 };
        let first = u32::from(home.0) * umem.frames_per_worker();
        let mut free = Vec::with_capacity(count as usize);
        free.extend((first..first + count).rev());
        // What ends here between two exchanges, if all goes well; more makes them grow once.
        let foreign = (0..homes).map(|_| Vec::with_capacity(FOREIGN_ROOM)).collect();
        Self { umem: Arc::clone(umem), first, count, free, foreign }
    }

    /// Chunks now free here, those of other workers included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.free.len() + self.foreign.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether no chunk is free here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes a chunk for the fill ring.
    #[inline]
    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Our own chunks that are free.
    #[inline]
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Chunks there are of ours, wherever they are.
    pub(crate) const fn own_count(&self) -> usize {
        self.count as usize
    }

    /// Whether a frame's chunks are ours.
    #[inline]
    pub(crate) fn is_own(&self, frame: &Frame) -> bool {
        self.umem.chunk(frame.addr).wrapping_sub(self.first) < self.count
    }

    /// Puts a chunk back that nobody else holds.
    #[inline]
    pub(super) fn put(&mut self, chunk: u32) {
        if chunk.wrapping_sub(self.first) < self.count {
            self.free.push(chunk);
        } else {
            self.foreign[self.umem.home(chunk).index()].push(chunk);
        }
    }

    /// Takes a frame back, all its chunks.
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "the frame ends here")]
    pub fn free(&mut self, frame: Frame) {
        if frame.segments == 1 {
            self.put(self.umem.chunk(frame.addr));
        } else {
            self.free_chain(&frame, 0);
        }
    }

    /// Puts back the chunks of a frame behind its first `keep` segments.
    fn free_chain(&mut self, frame: &Frame, keep: usize) {
        let mut chunks: ArrayVec<u32, { super::SEGMENTS_MAX }> = ArrayVec::new();
        chunks.extend(self.umem.segments(frame).skip(keep).map(|(addr, _)| self.umem.chunk(addr)));
        for chunk in chunks {
            self.put(chunk);
        }
    }

    /// Makes the first segment all there is, `len` bytes long: a frame whose packet was replaced by a short answer.
    ///
    /// # Panics
    /// If `len` does not fit the first chunk.
    #[expect(clippy::needless_pass_by_value, reason = "the frame ends here, another takes its place")]
    pub fn shorten(&mut self, frame: Frame, len: usize) -> Frame {
        let len = u32::try_from(len).expect("an answer fits its chunk");
        assert!(self.umem.contains(frame.addr, len), "an answer fits its chunk");
        if frame.segments > 1 {
            self.free_chain(&frame, 1);
        }
        self.umem.frame(frame.addr, len)
    }

    /// Cuts a packet to its first `len` bytes, and takes back the chunks behind them. Nothing to cut is no harm.
    pub fn truncate(&mut self, mut frame: Frame, len: usize) -> Frame {
        if let Ok(len) = u32::try_from(len)
            && len < frame.len
        {
            let kept = self.umem.cut(&mut frame, len);
            self.free_chain(&frame, kept as usize);
            frame.segments = kept;
        }
        frame
    }

    /// How many chunks of another worker's pool were freed here.
    #[inline]
    pub(crate) fn foreign_count(&self, home: WorkerId) -> usize {
        self.foreign.get(home.index()).map_or(0, Vec::len)
    }

    /// Takes them out, to send them home.
    pub(crate) fn foreign_of(&mut self, home: WorkerId) -> impl Iterator<Item = u32> {
        self.foreign.get_mut(home.index()).into_iter().flat_map(|chunks| chunks.drain(..))
    }

    /// Takes back chunks of our own that were sent home.
    pub(crate) fn take_back(&mut self, chunks: impl IntoIterator<Item = u32>) {
        self.free.extend(chunks);
    }

    /// A frame holding a copy of `packet`, over as many chunks as it takes; `None` if there are not enough.
    pub fn alloc_filled(&mut self, packet: &[u8]) -> Option<Frame> {
        let room = self.umem.payload_room() as usize;
        let pieces = packet.len().div_ceil(room).max(1);
        if pieces > self.free.len() || pieces > super::SEGMENTS_MAX {
            return None;
        }
        // No count of the `Arc` is touched: workers share its cache line.
        let Self { umem, free, .. } = self;
        let mut whole: Option<(Frame, u64)> = None;
        for piece in packet.chunks(room).chain(packet.is_empty().then_some(&[][..])) {
            let addr = umem.chunk_addr(free.pop()?) + u64::from(HEADROOM);
            let len = u32::try_from(piece.len()).unwrap_or(0);
            let mut single = umem.frame(addr, len);
            umem.buffer_mut(&mut single)[..piece.len()].copy_from_slice(piece);
            whole = Some(match whole {
                None => (single, addr),
                Some((mut frame, tail)) => {
                    umem.append(&mut frame, tail, addr, len);
                    (frame, addr)
                }
            });
        }
        whole.map(|(frame, _)| frame)
    }
}

#[cfg(test)]
mod tests {
    use super::super::UmemConfig;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packets_of_any_length_survive_and_every_chunk_comes_back(
            lens in proptest::collection::vec(0..30_000_usize, 1..20)
        ) {
            let umem = Umem::new(&UmemConfig::plain(200, 1)).unwrap();
            let mut pool = FramePool::new(&umem, WorkerId(0));
            let mut held = Vec::new();
            for len in lens {
                let packet: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
                let before = pool.len();
                if let Some(frame) = pool.alloc_filled(&packet) {
                    prop_assert_eq!(frame.len() as usize, len);
                    prop_assert_eq!(before - pool.len(), frame.segments() as usize);
                    let mut copy = Vec::new();
                    umem.copy_out(&frame, &mut copy);
                    prop_assert_eq!(copy, packet);
                    held.push(frame);
                }
            }
            for frame in held {
                pool.free(frame);
            }
            prop_assert_eq!(pool.len(), 200);
        }
    }

    #[test]
    fn foreign_chunks_are_kept_apart_and_go_home() {
        let umem = Umem::new(&UmemConfig::plain(4, 2)).unwrap();
        let mut pools = [WorkerId(0), WorkerId(1)].map(|worker| FramePool::new(&umem, worker));
        let frame = pools[0].alloc_filled(&[1; 3000]).unwrap();
        pools[1].free(frame);
        assert_eq!((pools[0].len(), pools[1].len()), (2, 6));
        assert_eq!(pools.each_ref().map(|pool| pool.foreign_count(WorkerId(0))), [0, 2]);
        let [home, elsewhere] = &mut pools;
        home.take_back(elsewhere.foreign_of(WorkerId(0)));
        assert_eq!((pools[0].len(), pools[1].len()), (4, 4));
    }

    proptest! {
        #[test]
        fn a_packet_cut_short_keeps_its_head_and_gives_back_the_rest(len in 1..20_000_usize, cut in 1..20_000_usize) {
            let umem = Umem::new(&UmemConfig::plain(16, 1)).unwrap();
            let mut pool = FramePool::new(&umem, WorkerId(0));
            let packet: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let frame = pool.alloc_filled(&packet).unwrap();
            let frame = pool.truncate(frame, cut);
            let kept = len.min(cut);
            let mut copy = Vec::new();
            umem.copy_out(&frame, &mut copy);
            prop_assert_eq!(&copy, &packet[..kept]);
            prop_assert_eq!(frame.len() as usize, kept);
            prop_assert_eq!(frame.segments() as usize, kept.div_ceil(umem.payload_room() as usize));
            prop_assert_eq!(umem.head(&frame).len(), kept.min(umem.payload_room() as usize));
            prop_assert_eq!(pool.len() + frame.segments() as usize, 16);
            pool.free(frame);
            prop_assert_eq!(pool.len(), 16);
        }
    }

    #[test]
    fn shortening_a_jumbo_frees_its_tail() {
        let umem = Umem::new(&UmemConfig::plain(8, 1)).unwrap();
        let mut pool = FramePool::new(&umem, WorkerId(0));
        let frame = pool.alloc_filled(&[7; 5000]).unwrap();
        assert_eq!(pool.len(), 5);
        let frame = pool.shorten(frame, 60);
        assert_eq!((frame.len(), frame.segments(), pool.len()), (60, 1, 7));
        pool.free(frame);
    }
}
