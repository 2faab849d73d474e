//! Changes while packets flow: new rules, cables out and in.

use palisade_tests::daemon::{Daemon, Stats};
use palisade_tests::lab::{Lab, Link};
use palisade_tests::traffic::{self, PATIENCE};
use palisade_tests::{frames, require_root};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const RULES: &str = include_str!("../data/rules/gateway.v4.rules");
const ACCEPT: &str = include_str!("../data/rules/accept.v4.rules");

/// Only what belongs to a connection passes: a flow that a reload forgot would be found out.
const ESTABLISHED_ONLY: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n";

#[test]
fn rules_change_under_load_without_losing_a_packet_or_a_flow() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let (bytes, datagrams) = (48 << 20, 4000_u32);
    let addr = SocketAddr::new(lab.right.v4.into(), 80);
    let listener = traffic::listen(&lab.right.netns, addr);
    let client = traffic::connect(&lab.left.netns, addr, PATIENCE).unwrap();
    let (server, _) = listener.accept().unwrap();
    let udp_addr = SocketAddr::new(lab.right.v4.into(), 7000);
    let far = traffic::udp_socket(&lab.right.netns, udp_addr);
    let near = traffic::udp_socket(&lab.left.netns, SocketAddr::new(lab.left.v4.into(), 0));
    near.connect(udp_addr).unwrap();
    // The UDP flow too must be known before only known ones may pass, and that takes an answer.
    near.send(b"open").unwrap();
    let (_, from) = far.recv_from(&mut [0; 16]).unwrap();
    far.send_to(b"open", from).unwrap();
    assert_eq!(near.recv(&mut [0; 16]).unwrap(), 4);

    let generation = daemon.stats().generation();
    let is_over = AtomicBool::new(false);
    let (received, reloads) = thread::scope(|scope| {
        let sender = scope.spawn(|| traffic::send_stream(&client, 1, bytes));
        let receiver = scope.spawn(|| traffic::receive_stream(&server, 1, bytes));
        let counter = scope.spawn(|| (0..datagrams).take_while(|n| recv_number(&far) == Some(*n)).count());
        let pacer = scope.spawn(|| {
            for n in 0..datagrams {
                near.send(&n.to_be_bytes()).unwrap();
                thread::sleep(Duration::from_micros(200));
            }
        });
        let reloader = scope.spawn(|| {
            let mut reloads = 0;
            while !is_over.load(Ordering::Relaxed) {
                daemon.apply(if reloads % 2 == 0 { ESTABLISHED_ONLY } else { RULES });
                reloads += 1;
            }
            reloads
        });
        pacer.join().unwrap();
        sender.join().unwrap().unwrap();
        receiver.join().unwrap().unwrap();
        let received = counter.join().unwrap();
        is_over.store(true, Ordering::Relaxed);
        (received, reloader.join().unwrap())
    });
    assert_eq!(
        u32::try_from(received).unwrap(),
        datagrams,
        "each datagram arrived, in order, over {reloads} reloads"
    );
    assert!(reloads >= 3, "{reloads} reloads during the run");
    let stats = daemon.stats_until("balance", Stats::is_balanced);
    assert_eq!(stats.generation(), generation + reloads);
    assert_eq!(stats.drops("policy_drop"), 0);
    assert!(stats.flows() >= 2);
}

fn recv_number(socket: &std::net::UdpSocket) -> Option<u32> {
    let mut number = [0; 4];
    socket.recv(&mut number).ok()?;
    Some(u32::from_be_bytes(number))
}

#[test]
fn new_rules_hold_for_new_connections_at_once() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 10), 1);
    daemon.apply(ESTABLISHED_ONLY);
    assert_eq!(
        traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 10),
        0,
        "another source port, so another flow"
    );
    daemon.apply(RULES);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 7000, 1, 10), 1);
}

#[test]
fn sighup_reads_the_rules_file_again() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let generation = daemon.stats().generation();
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 4444, 1, 10), 0);
    std::fs::write(daemon.rules_file(), ACCEPT).unwrap();
    daemon.signal(Signal::HUP);
    let _ = daemon.stats_until("new generation", |stats| stats.generation() > generation);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 4444, 1, 10), 1);

    // Rules that make no sense change nothing.
    let generation = daemon.stats().generation();
    std::fs::write(daemon.rules_file(), "*filter\n-A FORWARD --no-such-option\nCOMMIT\n").unwrap();
    daemon.signal(Signal::HUP);
    assert!(daemon.process().wait_for_stderr("--no-such-option", PATIENCE), "the log says what is wrong");
    assert_eq!(daemon.stats().generation(), generation);
    assert_eq!(traffic::udp_echo(&lab.left, &lab.right, false, 4445, 1, 10), 1);
}

#[test]
fn bad_rules_are_refused_and_the_old_ones_stay() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let generation = daemon.stats().generation();
    let path = daemon.file("bad.v4", "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p tpc -j ACCEPT\nCOMMIT\n");
    let exit = daemon.try_fwctl(&["apply", &path.to_string_lossy()]);
    assert_ne!(exit.code, Some(0));
    let text = exit.stdout + &exit.stderr;
    assert!(text.contains("bad.v4:3:") && text.contains("tpc"), "{text}");
    assert_eq!(daemon.stats().generation(), generation);
    assert_eq!(traffic::ping(&lab.left.netns, lab.right.v4.into(), 2, 56), 2);
}

#[test]
fn a_cable_may_come_out_and_go_in_again() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::start(&lab, RULES);
    let ping = || traffic::ping(&lab.left.netns, lab.right.v4.into(), 3, 56);
    assert_eq!(ping(), 3);
    for cable in [Link::Right, Link::Left] {
        lab.set_cable(cable, false);
        if cable == Link::Right {
            let left = lab.left_wire();
            for n in 0..200 {
                left.send(&frames::udp_v4(&lab, 9000 + n, 7000, b"into the void"));
            }
        }
        lab.set_cable(cable, true);
        // Neighbours were forgotten with the link; the first answer may take its time.
        assert!((0..20).any(|_| ping() == 3), "{cable:?} is back, but no ping passes");
        assert_eq!(ping(), 3);
    }
    let _ = daemon.stats_until("balance", Stats::is_balanced);
}
