//! The far end of a load run: an XDP program that counts the generator's packets and drops them, the cheapest receiver
//! there is. Where packets are stamped it also tells loss, reordering and latency; and it can send them back, so that a
//! second sink at the near end sees round trips.
//!
//! Numbers are per flow. Ten packets numbered 0 to 9 of which 4 is missing, 6 comes after 7 and 8 comes twice are
//! `expected` 10, `lost` 1, `late` 1, `duplicates` 1. What is lost at the end of a run no later packet can tell: compare
//! `expected` with what was sent. A run's numbers begin at 0, so [`Sink::reset`] comes before each.

mod latency;

pub(crate) use latency::histogram;
pub use latency::{LATENCY_MAX_NS, Latencies};

use crate::Error;
use crate::load::{BATCH, DST_PORT, fill};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, OpenObject};
use std::mem::MaybeUninit;
use std::time::Duration;

crate::skeleton!("sink");

/// Numbers of `struct counts`.
const TOTALS: usize = 7;

/// Size of `struct sequence`.
const SEQUENCE_BYTES: usize = 40;

/// Size of `struct silence`.
const SILENCE_BYTES: usize = 32;

/// Room for what libbpf opens; it has to live as long as the [`Sink`].
pub struct Storage(MaybeUninit<OpenObject>);

/// Counts on one interface as long as it lives.
pub struct Sink<'storage> {
    skel: skel::SinkSkel<'storage>,
    options: Options,
    _link: Link,
}

/// What a sink is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How many of the load's flows are counted one by one.
    pub flows: u32,
    /// Whether to read stamps: latencies of all packets, loss and reordering of the flows counted one by one.
    pub stamps: bool,
    /// What becomes of the packets.
    pub role: Role,
}

/// What becomes of the load's packets. A flood's are always dropped, and so is what is not the load's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// They end here.
    #[default]
    Drop,
    /// They are sent back: MAC addresses, addresses and ports swapped, payload and stamp as they are.
    Echo,
    /// They have been sent back by an [`Role::Echo`], and end here.
    DropReplies,
}

/// What has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets of the load's own flows.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// Packets of its flood.
    pub flood: u64,
    /// Frames of anybody else.
    pub others: u64,
    /// Of the packets, those without a stamp; 0 unless stamps are read.
    pub unstamped: u64,
}

/// What the numbers of stamped packets say, of one flow or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Packets with a number.
    pub packets: u64,
    /// Numbers up to the highest that was seen.
    pub expected: u64,
    /// Of those, how many have not been seen.
    pub lost: u64,
    /// Packets that came after a higher number of their flow, duplicates left out.
    pub late: u64,
    /// Packets whose number had been seen before.
    pub duplicates: u64,
    /// Of the late ones, those 64 or more numbers behind. They may be duplicates, and then as many more are lost.
    pub ancient: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self(MaybeUninit::uninit())
    }
}

impl<'storage> Sink<'storage> {
    /// Attaches one that drops, without stamps, to the interface `ifindex` of the calling thread's namespace. `flows`
    /// says how many of the load's flows are counted one by one.
    ///
    /// # Errors
    /// As of [`Self::attach_as`].
    pub fn attach(storage: &'storage mut Storage, ifindex: u32, flows: u32) -> Result<Self, Error> {
        Self::attach_as(storage, ifindex, Options { flows, ..Options::default() })
    }

    /// Attaches to the interface `ifindex` of the calling thread's namespace, in native mode where the driver can.
    ///
    /// # Errors
    /// If the kernel does not take the program, or another one is attached.
    pub fn attach_as(storage: &'storage mut Storage, ifindex: u32, options: Options) -> Result<Self, Error> {
        let mut open = skel::SinkSkelBuilder::default().open(&mut storage.0)?;
        let data = open.maps.rodata_data.as_deref_mut().ok_or("the sink has no .rodata")?;
        data.port = DST_PORT;
        data.flows = options.flows;
        data.is_stamped = options.stamps;
        data.is_echo = options.role == Role::Echo;
        data.is_reply = options.role == Role::DropReplies;
        open.maps.per_flow.set_max_entries(options.flows.max(1))?;
        open.maps.sequences.set_max_entries(if options.stamps { options.flows.max(1) } else { 1 })?;
        let skel = open.load()?;
        let link = skel.progs.sink.attach_xdp(i32::try_from(ifindex)?)?;
        Ok(Self { skel, options, _link: link })
    }

    /// What has arrived so far.
    ///
    /// # Errors
    /// If the kernel does not give the counters.
    pub fn counts(&self) -> Result<Counts, Error> {
        let [packets, bytes, flood, others, unstamped, ..] = totals::<TOTALS>(&self.skel.maps.totals)?;
        Ok(Counts { packets, bytes, flood, others, unstamped })
    }

    /// Packets of each flow so far.
    ///
    /// # Errors
    /// If the kernel does not give the counters.
    pub fn flows(&self) -> Result<Vec<u64>, Error> {
        let mut flows = vec![0; self.options.flows as usize];
        read(&self.skel.maps.per_flow, |flow, value| {
            if let Some(packets) = flows.get_mut(flow) {
                *packets = number(value, 0);
            }
        })?;
        Ok(flows)
    }

    /// What the numbers of each flow's packets say so far. Empty unless stamps are read.
    ///
    /// # Errors
    /// If the kernel does not give the counters.
    pub fn sequences(&self) -> Result<Vec<Sequence>, Error> {
        let flows = if self.options.stamps { self.options.flows } else { 0 };
        let mut sequences = vec![Sequence::default(); flows as usize];
        read(&self.skel.maps.sequences, |flow, value| {
            if let Some(sequence) = sequences.get_mut(flow) {
                *sequence = Sequence::of(value);
            }
        })?;
        Ok(sequences)
    }

    /// How long stamped packets have been under way.
    ///
    /// # Errors
    /// If stamps are not read, or the kernel does not give the counters.
    pub fn latencies(&self) -> Result<Latencies, Error> {
        if !self.options.stamps {
            return Err("a sink that reads no stamps knows no latencies".into());
        }
        let [.., from_future, beyond] = totals::<TOTALS>(&self.skel.maps.totals)?;
        let mut histogram = histogram()?;
        for bucket in 0..self.skel.maps.latencies.max_entries() {
            let cores = self.skel.maps.latencies.lookup_percpu(&bucket.to_ne_bytes(), MapFlags::ANY)?;
            let packets: u64 = cores.unwrap_or_default().iter().map(|core| number(core, 0)).sum();
            if packets > 0 {
                histogram.record_n(latency::middle_of(bucket.into()), packets)?;
            }
        }
        Ok(Latencies { histogram, from_future, beyond })
    }

    /// Longest time without a packet in which there should have been one: from a packet to the next, or, if nothing was
    /// lost between them and that one left later, from its departure on. So a sender that pauses is not taken for
    /// packets that are held up; where packets were lost, a pause of the sender's may be in it. Right for loads whose
    /// flows are sent in turn, all of them counted one by one; zero before the second packet.
    ///
    /// # Errors
    /// If stamps are not read or no flow is counted by itself, or the kernel does not give the value.
    pub fn longest_silence(&self) -> Result<Duration, Error> {
        if !self.options.stamps || self.options.flows == 0 {
            return Err("a sink that reads no stamps, or counts no flows, knows no silence".into());
        }
        let value = self.skel.maps.silences.lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
        Ok(Duration::from_nanos(number(&value.ok_or("the kernel has no silence where it should be")?, 3)))
    }

    /// Forgets what has arrived. Packets that arrive meanwhile may be counted or not.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn reset(&self) -> Result<(), Error> {
        let maps = &self.skel.maps;
        let flows = self.options.flows as usize;
        fill(&maps.per_flow, &vec![[0; 8]; flows])?;
        if self.options.stamps {
            fill(&maps.sequences, &vec![[0; SEQUENCE_BYTES]; flows])?;
            fill(&maps.silences, &[[0; SILENCE_BYTES]])?;
            let zeros = vec![vec![0; 8]; libbpf_rs::num_possible_cpus()?];
            for bucket in 0..maps.latencies.max_entries() {
                maps.latencies.update_percpu(&bucket.to_ne_bytes(), &zeros, MapFlags::ANY)?;
            }
        }
        zero_totals::<TOTALS>(&maps.totals)
    }
}

impl Sequence {
    /// Reads `struct sequence`.
    fn of(value: &[u8]) -> Self {
        let half = |index| u64::from(half(value, index));
        let (expected, packets) = (half(1), number(value, 2));
        let [late, duplicates, ancient] = [half(6), half(7), half(8)];
        let lost = (expected + duplicates).saturating_sub(packets);
        Self { packets, expected, lost, late, duplicates, ancient }
    }
}

impl std::iter::Sum for Sequence {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| {
            let Self { packets, expected, lost, late, duplicates, ancient } = one;
            Self {
                packets: sum.packets + packets,
                expected: sum.expected + expected,
                lost: sum.lost + lost,
                late: sum.late + late,
                duplicates: sum.duplicates + duplicates,
                ancient: sum.ancient + ancient,
            }
        })
    }
}

/// The sums over all cores of a per-core array's only value, which is so many 64-bit numbers.
pub(crate) fn totals<const N: usize>(map: &impl MapCore) -> Result<[u64; N], Error> {
    let cores = map.lookup_percpu(&0_u32.to_ne_bytes(), MapFlags::ANY)?;
    let mut totals = [0; N];
    for core in cores.ok_or("the kernel has no counters where they should be")? {
        for (index, total) in totals.iter_mut().enumerate() {
            *total += number(&core, index);
        }
    }
    Ok(totals)
}

/// Starts them again at zero.
pub(crate) fn zero_totals<const N: usize>(map: &impl MapCore) -> Result<(), Error> {
    let zeros = vec![vec![0; 8 * N]; libbpf_rs::num_possible_cpus()?];
    Ok(map.update_percpu(&0_u32.to_ne_bytes(), &zeros, MapFlags::ANY)?)
}

/// Calls `take` with each index of an array map and its value.
fn read(map: &impl MapCore, mut take: impl FnMut(usize, &[u8])) -> Result<(), Error> {
    let count = map.max_entries().min(u32::try_from(BATCH)?);
    for (key, value) in map.lookup_batch(count, MapFlags::ANY, MapFlags::ANY)? {
        take(half(&key, 0) as usize, &value);
    }
    Ok(())
}

/// The `index`th 64-bit number of a map value.
fn number(value: &[u8], index: usize) -> u64 {
    let bytes = value.chunks_exact(8).nth(index).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u64::from_ne_bytes)
}

/// The `index`th 32-bit one.
fn half(value: &[u8], index: usize) -> u32 {
    let bytes = value.chunks_exact(4).nth(index).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}
