//! The machine a figure is measured on: a lab whose right host is a sink, the generator on one core, the forwarder's
//! worker on another. On veth the sink's interface is polled inside the forwarder's own system call, or, with threaded
//! NAPI, by a thread of the kernel; that thread is pinned to the forwarder's core, so that the forwarder pays either way.

use crate::load::{Amount, Load, Sent};
use crate::sink::{Counts, Sink, Storage};
use crate::{Error, affinity, iface_index};
use palisade_tests::daemon::{Daemon, DaemonBuilder, binary};
use palisade_tests::lab::{GATEWAY_LEFT, GATEWAY_RIGHT, HOST_IFACE, Lab, Process};
use rustix::process::Signal;
use std::fs;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// Longest a forwarder may take to start or end, and counters to come to rest.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time from the start of the load to the first reading: set-up of the run, and first packets of flows.
const WARM_UP: Duration = Duration::from_millis(400);

/// How long counters must stand still before they count as final.
const REST: Duration = Duration::from_millis(150);

/// Lab, sink and cores.
pub struct Rig<'storage> {
    /// The namespaces.
    pub lab: Lab,
    /// What counts on the right.
    pub sink: Sink<'storage>,
    generator_core: usize,
    worker_core: usize,
}

/// Who polls the sink's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Napi {
    /// Whoever sends to it.
    Plain,
    /// A thread of the kernel, on the forwarder's core.
    Threaded,
}

/// What joins the gateway's NICs.
pub enum Forwarder {
    /// The bare AF_XDP forwarder that looks at nothing.
    Floor(Process),
    /// Palisade.
    Gateway(Daemon),
}

impl<'storage> Rig<'storage> {
    /// Builds it on the machine's first and last core. This process, and with it everything that is not pinned
    /// otherwise, goes to the generator's core.
    ///
    /// # Errors
    /// If there is only one core, or the kernel refuses something.
    pub fn new(storage: &'storage mut Storage, cores: usize, flows: u32, napi: Napi) -> Result<Self, Error> {
        if cores < 2 {
            return Err("two cores are needed: one for the generator, one for the forwarder".into());
        }
        let (generator_core, worker_core) = (0, cores - 1);
        affinity::pin_to(generator_core)?;
        let lab = Lab::new();
        // Hosts that speak IPv6 send now and then what nobody asked for, and the books would be off by a packet.
        for netns in [&lab.left.netns, &lab.right.netns] {
            netns.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
        }
        let sink = lab.right.netns.within(|| Sink::attach(storage, iface_index(HOST_IFACE)?, flows))?;
        if napi == Napi::Threaded {
            // After the sink: an interface without NAPI has no threads to make.
            let path = format!("/sys/class/net/{HOST_IFACE}/threaded");
            lab.right.netns.run("sh", &["-c", &format!("echo 1 > {path}")]);
            if affinity::pin_napi_threads(HOST_IFACE, worker_core)? == 0 {
                return Err("this kernel made no thread for threaded NAPI".into());
            }
        }
        Ok(Self { lab, sink, generator_core, worker_core })
    }

    /// Starts the bare forwarder.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn start_floor(&self) -> Result<Forwarder, Error> {
        let path = binary("floor");
        let core = self.worker_core.to_string();
        let args = ["--left", GATEWAY_LEFT, "--right", GATEWAY_RIGHT, "--cpu", &core];
        let process = self.lab.gateway.spawn(&path.to_string_lossy(), &args);
        if process.wait_for_line("ready", PATIENCE) {
            return Ok(Forwarder::Floor(process));
        }
        Err(format!("floor did not get ready: {}", process.kill().stderr).into())
    }

    /// Palisade, to be started on the worker's core.
    #[must_use]
    pub fn gateway(&self) -> DaemonBuilder<'_> {
        Daemon::builder(&self.lab).core(self.worker_core)
    }

    /// Makes the gateway a bridge of Linux's with these rules, its work steered to the worker's core.
    ///
    /// # Errors
    /// If the rules are refused.
    pub fn make_bridge(&self, rules: &str) -> Result<(), Error> {
        let gateway = &self.lab.gateway;
        gateway.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0", "stp_state", "0"]);
        gateway.sysctl("net.bridge.bridge-nf-call-iptables", "1");
        let rps = format!("{:x}", 1_u64 << self.worker_core);
        for name in [GATEWAY_LEFT, GATEWAY_RIGHT] {
            // Frames of the generator need an interface that runs NAPI.
            gateway.run("ethtool", &["-K", name, "gro", "on"]);
            gateway.run("sh", &["-c", &format!("echo {rps} > /sys/class/net/{name}/queues/rx-0/rps_cpus")]);
            gateway.ip(&["link", "set", name, "master", "br0", "up"]);
        }
        gateway.ip(&["link", "set", "br0", "up"]);
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), rules)?;
        gateway.run("iptables-restore", &[&file.path().to_string_lossy()]);
        Ok(())
    }

    /// UDP load of 64-byte frames.
    #[must_use]
    pub fn load(&self, flows: u32, rate_pps: Option<u64>) -> Load {
        let (left, right) = (&self.lab.left, &self.lab.right);
        Load { flows, rate_pps, ..Load::new(left.mac, right.mac, right.v4) }
    }

    /// Runs a load while `meanwhile` does something else; returns what was sent and what that returned.
    ///
    /// # Errors
    /// Of either.
    pub fn run<T>(
        &self,
        load: &Load,
        amount: Amount,
        meanwhile: impl FnOnce(&ScopedJoinHandle<'_, Result<Sent, Error>>) -> Result<T, Error>,
    ) -> Result<(Sent, T), Error> {
        thread::scope(|scope| {
            let generator = scope.spawn(|| {
                self.lab.left.netns.enter();
                affinity::pin_to(self.generator_core)?;
                load.run(iface_index(HOST_IFACE)?, amount)
            });
            let result = meanwhile(&generator);
            let sent = generator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok((sent, result?))
        })
    }

    /// Packets a second that arrive at the sink in steady state, under as much load as there is.
    ///
    /// # Errors
    /// If the load cannot be made.
    #[expect(clippy::cast_precision_loss, reason = "a packet count of seconds is far below 2^52")]
    pub fn rate(&self, flows: u32, time: Duration) -> Result<f64, Error> {
        let amount = Amount::Time(WARM_UP + time + WARM_UP);
        let (_, rate) = self.run(&self.load(flows, None), amount, |_| {
            thread::sleep(WARM_UP);
            let (before, start) = (self.sink.counts()?, Instant::now());
            thread::sleep(time);
            let (after, elapsed) = (self.sink.counts()?, start.elapsed());
            Ok((after.packets - before.packets) as f64 / elapsed.as_secs_f64())
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
        let deadline = Instant::now() + PATIENCE;
        let mut before = self.sink.counts()?;
        loop {
            thread::sleep(REST);
            let now = self.sink.counts()?;
            if now == before {
                return Ok(now);
            }
            if Instant::now() > deadline {
                return Err("packets keep arriving after the load has ended".into());
            }
            before = now;
        }
    }
}

impl Forwarder {
    /// Ends it.
    ///
    /// # Errors
    /// If it ends badly.
    pub fn stop(self) -> Result<(), Error> {
        let exit = match self {
            Self::Floor(process) => {
                process.signal(Signal::TERM);
                process.wait(PATIENCE)
            }
            Self::Gateway(daemon) => daemon.stop(Signal::TERM),
        };
        if exit.code == Some(0) {
            Ok(())
        } else {
            Err(format!("forwarder ended with {:?}: {}", exit.code, exit.stderr).into())
        }
    }
}
