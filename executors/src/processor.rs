//! What a processor is, and the one table of them: a file a row. `open`, then three verbs for a segment: prepare, spawn, run.
//! A processor refuses nodes that it cannot run before anything is prepared; it never falls back in silence.

use crate::dsp::calibrate::Method;
use crate::dsp::pace::Pace;
use crate::energy::Supply;
use crate::graph::{Graph, Node};
use crate::held::{Held, Traffic};
use crate::stop::Stop;
use crate::tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why an executor could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The processor is not on this machine; `hint` says how to get it.
    #[error("processor `{processor}` is not available: {reason}; {hint}")]
    Absent {
        /// Row of the table.
        processor: String,
        /// What was missing.
        reason: String,
        /// What the user can do.
        hint: String,
    },
    /// A node cannot run here.
    #[error("processor `{processor}` cannot run node `{node}` ({op}): {reason}")]
    Unsupported {
        /// Row of the table.
        processor: String,
        /// Node name.
        node: String,
        /// Operator.
        op: String,
        /// Why not.
        reason: String,
    },
    /// An input does not fit the graph.
    #[error("input `{input}` of `{graph}`: expected {expected}, got {got}")]
    Input {
        /// Graph name.
        graph: String,
        /// Input name.
        input: String,
        /// Expected type and shape, or what is missing.
        expected: String,
        /// What was given.
        got: String,
    },
    /// Preparing or running failed below us.
    #[error("processor `{processor}` failed on `{graph}`: {reason}")]
    Failed {
        /// Row of the table.
        processor: String,
        /// Graph name.
        graph: String,
        /// What the driver or library said.
        reason: String,
    },
    /// The processor died (its process ended, the device was lost). It may come back.
    #[error("processor `{processor}` died: {reason}")]
    Died {
        /// Row of the table.
        processor: String,
        /// What was seen.
        reason: String,
    },
    /// The launch was stopped: nobody wants its answer any more.
    #[error("processor `{processor}` was stopped: nobody waits for the answer any more")]
    Stopped {
        /// Row of the table.
        processor: String,
    },
}

impl ExecError {
    /// A processor that is not here: what was missing, and what the user can do.
    pub(crate) fn absent(processor: &str, reason: String, hint: &str) -> ExecError {
        ExecError::Absent { processor: processor.to_owned(), reason, hint: hint.to_owned() }
    }
}

/// How a GPU processor stores tensors and weights. It computes in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Storage {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits: half the memory and the traffic, 11 bits of precision, nothing beyond 65,504.
    F16,
}

impl Storage {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Storage::F32 => 4,
            Storage::F16 => 2,
        }
    }

    /// What a device says of itself beside its name: another storage is another device to plans and tuning.
    pub(crate) fn of_device(self) -> &'static str {
        match self {
            Storage::F32 => "",
            Storage::F16 => ", stores f16",
        }
    }

    /// `f32` or `f16`.
    pub fn name(self) -> &'static str {
        match self {
            Storage::F32 => "f32",
            Storage::F16 => "f16",
        }
    }
}

impl std::str::FromStr for Storage {
    type Err = String;

    fn from_str(word: &str) -> Result<Storage, String> {
        let known = [Storage::F32, Storage::F16].into_iter().find(|storage| storage.name() == word);
        known.ok_or_else(|| format!("expected f32 or f16, got `{word}`"))
    }
}

/// How processors are opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Intra-op threads of the `cpu` processor.
    pub cpu_threads: usize,
    /// The command that starts a DSP worker process; empty: this executable with the argument `dsp-worker`.
    pub dsp_command: Vec<String>,
    /// How the DSP chooses the ranges of its int8 numbers.
    pub calibration: Method,
    /// The speed of the DSP that is emulated; as fast as it computes when `None`.
    pub pace: Option<Pace>,
    /// GPU processors measure which kernels are best where that is not known yet (seconds to minutes, once a device and model).
    pub tune: bool,
    /// How GPU processors store tensors and weights, by their names; f32 where they are not named.
    pub storage: BTreeMap<String, Storage>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cpu_threads: 1,
            dsp_command: Vec::new(),
            calibration: Method::default(),
            pace: None,
            tune: false,
            storage: BTreeMap::new(),
        }
    }
}

/// One unit that runs segments. Shared by all threads.
pub trait Processor: Send + Sync {
    /// Row of the table, e.g. `wgpu`, or what the app file calls it.
    fn name(&self) -> &str;

    /// Device, driver and library versions, for people and for invalidating plans.
    fn device(&self) -> String;

    /// The cores that its worker's thread runs on; none: wherever the system puts it.
    fn cores(&self) -> &[usize] {
        &[]
    }

    /// Whether `node` of `graph` can run here; the error says why not, for `inspect`.
    fn supports(&self, graph: &Graph, node: &Node) -> Result<(), String>;

    /// Compiles a segment whose nodes are all supported. Costly; done once. `samples` are example inputs of the segment
    /// (each a list in the order of `segment.inputs`), used where numbers must be calibrated (int8); may be empty elsewhere.
    fn prepare(&self, segment: &Graph, samples: &[Vec<Tensor>]) -> Result<Arc<dyn Prepared>, ExecError>;

    /// What feeds it, for whoever measures energy.
    fn supply(&self) -> Supply {
        Supply::Unseen
    }

    /// Tensors that went to and from the host since it was opened; none where it computes on the host's memory or does not count.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    /// Prepares a whole model, by the names of its task and variant; `None` where segments are run. What takes whole models supports no
    /// single node: [`Deployment`](crate::deploy::Deployment) makes another variant of the model that runs there only.
    fn prepare_whole(
        &self,
        task: &str,
        variant: &str,
        graph: &Graph,
    ) -> Option<Result<Arc<dyn Prepared>, ExecError>> {
        let _ = (task, variant, graph);
        None
    }
}

/// A compiled segment: weights uploaded, kernels built. Shared by all threads.
pub trait Prepared: Send + Sync {
    /// Makes the working memory for one run at a time.
    fn spawn(&self) -> Result<Box<dyn Instance>, ExecError>;

    /// Bytes that the prepared segment holds on the processor (weights and one instance's working memory).
    fn memory_bytes(&self) -> usize;
}

/// Working memory of a prepared segment: runs one launch at a time.
pub trait Instance: Send {
    /// Runs the segment: `inputs` in the order of the graph's inputs; the outputs come behind what is in `outputs`, in the order of
    /// the graph's. Inputs may lie anywhere; those that this processor made and still has are not brought to the host. An output
    /// may stay with the processor unless `home` says that it is wanted on the host (where `home` is shorter, it is). If all stay there
    /// they may still be in the making on return: whatever this processor does next comes after that, bringing one of them to the host
    /// included, and so does the news of a failure. When `stop` is stopped meanwhile, the run ends at the next operator or dispatch, as far
    /// as the processor can.
    ///
    /// # Errors
    /// When an input does not fit, the processor fails, or the run was stopped before its end; then nothing is added to `outputs`, and
    /// the next run is not touched by it.
    fn advance(
        &mut self,
        inputs: &[Held],
        home: &[bool],
        outputs: &mut Vec<Held>,
        stop: &Stop,
    ) -> Result<(), ExecError>;

    /// Waits until nothing that was begun here is in the making.
    ///
    /// # Errors
    /// When the processor fails.
    fn finish(&mut self) -> Result<(), ExecError> {
        Ok(())
    }

    /// Whether what it was prepared on is gone: the next run prepares it again, which takes its time.
    fn stale(&self) -> bool {
        false
    }

    /// As [`Instance::advance`], for callers with plain tensors: they are copied.
    ///
    /// # Errors
    /// As [`Instance::advance`].
    fn run(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, ExecError> {
        let inputs: Vec<Held> = inputs.iter().map(|&tensor| tensor.clone().into()).collect();
        let mut outputs = Vec::new();
        self.advance(&inputs, &[], &mut outputs, &Stop::default())?;
        outputs.iter().map(|held| held.host().map(|tensor| Tensor::clone(tensor))).collect()
    }

    /// Milliseconds of the last run that were work behind a queue; the rest of its time is the queue's price. `None` where there is no queue.
    fn busy_ms(&self) -> Option<f64> {
        None
    }

    /// Times each step by itself, on whatever is in memory; empty where steps are not ours.
    ///
    /// # Errors
    /// When the processor fails.
    fn steps(&mut self) -> Result<Vec<StepTime>, ExecError> {
        Ok(Vec::new())
    }
}

/// What one step of a prepared segment takes.
#[derive(Clone, Debug)]
pub struct StepTime {
    /// The node that it belongs to.
    pub node: String,
    /// The kernel.
    pub kernel: String,
    /// Microseconds.
    pub us: f64,
    /// Multiplications and additions in convolutions and matrix products; 0 elsewhere.
    pub flops: u64,
}

/// A row of the table.
pub struct Row {
    /// The word for the command line and files.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// Opens the processor on this machine.
    pub open: fn(&Options) -> Result<Arc<dyn Processor>, ExecError>,
}

/// Every processor that cosched knows. A new one is one file and one line here.
pub static TABLE: &[Row] =
    &[crate::cpu::ROW, crate::gpu::wgpu::ROW, crate::gpu::opencl::ROW, crate::dsp::ROW];

/// Every row that can be asked for by name: the table, and the providers of onnxruntime, which are opened only when they are named.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().chain(crate::providers::ROWS)
}

/// The row of a name.
pub fn row(name: &str) -> Option<&'static Row> {
    rows().find(|row| row.name == name)
}
