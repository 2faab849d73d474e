//! What `fwctl flows` is asked to do: its arguments, checked against each other. Pure.

use super::CliError;
use super::args::{FilterArgs, FlowsArgs, OutputArg, RefusedArgs, StatusArg, TableArg};
use crate::api::types::{Family, FlowFilter, Mark, Net};
use std::net::IpAddr;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    List(TableArg),
    Get,
    Count(TableArg),
    Delete,
    Update { mark: Option<Mark>, labels: bool, timeout_secs: Option<u32> },
    Flush(TableArg),
    Event(TableArg),
    Stats,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// In which form.
    pub format: Format,
    /// The network protocol in front.
    pub extended: bool,
    /// A number that names the flow, at the end.
    pub id: bool,
    /// The time, in front of events.
    pub timestamp: bool,
    /// When flows began and ended.
    pub ktimestamp: bool,
    /// Labels: who speaks of them sees them.
    pub labels: bool,
}

/// A form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A line of words.
    #[default]
    Line,
    /// JSON as the daemon sends it.
    Json,
    /// XML.
    Xml,
    /// A command line of conntrack's.
    Save,
}

impl Output {
    /// What the arguments ask for.
    ///
    /// # Errors
    /// When they ask for two forms at once.
    pub(super) fn of(args: &FlowsArgs) -> Result<Self, CliError> {
        let has = |what| args.output.contains(&what);
        let (json, xml, save) =
            (args.json || has(OutputArg::Json), has(OutputArg::Xml), has(OutputArg::Save));
        if save && (json || args.output.len() > 1) {
            return Err(usage("`-o save` goes with no other output"));
        }
        let format = match (json, xml, save) {
            (true, true, _) => return Err(usage("output is JSON or XML, not both")),
            (true, ..) => Format::Json,
            (_, true, _) => Format::Xml,
            (.., true) => Format::Save,
            _ => Format::Line,
        };
        Ok(Self {
            format,
            extended: has(OutputArg::Extended),
            id: has(OutputArg::Id),
            timestamp: has(OutputArg::Timestamp),
            ktimestamp: has(OutputArg::Ktimestamp),
            labels: has(OutputArg::Labels) || !args.filter.label.is_empty() || changes_labels(args),
        })
    }

    /// Whether it is for programs, who want no last word.
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }
}

fn usage(message: impl Into<String>) -> CliError {
    CliError::Usage(message.into())
}

impl Action {
    /// What the arguments ask for.
    ///
    /// # Errors
    /// When they ask for what cannot be done, or for what makes no sense together.
    pub(super) fn of(args: &FlowsArgs) -> Result<Self, CliError> {
        refuse(args)?;
        let command = &args.command;
        let is_update = command.update.is_some();
        let action = if let Some(table) = command.get {
            only_flows("-G", table)?;
            Self::Get
        } else if let Some(table) = command.count {
            no_shadows(table)?;
            Self::Count(table)
        } else if let Some(table) = command.delete {
            only_flows("-D", table)?;
            Self::Delete
        } else if let Some(table) = command.update {
            only_flows("-U", table)?;
            Self::Update { mark: args.filter.mark, labels: changes_labels(args), timeout_secs: args.timeout }
        } else if let Some(table) = command.flush {
            no_shadows(table)?;
            Self::Flush(table)
        } else if let Some(table) = command.event {
            no_shadows(table)?;
            Self::Event(table)
        } else if command.stats {
            Self::Stats
        } else {
            Self::List(command.list.unwrap_or(TableArg::Conntrack))
        };
        if args.timeout.is_some() && !is_update {
            return Err(usage("`-t` goes with `-U`"));
        }
        if changes_labels(args) && !is_update {
            return Err(usage("`--label-add` and `--label-del` go with `-U`"));
        }
        if action == Self::Event(TableArg::Expect) && !args.event_mask.is_empty() {
            return Err(usage("`-e` is for events of flows"));
        }
        if !matches!(action, Self::Event(_)) && (!args.event_mask.is_empty() || args.buffer_size.is_some()) {
            return Err(usage("`-e` and `-b` go with `-E`"));
        }
        action.check_filter(&args.filter)?;
        Ok(action)
    }

    fn check_filter(self, filter: &FilterArgs) -> Result<(), CliError> {
        let only_family = FilterArgs { family: filter.family, ..FilterArgs::default() };
        match self {
            Self::Flush(TableArg::Conntrack) if *filter != FilterArgs::default() => {
                Err(usage("`-F` deletes all flows; to delete some of them say `-D`"))
            }
            Self::Flush(TableArg::Expect) if *filter != FilterArgs::default() => {
                Err(usage("`-F expect` deletes all expectations"))
            }
            Self::Stats if *filter != FilterArgs::default() => Err(usage("`-S` takes no filter")),
            Self::List(TableArg::Expect) | Self::Count(TableArg::Expect) | Self::Event(TableArg::Expect)
                if *filter != only_family =>
            {
                Err(usage("expectations are filtered by family (`-f`) only"))
            }
            Self::Update { mark: None, labels: false, timeout_secs: None } => Err(usage(
                "`-U` needs something to set: a mark (`-m`), labels (`--label-add`, `--label-del`) or a timer (`-t`)",
            )),
            Self::Update { .. } if !filter.status.is_empty() => {
                Err(usage("`-U` cannot set a status: what a flow has seen is for its packets to say"))
            }
            Self::Get => needs_a_tuple(filter),
            _ => Ok(()),
        }
    }
}

/// `dying` and `unconfirmed` can only be listed.
fn no_shadows(table: TableArg) -> Result<(), CliError> {
    match table {
        TableArg::Conntrack | TableArg::Expect => Ok(()),
        TableArg::Dying | TableArg::Unconfirmed => {
            Err(usage("that cannot be done with the tables `dying` and `unconfirmed`"))
        }
    }
}

fn only_flows(command: &str, table: TableArg) -> Result<(), CliError> {
    no_shadows(table)?;
    match table {
        TableArg::Expect => Err(CliError::Unsupported(format!(
            "`{command} expect` is not supported: an expectation lasts as long as the flow that announced it, or until \
             all are flushed (`-F expect`)"
        ))),
        _ => Ok(()),
    }
}

/// What conntrack can do and we cannot.
fn refuse(args: &FlowsArgs) -> Result<(), CliError> {
    let command = &args.command;
    let RefusedArgs { zero, secmark } = &args.refused;
    let no_create = "is not supported: a flow begins with a packet that the rules accept";
    let refused = [
        (command.create.is_some(), "-I", no_create),
        (command.add.is_some(), "-A", no_create),
        (command.load_file.is_some(), "-R", no_create),
        (*zero, "-z", "is not supported: rules with `-m connbytes` go by what flows have counted"),
        (secmark.is_some(), "-c", "is not supported: flows have no security marks"),
    ];
    match refused.into_iter().find(|(given, ..)| *given) {
        Some((_, name, why)) => Err(CliError::Unsupported(format!("`{name}` {why}"))),
        None => Ok(()),
    }
}

const fn changes_labels(args: &FlowsArgs) -> bool {
    !args.label_add.is_empty() || args.label_del.is_some()
}

/// `-G` names one flow.
fn needs_a_tuple(filter: &FilterArgs) -> Result<(), CliError> {
    let Some(proto) = filter.proto else { return Err(usage("`-G` needs `-p`")) };
    if filter.src.is_none() || filter.dst.is_none() {
        return Err(usage("`-G` needs `-s` and `-d`"));
    }
    let whole =
        |net: Option<Net>| net.is_none_or(|net| net.bits() == if net.addr().is_ipv4() { 32 } else { 128 });
    if !whole(filter.src) || !whole(filter.dst) {
        return Err(usage("`-G` shows one flow: `-s` and `-d` must be addresses"));
    }
    match proto {
        6 | 17 | 132 | 136 if filter.sport.is_none() || filter.dport.is_none() => {
            Err(usage("`-G` needs `--sport` and `--dport`"))
        }
        1 | 58 if filter.icmp_type.is_none() || filter.icmp_code.is_none() || filter.icmp_id.is_none() => {
            Err(usage("`-G` needs `--icmp-type`, `--icmp-code` and `--icmp-id`"))
        }
        _ => Ok(()),
    }
}

/// An address with the bits of it that a mask says count.
fn masked(net: Option<Net>, mask: Option<IpAddr>, option: &str) -> Result<Option<Net>, CliError> {
    let (Some(net), Some(mask)) = (net, mask) else { return Ok(net) };
    let wrong = || usage(format!("`--{option} {mask}` is no netmask for {}", net.addr()));
    let (ones, all, zeros) = match (net.addr(), mask) {
        (IpAddr::V4(_), IpAddr::V4(mask)) => {
            (mask.to_bits().leading_ones(), 32, mask.to_bits().count_zeros())
        }
        (IpAddr::V6(_), IpAddr::V6(mask)) => {
            (mask.to_bits().leading_ones(), 128, mask.to_bits().count_zeros())
        }
        _ => return Err(wrong()),
    };
    if ones + zeros != all {
        return Err(wrong());
    }
    format!("{}/{ones}", net.addr()).parse().map(Some).map_err(usage)
}

/// The filter that the arguments describe.
///
/// # Errors
/// When they contradict each other.
pub(super) fn filter(args: &FilterArgs) -> Result<FlowFilter, CliError> {
    let src = masked(args.src, args.mask_src, "mask-src")?;
    let dst = masked(args.dst, args.mask_dst, "mask-dst")?;
    let family = args.family.map(Family::from);
    let named =
        [src, dst, args.reply_src, args.reply_dst].into_iter().flatten().map(|net| net.addr().is_ipv6());
    let mut families = family.map(|family| family == Family::V6).into_iter().chain(named);
    if let Some(first) = families.next()
        && families.any(|other| other != first)
    {
        return Err(usage("mismatched address family"));
    }
    let has = |status| args.status.contains(&status);
    if has(StatusArg::SrcNat) || has(StatusArg::DstNat) {
        return Err(usage("to look for translated flows say `--src-nat` or `--dst-nat`"));
    }
    if has(StatusArg::Unset) {
        return Err(usage("`-u UNSET` cannot be looked for: say UNREPLIED"));
    }
    if has(StatusArg::SeenReply) && has(StatusArg::Unreplied) {
        return Err(usage("no flow is both SEEN_REPLY and UNREPLIED"));
    }
    let never = [StatusArg::FixedTimeout, StatusArg::Offload, StatusArg::HwOffload].into_iter().any(has);
    let translated = args.src_nat.is_some() || args.dst_nat.is_some() || args.any_nat.is_some();
    let seen_reply = has(StatusArg::SeenReply).then_some(true).or(has(StatusArg::Unreplied).then_some(false));
    Ok(FlowFilter {
        family: family.map(Family::number),
        proto: args.proto,
        src,
        dst,
        reply_src: args.reply_src,
        reply_dst: args.reply_dst,
        sport: args.sport,
        dport: args.dport,
        reply_sport: args.reply_port_src,
        reply_dport: args.reply_port_dst,
        icmp_type: args.icmp_type,
        icmp_code: args.icmp_code,
        icmp_id: args.icmp_id,
        state: args.state.clone(),
        assured: has(StatusArg::Assured).then_some(true),
        seen_reply,
        expected: has(StatusArg::Expected).then_some(true),
        mark: args.mark,
        label: (!args.label.is_empty()).then(|| args.label.join(",")),
        zone: args.zone,
        orig_zone: args.orig_zone,
        reply_zone: args.reply_zone,
        never: never || translated,
    })
}

/// The filter as the query part of a URL, with its `?`; empty if nothing is filtered.
pub(in crate::cli) fn query(filter: &impl serde::Serialize) -> String {
    // A filter is a flat object of numbers, switches and texts, which are exactly the parameters of the URL.
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(filter) else { return String::new() };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(text) => format!("{name}={}", percent_encode(text)),
            other => format!("{name}={other}"),
        })
        .collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Everything but RFC 3986's unreserved characters as `%XX`.
pub(in crate::cli) fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
