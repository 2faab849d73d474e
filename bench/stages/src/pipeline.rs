//! The whole way of a packet in process: a real worker between two queues in memory, ten stateful rules, 64-byte datagrams of
//! flows that are answered, in an order that is not the table's.
//!
//! The queues cost something too, which on a NIC is the driver's and the kernel's. [`Share`] measures them by themselves,
//! over the same packets, so that it can be taken off.

use crate::device::Conveyor;
use crate::flows::STREAM_AFTER_NANOS;
use crate::gateway::{self, Gateway, Plan};
use crate::headers::SEED;
use crate::ten::bench10;
use crate::traffic::{PACKET, Talks, shuffle};
use crate::{BURST, Error, Scale, Stage};
use dataplane::clock::Now;
use dataplane::device::{Device, FrameBurst};
use dataplane::ids::{Generation, WorkerId};
use dataplane::worker::Worker;
use dataplane::xsk::{FramePool, Umem, UmemConfig};
use std::hint::black_box;

type Packets = Box<[[u8; PACKET]]>;

/// The packets of all flows, by the side they come from, each side's in an order of its own.
fn shuffled(flows: u32) -> [Packets; 2] {
    let talks = Talks::new();
    [0, 1].map(|side| {
        let mut packets: Packets = (0..flows).map(|number| talks.of(number)[side]).collect();
        shuffle(&mut packets, side as u64);
        packets
    })
}

/// The worker.
#[derive(Debug)]
pub struct Pipeline {
    worker: Worker<Conveyor>,
    now: Now,
    /// Whose turn it is: one burst is of one side, as it comes from one queue.
    side: usize,
}

impl Pipeline {
    /// With so many flows open.
    ///
    /// # Errors
    /// If memory is short, or a packet does not pass.
    pub fn new(scale: Scale) -> Result<Self, Error> {
        let plan = Plan {
            workers: 1,
            max_flows: scale.flows + scale.flows / 16 + 64,
            seed: SEED,
            hugepages: scale.hugepages,
            burst: BURST,
            arrival: scale.arrival,
        };
        let first = gateway::snapshot(Generation(1), bench10(), 1)?;
        let mut gateway = Gateway::new(&plan, first)?;
        let worker = gateway.workers.pop().ok_or("a gateway has a worker")?;
        let mut pipeline = Self { worker, now: Now::from_secs(1000), side: 0 };
        pipeline.open(scale.flows)?;
        for (lane, packets) in pipeline.worker.lanes_mut().iter_mut().zip(shuffled(scale.flows)) {
            lane.device.play(packets, 0);
        }
        Ok(pipeline)
    }

    /// Lets every flow speak from either side, in the order of their numbers, and again when that makes it a stream.
    fn open(&mut self, flows: u32) -> Result<(), Error> {
        for _ in 0..2 {
            self.say_all(flows);
            self.now = self.now.plus_nanos(STREAM_AFTER_NANOS);
        }
        let sent = gateway::sent(&mut self.worker);
        if sent == 4 * u64::from(flows) && self.worker.tracker_mut().flow_count() == flows {
            return Ok(());
        }
        Err(format!("of {flows} flows, both sides twice, {sent} packets passed").into())
    }

    /// Every flow from both sides, a few at a time: only so many may wait for an answer.
    fn say_all(&mut self, flows: u32) {
        const AT_ONCE: u32 = 64;
        let talks = Talks::new();
        let mut from = 0;
        while from < flows {
            let to = (from + AT_ONCE).min(flows);
            for side in 0..2 {
                let packets: Packets = (from..to).map(|number| talks.of(number)[side]).collect();
                let budget = packets.len() as u64;
                self.worker.lanes_mut()[side].device.play(packets, budget);
                while self.worker.poll(self.now) > 0 {}
            }
            from = to;
        }
    }
}

impl Stage for Pipeline {
    /// One poll with a burst from one side. Its packets arrive in it and are sent in it; their frames are taken back in the next.
    #[inline]
    fn burst(&mut self) -> usize {
        self.side ^= 1;
        let lanes = self.worker.lanes_mut();
        lanes[self.side].device.allow(BURST as u64);
        let before = lanes[self.side ^ 1].device.counters().tx_descs;
        self.worker.poll(self.now);
        let after = self.worker.lanes_mut()[self.side ^ 1].device.counters().tx_descs;
        usize::try_from(after - before).unwrap_or(0)
    }
}

/// The queues' share of that: the same packets arrive, leave at once, and their frames are taken back.
#[derive(Debug)]
pub struct Share {
    pool: FramePool,
    queues: [Conveyor; 2],
    burst: FrameBurst,
    side: usize,
}

impl Share {
    /// Over the packets of so many flows.
    ///
    /// # Errors
    /// If memory is short.
    pub fn new(scale: Scale) -> Result<Self, Error> {
        let umem = Umem::new(&UmemConfig::plain(1024, 1))?;
        let pool = FramePool::new(&umem, WorkerId(0));
        let queues = shuffled(scale.flows).map(|packets| {
            let mut queue = Conveyor::new(&umem).in_bursts_of(BURST).by(scale.arrival);
            queue.play(packets, 0);
            queue
        });
        Ok(Self { pool, queues, burst: FrameBurst::new(), side: 0 })
    }
}

impl Stage for Share {
    #[inline]
    fn burst(&mut self) -> usize {
        self.side ^= 1;
        let Self { pool, queues, burst, side } = self;
        queues[*side].allow(BURST as u64);
        // As a worker's poll does.
        queues.iter_mut().for_each(|queue| queue.replenish(pool));
        let received = queues[*side].rx_burst(burst);
        for frame in burst.drain(..) {
            if let Err(frame) = queues[*side ^ 1].tx(black_box(frame)) {
                pool.free(frame);
            }
        }
        received
    }
}

pub(crate) fn pipeline(scale: Scale) -> Result<Box<dyn Stage>, Error> {
    Ok(Box::new(Pipeline::new(scale)?))
}

pub(crate) fn device_alone(scale: Scale) -> Result<Box<dyn Stage>, Error> {
    Ok(Box::new(Share::new(scale)?))
}
