//! A NIC queue in memory for benches: packets made before arrive over and over, what is sent is counted and its frames
//! are free again. Belongs to the thread of its worker; nothing of it is shared with another one.
//!
//! It costs a copy of 64 bytes into a frame, where a NIC would write them by itself, and two small arrays; what that is,
//! [`bare_nanos`] measures.

use crate::Error;
use dataplane::device::{BURST_MAX, Device, DeviceCounters, FrameBurst};
use dataplane::ids::WorkerId;
use dataplane::xsk::{Frame, FramePool, Umem, UmemConfig};
use std::hint::black_box;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of every packet, Ethernet header included.
pub const PACKET: usize = 64;

/// Packets that wait to be received: a burst.
const RX: usize = BURST_MAX;

/// Packets that may be sent before frames are taken back: those of a worker's own burst and of what it is handed.
const TX: usize = 1024;

/// One queue.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Conveyor {
    packets: Box<[[u8; PACKET]]>,
    next: usize,
    /// How many more packets may arrive.
    budget: u64,
    rx: Vec<Frame>,
    tx: Vec<Frame>,
    counters: DeviceCounters,
}

impl Conveyor {
    /// A queue on which nothing arrives.
    #[must_use]
    pub fn new() -> Self {
        Self { rx: Vec::with_capacity(RX), tx: Vec::with_capacity(TX), ..Self::default() }
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
        while self.rx.len() < RX && self.budget > 0 {
            let Some(frame) = pool.alloc_filled(&self.packets[self.next]) else { break };
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

/// Nanoseconds that a packet costs in the queues alone, from arrival to frame taken back, without a worker.
///
/// # Errors
/// If there is no memory.
pub fn bare_nanos(packets: &[[u8; PACKET]], length: Duration) -> Result<f64, Error> {
    let umem = Umem::new(&UmemConfig::plain(512, 1))?;
    let mut pool = FramePool::new(&Arc::clone(&umem), WorkerId(0));
    let (mut ingress, mut egress) = (Conveyor::new(), Conveyor::new());
    ingress.play(packets.into(), u64::MAX);
    let mut burst = FrameBurst::new();
    let start = Instant::now();
    while start.elapsed() < length {
        for _ in 0..64 {
            ingress.replenish(&mut pool);
            ingress.rx_burst(&mut burst);
            for frame in burst.drain(..) {
                let _ = egress.tx(black_box(frame));
            }
            egress.replenish(&mut pool);
        }
    }
    Ok(start.elapsed().as_nanos() as f64 / egress.counters.tx_descs as f64)
}
