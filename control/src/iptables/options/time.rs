//! `-m time`: dates, times of day, days of the week and of the month.

use std::fmt::Write as _;

use dataplane::rules::model::Match;
use dataplane::rules::rate::{RateMatch, TimeMatch};

use super::{Extension, Facts, Given, Instance, Kind, Lowered, OptionSpec, first, number};
use crate::iptables::diagnostics::{Diagnostic, Span};
use crate::iptables::lexer::Word;

const DATE_START: u8 = 1;
const DATE_STOP: u8 = 2;
const TIME_START: u8 = 3;
const TIME_STOP: u8 = 4;
const CONTIGUOUS: u8 = 5;
const WEEKDAYS: u8 = 6;
const MONTHDAYS: u8 = 7;
const UTC: u8 = 8;
const LOCAL_TZ: u8 = 9;
const KERNEL_TZ: u8 = 10;

const DAY: i64 = 86_400;
const DATE_LAST: u32 = i32::MAX.unsigned_abs();
const WEEK: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

const fn option(name: &'static str, id: u8, args: u8, invertible: bool) -> OptionSpec {
    OptionSpec { name, id, slot: id, args, invertible }
}

/// `-m time`.
pub static TIME: Extension = Extension {
    kind: Kind::Match,
    names: &["time"],
    family: None,
    protocol: None,
    repeatable: true,
    options: &[
        option("datestart", DATE_START, 1, false),
        option("datestop", DATE_STOP, 1, false),
        option("timestart", TIME_START, 1, false),
        option("timestop", TIME_STOP, 1, false),
        option("contiguous", CONTIGUOUS, 0, false),
        option("weekdays", WEEKDAYS, 1, true),
        option("monthdays", MONTHDAYS, 1, true),
        option("localtz", LOCAL_TZ, 0, false),
        option("utc", UTC, 0, false),
        option("kerneltz", KERNEL_TZ, 0, false),
    ],
    new: |_| {
        Box::new(Asked {
            time: TimeMatch {
                dates: (0, DATE_LAST),
                daytimes: (0, 86_399),
                monthdays: TimeMatch::ALL_MONTHDAYS,
                weekdays: TimeMatch::ALL_WEEKDAYS,
                kernel_tz: false,
                contiguous: false,
            },
            utc: false,
        })
    },
};

#[derive(Debug)]
struct Asked {
    time: TimeMatch,
    utc: bool,
}

/// Leading digits, and what follows them.
fn digits(text: &str) -> (u64, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let value = if end == 0 { 0 } else { text[..end].parse().unwrap_or(u64::MAX) };
    (value, &text[end..])
}

/// Days from 1970 to a day of a month, both from 1; 0 and days too many run into the months beside.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 1 { (year - 1, month + 12) } else { (year, month) };
    // Years that begin in March, so that the day put in comes last.
    let (years, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * years + years.div_euclid(4) - years.div_euclid(100)
        + years.div_euclid(400)
        + (153 * months + 2) / 5
        + day
        - 1
        - 719_468
}

/// Year, month and day so many days after 1970.
fn day_of(days: i64) -> (i64, i64, i64) {
    let year = (1970..).take_while(|year| days_to(*year, 1, 1) <= days).last().unwrap_or(1970);
    let month = (1..=12).take_while(|month| days_to(year, *month, 1) <= days).last().unwrap_or(1);
    (year, month, days - days_to(year, month, 1) + 1)
}

/// `YYYY[-MM[-DD[Thh[:mm[:ss]]]]]` as seconds since 1970.
fn date(word: &Word) -> Result<u32, Diagnostic> {
    let bad = || {
        Diagnostic::error(word.span, format!("`{}` is no date", word.text))
            .hint("write YYYY[-MM[-DD[Thh[:mm[:ss]]]]], from 1970 to 2038")
    };
    let parts = [('-', 2038), ('-', 12), ('T', 31), (':', 23), (':', 59), ('\0', 59)];
    let mut found = [0, 1, 1, 0, 0, 0];
    let mut rest = word.text.as_str();
    for ((separator, max), part) in parts.into_iter().zip(&mut found) {
        let (value, after) = digits(rest);
        if value > max || !(after.is_empty() || after.starts_with(separator)) {
            return Err(bad());
        }
        *part = i64::try_from(value).map_err(|_| bad())?;
        if after.is_empty() {
            let [year, month, day, hour, minute, second] = found;
            if year < 1970 {
                return Err(bad());
            }
            let secs = days_to(year, month, day) * DAY + hour * 3600 + minute * 60 + second;
            return u32::try_from(secs).map_err(|_| bad());
        }
        rest = &after[1..];
    }
    Err(bad())
}

/// `hh:mm[:ss]` as seconds of the day.
fn daytime(word: &Word) -> Result<u32, Diagnostic> {
    let read = || {
        let (hour, rest) = digits(&word.text);
        let (minute, rest) = digits(rest.strip_prefix(':')?);
        let (second, rest) = match rest.strip_prefix(':') {
            Some(rest) => digits(rest),
            None => (0, rest),
        };
        let is_right = hour <= 23 && minute <= 59 && second <= 59 && rest.is_empty();
        is_right.then(|| u32::try_from(hour * 3600 + minute * 60 + second).ok()).flatten()
    };
    read().ok_or_else(|| {
        Diagnostic::error(word.span, format!("`{}` is no time of day", word.text)).hint("write hh:mm[:ss]")
    })
}

/// The first characters of a part of a list: iptables looks at no more.
fn head(part: &str, len: usize) -> &str {
    part.char_indices().nth(len).map_or(part, |(end, _)| &part[..end])
}

fn no_days(word: &Word) -> Diagnostic {
    Diagnostic::unsupported(word.span, format!("`{}` names no day, so the rule can never match", word.text))
}

fn monthdays(word: &Word, invert: bool) -> Result<u32, Diagnostic> {
    let mut days = 0_u32;
    for part in word.text.split(',') {
        let day = if part.is_empty() { Some(0) } else { number(head(part, 2), 31) };
        days |= 1
            << day.ok_or_else(|| {
                Diagnostic::error(word.span, format!("`{part}` is no day of a month")).hint("1 to 31")
            })?;
    }
    let days = if invert { days ^ TimeMatch::ALL_MONTHDAYS } else { days };
    if days & TimeMatch::ALL_MONTHDAYS == 0 { Err(no_days(word)) } else { Ok(days) }
}

fn weekdays(word: &Word, invert: bool) -> Result<u8, Diagnostic> {
    let mut days = 0_u8;
    for part in word.text.split(',') {
        let bad = || {
            Diagnostic::error(word.span, format!("`{part}` is no day of the week"))
                .hint("Mon, Tue, Wed, Thu, Fri, Sat, Sun or 1 to 7")
        };
        let part = head(part, 3);
        let day = match number(part, u64::MAX) {
            Some(day @ 1..=7) => usize::try_from(day).ok(),
            Some(0) => None,
            Some(_) => return Err(Diagnostic::unsupported(word.span, format!("day {part} of a week"))),
            None => WEEK.iter().position(|name| part.get(..2) == name.get(..2)).map(|day| day + 1),
        };
        days |= 1 << day.ok_or_else(bad)?;
    }
    let days = if invert { days ^ TimeMatch::ALL_WEEKDAYS } else { days };
    if days == 0 { Err(no_days(word)) } else { Ok(days) }
}

/// A date that rules end at. The first second of 1970 stands for none when rules are printed: a rule that ends then would
/// be another one after a reload.
fn date_stop(word: &Word) -> Result<u32, Diagnostic> {
    match date(word)? {
        0 => {
            let message = format!("`{}` is long over, so the rule can never match", word.text);
            Err(Diagnostic::unsupported(word.span, message))
        }
        secs => Ok(secs),
    }
}

fn date_text(secs: u32, between: char) -> String {
    let secs = i64::from(secs);
    let (year, month, day) = day_of(secs / DAY);
    format!("{year:04}-{month:02}-{day:02}{between}{}", daytime_text(secs % DAY))
}

fn daytime_text(secs: i64) -> String {
    format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
}

fn monthdays_text(days: u32, name: impl Fn(u32) -> String) -> String {
    let days: Vec<_> = (1..=31).filter(|day| days >> day & 1 != 0).map(name).collect();
    days.join(",")
}

fn weekdays_text(days: u8) -> String {
    let named = WEEK.iter().zip(1..).filter(|(_, day)| days >> day & 1 != 0);
    named.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
}

/// `1st`, `2nd`, ... as iptables has them: `11st` too.
fn ordinal(day: u32) -> String {
    let ending = match day % 10 {
        1 => "st",
        2 => "nd",
        3 => "rd",
        _ => "th",
    };
    format!("{day}{ending}")
}

impl Instance for Asked {
    fn option(&mut self, given: &Given<'_>) -> Result<(), Diagnostic> {
        let time = &mut self.time;
        match given.id {
            DATE_START => time.dates.0 = date(first(given)?)?,
            DATE_STOP => time.dates.1 = date_stop(first(given)?)?,
            TIME_START => time.daytimes.0 = daytime(first(given)?)?,
            TIME_STOP => time.daytimes.1 = daytime(first(given)?)?,
            CONTIGUOUS => time.contiguous = true,
            WEEKDAYS => time.weekdays = weekdays(first(given)?, given.invert)?,
            MONTHDAYS => time.monthdays = monthdays(first(given)?, given.invert)?,
            UTC => self.utc = true,
            _ => time.kernel_tz = true,
        }
        Ok(())
    }

    fn finish(&mut self, _facts: Facts<'_>, span: Span) -> Result<(), Diagnostic> {
        if self.utc && self.time.kernel_tz {
            return Err(Diagnostic::error(span, "`--utc` and `--kerneltz` exclude each other"));
        }
        if self.time.contiguous && self.time.daytimes.0 < self.time.daytimes.1 {
            return Err(Diagnostic::error(span, "`--contiguous` needs a stop time before the start time"));
        }
        Ok(())
    }

    fn print(&self, out: &mut String) {
        let TimeMatch { dates, daytimes, monthdays, weekdays, kernel_tz, contiguous } = self.time;
        out.push_str(" -m time");
        if daytimes != (0, 86_399) {
            let [start, stop] = [daytimes.0, daytimes.1].map(|secs| daytime_text(secs.into()));
            let _ = write!(out, " --timestart {start} --timestop {stop}");
        }
        if monthdays != TimeMatch::ALL_MONTHDAYS {
            let _ = write!(out, " --monthdays {}", monthdays_text(monthdays, |day| day.to_string()));
        }
        if weekdays != TimeMatch::ALL_WEEKDAYS {
            let _ = write!(out, " --weekdays {}", weekdays_text(weekdays));
        }
        for (name, secs) in [("start", dates.0), ("stop", dates.1)] {
            if secs != 0 {
                let _ = write!(out, " --date{name} {}", date_text(secs, 'T'));
            }
        }
        out.push_str(if kernel_tz { " --kerneltz" } else { "" });
        out.push_str(if contiguous { " --contiguous" } else { "" });
    }

    fn list(&self, out: &mut String) {
        let TimeMatch { dates, daytimes, monthdays, weekdays, kernel_tz, contiguous } = self.time;
        out.push_str(" TIME");
        if daytimes != (0, 86_399) {
            let [start, stop] = [daytimes.0, daytimes.1].map(|secs| daytime_text(secs.into()));
            let _ = write!(out, " from {start} to {stop}");
        }
        if weekdays != TimeMatch::ALL_WEEKDAYS {
            let _ = write!(out, " on {}", weekdays_text(weekdays));
        }
        if monthdays != TimeMatch::ALL_MONTHDAYS {
            let _ = write!(out, " on {}", monthdays_text(monthdays, ordinal));
        }
        if dates.0 != 0 {
            let _ = write!(out, " starting from {}", date_text(dates.0, ' '));
        }
        if dates.1 != DATE_LAST {
            // Nothing stands for the very first second.
            let date = if dates.1 == 0 { String::new() } else { format!(" {}", date_text(dates.1, ' ')) };
            let _ = write!(out, " until date{date}");
        }
        out.push_str(if kernel_tz { "" } else { " UTC" });
        out.push_str(if contiguous { " contiguous" } else { "" });
    }

    fn lower(&self) -> Lowered {
        Lowered::Matches(vec![Match::Rate(RateMatch::Time(self.time))])
    }
}
