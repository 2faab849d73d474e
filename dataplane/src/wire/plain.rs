//! The common frame in one piece: no tags, an IPv4 header without options, not a fragment, TCP or UDP, nothing wrong. It
//! reads each byte once and writes each field once; header by header the same took 23 ns a packet instead of 9
//! (`./scripts/bench figures --only conntrack`). Whatever is not like that is left to the parsers proper, which
//! also are the meaning of this one: tests hold them together.

use super::{ETHERNET_LEN, ethertype, ipv4, tcp};
use crate::packet::{Family, Fragment, Hint, Kind, Packet, Tuple, proto};

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

/// Whether the addresses are those of a frame that a bridge forwards without a second look: the source not a group and
/// not zero, the destination not a link-local group.
#[inline]
fn macs_are_plain(bytes: &[u8; LEN]) -> bool {
    let src = u64::from(be32(bytes, 6)) << 16 | u64::from(be16(bytes, 10));
    let is_link_local = be32(bytes, 0) == 0x0180_c200;
    bytes[6] & 1 == 0 && src != 0 && !is_link_local
}

/// Whether the IPv4 header adds up. Sums of native words: ones-complement sums do not depend on the byte order.
#[inline]
fn header_adds_up(bytes: &[u8; LEN]) -> bool {
    let word =
        |at: usize| u64::from(u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    let sum = word(L3) + word(L3 + 4) + word(L3 + 8) + word(L3 + 12) + word(L3 + 16);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum == 0xffff
}

/// Parses a frame of the common kind; false if it is not, and `packet` as it was.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "header lengths are small constants")]
pub(super) fn parse(head: &[u8], frame_len: u32, packet: &mut Packet) -> bool {
    let Some(bytes) = head.first_chunk::<LEN>() else { return false };
    let is_ipv4 = be16(bytes, 12) == ethertype::IPV4 && bytes[L3] == 0x45;
    let is_whole = be16(bytes, L3 + 6) & 0x3fff == 0;
    if !is_ipv4 || !is_whole || !macs_are_plain(bytes) || !header_adds_up(bytes) {
        return false;
    }
    let total_len = u32::from(be16(bytes, L3 + 2));
    let Some(l4_len) = total_len.checked_sub(ipv4::HEADER_LEN as u32) else { return false };
    let (protocol, mut flags, mut numbers) = (bytes[L3 + 9], 0, None);
    let fits = match protocol {
        proto::TCP => {
            flags = bytes[L4 + 13];
            let header_len = u32::from(bytes[L4 + 12] >> 4) * 4;
            numbers = tcp::plain_ack(&head[L4..], l4_len);
            header_len >= tcp::HEADER_LEN as u32
                && header_len <= l4_len
                && (numbers.is_some() || tcp::is_legal(flags))
        }
        proto::UDP => {
            let len = u32::from(be16(bytes, L4 + 4));
            len >= 8 && len <= l4_len
        }
        _ => false,
    };
    if !fits || total_len + L3 as u32 > frame_len {
        return false;
    }
    *packet = Packet {
        tuple: Tuple {
            src: u128::from(be32(bytes, L3 + 12)),
            dst: u128::from(be32(bytes, L3 + 16)),
            src_port: be16(bytes, L4),
            dst_port: be16(bytes, L4 + 2),
            proto: protocol,
            family: Family::V4,
        },
        hash: 0,
        hint: Hint::NONE,
        frame_len,
        l3_len: total_len,
        l3_offset: L3 as u16,
        l4_offset: L4 as u16,
        ethertype: ethertype::IPV4,
        tcp_flags: flags,
        icmp_type: 0,
        icmp_code: 0,
        vlan_tags: 0,
        kind: Kind::Ipv4,
        fragment: Fragment::Whole,
        has_l4: true,
        l4_fault: None,
        is_plain_ack: numbers.is_some(),
        numbers: numbers.unwrap_or_default(),
    };
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::packets::{tcp, udp};
    use crate::wire::{ETHERNET_LEN, check_macs, ipv4, note_plain_ack, skip_tags};
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    /// The parsers proper.
    fn proper(head: &[u8], frame_len: u32) -> Option<Packet> {
        let ethernet = head.first_chunk::<ETHERNET_LEN>()?;
        check_macs(ethernet).ok()?;
        let (ethertype, l3_offset, vlan_tags) = skip_tags(head, ethernet).ok()?;
        let mut packet =
            Packet { frame_len, l3_offset, l4_offset: l3_offset, ethertype, vlan_tags, ..Packet::EMPTY };
        (ethertype == ethertype::IPV4).then_some(())?;
        ipv4::parse(head, &mut packet).ok()?;
        note_plain_ack(head, &mut packet);
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
