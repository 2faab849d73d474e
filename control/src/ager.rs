//! Aging. Walks every worker's flow region read-only, in bounded slices, and names flows whose time is up to the
//! worker that owns them; the worker looks again and removes. Runs on its own low-priority thread: a table of ten
//! million flows is walked without a worker noticing.

use dataplane::clock::Now;
use dataplane::flow::{Cursor, Expired, Region};
use rtrb::Producer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Slots looked at per slice.
const SLICE_SLOTS: usize = 8192;
/// Pause between two slices of one region while a round is under way.
const SLICE_PAUSE: Duration = Duration::from_micros(200);
/// How often a round over all regions starts: the shortest netfilter timeout is one second.
const ROUND: Duration = Duration::from_millis(500);

/// One worker's table as the ager sees it.
#[derive(Debug)]
pub struct Aged {
    /// The table, read-only.
    pub region: Arc<Region>,
    /// Where its owner hears of expired flows.
    pub named: Producer<Expired>,
}

/// Ages `tables` until `stop` is set and the thread unparked. `started` is the zero of the workers' clock.
pub fn run(tables: &mut [Aged], started: Instant, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let round = Instant::now();
        for table in &mut *tables {
            table.age(started, stop);
        }
        while !stop.load(Ordering::Relaxed)
            && let Some(rest) = ROUND.checked_sub(round.elapsed())
        {
            std::thread::park_timeout(rest);
        }
    }
}

impl Aged {
    /// One walk over the whole table.
    fn age(&mut self, started: Instant, stop: &AtomicBool) {
        let mut found = Vec::new();
        let mut cursor = Cursor::default();
        loop {
            let now = Now::since(started);
            cursor = self.region.expired(now.tick(), cursor, SLICE_SLOTS, &mut found);
            for flow in found.drain(..) {
                // A full ring is not waited for: what does not fit is found again in the next round.
                if self.named.push(flow).is_err() {
                    break;
                }
            }
            if cursor.is_start() || stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(SLICE_PAUSE);
        }
    }
}
