//! `-m conntrack` and `-m state`.

use std::fmt::Write as _;

use dataplane::flow::{Direction, status};
use dataplane::packet::Family;
use dataplane::rules::conn::{ConnMatch, Conntrack};
use dataplane::rules::model::{CtState, CtStateSet, Match};

use super::basic::{addresses, full_mask};
use super::ports::port;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number, part_of};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::names::{protocol_name, protocol_number};
use crate::iptables::printer::net_text;
use crate::iptables::syntax::Net;

const STATE_ID: u8 = 1;
const PROTO: u8 = 2;
/// Addresses are options 3 to 6, ports 7 to 10, in the order of [`ADDRESSES`] and [`PORTS`].
const ADDRESS: u8 = 3;
const PORT: u8 = 7;
const STATUS: u8 = 11;
const EXPIRE: u8 = 12;
const DIRECTION: u8 = 13;

const ADDRESSES: [&str; 4] = ["ctorigsrc", "ctorigdst", "ctreplsrc", "ctrepldst"];
const PORTS: [&str; 4] = ["ctorigsrcport", "ctorigdstport", "ctreplsrcport", "ctrepldstport"];

const fn option(name: &'static str, id: u8) -> OptionSpec {
    OptionSpec { name, id, slot: id, args: 1, invertible: id != DIRECTION }
}

/// `-m conntrack`.
pub static CONNTRACK: Extension = Extension {
    kind: Kind::Match,
    names: &["conntrack"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        option("ctstate", STATE_ID),
        option("ctproto", PROTO),
        option(ADDRESSES[0], ADDRESS),
        option(ADDRESSES[1], ADDRESS + 1),
        option(ADDRESSES[2], ADDRESS + 2),
        option(ADDRESSES[3], ADDRESS + 3),
        option(PORTS[0], PORT),
        option(PORTS[1], PORT + 1),
        option(PORTS[2], PORT + 2),
        option(PORTS[3], PORT + 3),
        option("ctstatus", STATUS),
        option("ctexpire", EXPIRE),
        option("ctdir", DIRECTION),
    ],
    new: |family| {
        Box::new(State { words: &CTSTATE, family, states: None, invert: false, more: Conntrack::default() })
    },
};

/// `-m state`.
pub static STATE: Extension = Extension {
    kind: Kind::Match,
    names: &["state"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[OptionSpec { name: "state", id: STATE_ID, slot: 1, args: 1, invertible: true }],
    new: |family| {
        Box::new(State {
            words: &STATE_WORDS,
            family,
            states: None,
            invert: false,
            more: Conntrack::default(),
        })
    },
};

/// How the two spellings differ.
#[derive(Debug)]
struct Words {
    module: &'static str,
    option: &'static str,
}

static CTSTATE: Words = Words { module: "conntrack", option: "ctstate" };
static STATE_WORDS: Words = Words { module: "state", option: "state" };

/// States in the order iptables prints them.
const STATES: [(&str, CtState); 5] = [
    ("INVALID", CtState::Invalid),
    ("NEW", CtState::New),
    ("RELATED", CtState::Related),
    ("ESTABLISHED", CtState::Established),
    ("UNTRACKED", CtState::Untracked),
];

#[derive(Debug)]
struct State {
    words: &'static Words,
    family: Family,
    states: Option<CtStateSet>,
    invert: bool,
    /// Whatever else is asked.
    more: Conntrack,
}

/// Status bits in the order iptables prints them. `CONFIRMED` is a connection in the table: every one that a packet
/// can be of, but not that of its first packet.
const STATUSES: [(&str, u16); 4] = [
    ("EXPECTED", status::EXPECTED),
    ("SEEN_REPLY", status::SEEN_REPLY),
    ("ASSURED", status::ASSURED),
    ("CONFIRMED", status::CONFIRMED),
];

const DIRECTIONS: [(&str, Direction); 2] = [("ORIGINAL", Direction::Orig), ("REPLY", Direction::Reply)];

const fn bang(invert: bool) -> &'static str {
    if invert { " !" } else { "" }
}

fn range_text<T: Copy + PartialEq + std::fmt::Display>(low: T, high: T) -> String {
    if low == high { low.to_string() } else { format!("{low}:{high}") }
}

impl State {
    fn names(&self) -> String {
        let set = self.states.unwrap_or_default();
        STATES
            .iter()
            .filter(|&&(_, state)| set.contains(state))
            .map(|&(name, _)| name)
            .collect::<Vec<_>>()
            .join(",")
    }

    fn set_states(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let mut set = CtStateSet::default();
        let mut from = 0;
        for item in word.text.split(',') {
            let span = part_of(word, from, from + item.len());
            from += item.len() + 1;
            let upper = item.to_ascii_uppercase();
            // iptables takes any beginning of a name; an empty item never.
            let state = STATES.iter().find(|(name, _)| !upper.is_empty() && name.starts_with(&upper));
            match state {
                Some(&(_, state)) => set = set.with(state),
                None if self.words.option == "ctstate" && (upper == "SNAT" || upper == "DNAT") => {
                    return Err(Diagnostic::unsupported(
                        span,
                        format!("`--ctstate {upper}` is not supported yet"),
                    )
                    .hint("it needs address translation, which this gateway does not do"));
                }
                None => {
                    return Err(Diagnostic::error(span, format!("bad connection state `{item}`"))
                        .hint("states are NEW ESTABLISHED RELATED INVALID UNTRACKED, separated by commas, no blanks"));
                }
            }
        }
        self.states = Some(set);
        self.invert = given.invert;
        Ok(())
    }

    fn set_proto(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let proto = if word.text == "all" { Some(0) } else { protocol_number(&word.text) };
        let proto = proto.ok_or_else(|| {
            Diagnostic::error(word.span, format!("unknown protocol `{}`", word.text))
                .hint("a protocol is a name or a number up to 255")
        })?;
        self.more.proto = Some((proto, given.invert));
        Ok(())
    }

    fn set_address(&mut self, which: u8, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let list = addresses(word, false, self.family)?;
        let net = match list.as_ref().map(|list| list.nets.as_slice()) {
            None => {
                return Err(Diagnostic::unsupported(word.span, "an address that matches everything")
                    .hint("leave the option out"));
            }
            Some([net]) => (net.addr, net.mask),
            Some(_) => {
                return Err(Diagnostic::error(word.span, "several addresses, where only one can stand"));
            }
        };
        let holes = full_mask(self.family) & !net.1;
        if holes & holes.wrapping_add(1) != 0 {
            return Err(Diagnostic::unsupported(word.span, "a mask that is no prefix is not supported here"));
        }
        self.more.addresses[usize::from(which)] = Some((net.0, net.1, given.invert));
        Ok(())
    }

    fn set_port(&mut self, which: u8, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let proto = self.more.proto.and_then(|(proto, _)| protocol_name(proto));
        if let Some(large) =
            word.text.split(':').find(|end| number(end, 0xffff).is_none() && number(end, u64::MAX).is_some())
        {
            return Err(Diagnostic::unsupported(word.span, format!("port {large} is beyond 65535"))
                .hint("iptables cuts it off; write the port that is meant"));
        }
        let end = |from: usize, text: &str, open: u16| {
            if text.is_empty() { Ok(open) } else { port(word, from, text, proto, given.facts.services) }
        };
        let (low, high) = match word.text.split_once(':') {
            Some((low, high)) => (end(0, low, 0)?, end(low.len() + 1, high, u16::MAX)?),
            None => {
                let port = port(word, 0, &word.text, proto, given.facts.services)?;
                (port, port)
            }
        };
        self.more.ports[usize::from(which)] = Some((low, high, given.invert));
        Ok(())
    }

    fn set_status(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let (mut bits, mut from) = (0, 0);
        for item in word.text.split(',') {
            let span = part_of(word, from, from + item.len());
            from += item.len() + 1;
            let upper = item.to_ascii_uppercase();
            let mut names = [("NONE", 0)].into_iter().chain(STATUSES);
            match names.find(|(name, _)| !upper.is_empty() && name.starts_with(&upper)) {
                Some((_, bit)) => bits |= bit,
                None => {
                    return Err(Diagnostic::error(span, format!("bad connection status `{item}`")).hint(
                        "statuses are NONE EXPECTED SEEN_REPLY ASSURED CONFIRMED, separated by commas",
                    ));
                }
            }
        }
        self.more.status = Some((bits, given.invert));
        Ok(())
    }

    fn set_expire(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let secs = |text: &str, open: u32| {
            if text.is_empty() {
                return Some(open);
            }
            number(text, u64::from(u32::MAX)).and_then(|secs| u32::try_from(secs).ok())
        };
        let (low, high) = match word.text.split_once(':') {
            Some((low, high)) => (secs(low, 0), secs(high, u32::MAX)),
            None => (secs(&word.text, 0), secs(&word.text, 0)),
        };
        let (Some(low), Some(high), false) = (low, high, word.text.is_empty()) else {
            return Err(Diagnostic::error(word.span, format!("`{}` is no time in seconds", word.text))
                .hint("write SECONDS or FROM:TO"));
        };
        self.more.expire = Some((low, high, given.invert));
        Ok(())
    }

    fn set_direction(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let found = DIRECTIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&word.text));
        let &(_, direction) = found.ok_or_else(|| {
            Diagnostic::error(word.span, format!("bad direction `{}`", word.text))
                .hint("a direction is ORIGINAL or REPLY")
        })?;
        self.more.direction = Some(direction);
        Ok(())
    }

    /// Options as both printers have them, `--` before each for iptables-save.
    fn words(&self, out: &mut String, dashes: &str) {
        if self.states.is_some() {
            let option = self.words.option;
            let _ = write!(out, "{} {dashes}{option} {}", bang(self.invert), self.names());
        }
        let Conntrack { states: _, direction, proto, addresses, ports, status, expire } = &self.more;
        if let Some((proto, invert)) = proto {
            let _ = write!(out, "{} {dashes}ctproto {proto}", bang(*invert));
        }
        for (name, asked) in ADDRESSES.iter().zip(addresses) {
            if let &Some((addr, mask, invert)) = asked {
                let text = self.address_text(addr, mask);
                let _ = write!(out, "{} {dashes}{name} {text}", bang(invert));
            }
        }
        for (name, asked) in PORTS.iter().zip(ports) {
            if let &Some((low, high, invert)) = asked {
                let _ = write!(out, "{} {dashes}{name} {}", bang(invert), range_text(low, high));
            }
        }
        if let &Some((bits, invert)) = status {
            let names: Vec<_> =
                STATUSES.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name).collect();
            let names = if names.is_empty() { "NONE".to_owned() } else { names.join(",") };
            let _ = write!(out, "{} {dashes}ctstatus {names}", bang(invert));
        }
        if let &Some((low, high, invert)) = expire {
            let _ = write!(out, "{} {dashes}ctexpire {}", bang(invert), range_text(low, high));
        }
        if let Some(direction) = direction {
            let name = DIRECTIONS[direction.index()].0;
            let _ = write!(out, " {dashes}ctdir {name}");
        }
    }

    /// A host stands without its mask.
    fn address_text(&self, addr: u128, mask: u128) -> String {
        let text = net_text(Net { addr, mask, family: self.family }, self.family == Family::V6);
        let is_host = mask == full_mask(self.family);
        match text.rsplit_once('/') {
            Some((host, _)) if is_host => host.to_owned(),
            _ => text,
        }
    }
}

impl Instance for State {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            STATE_ID => self.set_states(given),
            PROTO => self.set_proto(given),
            id @ ADDRESS..PORT => self.set_address(id - ADDRESS, given),
            id @ PORT..STATUS => self.set_port(id - PORT, given),
            STATUS => self.set_status(given),
            EXPIRE => self.set_expire(given),
            _ => self.set_direction(given),
        }
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let Words { module, option } = self.words;
        if self.states.is_none() && self.more == Conntrack::default() {
            return Err(Diagnostic::error(span, format!("`-m {module}` without a state"))
                .hint(format!("add `--{option} STATES`")));
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let _ = write!(out, " -m {}", self.words.module);
        self.words(out, "--");
    }

    fn list(&self, out: &mut String) {
        self.words(out, "");
    }

    fn lower(&self) -> Lowered {
        let states = self.states.unwrap_or_default();
        // A state alone is what nearly every rule asks; the classifier knows it.
        if self.more == Conntrack::default() {
            return Lowered::Matches(vec![Match::CtState { states, invert: self.invert }]);
        }
        let states = self.states.map(|states| (states.0, self.invert));
        let conntrack = Conntrack { states, ..self.more.clone() };
        Lowered::Matches(vec![Match::Conn(ConnMatch::Conntrack(Box::new(conntrack)))])
    }
}
