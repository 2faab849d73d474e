//! Buckets that change their worker: what workers tell each other about it, and what each remembers meanwhile. Worker
//! threads; what is done with it is in `path/moving.rs`.
//!
//! ```text
//! control       old owner (giver)             new owner (taker)               third workers
//! ask ------->  notes the bucket's flows
//!               sends its packets on from here on --- Begin -->  holds them all
//!               <----- Switched: "I send you none any more" ---
//!               Settle ------------------------------------------------> whoever sends for the giver
//!               Flows, Datagrams -------------------->  copies
//!               <---------------------------- Taken --
//!               <--------------------------------------------- Settled: "I have sent what you gave me"
//!               renames ------------------- Complete -->  lets in what the giver sends
//! NICs, release -----------------------------------------------------------> send to the taker,
//!               <---------------------------------- Switched ("no more") --
//!               passes each Switched on, behind the packets before it ->  lets in what that worker sends
//! ```
//!
//! No packet is reordered within a flow: a worker's packets go through the giver until it has switched, and the taker
//! holds what comes from it directly until the giver has passed on its word, which stands behind all of those. Messages
//! and packets go through different rings; a message that must stand behind packets says how many were sent before it.
//! No packet waits for a third worker that has stopped polling, because none comes from it: unless it is the one that sends
//! for the giver, or for the taker. What waits is in a [`Hold`], and is let in only as far as it can be sent; until all of a
//! source's has been, what comes of it waits behind.
//!
//! Where NICs are told, packets that came before lie in the giver's own queues: it passes the taker's word on only when it
//! has emptied those.

use super::hold::Hold;
use super::steering::Steering;
use crate::defrag;
use crate::flow::{Cursor, FlowId, Passage};
use crate::ids::WorkerId;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;

/// Messages that one worker may have waiting at another: more than a move has.
const MESSAGES: usize = 256;

/// Flows that go in one message.
pub(super) const BATCH: usize = 64;

/// Messages of flows that may be unanswered.
pub(super) const BATCHES_AHEAD: usize = 4;

/// Stands for an owner: the bucket is coming here, but not yet there.
pub(super) const COMING: WorkerId = WorkerId(u8::MAX);

/// What workers say to each other about the move under way.
#[derive(Debug)]
pub(super) enum Message {
    /// A bucket is coming.
    Begin { bucket: u8 },
    /// Some of its flows.
    Flows(Vec<Passage>),
    /// Its datagrams in the making.
    Datagrams(Vec<defrag::Passage>),
    /// What the flows of one message are called now, in order.
    Taken(Vec<Option<FlowId>>),
    /// All are there.
    Complete,
    /// Is to be answered once so many packets of the sender have been dealt with: judged ones wait among them to be sent.
    Settle { after: u64 },
    /// They have been.
    Settled,
    /// A worker sends no packets of the bucket to the giver any more: `after` so many packets of the sender.
    Switched { source: WorkerId, after: u64 },
}

/// The rings to and from one other worker.
#[derive(Debug)]
pub(super) struct MovePeer {
    pub(super) id: WorkerId,
    pub(super) out: Producer<Message>,
    pub(super) incoming: Consumer<Message>,
}

/// Part of the worker that gives a bucket away.
#[derive(Debug)]
pub(super) struct Giving {
    pub(super) bucket: u8,
    pub(super) to: WorkerId,
    pub(super) phase: Giver,
    /// Flows found, then those not handed over yet.
    pub(super) flows: Vec<FlowId>,
    /// Flows handed over, in order, and what they are called now.
    pub(super) given: Vec<(FlowId, Option<FlowId>)>,
    /// How many of these have been answered.
    pub(super) answered: usize,
    /// Workers that send for us and may not have sent all that was judged here, one bit each.
    pub(super) unsettled: u64,
    /// Words to be passed on, each after so many packets from its source.
    pub(super) words: Vec<(WorkerId, u64)>,
    /// Workers whose word was not passed on yet, one bit each.
    pub(super) unheard: u64,
    /// Own queues that may hold packets from before the NICs were told, one bit each; `None` until they were.
    pub(super) undrained: Option<u64>,
    /// Packets taken from each of those since.
    pub(super) drained: Vec<usize>,
}

/// What the giver is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Giver {
    /// Looking for the bucket's flows, and still serving them.
    Scanning(Cursor),
    /// Handing them over.
    Handing,
    /// Removing them, up to this one.
    LettingGo(usize),
    /// Sending packets on.
    Forwarding,
}

/// Part of the worker that takes a bucket.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) bucket: u8,
    pub(super) from: WorkerId,
    /// Whether all flows are here.
    pub(super) is_complete: bool,
    /// Workers whose packets wait, one bit each.
    pub(super) closed: u64,
    /// Those of them whose packets are let in, and wait only behind those that are being let in.
    pub(super) released: u64,
    /// Whether a packet that has waited is being judged.
    pub(super) is_letting_in: bool,
    /// Words passed on by the giver, each after so many of its packets.
    pub(super) words: Vec<(WorkerId, u64)>,
}

/// A worker's part in moves.
#[derive(Debug)]
pub struct Moves {
    pub(super) steering: Arc<Steering>,
    /// Version of it that was looked at last.
    pub(super) seen: u32,
    pub(super) peers: Vec<MovePeer>,
    pub(super) giving: Option<Box<Giving>>,
    pub(super) taking: Option<Box<Taking>>,
    /// Packets of the bucket that is taken.
    pub(super) hold: Hold,
    /// Who waits for us to have dealt with so many of its packets.
    pub(super) settling: Option<(WorkerId, u64)>,
}

/// The bit of a worker.
pub(super) const fn bit(worker: WorkerId) -> u64 {
    1 << worker.0
}

impl Moves {
    /// The workers' ends, in worker order.
    #[must_use]
    pub fn mesh(steering: &Arc<Steering>, workers: usize) -> Vec<Self> {
        let new = |_| Self {
            steering: Arc::clone(steering),
            seen: steering.version(),
            peers: Vec::new(),
            giving: None,
            taking: None,
            hold: Hold::default(),
            settling: None,
        };
        let mut mesh: Vec<Self> = (0..workers).map(new).collect();
        let id = |index| WorkerId(u8::try_from(index).expect("at most 64 workers"));
        for low in 0..workers {
            for high in low + 1..workers {
                let (up, from_low) = RingBuffer::new(MESSAGES);
                let (down, from_high) = RingBuffer::new(MESSAGES);
                mesh[low].peers.push(MovePeer { id: id(high), out: up, incoming: from_high });
                mesh[high].peers.push(MovePeer { id: id(low), out: down, incoming: from_low });
            }
        }
        mesh
    }

    /// Says something to a worker.
    ///
    /// # Panics
    /// If it does not listen: a move has fewer messages than the ring holds.
    pub(super) fn say(&mut self, to: WorkerId, message: Message) {
        let peer = self.peers.iter_mut().find(|peer| peer.id == to).expect("moves are between workers");
        assert!(peer.out.push(message).is_ok(), "a move has fewer messages than the ring holds");
    }

    /// Workers other than this one.
    pub(super) fn others(&self) -> u64 {
        self.peers.iter().fold(0, |all, peer| all | bit(peer.id))
    }

    /// Whether flows are being handed over: none of them may end meanwhile.
    #[inline]
    pub(super) fn is_handing(&self) -> bool {
        self.giving.as_ref().is_some_and(|giving| giving.phase == Giver::Handing)
    }

    /// The bucket whose flows are being looked for, if any: new ones must be noted.
    #[inline]
    pub(super) fn scanned(&self) -> Option<u8> {
        let giving = self.giving.as_ref()?;
        matches!(giving.phase, Giver::Scanning(_)).then_some(giving.bucket)
    }

    /// Whether nothing is to be done.
    pub(super) fn is_quiet(&self) -> bool {
        self.giving.is_none()
            && self.taking.is_none()
            && self.settling.is_none()
            && self.seen == self.steering.version()
            && self.peers.iter().all(|peer| peer.incoming.is_empty())
    }

    /// Makes room for packets that wait for their flows, of so many chunks together. None is needed without other workers.
    pub(super) fn make_room(&mut self, chunks: usize) {
        if !self.peers.is_empty() {
            self.hold = Hold::new(chunks);
        }
    }
}
