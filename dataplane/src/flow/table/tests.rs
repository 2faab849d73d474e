//! The table against a slow twin, its invariants after every history, and a reader beside a writer.

use super::*;
use crate::clock::Tick;
use crate::flow::record::Life;
use crate::flow::tcp::TcpState;
use crate::ids::WorkerId;
use crate::rules::conn::Zone;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

/// With an all-zero seed, every IPv4 tuple with a zero endpoint hashes to zero: the weakest hash there is.
const WEAK: Seed = Seed([0; 4]);

/// As good as a random one, but the same in every run.
const STRONG: Seed =
    Seed([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89]);

fn table(max: (u32, u32), seed: Seed) -> Table {
    let region = Region::map(max, WorkerId(0), &seed, (false, false)).unwrap();
    Table::new(Arc::new(region), seed)
}

fn tuple(family: Family, src: u32, dst: u32, src_port: u16) -> Tuple {
    Tuple { src: u128::from(src), dst: u128::from(dst), src_port, dst_port: 80, proto: 17, family }
}

fn nth(n: u32) -> Tuple {
    tuple(Family::V4, n, n ^ 0x5555_5555, 1000)
}

fn hash(table: &Table, tuple: &Tuple) -> u64 {
    flow_hash(table.seed(), tuple)
}

fn insert(table: &Table, tuple: &Tuple) -> Result<Slot, NoRoom> {
    table.insert(hash(table, tuple), tuple, Zone::default(), |_, record| {
        record.tail.mark.store(mark_of(tuple), Relaxed);
        record.common.set_life(Life { deadline: Tick(1000), status: 0, tcp_state: TcpState::None });
    })
}

fn find(table: &Table, tuple: &Tuple) -> Option<(Slot, Direction)> {
    table.find(hash(table, tuple), tuple, Zone::default())
}

/// A mark that only this tuple's record may have.
fn mark_of(tuple: &Tuple) -> u32 {
    u32::try_from((tuple.src ^ tuple.dst.rotate_left(7)) & 0xffff_ffff).unwrap() ^ u32::from(tuple.src_port)
}

/// The invariants of the module's head.
fn check_invariants(table: &Table) {
    let mut overflow = vec![0; table.bucket_count as usize];
    let mut entries = HashMap::new();
    for index in 0..table.bucket_count {
        for entry in (0..LANES).filter_map(|lane| table.bucket(index).entry(lane)) {
            assert_eq!(entries.insert(entry.slot, index), None, "one entry per flow");
            assert!(table.record(entry.slot).is_live());
            let hash = hash(table, &table.orig(entry.slot));
            let home = table.home(hash);
            assert_eq!(entry.tag, Table::tag(hash));
            if entry.displaced {
                assert_eq!(index, table.alternative(home, entry.tag));
                overflow[home as usize] += 1;
            } else {
                assert_eq!(index, home);
            }
        }
    }
    for (index, &count) in overflow.iter().enumerate() {
        assert_eq!(table.region.buckets()[index].overflow.load(Relaxed), count, "overflow of {index}");
    }
    assert_eq!(entries.len(), table.flow_count() as usize);
    let mut walked = 0;
    table.region.walk(Tick(0), |view| {
        assert!(entries.contains_key(&view.slot));
        walked += 1;
    });
    assert_eq!(walked, entries.len());
}

#[derive(Clone, Debug)]
enum Op {
    Insert(Tuple),
    Remove(Tuple),
    Find(Tuple),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Few enough keys that they meet again; `src` zero gives the weak seed its collisions.
    let tuples = (any::<bool>(), 0..3_u32, 0..40_u32, 0..2_u16).prop_map(|(v6, src, dst, port)| {
        tuple(if v6 { Family::V6 } else { Family::V4 }, src, dst + 10, port)
    });
    let op = (0..5_u8, tuples).prop_map(|(kind, tuple)| match kind {
        0 | 1 => Op::Insert(tuple),
        2 => Op::Remove(tuple),
        _ => Op::Find(tuple),
    });
    proptest::collection::vec(op, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_a_hash_map(ops in ops(), weak: bool, max_v4 in 1..80_u32, max_v6 in 0..80_u32) {
        let seed = if weak { WEAK } else { STRONG };
        let table = table((max_v4, max_v6.min(max_v4)), seed);
        let mut twin = HashMap::new();
        for op in ops {
            match op {
                Op::Insert(tuple) => {
                    let room = match tuple.family {
                        Family::V4 => max_v4,
                        Family::V6 => max_v6.min(max_v4),
                    } as usize;
                    let used = twin.keys().filter(|key: &&Tuple| key.family == tuple.family).count();
                    // The limit on both families together is the tracker's to keep.
                    if twin.contains_key(&tuple) || twin.len() >= max_v4 as usize && used < room {
                        continue;
                    }
                    match insert(&table, &tuple) {
                        Ok(slot) => {
                            prop_assert!(used < room);
                            twin.insert(tuple, slot);
                        }
                        Err(NoRoom::Records) => prop_assert_eq!(used, room),
                        Err(NoRoom::Buckets) => prop_assert!(weak, "a good hash always finds room"),
                    }
                }
                Op::Remove(tuple) => match twin.remove(&tuple) {
                    Some(slot) => prop_assert!(table.remove(slot)),
                    None => prop_assert_eq!(find(&table, &tuple), None),
                },
                Op::Find(tuple) => {
                    let expected = twin.get(&tuple).copied();
                    prop_assert_eq!(find(&table, &tuple), expected.map(|slot| (slot, Direction::Orig)));
                    let back = find(&table, &crate::flow::key::inverse(&tuple));
                    prop_assert_eq!(back, expected.map(|slot| (slot, Direction::Reply)));
                }
            }
        }
        check_invariants(&table);
    }
}

#[test]
fn fills_to_its_capacity_and_not_beyond() {
    let table = table((20_000, 0), Seed::random());
    for n in 0..20_000 {
        assert!(insert(&table, &nth(n)).is_ok(), "{n}");
    }
    assert_eq!(insert(&table, &nth(20_000)), Err(NoRoom::Records));
    assert_eq!(insert(&table, &tuple(Family::V6, 1, 2, 3)), Err(NoRoom::Records));
    check_invariants(&table);
    assert!((0..20_000).all(|n| find(&table, &nth(n)).is_some()));
    assert!((20_000..40_000).all(|n| find(&table, &nth(n)).is_none()));
}

#[test]
fn goes_on_working_full_while_flows_come_and_go() {
    let table = table((5000, 0), Seed::random());
    for n in 0..50_000 {
        if n >= 5000 {
            let (slot, _) = find(&table, &nth(n - 5000)).unwrap();
            assert!(table.remove(slot));
        }
        assert!(insert(&table, &nth(n)).is_ok(), "{n}");
    }
    check_invariants(&table);
}

#[test]
fn sixteen_flows_of_one_hash_fit_and_the_next_is_refused_without_a_trace() {
    let table = table((1000, 0), WEAK);
    let same = |n: u32| tuple(Family::V4, 0, n + 1, 0);
    assert_eq!(hash(&table, &same(1)), hash(&table, &same(2)));
    for n in 0..16 {
        assert!(insert(&table, &same(n)).is_ok(), "{n}");
    }
    assert_eq!(insert(&table, &same(16)), Err(NoRoom::Buckets));
    assert_eq!(table.flow_count(), 16);
    check_invariants(&table);
    assert!((0..16).all(|n| find(&table, &same(n)).is_some()));
    assert!(table.remove(find(&table, &same(3)).unwrap().0));
    assert!(insert(&table, &same(16)).is_ok());
    check_invariants(&table);
}

#[test]
fn the_alternative_of_the_alternative_is_the_bucket_itself() {
    for max in [1, 2, 7, 100, 4097] {
        let table = table((max, 0), WEAK);
        for tag in (1..=u16::MAX).step_by(97) {
            for bucket in 0..table.bucket_count {
                let other = table.alternative(bucket, tag);
                assert!(other < table.bucket_count);
                assert_eq!(table.alternative(other, tag), bucket);
            }
        }
    }
}

#[test]
fn a_tuple_that_is_its_own_inverse_is_a_reply_to_itself() {
    let table = table((10, 0), Seed::random());
    let land = Tuple { src: 7, dst: 7, src_port: 80, dst_port: 80, proto: 6, family: Family::V4 };
    let slot = insert(&table, &land).unwrap();
    assert_eq!(find(&table, &land), Some((slot, Direction::Reply)));
}

#[test]
fn a_reused_slot_has_another_sequence_number() {
    let table = table((10, 0), Seed::random());
    let first = insert(&table, &nth(1)).unwrap();
    let view = |slot| table.region.view(slot, Tick(0)).unwrap();
    let seq = view(first).seq;
    table.remove(first);
    assert_eq!(table.region.view(first, Tick(0)), None);
    let second = insert(&table, &nth(2)).unwrap();
    assert_eq!(first, second);
    assert_ne!(view(second).seq, seq);
}

#[test]
fn a_reader_beside_the_owner_sees_whole_flows_only() {
    let table = table((512, 512), Seed::random());
    let region = Arc::clone(table.region());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = 0_u64;
            while !done.load(Relaxed) || seen == 0 {
                region.walk(Tick(0), |view| {
                    seen += 1;
                    assert_eq!(view.mark, mark_of(&view.orig), "torn: {view:?}");
                    assert_eq!(view.orig.dst, view.orig.src ^ 0x5555_5555);
                    assert_eq!(view.orig.family, view.slot.family());
                    assert_eq!(view.secs_left, 10);
                });
            }
            seen
        });
        // Slots are reused at once, with a tuple that differs in every field.
        for n in 0..150_000_u32 {
            let family = if n % 2 == 0 { Family::V4 } else { Family::V6 };
            let scattered = n.wrapping_mul(0x9e37_79b1);
            let port = u16::try_from(n % 60_000).unwrap();
            let slot = insert(&table, &tuple(family, scattered, scattered ^ 0x5555_5555, port)).unwrap();
            if n % 256 != 0 || table.flow_count() > 400 {
                table.remove(slot);
            }
        }
        done.store(true, Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    check_invariants(&table);
}

#[test]
fn expired_flows_are_named_in_slices() {
    let table = table((1000, 100), Seed::random());
    for n in 0..700 {
        insert(&table, &nth(n)).unwrap();
    }
    let v6 = insert(&table, &tuple(Family::V6, 1, 2, 3)).unwrap();
    let live = insert(&table, &nth(900)).unwrap();
    table.record(live).common.set_life(Life { deadline: Tick(5000), status: 0, tcp_state: TcpState::None });
    let sweep = |now, budget| {
        let (mut out, mut cursor, mut calls) = (Vec::new(), Default::default(), 0);
        loop {
            cursor = table.region.expired(now, cursor, budget, &mut out);
            calls += 1;
            if cursor == Default::default() {
                return (out, calls);
            }
        }
    };
    assert_eq!(sweep(Tick(999), 100).0.len(), 0);
    let (expired, calls) = sweep(Tick(1000), 128);
    assert_eq!((expired.len(), calls), (701, 6));
    assert!(expired.iter().any(|flow| flow.slot == v6) && expired.iter().all(|flow| flow.slot != live));
    assert_eq!(sweep(Tick(5000), usize::MAX), (sweep(Tick(5000), 1).0, 1));
}
