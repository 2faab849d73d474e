//! The rights the daemon gives up once it is set up, and the few it keeps.
//!
//! Set-up needs root: XDP programs are loaded, AF_XDP sockets opened, memory locked, interrupts moved. What runs afterwards
//! needs one right, CAP_NET_ADMIN: to point a NIC's RSS table elsewhere, and to put at exit back what was changed (offloads,
//! queue counts, RSS, the link). On kernels before 5.19 the map of counters cannot be read without CAP_BPF, which is kept
//! there as well. Everything else goes, for good: user and groups change to those of a system user, the bounding set and the
//! ambient set are emptied, and nothing that is executed can have more (`no_new_privs`). Workers go further ([`confine`]):
//! they have no right at all, and a filter of system calls ([`super::seccomp`]).
//!
//! Files that only root can open and that are written at exit are opened before ([`crate::net::held`]); directories that are
//! written to are handed over to the user.
//!
//! The first thread, before any other is started: rights belong to threads, and these inherit what is left. Invariant: either
//! all is given up that is to be given up, or the daemon does not start.

use super::seccomp;
use crate::config::{Config, Seccomp};
use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::ffi::{CString, OsStr};
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// The user of `privileges.user = "auto"`.
const USUAL: &str = "palisade";

/// What the daemon is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// What it is, with fewer rights; why, if that is worth a warning.
    Stay(Option<String>),
    /// This user.
    Become(Identity),
}

/// A user as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What `privileges.user` asks for.
///
/// # Errors
/// If there is no such user or group, or we may not become it. Says what to do.
pub fn target(setting: &str) -> Result<Target, String> {
    let own = rustix::process::geteuid().as_raw();
    let name = match setting {
        "root" => return Ok(Target::Stay(None)),
        "auto" if own != 0 => return Ok(Target::Stay(None)),
        "auto" => match identity(USUAL) {
            Ok(identity) => return Ok(Target::Become(identity)),
            Err(_) => {
                let why = format!(
                    "there is no user {USUAL}: the daemon goes on as root, with fewer rights. `useradd --system \
                     --no-create-home --shell /usr/sbin/nologin {USUAL}` makes one; privileges.user = \"root\" keeps root \
                     without this warning"
                );
                return Ok(Target::Stay(Some(why)));
            }
        },
        name => name,
    };
    let identity = identity(name)?;
    match own {
        0 => Ok(Target::Become(identity)),
        own if own == identity.uid => Ok(Target::Stay(None)),
        _ => Err(format!(
            "privileges.user = \"{name}\": only root can become another user. Start fwd as root, or as {name}"
        )),
    }
}

/// Whether there is such a user, for a setting that names one.
///
/// # Errors
/// If not, and how to make it.
pub fn exists(setting: &str) -> Result<(), String> {
    if matches!(setting, "auto" | "root") { Ok(()) } else { identity(setting).map(drop) }
}

/// A user by name, or `USER:GROUP`.
fn identity(name: &str) -> Result<Identity, String> {
    let (user_name, group_name) =
        name.split_once(':').map_or((name, None), |(user, group)| (user, Some(group)));
    let user = User::from_name(user_name).ok().flatten().ok_or_else(|| {
        format!(
            "privileges.user: there is no user `{user_name}`: make it (`useradd --system --no-create-home --shell \
             /usr/sbin/nologin {user_name}`), or set privileges.user to \"auto\" or \"root\""
        )
    })?;
    let gid = match group_name {
        None => user.gid,
        Some(group) => Group::from_name(group).ok().flatten().map(|group| group.gid).ok_or_else(|| {
            format!("privileges.user: there is no group `{group}`: make it (`groupadd --system {group}`)")
        })?,
    };
    let groups = CString::new(user.name.as_str())
        .map_err(io::Error::other)
        .and_then(|name| Ok(nix::unistd::getgrouplist(&name, gid)?))
        .map_err(|error| {
            format!("privileges.user: the groups of {user_name} cannot be looked up: {error}")
        })?;
    let groups = groups.into_iter().map(Gid::as_raw).collect();
    Ok(Identity { name: user.name, uid: user.uid.as_raw(), gid: gid.as_raw(), groups })
}

impl Identity {
    /// Whether a file's mode lets it do all of `wanted` (4 read, 2 write, 1 search).
    fn may(&self, meta: &Metadata, wanted: u32) -> bool {
        let mode = meta.mode();
        let bits = if meta.uid() == self.uid {
            mode >> 6
        } else if meta.gid() == self.gid || self.groups.contains(&meta.gid()) {
            mode >> 3
        } else {
            mode
        };
        bits & wanted == wanted
    }

    /// Whether it can come to a file, and what is in the way.
    fn reaches(&self, path: &Path) -> Result<(), String> {
        let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
        for dir in path.ancestors().skip(1) {
            let meta = fs::metadata(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            if !self.may(&meta, 1) {
                return Err(format!("{} cannot be entered by user {}", dir.display(), self.name));
            }
        }
        Ok(())
    }

    /// Whether it can read a file.
    fn reads(&self, path: &Path) -> Result<(), String> {
        self.reaches(path)?;
        let meta = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if self.may(&meta, 4) {
            return Ok(());
        }
        let (path, name) = (path.display(), &self.name);
        Err(format!("{path} cannot be read by user {name} (`chgrp {} {path}; chmod g+r {path}`)", self.gid))
    }
}

/// Hands over to a user what the daemon writes to from now on.
///
/// # Errors
/// What cannot be handed over, and how to do it by hand; some of it may have been.
pub fn hand_over(config: &Config, identity: &Identity) -> Result<(), String> {
    let mut dirs: Vec<(&str, &Path, u32)> =
        vec![("state.dir", &config.state.dir, 0o700), ("net.journal_dir", &config.net.journal_dir, 0o755)];
    dirs.extend(config.log.nflog_dir.as_deref().map(|dir| ("log.nflog_dir", dir, 0o750)));
    for (setting, dir, mode) in dirs {
        hand_over_dir(dir, mode, identity).map_err(|why| format!("{setting}: {why}"))?;
    }
    if let Some(audit) = crate::audit::path_of(config).filter(|path| path.parent() != Some(&config.state.dir))
        && let Some(dir) = audit.parent()
    {
        hand_over_dir(dir, 0o750, identity).map_err(|why| format!("log.audit: {why}"))?;
    }
    Ok(())
}

/// What the daemon will not be able to do as that user, and could as root; each is worth a warning.
#[must_use]
pub fn shortcomings(config: &Config, source: Option<&Path>, identity: &Identity) -> Vec<String> {
    let rules = &config.rules;
    let files = [source, rules.v4.as_deref(), rules.v6.as_deref(), rules.sets.as_deref()];
    let unreadable = files.into_iter().flatten().filter_map(|path| identity.reads(path).err());
    let mut all: Vec<String> = unreadable.map(|why| format!("SIGHUP will not work: {why}")).collect();
    if let Some(dir) = config.api.socket.parent()
        && !fs::metadata(dir).is_ok_and(|meta| identity.may(&meta, 3))
    {
        all.push(format!(
            "{} cannot be removed at exit: the directory is not {}'s",
            config.api.socket.display(),
            identity.name
        ));
    }
    all
}

/// Whether a file of this name is one that the daemon makes. Nothing else is ever handed over.
fn is_ours(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let ends = |end: &str| path.extension().is_some_and(|extension| extension == end);
    matches!(name, "history" | "lock" | "unfinished")
        || name.starts_with("audit.log")
        || name.starts_with("nflog-")
        || name.starts_with("palisade-")
        || name.ends_with(".sock")
        || name.ends_with(".sock.lock")
        || ["restore", "new", "json", "v4", "v6"].into_iter().any(ends)
}

fn hand_over_dir(dir: &Path, mode: u32, identity: &Identity) -> Result<(), String> {
    let trouble = |error: io::Error| format!("{}: {error}", dir.display());
    let is_new = !dir.exists();
    if let (true, Some(parent)) = (is_new, dir.parent()) {
        fs::create_dir_all(parent).map_err(trouble)?;
        DirBuilder::new().mode(mode).create(dir).map_err(trouble)?;
    }
    identity.reaches(dir)?;
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).map_err(trouble)? {
        entries.push(entry.map_err(trouble)?.path());
    }
    let meta = fs::metadata(dir).map_err(trouble)?;
    let (uid, gid) = (Some(identity.uid), Some(identity.gid));
    if is_new || (!identity.may(&meta, 7) && entries.iter().all(|path| is_ours(path))) {
        chown(dir, uid, gid).map_err(trouble)?;
    } else if !identity.may(&meta, 7) {
        let (dir, name) = (dir.display(), &identity.name);
        return Err(format!(
            "{dir} cannot be written to by user {name}, and holds files that are not ours: `chown {name} {dir}`, or name a \
             directory of its own"
        ));
    }
    let open = rustix::fs::open(dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let open = open.map_err(|error| trouble(error.into()))?;
    hand_over_entries(&open, identity, false).map_err(trouble)
}

/// Hands over what is ours in a directory, by the directory itself: whoever may write there could put a link in the place of
/// what was just looked at.
fn hand_over_entries(dir: &OwnedFd, identity: &Identity, is_inner: bool) -> io::Result<()> {
    let uid = Some(rustix::fs::Uid::from_raw(identity.uid));
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let meta = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(meta.st_mode);
        let is_meant = if is_inner { kind.is_file() } else { !kind.is_symlink() };
        if !is_meant || !is_ours(Path::new(OsStr::from_bytes(name.to_bytes()))) || meta.st_uid == identity.uid
        {
            continue;
        }
        // Groups stay: the socket's says who may connect.
        rustix::fs::chownat(dir, name, uid, None, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind.is_dir() {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            hand_over_entries(&rustix::fs::openat(dir, name, flags, Mode::empty())?, identity, true)?;
        }
    }
    Ok(())
}

/// What is kept.
fn kept() -> CapabilitySet {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0_u32));
    let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if kernel >= (5, 19) { CapabilitySet::NET_ADMIN } else { CapabilitySet::NET_ADMIN | CapabilitySet::BPF }
}

/// Gives up everything but what is needed to run and to end.
///
/// # Errors
/// What the kernel refuses; the process must not go on then.
pub fn drop_all_but_needed(target: &Target) -> io::Result<()> {
    empty_bounding_set()?;
    let now = rustix::thread::capabilities(None)?;
    if let Target::Become(Identity { uid, gid, groups, .. }) = target {
        // What is permitted outlives the change of user this way; what is effective is set again below.
        rustix::thread::set_keep_capabilities(true)?;
        let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        nix::unistd::setgroups(&groups)?;
        let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
    }
    let left = kept() & now.permitted;
    set(left)?;
    rustix::thread::set_keep_capabilities(false)?;
    rustix::thread::set_no_new_privs(true)?;
    let names: Vec<String> = left.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    let rights = names.join(" and ");
    match target {
        Target::Become(identity) => info!("runs as {} (uid {}) with {rights}", identity.name, identity.uid),
        Target::Stay(_) => info!("runs with {rights}"),
    }
    Ok(())
}

fn set(left: CapabilitySet) -> io::Result<()> {
    // The ambient set is what a program would inherit; it goes with the inheritable one.
    rustix::thread::clear_ambient_capability_set()?;
    let sets = CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Nothing that is executed from now on can have any right. Needs CAP_SETPCAP; without it the set stays as whoever started us
/// has made it, and `no_new_privs` does the same job.
fn empty_bounding_set() -> io::Result<()> {
    if !rustix::thread::capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for bit in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        // Numbers that the kernel does not know end the list.
        if rustix::thread::capability_is_in_bounding_set(one).is_err() {
            break;
        }
        rustix::thread::remove_capability_from_bounding_set(one)?;
    }
    Ok(())
}

/// Takes a worker's rights from the calling thread: all capabilities, and all system calls but those it makes. What cannot
/// be is told; a worker with more rights than it needs still moves packets.
pub fn confine(filter: Seccomp) {
    if let Err(error) = set(CapabilitySet::empty()) {
        warn!("a worker keeps rights that it does not need: {error}");
    }
    if let Err(why) = seccomp::apply(filter) {
        warn!("a worker runs without its filter of system calls: {why}");
    }
}

#[cfg(test)]
mod tests;
