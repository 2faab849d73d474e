//! The common case, straight on the record's words: a segment of an open connection that carries an ACK, is in the
//! window and selects nothing. Taking a [`super::TcpFlow`] apart and putting it together again costs more than all that
//! such a segment changes: 55 ns a packet became 38 (`./scripts/bench figures --only conntrack`).
//!
//! The meaning is [`super::advance`]'s; anything out of the ordinary is left to it. Tests hold the two together.

use super::side_flag::{DATA_UNACKNOWLEDGED, MAXACK_SET};
use super::store::{at, pair, unpair};
use super::window::ACK_WINDOW_MIN;
use crate::flow::record::Tail;
use crate::flow::settings::TrackSettings;
use crate::flow::tracked::Direction;
use crate::packet::Numbers;
use crate::wire::tcp::{Class, after};
use std::sync::atomic::Ordering::Relaxed;

/// The sign bit of `a - b`: set if `a` comes before `b` in sequence space.
#[inline]
const fn sign(a: u32, b: u32) -> u32 {
    a.wrapping_sub(b)
}

/// Brings an ESTABLISHED, ASSURED connection up to date. Gives its timeout in seconds, or `None`, with nothing changed,
/// if the segment is not in the window.
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
    let (sender, receiver) = (&tail.windows[way], &tail.windows[way ^ 1]);
    let (s_end, s_maxend) = unpair(sender[0].load(Relaxed));
    let (s_maxwin, s_maxack) = unpair(sender[1].load(Relaxed));
    let (r_end, r_maxend) = unpair(receiver[0].load(Relaxed));
    let (r_maxwin, _) = unpair(receiver[1].load(Relaxed));
    // The four inequalities of `window`, and that both windows are known (they are below 2^31): all sign bits are set.
    let fits = sign(seq, s_maxend.wrapping_add(1))
        & !sign(s_maxend, end)
        & sign(s_end.wrapping_sub(r_maxwin).wrapping_sub(1), end)
        & sign(ack, r_end.wrapping_add(1))
        & sign(r_end.wrapping_sub(s_maxwin.max(ACK_WINDOW_MIN)).wrapping_sub(1), ack)
        & !(s_maxwin.wrapping_sub(1) | r_maxwin.wrapping_sub(1));
    if fits.cast_signed() >= 0 {
        return None;
    }
    let mut bits = tail.bits.load(Relaxed);
    let (s_shift, r_shift) = (at::SIDE * direction as u32, at::SIDE * direction.opposite() as u32);
    let flag =
        |flag: u8, yes: bool, shift: u32| u64::from(yes) << flag.trailing_zeros() << at::SIDE_FLAGS << shift;
    let window = u32::from(window) << (bits >> s_shift & 0xf);
    let is_newer = after(end, s_end);
    let new_end = if is_newer { end } else { s_end };
    let acks_more = (bits & flag(MAXACK_SET, true, s_shift) == 0) | after(ack, s_maxack);
    let new_maxack = if acks_more { ack } else { s_maxack };
    bits |= flag(DATA_UNACKNOWLEDGED, is_newer, s_shift) | flag(MAXACK_SET, true, s_shift);
    bits &= !flag(DATA_UNACKNOWLEDGED, ack == r_end, r_shift);
    let allowed = ack.wrapping_add(window);
    let opens = after(allowed, r_maxend.wrapping_sub(1));
    let new_maxend = if opens { allowed.wrapping_add(u32::from(window == 0)) } else { r_maxend };
    sender[0].store(pair(new_end, s_maxend), Relaxed);
    sender[1].store(pair(s_maxwin.max(window), new_maxack), Relaxed);
    receiver[0].store(pair(r_end, new_maxend), Relaxed);
    Some(note_last(tail, bits, seg, end, direction, settings))
}

/// Remembers the segment, counts repeats and picks the timer.
#[inline(always)]
fn note_last(
    tail: &Tail,
    bits: u64,
    seg: Numbers,
    end: u32,
    direction: Direction,
    settings: &TrackSettings,
) -> u32 {
    let numbers = pair(seg.seq, seg.ack);
    let window = u64::from(seg.window) << at::LAST_WINDOW;
    let way = (direction as u64) << at::LAST_DIRECTION;
    let differs = tail.last.load(Relaxed) ^ numbers
        | u64::from(tail.last_end.load(Relaxed) ^ end)
        | (bits ^ (window | way)) & (at::LAST_WINDOW_MASK | 1 << at::LAST_DIRECTION);
    let mut retrans = 0;
    if differs == 0 {
        retrans = (bits & at::RETRANS_MASK).wrapping_add(1 << at::RETRANS) & at::RETRANS_MASK;
    }
    tail.last.store(numbers, Relaxed);
    tail.last_end.store(end, Relaxed);
    let kept =
        bits & !(at::RETRANS_MASK | at::LAST_WINDOW_MASK | at::LAST_CLASS_MASK | 1 << at::LAST_DIRECTION);
    let class = (Class::Ack as u64) << at::LAST_CLASS;
    tail.bits.store(kept | retrans | window | class | way, Relaxed);
    let full = settings.tcp_timeout_established;
    let unacknowledged = u64::from(DATA_UNACKNOWLEDGED) << at::SIDE_FLAGS;
    let is_unsure = kept & (unacknowledged | unacknowledged << at::SIDE) != 0;
    if retrans >> at::RETRANS >= u64::from(settings.tcp_max_retrans) {
        full.min(settings.tcp_timeout_max_retrans)
    } else if is_unsure && full > settings.tcp_timeout_unacknowledged {
        settings.tcp_timeout_unacknowledged
    } else if seg.window == 0 {
        full.min(settings.tcp_timeout_max_retrans)
    } else {
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
