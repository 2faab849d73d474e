//! The tracker by itself: parse, look up, track, in process, over a table of many open TCP connections.
//!
//! Frames of one burst are written between two measurements, so what is timed is what a worker does with frames that
//! the driver has just put there. Each packet belongs to a flow drawn at random: nothing of its flow is in any cache.

mod inserts;

pub use inserts::insert;

use crate::Error;
use dataplane::clock::Now;
use dataplane::flow::{Claim, Count, Policies, Seed, TrackSettings, Tracker, TrackerConfig};
use dataplane::ids::WorkerId;
use dataplane::packet::{Family, Packet};
use dataplane::rules::conn::Orders;
use dataplane::rules::model::CtState;
use dataplane::wire;
use dataplane::wire::checksum;
use std::time::{Duration, Instant};

/// Packets of one burst: what [`Load::time`] hands over at once.
pub const BURST: usize = 32;

const ETHERNET_IP4: usize = 14 + 20;
const ETHERNET_IP6: usize = 14 + 40;
/// Sequence numbers the two sides start at.
const ISN: [u32; 2] = [1_000_000, 2_000_000];
/// Sequence space per burst: with windows of 1 GiB the numbers fit for tens of millions of bursts.
const STEP: u32 = 16;
/// SYN options: maximum segment size, SACK permitted, window scale 14.
const OPTIONS: [u8; 12] = [2, 4, 5, 180, 4, 2, 3, 3, 14, 1, 1, 0];

/// A tracker full of open connections, and a source of packets for them.
#[derive(Debug)]
pub struct Load {
    /// The tracker.
    pub tracker: Tracker,
    settings: TrackSettings,
    orders: Orders,
    flows: u32,
    family: Family,
    now: Now,
    frames: Vec<Vec<u8>>,
    packets: Box<[Packet; BURST]>,
    payload: usize,
    random: u64,
    bursts: u32,
}

/// What one packet cost, in nanoseconds: the median and the 99.99th percentile of bursts, divided by their packets.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Mean over all bursts.
    pub mean: f64,
    /// Median burst.
    pub median: f64,
    /// 99.99th percentile.
    pub p9999: f64,
}

impl Load {
    /// Opens `flows` connections.
    ///
    /// # Errors
    /// If there is not the memory.
    ///
    /// # Panics
    /// If a handshake is not what the tracker should make of it.
    pub fn new(flows: u32, family: Family, payload: usize) -> Result<Self, Error> {
        let mut load = Self::empty(flows, family, payload)?;
        for flow in 0..flows {
            load.open(flow);
        }
        Ok(load)
    }

    /// Room for `flows` connections, of which none is open yet.
    fn empty(flows: u32, family: Family, payload: usize) -> Result<Self, Error> {
        let room = flows + flows / 16 + 64;
        let (max_flows, max_flows_v6) = (room, if family == Family::V6 { room } else { 64 });
        let tracker = Tracker::new(&TrackerConfig {
            max_flows,
            max_flows_v6,
            worker: WorkerId(0),
            seed: Seed::random(),
            hugepages: true,
            prefault: true,
        })?;
        let settings = TrackSettings {
            checksum: false,
            half_open_percent: 100,
            max: Count(0),
            ..TrackSettings::default()
        };
        let mut load = Self {
            tracker,
            settings,
            orders: Orders::default(),
            flows,
            family,
            now: Now::from_secs(1000),
            frames: (0..BURST).map(|_| frame(family, payload, false)).collect(),
            packets: Box::new([Packet::EMPTY; BURST]),
            payload,
            random: 0x9e37_79b9_7f4a_7c15,
            bursts: 0,
        };
        load.tracker.adopt(&load.settings, &Policies::default(), false);
        Ok(load)
    }

    /// Whether checksums are verified too.
    pub fn verify_checksums(&mut self, verify: bool) {
        self.settings.checksum = verify;
    }

    fn open(&mut self, flow: u32) {
        // The last one is for the server's window, which in a SYN is not scaled.
        for (side, flags) in [(0, 0x02), (1, 0x12), (0, 0x10), (1, 0x10)] {
            let mut bytes = frame(self.family, 0, flags & 0x02 != 0);
            let ack = if flags == 0x02 { 0 } else { ISN[1 - side] + 1 };
            let seq = if flags == 0x10 { ISN[side] + 1 } else { ISN[side] };
            address(&mut bytes, self.family, flow, side == 1);
            numbers(&mut bytes, self.family, seq, ack, flags);
            let mut packet =
                wire::parse(&bytes, u32::try_from(bytes.len()).unwrap_or(0)).expect("a good frame");
            packet.hash = self.tracker.hash(&packet.tuple);
            let mut tracked = self.tracker.track(&packet, &bytes, self.now, &self.settings, &self.orders);
            assert_ne!(tracked.state, CtState::Invalid);
            self.tracker.commit(&packet, &mut tracked, self.now, Claim::default()).expect("there is room");
        }
    }

    /// Writes the next burst: data of random connections, either way.
    fn write(&mut self) {
        self.bursts += 1;
        for bytes in &mut self.frames {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let pick = u32::try_from(((self.random >> 32) * u64::from(self.flows)) >> 32).unwrap_or(0);
            let side = usize::from(self.random & 1 == 1);
            address(bytes, self.family, pick, side == 1);
            numbers(bytes, self.family, ISN[side] + 1 + self.bursts * STEP, ISN[1 - side] + 1, 0x18);
            if self.settings.checksum {
                seal(bytes, self.family);
            }
        }
    }

    /// What a worker does with a burst. Returns how many packets were what they should be.
    #[inline(never)]
    fn burst(&mut self) -> usize {
        let Self { tracker, settings, orders, now, frames, packets, .. } = self;
        let len = u32::try_from(frames[0].len()).unwrap_or(0);
        for (bytes, packet) in frames.iter().zip(packets.iter_mut()) {
            if wire::parse_into(bytes, len, packet).is_ok() {
                packet.hash = tracker.hash(&packet.tuple);
                tracker.prefetch_index(packet);
            }
        }
        tracker.prefetch(&mut packets[..]);
        let mut established = 0;
        for (at, (bytes, packet)) in frames.iter().zip(packets.iter()).enumerate() {
            tracker.prefetch_next(packets.get(at + 2));
            let tracked = tracker.track(packet, bytes, *now, settings, orders);
            established += usize::from(tracked.state == CtState::Established);
        }
        established
    }

    /// Sends bursts for this long and times each.
    ///
    /// # Panics
    /// If a packet is not ESTABLISHED.
    pub fn time(&mut self, length: Duration) -> Cost {
        let mut nanos: Vec<u32> = Vec::new();
        let start = Instant::now();
        while start.elapsed() < length {
            for _ in 0..64 {
                self.write();
                let from = Instant::now();
                let established = std::hint::black_box(self.burst());
                nanos.push(u32::try_from(from.elapsed().as_nanos()).unwrap_or(u32::MAX));
                assert_eq!(established, BURST, "every packet belongs to its connection");
            }
        }
        nanos.sort_unstable();
        let per_packet = |nanos: u32| f64::from(nanos) / BURST as f64;
        let sum: u64 = nanos.iter().map(|nanos| u64::from(*nanos)).sum();
        Cost {
            mean: sum as f64 / (nanos.len() * BURST) as f64,
            median: per_packet(nanos[nanos.len() / 2]),
            p9999: per_packet(nanos[nanos.len() - 1 - nanos.len() / 10_000]),
        }
    }

    /// Bytes of payload in each packet.
    #[must_use]
    pub const fn payload(&self) -> usize {
        self.payload
    }
}

/// A TCP frame without addresses and numbers.
fn frame(family: Family, payload: usize, is_syn: bool) -> Vec<u8> {
    let options: &[u8] = if is_syn { &OPTIONS } else { &[] };
    let l4 = 20 + options.len() + payload;
    let mut bytes = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
    let l4_len = u16::try_from(l4).unwrap_or(0);
    match family {
        Family::V4 => {
            bytes.extend([0x08, 0x00, 0x45, 0]);
            bytes.extend((20 + l4_len).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
            bytes.extend([0; 8]);
        }
        Family::V6 => {
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend(l4_len.to_be_bytes());
            bytes.extend([6, 64]);
            bytes.extend([0; 32]);
        }
    }
    bytes.extend([0; 12]);
    let offset = u8::try_from(((20 + options.len()) / 4) << 4).unwrap_or(0);
    bytes.extend([offset, 0, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(options);
    bytes.resize(bytes.len() + payload, 0x5a);
    bytes
}

/// Writes the addresses and ports of a connection, and the IPv4 header's checksum.
fn address(bytes: &mut [u8], family: Family, flow: u32, reversed: bool) {
    let [a, b, c, d] = flow.to_be_bytes();
    let (client, server) = ([10, a, b, c], [192, 0, 2, 1]);
    let (client_port, server_port) = ([0x80, d], [0x01, 0xbb]);
    let (src, dst) = if reversed { (server, client) } else { (client, server) };
    let (sport, dport) = if reversed { (server_port, client_port) } else { (client_port, server_port) };
    let l4 = match family {
        Family::V4 => {
            bytes[26..30].copy_from_slice(&src);
            bytes[30..34].copy_from_slice(&dst);
            bytes[24..26].fill(0);
            let sum = checksum::finish(checksum::sum(&bytes[14..34], 0));
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
            ETHERNET_IP4
        }
        Family::V6 => {
            bytes[22..24].copy_from_slice(&[0x20, 0x01]);
            bytes[34..38].copy_from_slice(&src);
            bytes[38..40].copy_from_slice(&[0x20, 0x01]);
            bytes[50..54].copy_from_slice(&dst);
            ETHERNET_IP6
        }
    };
    bytes[l4..l4 + 2].copy_from_slice(&sport);
    bytes[l4 + 2..l4 + 4].copy_from_slice(&dport);
}

fn numbers(bytes: &mut [u8], family: Family, seq: u32, ack: u32, flags: u8) {
    let l4 = if family == Family::V4 { ETHERNET_IP4 } else { ETHERNET_IP6 };
    bytes[l4 + 4..l4 + 8].copy_from_slice(&seq.to_be_bytes());
    bytes[l4 + 8..l4 + 12].copy_from_slice(&ack.to_be_bytes());
    bytes[l4 + 13] = flags;
}

/// Writes the TCP checksum.
fn seal(bytes: &mut [u8], family: Family) {
    let (l4, addresses) = if family == Family::V4 { (ETHERNET_IP4, 26..34) } else { (ETHERNET_IP6, 22..54) };
    bytes[l4 + 16..l4 + 18].fill(0);
    let len = u16::try_from(bytes.len() - l4).unwrap_or(0);
    let sum = checksum::sum(&bytes[l4..], checksum::sum(&bytes[addresses], u64::from(len) + 6));
    let sum = checksum::finish(sum);
    bytes[l4 + 16..l4 + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Bytes of a full table, all in, by the number of its flows.
///
/// # Errors
/// If there is not the memory.
pub fn bytes_per_flow(family: Family) -> Result<f64, Error> {
    const FLOWS: u32 = 1 << 20;
    let max_flows_v6 = if family == Family::V6 { FLOWS } else { 1 };
    let tracker = Tracker::new(&TrackerConfig {
        max_flows: FLOWS,
        max_flows_v6,
        worker: WorkerId(0),
        seed: Seed::random(),
        hugepages: false,
        prefault: false,
    })?;
    Ok(tracker.region().bytes_per_flow(family) as f64)
}

/// What a flood did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flooded {
    /// Packets of established flows that were not recognised.
    pub lost: u32,
    /// Flows above the table's limit, at worst.
    pub over: u32,
    /// Honest connections tried meanwhile.
    pub tried: u32,
    /// Those that got through their handshake.
    pub opened: u32,
    /// Nanoseconds per spoofed SYN, tracked and entered.
    pub nanos_per_syn: f64,
}

/// Sends SYNs of `sources` different senders through a table for `max` flows in which a thousand connections are open;
/// every thousand SYNs one of those sends a packet and somebody honest opens another.
///
/// # Errors
/// If there is not the memory.
///
/// # Panics
/// Never: frames are well formed.
pub fn flood(max: u32, sources: u32) -> Result<Flooded, Error> {
    const OPEN: u32 = 1_000;
    // The load's table is a little larger than what it is asked for; the limit is set by hand.
    let mut load = Load::new(OPEN, Family::V4, 0)?;
    load.tracker = Tracker::new(&TrackerConfig {
        max_flows: max,
        max_flows_v6: 64,
        worker: WorkerId(0),
        seed: Seed::random(),
        hugepages: true,
        prefault: true,
    })?;
    load.settings = TrackSettings { checksum: false, ..TrackSettings::default() };
    load.tracker.adopt(&load.settings, &Policies::default(), false);
    (0..OPEN).for_each(|flow| load.open(flow));
    let mut outcome = Flooded::default();
    let mut spent = Duration::ZERO;
    let mut syn = frame(Family::V4, 0, true);
    for source in 0..sources {
        address(&mut syn, Family::V4, 0x0100_0000 | source, false);
        // Another network than the honest ones, spread over all ports.
        syn[26] = 11 + u8::try_from(source >> 24).unwrap_or(0);
        seal_header(&mut syn);
        numbers(&mut syn, Family::V4, source, 0, 0x02);
        let from = Instant::now();
        load.pass(&syn);
        spent += from.elapsed();
        if source % 1_000 == 999 {
            outcome.over = outcome.over.max(load.tracker.flow_count().saturating_sub(max));
            let mut data = frame(Family::V4, 10, false);
            address(&mut data, Family::V4, source / 1_000 % OPEN, false);
            numbers(&mut data, Family::V4, ISN[0] + 1, ISN[1] + 1, 0x18);
            outcome.lost += u32::from(load.pass(&data) != CtState::Established);
            outcome.tried += 1;
            outcome.opened += u32::from(load.tries(OPEN + source / 1_000));
        }
    }
    outcome.nanos_per_syn = spent.as_nanos() as f64 / f64::from(sources);
    Ok(outcome)
}

fn seal_header(bytes: &mut [u8]) {
    bytes[24..26].fill(0);
    let sum = checksum::finish(checksum::sum(&bytes[14..34], 0));
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
}

impl Load {
    /// Takes one packet through, as rules that accept everything would.
    fn pass(&mut self, bytes: &[u8]) -> CtState {
        let mut packet = wire::parse(bytes, u32::try_from(bytes.len()).unwrap_or(0)).expect("a good frame");
        packet.hash = self.tracker.hash(&packet.tuple);
        let mut tracked = self.tracker.track(&packet, bytes, self.now, &self.settings, &self.orders);
        match self.tracker.commit(&packet, &mut tracked, self.now, Claim::default()) {
            Ok(_) => tracked.state,
            Err(_) => CtState::Invalid,
        }
    }

    /// Whether a handshake gets through.
    fn tries(&mut self, flow: u32) -> bool {
        [(0, 0x02), (1, 0x12), (0, 0x10)].into_iter().all(|(side, flags)| {
            let mut bytes = frame(self.family, 0, flags & 0x02 != 0);
            let ack = if flags == 0x02 { 0 } else { ISN[1 - side] + 1 };
            let seq = if flags == 0x10 { ISN[side] + 1 } else { ISN[side] };
            address(&mut bytes, self.family, flow, side == 1);
            numbers(&mut bytes, self.family, seq, ack, flags);
            self.pass(&bytes) != CtState::Invalid
        })
    }
}
