//! Whether NICs spread packets over queues as workers own flows: both directions of a connection to the same queue number, on
//! both NICs. Where they do not, packets are handed from worker to worker: slower, never wrong.

use super::{Finding, Machine, Nic, Severity};
use crate::net::Spreading;
use dataplane::worker::HandoffCause;

/// `RXH_IP_SRC | RXH_IP_DST | RXH_L4_B_0_1 | RXH_L4_B_2_3` of `include/uapi/linux/ethtool.h`: the whole 5-tuple.
const FIELDS_5_TUPLE: u64 = 0b1111 << 4;

/// Misdirected packets, of a thousand received, that are worth a word.
const MISDIRECTED_PER_MILLE_MAX: u64 = 10;

/// Fewer packets than these say nothing.
const PACKETS_MIN: u64 = 1000;

/// Why key, table and fields are read, and no frames sent to see where they go.
const UNTRIED: &str =
    "not tried with probe frames, which would have to come in from the far end of the cable";

/// What key, table and fields say.
pub(super) fn agreement(machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    if machine.worker_cores().len() < 2 {
        // All flows are of the one worker that there is.
        return findings;
    }
    for (wire, left, right) in machine.whole_wires() {
        if left.queues.min(right.queues) < 2 {
            continue;
        }
        let troubles = [left, right].map(|nic| trouble(nic).map(|trouble| (nic, trouble)));
        let differ = match (&left.rss, &right.rss) {
            (Some(left), Some(right)) => left.key != right.key || left.indirection != right.indirection,
            _ => false,
        };
        if troubles.iter().any(Option::is_some) {
            let troubles = troubles.into_iter().flatten();
            findings.extend(troubles.map(|(nic, trouble)| {
                let finding = say(&nic.name, format!("{trouble}; {UNTRIED}"));
                // What cannot be read cannot be set either.
                if nic.rss.is_some() { finding } else { finding.mended_by("") }
            }));
        } else if differ {
            let what = format!("{} and {} have different keys or tables; {UNTRIED}", left.name, right.name);
            findings.push(say(&wire.name, what));
        } else if traffic(machine).is_none() {
            let what = format!("by ethtool both NICs treat both directions alike; {UNTRIED}");
            findings.push(
                Finding::new("rss", &wire.name, Severity::Note)
                    .what(what)
                    .leads_to(
                        "a driver that says so and does otherwise costs time, as packets are handed over",
                    )
                    .mended_by("look again once the gateway has had traffic: what it hands over tells"),
            );
        }
    }
    findings
}

fn say(subject: &str, what: String) -> Finding {
    let mend = "on both NICs alike: ethtool -X IF hfunc toeplitz equal QUEUES hkey 6d:5a:6d:5a:..., \
                ethtool -N IF rx-flow-hash tcp4 sdfn (and udp4, tcp6, udp6)";
    Finding::new("rss", subject, Severity::Warning)
        .what(what)
        .leads_to("the two directions of a connection may come to different workers: packets are handed over, which costs time")
        .mended_by(mend)
}

/// What keeps this NIC from treating both directions of a connection alike.
fn trouble(nic: &Nic) -> Option<String> {
    let Some(Spreading { key, indirection, toeplitz, fields }) = &nic.rss else {
        return Some(match nic.driver.as_str() {
            "veth" => "a veth's packets come to the queue that the sending core picks, whatever their flow"
                .to_owned(),
            driver => {
                format!("the driver {driver} does not say how it spreads packets over {} queues", nic.queues)
            }
        });
    };
    if *toeplitz == Some(false) {
        return Some("it hashes otherwise than by Toeplitz".to_owned());
    }
    if !is_symmetric(key) {
        return Some("its hash key is not symmetric".to_owned());
    }
    for (protocol, fields) in ["TCP", "UDP"].into_iter().zip(fields) {
        if fields.is_some_and(|fields| fields & FIELDS_5_TUPLE != FIELDS_5_TUPLE) {
            return Some(format!("of {protocol} it does not hash addresses and ports"));
        }
    }
    let unused = (0..nic.queues).filter(|queue| !indirection.contains(queue)).count();
    (unused > 0 && !indirection.is_empty())
        .then(|| format!("{unused} of its {} queues get nothing", nic.queues))
}

/// Whether a Toeplitz key gives both directions the same hash: so it does if its bits repeat every 16.
fn is_symmetric(key: &[u8]) -> bool {
    !key.is_empty() && key.iter().zip(key.iter().skip(2)).all(|(early, late)| early == late)
}

/// What really happens: how many packets of those that a running gateway received came to the wrong queue.
pub(super) fn observed(machine: &Machine) -> Vec<Finding> {
    let Some((received, misdirected)) = traffic(machine) else { return Vec::new() };
    if misdirected.saturating_mul(1000) / received <= MISDIRECTED_PER_MILLE_MAX {
        return Vec::new();
    }
    let percent = misdirected.saturating_mul(100) / received;
    let what = format!(
        "of {received} packets received so far, {percent} % came to a queue of another worker than that of their flow"
    );
    vec![say("machine", what)]
}

/// Packets that a running gateway has received, and those of them that came to the wrong queue; `None` if there were too few
/// to tell.
fn traffic(machine: &Machine) -> Option<(u64, u64)> {
    let workers = &machine.daemon.as_ref()?.stats.workers;
    let received = workers.iter().map(|worker| worker.rx.packets).sum();
    let handoffs = workers.iter().flat_map(|worker| &worker.handoffs);
    let misdirected = handoffs.filter(|row| row.cause == HandoffCause::Misdirected.name());
    (received >= PACKETS_MIN).then(|| (received, misdirected.map(|row| row.out).sum()))
}

#[cfg(test)]
mod tests {
    use super::is_symmetric;

    #[test]
    fn a_key_of_one_word_over_and_over_is_symmetric() {
        assert!(is_symmetric(&[0x6d, 0x5a].repeat(20)));
        assert!(!is_symmetric(&[0x6d, 0x5a, 0x56, 0xda]));
        assert!(!is_symmetric(&[]));
    }
}
