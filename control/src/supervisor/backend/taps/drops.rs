//! `GET /v1/drops`: the last packets that were dropped, and what dropped them.

use super::capture::comment;
use super::names::RuleNames;
use crate::api::types::DropRow;
use crate::explain::{named_reason, what_it_is};
use crate::supervisor::backend::LiveBackend;
use crate::supervisor::wall::WallClock;
use dataplane::wire;
use dataplane::worker::tap::Drop;
use std::fmt::Write as _;

impl LiveBackend {
    /// The last drops of all workers, oldest first.
    pub(in crate::supervisor::backend) fn last_drops(&self) -> Vec<DropRow> {
        let (mut names, clock) = (RuleNames::default(), WallClock::read(self.started));
        names.look(&self.publisher);
        let nics: Vec<&str> = self.ports.iter().map(|port| port.name.as_str()).collect();
        let workers = (0..).zip(&self.workers);
        let mut all: Vec<(u8, Drop)> = workers
            .flat_map(|(worker, facts)| {
                facts.counters.drops.last().into_iter().map(move |drop| (worker, drop))
            })
            .collect();
        all.sort_by_key(|(_, drop)| drop.at);
        all.iter().filter_map(|(worker, drop)| drop_row(*worker, drop, &names, clock, &nics)).collect()
    }
}

fn drop_row(worker: u8, drop: &Drop, names: &RuleNames, clock: WallClock, nics: &[&str]) -> Option<DropRow> {
    let Drop { number, at, fate, family, since, rule, frame_len, bytes } = drop;
    let place = fate.rule.zip(*family).and_then(|(by, family)| names.place(family, *since, by, *rule));
    let gone = || fate.rule.map(|_| format!("a rule of generation {}, replaced since", since.0));
    let named = place.as_ref().map(|place| {
        let number = place.number.map_or("policy".to_owned(), |number| number.to_string());
        let table = if place.table == "filter" { String::new() } else { format!("{}/", place.table) };
        format!("{table}{} {number}", place.chain)
    });
    Some(DropRow {
        at_micros: clock.micros(*at),
        worker,
        number: *number,
        ingress: nics.get(fate.ingress.index()).copied().unwrap_or_default().to_owned(),
        summary: what_it_is(["", ""], wire::parse(bytes, *frame_len).as_ref(), bytes, *frame_len).summary,
        reason: named_reason(fate.dropped?),
        ct: fate.ct_state.map(|state| state.name().to_owned()),
        rule: named.or_else(gone),
        rule_id: rule.map(|id| format!("{:016x}", id.0)),
        rule_text: place.map(|place| place.text),
        comment: comment(fate, *family, *since, *rule, names, nics),
        frame_len: *frame_len,
        frame: bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    })
}
