//! The TCP state machine as tables and short conversations. Sequence numbers start at 1000 (orig) and 5000 (reply),
//! windows are 10,000 and 20,000, unless a test says otherwise.

use super::*;
use crate::packet::tcp_flag::{ACK, FIN, PSH, RST, SYN};
use Direction::{Orig, Reply};
use TcpState::{Close, CloseWait, Established, FinWait, LastAck, SynRecv, SynSent, SynSent2, TimeWait};

const WSCALE_2: &[u8] = &[3, 3, 2, 0];
const SACK_OK: &[u8] = &[4, 2, 1, 1];

/// A connection and what its entry knows.
#[derive(Clone)]
struct Talk {
    flow: TcpFlow,
    entry: EntryFacts,
    settings: TrackSettings,
}

fn seg(flags: u8, seq: u32, ack: u32) -> Segment<'static> {
    Segment { seq, ack, window: 1000, flags, payload_len: 0, options: &[] }
}

impl Segment<'_> {
    fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    fn data(self, payload_len: u32) -> Self {
        Self { payload_len, ..self }
    }
}

impl<'a> Segment<'a> {
    fn options(self, options: &'a [u8]) -> Self {
        Self { options, ..self }
    }
}

fn accepted(timeout_secs: u32) -> Step {
    Step::Accept { timeout_secs: Some(timeout_secs), assured: false }
}

fn invalid(reason: InvalidReason) -> Step {
    Step::Invalid { reason, timeout_secs: None }
}

impl Talk {
    fn open(first: &Segment<'_>) -> Self {
        Self::open_with(first, TrackSettings::default()).unwrap()
    }

    fn open_with(first: &Segment<'_>, settings: TrackSettings) -> Result<Self, InvalidReason> {
        let (flow, secs_left) = open(first, &settings)?;
        Ok(Self { flow, entry: EntryFacts { seen_reply: false, assured: false, secs_left }, settings })
    }

    /// After the handshake.
    fn established() -> Self {
        Self::handshake(&[], &[])
    }

    fn handshake(orig: &[u8], reply: &[u8]) -> Self {
        let mut talk = Self::open(&seg(SYN, 1000, 0).window(10_000).options(orig));
        assert_eq!(talk.send(Reply, seg(SYN | ACK, 5000, 1001).window(20_000).options(reply)), accepted(60));
        let step = talk.send(Orig, seg(ACK, 1001, 5001).window(10_000));
        assert_eq!(step, Step::Accept { timeout_secs: Some(432_000), assured: true });
        talk
    }

    /// Sends a segment and does to the entry what the tracker does.
    fn send(&mut self, direction: Direction, seg: Segment<'_>) -> Step {
        let step = advance(&mut self.flow, &seg, direction, self.entry, &self.settings);
        match step {
            Step::Accept { timeout_secs, assured } => {
                self.entry.assured |= assured;
                self.entry.secs_left = timeout_secs.unwrap_or(self.entry.secs_left);
            }
            Step::Invalid { .. } | Step::Delete | Step::Reopen => return step,
            Step::Ignore => {}
        }
        self.entry.seen_reply |= direction == Reply;
        step
    }

    /// What would happen, without it happening.
    fn try_send(&self, direction: Direction, seg: Segment<'_>) -> Step {
        self.clone().send(direction, seg)
    }

    fn state(&self) -> TcpState {
        self.flow.state
    }
}

/// The state table of netfilter, written out a second time. `iv` INVALID, `ig` ignored.
const CELLS: [(Direction, u8, &str); 12] = [
    //                    none SS SR ES FW CW LA TW CL S2
    (Orig, SYN, "SS SS ig ig ig ig ig SS SS S2"),
    (Orig, SYN | ACK, "iv iv SR iv iv iv iv iv iv SR"),
    (Orig, FIN | ACK, "iv iv FW FW LA LA LA TW CL iv"),
    (Orig, ACK, "ES iv ES ES CW CW TW TW CL iv"),
    (Orig, RST, "iv CL CL CL CL CL CL CL CL CL"),
    (Orig, 0, "iv iv iv iv iv iv iv iv iv iv"),
    (Reply, SYN, "iv S2 iv iv iv iv iv SS iv S2"),
    (Reply, SYN | ACK, "iv SR ig ig ig ig ig ig ig SR"),
    (Reply, FIN | ACK, "iv iv FW FW LA LA LA TW CL iv"),
    (Reply, ACK, "iv ig SR ES CW CW TW TW CL ig"),
    (Reply, RST, "iv CL CL CL CL CL CL CL CL CL"),
    (Reply, 0, "iv iv iv iv iv iv iv iv iv iv"),
];

fn state_of(name: &str) -> Option<TcpState> {
    Some(match name {
        "SS" => SynSent,
        "SR" => SynRecv,
        "ES" => Established,
        "FW" => FinWait,
        "CW" => CloseWait,
        "LA" => LastAck,
        "TW" => TimeWait,
        "CL" => Close,
        "S2" => SynSent2,
        _ => return None,
    })
}

fn each_cell(mut check: impl FnMut(Direction, u8, TcpState, &str)) {
    for (direction, flags, row) in CELLS {
        for (state, cell) in (0..10).zip(row.split(' ')) {
            check(direction, flags, TcpState::from_bits(state), cell);
        }
    }
}

#[test]
fn every_cell_of_the_state_table_is_netfilters() {
    let mut cells = 0;
    each_cell(|direction, flags, state, cell| {
        let expected = match cell {
            "iv" => Next::Invalid,
            "ig" => Next::Ignore,
            name => Next::To(state_of(name).unwrap()),
        };
        assert_eq!(
            table::next(direction, seg(flags, 0, 0).class(), state),
            expected,
            "{direction:?} {state:?}"
        );
        cells += 1;
    });
    assert_eq!(cells, 120);
}

/// Every cell by what a segment does to a connection in that state, with windows out of the way.
#[test]
fn every_cell_leads_where_the_table_says() {
    each_cell(|direction, flags, state, cell| {
        if state == TcpState::None {
            return;
        }
        let mut talk = Talk::established();
        talk.settings.tcp_be_liberal = true;
        talk.flow.state = state;
        let step = talk.send(direction, seg(flags, 1001, 5001));
        let case = format!("{direction:?} {flags:#x} in {state:?}: {step:?}");
        let is_over = matches!(state, TimeWait | Close);
        match cell {
            "iv" => assert_eq!(step, invalid(InvalidReason::TcpState), "{case}"),
            "ig" => assert_eq!(step, Step::Ignore, "{case}"),
            // Neither side closed it with a FIN, and the last segment was no reset.
            "SS" if is_over => assert_eq!(step, Step::Ignore, "{case}"),
            name => {
                assert!(matches!(step, Step::Accept { .. }) || flags == RST, "{case}");
                // The reply's reset at 1001 is below what was acknowledged: judged by the reset rules.
                if flags != RST {
                    assert_eq!(talk.state(), state_of(name).unwrap(), "{case}");
                }
            }
        }
        if matches!(cell, "iv" | "ig") {
            assert_eq!(talk.state(), state, "{case}");
        }
    });
}

#[test]
fn only_a_syn_or_with_loose_an_ack_starts_a_connection() {
    for loose in [true, false] {
        let settings = TrackSettings { tcp_loose: loose, ..TrackSettings::default() };
        let start = |flags| Talk::open_with(&seg(flags, 7, 8), settings).map(|talk| talk.state());
        assert_eq!(start(SYN), Ok(SynSent));
        assert_eq!(start(ACK), if loose { Ok(Established) } else { Err(InvalidReason::TcpNoPickup) });
        for flags in [SYN | ACK, FIN | ACK, RST, RST | ACK, 0] {
            assert_eq!(start(flags), Err(InvalidReason::TcpNoStart));
        }
    }
}

#[test]
fn an_orderly_connection_walks_through_all_states() {
    let mut talk = Talk::established();
    // Data is unacknowledged, so the timer is short until it is.
    assert_eq!(talk.send(Orig, seg(ACK | PSH, 1001, 5001).data(100)), accepted(300));
    assert_eq!(talk.send(Reply, seg(ACK, 5001, 1101)), accepted(432_000));
    for (direction, segment, state, timeout) in [
        (Orig, seg(FIN | ACK, 1101, 5001), FinWait, 120),
        (Reply, seg(ACK, 5001, 1102), CloseWait, 60),
        (Reply, seg(FIN | ACK, 5001, 1102), LastAck, 30),
        (Orig, seg(ACK, 1102, 5002), TimeWait, 120),
        (Orig, seg(ACK, 1102, 5002), TimeWait, 120),
    ] {
        assert_eq!(talk.send(direction, segment), accepted(timeout));
        assert_eq!(talk.state(), state);
    }
    // And the next one may begin, from either side, with any sequence number.
    assert_eq!(talk.try_send(Orig, seg(SYN, 1, 0)), Step::Reopen);
    assert_eq!(talk.try_send(Orig, seg(SYN, 900_000, 0)), Step::Reopen);
    assert_eq!(talk.try_send(Reply, seg(SYN, 1, 0)), Step::Reopen);
}

#[test]
fn a_syn_sent_again_does_not_restart_the_timer() {
    let mut talk = Talk::open(&seg(SYN, 1000, 0));
    assert_eq!(talk.entry.secs_left, 120);
    assert_eq!(talk.send(Orig, seg(SYN, 1000, 0)), Step::Accept { timeout_secs: None, assured: false });
}

#[test]
fn sequence_edges_of_the_window() {
    let talk = Talk::established();
    // orig: end 1001, may send up to 21001. reply: offers 20000.
    assert_eq!(talk.flow.sides[0].maxend, 21_001);
    let at = |seq: u32| talk.try_send(Orig, seg(ACK, seq, 5001));
    assert_eq!(at(21_001), accepted(300));
    assert_eq!(at(21_002), Step::Ignore);
    assert_eq!(at(21_000 + 20_000), Step::Ignore);
    assert_eq!(at(21_001 + 20_000), invalid(InvalidReason::TcpSeqOver));
    assert_eq!(at(1001_u32.wrapping_sub(20_000)), accepted(432_000));
    assert_eq!(at(1001_u32.wrapping_sub(20_001)), Step::Ignore);
    assert_eq!(at(1001_u32.wrapping_sub(1 << 30)), Step::Ignore);
}

#[test]
fn acknowledgement_edges_of_the_window() {
    let mut talk = Talk::established();
    talk.flow.sides[1].maxack = 0;
    let at = |ack: u32| talk.try_send(Orig, seg(ACK, 1001, ack));
    assert_eq!(at(5001), accepted(432_000));
    assert_eq!(at(5002), invalid(InvalidReason::TcpAckOver));
    assert_eq!(at(5001_u32.wrapping_sub(66_000)), accepted(432_000));
    assert_eq!(at(5001_u32.wrapping_sub(66_001)), Step::Ignore);
}

#[test]
fn an_overshoot_that_was_ignored_may_be_acknowledged() {
    let mut talk = Talk::established();
    assert_eq!(talk.send(Orig, seg(ACK, 21_002, 5001).data(10)), Step::Ignore);
    assert_eq!(talk.send(Reply, seg(ACK, 5001, 21_012)), accepted(432_000));
}

#[test]
fn liberal_lets_everything_pass_but_a_stale_reset() {
    let mut talk = Talk::established();
    talk.settings.tcp_be_liberal = true;
    assert!(matches!(talk.try_send(Orig, seg(ACK, 900_000, 5001)), Step::Accept { .. }));
    assert!(matches!(talk.try_send(Orig, seg(ACK, 1001, 900_000)), Step::Accept { .. }));
    assert_eq!(talk.try_send(Orig, seg(RST, 1000, 0)), invalid(InvalidReason::TcpReset));
}

#[test]
fn windows_are_scaled_only_if_both_syns_offer_it() {
    let one = Talk::handshake(WSCALE_2, &[]);
    assert_eq!((one.flow.sides[0].scale, one.flow.sides[1].scale), (0, 0));
    let mut both = Talk::handshake(WSCALE_2, WSCALE_2);
    // The windows of the SYNs themselves are never scaled, that of the ACK is.
    assert_eq!(both.flow.sides[0].maxend, 21_001);
    assert_eq!(both.flow.sides[1].maxend, 5001 + 40_000);
    both.send(Reply, seg(ACK, 5001, 1001).window(20_000));
    assert_eq!(both.flow.sides[0].maxend, 1001 + 80_000);
}

#[test]
fn a_sack_edge_counts_only_if_sack_was_negotiated() {
    let block = [&[1, 1, 5, 10][..], &4000_u32.to_be_bytes(), &6000_u32.to_be_bytes()].concat();
    for (orig, reply, step) in [
        // What reply understands decides about the SACK blocks that orig sends.
        (&[][..], SACK_OK, invalid(InvalidReason::TcpAckOver)),
        (SACK_OK, &[][..], accepted(432_000)),
    ] {
        let talk = Talk::handshake(orig, reply);
        assert_eq!(talk.try_send(Orig, seg(ACK, 1001, 5001).options(&block)), step);
    }
}

#[test]
fn reasons_to_doubt_shorten_the_timer() {
    let mut talk = Talk::established();
    // The same ACK again and again: the fourth repeat of what was in the handshake.
    let repeat = seg(ACK, 1001, 5001).window(10_000);
    assert_eq!(talk.send(Orig, repeat), accepted(432_000));
    assert_eq!(talk.send(Orig, repeat), accepted(432_000));
    assert_eq!(talk.send(Orig, repeat), accepted(300));
    assert_eq!(talk.send(Orig, seg(ACK, 1001, 5001).window(9000)), accepted(432_000));
    // A closed window.
    assert_eq!(talk.send(Orig, seg(ACK, 1001, 5001).window(0)), accepted(300));
    assert_eq!(talk.send(Orig, seg(ACK, 1001, 5001).window(500)), accepted(432_000));
    // Shorter timers of other states are left alone.
    assert_eq!(talk.send(Orig, seg(FIN | ACK, 1001, 5001).window(0)), accepted(120));
}

#[test]
fn reset_rules_of_an_open_connection() {
    let mut talk = Talk::established();
    talk.send(Orig, seg(ACK | PSH, 1001, 5001).data(100));
    talk.send(Reply, seg(ACK, 5001, 1101).window(20_000));
    let reset = |seq: u32| {
        let mut copy = talk.clone();
        (copy.send(Orig, seg(RST, seq, 0)), copy.state())
    };
    assert_eq!(reset(1101), (accepted(10), Close));
    assert_eq!(reset(1100), (invalid(InvalidReason::TcpReset), Established));
    assert_eq!(reset(1102), (accepted(10), Established));
    assert_eq!(reset(21_101), (accepted(10), Established));
    assert_eq!(reset(60_000), (invalid(InvalidReason::TcpSeqOver), Established));
    // tcp_ignore_invalid_rst: the stale one passes, without effect on the state.
    talk.settings.tcp_ignore_invalid_rst = true;
    assert_eq!(talk.send(Orig, seg(RST, 1100, 0)), accepted(10));
    assert_eq!(talk.state(), Established);
}

#[test]
fn a_reset_right_after_the_last_data_closes() {
    let mut talk = Talk::established();
    talk.send(Orig, seg(ACK | PSH, 1001, 5001).data(19));
    assert_eq!(talk.send(Orig, seg(RST | ACK, 1020, 5001)), accepted(10));
    assert_eq!(talk.state(), Close);
    // The side that reset may start anew; the other side's SYN makes no sense.
    assert_eq!(talk.try_send(Orig, seg(SYN, 1, 0)), Step::Reopen);
    assert_eq!(talk.try_send(Reply, seg(SYN, 1, 0)), invalid(InvalidReason::TcpState));
    // Data still passes until the timer ends.
    assert!(matches!(talk.send(Reply, seg(ACK, 5001, 1020)), Step::Accept { .. }));
}

#[test]
fn any_reset_is_fine_once_the_connection_is_closing() {
    for state in [FinWait, CloseWait, LastAck, TimeWait, Close] {
        let mut talk = Talk::established();
        talk.flow.state = state;
        assert_eq!(talk.send(Orig, seg(RST, 77_000_000, 0)), accepted(10), "{state:?}");
        assert_eq!(talk.state(), Close);
    }
}

#[test]
fn a_syn_answered_by_a_reset_leaves_nothing() {
    let talk = Talk::open(&seg(SYN, 1000, 0));
    assert_eq!(talk.try_send(Reply, seg(RST | ACK, 0, 1001)), Step::Delete);
    // One too many could be the answer to a keepalive (the kernel thinks so too), two too many is not.
    assert_eq!(talk.try_send(Reply, seg(RST | ACK, 0, 1003)), invalid(InvalidReason::TcpAckOver));
    assert_eq!(talk.try_send(Orig, seg(RST, 1001, 0)), Step::Delete);
}

#[test]
fn a_challenge_ack_and_its_reset_end_a_reused_connection() {
    // The client starts anew, the server still has the connection before.
    let mut talk = Talk::open(&seg(SYN, 1000, 0));
    assert_eq!(talk.send(Reply, seg(ACK, 700_000, 42_000)), Step::Ignore);
    assert_eq!(talk.state(), SynSent);
    assert_eq!(talk.try_send(Orig, seg(RST, 42_001, 0)), invalid(InvalidReason::TcpSeqOver));
    // The client resets exactly where the server says it is.
    assert_eq!(talk.send(Orig, seg(RST, 42_000, 0)), accepted(10));
    assert_eq!(talk.state(), Close);
    assert_eq!(talk.send(Orig, seg(SYN, 1000, 0)), Step::Reopen);
}

#[test]
fn a_syn_inside_a_connection_is_ignored_until_it_is_answered() {
    for state in [SynRecv, Established, FinWait, CloseWait, LastAck] {
        let mut talk = Talk::established();
        talk.flow.state = state;
        let syn = seg(SYN, 80_000, 0).window(7000).options(WSCALE_2);
        assert_eq!(talk.send(Orig, syn), Step::Ignore, "{state:?}");
        assert_eq!(talk.state(), state);
        assert_eq!(talk.try_send(Reply, seg(SYN | ACK, 9000, 80_002)), Step::Ignore);
        // Acknowledged: it was good, we were not.
        assert_eq!(talk.send(Reply, seg(SYN | ACK, 9000, 80_001).options(WSCALE_2)), accepted(60));
        assert_eq!(talk.state(), SynRecv);
        assert_eq!((talk.flow.sides[0].end, talk.flow.sides[0].scale), (80_001, 2));
        assert!(matches!(talk.send(Orig, seg(ACK, 80_001, 9001)), Step::Accept { .. }));
        assert_eq!(talk.state(), Established);
    }
}

#[test]
fn a_reset_that_answers_an_ignored_syn_closes_without_a_window_check() {
    let mut talk = Talk::established();
    assert_eq!(talk.send(Orig, seg(SYN, 80_000, 0)), Step::Ignore);
    assert_eq!(talk.try_send(Reply, seg(RST | ACK, 123_456, 80_002)), invalid(InvalidReason::TcpSeqOver));
    assert_eq!(talk.send(Reply, seg(RST | ACK, 123_456, 80_001)), accepted(10));
    assert_eq!(talk.state(), Close);
}

#[test]
fn a_challenge_ack_is_not_the_acknowledgement_of_the_last_fin() {
    let mut talk = Talk::established();
    talk.send(Orig, seg(FIN | ACK, 1001, 5001));
    talk.send(Reply, seg(FIN | ACK, 5001, 1002));
    assert_eq!(talk.state(), LastAck);
    assert_eq!(talk.send(Orig, seg(SYN, 80_000, 0)), Step::Ignore);
    assert_eq!(talk.send(Reply, seg(ACK, 5002, 1002)), Step::Ignore);
    assert_eq!(talk.state(), LastAck);
    // Only once.
    assert_eq!(talk.send(Reply, seg(ACK, 5002, 1002)), accepted(120));
    assert_eq!(talk.state(), TimeWait);
}

#[test]
fn simultaneous_open_becomes_established() {
    let mut talk = Talk::open(&seg(SYN, 1000, 0));
    let step = talk.send(Reply, seg(SYN, 5000, 0));
    assert_eq!(step, Step::Accept { timeout_secs: None, assured: false });
    assert_eq!(talk.state(), SynSent2);
    assert_eq!(talk.try_send(Orig, seg(ACK, 1001, 5001)), invalid(InvalidReason::TcpState));
    assert_eq!(talk.send(Orig, seg(SYN | ACK, 1000, 5001)), accepted(60));
    assert_eq!(talk.send(Reply, seg(SYN | ACK, 5000, 1001)), Step::Ignore);
    assert_eq!(
        talk.send(Reply, seg(ACK, 5001, 1001)),
        Step::Accept { timeout_secs: Some(432_000), assured: true }
    );
    assert_eq!(talk.state(), Established);
}

#[test]
fn a_connection_picked_up_midway_is_liberal_and_short_lived_until_answered() {
    let mut talk = Talk::open(&seg(ACK, 1000, 5000).data(10));
    assert_eq!((talk.state(), talk.entry.secs_left), (Established, 300));
    assert!(talk.flow.sides.iter().all(|side| side.flags & side_flag::BE_LIBERAL != 0));
    let step = talk.send(Reply, seg(ACK, 5000, 1010));
    assert!(matches!(step, Step::Accept { assured: false, .. }));
    // The first packet after the answer makes it ASSURED; far-off numbers still pass.
    let step = talk.send(Orig, seg(ACK, 900_000, 5000));
    assert!(matches!(step, Step::Accept { assured: true, .. }), "{step:?}");
}

#[test]
fn one_way_traffic_is_invalid_after_the_syn() {
    let mut talk = Talk::open(&seg(SYN, 1000, 0));
    assert_eq!(talk.send(Orig, seg(ACK, 1001, 5001)), invalid(InvalidReason::TcpState));
}

#[test]
fn a_syn_ack_may_acknowledge_less_than_the_syn_but_not_more() {
    let talk = Talk::open(&seg(SYN, 1000, 0));
    assert_eq!(talk.try_send(Reply, seg(SYN | ACK, 5000, 1001)), accepted(60));
    assert_eq!(talk.try_send(Reply, seg(SYN | ACK, 5000, 1002)), invalid(InvalidReason::TcpAckOver));
    assert_eq!(talk.try_send(Reply, seg(SYN | ACK, 5000, 1001_u32.wrapping_sub(66_000))), accepted(60));
}

#[test]
fn out_of_window_ends_from_both_sides_cut_the_timer() {
    let mut talk = Talk::established();
    let far = 70_000_000;
    assert_eq!(talk.send(Orig, seg(FIN | ACK, far, 5001)), invalid(InvalidReason::TcpSeqOver));
    // Again from the same side: nothing.
    assert_eq!(talk.send(Orig, seg(FIN | ACK, far, 5001)), invalid(InvalidReason::TcpSeqOver));
    assert_eq!(
        talk.send(Reply, seg(RST, far, 0)),
        Step::Invalid { reason: InvalidReason::TcpSeqOver, timeout_secs: Some(300) }
    );
    talk.entry.secs_left = 119;
    assert_eq!(talk.send(Reply, seg(RST, far, 0)), invalid(InvalidReason::TcpSeqOver));
}

#[test]
fn any_segments_in_any_order_do_not_panic() {
    use proptest::prelude::*;
    let segments = proptest::collection::vec(
        (any::<bool>(), any::<u8>(), any::<u32>(), any::<u32>(), any::<u16>(), 0..70_000_u32),
        1..60,
    );
    proptest!(|(segments in segments, liberal: bool)| {
        let mut talk = Talk::established();
        talk.settings.tcp_be_liberal = liberal;
        for (reply, flags, seq, ack, window, len) in segments {
            let direction = if reply { Reply } else { Orig };
            talk.send(direction, seg(flags, seq, ack).window(window).data(len));
            prop_assert!(talk.flow.sides.iter().all(|side| side.scale <= 14));
        }
    });
}
