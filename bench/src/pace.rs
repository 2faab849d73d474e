//! The same load as [`crate::load`], sent frame by frame through an AF_XDP socket: each at its own moment, its stamp taken
//! right before the kernel is asked to send it. For latency, where the other's batches of 64 would wait for each other.
//!
//! One thread, which spins on the clock and so needs a core of its own. The socket only sends: it needs no XDP program,
//! so a sink may be attached to the same interface at the same time. How late frames left is measured, for a machine
//! that is busy does not keep a schedule, and a result that hides it is worth nothing.

use crate::Error;
use crate::load::{Amount, Frames, Load, Random};
use crate::sink::histogram;
use dataplane::device::Device as _;
use dataplane::ids::WorkerId;
use dataplane::xsk::{BindMode, FramePool, QueueSpec, SocketOptions, Umem, UmemConfig, XskDevice, open_all};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use std::hint;
use std::thread;
use std::time::Duration;

/// Descriptors per ring.
const RING_SIZE: u32 = 2048;

/// Chunks: what both rings hold and the frames under way at the far end.
const FRAMES: u32 = 4 * RING_SIZE;

/// Longest frame: what a chunk has behind its headroom.
pub const PACED_MAX_BYTES: usize = 2048 - 256;

/// How far a frame may be behind its moment before the schedule is moved: catching up is a burst.
const LAG_MAX_NS: u64 = 1_000_000;

/// Longest the kernel may take to let go of a queue.
const RELEASE_NS: u64 = 2_000_000_000;

/// What it says before it has.
const EBUSY: i32 = rustix::io::Errno::BUSY.raw_os_error();

/// Longest the kernel may take to be done with what it was given.
const PATIENCE_NS: u64 = 5_000_000_000;

/// Time between frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spacing {
    /// Always the same.
    #[default]
    Even,
    /// Random as if each frame knew nothing of the others, from a fixed seed: a Poisson process.
    Poisson,
}

/// What a paced run did.
#[derive(Clone, Debug)]
pub struct Paced {
    /// Frames sent.
    pub packets: u64,
    /// Of those, frames of the flood.
    pub flood: u64,
    /// From the first frame's moment to the last one's departure.
    pub elapsed: Duration,
    /// How long after its moment each frame was handed to the kernel, in nanoseconds.
    pub lateness: Histogram<u64>,
    /// By how much the schedule had to be moved because frames were more than a millisecond late. Zero if the rate was
    /// kept all along.
    pub moved: Duration,
}

impl Paced {
    /// Whether the rate asked for was kept, give or take a millisecond at any moment.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.moved.is_zero()
    }

    /// In one sentence what became of the schedule.
    #[must_use]
    pub fn verdict(&self) -> String {
        let late = [0.5, 0.99, 1.0].map(|quantile| self.lateness.value_at_quantile(quantile));
        let lateness =
            format!("frames left {} / {} / {} ns late (median, p99, most)", late[0], late[1], late[2]);
        if self.is_kept() {
            format!("the rate was kept: {lateness}")
        } else {
            format!("THE RATE WAS NOT KEPT, the schedule fell behind by {:?}: {lateness}", self.moved)
        }
    }
}

/// Sends a load with a rate into queue 0 of the interface `ifindex` of the calling thread's namespace; returns when done.
///
/// # Errors
/// If the load makes no sense or has no rate, or AF_XDP cannot be used.
pub fn run(load: &Load, ifindex: u32, spacing: Spacing, amount: Amount) -> Result<Paced, Error> {
    let rate = load
        .rate_pps
        .filter(|rate| *rate > 0)
        .ok_or("a paced load needs a rate of at least one packet a second")?;
    let frames = Frames::new(load)?;
    if frames.longest() > PACED_MAX_BYTES {
        return Err(format!(
            "a paced frame has {PACED_MAX_BYTES} bytes at most, not {}: send shorter ones, or unpaced",
            frames.longest()
        )
        .into());
    }
    let mut socket = Socket::open(ifindex)?;
    let result = Schedule::new(rate, spacing)?.send(frames, &mut socket, amount)?;
    socket.wait_until_sent()?;
    Ok(result)
}

/// When frames are due, and what came of it.
struct Schedule {
    /// Mean time between frames, in nanoseconds.
    mean_ns: f64,
    spacing: Spacing,
    random: Random,
    /// The next frame's moment, in nanoseconds after the start.
    due: f64,
    moved_ns: u64,
    lateness: Histogram<u64>,
}

impl Schedule {
    #[expect(clippy::cast_precision_loss, reason = "a rate is far below 2^52")]
    fn new(rate_pps: u64, spacing: Spacing) -> Result<Self, Error> {
        let lateness = histogram()?;
        let mean_ns = 1e9 / rate_pps as f64;
        Ok(Self { mean_ns, spacing, random: Random::default(), due: 0.0, moved_ns: 0, lateness })
    }

    fn send(mut self, mut frames: Frames, socket: &mut Socket, amount: Amount) -> Result<Paced, Error> {
        let start = now_ns();
        let (mut packets, mut flood, mut last) = (0, 0, start);
        loop {
            let due = start + whole(self.due) + self.moved_ns;
            let is_over = match amount {
                Amount::Packets(count) => packets >= u64::from(count),
                Amount::Time(time) => u128::from(due - start) >= time.as_nanos(),
            };
            if is_over {
                let elapsed = Duration::from_nanos(last - start);
                let moved = Duration::from_nanos(self.moved_ns);
                return Ok(Paced { packets, flood, elapsed, lateness: self.lateness, moved });
            }
            flood += u64::from(frames.advance());
            socket.make_room()?;
            last = wait_for(due);
            frames.finish(last);
            socket.send(frames.bytes())?;
            self.note(last - due)?;
            packets += 1;
            self.due += self.gap();
        }
    }

    /// Takes down how late a frame was, and moves the schedule if that is too much to catch up with.
    fn note(&mut self, late_ns: u64) -> Result<(), Error> {
        self.lateness.record(late_ns.min(self.lateness.high()))?;
        if late_ns > LAG_MAX_NS {
            self.moved_ns += late_ns;
        }
        Ok(())
    }

    fn gap(&mut self) -> f64 {
        match self.spacing {
            Spacing::Even => self.mean_ns,
            // Never zero: the logarithm of zero is no time.
            Spacing::Poisson => {
                -self.mean_ns * ((f64::from(self.random.word()) + 0.5) / f64::from(u32::MAX)).ln()
            }
        }
    }
}

/// An AF_XDP socket that sends.
struct Socket {
    device: XskDevice,
    pool: FramePool,
}

impl Socket {
    fn open(ifindex: u32) -> Result<Self, Error> {
        let umem = Umem::new(&UmemConfig::plain(FRAMES, 1))?;
        let options =
            SocketOptions { mode: BindMode::Copy, ring_size: RING_SIZE, jumbo: false, busy_poll_us: 0 };
        let queue = QueueSpec { ifindex, queue: 0 };
        let start = now_ns();
        let mut devices = loop {
            match open_all(&umem, &[queue], &options) {
                // The kernel lets go of a queue some time after its last socket was closed, a run before this one's.
                Err(error) if error.errno() == Some(EBUSY) && now_ns() - start < RELEASE_NS => {
                    thread::sleep(Duration::from_millis(5));
                }
                opened => break opened?,
            }
        };
        let device = devices.pop().ok_or("one queue makes one device")?;
        Ok(Self { device, pool: FramePool::new(&umem, WorkerId(0)) })
    }

    /// Waits until there is a chunk and a descriptor for a frame.
    fn make_room(&mut self) -> Result<(), Error> {
        self.device.replenish(&mut self.pool);
        self.wait("room for a frame", |socket| {
            socket.device.replenish(&mut socket.pool);
            socket.pool.available() > 0 && socket.device.tx_room() > 0
        })
    }

    /// Hands a frame to the kernel.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let frame = self
            .pool
            .alloc_filled(bytes)
            .ok_or("the frame memory is used up, which room was made against")?;
        if let Err(frame) = self.device.tx(frame) {
            self.pool.free(frame);
            return Err("the tx ring is full, which room was made against".into());
        }
        self.device.flush();
        Ok(())
    }

    /// Waits until the kernel has taken everything.
    fn wait_until_sent(&mut self) -> Result<(), Error> {
        self.wait("everything to be sent", |socket| !socket.device.is_tx_pending())?;
        let refused = self.device.counters().invalid_descs;
        if refused > 0 {
            return Err(format!("the kernel refused {refused} frames: is the MTU too small for them?").into());
        }
        Ok(())
    }

    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) -> Result<(), Error> {
        let start = now_ns();
        while !is_so(self) {
            if self.device.is_link_down() {
                return Err("the interface is down: set it up and try again".into());
            }
            if now_ns() - start > PATIENCE_NS {
                return Err(format!(
                    "waited {} s for {what} in vain: does the far end hold the frames?",
                    PATIENCE_NS / 1_000_000_000
                )
                .into());
            }
            self.device.flush();
        }
        Ok(())
    }
}

/// Spins until a moment; returns the time it is then.
fn wait_for(due_ns: u64) -> u64 {
    loop {
        let now = now_ns();
        if now >= due_ns {
            return now;
        }
        hint::spin_loop();
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive time of far less than centuries"
)]
const fn whole(ns: f64) -> u64 {
    ns as u64
}

/// The time in nanoseconds, as the kernel's programs read it.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or_default()
}
