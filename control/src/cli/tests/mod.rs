mod flows;
mod top;
mod workers;

use super::args::{Cli, Command};
use super::run;
use crate::api::backend::ApplyError;
use crate::api::server::Server;
use crate::api::testing::{Fake, tcp_flow};
use crate::api::types::*;
use clap::{CommandFactory as _, Parser as _};
use dataplane::reason::DropReason;
use std::io::{self, Write};
use std::sync::Arc;

/// What `iptables -L -v -n -x --line-numbers` (1.8.9) printed.
const IPTABLES: &str = "\
Chain INPUT (policy ACCEPT 0 packets, 0 bytes)
num      pkts      bytes target     prot opt in     out     source               destination         

Chain FORWARD (policy DROP 1 packets, 100 bytes)
num      pkts      bytes target     prot opt in     out     source               destination         
1          23     3235 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            ctstate RELATED,ESTABLISHED /* known flows */
2           3      180 web        6    --  ra     *       0.0.0.0/0            0.0.0.0/0            multiport dports 22,80,8000
4           0        0 web        6    --  *      !ra+    0.0.0.0/0            0.0.0.0/0           [goto]  tcp flags:0x17/0x02
5           1       44 ACCEPT     47   --  *      *       0.0.0.0/0            0.0.0.0/0           
9           0        0 DROP       0    -f  *      *      !192.0.2.0/24         0.0.0.0/0           

Chain web (2 references)
num      pkts      bytes target     prot opt in     out     source               destination         
3           0        0            0    --  *      *       0.0.0.0/0            0.0.0.0/0           
";

/// The rules behind [`IPTABLES`].
fn rules() -> RulesView {
    let rule = |num, counters: (u64, u64), target: &str, prot: &str| RuleView {
        num,
        id: "0".into(),
        packets: counters.0,
        bytes: counters.1,
        target: target.into(),
        goto: false,
        prot: prot.into(),
        opt: "--".into(),
        in_iface: "*".into(),
        out_iface: "*".into(),
        source: "0.0.0.0/0".into(),
        destination: "0.0.0.0/0".into(),
        extra: String::new(),
    };
    let extra = |rule: RuleView, extra: &str| RuleView { extra: extra.into(), ..rule };
    let policy = |verdict: &str, packets, bytes| Some(PolicyView { verdict: verdict.into(), packets, bytes });
    let forward = vec![
        extra(rule(1, (23, 3235), "ACCEPT", "0"), "ctstate RELATED,ESTABLISHED /* known flows */"),
        RuleView {
            in_iface: "ra".into(),
            ..extra(rule(2, (3, 180), "web", "6"), "multiport dports 22,80,8000")
        },
        RuleView {
            goto: true,
            out_iface: "!ra+".into(),
            ..extra(rule(4, (0, 0), "web", "6"), "tcp flags:0x17/0x02")
        },
        rule(5, (1, 44), "ACCEPT", "47"),
        RuleView { opt: "-f".into(), source: "!192.0.2.0/24".into(), ..rule(9, (0, 0), "DROP", "0") },
    ];
    let web = ChainView {
        table: "filter".into(),
        name: "web".into(),
        policy: None,
        references: 2,
        rules: vec![rule(3, (0, 0), "", "0")],
    };
    let chains = vec![
        ChainView {
            table: "filter".into(),
            name: "INPUT".into(),
            policy: policy("ACCEPT", 0, 0),
            ..ChainView::default()
        },
        ChainView {
            table: "filter".into(),
            name: "FORWARD".into(),
            policy: policy("DROP", 1, 100),
            references: 0,
            rules: forward,
        },
        web,
    ];
    RulesView {
        family: Family::V4,
        generation: 3,
        text: "*filter\n:FORWARD DROP [1:100]\nCOMMIT\n".into(),
        chains,
        kept: KeptView { packets: 70_000, bytes: 900 },
    }
}

fn stats() -> Stats {
    let big = |packets| Traffic { packets, bytes: packets * 64 };
    let rate = Rate { packets_per_sec: 1_234_567, bits_per_sec: 12_345_678_901 };
    let drops = DropReason::ALL.iter().map(|reason| DropCount {
        reason: reason.name().into(),
        packets: if *reason == DropReason::PolicyDrop { 17 } else { 0 },
        bytes: if *reason == DropReason::PolicyDrop { 1_020 } else { 0 },
    });
    let drops: Vec<DropCount> = drops.collect();
    let port = |name: &str, side, link_up| PortStats {
        name: name.into(),
        wire: "wire0".into(),
        side,
        link_up,
        mtu: 1500,
        rx: big(123_456_789_012),
        tx: big(7),
        rx_rate: rate,
        queues: vec![QueueStats {
            rx_descs: 123_456_789_012,
            kicks: 5,
            rx_ring_full: 3,
            ..QueueStats::default()
        }],
        ..PortStats::default()
    };
    Stats {
        uptime_ms: 93_784_999,
        generation: 3,
        wires: vec![WireStats {
            name: "wire0".into(),
            left: "eth0".into(),
            right: "eth1".into(),
            left_to_right: big(123_456_789_012),
            left_to_right_rate: rate,
            drops: drops.clone(),
            ..WireStats::default()
        }],
        ports: vec![port("eth0", Side::Left, true), port("eth1", Side::Right, false)],
        workers: vec![WorkerStats {
            core: 1,
            rx: big(100),
            bursts: 8,
            flows: 9,
            generation: 3,
            ..WorkerStats::default()
        }],
        drops,
        invalid: [("bad_checksum".to_owned(), 4), ("bad_flags".to_owned(), 0)].into(),
        flows: FlowStats { count: 9, max: 1_048_576, inserted: 12, expired: 3, ..FlowStats::default() },
    }
}

/// A served [`Fake`] and a way to run `fwctl` against it.
struct Rig {
    dir: tempfile::TempDir,
    fake: Arc<Fake>,
    _server: Server,
}

impl Rig {
    fn new(fake: Fake) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Arc::new(fake);
        let server = Server::start(&dir.path().join("s"), None, fake.clone()).unwrap();
        Self { dir, fake, _server: server }
    }

    /// Exit code, standard output, standard error.
    fn fwctl(&self, args: &[&str]) -> (u8, String, String) {
        let socket = self.dir.path().join("s");
        fwctl(&[&["--socket", socket.to_str().unwrap()], args].concat())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn fwctl(args: &[&str]) -> (u8, String, String) {
    let cli = Cli::try_parse_from([&["fwctl"], args].concat()).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&cli, &mut out, &mut err);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn the_command_line_definition_is_sound() {
    Cli::command().debug_assert();
    for bad in [
        &["flows", "-p", "nope"][..],
        &["flows", "-s", "10.0.0.0/33"],
        &["flows", "-u", "LATE"],
        &["apply"],
        &["stats", "--watch", "0"],
        &["rules", "--family", "5"],
        &["replay", "x.pcap"],
        &["explode"],
        &["rules", "-S", "--json"],
    ] {
        let error = Cli::try_parse_from([&["fwctl"], bad].concat()).expect_err(&bad.join(" "));
        assert_eq!(error.exit_code(), 2);
    }
    let cli = Cli::try_parse_from(["fwctl", "stats", "--watch", "--json"]).unwrap();
    assert!(matches!(cli.command, Command::Stats(args) if args.watch == Some(1.0) && args.json));
    let replay = [
        "fwctl",
        "replay",
        "--rules",
        "r",
        "--left",
        "10.0.0.0/8",
        "--left",
        "fd00::/8",
        "--set",
        "a=b",
        "c.pcap",
    ];
    let cli = Cli::try_parse_from(replay).unwrap();
    assert!(matches!(cli.command, Command::Replay(args) if args.left.len() == 2 && args.left_if == "left"));
    assert!(Cli::try_parse_from(["fwctl", "check", "-", "--family", "6", "--print"]).is_ok());
}

#[test]
fn what_rules_keep_of_addresses_prints_as_in_proc() {
    fn table<T>(name: &str, family: Family) -> TableLine<T> {
        TableLine::Table { name: name.into(), family }
    }
    let seen = |address: &str, stamps: &[u64]| {
        let address = address.parse().unwrap();
        TableLine::Entry(RecentEntry { address, ttl: 64, last_seen: 9, oldest_pkt: 2, stamps: stamps.into() })
    };
    let entry = HashlimitEntry {
        expires_secs: 14,
        src: "127.0.0.1".parse().unwrap(),
        sport: 0,
        dst: "0.0.0.0".parse().unwrap(),
        dport: 53,
        credit: 58_274_116_272_128,
        credit_cap: 343_597_382_500_000,
        cost: 68_719_476_500_000,
    };
    let rig = Rig::new(Fake {
        recent: vec![
            table("a b", Family::V4),
            seen("10.0.0.1", &[7, 9]),
            table("a b", Family::V6),
            seen("fd00::1", &[9]),
            table("empty", Family::V4),
        ],
        hashlimit: vec![table("h", Family::V4), TableLine::Entry(entry)],
        ..Fake::default()
    });
    let (v4, v6) = (
        "src=10.0.0.1 ttl: 64 last_seen: 9 oldest_pkt: 2 7, 9\n",
        "src=fd00:0000:0000:0000:0000:0000:0000:0001 ttl: 64 last_seen: 9 oldest_pkt: 2 9\n",
    );
    let said = |args: &[&str]| rig.fwctl(args).1;
    assert_eq!(said(&["recent", "a b"]), format!("{v4}{v6}"));
    assert_eq!(said(&["recent", "a b", "--family", "6"]), v6);
    assert_eq!(said(&["recent"]), format!("# a b (IPv4)\n{v4}\n# a b (IPv6)\n{v6}\n# empty (IPv4)\n"));
    assert_eq!(said(&["recent", "empty"]), "");
    let (code, _, err) = rig.fwctl(&["recent", "none"]);
    assert_eq!((code, err.as_str()), (1, "fwctl: no rule in force has a recent table named `none`\n"));
    assert_eq!(
        said(&["hashlimit", "h"]),
        "14 127.0.0.1:0->0.0.0.0:53 58274116272128 343597382500000 68719476500000\n"
    );
    let json = said(&["hashlimit", "--json"]);
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["table"]["name"], "h");
    assert_eq!(lines[1]["entry"]["dport"], 53);
    for args in [&["--add", "10.0.0.9"][..], &["--del", "fd00::2"], &["--flush"]] {
        assert_eq!(rig.fwctl(&[&["recent", "a b"], args].concat()), (0, String::new(), String::new()));
    }
    let edited: Vec<_> = rig.fake.edited.lock().unwrap().iter().map(|edit| edit.edit).collect();
    let address = |text: &str| text.parse().unwrap();
    let wanted =
        [RecentChange::Add(address("10.0.0.9")), RecentChange::Del(address("fd00::2")), RecentChange::Flush];
    assert_eq!(edited, wanted);
    assert!(Cli::try_parse_from(["fwctl", "recent", "--flush"]).is_err(), "of which list?");
    assert!(Cli::try_parse_from(["fwctl", "recent", "r", "--add", "a/8"]).is_err());
}

#[test]
fn rules_print_as_iptables_does() {
    let v6 = RulesView { family: Family::V6, ..rules() };
    let rig = Rig::new(Fake { rules: vec![rules(), v6], ..Fake::default() });
    let whole = format!("{IPTABLES}\nKept flows (70000 packets, 900 bytes met no rules)\n");
    assert_eq!(rig.fwctl(&["rules", "--family", "4"]), (0, whole.clone(), String::new()));
    let (_, both, _) = rig.fwctl(&["rules"]);
    assert_eq!(both, format!("# IPv4\n{whole}\n# IPv6\n{whole}"));
    let (_, web, _) = rig.fwctl(&["rules", "web", "--family", "6"]);
    assert_eq!(web, IPTABLES[IPTABLES.find("Chain web").unwrap()..]);
    let (code, _, err) = rig.fwctl(&["rules", "wbe"]);
    assert_eq!((code, err.as_str()), (1, "fwctl: there is no chain `wbe` in table filter\n"));
}

/// What `iptables -L -n` and its switches (1.8.9) make of some lines of [`IPTABLES`].
#[test]
fn rules_list_with_the_columns_that_iptables_has_for_the_same_switches() {
    let rig = Rig::new(Fake { rules: vec![rules()], ..Fake::default() });
    let line = |switches: &str, at: usize| {
        let args: Vec<&str> = ["rules", "-4"].into_iter().chain(switches.split(' ')).collect();
        rig.fwctl(&args).1.lines().nth(at).unwrap().to_owned()
    };
    assert_eq!(line("-L -n", 3), "Chain FORWARD (policy DROP)");
    assert_eq!(line("-L -n", 4), "target     prot opt source               destination         ");
    assert_eq!(
        line("-L -n", 6),
        "web        6    --  0.0.0.0/0            0.0.0.0/0            multiport dports 22,80,8000"
    );
    assert_eq!(
        line("-L -n --line-numbers", 4),
        "num  target     prot opt source               destination         "
    );
    assert_eq!(
        line("-L -n --line-numbers", 9),
        "9    DROP       0    -f !192.0.2.0/24         0.0.0.0/0           "
    );
    assert_eq!(
        line("-L -n -v", 4),
        " pkts bytes target     prot opt in     out     source               destination         "
    );
    assert_eq!(
        line("-L -n -v", 6),
        "    3   180 web        6    --  ra     *       0.0.0.0/0            0.0.0.0/0            multiport dports 22,80,8000"
    );
    assert_eq!(
        line("-L -n -v -x", 4),
        "    pkts      bytes target     prot opt in     out     source               destination         "
    );
    let all = rig.fwctl(&["rules", "-4", "-L", "-v", "-n", "-x", "--line-numbers"]).1;
    assert_eq!(all, rig.fwctl(&["rules", "-4"]).1, "all columns unless told otherwise");
}

#[test]
fn a_saved_table_has_counters_on_demand() {
    let text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j NOTRACK\nCOMMIT\n*filter\n:FORWARD DROP [1:100]\n-A FORWARD -j ACCEPT\n-A FORWARD -j DROP\nCOMMIT\n";
    let rule = |packets, bytes| RuleView { packets, bytes, ..RuleView::default() };
    let chain = |table: &str, rules| ChainView { table: table.into(), rules, ..ChainView::default() };
    let chains = vec![chain("raw", vec![rule(1, 2)]), chain("filter", vec![rule(3, 4), rule(5, 6)])];
    let view = RulesView { text: text.into(), chains, ..rules() };
    let rig = Rig::new(Fake { rules: vec![view], ..Fake::default() });
    assert_eq!(rig.fwctl(&["rules", "-S", "-4"]).1, text);
    assert_eq!(
        rig.fwctl(&["rules", "-S", "-c", "-t", "filter", "-4"]).1,
        "*filter\n:FORWARD DROP [1:100]\n[3:4] -A FORWARD -j ACCEPT\n[5:6] -A FORWARD -j DROP\nCOMMIT\n"
    );
    assert_eq!(rig.fwctl(&["rules", "-S", "-t", "nat"]).0, 1);
}

#[test]
fn changes_are_tried_confirmed_edited_and_taken_back() {
    let rig = Rig::new(Fake::default());
    let r4 = rig.file("r4", "*filter\nCOMMIT\n");
    let (code, out, _) = rig.fwctl(&["apply", &r4, "--confirm", "2m", "--flows", "kill", "--comment", "x"]);
    assert_eq!(code, 0);
    assert!(
        out.starts_with("3 flows removed")
            && out.ends_with("they go again in 120 s unless you say `fwctl confirm`\n"),
        "{out}"
    );
    let diff = "IPv4: 1 rules added, 1 removed, 1 moved, 6 as they are\n\n*filter FORWARD: policy ACCEPT becomes DROP\n\
                - 2     -A FORWARD -j x  [12:720]\n+ 1     -A FORWARD -j DROP\n> 2     -A FORWARD  (was 1) [0:0]\n\n\
                flows: 10 allowed, 2 that could not begin under these rules (`--flows kill` removes them)\n       \
                1 hang on more than is known of them and stay in any case\n       \
                9 go on with `--flows keep`, whatever these rules say\n";
    assert_eq!(rig.fwctl(&["diff", &r4]), (0, diff.to_owned(), "warning: think twice\n".to_owned()));
    assert_eq!(rig.fwctl(&["apply", "--dry-run", &r4]).1, diff);
    let sets = rig.file("sets", "bad");
    let out = rig.fwctl(&["diff", "--sets", &sets, &r4]).1;
    assert!(out.contains("(was 1) [0:0]\nset bad: 1 entries become 2\n"), "{out}");
    assert!(rig.fwctl(&["diff", "--rules6", &r4]).1.starts_with("IPv6: nothing changes, 9 rules stay\n"));
    assert_eq!(rig.fwctl(&["confirm"]).1, "ruleset 5 is confirmed and stays\n");
    let (_, out, _) = rig.fwctl(&["rollback", "4", "--confirm", "60s", "--flows", "keep"]);
    assert!(out.starts_with("4 flows go on until they end") && out.ends_with("`fwctl confirm`\n"), "{out}");
    let edits: [&[&str]; 4] = [
        &[
            "rule",
            "-t",
            "mangle",
            "add",
            "FORWARD",
            "-p",
            "tcp",
            "-m",
            "comment",
            "--comment",
            "a b",
            "-j",
            "DROP",
        ],
        &["rule", "-6", "insert", "FORWARD", "3", "!", "-s", "::1", "-j", "x"],
        &["rule", "--comment", "why", "--confirm", "1m", "--flows", "kill", "delete", "FORWARD", "3"],
        &["rule", "replace", "FORWARD", "3", "-t", "-h", "--json"],
    ];
    for edit in edits {
        assert_eq!(rig.fwctl(edit).0, 0, "{edit:?}");
    }
    let seen = rig.fake.applied.lock().unwrap();
    assert_eq!(
        (seen[0].confirm_secs, seen[0].flows, seen[0].comment.as_deref()),
        (Some(120), FlowsChoice::Kill, Some("x"))
    );
    let text = |at: usize| {
        let text = seen[at].v4.as_ref().or(seen[at].v6.as_ref()).unwrap();
        (text.file.clone(), text.text.clone())
    };
    assert_eq!(text(1).0, "Some(4)");
    assert_eq!(
        text(2),
        ("mangle add FORWARD".to_owned(), "-p|tcp|-m|comment|--comment|a b|-j|DROP".to_owned())
    );
    assert_eq!(text(3), ("filter insert FORWARD".to_owned(), "3|!|-s|::1|-j|x".to_owned()));
    assert!(seen[3].v6.is_some());
    assert_eq!((text(4).1.as_str(), seen[4].comment.as_deref()), ("3", Some("why")));
    assert_eq!((seen[1].confirm_secs, seen[1].flows), (Some(60), FlowsChoice::Keep));
    assert_eq!((seen[4].confirm_secs, seen[4].flows), (Some(60), FlowsChoice::Kill));
    assert_eq!(text(5).1, "3|-t|-h|--json", "everything behind the chain is the rule's");
    for wrong in ["0s", "2d", "x", "25h"] {
        assert!(Cli::try_parse_from(["fwctl", "apply", &r4, "--confirm", wrong]).is_err(), "{wrong}");
    }
}

#[test]
fn the_history_tells_what_runs_and_what_waits() {
    let rig = Rig::new(Fake::default());
    let (code, out, err) = rig.fwctl(&["history"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, err.as_str(), lines.len()), (0, "", 3));
    assert!(
        lines[0].starts_with("    4  ")
            && lines[0].ends_with("      12 rules  root (process 7): apply rules.v4"),
        "{out}"
    );
    assert!(
        lines[1].starts_with("*   5  ")
            && lines[1].ends_with(", not confirmed yet  # for the new web server"),
        "{out}"
    );
    assert_eq!(lines[2], "5 waits for `fwctl confirm`; in 42 s 4 comes back");
    assert_eq!(rig.fwctl(&["history", "4", "--family", "6"]).1, "# 4 6\n");
    let (_, json, _) = rig.fwctl(&["history", "--json"]);
    assert_eq!(serde_json::from_str::<HistoryReport>(&json).unwrap().running, 5);
}

#[test]
fn rules_print_back_as_iptables_save_and_as_json() {
    let rig = Rig::new(Fake { rules: vec![rules()], ..Fake::default() });
    assert_eq!(rig.fwctl(&["rules", "-S", "--family", "4"]).1, rules().text);
    assert_eq!(rig.fwctl(&["rules", "-S"]).1, format!("# IPv4\n{}", rules().text));
    let (_, json, _) = rig.fwctl(&["rules", "--json"]);
    assert_eq!(serde_json::from_str::<Vec<RulesView>>(&json).unwrap(), [rules()]);
    let (code, out, err) = rig.fwctl(&["rules", "--family", "6"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", "fwctl: no rules are loaded for this family\n"));
}

#[test]
fn stats_print_for_people_within_a_hundred_columns() {
    let rig = Rig::new(Fake { stats: stats(), ..Fake::default() });
    let (code, out, err) = rig.fwctl(&["stats"]);
    let expected = "\
up 1d 02:03:04, rules and settings of generation 3

wire wire0: eth0 <-> eth1
    left to right    123456789012 packets      7901234496768 bytes    1234567 pps   12.34 Gbit/s
    right to left               0 packets                  0 bytes          0 pps        0 bit/s
    dropped                    17 packets               1020 bytes

NICs
  eth0 (wire0 left): link up, native XDP, copy, MTU 1500
    rx               123456789012 packets      7901234496768 bytes    1234567 pps   12.34 Gbit/s
    tx                          7 packets                448 bytes          0 pps        0 bit/s
    queue 0 on worker 0: rx 123456789012, tx 0, kicks 5, frames 0, rx ring full 3
  eth1 (wire0 right): link DOWN, native XDP, copy, MTU 1500
    rx               123456789012 packets      7901234496768 bytes    1234567 pps   12.34 Gbit/s
    tx                          7 packets                448 bytes          0 pps        0 bit/s
    queue 0 on worker 0: rx 123456789012, tx 0, kicks 5, frames 0, rx ring full 3

workers
  worker 0 on core 1: 9 flows, generation 3
    rx                        100 packets               6400 bytes          0 pps        0 bit/s
    forwarded                   0 packets                  0 bytes
    dropped 0, reject answers 0, handed off 0, taken over 0, bursts 8 of 12.5 packets, idle polls 0,
    sleeps 0, stalls 0

flows: 9 of at most 1048576
  made 12, expired 3, closed by a packet 0, evicted for room 0, refused for lack of room 0

dropped, all wires
  policy_drop                     17 packets            1020 bytes  No rule matched and the chain
                                                                    policy is DROP.

INVALID to connection tracking (the rules decide about them)
  bad_checksum                           4
";
    assert_eq!((code, out.as_str(), err.as_str()), (0, expected, ""));
    let (_, all, _) = rig.fwctl(&["stats", "--all"]);
    assert!(DropReason::ALL.iter().all(|reason| all.contains(reason.name())) && all.contains("bad_flags"));
    for line in out.lines().chain(all.lines()) {
        assert!(line.chars().count() <= 100, "{line}");
    }
    let (_, json, _) = rig.fwctl(&["stats", "--json"]);
    assert_eq!(json.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Stats>(&json).unwrap(), stats());
}

#[test]
fn with_several_wires_each_shows_its_own_drops() {
    let mut two = stats();
    two.wires.push(WireStats { name: "quiet".into(), ..WireStats::default() });
    let out = super::stats::render(&two, false);
    assert_eq!(out.matches("policy_drop").count(), 2, "{out}");
    two.drops.clear();
    assert!(super::stats::render(&two, false).contains("dropped, all wires\n  nothing\n"));
}

#[test]
fn a_worker_that_does_not_poll_stands_out() {
    let mut stats = stats();
    stats.workers[0].stalled =
        Some(Stalled { ms: 12_345, why: "its thread is stopped".into(), advice: "Let it go on".into() });
    let out = super::stats::render(&stats, false);
    assert!(
        out.contains("\n    STALLED: has not polled for 12 s: its thread is stopped. Let it go on\n"),
        "{out}"
    );
}

#[test]
fn apply_sends_files_by_family_and_reports() {
    let rig = Rig::new(Fake::default());
    let r4 = rig.file("r4", "*filter\nCOMMIT\n");
    let r6 = rig.file("r6", "# Generated by ip6tables-save v1.8.9\n*filter\nCOMMIT\n");
    let (code, out, err) = rig.fwctl(&["apply", &r4, "--rules6", &r6]);
    assert_eq!(
        (code, out.as_str()),
        (0, "generation 8: 12 rules in force, 1000 flows kept; number 5 in the history\n")
    );
    assert_eq!(err, "warning: INPUT rules are kept, but nothing is routed here.\n");
    assert_eq!(rig.fwctl(&["apply", &r6]).0, 0);
    assert_eq!(rig.fwctl(&["apply", &r4, "--family", "6"]).0, 0);
    let (_, json, _) = rig.fwctl(&["apply", "--rules6", &r6, "--json"]);
    assert_eq!(serde_json::from_str::<ApplyReport>(&json).unwrap().generation, 8);
    let applied = rig.fake.applied.lock().unwrap();
    let files: Vec<_> =
        applied.iter().map(|r| (r.v4.as_ref().map(|t| &*t.file), r.v6.as_ref().map(|t| &*t.file))).collect();
    assert_eq!(files, [(Some(&*r4), Some(&*r6)), (None, Some(&*r6)), (None, Some(&*r4)), (None, Some(&*r6))]);
    drop(applied);
    let (code, _, err) = rig.fwctl(&["apply", &r6, "--rules6", &r6]);
    assert!(code == 2 && err.starts_with("fwctl: two files with IPv6 rules: "), "{err}");
    let (code, _, err) = rig.fwctl(&["apply", "/nonexistent/rules"]);
    assert_eq!(
        (code, err.as_str()),
        (1, "fwctl: cannot read /nonexistent/rules: No such file or directory (os error 2)\n")
    );
    assert_eq!(rig.fwctl(&["apply", "-", "--rules6", "-"]).0, 2);
}

#[test]
fn refused_rules_are_shown_with_their_places_and_set_the_exit_code() {
    let rendered = "error: no such target\n --> r4:3:9\n  |\n";
    for (kind, expected_code) in [(ErrorKind::BadRules, 1), (ErrorKind::Unsupported, 3), (ErrorKind::Busy, 1)]
    {
        let diagnostics = vec![
            Diagnostic { rendered: rendered.into(), ..Diagnostic::default() },
            Diagnostic {
                file: "r4".into(),
                line: 4,
                column: 2,
                message: "bare".into(),
                ..Diagnostic::default()
            },
        ];
        let refuse = ApplyError { kind, message: "2 errors, nothing was changed".into(), diagnostics };
        let rig = Rig::new(Fake { refuse: Some(refuse), ..Fake::default() });
        let (code, out, err) = rig.fwctl(&["apply", &rig.file("r4", "")]);
        assert_eq!((code, out.as_str()), (expected_code, ""));
        assert_eq!(
            err,
            "error: no such target\n --> r4:3:9\n  |\n\nr4:4:2: bare\nfwctl: 2 errors, nothing was changed\n"
        );
    }
}

#[test]
fn a_daemon_out_of_reach_is_code_four_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let socket = socket.to_str().unwrap();
    let ask = || fwctl(&["--socket", socket, "stats"]);
    let (code, _, err) = ask();
    assert_eq!(
        (code, err),
        (
            4,
            format!(
                "fwctl: there is no socket {socket}: is fwd running? Its `api.socket` goes here with --socket PATH\n"
            )
        )
    );
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH\r\n").unwrap();
        drop(stream);
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 512];
        let _ = io::Read::read(&mut stream, &mut request);
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let row = serde_json::to_string(&tcp_flow(1, "ESTABLISHED")).unwrap() + "\n";
        stream.write_all(format!("{head}{:x}\r\n{row}\r\n", row.len()).as_bytes()).unwrap();
    });
    let (code, _, err) = ask();
    assert!(code == 4 && err.starts_with(&format!("fwctl: {socket} broke off: ")), "{err}");
    let (code, out, err) = fwctl(&["--socket", socket, "flows"]);
    server.join().unwrap();
    assert_eq!((code, out.lines().count()), (4, 1), "{err}");
    assert_eq!(err, "fwctl: the answer was cut short; what was printed is not all\n");
    let (code, _, err) = ask();
    assert_eq!(
        (code, err),
        (4, format!("fwctl: nobody listens on {socket}: fwd is not running any more; start it again\n"))
    );
    let (code, out, _) = fwctl(&["--socket", socket, "version"]);
    let own = format!("fwctl {}\n{}", env!("CARGO_PKG_VERSION"), crate::build_facts::facts());
    assert_eq!((code, out), (4, own));
    let (code, out, _) = fwctl(&["--socket", socket, "version", "--json"]);
    let out: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &out["fwd"]), (4, &serde_json::Value::Null));
}

#[test]
fn version_names_both_programs() {
    let rig = Rig::new(Fake::default());
    let version = env!("CARGO_PKG_VERSION");
    let (build, pid) = (crate::build_facts::facts(), std::process::id());
    let expected = format!("fwctl {version}\n{build}fwd {version} (process {pid})\n{build}");
    assert_eq!(rig.fwctl(&["version"]), (0, expected, String::new()));
    let (code, out, _) = rig.fwctl(&["version", "--json"]);
    let out: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &out["fwctl"]["build"]), (0, &out["fwd"]["build"]));
    assert_eq!((&out["fwctl"]["version"], &out["fwd"]["pid"]), (&version.into(), &pid.into()));
    assert_eq!(out["differences"], serde_json::json!([]));
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let rig = Rig::new(Fake { flows: vec![tcp_flow(1, "ESTABLISHED")], repeat: 79_999, ..Fake::default() });
    let socket = rig.dir.path().join("s");
    for command in [&["flows"][..], &["stats"], &["rules", "--json"], &["version"], &["stats", "--watch"]] {
        let cli = Cli::try_parse_from([&["fwctl", "--socket", socket.to_str().unwrap()], command].concat())
            .unwrap();
        let mut err = Vec::new();
        assert_eq!((run(&cli, &mut Closed, &mut err), err), (0, Vec::new()), "{command:?}");
    }
}
