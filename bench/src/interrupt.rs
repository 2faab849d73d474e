//! Ctrl-C during a run: the measurement in progress is given up, and everything that was set up is put back by the
//! destructors of what holds it. A second one ends the process at once.

use crate::Error;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on SIGINT and SIGTERM are noted, to be found by [`check`].
///
/// # Errors
/// If the kernel does not let them be caught.
pub fn catch() -> Result<(), Error> {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset and only sets it.
        flag::register_conditional_shutdown(signal, 130, Arc::clone(asked))?;
        flag::register(signal, Arc::clone(asked))?;
    }
    Ok(())
}

/// Whether the run was asked to end.
#[must_use]
pub fn is_asked() -> bool {
    ASKED.get().is_some_and(|asked| asked.load(Ordering::Relaxed))
}

/// Fails if the run was asked to end.
///
/// # Errors
/// Then.
pub fn check() -> Result<(), Error> {
    if is_asked() { Err("interrupted".into()) } else { Ok(()) }
}
