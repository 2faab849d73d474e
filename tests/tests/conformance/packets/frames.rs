//! The frames that questions are put to.

use super::super::kernel::reseal;
use super::Key;
use dataplane::packet::proto;
use dataplane::testing::packets::{Builder, SRC_MAC, ip, tcp, udp};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A frame, and what is special about it.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(super) note: String,
    pub(super) bytes: Vec<u8>,
    /// A router does something of its own with it.
    pub(super) bridge_only: bool,
}

fn frame(note: impl Into<String>, builder: &Builder) -> Frame {
    Frame { note: note.into(), bytes: builder.build(), bridge_only: false }
}

impl Frame {
    fn on_bridge(self) -> Self {
        Self { bridge_only: true, ..self }
    }

    /// With another TOS or traffic class.
    fn tos(mut self, tos: u8) -> Self {
        if self.bytes[12] == 0x08 {
            self.bytes[15] = tos;
            reseal(&mut self.bytes);
        } else {
            self.bytes[14] = 0x60 | tos >> 4;
            self.bytes[15] = self.bytes[15] & 0x0f | tos << 4;
        }
        self
    }
}

/// One datagram.
pub(super) fn one(key: &Key) -> Vec<Frame> {
    vec![frame("datagram", &udp(key.client, key.server).ports(key.port, 53))]
}

/// Datagrams that differ in fields of IP, and in payload.
pub(super) fn plain(key: &Key) -> Vec<Frame> {
    let datagram = |payload: &[u8]| udp(key.client, key.server).ports(key.port, 53).payload(payload);
    let mut frames = vec![
        frame("empty", &datagram(b"")),
        frame("needle", &datagram(b"needle")),
        frame("needle behind 100", &datagram(&[&[b'.'; 100][..], b"needle"].concat())),
        frame("needle behind 1200", &datagram(&[&[b'.'; 1200][..], b"needle", &[b'.'; 9]].concat())),
        frame("needle behind 5000", &datagram(&[&[b'.'; 5000][..], b"needle"].concat())),
        frame("needle cut", &datagram(b"....needl")),
        frame("upper case", &datagram(b"..NEEDLE")),
        frame("mixed case", &datagram(b"..NeEdLe..")),
        frame("zero before", &datagram(b"\0needle")),
        frame("latin", &datagram(b"..\xe4\xdf..")),
        frame("latin, upper case", &datagram(b"..\xc4\xbf..")),
        frame("division sign", &datagram(b"..\xf7\xd7..\xff\xdf")),
        frame("repeats", &datagram(b"aaaaaaaab")),
        frame("more repeats", &datagram(b"aabaabaaab")),
        frame("almost", &datagram(b"aabaabaabneednee")),
        frame("72", &datagram(&[0; 72])),
        frame("80", &datagram(&[0xff; 80])),
        frame("other source", &datagram(b"x").macs([2, 0, 0, 0, 0, 0x77], [2, 0, 0, 0, 0, 2])),
        frame("tcp", &tcp(key.client, key.server).ports(key.port, 80).syn().payload(b"needle")),
    ];
    for ttl in [0, 1, 63, 64, 65, 255] {
        let sent = frame(format!("ttl {ttl}"), &datagram(b"").ttl(ttl));
        frames.push(if ttl < 2 { sent.on_bridge() } else { sent });
    }
    for tos in [0x01, 0x02, 0x03, 0x08, 0x10, 0x18, 0xb8, 0x88, 0xff] {
        frames.push(frame(format!("tos {tos:#x}"), &datagram(b"")).tos(tos));
    }
    if key.client.is_ipv4() {
        frames.push(frame("options", &datagram(b"needle").ip_options(&[1, 1, 1, 1, 1, 1, 1, 0])).on_bridge());
    }
    frames
}

/// Frames to one, all and some.
pub(super) fn links(key: &Key) -> Vec<Frame> {
    let to = |mac: [u8; 6]| {
        frame(format!("to {mac:?}"), &udp(key.client, key.server).ports(1, 2).macs(SRC_MAC, mac))
    };
    [
        [2, 0, 0, 0, 0, 2],
        [0xff; 6],
        [1, 0, 0x5e, 0, 0, 1],
        [0x33, 0x33, 0, 0, 0, 1],
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xfe],
        [3, 0, 0, 0, 0, 2],
    ]
    .map(|mac| to(mac).on_bridge())
    .into()
}

/// Datagrams between all kinds of addresses.
pub(super) fn addresses(key: &Key) -> Vec<Frame> {
    let six = key.client.is_ipv6();
    let (sources, destinations): (Vec<IpAddr>, Vec<IpAddr>) = if six {
        let parse =
            |texts: &[&str]| texts.iter().map(|text| text.parse::<Ipv6Addr>().unwrap().into()).collect();
        (
            parse(&["fd00::1:1", "fd00::1:2", "fd00::2:0", "fe80::ff:fe00:1", "2001:db8::ff:fe00:1", "::"]),
            parse(&[
                "fd00::2",
                "fd00:1::1",
                "ff02::1",
                "ff0e::5",
                "fe80::1",
                "::ffff:10.0.0.1",
                "::10.0.0.1",
            ]),
        )
    } else {
        let parse =
            |texts: &[&str]| texts.iter().map(|text| text.parse::<Ipv4Addr>().unwrap().into()).collect();
        (
            parse(&[
                "10.1.0.1",
                "10.1.0.0",
                "10.0.255.255",
                "10.1.0.2",
                "10.2.0.0",
                "192.168.1.1",
                "0.0.0.0",
                "0.1.2.3",
            ]),
            parse(&[
                "10.0.0.2",
                "10.0.0.3",
                "10.0.0.200",
                "10.0.0.201",
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.1",
                "255.255.255.255",
                "255.255.255.254",
                "223.255.255.255",
            ]),
        )
    };
    let mut frames = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        for destination in &destinations {
            let sent =
                frame(format!("{source} to {destination}"), &udp(*source, *destination).ports(key.port, 53));
            let plain = at < 3 && !six && matches!(destination, IpAddr::V4(to) if to.octets()[0] == 10);
            frames.push(if plain { sent } else { sent.on_bridge() });
        }
    }
    frames
}

/// A chunk of SCTP.
fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap();
    let mut chunk = [&[kind, flags][..], &len.to_be_bytes(), value].concat();
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

/// A header of DCCP: type, data offset in words, and options behind 28 bytes at most.
fn dccp(kind: u8, words: u8, extended: bool, rest: &[u8]) -> Vec<u8> {
    [&[0, 1, 0, 7, words, 0, 0, 0, kind << 1 | u8::from(extended), 0, 0, 0][..], rest].concat()
}

/// Upper-layer headers, whole and cut.
pub(super) fn upper(key: &Key) -> Vec<Frame> {
    let Key { client, server, .. } = *key;
    let segment = || tcp(client, server).ports(key.port, 80);
    let raw = |protocol: u8, payload: &[u8]| ip(client, server, protocol).payload(payload);
    let mss = |mss: u16| [&[2, 4][..], &mss.to_be_bytes()].concat();
    let tcp_header = |words: u8, rest: &[u8]| {
        [&[0, 1, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, words << 4, 2, 1, 0, 0, 0, 0, 0][..], rest].concat()
    };
    let sctp = |chunks: &[Vec<u8>]| [&[0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0][..], &chunks.concat()].concat();
    let (data, sack, init) =
        (|flags| chunk(0, flags, &[1; 13]), chunk(3, 0, &[0; 12]), chunk(1, 0, &[0; 16]));
    let mut frames = vec![
        frame("udp", &udp(client, server).ports(key.port, 53)),
        frame("no options", &segment().syn()),
        frame("mss 1460", &segment().syn().tcp_options(&mss(1460))),
        frame("mss 536", &segment().syn().tcp_options(&mss(536))),
        frame("mss without syn", &segment().ack().tcp_options(&mss(1460)).payload(b"needle")),
        frame("needle", &segment().ack().payload(b"needle")),
        frame("mss behind others", &segment().syn().tcp_options(&[1, 3, 3, 7, 1, 1, 2, 4, 5, 0xb4])),
        frame("two mss", &segment().syn().tcp_options(&[2, 4, 2, 0, 2, 4, 5, 0xb4])),
        frame("mss of length 3", &segment().syn().tcp_options(&[2, 3, 5, 1, 2, 4, 5, 0xb4])),
        frame("timestamps", &segment().ack().tcp_options(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2])),
        frame(
            "timestamps of another port",
            &tcp(client, server).ports(1, 81).ack().tcp_options(&[8, 2, 1, 1]),
        ),
        frame("option of length zero", &segment().syn().tcp_options(&[8, 0, 2, 4, 5, 0xb4, 1, 1])),
        frame("option beyond the end", &segment().syn().tcp_options(&[3, 40, 2, 4, 5, 0xb4, 8, 2])),
        frame("behind the end of options", &segment().syn().tcp_options(&[0, 2, 4, 5, 0xb4, 8, 2, 0])),
        frame("mss cut by the end", &segment().syn().tcp_options(&[1, 1, 2, 4])),
        frame("last byte is a kind", &segment().syn().tcp_options(&[1, 1, 1, 8])),
        frame("ece", &segment().flags(0x50)),
        frame("cwr", &segment().flags(0x90)),
        frame("ece and cwr", &segment().flags(0xd2)).tos(1),
        frame("cwr and ect", &segment().flags(0x90)).tos(1),
        frame("header of 4 words", &raw(proto::TCP, &tcp_header(4, &[0; 20]))),
        frame("header of 15 words, cut", &raw(proto::TCP, &tcp_header(15, &mss(1460)))),
        frame("header of 0 words", &raw(proto::TCP, &tcp_header(0, b""))),
        frame("19 bytes of tcp", &raw(proto::TCP, &tcp_header(5, b"")[..19])),
        frame("no tcp", &raw(proto::TCP, b"")),
        frame("7 bytes of udp", &raw(proto::UDP, &[0, 1, 0, 53, 0, 7, 0])),
        frame("esp", &raw(proto::ESP, &[0, 0, 1, 0, 0, 0, 0, 1])),
        frame("esp, other spi", &raw(proto::ESP, &[0, 0, 2, 0, 0, 0, 0, 1])),
        frame("7 bytes of esp", &raw(proto::ESP, &[0, 0, 1, 0, 0, 0, 0])),
        frame(
            "ah",
            &raw(proto::AH, &[17, 4, 0, 0, 0, 0, 1, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ),
        frame("ah, other spi", &raw(proto::AH, &[17, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0])),
        frame("11 bytes of ah", &raw(proto::AH, &[17, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0])),
        frame("sctp init", &raw(proto::SCTP, &sctp(std::slice::from_ref(&init)))),
        frame("sctp data", &raw(proto::SCTP, &sctp(&[data(3)]))),
        frame("sctp data, first", &raw(proto::SCTP, &sctp(&[data(2)]))),
        frame("sctp data, last", &raw(proto::SCTP, &sctp(&[data(1)]))),
        frame("sctp sack and data", &raw(proto::SCTP, &sctp(&[sack.clone(), data(3)]))),
        frame("sctp sack and two", &raw(proto::SCTP, &sctp(&[sack.clone(), data(1), data(2)]))),
        frame("sctp sack, data, init", &raw(proto::SCTP, &sctp(&[sack, data(3), init]))),
        frame("sctp abort", &raw(proto::SCTP, &sctp(&[chunk(6, 1, b"")]))),
        frame("sctp abort without t", &raw(proto::SCTP, &sctp(&[chunk(6, 0, b"")]))),
        frame("sctp complete", &raw(proto::SCTP, &sctp(&[chunk(14, 0, b"")]))),
        frame("sctp unknown", &raw(proto::SCTP, &sctp(&[chunk(200, 0, b"")]))),
        frame("sctp without chunks", &raw(proto::SCTP, &sctp(&[]))),
        frame("sctp chunk of no length", &raw(proto::SCTP, &sctp(&[data(3), vec![1, 0, 0, 0]]))),
        frame("sctp chunk of length 1", &raw(proto::SCTP, &sctp(&[vec![3, 0, 0, 1], vec![1, 0, 0, 4]]))),
        frame("sctp chunk beyond the end", &raw(proto::SCTP, &sctp(&[vec![1, 0, 1, 0, 0, 0]]))),
        frame("sctp half a chunk header", &raw(proto::SCTP, &sctp(&[data(3), vec![1, 0]]))),
        frame("11 bytes of sctp", &raw(proto::SCTP, &sctp(&[])[..11])),
        frame("dccp request", &raw(33, &dccp(0, 5, false, &[0, 0, 0, 1, 33, 3, 1, 0]))),
        frame("dccp data", &raw(33, &dccp(2, 4, true, &[0; 8]))),
        frame("dccp data with option", &raw(33, &dccp(2, 5, true, &[0, 0, 0, 0, 1, 33, 2, 0]))),
        frame("dccp ack", &raw(33, &dccp(3, 7, true, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 3, 33, 0]))),
        frame("dccp reset", &raw(33, &dccp(7, 7, true, &[33; 16]))),
        frame("dccp invalid", &raw(33, &dccp(12, 7, true, &[0; 16]))),
        frame("dccp short offset", &raw(33, &dccp(3, 3, true, &[33; 16]))),
        frame("dccp options cut", &raw(33, &dccp(2, 40, true, &[0; 8]))),
        frame("dccp to port 8", &raw(33, &[&[0, 1, 0, 8][..], &dccp(2, 4, true, &[0; 8])[4..]].concat())),
        frame("11 bytes of dccp", &raw(33, &dccp(2, 4, true, b"")[..11])),
        frame("3 bytes of dccp", &raw(33, &[0, 1, 0])),
    ];
    if client.is_ipv6() {
        // There it is an extension header.
        frames.retain(|frame| !frame.note.contains("ah"));
    }
    let protocols = [proto::TCP, proto::UDP, proto::ESP, proto::AH, proto::SCTP, 33];
    for protocol in protocols.into_iter().filter(|protocol| client.is_ipv4() || *protocol != proto::AH) {
        for offset in [0, 8, 64] {
            let what = match protocol {
                proto::SCTP => sctp(&[data(3)]),
                proto::TCP => tcp_header(6, &mss(1460)),
                _ => [0, 0, 1, 0, 0, 0, 1, 0].repeat(5),
            };
            let piece = raw(protocol, &what).fragment(offset, true);
            frames.push(frame(format!("fragment of {protocol} at {offset}"), &piece));
        }
        let tiny = raw(protocol, &[0, 1, 0, 7, 0, 0, 0, 0]).fragment(0, true);
        frames.push(frame(format!("tiny fragment of {protocol}"), &tiny));
        let tiny = raw(protocol, &[0, 1, 0, 7, 0, 0, 0, 0]).fragment(16, false);
        frames.push(frame(format!("tiny last fragment of {protocol}"), &tiny));
    }
    frames
}

/// The same without authentication headers.
pub(super) fn without_auth(key: &Key) -> Vec<Frame> {
    let mut frames = extensions(key);
    // Of a routing header the kernel wants four bytes before it says what follows.
    frames.retain(|frame| !frame.note.starts_with("ah") && frame.note != "route, three bytes");
    frames
}

/// Extension headers of IPv6, in order and out of it, whole and cut.
pub(super) fn extensions(key: &Key) -> Vec<Frame> {
    let Key { client, server, .. } = *key;
    let datagram = || udp(client, server).ports(key.port, 53).payload(b"payload");
    let hop = |body: &[u8]| datagram().extension(proto::HOP_BY_HOP, body);
    let dst = |body: &[u8]| datagram().extension(proto::DST_OPTS, body);
    let [a, b]: [[u8; 16]; 2] = ["fd00::a", "fd00::b"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
    let rt = |kind: u8, left: u8, reserved: u8, addresses: &[[u8; 16]]| {
        datagram()
            .extension(proto::ROUTING, &[&[kind, left, reserved, 0, 0, 0][..], &addresses.concat()].concat())
    };
    let auth = |spi: u16, reserved: u8, len: usize| {
        let [high, low] = spi.to_be_bytes();
        let body = [&[reserved, 0, 0, 0, high, low][..], &vec![0; len - 8]].concat();
        datagram().extension(proto::AH, &body)
    };
    let mut frames = vec![
        frame("none", &datagram()),
        frame("tcp", &tcp(client, server).ports(key.port, 80).syn()),
        frame("hop, pad", &hop(&[1, 4, 0, 0, 0, 0])),
        frame("hop, alert", &hop(&[5, 2, 0, 0, 1, 0])).on_bridge(),
        frame("hop, alert and zeroes", &hop(&[5, 2, 0, 0, 0, 0])).on_bridge(),
        frame("hop of 16", &hop(&[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        frame("dst", &dst(&[1, 4, 0, 0, 0, 0])),
        frame("dst of 16", &dst(&[30, 4, 0, 0, 0, 0, 30, 4, 0, 0, 0, 0, 0, 0])),
        frame("dst, option too long", &dst(&[30, 200, 0, 0, 0, 0])),
        frame("dst, type alone", &dst(&[1, 3, 0, 0, 0, 30])),
        frame("route 0", &rt(0, 0, 0, &[a])),
        frame("route 0, two", &rt(0, 0, 0, &[a, b])),
        frame("route 0, two the other way", &rt(0, 0, 0, &[b, a])),
        frame("route 0, reserved", &rt(0, 0, 1, &[a, b])),
        frame("route 0, none", &rt(0, 0, 0, &[])),
        frame("route 2", &rt(2, 0, 0, &[a])),
        frame("route, one left", &rt(0, 1, 0, &[a])).on_bridge(),
        frame("route 4, two left", &rt(4, 2, 0, &[a, b])).on_bridge(),
        frame("ah", &auth(0x100, 0, 24)),
        frame("ah, other spi", &auth(0x200, 0, 16)),
        frame("ah, reserved", &auth(0x1ff, 1, 24)),
        frame("atomic fragment", &datagram().extension(proto::FRAGMENT, &[0, 0, 0, 0, 0, 77])),
        frame("atomic fragment, reserved", &datagram().extension(proto::FRAGMENT, &[0, 4, 0, 0, 0, 78])),
        frame("esp", &ip(client, server, proto::ESP).payload(&[0; 16])),
        frame("nothing next", &ip(client, server, proto::NONE).payload(&[0; 16])),
        frame("nothing next, and no byte", &ip(client, server, proto::NONE)),
        frame(
            "dst, esp",
            &ip(client, server, proto::ESP).payload(&[0; 16]).extension(proto::DST_OPTS, &[1, 4, 0, 0, 0, 0]),
        ),
        frame("dst, none", &ip(client, server, proto::NONE).extension(proto::DST_OPTS, &[1, 4, 0, 0, 0, 0])),
        frame("dst and no more", &ip(client, server, proto::DST_OPTS)),
        frame("dst, a byte", &ip(client, server, proto::DST_OPTS).payload(&[17])),
        frame("dst, cut", &ip(client, server, proto::DST_OPTS).payload(&[17, 1, 1, 4, 0, 0, 0, 0])),
        frame("route, three bytes", &ip(client, server, proto::ROUTING).payload(&[17, 0, 0])),
        frame("route, cut", &ip(client, server, proto::ROUTING).payload(&[17, 2, 0, 0, 0, 0, 0, 0, 1])),
        frame("fragment, six bytes", &ip(client, server, proto::FRAGMENT).payload(&[17, 0, 0, 0, 0, 0])),
        frame("ah, eight bytes", &ip(client, server, proto::AH).payload(&[17, 1, 0, 0, 0, 0, 1, 0])),
        frame(
            "hop, dst, route",
            &hop(&[1, 4, 0, 0, 0, 0])
                .extension(proto::DST_OPTS, &[1, 4, 0, 0, 0, 0])
                .extension(proto::ROUTING, &[2, 0, 0, 0, 0, 0]),
        ),
        frame("dst twice", &dst(&[1, 4, 0, 0, 0, 0]).extension(proto::DST_OPTS, &[30, 4, 0, 0, 0, 0])),
        frame("ah, dst", &auth(0x100, 0, 24).extension(proto::DST_OPTS, &[1, 4, 0, 0, 0, 0])),
        frame("ah, tcp", &tcp(client, server).syn().extension(proto::AH, &[0; 14])),
    ];
    for (offset, more) in [(0, true), (8, true), (64, false)] {
        let pieces = [
            ("udp", ip(client, server, proto::UDP).payload(&[0; 24]).fragment(offset, more)),
            ("tcp", ip(client, server, proto::TCP).payload(&[0xff; 24]).fragment(offset, more)),
            (
                "options",
                ip(client, server, proto::DST_OPTS)
                    .payload(&[17, 0, 1, 4, 0, 0, 0, 0])
                    .fragment(offset, more),
            ),
            (
                "udp behind options",
                ip(client, server, proto::UDP)
                    .payload(&[0; 24])
                    .extension(proto::HOP_BY_HOP, &[1, 4, 0, 0, 0, 0])
                    .fragment(offset, more),
            ),
        ];
        frames.extend(pieces.into_iter().map(|(what, piece)| frame(format!("{what} at {offset}"), &piece)));
    }
    frames
}
