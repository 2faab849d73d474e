//! `-m hashlimit`: a limit for each address, port or combination of them. Linux `xt_hashlimit.c`, revision 3, with what
//! it reckons in: ticks of `HZ` 250, packets as time, bytes in pieces of 16.
//!
//! A table belongs to its name; the first rule that names it says how it counts. What is kept of one address is forgotten
//! as in the kernel: at the first look (every `gc_interval`) after it was not asked for `expire`.

use super::bucket::Bucket;
use super::slots::{Got, Key, Slots};
use super::{HZ, JIFFY_NANOS, jiffies, jiffies_of_millis};
use crate::packet::{Family, Fragment, Packet, proto};
use crate::rules::Facts;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most buckets and most entries a table may have (`HASHLIMIT_MAX_SIZE`).
const SIZE_MAX: usize = 1 << 20;
/// Buckets of a table that does not say: the kernel's number where there is more than 1 GiB of memory.
const SIZE_DEFAULT: usize = 8192;

/// Credits a tick brings in byte mode (`CREDITS_PER_JIFFY_BYTES`), and the most there are: a second's.
const BYTE_CREDITS: u64 = 1 << 24;
const BYTE_FULL: u64 = BYTE_CREDITS * HZ;

/// Credits of packet mode per unit of a period, which is a microsecond (`user2credits`).
const CREDITS_PER_MICRO: u64 = (HZ << 39) / 1_000_000;

/// What a table tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct HashKeys {
    /// `srcip`.
    pub src: bool,
    /// `dstip`.
    pub dst: bool,
    /// `srcport`.
    pub src_port: bool,
    /// `dstport`.
    pub dst_port: bool,
}

/// How fast, in the kernel's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashRate {
    /// Microseconds per packet.
    Packets(u64),
    /// Price of 16 bytes: 2^32 by the number of such pieces per second.
    Bytes(u32),
}

/// How a table counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashConfig {
    /// What it tells apart.
    pub keys: HashKeys,
    /// How much there may be.
    pub rate: HashRate,
    /// Packets at once; of bytes, how often the bucket may be filled up.
    pub burst: u64,
    /// `--hashlimit-rate-match`: seconds that are counted in, without limiting.
    pub interval: Option<u32>,
    /// Bits of the source address.
    pub src_prefix: u8,
    /// Bits of the destination address.
    pub dst_prefix: u8,
    /// Buckets; 0 is the default.
    pub size: u32,
    /// Most entries; 0 is the default.
    pub max: u32,
    /// Milliseconds between looks for what is over.
    pub gc_interval: u32,
    /// Milliseconds an entry is kept after it was last asked.
    pub expire: u32,
}

/// `-m hashlimit`.
#[derive(Clone, Debug)]
pub struct Hashlimit {
    /// Name of its table.
    pub name: Box<str>,
    /// How the table counts if this rule is the first to name it.
    pub config: HashConfig,
    /// `--hashlimit-above`.
    pub above: bool,
    /// The table; `None` until it is bound, see [`super::Tables`].
    pub table: Option<Arc<HashTable>>,
}

impl PartialEq for Hashlimit {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.config, self.above) == (&other.name, other.config, other.above)
    }
}

impl Eq for Hashlimit {}

/// One table.
#[derive(Debug)]
pub struct HashTable {
    config: HashConfig,
    family: Family,
    prices: Prices,
    slots: Slots<Counted>,
    /// When it was asked first, in ticks and one more: looks for what is over go by that.
    began: AtomicU64,
}

/// What is kept of one key.
#[derive(Debug, Default)]
struct Counted {
    bucket: Bucket,
    /// Byte mode: how often the bucket may yet be filled up. Rate match: window, verdict on the one before, count.
    other: AtomicU64,
    /// Tick after which it may be forgotten.
    expires: AtomicU64,
}

/// The configuration worked out.
#[derive(Clone, Copy, Debug)]
enum Prices {
    /// Nanoseconds a packet costs, and those of a full bucket.
    Packets { cost: u64, full: u64 },
    /// Credits of 16 bytes, and refills.
    Bytes { cost: u64, refills: u64 },
    /// Ticks that are counted in, and how many packets or bytes there may be in them: on average and at once.
    Window { interval: u64, rate: u64, burst: u64, bytes: bool },
}

/// One entry, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRow {
    /// Source address under its mask.
    pub src: u128,
    /// Destination address under its mask.
    pub dst: u128,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Milliseconds until it may be forgotten.
    pub expires_in: u64,
    /// What is left, in the kernel's credits; of a rate match the interval in seconds, and above 32 bits whether the one
    /// before was over the rate.
    pub credit: u64,
    /// A full bucket; of bytes how often it may be filled up; of a rate match what was counted in this interval.
    pub credit_cap: u64,
    /// Price of a packet, or of 16 bytes; of a rate match the rate.
    pub cost: u64,
}

impl Prices {
    fn of(config: &HashConfig) -> Self {
        let HashConfig { rate, burst, interval, .. } = *config;
        match (rate, interval) {
            (HashRate::Packets(period), Some(seconds)) => {
                let rate = 1_000_000_u64.checked_div(period).unwrap_or(0);
                let interval = u64::from(seconds) * HZ;
                Self::Window { interval, rate, burst: burst.saturating_add(rate), bytes: false }
            }
            (HashRate::Bytes(price), Some(seconds)) => {
                let rate = (u64::from(u32::MAX / price.max(1)) - 1) << 4;
                let burst = if burst == 0 { rate } else { burst.saturating_mul(rate) };
                Self::Window { interval: u64::from(seconds) * HZ, rate, burst, bytes: true }
            }
            (HashRate::Packets(period), None) => {
                let user = period.saturating_mul(burst);
                let full = match user.checked_mul(CREDITS_PER_MICRO) {
                    Some(_) => user.saturating_mul(1000),
                    // The kernel's product wraps: less is left.
                    None => nanos_of(user.wrapping_mul(CREDITS_PER_MICRO)),
                };
                Self::Packets { cost: period.saturating_mul(1000), full }
            }
            (HashRate::Bytes(price), None) => {
                Self::Bytes { cost: (u64::from(price) * BYTE_FULL) >> 32, refills: burst }
            }
        }
    }
}

/// Credits of packet mode that come in such a time.
fn credits_of(nanos: u64) -> u64 {
    u64::try_from(u128::from(nanos) * u128::from(CREDITS_PER_MICRO) / 1000).unwrap_or(u64::MAX)
}

/// Time in which so many credits of packet mode come, 2^39 a tick.
fn nanos_of(credits: u64) -> u64 {
    u64::try_from((u128::from(credits) * u128::from(JIFFY_NANOS)) >> 39).unwrap_or(u64::MAX)
}

/// Whether the kernel takes that rate: its arithmetic must not wrap to less than one packet.
#[must_use]
pub fn is_countable(rate: HashRate, burst: u64) -> bool {
    match rate {
        HashRate::Packets(period) => {
            let credits = |user: u64| user.wrapping_mul(CREDITS_PER_MICRO);
            burst != 0 && credits(period.wrapping_mul(burst)) >= credits(period)
        }
        HashRate::Bytes(price) => (u64::from(price) * BYTE_FULL) >> 32 != 0,
    }
}

impl Hashlimit {
    /// Whether it holds; `None` if the packet cannot be counted and is dropped for that.
    pub(super) fn ask(&self, facts: &Facts<'_>, len: u64) -> Option<bool> {
        let under = self.table.as_ref()?.ask(facts, len)?;
        Some(under != self.above)
    }
}

impl HashTable {
    /// An empty table.
    #[must_use]
    pub fn new(config: HashConfig, family: Family) -> Self {
        let size = if config.size == 0 { SIZE_DEFAULT } else { (config.size as usize).min(SIZE_MAX) };
        let max = if config.max == 0 { 8 * size } else { (config.max as usize).min(SIZE_MAX).max(size) };
        let max = max.min(SIZE_MAX);
        let slots = Slots::new(max, max + max / 2);
        Self { config, family, prices: Prices::of(&config), slots, began: AtomicU64::new(0) }
    }

    /// How it counts.
    #[must_use]
    pub const fn config(&self) -> &HashConfig {
        &self.config
    }

    /// Its entries now.
    pub fn rows(&self, now: crate::clock::Now) -> impl Iterator<Item = HashRow> + '_ {
        let now = jiffies(now);
        let row = move |(slot, key): (usize, Key)| {
            let counted = self.slots.value(slot);
            let (src, dst) = (
                u128::from(key[0]) << 64 | u128::from(key[1]),
                u128::from(key[2]) << 64 | u128::from(key[3]),
            );
            let port = |shift: u32| u16::try_from(key[4] >> shift & 0xffff).unwrap_or_default();
            let (credit, credit_cap, cost) = match self.prices {
                Prices::Packets { cost, full } => {
                    let left = counted.bucket.left(now * JIFFY_NANOS, full);
                    (credits_of(left), credits_of(full), credits_of(cost))
                }
                Prices::Bytes { cost, .. } => {
                    let refills = counted.other.load(Ordering::Relaxed);
                    (counted.bucket.left(now * BYTE_CREDITS, BYTE_FULL), refills, cost)
                }
                Prices::Window { interval, rate, .. } => {
                    let window = Window::from(counted.other.load(Ordering::Relaxed));
                    let Window { was_over, count, .. } = window.counted(now, interval, rate, 0);
                    ((interval / HZ) | (u64::from(was_over) << 32), count, rate)
                }
            };
            let left = counted.expires.load(Ordering::Relaxed).saturating_sub(now);
            HashRow {
                src,
                dst,
                src_port: port(16),
                dst_port: port(0),
                expires_in: left * JIFFY_NANOS / 1_000_000,
                credit,
                credit_cap,
                cost,
            }
        };
        let is_over = self.over(now);
        self.slots.live().filter(move |(slot, _)| !is_over(self.slots.value(*slot))).map(row)
    }

    /// Whether what is kept was forgotten at the last look.
    fn over(&self, now: u64) -> impl Fn(&Counted) -> bool + Copy + use<> {
        let every = jiffies_of_millis(self.config.gc_interval).max(1);
        let began = match self.began.load(Ordering::Relaxed) {
            0 => now,
            began => began - 1,
        };
        let looked = now - now.saturating_sub(began) % every;
        move |counted| looked > began && counted.expires.load(Ordering::Relaxed) <= looked
    }

    /// The same table with what it keeps for this packet alone, and room for that if there is any.
    pub(super) fn copy_for(&self, facts: &Facts<'_>) -> Self {
        let began = AtomicU64::new(self.began.load(Ordering::Relaxed));
        let is_over = self.over(jiffies(facts.now));
        let key = self.key(facts);
        let has_place = key.is_none_or(|key| self.slots.has_place(&key, is_over));
        let copy = Self { slots: Slots::new(usize::from(has_place), 1), began, ..*self };
        if let Some((key, slot)) = key.and_then(|key| Some((key, self.slots.find(&key, is_over)?))) {
            let Counted { bucket, other, expires } = self.slots.value(slot);
            let fill = |_: usize, counted: &Counted| {
                counted.bucket.set(bucket);
                counted.other.store(other.load(Ordering::Relaxed), Ordering::Relaxed);
                counted.expires.store(expires.load(Ordering::Relaxed), Ordering::Relaxed);
            };
            copy.slots.find_or_add(&key, |_| false, fill, || None);
        }
        copy
    }

    pub(super) fn ask(&self, facts: &Facts<'_>, len: u64) -> Option<bool> {
        let now = jiffies(facts.now);
        if self.began.load(Ordering::Relaxed) == 0 {
            self.began.store(now + 1, Ordering::Relaxed);
        }
        let key = self.key(facts)?;
        let expires = now + jiffies_of_millis(self.config.expire);
        let is_over = self.over(now);
        let slot = match self.slots.find(&key, is_over) {
            Some(slot) => slot,
            None => {
                self.slots.sweep(4, is_over);
                let init = |_: usize, counted: &Counted| self.init(counted, now, expires);
                let (Got::Known(slot) | Got::New(slot)) =
                    self.slots.find_or_add(&key, is_over, init, || None)?;
                slot
            }
        };
        let counted = self.slots.value(slot);
        counted.expires.store(expires, Ordering::Relaxed);
        Some(match self.prices {
            Prices::Packets { cost, full } => counted.bucket.take(now * JIFFY_NANOS, cost, full),
            Prices::Bytes { cost, .. } => counted.take_bytes(now * BYTE_CREDITS, ((len >> 4) + 1) * cost),
            Prices::Window { interval, rate, burst, bytes } => {
                let count = counted.count(now, interval, rate, if bytes { len } else { 1 });
                count.is_some_and(|count| count <= burst)
            }
        })
    }

    fn init(&self, counted: &Counted, now: u64, expires: u64) {
        counted.bucket.fill();
        let other = match self.prices {
            Prices::Packets { .. } => 0,
            Prices::Bytes { refills, .. } => refills,
            Prices::Window { .. } => Window { began: now, was_over: false, count: 0 }.word(),
        };
        counted.other.store(other, Ordering::Relaxed);
        counted.expires.store(expires, Ordering::Relaxed);
    }

    /// What a packet is counted under; `None` if its ports are asked for and cut off.
    fn key(&self, facts: &Facts<'_>) -> Option<Key> {
        let HashConfig { keys, src_prefix, dst_prefix, .. } = self.config;
        let tuple = &facts.packet.tuple;
        let address = |is_asked: bool, address: u128, prefix: u8| {
            if is_asked { address & super::tables::prefix_mask(self.family, prefix) } else { 0 }
        };
        let src = address(keys.src, tuple.src, src_prefix);
        let dst = address(keys.dst, tuple.dst, dst_prefix);
        let ports = if keys.src_port || keys.dst_port { ports(facts)? } else { [0; 2] };
        let port = |is_asked: bool, port: u16| if is_asked { u64::from(port) } else { 0 };
        let [src_high, src_low] = halves(src);
        let [dst_high, dst_low] = halves(dst);
        let ports = port(keys.src_port, ports[0]) << 16 | port(keys.dst_port, ports[1]);
        Some([src_high, src_low, dst_high, dst_low, ports])
    }
}

/// The halves of an address.
#[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
pub(super) const fn halves(address: u128) -> [u64; 2] {
    [(address >> 64) as u64, address as u64]
}

/// The first four bytes of what has ports (Linux `proto_ports_offset`): of ESP and AH that is the SPI. Whatever else has
/// port 0. `None` if they are cut off.
fn ports(facts: &Facts<'_>) -> Option<[u16; 2]> {
    const DCCP: u8 = 33;
    let Packet { tuple, l3_offset, l3_len, l4_offset, fragment, .. } = *facts.packet;
    if tuple.family == Family::V6 && fragment == Fragment::Later {
        return Some([0; 2]);
    }
    let into = match tuple.proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | DCCP | proto::ESP => 0,
        proto::AH => 4,
        _ => return Some([0; 2]),
    };
    let from = usize::from(l4_offset) + into;
    let end = usize::from(l3_offset) + l3_len as usize;
    let bytes = facts.bytes.get(from..from + 4).filter(|_| from + 4 <= end)?;
    Some([u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]])])
}

impl Counted {
    /// Byte mode: takes a packet's price, filling the bucket up where that is still allowed.
    fn take_bytes(&self, now: u64, cost: u64) -> bool {
        let cost = cost.min(BYTE_FULL);
        if self.bucket.take(now, cost, BYTE_FULL) {
            return true;
        }
        let refill = |left: u64| left.checked_sub(1);
        if self.other.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refill).is_err() {
            return false;
        }
        self.bucket.refill_and_take(now, cost);
        true
    }

    /// Rate match: counts a packet. How much there is in this window, or `None` if the one before was over the rate.
    fn count(&self, now: u64, interval: u64, rate: u64, amount: u64) -> Option<u64> {
        let step = |word: u64| Some(Window::from(word).counted(now, interval, rate, amount).word());
        let word = self.other.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or_default();
        let window = Window::from(word).counted(now, interval, rate, amount);
        (!window.was_over).then_some(window.count)
    }
}

/// What a rate match keeps, in one word: 28 bits of the tick at which counting began, one of whether the window before was
/// over the rate, 35 of the count, which stays at its end (34 GB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    began: u64,
    was_over: bool,
    count: u64,
}

impl Window {
    const COUNT: u64 = (1 << 35) - 1;
    const TICKS: u64 = (1 << 28) - 1;

    const fn word(self) -> u64 {
        (self.began & Self::TICKS) << 36 | (self.was_over as u64) << 35 | self.count
    }

    const fn from(word: u64) -> Self {
        Self { began: word >> 36, was_over: word >> 35 & 1 != 0, count: word & Self::COUNT }
    }

    fn counted(self, now: u64, interval: u64, rate: u64, amount: u64) -> Self {
        let passed = now.wrapping_sub(self.began) & Self::TICKS;
        // A worker whose clock is behind is in the same window.
        let is_behind = passed > Self::TICKS / 2 && self.began != 0 && now & Self::TICKS < self.began;
        let mut next = self;
        if passed >= interval && !is_behind {
            let had = u128::from(self.count) * u128::from(interval);
            let may = u128::from(passed) * u128::from(rate);
            next = Self { began: now & Self::TICKS, was_over: had > may, count: 0 };
        }
        next.count = next.count.saturating_add(amount).min(Self::COUNT);
        next
    }
}
