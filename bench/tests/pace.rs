//! The paced generator: exact counts, the same packets as the kernel's generator, and a verdict that can be relied on.

mod common;

use bench::iface_index;
use bench::load::{Amount, Flood, Load, Order, Protocol, Sizes};
use bench::pace::{self, Paced, Spacing};
use bench::sink::{Options, Role, Sequence, Sink, Storage};
use common::{load, open_left_end, send, wait_until};
use palisade_tests::lab::{GATEWAY_LEFT, HOST_IFACE, Lab, PacketSocket};
use palisade_tests::require_root;
use std::time::Duration;

fn pace(lab: &Lab, load: &Load, spacing: Spacing, amount: Amount) -> Paced {
    let paced = lab.left.netns.within(|| pace::run(load, iface_index(HOST_IFACE)?, spacing, amount));
    paced.expect("the kernel takes the socket")
}

/// Frames that arrive while `make` makes them, without what is a stamp's time and so differs: checksum and time.
fn captured(lab: &Lab, load: &Load, count: u32, make: impl FnOnce()) -> Vec<Vec<u8>> {
    let socket = PacketSocket::open(&lab.gateway, GATEWAY_LEFT);
    make();
    let l4_at = if load.dst.is_ipv6() { 54 } else { 34 };
    let is_load = |frame: &[u8]| matches!(frame[if l4_at == 54 { 20 } else { 23 }], 6 | 17);
    let next = || socket.receive(Duration::from_secs(20), is_load).expect("another frame");
    let blank = |mut frame: Vec<u8>| {
        let (check_at, payload_at) = if load.protocol == Protocol::Udp { (6, 8) } else { (16, 20) };
        if load.stamp && frame[l4_at + payload_at..].starts_with(b"PALS") {
            frame[l4_at + check_at..][..2].fill(0);
            frame[l4_at + payload_at + 8..][..8].fill(0);
        }
        frame
    };
    (0..count).map(|_| blank(next())).collect()
}

#[test]
fn it_sends_what_the_kernels_generator_sends() {
    require_root!();
    const PACKETS: u32 = 150;
    // After it the flood's first flow comes again.
    const FLOOD_LAST: u32 = 0x8000 * 60_000 - 1;
    let lab = Lab::new();
    open_left_end(&lab);
    for is_v6 in [false, true] {
        let plain = load(&lab, is_v6);
        let flood = Some(Flood { protocol: Protocol::Syn, honest_every: 3, first: FLOOD_LAST - 20 });
        let loads = [
            Load { flows: 7, sizes: Sizes::Fixed(90), ..plain.clone() },
            Load { flows: 7, first_flow: 59_997, ..plain.clone() },
            Load { flows: 4, sizes: Sizes::Imix, protocol: Protocol::Tcp, stamp: true, ..plain.clone() },
            Load {
                flows: 70_000,
                first_flow: 1_000_000,
                order: Order::Uniform,
                sizes: Sizes::Fixed(1_001),
                stamp: true,
                ..plain.clone()
            },
            Load { flows: 1_000, order: Order::Zipf { exponent: 1.1 }, sizes: Sizes::Imix, flood, ..plain },
        ];
        for load in loads {
            let load = Load { rate_pps: Some(20_000), ..load };
            let amount = Amount::Packets(PACKETS);
            let kernel =
                captured(&lab, &load, PACKETS, || assert_eq!(send(&lab, &load, amount).packets, 150));
            let paced = captured(&lab, &load, PACKETS, || {
                assert_eq!(pace(&lab, &load, Spacing::Even, amount).packets, 150);
            });
            for ((kernel, paced), n) in kernel.iter().zip(&paced).zip(0..) {
                assert_eq!(kernel, paced, "packet {n} of {load:?}");
            }
        }
    }
}

#[test]
fn checksums_of_stamped_frames_are_right() {
    require_root!();
    let lab = Lab::new();
    open_left_end(&lab);
    let socket = PacketSocket::open(&lab.gateway, GATEWAY_LEFT);
    for is_v6 in [false, true] {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let load = Load {
                protocol,
                stamp: true,
                sizes: Sizes::Fixed(101),
                rate_pps: Some(10_000),
                ..load(&lab, is_v6)
            };
            pace(&lab, &load, Spacing::Even, Amount::Packets(20));
            for _ in 0..20 {
                let frame = socket
                    .receive(Duration::from_secs(20), |frame| frame.len() == 101)
                    .expect("another frame");
                assert_eq!(common::l4_sum(&frame), 0xffff, "{frame:02x?}");
            }
        }
    }
}

#[test]
fn every_frame_is_counted_with_a_sink_on_either_end_and_the_echo_comes_back() {
    require_root!();
    const PACKETS: u32 = 5_000;
    let lab = Lab::new();
    let (mut far, mut near) = (Storage::default(), Storage::default());
    let options = |role| Options { flows: 10, stamps: true, role };
    let far = lab
        .gateway
        .within(|| Sink::attach_as(&mut far, iface_index(GATEWAY_LEFT)?, options(Role::Echo)))
        .unwrap();
    let near = lab
        .left
        .netns
        .within(|| Sink::attach_as(&mut near, iface_index(HOST_IFACE)?, options(Role::DropReplies)))
        .unwrap();
    for spacing in [Spacing::Even, Spacing::Poisson] {
        far.reset().unwrap();
        near.reset().unwrap();
        let load = Load { flows: 10, stamp: true, rate_pps: Some(50_000), ..load(&lab, false) };
        let paced = pace(&lab, &load, spacing, Amount::Packets(PACKETS));
        assert_eq!((paced.packets, paced.lateness.len()), (PACKETS.into(), PACKETS.into()));
        // A frame never leaves before its moment, so all of them take their time at least.
        if spacing == Spacing::Even {
            assert!(paced.elapsed >= Duration::from_micros(20) * (PACKETS - 1), "{:?}", paced.elapsed);
        }
        assert_eq!(paced.is_kept(), paced.verdict().starts_with("the rate was kept"));
        wait_until("all have come back", || near.counts().unwrap().packets == u64::from(PACKETS));
        let whole = Sequence { packets: 500, expected: 500, ..Sequence::default() };
        assert_eq!(far.sequences().unwrap(), vec![whole; 10]);
        assert_eq!(near.sequences().unwrap(), vec![whole; 10]);
        let [there, back] = [&far, &near].map(|sink| sink.latencies().unwrap().histogram);
        assert_eq!((there.len(), back.len()), (PACKETS.into(), PACKETS.into()));
        assert!(back.min() >= there.min());
    }
}

#[test]
fn a_rate_that_cannot_be_kept_is_said_so() {
    require_root!();
    let lab = Lab::new();
    // A nanosecond is less than a system call takes on any machine.
    let load = Load { rate_pps: Some(1_000_000_000), ..load(&lab, false) };
    let time = Duration::from_millis(200);
    let paced = pace(&lab, &load, Spacing::Even, Amount::Time(time));
    assert!(!paced.is_kept() && paced.packets < 100_000_000, "{paced:?}");
    assert!(paced.verdict().contains("NOT KEPT"), "{}", paced.verdict());
}

#[test]
fn what_cannot_be_paced_is_refused_with_a_reason() {
    require_root!();
    let lab = Lab::new();
    let plain = load(&lab, false);
    let cases = [
        (plain.clone(), "needs a rate"),
        (Load { rate_pps: Some(0), ..plain.clone() }, "needs a rate"),
        (Load { rate_pps: Some(1), sizes: Sizes::Fixed(1_793), ..plain }, "1792 bytes at most, not 1793"),
    ];
    for (load, reason) in cases {
        let refusal = lab
            .left
            .netns
            .within(|| pace::run(&load, iface_index(HOST_IFACE)?, Spacing::Even, Amount::Packets(1)));
        let error = refusal.expect_err("a refusal").to_string();
        assert!(error.contains(reason), "{error}");
    }
}
