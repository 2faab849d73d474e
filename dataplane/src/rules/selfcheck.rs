//! The safety net under every load: headers drawn from the rules' own edges are judged both by the compiled form and by
//! [`linear`], and must agree on verdict, deciding rule and every rule matched on the way. Bounded work, on control.

use super::model::{CtState, Match, RuleRef, Ruleset};
use super::{Compiled, Decision, Facts, Matched, linear};
use crate::ids::PortId;
use crate::packet::{Family, Fragment, Kind, Packet, Tuple, proto};
use std::fmt;

/// Headers tried per load, whatever the ruleset's size.
const PROBES_MAX: usize = 20_000;
/// Rule conditions evaluated per load: bounds the plain form's share on huge rulesets.
const WORK_MAX: usize = 20_000_000;

/// A header about which the two forms disagree.
#[derive(Clone, Debug)]
pub struct Disagreement {
    packet: Packet,
    ct_state: CtState,
    ingress: PortId,
    compiled: (Decision, Vec<RuleRef>),
    linear: (Decision, Vec<RuleRef>),
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packet, ct_state, ingress, compiled, linear } = self;
        writeln!(
            f,
            "{:?} flags {:#04x} {:?} {ct_state:?} from {ingress:?}",
            packet.tuple, packet.tcp_flags, packet.fragment
        )?;
        writeln!(f, "  compiled: {:?} by {:?}, matched {:?}", compiled.0.verdict, compiled.0.by, compiled.1)?;
        write!(f, "  meaning:  {:?} by {:?}, matched {:?}", linear.0.verdict, linear.0.by, linear.1)
    }
}

/// Tries headers; the first disagreement, if there is one.
#[must_use]
pub fn run(compiled: &Compiled, ports: &[String]) -> Option<Disagreement> {
    let edges = Edges::of(compiled.ruleset());
    let rules: usize = compiled.ruleset().chains.iter().map(|chain| chain.rules.len()).sum();
    let probes = PROBES_MAX.min(WORK_MAX / (rules + 1)).min(500 + rules * 20);
    let nics = u64::try_from(ports.len().max(2)).unwrap_or(2);
    let mut random = Random(0x5eed_0fca_1150_11ed);
    let (mut matched, mut refs) = (Matched::default(), Vec::new());
    (0..probes).find_map(|_| {
        let packet = edges.packet(&mut random, compiled.ruleset().family);
        let ct_state = random.pick(&STATES);
        let ingress =
            PortId(u8::try_from(random.below(nics) & !1).unwrap_or(0) | u8::from(random.below(2) == 1));
        compare(compiled, ports, &packet, ct_state, ingress, &mut matched, &mut refs)
    })
}

const STATES: [CtState; 5] =
    [CtState::New, CtState::Established, CtState::Related, CtState::Invalid, CtState::Untracked];

/// Judges one header both ways.
pub(super) fn compare(
    compiled: &Compiled,
    ports: &[String],
    packet: &Packet,
    ct_state: CtState,
    ingress: PortId,
    matched: &mut Matched,
    refs: &mut Vec<RuleRef>,
) -> Option<Disagreement> {
    let facts = Facts { packet, ct_state, ingress, egress: ingress.peer() };
    let fast = compiled.classify(&facts, matched);
    let slow = linear::evaluate(compiled.ruleset(), ports, &facts, refs);
    let fast_refs: Vec<_> = matched.lines().iter().map(|line| compiled.lines()[*line as usize].by).collect();
    if fast.verdict == slow.verdict && fast.by == slow.by && fast_refs == *refs {
        return None;
    }
    Some(Disagreement {
        packet: *packet,
        ct_state,
        ingress,
        compiled: (fast, fast_refs),
        linear: (slow, refs.clone()),
    })
}

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
        };
        let conditions = ruleset.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.matches);
        for condition in conditions {
            edges.add(condition, ruleset.family);
        }
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
            | Match::CtState { .. } => {}
        }
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
            frame_len: 64,
            l3_len: 50,
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
        };
        if fragment == Fragment::Later {
            (packet.tuple.src_port, packet.tuple.dst_port) = (0, 0);
        } else if is_icmp {
            packet.tuple.dst_port = u16::from_be_bytes([icmp_type, icmp_code]);
        }
        packet
    }
}
