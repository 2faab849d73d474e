//! What becomes of a set's entries: added, removed, swept, and what is kept beside them (comments, counters, counts of
//! prefixes, marks of networks). Control, under the set's lock; lists are edited in `super::list`.
//!
//! Invariant: the prefix length of a network, and the mark of one with NICs, are there before it is and go after it.

use super::counters::Numbers;
use super::element::{Element, Key};
use super::kind::{Kind, NetPart};
use super::set::{Content, NANOS_PER_SEC, Set, Writer, is_over};
use super::table::{NoMemory, SHARDS, Table, Value};
use crate::clock::Now;
use std::sync::atomic::Ordering;

/// What may be given with an entry.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Extras {
    /// Seconds it lives; 0 is for ever; `None`: as the set says.
    pub timeout: Option<u32>,
    /// Packets and bytes it begins with.
    pub counts: Option<(u64, u64)>,
    /// A comment.
    pub comment: Option<Box<str>>,
    /// An exception.
    pub nomatch: bool,
}

/// What became of an addition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is new.
    New,
    /// It was there, and has what was given now.
    Renewed,
}

/// Why an edit changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is there already.
    #[error("it is already in the set")]
    Exists,
    /// It is not there.
    #[error("it is not in the set")]
    Missing,
    /// There is no room.
    #[error("the set is full, more elements cannot be added")]
    Full,
    /// A list: the set it is to stand before or after is not there.
    #[error("the set it is to be placed by is not in the list")]
    NoReference,
    /// There is no memory.
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
}

impl Set {
    pub(super) fn deadline(&self, timeout: Option<u32>, now: Now) -> u64 {
        match timeout.or(self.spec.timeout) {
            None | Some(0) => 0,
            Some(secs) => now.nanos + u64::from(secs) * NANOS_PER_SEC,
        }
    }

    /// Adds an element, or gives one that is there what comes with it if `exist` says so.
    ///
    /// # Errors
    /// If it is there, or no room.
    pub fn add(&self, element: Element, extras: &Extras, exist: bool, now: Now) -> Result<Added, EditError> {
        let Content::Table(table) = &self.content else { return Err(EditError::Missing) };
        let writer = &mut *self.writer();
        let key = element.masked(&self.spec).key(&self.spec);
        let found = table.find(&key);
        let is_alive = found.is_some_and(|value| !is_over(&value, now.nanos));
        if is_alive && !exist {
            return Err(EditError::Exists);
        }
        let number = match found {
            Some(known) => known.counter,
            None => self.reserve(writer, table, &element, &key, now)?,
        };
        if self.spec.counters
            && let Some([packets, bytes]) = self.counters.get(number)
            && let Some(counts) = extras.counts.or((!is_alive).then_some((0, 0)))
        {
            packets.store(counts.0, Ordering::Relaxed);
            bytes.store(counts.1, Ordering::Relaxed);
        }
        let deadline = self.deadline(extras.timeout, now);
        if deadline != 0 {
            writer.first_deadline = writer.first_deadline.min(deadline);
        }
        let value = Value { nomatch: extras.nomatch, deadline, counter: number };
        if found.is_some() {
            table.update(&key, value);
        } else {
            table.insert(&key, value);
        }
        if self.spec.comment {
            match &extras.comment {
                Some(comment) => {
                    writer.comments.part(&key).insert(key, comment.clone());
                }
                None => writer.comments.remove(&key),
            }
        }
        Ok(if is_alive { Added::Renewed } else { Added::New })
    }

    /// Everything a new entry needs but the entry itself; the number of its counters.
    fn reserve(
        &self,
        writer: &mut Writer,
        table: &Table,
        element: &Element,
        key: &Key,
        now: Now,
    ) -> Result<u64, EditError> {
        if table.len() - writer.nets.len() >= self.spec.entries_max() {
            self.make_room(writer, table, now)?;
        }
        if self.spec.counters {
            self.counters.reserve(writer.numbers.next())?;
        }
        table.reserve(key)?;
        self.mark_net(writer, table, element, true)?;
        self.count_prefix(writer, key, true);
        Ok(if self.spec.counters { writer.numbers.take() } else { 0 })
    }

    /// Removes an element.
    ///
    /// # Errors
    /// If it is not there.
    pub fn remove(&self, element: Element, now: Now) -> Result<(), EditError> {
        let Content::Table(table) = &self.content else { return Err(EditError::Missing) };
        let mut writer = self.writer();
        let key = element.masked(&self.spec).key(&self.spec);
        let value = self.take(&mut writer, table, &key).ok_or(EditError::Missing)?;
        if is_over(&value, now.nanos) { Err(EditError::Missing) } else { Ok(()) }
    }

    /// Removes everything.
    pub fn flush(&self) {
        let mut writer = self.writer();
        match &self.content {
            Content::Table(table) => {
                for prefixes in &self.prefixes {
                    prefixes.store(0, Ordering::Release);
                }
                table.clear();
                writer.prefixes.clear();
                writer.nets.clear();
                writer.comments.clear();
                (writer.numbers, writer.first_deadline) = (Numbers::default(), 0);
            }
            Content::List(list) => {
                writer.list_comments.clear();
                writer.put(list, Vec::new());
            }
        }
    }

    fn take(&self, writer: &mut Writer, table: &Table, key: &Key) -> Option<Value> {
        let value = table.remove(key)?;
        self.count_prefix(writer, key, false);
        let unmarked = self.mark_net(writer, table, &Element::of_key(key, &self.spec), false);
        debug_assert_eq!(unmarked, Ok(()), "what goes needs no memory");
        writer.comments.remove(key);
        if self.spec.counters {
            writer.numbers.give(value.counter);
        }
        Some(value)
    }

    /// Room for one entry in a full set: those whose time is up go, or with `forceadd` any.
    fn make_room(&self, writer: &mut Writer, table: &Table, now: Now) -> Result<(), EditError> {
        // Else nothing can have gone since it was last looked: in a million entries that takes 10 ms.
        if self.spec.timeout.is_some() && writer.first_deadline <= now.nanos {
            writer.first_deadline = u64::MAX;
            for shard in 0..SHARDS {
                let first = self.sweep_shard(writer, table, shard, now);
                writer.first_deadline = writer.first_deadline.min(first);
            }
            if table.len() - writer.nets.len() < self.spec.entries_max() {
                return Ok(());
            }
        }
        if !self.spec.forceadd {
            return Err(EditError::Full);
        }
        writer.hand = (writer.hand + 1) % SHARDS;
        let shards = (0..SHARDS).map(|at| (writer.hand + at) % SHARDS);
        let mut keys = shards.flat_map(|shard| table.entries_of(shard)).map(|(key, _)| key);
        let victim = keys.find(|key| !self.is_mark(key)).ok_or(EditError::Full)?;
        drop(keys);
        self.take(writer, table, &victim).map(|_| ()).ok_or(EditError::Full)
    }

    /// Removes entries whose time is up, from one part of the set each time. Called often.
    pub fn sweep(&self, now: Now) {
        if self.spec.timeout.is_none() {
            return;
        }
        let mut writer = self.writer();
        match &self.content {
            Content::Table(table) => {
                let shard = writer.hand % SHARDS;
                writer.hand = (shard + 1) % SHARDS;
                self.sweep_shard(&mut writer, table, shard, now);
            }
            Content::List(list) => writer.sweep_list(list, now),
        }
    }

    /// Removes what is over from a part; when the first of the others will be.
    fn sweep_shard(&self, writer: &mut Writer, table: &Table, shard: usize, now: Now) -> u64 {
        let (mut over, mut first) = (Vec::new(), u64::MAX);
        for (key, value) in table.entries_of(shard) {
            if is_over(&value, now.nanos) {
                over.push(key);
            } else if value.deadline != 0 {
                first = first.min(value.deadline);
            }
        }
        for key in over {
            self.take(writer, table, &key);
        }
        first
    }

    /// Whether it is the mark of a network.
    pub(super) fn is_mark(&self, key: &Key) -> bool {
        self.spec.kind == Kind::HashNetIface && Element::of_key(key, &self.spec).iface == 0
    }

    /// Keeps the mark of a network as long as it has entries.
    fn mark_net(
        &self,
        writer: &mut Writer,
        table: &Table,
        element: &Element,
        comes: bool,
    ) -> Result<(), NoMemory> {
        if self.spec.kind != Kind::HashNetIface {
            return Ok(());
        }
        let mark = Element { iface: 0, physdev: false, ..*element }.masked(&self.spec).key(&self.spec);
        if comes {
            if writer.nets.get(&mark).is_none() {
                table.reserve(&mark)?;
                table.insert(&mark, Value::default());
            }
            *writer.nets.part(&mark).entry(mark).or_default() += 1;
            return Ok(());
        }
        let count = writer.nets.part(&mark).entry(mark).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            writer.nets.remove(&mark);
            table.remove(&mark);
        }
        Ok(())
    }

    /// Keeps count of the prefix lengths there are. One that comes is known before its network is.
    fn count_prefix(&self, writer: &mut Writer, key: &Key, comes: bool) {
        if self.spec.kind.net() == NetPart::None {
            return;
        }
        let element = Element::of_key(key, &self.spec);
        let prefix = if self.spec.kind.net() == NetPart::First { element.prefix } else { element.prefix2 };
        let count = writer.prefixes.entry(prefix).or_default();
        *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        let bit = 1_u64 << (prefix % 64);
        if *count == 0 {
            self.prefixes[usize::from(prefix / 64)].fetch_and(!bit, Ordering::Release);
        } else {
            self.prefixes[usize::from(prefix / 64)].fetch_or(bit, Ordering::Release);
        }
    }
}
