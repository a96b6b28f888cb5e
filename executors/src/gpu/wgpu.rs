//! The `wgpu` processor: WGSL kernels through wgpu (Vulkan). It stays within WebGPU's default limits and keeps wgpu's checks on.
//! It refuses to panic on a device error: errors come back through scopes, losses through a flag.

mod sending;

use super::adapter::{self, SLOT, halves, layout, rank, share};
use super::arena::{Arena, Common};
use super::course::{Course, Line};
use super::device::{Device, Edit, Fault, Feed, Gpu, Key, Output, Place, text};
use super::kernel::print::{Dialect, WORKGROUP, Wgsl};
use super::lower::{Page, Plan, Source, Span, Target};
use super::stored::{self, loaded, stored};
use super::waiting::{Mapped, ready};
use crate::energy::Supply;
use crate::processor::{ExecError, Options, Processor, Row, Storage};
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, OnceLock};

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
    pipelines: Mutex<HashMap<Key, wgpu::ComputePipeline>>,
    lost: Arc<OnceLock<String>>,
    line: Line<wgpu::SubmissionIndex>,
    common: Common<wgpu::Buffer>,
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
    arena: Arc<Arena<wgpu::Buffer>>,
    readback: wgpu::Buffer,
    groups: Vec<wgpu::BindGroup>,
    mapped: Arc<Mapped>,
    /// What is converted on its way to the device.
    room: Vec<u16>,
}

/// The row of the processor table.
pub const ROW: Row = Row { name: "wgpu", about: "GPU kernels in WGSL through wgpu (Vulkan)", open };

/// Opens the processor of the table.
pub fn open(options: &Options) -> Result<Arc<dyn Processor>, ExecError> {
    let storage = options.storage.get(WgpuDevice::NAME).copied().unwrap_or_default();
    Ok(Arc::new(Gpu::tuned(WgpuDevice::open_with(None, storage)?, options.tune)))
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
    Target {
        width: 4,
        rows: false,
        pixels: 8,
        share: 0,
        max_binding: 128 << 20,
        storage: Storage::F32,
        tuned: Default::default(),
    }
}

impl WgpuDevice {
    /// Opens the best adapter. `edit` is for tests.
    pub fn open(edit: Option<Edit>) -> Result<Self, ExecError> {
        Self::open_with(edit, Storage::F32)
    }

    /// As [`WgpuDevice::open`], with numbers stored like this.
    pub fn open_with(edit: Option<Edit>, storage: Storage) -> Result<Self, ExecError> {
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
            required_features: subgroups | halves(&adapter, storage)?,
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
        let target = Target { share, storage, ..target() };
        let (line, common) = (Line::default(), Common::default());
        Ok(Self { device, queue, info, target, layout, pipeline_layout, pipelines, lost, line, common, edit })
    }

    /// Runs `work`; any error that wgpu reports meanwhile in this thread becomes a fault.
    fn scoped<T>(&self, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        if let Some(reason) = self.lost.get() {
            return Err(Fault::Died(reason.clone()));
        }
        let filters =
            [wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation];
        let [outer, middle, inner] = filters.map(|f| self.device.push_error_scope(f));
        let result = work();
        let mut error = None;
        for scope in [inner, middle, outer] {
            error = ready(scope.pop()).or(error);
        }
        if let Some(reason) = self.lost.get() {
            return Err(Fault::Died(reason.clone()));
        }
        match error {
            Some(error) => Err(Fault::Failed(error.to_string())),
            None => result,
        }
    }

    fn pipeline(&self, key: &Key) -> wgpu::ComputePipeline {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(known) = pipelines.get(key) {
            return known.clone();
        }
        let source = text(key, self.dialect(), self.edit);
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
        pipelines.insert(*key, pipeline.clone());
        pipeline
    }

    fn labelled(&self, label: &str, bytes: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size: bytes, usage, mapped_at_creation: false };
        self.device.create_buffer(&descriptor)
    }

    fn filled(&self, label: &str, data: &[u8], usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let buffer = self.labelled(label, data.len() as u64, usage | wgpu::BufferUsages::COPY_DST);
        self.queue.write_buffer(&buffer, 0, data);
        buffer
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
    type Buffer = wgpu::Buffer;

    fn reopen(&self) -> Result<Self, ExecError> {
        Self::open_with(self.edit, self.target.storage)
    }

    fn lose(&self) -> bool {
        self.device.destroy();
        true
    }

    fn describe(&self) -> String {
        adapter::describe(&self.info, self.target.storage)
    }

    fn supply(&self) -> Supply {
        adapter::supply(&self.info)
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
        let home = |o: &Source| match o {
            Source::Arena(span) => stored::bytes(plan.storage, span.floats),
            _ => 0,
        };
        let readback = plan.outputs.iter().map(home).sum::<usize>().max(4) as u64;
        self.scoped(|| {
            let steps = plan.steps.iter();
            let steps = steps.map(|s| Launch {
                pipeline: self.pipeline(&(s.spec, s.kept)),
                page: s.page,
                grid: grid(s.total),
            });
            let page = |p: &Page| {
                let (mut room, usage) = (Vec::new(), wgpu::BufferUsages::STORAGE);
                self.filled("weights", stored(p.storage, &p.floats, &mut room), usage)
            };
            Ok(Segment {
                steps: steps.collect(),
                params: self.filled("params", &params, wgpu::BufferUsages::UNIFORM),
                pages: plan.pages.iter().map(page).collect(),
                arena: stored::bytes(plan.storage, plan.arena) as u64,
                readback,
            })
        })
        .inspect_err(|_| {
            // A pipeline that failed to compile must not be found in the cache later.
            self.pipelines.lock().unwrap_or_else(|e| e.into_inner()).clear();
        })
    }

    fn spawn(&self, segment: &Segment, own: bool) -> Result<Memory, Fault> {
        use wgpu::BufferUsages as Use;
        self.scoped(|| {
            let usage = Use::STORAGE | Use::COPY_DST | Use::COPY_SRC;
            let make = || Ok(self.labelled("arena", segment.arena, usage));
            let arena = self.common.arena(segment.arena as usize, own, make)?;
            let buffer = arena.turn().clone();
            let readback = self.labelled("readback", segment.readback, Use::MAP_READ | Use::COPY_DST);
            let bind = |page: &wgpu::Buffer| {
                let slot =
                    wgpu::BufferBinding { buffer: &segment.params, offset: 0, size: NonZeroU64::new(SLOT) };
                let entry = |binding, resource| wgpu::BindGroupEntry { binding, resource };
                self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: Some("cosched"),
                    layout: &self.layout,
                    entries: &[
                        entry(0, wgpu::BindingResource::Buffer(slot)),
                        entry(1, buffer.as_entire_binding()),
                        entry(2, page.as_entire_binding()),
                        entry(3, page.as_entire_binding()),
                    ],
                })
            };
            let groups = segment.pages.iter().map(bind).collect();
            Ok(Memory { arena, readback, groups, mapped: Arc::default(), room: Vec::new() })
        })
    }

    fn run(
        &self,
        segment: &Segment,
        memory: &mut Memory,
        inputs: &mut dyn Iterator<Item = (Span, Feed<'_, wgpu::Buffer>)>,
        outputs: &mut [Output<wgpu::Buffer>],
        course: &mut Course<'_>,
    ) -> Result<(), Fault> {
        let storage = self.target.storage;
        let at = |span: &Span| (storage.bytes() * span.at) as u64;
        let size = |span: &Span| stored::bytes(storage, span.floats) as u64;
        self.scoped(|| {
            let Memory { arena, readback, groups, mapped, room } = memory;
            let arena = &*arena.turn();
            let mut encoder = self.device.create_command_encoder(&Default::default());
            for (span, feed) in inputs {
                match feed {
                    Feed::Host(data) => {
                        self.queue.write_buffer(arena, at(&span), stored(storage, data, room))
                    }
                    Feed::There(from) => {
                        encoder.copy_buffer_to_buffer(from, 0, arena, at(&span), size(&span))
                    }
                }
            }
            self.record(segment, groups, &mut encoder, course)?;
            let mut home = 0;
            for (span, place) in &*outputs {
                match place {
                    Place::There(to) => {
                        encoder.copy_buffer_to_buffer(arena, at(span), to, 0, size(span));
                    }
                    Place::Home(_) => {
                        encoder.copy_buffer_to_buffer(arena, at(span), readback, home, size(span));
                        home += size(span);
                    }
                }
            }
            if home == 0 {
                return self.send(encoder, course);
            }
            self.submit_and_read(encoder, readback, mapped, home, |mut all| {
                for (span, place) in outputs {
                    let Place::Home(data) = place else { continue };
                    let (own, rest) = all.split_at(size(span) as usize);
                    data.resize(span.floats, 0.0);
                    loaded(storage, own, data);
                    all = rest;
                }
            })
        })
    }

    fn finish(&self) -> Result<(), Fault> {
        self.scoped(|| self.wait(None))
    }

    fn buffer(&self, floats: usize) -> Result<wgpu::Buffer, Fault> {
        use wgpu::BufferUsages as Use;
        let bytes = stored::bytes(self.target.storage, floats) as u64;
        self.scoped(|| Ok(self.labelled("tensor", bytes, Use::COPY_DST | Use::COPY_SRC)))
    }

    fn read(&self, buffer: &wgpu::Buffer, to: &mut [f32]) -> Result<(), Fault> {
        use wgpu::BufferUsages as Use;
        let storage = self.target.storage;
        let bytes = stored::bytes(storage, to.len()) as u64;
        self.scoped(|| {
            let readback = self.labelled("readback", bytes, Use::MAP_READ | Use::COPY_DST);
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, 0, &readback, 0, bytes);
            self.submit_and_read(encoder, &readback, &Arc::default(), bytes, |all| loaded(storage, all, to))
        })
    }

    fn repeat(&self, segment: &Segment, memory: &mut Memory, step: usize, times: usize) -> Result<(), Fault> {
        self.scoped(|| {
            let _turn = memory.arena.turn();
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
            self.wait(Some(self.queue.submit([encoder.finish()])))
        })
    }
}
