//! How fast things are: emulator decisions per second with each policy on 4 processors and 6 streams without contention, and the latency
//! of one decision. It prints; it asserts nothing, since timing is not correctness. Rates are per second of one core. Run it with `--release`.

use cosched_env::case::Case;
use cosched_env::emulator::Config;
use cosched_env::emulator::Emulator;
use cosched_env::observation::Observation;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};
use cosched_env::scheduler::{Options, Scheduler};
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Policy, drive};
use cosched_policies::{TABLE, make};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

fn processor(p: usize) -> ProcessorSpec {
    ProcessorSpec {
        name: format!("p{p}"),
        device: String::new(),
        slots: 1,
        active_watts: 2.0,
        idle_watts: 0.5,
        copy_us: 20.0,
        copy_gbps: 5.0,
    }
}

/// One variant of four segments per task; each processor is fastest for some.
fn variant(task: usize) -> Variant {
    let segments = (0..4).map(|s| SegmentSpec {
        name: String::new(),
        input_bytes: 100_000,
        output_bytes: 100_000,
        costs: (0..4)
            .map(|p| {
                let mean_us = 300.0 + 150.0 * ((task * 5 + s * 3 + p * 7) % 11) as f64;
                Some(Cost {
                    mean_us,
                    p50_us: 0.97 * mean_us,
                    p95_us: 1.2 * mean_us,
                    energy_mj: mean_us * 2e-3,
                })
            })
            .collect(),
    });
    let segments = segments.collect();
    Variant { name: format!("v{task}"), task: format!("t{task}"), accuracy: 0.9, memory_bytes: 1, segments }
}

fn speed_case() -> Arc<Case> {
    let streams = (0..6).map(|t| Stream {
        task: format!("t{t}"),
        kind: ArrivalKind::Poisson,
        period_ms: 9.0,
        offset_ms: 0.0,
        jitter_ms: 0.0,
        burst: 2.0,
        dwell_ms: 100.0,
        deadline_ms: 12.0,
        expire_ms: 0.0,
        priority: 1.0,
        min_accuracy: 0.0,
    });
    let scenario =
        Scenario { name: "speed".into(), streams: streams.collect(), objective: Default::default() };
    let plan = Plan {
        format: PLAN_FORMAT,
        provenance: BTreeMap::new(),
        processors: (0..4).map(processor).collect(),
        contention: vec![vec![1.0; 4]; 4],
        variants: (0..6).map(variant).collect(),
    };
    Arc::new(Case::new(plan, scenario).expect("well-formed"))
}

/// Counts decisions, and times each of them when asked to.
struct Counted {
    policy: Box<dyn Policy>,
    decisions: u64,
    candidates: u64,
    nanoseconds: Option<Vec<u64>>,
}

impl Policy for Counted {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        self.decisions += 1;
        self.candidates += observation.candidates.len() as u64;
        let Some(times) = &mut self.nanoseconds else { return self.policy.decide(observation) };
        let start = Instant::now();
        let decision = self.policy.decide(observation);
        times.push(start.elapsed().as_nanos() as u64);
        decision
    }
}

/// Seconds that this thread has had a core (Linux), so that a busy machine does not matter; elsewhere seconds on the clock.
fn core_seconds() -> f64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let clock = START.get_or_init(Instant::now).elapsed().as_secs_f64();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).map_or(clock, |ns| ns / 1e9)
}

fn run(case: &Arc<Case>, name: &str, seconds: f64, timed: bool) -> (Counted, f64) {
    let policy = make(name, case).expect("a row of the table");
    let mut counted = Counted { policy, decisions: 0, candidates: 0, nanoseconds: timed.then(Vec::new) };
    let config = Config { decision_us: 0.0, candidate_us: 0.0, ..Config::default() };
    let horizon = Time::ZERO + Span::from_ms(seconds * 1e3);
    let mut emulator = Emulator::new(case.clone(), config, 1, horizon);
    let mut scheduler = Scheduler::new(case.clone(), Options::default());
    let start = core_seconds();
    drive(&mut scheduler, &mut emulator, &mut counted, &mut ()).expect("the protocol holds");
    (counted, core_seconds() - start)
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(600.0);
    let only = std::env::args().nth(2);
    let case = speed_case();
    println!("4 processors, 6 Poisson streams, {seconds} emulated seconds");
    println!("policy          decisions  candidates  decisions/s   policy p50 ns   p99 ns");
    for row in TABLE.iter().filter(|r| only.as_ref().is_none_or(|o| o == r.name)) {
        let (counted, taken) = run(&case, row.name, seconds, false);
        let (timed, _) = run(&case, row.name, seconds / 10.0, true);
        let mut times = timed.nanoseconds.unwrap_or_default();
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "{:<15} {:>9} {:>11.1} {:>12.0} {:>15} {:>8}",
            row.name,
            counted.decisions,
            counted.candidates as f64 / counted.decisions as f64,
            counted.decisions as f64 / taken,
            at(0.5),
            at(0.99)
        );
    }
}
