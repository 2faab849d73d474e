//! A set: its table or list, what is kept per entry, and lookups, which any thread may do. Edits are control's
//! (`super::edit`, `super::list`), one thread at a time, which [`Set::writer`]'s lock sees to: no lookup takes it.

use super::counters::{Counters, Numbers};
use super::element::{Element, key_words};
use super::kind::{Kind, NetPart, Spec, width};
use super::list::Member;
use super::parted::Parted;
use super::slot::SlotId;
use super::table::{Layout, NoMemory, Table, Value};
use crate::clock::Now;
use crate::ids::{PORTS_MAX, PortId};
use crate::packet::Family;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) const NANOS_PER_SEC: u64 = 1_000_000_000;

/// What is in a set, or which sets.
#[derive(Debug)]
pub(super) enum Content {
    Table(Box<Table>),
    List(ArcSwap<Vec<Arc<Member>>>),
}

/// What only control knows.
#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) comments: Parted<Box<str>>,
    /// Comments of a list, by member.
    pub(super) list_comments: HashMap<SlotId, Box<str>>,
    /// Entries by the prefix of their network.
    pub(super) prefixes: HashMap<u8, usize>,
    /// Numbers of counters.
    pub(super) numbers: Numbers,
    /// Of networks with NICs: how many entries a network has. It has a mark in the table, an entry without a NIC.
    pub(super) nets: Parted<usize>,
    /// Names of NICs by number, from 1.
    ifaces: Vec<String>,
    /// The part that is swept next.
    pub(super) hand: usize,
    /// No entry's time is up before: nanoseconds on the daemon's clock.
    pub(super) first_deadline: u64,
    /// Lists that were in force and that a worker may still look at.
    pub(super) left: Vec<Arc<Vec<Arc<Member>>>>,
}

/// A set.
#[derive(Debug)]
pub struct Set {
    pub(super) spec: Spec,
    pub(super) content: Content,
    /// Prefix lengths of networks that are there, one bit each.
    pub(super) prefixes: [AtomicU64; 3],
    pub(super) counters: Counters,
    /// Number that the name of each NIC has in this set; 0: none.
    nics: Box<[AtomicU16]>,
    /// Names of all NICs.
    ports: Arc<[String]>,
    writer: Mutex<Writer>,
}

impl Set {
    /// An empty set, with room for so many entries, on a gateway whose NICs are called `ports`.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub fn new(spec: Spec, entries: usize, ports: &Arc<[String]>) -> Result<Self, NoMemory> {
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
            Content::Table(Box::new(Table::new(layout, entries.min(spec.entries_max()), seed)?))
        };
        Ok(Self {
            content,
            prefixes: Default::default(),
            counters: Counters::default(),
            nics: (0..PORTS_MAX).map(|_| AtomicU16::new(0)).collect(),
            ports: Arc::clone(ports),
            writer: Mutex::default(),
            spec,
        })
    }

    /// What it was made with.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
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
        size_of::<Self>() + content + self.counters.bytes()
    }

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

    // Names of NICs. Control.

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
}

/// Whether an entry's time is up.
pub(super) const fn is_over(value: &Value, nanos: u64) -> bool {
    value.deadline != 0 && value.deadline <= nanos
}

/// The widest prefix is a bit of the last word.
const _: () = assert!(width(Family::V6) / 64 == 2, "three words of prefixes");
