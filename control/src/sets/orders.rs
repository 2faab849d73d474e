//! What rules want done to sets (`-j SET`), from the workers' rings to the sets; and what has expired removed. A thread of
//! its own, woken by workers: an order is carried out at most a millisecond after its packet, give or take what the thread
//! waits for a core, and the next packet that asks the set meets it.

use super::Store;
use dataplane::sets::SetAsk;
use dataplane::worker::Waker;
use rtrb::Consumer;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Orders that may wait, per worker. What finds no room is dropped and counted by the worker.
pub const ASK_RING: usize = 8192;

/// Rest between two looks while orders keep coming: workers need not wake us for each then.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Time between two sweeps, each of a sixteenth of each set.
const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Orders {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Orders {
    /// Starts it. `waker` is what workers wake it by.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(store: Arc<Store>, mut rings: Vec<Consumer<SetAsk>>, waker: Arc<Waker>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (asked_to, sleep) = (Arc::clone(&stop), Arc::clone(&waker));
        let run = move || {
            let mut swept = Instant::now();
            while !asked_to.load(Ordering::Relaxed) {
                let mut found = false;
                for ring in &mut rings {
                    while let Ok(ask) = ring.pop() {
                        found = true;
                        store.carry_out(&ask);
                    }
                }
                let due = SWEEP_EVERY.saturating_sub(swept.elapsed());
                if due.is_zero() {
                    swept = Instant::now();
                    store.sweep();
                } else if found {
                    std::thread::sleep(LOOK_EVERY);
                } else {
                    let nothing =
                        || !asked_to.load(Ordering::Relaxed) && rings.iter().all(Consumer::is_empty);
                    sleep.wait(due, std::iter::empty(), nothing);
                }
            }
        };
        let thread = std::thread::Builder::new().name("sets".to_owned()).spawn(run)?;
        Ok(Self { stop, waker, thread: Some(thread) })
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}
