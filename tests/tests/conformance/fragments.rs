//! Fragments: in and out of order, repeated, overlapping, contradicting, few and many; both families.

use super::stage::Setting;
use super::talk::{
    CLIENT, CLIENT6, Client, SERVER, SERVER6, Server, Talk, perform, perform_on_bridge, perform_on_router,
};
use dataplane::testing::packets::{icmp, icmp_error, tcp, udp};
use std::net::IpAddr;

pub(crate) const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

/// A piece of a datagram: where its payload starts and ends, and whether more is said to follow.
pub(crate) type Piece = (usize, usize, bool);

/// A frame with a part of `whole`'s payload.
pub(crate) fn fragment(whole: &[u8], (from, to, more): Piece, id: u16) -> Vec<u8> {
    let field = u16::try_from(from).unwrap() | u16::from(more);
    if whole[12] == 0x08 {
        let mut frame = whole[..34].to_vec();
        frame.extend(&whole[34 + from.min(whole.len() - 34)..34 + to.min(whole.len() - 34)]);
        let len = u16::try_from(frame.len() - 14).unwrap();
        frame[16..18].copy_from_slice(&len.to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        let field = u16::try_from(from / 8).unwrap() | u16::from(more) << 13;
        frame[20..22].copy_from_slice(&field.to_be_bytes());
        super::kernel::reseal(&mut frame);
        return frame;
    }
    let mut frame = whole[..54].to_vec();
    frame[20] = 44;
    frame.extend([whole[20], 0]);
    frame.extend(field.to_be_bytes());
    frame.extend(u32::from(id).to_be_bytes());
    frame.extend(&whole[54 + from.min(whole.len() - 54)..54 + to.min(whole.len() - 54)]);
    let len = u16::try_from(frame.len() - 54).unwrap();
    frame[18..20].copy_from_slice(&len.to_be_bytes());
    frame
}

/// Sends pieces of a datagram of 8 + 100 bytes.
fn train(talk: &mut Talk<'_>, whole: &[u8], pieces: &[Piece], note: &str) {
    talk.ports.0 += 1;
    for piece in pieces {
        let frame = fragment(whole, *piece, talk.ports.0);
        talk.stage.send(Client.side(), &frame, &format!("{note}: {piece:?}"));
    }
    talk.stage.compare();
}

pub(crate) fn datagram(talk: &Talk<'_>, port: u16, len: usize) -> Vec<u8> {
    let body: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let (client, server) = talk.addresses(Client);
    udp(client, server).ports(port, 53).payload(&body).build()
}

pub(crate) fn both(scenario: impl Fn(&mut Talk<'_>)) -> impl Fn(&mut Talk<'_>) {
    move |talk| {
        for six in [false, true] {
            talk.six = six;
            scenario(talk);
        }
    }
}

#[test]
fn fragments_are_put_together_alike() {
    let trains: &[(&str, &[Piece])] = &[
        ("in order", &[(0, 48, true), (48, 96, true), (96, 108, false)]),
        ("backwards", &[(96, 108, false), (48, 96, true), (0, 48, true)]),
        ("middle first", &[(48, 96, true), (0, 48, true), (96, 108, false)]),
        ("two", &[(0, 56, true), (56, 108, false)]),
        (
            "many",
            &[(0, 8, true), (8, 16, true), (16, 24, true), (24, 32, true), (32, 40, true), (40, 108, false)],
        ),
        ("repeated", &[(0, 48, true), (0, 48, true), (48, 96, true), (48, 96, true), (96, 108, false)]),
        ("last repeated", &[(96, 108, false), (96, 108, false), (0, 48, true), (48, 96, true)]),
        ("within", &[(0, 96, true), (8, 48, true), (96, 108, false)]),
        ("overlap before", &[(0, 48, true), (40, 96, true), (96, 108, false), (48, 96, true)]),
        ("overlap behind", &[(48, 96, true), (0, 56, true), (96, 108, false), (0, 48, true)]),
        ("covers", &[(48, 56, true), (40, 96, true), (0, 40, true), (96, 108, false)]),
        ("two lasts", &[(0, 48, true), (48, 96, false), (48, 108, false)]),
        ("two lasts, shorter", &[(48, 108, false), (48, 96, false), (0, 48, true)]),
        ("beyond the last", &[(48, 96, false), (96, 104, true), (0, 48, true)]),
        ("last below others", &[(48, 96, true), (8, 40, false), (0, 48, true), (96, 108, false)]),
        ("empty", &[(0, 48, true), (48, 48, true), (48, 108, false)]),
        ("empty last", &[(0, 48, true), (48, 108, true), (104, 104, false)]),
        ("odd size", &[(0, 45, true), (48, 108, false), (40, 48, true)]),
        ("odd sizes that meet", &[(0, 47, true), (40, 108, false)]),
        ("upper header cut", &[(0, 0, true), (0, 4, true), (0, 8, true), (8, 56, true), (56, 108, false)]),
        ("only the last", &[(8, 108, false)]),
        ("only the first", &[(0, 48, true)]),
        ("after completion", &[(0, 48, true), (48, 108, false), (48, 108, false), (0, 48, true)]),
        ("far", &[(65_528, 65_536, true), (65_520, 65_530, false), (0, 48, true)]),
    ];
    let shapes = both(|talk| {
        for (port, (note, pieces)) in (1_u16..).zip(trains) {
            let whole = datagram(talk, port, 100);
            train(talk, &whole, pieces, note);
        }
        talk.stage.compare_lists();
    });
    let judged = both(|talk| {
        let (client, server) = talk.addresses(Client);
        let pieces: &[Piece] = &[(0, 48, true), (48, 108, false)];
        let bad = udp(client, server).ports(500, 53).payload(&[1; 100]).bad_checksum().build();
        train(talk, &bad, pieces, "bad checksum");
        let none = udp(client, server).ports(501, 53).payload(&[1; 100]).no_checksum().build();
        train(talk, &none, pieces, "no checksum");
        let syn = tcp(client, server).ports(502, 80).syn().payload(&[1; 88]).build();
        train(talk, &syn, &[(0, 24, true), (24, 108, false)], "syn");
        let ping = icmp(client, server, if talk.six { 128 } else { 8 }, 0).id(9).payload(&[3; 100]).build();
        train(talk, &ping, pieces, "ping");
        let answer = icmp(server, client, if talk.six { 129 } else { 0 }, 0).id(9).payload(&[3; 100]).build();
        for piece in pieces {
            talk.stage.send(Server.side(), &fragment(&answer, *piece, 7), "pong");
        }
        // Large ones, and two datagrams at a time.
        let large = datagram(talk, 600, 30_000);
        let pieces: Vec<Piece> = (0..21).map(|n| (n * 1480, ((n + 1) * 1480).min(30_008), n < 20)).collect();
        train(talk, &large, &pieces, "large");
        let (one, two) = (datagram(talk, 700, 100), datagram(talk, 701, 100));
        for piece in [(0, 48, true), (48, 108, false)] {
            for (id, whole) in [(41, &one), (42, &two)] {
                talk.stage.send(
                    Client.side(),
                    &fragment(whole, piece, id),
                    &format!("interleaved {id}: {piece:?}"),
                );
            }
        }
        talk.stage.compare_lists();
    });
    // Errors about a flow, in pieces, and pieces with IPv4 options that differ.
    let errors = both(|talk| {
        let (client, server) = talk.addresses(Client);
        let ask = udp(client, server).ports(800, 53).payload(&[1; 400]);
        talk.send(Client, &ask, "ask");
        let (ty, code) = if talk.six { (1, 4) } else { (3, 3) };
        for (name, to) in [("right", client), ("to somebody else", server)] {
            let error = icmp_error(server, to, ty, code, &ask.build(), 500).build();
            talk.ports.0 += 1;
            for piece in even(&error, 160) {
                let frame = fragment(&error, piece, talk.ports.0);
                talk.stage.send(Server.side(), &frame, &format!("error {name}: {piece:?}"));
            }
        }
    });
    let options = |talk: &mut Talk<'_>| {
        let (client, server) = talk.addresses(Client);
        let whole = datagram(talk, 3, 100);
        for (name, bytes) in
            [("record route", &[7, 7, 4, 0, 0, 0, 0, 0][..]), ("router alert", &[148, 4, 0, 0])]
        {
            talk.ports.0 += 1;
            let id = talk.ports.0.to_be_bytes();
            let mut with =
                udp(client, server).fragment(48, false).payload(&[5; 60]).ip_options(bytes).build();
            with[18..20].copy_from_slice(&id);
            super::kernel::reseal(&mut with);
            talk.stage.send(Client.side(), &fragment(&whole, HALVES[0], talk.ports.0), name);
            talk.stage.send(Client.side(), &with, name);
        }
    };
    let small = both(|talk| {
        let (client, server) = talk.addresses(Client);
        let syn = tcp(client, server).ports(502, 80).syn().payload(&[1; 88]).build();
        train(talk, &syn, &[(0, 16, true), (16, 108, false)], "header in two pieces");
    });
    let v4 = "*filter\n-A FORWARD -p udp --dport 53 -m conntrack --ctstate NEW -j DROP\n-A FORWARD -f -j DROP\nCOMMIT\n";
    let v6 = "*filter\n-A FORWARD -p udp --dport 53 -m conntrack --ctstate NEW -j DROP\nCOMMIT\n";
    let helped = |talk: &mut Talk<'_>| {
        let ends: [(IpAddr, IpAddr); 2] = [(CLIENT.into(), SERVER.into()), (CLIENT6.into(), SERVER6.into())];
        for (a, b) in ends {
            for port in [53, 54] {
                let whole = udp(a, b).ports(900, port).payload(&[1; 100]).build();
                train(talk, &whole, &[(0, 48, true), (48, 108, false)], "judged as one");
            }
        }
    };
    perform(&[
        ("shapes", PLAIN, &shapes),
        ("judged", PLAIN, &judged),
        ("rules", Setting { v4, v6, sysctls: &[] }, &helped),
    ]);
    perform_on_bridge(&[("small", PLAIN, &small), ("errors", PLAIN, &errors), ("options", PLAIN, &options)]);
}

/// Sends a piece of a datagram of 8 + 100 bytes.
pub(crate) fn piece(talk: &mut Talk<'_>, whole: &[u8], piece: Piece, id: u16, note: &str) {
    talk.stage.send(Client.side(), &fragment(whole, piece, id), &format!("{note}, {id}: {piece:?}"));
}

pub(crate) const HALVES: [Piece; 2] = [(0, 48, true), (48, 108, false)];

/// Two halves of a datagram, the ECN bits of each being those.
fn marked(talk: &mut Talk<'_>, whole: &[u8], codepoints: &[u8], pieces: &[Piece]) {
    talk.ports.0 += 1;
    for (ecn, piece) in codepoints.iter().zip(pieces) {
        let mut frame = fragment(whole, *piece, talk.ports.0);
        frame[15] |= if talk.six { ecn << 4 } else { *ecn };
        super::kernel::reseal(&mut frame);
        talk.stage.send(Client.side(), &frame, &format!("ecn {codepoints:?}: {piece:?}"));
    }
    talk.stage.compare();
}

#[test]
fn ecn_bits_of_fragments_are_joined_alike() {
    let scenario = both(|talk| {
        let whole = datagram(talk, 9, 100);
        for first in 0..4 {
            for last in 0..4 {
                marked(talk, &whole, &[first, last], &HALVES);
                // A repeated piece's bits do not count.
                marked(talk, &whole, &[first, last, first], &[HALVES[0], HALVES[0], HALVES[1]]);
                for third in 0..4 {
                    let thirds = [(0, 48, true), (48, 96, true), (96, 108, false)];
                    marked(talk, &whole, &[first, last, third], &thirds);
                }
            }
        }
    });
    perform(&[("ecn", PLAIN, &scenario)]);
}

/// `whole` in pieces of so many bytes.
fn even(whole: &[u8], len: usize) -> Vec<Piece> {
    let payload = whole.len() - if whole[12] == 0x08 { 34 } else { 54 };
    (0..payload.div_ceil(len))
        .map(|n| (n * len, ((n + 1) * len).min(payload), (n + 1) * len < payload))
        .collect()
}

/// Hundreds and thousands of pieces, datagrams as long as can be and longer; many datagrams at a time.
#[test]
fn many_fragments_are_put_together_alike() {
    let hundreds = both(|talk| {
        let whole = datagram(talk, 9, 2_400);
        let mut pieces = even(&whole, 8);
        train(talk, &whole, &pieces, "forwards");
        pieces.reverse();
        train(talk, &whole, &pieces, "backwards");
        let (odd, even): (Vec<_>, Vec<_>) = pieces.iter().partition(|piece| piece.0 % 16 == 8);
        train(talk, &whole, &[odd, even].concat(), "alternating");
    });
    // What comes of them is told by the reset that answers them: thousands of fragments at once would not all come out.
    let thousands = both(|talk| {
        let (client, server) = talk.addresses(Client);
        for (port, len) in [(1, 16_980), (2, 32_000), (3, 65_000)] {
            let whole = tcp(client, server).ports(port, 81).syn().payload(&vec![7; len]).build();
            let mut pieces = even(&whole, 8);
            if talk.six {
                // Of IPv6 the first one must have all of the header.
                pieces.splice(..3, [(0, 24, true)]);
            }
            if port == 2 {
                pieces.reverse();
            }
            train(talk, &whole, &pieces, &format!("{len} bytes"));
        }
    });
    let longest = both(|talk| {
        let whole = datagram(talk, 9, 60_000);
        let fixed = if talk.six { 65_535 } else { 65_515 };
        for len in [fixed - 8, fixed - 1, fixed] {
            let mut pieces = even(&whole, 7_200);
            let last = pieces.last_mut().unwrap();
            (last.1, last.2) = (len, false);
            // Longer than what is there: the rest is made up by the next one.
            let mut long = whole.clone();
            long.resize(whole.len() - 60_008 + len, 5);
            train(talk, &long, &pieces, &format!("{len} bytes"));
        }
        if !talk.six {
            let mut long = whole.clone();
            long.resize(34 + 65_600, 5);
            for len in [65_516, 65_528, 65_535, 65_536, 65_600] {
                let mut pieces = even(&whole, 7_200);
                pieces.last_mut().unwrap().1 = 64_800;
                pieces.last_mut().unwrap().2 = true;
                pieces.push((64_800, len, false));
                train(talk, &long, &pieces, &format!("{len} bytes, too many"));
            }
        }
    });
    let interleaved = both(|talk| {
        let whole = datagram(talk, 9, 100);
        let count = if talk.six { 300 } else { 64 };
        for half in HALVES {
            for id in 1..=count {
                piece(talk, &whole, half, id, &format!("of {count}"));
            }
        }
        // However many senders there are.
        let mut whole = whole;
        for half in HALVES {
            for n in 0..=255 {
                whole[if talk.six { 30 } else { 29 }] = n;
                piece(talk, &whole, half, 1, "of many senders");
            }
        }
    });
    let resets = "*filter\n-A FORWARD -p tcp --dport 81 -j REJECT --reject-with tcp-reset\nCOMMIT\n";
    let much: &[(&str, &str)] = &[("ipfrag_high_thresh", "16000000"), ("frag6_high_thresh", "16000000")];
    perform(&[
        ("hundreds", PLAIN, &hundreds),
        ("interleaved", PLAIN, &interleaved),
        ("longest", PLAIN, &longest),
    ]);
    perform_on_router(&[("thousands", Setting { v4: resets, v6: resets, sysctls: much }, &thousands)]);
}

#[test]
fn rejected_fragments_are_answered_alike() {
    let rules = |port_unreachable: &str| {
        format!(
            "*filter\n-A FORWARD -p tcp --dport 81 -j REJECT --reject-with tcp-reset\n\
             -A FORWARD -p tcp --dport 82 -j REJECT --reject-with {port_unreachable}\n\
             -A FORWARD -p udp -j REJECT --reject-with {port_unreachable}\nCOMMIT\n"
        )
    };
    let (v4, v6) = (rules("icmp-port-unreachable"), rules("icmp6-port-unreachable"));
    let scenario = both(|talk| {
        let (client, server) = talk.addresses(Client);
        for len in [100, 400, 500, 520, 530, 560, 1_000, 1_200, 1_230, 1_300, 3_000, 20_000] {
            for piece_len in [40, 480, 1_480] {
                let body = vec![1; len];
                for (name, packet) in [
                    ("udp", udp(client, server).ports(1, 53)),
                    ("tcp", tcp(client, server).ports(1, 82).syn()),
                    ("reset", tcp(client, server).ports(1, 81).syn().numbers(7, 9)),
                    ("reset to an ack", tcp(client, server).ports(1, 81).ack().numbers(7, 9)),
                    ("no reset to a reset", tcp(client, server).ports(1, 81).rst().numbers(7, 9)),
                    ("bad checksum", udp(client, server).ports(1, 53).bad_checksum()),
                    ("reset, bad checksum", tcp(client, server).ports(1, 81).syn().bad_checksum()),
                ] {
                    let whole = packet.payload(&body).build();
                    let pieces = even(&whole, piece_len);
                    if pieces.len() > 1 {
                        train(talk, &whole, &pieces, &format!("{name}, {len} bytes"));
                    }
                }
            }
        }
    });
    perform_on_router(&[("rejected", Setting { v4: &v4, v6: &v6, sysctls: &[] }, &scenario)]);
}
