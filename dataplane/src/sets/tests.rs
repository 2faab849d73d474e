use super::*;
use crate::clock::Now;
use crate::packet::Family;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

fn set(spec: Spec) -> Set {
    Set::new(spec, 0, &Arc::from(["left".to_owned(), "right".to_owned()])).unwrap()
}

fn v4(kind: Kind) -> Spec {
    Spec::new(kind, Some(Family::V4))
}

fn ip(addr: u128) -> Element {
    Element { addr, ..Element::default() }
}

fn net(addr: u128, prefix: u8) -> Element {
    Element { addr, prefix, ..Element::default() }
}

proptest! {
    #[test]
    fn networks_are_found_smallest_first(
        nets in prop::collection::vec((any::<u8>(), 1..=32_u8, any::<bool>()), 1..40),
        addrs in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let set = set(v4(Kind::HashNet));
        let mut known: HashMap<(u128, u8), bool> = HashMap::new();
        let spread = |byte: u8| u128::from(u32::from(byte).wrapping_mul(0x0204_0810));
        for (addr, prefix, nomatch) in nets {
            let extras = Extras { nomatch, ..Extras::default() };
            set.add(net(spread(addr), prefix), &extras, true, Now::default()).unwrap();
            known.insert((spread(addr) & mask(Family::V4, prefix), prefix), nomatch);
        }
        for addr in addrs.into_iter().map(spread) {
            let expected = (1..=32_u8).rev().find_map(|prefix| {
                known.get(&(addr & mask(Family::V4, prefix), prefix)).copied()
            });
            prop_assert_eq!(set.is_in(net(addr, 32), Now::default()), expected);
        }
    }
}

#[test]
fn time_ends_an_entry_before_it_is_swept() {
    let set = set(Spec { timeout: Some(10), ..v4(Kind::HashIp) });
    let add = |addr, timeout| {
        let extras = Extras { timeout, ..Extras::default() };
        set.add(ip(addr), &extras, false, Now::from_secs(1)).unwrap();
    };
    add(1, None);
    add(2, Some(0));
    add(3, Some(100));
    let there = |secs| [1, 2, 3].map(|addr| set.is_in(ip(addr), Now::from_secs(secs)).is_some());
    assert_eq!(there(10), [true; 3]);
    assert_eq!(there(11), [false, true, true]);
    assert_eq!(there(101), [false, true, false]);
    assert_eq!(set.len(), 3);
    (0..table::SHARDS).for_each(|_| set.sweep(Now::from_secs(11)));
    assert_eq!(set.len(), 2);
    assert_eq!(set.entries(Now::from_secs(1)).iter().filter_map(|entry| entry.timeout).max(), Some(100));
    // An entry whose time is up may be added again.
    assert_eq!(set.add(ip(3), &Extras::default(), false, Now::from_secs(101)), Ok(Added::New));
}

#[test]
fn a_full_set_refuses_or_makes_room() {
    let full = set(Spec { maxelem: 2, ..v4(Kind::HashIp) });
    let now = Now::default();
    let add = |set: &Set, addr| set.add(ip(addr), &Extras::default(), false, now);
    assert_eq!(
        [1, 2, 3].map(|addr| add(&full, addr)),
        [Ok(Added::New), Ok(Added::New), Err(EditError::Full)]
    );
    assert_eq!(add(&full, 1), Err(EditError::Exists));
    let forced = set(Spec { maxelem: 2, forceadd: true, ..v4(Kind::HashIp) });
    (1..=20).for_each(|addr| assert_eq!(add(&forced, addr), Ok(Added::New)));
    assert_eq!(forced.len(), 2);
    assert!(forced.is_in(ip(20), now).is_some());
}

#[test]
fn counters_stay_with_their_entries_while_the_set_grows() {
    let set = set(Spec { counters: true, ..v4(Kind::HashIp) });
    for addr in 1..=5000_u64 {
        let extras = Extras { counts: Some((addr, addr * 2)), ..Extras::default() };
        set.add(ip(addr.into()), &extras, false, Now::default()).unwrap();
        if addr % 3 == 0 {
            set.remove(ip(u128::from(addr / 3)), Now::default()).unwrap();
        }
    }
    for entry in set.entries(Now::default()) {
        let addr = u64::try_from(entry.element.addr).unwrap();
        assert_eq!(entry.counts, Some((addr, addr * 2)));
    }
}

#[test]
fn elements_are_kept_as_they_are() {
    let element = Element {
        addr: 0xfd00 << 112 | 1,
        prefix: 128,
        proto: 17,
        port: 53,
        addr2: 0xfd01 << 112,
        prefix2: 64,
        iface: 0,
        physdev: false,
    };
    let spec = Spec::new(Kind::HashIpPortNet, Some(Family::V6));
    assert_eq!(Element::of_key(&element.key(&spec), &spec), element);
    let mac = Element { addr: 0x0200_0000_0001, ..Element::default() };
    let spec = Spec::new(Kind::HashMac, None);
    assert_eq!(Element::of_key(&mac.key(&spec), &spec), mac);
}

mod packets {
    use super::*;
    use crate::clock::WallClock;
    use crate::rules::model::{Hook, Match};
    use crate::rules::rate::Rates;
    use crate::rules::selfcheck;
    use crate::testing::packets::{Builder, tcp, udp};
    use crate::{packet::Packet, rules::Facts, rules::model::CtState, wire};
    use std::net::Ipv4Addr;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn asked(set: Set, src: &[bool]) -> SetMatch {
        let bits = src.iter().enumerate().fold(0, |bits, (at, is_src)| bits | u8::from(*is_src) << at);
        SetMatch {
            slot: Arc::new(Slot::new(SlotId(1), Arc::new(set))),
            directions: Directions { count: u8::try_from(src.len()).unwrap(), src: bits },
            invert: false,
            return_nomatch: false,
            keep_counters: false,
            keep_subcounters: false,
            packets: None,
            bytes: None,
            hook: Hook::Forward,
        }
    }

    fn holds(set: &SetMatch, frame: &Builder) -> bool {
        let bytes = frame.build();
        let mut packet = Packet::EMPTY;
        wire::parse_into(&bytes, u32::try_from(bytes.len()).unwrap(), &mut packet).unwrap();
        let facts = selfcheck::facts(&packet, CtState::New, None, crate::ids::PortId(0));
        set.holds(&Facts { bytes: &bytes, rates: Rates::Live(&WallClock::default()), ..facts })
    }

    #[test]
    fn mac_addresses_are_looked_for_at_either_end() {
        let macs = set(Spec::new(Kind::HashMac, None));
        macs.add(ip(0x0200_0000_0007), &Extras::default(), false, Now::default()).unwrap();
        let (own, other) = ([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8]);
        let (from, to) = (udp(A, B).macs(own, other), udp(A, B).macs(other, own));
        let src = asked(macs, &[true]);
        let dst = SetMatch { directions: Directions { count: 1, src: 0 }, ..src.clone() };
        assert_eq!([&from, &to].map(|frame| holds(&src, frame)), [true, false]);
        assert_eq!([&from, &to].map(|frame| holds(&dst, frame)), [false, true]);
    }

    #[test]
    fn a_nic_is_known_by_its_name_where_the_rule_stands() {
        let nics = set(v4(Kind::HashNetIface));
        let left = nics.iface("left").unwrap();
        let element = Element { iface: left, physdev: true, ..net(0x0a00_0000, 8) };
        nics.add(element, &Extras::default(), false, Now::default()).unwrap();
        let in_left = asked(nics, &[true, true]);
        assert!(holds(&in_left, &tcp(A, B).syn()));
        assert!(holds(&in_left.at(Hook::Postrouting), &tcp(A, B).syn()));
        let out = SetMatch { directions: Directions { count: 2, src: 1 }, ..in_left };
        assert!(!holds(&out, &tcp(A, B).syn()) && !holds(&out.at(Hook::Prerouting), &tcp(A, B).syn()));
    }

    #[test]
    fn a_later_fragment_has_no_port_to_look_for_but_an_address() {
        let ports = set(v4(Kind::HashIpPort));
        let zero = Element { proto: 17, ..ip(0x0a00_0001) };
        ports.add(zero, &Extras::default(), false, Now::default()).unwrap();
        let piece = udp(A, B).fragment(8, false);
        assert!(!holds(&asked(ports, &[true, false]), &piece));
        let addrs = set(v4(Kind::HashIp));
        addrs.add(ip(0x0a00_0001), &Extras::default(), false, Now::default()).unwrap();
        assert!(holds(&asked(addrs, &[true]), &piece));
    }

    #[test]
    fn nothing_is_counted_for_what_is_no_packet() {
        let counted = set(Spec { counters: true, ..v4(Kind::HashIp) });
        counted.add(ip(0x0a00_0001), &Extras::default(), false, Now::default()).unwrap();
        let asked = asked(counted, &[true]);
        let counts = || asked.slot.set().entries(Now::default())[0].counts;
        assert!(holds(&asked, &udp(A, B)));
        let known = counts();
        assert_eq!(known.map(|(packets, _)| packets), Some(1));
        let frame = udp(A, B).build();
        let mut packet = Packet::EMPTY;
        wire::parse_into(&frame, u32::try_from(frame.len()).unwrap(), &mut packet).unwrap();
        let probe = selfcheck::facts(&packet, CtState::New, None, crate::ids::PortId(0));
        assert!(asked.holds(&probe) && asked.holds(&Facts { bytes: &frame, ..probe }));
        assert_eq!(counts(), known);
        assert_eq!(Match::Set(asked.clone()), Match::Set(asked.clone()));
    }
}
