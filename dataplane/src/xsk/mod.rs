//! AF_XDP: the memory frames live in, and the rings that pass them to the kernel and back.
//!
//! ```text
//!   NIC queue                kernel                                     worker
//!                                        fill ring   (empty chunks)
//!   packet arrives  <-- takes a chunk  <------------------------------  pool
//!                   --> fills it       ------------------------------>  rx_burst
//!                                        rx ring     (descriptors)        |
//!                                                                         |  judge
//!                                        tx ring     (descriptors)        v
//!   packet leaves   <-- sends it       <------------------------------  tx, flush
//!                   --> done with it   ------------------------------>  pool
//!                                        completion ring (chunks)
//! ```
//!
//! One UMEM serves all NICs, queues and workers of the process, so a packet goes from one NIC to another by writing
//! its descriptor into the other's tx ring; no byte is moved. A [`Frame`] is move-only: a chunk is in exactly one of
//! pool, fill ring, rx ring, hands, tx ring, completion ring or a handoff ring, and the numbers add up to the UMEM.
//!
//! This layer is our own, on `libc` alone: a binding (xsk-rs) costs 9 to 12 ns per packet in calls through libxdp where
//! inline rings cost 2, hides the descriptors needed for handing sockets to a successor process, does not know
//! `XDP_MAX_TX_SKB_BUDGET`, and its frames can be copied. Everything unsafe about AF_XDP is in this module. Worker
//! threads own sockets and pools; the UMEM is shared.

#![allow(unsafe_code, reason = "the rings are memory shared with the kernel, the sockets are system calls")]

mod error;
mod frame;
mod pool;
mod ring;
mod socket;
mod umem;

pub use error::XskError;
pub use frame::Frame;
pub(crate) use frame::PackedFrame;
pub use pool::FramePool;
pub use socket::{BindMode, QueueSpec, SocketOptions, XskDevice, open_all};
pub use umem::{Backing, Umem, UmemConfig};

/// Bytes the kernel leaves free before a received packet: `XDP_PACKET_HEADROOM`.
pub const HEADROOM: u32 = 256;

/// Most descriptors one packet may span: `CONFIG_MAX_SKB_FRAGS` and the linear part.
pub const SEGMENTS_MAX: usize = 18;
