//! The decision: a pure function of the machine and of what was asked for.
//!
//! For every worker in turn the best core that is left, by what matters most: its own physical core, no scheduler on it
//! (`isolcpus`, `nohz_full`), the NUMA node of the worker's NICs, no interrupts of other NICs, not the first core, where
//! the system and our control threads run. Of equals the one with the highest number.

use super::machine::{Cpu, Machine};
use crate::config::Cores;
use dataplane::ids::PortId;
use std::fmt;

/// Where one worker runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The core.
    pub core: u16,
    /// Why that one, in words.
    pub why: String,
}

/// Where all of them run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// By worker.
    pub workers: Vec<Placed>,
    /// What the operator should know about it.
    pub warnings: Vec<Warning>,
}

/// What speaks against where the workers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What is.
    pub what: String,
    /// What it leads to.
    pub consequence: &'static str,
    /// What mends it.
    pub mend: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, consequence, mend } = self;
        write!(f, "{what}: {consequence}; {mend}")
    }
}

/// Why workers cannot be placed as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A core that is not there for us.
    #[error("core {core} does not exist or is not allowed to us; there are {have:?}")]
    NoSuchCore {
        /// What was asked for.
        core: u16,
        /// What there is.
        have: Vec<u16>,
    },
    /// Two workers would share a core.
    #[error(
        "{wanted} workers need a core each, but there are {have} for us: workers poll, and two on one core would keep \
         each other waiting"
    )]
    TooFew {
        /// Workers.
        wanted: usize,
        /// Cores.
        have: usize,
    },
}

/// Places workers. `lanes` deals out the NICs' queues to as many workers as it is asked for; `queues` is the largest
/// number of queues a NIC has.
///
/// # Errors
/// If a core that was asked for is not there, or there are not enough.
pub fn choose(
    machine: &Machine,
    asked: &Cores,
    queues: usize,
    lanes: impl Fn(usize) -> Vec<Vec<(PortId, u32)>>,
) -> Result<Placement, PlacementError> {
    let mut placement = Placement::default();
    let have = machine.cpus.len();
    match asked {
        Cores::List(list) => {
            for &core in list {
                if !machine.cpus.iter().any(|cpu| cpu.id == core) {
                    let have = machine.cpus.iter().map(|cpu| cpu.id).collect();
                    return Err(PlacementError::NoSuchCore { core, have });
                }
                placement.workers.push(Placed { core, why: "as configured".to_owned() });
            }
        }
        Cores::Count(count) if usize::from(*count) > have => {
            return Err(PlacementError::TooFew { wanted: usize::from(*count), have });
        }
        Cores::Count(count) => fill(machine, &lanes(usize::from(*count)), &mut placement),
        // One core is left to the system and our own control threads.
        Cores::Auto => {
            let spare = physical(machine).saturating_sub(1).max(1);
            fill(machine, &lanes(queues.clamp(1, spare)), &mut placement);
        }
    }
    placement.warnings = warnings(machine, &placement.workers, &lanes(placement.workers.len()));
    Ok(placement)
}

/// Physical cores of ours.
fn physical(machine: &Machine) -> usize {
    let is_first =
        |cpu: &&Cpu| !machine.cpus.iter().any(|other| other.id < cpu.id && are_siblings(other, cpu));
    machine.cpus.iter().filter(is_first).count()
}

fn are_siblings(one: &Cpu, other: &Cpu) -> bool {
    one.id != other.id && (one.siblings.contains(&other.id) || other.siblings.contains(&one.id))
}

fn fill(machine: &Machine, lanes: &[Vec<(PortId, u32)>], placement: &mut Placement) {
    let mut taken: Vec<&Cpu> = Vec::new();
    for hand in lanes {
        let node = node_of(machine, hand);
        let left = machine.cpus.iter().filter(|cpu| taken.iter().all(|other| other.id != cpu.id));
        if let Some(best) = left.min_by_key(|cpu| cost(machine, cpu, &taken, node)) {
            placement.workers.push(Placed { core: best.id, why: why(machine, best, &taken, node) });
            taken.push(best);
        }
    }
    // Without a reason to prefer one worker's core for another, they go up together.
    if machine.nics.iter().all(|nic| nic.node == machine.nics[0].node) {
        placement.workers.sort_by_key(|placed| placed.core);
    }
}

/// The node of a worker's NICs; of the first NIC for one that has none.
fn node_of(machine: &Machine, hand: &[(PortId, u32)]) -> Option<u16> {
    let nic = hand.first().map_or(0, |(port, _)| port.index());
    machine.nics.get(nic)?.node
}

/// What speaks against a core: smaller is better.
type Cost = (bool, bool, bool, bool, bool, std::cmp::Reverse<u16>);

fn cost(machine: &Machine, cpu: &Cpu, taken: &[&Cpu], node: Option<u16>) -> Cost {
    (
        taken.iter().any(|other| are_siblings(other, cpu)),
        !cpu.isolated && !cpu.tickless,
        is_far(cpu, node),
        busy_with(machine, cpu).is_some(),
        is_systems(machine, cpu),
        std::cmp::Reverse(cpu.id),
    )
}

fn is_far(cpu: &Cpu, node: Option<u16>) -> bool {
    matches!((cpu.node, node), (Some(own), Some(wanted)) if own != wanted)
}

/// Whether a core is the first one, or shares its physical core with that.
fn is_systems(machine: &Machine, cpu: &Cpu) -> bool {
    cpu.id == 0 || cpu.siblings.contains(&0) || machine.cpus.first().is_some_and(|first| first.id == cpu.id)
}

/// Another NIC whose interrupts this core alone handles.
fn busy_with<'a>(machine: &'a Machine, cpu: &Cpu) -> Option<&'a str> {
    let handles =
        |irqs: &[super::Irq]| irqs.iter().any(|irq| irq.cores.len() == 1 && irq.cores.contains(&cpu.id));
    machine.others.iter().find(|nic| handles(&nic.irqs)).map(|nic| nic.name.as_str())
}

fn why(machine: &Machine, cpu: &Cpu, taken: &[&Cpu], node: Option<u16>) -> String {
    let mut words = Vec::new();
    if cpu.isolated {
        words.push("isolated from the scheduler".to_owned());
    } else if cpu.tickless {
        words.push("tickless".to_owned());
    }
    match (cpu.node, node) {
        (Some(own), Some(wanted)) if own == wanted => words.push(format!("on its NIC's NUMA node {own}")),
        (Some(own), Some(wanted)) => {
            words.push(format!("on NUMA node {own}, none was left on its NIC's node {wanted}"));
        }
        _ => {}
    }
    if cpu.siblings.len() > 1 {
        let is_shared = taken.iter().any(|other| are_siblings(other, cpu));
        let text =
            if is_shared { "hyper-thread of another worker's core" } else { "a physical core of its own" };
        words.push(text.to_owned());
    }
    words.push(match busy_with(machine, cpu) {
        Some(nic) => format!("handles interrupts of {nic} too, for lack of another"),
        None if is_systems(machine, cpu) => "the system's own core, for lack of another".to_owned(),
        None => "free of other NICs' interrupts".to_owned(),
    });
    words.join(", ")
}

fn warnings(machine: &Machine, workers: &[Placed], lanes: &[Vec<(PortId, u32)>]) -> Vec<Warning> {
    let cpu = |placed: &Placed| machine.cpus.iter().find(|cpu| cpu.id == placed.core);
    let mut warnings = Vec::new();
    let mut warn = |what: String, consequence, mend: String| {
        warnings.push(Warning { what, consequence, mend });
    };
    for (index, placed) in workers.iter().enumerate() {
        let Some(own) = cpu(placed) else { continue };
        let core = placed.core;
        for (other, sibling) in workers.iter().enumerate().skip(index + 1) {
            if cpu(sibling).is_some_and(|cpu| are_siblings(own, cpu)) {
                warn(
                    format!(
                        "workers {index} and {other} share one physical core (hyper-threads {core} and {})",
                        sibling.core
                    ),
                    "together they do little more than one of them",
                    "set workers.cores to one hyper-thread of each physical core (lscpu -e)".to_owned(),
                );
            }
        }
        if let Some(nic) = busy_with(machine, own) {
            warn(
                format!("worker {index} shares core {core} with the interrupts of {nic}"),
                "they stop it while they are handled",
                "move them (/proc/irq/*/smp_affinity_list) or choose another core (workers.cores)".to_owned(),
            );
        }
        if let Some(node) =
            lanes.get(index).and_then(|hand| node_of(machine, hand)).filter(|node| is_far(own, Some(*node)))
        {
            warn(
                format!("worker {index} on core {core} is not on NUMA node {node}, where its NICs are"),
                "each packet crosses over",
                format!("set workers.cores to cores of /sys/devices/system/node/node{node}/cpulist"),
            );
        }
    }
    let is_used = |cpu: &Cpu| workers.iter().any(|placed| placed.core == cpu.id);
    let quiet = |cpu: &&Cpu| (cpu.isolated || cpu.tickless) && !is_used(cpu);
    let unused: Vec<u16> = machine.cpus.iter().filter(quiet).map(|cpu| cpu.id).collect();
    let noisy =
        workers.iter().position(|placed| cpu(placed).is_some_and(|cpu| !cpu.isolated && !cpu.tickless));
    if let (Some(worker), false) = (noisy, unused.is_empty()) {
        warn(
            format!(
                "worker {worker} is on core {}, which the scheduler gives to others too, while {unused:?}, kept apart by \
                 isolcpus or nohz_full, are left unused",
                workers[worker].core
            ),
            "packets wait whenever others have the core",
            "set workers.cores to cores that are kept apart".to_owned(),
        );
    }
    if workers.len() > 1 && machine.cpus.iter().all(is_used) {
        warn(
            "every core has a worker".to_owned(),
            "control threads and the system take their time from them",
            "set workers.cores to fewer".to_owned(),
        );
    }
    warnings
}
