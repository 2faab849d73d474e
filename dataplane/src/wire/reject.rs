//! The answer to a rejected packet, built in place: the offender's frame becomes a TCP RST or an ICMP error on its way
//! back. What is answered, and with which numbers, follows the kernel's `nf_reject_ipv4.c` and `nf_reject_ipv6.c`.
//!
//! A bump in the wire has no address: the answer comes from the address the offender was sent to, as with nftables'
//! bridge reject. So a packet to a group address gets none, for a group cannot be a source (RFC 1122 section 3.2.2).

use super::{ETHERNET_LEN, checksum, ethertype, icmp, ipv4, ipv6, tcp};
use crate::packet::{Family, Fragment, Packet, proto, tcp_flag};
use crate::rules::model::RejectWith;

/// Longest ICMP error, IP header included. RFC 1812 section 4.3.2.3: as much of the original as fits in 576 bytes.
const ICMP_MESSAGE_MAX: usize = 576;
/// Longest ICMPv6 error, IP header included: the minimum IPv6 MTU. RFC 4443 section 2.4 (c).
const ICMPV6_MESSAGE_MAX: usize = 1280;
const ICMP_LEN: usize = 8;
/// TTL and hop limit of answers: `net.ipv4.ip_default_ttl`.
const TTL: u8 = 64;
/// Source MAC address of an answer to a frame that was sent to a group: locally administered, "PAL".
const OWN_MAC: [u8; 6] = [0x02, 0, 0, 0x50, 0x41, 0x4c];

/// Turns the packet at the start of `frame` into its answer and returns the answer's length in bytes; `None` if it is
/// owed none. `frame` reaches to the end of the chunk; its first `first_len` bytes are the packet's first segment.
#[must_use]
pub fn build(frame: &mut [u8], first_len: usize, packet: &Packet, with: RejectWith) -> Option<usize> {
    let bytes = frame.get(..first_len)?;
    if !is_owed_an_answer(bytes, packet) {
        return None;
    }
    let l3 = usize::from(packet.l3_offset);
    let l3_len = match with {
        RejectWith::TcpReset => reset(frame, first_len, packet)?,
        _ => error(frame, first_len, packet, with)?,
    };
    swap_macs(frame)?;
    Some(l3 + l3_len)
}

fn is_owed_an_answer(bytes: &[u8], packet: &Packet) -> bool {
    let tuple = &packet.tuple;
    let group = match tuple.family {
        // 224.0.0.0/4, the limited broadcast, and no source.
        Family::V4 => tuple.dst >> 28 == 0xe || tuple.dst == 0xffff_ffff || tuple.src == 0,
        Family::V6 => tuple.dst >> 120 == 0xff || tuple.src >> 120 == 0xff || tuple.src == 0,
    };
    let is_error = matches!(tuple.proto, proto::ICMP | proto::ICMPV6)
        && (!packet.has_l4 || icmp::is_error(tuple.proto, packet.icmp_type));
    packet.fragment != Fragment::Later && !group && !is_error && checksum::l4_ok(bytes, packet)
}

/// Type and code of the error.
const fn type_and_code(with: RejectWith) -> (u8, u8) {
    use RejectWith as R;
    match with {
        R::IcmpNetUnreachable => (icmp::ty::UNREACHABLE, 0),
        R::IcmpHostUnreachable => (icmp::ty::UNREACHABLE, 1),
        R::IcmpProtoUnreachable => (icmp::ty::UNREACHABLE, 2),
        R::IcmpPortUnreachable | R::TcpReset => (icmp::ty::UNREACHABLE, 3),
        R::IcmpNetProhibited => (icmp::ty::UNREACHABLE, 9),
        R::IcmpHostProhibited => (icmp::ty::UNREACHABLE, 10),
        R::IcmpAdminProhibited => (icmp::ty::UNREACHABLE, 13),
        R::Icmp6NoRoute => (icmp::ty6::UNREACHABLE, 0),
        R::Icmp6AdminProhibited => (icmp::ty6::UNREACHABLE, 1),
        R::Icmp6AddrUnreachable => (icmp::ty6::UNREACHABLE, 3),
        R::Icmp6PortUnreachable => (icmp::ty6::UNREACHABLE, 4),
        R::Icmp6PolicyFail => (icmp::ty6::UNREACHABLE, 5),
        R::Icmp6RejectRoute => (icmp::ty6::UNREACHABLE, 6),
    }
}

const fn ip_header_len(family: Family) -> usize {
    match family {
        Family::V4 => ipv4::HEADER_LEN,
        Family::V6 => ipv6::HEADER_LEN,
    }
}

/// An ICMP error that quotes as much of the offender as its size allows. Returns the length of the IP packet.
fn error(frame: &mut [u8], first_len: usize, packet: &Packet, with: RejectWith) -> Option<usize> {
    let l3 = usize::from(packet.l3_offset);
    let family = packet.tuple.family;
    let header_len = ip_header_len(family);
    let (protocol, message_max) = match family {
        Family::V4 => (proto::ICMP, ICMP_MESSAGE_MAX),
        Family::V6 => (proto::ICMPV6, ICMPV6_MESSAGE_MAX),
    };
    let present = first_len.min(packet.l3_end()).checked_sub(l3)?;
    let quote = present.min(message_max - header_len - ICMP_LEN);
    let quote_at = l3 + header_len + ICMP_LEN;
    if quote_at + quote > frame.len() {
        return None;
    }
    frame.copy_within(l3..l3 + quote, quote_at);
    let message = frame.get_mut(l3 + header_len..quote_at + quote)?;
    let (ty, code) = type_and_code(with);
    message.get_mut(..ICMP_LEN)?.copy_from_slice(&[ty, code, 0, 0, 0, 0, 0, 0]);
    let pseudo = match family {
        Family::V4 => 0,
        Family::V6 => pseudo_back(packet, protocol, message.len()),
    };
    let check = checksum::finish(checksum::sum(message, pseudo));
    message.get_mut(2..4)?.copy_from_slice(&check.to_be_bytes());
    write_ip_header(frame.get_mut(l3..)?, packet, protocol, ICMP_LEN + quote, 0)
}

/// A TCP reset that the offender's sender will believe. Returns the length of the IP packet.
fn reset(frame: &mut [u8], first_len: usize, packet: &Packet) -> Option<usize> {
    let view = tcp::Segment::parse(frame.get(..first_len)?, packet)?;
    if packet.tuple.proto != proto::TCP || view.has(tcp_flag::RST) {
        return None;
    }
    // RFC 9293 section 3.10.7.1: take over the ACK if there is one, else acknowledge what was sent.
    let (seq, ack, flags) = if view.has(tcp_flag::ACK) {
        (view.ack, 0, tcp_flag::RST)
    } else {
        (0, view.end(), tcp_flag::RST | tcp_flag::ACK)
    };
    let l3 = usize::from(packet.l3_offset);
    let l4 = l3 + ip_header_len(packet.tuple.family);
    let header = frame.get_mut(l4..l4 + tcp::HEADER_LEN)?;
    header.fill(0);
    header[0..2].copy_from_slice(&packet.tuple.dst_port.to_be_bytes());
    header[2..4].copy_from_slice(&packet.tuple.src_port.to_be_bytes());
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    header[8..12].copy_from_slice(&ack.to_be_bytes());
    header[12] = 5 << 4;
    header[13] = flags;
    let check = checksum::finish(checksum::sum(header, pseudo_back(packet, proto::TCP, tcp::HEADER_LEN)));
    header[16..18].copy_from_slice(&check.to_be_bytes());
    const DONT_FRAGMENT: u16 = 0x4000;
    write_ip_header(frame.get_mut(l3..)?, packet, proto::TCP, tcp::HEADER_LEN, DONT_FRAGMENT)
}

/// Pseudo header of the way back.
fn pseudo_back(packet: &Packet, protocol: u8, len: usize) -> u64 {
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    checksum::pseudo_header(packet.tuple.dst, packet.tuple.src, packet.tuple.family, protocol, len)
}

/// Writes the answer's IP header, addresses swapped, and returns the length of the IP packet.
fn write_ip_header(
    ip: &mut [u8],
    packet: &Packet,
    protocol: u8,
    payload_len: usize,
    fragment: u16,
) -> Option<usize> {
    let header_len = ip_header_len(packet.tuple.family);
    let total = header_len + payload_len;
    let header = ip.get_mut(..header_len)?;
    header.fill(0);
    match packet.tuple.family {
        Family::V4 => {
            header[0] = 0x45;
            header[2..4].copy_from_slice(&u16::try_from(total).ok()?.to_be_bytes());
            header[6..8].copy_from_slice(&fragment.to_be_bytes());
            header[8] = TTL;
            header[9] = protocol;
            header[12..16].copy_from_slice(&packet.tuple.dst.to_be_bytes()[12..]);
            header[16..20].copy_from_slice(&packet.tuple.src.to_be_bytes()[12..]);
            let check = checksum::finish(checksum::sum(header, 0));
            header[10..12].copy_from_slice(&check.to_be_bytes());
        }
        Family::V6 => {
            header[0] = 0x60;
            header[4..6].copy_from_slice(&u16::try_from(payload_len).ok()?.to_be_bytes());
            header[6] = protocol;
            header[7] = TTL;
            header[8..24].copy_from_slice(&packet.tuple.dst.to_be_bytes());
            header[24..40].copy_from_slice(&packet.tuple.src.to_be_bytes());
        }
    }
    // Extension headers are not sent back: the EtherType in front still says IPv4 or IPv6.
    debug_assert!(matches!(packet.ethertype, ethertype::IPV4 | ethertype::IPV6));
    Some(total)
}

/// Sends the frame back where it came from.
fn swap_macs(frame: &mut [u8]) -> Option<()> {
    let ethernet = frame.first_chunk_mut::<ETHERNET_LEN>()?;
    let (dst, rest) = ethernet.split_first_chunk_mut::<6>()?;
    let src = rest.first_chunk_mut::<6>()?;
    std::mem::swap(dst, src);
    if src[0] & 1 != 0 {
        *src = OWN_MAC;
    }
    Some(())
}
