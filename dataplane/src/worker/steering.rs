//! Which worker owns which flows: a flow hashes to a bucket, and a bucket belongs to a worker. Shared by all workers and
//! control.
//!
//! Where NICs can be told how to spread packets, the bucket is the one they find ([`crate::rss`]), so that a packet comes
//! in where its flow lives. Where they cannot (veth, virtio), most packets are handed over anyway, and the bucket is of
//! the secret hash: nobody can then aim at a worker.
//!
//! Ownership changes bucket by bucket, one at a time, see [`super::moves`]. Control asks ([`Steering::ask`]), waits for the
//! flows to be handed over, tells NICs, then everybody ([`Steering::release`]), and waits until the last packet that was
//! sent the old way has arrived. Each stage is entered by one thread only.

use crate::flow;
use crate::ids::{WORKERS_MAX, WorkerId};
use crate::packet::{Family, Fragment, Packet, Tuple, proto};
use crate::rss::{self, BUCKETS, Fields};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering, Ordering::Relaxed};

/// How a flow's bucket is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// As NICs find it that hash ports for these protocols.
    Rss(Fields),
    /// By the secret hash that the flow table goes by.
    Secret,
}

impl Spread {
    /// The bucket of a flow's tuple, whose secret hash is `hash`.
    #[must_use]
    #[inline]
    pub fn bucket(self, tuple: &Tuple, hash: u64) -> u8 {
        match self {
            Self::Rss(fields) => rss::bucket(fields, tuple),
            // The flow table does not use the highest byte.
            Self::Secret => (hash >> 56) as u8,
        }
    }
}

/// The tuple by which fragments of one datagram meet. They know no ports, and of IPv6 only the first one knows the
/// protocol for sure.
#[must_use]
pub(super) fn meeting_tuple(packet: &Packet) -> Tuple {
    debug_assert!(packet.fragment != Fragment::Whole, "whole packets have a flow");
    let tuple = &packet.tuple;
    let proto = if tuple.family == Family::V4 { tuple.proto } else { proto::FRAGMENT };
    Tuple { src_port: 0, dst_port: 0, proto, ..*tuple }
}

/// Where a packet belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Hash of its flow.
    pub(crate) hash: u64,
    /// Its bucket.
    pub(crate) bucket: u8,
    /// Whether that is another packet's flow, which this one reports an error about.
    pub(crate) is_about: bool,
    /// Whether that is where all fragments of its datagram meet.
    pub(crate) meets: bool,
}

/// Finds where a packet belongs, as a worker does that has all of its bytes.
pub(crate) fn place(spread: Spread, packet: &Packet, bytes: &[u8], hash: impl Fn(&Tuple) -> u64) -> Placed {
    let meets = packet.fragment != Fragment::Whole;
    let about = if meets { None } else { flow::error_about(packet, bytes) };
    let tuple = if meets { meeting_tuple(packet) } else { about.unwrap_or(packet.tuple) };
    let hash = hash(&tuple);
    Placed { hash, bucket: spread.bucket(&tuple, hash), is_about: about.is_some(), meets }
}

/// A bucket that changes its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketMove {
    /// Which bucket.
    pub bucket: u8,
    /// Whose it is.
    pub from: WorkerId,
    /// Whose it will be.
    pub to: WorkerId,
}

/// How far a move has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// None is under way.
    Idle,
    /// Control has asked the old owner.
    Asked,
    /// The new owner has the flows; packets still go the old way.
    HandedOver,
    /// Everybody is to send packets to the new owner.
    Released,
}

/// Whose each bucket is, and the move under way.
#[derive(Debug)]
pub struct Steering {
    spread: Spread,
    owners: [AtomicU8; BUCKETS],
    /// Grows when control has changed something: what workers look at every poll.
    version: AtomicU32,
    /// The move: bucket, from, to, stage.
    order: [AtomicU8; 4],
    /// Flows that have changed their worker, and those that found no room there.
    pub(super) moved: AtomicU32,
    pub(super) lost: AtomicU32,
}

impl Steering {
    /// Deals the buckets out in turn. Those that are equal modulo `stride` go together: a NIC's table may have no more
    /// entries than that.
    ///
    /// # Panics
    /// Without workers, with too many of them, or with a stride of 0.
    #[must_use]
    pub fn new(spread: Spread, workers: usize, stride: usize) -> Self {
        assert!((1..=WORKERS_MAX).contains(&workers) && stride > 0, "somebody owns every bucket");
        let owner = |bucket: usize| u8::try_from(bucket % stride % workers).unwrap_or(0);
        Self {
            spread,
            owners: std::array::from_fn(|bucket| AtomicU8::new(owner(bucket))),
            version: AtomicU32::new(0),
            order: Default::default(),
            moved: AtomicU32::new(0),
            lost: AtomicU32::new(0),
        }
    }

    /// How buckets are found.
    #[must_use]
    pub const fn spread(&self) -> Spread {
        self.spread
    }

    /// Whose each bucket is now.
    #[must_use]
    pub fn owners(&self) -> [WorkerId; BUCKETS] {
        self.owners.each_ref().map(|owner| WorkerId(owner.load(Relaxed)))
    }

    /// How far the move has come.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.order[3].load(Ordering::Acquire) {
            0 => Stage::Idle,
            1 => Stage::Asked,
            2 => Stage::HandedOver,
            _ => Stage::Released,
        }
    }

    /// The move, and how far it has come.
    #[must_use]
    pub fn order(&self) -> (BucketMove, Stage) {
        let stage = self.stage();
        let [bucket, from, to, _] = self.order.each_ref().map(|byte| byte.load(Relaxed));
        (BucketMove { bucket, from: WorkerId(from), to: WorkerId(to) }, stage)
    }

    /// Flows moved so far, and flows lost to a full table on the way.
    #[must_use]
    pub fn tally(&self) -> (u32, u32) {
        (self.moved.load(Relaxed), self.lost.load(Relaxed))
    }

    /// Asks for a move; both workers must be woken. False if one is under way or this one is none. Control only.
    pub fn ask(&self, wanted: BucketMove) -> bool {
        let BucketMove { bucket, from, to } = wanted;
        let owner = self.owners[usize::from(bucket)].load(Relaxed);
        if self.stage() != Stage::Idle || owner != from.0 || from == to {
            return false;
        }
        for (byte, value) in self.order.iter().zip([bucket, from.0, to.0]) {
            byte.store(value, Relaxed);
        }
        self.enter(Stage::Asked);
        self.version.fetch_add(1, Ordering::Release);
        true
    }

    /// Has everybody send packets to the new owner; all workers must be woken. Control only, once the flows are handed over.
    ///
    /// # Panics
    /// If they are not.
    pub fn release(&self) {
        let (BucketMove { bucket, from: _, to }, stage) = self.order();
        assert_eq!(stage, Stage::HandedOver, "flows come before packets");
        self.owners[usize::from(bucket)].store(to.0, Relaxed);
        self.enter(Stage::Released);
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(super) fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire)
    }

    /// For whoever has brought the move so far.
    pub(super) fn enter(&self, stage: Stage) {
        self.order[3].store(stage as u8, Ordering::Release);
    }
}
