//! The tracker as a worker uses it: frames in, ct states out, time as an argument.

mod events;
mod frames;
mod labels;
mod moving;
mod requests;
mod tally;
mod verdicts;

use super::*;
use crate::clock::Now;
use crate::ids::{Generation, WorkerId};
use crate::packet::tcp_flag::{ACK, FIN, RST, SYN, URG};
use crate::packet::{Fragment, Kind, L4Fault, Packet, proto};
use crate::rules::conn::{CtEvents, Orders};
use crate::rules::model::CtState;
use CtState::{Established, Invalid, New, Related, Untracked};
use frames::{A, B, C, Frame, icmp, icmp_error, tcp, udp};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A tracker behind rules that accept everything.
struct Lab {
    tracker: Tracker,
    settings: TrackSettings,
    orders: Orders,
    claim: Claim,
    now: Now,
}

impl Lab {
    fn new() -> Self {
        Self::with_room(1000)
    }

    fn with_room(max_flows: u32) -> Self {
        let config = TrackerConfig {
            max_flows,
            max_flows_v6: max_flows / 2,
            worker: WorkerId(0),
            seed: Seed::random(),
            hugepages: false,
            prefault: false,
        };
        // All the table for anybody, as in the kernel; tests of the limits set their own.
        let settings = TrackSettings {
            half_open_percent: 100,
            management_reserve_percent: 0,
            adaptive_start_percent: 0,
            ..TrackSettings::default()
        };
        let mut tracker = Tracker::new(&config).unwrap();
        tracker.adopt(&settings, &Policies::default(), true);
        Self {
            tracker,
            settings,
            orders: Orders::default(),
            claim: Claim::default(),
            now: Now::from_secs(1000),
        }
    }

    fn track(&mut self, frame: &Frame) -> Tracked {
        let mut packet = frame.packet;
        packet.hash = self.tracker.hash(&packet.tuple);
        self.tracker.prefetch_index(&packet);
        self.tracker.prefetch(std::slice::from_mut(&mut packet));
        self.tracker.track(&packet, &frame.bytes, self.now, &self.settings, &self.orders)
    }

    fn commit(&mut self, frame: &Frame, tracked: &mut Tracked) -> Result<Option<Slot>, TableFull> {
        let mut packet = frame.packet;
        packet.hash = self.tracker.hash(&packet.tuple);
        self.tracker.commit(&packet, tracked, self.now, self.claim)
    }

    /// Sends a packet through and commits it; its ct state.
    fn send(&mut self, frame: &Frame) -> CtState {
        let mut tracked = self.track(frame);
        assert_eq!(tracked.invalid.is_some(), tracked.state == Invalid);
        self.commit(frame, &mut tracked).unwrap();
        self.tracker.finish(&tracked, true);
        tracked.state
    }

    /// Sends a packet that rules drop.
    fn send_dropped(&mut self, frame: &Frame) {
        let tracked = self.track(frame);
        self.tracker.finish(&tracked, false);
    }

    /// Has somebody listen to events.
    fn listen(&mut self) -> rtrb::Consumer<FlowEvent> {
        self.listen_to(true, false)
    }

    /// The same, to everything or to ends.
    fn listen_to(&mut self, on: bool, ends: bool) -> rtrb::Consumer<FlowEvent> {
        let listening = Arc::new(Listening::default());
        listening.on.store(on, Relaxed);
        listening.ends.store(ends, Relaxed);
        let (out, events) = rtrb::RingBuffer::new(64);
        self.tracker.report_to(out, listening);
        self.tracker.look_for_listeners(self.now);
        events
    }

    /// Why a packet is INVALID.
    fn reason(&mut self, frame: &Frame) -> Option<InvalidReason> {
        let tracked = self.track(frame);
        assert_eq!(tracked.state == Invalid, tracked.invalid.is_some());
        tracked.invalid
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now.plus_nanos(secs * 1_000_000_000);
    }

    /// The only flow in the table.
    fn flow(&self) -> FlowView {
        let mut views = Vec::new();
        self.tracker.region().walk(self.now.tick(), |view| views.push(*view));
        assert_eq!(views.len(), 1, "{views:?}");
        views[0]
    }

    /// Opens a connection from A to B.
    fn handshake(&mut self) {
        assert_eq!(self.send(&tcp(A, B, SYN).seq(1000)), New);
        assert_eq!(self.send(&tcp(B, A, SYN | ACK).seq(5000).ack(1001)), Established);
        assert_eq!(self.send(&tcp(A, B, ACK).seq(1001).ack(5001)), Established);
    }
}

#[test]
fn a_packet_that_is_not_committed_leaves_nothing() {
    let mut lab = Lab::new();
    for _ in 0..3 {
        assert_eq!(lab.track(&udp(A, B)).state, New);
        assert_eq!(lab.track(&tcp(A, B, SYN)).state, New);
    }
    assert_eq!(lab.tracker.flow_count(), 0);
    assert_eq!(lab.track(&udp(B, A)).state, New);
}

#[test]
fn a_handshake_is_new_then_established_then_assured() {
    let mut lab = Lab::new();
    lab.handshake();
    let flow = lab.flow();
    assert_eq!(flow.tcp_state, Some(TcpState::Established));
    assert!(flow.is_assured() && flow.is_seen_reply());
    assert_eq!(flow.secs_left, 432_000);
    assert_eq!(flow.orig, tcp(A, B, 0).packet.tuple);
    assert_eq!(flow.reply, tcp(B, A, 0).packet.tuple);
    assert_eq!(lab.tracker.half_open_count(), 0);
    lab.wait(431_999);
    assert_eq!(lab.flow().secs_left, 1);
    let almost = lab.now.plus_nanos(500_000_000).tick();
    let view = lab.tracker.region().view(lab.flow().slot, almost).unwrap();
    assert_eq!((view.secs_left, view.is_expired(almost)), (0, false), "the last second is not over");
    assert!(view.is_expired(lab.now.plus_nanos(1_000_000_000).tick()));
    assert_eq!(lab.send(&tcp(A, B, ACK).seq(1001).ack(5001)), Established);
    lab.wait(432_000);
    // Too late: picked up anew.
    assert_eq!(lab.send(&tcp(A, B, ACK).seq(1001).ack(5001)), New);
    assert_eq!(lab.tracker.stats().expired, 1);
}

#[test]
fn both_directions_of_ipv6_find_the_flow() {
    let mut lab = Lab::new();
    let (there, back) = (tcp(A, B, SYN).v6(), tcp(B, A, SYN | ACK).v6().ack(1));
    assert_eq!((lab.send(&there), lab.send(&back)), (New, Established));
    // The same numbers as IPv4 are another flow.
    assert_eq!(lab.send(&tcp(A, B, SYN)), New);
}

#[test]
fn the_first_syn_answered_by_a_reset_is_new_again() {
    let mut lab = Lab::new();
    assert_eq!(lab.send(&tcp(A, B, SYN).seq(1000)), New);
    assert_eq!(lab.tracker.half_open_count(), 1);
    assert_eq!(lab.send(&tcp(B, A, RST | ACK).ack(1001)), Established);
    assert_eq!((lab.tracker.flow_count(), lab.tracker.half_open_count()), (0, 0));
    assert_eq!(lab.send(&tcp(A, B, SYN).seq(1000)), New);
}

#[test]
fn a_connection_in_time_wait_is_reopened_from_either_side() {
    for from_server in [false, true] {
        let mut lab = Lab::new();
        lab.handshake();
        assert_eq!(lab.send(&tcp(A, B, FIN | ACK).seq(1001).ack(5001)), Established);
        assert_eq!(lab.send(&tcp(B, A, FIN | ACK).seq(5001).ack(1002)), Established);
        assert_eq!(lab.send(&tcp(A, B, ACK).seq(1002).ack(5002)), Established);
        assert_eq!(lab.flow().tcp_state, Some(TcpState::TimeWait));
        let (from, to) = if from_server { (B, A) } else { (A, B) };
        assert_eq!(lab.send(&tcp(from, to, SYN).seq(77)), New);
        assert_eq!(lab.flow().orig, tcp(from, to, 0).packet.tuple);
        assert_eq!(lab.flow().tcp_state, Some(TcpState::SynSent));
    }
}

#[test]
fn packets_that_cannot_be_tracked_are_invalid_for_a_reason() {
    let mut lab = Lab::new();
    let fault = |fault| {
        let mut frame = udp(A, B);
        frame.packet.l4_fault = Some(fault);
        frame
    };
    let mut later = udp(A, B);
    later.packet.fragment = Fragment::Later;
    for (frame, reason) in [
        (later, InvalidReason::LaterFragment),
        (fault(L4Fault::Truncated), InvalidReason::Truncated),
        (fault(L4Fault::BadLength), InvalidReason::BadLength),
        (fault(L4Fault::NoUpperLayer), InvalidReason::NoUpperLayer),
        (tcp(A, B, FIN), InvalidReason::BadFlags),
        (tcp(A, B, SYN | FIN), InvalidReason::BadFlags),
        (tcp(A, B, SYN | ACK | URG), InvalidReason::BadFlags),
        (tcp(A, B, 0), InvalidReason::BadFlags),
        (tcp(A, B, SYN | ACK), InvalidReason::TcpNoStart),
        (icmp(A, B, 0, 0), InvalidReason::IcmpUnsolicited),
        (icmp(A, B, 9, 0), InvalidReason::IcmpType),
        (icmp(A, B, 200, 0), InvalidReason::IcmpType),
        (icmp(A, B, 129, 0).v6(), InvalidReason::IcmpUnsolicited),
        (icmp(A, B, 200, 0).v6(), InvalidReason::IcmpType),
        (icmp(A, B, 3, 1), InvalidReason::IcmpErrorInner),
    ] {
        assert_eq!(lab.reason(&frame), Some(reason), "{:?}", frame.packet);
    }
    assert_eq!(lab.tracker.stats().invalid_total(), 15);
}

#[test]
fn wrong_checksums_are_invalid_unless_nobody_looks() {
    for frame in [tcp(A, B, SYN), udp(A, B), icmp(A, B, 8, 0), tcp(A, B, SYN).v6(), icmp(A, B, 128, 0).v6()] {
        let mut lab = Lab::new();
        let broken = frame.clone().with_broken_checksum();
        assert_eq!(lab.reason(&broken), Some(InvalidReason::BadChecksum), "{:?}", frame.packet);
        assert_eq!(lab.reason(&frame), None);
        // A fragment that could not be put together with others has nothing that could be verified.
        let mut first = frame.clone();
        first.packet.fragment = Fragment::First;
        assert_eq!(lab.reason(&first), Some(InvalidReason::LaterFragment));
        lab.settings.checksum = false;
        assert_eq!(lab.reason(&broken), None);
    }
    let mut lab = Lab::new();
    assert_eq!(lab.reason(&udp(A, B).without_checksum()), None);
    assert_eq!(lab.reason(&udp(A, B).v6().without_checksum()), None);
}

#[test]
fn udp_is_new_until_answered_and_a_stream_after_two_seconds() {
    let mut lab = Lab::new();
    for _ in 0..3 {
        assert_eq!(lab.send(&udp(A, B)), New);
    }
    assert_eq!(lab.tracker.half_open_count(), 1);
    assert_eq!(lab.send(&udp(B, A)), Established);
    assert_eq!(lab.tracker.half_open_count(), 0);
    assert_eq!(lab.send(&udp(A, B)), Established);
    assert_eq!((lab.flow().secs_left, lab.flow().is_assured()), (30, false));
    lab.wait(2);
    assert_eq!(lab.send(&udp(A, B)), Established);
    assert_eq!((lab.flow().secs_left, lab.flow().is_assured()), (30, false));
    lab.now = lab.now.plus_nanos(10_000_000);
    assert_eq!(lab.send(&udp(B, A)), Established);
    assert_eq!((lab.flow().secs_left, lab.flow().is_assured()), (120, true));
    assert_eq!(lab.flow().tcp_state, None);
    lab.wait(120);
    assert_eq!(lab.send(&udp(A, B)), New);
}

#[test]
fn a_stream_goes_on_alike_whether_its_record_was_guessed_or_not() {
    let families: [fn(Frame) -> Frame; 2] = [|frame| frame, Frame::v6];
    for family in families {
        let [mut guessed, mut looked_up] = [(); 2].map(|()| Lab::new());
        let (there, back) = (family(udp(A, B)), family(udp(B, A)));
        let mut both = |wait_millis: u64, frame: &Frame| {
            for lab in [&mut guessed, &mut looked_up] {
                lab.now = lab.now.plus_nanos(wait_millis * 1_000_000);
            }
            let state = guessed.send(frame);
            let mut packet = frame.packet;
            packet.hash = looked_up.tracker.hash(&packet.tuple);
            assert_eq!(packet.hint, crate::packet::Hint::NONE);
            let Lab { tracker, settings, orders, now, claim } = &mut looked_up;
            let mut tracked = tracker.track(&packet, &frame.bytes, *now, settings, orders);
            tracker.commit(&packet, &mut tracked, *now, *claim).unwrap();
            tracker.finish(&tracked, true);
            assert_eq!(state, tracked.state);
            let [one, other] = [&guessed, &looked_up].map(|lab| {
                let (flow, stats) = (lab.flow(), *lab.tracker.stats());
                (flow.secs_left, flow.is_assured(), stats.found, stats.expired, stats.invalid)
            });
            assert_eq!(one, other);
            (state, one.0, one.1)
        };
        assert_eq!(both(0, &there), (New, 30, false));
        assert_eq!(both(0, &back), (Established, 30, false));
        assert_eq!(both(2_000, &there), (Established, 30, false));
        assert_eq!(both(1_000, &there), (Established, 120, true));
        assert_eq!(both(100_000, &back), (Established, 120, true));
        assert_eq!(both(100_000, &there.clone().with_broken_checksum()), (Invalid, 20, true));
        assert_eq!(both(10_000, &there), (Established, 120, true));
        assert_eq!(both(120_000, &there), (New, 30, false));
    }
}

#[test]
fn icmp_queries_are_keyed_by_identifier_and_code() {
    for (v6, ask, answer) in
        [(false, 8, 0), (false, 13, 14), (false, 17, 18), (true, 128, 129), (true, 139, 140)]
    {
        let frame = |from, to, ty, code| {
            let frame = icmp(from, to, ty, code);
            if v6 { frame.v6() } else { frame }
        };
        let mut lab = Lab::new();
        assert_eq!(lab.send(&frame(B, A, answer, 1)), Invalid);
        assert_eq!(lab.send(&frame(A, B, ask, 1)), New);
        assert_eq!(lab.send(&frame(B, A, answer, 0)), Invalid, "another code");
        assert_eq!(lab.send(&frame(B, A, answer, 1)), Established);
        assert_eq!(lab.send(&frame(B, A, answer, 1)), Established);
        assert_eq!(lab.send(&frame(A, B, ask, 1)), Established);
        assert_eq!(lab.send(&frame(B, A, ask, 1)), New, "the other way round is another flow");
        assert_eq!(lab.tracker.flow_count(), 2);
    }
}

#[test]
fn icmp_of_the_wrong_family_is_invalid() {
    let mut lab = Lab::new();
    let mut frame = icmp(A, B, 8, 0).v6();
    frame.packet.tuple.proto = proto::ICMP;
    lab.settings.checksum = false;
    assert_eq!(lab.reason(&frame), Some(InvalidReason::IcmpType));
}

#[test]
fn neighbour_discovery_and_mld_are_untracked() {
    let mut lab = Lab::new();
    for ty in [130, 131, 132, 133, 134, 135, 136, 143, 151, 152] {
        assert_eq!(lab.send(&icmp(A, B, ty, 0).v6()), Untracked, "{ty}");
    }
    assert_eq!(lab.tracker.flow_count(), 0);
    assert_eq!(lab.reason(&icmp(A, B, 137, 0).v6()), Some(InvalidReason::IcmpRedirect));
}

#[test]
fn an_icmp_error_about_a_flow_is_related_in_either_direction() {
    for v6 in [false, true] {
        let kind = |frame: Frame| if v6 { frame.v6() } else { frame };
        let ty = if v6 { 1 } else { 3 };
        for inner in [udp(A, B), tcp(A, B, SYN), icmp(A, B, if v6 { 128 } else { 8 }, 0)] {
            let inner = kind(inner);
            let mut lab = Lab::new();
            // Before there is a flow.
            let error = icmp_error(C, A, ty, &inner);
            assert_eq!(lab.reason(&error), Some(InvalidReason::IcmpErrorNoFlow));
            assert_eq!(lab.send(&inner), New);
            let tracked = lab.track(&error);
            assert_eq!((tracked.state, tracked.direction), (Related, Direction::Reply), "{inner:?}");
            assert!(matches!(tracked.flow, FlowRef::About(_)));
            // To somebody else.
            let astray = icmp_error(C, B, ty, &inner);
            assert_eq!(lab.reason(&astray), Some(InvalidReason::IcmpErrorAddress));
            // The flow itself is as it was.
            assert_eq!(lab.send(&inner), New);
        }
        let mut lab = Lab::new();
        lab.send(&kind(udp(A, B)));
        let tracked = lab.track(&icmp_error(C, B, ty, &kind(udp(B, A))));
        assert_eq!((tracked.state, tracked.direction), (Related, Direction::Orig));
    }
}

#[test]
fn four_bytes_of_the_inner_upper_layer_are_enough_and_three_are_not() {
    let mut lab = Lab::new();
    lab.send(&udp(A, B));
    let whole = icmp_error(C, A, 11, &udp(A, B));
    assert_eq!(lab.reason(&whole.clone().cut_to(14 + 20 + 8 + 20 + 4)), None);
    assert_eq!(lab.reason(&whole.cut_to(14 + 20 + 8 + 20 + 3)), Some(InvalidReason::IcmpErrorInner));
}

#[test]
fn an_error_about_a_later_fragment_or_an_error_is_invalid() {
    let mut lab = Lab::new();
    lab.send(&udp(A, B));
    let mut fragment = udp(A, B);
    fragment.bytes[14 + 7] = 1;
    assert_eq!(lab.reason(&icmp_error(C, A, 3, &fragment)), Some(InvalidReason::IcmpErrorInner));
    let error = icmp_error(A, B, 3, &udp(B, A));
    assert_eq!(lab.reason(&icmp_error(C, A, 3, &error)), Some(InvalidReason::IcmpErrorInner));
}

#[test]
fn a_redirect_from_a_router_on_the_link_is_about_a_flow() {
    let mut lab = Lab::new();
    lab.settings.checksum = false;
    lab.send(&udp(A, B).v6());
    let from_router = frames::redirect_v6(0xfe80 << 112 | 1, A, &udp(A, B).v6());
    assert_eq!(lab.track(&from_router).state, Related);
    let mut far = from_router.clone();
    far.bytes[14 + 7] = 64;
    assert_eq!(lab.reason(&far), Some(InvalidReason::IcmpRedirect));
    let stranger = frames::redirect_v6(0x2001 << 112 | 1, A, &udp(A, B).v6());
    assert_eq!(lab.reason(&stranger), Some(InvalidReason::IcmpRedirect));
}

#[test]
fn other_protocols_have_one_flow_per_address_pair() {
    for (number, single, stream, assured) in
        [(proto::GRE, 30, 180, true), (proto::ESP, 600, 600, false), (253, 600, 600, false)]
    {
        let mut lab = Lab::new();
        let (there, back) = (frames::other(A, B, number), frames::other(B, A, number));
        assert_eq!(lab.send(&there), New);
        assert_eq!(lab.flow().secs_left, single);
        assert_eq!(lab.send(&back), Established);
        assert_eq!(lab.send(&there), Established);
        assert_eq!((lab.flow().secs_left, lab.flow().is_assured()), (stream, assured), "{number}");
    }
}

#[test]
fn a_land_packet_is_new_and_then_established_with_itself() {
    let mut lab = Lab::new();
    let land = tcp(A, A, SYN).ports(80, 80);
    assert_eq!((lab.send(&land), lab.send(&land)), (New, Established));
    let land = udp(A, A).ports(80, 80);
    assert_eq!((lab.send(&land), lab.send(&land)), (New, Established));
}

#[test]
fn two_packets_tracked_before_either_is_committed_share_one_flow() {
    let mut lab = Lab::new();
    let (there, back) = (udp(A, B), udp(B, A));
    let (mut first, mut second) = (lab.track(&there), lab.track(&back));
    let slot = lab.commit(&there, &mut first).unwrap();
    assert_eq!(lab.commit(&back, &mut second).unwrap(), slot);
    assert_eq!(second.direction, Direction::Reply);
    assert_eq!(lab.tracker.flow_count(), 1);
}

#[test]
fn counters_count_per_direction() {
    let mut lab = Lab::new();
    lab.handshake();
    let slot = lab.flow().slot;
    lab.tracker.count(slot, Direction::Orig, 40);
    lab.tracker.count(slot, Direction::Orig, 1500);
    lab.tracker.count(slot, Direction::Reply, 60);
    assert_eq!((lab.flow().packets, lab.flow().bytes), ([2, 1], [1540, 60]));
}

#[test]
fn control_can_only_expire_what_is_expired() {
    let mut lab = Lab::new();
    lab.send(&udp(A, B));
    let named = lab.flow();
    assert!(!lab.tracker.expire(Expired { slot: named.slot, seq: named.seq }, lab.now));
    lab.wait(30);
    assert!(!lab.tracker.expire(Expired { slot: named.slot, seq: named.seq.wrapping_add(2) }, lab.now));
    let mut out = Vec::new();
    assert!(lab.tracker.region().expired(lab.now.tick(), Cursor::default(), 1000, &mut out).is_start());
    assert_eq!(out, [Expired { slot: named.slot, seq: named.seq }]);
    assert!(lab.tracker.expire(Expired { slot: named.slot, seq: named.seq }, lab.now));
    assert!(!lab.tracker.expire(Expired { slot: named.slot, seq: named.seq }, lab.now));
    assert!(!lab.tracker.remove(named.slot));
    assert_eq!((lab.tracker.flow_count(), lab.tracker.half_open_count()), (0, 0));
}

#[test]
fn a_connection_rejected_with_a_reset_closes_in_ten_seconds() {
    let mut lab = Lab::new();
    lab.handshake();
    lab.tracker.close_rejected(lab.flow().slot, lab.now, &lab.settings);
    assert_eq!((lab.flow().tcp_state, lab.flow().secs_left), (Some(TcpState::Close), 10));
}

#[test]
fn a_full_table_evicts_what_is_not_assured_and_nothing_else() {
    let mut lab = Lab::with_room(20);
    for port in 0..20 {
        assert_eq!(lab.send(&udp(A, B).ports(port, 53)), New);
    }
    assert_eq!(lab.send(&udp(A, B).ports(100, 53)), New);
    assert_eq!((lab.tracker.flow_count(), lab.tracker.stats().early_drop), (20, 1));
    // Now all of them become ASSURED.
    let mut lab = Lab::with_room(20);
    for round in 0..3 {
        for port in 0..20 {
            lab.send(&udp(A, B).ports(port, 53));
            lab.send(&udp(B, A).ports(53, port));
        }
        lab.wait(if round == 0 { 3 } else { 0 });
    }
    let late = udp(A, B).ports(100, 53);
    let mut tracked = lab.track(&late);
    assert_eq!(lab.commit(&late, &mut tracked), Err(TableFull));
    assert!(matches!(tracked.flow, FlowRef::Tentative(_)));
    assert_eq!((lab.tracker.flow_count(), lab.tracker.stats().drop), (20, 1));
    // Expired ones may go, ASSURED or not.
    lab.wait(120);
    assert!(lab.commit(&late, &mut tracked).is_ok());
    assert_eq!(lab.tracker.stats().expired, 1);
}

#[test]
fn ipv6_has_its_own_limit_within_the_whole() {
    let mut lab = Lab::with_room(20);
    for port in 0..11 {
        assert_eq!(lab.send(&udp(A, B).ports(port, 53).v6()), New);
    }
    assert_eq!((lab.tracker.flow_count(), lab.tracker.stats().early_drop), (10, 1));
}

#[test]
fn what_is_not_ip_is_untracked() {
    let mut lab = Lab::new();
    let mut frame = udp(A, B);
    frame.packet.kind = Kind::NonIp;
    assert_eq!(lab.send(&frame), Untracked);
}

fn any_packet() -> impl Strategy<Value = Frame> {
    let head = (any::<bool>(), 0..3_u128, 0..3_u128, any::<[u16; 2]>(), 0..12_usize);
    let tail = (any::<[u8; 3]>(), 0..3_u8, proptest::collection::vec(any::<u8>(), 0..120), any::<[u16; 3]>());
    (head, tail).prop_map(|((v6, src, dst, ports, which), ([flags, ty, code], fragment, bytes, offsets))| {
        const PROTOS: [u8; 12] = [1, 6, 6, 6, 17, 47, 50, 58, 58, 132, 136, 1];
        let mut frame = frames::other(A + src, A + dst, PROTOS[which]).ports(ports[0] & 7, ports[1] & 7);
        if v6 {
            frame = frame.v6();
        }
        frame.bytes = bytes;
        let Packet { tcp_flags, icmp_type, icmp_code, .. } = &mut frame.packet;
        (*tcp_flags, *icmp_type, *icmp_code) = (flags, ty % 160, code);
        frame.packet.fragment = [Fragment::Whole, Fragment::First, Fragment::Later][usize::from(fragment)];
        // Offsets and lengths that need not have anything to do with the bytes.
        frame.packet.l3_offset = offsets[0] % 130;
        frame.packet.l4_offset = offsets[1] % 130;
        frame.packet.l3_len = u32::from(offsets[2] % 200);
        frame
    })
}

proptest! {
    #[test]
    fn no_packet_makes_the_tracker_panic(
        packets in proptest::collection::vec((any_packet(), 0..200_u64), 1..60), checksum: bool,
    ) {
        let mut lab = Lab::with_room(16);
        lab.settings.checksum = checksum;
        for (frame, secs) in packets {
            lab.wait(secs);
            let mut tracked = lab.track(&frame);
            prop_assert_eq!(tracked.state == Invalid, tracked.invalid.is_some());
            let _ = lab.commit(&frame, &mut tracked);
            lab.tracker.finish(&tracked, true);
        }
        let mut half_open = 0;
        lab.tracker.region().walk(lab.now.tick(), |view| {
            let handshake = matches!(view.tcp_state, Some(TcpState::SynSent | TcpState::SynRecv | TcpState::SynSent2));
            half_open += u32::from(!view.is_seen_reply() || handshake);
        });
        prop_assert_eq!(lab.tracker.half_open_count(), half_open);
    }
}

/// As `conntrack -E` tells of it: closed, the reset counted, and not answered. Rules see it answered.
#[test]
fn a_refused_connection_is_there_until_the_rules_have_judged_the_refusal() {
    let mut lab = Lab::new();
    let mut events = lab.listen();
    lab.send(&tcp(A, B, SYN));
    let refusal = tcp(B, A, RST | ACK).ack(1);
    let mut tracked = lab.track(&refusal);
    assert_eq!(tracked.state, Established);
    assert!(matches!(tracked.flow, FlowRef::Ending(_)) && !tracked.counts);
    lab.tracker.set_mark(&tracked, 7);
    assert_eq!(lab.commit(&refusal, &mut tracked), Ok(None));
    let conn = lab.tracker.conn(&refusal.packet, &tracked, lab.now).unwrap();
    // The SYN is the worker's to count.
    assert_eq!((conn.direction, conn.packets), (Direction::Reply, [0, 1]));
    assert_eq!(conn.status, status::SEEN_REPLY | status::CONFIRMED);
    assert_eq!(conn.secs_left, lab.settings.tcp_timeout_syn_sent);
    lab.tracker.finish(&tracked, true);
    assert_eq!((lab.tracker.flow_count(), lab.tracker.half_open_count()), (0, 0));
    assert_eq!(lab.tracker.stats().delete, 1);
    let told: Vec<_> = std::iter::from_fn(|| events.pop().ok()).collect();
    assert_eq!(told.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::New, EventKind::Destroy]);
    let last = told[1].view;
    assert_eq!((last.tcp_state, last.packets[1], last.is_seen_reply()), (Some(TcpState::Close), 1, false));
}
