//! Time as the packet path sees it: a number handed in once per burst. Only the worker's thread (or a test) reads
//! a real clock; everything below takes [`Now`] as an argument, so tests and capture replays bring their own.

use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};

/// Nanoseconds on a monotonic clock whose zero is arbitrary but shared by the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Now {
    /// Nanoseconds since the clock's zero.
    pub nanos: u64,
}

/// Flow records keep time in ticks of this many nanoseconds (10 ms): fine enough for the shortest netfilter
/// timeout (1 s), and 32 bits of them last 497 days between wraps.
pub const TICK_NANOS: u64 = 10_000_000;

/// Ticks per second.
pub const TICKS_PER_SEC: u32 = 100;

/// A moment in ticks. Wraps; compare with [`Tick::is_past`], never with `<`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tick(pub u32);

impl Now {
    /// The moment `secs` seconds after the clock's zero.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self { nanos: secs * 1_000_000_000 }
    }

    /// Time passed since `started`, the clock's zero. Reads the clock; for threads, not for what they call.
    #[must_use]
    pub fn since(started: std::time::Instant) -> Self {
        Self { nanos: u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX) }
    }

    /// The same moment in ticks.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "ticks wrap by design")]
    pub const fn tick(self) -> Tick {
        Tick((self.nanos / TICK_NANOS) as u32)
    }

    /// The moment `nanos` nanoseconds later.
    #[must_use]
    pub const fn plus_nanos(self, nanos: u64) -> Self {
        Self { nanos: self.nanos.saturating_add(nanos) }
    }
}

/// What the clock on the wall shows beside a process's own: how far it is ahead, set by control now and then, read by
/// workers without a system call. Follows when somebody sets the clock.
#[derive(Debug, Default)]
pub struct WallClock {
    /// Nanoseconds since 1970 at the own clock's zero.
    ahead: AtomicI64,
    /// The kernel's time zone, in minutes west of Greenwich.
    minutes_west: AtomicI32,
}

impl WallClock {
    /// At `now` it is so many nanoseconds after 1970, in the kernel's zone of so many minutes west of Greenwich.
    pub fn set(&self, now: Now, unix_nanos: i64, minutes_west: i32) {
        self.ahead.store(unix_nanos.saturating_sub_unsigned(now.nanos), Ordering::Relaxed);
        self.minutes_west.store(minutes_west, Ordering::Relaxed);
    }

    /// Whole seconds since 1970, UTC.
    #[must_use]
    pub fn secs(&self, now: Now) -> i64 {
        self.ahead.load(Ordering::Relaxed).saturating_add_unsigned(now.nanos).div_euclid(1_000_000_000)
    }

    /// The kernel's time zone, in minutes west of Greenwich.
    #[must_use]
    pub fn minutes_west(&self) -> i32 {
        self.minutes_west.load(Ordering::Relaxed)
    }
}

impl Tick {
    /// The moment `secs` seconds later. `secs` must stay below half the wrap, 248 days.
    #[must_use]
    pub const fn plus_secs(self, secs: u32) -> Self {
        Self(self.0.wrapping_add(secs.wrapping_mul(TICKS_PER_SEC)))
    }

    /// Whether this moment is at or before `now`.
    #[must_use]
    pub const fn is_past(self, now: Self) -> bool {
        now.0.wrapping_sub(self.0) < 1 << 31
    }

    /// Whole seconds from `now` until this moment, rounded down as `conntrack -L` prints them; 0 when past.
    #[must_use]
    pub const fn secs_from(self, now: Self) -> u32 {
        if self.is_past(now) { 0 } else { self.0.wrapping_sub(now.0) / TICKS_PER_SEC }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_survive_the_wrap() {
        let now = Tick(u32::MAX - 10);
        let later = now.plus_secs(5);
        assert!(!later.is_past(now));
        assert!(now.is_past(later));
        assert_eq!(later.secs_from(now), 5);
        assert_eq!(now.secs_from(later), 0);
    }
}
