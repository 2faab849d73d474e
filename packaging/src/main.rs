//! Writes what a package needs beside the programs: manual pages and shell completions.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Writes manual pages (DIR/man) and shell completions (DIR/completions) of fwd and fwctl.
#[derive(Debug, Parser)]
#[command(name = "package-files", version)]
struct Args {
    /// Day of the manual pages, YYYY-MM-DD.
    #[arg(long, value_name = "DAY")]
    date: String,

    /// Where to write; made if it is not there.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match packaging::write(&args.dir, &args.date) {
        Ok(count) => {
            println!("{count} files written to {}", args.dir.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("package-files: {}: {error}", args.dir.display());
            ExitCode::from(1)
        }
    }
}
