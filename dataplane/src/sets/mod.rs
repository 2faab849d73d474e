//! Sets of addresses, networks, ports and NICs that rules ask about, as ipset(8) has them.
//!
//! A [`Slot`] is what a rule names; it holds a [`Set`], and two slots may swap theirs. Workers look sets up without a lock:
//! what is in a set is in a `table::Table` of atomics (a `list:set` has a short list instead). Control edits in place,
//! one thread at a time (a lock that workers never take), so that an edit reaches the next lookup. What workers want
//! changed (`-j SET`) goes to control as [`SetAsk`]s over a ring.
//!
//! Invariant: an entry that is neither added nor removed meanwhile is found by every lookup, whatever else is edited.

mod counters;
mod edit;
mod element;
mod kind;
mod list;
mod matching;
mod order;
mod parted;
mod set;
mod show;
mod slot;
mod subject;
mod table;
#[cfg(test)]
mod tests;

pub use edit::{Added, EditError, Extras};
pub use element::Element;
pub use kind::{Kind, NetPart, Spec, mask, width};
pub use list::Member;
pub use matching::{Compare, SetMatch};
pub use order::{SetAsk, SetOrder, SetUse};
pub use set::Set;
pub use show::Entry;
pub use slot::{Slot, SlotId};
pub use subject::{Directions, Subject};
pub use table::NoMemory;
