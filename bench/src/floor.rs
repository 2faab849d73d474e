//! The floor: a bare AF_XDP forwarder on the same frame memory, rings and XDP program as the gateway. It moves
//! descriptors from one NIC to the other and looks at nothing, so what it reaches is what the kernel and the ring
//! layer allow, and the gateway is measured against it. One thread, one queue per NIC.

use bpf::{AttachMode, XdpPort};
use dataplane::device::{BURST_MAX, Device, DeviceCounters, FrameBurst};
use dataplane::ids::WorkerId;
use dataplane::xsk::{BindMode, FramePool, QueueSpec, SocketOptions, Umem, UmemConfig, XskDevice, open_all};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

/// Descriptors per ring, as the gateway's default.
const RING_SIZE: u32 = 2048;

/// A forwarder between two NICs.
#[derive(Debug)]
pub struct Floor {
    // Detached first, then the sockets close.
    ports: [XdpPort; 2],
    devices: [XskDevice; 2],
    pool: FramePool,
    burst: FrameBurst,
}

impl Floor {
    /// Opens both NICs' queue 0 and attaches the program.
    ///
    /// # Errors
    /// If a NIC or AF_XDP cannot be used; the message says why.
    pub fn open(left: u32, right: u32, names: [&str; 2]) -> Result<Self, Box<dyn std::error::Error>> {
        let config = UmemConfig {
            frame_size: 2048,
            frames_per_worker: 2 * (4 * RING_SIZE + 64),
            workers: 1,
            hugepages: None,
        };
        let umem = Umem::new(&config)?;
        let options =
            SocketOptions { mode: BindMode::Copy, ring_size: RING_SIZE, jumbo: false, busy_poll_us: 0 };
        let queues = [left, right].map(|ifindex| QueueSpec { ifindex, queue: 0 });
        let devices = open_all(&umem, &queues, &options)?;
        let devices: [XskDevice; 2] = devices.try_into().map_err(|_| "two queues make two devices")?;
        let mut ports =
            [XdpPort::load(names[0], i32::try_from(left)?)?, XdpPort::load(names[1], i32::try_from(right)?)?];
        let mut pool = FramePool::new(&umem, WorkerId(0));
        let mut devices = devices;
        for (port, device) in ports.iter_mut().zip(&mut devices) {
            port.register(0, device.as_raw_fd())?;
            device.replenish(&mut pool);
            port.attach(AttachMode::Native)?;
        }
        Ok(Self { ports, devices, pool, burst: FrameBurst::new() })
    }

    /// Forwards until `stop` is set.
    pub fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.forward(0, 1);
            self.forward(1, 0);
        }
    }

    fn forward(&mut self, from: usize, to: usize) {
        let Self { devices, pool, burst, .. } = self;
        if devices[to].is_tx_pending() {
            devices[to].flush();
        }
        devices[from].replenish(pool);
        if devices[to].tx_room() < BURST_MAX {
            devices[to].replenish(pool);
            return;
        }
        devices[from].rx_burst(burst);
        for frame in burst.drain(..) {
            if let Err(frame) = devices[to].tx(frame) {
                pool.free(frame);
            }
        }
        devices[to].flush();
    }

    /// What the rings of both NICs have seen.
    #[must_use]
    pub fn counters(&self) -> [DeviceCounters; 2] {
        [self.devices[0].counters(), self.devices[1].counters()]
    }

    /// Whether both programs run in the driver.
    #[must_use]
    pub fn is_native(&self) -> bool {
        self.ports.iter().all(XdpPort::is_native)
    }
}
