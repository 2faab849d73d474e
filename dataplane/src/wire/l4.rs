//! The upper-layer header, as far as rules and the tracker's key need it: ports, TCP flags, ICMP type and code. What is
//! wrong with it becomes an [`L4Fault`], never a drop.

use super::{be16, tcp};
use crate::packet::{Fragment, L4Fault, Packet, proto};

/// Fills in the part of `packet` above IP. Later fragments have none.
#[inline]
pub(super) fn parse(head: &[u8], packet: &mut Packet) {
    if packet.fragment == Fragment::Later {
        return;
    }
    let end = packet.l3_end().min(head.len());
    let l4 = head.get(usize::from(packet.l4_offset)..end).unwrap_or_default();
    let available = packet.l3_end().saturating_sub(usize::from(packet.l4_offset));
    let fault = match packet.tuple.proto {
        proto::TCP => tcp_header(l4, available, packet),
        proto::UDP => udp_header(l4, available, packet),
        proto::UDPLITE => udplite_header(l4, available, packet),
        proto::ICMP | proto::ICMPV6 => icmp_header(l4, packet),
        proto::SCTP => sctp_header(l4, packet),
        proto::GRE => gre_header(l4, packet),
        _ => {
            packet.has_l4 = true;
            None
        }
    };
    packet.l4_fault = fault;
}

fn ports(l4: &[u8], packet: &mut Packet) -> bool {
    let Some(&[s0, s1, d0, d1]) = l4.first_chunk::<4>() else { return false };
    packet.tuple.src_port = u16::from_be_bytes([s0, s1]);
    packet.tuple.dst_port = u16::from_be_bytes([d0, d1]);
    true
}

#[inline]
fn tcp_header(l4: &[u8], available: usize, packet: &mut Packet) -> Option<L4Fault> {
    let Some(header) = l4.first_chunk::<{ tcp::HEADER_LEN }>() else {
        ports(l4, packet);
        return Some(L4Fault::Truncated);
    };
    ports(l4, packet);
    packet.has_l4 = true;
    packet.tcp_flags = header[13];
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < tcp::HEADER_LEN || header_len > available {
        return Some(L4Fault::BadLength);
    }
    (!tcp::is_legal(header[13])).then_some(L4Fault::BadFlags)
}

#[inline]
fn udp_header(l4: &[u8], available: usize, packet: &mut Packet) -> Option<L4Fault> {
    if l4.len() < 8 {
        ports(l4, packet);
        return Some(L4Fault::Truncated);
    }
    ports(l4, packet);
    packet.has_l4 = true;
    let len = usize::from(be16(l4, 4)?);
    // The length of a fragmented datagram counts all its fragments.
    let fits = len <= available || packet.fragment == Fragment::First;
    (len < 8 || !fits).then_some(L4Fault::BadLength)
}

fn udplite_header(l4: &[u8], available: usize, packet: &mut Packet) -> Option<L4Fault> {
    if l4.len() < 8 {
        ports(l4, packet);
        return Some(L4Fault::Truncated);
    }
    ports(l4, packet);
    packet.has_l4 = true;
    // RFC 3828 section 3.1: coverage counts the header; 0 means everything.
    let coverage = usize::from(be16(l4, 4)?);
    (coverage != 0 && (coverage < 8 || coverage > available)).then_some(L4Fault::BadLength)
}

#[inline]
fn icmp_header(l4: &[u8], packet: &mut Packet) -> Option<L4Fault> {
    let Some(&[ty, code, _, _, id0, id1, ..]) = l4.first_chunk::<8>() else {
        if let Some(&[ty, code]) = l4.first_chunk::<2>() {
            packet.icmp_type = ty;
            packet.icmp_code = code;
            packet.has_l4 = l4.len() >= 4;
            packet.tuple.dst_port = u16::from_be_bytes([ty, code]);
        }
        return Some(L4Fault::Truncated);
    };
    packet.has_l4 = true;
    packet.icmp_type = ty;
    packet.icmp_code = code;
    packet.tuple.dst_port = u16::from_be_bytes([ty, code]);
    if super::icmp::is_query(packet.tuple.proto, ty) {
        packet.tuple.src_port = u16::from_be_bytes([id0, id1]);
    }
    None
}

fn sctp_header(l4: &[u8], packet: &mut Packet) -> Option<L4Fault> {
    if !ports(l4, packet) || l4.len() < 12 {
        return Some(L4Fault::Truncated);
    }
    packet.has_l4 = true;
    None
}

/// GRE has a key only in PPTP's version of it (RFC 2637): the call at the receiver's end.
fn gre_header(l4: &[u8], packet: &mut Packet) -> Option<L4Fault> {
    packet.has_l4 = true;
    match gre_key(l4) {
        Some(key) => {
            packet.tuple.dst_port = key;
            None
        }
        None => Some(L4Fault::BadGre),
    }
}

/// The key of a GRE packet, 0 for one without; `None` if it is of PPTP's version and carries no PPP.
pub(crate) fn gre_key(l4: &[u8]) -> Option<u16> {
    let Some(&[_, flags, p0, p1]) = l4.first_chunk::<4>() else { return Some(0) };
    if flags & 7 != 1 {
        return Some(0);
    }
    match l4.first_chunk::<8>() {
        None => Some(0),
        Some(&[.., c0, c1]) if u16::from_be_bytes([p0, p1]) == 0x880b => Some(u16::from_be_bytes([c0, c1])),
        Some(_) => None,
    }
}
