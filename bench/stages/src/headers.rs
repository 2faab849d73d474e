//! Stages that need no flow table: reading headers, hashing, finding a rule, building an answer, adding up.

use crate::rulesets::{SHAPES, generate};
use crate::{BURST, Error, Scale, Stage};
use dataplane::flow::{Seed, flow_hash};
use dataplane::packet::{Packet, Tuple};
use dataplane::rules::classifier::{Classifier, Keys, NONE};
use dataplane::rules::model::RejectWith;
use dataplane::testing::packets::{Builder, tcp, udp};
use dataplane::wire::{self, checksum, reject};
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The same secret every time.
pub(crate) const SEED: Seed =
    Seed([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89]);

const WEB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const WEB6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5);

/// Bytes of a packet buffer.
const CHUNK: usize = 2048;

/// Headers that a classifier is asked about, in turn.
const HEADERS: usize = 16_384;

type Made = Result<Box<dyn Stage>, Error>;

fn host(at: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + u32::try_from(at).unwrap_or(0))
}

fn host6(at: usize) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001_0db8_0001 << 80 | at as u128)
}

fn udp4(at: usize) -> Builder {
    udp(host(at), WEB).ports(10_000, 7000).payload(&[b'x'; 22])
}

fn udp6(at: usize) -> Builder {
    udp(host6(at), WEB6).ports(10_000, 7000).payload(&[b'x'; 22])
}

fn tcp4(at: usize) -> Builder {
    tcp(host(at), WEB).ports(10_000, 80).ack().numbers(1000, 2000).payload(&[b'x'; 10])
}

fn frames(of: impl Fn(usize) -> Builder) -> Vec<Vec<u8>> {
    (0..BURST).map(|at| of(at).build()).collect()
}

fn parsed(frames: &[Vec<u8>]) -> Result<Vec<Packet>, Error> {
    let parse = |frame: &Vec<u8>| {
        wire::parse(frame, len(frame)).map_err(|reason| format!("a packet is malformed: {reason:?}").into())
    };
    frames.iter().map(parse).collect()
}

fn len(frame: &[u8]) -> u32 {
    u32::try_from(frame.len()).unwrap_or(u32::MAX)
}

/// From bytes to headers.
struct Parse {
    frames: Vec<Vec<u8>>,
    packets: Box<[Packet; BURST]>,
}

impl Parse {
    fn of(of: impl Fn(usize) -> Builder) -> Made {
        Ok(Box::new(Self { frames: frames(of), packets: Box::new([Packet::EMPTY; BURST]) }))
    }
}

impl Stage for Parse {
    fn burst(&mut self) -> usize {
        let mut whole = 0;
        for (frame, packet) in self.frames.iter().zip(self.packets.iter_mut()) {
            let is_parsed = wire::parse_into(black_box(frame), len(frame), packet).is_ok();
            whole += usize::from(is_parsed && packet.has_l4);
        }
        whole
    }
}

pub(crate) fn parse_udp4(_: Scale) -> Made {
    Parse::of(udp4)
}

pub(crate) fn parse_tcp4(_: Scale) -> Made {
    Parse::of(tcp4)
}

pub(crate) fn parse_udp6(_: Scale) -> Made {
    Parse::of(udp6)
}

pub(crate) fn parse_vlan(_: Scale) -> Made {
    Parse::of(|at| udp4(at).vlan(5))
}

/// From a tuple to its flow's hash.
struct Hash {
    tuples: Vec<Tuple>,
    hashes: Vec<u64>,
}

impl Hash {
    fn of(of: impl Fn(usize) -> Builder) -> Made {
        let tuples: Vec<_> = parsed(&frames(of))?.iter().map(|packet| packet.tuple).collect();
        let hashes = tuples.iter().map(|tuple| flow_hash(&SEED, tuple)).collect();
        Ok(Box::new(Self { tuples, hashes }))
    }
}

impl Stage for Hash {
    fn burst(&mut self) -> usize {
        let alike = |(tuple, hash): (&Tuple, &u64)| flow_hash(&SEED, black_box(tuple)) == *hash;
        self.tuples.iter().zip(&self.hashes).map(|pair| usize::from(alike(pair))).sum()
    }
}

pub(crate) fn hash_v4(_: Scale) -> Made {
    Hash::of(udp4)
}

pub(crate) fn hash_v6(_: Scale) -> Made {
    Hash::of(udp6)
}

/// From a header to the first rule that matches it.
struct Classify {
    classifier: Classifier,
    keys: Keys,
    next: usize,
    found: [u32; BURST],
}

impl Classify {
    fn of(rules: usize) -> Made {
        let set = generate(&SHAPES[0], rules, 1, false);
        let classifier = Classifier::new(&set.rules, set.wide);
        let keys = classifier.keys(&set.headers(HEADERS));
        Ok(Box::new(Self { classifier, keys, next: 0, found: [NONE; BURST] }))
    }
}

impl Stage for Classify {
    fn burst(&mut self) -> usize {
        let Self { classifier, keys, next, found } = self;
        classifier.first(keys, *next..*next + BURST, found);
        *next = if *next + BURST == HEADERS { 0 } else { *next + BURST };
        // The last rule matches everything.
        found.iter().filter(|rule| **rule != NONE).count()
    }
}

pub(crate) fn classify_10(_: Scale) -> Made {
    Classify::of(10)
}

pub(crate) fn classify_1k(_: Scale) -> Made {
    Classify::of(1_000)
}

pub(crate) fn classify_10k(_: Scale) -> Made {
    Classify::of(10_000)
}

/// From a packet to the answer that refuses it, in place.
struct Reject {
    frames: Vec<Vec<u8>>,
    packets: Vec<Packet>,
    chunks: Vec<[u8; CHUNK]>,
    with: RejectWith,
}

impl Reject {
    fn of(with: RejectWith, of: impl Fn(usize) -> Builder) -> Made {
        let frames = frames(of);
        let packets = parsed(&frames)?;
        Ok(Box::new(Self { frames, packets, chunks: vec![[0; CHUNK]; BURST], with }))
    }
}

impl Stage for Reject {
    fn prepare(&mut self) {
        for (chunk, frame) in self.chunks.iter_mut().zip(&self.frames) {
            chunk[..frame.len()].copy_from_slice(frame);
        }
    }

    fn needs_preparing(&self) -> bool {
        true
    }

    fn burst(&mut self) -> usize {
        let Self { frames, packets, chunks, with } = self;
        let answered = |((chunk, frame), packet): ((&mut [u8; CHUNK], &Vec<u8>), &Packet)| {
            reject::build(black_box(chunk), frame.len(), packet, *with).is_some()
        };
        chunks.iter_mut().zip(frames.iter()).zip(packets.iter()).map(|of| usize::from(answered(of))).sum()
    }
}

pub(crate) fn reject_reset(_: Scale) -> Made {
    Reject::of(RejectWith::TcpReset, |at| tcp(host(at), WEB).ports(10_000, 113).syn())
}

pub(crate) fn reject_icmp4(_: Scale) -> Made {
    Reject::of(RejectWith::IcmpPortUnreachable, udp4)
}

pub(crate) fn reject_icmp6(_: Scale) -> Made {
    Reject::of(RejectWith::Icmp6PortUnreachable, udp6)
}

/// Whether a datagram adds up.
struct Check {
    frames: Vec<Vec<u8>>,
    packets: Vec<Packet>,
}

impl Check {
    /// Of IP packets of `ip` bytes.
    fn of(ip: usize) -> Made {
        let payload = vec![0x5a; ip - 28];
        let frames = frames(|at| udp(host(at), WEB).ports(10_000, 7000).payload(&payload));
        let packets = parsed(&frames)?;
        Ok(Box::new(Self { frames, packets }))
    }
}

impl Stage for Check {
    fn burst(&mut self) -> usize {
        let adds_up = |(frame, packet): (&Vec<u8>, &Packet)| checksum::l4_ok(black_box(frame), packet);
        self.frames.iter().zip(&self.packets).map(|of| usize::from(adds_up(of))).sum()
    }
}

/// Of frames of 64 bytes, as the rest of the stages.
pub(crate) fn checksum_64(_: Scale) -> Made {
    Check::of(50)
}

pub(crate) fn checksum_1500(_: Scale) -> Made {
    Check::of(1500)
}
