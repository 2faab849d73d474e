//! Changes to real frames: what is changed, that nothing else is, and that checksums stay right.

use super::*;
use crate::testing::packets::{Builder, tcp, udp};
use crate::wire::{self, checksum};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ENDS4: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))];
const ENDS6: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
];

fn ends(six: bool) -> [IpAddr; 2] {
    if six { ENDS6 } else { ENDS4 }
}

fn syn(six: bool) -> Builder {
    let [from, to] = ends(six);
    tcp(from, to).ports(1000, 80).syn()
}

/// The frame after a change, in a buffer with `room` bytes more; and what the parser says of it then.
fn changed(frame: &[u8], alters: &[Alter], room: usize) -> (Result<(), Unfit>, Vec<u8>, Packet) {
    let mut packet = wire::parse(frame, u32::try_from(frame.len()).unwrap()).unwrap();
    let mut bytes = frame.to_vec();
    bytes.resize(frame.len() + room, 0xee);
    let mut len = frame.len();
    let mut done = Ok(());
    for alter in alters {
        let mut subject = Subject { bytes: &mut bytes, len, packet: &mut packet, mtu: 1400 };
        done = done.and(alter.apply(&mut subject));
        len = subject.len;
    }
    bytes.truncate(len);
    let again = wire::parse(&bytes, u32::try_from(len).unwrap()).unwrap();
    assert_eq!(
        (packet.l3_len, packet.frame_len, packet.tcp_flags),
        (again.l3_len, again.frame_len, again.tcp_flags)
    );
    (done, bytes, again)
}

fn is_right(bytes: &[u8], packet: &Packet) -> bool {
    checksum::l4_ok(bytes, packet)
}

fn options(bytes: &[u8], packet: &Packet) -> Vec<u8> {
    let l4 = usize::from(packet.l4_offset);
    bytes[l4 + 20..l4 + usize::from(bytes[l4 + 12] >> 4) * 4].to_vec()
}

fn strip(kinds: &[u8]) -> Alter {
    let set = kinds.iter().fold(TcpOptions::default(), |set, kind| set.with(*kind));
    Alter::Strip(Interned::new(set))
}

#[test]
fn the_type_of_service_is_changed_and_nothing_else() {
    let [from, to] = ENDS6;
    let mut frame = udp(from, to).ports(1, 2).build();
    frame[14] |= 0x0a;
    frame[15] |= 0xb7;
    let (_, bytes, _) = changed(&frame, &[Alter::Tos { clear: 0xfc, flip: 46 << 2 }], 0);
    // Class 0xab: its two last bits stay, and the flow label does.
    assert_eq!(bytes[14..16], [0x6b, 0xb7]);
    let (_, back, _) = changed(&bytes, &[Alter::Tos { clear: 0xff, flip: 0xab }], 0);
    assert_eq!(back, frame);
    let [from, to] = ENDS4;
    let frame = udp(from, to).ports(1, 2).build();
    let (_, bytes, _) = changed(&frame, &[Alter::Tos { clear: 0, flip: 0x31 }], 0);
    assert_eq!(bytes[15], 0x31);
}

#[test]
fn hops_stay_between_nothing_and_255() {
    for (hops, expected) in [
        (Hops::Set(7), 7),
        (Hops::Set(0), 0),
        (Hops::Inc(5), 65),
        (Hops::Inc(255), 255),
        (Hops::Dec(60), 0),
        (Hops::Dec(4), 56),
    ] {
        for six in [false, true] {
            let [from, to] = ends(six);
            let frame = udp(from, to).ttl(if hops == Hops::Dec(4) || hops == Hops::Inc(5) { 60 } else { 9 });
            let (done, bytes, _) = changed(&frame.build(), &[Alter::Hops(hops)], 0);
            assert_eq!((done, bytes[if six { 21 } else { 22 }]), (Ok(()), expected), "{hops:?}");
        }
    }
}

#[test]
fn a_segment_size_is_lowered_never_raised() {
    for six in [false, true] {
        let frame = syn(six).tcp_options(&[1, 1, 4, 2, 2, 4, 0x05, 0xb4]).build();
        let (_, bytes, packet) = changed(&frame, &[Alter::Mss(1200)], 0);
        assert_eq!(options(&bytes, &packet), [1, 1, 4, 2, 2, 4, 0x04, 0xb0]);
        assert!(is_right(&bytes, &packet));
        assert_eq!(changed(&frame, &[Alter::Mss(1460)], 0).1, frame);
        let (_, bytes, packet) = changed(&frame, &[Alter::ClampMss], 0);
        let clamped = if six { 1340_u16 } else { 1360 };
        assert_eq!(options(&bytes, &packet)[6..], clamped.to_be_bytes());
        // At an odd place.
        let frame = syn(six).tcp_options(&[1, 2, 4, 0x05, 0xb4, 1, 1, 1]).build();
        let (_, bytes, packet) = changed(&frame, &[Alter::Mss(1200)], 0);
        assert_eq!(options(&bytes, &packet)[..5], [1, 2, 4, 0x04, 0xb0]);
        assert!(is_right(&bytes, &packet));
    }
}

#[test]
fn a_segment_without_size_and_data_is_given_one() {
    for six in [false, true] {
        let default = if six { 1220_u16 } else { 536 };
        for (mss, expected) in [(100, 100), (9000, default)] {
            let frame = syn(six).tcp_options(&[4, 2, 1, 1]).build();
            let (_, bytes, packet) = changed(&frame, &[Alter::Mss(mss)], 4);
            let [high, low] = expected.to_be_bytes();
            assert_eq!(options(&bytes, &packet), [2, 4, high, low, 4, 2, 1, 1]);
            assert!(is_right(&bytes, &packet));
            assert_eq!(bytes.len(), frame.len() + 4);
            // Behind the packet there may be padding to take.
            let padded = [&frame[..], &[0; 6]].concat();
            let (_, bytes, packet) = changed(&padded, &[Alter::Mss(mss)], 4);
            assert_eq!((bytes.len(), is_right(&bytes, &packet)), (padded.len(), true));
        }
        // No room in the chunk, no room in the header, data behind it.
        let frame = syn(six).build();
        assert_eq!(changed(&frame, &[Alter::Mss(9)], 3).1, frame);
        let full = syn(six).tcp_options(&[1; 40]).build();
        assert_eq!(changed(&full, &[Alter::Mss(9)], 9).1, full);
        let data = syn(six).payload(b"x").build();
        assert_eq!(changed(&data, &[Alter::Mss(9)], 9).1, data);
    }
}

#[test]
fn options_become_no_operations() {
    let frame = syn(false).tcp_options(&[2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1]);
    let frame = frame.build();
    let (_, bytes, packet) = changed(&frame, &[strip(&[4, 8])], 0);
    assert_eq!(options(&bytes, &packet), [2, 4, 5, 0xb4, 1, 1, 3, 3, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    assert!(is_right(&bytes, &packet));
    // An option that reaches beyond the header stays, as do those behind it.
    let frame = syn(false).tcp_options(&[4, 2, 8, 10, 4, 2, 1, 1]).build();
    let (_, bytes, packet) = changed(&frame, &[strip(&[4, 8])], 0);
    assert_eq!(options(&bytes, &packet), [1, 1, 8, 10, 4, 2, 1, 1]);
}

#[test]
fn flags_of_congestion_go() {
    let frame = syn(false).flags(0xc2).build();
    let remove = Alter::Ecn { ect: None, ece: Some(false), cwr: Some(false) };
    let (_, bytes, packet) = changed(&frame, &[remove], 0);
    assert_eq!((packet.tcp_flags, is_right(&bytes, &packet)), (0x02, true));
    let (_, bytes, packet) = changed(&frame, &[Alter::Ecn { ect: Some(2), ece: None, cwr: Some(false) }], 0);
    assert_eq!((packet.tcp_flags, bytes[15], is_right(&bytes, &packet)), (0x42, 2, true));
}

#[test]
fn a_header_that_is_cut_off_condemns_its_packet() {
    let whole = syn(false).build();
    let mut short = whole.clone();
    short[17] = 30;
    short[24..26].fill(0);
    let check = checksum::finish(checksum::sum(&short[14..34], 0));
    short[24..26].copy_from_slice(&check.to_be_bytes());
    let mut long = whole.clone();
    long[46] = 0xf0;
    let remove = Alter::Ecn { ect: None, ece: Some(false), cwr: None };
    for alter in [Alter::Mss(9), strip(&[4])] {
        assert_eq!(changed(&short, &[alter], 0).0, Err(Unfit));
        assert_eq!(changed(&long, &[alter], 0).0, Err(Unfit));
    }
    assert_eq!(changed(&short, &[remove], 0).0, Err(Unfit));
    let mut packet = wire::parse(&whole, 54).unwrap();
    let mut bytes = whole;
    let mut subject = Subject { bytes: &mut bytes, len: 54, packet: &mut packet, mtu: 40 };
    assert_eq!(Alter::ClampMss.apply(&mut subject), Err(Unfit), "no room for a byte");
}

fn any_alter() -> impl Strategy<Value = Alter> {
    prop_oneof![
        (any::<u8>(), any::<u8>()).prop_map(|(clear, flip)| Alter::Tos { clear, flip }),
        any::<u8>().prop_map(|hops| Alter::Hops(Hops::Set(hops))),
        (1..=255_u8).prop_map(|hops| Alter::Hops(Hops::Inc(hops))),
        (1..=255_u8).prop_map(|hops| Alter::Hops(Hops::Dec(hops))),
        (prop::option::of(0..4_u8), any::<Option<bool>>(), any::<Option<bool>>())
            .prop_map(|(ect, ece, cwr)| Alter::Ecn { ect, ece, cwr }),
        (0..2000_u16).prop_map(Alter::Mss),
        Just(Alter::ClampMss),
        prop::collection::vec(2..20_u8, 0..5).prop_map(|kinds| strip(&kinds)),
    ]
}

proptest! {
    /// Whatever is changed: a right checksum stays right, a wrong one wrong, and the parser finds no fault.
    #[test]
    fn checksums_follow_every_change(
        six: bool,
        broken: bool,
        seed: u32,
        option_words in prop::collection::vec(any::<[u8; 4]>(), 0..10),
        known in prop::collection::vec(prop_oneof![Just([2_u8, 4, 5, 0xb4]), Just([1, 3, 3, 7]), Just([4, 2, 1, 1])], 0..3),
        payload in prop::collection::vec(any::<u8>(), 0..9),
        alters in prop::collection::vec(any_alter(), 1..5),
    ) {
        let mut words = [known, option_words].concat();
        words.truncate(10);
        let mut packet = syn(six).numbers(seed, seed).tcp_options(&words.concat()).payload(&payload);
        if broken {
            packet = packet.bad_checksum();
        }
        let frame = packet.build();
        let (_, bytes, packet) = changed(&frame, &alters, 64);
        prop_assert_eq!(is_right(&bytes, &packet), !broken);
        prop_assert_eq!(&bytes[bytes.len() - payload.len()..], &payload[..]);
    }
}
