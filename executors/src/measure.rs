//! Times whole networks on processors and on plain onnxruntime in alternating order, and each step of a network by itself.
//! It refuses single numbers: medians of interleaved rounds, wall and CPU time, because other work shares the machine.

use crate::beside::Beside;
use crate::deploy::sample_inputs;
use crate::dsp;
use crate::dsp::calibrate::Method;
use crate::graph::Graph;
use crate::held::Held;
use crate::in_segments::InSegments;
use crate::onnx::to_onnx;
use crate::processor::{ExecError, Instance, Processor, StepTime};
use crate::runtime;
use crate::stop::Stop;
use crate::tensor::Tensor;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Row of plain onnxruntime in the results.
pub const PLAIN: &str = "onnxruntime";
/// Row of plain onnxruntime on the network as the dsp runs it: the same int8 numbers, called directly.
pub const PLAIN_INT8: &str = "onnxruntime int8";

/// Medians of one network on one engine, in milliseconds.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Timed {
    /// The processor, or [`PLAIN`].
    pub engine: String,
    /// From the call to the results.
    pub wall_ms: f64,
    /// CPU time of all threads of the process that computes, which for software devices is the work itself.
    pub cpu_ms: f64,
    /// Of the wall time, what was work behind a queue: the rest is the price of that queue. `None` where there is no queue.
    pub busy_ms: Option<f64>,
    /// Preparing, in milliseconds.
    pub prepare_ms: f64,
    /// Largest difference from plain onnxruntime, relative to the largest of its results; NaN where a result holds NaN.
    #[serde(deserialize_with = "or_nan")]
    pub error: f64,
}

/// JSON has no NaN: it is written as nothing.
fn or_nan<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(<Option<f64> as serde::Deserialize>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// What one run took, in milliseconds; see [`Timed`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Spent {
    pub wall_ms: f64,
    pub cpu_ms: f64,
    pub busy_ms: Option<f64>,
}

/// One network that is timed.
pub trait Engine {
    /// Runs once.
    ///
    /// # Errors
    /// When the engine fails.
    fn run(&mut self) -> Result<Vec<Arc<Tensor>>, ExecError>;
    /// Runs once and says what it took.
    ///
    /// # Errors
    /// When the engine fails.
    fn timed(&mut self) -> Result<Spent, ExecError> {
        let (start, before) = (Instant::now(), cpu_ms());
        self.run()?;
        let wall_ms = start.elapsed().as_secs_f64() * 1e3;
        Ok(Spent { wall_ms, cpu_ms: cpu_ms() - before, busy_ms: None })
    }
    /// The steps one by one; empty where the engine is closed.
    ///
    /// # Errors
    /// When the engine fails.
    fn steps(&mut self) -> Result<Vec<StepTime>, ExecError> {
        Ok(Vec::new())
    }
}

struct OnProcessor {
    instance: Box<dyn Instance>,
    inputs: Vec<Held>,
}

impl Engine for OnProcessor {
    fn run(&mut self) -> Result<Vec<Arc<Tensor>>, ExecError> {
        let mut outputs = Vec::new();
        self.instance.advance(&self.inputs, &[], &mut outputs, &Stop::default())?;
        outputs.iter().map(|held| held.host().cloned()).collect()
    }
    fn timed(&mut self) -> Result<Spent, ExecError> {
        let (start, before) = (Instant::now(), cpu_ms());
        self.run()?;
        let (wall_ms, own) = (start.elapsed().as_secs_f64() * 1e3, cpu_ms() - before);
        let busy_ms = self.instance.busy_ms();
        // What is computed behind a queue is computed by another process.
        Ok(Spent { wall_ms, cpu_ms: own + busy_ms.unwrap_or(0.0), busy_ms })
    }
    fn steps(&mut self) -> Result<Vec<StepTime>, ExecError> {
        self.instance.steps()
    }
}

/// onnxruntime called as its own documentation does, on the whole model.
struct Plain {
    session: Session,
    names: Vec<String>,
    inputs: Vec<Tensor>,
    graph: String,
}

impl Plain {
    fn open(graph: &Graph, inputs: &[Tensor], threads: usize) -> Result<Plain, ExecError> {
        let names = graph.inputs.iter().map(|&id| graph.value(id).name.clone()).collect();
        let session = runtime::session(&to_onnx(graph), threads, GraphOptimizationLevel::All, Ok);
        let session = session.map_err(|e| Self::failed(&graph.name, e.to_string()))?;
        Ok(Plain { session, names, inputs: inputs.to_vec(), graph: graph.name.clone() })
    }

    fn failed(graph: &str, reason: String) -> ExecError {
        ExecError::Failed { processor: PLAIN.into(), graph: graph.to_owned(), reason }
    }
}

impl Engine for Plain {
    fn run(&mut self) -> Result<Vec<Arc<Tensor>>, ExecError> {
        let failed = |e: ort::Error| Self::failed(&self.graph, e.to_string());
        let mut values = Vec::with_capacity(self.inputs.len());
        for (name, tensor) in self.names.iter().zip(&self.inputs) {
            let data = tensor.as_f32().unwrap_or_default();
            let value = TensorRef::from_array_view((tensor.shape.clone(), data)).map_err(failed)?;
            values.push((name.as_str(), value));
        }
        let outputs = self.session.run(values).map_err(failed)?;
        let mut all = Vec::with_capacity(outputs.len());
        for (_, value) in outputs.iter() {
            let (shape, data) = value.try_extract_tensor::<f32>().map_err(failed)?;
            let shape: Vec<usize> = shape.iter().map(|&d| d.max(0) as usize).collect();
            all.push(Arc::new(Tensor::f32(&shape, data.to_vec())));
        }
        Ok(all)
    }
}

/// Row of a processor that runs a network in so many segments.
pub fn cut_name(processor: &str, segments: usize) -> String {
    format!("{processor}/{segments}")
}

/// A network on all engines.
pub struct Contest {
    engines: Vec<(String, f64, Box<dyn Engine>)>,
}

impl Contest {
    /// Prepares `graph`, whose inputs must be f32, on plain onnxruntime with `threads` threads and on each processor that supports all of it.
    ///
    /// # Errors
    /// When an engine refuses what it said that it supports.
    pub fn new(
        graph: &Graph,
        processors: &[Arc<dyn Processor>],
        threads: usize,
    ) -> Result<Contest, ExecError> {
        let inputs = sample_inputs(graph, 0);
        let mut contest = Contest { engines: Vec::new() };
        contest.add(PLAIN, || Plain::open(graph, &inputs, threads))?;
        for processor in processors {
            if let Some(reason) = graph.nodes.iter().find_map(|n| processor.supports(graph, n).err()) {
                tracing::warn!("{} does not run whole on {}: {reason}", graph.name, processor.name());
                continue;
            }
            let samples = std::slice::from_ref(&inputs);
            if processor.name() == dsp::ROW.name {
                contest.add(PLAIN_INT8, || {
                    let form = dsp::quantise_segment(graph, samples, Method::default())?;
                    Plain::open(&form, &inputs, threads)
                })?;
            }
            contest.add(processor.name(), || {
                let instance = processor.prepare(graph, samples)?.spawn()?;
                Ok(OnProcessor { instance, inputs: inputs.iter().cloned().map(Held::from).collect() })
            })?;
        }
        Ok(contest)
    }

    fn add<E: Engine + 'static>(
        &mut self,
        name: &str,
        open: impl FnOnce() -> Result<E, ExecError>,
    ) -> Result<(), ExecError> {
        let begun = Instant::now();
        let engine = Box::new(open()?);
        self.engines.push((name.to_owned(), begun.elapsed().as_secs_f64() * 1e3, engine));
        Ok(())
    }

    /// Adds the engines of another program; the reason when it refuses the network.
    ///
    /// # Errors
    /// As [`Beside::open`].
    pub fn add_beside(&mut self, graph: &Graph, beside: &Arc<Beside>) -> Result<Option<String>, ExecError> {
        let begun = Instant::now();
        let opened = match beside.open(graph, &sample_inputs(graph, 0))? {
            Ok(opened) => opened,
            Err(reason) => return Ok(Some(reason)),
        };
        let spent = begun.elapsed().as_secs_f64() * 1e3;
        let boxed = |(name, engine)| (name, spent, Box::new(engine) as Box<dyn Engine>);
        self.engines.extend(opened.into_iter().map(boxed));
        Ok(None)
    }

    /// Adds `graph` in `most` segments on each processor that supports all of it, under the name [`cut_name`].
    ///
    /// # Errors
    /// As [`Contest::new`].
    pub fn add_cut(
        &mut self,
        graph: &Graph,
        processors: &[Arc<dyn Processor>],
        most: usize,
    ) -> Result<(), ExecError> {
        let inputs = sample_inputs(graph, 0);
        for processor in
            processors.iter().filter(|p| graph.nodes.iter().all(|n| p.supports(graph, n).is_ok()))
        {
            let begun = Instant::now();
            let engine = InSegments::new(graph, &**processor, most, &inputs)?;
            let name = cut_name(processor.name(), engine.segments());
            self.engines.push((name, begun.elapsed().as_secs_f64() * 1e3, Box::new(engine)));
        }
        Ok(())
    }

    /// Runs every engine in turn, `rounds` times after two that warm up, or until `budget` is spent (three rounds at least).
    ///
    /// # Errors
    /// When an engine fails.
    pub fn time(&mut self, rounds: usize, budget: Duration) -> Result<Vec<Timed>, ExecError> {
        let mut times: Vec<Vec<Spent>> = vec![Vec::new(); self.engines.len()];
        let mut results = Vec::new();
        for (_, _, engine) in &mut self.engines {
            results.push(engine.run()?);
            engine.run()?;
        }
        let begun = Instant::now();
        for round in 0..rounds {
            if round >= 3 && begun.elapsed() > budget {
                break;
            }
            for ((_, _, engine), times) in self.engines.iter_mut().zip(&mut times) {
                times.push(engine.timed()?);
            }
        }
        let mut rows = Vec::new();
        for ((engine, times), got) in self.engines.iter().zip(times).zip(&results) {
            let busy: Vec<f64> = times.iter().filter_map(|t| t.busy_ms).collect();
            rows.push(Timed {
                engine: engine.0.clone(),
                wall_ms: median(times.iter().map(|t| t.wall_ms).collect()),
                cpu_ms: median(times.iter().map(|t| t.cpu_ms).collect()),
                busy_ms: (!busy.is_empty()).then(|| median(busy)),
                prepare_ms: engine.1,
                error: error(got, &results[0]),
            });
        }
        Ok(rows)
    }

    /// Each step of the network on each engine that can tell, by engine.
    ///
    /// # Errors
    /// When an engine fails.
    pub fn steps(&mut self) -> Result<Vec<(String, Vec<StepTime>)>, ExecError> {
        let mut all = Vec::new();
        for (name, _, engine) in &mut self.engines {
            let steps = engine.steps()?;
            if !steps.is_empty() {
                all.push((name.clone(), steps));
            }
        }
        Ok(all)
    }
}

/// The middle one; 0 of none.
pub fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

fn error(got: &[Arc<Tensor>], want: &[Arc<Tensor>]) -> f64 {
    let mut worst: f64 = 0.0;
    for (got, want) in got.iter().zip(want) {
        let (got, want) = (got.as_f32().unwrap_or_default(), want.as_f32().unwrap_or_default());
        if got.len() != want.len() {
            return f64::INFINITY;
        }
        let size = want.iter().fold(1e-20f32, |m, v| m.max(v.abs()));
        let off =
            got.iter().zip(want).fold(0.0f32, |m, (a, b)| if (a - b).abs() <= m { m } else { (a - b).abs() });
        let off = f64::from(off / size);
        // A NaN must not hide behind `max`.
        worst = if off.is_nan() || worst.is_nan() { f64::NAN } else { worst.max(off) };
    }
    worst
}

/// CPU time of this process so far, all threads, in milliseconds; 0 where the system does not tell.
#[cfg(target_os = "linux")]
pub fn cpu_ms() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// Other systems: not asked.
#[cfg(not(target_os = "linux"))]
pub fn cpu_ms() -> f64 {
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_and_a_median_by_hand() {
        let t = |v: &[f32]| vec![Arc::new(Tensor::f32(&[v.len()], v.to_vec()))];
        assert_eq!(error(&t(&[1.0, 2.0]), &t(&[1.0, 4.0])), 0.5);
        assert!(error(&t(&[1.0, f32::NAN]), &t(&[1.0, 4.0])).is_nan());
        assert_eq!(error(&t(&[1.0]), &t(&[1.0, 4.0])), f64::INFINITY);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}
