//! Everything that touches a real device: ONNX in, graphs cut into segments, kernels, processors, profiling, the live world.
//! It knows nothing of policies and learning.

pub mod affinity;
mod awake;
pub mod bare;
pub mod beside;
mod bound;
pub mod chain;
pub mod cpu;
pub mod deploy;
mod digest;
pub mod dsp;
pub mod energy;
mod file;
pub mod flops;
pub(crate) mod fold;
pub mod gpu;
pub mod graph;
pub mod held;
pub mod in_segments;
pub mod inject;
pub mod inspect;
pub mod live;
pub mod measure;
pub mod onnx;
pub mod processor;
pub mod profile;
pub mod providers;
pub mod remote;
pub mod runtime;
pub mod samples;
pub mod segment;
pub mod stop;
pub mod submit;
pub mod tensor;
mod worker;
pub mod zoo;
