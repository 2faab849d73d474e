//! `fwctl replay`: the dataplane over a capture file, offline and without root, with the capture's own clock.
//!
//! The same parser, tracker, rules and worker as in the gateway, on loopback devices ([`dataplane::testing`]); what
//! differs is where frames come from and who turns the clock.
//!
//! One line per packet. A fragment's comes when its datagram's fate is known, which may be after those of later packets; if
//! the capture ends before, its verdict is `held`.

mod capture;
mod sides;

pub use capture::{CaptureError, Captured, nth};

use crate::api::types::Net;
use crate::labels::LabelNames;
use crate::rules_file::{self, Named, Rules};
use crate::sets::{self, Store};
use dataplane::clock::Now;
use dataplane::flow::TimeoutPolicy;
use dataplane::ids::PortId;
use dataplane::packet::Family;
use dataplane::reason::DropReason;
use dataplane::rules::model::{CtState, RuleRef};
use dataplane::testing::gateway::{Gateway, GatewayConfig, Outcome, Released};
use dataplane::worker::Fate;
use serde::Serialize;
use sides::Sides;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::PathBuf;

/// What to replay, and how.
#[derive(Clone, Debug)]
pub struct ReplayOptions {
    /// The capture.
    pub capture: PathBuf,
    /// IPv4 rules.
    pub rules: Option<PathBuf>,
    /// IPv6 rules.
    pub rules6: Option<PathBuf>,
    /// Timeout policies that the rules may name.
    pub policies: Vec<TimeoutPolicy>,
    /// Names of labels that they may use.
    pub labels: LabelNames,
    /// Sets that they may name, as `ipset save` prints them.
    pub sets: Option<PathBuf>,
    /// Prefixes that live on the left; empty: the first speaker of each address pair does.
    pub left: Vec<Net>,
    /// Interface names, settings and sizes.
    pub gateway: GatewayConfig,
    /// One JSON object per line instead of text.
    pub json: bool,
}

/// Exit code: all is well.
pub const EXIT_OK: i32 = 0;
/// Exit code: the rules are wrong, or the capture cannot be read.
pub const EXIT_WRONG: i32 = 1;

/// One packet's line with `--json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    n: u64,
    time: f64,
    ingress: &'a str,
    verdict: &'static str,
    reason: Option<&'static str>,
    ct_state: Option<&'static str>,
    rule: Option<&'a str>,
    rule_text: Option<&'a str>,
    answers: usize,
}

/// What the summary counts.
#[derive(Debug, Default)]
struct Summary {
    packets: u64,
    verdicts: BTreeMap<&'static str, u64>,
    reasons: BTreeMap<&'static str, u64>,
    cut: u64,
}

/// Replays a capture and returns the exit code.
///
/// # Errors
/// Only if writing to `out` or `err` fails.
pub fn run(options: &ReplayOptions, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
    let store = Store::new(&options.gateway.names);
    if let Some(path) = &options.sets
        && !sets::file::load(&store, path, err)?
    {
        return Ok(EXIT_WRONG);
    }
    let mut rulesets = Vec::new();
    for (path, family) in [(&options.rules, Family::V4), (&options.rules6, Family::V6)] {
        let Some(path) = path else { continue };
        let named = Named { policies: &options.policies, sets: &store.slots(), labels: &options.labels };
        match rules_file::load_file(path, family, named, err)? {
            Ok(rules) => rulesets.push(rules),
            Err(code) => return Ok(i32::from(code)),
        }
    }
    let mut gateway = match gateway(options, &rulesets) {
        Ok(gateway) => gateway,
        Err(error) => {
            writeln!(err, "error: {error}")?;
            return Ok(EXIT_WRONG);
        }
    };
    let mut replay = Replay {
        options,
        labels: Labels::new(&rulesets),
        sides: Sides::new(&options.left),
        store,
        held: BTreeMap::new(),
    };
    replay.run(&mut gateway, out, err)
}

/// The gateway to replay on. A capture that was cut has no checksums worth looking at.
fn gateway(options: &ReplayOptions, rulesets: &[Rules]) -> Result<Gateway, Box<dyn std::error::Error>> {
    let mut cut = false;
    capture::for_each(&options.capture, |captured| cut |= captured.cut).or_else(|error| match error {
        // Damage further on is reported when the replay gets there.
        CaptureError::Format { packet, .. } if packet > 1 => Ok(()),
        other => Err(other),
    })?;
    let mut config = options.gateway.clone();
    if cut {
        config.settings.track.checksum = false;
    }
    config.frame_len_max = u32::MAX;
    let rulesets: Vec<_> = rulesets.iter().map(|rules| (*rules.ruleset).clone()).collect();
    Ok(Gateway::new(&rulesets, config)?)
}

struct Replay<'a> {
    options: &'a ReplayOptions,
    labels: Labels,
    sides: Sides,
    /// Fragments held for the rest of their datagrams, by number: their lines come when their fate is known.
    held: BTreeMap<u64, Arrived>,
    /// The sets; what rules want of them is done before the next packet.
    store: Store,
}

/// A packet of the capture.
#[derive(Clone, Copy)]
struct Arrived {
    /// Which one, counted from one.
    n: u64,
    nanos: u64,
    side: PortId,
}

/// What became of it.
#[derive(Clone, Copy)]
enum Verdict {
    /// It did not fit the memory that frames have here.
    TooLong,
    /// The capture has ended before its datagram was complete.
    Held,
    /// This, under the rules of this family.
    Fate(Fate, Option<Family>),
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Fate(Fate { dropped: None, .. }, _) => "accept",
            Self::Fate(
                Fate { dropped: Some(DropReason::RuleReject | DropReason::RuleRejectSilent), .. },
                _,
            ) => "reject",
            Self::TooLong | Self::Fate(..) => "drop",
        }
    }

    fn reason(self) -> Option<&'static str> {
        match self {
            Self::TooLong => Some("frame_too_long"),
            Self::Held => None,
            Self::Fate(fate, _) => fate.dropped.map(DropReason::name),
        }
    }
}

impl Replay<'_> {
    fn run(&mut self, gateway: &mut Gateway, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<i32> {
        let mut summary = Summary::default();
        let mut written = Ok(());
        let mut aged = 0;
        let read = capture::for_each(&self.options.capture, |captured| {
            if written.is_ok() {
                summary.packets += 1;
                summary.cut += u64::from(captured.cut);
                // Timestamps may step back a little between a capture's interfaces; the clock does not.
                let now = Now { nanos: captured.nanos.max(gateway.now().nanos) };
                let second = now.nanos / 1_000_000_000;
                gateway.set_clock(now);
                if std::mem::replace(&mut aged, second) != second {
                    gateway.age();
                }
                let side = self.sides.side(&captured.frame);
                let outcome = gateway.send(side, &captured.frame);
                gateway.set_asks().iter().for_each(|ask| self.store.carry_out(ask));
                let arrived = Arrived { n: summary.packets, nanos: captured.nanos, side };
                written = self.report(&mut summary, arrived, &outcome, out);
            }
        });
        written?;
        for arrived in std::mem::take(&mut self.held).into_values() {
            self.line(&mut summary, arrived, Verdict::Held, 0, out)?;
        }
        self.summarise(&summary, if self.options.json { &mut *err } else { &mut *out })?;
        match read {
            Ok(()) => Ok(EXIT_OK),
            Err(error) => {
                writeln!(err, "error: {error}")?;
                Ok(EXIT_WRONG)
            }
        }
    }

    /// Prints a line for each packet whose fate is known now.
    fn report(
        &mut self,
        summary: &mut Summary,
        arrived: Arrived,
        outcome: &Outcome,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        for Released { number, family, fate } in &outcome.released {
            if let Some(before) = self.held.remove(number) {
                self.line(summary, before, Verdict::Fate(*fate, *family), 0, out)?;
            }
        }
        if outcome.is_held {
            self.held.insert(outcome.number, arrived);
            return Ok(());
        }
        let verdict = outcome.fate.map_or(Verdict::TooLong, |fate| Verdict::Fate(fate, outcome.family));
        self.line(summary, arrived, verdict, outcome.answers.len(), out)
    }

    /// Prints one packet's line and counts it.
    fn line(
        &self,
        summary: &mut Summary,
        arrived: Arrived,
        verdict: Verdict,
        answers: usize,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let Arrived { n, nanos, side } = arrived;
        *summary.verdicts.entry(verdict.word()).or_default() += 1;
        if let Some(reason) = verdict.reason() {
            *summary.reasons.entry(reason).or_default() += 1;
        }
        let (fate, family) = match verdict {
            Verdict::Fate(fate, family) => (Some(fate), family),
            Verdict::TooLong | Verdict::Held => (None, None),
        };
        let label = fate.and_then(|fate| fate.rule).zip(family);
        let label = label.and_then(|(by, family)| self.labels.get(family, by));
        let line = Line {
            n,
            #[expect(clippy::cast_precision_loss, reason = "microseconds survive for 285 years")]
            time: (nanos / 1000) as f64 / 1e6,
            ingress: &self.options.gateway.names[side.index()],
            verdict: verdict.word(),
            reason: verdict.reason(),
            ct_state: fate.and_then(|fate| fate.ct_state).map(CtState::name),
            rule: label.map(|label| label.0.as_str()),
            rule_text: label.map(|label| label.1.as_str()),
            answers,
        };
        if self.options.json {
            serde_json::to_writer(&mut *out, &line)?;
            return writeln!(out);
        }
        let dash = |text: Option<&'static str>| text.unwrap_or("-");
        let (rule, text) = label.map_or(("-", ""), |label| (label.0.as_str(), label.1.as_str()));
        writeln!(
            out,
            "{:>6} {:17.6} {:8} {:7} {:20} {:12} {rule:16} {text}",
            line.n,
            line.time,
            line.ingress,
            line.verdict,
            dash(line.reason),
            dash(line.ct_state)
        )
    }

    fn summarise(&self, summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{} packets", summary.packets)?;
        for (verdict, count) in &summary.verdicts {
            write!(out, ", {count} {verdict}")?;
        }
        writeln!(out)?;
        for (reason, count) in &summary.reasons {
            writeln!(out, "  {count:>8} {reason}")?;
        }
        if summary.cut > 0 {
            writeln!(
                out,
                "note: the capture cut {} packets; their checksums were not verified",
                summary.cut
            )?;
        }
        Ok(())
    }
}

/// How rules are called: `FORWARD:3` as `iptables -L --line-numbers` counts, `FORWARD:policy`; and their text.
struct Labels([(Family, RuleLabels); 2]);

/// Short name and text of every rule.
type RuleLabels = HashMap<RuleRef, (String, String)>;

impl Labels {
    fn new(rules: &[Rules]) -> Self {
        let of = |family: Family| rules.iter().find(|rules| rules.ruleset.family == family).cloned();
        Self(
            [Family::V4, Family::V6]
                .map(|family| (family, labels(&of(family).unwrap_or_else(|| Rules::empty(family))))),
        )
    }

    fn get(&self, family: Family, by: RuleRef) -> Option<&(String, String)> {
        self.0.iter().find(|(have, _)| *have == family)?.1.get(&by)
    }
}

fn labels(rules: &Rules) -> RuleLabels {
    let label = |by: RuleRef| {
        let name = &rules.ruleset.chain(by.chain).name;
        let number = by.rule.map_or("policy".to_owned(), |rule| (rule + 1).to_string());
        (by, (format!("{name}:{number}"), rules.line(by)))
    };
    rules.ruleset.references().map(label).collect()
}
