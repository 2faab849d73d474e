//! The match extensions: which options each has, what they mean, how they are written.
//!
//! Adding one is a variant of [`Kind`], a row in each table and a `finish` of its own.

use super::diagnostics::Reporter;
use super::lexer::{Word, quoted};
use super::names;
use dataplane::packet::{Family, proto};
use dataplane::rules::model::{CtState, CtStateSet, Match, PortSide};
use std::ops::Range;

/// A match extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Sctp,
    Multiport,
    Icmp,
    Conntrack,
    State,
    Comment,
}

/// An option of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OptionSpec {
    /// Long name, without dashes.
    pub(super) name: &'static str,
    /// What it is; equal for synonyms.
    pub(super) id: Opt,
    /// Words it takes.
    pub(super) values: usize,
}

/// What an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opt {
    SrcPort,
    DstPort,
    TcpFlags,
    Syn,
    SrcPorts,
    DstPorts,
    AnyPorts,
    IcmpType,
    States,
    Comment,
    RejectWith,
    /// iptables has it, we do not.
    Unsupported,
}

const fn opt(name: &'static str, id: Opt, values: usize) -> OptionSpec {
    OptionSpec { name, id, values }
}

const TRANSPORT: [OptionSpec; 4] = [
    opt("source-port", Opt::SrcPort, 1),
    opt("sport", Opt::SrcPort, 1),
    opt("destination-port", Opt::DstPort, 1),
    opt("dport", Opt::DstPort, 1),
];
const TCP: [OptionSpec; 7] = [
    TRANSPORT[0],
    TRANSPORT[1],
    TRANSPORT[2],
    TRANSPORT[3],
    opt("tcp-flags", Opt::TcpFlags, 2),
    opt("syn", Opt::Syn, 0),
    opt("tcp-option", Opt::Unsupported, 1),
];
const SCTP: [OptionSpec; 5] =
    [TRANSPORT[0], TRANSPORT[1], TRANSPORT[2], TRANSPORT[3], opt("chunk-types", Opt::Unsupported, 2)];
const MULTIPORT: [OptionSpec; 5] = [
    opt("source-ports", Opt::SrcPorts, 1),
    opt("sports", Opt::SrcPorts, 1),
    opt("destination-ports", Opt::DstPorts, 1),
    opt("dports", Opt::DstPorts, 1),
    opt("ports", Opt::AnyPorts, 1),
];
const ICMP: [OptionSpec; 1] = [opt("icmp-type", Opt::IcmpType, 1)];
const ICMPV6: [OptionSpec; 1] = [opt("icmpv6-type", Opt::IcmpType, 1)];
const CONNTRACK: [OptionSpec; 13] = [
    opt("ctstate", Opt::States, 1),
    opt("ctproto", Opt::Unsupported, 1),
    opt("ctorigsrc", Opt::Unsupported, 1),
    opt("ctorigdst", Opt::Unsupported, 1),
    opt("ctreplsrc", Opt::Unsupported, 1),
    opt("ctrepldst", Opt::Unsupported, 1),
    opt("ctorigsrcport", Opt::Unsupported, 1),
    opt("ctorigdstport", Opt::Unsupported, 1),
    opt("ctreplsrcport", Opt::Unsupported, 1),
    opt("ctrepldstport", Opt::Unsupported, 1),
    opt("ctstatus", Opt::Unsupported, 1),
    opt("ctexpire", Opt::Unsupported, 1),
    opt("ctdir", Opt::Unsupported, 1),
];
const STATE: [OptionSpec; 1] = [opt("state", Opt::States, 1)];
const COMMENT: [OptionSpec; 1] = [opt("comment", Opt::Comment, 1)];

impl Kind {
    /// The extension of this name.
    pub(super) fn named(name: &str, family: Family) -> Option<Self> {
        Some(match (name, family) {
            ("tcp", _) => Self::Tcp,
            ("udp", _) => Self::Udp,
            ("sctp", _) => Self::Sctp,
            ("multiport", _) => Self::Multiport,
            ("icmp", Family::V4) | ("icmp6" | "icmpv6" | "ipv6-icmp", Family::V6) => Self::Icmp,
            ("conntrack", _) => Self::Conntrack,
            ("state", _) => Self::State,
            ("comment", _) => Self::Comment,
            _ => return None,
        })
    }

    /// The extension that `-p` brings along for its protocol.
    pub(super) const fn of_protocol(protocol: u8, family: Family) -> Option<Self> {
        match (protocol, family) {
            (proto::TCP, _) => Some(Self::Tcp),
            (proto::UDP, _) => Some(Self::Udp),
            (proto::SCTP, _) => Some(Self::Sctp),
            (proto::ICMP, Family::V4) | (proto::ICMPV6, Family::V6) => Some(Self::Icmp),
            _ => None,
        }
    }

    /// The protocol it looks into.
    const fn protocol(self, family: Family) -> Option<u8> {
        match self {
            Self::Tcp => Some(proto::TCP),
            Self::Udp => Some(proto::UDP),
            Self::Sctp => Some(proto::SCTP),
            Self::Icmp => Some(names::icmp_proto(family)),
            _ => None,
        }
    }

    pub(super) const fn options(self, family: Family) -> &'static [OptionSpec] {
        match (self, family) {
            (Self::Tcp, _) => &TCP,
            (Self::Udp, _) => &TRANSPORT,
            (Self::Sctp, _) => &SCTP,
            (Self::Multiport, _) => &MULTIPORT,
            (Self::Icmp, Family::V4) => &ICMP,
            (Self::Icmp, Family::V6) => &ICMPV6,
            (Self::Conntrack, _) => &CONNTRACK,
            (Self::State, _) => &STATE,
            (Self::Comment, _) => &COMMENT,
        }
    }

    const fn name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Tcp, _) => "tcp",
            (Self::Udp, _) => "udp",
            (Self::Sctp, _) => "sctp",
            (Self::Multiport, _) => "multiport",
            (Self::Icmp, Family::V4) => "icmp",
            (Self::Icmp, Family::V6) => "icmp6",
            (Self::Conntrack, _) => "conntrack",
            (Self::State, _) => "state",
            (Self::Comment, _) => "comment",
        }
    }
}

/// An option as it was given.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) spec: OptionSpec,
    pub(super) invert: bool,
    pub(super) values: Vec<Word>,
    pub(super) span: Range<usize>,
}

/// An extension as it was asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    pub(super) span: Range<usize>,
    pub(super) given: Vec<Given>,
}

/// An extension understood.
#[derive(Clone, Debug, Default)]
pub(super) struct Understood {
    pub(super) conditions: Vec<Match>,
    /// As iptables-save writes it.
    pub(super) canonical: String,
    /// As `iptables -L` writes it.
    pub(super) listed: String,
}

/// What the rest of the rule says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context {
    pub(super) family: Family,
    /// `-p`, unless negated or `all`.
    pub(super) protocol: Option<u8>,
}

impl Asked {
    /// What it means. `None` after reporting what is wrong.
    pub(super) fn understand(&self, context: Context, report: &mut Reporter<'_>) -> Option<Understood> {
        for (index, given) in self.given.iter().enumerate() {
            if given.spec.id == Opt::Unsupported {
                report.unsupported(&given.span, format!("`--{}` is not supported yet", given.spec.name), None);
                return None;
            }
            if self.given[..index].iter().any(|earlier| earlier.spec.id == given.spec.id) {
                report.error(&given.span, format!("`--{}` is given twice", given.spec.name), None);
                return None;
            }
        }
        if let Some(wanted) = self.kind.protocol(context.family).filter(|wanted| context.protocol != Some(*wanted)) {
            let name = names::protocol_name(wanted);
            let message = format!("match `{}` needs `-p {name}`", self.kind.name(context.family));
            report.error(&self.span, message, Some(format!("add `-p {name}` before it")));
            return None;
        }
        match self.kind {
            Kind::Tcp | Kind::Udp | Kind::Sctp => self.transport(context, report),
            Kind::Multiport => self.multiport(context, report),
            Kind::Icmp => self.icmp(context, report),
            Kind::Conntrack | Kind::State => self.states(context, report),
            Kind::Comment => self.comment(report),
        }
    }

    fn get(&self, id: Opt) -> Option<&Given> {
        self.given.iter().find(|given| given.spec.id == id)
    }

    /// The option that the extension cannot do without.
    fn required(&self, id: Opt, context: Context, report: &mut Reporter<'_>) -> Option<&Given> {
        let found = self.get(id);
        if found.is_none() {
            let name = self.kind.options(context.family).iter().find(|spec| spec.id == id).map_or("", |spec| spec.name);
            let extension = self.kind.name(context.family);
            report.error(&self.span, format!("match `{extension}` needs `--{name}`"), None);
        }
        found
    }

    fn transport(&self, context: Context, report: &mut Reporter<'_>) -> Option<Understood> {
        let name = self.kind.name(context.family);
        let mut understood =
            Understood { conditions: Vec::new(), canonical: format!("-m {name}"), listed: name.to_owned() };
        for (id, side, option, short) in
            [(Opt::SrcPort, PortSide::Src, "sport", "spt"), (Opt::DstPort, PortSide::Dst, "dport", "dpt")]
        {
            let Some(given) = self.get(id) else { continue };
            let range = port_range(given.values.first()?, context.protocol?, report)?;
            understood.conditions.push(Match::Ports { which: side, ranges: vec![range], invert: given.invert });
            if range == (0, u16::MAX) && !given.invert {
                continue;
            }
            let (bang, mark) = if given.invert { ("! ", "!") } else { ("", "") };
            let plural = if range.0 == range.1 { "" } else { "s" };
            let range = written_range(range);
            understood.canonical += &format!(" {bang}--{option} {range}");
            understood.listed += &format!(" {short}{plural}:{mark}{range}");
        }
        for given in self.given.iter().filter(|given| matches!(given.spec.id, Opt::TcpFlags | Opt::Syn)) {
            let (mask, comp) = match given.values.as_slice() {
                [mask, comp] => (tcp_flags(mask, report)?, tcp_flags(comp, report)?),
                _ => (0x17, 0x02),
            };
            let invert = given.invert;
            understood.conditions.push(Match::TcpFlags { mask, comp, invert });
            let (bang, mark) = if invert { ("! ", "!") } else { ("", "") };
            understood.canonical += &format!(" {bang}--tcp-flags {} {}", flag_names(mask), flag_names(comp));
            understood.listed += &format!(" flags:{mark}{mask:#04X}/{comp:#04X}").replace("0X", "0x");
        }
        if understood.conditions.is_empty() {
            // The extension alone already asks for a header to look into, which later fragments have not.
            let ranges = vec![(0, u16::MAX)];
            understood.conditions.push(Match::Ports { which: PortSide::Dst, ranges, invert: false });
        }
        Some(understood)
    }

    fn multiport(&self, context: Context, report: &mut Reporter<'_>) -> Option<Understood> {
        let with_ports = [proto::TCP, proto::UDP, proto::UDPLITE, proto::SCTP];
        let Some(protocol) = context.protocol.filter(|protocol| with_ports.contains(protocol)) else {
            let message = "match `multiport` needs `-p tcp`, `-p udp`, `-p udplite` or `-p sctp`";
            report.error(&self.span, message, None);
            return None;
        };
        let [given] = self.given.as_slice() else {
            let message = "match `multiport` needs exactly one of `--sports`, `--dports` and `--ports`";
            report.error(&self.span, message, Some("use `-m multiport` once for each".to_owned()));
            return None;
        };
        let (which, option) = match given.spec.id {
            Opt::SrcPorts => (PortSide::Src, "sports"),
            Opt::DstPorts => (PortSide::Dst, "dports"),
            _ => (PortSide::Either, "ports"),
        };
        let list = given.values.first()?;
        let mut ranges = Vec::new();
        for part in list.text.split(',') {
            let part = Word { text: part.to_owned(), ..list.clone() };
            ranges.push(port_range(&part, protocol, report)?);
        }
        let slots: usize = ranges.iter().map(|range| if range.0 == range.1 { 1 } else { 2 }).sum();
        if slots > 15 {
            let message = format!("{slots} ports in one `multiport`, but 15 is the limit (a range counts twice)");
            report.error(&list.span, message, Some("split the rule".to_owned()));
            return None;
        }
        let written: Vec<String> = ranges.iter().map(|range| written_range(*range)).collect();
        let written = written.join(",");
        let invert = given.invert;
        let (bang, mark) = if invert { ("! ", " !") } else { ("", "") };
        Some(Understood {
            conditions: vec![Match::Ports { which, ranges, invert }],
            canonical: format!("-m multiport {bang}--{option} {written}"),
            listed: format!("multiport {option} {mark}{written}"),
        })
    }

    fn icmp(&self, context: Context, report: &mut Reporter<'_>) -> Option<Understood> {
        let given = self.required(Opt::IcmpType, context, report)?;
        let word = given.values.first()?;
        let Some((ty, codes)) = icmp_type(&word.text, context.family) else {
            let message = format!("`{}` is no ICMP type", word.text);
            let hint = format!("`{} -p icmp -h` lists the names; numbers are TYPE or TYPE/CODE", super::text::command(context.family));
            report.error(&word.span, message, Some(hint));
            return None;
        };
        let single = (codes.0 == codes.1).then_some(codes.0);
        let written = match (ty, single) {
            (None, _) => "any".to_owned(),
            (Some(ty), None) => ty.to_string(),
            (Some(ty), Some(code)) => format!("{ty}/{code}"),
        };
        let (prefix, option, extension) = match context.family {
            Family::V4 => ("icmp", "icmp-type", "icmp"),
            Family::V6 => ("ipv6-icmp", "icmpv6-type", "icmp6"),
        };
        let invert = given.invert;
        let mut listed = if invert { format!("{prefix} !type ") } else { format!("{prefix}type ") };
        listed += &ty.unwrap_or(255).to_string();
        if let Some(code) = single {
            listed += &format!(" code {code}");
        }
        let bang = if invert { "! " } else { "" };
        Some(Understood {
            conditions: vec![Match::Icmp { ty, codes, invert }],
            canonical: format!("-m {extension} {bang}--{option} {written}"),
            listed,
        })
    }

    fn states(&self, context: Context, report: &mut Reporter<'_>) -> Option<Understood> {
        let given = self.required(Opt::States, context, report)?;
        let word = given.values.first()?;
        let mut states = CtStateSet::default();
        for part in word.text.split(',') {
            match ct_state(part) {
                Some(StateName::State(state)) => states = states.with(state),
                Some(StateName::Nat) if self.kind == Kind::Conntrack => {
                    let message = format!("connection state `{part}` needs NAT, which is not supported yet");
                    report.unsupported(&word.span, message, None);
                    return None;
                }
                _ => {
                    let hint = "the states are NEW, ESTABLISHED, RELATED, INVALID and UNTRACKED".to_owned();
                    report.error(&word.span, format!("`{part}` is no connection state"), Some(hint));
                    return None;
                }
            }
        }
        let written: Vec<&str> =
            WRITTEN_ORDER.iter().filter(|state| states.contains(**state)).map(|state| state.name()).collect();
        let written = written.join(",");
        let invert = given.invert;
        let (extension, option) =
            if self.kind == Kind::State { ("state", "state") } else { ("conntrack", "ctstate") };
        let bang = if invert { "! " } else { "" };
        Some(Understood {
            conditions: vec![Match::CtState { states, invert }],
            canonical: format!("-m {extension} {bang}--{option} {written}"),
            listed: format!("{bang}{option} {written}"),
        })
    }

    fn comment(&self, report: &mut Reporter<'_>) -> Option<Understood> {
        let context = Context { family: Family::V4, protocol: None };
        let given = self.required(Opt::Comment, context, report)?;
        let word = given.values.first()?;
        if given.invert {
            report.error(&given.span, "a comment cannot be negated", None);
            return None;
        }
        if word.text.len() > 256 {
            report.error(&word.span, "a comment has at most 256 bytes", None);
            return None;
        }
        Some(Understood {
            conditions: Vec::new(),
            canonical: format!("-m comment --comment {}", quoted(&word.text)),
            listed: format!("/* {} */", word.text),
        })
    }
}

/// The order in which iptables-save writes states.
const WRITTEN_ORDER: [CtState; 5] =
    [CtState::Invalid, CtState::New, CtState::Related, CtState::Established, CtState::Untracked];

enum StateName {
    State(CtState),
    Nat,
}

/// A connection state by name; iptables takes any beginning of one, in any case.
fn ct_state(name: &str) -> Option<StateName> {
    let upper = name.to_ascii_uppercase();
    let order = [CtState::Invalid, CtState::New, CtState::Established, CtState::Related, CtState::Untracked];
    let known = order.into_iter().find(|state| !upper.is_empty() && state.name().starts_with(&upper));
    let nat = ["SNAT", "DNAT"].iter().any(|nat| !upper.is_empty() && nat.starts_with(&upper));
    known.map(StateName::State).or_else(|| nat.then_some(StateName::Nat))
}

/// `22`, `ssh`, `1024:65535`, `:1023`, `1024:`.
fn port_range(word: &Word, protocol: u8, report: &mut Reporter<'_>) -> Option<(u16, u16)> {
    let port = |text: &str, open: u16| match text {
        "" => Some(open),
        _ => text.parse().ok().or_else(|| names::service(text, protocol)),
    };
    let range = match word.text.split_once(':') {
        None if word.text.is_empty() => None,
        None => port(&word.text, 0).map(|port| (port, port)),
        Some((low, high)) => port(low, 0).zip(port(high, u16::MAX)),
    };
    match range {
        None => {
            let message = format!("`{}` is no port", word.text);
            let hint = "ports are 0 to 65535, service names, or ranges LOW:HIGH".to_owned();
            report.error(&word.span, message, Some(hint));
            None
        }
        Some((low, high)) if low > high => {
            report.error(&word.span, format!("port range `{}` ends before it begins", word.text), None);
            None
        }
        range => range,
    }
}

fn written_range((low, high): (u16, u16)) -> String {
    if low == high { low.to_string() } else { format!("{low}:{high}") }
}

const FLAG_NAMES: [(&str, u8); 6] =
    [("FIN", 0x01), ("SYN", 0x02), ("RST", 0x04), ("PSH", 0x08), ("ACK", 0x10), ("URG", 0x20)];

/// `SYN,ACK`, `ALL`, `NONE`.
fn tcp_flags(word: &Word, report: &mut Reporter<'_>) -> Option<u8> {
    let mut flags = 0;
    for part in word.text.split(',') {
        let upper = part.to_ascii_uppercase();
        flags |= match upper.as_str() {
            "ALL" => 0x3f,
            "NONE" => 0,
            name => match FLAG_NAMES.iter().find(|(known, _)| *known == name) {
                Some((_, bit)) => *bit,
                None => {
                    let hint = "the flags are SYN, ACK, FIN, RST, URG, PSH, ALL and NONE".to_owned();
                    report.error(&word.span, format!("`{part}` is no TCP flag"), Some(hint));
                    return None;
                }
            },
        };
    }
    Some(flags)
}

fn flag_names(flags: u8) -> String {
    let names: Vec<&str> = FLAG_NAMES.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| *name).collect();
    if names.is_empty() { "NONE".to_owned() } else { names.join(",") }
}

/// Type (`None` for any) and codes of an ICMP type given as `any`, number, number/number or name.
fn icmp_type(text: &str, family: Family) -> Option<(Option<u8>, (u8, u8))> {
    if family == Family::V4 && (text == "any" || text == "255") {
        return Some((None, (0, 255)));
    }
    let (ty, code) = match text.split_once('/') {
        Some((ty, code)) => (ty, Some(code.parse::<u8>().ok()?)),
        None => (text, None),
    };
    if let Ok(ty) = ty.parse::<u8>() {
        return Some((Some(ty), code.map_or((0, 255), |code| (code, code))));
    }
    let (ty, codes) = names::icmp_type(ty, family).filter(|_| code.is_none())?;
    Some((Some(ty), codes))
}
