//! What the process may do, checked before anything is touched, so that a missing right is one clear message.

use std::fs;

/// Rights we cannot do without: bit in `CapEff`, name, what for. Numbers: `include/uapi/linux/capability.h`.
const NEEDED: &[(u32, &str, &str)] = &[
    (12, "CAP_NET_ADMIN", "attach XDP programs and set up NICs"),
    (13, "CAP_NET_RAW", "open AF_XDP sockets"),
    (39, "CAP_BPF", "load XDP programs"),
];
const SYS_ADMIN: u32 = 21;
const IPC_LOCK: u32 = 14;

/// Which rights are missing, as one message; `None` if all are there.
#[must_use]
pub fn missing() -> Option<String> {
    let effective = effective()?;
    // CAP_SYS_ADMIN includes CAP_BPF.
    let has = |bit: u32| effective >> bit & 1 == 1 || (bit == 39 && effective >> SYS_ADMIN & 1 == 1);
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(bit, ..)| !has(*bit))
        .map(|(_, name, why)| format!("{name} (to {why})"))
        .collect();
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "missing {}. Run as root, or give the program its rights: setcap \
         cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock+ep fwd",
        missing.join(", ")
    ))
}

/// Whether this much memory may be locked: with CAP_IPC_LOCK, or within the limit. The error says what to do.
///
/// # Errors
/// If it may not.
pub fn may_lock(bytes: u64) -> Result<(), String> {
    match lock_limit() {
        Some(limit) if limit < bytes => Err(format!(
            "{bytes} bytes of frame memory have to be locked, but RLIMIT_MEMLOCK is {limit} bytes and CAP_IPC_LOCK is \
             missing: raise the limit (`ulimit -l unlimited`; systemd: LimitMEMLOCK=infinity) or lower \
             umem.frames_per_worker"
        )),
        _ => Ok(()),
    }
}

/// Bytes of memory that may be locked; `None`: any number, as with CAP_IPC_LOCK.
#[must_use]
pub fn lock_limit() -> Option<u64> {
    if effective().is_none_or(|caps| caps >> IPC_LOCK & 1 == 1) {
        return None;
    }
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}

/// The effective capabilities; `None` if `/proc` does not tell.
fn effective() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}
