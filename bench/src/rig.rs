//! The machine a figure is measured on: a lab whose right host is a sink, the generator on one core, the forwarder's
//! worker on another. On veth the sink's interface is polled inside the forwarder's own system call, or, with threaded
//! NAPI, by a thread of the kernel; that thread is pinned to the forwarder's core, so that the forwarder pays either way.

use crate::bed::Bed;
use crate::load::{Amount, Load};
use crate::sink::{Counts, Options, Sink, Storage};
use crate::{Error, affinity, iface_index};
use palisade_tests::lab::{GATEWAY_LEFT, HOST_IFACE};
use std::ops::Deref;
use std::thread;
use std::time::{Duration, Instant};

/// Longest that counters may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time from the start of the load to the first reading: set-up of the run, and first packets of flows.
const WARM_UP: Duration = Duration::from_millis(400);

/// What that is longer for each flow: the slowest peers carry half a million packets a second, and some get lost.
const FLOW_WARM_UP: Duration = Duration::from_micros(3);

/// How long counters must stand still before they count as final.
const REST: Duration = Duration::from_millis(150);

/// Hosts, cores and a sink.
pub struct Rig<'storage> {
    bed: Bed,
    /// What counts on the right.
    pub sink: Sink<'storage>,
}

/// Who polls the sink's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Napi {
    /// Whoever sends to it.
    Plain,
    /// A thread of the kernel, on the forwarder's core.
    Threaded,
}

impl Deref for Rig<'_> {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        &self.bed
    }
}

impl<'storage> Rig<'storage> {
    /// Builds it on the machine's first and last core. This process, and with it everything that is not pinned
    /// otherwise, goes to the generator's core.
    ///
    /// # Errors
    /// If there is only one core, or the kernel refuses something.
    pub fn new(storage: &'storage mut Storage, cores: usize, flows: u32, napi: Napi) -> Result<Self, Error> {
        Self::with_sink(storage, cores, Options { flows, ..Options::default() }, napi)
    }

    /// The same with a sink that is told what to do.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn with_sink(
        storage: &'storage mut Storage,
        cores: usize,
        options: Options,
        napi: Napi,
    ) -> Result<Self, Error> {
        let bed = Bed::new(cores)?;
        let lab = &bed.lab;
        // Hosts that speak IPv6 send now and then what nobody asked for, and the books would be off by a packet.
        for netns in [&lab.left.netns, &lab.right.netns] {
            netns.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
        }
        let sink = lab.right.netns.within(|| Sink::attach_as(storage, iface_index(HOST_IFACE)?, options))?;
        if napi == Napi::Threaded {
            // After the sink: an interface without NAPI has no threads to make.
            let path = format!("/sys/class/net/{HOST_IFACE}/threaded");
            lab.right.netns.run("sh", &["-c", &format!("echo 1 > {path}")]);
            if affinity::pin_napi_threads(HOST_IFACE, bed.worker_core())? == 0 {
                return Err("this kernel made no thread for threaded NAPI".into());
            }
        }
        Ok(Self { bed, sink })
    }

    /// Packets a second that arrive at the sink in steady state, under as much load as there is, sent to the right host.
    ///
    /// # Errors
    /// If the load cannot be made.
    pub fn rate(&self, flows: u32, time: Duration) -> Result<f64, Error> {
        self.rate_of(&self.load(flows, None), time)
    }

    /// Packets a second of a load that arrive at the sink, when it has gone on for a moment.
    ///
    /// # Errors
    /// If the load cannot be made.
    pub fn rate_of(&self, load: &Load, time: Duration) -> Result<f64, Error> {
        self.rate_after(WARM_UP, load, time)
    }

    /// The same when it has gone on for so long that each flow has come by.
    ///
    /// # Errors
    /// If the load cannot be made.
    pub fn steady_rate_of(&self, load: &Load, time: Duration) -> Result<f64, Error> {
        self.rate_after(WARM_UP + FLOW_WARM_UP * load.flows, load, time)
    }

    fn rate_after(&self, warm_up: Duration, load: &Load, time: Duration) -> Result<f64, Error> {
        let (_, rate) = self.run(load, Amount::Time(warm_up + time + WARM_UP), |_| {
            thread::sleep(warm_up);
            gain_per_sec(time, || Ok(self.sink.counts()?.packets))
        })?;
        Ok(rate)
    }

    /// Frames that the left NIC of the gateway handed to its XDP program, by the driver's own count.
    ///
    /// # Errors
    /// If the driver does not count them.
    pub fn offered(&self) -> Result<u64, Error> {
        let text = self.lab.gateway.run("ethtool", &["-S", GATEWAY_LEFT]);
        let counters = text.lines().filter_map(|line| line.trim().split_once(": "));
        let packets: Vec<u64> = counters
            .filter(|(name, _)| name.starts_with("rx_queue_") && name.ends_with("_xdp_packets"))
            .filter_map(|(_, value)| value.parse().ok())
            .collect();
        if packets.is_empty() {
            Err("the driver does not count XDP packets".into())
        } else {
            Ok(packets.iter().sum())
        }
    }

    /// Waits until nothing arrives at the sink any more; returns its counts.
    ///
    /// # Errors
    /// If something keeps arriving.
    pub fn at_rest(&self) -> Result<Counts, Error> {
        settle(|| self.sink.counts())
    }
}

/// What a counter gains a second, over so long.
///
/// # Errors
/// If it cannot be read.
#[expect(clippy::cast_precision_loss, reason = "a count of seconds is far below 2^52")]
pub(crate) fn gain_per_sec(
    time: Duration,
    mut read: impl FnMut() -> Result<u64, Error>,
) -> Result<f64, Error> {
    let (before, start) = (read()?, Instant::now());
    thread::sleep(time);
    let (after, elapsed) = (read()?, start.elapsed());
    Ok((after - before) as f64 / elapsed.as_secs_f64())
}

/// Reads counters until they stand still; returns what they say then.
///
/// # Errors
/// If they keep counting, or cannot be read.
pub(crate) fn settle<T: PartialEq>(mut read: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now() + PATIENCE;
    let mut before = read()?;
    loop {
        thread::sleep(REST);
        let now = read()?;
        if now == before {
            return Ok(now);
        }
        if Instant::now() > deadline {
            return Err("packets keep arriving after the load has ended".into());
        }
        before = now;
    }
}
