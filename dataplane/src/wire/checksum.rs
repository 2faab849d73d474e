//! Checksums: the Internet checksum (RFC 1071) over headers, pseudo headers and payload, and CRC32c (RFC 9260
//! appendix A) for SCTP.

use crate::packet::{Family, Fragment, Packet, Plain, proto};

/// Adds the 16-bit words of `bytes` to a ones-complement sum; an odd last byte counts as if a zero followed.
///
/// The byte order is mended after folding: ones-complement sums do not depend on it (RFC 1071 section 2).
#[inline]
#[must_use]
pub fn sum(bytes: &[u8], start: u64) -> u64 {
    let sum = if bytes.len() < SHORT { short_sum(bytes, 0) } else { long_sum(bytes, 0) };
    start + u64::from(u16::from_be_bytes(fold(sum).to_ne_bytes()))
}

/// Below so many bytes vectors do not pay.
const SHORT: usize = 128;

/// The sum of words as they lie in memory, each added with its carry. `plain` in the tests is the same thing word by word.
#[inline(always)]
fn short_sum(bytes: &[u8], start: u64) -> u64 {
    let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    let mut total = start;
    let mut pairs = bytes.chunks_exact(16);
    for pair in &mut pairs {
        total = add(add(total, word(pair)), word(&pair[8..]));
    }
    let mut rest = pairs.remainder().len();
    if rest >= 8 {
        total = add(total, word(pairs.remainder()));
        rest -= 8;
    }
    add(total, u64::from_ne_bytes(padded(bytes, rest)))
}

/// The same of more bytes: 32-bit words into 64 bits, eight lanes at a time so that the compiler can use vector registers.
#[inline(never)]
fn long_sum(bytes: &[u8], start: u64) -> u64 {
    let mut lanes = [0_u64; 8];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    // Together they lose no carry: a packet has far less than 2^32 words.
    short_sum(blocks.remainder(), add(start, lanes.iter().sum()))
}

/// Ones-complement addition of 64-bit words: a carry comes in again at the bottom.
#[inline(always)]
const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// The last `rest` bytes, at most seven, padded with zeros behind.
#[inline(always)]
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
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    // A number and its rotation by half have the sum of its halves, carry and all, in the upper one.
    let half = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (half.wrapping_add(half.rotate_left(16)) >> 16) as u16
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
    if packet.plain == Plain::No { any_l4_ok(head, packet) } else { plain_ok(head, packet) }
}

/// The same of a plain packet. [`any_l4_ok`] is its meaning, at twice the instructions.
#[inline(never)]
fn plain_ok(head: &[u8], packet: &Packet) -> bool {
    let l4 = usize::from(packet.l4_offset);
    // First: tunnels do without, and their packets are long.
    if packet.plain == Plain::Datagram && head.get(l4 + 6..l4 + 8) == Some(&[0, 0]) {
        return true;
    }
    let adds_up = match (packet.tuple.family, packet.l4_offset.wrapping_sub(packet.l3_offset)) {
        (Family::V4, 20) => adds_up_behind::<8>(head, packet),
        (Family::V6, 40) => adds_up_behind::<32>(head, packet),
        _ => None,
    };
    adds_up.unwrap_or_else(|| any_l4_ok(head, packet))
}

/// Whether a checksum is right where addresses of so many bytes stand right before the upper-layer header: with them, most of
/// the pseudo header is summed where it is. `None` if not all is in `head`, or it is too long for an ordinary length.
#[inline(always)]
fn adds_up_behind<const ADDRESSES: usize>(head: &[u8], packet: &Packet) -> Option<bool> {
    let covered = head.get(usize::from(packet.l4_offset).wrapping_sub(ADDRESSES)..packet.l3_end())?;
    let len = u16::try_from(covered.len().wrapping_sub(ADDRESSES)).ok()?;
    let start = u64::from(len.to_be()) + u64::from(u16::from(packet.tuple.proto).to_be());
    let sum = if covered.len() < SHORT { short_sum(covered, start) } else { long_sum(covered, start) };
    Some(fold(sum) == 0xffff)
}

/// Whatever packet it is.
#[inline(never)]
fn any_l4_ok(head: &[u8], packet: &Packet) -> bool {
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
    use crate::testing::packets;
    use proptest::prelude::*;
    use std::net::IpAddr;

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

    proptest! {
        #[test]
        fn plain_packets_are_judged_as_any_other(
            is_tcp: bool, is_v6: bool, payload in 0..300_usize, change in proptest::option::of((0..400_usize, any::<u8>())),
            has_none: bool, cut in 0..30_usize,
        ) {
            let body: Vec<u8> = (0..payload).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let make = if is_tcp { packets::tcp } else { packets::udp };
            let [src, dst]: [IpAddr; 2] =
                if is_v6 { ["2001:db8::1", "2001:db8::2"] } else { ["10.0.0.1", "10.0.0.2"] }.map(|text| text.parse().unwrap());
            let mut frame = make(src, dst).ack().payload(&body).build();
            if has_none && !is_tcp {
                let l4 = if is_v6 { 54 } else { 34 };
                frame[l4 + 6..l4 + 8].fill(0);
            }
            if let Some((at, byte)) = change
                && let Some(place) = frame.get_mut(at)
            {
                *place = byte;
            }
            let Ok(packet) = crate::wire::parse(&frame, u32::try_from(frame.len()).unwrap()) else { return Ok(()) };
            let head = &frame[..frame.len() - cut.saturating_sub(20)];
            prop_assert_eq!(l4_ok(head, &packet), any_l4_ok(head, &packet));
        }
    }

    #[test]
    fn crc32c_matches_the_published_check_value() {
        assert_eq!(crc32c(&[b"12345", b"6789"]), 0xe306_9283);
    }
}
