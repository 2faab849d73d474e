//! A device without a kernel: what a test or a capture replay puts in comes out of `rx_burst`, what the worker
//! transmits is collected. Faults can be injected: a small tx ring, a link that is down.

use crate::device::{Device, DeviceCounters, FrameBurst};
use crate::xsk::{Frame, FramePool, Umem};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// One queue of an imaginary NIC.
#[derive(Debug)]
pub struct LoopbackDevice {
    umem: Arc<Umem>,
    rx: VecDeque<Frame>,
    tx: VecDeque<Frame>,
    completed: Vec<Frame>,
    tx_ring: usize,
    link_down: bool,
    counters: DeviceCounters,
}

impl LoopbackDevice {
    /// A device with frames of `umem` and room for `tx_ring` packets that nobody has collected yet.
    #[must_use]
    pub fn new(umem: Arc<Umem>, tx_ring: usize) -> Self {
        Self {
            umem,
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            completed: Vec::new(),
            tx_ring,
            link_down: false,
            counters: DeviceCounters::default(),
        }
    }

    /// Lets a packet arrive; gives the id of its frame. `None` if the pool has none for it, as when a fill ring is empty.
    pub fn deliver(&mut self, pool: &mut FramePool, packet: &[u8]) -> Option<u64> {
        let Some(frame) = pool.alloc_filled(packet) else {
            self.counters.rx_fill_ring_empty += 1;
            return None;
        };
        let id = frame.id();
        self.rx.push_back(frame);
        Some(id)
    }

    /// The packets sent since the last call.
    pub fn collect(&mut self) -> Vec<Vec<u8>> {
        let umem = &self.umem;
        let sent = self
            .tx
            .iter()
            .map(|frame| {
                let mut bytes = Vec::new();
                umem.copy_out(frame, &mut bytes);
                bytes
            })
            .collect();
        self.completed.extend(self.tx.drain(..));
        sent
    }

    /// Takes the link down or up: while down, kicks fail as with `ENETDOWN`.
    pub fn set_link_down(&mut self, down: bool) {
        self.link_down = down;
    }

    /// Chunks this device holds.
    #[must_use]
    pub fn frames_held(&self) -> usize {
        let all = self.rx.iter().chain(&self.tx).chain(&self.completed);
        all.map(|frame| frame.segments() as usize).sum()
    }
}

impl Device for LoopbackDevice {
    fn rx_burst(&mut self, burst: &mut FrameBurst) -> usize {
        let count = self.rx.len().min(burst.remaining_capacity());
        burst.extend(self.rx.drain(..count));
        self.counters.rx_descs += count as u64;
        count
    }

    fn tx_room(&self) -> usize {
        self.tx_ring.saturating_sub(self.tx.len())
    }

    fn tx(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.tx.len() >= self.tx_ring {
            return Err(frame);
        }
        self.tx.push_back(frame);
        self.counters.tx_descs += 1;
        Ok(())
    }

    fn flush(&mut self) {}

    fn replenish(&mut self, pool: &mut FramePool) {
        for frame in self.completed.drain(..) {
            pool.free(frame);
        }
    }

    fn is_tx_pending(&self) -> bool {
        false
    }

    fn is_link_down(&self) -> bool {
        self.link_down
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn counters(&self) -> DeviceCounters {
        DeviceCounters { frames_held: self.frames_held() as u64, ..self.counters }
    }
}
