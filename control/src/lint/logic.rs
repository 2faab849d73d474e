//! What conditions say about each other: whether one holds whenever another does, and whether two can hold of one packet.
//! "No" always means "not that we know": an answer of yes is certain, so what is built on it gives no false alarm.
//!
//! Only conditions on what stays the same while a packet passes through the rules are understood; all others (marks,
//! connections, rates) imply nothing and exclude nothing. Pure.

use dataplane::packet::proto;
use dataplane::rules::model::{CtState, CtStateSet, IfacePattern, Match, PortSide, Table};

/// Every connection state, as a set.
const ALL_STATES: u8 = 0x1f;

/// Ranges of ports, sorted, apart from each other and not adjacent.
type Ports = Vec<(u16, u16)>;

/// Whether a condition of a table's rule is one that we understand.
pub(super) const fn is_known(condition: &Match, table: Table) -> bool {
    match condition {
        Match::InIface { .. }
        | Match::OutIface { .. }
        | Match::Src { .. }
        | Match::Dst { .. }
        | Match::Proto { .. }
        | Match::LaterFragment { .. }
        | Match::Ports { .. }
        | Match::TcpFlags { .. }
        | Match::Icmp { .. } => true,
        // Orders to the tracker change it on the way through `raw`.
        Match::CtState { .. } => !matches!(table, Table::Raw),
        _ => false,
    }
}

/// Whether no packet at all fulfils the condition.
pub(super) fn is_never(condition: &Match) -> bool {
    match condition {
        Match::Ports { ranges, invert, .. } => ports(ranges, *invert).is_empty(),
        Match::TcpFlags { mask, comp, invert: false } => comp & !mask != 0,
        Match::Icmp { ty: None, invert: true, .. } => true,
        Match::CtState { states, invert } => state_set(*states, *invert) == 0,
        Match::InIface { pattern, invert: true } | Match::OutIface { pattern, invert: true } => {
            pattern.prefix && pattern.name.is_empty()
        }
        _ => false,
    }
}

/// Whether `wanted` holds of every packet of which `given` holds.
pub(super) fn implies(given: &Match, wanted: &Match, table: Table) -> bool {
    if !is_known(given, table) || !is_known(wanted, table) {
        return false;
    }
    if given == wanted {
        return true;
    }
    match (given, wanted) {
        (
            &Match::Src { addr, mask, invert },
            &Match::Src { addr: addr_w, mask: mask_w, invert: invert_w },
        )
        | (
            &Match::Dst { addr, mask, invert },
            &Match::Dst { addr: addr_w, mask: mask_w, invert: invert_w },
        ) => {
            let (given, wanted) = (Net { addr, mask }, Net { addr: addr_w, mask: mask_w });
            match (invert, invert_w) {
                (false, false) => given.is_within(wanted),
                (false, true) => given.is_apart(wanted),
                (true, true) => wanted.is_within(given),
                (true, false) => false,
            }
        }
        (Match::Proto { proto: given, invert: false }, Match::Proto { proto: wanted, invert: true }) => {
            given != wanted
        }
        (
            Match::Ports { which, ranges, invert },
            Match::Ports { which: which_w, ranges: ranges_w, invert: invert_w },
        ) => {
            which == which_w
                && *which != PortSide::Either
                && is_subset(&ports(ranges, *invert), &ports(ranges_w, *invert_w))
        }
        (
            Match::TcpFlags { mask, comp, invert: false },
            Match::TcpFlags { mask: mask_w, comp: comp_w, invert: false },
        ) => mask & mask_w == *mask_w && comp & mask_w == *comp_w,
        (Match::Icmp { .. }, Match::Icmp { ty: None, invert: false, .. }) => true,
        (
            Match::Icmp { ty: Some(ty), codes, invert: false },
            Match::Icmp { ty: Some(ty_w), codes: codes_w, invert: false },
        ) => ty == ty_w && codes_w.0 <= codes.0 && codes.1 <= codes_w.1,
        (Match::CtState { states, invert }, Match::CtState { states: wanted, invert: invert_w }) => {
            state_set(*states, *invert) & !state_set(*wanted, *invert_w) == 0
        }
        // What has ports, flags or a type to look at is no later fragment.
        (
            Match::Ports { .. } | Match::TcpFlags { .. } | Match::Icmp { .. },
            Match::LaterFragment { invert: true },
        ) => true,
        (Match::InIface { pattern, invert }, Match::InIface { pattern: pattern_w, invert: invert_w })
        | (Match::OutIface { pattern, invert }, Match::OutIface { pattern: pattern_w, invert: invert_w }) => {
            match (*invert, *invert_w) {
                (false, false) => covers(pattern_w, pattern),
                (false, true) => are_apart(pattern, pattern_w),
                (true, true) => covers(pattern, pattern_w),
                (true, false) => false,
            }
        }
        _ => false,
    }
}

/// Whether no packet fulfils both.
pub(super) fn excludes(one: &Match, other: &Match, table: Table) -> bool {
    is_known(one, table)
        && is_known(other, table)
        && (excludes_in_order(one, other) || excludes_in_order(other, one))
}

fn excludes_in_order(one: &Match, other: &Match) -> bool {
    match (one, other) {
        (&Match::Src { addr, mask, invert: false }, &Match::Src { addr: addr_o, mask: mask_o, invert })
        | (&Match::Dst { addr, mask, invert: false }, &Match::Dst { addr: addr_o, mask: mask_o, invert }) => {
            let (one, other) = (Net { addr, mask }, Net { addr: addr_o, mask: mask_o });
            if invert { one.is_within(other) } else { one.is_apart(other) }
        }
        (Match::Proto { proto, invert: false }, Match::Proto { proto: other, invert }) => {
            (proto == other) == *invert
        }
        (Match::Proto { proto, invert: false }, Match::Ports { .. }) => !has_ports(*proto),
        (Match::Proto { proto, invert }, Match::TcpFlags { .. }) => (*proto == proto::TCP) == *invert,
        (Match::Proto { proto, invert: false }, Match::Icmp { .. }) => {
            !matches!(*proto, proto::ICMP | proto::ICMPV6)
        }
        (Match::Ports { .. } | Match::TcpFlags { .. }, Match::Icmp { .. })
        | (
            Match::LaterFragment { invert: false },
            Match::Ports { .. } | Match::TcpFlags { .. } | Match::Icmp { .. },
        ) => true,
        (Match::LaterFragment { invert }, Match::LaterFragment { invert: other }) => invert != other,
        (
            Match::Ports { which, ranges, invert },
            Match::Ports { which: which_o, ranges: ranges_o, invert: invert_o },
        ) => {
            which == which_o
                && *which != PortSide::Either
                && are_disjoint(&ports(ranges, *invert), &ports(ranges_o, *invert_o))
        }
        (
            Match::TcpFlags { mask, comp, invert: false },
            Match::TcpFlags { mask: mask_o, comp: comp_o, invert: false },
        ) => (comp ^ comp_o) & mask & mask_o != 0,
        (
            Match::Icmp { ty: Some(ty), codes, invert: false },
            Match::Icmp { ty: Some(ty_o), codes: codes_o, invert: false },
        ) => ty != ty_o || codes.1 < codes_o.0 || codes_o.1 < codes.0,
        (Match::CtState { states, invert }, Match::CtState { states: other, invert: invert_o }) => {
            state_set(*states, *invert) & state_set(*other, *invert_o) == 0
        }
        (Match::InIface { pattern, invert: false }, Match::InIface { pattern: other, invert })
        | (Match::OutIface { pattern, invert: false }, Match::OutIface { pattern: other, invert }) => {
            if *invert {
                covers(other, pattern)
            } else {
                are_apart(pattern, other)
            }
        }
        _ => false,
    }
}

/// Addresses with `mask` bits as in `addr`; the mask may have holes.
#[derive(Clone, Copy)]
struct Net {
    addr: u128,
    mask: u128,
}

impl Net {
    const fn is_within(self, wider: Self) -> bool {
        self.mask & wider.mask == wider.mask && self.addr & wider.mask == wider.addr
    }

    const fn is_apart(self, other: Self) -> bool {
        (self.addr ^ other.addr) & self.mask & other.mask != 0
    }
}

const fn has_ports(proto: u8) -> bool {
    matches!(proto, proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP)
}

/// States a condition lets through, one bit per [`CtState`].
pub(super) const fn state_set(states: CtStateSet, invert: bool) -> u8 {
    (if invert { !states.0 } else { states.0 }) & ALL_STATES
}

/// The set of one or two states, as a condition.
pub(super) fn in_state(states: &[CtState]) -> Match {
    let states = states.iter().fold(CtStateSet::default(), |set, &state| set.with(state));
    Match::CtState { states, invert: false }
}

/// Whether every name that fits `inner` fits `outer`.
fn covers(outer: &IfacePattern, inner: &IfacePattern) -> bool {
    if outer.prefix { inner.name.starts_with(&outer.name) } else { !inner.prefix && inner.name == outer.name }
}

/// Whether no name fits both.
fn are_apart(one: &IfacePattern, other: &IfacePattern) -> bool {
    !covers(one, other) && !covers(other, one)
}

/// The ports a condition lets through.
fn ports(ranges: &[(u16, u16)], invert: bool) -> Ports {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Ports = Vec::with_capacity(sorted.len() + 1);
    for (low, high) in sorted.into_iter().filter(|(low, high)| low <= high) {
        match merged.last_mut() {
            Some(last) if u32::from(low) <= u32::from(last.1) + 1 => last.1 = last.1.max(high),
            _ => merged.push((low, high)),
        }
    }
    if !invert {
        return merged;
    }
    let mut gaps = Vec::with_capacity(merged.len() + 1);
    let mut next = Some(0_u16);
    for (low, high) in merged {
        if let Some(from) = next.filter(|from| *from < low) {
            gaps.push((from, low - 1));
        }
        next = high.checked_add(1);
    }
    gaps.extend(next.map(|from| (from, u16::MAX)));
    gaps
}

fn is_subset(inner: &Ports, outer: &Ports) -> bool {
    inner.iter().all(|(low, high)| outer.iter().any(|(from, to)| from <= low && high <= to))
}

fn are_disjoint(one: &Ports, other: &Ports) -> bool {
    one.iter().all(|(low, high)| other.iter().all(|(from, to)| high < from || to < low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_merged_and_turned_round() {
        assert_eq!(ports(&[(5, 9), (1, 2), (3, 4), (20, 20)], false), [(1, 9), (20, 20)]);
        assert_eq!(ports(&[(0, 9), (u16::MAX, u16::MAX)], true), [(10, u16::MAX - 1)]);
        assert_eq!(ports(&[(0, u16::MAX)], true), []);
        assert_eq!(ports(&[], true), [(0, u16::MAX)]);
    }

    #[test]
    fn interface_names_contain_each_other_as_their_patterns_do() {
        let pattern = |name: &str, prefix| IfacePattern { name: name.to_owned(), prefix };
        assert!(covers(&pattern("eth", true), &pattern("eth0", false)));
        assert!(covers(&pattern("eth", true), &pattern("eth1", true)));
        assert!(!covers(&pattern("eth0", false), &pattern("eth0", true)), "eth01 fits the second only");
        assert!(are_apart(&pattern("eth0", false), &pattern("eth", false)));
        assert!(!are_apart(&pattern("eth", true), &pattern("et", true)));
    }
}
