//! Labels of connections: who has some, who is asked and what for, in which order, and how they are listed and told.

use super::stage::Setting;
use super::talk::{Client, Server, Talk, perform};
use control::cli::Output;
use dataplane::testing::packets::{icmp_error, udp};

const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

/// Each port has a question of its own.
const RULES: &str = "\
*raw
-A PREROUTING -p udp --dport 54 -j NOTRACK
-A PREROUTING -p udp --dport 58 -m connlabel --label 3 --set -j DROP
-A PREROUTING -p udp --dport 59 -m connlabel ! --label 3 --set -j DROP
-A PREROUTING -p udp --dport 60 -j CT --zone 3
-A PREROUTING -p udp --dport 60 -m connlabel --label 3 --set -j DROP
-A PREROUTING -p udp --dport 61 -j CT --zone 3
-A PREROUTING -p udp --dport 61 -m connlabel ! --label 3 --set -j DROP
COMMIT
*mangle
-A PREROUTING -p udp --dport 55 -m connlabel --label 127 --set
-A FORWARD -p udp --sport 55 -m connlabel --label 64 -m connlabel --label 65 --set
-A FORWARD -p udp --sport 55 -m connlabel --label 127 -m connlabel --label 64 --set -m connlabel --label 64
-A POSTROUTING -p udp --dport 56 -m connlabel ! --label 9 --set
COMMIT
*filter
:LABELLED - [0:0]
-A FORWARD -p udp --dport 53 -m connlabel --label 0 --set
-A FORWARD -p udp --sport 53 -m connlabel --label 0 -j DROP
-A FORWARD -p udp --dport 54 -m connlabel --label 1 --set -j DROP
-A FORWARD -p udp --sport 54 -m connlabel --label 1 -j DROP
-A FORWARD -p udp --dport 154 -m connlabel ! --label 1 --set -j LABELLED
-A FORWARD -p udp --sport 56 -m connlabel --label 9 -j DROP
-A FORWARD -p udp --dport 57 -m connlabel ! --label 2 --set -j DROP
-A FORWARD -p udp --sport 57 -m connlabel ! --label 2 -j DROP
-A FORWARD -p udp --dport 62 -m connlabel --label 62 --set -j LABELLED
-A FORWARD -p udp --dport 62 -m connlabel --label 63 -j DROP
-A FORWARD -p ICMP -m connlabel --label 127 -m connlabel --label 100 --set
-A FORWARD -p tcp --tcp-flags RST RST -m connlabel ! --label 77 --set
-A FORWARD -p tcp --dport 80 --syn -m connlabel --label 7 --set -j DROP
-A FORWARD -p tcp --dport 81 --syn -m connlabel --label 8 --set
-A FORWARD -p tcp --sport 81 -m connlabel --label 8 -m connlabel --label 10 --set
-A FORWARD -p tcp --dport 81 --tcp-flags FIN FIN -m connlabel --label 10 -m connlabel --label 11 --set -j DROP
-A FORWARD -m conntrack --ctstate INVALID -m connlabel ! --label 7 --set -j DROP
-A LABELLED -m connlabel --label 63 --set -m connlabel ! --label 62 -j DROP
-A LABELLED -m connlabel --label 62 -m connlabel ! --label 5
COMMIT
";

/// Datagrams to and from every port, errors about them, and connections.
fn says(talk: &mut Talk<'_>) {
    for round in 0..2 {
        for port in (53..=62).chain([154, 99]) {
            let [(client, server), (from, to)] = [talk.addresses(Client), talk.addresses(Server)];
            let ask = udp(client, server).ports(port, port);
            talk.send(Client, &ask, &format!("[{port}] asked, {round}"));
            talk.send(Server, &udp(from, to).ports(port, port), &format!("[{port}] answered, {round}"));
            let (ty, code) = if talk.six { (1, 4) } else { (3, 3) };
            let about = ask.build();
            talk.send(
                Server,
                &icmp_error(server, client, ty, code, &about, 48),
                &format!("[{port}] an error"),
            );
        }
    }
    for port in [80, 81, 82] {
        talk.ports.1 = port;
        talk.opens();
        talk.says(Client, "AP", 1, 1, 10);
        talk.says(Server, "A", 1, 11, 0);
        talk.says(Client, "FA", 11, 1, 0);
        talk.stage.compare_labels();
        talk.says(Client, "A", 900_000_000, 1, 0);
        talk.says(Client, "RA", 11, 1, 0);
        talk.says(Server, "A", 1, 11, 0);
        talk.again();
        talk.says(Client, "S", 0, 0, 0);
        talk.says(Server, "RA", 0, 1, 0);
        talk.again();
    }
}

#[test]
fn labels_are_asked_set_listed_and_told_as_in_the_kernel() {
    let over = |six: bool| {
        move |talk: &mut Talk<'_>| {
            talk.six = six;
            let output = Output { labels: true, ..Output::default() };
            talk.stage.listen("-o labels", output);
            says(talk);
            talk.stage.compare_events();
            talk.stage.compare_labels();
            talk.stage.compare_lists();
            talk.stage.forget();
            talk.stage.compare_events();
        }
    };
    let (four, six) = (RULES.replace("ICMP", "icmp"), RULES.replace("ICMP", "icmpv6"));
    // Rules that meet no packet count, and so do those of the other family.
    let elsewhere = "*filter\n-A OUTPUT -m connlabel --label 5\nCOMMIT\n";
    perform(&[
        ("ipv4", Setting { v4: &four, ..PLAIN }, &over(false)),
        ("ipv6", Setting { v6: &six, v4: elsewhere, ..PLAIN }, &over(true)),
    ]);
}
