//! The figures of a gateway that has nothing to do: what it costs, and how soon it is there again when a frame comes.
//!
//! The daemon as it is, on veth in namespaces, with default settings (`idle = "adaptive"`). The probe is on the first core, the
//! worker on the last.

use crate::gateway::Plan;
use crate::report::{Report, median};
use crate::{Error, affinity};
use palisade_tests::daemon::Daemon;
use palisade_tests::lab::Lab;
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const RULES: &str = include_str!("../../tests/data/rules/accept.v4.rules");

/// Most of a core that all threads of an idle gateway may use, in percent.
const IDLE_PERCENT_GOAL: f64 = 2.0;

/// Most time that waking up may add to a frame's way, in microseconds.
const WAKE_US_GOAL: f64 = 100.0;

/// Time for a daemon to come to rest: what it does at its start is no idleness.
const SETTLE: Duration = Duration::from_secs(2);

/// Pauses, and how often each: short ones often, so that they take half a minute.
const PAUSES: [(Duration, usize); 3] =
    [(Duration::from_millis(10), 600), (Duration::from_millis(100), 100), (Duration::from_secs(1), 10)];

/// Frames sent one right after the other, for comparison.
const BUSY_FRAMES: usize = 2_000;

/// Longest a frame may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measures them all.
///
/// # Errors
/// If one cannot be measured.
pub fn figures(plan: &Plan, report: &mut Report) -> Result<(), Error> {
    if plan.cores < 2 {
        return Err("two cores are needed: one for the probe, one for the worker".into());
    }
    for workers in [1, 2] {
        cost(plan, workers, report)?;
    }
    wake_up(plan, report)
}

/// Processor time of a gateway without traffic.
fn cost(plan: &Plan, workers: u32, report: &mut Report) -> Result<(), Error> {
    let lab = Lab::builder().queues(workers).build();
    for host in [&lab.left, &lab.right] {
        // Hosts that speak IPv6 send now and then what nobody asked for.
        host.netns.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    }
    let daemon = Daemon::builder(&lab)
        .rules(RULES)
        .core(plan.cores - 1)
        .set("workers.cores", &workers.to_string())
        .start();
    thread::sleep(SETTLE);
    let (before, start) = (thread_times(&daemon)?, Instant::now());
    thread::sleep(plan.time.max(Duration::from_secs(5)));
    let (after, elapsed) = (thread_times(&daemon)?, start.elapsed());
    let share = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64() / elapsed.as_secs_f64() * 100.0;
    let mut all = 0;
    for (thread, now) in &after {
        let used = now - before.get(thread).copied().unwrap_or(0);
        all += used;
        println!("  {:<16} {:.3} %", thread.1, share(used));
    }
    report.at_most(
        &format!("idle gateway, {workers} worker(s), percent of a core"),
        share(all),
        IDLE_PERCENT_GOAL,
    );
    Ok(())
}

/// Processor time that each thread has used, by number and name, in nanoseconds.
fn thread_times(daemon: &Daemon) -> Result<BTreeMap<(u32, String), u64>, Error> {
    let mut times = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{}/task", daemon.process().pid()))?.flatten() {
        let read = |file| fs::read_to_string(entry.path().join(file));
        // A thread that has ended meanwhile used next to nothing.
        let (Ok(stat), Ok(name)) = (read("schedstat"), read("comm")) else { continue };
        let nanos =
            stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).ok_or("no times in schedstat")?;
        let number = entry.file_name().to_string_lossy().parse()?;
        times.insert((number, name.trim().to_owned()), nanos);
    }
    Ok(times)
}

/// Time a frame takes through the gateway after pauses: through one that sleeps meanwhile, and through one that never does.
/// What differs is the waking up; senders and receivers have been asleep in both.
fn wake_up(plan: &Plan, report: &mut Report) -> Result<(), Error> {
    let [mut slept, mut spun] = [after_pauses(plan, "adaptive")?, after_pauses(plan, "spin")?];
    let awake = median(&spun);
    let mut bare = bare_wake_up(plan.cores - 1)?;
    report.beside(
        "the kernel by itself, us from a write to a blocked read's return on the other core, median / p99",
        &format!("{:.1} / {:.1}", median(&bare), p99(&mut bare)),
    );
    for (idle, times) in [("adaptive", &mut slept), ("spin", &mut spun)] {
        let figure = format!("idle = \"{idle}\", us from sending to receiving after a pause, median / p99");
        report.beside(&figure, &format!("{:.1} / {:.1}", median(times), p99(times)));
    }
    report.at_most(
        "waking up, us: p99 of one that sleeps, less median of one that spins",
        p99(&mut slept) - awake,
        WAKE_US_GOAL,
    );
    Ok(())
}

/// Microseconds that frames take, each after a pause.
fn after_pauses(plan: &Plan, idle: &str) -> Result<Vec<f64>, Error> {
    let lab = Lab::new();
    let daemon = Daemon::builder(&lab).rules(RULES).core(plan.cores - 1).set("workers.idle", idle);
    let _daemon = daemon.start();
    let probe = Probe::new(&lab)?;
    // In a thread of its own: what this one starts would inherit the probe's core.
    let measured = thread::scope(|scope| scope.spawn(|| measure(&probe, idle)).join());
    measured.map_err(|_| "the probe panicked")?
}

/// Microseconds from a write on the first core to the return of a read that was blocked on `core`, after the same pauses:
/// what the machine needs to wake any thread.
fn bare_wake_up(core: usize) -> Result<Vec<f64>, Error> {
    let (mut sender, mut receiver) = UnixStream::pair()?;
    let (told, woken) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            affinity::pin_to(core)?;
            // Until the sender is gone.
            while receiver.read_exact(&mut [0]).is_ok() {
                told.send(Instant::now())?;
            }
            Ok::<_, Error>(())
        });
        let measured = scope.spawn(move || {
            affinity::pin_to(0)?;
            let pauses = PAUSES.iter().flat_map(|(pause, count)| std::iter::repeat_n(*pause, *count));
            let one = |pause| {
                thread::sleep(pause);
                let start = Instant::now();
                sender.write_all(&[0])?;
                Ok((woken.recv_timeout(PATIENCE)? - start).as_secs_f64() * 1e6)
            };
            pauses.map(one).collect()
        });
        measured.join().map_err(|_| "the sender panicked")?
    })
}

fn measure(probe: &Probe, idle: &str) -> Result<Vec<f64>, Error> {
    affinity::pin_to(0)?;
    // Neighbours are asked for, the flow made, and the path made warm.
    let mut busy = (0..BUSY_FRAMES).map(|_| probe.send()).collect::<Result<Vec<_>, _>>()?;
    println!("  {idle}, one after the other: median {:.1} us, p99 {:.1} us", median(&busy), p99(&mut busy));
    let mut all = Vec::new();
    for (pause, count) in PAUSES {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            thread::sleep(pause);
            times.push(probe.send()?);
        }
        all.extend_from_slice(&times);
        println!("  {idle}, after {pause:?}: median {:.1} us, p99 {:.1} us", median(&times), p99(&mut times));
    }
    Ok(all)
}

/// A sender and a receiver on either side of the gateway, both of them this thread, which never sleeps for an answer: what
/// is measured is the gateway's waking up.
struct Probe {
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Probe {
    fn new(lab: &Lab) -> Result<Self, Error> {
        let receiver = lab.right.netns.within(|| UdpSocket::bind((lab.right.v4, 0)))?;
        receiver.set_nonblocking(true)?;
        let sender = lab.left.netns.within(|| UdpSocket::bind((lab.left.v4, 0)))?;
        sender.connect(receiver.local_addr()?)?;
        Ok(Self { sender, receiver })
    }

    /// Microseconds a datagram takes.
    fn send(&self) -> Result<f64, Error> {
        let start = Instant::now();
        self.sender.send(&[0; 18])?;
        let mut buffer = [0; 64];
        loop {
            match self.receiver.recv(&mut buffer) {
                Ok(_) => return Ok(start.elapsed().as_secs_f64() * 1e6),
                Err(error) if error.kind() == ErrorKind::WouldBlock && start.elapsed() < PATIENCE => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err("a frame got lost".into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The value that 99 of 100 do not exceed.
fn p99(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
