//! The `cpu` processor: a segment is one onnxruntime session an instance. It refuses nothing that the loader lets through, because the
//! loader has already asked onnxruntime. Its threads never spin, so that other processors keep the cores. Several processors of this kind
//! may share a machine, each with its own threads and cores.

use crate::affinity::{self, Pinned};
use crate::bound::{Bound, Fault};
use crate::energy::Supply;
use crate::graph::{Graph, Node, Value, ValueId};
use crate::held::{Held, Own, Shelf};
use crate::onnx::to_onnx;
use crate::processor::{ExecError, Instance, Options, Prepared, Processor, Row};
use crate::providers::Provider;
use crate::runtime::{self, SessionError};
use crate::stop::Stop;
use crate::tensor::{DType, Tensor};
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use std::sync::{Arc, Mutex, PoisonError};

/// Row of the table.
const NAME: &str = "cpu";

/// The `cpu` row.
pub const ROW: Row = Row { name: NAME, about: "the CPU, through onnxruntime", open };

/// A part of the CPU as a processor.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The processor's name.
    pub name: String,
    /// Intra-op threads, at least 1.
    pub threads: usize,
    /// Cores that they run on; none: wherever the system puts them.
    pub cores: Vec<usize>,
}

/// Opens the processor of the table.
///
/// # Errors
/// [`ExecError::Absent`] when onnxruntime is missing or too old.
pub fn open(options: &Options) -> Result<Arc<dyn Processor>, ExecError> {
    open_as(Settings { name: NAME.to_owned(), threads: options.cpu_threads.max(1), cores: Vec::new() })
}

/// Opens a part of the CPU.
///
/// # Errors
/// [`ExecError::Absent`] when onnxruntime is missing or too old, or a core is not there for this process.
pub fn open_as(settings: Settings) -> Result<Arc<dyn Processor>, ExecError> {
    let Settings { name, threads, mut cores } = settings;
    cores.sort_unstable();
    cores.dedup();
    let version = runtime::version().map_err(|e| ExecError::absent(&name, e.tried, runtime::HINT))?;
    let allowed = affinity::allowed();
    if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
        let reason = match allowed.is_empty() {
            true => "core sets are known on Linux only".to_owned(),
            false => format!("there is no core {core} for this process; there are {}", list(&allowed)),
        };
        return Err(ExecError::absent(&name, reason, "change or remove its `cores`"));
    }
    let on = if cores.is_empty() { String::new() } else { format!(" on core(s) {}", list(&cores)) };
    let device = format!("{}, onnxruntime {version}, {threads} thread(s){on}", model_name());
    let place = Place { name: name.into(), threads, cores: cores.into(), provider: None };
    Ok(Arc::new(Cpu { device, place }))
}

fn list(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// A processor that computes with another of onnxruntime's providers. `device` is what it says of itself.
pub(crate) fn with(provider: Provider, threads: usize, device: String) -> Arc<dyn Processor> {
    let place = Place { name: provider.name.into(), threads, cores: Arc::new([]), provider: Some(provider) };
    Arc::new(Cpu { device, place })
}

/// Prepares a whole graph for one caller, on one thread, with onnxruntime's default optimisations: what others are tested against.
///
/// # Errors
/// When onnxruntime is missing or refuses the graph.
pub fn reference(graph: &Graph) -> Result<Box<dyn Instance>, ExecError> {
    let place = Place { name: NAME.into(), threads: 1, cores: Arc::new([]), provider: None };
    Ok(Box::new(CpuInstance::new(graph, &place)?))
}

/// What the system calls the CPU.
pub(crate) fn model_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|l| l.strip_prefix("model name")).and_then(|l| l.split_once(':'));
    line.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Where and how sessions run.
#[derive(Clone)]
struct Place {
    /// The processor's name.
    name: Arc<str>,
    threads: usize,
    /// Ascending; none: anywhere.
    cores: Arc<[usize]>,
    /// `None`: onnxruntime's own CPU kernels.
    provider: Option<Provider>,
}

struct Cpu {
    device: String,
    place: Place,
}

impl Processor for Cpu {
    fn name(&self) -> &str {
        &self.place.name
    }

    fn cores(&self) -> &[usize] {
        &self.place.cores
    }

    fn device(&self) -> String {
        self.device.clone()
    }

    fn supply(&self) -> Supply {
        self.place.provider.as_ref().map_or(Supply::Package, Provider::supply)
    }

    fn supports(&self, _graph: &Graph, _node: &Node) -> Result<(), String> {
        Ok(())
    }

    fn prepare(&self, segment: &Graph, _samples: &[Vec<Tensor>]) -> Result<Arc<dyn Prepared>, ExecError> {
        // The first instance is made now, so that a refusal comes now.
        let first = CpuInstance::new(segment, &self.place)?;
        let memory = segment.constant_bytes() + peak_bytes(segment);
        Ok(Arc::new(CpuPrepared {
            segment: segment.clone(),
            place: self.place.clone(),
            memory,
            first: Mutex::new(Some(first)),
        }))
    }
}

/// The most bytes of node outputs that are alive at once when nodes run in order.
fn peak_bytes(graph: &Graph) -> usize {
    let mut last = vec![0usize; graph.values.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        for id in node.inputs.iter().chain(&node.outputs).flatten() {
            last[id.0 as usize] = i;
        }
    }
    for id in &graph.outputs {
        last[id.0 as usize] = usize::MAX;
    }
    let mut dying = vec![0usize; graph.nodes.len()];
    let (mut now, mut peak) = (0, 0);
    for (i, node) in graph.nodes.iter().enumerate() {
        for &id in node.outputs.iter().flatten() {
            let bytes = graph.value(id).bytes();
            now += bytes;
            if let Some(slot) = dying.get_mut(last[id.0 as usize]) {
                *slot += bytes;
            }
        }
        peak = peak.max(now);
        now -= dying[i];
    }
    peak
}

struct CpuPrepared {
    segment: Graph,
    place: Place,
    memory: usize,
    first: Mutex<Option<CpuInstance>>,
}

impl Prepared for CpuPrepared {
    fn spawn(&self) -> Result<Box<dyn Instance>, ExecError> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let instance = match first {
            Some(instance) => instance,
            None => CpuInstance::new(&self.segment, &self.place)?,
        };
        Ok(Box::new(instance))
    }

    fn memory_bytes(&self) -> usize {
        self.memory
    }
}

/// Where an output comes from. A graph may pass an input or a constant straight on; onnxruntime is not asked for those.
enum Source {
    Session(usize),
    Input(usize),
    Constant(Arc<Tensor>),
}

struct CpuInstance {
    place: Place,
    graph: String,
    /// `None` when there is nothing to compute.
    session: Option<Bound>,
    inputs: Vec<Value>,
    sources: Vec<Source>,
    /// What the session computes, and tensors for it.
    computed: Vec<(Value, Shelf<Tensor>)>,
    /// Those of the run, before and after.
    results: Vec<Own<Tensor>>,
    lent: Vec<Arc<Tensor>>,
}

impl CpuInstance {
    fn new(graph: &Graph, place: &Place) -> Result<Self, ExecError> {
        let mut computed: Vec<ValueId> = Vec::new();
        let mut source = |&id: &ValueId| {
            if let Some(i) = graph.inputs.iter().position(|&input| input == id) {
                return Source::Input(i);
            }
            if let Some(tensor) = graph.constant(id) {
                return Source::Constant(tensor.clone());
            }
            let i = computed.iter().position(|&c| c == id).unwrap_or_else(|| {
                computed.push(id);
                computed.len() - 1
            });
            Source::Session(i)
        };
        let sources = graph.outputs.iter().map(&mut source).collect();
        let values = |ids: &[ValueId]| ids.iter().map(|&id| graph.value(id).clone()).collect::<Vec<_>>();
        let (inputs, made) = (values(&graph.inputs), values(&computed));
        let session = match computed.is_empty() {
            true => None,
            false => {
                let session = session(&Graph { outputs: computed, ..graph.clone() }, place)?;
                let bound = Bound::new(session, &inputs, &made);
                Some(bound.map_err(|e| failed(&place.name, &graph.name, e))?)
            }
        };
        Ok(Self {
            place: place.clone(),
            graph: graph.name.clone(),
            session,
            inputs,
            sources,
            results: Vec::with_capacity(made.len()),
            lent: Vec::with_capacity(made.len()),
            computed: made.into_iter().map(|value| (value, Shelf::default())).collect(),
        })
    }
}

fn failed(processor: &str, graph: &str, e: impl std::fmt::Display) -> ExecError {
    ExecError::Failed { processor: processor.to_owned(), graph: graph.to_owned(), reason: e.to_string() }
}

/// A session for the graph, all optimisations on.
fn session(graph: &Graph, place: &Place) -> Result<Session, ExecError> {
    // onnxruntime starts its threads now: they inherit the cores of this one.
    let _pinned = pin(place, &graph.name)?;
    let tune = |builder: SessionBuilder| match place.provider {
        None => Ok(builder),
        // What the provider cannot compute must fail here, so that it falls back loudly, by segment.
        Some(p) => Ok(builder
            .with_config_entry("session.disable_cpu_ep_fallback", if p.theirs == CPU { "0" } else { "1" })?
            .with_execution_providers([(p.dispatch)()])?),
    };
    let made = runtime::session(&to_onnx(graph), place.threads, GraphOptimizationLevel::All, tune);
    made.map_err(|error| match error {
        SessionError::Absent(error) => ExecError::absent(&place.name, error.tried, runtime::HINT),
        SessionError::Refused(reason) => failed(&place.name, &graph.name, reason),
    })
}

fn pin(place: &Place, graph: &str) -> Result<Option<Pinned>, ExecError> {
    Pinned::to(&place.cores).map_err(|problem| failed(&place.name, graph, problem))
}

/// onnxruntime's name for its own CPU kernels.
const CPU: &str = "CPUExecutionProvider";

/// Checks that the inputs fit: number, types, shapes.
///
/// # Errors
/// [`ExecError::Input`] naming the first that does not.
pub(crate) fn check_inputs(graph: &str, expected: &[Value], inputs: &[Held]) -> Result<(), ExecError> {
    let wrong = |input: &str, expected: String, got: String| {
        Err(ExecError::Input { graph: graph.to_owned(), input: input.to_owned(), expected, got })
    };
    if inputs.len() != expected.len() {
        let names: Vec<&str> = expected.iter().map(|v| v.name.as_str()).collect();
        return wrong(&names.join(", "), format!("{} inputs", expected.len()), format!("{}", inputs.len()));
    }
    for (value, input) in expected.iter().zip(inputs) {
        let (dtype, shape) = input.form();
        if value.dtype != dtype || value.shape != shape {
            let shown = |dtype: DType, shape: &[usize]| format!("{dtype}{shape:?}");
            return wrong(&value.name, shown(value.dtype, &value.shape), shown(dtype, shape));
        }
        if let Some(tensor) = input.seen().filter(|tensor| tensor.data.bytes().len() != tensor.bytes()) {
            let got = format!("{} bytes of elements", tensor.data.bytes().len());
            return wrong(&value.name, format!("{} bytes of elements", tensor.bytes()), got);
        }
    }
    Ok(())
}

impl Instance for CpuInstance {
    fn advance(
        &mut self,
        inputs: &[Held],
        _: &[bool],
        outputs: &mut Vec<Held>,
        stop: &Stop,
    ) -> Result<(), ExecError> {
        check_inputs(&self.graph, &self.inputs, inputs)?;
        // The caller's thread computes too. A worker of this processor is there already.
        let _pinned = pin(&self.place, &self.graph)?;
        self.results.clear();
        if let Some(session) = &mut self.session {
            let room = |(value, shelf): &mut (Value, Shelf<Tensor>)| {
                shelf.take(|| Tensor::zeros(value.dtype, &value.shape))
            };
            self.results.extend(self.computed.iter_mut().map(room));
            let place = &*self.place.name;
            session.run(inputs, &mut self.results, stop).map_err(|fault| match fault {
                Fault::Stopped => ExecError::Stopped { processor: place.to_owned() },
                Fault::Failed(reason) => failed(place, &self.graph, reason),
                Fault::Input(error) => error,
            })?;
        }
        let shelves = self.computed.iter_mut().map(|(_, shelf)| shelf);
        self.lent.extend(self.results.drain(..).zip(shelves).map(|(result, shelf)| shelf.lend(result)));
        outputs.extend(self.sources.iter().map(|source| match source {
            Source::Input(i) => inputs[*i].clone(),
            Source::Constant(tensor) => Held::Host(tensor.clone()),
            Source::Session(slot) => Held::Host(self.lent[*slot].clone()),
        }));
        // What stays here would be held for ever.
        self.lent.clear();
        Ok(())
    }
}
