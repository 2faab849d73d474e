//! Values at the borders of what conditions ask for, from which self-checks and tests make packets.

use super::{Chunks, Dccp, HeaderMatch, Hops, Operation};

/// Borders of some conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rules) struct HeaderEdges {
    /// Addresses.
    pub(in crate::rules) addresses: Vec<u128>,
    /// Lengths of IP packets.
    pub(in crate::rules) lengths: Vec<u16>,
    /// Bytes that packets and frames are made of.
    pub(in crate::rules) bytes: Vec<u8>,
}

impl Default for HeaderEdges {
    fn default() -> Self {
        Self {
            addresses: vec![0],
            lengths: vec![50, 0, 24, 90],
            bytes: vec![0, 0, 0, 1, 2, 4, 8, 0x45, 0x60, 0xff],
        }
    }
}

impl HeaderEdges {
    pub(in crate::rules) fn add(&mut self, condition: &HeaderMatch) {
        let mut numbers: Vec<u32> = Vec::new();
        match condition {
            HeaderMatch::Length(range) => {
                self.lengths.extend([
                    range.low,
                    range.high,
                    range.low.wrapping_sub(1),
                    range.high.wrapping_add(1),
                ]);
            }
            HeaderMatch::Hops(Hops::Eq(value) | Hops::Ne(value) | Hops::Lt(value) | Hops::Gt(value)) => {
                self.bytes.extend([*value, value.wrapping_sub(1), value.wrapping_add(1)]);
            }
            HeaderMatch::Tos { value, mask, .. } => self.bytes.extend([*value, value | !mask, value ^ mask]),
            HeaderMatch::Mac { address, .. } => self.bytes.extend(address),
            HeaderMatch::Address { range, .. } => self.addresses.extend([
                range.low,
                range.high,
                range.low.saturating_sub(1),
                range.high.saturating_add(1),
            ]),
            HeaderMatch::AddressType { .. } => {
                self.addresses.extend([0x7f_0000, 0xe000_0001, 0xffff_ffff, 0xffff_0000_0000, 0xff02 << 112]);
            }
            HeaderMatch::TcpOption { kind, .. } | HeaderMatch::Dccp(Dccp::Option { kind, .. }) => {
                self.bytes.push(*kind);
            }
            HeaderMatch::Mss(range) => numbers.extend([u32::from(range.low), u32::from(range.high)]),
            HeaderMatch::Spi(range) => numbers.extend([range.low, range.high]),
            HeaderMatch::Auth(auth) => numbers.extend([auth.spi.low, auth.spi.high]),
            HeaderMatch::Fragment(fragment) => numbers.extend([fragment.id.low, fragment.id.high]),
            HeaderMatch::Chunks(chunks) => {
                let kinds = (0..=u8::MAX).filter(|kind| Chunks::contains(&chunks.kinds, *kind));
                self.bytes.extend(kinds.take(4));
            }
            HeaderMatch::U32(u32) => numbers.extend(u32.tests.iter().flat_map(|test| {
                let masks = test.operations.iter().filter_map(|operation| match operation {
                    Operation::And(mask) => Some(*mask),
                    _ => None,
                });
                test.values.iter().flat_map(|(low, high)| [*low, *high]).chain(masks).collect::<Vec<_>>()
            })),
            HeaderMatch::Text(text) => self.bytes.extend(text.pattern()),
            HeaderMatch::EcnFlag { .. }
            | HeaderMatch::Eui64
            | HeaderMatch::PacketType { .. }
            | HeaderMatch::Device(_)
            | HeaderMatch::Nics { .. }
            | HeaderMatch::Carries(_)
            | HeaderMatch::RawPorts { .. }
            | HeaderMatch::Dccp(_)
            | HeaderMatch::Extensions(_)
            | HeaderMatch::Options(_)
            | HeaderMatch::Routing(_) => {}
        }
        self.bytes.extend(numbers.into_iter().flat_map(u32::to_be_bytes));
        self.bytes.truncate(256);
    }
}
