//! Random trials: a device with everything, launches and faults, by seed. It refuses to say how they go.

use super::common::rig::{case_on, die, flat_plan, hang, launch, named, slow};
use cosched_env::case::Case;
use cosched_env::crowd::Crowd;
use cosched_env::device::{Bandwidth, Device, Frequency, Link, LinkPhase, ProcessorModel, Thermal};
use cosched_env::emulator::Fault;
use cosched_env::event::Launch;
use cosched_env::plan::Plan;
use cosched_env::streams::rng;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::sync::Arc;

/// The twin's step; everything that is known beforehand happens at a multiple of it.
pub const STEP_NS: u64 = 100;
pub const STEP_MS: f64 = STEP_NS as f64 / 1e6;
pub const DECISION_STEPS: u64 = 100;
pub const JOBS: usize = 8;
pub const PROCESSORS: usize = 4;
/// A launch: when it is handed over and when the decider is done with it, in steps.
pub struct Job {
    pub handed: u64,
    pub begins: u64,
    pub launch: Launch,
}

pub struct Trial {
    pub case: Arc<Case>,
    /// By processor.
    pub models: Vec<ProcessorModel>,
    pub thermal: Thermal,
    /// With the index of the processor.
    pub faults: Vec<(usize, Fault)>,
    pub jobs: Vec<Job>,
}

fn random_model(rng: &mut Pcg64Mcg, remote: bool) -> ProcessorModel {
    let mut speed = 1.0;
    let steps = rng.random_range(1..=4usize);
    let frequencies = (0..steps).map(|s| {
        if s > 0 {
            speed *= rng.random_range(0.6..0.9);
        }
        Frequency { mhz: 1000.0 * speed, speed, power: f64::powi(speed, 2) }
    });
    let frequencies = frequencies.collect();
    let phase = |rng: &mut Pcg64Mcg, from_ms| LinkPhase {
        from_ms,
        round_trip_ms: rng.random_range(0.02..0.3),
        mbps: rng.random_range(50.0..500.0),
        loss: if rng.random_bool(0.2) { 1.0 } else { 0.0 },
    };
    let link = remote.then(|| Link {
        phases: vec![phase(rng, 0.0), phase(rng, 0.4), phase(rng, 1.0)],
        sigma: 0.7,
        resend_ms: 0.15,
        tries: 2,
    });
    ProcessorModel {
        frequencies,
        peak_gbps: [0.0, 10.0, 30.0][rng.random_range(0..3usize)],
        memory_mb: 0.0,
        load_gbps: 5.0,
        load_us: 10.0,
        link,
    }
}

/// Drawn by themselves, so that the rest of a trial is as it was without them.
fn slow_downs(seed: u64) -> Vec<(usize, Fault)> {
    let rng = &mut rng(seed, "slow", 0);
    let drawn = (0..rng.random_range(0..=2usize)).map(|_| {
        let p = rng.random_range(0..PROCESSORS);
        let from_ms = f64::from(rng.random_range(0..8u32)) * 0.1;
        let to_ms = from_ms + f64::from(rng.random_range(1..8u32)) * 0.1;
        (p, slow(&format!("p{p}"), from_ms, to_ms, rng.random_range(0.2..0.9)))
    });
    drawn.collect()
}

/// Processors that suffer more or less among several others than pairs add up to; likewise by themselves.
fn crowds(seed: u64) -> Vec<(usize, f64)> {
    let rng = &mut rng(seed, "crowd", 0);
    let drawn = (0..PROCESSORS).map(|p| (rng.random_bool(0.4).then_some(p), rng.random_range(-0.5..0.5)));
    drawn.filter_map(|(p, added)| Some((p?, added))).collect()
}

pub fn random_trial(seed: u64) -> Trial {
    let rng = &mut rng(seed, "twin", 0);
    let works: Vec<f64> = (0..JOBS).map(|_| rng.random_range(50.0..400.0)).collect();
    let mut plan: Plan = flat_plan(named(PROCESSORS), 1.0, &works);
    plan.contention.iter_mut().for_each(|row| row.fill_with(|| rng.random_range(1.0..1.8)));
    for p in &mut plan.processors {
        p.slots = 2;
        p.active_watts = rng.random_range(1.0..8.0);
        p.idle_watts = rng.random_range(0.1..3.0);
        p.copy_us = rng.random_range(0.0..20.0);
    }
    for (p, added) in crowds(seed) {
        plan.processors[p].crowd = Some(Crowd { added, triples: Vec::new() });
    }
    for variant in &mut plan.variants {
        let segment = &mut variant.segments[0];
        segment.traffic_bytes = rng.random_range(0..4_000_000);
        for cost in segment.costs.iter_mut().flatten() {
            cost.energy_mj = cost.mean_us * rng.random_range(1e-3..8e-3);
        }
    }
    let remote = rng.random_range(0..PROCESSORS);
    let models: Vec<_> = (0..PROCESSORS).map(|p| random_model(rng, p == remote)).collect();
    let processors = models.iter().enumerate().map(|(p, model)| (format!("p{p}"), model.clone())).collect();
    let bandwidth =
        rng.random_bool(0.7).then(|| Bandwidth { curve: vec![[8.0, 8.0], [16.0, 11.0], [40.0, 14.0]] });
    let thermal = Thermal {
        ambient_c: 25.0,
        kelvin_per_watt: 5.0,
        time_constant_s: rng.random_range(2e-4..1e-3),
        start_c: None,
        trip_c: rng.random_range(35.0..70.0),
        hysteresis_c: rng.random_range(1.0..10.0),
        poll_ms: 0.05,
        base_watts: rng.random_range(0.0..2.0),
    };
    let case = case_on(plan, Device { bandwidth, thermal: Some(thermal), processors });
    let faults = (0..rng.random_range(0..=3usize)).map(|_| {
        let p = rng.random_range(0..PROCESSORS);
        let name = format!("p{p}");
        let from_ms = f64::from(rng.random_range(0..10u32)) * 0.1;
        let to_ms = from_ms + f64::from(rng.random_range(1..5u32)) * 0.1;
        let noticed_ms = [0.0, 0.05, 0.15][rng.random_range(0..3usize)];
        let dies = rng.random_bool(0.3);
        let hangs = hang(&name, from_ms, to_ms, noticed_ms);
        (p, if dies { die(&name, from_ms, to_ms) } else { hangs })
    });
    let mut faults: Vec<_> = faults.collect();
    faults.extend(slow_downs(seed));
    let mut handed: Vec<u64> = (0..JOBS).map(|_| rng.random_range(0..8_000)).collect();
    handed.sort_unstable();
    let mut free = 0;
    let jobs = handed.into_iter().enumerate().map(|(v, handed)| {
        free = free.max(handed) + DECISION_STEPS;
        let mut launch = launch(v as u64, v as u16, rng.random_range(0..PROCESSORS as u16));
        launch.load_bytes = if rng.random_bool(0.3) { rng.random_range(1..500_000) } else { 0 };
        launch.inputs_on = rng.random_bool(0.5).then_some(launch.processor);
        Job { handed, begins: free, launch }
    });
    Trial { case, models, thermal, faults, jobs: jobs.collect() }
}
