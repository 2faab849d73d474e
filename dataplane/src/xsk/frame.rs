//! A frame in somebody's hands.

use super::SEGMENTS_MAX;

/// Bytes of the largest chunk.
const FRAME_SIZE_MAX: u32 = 4096;

/// A packet's place in the UMEM: its first chunk, and through the UMEM's links the chunks of a jumbo packet. Neither
/// `Copy` nor `Clone`: handing it to a ring moves it. Dropping one loses its chunks, so give it to a ring or a pool.
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost to the UMEM: free it into a pool or put it on a ring"]
pub struct Frame {
    /// Offset of the packet's first byte in the UMEM.
    pub(super) addr: u64,
    /// Bytes in the first segment.
    pub(super) head_len: u32,
    /// Bytes in all segments.
    pub(super) len: u32,
    /// How many chunks the packet spans; at least one.
    pub(super) segments: u32,
}

const _: () = assert!(size_of::<Frame>() <= 24);

impl Frame {
    /// Bytes of the whole packet.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a received packet is never empty")]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Names the frame among all of its UMEM that somebody has in hand.
    #[inline]
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.addr
    }

    /// How many chunks the packet spans.
    #[must_use]
    pub const fn segments(&self) -> u32 {
        self.segments
    }
}

/// A frame that travels between workers, and a word about it, in a quarter of a cache line.
#[derive(Debug)]
#[must_use = "a frame that is dropped is lost to the UMEM"]
pub(crate) struct PackedFrame {
    /// 16 bits of the word over 48 of address: no mapping has more.
    place: u64,
    /// The word's other 8 bits over segments (8) over bytes of the first one (16) over bytes (32).
    size: u64,
}

const _: () = assert!(size_of::<PackedFrame>() == 16 && SEGMENTS_MAX <= 0xff && FRAME_SIZE_MAX <= 0xffff);

impl PackedFrame {
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "the frame goes on its way")]
    pub(crate) fn new(frame: Frame, word: [u8; 3]) -> Self {
        let Frame { addr, head_len, len, segments } = frame;
        debug_assert!(addr >> 48 == 0 && segments <= 0xff);
        let [high, low, other] = word;
        let place = u64::from(u16::from_be_bytes([high, low])) << 48 | addr;
        let size =
            u64::from(other) << 56 | u64::from(segments) << 48 | u64::from(head_len) << 32 | u64::from(len);
        Self { place, size }
    }

    /// The frame and the word.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "fields of a word")]
    pub(crate) const fn unpack(self) -> (Frame, [u8; 3]) {
        let Self { place, size } = self;
        let (head_len, len) = ((size >> 32 & 0xffff) as u32, size as u32);
        let frame = Frame { addr: place & ((1 << 48) - 1), head_len, len, segments: self.segments() as u32 };
        (frame, [(place >> 56) as u8, (place >> 48) as u8, (size >> 56) as u8])
    }

    /// How many chunks the packet spans.
    pub(crate) const fn segments(&self) -> usize {
        (self.size >> 48 & 0xff) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(
            addr in 0_u64..1 << 48, head_len in 0..=FRAME_SIZE_MAX, len: u32, segments in 0_u32..=255, word: [u8; 3],
        ) {
            let packed = PackedFrame::new(Frame { addr, head_len, len, segments }, word);
            prop_assert_eq!(packed.segments(), segments as usize);
            let (frame, said) = packed.unpack();
            prop_assert_eq!(
                (frame.addr, frame.head_len, frame.len, frame.segments, said),
                (addr, head_len, len, segments, word)
            );
        }
    }
}
