//! Attaching the program to a NIC and telling it which sockets serve which queues.

use crate::occupant::Occupant;
use crate::skeleton::{PalisadeSkel, PalisadeSkelBuilder};
use crate::sys::{self, Features};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, OpenObject, PrintLevel};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver if it can, else in the generic hook.
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's generic hook: works everywhere, slower.
    Generic,
}

/// Why the program is not on the NIC.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The NIC has a program that is not ours to remove.
    #[error(
        "{iface} already has {occupant}. It is not ours to remove: stop whoever attached it, or detach it with \
         `ip link set dev {iface} xdp off`"
    )]
    Occupied {
        /// Interface name.
        iface: String,
        /// What is there.
        occupant: Box<Occupant>,
    },
    /// The kernel did not take the program.
    #[error("cannot load the XDP program: {source}. {hint}{log}")]
    Load {
        /// What libbpf said.
        source: libbpf_rs::Error,
        /// What to do.
        hint: &'static str,
        /// libbpf's own words, each on a line.
        log: String,
    },
    /// The NIC did not take the program.
    #[error("cannot attach the XDP program to {iface} in {mode} mode: {source}. {hint}{log}")]
    Attach {
        /// Interface name.
        iface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
        /// The kernel's own words, if it gave any.
        log: String,
    },
    /// The NIC could not be asked.
    #[error("cannot ask {iface} about XDP: {source}")]
    Query {
        /// Interface name.
        iface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A socket could not be entered into the queue map.
    #[error("cannot register the socket of queue {queue}: {source}")]
    Register {
        /// Queue number.
        queue: u32,
        /// What libbpf said.
        source: libbpf_rs::Error,
    },
}

/// Our program on one NIC. Dropping it detaches.
pub struct XdpPort {
    // The skeleton borrows `_storage`, which is heap memory that stays where it is; fields drop in order.
    skeleton: PalisadeSkel<'static>,
    link: Option<OwnedFd>,
    iface: String,
    ifindex: i32,
    native: bool,
    native_refusal: Option<String>,
    features: Features,
}

impl std::fmt::Debug for XdpPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XdpPort")
            .field("iface", &self.iface)
            .field("native", &self.native)
            .finish_non_exhaustive()
    }
}

impl XdpPort {
    /// Loads the program for a NIC without attaching it, so that sockets can be registered before the first frame. A
    /// program of ours that a dead process left behind is removed.
    ///
    /// # Errors
    /// If somebody else's program is there, or the kernel refuses ours.
    pub fn load(iface: &str, ifindex: i32) -> Result<Self, AttachError> {
        let query = |source| AttachError::Query { iface: iface.to_owned(), source };
        let attached = sys::query(ifindex).map_err(query)?;
        for (program, generic) in [(attached.native, false), (attached.generic, true)] {
            if program == 0 {
                continue;
            }
            let occupant = Occupant::describe(ifindex, program, generic);
            if !occupant.is_stale_ours() {
                return Err(AttachError::Occupied { iface: iface.to_owned(), occupant: Box::new(occupant) });
            }
            occupant.detach(ifindex).map_err(query)?;
        }
        capture_log();
        let load_error =
            |source: libbpf_rs::Error| AttachError::Load { source, hint: LOAD_HINT, log: taken_log() };
        // The storage lives as long as the process: one small allocation per NIC and start.
        let storage: &'static mut MaybeUninit<OpenObject> = Box::leak(Box::new(MaybeUninit::uninit()));
        let open = PalisadeSkelBuilder::default().open(storage).map_err(load_error)?;
        let skeleton = open.load().map_err(load_error)?;
        Ok(Self {
            skeleton,
            link: None,
            iface: iface.to_owned(),
            ifindex,
            native: false,
            native_refusal: None,
            features: attached.features,
        })
    }

    /// Lets frames of a queue go to a socket.
    ///
    /// # Errors
    /// If the kernel refuses, e.g. a queue number beyond the map.
    pub fn register(&self, queue: u32, socket: RawFd) -> Result<(), AttachError> {
        let value = socket.to_ne_bytes();
        let update = self.skeleton.maps.palisade_xsks.update(&queue.to_ne_bytes(), &value, MapFlags::ANY);
        update.map_err(|source| AttachError::Register { queue, source })
    }

    /// Attaches the program: frames flow from here on.
    ///
    /// # Errors
    /// If the NIC refuses it in every mode asked for.
    pub fn attach(&mut self, mode: AttachMode) -> Result<(), AttachError> {
        if mode != AttachMode::Generic {
            match self.try_attach("native", libbpf_sys::XDP_FLAGS_DRV_MODE) {
                Ok(()) => {
                    self.native = true;
                    return Ok(());
                }
                Err(error) if mode == AttachMode::Native => return Err(error),
                // Somebody was faster: that is no matter of modes.
                Err(error @ AttachError::Occupied { .. }) => return Err(error),
                Err(error) => self.native_refusal = Some(error.to_string()),
            }
        }
        self.try_attach("generic", libbpf_sys::XDP_FLAGS_SKB_MODE)
    }

    fn try_attach(&mut self, mode: &'static str, flags: u32) -> Result<(), AttachError> {
        capture_log();
        let program = self.skeleton.progs.palisade_xdp.as_fd();
        match sys::link_create(program, self.ifindex, flags) {
            Ok(link) => {
                self.link = Some(link);
                Ok(())
            }
            Err(source) => {
                let hint = attach_hint(source.raw_os_error().unwrap_or(0));
                Err(AttachError::Attach { iface: self.iface.clone(), mode, source, hint, log: taken_log() })
            }
        }
    }

    /// Detaches the program; frames go to the host's stack again.
    pub fn detach(&mut self) {
        self.link = None;
    }

    /// Whether the program runs in the driver.
    #[must_use]
    pub const fn is_native(&self) -> bool {
        self.native
    }

    /// Why the program does not run in the driver, if it was tried.
    #[must_use]
    pub fn native_refusal(&self) -> Option<&str> {
        self.native_refusal.as_deref()
    }

    /// What the driver says it can do.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }

    /// Frames that came in on a queue without a socket.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let per_cpu = self.skeleton.maps.palisade_lost.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY);
        let counts = per_cpu.ok().flatten().unwrap_or_default();
        counts
            .iter()
            .filter_map(|count| count.first_chunk::<8>())
            .map(|count| u64::from_ne_bytes(*count))
            .sum()
    }
}

const LOAD_HINT: &str = "Needed: root, or CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW, and a kernel with XDP multi-buffer \
                         (5.18 or later)";

/// What an attach error means. Numbers and causes as seen on veth; drivers use the same ones.
fn attach_hint(errno: i32) -> &'static str {
    match errno {
        libc::ERANGE => "The MTU of this NIC or its peer is too large for XDP: lower it",
        libc::ENOSPC => {
            "The NIC has fewer rx queues than its peer has tx queues: make the counts equal (`ethtool -L`, or `ip link \
             add ... numrxqueues N numtxqueues N`)"
        }
        libc::EBUSY | libc::EEXIST => "Another XDP program was attached meanwhile",
        libc::EOPNOTSUPP => "The driver has no native XDP: set xdp.mode to auto or generic",
        libc::EPERM | libc::EACCES => "Run as root, or with CAP_NET_ADMIN and CAP_BPF",
        libc::ENODEV => "The interface is gone",
        libc::EINVAL => "An offload such as LRO may be in the way: `ethtool -K IF lro off`",
        _ => "See the kernel log",
    }
}

/// libbpf's messages since [`capture_log`]: what went wrong in its own words, kept off the daemon's output.
static LOG: Mutex<String> = Mutex::new(String::new());

fn capture_log() {
    LOG.lock().unwrap_or_else(PoisonError::into_inner).clear();
    libbpf_rs::set_print(Some((PrintLevel::Warn, |_, message| {
        let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() < 4096 {
            log.push_str("\n  ");
            log.push_str(message.trim_end());
        }
    })));
}

fn taken_log() -> String {
    std::mem::take(&mut *LOG.lock().unwrap_or_else(PoisonError::into_inner))
}
