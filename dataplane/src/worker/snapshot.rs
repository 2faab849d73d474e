//! What control tells workers: an immutable [`Snapshot`] of rules and settings, handed over through a [`Mailbox`].
//!
//! Control builds a snapshot off the path and publishes it; each worker adopts it between two bursts. Control keeps
//! every published snapshot until all workers have moved on, so the last reference is always dropped, and its memory
//! freed, on control.

use super::IdlePolicy;
use super::tap::Tap;
use crate::clock::WallClock;
use crate::flow::{FullPolicy, Policies, Tenure, TrackSettings};
use crate::ids::{Generation, PORTS_MAX, WorkerId};
use crate::packet::Family;
use crate::rules::{Compiled, RuleCounters};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Rules and settings as of one generation. Snapshots that differ in their settings share their rules.
#[derive(Debug)]
pub struct Snapshot {
    /// Which generation this is.
    pub generation: Generation,
    /// The IPv4 rules.
    pub v4: Arc<FamilyRules>,
    /// The IPv6 rules.
    pub v6: Arc<FamilyRules>,
    /// Everything else a worker has to know.
    pub settings: Settings,
}

/// One family's rules, ready to run.
#[derive(Debug)]
pub struct FamilyRules {
    /// Generation they came with: what verdicts cached in flows are of.
    pub since: Generation,
    /// Generation of the oldest rules whose flows go on whatever these say; `since` if none do.
    pub kept_from: Generation,
    /// The compiled form.
    pub compiled: Compiled,
    /// Rule counters, one set per worker, written by that worker only.
    pub counters: Box<[RuleCounters]>,
    /// Whether packets of this family are tracked: the ruleset asks for a connection state, or tracking is always on.
    pub track: bool,
}

/// Settings that workers read.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Connection tracking timeouts and switches.
    pub track: TrackSettings,
    /// Timeout policies over them.
    pub policies: Policies,
    /// Which non-IP frames pass.
    pub l2: L2Policy,
    /// ICMP errors that REJECT may send, per worker.
    pub answers: AnswerRate,
    /// What the clock on the wall shows.
    pub wall: Arc<WallClock>,
    /// What happens to new flows when the table is full, by wire.
    pub full: [FullPolicy; PORTS_MAX / 2],
    /// What to do when no packet comes; `None`: what the worker was started with.
    pub idle: Option<IdlePolicy>,
    /// Who looks at packets, [`super::tap::TAPS_MAX`] at most.
    pub taps: Arc<[Arc<Tap>]>,
}

/// Non-IP frames that are forwarded. A Linux bridge passes all of them, and that is the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L2Policy {
    /// Every EtherType.
    All,
    /// These EtherTypes only, sorted; [`L2Policy::LLC`] stands for all 802.3 length frames.
    Only(Box<[u16]>),
}

/// How fast ICMP errors are sent: `per_sec` on average, `burst` at once. Linux: `icmp_msgs_per_sec`, `icmp_msgs_burst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerRate {
    /// Errors per second; 0 means no limit.
    pub per_sec: u32,
    /// Errors in one burst.
    pub burst: u32,
}

impl L2Policy {
    /// Stands for every 802.3 length (LLC, SNAP) frame in a list.
    pub const LLC: u16 = 0;

    /// Whether a frame with this EtherType (or 802.3 length) may pass.
    #[inline]
    #[must_use]
    pub fn passes(&self, ethertype: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(list) => {
                let wanted = if ethertype <= 1500 { Self::LLC } else { ethertype };
                list.binary_search(&wanted).is_ok()
            }
        }
    }
}

impl Default for AnswerRate {
    fn default() -> Self {
        Self { per_sec: 1000, burst: 50 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            track: TrackSettings::default(),
            policies: Policies::default(),
            l2: L2Policy::All,
            answers: AnswerRate::default(),
            wall: Arc::default(),
            full: [FullPolicy::default(); PORTS_MAX / 2],
            idle: None,
            taps: Arc::default(),
        }
    }
}

impl FamilyRules {
    /// Wraps compiled rules, which come with generation `since`, for `workers` workers.
    #[must_use]
    pub fn new(compiled: Compiled, since: Generation, workers: usize, track_always: bool) -> Self {
        let counters = (0..workers).map(|_| RuleCounters::new(compiled.line_count())).collect();
        let track = track_always || compiled.uses_conntrack();
        Self { since, kept_from: since, compiled, counters, track }
    }

    /// The same, but flows that the rules `before` let pass go on.
    #[must_use]
    pub fn keeping_flows_of(self, before: &Self) -> Self {
        let Tenure { kept_from, .. } = before.tenure().after(self.since);
        // A flow is known only as long as packets are tracked.
        Self { kept_from, track: self.track || before.track, ..self }
    }

    /// Whose word on flows holds.
    #[must_use]
    #[inline]
    pub const fn tenure(&self) -> Tenure {
        Tenure { since: self.since, kept_from: self.kept_from }
    }
}

impl Snapshot {
    /// The rules of one family.
    #[must_use]
    pub fn rules(&self, family: Family) -> &Arc<FamilyRules> {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Whether the rules of either family speak of labels: for flows of both, as in the kernel.
    #[must_use]
    #[inline]
    pub fn asks_labels(&self) -> bool {
        self.v4.compiled.asks_labels() || self.v6.compiled.asks_labels()
    }
}

/// Where control leaves the newest snapshot and workers say which one they run.
#[derive(Debug)]
pub struct Mailbox {
    newest: ArcSwap<Snapshot>,
    /// Generation of `newest`: what workers look at every poll, one relaxed load.
    generation: AtomicU32,
    adopted: Box<[AtomicU32]>,
}

impl Mailbox {
    /// A mailbox holding `first`, for `workers` workers.
    #[must_use]
    pub fn new(first: Snapshot, workers: usize) -> Self {
        let generation = first.generation.0;
        Self {
            newest: ArcSwap::from_pointee(first),
            generation: AtomicU32::new(generation),
            adopted: (0..workers).map(|_| AtomicU32::new(generation)).collect(),
        }
    }

    /// Offers `next` to the workers and gives back the snapshot it replaces. Keep that until
    /// [`Self::all_adopted`], so that no worker ever drops the last reference. Control thread only.
    pub fn publish(&self, next: Snapshot) -> Arc<Snapshot> {
        let generation = next.generation.0;
        let old = self.newest.swap(Arc::new(next));
        self.generation.store(generation, Ordering::Release);
        old
    }

    /// The newest snapshot.
    #[must_use]
    pub fn newest(&self) -> Arc<Snapshot> {
        self.newest.load_full()
    }

    /// The newest snapshot, if it is not the one `current` already runs.
    #[inline]
    #[must_use]
    pub fn observe(&self, current: Generation) -> Option<Arc<Snapshot>> {
        (self.generation.load(Ordering::Acquire) != current.0).then(|| self.newest.load_full())
    }

    /// A worker says that it runs `generation` from now on and holds no older snapshot.
    pub fn adopt(&self, worker: WorkerId, generation: Generation) {
        self.adopted[worker.index()].store(generation.0, Ordering::Release);
    }

    /// The generation a worker runs.
    #[must_use]
    pub fn adopted(&self, worker: WorkerId) -> Generation {
        Generation(self.adopted[worker.index()].load(Ordering::Acquire))
    }

    /// Whether every worker has adopted `generation`.
    #[must_use]
    pub fn all_adopted(&self, generation: Generation) -> bool {
        self.adopted.iter().all(|adopted| adopted.load(Ordering::Acquire) == generation.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_list_names_ethertypes_and_llc_as_a_whole() {
        let arp_and_llc = L2Policy::Only([L2Policy::LLC, 0x0806].into());
        assert!(arp_and_llc.passes(0x0806));
        assert!(arp_and_llc.passes(38));
        assert!(arp_and_llc.passes(1500));
        assert!(!arp_and_llc.passes(0x88cc));
        assert!(L2Policy::All.passes(0x88cc));
    }
}
