//! Every peer between two hosts: what it lets through, what not, what it does when its rules change, and that nothing of it
//! is left afterwards. A peer that this machine does not have is skipped by name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod state;

use bench::bed::Bed;
use bench::load::{Amount, Load};
use bench::peers::{Peer, Rules, Running, Setup};
use bench::rig::{Napi, Rig};
use bench::sink::Storage;
use etherparse::PacketBuilder;
use palisade_tests::lab::{Host, PacketSocket};
use palisade_tests::require_root;
use palisade_tests::traffic::{PATIENCE, SILENCE, ping, tcp_both_ways, udp_echo, udp_socket};
use state::State;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Peers spin on one core and set limits of the whole machine: one at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Few enough flows that no limit of the machine has to be raised.
const SETUP: Setup = Setup { rules: Rules::new(20), max_flows: 10_000, half_open_guard: false };

/// Flows of a load.
const FLOWS: u32 = 1_000;

/// Slow enough for every peer on a busy machine.
const RATE_PPS: u64 = 20_000;

/// Takes the turn if this peer can be tried here.
fn turn(peer: Peer) -> Option<(MutexGuard<'static, ()>, usize)> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        eprintln!("skipped: {} needs two cores", peer.name());
        return None;
    }
    if let Some(missing) = peer.missing() {
        eprintln!("skipped: {} is missing {missing}", peer.name());
        return None;
    }
    Some((TURN.lock().unwrap_or_else(PoisonError::into_inner), cores))
}

/// Hosts reach each other both ways, and only where rules let them.
fn between_hosts(peer: Peer) {
    require_root!();
    let Some((_turn, cores)) = turn(peer) else { return };
    let bed = Bed::new(cores).unwrap();
    let before = State::of(&bed.lab);
    let mut running = peer.start(&bed, &SETUP).unwrap();
    let (left, right) = (&bed.lab.left, &bed.lab.right);
    for is_v6 in [false, true] {
        for (from, to) in [(left, right), (right, left)] {
            assert_eq!(pings(from, to.addr(is_v6)), 3, "pings to {}", to.addr(is_v6));
        }
        tcp_both_ways(left, right, is_v6, 7000, 1 << 20);
        assert_eq!(udp_echo(left, right, is_v6, 7999, 20, 500), 20, "datagrams sent back, IPv6: {is_v6}");
        for (from, to, port) in [(left, right, 8000), (left, right, 6999), (right, left, 1024)] {
            let came = datagram_comes(from, to, is_v6, port);
            assert_eq!(came, !peer.is_firewall(), "to {} port {port}", to.addr(is_v6));
        }
    }
    match running.flows() {
        Some(flows) => assert!(peer.is_firewall() && (2..=100).contains(&flows), "{flows} connections"),
        None => assert!(!peer.is_firewall(), "a firewall counts its connections"),
    }
    running.is_alive().unwrap();
    running.stop().unwrap();
    before.assert_is_that_of(&bed.lab);
}

/// A load comes through whole, and its rules are exchanged under it.
fn under_load(peer: Peer) {
    require_root!();
    let Some((_turn, cores)) = turn(peer) else { return };
    let mut storage = Storage::default();
    let rig = Rig::new(&mut storage, cores, FLOWS, Napi::Plain).unwrap();
    let before = State::of(&rig.lab);
    let mut running = peer.start(&rig, &SETUP).unwrap();
    let load = Load { rate_pps: Some(RATE_PPS), ..rig.load_to(&running, FLOWS) };
    assert_eq!(running.dst_mac(), load.dst_mac);
    let (sent, swaps) = rig
        .run(&load, Amount::Packets(5 * FLOWS), |_| {
            // Once would be enough, but not if it falls before the first packet.
            Ok((0..3).map(|swap| swap_rules(&mut running, 20 - swap)).collect::<Vec<_>>())
        })
        .unwrap();
    assert_eq!(sent.packets, u64::from(5 * FLOWS));
    for swap in swaps {
        assert_eq!(swap.is_ok(), peer.is_firewall(), "{swap:?}");
    }
    assert_eq!(rig.at_rest().unwrap().packets, sent.packets);
    assert!(rig.sink.flows().unwrap().iter().all(|packets| *packets == 5), "each flow comes through");
    if peer.is_firewall() {
        assert_eq!(running.flows(), Some(FLOWS.into()));
    }
    running.stop().unwrap();
    before.assert_is_that_of(&rig.lab);
}

/// The rules in force are those of the last exchange: one of them lets a stranger's SYN through, and goes.
fn exchanged_rules(peer: Peer) {
    require_root!();
    let Some((_turn, cores)) = turn(peer) else { return };
    let bed = Bed::new(cores).unwrap();
    let mut running = peer.start(&bed, &SETUP).unwrap();
    let (with, without) = (Rules::new(20), Rules::new(5));
    let (net, port) = stranger(&with);
    let (left, right) = (bed.lab.left_wire(), bed.lab.right_wire());
    let comes = |running: &Running<'_>, source_port: u16| {
        let frame = PacketBuilder::ethernet2(bed.lab.left.mac, running.dst_mac())
            .ipv4(net, bed.lab.right.v4.octets(), 64)
            .tcp(source_port, port, 1, 1000)
            .syn();
        let mut bytes = Vec::new();
        frame.write(&mut bytes, &[]).unwrap();
        frame_comes(&left, &right, &bytes)
    };
    // Another source port each time: a connection that is known already has its own rule.
    assert!(comes(&running, 30_001), "a stranger's rule lets {net:?} to port {port}");
    running.swap_rules(&without).unwrap();
    assert!(!comes(&running, 30_002), "{net:?} to port {port} without a rule");
    running.swap_rules(&with).unwrap();
    assert!(comes(&running, 30_003), "{net:?} to port {port} with the rule again");
    running.swap_rules(&Rules::new(1)).expect_err("one rule is too few");
    running.stop().unwrap();
}

/// A peer that is killed is named once, by whoever asks first, and nothing of it is left.
fn killed(peer: Peer) {
    require_root!();
    let Some((_turn, cores)) = turn(peer) else { return };
    let bed = Bed::new(cores).unwrap();
    let before = State::of(&bed.lab);
    let mut running = peer.start(&bed, &SETUP).unwrap();
    running.is_alive().unwrap();
    kill_all(&bed.lab.gateway);
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        match running.is_alive() {
            Err(error) => break error.to_string(),
            Ok(()) => assert!(Instant::now() < deadline, "nobody notices"),
        }
    };
    assert!(error.starts_with(peer.name()) && error.contains("ended by itself"), "{error}");
    running.stop().unwrap();
    before.assert_is_that_of(&bed.lab);
    let running = peer.start(&bed, &SETUP).unwrap();
    kill_all(&bed.lab.gateway);
    running.stop().expect_err("it did not end well");
    before.assert_is_that_of(&bed.lab);
}

macro_rules! peers {
    ($($module:ident: $peer:ident, $($test:ident),*;)*) => {
        $(mod $module {
            $(#[test]
            fn $test() {
                super::$test(bench::peers::Peer::$peer);
            })*
        })*
    };
}

peers! {
    floor: Floor, between_hosts, under_load, killed;
    testpmd: Testpmd, between_hosts, under_load, killed;
    palisade: Palisade, between_hosts, under_load, exchanged_rules, killed;
    bridge_iptables: BridgeIptables, between_hosts, under_load, exchanged_rules;
    routing_iptables: RoutingIptables, between_hosts, under_load, exchanged_rules;
    bridge_nft: BridgeNft, between_hosts, under_load, exchanged_rules;
    routing_nft: RoutingNft, between_hosts, under_load, exchanged_rules;
    ovs: Ovs, between_hosts, under_load, exchanged_rules, killed;
}

/// Ours that programs on DPDK keep their files in.
fn dpdk_folders() -> Vec<PathBuf> {
    let ours = format!("palisade-dpdk-{}-", std::process::id());
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(&ours)).collect()
}

#[test]
fn what_testpmd_keeps_in_files_goes_with_it() {
    require_root!();
    let Some((_turn, cores)) = turn(Peer::Testpmd) else { return };
    let bed = Bed::new(cores).unwrap();
    let before = state::dpdk_files();
    for is_killed in [false, true] {
        let running = Peer::Testpmd.start(&bed, &SETUP).unwrap();
        let folders = dpdk_folders();
        assert_eq!(folders.len(), 1, "{folders:?}");
        assert!(folders[0].join("dpdk").is_dir(), "it has taken the folder");
        assert_eq!(state::dpdk_files(), before);
        if is_killed {
            kill_all(&bed.lab.gateway);
        }
        assert_eq!(running.stop().is_err(), is_killed);
        assert_eq!(dpdk_folders(), Vec::<PathBuf>::new());
    }
    assert_eq!(state::dpdk_files(), before);
}

#[test]
fn limits_of_the_machine_are_raised_and_lowered_again() {
    require_root!();
    let Some((_turn, cores)) = turn(Peer::BridgeNft) else { return };
    let bed = Bed::new(cores).unwrap();
    let before = state::conntrack_limits();
    let (running, max_flows) = with_raised_limits(&bed);
    assert!(state::conntrack_limits().iter().all(|limit| *limit >= max_flows));
    drop(running);
    assert_eq!(state::conntrack_limits(), before);
}

/// Room for more connections than the machine gives.
fn with_raised_limits(bed: &Bed) -> (Running<'_>, u32) {
    let max_flows = state::conntrack_limits().into_iter().max().unwrap() + 1_000;
    (Peer::BridgeNft.start(bed, &Setup { max_flows, ..SETUP }).unwrap(), max_flows)
}

#[test]
#[ignore = "started, and killed, by the test after it"]
fn raises_limits_and_waits() {
    let bed = Bed::new(thread::available_parallelism().unwrap().get()).unwrap();
    let (_running, _) = with_raised_limits(&bed);
    thread::sleep(PATIENCE);
}

#[test]
fn limits_of_the_machine_are_lowered_when_we_are_killed() {
    require_root!();
    let Some((_turn, _)) = turn(Peer::BridgeNft) else { return };
    let before = state::conntrack_limits();
    let own = std::env::current_exe().unwrap();
    let mut child = Command::new(own)
        .args(["--ignored", "--exact", "raises_limits_and_waits"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while state::conntrack_limits().iter().zip(&before).any(|(now, before)| now == before) {
        assert!(Instant::now() < deadline, "limits are raised");
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    while state::conntrack_limits() != before {
        assert!(Instant::now() < deadline, "limits are lowered");
        thread::sleep(Duration::from_millis(10));
    }
    // Its namespaces would be removed by the next process only.
    for entry in std::fs::read_dir("/run/netns").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with(&format!("palisade-{}-", child.id())) {
            assert!(Command::new("ip").args(["netns", "del", &name]).status().unwrap().success());
        }
    }
}

#[test]
fn rules_that_make_no_sense_start_nobody() {
    require_root!();
    let peer = Peer::Palisade;
    let Some((_turn, cores)) = turn(peer) else { return };
    let bed = Bed::new(cores).unwrap();
    let error = peer.start(&bed, &Setup { rules: Rules::new(0), ..SETUP }).err().unwrap();
    assert!(error.to_string().contains("a ruleset has"), "{error}");
}

/// The first pings may meet a neighbour that is not known yet, which is what they are for.
fn pings(from: &Host, to: IpAddr) -> u32 {
    let _ = ping(&from.netns, to, 3, 56);
    ping(&from.netns, to, 3, 56)
}

fn datagram_comes(from: &Host, to: &Host, is_v6: bool, port: u16) -> bool {
    let addr = SocketAddr::new(to.addr(is_v6), port);
    let receiver = udp_socket(&to.netns, addr);
    receiver.set_read_timeout(Some(SILENCE)).unwrap();
    let sender = udp_socket(&from.netns, SocketAddr::new(from.addr(is_v6), 0));
    sender.send_to(b"unasked", addr).unwrap();
    receiver.recv(&mut [0; 16]).is_ok()
}

fn swap_rules(running: &mut Running<'_>, count: u32) -> Result<(), String> {
    thread::sleep(Duration::from_millis(20));
    running.swap_rules(&Rules::new(count)).map_err(|error| error.to_string())
}

/// A sender and a port to which the first rule about a range of ports lets it, by the rules' own text.
fn stranger(rules: &Rules) -> ([u8; 4], u16) {
    let text = rules.iptables_save();
    let words = text
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|words| {
            words.get(9).is_some_and(|port| port.contains(':')) && words.ends_with(&["-j", "ACCEPT"])
        })
        .unwrap();
    let net: std::net::Ipv4Addr = words[3].strip_suffix("/24").unwrap().parse().unwrap();
    let [a, b, c, _] = net.octets();
    let (first, _) = words[9].split_once(':').unwrap();
    ([a, b, c, 9], first.parse().unwrap())
}

fn frame_comes(from: &PacketSocket, to: &PacketSocket, frame: &[u8]) -> bool {
    from.send(frame);
    // A router writes other addresses into it and counts its hops.
    let same = |other: &[u8]| other.get(26..).is_some_and(|rest| rest.starts_with(&frame[26..]));
    to.receive(SILENCE, same).is_some()
}

fn kill_all(netns: &palisade_tests::lab::Netns) {
    let output = Command::new("ip").args(["netns", "pids", netns.name()]).output().unwrap();
    for pid in String::from_utf8(output.stdout).unwrap().lines() {
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}
