//! What sets there will be behind the lines of a file so far, without their being carried out. Control threads.

use super::Store;
use super::command::Command;
use dataplane::sets::Spec;
use std::collections::HashMap;

/// Sets as they are, and over them those that lines make, move and destroy.
pub(super) struct Overlay<'a> {
    sets: &'a Store,
    changed: HashMap<String, Option<Spec>>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(sets: &'a Store) -> Self {
        Self { sets, changed: HashMap::new() }
    }

    /// How a set is made, if there is one of that name.
    pub(super) fn spec(&self, name: &str) -> Option<Spec> {
        self.changed.get(name).cloned().unwrap_or_else(|| self.sets.spec(name))
    }

    fn take(&mut self, name: &str) -> Option<Spec> {
        let spec = self.spec(name);
        self.changed.insert(name.to_owned(), None);
        spec
    }

    /// Goes on to behind a command.
    pub(super) fn foresee(&mut self, command: Command) {
        match command {
            Command::Create(name, spec) => {
                self.changed.insert(name, Some(*spec));
            }
            Command::Destroy(Some(name)) => {
                self.changed.insert(name, None);
            }
            Command::Destroy(None) => {
                let names = self.sets.slots().into_keys();
                let names: Vec<_> = names.chain(self.changed.keys().cloned()).collect();
                self.changed.extend(names.into_iter().map(|name| (name, None)));
            }
            Command::Rename(from, to) => {
                let spec = self.take(&from);
                self.changed.insert(to, spec);
            }
            Command::Swap(from, to) => {
                let (a, b) = (self.take(&from), self.take(&to));
                self.changed.insert(from, b);
                self.changed.insert(to, a);
            }
            _ => {}
        }
    }
}
