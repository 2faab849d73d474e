//! The NICs' spreading of packets over queues and the workers' ownership of flows, made to agree as far as the NICs go
//! along. Control thread, before the first frame.

use super::ports::Port;
use crate::net::RssState;
use dataplane::ids::WorkerId;
use dataplane::rss::{BUCKETS, Fields};
use dataplane::worker::Spread;
use tracing::{info, warn};

/// Settles key and hash fields on all NICs. Returns how workers are to find buckets, and how many of these the smallest
/// table of a NIC tells apart.
pub(super) fn agree(ports: &mut [Port], program: bool) -> (Spread, usize) {
    let mut spreading: Vec<&mut Port> = ports.iter_mut().filter(|port| port.queues > 1).collect();
    for port in &mut spreading {
        port.nic.agree_on_rss(program);
    }
    let is_able = |port: &&&mut Port| port.nic.rss().state == RssState::Agrees;
    let able = || spreading.iter().filter(is_able).map(|port| port.nic.rss());
    if !spreading.is_empty() && able().next().is_none() {
        return (Spread::Secret, BUCKETS);
    }
    let common = able().fold(Fields::ALL, |all, nic| all.and(nic.fields));
    let stride = able().map(|nic| nic.entries).fold(BUCKETS, usize::min);
    for port in spreading.iter_mut().filter(|port| port.nic.rss().state == RssState::Agrees) {
        port.nic.narrow_rss(common, program);
    }
    (Spread::Rss(common), stride)
}

/// Points the NICs' tables at their workers' queues: `lanes` has NIC, queue and worker of every socket.
pub(super) fn point(
    ports: &mut [Port],
    lanes: &[(usize, u32, WorkerId)],
    owners: &[WorkerId; BUCKETS],
    program: bool,
) {
    for (index, port) in ports.iter_mut().enumerate().filter(|(_, port)| port.queues > 1) {
        let queues = queues(&lanes_of(lanes, index), owners);
        port.nic.point_rss(&queues, program);
    }
}

/// Says how the NICs spread packets, if it matters.
pub(super) fn report(ports: &[Port], workers: usize) {
    if workers < 2 {
        return;
    }
    for port in ports.iter().filter(|port| port.queues > 1) {
        let rss = port.nic.rss();
        let refused = rss.refused.join("; ");
        match rss.state {
            RssState::Agrees if refused.is_empty() => {
                info!("{}: RSS agrees with the workers ({} entries)", port.nic.name, rss.entries);
            }
            _ => warn!("{}: packets may have to be handed from worker to worker: {refused}", port.nic.name),
        }
    }
}

/// Queues of one NIC and their workers.
pub(super) fn lanes_of(lanes: &[(usize, u32, WorkerId)], port: usize) -> Vec<(u32, WorkerId)> {
    lanes.iter().filter(|(of, ..)| *of == port).map(|(_, queue, worker)| (*queue, *worker)).collect()
}

/// The queue of each bucket on a NIC: one that its owner serves, or, if it serves none there, any.
pub(super) fn queues(lanes: &[(u32, WorkerId)], owners: &[WorkerId; BUCKETS]) -> [u32; BUCKETS] {
    let mut turns = [0; BUCKETS];
    std::array::from_fn(|bucket| {
        let owner = owners[bucket];
        let own: Vec<u32> =
            lanes.iter().filter(|(_, worker)| *worker == owner).map(|(queue, _)| *queue).collect();
        let turn = turns[owner.index()];
        turns[owner.index()] += 1;
        match own.as_slice() {
            [] => lanes[bucket % lanes.len()].0,
            own => own[turn % own.len()],
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_go_to_their_owners_queues_in_turn() {
        let owners = std::array::from_fn(|bucket| WorkerId(u8::try_from(bucket % 3).unwrap()));
        // Worker 0 has two queues, worker 1 one, worker 2 none here.
        let queues = queues(&[(0, WorkerId(0)), (1, WorkerId(1)), (2, WorkerId(0))], &owners);
        assert_eq!(queues[..8], [0, 1, 2, 2, 1, 2, 0, 1]);
        let count = |queue| queues.iter().filter(|of| **of == queue).count();
        assert!(count(0) >= 43 && count(1) >= 85, "{queues:?}");
    }
}
