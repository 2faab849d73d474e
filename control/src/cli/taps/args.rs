//! Command lines of `fwctl capture`, `fwctl trace` and `fwctl drops`.

use crate::cli::args::parse_time;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Which packets to look at.
#[derive(Clone, Debug, Default, Args)]
pub struct TapArgs {
    /// Only packets on this NIC of the gateway (where they come in; of captures at `tx`, where they leave). May be repeated.
    #[arg(short = 'i', long = "in", value_name = "IFACE")]
    pub interfaces: Vec<String>,

    /// Only packets that are dropped.
    #[arg(long)]
    pub drops: bool,

    /// Only packets that are dropped for this reason, as `fwctl stats --all` names it. May be repeated, or a list with commas.
    #[arg(long = "reason", value_name = "REASON", value_delimiter = ',')]
    pub reasons: Vec<String>,

    /// Only packets about which this rule decides: CHAIN:NUMBER or TABLE/CHAIN:NUMBER (`fwctl rules`), or its id (`fwctl
    /// rules --json`). With -6 of the IPv6 rules.
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,

    /// Which family's rules --rule names.
    #[command(flatten)]
    pub family: RuleFamily,

    /// Stop after so many packets.
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Stop after this time: 30s, 5m.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    pub time: Option<u32>,

    /// Take one packet in N of those that fit, per worker.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub sample: Option<u32>,

    /// Take at most N packets a second, per worker.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,

    /// Which packets, in pcap-filter(7)'s language: `tcp port 443 and host 10.0.0.1`. Behind VLAN tags say `vlan and ...`.
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// IPv4's rules or IPv6's.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct RuleFamily {
    /// --rule names one of the IPv4 rules, as it does unless told otherwise.
    #[arg(short = '4', long = "ipv4", requires = "rule")]
    v4: bool,

    /// --rule names one of the IPv6 rules.
    #[arg(short = '6', long = "ipv6", requires = "rule", conflicts_with = "v4")]
    v6: bool,
}

impl RuleFamily {
    pub(super) const fn is_v6(self) -> bool {
        self.v6
    }
}

/// Arguments of `fwctl capture`.
#[derive(Clone, Debug, Default, Args)]
pub struct CaptureArgs {
    /// Write to this file, `-` for standard output, into a pipe: `fwctl capture -w - | tcpdump -nr -`.
    #[arg(short = 'w', long = "write", value_name = "FILE", default_value = "-")]
    pub write: PathBuf,

    /// Where packets are captured: as they come in (rx), once it is known what becomes of them (verdict, the default), as they
    /// leave (tx). May be repeated, or a list with commas.
    #[arg(long = "point", value_name = "POINT", value_delimiter = ',', value_enum)]
    pub points: Vec<PointArg>,

    /// Keep so many bytes of each frame. Unless given, all of it.
    #[arg(short = 's', long = "snaplen", value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub snap_len: Option<u32>,

    /// MiB of packets that may wait to be written, in the daemon.
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub buffer: u32,

    /// Which packets.
    #[command(flatten)]
    pub tap: TapArgs,
}

/// Where packets are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PointArg {
    /// As they come in.
    Rx,
    /// Once it is known what becomes of them.
    Verdict,
    /// As they leave, answers to rejected packets too.
    Tx,
}

/// Arguments of `fwctl trace`.
#[derive(Clone, Debug, Default, Args)]
pub struct TraceArgs {
    /// One JSON object per packet and line.
    #[arg(long)]
    pub json: bool,

    /// Which packets. Unless --rate says otherwise, at most 1000 a second and worker.
    #[command(flatten)]
    pub tap: TapArgs,
}

/// Arguments of `fwctl drops`.
#[derive(Clone, Debug, Default, Args)]
pub struct DropsArgs {
    /// Only the last N.
    #[arg(short = 'n', long = "last", value_name = "N")]
    pub last: Option<usize>,

    /// Only of packets that came in on this NIC. May be repeated.
    #[arg(short = 'i', long = "in", value_name = "IFACE")]
    pub interfaces: Vec<String>,

    /// Only for this reason, as `fwctl stats --all` names it. May be repeated, or a list with commas.
    #[arg(long = "reason", value_name = "REASON", value_delimiter = ',')]
    pub reasons: Vec<String>,

    /// Write them into a capture file, `-` for standard output: the first 128 bytes of each.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub pcap: Option<PathBuf>,

    /// One JSON object per packet and line.
    #[arg(long)]
    pub json: bool,
}
