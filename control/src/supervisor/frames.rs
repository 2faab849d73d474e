//! Frame memory and the sockets on it: sizes that follow from configuration and NICs. Control thread, before the first frame.

use super::Fatal;
use super::ports::{self, Port};
use crate::config::{Auto, Config, XdpMode};
use crate::net::frame_fits;
use dataplane::ids::PortId;
use dataplane::xsk::{BindMode, QueueSpec, SocketOptions, Umem, UmemConfig, XskDevice, open_all};
use std::sync::Arc;
use tracing::info;

/// Sizes that follow from configuration and NICs.
pub(super) struct Geometry {
    frame_size: u32,
    frames_per_worker: u32,
    /// Workers that receive and so have frames of their own.
    homes: u32,
    jumbo: bool,
    pub(super) frame_len_max: u32,
}

impl Geometry {
    pub(super) fn of(config: &Config, ports: &[Port], hands: &[Vec<(PortId, u32)>]) -> Result<Self, Fatal> {
        let mtu = ports.iter().map(|port| port.mtu).max().unwrap_or(1500);
        let roomy = if mtu > 1700 { 4096 } else { 2048 };
        let frame_size = config.umem.frame_size_bytes.unwrap_or(roomy);
        let mut jumbo = false;
        for port in ports {
            jumbo |= frame_fits(&port.nic.name, port.mtu, frame_size, port.xdp.features().multi_buffer)?;
        }
        let ring = config.umem.ring_size_descs;
        let most = hands.iter().map(Vec::len).max().unwrap_or(1);
        let homes = hands.iter().filter(|hand| !hand.is_empty()).count();
        // Fill and rx ring full, tx and completion ring full, and a burst in hand, for every queue.
        let enough = u32::try_from(most).unwrap_or(1) * (4 * ring + 64);
        Ok(Self {
            frame_size,
            frames_per_worker: config.umem.frames_per_worker.unwrap_or(enough),
            homes: u32::try_from(homes).unwrap_or(1),
            jumbo,
            frame_len_max: if jumbo { 65536 } else { frame_size - dataplane::xsk::HEADROOM },
        })
    }

    pub(super) fn umem_bytes(&self) -> u64 {
        u64::from(self.frame_size) * u64::from(self.frames_per_worker) * u64::from(self.homes)
    }

    pub(super) fn umem(&self, config: &Config) -> UmemConfig {
        UmemConfig {
            frame_size: self.frame_size,
            frames_per_worker: self.frames_per_worker,
            workers: self.homes,
            hugepages: wish(config.umem.hugepages),
        }
    }
}

/// `auto` as no wish.
fn wish(auto: Auto) -> Option<bool> {
    match auto {
        Auto::Auto => None,
        Auto::On => Some(true),
        Auto::Off => Some(false),
    }
}

/// A socket for every queue, in the order of [`ports::lanes`].
pub(super) fn open_sockets(
    config: &Config,
    umem: &Arc<Umem>,
    ports: &[Port],
    geometry: &Geometry,
) -> Result<Vec<XskDevice>, Fatal> {
    let mode = match (config.xdp.zero_copy, config.xdp.mode) {
        (Auto::On, _) => BindMode::ZeroCopy,
        (Auto::Off, _) | (_, XdpMode::Generic) => BindMode::Copy,
        (Auto::Auto, _) if ports.iter().all(|port| port.xdp.features().zero_copy) => BindMode::Auto,
        (Auto::Auto, _) => BindMode::Copy,
    };
    let options = SocketOptions {
        mode,
        ring_size: config.umem.ring_size_descs,
        jumbo: geometry.jumbo,
        busy_poll_us: config.xdp.busy_poll_us,
    };
    let queues: Vec<QueueSpec> = ports::lanes(ports)
        .into_iter()
        .map(|(port, queue)| QueueSpec { ifindex: ports[port.index()].nic.ifindex, queue })
        .collect();
    info!(
        "frame memory: {} KiB, {:?}, frames of {} bytes",
        umem.bytes() / 1024,
        umem.backing(),
        umem.frame_size()
    );
    Ok(open_all(umem, &queues, &options)?)
}
