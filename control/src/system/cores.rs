//! Which cores there are for us, who has them, and who comes first there.

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

/// Takes the calling thread, and what it starts, off these cores; false if no others are allowed to it.
///
/// # Errors
/// If the kernel refuses.
pub fn leave(cores: &[u16]) -> io::Result<bool> {
    let mut set = CpuSet::new();
    for core in allowed().into_iter().filter(|core| !cores.contains(core)) {
        set.set(usize::from(core));
    }
    if set.count() == 0 {
        return Ok(false);
    }
    sched_setaffinity(None, &set)?;
    Ok(true)
}

/// Puts the calling thread behind whatever else wants its core, for good. If that cannot be, others are only slower.
pub fn come_last() {
    let _ = rustix::process::nice(19);
}

/// Whether a thread of ours can be put on this core. Tried rather than read: a core outside the affinity we inherited
/// may still be within our cpuset.
#[must_use]
pub fn is_usable(core: u16) -> bool {
    std::thread::spawn(move || pin(core).is_ok()).join().unwrap_or(false)
}
