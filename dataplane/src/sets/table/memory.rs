//! Where the segments of a table are: in chunks, each twice as large as the one before. What a table is made with is on
//! huge pages (lookups 5 to 15 % faster in a million entries); what it grows by is not: an edit would wait for one for
//! 3 to 6 ms, and takes 0.5 ms at most without.
//! Segments that were replaced are used again. Nothing goes back to the system before the table does: a reader that was
//! held up may be anywhere.

use super::segment::{Layout, PLACES_LOG2_MAX, Places, Segment};
use crate::pages::Mapping;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of the first chunk.
const FIRST_CHUNK_BYTES: usize = 8 << 10;
/// All together are 256 GiB.
const CHUNKS: usize = 25;

/// There is no memory for more entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no memory for more elements")]
pub struct NoMemory;

/// What only the writer knows.
#[derive(Debug, Default)]
struct Books {
    /// Whether the table grows by what is taken now.
    is_made: bool,
    /// The chunk that segments are taken from, and the words taken from it.
    chunk: u8,
    words: usize,
    /// Words of all segments.
    all_words: usize,
    /// Segments given back, by size, with the part they were in.
    free: [Vec<(Segment, usize)>; PLACES_LOG2_MAX as usize + 1],
}

/// Memory of one table.
#[derive(Debug)]
pub(super) struct Memory {
    layout: Layout,
    chunks: [OnceLock<Mapping>; CHUNKS],
    /// Taken by the writer only: it waits for nobody.
    books: Mutex<Books>,
}

impl Memory {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, chunks: [const { OnceLock::new() }; CHUNKS], books: Mutex::default() }
    }

    #[inline]
    pub(super) const fn layout(&self) -> Layout {
        self.layout
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table is made: from now on it grows.
    pub(super) fn made(&self) {
        self.books().is_made = true;
    }

    /// Memory in use, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.books().all_words * size_of::<u64>()
    }

    /// The places of a segment. Any thread.
    #[inline]
    pub(super) fn places(&self, segment: Segment) -> Places<'_> {
        let words = self.chunks[segment.chunk()].get().map_or(&[][..], Mapping::words);
        Places::new(&words[segment.word()..], self.layout, segment.places_log2())
    }

    /// An empty segment. Of one that is used again `leave` is told the part it was in, before anything is written to it.
    pub(super) fn take(
        &self,
        places_log2: u8,
        depth: u8,
        leave: impl FnOnce(usize),
    ) -> Result<Segment, NoMemory> {
        let mut books = self.books();
        if let Some((segment, shard)) = books.free[usize::from(places_log2)].pop() {
            leave(shard);
            self.places(segment).clear();
            return Ok(segment.with_depth(depth));
        }
        let words = self.layout.segment_words(places_log2);
        loop {
            let chunk = self.chunks.get(usize::from(books.chunk)).ok_or(NoMemory)?;
            let bytes = FIRST_CHUNK_BYTES << books.chunk;
            if (books.words + words) * size_of::<u64>() <= bytes {
                if chunk.get().is_none() {
                    let map = if books.is_made { Mapping::plain } else { Mapping::new };
                    let mapping = map(bytes).map_err(|_| NoMemory)?;
                    chunk.get_or_init(|| mapping);
                }
                let segment = Segment::new(books.chunk, books.words, places_log2, depth);
                books.words += words;
                books.all_words += words;
                return Ok(segment);
            }
            (books.chunk, books.words) = (books.chunk + 1, 0);
        }
    }

    /// Takes a segment back that nothing names any more; readers of that part may still be in it.
    pub(super) fn give(&self, segment: Segment, shard: usize) {
        self.books().free[usize::from(segment.places_log2())].push((segment, shard));
    }
}
