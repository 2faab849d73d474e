//! The traffic tools through Palisade itself: what they call a connection is one to it, and what they send back is an
//! answer.

mod common;

use bench::handshake::{self, End, Ending, Responder};
use bench::iface_index;
use bench::load::{Amount, Load, Protocol, Sizes};
use bench::pace::{self, Spacing};
use bench::sink::{Options, Role, Sequence, Sink, Storage};
use common::{load, send, wait_until};
use palisade_tests::daemon::Daemon;
use palisade_tests::lab::{HOST_IFACE, Lab};
use palisade_tests::require_root;

const FLOWS: u32 = 200;

/// Connections may be opened from the left; nothing passes but what belongs to one.
const STATEFUL: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -i left -p tcp --syn -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -i left -p udp -m conntrack --ctstate NEW -j ACCEPT
COMMIT
";

#[test]
fn palisade_finds_connections_established_and_their_data_part_of_them() {
    require_root!();
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(STATEFUL).rules6(STATEFUL).start();
    let (mut far, mut near) = (handshake::Storage::default(), handshake::Storage::default());
    let attach = |netns: &palisade_tests::lab::Netns, storage, end| {
        netns
            .within(|| Responder::attach(storage, iface_index(HOST_IFACE)?, end, FLOWS))
            .expect("the kernel takes the responder")
    };
    let server = attach(&lab.right.netns, &mut far, End::Server(Ending::Open));
    let _client = attach(&lab.left.netns, &mut near, End::Client);
    let flows = u64::from(FLOWS);
    for is_v6 in [false, true] {
        server.reset().unwrap();
        let sizes = Sizes::Fixed(80);
        let plain = Load { flows: FLOWS, sizes, rate_pps: Some(5_000), ..load(&lab, is_v6) };
        let data = Load { protocol: Protocol::Tcp, ..plain.clone() };
        // Data of connections that nobody has opened does not pass.
        let dropped = daemon.stats().dropped();
        send(&lab, &data, Amount::Packets(FLOWS));
        daemon.stats_until("all data before a SYN is dropped", |stats| stats.dropped() >= dropped + flows);
        assert_eq!(server.segments().unwrap().data, 0);
        send(&lab, &Load { protocol: Protocol::Syn, ..plain }, Amount::Packets(FLOWS));
        wait_until("all handshakes are complete", || server.segments().unwrap().completed == flows);
        send(&lab, &data, Amount::Packets(2 * FLOWS));
        wait_until("all data has arrived", || server.segments().unwrap().data == 2 * flows);
        assert_eq!(server.segments().unwrap().wrong, 0);
    }
}

#[test]
fn round_trips_through_palisade_are_timed_and_complete() {
    require_root!();
    const PACKETS: u32 = 2_000;
    let lab = Lab::new();
    let _daemon = Daemon::builder(&lab).rules(STATEFUL).start();
    let (mut far, mut near) = (Storage::default(), Storage::default());
    let options = |role| Options { flows: 10, stamps: true, role };
    let _far = lab
        .right
        .netns
        .within(|| Sink::attach_as(&mut far, iface_index(HOST_IFACE)?, options(Role::Echo)))
        .unwrap();
    let near = lab
        .left
        .netns
        .within(|| Sink::attach_as(&mut near, iface_index(HOST_IFACE)?, options(Role::DropReplies)))
        .unwrap();
    let load = Load { flows: 10, stamp: true, rate_pps: Some(5_000), ..load(&lab, false) };
    let paced = lab
        .left
        .netns
        .within(|| pace::run(&load, iface_index(HOST_IFACE)?, Spacing::Poisson, Amount::Packets(PACKETS)));
    assert_eq!(paced.unwrap().packets, u64::from(PACKETS));
    wait_until("all have come back", || near.counts().unwrap().packets == u64::from(PACKETS));
    let whole = Sequence { packets: 200, expected: 200, ..Sequence::default() };
    assert_eq!(near.sequences().unwrap(), vec![whole; 10]);
    let histogram = near.latencies().unwrap().histogram;
    assert_eq!(histogram.len(), u64::from(PACKETS));
}
