//! A ring for loom: what `rtrb` promises and no more. One release store of the tail makes a batch visible; the head goes
//! back the same way. Every access to a place is shown to loom, which reports one that is not ordered behind the last.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
// Loom runs one thread at a time and does not know this one: it orders nothing in the model.
use std::sync::Mutex;

#[derive(Debug)]
struct Place<T> {
    access: UnsafeCell<()>,
    item: Mutex<Option<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    places: Vec<Place<T>>,
    /// Items taken so far.
    head: AtomicUsize,
    /// Items published so far.
    tail: AtomicUsize,
}

/// The giver's end.
#[derive(Debug)]
pub struct Producer<T>(Arc<Shared<T>>);

/// The taker's end.
#[derive(Debug)]
pub struct Consumer<T>(Arc<Shared<T>>);

/// Places for items, invisible until they are filled.
#[derive(Debug)]
pub struct WriteChunk<'a, T>(&'a Producer<T>, usize);

/// The ring is full or empty.
#[derive(Debug)]
pub struct NoSuchPlaces;

/// A ring for `capacity` items and its two ends.
#[must_use]
pub fn ring<T>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let place = |_| Place { access: UnsafeCell::new(()), item: Mutex::new(None) };
    let shared = Arc::new(Shared {
        places: (0..capacity).map(place).collect(),
        head: AtomicUsize::new(0),
        tail: AtomicUsize::new(0),
    });
    (Producer(Arc::clone(&shared)), Consumer(shared))
}

impl<T> Shared<T> {
    fn place(&self, number: usize) -> &Place<T> {
        &self.places[number % self.places.len()]
    }
}

impl<T> Place<T> {
    fn put(&self, item: Option<T>) -> Option<T> {
        self.access.with_mut(|_| std::mem::replace(&mut *self.item.lock().expect("never poisoned"), item))
    }
}

impl<T> Producer<T> {
    /// Free places.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.0.places.len() - (self.0.tail.load(Relaxed) - self.0.head.load(Acquire))
    }

    /// `count` free places.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn write_chunk_uninit(&mut self, count: usize) -> Result<WriteChunk<'_, T>, NoSuchPlaces> {
        if count <= self.slots() { Ok(WriteChunk(self, count)) } else { Err(NoSuchPlaces) }
    }
}

impl<T> WriteChunk<'_, T> {
    /// Fills a place, which is not visible yet.
    pub fn write(&mut self, at: usize, item: T) {
        assert!(at < self.1, "of these places");
        let ring = &self.0.0;
        ring.place(ring.tail.load(Relaxed) + at).put(Some(item));
    }

    /// Makes all places visible.
    ///
    /// # Safety
    /// None here, but `rtrb`'s: every place was written.
    #[allow(unsafe_code, reason = "so that it is called as the real one is")]
    pub unsafe fn commit_all(self) {
        let ring = &self.0.0;
        ring.tail.store(ring.tail.load(Relaxed) + self.1, Release);
    }
}

impl<T> Consumer<T> {
    /// The next item.
    ///
    /// # Errors
    /// If none is there.
    pub fn pop(&mut self) -> Result<T, NoSuchPlaces> {
        let head = self.0.head.load(Relaxed);
        if head == self.0.tail.load(Acquire) {
            return Err(NoSuchPlaces);
        }
        let item = self.0.place(head).put(None).expect("what was published is there");
        self.0.head.store(head + 1, Release);
        Ok(item)
    }

    /// Whether nothing is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.head.load(Relaxed) == self.0.tail.load(Acquire)
    }
}
