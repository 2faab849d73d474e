//! Settings that a peer needs otherwise, put back in reverse order when they go.

use crate::Error;
use palisade_tests::lab::Netns;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest a command may take: loading very many rules is slow on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// What has been changed so far, and how it was before.
#[derive(Default)]
pub(super) struct Changes<'bed> {
    undo: Vec<Undo<'bed>>,
}

/// How one change is taken back.
enum Undo<'bed> {
    /// Write this to a file below `/proc/sys` or `/sys`, as a namespace sees it.
    Inside(&'bed Netns, String, String),
    /// Let this shell write a setting of the whole machine, which it does when its input ends.
    Outside(Child),
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
        // Namespaces go with us whatever happens, this would stay. The shell's input ends also when we are killed.
        let script = "trap '' INT; read -r _; printf %s \"$1\" > \"$2\"";
        let keeper =
            Command::new("sh").args(["-c", script, "sh", before, path]).stdin(Stdio::piped()).spawn();
        let keeper = keeper.map_err(|error| match fs::write(path, before) {
            Ok(()) => format!("no shell that puts {path} back: {error}"),
            Err(again) => {
                format!("no shell that puts {path} back to {before}: {error}, and neither can we: {again}")
            }
        })?;
        self.undo.push(Undo::Outside(keeper));
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
                Undo::Outside(mut keeper) => match keeper.wait() {
                    Ok(status) if status.success() => Ok(()),
                    Ok(_) => Err("a limit of the whole machine cannot be put back".into()),
                    Err(error) => Err(format!("a limit of the whole machine: {error}").into()),
                },
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
    match netns.spawn(program, args).try_wait(PATIENCE) {
        Ok(exit) if exit.code == Some(0) => Ok(exit.stdout),
        Ok(exit) => Err(format!("{} failed: {}", words.join(" "), exit.stderr.trim()).into()),
        Err(_) => Err(format!("{} has not ended after {PATIENCE:?} and was killed", words.join(" ")).into()),
    }
}

/// By a shell of the namespace: `/sys` shows the interfaces of whoever mounted it.
fn write_inside(netns: &Netns, path: &str, value: &str) -> Result<(), Error> {
    run(netns, &["sh", "-c", "printf %s \"$1\" > \"$2\"", "sh", value, path]).map(drop)
}
