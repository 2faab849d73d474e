//! How a [`TcpFlow`] stands in a record's tail. Owner thread only; the state itself is in the record's life word.
//!
//! ```text
//! sides       end maxend maxwin maxack of each, 32 bits each
//! last        sequence number | acknowledgement number << 32
//! last_rest   end | window << 32 | direction << 48 | class << 49 | repeats << 56
//! bits        per side, 16 apart: scale (4 bits), flags (6), then of an ignored SYN the scale (4) beside the first and
//!             the flags (4) beside the second, then whether the side is known (1)
//! ```
//!
//! An ACK of an open connection overwrites all of `last` and `last_rest`, and asks of them whether it is a repeat: two
//! words to compare.

use super::{Last, Side, TcpFlow, TcpState, side_flag};
use crate::flow::record::Tail;
use crate::flow::tracked::Direction;
use crate::wire::tcp::Class;
use std::sync::atomic::Ordering::Relaxed;

/// Where the small fields stand, see the module's head.
pub(super) mod at {
    pub(in crate::flow::tcp) const SIDE: u32 = 16;
    pub(in crate::flow::tcp) const SIDE_FLAGS: u32 = 4;
    pub(in crate::flow::tcp) const LAST_SCALE: u32 = 10;
    pub(in crate::flow::tcp) const LAST_FLAGS: u32 = SIDE + 10;
    /// Not part of a [`super::TcpFlow`]: has offered a window and acknowledged something.
    pub(in crate::flow::tcp) const KNOWN: u32 = 14;
    pub(in crate::flow::tcp) const WINDOW: u32 = 32;
    pub(in crate::flow::tcp) const DIRECTION: u32 = 48;
    pub(in crate::flow::tcp) const CLASS: u32 = 49;
    pub(in crate::flow::tcp) const REPEATS: u32 = 56;
}

const fn class_of(bits: u64) -> Class {
    match bits & 7 {
        0 => Class::Syn,
        1 => Class::SynAck,
        2 => Class::Fin,
        3 => Class::Ack,
        4 => Class::Rst,
        _ => Class::None,
    }
}

/// Sequence and acknowledgement number as they stand in [`Tail::last`].
#[inline]
pub(super) const fn last_word(seq: u32, ack: u32) -> u64 {
    seq as u64 | (ack as u64) << 32
}

/// [`Tail::last_rest`] of a segment that was not repeated.
#[inline]
pub(super) const fn last_rest_word(end: u32, window: u16, direction: Direction, class: Class) -> u64 {
    end as u64
        | (window as u64) << at::WINDOW
        | (direction as u64) << at::DIRECTION
        | (class as u64) << at::CLASS
}

impl TcpFlow {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "fields are taken out of their word")]
    pub(in crate::flow) fn load(tail: &Tail, state: TcpState) -> Self {
        let bits = tail.bits.load(Relaxed);
        let side = |i: usize| {
            let words = &tail.sides[i];
            let small = bits >> (i as u32 * at::SIDE);
            let (scale, flags) = (small & 0xf, small >> at::SIDE_FLAGS & 0x3f);
            Side {
                end: words.end.load(Relaxed),
                maxend: words.maxend.load(Relaxed),
                maxwin: words.maxwin.load(Relaxed),
                maxack: words.maxack.load(Relaxed),
                scale: scale as u8,
                flags: flags as u8,
            }
        };
        let (last, rest) = (tail.last.load(Relaxed), tail.last_rest.load(Relaxed));
        let is_reply = rest >> at::DIRECTION & 1 == 1;
        let last = Last {
            class: class_of(rest >> at::CLASS),
            direction: if is_reply { Direction::Reply } else { Direction::Orig },
            seq: last as u32,
            ack: (last >> 32) as u32,
            end: rest as u32,
            window: (rest >> at::WINDOW) as u16,
            scale: (bits >> at::LAST_SCALE & 0xf) as u8,
            flags: (bits >> at::LAST_FLAGS & 0xf) as u8,
        };
        Self { state, sides: [side(0), side(1)], last, retrans: (rest >> at::REPEATS) as u8 }
    }

    #[inline]
    pub(in crate::flow) fn store(&self, tail: &Tail) {
        let Self { state: _, sides, last, retrans } = self;
        let mut bits = u32::from(last.scale) << at::LAST_SCALE | u32::from(last.flags) << at::LAST_FLAGS;
        for ((side, words), shift) in sides.iter().zip(&tail.sides).zip([0, at::SIDE]) {
            words.end.store(side.end, Relaxed);
            words.maxend.store(side.maxend, Relaxed);
            words.maxwin.store(side.maxwin, Relaxed);
            words.maxack.store(side.maxack, Relaxed);
            let is_known = side.maxwin != 0 && side.flags & side_flag::MAXACK_SET != 0;
            bits |= (u32::from(side.scale)
                | u32::from(side.flags) << at::SIDE_FLAGS
                | u32::from(is_known) << at::KNOWN)
                << shift;
        }
        tail.bits.store(bits, Relaxed);
        tail.last.store(last_word(last.seq, last.ack), Relaxed);
        let rest = last_rest_word(last.end, last.window, last.direction, last.class);
        tail.last_rest.store(rest | u64::from(*retrans) << at::REPEATS, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sides() -> impl Strategy<Value = Side> {
        (any::<[u32; 4]>(), 0..15_u8, 0..64_u8).prop_map(|([end, maxend, maxwin, maxack], scale, flags)| {
            Side { end, maxend, maxwin, maxack, scale, flags }
        })
    }

    proptest! {
        #[test]
        fn a_connection_survives_its_record(
            sides in [sides(), sides()], state in 0..10_u8, retrans in any::<u8>(),
            (class, reply, scale, flags) in (0..6_u64, any::<bool>(), 0..15_u8, 0..16_u8),
            ([seq, ack, end], window) in (any::<[u32; 3]>(), any::<u16>()),
        ) {
            let direction = if reply { Direction::Reply } else { Direction::Orig };
            let last = Last { class: class_of(class), direction, seq, ack, end, window, scale, flags };
            let flow = TcpFlow { state: TcpState::from_bits(state), sides, last, retrans };
            let tail = Tail::default();
            flow.store(&tail);
            prop_assert_eq!(TcpFlow::load(&tail, flow.state), flow);
        }
    }
}
