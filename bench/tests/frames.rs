//! Every frame the generator makes, as a parser of somebody else's reads it.

mod common;

use bench::load::{Amount, DST_PORT, FLOWS_MAX, Flood, Load, Order, Protocol, STAMP_BYTES, Sizes};
use common::{load, open_left_end, send};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use palisade_tests::lab::{GATEWAY_LEFT, Lab, PacketSocket};
use palisade_tests::require_root;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// What matters of a frame.
#[derive(Debug)]
struct Seen {
    bytes: usize,
    src: IpAddr,
    src_port: u16,
    protocol: Protocol,
    payload: Vec<u8>,
}

/// Reads a frame; checksums and lengths have to be right.
fn read(frame: &[u8]) -> Seen {
    let packet = SlicedPacket::from_ethernet(frame).expect("a frame that can be read");
    let (net, transport) = (packet.net.expect("an IP packet"), packet.transport.expect("UDP or TCP"));
    let (src, l4_bytes) = match &net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IP checksum of {frame:02x?}");
            (IpAddr::V4(header.source.into()), ip.payload().payload.len())
        }
        NetSlice::Ipv6(ip) => (IpAddr::V6(ip.header().source_addr()), ip.payload().payload.len()),
        NetSlice::Arp(_) => panic!("ARP"),
    };
    let (checksum, right) = checksums(&net, &transport);
    assert_eq!(checksum, right, "checksum of {frame:02x?}");
    let (src_port, dst_port, protocol, payload) = match &transport {
        TransportSlice::Udp(udp) => {
            assert_eq!(usize::from(udp.length()), l4_bytes, "UDP length of {frame:02x?}");
            (udp.source_port(), udp.destination_port(), Protocol::Udp, udp.payload())
        }
        TransportSlice::Tcp(tcp) => {
            let protocol = if tcp.syn() { Protocol::Syn } else { Protocol::Tcp };
            (tcp.source_port(), tcp.destination_port(), protocol, tcp.payload())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(dst_port, DST_PORT);
    Seen { bytes: frame.len(), src, src_port, protocol, payload: payload.to_vec() }
}

/// The checksum of a segment as it is, and as it should be.
fn checksums(net: &NetSlice<'_>, transport: &TransportSlice<'_>) -> (u16, u16) {
    let (has, right) = match (net, transport) {
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            (udp.checksum(), udp.to_header().calc_checksum_ipv4(&ip.header().to_header(), udp.payload()))
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            (udp.checksum(), udp.to_header().calc_checksum_ipv6(&ip.header().to_header(), udp.payload()))
        }
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            (tcp.checksum(), tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()))
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            (tcp.checksum(), tcp.to_header().calc_checksum_ipv6(&ip.header().to_header(), tcp.payload()))
        }
        other => panic!("{other:?}"),
    };
    (has, right.expect("a packet that is not too long"))
}

/// Sends some packets of a load and reads all that arrive.
fn sent_and_read(lab: &Lab, socket: &PacketSocket, load: &Load, packets: u32) -> Vec<Seen> {
    assert_eq!(send(lab, load, Amount::Packets(packets)).packets, u64::from(packets), "{load:?}");
    let is_ours = |frame: &[u8]| frame.get(6..12) == Some(&lab.left.mac) && is_load(frame);
    let next = |n| socket.receive(PATIENCE, is_ours).unwrap_or_else(|| panic!("packet {n} of {load:?}"));
    (0..packets).map(|n| read(&next(n))).collect()
}

/// Whether a frame is not what the left host's stack sends now and then: neighbour discovery.
fn is_load(frame: &[u8]) -> bool {
    let protocol = if frame[12..14] == [0x86, 0xdd] { frame[20] } else { frame[23] };
    matches!(protocol, 6 | 17)
}

fn least(is_v6: bool, protocol: Protocol, stamp: bool) -> usize {
    let l4 = if protocol == Protocol::Udp { 8 } else { 20 };
    let data = usize::from(protocol == Protocol::Tcp);
    14 + if is_v6 { 40 } else { 20 } + l4 + if stamp { STAMP_BYTES } else { data }
}

#[test]
fn every_kind_of_frame_is_right_in_every_byte_that_can_be_checked() {
    require_root!();
    let lab = Lab::new();
    open_left_end(&lab);
    let socket = PacketSocket::open(&lab.gateway, GATEWAY_LEFT);
    for is_v6 in [false, true] {
        for (protocol, stamp) in [
            (Protocol::Udp, false),
            (Protocol::Udp, true),
            (Protocol::Tcp, false),
            (Protocol::Tcp, true),
            (Protocol::Syn, false),
        ] {
            for bytes in [least(is_v6, protocol, stamp), 91, 1_499, 1_514] {
                let sizes = Sizes::Fixed(bytes);
                let load = Load { flows: 3, protocol, stamp, sizes, ..load(&lab, is_v6) };
                let seen = sent_and_read(&lab, &socket, &load, 6);
                for (packet, n) in seen.iter().zip(0_u32..) {
                    assert_eq!((packet.bytes, packet.protocol), (bytes, protocol));
                    assert_eq!(u32::from(packet.src_port), 1024 + n % 3);
                    if protocol != Protocol::Syn {
                        let headers = least(is_v6, protocol, true) - STAMP_BYTES;
                        assert_eq!(packet.payload.len(), bytes - headers);
                    }
                    if stamp {
                        assert_eq!(packet.payload[..4], *b"PALS");
                        assert_eq!(packet.payload[4..8], (n / 3).to_be_bytes(), "number of packet {n}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_mix_of_sizes_is_seven_to_four_to_one_for_each_flow() {
    require_root!();
    let lab = Lab::new();
    open_left_end(&lab);
    let socket = PacketSocket::open(&lab.gateway, GATEWAY_LEFT);
    for is_v6 in [false, true] {
        for stamp in [false, true] {
            // Four divides twelve: without care each flow would have three sizes of its own.
            let load = Load { flows: 4, sizes: Sizes::Imix, stamp, ..load(&lab, is_v6) };
            let mut counts: BTreeMap<(u16, usize), u32> = BTreeMap::new();
            for packet in sent_and_read(&lab, &socket, &load, 48) {
                *counts.entry((packet.src_port, packet.bytes)).or_default() += 1;
            }
            let small = least(is_v6, Protocol::Udp, stamp).max(60);
            for port in 1024..1028 {
                let flow = [small, 590, 1514].map(|bytes| counts.get(&(port, bytes)).copied().unwrap_or(0));
                assert_eq!(flow, [7, 4, 1], "flow of port {port}, IPv6 {is_v6}, stamps {stamp}: {counts:?}");
            }
        }
    }
}

#[test]
fn a_flood_is_of_new_flows_and_leaves_the_others_alone() {
    require_root!();
    let lab = Lab::new();
    open_left_end(&lab);
    let socket = PacketSocket::open(&lab.gateway, GATEWAY_LEFT);
    for is_v6 in [false, true] {
        for protocol in [Protocol::Udp, Protocol::Syn, Protocol::Tcp] {
            let flood = Some(Flood { protocol, honest_every: 4, first: 0 });
            let load = Load { flows: 3, sizes: Sizes::Imix, stamp: true, flood, ..load(&lab, is_v6) };
            let seen = sent_and_read(&lab, &socket, &load, 120);
            let (honest, flood): (Vec<_>, Vec<_>) = seen.iter().partition(|packet| !is_flood(packet));
            assert_eq!((honest.len(), flood.len()), (30, 90));
            assert!(honest.iter().all(|packet| packet.payload.starts_with(b"PALS")));
            assert!(flood.iter().all(|packet| packet.protocol == protocol && packet.bytes <= 75));
            let flows =
                |all: &[&Seen]| all.iter().map(|one| (one.src, one.src_port)).collect::<BTreeSet<_>>();
            assert_eq!((flows(&honest).len(), flows(&flood).len()), (3, 90));
        }
    }
}

#[test]
fn a_load_goes_on_with_flows_that_another_one_has_not_had() {
    require_root!();
    let lab = Lab::new();
    open_left_end(&lab);
    let socket = PacketSocket::open(&lab.gateway, GATEWAY_LEFT);
    let flood = |first| Some(Flood { protocol: Protocol::Syn, honest_every: 2, first });
    for is_v6 in [false, true] {
        for order in [Order::InTurn, Order::Uniform] {
            let plain = Load { flows: 20, order, ..load(&lab, is_v6) };
            let both = [
                Load { flood: flood(0), ..plain.clone() },
                Load { first_flow: 20, flood: flood(40), ..plain.clone() },
            ];
            let [one, other] = both.map(|load| {
                let seen = sent_and_read(&lab, &socket, &load, 80);
                seen.iter().map(|packet| (packet.src, packet.src_port)).collect::<BTreeSet<_>>()
            });
            // 40 of the flood; of the load's own in turn all, and at random most.
            let least = if order == Order::InTurn { 60 } else { 50 };
            assert!(one.len() >= least && other.len() >= least, "{one:?}, {other:?}");
            assert!(one.is_disjoint(&other), "{order:?}: {one:?}, {other:?}");
        }
    }
}

/// Whether it comes from the flood's half of the load's network.
fn is_flood(packet: &Seen) -> bool {
    match packet.src {
        IpAddr::V4(src) => src.octets()[2] >= 0x80,
        IpAddr::V6(src) => src.octets()[14] >= 0x80,
    }
}

#[test]
fn loads_that_make_no_sense_are_refused_with_a_reason() {
    let plain = Load::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [10, 77, 0, 2]);
    let cases = [
        (Load { sizes: Sizes::Fixed(41), ..plain.clone() }, "headers need 42"),
        (Load { sizes: Sizes::Fixed(57), stamp: true, ..plain.clone() }, "headers and stamp need 58"),
        (
            Load { sizes: Sizes::Fixed(54), protocol: Protocol::Tcp, ..plain.clone() },
            "headers and a byte of data need 55",
        ),
        (Load { sizes: Sizes::Fixed(3_401), ..plain.clone() }, "3400 are the most"),
        (Load { flows: 0, ..plain.clone() }, "1 to 16777216 flows, not 0"),
        (Load { flows: 2, first_flow: FLOWS_MAX - 1, ..plain.clone() }, "not 2 from number 16777215 on"),
        (Load { stamp: true, protocol: Protocol::Syn, ..plain.clone() }, "no room for a stamp"),
        (Load { order: Order::Zipf { exponent: 11.0 }, ..plain }, "exponent from 0 to 10"),
    ];
    for (load, reason) in cases {
        let error = load.run(1, Amount::Packets(1)).expect_err("a refusal").to_string();
        assert!(error.contains(reason), "{error}");
    }
}
