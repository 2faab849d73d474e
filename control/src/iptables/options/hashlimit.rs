//! `-m hashlimit`: a limit for each address or port.

use std::fmt::Write as _;

use dataplane::packet::Family;
use dataplane::rules::model::Match;
use dataplane::rules::rate::{HashConfig, HashKeys, HashRate, Hashlimit, RateMatch, is_countable};

use super::limit::{leading_number, rate, unit};
use super::recent::proc_name;
use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;

const UPTO: u8 = 1;
const ABOVE: u8 = 2;
const SRCMASK: u8 = 3;
const DSTMASK: u8 = 4;
const BURST: u8 = 5;
const SIZE: u8 = 6;
const MAX: u8 = 7;
const GC_INTERVAL: u8 = 8;
const EXPIRE: u8 = 9;
const MODE: u8 = 10;
const NAME: u8 = 11;
const RATE_MATCH: u8 = 12;
const INTERVAL: u8 = 13;

/// Units of a period per second (`XT_HASHLIMIT_SCALE_v2`).
const SCALE: u64 = 1_000_000;
/// Packets at once: if nothing is said, and most.
const BURST_DEFAULT: u64 = 5;
const BURST_MAX: u64 = 1_000_000;
/// Most buckets or entries; more is cut to it.
const SIZE_MAX: u32 = 1 << 20;
/// Milliseconds between looks for what is over, if nothing is said.
const GC_DEFAULT: u32 = 1000;
/// Longest name in bytes (`NAME_MAX`, with the final NUL).
const NAME_BYTES_MAX: usize = 254;
/// Seconds that an entry of bytes is kept if nothing is said: without a burst, and with one.
const KEPT: u64 = 15;
const KEPT_WITH_BURST: u64 = 60;

const fn option(name: &'static str, id: u8, slot: u8, args: u8) -> OptionSpec {
    OptionSpec { name, id, slot, args, invertible: slot == 1 }
}

/// `-m hashlimit`.
pub static HASHLIMIT: Extension = Extension {
    kind: Kind::Match,
    names: &["hashlimit"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        option("hashlimit-upto", UPTO, 1, 1),
        option("hashlimit-above", ABOVE, 1, 1),
        option("hashlimit", UPTO, 1, 1),
        option("hashlimit-srcmask", SRCMASK, 2, 1),
        option("hashlimit-dstmask", DSTMASK, 3, 1),
        option("hashlimit-burst", BURST, 4, 1),
        option("hashlimit-htable-size", SIZE, 5, 1),
        option("hashlimit-htable-max", MAX, 6, 1),
        option("hashlimit-htable-gcinterval", GC_INTERVAL, 7, 1),
        option("hashlimit-htable-expire", EXPIRE, 8, 1),
        option("hashlimit-mode", MODE, 9, 1),
        option("hashlimit-name", NAME, 10, 1),
        option("hashlimit-rate-match", RATE_MATCH, 11, 0),
        option("hashlimit-rate-interval", INTERVAL, 12, 1),
    ],
    new: |family| {
        let width = width(family);
        Box::new(Asked {
            above: false,
            rate: None,
            seconds: 0,
            burst: None,
            expire: None,
            name: String::new(),
            is_rate_match: false,
            interval: 0,
            width,
            config: HashConfig {
                keys: HashKeys::default(),
                rate: HashRate::Packets(1),
                burst: BURST_DEFAULT,
                interval: None,
                src_prefix: width,
                dst_prefix: width,
                size: 0,
                max: 0,
                gc_interval: GC_DEFAULT,
                expire: 0,
            },
        })
    },
};

const fn width(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

#[derive(Debug)]
struct Asked {
    above: bool,
    rate: Option<HashRate>,
    /// What the rate is per; of bytes how long an entry is kept.
    seconds: u64,
    burst: Option<u64>,
    expire: Option<u32>,
    name: String,
    is_rate_match: bool,
    /// Seconds, 0 if not given.
    interval: u32,
    width: u8,
    /// The whole, once it is finished.
    config: HashConfig,
}

/// Price of 16 bytes at so many bytes per second, and back.
fn price(bytes: u64) -> Option<u32> {
    let pieces = u32::try_from(bytes >> 4 & u64::from(u32::MAX)).ok()?;
    u32::MAX.checked_div(pieces.wrapping_add(1))
}

fn bytes_of(price: u32) -> u64 {
    (u64::from(u32::MAX / price.max(1)) - 1) << 4
}

fn factor(letter: Option<char>) -> u64 {
    match letter {
        Some('m') => 1 << 20,
        Some('k') => 1 << 10,
        _ => 1,
    }
}

/// `512kb/s` and the like; `None` if it is a rate of packets.
fn byte_rate(word: &Word) -> Result<Option<u32>, Diagnostic> {
    let Some(at) = word.text.find("b/s").filter(|at| *at > 0) else { return Ok(None) };
    let bytes = leading_number(&word.text).cast_unsigned();
    if bytes == 0 {
        return Ok(None);
    }
    let bytes = bytes.wrapping_mul(factor(word.text[..at].chars().last()));
    let price = price(bytes)
        .filter(|price| *price != 0)
        .ok_or_else(|| Diagnostic::error(word.span, format!("rate `{}` is too high", word.text)))?;
    if bytes_of(price) == 0 {
        return Err(Diagnostic::unsupported(word.span, "less than 16 bytes per second")
            .hint("iptables-save prints it as 0b/s, which cannot be read again"));
    }
    Ok(Some(price))
}

fn burst(word: &Word) -> Result<u64, Diagnostic> {
    let bad = || {
        Diagnostic::error(word.span, format!("`{}` is no burst", word.text))
            .hint(format!("1 to {BURST_MAX} packets; of bytes with `k` or `m`"))
    };
    let end = |prefix: &str| {
        let is_digit = |c: char| if prefix.is_empty() { c.is_ascii_digit() } else { c.is_ascii_hexdigit() };
        let rest = &word.text[prefix.len()..];
        prefix.len() + rest.find(|c| !is_digit(c)).unwrap_or(rest.len())
    };
    let end = end(if word.text.starts_with("0x") { "0x" } else { "" });
    let (digits, rest) = word.text.split_at(end);
    let value = number(digits, u64::MAX).filter(|value| *value >= 1).ok_or_else(bad)?;
    if rest.is_empty() && value > BURST_MAX {
        return Err(bad());
    }
    Ok(value.wrapping_mul(factor(rest.chars().next())))
}

fn keys(word: &Word) -> Result<HashKeys, Diagnostic> {
    let mut keys = HashKeys::default();
    for name in word.text.split([',', '|']).filter(|name| !name.is_empty()) {
        match name {
            "srcip" => keys.src = true,
            "dstip" => keys.dst = true,
            "srcport" => keys.src_port = true,
            "dstport" => keys.dst_port = true,
            _ => {
                return Err(Diagnostic::error(word.span, format!("bad mode `{name}`"))
                    .hint("of srcip, srcport, dstip and dstport"));
            }
        }
    }
    Ok(keys)
}

fn keys_text(keys: HashKeys, separator: &str) -> String {
    let names =
        [(keys.src, "srcip"), (keys.src_port, "srcport"), (keys.dst, "dstip"), (keys.dst_port, "dstport")];
    let names: Vec<_> = names.into_iter().filter_map(|(is_asked, name)| is_asked.then_some(name)).collect();
    names.join(separator)
}

impl Asked {
    fn number(given: &Given<'_>, max: u64) -> Result<u32, Diagnostic> {
        let word = first(given)?;
        let value = number(&word.text, max).and_then(|value| u32::try_from(value).ok());
        value.ok_or_else(|| {
            Diagnostic::error(word.span, format!("`{}` is not a number up to {max}", word.text))
        })
    }

    fn rate(&mut self, word: &Word) -> Result<(), Diagnostic> {
        (self.rate, self.seconds) = match byte_rate(word)? {
            Some(price) => (Some(HashRate::Bytes(price)), KEPT),
            None => {
                let rate = rate(word, SCALE, i64::cast_unsigned)?;
                (Some(HashRate::Packets(rate.period)), rate.seconds)
            }
        };
        Ok(())
    }

    /// Bursts of bytes become fills of the bucket.
    fn fills(&self, price: u32, span: Span) -> Result<u64, Diagnostic> {
        let Some(burst) = self.burst else { return Ok(0) };
        let rate = bytes_of(price);
        if burst < rate {
            return Err(Diagnostic::error(span, format!("the burst cannot be smaller than {rate}b")));
        }
        // iptables keeps 32 bits of it.
        Ok((burst & u64::from(u32::MAX)) / rate + u64::from(burst % rate != 0))
    }

    /// Milliseconds that an entry is kept if nothing is said, as iptables works it out again when it prints.
    fn kept(&self, period: u64) -> u64 {
        match self.config.rate {
            HashRate::Bytes(_) if self.config.burst == 0 => KEPT * 1000,
            HashRate::Bytes(_) => KEPT_WITH_BURST * 1000,
            HashRate::Packets(_) => unit(period, SCALE).1 * 1000,
        }
    }

    fn rate_text(&self, period: u64, prefix: &str) -> String {
        let burst = self.config.burst;
        let HashRate::Bytes(of_bytes) = self.config.rate else {
            let (name, seconds) = unit(period, SCALE);
            return format!(" {}/{name} {prefix}burst {burst}", seconds * SCALE / period);
        };
        const SIZES: [(&str, u64); 2] = [("m", 1 << 20), ("k", 1 << 10)];
        let bytes = bytes_of(of_bytes);
        let exact = |(_, size): &&(&str, u64)| bytes >= *size && price(bytes & !(size - 1)) == Some(of_bytes);
        let (name, size) = SIZES.iter().find(exact).unwrap_or(&("", 1));
        let mut text = format!(" {}{name}b/s", bytes / size);
        if burst != 0 {
            let bytes = bytes.wrapping_mul(burst);
            let (name, size) = SIZES.iter().find(|(_, size)| bytes >= *size).unwrap_or(&("", 1));
            let _ = write!(text, " {prefix}burst {}{name}b", bytes / size);
        }
        text
    }

    /// What follows the mode, in the words of a listing or of a rule.
    fn rest(&self, prefix: &str, period: u64, out: &mut String) {
        let HashConfig { size, max, gc_interval, expire, src_prefix, dst_prefix, interval, .. } = self.config;
        let mut number = |name: &str, value: u32, default: u32| {
            if value != default {
                let _ = write!(out, " {prefix}{name} {value}");
            }
        };
        number("htable-size", size, 0);
        number("htable-max", max, 0);
        number("htable-gcinterval", gc_interval, GC_DEFAULT);
        number("htable-expire", expire, u32::try_from(self.kept(period)).unwrap_or(0));
        number("srcmask", src_prefix.into(), self.width.into());
        number("dstmask", dst_prefix.into(), self.width.into());
        if let Some(interval) = interval {
            let _ = write!(out, " {prefix}rate-match");
            if interval != 1 {
                let _ = write!(out, " {prefix}rate-interval {interval}");
            }
        }
    }

    const fn period(&self) -> u64 {
        match self.config.rate {
            HashRate::Packets(period) => period,
            HashRate::Bytes(_) => 1,
        }
    }
}

impl Instance for Asked {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let all = u64::from(u32::MAX);
        match given.id {
            UPTO | ABOVE => {
                self.above = (given.id == ABOVE) != given.invert;
                self.rate(first(given)?)?;
            }
            SRCMASK | DSTMASK => {
                let prefix = u8::try_from(Self::number(given, self.width.into())?).unwrap_or(self.width);
                let config = &mut self.config;
                *(if given.id == SRCMASK { &mut config.src_prefix } else { &mut config.dst_prefix }) = prefix;
            }
            BURST => self.burst = Some(burst(first(given)?)?),
            SIZE => self.config.size = Self::number(given, all)?.min(SIZE_MAX),
            MAX => self.config.max = Self::number(given, all)?.min(SIZE_MAX),
            GC_INTERVAL => self.config.gc_interval = Self::number(given, all)?,
            EXPIRE => self.expire = Some(Self::number(given, all)?),
            MODE => self.config.keys = keys(first(given)?)?,
            NAME => self.name = proc_name(first(given)?, NAME_BYTES_MAX)?,
            RATE_MATCH => self.is_rate_match = true,
            _ => {
                let word = first(given)?;
                let seconds = i32::try_from(leading_number(&word.text)).ok().filter(|seconds| *seconds > 0);
                self.interval = seconds
                    .ok_or_else(|| Diagnostic::error(word.span, format!("bad interval `{}`", word.text)))?
                    .unsigned_abs();
            }
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        let Some(rate) = self.rate else {
            return Err(Diagnostic::error(span, "`-m hashlimit` without a rate")
                .hint("add `--hashlimit-upto RATE` or `--hashlimit-above RATE`"));
        };
        if self.name.is_empty() {
            return Err(
                Diagnostic::error(span, "`-m hashlimit` without a name").hint("add `--hashlimit-name NAME`")
            );
        }
        let mut kept = self.seconds * 1000;
        self.config.rate = rate;
        match rate {
            HashRate::Bytes(price) => {
                self.config.burst = self.fills(price, span)?;
                if self.burst.is_some() {
                    kept = KEPT_WITH_BURST * 1000;
                }
            }
            HashRate::Packets(period) => {
                self.config.burst = self.burst.unwrap_or(BURST_DEFAULT);
                if self.config.burst > BURST_MAX {
                    let message = format!("a burst of more than {BURST_MAX} packets");
                    return Err(Diagnostic::error(span, message));
                }
                if self.is_rate_match {
                    self.config.rate = HashRate::Packets(period / self.seconds);
                }
            }
        }
        self.config.expire = self.expire.unwrap_or(u32::try_from(kept).unwrap_or(u32::MAX));
        if self.is_rate_match {
            let default = if matches!(rate, HashRate::Bytes(_)) { 1 } else { self.seconds };
            let default = u32::try_from(default).unwrap_or(u32::MAX);
            self.config.interval = Some(if self.interval == 0 { default } else { self.interval });
        }
        let is_possible = match self.config.rate {
            HashRate::Packets(period) if self.is_rate_match => (1..=u64::from(u32::MAX)).contains(&period),
            HashRate::Bytes(_) if self.is_rate_match => true,
            rate => is_countable(rate, self.config.burst),
        };
        if !is_possible {
            return Err(Diagnostic::error(span, "the kernel cannot count this rate with this burst")
                .hint("try a lower burst or a shorter time"));
        }
        if self.config.gc_interval == 0 || self.config.expire == 0 {
            return Err(Diagnostic::error(span, "times of the table cannot be 0"));
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let period = self.period();
        out.push_str(if self.above {
            " -m hashlimit --hashlimit-above"
        } else {
            " -m hashlimit --hashlimit-upto"
        });
        out.push_str(&self.rate_text(period, "--hashlimit-"));
        if self.config.keys != HashKeys::default() {
            let _ = write!(out, " --hashlimit-mode {}", keys_text(self.config.keys, ","));
        }
        let _ = write!(out, " --hashlimit-name {}", self.name);
        self.rest("--hashlimit-", period, out);
    }

    fn list(&self, out: &mut String) {
        // A listing multiplies the rate by the interval, used or not.
        let seconds = self.config.interval.unwrap_or(self.interval).max(1);
        let period = self.period() * u64::from(seconds);
        out.push_str(if self.above { " limit: above" } else { " limit: up to" });
        out.push_str(&self.rate_text(period, ""));
        if self.config.keys != HashKeys::default() {
            let _ = write!(out, " mode {}", keys_text(self.config.keys, "-"));
        }
        self.rest("", period, out);
    }

    fn lower(&self) -> Lowered {
        let name = self.name.as_str().into();
        let hashlimit = Hashlimit { name, config: self.config, above: self.above, table: None };
        Lowered::Matches(vec![Match::Rate(RateMatch::Hashlimit(Box::new(hashlimit)))])
    }
}
