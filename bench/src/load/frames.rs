//! A load's frames one after the other, in memory: the same flows, sizes and numbers in the same order as the kernel's
//! generator sends.

use super::shape::{FLOOD_FLOWS, STAMP_BYTES, Shape, Shapes, fold, source, source_of_flood};
use super::{Flood, Load, Picker};
use crate::Error;

/// Makes a load's frames.
#[derive(Debug)]
pub(crate) struct Frames {
    shapes: Shapes,
    picker: Picker,
    first_flow: u32,
    flood: Option<Flood>,
    is_v6: bool,
    /// Number of each flow's next packet; empty without stamps.
    numbers: Vec<u32>,
    slot: usize,
    since_honest: u32,
    next_of_flood: u32,
    now: Now,
}

/// The frame in the works.
#[derive(Clone, Copy, Debug, Default)]
struct Now {
    /// Its place among the honest kinds; `None`: the flood's.
    kind: Option<usize>,
    /// Sum of its segment without stamp.
    sum: u32,
    /// Number of the packet in its flow.
    number: u32,
    is_stamped: bool,
}

impl Frames {
    /// # Errors
    /// If the load makes no sense; the message says why.
    pub(crate) fn new(load: &Load) -> Result<Self, Error> {
        Ok(Self {
            shapes: Shapes::new(load)?,
            picker: Picker::new(load.order, load.flows)?,
            first_flow: load.first_flow,
            flood: load.flood,
            is_v6: load.dst.is_ipv6(),
            numbers: vec![0; if load.stamp { load.flows as usize } else { 0 }],
            slot: 0,
            since_honest: 0,
            next_of_flood: load.flood.map_or(0, |flood| flood.first % FLOOD_FLOWS),
            now: Now::default(),
        })
    }

    /// Bytes of the longest frame.
    pub(crate) fn longest(&self) -> usize {
        self.shapes.all().map(|shape| shape.frame.len()).max().unwrap_or_default()
    }

    /// Goes on to the next frame, whose segment has no checksum before [`Self::finish`]; returns whether it is the
    /// flood's.
    pub(crate) fn advance(&mut self) -> bool {
        let is_flood = self.is_floods_turn();
        let (low, port) = if is_flood {
            let flow = self.next_of_flood;
            self.next_of_flood = (flow + 1) % FLOOD_FLOWS;
            self.now = Now::default();
            source_of_flood(flow)
        } else {
            let (flow, ends_round) = self.picker.next();
            self.now = Now { kind: Some(self.next_kind(ends_round)), ..Now::default() };
            if let Some(number) = self.numbers.get_mut(flow as usize) {
                self.now.number = *number;
                self.now.is_stamped = true;
                *number = number.wrapping_add(1);
            }
            source(self.first_flow + flow)
        };
        let (low, port, is_v6) = (low.to_be_bytes(), port.to_be_bytes(), self.is_v6);
        let shape = self.shape();
        put(&mut shape.frame, if is_v6 { 36 } else { 28 }, low);
        if !is_v6 {
            let sum = shape.ip_sum + u32::from(u16::from_ne_bytes(low));
            put(&mut shape.frame, 24, checksum(sum).to_ne_bytes());
        }
        put(&mut shape.frame, l4_at(is_v6), port);
        let varying = [low, port].map(|bytes| u32::from(u16::from_ne_bytes(bytes)));
        self.now.sum = self.shape().l4_sum + varying[0] + varying[1];
        is_flood
    }

    /// Writes the stamp, where there is one, and the segment's checksum.
    pub(crate) fn finish(&mut self, now_ns: u64) {
        let Now { mut sum, number, is_stamped, .. } = self.now;
        let l4_at = l4_at(self.is_v6);
        let shape = self.shape();
        let (l4_bytes, check_at) = if shape.is_tcp { (20, 16) } else { (8, 6) };
        if is_stamped {
            let mut varying = [0; STAMP_BYTES - 4];
            varying[..4].copy_from_slice(&number.to_be_bytes());
            varying[4..].copy_from_slice(&now_ns.to_be_bytes());
            put(&mut shape.frame, l4_at + l4_bytes + 4, varying);
            sum += varying.as_chunks().0.iter().map(|pair| u32::from(u16::from_ne_bytes(*pair))).sum::<u32>();
        }
        let check = match checksum(sum) {
            // To UDP zero means that there is none.
            0 if !shape.is_tcp => 0xffff,
            check => check,
        };
        put(&mut shape.frame, l4_at + check_at, check.to_ne_bytes());
    }

    /// The frame.
    pub(crate) fn bytes(&mut self) -> &[u8] {
        &self.shape().frame
    }

    fn shape(&mut self) -> &mut Shape {
        match (self.now.kind, &mut self.shapes.flood) {
            (None, Some(flood)) => flood,
            (kind, _) => &mut self.shapes.honest[kind.unwrap_or_default()],
        }
    }

    const fn is_floods_turn(&mut self) -> bool {
        let Some(flood) = self.flood else { return false };
        self.since_honest = self.since_honest.wrapping_add(1);
        if self.since_honest != flood.honest_every {
            return true;
        }
        self.since_honest = 0;
        false
    }

    fn next_kind(&mut self, ends_round: bool) -> usize {
        if ends_round {
            self.slot += self.shapes.round_skip as usize;
        }
        let slot = self.slot % self.shapes.slots.len();
        self.slot = slot + 1;
        usize::from(self.shapes.slots[slot])
    }
}

const fn l4_at(is_v6: bool) -> usize {
    if is_v6 { 54 } else { 34 }
}

fn put<const N: usize>(frame: &mut [u8], at: usize, bytes: [u8; N]) {
    frame[at..at + N].copy_from_slice(&bytes);
}

#[expect(clippy::cast_possible_truncation, reason = "a folded sum has 16 bits")]
fn checksum(sum: u32) -> u16 {
    !(fold(sum) as u16)
}
