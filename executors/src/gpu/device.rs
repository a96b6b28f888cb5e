//! What both GPU processors share: input checks, and the way from the three verbs to a device. It refuses to know any driver.

use super::kernel::Spec;
use super::kernel::print::{Dialect, print};
use super::lower::{self, Plan, Source, Span, Target};
use crate::graph::{Graph, Node, Value};
use crate::processor::{ExecError, Instance, Prepared, Processor};
use crate::tensor::{Data, Tensor};
use std::sync::{Arc, Mutex};

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
}

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
}

impl<D: Device> Gpu<D> {
    /// A processor on an open device.
    pub fn new(device: D) -> Self {
        Self { device: Arc::new(device) }
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
        lower::supports(graph, node, self.device.target())
    }

    fn prepare(&self, segment: &Graph, _samples: &[Vec<Tensor>]) -> Result<Arc<dyn Prepared>, ExecError> {
        let plan = lower::lower(segment, self.device.target()).map_err(|(node, op, reason)| {
            ExecError::Unsupported { processor: D::NAME.to_string(), node, op, reason }
        })?;
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
