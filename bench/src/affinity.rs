//! Where threads run. Measurements are worth nothing while the scheduler moves the measured around.

use crate::Error;
use rustix::process::{Pid, getpriority_process, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::thread;

/// Pins the calling thread, and what it starts, to one core.
///
/// # Errors
/// If there is no such core.
pub fn pin_to(core: usize) -> Result<(), Error> {
    pin(None, core)
}

/// Does something in a thread of its own: measurements pin theirs, and what they start, to a core, and the next one may need
/// them all.
pub fn apart<T: Send>(measure: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(measure).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Pins the threads of the kernel that poll `iface` (threaded NAPI) to one core and gives them this process's nice value;
/// returns how many there are. A forwarder that is more urgent than they are would starve them, and what it sends with them.
/// Interfaces of the same name in other namespaces have threads of the same name: those are meant too.
///
/// # Errors
/// If the kernel refuses.
pub fn pin_napi_threads(iface: &str, core: usize) -> Result<usize, Error> {
    let prefix = format!("napi/{iface}-");
    let nice = getpriority_process(None)?;
    let mut count = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.starts_with(&prefix) {
            pin(Some(pid), core)?;
            setpriority_process(Some(pid), nice)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Pins those threads of a process whose name `is_meant` to one core.
///
/// # Errors
/// If there is no such process, or the kernel refuses.
pub fn pin_threads(pid: u32, core: usize, is_meant: impl Fn(&str) -> bool) -> Result<(), Error> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let Some(thread) =
            entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // One that has ended meanwhile has no name.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if !name.is_empty() && is_meant(name.trim()) {
            pin(Some(thread), core)?;
        }
    }
    Ok(())
}

/// Seconds that the calling thread has had a core.
#[must_use]
pub fn thread_secs() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn pin(pid: Option<Pid>, core: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(pid, &set).map_err(|error| format!("pin to core {core}: {error}").into())
}
