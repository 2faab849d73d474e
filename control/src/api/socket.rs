//! The socket file: made with its final mode and group before anyone can see it, held by one daemon at a time.
//!
//! The daemon that holds the lock on `PATH.lock` owns `PATH`. The kernel drops the lock with the process, so a socket
//! left by a crash is recognised and replaced, and a live daemon's never is.

use super::access::{Group, GroupNames, Groups};
use super::server::ServeError;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Root and the group may connect (connecting takes write permission), nobody else.
const SOCKET_MODE: u32 = 0o660;

/// Everybody may connect, for a socket has one group only; who may not read is sent away then.
const OPEN_SOCKET_MODE: u32 = 0o666;

/// Longest path of a Unix socket in bytes (`sun_path` less its terminator).
const PATH_MAX_BYTES: usize = 107;

/// A listening socket with a file; removes the file when dropped.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode, to recognise our own file at the end.
    id: (u64, u64),
    _lock: File,
}

/// Listens on `path`.
pub(super) fn listen(path: &Path, groups: &Groups) -> Result<(UnixListener, SocketFile), ServeError> {
    let failed = |action: &'static str| {
        let path = path.to_owned();
        move |source| ServeError::Socket { path, action, source }
    };
    if path.as_os_str().len() > PATH_MAX_BYTES {
        return Err(ServeError::PathTooLong { path: path.to_owned(), max: PATH_MAX_BYTES });
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(failed("create the directory of"))?;
    let lock = take_lock(path)?;
    check_in_the_way(path)?;

    // Bound in a directory nobody else can enter and moved out once mode and group are right.
    let private = dir.join(format!(".fwd{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&private);
    DirBuilder::new().mode(0o700).create(&private).map_err(failed("create a directory for"))?;
    let made = make(&private.join("s"), path, groups);
    let _ = std::fs::remove_dir_all(&private);
    let listener = made.map_err(failed("create"))?;
    let meta = std::fs::symlink_metadata(path).map_err(failed("look at"))?;
    Ok((listener, SocketFile { path: path.to_owned(), id: (meta.dev(), meta.ino()), _lock: lock }))
}

fn make(temporary: &Path, path: &Path, groups: &Groups) -> std::io::Result<UnixListener> {
    let listener = UnixListener::bind(temporary)?;
    let (gid, is_open) = groups.of_socket();
    let mode = if is_open { OPEN_SOCKET_MODE } else { SOCKET_MODE };
    if gid.is_some() {
        std::os::unix::fs::chown(temporary, None, gid)?;
    }
    std::fs::set_permissions(temporary, Permissions::from_mode(mode))?;
    std::fs::rename(temporary, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn take_lock(path: &Path) -> Result<File, ServeError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let failed = |source| ServeError::Socket { path: PathBuf::from(&lock_path), action: "lock", source };
    let mut options = File::options();
    // The directory may be the daemon's user's, and we are root: a link there could lead to any file.
    options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW);
    let mut lock = options.open(&lock_path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = lock.read_to_string(&mut pid);
            return Err(ServeError::InUse {
                path: path.to_owned(),
                by: format!("another fwd (process {})", pid.trim()),
            });
        }
        Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    // The process id is there for the message above only.
    let written =
        lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
    written.map_err(failed)?;
    Ok(lock)
}

/// Whether what stands at `path` may be replaced: nothing, or a socket nobody listens on.
fn check_in_the_way(path: &Path) -> Result<(), ServeError> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        return Err(ServeError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ServeError::InUse { path: path.to_owned(), by: "another program".to_owned() }),
        Err(_) => Ok(()),
    }
}

/// The numbers of groups.
pub(super) fn find_groups(names: &GroupNames) -> Result<Groups, ServeError> {
    let GroupNames { read, write } = names;
    let find =
        |name: &Option<String>, setting| name.as_deref().map(|name| find_group(name, setting)).transpose();
    Ok(Groups { read: find(read, "api.group")?, write: find(write, "api.write_group")? })
}

fn find_group(name: &str, setting: &'static str) -> Result<Group, ServeError> {
    let known = || nix::unistd::Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
    let gid = name.parse().ok().or_else(known);
    gid.map(|gid| Group { gid, name: name.to_owned() })
        .ok_or_else(|| ServeError::NoGroup { group: name.to_owned(), setting })
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours =
            std::fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.id);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
