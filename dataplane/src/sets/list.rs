//! A `list:set`: its members, in order, looked at by any thread and replaced as a whole by control, under the set's lock.

use super::counters::{self, Counts};
use super::edit::{Added, EditError, Extras};
use super::set::{Content, Set, Writer};
use super::slot::{Slot, SlotId};
use crate::clock::Now;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A set in a list.
#[derive(Debug)]
pub struct Member {
    /// The set.
    pub slot: Arc<Slot>,
    /// Nanoseconds on the daemon's clock; 0: never.
    deadline: u64,
    /// Packets and bytes.
    counts: [AtomicU64; 2],
}

/// Those of a list.
type Members = Vec<Arc<Member>>;

impl Member {
    pub(super) const fn deadline(&self) -> u64 {
        self.deadline
    }

    pub(super) const fn is_over(&self, nanos: u64) -> bool {
        self.deadline != 0 && self.deadline <= nanos
    }

    pub(super) const fn counts(&self) -> Counts<'_> {
        let [packets, bytes] = &self.counts;
        [packets, bytes]
    }
}

impl Set {
    /// The sets in a list, in order.
    #[must_use]
    pub fn members(&self) -> Vec<Arc<Slot>> {
        match &self.content {
            Content::List(list) => list.load().iter().map(|member| Arc::clone(&member.slot)).collect(),
            Content::Table(_) => Vec::new(),
        }
    }

    /// Adds a set to a list: at its end, or before or after one that is in it. As in Linux, `size` is no bound.
    ///
    /// # Errors
    /// If it is there, or that other one is not.
    pub fn add_member(
        &self,
        slot: &Arc<Slot>,
        beside: Option<(SlotId, bool)>,
        extras: &Extras,
        exist: bool,
        now: Now,
    ) -> Result<Added, EditError> {
        let Content::List(list) = &self.content else { return Err(EditError::Missing) };
        let mut writer = self.writer();
        let mut members = list.load().as_ref().clone();
        members.retain(|member| !member.is_over(now.nanos));
        let there = members.iter().position(|member| member.slot.id() == slot.id());
        if there.is_some() && !exist {
            return Err(EditError::Exists);
        }
        let by = beside.map(|(id, is_after)| {
            let by = members.iter().position(|member| member.slot.id() == id);
            by.map(|at| at + usize::from(is_after)).ok_or(EditError::NoReference)
        });
        let by = by.transpose()?;
        let old = there.map(|at| members.remove(at));
        // One that is there stays in its place.
        let at = there.or(by).unwrap_or(members.len());
        let known = old.as_ref().map(|old| counters::load(old.counts()));
        let (packets, bytes) = extras.counts.or(known).unwrap_or_default();
        let counts = [AtomicU64::new(packets), AtomicU64::new(bytes)];
        let deadline = self.deadline(extras.timeout, now);
        members.insert(at, Arc::new(Member { slot: Arc::clone(slot), deadline, counts }));
        match extras.comment.clone().filter(|_| self.spec.comment) {
            Some(comment) => writer.list_comments.insert(slot.id(), comment),
            None => writer.list_comments.remove(&slot.id()),
        };
        writer.put(list, members);
        Ok(if old.is_some() { Added::Renewed } else { Added::New })
    }

    /// Removes a set from a list, if it is there.
    ///
    /// # Errors
    /// If it is not there.
    pub fn remove_member(&self, id: SlotId, now: Now) -> Result<(), EditError> {
        let Content::List(list) = &self.content else { return Err(EditError::Missing) };
        let mut writer = self.writer();
        let mut members = list.load().as_ref().clone();
        let at = members.iter().position(|member| member.slot.id() == id && !member.is_over(now.nanos));
        members.remove(at.ok_or(EditError::Missing)?);
        writer.list_comments.remove(&id);
        writer.put(list, members);
        Ok(())
    }
}

impl Writer {
    /// Removes members whose time is up.
    pub(super) fn sweep_list(&mut self, list: &ArcSwap<Members>, now: Now) {
        let members = list.load_full();
        if members.iter().any(|member| member.is_over(now.nanos)) {
            let alive = members.iter().filter(|member| !member.is_over(now.nanos));
            let alive: Members = alive.cloned().collect();
            self.list_comments.retain(|id, _| alive.iter().any(|member| member.slot.id() == *id));
            self.put(list, alive);
        }
    }

    /// Puts other members in force.
    pub(super) fn put(&mut self, list: &ArcSwap<Members>, members: Members) {
        self.left.retain(|left| Arc::strong_count(left) > 1);
        self.left.push(list.swap(Arc::new(members)));
    }
}
