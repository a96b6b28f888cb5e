//! Everything that touches a real device: ONNX in, graphs cut into segments, kernels, processors, profiling, the live world.
//! It knows nothing of policies and learning.

pub mod cpu;
pub(crate) mod fold;
pub mod gpu;
pub mod graph;
pub mod onnx;
pub mod processor;
pub mod runtime;
pub mod tensor;
pub mod zoo;
