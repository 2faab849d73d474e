//! What workers hand each other, on loopback devices and by hand: whose turn it is is the test's to say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use dataplane::reason::DropReason;
use dataplane::testing::gateway::{Gateway, GatewayConfig, LEFT, RIGHT};
use dataplane::testing::packets::{icmp_error, udp};
use dataplane::worker::HandoffCause;
use std::collections::HashMap;
use std::net::Ipv4Addr;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

fn gateway(config: GatewayConfig) -> Gateway {
    Gateway::new(&[], config).unwrap()
}

/// A packet of the flow with this port, with a number in it.
fn numbered(port: u16, number: u32) -> Vec<u8> {
    udp(HOST, SERVER).ports(port, 53).payload(&number.to_be_bytes()).build()
}

/// Port and number of such a packet.
fn read(packet: &[u8]) -> (u16, u32) {
    let port = u16::from_be_bytes(packet[34..36].try_into().unwrap());
    (port, u32::from_be_bytes(packet[42..46].try_into().unwrap()))
}

fn handed(gateway: &Gateway, worker: usize, cause: HandoffCause) -> (u64, u64) {
    let counters = &gateway.counters[worker].handoff;
    (counters.out[cause as usize].get(), counters.taken[cause as usize].get())
}

/// Ports of `count` flows that belong to `owner`.
fn owned_by(gateway: &mut Gateway, owner: usize, count: usize) -> Vec<u16> {
    let is_owned = |port: &u16| {
        let before = gateway.workers[owner].tracker_mut().flow_count();
        let outcome = gateway.send(LEFT, &numbered(*port, 0));
        assert_eq!(outcome.forwarded.len(), 1);
        gateway.workers[owner].tracker_mut().flow_count() > before
    };
    (1000..).filter(is_owned).take(count).collect()
}

fn dropped(gateway: &Gateway, reason: DropReason) -> u64 {
    let of = |port| gateway.counters.iter().map(move |worker| &worker.port(port).drops[reason as usize]);
    of(LEFT).chain(of(RIGHT)).map(|drops| drops.packets.get()).sum()
}

#[track_caller]
fn assert_all_frames_are_there(gateway: &mut Gateway) {
    assert_eq!(gateway.frames_accounted(), gateway.frames_total());
}

/// Everything comes in at one worker and belongs to another one, which polls seldom and irregularly.
fn skewed(receiver: usize, owner: usize) {
    let mut gateway =
        gateway(GatewayConfig { workers: 2, frames_per_worker: 512, ..GatewayConfig::default() });
    let foreign = owned_by(&mut gateway, owner, 5);
    let own = owned_by(&mut gateway, receiver, 2);
    let now = gateway.now();
    let lost = |gateway: &Gateway| {
        dropped(gateway, DropReason::FramesLent) + dropped(gateway, DropReason::HandoffFull)
    };
    let mut last: HashMap<u16, u32> = HashMap::new();
    let (mut sent, mut got, mut got_own) = (0_u64, 0_u64, 0_u64);
    let mut take = |gateway: &mut Gateway| {
        for packet in gateway.collect(RIGHT) {
            let (port, number) = read(&packet);
            let before = last.insert(port, number);
            assert!(before.is_none_or(|before| before < number), "the packets of {port} changed places");
            got += 1;
            got_own += u64::from(own.contains(&port));
        }
    };
    for round in 1..=400_u32 {
        for port in foreign.iter().cycle().take(60).chain(&own) {
            sent += 1;
            let number = u32::try_from(sent).unwrap();
            let frame = gateway.deliver_via(receiver, LEFT, &numbered(*port, number));
            assert!(frame.is_some(), "worker {receiver} has no frame left to receive with in round {round}");
        }
        gateway.workers[receiver].poll(now);
        assert_all_frames_are_there(&mut gateway);
        // At first often enough, then not for a long time, then seldom.
        if round < 100 || round > 200 && round % 7 == 0 {
            gateway.workers[owner].poll(now);
            assert!(round > 100 || lost(&gateway) == 0, "an owner that keeps up loses nothing");
            assert_all_frames_are_there(&mut gateway);
        }
        take(&mut gateway);
    }
    for _ in 0..20 {
        gateway.workers.iter_mut().for_each(|worker| {
            worker.poll(now);
        });
        take(&mut gateway);
    }
    let lost = lost(&gateway);
    assert_eq!(got + lost, sent, "forwarded or dropped for being too many");
    assert_eq!(got_own, 400 * 2, "flows of the receiver's own suffer from nobody's stall");
    assert!(lost > 0, "an owner that stalls has to cost something");
    // Everything that could come home has, and the receiver goes on as at first.
    assert_all_frames_are_there(&mut gateway);
    assert!(gateway.deliver_via(receiver, LEFT, &numbered(foreign[0], u32::MAX)).is_some());
    let (out, _) = handed(&gateway, receiver, HandoffCause::Misdirected);
    let (_, taken) = handed(&gateway, owner, HandoffCause::Misdirected);
    assert_eq!(out, taken);
    assert_eq!(gateway.counters[receiver].handoff.peers[owner].out.get(), out);
    assert_eq!(gateway.counters[owner].handoff.peers[receiver].taken.get(), taken);
}

#[test]
fn nobody_starves_when_all_traffic_of_worker_0_belongs_to_worker_1() {
    skewed(0, 1);
}

#[test]
fn nobody_starves_when_all_traffic_of_worker_1_belongs_to_worker_0() {
    skewed(1, 0);
}

#[test]
fn the_time_on_the_way_is_told_by_who_takes() {
    let mut gateway =
        gateway(GatewayConfig { workers: 3, frames_per_worker: 256, ..GatewayConfig::default() });
    let foreign = owned_by(&mut gateway, 2, 1)[0];
    let wait = |gateway: &Gateway, worker: usize| {
        let (buckets, nanos) = gateway.counters[worker].handoff.wait_nanos.get();
        (buckets.iter().map(|(_, count)| count).sum::<u64>(), nanos)
    };
    let before = wait(&gateway, 2);
    let others = [0, 1].map(|worker| wait(&gateway, worker));
    for number in 0..160 {
        let given = gateway.now();
        assert!(gateway.deliver_via(0, LEFT, &numbered(foreign, number)).is_some());
        gateway.workers[0].poll(given);
        gateway.workers[2].poll(given.plus_nanos(7_000));
        assert_eq!(gateway.collect(RIGHT).len(), 1);
        gateway.advance_millis(1);
    }
    let after = wait(&gateway, 2);
    assert_eq!((after.0 - before.0, after.1 - before.1), (10, 70_000), "of one burst in 16");
    assert_eq!([0, 1].map(|worker| wait(&gateway, worker)), others, "nobody else took anything");
}

#[test]
fn frames_come_home_from_a_worker_that_has_nothing_else_to_do() {
    let mut gateway =
        gateway(GatewayConfig { workers: 2, frames_per_worker: 256, ..GatewayConfig::default() });
    let foreign = owned_by(&mut gateway, 1, 1)[0];
    let now = gateway.now();
    for number in 0..10_000 {
        assert!(gateway.deliver_via(0, LEFT, &numbered(foreign, number)).is_some());
        gateway.workers.iter_mut().for_each(|worker| {
            worker.poll(now);
        });
        assert_eq!(gateway.collect(RIGHT).len(), 1);
    }
    assert_all_frames_are_there(&mut gateway);
}

#[test]
fn a_full_ring_drops_for_a_reason_of_its_own() {
    let mut gateway =
        gateway(GatewayConfig { workers: 2, frames_per_worker: 4096, ..GatewayConfig::default() });
    let foreign = owned_by(&mut gateway, 1, 1)[0];
    let now = gateway.now();
    for number in 0..1500 {
        gateway.deliver_via(0, LEFT, &numbered(foreign, number)).unwrap();
        gateway.workers[0].poll(now);
    }
    assert_eq!(dropped(&gateway, DropReason::HandoffFull), 1500 - 1024);
    assert_eq!(dropped(&gateway, DropReason::FramesLent), 0);
    let mut numbers = Vec::new();
    for _ in 0..1024 / 64 {
        gateway.workers[1].poll(now);
        numbers.extend(gateway.collect(RIGHT).iter().map(|packet| read(packet).1));
    }
    assert!(numbers.iter().copied().eq(0..1024), "the first ones, in their order");
}

#[test]
fn a_burst_is_published_when_it_ends() {
    let mut gateway = gateway(GatewayConfig { workers: 2, ..GatewayConfig::default() });
    let foreign = owned_by(&mut gateway, 1, 1)[0];
    let now = gateway.now();
    for number in 0..64 {
        gateway.deliver_via(0, LEFT, &numbered(foreign, number)).unwrap();
    }
    assert_eq!(gateway.workers[0].poll(now), 64);
    assert_eq!(gateway.workers[1].poll(now), 64, "all of them, in one burst");
}

#[test]
fn every_cause_is_counted_on_both_ends() {
    let mut gateway = gateway(GatewayConfig { workers: 4, queues: Some(1), ..GatewayConfig::default() });
    for port in 2000..2064 {
        let request = numbered(port, 1);
        assert_eq!(gateway.send(LEFT, &request).forwarded, [request.as_slice()]);
        let error = icmp_error(SERVER, HOST, 3, 3, &request, 64).build();
        assert_eq!(gateway.send(RIGHT, &error).forwarded, [error.as_slice()]);
        let whole = udp(HOST, SERVER).ports(port, 53).payload(&[7; 64]);
        let pieces: Vec<_> = [(0, true), (40, false)]
            .map(|(offset, more)| {
                let udp = &whole.build()[34..];
                let part = if more { &udp[..40] } else { &udp[usize::from(offset)..] };
                let piece = dataplane::testing::packets::ip(HOST, SERVER, 17).id(port).fragment(offset, more);
                piece.payload(part).build()
            })
            .into();
        assert!(gateway.send(LEFT, &pieces[0]).is_held);
        assert_eq!(gateway.send(LEFT, &pieces[1]).forwarded, pieces);
    }
    for cause in
        [HandoffCause::Misdirected, HandoffCause::Fragment, HandoffCause::IcmpError, HandoffCause::Transmit]
    {
        let sums = (0..4).map(|worker| handed(&gateway, worker, cause));
        let (out, taken) = sums.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert_eq!(out, taken, "{}", cause.name());
        assert!(out > 20, "{}: {out}", cause.name());
    }
    for (from, to) in (0..4).flat_map(|from| (0..4).map(move |to| (from, to))) {
        let out = gateway.counters[from].handoff.peers[to].out.get();
        assert_eq!(out, gateway.counters[to].handoff.peers[from].taken.get());
    }
    assert_all_frames_are_there(&mut gateway);
}
