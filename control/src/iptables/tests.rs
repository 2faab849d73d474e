//! What is read, what is refused and in which words; that no bytes do harm; that print and parse are inverse.

use dataplane::packet::Family;
use dataplane::rules::header::HeaderMatch;
use dataplane::rules::model::{
    Chain, ChainId, CtState, CtStateSet, IfacePattern, Match, Policy, PortSide, RejectWith, Ruleset, Target,
};
use proptest::prelude::*;

use super::diagnostics::Severity;
use super::{Loaded, load, printer};

fn table(rules: &str) -> String {
    format!("*filter\n:FOO - [0:0]\n{rules}\nCOMMIT\n")
}

fn chain<'a>(ruleset: &'a Ruleset, name: &str) -> &'a Chain {
    ruleset.chains.iter().find(|chain| chain.name == name).unwrap()
}

/// The one FORWARD rule of a table with `rule` in it.
fn meaning(rule: &str, family: Family) -> (Vec<Match>, Target) {
    let loaded = load(table(rule), "t", family);
    let ruleset = loaded.ruleset.unwrap_or_else(|| panic!("{rule}: {:?}", loaded.diagnostics));
    let rule = chain(&ruleset, "FORWARD").rules[0].clone();
    (rule.matches.clone(), rule.target)
}

fn matches4(rule: &str) -> Vec<Match> {
    meaning(&format!("-A FORWARD {rule}"), Family::V4).0
}

/// Severity and message of the only finding about a table with `rule` in it.
fn finding(rule: &str, family: Family) -> (Severity, String) {
    let loaded = load(table(rule), "t", family);
    assert_eq!(loaded.diagnostics.len(), 1, "{rule}: {:?}", loaded.diagnostics);
    (loaded.diagnostics[0].severity, loaded.diagnostics[0].message.clone())
}

fn message(rule: &str) -> String {
    finding(rule, Family::V4).1
}

fn print(loaded: &Loaded) -> String {
    printer::save(loaded.syntax.as_ref().unwrap(), None)
}

const TCP: Match = Match::Proto { proto: 6, invert: false };

fn ports(which: PortSide, low: u16, high: u16, invert: bool) -> Match {
    Match::Ports { which, ranges: vec![(low, high)], invert }
}

#[test]
fn addresses_and_interfaces_become_matches() {
    assert_eq!(
        matches4("-s 10.0.0.0/8 ! -d 1.2.3.4 -i eth0 ! -o wan+ -f"),
        [
            Match::Src { addr: 0x0a00_0000, mask: 0xff00_0000, invert: false },
            Match::Dst { addr: 0x0102_0304, mask: 0xffff_ffff, invert: true },
            Match::InIface { pattern: IfacePattern { name: "eth0".into(), prefix: false }, invert: false },
            Match::OutIface { pattern: IfacePattern { name: "wan".into(), prefix: true }, invert: true },
            Match::LaterFragment { invert: false },
        ]
    );
    assert_eq!(matches4("-s 0/0 -i + -p all"), []);
}

#[test]
fn tcp_options_become_matches() {
    assert_eq!(matches4("-p tcp --dport 22"), [TCP, ports(PortSide::Dst, 22, 22, false)]);
    assert_eq!(matches4("-p tcp ! --sport :22"), [TCP, ports(PortSide::Src, 0, 22, true)]);
    assert_eq!(matches4("-p tcp --dport ssh:http"), [TCP, ports(PortSide::Dst, 22, 80, false)]);
    assert_eq!(matches4("-p tcp ! --syn"), [TCP, Match::TcpFlags { mask: 0x17, comp: 2, invert: true }]);
    assert_eq!(
        matches4("-p tcp --tcp-flags ALL SYN,ack"),
        [TCP, Match::TcpFlags { mask: 0x3f, comp: 0x12, invert: false }]
    );
    assert_eq!(
        matches4("-p tcp -m tcp"),
        [TCP, Match::Header(HeaderMatch::Carries(20))],
        "a later fragment has no header"
    );
}

#[test]
fn other_matches_become_matches() {
    let states = CtStateSet::default().with(CtState::Related).with(CtState::Established);
    assert_eq!(
        matches4("-m conntrack --ctstate RELATED,ESTABLISHED"),
        [Match::CtState { states, invert: false }]
    );
    assert_eq!(matches4("-m state ! --state EST,rel"), [Match::CtState { states, invert: true }]);
    assert_eq!(
        matches4("-p udp -m multiport ! --dports 53,67:68")[1],
        Match::Ports { which: PortSide::Dst, ranges: vec![(53, 53), (67, 68)], invert: true }
    );
    assert_eq!(
        matches4("-p icmp --icmp-type fragmentation-needed")[1],
        Match::Icmp { ty: Some(3), codes: (4, 4), invert: false }
    );
    assert_eq!(
        matches4("-p icmp --icmp-type any")[1],
        Match::Icmp { ty: None, codes: (0, 255), invert: false }
    );
    assert_eq!(matches4("-m comment --comment x"), []);
    let (matches, _) = meaning("-A FORWARD -p icmpv6 ! --icmpv6-type 1/4", Family::V6);
    assert_eq!(matches[1], Match::Icmp { ty: Some(1), codes: (4, 4), invert: true });
}

#[test]
fn helpers_of_the_kernel_are_refused_by_name_and_others_do_not_exist() {
    let refused = |helper: &str| {
        let text = format!("*raw\n-A PREROUTING -p udp -j CT --helper {helper}\nCOMMIT\n*filter\nCOMMIT\n");
        let found = load(&text, "test", Family::V4).diagnostics.remove(0);
        (found.severity, found.message, found.hint.unwrap_or_default())
    };
    for helper in
        ["irc", "sip", "pptp", "amanda", "sane", "snmp", "snmp_trap", "netbios-ns", "Q.931", "H.245", "RAS"]
    {
        let (severity, message, hint) = refused(helper);
        assert_eq!(
            (severity, message),
            (Severity::Unsupported, format!("helper `{helper}` is not supported"))
        );
        assert_eq!(hint, "helpers are ftp, tftp");
    }
    let (severity, message, hint) = refused("h323");
    assert_eq!((severity, message.as_str()), (Severity::Error, "there is no helper `h323`"));
    assert!(hint.contains("Q.931, H.245 and RAS"), "{hint}");
    assert_eq!(refused("foo").1, "there is no helper `foo`");
}

#[test]
fn targets_become_targets() {
    let target = |rule: &str, family| meaning(&format!("-A FORWARD {rule}"), family).1;
    assert_eq!(target("-p tcp", Family::V4), Target::Continue);
    assert_eq!(target("-j RETURN", Family::V4), Target::Return);
    assert_eq!(target("-j FOO", Family::V4), Target::Jump(ChainId(3)));
    assert_eq!(target("-g FOO", Family::V4), Target::Goto(ChainId(3)));
    assert_eq!(target("-j REJECT", Family::V4), Target::Reject(RejectWith::IcmpPortUnreachable));
    assert_eq!(target("-j REJECT", Family::V6), Target::Reject(RejectWith::Icmp6PortUnreachable));
    assert_eq!(
        target("-p tcp -j REJECT --reject-with tcp-rst", Family::V4),
        Target::Reject(RejectWith::TcpReset)
    );
    assert_eq!(
        target("-j REJECT --reject-with adm-prohibited", Family::V6),
        Target::Reject(RejectWith::Icmp6AdminProhibited)
    );
}

#[test]
fn errors_say_what_is_wrong() {
    for (rule, expected) in [
        ("-A FORWARD -p tpc", "unknown protocol `tpc`"),
        ("-A FORWARD --dport 22", "unknown option `--dport`"),
        ("-A FORWARD -m tcp --dport 22", "`-m tcp` needs `-p tcp` in the same rule"),
        ("-A FORWARD -p tcp --dport 9:5", "invalid port range: 9 is greater than 5"),
        ("-A FORWARD -p tcp --dport 99999", "invalid port or service `99999` for tcp"),
        ("-A FORWARD -d ! 1.2.3.4", "invalid address `!`"),
        ("-A FORWARD ! -j DROP", "`!` is not allowed before `-j`"),
        ("-A FORWARD ! ! -p tcp", "several `!` in a row"),
        ("-A FORWARD -p tcp !", "nothing follows this `!`"),
        ("-A FORWARD -i a -i b", "`-i` is given twice"),
        ("-A FORWARD -j", "option `-j` requires an argument"),
        ("-A FORWARD -j ACCEPT extra", "bad argument `extra`"),
        ("-A FORWARD -j ACEPT", "no target or chain `ACEPT`"),
        ("-A FORWARD -j INPUT", "`INPUT` is a built-in chain; rules cannot jump to it"),
        ("-A BAR -j DROP", "chain `BAR` does not exist"),
        ("-A FORWARD -j REJECT --reject-with tcp-reset", "`tcp-reset` needs `-p tcp` in the same rule"),
        ("-A FORWARD -j REJECT --reject-with icmp6-no-route", "unknown reject type `icmp6-no-route`"),
        ("-A FORWARD -m conntrack --ctstate NEW,", "bad connection state ``"),
        (
            "-A FORWARD -p icmp --icmp-type echo-r",
            "ambiguous ICMP type `echo-r`: `echo-reply` or `echo-request`?",
        ),
        ("-A FORWARD -p tcp -m multiport --dports 1:2,3:4,5:6,7:8,9:10,11:12,13:14,15:16", "too many ports"),
        ("-A FORWARD -m nosuch", "unknown match `nosuch`"),
        ("-A FORWARD -p icmpv6 -m icmp6", "there is no match `icmp6` in IPv4 rules"),
        ("-A INPUT -o eth0", "`-o` in INPUT: no such interface is known there"),
        ("-N FOO", "chain `FOO` already exists"),
        ("-P FOO DROP", "`FOO` is not a built-in chain and has no policy"),
        ("-P FORWARD REJECT", "bad policy `REJECT`"),
        ("-I FORWARD 2 -j DROP", "position 2 is beyond the end of `FORWARD`, which has 0 rules"),
        ("-j ACCEPT", "no command on this line"),
        (" ", "no command on this line"),
        ("COMMIT ", "blanks around `COMMIT`"),
        ("-A FORWARD -i abcdefghijklmnop", "interface name `abcdefghijklmnop` is longer than 15 bytes"),
    ] {
        assert_eq!(finding(rule, Family::V4), (Severity::Error, expected.to_owned()), "{rule}");
    }
    assert_eq!(finding("-A FORWARD -f", Family::V6), (Severity::Error, "`-f` does not exist in IPv6".into()));
}

#[test]
fn the_unsupported_is_told_from_the_unknown() {
    for (rule, expected) in [
        ("-A FORWARD -m rateest", "match `rateest` is valid iptables, not supported yet"),
        ("-A FORWARD -j AUDIT --type drop", "target `AUDIT` is valid iptables, not supported yet"),
        (
            "-A FORWARD -m addrtype --dst-type LOCAL",
            "address type LOCAL: it hangs on addresses and routes of the host",
        ),
        ("-A FORWARD -m conntrack --ctstate SNAT", "`--ctstate SNAT` is not supported yet"),
        ("-A FORWARD -s www.example.org", "host name `www.example.org`; only addresses are accepted"),
        ("-D FORWARD -j DROP", "`-D` edits a table instead of stating it"),
        ("-A FOO -j FOO", "jumps go round in a loop: FOO -> FOO"),
    ] {
        assert_eq!(finding(rule, Family::V4), (Severity::Unsupported, expected.to_owned()), "{rule}");
    }
}

#[test]
fn options_abbreviate_as_getopt_allows() {
    assert_eq!(matches4("--proto tcp --dp 22"), [TCP, ports(PortSide::Dst, 22, 22, false)]);
    assert_eq!(matches4("-p tcp --dport=22"), [TCP, ports(PortSide::Dst, 22, 22, false)]);
    assert_eq!(message("-A FORWARD --s 1.2.3.4"), "ambiguous option `--s`");
    assert_eq!(message("-A FORWARD -m conntrack --ctst NEW"), "ambiguous option `--ctst`");
    assert_eq!(message("-A FORWARD --source=1.2.3.4"), "`--source=1.2.3.4`: an option with `=`");
}

#[test]
fn all_errors_of_a_file_come_at_once_and_in_order() {
    let text = "*filter\n-A FORWARD -p tpc\n-A FORWARD -m rateest\n:FOO\n-A NO -j DROP\n*nat\nCOMMIT\nx\n";
    let loaded = load(text, "t", Family::V4);
    let lines: Vec<u32> = loaded.diagnostics.iter().map(|diagnostic| diagnostic.span.line).collect();
    assert_eq!(lines, [2, 3, 4, 5, 6, 8]);
    assert!(loaded.ruleset.is_none());
}

#[test]
fn loops_and_deep_nesting_are_errors_by_name() {
    let text = "*filter\n:A - [0:0]\n:B - [0:0]\n-A A -j B\n-A B -g A\n-A FORWARD -j A\nCOMMIT\n";
    let loaded = load(text, "t", Family::V4);
    assert_eq!(loaded.diagnostics[0].message, "jumps go round in a loop: A -> B -> A");
    let nested = |depth: usize| {
        let names = (0..depth).map(|i| format!(":C{i} - [0:0]\n")).collect::<String>();
        let jumps = (1..depth).map(|i| format!("-A C{} -j C{i}\n", i - 1)).collect::<String>();
        load(format!("*filter\n{names}{jumps}-A FORWARD -j C0\nCOMMIT\n"), "t", Family::V4)
    };
    assert!(nested(15).ruleset.is_some());
    assert_eq!(nested(16).diagnostics[0].message, "chains nest 16 deep below FORWARD, the kernel allows 15");
}

#[test]
fn input_rules_are_kept_with_one_note() {
    let loaded = load(table("-A INPUT -j DROP\n-A OUTPUT -j DROP\n-A INPUT -p tcp"), "t", Family::V4);
    assert_eq!(loaded.diagnostics.len(), 1);
    assert_eq!((loaded.diagnostics[0].severity, loaded.diagnostics[0].span.line), (Severity::Note, 3));
    assert_eq!(chain(&loaded.ruleset.unwrap(), "INPUT").rules.len(), 2);
}

#[test]
fn lists_expand_sources_first() {
    let loaded = load(table("-A FORWARD -s 1.1.1.1,2.2.2.2 -d 3.3.3.3,4.4.4.4 -j DROP"), "t", Family::V4);
    let printed = print(&loaded);
    let rules: Vec<&str> = printed.lines().filter(|line| line.starts_with("-A")).collect();
    assert_eq!(rules[1], "-A FORWARD -s 1.1.1.1/32 -d 4.4.4.4/32 -j DROP");
    assert_eq!(rules[2], "-A FORWARD -s 2.2.2.2/32 -d 3.3.3.3/32 -j DROP");
}

#[test]
fn rules_keep_their_ids_when_they_move_and_twins_differ() {
    let ids = |rules: &str| -> Vec<u64> {
        let ruleset = load(table(rules), "t", Family::V4).ruleset.unwrap();
        chain(&ruleset, "FORWARD").rules.iter().map(|rule| rule.id.0).collect()
    };
    let one = ids("-A FORWARD -p tcp --dport 22 -j DROP\n-A FORWARD -j ACCEPT");
    let two = ids("-A FORWARD -j ACCEPT\n-A FORWARD -p tcp -m tcp --dport ssh -j DROP\n-A FORWARD -j ACCEPT");
    assert_eq!((one[0], one[1]), (two[1], two[0]));
    assert_ne!(two[0], two[2]);
}

#[test]
fn other_tables_pass_only_if_empty() {
    let with = |nat: &str| load(format!("*nat\n{nat}COMMIT\n*filter\nCOMMIT\n"), "t", Family::V4);
    assert!(with(":PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [1:2]\n").ruleset.is_some());
    assert_eq!(with("-A POSTROUTING -j MASQUERADE\n").worst(), Some(Severity::Unsupported));
    assert_eq!(with(":POSTROUTING DROP [0:0]\n").worst(), Some(Severity::Unsupported));
}

#[test]
fn a_file_without_a_filter_table_is_not_an_empty_firewall() {
    let loaded = load("# nothing\n", "t", Family::V4);
    assert_eq!(loaded.worst(), Some(Severity::Unsupported));
    assert!(loaded.ruleset.is_none());
    assert!(load("*filter\nCOMMIT\n", "t", Family::V4).ruleset.is_some());
}

#[test]
fn policies_and_the_model_agree() {
    let ruleset = load("*filter\n:FORWARD DROP [1:2]\nCOMMIT\n", "t", Family::V6).ruleset.unwrap();
    assert_eq!(ruleset.chain(ruleset.forward).policy, Some(Policy::Drop));
    let mut expected = Ruleset::empty(Family::V6);
    expected.chains[1].policy = Some(Policy::Drop);
    assert_eq!(ruleset, expected);
}

#[test]
fn ten_megabytes_of_junk_are_refused_with_bounded_words() {
    for text in [
        vec![b'x'; 10_000_000],
        vec![b'\n'; 10_000_000],
        b"-A \"\n".repeat(2_000_000),
        b"*filter\n".repeat(1_000_000),
    ] {
        let loaded = load(text, "t", Family::V4);
        assert!(loaded.ruleset.is_none());
        assert!(loaded.diagnostics.len() <= super::parser::DIAGNOSTICS_MAX + 2);
    }
}

const SAMPLES: [&str; 4] = [
    include_str!("../../tests/data/rules/gateway4.rules"),
    include_str!("../../tests/data/rules/gateway6.rules"),
    include_str!("../../tests/data/rules/stateless4.rules"),
    include_str!("../../tests/data/rules/minimal4.rules"),
];

/// An option with a value, for IPv4; what may follow `-A FORWARD`.
fn option() -> impl Strategy<Value = String> {
    let bang = prop::bool::ANY.prop_map(|bang| if bang { "! " } else { "" });
    let net =
        (any::<u32>(), 1..=32u32).prop_map(|(addr, len)| format!("{}/{len}", std::net::Ipv4Addr::from(addr)));
    let port = prop_oneof![
        any::<u16>().prop_map(|port| port.to_string()),
        Just("1:1023".to_owned()),
        Just("7:".to_owned())
    ];
    prop_oneof![
        (bang.clone(), net.clone()).prop_map(|(bang, net)| format!("{bang}-s {net}")),
        (bang.clone(), net).prop_map(|(bang, net)| format!("{bang}-d {net}")),
        (bang.clone(), "[a-z]{1,10}[+]?").prop_map(|(bang, name)| format!("{bang}-i {name}")),
        (bang.clone(), "[a-z]{1,10}[+]?").prop_map(|(bang, name)| format!("{bang}-o {name}")),
        (bang.clone(), port.clone()).prop_map(|(bang, port)| format!("-p tcp {bang}--dport {port}")),
        (bang.clone(), port).prop_map(|(bang, port)| format!("-p udp {bang}--sport {port}")),
        (bang.clone(), any::<u8>(), any::<u8>())
            .prop_map(|(bang, ty, code)| format!("-p icmp {bang}--icmp-type {ty}/{code}")),
        (bang.clone(), 1u8..=255).prop_map(|(bang, proto)| format!("{bang}-p {proto}")),
        bang.clone().prop_map(|bang| format!("{bang}-f")),
        (bang, "(NEW|INVALID|ESTABLISHED)(,RELATED)?")
            .prop_map(|(bang, states)| format!("-m conntrack {bang}--ctstate {states}")),
        "[a-z \"'\\\\]{0,12}".prop_map(|text| {
            format!("-m comment --comment \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }),
    ]
}

fn rule() -> impl Strategy<Value = String> {
    let target = prop_oneof![
        Just(""),
        Just("-j ACCEPT"),
        Just("-j DROP"),
        Just("-j FOO"),
        Just("-g FOO"),
        Just("-j REJECT")
    ];
    (prop::collection::vec(option(), 0..4), target)
        .prop_map(|(options, target)| format!("-A FORWARD {} {target}", options.join(" ")))
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        for family in [Family::V4, Family::V6] {
            let loaded = load(&bytes, "t", family);
            for diagnostic in &loaded.diagnostics {
                let _ = diagnostic.render(&bytes, "t", true);
                let _ = diagnostic.to_json(&bytes, "t");
            }
        }
    }

    #[test]
    fn damaged_files_are_read_without_harm(
        sample in prop::sample::select(SAMPLES.as_slice()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..20),
    ) {
        let mut bytes = sample.as_bytes().to_vec();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                _ => bytes.insert(at, b" !-,:/\"\\[\n"[usize::from(byte) % 10]),
            }
        }
        for family in [Family::V4, Family::V6] {
            let loaded = load(&bytes, "t", family);
            for diagnostic in &loaded.diagnostics {
                let _ = diagnostic.render(&bytes, "t", false);
            }
            if loaded.ruleset.is_some() {
                let again = load(print(&loaded), "t", family);
                prop_assert_eq!(print(&loaded), print(&again));
            }
        }
    }

    #[test]
    fn what_is_printed_reads_back_the_same(rules in prop::collection::vec(rule(), 0..12)) {
        let good: Vec<String> =
            rules.into_iter().filter(|rule| load(table(rule), "t", Family::V4).ruleset.is_some()).collect();
        let first = load(table(&good.join("\n")), "t", Family::V4);
        let again = load(print(&first), "t", Family::V4);
        prop_assert!(first.ruleset.is_some());
        prop_assert_eq!(&first.ruleset, &again.ruleset);
        prop_assert_eq!(print(&first), print(&again));
    }
}

/// Loads a rule; what it prints must read back to the same.
fn reads_back(rule: &str, family: Family) {
    let loaded = load(table(rule), "t", family);
    if loaded.ruleset.is_some() {
        let printed = print(&loaded);
        let again = load(&printed, "t", family);
        assert_eq!(print(&again), printed, "{rule}");
        assert_eq!(again.ruleset, loaded.ruleset, "{rule}");
    }
}

#[test]
fn matches_on_headers_print_and_read_back_the_same() {
    for (lines, family) in [
        (include_str!("../../tests/data/headers4.txt"), Family::V4),
        (include_str!("../../tests/data/headers6.txt"), Family::V6),
    ] {
        for line in lines.lines() {
            let rule = line.split_once(' ').unwrap().1;
            reads_back(rule, family);
        }
    }
}

proptest! {
    #[test]
    fn any_value_of_a_match_on_headers_is_taken_or_refused(
        option in prop::sample::select(vec![
            "-m u32 --u32", "-m string --algo bm --string", "-m string --algo kmp --hex-string", "-m length --length",
            "-m tos --tos", "-m dscp --dscp-class", "-m mac --mac-source", "-m addrtype --src-type", "-m hbh --hbh-opts",
            "-m iprange --src-range", "-m rt --rt-type 0 --rt-0-addrs", "-m ipv6header --header", "-m frag --fragid",
            "-p sctp -m sctp --chunk-types any", "-p dccp -m dccp --dccp-types", "-m physdev --physdev-in",
            "-p tcp -m tcpmss --mss", "-m pkttype --pkt-type",
        ]),
        value in "[0-9a-fx:,&|<>=@ /.+A-Z\\\\-]{0,20}",
    ) {
        let quoted = value.replace('\\', "\\\\");
        for family in [Family::V4, Family::V6] {
            reads_back(&format!("-A FORWARD {option} \"{quoted}\""), family);
        }
    }
}
