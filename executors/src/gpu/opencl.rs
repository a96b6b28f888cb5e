//! The `opencl` processor: OpenCL C kernels. Each processor owns its context; only the list of devices is found once for the process.
//! It refuses relaxed mathematics: NaN and infinity stay what they are.

mod queue;
mod sending;

use super::arena::{Arena, Common};
use super::course::{Course, Line};
use super::device::{Device, Edit, Fault, Feed, Gpu, KERNELS, Key, NVIDIA, Output, Place, text};
use super::kernel::ir::MAX_PARAMS;
use super::kernel::print::{Dialect, OpenClC, WORKGROUP};
use super::lower::{Page, Plan, Span, Target};
use super::stored::{self, stored};
use crate::energy::Supply;
use crate::processor::{ExecError, Options, Processor, Row, Storage};
use opencl3::context::Context;
use opencl3::device as cl;
use opencl3::event::Event;
use opencl3::kernel::Kernel;
use opencl3::memory::{Buffer, CL_MEM_READ_ONLY, CL_MEM_READ_WRITE, ClMem};
use opencl3::platform::get_platforms;
use opencl3::program::Program;
use opencl3::types::CL_BLOCKING;
use queue::Queue;
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
    programs: Mutex<HashMap<Key, Arc<Program>>>,
    /// All commands, in order: a run may begin before the one whose outputs it reads has ended.
    queue: Queue,
    line: Line<Event>,
    common: Common<Buffer<u8>>,
    edit: Option<Edit>,
}

/// A segment on an OpenCL device.
pub struct Segment {
    steps: Vec<Launch>,
    params: Buffer<u32>,
    pages: Vec<Buffer<u8>>,
    arena: usize,
}

struct Launch {
    program: Arc<Program>,
    page: usize,
    total: usize,
}

/// Working memory and kernels with their arguments set, for one run at a time.
pub struct Memory {
    arena: Arc<Arena<Buffer<u8>>>,
    /// What is converted on its way to the device and back.
    room: Vec<u16>,
    kernels: Vec<(Kernel, usize)>,
}

/// The row of the processor table.
pub const ROW: Row = Row { name: "opencl", about: "GPU kernels in OpenCL C", open };

/// Opens the processor of the table.
pub fn open(options: &Options) -> Result<Arc<dyn Processor>, ExecError> {
    let storage = options.storage.get(OpenClDevice::NAME).copied().unwrap_or_default();
    Ok(Arc::new(Gpu::tuned(OpenClDevice::open_with(None, storage)?, options.tune)))
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
    let (max_binding, storage) = (128 << 20, Storage::F32);
    Target { width, rows: cpu, pixels, share: 0, max_binding, storage, tuned: Default::default() }
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
        Self::open_with(edit, Storage::F32)
    }

    /// As [`OpenClDevice::open`], with numbers stored like this: no device lacks what that needs.
    pub fn open_with(edit: Option<Edit>, storage: Storage) -> Result<Self, ExecError> {
        let found = DEVICES.get_or_init(discover).as_ref().map_err(|e| absent(e.clone()))?;
        let device = cl::Device::new(found[0].0 as *mut c_void);
        let context = Context::from_device(&device).map_err(|e| absent(format!("no context: {e}")))?;
        let largest = device.max_mem_alloc_size().map_err(|e| absent(e.to_string()))?;
        let max_binding = usize::try_from(largest).unwrap_or(usize::MAX).min(128 << 20);
        let cpu = device.dev_type().is_ok_and(|t| t & cl::CL_DEVICE_TYPE_CPU != 0);
        let target = Target { max_binding, storage, ..target(cpu) };
        let queue = Queue::new(&context, &device).map_err(|e| absent(format!("no queue: {e}")))?;
        let programs = Mutex::new(HashMap::new());
        Ok(Self {
            context,
            device,
            target,
            programs,
            queue,
            line: Line::default(),
            common: Common::default(),
            edit,
        })
    }

    fn program(&self, key: &Key) -> Result<Arc<Program>, Fault> {
        let mut programs = self.programs.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(known) = programs.get(key) {
            return Ok(known.clone());
        }
        let source = text(key, self.dialect(), self.edit);
        let built = Program::create_and_build_from_source(&self.context, &source, "-cl-std=CL1.2");
        let built = Arc::new(
            built.map_err(|log| Fault::Failed(format!("kernel {:?} does not compile: {log}", key.0)))?,
        );
        programs.insert(*key, built.clone());
        Ok(built)
    }

    fn filled<T>(&self, data: &[T]) -> Result<Buffer<T>, Fault> {
        // SAFETY: no host pointer is given, and the blocking write reads `data` before it returns.
        unsafe {
            let mut buffer = Buffer::create(&self.context, CL_MEM_READ_ONLY, data.len(), ptr::null_mut())
                .map_err(fault)?;
            self.queue.ask().enqueue_write_buffer(&mut buffer, CL_BLOCKING, 0, data, &[]).map_err(fault)?;
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
    type Buffer = Buffer<u8>;

    fn reopen(&self) -> Result<Self, ExecError> {
        Self::open_with(self.edit, self.target.storage)
    }

    fn describe(&self) -> String {
        let d = &self.device;
        let text = |r: opencl3::Result<String>| r.unwrap_or_else(|_| "?".into());
        let stored = self.target.storage.of_device();
        let (name, version, driver) = (text(d.name()), text(d.version()), text(d.driver_version()));
        format!("{name} ({version}, driver {driver}, {KERNELS}{stored})")
    }

    fn supply(&self) -> Supply {
        let nvidia = self.device.vendor_id().is_ok_and(|id| id == NVIDIA);
        // A GPU that shares the CPU's memory is on its chip.
        let package = self.software() || self.device.host_unified_memory().unwrap_or(false);
        match self.device.name() {
            Ok(name) if nvidia => Supply::Nvidia(name),
            _ if package => Supply::Package,
            _ => Supply::Unseen,
        }
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
            steps.push(Launch {
                program: self.program(&(step.spec, step.kept))?,
                page: step.page,
                total: step.total,
            });
        }
        let mut room = Vec::new();
        let mut page = |p: &Page| self.filled(stored(p.storage, &p.floats, &mut room));
        let pages = plan.pages.iter().map(&mut page).collect::<Result<_, _>>()?;
        Ok(Segment { steps, params: self.filled(&params)?, pages, arena: plan.arena })
    }

    fn spawn(&self, segment: &Segment, own: bool) -> Result<Memory, Fault> {
        let arena = self.common.arena(segment.arena, own, || self.buffer(segment.arena))?;
        let buffer = arena.turn().get();
        let mut kernels = Vec::with_capacity(segment.steps.len());
        for (i, step) in segment.steps.iter().enumerate() {
            let kernel = Kernel::create(&step.program, "entry").map_err(fault)?;
            let slot = (i * MAX_PARAMS) as i32;
            // SAFETY: the arguments have the types that the printed `entry` declares, and the buffers outlive the kernel:
            // the segment is kept by every instance, and the arena lies beside the kernel.
            unsafe {
                kernel.set_arg(0, &segment.params.get()).map_err(fault)?;
                kernel.set_arg(1, &slot).map_err(fault)?;
                kernel.set_arg(2, &buffer).map_err(fault)?;
                kernel.set_arg(3, &segment.pages[step.page].get()).map_err(fault)?;
            }
            let workgroup = WORKGROUP as usize;
            kernels.push((kernel, step.total.div_ceil(workgroup) * workgroup));
        }
        Ok(Memory { arena, kernels, room: Vec::new() })
    }

    fn run(
        &self,
        _: &Segment,
        memory: &mut Memory,
        inputs: &mut dyn Iterator<Item = (Span, Feed<'_, Buffer<u8>>)>,
        outputs: &mut [Output<Buffer<u8>>],
        course: &mut Course<'_>,
    ) -> Result<(), Fault> {
        let early = outputs.iter().all(|(_, place)| matches!(place, Place::There(_)));
        // SAFETY: what is read and written on the host is borrowed until every command has ended below, errors or not, or was read
        // already. The driver keeps buffers and kernels for as long as commands need them.
        match unsafe { self.enqueue(memory, inputs, outputs, early, course) } {
            Ok(last) if early => self.follow(course, last),
            Ok(last) => {
                last.map_or(Ok(()), |last| last.wait()).map_err(fault)?;
                self.line.ended();
                Ok(())
            }
            // A queue that cannot even be waited for after that will not do anything any more: drivers say of a crash that resources are out.
            Err(fault) => match self.finish() {
                Ok(()) => Err(fault),
                Err(why) => Err(Fault::Died(format!("{fault:?}, then {why:?}"))),
            },
        }
    }

    fn finish(&self) -> Result<(), Fault> {
        self.queue.ask().finish().map_err(fault)?;
        self.line.ended();
        Ok(())
    }

    fn buffer(&self, floats: usize) -> Result<Buffer<u8>, Fault> {
        let bytes = stored::bytes(self.target.storage, floats);
        // SAFETY: no host pointer is given.
        let made = unsafe { Buffer::create(&self.context, CL_MEM_READ_WRITE, bytes, ptr::null_mut()) };
        made.map_err(fault)
    }

    fn read(&self, buffer: &Buffer<u8>, to: &mut [f32]) -> Result<(), Fault> {
        // SAFETY: the read comes after the run that writes the buffer, and is waited for.
        let read = unsafe { self.bring(buffer, 0, to, &mut Vec::new()) }?;
        read.wait().map_err(fault)
    }

    fn repeat(&self, _: &Segment, memory: &mut Memory, step: usize, times: usize) -> Result<(), Fault> {
        let (kernel, total) = &memory.kernels[step];
        let _turn = memory.arena.turn();
        let (global, local) = ([*total], [WORKGROUP as usize]);
        for _ in 0..times {
            // SAFETY: arguments were set in `spawn`; the grid is whole workgroups.
            let queued = unsafe {
                self.queue.ask().enqueue_nd_range_kernel(
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
        self.finish()
    }
}
