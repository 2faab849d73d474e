//! Conditions on foreign bytes: never a panic, never more than the packet; text against its slow twin.

use super::*;
use crate::packet::{Packet, proto};
use crate::rules::conn::Marks;
use crate::rules::model::{CtState, Hook, IfacePattern, PortSide};
use crate::rules::selfcheck::facts;
use crate::testing::packets::{ip, tcp, udp};
use crate::wire;
use ::proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

fn asks(condition: &HeaderMatch, packet: &Packet, bytes: &[u8]) -> (bool, bool) {
    let mut marks = Marks::default();
    let facts = Facts { bytes, ..facts(packet, CtState::New, None, crate::ids::PortId(0)) };
    (condition.holds(&facts, &mut marks), marks.hotdrop)
}

/// Of a frame that parses.
fn of(condition: &HeaderMatch, frame: &[u8]) -> (bool, bool) {
    let packet = wire::parse(frame, u32::try_from(frame.len()).unwrap()).expect("a packet");
    asks(condition, &packet, frame)
}

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const YES: (bool, bool) = (true, false);
const NO: (bool, bool) = (false, false);
const DROPPED: (bool, bool) = (false, true);

fn any_range<T: Arbitrary + Copy + 'static>() -> impl Strategy<Value = Range<T>> {
    (any::<T>(), any::<T>(), any::<bool>()).prop_map(|(low, high, invert)| Range { low, high, invert })
}

/// A byte that frames often have.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(2),
        Just(4),
        Just(6),
        Just(17),
        Just(43),
        Just(44),
        Just(51),
        Just(60),
        any::<u8>()
    ]
}

fn u32_program() -> impl Strategy<Value = U32> {
    let operation = prop_oneof![
        any::<u32>().prop_map(Operation::And),
        (0..32_u32).prop_map(Operation::Left),
        (0..32_u32).prop_map(Operation::Right),
        prop_oneof![0..80_u32, any::<u32>()].prop_map(Operation::At),
    ];
    let test = (
        prop_oneof![0..80_u32, any::<u32>()],
        proptest::collection::vec(operation, 0..U32_LIST_MAX),
        proptest::collection::vec((any::<u32>(), any::<u32>()), 1..4),
    )
        .prop_map(|(start, operations, values)| U32Test { start, operations, values });
    (proptest::collection::vec(test, 1..4), any::<bool>()).prop_map(|(tests, invert)| U32 { tests, invert })
}

fn text() -> impl Strategy<Value = Text> {
    let pattern = proptest::collection::vec(byte(), 1..6);
    (pattern, 0..60_u16, 0..200_u16, any::<bool>(), any::<bool>()).prop_map(
        |(pattern, from, to, icase, invert)| {
            Text::new(&pattern, (from, to), icase, invert).expect("neither empty nor long")
        },
    )
}

/// Conditions of every kind, for property tests of rules too.
pub(in crate::rules) fn condition() -> impl Strategy<Value = HeaderMatch> {
    let invert = any::<bool>;
    let len =
        || prop::option::of((prop_oneof![Just(8_u32), Just(16), Just(24), any::<u32>()], any::<bool>()));
    let hops = (0..4, byte()).prop_map(|(which, value)| match which {
        0 => Hops::Eq(value),
        1 => Hops::Ne(value),
        2 => Hops::Lt(value),
        _ => Hops::Gt(value),
    });
    let types = any::<[bool; 4]>().prop_map(|[unspecified, unicast, broadcast, multicast]| AddressTypes {
        unspecified,
        unicast,
        broadcast,
        multicast,
    });
    let name = |name: &str| IfacePattern { name: name.to_owned(), prefix: name == "eth" };
    let nic = move || {
        prop::option::of((
            prop_oneof![Just(name("eth0")), Just(name("lan1")), Just(name("eth"))],
            any::<bool>(),
        ))
    };
    let device = (nic(), nic(), any::<[Option<bool>; 3]>()).prop_map(
        |(ingress, egress, [is_in, is_out, is_bridged])| {
            HeaderMatch::Device(Device { ingress, egress, is_in, is_out, is_bridged })
        },
    );
    let chunks = (0..3_usize, any::<[u64; 4]>(), byte(), any::<[u8; 2]>(), invert()).prop_map(
        |(rule, kinds, kind, [mask, value], invert)| {
            let rule = [ChunkRule::Any, ChunkRule::All, ChunkRule::Only][rule];
            let flags = [ChunkFlags { kind, mask, value: value & mask }].into();
            HeaderMatch::Chunks(Box::new(Chunks { rule, kinds, flags, invert }))
        },
    );
    let options = (
        any::<bool>(),
        len(),
        prop::option::of(proptest::collection::vec((byte(), prop::option::of(byte())), 1..4)),
    )
        .prop_map(|(destination, len, options)| {
            HeaderMatch::Options(Box::new(Options { destination, len, options: options.map(Into::into) }))
        });
    let routing = (
        len(),
        len(),
        any_range(),
        prop::option::of(proptest::collection::vec(any::<u128>(), 1..3)),
        any::<[bool; 2]>(),
    )
        .prop_map(|(kind, len, segments_left, addresses, [reserved, not_strict])| {
            let addresses = addresses.map(Into::into);
            HeaderMatch::Routing(Box::new(Routing {
                kind,
                segments_left,
                len,
                reserved,
                addresses,
                not_strict,
            }))
        });
    let border = || {
        let of_net = (any::<u8>(), any::<bool>())
            .prop_map(|(net, is_last)| u32::from_be_bytes([net, 1, 2, if is_last { 0xff } else { 0 }]));
        prop_oneof![any::<u32>(), of_net]
    };
    let address = (any::<bool>(), border(), border(), invert()).prop_map(|(of_dst, low, high, invert)| {
        HeaderMatch::Address { of_dst, range: Range { low: low.into(), high: high.into(), invert } }
    });
    let first = prop_oneof![
        any_range().prop_map(HeaderMatch::Length),
        hops.prop_map(HeaderMatch::Hops),
        (byte(), byte(), invert()).prop_map(|(value, mask, invert)| HeaderMatch::Tos { value, mask, invert }),
        (byte(), invert()).prop_map(|(bit, invert)| HeaderMatch::EcnFlag { bit, invert }),
        (any::<[u8; 6]>(), invert()).prop_map(|(address, invert)| HeaderMatch::Mac { address, invert }),
        Just(HeaderMatch::Eui64),
        invert().prop_map(|invert| HeaderMatch::PacketType { is: PacketType::Multicast, invert }),
        address,
        (any::<bool>(), types, invert()).prop_map(|(of_dst, types, invert)| HeaderMatch::AddressType {
            of_dst,
            types,
            invert
        }),
        device,
        (0..40_u8).prop_map(HeaderMatch::Carries),
    ];
    let second = prop_oneof![
        (any::<u16>(), any::<u16>(), invert()).prop_map(|(low, high, invert)| HeaderMatch::RawPorts {
            which: PortSide::Either,
            ranges: [(low, high)].into(),
            invert
        }),
        (byte(), invert()).prop_map(|(kind, invert)| HeaderMatch::TcpOption { kind, invert }),
        any_range().prop_map(HeaderMatch::Mss),
        any_range().prop_map(HeaderMatch::Spi),
        chunks,
        (any::<u16>(), invert()).prop_map(|(types, invert)| HeaderMatch::Dccp(Dccp::Types { types, invert })),
        (byte(), invert()).prop_map(|(kind, invert)| HeaderMatch::Dccp(Dccp::Option { kind, invert })),
        (any_range(), any::<u8>(), any::<[bool; 2]>()).prop_map(|(spi, len, [invert, reserved])| {
            HeaderMatch::Auth(Auth { spi, len: (len.into(), invert), reserved })
        }),
        (any_range(), any::<[bool; 2]>(), any::<Option<bool>>()).prop_map(|(id, [reserved, first], more)| {
            HeaderMatch::Fragment(FragmentHeader { id, reserved, first, more })
        }),
        (any::<u8>(), any::<[bool; 2]>())
            .prop_map(|(kinds, [soft, invert])| HeaderMatch::Extensions(Extensions { kinds, soft, invert })),
        options,
        routing,
        u32_program().prop_map(|program| HeaderMatch::U32(Box::new(program))),
        text().prop_map(|text| HeaderMatch::Text(Box::new(text))),
    ];
    prop_oneof![first, second]
}

/// A frame whose Ethernet and IP headers say that they are such.
fn framed(six: bool, mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().max(54), 0);
    let len = u16::try_from(bytes.len() - 14).unwrap();
    if six {
        bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
        bytes[18..20].copy_from_slice(&(len - 40).to_be_bytes());
    } else {
        bytes[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
        bytes[16..18].copy_from_slice(&len.to_be_bytes());
        wire::seal_ipv4(&mut bytes[14..34]);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn foreign_bytes_are_judged_and_never_a_panic(
        condition in condition(),
        six: bool,
        bytes in proptest::collection::vec(byte(), 0..220),
        cut in 0..240_usize,
        mut fields: [u16; 2],
    ) {
        let frame = framed(six, bytes);
        if let Ok(packet) = wire::parse(&frame, u32::try_from(frame.len()).unwrap()) {
            let (_, dropped) = asks(&condition, &packet, &frame);
            prop_assert!(!dropped || condition.may_drop());
            // Nor if the frame is not what was said of it.
            asks(&condition, &packet, &frame[..cut.min(frame.len())]);
            fields[0] %= 300;
            let lying = Packet { l3_offset: fields[0], l4_offset: fields[1], ..packet };
            asks(&condition, &lying, &frame);
        }
        asks(&condition, &Packet::EMPTY, &frame[..cut.min(frame.len())]);
    }

    #[test]
    fn text_is_found_where_it_is(
        pattern in proptest::collection::vec(0..3_u8, 1..6),
        bytes in proptest::collection::vec(0..3_u8, 0..60),
        from in 0..70_u16,
        len in 0..70_u16,
    ) {
        let to = from + len;
        let text = Text::new(&pattern, (from, to), false, false).unwrap();
        let within = bytes.get(usize::from(from)..usize::from(to).min(bytes.len())).unwrap_or_default();
        let is_there = within.windows(pattern.len()).any(|window| window == pattern);
        prop_assert_eq!(text.holds(&bytes), is_there);
    }

    #[test]
    fn common_bits_hold_a_range(low: u32, len in 0..100_000_u32, at in 0..100_000_u32) {
        let (low, high) = (u128::from(low), u128::from(low) + u128::from(len));
        let (addr, mask) = Range { low, high, invert: false }.common_bits().unwrap();
        let value = low + u128::from(at).min(high - low);
        prop_assert_eq!(value & mask, addr);
        let is_all = (low, high) == (addr, addr | !mask);
        prop_assert_eq!(Range { low, high, invert: false }.is_all_of(mask), is_all);
    }
}

#[test]
fn a_header_that_is_cut_off_drops_its_packet() {
    let mss = HeaderMatch::Mss(Range { low: 1400, high: 1500, invert: false });
    let with = |options: &[u8]| tcp(A, B).syn().tcp_options(options).build();
    assert_eq!(of(&mss, &with(&[2, 4, 5, 0xb4])), YES);
    assert_eq!(of(&mss, &with(&[2, 4, 1, 0])), NO);
    assert_eq!(of(&mss, &with(&[])), NO);
    let header = [0, 1, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0xf0, 2, 1, 0, 0, 0, 0, 0];
    assert_eq!(of(&mss, &ip(A, B, proto::TCP).payload(&header).build()), DROPPED);
    let carries = HeaderMatch::Carries(20);
    assert_eq!(of(&carries, &ip(A, B, proto::TCP).payload(&header[..19]).build()), DROPPED);
    let later = |offset| ip(A, B, proto::TCP).payload(&header).fragment(offset, true).build();
    assert_eq!((of(&carries, &later(8)), of(&carries, &later(16))), (DROPPED, NO));
}

#[test]
fn options_of_length_zero_and_beyond_the_end_come_to_an_end() {
    for options in [&[8, 0, 0, 0][..], &[3, 200, 8, 10], &[1, 1, 1, 8]] {
        let frame = tcp(A, B).syn().tcp_options(options).build();
        for kind in [2, 3, 8] {
            let has = HeaderMatch::TcpOption { kind, invert: false };
            assert!(!of(&has, &frame).1);
        }
    }
}

#[test]
fn a_program_of_numbers_goes_from_place_to_place() {
    let frame = udp(A, B).ports(1, 53).payload(b"needle").build();
    let start = 0;
    let to_payload = vec![Operation::Right(22), Operation::And(0x3c), Operation::At(8)];
    let test = U32Test { start, operations: to_payload, values: vec![(0x6e65_6564, 0x6e65_6564)] };
    let holds = |tests: Vec<U32Test>, invert| of(&HeaderMatch::U32(Box::new(U32 { tests, invert })), &frame);
    assert_eq!((holds(vec![test.clone()], false), holds(vec![test.clone()], true)), (YES, NO));
    let beyond = U32Test { start: 31, operations: vec![], values: vec![(0, u32::MAX)] };
    assert_eq!((holds(vec![beyond.clone()], false), holds(vec![test, beyond], true)), (NO, YES));
    let round =
        U32Test { start: 0, operations: vec![Operation::At(u32::MAX); 2], values: vec![(0, u32::MAX)] };
    assert_eq!(holds(vec![round], false), NO);
}

#[test]
fn nics_are_known_where_a_bridge_knows_them() {
    let ports = ["left", "right"].map(str::to_owned);
    let right = Some((IfacePattern { name: "right".to_owned(), prefix: false }, false));
    let egress = Device { egress: right.clone(), ..Device::default() };
    let nobody = HeaderMatch::Nics { ingress: 0, egress: 0 };
    assert_eq!(egress.resolve(Hook::Raw, &ports), nobody);
    assert_eq!(egress.resolve(Hook::Forward, &ports), HeaderMatch::Nics { ingress: 3, egress: 2 });
    let ingress = Device { ingress: right, ..Device::default() };
    assert_eq!(ingress.resolve(Hook::Postrouting, &ports), HeaderMatch::Nics { ingress: 2, egress: 3 });
    let bridged = Device { is_bridged: Some(true), ..Device::default() };
    assert_eq!(bridged.resolve(Hook::Prerouting, &ports), nobody);
}

#[test]
fn an_address_made_of_a_mac_address_is_known() {
    let client: Ipv6Addr = "fe80::ff:fe00:1".parse().unwrap();
    let server: Ipv6Addr = "fe80::2".parse().unwrap();
    assert_eq!(of(&HeaderMatch::Eui64, &udp(client, server).build()), YES);
    assert_eq!(of(&HeaderMatch::Eui64, &udp(server, client).build()), NO);
}
