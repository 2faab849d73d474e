//! Moves the interrupts of our NICs' queues to the cores of the workers that serve them, and back. `/proc/irq` shows all
//! interrupts of the machine whatever the network namespace; a container may have none, or none that can be written.

use super::machine::{Machine, irq_dir};
use crate::net::held::Held;
use dataplane::ids::PortId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where interrupts were handled before us, by number, as the kernel writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affinities(pub BTreeMap<u32, String>);

impl Affinities {
    /// Where the interrupts of a NIC's queues are handled now.
    #[must_use]
    pub fn read(root: &Path, machine: &Machine, port: PortId) -> Self {
        let irqs = machine.nics.get(port.index()).map_or(&[][..], |nic| &nic.irqs);
        let now = |number: u32| fs::read_to_string(irq_dir(root, number).join("smp_affinity_list")).ok();
        let queues = irqs.iter().filter(|irq| irq.queue.is_some());
        Self(queues.filter_map(|irq| Some((irq.number, now(irq.number)?.trim().to_owned()))).collect())
    }

    /// Opens what [`Self::restore`] writes to.
    pub fn hold(&self, root: &Path, held: &mut Held) {
        self.0.keys().for_each(|number| held.hold(file(root, *number)));
    }

    /// Puts them back. Returns those that would not go.
    #[must_use]
    pub fn restore(&self, root: &Path, held: &Held) -> Vec<u32> {
        let moved = |(number, cores): (&u32, &String)| {
            held.write(&file(root, *number), cores).is_err().then_some(*number)
        };
        self.0.iter().filter_map(moved).collect()
    }
}

/// Sends the interrupt of every queue of a NIC to its worker's core. `lanes` says which queues each worker serves, `cores`
/// where it runs. Returns the interrupts that would not go.
#[must_use]
pub fn steer(
    root: &Path,
    machine: &Machine,
    port: PortId,
    lanes: &[Vec<(PortId, u32)>],
    cores: &[u16],
) -> Vec<u32> {
    let core_of = |queue: u32| {
        let worker = lanes.iter().position(|hand| hand.contains(&(port, queue)))?;
        cores.get(worker).copied()
    };
    let irqs = machine.nics.get(port.index()).map_or(&[][..], |nic| &nic.irqs);
    let wanted = irqs.iter().filter_map(|irq| Some((irq, core_of(irq.queue?)?)));
    // One that is there already is left alone: interrupts that the kernel manages cannot be written at all.
    let strays = wanted.filter(|(irq, core)| !irq.cores.iter().eq([core]));
    strays
        .filter(|(irq, core)| write(root, irq.number, &core.to_string()).is_err())
        .map(|(irq, _)| irq.number)
        .collect()
}

fn write(root: &Path, number: u32, cores: &str) -> std::io::Result<()> {
    fs::write(file(root, number), cores)
}

fn file(root: &Path, number: u32) -> PathBuf {
    irq_dir(root, number).join("smp_affinity_list")
}
