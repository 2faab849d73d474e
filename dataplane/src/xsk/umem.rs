//! The memory frames live in: one region for the process, cut into chunks of equal size.
//!
//! Shared by all threads. Whoever holds a [`Frame`] holds its chunks, and only that holder reads or writes them; frames
//! cross threads through rings whose release and acquire order the bytes. The links of jumbo packets are plain relaxed
//! atomics under the same rule.

use super::{Frame, HEADROOM, XskError};
use crate::ids::WorkerId;
use crate::pages::{HUGE_PAGE_BYTES, Mapping};
use crate::prefetch::{NEAR, prefetch};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// What the region is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// 2 MiB pages from the pool.
    HugePages,
    /// Ordinary pages; the kernel may merge them into huge ones.
    Pages,
}

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UmemConfig {
    /// Bytes per chunk: 2048 or 4096.
    pub frame_size: u32,
    /// Chunks per worker.
    pub frames_per_worker: u32,
    /// How many workers share the region.
    pub workers: u32,
    /// Whether to use 2 MiB pages: `None` if there are any, `Some(true)` or fail, `Some(false)` never.
    pub hugepages: Option<bool>,
}

impl UmemConfig {
    /// Ordinary pages and 2 KiB chunks, for loopback devices.
    #[must_use]
    pub const fn plain(frames_per_worker: u32, workers: u32) -> Self {
        Self { frame_size: 2048, frames_per_worker, workers, hugepages: Some(false) }
    }
}

/// Where the next chunk of a jumbo packet is. Belongs to whoever holds the chunk it is indexed by.
#[derive(Debug, Default)]
struct Link {
    /// Offset of the next segment's first byte.
    addr: AtomicU64,
    /// Its bytes; zero if there is no next segment.
    len: AtomicU32,
}

/// The region.
#[derive(Debug)]
pub struct Umem {
    base: NonNull<u8>,
    memory: Mapping,
    frame_shift: u32,
    frames_per_worker: u32,
    links: Box<[Link]>,
    backing: Backing,
}

// SAFETY: the region is plain memory that lives as long as the value; access to a chunk goes through the one `Frame`
// that names it, so two threads never touch the same bytes at once.
unsafe impl Send for Umem {}
// SAFETY: as above; `&Umem` gives out bytes only against a `Frame`.
unsafe impl Sync for Umem {}

/// An offset as a pointer offset. AF_XDP's offsets are 64 bits; ours lie within a mapping, so they fit.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "offsets into a mapping fit a pointer")]
const fn at(addr: u64) -> usize {
    addr as usize
}

impl Umem {
    /// Maps the region.
    ///
    /// # Errors
    /// If there is no memory, or no huge pages and they were demanded.
    pub fn new(config: &UmemConfig) -> Result<Arc<Self>, XskError> {
        if !matches!(config.frame_size, 2048 | 4096) {
            return Err(XskError::FrameSize { frame_size: config.frame_size });
        }
        let chunks = config.frames_per_worker as usize * config.workers as usize;
        let bytes = (chunks * config.frame_size as usize).next_multiple_of(HUGE_PAGE_BYTES);
        let huge = match config.hugepages {
            Some(false) => None,
            _ => Mapping::from_pool(bytes).ok(),
        };
        let (memory, backing) = match huge {
            Some(memory) => (memory, Backing::HugePages),
            None if config.hugepages == Some(true) => {
                let hint = "Reserve 2 MiB pages (sysctl vm.nr_hugepages) or set umem.hugepages to auto";
                return Err(XskError::Memory { bytes, source: io::Error::last_os_error(), hint });
            }
            None => {
                let hint = "Lower umem.frames_per_worker or add memory";
                let memory =
                    Mapping::new(bytes).map_err(|source| XskError::Memory { bytes, source, hint })?;
                (memory, Backing::Pages)
            }
        };
        Ok(Arc::new(Self {
            base: memory.base(),
            memory,
            frame_shift: config.frame_size.trailing_zeros(),
            frames_per_worker: config.frames_per_worker,
            links: (0..chunks).map(|_| Link::default()).collect(),
            backing,
        }))
    }

    /// What the region is made of.
    #[must_use]
    pub const fn backing(&self) -> Backing {
        self.backing
    }

    /// Bytes per chunk.
    #[must_use]
    pub const fn frame_size(&self) -> u32 {
        1 << self.frame_shift
    }

    /// Chunks of one worker.
    #[must_use]
    pub const fn frames_per_worker(&self) -> u32 {
        self.frames_per_worker
    }

    /// How many workers have chunks.
    #[expect(clippy::cast_possible_truncation, reason = "made for a number of workers that is 32 bits long")]
    pub(super) const fn workers(&self) -> u32 {
        self.links.len() as u32 / if self.frames_per_worker == 0 { 1 } else { self.frames_per_worker }
    }

    /// Size of the region in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    pub(super) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The worker whose pool a chunk comes from.
    pub(super) fn home(&self, chunk: u32) -> WorkerId {
        WorkerId(u8::try_from(chunk / self.frames_per_worker.max(1)).unwrap_or(u8::MAX))
    }

    /// The chunk an offset lies in.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "there are fewer than 2^32 chunks")]
    pub(super) const fn chunk(&self, addr: u64) -> u32 {
        (addr >> self.frame_shift) as u32
    }

    /// Offset of a chunk.
    #[inline]
    pub(super) const fn chunk_addr(&self, chunk: u32) -> u64 {
        (chunk as u64) << self.frame_shift
    }

    /// Whether a segment lies wholly within one chunk of the region. What comes from the kernel is checked once, here.
    #[inline]
    pub(super) fn contains(&self, addr: u64, len: u32) -> bool {
        let offset = addr & u64::from(self.frame_size() - 1);
        offset + u64::from(len) <= u64::from(self.frame_size())
            && (self.chunk(addr) as usize) < self.links.len()
    }

    /// A one-segment frame. The caller owns the chunk and has checked the bounds with [`Self::contains`].
    #[inline]
    pub(super) fn frame(&self, addr: u64, len: u32) -> Frame {
        debug_assert!(self.contains(addr, len));
        self.links[self.chunk(addr) as usize].len.store(0, Relaxed);
        Frame { addr, head_len: len, len, segments: 1 }
    }

    /// Appends a segment, whose bounds were checked, behind the segment at `tail`, the frame's last one.
    pub(super) fn append(&self, frame: &mut Frame, tail: u64, addr: u64, len: u32) {
        let link = &self.links[self.chunk(tail) as usize];
        link.addr.store(addr, Relaxed);
        link.len.store(len, Relaxed);
        self.links[self.chunk(addr) as usize].len.store(0, Relaxed);
        frame.len += len;
        frame.segments += 1;
    }

    /// Makes a frame `len` bytes long, which is less than it was, and returns how many of its segments hold them. The
    /// others are still the frame's: the caller takes them away.
    pub(super) fn cut(&self, frame: &mut Frame, len: u32) -> u32 {
        let (mut kept, mut before, mut previous) = (0, 0, None);
        for (addr, segment_len) in self.segments(frame) {
            kept += 1;
            if before + segment_len >= len {
                break;
            }
            before += segment_len;
            previous = Some(addr);
        }
        match previous {
            None => frame.head_len = len,
            Some(addr) => self.links[self.chunk(addr) as usize].len.store(len - before, Relaxed),
        }
        frame.len = len;
        kept
    }

    /// Every segment of a frame: offset and length.
    pub(super) fn segments(&self, frame: &Frame) -> impl Iterator<Item = (u64, u32)> + '_ {
        let first = (frame.segments > 0).then_some((frame.addr, frame.head_len));
        let segments = frame.segments as usize;
        std::iter::successors(first, |(addr, _)| {
            let link = &self.links[self.chunk(*addr) as usize];
            Some((link.addr.load(Relaxed), link.len.load(Relaxed)))
        })
        .take(segments)
    }

    /// The packet's first segment.
    #[inline]
    #[must_use]
    pub fn head<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        // SAFETY: `Umem::contains` held for `addr` and `head_len` when the frame was made, so the slice lies within the
        // mapping. The frame is in no ring, so the kernel does not write to its chunks; it is the only one that names
        // them, and it is borrowed shared, so nobody else writes.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at(frame.addr)), frame.head_len as usize) }
    }

    /// The chunk's bytes from the packet's first one to the chunk's end, for building an answer in place.
    #[inline]
    #[must_use]
    pub fn buffer_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let room = self.frame_size() as usize - (at(frame.addr) & (self.frame_size() as usize - 1));
        // SAFETY: from an offset inside a chunk to that chunk's end is within the mapping. The frame is in no ring and
        // borrowed exclusively, and it is the only one that names the chunk, so no other slice into it exists.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(at(frame.addr)), room) }
    }

    /// Makes a frame of one segment longer, by bytes behind its end that were written through [`Self::buffer_mut`].
    ///
    /// # Panics
    /// If there are more segments, or not so many bytes in the chunk.
    pub fn lengthen(&self, frame: &mut Frame, len: usize) {
        let len = u32::try_from(len).expect("a frame fits its chunk");
        assert!(frame.segments == 1 && self.contains(frame.addr, len), "a frame fits its chunk");
        (frame.head_len, frame.len) = (len, len);
    }

    /// Writes over a packet's bytes from `at` on, in whichever chunks they are. What reaches beyond its end is not written.
    pub fn copy_in(&self, frame: &mut Frame, mut at: usize, mut bytes: &[u8]) {
        let frame = &*frame;
        for (addr, len) in self.segments(frame) {
            let len = len as usize;
            if at < len {
                let (now, later) = bytes.split_at(bytes.len().min(len - at));
                // SAFETY: every segment was checked by `contains` when it was linked, `at + now.len() <= len`, and the
                // frame, borrowed exclusively by the caller's word, is the only one that names these chunks; `bytes` is
                // none of them, for they could only be borrowed through a frame.
                unsafe {
                    let to = self.base.as_ptr().add(self::at(addr) + at);
                    std::ptr::copy_nonoverlapping(now.as_ptr(), to, now.len());
                }
                bytes = later;
                at = 0;
            } else {
                at -= len;
            }
        }
    }

    /// Bytes in the first segment.
    #[inline]
    #[must_use]
    pub const fn head_len(&self, frame: &Frame) -> usize {
        frame.head_len as usize
    }

    /// Asks the cache for the packet's headers.
    #[inline]
    pub fn prefetch(&self, frame: &Frame) {
        prefetch::<NEAR>(self.base.as_ptr().wrapping_add(at(frame.addr)), 1);
    }

    /// Appends a copy of the whole packet to `out`.
    pub fn copy_out(&self, frame: &Frame, out: &mut Vec<u8>) {
        for (addr, len) in self.segments(frame) {
            // SAFETY: every segment was checked by `contains` when it was linked, and the frame's holder owns all of
            // its chunks.
            let bytes = unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at(addr)), len as usize) };
            out.extend_from_slice(bytes);
        }
    }

    /// Where a fresh packet starts in a chunk, and how many bytes it may have there.
    pub(super) const fn payload_room(&self) -> u32 {
        self.frame_size() - HEADROOM
    }
}
