//! A machine as far as placing workers goes: cores, their relations, and interrupts of NICs. What the kernel does not say
//! (a container without `/proc/irq`, a virtual NIC without a device) is left out and decides nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A core that is online and that we may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// The kernel's number.
    pub id: u16,
    /// NUMA node.
    pub node: Option<u16>,
    /// All hyper-threads of the same physical core, itself included; empty if not known.
    pub siblings: BTreeSet<u16>,
    /// Whether the scheduler leaves it alone (`isolcpus`, an isolated cpuset).
    pub isolated: bool,
    /// Whether its timer tick stops while one thread runs on it (`nohz_full`).
    pub tickless: bool,
}

/// An interrupt of a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Irq {
    /// The kernel's number.
    pub number: u32,
    /// Which of the NIC's queues it is for, if its name says so.
    pub queue: Option<u32>,
    /// Cores that handle it.
    pub cores: BTreeSet<u16>,
}

/// What the kernel says about a NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NicFacts {
    /// Interface name.
    pub name: String,
    /// NUMA node it is plugged into.
    pub node: Option<u16>,
    /// Its interrupts.
    pub irqs: Vec<Irq>,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Cores to choose from, ascending.
    pub cpus: Vec<Cpu>,
    /// Our NICs, in port order.
    pub nics: Vec<NicFacts>,
    /// All other NICs that have interrupts.
    pub others: Vec<NicFacts>,
}

impl Machine {
    /// Reads the machine under `root`, which is `/` but in tests. `allowed` are the cores that the process was given, and
    /// `may_use` is asked about isolated ones, which nobody is given but many may use. NICs are named with their number,
    /// because sysfs may show another network namespace's interfaces.
    #[must_use]
    pub fn read(root: &Path, allowed: &[u16], may_use: impl Fn(u16) -> bool, nics: &[(String, u32)]) -> Self {
        let cpu_dir = root.join("sys/devices/system/cpu");
        let listed = |name: &str| read_list(&cpu_dir.join(name)).unwrap_or_default();
        let (isolated, tickless) = (listed("isolated"), listed("nohz_full"));
        let online = read_list(&cpu_dir.join("online")).unwrap_or_else(|| allowed.iter().copied().collect());
        let nodes = nodes(root);
        // Who was given less than everybody gets was told where to stay.
        let is_free =
            online.iter().filter(|core| !isolated.contains(core)).all(|core| allowed.contains(core));
        let is_ours =
            |core: &u16| allowed.contains(core) || is_free && isolated.contains(core) && may_use(*core);
        let cpu = |id: u16| Cpu {
            id,
            node: nodes.iter().find(|(_, cores)| cores.contains(&id)).map(|(node, _)| *node),
            siblings: read_list(&cpu_dir.join(format!("cpu{id}/topology/thread_siblings_list")))
                .unwrap_or_default(),
            isolated: isolated.contains(&id),
            tickless: tickless.contains(&id),
        };
        let ours = |name: &str| nics.iter().any(|(nic, _)| nic == name);
        let others = names_in(&root.join("sys/class/net")).into_iter().filter(|name| !ours(name));
        Self {
            cpus: online.iter().copied().filter(is_ours).map(cpu).collect(),
            nics: nics.iter().map(|(name, ifindex)| nic(root, name, Some(*ifindex))).collect(),
            others: others.map(|name| nic(root, &name, None)).filter(|nic| !nic.irqs.is_empty()).collect(),
        }
    }
}

/// NUMA nodes and their cores.
fn nodes(root: &Path) -> Vec<(u16, BTreeSet<u16>)> {
    let dir = root.join("sys/devices/system/node");
    let node = |name: String| {
        let number = name.strip_prefix("node")?.parse().ok()?;
        Some((number, read_list(&dir.join(&name).join("cpulist"))?))
    };
    names_in(&dir).into_iter().filter_map(node).collect()
}

fn nic(root: &Path, name: &str, ifindex: Option<u32>) -> NicFacts {
    let dir = root.join("sys/class/net").join(name);
    let mut facts = NicFacts { name: name.to_owned(), ..NicFacts::default() };
    let shown = read_text(&dir.join("ifindex")).and_then(|text| text.parse::<u32>().ok());
    if ifindex.is_some() && shown != ifindex {
        return facts;
    }
    let device = dir.join("device");
    facts.node = read_text(&device.join("numa_node")).and_then(|text| text.parse().ok());
    // A virtio NIC's interrupts are those of the PCI device around it.
    let dirs = [device.join("msi_irqs"), device.join("../msi_irqs")];
    let mut numbers: Vec<u32> =
        dirs.iter().flat_map(|dir| names_in(dir)).filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    facts.irqs = numbers.into_iter().filter_map(|number| irq(root, number)).collect();
    facts
}

fn irq(root: &Path, number: u32) -> Option<Irq> {
    let dir = irq_dir(root, number);
    let cores = read_list(&dir.join("effective_affinity_list"))
        .filter(|cores| !cores.is_empty())
        .or_else(|| read_list(&dir.join("smp_affinity_list")))?;
    // Whoever asked for the interrupt has a directory of its name in it.
    let queue = names_in(&dir).iter().find_map(|name| queue_of(name));
    Some(Irq { number, queue, cores })
}

/// Where the kernel shows an interrupt.
pub(super) fn irq_dir(root: &Path, number: u32) -> PathBuf {
    root.join("proc/irq").join(number.to_string())
}

/// The queue that an interrupt's name tells: `eth0-TxRx-3`, `virtio0-input.0`, `mlx5_comp3@pci:0000:01:00.0`.
fn queue_of(name: &str) -> Option<u32> {
    let name = name.split('@').next().unwrap_or(name);
    let lower = name.to_lowercase();
    let is_queue = ["rx", "input", "output", "comp", "queue"].iter().any(|word| lower.contains(word));
    let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
    name.get(digits..).filter(|_| is_queue)?.parse().ok()
}

fn read_text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// A list of cores as the kernel writes it: `0-3,8`.
fn read_list(path: &Path) -> Option<BTreeSet<u16>> {
    let text = read_text(path)?;
    let mut cores = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        // `(null)` is how some kernels write an empty list.
        let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) else { continue };
        cores.extend(first..=last);
    }
    Some(cores)
}
