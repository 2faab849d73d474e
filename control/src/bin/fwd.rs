//! `fwd`: the gateway daemon.

use clap::Parser as _;
use control::config::{Config, FwdArgs};
use control::{logging, supervisor};
use std::io::IsTerminal as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = FwdArgs::parse();
    if args.print_defaults {
        print!("{}", Config::default_toml());
        return ExitCode::SUCCESS;
    }
    let loaded = match Config::load_with_origins(&args) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{}", errors.render(std::io::stderr().is_terminal()));
            return ExitCode::from(1);
        }
    };
    let log = logging::init(loaded.config.log.level);
    match supervisor::run(args, &loaded, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            eprintln!("fwd: {fatal}");
            ExitCode::from(1)
        }
    }
}
