//! The figures of the operator's side: how soon questions are answered over a million flows, and what packets notice of
//! operators: dumps, top lists, captures, and clients that behave badly.
//!
//! Whoever asks has the first core, with the generator and everything of the daemon that is not its worker; the worker has the
//! last one. What is compared is what the worker carries while it is never without packets: see `beside`.

mod beside;
mod clients;

use crate::gateway::Plan;
use crate::load::Amount;
use crate::peers::palisade;
use crate::report::{Report, median, range};
use crate::rig::{Napi, Rig};
use crate::sink::Storage;
use crate::{Error, affinity};
use beside::{Beside, Outcome};
use clients::{Collector, Dump};
use palisade_tests::daemon::{Daemon, DaemonBuilder, binary};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Ten rules, stateful.
const RULES: &str = include_str!("../../tests/data/rules/bench10.v4.rules");

/// Flows in the table.
const FLOWS: u32 = 1_000_000;

/// Flows of which each has a record a second.
const EXPORTED_FLOWS: u32 = 50_000;

/// Packets a second at which the table is filled: nothing is lost, so that each flow comes to be.
const FILL_PPS: u64 = 400_000;

/// Longest that an answer may take, in milliseconds.
const ANSWER_MS_GOAL: f64 = 50.0;

/// Longest that a whole list of the flows may take, in seconds.
const DUMP_SECS_GOAL: f64 = 3.0;

/// What the daemon's memory may grow by meanwhile, in MiB.
const DUMP_MIB_GOAL: f64 = 16.0;

/// What the worker must carry beside operators, of what it carries without.
const BESIDE_GOAL: f64 = 0.98;

/// What of its packets a capture must have, of those that it carries without one.
const CAPTURE_GOAL: f64 = 0.7;

/// Where captures go: memory.
const TMPFS: &str = "/dev/shm";

/// Idle connections of somebody who means no good.
const CONNECTIONS: usize = 3_000;

/// Clients that ask for everything and read nothing.
const SLOW_CLIENTS: usize = 40;

/// Measures them all.
///
/// # Errors
/// If one cannot be measured.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<(), Error> {
    // Thousands of connections are ours, too.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let mut storage = Storage::default();
    let rig = Rig::new(&mut storage, plan.cores, 0, Napi::Plain)?;
    let daemon = palisade::launch(&rig, builder(&rig).set("max", &(FLOWS + FLOWS / 10).to_string()))?;
    fill(&rig, &daemon)?;
    affinity::apart(|| {
        // The worker sleeps: who asks has its core, and the daemon answers on the other one.
        affinity::pin_to(rig.worker_core())?;
        answers(plan, &daemon, report)?;
        dump(plan, &daemon, report)
    })?;
    let load = rig.load(FLOWS, None);
    let beside = Beside { rig: &rig, load: &load, plan };
    throughput(&beside, &daemon, report);
    capture(&beside, &daemon, report);
    palisade::stop(daemon)?;
    let gone = collector_gone(&rig, plan);
    enter(report, "a collector of flow records that is gone,", gone);
    Ok(())
}

/// A daemon for loads that never answer; its table stays as it is from the first figure to the last.
fn builder<'lab>(rig: &'lab Rig<'_>) -> DaemonBuilder<'lab> {
    palisade::builder(rig).rules(RULES).set("half_open_percent", "100").set("udp_timeout", "7200")
}

/// What packets notice of a collector that is gone, against one that is there: each second every flow has a record.
fn collector_gone(rig: &Rig<'_>, plan: &Plan) -> Result<Outcome, Error> {
    let collector = Collector::new(&rig.lab.gateway)?;
    let exporting = builder(rig).set("ipfix.collector", clients::COLLECTOR).set("ipfix.active_secs", "1");
    let daemon = palisade::launch(rig, exporting)?;
    let load = rig.load(EXPORTED_FLOWS, None);
    let outcome = Beside { rig, load: &load, plan }.measure(&|stop| collector.gone(stop));
    palisade::stop(daemon)?;
    outcome
}

/// Makes the flows.
fn fill(rig: &Rig<'_>, daemon: &Daemon) -> Result<(), Error> {
    let load = rig.load(FLOWS, Some(FILL_PPS));
    for _ in 0..25 {
        rig.run(&load, Amount::Packets(FLOWS), |_| Ok(()))?;
        rig.at_rest()?;
        let flows = daemon.stats().flows();
        println!("  {flows} flows in the table");
        if flows >= u64::from(FLOWS) {
            return Ok(());
        }
    }
    Err("the table does not fill: packets get lost at a rate that should be easy".into())
}

/// Runs `fwctl`, its output thrown away; how long it took from start to end.
fn fwctl(daemon: &Daemon, args: &[&str]) -> Result<Duration, Error> {
    let start = Instant::now();
    let done = Command::new(binary("fwctl"))
        .arg("--socket")
        .arg(daemon.socket())
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()?;
    let took = start.elapsed();
    if done.status.success() {
        return Ok(took);
    }
    Err(format!("fwctl {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr)).into())
}

/// How long commands take, as processes, without load.
fn answers(plan: &Plan, daemon: &Daemon, report: &mut Report) -> Result<(), Error> {
    let times = plan.repetitions.max(5) * 5;
    let commands: [&[&str]; 4] =
        [&["stats"], &["flows", "-C"], &["rules", "-L", "-v"], &["top", "--once", "--interval", "0.2"]];
    for command in commands {
        fwctl(daemon, command)?;
        let mut millis = Vec::new();
        for _ in 0..times {
            millis.push(fwctl(daemon, command)?.as_secs_f64() * 1e3);
        }
        let (_, worst) = range(&millis);
        let name = command.join(" ");
        if command[0] == "top" {
            // It looks for 200 ms, as it is told to.
            let text =
                format!("median {:.1} ms, worst {worst:.1} ms, of which 200 ms are looked", median(&millis));
            report.beside(&format!("fwctl {name}, {FLOWS} flows"), &text);
            continue;
        }
        println!("  fwctl {name}: median of {times} {:.2} ms", median(&millis));
        report.at_most(&format!("fwctl {name}, {FLOWS} flows, worst of {times}, ms"), worst, ANSWER_MS_GOAL);
    }
    Ok(())
}

/// All flows, to a client that only reads them, and to `fwctl flows`.
fn dump(plan: &Plan, daemon: &Daemon, report: &mut Report) -> Result<(), Error> {
    let (mut secs, mut grown, mut printed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.repetitions.max(3) {
        let Dump { time, rows, bytes, grown_kib } = clients::dump(daemon)?;
        if rows < u64::from(FLOWS) {
            return Err(format!("a list of {FLOWS} flows has {rows} lines").into());
        }
        secs.push(time.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        grown.push(grown_kib as f64 / 1024.0);
        if secs.len() == 1 {
            println!("  a list of {rows} flows is {} MB of JSON", bytes / 1_000_000);
        }
        printed.push(fwctl(daemon, &["flows", "-L"])?.as_secs_f64());
    }
    let (_, most) = range(&grown);
    report.at_most(&format!("list of {FLOWS} flows over the API, median s"), median(&secs), DUMP_SECS_GOAL);
    report.at_most(&format!("fwctl flows -L, {FLOWS} flows, median s"), median(&printed), DUMP_SECS_GOAL);
    report.at_most("growth of the daemon's memory meanwhile, most, MiB", most, DUMP_MIB_GOAL);
    Ok(())
}

/// Enters what packets noticed of something.
fn enter(report: &mut Report, name: &str, outcome: Result<Outcome, Error>) {
    let name = format!("throughput beside {name} against without");
    match outcome {
        Ok(outcome) => {
            println!("  {outcome}");
            report.at_least(&name, outcome.ratio(), BESIDE_GOAL);
        }
        Err(error) => report.unmeasured(&name, &format!(">= {BESIDE_GOAL}"), &error.to_string()),
    }
}

/// What packets notice of operators.
fn throughput(beside: &Beside<'_, '_>, daemon: &Daemon, report: &mut Report) {
    let mut enter = |name: &str, outcome| enter(report, &format!("{name},"), outcome);
    enter("lists of all flows, one after the other", beside.measure(&|stop| clients::dumps(daemon, stop)));
    enter("top lists, one after the other", beside.measure(&|stop| clients::tops(daemon, stop)));
    enter(
        &format!("{SLOW_CLIENTS} clients that ask for all flows and read nothing"),
        beside.measure(&|stop| clients::slow(daemon, SLOW_CLIENTS, stop)),
    );
    enter(
        &format!("{CONNECTIONS} connections that say nothing"),
        beside.measure(&|stop| clients::crowd(daemon, CONNECTIONS, stop)),
    );
    enter(
        "requests that are too large, one after the other",
        beside.measure(&|stop| clients::oversized(daemon, stop)),
    );
    enter("captures into a full disk", beside.measure(&|stop| clients::full_disk(daemon, stop)));
    let tell = |name: &str, outcome: Result<Outcome, Error>| {
        let text = outcome.map_or_else(
            |error| format!("not measured ({error})"),
            |outcome| {
                println!("  {outcome}");
                format!("{:.3}", outcome.ratio())
            },
        );
        report.beside(&format!("throughput beside {name}, against without"), &text);
    };
    tell("nothing (how far it can be told)", beside.measure(&|stop| clients::wait(stop)));
    let lists = palisade::move_others(daemon, beside.rig.worker_core())
        .and_then(|()| beside.measure(&|stop| clients::dumps(daemon, stop)));
    tell("lists of all flows, made on the worker's core", lists);
    if let Err(error) = palisade::move_others(daemon, beside.rig.generator_core()) {
        println!("  the daemon's threads stay on the worker's core: {error}");
    }
}

/// Captures of everything that passes.
fn capture(beside: &Beside<'_, '_>, daemon: &Daemon, report: &mut Report) {
    let name = "capture of all traffic into a file in memory, packets/s against full rate";
    let goal = format!(">= {CAPTURE_GOAL}");
    let file = Path::new(TMPFS).join(format!("palisade-bench-{}.pcapng", std::process::id()));
    let captured = beside.captured(daemon, &file);
    let _ = fs::remove_file(&file);
    match captured {
        Ok((shares, outcome, lost)) => {
            println!("  {outcome}; {lost} packets not captured, all counted");
            report.at_least(name, median(&shares), CAPTURE_GOAL);
        }
        Err(error) => report.unmeasured(name, &goal, &error.to_string()),
    }
}
