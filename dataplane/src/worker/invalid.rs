//! INVALID packets for the log (`nf_conntrack_log_invalid`). The worker copies the beginning of such a packet onto a ring,
//! control writes it out. Bounded twice: a worker notes so many a second, and the ring is short; what is not noted is
//! counted.

use super::answers::AnswerBucket;
use super::snapshot::AnswerRate;
use crate::clock::Now;
use crate::flow::InvalidReason;
use crate::ids::PortId;
use crate::packet::Packet;
use rtrb::Producer;

/// Bytes of a frame that are kept: the headers, and of an ICMP error those of the packet it is about.
pub const NOTED_BYTES: usize = 160;

/// Packets that a worker notes a second, and at once after a pause.
const RATE: AnswerRate = AnswerRate { per_sec: 50, burst: 50 };

/// The setting's value that stands for every protocol.
const ALL: u8 = 255;

/// An INVALID packet.
#[derive(Clone, Copy, Debug)]
pub struct InvalidNote {
    /// The NIC it came in on.
    pub ingress: PortId,
    /// Why it is INVALID.
    pub reason: InvalidReason,
    /// Its protocol.
    pub proto: u8,
    /// Where its IP header begins in the frame.
    pub l3_offset: u16,
    len: u8,
    head: [u8; NOTED_BYTES],
}

impl InvalidNote {
    /// The frame's beginning.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.head.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// A worker's end.
#[derive(Debug)]
pub(super) struct InvalidLog {
    out: Option<Producer<InvalidNote>>,
    bucket: AnswerBucket,
}

impl InvalidLog {
    pub(super) fn new(out: Option<Producer<InvalidNote>>) -> Self {
        Self { out, bucket: AnswerBucket::default() }
    }

    /// Between bursts.
    pub(super) fn refill(&mut self, now: Now) {
        self.bucket.refill(RATE, now);
    }

    /// Whether packets of a protocol are noted under this setting.
    #[inline]
    pub(super) const fn wants(setting: u8, proto: u8) -> bool {
        setting != 0 && (setting == ALL || setting == proto)
    }

    /// Notes a packet; false if there is no room for it.
    #[cold]
    pub(super) fn note(
        &mut self,
        packet: &Packet,
        bytes: &[u8],
        ingress: PortId,
        reason: InvalidReason,
    ) -> bool {
        let Some(out) = &mut self.out else { return true };
        if out.is_full() || !self.bucket.take() {
            return false;
        }
        let bytes = bytes.get(..NOTED_BYTES).unwrap_or(bytes);
        let mut note = InvalidNote {
            ingress,
            reason,
            proto: packet.tuple.proto,
            l3_offset: packet.l3_offset,
            len: u8::try_from(bytes.len()).unwrap_or(u8::MAX),
            head: [0; NOTED_BYTES],
        };
        note.head[..bytes.len()].copy_from_slice(bytes);
        out.push(note).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::packets::udp;
    use crate::wire;
    use rtrb::RingBuffer;

    #[test]
    fn the_setting_is_a_protocol_or_all_of_them() {
        assert!(!InvalidLog::wants(0, 0) && !InvalidLog::wants(0, 6));
        assert!(InvalidLog::wants(6, 6) && !InvalidLog::wants(6, 17));
        assert!(InvalidLog::wants(255, 6) && InvalidLog::wants(255, 255));
    }

    #[test]
    fn notes_are_few_and_hold_the_headers() {
        let (out, mut notes) = RingBuffer::new(1000);
        let mut log = InvalidLog::new(Some(out));
        let frame = udp([10, 0, 0, 1], [10, 0, 0, 2]).ports(1, 2).payload(&[7; 1000]).build();
        let mut packet = Packet::EMPTY;
        wire::parse_into(&frame, 1042, &mut packet).unwrap();
        let note =
            |log: &mut InvalidLog, bytes| log.note(&packet, bytes, PortId(1), InvalidReason::BadLength);
        log.refill(Now::from_secs(1));
        assert_eq!((0..100).filter(|_| note(&mut log, &frame)).count(), 50);
        log.refill(Now::from_secs(1).plus_nanos(100_000_000));
        assert_eq!((0..100).filter(|_| note(&mut log, &frame[..42])).count(), 5, "a tenth of a second later");
        let first = notes.pop().unwrap();
        assert_eq!((first.head(), first.proto, first.l3_offset), (&frame[..NOTED_BYTES], 17, 14));
        let last = std::iter::from_fn(|| notes.pop().ok()).last().unwrap();
        assert_eq!(
            (last.head(), last.ingress, last.reason),
            (&frame[..42], PortId(1), InvalidReason::BadLength)
        );
        // A ring that nobody empties.
        let (out, _notes) = RingBuffer::new(2);
        let mut log = InvalidLog::new(Some(out));
        log.refill(Now::from_secs(1));
        assert_eq!((0..10).filter(|_| note(&mut log, &frame)).count(), 2);
        assert!(note(&mut InvalidLog::new(None), &frame), "where nobody could read, nothing is missed");
    }
}
