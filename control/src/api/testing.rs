//! A daemon that is not there: fixed answers for tests of server and client.

use super::backend::{ApplyError, Backend, Peer};
use super::types::*;
use crate::labels::LabelNames;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Answers from its fields, and notes what it was asked.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) stats: Stats,
    pub(crate) rules: Vec<RulesView>,
    pub(crate) flows: Vec<FlowRow>,
    /// Go over `flows` this many times more.
    pub(crate) repeat: usize,
    pub(crate) refuse: Option<ApplyError>,
    pub(crate) applied: Mutex<Vec<ApplyRequest>>,
    /// Flows that no worker removes.
    pub(crate) stuck: u64,
    pub(crate) expected: Vec<ExpectRow>,
    /// What is told to whoever listens, and whether to go on after that.
    pub(crate) events: Vec<EventRow>,
    pub(crate) endless: bool,
    /// Why nobody may listen.
    pub(crate) deaf: Option<String>,
    pub(crate) recent: Vec<TableLine<RecentEntry>>,
    pub(crate) hashlimit: Vec<TableLine<HashlimitEntry>>,
    /// Changes of the former that were asked for.
    pub(crate) edited: Mutex<Vec<RecentEdit>>,
    /// Pieces of a capture, and packets traced.
    pub(crate) captured: Vec<Vec<u8>>,
    pub(crate) traced: Vec<TraceRow>,
    pub(crate) drops: Vec<DropRow>,
    /// Who holds this keeps a walk over the flows, and new rules, from beginning.
    pub(crate) walk: Arc<Mutex<()>>,
    /// Flows handed out so far.
    pub(crate) walked: AtomicU64,
    pub(crate) top: TopReport,
}

/// Lines of the tables asked for.
fn asked<T: Clone>(lines: &[TableLine<T>], which: &TablesRequest) -> impl Iterator<Item = TableLine<T>> {
    let mut is_asked = false;
    let lines = lines.iter().filter(move |line| {
        if let TableLine::Table { name, family } = line {
            is_asked = which.fits(name, *family);
        }
        is_asked
    });
    lines.cloned()
}

impl Backend for Fake {
    fn stats(&self) -> Stats {
        self.stats.clone()
    }

    fn rules(&self, family: Family) -> Option<RulesView> {
        self.rules.iter().find(|view| view.family == family).cloned()
    }

    fn flows(&self, filter: &FlowFilter, each: &mut dyn FnMut(FlowRow) -> ControlFlow<()>) {
        drop(self.walk.lock().unwrap());
        for row in std::iter::repeat_n(&self.flows, self.repeat + 1).flatten().filter(|row| filter.fits(row))
        {
            self.walked.fetch_add(1, Ordering::Relaxed);
            if each(row.clone()).is_break() {
                return;
            }
        }
    }

    fn command_sets(&self, request: &SetsRequest) -> Result<SetsAnswer, ApplyError> {
        match &self.refuse {
            Some(error) => Err(error.clone()),
            None => {
                Ok(SetsAnswer { text: request.text.clone(), notes: Vec::new(), is_in: Some(request.restore) })
            }
        }
    }

    fn explain(&self, request: &ExplainRequest) -> Result<Explanation, ApplyError> {
        match &self.refuse {
            Some(error) => Err(error.clone()),
            None => Ok(Explanation {
                packet: ExplainedPacket { ingress: request.ingress.clone(), ..ExplainedPacket::default() },
                ..Explanation::default()
            }),
        }
    }

    fn capture(
        &self,
        _request: &CaptureRequest,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), ApplyError> {
        self.refuse.clone().map_or(Ok(()), Err)?;
        let _ =
            each(&[]).is_continue() && self.captured.iter().try_for_each(|piece| each(piece)).is_continue();
        Ok(())
    }

    fn trace(
        &self,
        _filter: &TapFilter,
        each: &mut dyn FnMut(Option<TraceRow>) -> ControlFlow<()>,
    ) -> Result<(), ApplyError> {
        self.refuse.clone().map_or(Ok(()), Err)?;
        let mut rows = self.traced.iter().cloned();
        let _ = each(None).is_continue() && rows.try_for_each(|row| each(Some(row))).is_continue();
        Ok(())
    }

    fn drops(&self) -> Vec<DropRow> {
        self.drops.clone()
    }

    fn recent(&self, which: &TablesRequest, each: &mut dyn FnMut(TableLine<RecentEntry>) -> ControlFlow<()>) {
        let _ = asked(&self.recent, which).try_for_each(each);
    }

    fn edit_recent(&self, request: &RecentEdit) -> Result<(), ApplyError> {
        self.refuse.clone().map_or(Ok(()), Err)?;
        self.edited.lock().unwrap().push(request.clone());
        Ok(())
    }

    fn hashlimit(
        &self,
        which: &TablesRequest,
        each: &mut dyn FnMut(TableLine<HashlimitEntry>) -> ControlFlow<()>,
    ) {
        let _ = asked(&self.hashlimit, which).try_for_each(each);
    }

    fn count_flows(&self, filter: &FlowFilter) -> u64 {
        self.flows.iter().filter(|row| filter.fits(row)).count() as u64
    }

    fn delete_flows(&self, filter: &FlowFilter, each: &mut dyn FnMut(FlowRow) -> ControlFlow<()>) -> Tally {
        let mut tally = Tally { count: 0, remained: self.stuck, unlabelled: 0 };
        for row in self.flows.iter().filter(|row| filter.fits(row)) {
            tally.count += 1;
            let _ = each(row.clone());
        }
        tally
    }

    fn update_flows(
        &self,
        request: &UpdateRequest,
        each: &mut dyn FnMut(FlowRow) -> ControlFlow<()>,
    ) -> Tally {
        let UpdateRequest { filter, mark, label_add, timeout_secs, .. } = request;
        self.delete_flows(filter, &mut |mut row| {
            row.mark = mark.map_or(row.mark, |mark| row.mark & !mark.mask ^ mark.value);
            row.labels.extend(label_add.clone());
            row.timeout_secs = timeout_secs.unwrap_or(row.timeout_secs);
            each(row)
        })
    }

    fn flush_flows(&self) -> Tally {
        Tally { count: self.flows.len() as u64, remained: self.stuck, unlabelled: 0 }
    }

    fn events(
        &self,
        filter: &FlowFilter,
        each: &mut dyn FnMut(Option<EventRow>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        if let Some(why) = &self.deaf {
            return Err(why.clone());
        }
        let _ = each(None);
        for event in self.events.iter().filter(|event| filter.fits(&event.flow)) {
            if each(Some(event.clone())).is_break() {
                return Ok(());
            }
        }
        while self.endless && each(None).is_continue() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    }

    fn expectations(&self, family: Option<Family>) -> Vec<ExpectRow> {
        let fits = |row: &&ExpectRow| family.is_none_or(|family| family == row.family);
        self.expected.iter().filter(fits).cloned().collect()
    }

    fn flush_expectations(&self) -> u64 {
        self.expected.len() as u64
    }

    fn expect_events(
        &self,
        family: Option<Family>,
        each: &mut dyn FnMut(Option<ExpectEventRow>) -> ControlFlow<()>,
    ) -> Result<(), String> {
        if let Some(why) = &self.deaf {
            return Err(why.clone());
        }
        let _ = each(None);
        for expectation in self.expectations(family) {
            for kind in [EventKind::New, EventKind::Destroy] {
                let at_us = 1_795_535_367_017_931;
                let _ = each(Some(ExpectEventRow { kind, at_us, lost: 0, expectation: expectation.clone() }));
            }
        }
        Ok(())
    }

    fn workers(&self, interval: std::time::Duration) -> WorkersReport {
        let interval_ms = u64::try_from(interval.as_millis()).unwrap();
        let load =
            |id| WorkerLoad { id, packets_per_sec: 1000, packets_percent: 50.0, ..WorkerLoad::default() };
        let elephant =
            Elephant { src: "10.0.0.1:1000".into(), dst: "192.0.2.80:80".into(), ..Elephant::default() };
        WorkersReport {
            interval_ms,
            ownership: "secret".to_owned(),
            nics_stay: vec!["eth0: it has no RSS".to_owned()],
            workers: vec![load(0), load(1)],
            elephants: vec![elephant],
            ..WorkersReport::default()
        }
    }

    fn top(&self, request: &TopRequest, filter: &FlowFilter) -> Result<TopReport, ApplyError> {
        self.refuse.clone().map_or(Ok(()), Err)?;
        // The tests of the server see what came of the parameters.
        let flows_count = filter.dport.map_or(self.top.flows_count, u64::from);
        Ok(TopReport { interval_ms: request.interval_ms, by: request.by, flows_count, ..self.top.clone() })
    }

    fn rebalance(&self, _interval: std::time::Duration, dry_run: bool) -> RebalanceReport {
        let moves = vec![MovedBucket { bucket: 7, to: 1, done: !dry_run, ..MovedBucket::default() }];
        RebalanceReport { before_percent: 180, after_percent: 104, moves, ..RebalanceReport::default() }
    }

    fn track_stats(&self) -> Vec<TrackRow> {
        vec![TrackRow { worker: 0, found: 7, insert: 2, ..TrackRow::default() }]
    }

    fn label_names(&self) -> Arc<LabelNames> {
        Arc::new(LabelNames::parse("1 web\n2 two words\n", "names").unwrap())
    }

    fn settings(&self) -> Vec<(String, u32)> {
        vec![("tcp_loose".to_owned(), 1), ("udp_timeout".to_owned(), 30)]
    }

    fn config(&self) -> ConfigView {
        let setting = |name: &str, value: u32, origin| SettingView {
            name: name.to_owned(),
            value: value.into(),
            default: 30.into(),
            change: crate::config::Change::Hot,
            origin,
            takes: "a number".to_owned(),
            about: "What it does.".to_owned(),
        };
        let line = crate::config::Origin::File { file: "fwd.toml".to_owned(), line: 7 };
        let settings = vec![
            setting("conntrack.gre_timeout", 30, crate::config::Origin::Default),
            setting("conntrack.udp_timeout", 9, line),
        ];
        ConfigView { file: Some("fwd.toml".to_owned()), settings, waiting: vec![waiting()] }
    }

    fn set_config(&self, set: &[String], _by: Peer) -> Result<ConfigReport, ApplyError> {
        self.refuse.clone().map_or(Ok(()), Err)?;
        let one = |text: &String| SettingChange {
            name: text.split('=').next().unwrap_or_default().to_owned(),
            change: crate::config::Change::Hot,
            before: 30.into(),
            after: text.split('=').nth(1).unwrap_or_default().into(),
        };
        Ok(ConfigReport { changed: set.iter().map(one).collect(), waiting: Vec::new() })
    }

    fn reload_config(&self, by: Peer) -> Result<ConfigReport, ApplyError> {
        let report = self.set_config(&["log.level=debug".to_owned()], by)?;
        Ok(ConfigReport { waiting: vec![waiting()], ..report })
    }

    fn set(&self, name: &str, value: &str, _by: Peer) -> Result<(), String> {
        if name == "tcp_loose" && value == "0" {
            Ok(())
        } else {
            Err(format!("{name}: {value:?} will not do"))
        }
    }

    fn apply(&self, request: ApplyRequest, by: Peer) -> Result<ApplyReport, ApplyError> {
        assert!(
            request.v4.as_ref().is_none_or(|rules| rules.text != "panic"),
            "a daemon that fails must not take the API with it"
        );
        if let Some(error) = &self.refuse {
            return Err(error.clone());
        }
        drop(self.walk.lock().unwrap());
        assert!(by.uid.is_some() && by.pid.is_some(), "the kernel says who asks");
        let (confirm_secs, flows) = (request.confirm_secs, request.flows);
        self.applied.lock().unwrap().push(request);
        let warnings = vec!["INPUT rules are kept, but nothing is routed here.".to_owned()];
        let flows_killed = (flows == FlowsChoice::Kill).then_some(3);
        let flows_exempt = (flows == FlowsChoice::Keep).then_some(4);
        Ok(ApplyReport {
            generation: 8,
            rules: 12,
            flows_kept: 1000,
            warnings,
            number: 5,
            before: 3,
            confirm_secs,
            flows_killed,
            flows_exempt,
        })
    }

    fn diff(&self, request: ApplyRequest) -> Result<DiffReport, ApplyError> {
        if let Some(error) = &self.refuse {
            return Err(error.clone());
        }
        let chain = ChainDiff {
            table: "filter".into(),
            name: "FORWARD".into(),
            policy: Some(("ACCEPT".into(), "DROP".into())),
            rules: vec![
                RuleDiff {
                    from: Some(2),
                    rule: "-A FORWARD -j x".into(),
                    packets: 12,
                    bytes: 720,
                    ..RuleDiff::default()
                },
                RuleDiff { to: Some(1), rule: "-A FORWARD -j DROP".into(), ..RuleDiff::default() },
                RuleDiff { from: Some(1), to: Some(2), rule: "-A FORWARD".into(), ..RuleDiff::default() },
            ],
            ..ChainDiff::default()
        };
        let families = if request.v4.is_some() {
            vec![FamilyDiff { family: Family::V4, chains: vec![chain], kept: 7 }]
        } else {
            vec![FamilyDiff { family: Family::V6, chains: Vec::new(), kept: 9 }]
        };
        let flows = FlowFates { allowed: 10, refused: 2, unsure: 1, kept: 9 };
        let set = |sets: RulesText| SetDiff { name: sets.text, before: Some(1), after: 2 };
        let sets = request.sets.map(set).into_iter().collect();
        Ok(DiffReport { families, sets, flows, warnings: vec!["think twice".to_owned()] })
    }

    fn edit(&self, request: EditRequest, by: Peer) -> Result<ApplyReport, ApplyError> {
        let file = format!("{} {} {}", request.table, request.edit.word(), request.chain);
        let text = RulesText { file, text: request.words.join("|") };
        let (v4, v6) = match request.family {
            Family::V4 => (Some(text), None),
            Family::V6 => (None, Some(text)),
        };
        let EditRequest { comment, confirm_secs, flows, .. } = request;
        self.apply(ApplyRequest { v4, v6, comment, confirm_secs, flows, ..ApplyRequest::default() }, by)
    }

    fn confirm(&self) -> Result<HistoryEntry, ApplyError> {
        self.refuse.clone().map_or_else(|| Ok(entry(5, Outcome::Confirmed)), Err)
    }

    fn roll_back(&self, request: RollbackRequest, by: Peer) -> Result<ApplyReport, ApplyError> {
        let file = format!("{:?}", request.number);
        let text = Some(RulesText { file, text: String::new() });
        let RollbackRequest { comment, confirm_secs, flows, .. } = request;
        self.apply(ApplyRequest { v4: text, comment, confirm_secs, flows, ..ApplyRequest::default() }, by)
    }

    fn history(&self) -> HistoryReport {
        HistoryReport {
            entries: vec![entry(4, Outcome::Applied), entry(5, Outcome::Unconfirmed)],
            running: 5,
            pending: Some(PendingView { number: 5, secs_left: 42, back_to: 4 }),
            dir: Some("/var/lib/palisade/history".to_owned()),
            trouble: None,
        }
    }

    fn history_rules(&self, number: u64, family: Family) -> Result<String, ApplyError> {
        Ok(format!("# {number} {}\n", family.number()))
    }
}

/// A setting that waits for a restart.
fn waiting() -> SettingChange {
    SettingChange {
        name: "flows.max".to_owned(),
        change: crate::config::Change::Restart,
        before: 1000.into(),
        after: 2000.into(),
    }
}

/// An entry of the history.
fn entry(number: u64, outcome: Outcome) -> HistoryEntry {
    HistoryEntry {
        number,
        at_us: 1_795_535_367_017_931,
        who: "root (process 7)".to_owned(),
        what: "apply rules.v4".to_owned(),
        comment: (number == 5).then(|| "for the new web server".to_owned()),
        outcome,
        replaces: Some(number - 1),
        restores: None,
        rules: 12,
    }
}

/// A flow between two IPv4 or IPv6 addresses.
pub(crate) fn flow(proto: u8, src: &str, dst: &str, orig: FlowKey, reply: FlowKey) -> FlowRow {
    let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
    FlowRow {
        family: if src.is_ipv4() { Family::V4 } else { Family::V6 },
        proto,
        proto_name: proto_name(proto).into(),
        timeout_secs: 0,
        state: None,
        orig: side(src, dst, orig),
        reply: side(dst, src, reply),
        seen_reply: false,
        assured: false,
        expected: false,
        kept: false,
        mark: 0,
        labels: Vec::new(),
        helper: None,
        zone: 0,
        start_ms: None,
        stop_ms: None,
        worker: 0,
        id: 0,
    }
}

fn side(src: IpAddr, dst: IpAddr, key: FlowKey) -> FlowSide {
    FlowSide { src, dst, key, zone: 0, packets: Some(0), bytes: Some(0) }
}

/// A TCP flow from `10.1.0.2:sport` to `10.2.0.2:80`.
pub(crate) fn tcp_flow(sport: u16, state: &str) -> FlowRow {
    let mut row = flow(
        6,
        "10.1.0.2",
        "10.2.0.2",
        FlowKey::Ports { sport, dport: 80 },
        FlowKey::Ports { sport: 80, dport: sport },
    );
    row.state = Some(state.to_owned().into());
    row.timeout_secs = 100;
    row
}
