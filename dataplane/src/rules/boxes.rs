//! The second step of compilation: lines as the classifier sees them, by what all packets of a flow and direction share,
//! so that what it finds never makes a verdict depend on a single packet.

use super::Facts;
use super::classifier::{self, Header, NIC_FLAGS, NO_PORTS, Rule};
use super::line::{ANY_PROTO, Action, Line};
use super::matching::has_ports;

/// A packet as the classifier sees it.
#[inline]
pub(super) fn header(facts: &Facts<'_>) -> Header {
    let tuple = &facts.packet.tuple;
    let has_ports = has_ports(facts.packet);
    Header {
        src: tuple.src,
        dst: tuple.dst,
        src_port: tuple.src_port,
        dst_port: tuple.dst_port,
        proto: tuple.proto,
        facts: classifier::facts(facts.ct_state as u8, has_ports, facts.ingress.0, facts.egress.0),
    }
}

/// The lines of a program, for a machine with so many NICs.
pub(super) fn of(lines: &[Line], nics: usize) -> Vec<Rule> {
    // Lines before this one may be skipped by one that stands before them.
    let mut skipped_to = 0;
    (0_u32..)
        .zip(lines)
        .map(|(index, line)| {
            let hides_to = if skipped_to <= index && is_whole(line, nics) { hides_to(line) } else { 0 };
            if let Action::Skip(to) | Action::SkipSilently(to) | Action::Pass(to) | Action::Gate(to) =
                line.action
            {
                skipped_to = skipped_to.max(to);
            }
            rule(line, hides_to)
        })
        .collect()
}

fn rule(line: &Line, hides_to: u32) -> Rule {
    let no_ports = if line.needs_ports { NO_PORTS } else { 0 };
    Rule {
        src: line.src,
        src_mask: line.src_mask,
        dst: line.dst,
        dst_mask: line.dst_mask,
        src_ports: line.src_ports,
        dst_ports: line.dst_ports,
        proto: u8::try_from(line.proto).ok().filter(|_| line.proto != ANY_PROTO),
        refuses: classifier::refusal(line.states, line.ingress, line.egress) | no_ports,
        hides_to,
    }
}

/// Lines behind this one up to here do not matter to a packet that matches it; 0 if all of them do.
pub(super) const fn hides_to(line: &Line) -> u32 {
    match line.action {
        Action::Decide(_) => u32::MAX,
        Action::Skip(to) | Action::SkipSilently(to) | Action::Pass(to) => to,
        Action::Count | Action::Do(_) | Action::Gate(_) => 0,
    }
}

/// Whether a line matches whenever the classifier says so.
fn is_whole(line: &Line, nics: usize) -> bool {
    let others = (0..nics).skip(NIC_FLAGS as usize).fold(0_u64, |set, nic| set | 1 << nic);
    let solid = |set: u64| set & others == 0 || set & others == others;
    line.more.is_empty() && solid(line.ingress) && solid(line.egress)
}
