//! Packets for the log: those that LOG, NFLOG and TRACE rules want written, and INVALID ones (`nf_conntrack_log_invalid`). The
//! worker copies as much of such a packet as is wanted, control writes it out. Bounded: the rings are short, and of INVALID
//! packets a worker notes so many a second; what is not noted is counted.
//!
//! Two rings: of notes, which all are of one size, and of the bytes they speak of. Bytes are put in first, so whoever
//! finds a note finds its bytes.

use super::answers::AnswerBucket;
use super::counters::Counter;
use super::snapshot::AnswerRate;
use super::tap::Taps;
use crate::clock::Now;
use crate::flow::InvalidReason;
use crate::ids::PortId;
use crate::packet::Packet;
use crate::rules::interned::Interned;
use crate::rules::log::{Log, LogSpec, LogTo, Notes};
use crate::rules::model::{CtState, Hook, RuleId, RuleRef};
use crate::rules::trace::{self, Step, StepKind, TracedChain};
use crate::rules::{Compiled, Facts};
use rtrb::{Consumer, Producer, RingBuffer};
use std::cell::RefCell;

/// Bytes kept for a line: from the Ethernet header on all headers, and of an ICMP error those of the packet it is about.
pub const LINE_BYTES: usize = 256;

/// INVALID packets that a worker notes a second, and at once after a pause.
const INVALID_RATE: AnswerRate = AnswerRate { per_sec: 50, burst: 50 };

/// The setting's value that stands for every protocol.
const ALL: u8 = 255;

/// A packet for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// When it was noted.
    pub at: Now,
    /// The NIC it came in on.
    pub ingress: PortId,
    /// The NIC it would leave on, if that is known where it was noted.
    pub egress: Option<PortId>,
    /// Where its IP header begins in the frame.
    pub l3_offset: u16,
    /// Bytes of the whole frame.
    pub frame_len: u32,
    /// Its mark.
    pub mark: u32,
    /// Its connection state, once it was tracked.
    pub state: Option<CtState>,
    /// Why it is noted.
    pub why: Why,
    /// How many of the frame's bytes were kept: who writes it into a ring says so.
    pub len: u32,
}

/// Why a packet is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is INVALID.
    Invalid {
        /// For this reason.
        reason: InvalidReason,
        /// Its protocol.
        proto: u8,
    },
    /// A rule wants it.
    Rule {
        /// What the rule says.
        spec: Interned<LogSpec>,
        /// The rule's stable name.
        id: RuleId,
    },
    /// It is traced.
    Step {
        /// Where it is.
        chain: Interned<TracedChain>,
        /// What it matched.
        kind: StepKind,
        /// That one's number in the chain, from 1.
        number: u32,
    },
}

/// The worker's end of a pair of rings.
#[derive(Debug)]
pub struct NoteWriter {
    notes: Producer<Note>,
    bytes: Producer<u8>,
}

/// Control's end.
#[derive(Debug)]
pub struct NoteReader {
    notes: Consumer<Note>,
    bytes: Consumer<u8>,
}

/// Rings for so many notes and bytes.
#[must_use]
pub fn note_rings(notes: usize, bytes: usize) -> (NoteWriter, NoteReader) {
    let (notes_in, notes_out) = RingBuffer::new(notes);
    let (bytes_in, bytes_out) = RingBuffer::new(bytes);
    (NoteWriter { notes: notes_in, bytes: bytes_in }, NoteReader { notes: notes_out, bytes: bytes_out })
}

impl NoteWriter {
    /// Writes a note and its bytes; false if there is no room.
    fn write(&mut self, note: Note, bytes: &[u8]) -> bool {
        if self.notes.is_full() {
            return false;
        }
        let Ok(chunk) = self.bytes.write_chunk_uninit(bytes.len()) else { return false };
        let written = chunk.fill_from_iter(bytes.iter().copied());
        let len = u32::try_from(written).unwrap_or(0);
        self.notes.push(Note { len, ..note }).is_ok()
    }
}

impl NoteReader {
    /// The next note; its bytes are put into `bytes`.
    pub fn read(&mut self, bytes: &mut Vec<u8>) -> Option<Note> {
        let note = self.notes.pop().ok()?;
        bytes.clear();
        if let Ok(chunk) = self.bytes.read_chunk(note.len as usize) {
            let (first, second) = chunk.as_slices();
            bytes.extend_from_slice(first);
            bytes.extend_from_slice(second);
            chunk.commit_all();
        }
        Some(note)
    }
}

/// What a worker does with packets for the log.
#[derive(Debug)]
pub(super) struct NoteLog {
    /// `None` where nobody could read: then nothing is missed.
    out: Option<RefCell<NoteWriter>>,
    bucket: AnswerBucket,
}

impl NoteLog {
    pub(super) fn new(out: Option<NoteWriter>) -> Self {
        Self { out: out.map(RefCell::new), bucket: AnswerBucket::default() }
    }

    /// Between bursts.
    pub(super) fn refill(&mut self, now: Now) {
        self.bucket.refill(INVALID_RATE, now);
    }

    /// Whether INVALID packets of a protocol are noted under this setting.
    #[inline]
    pub(super) const fn wants(setting: u8, proto: u8) -> bool {
        setting != 0 && (setting == ALL || setting == proto)
    }

    /// Notes an INVALID packet; false if there is no room for it.
    #[cold]
    pub(super) fn note_invalid(
        &mut self,
        packet: &Packet,
        bytes: &[u8],
        ingress: PortId,
        reason: InvalidReason,
        now: Now,
    ) -> bool {
        if self.out.is_none() {
            return true;
        }
        let note = Note {
            at: now,
            ingress,
            egress: None,
            l3_offset: packet.l3_offset,
            frame_len: packet.frame_len,
            mark: 0,
            state: Some(CtState::Invalid),
            why: Why::Invalid { reason, proto: packet.tuple.proto },
            len: 0,
        };
        self.bucket.take() && self.write(note, bytes.get(..LINE_BYTES).unwrap_or(bytes))
    }

    fn write(&self, note: Note, bytes: &[u8]) -> bool {
        // Nobody else holds it: notes are written one at a time.
        self.out.as_ref().is_none_or(|out| out.try_borrow_mut().is_ok_and(|mut out| out.write(note, bytes)))
    }
}

/// Takes down what the rules of one packet want noted.
#[derive(Debug)]
pub(super) struct RuleNotes<'a> {
    pub(super) log: &'a NoteLog,
    pub(super) taps: &'a Taps,
    pub(super) rules: &'a Compiled,
    /// Counts what finds no room.
    pub(super) unlogged: &'a Counter,
}

impl Notes for RuleNotes<'_> {
    #[cold]
    fn note(&self, facts: &Facts<'_>, log: Log, by: RuleRef, mark: u32) {
        let Facts { packet, bytes, .. } = *facts;
        let wanted = match log.spec.to {
            LogTo::Line(_) => LINE_BYTES,
            LogTo::Capture { size: None, .. } => bytes.len(),
            LogTo::Capture { size: Some(size), .. } => {
                usize::from(packet.l3_offset).saturating_add(usize::try_from(size).unwrap_or(usize::MAX))
            }
        };
        let Some(rule) = by.rule.and_then(|at| self.rules.ruleset().chain(by.chain).rules.get(at as usize))
        else {
            return;
        };
        self.write(facts, log.hook, mark, wanted, Why::Rule { spec: log.spec, id: rule.id });
    }

    #[cold]
    fn trace(&self, facts: &Facts<'_>, step: Step, mark: u32) {
        let Some(chain) = self.rules.traced_chain(step.at.chain) else { return };
        let (kind, number) = trace::label(self.rules.ruleset(), step.at);
        self.write(facts, step.hook, mark, LINE_BYTES, Why::Step { chain, kind, number });
    }

    #[cold]
    fn follow(&self, step: Step) {
        self.taps.note_step(step);
    }
}

impl RuleNotes<'_> {
    fn write(&self, facts: &Facts<'_>, hook: Hook, mark: u32, wanted: usize, why: Why) {
        let Facts { packet, bytes, now, is_raw, ingress, egress, .. } = *facts;
        let note = Note {
            at: now,
            // Unlike a rule, the log is told where a packet came in whatever the hook (Linux 6.18).
            ingress,
            egress: (!matches!(hook, Hook::Raw | Hook::Prerouting)).then_some(egress),
            l3_offset: packet.l3_offset,
            frame_len: packet.frame_len,
            mark,
            state: (!is_raw).then_some(facts.ct_state),
            why,
            len: 0,
        };
        if !self.log.write(note, bytes.get(..wanted).unwrap_or(bytes)) {
            self.unlogged.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::log::LineStyle;
    use crate::testing::packets::udp;
    use crate::wire;

    #[test]
    fn the_setting_is_a_protocol_or_all_of_them() {
        assert!(!NoteLog::wants(0, 0) && !NoteLog::wants(0, 6));
        assert!(NoteLog::wants(6, 6) && !NoteLog::wants(6, 17));
        assert!(NoteLog::wants(255, 6) && NoteLog::wants(255, 255));
    }

    #[test]
    fn notes_of_invalid_packets_are_few_and_hold_the_headers() {
        let (out, mut notes) = note_rings(1000, 100_000);
        let mut log = NoteLog::new(Some(out));
        let frame = udp([10, 0, 0, 1], [10, 0, 0, 2]).ports(1, 2).payload(&[7; 1000]).build();
        let mut packet = Packet::EMPTY;
        wire::parse_into(&frame, 1042, &mut packet).unwrap();
        let note = |log: &mut NoteLog, bytes| {
            log.note_invalid(&packet, bytes, PortId(1), InvalidReason::BadLength, Now::from_secs(1))
        };
        log.refill(Now::from_secs(1));
        assert_eq!((0..100).filter(|_| note(&mut log, &frame)).count(), 50);
        log.refill(Now::from_secs(1).plus_nanos(100_000_000));
        assert_eq!((0..100).filter(|_| note(&mut log, &frame[..42])).count(), 5, "a tenth of a second later");
        let mut bytes = Vec::new();
        let first = notes.read(&mut bytes).unwrap();
        assert_eq!((&bytes[..], first.l3_offset, first.frame_len), (&frame[..LINE_BYTES], 14, 1042));
        let last = std::iter::from_fn(|| notes.read(&mut bytes)).last().unwrap();
        assert_eq!((&bytes[..], last.ingress, last.egress), (&frame[..42], PortId(1), None));
        assert_eq!(last.why, Why::Invalid { reason: InvalidReason::BadLength, proto: 17 });
        let mut nowhere = NoteLog::new(None);
        assert!(note(&mut nowhere, &frame), "where nobody could read, nothing is missed");
    }

    #[test]
    fn a_full_ring_takes_no_more_and_what_it_holds_stays_whole() {
        let spec = LogSpec { prefix: "x".into(), to: LogTo::Line(LineStyle::default()) };
        let why = Why::Rule { spec: Interned::new(spec.clone()), id: RuleId(7) };
        assert_eq!(Interned::new(spec.clone()), Interned::new(spec), "kept once");
        let note = Note {
            at: Now::from_secs(1),
            ingress: PortId(0),
            egress: None,
            l3_offset: 14,
            frame_len: 60,
            mark: 0,
            state: None,
            why,
            len: 0,
        };
        let (mut out, mut notes) = note_rings(100, 1000);
        let mut bytes = Vec::new();
        for round in 0..50_u8 {
            let content = vec![round; 300];
            let taken = (0..10).filter(|_| out.write(note, &content)).count();
            assert_eq!(taken, 3, "as many as there are bytes for");
            for _ in 0..3 {
                assert_eq!(notes.read(&mut bytes).map(|note| note.why), Some(why));
                assert_eq!(bytes, content);
            }
            assert_eq!(notes.read(&mut bytes), None);
        }
        let (mut out, _notes) = note_rings(2, 1000);
        assert_eq!((0..10).filter(|_| out.write(note, &[1])).count(), 2);
    }
}
