//! What the sink says of traffic whose numbers, order and delay are known.

mod common;

use bench::iface_index;
use bench::load::{Amount, Load, Order, Protocol};
use bench::sink::{LATENCY_MAX_NS, Options, Role, Sequence, Sink, Storage};
use common::{load, send, wait_until};
use etherparse::PacketBuilder;
use palisade_tests::lab::{GATEWAY_LEFT, HOST_IFACE, Lab};
use palisade_tests::require_root;
use rustix::time::{ClockId, clock_gettime};
use std::thread;
use std::time::Duration;

/// A sink on the gateway's end of the left cable.
fn attach<'storage>(lab: &Lab, storage: &'storage mut Storage, options: Options) -> Sink<'storage> {
    lab.gateway
        .within(|| Sink::attach_as(storage, iface_index(GATEWAY_LEFT)?, options))
        .expect("the kernel takes the sink")
}

/// A datagram of the load's first flow, or another one, with a stamp made by hand.
fn stamped(lab: &Lab, flow: u16, number: u32, ns: u64) -> Vec<u8> {
    let payload = [&b"PALS"[..], &number.to_be_bytes(), &ns.to_be_bytes()].concat();
    let builder = PacketBuilder::ethernet2(lab.left.mac, lab.right.mac)
        .ipv4([10, 77, 64, 0], lab.right.v4.octets(), 64)
        .udp(1024 + flow, 7000);
    let mut frame = Vec::new();
    builder.write(&mut frame, &payload).expect("a vector takes every byte");
    frame
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).expect("a time after the start")
}

#[test]
fn packets_of_every_family_and_protocol_are_counted_by_flow_until_a_reset() {
    require_root!();
    let lab = Lab::new();
    let mut storage = Storage::default();
    let sink = attach(&lab, &mut storage, Options { flows: 70_000, stamps: true, role: Role::Drop });
    for is_v6 in [false, true] {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let load = load(&lab, is_v6);
            let load = Load {
                flows: 70_000,
                protocol,
                stamp: true,
                sizes: bench::load::Sizes::Fixed(90),
                rate_pps: Some(500_000),
                ..load
            };
            assert_eq!(send(&lab, &load, Amount::Packets(140_000)).packets, 140_000);
            let counts = sink.counts().unwrap();
            assert_eq!(
                (counts.packets, counts.bytes, counts.unstamped),
                (140_000, 140_000 * 90, 0),
                "{load:?}"
            );
            assert!(sink.flows().unwrap().iter().all(|packets| *packets == 2));
            let whole = Sequence { packets: 2, expected: 2, ..Sequence::default() };
            assert!(sink.sequences().unwrap().iter().all(|sequence| *sequence == whole));
            assert_eq!(sink.latencies().unwrap().histogram.len(), 140_000);
            sink.reset().unwrap();
            let counts = sink.counts().unwrap();
            assert_eq!((counts.packets, counts.bytes), (0, 0));
            assert_eq!(sink.sequences().unwrap().into_iter().sum::<Sequence>(), Sequence::default());
            assert_eq!(sink.latencies().unwrap().histogram.len(), 0);
        }
    }
}

#[test]
fn loss_reordering_and_duplicates_are_told_from_each_other() {
    require_root!();
    let lab = Lab::new();
    let mut storage = Storage::default();
    let sink = attach(&lab, &mut storage, Options { flows: 3, stamps: true, role: Role::Drop });
    let wire = lab.left_wire();
    let mut sent = 0;
    let mut send = |flow, number| {
        wire.send(&stamped(&lab, flow, number, 1));
        sent += 1;
    };
    for number in [0, 1, 2, 3, 5, 7, 6, 8, 8, 9] {
        send(0, number);
    }
    // Number 100 comes a hundred too late, number 190 ten too late and then once more.
    for number in (0..=200).filter(|number| ![100, 190].contains(number)).chain([100, 190, 190]) {
        send(1, number);
    }
    // A gap longer than the memory of what was seen.
    for number in [0, 1_000, 999, 0] {
        send(2, number);
    }
    wait_until("all have arrived", || sink.counts().unwrap().packets == sent);
    let wanted = [
        Sequence { packets: 10, expected: 10, lost: 1, late: 1, duplicates: 1, ancient: 0 },
        Sequence { packets: 202, expected: 201, lost: 0, late: 2, duplicates: 1, ancient: 1 },
        Sequence { packets: 4, expected: 1_001, lost: 997, late: 2, duplicates: 0, ancient: 1 },
    ];
    assert_eq!(sink.sequences().unwrap(), wanted);
}

#[test]
fn latency_is_what_the_stamps_say() {
    require_root!();
    let lab = Lab::new();
    let mut storage = Storage::default();
    let sink = attach(&lab, &mut storage, Options { stamps: true, ..Options::default() });
    let wire = lab.left_wire();
    for delay_ns in [5_000, 3_000_000, 7_000_000_000] {
        sink.reset().unwrap();
        let start = now_ns();
        wire.send(&stamped(&lab, 0, 0, start - delay_ns));
        wait_until("it has arrived", || sink.counts().unwrap().packets == 1);
        let most = delay_ns + now_ns() - start;
        let histogram = sink.latencies().unwrap().histogram;
        assert_eq!(histogram.len(), 1);
        let measured = histogram.max();
        // A bucket's width, and what the histogram rounds by.
        let slack = |ns: u64| ns / 50 + 1;
        assert!(measured + slack(measured) >= delay_ns, "{measured} ns, delayed by {delay_ns} or more");
        assert!(measured <= most + slack(most), "{measured} ns, delayed by {most} or less");
    }
    sink.reset().unwrap();
    wire.send(&stamped(&lab, 0, 0, now_ns() + 100_000_000_000));
    wire.send(&stamped(&lab, 0, 0, now_ns() - LATENCY_MAX_NS - 1));
    wire.send(&palisade_tests::frames::udp_v4(&lab, 1024, 7000, b"no stamp at all"));
    wait_until("they have arrived", || sink.counts().unwrap().packets == 3);
    let latencies = sink.latencies().unwrap();
    assert_eq!((latencies.from_future, latencies.beyond, latencies.histogram.len()), (1, 1, 0));
    assert_eq!(sink.counts().unwrap().unstamped, 1);
}

#[test]
fn silence_is_told_from_a_sender_that_pauses() {
    require_root!();
    const PAUSE: Duration = Duration::from_secs(1);
    let lab = Lab::new();
    let mut storage = Storage::default();
    let sink = attach(&lab, &mut storage, Options { flows: 2, stamps: true, role: Role::Drop });
    let wire = lab.left_wire();
    let silence_before = |flow, number, ns| {
        let before = sink.counts().unwrap().packets;
        wire.send(&stamped(&lab, flow, number, ns));
        wait_until("it has arrived", || sink.counts().unwrap().packets > before);
        sink.longest_silence().unwrap()
    };
    assert_eq!(silence_before(0, 0, now_ns()), Duration::ZERO, "one packet has no neighbour");
    thread::sleep(PAUSE);
    assert!(silence_before(1, 0, now_ns()) < PAUSE, "the next one left after the pause");
    let left = now_ns();
    thread::sleep(PAUSE);
    let held_up = silence_before(0, 1, left);
    assert!(held_up >= PAUSE, "{held_up:?} though it left before the pause");
    thread::sleep(2 * PAUSE);
    let lost = silence_before(0, 2, now_ns());
    assert!(lost >= 2 * PAUSE, "{lost:?} though one before it was lost");
    sink.reset().unwrap();
    assert_eq!(sink.longest_silence().unwrap(), Duration::ZERO);
    drop(sink);
    let sink = attach(&lab, &mut storage, Options { stamps: true, ..Options::default() });
    assert!(sink.longest_silence().is_err(), "without flows there is no row of packets");
}

#[test]
fn what_is_sent_back_is_seen_at_the_near_end() {
    require_root!();
    let lab = Lab::new();
    let (mut far, mut near) = (Storage::default(), Storage::default());
    let far = attach(&lab, &mut far, Options { flows: 10, stamps: true, role: Role::Echo });
    let options = Options { flows: 10, stamps: true, role: Role::DropReplies };
    let near =
        lab.left.netns.within(|| Sink::attach_as(&mut near, iface_index(HOST_IFACE)?, options)).unwrap();
    for is_v6 in [false, true] {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            far.reset().unwrap();
            near.reset().unwrap();
            let sizes = bench::load::Sizes::Fixed(128);
            let load =
                Load { flows: 10, protocol, sizes, stamp: true, rate_pps: Some(20_000), ..load(&lab, is_v6) };
            send(&lab, &load, Amount::Packets(1_000));
            wait_until("all have come back", || near.counts().unwrap().packets == 1_000);
            let whole = Sequence { packets: 100, expected: 100, ..Sequence::default() };
            assert_eq!(near.sequences().unwrap(), vec![whole; 10]);
            let [there, back] = [&far, &near].map(|sink| sink.latencies().unwrap().histogram);
            assert_eq!([there.len(), back.len()], [1_000, 1_000]);
            assert!(back.min() >= there.min(), "a round trip takes longer than half of it");
        }
    }
}

#[test]
fn uniform_is_uniform_and_zipf_is_skewed() {
    require_root!();
    const PACKETS: u32 = 400_000;
    let lab = Lab::new();
    let mut storage = Storage::default();
    let sink = attach(&lab, &mut storage, Options { flows: 1_000, ..Options::default() });
    let shares = |order| {
        sink.reset().unwrap();
        let load = Load { flows: 1_000, order, rate_pps: Some(1_000_000), ..load(&lab, false) };
        send(&lab, &load, Amount::Packets(PACKETS));
        let flows = sink.flows().unwrap();
        assert_eq!(flows.iter().sum::<u64>(), u64::from(PACKETS));
        flows
    };
    // 400 of each, give or take six standard deviations.
    assert!(shares(Order::Uniform).iter().all(|packets| (280..=520).contains(packets)));
    let zipf = shares(Order::Zipf { exponent: 1.0 });
    // Of the sum 1 + 1/2 + ... + 1/1000 = 7.485 the first has 1, the tenth 1/10, the hundredth 1/100.
    for (rank, wanted) in [(1, 53_437_u64), (10, 5_344), (100, 534)] {
        let packets = zipf[rank - 1];
        assert!(packets.abs_diff(wanted) < wanted / 4, "flow of rank {rank}: {packets}, should be {wanted}");
    }
}
