//! Where a judged packet's bytes are, and how they are changed. Worker thread only.

use crate::packet::Packet;
use crate::rules::alter::{Alter, Subject, Unfit};
use crate::xsk::{Frame, Umem};

/// Where a packet's bytes are.
pub(super) enum Source<'a> {
    /// In one chunk of a frame.
    Frame(&'a mut Frame),
    /// Copied together, with room for no more.
    Bytes(&'a mut [u8]),
}

impl Source<'_> {
    /// The bytes, from the frame's first one on.
    #[inline]
    pub(super) fn bytes<'s>(&'s self, umem: &'s Umem) -> &'s [u8] {
        match self {
            Self::Frame(frame) => umem.head(frame),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Changes the packet as a rule says.
    ///
    /// # Errors
    /// If it must be dropped for that.
    #[cold]
    pub(super) fn change(
        &mut self,
        umem: &Umem,
        packet: &mut Packet,
        alter: Alter,
        mtu: u32,
    ) -> Result<(), Unfit> {
        match self {
            Self::Frame(frame) => {
                let len = umem.head_len(frame);
                let mut subject = Subject { bytes: umem.buffer_mut(frame), len, packet, mtu };
                let done = alter.apply(&mut subject);
                let grown = subject.len;
                if grown > len {
                    umem.lengthen(frame, grown);
                }
                done
            }
            Self::Bytes(bytes) => {
                let len = bytes.len();
                alter.apply(&mut Subject { bytes, len, packet, mtu })
            }
        }
    }
}
