//! UDP, UDP-Lite, ICMP and ICMPv6 with their errors, GRE, other protocols, IPv4 options.

use super::stage::Setting;
use super::talk::{CLIENT, CLIENT6, Client, End, SERVER, SERVER6, Server, Talk, perform, perform_on_bridge};
use dataplane::packet::proto;
use dataplane::testing::packets::{Builder, icmp, icmp_error, ip, ping, pong, tcp, udp, udplite};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

fn both(scenario: impl Fn(&mut Talk<'_>)) -> impl Fn(&mut Talk<'_>) {
    move |talk| {
        for six in [false, true] {
            talk.six = six;
            scenario(talk);
        }
    }
}

/// The addresses of one end and the other.
fn ends(talk: &Talk<'_>, from: End) -> (IpAddr, IpAddr) {
    talk.addresses(from)
}

#[test]
fn datagrams_start_answer_and_become_streams_alike() {
    let stream = both(|talk| {
        let (client, server) = ends(talk, Client);
        let ask = udp(client, server).ports(1000, 53).payload(b"?");
        let answer = udp(server, client).ports(53, 1000).payload(b"!");
        for _ in 0..3 {
            talk.send(Client, &ask, "ask");
        }
        talk.send(Server, &answer, "answer");
        talk.send(Client, &ask, "ask");
        talk.stage.compare_lists();
        talk.waits(2.3);
        talk.send(Server, &answer, "answer");
        talk.stage.compare_lists();
        talk.send(Client, &ask, "ask");
        talk.stage.compare_lists();
    });
    let short: &[(&str, &str)] =
        &[("udp_timeout", "1"), ("udp_timeout_stream", "3"), ("generic_timeout", "2"), ("icmp_timeout", "1")];
    let expire = |talk: &mut Talk<'_>| {
        let ask = |port| udp(CLIENT, SERVER).ports(port, 53);
        talk.send(Client, &ask(1), "unanswered");
        talk.send(Client, &ask(2), "answered");
        talk.send(Server, &udp(SERVER, CLIENT).ports(53, 2), "answer");
        talk.send(Client, &ping(CLIENT, SERVER, 7), "ping");
        talk.send(Client, &ip(CLIENT, SERVER, 50).payload(&[1; 20]), "esp");
        talk.waits(1.6);
        talk.send(Server, &udp(SERVER, CLIENT).ports(53, 1), "late answer");
        talk.send(Server, &udp(SERVER, CLIENT).ports(53, 2), "answer");
        talk.send(Server, &pong(SERVER, CLIENT, 7), "late pong");
        talk.send(Server, &ip(SERVER, CLIENT, 50).payload(&[1; 20]), "esp");
    };
    let broken = both(|talk| {
        let (client, server) = ends(talk, Client);
        let whole = udp(client, server).ports(9, 10).payload(&[3; 30]);
        talk.send(Client, &whole.clone().bad_checksum(), "bad checksum");
        talk.send(Client, &whole.clone().no_checksum(), "no checksum");
        let at = if talk.six { 58 } else { 38 };
        for len in [0_u16, 1, 7, 8, 9, 20, 37, 38, 39, 500] {
            let mut frame = whole.clone().no_checksum().build();
            frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
            talk.stage.send(Client.side(), &frame, &format!("length {len}"));
        }
        talk.send(Client, &ip(client, server, proto::UDP).payload(&[0, 9, 0, 10]), "cut");
        talk.send(Client, &ip(client, server, proto::UDP).payload(&[0, 9]), "cut short");
        talk.send(Client, &udp(client, client).ports(5, 5), "to itself");
        talk.send(Client, &udp(client, client).ports(5, 5), "to itself again");
        talk.send(Client, &udp(client, server).ports(0, 0), "ports zero");
    });
    let lite = both(|talk| {
        let (client, server) = ends(talk, Client);
        let whole = udplite(client, server).ports(9, 10).payload(&[3; 30]);
        talk.send(Client, &whole, "whole");
        talk.send(Server, &udplite(server, client).ports(10, 9), "answer");
        talk.send(Client, &whole.clone().bad_checksum(), "bad checksum");
        talk.send(Client, &whole.clone().no_checksum(), "no checksum");
    });
    perform(&[
        ("stream", PLAIN, &stream),
        ("expire", Setting { sysctls: short, ..PLAIN }, &expire),
        ("broken", PLAIN, &broken),
        ("unchecked", Setting { sysctls: &[("checksum", "0")], ..PLAIN }, &broken),
        ("udp-lite", PLAIN, &lite),
    ]);
}

#[test]
fn every_icmp_type_is_judged_alike() {
    let types = both(|talk| {
        let (client, server) = ends(talk, Client);
        for ty in 0..=255 {
            for code in [0, 1, 5] {
                talk.send(
                    Client,
                    &icmp(client, server, ty, code).id(7).payload(&[0; 8]),
                    &format!("type {ty} code {code}"),
                );
                talk.send(
                    Server,
                    &icmp(server, client, ty, code).id(7).payload(&[0; 8]),
                    &format!("type {ty} code {code}"),
                );
            }
        }
    });
    let queries = both(|talk| {
        let (client, server) = ends(talk, Client);
        let pairs: &[(u8, u8)] =
            if talk.six { &[(128, 129), (139, 140)] } else { &[(8, 0), (13, 14), (15, 16), (17, 18)] };
        for &(ask, answer) in pairs {
            for id in [1, 2] {
                talk.send(Server, &icmp(server, client, answer, 0).id(id), "answer first");
                talk.send(Client, &icmp(client, server, ask, 0).id(id), "ask");
                talk.send(Server, &icmp(server, client, answer, 1).id(id), "answer, other code");
                talk.send(Server, &icmp(server, client, answer, 0).id(id + 10), "answer, other id");
                talk.send(Server, &icmp(server, client, answer, 0).id(id), "answer");
                talk.send(Server, &icmp(server, client, answer, 0).id(id), "answer again");
                talk.send(Client, &icmp(client, server, answer, 0).id(id), "answer from the asker");
                talk.send(Server, &icmp(server, client, ask, 0).id(id), "ask back");
                talk.send(Client, &icmp(client, server, ask, 1).id(id), "ask, other code");
                talk.send(Server, &icmp(server, client, answer, 1).id(id), "answer, other code");
            }
        }
        talk.send(Client, &ping(client, server, 50).bad_checksum(), "bad checksum");
        let protocol = if talk.six { proto::ICMPV6 } else { proto::ICMP };
        for len in 0..8 {
            talk.send(
                Client,
                &ip(client, server, protocol).payload(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0][..len]),
                &format!("cut to {len}"),
            );
        }
        let wrong = if talk.six { proto::ICMP } else { proto::ICMPV6 };
        talk.send(
            Client,
            &ip(client, server, wrong).payload(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
            "of the other family",
        );
        talk.send(
            Server,
            &ip(server, client, wrong).payload(&[8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
            "of the other family",
        );
    });
    perform(&[("types", PLAIN, &types), ("queries", PLAIN, &queries)]);
}

#[test]
fn errors_are_related_to_what_they_are_about() {
    let scenario = both(|talk| {
        let (client, server) = ends(talk, Client);
        let third: IpAddr = if talk.six {
            Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9).into()
        } else {
            Ipv4Addr::new(10, 0, 0, 9).into()
        };
        let kinds: &[(u8, u8)] = if talk.six {
            &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1), (100, 0), (127, 0)]
        } else {
            &[(3, 0), (3, 1), (3, 3), (3, 4), (4, 0), (5, 0), (5, 1), (11, 0), (11, 1), (12, 0)]
        };
        let offenders: Vec<(&str, Builder)> = vec![
            ("tcp", tcp(client, server).ports(1, 2).syn()),
            ("udp", udp(client, server).ports(1, 2).payload(&[1; 40])),
            ("udplite", udplite(client, server).ports(1, 2).payload(&[1; 40])),
            ("ping", ping(client, server, 3)),
            ("esp", ip(client, server, 50).payload(&[9; 40])),
            ("gre", ip(client, server, 47).payload(&[0, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8])),
            ("sctp", super::sctp::init(talk)),
            ("unknown flow", udp(client, server).ports(77, 78)),
        ];
        for (name, offender) in &offenders {
            if *name != "unknown flow" {
                talk.send(Client, offender, name);
            }
            let frame = offender.build();
            for &(ty, code) in kinds {
                for from in [server, third] {
                    talk.send(
                        Server,
                        &icmp_error(from, client, ty, code, &frame, 80),
                        &format!("{name}: {ty}/{code} from {from}"),
                    );
                }
                talk.send(
                    Server,
                    &icmp_error(server, third, ty, code, &frame, 80),
                    &format!("{name}: {ty}/{code} to a third"),
                );
                talk.send(
                    Client,
                    &icmp_error(client, server, ty, code, &frame, 80),
                    &format!("{name}: {ty}/{code} the wrong way"),
                );
            }
            let (ty, code) = kinds[1];
            for quote in 0..80 {
                talk.send(
                    Server,
                    &icmp_error(server, client, ty, code, &frame, quote),
                    &format!("{name}: quoting {quote}"),
                );
            }
        }
        // About an answer, and about an error.
        let back = udp(server, client).ports(2, 1);
        talk.send(Server, &back, "answer");
        let (ty, code) = kinds[1];
        talk.send(Client, &icmp_error(client, server, ty, code, &back.build(), 80), "about the answer");
        let error = icmp_error(server, client, ty, code, &offenders[1].1.build(), 80);
        talk.send(Client, &icmp_error(client, server, ty, code, &error.build(), 80), "about an error");
        talk.send(Server, &error.clone().bad_checksum(), "bad checksum");
        // The quoted packet is a fragment, has options, lies about its length, or is of no IP at all.
        let mut quoted = offenders[1].1.build();
        if !talk.six {
            for (what, at, value) in [
                ("offset", 21, 9),
                ("more", 20, 0x20),
                ("version", 14, 0x65),
                ("ihl", 14, 0x46),
                ("short ihl", 14, 0x44),
                ("long ihl", 14, 0x4f),
                ("length", 17, 5),
                ("ttl", 22, 0),
                ("checksum", 25, 1),
            ] {
                let old = std::mem::replace(&mut quoted[at], value);
                talk.send(
                    Server,
                    &icmp_error(server, client, ty, code, &quoted, 80),
                    &format!("quoting a wrong {what}"),
                );
                quoted[at] = old;
            }
        }
        talk.stage.compare_lists();
    });
    let redirects = |talk: &mut Talk<'_>| {
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        let offender = udp(CLIENT6, SERVER6).ports(1, 2);
        talk.send(Client, &offender, "udp");
        let mut body = vec![0; 32];
        body.extend(&offender.build()[14..]);
        for (src, ttl, code) in
            [(link_local, 255, 0), (link_local, 254, 0), (SERVER6, 255, 0), (link_local, 255, 1)]
        {
            talk.send(
                Server,
                &icmp(src, CLIENT6, 137, code).ttl(ttl).payload(&body),
                &format!("redirect from {src} ttl {ttl} code {code}"),
            );
            talk.send(
                Server,
                &icmp_error(src, CLIENT6, 137, code, &offender.build(), 80).ttl(ttl),
                "as if an error",
            );
        }
    };
    perform(&[("errors", PLAIN, &scenario)]);
    perform_on_bridge(&[("redirects", PLAIN, &redirects)]);
}

#[test]
fn other_protocols_and_ipv4_options_are_judged_alike() {
    let protocols = both(|talk| {
        let (client, server) = ends(talk, Client);
        for number in 0..=255 {
            // Those with headers that decide more than a key are tried elsewhere.
            if matches!(number, 0 | 1 | 6 | 17 | 41 | 43 | 44 | 51 | 58 | 60 | 132 | 135 | 136 | 139 | 140) {
                continue;
            }
            let packet = ip(client, server, number).payload(&[0, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
            talk.send(Client, &packet, &format!("protocol {number}"));
            talk.send(Server, &ip(server, client, number).payload(&[1; 12]), &format!("protocol {number}"));
            talk.send(Client, &ip(client, server, number), &format!("protocol {number}, empty"));
        }
        talk.stage.compare_lists();
    });
    let gre = both(|talk| {
        let (client, server) = ends(talk, Client);
        for payload in [
            &[0, 0, 8, 0][..],
            &[0x30, 0x81, 0x88, 0x0b, 0, 4, 0, 1, 0, 0, 0, 0],
            &[0x20, 0, 8, 0, 0, 0, 0, 5],
            &[0],
            &[],
        ] {
            talk.send(Client, &ip(client, server, 47).payload(payload), &format!("gre {payload:?}"));
            talk.send(Server, &ip(server, client, 47).payload(payload), &format!("gre {payload:?}"));
        }
    });
    let short: &[(&str, &str)] = &[("gre_timeout", "1"), ("gre_timeout_stream", "3")];
    let gre_timers = both(|talk| {
        let (client, server) = ends(talk, Client);
        let of = |talk: &Talk<'_>, host: u16| -> IpAddr {
            if talk.six {
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 2, host).into()
            } else {
                Ipv4Addr::new(10, 0, 2, u8::try_from(host).unwrap()).into()
            }
        };
        let (one_way, answered, kept) = (of(talk, 1), of(talk, 2), of(talk, 3));
        let gre = |src: IpAddr, dst: IpAddr| ip(src, dst, proto::GRE).payload(&[0, 0, 8, 0, 1, 2, 3, 4]);
        for host in [one_way, answered, kept, client] {
            talk.send(Client, &gre(host, server), &format!("{host}"));
        }
        talk.send(Server, &gre(server, answered), "answered");
        talk.send(Server, &gre(server, kept), "answered");
        talk.stage.compare_lists();
        for _ in 0..4 {
            talk.waits(1.2);
            talk.send(Client, &gre(kept, server), "kept alive");
            talk.stage.compare_lists();
        }
        talk.send(Server, &gre(server, one_way), "late");
        talk.send(Server, &gre(server, answered), "late");
        talk.send(Server, &gre(server, kept), "in time");
    });
    let options = |talk: &mut Talk<'_>| {
        let ask = udp(CLIENT, SERVER).ports(1, 2);
        for bytes in [
            &[1, 1, 1, 1][..],
            &[7, 7, 4, 0, 0, 0, 0, 0],
            &[148, 4, 0, 0],
            &[131, 7, 4, 10, 0, 0, 9, 0],
            &[130, 200, 0, 0],
            &[7, 0, 0, 0],
        ] {
            talk.send(Client, &ask.clone().ip_options(bytes), &format!("options {bytes:?}"));
        }
        talk.send(Client, &ask.clone().ttl(0), "ttl 0");
        talk.send(Client, &ask.clone().ttl(1), "ttl 1");
    };
    perform(&[
        ("protocols", PLAIN, &protocols),
        ("gre", PLAIN, &gre),
        ("gre timers", Setting { sysctls: short, ..PLAIN }, &gre_timers),
    ]);
    perform_on_bridge(&[("ipv4 options", PLAIN, &options)]);
}
