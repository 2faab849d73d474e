//! Rules that ask more of a connection than its state, about every kind of packet: of one that ends it, of an INVALID one,
//! of an error about it. Each question has a client of its own, whose packets it drops if it holds.

use super::stage::Setting;
use super::talk::{Client, End, Server, Talk, flag_bits, perform};
use dataplane::testing::packets::{Builder, icmp_error, tcp, udp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is asked. `CLIENT` and `SERVER` are addresses.
const QUESTIONS: &[&str] = &[
    "-m conntrack --ctstate ESTABLISHED",
    "-m conntrack --ctstate RELATED",
    "-m conntrack --ctstate INVALID --ctdir REPLY",
    "-m conntrack --ctdir ORIGINAL",
    "-m conntrack --ctdir REPLY",
    "-m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL",
    "-m conntrack --ctstate ESTABLISHED --ctdir REPLY",
    "-m conntrack --ctstate RELATED --ctdir ORIGINAL",
    "-m conntrack --ctstatus NONE",
    "-m conntrack --ctstatus SEEN_REPLY",
    "-m conntrack --ctstatus ASSURED",
    "-m conntrack --ctstatus CONFIRMED",
    "-m conntrack ! --ctstatus SEEN_REPLY",
    "-m conntrack ! --ctstatus CONFIRMED",
    "-m conntrack --ctexpire 0",
    "-m conntrack --ctexpire 1:11",
    "-m conntrack --ctexpire 12:59",
    "-m conntrack --ctexpire 60:200",
    "-m conntrack ! --ctexpire 100:200",
    "-m conntrack --ctproto tcp",
    "-m conntrack ! --ctproto tcp",
    "-m conntrack --ctorigsrc CLIENT",
    "-m conntrack ! --ctorigsrc CLIENT",
    "-m conntrack --ctorigdst SERVER",
    "-m conntrack --ctreplsrc SERVER",
    "-m conntrack --ctrepldst CLIENT",
    "-m conntrack ! --ctrepldst CLIENT",
    "-m conntrack --ctproto tcp --ctorigsrcport 1:2",
    "-m conntrack --ctproto tcp --ctorigdstport 80",
    "-m conntrack --ctproto tcp ! --ctreplsrcport 80",
    "-m conntrack --ctproto tcp --ctrepldstport 1:2",
    "-m connmark --mark 7",
    "-m connmark ! --mark 7",
    "-m connmark --mark 0",
    "-m connbytes --connbytes 1 --connbytes-dir original --connbytes-mode packets",
    "-m connbytes --connbytes 2 --connbytes-dir original --connbytes-mode packets",
    "-m connbytes --connbytes 1 --connbytes-dir reply --connbytes-mode packets",
    "-m connbytes --connbytes 2 --connbytes-dir reply --connbytes-mode packets",
    "-m connbytes --connbytes 2 --connbytes-dir both --connbytes-mode packets",
    "-m connbytes --connbytes 40:60 --connbytes-dir reply --connbytes-mode bytes",
    "-m connbytes ! --connbytes 0:50 --connbytes-dir both --connbytes-mode avgpkt",
    "-m helper --helper ftp",
    "-m helper ! --helper ftp",
];

/// The client of a question, and the server of all.
fn ends(question: usize, six: bool) -> [IpAddr; 2] {
    let number = u16::try_from(question + 1).unwrap();
    if six {
        [
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, number).into(),
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into(),
        ]
    } else {
        [Ipv4Addr::new(10, 0, 1, u8::try_from(number).unwrap()).into(), Ipv4Addr::new(10, 0, 0, 2).into()]
    }
}

/// Connections to port 80 are marked when they begin; every question drops what goes from or to its client.
fn rules(six: bool) -> String {
    let mut text =
        "*mangle\n-A PREROUTING -p tcp -m tcp --dport 80 --syn -j CONNMARK --set-mark 7\nCOMMIT\n*filter\n"
            .to_owned();
    for (number, question) in QUESTIONS.iter().enumerate() {
        let [client, server] = ends(number, six);
        let question = question.replace("CLIENT", &client.to_string()).replace("SERVER", &server.to_string());
        text.push_str(&format!(
            "-A FORWARD -s {client} {question} -j DROP\n-A FORWARD -d {client} {question} -j DROP\n"
        ));
    }
    text + "COMMIT\n"
}

/// What a client and the server say to each other.
struct Asked<'a, 'b> {
    talk: &'a mut Talk<'b>,
    number: usize,
    ends: [IpAddr; 2],
}

impl Asked<'_, '_> {
    fn send(&mut self, from: End, packet: &Builder, note: &str) {
        self.talk.send(from, packet, &format!("[{}] {note}", QUESTIONS[self.number]));
    }

    fn segment(&self, from: End, ports: (u16, u16), flags: &str, (seq, ack): (u32, u32)) -> Builder {
        let [client, server] = self.ends;
        let (src, dst, ports) =
            if from == Client { (client, server, ports) } else { (server, client, (ports.1, ports.0)) };
        tcp(src, dst).ports(ports.0, ports.1).numbers(seq, ack).flags(flag_bits(flags))
    }

    fn says(&mut self, from: End, ports: (u16, u16), flags: &str, numbers: (u32, u32)) {
        let packet = self.segment(from, ports, flags, numbers);
        self.send(from, &packet, &format!("{from:?} {ports:?} {flags} {numbers:?}"));
    }

    /// An error about a packet, from where it went, from a third, and the wrong way.
    fn errors(&mut self, about: &Builder, from: End) {
        let frame = about.build();
        let (ty, code) = if self.talk.six { (1, 4) } else { (3, 3) };
        let [client, server] = self.ends;
        let (sender, receiver, back) =
            if from == Client { (client, server, Server) } else { (server, client, Client) };
        let third: IpAddr = if self.talk.six {
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9).into()
        } else {
            Ipv4Addr::new(10, 0, 0, 9).into()
        };
        self.send(back, &icmp_error(receiver, sender, ty, code, &frame, 80), "an error about it");
        self.send(back, &icmp_error(third, sender, ty, code, &frame, 80), "an error from a third");
        self.send(from, &icmp_error(sender, receiver, ty, code, &frame, 80), "an error the wrong way");
    }

    /// Everything, to a port of the server.
    fn all(&mut self, port: u16) {
        // Refused, twice; then what would end it if it were there.
        for sport in [1, 1, 3] {
            let ports = (sport, port);
            self.says(Client, ports, "S", (100, 0));
            self.says(Server, ports, "RA", (0, 101));
            self.says(Server, ports, "RA", (0, 101));
        }
        // Given up by who began it.
        self.says(Client, (6, port), "S", (100, 0));
        self.says(Client, (6, port), "R", (101, 0));
        self.says(Client, (6, port), "R", (101, 0));
        // An error about one that waits, then the refusal.
        let waits = self.segment(Client, (2, port), "S", (100, 0));
        self.says(Client, (2, port), "S", (100, 0));
        self.errors(&waits, Client);
        self.says(Server, (2, port), "RA", (0, 500));
        self.says(Server, (2, port), "RA", (0, 101));
        self.errors(&waits, Client);
        // One that is open, and packets of it that are INVALID.
        let ports = (4, port);
        self.says(Client, ports, "S", (100, 0));
        self.says(Server, ports, "SA", (500, 101));
        self.says(Client, ports, "A", (101, 501));
        self.says(Client, ports, "F", (101, 501));
        self.says(Server, ports, "", (501, 101));
        self.says(Server, ports, "A", (501, 900_000));
        let broken = self.segment(Client, ports, "A", (101, 501)).bad_checksum();
        self.send(Client, &broken, "bad checksum");
        let back = self.segment(Server, ports, "A", (501, 101));
        self.errors(&back, Server);
        self.says(Server, ports, "A", (501, 101));
        self.says(Client, ports, "RA", (101, 501));
        self.says(Server, ports, "A", (501, 101));
        // No connection at all.
        self.says(Client, (5, port), "SA", (1, 1));
        self.says(Server, (5, port), "R", (1, 1));
    }

    fn datagrams(&mut self) {
        let [client, server] = self.ends;
        let ask = udp(client, server).ports(7, 53).payload(b"?");
        let answer = udp(server, client).ports(53, 7).payload(b"an answer");
        self.send(Client, &ask, "asked");
        self.errors(&ask, Client);
        self.send(Server, &answer, "answered");
        self.errors(&answer, Server);
        self.errors(&ask, Client);
        self.send(Client, &ask.bad_checksum(), "bad checksum");
        self.send(Server, &answer, "answered again");
    }
}

#[test]
fn questions_about_connections_are_answered_alike_for_every_packet() {
    let scenario = |six: bool| {
        move |talk: &mut Talk<'_>| {
            talk.six = six;
            for number in 0..QUESTIONS.len() {
                let mut asked = Asked { talk, number, ends: ends(number, six) };
                asked.all(80);
                asked.all(81);
                asked.datagrams();
                talk.stage.compare_lists();
            }
        }
    };
    let (four, six) = (rules(false), rules(true));
    perform(&[
        ("ipv4", Setting { v4: &four, v6: "", sysctls: &[] }, &scenario(false)),
        ("ipv6", Setting { v4: "", v6: &six, sysctls: &[] }, &scenario(true)),
    ]);
}
