//! When there is connection tracking at all: each kind of match and target in a ruleset of its own, one family at a time.
//! A later fragment of a datagram that never comes shows it: only conntrack holds it back.

use super::kernel::{Kernel, TIMEOUT_POLICIES, Topology};
use super::ours::Ours;
use super::talk::{CLIENT, CLIENT6, SERVER, SERVER6};
use control::config::Config;
use control::rules_file::understand;
use dataplane::packet::Family;
use dataplane::testing::gateway::{GatewayConfig, LEFT};
use dataplane::testing::packets::udp;
use std::net::IpAddr;

/// A rule each, behind its table. `TIMEOUT` is a policy of the family.
const RULES: &[&str] = &[
    "filter -A FORWARD -m state --state NEW -j ACCEPT",
    "filter -A FORWARD -m conntrack --ctstate INVALID -j ACCEPT",
    "filter -A FORWARD -m conntrack --ctproto udp",
    "filter -A FORWARD -m conntrack --ctdir REPLY",
    "filter -A FORWARD -m conntrack --ctstatus ASSURED",
    "filter -A FORWARD -m conntrack --ctexpire 5",
    "filter -A FORWARD -m connmark --mark 1",
    "filter -A FORWARD -m connbytes --connbytes 9 --connbytes-dir both --connbytes-mode bytes",
    "filter -A FORWARD -m connlabel ! --label 5",
    "filter -A FORWARD -m connlimit --connlimit-above 100",
    "filter -A FORWARD -m helper --helper ftp",
    "filter -A INPUT -m conntrack --ctstate NEW",
    "filter -N UNUSED -A UNUSED -m conntrack --ctstate NEW",
    "raw -A PREROUTING -m conntrack --ctstate INVALID",
    "raw -A PREROUTING -m connlimit --connlimit-above 100",
    "raw -A PREROUTING -j CT",
    "raw -A PREROUTING -j CT --zone 5",
    "raw -A PREROUTING -j CT --zone-orig 5",
    "raw -A PREROUTING -j CT --zone mark",
    "raw -A PREROUTING -j CT --ctevents new",
    "raw -A PREROUTING -j CT --expevents new",
    "raw -A PREROUTING -p tcp -j CT --helper ftp",
    "raw -A PREROUTING -p udp -j CT --timeout TIMEOUT",
    "mangle -A FORWARD -j CONNMARK --set-mark 1",
    "mangle -A FORWARD -j CONNMARK --save-mark",
    "mangle -A FORWARD -j CONNMARK --restore-mark",
    // None of these.
    "raw -A PREROUTING -j NOTRACK",
    "raw -A PREROUTING -j CT --notrack",
    "raw -A PREROUTING -j CT --notrack --zone 5",
    "raw -A PREROUTING -j CT --notrack --ctevents new",
    "raw -A PREROUTING -j MARK --set-mark 1",
    "mangle -A FORWARD -j MARK --set-mark 1",
    "filter -A FORWARD -m mark --mark 1",
    "filter -A FORWARD -p udp -m udp --dport 9 -j DROP",
    "filter -A FORWARD -m multiport -p udp --dports 9,10",
    "filter -A FORWARD -p tcp -m tcp --syn -j REJECT --reject-with tcp-reset",
    "filter -A FORWARD -m comment --comment x",
    "filter -A FORWARD -m length --length 9000",
    "filter -A FORWARD -p tcp -m tcpmss --mss 5",
    "mangle -A FORWARD -m string --algo bm --string x",
    "raw -A PREROUTING -m addrtype --dst-type MULTICAST",
    "filter -A FORWARD -j LOG",
    "filter -A FORWARD -j NFLOG --nflog-group 7",
    "filter -A FORWARD -p tcp -j TCPMSS --set-mss 500",
    "mangle -A FORWARD -j TOS --set-tos 0",
    "mangle -A FORWARD -j DSCP --set-dscp 0",
    "mangle -A FORWARD -p tcp -j TCPOPTSTRIP --strip-options sack",
];

/// The tables of a rule. `-N` declares a chain.
fn tables(rule: &str, family: Family) -> String {
    let (table, rule) = rule.split_once(' ').unwrap();
    let rule = rule.replace("TIMEOUT", if family == Family::V4 { "dns" } else { "dns6" });
    let rule = rule.replace("-N UNUSED -A", ":UNUSED - [0:0]\n-A");
    format!("*{table}\n{rule}\nCOMMIT\n{}", if table == "filter" { "" } else { "*filter\nCOMMIT\n" })
}

/// What one side makes of a family's packets: whether a lone later fragment passes, and how many connections a datagram
/// leaves behind.
type Word = (bool, usize);

fn ends(family: Family) -> (IpAddr, IpAddr) {
    match family {
        Family::V4 => (CLIENT.into(), SERVER.into()),
        Family::V6 => (CLIENT6.into(), SERVER6.into()),
    }
}

/// A later fragment that nothing precedes, and a datagram.
fn frames(family: Family) -> [Vec<u8>; 2] {
    let (client, server) = ends(family);
    let datagram = udp(client, server).ports(7, 8).payload(&[1; 16]);
    [datagram.clone().fragment(64, false).build(), datagram.build()]
}

fn kernel_says(kernel: &mut Kernel, family: Family) -> Word {
    let [fragment, datagram] = frames(family);
    let passes = kernel.forwards(LEFT.index(), &fragment);
    assert!(kernel.forwards(LEFT.index(), &datagram), "no rule drops it");
    let list = kernel.connections(family);
    (passes, list.lines().filter(|line| line.contains("sport=7 dport=8")).count())
}

fn we_say(ours: &mut Ours, family: Family) -> Word {
    let [fragment, datagram] = frames(family);
    let passes = !ours.send(LEFT, &fragment).forwarded.is_empty();
    assert_eq!(ours.send(LEFT, &datagram).forwarded, [datagram], "no rule drops it");
    let mut connections = 0;
    let ours = ours.one();
    let now = ours.now().tick();
    for worker in &mut ours.workers {
        worker.tracker_mut().region().walk(now, |view| {
            connections += usize::from(view.orig.family == family);
        });
    }
    (passes, connections)
}

#[test]
fn tracking_is_on_for_the_families_whose_rules_speak_of_connections() {
    if !super::may_run() {
        return;
    }
    let known = Config::from_settings(&[format!("rules.timeout_policies={TIMEOUT_POLICIES:?}")]).unwrap();
    let mut failures = Vec::new();
    for topology in [Topology::Bridge, Topology::Router] {
        let mut kernel = Kernel::new(topology);
        kernel.load_bare(&[]);
        assert!(kernel_says(&mut kernel, Family::V4).0, "without rules nothing is held back");
        for (rule, of) in RULES.iter().flat_map(|rule| [(rule, Family::V4), (rule, Family::V6)]) {
            let text = tables(rule, of);
            kernel.load_bare(&[(of, &text)]);
            let rules = || {
                let loaded = understand(text.as_bytes(), "rule", of, &known.rules.timeout_policies);
                vec![loaded.ruleset.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))]
            };
            let config = GatewayConfig { track_always: false, ..GatewayConfig::default() };
            let mut ours = Ours::new(rules, &config);
            for family in [Family::V4, Family::V6] {
                let (theirs, own) = (kernel_says(&mut kernel, family), we_say(&mut ours, family));
                if theirs != own {
                    failures.push(format!(
                        "{topology:?}, {of:?} {rule}: {family:?} kernel {theirs:?}, we {own:?}"
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} disagreements\n{}", failures.len(), failures.join("\n"));
}
