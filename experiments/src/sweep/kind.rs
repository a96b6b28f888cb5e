//! What a cell is and what comes of it: the one interface between sweeps and the things that they run. A kind is a row of a table
//! that the caller hands over, so that a kind which needs a device or a learner can live above this crate.
//! It refuses to know any kind by name.

use super::apps;
use super::axes::Settings;
use super::file::Base;
use crate::config::ConfigError;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A cell, with everything resolved that it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Name of its kind.
    pub kind: String,
    /// Spec of its policy; empty for kinds without one.
    pub policy: String,
    /// Its seed.
    pub seed: u64,
    /// Values of the axes, policy and seed left out.
    pub settings: Settings,
    /// Where relative paths of the config begin: the file that the config was read from.
    pub file: PathBuf,
    /// The config with everything filled in.
    pub config: Value,
    /// Files beside the config that the result hangs on.
    pub inputs: Vec<PathBuf>,
    /// Set where the cell is no run of a policy but a search for the bound; its policy is called [`crate::bound::NAME`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
}

/// A search for the best run that could be made of a seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Changes that it may try.
    pub evaluations: u64,
    /// Specs of the policies that it begins from: all of the sweep.
    pub policies: Vec<String>,
}

/// A config that makes sense.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The config with everything filled in.
    pub config: Value,
    /// Files beside it that the result hangs on.
    pub inputs: Vec<PathBuf>,
}

/// One line of the final table: a stream of a cell, or all of them together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What is compared with each other stands in one group.
    pub group: String,
    /// What is compared: a policy, or a recipe of a training.
    pub contender: String,
    /// Name of the scenario.
    pub scenario: String,
    /// Name of the device.
    pub device: String,
    /// What two contenders have in common where they are compared in pairs, e.g. `seed 1`.
    pub unit: String,
    /// The stream, or `all`.
    pub stream: String,
    /// Its numbers by name.
    pub numbers: BTreeMap<String, f64>,
}

/// The stream of a row that speaks for all streams.
pub const ALL: &str = "all";

/// A curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// `latency` (milliseconds, share of requests answered within), `learning` (decisions, utility) or `adaptation`
    /// (seconds, utility).
    pub what: String,
    /// As in [`Row::group`].
    pub group: String,
    /// As in [`Row::contender`].
    pub contender: String,
    /// The stream, or what else it is of.
    pub name: String,
    /// Its points, x ascending.
    pub points: Vec<(f64, f64)>,
}

/// What came of a cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// One line a stream.
    pub rows: Vec<Row>,
    /// Curves for the report.
    pub curves: Vec<Curve>,
    /// A stretch of the timeline as SVG.
    pub gantt: Option<String>,
    /// Where the numbers come from: plan, processors, provenance.
    pub about: BTreeMap<String, String>,
    /// What was measured of this machine and so is never the same twice; it stays out of the table.
    pub measured: BTreeMap<String, f64>,
}

/// A kind of cell. Its base is an app file, where it does not say otherwise.
pub trait Kind: Sync {
    /// What people write.
    fn name(&self) -> &'static str;

    /// One line of help.
    fn about(&self) -> &'static str;

    /// Whether a cell needs the machine for itself, because it measures time.
    fn alone(&self) -> bool {
        false
    }

    /// Whether the policies of the file are an axis.
    fn has_policies(&self) -> bool {
        true
    }

    /// Whether it can search for the bound.
    fn has_bound(&self) -> bool {
        false
    }

    /// The file that relative paths of the config are told from, and the config with every key filled in, so that it is known which
    /// keys there are.
    ///
    /// # Errors
    /// A base that cannot be read or is no config of this kind. `folder` is that of the sweep file, for bases without a file.
    fn base(&self, base: &Base, folder: &Path) -> Result<(PathBuf, Value), ConfigError> {
        apps::base(base, folder)
    }

    /// Changes a base and checks what comes of it.
    ///
    /// # Errors
    /// An unknown key, a value of a wrong type, or what makes no sense, with the key.
    fn resolve(&self, file: &Path, base: &Value, settings: &Settings) -> Result<Resolved, String> {
        apps::resolve(file, base, settings)
    }

    /// As [`Kind::resolve`], but a value that only makes no sense beside others is let through.
    ///
    /// # Errors
    /// An unknown key, or a value of a wrong type.
    fn check_key(&self, file: &Path, base: &Value, setting: (&str, &Value)) -> Result<(), String> {
        apps::check_key(file, base, setting)
    }

    /// Runs a cell. A kind that takes long looks at `stop` now and then and gives up with an error once it is true.
    ///
    /// # Errors
    /// Why it failed.
    fn run(&self, spec: &Spec, stop: &Arc<AtomicBool>) -> Result<Outcome, String>;

    /// About how many seconds a cell takes on one core, by trying a little of it; `None` when that cannot be told.
    fn estimate(&self, spec: &Spec) -> Option<f64>;
}
