//! What a worker carries while something else goes on, as a share of what it carries without.
//!
//! One run of load, three windows: without, with, without; the figure of a repetition is the middle one against the mean
//! of its neighbours, and the figure the median of the repetitions. Everything that disturbs has the generator's core, and
//! there takes time from the generator. That would be a slow generator, not a slow gateway; so the two have the core in slices
//! ([`crate::slices`]) shorter than the gateway's rings are long, and a window counts only if more frames arrived at the gateway
//! than it could take: the ring overflowed, so the worker was never without work, and what came out is what it can carry.

use crate::affinity;
use crate::gateway::Plan;
use crate::load::{Amount, Load};
use crate::report::{median, range};
use crate::rig::Rig;
use crate::slices::Slices;
use crate::{Error, iface_index};
use palisade_tests::daemon::{Daemon, binary};
use palisade_tests::lab::HOST_IFACE;
use rustix::process::Pid;
use rustix::thread::gettid;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// Time from the start of the load to the first window.
const WARM_UP: Duration = Duration::from_millis(1500);

/// Time for a disturbance to begin, and to be over.
const SETTLE: Duration = Duration::from_millis(300);

/// What the load lasts longer than what is to happen under it takes by itself.
const SPARE: Duration = Duration::from_secs(3);

/// The generator's share of its core while others want it, too. By itself it makes four times what a worker carries.
const SHARE: f64 = 0.5;

/// How much more must arrive than comes out.
const OVERLOAD: f64 = 1.02;

/// What is measured with what.
#[derive(Clone, Copy)]
pub(super) struct Beside<'a, 'storage> {
    pub(super) rig: &'a Rig<'storage>,
    pub(super) load: &'a Load,
    pub(super) plan: &'a Plan,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Packets a second, without and with.
    without: Vec<f64>,
    with: Vec<f64>,
    ratios: Vec<f64>,
    /// Frames that arrived for each that was carried, least of all windows.
    overload: f64,
    /// What the disturbance did, as it says.
    note: String,
}

impl Outcome {
    fn new() -> Self {
        let (without, with, ratios) = (Vec::new(), Vec::new(), Vec::new());
        Self { without, with, ratios, overload: f64::INFINITY, note: String::new() }
    }

    /// The figure.
    pub(super) fn ratio(&self) -> f64 {
        median(&self.ratios)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = range(&self.ratios);
        write!(
            f,
            "{:.3} Mpps without, {:.3} with, ratios {low:.3} to {high:.3}, {:.2} frames offered for each carried; {}",
            median(&self.without) / 1e6,
            median(&self.with) / 1e6,
            self.overload,
            self.note
        )
    }
}

/// What one window saw.
struct Window {
    carried: f64,
    offered: f64,
}

impl Beside<'_, '_> {
    /// Measures it beside `disturb`, which goes on until it is told to stop and says what it did.
    pub(super) fn measure(
        &self,
        disturb: &(dyn Fn(&AtomicBool) -> Result<String, Error> + Sync),
    ) -> Result<Outcome, Error> {
        let mut outcome = Outcome::new();
        for _ in 0..self.plan.repetitions {
            let windows = self.once(SETTLE + self.plan.time, || {
                let stop = AtomicBool::new(false);
                thread::scope(|scope| {
                    let disturbing = scope.spawn(|| disturb(&stop));
                    thread::sleep(SETTLE);
                    let window = self.window();
                    let is_early = disturbing.is_finished();
                    stop.store(true, Ordering::Relaxed);
                    let note = disturbing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                    if is_early {
                        return Err(format!("what was to go on ended early: {note}").into());
                    }
                    Ok((window?, note))
                })
            })?;
            let ([before, after], (during, note)) = windows;
            outcome.enter([&before, &during, &after])?;
            outcome.note = note;
        }
        Ok(outcome)
    }

    /// Measures captures of everything: packets captured a second as a share of those carried without, by repetition; and
    /// how many were not captured.
    pub(super) fn captured(&self, daemon: &Daemon, file: &Path) -> Result<(Vec<f64>, Outcome, u64), Error> {
        let mut outcome = Outcome::new();
        let (mut shares, mut lost) = (Vec::new(), 0);
        // Whole seconds, as the command takes them.
        let secs = self.plan.time.as_secs().max(1) + 1;
        for _ in 0..self.plan.repetitions {
            let ([before, after], (during, captured)) = self.once(Duration::from_secs(secs), || {
                let capture = Command::new(binary("fwctl"))
                    .arg("--socket")
                    .arg(daemon.socket())
                    .args(["capture", "--for", &format!("{secs}s"), "-w"])
                    .arg(file)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .spawn()?;
                thread::sleep(SETTLE);
                let window = self.window()?;
                let said = capture.wait_with_output()?;
                let said = String::from_utf8_lossy(&said.stderr).into_owned();
                Ok((window, counts(&said).ok_or_else(|| format!("fwctl capture says: {said}"))?))
            })?;
            let without = f64::midpoint(before.carried, after.carried);
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            shares.push(captured.0 as f64 / secs as f64 / without);
            lost += captured.1;
            outcome.enter([&before, &during, &after])?;
            let size = std::fs::metadata(file).map_or(0, |file| file.len() / 1_000_000);
            outcome.note = format!("{} packets in {secs} s, {size} MB", captured.0);
        }
        Ok((shares, outcome, lost))
    }

    /// One run of load: a window, then what is given, which takes so long, then a window.
    fn once<T>(
        &self,
        takes: Duration,
        during: impl FnOnce() -> Result<T, Error>,
    ) -> Result<([Window; 2], T), Error> {
        let time = WARM_UP + self.plan.time + takes + SETTLE + self.plan.time + SPARE;
        let (begun, begins) = mpsc::channel();
        thread::scope(|scope| {
            let generator = scope.spawn(|| self.generate(begun, time));
            let measured = begins.recv().map_err(|_| "the generator has ended".into()).and_then(|thread| {
                let slices = Slices::deal(self.rig.generator_core(), thread, SHARE)?;
                thread::sleep(WARM_UP);
                let before = self.window()?;
                let during = during()?;
                thread::sleep(SETTLE);
                let after = self.window()?;
                slices.end()?;
                Ok(([before, after], during))
            });
            generator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            measured
        })
    }

    /// Sends for so long, in one run: after it nothing comes for a while.
    fn generate(&self, begun: Sender<Pid>, time: Duration) -> Result<(), Error> {
        self.rig.lab.left.netns.enter();
        affinity::pin_to(self.rig.generator_core())?;
        begun.send(gettid())?;
        drop(begun);
        self.load.run(iface_index(HOST_IFACE)?, Amount::Time(time))?;
        Ok(())
    }

    fn window(&self) -> Result<Window, Error> {
        let (offered, carried, start) = (self.rig.offered()?, self.rig.sink.counts()?, Instant::now());
        thread::sleep(self.plan.time);
        let (carried_then, elapsed) = (self.rig.sink.counts()?, start.elapsed());
        let offered = self.rig.offered()?.saturating_sub(offered);
        // Reading what was offered takes a while itself.
        let all = start.elapsed();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let per_sec = |count: u64, over: Duration| count as f64 / over.as_secs_f64();
        Ok(Window {
            carried: per_sec(carried_then.packets - carried.packets, elapsed),
            offered: per_sec(offered, all),
        })
    }
}

impl Outcome {
    fn enter(&mut self, [before, during, after]: [&Window; 3]) -> Result<(), Error> {
        for window in [before, during, after] {
            self.overload = self.overload.min(window.offered / window.carried);
        }
        if self.overload < OVERLOAD {
            return Err(format!(
                "the generator starved: only {:.2} frames arrived for each that the gateway carried, so nothing is known about \
                 the gateway",
                self.overload
            )
            .into());
        }
        let without = f64::midpoint(before.carried, after.carried);
        self.without.push(without);
        self.with.push(during.carried);
        self.ratios.push(during.carried / without);
        Ok(())
    }
}

/// Packets captured and lost, as `fwctl capture` says at its end.
fn counts(said: &str) -> Option<(u64, u64)> {
    let line = said.lines().find(|line| line.contains("packets captured"))?;
    let number = |word: &str| {
        let before = line.split(word).next()?;
        before.split_whitespace().next_back()?.parse().ok()
    };
    Some((number("packets captured")?, number("lost")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_capture_is_read() {
        assert_eq!(counts("fwctl: 1234 packets captured, 56 lost: see --buffer\n"), Some((1234, 56)));
        assert_eq!(counts("fwctl: cannot write"), None);
    }

    #[test]
    fn a_generator_that_starved_measures_nothing() {
        let window = |carried: f64, offered: f64| Window { carried, offered };
        let mut outcome = Outcome::new();
        outcome.enter([&window(100.0, 150.0), &window(98.0, 120.0), &window(102.0, 150.0)]).unwrap();
        assert!((outcome.ratio() - 98.0 / 101.0).abs() < 1e-9);
        let why =
            outcome.enter([&window(100.0, 150.0), &window(70.0, 70.0), &window(100.0, 150.0)]).unwrap_err();
        assert!(why.to_string().contains("starved"), "{why}");
    }
}
