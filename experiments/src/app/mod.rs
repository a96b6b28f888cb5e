//! The app file: which models serve which tasks, which streams ask for them, and under what conditions. It serves live runs and
//! profiling; without `[[task]]` it is a case file for emulated runs of a plan that is there already.
//! It refuses unknown keys and impossible values with the line where they stand; it opens no model.

mod case;
mod check;
pub mod device;
mod dsp;
mod trace;

pub use dsp::{Calibration, Dsp, Pace};
pub use trace::read_trace;

use crate::config::{ConfigError, parse_toml, read_json, read_text, suggestion};
use cosched_env::emulator;
use cosched_env::objective::Objective;
use cosched_env::plan::Plan;
use cosched_env::scenario::{Scenario, Stream};
use cosched_env::scheduler;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which processors to use.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Processors {
    /// All that are found, in the caller's order.
    #[default]
    All,
    /// These, in this order.
    Named(Vec<String>),
}

impl Serialize for Processors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Processors::All => serializer.serialize_str("all"),
            Processors::Named(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Processors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Processors;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"all\" or a list of processor names")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Processors, E> {
                if word == "all" {
                    return Ok(Processors::All);
                }
                Err(E::invalid_value(de::Unexpected::Str(word), &self))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Processors, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = seq.next_element()? {
                    names.push(name);
                }
                Ok(Processors::Named(names))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// How models are cut.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Segments {
    /// Most segments of a variant.
    pub max: usize,
    /// Least share of the variant's work that a segment holds, 0 to 1.
    pub min_share: f64,
}

impl Default for Segments {
    fn default() -> Self {
        Self { max: 6, min_share: 0.05 }
    }
}

/// Power of a processor where the caller's default is not right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Power {
    /// Watts while running.
    pub active_watts: Option<f64>,
    /// Watts while idle.
    pub idle_watts: Option<f64>,
}

/// A task and the models that can serve it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Name, as streams call it.
    pub name: String,
    /// Ways to serve it; at least one.
    #[serde(rename = "variant", default)]
    pub variants: Vec<Variant>,
}

/// One model of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// An ONNX file, relative to the app file, or `zoo:NAME`.
    pub model: String,
    /// Accuracy in (0, 1], by the task's own measure.
    pub accuracy: f64,
    /// Name, unique in the file; by default the model's.
    #[serde(default)]
    pub name: Option<String>,
    /// Example inputs (`.npz`, `.npy` or a folder of them), relative to the app file: they calibrate int8, feed the profile and are what live
    /// streams ask about; random numbers when absent.
    #[serde(default)]
    pub samples: Option<PathBuf>,
}

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// A zoo model of this name, written on demand.
    Zoo(String),
    /// An ONNX file.
    File(PathBuf),
}

impl Variant {
    /// Name in the plan: the given one, or the zoo name, or the file's name without its ending.
    pub fn plan_name(&self) -> String {
        match (&self.name, self.model.strip_prefix("zoo:")) {
            (Some(name), _) => name.clone(),
            (None, Some(zoo)) => zoo.to_owned(),
            (None, None) => match Path::new(&self.model).file_stem() {
                Some(stem) => stem.to_string_lossy().into_owned(),
                None => self.model.clone(),
            },
        }
    }
}

/// A part of this machine's CPU as a processor of its own, so that big and little cores, or two halves, are two processors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Name of the processor.
    pub name: String,
    /// What it is a part of; `cpu` is what can be divided.
    #[serde(default = "cpu")]
    pub kind: String,
    /// Threads that compute one launch; by default as many as it has cores.
    #[serde(default)]
    pub threads: Option<usize>,
    /// Numbers of the cores that they run on; anywhere when there are none.
    #[serde(default)]
    pub cores: Vec<usize>,
}

impl Part {
    /// Threads that compute one launch.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or(self.cores.len()).max(1)
    }
}

/// How a GPU processor stores tensors and weights; it computes in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// 32 bits.
    F32,
    /// 16 bits.
    F16,
}

/// A server of the Open Inference Protocol v2 that runs whole models as a processor does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// Name of the processor, by default `remote`.
    #[serde(default = "remote")]
    pub name: String,
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: String,
    /// A launch that takes longer, in milliseconds, counts as a link that failed.
    #[serde(default = "two_thousand")]
    pub timeout_ms: f64,
    /// PEM file of the certificates that are trusted with https, relative to the app file.
    #[serde(default)]
    pub trusted: Option<PathBuf>,
    /// Name of the environment variable that holds a bearer token.
    #[serde(default)]
    pub token_variable: Option<String>,
    /// What our variants are called there: MODEL, or MODEL:VARIANT of another cosched. One that is not here is looked for as a model of its
    /// own name, then as a variant of the model with its task's name.
    #[serde(default)]
    pub models: BTreeMap<String, String>,
}

/// An app file, checked. See the module's text; every key is a field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Name for reports.
    pub name: String,
    /// Processors to use.
    #[serde(default)]
    pub processors: Processors,
    /// The plan, relative to the app file; `plan.json` when there is neither a plan nor a device.
    #[serde(default)]
    pub plan: Option<PathBuf>,
    /// A device file instead of a plan, relative to the app file; see [`device::DeviceFile`].
    #[serde(default)]
    pub device: Option<PathBuf>,
    /// Length of a run in seconds.
    #[serde(default = "twenty")]
    pub seconds: f64,
    /// Seed of the arrivals and the emulated device.
    #[serde(default = "one")]
    pub seed: u64,
    /// How models are cut.
    #[serde(default)]
    pub segments: Segments,
    /// Power by processor name.
    #[serde(default)]
    pub power: BTreeMap<String, Power>,
    /// Parts of the CPU that are processors; without a list in `processors` they are used instead of the whole.
    #[serde(rename = "processor", default)]
    pub parts: Vec<Part>,
    /// Launches that run at a time on a processor, by its name, where that is not one: what profiling writes into the plan. Each has a
    /// thread and working memory of its own.
    #[serde(default)]
    pub slots: BTreeMap<String, u32>,
    /// How GPU processors store numbers, by their names, where that is not f32: a plan is of one way.
    #[serde(default)]
    pub storage: BTreeMap<String, Storage>,
    /// How the `dsp` computes.
    #[serde(default)]
    pub dsp: Dsp,
    /// Servers that are processors.
    #[serde(rename = "remote", default)]
    pub remotes: Vec<Remote>,
    /// Tasks with their models; empty in a case file.
    #[serde(rename = "task", default)]
    pub tasks: Vec<Task>,
    /// Sources of requests; at least one.
    #[serde(rename = "stream", default)]
    pub streams: Vec<Stream>,
    /// What an answer is worth.
    #[serde(default)]
    pub objective: Objective,
    /// How the emulated device departs from the plan.
    #[serde(default)]
    pub emulator: emulator::Config,
    /// Limits of the scheduler.
    #[serde(default)]
    pub scheduler: scheduler::Options,
    /// Where it was read from; relative paths start at its folder.
    #[serde(skip)]
    pub file: PathBuf,
}

fn twenty() -> f64 {
    20.0
}
fn cpu() -> String {
    "cpu".into()
}
fn remote() -> String {
    "remote".into()
}
fn two_thousand() -> f64 {
    2000.0
}
fn one() -> u64 {
    1
}

/// Reads a plan.
///
/// # Errors
/// As [`read_json`], saying that the file is no plan and how one is made.
pub fn read_plan(path: &Path) -> Result<Plan, ConfigError> {
    read_json(path).map_err(|e| ConfigError {
        problem: format!("not a plan ({}); `cosched profile` makes one", e.problem),
        ..e
    })
}

impl App {
    /// Reads and checks an app file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the line and the key.
    pub fn read(path: &Path) -> Result<App, ConfigError> {
        App::parse(&read_text(path)?, path)
    }

    /// As [`App::read`], from text.
    ///
    /// # Errors
    /// As [`App::read`].
    pub fn parse(text: &str, path: &Path) -> Result<App, ConfigError> {
        let mut app: App = parse_toml(text, path)?;
        app.file = path.to_owned();
        app.read_traces(text)?;
        app.check().map_err(|(key, problem)| ConfigError::at_key(path, text, &key, &problem))?;
        Ok(app)
    }

    /// A path of the file, made absolute from the file's folder.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Where the plan is: beside the app file, or where its device file says.
    ///
    /// # Errors
    /// As [`App::device_file`].
    pub fn plan_path(&self) -> Result<PathBuf, ConfigError> {
        match self.device_file()? {
            Some(device) => Ok(device.plan_path()),
            None => Ok(self.resolve(self.plan.as_deref().unwrap_or(Path::new("plan.json")))),
        }
    }

    /// Where a variant's model comes from.
    pub fn model(&self, variant: &Variant) -> Model {
        match variant.model.strip_prefix("zoo:") {
            Some(name) => Model::Zoo(name.to_owned()),
            None => Model::File(self.resolve(Path::new(&variant.model))),
        }
    }

    /// The scenario: its streams and objective.
    pub fn scenario(&self) -> Scenario {
        Scenario { name: self.name.clone(), streams: self.streams.clone(), objective: self.objective }
    }

    /// The remote servers that `processors` names, or all of them, in the order of the file.
    pub fn chosen_remotes(&self) -> impl Iterator<Item = &Remote> {
        let chosen = |r: &&Remote| match &self.processors {
            Processors::All => true,
            Processors::Named(names) => names.contains(&r.name),
        };
        self.remotes.iter().filter(chosen)
    }

    /// The processors to use among `known` names: all of them, or those that the file names, in its order.
    ///
    /// # Errors
    /// A name in `processors`, `[power]`, `[slots]` or `[storage]` that is not known, with the nearest known one.
    pub fn choose_processors<'a>(&self, known: &[&'a str]) -> Result<Vec<&'a str>, ConfigError> {
        let find = |key: String, name: &str| {
            known.iter().copied().find(|k| *k == name).ok_or_else(|| {
                let problem =
                    format!("unknown processor `{name}`{}", suggestion(name, known.iter().copied()));
                let text = read_text(&self.file).unwrap_or_default();
                ConfigError::at_key(&self.file, &text, &key, &problem)
            })
        };
        for name in self.power.keys() {
            find(format!("power.{name}"), name)?;
        }
        for name in self.slots.keys() {
            find(format!("slots.{name}"), name)?;
        }
        for name in self.storage.keys() {
            find(format!("storage.{name}"), name)?;
        }
        match &self.processors {
            Processors::All => Ok(known.to_vec()),
            Processors::Named(names) => {
                names.iter().enumerate().map(|(i, n)| find(format!("processors[{i}]"), n)).collect()
            }
        }
    }
}
