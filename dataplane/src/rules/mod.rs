//! The rules: what was asked for ([`model`]), what it means ([`linear`], slow and obvious) and what runs ([`Compiled`]).
//!
//! A packet passes `raw` PREROUTING before it is tracked, and then `mangle` PREROUTING and FORWARD, `filter` FORWARD and
//! `mangle` POSTROUTING. Each of the two ways is compiled as a whole, in two steps: `program` flattens its built-in
//! chains and every chain they call into one list of lines in the order in which iptables would try them; [`classifier`] finds the lines whose addresses, ports and the like match,
//! one after the other, and only their other conditions are asked. Tests and [`selfcheck`] hold the result against
//! [`linear`].
//!
//! Built on control, immutable, read by workers through the snapshot. [`RuleCounters`] is the one part that changes,
//! and each worker has its own.

pub mod alter;
mod boxes;
pub mod classifier;
mod compile;
pub mod conn;
mod conncount;
mod counters;
pub mod explain;
pub mod header;
pub mod interned;
mod line;
pub mod linear;
pub mod log;
mod matching;
pub mod model;
mod overlay;
mod program;
pub mod rate;
pub mod selfcheck;
#[cfg(test)]
mod tests;
pub mod trace;
mod validate;
mod walk;

pub use compile::{Compiled, Foreseen, LineInfo};
pub use conncount::ConnCount;
pub use counters::{PathId, RuleCounters};
pub use overlay::RuleEdit;
pub use validate::CompileError;
pub use walk::Matched;

use crate::clock::Now;
use crate::ids::PortId;
use crate::packet::Packet;
use conn::{Conn, Flows};
use log::Notes;
use model::{CtState, RuleRef, Verdict};
use rate::Rates;

/// Everything a rule may ask about one packet.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The parsed packet; its family is the ruleset's.
    pub packet: &'a Packet,
    /// The frame it is in, from its first byte on; empty where only headers are known.
    pub bytes: &'a [u8],
    /// When it is judged.
    pub now: Now,
    /// How conditions that keep state or ask the clock are answered.
    pub rates: Rates<'a>,
    /// Its connection state.
    pub ct_state: CtState,
    /// Its connection: `None` if it has none, and where no rule asks ([`Compiled::asks_conn`]).
    pub conn: Option<&'a Conn>,
    /// What is in the flow tables of all workers.
    pub flows: &'a dyn Flows,
    /// Whether it is in `raw`, before it is tracked: then state and connection follow from the orders given so far.
    pub is_raw: bool,
    /// The NIC it came in on.
    pub ingress: PortId,
    /// The NIC it would leave on.
    pub egress: PortId,
    /// The largest IP packet that both can carry, in bytes.
    pub mtu: u32,
    /// Where packets go that rules want logged.
    pub notes: &'a dyn Notes,
}

/// What the rules say about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens to it.
    pub verdict: Verdict,
    /// The rule or policy that decided.
    pub by: RuleRef,
    /// Whether every packet of the same flow, direction, ingress and connection state takes the same path through the
    /// rules, so that the path may be remembered with the flow.
    pub invariant: bool,
    /// Whether that rule is marked as management.
    pub management: bool,
}
