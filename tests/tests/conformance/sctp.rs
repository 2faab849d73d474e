//! SCTP: every state and chunk, verification tags, bundles, checksums.

use super::stage::Setting;
use super::talk::{Client, End, Server, Talk, perform};
use control::cli::Output;
use dataplane::packet::proto;
use dataplane::testing::packets::{Builder, ip};
use dataplane::wire::checksum::crc32c;

const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const SHUTDOWN_COMPLETE: u8 = 14;
/// Tags that packets to the server and to the client carry.
const TAGS: [u32; 2] = [0x2222_2222, 0x1111_1111];

fn chunk(kind: u8, flags: u8, tag: u32) -> Vec<u8> {
    let body = if matches!(kind, INIT | INIT_ACK) {
        [&tag.to_be_bytes()[..], &[0, 1, 0, 0, 0, 5, 0, 5, 0, 0, 0, 9]].concat()
    } else {
        vec![0; 12]
    };
    [&[kind, flags, 0, u8::try_from(4 + body.len()).unwrap()], &body[..]].concat()
}

fn packet(talk: &Talk<'_>, from: End, tag: u32, chunks: &[u8]) -> Builder {
    let (src, dst) = talk.addresses(from);
    let (sport, dport) = if from == Client { talk.ports } else { (talk.ports.1, talk.ports.0) };
    let head = [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &tag.to_be_bytes()].concat();
    let sum = crc32c(&[&head, &[0; 4], chunks]).to_le_bytes();
    ip(src, dst, proto::SCTP).payload(&[&head[..], &sum, chunks].concat())
}

/// What starts an association.
pub(super) fn init(talk: &Talk<'_>) -> Builder {
    packet(talk, Client, 0, &chunk(INIT, 0, TAGS[1]))
}

fn send_raw(talk: &mut Talk<'_>, from: End, tag: u32, chunks: &[u8], note: &str) {
    let packet = packet(talk, from, tag, chunks);
    talk.send(from, &packet, note);
}

fn says(talk: &mut Talk<'_>, from: End, kind: u8) {
    let own = usize::from(from == Server);
    // INIT carries no tag, and announces the one it wants to be sent.
    let tag = if kind == INIT { 0 } else { TAGS[own] };
    send_raw(
        talk,
        from,
        tag,
        &chunk(kind, 0, TAGS[1 - own]),
        &format!("[{}] {from:?} chunk {kind}", talk.ports.0),
    );
}

const STATES: [&[(End, u8)]; 9] = [
    &[],
    &[(Client, INIT)],
    &[(Client, INIT), (Server, INIT_ACK)],
    &[(Client, INIT), (Server, INIT_ACK), (Client, COOKIE_ECHO)],
    &[(Client, INIT), (Server, INIT_ACK), (Client, COOKIE_ECHO), (Server, COOKIE_ACK)],
    &[(Client, INIT), (Server, INIT_ACK), (Client, COOKIE_ECHO), (Server, COOKIE_ACK), (Client, SHUTDOWN)],
    &[(Client, INIT), (Server, INIT_ACK), (Client, COOKIE_ECHO), (Server, COOKIE_ACK), (Server, SHUTDOWN)],
    &[
        (Client, INIT),
        (Server, INIT_ACK),
        (Client, COOKIE_ECHO),
        (Server, COOKIE_ACK),
        (Client, SHUTDOWN),
        (Server, SHUTDOWN_ACK),
    ],
    &[(Client, 4)],
];

#[test]
fn every_state_meets_every_chunk_from_either_side() {
    let scenario = |six: bool| {
        move |talk: &mut Talk<'_>| {
            talk.six = six;
            for reach in STATES {
                for from in [Client, Server] {
                    for kind in 0..=16 {
                        for (end, kind) in reach {
                            says(talk, *end, *kind);
                        }
                        says(talk, from, kind);
                        says(talk, Client, 0);
                        says(talk, Server, 3);
                        talk.again();
                    }
                }
            }
            talk.stage.compare_lists();
        }
    };
    perform(&[("ipv4", PLAIN, &scenario(false)), ("ipv6", PLAIN, &scenario(true))]);
}

#[test]
fn tags_bundles_and_checksums_are_judged_alike() {
    let tags = |talk: &mut Talk<'_>| {
        for reach in STATES {
            for from in [Client, Server] {
                for kind in [
                    0,
                    INIT,
                    INIT_ACK,
                    4,
                    5,
                    6,
                    SHUTDOWN,
                    SHUTDOWN_ACK,
                    9,
                    COOKIE_ECHO,
                    COOKIE_ACK,
                    SHUTDOWN_COMPLETE,
                ] {
                    for (tag, flags) in
                        [(0, 0), (0x3333_3333, 0), (TAGS[0], 1), (TAGS[1], 1), (TAGS[1], 0), (TAGS[0], 0)]
                    {
                        for (end, kind) in reach {
                            says(talk, *end, *kind);
                        }
                        let announced = TAGS[usize::from(from == Client)];
                        let note =
                            format!("[{}] {from:?} chunk {kind} flags {flags} tag {tag:#x}", talk.ports.0);
                        send_raw(talk, from, tag, &chunk(kind, flags, announced), &note);
                        says(talk, Client, 0);
                        says(talk, Server, 3);
                        talk.again();
                    }
                }
            }
        }
    };
    let probes = |talk: &mut Talk<'_>| {
        for strange in [0x4444, 0x5555] {
            for (end, kind) in STATES[4] {
                says(talk, *end, *kind);
            }
            send_raw(talk, Client, strange, &chunk(4, 0, 0), "heartbeat with a strange tag");
            send_raw(talk, Server, 0x7777, &chunk(5, 0, 0), "answered with another");
            send_raw(talk, Server, 0x7777, &chunk(0, 0, 0), "data with it");
            send_raw(talk, Client, strange, &chunk(0, 0, 0), "data with the strange one");
            send_raw(talk, Client, strange, &chunk(4, 0, 0), "heartbeat again");
            says(talk, Client, 0);
            says(talk, Server, 0);
            send_raw(
                talk,
                Client,
                strange,
                &[chunk(4, 0, 0), chunk(0, 0, 0)].concat(),
                "heartbeat with data",
            );
            talk.again();
        }
    };
    let bundles = |talk: &mut Talk<'_>| {
        for first in [
            0,
            INIT,
            INIT_ACK,
            3,
            4,
            5,
            6,
            SHUTDOWN,
            SHUTDOWN_ACK,
            9,
            COOKIE_ECHO,
            COOKIE_ACK,
            SHUTDOWN_COMPLETE,
        ] {
            for second in [
                0,
                INIT,
                INIT_ACK,
                4,
                5,
                6,
                SHUTDOWN,
                SHUTDOWN_ACK,
                COOKIE_ECHO,
                COOKIE_ACK,
                SHUTDOWN_COMPLETE,
                192,
            ] {
                for reach in [STATES[0], STATES[3], STATES[4]] {
                    for (end, kind) in reach {
                        says(talk, *end, *kind);
                    }
                    let both = [chunk(first, 0, TAGS[1]), chunk(second, 0, TAGS[1])].concat();
                    send_raw(
                        talk,
                        Client,
                        if first == INIT { 0 } else { TAGS[0] },
                        &both,
                        &format!("{first} and {second}"),
                    );
                    says(talk, Server, 0);
                    talk.again();
                }
            }
        }
    };
    let broken = |talk: &mut Talk<'_>| {
        says(talk, Client, INIT);
        says(talk, Client, INIT);
        says(talk, Server, INIT);
        says(talk, Server, INIT_ACK);
        says(talk, Client, INIT_ACK);
        says(talk, Client, COOKIE_ECHO);
        talk.again();
        for bytes in [
            &[][..],
            &[1, 0, 0, 20],
            &[1, 0, 0, 0],
            &[0, 0, 0, 3, 0, 0, 0, 4],
            &[4, 0],
            &[4, 0, 0, 4],
            &[4, 0, 0, 5, 9],
            &[1, 0, 0, 20, 0, 0, 0, 1],
        ] {
            send_raw(talk, Client, 0, bytes, &format!("chunks {bytes:?}"));
            talk.again();
        }
        let (src, dst) = talk.addresses(Client);
        for len in [0, 3, 4, 8, 11, 12, 15, 16] {
            talk.send(
                Client,
                &ip(src, dst, proto::SCTP)
                    .payload(&[0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 4][..len]),
                &format!("cut to {len}"),
            );
        }
    };
    perform(&[
        ("tags", PLAIN, &tags),
        ("probes", PLAIN, &probes),
        ("bundles", PLAIN, &bundles),
        ("broken", PLAIN, &broken),
        ("unchecked", Setting { sysctls: &[("checksum", "0")], ..PLAIN }, &broken),
    ]);
}

#[test]
fn timers_run_alike() {
    let short: &[(&str, &str)] = &[
        ("sctp_timeout_closed", "6"),
        ("sctp_timeout_cookie_wait", "11"),
        ("sctp_timeout_cookie_echoed", "16"),
        ("sctp_timeout_established", "21"),
        ("sctp_timeout_shutdown_sent", "26"),
        ("sctp_timeout_shutdown_recd", "31"),
        ("sctp_timeout_shutdown_ack_sent", "36"),
        ("sctp_timeout_heartbeat_sent", "41"),
    ];
    let shortest: &[(&str, &str)] = &[
        ("sctp_timeout_closed", "1"),
        ("sctp_timeout_cookie_wait", "2"),
        ("sctp_timeout_cookie_echoed", "3"),
        ("sctp_timeout_established", "4"),
        ("sctp_timeout_shutdown_sent", "1"),
        ("sctp_timeout_shutdown_recd", "2"),
        ("sctp_timeout_shutdown_ack_sent", "3"),
        ("sctp_timeout_heartbeat_sent", "4"),
    ];
    // Each state, alone and after what refreshes it or does not.
    let reach = |talk: &mut Talk<'_>| {
        for state in STATES {
            for after in [None, Some((Client, 4)), Some((Server, 5)), Some((Client, 0)), Some((Server, 9))] {
                for (end, kind) in state.iter().chain(&after) {
                    says(talk, *end, *kind);
                }
                talk.again();
            }
        }
        talk.stage.compare_lists();
    };
    let expire = |talk: &mut Talk<'_>| {
        let first = talk.ports.0;
        reach(talk);
        for _ in 0..4 {
            talk.waits(1.2);
            talk.stage.compare_lists();
        }
        for port in first..talk.ports.0 {
            talk.ports.0 = port;
            says(talk, Client, 0);
        }
    };
    perform(&[
        ("each its own", Setting { sysctls: short, ..PLAIN }, &reach),
        ("running out", Setting { sysctls: shortest, ..PLAIN }, &expire),
    ]);
}

#[test]
fn associations_tell_what_happens_to_them_as_conntrack_tells_it() {
    let scenario = |talk: &mut Talk<'_>| {
        talk.stage.listen("", Output::default());
        for reach in STATES {
            for kind in [INIT, INIT_ACK, 3, 4, 5, 6, SHUTDOWN, SHUTDOWN_ACK, COOKIE_ECHO, SHUTDOWN_COMPLETE] {
                for (end, kind) in reach {
                    says(talk, *end, *kind);
                }
                says(talk, Client, kind);
                says(talk, Server, kind);
                talk.again();
            }
        }
        talk.stage.compare_events();
        talk.stage.forget();
        talk.stage.compare_events();
    };
    perform(&[("events", PLAIN, &scenario)]);
}
