//! Targets that change packets: what leaves must be the same to the byte, checksums included. One frame after the other, as
//! the rules here leave no field of a packet to tell frames apart by.

use super::join::join;
use super::kernel::{Kernel, Seen, Topology};
use super::ours::Ours;
use super::stage::{comparable, hex};
use super::talk::{CLIENT, CLIENT6, SERVER, SERVER6, SYN_OPTIONS};
use control::rules_file::understand;
use dataplane::ids::PortId;
use dataplane::packet::Family;
use dataplane::testing::gateway::{GatewayConfig, LEFT, RIGHT};
use dataplane::testing::packets::{Builder, ip, ping, tcp, udp};
use std::net::IpAddr;

/// Keeps connections tracked, and fragments put together.
const TRACKED: &str = "*filter\n-A FORWARD -m conntrack --ctstate INVALID -p udp --dport 9 -j DROP\nCOMMIT\n";
const UNTRACKED: &str = "*filter\nCOMMIT\n";

/// Rules of `mangle` for both families.
const TOS: &[&str] = &[
    "-A FORWARD -j TOS --set-tos 0x10\n",
    "-A FORWARD -j TOS --set-tos 0x3c/0x3f\n",
    "-A FORWARD -j TOS --and-tos 0x0f\n",
    "-A FORWARD -j TOS --or-tos 0x81\n",
    "-A FORWARD -j TOS --xor-tos 0xff\n",
    "-A FORWARD -j DSCP --set-dscp 46\n",
    "-A FORWARD -j DSCP --set-dscp-class AF21\n",
    "-A PREROUTING -j TOS --set-tos 0x42\n-A FORWARD -j TOS --xor-tos 0x18\n-A POSTROUTING -j DSCP --set-dscp 1\n",
    "-A PREROUTING -p tcp -j DSCP --set-dscp 1\n-A PREROUTING -p tcp --syn -j ACCEPT\n-A PREROUTING -j DSCP --set-dscp 2\n",
    ":A - [0:0]\n-A FORWARD -p udp -j A\n-A FORWARD -j TOS --or-tos 1\n-A A -j TOS --set-tos 0x20\n-A A --fragment -j RETURN\n-A A -j DSCP --set-dscp 9\n",
];

const TCP: &[&str] = &[
    "-A FORWARD -p tcp --syn -j TCPMSS --set-mss 1200\n",
    "-A FORWARD -p tcp -j TCPMSS --set-mss 100\n",
    "-A FORWARD -p tcp -j TCPMSS --set-mss 9000\n",
    "-A PREROUTING -p tcp -j TCPMSS --set-mss 700\n-A POSTROUTING -p tcp -j TCPMSS --set-mss 600\n",
    "-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu\n",
    "-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options mss\n",
    "-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options sack-permitted,wscale,timestamp\n",
    "-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options 2,3,4,5,8,19,254\n",
    "-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options mss\n-A FORWARD -p tcp -j TCPMSS --set-mss 300\n",
];

const ECN: &[&str] = &[
    "-A FORWARD -p tcp -j ECN --ecn-tcp-remove\n",
    "-A FORWARD -p tcp -j ECN --ecn-tcp-cwr 1\n",
    "-A FORWARD -p tcp -j ECN --ecn-tcp-ece 1 --ecn-tcp-cwr 0\n",
    "-A FORWARD -j ECN --ecn-ip-ect 2\n",
    "-A FORWARD -p tcp -j ECN --ecn-tcp-remove --ecn-ip-ect 1\n",
    ":A - [0:0]\n-A FORWARD -p tcp --tcp-flags FIN NONE -j A\n-A A -p tcp -j ECN --ecn-tcp-remove\n-A A -j TOS --set-tos 0x20\n",
];

/// Behind these hops are as the rules say, on a router too.
const HOPS_SET: &[&str] = &["-A FORWARD -j HOPS-set 77\n", "-A POSTROUTING -j HOPS-set 255\n"];

/// A router has its own ideas about hops, and takes none that has no more.
const HOPS: &[&str] = &[
    "-A FORWARD -j HOPS-inc 5\n",
    "-A FORWARD -j HOPS-inc 250\n",
    "-A FORWARD -j HOPS-dec 3\n",
    "-A FORWARD -j HOPS-dec 100\n",
    "-A PREROUTING -j HOPS-set 9\n-A FORWARD -j HOPS-inc 1\n-A POSTROUTING -j HOPS-dec 2\n",
    "-A FORWARD -j HOPS-set 0\n",
];

fn ends(family: Family) -> (IpAddr, IpAddr) {
    match family {
        Family::V4 => (CLIENT.into(), SERVER.into()),
        Family::V6 => (CLIENT6.into(), SERVER6.into()),
    }
}

/// A frame with this TOS or traffic class.
fn with_class(packet: &Builder, class: u8) -> Vec<u8> {
    let mut frame = packet.build();
    if frame[12..14] == [8, 0] {
        frame[15] = class;
        super::kernel::reseal(&mut frame);
    } else {
        frame[14] |= class >> 4;
        frame[15] |= class << 4;
    }
    frame
}

/// Packets of every kind that some target cares about. Connections of their own, so that none is INVALID for another.
fn packets(family: Family) -> Vec<(String, Vec<u8>)> {
    let (client, server) = ends(family);
    let mut all = Vec::new();
    for class in [0_u8, 0x03, 0x10, 0xb8, 0xff] {
        all.push((
            format!("datagram of class {class:#x}"),
            with_class(&udp(client, server).ports(5, 6), class),
        ));
    }
    all.push(("ping".into(), ping(client, server, 3).payload(&[7; 40]).build()));
    all.push(("protocol 99".into(), ip(client, server, 99).payload(&[1; 30]).build()));
    all.push(("long".into(), udp(client, server).ports(5, 7).payload(&[9; 1000]).build()));
    let options: &[&[u8]] = &[
        &[],
        &SYN_OPTIONS,
        &[2, 4, 0, 50],
        &[1, 1, 2, 4, 5, 180, 1, 1],
        &[4, 2, 1, 1],
        &[3, 3, 7, 1],
        &[1, 3, 3, 7, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 4, 2],
        &[8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 1],
        &[2, 3, 5, 1],
        &[254, 0, 2, 4, 5, 180, 1, 1],
        &[19, 18, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 1, 0],
        &[5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 4, 2, 0, 0, 0],
        &[2, 40, 5, 180],
        &[0, 0, 2, 4, 5, 180, 0, 0],
        &[1; 36],
        &[1; 40],
    ];
    for (port, options) in (1000..).zip(options) {
        let syn = tcp(client, server).ports(port, 80).syn().tcp_options(options);
        all.push((format!("SYN {options:?}"), syn.build()));
        all.push((format!("SYN with ECN {options:?}"), syn.clone().ports(port, 81).flags(0xc2).build()));
        all.push((
            format!("SYN with data {options:?}"),
            syn.clone().ports(port, 82).payload(b"data").build(),
        ));
        all.push((format!("odd {options:?}"), syn.clone().ports(port, 83).payload(b"odd").build()));
        let broken = syn.ports(port, 84).bad_checksum();
        all.push((format!("SYN, checksum wrong {options:?}"), broken.build()));
    }
    for (port, flags) in (2000..).zip([0x10_u8, 0x50, 0x90, 0xd0, 0x14, 0x11]) {
        let segment = tcp(client, server).ports(port, 80).flags(flags).numbers(7, 8).payload(&[3; 33]);
        all.push((format!("segment {flags:#x}"), segment.build()));
    }
    // Headers that say more than there is, or less than they need.
    let l4 = if family == Family::V4 { 34 } else { 54 };
    for offset in [0xf0_u8, 0x60, 0x40, 0x10] {
        let mut frame = tcp(client, server).ports(3000 + u16::from(offset), 80).syn().build();
        frame[l4 + 12] = offset;
        all.push((format!("header length {offset:#x}"), frame));
    }
    for len in [3, 8, 13] {
        let stump = ip(client, server, 6)
            .payload(&[0x13, 0, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 1, 0, 0, 0][..len]);
        all.push((format!("{len} bytes of TCP"), stump.build()));
    }
    if family == Family::V6 {
        let behind = tcp(client, server).ports(4000, 80).syn().extension(60, &[1, 4, 0, 0, 0, 0]);
        all.push(("behind options".into(), behind.build()));
    } else {
        let options = udp(client, server).ports(5, 8).ip_options(&[1, 1, 1, 0]);
        all.push(("IP options".into(), with_class(&options, 0x5a)));
        let options = tcp(client, server).ports(4001, 80).syn().ip_options(&[1, 1, 1, 0]);
        all.push(("SYN behind IP options".into(), options.build()));
    }
    all
}

/// Fragments of a datagram: all must be there before one leaves.
fn trains(family: Family) -> Vec<(String, Vec<Vec<u8>>)> {
    let (client, server) = ends(family);
    let cut = |name: &str, packet: Builder, at: u16| {
        let protocol = if name == "datagram" { 17 } else { 6 };
        let whole = packet.build();
        let l4 = if family == Family::V4 { 34 } else { 54 };
        let payload = &whole[l4..];
        let piece = |from: usize, to: usize, more: bool| {
            ip(client, server, protocol)
                .id(7)
                .payload(&payload[from..to])
                .fragment(u16::try_from(from).unwrap(), more)
                .build()
        };
        // All of one length, so that none is cut anew.
        let ends = (0..payload.len()).step_by(usize::from(at)).map(|from| (from, from + usize::from(at)));
        ends.map(|(from, to)| piece(from, to.min(payload.len()), to < payload.len())).collect()
    };
    let data = udp(client, server).ports(50, 51).payload(&[5; 120]);
    let segment = tcp(client, server).ports(50, 80).flags(0xd2).tcp_options(&SYN_OPTIONS).payload(&[6; 64]);
    vec![
        ("datagram".into(), cut("datagram", data, 64)),
        ("segment".into(), cut("segment", segment.clone(), 64)),
        ("segment cut in its options".into(), cut("segment", segment, 24)),
    ]
}

/// IPv6 datagrams put together: Linux sends one as one packet if it had to write into it.
fn whole(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let seen = frames.into_iter().map(|frame| Seen { frame, state: None });
    join(seen.collect()).into_iter().map(|seen| seen.frame).collect()
}

struct Judge {
    kernel: Kernel,
    family: Family,
    failures: Vec<String>,
    frames: usize,
}

impl Judge {
    fn ours(&self, text: &str) -> Ours {
        let rules = || {
            let loaded = understand(text.as_bytes(), "rule", self.family, &[]);
            vec![loaded.ruleset.unwrap_or_else(|| panic!("{text}: {:?}", loaded.diagnostics))]
        };
        Ours::new(rules, &GatewayConfig { track_always: false, ..GatewayConfig::default() })
    }

    /// Sends frames from one side into both, and compares what comes out of the other.
    fn send(&mut self, ours: &mut Ours, side: PortId, frames: &[Vec<u8>], what: &str) {
        let topology = self.kernel.topology();
        let mut own = Vec::new();
        for frame in frames {
            self.kernel.send(side.index(), frame);
            own.extend(ours.send(side, frame).forwarded);
        }
        self.frames += frames.len();
        let theirs = std::mem::take(&mut self.kernel.collect_bare()[1 - side.index()]);
        let [theirs, own] = [theirs, own].map(|frames: Vec<Vec<u8>>| {
            let mut frames: Vec<_> = whole(frames).iter().map(|frame| comparable(frame, topology)).collect();
            frames.sort();
            frames
        });
        if theirs != own {
            let all = |frames: &[Vec<u8>]| {
                frames.iter().map(|frame| hex(frame)).collect::<Vec<_>>().join("\n          ")
            };
            self.failures.push(format!(
                "{topology:?} {what}\n  sent    {}\n  kernel  {}\n  we      {}",
                all(frames),
                all(&theirs),
                all(&own)
            ));
        }
    }

    /// All packets past these rules of `mangle`.
    fn rules(&mut self, mangle: &str, filter: &str) {
        let (option, target) = if self.family == Family::V4 { ("--ttl", "TTL") } else { ("--hl", "HL") };
        let mangle = mangle.replace("HOPS", &format!("{target} {option}"));
        // IPv6 knows no `-f`.
        let mangle = if self.family == Family::V6 { mangle.replace("--fragment", "-p tcp") } else { mangle };
        let text = format!("*mangle\n{mangle}COMMIT\n{filter}");
        self.kernel.load_bare(&[(self.family, &text)]);
        let mut ours = self.ours(&text);
        let _ = self.kernel.collect_bare();
        for (name, frame) in packets(self.family) {
            self.send(&mut ours, LEFT, &[frame], &format!("{name}, past\n{mangle}"));
        }
        if filter == TRACKED {
            for (name, train) in trains(self.family) {
                self.send(&mut ours, RIGHT, &train, &format!("fragments of a {name}, past\n{mangle}"));
            }
        }
    }
}

fn judge(topology: Topology, families: &[Family], of_mangle: &[&[&str]]) {
    if !super::may_run() {
        return;
    }
    let mut judge =
        Judge { kernel: Kernel::new(topology), family: Family::V4, failures: Vec::new(), frames: 0 };
    for &family in families {
        judge.family = family;
        for mangle in of_mangle.iter().copied().flatten() {
            judge.rules(mangle, TRACKED);
        }
        for mangle in of_mangle.iter().filter_map(|rules| rules.first()) {
            judge.rules(mangle, UNTRACKED);
        }
    }
    println!("{topology:?}: {} frames, {} disagreements", judge.frames, judge.failures.len());
    let shown: Vec<_> = judge.failures.iter().take(20).cloned().collect();
    assert!(judge.failures.is_empty(), "{} disagreements\n{}", judge.failures.len(), shown.join("\n"));
}

const BOTH: [Family; 2] = [Family::V4, Family::V6];

#[test]
fn packets_leave_a_bridge_changed_as_the_kernel_changes_them() {
    judge(Topology::Bridge, &BOTH, &[TOS, TCP, HOPS_SET, HOPS]);
    judge(Topology::Bridge, &[Family::V4], &[ECN]);
}

#[test]
fn packets_leave_a_router_changed_as_the_kernel_changes_them() {
    judge(Topology::Router, &BOTH, &[TOS, TCP, HOPS_SET]);
    judge(Topology::Router, &[Family::V4], &[ECN]);
}

/// An answer quotes the packet as the rules have made it.
#[test]
fn answers_quote_the_changed_packet() {
    if !super::may_run() {
        return;
    }
    let mut kernel = Kernel::new(Topology::Router);
    let text = "*mangle\n-A PREROUTING -j TOS --set-tos 0x5c\n-A FORWARD -j TTL --ttl-set 99\nCOMMIT\n*filter\n-A FORWARD -s 10.0.0.1 -p udp -j REJECT\nCOMMIT\n";
    kernel.load_bare(&[(Family::V4, text)]);
    let rules = || vec![understand(text.as_bytes(), "rule", Family::V4, &[]).ruleset.unwrap()];
    let mut ours = Ours::new(rules, &GatewayConfig::default());
    let _ = kernel.collect_bare();
    let frame = udp(CLIENT, SERVER).ports(5, 6).payload(b"hello").build();
    kernel.send(LEFT.index(), &frame);
    let theirs = kernel.collect_bare()[LEFT.index()].clone();
    let own = ours.send(LEFT, &frame).answers;
    // Behind the ICMP header.
    let quoted = |frames: &[Vec<u8>]| frames.iter().map(|frame| frame[42..75].to_vec()).collect::<Vec<_>>();
    assert_eq!(quoted(&own), quoted(&theirs));
    assert_eq!((own[0][43], own[0][50]), (0x5c, 99));
}
