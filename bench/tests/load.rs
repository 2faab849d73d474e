//! The generator and the sink, on one cable and through a kernel bridge.

use bench::iface_index;
use bench::load::{Amount, DST_PORT, FRAME_MAX_BYTES, HEADERS_BYTES, Load, Sizes};
use bench::sink::{Counts, Sink, Storage};
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, HOST_IFACE, Lab};
use palisade_tests::{require_root, traffic};
use std::time::Duration;

fn load(lab: &Lab, flows: u32, frame_bytes: usize, rate_pps: Option<u64>) -> Load {
    let (src_mac, dst_mac) = (lab.left.mac, lab.right.mac);
    Load { flows, sizes: Sizes::Fixed(frame_bytes), rate_pps, ..Load::new(src_mac, dst_mac, lab.right.v4) }
}

fn run(lab: &Lab, load: &Load, amount: Amount) -> u64 {
    let sent = lab.left.netns.within(|| load.run(iface_index(HOST_IFACE)?, amount));
    sent.expect("the kernel takes the generator").packets
}

#[test]
fn what_is_sent_is_counted_in_all_and_by_flow() {
    require_root!();
    let lab = Lab::new();
    let mut storage = Storage::default();
    // The gateway's end of the left cable: the sink is its XDP program, so the frames arrive.
    let sink = lab
        .gateway
        .within(|| Sink::attach(&mut storage, iface_index(GATEWAY_LEFT).unwrap(), 70_000))
        .unwrap();
    // Slow enough for a ring of 256 frames, also when others use this core.
    let sent = run(&lab, &load(&lab, 70_000, 64, Some(1_000_000)), Amount::Packets(140_000));
    assert_eq!(sent, 140_000);
    let Counts { packets, bytes, .. } = sink.counts().unwrap();
    assert_eq!((packets, bytes), (140_000, 140_000 * 64));
    assert!(sink.flows().unwrap().iter().all(|packets| *packets == 2));
}

#[test]
fn checksums_are_right_for_every_flow_and_length() {
    require_root!();
    let lab = Lab::new();
    lab.gateway.ip(&["link", "add", "br0", "up", "type", "bridge", "forward_delay", "0"]);
    for iface in [GATEWAY_LEFT, GATEWAY_RIGHT] {
        lab.gateway.ip(&["link", "set", iface, "master", "br0"]);
        lab.gateway.run("ethtool", &["-K", iface, "gro", "on"]);
    }
    // The far host's stack checks IP and UDP checksums; source addresses need a route back to pass.
    lab.right.netns.ip(&["route", "add", "10.77.64.0/18", "dev", HOST_IFACE]);
    let socket = traffic::udp_socket(&lab.right.netns, (lab.right.v4, DST_PORT).into());
    let mut buffer = [0; FRAME_MAX_BYTES];
    for frame_bytes in [HEADERS_BYTES, 64, 65, 1499] {
        let load = load(&lab, 3, frame_bytes, None);
        assert_eq!(run(&lab, &load, Amount::Packets(3)), 3);
        for flow in 0..3 {
            let (len, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((len, from), (frame_bytes - HEADERS_BYTES, ([10, 77, 64, 0], 1024 + flow).into()));
        }
    }
}

#[test]
fn a_run_ends_when_its_time_is_up() {
    require_root!();
    let lab = Lab::new();
    let time = Duration::from_millis(50);
    let sent = run(&lab, &load(&lab, 1, 64, Some(100_000)), Amount::Time(time));
    assert!((1..=5_100).contains(&sent), "{sent} packets in {time:?} at 100,000 a second");
}
