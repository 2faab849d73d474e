//! The bare forwarder as a command. Prints `ready` when it forwards; ends on SIGINT or SIGTERM with its ring counters
//! as JSON.

use bench::affinity::pin_to;
use bench::floor::Floor;
use bench::iface_index;
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Moves frames between two interfaces and looks at nothing.
#[derive(Debug, Parser)]
#[command(name = "floor", version)]
struct Args {
    /// Interface on the left.
    #[arg(long, value_name = "IF")]
    left: String,
    /// Interface on the right.
    #[arg(long, value_name = "IF")]
    right: String,
    /// Core to run on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    pin_to(args.cpu).map_err(|error| error.to_string())?;
    let indices = (iface_index(&args.left), iface_index(&args.right));
    let (left, right) =
        (indices.0.map_err(|error| error.to_string())?, indices.1.map_err(|error| error.to_string())?);
    let mut floor = Floor::open(left, right, [&args.left, &args.right])?;
    println!("ready");
    floor.run(&stop);
    let sides = floor.counters().map(|counters| {
        serde_json::json!({
            "rx": counters.rx_descs,
            "tx": counters.tx_descs,
            "kicks": counters.kicks,
            "kicks_again": counters.kicks_again,
            "rx_dropped": counters.rx_dropped,
            "frames_held": counters.frames_held,
        })
    });
    println!("{}", serde_json::json!({ "native": floor.is_native(), "left": sides[0], "right": sides[1] }));
    Ok(())
}
