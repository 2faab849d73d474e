//! Every stage timed by criterion: `./scripts/bench micro [FILTER]`. A group a stage, throughput in packets. Stages with a flow
//! table are timed with a thousand flows, which fit a core's cache, and with a million, which do not.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stages::{Arrival, BURST, Named, STAGES, Scale, Stage};
use std::hint::black_box;
use std::time::{Duration, Instant};

const FLOWS: [(&str, u32); 2] = [("1k", 1_000), ("1M", 1_000_000)];

fn all(criterion: &mut Criterion) {
    for stage in STAGES {
        let flows = if stage.has_flows { &FLOWS[..] } else { &FLOWS[..1] };
        let mut group = criterion.benchmark_group(stage.name);
        group.throughput(Throughput::Elements(BURST as u64));
        for (name, flows) in flows {
            let id = if stage.has_flows { format!("{name} flows") } else { "burst of 32".to_owned() };
            let scale = Scale { flows: *flows, hugepages: true, arrival: Arrival::Copied };
            // Made only if a filter lets it be timed.
            let mut made = None;
            group.bench_with_input(BenchmarkId::from_parameter(id), &scale, |bencher, scale| {
                let made = made.get_or_insert_with(|| make(stage, *scale));
                bencher.iter_custom(|bursts| timed(&mut **made, bursts));
            });
        }
        group.finish();
    }
}

fn make(stage: &Named, scale: Scale) -> Box<dyn Stage> {
    (stage.make)(scale).unwrap_or_else(|error| panic!("{}: {error}", stage.name))
}

/// Time that the bursts took, what prepares each left out: then reading the clock adds about a nanosecond a packet.
fn timed(stage: &mut dyn Stage, bursts: u64) -> Duration {
    if stage.needs_preparing() {
        let mut spent = Duration::ZERO;
        for _ in 0..bursts {
            stage.prepare();
            let from = Instant::now();
            black_box(stage.burst());
            spent += from.elapsed();
        }
        return spent;
    }
    let from = Instant::now();
    for _ in 0..bursts {
        black_box(stage.burst());
    }
    from.elapsed()
}

criterion_group!(benches, all);
criterion_main!(benches);
