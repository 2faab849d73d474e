//! Sets: what asking one costs a packet, and what edits take.
//!
//! Packets are drawn at random from a million members (or from as many addresses that are none), so that neither the entry
//! nor its page is in a cache; what is timed is the condition of a rule as a worker asks it, element and all. Beside it
//! DPDK's `rte_hash` with the same addresses: a lookup and nothing else.

use crate::conntrack::rte_hash;
use crate::gateway::Plan;
use crate::report::{Report, median};
use crate::{Error, affinity};
use dataplane::clock::Now;
use dataplane::ids::PortId;
use dataplane::packet::{Family, Packet};
use dataplane::rules::Facts;
use dataplane::rules::conn::NoFlows;
use dataplane::rules::log::NoNotes;
use dataplane::rules::model::{CtState, Hook};
use dataplane::rules::rate::Rates;
use dataplane::sets::{Directions, Element, Extras, Kind, Set, SetMatch, Slot, SlotId, Spec};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Entries of the sets.
const ENTRIES: u32 = 1_000_000;

/// Packets asked about in one measurement.
const PACKETS: usize = 4_000_000;

/// Most milliseconds until an edit is seen: what an edit takes, since the next packet sees it.
const EDIT_GOAL_MS: f64 = 10.0;

/// Edits timed.
const EDITS: u32 = 100_000;

/// Measures them all.
///
/// # Errors
/// If one cannot be measured.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<(), Error> {
    affinity::pin_to(plan.cores - 1)?;
    let mut growth = Duration::ZERO;
    for (name, kind, family) in [
        ("hash:ip", Kind::HashIp, Family::V4),
        ("hash:ip, IPv6", Kind::HashIp, Family::V6),
        ("hash:ip,port", Kind::HashIpPort, Family::V4),
        ("hash:net of 5 prefix lengths", Kind::HashNet, Family::V4),
    ] {
        let (set, worst) = filled(kind, family)?;
        growth = growth.max(worst);
        let (mut ours, mut theirs) = ([Vec::new(), Vec::new()], [const { Vec::new() }; 3]);
        for _ in 0..plan.repetitions.min(5) {
            ours[0].push(ask(&set, family, true));
            ours[1].push(ask(&set, family, false));
            if (kind, family) == (Kind::HashIp, Family::V4) {
                let time = plan.time.min(Duration::from_secs(1));
                let figures = rte_hash("addresses", ENTRIES, time)?;
                theirs.iter_mut().zip(figures).for_each(|(all, figure)| all.push(figure));
            }
        }
        for (what, times) in ["member", "stranger"].into_iter().zip(&ours) {
            report.beside(&format!("{name} of a million, {what}, ns"), &format!("{:.1}", median(times)));
        }
        for (what, times) in ["member", "stranger", "member, 32 at once"].into_iter().zip(&theirs) {
            if !times.is_empty() {
                let name = format!("rte_hash of a million, lookup of a {what}, ns");
                report.beside(&name, &format!("{:.1}", median(times)));
            }
        }
        report.beside(
            &format!("{name} of a million, bytes per entry"),
            &format!("{}", set.bytes() / ENTRIES as usize),
        );
    }
    let (set, worst) = filled(Kind::HashIp, Family::V4)?;
    growth = growth.max(worst);
    let (mean, worst) = edits(&set);
    report.beside("an edit in a million, mean, us", &format!("{:.2}", mean.as_secs_f64() * 1e6));
    report.at_most("the slowest edit in a million, ms", worst.as_secs_f64() * 1e3, EDIT_GOAL_MS);
    report.at_most(
        "the slowest addition from none to a million, ms",
        growth.as_secs_f64() * 1e3,
        EDIT_GOAL_MS,
    );
    Ok(())
}

/// The address with a number: spread over the space, and no two alike.
fn address(number: u32, family: Family) -> u128 {
    let spread = number.wrapping_mul(0x9e37_79b1);
    match family {
        Family::V4 => spread.into(),
        Family::V6 => 0xfd00 << 112 | u128::from(spread),
    }
}

fn element(number: u32, kind: Kind, family: Family) -> Element {
    let prefix = match (kind, family) {
        (Kind::HashNet, _) => [32, 31, 30, 28, 27][number as usize % 5],
        (_, Family::V4) => 32,
        (_, Family::V6) => 128,
    };
    let (proto, port) = if kind == Kind::HashIpPort { (17, 53) } else { (0, 0) };
    Element { addr: address(number, family), prefix, proto, port, ..Element::default() }
}

/// A set with all entries, and what the slowest of the additions took.
fn filled(kind: Kind, family: Family) -> Result<(Arc<Set>, Duration), Error> {
    let spec = Spec { maxelem: ENTRIES * 2, ..Spec::new(kind, Some(family)) };
    let set = Set::new(spec, 0, &Arc::from(Vec::new()))?;
    let mut slowest = Duration::ZERO;
    for number in 0..ENTRIES {
        let from = Instant::now();
        let _ = set.add(element(number, kind, family), &Extras::default(), true, Now::default());
        slowest = slowest.max(from.elapsed());
    }
    Ok((Arc::new(set), slowest))
}

/// Nanoseconds a packet.
fn ask(set: &Arc<Set>, family: Family, is_member: bool) -> f64 {
    let asked = SetMatch {
        slot: Arc::new(Slot::new(SlotId(0), Arc::clone(set))),
        directions: Directions { count: 2, src: 0b01 },
        invert: false,
        return_nomatch: false,
        keep_counters: false,
        keep_subcounters: false,
        packets: None,
        bytes: None,
        hook: Hook::Forward,
    };
    let mut packet = Packet::EMPTY;
    packet.tuple.family = family;
    (packet.tuple.proto, packet.tuple.dst_port, packet.has_l4) = (17, 53, true);
    let (mut random, mut held) = (0x2545_f491_4f6c_dd1d_u64, 0_usize);
    let from = Instant::now();
    for _ in 0..PACKETS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let number = u32::try_from(random >> 32).unwrap_or(0) % ENTRIES;
        packet.tuple.src = address(if is_member { number } else { number + 2 * ENTRIES }, family);
        let facts = Facts {
            packet: &packet,
            bytes: &[],
            now: Now::default(),
            rates: Rates::Probe(0),
            ct_state: CtState::New,
            conn: None,
            flows: &NoFlows,
            notes: &NoNotes,
            mtu: 1500,
            is_raw: false,
            ingress: PortId(0),
            egress: PortId(1),
        };
        held += usize::from(black_box(&asked).holds(&facts));
    }
    let nanos = from.elapsed().as_nanos() as f64 / PACKETS as f64;
    debug_assert!(is_member == (held == PACKETS) || set.spec().kind == Kind::HashNet);
    nanos
}

/// Mean and slowest of edits, half of them removals.
fn edits(set: &Set) -> (Duration, Duration) {
    let (mut total, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for number in 0..EDITS / 2 {
        let from = Instant::now();
        let _ = set.remove(element(number * 7, Kind::HashIp, Family::V4), Now::default());
        let between = Instant::now();
        let _ =
            set.add(element(number * 7, Kind::HashIp, Family::V4), &Extras::default(), true, Now::default());
        let end = between.elapsed();
        total += between - from + end;
        slowest = slowest.max(between - from).max(end);
    }
    (total / EDITS, slowest)
}
