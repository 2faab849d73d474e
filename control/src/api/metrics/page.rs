//! The page of metrics: which families there are, and what stands in them.

use super::{Facts, HistogramFacts, more};
use crate::api::types::{
    PortMode, PortStats, QueueStats, Side, Stats, TrackRow, Traffic, WireStats, WorkerStats,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

/// How the page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

impl Format {
    /// What a client gets that accepts this: OpenMetrics, unless it names types and only the older format is among them.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Self {
        let Some(accept) = accept else { return Self::OpenMetrics };
        let takes = |what: &str| {
            accept.split(',').any(|range| range.split(';').next().is_some_and(|name| name.trim() == what))
        };
        let takes_new = ["application/openmetrics-text", "application/*", "*/*"].into_iter().any(takes);
        if !takes_new && ["text/plain", "text/*"].into_iter().any(takes) {
            Self::Text
        } else {
            Self::OpenMetrics
        }
    }

    /// As HTTP calls it.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// The page.
#[must_use]
pub fn exposition(facts: Facts, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(facts)));
    let mut out = String::new();
    let encoded = match format {
        Format::OpenMetrics => text::encode(&mut out, &registry),
        Format::Text => prometheus_text::encode(&mut out, &registry),
    };
    encoded.expect("writing to a String does not fail");
    out
}

#[derive(Debug)]
struct Page(Facts);

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        let Facts { version, stats, track, started_secs, rules, workers: more, events, clients, ipfix } =
            &self.0;
        out.info("build", "Which daemon this is", vec![("version", version.version.clone())])?;
        out.gauge("start_time", Some("seconds"), "When the daemon started, since 1970", lone(*started_secs))?;
        out.gauge("uptime", Some("seconds"), "Time since the daemon started", lone(secs(stats.uptime_ms)))?;
        out.gauge(
            "generation",
            None,
            "Number of the rules and settings in force; grows with every change",
            lone(f64::from(stats.generation)),
        )?;
        more::rules(&mut out, rules)?;
        wires(&mut out, &stats.wires)?;
        ports(&mut out, &stats.ports)?;
        workers(&mut out, &stats.workers)?;
        more::workers(&mut out, more)?;
        flows(&mut out, stats)?;
        for (name, help, value) in TRACKED {
            let rows = track.iter().map(|row| (label("worker", &row.worker), value(row)));
            out.counter(name, None, help, rows)?;
        }
        more::around(&mut out, events, clients)?;
        more::ipfix(&mut out, ipfix.as_ref())
    }
}

/// Columns of `conntrack -S`.
type Tracked = (&'static str, &'static str, fn(&TrackRow) -> u64);
const TRACKED: &[Tracked] = &[
    ("conntrack_found", "Packets of flows already in the table", |row| row.found),
    ("conntrack_invalid", "Packets found INVALID, whatever the cause", |row| row.invalid),
    ("conntrack_insert", "Flows put into the table", |row| row.insert),
    ("conntrack_insert_failed", "Flows that could not be put into the table", |row| row.insert_failed),
    ("conntrack_drop", "Packets dropped because the table was full", |row| row.drop),
    ("conntrack_early_drop", "Flows ended to make room for others", |row| row.early_drop),
];

/// Labels with their values, in order.
pub(super) type Labels = Vec<(&'static str, String)>;

pub(super) fn label(name: &'static str, value: &(impl ToString + ?Sized)) -> Labels {
    vec![(name, value.to_string())]
}

/// A value without labels.
pub(super) fn lone<T>(value: T) -> [(Labels, T); 1] {
    [(Labels::new(), value)]
}

/// Milliseconds in seconds.
#[expect(clippy::cast_precision_loss, reason = "times of processes are far below 2^53 milliseconds")]
fn secs(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Writes families one after the other.
pub(super) struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn family(
        &mut self,
        name: &str,
        unit: Option<&str>,
        help: &str,
        kind: MetricType,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        let name = format!("palisade_{name}");
        let help = format!("{help}.");
        let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
        write(&mut self.0.encode_descriptor(&name, &help, unit.as_ref(), kind)?)
    }

    /// Numbers that only grow, `_total` behind their names.
    pub(super) fn counter(
        &mut self,
        name: &str,
        unit: Option<&str>,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, u64)>,
    ) -> fmt::Result {
        self.family(name, unit, help, MetricType::Counter, |metric| {
            rows.into_iter().try_for_each(|(labels, value)| {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
            })
        })
    }

    pub(super) fn gauge(
        &mut self,
        name: &str,
        unit: Option<&str>,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        self.family(name, unit, help, MetricType::Gauge, |metric| {
            rows.into_iter()
                .try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
        })
    }

    fn info(&mut self, name: &str, help: &str, labels: Labels) -> fmt::Result {
        self.infos(name, help, [labels])
    }

    /// What has no number, as labels; `_info` behind its name.
    fn infos(&mut self, name: &str, help: &str, rows: impl IntoIterator<Item = Labels>) -> fmt::Result {
        self.family(name, None, help, MetricType::Info, |metric| {
            rows.into_iter().try_for_each(|labels| metric.encode_info(&labels))
        })
    }

    /// Histograms of values that are `scale` units each.
    pub(super) fn histogram<'f>(
        &mut self,
        name: &str,
        unit: &str,
        scale: f64,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, &'f HistogramFacts)>,
    ) -> fmt::Result {
        self.family(name, Some(unit), help, MetricType::Histogram, |metric| {
            rows.into_iter().try_for_each(|(labels, HistogramFacts { buckets, sum })| {
                let scaled = |value: u64| count(value) * scale;
                let bounded: Vec<(f64, u64)> = buckets
                    .iter()
                    .map(|(bound, values)| (bound.map_or(f64::INFINITY, scaled), *values))
                    .collect();
                let values = buckets.iter().map(|(_, values)| values).sum();
                metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    scaled(*sum),
                    values,
                    &bounded,
                    None,
                )
            })
        })
    }

    /// Packets and bytes of frames, a family each.
    pub(super) fn traffic(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, Traffic)>,
    ) -> fmt::Result {
        self.traffic_in(name, help, "without FCS", rows)
    }

    /// The same where bytes are those that iptables counts.
    pub(super) fn traffic_of_ip(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, Traffic)>,
    ) -> fmt::Result {
        self.traffic_in(name, help, "IP header on", rows)
    }

    fn traffic_in(
        &mut self,
        name: &str,
        help: &str,
        which_bytes: &str,
        rows: impl IntoIterator<Item = (Labels, Traffic)>,
    ) -> fmt::Result {
        let rows: Vec<_> = rows.into_iter().collect();
        let packets = rows.iter().map(|(labels, traffic)| (labels.clone(), traffic.packets));
        self.counter(name, Some("packets"), &format!("Packets {help}"), packets)?;
        let bytes = rows.iter().map(|(labels, traffic)| (labels.clone(), traffic.bytes));
        self.counter(name, Some("bytes"), &format!("Bytes of packets {help}, {which_bytes}"), bytes)
    }
}

fn wires(out: &mut Out<'_>, wires: &[WireStats]) -> fmt::Result {
    let forwarded = wires.iter().flat_map(|wire| {
        [("left_to_right", wire.left_to_right), ("right_to_left", wire.right_to_left)].map(
            |(direction, traffic)| {
                (vec![("wire", wire.name.clone()), ("direction", direction.to_owned())], traffic)
            },
        )
    });
    out.traffic("wire_forwarded", "forwarded", forwarded)?;
    let dropped = wires.iter().flat_map(|wire| {
        wire.drops.iter().map(|drop| {
            let labels = vec![("wire", wire.name.clone()), ("reason", drop.reason.clone())];
            (labels, Traffic { packets: drop.packets, bytes: drop.bytes })
        })
    });
    out.traffic("dropped", "dropped, each for one reason", dropped)
}

fn ports(out: &mut Out<'_>, ports: &[PortStats]) -> fmt::Result {
    let of = |port: &PortStats| vec![("port", port.name.clone()), ("wire", port.wire.clone())];
    let facts = ports.iter().map(|port| {
        let mut labels = of(port);
        let side = if port.side == Side::Left { "left" } else { "right" };
        let mode = if port.mode == PortMode::Native { "native" } else { "generic" };
        labels.push(("side", side.to_owned()));
        labels.push(("xdp_mode", mode.to_owned()));
        labels.push(("zero_copy", port.zero_copy.to_string()));
        labels
    });
    out.infos("port", "The NICs, and how their packets come to us", facts)?;
    let up = ports.iter().map(|port| (of(port), f64::from(u8::from(port.link_up))));
    out.gauge("port_link_up", None, "Whether the link is up", up)?;
    let mtu = ports.iter().map(|port| (of(port), f64::from(port.mtu)));
    out.gauge("port_mtu", Some("bytes"), "Largest IP packet", mtu)?;
    out.traffic("port_receive", "received", ports.iter().map(|port| (of(port), port.rx)))?;
    out.traffic("port_transmit", "given to the NIC to send", ports.iter().map(|port| (of(port), port.tx)))?;
    for (name, unit, help, value) in QUEUES {
        let rows = ports.iter().flat_map(|port| {
            port.queues.iter().map(|queue| {
                let labels = vec![
                    ("port", port.name.clone()),
                    ("queue", queue.queue.to_string()),
                    ("worker", queue.worker.to_string()),
                ];
                (labels, value(queue))
            })
        });
        out.counter(name, *unit, help, rows)?;
    }
    Ok(())
}

type Queue = (&'static str, Option<&'static str>, &'static str, fn(&QueueStats) -> u64);
const QUEUES: &[Queue] = &[
    ("queue_receive", Some("descriptors"), "Descriptors received", |queue| queue.rx_descs),
    ("queue_transmit", Some("descriptors"), "Descriptors put on the tx ring", |queue| queue.tx_descs),
    ("queue_kernel_dropped", Some("packets"), "Packets the kernel dropped before they came to us", |queue| {
        queue.rx_dropped
    }),
    ("queue_rx_ring_full", Some("packets"), "Of those, dropped because the rx ring was full", |queue| {
        queue.rx_ring_full
    }),
    ("queue_fill_ring_empty", None, "Times the kernel found no buffer in the fill ring", |queue| {
        queue.fill_ring_empty
    }),
    ("queue_invalid", Some("descriptors"), "Descriptors the kernel refused as invalid", |queue| {
        queue.invalid_descs
    }),
    ("queue_kicks", None, "System calls made to wake the kernel", |queue| queue.kicks),
    ("queue_kicks_again", None, "Of those, answered with EAGAIN", |queue| queue.kicks_again),
];

fn workers(out: &mut Out<'_>, workers: &[WorkerStats]) -> fmt::Result {
    let cores = workers
        .iter()
        .map(|worker| vec![("worker", worker.id.to_string()), ("core", worker.core.to_string())]);
    out.infos("worker", "The worker threads, and the cores they are pinned to", cores)?;
    let of = |worker: &WorkerStats| label("worker", &worker.id);
    out.traffic("worker_receive", "taken from its queues", workers.iter().map(|w| (of(w), w.rx)))?;
    out.traffic("worker_forwarded", "forwarded", workers.iter().map(|w| (of(w), w.forwarded)))?;
    for (name, unit, help, value) in WORKERS {
        let rows = workers.iter().map(|worker| (of(worker), value(worker)));
        out.counter(name, *unit, help, rows)?;
    }
    let stalled = workers.iter().map(|w| (of(w), f64::from(u8::from(w.stalled.is_some()))));
    out.gauge("worker_stalled", None, "Whether it has stopped polling", stalled)?;
    let generations = workers.iter().map(|w| (of(w), f64::from(w.generation)));
    out.gauge("worker_generation", None, "Number of the rules and settings it works with", generations)?;
    let flows = workers.iter().map(|w| (of(w), count(w.flows)));
    out.gauge("worker_flows", None, "Flows it tracks now", flows)?;
    let handoff = workers.iter().flat_map(|worker| {
        worker.handoffs.iter().flat_map(|row| {
            [("out", row.out), ("in", row.taken)].map(|(direction, packets)| {
                let labels = vec![
                    ("worker", worker.id.to_string()),
                    ("cause", row.cause.clone()),
                    ("direction", direction.to_owned()),
                ];
                (labels, packets)
            })
        })
    });
    out.counter("handoff", Some("packets"), "Packets that went from worker to worker", handoff)
}

type Worker = (&'static str, Option<&'static str>, &'static str, fn(&WorkerStats) -> u64);
const WORKERS: &[Worker] = &[
    ("worker_dropped", Some("packets"), "Packets dropped, whatever the reason", |worker| worker.dropped),
    ("worker_reject_answers", Some("packets"), "RSTs and ICMP errors sent for REJECT", |worker| {
        worker.reject_answers
    }),
    ("worker_busy_polls", None, "Rounds over its queues that found packets", |worker| worker.bursts),
    ("worker_idle_polls", None, "Rounds over its queues that found none", |worker| worker.idle_polls),
    ("worker_sleeps", None, "Times it slept", |worker| worker.sleeps),
    ("worker_stalls", None, "Times it stopped polling for longer than a second", |worker| worker.stalls),
];

/// A count as a gauge.
#[expect(clippy::cast_precision_loss, reason = "tables have far less than 2^53 flows")]
pub(super) const fn count(count: u64) -> f64 {
    count as f64
}

fn flows(out: &mut Out<'_>, stats: &Stats) -> fmt::Result {
    let invalid = stats.invalid.iter().map(|(cause, packets)| (label("cause", cause), *packets));
    out.counter("invalid", Some("packets"), "Packets found INVALID; the rules decide about them", invalid)?;
    let flows = &stats.flows;
    out.gauge("flows", None, "Flows now in the table", lone(count(flows.count)))?;
    out.gauge("flows_max", None, "Most flows there may be", lone(count(flows.max)))?;
    let ends = [
        ("flows_inserted", "Flows made", flows.inserted),
        ("flows_expired", "Flows ended by their timeout", flows.expired),
        ("flows_evicted", "Flows ended to make room for others", flows.evicted),
        ("flows_closed", "Flows ended by a packet", flows.closed),
        ("flows_refused", "Flows refused for lack of room", flows.refused),
    ];
    ends.into_iter().try_for_each(|(name, help, value)| out.counter(name, None, help, lone(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_is_for_those_who_take_no_other() {
        for (accept, format) in [
            (None, Format::OpenMetrics),
            (Some("*/*"), Format::OpenMetrics),
            (Some("text/plain"), Format::Text),
            (Some("text/plain;version=0.0.4;q=0.5, */*;q=0.1"), Format::OpenMetrics),
            (Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), Format::OpenMetrics),
            (Some("text/html, text/plain"), Format::Text),
            (Some("text/html"), Format::OpenMetrics),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }
}
