//! Events: what `conntrack -E` tells of a conversation, and what `fwctl flows -E` does.

use super::stage::Setting;
use super::talk::{CLIENT, CLIENT6, Client, SERVER, SERVER6, Server, Talk, perform};
use control::cli::{Format, Output};
use dataplane::testing::packets::{icmp_error, ip, ping, pong, tcp, udp};

const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

const BARE: Output = Output {
    format: Format::Line,
    extended: false,
    id: false,
    timestamp: false,
    ktimestamp: false,
    labels: false,
};
const FULL: Output = Output { extended: true, id: true, timestamp: true, ..BARE };
const SAVE: Output = Output { format: Format::Save, ..BARE };
const XML: Output = Output { format: Format::Xml, timestamp: true, ..BARE };

/// A connection from its first packet to its last, and again from there.
fn tcp_life(talk: &mut Talk<'_>) {
    talk.opens();
    talk.says(Client, "AP", 1, 1, 10);
    talk.says(Server, "A", 1, 11, 0);
    talk.says(Client, "FA", 11, 1, 0);
    talk.says(Server, "FA", 1, 12, 0);
    talk.says(Client, "A", 12, 2, 0);
    // Reopened, and reset.
    talk.says(Client, "S", 100_000, 0, 0);
    talk.says(Server, "SA", 200_000, 100_001, 0);
    talk.says(Client, "A", 100_001, 200_001, 0);
    talk.says(Client, "RA", 100_001, 200_001, 0);
    talk.again();
    // Refused.
    talk.says(Client, "S", 0, 0, 0);
    talk.says(Client, "S", 0, 0, 0);
    talk.says(Server, "RA", 0, 1, 0);
    talk.again();
    // From the middle, and from both sides at once.
    talk.says(Client, "A", 1, 1, 0);
    talk.says(Server, "A", 1, 1, 0);
    talk.again();
    talk.says(Client, "S", 0, 0, 0);
    talk.says(Server, "S", 0, 0, 0);
    talk.says(Client, "SA", 0, 1, 0);
    talk.says(Server, "SA", 0, 1, 0);
    talk.says(Client, "A", 1, 1, 0);
}

fn datagrams(talk: &mut Talk<'_>) {
    for round in 0..3 {
        for port in 53..58 {
            talk.send(Client, &udp(CLIENT, SERVER).ports(port, port), &format!("to {port}, {round}"));
            talk.send(Server, &udp(SERVER, CLIENT).ports(port, port), &format!("from {port}, {round}"));
        }
        talk.send(Client, &udp(CLIENT6, SERVER6).ports(53, 53), "to 53, ipv6");
        talk.send(Server, &udp(SERVER6, CLIENT6).ports(53, 53), "from 53, ipv6");
        talk.send(Client, &ping(CLIENT, SERVER, 5), "ping");
        talk.send(Server, &pong(SERVER, CLIENT, 5), "pong");
        talk.send(Client, &ip(CLIENT, SERVER, 99), "99");
        talk.send(Server, &ip(SERVER, CLIENT, 99), "99 back");
    }
    let about = udp(CLIENT, SERVER).ports(53, 53).build();
    talk.send(Server, &icmp_error(SERVER, CLIENT, 3, 1, &about, 28), "an error about 53");
}

#[test]
fn connections_tell_what_happens_to_them_as_conntrack_tells_it() {
    let over = |six: bool, options: &'static str, output: Output| {
        move |talk: &mut Talk<'_>| {
            talk.six = six;
            talk.stage.listen(options, output);
            tcp_life(talk);
            talk.stage.compare_events();
            talk.stage.forget();
            talk.stage.compare_events();
        }
    };
    let dropped = "\
*filter
-A FORWARD -p tcp --sport 81 --tcp-flags SYN,ACK SYN,ACK -j DROP
-A FORWARD -p tcp --tcp-flags FIN FIN -j DROP
-A FORWARD -p tcp --dport 82 --tcp-flags PSH PSH -j REJECT --reject-with tcp-reset
COMMIT
";
    let waits = |talk: &mut Talk<'_>| {
        talk.stage.listen("", BARE);
        // The answer is dropped, and so are the ends.
        talk.ports.1 = 81;
        talk.opens();
        talk.says(Client, "AP", 1, 1, 10);
        talk.says(Client, "FA", 11, 1, 0);
        talk.says(Server, "FA", 1, 12, 0);
        talk.stage.compare_events();
        talk.says(Client, "A", 12, 2, 0);
        talk.stage.compare_events();
        // A rule resets the connection. A router tells when the reset leaves, a bridge with the next packet.
        talk.ports.1 = 82;
        talk.opens();
        talk.says(Client, "AP", 1, 1, 100);
        talk.says(Server, "A", 1, 1, 0);
        talk.stage.compare_events();
        // The first packet is dropped: nobody hears of that connection.
        talk.again();
        talk.says(Client, "AP", 1, 1, 100);
        talk.stage.compare_events();
        talk.stage.forget();
        talk.stage.compare_events();
    };
    perform(&[
        ("ipv4", PLAIN, &over(false, "", BARE)),
        ("ipv6", PLAIN, &over(true, "-o timestamp,id,extended", FULL)),
        ("xml", PLAIN, &over(true, "-o xml,timestamp", XML)),
        ("save", PLAIN, &over(false, "-o save", SAVE)),
        ("dropped", Setting { v4: dropped, ..PLAIN }, &waits),
    ]);
}

#[test]
fn datagrams_marks_zones_and_timers_are_told_as_conntrack_tells_them() {
    let marks = "\
*raw
-A PREROUTING -p udp --dport 55 -j CT --zone 5
-A PREROUTING -p udp --sport 55 -j CT --zone 5
-A PREROUTING -p udp --dport 56 -j CT --zone-orig 6
-A PREROUTING -p udp --dport 57 -j CT --zone-reply 7
COMMIT
*mangle
-A PREROUTING -p udp --sport 53 -j CONNMARK --set-mark 0x11
-A PREROUTING -p udp --dport 54 -j CONNMARK --set-mark 0x22
-A PREROUTING -p udp --sport 54 -j CONNMARK --set-mark 0
-A PREROUTING -p icmp --icmp-type 3 -j CONNMARK --set-mark 0x33
COMMIT
";
    let listened = |options: &'static str, output: Output| {
        move |talk: &mut Talk<'_>| {
            talk.stage.listen(options, output);
            datagrams(talk);
            talk.stage.compare_forms();
            talk.stage.compare_events();
            talk.waits(2.3);
            datagrams(talk);
            talk.stage.compare_events();
            talk.stage.forget();
            talk.stage.compare_events();
        }
    };
    let short: &[(&str, &str)] = &[("udp_timeout", "1"), ("icmp_timeout", "1"), ("generic_timeout", "1")];
    let ends = |talk: &mut Talk<'_>| {
        talk.stage.listen("", BARE);
        talk.send(Client, &udp(CLIENT, SERVER).ports(1, 2), "to 2");
        talk.send(Client, &udp(CLIENT, SERVER).ports(1, 3), "to 3");
        talk.send(Server, &udp(SERVER, CLIENT).ports(3, 1), "from 3");
        talk.send(Client, &ping(CLIENT, SERVER, 5), "ping");
        talk.waits(1.3);
        // Whoever lists connections removes those whose time is up.
        talk.stage.compare_lists();
        talk.stage.compare_events();
    };
    perform(&[
        ("plain", Setting { v4: marks, ..PLAIN }, &listened("", BARE)),
        ("with all options", Setting { v4: marks, ..PLAIN }, &listened("-o id,extended,timestamp", FULL)),
        ("xml", Setting { v4: marks, ..PLAIN }, &listened("-o xml,timestamp", XML)),
        ("save", Setting { v4: marks, ..PLAIN }, &listened("-o save", SAVE)),
        ("timers", Setting { sysctls: short, ..PLAIN }, &ends),
    ]);
}

#[test]
fn helped_and_expected_connections_are_told_as_conntrack_tells_them() {
    let v4 = "\
*raw
-A PREROUTING -p tcp --dport 21 -j CT --helper ftp
-A PREROUTING -p udp --dport 69 -j CT --helper tftp
COMMIT
*mangle
-A PREROUTING -p tcp --dport 21 -j CONNMARK --set-mark 5
COMMIT
";
    let scenario = |talk: &mut Talk<'_>| {
        talk.ports.1 = 21;
        talk.opens();
        talk.send(Server, &talk.segment(Server, 1, 1).ack().payload(b"220 hi\r\n"), "220");
        talk.send(Client, &talk.segment(Client, 1, 9).ack().payload(b"NOOP\r\n"), "NOOP");
        let port = b"PORT 10,0,0,1,7,208\r\n";
        talk.send(Client, &talk.segment(Client, 7, 9).ack().payload(port), "PORT");
        talk.send(Server, &tcp(SERVER, CLIENT).ports(20, 2000).numbers(7, 0).syn(), "data");
        talk.send(Client, &tcp(CLIENT, SERVER).ports(2000, 20).numbers(9, 8).syn_ack(), "data answered");
        let request = udp(CLIENT, SERVER).ports(4000, 69).payload(b"\0\x01file\0octet\0");
        talk.send(Client, &request, "request");
        talk.send(Server, &udp(SERVER, CLIENT).ports(5000, 4000), "answer");
        talk.stage.compare_forms();
        talk.stage.compare_events();
        talk.stage.forget();
        talk.stage.compare_events();
    };
    let told = |options: &'static str, output: Output| {
        move |talk: &mut Talk<'_>| {
            talk.stage.listen(options, output);
            scenario(talk);
        }
    };
    let setting = Setting { v4, ..PLAIN };
    perform(&[
        ("helpers", setting, &told("", BARE)),
        ("helpers, xml", setting, &told("-o xml,timestamp", XML)),
        ("helpers, save", setting, &told("-o save", SAVE)),
    ]);
}
