//! Requests to one worker about its flows, and waiting until they are done. API threads; a worker has one desk, and who
//! holds its lock is the only one it works for.

use dataplane::flow::Request;
use dataplane::worker::{Waker, WorkerCounters};
use rtrb::Producer;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Requests that may wait for a worker: as many as one slice of a walk over its flows can make.
pub const REQUEST_RING: usize = 4096;

/// How often is looked whether they are done.
const LOOK_EVERY: Duration = Duration::from_micros(200);

/// How long a worker may go without polling before it counts as stuck. One that polls does a slice each time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where one worker takes requests.
#[derive(Debug)]
pub struct Desk {
    ring: Producer<Request>,
    /// Requests handed over so far.
    sent: u64,
    waker: Arc<Waker>,
    counters: Arc<WorkerCounters>,
}

/// The worker has stopped polling: what was asked of it may be done some time, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker does not answer")]
pub struct Stuck;

impl Desk {
    /// A desk in front of a worker that reads the other end of `ring`, is woken by `waker` and counts in `counters`.
    #[must_use]
    pub const fn new(ring: Producer<Request>, waker: Arc<Waker>, counters: Arc<WorkerCounters>) -> Self {
        Self { ring, sent: 0, waker, counters }
    }

    /// Hands requests over and waits until the worker has done them all.
    ///
    /// # Errors
    /// When the worker has stopped polling.
    pub fn ask(&mut self, requests: impl IntoIterator<Item = Request>) -> Result<(), Stuck> {
        for request in requests {
            if self.ring.is_full() {
                self.wait_until(|desk| !desk.ring.is_full())?;
            }
            // There is room now, and nobody else fills it.
            self.sent += u64::from(self.ring.push(request).is_ok());
        }
        self.wait_until(|desk| desk.counters.polls.served.get() >= desk.sent)
    }

    fn wait_until(&self, is_done: impl Fn(&Self) -> bool) -> Result<(), Stuck> {
        self.waker.wake();
        let mut polled = (self.polls(), Instant::now());
        while !is_done(self) {
            let polls = self.polls();
            if polls != polled.0 {
                polled = (polls, Instant::now());
            } else if polled.1.elapsed() > PATIENCE {
                return Err(Stuck);
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn polls(&self) -> u64 {
        self.counters.polls.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::flow::{Change, Slot};
    use rtrb::{Consumer, RingBuffer};

    fn request() -> Request {
        Request::Flow { slot: Slot::default(), seq: 1, change: Change::Delete }
    }

    fn desk(room: usize) -> (Desk, Consumer<Request>, Arc<WorkerCounters>) {
        let (ring, requests) = RingBuffer::new(room);
        let counters = Arc::new(WorkerCounters::new(0, &[]));
        (Desk::new(ring, Arc::new(Waker::new().unwrap()), Arc::clone(&counters)), requests, counters)
    }

    #[test]
    fn more_requests_than_fit_the_ring_are_done_in_order_and_waited_for() {
        let (mut desk, mut requests, counters) = desk(4);
        let worker = std::thread::spawn(move || {
            let mut done = Vec::new();
            while done.len() < 11 {
                counters.polls.idle_polls.add(1);
                while let Ok(request) = requests.pop() {
                    done.push(request);
                    counters.polls.served.add(1);
                }
            }
            done
        });
        desk.ask([request(); 10]).unwrap();
        desk.ask([Request::Flush]).unwrap();
        let done = worker.join().unwrap();
        assert_eq!((done.len(), done[9], done[10]), (11, request(), Request::Flush));
    }

    #[test]
    fn a_worker_that_does_not_poll_is_given_up() {
        let (mut desk, _requests, _) = desk(4);
        assert_eq!(desk.ask([Request::Flush]), Err(Stuck));
    }
}
