//! What both GPU processors share: input checks, and the way from the three verbs to a device. It refuses to know any driver.

use super::kernel::Spec;
use super::kernel::print::{Dialect, print};
use super::lower::choice::{Choice, Met};
use super::lower::{self, Plan, Source, Span, Target};
use super::tune;
use crate::graph::{Graph, Node, Value};
use crate::measure::cpu_ms;
use crate::processor::{ExecError, Instance, Prepared, Processor, StepTime};
use crate::tensor::{Data, Tensor};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

/// What a device can do wrong.
#[derive(Debug)]
pub enum Fault {
    /// This segment or this run failed.
    Failed(String),
    /// The device is gone.
    Died(String),
}

/// Changes the text of a kernel before it is compiled. Only tests have a use for it: they must reject a wrong kernel.
pub type Edit = fn(String) -> String;

/// One kernel interface.
pub trait Device: Send + Sync + 'static {
    /// Row of the processor table.
    const NAME: &'static str;
    /// A plan with its kernels compiled and its weights uploaded.
    type Segment: Send + Sync + 'static;
    /// Working memory for one run at a time.
    type Memory: Send + 'static;

    /// Device, driver and library versions.
    fn describe(&self) -> String;
    /// What the lowering must know.
    fn target(&self) -> &Target;
    /// The language of its kernels.
    fn dialect(&self) -> &'static dyn Dialect;
    /// Whether it computes on the CPU: then CPU time says more than wall time.
    fn software(&self) -> bool;
    /// Compiles and uploads.
    fn prepare(&self, plan: &Plan) -> Result<Self::Segment, Fault>;
    /// Allocates.
    fn spawn(&self, segment: &Self::Segment) -> Result<Self::Memory, Fault>;
    /// Uploads `inputs`, runs every step, reads `outputs` back in their order.
    fn run(
        &self,
        segment: &Self::Segment,
        memory: &mut Self::Memory,
        inputs: &[(Span, &[f32])],
        outputs: &[Span],
    ) -> Result<Vec<Vec<f32>>, Fault>;
    /// Submits step `step` so many times in one go and waits.
    fn repeat(
        &self,
        segment: &Self::Segment,
        memory: &mut Self::Memory,
        step: usize,
        times: usize,
    ) -> Result<(), Fault>;
}

/// Seconds of one step by itself: the least of some tries, each long enough that submitting does not count.
pub fn time_step<D: Device>(
    device: &D,
    segment: &D::Segment,
    memory: &mut D::Memory,
    step: usize,
) -> Result<f64, Fault> {
    let mut once = |times: usize| {
        let (start, cpu) = (Instant::now(), cpu_ms());
        device.repeat(segment, memory, step, times)?;
        let spent = (cpu_ms() - cpu) / 1e3;
        Ok(if device.software() && spent > 0.0 { spent } else { start.elapsed().as_secs_f64() })
    };
    once(1)?;
    let (one, few) = (once(1)?, once(4)?);
    let each = ((few - one) / 3.0).max(1e-6);
    let times = (TRY / each).clamp(2.0, 200.0) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        best = best.min((once(times + 1)? - one.min(once(1)?)) / times as f64);
    }
    Ok(best.max(0.0))
}

/// Seconds that a try of one step aims at.
const TRY: f64 = 4e-3;

/// The text of a kernel in `dialect`, with the edit of a test if there is one.
pub fn text(spec: &Spec, dialect: &dyn Dialect, edit: Option<Edit>) -> String {
    let text = print(&spec.build(), dialect);
    match edit {
        Some(edit) => edit(text),
        None => text,
    }
}

/// A GPU processor.
pub struct Gpu<D: Device> {
    device: Arc<D>,
    /// What the lowering must know, with the choices that were measured.
    target: RwLock<Target>,
    tune: bool,
}

impl<D: Device> Gpu<D> {
    /// A processor on an open device, without measured choices.
    pub fn new(device: D) -> Self {
        let target = RwLock::new(device.target().clone());
        Self { device: Arc::new(device), target, tune: false }
    }

    /// As [`Gpu::new`], with what was measured on this device before; where `tune` is true, what is missing is measured when it is met.
    pub fn tuned(device: D, tune: bool) -> Self {
        let tuned = Arc::new(tune::known(D::NAME, &device.describe()));
        let target = RwLock::new(Target { tuned, ..device.target().clone() });
        Self { device: Arc::new(device), target, tune }
    }

    /// The same device with these choices and no others: for tests of each of them.
    pub fn with_choices(&self, choices: BTreeMap<String, Choice>) -> Self {
        let target = Target { tuned: Arc::new(choices), ..self.device.target().clone() };
        Self { device: self.device.clone(), target: RwLock::new(target), tune: false }
    }

    /// The problems of `segment` that can be solved in several ways.
    ///
    /// # Errors
    /// The reason why it cannot be lowered.
    pub fn problems(&self, segment: &Graph) -> Result<Vec<Met>, String> {
        lower::lower(segment, &self.target())
            .map(|plan| plan.met)
            .map_err(|(node, _, why)| format!("{node}: {why}"))
    }

    /// The texts of the kernels of `segment`, before the edit of a test.
    ///
    /// # Errors
    /// The reason why it cannot be lowered.
    pub fn texts(&self, segment: &Graph) -> Result<Vec<String>, String> {
        let plan =
            lower::lower(segment, &self.target()).map_err(|(node, _, why)| format!("{node}: {why}"))?;
        Ok(plan.steps.iter().map(|s| text(&s.spec, self.device.dialect(), None)).collect())
    }

    fn target(&self) -> Target {
        self.target.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Measures what is not known yet of the problems of `plan`, and writes it down; `None` when there is nothing new.
    fn measured(&self, segment: &Graph, plan: &Plan) -> Result<Option<Target>, ExecError> {
        let mut target = self.target();
        let heard = &mut |problem: &str| tracing::info!("{}: measuring {problem}", D::NAME);
        let fresh = tune::tune(&*self.device, segment, &target, &plan.met, heard);
        let fresh = fresh.map_err(|f| failed::<D>(&segment.name, f))?;
        if fresh.is_empty() {
            return Ok(None);
        }
        let device = self.device.describe();
        if let Some(folder) = tune::folder()
            && let Err(problem) = tune::write(&tune::file(&folder, D::NAME, &device), &device, &fresh)
        {
            tracing::warn!("{problem}");
        }
        Arc::make_mut(&mut target.tuned).extend(fresh);
        *self.target.write().unwrap_or_else(PoisonError::into_inner) = target.clone();
        Ok(Some(target))
    }
}

fn failed<D: Device>(graph: &str, fault: Fault) -> ExecError {
    let processor = D::NAME.to_string();
    match fault {
        Fault::Failed(reason) => ExecError::Failed { processor, graph: graph.to_string(), reason },
        Fault::Died(reason) => ExecError::Died { processor, reason },
    }
}

impl<D: Device> Processor for Gpu<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn device(&self) -> String {
        self.device.describe()
    }

    fn supports(&self, graph: &Graph, node: &Node) -> Result<(), String> {
        lower::supports(graph, node, &self.target())
    }

    fn prepare(&self, segment: &Graph, _samples: &[Vec<Tensor>]) -> Result<Arc<dyn Prepared>, ExecError> {
        let lowered = |target: &Target| {
            lower::lower(segment, target).map_err(|(node, op, reason)| ExecError::Unsupported {
                processor: D::NAME.to_string(),
                node,
                op,
                reason,
            })
        };
        let mut plan = lowered(&self.target())?;
        if self.tune
            && let Some(target) = self.measured(segment, &plan)?
        {
            plan = lowered(&target)?;
        }
        let ready = self.device.prepare(&plan).map_err(|f| failed::<D>(&segment.name, f))?;
        // Drivers compile at the first launch: a run on whatever is in memory pays for that now. No kernel takes an index from
        // the arena, so that the contents do not matter.
        let first = self.device.spawn(&ready).and_then(|mut memory| {
            self.device.run(&ready, &mut memory, &[], &[])?;
            Ok(memory)
        });
        let first = first.map_err(|f| failed::<D>(&segment.name, f))?;
        let values =
            |ids: &[crate::graph::ValueId]| ids.iter().map(|id| segment.value(*id).clone()).collect();
        Ok(Arc::new(Ready {
            first: Mutex::new(Some(first)),
            shared: Arc::new(Shared {
                device: self.device.clone(),
                segment: ready,
                graph: segment.name.clone(),
                inputs: values(&segment.inputs),
                outputs: values(&segment.outputs),
                places: plan.inputs.clone(),
                sources: plan.outputs.clone(),
                bytes: plan.bytes(),
                steps: plan.steps.iter().map(|s| (s.node.clone(), s.spec, s.flops)).collect(),
            }),
        }))
    }
}

struct Shared<D: Device> {
    device: Arc<D>,
    segment: D::Segment,
    graph: String,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    places: Vec<Option<Span>>,
    sources: Vec<Source>,
    bytes: usize,
    /// Node, kernel and arithmetic of each step.
    steps: Vec<(String, Spec, u64)>,
}

struct Ready<D: Device> {
    /// The memory of the first run, for the first caller.
    first: Mutex<Option<D::Memory>>,
    shared: Arc<Shared<D>>,
}

impl<D: Device> Prepared for Ready<D> {
    fn spawn(&self) -> Result<Box<dyn Instance>, ExecError> {
        let shared = self.shared.clone();
        let first = self.first.lock().unwrap_or_else(|e| e.into_inner()).take();
        let memory = match first {
            Some(memory) => memory,
            None => shared.device.spawn(&shared.segment).map_err(|f| failed::<D>(&shared.graph, f))?,
        };
        Ok(Box::new(Working { shared, memory }))
    }

    fn memory_bytes(&self) -> usize {
        self.shared.bytes
    }
}

struct Working<D: Device> {
    shared: Arc<Shared<D>>,
    memory: D::Memory,
}

impl<D: Device> Instance for Working<D> {
    fn run(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, ExecError> {
        let shared = &*self.shared;
        check(shared, inputs)?;
        let mut uploads = Vec::with_capacity(inputs.len());
        for (tensor, place) in inputs.iter().zip(&shared.places) {
            if let (Some(span), Some(data)) = (place, tensor.as_f32()) {
                uploads.push((*span, data));
            }
        }
        let spans: Vec<Span> = shared
            .sources
            .iter()
            .filter_map(|s| match s {
                Source::Arena(span) => Some(*span),
                _ => None,
            })
            .collect();
        let read = shared.device.run(&shared.segment, &mut self.memory, &uploads, &spans);
        let mut read = read.map_err(|f| failed::<D>(&shared.graph, f))?.into_iter();
        let outputs = shared.sources.iter().zip(&shared.outputs).map(|(source, value)| match source {
            Source::Arena(_) => {
                let data = Data::F32(read.next().unwrap_or_default());
                Tensor { shape: value.shape.clone(), data }
            }
            Source::Input(i) => Tensor { shape: value.shape.clone(), data: inputs[*i].data.clone() },
            Source::Constant(tensor) => (**tensor).clone(),
        });
        Ok(outputs.collect())
    }

    fn steps(&mut self) -> Result<Vec<StepTime>, ExecError> {
        let shared = &*self.shared;
        let time = |(i, (node, spec, flops)): (usize, &(String, Spec, u64))| {
            let seconds = time_step(&*shared.device, &shared.segment, &mut self.memory, i);
            let us = 1e6 * seconds.map_err(|f| failed::<D>(&shared.graph, f))?;
            Ok(StepTime { node: node.clone(), kernel: format!("{spec:?}"), us, flops: *flops })
        };
        shared.steps.iter().enumerate().map(time).collect()
    }
}

fn check<D: Device>(shared: &Shared<D>, inputs: &[&Tensor]) -> Result<(), ExecError> {
    let wrong = |input: &str, expected: String, got: String| {
        Err(ExecError::Input { graph: shared.graph.clone(), input: input.to_string(), expected, got })
    };
    if inputs.len() != shared.inputs.len() {
        return wrong("(all)", format!("{} tensors", shared.inputs.len()), inputs.len().to_string());
    }
    for (tensor, value) in inputs.iter().zip(&shared.inputs) {
        if tensor.dtype() != value.dtype || tensor.shape != value.shape {
            let expected = format!("{} {:?}", value.dtype, value.shape);
            return wrong(&value.name, expected, format!("{} {:?}", tensor.dtype(), tensor.shape));
        }
    }
    Ok(())
}
