//! The command line of `fwctl`.

use crate::api::types::{Family, Net};
use crate::config::DEFAULT_SOCKET;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// What `fwctl` takes on its command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "fwctl",
    version,
    about = "Asks and commands Palisade's daemon, fwd",
    after_help = "Exit codes: 0 done; 1 refused, or something given is wrong; 2 bad usage; 3 the rules are right but ask \
        for something not supported; 4 the daemon cannot be reached."
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
    Flows(FlowsArgs),
    /// Shows and changes connection tracking settings, like sysctl.
    Sysctl(SysctlArgs),
    /// Checks a rules file without loading it.
    Check(CheckArgs),
    /// Loads new rules into the running daemon. Flows are kept, no packet is lost.
    Apply(ApplyArgs),
    /// Runs the packets of a capture through rules, offline: needs neither daemon nor root.
    Replay(ReplayArgs),
    /// Versions of fwctl and of the daemon.
    Version,
}

/// `--family`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FamilyArg {
    /// IPv4.
    #[value(name = "4", alias = "ipv4")]
    V4,
    /// IPv6.
    #[value(name = "6", alias = "ipv6")]
    V6,
}

impl From<FamilyArg> for Family {
    fn from(arg: FamilyArg) -> Self {
        match arg {
            FamilyArg::V4 => Self::V4,
            FamilyArg::V6 => Self::V6,
        }
    }
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

/// Arguments of `fwctl flows`.
#[derive(Clone, Debug, Default, Args)]
pub struct FlowsArgs {
    /// Protocol, by name (tcp, udp, icmp, ...) or number.
    #[arg(short = 'p', long = "proto", value_name = "PROTO", value_parser = parse_proto)]
    pub proto: Option<u8>,

    /// Family; both unless given.
    #[arg(short = 'f', long, value_name = "ipv4|ipv6", hide_possible_values = true)]
    pub family: Option<FamilyArg>,

    /// Source of the original direction: ADDRESS or ADDRESS/BITS.
    #[arg(short = 's', long = "orig-src", alias = "src", value_name = "NET")]
    pub src: Option<Net>,

    /// Destination of the original direction.
    #[arg(short = 'd', long = "orig-dst", alias = "dst", value_name = "NET")]
    pub dst: Option<Net>,

    /// Source of the reply direction.
    #[arg(short = 'r', long = "reply-src", value_name = "NET")]
    pub reply_src: Option<Net>,

    /// Destination of the reply direction.
    #[arg(short = 'q', long = "reply-dst", value_name = "NET")]
    pub reply_dst: Option<Net>,

    /// Source port of the original direction.
    #[arg(long, alias = "orig-port-src", value_name = "PORT")]
    pub sport: Option<u16>,

    /// Destination port of the original direction.
    #[arg(long, alias = "orig-port-dst", value_name = "PORT")]
    pub dport: Option<u16>,

    /// Protocol state, for example ESTABLISHED or SYN_SENT.
    #[arg(long, value_name = "STATE", value_parser = |state: &str| Ok::<_, String>(state.to_uppercase()))]
    pub state: Option<String>,

    /// ASSURED, SEEN_REPLY or UNREPLIED.
    #[arg(short = 'u', long, value_name = "STATUS", ignore_case = true, hide_possible_values = true)]
    pub status: Option<StatusArg>,

    /// Mark, decimal or 0x hexadecimal.
    #[arg(short = 'm', long, value_name = "MARK", value_parser = parse_mark)]
    pub mark: Option<u32>,

    /// List them: what is done without any of these.
    #[arg(short = 'L', long = "dump", alias = "list")]
    pub list: bool,

    /// Print how many there are, not which.
    #[arg(short = 'C', long, conflicts_with_all = ["list", "delete", "flush", "stats"])]
    pub count: bool,

    /// Delete those that fit the filter, and print them.
    #[arg(short = 'D', long, conflicts_with_all = ["list", "flush", "stats"])]
    pub delete: bool,

    /// Delete all.
    #[arg(short = 'F', long, conflicts_with_all = ["list", "stats"])]
    pub flush: bool,

    /// What each worker has counted, as `conntrack -S` prints it.
    #[arg(short = 'S', long, conflicts_with = "list")]
    pub stats: bool,

    /// Print what happens to flows as it happens: NEW, UPDATE, DESTROY.
    #[arg(short = 'E', long, conflicts_with_all = ["list", "count", "delete", "flush", "stats"])]
    pub event: bool,

    /// With `-E`: only these, comma-separated: new, update, destroy.
    #[arg(
        short = 'e',
        long,
        value_name = "WHAT",
        value_delimiter = ',',
        ignore_case = true,
        requires = "event"
    )]
    pub event_mask: Vec<EventArg>,

    /// More about each, comma-separated: extended, id, json; with `-E` timestamp.
    #[arg(short = 'o', long, value_name = "WHAT", value_delimiter = ',')]
    pub output: Vec<OutputArg>,

    /// JSON as the daemon sends it, one flow per line.
    #[arg(long)]
    pub json: bool,
}

/// `--event-mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventArg {
    /// Flows that are made.
    New,
    /// Flows that change.
    #[value(alias = "updates")]
    Update,
    /// Flows that go.
    Destroy,
}

/// `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputArg {
    /// The network protocol in front.
    Extended,
    /// A number that names the flow, at the end.
    Id,
    /// JSON, one flow per line.
    Json,
    /// The time, in front of events.
    Timestamp,
}

/// Arguments of `fwctl sysctl`.
#[derive(Clone, Debug, Default, Args)]
pub struct SysctlArgs {
    /// NAME shows one setting, NAME=VALUE changes it; all are shown without. Names are those of the sysctls
    /// net.netfilter.nf_conntrack_*, with or without that prefix. Changes last until the daemon ends: the configuration
    /// file says what it starts with.
    #[arg(value_name = "NAME[=VALUE]")]
    pub settings: Vec<String>,

    /// As in sysctl(8): the arguments are changes.
    #[arg(short = 'w', long)]
    pub write: bool,
}

/// `--status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StatusArg {
    /// Safe from being ended early.
    Assured,
    /// Packets seen in both directions.
    SeenReply,
    /// Packets seen in one direction only.
    Unreplied,
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

    /// One JSON object per packet and line: n, verdict, reason, ct_state, rule.
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

fn parse_proto(text: &str) -> Result<u8, String> {
    let lower = text.to_lowercase();
    let known = (0..=u8::MAX).find(|number| {
        let name = crate::api::types::proto_name(*number);
        name != "unknown" && name == lower
    });
    match lower.as_str() {
        "icmp6" | "ipv6-icmp" => Ok(58),
        _ => known.or_else(|| lower.parse().ok()).ok_or_else(|| {
            "give a number from 0 to 255, or tcp, udp, udplite, icmp, icmpv6, sctp, dccp or gre".to_owned()
        }),
    }
}

fn parse_mark(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "give a number of 32 bits".to_owned())
}
