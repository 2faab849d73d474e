//! Packets and bytes of a set's entries, by number: pages of them, each twice as large as the one before, so that
//! counters stay where they are. Workers count; control gives the numbers.

use super::table::NoMemory;
use crate::pages::Mapping;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of the first page.
const FIRST_PAGE: u64 = 256;
const PAGES: usize = 32;
/// Bytes of one entry's.
const ENTRY_BYTES: usize = 2 * size_of::<AtomicU64>();

/// Packets and bytes of one entry.
pub(super) type Counts<'a> = [&'a AtomicU64; 2];

/// Those of a set.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pages: [OnceLock<Mapping>; PAGES],
}

/// Which numbers are given. Control.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Numbers that nobody has any more.
    free: Vec<u64>,
    /// Numbers given so far.
    given: u64,
}

/// Where the counters with a number are.
fn page_of(number: u64) -> (usize, usize) {
    let page = (number / FIRST_PAGE + 1).ilog2();
    let before = FIRST_PAGE * ((1 << page) - 1);
    (page as usize, usize::try_from(number - before).unwrap_or(usize::MAX))
}

pub(super) fn load([packets, bytes]: Counts<'_>) -> (u64, u64) {
    (packets.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
}

impl Counters {
    /// The counters with a number. Any thread.
    #[inline]
    pub(super) fn get(&self, number: u64) -> Option<Counts<'_>> {
        let (page, at) = page_of(number);
        let words = self.pages.get(page)?.get()?.words();
        Some([words.get(2 * at)?, words.get(2 * at + 1)?])
    }

    /// Sees to it that there are counters with that number. Control.
    pub(super) fn reserve(&self, number: u64) -> Result<(), NoMemory> {
        let (page, _) = page_of(number);
        let mapped = self.pages.get(page).ok_or(NoMemory)?;
        if mapped.get().is_none() {
            let entries = usize::try_from(FIRST_PAGE << page).map_err(|_| NoMemory)?;
            let mapping = Mapping::plain(entries * ENTRY_BYTES).map_err(|_| NoMemory)?;
            mapped.get_or_init(|| mapping);
        }
        Ok(())
    }

    /// Memory they take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.pages.iter().filter_map(OnceLock::get).map(Mapping::bytes).sum()
    }
}

impl Numbers {
    /// The number that is given next.
    pub(super) fn next(&self) -> u64 {
        self.free.last().copied().unwrap_or(self.given)
    }

    pub(super) fn take(&mut self) -> u64 {
        self.free.pop().unwrap_or_else(|| {
            self.given += 1;
            self.given - 1
        })
    }

    pub(super) fn give(&mut self, number: u64) {
        self.free.push(number);
    }
}
