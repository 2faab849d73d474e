//! `-m connlimit`: what counts, under what, for how long. Packets keep a distance: the kernel counts for one tick of its
//! clock what it has refused or seen closed within it.

use super::stage::Setting;
use super::talk::{CLIENT, Client, End, SERVER, Server, Talk, perform};
use dataplane::packet::proto;
use dataplane::testing::packets::{ip, ping, udp};

const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

/// More than two ticks of ours and of the kernel's.
const APART: f64 = 0.025;

fn says(talk: &mut Talk<'_>, from: End, port: u16, flags: &str, (seq, ack): (i64, i64)) {
    talk.ports.0 = port;
    talk.says(from, flags, seq, ack, 0);
    talk.waits(APART);
}

/// SYNs of a client, a connection each.
fn syns(talk: &mut Talk<'_>, ports: impl IntoIterator<Item = u16>) {
    for port in ports {
        says(talk, Client, port, "S", (0, 0));
    }
}

fn datagram(talk: &mut Talk<'_>, from: End, sport: u16, dport: u16) {
    let (src, dst) = talk.addresses(from);
    talk.send(from, &udp(src, dst).ports(sport, dport), &format!("{from:?} {sport} to {dport}"));
    talk.waits(APART);
}

#[test]
fn who_counts_and_under_what() {
    let invalid = |six: bool| {
        move |talk: &mut Talk<'_>| {
            talk.six = six;
            syns(talk, 1..=4);
            talk.ports.0 = 9;
            let broken = talk.segment(Client, 0, 0).syn().bad_checksum();
            talk.send(Client, &broken, "SYN with a bad checksum");
            syns(talk, 5..=7);
        }
    };
    let only_syns =
        "*filter\n-A FORWARD -p tcp -m tcp --syn -m connlimit --connlimit-above 2 -j DROP\nCOMMIT\n";
    // Whatever belongs to a connection, is about it, or only looks like it.
    let whatever = |talk: &mut Talk<'_>| {
        says(talk, Client, 1, "S", (0, 0));
        says(talk, Client, 1, "F", (1, 1));
        says(talk, Client, 2, "SA", (0, 1));
        syns(talk, [3]);
        says(talk, Server, 1, "F", (1, 1));
        // Under the server's address now: its answers, and what it opens itself.
        for port in [8, 9] {
            datagram(talk, Server, port, 99);
        }
        says(talk, Server, 1, "SA", (0, 1));
        datagram(talk, Server, 10, 99);
        says(talk, Client, 1, "A", (1, 1));
        talk.send(Client, &ping(CLIENT, SERVER, 4), "ping");
        talk.waits(APART);
        syns(talk, [4, 5]);
        talk.stage.forget();
        syns(talk, [7, 8]);
    };
    // Closed by a reset, closed by both, opened again. Somebody else is always there.
    let closing = |talk: &mut Talk<'_>| {
        for port in [1, 2] {
            says(talk, Client, port, "S", (0, 0));
            says(talk, Server, port, "SA", (0, 1));
            says(talk, Client, port, "A", (1, 1));
        }
        syns(talk, [3]);
        says(talk, Client, 1, "R", (1, 0));
        says(talk, Client, 1, "R", (1, 0));
        syns(talk, [4, 5]);
        says(talk, Client, 2, "FA", (1, 1));
        syns(talk, [6]);
        says(talk, Server, 2, "FA", (1, 2));
        says(talk, Client, 2, "A", (2, 2));
        syns(talk, [7, 8]);
        says(talk, Client, 2, "A", (2, 2));
        says(talk, Client, 2, "S", (1_000, 0));
        syns(talk, [1]);
    };
    let two = "*filter\n-A FORWARD -s 10.0.0.1 -m connlimit --connlimit-above 2 -j DROP\nCOMMIT\n";
    let all = "*filter\n-A FORWARD -m connlimit --connlimit-above 1 -j DROP\nCOMMIT\n";
    let upto = "*filter\n-A FORWARD -m connlimit --connlimit-upto 1 -j DROP\nCOMMIT\n";
    let by_network = "*filter\n-A FORWARD -m connlimit --connlimit-above 1 --connlimit-mask 24 --connlimit-daddr -j DROP\nCOMMIT\n";
    // Known to the tracker before the rule meets them.
    let met_later = "*filter\n-A FORWARD -p tcp -m tcp --tcp-flags ALL ACK -m connlimit --connlimit-above 1 -j DROP\nCOMMIT\n";
    let later = |talk: &mut Talk<'_>| {
        for port in 1..=3 {
            says(talk, Client, port, "S", (0, 0));
            says(talk, Server, port, "SA", (0, 1));
        }
        for port in [1, 1, 2, 3, 2, 1] {
            says(talk, Client, port, "A", (1, 1));
        }
    };
    let untracked = "*raw\n-A PREROUTING -p tcp -m tcp --tcp-flags ALL ACK -j NOTRACK\n-A PREROUTING -p tcp -m tcp --sport 50:59 -j NOTRACK\nCOMMIT\n*filter\n-A FORWARD -p tcp -m connlimit --connlimit-above 1 -j DROP\nCOMMIT\n";
    let past_the_tracker = |talk: &mut Talk<'_>| {
        syns(talk, [1]);
        says(talk, Client, 1, "A", (1, 1));
        syns(talk, [2, 50, 51]);
        says(talk, Client, 1, "A", (1, 1));
        says(talk, Server, 1, "A", (1, 1));
        for port in [8, 9] {
            talk.ports = (port, 80);
            says(talk, Server, port, "S", (0, 0));
        }
    };
    perform(&[
        ("invalid", Setting { v4: only_syns, ..PLAIN }, &invalid(false)),
        ("invalid, ipv6", Setting { v6: only_syns, ..PLAIN }, &invalid(true)),
        ("all packets", Setting { v4: all, ..PLAIN }, &whatever),
        ("up to", Setting { v4: upto, ..PLAIN }, &whatever),
        ("by network", Setting { v4: by_network, ..PLAIN }, &whatever),
        ("closing", Setting { v4: two, ..PLAIN }, &closing),
        ("met later", Setting { v4: met_later, ..PLAIN }, &later),
        ("untracked", Setting { v4: untracked, ..PLAIN }, &past_the_tracker),
    ]);
}

#[test]
fn zones_are_counted_apart_and_raw_rules_count_by_the_tuple() {
    let zones = "*raw\n-A PREROUTING -p udp -m udp --dport 54 -j CT --zone 5\n-A PREROUTING -p udp -m udp --dport 55 -j CT --zone-orig 5\n-A PREROUTING -p udp -m udp --dport 56 -j CT --zone-reply 5\n-A PREROUTING -p udp -m udp --dport 57 -j CT --zone mark\n-A PREROUTING -p udp -m udp --dport 57 -j MARK --set-mark 5\nCOMMIT\n*filter\n-A FORWARD -p udp -m connlimit --connlimit-above 2 -j DROP\nCOMMIT\n";
    let in_zones = |talk: &mut Talk<'_>| {
        for dport in [54, 53, 55, 56, 57, 53] {
            for sport in 1..=3 {
                datagram(talk, Client, sport, dport);
            }
        }
    };
    let raw = |limit: u32| {
        format!(
            "*raw\n-A PREROUTING -p udp -m udp --sport 1:999 -m connlimit --connlimit-above {limit} -j DROP\n-A PREROUTING -p udp -m udp --sport 5 -j CT --zone 7\n-A PREROUTING -p udp -m udp --sport 6:7 -j NOTRACK\nCOMMIT\n*filter\n-A FORWARD -p udp -m udp --sport 8 -j DROP\n-A FORWARD -p udp -m connlimit --connlimit-above 100 -j DROP\nCOMMIT\n"
        )
    };
    let in_raw = |talk: &mut Talk<'_>| {
        // The kernel tidies an address's list while it looks for another's if a hash, random at each boot, has put both into
        // one tree: so the client is not asked about again once the server was.
        for sport in [1, 2, 1, 2, 5, 1, 8, 5, 6, 7, 1, 3, 2, 4, 3, 2] {
            datagram(talk, Client, sport, 80);
        }
        // Two of its tuples are the server's answers.
        for (sport, dport) in [(80, 1), (9, 9), (80, 2), (10, 9), (80, 1)] {
            datagram(talk, Server, sport, dport);
        }
    };
    // Behind an order to the tracker the template is what is asked.
    let behind_orders = "*raw\n-A PREROUTING -p udp -m udp --dport 54 -j CT --zone 5\n-A PREROUTING -p udp -m udp --dport 55 -j NOTRACK\n-A PREROUTING -p udp -m connlimit --connlimit-above 2 -j DROP\nCOMMIT\n";
    let limits = [1, 2, 3].map(raw);
    perform(&[
        ("zones", Setting { v4: zones, ..PLAIN }, &in_zones),
        ("raw, above 1", Setting { v4: &limits[0], ..PLAIN }, &in_raw),
        ("raw, above 2", Setting { v4: &limits[1], ..PLAIN }, &in_raw),
        ("raw, above 3", Setting { v4: &limits[2], ..PLAIN }, &in_raw),
        ("raw, behind orders", Setting { v4: behind_orders, ..PLAIN }, &in_zones),
    ]);
}

#[test]
fn a_rule_counts_what_its_conditions_before_let_through() {
    let rule = |conditions: &str| format!("*filter\n-A FORWARD {conditions} -j DROP\nCOMMIT\n");
    let tables = [
        rule("-p tcp -m connlimit --connlimit-above 2 -m tcp --dport 80"),
        rule("-p tcp -m tcp --dport 80 -m connlimit --connlimit-above 2"),
        rule("-p tcp -m connlimit --connlimit-above 2 -m multiport --dports 80,82"),
        rule("-p tcp -m connlimit --connlimit-above 2 -m tcp --syn -m conntrack --ctstate NEW"),
        rule("-p tcp -m connlimit --connlimit-above 2 -m connlimit --connlimit-above 3"),
        rule("-p tcp -m conntrack --ctstate ESTABLISHED -m connlimit --connlimit-above 0"),
        rule("-p tcp -m connlimit --connlimit-above 2 -m mark ! --mark 0"),
        "*filter\n:A - [0:0]\n-A FORWARD -p tcp -m connlimit --connlimit-above 2 -m tcp --dport 80 -j A\n-A A -p tcp -m tcp --syn -j DROP\nCOMMIT\n".to_owned(),
    ];
    let scenario = |talk: &mut Talk<'_>| {
        for (port, server) in [(1, 81), (2, 81), (3, 81), (4, 80), (5, 80), (1, 81), (6, 82), (7, 80)] {
            talk.ports.1 = server;
            syns(talk, [port]);
        }
        says(talk, Server, 7, "SA", (0, 1));
        says(talk, Client, 7, "A", (1, 1));
    };
    let names: Vec<String> = (0..tables.len()).map(|number| format!("order {number}")).collect();
    let scenarios: Vec<_> = tables
        .iter()
        .zip(&names)
        .map(|(v4, name)| (name.as_str(), Setting { v4, ..PLAIN }, &scenario as &dyn Fn(&mut Talk<'_>)))
        .collect();
    perform(&scenarios);
}

#[test]
fn so_many_ended_connections_are_forgotten_at_a_time_and_those_behind_who_asks_are_not() {
    // Counts all, drops few: those to port 99 and 98 see how many there are.
    let v4 =
        "*filter\n-A FORWARD -p udp -m connlimit --connlimit-upto 30 -m udp --dport 99 -j DROP\nCOMMIT\n";
    let many = |talk: &mut Talk<'_>| {
        for sport in 1..=100 {
            let packet = udp(CLIENT, SERVER).ports(sport, 53);
            talk.send(Client, &packet, &format!("{sport}"));
        }
        talk.stage.forget();
        for sport in 1000..1003 {
            datagram(talk, Client, sport, 99);
        }
    };
    let v4_few = "*filter\n-A FORWARD -p udp -m multiport --dports 53 -m connlimit --connlimit-above 3 -m udp --sport 1:9 -j DROP\nCOMMIT\n";
    let short =
        Setting { v4: v4_few, sysctls: &[("udp_timeout", "1"), ("udp_timeout_stream", "9")], ..PLAIN };
    let behind = |talk: &mut Talk<'_>| {
        for sport in 1..=3 {
            datagram(talk, Client, sport, 53);
        }
        talk.waits(0.6);
        datagram(talk, Client, 2, 53);
        talk.waits(0.6);
        // Only the second lives; asked itself it gives up what stands before it.
        datagram(talk, Client, 2, 53);
        datagram(talk, Client, 4, 53);
        datagram(talk, Client, 5, 53);
        datagram(talk, Client, 6, 53);
        datagram(talk, Client, 2, 53);
    };
    perform(&[("many", Setting { v4, ..PLAIN }, &many), ("behind", short, &behind)]);
}

#[test]
fn who_cannot_be_counted_is_dropped() {
    let asked = |connlimit: &str| {
        format!(
            "*raw\n{connlimit}COMMIT\n*filter\n-A FORWARD -m conntrack --ctstate NEW -p udp -m udp --dport 77 -j DROP\n-A FORWARD -m connlimit --connlimit-above 1000 -j DROP\n-A FORWARD -j ACCEPT\nCOMMIT\n"
        )
    };
    let tables = [
        asked(""),
        asked("-A PREROUTING -m connlimit --connlimit-above 1000 -j ACCEPT\n"),
        asked("-A PREROUTING -j NOTRACK\n"),
        asked("-A PREROUTING -j CT\n-A PREROUTING -m connlimit --connlimit-above 1000 -j ACCEPT\n"),
        // Asked only by the way, and of some.
        "*filter\n:A - [0:0]\n-A FORWARD -m connlimit --connlimit-above 1000 -j A\n-A FORWARD -j ACCEPT\n-A A -j DROP\nCOMMIT\n".to_owned(),
        "*filter\n-A FORWARD -p udp -m connlimit --connlimit-above 1000 -m udp --dport 1 -j DROP\nCOMMIT\n".to_owned(),
    ];
    let icmp = |six: bool| if six { proto::ICMPV6 } else { proto::ICMP };
    let scenario = |six: bool| {
        move |talk: &mut Talk<'_>| {
            talk.six = six;
            let (client, server) = talk.addresses(Client);
            for protocol in
                [proto::UDP, proto::TCP, proto::UDPLITE, proto::SCTP, icmp(six), proto::GRE, proto::ESP]
            {
                for len in [0, 1, 2, 3, 4, 5, 7, 8, 12, 19] {
                    let bytes = [&[8, 0, 0xf7, 0xff, 0][..], &[0; 15]].concat();
                    let packet = ip(client, server, protocol).payload(&bytes[..len]);
                    talk.send(Client, &packet, &format!("protocol {protocol} cut to {len}"));
                }
            }
            let pptp = ip(client, server, proto::GRE).payload(&[0x30, 1, 0x88, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
            talk.send(Client, &pptp, "gre of pptp's version without ppp");
            if six {
                talk.send(Client, &ip(client, server, proto::NONE).payload(&[0; 8]), "no next header");
                talk.send(Client, &ip(client, server, proto::DST_OPTS).payload(&[17]), "header cut");
            }
        }
    };
    let (four, six) = (scenario(false), scenario(true));
    let mut scenarios: Vec<super::talk::Scenario<'_>> = Vec::new();
    for table in &tables {
        scenarios.push(("ipv4", Setting { v4: table, ..PLAIN }, &four));
        scenarios.push(("ipv6", Setting { v6: table, ..PLAIN }, &six));
    }
    perform(&scenarios);
}
