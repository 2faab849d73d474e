//! `fwctl replay` over real captures: the dataplane with the capture's clock, no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use dataplane::testing::packets::udp;
use dataplane::wire::checksum::{finish, sum};
use palisade_tests::daemon::binary;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Everything that starts on the left may pass, and what belongs to it.
const STATEFUL: &str = "*filter\n:FORWARD DROP [0:0]\n\
    -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A FORWARD -m conntrack --ctstate INVALID -j DROP\n\
    -A FORWARD -i left -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n";

fn captures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/captures")
}

fn replay(args: &[&str], capture: &Path) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules");
    fs::write(&rules, STATEFUL).unwrap();
    let mut command = Command::new(binary("fwctl"));
    command.arg("replay").arg("--rules").arg(&rules).arg("--rules6").arg(&rules);
    command.args(args).arg(capture).output().unwrap()
}

/// One line per packet.
fn packets(name: &str, args: &[&str]) -> Vec<Value> {
    let output = replay(&[&["--json"], args].concat(), &captures().join(name));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{name}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Verdict and connection state of each packet, as `accept NEW`.
fn fates(name: &str, args: &[&str]) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    packets(name, args)
        .iter()
        .map(|line| format!("{} {}", word(&line["verdict"]), word(&line["ct_state"])))
        .collect()
}

/// A capture file of these Ethernet frames, a second apart.
fn pcap(frames: &[&[u8]]) -> Vec<u8> {
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_le_bytes()).collect() };
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1]);
    for (second, frame) in (1_700_000_000..).zip(frames) {
        let len = u32::try_from(frame.len()).unwrap();
        file.extend(words(&[second, 0, len, len]));
        file.extend_from_slice(frame);
    }
    file
}

/// Two fragments of an IPv4 datagram, cut behind 48 bytes of its payload.
fn in_two(whole: &[u8], id: u16) -> [Vec<u8>; 2] {
    [(0, 48, true), (48, whole.len() - 34, false)].map(|(from, to, more)| {
        let mut frame = [&whole[..34], &whole[34 + from..34 + to]].concat();
        let len = u16::try_from(frame.len() - 14).unwrap();
        frame[16..18].copy_from_slice(&len.to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        let place = u16::try_from(from / 8).unwrap() | u16::from(more) << 13;
        frame[20..22].copy_from_slice(&place.to_be_bytes());
        frame[24..26].fill(0);
        let check = finish(sum(&frame[14..34], 0));
        frame[24..26].copy_from_slice(&check.to_be_bytes());
        frame
    })
}

fn count(fates: &[String], wanted: &str) -> usize {
    fates.iter().filter(|fate| *fate == wanted).count()
}

#[test]
fn every_capture_is_read_to_its_end_and_every_packet_gets_a_verdict() {
    let mut seen = 0;
    for entry in fs::read_dir(captures()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "pcap") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut lines = packets(name, &[]);
        // Fragments wait for the rest of their datagram.
        lines.sort_by_key(|line| line["n"].as_u64());
        for (index, line) in lines.iter().enumerate() {
            assert_eq!(line["n"], index + 1);
            let verdict = line["verdict"].as_str().unwrap();
            assert!(["accept", "drop", "reject", "held"].contains(&verdict), "{name}: {line}");
            assert_eq!(line["reason"].is_null(), ["accept", "held"].contains(&verdict), "{name}: {line}");
            for field in ["ct_state", "rule"] {
                assert!(line.get(field).is_some(), "{name}: no {field} in {line}");
            }
            seen += 1;
        }
    }
    assert!(seen > 500, "{seen} packets");
}

#[test]
fn a_browsing_session_is_new_once_and_established_after() {
    let fates = fates("http_get.pcap", &[]);
    assert_eq!(fates[0], "accept NEW");
    assert_eq!(count(&fates, "accept ESTABLISHED"), fates.len() - 1);
    let lines = packets("http_get.pcap", &[]);
    assert_eq!(lines[0]["rule"], "FORWARD:3");
    assert_eq!(lines[1]["rule"], "FORWARD:1");
}

#[test]
fn pings_and_their_errors_are_tracked() {
    assert_eq!(fates("icmp_icmp-ping.pcap", &[])[..2], ["accept NEW", "accept ESTABLISHED"]);
    assert_eq!(fates("icmp_icmp6-ping.pcap", &[])[..2], ["accept NEW", "accept ESTABLISHED"]);
    // The capture holds an error, but not the datagram it is about.
    assert_eq!(fates("icmp_icmp-destunreach-udp.pcap", &[]), ["drop INVALID"]);
    assert!(fates("icmp_icmp6-neighbor-solicit.pcap", &[]).iter().any(|fate| fate.ends_with("UNTRACKED")));
}

#[test]
fn tags_are_looked_through() {
    for name in ["http-vlan-0.pcap", "http-qinq-0.pcap"] {
        let fates = fates(name, &[]);
        assert!(count(&fates, "accept NEW") >= 1, "{name}: {fates:?}");
        assert!(count(&fates, "accept ESTABLISHED") > fates.len() / 2, "{name}: {fates:?}");
    }
}

#[test]
fn a_bad_checksum_is_invalid_and_can_be_overlooked() {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("bad.pcap");
    let (host, web) = ([10, 0, 0, 7], [192, 0, 2, 80]);
    let frame = udp(host, web).ports(5000, 53).payload(b"who?").bad_checksum().build();
    fs::write(&capture, pcap(&[&frame])).unwrap();
    let verdict = |args: &[&str]| String::from_utf8(replay(args, &capture).stdout).unwrap();
    assert!(verdict(&[]).contains("drop    rule_drop            INVALID"), "{}", verdict(&[]));
    assert!(verdict(&["--set", "checksum=0"]).contains("accept  -                    NEW"));
}

#[test]
fn fragments_are_held_and_share_the_fate_of_their_datagram() {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("fragments.pcap");
    let (host, web) = ([10, 0, 0, 7], [192, 0, 2, 80]);
    let datagram = |port| udp(host, web).ports(port, 53).payload(&[7; 92]).build();
    let [a, a_end] = in_two(&datagram(1), 1);
    let [b, b_end] = in_two(&datagram(2), 2);
    let [lost, _] = in_two(&datagram(3), 3);
    let mut wrong = b.clone();
    // Says otherwise than the one before where both speak.
    wrong[20..22].copy_from_slice(&(4_u16 | 1 << 13).to_be_bytes());
    wrong[24..26].fill(0);
    let check = finish(sum(&wrong[14..34], 0));
    wrong[24..26].copy_from_slice(&check.to_be_bytes());
    let whole = datagram(9);
    let file = pcap(&[&a, &b, &whole, &lost, &a_end, &wrong, &b_end]);
    fs::write(&capture, file).unwrap();

    let output = replay(&["--json"], &capture);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["n"].as_u64().unwrap(), line["verdict"].as_str().unwrap(), line["reason"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (3, "accept", None),
            (1, "accept", None),
            (5, "accept", None),
            (2, "drop", Some("fragment_overlap")),
            (6, "drop", Some("fragment_overlap")),
            (4, "held", None),
            (7, "held", None),
        ],
        "{text}"
    );
    assert_eq!((&lines[1]["ct_state"], &lines[2]["rule"]), (&"NEW".into(), &"FORWARD:3".into()));
    let summary = String::from_utf8(output.stderr).unwrap();
    assert!(summary.starts_with("7 packets, 3 accept, 2 drop, 2 held\n"), "{summary}");
    let text = String::from_utf8(replay(&[], &capture).stdout).unwrap();
    assert!(text.contains(" held    -                    -            - "), "{text}");
}

#[test]
fn the_operator_says_who_is_on_the_left() {
    let lines = packets("http_get.pcap", &["--left", "0.0.0.0/32"]);
    assert!(lines.iter().all(|line| line["ingress"] == "right"));
    assert_eq!(lines[0]["reason"], "policy_drop");
    assert_eq!(lines[0]["rule"], "FORWARD:policy");
}

#[test]
fn text_output_ends_with_a_summary() {
    let output = replay(&[], &captures().join("http_get.pcap"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().last(), Some("14 packets, 14 accept"));
    assert!(text.contains("-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"), "{text}");
}

#[test]
fn what_is_no_capture_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let junk = dir.path().join("junk.pcap");
    fs::write(&junk, b"this is not a capture at all").unwrap();
    let cut = dir.path().join("cut.pcap");
    let whole = fs::read(captures().join("http_get.pcap")).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    for path in [&junk, &cut, &dir.path().join("missing.pcap")] {
        let output = replay(&["--json"], path);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{}: {errors}", path.display());
        assert!(
            errors.contains("error: ") && errors.contains(path.file_name().unwrap().to_str().unwrap()),
            "{errors}"
        );
    }
}
