//! Families of rules, of workers' histograms and of what goes on beside packets.

use super::page::{Out, count, label, lone};
use super::{ClientFacts, EventFacts, IpfixFacts, RulesFacts, WorkerFacts};
use std::fmt;

/// The rules in force and what their policies, and the rules asked for, have met.
pub(super) fn rules(out: &mut Out<'_>, facts: &RulesFacts) -> fmt::Result {
    let RulesFacts { applied_secs, confirm_secs, count: rules, policies, rules: told, left_out, kept } =
        facts;
    let seconds = Some("seconds");
    out.gauge(
        "rules_applied",
        seconds,
        "When the rules in force were put into force, since 1970",
        lone(*applied_secs),
    )?;
    out.gauge(
        "rules_confirmation_pending",
        None,
        "Whether rules go back by themselves unless they are confirmed",
        lone(f64::from(u8::from(confirm_secs.is_some()))),
    )?;
    out.gauge(
        "rules_confirmation_left",
        seconds,
        "Time left to confirm them; 0 if nothing waits for that",
        lone(f64::from(confirm_secs.unwrap_or(0))),
    )?;
    let by_family = rules.iter().map(|(family, rules)| (label("family", family), count(*rules)));
    out.gauge("rules", None, "Rules in force", by_family)?;
    let policies = policies.iter().map(|policy| {
        let labels = vec![
            ("family", policy.family.to_owned()),
            ("table", policy.table.to_owned()),
            ("chain", policy.chain.clone()),
            ("policy", policy.verdict.clone()),
        ];
        (labels, policy.traffic)
    });
    out.traffic_of_ip("policy", "that came to the end of a built-in chain", policies)?;
    let told = told.iter().map(|rule| {
        let labels = vec![
            ("family", rule.family.to_owned()),
            ("table", rule.table.to_owned()),
            ("chain", rule.chain.clone()),
            ("comment", rule.comment.clone()),
        ];
        (labels, rule.traffic)
    });
    out.traffic_of_ip("rule", "that rules with a comment matched (metrics.rules)", told)?;
    out.gauge(
        "rules_left_out",
        None,
        "Rules with a comment that have no series because metrics.rules allows no more",
        lone(count(*left_out)),
    )?;
    let kept = kept.iter().map(|(family, traffic)| (label("family", family), *traffic));
    out.traffic_of_ip("kept", "of flows that go on under earlier rules", kept)
}

/// Counters and histograms of workers.
pub(super) fn workers(out: &mut Out<'_>, workers: &[WorkerFacts]) -> fmt::Result {
    let of = |worker: &WorkerFacts| label("worker", &worker.id);
    for (name, unit, help, value) in WORKERS {
        let rows = workers.iter().map(|worker| (of(worker), value(worker)));
        out.counter(name, *unit, help, rows)?;
    }
    let free = workers.iter().map(|worker| (of(worker), count(worker.frames_free)));
    out.gauge("worker_frames_free", None, "Packet buffers of its own that are in no ring and no hand", free)?;
    out.histogram(
        "worker_burst",
        "seconds",
        1e-9,
        "Time of a round over its queues that found packets, until the next one began",
        workers.iter().map(|worker| (of(worker), &worker.busy_nanos)),
    )?;
    out.histogram(
        "worker_burst",
        "packets",
        1.0,
        "Packets that such a round found",
        workers.iter().map(|worker| (of(worker), &worker.busy_packets)),
    )?;
    out.histogram(
        "handoff_burst",
        "packets",
        1.0,
        "Packets taken over from another worker in one go",
        workers.iter().map(|worker| (of(worker), &worker.handoff_bursts)),
    )?;
    out.histogram(
        "handoff_wait",
        "seconds",
        1e-9,
        "Time on the way from another worker, from the round in which packets were given to the one in which they were taken over, of one burst in 16",
        workers.iter().map(|worker| (of(worker), &worker.handoff_wait)),
    )
}

/// Name, unit, help and value of a counter.
type Worker = (&'static str, Option<&'static str>, &'static str, fn(&WorkerFacts) -> u64);

const WORKERS: &[Worker] = &[
    (
        "worker_unlogged",
        Some("packets"),
        "Packets that should have been logged and were too many",
        |worker| worker.unlogged,
    ),
    ("worker_set_orders_lost", None, "Changes of sets by rules that found no room", |worker| worker.unasked),
    ("worker_verdict_hits", None, "Verdicts taken from flows", |worker| worker.verdict_hits),
    ("worker_classified", None, "Walks through the rules", |worker| worker.classified),
];

/// What goes on beside packets.
pub(super) fn around(out: &mut Out<'_>, events: &EventFacts, clients: &ClientFacts) -> fmt::Result {
    out.gauge("event_listeners", None, "Who listens to events of flows", lone(count(events.listeners)))?;
    out.counter("events_lost", None, "Events of flows that found no room on their way", lone(events.lost))?;
    let ClientFacts { connections, closed, refused } = *clients;
    out.counter("api_connections", None, "Connections that the API took", lone(connections))?;
    out.counter("api_connections_closed", None, "Of those, closed to make room for others", lone(closed))?;
    out.counter(
        "api_requests_refused",
        None,
        "Requests refused because too many of their client were being served",
        lone(refused),
    )
}

/// Flow records. Without a collector there are no series.
pub(super) fn ipfix(out: &mut Out<'_>, facts: Option<&IpfixFacts>) -> fmt::Result {
    for (name, unit, help, value) in IPFIX {
        out.counter(name, *unit, help, facts.map(|facts| (Vec::new(), value(facts))))?;
    }
    let up = facts.map(|facts| (Vec::new(), f64::from(u8::from(facts.is_up))));
    out.gauge("ipfix_up", None, "Whether the collector can be reached, as far as is known", up)?;
    let known = facts.map(|facts| (Vec::new(), count(facts.known)));
    out.gauge("ipfix_flows_known", None, "Flows that were reported and go on", known)
}

/// Name, unit, help and value of a counter.
type Ipfix = (&'static str, Option<&'static str>, &'static str, fn(&IpfixFacts) -> u64);

const IPFIX: &[Ipfix] = &[
    ("ipfix_sent", Some("messages"), "Messages sent to the collector", |ipfix| ipfix.messages),
    ("ipfix_sent", Some("records"), "Flow records in them", |ipfix| ipfix.records),
    ("ipfix_sent", Some("bytes"), "Their octets", |ipfix| ipfix.bytes),
    ("ipfix_lost", Some("records"), "Flow records that were not sent, or refused", |ipfix| {
        ipfix.records_lost
    }),
    ("ipfix_lost", Some("flows"), "Ends of flows that were not heard of in time", |ipfix| ipfix.events_lost),
    ("ipfix_send_errors", None, "Messages that could not be sent", |ipfix| ipfix.send_errors),
];
