//! Everything that touches a real device: ONNX in, graphs cut into segments, kernels, processors, profiling, the live world.
//! It knows nothing of policies and learning.

pub mod chain;
pub mod cpu;
pub mod dsp;
pub mod flops;
pub(crate) mod fold;
pub mod graph;
pub mod inspect;
pub mod onnx;
pub mod processor;
pub mod runtime;
pub mod segment;
pub mod tensor;
pub mod zoo;
