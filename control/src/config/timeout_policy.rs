//! Timeout policies as nfct(8) adds them: `NAME inet tcp established 3600 close 5`, with or without the words
//! `nfct add timeout` before. Pure.

use super::names::nearest;
use dataplane::flow::{TIMEOUT_MAX_SECS, TimeoutPolicy};
use dataplane::packet::{Family, proto};
use std::fmt::Write as _;
use std::ops::Range;

/// Longest name the kernel takes (`CTNL_TIMEOUT_NAME_MAX`, with its end).
const NAME_LEN_MAX: usize = 31;

/// A protocol's name, its number (`None`: all without a tracker of their own), and for each of its states the setting
/// that holds its timeout.
struct Protocol {
    name: &'static str,
    number: Option<u8>,
    states: &'static [(&'static str, &'static str)],
}

const PROTOCOLS: &[Protocol] = &[
    Protocol {
        name: "tcp",
        number: Some(proto::TCP),
        states: &[
            ("syn_sent", "tcp_timeout_syn_sent"),
            ("syn_recv", "tcp_timeout_syn_recv"),
            ("established", "tcp_timeout_established"),
            ("fin_wait", "tcp_timeout_fin_wait"),
            ("close_wait", "tcp_timeout_close_wait"),
            ("last_ack", "tcp_timeout_last_ack"),
            ("time_wait", "tcp_timeout_time_wait"),
            ("close", "tcp_timeout_close"),
            ("syn_sent2", "tcp_timeout_syn_sent2"),
            ("retrans", "tcp_timeout_max_retrans"),
            ("unacknowledged", "tcp_timeout_unacknowledged"),
        ],
    },
    Protocol { name: "udp", number: Some(proto::UDP), states: DATAGRAMS },
    Protocol { name: "udplite", number: Some(proto::UDPLITE), states: DATAGRAMS },
    Protocol { name: "icmp", number: Some(proto::ICMP), states: &[("timeout", "icmp_timeout")] },
    Protocol { name: "icmpv6", number: Some(proto::ICMPV6), states: &[("timeout", "icmpv6_timeout")] },
    Protocol {
        name: "gre",
        number: Some(proto::GRE),
        states: &[("unreplied", "gre_timeout"), ("replied", "gre_timeout_stream")],
    },
    Protocol {
        name: "sctp",
        number: Some(proto::SCTP),
        states: &[
            ("closed", "sctp_timeout_closed"),
            ("cookie_wait", "sctp_timeout_cookie_wait"),
            ("cookie_echoed", "sctp_timeout_cookie_echoed"),
            ("established", "sctp_timeout_established"),
            ("shutdown_sent", "sctp_timeout_shutdown_sent"),
            ("shutdown_recd", "sctp_timeout_shutdown_recd"),
            ("shutdown_ack_sent", "sctp_timeout_shutdown_ack_sent"),
            ("heartbeat_sent", "sctp_timeout_heartbeat_sent"),
        ],
    },
    Protocol { name: "generic", number: None, states: &[("timeout", "generic_timeout")] },
];

const DATAGRAMS: &[(&str, &str)] = &[("unreplied", "udp_timeout"), ("replied", "udp_timeout_stream")];

const FAMILIES: &[(&str, Family)] = &[("inet", Family::V4), ("inet6", Family::V6)];

/// What is wrong, where in the text, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) span: Range<usize>,
    pub(super) why: String,
    pub(super) hint: Option<String>,
}

fn fault(span: Range<usize>, why: impl Into<String>) -> Fault {
    Fault { span, why: why.into(), hint: None }
}

/// A word that should be one of some names.
fn unknown(word: &Word<'_>, what: &str, names: impl Iterator<Item = &'static str> + Clone) -> Fault {
    let hint = match nearest(word.text, names.clone()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("one of {}", names.collect::<Vec<_>>().join(", ")),
    };
    Fault { hint: Some(hint), ..fault(word.span.clone(), format!("`{}` is no {what}", word.text)) }
}

struct Word<'a> {
    text: &'a str,
    span: Range<usize>,
}

fn words(text: &str) -> Vec<Word<'_>> {
    let place = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
    text.split_whitespace()
        .map(|part| Word { text: part, span: place(part)..place(part) + part.len() })
        .collect()
}

/// Reads a policy.
pub(super) fn parse(text: &str) -> Result<TimeoutPolicy, Fault> {
    let all = words(text);
    let texts: Vec<&str> = all.iter().map(|word| word.text).collect();
    let skip = match texts[..] {
        ["nfct", "add", "timeout", ..] | ["nfct", "timeout", "add", ..] => 3,
        _ => 0,
    };
    let [name, family, protocol, timeouts @ ..] = &all[skip..] else {
        let why = "a timeout policy has a name, a family, a protocol and its timeouts";
        let hint = Some("for example \"slow inet tcp established 3600 close 5\"".to_owned());
        return Err(Fault { hint, ..fault(0..text.len(), why) });
    };
    if name.text.len() > NAME_LEN_MAX {
        return Err(fault(name.span.clone(), format!("names have at most {NAME_LEN_MAX} characters")));
    }
    let (_, family) = FAMILIES
        .iter()
        .find(|(known, _)| *known == family.text)
        .ok_or_else(|| unknown(family, "family", FAMILIES.iter().map(|(known, _)| *known)))?;
    let known = PROTOCOLS
        .iter()
        .find(|known| known.name == protocol.text)
        .ok_or_else(|| unknown(protocol, "protocol", PROTOCOLS.iter().map(|known| known.name)))?;
    let timeouts = timeouts.chunks(2).map(|pair| timeout(known, pair)).collect::<Result<_, _>>()?;
    Ok(TimeoutPolicy { name: name.text.to_owned(), family: *family, proto: known.number, timeouts })
}

fn timeout(protocol: &Protocol, pair: &[Word<'_>]) -> Result<(&'static str, u32), Fault> {
    let state = &pair[0];
    let named = protocol.states.iter().find(|(known, _)| state.text.eq_ignore_ascii_case(known));
    let (_, setting) = named.ok_or_else(|| {
        unknown(
            state,
            &format!("state of {}", protocol.name),
            protocol.states.iter().map(|(known, _)| *known),
        )
    })?;
    let [_, secs] = pair else {
        return Err(fault(state.span.clone(), format!("`{}` lacks its seconds", state.text)));
    };
    match secs.text.parse::<u32>() {
        Ok(number) if (1..=TIMEOUT_MAX_SECS).contains(&number) => Ok((setting, number)),
        _ => Err(fault(
            secs.span.clone(),
            format!("`{}` is no number of seconds from 1 to {TIMEOUT_MAX_SECS}", secs.text),
        )),
    }
}

/// The policy as [`parse`] reads it.
pub(super) fn print(policy: &TimeoutPolicy) -> String {
    let TimeoutPolicy { name, family, proto, timeouts } = policy;
    let family = FAMILIES.iter().find(|(_, known)| known == family).map_or("", |(name, _)| name);
    let protocol = PROTOCOLS.iter().find(|known| known.number == *proto);
    let mut out = format!("{name} {family} {}", protocol.map_or("", |known| known.name));
    for (setting, secs) in timeouts {
        let states = protocol.map_or(&[][..], |known| known.states);
        let state = states.iter().find(|(_, known)| known == setting).map_or("", |(state, _)| state);
        let _ = write!(out, " {state} {secs}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::flow::{Policies, TrackSettings};

    #[test]
    fn every_protocol_and_state_is_read_printed_and_has_its_setting() {
        for protocol in PROTOCOLS {
            let mut text = format!("a-name inet6 {}", protocol.name);
            protocol.states.iter().for_each(|(state, _)| text += &format!(" {state} 7"));
            let policy = parse(&text).unwrap();
            assert_eq!((policy.proto, policy.family), (protocol.number, Family::V6));
            assert_eq!(print(&policy), text);
            let policies = Policies::new([policy].into(), &TrackSettings::default()).unwrap();
            let changed = policies.settings()[0].iter().filter(|(_, value)| *value == 7).count();
            assert_eq!(changed, protocol.states.len(), "{text}");
        }
        let policy = parse("nfct add timeout x inet tcp ESTABLISHED 100").unwrap();
        assert_eq!(print(&policy), "x inet tcp established 100");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, at, why) in [
            ("x inet", 0..6, "a timeout policy has a name, a family, a protocol and its timeouts"),
            ("x ipv4 tcp", 2..6, "`ipv4` is no family"),
            ("x inet tpc", 7..10, "`tpc` is no protocol"),
            ("x inet udp established 5", 11..22, "`established` is no state of udp"),
            ("x inet tcp close", 11..16, "`close` lacks its seconds"),
            ("x inet tcp close 0", 17..18, "`0` is no number of seconds from 1 to 20000000"),
        ] {
            let fault = parse(text).unwrap_err();
            assert_eq!((fault.span, fault.why.as_str()), (at, why));
        }
    }
}
