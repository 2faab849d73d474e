//! Checksums: the Internet checksum (RFC 1071) over headers, pseudo headers and payload, and CRC32c (RFC 9260
//! appendix A) for SCTP.

use crate::packet::{Family, Fragment, Packet, proto};

/// Adds the 16-bit words of `bytes` to a ones-complement sum; an odd last byte counts as if a zero followed.
///
/// Adds 32-bit words as they lie in memory into 64 bits, eight lanes at a time so that the compiler can use vector
/// registers. The carries are folded at the end, and only then is the byte order mended: ones-complement sums do not
/// depend on it (RFC 1071 section 2). `plain` in the tests is the same thing word by word.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8], start: u64) -> u64 {
    let mut lanes = [0_u64; 8];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let halves = |bytes: [u8; 8]| {
        let word = u64::from_ne_bytes(bytes);
        (word >> 32) + (word & 0xffff_ffff)
    };
    let mut total: u64 = lanes.iter().sum();
    let mut words = blocks.remainder().chunks_exact(8);
    for word in &mut words {
        total += word.first_chunk().map_or(0, |bytes| halves(*bytes));
    }
    let rest = words.remainder().len();
    start + u64::from(u16::from_be_bytes(fold(total + halves(padded(bytes, rest))).to_ne_bytes()))
}

/// The last `rest` bytes, at most seven, padded with zeros behind.
#[inline]
fn padded(bytes: &[u8], rest: usize) -> [u8; 8] {
    // One load that reaches back, where there is something to reach back to: copying so few bytes takes longer than
    // adding up all the others of a short packet.
    if let Some(last) = bytes.last_chunk::<8>() {
        let before = u32::try_from(64 - 8 * rest).unwrap_or(64);
        return u64::from_le_bytes(*last).checked_shr(before).unwrap_or(0).to_le_bytes();
    }
    let mut last = [0; 8];
    last[..rest].copy_from_slice(&bytes[bytes.len() - rest..]);
    last
}

/// Folds a sum to 16 bits.
#[inline]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "folded below 2^16 by then")]
pub const fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum to write into a header whose words (checksum field zero) add up to `sum`.
#[inline]
#[must_use]
pub const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The checksum after one of the words it covers has changed. RFC 1624, equation 3.
#[inline]
#[must_use]
pub const fn replaced(check: u16, old: u16, new: u16) -> u16 {
    !fold(!check as u64 + !old as u64 + new as u64)
}

/// Whether an IPv4 header, options included, adds up.
#[inline]
#[must_use]
pub fn ipv4_header_ok(header: &[u8]) -> bool {
    fold(sum(header, 0)) == 0xffff
}

/// Sum over the pseudo header that TCP, UDP and ICMPv6 checksums include. RFC 9293 section 3.1, RFC 8200 section 8.1.
#[inline]
#[must_use]
pub fn pseudo_header(src: u128, dst: u128, family: Family, protocol: u8, len: u32) -> u64 {
    let words = |address: u128| match family {
        #[expect(clippy::cast_possible_truncation, reason = "IPv4 lives in the low 32 bits")]
        Family::V4 => u64::from(address as u32),
        Family::V6 => sum(&address.to_be_bytes(), 0),
    };
    words(src) + words(dst) + u64::from(protocol) + u64::from(len)
}

/// Whether the upper-layer checksum is right, as netfilter's tracker judges it (`nf_ip_checksum`): UDP may go without.
/// True where nothing can be said: fragments, protocols without checksum, packets whose bytes are not all in `head`.
#[inline]
#[must_use]
pub fn l4_ok(head: &[u8], packet: &Packet) -> bool {
    if packet.fragment != Fragment::Whole {
        return true;
    }
    let Some(l4) = head.get(usize::from(packet.l4_offset)..packet.l3_end()) else { return true };
    let tuple = &packet.tuple;
    let with_pseudo = |covered: &[u8], len: usize| {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        // Linux takes UDP's number for UDP-Lite too, and so calls INVALID whatever follows RFC 3828.
        let number = if tuple.proto == proto::UDPLITE { proto::UDP } else { tuple.proto };
        fold(sum(covered, pseudo_header(tuple.src, tuple.dst, tuple.family, number, len))) == 0xffff
    };
    match tuple.proto {
        proto::TCP | proto::ICMPV6 => with_pseudo(l4, l4.len()),
        proto::ICMP => fold(sum(l4, 0)) == 0xffff,
        // RFC 768: an all-zero checksum is none. Linux takes that from IPv6 too.
        proto::UDP => l4.get(6..8) == Some(&[0, 0]) || with_pseudo(l4, l4.len()),
        proto::UDPLITE => udplite_ok(l4, with_pseudo),
        proto::SCTP => {
            let Some(stated) = l4.get(8..12) else { return true };
            crc32c(&[&l4[..8], &[0; 4], &l4[12..]]).to_le_bytes() == *stated
        }
        _ => true,
    }
}

/// UDP-Lite covers a prefix of its datagram, and must have a checksum. RFC 3828 section 3.1.
fn udplite_ok(l4: &[u8], adds_up: impl Fn(&[u8], usize) -> bool) -> bool {
    let Some(&[_, _, _, _, c0, c1, s0, s1]) = l4.first_chunk::<8>() else { return false };
    let coverage = match usize::from(u16::from_be_bytes([c0, c1])) {
        0 => l4.len(),
        covered => covered,
    };
    (s0, s1) != (0, 0)
        && l4.get(..coverage).is_some_and(|covered| coverage >= 8 && adds_up(covered, l4.len()))
}

/// CRC32c (Castagnoli) over the concatenation of `parts`: by the processor's instruction where it has one.
#[must_use]
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071, word by word with the carry added at once.
    fn plain(bytes: &[u8]) -> u16 {
        let mut total = 0_u32;
        for word in bytes.chunks(2) {
            total += u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low));
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    proptest! {
        #[test]
        fn fast_sum_equals_plain_sum(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let fast = fold(sum(&bytes, 0));
            let slow = plain(&bytes);
            // 0 and 0xffff are the same number in ones-complement; only all-zero input gives 0 in both.
            prop_assert_eq!(fast, slow);
        }
    }

    #[test]
    fn crc32c_matches_the_published_check_value() {
        assert_eq!(crc32c(&[b"12345", b"6789"]), 0xe306_9283);
    }
}
