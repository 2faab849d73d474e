//! What rules would say about flows that are there, each as if it began now: who would be removed by `--flows kill`, and who
//! is. API threads; flows are only read here.
//!
//! Invariant: a flow is refused only if its first packet, as far as it is known, is certain to be.

use super::LiveBackend;
use super::flows::SLICE_SLOTS;
use crate::api::types::FlowFates;
use dataplane::clock::Now;
use dataplane::flow::{Change, Cursor, Direction, FlowView, Request, status};
use dataplane::ids::PortId;
use dataplane::packet::{Family, Kind, Packet, proto};
use dataplane::rules::conn::{Conn, NoFlows};
use dataplane::rules::log::NoNotes;
use dataplane::rules::model::CtState;
use dataplane::rules::rate::Rates;
use dataplane::rules::{Compiled, Facts, Foreseen};
use tracing::warn;

/// What becomes of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It could begin.
    Allowed,
    /// It could not.
    Refused,
    /// It hangs on more than is known.
    Unsure,
}

/// Judges flows by compiled rules.
pub(super) struct Judge<'a> {
    v4: &'a Compiled,
    v6: &'a Compiled,
    /// How many NICs there are.
    ports: u8,
    /// When flows are judged: sets have timeouts.
    now: Now,
}

impl<'a> Judge<'a> {
    pub(super) fn new(v4: &'a Compiled, v6: &'a Compiled, ports: usize, now: Now) -> Self {
        let ports = u8::try_from(ports).unwrap_or(u8::MAX);
        Self { v4, v6, ports, now }
    }

    /// What becomes of a flow.
    pub(super) fn fate(&self, flow: &FlowView) -> Fate {
        if let Some(ingress) = flow.ingress {
            return self.fate_from(flow, ingress);
        }
        // Nobody knows which NIC it came in on: certain is what holds for all of them.
        let mut fates = (0..self.ports).map(|port| self.fate_from(flow, PortId(port)));
        let first = fates.next().unwrap_or(Fate::Unsure);
        if fates.all(|fate| fate == first) { first } else { Fate::Unsure }
    }

    fn fate_from(&self, flow: &FlowView, ingress: PortId) -> Fate {
        let compiled = if flow.orig.family == Family::V4 { self.v4 } else { self.v6 };
        let (packet, conn) = (first_packet(flow), connection(flow));
        let is_related = flow.status & status::EXPECTED != 0;
        let facts = Facts {
            packet: &packet,
            bytes: &[],
            now: self.now,
            // Nobody asks: they count.
            rates: Rates::Probe(0),
            ct_state: if is_related { CtState::Related } else { CtState::New },
            conn: Some(&conn),
            flows: &NoFlows,
            is_raw: false,
            ingress,
            egress: ingress.peer(),
            mtu: 1500,
            notes: &NoNotes,
        };
        // One that was announced began with the mark of another; of what set one's own nothing is known.
        let knows_mark = flow.mark == 0 && !is_related;
        match compiled.foresee(&facts, knows_mark) {
            Foreseen { may_pass: true, may_be_refused: false } => Fate::Allowed,
            Foreseen { may_pass: false, may_be_refused: true } => Fate::Refused,
            Foreseen { .. } => Fate::Unsure,
        }
    }
}

impl LiveBackend {
    /// Removes flows that could not begin under the rules in force; gives their number.
    pub(super) fn kill_refused(&self) -> u64 {
        self.publisher.wait_until_whole();
        let newest = self.publisher.mailbox().newest();
        let judge = Judge::new(&newest.v4.compiled, &newest.v6.compiled, self.ports.len(), self.now());
        let mut killed = 0;
        self.fates(&judge, &mut |refused| {
            let Some(worker) = refused.first().and_then(|flow| self.workers.get(flow.worker.index())) else {
                return;
            };
            let requests = refused.iter().map(|flow| Request::Flow {
                slot: flow.slot,
                seq: flow.seq,
                change: Change::Delete,
            });
            match worker.desk().ask(requests) {
                Ok(()) => killed += refused.len() as u64,
                Err(stuck) => warn!("flows that the rules refuse are still there: {stuck}"),
            }
        });
        killed
    }

    /// What becomes of all flows; `refused` gets those that could not begin, some at a time, all of one worker.
    pub(super) fn fates(&self, judge: &Judge<'_>, refused: &mut dyn FnMut(&[FlowView])) -> FlowFates {
        let mut fates = FlowFates::default();
        let mut slice: Vec<FlowView> = Vec::new();
        for worker in &self.workers {
            let mut cursor = Cursor::default();
            loop {
                let now = self.now().tick();
                slice.clear();
                cursor = worker.region.walk_some(now, cursor, SLICE_SLOTS, |flow| {
                    if flow.is_expired(now) {
                        return;
                    }
                    match judge.fate(flow) {
                        Fate::Allowed => fates.allowed += 1,
                        Fate::Unsure => fates.unsure += 1,
                        Fate::Refused => {
                            fates.refused += 1;
                            slice.push(*flow);
                        }
                    }
                });
                if !slice.is_empty() {
                    refused(&slice);
                }
                if cursor.is_start() {
                    break;
                }
            }
        }
        fates
    }
}

/// The packet that began a flow, as far as the flow tells.
fn first_packet(flow: &FlowView) -> Packet {
    let tuple = flow.orig;
    let is_icmp = matches!(tuple.proto, proto::ICMP | proto::ICMPV6);
    // The tracker keeps type and code where others have their destination port.
    let [icmp_type, icmp_code] = if is_icmp { tuple.dst_port.to_be_bytes() } else { [0, 0] };
    Packet {
        tuple,
        icmp_type,
        icmp_code,
        kind: if tuple.family == Family::V4 { Kind::Ipv4 } else { Kind::Ipv6 },
        has_l4: true,
        ..Packet::EMPTY
    }
}

/// The flow as rules see it with that packet.
fn connection(flow: &FlowView) -> Conn {
    Conn {
        orig: flow.orig,
        reply: flow.reply,
        direction: Direction::Orig,
        status: flow.status & status::EXPECTED,
        packets: [1, 0],
        bytes: [0, 0],
        secs_left: 0,
        master_helper: None,
        zone: flow.zone.id,
        // Without a name it is not counted among the connections that rules limit.
        id: None,
        is_template: false,
    }
}
