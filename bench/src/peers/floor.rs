//! The floor as a peer: `floor` in a process of its own ([`crate::floor`]).

use super::Forwarder;
use super::child::{Bare, Child};
use crate::Error;
use crate::bed::Bed;
use palisade_tests::daemon::binary;
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT};
use rustix::process::Signal;

/// Starts it.
///
/// # Errors
/// If it does not get ready.
pub(super) fn start<'bed>(bed: &'bed Bed) -> Result<Box<dyn Forwarder + 'bed>, Error> {
    let core = bed.worker_core().to_string();
    let args = ["--left", GATEWAY_LEFT, "--right", GATEWAY_RIGHT, "--cpu", &core];
    let mut child = Child::new("floor", bed.lab.gateway.spawn(&binary("floor").to_string_lossy(), &args));
    child.wait_for_line("ready")?;
    Ok(Box::new(Bare(child, Signal::TERM)))
}
