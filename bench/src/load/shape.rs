//! The frames of a load: headers, and the sums from which checksums are made when a packet's flow is known.
//!
//! In a template all that varies from packet to packet is zero, and so are the checksums: the last two bytes of the
//! source address, the source port, number and time of a stamp.

use super::{FLOWS_MAX, Flood, Load, PORT_FIRST, PORTS, Protocol, Sizes};
use crate::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Headers of the shortest packet there is: Ethernet, IPv4 without options, UDP.
pub const HEADERS_BYTES: usize = ETHERNET_BYTES + 20 + UDP_BYTES;

/// Most a frame may have: the kernel gives live frames one page, headroom and its own bookkeeping included.
pub const FRAME_MAX_BYTES: usize = 3400;

/// Destination port of the load, and what the sink knows it by.
pub const DST_PORT: u16 = 7000;

/// What a stamp needs at the start of the payload: magic, number (32 bits each), nanoseconds of `CLOCK_MONOTONIC`
/// (64 bits), all big-endian.
pub const STAMP_BYTES: usize = 16;

/// Smallest frame of simple IMIX, without FCS.
pub const IMIX_SMALL_BYTES: usize = 60;

/// The one in the middle.
pub const IMIX_MIDDLE_BYTES: usize = 590;

/// The largest one.
pub const IMIX_LARGE_BYTES: usize = 1514;

/// First 32 bits of a stamp.
pub(crate) const STAMP_MAGIC: u32 = 0x5041_4c53;

/// Number of a connection's first segment from the client, in every connection of ours.
pub(crate) const CLIENT_ISN: u32 = 0x1000_0000;

/// The same from the server.
pub(crate) const SERVER_ISN: u32 = 0x2000_0000;

/// Source addresses: the last two bytes are the packet's; the lab leaves these networks to nobody else.
const SRC_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 0);
const SRC_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 1, 0, 0, 0, 0);

/// Their last two bytes for the first flow, and for the flood's first packet.
const LOW_FIRST: u16 = 0x4000;
const LOW_FLOOD: u16 = 0x8000;

/// Packets of a flood after which its first flow comes again: what the addresses of its network have of ports.
pub(crate) const FLOOD_FLOWS: u32 = 0x8000 * PORTS;

const ETHERNET_BYTES: usize = 14;
const UDP_BYTES: usize = 8;
const TCP_BYTES: usize = 20;
const HOP_LIMIT: u8 = 64;

/// Least an Ethernet frame has, without FCS.
const FRAME_MIN_BYTES: usize = 60;

/// Words of headers and stamp, by which the kernel's generator copies them: what it can be told to copy.
const HEADER_WORDS: [usize; 4] = [6, 8, 9, 12];
pub(super) const HEADER_WORDS_MAX: usize = 12;

/// Size of each of twelve packets: 0 small, 1 middle, 2 large.
const IMIX_SLOTS: [u8; 12] = [0, 1, 0, 0, 1, 0, 2, 0, 1, 0, 1, 0];

/// One kind of frame.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// The whole of it.
    pub(crate) frame: Vec<u8>,
    /// Its length.
    pub(crate) bytes: u32,
    /// Ones' complement sum of the IPv4 header; 0 for IPv6.
    pub(crate) ip_sum: u32,
    /// The same of pseudo header and segment.
    pub(crate) l4_sum: u32,
    /// Whether the segment is TCP's.
    pub(crate) is_tcp: bool,
}

/// All kinds of frames of a load.
#[derive(Clone, Debug)]
pub(crate) struct Shapes {
    /// Those of the load's own flows, by size.
    pub(crate) honest: Vec<Shape>,
    /// The flood's.
    pub(crate) flood: Option<Shape>,
    /// Kind of each of twelve honest packets.
    pub(crate) slots: [u8; 12],
    /// Slots left out when flows in turn begin again, so that no flow gets always the same sizes.
    pub(crate) round_skip: u32,
    /// Most that headers and stamp may take: a stamp is written behind TCP if there is TCP at all.
    header_bytes: usize,
}

impl Shapes {
    /// # Errors
    /// If the load makes no sense; the message says why.
    pub(crate) fn new(load: &Load) -> Result<Self, Error> {
        if !(1..=FLOWS_MAX).contains(&load.flows) {
            return Err(format!("there can be 1 to {FLOWS_MAX} flows, not {}", load.flows).into());
        }
        if load.first_flow > FLOWS_MAX - load.flows {
            let (first, flows) = (load.first_flow, load.flows);
            return Err(format!("there can be {FLOWS_MAX} flows, not {flows} from number {first} on").into());
        }
        if load.stamp && load.protocol == Protocol::Syn {
            return Err(
                "a SYN has no payload and so no room for a stamp: leave stamps out, or send UDP or TCP"
                    .into(),
            );
        }
        let least = least_bytes(load, load.protocol, load.stamp);
        let shape = |bytes| Shape::new(load, load.protocol, bytes, load.stamp);
        let (honest, slots) = match load.sizes {
            Sizes::Fixed(bytes) if (least..=FRAME_MAX_BYTES).contains(&bytes) => {
                (vec![shape(bytes)?], [0; 12])
            }
            Sizes::Fixed(bytes) => {
                let what = match (load.stamp, load.protocol) {
                    (true, _) => "headers and stamp",
                    (false, Protocol::Tcp) => "headers and a byte of data",
                    (false, _) => "headers",
                };
                return Err(format!(
                    "a frame of {bytes} bytes: {what} need {least}, and {FRAME_MAX_BYTES} are the most there can be"
                )
                .into());
            }
            Sizes::Imix => {
                let small = least.max(IMIX_SMALL_BYTES);
                let sizes = [small, IMIX_MIDDLE_BYTES, IMIX_LARGE_BYTES];
                (sizes.into_iter().map(shape).collect::<Result<_, _>>()?, IMIX_SLOTS)
            }
        };
        let flood = load.flood.map(|Flood { protocol, .. }| {
            let bytes = least_bytes(load, protocol, false).max(FRAME_MIN_BYTES);
            Shape::new(load, protocol, bytes, false)
        });
        let mut shapes = Self {
            honest,
            flood: flood.transpose()?,
            slots,
            round_skip: round_skip(load.flows),
            header_bytes: 0,
        };
        let widest = if shapes.has_tcp() { Protocol::Tcp } else { Protocol::Udp };
        shapes.header_bytes = least_bytes(load, widest, load.stamp);
        Ok(shapes)
    }

    /// Whether frames differ in more than addresses and ports.
    pub(super) const fn is_mixed(&self) -> bool {
        self.honest.len() > 1 || self.flood.is_some()
    }

    /// Words of each frame that the kernel's generator writes.
    pub(super) fn header_words(&self) -> usize {
        HEADER_WORDS.into_iter().find(|words| 8 * words >= self.header_bytes).unwrap_or(HEADER_WORDS_MAX)
    }

    /// Whether some frames are TCP's.
    pub(super) fn has_tcp(&self) -> bool {
        self.all().any(|shape| shape.is_tcp)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Shape> {
        self.honest.iter().chain(&self.flood)
    }

    /// What the kernel is given to make its frames of: long enough for each kind, and for the headers copied into it.
    pub(super) fn template(&self) -> Vec<u8> {
        let longest = self.all().max_by_key(|shape| shape.bytes);
        let mut frame = longest.map(|shape| shape.frame.clone()).unwrap_or_default();
        frame.resize(frame.len().max(8 * self.header_words()), 0);
        frame
    }

    /// Whether a frame of some kind is shorter than the template.
    pub(super) fn is_resized(&self) -> bool {
        let template = self.template().len();
        self.all().any(|shape| shape.frame.len() != template)
    }
}

/// What takes the twelve slots of a mix through all flows: the fewest to leave out after a round of all flows that
/// leave no common divisor of a round's slots and twelve.
fn round_skip(flows: u32) -> u32 {
    let divides = |skip: &u32| [2, 3].into_iter().any(|prime| (flows + skip).is_multiple_of(prime));
    (0..12).find(|skip| !divides(skip)).unwrap_or(0)
}

/// Least bytes of a frame: a data segment has at least one byte of data.
fn least_bytes(load: &Load, protocol: Protocol, stamp: bool) -> usize {
    let ip = if load.dst.is_ipv6() { 40 } else { 20 };
    let (l4, data) = match protocol {
        Protocol::Udp => (UDP_BYTES, 0),
        Protocol::Tcp => (TCP_BYTES, 1),
        Protocol::Syn => (TCP_BYTES, 0),
    };
    ETHERNET_BYTES + ip + l4 + if stamp { STAMP_BYTES } else { data }
}

impl Shape {
    fn new(load: &Load, protocol: Protocol, bytes: usize, stamp: bool) -> Result<Self, Error> {
        let is_v6 = load.dst.is_ipv6();
        let l4_at = if is_v6 { 54 } else { 34 };
        // A SYN has no payload; what is behind it is padding.
        let l4_bytes = if protocol == Protocol::Syn { TCP_BYTES } else { bytes - l4_at };
        let mut frame = Vec::with_capacity(bytes);
        frame.extend(load.dst_mac);
        frame.extend(load.src_mac);
        let protocol_number = if protocol == Protocol::Udp { 17 } else { 6 };
        push_ip(&mut frame, load.dst, protocol_number, u16::try_from(l4_bytes)?);
        push_l4(&mut frame, protocol, u16::try_from(l4_bytes)?);
        if stamp {
            frame.extend(STAMP_MAGIC.to_be_bytes());
        }
        frame.resize(bytes, 0);
        let ip_sum = if is_v6 { 0 } else { fold(sum(&frame[ETHERNET_BYTES..l4_at])) };
        let addresses = if is_v6 { &frame[22..l4_at] } else { &frame[26..l4_at] };
        let pseudo = [[0, protocol_number], u16::try_from(l4_bytes)?.to_be_bytes()].concat();
        let l4_sum = fold(sum(addresses) + sum(&pseudo) + sum(&frame[l4_at..l4_at + l4_bytes]));
        let (bytes, is_tcp) = (u32::try_from(bytes)?, protocol != Protocol::Udp);
        Ok(Self { frame, bytes, ip_sum, l4_sum, is_tcp })
    }

    /// The frame's beginning as words in the machine's own byte order.
    pub(super) fn words(&self) -> [u64; HEADER_WORDS_MAX] {
        let mut bytes = [0; 8 * HEADER_WORDS_MAX];
        for (into, from) in bytes.iter_mut().zip(&self.frame) {
            *into = *from;
        }
        let mut words = [0; HEADER_WORDS_MAX];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        words
    }
}

/// Everything from the EtherType to the end of the IP header.
fn push_ip(frame: &mut Vec<u8>, dst: IpAddr, protocol: u8, l4_bytes: u16) {
    match dst {
        IpAddr::V4(dst) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((l4_bytes + 20).to_be_bytes());
            // Identification, DF.
            frame.extend([0, 0, 0x40, 0, HOP_LIMIT, protocol, 0, 0]);
            frame.extend(SRC_V4.octets());
            frame.extend(dst.octets());
        }
        IpAddr::V6(dst) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(l4_bytes.to_be_bytes());
            frame.extend([protocol, HOP_LIMIT]);
            frame.extend(SRC_V6.octets());
            frame.extend(dst.octets());
        }
    }
}

fn push_l4(frame: &mut Vec<u8>, protocol: Protocol, l4_bytes: u16) {
    let (number, acknowledged, flags) = match protocol {
        Protocol::Udp => {
            frame.extend([0, 0]);
            frame.extend(DST_PORT.to_be_bytes());
            frame.extend(l4_bytes.to_be_bytes());
            frame.extend([0, 0]);
            return;
        }
        Protocol::Tcp => (CLIENT_ISN + 1, SERVER_ISN + 1, TCP_PSH | TCP_ACK),
        Protocol::Syn => (CLIENT_ISN, 0, TCP_SYN),
    };
    frame.extend([0, 0]);
    frame.extend(DST_PORT.to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame.extend(acknowledged.to_be_bytes());
    frame.extend([5 << 4, flags]);
    frame.extend(WINDOW.to_be_bytes());
    frame.extend([0, 0, 0, 0]);
}

const TCP_SYN: u8 = 0x02;
const TCP_PSH: u8 = 0x08;
const TCP_ACK: u8 = 0x10;

/// Window both sides announce.
const WINDOW: u16 = 0xffff;

/// Ones' complement sum in the machine's own byte order.
fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum()
}

/// Folded twice, so that more may be added without overflow.
pub(crate) fn fold(sum: u32) -> u32 {
    let once = (sum & 0xffff) + (sum >> 16);
    (once & 0xffff) + (once >> 16)
}

/// Last two bytes of a flow's source address, and its source port.
pub(crate) fn source(flow: u32) -> (u16, u16) {
    source_from(LOW_FIRST, flow)
}

/// The same of the flood's flows. After the last one there is the first one comes again.
pub(crate) fn source_of_flood(flow: u32) -> (u16, u16) {
    source_from(LOW_FLOOD, flow % FLOOD_FLOWS)
}

fn source_from(first: u16, flow: u32) -> (u16, u16) {
    let low = u16::try_from(flow / PORTS).unwrap_or(u16::MAX);
    let port = u16::try_from(flow % PORTS).unwrap_or(u16::MAX);
    (first.wrapping_add(low), PORT_FIRST.wrapping_add(port))
}
