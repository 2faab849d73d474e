//! The figures of many cores: how two workers compare with one, what a packet costs that arrives at the wrong one, and what
//! that comes to on machines with more cores.
//!
//! Everything is in one process and without a kernel, on queues in memory ([`stages::device`]), by real workers ([`crew`]) pinned to
//! cores. Compared are rates of neighbours in time, so that a machine with other guests does less harm.

pub mod crew;
mod scaling;

use crate::gateway::Plan;
use crate::report::{Report, median, range};
use crate::{Error, affinity, pipeline};
use crew::{Crew, Rss, Shift, side_by_side};
use dataplane::ids::Generation;
use scaling::Costs;
use stages::{Arrival, Scale, Share};
use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Flows, of all workers together.
const FLOWS: [usize; 2] = [1_000, 100_000];

/// Two workers' rate of one's, at least: with RSS that agrees, and with RSS that is always wrong.
const GOALS: [f64; 2] = [1.9, 1.5];

/// Most nanoseconds, of both workers together, that handing a packet over takes.
const HANDOFF_GOAL: f64 = 40.0;

/// Bytes of what is handed over: a frame, where it came in and what is to be done with it.
const HANDED: usize = 16;

/// Measures them all.
///
/// # Errors
/// If one cannot be measured.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<(), Error> {
    if plan.cores < 2 {
        return Err("two workers need two cores".into());
    }
    // Whoever starts and stops the workers shares the first core, and sleeps meanwhile.
    affinity::pin_to(0)?;
    let costs = FLOWS.map(|flows| compare(plan, flows, report));
    for costs in costs {
        scaling::print(&costs?, report);
    }
    let ring = (0..plan.repetitions).map(|_| bare_ring(plan.time / 3)).collect::<Result<Vec<_>, _>>()?;
    report.beside("bare ring, ns of both cores per packet", &spread(&ring, 1));
    polls(plan, report)
}

/// How long polls take two workers that hand packets to each other, while rules are left alone and while control, on the
/// first one's core, compiles and publishes others every 20 ms.
fn polls(plan: &Plan, report: &Report) -> Result<(), Error> {
    let mut crew = Crew::new(2, FLOWS[0])?;
    crew.load(Rss::IsWrong);
    let mut generation = Generation(1);
    for applies in [false, true] {
        let by_worker = crew.polls(|mailbox| {
            let start = Instant::now();
            // Workers may still run what was replaced: freed only when all is over.
            let mut replaced = Vec::new();
            while start.elapsed() < plan.time {
                thread::sleep(Duration::from_millis(20));
                if applies {
                    generation = Generation(generation.0 + 1);
                    replaced.push(mailbox.publish(crew::snapshot(generation, crew::RULES, 2)?));
                }
            }
            while !mailbox.all_adopted(generation) {
                thread::yield_now();
            }
            Ok(())
        })?;
        let rules = if applies { "applied every 20 ms" } else { "left alone" };
        for (worker, times) in by_worker.iter().enumerate() {
            let at = |of_10000: usize| {
                let nanos = times.get(times.len() * of_10000 / 10_000);
                nanos.map_or(f64::NAN, |nanos| f64::from(*nanos) / 1e3)
            };
            report.beside(
                &format!("polls of worker {worker}, rules {rules}, p50 / p99 / p99.99, us"),
                &format!("{:.1} / {:.1} / {:.1} of {}", at(5_000), at(9_900), at(9_999), times.len()),
            );
        }
    }
    Ok(())
}

/// One worker, two with RSS that agrees, two with RSS that never does, and two gateways that share nothing, in turn.
fn compare(plan: &Plan, flows: usize, report: &mut Report) -> Result<Costs, Error> {
    let mut one = [Crew::new(1, flows)?, Crew::new(1, flows)?];
    let (mut agreeing, mut wrong) = (Crew::new(2, flows)?, Crew::new(2, flows)?);
    one.iter_mut().chain([&mut agreeing]).for_each(|crew| crew.load(Rss::Agrees));
    wrong.load(Rss::IsWrong);
    let opening = agreeing.handed_off();
    let mut queues =
        Share::new(Scale { flows: u32::try_from(flows)?, hugepages: true, arrival: Arrival::PastCaches })?;
    let mut figures = Figures::default();
    for repetition in 0..plan.repetitions {
        // A core may be slower than the other.
        let core = repetition as usize % 2;
        figures.one.push(one[0].work(core, plan.time)?);
        figures.agreeing.push(agreeing.work(0, plan.time)?);
        figures.wrong.push(wrong.work(0, plan.time)?);
        let [first, second] = &mut one;
        figures.apart.push(side_by_side(&mut [first, second], 0, plan.time)?);
        figures.device.push(pipeline::nanos(&mut queues, plan.time / 4));
    }
    assert_eq!(agreeing.handed_off(), opening, "RSS agrees");
    Ok(figures.show(flows, report))
}

/// All that was measured, by repetition.
#[derive(Debug, Default)]
struct Figures {
    one: Vec<Shift>,
    agreeing: Vec<Shift>,
    wrong: Vec<Shift>,
    apart: Vec<Vec<Shift>>,
    device: Vec<f64>,
}

impl Figures {
    fn show(&self, flows: usize, report: &mut Report) -> Costs {
        let Self { one, agreeing, wrong, apart, device } = self;
        let mpps = |shifts: &[Shift]| spread(&shifts.iter().map(Shift::mpps).collect::<Vec<_>>(), 2);
        let ratios = |shifts: &[Shift]| -> Vec<f64> {
            shifts.iter().zip(one).map(|(two, one)| two.mpps() / one.mpps()).collect()
        };
        let apart: Vec<f64> = apart
            .iter()
            .zip(one)
            .map(|(apart, one)| apart.iter().map(Shift::mpps).sum::<f64>() / one.mpps())
            .collect();
        let shares = [one, agreeing, wrong].into_iter().flatten().map(|shift| shift.share);
        let least = shares.fold(1.0, f64::min);
        println!("{flows} flows, 64-byte frames, ten stateful rules, established both ways:");
        report.beside("  one worker, Mpps", &mpps(one));
        report.beside("  two, RSS agrees, Mpps", &mpps(agreeing));
        report.beside("  two, RSS always wrong, Mpps", &mpps(wrong));
        report.beside("  two gateways that share nothing, of one", &spread(&apart, 3));
        report.beside("  the queues in memory by themselves, ns a packet", &spread(device, 1));
        let (sent, dropped) =
            wrong.iter().fold((0, 0), |sum, shift| (sum.0 + shift.packets, sum.1 + shift.dropped));
        let share = dropped as f64 / (sent + dropped) as f64;
        report.beside(
            "  dropped on the way to their owner, RSS always wrong, %",
            &format!("{:.3}", share * 100.0),
        );
        report.beside("  least share of its core that a worker got", &format!("{least:.2}"));
        for ((what, shifts), goal) in
            [("RSS agrees", agreeing), ("RSS always wrong", wrong)].into_iter().zip(GOALS)
        {
            let ratios = ratios(shifts);
            report.beside(&format!("  two of one, {what}"), &spread(&ratios, 3));
            report.at_least(&format!("two workers of one, {what}, {flows} flows"), median(&ratios), goal);
        }
        let handoff: Vec<f64> =
            wrong.iter().zip(agreeing).map(|(wrong, agreeing)| wrong.nanos() - agreeing.nanos()).collect();
        report.beside("  handoff, ns of both cores per packet", &spread(&handoff, 1));
        report.at_most(&format!("handoff of a packet, {flows} flows, ns"), median(&handoff), HANDOFF_GOAL);
        let nanos = |shifts: &[Shift]| median(&shifts.iter().map(Shift::nanos).collect::<Vec<_>>());
        Costs {
            flows,
            one: nanos(one),
            two: nanos(agreeing),
            handoff: median(&handoff),
            queues: median(device),
        }
    }
}

/// The middle, and between what all lie.
fn spread(values: &[f64], digits: usize) -> String {
    let (low, high) = range(values);
    format!("{:.digits$} ({low:.digits$} to {high:.digits$})", median(values))
}

/// Nanoseconds of both cores per packet through a ring each way, in bursts of 64, with nothing else to do.
fn bare_ring(length: Duration) -> Result<f64, Error> {
    type Slot = [u64; HANDED / 8];
    let (to_second, from_first) = rtrb::RingBuffer::<Slot>::new(1024);
    let (to_first, from_second) = rtrb::RingBuffer::<Slot>::new(1024);
    let barrier = Barrier::new(2);
    let work = |core, mut out: rtrb::Producer<Slot>, mut inward: rtrb::Consumer<Slot>| {
        let barrier = &barrier;
        move || {
            let pinned = affinity::pin_to(core);
            barrier.wait();
            let (start, mut popped) = (Instant::now(), 0_u64);
            while start.elapsed() < length {
                for _ in 0..16 {
                    for _ in 0..64 {
                        let _ = out.push(black_box([1; HANDED / 8]));
                    }
                    popped += (0..64).map_while(|_| inward.pop().ok().map(black_box)).count() as u64;
                }
            }
            pinned.map(|()| popped)
        }
    };
    let popped = thread::scope(|scope| {
        let first = scope.spawn(work(0, to_second, from_second));
        let second = scope.spawn(work(1, to_first, from_first));
        [first, second].map(|thread| thread.join().expect("no panic"))
    });
    let [first, second] = popped;
    Ok(length.as_nanos() as f64 * 2.0 / (first? + second?) as f64)
}
