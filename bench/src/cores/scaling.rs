//! From two cores to many, on paper: what the measured costs come to with more cores and on faster links. What is taken for
//! granted, and where it would break, stands in `bench/README.md`.

use crate::report::Report;

/// Cores that the costs are carried over to.
const CORES: [u32; 3] = [8, 16, 32];

/// Links, in Gbit/s.
const LINKS: [f64; 3] = [25.0, 100.0, 400.0];

/// Sizes of frames, FCS included.
const FRAMES: [f64; 2] = [64.0, 512.0];

/// Bytes that a frame takes on the wire beside its own: preamble, start and gap.
const GAP: f64 = 20.0;

/// What the driver and the AF_XDP rings take of the same core per packet, received and sent, in nanoseconds. Not measured
/// here, where there is no NIC: 60 ns are the 17 million packets a second that one core forwards with zero-copy and busy
/// polling, and nothing to do with them, on the drivers that do it best.
const DRIVER: f64 = 60.0;

/// Cache lines of its flow that a packet needs from memory once the table is larger than the caches: the bucket and two of
/// the record, which goes back changed.
const FLOW_LINES: f64 = 3.0 + 1.0;

/// What was measured, in nanoseconds of a core per packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    /// Flows of all workers together.
    pub(super) flows: usize,
    /// One worker, its queues in memory included.
    pub(super) one: f64,
    /// Each of two, RSS agreeing.
    pub(super) two: f64,
    /// Handing a packet over, both sides.
    pub(super) handoff: f64,
    /// The queues in memory, which a machine with a NIC has not got.
    pub(super) queues: f64,
}

impl Costs {
    /// Millions of packets a second of so many cores, of whose packets the share `handed` arrives at the wrong one. Every
    /// core more is taken to slow the others down by what the second one did.
    fn mpps(&self, cores: u32, handed: f64) -> f64 {
        let own = self.one - self.queues + DRIVER;
        let others = (self.two - self.one).max(0.0) * f64::from(cores - 1);
        f64::from(cores) * 1e3 / (own + others + handed * self.handoff.max(0.0))
    }
}

/// Prints the model's results.
pub(super) fn print(costs: &Costs, report: &Report) {
    let Costs { flows, one, two, handoff, queues } = costs;
    println!(
        "on paper, from {flows} flows: a packet costs {one:.1} ns, of which the queues in memory are {queues:.1}, and"
    );
    println!(
        "{:.1} more for every further core; {handoff:.1} if handed over; the driver is put at {DRIVER} ns",
        (two - one).max(0.0)
    );
    for cores in CORES {
        let blind = 1.0 - 1.0 / f64::from(cores);
        for (rss, handed) in [("agrees", 0.0), ("is wrong for one in ten", 0.1), ("knows nothing", blind)] {
            let mpps = costs.mpps(cores, handed);
            let shares: Vec<String> = FRAMES.iter().map(|bytes| shares_of_links(mpps, *bytes)).collect();
            let memory = mpps * FLOW_LINES * 64.0 / 1e3;
            report.beside(
                &format!("  {cores} cores, RSS {rss}, Mpps"),
                &format!("{mpps:.0}; {}; flows from memory {memory:.0} GB/s", shares.join("; ")),
            );
        }
    }
}

/// What part of each link so many packets of one size fill.
fn shares_of_links(mpps: f64, bytes: f64) -> String {
    let share = |gbit: f64| format!("{:.0}", 100.0 * (mpps / line_rate(gbit, bytes)).min(1.0));
    let links = LINKS.map(|gbit| format!("{gbit}")).join("/");
    format!("{bytes}-byte frames fill {} % of {links} GbE", LINKS.map(share).join("/"))
}

/// Frames per second that a link carries, in millions.
fn line_rate(gbit: f64, bytes: f64) -> f64 {
    gbit * 1e3 / (8.0 * (bytes + GAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_gigabits_are_the_known_number_of_smallest_frames() {
        assert!((line_rate(10.0, 64.0) - 14.88).abs() < 0.01);
    }

    #[test]
    fn cores_that_do_not_slow_each_other_down_add_up() {
        let costs = Costs { flows: 1, one: 50.0, two: 50.0, handoff: 30.0, queues: 10.0 };
        assert!((costs.mpps(8, 0.0) - 80.0).abs() < 1e-9);
        assert!((costs.mpps(8, 1.0) - 8000.0 / 130.0).abs() < 1e-9);
        let crowded = Costs { two: 55.0, ..costs };
        assert!((crowded.mpps(3, 0.0) - 3000.0 / 110.0).abs() < 1e-9);
    }
}
