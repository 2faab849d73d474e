//! ICMP and ICMPv6: which messages are queries with a flow of their own, which are errors about another flow, and
//! which are never tracked. Pure functions. Linux `nf_conntrack_proto_icmp.c`, `nf_conntrack_proto_icmpv6.c`.

use super::key;
use super::stats::InvalidReason;
use crate::packet::{Family, Packet, Tuple, proto};
use crate::wire;

/// What a message is to the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A query or its answer; `opens` if it may start a flow.
    Query { opens: bool },
    /// An error about the packet whose header is embedded here.
    Error(Embedded),
    /// Neighbour discovery and the like: UNTRACKED.
    Untracked,
    /// None of these.
    Invalid(InvalidReason),
}

/// The packet an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Embedded {
    /// As that packet's own header has it.
    pub(super) tuple: Tuple,
}

/// ICMPv6 redirect. RFC 4861 section 4.5.
const ICMPV6_REDIRECT: u8 = 137;

/// Type of the option that holds the packet a redirect is about. RFC 4861 section 4.6.3.
const OPTION_REDIRECTED_HEADER: u8 = 4;

/// Bytes of an ICMP error before the packet it is about.
const ERROR_HEADER_BYTES: usize = 8;

/// Bytes of a redirect before its options: header, target and destination.
const REDIRECT_HEADER_BYTES: usize = 40;

/// The tuple of the packet that `packet` reports an error about, as that packet was sent; `None` if it reports none.
/// What decides on which worker an ICMP error is at home.
#[inline]
#[must_use]
pub fn error_about(packet: &Packet, bytes: &[u8]) -> Option<Tuple> {
    if !matches!(packet.tuple.proto, proto::ICMP | proto::ICMPV6) || !packet.has_l4 {
        return None;
    }
    match kind(packet, bytes) {
        Kind::Error(Embedded { tuple }) => Some(tuple),
        _ => None,
    }
}

/// Judges the ICMP message in `packet`, whose header is known to be whole.
pub(super) fn kind(packet: &Packet, bytes: &[u8]) -> Kind {
    let bytes = bytes.get(..packet.l3_end()).unwrap_or(bytes);
    match (packet.tuple.family, packet.tuple.proto) {
        (Family::V4, proto::ICMP) => kind_v4(packet, bytes),
        (Family::V6, proto::ICMPV6) => kind_v6(packet, bytes),
        _ => Kind::Invalid(InvalidReason::IcmpType),
    }
}

fn kind_v4(packet: &Packet, bytes: &[u8]) -> Kind {
    match packet.icmp_type {
        3 | 4 | 5 | 11 | 12 => error(embedded_v4(bytes, l4_plus(packet, ERROR_HEADER_BYTES))),
        8 | 13 | 15 | 17 => Kind::Query { opens: true },
        0 | 14 | 16 | 18 => Kind::Query { opens: false },
        _ => Kind::Invalid(InvalidReason::IcmpType),
    }
}

fn kind_v6(packet: &Packet, bytes: &[u8]) -> Kind {
    match packet.icmp_type {
        0..=127 => error(embedded_v6(bytes, l4_plus(packet, ERROR_HEADER_BYTES))),
        128 | 139 => Kind::Query { opens: true },
        129 | 140 => Kind::Query { opens: false },
        // MLD, neighbour discovery, MLDv2 and multicast router discovery.
        130..=136 | 143 | 151 | 152 => Kind::Untracked,
        ICMPV6_REDIRECT => redirect(packet, bytes),
        _ => Kind::Invalid(InvalidReason::IcmpType),
    }
}

fn error(embedded: Option<Embedded>) -> Kind {
    embedded.map_or(Kind::Invalid(InvalidReason::IcmpErrorInner), Kind::Error)
}

fn l4_plus(packet: &Packet, bytes: usize) -> usize {
    usize::from(packet.l4_offset) + bytes
}

/// A redirect counts as an error about the packet in its first option, if a router on the link sent it.
fn redirect(packet: &Packet, bytes: &[u8]) -> Kind {
    let hop_limit = bytes.get(usize::from(packet.l3_offset) + 7);
    let is_link_local = packet.tuple.src >> 118 == 0xfe80 >> 6;
    if packet.icmp_code != 0 {
        return Kind::Invalid(InvalidReason::IcmpType);
    }
    if hop_limit != Some(&255) || !is_link_local {
        return Kind::Invalid(InvalidReason::IcmpRedirect);
    }
    match bytes.get(l4_plus(packet, REDIRECT_HEADER_BYTES)..) {
        Some(&[OPTION_REDIRECTED_HEADER, length, ..]) if length != 0 => {
            error(embedded_v6(bytes, l4_plus(packet, REDIRECT_HEADER_BYTES + 8)))
        }
        _ => Kind::Invalid(InvalidReason::IcmpRedirect),
    }
}

/// Reads the IPv4 packet at `at`. As in the kernel, neither its version, checksum nor total length matters.
fn embedded_v4(bytes: &[u8], at: usize) -> Option<Embedded> {
    let header: &[u8; 20] = bytes.get(at..)?.first_chunk()?;
    if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
        return None; // Not its first fragment: no ports to look for.
    }
    let src = u32::from_be_bytes([header[12], header[13], header[14], header[15]]);
    let dst = u32::from_be_bytes([header[16], header[17], header[18], header[19]]);
    let upper = bytes.get(at + usize::from(header[0] & 0xf) * 4..)?;
    with_ports(upper, u128::from(src), u128::from(dst), header[9], Family::V4)
}

/// Reads the IPv6 packet at `at`.
fn embedded_v6(bytes: &[u8], at: usize) -> Option<Embedded> {
    let header: &[u8; 40] = bytes.get(at..)?.first_chunk()?;
    let src = u128::from_be_bytes(*header[8..].first_chunk()?);
    let dst = u128::from_be_bytes(*header[24..].first_chunk()?);
    let (proto, upper_at) = wire::ipv6::skip_extensions(bytes, at + 40, header[6])?;
    with_ports(bytes.get(upper_at..).unwrap_or_default(), src, dst, proto, Family::V6)
}

/// Completes the tuple from the first bytes of the upper layer: four are enough for ports.
fn with_ports(upper: &[u8], src: u128, dst: u128, proto: u8, family: Family) -> Option<Embedded> {
    let (src_port, dst_port) = match proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => {
            let &[s0, s1, d0, d1] = upper.first_chunk()?;
            (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]))
        }
        proto::ICMP | proto::ICMPV6 => {
            let &[ty, code, _, _, i0, i1, _, _] = upper.first_chunk()?;
            let word = u16::from_be_bytes([ty, code]);
            if !key::is_icmp(family, proto) || key::icmp_inverse(family, word).is_none() {
                return None; // An error about an error, or about what is never tracked.
            }
            (u16::from_be_bytes([i0, i1]), word)
        }
        proto::GRE => (0, wire::l4::gre_key(upper)?),
        _ => (0, 0),
    };
    Some(Embedded { tuple: Tuple { src, dst, src_port, dst_port, proto, family } })
}
