//! The parser and the reject builder, on conversations, on every kind of damage, on arbitrary bytes, and beside
//! etherparse.

use super::{parse, reject};
use crate::packet::{Fragment, Kind, L4Fault, Packet, proto, tcp_flag};
use crate::reason::DropReason;
use crate::rules::model::RejectWith;
use crate::testing::packets::{self, Builder, icmp, icmp_error, ip, ping, tcp, udp, udplite};
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

fn parsed(frame: &[u8]) -> Result<Packet, DropReason> {
    parse(frame, u32::try_from(frame.len()).unwrap())
}

fn ok(builder: &Builder) -> Packet {
    parsed(&builder.build()).unwrap()
}

#[test]
fn a_tcp_segment_is_read_through_two_tags() {
    let packet = ok(&tcp(A, B).ports(4000, 80).syn().tag(0x88a8, 100).vlan(5));
    assert_eq!((packet.vlan_tags, packet.l3_offset, packet.l4_offset), (2, 22, 42));
    assert_eq!((packet.tuple.src_port, packet.tuple.dst_port), (4000, 80));
    assert_eq!((packet.tcp_flags, packet.l4_fault, packet.has_l4), (tcp_flag::SYN, None, true));
    assert_eq!(packet.tuple.src, u128::from(A.to_bits()));
}

#[test]
fn padding_behind_the_packet_is_not_part_of_it() {
    let mut frame = udp(A, B).ports(1, 2).payload(b"x").build();
    frame.resize(60, 0);
    let packet = parsed(&frame).unwrap();
    assert_eq!((packet.l3_len, packet.frame_len, packet.l4_fault), (29, 60, None));
}

#[test]
fn extension_headers_are_followed_to_the_upper_layer() {
    let packet = ok(&udp(A6, B6)
        .ports(53, 5353)
        .extension(proto::HOP_BY_HOP, &[1, 2, 0, 0])
        .extension(proto::ROUTING, &[0, 0, 0, 0, 0, 0])
        .extension(proto::DST_OPTS, &[1, 4, 0, 0, 0, 0]));
    assert_eq!((packet.kind, packet.tuple.proto, packet.tuple.dst_port), (Kind::Ipv6, proto::UDP, 5353));
    assert_eq!(packet.l4_offset, 14 + 40 + 24);
}

#[test]
fn fragments_are_told_apart() {
    assert_eq!(ok(&udp(A, B).fragment(0, true).payload(&[0; 16])).fragment, Fragment::First);
    let later = ok(&udp(A, B).ports(1, 2).fragment(16, false).payload(&[0; 8]));
    assert_eq!((later.fragment, later.has_l4, later.tuple.dst_port), (Fragment::Later, false, 0));
    assert_eq!(ok(&udp(A6, B6).fragment(0, false)).fragment, Fragment::Whole, "an atomic fragment is whole");
    let later = ok(&udp(A6, B6).fragment(64, true).payload(&[0; 8]));
    assert_eq!((later.fragment, later.tuple.proto, later.has_l4), (Fragment::Later, proto::UDP, false));
}

/// However long the chain: as far as the packet reaches.
#[test]
fn extension_headers_are_followed_to_the_end() {
    for count in [1, 15, 16, 17, 100, 500] {
        let mut frame = udp(A6, B6).ports(1, 2);
        for n in 0..count {
            frame = frame.extension([proto::DST_OPTS, proto::ROUTING, proto::AH][n % 3], &[1, 4, 0, 0, 0, 0]);
        }
        let packet = ok(&frame);
        assert_eq!((packet.tuple.proto, packet.tuple.dst_port, packet.l4_fault), (proto::UDP, 2, None));
        assert_eq!(usize::from(packet.l4_offset), 54 + 8 * count);
    }
    let endless = [proto::DST_OPTS, 0, 1, 4, 0, 0, 0, 0].repeat(8000);
    let packet = ok(&ip(A6, B6, proto::DST_OPTS).payload(&endless));
    assert_eq!(packet.l4_fault, Some(L4Fault::NoUpperLayer));
}

/// Behind the first fragment header another one is a header like any other.
#[test]
fn the_first_fragment_header_counts() {
    let header = |offset: u16, more: u16| [&(offset | more).to_be_bytes()[..], &[0; 4]].concat();
    let with = |first: &[u8], second: &[u8]| {
        let frame = udp(A6, B6).ports(1, 2).payload(&[7; 24]);
        ok(&frame.extension(proto::FRAGMENT, first).extension(proto::FRAGMENT, second))
    };
    let packet = with(&header(0, 1), &header(0, 0));
    assert_eq!((packet.fragment, packet.tuple.dst_port, packet.l4_fault), (Fragment::First, 2, None));
    let packet = with(&header(0, 0), &header(0, 1));
    assert_eq!((packet.fragment, packet.tuple.dst_port, packet.l4_fault), (Fragment::Whole, 2, None));
    let packet = with(&header(0, 1), &header(8, 1));
    assert_eq!((packet.fragment, packet.l4_fault), (Fragment::First, Some(L4Fault::NoUpperLayer)));
    let packet = with(&header(8, 1), &header(0, 1));
    assert_eq!((packet.fragment, packet.tuple.proto), (Fragment::Later, proto::FRAGMENT));
}

#[test]
fn what_is_not_ip_is_left_to_the_pass_list() {
    let arp = parsed(&packets::arp()).unwrap();
    assert_eq!((arp.kind, arp.ethertype), (Kind::NonIp, 0x0806));
    let llc =
        parsed(&packets::ethernet([1, 0x80, 0xc2, 0, 0, 0], packets::SRC_MAC, 38, &[0x42; 38])).unwrap();
    assert_eq!((llc.kind, llc.ethertype), (Kind::NonIp, 38), "a bridge without STP passes BPDUs");
}

/// A good frame, something done to it, and what a bridge makes of the result.
fn damaged(frame: Vec<u8>, at: usize, value: u8) -> Result<Packet, DropReason> {
    let mut frame = frame;
    frame[at] = value;
    // Keep the header checksum right where it is not what is being damaged.
    if frame[12..14] == [8, 0] && (14..34).contains(&at) && !(24..26).contains(&at) {
        let words = usize::from(frame[14] & 15).clamp(5, 15) * 4;
        let header = &mut frame[14..(14 + words).min(54)];
        header[10..12].fill(0);
        let check = super::checksum::finish(super::checksum::sum(header, 0));
        header[10..12].copy_from_slice(&check.to_be_bytes());
    }
    parsed(&frame)
}

#[test]
fn every_damage_below_the_upper_layer_has_its_reason() {
    use DropReason as R;
    let v4 = || udp(A, B).ports(1, 2).payload(&[0; 32]).build();
    let v6 = || udp(A6, B6).ports(1, 2).payload(&[0; 32]).build();
    let hop = |body: &[u8]| parsed(&udp(A6, B6).extension(proto::HOP_BY_HOP, body).build());
    let deep = (0..5).fold(udp(A, B), |frame, id| frame.vlan(id));
    let cases = [
        (parsed(&[0; 13]), R::EthernetTruncated),
        (parsed(&udp(A, B).vlan(1).build()[..16]), R::EthernetTruncated),
        (parsed(&deep.build()), R::VlanTooDeep),
        (damaged(v4(), 6, 1), R::SourceMacInvalid),
        (parsed(&udp(A, B).macs([0; 6], packets::DST_MAC).build()), R::SourceMacInvalid),
        (parsed(&udp(A, B).macs(packets::SRC_MAC, [1, 0x80, 0xc2, 0, 0, 2]).build()), R::LinkLocalMac),
        (parsed(&v4()[..33]), R::Ipv4Truncated),
        (damaged(v4(), 14, 0x65), R::Ipv4Version),
        (damaged(v4(), 14, 0x44), R::Ipv4HeaderLength),
        (parsed(&udp(A, B).ip_options(&[1; 40]).build()[..50]), R::Ipv4HeaderLength),
        (damaged(v4(), 17, 19), R::Ipv4TotalLength),
        (damaged(v4(), 16, 9), R::Ipv4TotalLength),
        (damaged(v4(), 24, 0xff), R::Ipv4Checksum),
        (parsed(&v6()[..53]), R::Ipv6Truncated),
        (damaged(v6(), 14, 0x40), R::Ipv6Version),
        (damaged(v6(), 18, 1), R::Ipv6PayloadLength),
        (hop(&[0xc2, 4, 0, 1, 0, 0]), R::Ipv6HopByHop),
        (hop(&[1, 200, 0, 0, 0, 0]), R::Ipv6HopByHop),
    ];
    for (number, (result, reason)) in cases.into_iter().enumerate() {
        assert_eq!(result.map(|packet| packet.l4_fault), Err(reason), "case {number}");
    }
}

#[test]
fn damage_in_the_upper_layer_is_noted_and_left_to_the_rules() {
    use L4Fault as F;
    let fault = |frame: Vec<u8>| parsed(&frame).unwrap().l4_fault;
    let with = |mut frame: Vec<u8>, at: usize, value: u8| {
        frame[at] = value;
        fault(frame)
    };
    assert_eq!(fault(ip(A, B, proto::TCP).payload(&[0; 19]).build()), Some(F::Truncated));
    assert_eq!(fault(ip(A, B, proto::UDP).payload(&[0; 7]).build()), Some(F::Truncated));
    assert_eq!(fault(ip(A, B, proto::SCTP).payload(&[0; 11]).build()), Some(F::Truncated));
    assert_eq!(with(tcp(A, B).syn().build(), 46, 0x40), Some(F::BadLength));
    assert_eq!(with(tcp(A, B).syn().build(), 46, 0x60), Some(F::BadLength));
    assert_eq!(with(udp(A, B).build(), 39, 7), Some(F::BadLength));
    assert_eq!(with(udp(A, B).build(), 39, 9), Some(F::BadLength));
    assert_eq!(with(udplite(A, B).build(), 39, 3), Some(F::BadLength));
    assert_eq!(fault(tcp(A, B).flags(0).build()), Some(F::BadFlags));
    assert_eq!(fault(tcp(A, B).flags(tcp_flag::SYN | tcp_flag::FIN).build()), Some(F::BadFlags));
    assert_eq!(fault(ip(A6, B6, proto::NONE).build()), Some(F::NoUpperLayer));
    assert_eq!(fault(udp(A6, B6).extension(proto::AH, &[200, 0, 0, 0, 0, 0]).build()), None);
    // A chain that runs off the packet: what would follow is known, but not there.
    let beyond = |upper: u8| {
        let mut frame = ip(A6, B6, upper).extension(proto::ROUTING, &[0; 6]).payload(&[0; 20]).build();
        frame[14 + 40 + 1] = 200;
        parsed(&frame).unwrap()
    };
    assert_eq!(beyond(proto::UDP).l4_fault, Some(F::Truncated));
    assert_eq!(beyond(proto::DST_OPTS).l4_fault, Some(F::NoUpperLayer));
    let packet = beyond(proto::ESP);
    assert_eq!((packet.tuple.proto, usize::from(packet.l4_offset)), (proto::ESP, packet.l3_end()));
}

#[test]
fn checksums_are_judged_over_the_right_bytes() {
    let good = |frame: &[u8]| super::checksum::l4_ok(frame, &parsed(frame).unwrap());
    for builder in [
        tcp(A, B).ports(1, 2).payload(b"odd"),
        udp(A, B).payload(b"even"),
        ping(A, B, 7).payload(&[9; 55]),
        ping(A6, B6, 7),
        tcp(A6, B6).vlan(3).payload(&[1; 1000]),
    ] {
        let mut frame = builder.build();
        frame.extend([0xde, 0xad]);
        assert!(good(&frame));
        assert!(!good(&builder.bad_checksum().build()));
    }
    assert!(good(&udp(A, B).no_checksum().build()));
    assert!(!good(&udplite(A, B).no_checksum().build()));
    // Linux takes UDP's protocol number into UDP-Lite's checksum, and so nobody else's is right to it.
    assert!(!good(&udplite(A, B).payload(b"lite").build()));
}

/// What `with` answers to a frame, in a buffer as large as a chunk.
fn answer(builder: &Builder, with: RejectWith) -> Option<Vec<u8>> {
    let frame = builder.build();
    let packet = parsed(&frame).unwrap();
    let mut buffer = frame.clone();
    buffer.resize(frame.len().max(1792), 0xaa);
    let len = reject::build(&mut buffer, frame.len(), &packet, with)?;
    buffer.truncate(len);
    Some(buffer)
}

#[test]
fn a_reset_takes_over_the_ack_or_acknowledges_what_was_sent() {
    let reset = answer(&tcp(A, B).ports(4000, 80).syn().numbers(1000, 0), RejectWith::TcpReset).unwrap();
    let packet = parsed(&reset).unwrap();
    assert_eq!((packet.tuple.src_port, packet.tuple.dst_port), (80, 4000));
    assert_eq!(packet.tcp_flags, tcp_flag::RST | tcp_flag::ACK);
    assert_eq!(&reset[14 + 20 + 4..14 + 20 + 12], [0, 0, 0, 0, 0, 0, 0x03, 0xe9]);
    let reset = answer(&tcp(A6, B6).ack().numbers(5, 77).payload(b"data"), RejectWith::TcpReset).unwrap();
    assert_eq!(parsed(&reset).unwrap().tcp_flags, tcp_flag::RST);
    assert_eq!(&reset[14 + 40 + 4..14 + 40 + 12], [0, 0, 0, 77, 0, 0, 0, 0]);
}

#[test]
fn no_answer_is_owed_to_resets_errors_groups_fragments_and_broken_packets() {
    let unreachable = RejectWith::IcmpPortUnreachable;
    let offender = udp(A, B).build();
    assert!(answer(&udp(A, B), unreachable).is_some());
    assert!(answer(&tcp(A, B).rst(), RejectWith::TcpReset).is_none());
    assert!(answer(&icmp_error(A, B, 3, 1, &offender, 28), unreachable).is_none());
    assert!(answer(&udp(A, B).bad_checksum(), unreachable).is_none());
    assert!(answer(&udp(A, B).fragment(8, false).payload(&[0; 8]), unreachable).is_none());
    assert!(answer(&udp(A, Ipv4Addr::new(224, 0, 0, 1)), unreachable).is_none());
    assert!(
        answer(&udp(A6, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)), RejectWith::Icmp6PortUnreachable)
            .is_none()
    );
    assert!(answer(&udp(Ipv6Addr::UNSPECIFIED, B6), RejectWith::Icmp6PortUnreachable).is_none());
    assert!(answer(&icmp(A, B, 8, 0), unreachable).is_some(), "a ping may be refused");
}

#[test]
fn errors_quote_as_much_as_they_may_and_keep_the_tag() {
    let big = [7; 1700];
    let v4 = answer(&udp(A, B).vlan(9).payload(&big[..1400]), RejectWith::IcmpAdminProhibited).unwrap();
    let packet = parsed(&v4).unwrap();
    assert_eq!((v4.len(), packet.vlan_tags), (18 + 576, 1));
    assert_eq!((packet.icmp_type, packet.icmp_code), (3, 13));
    let v6 = answer(&udp(A6, B6).payload(&big), RejectWith::Icmp6AdminProhibited).unwrap();
    assert_eq!(v6.len(), 14 + 1280);
    assert_eq!((parsed(&v6).unwrap().icmp_type, parsed(&v6).unwrap().icmp_code), (1, 1));
}

/// Frames of all kinds.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let shape = (0..9_u8, any::<u16>(), any::<u16>(), any::<u8>(), 0..4_u8, any::<bool>(), any::<bool>());
    (shape, proptest::collection::vec(any::<u8>(), 0..300)).prop_map(
        |((kind, port, other, flags, tags, v6, options), payload)| {
            let base = |v4: Builder, v6_builder: Builder| if v6 { v6_builder } else { v4 };
            let mut builder = match kind {
                0..=2 => base(tcp(A, B), tcp(A6, B6)).flags(flags),
                3 | 4 => base(udp(A, B), udp(A6, B6)),
                5 => base(udplite(A, B), udplite(A6, B6)),
                6 => base(icmp(A, B, flags % 20, 0), icmp(A6, B6, flags, 0)).id(port),
                7 => base(ip(A, B, proto::GRE), ip(A6, B6, proto::ESP)),
                _ => base(udp(A, B), udp(A6, B6)).fragment(port & 0x1ff8, flags & 1 == 1),
            };
            builder = builder.ports(port, other).payload(&payload);
            if options && v6 {
                builder = builder.extension(proto::DST_OPTS, &[1, 4, 0, 0, 0, 0]);
            } else if options {
                builder = builder.ip_options(&[1, 1, 1]);
            }
            (0..tags.min(3)).fold(builder, |builder, id| builder.vlan(u16::from(id))).build()
        },
    )
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_offsets_stay_within(
        mut frame in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..4_u8
    ) {
        if let (Some(ethertype), 1..) = (frame.get_mut(12..14), kind) {
            ethertype.copy_from_slice(&[[0, 0], [8, 0], [0x86, 0xdd], [0x81, 0]][usize::from(kind)]);
            frame[6] &= 0xfe;
        }
        check_bounds(&frame)?;
    }

    #[test]
    fn damaged_frames_never_panic_and_offsets_stay_within(
        frame in any_frame(), hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut: prop::sample::Index
    ) {
        let mut frame = frame;
        for (at, value) in hits {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        check_bounds(&frame)?;
        check_bounds(&frame[..cut.index(frame.len())])?;
    }

    #[test]
    fn good_frames_read_as_etherparse_reads_them(frame in any_frame()) {
        let packet = parsed(&frame).unwrap();
        let sliced = etherparse::SlicedPacket::from_ethernet(&frame);
        let Ok(sliced) = sliced else { return Ok(()) };
        prop_assert_eq!(usize::from(packet.vlan_tags), sliced.link_exts.len());
        match sliced.net {
            Some(etherparse::NetSlice::Ipv4(v4)) => {
                prop_assert_eq!(packet.tuple.src, u128::from(v4.header().source_addr().to_bits()));
                prop_assert_eq!(packet.tuple.dst, u128::from(v4.header().destination_addr().to_bits()));
                prop_assert_eq!(packet.tuple.proto, v4.payload().ip_number.0);
                prop_assert_eq!(packet.fragment == Fragment::Whole, !v4.header().is_fragmenting_payload());
            }
            Some(etherparse::NetSlice::Ipv6(v6)) => {
                prop_assert_eq!(packet.tuple.src, v6.header().source_addr().to_bits());
                // Behind a later fragment there is no chain to follow, whatever its header says comes next.
                if packet.fragment != Fragment::Later {
                    prop_assert_eq!(packet.tuple.proto, v6.payload().ip_number.0);
                }
            }
            _ => prop_assert_eq!(packet.kind, Kind::NonIp),
        }
        match sliced.transport {
            Some(etherparse::TransportSlice::Tcp(header)) => {
                prop_assert_eq!((packet.tuple.src_port, packet.tuple.dst_port), (header.source_port(), header.destination_port()));
            }
            Some(etherparse::TransportSlice::Udp(header)) => {
                prop_assert_eq!((packet.tuple.src_port, packet.tuple.dst_port), (header.source_port(), header.destination_port()));
            }
            _ => {}
        }
    }

    #[test]
    fn answers_are_well_formed_and_never_answered_themselves(frame in any_frame(), with in 0..3_u8) {
        let packet = parsed(&frame).unwrap();
        let with = match (with, packet.kind) {
            (0, _) => RejectWith::TcpReset,
            (_, Kind::Ipv4) => RejectWith::IcmpPortUnreachable,
            _ => RejectWith::Icmp6PolicyFail,
        };
        let mut buffer = frame.clone();
        buffer.resize(1792, 0xaa);
        if let Some(len) = reject::build(&mut buffer, frame.len(), &packet, with) {
            let answer = parsed(&buffer[..len]).unwrap();
            prop_assert_eq!(answer.l4_fault, None);
            prop_assert!(super::checksum::l4_ok(&buffer[..len], &answer));
            prop_assert_eq!((answer.tuple.src, answer.tuple.dst), (packet.tuple.dst, packet.tuple.src));
            prop_assert_eq!(answer.l3_end(), len);
            let mut again = buffer.clone();
            prop_assert_eq!(reject::build(&mut again, len, &answer, with), None);
        }
    }
}

fn check_bounds(frame: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(packet) = parsed(frame) {
        prop_assert!(usize::from(packet.l3_offset) <= frame.len());
        prop_assert!(packet.l3_end() <= frame.len());
        prop_assert!(
            packet.kind == Kind::NonIp
                || usize::from(packet.l4_offset) <= packet.l3_end()
                || packet.l4_fault.is_some()
        );
        let _ = super::checksum::l4_ok(frame, &packet);
        let _ = super::tcp::Segment::parse(frame, &packet)
            .map(|segment| (segment.syn_options(), segment.sack_edge()));
        let mut buffer = frame.to_vec();
        buffer.resize(2000, 0);
        for with in [RejectWith::TcpReset, RejectWith::IcmpHostUnreachable] {
            let _ = reject::build(&mut buffer.clone(), frame.len(), &packet, with);
        }
    }
    Ok(())
}
