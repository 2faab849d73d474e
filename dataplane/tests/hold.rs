//! What waits at the taker of a bucket while its giver has lost its core: real workers on loopback devices, one of which
//! is not polled.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use dataplane::ids::{PortId, WorkerId};
use dataplane::packet::{Packet, Tuple};
use dataplane::reason::DropReason;
use dataplane::rss::{self, Fields};
use dataplane::testing::gateway::{Gateway, GatewayConfig, LEFT, RIGHT};
use dataplane::testing::packets::{ip, udp};
use dataplane::wire;
use dataplane::worker::{BucketMove, Stage};
use std::net::Ipv4Addr;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// Packets that arrive between two polls.
const BURST: u32 = 32;

fn gateway(workers: usize, frames_per_worker: u32) -> Gateway {
    Gateway::new(&[], GatewayConfig { workers, frames_per_worker, ..GatewayConfig::default() }).unwrap()
}

/// A packet of the flow with this port, with a number in it.
fn numbered(side: PortId, port: u16, number: u32) -> Vec<u8> {
    let packet =
        if side == LEFT { udp(HOST, SERVER).ports(port, 53) } else { udp(SERVER, HOST).ports(53, port) };
    packet.payload(&number.to_be_bytes()).build()
}

/// Numbers of the packets of a flow that have left on a NIC.
fn numbers(gateway: &mut Gateway, side: PortId, port: u16) -> Vec<u32> {
    let packets = gateway.collect(side);
    let of_flow = |packet: &&Vec<u8>| [&packet[34..36], &packet[36..38]].contains(&&port.to_be_bytes()[..]);
    packets
        .iter()
        .filter(of_flow)
        .map(|packet| u32::from_be_bytes(packet[42..46].try_into().unwrap()))
        .collect()
}

fn parse(bytes: &[u8]) -> Packet {
    wire::parse(bytes, u32::try_from(bytes.len()).unwrap()).unwrap()
}

fn bucket_of(bytes: &[u8]) -> u8 {
    rss::bucket(Fields::ALL, &parse(bytes).tuple)
}

/// The bucket where fragments of a packet meet.
fn meeting_of(bytes: &[u8]) -> u8 {
    rss::bucket(Fields::ALL, &Tuple { src_port: 0, dst_port: 0, ..parse(bytes).tuple })
}

fn owner(gateway: &Gateway, bucket: u8) -> usize {
    gateway.steering.owners()[usize::from(bucket)].index()
}

fn poll(gateway: &mut Gateway, worker: usize) {
    let now = gateway.now();
    gateway.workers[worker].poll(now);
}

#[track_caller]
fn deliver(gateway: &mut Gateway, worker: usize, side: PortId, packet: &[u8]) {
    let frame = gateway.deliver_via(worker, side, packet);
    assert!(frame.is_some(), "worker {worker} has no frame left to receive with");
}

fn dropped(gateway: &Gateway, reason: DropReason) -> u64 {
    let of = |port| gateway.counters.iter().map(move |worker| &worker.port(port).drops[reason as usize]);
    of(LEFT).chain(of(RIGHT)).map(|drops| drops.packets.get()).sum()
}

fn all_dropped(gateway: &Gateway) -> u64 {
    gateway
        .counters
        .iter()
        .flat_map(|worker| [LEFT, RIGHT].map(|port| worker.port(port).dropped_packets()))
        .sum()
}

/// Has the bucket of `packet` given to `taker`, up to where its giver waits for answers.
fn begin(gateway: &mut Gateway, packet: &[u8], taker: usize) {
    let bucket = bucket_of(packet);
    let giver = owner(gateway, bucket);
    let to = WorkerId(u8::try_from(taker).unwrap());
    assert!(gateway.steering.ask(BucketMove {
        bucket,
        from: gateway.steering.owners()[usize::from(bucket)],
        to
    }));
    for _ in 0..4 {
        poll(gateway, giver);
    }
    poll(gateway, taker);
    assert_eq!(gateway.steering.stage(), Stage::Asked, "the giver has not seen what the taker has answered");
}

/// Lets every worker go on; `each` is called between their rounds. Ends with the move.
fn go_on(gateway: &mut Gateway, mut each: impl FnMut(&mut Gateway)) {
    let mut rounds = 0;
    while gateway.steering.stage() != Stage::Idle {
        if gateway.steering.stage() == Stage::HandedOver {
            gateway.steering.release();
        }
        (0..gateway.workers.len()).for_each(|worker| poll(gateway, worker));
        each(gateway);
        rounds += 1;
        assert!(rounds < 1000, "the move does not end");
    }
    for _ in 0..20 {
        (0..gateway.workers.len()).for_each(|worker| poll(gateway, worker));
        each(gateway);
    }
    assert_eq!(gateway.frames_accounted(), gateway.frames_total());
    assert!(gateway.workers.iter().all(|worker| worker.frames_held() == 0));
}

/// Many times what its tx ring holds waits at the taker, more than a thousand packets; all leave in their order, with what
/// comes meanwhile behind them, and those that a third worker has passed on by way of the giver.
#[test]
fn a_giver_that_stands_still_costs_no_packet() {
    const WAITING: u32 = 3000;
    const BY_THE_GIVER: u32 = 500;
    let port = 1000;
    let mut gateway = gateway(3, 8192);
    let first = numbered(LEFT, port, 0);
    assert_eq!(gateway.send(LEFT, &first).forwarded.len(), 1);
    assert_eq!(gateway.send(RIGHT, &numbered(RIGHT, port, 0)).forwarded.len(), 1);
    let giver = owner(&gateway, bucket_of(&first));
    let (taker, third) = ((giver + 1) % 3, (giver + 2) % 3);
    begin(&mut gateway, &first, taker);
    for number in 1..=WAITING {
        deliver(&mut gateway, taker, LEFT, &numbered(LEFT, port, number));
        if number <= BY_THE_GIVER {
            deliver(&mut gateway, third, RIGHT, &numbered(RIGHT, port, number));
        }
        if number % BURST == 0 {
            poll(&mut gateway, taker);
            poll(&mut gateway, third);
        }
    }
    poll(&mut gateway, taker);
    poll(&mut gateway, third);
    assert_eq!(gateway.workers[taker].frames_held(), WAITING as usize);
    assert_eq!(all_dropped(&gateway), 0);

    let mut sent = [WAITING, BY_THE_GIVER];
    let mut left = [Vec::new(), Vec::new()];
    go_on(&mut gateway, |gateway| {
        for (side, (sent, left)) in [LEFT, RIGHT].into_iter().zip(sent.iter_mut().zip(&mut left)) {
            left.extend(numbers(gateway, side.peer(), port));
            *sent += 1;
            let via = if side == LEFT { taker } else { third };
            deliver(gateway, via, side, &numbered(side, port, *sent));
        }
    });
    // What `each` has delivered last.
    go_on(&mut gateway, |gateway| {
        for (side, left) in [LEFT, RIGHT].into_iter().zip(&mut left) {
            left.extend(numbers(gateway, side.peer(), port));
        }
    });
    for (sent, left) in sent.into_iter().zip(left) {
        assert!(left.iter().copied().eq(1..=sent), "{} of {sent}, or not in order", left.len());
    }
    assert_eq!(all_dropped(&gateway), 0);
}

/// Half of the taker's memory waits, the rest is dropped for its reason, and the taker's own flows go on.
#[test]
fn what_waits_leaves_memory_to_receive_with() {
    const FRAMES: u32 = 1024;
    const ARRIVING: u32 = 2048;
    let mut gateway = gateway(2, FRAMES);
    let port = 1000;
    let first = numbered(LEFT, port, 0);
    let giver = owner(&gateway, bucket_of(&first));
    let taker = 1 - giver;
    let mut takers = (2000..).filter(|port| owner(&gateway, bucket_of(&numbered(LEFT, *port, 0))) == taker);
    let own = takers.next().unwrap();
    assert_eq!(gateway.send(LEFT, &first).forwarded.len(), 1);
    begin(&mut gateway, &first, taker);
    let mut got_own = 0;
    for number in 1..=ARRIVING {
        deliver(&mut gateway, taker, LEFT, &numbered(LEFT, port, number));
        if number % BURST == 0 {
            deliver(&mut gateway, taker, LEFT, &numbered(LEFT, own, number));
            poll(&mut gateway, taker);
            got_own += numbers(&mut gateway, RIGHT, own).len();
            assert_eq!(gateway.frames_accounted(), gateway.frames_total());
        }
    }
    assert_eq!(gateway.workers[taker].frames_held(), FRAMES as usize / 2);
    assert_eq!(dropped(&gateway, DropReason::BucketMoving), u64::from(ARRIVING - FRAMES / 2));
    assert_eq!(got_own, (ARRIVING / BURST) as usize, "flows of the taker's own suffer from nobody's stall");

    let mut left = Vec::new();
    go_on(&mut gateway, |gateway| left.extend(numbers(gateway, RIGHT, port)));
    assert!(left.into_iter().eq(1..=FRAMES / 2), "the first ones, in their order");
    assert_eq!(all_dropped(&gateway), u64::from(ARRIVING - FRAMES / 2));
}

/// Fragments that meet at the taker make a datagram of the bucket that is coming: they wait, and leave as they came.
#[test]
fn a_datagram_waits_in_its_pieces() {
    let mut gateway = gateway(2, 1024);
    let datagram = |port: u16| udp(HOST, SERVER).ports(port, 53).payload(&[7; 64]).build();
    let met_elsewhere = |port: &u16| {
        let whole = datagram(*port);
        owner(&gateway, bucket_of(&whole)) != owner(&gateway, meeting_of(&whole))
    };
    let whole = datagram((1000..).find(met_elsewhere).unwrap());
    let taker = owner(&gateway, meeting_of(&whole));
    assert_eq!(gateway.send(LEFT, &whole).forwarded.len(), 1);
    begin(&mut gateway, &whole, taker);
    let piece = |id, offset, more, part: &[u8]| {
        ip(HOST, SERVER, 17).id(id).fragment(offset, more).payload(part).build()
    };
    let pieces: Vec<_> = (1..=40)
        .flat_map(|id| [piece(id, 0, true, &whole[34..74]), piece(id, 40, false, &whole[74..])])
        .collect();
    for piece in &pieces {
        deliver(&mut gateway, taker, LEFT, piece);
    }
    for _ in 0..4 {
        poll(&mut gateway, taker);
    }
    assert_eq!(gateway.workers[taker].frames_held(), pieces.len());
    assert_eq!(gateway.collect(RIGHT), Vec::<Vec<u8>>::new());
    let mut left = Vec::new();
    go_on(&mut gateway, |gateway| left.extend(gateway.collect(RIGHT)));
    assert_eq!(left, pieces);
    assert_eq!(all_dropped(&gateway), 0);
}
