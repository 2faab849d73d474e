//! Who has the most traffic. API threads; one walk over the flows at a time. What flows had counted is kept until the next
//! request, so that who asks every second costs one walk a second, however many ask; and forgotten when nobody does.

use super::LiveBackend;
use crate::api::backend::ApplyError;
use crate::api::types::{
    ErrorKind, FlowFilter, Rate, TopBy, TopFlow, TopHost, TopReport, TopRequest, TopRule, TopService,
    TopSlack, proto_name,
};
use crate::api::{Shown, address, flow_row};
use crate::iptables::printer;
use crate::publish::{self, CounterKey, Counts};
use crate::rules_file::Rules;
use crate::top::{Found, Growth, Host, Marks, Service, Sums, Survey};
use dataplane::clock::Tick;
use dataplane::flow::Region;
use dataplane::packet::{Family as Fam, Tuple};
use dataplane::rules::model::RuleRef;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Requests under way at once: each may keep marks of its own for as long as its interval.
const REQUESTS_MAX: usize = 8;

/// Age at which marks that nobody has asked for again go.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15);

/// What was counted at one moment.
#[derive(Clone, Debug)]
struct Moment {
    flows: Marks,
    rules: Arc<[HashMap<CounterKey, Counts>; 2]>,
}

/// The last moment looked at. Its lock is held while flows are walked: one walk at a time.
#[derive(Debug, Default)]
pub(super) struct Watch {
    newest: Mutex<Option<Arc<Moment>>>,
    asking: AtomicUsize,
}

/// One of [`REQUESTS_MAX`].
struct Asking<'a>(&'a AtomicUsize);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Watch {
    /// Gives the memory back if nobody has asked for a while.
    pub(super) fn forget_if_old(&self) {
        if let Ok(mut newest) = self.newest.try_lock()
            && newest.as_ref().is_some_and(|moment| moment.flows.at.elapsed() > FORGOTTEN_AFTER)
        {
            *newest = None;
        }
    }

    fn ask(&self) -> Option<Asking<'_>> {
        let asking = self.asking.fetch_add(1, Ordering::AcqRel);
        let mine = Asking(&self.asking);
        (asking < REQUESTS_MAX).then_some(mine)
    }
}

/// Which flows are asked for.
struct Sieve<'a> {
    request: &'a TopRequest,
    filter: Option<&'a FlowFilter>,
    shown: Shown,
    now: Tick,
}

impl Sieve<'_> {
    /// The flow's tuple, if it is asked for. The whole flow is looked at only if it has to be.
    fn tuple(&self, region: &Region, growth: &Growth) -> Option<Tuple> {
        let (request, tally) = (self.request, &growth.tally);
        let tuple = region.orig_of(tally.slot, tally.seq)?;
        if request.host.is_some() || request.port.is_some() {
            let ends = [tuple.src, tuple.dst].map(|addr| address(addr, tuple.family));
            let ports = Service::of(&tuple).port.map(|dst| [tuple.src_port, dst]);
            if !request.fits(ends, ports) {
                return None;
            }
        }
        if let Some(filter) = self.filter {
            let view = region.view(tally.slot, self.now).filter(|view| view.seq == tally.seq)?;
            if !filter.fits(&flow_row(&view, &self.shown)) {
                return None;
            }
        }
        Some(tuple)
    }
}

impl LiveBackend {
    /// Looks at flows and rules over a moment.
    pub(super) fn look_for_top(
        &self,
        request: &TopRequest,
        filter: &FlowFilter,
    ) -> Result<TopReport, ApplyError> {
        let _asking = self.top.ask().ok_or_else(|| {
            let message =
                format!("{REQUESTS_MAX} others look at the top flows already; ask again in a moment");
            ApplyError::new(ErrorKind::Busy, message)
        })?;
        let interval = Duration::from_millis(request.interval_ms);
        let before = self.moment_before(interval);
        let age = before.flows.at.elapsed();
        if age < interval * 3 / 4 {
            std::thread::sleep(interval.saturating_sub(age));
        }
        let mut newest = self.top.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // Marks that nobody else needs are carried on where they are.
        if newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, &before)) {
            *newest = None;
        }
        let Moment { mut flows, rules: rules_before } = Arc::unwrap_or_clone(before);
        let mut survey = Survey::new(request.by, request.n);
        let now = self.now().tick();
        let sieve =
            Sieve { request, filter: (!filter.is_empty()).then_some(filter), shown: self.shown(), now };
        let (since, start) = (flows.at, Instant::now());
        let flows_count = flows.advance(&self.regions(), start, now, |region, growth| {
            if let Some(tuple) = sieve.tuple(region, growth) {
                survey.add(region.worker(), &tuple, growth);
            }
        });
        let walk = start.elapsed();
        let rules = self.rules_counted();
        *newest = Some(Arc::new(Moment { flows, rules: Arc::clone(&rules) }));
        drop(newest);
        let over = Over(start - since);
        let found = survey.take_flows();
        let Survey { total, hosts, sources, destinations, services, .. } = survey;
        let [hosts, sources, destinations] =
            [hosts, sources, destinations].map(|heavy| heavy.into_top(request.n));
        let services = services.into_top(request.n);
        let list = |found: &[(Host, Sums)]| found.iter().map(|host| over.host(host)).collect();
        let slack = |units: u64| over.per_sec(if request.by == TopBy::Bytes { units * 8 } else { units });
        Ok(TopReport {
            interval_ms: u64::try_from(over.0.as_millis()).unwrap_or(u64::MAX),
            walk_us: u64::try_from(walk.as_micros()).unwrap_or(u64::MAX),
            by: request.by,
            flows_count,
            flows_active: total.flows,
            flows_new: total.new,
            forth: over.rate(&total, 0),
            back: over.rate(&total, 1),
            flows: found.iter().map(|found| self.top_flow(found, over, &sieve)).collect(),
            hosts: list(&hosts.0),
            sources: list(&sources.0),
            destinations: list(&destinations.0),
            services: services.0.iter().map(|service| over.service(service)).collect(),
            rules: self.top_rules([&rules_before, &rules], request, over),
            slack: TopSlack {
                hosts: slack(hosts.1),
                sources: slack(sources.1),
                destinations: slack(destinations.1),
                services: slack(services.1),
            },
        })
    }

    /// A moment to begin at: the last one looked at if that is not too long ago, or else now.
    fn moment_before(&self, interval: Duration) -> Arc<Moment> {
        let mut newest = self.top.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(moment) = newest.as_ref().filter(|moment| moment.flows.at.elapsed() <= interval * 3 / 2) {
            return Arc::clone(moment);
        }
        // Before the new ones are made, not after.
        *newest = None;
        let (at, tick) = (Instant::now(), self.now().tick());
        let mut flows = Marks::new(self.workers.len(), at, tick);
        flows.advance(&self.regions(), at, tick, |_, _| ());
        let moment = Arc::new(Moment { flows, rules: self.rules_counted() });
        *newest = Some(Arc::clone(&moment));
        moment
    }

    fn regions(&self) -> Vec<&Region> {
        self.workers.iter().map(|worker| &*worker.region).collect()
    }

    fn rules_counted(&self) -> Arc<[HashMap<CounterKey, Counts>; 2]> {
        Arc::new([Fam::V4, Fam::V6].map(|family| self.publisher.counted(family)))
    }

    fn top_flow(&self, found: &Found, over: Over, sieve: &Sieve<'_>) -> TopFlow {
        let Found { worker, tuple, tally, sums } = found;
        let view = self
            .workers
            .get(worker.index())
            .and_then(|worker| worker.region.view(tally.slot, sieve.now))
            .filter(|view| view.seq == tally.seq);
        let row = view.map(|view| flow_row(&view, &sieve.shown));
        TopFlow {
            family: tuple.family.into(),
            proto: tuple.proto,
            proto_name: proto_name(tuple.proto).into(),
            src: address(tuple.src, tuple.family),
            dst: address(tuple.dst, tuple.family),
            key: crate::api::flow_key(tuple),
            id: row.as_ref().map_or(0, |row| row.id),
            state: row.and_then(|row| row.state),
            worker: worker.0,
            is_new: sums.new > 0,
            forth: over.rate(sums, 0),
            back: over.rate(sums, 1),
        }
    }

    /// Rules and policies in force that counted the most.
    fn top_rules(
        &self,
        [before, now]: [&[HashMap<CounterKey, Counts>; 2]; 2],
        request: &TopRequest,
        over: Over,
    ) -> Vec<TopRule> {
        let grown = before.iter().zip(now).flat_map(|(before, now)| {
            now.iter().map(|(key, (packets, bytes))| {
                let (packets_before, bytes_before) = before.get(key).copied().unwrap_or_default();
                let grown = (packets.saturating_sub(packets_before), bytes.saturating_sub(bytes_before));
                (key, grown)
            })
        });
        let weight = |(packets, bytes): Counts| if request.by == TopBy::Bytes { bytes } else { packets };
        let mut grown: Vec<(&CounterKey, Counts)> =
            grown.filter(|(key, grown)| weight(*grown) > 0 && !matches!(key, CounterKey::Kept(_))).collect();
        grown.sort_by_key(|(_, grown)| Reverse(weight(*grown)));
        // Some may be of rules that are not in force any more.
        grown.truncate(request.n * 2);
        let wanted: HashMap<&CounterKey, (usize, Counts)> =
            grown.iter().zip(0..).map(|((key, grown), rank)| (*key, (rank, *grown))).collect();
        let running = self.publisher.running();
        let mut rules: Vec<(usize, TopRule)> = [Fam::V4, Fam::V6]
            .into_iter()
            .flat_map(|family| {
                let rules = running.family(family);
                let named = rules.ruleset.references().map(|by| (by, publish::key(&rules.ruleset, by)));
                named
                    .filter_map(|(by, key)| Some((by, *wanted.get(&key)?)))
                    .map(|(by, (rank, grown))| (rank, top_rule(rules, by, grown, over)))
                    .collect::<Vec<_>>()
            })
            .collect();
        rules.sort_by_key(|(rank, _)| *rank);
        rules.into_iter().take(request.n).map(|(_, rule)| rule).collect()
    }
}

fn top_rule(rules: &Rules, by: RuleRef, (packets, bytes): Counts, over: Over) -> TopRule {
    let chain = rules.ruleset.chain(by.chain);
    let written = &rules.file.chains[by.chain.0 as usize];
    TopRule {
        family: rules.ruleset.family.into(),
        table: chain.table.name().to_owned(),
        chain: chain.name.clone(),
        num: by.rule.map(|rule| rule + 1),
        rule: match by.rule {
            Some(rule) => printer::rule_line(&chain.name, &written.rules[rule as usize]),
            None => format!("-P {} {}", chain.name, printer::policy_name(written.policy)),
        },
        rate: Rate {
            packets_per_sec: over.per_sec(packets),
            bits_per_sec: over.per_sec(bytes.saturating_mul(8)),
        },
    }
}

/// The time that counts are of.
#[derive(Clone, Copy)]
struct Over(Duration);

impl Over {
    fn per_sec(self, count: u64) -> u64 {
        let per_sec = u128::from(count) * 1_000_000 / self.0.as_micros().max(1);
        u64::try_from(per_sec).unwrap_or(u64::MAX)
    }

    fn rate(self, sums: &Sums, way: usize) -> Rate {
        Rate {
            packets_per_sec: self.per_sec(sums.packets[way]),
            bits_per_sec: self.per_sec(sums.bytes[way].saturating_mul(8)),
        }
    }

    fn host(self, (host, sums): &(Host, Sums)) -> TopHost {
        TopHost {
            addr: address(host.addr, host.family()),
            sent: self.rate(sums, 0),
            received: self.rate(sums, 1),
            flows: sums.flows,
            new_per_sec: self.per_sec(sums.new),
        }
    }

    fn service(self, (service, sums): &(Service, Sums)) -> TopService {
        TopService {
            proto: service.proto,
            proto_name: proto_name(service.proto).into(),
            port: service.port,
            forth: self.rate(sums, 0),
            back: self.rate(sums, 1),
            flows: sums.flows,
            new_per_sec: self.per_sec(sums.new),
        }
    }
}
