//! The device file: a plan and what the device does beyond it, in one place, for any number of app files.
//! It refuses unknown keys and impossible values with the line where they stand; it makes no case and emulates nothing.

use super::{App, check};
use crate::config::{ConfigError, parse_toml, read_text, suggestion};
use cosched_env::device::{Bandwidth, Device, ProcessorModel, Thermal};
use cosched_env::emulator::{self, Fault};
use cosched_env::plan::Plan;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A device file, checked. See the module's text; every key is a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceFile {
    /// Name for reports.
    pub name: String,
    /// What it is, in a sentence.
    #[serde(default)]
    pub about: String,
    /// The plan, relative to the device file.
    pub plan: PathBuf,
    /// Where the numbers come from and what is assumed: free text under free keys.
    #[serde(default)]
    pub source: BTreeMap<String, String>,
    /// See [`Device::bandwidth`].
    #[serde(default)]
    pub bandwidth: Option<Bandwidth>,
    /// See [`Device::thermal`].
    #[serde(default)]
    pub thermal: Option<Thermal>,
    /// See [`Device::processors`].
    #[serde(rename = "processor", default)]
    pub processors: BTreeMap<String, ProcessorModel>,
    /// Probability that a launch fails, besides what the app file says.
    #[serde(default)]
    pub failure_rate: f64,
    /// Outages, besides those of the app file.
    #[serde(rename = "fault", default)]
    pub faults: Vec<Fault>,
    /// Where it was read from.
    #[serde(skip)]
    pub file: PathBuf,
}

impl DeviceFile {
    /// Reads and checks a device file by itself; whether it fits its plan is seen when a case is made.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the key.
    pub fn read(path: &Path) -> Result<DeviceFile, ConfigError> {
        let text = read_text(path)?;
        let mut device: DeviceFile = parse_toml(&text, path)?;
        device.file = path.to_owned();
        check::share("failure_rate", device.failure_rate)
            .and_then(|()| check::faults("fault", &device.faults))
            .map_err(|(key, problem)| ConfigError::at_key(path, &text, &key, &problem))?;
        Ok(device)
    }

    /// Where the plan is.
    pub fn plan_path(&self) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(&self.plan)
    }

    /// An error about a key of this file.
    pub(super) fn at(&self, key: &str, problem: &str) -> ConfigError {
        ConfigError::at_key(&self.file, &read_text(&self.file).unwrap_or_default(), key, problem)
    }

    /// The part that the core knows.
    pub fn device(&self) -> Device {
        // Every field by name: one that the core gets is missed here at once.
        Device {
            bandwidth: self.bandwidth.clone(),
            thermal: self.thermal,
            processors: self.processors.clone(),
        }
    }

    /// Refuses processors that the plan does not have.
    pub(super) fn check_names(&self, plan: &Plan) -> Result<(), ConfigError> {
        let known: Vec<&str> = plan.processors.iter().map(|p| p.name.as_str()).collect();
        let check = |key: String, name: &str| {
            if known.contains(&name) {
                return Ok(());
            }
            let near = suggestion(name, known.iter().copied());
            Err(self.at(&key, &format!("the plan has no processor `{name}`{near}")))
        };
        for name in self.processors.keys() {
            check(format!("processor.{name}"), name)?;
        }
        let mut faults = self.faults.iter().enumerate();
        faults.try_for_each(|(i, f)| check(format!("fault[{i}].processor"), &f.processor))
    }
}

impl App {
    /// The device file, when the app names one.
    ///
    /// # Errors
    /// As [`DeviceFile::read`].
    pub fn device_file(&self) -> Result<Option<DeviceFile>, ConfigError> {
        self.device.as_ref().map(|path| DeviceFile::read(&self.resolve(path))).transpose()
    }

    /// How the emulated device departs from its plan: what the app file says, with the faults of the device file added. A launch
    /// fails when either says so: `1 - (1 - a) (1 - b)`.
    ///
    /// # Errors
    /// As [`App::device_file`].
    pub fn emulator_config(&self) -> Result<emulator::Config, ConfigError> {
        let mut config = self.emulator.clone();
        if let Some(device) = self.device_file()? {
            config.failure_rate += device.failure_rate * (1.0 - config.failure_rate);
            config.faults.extend(device.faults);
        }
        Ok(config)
    }
}
