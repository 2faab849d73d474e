//! A peer's process: its end is noticed, and what it said last is what is reported.

use super::{Forwarder, Rules};
use crate::Error;
use palisade_tests::lab::{Exit, Process};
use rustix::process::Signal;
use std::time::Duration;

/// Longest a process may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// Lines of output that are repeated when a process has ended by itself.
const LAST_LINES: usize = 5;

/// A process of a peer. Killed when dropped.
pub(super) struct Child {
    name: &'static str,
    process: Option<Process>,
}

impl Child {
    /// Takes a process that was started.
    pub(super) const fn new(name: &'static str, process: Process) -> Self {
        Self { name, process: Some(process) }
    }

    /// Whether its end has been seen.
    pub(super) const fn is_over(&self) -> bool {
        self.process.is_none()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If it does not, with its last words.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        let Some(process) = self.process.as_mut() else {
            return Err(format!("{} has been ended", self.name).into());
        };
        if process.is_running() {
            return Ok(());
        }
        // Killing what has ended does nothing but collect its output.
        let exit = self.process.take().map(Process::kill);
        Err(format!("{} ended by itself: {}", self.name, exit.as_ref().map_or_else(String::new, last_words))
            .into())
    }

    /// Waits until standard output has this line.
    ///
    /// # Errors
    /// If it ends before, or does not say so in time; it is killed then.
    pub(super) fn wait_for_line(&mut self, line: &str) -> Result<(), Error> {
        let Some(process) = self.process.take() else {
            return Err(format!("{} has been ended", self.name).into());
        };
        if process.wait_for_line(line, PATIENCE) {
            self.process = Some(process);
            return Ok(());
        }
        Err(format!("{} did not get ready: {}", self.name, last_words(&process.kill())).into())
    }

    /// Asks it to end by a signal, and waits for that. Called again it does nothing.
    ///
    /// # Errors
    /// If it had ended already, ends with a failure, or does not end and has to be killed.
    pub(super) fn end(&mut self, signal: Signal) -> Result<(), Error> {
        if self.process.is_some() {
            self.check()?;
        }
        if let Some(process) = &self.process {
            process.signal(signal);
        }
        self.wait()
    }

    /// Waits until it has ended as it was told to by other means. Called again it does nothing.
    ///
    /// # Errors
    /// If it ends with a failure, or does not end and has to be killed.
    pub(super) fn wait(&mut self) -> Result<(), Error> {
        match self.process.take().map(|process| process.try_wait(PATIENCE)) {
            Some(Err(exit)) => {
                Err(format!("{} did not end and was killed: {}", self.name, last_words(&exit)).into())
            }
            Some(Ok(exit)) if exit.code != Some(0) => {
                Err(format!("{} ended badly: {}", self.name, last_words(&exit)).into())
            }
            Some(Ok(_)) | None => Ok(()),
        }
    }
}

/// A peer that is nothing but a process, without rules, and what ends it.
pub(super) struct Bare(pub(super) Child, pub(super) Signal);

impl Forwarder for Bare {
    fn check(&mut self) -> Result<(), Error> {
        self.0.check()
    }

    fn swap_rules(&mut self, _rules: &Rules) -> Result<(), Error> {
        Err("it has no rules".into())
    }

    fn flows(&self) -> Option<u64> {
        None
    }

    fn end(&mut self) -> Result<(), Error> {
        self.0.end(self.1)
    }
}

/// How a process ended and what it said last, on one line.
pub(super) fn last_words(exit: &Exit) -> String {
    let how = exit.code.map_or_else(|| "by a signal".to_owned(), |code| format!("exit code {code}"));
    // Errors come last, for they say more.
    let lines: Vec<&str> = exit
        .stdout
        .lines()
        .chain(exit.stderr.lines())
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default();
    if last.is_empty() { how } else { format!("{how}; it said: {}", last.join(" | ")) }
}
