//! The two GPU processors: kernels from one generator over one lowering, on wgpu and on OpenCL.
//! It refuses hand-written twins of a kernel and any device that is shared by the whole process.

mod adapter;
pub mod arena;
pub mod course;
pub mod device;
mod door;
pub mod kernel;
pub mod lower;
pub mod memory;
pub mod opencl;
mod stored;
pub mod tune;
mod waiting;
pub mod wgpu;
mod working;
