//! How far apart the fragments of a datagram come: a sender whose identifications wrap while a fragment is missing
//! would have fragments of two datagrams put together (RFC 4963), so a datagram is given up once too many others of its
//! sender's fragments have come in between. IPv4 only: IPv6 has 32 bits of identification. Pure.
//!
//! Invariant: a sender is known as long as a datagram of its own is in the making.

use std::collections::HashMap;

/// A sender of fragments.
#[derive(Debug, Default)]
struct Sender {
    /// Fragments that came from it; wraps.
    fragments: u32,
    /// Datagrams of its in the making.
    datagrams: u32,
}

/// The senders of all datagrams in the making, by address.
#[derive(Debug, Default)]
pub(super) struct Senders(HashMap<u128, Sender>);

impl Senders {
    /// A datagram of this sender is begun. Returns how many fragments came from it.
    pub(super) fn join(&mut self, src: u128) -> u32 {
        let sender = self.0.entry(src).or_default();
        sender.datagrams += 1;
        sender.fragments
    }

    /// A fragment came from it. Returns how many that makes.
    pub(super) fn count(&mut self, src: u128) -> u32 {
        self.0.get_mut(&src).map_or(0, |sender| {
            sender.fragments = sender.fragments.wrapping_add(1);
            sender.fragments
        })
    }

    /// How many fragments came from it.
    pub(super) fn seen(&self, src: u128) -> u32 {
        self.0.get(&src).map_or(0, |sender| sender.fragments)
    }

    /// A datagram of this sender is complete or given up.
    pub(super) fn leave(&mut self, src: u128) {
        if let Some(sender) = self.0.get_mut(&src) {
            sender.datagrams -= 1;
            if sender.datagrams == 0 {
                self.0.remove(&src);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
