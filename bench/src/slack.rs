//! Time that nobody uses on a core, so that work is counted wherever it is done: a thread that runs only when nothing else
//! wants to (`SCHED_IDLE`), pinned, reads the clock without a pause. From one reading to the next little time passes,
//! unless something came in between. What passes without interruption is slack; all else was used by somebody: threads,
//! interrupts, softirqs, changing over between threads, and the host of a virtual machine.
//!
//! The kernel's own accounts (`/proc/stat`) count whoever a tick happens to meet, and softirqs on top of a thread as that
//! thread's; here nothing is sampled. What spins leaves no slack, for nobody else can have that time.
//!
//! With groups of threads that share a core as groups (`sched_autogroup_enabled`, cgroups with weights) being idle counts
//! only within the group: the thread then takes time from others. Measure without them.

use crate::pace::now_ns;
use crate::policy::Policy;
use crate::report::median;
use crate::{Error, affinity};
use rustix::thread::gettid;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Longest between two readings of the clock if nothing came in between, in nanoseconds. A reading takes some tens, an
/// interrupt or a thread that comes in a microsecond and more.
const GAP_MAX_NS: u64 = 500;

/// Readings by which the clock is tried.
const TRIAL: usize = 1_000;

/// Soaks up a core's slack and counts it, as long as it lives.
#[derive(Debug)]
pub struct Soak {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    slack_ns: AtomicU64,
    must_end: AtomicBool,
}

impl Soak {
    /// Starts on this core.
    ///
    /// # Errors
    /// If there is no such core, the kernel refuses, or the clock is read too slowly to tell.
    pub fn start(core: usize) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let (ready, is_ready) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("slack-{core}"))
            .spawn(move || soak(core, &theirs, &ready))
            .map_err(|error| format!("no thread to measure slack with: {error}"))?;
        let soak = Self { shared, thread: Some(thread) };
        is_ready.recv().map_err(|_| "the thread that measures slack has ended")??;
        Ok(soak)
    }

    /// Slack since the start.
    #[must_use]
    pub fn slack(&self) -> Duration {
        Duration::from_nanos(self.shared.slack_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Soak {
    fn drop(&mut self) {
        self.shared.must_end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has no result, and if it panicked that has been printed.
            let _ = thread.join();
        }
    }
}

fn soak(core: usize, shared: &Shared, ready: &Sender<Result<(), Error>>) {
    let prepared =
        affinity::pin_to(core).and_then(|()| try_clock()).and_then(|()| Policy::Idle.give_to(gettid()));
    let is_prepared = prepared.is_ok();
    // Nobody listens any more only if nobody measures any more.
    let _ = ready.send(prepared);
    if !is_prepared {
        return;
    }
    let (mut slack, mut before) = (0, now_ns());
    while !shared.must_end.load(Ordering::Relaxed) {
        let now = now_ns();
        let gap = now - before;
        if gap <= GAP_MAX_NS {
            slack += gap;
            shared.slack_ns.store(slack, Ordering::Relaxed);
        }
        before = now;
    }
}

/// Whether readings follow each other closely enough.
#[expect(clippy::cast_precision_loss, reason = "a time of far less than days")]
fn try_clock() -> Result<(), Error> {
    let readings: Vec<u64> = (0..TRIAL).map(|_| now_ns()).collect();
    let gaps: Vec<f64> = readings.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
    let gap = median(&gaps);
    if gap * 2.0 > GAP_MAX_NS as f64 {
        return Err(format!(
            "reading the clock takes {gap} ns, too long to tell slack: is the clock source tsc?"
        )
        .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint;
    use std::time::Instant;

    /// Longest that a busy machine may keep a core from having any slack.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Slack of a core while `meanwhile` runs, and how long that took.
    fn slack_of(soak: &Soak, meanwhile: impl FnOnce()) -> (Duration, Duration) {
        let (before, start) = (soak.slack(), Instant::now());
        meanwhile();
        (soak.slack() - before, start.elapsed())
    }

    #[test]
    fn a_core_on_which_a_thread_spins_has_next_to_no_slack() {
        let soak = Soak::start(0).expect("core 0 can be measured");
        let (slack, time) = slack_of(&soak, || {
            let spinner = thread::spawn(|| {
                affinity::pin_to(0).expect("there is a core 0");
                let start = Instant::now();
                while start.elapsed() < Duration::from_millis(400) {
                    hint::spin_loop();
                }
            });
            spinner.join().expect("it only spins");
        });
        assert!(slack * 5 < time, "{slack:?} of {time:?}");
        // Even on a machine that is never done with other things there is a moment now and then.
        let (before, start) = (soak.slack(), Instant::now());
        while soak.slack() < before + Duration::from_millis(2) {
            assert!(start.elapsed() < PATIENCE, "no slack where nobody spins");
            let (slack, time) = slack_of(&soak, || thread::sleep(Duration::from_millis(20)));
            assert!(slack <= time + Duration::from_millis(1), "{slack:?} of {time:?}");
        }
    }

    #[test]
    fn a_core_that_there_is_not_has_no_slack_to_measure() {
        let error = Soak::start(1_000).expect_err("no such core").to_string();
        assert!(error.contains("core 1000"), "{error}");
    }
}
