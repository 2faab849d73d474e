//! What a worker does when there is nothing to do, and how it is woken: spin, then yield the core, then sleep in
//! `poll(2)` on its sockets and on an eventfd that other threads write when they hand it something.

use super::{Observer, Worker};
use crate::clock::Now;
use crate::device::Device;
use ::handoff::Bell;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How a worker waits for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IdlePolicy {
    /// Never gives the core away: lowest latency, one core at 100 %.
    Spin,
    /// Spins, then yields, then sleeps until a packet comes.
    #[default]
    Adaptive,
    /// Sleeps whenever a poll found nothing.
    Sleep,
}

/// Empty polls before an adaptive worker starts yielding its core: some 20 us.
const SPINS_BEFORE_YIELD: u32 = 200;
/// Empty polls before an adaptive worker sleeps.
const SPINS_BEFORE_SLEEP: u32 = 400;
/// Longest sleep: bounds how late a snapshot is adopted and an expired flow removed if a wake-up is lost.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// Wakes one thread, a worker mostly, out of `poll(2)`.
#[derive(Debug)]
pub struct Waker {
    event: OwnedFd,
    bell: Bell,
}

impl Waker {
    /// A waker for one thread.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { event, bell: Bell::new() })
    }

    /// Wakes the thread if it sleeps; costs one fence and one load otherwise.
    pub fn wake(&self) {
        if self.bell.must_wake() {
            // A full eventfd counter means that the thread is about to wake up anyway.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    /// Sleeps until woken, until one of `fds` is readable, or for `timeout`; not at all unless `nothing_waits`. Returns
    /// whether it slept. Only the thread that the waker is for may call this.
    pub fn wait<'fd>(
        &self,
        timeout: Duration,
        fds: impl Iterator<Item = BorrowedFd<'fd>>,
        nothing_waits: impl FnOnce() -> bool,
    ) -> bool {
        self.bell.doze();
        let sleeps = nothing_waits();
        if sleeps {
            wait_readable(&self.event, fds, timeout);
        }
        self.bell.rise();
        self.drain();
        sleeps
    }

    fn drain(&self) {
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.event, &mut count);
    }
}

impl<D: Device, O: Observer> Worker<D, O> {
    /// Polls until `stop` is set. `started` is the clock's zero; `idle` holds unless the settings in force say otherwise. Runs on the worker's own pinned thread.
    pub fn run(&mut self, started: Instant, idle: IdlePolicy, stop: &AtomicBool) {
        let mut empty_polls = 0_u32;
        while !stop.load(Ordering::Relaxed) {
            let now = Now::since(started);
            if self.poll(now) > 0 {
                empty_polls = 0;
                continue;
            }
            empty_polls = empty_polls.saturating_add(1);
            // Looked up when there is nothing to do only.
            match self.path.snapshot.settings.idle.unwrap_or(idle) {
                IdlePolicy::Spin => std::hint::spin_loop(),
                IdlePolicy::Sleep => self.sleep(stop),
                IdlePolicy::Adaptive if empty_polls > SPINS_BEFORE_SLEEP => self.sleep(stop),
                IdlePolicy::Adaptive if empty_polls > SPINS_BEFORE_YIELD => std::thread::yield_now(),
                IdlePolicy::Adaptive => std::hint::spin_loop(),
            }
        }
    }

    /// Sleeps until a socket has packets, somebody wakes us, or the longest sleep is over.
    fn sleep(&mut self, stop: &AtomicBool) {
        let path = &self.path;
        let fds = path.lanes.iter().filter_map(|lane| lane.device.poll_fd());
        let nothing = || path.nothing_waits() && !stop.load(Ordering::Relaxed);
        if path.waker.wait(SLEEP_MAX, fds, nothing) {
            path.counters.polls.sleeps.add(1);
        }
    }
}

/// Blocks until one of the descriptors is readable. Errors (a signal, a socket whose NIC is gone) end the wait: the
/// next poll finds out what happened.
fn wait_readable<'a>(event: &OwnedFd, fds: impl Iterator<Item = BorrowedFd<'a>>, timeout: Duration) {
    let mut waits: arrayvec::ArrayVec<PollFd<'_>, 65> = arrayvec::ArrayVec::new();
    waits.push(PollFd::new(event, PollFlags::IN));
    for fd in fds.take(64) {
        waits.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
    }
    // A time that does not fit is no limit.
    let timeout = Timespec::try_from(timeout).ok();
    let _ = poll(&mut waits, timeout.as_ref());
}
