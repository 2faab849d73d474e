//! Notices workers that have stopped polling: stuck in the kernel, stopped, never scheduled, or going round in a loop. Control
//! thread only. The others are not touched by it: what they hand to such a worker fills its ring and is then dropped as
//! `handoff_full`. A worker whose thread has ended is another matter: that takes the gateway down.
//!
//! Every worker polls, if only once in a while: asleep it wakes up many times a second. So a count of polls that stands
//! still for [`STALL_AFTER`] is a stall, whatever the cause. The cause is then read from `/proc`.

use super::plane::{Plane, WorkerHandle};
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{error, warn};

/// A worker that has not polled for so long is stalled: some ten times its longest sleep.
const STALL_AFTER: Duration = Duration::from_secs(1);

/// Most time that counts between two looks. If control itself was held up (stopped, suspended with the machine), the workers
/// probably were too, and get their time once more.
const GAP_MAX: Duration = Duration::from_millis(200);

/// What is known of a worker that does not poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stall {
    /// When it was last seen polling.
    pub(super) since: Instant,
    /// What its thread is doing instead.
    pub(super) why: String,
    /// What the operator can do about it.
    pub(super) advice: String,
}

/// How a worker fares, for those who ask.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    /// That it is stalled.
    pub(super) stall: Option<Stall>,
    /// How often it was since the start.
    pub(super) stalls: u64,
}

/// [`Health`] as control writes and the API reads it.
pub(super) type SharedHealth = Arc<Mutex<Health>>;

/// What a look at one worker's polls said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beat {
    /// Nothing new: it polls, or has not stood still for long.
    Steady,
    /// It has stood still for long enough now.
    Stalled,
    /// It polls again.
    Over,
}

/// One worker's polls over time.
#[derive(Debug, Default)]
struct Pulse {
    polls: u64,
    still: Duration,
}

impl Pulse {
    /// Takes in that the worker has polled `polls` times, `gap` after the last look.
    fn look(&mut self, polls: u64, gap: Duration) -> Beat {
        let was_stalled = self.still >= STALL_AFTER;
        if polls != self.polls {
            *self = Self { polls, still: Duration::ZERO };
            return if was_stalled { Beat::Over } else { Beat::Steady };
        }
        self.still = self.still.saturating_add(gap.min(GAP_MAX));
        if !was_stalled && self.still >= STALL_AFTER { Beat::Stalled } else { Beat::Steady }
    }
}

/// Watches over the workers and tells systemd's watchdog about it.
#[derive(Debug)]
pub(super) struct Watchdog<'a> {
    plane: &'a Plane,
    pulses: Vec<Pulse>,
    looked: Instant,
    systemd: Option<Pings>,
}

/// How often systemd wants to hear from us.
#[derive(Debug)]
struct Pings {
    every: Duration,
    last: Option<Instant>,
}

impl<'a> Watchdog<'a> {
    pub(super) fn new(plane: &'a Plane) -> Self {
        // A third: two pings may be late or lost.
        let systemd = sd_notify::watchdog_enabled().map(|limit| Pings { every: limit / 3, last: None });
        let pulses = plane.workers.iter().map(|_| Pulse::default()).collect();
        Self { plane, pulses, looked: Instant::now(), systemd }
    }

    /// Looks at every worker, and tells the log what changed and systemd that all is well, if it is.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        let gap = now - std::mem::replace(&mut self.looked, now);
        let mut all_poll = true;
        for (index, (worker, pulse)) in self.plane.workers.iter().zip(&mut self.pulses).enumerate() {
            let beat = pulse.look(worker.counters.polls.all(), gap);
            all_poll &= pulse.still < STALL_AFTER;
            match beat {
                Beat::Steady => {}
                Beat::Stalled => begin(index, worker, now - pulse.still),
                Beat::Over => end(index, worker, now),
            }
        }
        if all_poll && let Some(pings) = &mut self.systemd {
            pings.ping(now);
        }
    }
}

fn begin(index: usize, worker: &WorkerHandle, since: Instant) {
    let core = worker.core;
    let (why, advice) = diagnose(worker.thread_id(), core);
    error!(
        "worker {index} on core {core} has not polled for {} ms: {why}. Its queues lose their packets, and so do flows it \
         owns; the other workers go on. {advice}",
        STALL_AFTER.as_millis()
    );
    let mut health = worker.health.lock().unwrap_or_else(PoisonError::into_inner);
    health.stalls += 1;
    health.stall = Some(Stall { since, why, advice });
}

fn end(index: usize, worker: &WorkerHandle, now: Instant) {
    let mut health = worker.health.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stall) = health.stall.take() {
        let lasted = (now - stall.since).as_secs_f64();
        warn!("worker {index} on core {} polls again after {lasted:.1} s", worker.core);
    }
}

impl Pings {
    fn ping(&mut self, now: Instant) {
        if self.last.is_none_or(|last| now - last >= self.every) {
            self.last = Some(now);
            // Nobody listens any more: systemd will find out by itself.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

/// How long a thread is watched to see whether it gets any processor time.
const SAMPLE: Duration = Duration::from_millis(50);

/// What a thread does that should poll, and what to do about it.
fn diagnose(thread: Option<i32>, core: u16) -> (String, String) {
    let read = || thread.and_then(Task::read);
    let Some(before) = read() else {
        return ("nothing is known about its thread".to_owned(), "Restart the gateway".to_owned());
    };
    std::thread::sleep(SAMPLE);
    let after = read().unwrap_or_else(|| before.clone());
    after.judge(after.ticks != before.ticks, core)
}

/// A thread by `/proc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Task {
    id: i32,
    /// `R`, `S`, `D`, ...: proc_pid_stat(5).
    state: char,
    /// Processor time it had, in clock ticks.
    ticks: u64,
    /// Kernel function it waits in, if any and if we may know.
    waits_in: Option<String>,
}

impl Task {
    fn read(id: i32) -> Option<Self> {
        let dir = format!("/proc/self/task/{id}");
        let stat = fs::read_to_string(format!("{dir}/stat")).ok()?;
        let waits_in = fs::read_to_string(format!("{dir}/wchan")).ok();
        let waits_in = waits_in.map(|name| name.trim().to_owned()).filter(|name| name.len() > 1);
        Self::parse(id, &stat).map(|task| Self { waits_in, ..task })
    }

    /// From the text of `stat`. The name, in brackets, may contain anything.
    fn parse(id: i32, stat: &str) -> Option<Self> {
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        // Fields 14 and 15; the state is the third.
        let mut times = fields.skip(10).map_while(|ticks| ticks.parse::<u64>().ok());
        Some(Self { id, state, ticks: times.next()?.saturating_add(times.next()?), waits_in: None })
    }

    /// What it does and what to do about it; `runs`: whether it was seen using the processor.
    fn judge(&self, runs: bool, core: u16) -> (String, String) {
        let waits_in = self.waits_in.as_deref().unwrap_or("an unknown place");
        match self.state {
            't' | 'T' => (
                "its thread is stopped, by a debugger or a tracer".to_owned(),
                format!("Let it go on: `grep TracerPid /proc/{}/status` names who holds it", self.id),
            ),
            'D' => (
                format!("its thread is stuck in the kernel, in {waits_in}"),
                "See the kernel log (`dmesg`) for the driver's trouble; if it does not end, only a reboot helps"
                    .to_owned(),
            ),
            'R' if runs => (
                "its thread runs, but does not come back to its queues".to_owned(),
                format!(
                    "This is a defect. Keep what `perf record -g -t {0} -- sleep 1` or `gdb -p {0} -batch -ex bt` says, \
                     and restart the gateway",
                    self.id
                ),
            ),
            'R' => (
                format!("its thread could run, but gets no time on core {core}"),
                format!(
                    "Something of higher priority has the core: `ps -eLo psr,rtprio,ni,pid,comm --sort=psr | awk '$1 == \
                     {core}'` shows what; move it away or keep the core to the worker (isolcpus)"
                ),
            ),
            _ => (
                format!("its thread sleeps in {waits_in} and is not woken"),
                "This is a defect. Restart the gateway".to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(20);

    /// What 60 looks at a worker said that polls by `polls`, other than that nothing changed.
    fn beats(pulse: &mut Pulse, gap: Duration, mut polls: impl FnMut(u64) -> u64) -> Vec<Beat> {
        (0..60).map(|look| pulse.look(polls(look), gap)).filter(|beat| *beat != Beat::Steady).collect()
    }

    #[test]
    fn a_stall_is_said_once_when_it_begins_and_once_when_it_is_over() {
        let mut pulse = Pulse::default();
        assert_eq!(beats(&mut pulse, LOOK, |look| look), []);
        assert_eq!(beats(&mut pulse, LOOK, |_| 59), [Beat::Stalled]);
        assert_eq!(beats(&mut pulse, LOOK, |_| 59), []);
        assert_eq!(beats(&mut pulse, LOOK, |look| 60 + look), [Beat::Over]);
    }

    #[test]
    fn a_worker_that_polls_five_times_a_second_is_not_stalled() {
        assert_eq!(beats(&mut Pulse::default(), LOOK, |look| look / 10), []);
    }

    #[test]
    fn time_in_which_control_did_not_run_itself_does_not_count_against_workers() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.look(7, LOOK), Beat::Steady);
        assert_eq!(pulse.look(7, Duration::from_secs(3600)), Beat::Steady);
        assert_eq!(pulse.look(8, LOOK), Beat::Steady);
    }

    #[test]
    fn a_thread_is_read_whatever_its_name() {
        let stat = "77 (a) R (b) D 1 77 77 0 -1 4194368 10 0 0 0 40 2 0 0 20 0 5 0 9000 1 1 1";
        assert_eq!(Task::parse(77, stat), Some(Task { id: 77, state: 'D', ticks: 42, waits_in: None }));
        assert_eq!(Task::parse(77, "77 (worker-0) D 1 2"), None);
        let own = Task::read(rustix::thread::gettid().as_raw_pid()).expect("a thread of this process");
        assert_eq!(own.state, 'R');
    }

    #[test]
    fn the_cause_decides_what_to_do() {
        let task = |state, waits_in: Option<&str>| Task {
            id: 7,
            state,
            waits_in: waits_in.map(str::to_owned),
            ..Task::default()
        };
        let said = |task: Task, runs| task.judge(runs, 3);
        assert!(
            said(task('D', Some("mlx5e_xdp_xmit")), false)
                .0
                .contains("stuck in the kernel, in mlx5e_xdp_xmit")
        );
        assert!(said(task('t', None), false).1.contains("/proc/7/status"));
        assert!(said(task('R', None), true).1.contains("perf record -g -t 7"));
        let (why, advice) = said(task('R', None), false);
        assert!(why.contains("no time on core 3") && advice.contains("$1 == 3"), "{why} {advice}");
        assert!(said(task('S', Some("do_poll")), false).0.contains("sleeps in do_poll"));
    }
}
