//! Rules about connections, and what changes them: raw, marks, zones, counts, helpers, rejects.

use super::stage::Setting;
use super::talk::{CLIENT, Client, SERVER, Scenario, Server, Talk, perform};
use dataplane::testing::packets::{ip, ping, pong, tcp, udp};
use std::net::Ipv4Addr;

const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

const FTP: &str = "\
*raw
-A PREROUTING -p tcp --dport 21 -j CT --helper ftp
-A PREROUTING -p udp --dport 69 -j CT --helper tftp
COMMIT
*filter
-A FORWARD -p tcp --dport 2999 -m conntrack --ctstate RELATED -j DROP
COMMIT
";

/// A control connection past the first lines of both sides.
pub(super) struct Control {
    next: [i64; 2],
}

impl Control {
    pub(super) fn open(talk: &mut Talk<'_>) -> Self {
        talk.ports.1 = 21;
        talk.opens();
        let mut control = Self { next: [1, 1] };
        control.line(talk, 1, "220 hello\r\n");
        control.line(talk, 0, "USER x\r\n");
        control
    }

    pub(super) fn line(&mut self, talk: &mut Talk<'_>, from: usize, text: &str) {
        let end = if from == 0 { Client } else { Server };
        let packet = talk.segment(end, self.next[from], self.next[1 - from]).ack().payload(text.as_bytes());
        talk.send(end, &packet, &format!("{end:?} says {text:?}"));
        self.next[from] += i64::try_from(text.len()).unwrap();
    }
}

/// A connection to a port of one end, from the other and from a third.
fn tried(talk: &mut Talk<'_>, to_client: bool, port: u16) {
    let (client, server) = talk.addresses(Client);
    let (from, to, end) = if to_client { (server, client, Server) } else { (client, server, Client) };
    if !talk.six {
        talk.send(
            end,
            &tcp(Ipv4Addr::new(10, 0, 0, 9), if to_client { CLIENT } else { SERVER }).ports(20, port).syn(),
            "data from a third",
        );
    }
    for source in [20, 21_000] {
        let syn = tcp(from, to).ports(source, port).numbers(7, 0).syn();
        talk.send(end, &syn, &format!("data to {port} from {source}"));
        let back = if end == Client { Server } else { Client };
        talk.send(back, &tcp(to, from).ports(port, source).numbers(9, 8).syn_ack(), "data answered");
        talk.send(end, &tcp(from, to).ports(source, port).numbers(8, 10).ack(), "data acknowledged");
    }
}

#[test]
fn ftp_is_helped_as_the_kernel_helps_it() {
    let client_lines = [
        "PORT 10,0,0,1,7,208\r\n",
        "port 10,0,0,1,7,208\r\n",
        "PORT 10,0,0,9,7,208\r\n",
        "PORT 10,0,0,1,7,208\n",
        "PORT 10,0,0,1,7,208",
        "PORT 10,0,0,1,7\r\n",
        "PORT 10,0,0,1,7,208,9\r\n",
        "PORT  10,0,0,1,7,208\r\n",
        "PORT 10,0,0,1,300,208\r\n",
        "PORT 10,0,0,257,7,208\r\n",
        "EPRT |1|10.0.0.1|2000|\r\n",
        "EPRT |1|10.0.0.9|2000|\r\n",
        "EPRT |2|fd00::1|2000|\r\n",
        "EPRT |2|fd00::9|2000|\r\n",
        "EPRT !1!10.0.0.1!2000!\r\n",
        "EPRT |1|10.0.0.1|0|\r\n",
        "EPRT |1|10.0.0.1|70000|\r\n",
        "EPRT |1|10.0.0.1|2000\r\n",
        "EPRT |1|10.0.0|2000|\r\n",
        "EPRT 1110.0.0.11200011\r\n",
        "EPRT\r\n",
        "EPR",
        "PORT",
        "P",
        "PORT \r\n",
        "227 (10,0,0,1,7,208)\r\n",
        "NOOP\r\nPORT 10,0,0,1,7,208\r\n",
        "PORTX 10,0,0,1,7,208\r\n",
        "PORT 10,0,0,1,7,208\r\nNOOP\r\n",
        "PORT 10,0,0,1,0,0\r\n",
        "PORT 10,0,0,1,11,183\r\n",
    ];
    let server_lines = [
        "227 Entering Passive Mode (10,0,0,2,7,208).\r\n",
        "227 10,0,0,2,7,208\r\n",
        "227 Entering (10,0,0,9,7,208)\r\n",
        "227 (10,0,0,2,7,208",
        "227 (10,0,0,2,7)\r\n",
        "227 no\r\n",
        "229 ok (|||2000|)\r\n",
        "229 ok (|||2000)\r\n",
        "229 ok (||2000|)\r\n",
        "229 ok |||2000|\r\n",
        "229 ok (!!!2000!)\r\n",
        "229 ok (|||0|)\r\n",
        "229",
        "22",
        "227",
        "PORT 10,0,0,2,7,208\r\n",
        "220-227 (10,0,0,2,7,208)\r\n",
    ];
    let scenario = |six: bool| {
        move |talk: &mut Talk<'_>| {
            talk.six = six;
            for (lines, from) in [(&client_lines[..], 0), (&server_lines[..], 1)] {
                for line in lines {
                    let mut control = Control::open(talk);
                    control.line(talk, from, line);
                    talk.stage.compare_expectations();
                    tried(talk, from == 0, 2000);
                    tried(talk, from == 0, 2999);
                    let end = if from == 0 { Client } else { Server };
                    // The connection ends, so that what it announced does not disturb the next one.
                    talk.says(end, "R", control.next[from], 0, 0);
                    talk.says(
                        end,
                        "R",
                        1 + control.next[from] - i64::try_from(line.len()).unwrap() - 1,
                        0,
                        0,
                    );
                    talk.again();
                    talk.ports.0 += 2;
                    talk.stage.forget();
                }
            }
        }
    };
    let order = |talk: &mut Talk<'_>| {
        let mut control = Control::open(talk);
        control.line(talk, 0, "PORT 10,0,0,1,7,208\r\n");
        control.line(talk, 0, "PORT 10,0,0,1,7,209\r\n");
        talk.stage.compare_expectations();
        tried(talk, true, 2000);
        tried(talk, true, 2001);
        control.line(talk, 0, "PORT 10,0,0,1,7,210\r\n");
        talk.says(Server, "FA", control.next[1], control.next[0], 0);
        tried(talk, true, 2002);
        talk.again();
        // Split over segments, then sent again as a whole; and a first line that is not read.
        let mut control = Control::open(talk);
        let before = control.next;
        control.line(talk, 0, "PORT 10,0,");
        control.next = before;
        control.line(talk, 0, "PORT 10,0,0,1,7,211\r\n");
        tried(talk, true, 2003);
        talk.again();
        talk.opens();
        let mut control = Control { next: [1, 1] };
        control.line(talk, 0, "PORT 10,0,0,1,7,212\r\n");
        tried(talk, true, 2004);
        control.line(talk, 0, "PORT 10,0,0,1,7,212\r\n");
        tried(talk, true, 2004);
        // Not at the start of a line, and sent twice.
        control.line(talk, 0, "NOOP");
        control.line(talk, 0, "PORT 10,0,0,1,7,213\r\n");
        tried(talk, true, 2005);
        let again = control.next;
        control.line(talk, 0, "PORT 10,0,0,1,7,214\r\n");
        tried(talk, true, 2006);
        control.next = again;
        control.line(talk, 0, "PORT 10,0,0,1,7,214\r\n");
        tried(talk, true, 2006);
    };
    let tftp = |talk: &mut Talk<'_>| {
        let answer = |port| udp(SERVER, CLIENT).ports(port, 4000).payload(b"\0\x03\0\x01");
        for request in
            [&b"\0\x01file\0octet\0"[..], b"\0\x02file\0octet\0", b"\0\x03\0\0", b"\0\x01", b"\0", b""]
        {
            talk.send(
                Client,
                &udp(CLIENT, SERVER).ports(4000, 69).payload(request),
                &format!("request {request:?}"),
            );
            talk.stage.compare_expectations();
            for port in [5000, 5000, 5001] {
                talk.send(Server, &answer(port), &format!("answer from {port}"));
            }
            talk.send(Client, &udp(CLIENT, SERVER).ports(4000, 5000), "acknowledged");
            talk.stage.forget();
        }
    };
    let with = Setting { v4: FTP, v6: FTP, sysctls: &[] };
    perform(&[
        ("lines, ipv4", with, &scenario(false)),
        ("lines, ipv6", with, &scenario(true)),
        ("order", with, &order),
        ("tftp", with, &tftp),
    ]);
}

#[test]
fn raw_and_mangle_mean_what_they_mean_to_the_kernel() {
    let talk_udp = |talk: &mut Talk<'_>| {
        for (sport, dport) in [(1, 53), (2, 54), (3, 55), (4, 56), (5, 57), (6, 58), (7, 59)] {
            for round in 0..3 {
                talk.send(
                    Client,
                    &udp(CLIENT, SERVER).ports(sport, dport),
                    &format!("{sport} to {dport}, {round}"),
                );
                talk.send(
                    Server,
                    &udp(SERVER, CLIENT).ports(dport, sport).payload(&[1; 200]),
                    &format!("{dport} to {sport}, {round}"),
                );
            }
        }
        talk.stage.compare_lists();
    };
    let tables = [
        (
            "notrack",
            "*raw\n-A PREROUTING -p udp --dport 53 -j NOTRACK\n-A PREROUTING -p udp --dport 54 -j CT --notrack\n-A PREROUTING -p udp --sport 54 -j NOTRACK\n-A PREROUTING -p udp --dport 55 -j DROP\nCOMMIT\n",
        ),
        (
            "first order counts",
            "*raw\n-A PREROUTING -p udp --dport 53 -j CT\n-A PREROUTING -p udp -j NOTRACK\nCOMMIT\n",
        ),
        (
            "marks",
            "*mangle\n-A PREROUTING -p udp --dport 53 -j CONNMARK --set-mark 5\n-A PREROUTING -p udp --dport 54 -j MARK --set-mark 0x33\n-A PREROUTING -j CONNMARK --save-mark --mask 0xf0\n-A FORWARD -j CONNMARK --restore-mark\n-A FORWARD -p udp --sport 55 -j CONNMARK --or-mark 0x100\nCOMMIT\n*filter\n-A FORWARD -m connmark --mark 0x30/0xf0 -p udp --sport 54 -j DROP\n-A FORWARD -m mark --mark 5 -p udp --dport 1 -j DROP\nCOMMIT\n",
        ),
        (
            "marks under chains",
            "*filter\n:A - [0:0]\n-A FORWARD -m mark --mark 0 -j A\n-A FORWARD -m mark --mark 7 -p udp --dport 53 -j DROP\n-A A -j MARK --set-mark 7\n-A A -p udp --dport 54 -m mark --mark 7 -j DROP\n-A A -m mark --mark 0 -j DROP\nCOMMIT\n",
        ),
        (
            "conntrack",
            "*filter\n-A FORWARD -m conntrack --ctstate ESTABLISHED --ctdir REPLY --ctorigdstport 53 -j DROP\n-A FORWARD -m conntrack --ctstatus ASSURED -j DROP\n-A FORWARD -m conntrack --ctstatus SEEN_REPLY --ctrepldstport 2 --ctproto udp -j DROP\n-A FORWARD -m conntrack --ctorigsrc 10.0.0.2 -j DROP\n-A FORWARD -m conntrack ! --ctstatus CONFIRMED -p udp --dport 56 -j DROP\n-A FORWARD -m conntrack --ctexpire 1:100 -p udp --dport 57 -j DROP\n-A FORWARD -m conntrack --ctstate INVALID --ctdir REPLY -j DROP\nCOMMIT\n",
        ),
        (
            "connbytes",
            "*filter\n-A FORWARD -p udp --dport 53 -m connbytes --connbytes 3 --connbytes-dir original --connbytes-mode packets -j DROP\n-A FORWARD -p udp --sport 54 -m connbytes --connbytes 300:500 --connbytes-dir reply --connbytes-mode bytes -j DROP\n-A FORWARD -m connbytes --connbytes 100:150 --connbytes-dir both --connbytes-mode avgpkt -p udp --dport 55 -j DROP\nCOMMIT\n",
        ),
        (
            "connbytes of one value",
            "*filter\n-A FORWARD -p udp --dport 53 -m connbytes ! --connbytes 2:2 --connbytes-dir original --connbytes-mode packets -j DROP\n-A FORWARD -p udp --dport 54 -m connbytes --connbytes 0:0 --connbytes-dir reply --connbytes-mode packets -j DROP\n-A FORWARD -p udp --dport 55 -m connbytes ! --connbytes 0:0 --connbytes-dir reply --connbytes-mode packets -j DROP\nCOMMIT\n",
        ),
        (
            "connlimit",
            "*filter\n-A FORWARD -p udp --sport 1:10 -m connlimit --connlimit-above 3 -j DROP\nCOMMIT\n",
        ),
        (
            "mangle drops",
            "*mangle\n:POSTROUTING DROP\n-A PREROUTING -p udp --dport 53 -j ACCEPT\n-A PREROUTING -p udp --dport 54 -j DROP\n-A FORWARD -p udp --dport 56 -j DROP\n-A POSTROUTING -p udp --dport 57 -j RETURN\n-A POSTROUTING -p udp ! --dport 58 -j ACCEPT\nCOMMIT\n",
        ),
        (
            "zones",
            "*raw\n-A PREROUTING -p udp --dport 53 -j CT --zone 5\n-A PREROUTING -p udp --sport 54 -j CT --zone 6\n-A PREROUTING -p udp --dport 54 -j CT --zone 6\n-A PREROUTING -p udp --dport 55 -j CT --zone-orig 7\n-A PREROUTING -p udp --dport 56 -j CT --zone-reply 8\nCOMMIT\n",
        ),
        (
            "zones of marks",
            "*raw\n-A PREROUTING -p udp --dport 53 -j CT --zone mark\n-A PREROUTING -p udp --dport 53 -j MARK --set-mark 0x70005\n-A PREROUTING -p udp --dport 54 -j MARK --set-mark 6\n-A PREROUTING -j CT --zone-orig mark\nCOMMIT\n",
        ),
        (
            "marks of raw rules",
            "*raw\n-A PREROUTING -p udp --dport 53 -j MARK --set-mark 5\n-A PREROUTING -p udp --sport 54 -j MARK --set-mark 6\nCOMMIT\n*filter\n-A FORWARD -m mark --mark 5 -j DROP\n-A FORWARD -m mark --mark 6 -j DROP\nCOMMIT\n",
        ),
        (
            "timeouts of datagrams",
            "*raw\n-A PREROUTING -p udp --dport 53 -j CT --timeout dns\n-A PREROUTING -p udp --sport 54 -j CT --timeout dns\nCOMMIT\n",
        ),
    ];
    let scenarios: Vec<Scenario<'_>> = tables
        .iter()
        .map(|&(name, v4)| (name, Setting { v4, ..PLAIN }, &talk_udp as &dyn Fn(&mut Talk<'_>)))
        .collect();
    perform(&scenarios);
}

/// Every state of a connection under a timeout policy, each with its timer.
#[test]
fn timeout_policies_hold_for_the_connections_that_rules_give_them_to() {
    let v4 = "*raw\n-A PREROUTING -p tcp --dport 80:81 -j CT --timeout fast\n-A PREROUTING -p icmp -j CT --timeout echo\n-A PREROUTING -p 99 -j CT --timeout rest\nCOMMIT\n*filter\n-A FORWARD -p tcp --dport 81 --tcp-flags ALL PSH,ACK -j REJECT --reject-with tcp-reset\nCOMMIT\n";
    let life: &[(_, &str, i64, i64)] = &[
        (Client, "S", 0, 0),
        (Server, "SA", 0, 1),
        (Client, "A", 1, 1),
        (Client, "AP", 1, 1),
        (Server, "A", 1, 11),
        (Client, "FA", 11, 1),
        (Server, "A", 1, 12),
        (Server, "FA", 1, 12),
        (Client, "A", 12, 2),
        // Reopened, and reset.
        (Client, "S", 100_000, 0),
        (Server, "RA", 0, 100_001),
    ];
    let tcp_life = |talk: &mut Talk<'_>| {
        for port in [80, 81, 82] {
            talk.ports.1 = port;
            for &(end, flags, seq, ack) in life {
                talk.says(end, flags, seq, ack, if flags == "AP" { 10 } else { 0 });
                talk.stage.compare_lists();
            }
            for _ in 0..5 {
                talk.says(Client, "A", 12, 2, 10);
            }
            talk.stage.compare_lists();
            talk.ports.0 += 1;
        }
    };
    let others = |talk: &mut Talk<'_>| {
        talk.send(Client, &ping(CLIENT, SERVER, 5), "ping");
        talk.send(Client, &ip(CLIENT, SERVER, 99), "99");
        talk.send(Client, &ip(CLIENT, SERVER, 98), "98");
        talk.stage.compare_lists();
        talk.send(Server, &pong(SERVER, CLIENT, 5), "pong");
        talk.send(Server, &ip(SERVER, CLIENT, 99), "99 back");
        talk.stage.compare_lists();
    };
    let setting = Setting { v4, ..PLAIN };
    perform(&[("tcp", setting, &tcp_life), ("others", setting, &others)]);
}

/// Flag sets that are rejected once a connection is open, each of a port of its own, from 1 on.
const REJECTED: [&str; 11] = ["S", "SA", "A", "AP", "APU", "FA", "R", "RA", "", "SFRA", "F"];

fn rejecting() -> String {
    let mut rules = String::from("*filter\n");
    for (flags, port) in REJECTED.iter().zip(1..) {
        let names = [('S', "SYN"), ('F', "FIN"), ('R', "RST"), ('A', "ACK"), ('P', "PSH"), ('U', "URG")];
        let set: Vec<&str> =
            names.iter().filter(|(letter, _)| flags.contains(*letter)).map(|(_, name)| *name).collect();
        let set = if set.is_empty() { "NONE".to_owned() } else { set.join(",") };
        for side in ["sport", "dport"] {
            rules.push_str(&format!(
                "-A FORWARD -p tcp -m tcp --{side} {port} --tcp-flags ALL {set} -m conntrack --ctstatus ASSURED -j REJECT --reject-with tcp-reset\n"
            ));
        }
    }
    rules
        + "-A FORWARD -p tcp -m tcp --sport 99 --syn -m connbytes --connbytes 2 --connbytes-dir original --connbytes-mode packets -j REJECT --reject-with tcp-reset\nCOMMIT\n"
}

#[test]
fn a_reset_by_reject_closes_the_connection() {
    let scenario = |six: bool| {
        move |talk: &mut Talk<'_>| {
            talk.six = six;
            let mut talks = Vec::new();
            for (flags, port) in REJECTED.iter().zip(1..) {
                for (from, seq) in [(Client, 1), (Server, 1), (Client, 50), (Server, 50)] {
                    talks.push((flags, (port, 80 + u16::try_from(talks.len()).unwrap()), from, seq));
                }
            }
            for &(flags, ports, from, seq) in &talks {
                talk.ports = ports;
                talk.opens();
                talk.says(from, flags, seq, 1, 10);
            }
            talk.stage.compare_lists();
            for &(flags, ports, from, _) in &talks {
                talk.ports = ports;
                let broken = talk.segment(from, 1, 1).flags(super::talk::flag_bits(flags));
                talk.send(from, &broken.bad_checksum(), "bad checksum");
            }
            talk.stage.compare_lists();
            // What follows meets what is left.
            for &(_, ports, _, _) in &talks {
                talk.ports = ports;
                talk.says(Client, "AU", 1, 1, 0);
                talk.says(Server, "AU", 1, 1, 0);
                talk.says(Client, "SU", 900, 0, 0);
            }
            talk.stage.compare_lists();
            talk.ports.1 = 80;
            // A connection that is not answered yet.
            talk.ports.0 = 99;
            talk.says(Client, "S", 0, 0, 0);
            talk.says(Client, "S", 0, 0, 0);
            talk.stage.compare_lists();
            talk.says(Server, "SA", 0, 1, 0);
            talk.stage.compare_lists();
        }
    };
    let reset = rejecting();
    let unchecked: &[(&str, &str)] = &[("checksum", "0")];
    perform(&[
        ("reset", Setting { v4: &reset, ..PLAIN }, &scenario(false)),
        ("reset, ipv6", Setting { v6: &reset, ..PLAIN }, &scenario(true)),
        ("reset, unchecked", Setting { v4: &reset, sysctls: unchecked, ..PLAIN }, &scenario(false)),
    ]);
}
