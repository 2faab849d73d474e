//! Our NICs: what they are, what is switched off on them while we run, and how it is put back.
//!
//! Control thread only, in the network namespace the daemon was started in. Everything goes through `ioctl` and packet
//! sockets but for what only `/sys` has (`napi`): that shows another namespace's devices unless it was mounted anew.

mod facts;
pub mod held;
mod ioctl;
mod journal;
mod napi;
mod nic;
mod offloads;
mod rss;

pub use facts::{Spreading, left_behind};
pub use ioctl::minutes_west;
pub use nic::{LinkState, Nic, NicError, frame_fits};
pub use offloads::{Feature, Offloads};
pub use rss::{Programmed, RssState, RssTable};
