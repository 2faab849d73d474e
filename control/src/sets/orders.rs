//! What rules want done to sets (`-j SET`), from the workers' rings to the sets; and what has expired removed. A thread of
//! its own: an order is carried out a millisecond after its packet, give or take what the thread waits for a core, and
//! the next packet that asks the set meets it.

use super::Store;
use dataplane::sets::SetAsk;
use rtrb::Consumer;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Orders that may wait, per worker. What finds no room is dropped and counted by the worker.
pub const ASK_RING: usize = 8192;

/// How often is looked for orders.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Looks between two sweeps. A sweep is of a sixteenth of each set.
const SWEEP_EVERY: u32 = 50;

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Orders {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Orders {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(store: Arc<Store>, mut rings: Vec<Consumer<SetAsk>>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let asked_to = Arc::clone(&stop);
        let run = move || {
            for look in 0_u32.. {
                if asked_to.load(Ordering::Relaxed) {
                    return;
                }
                for ring in &mut rings {
                    while let Ok(ask) = ring.pop() {
                        store.carry_out(&ask);
                    }
                }
                if look % SWEEP_EVERY == 0 {
                    store.sweep();
                }
                std::thread::sleep(LOOK_EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("sets".to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}
