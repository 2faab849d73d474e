//! The lab itself: without a gateway program in the middle, a kernel bridge stands in for one.

use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, HOST_IFACE, Lab, Link};
use palisade_tests::{frames, require_root, traffic};

fn bridged() -> Lab {
    let lab = Lab::new();
    lab.gateway.ip(&["link", "add", "br0", "up", "type", "bridge", "forward_delay", "0"]);
    for iface in [GATEWAY_LEFT, GATEWAY_RIGHT] {
        lab.gateway.ip(&["link", "set", iface, "master", "br0"]);
    }
    lab
}

#[test]
fn hosts_talk_through_whatever_joins_the_gateways_nics() {
    require_root!();
    let lab = bridged();
    assert_eq!(traffic::ping(&lab.left.netns, lab.right.v4.into(), 3, 56), 3);
    assert_eq!(traffic::ping(&lab.right.netns, lab.left.v6.into(), 3, 56), 3);
    for is_v6 in [false, true] {
        traffic::tcp_both_ways(&lab.left, &lab.right, is_v6, 80, 1 << 20);
        assert_eq!(traffic::udp_echo(&lab.left, &lab.right, is_v6, 7000, 10, 500), 10);
    }
    lab.set_cable(Link::Right, false);
    assert_eq!(traffic::ping(&lab.left.netns, lab.right.v4.into(), 1, 56), 0);
    lab.set_cable(Link::Right, true);
    assert_eq!(traffic::ping(&lab.left.netns, lab.right.v6.into(), 1, 56), 1);
}

#[test]
fn raw_frames_arrive_as_they_were_sent() {
    require_root!();
    let lab = bridged();
    let (left, right) = (lab.left_wire(), lab.right_wire());
    let frame = frames::tagged(&frames::udp_v4(&lab, 1, 2, b"hello"), &[(frames::TPID_8021Q, 5)]);
    left.send(&frame);
    // The receiving host takes the tag out of the frame before a packet socket sees it.
    let untagged = frames::udp_v4(&lab, 1, 2, b"hello");
    assert!(right.receive(traffic::PATIENCE, |got| got == untagged || got == frame).is_some());
    assert!(left.receive(traffic::SILENCE, |got| got == frame).is_none(), "own frames are not received");
}

#[test]
fn namespaces_go_with_the_lab_even_by_a_panic() {
    require_root!();
    let names = std::thread::spawn(|| {
        let lab = Lab::new();
        assert_eq!(lab.left.netns.link(HOST_IFACE)["mtu"], 1500);
        std::panic::panic_any(
            [&lab.left.netns, &lab.gateway, &lab.right.netns].map(|ns| ns.name().to_owned()),
        );
    })
    .join()
    .unwrap_err()
    .downcast::<[String; 3]>()
    .unwrap();
    for name in *names {
        assert!(!std::path::Path::new("/run/netns").join(name).exists());
    }
}
