//! Load from inside the kernel: an XDP program, run by `BPF_PROG_RUN` with live frames, writes frame after frame into an
//! interface, millions a second on one core. Setting a run up costs about 20 ms, so a measurement is one run. The
//! receiving end of a veth must run NAPI (an XDP program, or GRO), or the frames vanish.
//!
//! The kernel hands frames over in batches of 64, so a stamp may be older than its frame's departure by what a batch
//! takes. Where latency is measured use [`crate::pace`], which sends the same load frame by frame.

mod frames;
mod order;
mod shape;

pub(crate) use frames::Frames;
pub use order::Order;
pub(crate) use order::{Picker, Random};
use shape::Shapes;
pub use shape::{
    DST_PORT, FRAME_MAX_BYTES, HEADERS_BYTES, IMIX_LARGE_BYTES, IMIX_MIDDLE_BYTES, IMIX_SMALL_BYTES,
    STAMP_BYTES,
};

use crate::Error;
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{MapCore, MapFlags, ProgramInput};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::time::{Duration, Instant};

crate::skeleton!("generate");

/// Most flows.
pub const FLOWS_MAX: u32 = 1 << 24;

/// Source ports of flows count up from here.
pub const PORT_FIRST: u16 = 1024;

/// Flows of one source address.
pub const PORTS: u32 = 60_000;

/// `BPF_F_TEST_XDP_LIVE_FRAMES`, `include/uapi/linux/bpf.h`.
const LIVE_FRAMES: u32 = 1 << 1;

/// Repetitions asked of the kernel per second of a run without a rate: more than a core makes when somebody forwards.
/// What is left over when the time is up is dropped, at 60 ns each; where it is too little, the run goes on after a gap
/// of a set-up.
const REPEATS_PER_SEC: u64 = 10_000_000;

/// Entries of a map that one system call writes.
pub(crate) const BATCH: usize = 1 << 16;

/// What to send. [`Load::new`] makes the plainest there is, so that a caller names what is different.
#[derive(Clone, Debug)]
pub struct Load {
    /// Flows. They differ in source port, beyond 60,000 also in source address; the `n`th is the same in every load.
    pub flows: u32,
    /// Number of the first of them: a load that goes on with flows that another one has not had.
    pub first_flow: u32,
    /// Which flow a packet belongs to.
    pub order: Order,
    /// What the packets are.
    pub protocol: Protocol,
    /// Lengths of frames.
    pub sizes: Sizes,
    /// Whether the payload begins with the packet's number in its flow and the time it was made, for a sink to tell
    /// loss, reordering and latency.
    pub stamp: bool,
    /// Packets a second; `None`: as fast as it goes.
    pub rate_pps: Option<u64>,
    /// Packets of ever new flows among the others.
    pub flood: Option<Flood>,
    /// Source MAC address.
    pub src_mac: [u8; 6],
    /// Destination MAC address.
    pub dst_mac: [u8; 6],
    /// Destination address. Its family is the load's.
    pub dst: IpAddr,
}

/// What packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Datagrams.
    Udp,
    /// Data segments, always the first bytes of the stream that a [`Self::Syn`] of the same flow begins, so that
    /// each but the first is a retransmission.
    Tcp,
    /// The first segment of such a connection. [`crate::handshake`] answers it.
    Syn,
}

/// How long frames are, Ethernet header included, FCS not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// All alike.
    Fixed(usize),
    /// Simple IMIX, of twelve packets seven of 64, four of 594 and one of 1518 bytes with FCS: here 60, 590 and 1514.
    /// Where headers and stamp need more than 60 bytes, the small ones have what they need.
    Imix,
}

/// Packets of which each begins a flow that there has not been before, for two thousand million packets. They carry no
/// stamps and are as short as they can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// What they are.
    pub protocol: Protocol,
    /// Of so many packets one belongs to the load's own flows, all others to the flood; 0: all belong to the flood.
    pub honest_every: u32,
    /// Number of its first flow: a flood that goes on where another one ended.
    pub first: u32,
}

/// How much to send.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// This many packets.
    Packets(u32),
    /// As many as fit into this time.
    Time(Duration),
}

/// What a run did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Packets given to the interface. It may have had no room for some.
    pub packets: u64,
    /// Of those, packets of the flood.
    pub flood: u64,
    /// Time it took, set-up included.
    pub elapsed: Duration,
    /// Of that, time spent spinning until it was the next packet's turn: what the core has left at this rate.
    pub waited: Duration,
}

impl Load {
    /// UDP datagrams of one flow in frames of 64 bytes, as fast as it goes, without stamps.
    #[must_use]
    pub fn new(src_mac: [u8; 6], dst_mac: [u8; 6], dst: impl Into<IpAddr>) -> Self {
        Self {
            flows: 1,
            first_flow: 0,
            order: Order::InTurn,
            protocol: Protocol::Udp,
            sizes: Sizes::Fixed(64),
            stamp: false,
            rate_pps: None,
            flood: None,
            src_mac,
            dst_mac,
            dst: dst.into(),
        }
    }

    /// Sends into the interface `ifindex` of the calling thread's namespace, on the calling thread's core; returns when
    /// done.
    ///
    /// # Errors
    /// If the load makes no sense or the kernel does not take the program.
    pub fn run(&self, ifindex: u32, amount: Amount) -> Result<Sent, Error> {
        let shapes = Shapes::new(self)?;
        let quantiles = self.order.quantiles(self.flows)?;
        let mut object = MaybeUninit::uninit();
        let mut open = skel::GenerateSkelBuilder::default().open(&mut object)?;
        let data = open.maps.rodata_data.as_deref_mut().ok_or("the generator has no .rodata")?;
        data.ifindex = ifindex;
        data.interval_ns = self.rate_pps.map_or(0, |rate| 1_000_000_000 / rate.max(1));
        if let Amount::Time(time) = amount {
            data.run_ns = u64::try_from(time.as_nanos())?;
        }
        let template = shapes.template();
        data.template_bytes = u32::try_from(template.len())?;
        data.header_words = u32::try_from(shapes.header_words())?;
        self.describe(&shapes, data);
        open.maps.bss_data.as_deref_mut().ok_or("the generator has no .bss")?.random_state = order::SEED;
        let data = open.maps.data_data.as_deref_mut().ok_or("the generator has no .data")?;
        (data.turn.low, data.turn.port) = shape::source(self.first_flow);
        (data.flood.low, data.flood.port) = shape::source_of_flood(self.flood.map_or(0, |flood| flood.first));
        open.maps.numbers.set_max_entries(if self.stamp { self.flows } else { 1 })?;
        open.maps.quantiles.set_max_entries(u32::try_from(quantiles.len().max(1))?)?;
        let loaded = open.load()?;
        fill(&loaded.maps.quantiles, &quantiles)?;
        let start = Instant::now();
        let repeat = match amount {
            Amount::Packets(packets) => packets,
            Amount::Time(time) => repeats(self.rate_pps.unwrap_or(REPEATS_PER_SEC), time)?,
        };
        loop {
            let input = ProgramInput {
                data_in: Some(&template),
                flags: LIVE_FRAMES,
                repeat,
                ..ProgramInput::default()
            };
            let _ = loaded.progs.generate.test_run(input)?;
            let data = loaded.maps.bss_data.as_deref().ok_or("the generator has no .bss")?;
            if data.is_over != 0 || matches!(amount, Amount::Packets(_)) {
                return Ok(Sent {
                    packets: data.sent,
                    flood: data.flooded,
                    elapsed: start.elapsed(),
                    waited: Duration::from_nanos(data.waited_ns),
                });
            }
        }
    }

    /// Tells the program what to send.
    fn describe(&self, shapes: &Shapes, data: &mut skel::types::rodata) {
        data.first = self.first_flow;
        data.flows = self.flows;
        data.order = self.order.number();
        data.zipf_shift = order::ZIPF_SHIFT;
        data.is_v6 = self.dst.is_ipv6();
        data.has_tcp = shapes.has_tcp();
        data.is_stamped = self.stamp;
        data.is_mixed = shapes.is_mixed();
        data.is_resized = shapes.is_resized();
        data.is_flood = self.flood.is_some();
        data.honest_every = self.flood.map_or(0, |flood| flood.honest_every);
        data.round_skip = shapes.round_skip;
        data.slots[..shapes.slots.len()].copy_from_slice(&shapes.slots);
        let all = shapes.honest.iter().zip(0..).chain(shapes.flood.iter().map(|flood| (flood, 3)));
        for (shape, index) in all {
            let into: &mut skel::types::shape = &mut data.shapes[index];
            into.header = shape.words();
            into.bytes = shape.bytes;
            (into.ip_sum, into.l4_sum) = (shape.ip_sum, shape.l4_sum);
            into.is_tcp = u32::from(shape.is_tcp);
        }
    }
}

/// Packets of `time` at `rate_pps`, as many as one call can be asked for.
fn repeats(rate_pps: u64, time: Duration) -> Result<u32, Error> {
    let packets = u128::from(rate_pps) * time.as_millis() / 1000;
    // The kernel takes a signed number, and zero means one.
    Ok(u32::try_from(packets.clamp(1, i32::MAX.unsigned_abs().into()))?)
}

/// Writes an array map from its start on.
pub(crate) fn fill<const N: usize>(map: &impl MapCore, values: &[[u8; N]]) -> Result<(), Error> {
    for (values, first) in values.chunks(BATCH).zip((0_u32..).step_by(BATCH)) {
        let count = u32::try_from(values.len())?;
        let keys: Vec<u8> = (first..first + count).flat_map(u32::to_ne_bytes).collect();
        map.update_batch(&keys, values.as_flattened(), count, MapFlags::ANY, MapFlags::ANY)?;
    }
    Ok(())
}
