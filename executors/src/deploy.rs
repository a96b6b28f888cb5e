//! Models made ready for a set of processors: cut, checked for support, with sample inputs, every segment prepared wherever it can run.
//! It refuses to choose: what runs where is the scheduler's business.

use crate::chain::Chain;
use crate::cpu;
use crate::digest;
use crate::graph::{Graph, Node};
use crate::processor::{ExecError, Prepared, Processor};
use crate::segment::{CutOptions, Segment, cut};
use crate::tensor::{DType, Data, Tensor};
use cosched_env::streams::rng;
use rand::RngExt;
use std::sync::Arc;
use std::time::Instant;

/// A model that serves a task.
#[derive(Clone, PartialEq)]
pub struct Model {
    /// Name of the variant, unique.
    pub name: String,
    /// The task that it serves.
    pub task: String,
    /// Accuracy in (0, 1], by the task's own measure.
    pub accuracy: f64,
    /// The loaded graph.
    pub graph: Graph,
    /// Example inputs, each in the order of the graph's; random ones are made where there are none.
    pub samples: Samples,
}

/// Example inputs of a model.
pub type Samples = Arc<Vec<Vec<Tensor>>>;

/// A segment prepared on a processor, or why it is not.
pub type Preparation = Result<Arc<dyn Prepared>, String>;

/// One variant, ready to run.
#[derive(Clone)]
pub struct Deployed {
    /// The model.
    pub model: Model,
    /// Its segments, in order.
    pub segments: Vec<Segment>,
    /// How tensors flow between them.
    pub chain: Chain,
    /// Sample inputs of the model.
    pub samples: Samples,
    /// `[segment][sample]`: inputs of each segment for each sample, as the cpu computes them.
    pub segment_samples: Vec<Vec<Vec<Tensor>>>,
    /// `[segment][processor]`.
    pub prepared: Vec<Vec<Preparation>>,
    /// Likewise: milliseconds that preparing took.
    pub prepare_ms: Vec<Vec<f64>>,
    /// Digest of the model: what it computes and with which weights, whatever its names.
    pub digest: String,
    /// The only processor that runs it, where it is a whole model on a processor that takes nothing else.
    pub whole_on: Option<usize>,
}

/// Variants and processors.
pub struct Deployment {
    /// The processors, in plan order.
    pub processors: Vec<Arc<dyn Processor>>,
    /// The variants, in plan order.
    pub variants: Vec<Deployed>,
    /// Of each processor: how many launches run there at a time, each on a thread and in working memory of its own. One at first.
    pub slots: Vec<u32>,
    /// How they were cut.
    cut: CutOptions,
}

/// Name of the variant that is `variant` as a whole on `processor`.
pub fn whole_name(variant: &str, processor: &str) -> String {
    format!("{variant}@{processor}")
}

/// Random samples that calibrate int8 and feed the profile where the user gives none.
const SAMPLES: usize = 4;

/// How far preparing has come: segments done, of how many, and the next one's name.
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize, &str);

impl Deployment {
    /// Cuts and prepares `models` on `processors`. A segment that a processor refuses although it supports its nodes is left to
    /// the others, with a warning. After the models' own variants come those of whole models on processors that take such:
    /// [`whole_name`], in the order of models, then of processors.
    ///
    /// # Errors
    /// [`ExecError`] when a model does not even run on the CPU, or a segment runs nowhere.
    pub fn new(
        models: Vec<Model>,
        processors: Vec<Arc<dyn Processor>>,
        options: &CutOptions,
        progress: Progress<'_>,
    ) -> Result<Deployment, ExecError> {
        Deployment::again(None, models, processors, options, progress)
    }

    /// As [`Deployment::new`]; what is the same in `previous` (graph, samples, cut, all processors) is taken over and not prepared again.
    ///
    /// # Errors
    /// As [`Deployment::new`].
    pub fn again(
        previous: Option<&Deployment>,
        models: Vec<Model>,
        processors: Vec<Arc<dyn Processor>>,
        options: &CutOptions,
        progress: Progress<'_>,
    ) -> Result<Deployment, ExecError> {
        let previous = previous.filter(|p| p.cut == *options && same(&p.processors, &processors));
        let mut variants = Vec::new();
        for model in models {
            let known = previous.and_then(|p| {
                let same = |v: &&Deployed| v.model.graph == model.graph && v.model.samples == model.samples;
                p.variants.iter().filter(|v| v.whole_on.is_none()).find(same)
            });
            variants.push(match known {
                Some(known) => Deployed { model, ..known.clone() },
                None => Deployed::cut(model, &processors, options)?,
            });
        }
        let fresh = |v: &Deployed| v.prepared.iter().any(Vec::is_empty);
        let total = variants.iter().filter(|v| fresh(v)).map(|v| v.segments.len()).sum::<usize>();
        let (mut done, total) = (0, total * processors.len());
        for variant in variants.iter_mut().filter(|v| fresh(v)) {
            for s in 0..variant.segments.len() {
                for (p, processor) in processors.iter().enumerate() {
                    progress(
                        done,
                        total,
                        &format!("{} segment {s} on {}", variant.model.name, processor.name()),
                    );
                    done += 1;
                    let begun = Instant::now();
                    let made = variant.prepare(s, p, processor.as_ref());
                    variant.prepared[s].push(made);
                    variant.prepare_ms[s].push(begun.elapsed().as_secs_f64() * 1e3);
                }
                variant.check_runs_somewhere(s)?;
            }
        }
        progress(total, total, "");
        variants.extend(whole(previous, &variants, &processors)?);
        let slots = vec![1; processors.len()];
        Ok(Deployment { processors, variants, slots, cut: *options })
    }

    /// The same with those variants only that `keep` says.
    pub fn only(&self, keep: &dyn Fn(&Deployed) -> bool) -> Deployment {
        let variants = self.variants.iter().filter(|v| keep(v)).cloned().collect();
        let (processors, slots) = (self.processors.clone(), self.slots.clone());
        Deployment { processors, variants, slots, cut: self.cut }
    }
}

/// The variants of whole models on processors that take such.
fn whole(
    previous: Option<&Deployment>,
    variants: &[Deployed],
    processors: &[Arc<dyn Processor>],
) -> Result<Vec<Deployed>, ExecError> {
    let mut made = Vec::new();
    for model in variants.iter().map(|v| &v.model) {
        for (p, processor) in processors.iter().enumerate() {
            let known = previous.and_then(|previous| {
                let same = |v: &&Deployed| {
                    v.whole_on == Some(p) && v.model.graph == model.graph && v.model.samples == model.samples
                };
                previous.variants.iter().find(same)
            });
            let name = whole_name(&model.name, processor.name());
            if let Some(known) = known {
                made.push(Deployed { model: Model { name, ..model.clone() }, ..known.clone() });
                continue;
            }
            let begun = Instant::now();
            match processor.prepare_whole(&model.task, &model.name, &model.graph) {
                None => {}
                Some(Err(error)) => tracing::warn!("{} is not offloaded: {error}", model.name),
                Some(Ok(prepared)) => {
                    let model = Model { name, ..model.clone() };
                    let mut whole = Deployed::whole(model, p, prepared, processors)?;
                    whole.prepare_ms[0][p] = begun.elapsed().as_secs_f64() * 1e3;
                    made.push(whole);
                }
            }
        }
    }
    Ok(made)
}

/// Whether these are the very same processors.
fn same(a: &[Arc<dyn Processor>], b: &[Arc<dyn Processor>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}

impl Deployed {
    fn cut(
        model: Model,
        processors: &[Arc<dyn Processor>],
        options: &CutOptions,
    ) -> Result<Deployed, ExecError> {
        let supports = |node: &Node| {
            let able = processors.iter().enumerate().filter(|(_, p)| p.supports(&model.graph, node).is_ok());
            able.fold(0_u64, |mask, (i, _)| mask | 1 << i)
        };
        let segments = cut(&model.graph, &supports, options);
        Deployed::of(model, segments)
    }

    /// A model in one segment that `prepared` runs on processor `on`, and nothing else does.
    fn whole(
        model: Model,
        on: usize,
        prepared: Arc<dyn Prepared>,
        processors: &[Arc<dyn Processor>],
    ) -> Result<Deployed, ExecError> {
        let one = CutOptions { max_segments: 1, min_share: 0.0 };
        let segments = cut(&model.graph, &|_| 1 << on, &one);
        let mut whole = Deployed::of(model, segments)?;
        let elsewhere = || Err(format!("only {} runs it, as a whole", processors[on].name()));
        whole.prepared = vec![processors.iter().map(|_| elsewhere()).collect()];
        whole.prepared[0][on] = Ok(prepared);
        whole.prepare_ms = vec![vec![0.0; processors.len()]];
        whole.whole_on = Some(on);
        Ok(whole)
    }

    fn of(model: Model, segments: Vec<Segment>) -> Result<Deployed, ExecError> {
        let chain = Chain::new(&model.graph, &segments);
        let random = || Arc::new((0..SAMPLES as u64).map(|i| sample_inputs(&model.graph, i)).collect());
        let samples = if model.samples.is_empty() { random() } else { model.samples.clone() };
        let segment_samples = run_samples(&chain, &segments, &samples)?;
        let prepared = segments.iter().map(|_| Vec::new()).collect();
        let prepare_ms = segments.iter().map(|_| Vec::new()).collect();
        let digest = digest::of(&model.graph);
        let whole_on = None;
        Ok(Deployed {
            model,
            segments,
            chain,
            samples,
            segment_samples,
            prepared,
            prepare_ms,
            digest,
            whole_on,
        })
    }

    /// Inputs of a segment, for a run whose answer nobody wants.
    pub fn sample(&self, segment: usize) -> Vec<&Tensor> {
        self.segment_samples[segment][0].iter().collect()
    }

    fn prepare(&self, segment: usize, index: usize, processor: &dyn Processor) -> Preparation {
        let part = &self.segments[segment];
        if part.supported & (1 << index) == 0 {
            let refusal =
                part.graph.nodes.iter().find_map(|n| processor.supports(&self.model.graph, n).err());
            return Err(refusal.unwrap_or_else(|| "an operator is not supported".into()));
        }
        processor.prepare(&part.graph, &self.segment_samples[segment]).map_err(|error| {
            tracing::warn!(
                "{} segment {segment} falls back from {}: {error}",
                self.model.name,
                processor.name()
            );
            error.to_string()
        })
    }

    fn check_runs_somewhere(&self, segment: usize) -> Result<(), ExecError> {
        if self.prepared[segment].iter().any(Result::is_ok) {
            return Ok(());
        }
        let reasons: Vec<_> =
            self.prepared[segment].iter().filter_map(|p| p.as_ref().err().cloned()).collect();
        Err(ExecError::Failed {
            processor: "any".into(),
            graph: format!("{} segment {segment}", self.model.name),
            reason: format!("no processor can run it: {}", reasons.join("; ")),
        })
    }

    /// Bytes that the variant holds when its segments are loaded where they are largest.
    pub fn memory_bytes(&self) -> usize {
        let largest =
            |row: &Vec<Preparation>| row.iter().flatten().map(|p| p.memory_bytes()).max().unwrap_or(0);
        self.prepared.iter().map(largest).sum()
    }
}

/// Random inputs that fit a graph: standard normal floats (what image and feature normalisation aims at), small integers.
pub fn sample_inputs(graph: &Graph, index: u64) -> Vec<Tensor> {
    let mut random = rng(index, "samples", 0);
    let value = |id: &crate::graph::ValueId| {
        let v = graph.value(*id);
        let n = v.shape.iter().product::<usize>();
        let mut normal = || rand_distr::Distribution::sample(&rand_distr::StandardNormal, &mut random);
        let data = match v.dtype {
            DType::F32 => Data::F32((0..n).map(|_| normal()).collect()),
            DType::F64 => Data::F64((0..n).map(|_| f64::from(normal())).collect()),
            DType::F16 => Data::F16(vec![0; n]),
            DType::I64 => Data::I64((0..n).map(|_| random.random_range(0..8)).collect()),
            DType::I32 => Data::I32((0..n).map(|_| random.random_range(0..8)).collect()),
            DType::U8 => Data::U8((0..n).map(|_| random.random()).collect()),
            DType::I8 => Data::I8((0..n).map(|_| random.random_range(-127..127)).collect()),
            DType::Bool => Data::Bool((0..n).map(|_| random.random_range(0..2)).collect()),
        };
        Tensor { shape: v.shape.clone(), data }
    };
    graph.inputs.iter().map(value).collect()
}

/// What each segment reads for each sample, computed on the CPU.
fn run_samples(
    chain: &Chain,
    segments: &[Segment],
    samples: &[Vec<Tensor>],
) -> Result<Vec<Vec<Vec<Tensor>>>, ExecError> {
    let mut instances = Vec::new();
    for segment in segments {
        instances.push(cpu::reference(&segment.graph)?);
    }
    let mut seen = vec![Vec::new(); segments.len()];
    for sample in samples {
        let mut values = chain.start(sample.iter().cloned().map(Arc::new).collect())?;
        for (s, instance) in instances.iter_mut().enumerate() {
            let inputs = chain.inputs(&values, s)?;
            let outputs = instance.run(&inputs)?;
            seen[s].push(inputs.into_iter().cloned().collect());
            chain.finish(&mut values, s, outputs)?;
        }
    }
    Ok(seen)
}
