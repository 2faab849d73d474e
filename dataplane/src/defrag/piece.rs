//! What a fragment says about its place in its datagram. Pure reads of a parsed packet's header.

use crate::packet::{Family, Packet, proto};

/// Extension headers followed in search of the fragment header.
const HEADERS_MAX: usize = 16;

/// A fragment's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Piece {
    /// Which datagram of its sender.
    pub id: u32,
    /// First byte of the datagram's payload it carries.
    pub offset: usize,
    /// One past the last.
    pub end: usize,
    /// Whether it is the datagram's last.
    pub is_last: bool,
    /// Where its payload starts in the frame.
    pub payload_at: usize,
    /// Bytes of headers before the payload that every fragment has: IPv4's header, or what precedes IPv6's fragment
    /// header.
    pub header_len: usize,
    /// IPv6: where the `next header` byte stands that says fragment header.
    pub next_at: usize,
    /// IPv6: what follows the fragment header.
    pub next: u8,
}

impl Piece {
    /// Reads it; `None` for what is no fragment to the kernel either.
    #[must_use]
    pub fn read(head: &[u8], packet: &Packet) -> Option<Self> {
        match packet.tuple.family {
            Family::V4 => Self::read_v4(head, packet),
            Family::V6 => Self::read_v6(head, packet),
        }
    }

    fn read_v4(head: &[u8], packet: &Packet) -> Option<Self> {
        let l3 = usize::from(packet.l3_offset);
        let ip: &[u8; 20] = head.get(l3..)?.first_chunk()?;
        let field = u16::from_be_bytes([ip[6], ip[7]]);
        let header_len = usize::from(packet.l4_offset) - l3;
        let (offset, is_last) = (usize::from(field & 0x1fff) * 8, field & 0x2000 == 0);
        let mut len = (packet.l3_len as usize).saturating_sub(header_len);
        if !is_last {
            // What does not fill eight bytes is cut off.
            len &= !7;
        }
        Some(Self {
            id: u32::from(u16::from_be_bytes([ip[4], ip[5]])),
            offset,
            end: offset + len,
            is_last,
            payload_at: l3 + header_len,
            header_len,
            next_at: 0,
            next: 0,
        })
    }

    fn read_v6(head: &[u8], packet: &Packet) -> Option<Self> {
        let l3 = usize::from(packet.l3_offset);
        let (mut next_at, mut at) = (l3 + 6, l3 + 40);
        for _ in 0..HEADERS_MAX {
            let len = match *head.get(next_at)? {
                proto::FRAGMENT => return Self::read_fragment_header(head, packet, next_at, at),
                proto::HOP_BY_HOP | proto::ROUTING | proto::DST_OPTS => {
                    (usize::from(*head.get(at + 1)?) + 1) * 8
                }
                _ => return None,
            };
            (next_at, at) = (at, at + len);
        }
        None
    }

    fn read_fragment_header(head: &[u8], packet: &Packet, next_at: usize, at: usize) -> Option<Self> {
        let header: &[u8; 8] = head.get(at..)?.first_chunk()?;
        let field = u16::from_be_bytes([header[2], header[3]]);
        let (offset, is_last) = (usize::from(field & 0xfff8), field & 1 == 0);
        let payload_at = at + 8;
        let len = packet.l3_end().checked_sub(payload_at)?;
        let lacks_upper = packet.l4_fault.is_some_and(|fault| {
            matches!(fault, crate::packet::L4Fault::Truncated | crate::packet::L4Fault::NoUpperLayer)
        });
        if !is_last && (offset + len) % 8 != 0 || offset == 0 && lacks_upper {
            return None;
        }
        Some(Self {
            id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            offset,
            end: offset + len,
            is_last,
            payload_at,
            header_len: at - usize::from(packet.l3_offset),
            next_at,
            next: header[0],
        })
    }

    /// Bytes it carries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.end - self.offset
    }

    /// Whether it carries none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end == self.offset
    }
}
