//! What tests of the traffic tools share.
#![allow(dead_code, reason = "each test file uses a part")]

use bench::iface_index;
use bench::load::{Amount, Load, Sent};
use palisade_tests::lab::{GATEWAY_LEFT, HOST_IFACE, Lab};
use std::thread;
use std::time::{Duration, Instant};

/// Longest what was sent may take to arrive on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The plainest load from the left host to the right one.
pub(crate) fn load(lab: &Lab, is_v6: bool) -> Load {
    Load::new(lab.left.mac, lab.right.mac, lab.right.addr(is_v6))
}

/// Sends it from the left host.
pub(crate) fn send(lab: &Lab, load: &Load, amount: Amount) -> Sent {
    let sent = lab.left.netns.within(|| load.run(iface_index(HOST_IFACE)?, amount));
    sent.expect("the kernel takes the generator")
}

/// Makes the gateway's end of the left cable take the generator's frames without an XDP program of its own.
pub(crate) fn open_left_end(lab: &Lab) {
    lab.gateway.run("ethtool", &["-K", GATEWAY_LEFT, "gro", "on"]);
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} has not come true in {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Ones' complement sum of a frame's pseudo header and segment, checksum included: `0xffff` if that is right.
pub(crate) fn l4_sum(frame: &[u8]) -> u32 {
    let is_v6 = frame[12..14] == [0x86, 0xdd];
    let (l4_at, addresses, protocol) =
        if is_v6 { (54, &frame[22..54], frame[20]) } else { (34, &frame[26..34], frame[23]) };
    let segment = &frame[l4_at..];
    let words = |bytes: &[u8]| {
        bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
            .sum::<u32>()
    };
    let mut sum = words(addresses)
        + u32::from(protocol)
        + u32::try_from(segment.len()).expect("a frame is short")
        + words(segment);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}
