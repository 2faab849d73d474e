//! How a [`TcpFlow`] stands in a record's tail: four words of windows, one of small fields, and the last segment.
//! Owner thread only; the state itself is in the record's life word.

use super::{Last, Side, TcpFlow, TcpState};
use crate::flow::record::Tail;
use crate::flow::tracked::Direction;
use crate::wire::tcp::Class;
use std::sync::atomic::Ordering::Relaxed;

/// Where the small fields stand in [`Tail::bits`], from the lowest bit: per side 4 bits of scale and 6 of flags,
/// then scale, flags, class and direction of the last segment, retransmissions and last window.
pub(super) mod at {
    pub(in crate::flow::tcp) const SIDE: u32 = 10;
    pub(in crate::flow::tcp) const SIDE_FLAGS: u32 = 4;
    pub(in crate::flow::tcp) const LAST_SCALE: u32 = 20;
    pub(in crate::flow::tcp) const LAST_FLAGS: u32 = 24;
    pub(in crate::flow::tcp) const LAST_CLASS: u32 = 28;
    pub(in crate::flow::tcp) const LAST_DIRECTION: u32 = 31;
    pub(in crate::flow::tcp) const RETRANS: u32 = 32;
    pub(in crate::flow::tcp) const LAST_WINDOW: u32 = 40;
    pub(in crate::flow::tcp) const LAST_CLASS_MASK: u64 = 7 << LAST_CLASS;
    pub(in crate::flow::tcp) const RETRANS_MASK: u64 = 0xff << RETRANS;
    pub(in crate::flow::tcp) const LAST_WINDOW_MASK: u64 = 0xffff << LAST_WINDOW;
}

pub(super) const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

#[expect(clippy::cast_possible_truncation, reason = "taken apart as it was put together")]
pub(super) const fn unpair(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
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

impl TcpFlow {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "fields are taken out of their word by mask")]
    pub(in crate::flow) fn load(tail: &Tail, state: TcpState) -> Self {
        let bits = tail.bits.load(Relaxed);
        let side = |i: usize| {
            let (end, maxend) = unpair(tail.windows[i][0].load(Relaxed));
            let (maxwin, maxack) = unpair(tail.windows[i][1].load(Relaxed));
            let small = bits >> (i as u32 * at::SIDE);
            let (scale, flags) = (small & 0xf, small >> at::SIDE_FLAGS & 0x3f);
            Side { end, maxend, maxwin, maxack, scale: scale as u8, flags: flags as u8 }
        };
        let (seq, ack) = unpair(tail.last.load(Relaxed));
        let is_reply = bits >> at::LAST_DIRECTION & 1 == 1;
        let last = Last {
            class: class_of(bits >> at::LAST_CLASS),
            direction: if is_reply { Direction::Reply } else { Direction::Orig },
            seq,
            ack,
            end: tail.last_end.load(Relaxed),
            window: (bits >> at::LAST_WINDOW) as u16,
            scale: (bits >> at::LAST_SCALE & 0xf) as u8,
            flags: (bits >> at::LAST_FLAGS & 0xf) as u8,
        };
        Self { state, sides: [side(0), side(1)], last, retrans: (bits >> at::RETRANS) as u8 }
    }

    #[inline]
    pub(in crate::flow) fn store(&self, tail: &Tail) {
        let Self { state: _, sides, last, retrans } = self;
        let mut bits = u64::from(last.scale) << at::LAST_SCALE
            | u64::from(last.flags) << at::LAST_FLAGS
            | (last.class as u64) << at::LAST_CLASS
            | (last.direction as u64) << at::LAST_DIRECTION
            | u64::from(*retrans) << at::RETRANS
            | u64::from(last.window) << at::LAST_WINDOW;
        for (side, (words, shift)) in sides.iter().zip(tail.windows.iter().zip([0, at::SIDE])) {
            words[0].store(pair(side.end, side.maxend), Relaxed);
            words[1].store(pair(side.maxwin, side.maxack), Relaxed);
            bits |= (u64::from(side.scale) | u64::from(side.flags) << at::SIDE_FLAGS) << shift;
        }
        tail.bits.store(bits, Relaxed);
        tail.last.store(pair(last.seq, last.ack), Relaxed);
        tail.last_end.store(last.end, Relaxed);
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
