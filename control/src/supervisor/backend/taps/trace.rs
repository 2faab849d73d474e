//! `POST /v1/trace`: packets that pass by, each with its way through connection tracking and the rules, in the form of an
//! explanation.

use super::names::RuleNames;
use super::{News, Session, Tally, verdict};
use crate::api::backend::ApplyError;
use crate::api::types::{
    self, ExplainedOwner, ExplainedState, ExplainedStep, ExplainedVerdict, Explanation, TapFilter, TraceRow,
};
use crate::explain::{named_invalid, named_reason, what_it_is};
use crate::supervisor::backend::LiveBackend;
use dataplane::flow::Direction;
use dataplane::ids::{PortId, WorkerId};
use dataplane::rules::model::{CtState, Ruleset, Target};
use dataplane::rules::trace::Step;
use dataplane::wire;
use dataplane::worker::Fate;
use dataplane::worker::tap::{Findings, FlowPart, Point, Sighting, TapSpec};
use std::ops::ControlFlow;

/// Packets that may wait to be read, per worker, and bytes of them and their steps.
const ROOM: (usize, usize) = (4096, 4 << 20);

/// Packets traced a second and worker, unless told otherwise.
pub(super) const PER_SEC: u32 = 1000;

impl LiveBackend {
    /// Calls `each` for packets that pass by, and with `None` once it has begun and now and then, until it says stop.
    pub(in crate::supervisor::backend) fn trace_packets(
        &self,
        filter: &TapFilter,
        each: &mut dyn FnMut(Option<TraceRow>) -> ControlFlow<()>,
    ) -> Result<(), ApplyError> {
        let spec = self.tap_spec(filter, Point::Verdict.bit())?;
        let per_sec = if spec.per_sec == 0 { PER_SEC } else { spec.per_sec };
        let spec = TapSpec { follows: true, per_sec, ..spec };
        let mut session = Session::begin(self, filter, spec, ROOM)?;
        let mut names = RuleNames::default();
        names.look(&self.publisher);
        if each(None).is_break() {
            return Ok(());
        }
        let mut told = Tally::default();
        session.run(&mut |session, news| match news {
            News::Packet(sighting, steps, bytes) => {
                names.look(&self.publisher);
                let total = session.tally();
                let before = std::mem::replace(&mut told, total);
                let (lost, skipped) = (total.lost - before.lost, total.skipped - before.skipped);
                let explanation = self.explain_sighting(sighting, steps, bytes, &names);
                let at_micros = self.wall_at(sighting.at).micros;
                each(Some(TraceRow { at_micros, explanation, lost, skipped }))
            }
            News::Sign => {
                names.look(&self.publisher);
                each(None)
            }
        });
        Ok(())
    }

    fn explain_sighting(
        &self,
        sighting: &Sighting,
        steps: &[Step],
        bytes: &[u8],
        names: &RuleNames,
    ) -> Explanation {
        let nic = |port: PortId| self.ports.get(port.index()).map_or(String::new(), |port| port.name.clone());
        let parsed = wire::parse(bytes, sighting.frame_len);
        let nics = [nic(sighting.port), nic(sighting.port.peer())];
        let packet =
            what_it_is(nics.each_ref().map(String::as_str), parsed.as_ref(), bytes, sighting.frame_len);
        let mut explanation = Explanation { generation: sighting.since.0, packet, ..Explanation::default() };
        if let Some(findings) = &sighting.findings {
            explanation.owner = self.owner_of(findings);
            if findings.mark != 0 {
                explanation.notes.push(format!("mark {:#x} behind the rules", findings.mark));
            }
            if findings.has_more_steps {
                let kept = dataplane::worker::tap::STEPS_MAX;
                explanation.notes.push(format!("more than {kept} steps: the others are not shown"));
            }
        }
        let state = sighting.fate.and_then(|fate| fate.ct_state);
        explanation.ct = state.map(|state| explain_state(state, sighting.findings.as_ref()));
        if let Some(family) = sighting.family {
            let rules = names.rules(family, sighting.since);
            let mut depth = Depth::default();
            for step in steps {
                let place = names.place(family, sighting.since, step.at, None).unwrap_or_default();
                let kind = match (step.at.rule, rules.map(|rules| rules.ruleset.chain(step.at.chain).policy))
                {
                    (Some(_), _) => types::StepKind::Matched,
                    (None, Some(Some(_))) => types::StepKind::Policy,
                    (None, _) => types::StepKind::Return,
                };
                let depth = rules.map_or(0, |rules| depth.of(&rules.ruleset, *step));
                explanation.steps.push(ExplainedStep {
                    kind,
                    depth,
                    rule: place,
                    failed: None,
                    effect: None,
                });
            }
            if steps.is_empty() && sighting.findings.is_some() {
                explanation.notes.push(
                    "met no rules: its flow goes on under those that let it begin (--flows keep)".to_owned(),
                );
            }
        }
        explanation.verdict = self.explain_fate(sighting, names);
        explanation
    }

    fn owner_of(&self, findings: &Findings) -> Option<ExplainedOwner> {
        let WorkerId(worker) = *self.ownership.steering.owners().get(usize::from(findings.bucket))?;
        let why = format!("flows of bucket {} are worker {worker}'s", findings.bucket);
        Some(ExplainedOwner { worker, bucket: findings.bucket, why })
    }

    fn explain_fate(&self, sighting: &Sighting, names: &RuleNames) -> ExplainedVerdict {
        let Some(Fate { dropped, rule, .. }) = sighting.fate else { return ExplainedVerdict::default() };
        let verdict = verdict(dropped);
        let family = sighting.family;
        let rule =
            rule.zip(family).and_then(|(by, family)| names.place(family, sighting.since, by, sighting.rule));
        ExplainedVerdict { verdict, reason: dropped.map(named_reason), rule, answer: None }
    }
}

/// How many chains deep a step is, from the steps before it.
#[derive(Default)]
struct Depth(Vec<dataplane::rules::model::ChainId>);

impl Depth {
    fn of(&mut self, ruleset: &Ruleset, step: Step) -> u32 {
        let open = &mut self.0;
        match open.iter().position(|chain| *chain == step.at.chain) {
            Some(at) => open.truncate(at + 1),
            None => {
                if ruleset.chain(step.at.chain).policy.is_some() {
                    open.clear();
                }
                open.push(step.at.chain);
            }
        }
        let depth = u32::try_from(open.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let rule = step.at.rule.and_then(|at| ruleset.chain(step.at.chain).rules.get(at as usize));
        // What is gone to does not come back here.
        if let Some(Target::Goto(_)) = rule.map(|rule| rule.target)
            && open.len() > 1
        {
            open.pop();
        }
        depth
    }
}

/// Why a packet has its state, as far as its worker has told.
fn explain_state(state: CtState, findings: Option<&Findings>) -> ExplainedState {
    let reason = findings.and_then(|findings| findings.invalid).map(named_invalid);
    let flow = findings.map_or(FlowPart::None, |findings| findings.flow);
    let way = match findings.map(|findings| findings.direction) {
        Some(Direction::Reply) => "goes the other way than its first packet",
        _ => "goes the way of its first packet",
    };
    let why = match (state, flow) {
        (CtState::Invalid, _) => reason
            .as_ref()
            .map_or_else(|| "it fits no flow, and cannot start one".to_owned(), |reason| reason.text.clone()),
        (CtState::Untracked, _) => "it is not tracked".to_owned(),
        (_, FlowPart::Starts) => "it belongs to no flow, and would start one".to_owned(),
        (_, FlowPart::Belongs) => format!("it belongs to a flow, and {way}"),
        (_, FlowPart::Ends) => format!("it belongs to a flow, {way}, and ends it"),
        (_, FlowPart::About) => "it is an ICMP error about a flow".to_owned(),
        (_, FlowPart::None) => "its worker did not tell more".to_owned(),
    };
    ExplainedState { state: state.name().to_owned(), reason, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::flow::InvalidReason;

    #[test]
    fn an_invalid_packet_has_the_reason_that_an_explanation_gives() {
        for reason in InvalidReason::ALL {
            let findings = Findings {
                flow: FlowPart::None,
                direction: Direction::Orig,
                invalid: Some(*reason),
                mark: 0,
                bucket: 0,
                has_more_steps: false,
            };
            let state = explain_state(CtState::Invalid, Some(&findings));
            assert_eq!(state.why, reason.text().trim());
            assert_eq!(state.reason, Some(named_invalid(*reason)));
        }
    }
}
