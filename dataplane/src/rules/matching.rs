//! What one condition means. Shared by [`super::linear`] and, for the conditions it does not specialise, by the
//! compiled form.

use super::Facts;
use super::conn::{Asked, Marks};
use super::header::HeaderMatch;
use super::model::{Hook, Match, PortSide};
use crate::packet::{Fragment, Packet, proto};

/// Whether the packet has ports that rules may match: a transport header of a protocol with ports, whole enough.
#[inline]
pub(super) const fn has_ports(packet: &Packet) -> bool {
    packet.has_l4 && matches!(packet.tuple.proto, proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP)
}

/// Whether a condition holds. `ports` are the NIC names by [`crate::ids::PortId`].
pub(super) fn holds(
    condition: &Match,
    facts: &Facts<'_>,
    ports: &[String],
    hook: Hook,
    marks: &mut Marks,
) -> bool {
    let packet = facts.packet;
    let name = |port: crate::ids::PortId| ports.get(port.index()).map_or("", String::as_str);
    let ingress = if hook == Hook::Postrouting { "" } else { name(facts.ingress) };
    let egress = if matches!(hook, Hook::Raw | Hook::Prerouting) { "" } else { name(facts.egress) };
    match condition {
        Match::InIface { pattern, invert } => pattern.fits(ingress) != *invert,
        Match::OutIface { pattern, invert } => pattern.fits(egress) != *invert,
        Match::Src { addr, mask, invert } => (packet.tuple.src & mask == *addr) != *invert,
        Match::Dst { addr, mask, invert } => (packet.tuple.dst & mask == *addr) != *invert,
        Match::Proto { proto, invert } => (packet.tuple.proto == *proto) != *invert,
        Match::LaterFragment { invert } => (packet.fragment == Fragment::Later) != *invert,
        Match::Ports { which, ranges, invert } => ports_match(packet, *which, ranges, *invert),
        Match::TcpFlags { mask, comp, invert } => flags_match(packet, *mask, *comp, *invert),
        Match::Icmp { ty, codes, invert } => icmp_matches(packet, *ty, *codes, *invert),
        Match::CtState { states, invert } => states.contains(Asked::about(facts, marks).state()) != *invert,
        Match::Rate(condition) => condition.holds(facts, marks),
        Match::Conn(condition) => condition.holds(Asked::about(facts, marks), marks),
        Match::Header(HeaderMatch::Device(device)) => device.resolve(hook, ports).holds(facts, marks),
        Match::Header(condition) => condition.holds(facts, marks),
        Match::Set(set) => set.at(hook).holds(facts),
    }
}

pub(super) fn ports_match(packet: &Packet, which: PortSide, ranges: &[(u16, u16)], invert: bool) -> bool {
    if !has_ports(packet) {
        return false;
    }
    let within = |port: u16| ranges.iter().any(|(low, high)| (*low..=*high).contains(&port));
    let hit = match which {
        PortSide::Src => within(packet.tuple.src_port),
        PortSide::Dst => within(packet.tuple.dst_port),
        PortSide::Either => within(packet.tuple.src_port) || within(packet.tuple.dst_port),
    };
    hit != invert
}

pub(super) const fn flags_match(packet: &Packet, mask: u8, comp: u8, invert: bool) -> bool {
    packet.has_l4 && packet.tuple.proto == proto::TCP && (packet.tcp_flags & mask == comp) != invert
}

pub(super) fn icmp_matches(packet: &Packet, ty: Option<u8>, codes: (u8, u8), invert: bool) -> bool {
    if !packet.has_l4 || !matches!(packet.tuple.proto, proto::ICMP | proto::ICMPV6) {
        return false;
    }
    let hit = ty.is_none_or(|ty| packet.icmp_type == ty && (codes.0..=codes.1).contains(&packet.icmp_code));
    hit != invert
}
