//! `-m set` and `-j SET`: whether a packet is in a set, and sets that it is put into or taken out of.

use std::fmt::Write as _;
use std::sync::Arc;

use dataplane::packet::Family;
use dataplane::rules::conn::Effect;
use dataplane::rules::model::{Hook, Match, Target};
use dataplane::sets::{Compare, Directions, SetMatch, SetOrder, SetUse, Slot};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::sets::command::NAME_MAX;

const MATCH_SET: u8 = 1;
const RETURN_NOMATCH: u8 = 2;
const UPDATE_COUNTERS: u8 = 3;
const UPDATE_SUBCOUNTERS: u8 = 4;
const PACKETS_EQ: u8 = 5;
const PACKETS_LT: u8 = 6;
const PACKETS_GT: u8 = 7;
const BYTES_EQ: u8 = 8;
const BYTES_LT: u8 = 9;
const BYTES_GT: u8 = 10;

const fn option(name: &'static str, id: u8, slot: u8, args: u8, invertible: bool) -> OptionSpec {
    OptionSpec { name, id, slot, args, invertible }
}

/// `-m set`.
pub static SET: Extension = Extension {
    kind: Kind::Match,
    names: &["set"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        option("match-set", MATCH_SET, 1, 2, true),
        option("set", MATCH_SET, 1, 2, true),
        option("return-nomatch", RETURN_NOMATCH, 2, 0, false),
        option("update-counters", UPDATE_COUNTERS, 3, 0, true),
        option("packets-eq", PACKETS_EQ, 4, 1, true),
        option("packets-lt", PACKETS_LT, 4, 1, false),
        option("packets-gt", PACKETS_GT, 4, 1, false),
        option("bytes-eq", BYTES_EQ, 5, 1, true),
        option("bytes-lt", BYTES_LT, 5, 1, false),
        option("bytes-gt", BYTES_GT, 5, 1, false),
        option("update-subcounters", UPDATE_SUBCOUNTERS, 6, 0, true),
    ],
    new: |_| Box::new(Asked::default()),
};

const ADD_SET: u8 = 1;
const DEL_SET: u8 = 2;
const TIMEOUT: u8 = 3;
const EXIST: u8 = 4;

/// `-j SET`. `--map-set` and what goes with it sets what `skbinfo` keeps, which we do not.
pub static SET_TARGET: Extension = Extension {
    kind: Kind::Target,
    names: &["SET"],
    family: None,
    protocol: None,
    repeatable: false,
    options: &[
        option("add-set", ADD_SET, 1, 2, false),
        option("del-set", DEL_SET, 2, 2, false),
        option("timeout", TIMEOUT, 3, 1, false),
        option("exist", EXIST, 4, 0, false),
        option("map-set", 5, 0, 2, false),
        option("map-mark", 6, 0, 0, false),
        option("map-prio", 7, 0, 0, false),
        option("map-queue", 8, 0, 0, false),
    ],
    new: |_| Box::new(Order::default()),
};

/// A set with directions, as written.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    slot: Arc<Slot>,
    directions: Directions,
}

impl Named {
    fn parse(given: &Given<'_>) -> Result<Self, Diagnostic> {
        let missing = || Diagnostic::error(given.span, "a set and its directions are wanted: `NAME src`");
        let [name, directions] = given.args else { return Err(missing()) };
        if directions.text.starts_with('-') {
            return Err(missing());
        }
        Ok(Self { name: name.text.clone(), slot: set(name, &given.facts)?, directions: dirs(directions)? })
    }

    fn print(&self, out: &mut String) {
        let Directions { count, .. } = self.directions;
        let words: Vec<_> =
            (0..count).map(|part| if self.directions.is_src(part) { "src" } else { "dst" }).collect();
        let _ = write!(out, "{} {}", self.name, words.join(","));
    }

    fn used(&self) -> SetUse {
        SetUse { slot: self.slot.id(), directions: self.directions }
    }
}

/// The set a rule names.
fn set(word: &Word, facts: &Facts<'_>) -> Result<Arc<Slot>, Diagnostic> {
    let name = &word.text;
    if name.len() > NAME_MAX {
        return Err(Diagnostic::error(
            word.span,
            format!("a name of a set has at most {NAME_MAX} characters"),
        ));
    }
    let missing = || {
        Diagnostic::error(word.span, format!("there is no set `{name}`"))
            .hint("sets come from the file `rules.sets` names, or from `fwctl set create`")
    };
    let slot = facts.services.set(name).ok_or_else(missing)?;
    let family = slot.set().spec().family;
    if family.is_some_and(|family| family != facts.family) {
        let which = if family == Some(Family::V4) { "IPv4" } else { "IPv6" };
        return Err(Diagnostic::error(word.span, format!("set `{name}` is of {which} addresses")));
    }
    Ok(slot)
}

/// `src,dst,...`. As in iptables whatever begins with one of the two is that.
fn dirs(word: &Word) -> Result<Directions, Diagnostic> {
    let mut directions = Directions::default();
    for part in word.text.split(',') {
        if directions.count == Directions::MAX {
            let message = format!("more than {} directions", Directions::MAX);
            return Err(Diagnostic::error(word.span, message));
        }
        if part.starts_with("src") {
            directions.src |= 1 << directions.count;
        } else if !part.starts_with("dst") {
            return Err(Diagnostic::error(word.span, format!("`{part}` is neither `src` nor `dst`")));
        }
        directions.count += 1;
    }
    Ok(directions)
}

#[derive(Debug, Default)]
struct Asked {
    set: Option<Named>,
    invert: bool,
    return_nomatch: bool,
    keep_counters: bool,
    keep_subcounters: bool,
    packets: Option<Compare>,
    bytes: Option<Compare>,
}

fn counter(given: &Given<'_>) -> Result<u64, Diagnostic> {
    let word = first(given)?;
    number(&word.text, u64::MAX)
        .ok_or_else(|| Diagnostic::error(word.span, format!("`{}` is no number", word.text)))
}

fn print_counter(out: &mut String, name: &str, compare: Option<Compare>) {
    let _ = match compare {
        None => Ok(()),
        Some(Compare::Equal(value)) => write!(out, " --{name}-eq {value}"),
        Some(Compare::NotEqual(value)) => write!(out, " ! --{name}-eq {value}"),
        Some(Compare::Less(value)) => write!(out, " --{name}-lt {value}"),
        Some(Compare::Greater(value)) => write!(out, " --{name}-gt {value}"),
    };
}

impl Asked {
    fn words(&self, out: &mut String, dashes: &str, lead: &str) {
        let Some(set) = &self.set else { return };
        let _ = write!(out, "{}{lead}", if self.invert { " !" } else { "" });
        set.print(out);
        for (is_given, word) in [
            (self.return_nomatch, "return-nomatch"),
            (self.keep_counters, "! update-counters"),
            (self.keep_subcounters, "! update-subcounters"),
        ] {
            if is_given {
                let _ = match word.strip_prefix("! ") {
                    Some(word) => write!(out, " ! {dashes}{word}"),
                    None => write!(out, " {dashes}{word}"),
                };
            }
        }
        let mut counters = String::new();
        print_counter(&mut counters, "packets", self.packets);
        print_counter(&mut counters, "bytes", self.bytes);
        out.push_str(&if dashes.is_empty() { counters.replace("--", "") } else { counters });
    }
}

impl Instance for Asked {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            MATCH_SET => {
                self.set = Some(Named::parse(given)?);
                self.invert = given.invert;
            }
            RETURN_NOMATCH => self.return_nomatch = true,
            UPDATE_COUNTERS => self.keep_counters = given.invert,
            UPDATE_SUBCOUNTERS => self.keep_subcounters = given.invert,
            id => {
                let value = counter(given)?;
                let compare = match id {
                    PACKETS_EQ | BYTES_EQ if given.invert => Compare::NotEqual(value),
                    PACKETS_EQ | BYTES_EQ => Compare::Equal(value),
                    PACKETS_LT | BYTES_LT => Compare::Less(value),
                    _ => Compare::Greater(value),
                };
                let field = if matches!(id, PACKETS_EQ | PACKETS_LT | PACKETS_GT) {
                    &mut self.packets
                } else {
                    &mut self.bytes
                };
                *field = Some(compare);
            }
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        self.set.as_ref().map(|_| ()).ok_or_else(|| {
            Diagnostic::error(span, "`-m set` without a set")
                .hint("add `--match-set NAME src` (or dst, or src,dst ...)")
        })
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -m set");
        self.words(out, "--", " --match-set ");
    }

    fn list(&self, out: &mut String) {
        self.words(out, "", " match-set ");
    }

    fn lower(&self) -> Lowered {
        let Some(Named { slot, directions, .. }) = &self.set else { return Lowered::Matches(Vec::new()) };
        Lowered::Matches(vec![Match::Set(SetMatch {
            slot: Arc::clone(slot),
            directions: *directions,
            invert: self.invert,
            return_nomatch: self.return_nomatch,
            keep_counters: self.keep_counters,
            keep_subcounters: self.keep_subcounters,
            packets: self.packets,
            bytes: self.bytes,
            hook: Hook::Forward,
        })])
    }
}

#[derive(Debug, Default)]
struct Order {
    add: Option<Named>,
    del: Option<Named>,
    exist: bool,
    timeout: Option<u32>,
}

impl Order {
    fn words(&self, out: &mut String, dashes: &str) {
        if let Some(add) = &self.add {
            let _ = write!(out, " {dashes}add-set ");
            add.print(out);
            if self.exist {
                let _ = write!(out, " {dashes}exist");
            }
            if let Some(timeout) = self.timeout {
                let _ = write!(out, " {dashes}timeout {timeout}");
            }
        }
        if let Some(del) = &self.del {
            let _ = write!(out, " {dashes}del-set ");
            del.print(out);
        }
    }
}

impl Instance for Order {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            ADD_SET => self.add = Some(Named::parse(given)?),
            DEL_SET => self.del = Some(Named::parse(given)?),
            EXIST => self.exist = true,
            _ => {
                let word = first(given)?;
                // The greatest number stands for none.
                let max = u64::from(u32::MAX) - 1;
                let timeout = number(&word.text, max).and_then(|value| u32::try_from(value).ok());
                self.timeout = Some(timeout.ok_or_else(|| {
                    Diagnostic::error(word.span, format!("`{}` is no number of seconds", word.text))
                })?);
            }
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        if self.add.is_none() && self.del.is_none() {
            return Err(Diagnostic::error(span, "`-j SET` without a set")
                .hint("add `--add-set NAME src` or `--del-set NAME src`"));
        }
        if self.add.is_none() && (self.exist || self.timeout.is_some()) {
            return Err(Diagnostic::error(span, "`--exist` and `--timeout` go with `--add-set`"));
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        out.push_str(" -j SET");
        self.words(out, "--");
    }

    fn list(&self, out: &mut String) {
        self.words(out, "");
    }

    fn lower(&self) -> Lowered {
        const TIMEOUT_MAX: u32 = 2_147_483;
        Lowered::Target(Target::Effect(Effect::Set(SetOrder {
            add: self.add.as_ref().map(Named::used),
            del: self.del.as_ref().map(Named::used),
            exist: self.exist,
            timeout: self.timeout.map(|secs| secs.min(TIMEOUT_MAX)),
            hook: Hook::Forward,
        })))
    }

    fn target_name(&self) -> &'static str {
        "SET"
    }
}
