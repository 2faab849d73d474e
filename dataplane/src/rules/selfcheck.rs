//! The safety net under every load: headers drawn from the rules' own edges are judged both by the compiled form and by
//! [`linear`], and must agree on verdict, deciding rule and every rule matched on the way. Bounded work, on control.

use super::alter::Copied;
use super::conn::{Conn, ConnMatch, Conntrack, Marks, NoFlows};
use super::header::HeaderEdges;
use super::log::NoNotes;
use super::model::{CtState, Match, RuleRef, Ruleset};
use super::rate::Rates;
use super::{Compiled, Decision, Facts, Matched, linear};
use crate::clock::Now;
use crate::flow::Direction;
use crate::ids::PortId;
use crate::packet::{Family, Fragment, Hint, Kind, Packet, Tuple, proto};
use crate::sets::{self, Element};
use std::fmt;

/// Headers tried per load, whatever the ruleset's size.
const PROBES_MAX: usize = 20_000;
/// Rule conditions evaluated per load: bounds the plain form's share on huge rulesets.
pub(super) const WORK_MAX: usize = 20_000_000;
/// Elements looked at of each set.
const ELEMENTS_MAX: usize = 64;
/// Times that a header is judged before the two disagree: sets may change in between.
const TRIES: usize = 3;

/// A header about which the two forms disagree.
#[derive(Clone, Debug)]
pub struct Disagreement {
    packet: Packet,
    ct_state: CtState,
    ingress: PortId,
    compiled: Said,
    linear: Said,
}

/// What one form said: verdict, rules matched, marks afterwards.
#[derive(Clone, Debug)]
struct Said {
    decision: Decision,
    matched: Vec<RuleRef>,
    marks: Marks,
    copied: Copied,
}

impl PartialEq for Said {
    fn eq(&self, other: &Self) -> bool {
        let marks = |said: &Self| {
            let Marks { packet, conn, conn_is_set, labels, labels_are_set, orders, traced, set_asks, .. } =
                &said.marks;
            let asked = (*labels, *labels_are_set, set_asks.clone());
            (*packet, *conn, *conn_is_set, *orders, *traced, asked)
        };
        (self.decision.verdict, self.decision.by, self.decision.management)
            == (other.decision.verdict, other.decision.by, other.decision.management)
            && (&self.matched, &self.copied) == (&other.matched, &other.copied)
            && marks(self) == marks(other)
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { decision, matched, marks, copied } = self;
        write!(
            f,
            "{:?} by {:?}, matched {matched:?}, marks {marks:?}, packet {copied:?}",
            decision.verdict, decision.by
        )
    }
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packet, ct_state, ingress, compiled, linear } = self;
        writeln!(
            f,
            "{:?} flags {:#04x} {:?} {ct_state:?} from {ingress:?}",
            packet.tuple, packet.tcp_flags, packet.fragment
        )?;
        writeln!(f, "  compiled: {compiled}")?;
        write!(f, "  meaning:  {linear}")
    }
}

/// Tries headers, as many as come to so many rule conditions; the first disagreement, if there is one.
#[must_use]
pub(super) fn run(compiled: &Compiled, ports: &[String], work_max: usize) -> Option<Disagreement> {
    let edges = Edges::of(compiled.ruleset());
    let rules: usize = compiled.ruleset().chains.iter().map(|chain| chain.rules.len()).sum();
    let probes = PROBES_MAX.min(work_max / (rules + 1)).min(500 + rules * 20);
    let nics = u64::try_from(ports.len().max(2)).unwrap_or(2);
    let mut random = Random(0x5eed_0fca_1150_11ed);
    let mut matched = Matched::default();
    (0..probes).find_map(|_| {
        let packet = edges.packet(&mut random, compiled.ruleset().family);
        let ct_state = random.pick(&STATES);
        let ingress =
            PortId(u8::try_from(random.below(nics) & !1).unwrap_or(0) | u8::from(random.below(2) == 1));
        let conn = edges.conn(&mut random, &packet, ct_state);
        let marks = edges.marks(&mut random);
        let frame = edges.frame(&mut random, &packet);
        let facts = Facts { bytes: &frame, ..facts(&packet, ct_state, conn.as_ref(), ingress) };
        let mut tries = (0..TRIES).map_while(|_| compare(compiled, ports, &facts, &marks, &mut matched));
        tries.nth(TRIES - 1)
    })
}

/// Facts about a header outside of a worker.
pub(crate) fn facts<'a>(
    packet: &'a Packet,
    ct_state: CtState,
    conn: Option<&'a Conn>,
    ingress: PortId,
) -> Facts<'a> {
    Facts {
        packet,
        bytes: &[],
        now: Now::default(),
        rates: Rates::Probe(0x9a11_5ade),
        ct_state,
        conn,
        flows: &NoFlows,
        is_raw: false,
        ingress,
        egress: ingress.peer(),
        mtu: 1500,
        notes: &NoNotes,
    }
}

const STATES: [CtState; 5] =
    [CtState::New, CtState::Established, CtState::Related, CtState::Invalid, CtState::Untracked];

/// Judges one header both ways, before and after tracking.
pub(super) fn compare(
    compiled: &Compiled,
    ports: &[String],
    facts: &Facts<'_>,
    marks: &Marks,
    matched: &mut Matched,
) -> Option<Disagreement> {
    let ruleset = compiled.ruleset();
    let refs = |matched: &Matched| {
        let of = |line: &u32| compiled.line(*line).expect("a packet meets rules that are there").by;
        matched.lines().iter().map(of).collect::<Vec<_>>()
    };
    let disagree = |compiled: Said, linear: Said| {
        (compiled != linear).then_some(Disagreement {
            packet: *facts.packet,
            ct_state: facts.ct_state,
            ingress: facts.ingress,
            compiled,
            linear,
        })
    };
    let plain = |evaluate: Evaluate| {
        let (mut marks, mut matched, mut copied) = (marks.clone(), Vec::new(), Copied::default());
        let decision = evaluate(ruleset, ports, facts, &mut marks, &mut matched, &mut copied);
        Said { decision, matched, marks, copied }
    };
    let mut after = marks.clone();
    let decision = compiled.classify(facts, &mut after, matched);
    let (decision, copied) = changed(compiled, facts, decision, &mut after, matched);
    let fast = Said { decision, matched: refs(matched), marks: after, copied };
    // Only a path that may be remembered is asked for its outcome later.
    if decision.invariant && compiled.outcome(matched.decider()) != (decision.verdict, decision.by) {
        return disagree(Said { matched: Vec::new(), ..fast }, plain(linear::evaluate_copy));
    }
    disagree(fast, plain(linear::evaluate_copy)).or_else(|| {
        let mut after = marks.clone();
        let facts = Facts { is_raw: true, ..*facts };
        let decision = compiled.classify_raw(&facts, &mut after, matched)?;
        let (decision, copied) = changed(compiled, &facts, decision, &mut after, matched);
        let fast = Said { decision, matched: refs(matched), marks: after, copied };
        disagree(fast, plain(linear::evaluate_raw_copy))
    })
}

/// Makes the changes that the compiled form waits for, to a copy.
pub(super) fn changed(
    compiled: &Compiled,
    facts: &Facts<'_>,
    mut decision: Decision,
    marks: &mut Marks,
    matched: &mut Matched,
) -> (Decision, Copied) {
    let mut copied = Copied::default();
    while let Some(alter) = matched.alter() {
        if copied.change(alter, facts).is_err() {
            break;
        }
        decision = compiled.resume(&copied.facts(facts), marks, matched);
    }
    (decision, copied)
}

type Evaluate = fn(&Ruleset, &[String], &Facts<'_>, &mut Marks, &mut Vec<RuleRef>, &mut Copied) -> Decision;

/// A small generator with good enough bits (xorshift64*); fixed seed, so that a load is repeatable.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 33) % end.max(1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = self.below(from.len() as u64);
        from[usize::try_from(at).unwrap_or(0)]
    }
}

/// Values at and just beside the borders of what rules ask for.
#[derive(Clone, Debug)]
pub(super) struct Edges {
    src: Vec<u128>,
    dst: Vec<u128>,
    src_ports: Vec<u16>,
    dst_ports: Vec<u16>,
    protos: Vec<u8>,
    flags: Vec<u8>,
    icmp: Vec<(u8, u8)>,
    marks: Vec<u32>,
    labels: Vec<Option<u128>>,
    counts: Vec<u64>,
    status: Vec<u16>,
    secs: Vec<u32>,
    header: HeaderEdges,
}

impl Edges {
    pub(super) fn of(ruleset: &Ruleset) -> Self {
        let icmp = if ruleset.family == Family::V4 { proto::ICMP } else { proto::ICMPV6 };
        let mut edges = Self {
            src: vec![0, 1 << 31],
            dst: vec![0, 1 << 31],
            src_ports: vec![0, 1024, u16::MAX],
            dst_ports: vec![0, 1024, u16::MAX],
            protos: vec![proto::TCP, proto::TCP, proto::UDP, proto::UDP, icmp, proto::GRE],
            flags: vec![0x02, 0x12, 0x10, 0x04, 0x11],
            icmp: vec![(8, 0), (0, 0), (3, 1), (128, 0)],
            marks: vec![0, 1, u32::MAX],
            labels: vec![None, Some(0), Some(u128::MAX)],
            counts: vec![0, 1, 1500],
            status: vec![0, u16::MAX, 1 << 1, 1 << 2],
            secs: vec![0, 30],
            header: HeaderEdges::default(),
        };
        for condition in ruleset.rules().flat_map(|rule| &rule.matches) {
            edges.add(condition, ruleset.family);
        }
        let all = if ruleset.family == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
        edges.src.extend(edges.header.addresses.iter().map(|address| address & all));
        edges.dst.extend(edges.header.addresses.iter().map(|address| address & all));
        edges
    }

    fn add(&mut self, condition: &Match, family: Family) {
        let all = if family == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
        let around = |addr: u128, mask: u128| {
            let last = addr | !mask & all;
            [addr, last, addr.wrapping_sub(1) & all, last.wrapping_add(1) & all, addr | (!mask & all) >> 1]
        };
        match condition {
            Match::Src { addr, mask, .. } => self.src.extend(around(*addr, *mask)),
            Match::Dst { addr, mask, .. } => self.dst.extend(around(*addr, *mask)),
            Match::Proto { proto, .. } => self.protos.push(*proto),
            Match::Ports { ranges, .. } => {
                for (low, high) in ranges {
                    let edges = [*low, *high, low.wrapping_sub(1), high.wrapping_add(1)];
                    self.src_ports.extend(edges);
                    self.dst_ports.extend(edges);
                }
            }
            Match::TcpFlags { mask, comp, .. } => {
                self.flags.extend([*comp, comp ^ (mask & mask.wrapping_neg()), !mask]);
            }
            Match::Icmp { ty: Some(ty), codes, .. } => {
                self.icmp.extend([
                    (*ty, codes.0),
                    (*ty, codes.1),
                    (*ty, codes.1.wrapping_add(1)),
                    (ty.wrapping_add(1), codes.0),
                ]);
            }
            Match::Icmp { ty: None, .. }
            | Match::InIface { .. }
            | Match::OutIface { .. }
            | Match::LaterFragment { .. }
            | Match::Rate(_)
            | Match::CtState { .. } => {}
            Match::Conn(condition) => self.add_conn(condition, family),
            Match::Header(condition) => self.header.add(condition),
            Match::Set(set) => self.add_elements(&set.slot.set().some(ELEMENTS_MAX), family),
        }
    }

    fn add_elements(&mut self, elements: &[Element], family: Family) {
        for element in elements {
            for (addr, prefix) in [(element.addr, element.prefix), (element.addr2, element.prefix2)] {
                let mask = sets::mask(family, prefix);
                self.add(&Match::Src { addr, mask, invert: false }, family);
                self.add(&Match::Dst { addr, mask, invert: false }, family);
            }
            self.protos.push(element.proto);
            self.src_ports.push(element.port);
            self.dst_ports.push(element.port);
        }
    }

    fn add_conn(&mut self, condition: &ConnMatch, family: Family) {
        match condition {
            ConnMatch::Mark { value, mask, .. } | ConnMatch::ConnMark { value, mask, .. } => {
                self.marks.extend([*value, value | !mask, value ^ (mask & mask.wrapping_neg())]);
            }
            ConnMatch::Conntrack(conntrack) => self.add_conntrack(conntrack, family),
            ConnMatch::ConnBytes(bytes) => {
                self.counts.extend([
                    bytes.from,
                    bytes.from.wrapping_sub(1) >> 1,
                    bytes.to >> 1,
                    (bytes.to >> 1).wrapping_add(1),
                ]);
            }
            ConnMatch::ConnLabel { label, .. } => {
                self.labels.extend([Some(1 << label), Some(!(1 << label))]);
            }
            ConnMatch::Helper { .. } | ConnMatch::ConnLimit(_) => {}
        }
    }

    fn add_conntrack(&mut self, conntrack: &Conntrack, family: Family) {
        let Conntrack { states: _, direction: _, proto, addresses, ports, status, expire } = conntrack;
        self.protos.extend(proto.map(|(proto, _)| proto));
        for &(addr, mask, invert) in addresses.iter().flatten() {
            self.add(&Match::Src { addr, mask, invert }, family);
            self.add(&Match::Dst { addr, mask, invert }, family);
        }
        for &(low, high, _) in ports.iter().flatten() {
            self.src_ports.extend([low, high]);
            self.dst_ports.extend([low, high]);
        }
        self.status.extend(status.map(|(bits, _)| bits));
        self.secs.extend(expire.iter().flat_map(|&(low, high, _)| [low, high, high.wrapping_add(1)]));
    }

    /// A connection for a packet in that state, made of such values.
    pub(super) fn conn(&self, random: &mut Random, packet: &Packet, state: CtState) -> Option<Conn> {
        if matches!(state, CtState::Invalid | CtState::Untracked) {
            return None;
        }
        let tuple = packet.tuple;
        let inverse = Tuple {
            src: tuple.dst,
            dst: tuple.src,
            src_port: tuple.dst_port,
            dst_port: tuple.src_port,
            ..tuple
        };
        let direction = random.pick(&[Direction::Orig, Direction::Reply]);
        let (orig, reply) = if direction == Direction::Orig { (tuple, inverse) } else { (inverse, tuple) };
        Some(Conn {
            orig,
            reply,
            direction,
            status: random.pick(&self.status),
            packets: [random.pick(&self.counts), random.pick(&self.counts)],
            bytes: [random.pick(&self.counts), random.pick(&self.counts)],
            secs_left: random.pick(&self.secs),
            master_helper: None,
            zone: 0,
            // A probe is no connection: those that are counted stay as they are.
            id: None,
            is_template: false,
        })
    }

    /// Marks made of such values.
    pub(super) fn marks(&self, random: &mut Random) -> Marks {
        let [packet, conn] = [(); 2].map(|()| random.pick(&self.marks));
        Marks { packet, conn, labels: random.pick(&self.labels), ..Marks::default() }
    }

    /// The frame of a packet, made of bytes that conditions look for; longer ones are cut off. TCP's flags are those of
    /// the packet, as in every frame that was parsed: where ECN is changed, all of them are read anew.
    pub(super) fn frame(&self, random: &mut Random, packet: &Packet) -> Vec<u8> {
        const FLAGS: usize = 13;
        let mut frame: Vec<_> =
            (0..packet.l3_end().min(128)).map(|_| random.pick(&self.header.bytes)).collect();
        if packet.has_l4
            && packet.tuple.proto == proto::TCP
            && let Some(flags) = frame.get_mut(usize::from(packet.l4_offset) + FLAGS)
        {
            *flags = packet.tcp_flags;
        }
        frame
    }

    /// A header made of such values.
    pub(super) fn packet(&self, random: &mut Random, family: Family) -> Packet {
        let protocol = random.pick(&self.protos);
        let fragment = random.pick(&[
            Fragment::Whole,
            Fragment::Whole,
            Fragment::Whole,
            Fragment::First,
            Fragment::Later,
        ]);
        let has_l4 = fragment != Fragment::Later && random.below(16) != 0;
        let (icmp_type, icmp_code) = random.pick(&self.icmp);
        let is_icmp = matches!(protocol, proto::ICMP | proto::ICMPV6);
        let mut packet = Packet {
            tuple: Tuple {
                src: random.pick(&self.src),
                dst: random.pick(&self.dst),
                src_port: random.pick(&self.src_ports),
                dst_port: random.pick(&self.dst_ports),
                proto: protocol,
                family,
            },
            hash: 0,
            hint: Hint::NONE,
            frame_len: 64,
            l3_len: u32::from(random.pick(&self.header.lengths)),
            l3_offset: 14,
            l4_offset: 34,
            ethertype: 0,
            tcp_flags: if protocol == proto::TCP && has_l4 { random.pick(&self.flags) } else { 0 },
            icmp_type: if is_icmp { icmp_type } else { 0 },
            icmp_code: if is_icmp { icmp_code } else { 0 },
            vlan_tags: 0,
            kind: if family == Family::V4 { Kind::Ipv4 } else { Kind::Ipv6 },
            fragment,
            has_l4,
            l4_fault: None,
            ..Packet::EMPTY
        };
        if fragment == Fragment::Later {
            (packet.tuple.src_port, packet.tuple.dst_port) = (0, 0);
        } else if is_icmp {
            packet.tuple.dst_port = u16::from_be_bytes([icmp_type, icmp_code]);
        }
        packet
    }
}
