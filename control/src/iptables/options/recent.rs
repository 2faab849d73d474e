//! `-m recent`: addresses that were seen lately.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::packet::Family;
use dataplane::rules::model::Match;
use dataplane::rules::rate::{RateMatch, Recent, RecentTask, STAMPS_MAX};

use super::basic::full_mask;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;
use crate::iptables::printer::address_text;

const SET: u8 = 1;
const RCHECK: u8 = 2;
const UPDATE: u8 = 3;
const REMOVE: u8 = 4;
const SECONDS: u8 = 5;
const REAP: u8 = 6;
const HITCOUNT: u8 = 7;
const RTTL: u8 = 8;
const NAME: u8 = 9;
const RSOURCE: u8 = 10;
const RDEST: u8 = 11;
const MASK: u8 = 12;

/// Longest name in bytes (`XT_RECENT_NAME_LEN` with the final NUL).
const NAME_BYTES_MAX: usize = 199;

const fn option(name: &'static str, id: u8, slot: u8, args: u8) -> OptionSpec {
    OptionSpec { name, id, slot, args, invertible: slot == 1 }
}

/// `-m recent`.
pub static RECENT: Extension = Extension {
    kind: Kind::Match,
    names: &["recent"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        option("set", SET, 1, 0),
        option("rcheck", RCHECK, 1, 0),
        option("update", UPDATE, 1, 0),
        option("remove", REMOVE, 1, 0),
        option("seconds", SECONDS, 2, 1),
        option("reap", REAP, 3, 0),
        option("hitcount", HITCOUNT, 4, 1),
        option("rttl", RTTL, 5, 0),
        option("name", NAME, 6, 1),
        option("rsource", RSOURCE, 7, 0),
        option("rdest", RDEST, 8, 0),
        option("mask", MASK, 9, 1),
    ],
    new: |family| {
        Box::new(Asked {
            task: None,
            invert: false,
            seconds: None,
            reap: false,
            hits: 0,
            ttl: false,
            name: "DEFAULT".to_owned(),
            by_dst: false,
            mask: full_mask(family),
            family,
        })
    },
};

#[derive(Debug)]
struct Asked {
    task: Option<u8>,
    invert: bool,
    seconds: Option<u32>,
    reap: bool,
    hits: u32,
    ttl: bool,
    name: String,
    by_dst: bool,
    mask: u128,
    family: Family,
}

/// A name that a file under `/proc/net` may have (Linux `xt_check_proc_name`).
pub(super) fn proc_name(word: &Word, bytes_max: usize) -> Result<String, Diagnostic> {
    let text = &word.text;
    if text.is_empty() || text == "." || text == ".." || text.contains('/') {
        return Err(Diagnostic::error(word.span, format!("bad name `{text}`"))
            .hint(format!("1 to {bytes_max} bytes without `/`")));
    }
    if text.len() > bytes_max {
        return Err(Diagnostic::unsupported(word.span, format!("a name of more than {bytes_max} bytes")));
    }
    if text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\')) {
        return Err(Diagnostic::unsupported(word.span, format!("the name `{text}`"))
            .hint("iptables-save prints it so that it cannot be read again"));
    }
    Ok(text.clone())
}

impl Asked {
    fn number(given: &Given<'_>, min: u64) -> Result<u32, Diagnostic> {
        let word = first(given)?;
        let value = number(&word.text, u64::from(u32::MAX)).filter(|value| *value >= min);
        let bad = || Diagnostic::error(word.span, format!("`{}` is not a number from {min} on", word.text));
        let value = u32::try_from(value.ok_or_else(bad)?).map_err(|_| bad())?;
        if value > i32::MAX.unsigned_abs() {
            return Err(Diagnostic::unsupported(word.span, format!("a number as large as {value}"))
                .hint("iptables-save prints it so that it cannot be read again"));
        }
        Ok(value)
    }

    fn mask(&self, word: &Word) -> Result<u128, Diagnostic> {
        let mask = match self.family {
            Family::V4 => word.text.parse().ok().map(|mask: Ipv4Addr| u128::from(mask.to_bits())),
            Family::V6 => word.text.parse().ok().map(|mask: Ipv6Addr| mask.to_bits()),
        };
        mask.ok_or_else(|| {
            Diagnostic::unsupported(word.span, format!("the mask `{}`", word.text))
                .hint("write it as an address in full")
        })
    }

    const fn is_check(&self) -> bool {
        matches!(self.task, Some(RCHECK | UPDATE))
    }
}

impl Instance for Asked {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        match given.id {
            SECONDS => self.seconds = Some(Self::number(given, 1)?),
            REAP => self.reap = true,
            HITCOUNT => {
                self.hits = Self::number(given, 0)?;
                if self.hits >= STAMPS_MAX {
                    let message = format!("{} hits are more than are kept of an address", self.hits);
                    return Err(
                        Diagnostic::error(given.span, message).hint(format!("{} at most", STAMPS_MAX - 1))
                    );
                }
            }
            RTTL => self.ttl = true,
            NAME => self.name = proc_name(first(given)?, NAME_BYTES_MAX)?,
            RSOURCE => self.by_dst = false,
            RDEST => self.by_dst = true,
            MASK => self.mask = self.mask(first(given)?)?,
            task => (self.task, self.invert) = (Some(task), given.invert),
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        if self.task.is_none() {
            return Err(Diagnostic::error(span, "`-m recent` does not say what to do")
                .hint("add `--set`, `--rcheck`, `--update` or `--remove`"));
        }
        if self.reap && self.seconds.is_none() {
            return Err(Diagnostic::error(span, "`--reap` without `--seconds`").hint("add `--seconds N`"));
        }
        if !self.is_check() && (self.seconds.is_some() || self.hits != 0 || self.ttl) {
            return Err(Diagnostic::error(span, "only `--rcheck` and `--update` ask for moments or a TTL"));
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        out.push_str(if self.invert { " -m recent !" } else { " -m recent" });
        out.push_str(match self.task {
            Some(SET) => " --set",
            Some(RCHECK) => " --rcheck",
            Some(UPDATE) => " --update",
            _ => " --remove",
        });
        if let Some(seconds) = self.seconds {
            let _ = write!(out, " --seconds {seconds}");
        }
        if self.reap {
            out.push_str(" --reap");
        }
        if self.hits != 0 {
            let _ = write!(out, " --hitcount {}", self.hits);
        }
        if self.ttl {
            out.push_str(" --rttl");
        }
        let mask = address_text(self.mask, self.family == Family::V6);
        let side = if self.by_dst { "--rdest" } else { "--rsource" };
        let _ = write!(out, " --name {} --mask {mask} {side}", self.name);
    }

    fn list(&self, out: &mut String) {
        out.push_str(if self.invert { " ! recent:" } else { " recent:" });
        out.push_str(match self.task {
            Some(SET) => " SET",
            Some(RCHECK) => " CHECK",
            Some(UPDATE) => " UPDATE",
            _ => " REMOVE",
        });
        if let Some(seconds) = self.seconds {
            let _ = write!(out, " seconds: {seconds}");
        }
        if self.reap {
            out.push_str(" reap");
        }
        if self.hits != 0 {
            let _ = write!(out, " hit_count: {}", self.hits);
        }
        if self.ttl {
            out.push_str(" TTL-Match");
        }
        let mask = address_text(self.mask, self.family == Family::V6);
        let side = if self.by_dst { "dest" } else { "source" };
        let _ = write!(out, " name: {} side: {side} mask: {mask}", self.name);
    }

    fn lower(&self) -> Lowered {
        let Self { task, invert, seconds, reap, hits, ttl, ref name, by_dst, mask, family: _ } = *self;
        let task = match task {
            Some(SET) => RecentTask::Set,
            Some(REMOVE) => RecentTask::Remove,
            task => RecentTask::Check {
                update: task == Some(UPDATE),
                seconds: seconds.unwrap_or_default(),
                hits,
                reap,
                ttl,
            },
        };
        let recent = Recent { name: name.as_str().into(), task, invert, by_dst, mask, table: None };
        Lowered::Matches(vec![Match::Rate(RateMatch::Recent(Box::new(recent)))])
    }
}
