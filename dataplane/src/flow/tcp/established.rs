//! The common case, straight on the record's words: a segment of an open connection that carries an ACK, is in the
//! window and selects nothing. Taking a [`super::TcpFlow`] apart and putting it together again costs more than all that
//! such a segment changes: 55 ns a packet became 38 (`./scripts/bench figures --only conntrack`).
//!
//! The meaning is [`super::advance`]'s; anything out of the ordinary is left to it. Tests hold the two together.

use super::side_flag::DATA_UNACKNOWLEDGED;
use super::store::{at, last_rest_word, last_word};
use super::window::ACK_WINDOW_MIN;
use crate::flow::record::Tail;
use crate::flow::settings::TrackSettings;
use crate::flow::tracked::Direction;
use crate::packet::Numbers;
use crate::wire::tcp::{Class, before};
use std::sync::atomic::Ordering::Relaxed;

/// Brings an ESTABLISHED, ASSURED connection up to date. Gives its timeout in seconds, or `None`, with nothing changed,
/// if the segment is not in the window, or may not be, or needs a second look: it closes the window, or one of the two
/// sides has not been heard enough.
///
/// Nothing here branches on which way the segment goes: that is anybody's guess, and each wrong one costs 5 ns.
#[inline(always)]
pub(in crate::flow) fn advance_open(
    tail: &Tail,
    seg: Numbers,
    direction: Direction,
    settings: &TrackSettings,
) -> Option<u32> {
    let Numbers { seq, ack, window, payload_len } = seg;
    let end = seq.wrapping_add(payload_len.into());
    let way = direction.index();
    let (sender, receiver) = (&tail.sides[way], &tail.sides[way ^ 1]);
    let (s_end, s_maxwin) = (sender.end.load(Relaxed), sender.maxwin.load(Relaxed));
    let (r_maxend, r_maxwin) = (receiver.maxend.load(Relaxed), receiver.maxwin.load(Relaxed));
    // The sender's small fields are the low half, whichever half they are.
    let turn = at::SIDE * direction as u32;
    let mut bits = tail.bits.load(Relaxed).rotate_right(turn);
    let window_bytes = u32::from(window) << (bits & 0xf);
    // The four inequalities of `window`. The first two are about distances below 2^31, a segment's length less for the
    // first, because there not only its end has to fit but its start too.
    let ahead = end.wrapping_sub(s_end);
    let room = sender.maxend.load(Relaxed).wrapping_sub(end);
    let unsent = receiver.end.load(Relaxed).wrapping_sub(ack);
    let far = room | room.wrapping_add(PAYLOAD_MAX) | ahead.wrapping_add(r_maxwin);
    let are_known = bits & BOTH_KNOWN == BOTH_KNOWN;
    if far.cast_signed() < 0 || unsent > s_maxwin.max(ACK_WINDOW_MIN) || window == 0 || !are_known {
        return None;
    }
    // All ones where data is new, and where nothing is left to acknowledge.
    let is_newer = (0_u32.wrapping_sub(ahead).cast_signed() >> 31).cast_unsigned();
    let acks_all = (unsent.wrapping_sub(1).cast_signed() >> 31).cast_unsigned();
    bits |= is_newer & 1 << UNACKNOWLEDGED;
    bits &= !(acks_all & 1 << (UNACKNOWLEDGED + at::SIDE));
    tail.bits.store(bits.rotate_left(turn), Relaxed);
    sender.end.store(s_end.wrapping_add(ahead & is_newer), Relaxed);
    sender.maxwin.store(s_maxwin.max(window_bytes), Relaxed);
    sender.maxack.store(later(sender.maxack.load(Relaxed), ack), Relaxed);
    let allowed = ack.wrapping_add(window_bytes);
    let opens = before(r_maxend.wrapping_sub(1), allowed);
    receiver.maxend.store(if opens { allowed } else { r_maxend }, Relaxed);
    let is_unsure = bits & ANY_UNACKNOWLEDGED != 0;
    let (last, rest) = (last_word(seq, ack), last_rest_word(end, window, direction, Class::Ack));
    let before = tail.last_rest.load(Relaxed);
    let is_repeat = (tail.last.load(Relaxed) ^ last) | (before ^ rest) << (64 - at::CLASS) == 0;
    tail.last.store(last, Relaxed);
    if is_repeat || settings.tcp_max_retrans == 0 {
        return Some(repeated(tail, rest, is_repeat.then_some(before), is_unsure, settings));
    }
    tail.last_rest.store(rest, Relaxed);
    let full = settings.tcp_timeout_established;
    Some(if is_unsure { full.min(settings.tcp_timeout_unacknowledged) } else { full })
}

/// Most bytes a segment carries.
const PAYLOAD_MAX: u32 = 0xffff;
const BOTH_KNOWN: u32 = 1 << at::KNOWN | 1 << (at::KNOWN + at::SIDE);
const UNACKNOWLEDGED: u32 = DATA_UNACKNOWLEDGED.trailing_zeros() + at::SIDE_FLAGS;
const ANY_UNACKNOWLEDGED: u32 = 1 << UNACKNOWLEDGED | 1 << (UNACKNOWLEDGED + at::SIDE);

/// The later of two in sequence space.
#[inline]
const fn later(a: u32, b: u32) -> u32 {
    if before(a, b) { b } else { a }
}

/// Counts a repeat, and picks the timer: the first reason that shortens it counts.
#[cold]
fn repeated(tail: &Tail, rest: u64, before: Option<u64>, is_unsure: bool, settings: &TrackSettings) -> u32 {
    let repeats = before.map_or(0, |word| word.to_le_bytes()[7].wrapping_add(1));
    tail.last_rest.store(rest | u64::from(repeats) << at::REPEATS, Relaxed);
    let full = settings.tcp_timeout_established;
    if repeats >= settings.tcp_max_retrans {
        full.min(settings.tcp_timeout_max_retrans)
    } else if is_unsure {
        full.min(settings.tcp_timeout_unacknowledged)
    } else {
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::tcp::side_flag::MAXACK_SET;
    use crate::flow::tcp::{EntryFacts, Last, Side, Step, TcpFlow, TcpState, advance};
    use crate::packet::tcp_flag::{ACK, PSH, URG};
    use crate::wire::tcp::Segment;
    use proptest::prelude::*;

    fn near() -> impl Strategy<Value = u32> {
        prop_oneof![4 => 0..6_u32, 2 => 65_990..66_010_u32, 1 => any::<u32>(), 1 => (u32::MAX - 5)..=u32::MAX]
    }

    fn side() -> impl Strategy<Value = Side> {
        let window = prop_oneof![Just(0_u32), Just(1), Just(70_000), 1..200_u32];
        (near(), near(), window, near(), 0..3_u8, 0..64_u8).prop_map(
            |(end, maxend, maxwin, maxack, scale, flags)| Side { end, maxend, maxwin, maxack, scale, flags },
        )
    }

    #[test]
    fn segments_of_an_open_connection_are_taken_here() {
        let side = Side { end: 1000, maxend: 9000, maxwin: 8000, maxack: 1000, scale: 3, flags: MAXACK_SET };
        let last = Last {
            class: Class::Ack,
            direction: Direction::Orig,
            seq: 0,
            ack: 0,
            end: 0,
            window: 0,
            scale: 0,
            flags: 0,
        };
        let flow = TcpFlow { state: TcpState::Established, sides: [side, side], last, retrans: 0 };
        let tail = Tail::default();
        flow.store(&tail);
        let settings = TrackSettings::default();
        for direction in [Direction::Orig, Direction::Reply] {
            let numbers = |seq, payload_len| Numbers { seq, ack: 1000, window: 1000, payload_len };
            assert!(advance_open(&tail, numbers(1000, 0), direction, &settings).is_some());
            assert!(advance_open(&tail, numbers(1000, 500), direction, &settings).is_some());
            assert!(advance_open(&tail, numbers(1500, 0), direction, &settings).is_some());
            assert!(advance_open(&tail, numbers(20_000, 1), direction, &settings).is_none());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

        #[test]
        fn the_common_case_changes_what_the_whole_would(
            sides in [side(), side()], last in (near(), near(), near(), any::<bool>()), retrans in 0..5_u8,
            (seq, ack, payload_len, window) in (near(), near(), 0..4_u32, prop_oneof![Just(0_u16), 0..9_u16, Just(u16::MAX)]),
            reply: bool, max_retrans in 0..4_u8, again: bool,
        ) {
            let direction = if reply { Direction::Reply } else { Direction::Orig };
            let mut seg = Segment { seq, ack, window, flags: ACK | PSH | URG, payload_len, options: &[] };
            let numbers = Numbers { seq, ack, window, payload_len: u16::try_from(payload_len).unwrap() };
            let last = Last {
                class: Class::Syn,
                direction: if last.3 { Direction::Reply } else { Direction::Orig },
                seq: last.0, ack: last.1, end: last.2, window: 3, scale: 1, flags: 5,
            };
            let settings = TrackSettings { tcp_max_retrans: max_retrans, ..TrackSettings::default() };
            let entry = EntryFacts { seen_reply: true, assured: true, secs_left: 1000 };
            let mut flow = TcpFlow { state: TcpState::Established, sides, last, retrans };
            let tail = Tail::default();
            flow.store(&tail);
            for round in 0..if again { 2 } else { 1 } {
                if round == 1 {
                    seg.flags = ACK;
                }
                let before = TcpFlow::load(&tail, TcpState::Established);
                let step = advance(&mut flow, &seg, direction, entry, &settings);
                match advance_open(&tail, numbers, direction, &settings) {
                    Some(secs) => {
                        prop_assert_eq!(step, Step::Accept { timeout_secs: Some(secs), assured: false });
                        prop_assert_eq!(TcpFlow::load(&tail, TcpState::Established), flow);
                    }
                    None => {
                        prop_assert_eq!(TcpFlow::load(&tail, TcpState::Established), before);
                        break;
                    }
                }
            }
        }
    }
}
