//! Values that rules point to from within the packet path: made on control, shared by workers and whoever reads what
//! they noted, and kept for as long as the process lives, so that nobody has to count who still needs them. The same
//! value is kept once, however often rules are read again.

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Mutex, PoisonError};

/// Where the values of one type are kept.
pub type Pool<T> = Mutex<Option<HashSet<&'static T>>>;

/// A type whose values may be kept.
pub trait Kept: Eq + Hash + Sized + 'static {
    /// Where.
    fn pool() -> &'static Pool<Self>;
}

/// A kept value; as small as a pointer, and copied as cheaply.
#[derive(Debug)]
pub struct Interned<T: Kept>(&'static T);

impl<T: Kept> Interned<T> {
    /// Keeps a value, or finds the one like it.
    #[must_use]
    pub fn new(value: T) -> Self {
        let mut pool = T::pool().lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pool.get_or_insert_default();
        if let Some(kept) = pool.get(&value) {
            return Self(kept);
        }
        let kept: &'static T = Box::leak(Box::new(value));
        pool.insert(kept);
        Self(kept)
    }
}

impl<T: Kept> Deref for Interned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0
    }
}

impl<T: Kept> Clone for Interned<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Kept> Copy for Interned<T> {}

impl<T: Kept> PartialEq for Interned<T> {
    fn eq(&self, other: &Self) -> bool {
        // Equal values are the same one.
        std::ptr::eq(self.0, other.0)
    }
}

impl<T: Kept> Eq for Interned<T> {}

impl<T: Kept> Hash for Interned<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
