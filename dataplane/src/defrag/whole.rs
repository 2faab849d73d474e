//! A datagram as one packet: headers of its first fragment, payload of all. What parser, tracker and answers look at;
//! it is never sent.
//!
//! What is sent are the fragments, but all with the first one's headers, from the Ethernet header on, and ECN's mark if
//! any had it, as Linux sends them. Headers are what decides whether a fragment arrives: one that has a smaller TTL than
//! the others, another destination MAC address or a source route gets lost behind us, and another takes its place that
//! was judged as part of another datagram.

use super::{Held, Piece};
use crate::packet::{Family, Packet, proto};
use crate::wire;
use crate::xsk::{Frame, FramePool, Umem};

/// Longest IPv4 packet with its header, and longest payload of an IPv6 packet.
const LENGTH_MAX: usize = 65_535;

/// Whether a datagram whose first fragment this is, and whose payload ends at `end`, is longer than its header can say.
pub(super) fn is_too_long(first: &Held, end: usize) -> bool {
    let counted = match first.packet.tuple.family {
        Family::V4 => first.piece.header_len,
        Family::V6 => first.piece.header_len - V6_HEADER_LEN,
    };
    counted + end > LENGTH_MAX
}

/// Bytes of an IPv4 header without options.
const V4_HEADER_LEN: usize = 20;
/// Bytes of IPv6's fixed header.
const V6_HEADER_LEN: usize = 40;
/// Bytes of its fragment header.
const V6_FRAGMENT_LEN: usize = 8;
/// The ECN bits that say congestion experienced.
const ECN_CE: u8 = 3;

/// Writes length, fragment field and checksum of an IPv4 header.
fn write_v4(header: &mut [u8], len: u16, fragment: u16) {
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[6..8].copy_from_slice(&fragment.to_be_bytes());
    wire::seal_ipv4(header);
}

/// Has the fragments of a complete datagram say themselves which of them is the last. One that said so may have been
/// ignored, because all it carried was there already; where they are put together once more it would be missed.
pub fn settle_end(umem: &Umem, fragments: &mut [Held]) {
    let end = fragments.last().map_or(0, |last| last.piece.end);
    for Held { frame, packet, piece } in fragments {
        let is_last = piece.end == end;
        if piece.is_last == is_last {
            continue;
        }
        piece.is_last = is_last;
        match packet.tuple.family {
            Family::V4 => {
                let l3 = usize::from(packet.l3_offset);
                if let Some(header) = umem.buffer_mut(frame).get_mut(l3..l3 + piece.header_len) {
                    // Bits of the flags and the offset: more fragments.
                    header[6] = (header[6] & !0x20) | if is_last { 0 } else { 0x20 };
                    wire::seal_ipv4(header);
                }
            }
            Family::V6 => {
                let field = u16::try_from(piece.offset).unwrap_or(0) | u16::from(!is_last);
                umem.copy_in(frame, piece.payload_at - V6_FRAGMENT_LEN + 2, &field.to_be_bytes());
            }
        }
    }
}

/// Room for one datagram, made once per worker.
#[derive(Debug, Default)]
pub struct Whole {
    bytes: Vec<u8>,
    scratch: Vec<u8>,
    can_be_sent: bool,
}

impl Whole {
    /// Room for the longest datagram. The default has none: it stands in while the real one is lent.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(LENGTH_MAX + 256),
            scratch: Vec::with_capacity(16 * 1024),
            can_be_sent: false,
        }
    }

    /// Puts the fragments of a complete datagram together and parses the result; `None` if that is no packet.
    pub fn build(&mut self, umem: &Umem, fragments: &[Held]) -> Option<Packet> {
        let Self { bytes, scratch, can_be_sent } = self;
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
        // ECN's mark is the datagram's if any fragment has it.
        let mark = if fragments.iter().any(|held| held.piece.ecn == ECN_CE) { ECN_CE } else { 0 };
        match first.packet.tuple.family {
            Family::V4 => {
                let len = u16::try_from(bytes.len() - l3).ok()?;
                *bytes.get_mut(l3 + 1)? |= mark;
                write_v4(bytes.get_mut(l3..l3 + first.piece.header_len)?, len, 0);
            }
            Family::V6 => {
                let len = u16::try_from(bytes.len() - l3 - V6_HEADER_LEN).ok()?;
                bytes[l3 + 1] |= mark << 4;
                bytes[l3 + 4..l3 + 6].copy_from_slice(&len.to_be_bytes());
                *bytes.get_mut(first.piece.next_at)? = first.piece.next;
            }
        }
        let mut packet = wire::parse(bytes, u32::try_from(bytes.len()).ok()?).ok()?;
        // A fragment header among the rest of its headers is one of those: nothing is put together twice.
        wire::take_as_whole(bytes, &mut packet);
        let longest = fragments.iter().map(|held| held.packet.l3_len).max();
        let in_first = bytes.get(l3..l3 + first.piece.header_len + first.piece.len());
        *can_be_sent = packet.tuple.family == Family::V4
            || Some(packet.l3_len) <= longest
            || in_first.is_some_and(wire::ipv6::holds_unfragmentable_part);
        Some(packet)
    }

    /// Whether the datagram that was built last may leave if the rules accept it. One of IPv6 whose first fragment does
    /// not even hold the headers for those on the way may not (RFC 7112 asks for all of them), unless it is no longer
    /// than its longest fragment: Linux fails to cut it anew.
    #[must_use]
    pub const fn can_be_sent(&self) -> bool {
        self.can_be_sent
    }

    /// Gives all fragments of the datagram that was built last the headers of the first one, each in its own place.
    /// False if there is no room for them.
    pub fn unify(&mut self, umem: &Umem, pool: &mut FramePool, fragments: &mut Vec<Held>) -> bool {
        let Some(first) = fragments.first() else { return false };
        let (packet, piece) = (first.packet, first.piece);
        let end = fragments.last().map_or(0, |last| last.piece.end);
        let mut is_one = true;
        let unified = std::mem::take(fragments).into_iter().map(|mut held| {
            held.piece.is_last = held.piece.end == end;
            let is_written = match packet.tuple.family {
                Family::V4 => self.write_header_v4(&packet, &piece, &held.piece),
                Family::V6 => self.write_header_v6(&packet, &piece, &held.piece),
            };
            let (held, is_done) = self.replace_header(umem, pool, held);
            is_one &= is_written.is_some() && is_done;
            held
        });
        *fragments = unified.collect();
        is_one
    }

    /// Gives all fragments what has become of the datagram: its headers, and the payload each has its part of. False if
    /// there is no room for them.
    pub fn spread(&mut self, umem: &Umem, pool: &mut FramePool, fragments: &mut Vec<Held>) -> bool {
        let is_one = self.unify(umem, pool, fragments);
        let Some(first) = fragments.first() else { return false };
        let payload_at = usize::from(first.packet.l3_offset) + first.piece.header_len;
        for held in fragments {
            let from = payload_at + held.piece.offset;
            if let Some(part) = self.bytes.get(from..from + held.piece.len()) {
                umem.copy_in(&mut held.frame, held.piece.payload_at, part);
            }
        }
        is_one
    }

    /// Writes a header for a fragment like the first one, without options if it has not got as many: an option need not
    /// be in all of them.
    fn write_header_v4(&mut self, packet: &Packet, first: &Piece, piece: &Piece) -> Option<()> {
        let l3 = usize::from(packet.l3_offset);
        let header_len = if piece.header_len == first.header_len { first.header_len } else { V4_HEADER_LEN };
        self.scratch.clear();
        self.scratch.extend_from_slice(self.bytes.get(..l3 + header_len)?);
        let header = &mut self.scratch[l3..];
        header[0] = 0x40 | u8::try_from(header_len / 4).ok()?;
        let more = if piece.is_last { 0 } else { 0x2000 };
        let field = u16::try_from(piece.offset / 8).ok()? | more;
        write_v4(header, u16::try_from(header_len + piece.len()).ok()?, field);
        Some(())
    }

    fn write_header_v6(&mut self, packet: &Packet, first: &Piece, piece: &Piece) -> Option<()> {
        let l3 = usize::from(packet.l3_offset);
        self.scratch.clear();
        self.scratch.extend_from_slice(self.bytes.get(..l3 + first.header_len)?);
        let len = first.header_len - V6_HEADER_LEN + V6_FRAGMENT_LEN + piece.len();
        self.scratch[l3 + 4..l3 + 6].copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
        *self.scratch.get_mut(first.next_at)? = proto::FRAGMENT;
        let field = u16::try_from(piece.offset).ok()? | u16::from(!piece.is_last);
        self.scratch.extend([first.next, 0]);
        self.scratch.extend(field.to_be_bytes());
        self.scratch.extend(piece.id.to_be_bytes());
        Some(())
    }

    /// Puts the header just written in place of a fragment's own. False if it does not fit into the frame's first chunk.
    fn replace_header(&self, umem: &Umem, pool: &mut FramePool, held: Held) -> (Held, bool) {
        let Held { mut frame, packet, mut piece } = held;
        let (old, new) = (piece.payload_at, self.scratch.len());
        if umem.head(&frame).get(..old) == Some(&self.scratch) {
            return (Held { frame, packet, piece }, true);
        }
        let (head_len, is_single) = (umem.head_len(&frame), frame.segments() == 1);
        let buffer = umem.buffer_mut(&mut frame);
        if old > head_len || new != old && !is_single || head_len - old + new > buffer.len() {
            return (Held { frame, packet, piece }, false);
        }
        buffer.copy_within(old..head_len, new);
        buffer[..new].copy_from_slice(&self.scratch);
        if new != old {
            frame = pool.shorten(frame, head_len - old + new);
        }
        piece.payload_at = new;
        piece.header_len = piece.header_len + new - old;
        let parsed = wire::parse(umem.head(&frame), frame.len());
        let packet = parsed.map(|parsed| Packet { hash: packet.hash, ..parsed });
        let is_fine = packet.is_ok();
        (Held { packet: packet.unwrap_or(held.packet), frame, piece }, is_fine)
    }

    /// Copies a packet that lies in several chunks.
    pub fn copy(&mut self, umem: &Umem, frame: &Frame) {
        self.bytes.clear();
        umem.copy_out(frame, &mut self.bytes);
    }

    /// The same, to be changed.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The packet last put together.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
