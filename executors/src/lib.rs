//! Everything that touches a real device: ONNX in, graphs cut into segments, kernels, processors, profiling, the live world.
//! It knows nothing of policies and learning.

pub mod gpu;
pub mod graph;
pub mod processor;
pub mod tensor;
