//! What a fragment says about its place in its datagram. Pure reads of a parsed packet's header.

use crate::packet::{Family, Packet};
use crate::wire;

/// A fragment's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Piece {
    /// Which datagram of its sender.
    pub id: u32,
    /// The VLANs it came in, and how many there are.
    pub vlans: u64,
    /// First byte of the datagram's payload it carries.
    pub offset: usize,
    /// One past the last.
    pub end: usize,
    /// Whether it is the datagram's last.
    pub is_last: bool,
    /// IPv6: it is not the last, yet its end is no multiple of eight bytes.
    pub is_odd: bool,
    /// Its ECN bits.
    pub ecn: u8,
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

/// Why what looks like a fragment has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is no fragment to the kernel either: to be judged by itself.
    Alone,
    /// Its fragment header is cut off.
    Cut,
}

/// The VLAN identifiers of a frame's tags, twelve bits each, behind a one.
fn vlans(bytes: &[u8], packet: &Packet) -> u64 {
    let tags = bytes.get(wire::ETHERNET_LEN..usize::from(packet.l3_offset)).unwrap_or_default();
    tags.chunks_exact(wire::VLAN_LEN).fold(1, |vlans, tag| {
        // The tag's protocol stands before its first byte, the next one's in its last two.
        vlans << 12 | u64::from(u16::from_be_bytes([tag[0], tag[1]]) & 0xfff)
    })
}

impl Piece {
    /// Reads it from all the bytes of its frame.
    ///
    /// # Errors
    /// If it has no place.
    pub fn read(bytes: &[u8], packet: &Packet) -> Result<Self, Unfit> {
        match packet.tuple.family {
            Family::V4 => Self::read_v4(bytes, packet).ok_or(Unfit::Alone),
            Family::V6 => Self::read_v6(bytes, packet),
        }
    }

    fn read_v4(bytes: &[u8], packet: &Packet) -> Option<Self> {
        let l3 = usize::from(packet.l3_offset);
        let ip: &[u8; 20] = bytes.get(l3..)?.first_chunk()?;
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
            vlans: vlans(bytes, packet),
            offset,
            end: offset + len,
            is_last,
            ecn: ip[1] & 3,
            payload_at: l3 + header_len,
            header_len,
            ..Self::default()
        })
    }

    fn read_v6(bytes: &[u8], packet: &Packet) -> Result<Self, Unfit> {
        let l3 = usize::from(packet.l3_offset);
        let bytes = bytes.get(..packet.l3_end()).unwrap_or(bytes);
        if bytes.len() == l3 + wire::ipv6::HEADER_LEN {
            return Err(Unfit::Alone); // As if it were a jumbogram.
        }
        let fragment = wire::ipv6::find_fragment_header(bytes, l3).ok_or(Unfit::Alone)?;
        if wire::ipv6::lacks_upper_header(bytes, fragment.at) {
            return Err(Unfit::Alone);
        }
        let header: &[u8; 8] = bytes.get(fragment.at..).and_then(<[u8]>::first_chunk).ok_or(Unfit::Cut)?;
        let field = u16::from_be_bytes([header[2], header[3]]);
        let (offset, is_last) = (usize::from(field & 0xfff8), field & 1 == 0);
        let payload_at = fragment.at + 8;
        let end = offset + bytes.len().saturating_sub(payload_at);
        Ok(Self {
            id: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            vlans: vlans(bytes, packet),
            offset,
            end,
            is_last,
            is_odd: !is_last && end % 8 != 0,
            ecn: bytes.get(l3 + 1).map_or(0, |byte| byte >> 4 & 3),
            payload_at,
            header_len: fragment.at - l3,
            next_at: fragment.next_at,
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
