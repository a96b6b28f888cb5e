//! NVML, NVIDIA's library beside the driver: the energy counter of a GPU, and the driver's version. It is looked for when it is needed,
//! and its absence is an error like any other.

use super::Counter;
use nvml_wrapper::Nvml;

/// The counter of one GPU.
pub struct Gpu {
    nvml: Nvml,
    index: u32,
    name: String,
    begun_mj: u64,
}

fn said(e: &nvml_wrapper::error::NvmlError) -> String {
    format!("NVML: {e}")
}

impl Gpu {
    /// The GPU whose name is part of `name` or the other way round, e.g. of `NVIDIA H100 (DiscreteGpu, ...)`; the first where none is.
    ///
    /// # Errors
    /// When there is no NVIDIA driver or no GPU, or the GPU does not count energy (those before Volta do not).
    pub fn open(name: &str) -> Result<Gpu, String> {
        let nvml = Nvml::init().map_err(|e| said(&e))?;
        let count = nvml.device_count().map_err(|e| said(&e))?;
        let of = |index| nvml.device_by_index(index).and_then(|gpu| gpu.name()).unwrap_or_default();
        let alike = |gpu: &str| !gpu.is_empty() && (name.contains(gpu) || gpu.contains(name));
        let index = (0..count).find(|&index| alike(&of(index))).unwrap_or(0);
        let gpu = nvml.device_by_index(index).map_err(|e| said(&e))?;
        let begun_mj = gpu.total_energy_consumption().map_err(|e| said(&e))?;
        let name = format!("NVML {}", of(index));
        Ok(Gpu { index, name, begun_mj, nvml })
    }
}

impl Counter for Gpu {
    fn name(&self) -> &str {
        &self.name
    }

    fn joules(&mut self) -> Result<f64, String> {
        let gpu = self.nvml.device_by_index(self.index).map_err(|e| said(&e))?;
        let mj = gpu.total_energy_consumption().map_err(|e| said(&e))?;
        Ok(mj.saturating_sub(self.begun_mj) as f64 / 1e3)
    }
}

/// Name of the first GPU and version of its driver, where there is one.
pub fn driver() -> Option<String> {
    let nvml = Nvml::init().ok()?;
    let name = nvml.device_by_index(0).ok()?.name().ok()?;
    Some(format!("{name}, driver {}", nvml.sys_driver_version().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_is_said_and_presence_counts() {
        match Gpu::open("") {
            Err(problem) => assert!(problem.starts_with("NVML: ") && driver().is_none(), "{problem}"),
            Ok(mut gpu) => {
                assert!(driver().is_some() && gpu.name().starts_with("NVML "));
                assert!(gpu.joules().unwrap() >= 0.0);
            }
        }
    }
}
