//! Whether NICs spread packets over queues as workers own flows: both directions of a connection to the same queue number, on
//! both NICs. Where they do not, packets are handed from worker to worker: slower, never wrong.

use super::{Finding, Machine, Nic, Severity};
use crate::net::Rss;

/// `RXH_IP_SRC | RXH_IP_DST | RXH_L4_B_0_1 | RXH_L4_B_2_3` of `include/uapi/linux/ethtool.h`: the whole 5-tuple.
const FIELDS_5_TUPLE: u64 = 0b1111 << 4;

/// Packets handed over, of a thousand received, that are worth a word.
const HANDED_PER_MILLE_MAX: u64 = 10;

/// Fewer packets than these say nothing.
const PACKETS_MIN: u64 = 1000;

/// What key, table and fields say.
pub(super) fn agreement(machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (wire, left, right) in machine.whole_wires() {
        if left.queues.min(right.queues) < 2 {
            continue;
        }
        let mut one_by_one = true;
        for nic in [left, right] {
            if let Some(trouble) = trouble(nic) {
                one_by_one = false;
                findings.push(say(&nic.name, trouble));
            }
        }
        let differ = match (&left.rss, &right.rss) {
            (Some(left), Some(right)) => left.key != right.key || left.indirection != right.indirection,
            _ => false,
        };
        if one_by_one && differ {
            let what = format!("{} and {} have different keys or tables", left.name, right.name);
            findings.push(say(&wire.name, what));
        }
    }
    findings
}

fn say(subject: &str, what: String) -> Finding {
    let mend = "start fwd, which sets both NICs alike where their drivers let it; by hand: ethtool -X IF equal N hkey KEY, \
                ethtool -N IF rx-flow-hash udp4 sdfn";
    Finding::new("rss", subject, Severity::Warning)
        .what(what)
        .leads_to("the two directions of a connection come to different workers: packets are handed over, which costs time")
        .mended_by(mend)
}

/// What keeps this NIC from treating both directions of a connection alike.
fn trouble(nic: &Nic) -> Option<String> {
    let Some(Rss { key, indirection, toeplitz, fields }) = &nic.rss else {
        return Some(format!(
            "the driver {} does not say how it spreads packets over {} queues",
            nic.driver, nic.queues
        ));
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

/// What really happens: how many packets a gateway that runs hands from worker to worker.
pub(super) fn observed(machine: &Machine) -> Vec<Finding> {
    let Some(daemon) = &machine.daemon else { return Vec::new() };
    let workers = &daemon.stats.workers;
    let received: u64 = workers.iter().map(|worker| worker.rx.packets).sum();
    let handed: u64 = workers.iter().map(|worker| worker.handed_off).sum();
    if received < PACKETS_MIN || handed.saturating_mul(1000) / received <= HANDED_PER_MILLE_MAX {
        return Vec::new();
    }
    let percent = handed.saturating_mul(100) / received;
    let what = format!(
        "of {received} packets received so far, {percent} % came to a worker that does not own their flow"
    );
    vec![say("machine", what)]
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
