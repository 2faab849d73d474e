//! IPv6 extension headers: of every kind and in every order, many, long, cut off, with fragment headers among them; and
//! seeded random chains.

use super::random::Random;
use super::stage::Setting;
use super::talk::{CLIENT6, Client, SERVER6, Server, Talk, perform_on_bridge};
use dataplane::testing::packets::{Builder, icmp_error, ip, ping, tcp, udp};
use std::env;

const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

/// Random chains of a run in CI.
const CHAINS: u64 = 6_000;

/// Padding: one option as long as the header.
const PADDED: [u8; 6] = [1, 4, 0, 0, 0, 0];

fn ask() -> Builder {
    udp(CLIENT6, SERVER6).ports(1, 2).payload(&[1; 8])
}

#[test]
fn extension_headers_are_judged_alike() {
    let kinds = |talk: &mut Talk<'_>| {
        talk.six = true;
        let plain = ask();
        for (name, kind) in [
            ("hop-by-hop", 0),
            ("routing", 43),
            ("destination", 60),
            ("ah", 51),
            ("mobility", 135),
            ("hip", 139),
            ("shim6", 140),
        ] {
            let with = plain.clone().extension(kind, &[0; 14]);
            talk.send(Client, &with, name);
            talk.send(Server, &udp(SERVER6, CLIENT6).ports(2, 1).extension(kind, &[0; 6]), name);
            talk.send(Client, &with.clone().extension(60, &[0; 6]), &format!("{name} and destination"));
            talk.send(
                Client,
                &plain.clone().extension(60, &[0; 6]).extension(kind, &[0; 6]),
                &format!("{name} behind"),
            );
            talk.send(Client, &with.clone().extension(kind, &[0; 6]), &format!("{name} twice"));
        }
        talk.send(Client, &ip(CLIENT6, SERVER6, 59).payload(&[1; 20]), "no next header");
        talk.send(Client, &plain.clone().extension(60, &[0; 6]).extension(59, &[0; 6]), "none among others");
        talk.send(Client, &ip(CLIENT6, SERVER6, 60).payload(&[17]), "header cut");
        talk.send(Client, &ip(CLIENT6, SERVER6, 60), "header missing");
        for upper in [6, 17, 58, 132, 136, 47, 50, 253, 59, 60, 44, 0, 43, 51] {
            for len in [0, 1, 200] {
                talk.send(
                    Client,
                    &ip(CLIENT6, SERVER6, 60).payload(&[upper, len, 1, 4, 0, 0, 0, 0]),
                    &format!("{upper} behind {len} units"),
                );
            }
        }
        talk.stage.compare_lists();
    };
    let many = |talk: &mut Talk<'_>| {
        talk.six = true;
        for count in (1..=40).chain([64, 100, 180, 500, 1_000]) {
            for (name, kind) in [("destination", 60), ("routing", 43), ("ah", 51), ("hop-by-hop", 0)] {
                let chain = (0..count)
                    .fold(udp(CLIENT6, SERVER6).ports(count, 2), |packet, _| packet.extension(kind, &PADDED));
                talk.send(Client, &chain, &format!("{count} times {name}"));
                let chain = (0..count).fold(tcp(CLIENT6, SERVER6).ports(count, 2).syn(), |packet, n| {
                    packet.extension([60, 43, 51][usize::from(n) % 3], &PADDED)
                });
                talk.send(Client, &chain, &format!("{count} of all kinds, {name}"));
            }
        }
        // Two kilobytes each: more than there is room for in one of our buffers.
        for count in 1..=4_u16 {
            let chain =
                (0..count).fold(ping(CLIENT6, SERVER6, 7), |packet, _| packet.extension(60, &[0; 2_046]));
            talk.send(Client, &chain, &format!("{count} long ones"));
            let chain = (0..count)
                .fold(udp(CLIENT6, SERVER6).ports(count, 3), |packet, _| packet.extension(60, &[0; 2_046]));
            talk.send(Client, &chain, &format!("{count} long ones"));
            talk.send(Client, &chain.bad_checksum(), &format!("{count} long ones, bad checksum"));
            let chain = udp(CLIENT6, SERVER6).ports(count, 4).extension(0, &[0; 2_046]);
            talk.send(Client, &chain.payload(&vec![1; usize::from(count) * 1_000]), "a long hop-by-hop");
        }
        talk.stage.compare_lists();
    };
    // An error about a packet with a chain of its own.
    let errors = |talk: &mut Talk<'_>| {
        talk.six = true;
        talk.send(Client, &ask(), "ask");
        for count in [0, 1, 2, 15, 16, 17, 18, 40, 100] {
            for kind in [60, 43, 51, 0] {
                let about = (0..count).fold(ask(), |packet, _| packet.extension(kind, &PADDED)).build();
                for quote in [2_000, about.len() - 14 - 16, about.len() - 14 - 13] {
                    talk.send(
                        Server,
                        &icmp_error(SERVER6, CLIENT6, 1, 4, &about, quote),
                        &format!("about {count} times {kind}, {quote} bytes"),
                    );
                }
            }
        }
        for (offset, more) in [(0, true), (0, false), (8, true), (8, false)] {
            let about = ask().extension(60, &PADDED).fragment(offset, more).payload(&[0; 64]).build();
            talk.send(Server, &icmp_error(SERVER6, CLIENT6, 1, 4, &about, 2_000), "about a fragment");
        }
        talk.send(Client, &ip(CLIENT6, SERVER6, 50).payload(&[1; 20]), "esp");
        let about = ip(CLIENT6, SERVER6, 60).payload(&[50, 200, 1, 4, 0, 0, 0, 0]).build();
        talk.send(
            Server,
            &icmp_error(SERVER6, CLIENT6, 1, 4, &about, 2_000),
            "about what is beyond the packet",
        );
    };
    perform_on_bridge(&[("kinds", PLAIN, &kinds), ("many", PLAIN, &many), ("errors", PLAIN, &errors)]);
}

/// What fills headers up: read as a fragment header, it is of no whole packet.
const FILLER: u8 = 0xee;

/// A chain of extension headers and what is behind it, made of bytes; sometimes a header lies about its length.
fn chain(random: &mut Random, upper: &[u8], id: u32) -> (u8, Vec<u8>) {
    const KINDS: [u8; 12] = [60, 60, 60, 43, 43, 51, 51, 0, 44, 44, 135, 59];
    let mut next = random.pick(upper);
    let mut bytes = match next {
        17 => udp(CLIENT6, SERVER6).ports(9, 10).no_checksum().payload(&[5; 24]).build().split_off(54),
        6 => tcp(CLIENT6, SERVER6).ports(9, 10).syn().build().split_off(54),
        58 => ping(CLIENT6, SERVER6, 3).payload(&[5; 24]).build().split_off(54),
        _ => vec![0, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    for _ in 0..random.below(7) {
        let kind = random.pick(&KINDS);
        let units = u8::try_from(random.below(3)).unwrap();
        let mut header = vec![next, units];
        match kind {
            44 => {
                let offset = random.pick(&[0_u16, 0, 0, 8, 64, 65_528]);
                // What the kernel makes of a whole packet with a fragment header it looks at once more.
                let field = offset | u16::from(next == 0 || random.one_in(2));
                header[1] = 0;
                header.extend(field.to_be_bytes());
                header.extend((id << 4 | u32::from(units)).to_be_bytes());
            }
            51 => {
                header[1] = 1 + units * 2;
                header.resize(12 + usize::from(units) * 8, FILLER);
            }
            _ => {
                header.extend([1, 4 + 8 * units]);
                header.resize(8 + usize::from(units) * 8, FILLER);
            }
        }
        if random.one_in(25) && kind != 44 {
            header[1] = random.pick(&[0, 1, 5, 100, 255]);
        }
        bytes = [header, bytes].concat();
        next = kind;
    }
    if random.one_in(6) {
        bytes.truncate(usize::try_from(random.below(bytes.len() as u64 + 1)).unwrap());
    }
    (next, bytes)
}

#[test]
fn random_chains_are_judged_alike() {
    let number = |name: &str, default: u64| env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seed, chains) = (number("PALISADE_SEED", 0x5eed), number("PALISADE_CHAINS", CHAINS));
    println!("PALISADE_SEED={seed} PALISADE_CHAINS={chains}");
    let scenario = |talk: &mut Talk<'_>| {
        talk.six = true;
        talk.stage.joins = true;
        let mut random = Random(seed | 1);
        for n in 0..chains {
            let upper = [17, 17, 17, 6, 6, 58, 132, 136, 47, 50, 253];
            let (next, bytes) = chain(&mut random, &upper, u32::try_from(n).unwrap());
            let note = format!("[{n}] {next} {}", super::stage::hex(&bytes));
            talk.send(Client, &ip(CLIENT6, SERVER6, next).payload(&bytes), &note);
            if talk.stage.disagreements.len() > 20 {
                return;
            }
            if n % 500 == 0 {
                talk.stage.forget();
            }
        }
        // Of packets with a fragment header of their own we count that, too.
        talk.stage.forget();
    };
    perform_on_bridge(&[("random", PLAIN, &scenario)]);
}

/// Headers that every fragment has: kind of the first one, and bytes up to where the fragment header starts.
fn prefix(random: &mut Random) -> (u8, Vec<u8>) {
    let kinds: Vec<u8> = (0..random.below(4))
        .map(|n| random.pick(if n == 0 { &[0, 60, 43, 51] } else { &[60, 43, 51] }))
        .collect();
    let next = kinds.iter().skip(1).copied().chain([44]);
    let bytes = kinds.iter().zip(next).flat_map(|(_, next)| [&[next, 0][..], &PADDED].concat()).collect();
    (kinds.first().copied().unwrap_or(44), bytes)
}

/// Random chains in fragments: some of it in front of the fragment header, some behind, perhaps in several pieces.
#[test]
fn random_chains_in_fragments_are_judged_alike() {
    let number = |name: &str, default: u64| env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seed, chains) = (number("PALISADE_SEED", 0x5eed), number("PALISADE_CHAINS", CHAINS / 3));
    println!("PALISADE_SEED={seed} PALISADE_CHAINS={chains}");
    let scenario = |talk: &mut Talk<'_>| {
        talk.six = true;
        talk.stage.joins = true;
        let mut random = Random(seed | 1);
        for n in 0..chains {
            let id = u32::try_from(n).unwrap() << 8 | 0x8000_0000;
            // Not SCTP, whose header the kernel moves into the first fragment, nor hop-by-hop options that come to be
            // the first header, which it moves there likewise.
            let upper = [17, 17, 17, 6, 6, 58, 136, 47, 50, 253];
            let (next, bytes) = chain(&mut random, &upper, id);
            let (first, before) = prefix(&mut random);
            if next == 0 {
                continue;
            }
            let mut cuts = vec![0, bytes.len()];
            for _ in 0..=random.below(4) {
                cuts.push(usize::try_from(random.below(bytes.len() as u64 / 8 + 1)).unwrap() * 8);
            }
            cuts.sort_unstable();
            cuts.dedup();
            let mut pieces: Vec<(usize, usize)> = cuts.windows(2).map(|cut| (cut[0], cut[1])).collect();
            if random.one_in(3) {
                pieces.reverse();
            }
            for (from, to) in pieces {
                let field = u16::try_from(from).unwrap() | u16::from(to != bytes.len());
                // Whole packets with a fragment header are tried by themselves.
                if field == 0 {
                    continue;
                }
                // Now and then a piece has other headers in front, or says that something else follows.
                let is_odd = random.one_in(20);
                let (first, before) = if is_odd { prefix(&mut random) } else { (first, before.clone()) };
                let next = if random.one_in(20) { random.pick(&[6, 17, 60, 59]) } else { next };
                let mut packet = [before, vec![next, 0]].concat();
                packet.extend(field.to_be_bytes());
                packet.extend(id.to_be_bytes());
                packet.extend(&bytes[from..to]);
                let note = format!("[{n}] {first} {}", super::stage::hex(&packet));
                talk.send(Client, &ip(CLIENT6, SERVER6, first).payload(&packet), &note);
            }
            // A datagram must not lie in two batches: there it could not be joined.
            if n % 8 == 7 {
                talk.stage.compare();
            }
            if talk.stage.disagreements.len() > 20 {
                return;
            }
        }
        talk.stage.forget();
    };
    // Nobody gives up what does not become whole.
    let much = Setting { sysctls: &[("frag6_high_thresh", "100000000")], ..PLAIN };
    perform_on_bridge(&[("random", much, &scenario)]);
}
