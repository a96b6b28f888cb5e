//! The kind `adapt`: a processor of an emulated device slows down half way, and everybody plays that run with one seed: those who knew,
//! the network that learns online, the same one frozen, and baselines. Its base stands in the sweep file itself.
//! It refuses to judge who was back in time; that is in its rows.

use crate::cli::adapt::{BASELINES, FACTOR, PROCESSOR, SECONDS, WINDOW_S, pupils};
use cosched::experiments::adapt::{Adaptation, Contest, Line, SlowDown, adapt, slowed_plan};
use cosched::experiments::app::App;
use cosched::experiments::compare::Setup;
use cosched::experiments::config::ConfigError;
use cosched::experiments::sweep::Settings;
use cosched::experiments::sweep::file::Base;
use cosched::experiments::sweep::kind::{ALL, Curve, Kind, Outcome, Resolved, Row, Spec};
use cosched::experiments::sweep::{apps, keys};
use cosched::policies::learned::prepare;
use cosched::policies::online::{LIVE, arena};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// See the module's text.
pub struct Adapt;

/// The base. Paths are relative to the sweep file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// An app or case file.
    app: PathBuf,
    /// The processor that slows down.
    #[serde(default = "processor")]
    processor: String,
    /// How many times as long its launches take from then on.
    #[serde(default = "factor")]
    factor: f64,
    /// Seconds of the run.
    #[serde(default = "seconds")]
    seconds: f64,
    /// Seconds of a window in which utility is averaged.
    #[serde(default = "window_s")]
    window_s: f64,
    /// Specs of the baselines.
    #[serde(default = "baselines")]
    baselines: Vec<String>,
    /// The network; empty: the shipped one.
    #[serde(default)]
    checkpoint: PathBuf,
}

impl Config {
    fn slow_down(&self) -> SlowDown {
        SlowDown { processor: self.processor.clone(), factor: self.factor, window_s: self.window_s }
    }
}

fn processor() -> String {
    PROCESSOR.into()
}

fn factor() -> f64 {
    FACTOR
}

fn seconds() -> f64 {
    SECONDS
}

fn window_s() -> f64 {
    WINDOW_S
}

fn baselines() -> Vec<String> {
    BASELINES.split(',').map(str::to_owned).collect()
}

fn checked(config: Config) -> Result<Config, String> {
    if !(config.seconds > 0.0 && config.seconds <= 1e5) {
        return Err(format!("seconds: expected a number above 0 and at most 100000, got {}", config.seconds));
    }
    crate::cli::check_policies(&config.baselines).map_err(|e| format!("baselines: {e}"))?;
    Ok(config)
}

/// A base with some keys set.
fn changed(base: &Value, settings: &[(String, Value)]) -> Result<Config, String> {
    checked(keys::changed(base, settings)?)
}

fn beside(file: &Path, path: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

fn setup(file: &Path, config: &Config) -> Result<(App, Setup), String> {
    let app = App::read(&beside(file, &config.app)).map_err(|e| e.to_string())?;
    let setup = Setup { seconds: config.seconds, ..Setup::of(&app).map_err(|e| e.to_string())? };
    Ok((app, setup))
}

fn played(spec: &Spec, config: &Config, setup: &Setup) -> Result<Adaptation, String> {
    let checkpoint = beside(&spec.file, &config.checkpoint);
    let given = (!config.checkpoint.as_os_str().is_empty()).then(|| checkpoint.display().to_string());
    let (weights, _) = prepare("learned", given.as_deref()).map_err(|e| e.to_string())?;
    let contest = Contest {
        weights: &weights,
        retrained: None,
        pupils: &pupils(&weights, None),
        baselines: &config.baselines,
        budget: LIVE,
        arena: &|| arena(LIVE, LIVE),
        state: None,
    };
    adapt(setup, &config.slow_down(), &[spec.seed], &contest).map_err(|e| e.to_string())
}

fn numbers(line: &Line) -> BTreeMap<String, f64> {
    let first = |sample: &[f64]| sample.first().copied();
    let back = line.back.first().copied().flatten();
    let some = [
        // What counts is what comes after the slow-down.
        ("utility", first(&line.after)),
        ("before", first(&line.before)),
        ("settled", first(&line.settled)),
        ("total", first(&line.total)),
        ("is_back", Some(f64::from(u8::from(back.is_some())))),
        ("back_requests", back.map(|b| b.requests)),
        ("back_s", back.map(|b| b.seconds)),
    ];
    some.into_iter().filter_map(|(name, v)| Some((name.to_owned(), v?))).collect()
}

impl Kind for Adapt {
    fn name(&self) -> &'static str {
        "adapt"
    }

    fn about(&self) -> &'static str {
        "a processor slows down half way, for who learns online and who does not"
    }

    fn has_policies(&self) -> bool {
        false
    }

    fn base(&self, base: &Base, folder: &Path) -> Result<(PathBuf, Value), ConfigError> {
        let file = folder.join("sweep.toml");
        let wrong = |problem: String| ConfigError::new(folder, format!("base: {problem}"));
        let config = keys::inline(base, folder, "{ app = \"...\", processor = \"...\", ... }")?;
        let config = checked(config).map_err(wrong)?;
        setup(&file, &config).map_err(wrong)?;
        Ok((file, serde_json::to_value(config).unwrap_or_default()))
    }

    fn resolve(&self, file: &Path, base: &Value, settings: &Settings) -> Result<Resolved, String> {
        let config = changed(base, settings)?;
        let (app, setup) = setup(file, &config)?;
        slowed_plan(&setup, &config.slow_down()).map_err(|e| e.to_string())?;
        let mut inputs = vec![beside(file, &config.app), app.plan_path().map_err(|e| e.to_string())?];
        inputs.extend(app.device.iter().map(|d| app.resolve(d)));
        if !config.checkpoint.as_os_str().is_empty() {
            inputs.push(beside(file, &config.checkpoint));
        }
        Ok(Resolved { config: serde_json::to_value(config).map_err(|e| e.to_string())?, inputs })
    }

    fn check_key(&self, _: &Path, base: &Value, (key, value): (&str, &Value)) -> Result<(), String> {
        changed(base, &[(key.to_owned(), value.clone())]).map(drop)
    }

    fn run(&self, spec: &Spec, _: &Arc<AtomicBool>) -> Result<Outcome, String> {
        let config = checked(keys::parse(spec.config.clone())?)?;
        let (app, setup) = setup(&spec.file, &config)?;
        let shown = played(spec, &config, &setup)?;
        let settings: Settings = spec.settings.iter().filter(|(key, _)| key != "app").cloned().collect();
        let group = apps::group(&app.name, &settings);
        let row = |line: &Line| Row {
            group: group.clone(),
            contender: line.name.clone(),
            scenario: app.name.clone(),
            device: apps::device_name(&app),
            unit: format!("seed {}", spec.seed),
            stream: ALL.into(),
            numbers: numbers(line),
        };
        // A window's value stands at its middle.
        let middle = |w: usize| (w as f64 + 0.5) * config.window_s;
        let curve = |line: &Line| Curve {
            what: "adaptation".into(),
            group: group.clone(),
            contender: line.name.clone(),
            name: ALL.into(),
            points: line.windows.iter().enumerate().map(|(w, &u)| (middle(w), u)).collect(),
        };
        Ok(Outcome {
            rows: shown.lines.iter().map(row).collect(),
            curves: shown.lines.iter().map(curve).collect(),
            ..Outcome::default()
        })
    }

    fn estimate(&self, _: &Spec) -> Option<f64> {
        // The learner takes most of it; a finished cell tells how long.
        None
    }
}
