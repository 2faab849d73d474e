//! Checks of kernel, processors and memory, and of the workers that run on them.

use super::{Finding, Machine, Severity};
use crate::api::types::{Stalled, WorkerStats};
use crate::config::Auto;
use crate::placement::Warning;

/// Oldest kernel that runs the gateway: XDP with several buffers.
const KERNEL_MIN: (u32, u32) = (5, 18);

/// First kernel that sends more than 32 packets with one call in copy mode (`XDP_MAX_TX_SKB_BUDGET`).
const KERNEL_TX_BUDGET: (u32, u32) = (6, 17);

/// Clocks that cost a system call, or a microsecond, each time the time is asked for.
const SLOW_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];

/// Bytes of a large page.
const HUGEPAGE: u64 = 2 << 20;

fn finding(check: &'static str, severity: Severity) -> Finding {
    Finding::new(check, "machine", severity)
}

/// Workers poll.
pub(super) fn workers(machine: &Machine) -> Vec<Finding> {
    let workers = machine.daemon.iter().flat_map(|daemon| &daemon.stats.workers);
    let stalled = workers.filter_map(|worker| Some((worker, worker.stalled.as_ref()?)));
    let say = |(worker, stalled): (&WorkerStats, &Stalled)| {
        Finding::new("worker", &format!("worker {}", worker.id), Severity::Fault)
            .what(format!("it has not polled for {} s: {}", stalled.ms / 1000, stalled.why))
            .leads_to("packets of its queues, and of the flows it owns, are lost")
            .mended_by(&stalled.advice)
    };
    stalled.map(say).collect()
}

/// We may do what it takes. Asked of the process that runs this, in place of the one that will.
pub(super) fn rights(machine: &Machine) -> Vec<Finding> {
    let missing = machine.host.missing_rights.iter().filter(|_| machine.daemon.is_none());
    let say = |missing: &String| {
        finding("rights", Severity::Fault)
            .what(missing)
            .leads_to("the gateway does not start, and not everything could be looked at")
            .mended_by("sudo fwctl doctor")
    };
    missing.map(say).collect()
}

/// The web page is for this machine.
pub(super) fn page(machine: &Machine) -> Vec<Finding> {
    let running = machine.daemon.as_ref().map(|daemon| daemon.page);
    let addr = running.unwrap_or(machine.config.web.listen.0);
    let say = |addr: std::net::SocketAddr| {
        finding("web", Severity::Warning)
            .what(format!("the web page is served on {addr}"))
            .leads_to("whoever reaches that address sees rules, flows and counters, unencrypted and without a password")
            .mended_by(format!("web.listen = \"127.0.0.1:{}\" in the configuration, and ssh -L from elsewhere", addr.port()))
    };
    addr.filter(|addr| !addr.ip().to_canonical().is_loopback()).map(say).into_iter().collect()
}

/// Packet memory may be locked.
pub(super) fn memlock(machine: &Machine) -> Vec<Finding> {
    let needed = umem_bytes(machine);
    let too_low = machine.host.memlock.filter(|limit| machine.daemon.is_none() && *limit < needed);
    let say = |limit: u64| {
        finding("memlock", Severity::Fault)
            .what(format!("{limit} bytes may be locked, packet memory takes {needed}"))
            .leads_to("the gateway does not start")
            .mended_by("ulimit -l unlimited (systemd: LimitMEMLOCK=infinity)")
    };
    too_low.map(say).into_iter().collect()
}

/// There are large pages for packet memory.
pub(super) fn hugepages(machine: &Machine) -> Vec<Finding> {
    let wanted = machine.config.umem.hugepages;
    let pages = umem_bytes(machine).div_ceil(HUGEPAGE);
    if machine.daemon.is_some() || wanted == Auto::Off || machine.host.hugepages_free >= pages {
        return Vec::new();
    }
    let (severity, harm) = match wanted {
        Auto::On => (Severity::Fault, "the gateway does not start"),
        _ => (Severity::Note, "packet memory is made of small pages: a little slower"),
    };
    vec![
        finding("hugepages", severity)
            .what(format!(
                "{} pages of 2 MiB are free, packet memory takes {pages}",
                machine.host.hugepages_free
            ))
            .leads_to(harm)
            .mended_by(format!(
                "sysctl vm.nr_hugepages={}",
                machine.host.hugepages + pages - machine.host.hugepages_free
            )),
    ]
}

/// Bytes of packet memory, as the gateway would size it.
fn umem_bytes(machine: &Machine) -> u64 {
    let umem = &machine.config.umem;
    let jumbo = machine.nics().any(|nic| nic.mtu > 1700);
    let frame = umem.frame_size_bytes.unwrap_or(if jumbo { 4096 } else { 2048 });
    let hands = machine.hands();
    let most = hands.iter().map(Vec::len).max().unwrap_or(0) as u64;
    let homes = hands.iter().filter(|hand| !hand.is_empty()).count() as u64;
    // Every ring of every queue, and a burst in hand.
    let enough = most * u64::from(4 * umem.ring_size_descs + 64);
    homes * umem.frames_per_worker.map_or(enough, u64::from) * u64::from(frame)
}

/// The kernel can do what we need, and what makes it fast.
pub(super) fn kernel(machine: &Machine) -> Vec<Finding> {
    let (major, minor) = machine.host.kernel;
    let mut findings = Vec::new();
    if machine.host.kernel < KERNEL_MIN {
        findings.push(
            finding("kernel", Severity::Fault)
                .what(format!("Linux {major}.{minor} is older than 5.18"))
                .leads_to("the XDP program cannot be loaded")
                .mended_by("install a newer kernel"),
        );
    } else if machine.host.kernel < KERNEL_TX_BUDGET && machine.nics().any(|nic| !nic.zero_copy) {
        findings.push(
            finding("kernel", Severity::Note)
                .what(format!(
                    "Linux {major}.{minor} sends 32 packets with a call in copy mode, 6.17 and later 256"
                ))
                .leads_to("more system calls under load"),
        );
    }
    if machine.host.jit == Some(false) {
        findings.push(
            finding("kernel", Severity::Warning)
                .what("BPF programs are interpreted")
                .leads_to("every packet pays for it on its way to us")
                .mended_by("sysctl net.core.bpf_jit_enable=1"),
        );
    }
    findings
}

/// Asking for the time is cheap: each burst does.
pub(super) fn clocksource(machine: &Machine) -> Vec<Finding> {
    let clock = machine.host.clocksource.as_str();
    if !SLOW_CLOCKS.contains(&clock) {
        return Vec::new();
    }
    vec![
        finding("clocksource", Severity::Warning)
            .what(format!("the kernel tells the time by {clock}"))
            .leads_to("a worker spends about a microsecond of each poll asking for the time")
            .mended_by("echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"),
    ]
}

/// Cores run at full speed.
pub(super) fn governor(machine: &Machine) -> Vec<Finding> {
    let workers = machine.worker_cores();
    let matters = |core: &u16| workers.is_empty() || workers.contains(core);
    let slow = |governor: &str| governor != "performance";
    let mut slow_ones =
        machine.host.governors.iter().filter(|(core, governor)| matters(core) && slow(governor));
    let Some((core, governor)) = slow_ones.next() else { return Vec::new() };
    let more = slow_ones.count();
    let others = if more > 0 { format!(" and {more} others") } else { String::new() };
    vec![
        finding("governor", Severity::Warning)
            .what(format!("core {core}{others} runs under the governor {governor}"))
            .leads_to("after a quiet moment the first packets wait for the core to speed up")
            .mended_by("cpupower frequency-set -g performance"),
    ]
}

/// Interrupts stay where they were put.
pub(super) fn irqbalance(machine: &Machine) -> Vec<Finding> {
    let say = |pid: u32| {
        finding("irqbalance", Severity::Warning)
            .what(format!("irqbalance runs (process {pid})"))
            .leads_to("it moves the NICs' interrupts away from the workers they belong to, and onto them")
            .mended_by("systemctl disable --now irqbalance (or ban the NICs' interrupts: IRQBALANCE_ARGS=--banirq=N)")
    };
    machine.host.irqbalance.filter(|_| machine.cores.cpus.len() > 1).map(say).into_iter().collect()
}

/// Nobody else runs on the workers' cores.
pub(super) fn isolation(machine: &Machine) -> Vec<Finding> {
    let cpus = &machine.cores.cpus;
    if cpus.len() == 1 {
        return vec![
            finding("isolation", Severity::Warning)
                .what("there is one core for everything")
                .leads_to("packets wait whenever something else runs")
                .mended_by("give the machine a second core"),
        ];
    }
    let workers = machine.worker_cores();
    if cpus.iter().any(|cpu| cpu.isolated && !workers.contains(&cpu.id)) {
        // To be used first, as `placement` says.
        return Vec::new();
    }
    let shared = cpus.iter().filter(|cpu| !cpu.isolated && workers.contains(&cpu.id));
    let shared: Vec<String> = shared.map(|cpu| cpu.id.to_string()).collect();
    if shared.is_empty() {
        return Vec::new();
    }
    let list = shared.join(",");
    vec![
        finding("isolation", Severity::Note)
            .what(format!("the scheduler puts other work on the workers' core(s) {list} too"))
            .leads_to("packets wait a moment whenever it does")
            .mended_by(format!("boot with isolcpus={list} nohz_full={list} rcu_nocbs={list}")),
    ]
}

/// Each worker has a good core of its own.
pub(super) fn placement(machine: &Machine) -> Vec<Finding> {
    match machine.placement() {
        Ok(placement) => {
            let say = |warning: &Warning| {
                finding("placement", Severity::Warning)
                    .what(&warning.what)
                    .leads_to(warning.consequence)
                    .mended_by(&warning.mend)
            };
            placement.warnings.iter().map(say).collect()
        }
        // It has its cores, even if this process may not use them.
        Err(_) if machine.daemon.is_some() => Vec::new(),
        Err(error) => vec![
            finding("placement", Severity::Fault)
                .what(error.to_string())
                .leads_to("the gateway does not start")
                .mended_by("set workers.cores to what there is, or \"auto\""),
        ],
    }
}

/// The interrupt of a queue comes to the core of the worker that serves it.
pub(super) fn interrupts(machine: &Machine) -> Vec<Finding> {
    let Some(daemon) = &machine.daemon else {
        // Started, the daemon steers them.
        return Vec::new();
    };
    let mut findings = Vec::new();
    for nic in &machine.cores.nics {
        let queues = daemon.stats.ports.iter().find(|port| port.name == nic.name).map(|port| &port.queues);
        let core_of = |number: u32| {
            let queue = queues?.iter().find(|queue| queue.queue == number)?;
            let worker = daemon.stats.workers.iter().find(|worker| worker.id == queue.worker)?;
            u16::try_from(worker.core).ok()
        };
        let strays: Vec<(u32, u16)> = nic
            .irqs
            .iter()
            .filter_map(|irq| Some((irq, core_of(irq.queue?)?)))
            .filter(|(irq, core)| !irq.cores.iter().eq([core]))
            .map(|(irq, core)| (irq.number, core))
            .collect();
        let Some((number, core)) = strays.first() else { continue };
        let list: Vec<String> = strays.iter().map(|(number, _)| number.to_string()).collect();
        findings.push(
            Finding::new("interrupts", &nic.name, Severity::Note)
                .what(format!("interrupt(s) {} come to other cores than their workers run on", list.join(", ")))
                .leads_to("another core is woken for packets first")
                .mended_by(format!(
                    "restart with net.irqs = \"steer\", or one by one: echo {core} > /proc/irq/{number}/smp_affinity_list"
                )),
        );
    }
    findings
}
