//! The rules: what was asked for ([`model`]), what it means (`linear`, slow and obvious) and what runs (`compile`,
//! `tree`). A worker calls the compiled form; tests and every load hold it against `linear`.

pub mod model;

use crate::ids::PortId;
use crate::packet::Packet;
use model::CtState;

/// Everything a rule may ask about one packet.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The parsed packet; its family is the ruleset's.
    pub packet: &'a Packet,
    /// Its connection state.
    pub ct_state: CtState,
    /// The NIC it came in on.
    pub ingress: PortId,
    /// The NIC it would leave on.
    pub egress: PortId,
}
