//! Receive-side scaling as NICs do it: Toeplitz over addresses and, for some protocols, ports, and a table of buckets
//! behind it. Pure functions; workers ask for the bucket of every packet, control programs NICs with the same key.
//!
//! Invariant: both directions of a flow have one bucket. A key that repeats after 16 bits makes it so, because then it
//! does not matter which of the 16-bit words of what is hashed comes first (Woo and Park, "Scalable TCP session
//! monitoring with symmetric receive-side scaling"). It also means that
//! * the hash is a linear function of the exclusive-or of all those words: a fold and two small tables in place of one
//!   table per byte of the tuple;
//! * whoever can choose two words of a tuple can choose its bucket, whatever the key is. This hash spreads load and
//!   cannot resist a sender who wants all his packets on one worker. [`crate::flow::flow_hash`], with its secret, does
//!   for the places within a flow table.

use crate::packet::{Family, Tuple, proto};

/// Buckets of the software's indirection table. A NIC whose table is smaller moves several at a time.
pub const BUCKETS: usize = 256;

/// The shortest key of a NIC: room for a window of 32 bits at every bit of an IPv6 tuple with ports.
pub const KEY_BYTES: usize = 40;

/// What the key repeats. An odd number of ones: no two words of 16 bits hash alike.
pub const KEY_WORD: [u8; 2] = [0x6d, 0x5a];

/// The symmetric key, as long as a NIC wants it.
#[must_use]
pub fn symmetric_key(bytes: usize) -> Vec<u8> {
    KEY_WORD.into_iter().cycle().take(bytes).collect()
}

/// Toeplitz hash, bit by bit: the exclusive-or of the 32 bits of the key that begin where the input has a one. The
/// meaning of the tables below, and what a NIC with this key computes. A key that is too short counts as followed by
/// zeroes.
#[must_use]
pub const fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let mut hash = 0;
    let mut bit = 0;
    while bit < input.len() * 8 {
        if input[bit / 8] >> (7 - bit % 8) & 1 == 1 {
            hash ^= window(key, bit);
        }
        bit += 1;
    }
    hash
}

/// The 32 bits of the key that begin at a bit.
#[expect(clippy::cast_possible_truncation, reason = "32 bits of a window of 40")]
const fn window(key: &[u8], bit: usize) -> u32 {
    let mut window: u64 = 0;
    let mut i = 0;
    while i < 5 {
        let at = bit / 8 + i;
        window = window << 8 | if at < key.len() { key[at] as u64 } else { 0 };
        i += 1;
    }
    (window >> (8 - bit % 8)) as u32
}

/// Protocols for which ports are hashed with the addresses, by family; for all others, and for fragments, addresses
/// alone are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields(u8);

/// A protocol whose ports a NIC may hash, in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowType {
    /// [`proto::TCP`], [`proto::UDP`] or [`proto::SCTP`].
    pub proto: u8,
    /// The family.
    pub family: Family,
}

impl FlowType {
    /// All that there are.
    pub const ALL: [Self; 6] = [
        Self { proto: proto::TCP, family: Family::V4 },
        Self { proto: proto::UDP, family: Family::V4 },
        Self { proto: proto::SCTP, family: Family::V4 },
        Self { proto: proto::TCP, family: Family::V6 },
        Self { proto: proto::UDP, family: Family::V6 },
        Self { proto: proto::SCTP, family: Family::V6 },
    ];
}

impl Fields {
    /// Ports for every protocol that can have them.
    pub const ALL: Self = Self(0b11_1111);

    /// Addresses alone.
    pub const NONE: Self = Self(0);

    /// The same but for one flow type, whose packets are told apart by their addresses alone.
    #[must_use]
    pub const fn without(self, FlowType { proto, family }: FlowType) -> Self {
        Self(self.0 & !Self::bit(proto, family))
    }

    /// Ports only where both have them.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether ports are hashed.
    #[must_use]
    #[inline]
    pub const fn has_ports(self, FlowType { proto, family }: FlowType) -> bool {
        self.0 & Self::bit(proto, family) != 0
    }

    #[inline]
    const fn bit(proto: u8, family: Family) -> u8 {
        let bit = match proto {
            proto::TCP => 1,
            proto::UDP => 2,
            proto::SCTP => 4,
            _ => 0,
        };
        match family {
            Family::V4 => bit,
            Family::V6 => bit << 3,
        }
    }
}

/// The low byte of the hash of a word with this high byte, and of one with this low byte.
static TABLES: [[u8; 256]; 2] = tables();

#[expect(clippy::cast_possible_truncation, reason = "a byte, and the low byte of a hash")]
const fn tables() -> [[u8; 256]; 2] {
    // As long as a window at any bit of a word.
    let key = [KEY_WORD[0], KEY_WORD[1], KEY_WORD[0], KEY_WORD[1], KEY_WORD[0], KEY_WORD[1]];
    let mut tables = [[0; 256]; 2];
    let mut byte = 0;
    while byte < 256 {
        tables[0][byte] = toeplitz(&key, &[byte as u8, 0]) as u8;
        tables[1][byte] = toeplitz(&key, &[0, byte as u8]) as u8;
        byte += 1;
    }
    tables
}

/// The bucket of a tuple's flow: the low byte of the [`toeplitz`] hash under the symmetric key, which is where a NIC
/// looks in its table of 256 entries. Costs 3 to 4 ns, and the keyed hash of IPv4 another 2 (one AMD EPYC, in one loop).
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "halves of what is folded")]
pub fn bucket(fields: Fields, tuple: &Tuple) -> u8 {
    let &Tuple { src, dst, src_port, dst_port, proto, family } = tuple;
    let folded = match family {
        Family::V4 => src as u32 ^ dst as u32,
        Family::V6 => {
            let addresses = src ^ dst;
            let folded = addresses as u64 ^ (addresses >> 64) as u64;
            folded as u32 ^ (folded >> 32) as u32
        }
    };
    let ports = if fields.has_ports(FlowType { proto, family }) { src_port ^ dst_port } else { 0 };
    let [high, low] = (folded as u16 ^ (folded >> 16) as u16 ^ ports).to_be_bytes();
    TABLES[0][usize::from(high)] ^ TABLES[1][usize::from(low)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// The key of "Verifying the RSS Hash Calculation" (Microsoft, Windows driver documentation), and its cases below.
    const PUBLISHED_KEY: [u8; KEY_BYTES] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn input(src: &[u8], dst: &[u8], ports: &[u16]) -> Vec<u8> {
        let ports = ports.iter().flat_map(|port| port.to_be_bytes());
        src.iter().chain(dst).copied().chain(ports).collect()
    }

    #[test]
    fn the_published_cases_come_out_as_published() {
        let v4 = [
            ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x323e_8fc2, 0x51cc_c178),
            ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xd718_262a, 0xc626_b0ea),
            ("24.19.198.95", 12898, "12.22.207.184", 38024, 0xd2d0_a5de, 0x5c2b_394a),
            ("38.27.205.30", 48228, "209.142.163.6", 2217, 0x8298_9176, 0xafc7_327f),
            ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x5d18_09c5, 0x10e8_28a2),
        ];
        for (src, src_port, dst, dst_port, addresses, all) in v4 {
            let [src, dst] = [src, dst].map(|text| text.parse::<Ipv4Addr>().unwrap().octets());
            assert_eq!(toeplitz(&PUBLISHED_KEY, &input(&src, &dst, &[])), addresses);
            assert_eq!(toeplitz(&PUBLISHED_KEY, &input(&src, &dst, &[src_port, dst_port])), all);
        }
        let v6 = [
            ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2cc1_8cd5, 0x4020_7d3d),
            ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0f0c_461c, 0xdde5_1bbf),
            (
                "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
                44251,
                "fe80::200:f8ff:fe21:67cf",
                38024,
                0x4b61_e985,
                0x02d1_feef,
            ),
        ];
        for (src, src_port, dst, dst_port, addresses, all) in v6 {
            let [src, dst] = [src, dst].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
            assert_eq!(toeplitz(&PUBLISHED_KEY, &input(&src, &dst, &[])), addresses);
            assert_eq!(toeplitz(&PUBLISHED_KEY, &input(&src, &dst, &[src_port, dst_port])), all);
        }
    }

    fn tuples() -> impl Strategy<Value = Tuple> {
        let protos = prop_oneof![Just(proto::TCP), Just(proto::UDP), Just(proto::SCTP), any::<u8>()];
        (any::<bool>(), any::<u128>(), any::<u128>(), any::<u16>(), any::<u16>(), protos).prop_map(
            |(v6, src, dst, src_port, dst_port, proto)| {
                let (family, mask) = if v6 { (Family::V6, u128::MAX) } else { (Family::V4, 0xffff_ffff) };
                Tuple { src: src & mask, dst: dst & mask, src_port, dst_port, proto, family }
            },
        )
    }

    /// What a NIC hashes of a tuple.
    fn hashed(tuple: &Tuple, with_ports: bool) -> Vec<u8> {
        let ports = if with_ports { vec![tuple.src_port, tuple.dst_port] } else { Vec::new() };
        match tuple.family {
            Family::V4 => {
                let [src, dst] = [tuple.src, tuple.dst].map(|address| u32::try_from(address).unwrap());
                input(&src.to_be_bytes(), &dst.to_be_bytes(), &ports)
            }
            Family::V6 => input(&tuple.src.to_be_bytes(), &tuple.dst.to_be_bytes(), &ports),
        }
    }

    proptest! {
        #[test]
        fn a_bucket_is_what_a_nic_with_this_key_finds(tuple in tuples(), without in 0..6_usize) {
            let fields = Fields::ALL.without(FlowType::ALL[without]);
            let has_ports = matches!(tuple.proto, proto::TCP | proto::UDP | proto::SCTP)
                && FlowType::ALL[without] != FlowType { proto: tuple.proto, family: tuple.family };
            let hash = toeplitz(&symmetric_key(KEY_BYTES), &hashed(&tuple, has_ports));
            prop_assert_eq!(u32::from(bucket(fields, &tuple)), hash & 0xff);
            prop_assert_eq!(hash >> 16, hash & 0xffff, "a key of 16 bits gives a hash of 16 bits");
        }

        #[test]
        fn both_directions_have_one_bucket(tuple in tuples()) {
            let Tuple { src, dst, src_port, dst_port, .. } = tuple;
            let back = Tuple { src: dst, dst: src, src_port: dst_port, dst_port: src_port, ..tuple };
            prop_assert_eq!(bucket(Fields::ALL, &tuple), bucket(Fields::ALL, &back));
        }
    }

    #[test]
    fn neighbouring_flows_spread_over_all_buckets() {
        let mut counts = [0_u32; BUCKETS];
        for client in 0..64_u128 {
            for port in 0..256_u16 {
                let tuple = Tuple {
                    src: 0x0a00_0000 + client,
                    dst: 0xc000_0250,
                    src_port: 32768 + port,
                    dst_port: 443,
                    proto: proto::TCP,
                    family: Family::V4,
                };
                counts[usize::from(bucket(Fields::ALL, &tuple))] += 1;
            }
        }
        assert!(counts.iter().all(|count| *count == 64), "{counts:?}");
    }

    #[test]
    fn a_key_is_as_long_as_the_nic_wants_it() {
        assert_eq!(symmetric_key(5), [0x6d, 0x5a, 0x6d, 0x5a, 0x6d]);
        assert_eq!(symmetric_key(52).len(), 52);
    }
}
