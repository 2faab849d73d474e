//! Flows and expectations as the tracker keeps them, turned into what the API says of them. Pure.

use super::types::{ExpectMaster, ExpectRow, FlowKey, FlowRow, FlowSide, proto_name};
use crate::labels::LabelNames;
use dataplane::clock::{TICK_NANOS, Tick};
use dataplane::flow::{Direction, Expectation, FlowView, Tenure, status};
use dataplane::packet::{Family as Fam, Tuple, proto};
use dataplane::rules::conn::Zone;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// What is shown of flows beside what identifies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Packets and bytes (`nf_conntrack_acct`).
    pub counters: bool,
    /// When they began (`nf_conntrack_timestamp`): the time now, by both clocks.
    pub start: Option<Wall>,
    /// What labels are called.
    pub labels: Arc<LabelNames>,
    /// Which rules' word on flows holds, IPv4's and IPv6's: whether a flow goes on under earlier ones.
    pub tenures: Option<[Tenure; 2]>,
}

/// One moment, by the workers' clock and by the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wall {
    /// In the workers' ticks.
    pub tick: Tick,
    /// In microseconds since 1970.
    pub micros: u64,
}

impl Default for Shown {
    fn default() -> Self {
        Self { counters: true, start: None, labels: Arc::default(), tenures: None }
    }
}

impl Wall {
    /// When that was, a moment up to 497 days before this one.
    fn millis_at(self, then: Tick) -> u64 {
        let ticks = self.tick.0.wrapping_sub(then.0);
        self.micros.saturating_sub(u64::from(ticks) * TICK_NANOS / 1000) / 1000
    }
}

/// A flow as the API shows it.
#[must_use]
pub fn flow_row(view: &FlowView, shown: &Shown) -> FlowRow {
    let Zone { id, orig, reply } = view.zone;
    let zone_of_one = |is_in: bool, other_is_in: bool| if is_in && !other_is_in { id } else { 0 };
    let side = |tuple: &Tuple, direction: Direction, zone: u16| FlowSide {
        src: address(tuple.src, tuple.family),
        dst: address(tuple.dst, tuple.family),
        key: flow_key(tuple),
        zone,
        packets: shown.counters.then_some(view.packets[direction.index()]),
        bytes: shown.counters.then_some(view.bytes[direction.index()]),
    };
    FlowRow {
        family: view.orig.family.into(),
        proto: view.orig.proto,
        proto_name: proto_name(view.orig.proto).into(),
        timeout_secs: view.secs_left,
        state: view.state_name().map(Into::into),
        orig: side(&view.orig, Direction::Orig, zone_of_one(orig, reply)),
        reply: side(&view.reply, Direction::Reply, zone_of_one(reply, orig)),
        seen_reply: view.is_seen_reply(),
        assured: view.is_assured(),
        expected: view.status & status::EXPECTED != 0,
        kept: shown.tenures.is_some_and(|tenures| is_kept(view, tenures)),
        mark: view.mark,
        labels: shown.labels.list(view.labels.unwrap_or(0)),
        helper: view.helper.map(|helper| helper.name().into()),
        zone: if orig && reply { id } else { 0 },
        start_ms: shown.start.map(|wall| wall.millis_at(view.created)),
        stop_ms: None,
        worker: view.worker.0,
        id: flow_id(view),
    }
}

/// A flow's number: no other flow has it now.
#[must_use]
pub fn flow_id(view: &FlowView) -> u64 {
    u64::from(view.worker.0) << 56 ^ u64::from(view.seq >> 1 & 0x00ff_ffff) << 32 ^ u64::from(view.slot.raw())
}

/// Whether a flow's packets pass for what earlier rules said, whatever those in force say.
#[must_use]
pub fn is_kept(view: &FlowView, [v4, v6]: [Tenure; 2]) -> bool {
    view.remembered.is_kept(if view.orig.family == Fam::V4 { v4 } else { v6 })
}

/// An expectation as the API shows it.
#[must_use]
pub fn expect_row(expectation: &Expectation, now: Tick) -> ExpectRow {
    let Expectation {
        src,
        dst,
        dst_port,
        proto,
        family,
        zone,
        master: _,
        master_orig,
        helper,
        deadline,
        tells: _,
    } = *expectation;
    ExpectRow {
        family: family.into(),
        proto,
        timeout_secs: deadline.secs_from(now),
        src: address(src, family),
        dst: address(dst, family),
        dport: dst_port,
        master: ExpectMaster {
            src: address(master_orig.src, family),
            dst: address(master_orig.dst, family),
            key: flow_key(&master_orig),
        },
        helper: helper.name().into(),
        zone,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "IPv4 lives in the low 32 bits")]
pub(crate) fn address(value: u128, family: Fam) -> IpAddr {
    match family {
        Fam::V4 => IpAddr::V4(Ipv4Addr::from_bits(value as u32)),
        Fam::V6 => IpAddr::V6(Ipv6Addr::from_bits(value)),
    }
}

pub(crate) fn flow_key(tuple: &Tuple) -> FlowKey {
    match tuple.proto {
        proto::ICMP | proto::ICMPV6 => {
            let [ty, code] = tuple.dst_port.to_be_bytes();
            FlowKey::Icmp { ty, code, id: tuple.src_port }
        }
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => {
            FlowKey::Ports { sport: tuple.src_port, dport: tuple.dst_port }
        }
        proto::GRE => FlowKey::Gre { srckey: tuple.src_port, dstkey: tuple.dst_port },
        // conntrack still knows DCCP's ports, whose tracker the kernel has lost: they are zero.
        33 => FlowKey::Ports { sport: 0, dport: 0 },
        _ => FlowKey::None {},
    }
}
