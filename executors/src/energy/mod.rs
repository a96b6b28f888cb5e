//! Energy counters of this machine: RAPL for what the CPU's package feeds, NVML for NVIDIA GPUs. They refuse to guess: what cannot be read
//! is an error with its reason.

pub mod nvml;
pub mod rapl;

use std::path::Path;
use std::time::Instant;

/// What feeds a processor, and so which counter sees its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Supply {
    /// The CPU's package: the CPU, what computes on it, GPUs on the same chip.
    Package,
    /// An NVIDIA GPU; its name, or nothing where that is not known.
    Nvidia(String),
    /// Something that no counter here sees.
    Unseen,
}

/// A counter of energy.
pub trait Counter {
    /// What it is, for people, e.g. `RAPL package-0`.
    fn name(&self) -> &str;

    /// Joules since it was opened. To be asked more often than it runs over (RAPL: about once a minute).
    ///
    /// # Errors
    /// When it cannot be read any more.
    fn joules(&mut self) -> Result<f64, String>;
}

/// The counter of a supply; `powercap` is where RAPL's folders are ([`rapl::POWERCAP`]).
///
/// # Errors
/// Why there is none.
pub fn counter(supply: &Supply, powercap: &Path) -> Result<Box<dyn Counter>, String> {
    match supply {
        Supply::Package => Ok(Box::new(rapl::Rapl::open(powercap)?)),
        Supply::Nvidia(name) => Ok(Box::new(nvml::Gpu::open(name)?)),
        Supply::Unseen => Err("nothing here counts its energy".into()),
    }
}

/// Mean watts while `work` is done.
///
/// # Errors
/// When the counter cannot be read; what `work` says is handed on.
pub fn watts<E: From<String>>(
    counter: &mut dyn Counter,
    work: impl FnOnce() -> Result<(), E>,
) -> Result<f64, E> {
    let (before, begun) = (counter.joules()?, Instant::now());
    work()?;
    let joules = counter.joules()? - before;
    Ok(joules / begun.elapsed().as_secs_f64().max(1e-9))
}
