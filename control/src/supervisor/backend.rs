//! What the API asks, answered from the workers' counters and flow regions and from the publisher. API threads.

use super::plane::Plane;
use crate::ager::Wanted;
use crate::api::backend::{ApplyError, Backend};
use crate::api::flow_row;
use crate::api::types::{
    ApplyReport, ApplyRequest, ChainView, Diagnostic, DropCount, ErrorKind, EventKind, EventRow, Family,
    FlowFilter, FlowRow, FlowStats, PolicyView, PortMode, PortStats, QueueStats, RuleView, RulesText,
    RulesView, Side, Stats, TrackRow, Traffic, WireStats, WorkerStats,
};
use crate::config::Config;
use crate::iptables::diagnostics::Severity;
use crate::iptables::names::nearest;
use crate::iptables::printer::{self, policy_name};
use crate::iptables::syntax::Counters;
use crate::publish::{Counts, Publisher};
use crate::rules_file::{self, Rules};
use dataplane::clock::Now;
use dataplane::flow::{
    Expired, FlowEvent, InvalidReason, Listening, Region, SettingError, TimeoutPolicy, TrackSettings,
};
use dataplane::ids::{Generation, PortId, WorkerId};
use dataplane::packet::Family as Fam;
use dataplane::reason::DropReason;
use dataplane::rules::CompileError;
use dataplane::rules::model::{RuleId, RuleRef};
use dataplane::worker::{PortState, Volume, WorkerCounters};
use rtrb::Consumer;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long an `apply` waits for the workers to take the rules over; they look between bursts.
const ADOPTION_TIMEOUT: Duration = Duration::from_secs(5);

/// What never changes about a NIC.
#[derive(Debug)]
struct PortFacts {
    name: String,
    wire: String,
    zero_copy: bool,
}

/// How often events are collected.
const EVENTS_EVERY: Duration = Duration::from_millis(25);

/// Has workers tell of events for as long as it lives.
struct ListenGuard<'a>(&'a Listening);

impl<'a> ListenGuard<'a> {
    fn new(listening: &'a Listening, workers: &[WorkerFacts]) -> Self {
        // What the last listener left behind is no news.
        for worker in workers {
            let mut events = worker.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            while events.pop().is_ok() {}
        }
        listening.on.store(true, Relaxed);
        Self(listening)
    }
}

impl Drop for ListenGuard<'_> {
    fn drop(&mut self) {
        self.0.on.store(false, Relaxed);
    }
}

fn event_kind(kind: dataplane::flow::EventKind) -> EventKind {
    match kind {
        dataplane::flow::EventKind::New => EventKind::New,
        dataplane::flow::EventKind::Update => EventKind::Update,
        dataplane::flow::EventKind::Destroy => EventKind::Destroy,
    }
}

/// Longest wait for workers to remove flows, beside what their number takes.
const DELETE_TIMEOUT: Duration = Duration::from_secs(2);

/// One worker, for reading.
#[derive(Debug)]
struct WorkerFacts {
    core: u16,
    counters: Arc<WorkerCounters>,
    region: Arc<Region>,
    wanted: Wanted,
    events: Arc<Mutex<Consumer<FlowEvent>>>,
    lanes: Vec<(PortId, u32)>,
}

/// The running gateway, for reading and for new rules.
#[derive(Debug)]
pub(super) struct LiveBackend {
    started: Instant,
    publisher: Arc<Publisher>,
    workers: Vec<WorkerFacts>,
    ports: Vec<PortFacts>,
    states: Arc<[PortState]>,
    flows_max: u32,
    /// What rules that come in may name.
    policies: Vec<TimeoutPolicy>,
    /// Which NICs run generic XDP, filled in once they are attached.
    generic: Mutex<Vec<bool>>,
    /// One `apply` at a time.
    applying: Mutex<()>,
    /// Whether somebody listens to events: one at a time.
    listening: Arc<Listening>,
    listener: Mutex<()>,
}

impl LiveBackend {
    pub(super) fn new(config: &Config, plane: &Plane) -> Self {
        let port = |port: &super::plane::Port| PortFacts {
            name: port.nic.name.clone(),
            wire: port.wire.clone(),
            zero_copy: port.zero_copy,
        };
        let worker = |handle: &super::plane::WorkerHandle| WorkerFacts {
            core: handle.core,
            counters: Arc::clone(&handle.counters),
            region: Arc::clone(&handle.region),
            wanted: Arc::clone(&handle.wanted),
            events: Arc::clone(&handle.events),
            lanes: handle.lanes.clone(),
        };
        Self {
            started: plane.started,
            publisher: Arc::clone(&plane.publisher),
            workers: plane.workers.iter().map(worker).collect(),
            ports: plane.ports.iter().map(port).collect(),
            states: Arc::clone(&plane.states),
            flows_max: config.flows.max,
            policies: config.rules.timeout_policies.clone(),
            generic: Mutex::new(Vec::new()),
            applying: Mutex::new(()),
            listening: Arc::clone(&plane.listening),
            listener: Mutex::new(()),
        }
    }

    /// Notes how the NICs were attached.
    pub(super) fn attached(&self, plane: &Plane) {
        let generic = plane.ports.iter().map(|port| !port.xdp.is_native()).collect();
        *self.generic.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = generic;
    }

    /// Publishes rules and waits until every worker works with them.
    pub(super) fn publish(&self, v4: Option<Rules>, v6: Option<Rules>) -> Result<Generation, CompileError> {
        let generation = self.publisher.publish(v4, v6)?;
        let deadline = Instant::now() + ADOPTION_TIMEOUT;
        while !self.publisher.is_settled() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.publisher.reclaim();
        Ok(generation)
    }

    fn port_stats(&self, index: usize) -> PortStats {
        let facts = &self.ports[index];
        let id = PortId(u8::try_from(index).unwrap_or(u8::MAX));
        let state = &self.states[index];
        let mut stats = PortStats {
            name: facts.name.clone(),
            wire: facts.wire.clone(),
            side: if id.is_left() { Side::Left } else { Side::Right },
            mode: match self.generic.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(index) {
                Some(true) => PortMode::Generic,
                _ => PortMode::Native,
            },
            zero_copy: facts.zero_copy,
            link_up: state.link_up.load(Relaxed),
            mtu: state.frame_len_max.load(Relaxed).saturating_sub(18),
            ..PortStats::default()
        };
        for (number, worker) in (0_u8..).zip(&self.workers) {
            add(&mut stats.rx, &worker.counters.port(id).rx);
            add(&mut stats.tx, &worker.counters.port(id.peer()).forwarded);
            add(&mut stats.tx, &worker.counters.port(id).answers);
            for ((port, queue), lane) in worker.lanes.iter().zip(&worker.counters.lanes) {
                if *port != id {
                    continue;
                }
                let counted = lane.get();
                stats.queues.push(QueueStats {
                    queue: *queue,
                    worker: number,
                    rx_descs: counted.rx_descs,
                    tx_descs: counted.tx_descs,
                    rx_dropped: counted.rx_dropped,
                    rx_ring_full: counted.rx_ring_full,
                    fill_ring_empty: counted.rx_fill_ring_empty,
                    invalid_descs: counted.invalid_descs,
                    kicks: counted.kicks,
                    kicks_again: counted.kicks_again,
                });
            }
        }
        stats
    }

    /// Drops of packets that came in on these NICs, every reason.
    fn drops(&self, ports: &[PortId]) -> Vec<DropCount> {
        let count = |reason: &DropReason| {
            let mut traffic = Traffic::default();
            for worker in &self.workers {
                for port in ports {
                    add(&mut traffic, &worker.counters.port(*port).drops[*reason as usize]);
                }
            }
            DropCount { reason: reason.name().to_owned(), packets: traffic.packets, bytes: traffic.bytes }
        };
        DropReason::ALL.iter().map(count).collect()
    }

    fn wire_stats(&self, left: usize) -> WireStats {
        let id = PortId(u8::try_from(left).unwrap_or(u8::MAX));
        let mut stats = WireStats {
            name: self.ports[left].wire.clone(),
            left: self.ports[left].name.clone(),
            right: self.ports[left + 1].name.clone(),
            drops: self.drops(&[id, id.peer()]),
            ..WireStats::default()
        };
        for worker in &self.workers {
            add(&mut stats.left_to_right, &worker.counters.port(id).forwarded);
            add(&mut stats.right_to_left, &worker.counters.port(id.peer()).forwarded);
        }
        stats
    }

    fn worker_stats(&self, index: usize) -> WorkerStats {
        let worker = &self.workers[index];
        let id = WorkerId(u8::try_from(index).unwrap_or(u8::MAX));
        let polls = &worker.counters.polls;
        let mut stats = WorkerStats {
            id: id.0,
            core: u32::from(worker.core),
            bursts: polls.busy_polls.get(),
            idle_polls: polls.idle_polls.get(),
            sleeps: polls.sleeps.get(),
            flows: polls.flows.get(),
            handed_off: polls.handed_off.get(),
            taken_over: polls.taken_over.get(),
            generation: self.publisher.adopted(id).0,
            ..WorkerStats::default()
        };
        for port in &worker.counters.ports {
            add(&mut stats.rx, &port.rx);
            add(&mut stats.forwarded, &port.forwarded);
            stats.dropped += port.dropped_packets();
            stats.reject_answers += port.answers.packets.get();
        }
        stats
    }

    fn flow_stats(&self) -> FlowStats {
        let mut stats = FlowStats { max: u64::from(self.flows_max), ..FlowStats::default() };
        for worker in &self.workers {
            let counted = worker.counters.track.get();
            stats.count += u64::from(worker.region.flow_count());
            stats.inserted += counted.insert;
            stats.expired += counted.expired;
            stats.evicted += counted.early_drop;
            stats.closed += counted.delete;
            stats.refused += counted.drop + counted.insert_failed;
        }
        stats
    }

    fn now(&self) -> Now {
        Now::since(self.started)
    }
}

impl Backend for LiveBackend {
    fn stats(&self) -> Stats {
        let all: Vec<PortId> =
            (0..self.ports.len()).filter_map(|port| u8::try_from(port).ok().map(PortId)).collect();
        let invalid = |reason: &InvalidReason| {
            let count =
                self.workers.iter().map(|worker| worker.counters.track.get().invalid[*reason as usize]).sum();
            (reason.name().to_owned(), count)
        };
        Stats {
            uptime_ms: self.now().nanos / 1_000_000,
            generation: self.publisher.generation().0,
            wires: (0..self.ports.len()).step_by(2).map(|left| self.wire_stats(left)).collect(),
            ports: (0..self.ports.len()).map(|port| self.port_stats(port)).collect(),
            workers: (0..self.workers.len()).map(|worker| self.worker_stats(worker)).collect(),
            drops: self.drops(&all),
            invalid: InvalidReason::ALL.iter().map(invalid).collect(),
            flows: self.flow_stats(),
        }
    }

    fn rules(&self, family: Family) -> Option<RulesView> {
        let fam = match family {
            Family::V4 => Fam::V4,
            Family::V6 => Fam::V6,
        };
        let (rules, counts) = self.publisher.rules(fam);
        Some(rules_view(family, self.publisher.generation(), &rules, &counts))
    }

    fn flows(&self, filter: &FlowFilter, each: &mut dyn FnMut(FlowRow) -> ControlFlow<()>) {
        let now = self.now().tick();
        let mut ended = false;
        for worker in &self.workers {
            worker.region.walk(now, |view| {
                if ended {
                    return;
                }
                let row = flow_row(view);
                ended = filter.fits(&row) && each(row).is_break();
            });
        }
    }

    fn delete_flows(&self, filter: &FlowFilter, each: &mut dyn FnMut(FlowRow)) -> u64 {
        let now = self.now().tick();
        let mut asked = Vec::new();
        for worker in &self.workers {
            let mut wanted = worker.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            worker.region.walk(now, |view| {
                let row = flow_row(view);
                if filter.fits(&row) {
                    wanted.push_back(Expired { slot: view.slot, seq: view.seq, forced: true });
                    asked.push((&worker.region, view.slot, view.seq, row));
                }
            });
        }
        // Workers remove a bounded number between two bursts; a million takes them a while.
        let patience = DELETE_TIMEOUT + Duration::from_micros(asked.len() as u64 * 5);
        let deadline = Instant::now() + patience;
        let mut gone = 0;
        for (region, slot, seq, row) in asked {
            let is_there = || region.view(slot, now).is_some_and(|view| view.seq == seq);
            while is_there() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !is_there() {
                gone += 1;
                each(row);
            }
        }
        gone
    }

    fn events(
        &self,
        filter: &FlowFilter,
        each: &mut dyn FnMut(Option<EventRow>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let Ok(_one_at_a_time) = self.listener.try_lock() else {
            return Err("somebody else is listening to events".to_owned());
        };
        let _listening = ListenGuard::new(&self.listening, &self.workers);
        let mut lost_told = self.listening.lost.load(Relaxed);
        let mut quiet = 0;
        loop {
            let mut any = false;
            for worker in &self.workers {
                let mut events = worker.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                while let Ok(FlowEvent { kind, view }) = events.pop() {
                    let flow = flow_row(&view);
                    any = true;
                    let lost = self.listening.lost.load(Relaxed);
                    let row = EventRow { kind: event_kind(kind), lost: lost - lost_told, flow };
                    lost_told = lost;
                    if filter.fits(&row.flow) && each(Some(row)).is_break() {
                        return Ok(());
                    }
                }
            }
            // Now and then a sign of life, by which a listener that has gone is noticed.
            quiet = if any { 0 } else { quiet + 1 };
            if (any || quiet % 20 == 0) && each(None).is_break() {
                return Ok(());
            }
            std::thread::sleep(EVENTS_EVERY);
        }
    }

    fn track_stats(&self) -> Vec<TrackRow> {
        let row = |(worker, facts): (u8, &WorkerFacts)| {
            let stats = facts.counters.track.get();
            TrackRow {
                worker,
                found: stats.found,
                invalid: stats.invalid_total(),
                insert: stats.insert,
                insert_failed: stats.insert_failed,
                drop: stats.drop,
                early_drop: stats.early_drop,
            }
        };
        (0..).zip(&self.workers).map(row).collect()
    }

    fn settings(&self) -> Vec<(String, u32)> {
        let mut all: Vec<_> =
            self.publisher.track_settings().iter().map(|(name, value)| (name.to_owned(), value)).collect();
        if let Some((_, max)) = all.iter_mut().find(|(name, value)| name == "max" && *value == 0) {
            *max = self.flows_max;
        }
        all.sort();
        all
    }

    fn set(&self, name: &str, value: &str) -> Result<(), String> {
        if name == "max" && value.parse::<u32>().is_ok_and(|max| max > self.flows_max) {
            return Err(format!(
                "max: the tables were made for {} flows; start with a larger flows.max for more",
                self.flows_max
            ));
        }
        self.publisher.set(name, value).map(|_| ()).map_err(|error| match error {
            SettingError::Unknown { name } => {
                let names = TrackSettings::NAMES.iter().copied();
                match nearest(&name, names) {
                    Some(near) => format!("there is no setting `{name}`; did you mean `{near}`?"),
                    None => format!("there is no setting `{name}`; `fwctl sysctl` lists all"),
                }
            }
            error => error.to_string(),
        })
    }

    fn apply(&self, request: ApplyRequest) -> Result<ApplyReport, ApplyError> {
        let Ok(_one_at_a_time) = self.applying.try_lock() else {
            let message = "another apply is under way".to_owned();
            return Err(ApplyError { kind: ErrorKind::Busy, message, diagnostics: Vec::new() });
        };
        let mut warnings = Vec::new();
        let mut load = |text: Option<RulesText>, family| {
            text.map(|text| load(&text, family, &self.policies, &mut warnings)).transpose()
        };
        let v4 = load(request.v4, Fam::V4)?;
        let v6 = load(request.v6, Fam::V6)?;
        let refused = |error: CompileError| ApplyError {
            kind: ErrorKind::BadRules,
            message: error.to_string(),
            diagnostics: Vec::new(),
        };
        let generation = self.publish(v4, v6).map_err(refused)?;
        if !self.publisher.is_settled() {
            warnings.push("a worker has not taken the rules over yet: is it stuck?".to_owned());
        }
        let count = |family| {
            let (rules, _) = self.publisher.rules(family);
            rules.ruleset.chains.iter().map(|chain| chain.rules.len() as u64).sum::<u64>()
        };
        Ok(ApplyReport {
            generation: generation.0,
            rules: count(Fam::V4) + count(Fam::V6),
            flows_kept: self.flow_stats().count,
            warnings,
        })
    }
}

fn add(sum: &mut Traffic, volume: &Volume) {
    sum.packets += volume.packets.get();
    sum.bytes += volume.bytes.get();
}

/// Reads rules that came with a request.
fn load(
    text: &RulesText,
    family: Fam,
    policies: &[TimeoutPolicy],
    warnings: &mut Vec<String>,
) -> Result<Rules, ApplyError> {
    let bytes = text.text.as_bytes();
    let loaded = rules_file::understand(bytes, &text.file, family, policies);
    let wrong = loaded.worst() == Some(Severity::Error);
    if loaded.ruleset.is_some() {
        let notes = loaded.diagnostics.iter();
        warnings.extend(notes.map(|note| format!("{}:{}: {}", text.file, note.span.line, note.message)));
    }
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let diagnostics: Vec<Diagnostic> = loaded
        .diagnostics
        .iter()
        .map(|found| Diagnostic {
            file: text.file.clone(),
            line: found.span.line,
            column: number(found.column(bytes)),
            message: found.message.clone(),
            hint: found.hint.clone(),
            rendered: found.render(bytes, &text.file, false),
        })
        .collect();
    Rules::from_loaded(loaded).ok_or_else(|| ApplyError {
        kind: if wrong { ErrorKind::BadRules } else { ErrorKind::Unsupported },
        message: format!("{} was not loaded; the old rules stay in force", text.file),
        diagnostics,
    })
}

fn rules_view(
    family: Family,
    generation: Generation,
    rules: &Rules,
    counts: &HashMap<RuleRef, Counts>,
) -> RulesView {
    let count = |by: RuleRef| {
        let (packets, bytes) = counts.get(&by).copied().unwrap_or_default();
        Counters { packets, bytes }
    };
    let ordered = printer::tables(&rules.file).into_iter().flat_map(|table| {
        let references = printer::references(&rules.file, table);
        printer::print_order(&rules.file, table)
            .into_iter()
            .map(move |(id, chain)| (id, chain, references.get(chain.name.as_str()).copied().unwrap_or(0)))
    });
    let chains = ordered.map(|(id, chain, references)| ChainView {
        table: chain.table.name().to_owned(),
        name: chain.name.clone(),
        policy: chain.policy.map(|_| {
            let Counters { packets, bytes } = count(RuleRef { chain: id, rule: None });
            PolicyView { verdict: policy_name(chain.policy).to_owned(), packets, bytes }
        }),
        references: u32::try_from(references).unwrap_or(u32::MAX),
        rules: (0_u32..)
            .zip(&chain.rules)
            .map(|(number, rule)| {
                let by = RuleRef { chain: id, rule: Some(number) };
                let id = rules.ruleset.chain(id).rules[number as usize].id;
                rule_view(number + 1, id, printer::row(rule, rules.ruleset.family), count(by))
            })
            .collect(),
    });
    RulesView { family, generation: generation.0, chains: chains.collect(), text: rules.save(&count) }
}

fn rule_view(num: u32, id: RuleId, row: printer::Row, counters: Counters) -> RuleView {
    let not = |invert: bool| if invert { "!" } else { "" };
    RuleView {
        num,
        id: format!("{:016x}", id.0),
        packets: counters.packets,
        bytes: counters.bytes,
        target: row.target,
        goto: row.goto,
        prot: format!("{}{}", not(row.proto.1), row.proto.0),
        opt: row.opt.to_owned(),
        in_iface: row.in_iface,
        out_iface: row.out_iface,
        source: format!("{}{}", not(row.src.1), row.src.0),
        destination: format!("{}{}", not(row.dst.1), row.dst.0),
        extra: row.extra.trim().to_owned(),
    }
}
