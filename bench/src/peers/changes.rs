//! Settings that a peer needs otherwise, put back in reverse order when they go.

use crate::Error;
use palisade_tests::lab::Netns;
use std::fs;

/// What has been changed so far, and how it was before.
#[derive(Default)]
pub(super) struct Changes<'bed> {
    undo: Vec<Undo<'bed>>,
}

/// How one change is taken back.
enum Undo<'bed> {
    /// Write this to a file below `/proc/sys` or `/sys`, as a namespace sees it.
    Inside(&'bed Netns, String, String),
    /// Write this to a file as this process sees it: settings of the whole machine.
    Outside(String, String),
    /// Run this inside a namespace.
    Run(&'bed Netns, Vec<String>),
}

impl<'bed> Changes<'bed> {
    /// Writes `value` to a file below `/proc/sys` or `/sys`, as `netns` sees it.
    ///
    /// # Errors
    /// If there is no such file or the kernel does not take the value.
    pub(super) fn write(&mut self, netns: &'bed Netns, path: &str, value: &str) -> Result<(), Error> {
        let before = run(netns, &["cat", path])?.trim().to_owned();
        if before == value {
            return Ok(());
        }
        write_inside(netns, path, value)?;
        self.undo.push(Undo::Inside(netns, path.to_owned(), before));
        Ok(())
    }

    /// Sets a sysctl of `netns`.
    ///
    /// # Errors
    /// If there is no such sysctl or the kernel does not take the value.
    pub(super) fn sysctl(&mut self, netns: &'bed Netns, name: &str, value: &str) -> Result<(), Error> {
        self.write(netns, &format!("/proc/sys/{}", name.replace('.', "/")), value)
    }

    /// Raises a number of the whole machine's below `/proc/sys` to at least `least`.
    ///
    /// # Errors
    /// If there is no such number or it cannot be written, in a container for example.
    pub(super) fn raise(&mut self, path: &str, least: u32) -> Result<(), Error> {
        let before = fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
        let before = before.trim();
        if before.parse::<u64>().is_ok_and(|now| now >= u64::from(least)) {
            return Ok(());
        }
        fs::write(path, least.to_string()).map_err(|error| {
            format!("{path} is {before}, {least} is needed, and it cannot be written: {error}")
        })?;
        self.undo.push(Undo::Outside(path.to_owned(), before.to_owned()));
        Ok(())
    }

    /// Runs a command inside `netns`; `undo` takes back what it does, and runs also if it did only half of that.
    ///
    /// # Errors
    /// If it fails.
    pub(super) fn run(&mut self, netns: &'bed Netns, words: &[&str], undo: &[&str]) -> Result<(), Error> {
        run(netns, words)?;
        self.on_undo(netns, undo);
        Ok(())
    }

    /// Has a command run inside `netns` when everything later has been taken back.
    pub(super) fn on_undo(&mut self, netns: &'bed Netns, words: &[&str]) {
        self.undo.push(Undo::Run(netns, words.iter().map(|word| (*word).to_owned()).collect()));
    }

    /// Takes everything back, the last change first, and goes on where something cannot be.
    ///
    /// # Errors
    /// The first failure.
    pub(super) fn undo(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        while let Some(undo) = self.undo.pop() {
            let undone = match undo {
                Undo::Inside(netns, path, value) => write_inside(netns, &path, &value),
                Undo::Outside(path, value) => fs::write(&path, &value)
                    .map_err(|error| format!("{path} cannot be put back: {error}").into()),
                Undo::Run(netns, words) => {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    run(netns, &words).map(drop)
                }
            };
            result = result.and(undone);
        }
        result
    }
}

impl Drop for Changes<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            eprintln!("{error}");
        }
    }
}

/// Runs a command inside `netns` that must succeed; returns what it printed.
///
/// # Errors
/// If it fails, with what it said.
pub(super) fn run(netns: &Netns, words: &[&str]) -> Result<String, Error> {
    let (program, args) = words.split_first().ok_or("no command")?;
    let exit = netns.exec(program, args);
    if exit.code == Some(0) {
        return Ok(exit.stdout);
    }
    Err(format!("{} failed: {}", words.join(" "), exit.stderr.trim()).into())
}

/// By a shell of the namespace: `/sys` shows the interfaces of whoever mounted it.
fn write_inside(netns: &Netns, path: &str, value: &str) -> Result<(), Error> {
    run(netns, &["sh", "-c", "printf %s \"$1\" > \"$2\"", "sh", value, path]).map(drop)
}
