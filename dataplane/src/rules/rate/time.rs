//! `-m time`: the clock on the wall. Linux `xt_time.c`. Worker thread; no state.

/// Seconds of a day.
const DAY: i64 = 86_400;

/// `-m time`: all that one of them asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeMatch {
    /// Seconds since 1970, inclusive.
    pub dates: (u32, u32),
    /// Seconds of the day, inclusive. From a later one to an earlier one is over midnight.
    pub daytimes: (u32, u32),
    /// Days of the month, bits 1 to 31.
    pub monthdays: u32,
    /// Days of the week, bits 1 (Monday) to 7.
    pub weekdays: u8,
    /// `--kerneltz`: by the kernel's time zone instead of UTC.
    pub kernel_tz: bool,
    /// `--contiguous`: what begins before midnight belongs to that day until it ends.
    pub contiguous: bool,
}

impl TimeMatch {
    /// Every day of the month.
    pub const ALL_MONTHDAYS: u32 = 0xffff_fffe;
    /// Every day of the week.
    pub const ALL_WEEKDAYS: u8 = 0xfe;

    /// Whether it holds at a second since 1970, where the kernel's zone is so many minutes west of Greenwich.
    pub(super) fn holds(&self, secs: i64, minutes_west: i32) -> bool {
        let mut stamp = if self.kernel_tz { secs - 60 * i64::from(minutes_west) } else { secs };
        if stamp < i64::from(self.dates.0) || stamp > i64::from(self.dates.1) {
            return false;
        }
        let daytime = stamp.rem_euclid(DAY);
        let (from, to) = (i64::from(self.daytimes.0), i64::from(self.daytimes.1));
        if from < to {
            if !(from..=to).contains(&daytime) {
                return false;
            }
        } else {
            if daytime < from && daytime > to {
                return false;
            }
            if self.contiguous && daytime <= to {
                stamp -= DAY;
            }
        }
        let days = stamp.div_euclid(DAY);
        // The first day of 1970 was a Thursday.
        let weekday = (days + 3).rem_euclid(7) + 1;
        self.weekdays >> weekday & 1 != 0
            && (self.monthdays == Self::ALL_MONTHDAYS || self.monthdays >> monthday(days) & 1 != 0)
    }
}

/// Day of the month, from 1, so many days after the first of 1970: counted in cycles of 400 years from a first of March
/// (H. Hinnant, "chrono-compatible low-level date algorithms").
const fn monthday(days: i64) -> i64 {
    let of_cycle = (days + 719_468).rem_euclid(146_097);
    let year = (of_cycle - of_cycle / 1460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    of_year - (153 * month + 2) / 5 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALWAYS: TimeMatch = TimeMatch {
        dates: (0, i32::MAX as u32),
        daytimes: (0, 86_399),
        monthdays: TimeMatch::ALL_MONTHDAYS,
        weekdays: TimeMatch::ALL_WEEKDAYS,
        kernel_tz: false,
        contiguous: false,
    };

    #[test]
    fn days_of_month_and_week_are_those_of_the_calendar() {
        // 29 February 2024 was a Thursday, 1 March a Friday.
        for (day, monthday, weekday) in [(19_782, 29, 4), (19_783, 1, 5), (0, 1, 4), (11_016, 29, 2)] {
            let only = TimeMatch { monthdays: 1 << monthday, weekdays: 1 << weekday, ..ALWAYS };
            assert!(only.holds(day * DAY + 5, 0), "day {day}");
            assert!(!only.holds((day + 1) * DAY, 0));
            assert!(!only.holds(day * DAY - 1, 0));
        }
    }

    #[test]
    fn daytimes_may_go_over_midnight_and_then_belong_to_the_day_they_began() {
        let night = TimeMatch { daytimes: (23 * 3600, 3600), weekdays: 1 << 4, ..ALWAYS };
        let contiguous = TimeMatch { contiguous: true, ..night };
        // Thursday 0:30 and 23:30, Friday 0:30.
        let at = [1800, 84_600, DAY + 1800];
        assert_eq!(at.map(|secs| night.holds(secs, 0)), [true, true, false]);
        assert_eq!(at.map(|secs| contiguous.holds(secs, 0)), [false, true, true]);
        assert!(!night.holds(12 * 3600, 0));
    }

    #[test]
    fn ends_belong_to_ranges_and_zones_shift_them() {
        let hour = TimeMatch { daytimes: (3600, 7200), ..ALWAYS };
        assert_eq!([3599, 3600, 7200, 7201].map(|secs| hour.holds(secs, 0)), [false, true, true, false]);
        let local = TimeMatch { kernel_tz: true, ..hour };
        assert!(local.holds(0, -60) && !local.holds(0, 60));
        let dates = TimeMatch { dates: (100, 200), ..ALWAYS };
        assert_eq!([99, 100, 200, 201].map(|secs| dates.holds(secs, 0)), [false, true, true, false]);
    }
}
