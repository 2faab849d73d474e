//! The command line of `fwctl`.

pub use super::flows::args::{FamilyArg, FlowsArgs};

use crate::api::types::Net;
use crate::config::DEFAULT_SOCKET;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// What `fwctl` takes on its command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "fwctl",
    version,
    about = "Asks and commands Palisade's daemon, fwd",
    after_help = "Exit codes: 0 done; 1 refused, or something given is wrong; 2 bad usage; 3 right, but asks for something \
        not supported; 4 the daemon cannot be reached."
)]
pub struct Cli {
    /// Socket of the daemon.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Counters: wires, NICs, workers, flows and every reason for which packets were dropped.
    Stats(StatsArgs),
    /// The rules in force with their counters, like `iptables -L -v -n -x --line-numbers`.
    Rules(RulesArgs),
    /// The flows tracked, like `conntrack -L`.
    Flows(Box<FlowsArgs>),
    /// Shows and changes connection tracking settings, like sysctl.
    Sysctl(SysctlArgs),
    /// Sets that rules name: ipset(8) commands, as `fwctl set add NAME ELEMENT`, `fwctl set save`, `fwctl set restore -file FILE`.
    Set(SetArgs),
    /// Checks a rules file without loading it.
    Check(CheckArgs),
    /// Loads new rules into the running daemon. Flows are kept, no packet is lost.
    Apply(ApplyArgs),
    /// Runs the packets of a capture through rules, offline: needs neither daemon nor root.
    Replay(ReplayArgs),
    /// Versions of fwctl and of the daemon.
    Version,
}

/// Arguments of `fwctl stats`.
#[derive(Clone, Debug, Default, Args)]
pub struct StatsArgs {
    /// Print again every SECS seconds (1 unless given), until interrupted.
    #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "1", value_parser = parse_secs)]
    pub watch: Option<f64>,

    /// Drop reasons and causes of INVALID that have not occurred, too.
    #[arg(long)]
    pub all: bool,

    /// JSON as the daemon sends it, one line each time.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fwctl rules`.
#[derive(Clone, Debug, Default, Args)]
pub struct RulesArgs {
    /// Print the rules as iptables-save does, ready for `fwctl apply`.
    #[arg(short = 'S', long = "save")]
    pub save: bool,

    /// One family; both unless given.
    #[arg(long, value_name = "4|6", hide_possible_values = true)]
    pub family: Option<FamilyArg>,

    /// Chains of this table: filter, mangle or raw. `--save` prints all tables.
    #[arg(short = 't', long, value_name = "TABLE", default_value = "filter", conflicts_with = "save")]
    pub table: String,

    /// Only this chain.
    #[arg(value_name = "CHAIN", conflicts_with = "save")]
    pub chain: Option<String>,

    /// JSON as the daemon sends it.
    #[arg(long, conflicts_with = "save")]
    pub json: bool,
}

/// Arguments of `fwctl sysctl`.
#[derive(Clone, Debug, Default, Args)]
pub struct SysctlArgs {
    /// NAME shows one setting, NAME=VALUE changes it; all are shown without. Names are those of the sysctls
    /// net.netfilter.nf_conntrack_*, with or without that prefix, with dots or slashes. Changes last until the daemon ends:
    /// the configuration file says what it starts with.
    #[arg(value_name = "NAME[=VALUE]")]
    pub settings: Vec<String>,

    /// As in sysctl(8): the arguments are changes.
    #[arg(short = 'w', long)]
    pub write: bool,

    /// Show all.
    #[arg(short = 'a', long, alias = "A", conflicts_with = "settings")]
    pub all: bool,

    /// Values without names.
    #[arg(short = 'n', long)]
    pub values: bool,

    /// Do not show what was changed.
    #[arg(short = 'q', long)]
    pub quiet: bool,

    /// Names that do not exist are no error.
    #[arg(short = 'e', long)]
    pub ignore: bool,

    /// All settings as one JSON object.
    #[arg(long, conflicts_with = "settings")]
    pub json: bool,
}

/// Arguments of `fwctl set`.
#[derive(Clone, Debug, Default, Args)]
pub struct SetArgs {
    /// create, destroy, add, del, test, list, save, restore, flush, rename or swap, and what goes with it as ipset(8) has
    /// it; -exist, -terse, -name, -sorted, -quiet, -output plain|save, -file FILE (restore).
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// Arguments of `fwctl check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Rules as iptables-save prints them; `-` is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Whose rules they are: 4 for iptables-save, 6 for ip6tables-save.
    #[arg(long, value_name = "4|6", hide_possible_values = true)]
    pub family: Option<FamilyArg>,

    /// The daemon's configuration file, if the rules use what it names (`rules.timeout_policies`).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Sets that the rules name, as `ipset save` prints them. Unless given: those of the configuration (`rules.sets`).
    #[arg(long, value_name = "FILE")]
    pub sets: Option<PathBuf>,

    /// Print the rules back in canonical form.
    #[arg(long)]
    pub print: bool,

    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fwctl apply`.
#[derive(Clone, Debug, Args)]
pub struct ApplyArgs {
    /// Rules as iptables-save prints them; `-` is standard input.
    #[arg(value_name = "FILE", required_unless_present = "rules6")]
    pub file: Option<PathBuf>,

    /// IPv6 rules to load in the same step.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,

    /// Whose rules FILE holds. Unless given: 6 if the file says that ip6tables-save made it, else 4.
    #[arg(long, value_name = "4|6", hide_possible_values = true, requires = "file")]
    pub family: Option<FamilyArg>,

    /// JSON as the daemon sends it.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fwctl replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// IPv4 rules, as iptables-save prints them.
    #[arg(long, value_name = "FILE", required_unless_present = "rules6")]
    pub rules: Option<PathBuf>,

    /// IPv6 rules, as ip6tables-save prints them.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,

    /// Addresses on the left side; may be repeated. Without it the first speaker of each address pair is on the left.
    #[arg(long, value_name = "CIDR")]
    pub left: Vec<Net>,

    /// Any setting of the daemon's configuration, as with `fwd --set`.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,

    /// What the rules call the left NIC.
    #[arg(long, value_name = "NAME", default_value = "left")]
    pub left_if: String,

    /// What the rules call the right NIC.
    #[arg(long, value_name = "NAME", default_value = "right")]
    pub right_if: String,

    /// One JSON object per packet and line: n, verdict (accept, drop, reject; held if the rest of its datagram never came),
    /// reason, ct_state, rule. A fragment's comes once its datagram's fate is known.
    #[arg(long)]
    pub json: bool,

    /// A pcap or pcapng file.
    #[arg(value_name = "CAPTURE")]
    pub capture: PathBuf,
}

fn parse_secs(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.1..=86_400.0).contains(&secs) => Ok(secs),
        _ => Err("give seconds, from 0.1 to 86400".to_owned()),
    }
}
