//! Sets that come together with rules: made aside, put in place once the rules that name them are sure to run, and taken back
//! with them. Control threads.
//!
//! Invariant: until then nobody sees them, and rules in force go on with the sets they were made for; those have slots of
//! their own, so no packet meets old rules with new sets or new rules with old ones.

use super::{Inner, Named, Services, Store};
use crate::iptables::diagnostics::{Diagnostic, Span};
use dataplane::sets::{Kind, Slot, SlotId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The sets of a file, not in place yet.
#[derive(Debug)]
pub struct Staged(Vec<Named>);

/// What stood where sets were put.
#[derive(Clone, Debug)]
pub struct Replaced(Vec<(String, Option<Arc<Slot>>)>);

impl Store {
    /// Makes the sets that a file leaves behind which has nothing to begin with.
    ///
    /// # Errors
    /// Everything that is wrong with it. Also if a list that is not in the file has a set that is: it would go on with the
    /// old one.
    pub fn stage(&self, text: &[u8], services: &dyn Services) -> Result<Staged, Vec<Diagnostic>> {
        let last_id = Arc::clone(&self.inner().last_id);
        let inner = Mutex::new(Inner { last_id, ..Inner::default() });
        let aside = Self { inner, ports: Arc::clone(&self.ports), started: self.started.clone() };
        aside.restore(text, false, services)?;
        let staged = Staged(aside.inner.into_inner().unwrap_or_else(PoisonError::into_inner).sets);
        let inner = self.inner();
        let lists = inner.sets.iter().filter(|named| named.slot.set().spec().kind == Kind::ListSet);
        for list in lists.filter(|list| staged.find(&list.name).is_none()) {
            for member in list.slot.set().members() {
                let known = inner.sets.iter().find(|named| named.slot.id() == member.id());
                if let Some(Named { name, .. }) = known.filter(|known| staged.find(&known.name).is_some()) {
                    let list = &list.name;
                    let message = format!("list `{list}` has set `{name}` and is not in the file");
                    return Err(vec![
                        Diagnostic::error(Span::default(), message)
                            .hint("the list must come with its sets, or else it goes on with the old ones"),
                    ]);
                }
            }
        }
        Ok(staged)
    }

    /// Makes the sets of a file that are not there yet; those that are stay as they are.
    ///
    /// # Errors
    /// Everything that is wrong with the file, by itself.
    pub fn stage_new(&self, text: &[u8], services: &dyn Services) -> Result<Staged, Vec<Diagnostic>> {
        Self::new(&self.ports).check(text, services)?;
        let (sets, last_id) = {
            let inner = self.inner();
            let there = |Named { name, slot }: &Named| Named { name: name.clone(), slot: Arc::clone(slot) };
            (inner.sets.iter().map(there).collect(), Arc::clone(&inner.last_id))
        };
        let inner = Mutex::new(Inner { sets, last_id, ..Inner::default() });
        let aside = Self { inner, ports: Arc::clone(&self.ports), started: self.started.clone() };
        let kept = aside.slots().into_keys().collect();
        aside.restore_but(&kept, text, false, services)?;
        let mut sets = aside.inner.into_inner().unwrap_or_else(PoisonError::into_inner).sets;
        sets.retain(|named| !kept.contains(&named.name));
        Ok(Staged(sets))
    }

    /// The sets that rules may name which come with these.
    #[must_use]
    pub fn slots_with(&self, staged: &Staged) -> BTreeMap<String, Arc<Slot>> {
        let mut slots = self.slots();
        slots.extend(staged.0.iter().map(|named| (named.name.clone(), Arc::clone(&named.slot))));
        slots
    }

    /// Slots whose sets have others in their place once these are put there.
    #[must_use]
    pub fn replaced_by(&self, staged: &Staged) -> Vec<SlotId> {
        let inner = self.inner();
        let known = staged.0.iter().filter_map(|named| inner.find(&named.name));
        known.map(|known| known.slot.id()).collect()
    }

    /// Every set that comes, with how many entries it has, and how many the one has that goes.
    #[must_use]
    pub fn compare(&self, staged: &Staged) -> Vec<(String, Option<usize>, usize)> {
        let inner = self.inner();
        let row = |named: &Named| {
            let before = inner.find(&named.name).map(|known| known.slot.set().len());
            (named.name.clone(), before, named.slot.set().len())
        };
        staged.0.iter().map(row).collect()
    }

    /// Puts them in place of those with the same names, and beside the others.
    #[must_use]
    pub fn put(&self, staged: Staged) -> Replaced {
        let mut inner = self.inner();
        let put =
            staged.0.into_iter().map(|Named { name, slot }| (name.clone(), inner.set_slot(name, Some(slot))));
        Replaced(put.collect())
    }

    /// Puts back what stood there.
    pub fn put_back(&self, replaced: &Replaced) {
        let mut inner = self.inner();
        for (name, slot) in &replaced.0 {
            inner.set_slot(name.clone(), slot.clone());
        }
    }
}

impl Staged {
    fn find(&self, name: &str) -> Option<&Named> {
        self.0.iter().find(|named| named.name == name)
    }
}

impl Inner {
    /// Gives a name another set, or none; gives back which one it had.
    fn set_slot(&mut self, name: String, slot: Option<Arc<Slot>>) -> Option<Arc<Slot>> {
        let at = self.sets.iter().position(|named| named.name == name);
        match (at, slot) {
            (Some(at), Some(slot)) => Some(std::mem::replace(&mut self.sets[at].slot, slot)),
            (Some(at), None) => Some(self.sets.remove(at).slot),
            (None, Some(slot)) => {
                self.sets.push(Named { name, slot });
                None
            }
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::names::FileServices;

    fn store(text: &str) -> Store {
        let store = Store::new(&[]);
        store.restore(text.as_bytes(), false, &FileServices::default()).unwrap();
        store
    }

    fn stage(store: &Store, text: &str) -> Result<Staged, Vec<Diagnostic>> {
        store.stage(text.as_bytes(), &FileServices::default())
    }

    fn list(store: &Store) -> String {
        store.command(b"save -sorted", &FileServices::default()).unwrap().text
    }

    #[test]
    fn staged_sets_are_seen_once_they_are_put_in_place_and_go_as_they_came() {
        let store = store("create a hash:ip\nadd a 10.0.0.1\ncreate c hash:ip\n");
        let before = list(&store);
        let old = store.slots();
        let staged = stage(&store, "create a hash:net\nadd a 10.0.0.0/8\ncreate b hash:ip\n").unwrap();
        assert_eq!(list(&store), before);
        assert_eq!(store.compare(&staged), [("a".to_owned(), Some(1), 1), ("b".to_owned(), None, 0)]);
        let new = store.slots_with(&staged);
        assert_eq!(new.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(new["a"].id() != old["a"].id() && new["c"].id() == old["c"].id());
        assert_eq!(store.replaced_by(&staged), [old["a"].id()]);
        let replaced = store.put(staged);
        assert!(list(&store).contains("add a 10.0.0.0/8") && list(&store).contains("create b"));
        assert_eq!(store.slots()["a"].id(), new["a"].id());
        store.put_back(&replaced);
        assert_eq!(list(&store), before);
    }

    #[test]
    fn further_sets_are_made_aside_and_those_that_are_there_stay() {
        let store = store("create a hash:ip\nadd a 10.0.0.1\n");
        let (before, old) = (list(&store), store.slots());
        let services = FileServices::default();
        let text = "flush\ncreate a hash:ip\nadd a 10.0.0.2\ncreate l list:set\nadd l a\n";
        let staged = store.stage_new(text.as_bytes(), &services).unwrap();
        assert_eq!(list(&store), before);
        let _ = store.put(staged);
        assert_eq!(store.slots()["a"].id(), old["a"].id());
        let all = list(&store);
        assert!(all.contains("add a 10.0.0.1") && !all.contains("10.0.0.2"), "{all}");
        assert!(all.contains("add l a"), "{all}");
        assert!(store.stage_new(b"create b hash:ip\nadd b x\n", &services).is_err());
        assert_eq!(list(&store), all);
    }

    #[test]
    fn what_is_wrong_with_a_file_changes_nothing() {
        let text = "create a hash:ip\ncreate l list:set\nadd l a\n";
        let store = store(text);
        let before = list(&store);
        for wrong in
            ["create a hash:ip\nadd a x\n", "create x hash:ip\ncreate x hash:ip\n", "create a hash:ip\n"]
        {
            assert!(stage(&store, wrong).is_err(), "{wrong}");
            assert_eq!(list(&store), before);
        }
        assert!(stage(&store, text).is_ok());
    }
}
