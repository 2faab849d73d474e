//! One line of a program: the conditions under which a packet meets it, most of them in plain fields, and what it does.
//! Built on control, read by workers.

use super::Facts;
use super::conn::{Asked, ConnMatch, Conntrack, Effect, Marks};
use super::header::HeaderMatch;
use super::matching::{flags_match, has_ports, icmp_matches, ports_match};
use super::model::{CtState, Hook, Match, PortSide, RuleRef, Verdict};
use super::rate::RateMatch;
use crate::packet::Fragment;
use crate::sets::SetMatch;

/// What a matching line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Count, go on.
    Count,
    /// A jump under a condition that the called chain may change: count and go on, or else go on at a later line.
    Gate(u32),
    /// Count, do, go on.
    Do(Effect),
    /// The last word.
    Decide(Verdict),
    /// Accepted by this table: count, and go on at a later line, the next table's first.
    Pass(u32),
    /// Count, and go on at a later line.
    Skip(u32),
    /// Go on at a later line without counting: the end of a chain that was entered by goto.
    SkipSilently(u32),
}

/// One line. Three cache lines; the first holds what most lines are decided by.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Line {
    pub(super) src: u128,
    pub(super) src_mask: u128,
    pub(super) dst: u128,
    pub(super) dst_mask: u128,
    /// Ingress NICs, one bit each.
    pub(super) ingress: u64,
    /// Egress NICs, one bit each.
    pub(super) egress: u64,
    pub(super) src_ports: (u16, u16),
    pub(super) dst_ports: (u16, u16),
    /// Protocol, or [`ANY_PROTO`].
    pub(super) proto: u16,
    /// Connection states, one bit each.
    pub(super) states: u8,
    /// Whether a port range above is a condition: then packets without ports do not match.
    pub(super) needs_ports: bool,
    /// What does not fit above.
    pub(super) more: Box<[Test]>,
    /// From this one of them on they are asked in order, each only if those before it hold: it counts who is asked.
    pub(super) ordered_from: u32,
    pub(super) action: Action,
    pub(super) by: RuleRef,
    /// Whether a packet that is accepted after this line was accepted by it: one of `filter`'s that accepts.
    pub(super) accepts: bool,
    /// Chains it is in, the built-in one counted; zero for that one's policy.
    pub(super) depth: u8,
}

const _: () = assert!(size_of::<Line>() == 192, "three cache lines");

/// In [`Line::proto`]: any protocol.
pub(super) const ANY_PROTO: u16 = 0x100;
/// Every [`CtState`].
pub(super) const ALL_STATES: u8 = 0b1_1111;

/// A condition beyond the fields of [`Line`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Src { addr: u128, mask: u128, invert: bool },
    Dst { addr: u128, mask: u128, invert: bool },
    NotProto(u8),
    Ports { which: PortSide, ranges: Box<[(u16, u16)]>, invert: bool },
    Icmp { ty: Option<u8>, codes: (u8, u8), invert: bool },
    LaterFragment { invert: bool },
    TcpFlags { mask: u8, comp: u8, invert: bool },
    Conn(ConnMatch),
    Header(HeaderMatch),
    Rate(RateMatch),
    Set(SetMatch),
}

impl Test {
    pub(super) fn holds(&self, facts: &Facts<'_>, marks: &mut Marks) -> bool {
        let packet = facts.packet;
        let tuple = &packet.tuple;
        match self {
            Self::Conn(condition) => condition.holds(Asked::about(facts, marks), marks),
            Self::Header(condition) => condition.holds(facts, marks),
            Self::Rate(condition) => condition.holds(facts, marks),
            Self::Set(set) => set.holds(facts),
            Self::Src { addr, mask, invert } => (tuple.src & mask == *addr) != *invert,
            Self::Dst { addr, mask, invert } => (tuple.dst & mask == *addr) != *invert,
            Self::NotProto(proto) => tuple.proto != *proto,
            Self::Ports { which, ranges, invert } => ports_match(packet, *which, ranges, *invert),
            Self::Icmp { ty, codes, invert } => icmp_matches(packet, *ty, *codes, *invert),
            Self::LaterFragment { invert } => (packet.fragment == Fragment::Later) != *invert,
            Self::TcpFlags { mask, comp, invert } => flags_match(packet, *mask, *comp, *invert),
        }
    }

    /// A condition as a test; `None` for those that iptables tries before all of these, wherever they stand.
    fn of(condition: &Match, hook: Hook) -> Option<Self> {
        Some(match condition {
            Match::Ports { which, ranges, invert } => {
                Self::Ports { which: *which, ranges: ranges.as_slice().into(), invert: *invert }
            }
            Match::CtState { states, invert } => {
                let states = Some((states.0, *invert));
                Self::Conn(ConnMatch::Conntrack(Box::new(Conntrack { states, ..Conntrack::default() })))
            }
            Match::TcpFlags { mask, comp, invert } => {
                Self::TcpFlags { mask: *mask, comp: *comp, invert: *invert }
            }
            Match::Icmp { ty, codes, invert } => Self::Icmp { ty: *ty, codes: *codes, invert: *invert },
            Match::Conn(condition) => Self::Conn(condition.clone()),
            Match::Header(condition) => Self::Header(condition.clone()),
            Match::Rate(condition) => Self::Rate(condition.clone()),
            Match::Set(set) => Self::Set(set.at(hook)),
            Match::InIface { .. }
            | Match::OutIface { .. }
            | Match::Src { .. }
            | Match::Dst { .. }
            | Match::Proto { .. }
            | Match::LaterFragment { .. } => return None,
        })
    }

    /// Whether it matters who is asked: it counts them, labels them, or drops those that cannot answer.
    const fn counts(&self) -> bool {
        match self {
            Self::Conn(condition) => {
                matches!(condition, ConnMatch::ConnLimit(_) | ConnMatch::ConnLabel { set: true, .. })
            }
            Self::Set(_) => true,
            Self::Header(condition) => condition.may_drop(),
            Self::Rate(condition) => condition.counts(),
            _ => false,
        }
    }

    /// Whether only its own line may ask: the lines of a called chain may have changed what it is about. TCP's flags they
    /// may not: rules name six, and change the two others.
    const fn is_asked_once(&self) -> bool {
        match self {
            Self::Conn(_) | Self::Rate(_) | Self::Set(_) => true,
            Self::Header(condition) => condition.is_volatile(),
            _ => false,
        }
    }

    /// Whether packets of one flow and direction may differ in this. ICMP type and code are part of a query's tuple;
    /// later fragments belong to no flow. What a connection is asked for changes from packet to packet.
    pub(super) const fn is_volatile(&self) -> bool {
        match self {
            Self::TcpFlags { .. } | Self::Conn(_) | Self::Rate(_) | Self::Set(_) => true,
            Self::Header(condition) => condition.is_volatile(),
            _ => false,
        }
    }
}

impl Line {
    /// The line that every packet matches.
    pub(super) fn any(action: Action, by: RuleRef) -> Self {
        Self {
            src: 0,
            src_mask: 0,
            dst: 0,
            dst_mask: 0,
            ingress: u64::MAX,
            egress: u64::MAX,
            src_ports: (0, u16::MAX),
            dst_ports: (0, u16::MAX),
            proto: ANY_PROTO,
            states: ALL_STATES,
            needs_ports: false,
            more: Box::default(),
            ordered_from: u32::MAX,
            action,
            by,
            accepts: false,
            depth: 0,
        }
    }

    /// Whether the fields match; [`Self::more`] is the caller's to ask.
    #[inline]
    pub(super) fn fields_match(&self, facts: &Facts<'_>) -> bool {
        let tuple = &facts.packet.tuple;
        ((tuple.src ^ self.src) & self.src_mask) | ((tuple.dst ^ self.dst) & self.dst_mask) == 0
            && self.states >> facts.ct_state as u8 & 1 != 0
            && (self.proto == ANY_PROTO || self.proto == u16::from(tuple.proto))
            && (!self.needs_ports
                || has_ports(facts.packet)
                    && (self.src_ports.0..=self.src_ports.1).contains(&tuple.src_port)
                    && (self.dst_ports.0..=self.dst_ports.1).contains(&tuple.dst_port))
            && self.ingress >> facts.ingress.0 & 1 != 0
            && self.egress >> facts.egress.0 & 1 != 0
    }

    /// Adds a condition; false if no packet can match any more.
    pub(super) fn require(&mut self, condition: &Match, hook: Hook, ports: &[String]) -> bool {
        if let Match::Header(HeaderMatch::Device(device)) = condition {
            return self.require(&Match::Header(device.resolve(hook, ports)), hook, ports);
        }
        if let Some(test) = Test::of(condition, hook)
            && (self.ordered_from != u32::MAX || test.counts())
        {
            self.require_in_order(test);
            return true;
        }
        match condition {
            // A NIC that is not known there has no name.
            Match::InIface { pattern, invert } if hook == Hook::Postrouting => pattern.fits("") != *invert,
            Match::OutIface { pattern, invert } if matches!(hook, Hook::Raw | Hook::Prerouting) => {
                pattern.fits("") != *invert
            }
            Match::InIface { pattern, invert } => {
                self.ingress &= nics(ports, |name| pattern.fits(name) != *invert);
                self.ingress != 0
            }
            Match::OutIface { pattern, invert } => {
                self.egress &= nics(ports, |name| pattern.fits(name) != *invert);
                self.egress != 0
            }
            Match::Conn(condition) => {
                add(&mut self.more, Test::Conn(condition.clone()));
                true
            }
            Match::Header(condition) => self.require_header(condition),
            Match::Rate(condition) => {
                add(&mut self.more, Test::Rate(condition.clone()));
                true
            }
            Match::Set(set) => {
                self.require_in_order(Test::Set(set.at(hook)));
                true
            }
            Match::Src { addr, mask, invert } => {
                let test = Test::Src { addr: *addr, mask: *mask, invert: *invert };
                require_address(&mut self.src, &mut self.src_mask, &mut self.more, test)
            }
            Match::Dst { addr, mask, invert } => {
                let test = Test::Dst { addr: *addr, mask: *mask, invert: *invert };
                require_address(&mut self.dst, &mut self.dst_mask, &mut self.more, test)
            }
            Match::Proto { proto, invert: false } => {
                let fits = self.proto == ANY_PROTO || self.proto == u16::from(*proto);
                self.proto = u16::from(*proto);
                fits
            }
            Match::Proto { proto, invert: true } => {
                add(&mut self.more, Test::NotProto(*proto));
                self.proto != u16::from(*proto)
            }
            Match::Ports { which, ranges, invert } => self.require_ports(*which, ranges, *invert),
            // Orders change it on the way.
            Match::CtState { .. } if hook == Hook::Raw => {
                Test::of(condition, hook).into_iter().for_each(|test| add(&mut self.more, test));
                true
            }
            Match::CtState { states, invert } => {
                self.states &= if *invert { !states.0 } else { states.0 } & ALL_STATES;
                self.states != 0
            }
            Match::LaterFragment { invert } => {
                add(&mut self.more, Test::LaterFragment { invert: *invert });
                true
            }
            Match::TcpFlags { mask, comp, invert } => {
                add(&mut self.more, Test::TcpFlags { mask: *mask, comp: *comp, invert: *invert });
                true
            }
            Match::Icmp { ty, codes, invert } => {
                add(&mut self.more, Test::Icmp { ty: *ty, codes: *codes, invert: *invert });
                true
            }
        }
    }

    /// Adds a condition on the packet, narrowing the fields as far as they can say it.
    fn require_header(&mut self, condition: &HeaderMatch) -> bool {
        match condition {
            HeaderMatch::Nics { ingress, egress } => {
                self.ingress &= ingress;
                self.egress &= egress;
                return self.ingress != 0 && self.egress != 0;
            }
            HeaderMatch::Address { of_dst, range } => {
                if let Some((addr, mask)) = range.common_bits() {
                    let (have, have_mask, test) = match of_dst {
                        false => (&mut self.src, &mut self.src_mask, Test::Src { addr, mask, invert: false }),
                        true => (&mut self.dst, &mut self.dst_mask, Test::Dst { addr, mask, invert: false }),
                    };
                    let is_possible = require_address(have, have_mask, &mut self.more, test);
                    if !is_possible || range.is_all_of(mask) {
                        return is_possible;
                    }
                }
            }
            _ => {}
        }
        add(&mut self.more, Test::Header(condition.clone()));
        true
    }

    /// Adds a test that counts, or one behind such a test.
    fn require_in_order(&mut self, test: Test) {
        let mut tests = std::mem::take(&mut self.more).into_vec();
        if self.ordered_from == u32::MAX {
            self.ordered_from = u32::try_from(tests.len()).unwrap_or(u32::MAX);
        }
        tests.push(test);
        self.more = tests.into();
    }

    pub(super) fn asks_once(&self) -> bool {
        self.more.iter().any(Test::is_asked_once)
    }

    /// Drops the conditions that only a line itself may ask.
    pub(super) fn forget_asked(&mut self) {
        if self.asks_once() {
            let mut tests = std::mem::take(&mut self.more).into_vec();
            tests.retain(|test| !test.is_asked_once());
            self.more = tests.into();
            self.ordered_from = u32::MAX;
        }
    }

    fn require_ports(&mut self, which: PortSide, ranges: &[(u16, u16)], invert: bool) -> bool {
        self.needs_ports = true;
        let field = match which {
            PortSide::Src => &mut self.src_ports,
            PortSide::Dst => &mut self.dst_ports,
            PortSide::Either => {
                add(&mut self.more, Test::Ports { which, ranges: ranges.into(), invert });
                return true;
            }
        };
        if let ([(low, high)], false) = (ranges, invert) {
            *field = (field.0.max(*low), field.1.min(*high));
            return field.0 <= field.1;
        }
        if !invert {
            // The span of all ranges narrows the field; the list itself is tested exactly.
            let low = ranges.iter().map(|range| range.0).min().unwrap_or(u16::MAX);
            let high = ranges.iter().map(|range| range.1).max().unwrap_or(0);
            *field = (field.0.max(low), field.1.min(high));
        }
        let possible = field.0 <= field.1;
        add(&mut self.more, Test::Ports { which, ranges: ranges.into(), invert });
        possible
    }
}

fn add(more: &mut Box<[Test]>, test: Test) {
    if !more.contains(&test) {
        let mut tests = std::mem::take(more).into_vec();
        tests.push(test);
        *more = tests.into();
    }
}

/// Narrows an address field, or keeps the condition as a test where the field cannot hold it.
fn require_address(have: &mut u128, have_mask: &mut u128, more: &mut Box<[Test]>, test: Test) -> bool {
    let (Test::Src { addr, mask, invert } | Test::Dst { addr, mask, invert }) = test else { return true };
    if invert {
        add(more, test);
        // Excluding all there is leaves nothing.
        return mask & !*have_mask != 0 || *have & mask != addr;
    }
    let common = mask & *have_mask;
    if (*have ^ addr) & common != 0 {
        return false;
    }
    *have |= addr;
    *have_mask |= mask;
    true
}

/// NICs whose name fits, one bit each. Bits beyond the NICs there are stay zero.
fn nics(ports: &[String], fits: impl Fn(&str) -> bool) -> u64 {
    ports.iter().enumerate().filter(|(_, name)| fits(name)).fold(0, |set, (index, _)| set | 1 << index)
}

const _: () = assert!(ALL_STATES >> CtState::Untracked as u8 == 1, "one bit for each state");
