//! The `opencl` processor: OpenCL C kernels. Each processor owns its context; only the list of devices is found once for the process.
//! It refuses relaxed mathematics: NaN and infinity stay what they are.

use super::device::{Device, Edit, Fault, Gpu, text};
use super::kernel::Spec;
use super::kernel::ir::MAX_PARAMS;
use super::kernel::print::{Dialect, OpenClC, WORKGROUP};
use super::lower::{Plan, Span, Target};
use crate::processor::{ExecError, Options, Processor, Row};
use opencl3::command_queue::CommandQueue;
use opencl3::context::Context;
use opencl3::device as cl;
use opencl3::kernel::Kernel;
use opencl3::memory::{Buffer, CL_MEM_READ_ONLY, CL_MEM_READ_WRITE, ClMem};
use opencl3::platform::get_platforms;
use opencl3::program::Program;
use opencl3::types::{CL_BLOCKING, CL_NON_BLOCKING};
use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock};

/// A device identifier that may cross threads: OpenCL's own calls are thread-safe, the pointer is only a name.
#[derive(Clone, Copy)]
struct Id(usize);

/// Found once, by one thread: pocl loses devices when several threads initialise it at the same time.
static DEVICES: OnceLock<Result<Vec<Id>, String>> = OnceLock::new();

/// An open OpenCL device.
pub struct OpenClDevice {
    context: Context,
    device: cl::Device,
    target: Target,
    programs: Mutex<HashMap<Spec, Arc<Program>>>,
    edit: Option<Edit>,
}

/// A segment on an OpenCL device.
pub struct Segment {
    steps: Vec<Launch>,
    params: Buffer<u32>,
    pages: Vec<Buffer<f32>>,
    arena: usize,
}

struct Launch {
    program: Arc<Program>,
    page: usize,
    total: usize,
}

/// A queue, buffers and kernels with their arguments set, for one run at a time.
pub struct Memory {
    queue: CommandQueue,
    arena: Buffer<f32>,
    kernels: Vec<(Kernel, usize)>,
}

/// The row of the processor table.
pub const ROW: Row = Row { name: "opencl", about: "GPU kernels in OpenCL C", open };

/// Opens the processor of the table.
pub fn open(options: &Options) -> Result<Arc<dyn Processor>, ExecError> {
    Ok(Arc::new(Gpu::tuned(OpenClDevice::open(None)?, options.tune)))
}

fn absent(reason: String) -> ExecError {
    ExecError::Absent {
        processor: OpenClDevice::NAME.to_string(),
        reason,
        hint: "install an OpenCL loader and driver (Debian: `apt-get install ocl-icd-libopencl1 pocl-opencl-icd`)"
            .to_string(),
    }
}

/// The tiles: on a CPU device a vector is the SIMD unit, on a GPU it only groups loads.
pub fn target(cpu: bool) -> Target {
    let (width, pixels) = if cpu { (16, 6) } else { (4, 8) };
    Target { width, rows: cpu, pixels, share: 0, max_binding: 128 << 20, tuned: Default::default() }
}

/// All devices, GPUs first.
fn discover() -> Result<Vec<Id>, String> {
    let platforms = get_platforms().map_err(|e| format!("no OpenCL platform: {e}"))?;
    let kinds = [cl::CL_DEVICE_TYPE_GPU, cl::CL_DEVICE_TYPE_ACCELERATOR, cl::CL_DEVICE_TYPE_CPU];
    let mut all = Vec::new();
    for kind in kinds {
        for platform in &platforms {
            all.extend(platform.get_devices(kind).unwrap_or_default().into_iter().map(|d| Id(d as usize)));
        }
    }
    if all.is_empty() { Err("no OpenCL device was found".into()) } else { Ok(all) }
}

impl OpenClDevice {
    /// Opens the best device. `edit` is for tests.
    pub fn open(edit: Option<Edit>) -> Result<Self, ExecError> {
        let found = DEVICES.get_or_init(discover).as_ref().map_err(|e| absent(e.clone()))?;
        let device = cl::Device::new(found[0].0 as *mut c_void);
        let context = Context::from_device(&device).map_err(|e| absent(format!("no context: {e}")))?;
        let largest = device.max_mem_alloc_size().map_err(|e| absent(e.to_string()))?;
        let max_binding = usize::try_from(largest).unwrap_or(usize::MAX).min(128 << 20);
        let cpu = device.dev_type().is_ok_and(|t| t & cl::CL_DEVICE_TYPE_CPU != 0);
        let target = Target { max_binding, ..target(cpu) };
        Ok(Self { context, device, target, programs: Mutex::new(HashMap::new()), edit })
    }

    fn program(&self, spec: &Spec) -> Result<Arc<Program>, Fault> {
        let mut programs = self.programs.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(known) = programs.get(spec) {
            return Ok(known.clone());
        }
        let source = text(spec, self.dialect(), self.edit);
        let built = Program::create_and_build_from_source(&self.context, &source, "-cl-std=CL1.2");
        let built =
            Arc::new(built.map_err(|log| Fault::Failed(format!("kernel {spec:?} does not compile: {log}")))?);
        programs.insert(*spec, built.clone());
        Ok(built)
    }

    fn queue(&self) -> Result<CommandQueue, Fault> {
        // SAFETY: the device belongs to the context, and there are no properties whose lifetime could matter.
        #[allow(deprecated)]
        let queue = unsafe { CommandQueue::create(&self.context, self.device.id(), 0) };
        queue.map_err(fault)
    }

    fn filled<T>(&self, queue: &CommandQueue, data: &[T]) -> Result<Buffer<T>, Fault> {
        // SAFETY: no host pointer is given, and the blocking write reads `data` before it returns.
        unsafe {
            let mut buffer = Buffer::create(&self.context, CL_MEM_READ_ONLY, data.len(), ptr::null_mut())
                .map_err(fault)?;
            queue.enqueue_write_buffer(&mut buffer, CL_BLOCKING, 0, data, &[]).map_err(fault)?;
            Ok(buffer)
        }
    }
}

fn fault(e: opencl3::error_codes::ClError) -> Fault {
    // CL_DEVICE_NOT_AVAILABLE, CL_OUT_OF_RESOURCES after a crash of the driver: only the first says that the device is gone.
    if e.0 == -2 { Fault::Died(e.to_string()) } else { Fault::Failed(e.to_string()) }
}

impl Device for OpenClDevice {
    const NAME: &'static str = "opencl";
    type Segment = Segment;
    type Memory = Memory;

    fn describe(&self) -> String {
        let d = &self.device;
        let text = |r: opencl3::Result<String>| r.unwrap_or_else(|_| "?".into());
        format!("{} ({}, driver {})", text(d.name()), text(d.version()), text(d.driver_version()))
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &OpenClC
    }

    fn software(&self) -> bool {
        self.target.rows
    }

    fn prepare(&self, plan: &Plan) -> Result<Segment, Fault> {
        let mut params = vec![0u32; MAX_PARAMS * plan.steps.len().max(1)];
        let mut steps = Vec::with_capacity(plan.steps.len());
        for (step, slot) in plan.steps.iter().zip(params.chunks_exact_mut(MAX_PARAMS)) {
            slot[..step.params.len()].copy_from_slice(&step.params);
            steps.push(Launch { program: self.program(&step.spec)?, page: step.page, total: step.total });
        }
        let queue = self.queue()?;
        let pages = plan.pages.iter().map(|p| self.filled(&queue, p)).collect::<Result<_, _>>()?;
        Ok(Segment { steps, params: self.filled(&queue, &params)?, pages, arena: plan.arena })
    }

    fn spawn(&self, segment: &Segment) -> Result<Memory, Fault> {
        let queue = self.queue()?;
        // SAFETY: no host pointer is given.
        let arena = unsafe {
            Buffer::<f32>::create(&self.context, CL_MEM_READ_WRITE, segment.arena, ptr::null_mut())
        };
        let arena = arena.map_err(fault)?;
        let mut kernels = Vec::with_capacity(segment.steps.len());
        for (i, step) in segment.steps.iter().enumerate() {
            let kernel = Kernel::create(&step.program, "entry").map_err(fault)?;
            let slot = (i * MAX_PARAMS) as i32;
            // SAFETY: the arguments have the types that the printed `entry` declares, and the buffers outlive the kernel:
            // the segment is kept by every instance, and the arena lies beside the kernel.
            unsafe {
                kernel.set_arg(0, &segment.params.get()).map_err(fault)?;
                kernel.set_arg(1, &slot).map_err(fault)?;
                kernel.set_arg(2, &arena.get()).map_err(fault)?;
                kernel.set_arg(3, &segment.pages[step.page].get()).map_err(fault)?;
            }
            let workgroup = WORKGROUP as usize;
            kernels.push((kernel, step.total.div_ceil(workgroup) * workgroup));
        }
        Ok(Memory { queue, arena, kernels })
    }

    fn run(
        &self,
        _: &Segment,
        memory: &mut Memory,
        inputs: &[(Span, &[f32])],
        outputs: &[Span],
    ) -> Result<Vec<Vec<f32>>, Fault> {
        let (global, local) = (|n: usize| [n], [WORKGROUP as usize]);
        let queue = &memory.queue;
        // SAFETY: spans lie inside the arena by the plan; `inputs` and the results live until the blocking reads below
        // (or `finish`, when there is nothing to read or an error) have seen every command end; grids are whole workgroups.
        let result = unsafe {
            (|| {
                for (span, data) in inputs {
                    queue.enqueue_write_buffer(&mut memory.arena, CL_NON_BLOCKING, 4 * span.at, data, &[])?;
                }
                for (kernel, total) in &memory.kernels {
                    let size = global(*total);
                    queue.enqueue_nd_range_kernel(
                        kernel.get(),
                        1,
                        ptr::null(),
                        size.as_ptr(),
                        local.as_ptr(),
                        &[],
                    )?;
                }
                let mut read = Vec::with_capacity(outputs.len());
                for span in outputs {
                    let mut data = vec![0f32; span.floats];
                    queue.enqueue_read_buffer(&memory.arena, CL_BLOCKING, 4 * span.at, &mut data, &[])?;
                    read.push(data);
                }
                Ok(read)
            })()
        };
        let finished = queue.finish();
        let read = result.map_err(fault)?;
        finished.map_err(fault)?;
        Ok(read)
    }

    fn repeat(&self, _: &Segment, memory: &mut Memory, step: usize, times: usize) -> Result<(), Fault> {
        let (kernel, total) = &memory.kernels[step];
        let (global, local) = ([*total], [WORKGROUP as usize]);
        for _ in 0..times {
            // SAFETY: arguments were set in `spawn`; the grid is whole workgroups.
            let queued = unsafe {
                memory.queue.enqueue_nd_range_kernel(
                    kernel.get(),
                    1,
                    ptr::null(),
                    global.as_ptr(),
                    local.as_ptr(),
                    &[],
                )
            };
            queued.map_err(fault)?;
        }
        memory.queue.finish().map_err(fault)
    }
}
