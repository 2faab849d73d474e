//! Connections that the generator opens, as both ends count them and as Linux tracks them in between.

mod common;

use bench::handshake::{End, Ending, Responder, Segments, Storage};
use bench::iface_index;
use bench::load::{Amount, Flood, Load, Protocol, Sizes};
use common::{load, send, wait_until};
use etherparse::PacketBuilder;
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, HOST_IFACE, Lab, Netns};
use palisade_tests::require_root;

const FLOWS: u32 = 500;

/// Slow enough for a ring of 256 frames on a busy machine.
const RATE_PPS: u64 = 20_000;

fn attach<'storage>(
    netns: &Netns,
    iface: &str,
    storage: &'storage mut Storage,
    end: End,
) -> Responder<'storage> {
    let responder = netns.within(|| Responder::attach(storage, iface_index(iface)?, end, FLOWS));
    responder.expect("the kernel takes the responder")
}

fn syns(lab: &Lab, is_v6: bool) -> Load {
    let sizes = Sizes::Fixed(74);
    Load { flows: FLOWS, protocol: Protocol::Syn, sizes, rate_pps: Some(RATE_PPS), ..load(lab, is_v6) }
}

/// Makes the gateway a bridge that counts what conntrack says of what crosses it.
fn make_tracking_bridge(gateway: &Netns) {
    gateway.ip(&["link", "add", "br0", "up", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"]);
    for iface in [GATEWAY_LEFT, GATEWAY_RIGHT] {
        gateway.run("ethtool", &["-K", iface, "gro", "on"]);
        gateway.ip(&["link", "set", iface, "master", "br0"]);
    }
    for (tables, family) in [("iptables", "iptables"), ("ip6tables", "ip6tables")] {
        gateway.sysctl(&format!("net.bridge.bridge-nf-call-{family}"), "1");
        for state in ["NEW", "ESTABLISHED", "INVALID"] {
            let rule = ["-A", "FORWARD", "-p", "tcp", "-m", "conntrack", "--ctstate", state, "-j", "ACCEPT"];
            gateway.run(tables, &rule);
        }
    }
}

/// Packets of each state that crossed the bridge: new, established, invalid. Read once, they begin at zero again.
fn states(gateway: &Netns, is_v6: bool) -> [u64; 3] {
    let tables = if is_v6 { "ip6tables" } else { "iptables" };
    let text = gateway.run(tables, &["-t", "filter", "-vnxL", "FORWARD", "-Z"]);
    ["NEW", "ESTABLISHED", "INVALID"].map(|state| {
        let line = text.lines().find(|line| line.contains(&format!("ctstate {state}")));
        let packets = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        packets.unwrap_or_else(|| panic!("no count of {state} in {text}"))
    })
}

/// How many connections conntrack has in a state.
fn tracked(gateway: &Netns, is_v6: bool, state: &str) -> usize {
    let family = if is_v6 { "ipv6" } else { "ipv4" };
    let text = gateway.run("conntrack", &["-L", "-f", family, "-p", "tcp", "--state", state]);
    text.lines().filter(|line| line.contains("dport=7000")).count()
}

#[test]
fn handshakes_are_complete_and_repetitions_told_apart() {
    require_root!();
    let lab = Lab::new();
    let (mut far, mut near) = (Storage::default(), Storage::default());
    let server = attach(&lab.gateway, GATEWAY_LEFT, &mut far, End::Server(Ending::Open));
    let client = attach(&lab.left.netns, HOST_IFACE, &mut near, End::Client);
    let flows = u64::from(FLOWS);
    for is_v6 in [false, true] {
        server.reset().unwrap();
        client.reset().unwrap();
        // Every connection twice.
        send(&lab, &syns(&lab, is_v6), Amount::Packets(2 * FLOWS));
        let wanted = Segments { opened: flows, completed: flows, repeated: 2 * flows, ..Segments::default() };
        wait_until("all have arrived", || without_others(server.segments().unwrap()) == wanted);
        let wanted = Segments { opened: flows, repeated: flows, ..Segments::default() };
        assert_eq!(without_others(client.segments().unwrap()), wanted);
    }
}

/// Counts without what the hosts' own stacks say now and then.
fn without_others(segments: Segments) -> Segments {
    Segments { others: 0, ..segments }
}

#[test]
fn linux_finds_the_handshakes_proper_and_data_after_them_established() {
    require_root!();
    let lab = Lab::new();
    make_tracking_bridge(&lab.gateway);
    let (mut far, mut near) = (Storage::default(), Storage::default());
    let server = attach(&lab.right.netns, HOST_IFACE, &mut far, End::Server(Ending::Open));
    let _client = attach(&lab.left.netns, HOST_IFACE, &mut near, End::Client);
    let flows = u64::from(FLOWS);
    for is_v6 in [false, true] {
        server.reset().unwrap();
        let _ = states(&lab.gateway, is_v6);
        send(&lab, &syns(&lab, is_v6), Amount::Packets(FLOWS));
        wait_until("all handshakes are complete", || server.segments().unwrap().completed == flows);
        // SYN; SYN ACK and ACK.
        assert_eq!(states(&lab.gateway, is_v6), [flows, 2 * flows, 0]);
        assert_eq!(tracked(&lab.gateway, is_v6, "ESTABLISHED"), FLOWS as usize);
        let data = Load {
            protocol: Protocol::Tcp,
            stamp: true,
            sizes: Sizes::Imix,
            rate_pps: Some(5_000),
            ..syns(&lab, is_v6)
        };
        send(&lab, &data, Amount::Packets(3 * FLOWS));
        wait_until("all data has arrived", || server.segments().unwrap().data == 3 * flows);
        assert_eq!(states(&lab.gateway, is_v6), [0, 3 * flows, 0]);
        let segments = server.segments().unwrap();
        assert_eq!((segments.repeated, segments.wrong), (0, 0));
    }
}

#[test]
fn linux_sees_connections_end_as_they_were_told_to() {
    require_root!();
    for (ending, state) in [(Ending::Fin, "TIME_WAIT"), (Ending::Reset, "CLOSE")] {
        let lab = Lab::new();
        make_tracking_bridge(&lab.gateway);
        let (mut far, mut near) = (Storage::default(), Storage::default());
        let server = attach(&lab.right.netns, HOST_IFACE, &mut far, End::Server(ending));
        let client = attach(&lab.left.netns, HOST_IFACE, &mut near, End::Client);
        let flows = u64::from(FLOWS);
        for is_v6 in [false, true] {
            server.reset().unwrap();
            client.reset().unwrap();
            send(&lab, &syns(&lab, is_v6), Amount::Packets(FLOWS));
            wait_until("all are closed", || client.segments().unwrap().closed == flows);
            let segments = server.segments().unwrap();
            let closed = if ending == Ending::Fin { flows } else { 0 };
            assert_eq!((segments.completed, segments.closed, segments.wrong), (flows, closed, 0));
            assert_eq!(states(&lab.gateway, is_v6)[2], 0);
            assert_eq!(tracked(&lab.gateway, is_v6, state), FLOWS as usize, "{ending:?}, IPv6 {is_v6}");
        }
    }
}

#[test]
fn what_completes_no_handshake_is_not_counted_as_one() {
    require_root!();
    let lab = Lab::new();
    let mut storage = Storage::default();
    let server = attach(&lab.gateway, GATEWAY_LEFT, &mut storage, End::Server(Ending::Open));
    let wire = lab.left_wire();
    let segment = |low: u8, number, acknowledged: u32| {
        let builder = PacketBuilder::ethernet2(lab.left.mac, lab.right.mac)
            .ipv4([10, 77, low, 0], lab.right.v4.octets(), 64)
            .tcp(1024, 7000, number, 1_000)
            .ack(acknowledged);
        let mut frame = Vec::new();
        builder.write(&mut frame, &[]).expect("a vector takes every byte");
        frame
    };
    wire.send(&segment(64, 0x1000_0001, 0x2000_0002));
    wire.send(&segment(64, 0x1000_0002, 0x2000_0001));
    wire.send(&segment(128, 0x1000_0001, 0x2000_0001));
    let wanted = Segments { wrong: 2, flood: 1, ..Segments::default() };
    wait_until("they have arrived", || without_others(server.segments().unwrap()) == wanted);
    wire.send(&segment(64, 0x1000_0001, 0x2000_0001));
    let wanted = Segments { completed: 1, ..wanted };
    wait_until("the right one has arrived", || without_others(server.segments().unwrap()) == wanted);
}

#[test]
fn honest_connections_are_opened_beside_a_flood() {
    require_root!();
    let lab = Lab::new();
    let (mut far, mut near) = (Storage::default(), Storage::default());
    let server = attach(&lab.gateway, GATEWAY_LEFT, &mut far, End::Server(Ending::Open));
    let _client = attach(&lab.left.netns, HOST_IFACE, &mut near, End::Client);
    let flood = Some(Flood { protocol: Protocol::Syn, honest_every: 10, first: 0 });
    let sent = send(&lab, &Load { flood, ..syns(&lab, false) }, Amount::Packets(10 * FLOWS));
    assert_eq!((sent.packets, sent.flood), (10 * u64::from(FLOWS), 9 * u64::from(FLOWS)));
    let flows = u64::from(FLOWS);
    let wanted = Segments { opened: flows, completed: flows, flood: sent.flood, ..Segments::default() };
    wait_until("all have arrived", || without_others(server.segments().unwrap()) == wanted);
}
