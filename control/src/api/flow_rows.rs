//! Flows as the tracker keeps them, turned into what the API says of them. Pure.

use super::types::{Family, FlowKey, FlowRow, FlowSide, proto_name};
use dataplane::flow::FlowView;
use dataplane::packet::{Family as Fam, Tuple, proto};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A flow as the API shows it.
#[must_use]
pub fn flow_row(view: &FlowView) -> FlowRow {
    let side = |tuple: &Tuple, direction: usize| FlowSide {
        src: address(tuple.src, tuple.family),
        dst: address(tuple.dst, tuple.family),
        key: flow_key(tuple),
        packets: view.packets[direction],
        bytes: view.bytes[direction],
    };
    FlowRow {
        family: match view.orig.family {
            Fam::V4 => Family::V4,
            Fam::V6 => Family::V6,
        },
        proto: view.orig.proto,
        proto_name: proto_name(view.orig.proto).to_owned(),
        timeout_secs: view.secs_left,
        state: view.state_name().map(str::to_owned),
        orig: side(&view.orig, 0),
        reply: side(&view.reply, 1),
        seen_reply: view.is_seen_reply(),
        assured: view.is_assured(),
        mark: view.mark,
        helper: view.helper.map(|helper| helper.name().to_owned()),
        zone: view.zone.id,
        worker: view.worker.0,
        id: u64::from(view.worker.0) << 56
            ^ u64::from(view.seq >> 1 & 0x00ff_ffff) << 32
            ^ u64::from(view.slot.raw()),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "IPv4 lives in the low 32 bits")]
fn address(value: u128, family: Fam) -> IpAddr {
    match family {
        Fam::V4 => IpAddr::V4(Ipv4Addr::from_bits(value as u32)),
        Fam::V6 => IpAddr::V6(Ipv6Addr::from_bits(value)),
    }
}

fn flow_key(tuple: &Tuple) -> FlowKey {
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
