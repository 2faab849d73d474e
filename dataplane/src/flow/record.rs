//! Flow records, as words of fixed size. Every word is an atomic, used with relaxed order, because other threads read
//! while the owning worker writes; only the owner writes.
//!
//! ```text
//!            line 0 (every packet)                                      line 1 (TCP; rarely others)     line 2
//! v4 record  seq verdicts life ports addresses(8) counters(24)         | windows last mark created ext |
//! v6 record  seq verdicts life ports addresses(32)                     | windows last mark created ext | counters
//! ```
//!
//! `seq` is odd while the record is a live flow and grows by one on each insert and each removal: (slot, seq) names
//! one flow for ever, and a reader that finds `seq` changed after copying knows that its copy is of two flows.
//! A record of zeroes is a free one that was never used.

use super::tcp::TcpState;
use super::tracked::Direction;
use crate::clock::Tick;
use crate::ids::WorkerId;
use crate::packet::{Family, Tuple};
use crate::rules::conn::{CtEvents, Helper, PolicyId, Zone};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Most records of one family: the width of a slot number in a bucket.
pub(super) const SLOTS_MAX: u32 = 1 << 30;

/// Where a flow's record is: its family's slab and its position there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u32);

/// Names one flow of one worker for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId {
    /// Whose flow it is.
    pub worker: WorkerId,
    /// Where its record is.
    pub slot: Slot,
    /// Which of the flows that were ever in that slot it is.
    pub seq: u32,
}

impl FlowId {
    /// Stands for the flow that a packet may start: no flow is called so.
    #[must_use]
    pub(crate) const fn newcomer(worker: WorkerId, now: Tick) -> Self {
        Self { worker, slot: Slot(now.0), seq: 0 }
    }

    /// When it was made, if it is a newcomer.
    pub(super) const fn newcomer_at(self) -> Option<Tick> {
        if self.seq == 0 { Some(Tick(self.slot.0)) } else { None }
    }
}

/// Bits of a flow's status. Values are the kernel's (`IPS_*`).
pub mod status {
    /// Announced by another flow.
    pub const EXPECTED: u16 = 1 << 0;
    /// A packet of the other direction has been seen.
    pub const SEEN_REPLY: u16 = 1 << 1;
    /// Seen enough not to be evicted early.
    pub const ASSURED: u16 = 1 << 2;
    /// In the table. Not stored, as it holds for every flow there; rules may ask for it.
    pub const CONFIRMED: u16 = 1 << 3;
    /// Can have labels: began while rules spoke of labels. Ours, as the next.
    pub(crate) const LABELLED: u16 = 1 << 14;
    /// Has a timeout policy. The kernel's bits of these values speak of hardware.
    pub(crate) const OWN_TIMEOUTS: u16 = 1 << 15;
    /// What nobody else is told.
    pub(crate) const OURS: u16 = LABELLED | OWN_TIMEOUTS;
}

/// What every packet of a flow changes together, in one word: deadline, status bits and protocol state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) deadline: Tick,
    pub(super) status: u16,
    /// `None` for every protocol but TCP.
    pub(super) tcp_state: TcpState,
}

/// The part every packet of every flow looks at. Half a cache line.
#[repr(C)]
#[derive(Default)]
pub(super) struct Common {
    /// Odd while live.
    pub(super) seq: AtomicU32,
    /// Rules generation that `verdicts` are of; zero is none.
    pub(super) verdict_generation: AtomicU32,
    /// What rules said of each direction, see `tracker/verdicts.rs`.
    pub(super) verdicts: [AtomicU32; 2],
    life: AtomicU64,
    /// Orig source port, orig destination port, protocol, then the zone: its number, and one bit for each direction
    /// that is not in it. While the record is free: the next free one.
    pub(super) ports: AtomicU64,
}

/// Packets and bytes of each direction: bytes in the low 56 bits of `wide` (72 PB), packets in 40 bits, of which the
/// low 32 stand in `packets` and the rest in the high 8 bits of `wide`.
#[repr(C)]
#[derive(Default)]
pub(super) struct Counters {
    wide: [AtomicU64; 2],
    packets: [AtomicU32; 2],
}

/// A [`super::tcp::Side`] but for its scale and flags. SCTP keeps a side's verification tag in `end`.
#[repr(C)]
#[derive(Default)]
pub(super) struct SideWords {
    pub(super) end: AtomicU32,
    pub(super) maxend: AtomicU32,
    pub(super) maxwin: AtomicU32,
    pub(super) maxack: AtomicU32,
}

/// The part that TCP packets and slower matters look at. One cache line.
#[repr(C, align(64))]
#[derive(Default)]
pub(super) struct Tail {
    /// TCP: what each side has shown, by [`Direction::index`].
    pub(super) sides: [SideWords; 2],
    /// TCP: sequence number of the last packet looked at, and above it its acknowledgement number.
    pub(super) last: AtomicU64,
    /// TCP: the rest of that packet, see `tcp/store.rs`.
    pub(super) last_rest: AtomicU64,
    /// TCP: scales and flags, see there. SCTP: everything but the tags.
    pub(super) bits: AtomicU32,
    /// Connection mark.
    pub(super) mark: AtomicU32,
    /// Tick of the flow's first packet.
    pub(super) created: AtomicU32,
    /// What few flows have, see [`Extra`]; zero is none of it.
    extra: AtomicU32,
}

/// A flow's labels, beside its record. They count only if the flow can have labels ([`status::LABELLED`]).
#[repr(C)]
#[derive(Default)]
pub(super) struct LabelWords {
    low: AtomicU64,
    high: AtomicU64,
}

/// What few flows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Extra {
    /// Its helper.
    pub(super) helper: Option<Helper>,
    /// Helper of the connection that announced it.
    pub(super) master_helper: Option<Helper>,
    /// Its timeout policy.
    pub(super) timeouts: Option<PolicyId>,
    /// Events it tells; `None`: all.
    pub(super) events: Option<CtEvents>,
}

/// An IPv4 flow.
#[repr(C, align(64))]
#[derive(Default)]
pub(super) struct RecordV4 {
    common: Common,
    /// Orig source in the high half, orig destination in the low.
    addresses: AtomicU64,
    counters: Counters,
    tail: Tail,
}

/// An IPv6 flow.
#[repr(C, align(64))]
#[derive(Default)]
pub(super) struct RecordV6 {
    common: Common,
    /// Orig source, orig destination, high halves first.
    addresses: [AtomicU64; 4],
    tail: Tail,
    counters: Counters,
    _spare: [AtomicU64; 5],
}

const _: () = assert!(size_of::<Common>() == 32);
const _: () = assert!(size_of::<RecordV4>() == 128);
const _: () = assert!(size_of::<RecordV6>() == 192);
const _: () = assert!(std::mem::offset_of!(RecordV4, tail) == 64);
const _: () = assert!(std::mem::offset_of!(RecordV6, tail) == 64);

/// A record of either family, by its parts.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) common: &'a Common,
    pub(super) counters: &'a Counters,
    pub(super) tail: &'a Tail,
}

/// An IPv4 tuple and its inverse in the record's form, ready to be compared: addresses and ports.
#[derive(Clone, Copy)]
pub(super) struct ProbeV4 {
    same: [u64; 2],
    inverse: [u64; 2],
    zone: Zone,
}

/// An IPv6 tuple and its inverse in the record's form: source, destination (high halves first) and ports.
#[derive(Clone, Copy)]
pub(super) struct ProbeV6 {
    same: [u64; 5],
    inverse: [u64; 5],
    zone: Zone,
}

impl Slot {
    /// Bit 30 is free for the index entry, see [`super::bucket`].
    pub(super) const V6: u32 = 1 << 31;

    pub(super) const fn new(family: Family, index: u32) -> Self {
        debug_assert!(index < SLOTS_MAX);
        match family {
            Family::V4 => Self(index),
            Family::V6 => Self(index | Self::V6),
        }
    }

    /// The family of the flows in this slot.
    #[must_use]
    pub const fn family(self) -> Family {
        if self.0 & Self::V6 == 0 { Family::V4 } else { Family::V6 }
    }

    /// Position in the family's slab.
    #[must_use]
    pub const fn index(self) -> usize {
        (self.0 & (SLOTS_MAX - 1)) as usize
    }

    pub(super) const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The slot as one number, for logs and events.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }
}

/// The life word of an open TCP connection or a UDP stream, see [`Common::settled_life`].
#[derive(Clone, Copy)]
pub(super) struct SettledLife(u64);

impl SettledLife {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the deadline is the low half")]
    pub(super) const fn deadline(self) -> Tick {
        Tick(self.0 as u32)
    }
}

impl Life {
    #[expect(clippy::cast_possible_truncation, reason = "taken apart as it was put together")]
    fn unpack(word: u64) -> Self {
        Self {
            deadline: Tick(word as u32),
            status: (word >> 32) as u16,
            tcp_state: TcpState::from_bits((word >> 48) as u8),
        }
    }

    fn pack(self) -> u64 {
        let Self { deadline, status, tcp_state } = self;
        u64::from(deadline.0) | u64::from(status) << 32 | (tcp_state as u64) << 48
    }

    pub(super) const fn has(self, bits: u16) -> bool {
        self.status & bits == bits
    }

    /// Whether the flow is only half a conversation: no answer yet, or a TCP handshake not finished.
    pub(super) const fn is_half_open(self) -> bool {
        !self.has(status::SEEN_REPLY)
            || matches!(self.tcp_state, TcpState::SynSent | TcpState::SynRecv | TcpState::SynSent2)
    }
}

impl Common {
    #[inline]
    pub(super) fn life(&self) -> Life {
        Life::unpack(self.life.load(Relaxed))
    }

    #[inline]
    pub(super) fn set_life(&self, life: Life) {
        self.life.store(life.pack(), Relaxed);
    }

    /// The life of an open TCP connection (ESTABLISHED, ASSURED) or, if it is not TCP that is asked for, of an answered and
    /// ASSURED flow without a state of its own; one that goes by the common timeouts. `None` for any other flow.
    #[inline]
    pub(super) fn settled_life(&self, is_tcp: bool) -> Option<SettledLife> {
        const STATUS: u16 = status::SEEN_REPLY | status::ASSURED;
        const MASK: u64 = ((STATUS | status::OWN_TIMEOUTS) as u64) << 32 | 0xff << 48;
        let state = if is_tcp { TcpState::Established } else { TcpState::None };
        let word = self.life.load(Relaxed);
        (word & MASK == u64::from(STATUS) << 32 | (state as u64) << 48).then_some(SettledLife(word))
    }

    /// Gives that life another deadline.
    #[inline]
    pub(super) fn prolong(&self, SettledLife(word): SettledLife, deadline: Tick) {
        self.life.store(word & !0xffff_ffff | u64::from(deadline.0), Relaxed);
    }
}

impl Counters {
    const BYTES: u64 = (1 << 56) - 1;

    /// Counts one packet. Owner only.
    #[inline]
    pub(super) fn add(&self, direction: Direction, bytes: u32) {
        let (wide, packets) = (&self.wide[direction.index()], &self.packets[direction.index()]);
        let count = packets.load(Relaxed).wrapping_add(1);
        let carry = if count == 0 { 1 << 56 } else { 0 };
        wide.store(wide.load(Relaxed).wrapping_add(u64::from(bytes)).wrapping_add(carry), Relaxed);
        packets.store(count, Relaxed);
    }

    /// Packets and bytes of one direction. From another thread they may be one packet apart.
    pub(super) fn read(&self, direction: Direction) -> (u64, u64) {
        let (wide, packets) = (&self.wide[direction.index()], &self.packets[direction.index()]);
        loop {
            let before = wide.load(Relaxed);
            let low = packets.load(Relaxed);
            let after = wide.load(Relaxed);
            // The carry happens once in 2^32 packets; only then is a second look needed.
            if before >> 56 == after >> 56 {
                return (after >> 56 << 32 | u64::from(low), after & Self::BYTES);
            }
        }
    }

    /// Takes over what another record has counted.
    pub(super) fn copy_from(&self, from: &Self) {
        let Self { wide, packets } = self;
        wide.iter().zip(&from.wide).for_each(|(to, from)| to.store(from.load(Relaxed), Relaxed));
        packets.iter().zip(&from.packets).for_each(|(to, from)| copy_word(to, from));
    }

    fn reset(&self) {
        let Self { wide, packets } = self;
        wide.iter().for_each(|word| word.store(0, Relaxed));
        packets.iter().for_each(|word| word.store(0, Relaxed));
    }
}

impl LabelWords {
    /// From another thread the halves may be of different moments.
    pub(super) fn get(&self) -> u128 {
        u128::from(self.high.load(Relaxed)) << 64 | u128::from(self.low.load(Relaxed))
    }

    /// Owner only.
    #[expect(clippy::cast_possible_truncation, reason = "two halves")]
    pub(super) fn set(&self, labels: u128) {
        self.low.store(labels as u64, Relaxed);
        self.high.store((labels >> 64) as u64, Relaxed);
    }
}

/// Owner only.
pub(super) fn copy_word(to: &AtomicU32, from: &AtomicU32) {
    to.store(from.load(Relaxed), Relaxed);
}

impl Tail {
    /// Becomes the same as another.
    pub(super) fn copy_from(&self, from: &Self) {
        let Self { sides, last, last_rest, bits, mark, created, extra } = self;
        for (to, from) in sides.iter().zip(&from.sides) {
            let SideWords { end, maxend, maxwin, maxack } = to;
            copy_word(end, &from.end);
            copy_word(maxend, &from.maxend);
            copy_word(maxwin, &from.maxwin);
            copy_word(maxack, &from.maxack);
        }
        last.store(from.last.load(Relaxed), Relaxed);
        last_rest.store(from.last_rest.load(Relaxed), Relaxed);
        copy_word(bits, &from.bits);
        copy_word(mark, &from.mark);
        copy_word(created, &from.created);
        copy_word(extra, &from.extra);
    }

    pub(super) fn extra(&self) -> Extra {
        let [helpers, policy, low, high] = self.extra.load(Relaxed).to_le_bytes();
        let events = u16::from_le_bytes([low, high]);
        Extra {
            helper: Helper::from_bits(helpers & 0xf),
            master_helper: Helper::from_bits(helpers >> 4),
            timeouts: policy.checked_sub(1).map(PolicyId),
            events: (events & SOME_EVENTS != 0).then_some(CtEvents(events & !SOME_EVENTS)),
        }
    }

    pub(super) fn set_extra(&self, extra: Extra) {
        let bits = |helper: Option<Helper>| helper.map_or(0, |helper| helper as u8);
        let policy = extra.timeouts.map_or(0, |PolicyId(id)| id + 1);
        let events = extra.events.map_or(0, |CtEvents(events)| events | SOME_EVENTS);
        let [low, high] = events.to_le_bytes();
        let helpers = bits(extra.helper) | bits(extra.master_helper) << 4;
        self.extra.store(u32::from_le_bytes([helpers, policy, low, high]), Relaxed);
    }
}

/// The flow tells only some events: so many bits that none of them is the kernel's.
const SOME_EVENTS: u16 = 1 << 15;

/// Where the zone stands in the ports word.
const ZONE_SHIFT: u32 = 40;
const NOT_ORIG: u64 = 1 << 56;
const NOT_REPLY: u64 = 1 << 57;

/// A zone in the ports word. Zone 0, which nearly all packets are in, is all zeroes.
fn zone_word(zone: Zone) -> u64 {
    if zone.id == 0 {
        return 0;
    }
    let not = |is_in: bool, bit: u64| if is_in { 0 } else { bit };
    u64::from(zone.id) << ZONE_SHIFT | not(zone.orig, NOT_ORIG) | not(zone.reply, NOT_REPLY)
}

#[expect(clippy::cast_possible_truncation, reason = "taken apart as it was put together")]
const fn zone_of(ports: u64) -> Zone {
    Zone { id: (ports >> ZONE_SHIFT) as u16, orig: ports & NOT_ORIG == 0, reply: ports & NOT_REPLY == 0 }
}

/// Ports and protocol of the ports word alone.
const fn without_zone(ports: u64) -> u64 {
    ports << (64 - ZONE_SHIFT) >> (64 - ZONE_SHIFT)
}

/// The ports word of a tuple in zone 0.
fn ports_word(tuple: &Tuple) -> u64 {
    u64::from(tuple.src_port) | u64::from(tuple.dst_port) << 16 | u64::from(tuple.proto) << 32
}

/// The ports word of its inverse, see [`super::key::inverse`].
#[inline]
fn inverse_ports_word(tuple: &Tuple) -> u64 {
    let Tuple { src_port, dst_port, proto, family, .. } = *tuple;
    let (src, dst) = if super::key::is_icmp(family, proto) {
        (src_port, super::key::icmp_inverse(family, dst_port).unwrap_or(dst_port))
    } else {
        (dst_port, src_port)
    };
    u64::from(src) | u64::from(dst) << 16 | u64::from(proto) << 32
}

/// The ports words of a TCP or UDP tuple and its inverse, in zone 0.
#[inline]
fn plain_ports_words(tuple: &Tuple) -> (u64, u64) {
    let (src, dst, proto) =
        (u64::from(tuple.src_port), u64::from(tuple.dst_port), u64::from(tuple.proto) << 32);
    (src | dst << 16 | proto, dst | src << 16 | proto)
}

/// As [`direction`], from how far a tuple and its inverse are from the flow's.
#[inline]
fn plain_direction(same: u64, inverse: u64) -> Option<Direction> {
    // One of them is zero. Not an `or`, of which the compiler makes two branches.
    if same.min(inverse) != 0 {
        return None;
    }
    Some(if inverse == 0 { Direction::Reply } else { Direction::Orig })
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "an IPv4 address is in the low 32 bits")]
const fn addresses_v4(tuple: &Tuple) -> u64 {
    (tuple.src as u64) << 32 | tuple.dst as u64 & 0xffff_ffff
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves of an IPv6 address")]
const fn addresses_v6(tuple: &Tuple) -> [u64; 4] {
    [(tuple.src >> 64) as u64, tuple.src as u64, (tuple.dst >> 64) as u64, tuple.dst as u64]
}

/// The direction a packet has in a flow, from whether its tuple or the inverse is the flow's. A tuple that is its
/// own inverse (source equals destination) counts as the reply to itself, as in the kernel.
#[inline]
const fn direction(is_same: bool, is_inverse: bool) -> Option<Direction> {
    if is_inverse {
        Some(Direction::Reply)
    } else if is_same {
        Some(Direction::Orig)
    } else {
        None
    }
}

/// Whether a flow's zone, in the direction a packet has in it, is the packet's. Linux `nf_ct_zone_equal`.
#[inline]
const fn same_zone(word: u64, zone: Zone, direction: Direction) -> bool {
    (zone.id == 0 && word >> ZONE_SHIFT == 0) || zone_of(word).of(direction) == zone.of(direction)
}

impl ProbeV4 {
    #[inline]
    pub(super) fn new(tuple: &Tuple, zone: Zone) -> Self {
        let addresses = addresses_v4(tuple);
        let (ports, inverse) = (ports_word(tuple), inverse_ports_word(tuple));
        Self { same: [addresses, ports], inverse: [addresses.rotate_left(32), inverse], zone }
    }

    #[inline]
    fn is_zone(&self, word: u64, direction: Direction) -> bool {
        same_zone(word, self.zone, direction)
    }
}

impl ProbeV6 {
    #[inline]
    pub(super) fn new(tuple: &Tuple, zone: Zone) -> Self {
        let [a, b, c, d] = addresses_v6(tuple);
        let (ports, inverse) = (ports_word(tuple), inverse_ports_word(tuple));
        Self { same: [a, b, c, d, ports], inverse: [c, d, a, b, inverse], zone }
    }

    #[inline]
    fn is_zone(&self, word: u64, direction: Direction) -> bool {
        same_zone(word, self.zone, direction)
    }
}

impl RecordV4 {
    pub(super) fn parts(&self) -> Record<'_> {
        let Self { common, addresses: _, counters, tail } = self;
        Record { common, counters, tail }
    }

    #[inline]
    pub(super) fn direction(&self, probe: &ProbeV4) -> Option<Direction> {
        let (addresses, word) = (self.addresses.load(Relaxed), self.common.ports.load(Relaxed));
        let ports = without_zone(word);
        let differs = |key: [u64; 2]| (addresses ^ key[0]) | (ports ^ key[1]);
        direction(differs(probe.same) == 0, differs(probe.inverse) == 0)
            .filter(|way| probe.is_zone(word, *way))
    }

    /// The way a TCP or UDP packet outside of all zones goes in this flow, if it is one of its packets. Does not branch on the
    /// way.
    #[inline]
    pub(super) fn plain_direction(&self, tuple: &Tuple) -> Option<Direction> {
        let (addresses, word) = (self.addresses.load(Relaxed), self.common.ports.load(Relaxed));
        let key = addresses_v4(tuple);
        let (ports, swapped) = plain_ports_words(tuple);
        let (same, inverse) =
            ((addresses ^ key) | (word ^ ports), (addresses ^ key.rotate_left(32)) | (word ^ swapped));
        plain_direction(same, inverse)
    }

    /// Writes what identifies a new flow and clears the rest.
    pub(super) fn reset(&self, tuple: &Tuple, zone: Zone) {
        self.addresses.store(addresses_v4(tuple), Relaxed);
        self.parts().reset(ports_word(tuple) | zone_word(zone));
    }

    pub(super) fn orig(&self) -> Tuple {
        let addresses = self.addresses.load(Relaxed);
        let (src, dst) = (u128::from(addresses >> 32), u128::from(addresses & 0xffff_ffff));
        tuple_of(src, dst, self.common.ports.load(Relaxed), Family::V4)
    }
}

impl RecordV6 {
    pub(super) fn parts(&self) -> Record<'_> {
        let Self { common, addresses: _, tail, counters, _spare: _ } = self;
        Record { common, counters, tail }
    }

    #[inline]
    pub(super) fn direction(&self, probe: &ProbeV6) -> Option<Direction> {
        let [a, b, c, d] = std::array::from_fn(|i| self.addresses[i].load(Relaxed));
        let word = self.common.ports.load(Relaxed);
        let words = [a, b, c, d, without_zone(word)];
        let differs = |key: [u64; 5]| words.iter().zip(key).fold(0, |all, (word, key)| all | (word ^ key));
        direction(differs(probe.same) == 0, differs(probe.inverse) == 0)
            .filter(|way| probe.is_zone(word, *way))
    }

    /// As [`RecordV4::plain_direction`].
    #[inline]
    pub(super) fn plain_direction(&self, tuple: &Tuple) -> Option<Direction> {
        let [a, b, c, d] = std::array::from_fn(|i| self.addresses[i].load(Relaxed));
        let [e, f, g, h] = addresses_v6(tuple);
        let word = self.common.ports.load(Relaxed);
        let (ports, swapped) = plain_ports_words(tuple);
        let same = (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | (word ^ ports);
        let inverse = (a ^ g) | (b ^ h) | (c ^ e) | (d ^ f) | (word ^ swapped);
        plain_direction(same, inverse)
    }

    /// Writes what identifies a new flow and clears the rest.
    pub(super) fn reset(&self, tuple: &Tuple, zone: Zone) {
        for (word, value) in self.addresses.iter().zip(addresses_v6(tuple)) {
            word.store(value, Relaxed);
        }
        self.parts().reset(ports_word(tuple) | zone_word(zone));
    }

    pub(super) fn orig(&self) -> Tuple {
        let [a, b, c, d] = std::array::from_fn(|i| u128::from(self.addresses[i].load(Relaxed)));
        tuple_of(a << 64 | b, c << 64 | d, self.common.ports.load(Relaxed), Family::V6)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "taken apart as it was put together")]
fn tuple_of(src: u128, dst: u128, ports: u64, family: Family) -> Tuple {
    Tuple {
        src,
        dst,
        src_port: ports as u16,
        dst_port: (ports >> 16) as u16,
        proto: (ports >> 32) as u8,
        family,
    }
}

impl Record<'_> {
    fn reset(&self, ports: u64) {
        let Common { seq: _, verdict_generation, verdicts: _, life: _, ports: word } = self.common;
        verdict_generation.store(0, Relaxed);
        word.store(ports, Relaxed);
        self.counters.reset();
        self.tail.mark.store(0, Relaxed);
        self.tail.extra.store(0, Relaxed);
    }

    /// The flow's protocol.
    #[expect(clippy::cast_possible_truncation, reason = "one byte of the word")]
    pub(super) fn proto(&self) -> u8 {
        (self.common.ports.load(Relaxed) >> 32) as u8
    }

    /// The flow's zone.
    pub(super) fn zone(&self) -> Zone {
        zone_of(self.common.ports.load(Relaxed))
    }

    /// Whether the record is a flow.
    pub(super) fn is_live(&self) -> bool {
        self.common.seq.load(Relaxed) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn life_survives_packing(deadline in any::<u32>(), status in any::<u16>(), state in 0..10_u8) {
            let life = Life { deadline: Tick(deadline), status, tcp_state: TcpState::from_bits(state) };
            prop_assert_eq!(Life::unpack(life.pack()), life);
        }

        #[test]
        fn a_record_gives_back_the_tuple_it_was_made_for(v6 in any::<bool>(), src in any::<u128>(), dst in any::<u128>(),
            src_port in any::<u16>(), dst_port in any::<u16>(), proto in any::<u8>(), id in any::<u16>()) {
            let zone = Zone { id, orig: true, reply: id % 2 == 0 };
            let (family, mask) = if v6 { (Family::V6, u128::MAX) } else { (Family::V4, 0xffff_ffff) };
            let tuple = Tuple { src: src & mask, dst: dst & mask, src_port, dst_port, proto, family };
            let back = if v6 {
                let record = RecordV6::default();
                record.reset(&tuple, zone);
                record.orig()
            } else {
                let record = RecordV4::default();
                record.reset(&tuple, zone);
                record.orig()
            };
            prop_assert_eq!(back, tuple);
        }
    }

    #[test]
    fn a_probe_finds_a_tuple_and_its_inverse() {
        for (family, proto) in [(Family::V4, 1), (Family::V4, 6), (Family::V6, 58), (Family::V6, 17)] {
            for port in [8 << 8, 128 << 8 | 1, 443] {
                let tuple = Tuple { src: 5 << 8, dst: 7, src_port: 77, dst_port: port, proto, family };
                let zone = Zone::default();
                let directions = [tuple, crate::flow::key::inverse(&tuple)].map(|probe| match family {
                    Family::V4 => {
                        let record = RecordV4::default();
                        record.reset(&tuple, zone);
                        record.direction(&ProbeV4::new(&probe, zone))
                    }
                    Family::V6 => {
                        let record = RecordV6::default();
                        record.reset(&tuple, zone);
                        record.direction(&ProbeV6::new(&probe, zone))
                    }
                });
                assert_eq!(directions, [Some(Direction::Orig), Some(Direction::Reply)]);
            }
        }
    }

    #[test]
    fn packet_counts_carry_past_32_bits() {
        let counters = Counters::default();
        counters.packets[0].store(u32::MAX, Relaxed);
        counters.add(Direction::Orig, 100);
        counters.add(Direction::Orig, 1);
        assert_eq!(counters.read(Direction::Orig), ((1 << 32) + 1, 101));
        assert_eq!(counters.read(Direction::Reply), (0, 0));
    }
}
