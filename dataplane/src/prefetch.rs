//! Asking the cache for memory before it is needed. Any thread; a hint that changes nothing but time.
#![allow(unsafe_code, reason = "the hint is an intrinsic")]

/// Into the second level of cache. Some processors have too few fill buffers of the first level for a burst's lines and
/// drop what does not fit: all into the first level, packets of 1 million flows cost 101 ns instead of 42, of 10 million
/// 83 instead of 52 (`./scripts/bench figures --only conntrack` on an AMD EPYC).
pub(crate) const FAR: i32 = 2;

/// Into the first level.
pub(crate) const NEAR: i32 = 3;

/// Asks for every line of a value, or for that one line if `bytes` is 1.
#[inline]
pub(crate) fn prefetch<const LEVEL: i32>(start: *const u8, bytes: usize) {
    for offset in (0..bytes).step_by(64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch of any address is harmless, and SSE is part of every x86-64.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<LEVEL>(start.wrapping_add(offset).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (start, offset);
    }
}
