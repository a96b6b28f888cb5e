//! Random cases on random devices, by seed: plans, device files, scenarios, faults. All of them are well-formed; it refuses to make
//! ill-formed ones.

use super::{Setup, ms, processor, stream};
use cosched_env::case::Case;
use cosched_env::device::{Bandwidth, Device, Frequency, Link, LinkPhase, ProcessorModel, Thermal};
use cosched_env::emulator::{Config, Fault, FaultKind};
use cosched_env::objective::Objective;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{ArrivalKind, Queue, Scenario, Stream};
use cosched_env::scheduler::Options;
use cosched_env::streams::rng;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::collections::BTreeMap;

const HORIZON_MS: f64 = 250.0;

fn random_plan(rng: &mut Pcg64Mcg) -> Plan {
    let n = rng.random_range(1..=5usize);
    let processors = (0..n).map(|p| ProcessorSpec {
        slots: if rng.random_bool(0.2) { 2 } else { 1 },
        copy_us: if rng.random_bool(0.3) { 0.0 } else { rng.random_range(0.0..200.0) },
        copy_gbps: if rng.random_bool(0.3) { 0.0 } else { rng.random_range(0.5..10.0) },
        ..processor(&format!("p{p}"))
    });
    let processors = processors.collect();
    let mut variants = Vec::new();
    for t in 0..rng.random_range(1..=4usize) {
        // Some tasks' variants are parts of one another.
        let shared = rng.random_bool(0.3).then(|| format!("w{t}"));
        for v in 0..rng.random_range(1..=3usize) {
            let segments = (0..rng.random_range(1..=6usize)).map(|s| random_segment(rng, s, n)).collect();
            variants.push(Variant {
                name: format!("t{t}v{v}"),
                task: format!("t{t}"),
                accuracy: rng.random_range(0.5..1.0),
                memory_bytes: rng.random_range(0..8_000_000),
                weights: shared.clone(),
                segments,
                ..Variant::default()
            });
        }
    }
    let contention = (0..n).map(|_| (0..n).map(|_| rng.random_range(1.0..1.6)).collect()).collect();
    Plan { format: PLAN_FORMAT, provenance: BTreeMap::new(), processors, contention, variants }
}

fn random_segment(rng: &mut Pcg64Mcg, index: usize, processors: usize) -> SegmentSpec {
    let surely = rng.random_range(0..processors);
    let costs = (0..processors).map(|p| {
        let supported = p == surely || rng.random_bool(0.6);
        let mean_us = 50.0 * 100f64.powf(rng.random());
        let p50_us = mean_us * 0.95;
        let p95_us = p50_us * rng.random_range(1.0..1.8);
        supported.then_some(Cost { mean_us, p50_us, p95_us, energy_mj: mean_us * 2e-3 })
    });
    let costs = costs.collect();
    let bytes = rng.random_range(0..1_000_000);
    SegmentSpec {
        name: format!("s{index}"),
        input_bytes: bytes,
        output_bytes: bytes,
        traffic_bytes: if rng.random_bool(0.2) { 0 } else { rng.random_range(0..10_000_000) },
        costs,
    }
}

fn random_link(rng: &mut Pcg64Mcg) -> Link {
    let phase = |rng: &mut Pcg64Mcg, from_ms| LinkPhase {
        from_ms,
        round_trip_ms: rng.random_range(0.1..10.0),
        mbps: rng.random_range(20.0..1000.0),
        loss: [0.0, 0.05, 0.5][rng.random_range(0..3usize)],
    };
    let phases = vec![phase(rng, 0.0), phase(rng, 60.0), phase(rng, 150.0)];
    Link { phases, sigma: rng.random_range(0.0..0.5), resend_ms: rng.random_range(1.0..20.0), tries: 2 }
}

fn random_model(rng: &mut Pcg64Mcg) -> ProcessorModel {
    let mut speed = 1.0;
    let steps = (0..rng.random_range(0..=4usize)).map(|step| {
        if step > 0 {
            speed *= rng.random_range(0.5..=1.0);
        }
        Frequency { mhz: 1000.0 * speed, speed, power: f64::powi(speed, 2) }
    });
    ProcessorModel {
        frequencies: steps.collect(),
        peak_gbps: if rng.random() { 0.0 } else { rng.random_range(2.0..20.0) },
        // Variants take up to 8 MB: room for one or two.
        memory_mb: if rng.random() { 0.0 } else { rng.random_range(8.0..16.0) },
        load_gbps: if rng.random_bool(0.3) { 0.0 } else { rng.random_range(1.0..20.0) },
        load_us: if rng.random() { 0.0 } else { rng.random_range(0.0..200.0) },
        link: rng.random_bool(0.2).then(|| random_link(rng)),
    }
}

/// A third of the devices are no more than their plan.
fn random_device(rng: &mut Pcg64Mcg, plan: &Plan) -> Device {
    if rng.random_bool(0.33) {
        return Device::default();
    }
    let bandwidth =
        rng.random_bool(0.5).then(|| Bandwidth { curve: vec![[5.0, 5.0], [10.0, 8.0], [30.0, 10.0]] });
    let thermal = rng.random_bool(0.5).then(|| Thermal {
        ambient_c: 25.0,
        kelvin_per_watt: rng.random_range(2.0..10.0),
        time_constant_s: rng.random_range(0.01..0.2),
        start_c: rng.random_bool(0.5).then(|| rng.random_range(20.0..60.0)),
        trip_c: rng.random_range(25.0..60.0),
        hysteresis_c: rng.random_range(0.0..10.0),
        poll_ms: rng.random_range(0.5..20.0),
        base_watts: rng.random_range(0.0..3.0),
    });
    let mut processors = BTreeMap::new();
    for spec in &plan.processors {
        if rng.random_bool(0.8) {
            processors.insert(spec.name.clone(), random_model(rng));
        }
    }
    Device { bandwidth, thermal, processors }
}

/// Times in ascending order before the horizon.
fn random_times(rng: &mut Pcg64Mcg, n: usize) -> Vec<f64> {
    let mut times: Vec<f64> = (0..n).map(|_| rng.random_range(0.0..HORIZON_MS)).collect();
    times.sort_by(f64::total_cmp);
    times
}

fn random_stream(rng: &mut Pcg64Mcg, plan: &Plan, index: usize) -> Stream {
    let served = &plan.variants[rng.random_range(0..plan.variants.len())];
    let kinds = [ArrivalKind::Periodic, ArrivalKind::Poisson, ArrivalKind::Bursty, ArrivalKind::Trace];
    let follows = index > 0 && rng.random_bool(0.25);
    let kind = if follows { ArrivalKind::Dependent } else { kinds[rng.random_range(0..4usize)] };
    let deadline_ms = rng.random_range(1.0..50.0);
    let pairs = if rng.random_bool(0.2) { random_times(rng, 4) } else { Vec::new() };
    Stream {
        name: format!("stream{index}"),
        kind,
        offset_ms: rng.random_range(0.0..20.0),
        jitter_ms: if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..30.0) },
        burst: rng.random_range(1.0..=2.0),
        dwell_ms: rng.random_range(1.0..100.0),
        times_ms: if kind == ArrivalKind::Trace { random_times(rng, 12) } else { Vec::new() },
        after: if follows { format!("stream{}", rng.random_range(0..index)) } else { String::new() },
        probability: if rng.random() { 1.0 } else { rng.random_range(0.1..1.0) },
        open_ms: pairs.chunks(2).map(|pair| [pair[0], pair[1]]).collect(),
        queue: if rng.random_bool(0.3) { Queue::Latest } else { Queue::Fifo },
        expire_ms: if rng.random_bool(0.5) { 0.0 } else { deadline_ms + rng.random_range(0.0..60.0) },
        priority: rng.random_range(0.5..3.0),
        min_accuracy: if rng.random_bool(0.7) { 0.0 } else { served.accuracy },
        ..stream(&served.task, rng.random_range(3.0..60.0), deadline_ms)
    }
}

fn random_scenario(rng: &mut Pcg64Mcg, plan: &Plan) -> Scenario {
    let streams = (0..rng.random_range(1..=6usize)).map(|s| random_stream(rng, plan, s)).collect();
    let fairness_weight = if rng.random() { 0.0 } else { rng.random_range(0.0..2.0) };
    let continuity_weight = fairness_weight / 2.0;
    let objective = Objective { fairness_weight, continuity_weight, ..Objective::default() };
    Scenario { name: "random".to_owned(), streams, objective }
}

fn random_config(rng: &mut Pcg64Mcg, plan: &Plan) -> Config {
    let faults = (0..rng.random_range(0..=3usize)).map(|_| {
        let from_ms = rng.random_range(0.0..HORIZON_MS);
        let to_ms = from_ms + rng.random_range(-5.0..60.0);
        let processor = plan.processors[rng.random_range(0..plan.processors.len())].name.clone();
        let dies = rng.random();
        let noticed_ms = if rng.random() { 0.0 } else { 10.0 };
        // A death is noticed anyway, so that half of those drawn can be something else.
        match (dies, noticed_ms > 0.0) {
            (true, true) => {
                Fault { processor, kind: FaultKind::Slow, from_ms, to_ms, speed: 0.4, ..Fault::default() }
            }
            (true, false) => Fault { processor, from_ms, to_ms, ..Fault::default() },
            (false, _) => {
                Fault { processor, kind: FaultKind::Hang, from_ms, to_ms, noticed_ms, ..Fault::default() }
            }
        }
    });
    let faults = faults.collect();
    Config {
        spread: rng.random(),
        decision_us: if rng.random() { 0.0 } else { 20.0 },
        candidate_us: if rng.random() { 0.0 } else { 1.0 },
        failure_rate: [0.0, 0.02, 0.3][rng.random_range(0..3usize)],
        faults,
    }
}

/// A random case on a random device; the same seed gives the same one.
pub fn random_setup(seed: u64) -> Setup {
    let rng = &mut rng(seed, "random case", 0);
    let plan = random_plan(rng);
    let device = random_device(rng, &plan);
    let scenario = random_scenario(rng, &plan);
    let config = random_config(rng, &plan);
    let options = Options { window: rng.random_range(1..=3), max_failures: rng.random_range(1..=3) };
    let case = Case::on(plan, device, scenario)
        .unwrap_or_else(|e| panic!("seed {seed}: the generator is wrong: {e}"));
    Setup { case: std::sync::Arc::new(case), options, config, seed, horizon: ms(HORIZON_MS) }
}
