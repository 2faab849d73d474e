//! The clock on the wall beside the workers' clock.

use dataplane::clock::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the clock on the wall shows at moments of the workers' clock. Read once for several moments, so that they are apart
/// as they were; read again now and then, since somebody may set it.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallClock {
    /// Since 1970, at the zero of the workers' clock.
    zero: Duration,
}

impl WallClock {
    /// Reads both clocks. `started` is the workers' zero.
    pub(super) fn read(started: Instant) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { zero: since_1970.saturating_sub(started.elapsed()) }
    }

    /// Since 1970.
    pub(super) fn at(self, then: Now) -> Duration {
        self.zero + Duration::from_nanos(then.nanos)
    }

    /// Microseconds since 1970.
    pub(super) fn micros(self, then: Now) -> u64 {
        u64::try_from(self.at(then).as_micros()).unwrap_or(u64::MAX)
    }
}
