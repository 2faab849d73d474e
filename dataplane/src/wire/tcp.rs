//! TCP segments, and arithmetic on sequence numbers. RFC 9293; options RFC 7323 (window scale) and RFC 2018 (SACK).
//! Malformed options are passed over as netfilter does: the walk ends, what was read before stays.

use crate::packet::{Numbers, Packet, tcp_flag};

/// Largest shift that counts. RFC 7323 section 2.3.
const SCALE_MAX: u8 = 14;

/// Bytes of a header without options.
pub(crate) const HEADER_LEN: usize = 20;

/// Kinds of TCP options. IANA tcp-parameters.
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NOP: u8 = 1;
    pub(super) const WINDOW_SCALE: u8 = 3;
    pub(super) const SACK_PERMITTED: u8 = 4;
    pub(super) const SACK: u8 = 5;
}

/// The options of most segments of most connections: two NOPs and a timestamp, nothing else. RFC 7323 appendix A.
const TIMESTAMP_ONLY: [u8; 4] = [1, 1, 8, 10];

/// What a segment is to the state table, by the first flag set in this order: RST, SYN, FIN, ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Class {
    Syn = 0,
    SynAck = 1,
    Fin = 2,
    Ack = 3,
    Rst = 4,
    None = 5,
}

/// A TCP segment. Numbers in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    /// As on the wire, unscaled.
    pub(crate) window: u16,
    pub(crate) flags: u8,
    /// Bytes after the header.
    pub(crate) payload_len: u32,
    /// The header's options, as far as they are inside the packet.
    pub(crate) options: &'a [u8],
}

/// What a SYN offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct SynOptions {
    /// Shift of its windows, at most 14; `None` if it does not offer scaling.
    pub(crate) scale: Option<u8>,
    pub(crate) sack_permitted: bool,
}

/// Whether `a` comes before `b` in sequence space.
#[inline]
pub(crate) const fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// Whether `a` comes after `b` in sequence space.
#[inline]
pub(crate) const fn after(a: u32, b: u32) -> bool {
    before(b, a)
}

/// Whether some stack sends this combination of flags. PSH, ECE and CWR may come with anything. Source:
/// `tcp_valid_flags` in the kernel's `nf_conntrack_proto_tcp.c`.
#[inline]
pub(crate) const fn is_legal(flags: u8) -> bool {
    use tcp_flag::{ACK, FIN, RST, SYN, URG};
    const SYN_URG: u8 = SYN | URG;
    const SYN_ACK: u8 = SYN | ACK;
    const RST_ACK: u8 = RST | ACK;
    const FIN_ACK: u8 = FIN | ACK;
    const FIN_ACK_URG: u8 = FIN | ACK | URG;
    const ACK_URG: u8 = ACK | URG;
    matches!(
        flags & (SYN | ACK | FIN | RST | URG),
        SYN | SYN_URG | SYN_ACK | RST | RST_ACK | FIN_ACK | FIN_ACK_URG | ACK | ACK_URG
    )
}

/// The numbers of the segment that starts with `header` and is `l4_len` bytes long, if it is a plain ACK: see
/// [`crate::packet::Plain::Ack`].
#[inline]
pub(crate) fn plain_ack(header: &[u8], l4_len: u32) -> Option<Numbers> {
    use tcp_flag::{ACK, FIN, RST, SYN};
    const OFFSET_AND_FLAGS: u16 = 0xf000 | (SYN | ACK | FIN | RST) as u16;
    const PLAIN: u16 = 5 << 12 | ACK as u16;
    const WITH_TIMESTAMP: u16 = 8 << 12 | ACK as u16;
    let fixed: &[u8; HEADER_LEN] = header.first_chunk()?;
    let header_len = match u16::from_be_bytes([fixed[12], fixed[13]]) & OFFSET_AND_FLAGS {
        PLAIN => HEADER_LEN,
        WITH_TIMESTAMP if header[HEADER_LEN..].starts_with(&TIMESTAMP_ONLY) => HEADER_LEN + 12,
        _ => return None,
    };
    let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    Some(Numbers {
        seq: word(4),
        ack: word(8),
        window: u16::from_be_bytes([fixed[14], fixed[15]]),
        payload_len: u16::try_from(l4_len.checked_sub(u32::try_from(header_len).ok()?)?).ok()?,
    })
}

impl<'a> Segment<'a> {
    /// Reads the segment in `packet`; `None` if its header does not fit the packet.
    pub(crate) fn parse(bytes: &'a [u8], packet: &Packet) -> Option<Self> {
        let header = bytes.get(usize::from(packet.l4_offset)..)?;
        let fixed: &[u8; HEADER_LEN] = header.first_chunk()?;
        let header_bytes = usize::from(fixed[12] >> 4) * 4;
        let l4_bytes = packet.l3_end().checked_sub(usize::from(packet.l4_offset))?;
        let payload_len = u32::try_from(l4_bytes.checked_sub(header_bytes)?).ok()?;
        Some(Self {
            seq: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ack: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            window: u16::from_be_bytes([fixed[14], fixed[15]]),
            flags: fixed[13],
            payload_len,
            options: header.get(HEADER_LEN..header_bytes)?,
        })
    }

    /// Bytes of the header, options included.
    pub(crate) const fn header_len(&self) -> usize {
        HEADER_LEN + self.options.len()
    }

    #[inline]
    pub(crate) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    #[inline]
    pub(crate) const fn class(&self) -> Class {
        if self.has(tcp_flag::RST) {
            Class::Rst
        } else if self.has(tcp_flag::SYN) {
            if self.has(tcp_flag::ACK) { Class::SynAck } else { Class::Syn }
        } else if self.has(tcp_flag::FIN) {
            Class::Fin
        } else if self.has(tcp_flag::ACK) {
            Class::Ack
        } else {
            Class::None
        }
    }

    /// One past the last sequence number the segment takes: SYN and FIN take one each.
    #[inline]
    pub(crate) const fn end(&self) -> u32 {
        self.seq
            .wrapping_add(self.payload_len)
            .wrapping_add(self.has(tcp_flag::SYN) as u32)
            .wrapping_add(self.has(tcp_flag::FIN) as u32)
    }

    /// What it offers as a SYN. Broken options end the search, without blame.
    pub(crate) fn syn_options(&self) -> SynOptions {
        let mut offered = SynOptions::default();
        for (kind, value) in Options(self.options) {
            match (kind, value) {
                (option::SACK_PERMITTED, []) => offered.sack_permitted = true,
                (option::WINDOW_SCALE, &[shift]) => offered.scale = Some(shift.min(SCALE_MAX)),
                _ => {}
            }
        }
        offered
    }

    /// Whether it can be seen at a glance that there is no SACK block: no options at all, or only a timestamp as every
    /// stack writes it.
    #[inline]
    pub(crate) fn selects_nothing(&self) -> bool {
        self.options.is_empty() || self.options.len() == 12 && self.options.starts_with(&TIMESTAMP_ONLY)
    }

    /// The highest sequence number it says it has: the acknowledgement, or the right edge of a SACK block beyond it.
    /// RFC 2018 section 3.
    #[inline]
    pub(crate) fn sack_edge(&self) -> u32 {
        if self.selects_nothing() {
            return self.ack;
        }
        let blocks = Options(self.options).find_map(|(kind, value)| {
            (kind == option::SACK && !value.is_empty() && value.len() % 8 == 0).then_some(value)
        });
        let mut edge = self.ack;
        for block in blocks.unwrap_or_default().chunks_exact(8) {
            if let Some(&right) = block.last_chunk::<4>() {
                let right = u32::from_be_bytes(right);
                if after(right, edge) {
                    edge = right;
                }
            }
        }
        edge
    }
}

/// Kinds and values of the options in a header, up to the first that does not fit.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while let [option::NOP, rest @ ..] = self.0 {
            self.0 = rest;
        }
        let [kind, len, ..] = *self.0 else { return None };
        if kind == option::END {
            return None;
        }
        let value = self.0.get(2..usize::from(len))?;
        self.0 = self.0.get(usize::from(len)..)?;
        Some((kind, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_options(options: &[u8]) -> Segment<'_> {
        Segment { seq: 0, ack: 1000, window: 0, flags: tcp_flag::ACK, payload_len: 0, options }
    }

    #[test]
    fn only_nine_flag_sets_are_legal() {
        let legal = (0..=255_u8).filter(|&flags| flags & 0xc8 == 0 && is_legal(flags)).count();
        assert_eq!(legal, 9);
        for psh_ece_cwr in [0x08, 0x40, 0x80, 0xc8] {
            assert!((0..=255_u8).all(|flags| is_legal(flags) == is_legal(flags | psh_ece_cwr)));
        }
    }

    #[test]
    fn options_of_a_syn_are_read_and_the_shift_is_capped() {
        let usual = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7];
        let offered = with_options(&usual).syn_options();
        assert_eq!(offered, SynOptions { scale: Some(7), sack_permitted: true });
        assert_eq!(with_options(&[3, 3, 200]).syn_options().scale, Some(14));
        for broken in
            [&[3, 2, 7, 0][..], &[3], &[3, 3], &[4, 1], &[0, 3, 3, 7], &[3, 0, 7], &[9, 40, 3, 3, 7]]
        {
            assert_eq!(with_options(broken).syn_options(), SynOptions::default(), "{broken:?}");
        }
    }

    #[test]
    fn the_sack_edge_is_the_furthest_block_beyond_the_acknowledgement() {
        let block = |left: u32, right: u32| [left.to_be_bytes(), right.to_be_bytes()].concat();
        let two = [&[1, 1, 5, 18][..], &block(2000, 3000), &block(4000, 5000)].concat();
        assert_eq!(with_options(&two).sack_edge(), 5000);
        let old = [&[5, 10][..], &block(100, 900)].concat();
        assert_eq!(with_options(&old).sack_edge(), 1000);
        // Blocks are compared one after the other, as in Linux: two of them can lead round the sequence space.
        let round = [&[5, 18][..], &block(0, 0x4400_0000), &block(0, 0x8000_0400)].concat();
        assert_eq!(with_options(&round).sack_edge(), 0x8000_0400);
        let odd = [&[5, 12][..], &block(100, 5000), &[1, 1]].concat();
        assert_eq!(with_options(&odd).sack_edge(), 1000);
    }

    proptest! {
        #[test]
        fn any_options_are_read_without_panic(options in proptest::collection::vec(any::<u8>(), 0..40)) {
            let segment = with_options(&options);
            prop_assert!(segment.syn_options().scale.is_none_or(|shift| shift <= SCALE_MAX));
            let edge = segment.sack_edge();
            prop_assert!(edge == segment.ack || options.windows(4).any(|word| word == edge.to_be_bytes()));
        }
    }
}
