//! A gateway without a kernel, for tests and for `fwctl replay`: packet builders ([`packets`]), devices that are plain
//! queues ([`loopback`]) and a whole gateway on them whose clock is turned by hand ([`gateway`]).

pub mod gateway;
pub mod loopback;
pub mod packets;
