//! `-j CT` and `-j NOTRACK`: orders to the tracker, in table raw.

use std::fmt::Write as _;

use dataplane::flow::TimeoutPolicy;
use dataplane::packet::proto;
use dataplane::rules::conn::{CtEvents, Effect, Helper, Orders, PolicyId, Zone};
use dataplane::rules::model::{self, Target};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::names::protocol_name;

const NOTRACK_ID: u8 = 1;
const HELPER: u8 = 2;
const ZONE: u8 = 3;
const ZONE_ORIG: u8 = 4;
const ZONE_REPLY: u8 = 5;
const TIMEOUT: u8 = 6;
const CTEVENTS: u8 = 7;
const EXPEVENTS: u8 = 8;

/// `--ctevents`, with their bits in [`CtEvents`].
const EVENTS: &[(&str, u16)] = &[
    ("new", 0),
    ("related", 1),
    ("destroy", 2),
    ("reply", 3),
    ("assured", 4),
    ("protoinfo", 5),
    ("helper", 6),
    ("mark", 7),
    ("natseqinfo", 8),
    ("secmark", 9),
];

/// `--expevents`.
const EXPECTATION_EVENTS: &[(&str, u16)] = &[("new", 0)];

const fn option(name: &'static str, id: u8, slot: u8, args: u8) -> OptionSpec {
    OptionSpec { name, id, slot, args, invertible: false }
}

/// `-j CT`.
pub static CT: Extension = Extension {
    kind: Kind::Target,
    names: &["CT"],
    family: None,
    protocol: None,
    repeatable: false,
    options: &[
        option("notrack", NOTRACK_ID, 1, 0),
        option("helper", HELPER, 2, 1),
        option("timeout", TIMEOUT, 6, 1),
        option("ctevents", CTEVENTS, 7, 1),
        option("expevents", EXPEVENTS, 8, 1),
        option("zone-orig", ZONE_ORIG, 3, 1),
        option("zone-reply", ZONE_REPLY, 4, 1),
        option("zone", ZONE, 5, 1),
    ],
    new: |_| Box::new(Ct { name: "CT", ..Ct::default() }),
};

/// `-j NOTRACK`.
pub static NOTRACK: Extension = Extension {
    kind: Kind::Target,
    names: &["NOTRACK"],
    family: None,
    protocol: None,
    repeatable: false,
    options: &[],
    new: |_| Box::new(Ct { name: "NOTRACK", notrack: true, ..Ct::default() }),
};

/// Helpers the kernel has and we do not.
const OTHER_HELPERS: &[&str] =
    &["RAS", "Q.931", "H.245", "amanda", "irc", "netbios-ns", "pptp", "sane", "sip", "snmp", "snmp_trap"];

#[derive(Debug, Default)]
struct Ct {
    name: &'static str,
    notrack: bool,
    helper: Option<(Helper, Span)>,
    timeout: Option<Timeout>,
    events: Option<CtEvents>,
    /// Asked for these alone, the connection's own events are none.
    expectation_events: Option<CtEvents>,
    zone: u16,
    zone_is_mark: bool,
    /// Directions named, original and reply; none is both.
    sides: (bool, bool),
}

/// `--timeout`.
#[derive(Debug)]
struct Timeout {
    name: String,
    span: Span,
    /// Found once the rule is read.
    id: Option<PolicyId>,
}

/// Protocols with a tracker of their own, and timeouts of their own with it.
const TRACKED: &[u8] =
    &[proto::TCP, proto::UDP, proto::UDPLITE, proto::ICMP, proto::ICMPV6, proto::GRE, proto::SCTP];

fn parse_events(given: &Given<'_>, known: &[(&str, u16)]) -> Result<CtEvents, Diagnostic> {
    let word = first(given)?;
    let mut events = CtEvents::default();
    for name in word.text.split(',') {
        let Some((_, bit)) = known.iter().find(|(known, _)| *known == name) else {
            let names = known.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            let message = format!("there is no event `{name}`");
            return Err(Diagnostic::error(word.span, message).hint(format!("events are {names}")));
        };
        events = events.or(CtEvents(1 << bit));
    }
    Ok(events)
}

fn event_names(events: CtEvents, known: &[(&str, u16)]) -> String {
    let names = known.iter().filter(|(_, bit)| !events.and(CtEvents(1 << bit)).is_empty());
    names.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

impl Ct {
    /// Finds its timeout policy, and whether that is for what the rule's `-p` says.
    fn find_timeout(&mut self, facts: Facts<'_>) -> Result<(), Diagnostic> {
        let Some(timeout) = &mut self.timeout else { return Ok(()) };
        let Timeout { name, span, .. } = timeout;
        let policies = facts.services.timeout_policies();
        let found = policies.iter().zip(0..).find(|(policy, _)| policy.name == *name);
        let Some((TimeoutPolicy { family, proto, .. }, id)) = found else {
            let hint =
                "they are named in the configuration, rules.timeout_policies; fwctl check --config reads it";
            return Err(Diagnostic::error(*span, format!("there is no timeout policy `{name}`")).hint(hint));
        };
        if *family != facts.family {
            let message = format!("timeout policy `{name}` is for the other IP family");
            return Err(Diagnostic::error(*span, message));
        }
        let asked = facts.proto.filter(|proto| !proto.invert && proto.number != 0).map(|proto| proto.number);
        let fits = match (asked, proto) {
            (None, _) => false,
            (Some(asked), Some(proto)) => asked == *proto,
            (Some(asked), None) => !TRACKED.contains(&asked),
        };
        if !fits {
            let needed = match proto {
                Some(number) => format!("`-p {}`", protocol_name(*number).unwrap_or_default()),
                None => "`-p` with a protocol without a tracker of its own".to_owned(),
            };
            let message = format!("timeout policy `{name}` needs {needed} in the same rule");
            return Err(Diagnostic::error(*span, message));
        }
        timeout.id = Some(PolicyId(id));
        Ok(())
    }

    fn set_helper(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        let Some(helper) = Helper::ALL.into_iter().find(|helper| helper.name() == word.text) else {
            let names = Helper::ALL.map(Helper::name).join(", ");
            let hint = match word.text.as_str() {
                "h323" => {
                    "H.323 has three, called Q.931, H.245 and RAS; none of them is supported".to_owned()
                }
                _ => format!("helpers are {names}"),
            };
            return Err(if OTHER_HELPERS.contains(&word.text.as_str()) {
                Diagnostic::unsupported(word.span, format!("helper `{}` is not supported", word.text))
                    .hint(hint)
            } else {
                Diagnostic::error(word.span, format!("there is no helper `{}`", word.text)).hint(hint)
            });
        };
        self.helper = Some((helper, word.span));
        Ok(())
    }

    fn set_zone(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let word = first(given)?;
        self.zone_is_mark = word.text == "mark";
        if !self.zone_is_mark {
            let id = number(&word.text, u64::from(u16::MAX)).and_then(|id| u16::try_from(id).ok());
            self.zone = id.ok_or_else(|| {
                Diagnostic::error(word.span, format!("`{}` is no zone", word.text))
                    .hint("a zone is a number from 0 to 65535, or `mark`")
            })?;
        }
        self.sides.0 |= given.id == ZONE_ORIG;
        self.sides.1 |= given.id == ZONE_REPLY;
        Ok(())
    }

    /// Options as both printers have them, `--` before each for iptables-save.
    fn words(&self, out: &mut String, dashes: &str) {
        if self.notrack {
            let _ = write!(out, " {dashes}notrack");
        }
        if let Some((helper, _)) = self.helper {
            let _ = write!(out, " {dashes}helper {}", helper.name());
        }
        if let Some(Timeout { name, .. }) = &self.timeout {
            let _ = write!(out, " {dashes}timeout {name}");
        }
        let expectations = self.expectation_events.map(|events| ("expevents", events, EXPECTATION_EVENTS));
        let events = self.events.map(|events| ("ctevents", events, EVENTS));
        for (option, events, known) in events.into_iter().chain(expectations) {
            let _ = write!(out, " {dashes}{option} {}", event_names(events, known));
        }
        if self.zone != 0 || self.zone_is_mark {
            let option = match self.sides {
                (true, false) => "zone-orig",
                (false, true) => "zone-reply",
                _ => "zone",
            };
            let zone = if self.zone_is_mark { "mark".to_owned() } else { self.zone.to_string() };
            let _ = write!(out, " {dashes}{option} {zone}");
        }
    }
}

impl Instance for Ct {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            NOTRACK_ID => self.notrack = true,
            HELPER => self.set_helper(given)?,
            TIMEOUT => {
                let word = first(given)?;
                self.timeout = Some(Timeout { name: word.text.clone(), span: word.span, id: None });
            }
            CTEVENTS => self.events = Some(parse_events(given, EVENTS)?),
            EXPEVENTS => self.expectation_events = Some(parse_events(given, EXPECTATION_EVENTS)?),
            _ => self.set_zone(given)?,
        }
        Ok(())
    }

    fn finish(&mut self, facts: Facts<'_>, _span: Span) -> Result<(), Diagnostic> {
        if self.notrack {
            // The kernel looks at nothing else then.
            return Ok(());
        }
        self.find_timeout(facts)?;
        let Some((helper, span)) = self.helper else { return Ok(()) };
        let fits = facts.proto.is_some_and(|proto| proto.number == helper.proto() && !proto.invert);
        if !fits {
            let proto = protocol_name(helper.proto()).unwrap_or_default();
            let message = format!("helper `{}` needs `-p {proto}` in the same rule", helper.name());
            return Err(Diagnostic::error(span, message));
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let _ = write!(out, " -j {}", self.name);
        if self.name == "CT" {
            self.words(out, "--");
        }
    }

    fn list(&self, out: &mut String) {
        let _ = write!(out, " {}", self.name);
        if self.name == "CT" {
            self.words(out, "");
        }
    }

    fn lower(&self) -> Lowered {
        let Self { name: _, notrack, helper, timeout, events, expectation_events, zone, zone_is_mark, sides } =
            self;
        if *notrack {
            return Lowered::Target(Target::Effect(Effect::Order(Orders {
                notrack: true,
                ..Orders::default()
            })));
        }
        let (orig, reply) = if *sides == (false, false) { (true, true) } else { *sides };
        let orders = Orders {
            notrack: false,
            zone: Zone { id: *zone, orig, reply },
            zone_is_mark: *zone_is_mark,
            helper: helper.map(|(helper, _)| helper),
            timeouts: timeout.as_ref().and_then(|timeout| timeout.id),
            events: match (events, expectation_events) {
                (None, None) => None,
                (events, expected) => {
                    let new = expected.is_some_and(|expected| !expected.and(CtEvents::NEW).is_empty());
                    Some(events.unwrap_or_default().or(CtEvents::EXPECT_NEW.when(new)))
                }
            },
        };
        Lowered::Target(Target::Effect(Effect::Order(orders)))
    }

    fn target_name(&self) -> &'static str {
        // In the target column iptables shows the real name of both.
        "CT"
    }

    fn tables(&self) -> &'static [model::Table] {
        &[model::Table::Raw]
    }
}
