//! The `dsp` processor: a shim that runs int8 arithmetic in a process of its own behind a shared-memory queue, as a real DSP's RPC does.
//! It refuses operators that such DSPs lack and to guess ranges without samples; the death of its process is a failed launch,
//! never a crash, and the next one finds a new process.
//!
//! The way of a segment: [`ops::supports`] says yes to each node; `prepare` ([`model`]) folds batch normalisations, calibrates on the samples,
//! rewrites the segment into QDQ form and gives it to the worker; `spawn` makes shared memory for the tensors and binds it there; `run` copies the inputs
//! in, posts one message, and copies the outputs out. The DSP has one slot: runs of all threads queue up.
//!
//! The worker computes with whatever [`accelerator::Accelerator`] it was started with: onnxruntime's int8 kernels, or a vendor's DSP. A DSP that
//! is not there can be emulated in real time: [`pace`].
//!
//! Fidelity: numbers are those of onnxruntime's int8 kernels with u8 activations and s8 weights. On x86 processors without VNNI
//! weights have 7 bits instead of 8, because sums there saturate at 16 bits.

pub mod accelerator;
pub mod area;
pub mod calibrate;
pub mod client;
pub mod connection;
pub mod fold;
pub mod loss;
pub mod model;
pub mod numbers;
mod onnx;
pub mod ops;
pub mod pace;
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
use calibrate::Method;
use client::{Client, Loaded, Seat};
use connection::CallError;
pub use connection::Limits;
pub use model::quantise_segment;
use model::{Port, check_inputs};
use pace::Pacer;
use std::sync::Arc;
use std::time::Duration;
pub use worker::{EXIT_VERSION, worker_main, worker_with};

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
    method: Method,
    pacer: Option<Arc<Pacer>>,
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
        crate::runtime::version()
            .map_err(|e| absent(e.to_string(), "the DSP's ranges are calibrated with onnxruntime"))?;
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
        let (method, pacer) = (options.calibration, options.pace.map(|pace| Arc::new(Pacer::new(pace))));
        let paced = options.pace.map_or(String::new(), |pace| {
            format!(", paced to {} GOPS and {} us a call", pace.gops, pace.rpc_us)
        });
        let device = format!(
            "int8 shim of cosched {} (u8 activations, s8 weights of {} bits, {method} calibration, queue version {}) on {}, {}{paced}",
            env!("CARGO_PKG_VERSION"),
            numbers::weight_bits(),
            queue::VERSION,
            cpu::model_name(),
            client.worker_name().unwrap_or_else(|| "a worker without a name".to_owned())
        );
        Ok(Self { client: Arc::new(client), method, pacer, device })
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
        let quantised = quantise_segment(segment, samples, self.method)?;
        self.prepare_quantised(segment, &quantised)
    }

    /// Gives the worker `quantised`, a rewritten form of `segment` with the same f32 inputs and outputs.
    ///
    /// # Errors
    /// [`ExecError::Failed`] when the worker refuses it, [`ExecError::Died`] when it dies of it.
    pub fn prepare_quantised(&self, segment: &Graph, quantised: &Graph) -> Result<DspSegment, ExecError> {
        let ports = |ids: &[ValueId]| -> Vec<Port> { ids.iter().map(|id| Port::of(segment, *id)).collect() };
        let onnx = crate::onnx::to_onnx(quantised);
        let loaded = Loaded::new(self.client.clone(), onnx).map_err(|e| explain(&segment.name, e))?;
        Ok(DspSegment {
            loaded: Arc::new(loaded),
            graph: segment.name.clone().into(),
            inputs: ports(&segment.inputs).into(),
            outputs: ports(&segment.outputs).into(),
            operations: crate::flops::total(segment),
            pacer: self.pacer.clone(),
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

/// A quantised segment that the worker has, or gets again when it is needed.
pub struct DspSegment {
    loaded: Arc<Loaded>,
    graph: Arc<str>,
    inputs: Arc<[Port]>,
    outputs: Arc<[Port]>,
    operations: u64,
    pacer: Option<Arc<Pacer>>,
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
            operations: self.operations,
            pacer: self.pacer.clone(),
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
    operations: u64,
    pacer: Option<Arc<Pacer>>,
    busy_ns: u64,
}

impl DspInstance {
    /// Nanoseconds that the worker spent on the last run, or that the paced DSP would have: the rest of a run's time is the price of the queue.
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
        let turn = self.pacer.as_deref().map(|pacer| (pacer, pacer.begin(self.operations)));
        self.busy_ns = self.seat.run(&bytes, &mut slices, stop).map_err(|e| explain(&self.graph, e))?;
        if let Some((pacer, turn)) = turn {
            pacer.notice(&self.graph, Duration::from_nanos(self.busy_ns), self.operations);
            if !turn.wait(stop) {
                return Err(ExecError::Stopped { processor: NAME.into() });
            }
            self.busy_ns = self.busy_ns.max(pacer.pace().work_ns(self.operations) as u64);
        }
        let tensor = |(port, data): (&Port, Vec<f32>)| {
            Tensor { shape: port.shape.clone(), data: Data::F32(data) }.into()
        };
        outputs.extend(self.outputs.iter().zip(results).map(tensor));
        Ok(())
    }

    fn stale(&self) -> bool {
        self.seat.stale()
    }
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
