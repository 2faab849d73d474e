//! Every metric, from the page that the daemon would answer if it had one of everything.

use super::cell;
use control::api::metrics::{
    Facts, Format, HistogramFacts, IpfixFacts, PolicyFacts, RuleFacts, RulesFacts, WorkerFacts, exposition,
};
use control::api::types::{
    DropCount, HandoffRow, PeerRow, PortStats, QueueStats, Stats, TrackRow, Traffic, WireStats, WorkerStats,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub(super) fn page() -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         What `GET /metrics` answers, as OpenMetrics. Where to get it, and what deserves an alert: \
         [Monitoring](../operations/monitoring.md). Names, labels and units stay as they are.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in families(&exposition(one_of_everything(), Format::OpenMetrics)) {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let Family { name, kind, help, .. } = &family;
        let shown = if kind == "counter" { format!("{name}_total") } else { name.clone() };
        let _ = writeln!(out, "| `{shown}` | {kind} | {} | {} |", labels.join(", "), cell(help));
    }
    out.push_str(
        "\nA histogram has `_bucket` (with `le`), `_sum` and `_count` behind its name, an info metric has `_info`.\n",
    );
    out
}

/// A family of the page.
struct Family {
    name: String,
    kind: String,
    help: String,
    /// Labels that its series have.
    labels: Vec<String>,
}

fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut place: BTreeMap<String, usize> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", what @ ("HELP" | "TYPE"), name, rest] => {
                let at = *place.entry((*name).to_owned()).or_insert_with(|| {
                    let name = (*name).to_owned();
                    families.push(Family {
                        name,
                        kind: String::new(),
                        help: String::new(),
                        labels: Vec::new(),
                    });
                    families.len() - 1
                });
                if let Some(family) = families.get_mut(at) {
                    let field = if *what == "HELP" { &mut family.help } else { &mut family.kind };
                    *field = (*rest).to_owned();
                }
            }
            ["#", ..] => {}
            _ => {
                if let Some(family) = families.last_mut() {
                    let labels = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
                    for label in labels.map_or("", |(labels, _)| labels).split("\",") {
                        let name = label.split('=').next().unwrap_or_default();
                        if !name.is_empty() && name != "le" && !family.labels.iter().any(|have| have == name)
                        {
                            family.labels.push(name.to_owned());
                        }
                    }
                }
            }
        }
    }
    families
}

fn one_of_everything() -> Facts {
    let histogram = || HistogramFacts { buckets: vec![(Some(1), 0), (None, 0)], sum: 0 };
    let drops = || vec![DropCount { reason: "policy_drop".to_owned(), ..DropCount::default() }];
    let traffic = Traffic::default();
    Facts {
        stats: Stats {
            wires: vec![WireStats { drops: drops(), ..WireStats::default() }],
            ports: vec![PortStats { queues: vec![QueueStats::default()], ..PortStats::default() }],
            workers: vec![WorkerStats {
                handoffs: vec![HandoffRow::default()],
                peers: vec![PeerRow::default()],
                ..WorkerStats::default()
            }],
            drops: drops(),
            invalid: BTreeMap::from([("tcp_state".to_owned(), 0)]),
            ..Stats::default()
        },
        track: vec![TrackRow::default()],
        rules: RulesFacts {
            confirm_secs: Some(60),
            count: vec![("ipv4", 0)],
            policies: vec![PolicyFacts { family: "ipv4", table: "filter", ..PolicyFacts::default() }],
            rules: vec![RuleFacts { family: "ipv4", table: "filter", ..RuleFacts::default() }],
            kept: vec![("ipv4", traffic)],
            ..RulesFacts::default()
        },
        workers: vec![WorkerFacts {
            busy_nanos: histogram(),
            busy_packets: histogram(),
            handoff_bursts: histogram(),
            handoff_wait: histogram(),
            ..WorkerFacts::default()
        }],
        ipfix: Some(IpfixFacts::default()),
        ..Facts::default()
    }
}
