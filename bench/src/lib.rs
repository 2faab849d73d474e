//! Palisade's benchmarks: load generators and sinks ([`load`], [`pace`], [`sink`], [`handshake`]), the machine they are run
//! on ([`bed`], [`rig`], [`affinity`], [`conditions`]), who is measured ([`peers`]), and the figures that have a goal
//! ([`gateway`], [`conntrack`] with [`tracker`], [`classifier`] with [`rulesets`], [`wire_rules`], [`idle`], [`pipeline`],
//! [`report`]), or compares peers ([`scenarios`], [`results`]). What is measured in process by stages is in a crate of its own, [`stages`].
//!
//! Nothing here is timed by a test: figures are measured by `./scripts/bench figures` and printed beside their goals.

pub mod affinity;
pub mod bed;
pub mod classifier;
pub mod conditions;
pub mod conntrack;
pub mod cores;
pub mod edits;
pub mod floor;
pub mod gateway;
pub mod handshake;
pub mod idle;
pub mod interrupt;
pub mod load;
pub mod pace;
pub mod peers;
pub mod pipeline;
pub mod report;
pub mod results;
pub mod rig;
pub mod scenarios;
pub mod sets;
pub mod sink;
pub mod tracker;
pub mod wire_rules;

pub use stages::rulesets;

/// What can go wrong in a benchmark: said in one sentence and ending it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Index of an interface in the calling thread's network namespace.
///
/// # Errors
/// If there is no such interface.
pub fn iface_index(name: &str) -> Result<u32, Error> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    netdevice::name_to_index(&socket, name).map_err(|error| format!("interface {name}: {error}").into())
}
