//! Conditions that keep state, with a clock turned by hand and with many threads.

use super::*;
use crate::ids::PortId;
use crate::packet::{Family, Packet, proto};
use crate::rules::conn::NoFlows;
use crate::rules::log::NoNotes;
use crate::rules::model::CtState;
use std::sync::Barrier;

const THREADS: usize = 4;

fn at_millis(millis: u64) -> Now {
    Now { nanos: millis * 1_000_000 }
}

/// A UDP packet with a TTL in a frame that holds its ports.
fn packet(src: u128, ports: (u16, u16), ttl: u8, len: u32) -> (Packet, Vec<u8>) {
    let mut packet = Packet { l3_len: len, l3_offset: 14, l4_offset: 34, has_l4: true, ..Packet::EMPTY };
    (packet.tuple.family, packet.tuple.proto, packet.tuple.src) = (Family::V4, proto::UDP, src);
    (packet.tuple.src_port, packet.tuple.dst_port) = ports;
    let mut bytes = vec![0; 64.max(14 + len as usize)];
    bytes[14 + 8] = ttl;
    bytes[34..36].copy_from_slice(&ports.0.to_be_bytes());
    bytes[36..38].copy_from_slice(&ports.1.to_be_bytes());
    (packet, bytes)
}

/// Asks a condition about such a packet; `None` if it is dropped for it.
fn ask(rate: &RateMatch, millis: u64, (packet, bytes): &(Packet, Vec<u8>)) -> Option<bool> {
    let (wall, mut marks) = (WallClock::default(), Marks::default());
    let facts = Facts {
        packet,
        bytes,
        now: at_millis(millis),
        rates: Rates::Live(&wall),
        ct_state: CtState::New,
        conn: None,
        flows: &NoFlows,
        notes: &NoNotes,
        mtu: 1500,
        is_raw: false,
        ingress: PortId(0),
        egress: PortId(1),
    };
    let holds = rate.holds(&facts, &mut marks);
    (!marks.hotdrop).then_some(holds)
}

/// How many threads' questions hold, each asking so often.
fn together(rate: &RateMatch, times: usize, what: &(Packet, Vec<u8>)) -> usize {
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        let one = || {
            barrier.wait();
            (0..times).filter(|_| ask(rate, 1000, what) == Some(true)).count()
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

fn limit(packets: u64, seconds: u64, burst: u32) -> RateMatch {
    RateMatch::Limit(Arc::new(Limit::new(packets, seconds, burst)))
}

const CONFIG: HashConfig = HashConfig {
    keys: HashKeys { src: true, dst: false, src_port: false, dst_port: false },
    rate: HashRate::Packets(1_000_000),
    burst: 3,
    interval: None,
    src_prefix: 32,
    dst_prefix: 32,
    size: 0,
    max: 0,
    gc_interval: 1000,
    expire: 10_000,
};

fn hashlimit(config: HashConfig) -> RateMatch {
    let table = Some(Arc::new(HashTable::new(config, Family::V4)));
    RateMatch::Hashlimit(Box::new(Hashlimit { name: "h".into(), config, above: false, table }))
}

fn recent(table: &Arc<RecentTable>, task: RecentTask, invert: bool) -> RateMatch {
    let table = Some(Arc::clone(table));
    let mask = u128::from(u32::MAX);
    RateMatch::Recent(Box::new(Recent { name: "r".into(), task, invert, by_dst: false, mask, table }))
}

fn list(stamps: u32) -> Arc<RecentTable> {
    Arc::new(RecentTable::new(u128::from(u32::MAX), Family::V4, stamps))
}

const CHECK: RecentTask = RecentTask::Check { update: false, seconds: 0, hits: 0, reap: false, ttl: false };

#[test]
fn a_limit_lets_a_burst_pass_and_then_one_packet_per_period() {
    let (limit, packet) = (limit(4, 1, 2), packet(1, (1, 2), 64, 100));
    let asked = [0, 0, 0, 249, 250, 250, 400, 500, 10_000, 10_000, 10_000].map(|at| ask(&limit, at, &packet));
    let wanted = [true, true, false, false, true, false, false, true, true, true, false];
    assert_eq!(asked, wanted.map(Some));
    let slowest = Limit::new(1, 86_400, 10_000);
    assert!((0..10_000).all(|_| slowest.ask(at_millis(5))) && !slowest.ask(at_millis(5)));
}

#[test]
fn who_comes_with_an_older_clock_gets_no_more() {
    let (limit, packet) = (limit(1, 1, 1), packet(1, (1, 2), 64, 100));
    assert_eq!(ask(&limit, 5000, &packet), Some(true));
    assert_eq!([4000, 3000, 5999].map(|at| ask(&limit, at, &packet)), [Some(false); 3]);
    assert_eq!(ask(&limit, 6000, &packet), Some(true));
}

#[test]
fn a_quota_ends_with_the_first_packet_that_is_too_long() {
    let quota = |invert| RateMatch::Quota(Arc::new(Quota::new(250, invert)));
    let lens = [100, 100, 60, 20];
    let asked = |quota: RateMatch| lens.map(|len| ask(&quota, 0, &packet(1, (1, 2), 64, len)));
    assert_eq!(asked(quota(false)), [true, true, false, false].map(Some));
    assert_eq!(asked(quota(true)), [false, false, true, true].map(Some));
}

#[test]
fn every_nth_packet_is_the_one_asked_for_and_chance_is_about_right() {
    let nth = |every, packet, invert| {
        let statistic = Statistic::nth(Nth { every, packet }, invert);
        (0..7).map(|_| statistic.ask()).collect::<Vec<_>>()
    };
    assert_eq!(nth(3, 0, false), [true, false, false, true, false, false, true]);
    assert_eq!(nth(3, 2, false), [false, false, true, false, false, true, false]);
    assert_eq!(nth(3, 1, true), [true, false, true, true, false, true, true]);
    let chance = |of, invert| {
        let statistic = Statistic::random(Random(of), invert, 7);
        (0..100_000).filter(|_| statistic.ask()).count()
    };
    assert_eq!((chance(0, false), chance(1 << 31, false), chance(1 << 31, true)), (0, 100_000, 0));
    assert!((24_000..26_000).contains(&chance(1 << 29, false)));
}

#[test]
fn workers_together_get_what_there_is_and_no_more() {
    let one = packet(1, (1, 2), 64, 100);
    assert_eq!(together(&limit(1, 60, 1000), 2000, &one), 1000);
    assert_eq!(together(&RateMatch::Quota(Arc::new(Quota::new(100_050, false))), 2000, &one), 1000);
    let nth = Statistic::nth(Nth { every: 7, packet: 3 }, false);
    assert_eq!(together(&RateMatch::Statistic(Arc::new(nth)), 7000, &one), THREADS * 1000);
    let slow = HashConfig { burst: 1000, rate: HashRate::Packets(1_000_000), ..CONFIG };
    let bytes = HashConfig { rate: HashRate::Bytes(u32::MAX / 64), burst: 5, ..CONFIG };
    let window = HashConfig { interval: Some(1), rate: HashRate::Packets(1_000_000), burst: 998, ..CONFIG };
    for round in 0..200 {
        // The address is new each time: the entry too is made by all of them at once.
        assert_eq!(together(&hashlimit(slow), 300, &one), 1000, "round {round}");
    }
    // 64 pieces of 16 bytes a second, 7 a packet: nine packets of each of six fills.
    assert_eq!(together(&hashlimit(bytes), 300, &one), 54);
    assert_eq!(together(&hashlimit(window), 300, &one), 999);
}

#[test]
fn workers_together_see_every_address_and_every_moment() {
    let table = list(256);
    let set = recent(&table, RecentTask::Set, false);
    let one = packet(1, (1, 2), 64, 100);
    for _ in 0..50 {
        assert_eq!(together(&set, 50, &one), THREADS * 50);
        let rows: Vec<_> = table.rows().collect();
        assert_eq!((rows.len(), rows[0].stamps.len()), (1, THREADS * 50), "{rows:?}");
        assert_eq!(ask(&recent(&table, RecentTask::Remove, false), 1000, &one), Some(true));
        assert_eq!(table.rows().count(), 0);
    }
}

#[test]
fn tables_stay_whole_while_workers_fill_and_empty_them() {
    let table = Arc::new(HashTable::new(
        HashConfig { size: 1, max: 100, expire: 4, gc_interval: 4, ..CONFIG },
        Family::V4,
    ));
    let rate = RateMatch::Hashlimit(Box::new(Hashlimit {
        name: "h".into(),
        config: *table.config(),
        above: false,
        table: Some(Arc::clone(&table)),
    }));
    let lists = list(32);
    let (set, remove) = (recent(&lists, RecentTask::Set, false), recent(&lists, RecentTask::Remove, false));
    std::thread::scope(|scope| {
        for thread in 0..THREADS as u64 {
            let (rate, set, remove) = (&rate, &set, &remove);
            scope.spawn(move || {
                for step in 0..30_000_u64 {
                    let one = packet(u128::from(step * 7 + thread) % 300, (1, 2), 64, 40);
                    ask(rate, step / 100, &one);
                    ask(if step % 3 == 0 { remove } else { set }, step / 100, &one);
                }
            });
        }
    });
    assert!(table.rows(at_millis(300)).count() <= 100 + THREADS);
    assert!(lists.rows().count() <= 100);
    // Everything is over a while later: there is room for a hundred others again.
    let fresh = (1000..1100).filter(|src| ask(&rate, 5000, &packet(*src, (1, 2), 64, 40)) == Some(true));
    assert!(fresh.count() >= 100 - THREADS);
}

#[test]
fn an_address_has_a_limit_of_its_own_under_the_mask() {
    let rate = hashlimit(HashConfig { src_prefix: 24, ..CONFIG });
    let asked = |src: u128, at: u64| ask(&rate, at, &packet(src, (1, 2), 64, 100)).unwrap();
    let first: Vec<_> = [0x0a00_0001, 0x0a00_0002, 0x0a00_00ff, 0x0a00_0001, 0x0a00_0101]
        .into_iter()
        .map(|src| asked(src, 0))
        .collect();
    assert_eq!(first, [true, true, true, false, true]);
    assert!(!asked(0x0a00_0001, 999) && asked(0x0a00_0001, 1000) && !asked(0x0a00_0001, 1000));
}

#[test]
fn ports_are_told_apart_and_who_has_none_to_show_is_dropped() {
    let keys = HashKeys { src: false, dst: false, src_port: true, dst_port: true };
    let rate = hashlimit(HashConfig { keys, burst: 1, ..CONFIG });
    let asked: Vec<_> = [(1, 2), (1, 2), (2, 1), (1, 3)]
        .iter()
        .map(|ports| ask(&rate, 0, &packet(1, *ports, 64, 100)))
        .collect();
    assert_eq!(asked, [true, false, true, true].map(Some));
    assert_eq!(ask(&rate, 0, &packet(1, (5, 5), 64, 23)), None, "three bytes of a header");
}

#[test]
fn what_was_not_asked_for_long_is_forgotten_at_the_next_look() {
    // Two seconds kept, looked for every five.
    let config = HashConfig {
        expire: 2000,
        gc_interval: 5000,
        rate: HashRate::Packets(3_600_000_000),
        burst: 1,
        ..CONFIG
    };
    let (rate, one) = (hashlimit(config), packet(1, (1, 2), 64, 100));
    let asked = [0, 4000, 4900, 6000, 9990, 10_010].map(|at| ask(&rate, at, &one).unwrap());
    // The look at 5 s finds it asked at 4.9 s; that at 10 s finds it asked at 9.99 s.
    assert_eq!(asked, [true, false, false, false, false, false]);
    assert!(ask(&rate, 15_010, &one).unwrap(), "asked last at 10.01 s, over at 12.01 s, forgotten at 15 s");
}

#[test]
fn a_full_table_drops_who_is_new_until_something_is_over() {
    let config = HashConfig { size: 1, max: 2, expire: 1000, gc_interval: 1000, ..CONFIG };
    let rate = hashlimit(config);
    let asked = |src: u128, at: u64| ask(&rate, at, &packet(src, (1, 2), 64, 100));
    assert_eq!([1, 2, 3, 1].map(|src| asked(src, 0)), [Some(true), Some(true), None, Some(true)]);
    assert_eq!(asked(3, 2100), Some(true));
}

#[test]
fn bytes_have_a_second_of_credit_and_are_filled_up_as_often_as_said() {
    // About 1,600 bytes a second, in pieces of 16; a packet of 100 is seven of them.
    let config = HashConfig { rate: HashRate::Bytes(u32::MAX / 100), burst: 0, ..CONFIG };
    let passed = |config, at: &[u64]| {
        let rate = hashlimit(config);
        at.iter()
            .map(|at| (0..200).filter(|_| ask(&rate, *at, &packet(1, (1, 2), 64, 100)) == Some(true)).count())
            .collect::<Vec<_>>()
    };
    assert_eq!(passed(config, &[0, 0, 500, 5000]), [14, 0, 7, 14]);
    assert_eq!(passed(HashConfig { burst: 2, ..config }, &[0, 500]), [42, 7]);
}

#[test]
fn a_rate_match_counts_all_and_remembers_the_window_before() {
    let config = HashConfig { interval: Some(1), rate: HashRate::Packets(1_000_000 / 5), burst: 2, ..CONFIG };
    let rate = hashlimit(config);
    let passed =
        |at, times| (0..times).filter(|_| ask(&rate, at, &packet(1, (1, 2), 64, 100)) == Some(true)).count();
    assert_eq!(passed(0, 10), 7, "five and two");
    assert_eq!(passed(1000, 4), 0, "ten in the second before");
    assert_eq!(passed(2000, 4), 4);
}

#[test]
fn moments_are_counted_within_seconds() {
    let table = list(4);
    let check = |update, seconds, hits| RecentTask::Check { update, seconds, hits, reap: false, ttl: false };
    let one = packet(1, (1, 2), 64, 100);
    let asked = |task, at| ask(&recent(&table, task, false), at, &one).unwrap();
    assert!(!asked(CHECK, 0));
    for at in [0, 1000, 2000] {
        assert!(asked(RecentTask::Set, at));
    }
    assert!(asked(check(false, 1, 1), 3000) && !asked(check(false, 1, 1), 3004));
    assert!(asked(check(false, 0, 3), 9000) && !asked(check(false, 0, 4), 9000));
    assert!(asked(check(false, 2, 2), 3000) && !asked(check(false, 2, 2), 3500));
    assert!(asked(check(true, 5, 3), 4000), "renews");
    // The fifth moment takes the place of the first.
    assert!(
        asked(RecentTask::Set, 5000) && asked(check(false, 4, 4), 5000) && !asked(check(false, 3, 4), 5004)
    );
    assert!(ask(&recent(&table, RecentTask::Remove, true), 5000, &packet(2, (1, 2), 64, 100)).unwrap());
    assert!(asked(RecentTask::Remove, 5000) && !asked(RecentTask::Remove, 5000) && !asked(CHECK, 5000));
}

#[test]
fn an_inverted_update_renews_who_was_not_seen_lately() {
    let table = list(32);
    let one = packet(1, (1, 2), 64, 100);
    let update = RecentTask::Check { update: true, seconds: 2, hits: 0, reap: false, ttl: false };
    let asked = |at| ask(&recent(&table, update, true), at, &one).unwrap();
    assert!(asked(0), "unknown");
    ask(&recent(&table, RecentTask::Set, false), 0, &one);
    assert_eq!([1000, 3000, 4000, 6000].map(asked), [false, true, false, true]);
    assert_eq!(table.rows().next().unwrap().stamps, [0, 3000 / 4, 6000 / 4]);
}

#[test]
fn a_list_is_edited_by_hand_as_by_rules() {
    let table = list(32);
    let check = |last: u128| ask(&recent(&table, CHECK, false), 8, &packet(last, (1, 2), 64, 100)).unwrap();
    table.add(1, at_millis(4));
    table.add(1, at_millis(8));
    table.add(2, at_millis(8));
    assert!(check(1) && check(2) && !check(3));
    let row = table.rows().find(|row| row.address == 1).unwrap();
    assert_eq!((row.ttl, row.last, row.next, &row.stamps[..]), (0, 2, 2, &[1, 2][..]));
    table.remove(2);
    table.remove(3);
    assert!(check(1) && !check(2));
    // The hundred and first takes the place of the one seen longest ago.
    (10..110).for_each(|address| table.add(address, at_millis(12)));
    assert!(!check(1) && check(10));
    table.flush();
    assert_eq!(table.rows().count(), 0);
}

#[test]
fn the_address_seen_longest_ago_makes_room_and_is_reaped() {
    let table = list(32);
    let (set, check) = (recent(&table, RecentTask::Set, false), recent(&table, CHECK, false));
    let from = |src| packet(src, (1, 2), 64, 100);
    for src in 0..100 {
        ask(&set, 100, &from(src));
    }
    ask(&set, 200, &from(0));
    ask(&set, 300, &from(100));
    assert_eq!([0, 1, 2, 100].map(|src| ask(&check, 300, &from(src)).unwrap()), [true, false, true, true]);
    let reap = RecentTask::Check { update: false, seconds: 5, hits: 0, reap: true, ttl: false };
    ask(&recent(&table, reap, false), 9000, &from(100));
    assert!(!ask(&check, 9000, &from(2)).unwrap(), "one at a time, the oldest");
    assert!(ask(&check, 9000, &from(3)).unwrap());
}

#[test]
fn a_ttl_must_be_that_of_the_last_sight() {
    let table = list(32);
    let by_ttl = RecentTask::Check { update: false, seconds: 0, hits: 0, reap: false, ttl: true };
    ask(&recent(&table, RecentTask::Set, false), 0, &packet(1, (1, 2), 64, 100));
    let asked = [64, 63, 0].map(|ttl| ask(&recent(&table, by_ttl, false), 0, &packet(1, (1, 2), ttl, 100)));
    assert_eq!(asked, [true, false, true].map(Some));
}
