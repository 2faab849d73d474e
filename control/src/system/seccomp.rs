//! The system calls a worker may make. It moves packets between rings in memory; the kernel it asks for little: to be woken
//! and to sleep, to send and receive what is in the rings, memory now and then, and to say what is wrong.
//!
//! Two filters. The first lets through what a worker calls; anything else fails with EPERM: a call that nobody thought of (a
//! newer C library's) then makes something fail, and no gateway end. The second ends the process at calls by which somebody
//! who has taken a worker over would go on: running programs, looking into other processes, new namespaces, kernel modules.
//! The kernel logs that (`audit: ... sig=31`).
//!
//! The list was made from what workers were seen to call (`strace -f` on real traffic in all idle modes, link changes, reloads,
//! handovers, a panic with a backtrace and the end) and what the C library's allocator and thread exit may call besides. On
//! the calling thread; there is no way back.

use crate::config::Seccomp;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;

/// How many filters a worker has by [`Seccomp::On`], and by nothing else.
pub const FILTERS: usize = 2;

/// What a worker calls.
const ALLOWED: &[libc::c_long] = &[
    // Rings: kicks, statistics, wake-ups, sleep.
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_getsockopt,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_sched_yield,
    // Locks, clocks, and the number of its own thread.
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getcpu,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    // Signals that reach the thread, its end, and the end of everything by a panic.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_close,
    // A backtrace reads the program's own file.
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    libc::SYS_writev,
];

/// What only somebody who should not be there calls.
const DEADLY: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_io_uring_setup,
    libc::SYS_setuid,
    libc::SYS_setresuid,
    libc::SYS_capset,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
];

/// Puts the filters on the calling thread.
///
/// # Errors
/// If the kernel has no seccomp or we run on a processor that the filter knows nothing of.
pub fn apply(filter: Seccomp) -> Result<(), String> {
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let programs = match filter {
        Seccomp::Off => Vec::new(),
        // Once the list of what is let through holds, no further filter can be put on.
        Seccomp::On => vec![deny_list(SeccompAction::KillProcess)?, allow_list(refuse)?],
        // What would end the process is not let through either.
        Seccomp::Log => vec![allow_list(SeccompAction::Log)?],
    };
    programs
        .iter()
        .try_for_each(|program| seccompiler::apply_filter(program).map_err(|error| error.to_string()))
}

fn arch() -> Result<TargetArch, String> {
    TargetArch::try_from(std::env::consts::ARCH).map_err(|error| error.to_string())
}

fn program(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, String> {
    let filter = SeccompFilter::new(rules, otherwise, matched, arch()?).map_err(|error| error.to_string())?;
    BpfProgram::try_from(filter).map_err(|error| error.to_string())
}

fn allow_list(refuse: SeccompAction) -> Result<BpfProgram, String> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // Files are opened to be read, by a backtrace.
    let writes = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;
    rules.insert(libc::SYS_openat, only_without(2, writes)?);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, only_without(1, writes)?);
    // No memory that is run: nothing is loaded any more.
    rules.insert(libc::SYS_mmap, only_without(2, libc::PROT_EXEC)?);
    rules.insert(libc::SYS_mprotect, only_without(2, libc::PROT_EXEC)?);
    // The standard library looks, in builds that check themselves, whether what it closes is open.
    rules.insert(libc::SYS_fcntl, only(1, SeccompCmpOp::Eq, libc::F_GETFD)?);
    program(rules, refuse, SeccompAction::Allow)
}

/// A call is let through if none of these bits is set in an argument.
fn only_without(argument: u8, bits: i32) -> Result<Vec<SeccompRule>, String> {
    only(argument, SeccompCmpOp::MaskedEq(u64::from(bits.unsigned_abs())), 0)
}

fn only(argument: u8, op: SeccompCmpOp, value: i32) -> Result<Vec<SeccompRule>, String> {
    let value = u64::from(value.unsigned_abs());
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value);
    let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
    rule.map(|rule| vec![rule]).map_err(|error| error.to_string())
}

fn deny_list(kill: SeccompAction) -> Result<BpfProgram, String> {
    let rules = DEADLY.iter().map(|call| (*call, Vec::new())).collect();
    program(rules, SeccompAction::Allow, kill)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::process::Command;

    /// What a worker does, and what it may not, on a thread under the filter.
    #[test]
    fn a_worker_can_do_its_work_and_nothing_else() {
        std::thread::spawn(|| {
            let (here, there) = std::os::unix::net::UnixDatagram::pair().unwrap();
            let waker = dataplane::worker::Waker::new().unwrap();
            apply(Seccomp::On).unwrap();
            // Memory, locks, clocks, sleep, sockets that are open, the program's own file.
            let many: Vec<Vec<u8>> = (0..100).map(|at| vec![1; at * 10_000]).collect();
            assert_eq!(many.iter().map(Vec::len).sum::<usize>(), 49_500_000);
            waker.wait(std::time::Duration::from_millis(1), std::iter::empty(), || true);
            std::thread::sleep(std::time::Duration::from_millis(1));
            std::thread::yield_now();
            assert!(std::time::Instant::now().elapsed().as_secs() < 5);
            here.send(b"x").unwrap();
            assert_eq!(there.recv(&mut [0; 8]).unwrap(), 1);
            assert!(std::fs::read("/proc/self/status").is_ok());
            assert!(std::panic::catch_unwind(|| panic!("with a backtrace, if asked for one")).is_err());
            // No sockets, no files to write, no threads, no processes looked at.
            let refused = |error: std::io::Error| error.kind() == ErrorKind::PermissionDenied;
            assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_err_and(refused));
            assert!(std::os::unix::net::UnixStream::pair().is_err_and(refused));
            let file = std::env::temp_dir().join("palisade-seccomp-test");
            assert!(std::fs::write(&file, b"").is_err_and(refused) && !file.exists());
            assert!(std::thread::Builder::new().spawn(|| ()).is_err());
            assert!(std::fs::remove_file("/nonexistent").is_err_and(refused));
            assert!(std::env::set_current_dir("/").is_err_and(refused));
        })
        .join()
        .unwrap();
        assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_ok(), "other threads are as free as before");
    }

    /// Runs a program under the filter: ends this process, which the next test starts as a child.
    #[test]
    #[ignore = "ends the process"]
    fn running_a_program_under_the_filter() {
        let _ = std::thread::spawn(|| {
            apply(Seccomp::On).unwrap();
            // Exec without a fork: that is what is asked about.
            let error = std::os::unix::process::CommandExt::exec(&mut Command::new("/bin/true"));
            panic!("neither run nor killed: {error}");
        })
        .join();
        std::process::exit(3);
    }

    #[test]
    fn who_runs_programs_in_a_worker_is_killed() {
        use std::os::unix::process::ExitStatusExt as _;
        let name = "system::seccomp::tests::running_a_program_under_the_filter";
        let own = std::env::current_exe().unwrap();
        let ended = Command::new(own).args(["--exact", name, "--ignored"]).output().unwrap();
        assert_eq!(ended.status.signal(), Some(libc::SIGSYS), "{ended:?}");
    }

    #[test]
    fn off_is_off() {
        std::thread::spawn(|| {
            apply(Seccomp::Off).unwrap();
            assert!(std::net::UdpSocket::bind("127.0.0.1:0").is_ok());
        })
        .join()
        .unwrap();
    }
}
