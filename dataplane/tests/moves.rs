//! Buckets that change their worker under traffic: real workers on loopback devices, polled in any order.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use dataplane::flow::Direction;
use dataplane::ids::{PortId, WorkerId};
use dataplane::rss::{self, Fields};
use dataplane::testing::gateway::{Gateway, GatewayConfig, LEFT, RIGHT};
use dataplane::testing::packets::{icmp_error, tcp, udp};
use dataplane::wire;
use dataplane::worker::{BucketMove, Spread, Stage};
use std::collections::HashMap;
use std::net::Ipv4Addr;

const WEB: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

/// xorshift64*: the same traffic every time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end as u64).unwrap()
    }

    fn worker(&mut self, workers: usize) -> WorkerId {
        WorkerId(u8::try_from(self.below(workers)).unwrap())
    }
}

fn host(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(number).unwrap())
}

fn bucket_of(bytes: &[u8]) -> u8 {
    rss::bucket(Fields::ALL, &wire::parse(bytes, u32::try_from(bytes.len()).unwrap()).unwrap().tuple)
}

fn gateway_with(workers: usize, queues: Option<u32>) -> Gateway {
    let spread = Spread::Rss(Fields::ALL);
    Gateway::new(&[], GatewayConfig { workers, queues, spread, ..GatewayConfig::default() }).unwrap()
}

fn gateway(workers: usize) -> Gateway {
    gateway_with(workers, None)
}

fn poll_all(gateway: &mut Gateway) {
    let now = gateway.now();
    for worker in &mut gateway.workers {
        worker.poll(now);
    }
}

/// Begins some move, if none is under way.
fn begin(gateway: &Gateway, random: &mut Random, buckets: &[u8]) -> bool {
    let bucket = buckets[random.below(buckets.len())];
    let from = gateway.steering.owners()[usize::from(bucket)];
    gateway.steering.ask(BucketMove { bucket, from, to: random.worker(gateway.workers.len()) })
}

/// The conversations of one side or both, a UDP stream each.
const FLOWS: usize = 24;

fn stream(flow: usize, side: PortId, number: u32) -> Vec<u8> {
    let port = 1000 + u16::try_from(flow).unwrap();
    let client = host(flow % 5);
    let builder =
        if side == LEFT { udp(client, WEB).ports(port, 53) } else { udp(WEB, client).ports(53, port) };
    builder.payload(&number.to_be_bytes()).build()
}

/// Packets of every flow and direction leave in the order in which they came, none is missing, and every flow counts all
/// of its own, whoever is polled when and whatever moves. With `agrees` NICs follow the moves; with `queues` there are
/// fewer of these than workers.
fn order_is_kept(seed: u64, workers: usize, agrees: bool, queues: Option<u32>) {
    let mut random = Random(seed);
    let mut gateway = gateway_with(workers, queues);
    let now = gateway.now();
    let queue: Vec<[usize; 2]> = (0..FLOWS).map(|_| [random.below(workers), random.below(workers)]).collect();
    let mut steered = gateway.steering.owners();
    let buckets: Vec<u8> = (0..FLOWS).map(|flow| bucket_of(&stream(flow, LEFT, 0))).collect();
    let mut sent: HashMap<(usize, PortId), u32> = HashMap::new();
    let mut left: HashMap<(usize, PortId), u32> = HashMap::new();
    let mut moves = 0;
    let mut collect = |gateway: &mut Gateway| {
        for side in [LEFT, RIGHT] {
            for bytes in gateway.collect(side) {
                let packet = wire::parse(&bytes, u32::try_from(bytes.len()).unwrap()).unwrap();
                let port = packet.tuple.src_port.max(packet.tuple.dst_port);
                let next = left.entry((usize::from(port - 1000), side.peer())).or_default();
                let number = u32::from_be_bytes(bytes[42..46].try_into().unwrap());
                assert_eq!(number, *next, "flow {port}, seed {seed}");
                *next += 1;
            }
        }
    };
    for _ in 0..6000 {
        match random.below(8) {
            0..=3 => {
                let flow = random.below(FLOWS);
                let side = [LEFT, RIGHT][random.below(2)];
                let number = sent.entry((flow, side)).or_default();
                let bytes = stream(flow, side, *number);
                let via = if agrees {
                    steered[usize::from(buckets[flow])].index()
                } else {
                    queue[flow][side.index()]
                };
                *number += u32::from(gateway.deliver_via(via, side, &bytes).is_some());
            }
            4..=6 => {
                let worker = random.below(workers);
                gateway.workers[worker].poll(now);
            }
            _ => match gateway.steering.order() {
                (_, Stage::Idle) => moves += usize::from(begin(&gateway, &mut random, &buckets)),
                (BucketMove { bucket, to, .. }, Stage::HandedOver) => {
                    steered[usize::from(bucket)] = to;
                    gateway.steering.release();
                }
                _ => {}
            },
        }
        collect(&mut gateway);
    }
    while gateway.steering.stage() != Stage::Idle {
        if gateway.steering.stage() == Stage::HandedOver {
            gateway.steering.release();
        }
        poll_all(&mut gateway);
        collect(&mut gateway);
    }
    for _ in 0..100 {
        poll_all(&mut gateway);
        collect(&mut gateway);
    }
    assert_eq!(left, sent);
    assert!(moves > 20, "{moves} moves");
    let (moved, lost) = gateway.steering.tally();
    assert!(moved > 10 && lost == 0, "{moved} flows moved, {lost} lost");
    assert_eq!(gateway.frames_accounted(), gateway.frames_total());
    // One record per flow, where its bucket is, with all it has counted.
    let owners = gateway.steering.owners();
    let mut seen = 0;
    for (owner, worker) in (0..).map(WorkerId).zip(&mut gateway.workers) {
        worker.tracker_mut().region().walk(now.tick(), |view| {
            seen += 1;
            assert_eq!(owners[usize::from(rss::bucket(Fields::ALL, &view.orig))], owner);
            let flow = usize::from(view.orig.src_port.max(view.orig.dst_port) - 1000);
            let begun_by = if view.orig.dst_port == 53 { LEFT } else { RIGHT };
            for (direction, side) in [(Direction::Orig, begun_by), (Direction::Reply, begun_by.peer())] {
                let count = sent.get(&(flow, side)).copied().unwrap_or(0);
                assert_eq!(view.packets[direction.index()], u64::from(count), "flow {flow}");
            }
        });
    }
    assert_eq!(seen, FLOWS);
}

#[test]
fn no_packet_is_lost_or_overtaken_where_nics_follow() {
    for (seed, workers) in (1..=24).zip([2, 3, 4, 8].into_iter().cycle()) {
        order_is_kept(seed, workers, true, None);
    }
}

#[test]
fn no_packet_is_lost_or_overtaken_where_nics_do_not() {
    for (seed, workers) in (101..=124).zip([2, 3, 4, 8].into_iter().cycle()) {
        order_is_kept(seed, workers, false, None);
    }
}

#[test]
fn no_packet_is_lost_or_overtaken_where_others_send() {
    let sizes = [(2, 1), (3, 1), (4, 2), (8, 3)];
    for (seed, (workers, queues)) in (201..=224).zip(sizes.into_iter().cycle()) {
        order_is_kept(seed, workers, false, Some(queues));
    }
}

/// Some packet of a few conversations, often an odd one.
fn packet(random: &mut Random) -> (PortId, Vec<u8>) {
    let (client, port) = (host(random.below(6)), 1000 + u16::try_from(random.below(8)).unwrap());
    let side = [LEFT, RIGHT][random.below(2)];
    let flags = [0x02, 0x12, 0x10, 0x18, 0x11, 0x14, 0x04][random.below(7)];
    let [seq, ack] = [random.below(5000), random.below(5000)].map(|number| u32::try_from(number).unwrap());
    let (src, dst, ports) = if side == LEFT { (client, WEB, (port, 80)) } else { (WEB, client, (80, port)) };
    let query = udp(client, WEB).ports(port, 53).payload(b"who?").build();
    let bytes = match random.below(8) {
        0..=3 => tcp(src, dst).ports(ports.0, ports.1).flags(flags).numbers(seq, ack).build(),
        4 if side == RIGHT => icmp_error(host(200), client, 3, 3, &query, 28).build(),
        4 => query,
        _ => udp(src, dst).ports(ports.0, ports.1).payload(&[1; 20]).build(),
    };
    (side, bytes)
}

#[test]
fn states_and_timers_are_those_of_one_worker() {
    for (seed, workers) in [(1, 2), (2, 4), (3, 8), (4, 3)] {
        let (mut random, mut choice) = (Random(seed), Random(seed ^ 0x5555));
        let (mut one, mut many) = (gateway(1), gateway(workers));
        for round in 0..4000 {
            let (side, bytes) = packet(&mut random);
            let expected = one.send(side, &bytes);
            let got = many.send_via(choice.below(workers), side, &bytes);
            let facts = |outcome: &dataplane::testing::gateway::Outcome| {
                let fate = outcome.fate.expect("a verdict");
                (fate.dropped, fate.ct_state)
            };
            assert_eq!(facts(&got), facts(&expected), "seed {seed}, packet {round}");
            assert_eq!(got.forwarded, expected.forwarded);
            if choice.below(4) == 0 {
                begin(&many, &mut choice, &[bucket_of(&bytes)]);
            }
            if choice.below(200) == 0 {
                one.advance_millis(20_000);
                many.advance_millis(20_000);
            }
        }
        let flows = |gateway: &mut Gateway| {
            let now = gateway.now().tick();
            let mut all = Vec::new();
            for worker in &mut gateway.workers {
                worker.tracker_mut().region().walk(now, |view| {
                    let state = (view.tcp_state, view.status, view.secs_left);
                    all.push(format!("{:?} {state:?} {:?} {:?}", view.orig, view.packets, view.bytes));
                });
            }
            all.sort_unstable();
            all
        };
        many.advance_millis(0);
        assert_eq!(many.steering.stage(), Stage::Idle);
        assert_eq!(flows(&mut many), flows(&mut one), "seed {seed}");
        assert!(many.steering.tally().0 > 100, "{:?}", many.steering.tally());
    }
}

#[test]
fn a_bucket_moves_once_at_a_time_and_only_from_its_owner() {
    let gateway = gateway(3);
    let owner = gateway.steering.owners()[7];
    let other = WorkerId((owner.0 + 1) % 3);
    assert!(!gateway.steering.ask(BucketMove { bucket: 7, from: other, to: owner }));
    assert!(!gateway.steering.ask(BucketMove { bucket: 7, from: owner, to: owner }));
    assert!(gateway.steering.ask(BucketMove { bucket: 7, from: owner, to: other }));
    assert!(!gateway.steering.ask(BucketMove { bucket: 7, from: owner, to: other }));
}
