//! A set: its table or list, what is kept per entry, and edits. Lookups on any thread; edits on control, one thread at
//! a time, which [`Set::writer`]'s lock sees to: no lookup takes it.

use super::element::{Element, Key, key_words};
use super::kind::{Kind, NetPart, Spec, width};
use super::list::Member;
use super::slot::{Slot, SlotId};
use super::table::{Layout, SHARDS, Table, Value};
use crate::clock::Now;
use crate::ids::{PORTS_MAX, PortId};
use crate::packet::Family;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Counters of the first page; each further one has twice as many.
const FIRST_PAGE: u64 = 256;
const PAGES: usize = 32;

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
}

/// What is in a set, or which sets.
#[derive(Debug)]
pub(super) enum Content {
    Table(Table),
    List(ArcSwap<Vec<Arc<Member>>>),
}

/// What only control knows.
#[derive(Debug, Default)]
struct Writer {
    comments: HashMap<Key, Box<str>>,
    /// Comments of a list, by member.
    list_comments: HashMap<SlotId, Box<str>>,
    /// Entries by the prefix of their network.
    prefixes: HashMap<u8, usize>,
    /// Numbers of counters that nobody has.
    free: Vec<u64>,
    /// Numbers given so far.
    counters: u64,
    /// Of networks with NICs: how many entries a network has. It has a mark in the table, an entry without a NIC.
    nets: HashMap<Key, usize>,
    /// Names of NICs by number, from 1.
    ifaces: Vec<String>,
    /// The part that is swept next.
    hand: usize,
    /// Lists that were in force and that a worker may still look at.
    left: Vec<Arc<Vec<Arc<Member>>>>,
}

/// A set.
#[derive(Debug)]
pub struct Set {
    spec: Spec,
    pub(super) content: Content,
    /// Prefix lengths of networks that are there, one bit each.
    prefixes: [AtomicU64; 3],
    pages: Box<[OnceLock<Box<[[AtomicU64; 2]]>>]>,
    /// Number that the name of each NIC has in this set; 0: none.
    nics: Box<[AtomicU16]>,
    /// Names of all NICs.
    ports: Arc<[String]>,
    writer: Mutex<Writer>,
}

impl Set {
    /// An empty set, with room for so many entries, on a gateway whose NICs are called `ports`.
    #[must_use]
    pub fn new(spec: Spec, entries: usize, ports: &Arc<[String]>) -> Self {
        let layout = Layout {
            key_words: key_words(&spec),
            has_deadline: spec.timeout.is_some(),
            has_counters: spec.counters,
        };
        let random = RandomState::new();
        let seed = [random.hash_one(spec.initval), random.hash_one(!spec.initval)];
        let content = if spec.kind == Kind::ListSet {
            Content::List(ArcSwap::from_pointee(Vec::new()))
        } else {
            Content::Table(Table::new(layout, entries.min(spec.entries_max()), seed))
        };
        Self {
            content,
            prefixes: Default::default(),
            pages: if spec.counters { (0..PAGES).map(|_| OnceLock::new()).collect() } else { Box::default() },
            nics: (0..PORTS_MAX).map(|_| AtomicU16::new(0)).collect(),
            ports: Arc::clone(ports),
            writer: Mutex::default(),
            spec,
        }
    }

    /// What it was made with.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many entries it has, those whose time is up included until they are swept.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.content {
            Content::Table(table) => table.len() - self.writer().nets.len(),
            Content::List(list) => list.load().len(),
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory it takes, in bytes, comments not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let content = match &self.content {
            Content::Table(table) => table.bytes(),
            Content::List(list) => list.load().len() * size_of::<Member>(),
        };
        let counters: usize = self.pages.iter().filter_map(OnceLock::get).map(|page| page.len() * 16).sum();
        size_of::<Self>() + content + counters
    }

    // Lookups. Any thread.

    /// The number that a NIC's name has.
    #[inline]
    pub(super) fn nic(&self, port: PortId) -> u16 {
        self.nics.get(port.index()).map_or(0, |nic| nic.load(Ordering::Acquire))
    }

    /// What is kept beside an element as it stands.
    #[inline]
    pub(super) fn find(&self, element: &Element) -> Option<Value> {
        match &self.content {
            Content::Table(table) => table.find(&element.key(&self.spec)),
            Content::List(_) => None,
        }
    }

    /// The entries that cover an element, the smallest network first, until `fits` has one.
    #[inline]
    pub(super) fn first_covering(
        &self,
        element: Element,
        mut fits: impl FnMut(&Value) -> bool,
    ) -> Option<Value> {
        if self.spec.kind.net() == NetPart::None {
            return self.find(&element.masked(&self.spec)).filter(|value| fits(value));
        }
        for (word, prefixes) in self.prefixes.iter().enumerate().rev() {
            let mut left = prefixes.load(Ordering::Acquire);
            while left != 0 {
                let bit = 63 - left.leading_zeros();
                left &= !(1 << bit);
                let prefix = u8::try_from(word).unwrap_or(0) * 64 + u8::try_from(bit).unwrap_or(0);
                let mut net = element;
                match self.spec.kind.net() {
                    NetPart::Second => net.prefix2 = prefix,
                    _ => net.prefix = prefix,
                }
                let net = net.masked(&self.spec);
                let found = self.find(&net);
                if let Some(found) = found.filter(&mut fits) {
                    return Some(found);
                }
                if self.spec.kind != Kind::HashNetIface {
                    continue;
                }
                let bridged = self.find(&Element { physdev: true, ..net });
                if let Some(found) = bridged.filter(&mut fits) {
                    return Some(found);
                }
                // Linux `mtype_test_cidrs`: a network that is there for other NICs ends the search.
                let is_there = self.find(&Element { iface: 0, physdev: false, ..net }).is_some();
                if found.is_none() && bridged.is_none() && is_there {
                    return None;
                }
            }
        }
        None
    }

    /// The longest prefix of the networks that are there.
    pub(super) fn longest_prefix(&self) -> Option<u8> {
        let words = self.prefixes.iter().enumerate().rev();
        words
            .map(|(at, word)| (at, word.load(Ordering::Acquire)))
            .find(|(_, word)| *word != 0)
            .and_then(|(at, word)| u8::try_from(at * 64 + 63 - word.leading_zeros() as usize).ok())
    }

    /// The counters with a number.
    #[inline]
    pub(super) fn counters(&self, number: u64) -> Option<&[AtomicU64; 2]> {
        let (page, at) = page_of(number);
        self.pages.get(page)?.get()?.get(at)
    }

    // Edits. Control.

    /// The number of a NIC's name, which is given one if it has none; `None` if there are too many.
    #[must_use]
    pub fn iface(&self, name: &str) -> Option<u16> {
        let mut writer = self.writer();
        if let Some(known) = writer.ifaces.iter().position(|known| known == name) {
            return u16::try_from(known + 1).ok();
        }
        let number = u16::try_from(writer.ifaces.len() + 1).ok()?;
        writer.ifaces.push(name.to_owned());
        for (nic, port) in self.nics.iter().zip(self.ports.iter()) {
            if port == name {
                nic.store(number, Ordering::Release);
            }
        }
        Some(number)
    }

    /// The name of a NIC of the gateway.
    pub(super) fn port_name(&self, port: PortId) -> Option<String> {
        self.ports.get(port.index()).cloned()
    }

    /// The name of a NIC by its number.
    #[must_use]
    pub fn iface_name(&self, number: u16) -> String {
        let writer = self.writer();
        usize::from(number).checked_sub(1).and_then(|at| writer.ifaces.get(at)).cloned().unwrap_or_default()
    }

    fn deadline(&self, timeout: Option<u32>, now: Now) -> u64 {
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
        let mut writer = self.writer();
        let key = element.masked(&self.spec).key(&self.spec);
        let found = table.find(&key);
        let is_over = found.is_some_and(|value| is_over(&value, now.nanos));
        if found.is_some() && !is_over && !exist {
            return Err(EditError::Exists);
        }
        let mut counter = found.map(|value| value.counter);
        if found.is_none() && table.len() - writer.nets.len() >= self.spec.entries_max() {
            self.make_room(&mut writer, table, now)?;
        }
        if self.spec.counters {
            let number = *counter.get_or_insert_with(|| writer.take_counter());
            let counts = extras.counts.or((found.is_none() || is_over).then_some((0, 0)));
            self.set_counters(number, counts);
        }
        let deadline = self.deadline(extras.timeout, now);
        let value = Value { nomatch: extras.nomatch, deadline, counter: counter.unwrap_or(0) };
        if found.is_some() {
            table.update(&key, value);
        } else {
            self.count_prefix(&mut writer, &key, true);
            self.mark_net(&mut writer, table, &element, true);
            table.insert(&key, value);
        }
        if self.spec.comment {
            match &extras.comment {
                Some(comment) => writer.comments.insert(key, comment.clone()),
                None => writer.comments.remove(&key),
            };
        }
        Ok(if found.is_some() && !is_over { Added::Renewed } else { Added::New })
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

    /// What an element as it stands is: `None` if it is not there, or whether it is an exception.
    #[must_use]
    pub fn is_in(&self, element: Element, now: Now) -> Option<bool> {
        let element = element.masked(&self.spec);
        let full = self.spec.family.map_or(0, width);
        let asked = match self.spec.kind.net() {
            NetPart::None => element.prefix,
            NetPart::First => element.prefix,
            NetPart::Second => element.prefix2,
        };
        let alive = |value: &Value| !is_over(value, now.nanos);
        // A whole address is looked for in networks, a network only as it is.
        if self.spec.kind.net() != NetPart::None && asked == full && !element.physdev {
            return self.first_covering(element, alive).map(|value| value.nomatch);
        }
        self.find(&element).filter(alive).map(|value| value.nomatch)
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
                (writer.free, writer.counters) = (Vec::new(), 0);
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
        self.mark_net(writer, table, &Element::of_key(key, &self.spec), false);
        writer.comments.remove(key);
        if self.spec.counters {
            writer.free.push(value.counter);
        }
        Some(value)
    }

    /// Room for one entry in a full set: those whose time is up go, or with `forceadd` any.
    fn make_room(&self, writer: &mut Writer, table: &Table, now: Now) -> Result<(), EditError> {
        for shard in 0..SHARDS {
            self.sweep_shard(writer, table, shard, now);
        }
        if table.len() - writer.nets.len() < self.spec.entries_max() {
            return Ok(());
        }
        if !self.spec.forceadd {
            return Err(EditError::Full);
        }
        let mut victim = None;
        for at in 0..SHARDS {
            if victim.is_none() {
                table.each_of((writer.hand + at) % SHARDS, |key, _| {
                    if !self.is_mark(&key) {
                        victim.get_or_insert(key);
                    }
                });
            }
        }
        writer.hand = (writer.hand + 1) % SHARDS;
        victim.and_then(|key| self.take(writer, table, &key)).map(|_| ()).ok_or(EditError::Full)
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
            Content::List(list) => {
                let members = list.load_full();
                if members.iter().any(|member| member.is_over(now.nanos)) {
                    let alive = members.iter().filter(|member| !member.is_over(now.nanos));
                    let alive: Vec<_> = alive.cloned().collect();
                    writer.list_comments.retain(|id, _| alive.iter().any(|member| member.slot.id() == *id));
                    writer.put(list, alive);
                }
            }
        }
    }

    fn sweep_shard(&self, writer: &mut Writer, table: &Table, shard: usize, now: Now) {
        let mut over = Vec::new();
        table.each_of(shard, |key, value| {
            if is_over(&value, now.nanos) {
                over.push(key);
            }
        });
        for key in over {
            self.take(writer, table, &key);
        }
    }

    /// Whether it is the mark of a network.
    fn is_mark(&self, key: &Key) -> bool {
        self.spec.kind == Kind::HashNetIface && Element::of_key(key, &self.spec).iface == 0
    }

    /// Keeps the mark of a network as long as it has entries.
    fn mark_net(&self, writer: &mut Writer, table: &Table, element: &Element, comes: bool) {
        if self.spec.kind != Kind::HashNetIface {
            return;
        }
        let mark = Element { iface: 0, physdev: false, ..*element }.masked(&self.spec).key(&self.spec);
        let count = writer.nets.entry(mark).or_default();
        *count = if comes { *count + 1 } else { count.saturating_sub(1) };
        match (*count, comes) {
            (1, true) => table.insert(&mark, Value::default()),
            (0, _) => {
                writer.nets.remove(&mark);
                table.remove(&mark);
            }
            _ => {}
        }
    }

    fn set_counters(&self, number: u64, counts: Option<(u64, u64)>) {
        let (page, _) = page_of(number);
        if let Some(page_at) = self.pages.get(page) {
            page_at.get_or_init(|| (0..FIRST_PAGE << page).map(|_| Default::default()).collect());
        }
        if let (Some([packets, bytes]), Some(counts)) = (self.counters(number), counts) {
            packets.store(counts.0, Ordering::Relaxed);
            bytes.store(counts.1, Ordering::Relaxed);
        }
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

    /// What is in it, in no order but for a list.
    #[must_use]
    pub fn entries(&self, now: Now) -> Vec<Entry> {
        let writer = self.writer();
        let mut entries = Vec::new();
        match &self.content {
            Content::Table(table) => {
                for shard in 0..SHARDS {
                    table.each_of(shard, |key, value| {
                        if !is_over(&value, now.nanos) && !self.is_mark(&key) {
                            entries.push(self.entry(&writer, &key, &value, now));
                        }
                    });
                }
            }
            Content::List(list) => {
                for member in list.load().iter().filter(|member| !member.is_over(now.nanos)) {
                    let id = member.slot.id();
                    let [packets, bytes] = &member.counts;
                    let counts = (packets.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed));
                    let deadline = member.deadline.load(Ordering::Relaxed);
                    entries.push(Entry {
                        element: Element::default(),
                        member: Some(id),
                        nomatch: false,
                        timeout: self.spec.timeout.map(|_| secs_left(deadline, now)),
                        counts: self.spec.counters.then_some(counts),
                        comment: writer.list_comments.get(&id).cloned(),
                    });
                }
            }
        }
        entries
    }

    fn entry(&self, writer: &Writer, key: &Key, value: &Value, now: Now) -> Entry {
        let counts = self.spec.counters.then(|| {
            self.counters(value.counter).map_or((0, 0), |[packets, bytes]| {
                (packets.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
            })
        });
        Entry {
            element: Element::of_key(key, &self.spec),
            member: None,
            nomatch: value.nomatch,
            timeout: self.spec.timeout.map(|_| secs_left(value.deadline, now)),
            counts,
            comment: writer.comments.get(key).cloned(),
        }
    }

    /// Some of the elements in it, of a list those of its sets.
    #[must_use]
    pub fn some(&self, max: usize) -> Vec<Element> {
        match &self.content {
            Content::Table(table) => {
                let _writer = self.writer();
                table.some(max).iter().map(|key| Element::of_key(key, &self.spec)).collect()
            }
            Content::List(_) => {
                self.members().iter().flat_map(|slot| slot.set().some(max)).take(max).collect()
            }
        }
    }

    // Lists. Control.

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
        let (packets, bytes) = extras.counts.unwrap_or_default();
        let counts = match &old {
            Some(old) if extras.counts.is_none() => {
                [0, 1].map(|at| AtomicU64::new(old.counts[at].load(Ordering::Relaxed)))
            }
            _ => [AtomicU64::new(packets), AtomicU64::new(bytes)],
        };
        let deadline = AtomicU64::new(self.deadline(extras.timeout, now));
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
    fn take_counter(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            self.counters += 1;
            self.counters - 1
        })
    }

    fn put(&mut self, list: &ArcSwap<Vec<Arc<Member>>>, members: Vec<Arc<Member>>) {
        self.left.retain(|left| Arc::strong_count(left) > 1);
        self.left.push(list.swap(Arc::new(members)));
    }
}

/// Where the counters with a number are.
fn page_of(number: u64) -> (usize, usize) {
    let page = (number / FIRST_PAGE + 1).ilog2();
    let before = FIRST_PAGE * ((1 << page) - 1);
    (page as usize, usize::try_from(number - before).unwrap_or(usize::MAX))
}

/// Whether an entry's time is up.
pub(super) const fn is_over(value: &Value, nanos: u64) -> bool {
    value.deadline != 0 && value.deadline <= nanos
}

/// Whole seconds until a deadline, at least one; 0 for one that never comes.
fn secs_left(deadline: u64, now: Now) -> u32 {
    if deadline == 0 {
        return 0;
    }
    let secs = deadline.saturating_sub(now.nanos) / NANOS_PER_SEC;
    u32::try_from(secs).unwrap_or(u32::MAX).max(1)
}

/// The widest prefix is a bit of the last word.
const _: () = assert!(width(Family::V6) / 64 == 2, "three words of prefixes");
