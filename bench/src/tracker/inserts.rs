//! What the first packet of a flow costs the tracker: parsed, looked for in vain, judged and entered, over a table that fills
//! from nothing. As with [`Load`], frames of a burst are written between two measurements.

use super::{BURST, ISN, Load, address, frame, numbers};
use crate::Error;
use dataplane::flow::Claim;
use dataplane::packet::Family;
use dataplane::rules::model::CtState;
use dataplane::wire;
use std::time::{Duration, Instant};

/// Nanoseconds of a flow's first packet, a SYN over IPv4: the mean over all of a table that is empty at first and in the end
/// has `flows` of them.
///
/// # Errors
/// If there is not the memory.
///
/// # Panics
/// If a packet does not start a flow.
pub fn insert(flows: u32) -> Result<f64, Error> {
    let mut load = Load::empty(flows, Family::V4, 0)?;
    load.frames = (0..BURST).map(|_| frame(Family::V4, 0, true)).collect();
    let mut spent = Duration::ZERO;
    let mut next = 0;
    while next < flows {
        let count = BURST.min((flows - next) as usize);
        for (flow, bytes) in (next..).zip(&mut load.frames[..count]) {
            address(bytes, Family::V4, flow, false);
            numbers(bytes, Family::V4, ISN[0], 0, 0x02);
        }
        let from = Instant::now();
        let entered = std::hint::black_box(load.enter(count));
        spent += from.elapsed();
        assert_eq!(entered, count, "every packet starts a flow");
        next += u32::try_from(count).unwrap_or(0);
    }
    assert_eq!(load.tracker.flow_count(), flows, "every flow is in the table");
    Ok(spent.as_nanos() as f64 / f64::from(flows))
}

impl Load {
    /// What a worker does with first packets that rules accept. Returns how many started a flow.
    #[inline(never)]
    fn enter(&mut self, count: usize) -> usize {
        let Self { tracker, settings, orders, now, frames, packets, .. } = self;
        let (frames, packets) = (&frames[..count], &mut packets[..count]);
        let len = u32::try_from(frames[0].len()).unwrap_or(0);
        for (bytes, packet) in frames.iter().zip(packets.iter_mut()) {
            if wire::parse_into(bytes, len, packet).is_ok() {
                packet.hash = tracker.hash(&packet.tuple);
                tracker.prefetch_index(packet);
            }
        }
        tracker.prefetch(packets);
        let mut entered = 0;
        for (at, (bytes, packet)) in frames.iter().zip(packets.iter()).enumerate() {
            tracker.prefetch_next(packets.get(at + 2));
            let mut tracked = tracker.track(packet, bytes, *now, settings, orders);
            let slot = tracker.commit(packet, &mut tracked, *now, Claim::default());
            tracker.finish(&tracked, true);
            entered += usize::from(tracked.state == CtState::New && matches!(slot, Ok(Some(_))));
        }
        entered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fills_also_by_a_burst_that_is_not_full() {
        assert!(insert(1_000).unwrap() > 0.0);
    }
}
