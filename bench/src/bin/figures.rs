//! Measures every figure that has a goal and prints it beside the goal.

use bench::affinity::apart;
use bench::gateway::Plan;
use bench::report::Report;
use bench::{
    Error, classifier, conditions, conntrack, cores, edits, gateway, idle, operator, pipeline, sets, speed,
    wire_rules,
};
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Measures the figures that have a goal, one line each; exits 1 if one is not met.
#[derive(Debug, Parser)]
#[command(name = "figures", version)]
struct Args {
    /// Measure this group only.
    #[arg(long)]
    only: Option<Group>,
    /// Measurements of each side of a comparison.
    #[arg(long, default_value_t = 9)]
    repetitions: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Folder with ClassBench files (`NAME_1k.rules.gz` and so on) for the classifier, in place of our own sets.
    #[arg(long)]
    sets: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Speed against the bare forwarder, reloads under load, exact books.
    Gateway,
    /// The tracker by itself beside DPDK's `rte_hash`, its memory, and a flood of SYNs.
    Conntrack,
    /// Of speed only a worker's whole way of a packet, in process.
    Pipeline,
    /// Of rules only what sets cost a packet, and how soon an edit is seen.
    Sets,
    /// What sets and long rulesets cost: in process, then on the wire.
    Rules,
    /// Of rules only the classifier, beside DPDK's `rte_acl`.
    Classifier,
    /// Of rules only how soon an edit reaches packets.
    Edits,
    /// Two workers beside one, what handing packets over costs, what that comes to with more cores, and what an
    /// idle gateway costs.
    Cores,
    /// Of cores only what an idle gateway costs, and how soon it wakes up.
    Idle,
    /// Speed on the wire against every peer that a goal names, and the pipeline.
    Speed,
    /// How soon operators are answered over a million flows, and what packets notice of them.
    Operator,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(missed) => {
            println!("{missed} figures missed their goal");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<u32, Error> {
    // Before anything is pinned: the count is of the cores this thread may use.
    let cores = thread::available_parallelism()?.get();
    conditions::print();
    let steal = conditions::steal_ticks();
    let plan = Plan {
        cores,
        repetitions: args.repetitions.max(1),
        time: Duration::try_from_secs_f64(args.seconds)?,
    };
    println!("  method    {} interleaved repetitions of {} s each", plan.repetitions, args.seconds);
    let mut report = Report::default();
    if args.only.is_none_or(|only| only == Group::Gateway) {
        apart(|| gateway::measure(&plan, &mut report))?;
    }
    if args.only.is_none_or(|only| only == Group::Conntrack) {
        apart(|| conntrack::measure(&plan, &mut report))?;
    }
    if args.only == Some(Group::Pipeline) {
        apart(|| pipeline::measure(&plan, &mut report))?;
    }
    if args.only.is_none_or(|only| matches!(only, Group::Rules | Group::Sets)) {
        apart(|| sets::measure(&plan, &mut report))?;
    }
    if args.only.is_none_or(|only| matches!(only, Group::Rules | Group::Classifier)) {
        apart(|| classifier::measure(&plan, args.sets.as_deref(), &mut report))?;
    }
    if args.only.is_none_or(|only| matches!(only, Group::Rules | Group::Edits)) {
        apart(|| edits::measure(&mut report))?;
    }
    if args.only.is_none_or(|only| only == Group::Rules) {
        apart(|| wire_rules::measure(&plan, &mut report))?;
    }
    if args.only.is_none_or(|only| only == Group::Cores) {
        apart(|| cores::measure(&plan, &mut report))?;
    }
    if args.only.is_none_or(|only| matches!(only, Group::Cores | Group::Idle)) {
        apart(|| idle::figures(&plan, &mut report))?;
    }
    if args.only.is_none_or(|only| only == Group::Speed) {
        apart(|| speed::measure(&plan, &mut report))?;
    }
    if args.only.is_none_or(|only| only == Group::Operator) {
        apart(|| operator::measure(&plan, &mut report))?;
    }
    println!("stolen by the host meanwhile: {} ms", (conditions::steal_ticks() - steal) * 10);
    Ok(report.missed())
}
