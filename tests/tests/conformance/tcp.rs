//! TCP: every state and flag set, window edges, resets, reopening, pickup, timers. IPv4 unless it says otherwise.

use super::stage::Setting;
use super::talk::{Client, End, Server, Talk, perform};

const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

/// Flag sets tried in every cell: the legal classes and, once each, the illegal ones.
const FLAG_SETS: [&str; 18] = [
    "S", "SA", "F", "FA", "A", "R", "RA", "SU", "FAU", "AU", "AP", "SE", "SECP", "", "SF", "SR", "RU",
    "FSRPAU",
];

/// Brings a connection into a state.
type Reach = fn(&mut Talk<'_>);

/// Ways to bring a connection into each state.
const STATES: [(&str, Reach); 11] = [
    ("none", |_| {}),
    ("syn sent", |talk| talk.says(Client, "S", 0, 0, 0)),
    ("syn recv", |talk| {
        talk.says(Client, "S", 0, 0, 0);
        talk.says(Server, "SA", 0, 1, 0);
    }),
    ("established", |talk| talk.opens()),
    ("assured with data", |talk| {
        talk.opens();
        talk.says(Client, "AP", 1, 1, 10);
        talk.says(Server, "AP", 1, 11, 20);
        talk.says(Client, "A", 11, 21, 0);
    }),
    ("fin wait", |talk| {
        talk.opens();
        talk.says(Client, "FA", 1, 1, 0);
    }),
    ("close wait", |talk| {
        talk.opens();
        talk.says(Client, "FA", 1, 1, 0);
        talk.says(Server, "A", 1, 2, 0);
    }),
    ("last ack", |talk| {
        talk.opens();
        talk.says(Client, "FA", 1, 1, 0);
        talk.says(Server, "FA", 1, 2, 0);
    }),
    ("time wait", |talk| {
        talk.opens();
        talk.says(Client, "FA", 1, 1, 0);
        talk.says(Server, "FA", 1, 2, 0);
        talk.says(Client, "A", 2, 2, 0);
    }),
    ("close", |talk| {
        talk.opens();
        talk.says(Server, "R", 1, 0, 0);
    }),
    ("syn sent 2", |talk| {
        talk.says(Client, "S", 0, 0, 0);
        talk.says(Server, "S", 0, 0, 0);
    }),
];

/// After the packet in question a few that show what it did.
fn aftermath(talk: &mut Talk<'_>) {
    talk.says(Client, "A", 1, 1, 0);
    talk.says(Server, "A", 1, 1, 0);
    talk.says(Client, "S", 500, 0, 0);
}

#[test]
fn every_state_meets_every_flag_set_from_either_side() {
    let all = |six: bool| {
        move |talk: &mut Talk<'_>| {
            talk.six = six;
            for (_, reach) in STATES {
                for from in [Client, Server] {
                    for flags in FLAG_SETS {
                        for (seq, ack) in [(1, 1), (2, 2), (0, 0)] {
                            reach(talk);
                            talk.says(from, flags, seq, ack, 0);
                            aftermath(talk);
                            talk.again();
                        }
                    }
                }
            }
        }
    };
    let strict = Setting { sysctls: &[("tcp_loose", "0")], ..PLAIN };
    let liberal = Setting { sysctls: &[("tcp_be_liberal", "1")], ..PLAIN };
    let lax = Setting { sysctls: &[("tcp_ignore_invalid_rst", "1")], ..PLAIN };
    perform(&[
        ("ipv4", PLAIN, &all(false)),
        ("ipv6", PLAIN, &all(true)),
        ("strict", strict, &all(false)),
        ("liberal", liberal, &all(false)),
        ("invalid rst ignored", lax, &all(false)),
    ]);
}

#[test]
fn windows_are_judged_to_the_byte() {
    let edges = |options: bool| {
        move |talk: &mut Talk<'_>| {
            talk.options = options;
            let scale = if options { 7 } else { 0 };
            let window = 64_240_i64 << scale;
            for from in [Client, Server] {
                for base in [1, 1 + window, 1 + 2 * window, 1 - window, -window, 1 - 66_000, 1 - 2 * window] {
                    for delta in -3..=3 {
                        // Data at the edge, then an acknowledgement at the edge.
                        for (seq, ack, len) in [
                            (base + delta, 1, 1),
                            (base + delta, 1, 0),
                            (base + delta, 1, 100),
                            (1, base + delta, 0),
                        ] {
                            talk.opens();
                            talk.says(Client, "AP", 1, 1, 5);
                            talk.says(Server, "AP", 1, 6, 5);
                            talk.says(from, "A", seq + 5, ack + 5, usize::try_from(len).unwrap());
                            talk.says(Client, "A", 6, 6, 0);
                            talk.says(Server, "A", 6, 6, 0);
                            talk.again();
                        }
                    }
                }
            }
        }
    };
    // A FIN takes one number more than its data: at the edge, with and without some, again, and from both sides.
    let fin = |options: bool| {
        move |talk: &mut Talk<'_>| {
            talk.options = options;
            let window = 64_240_i64 << if options { 7 } else { 0 };
            for from in [Client, Server] {
                let other = if from == Client { Server } else { Client };
                for base in [1, 1 + window, 1 + 2 * window, 1 - window, -window, 1 - 66_000] {
                    for delta in -3..=3 {
                        for (len, ack) in [(0, 1), (1, 1), (100, 1), (0, 1 + window), (0, -66_000)] {
                            talk.opens();
                            talk.says(Client, "AP", 1, 1, 5);
                            talk.says(Server, "AP", 1, 6, 5);
                            let seq = base + delta + 5;
                            talk.says(from, "FA", seq, ack + 5, usize::try_from(len).unwrap());
                            talk.says(other, "A", 6, seq + len + 1, 0);
                            talk.says(other, "FA", 6, 6, 0);
                            talk.says(from, "A", 6, 7, 0);
                            talk.says(from, "FA", 6, 6, 0);
                            talk.again();
                        }
                    }
                }
            }
        }
    };
    let sack = |talk: &mut Talk<'_>| {
        for right in [-70_000_i64, -1, 0, 1, 2, 5, 6, 7, 100] {
            talk.opens();
            talk.says(Client, "AP", 1, 1, 5);
            let edge = u32::try_from(i64::from(super::talk::ISN[0]) + right).unwrap().to_be_bytes();
            let mut options = vec![1, 1, 5, 10];
            options.extend((super::talk::ISN[0] - 9).to_be_bytes());
            options.extend(edge);
            let packet = talk.segment(Server, 1, 3).ack().tcp_options(&options);
            talk.send(Server, &packet, &format!("SACK to {right}"));
            talk.says(Server, "A", 1, 6, 0);
            talk.again();
        }
    };
    let zero = |talk: &mut Talk<'_>| {
        talk.opens();
        let closed = talk.segment(Server, 1, 1).ack().window(0);
        talk.send(Server, &closed, "window closed");
        for (seq, len) in [(1, 1), (2, 1), (1, 2), (3, 1)] {
            talk.says(Client, "A", seq, 1, len);
        }
        let open = talk.segment(Server, 1, 2).ack().window(1);
        talk.send(Server, &open, "window opened");
        talk.says(Client, "A", 2, 1, 200);
    };
    perform(&[
        ("scaled", PLAIN, &edges(true)),
        ("unscaled", PLAIN, &edges(false)),
        ("fin, scaled", PLAIN, &fin(true)),
        ("fin, unscaled", PLAIN, &fin(false)),
        ("sack", PLAIN, &sack),
        ("zero window", PLAIN, &zero),
    ]);
}

/// Options of a segment of an open connection: what of them counts, of 40 bytes that say anything.
#[test]
fn options_of_an_open_connection_are_read_as_the_kernel_reads_them() {
    // Blocks up to so many bytes beyond what was sent by the other side, or within it.
    let block = |right: i64| {
        let at = |offset: i64| u32::try_from(i64::from(super::talk::ISN[0]) + offset).unwrap().to_be_bytes();
        [at(1), at(right)].concat()
    };
    let (within, beyond) = (block(4), block(900));
    let sack = |blocks: &[&[u8]]| {
        let body = blocks.concat();
        [&[5, u8::try_from(2 + body.len()).unwrap()], &body[..]].concat()
    };
    let mut bombs: Vec<Vec<u8>> = vec![
        sack(&[&within]),
        sack(&[&beyond]),
        // As many as fit, the last one beyond; and one more than that, cut off.
        sack(&[&within, &within, &within, &beyond]),
        [sack(&[&within, &within, &within, &within]), vec![1; 6]].concat(),
        [&[5, 42][..], &within, &within, &within, &within, &[0; 6]].concat(),
        // None, half of one, one and a half.
        vec![5, 2, 1, 1],
        [&[5, 6][..], &beyond[..4], &[1, 1]].concat(),
        [&[5, 14][..], &beyond, &beyond[4..], &[1, 1]].concat(),
        [&[5, 9][..], &beyond[..7], &[1, 1, 1]].concat(),
        // Lengths that are none.
        [&[5, 0][..], &beyond, &[1, 1]].concat(),
        [&[5, 1][..], &beyond, &[1, 1]].concat(),
        vec![5, 255, 1, 1],
        vec![5],
        // Behind something that ends the search, or does not.
        [&[0, 1, 1, 1][..], &sack(&[&beyond])].concat(),
        [&[1; 12][..], &sack(&[&beyond])].concat(),
        [&[99, 0, 1, 1][..], &sack(&[&beyond])].concat(),
        [&[99, 1, 1, 1][..], &sack(&[&beyond])].concat(),
        [&[99, 2, 1, 1][..], &sack(&[&beyond])].concat(),
        [&[99, 3, 0, 1][..], &sack(&[&beyond])].concat(),
        [&[99, 200, 1, 1][..], &sack(&[&beyond])].concat(),
        [&[4, 2, 1, 1][..], &sack(&[&beyond])].concat(),
        [&[8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1][..], &sack(&[&beyond])].concat(),
        // Inside another option, and behind one.
        [&[99, 14, 1, 1][..], &sack(&[&beyond])].concat(),
        [sack(&[&within]), sack(&[&beyond])].concat(),
        [sack(&[&beyond]), sack(&[&within])].concat(),
        // Nothing but a timestamp, in a form that is not the usual one; and the usual one with more behind.
        [&[8, 10, 0, 0, 0, 1, 0, 0, 0, 2][..], &[1, 1]].concat(),
        [&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2][..], &sack(&[&beyond])].concat(),
        [&[1, 1, 8, 10][..], &sack(&[&beyond])[..6], &[1, 1]].concat(),
        // What only a SYN may say.
        vec![3, 3, 14, 1],
        [&[3, 3, 14, 4, 2, 1, 1, 1][..], &sack(&[&beyond])].concat(),
    ];
    bombs.extend((0..=9).chain([30, 253, 255]).map(|kind| vec![kind; 40]));
    bombs.extend((0..=9).map(|kind| [kind, 40].into_iter().chain([kind; 38]).collect()));
    let scenario = |with_sack: bool, six: bool| {
        let bombs = &bombs;
        move |talk: &mut Talk<'_>| {
            talk.six = six;
            talk.options = with_sack;
            for options in bombs {
                for flags in ["A", "AP", "FA", "RA", "SA"] {
                    talk.opens();
                    talk.says(Client, "AP", 1, 1, 5);
                    let bits = super::talk::flag_bits(flags);
                    let packet = talk.segment(Server, 1, 3).flags(bits).tcp_options(options);
                    talk.send(Server, &packet, &format!("{flags} with {options:?}"));
                    talk.says(Server, "A", 1, 6, 0);
                    talk.says(Client, "A", 6, 1, 1);
                    talk.says(Server, "A", 1, 900, 0);
                    talk.again();
                }
            }
            talk.stage.compare_lists();
        }
    };
    perform(&[
        ("sack permitted", PLAIN, &scenario(true, false)),
        ("sack not permitted", PLAIN, &scenario(false, false)),
        ("ipv6", PLAIN, &scenario(true, true)),
        ("liberal", Setting { sysctls: &[("tcp_be_liberal", "1")], ..PLAIN }, &scenario(true, false)),
    ]);
}

#[test]
fn options_of_a_syn_are_read_as_the_kernel_reads_them() {
    let odd: &[&[u8]] = &[
        &[],
        &[3, 3, 0],
        &[3, 3, 14],
        &[3, 3, 15],
        &[3, 3, 200],
        &[3, 2, 7],
        &[3, 4, 7, 7],
        &[3],
        &[3, 0],
        &[0, 3, 3, 7],
        &[1, 1, 1, 1, 3, 3, 2],
        &[4, 2],
        &[4, 3, 0],
        &[8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 2],
        &[99, 4, 1, 1, 3, 3, 2],
        &[99, 1, 3, 3, 2],
        &[99, 50, 3, 3, 2],
        &[3, 3, 2, 3, 3, 5],
        &[
            2, 4, 5, 180, 4, 2, 3, 3, 9, 253, 30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0,
        ],
    ];
    let scenario = |talk: &mut Talk<'_>| {
        for theirs in odd {
            for ours in [&[3_u8, 3, 4][..], theirs] {
                let syn = talk.segment(Client, 0, 0).syn().tcp_options(theirs);
                talk.send(Client, &syn, &format!("SYN {theirs:?}"));
                let syn_ack = talk.segment(Server, 0, 1).syn_ack().tcp_options(ours);
                talk.send(Server, &syn_ack, &format!("SYN-ACK {ours:?}"));
                talk.says(Client, "A", 1, 1, 0);
                for reach in [60_000, 64_241, 70_000, 300_000, 1_100_000, 200_000_000] {
                    talk.says(Server, "A", reach, 1, 1);
                    talk.says(Client, "A", reach, 1, 1);
                }
                talk.again();
            }
        }
    };
    perform(&[("options", PLAIN, &scenario)]);
}

#[test]
fn resets_close_only_what_they_may() {
    let scenario = |talk: &mut Talk<'_>| {
        for from in [Client, Server] {
            for seq in [-70_000, -1, 0, 1, 5, 6, 7, 11, 12, 100, 64_240, 70_000, 9_000_000] {
                for flags in ["R", "RA"] {
                    for acked in [true, false] {
                        talk.opens();
                        talk.says(Client, "AP", 1, 1, 5);
                        talk.says(Server, "AP", 1, 1, 10);
                        if acked {
                            talk.says(Server, "A", 11, 6, 0);
                            talk.says(Client, "A", 6, 11, 0);
                        }
                        talk.says(from, flags, seq, 6, 0);
                        talk.says(Client, "A", 6, 11, 0);
                        talk.says(Server, "A", 11, 6, 1);
                        talk.says(Client, "S", 100, 0, 0);
                        talk.again();
                    }
                }
            }
        }
    };
    let unanswered = |talk: &mut Talk<'_>| {
        for (flags, seq, ack) in
            [("RA", 0, 1), ("RA", 0, 2), ("RA", 0, 0), ("R", 0, 0), ("R", 1, 0), ("RA", 5, 1)]
        {
            talk.says(Client, "S", 0, 0, 0);
            talk.says(Server, flags, seq, ack, 0);
            talk.says(Client, "S", 0, 0, 0);
            talk.says(Server, "SA", 0, 1, 0);
            talk.again();
        }
    };
    let after_ignored = |talk: &mut Talk<'_>| {
        let between = i64::from(super::talk::ISN[0]) - i64::from(super::talk::ISN[1]);
        let far = 90_000_000;
        // A reset that answers a SYN we let through, from its receiver and from its sender.
        for (from, ack) in [(Client, 7_001 + between), (Server, 7_001), (Server, 7_002)] {
            talk.opens();
            talk.says(Client, "S", 7_000, 0, 0);
            talk.says(from, "RA", far, ack, 0);
            talk.says(Server, "A", 1, 1, 0);
            talk.again();
        }
        // The same for an ACK in a connection that is half open.
        for (from, ack) in [(Server, 1 - between), (Client, 1)] {
            talk.says(Client, "S", 0, 0, 0);
            talk.says(Server, "SA", 0, 1, 0);
            talk.says(Server, "A", 1, 1, 0);
            talk.says(from, "RA", far, ack, 0);
            talk.says(Server, "A", 1, 1, 0);
            talk.again();
        }
        // A SYN sent again after its answer was ignored.
        for (flags, seq) in [("R", 1), ("RA", 1), ("RA", 0), ("RA", 11)] {
            for len in [0, 10] {
                talk.says(Client, "S", 0, 0, 0);
                talk.says(Server, "A", 10, 1, 0);
                talk.says(Client, "S", 0, 0, len);
                talk.says(Client, flags, seq, 10, 0);
                talk.says(Server, "A", 10, 1, 0);
                talk.again();
            }
        }
    };
    perform(&[
        ("resets", PLAIN, &scenario),
        ("refused", PLAIN, &unanswered),
        ("after ignored ones", PLAIN, &after_ignored),
    ]);
}

#[test]
fn known_tricks_are_judged_alike() {
    let challenge = |talk: &mut Talk<'_>| {
        // A SYN inside an open connection, answered by a challenge ACK, answered by an exact reset.
        talk.opens();
        talk.says(Client, "S", 7_000, 0, 0);
        talk.says(Server, "A", 1, 1, 0);
        talk.says(Client, "R", 1, 0, 0);
        talk.says(Client, "S", 7_000, 0, 0);
        talk.says(Server, "SA", 9_000, 7_001, 0);
        talk.says(Client, "A", 7_001, 9_001, 0);
        talk.again();
        // A lost RST: the old connection is still there when the client starts over.
        for state in [5, 6, 7, 8] {
            STATES[state].1(talk);
            talk.says(Client, "S", 50_000, 0, 0);
            talk.says(Server, "A", 2, 2, 0);
            talk.says(Client, "R", 2, 0, 0);
            talk.says(Client, "S", 50_000, 0, 0);
            talk.says(Server, "SA", 80_000, 50_001, 0);
            talk.says(Client, "A", 50_001, 80_001, 0);
            talk.again();
        }
    };
    let resync = |talk: &mut Talk<'_>| {
        talk.opens();
        talk.says(Client, "S", 7_000, 0, 0);
        talk.says(Server, "SA", 9_000, 7_001, 0);
        talk.says(Client, "A", 7_001, 9_001, 0);
        talk.says(Client, "AP", 7_001, 9_001, 10);
        talk.again();
        // A late SYN-ACK of an earlier attempt, below and above what was sent.
        for ack in [-5, 0, 1, 2, 500] {
            talk.says(Client, "S", 0, 0, 0);
            talk.says(Server, "SA", 4_000, ack, 0);
            talk.says(Client, "R", 1, 0, 0);
            talk.says(Client, "S", 0, 0, 0);
            talk.says(Server, "SA", 0, 1, 0);
            talk.says(Client, "A", 1, 1, 0);
            talk.again();
        }
        // SYNs sent again, the same, higher and lower.
        for seq in [0, 10, -10] {
            talk.says(Client, "S", 0, 0, 0);
            talk.says(Client, "S", seq, 0, 0);
            talk.says(Server, "SA", 0, seq + 1, 0);
            talk.says(Client, "A", seq + 1, 1, 0);
            talk.again();
        }
    };
    let resync_of_a_pickup = |talk: &mut Talk<'_>| {
        talk.says(Client, "A", 1, 1, 0);
        talk.says(Server, "A", 1, 1, 0);
        talk.says(Client, "S", 0, 0, 0);
        talk.says(Server, "SA", 0, 1, 0);
        talk.says(Client, "A", 1, 1, 0);
        talk.says(Server, "A", 1, 71_102, 0);
        talk.says(Client, "A", 1, 71_102, 0);
    };
    let odd_opens = |talk: &mut Talk<'_>| {
        // Simultaneous open, split handshake, data with the SYN, LAND.
        talk.says(Client, "S", 0, 0, 0);
        talk.says(Server, "S", 0, 0, 0);
        talk.says(Client, "SA", 0, 1, 0);
        talk.says(Server, "SA", 0, 1, 0);
        talk.says(Client, "A", 1, 1, 5);
        talk.says(Server, "A", 1, 6, 5);
        talk.again();
        talk.says(Client, "S", 0, 0, 0);
        talk.says(Server, "A", 0, 1, 0);
        talk.says(Server, "S", 0, 0, 0);
        talk.says(Client, "SA", 0, 1, 0);
        talk.says(Server, "A", 1, 1, 0);
        talk.again();
        talk.says(Client, "S", 0, 0, 100);
        talk.says(Server, "SA", 0, 101, 0);
        talk.says(Client, "A", 101, 1, 0);
        talk.again();
        let (client, _) = talk.addresses(Client);
        let land = dataplane::testing::packets::tcp(client, client).ports(99, 99).syn();
        for _ in 0..3 {
            talk.send(Client, &land, "LAND");
        }
    };
    let reopen = |talk: &mut Talk<'_>| {
        for state in [8, 9] {
            for (from, seq) in [(Client, 10_000), (Client, -10_000), (Server, 10_000), (Server, -10_000)] {
                STATES[state].1(talk);
                talk.says(from, "S", seq, 0, 0);
                let other = if from == Client { Server } else { Client };
                talk.says(other, "SA", 77, seq + 1, 0);
                talk.says(from, "A", seq + 1, 78, 3);
                talk.again();
            }
        }
        talk.opens();
        talk.says(Client, "R", 1, 0, 0);
        talk.says(Server, "S", 9, 0, 0);
        talk.says(Client, "S", 9, 0, 0);
    };
    let keepalive = |talk: &mut Talk<'_>| {
        talk.opens();
        for _ in 0..5 {
            talk.says(Client, "A", 0, 1, 1);
            talk.says(Server, "A", 1, 1, 0);
        }
    };
    let asymmetric = |talk: &mut Talk<'_>| {
        talk.says(Client, "S", 0, 0, 0);
        talk.says(Client, "A", 1, 1, 0);
        talk.says(Client, "AP", 1, 1, 100);
        talk.again();
        talk.says(Server, "SA", 0, 1, 0);
        talk.says(Server, "A", 1, 1, 100);
        talk.says(Client, "A", 1, 101, 0);
    };
    perform(&[
        ("challenge", PLAIN, &challenge),
        ("resync", PLAIN, &resync),
        ("resync of a pickup", PLAIN, &resync_of_a_pickup),
        ("odd opens", PLAIN, &odd_opens),
        ("reopen", PLAIN, &reopen),
        ("keepalive", PLAIN, &keepalive),
        ("asymmetric", PLAIN, &asymmetric),
    ]);
}

#[test]
fn pickup_in_the_middle_follows_the_switch() {
    let scenario = |talk: &mut Talk<'_>| {
        for from in [Client, Server] {
            let other: End = if from == Client { Server } else { Client };
            for (flags, len) in [("A", 0), ("AP", 100), ("FA", 0), ("R", 0), ("SA", 0)] {
                talk.says(from, flags, 5_000, 700, len);
                talk.says(other, "A", 700, 5_000 + i64::try_from(len).unwrap(), 0);
                talk.says(from, "A", 5_000, 700, 10);
                talk.says(other, "A", 9_000_000, 5_010, 10);
                talk.says(from, "A", 1, 1, 10);
                talk.says(other, "FA", 700, 5_010, 0);
                talk.again();
            }
        }
    };
    perform(&[
        ("loose", PLAIN, &scenario),
        ("strict", Setting { sysctls: &[("tcp_loose", "0")], ..PLAIN }, &scenario),
    ]);
}

#[test]
fn timers_run_alike() {
    let short: &[(&str, &str)] = &[
        ("tcp_timeout_syn_sent", "2"),
        ("tcp_timeout_syn_recv", "3"),
        ("tcp_timeout_established", "7"),
        ("tcp_timeout_fin_wait", "4"),
        ("tcp_timeout_close_wait", "3"),
        ("tcp_timeout_last_ack", "2"),
        ("tcp_timeout_time_wait", "4"),
        ("tcp_timeout_close", "2"),
    ];
    let expire = |talk: &mut Talk<'_>| {
        for (_, reach) in STATES {
            reach(talk);
            talk.again();
        }
        for _ in 0..4 {
            talk.waits(1.3);
            talk.stage.compare_lists();
        }
        for port in 0..STATES.len() {
            talk.ports.0 = 40_000 + u16::try_from(port).unwrap();
            talk.says(Client, "A", 1, 1, 0);
            talk.says(Server, "A", 1, 1, 0);
        }
    };
    let unacknowledged = |talk: &mut Talk<'_>| {
        talk.opens();
        talk.says(Client, "AP", 1, 1, 100);
        talk.stage.compare_lists();
        talk.says(Server, "A", 1, 101, 0);
        talk.stage.compare_lists();
        for _ in 0..5 {
            talk.says(Client, "AP", 101, 1, 100);
            talk.stage.compare_lists();
        }
        talk.says(Server, "A", 1, 201, 0);
        talk.stage.compare_lists();
        let closed = talk.segment(Server, 1, 201).ack().window(0);
        talk.send(Server, &closed, "window closed");
        talk.stage.compare_lists();
        // Out of window, FIN from one side and RST from the other.
        talk.says(Client, "FA", 9_999_999, 1, 0);
        talk.says(Server, "R", 99_999_999, 0, 0);
        talk.stage.compare_lists();
        talk.again();
        talk.opens();
        talk.says(Server, "R", 100, 0, 0);
        talk.stage.compare_lists();
    };
    perform(&[
        ("short timers", Setting { sysctls: short, ..PLAIN }, &expire),
        ("unacknowledged", PLAIN, &unacknowledged),
        ("max_retrans", Setting { sysctls: &[("tcp_max_retrans", "1")], ..PLAIN }, &unacknowledged),
    ]);
}

#[test]
fn broken_headers_and_checksums_are_invalid_alike() {
    let scenario = |talk: &mut Talk<'_>| {
        talk.opens();
        let data = talk.segment(Client, 1, 1).ack().payload(&[7; 50]);
        talk.send(Client, &data.clone().bad_checksum(), "bad checksum");
        let whole = data.build();
        for (what, at, value) in [
            ("data offset 0", 46, 0x00),
            ("data offset 4", 46, 0x40),
            ("data offset 15", 46, 0xf0),
            ("data offset 14", 46, 0xe0),
            ("urgent pointer", 52, 1),
            ("reserved bits", 46, 0x5e),
        ] {
            let mut frame = whole.clone();
            frame[at] = value;
            fix_checksum(&mut frame);
            talk.stage.send(Client.side(), &frame, what);
        }
        for len in [20, 24, 28, 32, 39] {
            let mut frame = whole[..14 + len].to_vec();
            frame[16..18].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            super::kernel::reseal(&mut frame);
            talk.stage.send(Client.side(), &frame, &format!("cut to {len}"));
        }
        let mut padded = talk.segment(Client, 1, 1).ack().build();
        padded.resize(80, 0xaa);
        talk.stage.send(Client.side(), &padded, "padded");
        talk.says(Client, "A", 1, 1, 1);
    };
    let unchecked = Setting { sysctls: &[("checksum", "0")], ..PLAIN };
    perform(&[("checked", PLAIN, &scenario), ("unchecked", unchecked, &scenario)]);
}

/// Writes the TCP checksum of an IPv4 frame without options.
fn fix_checksum(frame: &mut [u8]) {
    use dataplane::wire::checksum::{finish, sum};
    frame[50..52].fill(0);
    let len = u64::try_from(frame.len() - 34).unwrap();
    let check = finish(sum(&frame[34..], sum(&frame[26..34], 6 + len)));
    frame[50..52].copy_from_slice(&check.to_be_bytes());
}
