//! What can go wrong with AF_XDP, and what to do about it.

use std::io;

/// An AF_XDP operation failed.
#[derive(Debug, thiserror::Error)]
pub enum XskError {
    /// No memory for frames.
    #[error("cannot map {bytes} bytes of frame memory: {source}. {hint}")]
    Memory {
        /// How much was asked for.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The frame geometry is not one that AF_XDP knows.
    #[error("frame size {frame_size} is not 2048 or 4096 bytes")]
    FrameSize {
        /// What was asked for.
        frame_size: u32,
    },
    /// A socket could not be set up.
    #[error("AF_XDP socket on interface {ifindex} queue {queue}: {step}: {source}. {hint}")]
    Socket {
        /// Interface index.
        ifindex: u32,
        /// Queue number.
        queue: u32,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
}

impl XskError {
    /// The kernel's error number, if it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Memory { source, .. } | Self::Socket { source, .. } => source.raw_os_error(),
            Self::FrameSize { .. } => None,
        }
    }

    /// The last system call's error on a queue's socket.
    pub(super) fn socket(ifindex: u32, queue: u32, step: &'static str) -> Self {
        let source = io::Error::last_os_error();
        let hint = socket_hint(source.raw_os_error().unwrap_or(0));
        Self::Socket { ifindex, queue, step, source, hint }
    }
}

fn socket_hint(errno: i32) -> &'static str {
    match errno {
        libc::EPERM | libc::EACCES => "Run as root, or with CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF",
        libc::ENOBUFS | libc::ENOMEM => {
            "Locked memory is short: give the process CAP_IPC_LOCK or raise RLIMIT_MEMLOCK (systemd: \
             LimitMEMLOCK=infinity), or lower umem.frames_per_worker"
        }
        libc::EBUSY => {
            "Another AF_XDP socket already serves this queue: is another gateway running on this NIC?"
        }
        libc::EOPNOTSUPP => "The driver has no zero-copy for AF_XDP: set xdp.zero_copy to auto or off",
        libc::EAFNOSUPPORT => "This kernel has no AF_XDP (CONFIG_XDP_SOCKETS)",
        libc::ENODEV | libc::ENXIO => "The interface is gone",
        libc::EINVAL => "Does the NIC have this queue? `ethtool -l` shows how many it has",
        _ => "See the kernel log",
    }
}
