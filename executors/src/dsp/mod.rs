//! The `dsp` processor: a shim that runs int8 arithmetic in a process of its own behind a shared-memory queue, as a real DSP's RPC does.
//! It refuses operators that such DSPs lack and to guess ranges without samples; the death of its process is a failed launch,
//! never a crash, and the next one finds a new process.
//!
//! The way of a segment: [`ops::supports`] says yes to each node; `prepare` folds batch normalisations, calibrates on the samples, rewrites
//! the segment into QDQ form and gives it to the worker; `spawn` makes shared memory for the tensors and binds it there; `run` copies the inputs
//! in, posts one message, and copies the outputs out. The DSP has one slot: runs of all threads queue up.
//!
//! Fidelity: numbers are those of onnxruntime's int8 kernels with u8 activations and s8 weights. On x86 processors without VNNI
//! weights have 7 bits instead of 8, because sums there saturate at 16 bits.

pub mod area;
pub mod calibrate;
pub mod client;
pub mod connection;
pub mod fold;
pub mod numbers;
pub mod ops;
pub mod quantise;
pub mod queue;
pub mod wire;
mod worker;

use crate::cpu;
use crate::energy::Supply;
use crate::graph::{Graph, Node, ValueId};
use crate::held::{Held, hosts};
use crate::processor::{ExecError, Instance, Options, Prepared, Processor, Row};
use crate::stop::Stop;
use crate::tensor::{Data, Tensor};
use client::{Client, Loaded, Seat};
use connection::CallError;
pub use connection::Limits;
use std::sync::Arc;
pub use worker::{EXIT_VERSION, worker_main};

const NAME: &str = "dsp";

/// The `dsp` row.
pub const ROW: Row = Row {
    name: NAME,
    about: "a DSP shim: int8 arithmetic in a process of its own behind a shared-memory queue",
    open,
};

/// The DSP shim with its worker process. Shared by all threads.
pub struct Dsp {
    client: Arc<Client>,
    device: String,
}

/// Opens the processor for the table: starts the worker.
///
/// # Errors
/// [`ExecError::Absent`] when onnxruntime or the worker cannot be started.
pub fn open(options: &Options) -> Result<Arc<dyn Processor>, ExecError> {
    Ok(Arc::new(Dsp::open(options, Limits::default())?))
}

impl Dsp {
    /// Opens the processor with waiting times of one's own.
    ///
    /// # Errors
    /// [`ExecError::Absent`] when onnxruntime or the worker cannot be started.
    pub fn open(options: &Options, limits: Limits) -> Result<Self, ExecError> {
        let absent = |reason: String, hint: &str| ExecError::Absent {
            processor: NAME.into(),
            reason,
            hint: hint.into(),
        };
        let version = crate::runtime::version()
            .map_err(|e| absent(e.to_string(), "the DSP shim computes with onnxruntime's int8 kernels"))?;
        let mut command = options.dsp_command.clone();
        if command.is_empty() {
            let exe = std::env::current_exe().map_err(|e| {
                absent(format!("this program's file is unknown ({e})"), "set the DSP command")
            })?;
            command = vec![exe.to_string_lossy().into_owned(), "dsp-worker".into()];
        }
        let words = command.join(" ");
        let client = Client::open(command, limits).map_err(|e| {
            let reason = match e {
                CallError::Failed(reason) | CallError::Died(reason) => reason,
                CallError::Stopped => "it was stopped".to_owned(),
            };
            absent(reason, &format!("the DSP worker is started with `{words} <queue>`"))
        })?;
        let bits = if numbers::weight_limit() > 100.0 { 8 } else { 7 };
        let device = format!(
            "int8 shim of cosched {} (u8 activations, s8 weights of {bits} bits, queue version {}) on {}, onnxruntime {version}",
            env!("CARGO_PKG_VERSION"),
            queue::VERSION,
            cpu::model_name()
        );
        Ok(Self { client: Arc::new(client), device })
    }

    /// Process id of the worker, if one lives now.
    pub fn worker_pid(&self) -> Option<u32> {
        self.client.worker_pid()
    }

    /// How often the worker was restarted.
    pub fn restarts(&self) -> u64 {
        self.client.restarts()
    }

    /// As [`Processor::prepare`], with the concrete type.
    ///
    /// # Errors
    /// As [`Processor::prepare`].
    pub fn prepare_segment(&self, segment: &Graph, samples: &[Vec<Tensor>]) -> Result<DspSegment, ExecError> {
        for node in &segment.nodes {
            ops::supports(segment, node).map_err(|reason| ExecError::Unsupported {
                processor: NAME.into(),
                node: node.name.clone(),
                op: node.op.clone(),
                reason,
            })?;
        }
        let quantised = quantise_segment(segment, samples)?;
        self.prepare_quantised(segment, &quantised)
    }

    /// Gives the worker `quantised`, a rewritten form of `segment` with the same f32 inputs and outputs.
    ///
    /// # Errors
    /// [`ExecError::Failed`] when the worker refuses it, [`ExecError::Died`] when it dies of it.
    pub fn prepare_quantised(&self, segment: &Graph, quantised: &Graph) -> Result<DspSegment, ExecError> {
        let ports = |ids: &[ValueId]| -> Vec<Port> {
            let port = |id: &ValueId| {
                let value = segment.value(*id);
                Port { name: value.name.clone(), shape: value.shape.clone() }
            };
            ids.iter().map(port).collect()
        };
        let onnx = crate::onnx::to_onnx(quantised);
        let loaded = Loaded::new(self.client.clone(), onnx).map_err(|e| explain(&segment.name, e))?;
        Ok(DspSegment {
            loaded: Arc::new(loaded),
            graph: segment.name.clone().into(),
            inputs: ports(&segment.inputs).into(),
            outputs: ports(&segment.outputs).into(),
        })
    }
}

impl Processor for Dsp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device(&self) -> String {
        self.device.clone()
    }

    fn supply(&self) -> Supply {
        Supply::Package
    }

    fn supports(&self, graph: &Graph, node: &Node) -> Result<(), String> {
        ops::supports(graph, node)
    }

    fn prepare(&self, segment: &Graph, samples: &[Vec<Tensor>]) -> Result<Arc<dyn Prepared>, ExecError> {
        Ok(Arc::new(self.prepare_segment(segment, samples)?))
    }
}

/// Calibrates `segment` on `samples` and rewrites it into QDQ form, with the same inputs and outputs (f32).
///
/// # Errors
/// [`ExecError::Failed`] without samples, with a range that is not finite, or when onnxruntime fails; [`ExecError::Input`] when a sample does
/// not fit.
pub fn quantise_segment(segment: &Graph, samples: &[Vec<Tensor>]) -> Result<Graph, ExecError> {
    let failed =
        |reason: String| ExecError::Failed { processor: NAME.into(), graph: segment.name.clone(), reason };
    if samples.is_empty() {
        return Err(failed(
            "calibration samples are needed: int8 ranges are measured on example inputs, and none were given"
                .into(),
        ));
    }
    let made = |id: &ValueId| segment.nodes.iter().any(|n| n.outputs.contains(&Some(*id)));
    if let Some(id) = segment.outputs.iter().find(|id| !made(id)) {
        return Err(failed(format!(
            "output `{}` is made by no node of the segment",
            segment.value(*id).name
        )));
    }
    let ports: Vec<Port> = segment
        .inputs
        .iter()
        .map(|id| Port { name: segment.value(*id).name.clone(), shape: segment.value(*id).shape.clone() })
        .collect();
    for sample in samples {
        check_inputs(&segment.name, &ports, &sample.iter().collect::<Vec<_>>())?;
    }
    let folded = fold::fold_batch_norm(segment);
    let plan = quantise::Plan::new(&folded).map_err(failed)?;
    let ranges = calibrate::ranges(&folded, &plan.needed(), samples).map_err(failed)?;
    quantise::rewrite(&folded, &plan, &ranges, numbers::weight_limit()).map_err(failed)
}

/// An input or output of a segment: f32.
struct Port {
    name: String,
    shape: Vec<usize>,
}

impl Port {
    fn bytes(&self) -> usize {
        4 * self.shape.iter().product::<usize>()
    }
}

/// A quantised segment that the worker has, or gets again when it is needed.
pub struct DspSegment {
    loaded: Arc<Loaded>,
    graph: Arc<str>,
    inputs: Arc<[Port]>,
    outputs: Arc<[Port]>,
}

impl DspSegment {
    /// As [`Prepared::spawn`], with the concrete type.
    ///
    /// # Errors
    /// As [`Prepared::spawn`].
    pub fn spawn_seat(&self) -> Result<DspInstance, ExecError> {
        let lens = self.inputs.iter().chain(self.outputs.iter()).map(Port::bytes).collect();
        let seat = Seat::new(self.loaded.clone(), lens).map_err(|e| explain(&self.graph, e))?;
        Ok(DspInstance {
            seat,
            graph: self.graph.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            busy_ns: 0,
        })
    }
}

impl Prepared for DspSegment {
    fn spawn(&self) -> Result<Box<dyn Instance>, ExecError> {
        Ok(Box::new(self.spawn_seat()?))
    }

    fn memory_bytes(&self) -> usize {
        self.loaded.bytes() + self.inputs.iter().chain(self.outputs.iter()).map(Port::bytes).sum::<usize>()
    }
}

/// Shared memory for one run at a time.
pub struct DspInstance {
    seat: Seat,
    graph: Arc<str>,
    inputs: Arc<[Port]>,
    outputs: Arc<[Port]>,
    busy_ns: u64,
}

impl DspInstance {
    /// Nanoseconds that the worker spent on the last run: the rest of a run's time is the price of the queue.
    pub fn busy_ns(&self) -> u64 {
        self.busy_ns
    }
}

impl Instance for DspInstance {
    fn busy_ms(&self) -> Option<f64> {
        Some(self.busy_ns as f64 / 1e6)
    }

    fn advance(
        &mut self,
        inputs: &[Held],
        _: &[bool],
        outputs: &mut Vec<Held>,
        stop: &Stop,
    ) -> Result<(), ExecError> {
        let inputs = hosts(inputs)?;
        check_inputs(&self.graph, &self.inputs, &inputs)?;
        let bytes: Vec<&[u8]> = inputs.iter().filter_map(|t| t.as_f32().map(bytemuck::cast_slice)).collect();
        let mut results: Vec<Vec<f32>> = self.outputs.iter().map(|p| vec![0f32; p.bytes() / 4]).collect();
        let mut slices: Vec<&mut [u8]> = results.iter_mut().map(|v| bytemuck::cast_slice_mut(v)).collect();
        self.busy_ns = self.seat.run(&bytes, &mut slices, stop).map_err(|e| explain(&self.graph, e))?;
        let tensor = |(port, data): (&Port, Vec<f32>)| {
            Tensor { shape: port.shape.clone(), data: Data::F32(data) }.into()
        };
        outputs.extend(self.outputs.iter().zip(results).map(tensor));
        Ok(())
    }
}

fn check_inputs(graph: &str, ports: &[Port], inputs: &[&Tensor]) -> Result<(), ExecError> {
    let wrong = |input: &str, expected: String, got: String| {
        Err(ExecError::Input { graph: graph.into(), input: input.into(), expected, got })
    };
    if inputs.len() != ports.len() {
        return wrong("(all)", format!("{} tensors", ports.len()), format!("{} tensors", inputs.len()));
    }
    for (port, tensor) in ports.iter().zip(inputs) {
        if tensor.as_f32().is_none() || tensor.shape != port.shape {
            let got = format!("{} {:?}", tensor.dtype(), tensor.shape);
            return wrong(&port.name, format!("f32 {:?}", port.shape), got);
        }
        if tensor.as_f32().map(<[f32]>::len) != Some(port.bytes() / 4) {
            return wrong(
                &port.name,
                format!("{} elements", port.bytes() / 4),
                "another number of elements".into(),
            );
        }
    }
    Ok(())
}

fn explain(graph: &str, e: CallError) -> ExecError {
    match e {
        CallError::Failed(reason) => {
            ExecError::Failed { processor: NAME.into(), graph: graph.into(), reason }
        }
        CallError::Died(reason) => ExecError::Died { processor: NAME.into(), reason },
        CallError::Stopped => ExecError::Stopped { processor: NAME.into() },
    }
}
