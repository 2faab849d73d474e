//! `-j TRACE`: the steps of a packet in the kernel's log and in ours. Legacy iptables writes them there; on nf_tables they
//! go elsewhere, and are called otherwise.

use super::kernel::{Kernel, Topology};
use super::log::{KernelLog, packets};
use super::ours::Ours;
use control::rules_file::understand;
use dataplane::packet::Family;
use dataplane::testing::gateway::{GatewayConfig, LEFT};

/// Rules of every table; the kernel's markers pass them. `MARK` is what tells this run's lines from others', `PING` the family's ICMP.
const TABLES: [&str; 3] = [
    "*raw
:sub - [0:0]
-A PREROUTING -s 203.0.113.0/24 -j ACCEPT
-A PREROUTING -p udp
-A PREROUTING -j MARK --set-mark MARK
-A PREROUTING -p PING -j sub
-A PREROUTING -j TRACE
-A PREROUTING -j LOG
-A PREROUTING -j sub
-A sub -p udp -j RETURN
-A sub -j TRACE
-A sub -p tcp -m comment --comment here
COMMIT
*mangle
:m - [0:0]
-A PREROUTING -g m
-A PREROUTING -j DROP
-A m -p tcp -j ACCEPT
-A FORWARD -j MARK --or-mark 1
-A FORWARD -p PING -j TOS --set-tos 0x10/0xff
-A POSTROUTING -j RETURN
COMMIT
*filter
:a - [0:0]
:b - [0:0]
:empty - [0:0]
-A FORWARD -s 203.0.113.0/24 -j ACCEPT
-A FORWARD -p udp -j a
-A FORWARD -j b
-A FORWARD -m comment --comment all -j ACCEPT
-A a -j empty
-A a -p udp -g b
-A a -j DROP
-A b -m comment --comment first
-A b -p tcp -m tcp --syn -j RETURN
-A b -p PING -j LOG
-A b -m mark --mark 0x1/0x1 -j CONNMARK --save-mark
COMMIT
",
    "*raw
-A PREROUTING -s 203.0.113.0/24 -j ACCEPT
-A PREROUTING -j MARK --set-mark MARK
-A PREROUTING -j TRACE
COMMIT
*mangle
-A PREROUTING -m ttl --ttl-lt 3 -j DROP
-A PREROUTING -p udp -j ACCEPT
-A FORWARD -j RETURN
COMMIT
*filter
:u - [0:0]
-A FORWARD -s 203.0.113.0/24 -j ACCEPT
-A FORWARD -p tcp -j REJECT
-A FORWARD -p PING -g u
-A FORWARD -j u
-A FORWARD -j ACCEPT
-A u -p PING -j RETURN
-A u -j DROP
COMMIT
",
    "*raw
-A PREROUTING -s 203.0.113.0/24 -j ACCEPT
-A PREROUTING -j MARK --set-mark MARK
-A PREROUTING -p udp -j TRACE
-A PREROUTING -p udp -j DROP
-A PREROUTING -j TRACE
-A PREROUTING -j ACCEPT
COMMIT
*mangle
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -s 203.0.113.0/24 -j ACCEPT
-A FORWARD -m conntrack --ctstate NEW
-A FORWARD -p tcp -j RETURN
-A FORWARD -j ACCEPT
COMMIT
",
];

fn written(tables: &str, family: Family, mark: u32) -> String {
    let text = tables.replace("MARK\n", &format!("{mark:#x}\n"));
    match family {
        Family::V4 => text.replace("PING", "icmp"),
        Family::V6 => text
            .replace("203.0.113.0/24", "2001:db8::/32")
            .replace("PING", "ipv6-icmp")
            .replace("-m ttl --ttl-lt", "-m hl --hl-lt"),
    }
}

/// TTLs as they were sent: a router has counted hops behind PREROUTING.
fn uniform(line: &str) -> String {
    line.replace("TTL=64", "TTL=65").replace("HOPLIMIT=64", "HOPLIMIT=65")
}

#[test]
fn every_step_of_a_traced_packet_is_logged_as_in_the_kernel() {
    if !super::may_run() {
        return;
    }
    let Some(mut log) = KernelLog::open() else { return };
    let mut kernel = Kernel::new(Topology::Router);
    if !kernel.traces_to_log() {
        println!("skipped: the kernel traces nothing here");
        return;
    }
    let mark = std::process::id() << 4;
    let word = format!("MARK={:#x}", std::process::id());
    let (mut failures, mut count) = (Vec::new(), 0);
    kernel.load_bare(&[]);
    for (family, tables) in
        [Family::V4, Family::V6].into_iter().flat_map(|family| TABLES.map(|text| (family, text)))
    {
        let text = written(tables, family, mark);
        kernel.load_legacy(family, &text);
        kernel.forget();
        let rules = || {
            let loaded = understand(text.as_bytes(), "rule", family, &[]);
            vec![loaded.ruleset.unwrap_or_else(|| panic!("{text}: {:?}", loaded.diagnostics))]
        };
        let mut gateway =
            Ours::new(rules, &GatewayConfig { track_always: false, ..GatewayConfig::default() });
        let _ = kernel.collect_bare();
        let _ = log.lines(&word);
        for packet in packets(family).into_iter().take(8) {
            let frame = packet.ttl(65).build();
            kernel.send(LEFT.index(), &frame);
            let _ = gateway.send(LEFT, &kernel.addressed(LEFT.index(), &frame));
            let _ = kernel.collect_bare();
            let theirs: Vec<_> = log.lines(&word).iter().map(|line| uniform(line)).collect();
            let own: Vec<_> = gateway.log().iter().map(|line| uniform(line)).collect();
            count += theirs.len();
            if theirs != own {
                failures.push(format!("{text}  kernel {theirs:#?}\n  we     {own:#?}"));
            }
        }
        kernel.load_legacy(family, "*raw\nCOMMIT\n*mangle\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n");
    }
    println!("{count} lines, {} disagreements", failures.len());
    let shown: Vec<_> = failures.iter().take(6).cloned().collect();
    assert!(failures.is_empty() && count > 100, "{} disagreements\n{}", failures.len(), shown.join("\n"));
}
