//! Palisade's XDP program and its loader: attached to a NIC, it hands every frame to the AF_XDP socket of its queue.
//!
//! Control thread only. The program is attached through a `bpf_link`, which belongs to a file descriptor: whoever
//! holds [`XdpPort`] holds the attachment, and when the process ends, however it ends, the kernel detaches. What
//! somebody else has attached is never touched.

mod attach;
mod occupant;
mod sys;

pub use attach::{AttachError, AttachMode, XdpPort};
pub use occupant::{Holder, Occupant, inspect, take_off};
pub use sys::{Features, libbpf_version};

/// The program's name in the kernel: how one of ours is told from others.
pub const PROGRAM_NAME: &str = "palisade_xdp";

mod skeleton {
    #![allow(
        clippy::all,
        clippy::pedantic,
        clippy::unwrap_used,
        missing_docs,
        unreachable_pub,
        unsafe_code,
        unused_qualifications,
        clippy::undocumented_unsafe_blocks,
        clippy::use_self,
        reason = "generated"
    )]
    include!(concat!(env!("OUT_DIR"), "/palisade.skel.rs"));
}
