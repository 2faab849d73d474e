//! The daemon's command line.

use clap::Parser;
use std::path::PathBuf;

/// What `fwd` takes on its command line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Parser)]
#[command(
    name = "fwd",
    version,
    long_version = crate::build_facts::long_version(),
    about = "Palisade: a stateful firewall as a bump in the wire, on AF_XDP",
    long_about = "Palisade joins two NICs and forwards between them what the rules accept.\n\n\
        `fwd --left eth0 --right eth1 --rules rules.v4` is enough to run; `--config` is for everything else. \
        Prints `ready` on standard output once frames flow. SIGHUP reads the rules again.",
    after_help = "Exit codes: 0 ended on request, 1 could not start or stopped on an error, 2 bad usage."
)]
pub struct FwdArgs {
    /// Interface name of the left NIC.
    #[arg(long, value_name = "IF", requires = "right")]
    pub left: Option<String>,

    /// Interface name of the right NIC.
    #[arg(long, value_name = "IF", requires = "left")]
    pub right: Option<String>,

    /// IPv4 rules, as iptables-save prints them.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// IPv6 rules, as ip6tables-save prints them.
    #[arg(long, value_name = "FILE")]
    pub rules6: Option<PathBuf>,

    /// Configuration file (TOML). `--print-defaults` shows every setting.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Any setting of the configuration file, by its full name (`conntrack.tcp_loose=0`) or, where that is unique, by
    /// its last part (`tcp_loose=0`). May be repeated; the last one wins.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,

    /// Socket for fwctl; the same as `--set api.socket=PATH`.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Print a configuration file with every setting at its default, and exit.
    #[arg(long)]
    pub print_defaults: bool,
}
