//! The command line of `fwctl top`.

use crate::api::types::TopBy;
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Arguments of `fwctl top`.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "as many switches as there are ways to print")]
pub struct TopArgs {
    /// Which flows to look at, for example `tcp dport 443` or `host 10.0.0.0/8 udp`. Words: tcp, udp, icmp, ..., proto N, host
    /// NET, src NET, dst NET, port N, sport N, dport N, state NAME, mark N, zone N, ipv4, ipv6, new, answered. All must hold; an
    /// address alone is a host, a number alone a port. Rules, drops and NICs are shown whatever the filter.
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,

    /// Time between two looks, and the time that rates are of: 0.2 to 10 seconds.
    #[arg(short = 'i', long, value_name = "SECS", default_value = "2", value_parser = parse_interval)]
    pub interval: Duration,

    /// What flows, hosts, services and rules are ordered by.
    #[arg(long, value_name = "WHAT", default_value = "bytes")]
    pub by: ByArg,

    /// Print one screen as text and end.
    #[arg(short = '1', long, conflicts_with = "batch")]
    pub once: bool,

    /// Print a screen as text again and again. This is also done where there is no terminal to draw on.
    #[arg(short = 'b', long)]
    pub batch: bool,

    /// With --batch or --json: end after so many.
    #[arg(short = 'c', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Entries of each list in text and JSON.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub entries: u16,

    /// JSON as the daemon sends it, one object in a line each time: `stats`, `history` and `top`. One, unless --batch or
    /// --count asks for more.
    #[arg(long, conflicts_with = "once")]
    pub json: bool,

    /// No colours, as with NO_COLOR in the environment.
    #[arg(long)]
    pub no_color: bool,
}

/// [`TopBy`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ByArg {
    /// Bytes a second.
    Bytes,
    /// Packets a second.
    Packets,
    /// New flows a second.
    New,
}

impl From<ByArg> for TopBy {
    fn from(by: ByArg) -> Self {
        match by {
            ByArg::Bytes => Self::Bytes,
            ByArg::Packets => Self::Packets,
            ByArg::New => Self::New,
        }
    }
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let secs: f64 = text.parse().map_err(|_| "a number of seconds is needed".to_owned())?;
    if (0.2..=10.0).contains(&secs) {
        Ok(Duration::from_secs_f64(secs))
    } else {
        Err("from 0.2 to 10 seconds".to_owned())
    }
}
