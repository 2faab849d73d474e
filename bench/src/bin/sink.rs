//! The sink as a command: counts and drops what arrives on an interface of the namespace it is run in.

use bench::sink::{Sink, Storage};
use bench::{Error, iface_index};
use clap::Parser;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Counts the load generator's datagrams on an interface, and drops everything that arrives there.
#[derive(Debug, Parser)]
#[command(name = "sink", version)]
struct Args {
    /// Interface to listen on.
    #[arg(long, value_name = "IF")]
    iface: String,
    /// Print a line a second for so many seconds, then end.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
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
    let mut storage = Storage::default();
    let sink = Sink::attach(&mut storage, iface_index(&args.iface)?, 0)?;
    println!("ready");
    let mut before = sink.counts()?;
    for _ in 0..args.seconds {
        thread::sleep(Duration::from_secs(1));
        let now = sink.counts()?;
        println!("{} packets/s, {} in all, {} others", now.packets - before.packets, now.packets, now.others);
        before = now;
    }
    Ok(())
}
