//! Which worker owns which flows: a flow hashes to a bucket, and a bucket belongs to a worker. Shared by all workers and
//! control.
//!
//! Where NICs can be told how to spread packets, the bucket is the one they find ([`crate::rss`]), so that a packet comes
//! in where its flow lives. Where they cannot (veth, virtio), most packets are handed over anyway, and the bucket is of
//! the secret hash: nobody can then aim at a worker.

use crate::ids::{WORKERS_MAX, WorkerId};
use crate::packet::{Family, Fragment, Packet, Tuple, proto};
use crate::rss::{self, BUCKETS, Fields};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

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

/// Whose each bucket is.
#[derive(Debug)]
pub struct Steering {
    spread: Spread,
    owners: [AtomicU8; BUCKETS],
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
        Self { spread, owners: std::array::from_fn(|bucket| AtomicU8::new(owner(bucket))) }
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
}
