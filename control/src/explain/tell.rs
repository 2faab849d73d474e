//! What the dataplane says of a packet, told with names, places and sentences. Pure.

use super::words::{self, Asked};
use crate::api::types::{
    ExplainedFlow, ExplainedOwner, ExplainedPacket, ExplainedState, ExplainedStep, ExplainedVerdict,
    Explanation, Fate, Named, Relation, RulePlace, StepKind,
};
use crate::api::{Shown, address, flow_row};
use crate::rules_file::Rules;
use dataplane::explain::{Doubt, Explained, Fate as Became, KnownFlow, OwnedBy, Untracked, Verdict};
use dataplane::flow::{Direction, FlowView, InvalidReason, Room};
use dataplane::ids::PortId;
use dataplane::packet::{Family, Fragment, Kind, L4Fault, Packet, proto};
use dataplane::reason::DropReason;
use dataplane::rules::explain::{Seen, Step, Told};
use dataplane::rules::model::{CtState, RuleRef, Target};
use dataplane::wire;
use dataplane::worker::Spread;
use std::fmt::Write as _;

/// What a packet was thought to come to.
#[derive(Clone, Copy, Debug)]
pub struct Scenery<'a> {
    /// Generation of rules and settings.
    pub generation: u32,
    /// Names of the NICs.
    pub names: &'a [String],
    /// How the rules are written, IPv4's and IPv6's.
    pub rules: [&'a Rules; 2],
    /// What is shown of flows.
    pub shown: &'a Shown,
}

impl Scenery<'_> {
    fn name(&self, port: PortId) -> &str {
        self.names.get(port.index()).map_or("?", String::as_str)
    }

    fn rules_of(&self, packet: &Packet) -> &Rules {
        self.rules[usize::from(packet.tuple.family == Family::V6)]
    }
}

/// Tells.
#[must_use]
pub fn tell(scenery: &Scenery<'_>, explained: &Explained, frame: &[u8], ingress: PortId) -> Explanation {
    let Explained { packet, owner, flow, after, tracked, story, fate, doubts, .. } = explained;
    let mut told = Explanation {
        generation: scenery.generation,
        packet: what_it_is(
            [scenery.name(ingress), scenery.name(ingress.peer())],
            packet.as_ref(),
            frame,
            u32::try_from(frame.len()).unwrap_or(u32::MAX),
        ),
        verdict: verdict(scenery, packet.as_ref().ok(), fate),
        notes: doubts.iter().filter_map(|doubt| note(*doubt)).collect(),
        tried: story.tried,
        omitted: story.omitted,
        ..Explanation::default()
    };
    let Ok(packet) = packet else { return told };
    told.owner = owner.map(|owner| ExplainedOwner {
        worker: owner.worker.0,
        bucket: owner.bucket,
        why: owned_why(owner.by).to_owned(),
    });
    told.flow = flow.as_ref().map(|flow| known_flow(scenery, flow, after.as_ref(), explained.ends));
    told.ct = tracked.as_ref().map(|said| state(scenery, packet, said, flow.as_ref(), after.as_ref()));
    let teller = Teller { scenery, explained, packet, frame, ingress };
    told.steps = story.steps.iter().map(|step| teller.step(step)).collect();
    if story.untold > 0 {
        told.notes.push(format!("{} more rules matched than are shown", story.untold));
    }
    told
}

/// A drop reason as the API names it.
#[must_use]
pub fn named_reason(reason: DropReason) -> Named {
    Named { name: reason.name().to_owned(), text: reason.text().trim().to_owned() }
}

/// Why a packet is INVALID, likewise.
pub(crate) fn named_invalid(reason: InvalidReason) -> Named {
    Named { name: reason.name().to_owned(), text: reason.text().trim().to_owned() }
}

// The packet.

/// What a frame of `frame_len` bytes is, of which `frame` are the first ones, between these NICs.
#[must_use]
pub fn what_it_is(
    [ingress, egress]: [&str; 2],
    packet: Result<&Packet, &DropReason>,
    frame: &[u8],
    frame_len: u32,
) -> ExplainedPacket {
    let mut is = ExplainedPacket {
        ingress: ingress.to_owned(),
        egress: egress.to_owned(),
        frame_len,
        ..ExplainedPacket::default()
    };
    let macs = |from: usize| words::mac_text(frame.get(from..from + 6).unwrap_or_default());
    if frame.len() >= wire::ETHERNET_LEN {
        is.headers.push(format!("Ethernet {} > {}, {frame_len} bytes", macs(6), macs(0)));
    }
    match packet {
        Ok(packet) => {
            is.summary = summary(packet, frame);
            is.headers.extend(headers(packet, frame));
        }
        Err(reason) => {
            is.summary = format!("a frame of {frame_len} bytes that is no packet");
            is.malformed = Some(named_reason(*reason));
        }
    }
    is
}

/// The packet in one line.
#[must_use]
pub fn summary(packet: &Packet, frame: &[u8]) -> String {
    let tuple = &packet.tuple;
    if packet.kind == Kind::NonIp {
        return match packet.ethertype {
            0x0806 => "ARP".to_owned(),
            length @ ..=1500 => format!("802.3 frame of {length} bytes"),
            other => format!("EtherType {other:#06x}"),
        };
    }
    let (version, hops_at) = if tuple.family == Family::V4 { ("IPv4", 8) } else { ("IPv6", 7) };
    let (src, dst) = (address(tuple.src, tuple.family), address(tuple.dst, tuple.family));
    let end = |address: std::net::IpAddr, port: u16| std::net::SocketAddr::new(address, port).to_string();
    let mut line = format!("{version} {} ", words::proto_text(tuple.proto));
    let has_ports = matches!(tuple.proto, proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP);
    if has_ports && packet.has_l4 {
        let _ = write!(line, "{} > {}", end(src, tuple.src_port), end(dst, tuple.dst_port));
    } else {
        let _ = write!(line, "{src} > {dst}");
    }
    if packet.has_l4 && tuple.proto == proto::TCP {
        let _ = write!(line, " {}", words::flags_text(packet.tcp_flags));
    }
    if packet.has_l4 && matches!(tuple.proto, proto::ICMP | proto::ICMPV6) {
        let _ = write!(line, " type {} code {}", packet.icmp_type, packet.icmp_code);
    }
    match packet.fragment {
        Fragment::Whole => {}
        Fragment::First => line += " first fragment",
        Fragment::Later => line += " later fragment",
    }
    let hops = frame.get(usize::from(packet.l3_offset) + hops_at).copied().unwrap_or(0);
    let _ = write!(line, " ttl {hops} length {}", packet.l3_len);
    line
}

/// What is of note in its headers.
fn headers(packet: &Packet, frame: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    if packet.vlan_tags > 0 {
        let tag = |at: u8| {
            let from = 14 + 4 * usize::from(at);
            frame.get(from..from + 2).map_or(0, |tag| u16::from_be_bytes([tag[0], tag[1]]) & 0xfff)
        };
        let ids: Vec<String> = (0..packet.vlan_tags).map(|at| tag(at).to_string()).collect();
        all.push(format!("VLAN {}", ids.join(" in ")));
    }
    let header_len = usize::from(packet.l4_offset.saturating_sub(packet.l3_offset));
    match packet.kind {
        Kind::Ipv4 if header_len > 20 => all.push(format!("IPv4 options of {} bytes", header_len - 20)),
        Kind::Ipv6 if header_len > 40 => {
            all.push(format!("IPv6 extension headers of {} bytes", header_len - 40));
        }
        _ => {}
    }
    if let Some(numbers) = tcp_numbers(packet, frame) {
        all.push(numbers);
    }
    if let Some(fault) = packet.l4_fault {
        all.push(format!("above IP: {}", fault_text(fault)));
    }
    all
}

fn tcp_numbers(packet: &Packet, frame: &[u8]) -> Option<String> {
    let header = frame.get(usize::from(packet.l4_offset)..packet.l3_end())?.first_chunk::<20>()?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let window = u16::from_be_bytes([header[14], header[15]]);
    let is_tcp = packet.tuple.proto == proto::TCP && packet.has_l4;
    is_tcp.then(|| format!("TCP sequence number {}, acknowledgement {}, window {window}", word(4), word(8)))
}

const fn fault_text(fault: L4Fault) -> &'static str {
    match fault {
        L4Fault::Truncated => "the header is cut off",
        L4Fault::BadLength => "a length that cannot be",
        L4Fault::BadFlags => "flags that no TCP sends",
        L4Fault::BadChecksum => "the checksum is wrong",
        L4Fault::NoUpperLayer => "nothing, or what cannot be looked into",
        L4Fault::BadChunk => "SCTP chunks that cannot be, or a wrong checksum",
        L4Fault::BadGre => "GRE of PPTP without PPP",
    }
}

const fn owned_why(by: OwnedBy) -> &'static str {
    match by {
        OwnedBy::Alone => "there is no other",
        OwnedBy::Flow(Spread::Rss(_)) => "by the hash that the NICs spread flows by",
        OwnedBy::Flow(Spread::Secret) => "by a secret hash of its flow",
        OwnedBy::About(_) => "it goes where the flow is that it is about",
        OwnedBy::Fragments(_) => "by its addresses alone: there fragments meet",
    }
}

// The flow.

fn known_flow(
    scenery: &Scenery<'_>,
    flow: &KnownFlow,
    after: Option<&FlowView>,
    ends: bool,
) -> ExplainedFlow {
    let KnownFlow { view, direction, is_about, path } = flow;
    let relation = match (is_about, direction) {
        (true, _) => Relation::About,
        (_, Direction::Orig) => Relation::Original,
        (_, Direction::Reply) => Relation::Reply,
    };
    let remembered = path
        .map(|_| "its worker remembers what rules said of such packets, and does not ask again".to_owned());
    let mut changes = after.filter(|_| !is_about).map_or_else(Vec::new, |after| changes(view, after));
    if ends {
        changes.push("the packet ends it".to_owned());
    }
    ExplainedFlow { relation, flow: flow_row(view, scenery.shown), changes, remembered }
}

fn changes(before: &FlowView, after: &FlowView) -> Vec<String> {
    let mut all = Vec::new();
    if let (Some(from), Some(to)) = (before.state_name(), after.state_name())
        && from != to
    {
        all.push(format!("the packet takes it from {from} to {to}"));
    }
    if !before.is_seen_reply() && after.is_seen_reply() {
        all.push("the packet is its first answer".to_owned());
    }
    if !before.is_assured() && after.is_assured() {
        all.push("the packet makes it ASSURED".to_owned());
    }
    if before.mark != after.mark {
        all.push(format!("rules change its mark from {:#x} to {:#x}", before.mark, after.mark));
    }
    all
}

// Its state.

fn state(
    scenery: &Scenery<'_>,
    packet: &Packet,
    said: &Verdict,
    flow: Option<&KnownFlow>,
    after: Option<&FlowView>,
) -> ExplainedState {
    let reason = said.invalid.map(named_invalid);
    let why = match said.state {
        CtState::Invalid => reason.as_ref().map_or(String::new(), |reason| reason.text.clone()),
        CtState::Untracked => untracked_why(scenery, packet, said.untracked),
        CtState::New | CtState::Related if flow.is_none() => {
            let begins = after.map_or_else(
                || "it belongs to no flow; one would begin with it if it passed".to_owned(),
                |after| {
                    let state = after.state_name().map(|state| format!("{state}, ")).unwrap_or_default();
                    format!("it belongs to no flow; one begins with it ({state}{} s)", after.secs_left)
                },
            );
            match &said.expected {
                Some(expected) => {
                    let master = &expected.master_orig;
                    format!(
                        "the {} connection {} > {} has announced it; {begins}",
                        expected.helper.name(),
                        address(master.src, master.family),
                        address(master.dst, master.family)
                    )
                }
                None => begins,
            }
        }
        CtState::New => "its flow has not been answered yet".to_owned(),
        CtState::Related if flow.is_some_and(|flow| flow.is_about) => {
            "it is an ICMP error about a packet of the flow".to_owned()
        }
        CtState::Related => "its flow was announced by another one, and has not been answered yet".to_owned(),
        CtState::Established => match flow {
            Some(flow) if flow.direction == Direction::Reply && !flow.view.is_seen_reply() => {
                "it is the first answer of its flow".to_owned()
            }
            _ => "its flow has been answered".to_owned(),
        },
    };
    ExplainedState { state: said.state.name().to_owned(), reason, why }
}

fn untracked_why(scenery: &Scenery<'_>, packet: &Packet, why: Option<Untracked>) -> String {
    match why {
        Some(Untracked::NobodyAsks) => {
            "nothing of its family is tracked: no rule asks for a connection, and `flows.tracking` is not \"always\"".to_owned()
        }
        Some(Untracked::Rule(by)) => {
            let place = rule_place(scenery.rules_of(packet), by);
            let number = place.number.map_or_else(String::new, |number| format!(" rule {number}"));
            format!("{} {}{number} says so", place.table, place.chain)
        }
        _ => "packets of its kind are never tracked".to_owned(),
    }
}

// Rules.

/// A rule as people find it.
#[must_use]
pub fn rule_place(rules: &Rules, by: RuleRef) -> RulePlace {
    let chain = &rules.file.chains[by.chain.0 as usize];
    RulePlace {
        table: chain.table.name().to_owned(),
        chain: chain.name.clone(),
        number: by.rule.map(|rule| rule + 1),
        text: rules.line(by),
        place: rules.place(by),
    }
}

/// Tells of steps.
struct Teller<'a> {
    scenery: &'a Scenery<'a>,
    explained: &'a Explained,
    packet: &'a Packet,
    frame: &'a [u8],
    ingress: PortId,
}

impl Teller<'_> {
    fn step(&self, step: &Step) -> ExplainedStep {
        let rules = self.scenery.rules_of(self.packet);
        let (mut failed, mut effect) = (None, None);
        let kind = match step.told {
            Told::Matched { after, unfit } => {
                effect = self.effect(rules, step, after, unfit);
                StepKind::Matched
            }
            Told::Missed { condition, hotdrop } => {
                failed = self.failed(rules, step, condition, hotdrop);
                StepKind::Failed
            }
            Told::End if rules.file.chains[step.by.chain.0 as usize].policy.is_some() => StepKind::Policy,
            Told::End => StepKind::Return,
        };
        let rule = rule_place(rules, step.by);
        ExplainedStep { kind, depth: step.depth, rule, failed, effect }
    }

    /// Which condition does not hold, and why not.
    fn failed(&self, rules: &Rules, step: &Step, at: usize, hotdrop: bool) -> Option<String> {
        let (chain, number) = (step.by.chain.0 as usize, step.by.rule? as usize);
        let condition = rules.ruleset.chain(step.by.chain).rules.get(number)?.matches.get(at)?;
        let written = words::condition(rules.file.chains[chain].rules.get(number)?, condition, at);
        if hotdrop {
            return Some(format!("{written}: it cannot be asked that, and is dropped"));
        }
        let asked = Asked {
            packet: self.packet,
            bytes: self.explained.changed.as_deref().unwrap_or(self.frame),
            ingress: self.scenery.name(self.ingress),
            egress: self.scenery.name(self.ingress.peer()),
            seen: step.seen,
        };
        let instead = words::instead(condition, asked);
        Some(if instead.is_empty() { written } else { format!("{written}: {instead}") })
    }

    /// What a rule that matched did.
    fn effect(&self, rules: &Rules, step: &Step, after: Option<Seen>, unfit: bool) -> Option<String> {
        let names = (self.scenery.name(self.ingress), self.scenery.name(self.ingress.peer()));
        if let Some(logged) = self.explained.logs.iter().find(|logged| logged.by == step.by) {
            return Some(words::log_line(logged, names.0, names.1));
        }
        if unfit {
            return Some("the packet cannot be changed so, and is dropped".to_owned());
        }
        let (before, after) = (step.seen, after?);
        if before.mark != after.mark {
            return Some(format!("mark {:#x} becomes {:#x}", before.mark, after.mark));
        }
        if before.conn_mark != after.conn_mark {
            return Some(format!("connection mark {:#x} becomes {:#x}", before.conn_mark, after.conn_mark));
        }
        let rule = rules.ruleset.chain(step.by.chain).rules.get(step.by.rule? as usize)?;
        match rule.target {
            Target::Effect(dataplane::rules::conn::Effect::Alter(_)) => Some("changes the packet".to_owned()),
            Target::Effect(dataplane::rules::conn::Effect::Set(_)) => {
                Some("asks for a change of the set, for the packets behind".to_owned())
            }
            _ => None,
        }
    }
}

// What becomes of it.

fn verdict(scenery: &Scenery<'_>, packet: Option<&Packet>, fate: &Became) -> ExplainedVerdict {
    let place =
        |by: Option<RuleRef>| packet.zip(by).map(|(packet, by)| rule_place(scenery.rules_of(packet), by));
    match fate {
        Became::Held => ExplainedVerdict { verdict: Fate::Held, ..ExplainedVerdict::default() },
        Became::Leaves { egress: _, by } => {
            ExplainedVerdict { verdict: Fate::Accept, rule: place(*by), ..ExplainedVerdict::default() }
        }
        Became::Dropped { reason, by, with, answer } => ExplainedVerdict {
            verdict: if with.is_some() { Fate::Reject } else { Fate::Drop },
            reason: Some(named_reason(*reason)),
            rule: place(*by),
            answer: with.map(|_| answer_text(answer.as_deref())),
        },
    }
}

/// What is sent back.
fn answer_text(answer: Option<&[u8]>) -> String {
    let Some(answer) = answer else { return "none is owed to such a packet".to_owned() };
    let len = u32::try_from(answer.len()).unwrap_or(u32::MAX);
    wire::parse(answer, len).map_or_else(|_| "one".to_owned(), |packet| summary(&packet, answer))
}

fn note(doubt: Doubt) -> Option<String> {
    let text = match doubt {
        Doubt::AnswerRate => {
            "ICMP errors are sent at a limited rate (`reject.icmp_msgs_per_sec`): beyond it nothing is sent, and the reason is rule_reject_silent"
        }
        Doubt::Room(Room::Evicts) => "the flow table is full: another flow would make room for this one",
        Doubt::Room(Room::Perhaps) => {
            "the flow table is full: unless a half-open flow makes room, the packet is dropped as flow_table_full"
        }
        Doubt::Room(_) | Doubt::Logs => return None,
        Doubt::Forgotten => {
            "the flow table is full: the packet passes, and no flow begins (`full = \"pass-untracked\"`)"
        }
        Doubt::Helper => {
            "its flow has a helper: a line that the helper cannot follow is dropped as helper_line, which only its worker can tell"
        }
        Doubt::Kept => {
            "earlier rules let its flow pass, and it goes on under them: it meets no rule of mangle and filter"
        }
    };
    Some(text.to_owned())
}
