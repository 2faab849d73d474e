//! Palisade as a peer: `fwd` with its default settings but for the room for flows and, where the load never answers, the
//! guard against half-open ones; and rules of both IP versions.

use super::child::last_words;
use super::{Forwarder, Rules, Setup};
use crate::bed::Bed;
use crate::{Error, affinity};
use palisade_tests::daemon::{Daemon, DaemonBuilder};
use rustix::process::Signal;

struct Palisade(Option<Daemon>);

/// A daemon to be started with [`launch`] on the worker's core, for who needs more of it than a peer has.
#[must_use]
pub fn builder(bed: &Bed) -> DaemonBuilder<'_> {
    // It takes only cores that it is allowed, and what this thread starts is allowed the generator's.
    let cores = format!("{},{}", bed.generator_core(), bed.worker_core());
    Daemon::builder(&bed.lab).core(bed.worker_core()).wrapped_by(&["taskset", "-c", &cores])
}

/// Starts a daemon and moves everything but its worker to the generator's core.
///
/// # Errors
/// If it does not get ready, with its last words.
pub fn launch(bed: &Bed, builder: DaemonBuilder<'_>) -> Result<Daemon, Error> {
    let daemon =
        builder.try_start().map_err(|exit| format!("fwd did not get ready: {}", last_words(&exit)))?;
    move_others(&daemon, bed.generator_core())?;
    Ok(daemon)
}

/// Moves everything of a daemon but its workers to one core.
///
/// # Errors
/// If there is no such core.
pub fn move_others(daemon: &Daemon, core: usize) -> Result<(), Error> {
    affinity::pin_threads(daemon.process().pid(), core, |thread| !thread.starts_with("worker-"))
}

/// Ends such a daemon.
///
/// # Errors
/// If it has ended before, ends badly, or has to be killed.
pub fn stop(mut daemon: Daemon) -> Result<(), Error> {
    if !daemon.is_running() {
        return Err(format!("fwd ended by itself: {}", last_words(&daemon.kill())).into());
    }
    match daemon.try_stop(Signal::TERM) {
        Ok(exit) if exit.code == Some(0) => Ok(()),
        Ok(exit) => Err(format!("fwd ended badly: {}", last_words(&exit)).into()),
        Err(exit) => Err(format!("fwd did not end and was killed: {}", last_words(&exit)).into()),
    }
}

/// Starts it.
///
/// # Errors
/// If it does not get ready.
pub(super) fn start<'bed>(bed: &'bed Bed, setup: &Setup) -> Result<Box<dyn Forwarder + 'bed>, Error> {
    let Setup { rules, max_flows, half_open_guard } = setup;
    let mut builder = builder(bed)
        .rules(&rules.iptables_save())
        .rules6(&rules.ip6tables_save())
        .set("max", &max_flows.to_string());
    if !half_open_guard {
        builder = builder.set("half_open_percent", "100");
    }
    Ok(Box::new(Palisade(Some(launch(bed, builder)?))))
}

impl Palisade {
    fn daemon(&self) -> Result<&Daemon, Error> {
        self.0.as_ref().ok_or_else(|| "fwd has been ended".into())
    }
}

impl Forwarder for Palisade {
    fn check(&mut self) -> Result<(), Error> {
        let Some(daemon) = self.0.as_mut() else {
            return Err("fwd has been ended".into());
        };
        if daemon.is_running() {
            return Ok(());
        }
        let exit = self.0.take().map(Daemon::kill);
        Err(format!("fwd ended by itself: {}", exit.as_ref().map_or_else(String::new, last_words)).into())
    }

    fn swap_rules(&mut self, rules: &Rules) -> Result<(), Error> {
        let daemon = self.daemon()?;
        let [v4, v6] = [("swapped.v4", rules.iptables_save()), ("swapped.v6", rules.ip6tables_save())]
            .map(|(name, text)| daemon.file(name, &text));
        let exit = daemon.try_fwctl(&["apply", &v4.to_string_lossy(), "--rules6", &v6.to_string_lossy()]);
        if exit.code == Some(0) {
            return Ok(());
        }
        Err(format!("fwctl apply failed: {}", last_words(&exit)).into())
    }

    fn flows(&self) -> Option<u64> {
        let exit = self.daemon().ok()?.try_fwctl(&["stats", "--json"]);
        let stats: serde_json::Value = serde_json::from_str(&exit.stdout).ok()?;
        stats.pointer("/flows/count")?.as_u64()
    }

    fn end(&mut self) -> Result<(), Error> {
        self.0.take().map_or(Ok(()), stop)
    }
}
