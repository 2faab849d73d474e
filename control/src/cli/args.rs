//! The command line of `fwctl`.

pub use super::flows::args::{FamilyArg, FlowsArgs};

use super::taps::args::{CaptureArgs, DropsArgs, TraceArgs};
use crate::api::limits::CONFIRM_MAX_SECS;
use crate::api::types::{FlowsChoice, Net};
use crate::config::DEFAULT_SOCKET;
use crate::doctor::SAFE_FIXES;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

/// What `fwctl` takes on its command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "fwctl",
    version,
    long_version = crate::build_facts::long_version(),
    about = "Asks and commands Palisade's daemon, fwd",
    after_help = "Exit codes: 0 done; 1 refused, or something given is wrong; 2 bad usage; 3 right, but asks for something \
        not supported; 4 the daemon cannot be reached. `fwctl doctor` has its own: 5 warnings, 6 faults."
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
    /// Packets into a capture file or a pipe, with what became of them in their comments, like tcpdump -w.
    #[command(after_help = CAPTURE_HELP)]
    Capture(Box<CaptureArgs>),
    /// Follows packets that pass by through connection tracking and the rules, as it happens.
    Trace(Box<TraceArgs>),
    /// The last packets that were dropped, and why: 512 per worker are remembered.
    Drops(DropsArgs),
    /// Shows and changes connection tracking settings, like sysctl.
    Sysctl(SysctlArgs),
    /// What each worker has to do, its share of flows, the largest flows; `rebalance` evens loads out.
    Workers(super::workers::WorkersArgs),
    /// A screen of what passes: rates, top flows, hosts, services and rules, drops by reason, workers and their rings.
    Top(super::top::TopArgs),
    /// Sets that rules name: ipset(8) commands, as `fwctl set add NAME ELEMENT`, `fwctl set save`, `fwctl set restore -file FILE`.
    Set(SetArgs),
    /// Addresses that `-m recent` rules have seen, like /proc/net/xt_recent/NAME; adds and forgets them, too.
    Recent(RecentArgs),
    /// What `-m hashlimit` rules keep of addresses, like /proc/net/ipt_hashlimit/NAME.
    Hashlimit(TablesArgs),
    /// Checks a rules file without loading it.
    Check(CheckArgs),
    /// Loads new rules into the running daemon. Flows are kept, no packet is lost.
    Apply(ApplyArgs),
    /// What a rules file would change: rules added, removed and moved, policies, and the flows it would refuse.
    Diff(DiffArgs),
    /// Confirms rules applied with --confirm, so that they stay.
    Confirm(ConfirmArgs),
    /// Brings back rules that ran before: those before the rules in force, or number N of the history.
    Rollback(RollbackArgs),
    /// The rulesets that ran: when, who, what, and what became of it. With N, prints that ruleset.
    History(HistoryArgs),
    /// Who changed what: the last entries of the daemon's audit log.
    Audit(AuditArgs),
    /// Where the web page is, and how to get to it from elsewhere.
    Web(WebArgs),
    /// Changes the running rules by one rule, as iptables -A, -I, -D and -R do.
    Rule(RuleArgs),
    /// Says what would become of a packet, and why: each step through the live tables, or offline with --rules. Sends
    /// nothing, changes nothing.
    Explain(Box<super::explain::ExplainArgs>),
    /// The daemon's configuration: checks a file, shows what runs, changes it while it runs, describes all settings.
    Config(ConfigArgs),
    /// Runs the packets of a capture through rules, offline: needs neither daemon nor root.
    Replay(ReplayArgs),
    /// Looks for what makes the gateway slow, deaf or wrong, with or without a running daemon, and says what mends it.
    #[command(after_help = doctor_help())]
    Doctor(DoctorArgs),
    /// How fwctl and the daemon were built: version, commit, compiler, libbpf; warns if they do not belong together.
    Version(super::version::VersionArgs),
}

const CAPTURE_HELP: &str = "Examples:
  fwctl capture --drops -w drops.pcapng -c 100      the next 100 packets that are dropped
  fwctl capture tcp port 443 | tshark -r -          what becomes of HTTPS, live
  fwctl capture --point rx,tx -i eth1 -w eth1.pcapng  what comes in and goes out there
  fwctl capture --rule FORWARD:7 -w rule7.pcapng    packets about which that rule decides";

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
#[expect(clippy::struct_excessive_bools, reason = "as many switches as iptables has")]
pub struct RulesArgs {
    /// Print the rules as iptables-save does, ready for `fwctl apply`.
    #[arg(short = 'S', long = "save")]
    pub save: bool,

    /// List as iptables -L does, with the columns that -v, -x and --line-numbers ask for. Without -L: all columns.
    #[arg(short = 'L', long = "list", conflicts_with = "save")]
    pub list: bool,

    /// With -L: counters and interfaces too. Without, they are there anyway.
    #[arg(short = 'v', long, conflicts_with = "save")]
    pub verbose: bool,

    /// With -L: exact counters.
    #[arg(short = 'x', long, requires = "list")]
    pub exact: bool,

    /// With -L: each rule's number.
    #[arg(long = "line-numbers", requires = "list")]
    pub line_numbers: bool,

    /// Numbers instead of names, as always here.
    #[arg(short = 'n', long)]
    pub numeric: bool,

    /// With -S: each rule with its counters, as iptables-save -c does.
    #[arg(short = 'c', long, requires = "save")]
    pub counters: bool,

    /// One family; both unless given.
    #[arg(long, value_name = "4|6", hide_possible_values = true)]
    pub family: Option<FamilyArg>,

    /// IPv4 only.
    #[arg(short = '4', long = "ipv4", conflicts_with = "family")]
    pub v4: bool,

    /// IPv6 only.
    #[arg(short = '6', long = "ipv6", conflicts_with_all = ["family", "v4"])]
    pub v6: bool,

    /// Only this table: filter, mangle or raw. Unless given, filter is listed, and -S prints all.
    #[arg(short = 't', long, value_name = "TABLE")]
    pub table: Option<String>,

    /// Only this chain.
    #[arg(value_name = "CHAIN", conflicts_with = "save")]
    pub chain: Option<String>,

    /// JSON as the daemon sends it.
    #[arg(long, conflicts_with_all = ["save", "list"])]
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

/// Arguments of `fwctl hashlimit`, and which tables `fwctl recent` shows.
#[derive(Clone, Debug, Default, Args)]
pub struct TablesArgs {
    /// One table; without, all of them, each under its name.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// One family; both unless given.
    #[arg(long, value_name = "4|6", hide_possible_values = true)]
    pub family: Option<FamilyArg>,

    /// JSON lines as the daemon sends them.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fwctl recent`.
#[derive(Clone, Debug, Default, Args)]
pub struct RecentArgs {
    /// What is shown or changed.
    #[command(flatten)]
    pub tables: TablesArgs,

    /// The address is seen now, as with `echo +ADDRESS > /proc/net/xt_recent/NAME`.
    #[arg(long, value_name = "ADDRESS", requires = "name", conflicts_with_all = ["family", "json"])]
    pub add: Option<IpAddr>,

    /// Forget the address (`-ADDRESS`).
    #[arg(long, value_name = "ADDRESS", requires = "name", conflicts_with_all = ["add", "family", "json"])]
    pub del: Option<IpAddr>,

    /// Forget all addresses (`/`).
    #[arg(long, requires = "name", conflicts_with_all = ["add", "del", "family", "json"])]
    pub flush: bool,
}

/// Arguments of `fwctl doctor`.
#[derive(Clone, Debug, Default, Args)]
pub struct DoctorArgs {
    /// The daemon's configuration file: names the NICs, and what is asked of them.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Interface name of the left NIC. Unless NICs are named here or in the file: those of the daemon that runs.
    #[arg(long, value_name = "IF", requires = "right", conflicts_with = "config")]
    pub left: Option<String>,

    /// Interface name of the right NIC.
    #[arg(long, value_name = "IF", requires = "left")]
    pub right: Option<String>,

    /// Any setting of the daemon's configuration, as with `fwd --set`.
    #[arg(long = "set", value_name = "NAME=VALUE", conflicts_with = "config")]
    pub set: Vec<String>,

    /// Do what is safe, see below.
    #[arg(long)]
    pub fix: bool,

    /// One JSON object.
    #[arg(long)]
    pub json: bool,
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

    /// Warnings are errors: exit code 1.
    #[arg(long)]
    pub strict: bool,

    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Rules to be loaded.
#[derive(Clone, Debug, Default, Args)]
pub struct NewRulesArgs {
    /// Rules as iptables-save prints them; `-` is standard input.
    #[arg(value_name = "FILE", required_unless_present = "rules6")]
    pub file: Option<PathBuf>,

    /// IPv6 rules to load in the same step.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,

    /// Sets that come with the rules, as `ipset save` prints them: in the same step, in place of those with the same names.
    #[arg(long, value_name = "FILE")]
    pub sets: Option<PathBuf>,

    /// Whose rules FILE holds. Unless given: 6 if the file says that ip6tables-save made it, else 4.
    #[arg(long, value_name = "4|6", hide_possible_values = true, requires = "file")]
    pub family: Option<FamilyArg>,
}

/// Arguments of `fwctl apply`.
#[derive(Clone, Debug, Default, Args)]
pub struct ApplyArgs {
    /// What to load.
    #[command(flatten)]
    pub rules: NewRulesArgs,

    /// Take the rules back unless `fwctl confirm` comes within TIME (60s, 5m), whatever becomes of this session.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub confirm: Option<u32>,

    /// Live flows: `reevaluate` (their next packet meets the new rules, as in netfilter), `keep` (those that the rules so far
    /// let pass go on until they end, whatever the new ones say) or `kill` (those that could not begin under the new rules
    /// are removed).
    #[arg(long, value_name = "WHAT", default_value = "reevaluate")]
    pub flows: FlowsArg,

    /// Only say what would change, as `fwctl diff` does.
    #[arg(long)]
    pub dry_run: bool,

    /// Why; for the history.
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,

    /// JSON as the daemon sends it.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fwctl diff`.
#[derive(Clone, Debug, Default, Args)]
pub struct DiffArgs {
    /// What to compare the rules in force with.
    #[command(flatten)]
    pub rules: NewRulesArgs,

    /// JSON as the daemon sends it.
    #[arg(long)]
    pub json: bool,
}

/// What becomes of live flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FlowsArg {
    /// Those that the rules so far let pass go on to pass.
    Keep,
    /// Their next packet meets the new rules.
    #[default]
    Reevaluate,
    /// Those that could not begin under the new rules are removed.
    Kill,
}

impl From<FlowsArg> for FlowsChoice {
    fn from(arg: FlowsArg) -> Self {
        match arg {
            FlowsArg::Keep => Self::Keep,
            FlowsArg::Reevaluate => Self::Reevaluate,
            FlowsArg::Kill => Self::Kill,
        }
    }
}

/// Arguments of `fwctl web`.
#[derive(Clone, Debug, Default, Args)]
pub struct WebArgs {
    /// JSON as the daemon sends it.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fwctl confirm`.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfirmArgs {
    /// JSON as the daemon sends it.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fwctl rollback`.
#[derive(Clone, Debug, Default, Args)]
pub struct RollbackArgs {
    /// Number in the history.
    #[arg(value_name = "N")]
    pub number: Option<u64>,

    /// Undo the rollback unless `fwctl confirm` comes within TIME (60s, 5m).
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub confirm: Option<u32>,

    /// Live flows, as for `fwctl apply`.
    #[arg(long, value_name = "WHAT", default_value = "reevaluate")]
    pub flows: FlowsArg,

    /// Why; for the history.
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,

    /// JSON as the daemon sends it.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fwctl history`.
#[derive(Clone, Debug, Default, Args)]
pub struct HistoryArgs {
    /// Print this ruleset, as iptables-save does.
    #[arg(value_name = "N")]
    pub number: Option<u64>,

    /// Of which family; IPv4 unless told.
    #[arg(long, value_name = "4|6", hide_possible_values = true, requires = "number")]
    pub family: Option<FamilyArg>,

    /// JSON as the daemon sends it.
    #[arg(long, conflicts_with = "number")]
    pub json: bool,
}

/// Arguments of `fwctl audit`.
#[derive(Clone, Debug, Default, Args)]
pub struct AuditArgs {
    /// How many; 20 unless given, at most 10000.
    #[arg(value_name = "N")]
    pub count: Option<usize>,

    /// JSON lines as they stand in the log.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fwctl rule`. Options come before the command; everything behind the chain belongs to the rule.
#[derive(Clone, Debug, Args)]
pub struct RuleArgs {
    /// Table: filter, mangle or raw.
    #[arg(short = 't', long, value_name = "TABLE", default_value = "filter")]
    pub table: String,

    /// IPv4 rules, as without.
    #[arg(short = '4', long = "ipv4")]
    pub v4: bool,

    /// IPv6 rules.
    #[arg(short = '6', long = "ipv6", conflicts_with = "v4")]
    pub v6: bool,

    /// Take the change back unless `fwctl confirm` comes within TIME (60s, 5m).
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub confirm: Option<u32>,

    /// Live flows, as for `fwctl apply`.
    #[arg(long, value_name = "WHAT", default_value = "reevaluate")]
    pub flows: FlowsArg,

    /// Why; for the history.
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,

    /// JSON as the daemon sends it.
    #[arg(long)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub edit: RuleEdit,
}

/// What `fwctl rule` does.
#[derive(Clone, Debug, Subcommand)]
pub enum RuleEdit {
    /// At the end of a chain: `add FORWARD -p tcp --dport 22 -j ACCEPT`.
    Add(RuleWords),
    /// At its beginning, or at a number: `insert FORWARD 3 -p tcp --dport 22 -j ACCEPT`.
    Insert(RuleWords),
    /// By number or by what it says: `delete FORWARD 3`, `delete FORWARD -p tcp --dport 22 -j ACCEPT`.
    Delete(RuleWords),
    /// At a number: `replace FORWARD 3 -p tcp --dport 2222 -j ACCEPT`.
    Replace(RuleWords),
}

/// Chain and rule, in iptables' words.
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true)]
pub struct RuleWords {
    /// Chain.
    #[arg(value_name = "CHAIN")]
    pub chain: String,

    /// Number, specification, or both.
    #[arg(value_name = "RULE", trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// Arguments of `fwctl config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What `fwctl config` does.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Checks a configuration file: everything that is wrong, each with its place, a caret and a hint. Needs no daemon.
    #[command(
        after_help = "Exit codes: 0 good (warnings too, unless --strict), 1 wrong, 2 the file cannot be read."
    )]
    Check(ConfigCheckArgs),
    /// What the running daemon works with: every setting, its value, and where that comes from.
    Show(ConfigShowArgs),
    /// Changes settings of the running daemon, all or none of them, until it ends or reads its file again.
    #[command(
        after_help = "What needs a restart is refused, with exit code 3. `fwctl config show` says which settings change while \
        the daemon runs."
    )]
    Set(ConfigSetArgs),
    /// Has the daemon read its configuration file again: what can change does, the rest is named. The rules stay as they are;
    /// SIGHUP reads them again as well. Anything wrong changes nothing.
    Reload(ConfigReloadArgs),
    /// The JSON Schema of the configuration file: editors with TOML support complete and explain names by it.
    Schema,
    /// A configuration file with every setting at its default, explained.
    Defaults,
}

/// Arguments of `fwctl config show`.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigShowArgs {
    /// Only settings whose name begins so: `conntrack`, `log.level`, `wire.0`.
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    /// Only what is not at its default.
    #[arg(long)]
    pub changed: bool,

    /// Also what each setting does, what it takes, and when another value takes effect.
    #[arg(short = 'v', long)]
    pub verbose: bool,

    /// JSON as the daemon sends it.
    #[arg(long, conflicts_with_all = ["names", "changed", "verbose"])]
    pub json: bool,
}

/// Arguments of `fwctl config set`.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigSetArgs {
    /// As with `fwd --set`: `log.level=debug`, `udp_timeout=20`, `wire.0.full=evict-half-open`.
    #[arg(value_name = "NAME=VALUE", required = true)]
    pub set: Vec<String>,

    /// JSON as the daemon sends it.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fwctl config reload`.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigReloadArgs {
    /// JSON as the daemon sends it.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `fwctl config check`.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigCheckArgs {
    /// The file; /etc/palisade/fwd.toml unless given.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Warnings are errors: exit code 1.
    #[arg(long)]
    pub strict: bool,

    /// JSON instead of text.
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

/// What the help of `fwctl doctor` says last.
fn doctor_help() -> String {
    format!(
        "{SAFE_FIXES}\n\nExit codes by the worst that is found, and not mended: 0 notes at most; 5 warnings; 6 faults."
    )
}

fn parse_secs(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.1..=86_400.0).contains(&secs) => Ok(secs),
        _ => Err("give seconds, from 0.1 to 86400".to_owned()),
    }
}

/// Seconds from `60`, `60s`, `5m` or `1h`.
pub(super) fn parse_time(text: &str) -> Result<u32, String> {
    let digits = text.trim_end_matches(['s', 'm', 'h']);
    let factor = match text.get(digits.len()..) {
        Some("" | "s") => Some(1),
        Some("m") => Some(60),
        Some("h") => Some(3600),
        _ => None,
    };
    let secs = digits.parse::<u32>().ok().zip(factor).and_then(|(count, factor)| count.checked_mul(factor));
    secs.filter(|secs| (1..=CONFIRM_MAX_SECS).contains(secs))
        .ok_or_else(|| "give a time such as 60s or 5m, from 1s to 24h".to_owned())
}
