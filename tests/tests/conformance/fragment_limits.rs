//! What ends the wait for fragments: their time, how many there are, and how far apart they come.

use super::fragments::{HALVES, PLAIN, both, datagram, piece};
use super::kernel::{Kernel, Topology};
use super::stage::Setting;
use super::talk::{Talk, perform, perform_on_bridge};
use dataplane::flow::TrackSettings;
use std::fs;

/// Fragments of other datagrams of a sender come between two of one.
#[test]
fn fragments_far_apart_are_judged_alike() {
    let between = |talk: &mut Talk<'_>, others: u16, src: Option<[u8; 4]>, note: &str| {
        let id = talk.ports.0;
        talk.ports.0 += others + 2;
        let whole = datagram(talk, 9, 100);
        let mut other = whole.clone();
        if let Some(src) = src {
            other[26..30].copy_from_slice(&src);
        }
        let note = format!("{others} {note}");
        piece(talk, &whole, HALVES[0], id, &note);
        for n in 1..=others {
            piece(talk, &other, HALVES[0], id + n, &note);
        }
        piece(talk, &whole, HALVES[1], id, &note);
        // If that was too late, it has begun another one.
        piece(talk, &whole, HALVES[0], id, &note);
        // What a repeated piece counts, and one that spoils its datagram.
        piece(talk, &whole, (0, 0, true), id, &note);
        talk.stage.compare();
    };
    let scenario = |talk: &mut Talk<'_>| {
        for others in [0, 1, 4, 5, 6, 62, 63, 64, 65, 66, 200] {
            between(talk, others, None, "others");
            between(talk, others, Some([10, 0, 0, 7]), "of another sender");
        }
        let (id, whole) = (20, datagram(talk, 9, 100));
        for _ in 0..100 {
            piece(talk, &whole, HALVES[0], id, "repeated");
        }
        piece(talk, &whole, HALVES[1], id, "repeated");
        piece(talk, &whole, HALVES[0], id + 1, "spoilt between");
        for n in 0..80 {
            piece(talk, &whole, (8, 8, true), 500 + n, "spoilt between");
        }
        piece(talk, &whole, HALVES[1], id + 1, "spoilt between");
        piece(talk, &whole, (8, 8, true), id + 1, "spoilt");
        // Two datagrams at a time, never far apart although the last pieces are far from the first.
        let long = datagram(talk, 10, 312);
        for n in 0..40 {
            for id in [30, 31] {
                piece(talk, &long, (n * 8, n * 8 + 8, n < 39), id, "side by side");
            }
        }
        for id in [30, 31] {
            piece(talk, &long, (8, 8, true), id, "spoilt");
        }
        talk.stage.compare_lists();
    };
    let six = |talk: &mut Talk<'_>| {
        talk.six = true;
        for others in [63, 64, 65, 300] {
            between(talk, others, None, "others");
        }
    };
    let with = |max| Setting { sysctls: max, ..PLAIN };
    perform(&[
        ("64", PLAIN, &scenario),
        ("5", with(&[("ipfrag_max_dist", "5")]), &scenario),
        ("1", with(&[("ipfrag_max_dist", "1")]), &scenario),
        ("any", with(&[("ipfrag_max_dist", "0")]), &scenario),
        ("IPv6", PLAIN, &six),
    ]);
}

/// The kernel's defaults are ours.
#[test]
fn fragment_settings_start_alike() {
    if !super::may_run() {
        return;
    }
    let kernel = Kernel::new(Topology::Bridge);
    let ours = TrackSettings::default();
    let mut count = 0;
    for (name, value) in ours.iter().filter(|(name, _)| name.contains("frag")) {
        let theirs = match kernel.sysctl(name) {
            // One for all namespaces.
            none if none.is_empty() => fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap(),
            own => own,
        };
        assert_eq!(theirs.trim(), value.to_string(), "{name}");
        count += 1;
    }
    assert_eq!(count, 8, "five of IPv4, three of IPv6");
}

#[test]
fn fragments_are_given_their_time_alike() {
    let short: &[(&str, &str)] = &[("ipfrag_time", "1"), ("frag6_timeout", "1")];
    // The first piece does not come: of a datagram whose beginning is known, a router tells an IPv6 sender.
    let late = both(|talk| {
        let whole = datagram(talk, 9, 100);
        for (id, wait) in [(1, 0.5), (2, 1.6)] {
            piece(talk, &whole, HALVES[1], id, "to be late");
            talk.waits(wait);
            piece(talk, &whole, HALVES[0], id, &format!("after {wait}"));
            piece(talk, &whole, HALVES[1], id, &format!("after {wait}"));
            piece(talk, &whole, (8, 8, true), id, "spoilt");
            talk.stage.compare();
        }
        // The first piece counts, not the one after it.
        piece(talk, &whole, (96, 108, false), 3, "slow");
        talk.waits(0.7);
        piece(talk, &whole, (48, 96, true), 3, "slow");
        talk.waits(0.7);
        piece(talk, &whole, (0, 48, true), 3, "slow");
        piece(talk, &whole, (48, 96, true), 3, "slow");
        piece(talk, &whole, (96, 108, false), 3, "slow");
        talk.stage.compare_lists();
    });
    // Of what is begun anew because its fragments came too far apart, too.
    let restarted = |talk: &mut Talk<'_>| {
        let whole = datagram(talk, 9, 100);
        piece(talk, &whole, (48, 96, true), 1, "restarted");
        talk.waits(0.7);
        for n in 2..6 {
            piece(talk, &whole, (8, 16, true), n, "between");
        }
        piece(talk, &whole, (96, 108, false), 1, "restarted");
        talk.waits(0.7);
        piece(talk, &whole, (48, 96, true), 1, "restarted");
        piece(talk, &whole, (0, 48, true), 1, "restarted");
    };
    let far: &[(&str, &str)] = &[("ipfrag_time", "1"), ("ipfrag_max_dist", "2")];
    perform(&[
        ("late", Setting { sysctls: short, ..PLAIN }, &late),
        ("restarted", Setting { sysctls: far, ..PLAIN }, &restarted),
    ]);
}

/// The high thresholds. How much a fragment counts is not compared: in the kernel that is up to the NIC's driver.
#[test]
fn too_many_fragments_are_dropped_alike() {
    let interleaved = both(|talk| {
        let whole = datagram(talk, 9, 100);
        for (ids, half) in [([1, 2], HALVES[0]), ([2, 1], HALVES[1])] {
            for id in ids {
                piece(talk, &whole, half, id, "interleaved");
            }
        }
    });
    let many = both(|talk| {
        let whole = datagram(talk, 9, 100);
        for id in 100..160 {
            piece(talk, &whole, (8, 16, true), id, "many");
        }
        piece(talk, &whole, HALVES[0], 90, "when there are many");
        piece(talk, &whole, HALVES[1], 90, "when there are many");
        piece(talk, &whole, (16, 24, true), 100, "when there are many");
    });
    let after = both(|talk| {
        let whole = datagram(talk, 9, 100);
        piece(talk, &whole, HALVES[0], 91, "when those are gone");
        piece(talk, &whole, HALVES[1], 91, "when those are gone");
    });
    let scenario = |talk: &mut Talk<'_>| {
        interleaved(talk);
        // Their time.
        talk.waits(1.3);
        many(talk);
        talk.waits(1.3);
        after(talk);
    };
    // Of IPv6 only the end is known: nothing is held, yet it counts.
    let empty = |talk: &mut Talk<'_>| {
        talk.six = true;
        let whole = datagram(talk, 9, 100);
        for id in 100..400 {
            piece(talk, &whole, (8, 8, false), id, "empty");
        }
        piece(talk, &whole, HALVES[0], 90, "when there are many");
        piece(talk, &whole, HALVES[1], 90, "when there are many");
    };
    macro_rules! limits {
        ($bytes:literal) => {
            &[
                ("ipfrag_low_thresh", "0"),
                ("ipfrag_high_thresh", $bytes),
                ("ipfrag_time", "1"),
                ("frag6_low_thresh", "0"),
                ("frag6_high_thresh", $bytes),
                ("frag6_timeout", "1"),
            ]
        };
    }
    let with = |sysctls| Setting { sysctls, ..PLAIN };
    perform_on_bridge(&[
        ("none", with(limits!("0")), &scenario),
        ("one byte", with(limits!("1")), &scenario),
        ("one fragment", with(limits!("1500")), &scenario),
        ("few", with(limits!("30000")), &scenario),
        ("empty", with(limits!("30000")), &empty),
    ]);
}
