//! The figures of connection tracking: what an established packet costs, and what a flow's first one, beside DPDK's
//! `rte_hash` with far less to do; memory per flow; aging; a flood of SYNs.

use crate::dpdk::RuntimeDir;
use crate::gateway::Plan;
use crate::report::{Report, median};
use crate::tracker::{self, Load};
use crate::{Error, affinity};
use dataplane::packet::Family;
use dataplane::wire::checksum;
use std::env;
use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Flows, and the most an established packet may cost, in nanoseconds.
const TABLES: [(u32, f64); 2] = [(1_000_000, 30.0), (10_000_000, 40.0)];
/// Most of the peer's time that ours may take.
const PEER_GOAL: f64 = 0.9;
/// Most times a table is filled: one of ten million takes a while.
const FILLS: u32 = 3;
/// Most bytes per flow, all in.
const BYTES: [(Family, f64); 2] = [(Family::V4, 160.0), (Family::V6, 208.0)];
/// Sources of the flood, and the table it meets.
const FLOOD: (u32, u32) = (10_000_000, 1_000_000);
/// Huge pages the peer is given, of 2 MiB.
const HUGE_PAGES: u32 = 1_400;

/// Measures them all.
///
/// # Errors
/// If one cannot be measured.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<(), Error> {
    affinity::pin_to(plan.cores - 1)?;
    for (flows, goal) in TABLES {
        established(plan, flows, goal, report)?;
    }
    for (flows, _) in TABLES {
        inserts(plan, flows, report)?;
    }
    for (family, goal) in BYTES {
        let bytes = tracker::bytes_per_flow(family)?;
        report.at_most(&format!("bytes per flow, {family:?}"), bytes, goal);
    }
    checksums(plan, report)?;
    flood(report)
}

/// Parse, lookup and track, beside the peer's lookup and touch; and the worst bursts while the table is aged.
fn established(plan: &Plan, flows: u32, goal: f64, report: &mut Report) -> Result<(), Error> {
    let name = format!("established TCP packet, {} million flows", flows / 1_000_000);
    let mut load = Load::new(flows, Family::V4, 10)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.repetitions.min(5) {
        ours.push(load.time(plan.time).mean);
        theirs.extend(rte_hash("flows", flows, plan.time)?);
    }
    report.at_most(&format!("{name}, ns"), median(&ours), goal);
    if theirs.is_empty() {
        report.beside("rte_hash", "not measured: build it by ./scripts/bench");
    } else {
        report.beside(
            &format!("rte_hash lookup and touch, {flows} flows, ns"),
            &format!("{:.3}", median(&theirs)),
        );
        report.at_most(&format!("{name}, of rte_hash"), median(&ours) / median(&theirs), PEER_GOAL);
    }
    let quiet = load.time(plan.time);
    let aged = while_aging(&load.tracker.region(), plan, || load.time(plan.time));
    let show = |cost: tracker::Cost| {
        format!("mean {:.1}, p99.99 of bursts {:.1} ns a packet", cost.mean, cost.p9999)
    };
    report.beside(&format!("{name}, quiet"), &show(quiet));
    report.beside(&format!("{name}, while the table is aged"), &show(aged));
    Ok(())
}

/// A table filled from nothing by first packets, in turn with the peer's by keys. No goal is named: for reading beside.
fn inserts(plan: &Plan, flows: u32, report: &Report) -> Result<(), Error> {
    let name = format!("a new flow's insert, {} million flows", flows / 1_000_000);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.repetitions.min(FILLS) {
        ours.push(tracker::insert(flows)?);
        theirs.extend(rte_hash("inserts", flows, plan.time)?);
    }
    report.beside(&format!("{name}, ns"), &format!("{:.1}", median(&ours)));
    if !theirs.is_empty() {
        report.beside(&format!("rte_hash insert, {flows} flows, ns"), &format!("{:.1}", median(&theirs)));
        report.beside(&format!("{name}, of rte_hash's"), &format!("{:.3}", median(&ours) / median(&theirs)));
    }
    Ok(())
}

/// Runs `f` while another core walks the table for expired flows.
fn while_aging<T>(region: &dataplane::flow::Region, plan: &Plan, f: impl FnOnce() -> T) -> T {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = affinity::pin_to(plan.cores.saturating_sub(2));
            let (mut cursor, mut found) = (dataplane::flow::Cursor::default(), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                cursor =
                    region.expired(dataplane::clock::Now::from_secs(1000).tick(), cursor, 8192, &mut found);
                found.clear();
            }
        });
        let result = f();
        stop.store(true, Ordering::Relaxed);
        result
    })
}

/// What verifying checksums adds.
fn checksums(plan: &Plan, report: &Report) -> Result<(), Error> {
    for payload in [10, 1446] {
        let mut load = Load::new(1_000, Family::V4, payload)?;
        let without = load.time(plan.time).median;
        load.verify_checksums(true);
        let with = load.time(plan.time).median;
        let size = 54 + payload;
        report
            .beside(&format!("checksum of a packet of {size} bytes, ns"), &format!("{:.1}", with - without));
    }
    report.beside("CRC32c of an SCTP packet of 1500 bytes, ns", &format!("{:.1}", crc32c()));
    Ok(())
}

/// Nanoseconds to verify the largest SCTP packet of a usual link, its header's checksum field taken for zero.
fn crc32c() -> f64 {
    const ROUNDS: u32 = 200_000;
    let packet = [0x5a; 1480];
    let from = Instant::now();
    for _ in 0..ROUNDS {
        black_box(checksum::crc32c(&[&black_box(&packet)[..8], &[0; 4], &packet[12..]]));
    }
    from.elapsed().as_nanos() as f64 / f64::from(ROUNDS)
}

/// Ten million spoofed SYNs against a table for a million flows.
fn flood(report: &mut Report) -> Result<(), Error> {
    let (sources, max) = FLOOD;
    let outcome = tracker::flood(max, sources)?;
    report.exactly("packets of established flows lost to the flood", outcome.lost.into(), 0);
    report.exactly("flows beyond the table's budget", outcome.over.into(), 0);
    report.beside(
        "honest connections opened during the flood",
        &format!("{} of {}, {:.0} ns a SYN", outcome.opened, outcome.tried, outcome.nanos_per_syn),
    );
    Ok(())
}

/// Nanoseconds of the peer, as many figures as that mode of it has; none if it has not been built.
pub(crate) fn rte_hash(mode: &str, count: u32, time: Duration) -> Result<Vec<f64>, Error> {
    let Some(path) = env::var_os("PALISADE_RTE_HASH").map(PathBuf::from) else { return Ok(Vec::new()) };
    let (pages, files) = (HugePages::ask(HUGE_PAGES)?, RuntimeDir::new()?);
    let mut command = Command::new(path);
    files.give_to(&mut command);
    command.args([mode, &count.to_string(), &time.as_secs_f64().to_string()]);
    command.args(["--in-memory", "--no-pci", "--no-telemetry", "--log-level=error"]);
    let output = command.output()?;
    drop(pages);
    if !output.status.success() {
        return Err(format!("rte_hash: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text.lines().last().unwrap_or_default().split_whitespace();
    figures.map(|figure| Ok(figure.parse()?)).collect()
}

/// Huge pages set aside for as long as this lives.
pub(crate) struct HugePages(String);

impl HugePages {
    const PATH: &'static str = "/proc/sys/vm/nr_hugepages";

    pub(crate) fn ask(pages: u32) -> Result<Self, Error> {
        let before = fs::read_to_string(Self::PATH)?;
        fs::write(Self::PATH, pages.to_string())?;
        let kept = Self(before);
        let got: u32 = fs::read_to_string(Self::PATH)?.trim().parse()?;
        if got < pages {
            return Err(
                format!("the system gives {got} huge pages, the peer is measured with {pages}").into()
            );
        }
        Ok(kept)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(Self::PATH, &self.0);
    }
}
