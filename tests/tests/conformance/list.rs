//! Lists of connections, the kernel's and ours, as values that compare.

use control::api::{Shown, expect_row, flow_row};
use control::cli::{Output, write_expectation, write_flow};
use dataplane::clock::Tick;
use dataplane::flow::FlowView;
use dataplane::packet::{Family, Tuple, proto};
use dataplane::testing::gateway::Gateway;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Seconds two timers may differ by: neither side's clock stands still while the other is asked.
const TIMER_TOLERANCE: u32 = 2;

/// What is compared of a connection beside its timer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    state: String,
    unreplied: bool,
    assured: bool,
    mark: u32,
    packets: Vec<u64>,
    bytes: Vec<u64>,
    timer: u32,
}

/// Connections by their original tuple, printed as `conntrack -L` prints it.
pub(crate) type List = BTreeMap<String, Entry>;

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, unreplied, assured, mark, packets, bytes, timer } = self;
        write!(f, "{state} {timer}s unreplied={unreplied} assured={assured} mark={mark}")?;
        write!(f, " packets={packets:?} bytes={bytes:?}")
    }
}

/// The kernel's list.
pub(crate) fn theirs(text: &str) -> List {
    let mut list = List::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, number, timer, rest @ ..] = words.as_slice() else { continue };
        let state = rest.first().filter(|word| !word.contains('=') && !word.starts_with('[')).unwrap_or(&"");
        let keys = rest.iter().filter(|word| word.contains('='));
        let is_of_tuple = |word: &&&str| {
            let name = word.split('=').next().unwrap_or_default();
            !matches!(name, "mark" | "use" | "packets" | "bytes" | "zone" | "zone-orig" | "zone-reply")
        };
        let counts = |name: &str| -> Vec<u64> {
            let values = keys.clone().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.map(|value| value.parse().unwrap()).collect()
        };
        let values: Vec<&str> = keys.clone().filter(is_of_tuple).copied().collect();
        let orig = &values[..values.len() / 2];
        let mark =
            keys.clone().find_map(|word| word.strip_prefix("mark=")).map_or(0, |mark| mark.parse().unwrap());
        let entry = Entry {
            state: (*state).to_owned(),
            unreplied: line.contains("[UNREPLIED]"),
            assured: line.contains("[ASSURED]"),
            mark,
            packets: counts("packets"),
            bytes: counts("bytes"),
            timer: timer.parse().unwrap_or(0),
        };
        let _ = name;
        list.insert(format!("{number} {}", orig.join(" ")), entry);
    }
    list
}

/// The kernel's list as `conntrack -L` prints it, without what a second look would change: timers and references.
pub(crate) fn lines(text: &str) -> Vec<String> {
    let steady = |line: &str| -> Option<String> {
        let mut words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        (words.len() > 5).then(|| {
            words.remove(2);
            words.retain(|word| !word.starts_with("use="));
            words.join(" ")
        })
    };
    let mut lines: Vec<String> = text.lines().filter_map(steady).collect();
    lines.sort();
    lines
}

/// Lines of `conntrack -L expect` without their timers, sorted.
pub(crate) fn lines_of_expectations(text: &str) -> Vec<String> {
    let without_timer =
        |line: &str| line.split_once(' ').map_or_else(String::new, |(_, rest)| rest.to_owned());
    let mut lines: Vec<String> = text.lines().map(without_timer).collect();
    lines.sort();
    lines
}

/// Ours as `fwctl flows -L expect` prints it.
pub(crate) fn our_expectations(gateway: &mut Gateway, family: Family) -> String {
    let now = gateway.now().tick();
    let mut text = Vec::new();
    let expectations = gateway.workers[0].tracker_mut().expectations().list(now);
    for expectation in expectations.iter().filter(|expectation| expectation.family == family) {
        write_expectation(&expect_row(expectation, now), &mut text).unwrap();
    }
    String::from_utf8(text).unwrap()
}

/// Ours as `fwctl flows -L` prints it.
pub(crate) fn our_text(gateway: &mut Gateway, family: Family, output: &Output) -> String {
    let now: Tick = gateway.now().tick();
    let mut text = Vec::new();
    for worker in &mut gateway.workers {
        worker.tracker_mut().region().walk(now, |view| {
            if view.orig.family == family && view.secs_left > 2 {
                let row = flow_row(view, &Shown::default());
                write_flow(&row, output, &mut text).unwrap();
            }
        });
    }
    String::from_utf8(text).unwrap()
}

/// Ours.
pub(crate) fn ours(gateway: &mut Gateway, family: Family) -> List {
    let now: Tick = gateway.now().tick();
    let mut list = List::new();
    for worker in &mut gateway.workers {
        worker.tracker_mut().region().walk(now, |view| {
            if view.orig.family == family && view.secs_left > 0 {
                list.insert(key(&view.orig), entry(view));
            }
        });
    }
    list
}

fn entry(view: &FlowView) -> Entry {
    Entry {
        state: view.state_name().unwrap_or_default().to_owned(),
        unreplied: !view.is_seen_reply(),
        assured: view.is_assured(),
        mark: view.mark,
        packets: view.packets.to_vec(),
        bytes: view.bytes.to_vec(),
        timer: view.secs_left,
    }
}

fn key(tuple: &Tuple) -> String {
    let address = |address: u128| match tuple.family {
        Family::V4 => Ipv4Addr::from(u32::try_from(address).unwrap()).to_string(),
        Family::V6 => Ipv6Addr::from(address).to_string(),
    };
    let ends = format!("{} src={} dst={}", tuple.proto, address(tuple.src), address(tuple.dst));
    match tuple.proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => {
            format!("{ends} sport={} dport={}", tuple.src_port, tuple.dst_port)
        }
        proto::ICMP | proto::ICMPV6 => {
            let [ty, code] = tuple.dst_port.to_be_bytes();
            format!("{ends} type={ty} code={code} id={}", tuple.src_port)
        }
        proto::GRE => format!("{ends} srckey={:#x} dstkey={:#x}", tuple.src_port, tuple.dst_port),
        // conntrack still knows DCCP, whose tracker the kernel has lost.
        33 => format!("{ends} sport=0 dport=0"),
        _ => ends,
    }
}

/// How two lists differ, one line each; empty if they do not.
pub(crate) fn differences(theirs: &List, ours: &List) -> Vec<String> {
    let mut found = Vec::new();
    for (key, entry) in theirs {
        match ours.get(key) {
            // The last second of a timer is a matter of rounding.
            None if entry.timer <= TIMER_TOLERANCE => {}
            None => found.push(format!("{key}: kernel has {entry}, we have nothing")),
            Some(own) => {
                let same = Entry { timer: entry.timer, ..own.clone() } == *entry;
                if !same || entry.timer.abs_diff(own.timer) > TIMER_TOLERANCE {
                    found.push(format!("{key}: kernel has {entry}, we have {own}"));
                }
            }
        }
    }
    for (key, own) in
        ours.iter().filter(|(key, own)| !theirs.contains_key(*key) && own.timer > TIMER_TOLERANCE)
    {
        found.push(format!("{key}: kernel has nothing, we have {own}"));
    }
    found
}

/// Lines of `ipset save` in order, without sizes of the hash; timeouts in steps of ten seconds, rounded up.
pub(crate) fn lines_of_sets(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        for at in 1..words.len() {
            match (words[at - 1].as_str(), words[at].parse::<u32>()) {
                ("hashsize", _) | ("initval", _) => words[at] = "?".to_owned(),
                ("timeout", Ok(secs)) => words[at] = secs.next_multiple_of(10).to_string(),
                _ => {}
            }
        }
        words.join(" ")
    };
    let mut lines: Vec<_> = text.lines().map(line).collect();
    lines.sort();
    lines
}
