//! Whose XDP program a NIC already has.

use crate::PROGRAM_NAME;
use crate::sys::{self, Attached, Features};
use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo, ProgInfoIter};
use std::fmt;
use std::fs;
use std::io;

/// A process that holds a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// A program found on a NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// Name given to the program by whoever loaded it; empty if it has none.
    pub program: String,
    /// The kernel's id of the program.
    pub program_id: u32,
    /// The link that attaches it; `None` if it was attached by netlink and so belongs to nobody alive.
    pub link_id: Option<u32>,
    /// Who holds the link, as far as `/proc` tells.
    pub holder: Option<Holder>,
    /// User id of whoever loaded it.
    pub loaded_by_uid: Option<u32>,
    /// Whether it runs in the kernel's generic hook.
    pub generic: bool,
}

impl Occupant {
    /// Describes the program with this id on this NIC.
    pub(crate) fn describe(ifindex: i32, program_id: u32, generic: bool) -> Self {
        let info = ProgInfoIter::default().find(|program| program.id == program_id);
        let link_id = LinkInfoIter::default().find_map(|link| match link.info {
            LinkTypeInfo::Xdp(xdp)
                if link.prog_id == program_id && i64::from(xdp.ifindex) == i64::from(ifindex) =>
            {
                Some(link.id)
            }
            _ => None,
        });
        Self {
            program: info.as_ref().map(|info| info.name.to_string_lossy().into_owned()).unwrap_or_default(),
            program_id,
            link_id,
            holder: link_id.and_then(holder_of),
            loaded_by_uid: info.map(|info| info.created_by_uid),
            generic,
        }
    }

    /// Detaches a program that was attached by netlink.
    pub(crate) fn detach(&self, ifindex: i32) -> io::Result<()> {
        let mode = if self.generic { libbpf_sys::XDP_FLAGS_SKB_MODE } else { libbpf_sys::XDP_FLAGS_DRV_MODE };
        sys::detach(ifindex, mode)
    }

    /// Whether it is our program, left behind by a process that is gone.
    #[must_use]
    pub fn is_stale_ours(&self) -> bool {
        self.program == PROGRAM_NAME && self.link_id.is_none()
    }
}

/// What is attached to a NIC, and what its driver can do.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn inspect(ifindex: u32) -> io::Result<(Vec<Occupant>, Features)> {
    let ifindex = i32::try_from(ifindex).map_err(io::Error::other)?;
    let Attached { native, generic, features } = sys::query(ifindex)?;
    let programs = [(native, false), (generic, true)].into_iter().filter(|(program, _)| *program != 0);
    Ok((programs.map(|(program, generic)| Occupant::describe(ifindex, program, generic)).collect(), features))
}

/// Takes a program of ours off a NIC that nobody holds any more.
///
/// # Errors
/// If there is no such program, or the kernel refuses.
pub fn take_off(ifindex: u32, program_id: u32) -> io::Result<()> {
    let (occupants, _) = inspect(ifindex)?;
    let stale =
        occupants.iter().find(|occupant| occupant.program_id == program_id && occupant.is_stale_ours());
    let stale = stale.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it is there no longer"))?;
    stale.detach(i32::try_from(ifindex).map_err(io::Error::other)?)
}

/// The process that has a descriptor of this link, if we may see it.
fn holder_of(link_id: u32) -> Option<Holder> {
    let wanted = format!("link_id:\t{link_id}");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fdinfo")) else { continue };
        let has_link = |text: String| text.lines().any(|line| line == wanted);
        if descriptors.flatten().any(|fd| fs::read_to_string(fd.path()).is_ok_and(has_link)) {
            let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(Holder { pid, comm: comm.trim().to_owned() });
        }
    }
    None
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.program.is_empty() { "(no name)" } else { &self.program };
        write!(f, "XDP program `{name}` (id {}", self.program_id)?;
        if let Some(uid) = self.loaded_by_uid {
            write!(f, ", loaded by uid {uid}")?;
        }
        match (self.link_id, &self.holder) {
            (Some(link), Some(Holder { pid, comm })) => write!(f, ", link {link} held by {comm}, pid {pid})"),
            (Some(link), None) => write!(f, ", link {link})"),
            (None, _) => write!(f, ", attached by netlink)"),
        }
    }
}
