//! Which cores there are for us, and pinning to one.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;

/// Cores this process may run on, ascending.
#[must_use]
pub fn allowed() -> Vec<u16> {
    let Ok(set) = sched_getaffinity(None) else { return vec![0] };
    (0..u16::try_from(CpuSet::MAX_CPU).unwrap_or(u16::MAX))
        .filter(|core| set.is_set(usize::from(*core)))
        .collect()
}

/// Pins the calling thread to a core.
///
/// # Errors
/// If the core does not exist or is not allowed to us.
pub fn pin(core: u16) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(usize::from(core));
    Ok(sched_setaffinity(None, &set)?)
}

/// Whether a thread of ours can be put on this core. Tried rather than read: a core outside the affinity we inherited
/// may still be within our cpuset.
#[must_use]
pub fn is_usable(core: u16) -> bool {
    std::thread::spawn(move || pin(core).is_ok()).join().unwrap_or(false)
}
