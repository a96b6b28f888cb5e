//! The kind `train`: one training of a train file with one seed, its learning curve, and its scores on the cases of the file.
//! It refuses to write a checkpoint: `cosched train` does that.

use crate::cli::compare::maker;
use crate::cli::train::{TRAINED, TrainFile, guidance, score, setups, sources, teacher};
use cosched::agent::checkpoint;
use cosched::agent::train::{Start, Training};
use cosched::experiments::app::App;
use cosched::experiments::compare::{Comparison, Row as Scored};
use cosched::experiments::config::{ConfigError, read_toml};
use cosched::experiments::sweep::Settings;
use cosched::experiments::sweep::apps::short;
use cosched::experiments::sweep::file::Base;
use cosched::experiments::sweep::keys;
use cosched::experiments::sweep::kind::{ALL, Curve, Kind, Outcome, Resolved, Row, Spec};
use serde_json::Value;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module's text.
pub struct Train;

/// What is compared: how the recipe was changed.
fn contender(spec: &Spec) -> String {
    let words: Vec<String> = spec
        .settings
        .iter()
        .map(|(k, v)| format!("{} {}", k.trim_start_matches("recipe."), short(v)))
        .collect();
    if words.is_empty() { "as written".into() } else { words.join(", ") }
}

fn numbers(row: &Scored) -> BTreeMap<String, f64> {
    let some = [
        ("utility", Some(row.utility)),
        ("on_time_share", Some(row.on_time_share)),
        ("p50_ms", row.p50_ms),
        ("p95_ms", row.p95_ms),
        ("p99_ms", row.p99_ms),
        ("accuracy", row.accuracy),
        ("energy_mj", Some(row.energy_mj)),
        ("fairness", Some(row.fairness)),
    ];
    some.into_iter().filter_map(|(name, e)| Some((name.to_owned(), e?.mean))).collect()
}

/// What a training in memory gives.
struct InMemory {
    /// Decisions learned from, and utility while learning.
    curve: Vec<(f64, f64)>,
    /// Scores on each case, with seeds that training never uses.
    scores: Vec<Comparison>,
}

/// A training of the train file at `path` that writes nothing, for sweeps.
///
/// # Errors
/// As the command's; that it was stopped.
fn in_memory(file: &TrainFile, path: &Path, stop: &AtomicBool) -> Result<InMemory, Box<dyn Error>> {
    file.recipe.check()?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let setups = setups(file, path)?;
    for (_, setup) in &setups {
        file.teacher.as_ref().map(|spec| maker(spec, &setup.case)).transpose()?;
    }
    let start = file.start.as_ref().map(|path| checkpoint::load(&folder.join(path))).transpose()?;
    let (teacher, scout) = (teacher(file), file.guides.scout());
    let start = start.as_ref().map_or(Start::Scratch, |(weights, _)| Start::Weights(weights));
    let sources = sources(&setups);
    let mut training = Training::new(&sources, &file.recipe, guidance(file, &scout, &teacher), start)?;
    let mut curve = Vec::new();
    while let Some(p) = training.step()? {
        if !p.utility.is_nan() {
            curve.push((p.decisions as f64, p.utility));
        }
        if stop.load(Ordering::Relaxed) {
            return Err("stopped".into());
        }
    }
    let scores = score(file, &setups, training.weights(), vec![TRAINED.to_owned()])?;
    Ok(InMemory { curve, scores })
}

impl Kind for Train {
    fn name(&self) -> &'static str {
        "train"
    }

    fn about(&self) -> &'static str {
        "a training, scored on its cases"
    }

    fn has_policies(&self) -> bool {
        false
    }

    fn base(&self, base: &Base, folder: &Path) -> Result<(PathBuf, Value), ConfigError> {
        let Base::File(path) = base else {
            return Err(ConfigError::new(folder, "base: expected the path of a train file"));
        };
        let file: TrainFile = read_toml(path)?;
        let value = serde_json::to_value(file).map_err(|e| ConfigError::new(path, e.to_string()))?;
        Ok((path.clone(), value))
    }

    fn resolve(&self, file: &Path, base: &Value, settings: &Settings) -> Result<Resolved, String> {
        let mut train: TrainFile = keys::changed(base, settings)?;
        // Where a checkpoint would go says nothing about the training.
        train.out = PathBuf::new();
        train.recipe.check().map_err(|e| e.to_string())?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut inputs: Vec<PathBuf> = train.start.iter().map(|p| folder.join(p)).collect();
        for case in &train.cases {
            let path = folder.join(case);
            let app = App::read(&path).map_err(|e| e.to_string())?;
            inputs.extend(app.device.iter().map(|d| app.resolve(d)));
            inputs.push(app.plan_path().map_err(|e| e.to_string())?);
            inputs.push(path);
        }
        Ok(Resolved { config: serde_json::to_value(&train).map_err(|e| e.to_string())?, inputs })
    }

    fn check_key(&self, _: &Path, base: &Value, (key, value): (&str, &Value)) -> Result<(), String> {
        keys::changed(base, &[(key.to_owned(), value.clone())]).map(|_: TrainFile| ())
    }

    fn run(&self, spec: &Spec, stop: &Arc<AtomicBool>) -> Result<Outcome, String> {
        let mut file: TrainFile = keys::parse(spec.config.clone())?;
        file.recipe.seed = spec.seed;
        let learned = in_memory(&file, &spec.file, stop).map_err(|e| e.to_string())?;
        let row = |(comparison, case): (&Comparison, &PathBuf)| Row {
            group: comparison.scenario.clone(),
            contender: contender(spec),
            scenario: comparison.scenario.clone(),
            device: short(&Value::from(case.to_string_lossy().into_owned())),
            unit: format!("seed {}", spec.seed),
            stream: ALL.into(),
            numbers: comparison.rows.first().map(numbers).unwrap_or_default(),
        };
        let rows = learned.scores.iter().zip(&file.cases).map(row).collect();
        let curve = Curve {
            what: "learning".into(),
            group: "all cases".into(),
            contender: contender(spec),
            name: ALL.into(),
            points: learned.curve,
        };
        Ok(Outcome { rows, curves: vec![curve], ..Outcome::default() })
    }

    fn estimate(&self, _: &Spec) -> Option<f64> {
        // How fast a learner is depends on the machine and the recipe; a finished cell tells.
        None
    }
}
