//! The calls into libbpf that its Rust binding does not wrap.

#![allow(unsafe_code, reason = "calls into a C library")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What XDP can do on a NIC, as its driver says. Source: `enum netdev_xdp_act` in `include/uapi/linux/netdev.h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Runs programs in the driver and lets them redirect.
    pub native: bool,
    /// Reads and writes AF_XDP frames without copying.
    pub zero_copy: bool,
    /// Takes packets that span buffers.
    pub multi_buffer: bool,
}

/// Attached programs of one NIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) native: u32,
    pub(crate) generic: u32,
    pub(crate) features: Features,
}

const ACT_BASIC_AND_REDIRECT: u64 = 0b11;
const ACT_XSK_ZEROCOPY: u64 = 1 << 3;
const ACT_RX_SG: u64 = 1 << 5;

/// Version of libbpf, `MAJOR.MINOR`: the one that is linked in.
#[must_use]
pub fn libbpf_version() -> String {
    // SAFETY: both take nothing and return a number.
    let (major, minor) = unsafe { (libbpf_sys::libbpf_major_version(), libbpf_sys::libbpf_minor_version()) };
    format!("{major}.{minor}")
}

/// Asks the kernel what is attached to a NIC and what it can do.
pub(crate) fn query(ifindex: i32) -> io::Result<Attached> {
    let mut options = libbpf_sys::bpf_xdp_query_opts {
        sz: size_of::<libbpf_sys::bpf_xdp_query_opts>() as _,
        ..Default::default()
    };
    // SAFETY: `options` is live, and its `sz` tells libbpf how much of it there is.
    let result = unsafe { libbpf_sys::bpf_xdp_query(ifindex, 0, &raw mut options) };
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    let acts = options.feature_flags;
    Ok(Attached {
        native: options.drv_prog_id,
        generic: options.skb_prog_id,
        features: Features {
            native: acts & ACT_BASIC_AND_REDIRECT == ACT_BASIC_AND_REDIRECT,
            zero_copy: acts & ACT_XSK_ZEROCOPY != 0,
            multi_buffer: acts & ACT_RX_SG != 0,
        },
    })
}

/// Attaches a program through a link: `XDP_FLAGS_DRV_MODE` or `XDP_FLAGS_SKB_MODE` in `flags`.
pub(crate) fn link_create(program: BorrowedFd<'_>, ifindex: i32, flags: u32) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as _,
        flags,
        ..Default::default()
    };
    // SAFETY: the descriptor is open for as long as it is borrowed; `options` is live and says how large it is.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), ifindex, libbpf_sys::BPF_XDP, &raw const options)
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: a descriptor just made and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Detaches whatever was attached by netlink in the given mode.
pub(crate) fn detach(ifindex: i32, flags: u32) -> io::Result<()> {
    // SAFETY: no pointer but the null that stands for "no options".
    let result = unsafe { libbpf_sys::bpf_xdp_detach(ifindex, flags, std::ptr::null()) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
