//! Measures Palisade and its peers side by side, end to end, and writes what came of it.

use bench::affinity::apart;
use bench::conditions::{self, Conditions};
use bench::peers::Peer;
use bench::results::{Results, markdown};
use bench::scenarios::{Plan, Scenario};
use bench::{Error, interrupt};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Measures Palisade and its peers side by side, and writes results.json, results.md and a plot for each scenario.
#[derive(Debug, Parser)]
#[command(name = "scenarios", version)]
struct Args {
    /// What to measure; without a name everything.
    #[arg(value_name = "NAME")]
    scenarios: Vec<Scenario>,
    /// Who is measured; without it everybody. More than one after commas.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Measurements of each peer.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Folder for the results.
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Error> {
    interrupt::catch()?;
    let all = args.scenarios.is_empty();
    let scenarios = if all { &Scenario::ALL[..] } else { &args.scenarios };
    let peers = if args.peers.is_empty() { Peer::ALL.to_vec() } else { args.peers.clone() };
    let plan = Plan {
        cores: thread::available_parallelism()?.get(),
        repetitions: args.repetitions,
        time: Duration::try_from_secs_f64(args.seconds)?,
        peers,
    };
    conditions::print();
    let mut results = Results {
        conditions: Conditions::now(),
        repetitions: plan.repetitions,
        seconds: args.seconds,
        tables: Vec::new(),
    };
    for scenario in scenarios {
        match apart(|| scenario.measure(&plan)) {
            Ok(tables) => {
                for table in &tables {
                    println!("\n{}", markdown::section(table));
                }
                results.tables.extend(tables);
            }
            // What was measured before stands.
            Err(error) => {
                results.write(&args.out)?;
                return Err(error);
            }
        }
    }
    results.write(&args.out)?;
    println!("written to {}", args.out.display());
    Ok(())
}
