//! `fwctl flows` and `fwctl sysctl` against a daemon that is not there, held against what conntrack printed.

use super::Rig;
use crate::api::testing::{Fake, flow, tcp_flow};
use crate::api::types::*;

/// What `conntrack -L` printed on Linux 6.18 with `nf_conntrack_acct=1`.
const CONNTRACK: &str = "\
icmp     1 24 src=10.1.0.2 dst=10.2.0.77 type=8 code=0 id=3074 packets=1 bytes=84 [UNREPLIED] src=10.2.0.77 dst=10.1.0.2 type=0 code=0 id=3074 packets=0 bytes=0 mark=0 use=1
gre      47 26 src=10.1.0.2 dst=10.2.0.2 srckey=0x0 dstkey=0x0 packets=1 bytes=44 [UNREPLIED] src=10.2.0.2 dst=10.1.0.2 srckey=0x0 dstkey=0x0 packets=0 bytes=0 mark=0 use=1
sctp     132 6 CLOSED src=10.1.0.2 dst=10.2.0.2 sport=7000 dport=7001 packets=1 bytes=52 [UNREPLIED] src=10.2.0.2 dst=10.1.0.2 sport=7001 dport=7000 packets=0 bytes=0 mark=0 use=1
tcp      6 116 TIME_WAIT src=fd00:1::2 dst=fd00:2::2 sport=33140 dport=8000 packets=6 bytes=443 src=fd00:2::2 dst=fd00:1::2 sport=8000 dport=33140 packets=4 bytes=1296 [ASSURED] mark=0 use=1
udp      17 116 src=10.1.0.2 dst=10.2.0.2 sport=36578 dport=5000 packets=2 bytes=60 src=10.2.0.2 dst=10.1.0.2 sport=5000 dport=36578 packets=2 bytes=60 [ASSURED] mark=0 use=1
icmpv6   58 24 src=fd00:1::2 dst=fd00:2::2 type=128 code=0 id=3074 packets=1 bytes=104 src=fd00:2::2 dst=fd00:1::2 type=129 code=0 id=3074 packets=1 bytes=104 mark=0 use=1
unknown  253 599 src=fd00:1::2 dst=fd00:2::2 packets=1 bytes=44 [UNREPLIED] src=fd00:2::2 dst=fd00:1::2 packets=0 bytes=0 mark=0 use=1
tcp      6 119 SYN_SENT src=10.1.0.2 dst=10.2.0.99 sport=46526 dport=8000 packets=1 bytes=60 [UNREPLIED] src=10.2.0.99 dst=10.1.0.2 sport=8000 dport=46526 packets=0 bytes=0 mark=0 use=1
";

/// The flows behind [`CONNTRACK`].
fn flows() -> Vec<FlowRow> {
    let ports = |sport, dport| FlowKey::Ports { sport, dport };
    let icmp = |ty| FlowKey::Icmp { ty, code: 0, id: 3074 };
    let gre = FlowKey::Gre { srckey: 0, dstkey: 0 };
    let counted = |mut row: FlowRow, secs, orig: (u64, u64), reply: (u64, u64), assured| {
        row.timeout_secs = secs;
        (row.orig.packets, row.orig.bytes) = (Some(orig.0), Some(orig.1));
        (row.reply.packets, row.reply.bytes) = (Some(reply.0), Some(reply.1));
        row.seen_reply = reply.0 > 0;
        row.assured = assured;
        row
    };
    let state = |mut row: FlowRow, state: &str| {
        row.state = Some(state.to_owned().into());
        row
    };
    let (a4, b4, a6, b6) = ("10.1.0.2", "10.2.0.2", "fd00:1::2", "fd00:2::2");
    vec![
        counted(flow(1, a4, "10.2.0.77", icmp(8), icmp(0)), 24, (1, 84), (0, 0), false),
        counted(flow(47, a4, b4, gre, gre), 26, (1, 44), (0, 0), false),
        state(
            counted(flow(132, a4, b4, ports(7000, 7001), ports(7001, 7000)), 6, (1, 52), (0, 0), false),
            "CLOSED",
        ),
        state(
            counted(flow(6, a6, b6, ports(33140, 8000), ports(8000, 33140)), 116, (6, 443), (4, 1296), true),
            "TIME_WAIT",
        ),
        counted(flow(17, a4, b4, ports(36578, 5000), ports(5000, 36578)), 116, (2, 60), (2, 60), true),
        counted(flow(58, a6, b6, icmp(128), icmp(129)), 24, (1, 104), (1, 104), false),
        counted(flow(253, a6, b6, FlowKey::None {}, FlowKey::None {}), 599, (1, 44), (0, 0), false),
        state(
            counted(
                flow(6, a4, "10.2.0.99", ports(46526, 8000), ports(8000, 46526)),
                119,
                (1, 60),
                (0, 0),
                false,
            ),
            "SYN_SENT",
        ),
    ]
}

#[test]
fn flows_print_as_conntrack_does() {
    let rig = Rig::new(Fake { flows: flows(), ..Fake::default() });
    let (code, out, err) = rig.fwctl(&["flows"]);
    assert_eq!((code, out.as_str()), (0, CONNTRACK));
    assert_eq!(err, format!("fwctl v{}: 8 flow entries have been shown.\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn flow_filters_reach_the_daemon() {
    let rig = Rig::new(Fake { flows: flows(), ..Fake::default() });
    let line = |number: usize| CONNTRACK.lines().nth(number).unwrap();
    for (args, expected) in [
        (&["-p", "GRE"][..], vec![1]),
        (&["-p", "253"], vec![6]),
        (&["-p", "tcp", "--state", "syn_sent"], vec![7]),
        (&["-f", "ipv6", "-p", "icmp6"], vec![5]),
        (&["-f", "6", "-u", "unreplied"], vec![6]),
        (&["-s", "10.1.0.0/16", "-u", "ASSURED"], vec![4]),
        (&["-d", "10.2.0.77"], vec![0]),
        (&["--sport", "7000"], vec![2]),
        (&["--dport", "8000", "-f", "ipv4"], vec![7]),
        (&["-m", "0x1"], vec![]),
        (&["-r", "fd00:2::/64", "-u", "SEEN_REPLY"], vec![3, 5]),
        (&["-q", "fd00:1::2", "-p", "6"], vec![3]),
    ] {
        let (code, out, err) = rig.fwctl(&[&["flows"], args].concat());
        let expected: Vec<&str> = expected.into_iter().map(line).collect();
        assert_eq!((code, out.lines().collect::<Vec<_>>()), (0, expected), "{args:?} {err}");
    }
    assert_eq!(rig.fwctl(&["flows", "-C"]).1, "8\n");
    assert_eq!(rig.fwctl(&["flows", "-C", "-p", "tcp", "--json"]).1, "{\"count\":2}\n");
    let (_, out, err) = rig.fwctl(&["flows", "--json"]);
    let rows: Vec<FlowRow> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows, err.as_str()), (flows(), ""));
}

#[test]
fn labels_print_filter_and_change_as_with_conntrack() {
    let mut labelled = flows();
    labelled.truncate(3);
    (labelled[0].labels, labelled[1].labels) =
        (vec!["web".to_owned(), "7".to_owned()], vec!["two words".to_owned()]);
    let rig = Rig::new(Fake { flows: labelled, ..Fake::default() });
    let line = |number: usize| CONNTRACK.lines().nth(number).unwrap();
    // Conntrack 1.4.7 has them at the end, but for those without names.
    let (web, two) = (format!("{} labels=web,7", line(0)), format!("{} labels=two words", line(1)));
    let (web, two) = (web.as_str(), two.as_str());
    for (args, expected) in [
        (&["-L"][..], vec![line(0), line(1), line(2)]),
        (&["-o", "labels"], vec![web, two, line(2)]),
        (&["-l", "web"], vec![web]),
        (&["-l", "1", "-l", "0x7"], vec![web]),
        (&["-l", "web,two words"], vec![]),
        (&["-l", "two words"], vec![two]),
    ] {
        let (code, out, err) = rig.fwctl(&[&["flows"], args].concat());
        assert_eq!((code, out.lines().collect::<Vec<_>>()), (0, expected), "{args:?} {err}");
    }
    let (_, xml, _) = rig.fwctl(&["flows", "-o", "xml,labels"]);
    assert!(
        xml.contains("<mark>0</mark><labels><label>web</label><label>7</label></labels><use>1</use>"),
        "{xml}"
    );
    assert!(!rig.fwctl(&["flows", "-o", "xml"]).1.contains("label"));
    for (args, code, said) in [
        (&["-l", "nope"][..], 1, "unknown label 'nope'"),
        (&["-U", "--label-add", "128"], 1, "unknown label '128'"),
        (&["-U", "-p", "gre", "--label-add", "web,9"], 0, "1 flow entries have been updated"),
        (&["-U", "-p", "gre", "--label-del"], 0, "1 flow entries have been updated"),
    ] {
        let (got, _, err) = rig.fwctl(&[&["flows"], args].concat());
        assert!(got == code && err.contains(said), "{args:?}: {got} {err}");
    }
    let given = rig.fwctl(&["flows", "-U", "-p", "132", "--label-add", "web"]).1;
    assert_eq!(given, format!("{} labels=web\n", line(2)));
}

#[test]
fn zones_and_missing_counters_print_as_conntrack_prints_them() {
    let udp = |sport| {
        let ports = |sport, dport| FlowKey::Ports { sport, dport };
        let mut row = flow(17, "10.1.0.2", "10.2.0.2", ports(sport, 5000), ports(5000, sport));
        (row.timeout_secs, row.seen_reply, row.mark) = (1, true, 17);
        for side in [&mut row.orig, &mut row.reply] {
            (side.packets, side.bytes) = (Some(1), Some(33));
        }
        row
    };
    let (mut both, mut orig, mut reply) = (udp(4010), udp(4011), udp(4012));
    (both.zone, orig.orig.zone, reply.reply.zone) = (5, 6, 7);
    let mut uncounted = udp(4013);
    for side in [&mut uncounted.orig, &mut uncounted.reply] {
        (side.packets, side.bytes) = (None, None);
    }
    let rig = Rig::new(Fake { flows: vec![both, orig, reply, uncounted], ..Fake::default() });
    let (_, out, _) = rig.fwctl(&["flows"]);
    // As conntrack printed them on Linux 6.18.
    let expected = "\
udp      17 1 src=10.1.0.2 dst=10.2.0.2 sport=4010 dport=5000 packets=1 bytes=33 src=10.2.0.2 dst=10.1.0.2 sport=5000 dport=4010 packets=1 bytes=33 mark=17 zone=5 use=1
udp      17 1 src=10.1.0.2 dst=10.2.0.2 sport=4011 dport=5000 zone-orig=6 packets=1 bytes=33 src=10.2.0.2 dst=10.1.0.2 sport=5000 dport=4011 packets=1 bytes=33 mark=17 use=1
udp      17 1 src=10.1.0.2 dst=10.2.0.2 sport=4012 dport=5000 packets=1 bytes=33 src=10.2.0.2 dst=10.1.0.2 sport=5000 dport=4012 zone-reply=7 packets=1 bytes=33 mark=17 use=1
udp      17 1 src=10.1.0.2 dst=10.2.0.2 sport=4013 dport=5000 src=10.2.0.2 dst=10.1.0.2 sport=5000 dport=4013 mark=17 use=1
";
    assert_eq!(out, expected);
    // Which flows conntrack found by which zone there.
    for (args, ports) in [
        (&["-w", "0"][..], &[4011, 4012, 4013][..]),
        (&["-w", "5"], &[4010]),
        (&["-w", "6"], &[]),
        (&["--orig-zone", "0"], &[4010, 4012, 4013]),
        (&["--orig-zone", "5"], &[]),
        (&["--orig-zone", "6", "--reply-zone", "0"], &[4011]),
        (&["--reply-zone", "0"], &[4010, 4011, 4013]),
        (&["--reply-zone", "7"], &[4012]),
    ] {
        let (_, out, _) = rig.fwctl(&[&["flows", "-L"], args].concat());
        let found: Vec<u16> = (4010..=4013).filter(|port| out.contains(&format!("sport={port}"))).collect();
        assert_eq!(found, ports, "{args:?}");
    }
}

#[test]
fn flows_are_deleted_changed_and_flushed_in_conntracks_words() {
    let rig = Rig::new(Fake { flows: flows(), ..Fake::default() });
    let line = |number: usize| CONNTRACK.lines().nth(number).unwrap().to_owned() + "\n";
    let said = |what: &str| format!("fwctl v{}: {what}.\n", env!("CARGO_PKG_VERSION"));
    for (args, code, out, err) in [
        (&["-D", "-p", "gre"][..], 0, line(1), "1 flow entries have been deleted"),
        (&["-D", "-p", "gre", "-m", "5"], 1, String::new(), "0 flow entries have been deleted"),
        (&["-D"], 0, CONNTRACK.to_owned(), "8 flow entries have been deleted"),
        (&["-D", "-j"], 1, String::new(), "0 flow entries have been deleted"),
        (&["-F"], 0, String::new(), "connection tracking table has been emptied"),
        (
            &["-U", "-p", "gre", "-m", "0x5/0xf", "-t", "77"],
            0,
            line(1).replace("mark=0", "mark=5").replace(" 26 ", " 77 "),
            "1 flow entries have been updated",
        ),
        (&["-U", "-p", "99", "-m", "5"], 1, String::new(), "0 flow entries have been updated"),
        (
            &["-G", "-p", "gre", "-s", "10.1.0.2", "-d", "10.2.0.2"],
            0,
            line(1),
            "1 flow entries have been shown",
        ),
        (&["-L", "unconfirmed"], 0, String::new(), "0 flow entries have been shown"),
    ] {
        assert_eq!(rig.fwctl(&[&["flows"], args].concat()), (code, out, said(err)), "{args:?}");
    }
    let (code, out, err) = rig.fwctl(&["flows", "-G", "-p", "99", "-s", "1.1.1.1", "-d", "2.2.2.2"]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (1, "", "fwctl: Operation failed: such conntrack doesn't exist\n")
    );
    let (code, json, err) = rig.fwctl(&["flows", "-D", "-p", "gre", "-o", "json"]);
    let row: FlowRow = serde_json::from_str(&json).unwrap();
    assert_eq!((code, row, err.as_str()), (0, flows()[1].clone(), ""));
}

/// Events as `conntrack -E -o timestamp` printed them on Linux 6.18, process and program behind [USERSPACE] left out.
const EVENTS: &str = "\
[1795535048.000056]\t    [NEW] tcp      6 120 SYN_SENT src=10.1.0.2 dst=10.2.0.2 sport=4000 dport=8000 [UNREPLIED] src=10.2.0.2 dst=10.1.0.2 sport=8000 dport=4000 mark=7
[1795535048.997179]\t [UPDATE] tcp      6 60 SYN_RECV src=10.1.0.2 dst=10.2.0.2 sport=4000 dport=8000 src=10.2.0.2 dst=10.1.0.2 sport=8000 dport=4000 mark=7
[1795535050.341388]\t [UPDATE] udp      17 30 src=10.1.0.2 dst=10.2.0.2 sport=4020 dport=5000 src=10.2.0.2 dst=10.1.0.2 sport=5000 dport=4020 mark=0
[1795535050.341388]\t    [NEW] udp      17 30 src=10.1.0.2 dst=10.2.0.2 sport=6069 dport=69 [UNREPLIED] src=10.2.0.2 dst=10.1.0.2 sport=69 dport=6069 helper=tftp
[1795535054.385041]\t[DESTROY] udp      17 29 src=10.1.0.2 dst=10.2.0.2 sport=6069 dport=69 packets=1 bytes=41 [UNREPLIED] src=10.2.0.2 dst=10.1.0.2 sport=69 dport=6069 packets=0 bytes=0 [USERSPACE]
[1795535054.385041]\t[DESTROY] tcp      6 TIME_WAIT src=10.1.0.2 dst=10.2.0.2 sport=4000 dport=8000 packets=6 bytes=325 src=10.2.0.2 dst=10.1.0.2 sport=8000 dport=4000 packets=4 bytes=221 [ASSURED] mark=7
";

/// The events behind [`EVENTS`].
fn events() -> Vec<EventRow> {
    let ports = |sport, dport| FlowKey::Ports { sport, dport };
    let base = |proto, sport, dport| {
        let mut row = flow(proto, "10.1.0.2", "10.2.0.2", ports(sport, dport), ports(dport, sport));
        // Counters come with the last word only.
        for side in [&mut row.orig, &mut row.reply] {
            (side.packets, side.bytes) = (Some(99), Some(99));
        }
        row
    };
    let tcp = |secs, state: &str, seen_reply, assured| FlowRow {
        timeout_secs: secs,
        state: Some(state.to_owned().into()),
        seen_reply,
        assured,
        mark: 7,
        ..base(6, 4000, 8000)
    };
    let event = |kind, at_us, changed: &[Changed], flow| EventRow {
        kind,
        at_us,
        lost: 0,
        changed: changed.to_vec(),
        asked: false,
        flow,
    };
    let counted = |mut flow: FlowRow, orig: (u64, u64), reply: (u64, u64)| {
        (flow.orig.packets, flow.orig.bytes) = (Some(orig.0), Some(orig.1));
        (flow.reply.packets, flow.reply.bytes) = (Some(reply.0), Some(reply.1));
        flow
    };
    let tftp = FlowRow { timeout_secs: 30, helper: Some("tftp".into()), ..base(17, 6069, 69) };
    let mut gone = counted(tftp.clone(), (1, 41), (0, 0));
    gone.timeout_secs = 29;
    // A state that has not changed is not mentioned.
    let marked =
        FlowRow { timeout_secs: 30, seen_reply: true, state: Some("X".into()), ..base(17, 4020, 5000) };
    vec![
        event(EventKind::New, 1_795_535_048_000_056, &[Changed::Mark], tcp(120, "SYN_SENT", false, false)),
        event(
            EventKind::Update,
            1_795_535_048_997_179,
            &[Changed::Reply, Changed::Protoinfo],
            tcp(60, "SYN_RECV", true, false),
        ),
        event(EventKind::Update, 1_795_535_050_341_388, &[Changed::Mark], marked),
        event(EventKind::New, 1_795_535_050_341_388, &[], tftp),
        EventRow { asked: true, ..event(EventKind::Destroy, 1_795_535_054_385_041, &[], gone) },
        event(
            EventKind::Destroy,
            1_795_535_054_385_041,
            &[],
            counted(tcp(0, "TIME_WAIT", true, true), (6, 325), (4, 221)),
        ),
    ]
}

#[test]
fn events_print_as_conntrack_prints_them() {
    let rig = Rig::new(Fake { events: events(), ..Fake::default() });
    let said =
        |count: u32| format!("fwctl v{}: {count} flow events have been shown.\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(rig.fwctl(&["flows", "-E", "-o", "timestamp"]), (0, EVENTS.to_owned(), said(6)));
    let lines = |kinds: &[&str]| -> String {
        let wanted = |line: &&str| kinds.iter().any(|kind| line.contains(kind));
        let bare = |line: &str| line.split_once('\t').unwrap().1.to_owned() + "\n";
        EVENTS.lines().filter(wanted).map(bare).collect()
    };
    for (mask, kinds, count) in
        [("NEW", &["[NEW]"][..], 2), ("updates,destroy", &["[UPDATE]", "[DESTROY]"], 4), ("ALL", &["["], 6)]
    {
        assert_eq!(rig.fwctl(&["flows", "-E", "-e", mask]), (0, lines(kinds), said(count)), "{mask}");
    }
    let (_, out, _) = rig.fwctl(&["flows", "-E", "-p", "tcp", "-o", "id,extended", "-e", "NEW"]);
    assert!(
        out.starts_with("    [NEW] ipv4     2 tcp      6 120 SYN_SENT ") && out.ends_with(" mark=7 id=0\n"),
        "{out}"
    );
    let (_, json, err) = rig.fwctl(&["flows", "-E", "--json"]);
    let rows: Vec<EventRow> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows, err.as_str()), (events(), ""));
    let (_, _, err) = rig.fwctl(&["flows", "-E", "-b", "1000"]);
    assert!(err.starts_with("fwctl: NOTICE: `-b` changes nothing"), "{err}");
}

/// What `conntrack -L expect` printed on Linux 6.18 after a PASV, a TFTP request and, with `-f ipv6`, an EPRT.
const EXPECTED: [&str; 3] = [
    "299 proto=6 src=10.1.0.2 dst=10.2.0.2 sport=0 dport=8000 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.1.0.2 master-dst=10.2.0.2 sport=5002 dport=2121 class=0 helper=ftp\n",
    "299 proto=17 src=10.2.0.2 dst=10.1.0.2 sport=0 dport=6069 mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.1.0.2 master-dst=10.2.0.2 sport=6069 dport=69 class=0 helper=tftp\n",
    "299 proto=6 src=fd02::2 dst=fd01::2 sport=0 dport=8010 mask-src=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff mask-dst=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff sport=0 dport=65535 master-src=fd01::2 master-dst=fd02::2 sport=5004 dport=2121 class=0 helper=ftp\n",
];

#[test]
fn expectations_print_as_conntrack_prints_them() {
    let expected = |proto,
                    (src, dst): (&str, &str),
                    dport,
                    master: (&str, &str),
                    (sport, port),
                    helper: &'static str| {
        let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        ExpectRow {
            family: if address(src).is_ipv4() { Family::V4 } else { Family::V6 },
            proto,
            timeout_secs: 299,
            src: address(src),
            dst: address(dst),
            dport,
            master: ExpectMaster {
                src: address(master.0),
                dst: address(master.1),
                key: FlowKey::Ports { sport, dport: port },
            },
            helper: helper.into(),
            zone: 0,
        }
    };
    let (a, b) = ("10.1.0.2", "10.2.0.2");
    let rows = vec![
        expected(6, (a, b), 8000, (a, b), (5002, 2121), "ftp"),
        expected(17, (b, a), 6069, (a, b), (6069, 69), "tftp"),
        expected(6, ("fd02::2", "fd01::2"), 8010, ("fd01::2", "fd02::2"), (5004, 2121), "ftp"),
    ];
    let rig = Rig::new(Fake { expected: rows.clone(), ..Fake::default() });
    let said = |what: &str| format!("fwctl v{}: {what}.\n", env!("CARGO_PKG_VERSION"));
    let shown = "expectations have been shown";
    for (args, out, err) in [
        (&["-L", "expect"][..], EXPECTED.concat(), format!("3 {shown}")),
        (&["-L", "expect", "-f", "ipv6"], EXPECTED[2].to_owned(), format!("1 {shown}")),
        (&["-F", "expect"], String::new(), "expectation table has been emptied".to_owned()),
    ] {
        assert_eq!(rig.fwctl(&[&["flows"], args].concat()), (0, out, said(&err)), "{args:?}");
    }
    assert_eq!(rig.fwctl(&["flows", "-C", "expect"]), (0, "3\n".to_owned(), String::new()));
    let (_, json, _) = rig.fwctl(&["flows", "-L", "expect", "--json"]);
    let read: Vec<ExpectRow> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, rows);
    let (_, xml, _) = rig.fwctl(&["flows", "-L", "expect", "-o", "xml", "-f", "ipv4"]);
    // As conntrack printed it.
    let tftp = "<flow><layer3 protonum=\"2\" protoname=\"ipv4\"><expected><src>10.2.0.2</src><dst>10.1.0.2</dst></expected><mask><src>255.255.255.255</src><dst>255.255.255.255</dst></mask><master><src>10.1.0.2</src><dst>10.2.0.2</dst></master></layer3><layer4 protonum=\"17\" protoname=\"udp\"><expected><sport>0</sport><dport>6069</dport></expected><mask><sport>0</sport><dport>65535</dport></mask><master><sport>6069</sport><dport>69</dport></master></layer4><meta><helper-name>tftp</helper-name><timeout>299</timeout><class>0</class></meta></flow>";
    let lines: Vec<&str> = xml.lines().collect();
    let head = ["<?xml version=\"1.0\" encoding=\"utf-8\"?>", "<expect>"];
    assert_eq!((&lines[..2], lines[3], lines[4]), (&head[..], tftp, "</expect>"));
    let (_, xml, _) = rig.fwctl(&["flows", "-E", "expect", "-o", "xml,timestamp", "-f", "ipv6"]);
    assert!(
        xml.contains("<flow type=\"new\"><layer3 protonum=\"10\"")
            && xml.contains("<class>0</class><when><hour>"),
        "{xml}"
    );
    // conntrack pads the fraction of a second with blanks here.
    let (code, out, err) = rig.fwctl(&["flows", "-E", "expect", "-o", "timestamp", "-f", "ipv6"]);
    let time = "[1795535367.17931 ]\t";
    let told = format!("{time}    [NEW] {}{time}[DESTROY] {}", EXPECTED[2], EXPECTED[2]);
    assert_eq!((code, out, err), (0, told, said("2 expectation events have been shown")));
    let deaf = Rig::new(Fake { deaf: Some("no more".to_owned()), ..Fake::default() });
    assert_eq!(deaf.fwctl(&["flows", "-E", "expect"]), (1, String::new(), "fwctl: no more\n".to_owned()));
}

#[test]
fn settings_are_shown_and_changed_as_sysctl_does_it() {
    let rig = Rig::new(Fake::default());
    let ok = |out: &str| (0, out.to_owned(), String::new());
    for (args, out) in [
        (&[][..], "tcp_loose = 1\nudp_timeout = 30\n"),
        (&["-a"], "tcp_loose = 1\nudp_timeout = 30\n"),
        (&["-n", "net.netfilter.nf_conntrack_udp_timeout"], "30\n"),
        (&["net/netfilter/nf_conntrack_udp_timeout"], "net.netfilter.nf_conntrack_udp_timeout = 30\n"),
        (&["udp_timeout", "tcp_loose"], "udp_timeout = 30\ntcp_loose = 1\n"),
        (&["-w", "net.netfilter.nf_conntrack_tcp_loose=0"], "net.netfilter.nf_conntrack_tcp_loose = 0\n"),
        (&["tcp_loose = 0"], "tcp_loose = 0\n"),
        (&["-q", "-w", "tcp_loose=0"], ""),
        (&["-e", "nothing", "udp_timeout"], "udp_timeout = 30\n"),
        (&["--json"], "{\"tcp_loose\":1,\"udp_timeout\":30}\n"),
    ] {
        assert_eq!(rig.fwctl(&[&["sysctl"], args].concat()), ok(out), "{args:?}");
    }
    // What goes wrong does not keep the rest from being done.
    let (code, out, err) = rig.fwctl(&["sysctl", "nothing", "tcp_loose=2", "udp_timeout"]);
    assert_eq!((code, out.as_str()), (1, "udp_timeout = 30\n"));
    assert_eq!(
        err,
        "fwctl: there is no setting `nothing`; `fwctl sysctl` lists all\nfwctl: tcp_loose: \"2\" will not do\n"
    );
    assert_eq!(rig.fwctl(&["sysctl", "-w", "udp_timeout"]).0, 2);
}

#[test]
fn times_stand_where_conntrack_has_them() {
    let mut row = tcp_flow(1, "ESTABLISHED");
    (row.zone, row.helper) = (5, Some("ftp".into()));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    row.start_ms = Some(u64::try_from(now.as_millis()).unwrap() - 7_000);
    let rig = Rig::new(Fake { flows: vec![row.clone()], ..Fake::default() });
    let (_, out, _) = rig.fwctl(&["flows"]);
    let lasted = |out: &str| {
        ["7", "8"]
            .iter()
            .any(|secs| out.ends_with(&format!(" mark=0 zone=5 delta-time={secs} helper=ftp use=1\n")))
    };
    assert!(lasted(&out), "{out}");
    let (_, out, _) = rig.fwctl(&["flows", "-o", "ktimestamp"]);
    let start = out.split_once("[start=").unwrap().1.split_once("] helper=ftp ").unwrap().0;
    assert!(chrono::NaiveDateTime::parse_from_str(start, "%a %b %e %H:%M:%S %Y").is_ok(), "{start}");

    (row.start_ms, row.stop_ms) = (Some(1_795_534_975_900), Some(1_795_534_976_100));
    let gone = EventRow { asked: true, kind: EventKind::Destroy, flow: row, ..events()[0].clone() };
    let rig = Rig::new(Fake { events: vec![gone], ..Fake::default() });
    let (_, out, _) = rig.fwctl(&["flows", "-E", "-o", "ktimestamp,id"]);
    let (head, times) = out.split_once("delta-time=1 [start=").unwrap();
    assert!(
        head.ends_with(" zone=5 ")
            && times.contains(":55 2026] [stop=")
            && times.ends_with(":56 2026] id=0 [USERSPACE]\n"),
        "{out}"
    );
}

#[test]
fn xml_and_command_lines_are_written_as_conntrack_writes_them() {
    let rig = Rig::new(Fake { flows: flows(), events: events(), ..Fake::default() });
    let (_, xml, err) = rig.fwctl(&["flows", "-L", "-p", "sctp", "-o", "xml"]);
    let flow = "<flow><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>10.1.0.2</src><dst>10.2.0.2</dst></layer3><layer4 protonum=\"132\" protoname=\"sctp\"><sport>7000</sport><dport>7001</dport></layer4><counters><packets>1</packets><bytes>52</bytes></counters></meta><meta direction=\"reply\"><layer3 protonum=\"2\" protoname=\"ipv4\"><src>10.2.0.2</src><dst>10.1.0.2</dst></layer3><layer4 protonum=\"132\" protoname=\"sctp\"><sport>7001</sport><dport>7000</dport></layer4><counters><packets>0</packets><bytes>0</bytes></counters></meta><meta direction=\"independent\"><state>CLOSED</state><timeout>6</timeout><mark>0</mark><use>1</use><id>0</id><unreplied/></meta></flow>";
    let head = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>\n";
    assert_eq!(xml, format!("{head}{flow}\n</conntrack>\n"));
    assert!(err.ends_with(": 1 flow entries have been shown.\n"), "{err}");
    assert_eq!(rig.fwctl(&["flows", "-L", "-p", "99", "-o", "xml"]).1, "");
    let (_, events, _) = rig.fwctl(&["flows", "-E", "-o", "xml", "-e", "DESTROY"]);
    assert!(events.starts_with(head) && events.ends_with("</conntrack>\n"), "{events}");
    assert!(events.contains("</flow> [USERSPACE]\n<flow type=\"destroy\">"), "{events}");

    let icmp = "-s 10.1.0.2 -d 10.2.0.77 -r 10.2.0.77 -q 10.1.0.2 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 3074\n";
    let save = |args: &[&str]| rig.fwctl(&[&["flows"], args, &["-o", "save"]].concat()).1;
    assert_eq!(save(&["-L", "-p", "icmp"]), format!("-A -t 24 -u UNSET {icmp}"));
    assert_eq!(save(&["-D", "-p", "icmp"]), format!("-D -t 24 -u UNSET {icmp}"));
    let told: Vec<String> =
        save(&["-E"]).lines().map(|line| line.split(" -s ").next().unwrap().to_owned()).collect();
    assert_eq!(
        told,
        [
            "-A -t 120 -u UNSET",
            "-U -t 60 -u SEEN_REPLY",
            "-U -t 30 -u SEEN_REPLY",
            "-A -t 30 -u UNSET",
            "-D -t 29 -u UNSET",
            "-D -u SEEN_REPLY,ASSURED",
        ]
    );
}

#[test]
fn lost_events_and_refused_listeners_are_said() {
    let mut lossy = events();
    lossy[1].lost = 5;
    let rig = Rig::new(Fake { events: lossy, ..Fake::default() });
    let (code, _, err) = rig.fwctl(&["flows", "-E"]);
    assert!(code == 0 && err.starts_with("fwctl: WARNING: 5 events were lost: "), "{err}");
    let rig = Rig::new(Fake { deaf: Some("16 others are listening".to_owned()), ..Fake::default() });
    assert_eq!(
        rig.fwctl(&["flows", "-E"]),
        (1, String::new(), "fwctl: 16 others are listening\n".to_owned())
    );
}

#[test]
fn flows_that_a_worker_does_not_remove_are_a_failure() {
    let rig = Rig::new(Fake { flows: flows(), stuck: 5, ..Fake::default() });
    for (args, what) in [
        (&["-D"][..], "5 flow entries were not deleted, 8 were"),
        (&["-F"], "5 flow entries were not deleted, 8 were"),
        (&["-U", "-m", "1"], "5 flow entries were not updated, 8 were"),
    ] {
        let (code, _, err) = rig.fwctl(&[&["flows"], args].concat());
        assert!(code == 1 && err.contains(what) && !err.contains("emptied"), "{args:?}: {err}");
    }
}

#[test]
fn a_hundred_thousand_flows_come_through_whole() {
    let mut odd = tcp_flow(9, "ESTABLISHED");
    odd.mark = 7;
    let rig =
        Rig::new(Fake { flows: vec![tcp_flow(1, "ESTABLISHED"), odd], repeat: 49_999, ..Fake::default() });
    let (code, out, err) = rig.fwctl(&["flows"]);
    assert_eq!((code, out.lines().count()), (0, 100_000));
    assert!(err.ends_with(": 100000 flow entries have been shown.\n"));
    assert_eq!(out.lines().filter(|line| line.ends_with(" mark=7 use=1")).count(), 50_000);
}
