//! The command line of `fwctl flows`: that of conntrack(8), whose options may mean different things to different commands.

use crate::api::types::{Family, Mark, Net};
use clap::{Args, ValueEnum};
use std::net::IpAddr;

/// Arguments of `fwctl flows`.
#[derive(Clone, Debug, Default, Args)]
pub struct FlowsArgs {
    /// What to do.
    #[command(flatten)]
    pub command: CommandArgs,

    /// Which flows.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// With `-U`: seconds until the flow ends if nothing more comes.
    #[arg(short = 't', long, value_name = "SECS", value_parser = clap::value_parser!(u32).range(1..=i64::from(TIMEOUT_MAX_SECS)))]
    pub timeout: Option<u32>,

    /// With `-U`: labels to give, by name or number, comma-separated.
    #[arg(long, value_name = "LABEL", value_delimiter = ',', conflicts_with = "label_del")]
    pub label_add: Vec<String>,

    /// With `-U`: labels to take away; without any, all.
    #[arg(long, value_name = "LABEL", value_delimiter = ',', num_args = 0..=1, default_missing_value = "")]
    pub label_del: Option<Vec<String>>,

    /// With `-E`: only these, comma-separated: ALL, NEW, UPDATES, DESTROY.
    #[arg(short = 'e', long, value_name = "WHAT", value_delimiter = ',', ignore_case = true)]
    pub event_mask: Vec<EventArg>,

    /// With `-E`: taken for conntrack's sake; how many events may wait for a listener is fixed here.
    #[arg(short = 'b', long, value_name = "BYTES")]
    pub buffer_size: Option<u64>,

    /// More about each, comma-separated: extended, id, timestamp, ktimestamp, labels, userspace; or another form: json, xml,
    /// save.
    #[arg(short = 'o', long, value_name = "WHAT", value_delimiter = ',')]
    pub output: Vec<OutputArg>,

    /// JSON as the daemon sends it, one flow per line.
    #[arg(long)]
    pub json: bool,

    /// What conntrack can do and we cannot.
    #[command(flatten)]
    pub refused: RefusedArgs,
}

/// Longest timer that can be set.
const TIMEOUT_MAX_SECS: u32 = 20_000_000;

/// Commands: one of them, `-L` without any.
#[derive(Clone, Debug, Default, Args)]
#[group(multiple = false)]
pub struct CommandArgs {
    /// List: what is done without a command.
    #[arg(short = 'L', long = "dump", alias = "list", value_name = "TABLE", num_args = 0..=1, default_missing_value = "conntrack")]
    pub list: Option<TableArg>,

    /// Show one: needs `-p`, `-s`, `-d` and what else its protocol tells flows apart by.
    #[arg(short = 'G', long, value_name = "TABLE", num_args = 0..=1, default_missing_value = "conntrack")]
    pub get: Option<TableArg>,

    /// Print how many there are, not which.
    #[arg(short = 'C', long, value_name = "TABLE", num_args = 0..=1, default_missing_value = "conntrack")]
    pub count: Option<TableArg>,

    /// Delete those that fit the filter, and print them.
    #[arg(short = 'D', long, value_name = "TABLE", num_args = 0..=1, default_missing_value = "conntrack")]
    pub delete: Option<TableArg>,

    /// Change mark (`-m`), labels or timer (`-t`) of those that fit the filter, and print them.
    #[arg(short = 'U', long, value_name = "TABLE", num_args = 0..=1, default_missing_value = "conntrack")]
    pub update: Option<TableArg>,

    /// Delete all.
    #[arg(short = 'F', long, value_name = "TABLE", num_args = 0..=1, default_missing_value = "conntrack")]
    pub flush: Option<TableArg>,

    /// Print what happens as it happens, until interrupted: NEW, UPDATE, DESTROY.
    #[arg(short = 'E', long, value_name = "TABLE", num_args = 0..=1, default_missing_value = "conntrack")]
    pub event: Option<TableArg>,

    /// What each worker has counted, as `conntrack -S` prints it.
    #[arg(short = 'S', long)]
    pub stats: bool,

    /// Refused, see `action`.
    #[arg(short = 'I', long, hide = true, value_name = "TABLE", num_args = 0..=1, default_missing_value = "conntrack")]
    pub create: Option<TableArg>,

    /// Refused, see `action`.
    #[arg(short = 'A', long, hide = true, value_name = "TABLE", num_args = 0..=1, default_missing_value = "conntrack")]
    pub add: Option<TableArg>,

    /// Refused, see `action`.
    #[arg(short = 'R', long, hide = true, value_name = "FILE")]
    pub load_file: Option<String>,
}

/// Which flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct FilterArgs {
    /// Protocol, by name (tcp, udp, icmp, ...) or number.
    #[arg(short = 'p', long = "protonum", visible_alias = "proto", value_name = "PROTO", value_parser = parse_proto)]
    pub proto: Option<u8>,

    /// Family; both unless given.
    #[arg(short = 'f', long, value_name = "ipv4|ipv6", hide_possible_values = true)]
    pub family: Option<FamilyArg>,

    /// Source of the original direction: ADDRESS or ADDRESS/BITS.
    #[arg(short = 's', long = "orig-src", visible_alias = "src", value_name = "NET")]
    pub src: Option<Net>,

    /// Destination of the original direction.
    #[arg(short = 'd', long = "orig-dst", visible_alias = "dst", value_name = "NET")]
    pub dst: Option<Net>,

    /// Bits that count of the address given with `-s`, as an address: 255.255.0.0.
    #[arg(long, value_name = "MASK", requires = "src")]
    pub mask_src: Option<IpAddr>,

    /// Bits that count of the address given with `-d`.
    #[arg(long, value_name = "MASK", requires = "dst")]
    pub mask_dst: Option<IpAddr>,

    /// Source of the reply direction.
    #[arg(short = 'r', long, value_name = "NET")]
    pub reply_src: Option<Net>,

    /// Destination of the reply direction.
    #[arg(short = 'q', long, value_name = "NET")]
    pub reply_dst: Option<Net>,

    /// Source port of the original direction.
    #[arg(long = "sport", visible_alias = "orig-port-src", value_name = "PORT")]
    pub sport: Option<u16>,

    /// Destination port of the original direction.
    #[arg(long = "dport", visible_alias = "orig-port-dst", value_name = "PORT")]
    pub dport: Option<u16>,

    /// Source port of the reply direction.
    #[arg(long, value_name = "PORT")]
    pub reply_port_src: Option<u16>,

    /// Destination port of the reply direction.
    #[arg(long, value_name = "PORT")]
    pub reply_port_dst: Option<u16>,

    /// ICMP or ICMPv6 type of the original direction.
    #[arg(long, value_name = "TYPE")]
    pub icmp_type: Option<u8>,

    /// Its code.
    #[arg(long, value_name = "CODE")]
    pub icmp_code: Option<u8>,

    /// Its identifier.
    #[arg(long, value_name = "ID")]
    pub icmp_id: Option<u16>,

    /// Protocol state, for example ESTABLISHED or SYN_SENT.
    #[arg(long, value_name = "STATE", value_parser = |state: &str| Ok::<_, String>(state.to_uppercase()))]
    pub state: Option<String>,

    /// All of these, comma-separated: ASSURED, SEEN_REPLY, UNREPLIED, EXPECTED, FIXED_TIMEOUT, OFFLOAD, HW_OFFLOAD.
    #[arg(
        short = 'u',
        long,
        value_name = "STATUS",
        value_delimiter = ',',
        ignore_case = true,
        hide_possible_values = true
    )]
    pub status: Vec<StatusArg>,

    /// Mark, decimal or 0x hexadecimal; MARK/MASK looks at the bits of MASK only. With `-U` what to set.
    #[arg(short = 'm', long, value_name = "MARK[/MASK]")]
    pub mark: Option<Mark>,

    /// All of these labels, by name or number, comma-separated.
    #[arg(short = 'l', long, value_name = "LABEL", value_delimiter = ',')]
    pub label: Vec<String>,

    /// Zone of both directions.
    #[arg(short = 'w', long, value_name = "ZONE")]
    pub zone: Option<u16>,

    /// Zone of the original direction alone.
    #[arg(long, value_name = "ZONE")]
    pub orig_zone: Option<u16>,

    /// Zone of the reply direction alone.
    #[arg(long, value_name = "ZONE")]
    pub reply_zone: Option<u16>,

    /// Flows whose source is translated: none is.
    #[arg(short = 'n', long, value_name = "IP", num_args = 0..=1, default_missing_value = "")]
    pub src_nat: Option<String>,

    /// Flows whose destination is translated: none is.
    #[arg(short = 'g', long, value_name = "IP", num_args = 0..=1, default_missing_value = "")]
    pub dst_nat: Option<String>,

    /// Either.
    #[arg(short = 'j', long, value_name = "IP", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["src_nat", "dst_nat"])]
    pub any_nat: Option<String>,
}

/// Options of conntrack's that are refused by name, each with its reason.
#[derive(Clone, Debug, Default, Args)]
pub struct RefusedArgs {
    /// Refused.
    #[arg(short = 'z', long, hide = true)]
    pub zero: bool,
    /// Refused.
    #[arg(short = 'c', long, hide = true, value_name = "SECMARK")]
    pub secmark: Option<String>,
}

/// Which of conntrack's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableArg {
    /// Flows.
    Conntrack,
    /// Connections that helpers expect.
    Expect,
    /// Flows that have gone and cannot be told of yet: none here.
    Dying,
    /// Flows that are not accepted yet: none here.
    Unconfirmed,
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

/// `--event-mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventArg {
    /// All of them.
    All,
    /// Flows that are made.
    New,
    /// Flows that change.
    #[value(alias = "update")]
    Updates,
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
    /// XML.
    Xml,
    /// Command lines of conntrack's.
    Save,
    /// The time, in front of events.
    Timestamp,
    /// When flows began and ended, while the setting `timestamp` is on.
    Ktimestamp,
    /// Labels, by name, or by number those without.
    Labels,
    /// Who asked for an event: that is always printed.
    Userspace,
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
    /// Announced by another flow.
    Expected,
    /// With a timer that stands still: none is.
    FixedTimeout,
    /// Forwarded by the kernel's flow table: none is.
    Offload,
    /// Forwarded by hardware: none is.
    HwOffload,
    /// conntrack cannot look for it either.
    #[value(hide = true)]
    Unset,
    /// `--src-nat`.
    #[value(hide = true)]
    SrcNat,
    /// `--dst-nat`.
    #[value(hide = true)]
    DstNat,
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
