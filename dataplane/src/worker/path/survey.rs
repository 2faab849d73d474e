//! The parse stage: from frames to packets, at the same positions. Worker thread only.
//!
//! One pass over a burst in which nearly every frame is an IP packet of a flow of ours finds all that is needed of it:
//! headers, hash, bucket, and whose it is. Whatever else there is, it leaves alone and marks; [`Path::settle`] deals with it.
//! So frames stay where they were received as long as none of them leaves the burst.

use super::Path;
use crate::device::{BURST_MAX, Device, FrameBurst};
use crate::ids::PortId;
use crate::packet::{Kind, Packet};
use crate::wire;
use crate::worker::observer::Observer;
use crate::xsk::Frame;

const _: () = assert!(BURST_MAX <= 64, "a word has a bit for every packet of a burst");

/// What a burst is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct Survey {
    /// Bytes of all frames.
    pub(in crate::worker) bytes: u64,
    /// Frames that were not parsed, one bit each.
    unread: u64,
    /// Packets of buckets of others, one bit each.
    others: u64,
}

impl Survey {
    /// Whether all are packets of ours.
    pub(in crate::worker) const fn is_all_ours(&self) -> bool {
        self.unread | self.others == 0
    }
}

impl<D: Device, O: Observer> Path<D, O> {
    /// Reads all frames of a burst that are simple to read, and starts fetching what their flows are found by.
    #[inline(never)]
    pub(in crate::worker) fn survey(&self, frames: &[Frame], packets: &mut [Packet; BURST_MAX]) -> Survey {
        let (mut bytes, mut unread, mut others) = (0, 0, 0);
        for (at, (frame, packet)) in frames.iter().zip(packets).enumerate() {
            bytes += u64::from(frame.len());
            let is_plain = wire::parse_plain(self.umem.head(frame), frame.len(), packet);
            if !is_plain && !self.read(frame, packet) {
                unread |= 1 << at;
                continue;
            }
            if is_plain {
                (packet.hash, packet.bucket) = self.place(&packet.tuple, None);
            }
            if self.owner(packet) != self.id {
                others |= 1 << at;
                continue;
            }
            self.count_bucket(packet);
        }
        Survey { bytes, unread, others }
    }

    /// Reads a frame that is not plain. `false`: it is malformed, no IP, or its headers may go on in its second chunk.
    #[inline(never)]
    fn read(&self, frame: &Frame, packet: &mut Packet) -> bool {
        let is_read = frame.segments() == 1
            && wire::parse_any(self.umem.head(frame), frame.len(), packet).is_ok()
            && packet.kind != Kind::NonIp;
        if is_read {
            self.steer_headed(frame, packet, None);
        }
        is_read
    }

    /// Takes out of a burst what leaves it; what stays goes to `ours`, headers at the same positions.
    #[inline(never)]
    pub(in crate::worker) fn settle(
        &mut self,
        frames: &mut FrameBurst,
        survey: Survey,
        packets: &mut [Packet; BURST_MAX],
        ingress: PortId,
        ours: &mut FrameBurst,
    ) {
        for (at, frame) in frames.drain(..).enumerate() {
            let bit = 1 << at;
            let to = ours.len();
            if survey.unread & bit != 0 {
                if let Some(frame) = self.receive(frame, &mut packets[to], ingress) {
                    self.count_bucket(&packets[to]);
                    ours.push(frame);
                }
                continue;
            }
            packets[to] = packets[at];
            if survey.others & bit == 0 {
                ours.push(frame);
            } else if let Some(frame) = self.keep_ours(self.id, frame, &packets[to], ingress) {
                self.count_bucket(&packets[to]);
                ours.push(frame);
            }
        }
    }

    /// A frame that was not read: what cannot or need not be judged here leaves.
    fn receive(&mut self, frame: Frame, packet: &mut Packet, ingress: PortId) -> Option<Frame> {
        let frame = self.parse(frame, packet, ingress)?;
        if packet.kind == Kind::NonIp {
            self.pass_l2(frame, packet, ingress);
            return None;
        }
        self.steer(&frame, packet, None);
        self.keep_ours(self.id, frame, packet, ingress)
    }

    /// A packet is judged here: counts it for its bucket, and starts fetching what its flow is found by.
    #[inline]
    pub(in crate::worker) fn count_bucket(&self, packet: &Packet) {
        self.counters.buckets[usize::from(packet.bucket)].add(1);
        self.tracker.prefetch_index(packet);
    }
}
