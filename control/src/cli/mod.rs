//! `fwctl`, the operator's tool: asks the daemon through its API and prints the answers the way `iptables` and
//! `conntrack` do. One thread, one request at a time; nothing of the daemon is linked in but its types.
//!
//! Output goes to standard output, everything about it (errors, counts, warnings) to standard error. A reader that
//! goes away (`fwctl flows | head`) ends the command quietly.

mod apply;
pub mod args;
mod audit;
mod client;
mod config;
mod diff;
mod doctor;
mod explain;
mod flows;
mod history;
mod rule;
mod rules;
mod set;
mod stats;
mod sysctl;
mod tables;
mod taps;
#[cfg(test)]
mod tests;
pub mod top;
mod version;
mod web;
mod workers;

pub use explain::write_explanation;
pub use flows::{
    Format, Output, write_deleted, write_event, write_expect_event, write_expectation, write_flow,
};

use crate::api::types::{ErrorBody, ErrorKind};
use crate::check;
use crate::config::{Config, FwdArgs, Tracking};
use crate::labels::LabelNames;
use crate::replay::{self, ReplayOptions};
use crate::rules_file;
use crate::sets::{self, Store};
use crate::supervisor;
use args::{Cli, Command};
use clap::Parser as _;
use client::Client;
use dataplane::packet::Family;
use dataplane::testing::gateway::GatewayConfig;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

/// What ends a command early.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The operator asked for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The operator asked for something that we do not do.
    #[error("{0}")]
    Unsupported(String),
    /// Something the operator named is not there or cannot be used.
    #[error("{0}")]
    Wrong(String),
    /// The daemon is not there, or stopped answering.
    #[error("{0}")]
    Unreachable(String),
    /// The daemon said no.
    #[error("{}", .0.message)]
    Refused(Box<ErrorBody>),
    /// The operator has had enough.
    #[error("stopped")]
    Stopped,
    /// The answer cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
}

impl CliError {
    /// The exit code of this failure; see the help text of [`Cli`].
    fn code(&self) -> u8 {
        match self {
            Self::Stopped => 0,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Refused(body) if body.kind == ErrorKind::Unsupported => 3,
            Self::Unsupported(_) => 3,
            Self::Refused(_) | Self::Output(_) | Self::Wrong(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 4,
        }
    }

    /// Tells the operator.
    fn report(&self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Stopped => Ok(()),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Self::Refused(body) => {
                for diagnostic in &body.diagnostics {
                    if diagnostic.rendered.is_empty() {
                        let (file, line, column) = (&diagnostic.file, diagnostic.line, diagnostic.column);
                        writeln!(to, "{file}:{line}:{column}: {}", diagnostic.message)?;
                    } else {
                        writeln!(to, "{}\n", diagnostic.rendered.trim_end())?;
                    }
                }
                writeln!(to, "fwctl: {}", body.message)
            }
            other => writeln!(to, "fwctl: {other}"),
        }
    }
}

/// Runs the command the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    ExitCode::from(run(&cli, &mut io::stdout().lock(), &mut io::stderr().lock()))
}

/// Runs a command; gives its exit code.
pub fn run(cli: &Cli, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let mut out = io::BufWriter::with_capacity(64 << 10, out);
    let done = dispatch(cli, &mut out, err).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    done.unwrap_or_else(|error| {
        // What was printed before the failure is still worth having.
        let _ = out.flush();
        // Standard error may be gone too; the exit code says the rest.
        let _ = error.report(err);
        error.code()
    })
}

fn dispatch(cli: &Cli, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, CliError> {
    let client = || Client::new(&cli.socket);
    match &cli.command {
        Command::Stats(args) => stats::run(&client()?, args, out)?,
        Command::Rules(args) => rules::run(&client()?, args, out, err)?,
        Command::Flows(args) => return flows::run(&client()?, args, out, err),
        Command::Capture(args) => taps::capture(&client()?, args, out, err)?,
        Command::Trace(args) => taps::trace(&client()?, args, out, err)?,
        Command::Drops(args) => taps::drops(&client()?, args, out, err)?,
        Command::Sysctl(args) => return sysctl::run(&client()?, args, out, err),
        Command::Workers(args) => return workers::run(&client()?, args, out),
        Command::Top(args) => top::run(client()?, args, out, err)?,
        Command::Set(args) => return set::run(&client()?, args, out, err),
        Command::Recent(args) => tables::recent(&client()?, args, out)?,
        Command::Hashlimit(args) => tables::hashlimit(&client()?, args, out)?,
        Command::Apply(args) => apply::run(&client()?, args, out, err)?,
        Command::Diff(args) => diff::run(&client()?, args, out, err)?,
        Command::Confirm(args) => history::confirm(&client()?, args, out)?,
        Command::Rollback(args) => history::roll_back(&client()?, args, out, err)?,
        Command::History(args) => history::show(&client()?, args, out, err)?,
        Command::Web(args) => web::run(&client()?, args, out)?,
        Command::Audit(args) => audit::run(&client()?, args, out, err)?,
        Command::Rule(args) => rule::run(&client()?, args, out, err)?,
        Command::Version(args) => version::run(&client()?, args, out, err)?,
        Command::Explain(args) => return explain::run(&cli.socket, args, out, err),
        Command::Doctor(args) => return doctor::run(&client()?, args, out),
        Command::Check(args) => return check(args, out, err),
        Command::Config(args) => return config::run(&client, args, out, err),
        Command::Replay(args) => return replay(args, out, err),
    }
    Ok(0)
}

fn check(args: &args::CheckArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, CliError> {
    let config = match &args.config {
        Some(path) => Config::load(&FwdArgs { config: Some(path.clone()), ..FwdArgs::default() })
            .map_err(|errors| CliError::Usage(errors.to_string()))?,
        None => Config::default(),
    };
    let sets = match args.sets.as_ref().or(config.rules.sets.as_ref()) {
        None => rules_file::Sets::new(),
        Some(path) => {
            let store = Store::new(&[]);
            if !sets::file::load(&store, path, err)? {
                return Ok(check::Outcome::Wrong.code());
            }
            store.slots()
        }
    };
    let request = check::Request {
        path: &args.file.to_string_lossy(),
        named: rules_file::Named {
            policies: &config.rules.timeout_policies,
            sets: &sets,
            labels: &labels(&config)?,
        },
        family: args.family.map(family),
        print: args.print,
        strict: args.strict,
        json: args.json,
        colours: io::stderr().is_terminal(),
    };
    Ok(check::run(request, out, err)?.code())
}

fn labels(config: &Config) -> Result<LabelNames, CliError> {
    LabelNames::load(&config.rules.labels).map_err(|error| CliError::Wrong(error.to_string()))
}

fn replay(args: &args::ReplayArgs, out: &mut dyn Write, err: &mut dyn Write) -> Result<u8, CliError> {
    let config = Config::from_settings(&args.set).map_err(|errors| CliError::Usage(errors.to_string()))?;
    let options = ReplayOptions {
        capture: args.capture.clone(),
        rules: args.rules.clone(),
        rules6: args.rules6.clone(),
        policies: config.rules.timeout_policies.clone(),
        labels: labels(&config)?,
        sets: config.rules.sets.clone(),
        left: args.left.clone(),
        gateway: GatewayConfig {
            names: [args.left_if.clone(), args.right_if.clone()],
            settings: supervisor::settings(&config),
            track_always: config.flows.tracking == Tracking::Always,
            max_flows: config.flows.max,
            ..GatewayConfig::default()
        },
        json: args.json,
    };
    Ok(u8::try_from(replay::run(&options, out, err)?).unwrap_or(1))
}

const fn family(arg: args::FamilyArg) -> Family {
    match arg {
        args::FamilyArg::V4 => Family::V4,
        args::FamilyArg::V6 => Family::V6,
    }
}
