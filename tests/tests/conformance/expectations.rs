//! Connections that helpers expect: what uses an expectation up, in which zones it holds, and what the connection gets.

use super::rules::Control;
use super::stage::Setting;
use super::talk::{CLIENT, Client, SERVER, Scenario, Server, Talk, flag_bits, perform};
use dataplane::packet::proto;
use dataplane::testing::packets::{ip, tcp, udp};

const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

/// The port that the client announces.
const DATA: u16 = 2000;

fn announces(talk: &mut Talk<'_>) {
    let mut control = Control::open(talk);
    control.line(talk, 0, "PORT 10,0,0,1,7,208\r\n");
}

/// A SYN of the data connection, and its answer.
fn data(talk: &mut Talk<'_>, source: u16) {
    let syn = tcp(SERVER, CLIENT).ports(source, DATA).numbers(7, 0).syn();
    talk.send(Server, &syn, &format!("data from {source}"));
    let answer = tcp(CLIENT, SERVER).ports(DATA, source).numbers(9, 8).syn_ack();
    talk.send(Client, &answer, "data answered");
}

/// Frames from the server to the announced port that may use up what is expected there.
fn frames() -> Vec<(String, Vec<u8>)> {
    let segment = |flags: &str| tcp(SERVER, CLIENT).ports(20, DATA).numbers(7, 1).flags(flag_bits(flags));
    let mut frames: Vec<_> = ["S", "SA", "R", "RA", "FA", "F", "", "A", "AP", "SFRA", "SU", "SF"]
        .into_iter()
        .map(|flags| (format!("flags {flags:?}"), segment(flags).build()))
        .collect();
    frames.push(("bad checksum".to_owned(), segment("S").bad_checksum().build()));
    for offset in [0_u8, 4, 15] {
        let mut frame = segment("S").build();
        frame[46] = offset << 4;
        frames.push((format!("data offset {offset}"), frame));
    }
    let header = segment("S").build();
    for len in [0, 2, 3, 4, 7, 8, 12, 19] {
        let cut = ip(SERVER, CLIENT, proto::TCP).payload(&header[34..34 + len]);
        frames.push((format!("cut to {len}"), cut.build()));
    }
    let other_ways = [
        ("to another port", tcp(SERVER, CLIENT).ports(20, DATA + 1).syn()),
        ("the other way", tcp(CLIENT, SERVER).ports(DATA, 20).syn()),
        ("udp", udp(SERVER, CLIENT).ports(20, DATA)),
        ("not tracked", tcp(SERVER, CLIENT).ports(33, DATA).syn()),
        ("in another zone", tcp(SERVER, CLIENT).ports(34, DATA).syn()),
        ("dropped by raw", tcp(SERVER, CLIENT).ports(35, DATA).syn()),
        ("dropped", tcp(SERVER, CLIENT).ports(36, DATA).syn()),
        ("rejected", tcp(SERVER, CLIENT).ports(37, DATA).syn()),
    ];
    frames.extend(other_ways.map(|(name, packet)| (name.to_owned(), packet.build())));
    frames
}

#[test]
fn whatever_comes_to_where_something_is_expected_uses_that_up() {
    let v4 = "*raw\n-A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp\n-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp\n-A PREROUTING -p tcp -m tcp --sport 33 -j NOTRACK\n-A PREROUTING -p tcp -m tcp --sport 34 -j CT --zone 5\n-A PREROUTING -p tcp -m tcp --sport 35 -j DROP\nCOMMIT\n*filter\n-A FORWARD -p tcp -m tcp --sport 36 -j DROP\n-A FORWARD -p tcp -m tcp --sport 37 -j REJECT --reject-with tcp-reset\nCOMMIT\n";
    let used_up = |talk: &mut Talk<'_>| {
        for (name, frame) in frames() {
            announces(talk);
            talk.stage.send(Server.side(), &frame, &name);
            data(talk, 21);
            data(talk, 22);
            talk.stage.compare_lists();
            talk.stage.forget();
        }
    };
    // The announced address and port in use already.
    let in_use = |talk: &mut Talk<'_>| {
        data(talk, 20);
        announces(talk);
        data(talk, 20);
        let packet = tcp(SERVER, CLIENT).ports(20, DATA).numbers(900_000, 9).ack();
        talk.send(Server, &packet, "INVALID, of a known connection");
        data(talk, 21);
    };
    let tftp = |talk: &mut Talk<'_>| {
        let answer = udp(SERVER, CLIENT).ports(5000, 4000).payload(b"\0\x03\0\x01");
        let mut wrong_length = answer.clone().no_checksum().build();
        wrong_length[38..40].copy_from_slice(&500_u16.to_be_bytes());
        let cut = |len: usize| {
            let whole = answer.build();
            ip(SERVER, CLIENT, proto::UDP).payload(&whole[34..34 + len]).build()
        };
        for (name, frame) in [
            ("bad checksum", answer.clone().bad_checksum().build()),
            ("wrong length", wrong_length),
            ("cut to 7", cut(7)),
            ("cut to 4", cut(4)),
            ("cut to 3", cut(3)),
        ] {
            let ask = udp(CLIENT, SERVER).ports(4000, 69).payload(b"\0\x01file\0octet\0");
            talk.send(Client, &ask, "asked");
            talk.stage.send(Server.side(), &frame, name);
            talk.send(Server, &answer, "answered");
            talk.stage.forget();
        }
    };
    let setting = Setting { v4, ..PLAIN };
    let strict = Setting { sysctls: &[("tcp_loose", "0")], ..setting };
    let unchecked = Setting { sysctls: &[("checksum", "0")], ..setting };
    perform(&[
        ("used up", setting, &used_up),
        ("used up, strict", strict, &used_up),
        ("used up, unchecked", unchecked, &used_up),
        ("in use", setting, &in_use),
        ("tftp", setting, &tftp),
    ]);
}

#[test]
fn expected_connections_get_what_the_kernel_gives_them() {
    let scenario = |talk: &mut Talk<'_>| {
        announces(talk);
        data(talk, 20);
        talk.stage.compare_lists();
        // What it says is read, or not.
        let line = tcp(CLIENT, SERVER).ports(DATA, 20).numbers(10, 8).ack().payload(b"USER x\r\n");
        talk.send(Client, &line, "a line of data");
        let line =
            tcp(CLIENT, SERVER).ports(DATA, 20).numbers(18, 8).ack().payload(b"PORT 10,0,0,1,7,209\r\n");
        talk.send(Client, &line, "announced over data");
        let syn = tcp(SERVER, CLIENT).ports(20, DATA + 1).numbers(7, 0).syn();
        talk.send(Server, &syn, "what data announced");
        talk.again();
    };
    let zones = ["", "--zone 5", "--zone-orig 5", "--zone-reply 5", "--zone 6"];
    let mut tables = vec![
        (
            "helper for all".to_owned(),
            "*raw\n-A PREROUTING -p tcp -j CT --helper ftp\nCOMMIT\n".to_owned(),
        ),
        (
            "timeouts and events of its own".to_owned(),
            "*raw\n-A PREROUTING -p tcp -m tcp --sport 20 -j CT --timeout fast --ctevents new\n-A PREROUTING -p tcp -j CT --helper ftp\nCOMMIT\n".to_owned(),
        ),
        (
            "timeouts of the one that announced it".to_owned(),
            "*raw\n-A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp --timeout fast\nCOMMIT\n".to_owned(),
        ),
        (
            "mark".to_owned(),
            "*raw\n-A PREROUTING -p tcp -m tcp --dport 21 -j CT --helper ftp\nCOMMIT\n*mangle\n-A PREROUTING -p tcp -m tcp --dport 21 -j CONNMARK --set-mark 9\nCOMMIT\n".to_owned(),
        ),
    ];
    for control in zones {
        for data in zones {
            let rules: String = [
                ("dport 21", "--helper ftp ", control),
                ("sport 21", "", control),
                ("sport 20", "", data),
                ("dport 20", "", data),
            ]
            .map(|(side, helper, zone)| {
                format!("-A PREROUTING -p tcp -m tcp --{side} -j CT {helper}{zone}\n")
            })
            .concat();
            tables.push((format!("control {control:?}, data {data:?}"), format!("*raw\n{rules}COMMIT\n")));
        }
    }
    let scenarios: Vec<Scenario<'_>> = tables
        .iter()
        .map(|(name, v4)| (name.as_str(), Setting { v4, ..PLAIN }, &scenario as &dyn Fn(&mut Talk<'_>)))
        .collect();
    perform(&scenarios);
}
