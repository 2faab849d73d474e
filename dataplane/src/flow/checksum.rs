//! Upper-layer checksums, as netfilter verifies them before tracking. Pure functions over a packet's bytes.

use super::key;
use crate::packet::{Family, Packet, proto};

/// Whether the upper-layer checksum of `packet` is right. Protocols without one, or whose checksum is not verified
/// here (SCTP's CRC32c), are right; so is a packet whose end is not in `bytes` and which therefore cannot be summed.
pub(super) fn checksum_ok(bytes: &[u8], packet: &Packet) -> bool {
    let Some(l4) = bytes.get(usize::from(packet.l4_offset)..packet.l3_end()) else { return true };
    match packet.tuple.proto {
        proto::TCP => sums_up(packet, l4, l4.len()),
        // RFC 768: an all-zero checksum is none. Linux takes that from IPv6 too.
        proto::UDP => l4.get(6..8) == Some(&[0, 0]) || sums_up(packet, l4, l4.len()),
        proto::UDPLITE => udplite_ok(packet, l4),
        proto::ICMP if packet.tuple.family == Family::V4 => fold(sum(l4)) == 0xffff,
        proto::ICMPV6 if key::is_icmp(packet.tuple.family, proto::ICMPV6) => sums_up(packet, l4, l4.len()),
        _ => true,
    }
}

/// UDP-Lite covers a prefix of its datagram, and must have a checksum. RFC 3828 section 3.1.
fn udplite_ok(packet: &Packet, l4: &[u8]) -> bool {
    let Some(&[_, _, _, _, c0, c1, s0, s1]) = l4.first_chunk::<8>() else { return false };
    let coverage = match usize::from(u16::from_be_bytes([c0, c1])) {
        0 => l4.len(),
        covered => covered,
    };
    coverage >= 8
        && (s0, s1) != (0, 0)
        && l4.get(..coverage).is_some_and(|covered| sums_up(packet, covered, l4.len()))
}

/// Whether `covered` and the pseudo-header add up to all ones. `l4_len` is what the pseudo-header says.
fn sums_up(packet: &Packet, covered: &[u8], l4_len: usize) -> bool {
    let tuple = &packet.tuple;
    let addresses = match tuple.family {
        Family::V4 => sum(&tuple.src.to_be_bytes()[12..]) + sum(&tuple.dst.to_be_bytes()[12..]),
        Family::V6 => sum(&tuple.src.to_be_bytes()) + sum(&tuple.dst.to_be_bytes()),
    };
    let length = u64::try_from(l4_len).unwrap_or(u64::MAX >> 16);
    let rest = (length + u64::from(tuple.proto)).to_be_bytes();
    fold(addresses + sum(&rest) + sum(covered)) == 0xffff
}

/// Adds up 32-bit words in the machine's byte order; the fold makes the order meaningless (RFC 1071 section 2).
fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(4);
    let mut last = [0; 4];
    for (to, &from) in last.iter_mut().zip(words.remainder()) {
        *to = from;
    }
    // At most 2^16 words of 2^32: no overflow.
    words.fold(u64::from(u32::from_ne_bytes(last)), |total, word| {
        total + u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
    })
}

/// Adds carries back in until 16 bits are left.
const fn fold(mut total: u64) -> u64 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total
}
