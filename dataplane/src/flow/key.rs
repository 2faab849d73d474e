//! What a flow is known by: the inverse of a tuple, and a keyed hash that is the same for both. Pure functions.
//!
//! The hash must be the same for a tuple and its inverse, so that one index entry serves both directions; and it must not
//! be predictable, or a flood could be aimed at one bucket. Endpoints are mixed by a 64x64->128-bit multiplication whose
//! operands are masked by secret words (the construction of wyhash and foldhash, with all keys secret) and whose halves
//! are folded together. Not a cryptographic hash: it is meant to hold against senders who see no more than forwarding
//! delays.

use crate::packet::{Family, Tuple, proto};
use crate::wire::icmp;
use std::hash::{BuildHasher, RandomState};

/// The secret of one process; all its workers share it, because the hash may also say which of them owns a flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u64; 4]);

impl Seed {
    /// A new secret, from the operating system's randomness (through the standard library's keyed hasher).
    #[must_use]
    pub fn random() -> Self {
        let state = RandomState::new();
        Self(std::array::from_fn(|i| state.hash_one(i)))
    }
}

impl std::fmt::Debug for Seed {
    /// Prints nothing of the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// The `type << 8 | code` word that the other direction of an ICMP query carries; `None` if `word` is no query.
pub(super) fn icmp_inverse(family: Family, word: u16) -> Option<u16> {
    let [ty, code] = word.to_be_bytes();
    let proto = match family {
        Family::V4 => proto::ICMP,
        Family::V6 => proto::ICMPV6,
    };
    let other = icmp::counterpart(proto, ty)?;
    Some(u16::from_be_bytes([other, code]))
}

/// Whether `proto` is the ICMP of that family: its ports are an identifier and a type, which do not swap.
pub(super) const fn is_icmp(family: Family, proto: u8) -> bool {
    match family {
        Family::V4 => proto == proto::ICMP,
        Family::V6 => proto == proto::ICMPV6,
    }
}

/// The tuple of the other direction. An ICMP tuple that is no query is its own inverse but for the addresses; such
/// a tuple is never in the table.
#[inline]
pub(crate) fn inverse(tuple: &Tuple) -> Tuple {
    let (src_port, dst_port) = if is_icmp(tuple.family, tuple.proto) {
        (tuple.src_port, icmp_inverse(tuple.family, tuple.dst_port).unwrap_or(tuple.dst_port))
    } else {
        (tuple.dst_port, tuple.src_port)
    };
    Tuple { src: tuple.dst, dst: tuple.src, src_port, dst_port, ..*tuple }
}

/// Multiplies to 128 bits and folds the halves together.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves are what is wanted")]
const fn fold(a: u64, b: u64) -> u64 {
    let wide = a as u128 * b as u128;
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// Spreads what a multiplication by an unlucky key leaves lopsided: without it, one random seed in some hundreds puts
/// three quarters of neighbouring tuples on one side of a bit. Half of MurmurHash3's finaliser.
#[inline]
const fn finish(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ hash >> 33
}

/// Hash of the flow `tuple` belongs to: the same for both directions. Its low 48 bits say where the flow stands in its
/// worker's table; the highest may say which worker that is.
#[must_use]
#[inline]
pub fn flow_hash(seed: &Seed, tuple: &Tuple) -> u64 {
    if tuple.family == Family::V4 && tuple.proto != proto::ICMP {
        return hash_v4(seed, (tuple.src, tuple.src_port), (tuple.dst, tuple.dst_port), tuple.proto.into());
    }
    any_flow_hash(seed, tuple)
}

/// [`flow_hash`] of any tuple.
#[inline(never)]
fn any_flow_hash(seed: &Seed, tuple: &Tuple) -> u64 {
    let icmp = is_icmp(tuple.family, tuple.proto);
    // ICMP: the identifier stands at both ends, and the smaller of the two types speaks for the pair.
    let (src_port, dst_port, kind) = if icmp {
        let inverse = icmp_inverse(tuple.family, tuple.dst_port).unwrap_or(tuple.dst_port);
        (tuple.src_port, tuple.src_port, tuple.dst_port.min(inverse))
    } else {
        (tuple.src_port, tuple.dst_port, 0)
    };
    let tail = u64::from(tuple.proto) | u64::from(kind) << 8;
    match tuple.family {
        Family::V4 => hash_v4(seed, (tuple.src, src_port), (tuple.dst, dst_port), tail),
        Family::V6 => hash_v6(seed, (tuple.src, src_port), (tuple.dst, dst_port), tail),
    }
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "an IPv4 address is in the low 32 bits")]
fn hash_v4(seed: &Seed, a: (u128, u16), b: (u128, u16), tail: u64) -> u64 {
    let Seed([k0, k1, ..]) = *seed;
    let a = (a.0 as u64) << 16 | u64::from(a.1);
    let b = (b.0 as u64) << 16 | u64::from(b.1);
    // Both ends under one key, because a product does not ask which came first.
    finish(fold(a ^ k0, b ^ k0) ^ tail.wrapping_mul(k1 | 1))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves of an IPv6 address")]
fn hash_v6(seed: &Seed, a: (u128, u16), b: (u128, u16), tail: u64) -> u64 {
    let Seed([k0, k1, k2, k3]) = *seed;
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let first = fold((low.0 >> 64) as u64 ^ k0, low.0 as u64 ^ k1);
    let second = fold((high.0 >> 64) as u64 ^ k2, high.0 as u64 ^ k3);
    let ports = u64::from(low.1) << 32 | u64::from(high.1) << 48 | tail;
    // Rotated, so that equal endpoints do not cancel.
    finish(fold(first ^ second.rotate_left(23) ^ k0.rotate_left(32), ports ^ k2.rotate_left(32)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tuples() -> impl Strategy<Value = Tuple> {
        (any::<bool>(), any::<u128>(), any::<u128>(), any::<u16>(), any::<u16>(), any::<u8>()).prop_map(
            |(v6, src, dst, src_port, dst_port, proto)| {
                let (family, mask) = if v6 { (Family::V6, u128::MAX) } else { (Family::V4, 0xffff_ffff) };
                Tuple { src: src & mask, dst: dst & mask, src_port, dst_port, proto, family }
            },
        )
    }

    fn echo(family: Family, ty: u8) -> Tuple {
        let proto = if family == Family::V4 { proto::ICMP } else { proto::ICMPV6 };
        Tuple { src: 7, dst: 9, src_port: 77, dst_port: u16::from(ty) << 8 | 3, proto, family }
    }

    proptest! {
        #[test]
        fn inverting_twice_gives_the_same_tuple(tuple in tuples()) {
            prop_assert_eq!(inverse(&inverse(&tuple)), tuple);
        }

        #[test]
        fn both_directions_hash_alike(tuple in tuples(), seed in any::<[u64; 4]>()) {
            prop_assert_eq!(flow_hash(&Seed(seed), &tuple), flow_hash(&Seed(seed), &inverse(&tuple)));
        }
    }

    #[test]
    fn an_icmp_query_keeps_its_identifier_and_code_when_inverted() {
        let seed = Seed::random();
        for (family, ask, answer) in [
            (Family::V4, 8_u8, 0_u8),
            (Family::V4, 13, 14),
            (Family::V4, 15, 16),
            (Family::V4, 17, 18),
            (Family::V6, 128, 129),
            (Family::V6, 139, 140),
        ] {
            let there = echo(family, ask);
            let back = inverse(&there);
            assert_eq!((back.src, back.dst, back.src_port), (9, 7, 77));
            assert_eq!(back.dst_port, u16::from(answer) << 8 | 3);
            assert_eq!(flow_hash(&seed, &there), flow_hash(&seed, &back));
        }
    }

    #[test]
    fn hashes_of_neighbouring_tuples_spread_over_all_bits() {
        let neighbours: [fn(u16, Family) -> Tuple; 4] = [
            |i, family| Tuple { src: 1, dst: 2, src_port: i, dst_port: 443, proto: 6, family },
            |i, family| Tuple { src: i.into(), dst: 2, src_port: 9, dst_port: 443, proto: 6, family },
            |i, family| Tuple { src: i.into(), dst: i.into(), src_port: 9, dst_port: 443, proto: 17, family },
            |i, family| Tuple { src: 1, dst: 2, src_port: i, dst_port: !i, proto: 17, family },
        ];
        for (round, family) in [Family::V4, Family::V6].repeat(1000).into_iter().enumerate() {
            let seed = Seed::random();
            let mut seen = std::collections::HashSet::new();
            let mut ones = [0_u32; 64];
            for i in 0..4096_u16 {
                let hash = flow_hash(&seed, &neighbours[round / 2 % 4](i, family));
                assert!(seen.insert(hash));
                for (bit, count) in ones.iter_mut().enumerate() {
                    *count += u32::from(hash >> bit & 1 == 1);
                }
            }
            assert!(ones.iter().all(|&n| (1700..2400).contains(&n)), "{ones:?}");
        }
    }

    #[test]
    fn who_speaks_to_which_port_matters() {
        let seed = Seed::random();
        for family in [Family::V4, Family::V6] {
            let tuple = Tuple { src: 1, dst: 2, src_port: 3, dst_port: 4, proto: 6, family };
            let crossed = Tuple { src_port: 4, dst_port: 3, ..tuple };
            let other = Tuple { proto: 17, ..tuple };
            assert_ne!(flow_hash(&seed, &tuple), flow_hash(&seed, &crossed));
            assert_ne!(flow_hash(&seed, &tuple), flow_hash(&seed, &other));
        }
    }

    #[test]
    fn a_random_seed_does_not_repeat_and_is_not_printed() {
        assert_ne!(Seed::random(), Seed::random());
        assert_eq!(format!("{:?}", Seed::random()), "Seed(..)");
    }
}
