//! Which wgpu adapter is opened, what it can do, and what every kernel binds. It refuses limits beyond WebGPU's defaults.

use super::device::{KERNELS, NVIDIA};
use super::kernel::print::WORKGROUP;
use crate::cpu;
use crate::energy::Supply;
use crate::processor::{ExecError, Storage};
use std::num::NonZeroU64;

/// Bytes of one parameter slot: also the alignment that uniform offsets need.
pub(super) const SLOT: u64 = 256;

/// Invocations that load weights for each other, 0 for each for itself. It pays on software devices, which compute a subgroup in the lanes
/// of one vector and load for every lane by itself; there a subgroup is also known to be neighbouring invocations.
pub(super) fn share(adapter: &wgpu::Adapter) -> u32 {
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

/// Device, driver and library versions of an adapter that stores numbers like this.
pub(super) fn describe(info: &wgpu::AdapterInfo, storage: Storage) -> String {
    let wgpu::AdapterInfo { name, device_type, driver, driver_info, .. } = info;
    // What computes on the CPU does not say on which.
    let software = *device_type == wgpu::DeviceType::Cpu;
    let on = if software { format!(" on {}", cpu::model_name()) } else { String::new() };
    let stored = storage.of_device();
    format!("{name}{on} ({device_type:?}, {driver} {driver_info}, wgpu 30, {KERNELS}{stored})")
}

/// What feeds an adapter.
pub(super) fn supply(info: &wgpu::AdapterInfo) -> Supply {
    match info.device_type {
        wgpu::DeviceType::Cpu | wgpu::DeviceType::IntegratedGpu => Supply::Package,
        _ if info.vendor == NVIDIA => Supply::Nvidia(info.name.clone()),
        _ => Supply::Unseen,
    }
}

/// What storing numbers like this needs of the adapter.
pub(super) fn halves(adapter: &wgpu::Adapter, storage: Storage) -> Result<wgpu::Features, ExecError> {
    match storage {
        Storage::F32 => Ok(wgpu::Features::empty()),
        Storage::F16 if adapter.features().contains(wgpu::Features::SHADER_F16) => {
            Ok(wgpu::Features::SHADER_F16)
        }
        Storage::F16 => {
            let name = adapter.get_info().name;
            let reason = format!("adapter `{name}` has no 16-bit floats, which its storage asks for");
            let (processor, hint) = ("wgpu".to_string(), "remove it from `storage`".to_string());
            Err(ExecError::Absent { processor, reason, hint })
        }
    }
}

/// Real GPUs first, software last.
pub(super) fn rank(kind: wgpu::DeviceType) -> u8 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

pub(super) fn layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
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
