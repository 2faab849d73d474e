//! Room in the table: who may have a record when there are few left. Owner thread only; runs once per new flow.
//!
//! * Half-open flows (not answered, or a TCP handshake not finished) have a budget of their own. When it is used up, a
//!   new one replaces an old one, so a flood of openings turns over its own entries and nobody else's.
//! * A reserve is kept for flows that a rule marked as management accepts: the operator gets in when nobody else does.
//! * When the table is full, flows near the new one's place that are not ASSURED go first, as in the kernel; then the wire's
//!   [`FullPolicy`] decides.
//! * As the table fills, timeouts of flows that are not ASSURED or are closing shrink in proportion to what is free.

use super::record::{Life, Record, Slot, status};
use super::settings::TrackSettings;
use super::tcp::TcpState;
use super::tracker::Tracker;
use crate::clock::Tick;
use crate::packet::Family;

/// Records looked at for one that may be evicted, when there is none near by.
const SWEEP: u32 = 256;

/// What happens to a flow that the table has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FullPolicy {
    /// Its packet is dropped.
    #[default]
    DropNew,
    /// Half-open flows anywhere in the table make room; else its packet is dropped.
    EvictHalfOpen,
    /// Its packet passes, and is forgotten.
    PassUntracked,
}

/// Who asks for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Claim {
    /// What to do if the table is full.
    pub policy: FullPolicy,
    /// Whether the rule that accepted the packet is marked as management.
    pub management: bool,
}

/// One worker's share of the limits, worked out from settings once per poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Limits {
    /// Most flows.
    max: u32,
    /// Most flows for anybody but management.
    ordinary: u32,
    /// Most half-open flows.
    half_open: u32,
    /// Flows from which on timeouts shrink; `u32::MAX` if they never do.
    pub(super) pressure: u32,
}

#[expect(clippy::cast_possible_truncation, reason = "a share of a 32-bit number")]
const fn percent(of: u32, percent: u8) -> u32 {
    (of as u64 * percent as u64 / 100) as u32
}

impl Limits {
    /// `capacity` is what the table was made for, `workers` how many share `settings.max`.
    pub(super) fn new(capacity: u32, workers: usize, settings: &TrackSettings) -> Self {
        let share = settings.max.0.div_ceil(u32::try_from(workers.max(1)).unwrap_or(u32::MAX));
        let max = if share == 0 { capacity } else { share.min(capacity) };
        let reserve = percent(max, settings.management_reserve_percent.min(100));
        let pressure = match settings.adaptive_start_percent {
            from @ 1..100 => percent(max, from),
            _ => u32::MAX,
        };
        Self {
            max,
            ordinary: max - reserve,
            half_open: percent(max, settings.half_open_percent.clamp(1, 100)).max(1),
            pressure,
        }
    }

    /// Most flows there may be for one more to be let in.
    pub(super) const fn for_claim(self, claim: Claim) -> u32 {
        if claim.management { self.max } else { self.ordinary }
    }

    /// A timeout under pressure: what is free above the start of pressure, as a share of it.
    #[cold]
    fn squeeze(self, secs: u32, flows: u32) -> u32 {
        let span = u64::from(self.max.saturating_sub(self.pressure).max(1));
        let free = u64::from(self.max.saturating_sub(flows));
        u32::try_from(u64::from(secs) * free / span).unwrap_or(secs).max(1)
    }
}

impl Life {
    /// Whether it is not worth much: not ASSURED, or a TCP connection that is ending.
    const fn is_weak(self) -> bool {
        !self.has(status::ASSURED)
            || matches!(
                self.tcp_state,
                TcpState::FinWait
                    | TcpState::CloseWait
                    | TcpState::LastAck
                    | TcpState::TimeWait
                    | TcpState::Close
            )
    }
}

impl Tracker {
    /// A flow's timeout as things are.
    #[inline]
    pub(super) fn timeout(&self, life: Life, secs: u32) -> u32 {
        let flows = self.flow_count();
        if flows >= self.limits.pressure && life.is_weak() { self.limits.squeeze(secs, flows) } else { secs }
    }

    /// Makes sure that one more flow may be inserted; false if it may not.
    pub(super) fn make_room(&mut self, hash: u64, claim: Claim, now: Tick) -> bool {
        let half_open = self.limits.half_open;
        if self.flow_count() >= self.limits.for_claim(claim) {
            let may_search = claim.management || claim.policy == FullPolicy::EvictHalfOpen;
            return self.evict(hash, None, now) || may_search && self.sweep(now);
        }
        self.half_open_count() < half_open || self.evict_half_open(hash, now) || self.sweep(now)
    }

    /// Evicts one flow near `hash` that is expired or not ASSURED, of `family` if given. Linux `early_drop`.
    #[cold]
    pub(super) fn evict(&mut self, hash: u64, family: Option<Family>, now: Tick) -> bool {
        let is_fair_game = |slot: Slot, life: Life| {
            family.is_none_or(|family| family == slot.family())
                && (!life.has(status::ASSURED) || life.deadline.is_past(now))
        };
        self.evict_near(hash, now, is_fair_game)
    }

    /// Evicts one half-open flow near `hash`.
    #[cold]
    fn evict_half_open(&mut self, hash: u64, now: Tick) -> bool {
        self.evict_near(hash, now, |_, life| life.is_half_open() && !life.has(status::ASSURED))
    }

    fn evict_near(&mut self, hash: u64, now: Tick, is_fair_game: impl Fn(Slot, Life) -> bool) -> bool {
        let fits = |slot: Slot, record: Record<'_>| is_fair_game(slot, record.common.life());
        let Some(slot) = self.table.find_victim(hash, fits) else { return false };
        self.evict_slot(slot, now)
    }

    /// Evicts the next half-open flow in table order, if there is one within a bounded stretch.
    #[cold]
    fn sweep(&mut self, now: Tick) -> bool {
        for _ in 0..SWEEP {
            let Some(slot) = self.table.next_slot(&mut self.hand) else { return false };
            let Some(record) = self.table.live_record(slot) else { continue };
            let life = record.common.life();
            if life.is_half_open() && !life.has(status::ASSURED) || life.deadline.is_past(now) {
                return self.evict_slot(slot, now);
            }
        }
        false
    }

    fn evict_slot(&mut self, slot: Slot, now: Tick) -> bool {
        let Some(record) = self.table.live_record(slot) else { return false };
        if record.common.life().deadline.is_past(now) {
            self.stats.expired += 1;
        } else {
            self.stats.early_drop += 1;
        }
        self.remove_entry(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::settings::Count;

    #[test]
    fn limits_are_shares_of_what_a_worker_may_hold() {
        let settings = TrackSettings {
            max: Count(1000),
            half_open_percent: 25,
            management_reserve_percent: 2,
            adaptive_start_percent: 90,
            ..TrackSettings::default()
        };
        let limits = Limits::new(10_000, 2, &settings);
        assert_eq!(limits, Limits { max: 500, ordinary: 490, half_open: 125, pressure: 450 });
        assert_eq!(limits.squeeze(100, 450), 100);
        assert_eq!(limits.squeeze(100, 475), 50);
        assert_eq!(limits.squeeze(100, 500), 1);
        let all = Limits::new(64, 1, &TrackSettings { max: Count(0), ..settings });
        assert_eq!(all.max, 64);
    }
}
