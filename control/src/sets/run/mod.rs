//! One command carried out on the sets: those that make, move and destroy whole sets here, those on
//! elements in a module of their own. Control threads, under the store's lock.

mod elements;

use super::command::{Asked, Command, Options};
use super::store::{Answer, Inner, Named};
use crate::iptables::diagnostics::Diagnostic;
use dataplane::clock::Now;
use dataplane::sets::{Kind, Set, Slot, SlotId, Spec};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A command with what it is about.
pub(super) struct Run<'a> {
    pub(super) inner: &'a mut Inner,
    pub(super) ports: &'a Arc<[String]>,
    pub(super) asked: &'a Asked,
    pub(super) now: Now,
}

/// What kind of thing a set's elements are made of: sets that differ in it do not swap.
fn features(kind: Kind) -> (bool, bool, bool, bool, bool) {
    let is_nic = kind == Kind::HashNetIface;
    let has_port = kind.has_port() || kind == Kind::BitmapPort;
    let is_net = kind.net() != dataplane::sets::NetPart::None;
    (kind.has_address(), has_port, kind.has_second_address(), is_nic || kind == Kind::HashMac, is_net)
}

impl Run<'_> {
    fn options(&self) -> Options {
        self.asked.options
    }

    fn wrong(&self, at: usize, message: impl Into<String>) -> Diagnostic {
        self.asked.wrong(at, message)
    }

    fn slot(&self, name: &str, at: usize) -> Result<Arc<Slot>, Diagnostic> {
        let missing = || self.wrong(at, format!("there is no set `{name}`"));
        self.inner.find(name).map(|named| Arc::clone(&named.slot)).ok_or_else(missing)
    }

    /// Carries it out. A new set has room for `size` entries.
    pub(super) fn command(&mut self, size: usize) -> Result<Answer, Diagnostic> {
        let done = Ok(Answer::default());
        match &self.asked.command {
            Command::Create(name, spec) => self.create(name, spec, size).and(done),
            Command::Add(name, added) => self.add(name, &added.0, &added.1).and(done),
            Command::Del(name, what) => self.del(name, what).and(done),
            Command::Test(name, what) => self.test(name, what),
            Command::Destroy(Some(name)) => self.destroy(name).and(done),
            Command::Destroy(None) => self.destroy_all().and(done),
            Command::Flush(Some(name)) => {
                self.slot(name, 1)?.set().flush();
                done
            }
            Command::Flush(None) => {
                self.inner.sets.iter().for_each(|named| named.slot.set().flush());
                done
            }
            Command::Rename(from, to) => self.rename(from, to).and(done),
            Command::Swap(from, to) => self.swap(from, to).and(done),
            // Listings are not made under the lock, see `Store::run`.
            Command::List(_) | Command::Save(_) | Command::Commit => done,
        }
    }

    fn create(&mut self, name: &str, spec: &Spec, size: usize) -> Result<(), Diagnostic> {
        if let Some(known) = self.inner.find(name) {
            let known = known.slot.set();
            // Sizes of the hash aside.
            let Spec { hashsize, bucketsize, initval, forceadd, .. } = *known.spec();
            let alike = Spec { hashsize, bucketsize, initval, forceadd, ..spec.clone() };
            if self.options().exist && alike == *known.spec() {
                return Ok(());
            }
            return Err(self.wrong(1, format!("there is a set `{name}` already")));
        }
        let entries = size.max(spec.hashsize as usize / 2);
        let set = Set::new(spec.clone(), entries, self.ports).map_err(|error| {
            self.wrong(1, error.to_string()).hint("a smaller `hashsize` takes less at first")
        })?;
        let id = self.inner.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let slot = Arc::new(Slot::new(SlotId(id), Arc::new(set)));
        self.inner.sets.push(Named { name: name.to_owned(), slot });
        Ok(())
    }

    /// A set that nothing names.
    fn unused(&self, name: &str, done: &str) -> Result<Arc<Slot>, Diagnostic> {
        let slot = self.slot(name, 1)?;
        match self.inner.references(&slot) {
            0 => Ok(slot),
            count => Err(self
                .wrong(1, format!("set `{name}` cannot be {done}: it is in use"))
                .hint(format!("rules and lists name it {count} time(s)"))),
        }
    }

    fn destroy(&mut self, name: &str) -> Result<(), Diagnostic> {
        if self.options().exist && self.inner.find(name).is_none() {
            return Ok(());
        }
        let id = self.unused(name, "destroyed")?.id();
        self.inner.sets.retain(|named| named.slot.id() != id);
        Ok(())
    }

    fn destroy_all(&mut self) -> Result<(), Diagnostic> {
        let used = self.inner.sets.iter().find(|named| self.inner.references(&named.slot) > 0);
        if let Some(named) = used {
            return Err(self.wrong(0, format!("set `{}` cannot be destroyed: it is in use", named.name)));
        }
        self.inner.sets.clear();
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), Diagnostic> {
        let id = self.unused(from, "renamed")?.id();
        if self.inner.find(to).is_some() {
            return Err(self.wrong(2, format!("there is a set `{to}` already")));
        }
        if let Some(named) = self.inner.sets.iter_mut().find(|named| named.slot.id() == id) {
            to.clone_into(&mut named.name);
        }
        Ok(())
    }

    fn swap(&self, from: &str, to: &str) -> Result<(), Diagnostic> {
        let (a, b) = (self.slot(from, 1)?, self.slot(to, 2)?);
        let (in_a, in_b) = (a.set(), b.set());
        let of = |set: &Set| (features(set.spec().kind), set.spec().family);
        let is_list = |set: &Set| set.spec().kind == Kind::ListSet;
        if of(&in_a) != of(&in_b) || is_list(&in_a) != is_list(&in_b) {
            return Err(self.wrong(2, "sets of different types cannot be swapped"));
        }
        a.replace(in_b);
        b.replace(in_a);
        Ok(())
    }
}
