//! Seeded random conversations: TCP ends that talk, retransmit and close, on a network that loses, repeats and reorders,
//! with some fields changed on the way; and datagrams, queries and errors between them. A disagreement prints its seed.

use super::stage::Setting;
use super::talk::{Client, End, ISN, SYN_OPTIONS, Server, Talk, flag_bits, perform};
use control::cli::Output;
use dataplane::testing::packets::{Builder, icmp, icmp_error, ip, ping, pong, udp};
use std::env;

/// Packets of a run in CI, all settings together.
const PACKETS: u64 = 120_000;

/// A small generator: enough to be unpredictable to whoever wrote the tracker.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// One end of a connection as its own stack sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Stack {
    next: i64,
    heard: i64,
    closed: bool,
}

/// A connection that two stacks carry on.
#[derive(Debug)]
struct Connection {
    port: u16,
    six: bool,
    stacks: [Stack; 2],
    opened: u8,
    options: bool,
}

fn index(end: End) -> usize {
    usize::from(end == Server)
}

impl Connection {
    fn new(random: &mut Random, port: u16) -> Self {
        Self {
            port,
            six: random.one_in(3),
            stacks: [Stack::default(); 2],
            opened: 0,
            options: !random.one_in(4),
        }
    }

    /// What an end sends next.
    fn step(&mut self, random: &mut Random) -> (End, &'static str, i64, i64, usize) {
        match self.opened {
            0 => {
                self.opened = 1;
                self.stacks[0].next = 1;
                return (Client, "S", 0, 0, 0);
            }
            1 => {
                self.opened = 2;
                self.stacks[1] = Stack { next: 1, heard: 1, closed: false };
                return (Server, "SA", 0, 1, 0);
            }
            2 => {
                self.opened = 3;
                self.stacks[0].heard = 1;
                return (Client, "A", 1, 1, 0);
            }
            _ => {}
        }
        let from = random.pick(&[Client, Server]);
        let other = self.stacks[1 - index(from)].next;
        let stack = &mut self.stacks[index(from)];
        if !random.one_in(4) {
            stack.heard = other;
        }
        let (seq, ack) = (stack.next, stack.heard);
        let roll = random.below(100);
        if roll < 3 && !stack.closed {
            stack.closed = true;
            stack.next += 1;
            (from, "FA", seq, ack, 0)
        } else if roll == 3 {
            (from, random.pick(&["R", "RA"]), seq, ack, 0)
        } else if roll < 50 && !stack.closed {
            let len = usize::try_from(random.pick(&[1, 10, 100, 1000])).unwrap();
            stack.next += i64::try_from(len).unwrap();
            (from, "AP", seq, ack, len)
        } else {
            (from, "A", seq, ack, 0)
        }
    }
}

/// Changes a field or two.
fn mutate(random: &mut Random, (flags, seq, ack, len): (&mut &'static str, &mut i64, &mut i64, &mut usize)) {
    const FLAGS: [&str; 12] = ["S", "SA", "FA", "A", "R", "RA", "AP", "SU", "F", "", "SF", "AU"];
    const JUMPS: [i64; 14] = [
        1,
        -1,
        2,
        100,
        -100,
        1_000,
        -1_000,
        64_240,
        -66_000,
        70_000,
        500_000,
        -500_000,
        8_300_000,
        2_000_000_000,
    ];
    for _ in 0..=random.below(2) {
        match random.below(5) {
            0 => *flags = random.pick(&FLAGS),
            1 => *seq += random.pick(&JUMPS),
            2 => *ack += random.pick(&JUMPS),
            3 => *len = usize::try_from(random.below(1400)).unwrap(),
            _ => {
                *seq += random.pick(&JUMPS);
                *ack += random.pick(&JUMPS);
            }
        }
    }
}

fn segment(
    talk: &mut Talk<'_>,
    connection: &Connection,
    random: &mut Random,
    next: (End, &'static str, i64, i64, usize),
) -> (End, Builder, String) {
    let (from, flags, seq, ack, len) = next;
    talk.six = connection.six;
    talk.ports = (connection.port, 80);
    let has_ack = flags.contains('A');
    let ack_sent = if has_ack || random.one_in(3) { ack } else { -i64::from(ISN[1 - index(from)]) };
    let mut packet = talk.segment(from, seq, ack_sent).flags(flag_bits(flags)).payload(&vec![b'r'; len]);
    if flags.contains('S') && connection.options {
        packet = packet.tcp_options(&SYN_OPTIONS);
    }
    let mut odd = String::new();
    if random.one_in(12) {
        let window = random.pick(&[0, 1, 100, 65_535]);
        odd.push_str(&format!(" win {window}"));
        packet = packet.window(window);
    }
    if random.one_in(40) {
        odd.push_str(" bad checksum");
        packet = packet.bad_checksum();
    }
    if has_ack && connection.options && random.one_in(10) {
        let edge = u32::try_from((i64::from(ISN[1 - index(from)]) + ack + 100) & 0xffff_ffff).unwrap();
        let beyond = random.pick(&[0, 50, 5_000]);
        odd.push_str(&format!(" sack to {}", ack + 100 + i64::from(beyond)));
        let mut options = vec![1, 1, 5, 10];
        options.extend(edge.wrapping_sub(50).to_be_bytes());
        options.extend(edge.wrapping_add(beyond).to_be_bytes());
        packet = packet.tcp_options(&options);
    }
    (from, packet, format!("[{}] {from:?} {flags} seq {seq} ack {ack} len {len}{odd}", connection.port))
}

/// Datagrams, queries, errors about segments that were sent, other protocols.
///
/// Ports change with the `era`, so that no flow is talked about when it turns two seconds old: from then on UDP is a stream,
/// and to the two sides that is not the same packet.
fn other(
    talk: &mut Talk<'_>,
    random: &mut Random,
    era: u64,
    recent: &[(End, Builder)],
) -> (End, Builder, String) {
    let from = random.pick(&[Client, Server]);
    talk.six = random.one_in(2);
    let (src, dst) = talk.addresses(from);
    let port = u16::try_from((era * 6 + random.below(6)) % 50_000).unwrap() + 1;
    let body = vec![1; usize::try_from(random.below(60)).unwrap()];
    let packet = match random.below(8) {
        0..=2 => {
            let ports = if from == Client { (port, 53) } else { (53, port) };
            udp(src, dst).ports(ports.0, ports.1).payload(&body)
        }
        3 => ping(src, dst, port),
        4 => pong(src, dst, port),
        5 => icmp(src, dst, u8::try_from(random.below(256)).unwrap(), u8::try_from(random.below(3)).unwrap())
            .payload(&body),
        6 => ip(src, dst, random.pick(&[2, 47, 50, 89, 103, 253]))
            .payload(&[vec![0x20, 0, 8, 0], body].concat()),
        _ => {
            let same =
                |(_, packet): &&(End, Builder)| packet.build()[12] == if talk.six { 0x86 } else { 0x08 };
            let about: Vec<_> = recent.iter().filter(same).collect();
            let Some((sender, offender)) = about.get(usize::try_from(random.below(16)).unwrap()) else {
                return (from, udp(src, dst).ports(1, 2), format!("{from:?} udp"));
            };
            let (ty, code) = if talk.six {
                random.pick(&[(1, 4), (2, 0), (3, 0), (4, 1)])
            } else {
                random.pick(&[(3, 1), (3, 3), (11, 0), (4, 0), (12, 0), (5, 1)])
            };
            let (_, back) = talk.addresses(random.pick(&[Client, Server]));
            let via = if *sender == Client { Server } else { Client };
            let quote = random.pick(&[20, 24, 28, 40, 44, 48, 60, 200]);
            return (
                via,
                icmp_error(talk.addresses(via).0, back, ty, code, &offender.build(), quote),
                format!("{via:?} error {ty}/{code} quoting {quote}"),
            );
        }
    };
    (from, packet, format!("{from:?} other {port}"))
}

fn run(talk: &mut Talk<'_>, seed: u64, packets: u64) {
    let mut random = Random(seed | 1);
    let mut port = 1_000;
    let mut connections: Vec<Connection> = Vec::new();
    let mut held: Vec<(End, Builder, String)> = Vec::new();
    let mut recent: Vec<(End, Builder)> = Vec::new();
    let mut sent = 0;
    while sent < packets && talk.stage.disagreements.is_empty() {
        if connections.len() < 12 {
            port += 1;
            connections.push(Connection::new(&mut random, port));
        }
        let (from, packet, note) = if random.one_in(6) {
            other(talk, &mut random, sent / 1_000, &recent)
        } else {
            let at = usize::try_from(random.below(connections.len() as u64)).unwrap();
            let mut connection = connections.swap_remove(at);
            let mut next = connection.step(&mut random);
            if random.one_in(8) {
                mutate(&mut random, (&mut next.1, &mut next.2, &mut next.3, &mut next.4));
            }
            let made = segment(talk, &connection, &mut random, next);
            // Some ports are used again at once, most are not.
            if !random.one_in(60) {
                connections.push(connection);
            } else if random.one_in(2) {
                connections.push(Connection { stacks: [Stack::default(); 2], opened: 0, ..connection });
            }
            made
        };
        recent.insert(0, (from, packet.clone()));
        recent.truncate(40);
        if random.one_in(15) {
            continue; // lost
        }
        if random.one_in(12) {
            held.push((from, packet, format!("{note} (late)")));
            continue;
        }
        let copies = if random.one_in(20) { 2 } else { 1 };
        for _ in 0..copies {
            talk.send(from, &packet, &note);
            sent += 1;
        }
        while held.len() > 3 || !held.is_empty() && random.one_in(5) {
            let (from, packet, note) = held.swap_remove(0);
            talk.send(from, &packet, &note);
            sent += 1;
        }
        if sent % 4_000 == 0 {
            talk.stage.compare_lists();
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// What random scenarios start from.
pub(crate) fn seed() -> u64 {
    number("PALISADE_SEED", 0x5eed)
}

/// Seed and number of packets.
fn length() -> (u64, u64) {
    let (seed, packets) = (seed(), number("PALISADE_PACKETS", PACKETS));
    println!("PALISADE_SEED={seed} PALISADE_PACKETS={packets}");
    (seed, packets)
}

#[test]
fn random_conversations_are_judged_alike() {
    let (seed, packets) = length();
    let plain = Setting { v4: "", v6: "", sysctls: &[] };
    let share = packets / 6;
    let first = |talk: &mut Talk<'_>| run(talk, seed, share * 3);
    let second = |talk: &mut Talk<'_>| run(talk, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), share);
    perform(&[
        ("plain", plain, &first),
        ("strict", Setting { sysctls: &[("tcp_loose", "0"), ("tcp_max_retrans", "1")], ..plain }, &second),
        ("liberal", Setting { sysctls: &[("tcp_be_liberal", "1"), ("checksum", "0")], ..plain }, &second),
        ("invalid rst ignored", Setting { sysctls: &[("tcp_ignore_invalid_rst", "1")], ..plain }, &second),
    ]);
}

#[test]
fn random_conversations_are_told_alike() {
    let (seed, packets) = length();
    let plain = Setting { v4: "", v6: "", sysctls: &[] };
    let scenario = |talk: &mut Talk<'_>| {
        talk.stage.listen("", Output::default());
        run(talk, seed, packets / 6);
        talk.stage.compare_events();
    };
    perform(&[("told", plain, &scenario)]);
}
