//! Conditions of rules in iptables' words, and what a packet has instead. Pure.

use super::build::FLAGS;
use crate::api::address;
use crate::iptables::names::protocol_name;
use crate::iptables::options::Lowered;
use crate::iptables::printer::net_text;
use crate::iptables::syntax;
use crate::packet_log;
use dataplane::packet::{Fragment, Packet, proto};
use dataplane::rules::conn::ConnMatch;
use dataplane::rules::explain::Seen;
use dataplane::rules::header::HeaderMatch;
use dataplane::rules::model::{Hook, Match, PortSide};
use dataplane::rules::rate::{RateMatch, RecentTask};

/// What a condition was asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The packet.
    pub(super) packet: &'a Packet,
    /// Its frame.
    pub(super) bytes: &'a [u8],
    /// Where it comes in.
    pub(super) ingress: &'a str,
    /// Where it would leave.
    pub(super) egress: &'a str,
    /// What else the rule saw.
    pub(super) seen: Seen,
}

/// A protocol's name, or its number.
pub(super) fn proto_text(number: u8) -> String {
    protocol_name(number).map_or_else(|| number.to_string(), str::to_owned)
}

/// TCP flags by name.
pub(super) fn flags_text(flags: u8) -> String {
    let set: Vec<&str> = FLAGS.iter().filter(|(_, bit)| flags & bit != 0).map(|(name, _)| *name).collect();
    if set.is_empty() { "NONE".to_owned() } else { set.join(",") }
}

/// The condition at a position of a rule's, as iptables-save prints it.
pub(super) fn condition(rule: &syntax::Rule, condition: &Match, at: usize) -> String {
    let bang = |invert: bool| if invert { "! " } else { "" };
    let net = |option: &str, list: Option<&syntax::Addresses>| {
        let net = list.and_then(|list| Some((*list.nets.first()?, list.invert)));
        net.map_or_else(String::new, |(net, invert)| {
            format!("{}{option} {}", bang(invert), net_text(net, net.family == dataplane::packet::Family::V6))
        })
    };
    match condition {
        Match::Src { .. } => net("-s", rule.src.as_ref()),
        Match::Dst { .. } => net("-d", rule.dst.as_ref()),
        Match::InIface { pattern, invert } => {
            format!("{}-i {}{}", bang(*invert), pattern.name, if pattern.prefix { "+" } else { "" })
        }
        Match::OutIface { pattern, invert } => {
            format!("{}-o {}{}", bang(*invert), pattern.name, if pattern.prefix { "+" } else { "" })
        }
        Match::Proto { proto, invert } => format!("{}-p {}", bang(*invert), proto_text(*proto)),
        Match::LaterFragment { invert } => format!("{}-f", bang(*invert)),
        Match::Ports { which: PortSide::Src, ranges, invert } if ranges.len() == 1 => {
            format!("{}--sport {}", bang(*invert), range_text(ranges[0]))
        }
        Match::Ports { which: PortSide::Dst, ranges, invert } if ranges.len() == 1 => {
            format!("{}--dport {}", bang(*invert), range_text(ranges[0]))
        }
        _ => instance_text(rule, at),
    }
}

fn range_text((low, high): (u16, u16)) -> String {
    if low == high { low.to_string() } else { format!("{low}:{high}") }
}

/// The `-m ...` that a condition comes from: each stands for some of them, in order.
fn instance_text(rule: &syntax::Rule, at: usize) -> String {
    let syntax::Rule { src, dst, in_iface, out_iface, proto, fragment, matches, .. } = rule;
    let before = [
        src.is_some(),
        dst.is_some(),
        in_iface.is_some(),
        out_iface.is_some(),
        proto.is_some(),
        fragment.is_some(),
    ];
    let mut next = before.into_iter().filter(|is_there| *is_there).count();
    for instance in matches {
        if let Lowered::Matches(conditions) = instance.lower() {
            next += conditions.len();
            if at < next {
                let mut text = String::new();
                instance.print(&mut text);
                return text.trim_start().to_owned();
            }
        }
    }
    String::new()
}

/// What the packet has instead; empty where the condition itself says all that can be said.
pub(super) fn instead(condition: &Match, asked: Asked<'_>) -> String {
    let Asked { packet, seen, .. } = asked;
    let tuple = &packet.tuple;
    match condition {
        Match::Src { .. } => format!("it comes from {}", address(tuple.src, tuple.family)),
        Match::Dst { .. } => format!("it goes to {}", address(tuple.dst, tuple.family)),
        Match::InIface { .. } if seen.hook == Hook::Postrouting => {
            "behind POSTROUTING nobody knows any more where it came in".to_owned()
        }
        Match::InIface { .. } => format!("it comes in on {}", asked.ingress),
        Match::OutIface { .. } if matches!(seen.hook, Hook::Raw | Hook::Prerouting) => {
            "in PREROUTING nobody knows yet where it will leave".to_owned()
        }
        Match::OutIface { .. } => format!("it would leave on {}", asked.egress),
        Match::Proto { .. } => format!("it is {}", proto_text(tuple.proto)),
        Match::LaterFragment { .. } => match packet.fragment {
            Fragment::Whole => "it is no fragment".to_owned(),
            Fragment::First => "it is the first fragment".to_owned(),
            Fragment::Later => "it is a later fragment".to_owned(),
        },
        Match::Ports { .. } if !has_ports(packet) => "it has no ports".to_owned(),
        Match::Ports { which: PortSide::Src, .. } => format!("its source port is {}", tuple.src_port),
        Match::Ports { which: PortSide::Dst, .. } => format!("its destination port is {}", tuple.dst_port),
        Match::Ports { which: PortSide::Either, .. } => {
            format!("its ports are {} and {}", tuple.src_port, tuple.dst_port)
        }
        Match::TcpFlags { .. } if tuple.proto != proto::TCP => "it is no TCP segment".to_owned(),
        Match::TcpFlags { .. } => format!("its flags are {}", flags_text(packet.tcp_flags)),
        Match::Icmp { .. } => format!("its type is {}, its code {}", packet.icmp_type, packet.icmp_code),
        Match::CtState { .. } => format!("it is {}", seen.state.name()),
        Match::Conn(conn) => of_conn(conn, seen),
        Match::Header(header) => of_header(header, asked),
        Match::Rate(rate) => of_rate(rate),
        Match::Set(set) if set.invert => "it is in the set".to_owned(),
        Match::Set(_) => "it is not in the set".to_owned(),
    }
}

const fn has_ports(packet: &Packet) -> bool {
    packet.has_l4 && matches!(packet.tuple.proto, proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP)
}

fn of_conn(condition: &ConnMatch, seen: Seen) -> String {
    match condition {
        ConnMatch::Mark { .. } => format!("its mark is {:#x}", seen.mark),
        ConnMatch::ConnMark { .. } => format!("its connection's mark is {:#x}", seen.conn_mark),
        ConnMatch::Conntrack(_) => format!("it is {}", seen.state.name()),
        ConnMatch::Helper { .. } => "no such helper announced its connection".to_owned(),
        ConnMatch::ConnBytes(_) => "its connection has not come to that, or has gone beyond".to_owned(),
        ConnMatch::ConnLimit(limit) if limit.upto => {
            format!("there are more than {} connections", limit.limit)
        }
        ConnMatch::ConnLimit(limit) => format!("there are no more than {} connections", limit.limit),
        ConnMatch::ConnLabel { invert, .. } => {
            format!("its connection {}", if *invert { "has it" } else { "has it not" })
        }
    }
}

fn of_header(condition: &HeaderMatch, asked: Asked<'_>) -> String {
    let Asked { packet, bytes, .. } = asked;
    let ip = bytes.get(usize::from(packet.l3_offset)..).unwrap_or_default();
    let is_six = packet.tuple.family == dataplane::packet::Family::V6;
    let byte = |at: usize| ip.get(at).copied().unwrap_or(0);
    match condition {
        HeaderMatch::Length(_) => format!("it has {} bytes", packet.l3_len),
        HeaderMatch::Hops(_) => format!("its TTL is {}", byte(if is_six { 7 } else { 8 })),
        HeaderMatch::Tos { .. } => {
            let tos = if is_six { byte(0) << 4 | byte(1) >> 4 } else { byte(1) };
            format!("its TOS is {tos:#04x}")
        }
        HeaderMatch::Mac { .. } | HeaderMatch::Eui64 => {
            format!("its source MAC address is {}", mac_text(bytes.get(6..12).unwrap_or_default()))
        }
        HeaderMatch::Address { of_dst: true, .. } | HeaderMatch::AddressType { of_dst: true, .. } => {
            format!("it goes to {}", address(packet.tuple.dst, packet.tuple.family))
        }
        HeaderMatch::Address { .. } | HeaderMatch::AddressType { .. } => {
            format!("it comes from {}", address(packet.tuple.src, packet.tuple.family))
        }
        HeaderMatch::Device(_) | HeaderMatch::Nics { .. } => {
            format!("it comes in on {} and would leave on {}", asked.ingress, asked.egress)
        }
        HeaderMatch::EcnFlag { .. } => format!("its flags are {}", flags_text(packet.tcp_flags)),
        _ => String::new(),
    }
}

fn of_rate(rate: &RateMatch) -> String {
    match rate {
        RateMatch::Limit(_) => "the limit is used up for now".to_owned(),
        RateMatch::Quota(_) => "the quota is not as that asks".to_owned(),
        RateMatch::Statistic(_) => "it is not this packet's turn".to_owned(),
        RateMatch::Hashlimit(rule) if rule.above => "its rate is not above that".to_owned(),
        RateMatch::Hashlimit(_) => "its rate is above that".to_owned(),
        RateMatch::Recent(rule) => {
            let who = if rule.by_dst { "destination" } else { "source" };
            match (rule.task, rule.invert) {
                (RecentTask::Set, _) => format!("its {who} is always taken down"),
                (_, false) => format!("its {who} is not in the list, or not so often"),
                (_, true) => format!("its {who} is in the list"),
            }
        }
        RateMatch::Time(_) => "it is not that time".to_owned(),
    }
}

/// `02:00:00:00:00:01`.
pub(super) fn mac_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// A log line as the daemon would write it.
pub(super) fn log_line(logged: &dataplane::explain::Logged, ingress: &str, egress: &str) -> String {
    use dataplane::rules::log::LogTo;
    let spec = &*logged.spec;
    match spec.to {
        LogTo::Line(style) => {
            let around = packet_log::Around {
                prefix: &spec.prefix,
                ingress: if logged.knows_ingress { ingress } else { "" },
                egress: if logged.knows_egress { egress } else { "" },
                mark: logged.mark,
            };
            let line = packet_log::line(&around, style, &logged.bytes, usize::from(logged.l3_offset));
            format!("would be logged: {line}")
        }
        LogTo::Capture { group, .. } => {
            format!("would be written to the capture file of NFLOG group {group}")
        }
    }
}
