//! `generate` and `sink` as commands: what they print, and what they refuse.

use palisade_tests::lab::{GATEWAY_LEFT, HOST_IFACE, Lab, Netns, Process};
use palisade_tests::require_root;
use palisade_tests::traffic::SILENCE;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// What `generate ARGS` on the left host prints, parsed.
fn generate(lab: &Lab, args: &[&str]) -> Value {
    let fixed = ["--iface", HOST_IFACE, "--json"];
    let text = lab.left.netns.run(env!("CARGO_BIN_EXE_generate"), &[&fixed, args].concat());
    serde_json::from_str(&text).expect("generate --json prints JSON")
}

/// A `sink` that is ready.
fn sink(netns: &Netns, iface: &str, args: &[&str]) -> Process {
    let fixed = ["--iface", iface, "--json", "--seconds", "600"];
    let process = netns.spawn(env!("CARGO_BIN_EXE_sink"), &[&fixed, args].concat());
    assert!(process.wait_for_line("ready", PATIENCE), "{}", process.stderr());
    process
}

/// Ends a `sink` when what was sent has had time to arrive; what it prints, parsed.
fn counted(sink: Process) -> Value {
    thread::sleep(SILENCE);
    sink.signal(Signal::TERM);
    let text = sink.wait(PATIENCE).expect_success("sink");
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("sink --json prints JSON")
}

#[test]
fn stamped_load_paced_or_not_is_accounted_for() {
    require_root!();
    let lab = Lab::new();
    for (pace, family) in [(None, "10.77.0.2"), (Some("even"), "fd77::2"), (Some("poisson"), "10.77.0.2")] {
        let sink = sink(&lab.gateway, GATEWAY_LEFT, &["--stamps", "--flows", "10"]);
        let mut args =
            vec!["--flows", "10", "--stamp", "--size", "imix", "--rate", "10000", "--packets", "1000"];
        args.extend(["--dst", family]);
        args.extend(pace.into_iter().flat_map(|pace| ["--pace", pace]));
        let sent = generate(&lab, &args);
        assert_eq!(sent["packets"], json!(1000));
        assert_eq!(sent["rate_kept"].is_boolean(), pace.is_some(), "{sent}");
        assert_eq!(sent["late_ns"]["max"].is_u64(), pace.is_some(), "{sent}");
        let counted = counted(sink);
        assert_eq!((&counted["packets"], &counted["unstamped"]), (&json!(1000), &json!(0)));
        assert_eq!(counted["latency_ns"]["count"], json!(1000));
        let whole = json!({
            "packets": 1000, "expected": 1000, "lost": 0, "late": 0, "duplicates": 0, "ancient": 0,
        });
        assert_eq!(counted["sequence"], whole);
    }
}

#[test]
fn handshakes_are_counted_at_both_ends_beside_a_flood() {
    require_root!();
    let lab = Lab::new();
    let server = sink(&lab.gateway, GATEWAY_LEFT, &["--role", "server", "--flows", "100", "--ending", "fin"]);
    let client = sink(&lab.left.netns, HOST_IFACE, &["--role", "client", "--flows", "100"]);
    let args = ["--flows", "100", "--protocol", "syn", "--flood", "syn", "--honest-every", "4"];
    let sent = generate(&lab, &[&args[..], &["--rate", "10000", "--packets", "400"]].concat());
    assert_eq!((&sent["packets"], &sent["flood"]), (&json!(400), &json!(300)));
    let [server, client] = [server, client].map(counted);
    let of = |end: &Value| ["opened", "completed", "closed", "flood"].map(|name| end[name].as_u64());
    assert_eq!(of(&server), [100, 100, 100, 300].map(Some));
    assert_eq!(of(&client), [100, 0, 100, 0].map(Some));
}

#[test]
fn a_sink_that_saw_nothing_prints_no_percentile() {
    require_root!();
    let lab = Lab::new();
    let counted = counted(sink(&lab.gateway, GATEWAY_LEFT, &["--stamps"]));
    assert_eq!((&counted["packets"], &counted["latency_ns"]), (&json!(0), &Value::Null));
}

#[test]
fn options_that_make_no_sense_together_are_refused() {
    require_root!();
    let lab = Lab::new();
    let cases: [(&str, &[&str], &str); 7] = [
        (env!("CARGO_BIN_EXE_generate"), &["--packets", "1", "--pace"], "--rate"),
        (env!("CARGO_BIN_EXE_generate"), &["--packets", "1", "--honest-every", "2"], "--flood"),
        (env!("CARGO_BIN_EXE_generate"), &["--packets", "1", "--size", "large"], "or imix"),
        (env!("CARGO_BIN_EXE_generate"), &["--packets", "1", "--size", "10"], "headers need 42"),
        (env!("CARGO_BIN_EXE_sink"), &["--ending", "fin"], "--role server"),
        (env!("CARGO_BIN_EXE_sink"), &["--role", "server"], "--flows"),
        (env!("CARGO_BIN_EXE_sink"), &["--role", "client", "--stamps"], "--stamps"),
    ];
    for (program, args, reason) in cases {
        let exit = lab.left.netns.exec(program, &[&["--iface", HOST_IFACE], args].concat());
        assert!(exit.code != Some(0) && exit.stderr.contains(reason), "{args:?}: {}", exit.stderr);
    }
}
