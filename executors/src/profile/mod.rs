//! Measures every segment on every processor, and how processors slow each other down: the plan. What an earlier plan says is kept as far
//! as it still holds. It refuses to guess latencies; power that no counter tells is assumed, and marked so in the plan's provenance.

mod kept;
mod latency;
mod power;
mod together;
mod transfer;

pub use kept::{same_model, same_segments};
pub use power::{Power, Watts, assumed_watts};

use crate::deploy::{Deployed, Deployment};
use crate::energy::rapl;
use crate::held::Held;
use crate::processor::{ExecError, Instance};
use crate::segment::Segment;
use crate::stop::Stop;
use cosched_env::plan::{Cost, Measured, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use kept::Kept;
use power::Drawn;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Runs of each segment before measuring.
    pub warm_up: usize,
    /// Fewest measured runs of each segment.
    pub least_runs: usize,
    /// Most measured runs of each segment.
    pub most_runs: usize,
    /// No further runs are made once the 95 % confidence interval of each segment's mean is this share of it to either side.
    pub within: f64,
    /// After so long for each segment no further runs are made either (but the fewest are).
    pub budget: Duration,
    /// How long each ordered pair, and each triple, of processors runs together.
    pub pair: Duration,
    /// How long a processor is kept busy, and its counter of energy watched, to learn its power.
    pub power: Duration,
    /// Where RAPL's counters are.
    pub powercap: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            warm_up: 2,
            least_runs: 10,
            most_runs: 1000,
            within: 0.02,
            budget: ms(250),
            pair: ms(600),
            power: ms(500),
            powercap: rapl::POWERCAP.into(),
        }
    }
}

/// A plan, and where its numbers come from.
pub struct Update {
    /// The plan.
    pub plan: Plan,
    /// What was measured now and why, in words.
    pub measured: Vec<String>,
    /// What was kept of the earlier plan, in words.
    pub kept: Vec<String>,
}

/// How far it is: (done, of, what is being measured).
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize, &str);

/// Measures a deployment. `power` gives what is known of the power of a processor by its name.
///
/// # Errors
/// When a segment fails while it is measured.
pub fn profile(
    deployment: &Deployment,
    options: &Options,
    power: &dyn Fn(&str) -> Power,
    progress: Progress<'_>,
) -> Result<Plan, ExecError> {
    Ok(update(deployment, None, options, power, progress)?.plan)
}

/// As [`profile`]; what `previous` says of the same model in the same segments on the same device is kept, and so are slow-downs among
/// processors that are the same. What is not deployed is not in the new plan.
///
/// # Errors
/// As [`profile`].
pub fn update(
    deployment: &Deployment,
    previous: Option<&Plan>,
    options: &Options,
    power: &dyn Fn(&str) -> Power,
    progress: Progress<'_>,
) -> Result<Update, ExecError> {
    let kept = Kept::new(deployment, previous);
    let n = deployment.processors.len();
    let segments = |p: usize| kept.missing(p).map(|v| deployment.variants[v].segments.len()).sum::<usize>();
    let total = (0..n).map(segments).sum::<usize>() + together::steps(&kept, n);
    let mut steps = Steps { done: 0, total, tell: progress };
    let drawn = power::all(&kept, options, power, &mut steps)?;
    let mut timed = Vec::new();
    for p in 0..n {
        let wanted: Vec<usize> = kept.missing(p).collect();
        let name = deployment.processors[p].name();
        let mut shown = |share: f64| steps.show((share * segments(p) as f64) as usize, name);
        timed.push(latency::measure(deployment, p, &wanted, options, &mut shown)?);
        steps.done += segments(p);
    }
    let transfers: Vec<String> = timed
        .iter()
        .enumerate()
        .map(|(p, timed)| kept.transfer(p).unwrap_or_else(|| transfer::told(&deployment.variants, timed)))
        .collect();
    let variant = |v: usize| {
        let cost = |s: usize, p: usize| {
            let cost = kept.cost(v, s, p).or_else(|| timed[p].costs.get(&(v, s)).copied())?;
            // Watts times microseconds are microjoules.
            Some(Cost { energy_mj: drawn[p].watts.0 * cost.mean_us / 1e3, ..cost })
        };
        let measured = |p: usize| kept.measured(v, p).or_else(|| timed[p].measured.get(&v).copied());
        planned(&deployment.variants[v], &cost, &measured, n)
    };
    let variants = (0..deployment.variants.len()).map(variant).collect();
    let together = together::measure(&kept, options, &mut steps)?;
    (steps.tell)(total, total, "");
    let launch_us = kept.launch_us().unwrap_or_else(latency::hand_over_us);
    let mut processors = Vec::new();
    for ((p, drawn), crowd) in drawn.iter().enumerate().zip(together.crowds) {
        let slots = deployment.slots[p];
        let spec = spec(deployment, p, drawn.watts);
        processors.push(ProcessorSpec { slots, launch_us, crowd, ..spec });
    }
    let provenance = provenance(deployment, options, &drawn, &transfers);
    let plan =
        Plan { format: PLAN_FORMAT, provenance, processors, contention: together.contention, variants };
    let (mut measured, mut held) = kept.story();
    together.counts.tell(&mut measured, &mut held);
    let names: Vec<&str> = deployment.processors.iter().map(|p| p.name()).collect();
    power::tell(&drawn, &names, &mut measured, &mut held);
    Ok(Update { plan, measured, kept: held })
}

/// How far everything is.
struct Steps<'a> {
    done: usize,
    total: usize,
    tell: Progress<'a>,
}

impl Steps<'_> {
    /// So many steps beyond those that are done.
    fn show(&mut self, more: usize, what: &str) {
        (self.tell)(self.done + more, self.total, what);
    }

    /// Begins a step.
    fn step(&mut self, what: &str) {
        self.show(0, what);
        self.done += 1;
    }
}

/// A variant of the plan, from the costs by (segment, processor) and what is known of the measurement; `n` processors.
fn planned(
    variant: &Deployed,
    cost: &dyn Fn(usize, usize) -> Option<Cost>,
    measured: &dyn Fn(usize) -> Option<Measured>,
    n: usize,
) -> Variant {
    let segment = |(s, part): (usize, &Segment)| SegmentSpec {
        traffic_bytes: 0,
        name: segment_name(variant, s),
        input_bytes: part.input_bytes as u64,
        output_bytes: part.output_bytes as u64,
        costs: (0..n).map(|p| cost(s, p)).collect(),
    };
    Variant {
        weights: None,
        name: variant.model.name.clone(),
        task: variant.model.task.clone(),
        accuracy: variant.model.accuracy,
        memory_bytes: variant.memory_bytes() as u64,
        model: Some(variant.digest.clone()),
        measured: (0..n).map(measured).collect(),
        segments: variant.segments.iter().enumerate().map(segment).collect(),
    }
}

fn spec(deployment: &Deployment, p: usize, (active_watts, idle_watts): Watts) -> ProcessorSpec {
    let processor = &deployment.processors[p];
    // Every run of a segment brings its tensors in and out, so the copies are part of the measured latencies.
    ProcessorSpec {
        name: processor.name().into(),
        device: processor.device(),
        slots: 1,
        active_watts,
        idle_watts,
        copy_us: 0.0,
        copy_gbps: 0.0,
        launch_us: 0.0,
        crowd: None,
    }
}

fn provenance(
    deployment: &Deployment,
    options: &Options,
    drawn: &[Drawn],
    transfers: &[String],
) -> BTreeMap<String, String> {
    let runs = format!(
        "{} to {} runs of each segment, until the 95 % confidence interval of its mean is within {} % or the time is up",
        options.least_runs,
        options.most_runs,
        100.0 * options.within
    );
    let mut map = BTreeMap::from([
        ("measured by".into(), format!("cosched {}", env!("CARGO_PKG_VERSION"))),
        ("latency".into(), runs),
        ("launch".into(), "median of a hand-over to a sleeping thread and back".into()),
    ]);
    for ((p, drawn), transfer) in deployment.processors.iter().zip(drawn).zip(transfers) {
        map.insert(format!("processor {}", p.name()), p.device());
        map.insert(transfer::key(p.name()), transfer.clone());
        map.insert(power::key(p.name()), drawn.source.clone());
    }
    map
}

fn segment_name(variant: &Deployed, s: usize) -> String {
    let nodes = &variant.segments[s].graph.nodes;
    match (nodes.first(), nodes.last()) {
        (Some(first), Some(last)) => format!("{} .. {}", first.name, last.name),
        _ => format!("segment {s}"),
    }
}

/// Makes an instance of a prepared segment; `None` where it cannot run.
fn instance(variant: &Deployed, s: usize, p: usize) -> Result<Option<Box<dyn Instance>>, ExecError> {
    match &variant.prepared[s][p] {
        Ok(prepared) => prepared.spawn().map(Some),
        Err(_) => Ok(None),
    }
}

/// One run of a segment on a sample, in microseconds.
fn run_once(
    variant: &Deployed,
    s: usize,
    instance: &mut dyn Instance,
    sample: usize,
) -> Result<f64, ExecError> {
    let samples = &variant.segment_samples[s];
    let inputs: Vec<Held> = samples[sample % samples.len()].iter().cloned().map(Held::from).collect();
    let mut outputs = Vec::new();
    let start = Instant::now();
    instance.advance(&inputs, &[], &mut outputs, &Stop::default())?;
    Ok(start.elapsed().as_secs_f64() * 1e6)
}
