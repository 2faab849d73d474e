//! A datagram as one packet: headers of its first fragment, payload of all. What parser, tracker and answers look at;
//! it is never sent.

use super::Held;
use crate::packet::{Family, Packet};
use crate::wire::{self, checksum};
use crate::xsk::{Frame, Umem};

/// Longest datagram, headers included.
pub const WHOLE_MAX: usize = 65_535;

/// Room for one datagram, made once per worker.
#[derive(Debug)]
pub struct Whole {
    bytes: Vec<u8>,
    scratch: Vec<u8>,
}

impl Default for Whole {
    fn default() -> Self {
        Self { bytes: Vec::with_capacity(WHOLE_MAX + 256), scratch: Vec::with_capacity(16 * 1024) }
    }
}

impl Whole {
    /// Puts the fragments of a complete datagram together and parses the result; `None` if that is no packet.
    pub fn build(&mut self, umem: &Umem, fragments: &[Held]) -> Option<Packet> {
        let Self { bytes, scratch } = self;
        bytes.clear();
        let first = fragments.first()?;
        let l3 = usize::from(first.packet.l3_offset);
        scratch.clear();
        umem.copy_out(&first.frame, scratch);
        bytes.extend_from_slice(scratch.get(..l3 + first.piece.header_len)?);
        for held in fragments {
            scratch.clear();
            umem.copy_out(&held.frame, scratch);
            let at = held.piece.payload_at;
            bytes.extend_from_slice(scratch.get(at..at + held.piece.len())?);
        }
        match first.packet.tuple.family {
            Family::V4 => {
                let len = u16::try_from(bytes.len() - l3).ok()?;
                bytes[l3 + 2..l3 + 4].copy_from_slice(&len.to_be_bytes());
                bytes[l3 + 6..l3 + 8].fill(0);
                bytes[l3 + 10..l3 + 12].fill(0);
                let check = checksum::finish(checksum::sum(&bytes[l3..l3 + first.piece.header_len], 0));
                bytes[l3 + 10..l3 + 12].copy_from_slice(&check.to_be_bytes());
            }
            Family::V6 => {
                let len = u16::try_from(bytes.len() - l3 - 40).ok()?;
                bytes[l3 + 4..l3 + 6].copy_from_slice(&len.to_be_bytes());
                *bytes.get_mut(first.piece.next_at)? = first.piece.next;
            }
        }
        wire::parse(bytes, u32::try_from(bytes.len()).ok()?).ok()
    }

    /// Copies a packet that lies in several chunks.
    pub fn copy(&mut self, umem: &Umem, frame: &Frame) {
        self.bytes.clear();
        umem.copy_out(frame, &mut self.bytes);
    }

    /// The packet last put together.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
