use super::*;
use crate::sets::element::USED;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::thread;

fn key(number: u64) -> Key {
    Key { meta: USED, words: [number, 0, 0, 0] }
}

fn layout(has_deadline: bool) -> Layout {
    Layout { key_words: 1, has_deadline, has_counters: true }
}

fn add(table: &Table, number: u64, value: Value) {
    table.reserve(&key(number)).unwrap();
    table.insert(&key(number), value);
}

/// An edit of the table and of its twin.
#[derive(Clone, Copy, Debug)]
enum Edit {
    Put(u64, u64),
    Remove(u64),
    /// So many new ones in a row: segments fill, and directories double.
    Many(u64),
    Clear,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        40 => (0..400_u64, any::<u64>()).prop_map(|(number, deadline)| Edit::Put(number, deadline)),
        20 => (0..400_u64).prop_map(Edit::Remove),
        2 => (1..20_000_u64).prop_map(Edit::Many),
        1 => Just(Edit::Clear),
    ]
}

fn apply(table: &Table, twin: &mut HashMap<u64, Value>, edit: Edit) {
    match edit {
        Edit::Put(number, deadline) => {
            let value = Value { nomatch: deadline & 1 != 0, deadline, counter: number };
            if twin.insert(number, value).is_some() {
                table.update(&key(number), value);
            } else {
                add(table, number, value);
            }
        }
        Edit::Remove(number) => assert_eq!(table.remove(&key(number)), twin.remove(&number)),
        Edit::Many(count) => {
            let from = 1000 + twin.len() as u64 * 1_000_000;
            for number in from..from + count {
                if twin.insert(number, Value::default()).is_none() {
                    add(table, number, Value::default());
                }
            }
        }
        Edit::Clear => {
            table.clear();
            twin.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_table_is_a_map(edits in prop::collection::vec(edit(), 1..300), room in 0..50_000_usize) {
        let table = Table::new(layout(true), room, [7, 9]).unwrap();
        let mut twin = HashMap::new();
        for edit in edits {
            apply(&table, &mut twin, edit);
            prop_assert_eq!(table.len(), twin.len());
        }
        for number in (0..400).chain(twin.keys().copied()) {
            prop_assert_eq!(table.find(&key(number)), twin.get(&number).copied());
        }
        let entries: HashMap<_, _> = table.entries().map(|(key, value)| (key.words[0], value)).collect();
        prop_assert_eq!(entries, twin);
    }

    /// Readers look for those who stay all the while, and for strangers.
    #[test]
    fn who_stays_is_found_by_readers_whatever_is_edited(edits in prop::collection::vec(edit(), 50..200)) {
        const STAYS: u64 = 1 << 40;
        let table = Table::new(layout(true), 0, [7, 9]).unwrap();
        let value = |number: u64| Value { counter: number * 3, deadline: number, nomatch: number & 1 != 0 };
        for number in 0..3000 {
            add(&table, STAYS + number, value(number));
        }
        let (is_over, mut twin) = (AtomicBool::new(false), HashMap::new());
        let rounds = thread::scope(|scope| {
            let readers = [0, 1].map(|_| scope.spawn(|| {
                let mut rounds = 0_u32;
                while rounds == 0 || !is_over.load(Ordering::Relaxed) {
                    for number in 0..3000 {
                        assert_eq!(table.find(&key(STAYS + number)), Some(value(number)));
                        assert_eq!(table.find(&key(2 * STAYS + number)), None);
                    }
                    rounds += 1;
                }
                rounds
            }));
            for edit in edits {
                // All but a clearing, which they would not survive.
                if !matches!(edit, Edit::Clear) {
                    apply(&table, &mut twin, edit);
                }
                if twin.len() > 100_000 {
                    twin.drain().for_each(|(number, _)| assert!(table.remove(&key(number)).is_some()));
                }
            }
            is_over.store(true, Ordering::Relaxed);
            readers.map(|reader| reader.join().unwrap())
        });
        prop_assert!(rounds.iter().all(|rounds| *rounds > 0));
        prop_assert_eq!(table.len(), 3000 + twin.len());
    }
}

#[test]
fn segments_that_were_cleared_are_used_again_past_readers() {
    let table = Table::new(layout(false), 0, [7, 9]).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for number in 0..20_000 {
                    let found = table.find(&key(number));
                    assert!(found.is_none_or(|value| value.counter == number), "{number}: {found:?}");
                }
            }
        });
        let mut most = 0;
        for round in 0..30 {
            for number in 0..20_000 {
                add(&table, number, Value { counter: number, ..Value::default() });
            }
            if round == 0 {
                most = table.bytes();
            }
            table.clear();
            assert_eq!((table.len(), table.entries().count()), (0, 0));
        }
        assert!(table.bytes() < most * 2, "{} bytes after {most}", table.bytes());
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn one_addition_moves_no_more_than_a_segment() {
    let table = Table::new(layout(false), 0, [7, 9]).unwrap();
    let mut known = (0, 0);
    for number in 0..200_000 {
        add(&table, number, Value::default());
        let segments: usize = table.shards.iter().map(|shard| shard.segments().count()).sum();
        let places: usize = table.shards.iter().flat_map(Shard::segments).map(|s| 1 << s.places_log2()).sum();
        assert!(
            segments <= known.0 + 1 || known.0 == 0 && segments == SHARDS,
            "{segments} after {}",
            known.0
        );
        assert!(places <= known.1 + (1 << PLACES_LOG2_MAX), "{places} after {}", known.1);
        known = (segments, places);
    }
    // Between those that were just divided and those that will be.
    let fill = 200_000.0 / known.1 as f64;
    assert!((0.25..0.66).contains(&fill), "{fill}");
}

#[test]
fn room_asked_for_at_first_is_there() {
    let table = Table::new(layout(false), 100_000, [7, 9]).unwrap();
    let bytes = table.bytes();
    (0..100_000).for_each(|number| add(&table, number, Value::default()));
    assert_eq!(table.bytes(), bytes);
    assert_eq!(Table::new(layout(false), 1 << 50, [7, 9]).err(), Some(NoMemory));
}
