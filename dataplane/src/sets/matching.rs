//! `-m set`: whether a packet is in a set. Worker thread; changes counters, which are atomics.

use super::counters::Counts;
use super::kind::Kind;
use super::set::{Content, Set, is_over};
use super::slot::Slot;
use super::subject::{Directions, Subject};
use super::table::Value;
use crate::rules::Facts;
use crate::rules::model::Hook;
use crate::rules::rate::{Rates, Scratch};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a counter is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Equal.
    Equal(u64),
    /// Not equal.
    NotEqual(u64),
    /// Less.
    Less(u64),
    /// Greater.
    Greater(u64),
}

impl Compare {
    const fn holds(self, have: u64) -> bool {
        match self {
            Self::Equal(value) => have == value,
            Self::NotEqual(value) => have != value,
            Self::Less(value) => have < value,
            Self::Greater(value) => have > value,
        }
    }
}

/// `-m set`.
#[derive(Clone, Debug)]
pub struct SetMatch {
    /// The set.
    pub slot: Arc<Slot>,
    /// Which ends of the packet are looked for.
    pub directions: Directions,
    /// With `!`.
    pub invert: bool,
    /// `--return-nomatch`: an exception is what matches.
    pub return_nomatch: bool,
    /// Counters stay as they are (`! --update-counters`).
    pub keep_counters: bool,
    /// Those of the sets in a list do (`! --update-subcounters`).
    pub keep_subcounters: bool,
    /// `--packets-eq` and its kin.
    pub packets: Option<Compare>,
    /// `--bytes-eq` and its kin.
    pub bytes: Option<Compare>,
    /// Where the rule stands; the compiler fills it in.
    pub hook: Hook,
}

impl PartialEq for SetMatch {
    fn eq(&self, other: &Self) -> bool {
        let plain = |of: &Self| {
            (of.slot.id(), of.directions, of.invert, of.return_nomatch, of.keep_counters, of.keep_subcounters)
        };
        plain(self) == plain(other)
            && (self.packets, self.bytes, self.hook) == (other.packets, other.bytes, other.hook)
    }
}

impl Eq for SetMatch {}

/// How one set is asked.
#[derive(Clone, Copy)]
struct Ask<'a> {
    of: &'a SetMatch,
    subject: &'a Subject,
    /// Whether what matches is counted.
    counts: bool,
    /// Whether counters are compared.
    compares: bool,
    /// Where it is counted instead, if that is not to be kept.
    scratch: Option<&'a Scratch>,
}

/// What a set says of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    No,
    Yes,
    /// It is an exception.
    Except,
}

impl SetMatch {
    /// The condition of a rule that stands there.
    #[must_use]
    pub fn at(&self, hook: Hook) -> Self {
        Self { hook, ..self.clone() }
    }

    /// Whether it holds. Nothing is counted for what is no packet.
    #[inline]
    #[must_use]
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        let subject = Subject::of(facts, self.hook);
        let (counts, scratch) = match facts.rates {
            Rates::Live(_) => (!self.keep_counters, None),
            Rates::Scratch(_, scratch) => (false, Some(scratch).filter(|_| !self.keep_counters)),
            Rates::Probe(_) => (false, None),
        };
        let ask = Ask { of: self, subject: &subject, counts, compares: true, scratch };
        ask.is_in(&self.slot.peek()) != self.invert
    }
}

impl Ask<'_> {
    /// Linux `ip_set_test`: fewer directions than the set has parts, or another family, is no.
    fn is_in(self, set: &Set) -> bool {
        let spec = set.spec();
        if self.of.directions.count < spec.kind.parts()
            || spec.family.is_some_and(|family| family != self.subject.family())
        {
            return false;
        }
        match self.said(set) {
            Said::Yes => !(self.of.return_nomatch && spec.kind.net() != super::NetPart::None),
            Said::Except => self.of.return_nomatch,
            Said::No => false,
        }
    }

    fn said(self, set: &Set) -> Said {
        if let Content::List(list) = &set.content {
            let scratch = self.scratch.filter(|_| !self.of.keep_subcounters);
            let inner =
                Ask { counts: self.counts && !self.of.keep_subcounters, compares: false, scratch, ..self };
            let holds = list.load().iter().any(|member| {
                !member.is_over(self.subject.nanos)
                    && inner.is_in(&member.slot.peek())
                    && self.counters_fit(set.spec().counters.then(|| member.counts()))
            });
            return if holds { Said::Yes } else { Said::No };
        }
        let spec = set.spec();
        let Some(element) = self.subject.element(spec, self.of.directions, |port| set.nic(port)) else {
            return Said::No;
        };
        let is_within = match spec.kind {
            Kind::BitmapIp => (u128::from(spec.range.0)..=u128::from(spec.range.1)).contains(&element.addr),
            Kind::HashNetIface => element.iface != 0,
            _ => true,
        };
        if !is_within {
            return Said::No;
        }
        let fits = |value: &Value| {
            !is_over(value, self.subject.nanos)
                && self.counters_fit(spec.counters.then(|| set.counters.get(value.counter)).flatten())
        };
        match set.first_covering(element, fits) {
            None => Said::No,
            Some(value) if value.nomatch => Said::Except,
            Some(_) => Said::Yes,
        }
    }

    /// Counts the packet, and then compares.
    fn counters_fit(self, counters: Option<Counts<'_>>) -> bool {
        let Some([packets, bytes]) = counters else { return true };
        if self.counts {
            packets.fetch_add(1, Ordering::Relaxed);
            bytes.fetch_add(u64::from(self.subject.len), Ordering::Relaxed);
        }
        let more = self.scratch.map_or(0, |scratch| scratch.meet(packets));
        let fits = |asked: Option<Compare>, have: &AtomicU64, more: u64| {
            asked.is_none_or(|compare| compare.holds(have.load(Ordering::Relaxed).wrapping_add(more)))
        };
        !self.compares
            || fits(self.of.packets, packets, more)
                && fits(self.of.bytes, bytes, more * u64::from(self.subject.len))
    }
}
