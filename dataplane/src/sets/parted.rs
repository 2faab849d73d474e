//! A map that grows in small steps: a usual one of a million entries takes 100 ms to double. Control only.

use super::element::Key;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

const PARTS: usize = 256;

/// Values by the key of an entry.
#[derive(Debug)]
pub(super) struct Parted<V> {
    hasher: RandomState,
    parts: Vec<HashMap<Key, V>>,
}

impl<V> Default for Parted<V> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), parts: Vec::new() }
    }
}

impl<V> Parted<V> {
    fn at(&self, key: &Key) -> usize {
        usize::try_from(self.hasher.hash_one(key) >> 56).unwrap_or(0)
    }

    /// The map that a key is in.
    pub(super) fn part(&mut self, key: &Key) -> &mut HashMap<Key, V> {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, HashMap::new);
        }
        let at = self.at(key);
        &mut self.parts[at]
    }

    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.parts.get(self.at(key))?.get(key)
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if !self.parts.is_empty() {
            self.part(key).remove(key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(HashMap::len).sum()
    }

    pub(super) fn clear(&mut self) {
        self.parts = Vec::new();
    }
}
