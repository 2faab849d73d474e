//! Changes to the fixed part of an IP header.

use super::Subject;
use crate::packet::Family;
use crate::wire::checksum::replaced;

/// Where IPv4's checksum stands.
pub(super) const V4_CHECK: usize = 10;

/// Writes a 16-bit word that a checksum in the same bytes covers.
pub(super) fn write16(bytes: &mut [u8], at: usize, new: u16, check_at: usize) {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u16::from_be_bytes(*word))
    };
    let check = replaced(word(bytes, check_at), word(bytes, at), new);
    for (at, value) in [(at, new), (check_at, check)] {
        if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = value.to_be_bytes();
        }
    }
}

/// The IP header on.
pub(super) fn header<'a>(subject: &'a mut Subject<'_>) -> &'a mut [u8] {
    let from = usize::from(subject.packet.l3_offset);
    subject.bytes.get_mut(from..subject.len).unwrap_or_default()
}

/// The TOS byte, or IPv6's traffic class.
pub(super) fn change_tos(subject: &mut Subject<'_>, change: impl FnOnce(u8) -> u8) {
    let family = subject.packet.tuple.family;
    let [first, second, ..] = header(subject) else { return };
    match family {
        Family::V4 => {
            let word = u16::from_be_bytes([*first, change(*second)]);
            write16(header(subject), 0, word, V4_CHECK);
        }
        Family::V6 => {
            let class = change(*first << 4 | *second >> 4);
            *first = *first & 0xf0 | class >> 4;
            *second = class << 4 | *second & 0x0f;
        }
    }
}

/// The TTL, or IPv6's hop limit.
pub(super) fn change_hops(subject: &mut Subject<'_>, change: impl FnOnce(u8) -> u8) {
    const V4_TTL: usize = 8;
    const V6_HOP_LIMIT: usize = 7;
    let family = subject.packet.tuple.family;
    let header = header(subject);
    match family {
        Family::V4 => {
            if let Some(&[ttl, proto]) = header.get(V4_TTL..).and_then(<[u8]>::first_chunk) {
                write16(header, V4_TTL, u16::from_be_bytes([change(ttl), proto]), V4_CHECK);
            }
        }
        Family::V6 => {
            if let Some(hops) = header.get_mut(V6_HOP_LIMIT) {
                *hops = change(*hops);
            }
        }
    }
}
