//! The common frame in one piece: no tags, an IPv4 header without options, not a fragment, TCP or UDP, nothing wrong. It
//! reads each byte once and writes each field once; header by header the same took 23 ns a packet instead of 9
//! (`./scripts/bench figures --only conntrack`). Whatever is not like that is left to the parsers proper, which
//! also are the meaning of this one: tests hold them together.

use super::{ETHERNET_LEN, ethertype, ipv4, tcp};
use crate::packet::{Family, Fragment, Hint, Kind, Numbers, Packet, Plain, Tuple, proto};

const L3: usize = ETHERNET_LEN;
const L4: usize = L3 + ipv4::HEADER_LEN;
/// What all of them have: the shortest frame on a wire is longer.
const LEN: usize = L4 + tcp::HEADER_LEN;

#[inline]
fn be16(bytes: &[u8; LEN], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn be32(bytes: &[u8; LEN], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Eight bytes, the first one lowest.
#[inline]
fn le64(bytes: &[u8; LEN], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Whether it is IPv4 in a frame that a bridge forwards without a second look: the source not a group and not zero, the
/// destination not a link-local group.
#[inline]
fn is_plain_ethernet(bytes: &[u8; LEN]) -> bool {
    const TYPE_AND_GROUP: u64 = 0xffff_0000_0000_0001;
    const IPV4_FROM_ONE: u64 = (ethertype::IPV4.swap_bytes() as u64) << 48;
    const LINK_LOCAL: u32 = 0x0180_c200_u32.swap_bytes();
    let source_and_type = le64(bytes, 6);
    let [d0, d1, d2, d3, ..] = *bytes;
    source_and_type & TYPE_AND_GROUP == IPV4_FROM_ONE
        && source_and_type != IPV4_FROM_ONE
        && u32::from_le_bytes([d0, d1, d2, d3]) != LINK_LOCAL
}

/// Whether the IPv4 header adds up. Sums of native words: ones-complement sums do not depend on the byte order.
#[inline]
fn header_adds_up(bytes: &[u8; LEN]) -> bool {
    // A half of each word at a time cannot overflow; a sum and its rotation have the folded sum, carry and all, on top.
    let last =
        u64::from(u32::from_le_bytes([bytes[L3 + 16], bytes[L3 + 17], bytes[L3 + 18], bytes[L3 + 19]]));
    let (sum, carry) = le64(bytes, L3).overflowing_add(le64(bytes, L3 + 8));
    let (sum, more) = sum.overflowing_add(last + u64::from(carry));
    let sum = sum + u64::from(more);
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    sum.wrapping_add(sum.rotate_left(16)) >> 16 == 0xffff
}

/// Bytes of each header.
const ETHERNET: u32 = 14;
const IP: u32 = 20;
const TCP: u32 = 20;
const _: () = assert!(LEN == (ETHERNET + IP + TCP) as usize);

/// Parses a frame of the common kind; false if it is not, and `packet` as it was.
#[inline(always)]
pub(crate) fn parse(head: &[u8], frame_len: u32, packet: &mut Packet) -> bool {
    let Some(bytes) = head.first_chunk::<LEN>() else { return false };
    let is_whole = be16(bytes, L3 + 6) & 0x3fff == 0;
    if !is_plain_ethernet(bytes) || bytes[L3] != 0x45 || !is_whole || !header_adds_up(bytes) {
        return false;
    }
    let total_len = u32::from(be16(bytes, L3 + 2));
    if total_len + ETHERNET > frame_len {
        return false;
    }
    let Some(l4_len) = total_len.checked_sub(IP) else { return false };
    match bytes[L3 + 9] {
        proto::TCP => {
            let header_len = u32::from(bytes[L4 + 12] >> 4) * 4;
            let numbers = tcp::plain_ack(&head[L4..], l4_len);
            let is_fit = numbers.is_some()
                || header_len >= TCP && header_len <= l4_len && tcp::is_legal(bytes[L4 + 13]);
            if is_fit {
                let plain = if numbers.is_some() { Plain::Ack } else { Plain::No };
                fill(packet, bytes, (frame_len, total_len), bytes[L4 + 13], plain, numbers);
            }
            is_fit
        }
        proto::UDP => {
            let len = u32::from(be16(bytes, L4 + 4));
            let is_fit = len >= 8 && len <= l4_len;
            if is_fit {
                fill(packet, bytes, (frame_len, total_len), 0, Plain::Datagram, None);
            }
            is_fit
        }
        _ => false,
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "header lengths are small constants")]
fn fill(
    packet: &mut Packet,
    bytes: &[u8; LEN],
    (frame_len, l3_len): (u32, u32),
    tcp_flags: u8,
    plain: Plain,
    numbers: Option<Numbers>,
) {
    *packet = Packet {
        tuple: Tuple {
            src: u128::from(be32(bytes, L3 + 12)),
            dst: u128::from(be32(bytes, L3 + 16)),
            src_port: be16(bytes, L4),
            dst_port: be16(bytes, L4 + 2),
            proto: bytes[L3 + 9],
            family: Family::V4,
        },
        hash: 0,
        bucket: 0,
        hint: Hint::NONE,
        frame_len,
        l3_len,
        l3_offset: L3 as u16,
        l4_offset: L4 as u16,
        ethertype: ethertype::IPV4,
        tcp_flags,
        icmp_type: 0,
        icmp_code: 0,
        vlan_tags: 0,
        kind: Kind::Ipv4,
        fragment: Fragment::Whole,
        has_l4: true,
        l4_fault: None,
        plain,
        numbers: numbers.unwrap_or_default(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::packets::{tcp, udp};
    use crate::wire::parse_any;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    /// The parsers proper.
    fn proper(head: &[u8], frame_len: u32) -> Option<Packet> {
        let mut packet = Packet::EMPTY;
        parse_any(head, frame_len, &mut packet).ok()?;
        Some(packet)
    }

    #[test]
    fn common_frames_are_parsed_here() {
        let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        for frame in [tcp(a, b).ack().build(), udp(a, b).payload(&[1; 100]).build()] {
            let mut packet = Packet::EMPTY;
            assert!(parse(&frame, u32::try_from(frame.len()).unwrap(), &mut packet));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_parsed_here_is_what_the_parsers_proper_say(
            is_tcp: bool, payload in 0..60_usize, changes in proptest::collection::vec((0..64_usize, any::<u8>()), 0..3),
            cut in 0..40_usize, more in 0..9000_u32, reseal: bool,
        ) {
            let (a, b) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
            let body = vec![7; payload];
            let mut frame =
                if is_tcp { tcp(a, b).ack().payload(&body).build() } else { udp(a, b).payload(&body).build() };
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            if reseal {
                frame[24..26].fill(0);
                let sum = crate::wire::checksum::finish(crate::wire::checksum::sum(&frame[14..34], 0));
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let frame_len = u32::try_from(frame.len()).unwrap() + if more > 8000 { more } else { 0 };
            frame.truncate(frame.len() - cut.min(frame.len()) / 2);
            let mut packet = Packet::EMPTY;
            if parse(&frame, frame_len, &mut packet) {
                prop_assert_eq!(format!("{:?}", proper(&frame, frame_len)), format!("{:?}", Some(packet)));
            }
        }
    }
}
