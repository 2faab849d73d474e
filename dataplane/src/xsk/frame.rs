//! A frame in somebody's hands.

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
