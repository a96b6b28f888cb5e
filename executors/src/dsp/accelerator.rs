//! What computes in the worker: the one trait that a vendor's DSP implements, with onnxruntime's int8 kernels as the implementation that is
//! always there. Processes, shared memory, life signs, restarts, messages, stops and pacing are the worker's and the client's business.
//!
//! A vendor's DSP is a program of a few lines that gives its accelerator to [`super::worker_with`]; an app names it as `worker = ["./program"]` in
//! `[dsp]`. `executors/tests/dsp_vendor.rs` has a small one.

use crate::stop::Stop;

/// An accelerator for int8 models. It is used by one thread, one run at a time.
pub trait Accelerator {
    /// What it is, with its version: part of the processor's device, so that plans of another one are refused.
    fn name(&self) -> String;

    /// Compiles a model: ONNX in QDQ form, u8 activations, s8 weights a channel, i32 bias; static shapes; inputs and outputs are f32. Operators
    /// between a dequantise and a quantise that belong to no int8 operator are f32.
    ///
    /// # Errors
    /// What cannot be compiled, for people. The segment then runs on another processor.
    fn compile(&mut self, onnx: &[u8]) -> Result<Box<dyn Program>, String>;
}

/// A compiled model.
pub trait Program {
    /// Its inputs, in the model's order.
    fn inputs(&self) -> &[Outlet];

    /// Its outputs, in the model's order.
    fn outputs(&self) -> &[Outlet];

    /// Makes the working memory of one run at a time, with inputs and outputs (f32, row-major, 64-byte aligned) in `memory`: the inputs, then
    /// the outputs, each of its outlet's size. The memory is shared with the scheduler's process, which writes inputs before each run and
    /// reads outputs after it; an accelerator that can map it needs no copy. Programs may be dropped before what they bound.
    ///
    /// # Safety
    /// Each address must be valid for reads and writes of its bytes until the returned value is dropped, and nobody else may touch them during a run.
    ///
    /// # Errors
    /// What is missing, for people.
    unsafe fn bind(&self, memory: &[Memory]) -> Result<Box<dyn Bound>, String>;
}

/// A compiled model with its tensors.
pub trait Bound {
    /// Runs once. When `stop` is stopped meanwhile it should end early ([`Stop::during`] tells a [`crate::stop::Halt`] of it) or may run on to
    /// its end.
    ///
    /// # Errors
    /// [`Fault::Stopped`] when it ended early; [`Fault::Failed`] fails the launch and nothing else. A run that takes longer than
    /// [`super::Limits::run`] costs the worker its life.
    fn run(&mut self, stop: &Stop) -> Result<(), Fault>;
}

/// An input or output: an f32 tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlet {
    /// Name in the model.
    pub name: String,
    /// Extents.
    pub shape: Vec<usize>,
}

impl Outlet {
    /// Its size; `None` where that is more than can be addressed.
    pub fn bytes(&self) -> Option<usize> {
        self.shape.iter().try_fold(4usize, |n, d| n.checked_mul(*d))
    }
}

/// Where the tensor of an outlet lies.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// First byte.
    pub address: *mut u8,
    /// How many bytes.
    pub bytes: usize,
}

/// Why a run gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// For people.
    Failed(String),
    /// It was stopped.
    Stopped,
}

impl From<String> for Fault {
    fn from(reason: String) -> Fault {
        Fault::Failed(reason)
    }
}
