//! What raw rules see of a packet: nothing yet, or what the orders before them have made of it.

use super::stage::Setting;
use super::talk::{Client, Server, Talk, perform};
use dataplane::testing::packets::udp;

/// What is asked, each of a source port of its own.
const QUESTIONS: &[&str] = &[
    "-m conntrack --ctstate INVALID",
    "-m conntrack --ctstate NEW",
    "-m conntrack --ctstate UNTRACKED",
    "-m conntrack ! --ctstate NEW,INVALID",
    "-m state --state NEW",
    "-m conntrack --ctstate NEW --ctdir REPLY",
    "-m conntrack --ctstate INVALID,UNTRACKED --ctdir REPLY",
    "-m conntrack --ctstatus CONFIRMED",
    "-m conntrack --ctstatus NONE",
    "-m conntrack ! --ctstatus CONFIRMED",
    "-m conntrack --ctdir ORIGINAL",
    "-m conntrack --ctproto udp",
    "-m conntrack ! --ctproto udp",
    "-m conntrack --ctexpire 0",
    "-m conntrack --ctexpire 1:100",
    "-m conntrack --ctorigdst HOST",
    "-m conntrack ! --ctrepldst HOST",
    "-m conntrack --ctorigdstport 50:53",
    "-m conntrack ! --ctreplsrcport 50:53",
    "-m connmark --mark 0",
    "-m connmark ! --mark 0",
    "-m connbytes --connbytes 0 --connbytes-dir both --connbytes-mode packets",
    "-m connlimit --connlimit-above 0",
    "-m helper --helper ftp",
    "-m helper ! --helper ftp",
];

/// Orders, each to a destination port of its own, from 50 on.
const ORDERS: &[&str] =
    &["", "-j NOTRACK", "-j CT --notrack", "-j CT", "-j CT --zone 5", "-j CT --zone mark"];

fn orders() -> String {
    let rule = |(order, port): (&&str, usize)| {
        if order.is_empty() {
            String::new()
        } else {
            format!("-A PREROUTING -p udp -m udp --dport {port} {order}\n")
        }
    };
    ORDERS.iter().zip(50..).map(rule).collect()
}

fn questions(chain: &str, host: &str, target: &str) -> String {
    let rule = |(question, port): (&&str, usize)| {
        format!("-A {chain} -p udp -m udp --sport {port} {} {target}\n", question.replace("HOST", host))
    };
    QUESTIONS.iter().zip(1..).map(rule).collect()
}

fn ask_all(talk: &mut Talk<'_>) {
    let (client, server) = talk.addresses(Client);
    for dport in (50..).take(ORDERS.len()) {
        for sport in (1..).take(QUESTIONS.len()) {
            for round in 0..2 {
                let note = format!("{} of {dport}, {round}", QUESTIONS[usize::from(sport) - 1]);
                talk.send(Client, &udp(client, server).ports(sport, dport), &note);
                talk.send(Server, &udp(server, client).ports(dport, sport), &format!("{note}, answer"));
            }
        }
    }
    talk.stage.compare_lists();
}

#[test]
fn raw_rules_see_what_orders_have_made_of_a_packet() {
    let in_line = |host: &str| {
        let (orders, questions) = (orders(), questions("PREROUTING", host, "-j DROP"));
        format!("*raw\n{orders}{questions}COMMIT\n")
    };
    let four = in_line("10.0.0.2");
    let six = in_line("fd00::2");
    // Orders given by a chain that is called under a state, which they change.
    let called = format!(
        "*raw\n:ORDERS - [0:0]\n-A PREROUTING -m conntrack --ctstate INVALID -j ORDERS\n{}{}-A ORDERS -p udp -m udp --dport 50 -m conntrack ! --ctstate INVALID -j DROP\nCOMMIT\n",
        orders().replace("-A PREROUTING", "-A ORDERS"),
        questions("PREROUTING", "10.0.0.2", "-j DROP"),
    );
    // Marks that a raw rule gives a connection which is none yet.
    let marks = "*raw\n-A PREROUTING -p udp -m udp --dport 51 -j CT\n-A PREROUTING -p udp -m udp --dport 52 -j NOTRACK\n-A PREROUTING -m connmark --mark 7 -p udp -m udp --sport 1 -j DROP\n-A PREROUTING -p udp -m udp --sport 2:9 -j CONNMARK --set-mark 7\n-A PREROUTING -p udp -m udp --sport 3 -m connmark --mark 7 -j DROP\n-A PREROUTING -p udp -m udp --sport 4 -j CONNMARK --restore-mark\n-A PREROUTING -p udp -m udp --sport 4 -m mark --mark 7 -j DROP\nCOMMIT\n";
    let setting = |v4| Setting { v4, v6: "", sysctls: &[] };
    let over_six = |talk: &mut Talk<'_>| {
        talk.six = true;
        ask_all(talk);
    };
    // One packet of each port: the kernel's template keeps its mark.
    let marked = |talk: &mut Talk<'_>| {
        let (client, server) = talk.addresses(Client);
        for sport in [1, 3, 4, 2] {
            for dport in 50..=52 {
                let packet = udp(client, server).ports(sport, dport);
                talk.send(Client, &packet, &format!("{sport} to {dport}"));
            }
        }
        talk.stage.compare_lists();
    };
    perform(&[
        ("in line", setting(&four), &ask_all),
        ("in line, ipv6", Setting { v4: "", v6: &six, sysctls: &[] }, &over_six),
        ("called", setting(&called), &ask_all),
        ("marks", setting(marks), &marked),
    ]);
}
