//! Domain randomisation: from one plan and scenario, many that are alike but never the same, so that a policy learns the kind of
//! problem and not the numbers. It refuses to be random by itself: the same generator state gives the same case.

use crate::invent;
use cosched_env::case::{Case, CaseError};
use cosched_env::device::Device;
use cosched_env::emulator::{Config, Fault, FaultKind};
use cosched_env::plan::{Cost, Plan};
use cosched_env::scenario::Scenario;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

/// How far cases are moved. Each factor `f` means log-uniform in `[1/f, f]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ranges {
    /// Latency of all segments on one processor.
    pub processor: f64,
    /// Latency of one variant on one processor.
    pub variant: f64,
    /// Least and largest factor on all request rates.
    pub load: [f64; 2],
    /// Factor on each stream's rate on top.
    pub stream: f64,
    /// Factor on each deadline.
    pub deadline: f64,
    /// Factor on each slow-down above 1.
    pub contention: f64,
    /// Factor on each priority.
    pub priority: f64,
    /// Probability that a processor (never the last one) is missing.
    pub missing: f64,
    /// Factor on each weight of the objective.
    pub objective: f64,
    /// Probability that answers of a stream that misses are worth less: a continuity weight between 0 and 1.
    pub continuity: f64,
    /// Probability that a processor dies or hangs once in an episode.
    pub fault: f64,
    /// Probability that the streams are invented ([`crate::invent`]) and only the device is kept.
    pub invented: f64,
}

impl Default for Ranges {
    fn default() -> Self {
        Self {
            processor: 1.5,
            variant: 1.2,
            load: [0.6, 1.4],
            stream: 1.2,
            deadline: 1.2,
            contention: 1.3,
            priority: 1.0,
            missing: 0.05,
            objective: 1.0,
            continuity: 0.0,
            fault: 0.0,
            invented: 0.0,
        }
    }
}

fn factor(rng: &mut Pcg64Mcg, f: f64) -> f64 {
    if f <= 1.0 { 1.0 } else { rng.random_range(-f.ln()..f.ln()).exp() }
}

/// A neighbour of `plan` and `scenario`, on the same `device`.
///
/// # Errors
/// [`CaseError`] when the plan or scenario was not well-formed to begin with.
pub fn neighbour(
    plan: &Plan,
    device: &Device,
    scenario: &Scenario,
    ranges: &Ranges,
    rng: &mut Pcg64Mcg,
) -> Result<Case, CaseError> {
    let mut plan = plan.clone();
    let mut scenario = scenario.clone();
    let n = plan.processors.len();
    let speed: Vec<f64> = (0..n).map(|_| factor(rng, ranges.processor)).collect();
    for variant in &mut plan.variants {
        let own: Vec<f64> = (0..n).map(|p| speed[p] * factor(rng, ranges.variant)).collect();
        for segment in &mut variant.segments {
            for (cost, f) in segment.costs.iter_mut().zip(&own) {
                if let Some(c) = cost {
                    c.mean_us *= f;
                    c.p50_us *= f;
                    c.p95_us *= f;
                    c.energy_mj *= f;
                }
            }
        }
    }
    if rng.random::<f64>() < ranges.invented {
        scenario = invent::scenario(&plan, &scenario, rng);
    }
    for row in &mut plan.contention {
        for c in row {
            *c = 1.0 + (*c - 1.0) * factor(rng, ranges.contention);
        }
    }
    for p in 0..n {
        if rng.random::<f64>() < ranges.missing {
            remove_processor(&mut plan, device, p);
        }
    }
    let load = ranges.load[0] * (ranges.load[1] / ranges.load[0]).powf(rng.random::<f64>());
    for stream in &mut scenario.streams {
        let rate = load * factor(rng, ranges.stream);
        stream.period_ms /= rate;
        stream.times_ms.iter_mut().for_each(|t| *t /= rate);
        let f = factor(rng, ranges.deadline);
        stream.deadline_ms *= f;
        stream.expire_ms *= f;
        stream.offset_ms = rng.random::<f64>() * stream.period_ms;
        stream.priority *= factor(rng, ranges.priority);
    }
    let o = &mut scenario.objective;
    for weight in [&mut o.late_value, &mut o.late_ms, &mut o.drop_penalty, &mut o.energy_weight] {
        *weight *= factor(rng, ranges.objective);
    }
    o.late_value = o.late_value.min(1.0);
    o.accuracy_weight = (o.accuracy_weight * factor(rng, ranges.objective)).min(1.0);
    if rng.random::<f64>() < ranges.continuity {
        o.continuity_weight = rng.random();
    }
    Case::on(plan, device.clone(), scenario)
}

/// What goes wrong in the episodes of a case beside what `config` says: with the probability of the ranges one processor dies or hangs
/// for a part of the episode.
pub fn faults(case: &Case, config: &Config, ranges: &Ranges, episode_ms: f64, rng: &mut Pcg64Mcg) -> Config {
    let mut config = config.clone();
    if rng.random::<f64>() < ranges.fault {
        let processor = &case.plan.processors[rng.random_range(0..case.processor_count())];
        let from_ms = episode_ms * rng.random_range(0.1..0.8);
        let lasts_ms = episode_ms * rng.random_range(0.05..0.3);
        let kind = if rng.random() { FaultKind::Die } else { FaultKind::Hang };
        let noticed_ms = lasts_ms * rng.random_range(0.05..0.5);
        let processor = processor.name.clone();
        let to_ms = from_ms + lasts_ms;
        config.faults.push(Fault { processor, kind, from_ms, to_ms, noticed_ms, ..Fault::default() });
    }
    config
}

/// Takes a processor's ability away where another one can do the same; its place stays, so that indices keep their meaning.
fn remove_processor(plan: &mut Plan, device: &Device, p: usize) {
    let room = |q: usize, bytes: u64| {
        let mb = device.processors.get(&plan.processors[q].name).map_or(0.0, |m| m.memory_mb);
        mb == 0.0 || bytes as f64 <= mb * 1e6
    };
    let segments = || plan.variants.iter().flat_map(|v| v.segments.iter().map(|s| (s, v.memory_bytes)));
    let idle = |q: usize, cost: &Option<Cost>, bytes| q == p || cost.is_none() || !room(q, bytes);
    let needed = segments().any(|(s, bytes)| s.costs.iter().enumerate().all(|(q, c)| idle(q, c, bytes)));
    if needed {
        return;
    }
    for segment in plan.variants.iter_mut().flat_map(|v| &mut v.segments) {
        segment.costs[p] = None;
    }
}
