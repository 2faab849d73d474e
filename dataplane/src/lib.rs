//! Palisade's packet path. Everything that touches a packet lives here; nothing here reads a file, parses text,
//! opens a netlink socket or looks at the wall clock: time, rules and settings come in as arguments.
//!
//! The layers, from the wire up:
//! * [`xsk`] moves frames between the kernel's AF_XDP rings and us (with [`flow`]'s region and [`pages`] the only unsafe code),
//! * [`wire`] reads headers, [`packet`] is what one parsed packet is,
//! * [`defrag`] puts fragmented datagrams together,
//! * [`flow`] remembers connections, one table per worker,
//! * [`rss`] is how packets are spread over workers, by NICs and by ourselves,
//! * [`rules`] decides, and [`sets`] are what rules may ask about,
//! * [`device`] is what a worker reads from and writes to,
//! * [`worker`] strings them together: one pinned thread, no lock, no allocation per packet,
//! * [`explain`] says what the worker would make of a packet, and why.

pub mod clock;
pub mod defrag;
pub mod device;
pub mod explain;
pub mod flow;
pub mod ids;
pub mod packet;
pub mod pages;
mod prefetch;
pub mod reason;
pub mod rss;
pub mod rules;
pub mod sets;
pub mod testing;
pub mod wire;
pub mod worker;
pub mod xsk;
