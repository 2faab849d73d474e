//! `fwd`: the gateway daemon.

use clap::Parser as _;
use control::config::{Config, FwdArgs};
use control::supervisor;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = FwdArgs::parse();
    if args.print_defaults {
        print!("{}", Config::default_toml());
        return ExitCode::SUCCESS;
    }
    let config = match Config::load(&args) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{}", errors.render(std::io::stderr().is_terminal()));
            return ExitCode::from(1);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(config.log.level.word()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match supervisor::run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            eprintln!("fwd: {fatal}");
            ExitCode::from(1)
        }
    }
}
