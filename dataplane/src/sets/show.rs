//! What is in a set, for whoever lists it. Control, under the set's lock.

use super::counters;
use super::element::{Element, Key};
use super::list::Member;
use super::set::{Content, NANOS_PER_SEC, Set, Writer, is_over};
use super::slot::SlotId;
use super::table::{SHARDS, Value};
use crate::clock::Now;

/// An entry as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The element.
    pub element: Element,
    /// Of a `list:set`: the member.
    pub member: Option<SlotId>,
    /// Whether it is an exception.
    pub nomatch: bool,
    /// Seconds left, if the set has timeouts; 0 is for ever.
    pub timeout: Option<u32>,
    /// Packets and bytes, if the set counts.
    pub counts: Option<(u64, u64)>,
    /// Its comment.
    pub comment: Option<Box<str>>,
}

impl Set {
    /// What is in it, in no order but for a list. Edits need not wait for all of it: parts are taken down one by one.
    #[must_use]
    pub fn entries(&self, now: Now) -> Vec<Entry> {
        match &self.content {
            Content::Table(table) => {
                let mut entries = Vec::new();
                for shard in 0..SHARDS {
                    let writer = self.writer();
                    let of_part = table.entries_of(shard);
                    let alive =
                        of_part.filter(|(key, value)| !is_over(value, now.nanos) && !self.is_mark(key));
                    entries.extend(alive.map(|(key, value)| self.entry(&writer, &key, &value, now)));
                }
                entries
            }
            Content::List(list) => {
                let (writer, members) = (self.writer(), list.load());
                let alive = members.iter().filter(|member| !member.is_over(now.nanos));
                alive.map(|member| self.member_entry(&writer, member, now)).collect()
            }
        }
    }

    fn entry(&self, writer: &Writer, key: &Key, value: &Value, now: Now) -> Entry {
        let counts = || self.counters.get(value.counter).map_or((0, 0), counters::load);
        Entry {
            element: Element::of_key(key, &self.spec),
            member: None,
            nomatch: value.nomatch,
            timeout: self.spec.timeout.map(|_| secs_left(value.deadline, now)),
            counts: self.spec.counters.then(counts),
            comment: writer.comments.get(key).cloned(),
        }
    }

    fn member_entry(&self, writer: &Writer, member: &Member, now: Now) -> Entry {
        let id = member.slot.id();
        Entry {
            element: Element::default(),
            member: Some(id),
            nomatch: false,
            timeout: self.spec.timeout.map(|_| secs_left(member.deadline(), now)),
            counts: self.spec.counters.then(|| counters::load(member.counts())),
            comment: writer.list_comments.get(&id).cloned(),
        }
    }

    /// Some of the elements in it, of a list those of its sets.
    #[must_use]
    pub fn some(&self, max: usize) -> Vec<Element> {
        match &self.content {
            Content::Table(table) => {
                let _writer = self.writer();
                table.entries().take(max).map(|(key, _)| Element::of_key(&key, &self.spec)).collect()
            }
            Content::List(_) => {
                self.members().iter().flat_map(|slot| slot.set().some(max)).take(max).collect()
            }
        }
    }
}

/// Whole seconds until a deadline, at least one; 0 for one that never comes.
fn secs_left(deadline: u64, now: Now) -> u32 {
    if deadline == 0 {
        return 0;
    }
    let secs = deadline.saturating_sub(now.nanos) / NANOS_PER_SEC;
    u32::try_from(secs).unwrap_or(u32::MAX).max(1)
}
