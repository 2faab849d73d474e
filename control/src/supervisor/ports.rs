//! The NICs of all wires: found, given as many queues on both sides, joined with cores and taken into our care. Control
//! thread, before the first frame.

use super::Fatal;
use crate::config::{Config, Irqs, Offloads, Rss};
use crate::net::Nic;
use crate::placement::{self, Machine, Placed, irqs};
use crate::system::cores;
use arrayvec::ArrayVec;
use bpf::XdpPort;
use dataplane::ids::{PORTS_MAX, PortId};
use dataplane::worker::{PortState, deal_lanes};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use tracing::{info, warn};

/// One NIC of a wire.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) id: PortId,
    pub(super) wire: String,
    // Detached before the NIC is put back: fields drop in order.
    pub(super) xdp: XdpPort,
    pub(super) nic: Nic,
    pub(super) zero_copy: bool,
    pub(super) mtu: u32,
    /// Longest frame our memory and sockets can carry for it.
    pub(super) frame_len_max: u32,
    pub(super) queues: u32,
}

/// The NICs of all wires in port order, with their queue counts.
pub(super) fn find_nics(config: &Config) -> Result<Vec<(Nic, u32)>, Fatal> {
    let mut nics = Vec::new();
    for wire in &config.wires {
        for name in [&wire.left, &wire.right] {
            let nic = Nic::find(name)?;
            let have = nic.queues();
            nics.push((nic, have));
        }
    }
    if nics.len() > PORTS_MAX {
        return Err(Fatal::Layout(format!(
            "{} NICs are more than the {PORTS_MAX} that rules can tell apart",
            nics.len()
        )));
    }
    Ok(nics)
}

/// Has both NICs of a wire use as many queues as is configured, or as many as the one with fewer has: packets of one
/// bucket then find the same worker on both sides.
pub(super) fn align_queues(config: &Config, nics: &mut [(Nic, u32, XdpPort)]) -> Result<(), Fatal> {
    for (wire, pair) in config.wires.iter().zip(nics.chunks_mut(2)) {
        let fewest = pair.iter().map(|(_, queues, _)| *queues).min().unwrap_or(1);
        let wanted = wire.queues.map_or(fewest, u32::from);
        for (nic, queues, _) in pair.iter_mut().filter(|(_, queues, _)| *queues != wanted) {
            let set = match config.net.rss {
                Rss::Leave => Err(io::Error::other("net.rss is \"leave\"")),
                // Whatever its number of queues, buckets do not find their workers.
                Rss::Program if wire.queues.is_none() && !nic.has_rss() => {
                    Err(io::Error::other("it has no RSS, so nothing would be gained"))
                }
                Rss::Program => nic.set_queues(wanted, &config.net.journal_dir),
            };
            *queues = nic.queues();
            let refusal = match set {
                Ok(warning) => {
                    warning.iter().for_each(|warning| warn!("{warning}"));
                    continue;
                }
                Err(refusal) => refusal,
            };
            let name = &nic.name;
            if wire.queues.is_some() {
                return Err(Fatal::Layout(format!(
                    "{name} has {queues} receive queue(s), but wire `{}` is configured for {wanted}: a queue without a \
                     socket would lose its frames, and the count cannot be set ({refusal}). Set it by hand (`ethtool -L \
                     {name} combined {wanted}`) or leave `queues` out",
                    wire.name
                )));
            }
            warn!(
                "{name} has {queues} queues and its counterpart {wanted}, and that cannot be made alike ({refusal}): \
                 packets may have to be handed from worker to worker"
            );
        }
    }
    Ok(())
}

/// What there is to place workers on.
pub(super) fn read_machine(nics: &[(Nic, u32, XdpPort)]) -> Machine {
    let named: Vec<(String, u32)> = nics.iter().map(|(nic, ..)| (nic.name.clone(), nic.ifindex)).collect();
    Machine::read(Path::new("/"), &cores::allowed(), cores::is_usable, &named)
}

/// Which worker serves which queues, for this many of them.
pub(super) fn deal(nics: &[(Nic, u32, XdpPort)], workers: usize) -> Vec<Vec<(PortId, u32)>> {
    deal_lanes(&nics.iter().map(|(_, queues, _)| *queues).collect::<Vec<_>>(), workers)
}

/// A core for every worker, and the log's word on why.
pub(super) fn place(
    config: &Config,
    machine: &Machine,
    nics: &[(Nic, u32, XdpPort)],
) -> Result<Vec<Placed>, Fatal> {
    let queues = nics.iter().map(|(_, queues, _)| *queues as usize).min().unwrap_or(1);
    let placement = placement::choose(machine, &config.workers.cores, queues, |count| deal(nics, count));
    let placement = placement.map_err(|error| Fatal::Layout(error.to_string()))?;
    for (index, Placed { core, why }) in placement.workers.iter().enumerate() {
        info!("worker {index} on core {core}: {why}");
    }
    for warning in &placement.warnings {
        warn!("{warning}");
    }
    Ok(placement.workers)
}

/// Sends the interrupts of the NICs' queues to the workers that serve them.
pub(super) fn steer_irqs(machine: &Machine, ports: &[Port], hands: &[Vec<(PortId, u32)>], placed: &[Placed]) {
    let cores: Vec<u16> = placed.iter().map(|placed| placed.core).collect();
    for port in ports {
        let stuck = irqs::steer(Path::new("/"), machine, port.id, hands, &cores);
        if !stuck.is_empty() {
            warn!(
                "{}: interrupts {stuck:?} cannot be sent to the cores of their workers: packets wake another core first",
                port.nic.name
            );
        }
    }
}

/// Takes the NICs into our care.
pub(super) fn prepare(
    config: &Config,
    loaded: Vec<(Nic, u32, XdpPort)>,
    machine: &Machine,
) -> Result<Vec<Port>, Fatal> {
    let mut ports = Vec::new();
    for (index, (mut nic, queues, xdp)) in loaded.into_iter().enumerate() {
        let id = PortId(u8::try_from(index).unwrap_or(u8::MAX));
        let offloads = config.net.offloads == Offloads::Fix;
        let irqs = match config.net.irqs {
            Irqs::Steer => irqs::Affinities::read(Path::new("/"), machine, id),
            Irqs::Leave => irqs::Affinities::default(),
        };
        for warning in nic.prepare(&config.net.journal_dir, offloads, config.net.promiscuous, irqs)? {
            warn!("{warning}");
        }
        if config.xdp.busy_poll_us > 0
            && let Some(warning) = nic.defer_interrupts()
        {
            warn!("{warning}");
        }
        let gone = |source| Fatal::System { what: "reading a NIC's MTU", source };
        let mtu = nic.link().map_err(gone)?.mtu;
        ports.push(Port {
            id,
            wire: config.wires[index / 2].name.clone(),
            xdp,
            nic,
            zero_copy: false,
            mtu,
            frame_len_max: 0,
            queues,
        });
    }
    Ok(ports)
}

/// NIC and queue of every socket, in the order in which they are opened.
pub(super) fn lanes(ports: &[Port]) -> ArrayVec<(PortId, u32), 4096> {
    ports.iter().flat_map(|port| (0..port.queues).map(|queue| (port.id, queue))).collect()
}

/// What workers have to know of each NIC.
pub(super) fn port_states(ports: &[Port]) -> Arc<[PortState]> {
    let state = |port: &Port| PortState {
        frame_len_max: AtomicU32::new(Nic::frame_len_max(port.mtu).min(port.frame_len_max)),
        link_up: AtomicBool::new(port.nic.link().is_ok_and(|link| link.up)),
    };
    ports.iter().map(state).collect()
}
