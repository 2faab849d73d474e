//! TCP between the hosts' own stacks, by iperf3: what a user gets of a gateway, in payload that has arrived.
//!
//! Both ends of iperf3 run on the generator's core, so that the forwarder has its own to itself; on two cores the hosts'
//! stacks are often the limit. The hosts are as everywhere in the bench, and the same for every peer: MTU 1500, GRO on,
//! checksums, TSO and GSO off, for nobody behind an XDP program completes checksums or cuts segments that the sender left
//! to its NIC.

use super::{Plan, turns};
use crate::Error;
use crate::bed::Bed;
use crate::peers::{Rules, Setup, packages};
use crate::results::{Better, Table};
use palisade_tests::lab::{Exit, Netns, Process};
use serde_json::Value;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Streams at a time.
const STREAMS: [u32; 2] = [1, 4];

/// To which the rules let connections.
const PORT: u16 = 7201;

/// Room for connections.
const MAX_FLOWS: u32 = 100_000;

/// Longest that iperf3 may take to get ready, and to end beside the time it sends for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures it.
pub(super) fn measure(plan: &Plan) -> Result<Table, Error> {
    let points = STREAMS.map(|streams| format!("{streams} stream{}", if streams == 1 { "" } else { "s" }));
    let title = "TCP goodput, 10 rules";
    let mut table = Table::new("goodput", title, ("Gbit/s", Better::Higher), &points);
    let columns = 0..STREAMS.len();
    let missing = packages(&[("iperf3", "iperf3")]);
    if !missing.is_empty() {
        let reason = format!("not installed: {}", missing.join(", "));
        for peer in &plan.peers {
            table.enter(peer.name(), &columns, Err(&reason));
        }
        return Ok(table);
    }
    let bed = Bed::new(plan.cores)?;
    let setup = Setup { rules: Rules::new(10), max_flows: MAX_FLOWS, ..Setup::default() };
    let secs = whole_secs(plan.time);
    turns::take(plan, &bed, &setup, (&mut table, columns), |_| {
        STREAMS.into_iter().map(|streams| transfer(&bed, streams, secs)).collect()
    })?;
    table.notes.push(format!(
        "iperf3 from the left host to the right one for {secs} s, payload received; MTU 1500, hosts with GRO, without checksum \
         offload, TSO and GSO, both on one core"
    ));
    table.notes.push(
        "the kernel's own forwarding has GRO on its NICs, as everywhere here, and so forwards several segments as one; who \
         reads by AF_XDP gets and forwards each by itself"
            .to_owned(),
    );
    Ok(table)
}

/// iperf3 knows only whole seconds, and no fewer than one.
fn whole_secs(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

/// Gbit/s from the left host to the right one.
fn transfer(bed: &Bed, streams: u32, secs: u64) -> Result<f64, Error> {
    let (left, right) = (&bed.lab.left, &bed.lab.right);
    let (address, port) = (right.v4.to_string(), PORT.to_string());
    // Of one measurement each: what a server remembers of one that failed is not the next one's.
    let mut server =
        right.netns.spawn("iperf3", &["--server", "--one-off", "--bind", &address, "--port", &port]);
    wait_until_listening(&right.netns, &mut server)?;
    let (streams, time) = (streams.to_string(), secs.to_string());
    let to = ["--client", &address, "--port", &port, "--connect-timeout", "10000"];
    let how = ["--parallel", &streams, "--time", &time, "--json"];
    let client = left.netns.spawn("iperf3", &[&to[..], &how].concat());
    let exit = client
        .try_wait(Duration::from_secs(secs) + PATIENCE)
        .map_err(|exit| format!("iperf3 did not end and was killed: {}", exit.stderr.trim()))?;
    let gbits = goodput_of(&exit)?;
    server.try_wait(PATIENCE).map_err(|_| "iperf3 on the right host did not end and was killed")?;
    Ok(gbits)
}

fn wait_until_listening(netns: &Netns, server: &mut Process) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    // Local port, no other end, state LISTEN. The thread's own view: the process has another namespace.
    let line = format!(":{PORT:04X} 00000000:0000 0A ");
    while !netns.within(|| fs::read_to_string("/proc/thread-self/net/tcp"))?.contains(&line) {
        if !server.is_running() {
            return Err(format!("iperf3 on the right host ended: {}", server.stderr().trim()).into());
        }
        if Instant::now() > deadline {
            return Err(format!("iperf3 does not listen after {PATIENCE:?}").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Payload that has arrived by time, in Gbit/s, of what `iperf3 --json` has printed.
fn goodput_of(exit: &Exit) -> Result<f64, Error> {
    let report: Value = serde_json::from_str(&exit.stdout)
        .map_err(|error| format!("iperf3 printed no JSON ({error}): {}", exit.stderr.trim()))?;
    if let Some(error) = report.get("error") {
        return Err(format!("iperf3: {error}").into());
    }
    let number = |name| report.pointer(&format!("/end/sum_received/{name}")).and_then(Value::as_f64);
    match (number("bytes"), number("seconds")) {
        (Some(bytes), Some(seconds)) if bytes > 0.0 && seconds > 0.0 => Ok(bytes * 8.0 / seconds / 1e9),
        _ => Err("iperf3 says nothing of payload that has arrived".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(stdout: &str) -> Exit {
        Exit { code: Some(0), stdout: stdout.to_owned(), stderr: "lost its way".to_owned() }
    }

    #[test]
    fn goodput_is_what_was_received() {
        let report = r#"{"end": {"sum_sent": {"seconds": 1.0, "bytes": 9000000000},
            "sum_received": {"seconds": 2.0, "bytes": 500000000, "bits_per_second": 1}}}"#;
        assert_eq!(goodput_of(&printed(report)).unwrap().to_bits(), 2.0_f64.to_bits());
    }

    #[test]
    fn what_went_wrong_is_said() {
        for (stdout, words) in [
            (r#"{"error": "unable to connect"}"#, "unable to connect"),
            (r#"{"end": {"sum_received": {"seconds": 0, "bytes": 0}}}"#, "nothing of payload"),
            ("iperf3: wrong", "lost its way"),
        ] {
            let error = goodput_of(&printed(stdout)).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_started_second_is_a_whole_one() {
        assert_eq!(
            [0, 50, 1_000, 1_001, 3_000].map(|ms| whole_secs(Duration::from_millis(ms))),
            [1, 1, 1, 2, 3]
        );
    }
}
