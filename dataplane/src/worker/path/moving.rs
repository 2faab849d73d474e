//! A worker's part in moving a bucket, between two bursts and in bounded slices. Worker thread only; the order of things
//! is in [`crate::worker::moves`]. Allocates: moves are rare.

use super::Path;
use crate::clock::Now;
use crate::device::{BURST_MAX, Device};
use crate::flow::{Cursor, FlowId};
use crate::ids::{PortId, WorkerId};
use crate::packet::Packet;
use crate::reason::DropReason;
use crate::worker::Observer;
use crate::worker::handoff::{Errand, HandoffCause};
use crate::worker::hold::Waiting;
use crate::worker::moves::{BATCH, BATCHES_AHEAD, COMING, Giver, Giving, Message, Taking, bit};
use crate::worker::steering::{BucketMove, Stage};
use crate::xsk::Frame;
use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

/// Words of 64 slots each that a slice of the search for flows looks at.
const SCAN_WORDS: usize = 256;

/// Flows that a slice of the removal removes.
const LET_GO: usize = 256;

/// More packets than a queue holds: having taken so many, it has been emptied of those before.
const QUEUE_MAX: usize = 1 << 14;

/// Most packets let in between two bursts.
const LET_IN_MAX: usize = 4 * BURST_MAX;

impl<D: Device, O: Observer> Path<D, O> {
    /// Whether packets of a bucket that is coming are let in already, from this worker.
    #[inline]
    fn is_let_in(&self, owner: WorkerId, source: WorkerId) -> bool {
        let lets_in = |taking: &Taking| taking.is_letting_in || taking.closed & bit(source) == 0;
        owner == COMING && self.moves.taking.as_deref().is_some_and(lets_in)
    }

    /// Whether a packet that was steered is to be judged here. `source` has sent it to us or is ourselves.
    ///
    /// # Errors
    /// Says whom it is for if not, or that it must wait ([`COMING`]).
    #[inline]
    pub(in crate::worker) fn is_for_us(&mut self, source: WorkerId, packet: &Packet) -> Result<(), WorkerId> {
        let owner = self.owner(packet);
        if owner == self.id || self.is_let_in(owner, source) {
            return Ok(());
        }
        if source == self.id { Err(owner) } else { self.look_again(source, packet) }
    }

    /// A packet has come from `source` for a bucket that was not ours when we last looked: whoever gives it to us has said
    /// so before.
    #[cold]
    fn look_again(&mut self, source: WorkerId, packet: &Packet) -> Result<(), WorkerId> {
        self.hear(source);
        let owner = self.owner(packet);
        if owner == self.id || self.is_let_in(owner, source) { Ok(()) } else { Err(owner) }
    }

    /// The frame of a packet that was steered, if it is to be judged here; else it is given to whoever it is for.
    #[inline]
    pub(in crate::worker) fn keep_ours(
        &mut self,
        source: WorkerId,
        frame: Frame,
        packet: &Packet,
        ingress: PortId,
    ) -> Option<Frame> {
        match self.is_for_us(source, packet) {
            Ok(()) => Some(frame),
            Err(owner) => {
                self.pass_on(owner, source, false, frame, packet, ingress);
                None
            }
        }
    }

    /// Gives a packet that is not for us to whoever it is for, `alone` if it is a fragment that is judged by itself.
    #[inline]
    pub(in crate::worker) fn pass_on(
        &mut self,
        owner: WorkerId,
        source: WorkerId,
        alone: bool,
        frame: Frame,
        packet: &Packet,
        ingress: PortId,
    ) {
        if owner == COMING {
            return self.hold(source, frame, packet, ingress);
        }
        let errand = match (alone, source == self.id) {
            (true, _) => Errand::JudgeAlone,
            (false, true) => Errand::Judge(self.cause(&frame, packet)),
            (false, false) => Errand::Judge(HandoffCause::Moved),
        };
        self.hand(owner, errand, frame, packet, ingress);
    }

    /// Has a packet wait for its flow, if there is memory to spare: what waits is as good as lent.
    #[cold]
    fn hold(&mut self, source: WorkerId, frame: Frame, packet: &Packet, ingress: PortId) {
        let released = self.moves.taking.as_ref().map(|taking| taking.released);
        if let Some(released) = released
            && self.moves.hold.has_room(&frame)
            && self.may_lend(&frame)
        {
            let waiting = Waiting { source, frame, packet: *packet, ingress };
            return self.moves.hold.push(waiting, released & bit(source) != 0);
        }
        self.drop_frame(frame, DropReason::BucketMoving, ingress, Some(packet));
    }

    /// Goes on with the move under way, if there is one.
    #[inline]
    pub(super) fn go_on_moving(&mut self, now: Now) {
        if !self.moves.is_quiet() {
            self.go_on(now);
        }
    }

    #[cold]
    fn go_on(&mut self, now: Now) {
        self.take_orders();
        for peer in 0..self.moves.peers.len() {
            self.hear(self.moves.peers[peer].id);
        }
        if let Some((peer, after)) = self.moves.settling
            && self.taken_from(peer) >= after
        {
            self.moves.settling = None;
            self.say(peer, Message::Settled);
        }
        if let Some(giving) = self.moves.giving.take() {
            self.moves.giving = self.give_on(giving);
        }
        self.let_in(now);
        // A worker without queues flushes at no other time.
        self.flush();
    }

    /// What control wants.
    fn take_orders(&mut self) {
        let version = self.moves.steering.version();
        if version == self.moves.seen {
            return;
        }
        let (BucketMove { bucket, from, to }, stage) = self.moves.steering.order();
        let is_giving = self.moves.giving.is_some();
        if stage == Stage::Asked && from == self.id && is_giving {
            // The taker of the last bucket is done, we are not yet.
            return;
        }
        self.moves.seen = version;
        if stage == Stage::Asked && from == self.id {
            self.moves.giving = Some(Box::new(Giving {
                bucket,
                to,
                phase: Giver::Scanning(Cursor::default()),
                flows: Vec::new(),
                given: Vec::new(),
                answered: 0,
                unsettled: 0,
                words: Vec::new(),
                unheard: self.moves.others(),
                undrained: None,
                drained: vec![0; self.lanes.len()],
            }));
        }
        if stage == Stage::Released {
            if let Some(giving) = self.moves.giving.as_mut().filter(|giving| giving.bucket == bucket) {
                giving.undrained = Some((0..self.lanes.len()).fold(0, |all, lane| all | 1 << lane));
            } else if to != self.id && self.owners[usize::from(bucket)] == from {
                self.owners[usize::from(bucket)] = to;
                self.say(from, Message::Switched { source: self.id, after: self.given_to(from) });
            }
        }
    }

    /// Packets given to a worker so far, of all errands.
    fn given_to(&self, to: WorkerId) -> u64 {
        self.counters.handoff.peers[to.index()].out.get() + self.handoff.staged_for(to)
    }

    /// Packets taken over from a worker so far, of all errands.
    fn taken_from(&self, from: WorkerId) -> u64 {
        self.counters.handoff.peers[from.index()].taken.get()
    }

    fn say(&mut self, to: WorkerId, message: Message) {
        self.moves.say(to, message);
        self.handoff.nudge(to);
    }

    /// What another worker says.
    fn hear(&mut self, peer: WorkerId) {
        let Some(at) = self.moves.peers.iter().position(|known| known.id == peer) else { return };
        while let Ok(message) = self.moves.peers[at].incoming.pop() {
            match message {
                Message::Begin { bucket } => self.begin_taking(bucket, peer),
                Message::Flows(passages) => {
                    // What the giver remembers of them may be of rules that we have not taken up yet.
                    self.adopt_newest();
                    let taken: Vec<Option<FlowId>> =
                        passages.iter().map(|passage| self.tracker.take_in(passage)).collect();
                    self.say(peer, Message::Taken(taken));
                }
                Message::Datagrams(passages) => {
                    passages.into_iter().for_each(|passage| self.defrag.take_in(passage));
                    self.drop_given_up();
                }
                Message::Taken(taken) => {
                    if let Some(giving) = &mut self.moves.giving {
                        let given = giving.given[giving.answered..].iter_mut();
                        giving.answered += taken.len();
                        given.zip(taken).for_each(|((_, now), taken)| *now = taken);
                    }
                }
                Message::Settle { after } => self.moves.settling = Some((peer, after)),
                Message::Settled => {
                    if let Some(giving) = &mut self.moves.giving {
                        giving.unsettled &= !bit(peer);
                    }
                }
                Message::Complete => {
                    if let Some(taking) = &mut self.moves.taking {
                        taking.is_complete = true;
                    }
                }
                Message::Switched { source, after } => {
                    let giving = self.moves.giving.as_mut().map(|giving| &mut giving.words);
                    let taking = self.moves.taking.as_mut().map(|taking| &mut taking.words);
                    if let Some(words) = giving.or(taking) {
                        words.push((source, after));
                    }
                }
            }
        }
    }

    /// A bucket is coming: from here on its packets wait.
    fn begin_taking(&mut self, bucket: u8, from: WorkerId) {
        self.owners[usize::from(bucket)] = COMING;
        self.moves.taking = Some(Box::new(Taking {
            bucket,
            from,
            is_complete: false,
            closed: self.moves.others() | bit(self.id),
            released: 0,
            is_letting_in: false,
            words: Vec::new(),
        }));
        self.say(from, Message::Switched { source: self.id, after: self.given_to(from) });
    }

    /// Lets in packets whose flows are here and behind which none can come any more, as far as they can be sent, and not
    /// so many at once that queues run over meanwhile.
    fn let_in(&mut self, now: Now) {
        self.release();
        let mut left = LET_IN_MAX;
        while left > 0
            && self.may_let_in()
            && let Some(Waiting { frame, mut packet, ingress, .. }) = self.moves.hold.pop()
        {
            left -= 1;
            // Fragments among them may make a packet of the same bucket: it is as due as they are.
            self.set_letting_in(true);
            self.judge(frame, &mut packet, ingress, now);
            self.set_letting_in(false);
        }
        if let Some(taking) = &mut self.moves.taking
            && self.moves.hold.next().is_none()
        {
            taking.closed &= !taking.released;
            if taking.closed == 0 {
                self.owners[usize::from(taking.bucket)] = self.id;
                self.moves.taking = None;
                self.moves.steering.enter(Stage::Idle);
            }
        }
    }

    /// Whether the packet that is due next, if any, finds room on its way out.
    fn may_let_in(&mut self) -> bool {
        let Some(next) = self.moves.hold.next() else { return false };
        let egress = next.ingress.peer();
        match self.sends_elsewhere(egress) {
            Some(sender) => self.could_lend(&next.frame) && self.handoff.has_room(sender),
            None => self.has_tx_room_for(egress),
        }
    }

    fn set_letting_in(&mut self, is_letting_in: bool) {
        if let Some(taking) = &mut self.moves.taking {
            taking.is_letting_in = is_letting_in;
        }
    }

    /// Finds sources behind whose packets none can come any more.
    fn release(&mut self) {
        let Some(mut taking) = self.moves.taking.take() else { return };
        if taking.is_complete {
            let mut heard = bit(taking.from);
            let taken = self.taken_from(taking.from);
            taking.words.retain(|(source, after)| {
                let is_due = taken >= *after;
                heard |= if is_due { bit(*source) } else { 0 };
                !is_due
            });
            // What others sent through the giver is older than what they sent here.
            self.moves.hold.release(heard & !taking.released, taking.from);
            taking.released |= heard;
        }
        self.moves.taking = Some(taking);
    }

    /// The giver's next step.
    fn give_on(&mut self, mut giving: Box<Giving>) -> Option<Box<Giving>> {
        match giving.phase {
            Giver::Scanning(from) => {
                let (spread, bucket) = (self.spread, giving.bucket);
                let is_wanted = |tuple: &_, hash| spread.bucket(tuple, hash) == bucket;
                let next = self.tracker.flows_for_which(from, SCAN_WORDS, is_wanted, &mut giving.flows);
                giving.phase = Giver::Scanning(next);
                if next.is_start() {
                    self.freeze(&mut giving);
                }
            }
            Giver::Handing => self.hand_flows(&mut giving),
            Giver::LettingGo(from) => {
                let end = giving.given.len().min(from + LET_GO);
                for (id, now) in &giving.given[from..end] {
                    match now {
                        Some(_) => self.tracker.let_go(*id),
                        // There was no room for it.
                        None => drop(self.tracker.remove(id.slot)),
                    }
                }
                let is_over = end == giving.given.len();
                giving.phase = if is_over { Giver::Forwarding } else { Giver::LettingGo(end) };
            }
            Giver::Forwarding => {}
        }
        self.pass_words_on(&mut giving);
        (giving.phase != Giver::Forwarding || giving.unheard != 0).then_some(giving)
    }

    /// All flows are known: from here on packets go to the taker.
    fn freeze(&mut self, giving: &mut Giving) {
        giving.flows.sort_unstable_by_key(|id| (id.slot, id.seq));
        giving.flows.dedup();
        giving.phase = Giver::Handing;
        self.owners[usize::from(giving.bucket)] = giving.to;
        self.say(giving.to, Message::Begin { bucket: giving.bucket });
        // What the taker lets in must not overtake what we have judged.
        let ports = (0..).map(PortId).take(self.ports.len());
        let senders = ports.filter_map(|port| self.sends_elsewhere(port));
        giving.unsettled = senders.fold(0, |all, sender| all | bit(sender));
        for sender in (0..64).map(WorkerId).filter(|sender| giving.unsettled & bit(*sender) != 0) {
            self.say(sender, Message::Settle { after: self.given_to(sender) });
        }
        let datagrams = self.defrag.give(giving.bucket);
        if !datagrams.is_empty() {
            self.say(giving.to, Message::Datagrams(datagrams));
        }
        self.hand_flows(giving);
    }

    fn hand_flows(&mut self, giving: &mut Giving) {
        while !giving.flows.is_empty() && giving.given.len() - giving.answered < BATCH * BATCHES_AHEAD {
            let some = giving.flows.split_off(giving.flows.len().saturating_sub(BATCH));
            let passages: Vec<_> = some.into_iter().filter_map(|id| self.tracker.give(id)).collect();
            if passages.is_empty() {
                continue;
            }
            giving.given.extend(passages.iter().map(|passage| (passage.id(), None)));
            self.say(giving.to, Message::Flows(passages));
        }
        if giving.flows.is_empty() && giving.answered == giving.given.len() && giving.unsettled == 0 {
            self.rename(giving);
            self.say(giving.to, Message::Complete);
            giving.phase = Giver::LettingGo(0);
            self.moves.steering.enter(Stage::HandedOver);
        }
    }

    /// Rules that count connections know them by their names.
    fn rename(&self, giving: &Giving) {
        let lost = giving.given.iter().filter(|(_, now)| now.is_none()).count();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.moves.steering.moved.fetch_add(count(giving.given.len() - lost), Relaxed);
        self.moves.steering.lost.fetch_add(count(lost), Relaxed);
        let mut names: Option<HashMap<FlowId, FlowId>> = None;
        for rules in [&self.snapshot.v4, &self.snapshot.v6] {
            for limit in rules.compiled.ruleset().connlimits() {
                let names = names.get_or_insert_with(|| {
                    giving.given.iter().filter_map(|(id, now)| Some((*id, (*now)?))).collect()
                });
                limit.count.rename(|id| names.get(&id).copied());
            }
        }
    }

    /// Passes on the word of workers whose packets have all been passed on.
    fn pass_words_on(&mut self, giving: &mut Giving) {
        if matches!(giving.phase, Giver::Scanning(_) | Giver::Handing) {
            return;
        }
        let (words, later): (Vec<_>, _) = std::mem::take(&mut giving.words).into_iter().partition(|word| {
            // What the NICs have sent us before they were told must come first.
            let is_empty = word.0 != giving.to || giving.undrained == Some(0);
            is_empty && self.taken_from(word.0) >= word.1
        });
        giving.words = later;
        for (source, _) in words {
            giving.unheard &= !bit(source);
            self.say(giving.to, Message::Switched { source, after: self.given_to(giving.to) });
        }
    }

    /// So many packets came out of one of our queues.
    #[inline]
    pub(in crate::worker) fn note_drained(&mut self, lane: usize, received: usize) {
        if let Some(giving) = &mut self.moves.giving
            && let Some(undrained) = &mut giving.undrained
        {
            giving.drained[lane] += received;
            if received < BURST_MAX || giving.drained[lane] >= QUEUE_MAX {
                *undrained &= !(1 << lane);
            }
        }
    }
}
