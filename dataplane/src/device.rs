//! What a worker reads from and writes to: one NIC queue. AF_XDP sockets ([`crate::xsk`]) and the loopback device of
//! [`crate::testing`] implement it; a worker is generic over it, so every call is static.
//!
//! Frames are move-only: a frame is in exactly one of pool, fill ring, rx ring, the worker's hands, tx ring,
//! completion ring or a handoff ring, and the numbers always add up to the UMEM.

use crate::xsk::{Frame, FramePool};
use arrayvec::ArrayVec;
use std::os::fd::BorrowedFd;

/// Most packets one receive call returns. 64 keeps a burst's parsed packets and headers within L1 and L2.
pub const BURST_MAX: usize = 64;

/// Whole packets in a worker's hands.
pub type FrameBurst = ArrayVec<Frame, BURST_MAX>;

/// One queue of one NIC.
pub trait Device {
    /// Appends whole packets to `burst` until it is full or the rx ring is empty; returns how many. A packet that
    /// spans descriptors is one [`Frame`] of several segments, held back until its last descriptor has come.
    fn rx_burst(&mut self, burst: &mut FrameBurst) -> usize;

    /// Descriptors the tx ring has room for.
    fn tx_room(&self) -> usize;

    /// Puts a packet on the tx ring (all its segments or none). Not visible to the kernel before [`Self::flush`].
    ///
    /// # Errors
    /// Gives the frame back when the ring has no room for it.
    fn tx(&mut self, frame: Frame) -> Result<(), Frame>;

    /// Publishes what [`Self::tx`] queued and kicks the kernel at most once, if it wants to be kicked or earlier
    /// descriptors still wait.
    fn flush(&mut self);

    /// Takes completed frames back into `pool` and tops up the fill ring from it.
    fn replenish(&mut self, pool: &mut FramePool);

    /// Chunks that wait for packets to arrive in them. None where packets take theirs from the pool as they come.
    fn rx_room(&self) -> usize {
        0
    }

    /// Whether descriptors on the tx ring still wait for the kernel to be kicked again.
    fn is_tx_pending(&self) -> bool;

    /// Whether the last kick found the link down.
    fn is_link_down(&self) -> bool;

    /// What to sleep on in `poll(2)` when idle; none for devices that are always ready.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>>;

    /// What the rings have seen so far.
    fn counters(&self) -> DeviceCounters;
}

/// Health of one queue, counted since its socket was opened. Ring drops are the kernel's own counts
/// (`XDP_STATISTICS`): frames that never reached us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Descriptors received.
    pub rx_descs: u64,
    /// Descriptors put on the tx ring.
    pub tx_descs: u64,
    /// System calls made to wake the kernel.
    pub kicks: u64,
    /// Kicks answered with "again": the kernel's per-call budget was used up.
    pub kicks_again: u64,
    /// Frames the kernel dropped because the rx ring was full or the frame did not fit.
    pub rx_dropped: u64,
    /// Of those, because the rx ring was full.
    pub rx_ring_full: u64,
    /// Times the kernel found the fill ring empty.
    pub rx_fill_ring_empty: u64,
    /// Descriptors the kernel refused as invalid, on rx and tx.
    pub invalid_descs: u64,
    /// Frames now in fill ring, rx assembly, tx ring and completion ring: what the pool will get back.
    pub frames_held: u64,
}
