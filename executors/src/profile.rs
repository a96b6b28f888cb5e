//! Measures every segment on every processor, and how processors slow each other down: the plan.
//! It refuses to guess latencies; power is not measured and is marked as assumed in the plan's provenance.

use crate::deploy::{Deployed, Deployment};
use crate::held::Held;
use crate::processor::{ExecError, Instance};
use crate::segment::Segment;
use crate::stop::Stop;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use crossbeam::channel::{bounded, unbounded};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Runs of each segment before measuring.
    pub warm_up: usize,
    /// Fewest measured runs of each segment.
    pub least_runs: usize,
    /// Most measured runs of each segment.
    pub most_runs: usize,
    /// After so long for each segment no further runs are made (but the fewest are).
    pub budget: Duration,
    /// How long each ordered pair of processors runs together.
    pub pair: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { warm_up: 2, least_runs: 7, most_runs: 200, budget: ms(250), pair: ms(600) }
    }
}

/// Watts while running and while idle.
pub type Watts = (f64, f64);

/// Assumed power of a processor when the user says nothing: the order of magnitude of a phone-class device.
pub fn assumed_watts(processor: &str) -> Watts {
    match processor {
        "cpu" => (4.0, 0.4),
        "dsp" => (1.0, 0.1),
        _ => (3.0, 0.3),
    }
}

/// Measures a deployment. `watts` gives the power of a processor by name. `progress` is called with (done, of, what).
///
/// # Errors
/// When a segment fails while it is measured.
pub fn profile(
    deployment: &Deployment,
    options: &Options,
    watts: &dyn Fn(&str) -> Watts,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<Plan, ExecError> {
    let n = deployment.processors.len();
    let segments = deployment.variants.iter().map(|v| v.segments.len()).sum::<usize>();
    let total = (segments + n.saturating_sub(1)) * n;
    let mut done = 0;
    let mut costs = Vec::new();
    for (p, processor) in deployment.processors.iter().enumerate() {
        let name = processor.name();
        let mut shown = |share: f64| progress(done + (share * segments as f64) as usize, total, name);
        costs.push(measure(deployment, p, options, watts(name).0, &mut shown)?);
        done += segments;
    }
    let variants = deployment.variants.iter().enumerate();
    let variants =
        variants.map(|(v, variant)| planned(variant, &|s, p| costs[p].get(&(v, s)).copied(), n)).collect();
    let mut contention = vec![vec![1.0; n]; n];
    for (i, row) in contention.iter_mut().enumerate() {
        for (j, factor) in row.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            let names = (deployment.processors[i].name(), deployment.processors[j].name());
            progress(done, total, &format!("{} while {} runs", names.0, names.1));
            done += 1;
            *factor = slowdown(deployment, i, j, options)?;
        }
    }
    progress(total, total, "");
    let launch_us = hand_over_us();
    let processors = deployment
        .processors
        .iter()
        .zip(&deployment.slots)
        .map(|(p, &slots)| ProcessorSpec { slots, launch_us, ..spec(p.name(), p.device(), watts(p.name())) })
        .collect();
    let provenance = provenance(deployment);
    Ok(Plan { format: PLAN_FORMAT, provenance, processors, contention, variants })
}

/// A variant of the plan, from the costs by (segment, processor); `n` processors.
fn planned(variant: &Deployed, cost: &dyn Fn(usize, usize) -> Option<Cost>, n: usize) -> Variant {
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
        segments: variant.segments.iter().enumerate().map(segment).collect(),
    }
}

fn spec(name: &str, device: String, (active_watts, idle_watts): Watts) -> ProcessorSpec {
    // Every run of a segment brings its tensors in and out, so the copies are part of the measured latencies.
    ProcessorSpec {
        name: name.into(),
        device,
        slots: 1,
        active_watts,
        idle_watts,
        copy_us: 0.0,
        copy_gbps: 0.0,
        launch_us: 0.0,
    }
}

fn provenance(deployment: &Deployment) -> BTreeMap<String, String> {
    let mut map = BTreeMap::from([
        ("measured by".into(), format!("cosched {}", env!("CARGO_PKG_VERSION"))),
        ("power".into(), "assumed, not measured".into()),
        ("transfer".into(), "part of the measured latencies".into()),
        ("launch".into(), "median of a hand-over to a sleeping thread and back".into()),
    ]);
    for p in &deployment.processors {
        map.insert(format!("processor {}", p.name()), p.device());
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

/// Before each variant: a processor that is never left alone is throttled by some systems and seldom met live, and one that has slept for a
/// while is slower at first.
const PAUSE: Duration = Duration::from_millis(5);

/// Costs by (variant, segment) on one processor. All segments of all variants run in turn, as they do live, and not each one many times:
/// a small segment that only ever follows itself finds its weights in the caches and seems two or three times as fast as it will be.
fn measure(
    deployment: &Deployment,
    p: usize,
    options: &Options,
    watts: f64,
    progress: &mut dyn FnMut(f64),
) -> Result<BTreeMap<(usize, usize), Cost>, ExecError> {
    let mut parts = Vec::new();
    for (v, variant) in deployment.variants.iter().enumerate() {
        for s in 0..variant.segments.len() {
            if let Some(made) = instance(variant, s, p)? {
                parts.push(((v, s), variant, made, Vec::new()));
            }
        }
    }
    let budget = options.budget * parts.len() as u32;
    let mut begun = Instant::now();
    for round in 0..options.warm_up + options.most_runs {
        if round == options.warm_up {
            begun = Instant::now();
        }
        let spent = begun.elapsed();
        let measured = round.saturating_sub(options.warm_up);
        if measured >= options.least_runs && spent >= budget {
            break;
        }
        let share = measured as f64 / options.most_runs.max(1) as f64;
        progress(share.max(spent.as_secs_f64() / budget.as_secs_f64().max(1e-9)).min(1.0));
        let mut last = None;
        for ((v, s), variant, instance, times) in &mut parts {
            if last.replace(*v) != Some(*v) {
                std::thread::sleep(PAUSE);
            }
            let us = run_once(variant, *s, instance.as_mut(), round)?;
            if round >= options.warm_up {
                times.push(us);
            }
        }
    }
    Ok(parts.into_iter().map(|(at, _, _, times)| (at, cost(times, watts))).collect())
}

/// Median microseconds until work that is handed to a sleeping thread is known to be done: what a live launch costs beside its segments.
fn hand_over_us() -> f64 {
    const TIMES: usize = 51;
    let (job, jobs) = bounded::<()>(1);
    let (say, said) = unbounded::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || jobs.iter().try_for_each(|()| say.send(())));
        let once = |_| {
            // Both sides sleep for a while before, as they do between frames: a core that has just been busy wakes up sooner.
            std::thread::sleep(PAUSE);
            let start = Instant::now();
            let _ = job.send(());
            let _ = said.recv();
            start.elapsed().as_secs_f64() * 1e6
        };
        let mut times: Vec<f64> = (0..TIMES).map(once).collect();
        drop(job);
        times.sort_by(f64::total_cmp);
        times[TIMES / 2]
    })
}

/// Sums up latencies in microseconds (at least one). `watts` is the power while running.
fn cost(mut times: Vec<f64>, watts: f64) -> Cost {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    let mean_us = times.iter().sum::<f64>() / times.len() as f64;
    // Watts times microseconds are microjoules.
    Cost { mean_us, p50_us: at(0.5), p95_us: at(0.95), energy_mj: watts * mean_us / 1e3 }
}

/// The longest whole stretch that a processor can run: the variant with the most work there.
fn load_for(deployment: &Deployment, p: usize) -> Option<(&Deployed, Vec<usize>)> {
    let able = |v: &Deployed| (0..v.segments.len()).filter(|&s| v.prepared[s][p].is_ok()).collect::<Vec<_>>();
    let work = |v: &Deployed| able(v).iter().map(|&s| v.segments[s].flops).sum::<u64>();
    let variant = deployment.variants.iter().max_by_key(|v| work(v))?;
    let segments = able(variant);
    (!segments.is_empty()).then_some((variant, segments))
}

/// A repeatable piece of work for one processor.
struct Load<'a> {
    variant: &'a Deployed,
    parts: Vec<(usize, Box<dyn Instance>)>,
}

impl<'a> Load<'a> {
    fn new(deployment: &'a Deployment, p: usize) -> Result<Option<Load<'a>>, ExecError> {
        let Some((variant, segments)) = load_for(deployment, p) else { return Ok(None) };
        let mut parts = Vec::new();
        for s in segments {
            if let Some(made) = instance(variant, s, p)? {
                parts.push((s, made));
            }
        }
        Ok(Some(Load { variant, parts }))
    }

    /// Microseconds for all parts once.
    fn once(&mut self) -> Result<f64, ExecError> {
        let mut sum = 0.0;
        for (s, instance) in &mut self.parts {
            sum += run_once(self.variant, *s, instance.as_mut(), 0)?;
        }
        Ok(sum)
    }

    /// Mean microseconds over `time`, at least two runs.
    fn mean(&mut self, time: Duration) -> Result<f64, ExecError> {
        let begun = Instant::now();
        let (mut sum, mut runs) = (0.0, 0);
        while runs < 2 || begun.elapsed() < time {
            sum += self.once()?;
            runs += 1;
        }
        Ok(sum / f64::from(runs))
    }
}

/// Factor (at least 1) by which work on `i` slows while `j` is kept busy.
fn slowdown(deployment: &Deployment, i: usize, j: usize, options: &Options) -> Result<f64, ExecError> {
    let (Some(mut mine), Some(mut other)) = (Load::new(deployment, i)?, Load::new(deployment, j)?) else {
        return Ok(1.0);
    };
    mine.once()?;
    other.once()?;
    // Alone and together in turn, and the middle of three ratios: whatever else the machine does falls on both.
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let alone = mine.mean(options.pair / 6)?;
        ratios.push(while_busy(&mut other, || mine.mean(options.pair / 4))? / alone);
    }
    ratios.sort_by(f64::total_cmp);
    Ok(ratios[1].max(1.0))
}

/// Calls `measure` while another thread keeps `other` busy.
fn while_busy<T>(
    other: &mut Load<'_>,
    measure: impl FnOnce() -> Result<T, ExecError>,
) -> Result<T, ExecError> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| -> Result<(), ExecError> {
            while !stop.load(Ordering::Relaxed) {
                other.once()?;
            }
            Ok(())
        });
        let measured = measure();
        stop.store(true, Ordering::Relaxed);
        match busy.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        measured
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_by_hand() {
        let c = cost((1..=21).rev().map(f64::from).collect(), 2.0);
        assert_eq!((c.mean_us, c.p50_us, c.p95_us), (11.0, 11.0, 20.0));
        assert!((c.energy_mj - 0.022).abs() < 1e-12);
    }
}
