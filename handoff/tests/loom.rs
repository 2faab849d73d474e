//! The protocol between workers through every interleaving with at most [`PREEMPTIONS`] of them against a thread's will
//! (which finds nearly everything there is to find, in seconds): `RUSTFLAGS='--cfg loom' cargo test -p handoff --target-dir
//! target/loom`.
//!
//! A worker here sleeps without a limit, so a wake-up that is lost is a deadlock, which loom reports.

#![cfg(loom)]

use handoff::{Bell, Consumer, Outbox, ring};
use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// How often a thread is interrupted at a place that it did not choose.
const PREEMPTIONS: usize = 3;

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(test);
}

/// A worker's waker: its bell and, for the eventfd, a flag to wait for.
#[derive(Default)]
struct Waker {
    bell: Bell,
    event: Mutex<bool>,
    is_set: Condvar,
}

impl Waker {
    fn wake(&self) {
        if self.bell.must_wake() {
            *self.event.lock().unwrap() = true;
            self.is_set.notify_one();
        }
    }

    /// Sleeps if `nothing_waits`, as a worker does.
    fn sleep(&self, nothing_waits: impl FnOnce() -> bool) {
        self.bell.doze();
        let waits = !nothing_waits();
        let mut event = self.event.lock().unwrap();
        while !waits && !*event {
            event = self.is_set.wait(event).unwrap();
        }
        self.bell.rise();
        *event = false;
    }
}

/// Takes `count` items, sleeping in between.
fn take(rings: &mut [Consumer<usize>], count: usize, waker: &Waker) -> Vec<usize> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let before = taken.len();
        for ring in rings.iter_mut() {
            while let Ok(item) = ring.pop() {
                taken.push(item);
            }
        }
        if taken.len() == before {
            waker.sleep(|| rings.iter().all(Consumer::is_empty));
        }
    }
    taken
}

#[test]
fn batches_arrive_in_order_and_no_wake_up_is_lost() {
    model(|| {
        let waker = Arc::new(Waker::default());
        let (out, coming) = ring::<usize>(4);
        let sleeper = Arc::clone(&waker);
        let taker = thread::spawn(move || take(&mut [coming], 3, &sleeper));
        let mut outbox = Outbox::new(out);
        outbox.stage(1).unwrap();
        outbox.stage(2).unwrap();
        outbox.publish();
        waker.wake();
        outbox.stage(3).unwrap();
        outbox.publish();
        waker.wake();
        assert_eq!(taker.join().unwrap(), [1, 2, 3]);
    });
}

#[test]
fn two_givers_wake_one_sleeper() {
    model(|| {
        let waker = Arc::new(Waker::default());
        let (first, from_first) = ring::<usize>(1);
        let (second, from_second) = ring::<usize>(1);
        let give = |ring, item: usize, waker: &Waker| {
            let mut outbox = Outbox::new(ring);
            outbox.stage(item).unwrap();
            outbox.publish();
            waker.wake();
        };
        let other = Arc::clone(&waker);
        let giver = thread::spawn(move || give(first, 1, &other));
        let sleeper = Arc::clone(&waker);
        let taker = thread::spawn(move || take(&mut [from_first, from_second], 2, &sleeper));
        give(second, 2, &waker);
        giver.join().unwrap();
        let mut taken = taker.join().unwrap();
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
    });
}

#[test]
fn a_worker_without_frames_is_woken_when_they_come_home() {
    // Worker 0 has one frame and two packets to receive: the second one waits for the frame to come home.
    model(|| {
        let wakers = [Arc::new(Waker::default()), Arc::new(Waker::default())];
        let (packets, mut coming) = ring::<usize>(2);
        let (homeward, mut homecoming) = ring::<usize>(1);
        let (owner, receiver) = (Arc::clone(&wakers[1]), Arc::clone(&wakers[0]));
        let taker = thread::spawn(move || {
            let mut homeward = Outbox::new(homeward);
            for _ in 0..2 {
                for frame in take(std::slice::from_mut(&mut coming), 1, &owner) {
                    homeward.stage(frame).expect("the return ring holds every frame of its home");
                }
                homeward.publish();
                receiver.wake();
            }
        });
        let mut outbox = Outbox::new(packets);
        let mut frame = 7;
        for _ in 0..2 {
            outbox.stage(frame).unwrap();
            outbox.publish();
            wakers[1].wake();
            frame = take(std::slice::from_mut(&mut homecoming), 1, &wakers[0])[0];
        }
        assert_eq!(frame, 7, "the frame is home");
        taker.join().unwrap();
    });
}

#[test]
fn a_full_ring_refuses_and_loses_nothing() {
    model(|| {
        let (out, mut coming) = ring::<usize>(2);
        let taker = thread::spawn(move || {
            let mut taken = Vec::new();
            for _ in 0..2 {
                taken.extend(coming.pop());
            }
            (taken, coming)
        });
        let mut outbox = Outbox::new(out);
        let given: Vec<usize> = (1..=3).filter(|item| outbox.stage(*item).is_ok()).collect();
        outbox.publish();
        let (mut taken, mut coming) = taker.join().unwrap();
        taken.extend(std::iter::from_fn(|| coming.pop().ok()));
        assert_eq!(taken, given);
        assert!(given.len() >= 2);
    });
}

#[test]
fn a_sleeper_hears_that_it_is_to_stop() {
    model(|| {
        let waker = Arc::new(Waker::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (sleeper, told) = (Arc::clone(&waker), Arc::clone(&stop));
        let worker = thread::spawn(move || {
            while !told.load(Relaxed) {
                sleeper.sleep(|| !told.load(Relaxed));
            }
        });
        stop.store(true, Relaxed);
        waker.wake();
        worker.join().unwrap();
    });
}
