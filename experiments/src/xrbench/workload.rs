//! A scenario of XRBench on a chip as a case of ours: one processor an accelerator, one segment a model, one stream a model.
//! It refuses to guess a cost that the table does not have.

use super::chips::Chip;
use super::read::{Cost, Costs};
use super::scenarios::{ALIASES, Model, RUN_MS, Usage};
use cosched_env::case::Case;
use cosched_env::objective::Objective;
use cosched_env::plan::{self, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};
use cosched_env::time::{Span, Time};
use std::collections::BTreeMap;

/// A case and what belongs to it.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The case, for both modes.
    pub case: std::sync::Arc<Case>,
    /// Frames of each stream.
    pub frames: Vec<u32>,
}

/// When the last frame has come, whatever the model.
pub fn horizon() -> Time {
    Time::ZERO + Span::from_ms(f64::from(RUN_MS))
}

fn cost(costs: &Costs, chip: &Chip, index: usize, model: &str) -> Result<Cost, String> {
    let accelerator = &chip.accelerators[index];
    let get = |name: &str| costs.get(&chip.key, accelerator.elements, &accelerator.dataflow, name);
    let other = ALIASES.iter().find(|(name, _)| *name == model);
    get(model).or_else(|| get(other?.1)).ok_or_else(|| {
        format!(
            "expected a row with chip {}, num_pes {}, dataflow {} and model {model} in {}",
            chip.key,
            accelerator.elements,
            accelerator.dataflow,
            costs.file.display()
        )
    })
}

fn variant(costs: &Costs, chip: &Chip, model: &Model) -> Result<Variant, String> {
    let on = |p: usize| -> Result<Option<plan::Cost>, String> {
        let Cost { latency_ms, energy_mj } = cost(costs, chip, p, model.name)?;
        // Whole nanoseconds, so that what is expected and what happens are the same to the last bit.
        let mean_us = (latency_ms * 1e6).round().max(1.0) / 1e3;
        Ok(Some(plan::Cost { mean_us, p50_us: mean_us, p95_us: mean_us, energy_mj }))
    };
    let costs = (0..chip.accelerators.len()).map(on).collect::<Result<Vec<_>, _>>()?;
    Ok(Variant {
        name: model.name.to_owned(),
        task: model.name.to_owned(),
        accuracy: 1.0,
        segments: vec![SegmentSpec { name: "all".to_owned(), costs, ..SegmentSpec::default() }],
        ..Variant::default()
    })
}

fn stream(usage: &Usage, model: &Model) -> Stream {
    let interval_ms = f64::from(model.interval_ms());
    let most = usage.models.iter().map(Model::frames).max().unwrap_or(1);
    let (kind, after, probability) = match model.after {
        Some((parent, probability)) => (ArrivalKind::Dependent, parent, probability),
        None => (ArrivalKind::Periodic, "", 1.0),
    };
    Stream {
        name: model.name.to_owned(),
        task: model.name.to_owned(),
        kind,
        period_ms: interval_ms,
        after: after.to_owned(),
        probability,
        // A frame that would begin in the run but end after it does not come.
        open_ms: match kind {
            ArrivalKind::Periodic => vec![[0.0, f64::from(model.frames()) * interval_ms]],
            _ => Vec::new(),
        },
        deadline_ms: interval_ms,
        // A nanosecond after the deadline: a frame that is due now may still start.
        expire_ms: interval_ms + 1e-6,
        // The score is a mean over models of means over frames.
        priority: f64::from(most) / f64::from(model.frames().max(1)),
        ..Stream::default()
    }
}

/// Utility that leans on the score, for policies that go by it: RT at the deadline is a half and nothing 0.3 ms later, EN falls by
/// one with 1.5 J, and a drop costs its frame and, by the experience that a model's score is multiplied by, a share of the others.
const OBJECTIVE: Objective = Objective {
    late_value: 0.5,
    late_ms: 0.3,
    drop_penalty: 0.0,
    fail_penalty: 0.0,
    accuracy_weight: 1.0,
    energy_weight: 1.0 / 1.5,
    fairness_weight: 0.0,
    continuity_weight: 1.0,
};

/// The case of a scenario on a chip.
///
/// # Errors
/// Which cost is missing.
pub fn case(usage: &Usage, name: &str, chip: &Chip, costs: &Costs) -> Result<Workload, String> {
    let processors = chip.accelerators.iter().enumerate().map(|(i, a)| ProcessorSpec {
        name: format!("{i}-{}-{}", a.dataflow, a.elements),
        device: name.to_owned(),
        slots: 1,
        // The table's energy is all there is.
        active_watts: 0.0,
        idle_watts: 0.0,
        copy_us: 0.0,
        copy_gbps: 0.0,
        launch_us: 0.0,
        crowd: None,
    });
    let count = chip.accelerators.len();
    let variants = usage.models.iter().map(|m| variant(costs, chip, m)).collect::<Result<Vec<_>, _>>()?;
    let plan = Plan {
        format: PLAN_FORMAT,
        provenance: BTreeMap::from([("source".to_owned(), costs.file.display().to_string())]),
        processors: processors.collect(),
        contention: vec![vec![1.0; count]; count],
        variants,
    };
    let scenario = Scenario {
        name: format!("{} on {name}", usage.name),
        streams: usage.models.iter().map(|m| stream(usage, m)).collect(),
        objective: OBJECTIVE,
    };
    let case = Case::new(plan, scenario).map_err(|e| e.to_string())?;
    Ok(Workload { case: std::sync::Arc::new(case), frames: usage.models.iter().map(Model::frames).collect() })
}
