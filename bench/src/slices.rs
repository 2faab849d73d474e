//! A core that a thread shares with whoever else wants it, in slices shorter than a gateway's rings are long.
//!
//! The kernel's own slices are some milliseconds, and more where ticks are rare: a generator that is away for so long leaves the
//! gateway without packets, and what is measured is then how the two shared the core. Here the thread comes before everybody
//! for its share of each millisecond, and behind everybody for the rest of it.

use crate::pace::now_ns;
use crate::policy::Policy;
use crate::{Error, affinity};
use rustix::process::Pid;
use rustix::thread::gettid;
use rustix::time::{ClockId, Timespec};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// From the beginning of one slice to that of the next: a ring of 2048 frames lasts longer than a part of it.
const PERIOD: Duration = Duration::from_millis(1);

/// The thread that has the slices, and the one that deals them.
const SHARER: Policy = Policy::Fifo(10);
const DEALER: Policy = Policy::Fifo(20);

/// Deals slices as long as it lives.
#[derive(Debug)]
pub(crate) struct Slices {
    must_end: Arc<AtomicBool>,
    dealer: Option<JoinHandle<Result<(), Error>>>,
}

impl Slices {
    /// Gives `thread`, which is pinned to `core`, this share of it.
    ///
    /// # Errors
    /// If there is no thread for it. What the kernel refuses is told by [`Self::end`].
    pub(crate) fn deal(core: usize, thread: Pid, share: f64) -> Result<Self, Error> {
        let must_end = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&must_end);
        let dealer = thread::Builder::new()
            .name("slices".to_owned())
            .spawn(move || deal(core, thread, PERIOD.mul_f64(share), &until))
            .map_err(|error| format!("no thread to deal slices: {error}"))?;
        Ok(Self { must_end, dealer: Some(dealer) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// If the kernel refused something meanwhile.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.must_end.store(true, Ordering::Relaxed);
        let Some(dealer) = self.dealer.take() else { return Ok(()) };
        dealer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Slices {
    fn drop(&mut self) {
        // Whoever wants to know has asked already.
        let _ = self.stop();
    }
}

fn deal(core: usize, thread: Pid, slice: Duration, must_end: &AtomicBool) -> Result<(), Error> {
    affinity::pin_to(core)?;
    DEALER.give_to(gettid())?;
    let mut next = Duration::from_nanos(now_ns());
    while !must_end.load(Ordering::Relaxed) {
        SHARER.give_to(thread)?;
        sleep_until(next + slice)?;
        Policy::Idle.give_to(thread)?;
        next = (next + PERIOD).max(Duration::from_nanos(now_ns()));
        sleep_until(next)?;
    }
    Ok(())
}

fn sleep_until(time: Duration) -> Result<(), Error> {
    let time = Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() };
    Ok(rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &time)?)
}
