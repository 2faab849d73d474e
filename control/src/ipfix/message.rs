//! IPFIX messages: header, template sets, data sets. Pure.
//!
//! Invariant: a message is never longer than it may be, and the sequence number in its header counts the data records of all
//! messages before it (RFC 7011, 3.1), those included that could not be sent: so a collector sees what it has missed.

use dataplane::packet::{Family, Tuple, proto};

/// Version in the header of every message (RFC 7011, 3.1).
const VERSION: u16 = 10;
/// Octets of a message's header.
const HEADER_BYTES: usize = 16;
/// Octets of a set's header.
const SET_HEADER_BYTES: usize = 4;
/// Set that holds templates (RFC 7011, 3.3.2).
const TEMPLATE_SET: u16 = 2;
/// Enterprise whose elements are the reverse ones (RFC 5103, 6.1).
const REVERSE: u32 = 29305;

/// Least octets a message may be allowed: the templates fit in one.
pub const MESSAGE_BYTES_MIN: u32 = 512;

/// Why a record was made (IANA element 136, flowEndReason).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EndReason {
    /// No packet for a while, or its timeout is over.
    Idle = 1,
    /// It goes on: this is a report in between.
    Active = 2,
    /// Its own packets ended it.
    Ended = 3,
    /// An operator ended it, or the daemon ends.
    Forced = 4,
    /// It made room for others.
    NoRoom = 5,
}

/// One flow record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who talks with whom; the source opened the flow.
    pub tuple: Tuple,
    /// IP octets of each direction since the record before, the initiator's first.
    pub bytes: [u64; 2],
    /// Packets.
    pub packets: [u64; 2],
    /// Since when, in milliseconds since 1970.
    pub start_ms: u64,
    /// Until when.
    pub end_ms: u64,
    /// Index of the NIC its first packet came in on, and of the one it left by; 0 if unknown.
    pub interfaces: [u32; 2],
    /// Why it was made.
    pub reason: EndReason,
    /// The flow's number in `fwctl flows`.
    pub flow_id: u64,
}

/// A field of a template, and how it is written.
struct Field {
    element: u16,
    bytes: u16,
    is_reverse: bool,
    write: fn(&Record, &mut Vec<u8>),
}

macro_rules! field {
    ($element:literal, $bytes:literal, |$record:ident| $value:expr) => {
        Field {
            element: $element,
            bytes: $bytes,
            is_reverse: false,
            write: |$record, out| out.extend_from_slice(&$value.to_be_bytes()),
        }
    };
    (reverse $element:literal, $bytes:literal, |$record:ident| $value:expr) => {
        Field { is_reverse: true, ..field!($element, $bytes, |$record| $value) }
    };
}

#[expect(clippy::cast_possible_truncation, reason = "IPv4 lives in the low 32 bits")]
const fn v4(address: u128) -> u32 {
    address as u32
}

const ADDRESSES_V4: &[Field] = &[field!(8, 4, |r| v4(r.tuple.src)), field!(12, 4, |r| v4(r.tuple.dst))];
const ADDRESSES_V6: &[Field] = &[field!(27, 16, |r| r.tuple.src), field!(28, 16, |r| r.tuple.dst)];
const PROTOCOL: &[Field] = &[field!(4, 1, |r| r.tuple.proto)];
const PORTS: &[Field] = &[field!(7, 2, |r| r.tuple.src_port), field!(11, 2, |r| r.tuple.dst_port)];
const ICMP_V4: &[Field] = &[field!(32, 2, |r| r.tuple.dst_port)];
const ICMP_V6: &[Field] = &[field!(139, 2, |r| r.tuple.dst_port)];
const COMMON: &[Field] = &[
    field!(1, 8, |r| r.bytes[0]),
    field!(reverse 1, 8, |r| r.bytes[1]),
    field!(2, 8, |r| r.packets[0]),
    field!(reverse 2, 8, |r| r.packets[1]),
    field!(152, 8, |r| r.start_ms),
    field!(153, 8, |r| r.end_ms),
    field!(10, 4, |r| r.interfaces[0]),
    field!(14, 4, |r| r.interfaces[1]),
    field!(136, 1, |r| (r.reason as u8)),
    // The source is the initiator.
    field!(239, 1, |_record| 1_u8),
    field!(148, 8, |r| r.flow_id),
];

/// A template: its number, and its fields in order.
struct Template {
    id: u16,
    fields: [&'static [Field]; 4],
}

const TEMPLATES: [Template; 4] = [
    Template { id: 256, fields: [ADDRESSES_V4, PROTOCOL, PORTS, COMMON] },
    Template { id: 257, fields: [ADDRESSES_V6, PROTOCOL, PORTS, COMMON] },
    Template { id: 258, fields: [ADDRESSES_V4, PROTOCOL, ICMP_V4, COMMON] },
    Template { id: 259, fields: [ADDRESSES_V6, PROTOCOL, ICMP_V6, COMMON] },
];

impl Template {
    fn of(tuple: &Tuple) -> &'static Self {
        match (tuple.proto, tuple.family) {
            (proto::ICMP, Family::V4) => &TEMPLATES[2],
            (proto::ICMPV6, Family::V6) => &TEMPLATES[3],
            (_, Family::V4) => &TEMPLATES[0],
            (_, Family::V6) => &TEMPLATES[1],
        }
    }

    fn fields(&self) -> impl Iterator<Item = &'static Field> + use<> {
        self.fields.into_iter().flatten()
    }

    fn record_bytes(&self) -> usize {
        self.fields().map(|field| usize::from(field.bytes)).sum()
    }
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its octets.
    pub bytes: Vec<u8>,
    /// Data records in it.
    pub records: u32,
}

/// Puts records together into messages.
#[derive(Debug)]
pub struct Packer {
    domain: u32,
    bytes_max: usize,
    /// Data records in all messages handed out.
    sequence: u32,
    /// The message in the making, header included; empty if there is none.
    bytes: Vec<u8>,
    records: u32,
    /// Number and place of the set that is being written.
    set: Option<(u16, usize)>,
}

impl Packer {
    /// For an observation domain, with messages of at most so many octets.
    #[must_use]
    pub fn new(domain: u32, bytes_max: u32) -> Self {
        let bytes_max = bytes_max.max(MESSAGE_BYTES_MIN) as usize;
        Self { domain, bytes_max, sequence: 0, bytes: Vec::new(), records: 0, set: None }
    }

    /// The templates, in a message of their own. `at_secs` is the time since 1970.
    #[must_use]
    pub fn templates(&self, at_secs: u32) -> Message {
        let mut bytes = self.header(at_secs);
        let start = bytes.len();
        put_u16(&mut bytes, TEMPLATE_SET);
        put_u16(&mut bytes, 0);
        for template in &TEMPLATES {
            put_u16(&mut bytes, template.id);
            put_u16(&mut bytes, u16::try_from(template.fields().count()).unwrap_or(u16::MAX));
            for field in template.fields() {
                put_u16(&mut bytes, field.element | u16::from(field.is_reverse) << 15);
                put_u16(&mut bytes, field.bytes);
                if field.is_reverse {
                    bytes.extend_from_slice(&REVERSE.to_be_bytes());
                }
            }
        }
        set_length(&mut bytes, start + 2, start);
        set_length(&mut bytes, 2, 0);
        Message { bytes, records: 0 }
    }

    /// Adds a record. Gives the message before it if it has no room for that one.
    pub fn push(&mut self, record: &Record, at_secs: u32) -> Option<Message> {
        let template = Template::of(&record.tuple);
        let is_same = self.set.is_some_and(|(id, _)| id == template.id);
        let needed = template.record_bytes() + if is_same { 0 } else { SET_HEADER_BYTES };
        let full = (!self.bytes.is_empty() && self.bytes.len() + needed > self.bytes_max)
            .then(|| self.finish(at_secs))
            .flatten();
        if self.bytes.is_empty() {
            self.bytes = self.header(at_secs);
        }
        if self.set.is_none_or(|(id, _)| id != template.id) {
            self.end_set();
            self.set = Some((template.id, self.bytes.len()));
            put_u16(&mut self.bytes, template.id);
            put_u16(&mut self.bytes, 0);
        }
        for field in template.fields() {
            (field.write)(record, &mut self.bytes);
        }
        self.records += 1;
        full
    }

    /// The message in the making, if there is one.
    pub fn finish(&mut self, at_secs: u32) -> Option<Message> {
        self.end_set();
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.is_empty() {
            return None;
        }
        bytes[4..8].copy_from_slice(&at_secs.to_be_bytes());
        set_length(&mut bytes, 2, 0);
        let records = std::mem::take(&mut self.records);
        self.sequence = self.sequence.wrapping_add(records);
        Some(Message { bytes, records })
    }

    fn header(&self, at_secs: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes_max.max(HEADER_BYTES));
        put_u16(&mut bytes, VERSION);
        put_u16(&mut bytes, 0);
        for word in [at_secs, self.sequence, self.domain] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    fn end_set(&mut self) {
        if let Some((_, start)) = self.set.take() {
            set_length(&mut self.bytes, start + 2, start);
        }
    }
}

fn put_u16(bytes: &mut Vec<u8>, value: u16) {
    bytes.extend_from_slice(&value.to_be_bytes());
}

/// Writes the length of what began at `start` to `at`.
fn set_length(bytes: &mut [u8], at: usize, start: usize) {
    let length = u16::try_from(bytes.len() - start).unwrap_or(u16::MAX);
    bytes[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(family: Family, protocol: u8) -> Record {
        Record {
            tuple: Tuple {
                src: 0x0a01_0002,
                dst: 0x0a02_0002,
                src_port: 1000,
                dst_port: 0x0800,
                proto: protocol,
                family,
            },
            bytes: [1500, 40],
            packets: [2, 1],
            start_ms: 1_000,
            end_ms: 3_000,
            interfaces: [7, 8],
            reason: EndReason::Ended,
            flow_id: 0x0102_0304_0506_0708,
        }
    }

    fn u16_at(bytes: &[u8], at: usize) -> u16 {
        u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    /// Sets of a message: number and content.
    fn sets(message: &Message) -> Vec<(u16, Vec<u8>)> {
        let bytes = &message.bytes;
        assert_eq!((u16_at(bytes, 0), usize::from(u16_at(bytes, 2))), (10, bytes.len()));
        let (mut at, mut sets) = (HEADER_BYTES, Vec::new());
        while at < bytes.len() {
            let length = usize::from(u16_at(bytes, at + 2));
            sets.push((u16_at(bytes, at), bytes[at + 4..at + length].to_vec()));
            at += length;
        }
        assert_eq!(at, bytes.len());
        sets
    }

    #[test]
    fn every_field_is_as_long_as_its_template_says() {
        for field in TEMPLATES.iter().flat_map(Template::fields) {
            let mut bytes = Vec::new();
            (field.write)(&record(Family::V6, proto::TCP), &mut bytes);
            assert_eq!(bytes.len(), usize::from(field.bytes), "element {}", field.element);
        }
    }

    #[test]
    fn templates_say_what_the_documentation_says() {
        let message = Packer::new(5, 1400).templates(77);
        assert!(message.bytes.len() <= MESSAGE_BYTES_MIN as usize, "{}", message.bytes.len());
        assert_eq!(
            (u32_at(&message.bytes, 4), u32_at(&message.bytes, 8), u32_at(&message.bytes, 12)),
            (77, 0, 5)
        );
        let all = sets(&message);
        let [(2, set)] = all.as_slice() else { panic!("one set of templates: {all:?}") };
        let mut at = 0;
        let mut elements = Vec::new();
        while at < set.len() {
            let (id, count) = (u16_at(set, at), u16_at(set, at + 2));
            at += 4;
            let mut fields = Vec::new();
            for _ in 0..count {
                let (element, bytes) = (u16_at(set, at), u16_at(set, at + 2));
                at += 4;
                if element & 0x8000 != 0 {
                    assert_eq!(u32_at(set, at), 29305);
                    at += 4;
                }
                fields.push((element, bytes));
            }
            elements.push((id, fields));
        }
        let counters = [
            (1, 8),
            (0x8001, 8),
            (2, 8),
            (0x8002, 8),
            (152, 8),
            (153, 8),
            (10, 4),
            (14, 4),
            (136, 1),
            (239, 1),
            (148, 8),
        ];
        let with = |key: &[(u16, u16)]| [key, &counters].concat();
        assert_eq!(
            elements,
            [
                (256, with(&[(8, 4), (12, 4), (4, 1), (7, 2), (11, 2)])),
                (257, with(&[(27, 16), (28, 16), (4, 1), (7, 2), (11, 2)])),
                (258, with(&[(8, 4), (12, 4), (4, 1), (32, 2)])),
                (259, with(&[(27, 16), (28, 16), (4, 1), (139, 2)])),
            ]
        );
    }

    #[test]
    fn a_record_is_written_field_by_field() {
        let mut packer = Packer::new(1, 1400);
        assert_eq!(packer.push(&record(Family::V4, proto::TCP), 9), None);
        let message = packer.finish(10).unwrap();
        assert_eq!((message.records, u32_at(&message.bytes, 4)), (1, 10));
        let expected = [
            &[10, 1, 0, 2, 10, 2, 0, 2, 6, 3, 232, 8, 0][..],
            &1500_u64.to_be_bytes(),
            &40_u64.to_be_bytes(),
            &2_u64.to_be_bytes(),
            &1_u64.to_be_bytes(),
            &1000_u64.to_be_bytes(),
            &3000_u64.to_be_bytes(),
            &[0, 0, 0, 7, 0, 0, 0, 8, 3, 1, 1, 2, 3, 4, 5, 6, 7, 8],
        ]
        .concat();
        assert_eq!(sets(&message), [(256, expected)]);
        assert_eq!(packer.finish(10), None);
    }

    #[test]
    fn messages_are_filled_and_never_overfilled_and_the_sequence_counts_records() {
        for bytes_max in [512, 1400, 9000] {
            let mut packer = Packer::new(1, bytes_max);
            let mut messages = Vec::new();
            for number in 0_u8..=255 {
                let family = if number % 3 == 0 { Family::V6 } else { Family::V4 };
                let protocol = if number % 7 == 0 { proto::ICMP } else { proto::UDP };
                messages.extend(packer.push(&record(family, protocol), 1));
            }
            messages.extend(packer.finish(1));
            let mut count = 0;
            for message in &messages {
                assert!(message.bytes.len() <= bytes_max as usize);
                assert_eq!(u32_at(&message.bytes, 8), count);
                let in_sets: usize = sets(message)
                    .iter()
                    .map(|(id, set)| {
                        let size =
                            TEMPLATES.iter().find(|template| template.id == *id).unwrap().record_bytes();
                        assert_eq!(set.len() % size, 0);
                        set.len() / size
                    })
                    .sum();
                assert_eq!(in_sets, message.records as usize);
                count += message.records;
            }
            assert_eq!(count, 256);
            assert_eq!(u32_at(&packer.templates(2).bytes, 8), 256);
            assert!(messages.len() <= 256 * 110 / (bytes_max as usize - 130) + 1, "{}", messages.len());
        }
    }
}
