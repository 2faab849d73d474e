//! How the kernel schedules a thread. Our own, because no library we use wraps the call.

#![allow(unsafe_code, reason = "a system call that takes a pointer")]

use crate::Error;
use rustix::process::Pid;
use std::io;

/// Who gets a core that several threads want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Who has no other policy and wants it, before this one.
    Idle,
    /// This one, before all that have no such policy or a lower number, until it sleeps. From 1 to 99.
    Fifo(u8),
}

impl Policy {
    /// Gives it to a thread.
    ///
    /// # Errors
    /// If there is no such thread, or the kernel refuses.
    pub(crate) fn give_to(self, thread: Pid) -> Result<(), Error> {
        let (policy, priority) = match self {
            Self::Idle => (libc::SCHED_IDLE, 0),
            Self::Fifo(priority) => (libc::SCHED_FIFO, libc::c_int::from(priority)),
        };
        let param = libc::sched_param { sched_priority: priority };
        // SAFETY: `param` is a live `sched_param`, which the call reads.
        let result = unsafe { libc::sched_setscheduler(thread.as_raw_pid(), policy, &raw const param) };
        if result == 0 {
            return Ok(());
        }
        Err(format!("scheduling a thread as {self:?}: {}", io::Error::last_os_error()).into())
    }
}
