//! Stages on a flow table: finding a flow, missing one, starting one, and what a packet does to its flow.
//!
//! Packets are parsed and hashed before; which flow comes next is drawn once and the same every time. Checksums are a
//! stage of their own and off here.

use crate::headers::SEED;
use crate::traffic::{Talks, shuffle};
use crate::{BURST, Error, Scale, Stage};
use arrayvec::ArrayVec;
use dataplane::clock::Now;
use dataplane::flow::{
    Claim, Count, FlowRef, Policies, Slot, TrackSettings, Tracked, Tracker, TrackerConfig,
};
use dataplane::ids::WorkerId;
use dataplane::packet::{Hint, Packet, Plain};
use dataplane::rules::conn::Orders;
use dataplane::rules::model::CtState;
use dataplane::testing::packets::{Builder, tcp};
use dataplane::wire;
use std::net::Ipv4Addr;

type Made = Result<Box<dyn Stage>, Error>;

/// Flows that are not in the table, by the thousand: their packets come in turn.
const STRANGERS: u32 = 4_096;

/// When a conversation over UDP that still goes on counts as a stream: after more than two seconds.
pub(crate) const STREAM_AFTER_NANOS: u64 = 3_000_000_000;

/// Sequence numbers the two sides of a connection start at.
const ISN: [u32; 2] = [1_000_000, 2_000_000];

/// Sequence space per burst, and how many bursts fit the windows of 1 GiB: then numbers start again.
const STEP: u32 = 16;
const STEPS: u32 = 1 << 25;

/// SYN options: maximum segment size, SACK permitted, window scale 14.
const OPTIONS: [u8; 12] = [2, 4, 5, 180, 4, 2, 3, 3, 14, 1, 1, 0];

/// A flow table and packets to come.
struct Table {
    tracker: Tracker,
    settings: TrackSettings,
    orders: Orders,
    now: Now,
    /// Packets that come in turn, hashed.
    coming: Vec<Packet>,
    next: usize,
    burst: Box<[Packet; BURST]>,
}

impl Table {
    fn empty(scale: Scale) -> Result<Self, Error> {
        let tracker = Tracker::new(&TrackerConfig {
            max_flows: scale.flows + scale.flows / 16 + STRANGERS,
            max_flows_v6: 64,
            worker: WorkerId(0),
            seed: SEED,
            hugepages: scale.hugepages,
            prefault: scale.hugepages,
        })?;
        let settings = TrackSettings {
            checksum: false,
            half_open_percent: 100,
            max: Count(0),
            ..TrackSettings::default()
        };
        let mut table = Self {
            tracker,
            settings,
            orders: Orders::default(),
            now: Now::from_secs(1000),
            coming: Vec::new(),
            next: 0,
            burst: Box::new([Packet::EMPTY; BURST]),
        };
        table.tracker.adopt(&table.settings, &Policies::default(), false);
        Ok(table)
    }

    /// With conversations over UDP, each answered and old enough to be a stream.
    fn of_datagrams(scale: Scale) -> Result<Self, Error> {
        let (mut table, talks) = (Self::empty(scale)?, Talks::new());
        for number in 0..scale.flows {
            for side in talks.of(number) {
                let packet = table.pass(&side)?;
                table.coming.push(packet);
            }
        }
        table.now = table.now.plus_nanos(STREAM_AFTER_NANOS);
        for number in 0..scale.flows {
            table.pass(&talks.of(number)[0])?;
        }
        shuffle(&mut table.coming, 1);
        Ok(table)
    }

    /// With open TCP connections.
    fn of_connections(scale: Scale) -> Result<Self, Error> {
        let mut table = Self::empty(scale)?;
        for number in 0..scale.flows {
            for frame in handshake(number) {
                table.pass(&frame.build())?;
            }
            for side in 0..2 {
                let data = segment(number, side).numbers(ISN[side] + 1, ISN[1 - side] + 1).ack();
                let packet = table.read(&data.payload(&[b'x'; 10]).build())?;
                table.coming.push(packet);
            }
        }
        shuffle(&mut table.coming, 1);
        Ok(table)
    }

    /// The same table, to which strangers come.
    fn with_strangers(mut self, scale: Scale) -> Result<Self, Error> {
        self.coming.clear();
        let talks = Talks::new();
        for number in scale.flows..scale.flows + STRANGERS {
            let packet = self.read(&talks.of(number)[0])?;
            self.coming.push(packet);
        }
        shuffle(&mut self.coming, 2);
        Ok(self)
    }

    fn read(&self, frame: &[u8]) -> Result<Packet, Error> {
        let mut packet = wire::parse(frame, u32::try_from(frame.len())?)
            .map_err(|reason| format!("a packet is malformed: {reason:?}"))?;
        packet.hash = self.tracker.hash(&packet.tuple);
        Ok(packet)
    }

    /// Takes one packet through, as rules that accept everything would.
    fn pass(&mut self, frame: &[u8]) -> Result<Packet, Error> {
        let packet = self.read(frame)?;
        let Self { tracker, settings, orders, now, .. } = self;
        let mut tracked = tracker.track(&packet, frame, *now, settings, orders);
        tracker.commit(&packet, &mut tracked, *now, Claim::default())?;
        tracker.finish(&tracked, true);
        if tracked.state == CtState::Invalid {
            return Err("a packet does not fit its flow".into());
        }
        Ok(packet)
    }

    /// Lays out the next burst.
    fn take(&mut self) {
        for packet in self.burst.iter_mut() {
            *packet = self.coming[self.next];
            self.next = if self.next + 1 == self.coming.len() { 0 } else { self.next + 1 };
        }
    }

    /// Tracks the burst as a worker does; for how many of its packets `counts` what comes out.
    #[inline]
    fn track_burst(&mut self, mut counts: impl FnMut(&mut Self, usize, Tracked) -> bool) -> usize {
        fetch(&self.tracker, &mut self.burst[..]);
        let mut counted = 0;
        for at in 0..BURST {
            self.tracker.prefetch_next(self.burst.get(at + 2));
            let Self { tracker, burst, settings, orders, now, .. } = self;
            let tracked = tracker.track(&burst[at], &[], *now, settings, orders);
            counted += usize::from(counts(self, at, tracked));
        }
        counted
    }
}

/// Asks the cache for a burst's flows, in the two passes in which a worker does.
#[inline]
fn fetch(tracker: &Tracker, packets: &mut [Packet]) {
    packets.iter().for_each(|packet| tracker.prefetch_index(packet));
    tracker.prefetch(packets);
}

/// Finds where flows are. Their records are asked for and not looked at.
struct Hit(Table);

impl Stage for Hit {
    fn prepare(&mut self) {
        self.0.take();
    }

    fn needs_preparing(&self) -> bool {
        true
    }

    fn burst(&mut self) -> usize {
        let Table { tracker, burst, .. } = &mut self.0;
        fetch(tracker, &mut burst[..]);
        burst.iter().filter(|packet| packet.hint != Hint::NONE).count()
    }
}

pub(crate) fn hit(scale: Scale) -> Made {
    Ok(Box::new(Hit(Table::of_datagrams(scale)?)))
}

/// Finds that packets belong to no flow, and what they would start.
struct Miss(Table);

impl Stage for Miss {
    fn prepare(&mut self) {
        self.0.take();
    }

    fn needs_preparing(&self) -> bool {
        true
    }

    fn burst(&mut self) -> usize {
        self.0.track_burst(|_, _, tracked| matches!(tracked.flow, FlowRef::Tentative(_)))
    }
}

pub(crate) fn miss(scale: Scale) -> Made {
    Ok(Box::new(Miss(Table::of_datagrams(scale)?.with_strangers(scale)?)))
}

/// The same, and enters what they start.
struct Insert {
    table: Table,
    entered: ArrayVec<Slot, BURST>,
}

impl Stage for Insert {
    fn prepare(&mut self) {
        for slot in self.entered.drain(..) {
            self.table.tracker.remove(slot);
        }
        self.table.take();
    }

    fn needs_preparing(&self) -> bool {
        true
    }

    fn burst(&mut self) -> usize {
        let Self { table, entered } = self;
        table.track_burst(|table, at, mut tracked| {
            let Table { tracker, burst, now, .. } = table;
            let slot = tracker.commit(&burst[at], &mut tracked, *now, Claim::default());
            tracker.finish(&tracked, true);
            let Ok(Some(slot)) = slot else { return false };
            entered.push(slot);
            true
        })
    }
}

pub(crate) fn insert(scale: Scale) -> Made {
    let table = Table::of_datagrams(scale)?.with_strangers(scale)?;
    Ok(Box::new(Insert { table, entered: ArrayVec::new() }))
}

/// Finds flows and brings them up to date.
struct Track {
    table: Table,
    bursts: u32,
}

impl Track {
    fn of(table: Table) -> Made {
        Ok(Box::new(Self { table, bursts: 0 }))
    }
}

impl Stage for Track {
    fn prepare(&mut self) {
        self.table.take();
        // Every segment brings new data.
        self.bursts = (self.bursts + 1) % STEPS;
        for packet in self.table.burst.iter_mut().filter(|packet| packet.plain == Plain::Ack) {
            packet.numbers.seq += self.bursts * STEP;
        }
    }

    fn needs_preparing(&self) -> bool {
        true
    }

    fn burst(&mut self) -> usize {
        self.table.track_burst(|_, _, tracked| tracked.state == CtState::Established)
    }
}

pub(crate) fn udp(scale: Scale) -> Made {
    Track::of(Table::of_datagrams(scale)?)
}

pub(crate) fn tcp_established(scale: Scale) -> Made {
    Track::of(Table::of_connections(scale)?)
}

/// A segment of a connection, without numbers, from one side.
fn segment(number: u32, side: usize) -> Builder {
    let client = Ipv4Addr::from(0x0a00_0000 + number / 16);
    let server = Ipv4Addr::new(203, 0, 113, 5);
    let port = 10_000 + u16::try_from(number % 16).unwrap_or(0);
    let built = match side {
        0 => tcp(client, server).ports(port, 443),
        _ => tcp(server, client).ports(443, port),
    };
    built.window(u16::MAX)
}

/// What opens a connection; the last one is for the server's window, which in a SYN is not scaled.
fn handshake(number: u32) -> [Builder; 4] {
    let [client, server] = [0, 1].map(|side| segment(number, side));
    [
        client.clone().syn().numbers(ISN[0], 0).tcp_options(&OPTIONS),
        server.clone().syn_ack().numbers(ISN[1], ISN[0] + 1).tcp_options(&OPTIONS),
        client.ack().numbers(ISN[0] + 1, ISN[1] + 1),
        server.ack().numbers(ISN[1] + 1, ISN[0] + 1),
    ]
}
