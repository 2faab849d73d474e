//! The instruction sets: which there are, and the few functions that use them. With the request for large pages the only
//! unsafe code of the classifier.
//!
//! Each lookup is compiled once per level, as a function for which the compiler may use the level's instructions and
//! into which the generic code of `lookup` is inlined. The invariant: a function of a level runs only if
//! [`Level::best`] has found its instructions, for a [`super::Classifier`] never has a higher level.

#![allow(unsafe_code, reason = "vector instructions")]

use super::Cursor;
use super::block::{Block, LANES, Probe};
use super::forest::Forest;
use super::lookup::{self, Kernel};
use super::ternary::Words;

/// Instructions a classifier may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// None beyond the language.
    Portable,
    /// AVX2, and bits packed without BMI2: for processors that do that in microcode, bit by bit.
    Avx2Plain,
    /// AVX2, BMI1 and BMI2.
    Avx2,
    /// AVX-512 F, BW, DQ and VL on top.
    Avx512,
}

impl Level {
    /// The best this processor has.
    #[must_use]
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if !is_x86_feature_detected!("avx2") {
                return Self::Portable;
            }
            if !is_x86_feature_detected!("bmi1") || !is_x86_feature_detected!("bmi2") || x86::packs_slowly() {
                return Self::Avx2Plain;
            }
            let has_512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if has_512 { Self::Avx512 } else { Self::Avx2 }
        }
        #[cfg(not(target_arch = "x86_64"))]
        Self::Portable
    }

    #[inline]
    pub(super) fn first<const A: usize>(self, forest: &Forest<A>, keys: &[Words<A>], found: &mut [u32]) {
        match self {
            Self::Portable => lookup::first::<Plain, A>(forest, keys, found),
            // SAFETY: a classifier's level is at most what `Level::best` has found this processor to have.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Plain => unsafe { x86::first_avx2_plain(forest, keys, found) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::first_avx2(forest, keys, found) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::first_avx512(forest, keys, found) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("no such level here"),
        }
    }

    #[inline]
    pub(super) fn find<const A: usize>(self, forest: &Forest<A>, key: &Words<A>) -> Cursor {
        match self {
            Self::Portable | Self::Avx2Plain => lookup::find::<Plain, A>(forest, key),
            // SAFETY: as in `first`.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 | Self::Avx512 => unsafe { x86::find_bmi2(forest, key) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("no such level here"),
        }
    }

    #[inline]
    pub(super) fn next<const A: usize>(self, forest: &Forest<A>, cursor: &mut Cursor, from: u32) -> u32 {
        match self {
            Self::Portable => lookup::next::<Plain, A>(forest, cursor, from),
            // SAFETY: as in `first`.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Plain | Self::Avx2 => unsafe { x86::next_avx2(forest, cursor, from) },
            // SAFETY: as in `first`.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::next_avx512(forest, cursor, from) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => unreachable!("no such level here"),
        }
    }
}

/// Asks the kernel to put what lies in memory for long onto large pages: random reads then miss the TLB less. Where it
/// cannot, nothing changes.
pub(super) fn settle<T>(of: &[T]) {
    const LARGE: usize = 2 << 20;
    let bytes = of.as_ptr_range();
    let (start, end) = (bytes.start.addr().next_multiple_of(LARGE), bytes.end.addr() / LARGE * LARGE);
    if start < end {
        let at = of.as_ptr().cast::<u8>().wrapping_add(start - bytes.start.addr());
        // SAFETY: the range lies within the slice, which is mapped; the call moves its pages and changes no byte.
        unsafe { libc::madvise(at.cast_mut().cast(), end - start, libc::MADV_COLLAPSE) };
    }
}

/// The plain form.
#[derive(Debug)]
pub(super) struct Plain;

impl Kernel for Plain {
    #[inline]
    fn extract(word: u64, mask: u64) -> u64 {
        let (mut mask, mut packed, mut place) = (mask, 0, 0);
        while mask != 0 {
            packed |= (word >> mask.trailing_zeros() & 1) << place;
            place += 1;
            mask &= mask - 1;
        }
        packed
    }

    #[inline]
    fn hits<const A: usize>(block: &Block<A>, probe: &Probe<A>) -> u32 {
        block.plain_hits(probe)
    }

    #[inline]
    fn from<const A: usize>(block: &Block<A>, from: u32) -> u32 {
        (0..LANES).fold(0, |lanes, lane| lanes | u32::from(block.ids[lane] >= from) << lane)
    }

    #[inline]
    fn prefetch<T>(_: &T, _: usize) {}
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;
    use std::arch::x86_64::*;

    /// Whether this is one of AMD's processors before its family 0x19 (Zen 3).
    pub(super) fn packs_slowly() -> bool {
        let vendor = __cpuid(0);
        let family = __cpuid(1).eax;
        let family = (family >> 8 & 0xf) + (family >> 20 & 0xff);
        // "AuthenticAMD"
        (vendor.ebx, vendor.edx, vendor.ecx) == (0x6874_7541, 0x6974_6e65, 0x444d_4163) && family < 0x19
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn first_avx2_plain<const A: usize>(forest: &Forest<A>, keys: &[Words<A>], found: &mut [u32]) {
        lookup::first::<Avx2<false>, A>(forest, keys, found);
    }

    #[target_feature(enable = "avx2,bmi1,bmi2")]
    pub(super) fn first_avx2<const A: usize>(forest: &Forest<A>, keys: &[Words<A>], found: &mut [u32]) {
        lookup::first::<Avx2<true>, A>(forest, keys, found);
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn first_avx512<const A: usize>(forest: &Forest<A>, keys: &[Words<A>], found: &mut [u32]) {
        lookup::first::<Avx512, A>(forest, keys, found);
    }

    #[target_feature(enable = "avx2,bmi1,bmi2")]
    pub(super) fn find_bmi2<const A: usize>(forest: &Forest<A>, key: &Words<A>) -> Cursor {
        lookup::find::<Avx2<true>, A>(forest, key)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn next_avx2<const A: usize>(forest: &Forest<A>, cursor: &mut Cursor, from: u32) -> u32 {
        lookup::next::<Avx2<false>, A>(forest, cursor, from)
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn next_avx512<const A: usize>(forest: &Forest<A>, cursor: &mut Cursor, from: u32) -> u32 {
        lookup::next::<Avx512, A>(forest, cursor, from)
    }

    /// With or without BMI2.
    #[derive(Debug)]
    struct Avx2<const BMI2: bool>;

    #[derive(Debug)]
    struct Avx512;

    impl<const BMI2: bool> Kernel for Avx2<BMI2> {
        #[inline(always)]
        fn extract(word: u64, mask: u64) -> u64 {
            if !BMI2 {
                return Plain::extract(word, mask);
            }
            // SAFETY: only functions with BMI2 enabled use this kernel so, and they run only where it is.
            unsafe { _pext_u64(word, mask) }
        }

        #[inline(always)]
        fn hits<const A: usize>(block: &Block<A>, probe: &Probe<A>) -> u32 {
            // SAFETY: only functions with AVX2 enabled use this kernel, and they run only where it is. Each load reads
            // 32 bytes at 0 or 32 of an array of 64 bytes, or the whole of one of 32 bytes.
            unsafe {
                let load = |at: *const u64, half: usize| _mm256_loadu_si256(at.add(4 * half).cast());
                let ports = _mm256_set1_epi64x(probe.ports.cast_signed());
                let zero = _mm256_setzero_si256();
                let mut same = 0;
                for half in 0..2 {
                    let mut wrong = _mm256_subs_epu16(load(block.ports.as_ptr(), half), ports);
                    for word in 0..A {
                        let addr = _mm256_set1_epi64x(probe.addr[word].cast_signed());
                        let differs = _mm256_xor_si256(load(block.value[word].as_ptr(), half), addr);
                        let mask = load(block.mask[word].as_ptr(), half);
                        wrong = _mm256_or_si256(wrong, _mm256_and_si256(differs, mask));
                    }
                    let right = _mm256_castsi256_pd(_mm256_cmpeq_epi64(wrong, zero));
                    same |= _mm256_movemask_pd(right) << (4 * half);
                }
                let rules = _mm256_loadu_si256(block.proto.as_ptr().cast());
                let other = _mm256_subs_epu8(rules, _mm256_set1_epi32(probe.proto.cast_signed()));
                let refused = _mm256_and_si256(rules, _mm256_set1_epi32(probe.facts.cast_signed()));
                let right = _mm256_cmpeq_epi32(_mm256_or_si256(other, refused), zero);
                (same & _mm256_movemask_ps(_mm256_castsi256_ps(right))).cast_unsigned()
            }
        }

        #[inline(always)]
        fn from<const A: usize>(block: &Block<A>, from: u32) -> u32 {
            // SAFETY: as in `hits`.
            unsafe {
                let ids = _mm256_loadu_si256(block.ids.as_ptr().cast());
                let from = _mm256_set1_epi32(from.cast_signed());
                let reached = _mm256_cmpeq_epi32(_mm256_max_epu32(ids, from), ids);
                _mm256_movemask_ps(_mm256_castsi256_ps(reached)).cast_unsigned()
            }
        }

        #[inline(always)]
        fn prefetch<T>(at: &T, line: usize) {
            prefetch(at, line);
        }
    }

    impl Kernel for Avx512 {
        #[inline(always)]
        fn extract(word: u64, mask: u64) -> u64 {
            Avx2::<true>::extract(word, mask)
        }

        #[inline(always)]
        fn hits<const A: usize>(block: &Block<A>, probe: &Probe<A>) -> u32 {
            // SAFETY: only functions with these parts of AVX-512 enabled use this kernel, and they run only where they
            // are. Each load reads the whole of an array of 64 or of 32 bytes.
            unsafe {
                let load = |at: &[u64; LANES]| _mm512_loadu_si512(at.as_ptr().cast());
                let ports = _mm512_set1_epi64(probe.ports.cast_signed());
                let mut wrong = _mm512_subs_epu16(load(&block.ports), ports);
                for word in 0..A {
                    let addr = _mm512_set1_epi64(probe.addr[word].cast_signed());
                    let differs = _mm512_xor_si512(load(&block.value[word]), addr);
                    // wrong | differs & mask
                    wrong = _mm512_ternarylogic_epi64::<0xf8>(wrong, differs, load(&block.mask[word]));
                }
                let rules = _mm256_loadu_si256(block.proto.as_ptr().cast());
                let other = _mm256_subs_epu8(rules, _mm256_set1_epi32(probe.proto.cast_signed()));
                let facts = _mm256_set1_epi32(probe.facts.cast_signed());
                let refused = _mm256_ternarylogic_epi32::<0xf8>(other, rules, facts);
                let right = _mm512_testn_epi64_mask(wrong, wrong);
                u32::from(_mm256_mask_testn_epi32_mask(right, refused, refused))
            }
        }

        #[inline(always)]
        fn from<const A: usize>(block: &Block<A>, from: u32) -> u32 {
            // SAFETY: as in `hits`.
            unsafe {
                let ids = _mm256_loadu_si256(block.ids.as_ptr().cast());
                u32::from(_mm256_cmpge_epu32_mask(ids, _mm256_set1_epi32(from.cast_signed())))
            }
        }

        #[inline(always)]
        fn prefetch<T>(at: &T, line: usize) {
            prefetch(at, line);
        }
    }

    #[inline(always)]
    fn prefetch<T>(at: &T, line: usize) {
        // SAFETY: SSE is part of every x86-64; a prefetch reads nothing the program could see, at any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast::<i8>().wrapping_add(line * 64)) }
    }
}
