//! Invents streams for a device: which of its tasks are asked for, how often, how urgently. A policy that only ever saw a handful of
//! scenarios learns those; one that saw thousands learns to schedule. It refuses to invent devices: costs are those of the plan.

use cosched_env::plan::{Plan, Variant};
use cosched_env::scenario::{ArrivalKind, Queue, Scenario, Stream};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// Streams of a scenario.
const STREAMS: std::ops::RangeInclusive<usize> = 2..=8;
/// Work that arrives per time, each task in a variant of its own where that runs fastest.
const LOAD: [f64; 2] = [0.25, 2.5];
/// Least and most milliseconds between requests.
const PERIOD_MS: [f64; 2] = [4.0, 2000.0];

/// A scenario for the plan's tasks, with the objective of `like`.
pub fn scenario(plan: &Plan, like: &Scenario, rng: &mut Pcg64Mcg) -> Scenario {
    let mut tasks: Vec<&str> = plan.variants.iter().map(|v| v.task.as_str()).collect();
    tasks.sort_unstable();
    tasks.dedup();
    let count = rng.random_range(STREAMS);
    let load = log_uniform(LOAD, rng);
    let shares: Vec<f64> = (0..count).map(|_| -rng.random_range(0.02..1.0_f64).ln() + 0.1).collect();
    let total: f64 = shares.iter().sum();
    let mut streams: Vec<Stream> = Vec::new();
    for (i, share) in shares.iter().enumerate() {
        let task = tasks[rng.random_range(0..tasks.len())];
        let choices: Vec<&Variant> = plan.variants.iter().filter(|v| v.task == task).collect();
        let variant = choices[rng.random_range(0..choices.len())];
        let work_ms = work_ms(variant);
        let period_ms = (work_ms * total / (load * share)).clamp(PERIOD_MS[0], PERIOD_MS[1]);
        let mut stream = Stream {
            name: format!("{task}-{i}"),
            task: task.to_owned(),
            period_ms,
            deadline_ms: (period_ms * log_uniform([0.5, 2.0], rng))
                .max(work_ms * log_uniform([1.2, 6.0], rng)),
            priority: log_uniform([0.5, 4.0], rng),
            queue: if rng.random_bool(0.25) { Queue::Latest } else { Queue::Fifo },
            ..Stream::default()
        };
        if rng.random_bool(0.2) {
            stream.min_accuracy = variant.accuracy;
        }
        arrivals(&mut stream, &streams, rng);
        streams.push(stream);
    }
    Scenario { name: format!("invented for {}", like.name), streams, objective: like.objective }
}

/// How the requests of a stream arrive.
fn arrivals(stream: &mut Stream, before: &[Stream], rng: &mut Pcg64Mcg) {
    match rng.random_range(0..10) {
        0..5 => stream.jitter_ms = stream.period_ms * rng.random_range(0.0..0.3),
        5..7 => stream.kind = ArrivalKind::Poisson,
        7 | 8 => {
            stream.kind = ArrivalKind::Bursty;
            stream.burst = rng.random_range(1.3..2.0);
            stream.dwell_ms = stream.period_ms * log_uniform([3.0, 20.0], rng);
        }
        _ => {
            if let Some(parent) = before.last() {
                stream.kind = ArrivalKind::Dependent;
                stream.period_ms = 0.0;
                stream.after.clone_from(&parent.name);
                stream.probability = rng.random_range(0.2..1.0);
                stream.deadline_ms += parent.deadline_ms;
            }
        }
    }
}

/// Milliseconds of a variant when each segment runs where it is fastest.
fn work_ms(variant: &Variant) -> f64 {
    let least = |costs: &[Option<cosched_env::plan::Cost>]| {
        costs.iter().flatten().map(|c| c.mean_us).fold(f64::INFINITY, f64::min)
    };
    let us: f64 = variant.segments.iter().map(|s| least(&s.costs)).sum();
    if us.is_finite() && us > 0.0 { us / 1e3 } else { 1.0 }
}

fn log_uniform([least, most]: [f64; 2], rng: &mut Pcg64Mcg) -> f64 {
    least * (most / least).powf(rng.random::<f64>())
}
