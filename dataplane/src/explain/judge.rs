//! The way of a packet that is only thought of: the same stages as in the worker's `path`, in the same order. What is said
//! there of a stage holds here, too.

use super::{Doubt, Explained, Fate, KnownFlow, Live, Logged, Untracked, Verdict as Said};
use crate::defrag::{Piece, Unfit};
use crate::flow::{self, Claim, FlowId, FlowRef, Found, FullPolicy, Onlooker, Room, Tracked, Tracker};
use crate::ids::PortId;
use crate::packet::{Fragment, Kind, Packet};
use crate::reason::DropReason;
use crate::rules::conn::{Effect, Orders, Zone};
use crate::rules::explain::{Told, Walker};
use crate::rules::log::{Log, Notes};
use crate::rules::model::{CtState, Hook, RejectWith, RuleRef, Target, Verdict};
use crate::rules::rate::{Rates, Scratch};
use crate::rules::trace;
use crate::rules::{Decision, Facts};
use crate::wire::{self, LINK_OVERHEAD, checksum};
use crate::worker::{FamilyRules, LINE_BYTES};
use std::cell::RefCell;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

/// Room behind a frame for an answer that quotes it.
const ANSWER_ROOM: usize = 128;

/// Most log lines told of.
const LOGS_MAX: usize = 64;

/// Takes down what would be logged.
#[derive(Debug, Default)]
struct Logs(RefCell<Vec<Logged>>);

impl Notes for Logs {
    fn note(&self, facts: &Facts<'_>, log: Log, by: RuleRef, mark: u32) {
        let mut logs = self.0.borrow_mut();
        if logs.len() <= LOGS_MAX {
            logs.push(Logged {
                by,
                spec: log.spec,
                knows_egress: !matches!(log.hook, Hook::Raw | Hook::Prerouting),
                knows_ingress: log.hook != Hook::Postrouting,
                mark,
                bytes: facts.bytes[..facts.bytes.len().min(LINE_BYTES)].to_vec(),
                l3_offset: facts.packet.l3_offset,
            });
        }
    }

    fn trace(&self, _facts: &Facts<'_>, _step: trace::Step, _mark: u32) {}
}

/// What is the same for all stages.
struct Way<'a> {
    live: &'a Live<'a>,
    rules: &'a FamilyRules,
    onlooker: &'a Onlooker<'a>,
    logs: &'a Logs,
    ingress: PortId,
    mtu: u32,
}

/// A frame: parsed, placed, gathered or judged.
pub(super) fn frame(
    live: &Live<'_>,
    bytes: &[u8],
    ingress: PortId,
    explained: &mut Explained,
) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    explained.packet = wire::parse(bytes, len);
    let mut packet = match explained.packet {
        Ok(packet) => packet,
        Err(reason) => {
            explained.fate = dropped(reason, None);
            return Ok(());
        }
    };
    if packet.kind == Kind::NonIp {
        explained.fate = if live.snapshot.settings.l2.passes(packet.ethertype) {
            leave(live, packet.frame_len, ingress, None)
        } else {
            dropped(DropReason::L2NotListed, None)
        };
        return Ok(());
    }
    explained.owner = Some(live.place(&mut packet, bytes));
    let rules = live.snapshot.rules(packet.tuple.family);
    if packet.fragment != Fragment::Whole && rules.track {
        match Piece::read(bytes, &packet) {
            Ok(_) => {
                explained.fate = Fate::Held;
                return Ok(());
            }
            Err(Unfit::Cut) => {
                explained.fate = dropped(DropReason::FragmentBad, None);
                return Ok(());
            }
            Err(Unfit::Alone) => {
                wire::take_as_whole(bytes, &mut packet);
                explained.owner = Some(live.place(&mut packet, bytes));
            }
        }
    }
    judge(live, bytes, packet, ingress, explained)
}

/// An IP packet: raw rules, tracker, rules, and what follows from them.
fn judge(
    live: &Live<'_>,
    bytes: &[u8],
    packet: Packet,
    ingress: PortId,
    explained: &mut Explained,
) -> io::Result<()> {
    let rules = live.snapshot.rules(packet.tuple.family);
    let (scratch, logs) = (Scratch::default(), Logs::default());
    let Some(owner) = explained.owner else { return Ok(()) };
    let onlooker = Onlooker { tables: live.tables(), owner: owner.worker, scratch: &scratch };
    let mtu = [ingress, ingress.peer()].map(|port| frame_len_max(live, port)).into_iter().min().unwrap_or(0);
    let mtu = mtu.saturating_sub(LINK_OVERHEAD);
    let way = Way { live, rules, onlooker: &onlooker, logs: &logs, ingress, mtu };
    let mut walker = Walker::new(rules.compiled.ruleset(), live.names);
    let verdict = way.judge(bytes, packet, &mut walker, explained)?;
    explained.changed = walker.changed().map(|(_, bytes)| bytes.to_vec());
    explained.story = walker.story(verdict);
    explained.logs = logs.0.into_inner();
    if explained.logs.len() > LOGS_MAX {
        explained.logs.truncate(LOGS_MAX);
        explained.doubts.push(Doubt::Logs);
    }
    if let Some(Said { state: CtState::Untracked, untracked, .. }) = &mut explained.tracked
        && *untracked == Some(Untracked::Kind)
        && let Some(by) = notrack_rule(&explained.story, rules)
    {
        *untracked = Some(Untracked::Rule(by));
    }
    Ok(())
}

/// The raw rule that says that the packet is not to be tracked: the first one that gives an order.
fn notrack_rule(story: &crate::rules::explain::Story, rules: &FamilyRules) -> Option<RuleRef> {
    let ruleset = rules.compiled.ruleset();
    let order = |by: RuleRef| match ruleset.chain(by.chain).rules.get(by.rule? as usize)?.target {
        Target::Effect(Effect::Order(orders)) => Some(orders),
        _ => None,
    };
    let matched = story.steps.iter().filter(|step| matches!(step.told, Told::Matched { .. }));
    let (by, orders) = matched.filter_map(|step| Some((step.by, order(step.by)?))).next()?;
    orders.notrack.then_some(by)
}

impl Way<'_> {
    fn facts<'f>(&'f self, packet: &'f Packet, bytes: &'f [u8]) -> Facts<'f> {
        let wall = &self.live.snapshot.settings.wall;
        Facts {
            packet,
            bytes,
            now: self.live.now,
            rates: Rates::Scratch(wall, self.onlooker.scratch),
            ct_state: CtState::Invalid,
            conn: None,
            flows: self.onlooker,
            is_raw: false,
            ingress: self.ingress,
            egress: self.ingress.peer(),
            mtu: self.mtu,
            notes: self.logs,
        }
    }

    fn judge(
        &self,
        bytes: &[u8],
        packet: Packet,
        walker: &mut Walker<'_>,
        explained: &mut Explained,
    ) -> io::Result<Verdict> {
        let mut orders = Orders::default();
        if self.rules.compiled.has_raw() {
            walker.marks.reset(0, None);
            let said = walker.raw(&self.facts(&packet, bytes));
            if said.verdict != Verdict::Accept {
                explained.fate = dropped(said.by.drop_reason(), Some(said.by));
                return Ok(said.verdict);
            }
            let given = walker.marks.orders;
            orders = given.map_or_else(Orders::default, |orders| orders.with_mark(walker.marks.packet));
        }
        // What raw rules have made of it.
        let changed = walker.changed().map(|(changed, bytes)| (*changed, bytes.to_vec()));
        let (packet_now, bytes_now) = match &changed {
            Some((changed, bytes)) => (*changed, bytes.as_slice()),
            None => (packet, bytes),
        };
        let mut rehearsal = self.track(&packet_now, bytes_now, &orders, explained)?;
        let said = self.decide(&packet, bytes, &mut rehearsal, walker, explained);
        let after = walker.changed().map(|(changed, bytes)| (*changed, bytes.to_vec()));
        let (packet, bytes) = match &after {
            Some((changed, bytes)) => (*changed, bytes.as_slice()),
            None => (packet, bytes),
        };
        explained.fate = match said.verdict {
            Verdict::Drop => dropped(said.by.drop_reason(), Some(said.by)),
            Verdict::Reject(with) => reject(&packet, bytes, with, said.by, &mut explained.doubts),
            Verdict::Accept => match self.accept(&packet, bytes, &mut rehearsal, said, explained) {
                Err(reason) => dropped(reason, Some(said.by)),
                Ok(()) => {
                    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    leave(self.live, len, self.ingress, Some(said.by))
                }
            },
        };
        let Rehearsal { tracker, tracked } = &mut rehearsal;
        let slot = tracked.flow.slot();
        explained.ends = matches!(tracked.flow, FlowRef::Ending(_));
        tracker.finish(tracked, matches!(explained.fate, Fate::Leaves { .. }));
        explained.after = slot.and_then(|slot| tracker.region().view(slot, self.live.now.tick()));
        Ok(said.verdict)
    }
}

/// A tracker that has tracked the packet, and what it says.
struct Rehearsal {
    tracker: Tracker,
    tracked: Tracked,
}

impl Way<'_> {
    /// Tracks the packet on copies of the flows that it can touch.
    fn track(
        &self,
        packet: &Packet,
        bytes: &[u8],
        orders: &Orders,
        explained: &mut Explained,
    ) -> io::Result<Rehearsal> {
        let (tables, settings) = (self.onlooker.tables, &self.live.snapshot.settings);
        let owner = self.onlooker.owner;
        let labels = self.live.snapshot.asks_labels();
        let mut tracker = Tracker::rehearsal(&tables, owner, &settings.track, &settings.policies, labels)?;
        if !self.rules.track {
            let tracked = Tracked::untracked();
            explained.tracked = Some(said(&tracked, Some(Untracked::NobodyAsks), None));
            return Ok(Rehearsal { tracker, tracked });
        }
        let about = flow::error_about(packet, bytes);
        let found = match about {
            Some(about) => tables.find(owner, &flow::inverse(&about), orders.zone),
            None => tables.find(owner, &packet.tuple, orders.zone),
        };
        // Whose answers would be taken for those of the flow that the packet starts.
        let back = Zone { id: orders.zone.of(flow::Direction::Reply), ..Zone::default() };
        let in_the_way = tables.find(owner, &flow::inverse(&packet.tuple), back);
        let slot = found.and_then(|found| tracker.copy_in(&tables, &found.view));
        if let (Some(found), Some(slot)) = (found, slot) {
            tracker.take_over(&found.view, slot);
        }
        if let Some(other) = in_the_way
            && found.is_none_or(|found| found.view.slot != other.view.slot)
        {
            tracker.copy_in(&tables, &other.view);
        }
        let expected = if found.is_none() { tables.expected(&packet.tuple, orders.zone) } else { None };
        let now = self.live.now;
        let tracked = tracker.track(packet, bytes, now, &settings.track, orders);
        if let (FlowRef::Existing(slot), true) = (tracked.flow, tracked.counts) {
            tracker.count(slot, tracked.direction, packet.l3_len);
        }
        let untracked = (tracked.state == CtState::Untracked).then_some(Untracked::Kind);
        explained.tracked =
            Some(said(&tracked, untracked, expected.filter(|_| tracked.state == CtState::Related)));
        if let (Some(found), Some(_)) = (found, slot) {
            explained.flow = Some(self.known(&found, about.is_some(), tracked));
        }
        Ok(Rehearsal { tracker, tracked })
    }

    fn known(&self, found: &Found, is_about: bool, tracked: Tracked) -> KnownFlow {
        let Found { view, direction } = *found;
        let is_cached = matches!(tracked.flow, FlowRef::Existing(_)) && !is_about;
        let path = view.remembered.path(direction, self.rules.since, self.ingress);
        KnownFlow { view, direction, is_about, path: path.filter(|_| is_cached) }
    }

    /// The rules on the packet, or those of before on its flow.
    fn decide(
        &self,
        packet: &Packet,
        bytes: &[u8],
        rehearsal: &mut Rehearsal,
        walker: &mut Walker<'_>,
        explained: &mut Explained,
    ) -> Decision {
        let Rehearsal { tracker, tracked } = rehearsal;
        let compiled = &self.rules.compiled;
        let tenure = self.rules.tenure();
        if tenure.keeps() && tracker.is_kept(tracked, tenure, self.ingress) {
            explained.doubts.push(Doubt::Kept);
            let by = RuleRef { chain: compiled.ruleset().forward, rule: None };
            return Decision { verdict: Verdict::Accept, by, invariant: true, management: false };
        }
        let (now, asks_conn) = (self.live.now, compiled.asks_conn());
        let tracked_packet = walker.changed().map_or(*packet, |(changed, _)| *changed);
        let conn = if asks_conn { tracker.conn(&tracked_packet, tracked, now) } else { None };
        let live_id = explained.flow.map(|flow| FlowId {
            worker: flow.view.worker,
            slot: flow.view.slot,
            seq: flow.view.seq,
        });
        // Rules that count connections know it by the name it has in the live table.
        let conn = conn.map(|conn| crate::rules::conn::Conn { id: conn.id.and(live_id), ..conn });
        let labels = if compiled.asks_labels() { tracker.labels(tracked) } else { None };
        walker.marks.reset(if asks_conn { tracker.mark(tracked) } else { 0 }, labels);
        let facts = Facts { ct_state: tracked.state, conn: conn.as_ref(), ..self.facts(packet, bytes) };
        let said = walker.main(&facts);
        let marks = &walker.marks;
        if marks.conn_is_set {
            tracker.set_mark(tracked, marks.conn);
        }
        if let (true, Some(labels)) = (marks.labels_are_set, marks.labels) {
            tracker.set_labels(tracked, labels);
        }
        said
    }

    /// Enters the flow that the packet starts, and lets helpers read it.
    fn accept(
        &self,
        packet: &Packet,
        bytes: &[u8],
        rehearsal: &mut Rehearsal,
        said: Decision,
        explained: &mut Explained,
    ) -> Result<(), DropReason> {
        let Rehearsal { tracker, tracked } = rehearsal;
        let settings = &self.live.snapshot.settings;
        let now = self.live.now;
        let is_new = matches!(tracked.flow, FlowRef::Tentative(_));
        if is_new {
            let policy = settings.full[self.ingress.index() / 2];
            let claim = Claim { policy, management: said.management };
            let room = self.onlooker.tables.room(self.onlooker.owner, packet.hash, claim, &settings.track);
            let committed = match room {
                Room::None => Err(flow::TableFull),
                _ => tracker.commit(packet, tracked, now, claim),
            };
            if room != Room::Free {
                explained.doubts.push(Doubt::Room(room));
            }
            match committed {
                Ok(Some(slot)) => tracker.count(slot, tracked.direction, packet.l3_len),
                Ok(None) => {}
                Err(_) if policy == FullPolicy::PassUntracked => {
                    explained.doubts.push(Doubt::Forgotten);
                    return Ok(());
                }
                Err(_) => return Err(DropReason::FlowTableFull),
            }
        }
        let has_helper = tracked
            .flow
            .slot()
            .and_then(|slot| tracker.region().view(slot, now.tick()))
            .is_some_and(|view| view.helper == Some(crate::rules::conn::Helper::Ftp));
        if has_helper && tracked.state == CtState::Established {
            // Where in a line the connection stands, only its worker knows.
            explained.doubts.push(Doubt::Helper);
            return Ok(());
        }
        if tracker.help(packet, bytes, tracked, now, &settings.track) {
            Ok(())
        } else {
            Err(DropReason::HelperLine)
        }
    }
}

fn said(tracked: &Tracked, untracked: Option<Untracked>, expected: Option<flow::Expectation>) -> Said {
    Said { state: tracked.state, invalid: tracked.invalid, untracked, expected }
}

const fn dropped(reason: DropReason, by: Option<RuleRef>) -> Fate {
    Fate::Dropped { reason, by, with: None, answer: None }
}

/// The answer to a rejected packet.
fn reject(packet: &Packet, bytes: &[u8], with: RejectWith, by: RuleRef, doubts: &mut Vec<Doubt>) -> Fate {
    let mut buffer = bytes.to_vec();
    buffer.resize(bytes.len() + ANSWER_ROOM, 0);
    let built = checksum::l4_ok(bytes, packet)
        .then(|| wire::reject::build(&mut buffer, bytes.len(), packet, with))
        .flatten();
    let answer = built.map(|len| {
        buffer.truncate(len);
        buffer
    });
    if answer.is_some() && with != RejectWith::TcpReset {
        doubts.push(Doubt::AnswerRate);
    }
    let reason = if answer.is_some() { DropReason::RuleReject } else { DropReason::RuleRejectSilent };
    Fate::Dropped { reason, by: Some(by), with: Some(with), answer }
}

/// A packet leaves, if the other NIC can take it.
fn leave(live: &Live<'_>, frame_len: u32, ingress: PortId, by: Option<RuleRef>) -> Fate {
    let egress = ingress.peer();
    if frame_len > frame_len_max(live, egress) {
        return dropped(DropReason::MtuExceeded, by);
    }
    let is_up = live.ports.get(egress.index()).is_none_or(|port| port.link_up.load(Relaxed));
    if is_up { Fate::Leaves { egress, by } } else { dropped(DropReason::LinkDown, by) }
}

fn frame_len_max(live: &Live<'_>, port: PortId) -> u32 {
    live.ports.get(port.index()).map_or(u32::MAX, |port| port.frame_len_max.load(Relaxed))
}
