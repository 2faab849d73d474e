//! IPv6 extension headers: of every kind and in every order, many, long, cut off, with fragment headers among them.

use super::stage::Setting;
use super::talk::{CLIENT6, Client, SERVER6, Server, Talk, perform_on_bridge};
use dataplane::testing::packets::{Builder, icmp_error, ip, ping, tcp, udp};

const PLAIN: Setting<'_> = Setting { v4: "", v6: "", sysctls: &[] };

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
        for upper in [6, 17, 58, 132, 136, 47, 50, 253, 59, 60, 0, 43, 51] {
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
