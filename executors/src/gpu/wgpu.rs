//! The `wgpu` processor: WGSL kernels through wgpu (Vulkan). It stays within WebGPU's default limits and keeps wgpu's checks on.
//! It refuses to panic on a device error: errors come back through scopes, losses through a flag.

use super::device::{Device, Edit, Fault, Gpu, text};
use super::kernel::Spec;
use super::kernel::print::{Dialect, WORKGROUP, Wgsl};
use super::lower::{Plan, Span, Target};
use crate::processor::{ExecError, Options, Processor, Row};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

/// Bytes of one parameter slot: also the alignment that uniform offsets need.
const SLOT: u64 = 256;
/// A run that takes longer means that the device hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Workgroups along one axis of a grid.
const MAX_GROUPS: u32 = 65_535;

/// An open wgpu device.
pub struct WgpuDevice {
    device: wgpu::Device,
    queue: wgpu::Queue,
    info: wgpu::AdapterInfo,
    target: Target,
    layout: wgpu::BindGroupLayout,
    pipeline_layout: wgpu::PipelineLayout,
    pipelines: Mutex<HashMap<Spec, wgpu::ComputePipeline>>,
    lost: Arc<OnceLock<String>>,
    edit: Option<Edit>,
}

/// A segment on a wgpu device.
pub struct Segment {
    steps: Vec<Launch>,
    params: wgpu::Buffer,
    pages: Vec<wgpu::Buffer>,
    arena: u64,
    readback: u64,
}

struct Launch {
    pipeline: wgpu::ComputePipeline,
    page: usize,
    grid: (u32, u32),
}

/// Buffers of one run at a time.
pub struct Memory {
    arena: wgpu::Buffer,
    readback: wgpu::Buffer,
    groups: Vec<wgpu::BindGroup>,
}

/// The row of the processor table.
pub const ROW: Row = Row { name: "wgpu", about: "GPU kernels in WGSL through wgpu (Vulkan)", open };

/// Opens the processor of the table.
pub fn open(options: &Options) -> Result<Arc<dyn Processor>, ExecError> {
    Ok(Arc::new(Gpu::tuned(WgpuDevice::open(None)?, options.tune)))
}

fn absent(reason: String) -> ExecError {
    ExecError::Absent {
        processor: WgpuDevice::NAME.to_string(),
        reason,
        hint: "install a Vulkan driver (Debian: `apt-get install libvulkan1 mesa-vulkan-drivers`)"
            .to_string(),
    }
}

/// The tiles of every wgpu device, for now: WGSL has vectors of at most four lanes.
pub fn target() -> Target {
    Target { width: 4, rows: false, pixels: 8, share: 0, max_binding: 128 << 20, tuned: Default::default() }
}

/// Invocations that load weights for each other, 0 for each for itself. It pays on software devices, which compute a subgroup in the lanes
/// of one vector and load for every lane by itself; there a subgroup is also known to be neighbouring invocations.
fn share(adapter: &wgpu::Adapter) -> u32 {
    let info = adapter.get_info();
    let even = info.subgroup_min_size == info.subgroup_max_size;
    let able = adapter.features().contains(wgpu::Features::SUBGROUP);
    let known =
        matches!(info.subgroup_min_size, 4 | 8 | 16) && WORKGROUP.is_multiple_of(info.subgroup_min_size);
    if info.device_type == wgpu::DeviceType::Cpu && able && even && known {
        info.subgroup_min_size
    } else {
        0
    }
}

/// Real GPUs first, software last.
fn rank(kind: wgpu::DeviceType) -> u8 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

fn layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let entry = |binding, ty, dynamic, size| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: dynamic,
            min_binding_size: NonZeroU64::new(size),
        },
        count: None,
    };
    let read = wgpu::BufferBindingType::Storage { read_only: true };
    let write = wgpu::BufferBindingType::Storage { read_only: false };
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("cosched"),
        entries: &[
            entry(0, wgpu::BufferBindingType::Uniform, true, SLOT),
            entry(1, write, false, 4),
            entry(2, read, false, 4),
            entry(3, read, false, 16),
        ],
    })
}

impl WgpuDevice {
    /// Opens the best adapter. `edit` is for tests.
    pub fn open(edit: Option<Edit>) -> Result<Self, ExecError> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::VULKAN;
        let instance = wgpu::Instance::new(descriptor);
        let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
        adapters.sort_by_key(|a| rank(a.get_info().device_type));
        let adapter =
            adapters.into_iter().next().ok_or_else(|| absent("no Vulkan adapter was found".into()))?;
        let info = adapter.get_info();
        let share = share(&adapter);
        let subgroups = if share > 0 { wgpu::Features::SUBGROUP } else { wgpu::Features::empty() };
        let request = wgpu::DeviceDescriptor {
            label: Some("cosched"),
            required_features: subgroups,
            required_limits: wgpu::Limits::default(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&request))
            .map_err(|e| absent(format!("adapter `{}` does not open: {e}", info.name)))?;
        let lost = Arc::new(OnceLock::new());
        let seen = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            let _ = seen.set(format!("{reason:?}: {message}"));
        });
        // Scopes catch the errors of our calls; what still comes here must not panic.
        device.on_uncaptured_error(Arc::new(|e| tracing::error!("wgpu: {e}")));
        let layout = layout(&device);
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("cosched"),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipelines = Mutex::new(HashMap::new());
        let target = Target { share, ..target() };
        Ok(Self { device, queue, info, target, layout, pipeline_layout, pipelines, lost, edit })
    }

    /// Runs `work`; any error that wgpu reports meanwhile in this thread becomes a fault.
    fn scoped<T>(&self, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        if let Some(reason) = self.lost.get() {
            return Err(Fault::Died(reason.clone()));
        }
        let filters =
            [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let mut scopes: Vec<_> = filters.map(|f| self.device.push_error_scope(f)).into_iter().collect();
        let result = work();
        let mut error = None;
        while let Some(scope) = scopes.pop() {
            error = pollster::block_on(scope.pop()).or(error);
        }
        if let Some(reason) = self.lost.get() {
            return Err(Fault::Died(reason.clone()));
        }
        match error {
            Some(error) => Err(Fault::Failed(error.to_string())),
            None => result,
        }
    }

    fn pipeline(&self, spec: &Spec) -> wgpu::ComputePipeline {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(known) = pipelines.get(spec) {
            return known.clone();
        }
        let source = text(spec, self.dialect(), self.edit);
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("cosched"),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some("cosched"),
            layout: Some(&self.pipeline_layout),
            module: &module,
            entry_point: Some("entry"),
            compilation_options: Default::default(),
            cache: None,
        });
        pipelines.insert(*spec, pipeline.clone());
        pipeline
    }

    fn buffer(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size: bytes, usage, mapped_at_creation: false };
        self.device.create_buffer(&descriptor)
    }

    fn filled(&self, label: &str, data: &[u8], usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let buffer = self.buffer(label, data.len() as u64, usage | wgpu::BufferUsages::COPY_DST);
        self.queue.write_buffer(&buffer, 0, data);
        buffer
    }

    /// Waits for a submission and for the mapping of `buffer`.
    fn wait(
        &self,
        index: wgpu::SubmissionIndex,
        mapped: &mpsc::Receiver<Result<(), wgpu::BufferAsyncError>>,
    ) -> Result<(), Fault> {
        let poll = wgpu::PollType::Wait { submission_index: Some(index), timeout: Some(PATIENCE) };
        self.device.poll(poll).map_err(|e| Fault::Died(format!("waiting for the device: {e}")))?;
        match mapped.recv_timeout(PATIENCE) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(Fault::Failed(format!("reading results back: {e}"))),
            Err(_) => Err(Fault::Died("the device never finished".into())),
        }
    }
}

/// Two-dimensional grid of workgroups for so many invocations.
fn grid(total: usize) -> (u32, u32) {
    let groups = (total as u32).div_ceil(WORKGROUP).max(1);
    let x = groups.min(MAX_GROUPS);
    (x, groups.div_ceil(x))
}

impl Device for WgpuDevice {
    const NAME: &'static str = "wgpu";
    type Segment = Segment;
    type Memory = Memory;

    fn describe(&self) -> String {
        let i = &self.info;
        format!("{} ({:?}, {} {}, wgpu 30)", i.name, i.device_type, i.driver, i.driver_info)
    }

    fn target(&self) -> &Target {
        &self.target
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &Wgsl
    }

    fn software(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }

    fn prepare(&self, plan: &Plan) -> Result<Segment, Fault> {
        let mut params = vec![0u8; (SLOT as usize) * plan.steps.len().max(1)];
        for (step, slot) in plan.steps.iter().zip(params.chunks_exact_mut(SLOT as usize)) {
            let words: &[u8] = bytemuck::cast_slice(&step.params);
            slot[..words.len()].copy_from_slice(words);
        }
        let readback =
            plan.outputs.iter().map(|o| if let super::lower::Source::Arena(s) = o { s.floats } else { 0 });
        let readback = 4 * readback.sum::<usize>().max(1) as u64;
        self.scoped(|| {
            let steps = plan.steps.iter();
            let steps =
                steps.map(|s| Launch { pipeline: self.pipeline(&s.spec), page: s.page, grid: grid(s.total) });
            let page =
                |p: &Vec<f32>| self.filled("weights", bytemuck::cast_slice(p), wgpu::BufferUsages::STORAGE);
            Ok(Segment {
                steps: steps.collect(),
                params: self.filled("params", &params, wgpu::BufferUsages::UNIFORM),
                pages: plan.pages.iter().map(page).collect(),
                arena: 4 * plan.arena as u64,
                readback,
            })
        })
        .inspect_err(|_| {
            // A pipeline that failed to compile must not be found in the cache later.
            self.pipelines.lock().unwrap_or_else(|e| e.into_inner()).clear();
        })
    }

    fn spawn(&self, segment: &Segment) -> Result<Memory, Fault> {
        use wgpu::BufferUsages as Use;
        self.scoped(|| {
            let arena = self.buffer("arena", segment.arena, Use::STORAGE | Use::COPY_DST | Use::COPY_SRC);
            let readback = self.buffer("readback", segment.readback, Use::MAP_READ | Use::COPY_DST);
            let bind = |page: &wgpu::Buffer| {
                let slot =
                    wgpu::BufferBinding { buffer: &segment.params, offset: 0, size: NonZeroU64::new(SLOT) };
                let entry = |binding, resource| wgpu::BindGroupEntry { binding, resource };
                self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some("cosched"),
                    layout: &self.layout,
                    entries: &[
                        entry(0, wgpu::BindingResource::Buffer(slot)),
                        entry(1, arena.as_entire_binding()),
                        entry(2, page.as_entire_binding()),
                        entry(3, page.as_entire_binding()),
                    ],
                })
            };
            let groups = segment.pages.iter().map(bind).collect();
            Ok(Memory { arena, readback, groups })
        })
    }

    fn run(
        &self,
        segment: &Segment,
        memory: &mut Memory,
        inputs: &[(Span, &[f32])],
        outputs: &[Span],
    ) -> Result<Vec<Vec<f32>>, Fault> {
        self.scoped(|| {
            for (span, data) in inputs {
                self.queue.write_buffer(&memory.arena, 4 * span.at as u64, bytemuck::cast_slice(data));
            }
            let mut encoder = self.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                for (i, step) in segment.steps.iter().enumerate() {
                    pass.set_pipeline(&step.pipeline);
                    pass.set_bind_group(0, &memory.groups[step.page], &[(i as u64 * SLOT) as u32]);
                    pass.dispatch_workgroups(step.grid.0, step.grid.1, 1);
                }
            }
            let mut at = 0;
            for span in outputs {
                let bytes = 4 * span.floats as u64;
                encoder.copy_buffer_to_buffer(&memory.arena, 4 * span.at as u64, &memory.readback, at, bytes);
                at += bytes;
            }
            let index = self.queue.submit([encoder.finish()]);
            let (tell, told) = mpsc::channel();
            memory.readback.map_async(wgpu::MapMode::Read, 0..at.max(4), move |r| {
                let _ = tell.send(r);
            });
            self.wait(index, &told)?;
            let view = memory.readback.get_mapped_range(0..at.max(4));
            let view = view.map_err(|e| Fault::Failed(format!("reading results back: {e}")))?;
            let all: &[f32] = bytemuck::cast_slice(&view);
            let mut first = 0;
            let read = outputs.iter().map(|span| {
                first += span.floats;
                all[first - span.floats..first].to_vec()
            });
            let read = read.collect();
            drop(view);
            memory.readback.unmap();
            Ok(read)
        })
    }

    fn repeat(&self, segment: &Segment, memory: &mut Memory, step: usize, times: usize) -> Result<(), Fault> {
        self.scoped(|| {
            let mut encoder = self.device.create_command_encoder(&Default::default());
            {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                let launch = &segment.steps[step];
                pass.set_pipeline(&launch.pipeline);
                pass.set_bind_group(0, &memory.groups[launch.page], &[(step as u64 * SLOT) as u32]);
                for _ in 0..times {
                    pass.dispatch_workgroups(launch.grid.0, launch.grid.1, 1);
                }
            }
            let index = self.queue.submit([encoder.finish()]);
            let poll = wgpu::PollType::Wait { submission_index: Some(index), timeout: Some(PATIENCE) };
            self.device
                .poll(poll)
                .map(|_| ())
                .map_err(|e| Fault::Died(format!("waiting for the device: {e}")))
        })
    }
}
