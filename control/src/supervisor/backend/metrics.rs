//! What is told to monitoring beyond `fwctl stats`: rules, histograms of workers, events. API threads. Nothing here waits
//! for a change of the rules that is under way: what was known before is told again.

use super::super::ipfix::Tally;
use super::LiveBackend;
use crate::api::Wall;
use crate::api::backend::Backend as _;
use crate::api::metrics::{
    ClientFacts, EventFacts, Facts, HistogramFacts, PolicyFacts, RuleFacts, RulesFacts, WorkerFacts,
};
use crate::api::types::Traffic;
use crate::iptables::printer::policy_name;
use crate::publish::Counts;
use dataplane::flow::TrackSettings;
use dataplane::packet::Family;
use dataplane::rules::model::RuleRef;
use dataplane::worker::Histogram;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest comment that is told, in characters.
const COMMENT_MAX: usize = 64;

/// What is remembered between two times of asking.
#[derive(Debug)]
pub(super) struct Metrics {
    started_secs: f64,
    changed: Mutex<Changed>,
    /// What the exporter of flow records counts, if there is one.
    exporter: OnceLock<Arc<Tally>>,
}

/// What the changes of the rules have left behind, as last seen.
#[derive(Clone, Copy, Debug, Default)]
struct Changed {
    applied_secs: f64,
    confirm_secs: Option<u32>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_secs: now.as_secs_f64(), changed: Mutex::default(), exporter: OnceLock::new() }
    }
}

impl LiveBackend {
    /// Everything that is told.
    pub(super) fn all_metrics(&self) -> Facts {
        Facts {
            version: self.version(),
            stats: self.all_stats(),
            track: self.tracked(),
            started_secs: self.metrics.started_secs,
            rules: self.rules_facts(),
            workers: (0..).zip(&self.workers).map(worker_facts).collect(),
            events: EventFacts { listeners: self.hub.listener_count() as u64, lost: self.hub.lost() },
            clients: ClientFacts::default(),
            ipfix: self.metrics.exporter.get().map(|counts| counts.facts()),
        }
    }

    /// Notes where the exporter of flow records counts.
    pub(in crate::supervisor) fn note_exporter(&self, counts: Arc<Tally>) {
        // There is one exporter, started once.
        let _ = self.metrics.exporter.set(counts);
    }

    /// The tracker's settings in force.
    pub(in crate::supervisor) fn track_settings(&self) -> TrackSettings {
        self.publisher.track_settings()
    }

    /// What the clocks show now.
    pub(in crate::supervisor) fn wall_now(&self) -> Wall {
        self.wall_at(self.now())
    }

    /// Most flows of all tables.
    pub(in crate::supervisor) const fn flows_max(&self) -> u32 {
        self.flows_max
    }

    fn rules_facts(&self) -> RulesFacts {
        let Changed { applied_secs, confirm_secs } = self.changed();
        // Rules with series of their own.
        let rules_max = self.configured(|config| config.metrics.rules);
        let rules_max = usize::try_from(rules_max).unwrap_or(usize::MAX);
        let mut facts = RulesFacts { applied_secs, confirm_secs, ..RulesFacts::default() };
        for (family, name) in [(Family::V4, "ipv4"), (Family::V6, "ipv6")] {
            let (rules, counts, kept) = self.publisher.rules_and_kept(family);
            facts.count.push((name, rules.ruleset.rules().count() as u64));
            facts.kept.push((name, traffic(kept)));
            let mut by_comment: BTreeMap<(&'static str, String, String), Traffic> = BTreeMap::new();
            for by in rules.ruleset.references() {
                let (chain, count) = (rules.ruleset.chain(by.chain), counted(&counts, by));
                let Some(rule) = by.rule else {
                    facts.policies.push(PolicyFacts {
                        family: name,
                        table: chain.table.name(),
                        chain: chain.name.clone(),
                        verdict: policy_name(chain.policy).to_owned(),
                        traffic: count,
                    });
                    continue;
                };
                let written = rules.file.chains.get(by.chain.0 as usize).and_then(|chain| {
                    let rule = chain.rules.get(rule as usize)?;
                    rule.matches.iter().find_map(|instance| instance.comment())
                });
                let Some(comment) = written else { continue };
                let comment = comment.chars().take(COMMENT_MAX).collect();
                let key = (chain.table.name(), chain.name.clone(), comment);
                if let Some(sum) = by_comment.get_mut(&key) {
                    sum.packets += count.packets;
                    sum.bytes += count.bytes;
                } else if facts.rules.len() + by_comment.len() < rules_max {
                    by_comment.insert(key, count);
                } else {
                    facts.left_out += 1;
                }
            }
            facts.rules.extend(by_comment.into_iter().map(|((table, chain, comment), traffic)| RuleFacts {
                family: name,
                table,
                chain,
                comment,
                traffic,
            }));
        }
        facts
    }

    /// When rules were last put into force, and what waits for its confirmation.
    fn changed(&self) -> Changed {
        let mut known = self.metrics.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(changes) = self.changes.try_lock() {
            *known = Changed {
                applied_secs: changes.applied_at().max(self.metrics.started_secs),
                confirm_secs: changes.confirm_secs_left(),
            };
        }
        *known
    }
}

fn counted(counts: &HashMap<RuleRef, Counts>, by: RuleRef) -> Traffic {
    traffic(counts.get(&by).copied().unwrap_or_default())
}

const fn traffic((packets, bytes): Counts) -> Traffic {
    Traffic { packets, bytes }
}

fn worker_facts((id, worker): (u8, &super::WorkerFacts)) -> WorkerFacts {
    let polls = &worker.counters.polls;
    WorkerFacts {
        id,
        unlogged: polls.unlogged.get(),
        unasked: polls.unasked.get(),
        verdict_hits: polls.verdict_hits.get(),
        classified: polls.classified.get(),
        frames_free: polls.frames_free.get(),
        busy_nanos: histogram(&polls.busy_nanos),
        busy_packets: histogram(&polls.busy_packets),
        handoff_bursts: histogram(&worker.counters.handoff.bursts),
        handoff_wait: histogram(&worker.counters.handoff.wait_nanos),
    }
}

fn histogram<const BUCKETS: usize, const FIRST: u32>(of: &Histogram<BUCKETS, FIRST>) -> HistogramFacts {
    let (buckets, sum) = of.get();
    HistogramFacts { buckets, sum }
}
