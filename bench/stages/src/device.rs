//! A NIC queue in memory for benches: packets made before arrive over and over, what is sent is counted and its frames
//! are free again. Belongs to the thread of its worker; nothing of it is shared with another one.
//!
//! It costs a copy of 64 bytes into a frame, where a NIC would write them by itself, and two small arrays; what that is,
//! [`crate::Share`] measures. [`Arrival`] says who has a packet in its cache when it arrives.
#![allow(unsafe_code, reason = "stores that go past the cache are intrinsics")]

use crate::traffic::PACKET;
use dataplane::device::{BURST_MAX, Device, DeviceCounters, FrameBurst};
use dataplane::xsk::{Frame, FramePool, Umem};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Packets that wait to be received: a burst.
const RX: usize = BURST_MAX;

/// Packets that may be sent before frames are taken back: those of a worker's own burst and of what it is handed.
const TX: usize = 1024;

/// Packet buffers of a worker that stay free: a queue from which more packets are under way to other workers than these
/// leave receives no more, so that nothing is dropped between workers that keep up with each other.
const RESERVE: usize = 256;

/// How packets come into their frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arrival {
    /// Copied by the core that receives them, as the kernel does in copy mode: they are in its cache.
    #[default]
    Copied,
    /// Written past the caches of all cores, as by a NIC that writes to memory. Needed where packets change cores: a copy
    /// would find the frame in the cache of whoever sent it last, and pay for one way more than its own.
    PastCaches,
}

/// One queue.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Conveyor {
    packets: Box<[[u8; PACKET]]>,
    next: usize,
    umem: Option<Arc<Umem>>,
    /// How many more packets may arrive.
    budget: u64,
    /// How many wait to be received at most.
    rx_max: usize,
    arrival: Arrival,
    rx: Vec<Frame>,
    tx: Vec<Frame>,
    counters: DeviceCounters,
}

impl Conveyor {
    /// A queue on which nothing arrives.
    #[must_use]
    pub fn new(umem: &Arc<Umem>) -> Self {
        let umem = Some(Arc::clone(umem));
        Self { rx: Vec::with_capacity(RX), tx: Vec::with_capacity(TX), umem, rx_max: RX, ..Self::default() }
    }

    /// The same, of which no more than this are received at once.
    #[must_use]
    pub fn in_bursts_of(self, burst: usize) -> Self {
        Self { rx_max: burst.min(RX), ..self }
    }

    /// The same, into whose frames packets come in this way.
    #[must_use]
    pub fn by(self, arrival: Arrival) -> Self {
        Self { arrival, ..self }
    }

    /// A frame with the next packet.
    #[inline]
    fn arrive(&self, pool: &mut FramePool) -> Option<Frame> {
        let umem = self.umem.as_ref()?;
        let mut frame = pool.alloc_filled(&[])?;
        let (packet, buffer) = (&self.packets[self.next], umem.buffer_mut(&mut frame));
        match self.arrival {
            Arrival::Copied => buffer[..PACKET].copy_from_slice(packet),
            Arrival::PastCaches => write_past_caches(packet, buffer),
        }
        umem.lengthen(&mut frame, PACKET);
        Some(frame)
    }

    /// From now on these packets arrive in turn, `budget` of them at most.
    pub fn play(&mut self, packets: Box<[[u8; PACKET]]>, budget: u64) {
        (self.packets, self.next, self.budget) = (packets, 0, budget);
    }

    /// How many more may arrive.
    pub fn allow(&mut self, budget: u64) {
        self.budget = budget;
    }
}

impl Device for Conveyor {
    #[inline]
    fn rx_burst(&mut self, burst: &mut FrameBurst) -> usize {
        let count = self.rx.len().min(burst.remaining_capacity());
        if let Some(umem) = &self.umem {
            // As the real one does.
            self.rx[..count].iter().for_each(|frame| umem.prefetch(frame));
        }
        burst.extend(self.rx.drain(..count));
        self.counters.rx_descs += count as u64;
        count
    }

    #[inline]
    fn tx_room(&self) -> usize {
        TX - self.tx.len()
    }

    #[inline]
    fn tx(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.tx.len() == TX {
            return Err(frame);
        }
        self.tx.push(frame);
        self.counters.tx_descs += 1;
        Ok(())
    }

    fn flush(&mut self) {}

    #[inline]
    fn replenish(&mut self, pool: &mut FramePool) {
        for frame in self.tx.drain(..) {
            pool.free(frame);
        }
        while self.rx.len() < self.rx_max && self.budget > 0 && pool.available() > RESERVE {
            let Some(frame) = self.arrive(pool) else { break };
            self.rx.push(frame);
            self.budget -= 1;
            self.next = if self.next + 1 == self.packets.len() { 0 } else { self.next + 1 };
        }
    }

    fn is_tx_pending(&self) -> bool {
        false
    }

    fn is_link_down(&self) -> bool {
        false
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters { frames_held: (self.rx.len() + self.tx.len()) as u64, ..self.counters }
    }
}

/// Writes a packet where no core has it in its cache.
#[inline]
fn write_past_caches(packet: &[u8; PACKET], buffer: &mut [u8]) {
    let buffer = &mut buffer[..PACKET];
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
        assert!(buffer.as_ptr().cast::<__m128i>().is_aligned());
        for (from, to) in packet.chunks_exact(16).zip(buffer.chunks_exact_mut(16)) {
            // SAFETY: both are 16 bytes, the place is aligned (checked above), and SSE2 is part of every x86-64.
            unsafe {
                _mm_stream_si128(to.as_mut_ptr().cast(), _mm_loadu_si128(from.as_ptr().cast()));
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    buffer.copy_from_slice(packet);
}
