//! The kinds `run` and `fidelity`: an app's models live on this machine, alone or beside their emulated twin.
//! They refuse to share the machine: their cells run one at a time.

use cosched::env::plan::Plan;
use cosched::experiments::app::{App, Model, read_plan};
use cosched::experiments::sweep::Settings;
use cosched::experiments::sweep::apps;
use cosched::experiments::sweep::kind::{ALL, Kind, Outcome, Resolved, Row, Spec};
use cosched::fidelity::{self, pair};
use cosched::session::{RunOptions, Session, SessionOptions};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// An app's streams live.
pub struct Run;

/// An app's streams live and emulated. The device is profiled before each cell.
pub struct Fidelity;

/// About how long opening and profiling takes, in seconds.
const PREPARING_S: f64 = 15.0;

fn resolve(file: &Path, base: &Value, settings: &Settings, planned: bool) -> Result<Resolved, String> {
    let mut resolved = apps::resolve(file, base, settings)?;
    let app = apps::with(file, base, settings)?;
    // A plan that is not there yet is made; one that is made anew for each cell says nothing.
    resolved.inputs.retain(|path| planned && path.exists());
    let variants = app.tasks.iter().flat_map(|t| &t.variants);
    resolved.inputs.extend(variants.filter_map(|v| match app.model(v) {
        Model::File(path) => Some(path),
        Model::Zoo(_) => None,
    }));
    Ok(resolved)
}

fn open(app: &App) -> Result<Session, String> {
    Session::open(app, &SessionOptions::default(), &mut |_, _, _| {}).map_err(|e| e.to_string())
}

/// The app's plan if it is there and of this machine, else a new one.
fn plan(session: &Session, app: &App) -> Result<Plan, String> {
    let path = app.plan_path().map_err(|e| e.to_string())?;
    if path.exists() {
        let plan = read_plan(&path).map_err(|e| e.to_string())?;
        session.fits(&plan).map_err(|problem| format!("{}: {problem}", path.display()))?;
        return Ok(plan);
    }
    session.profile(app, &mut |_, _, _| {}).map_err(|e| e.to_string())
}

fn options(spec: &Spec, app: &App, stop: &Arc<AtomicBool>) -> RunOptions {
    RunOptions {
        seed: Some(spec.seed),
        seconds: Some(app.seconds),
        record: None,
        stop: stop.clone(),
        online: None,
    }
}

impl Kind for Run {
    fn name(&self) -> &'static str {
        "run"
    }

    fn about(&self) -> &'static str {
        "a policy on an app, live on this machine"
    }

    fn alone(&self) -> bool {
        true
    }

    fn resolve(&self, file: &Path, base: &Value, settings: &Settings) -> Result<Resolved, String> {
        resolve(file, base, settings, true)
    }

    fn run(&self, spec: &Spec, stop: &Arc<AtomicBool>) -> Result<Outcome, String> {
        let app = apps::app(spec)?;
        let session = open(&app)?;
        let case = app.case_of(plan(&session, &app)?).map_err(|e| e.to_string())?;
        let live = session.run(&app, case.clone(), &spec.policy, options(spec, &app, stop));
        let live = live.map_err(|e| e.to_string())?;
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err("stopped".into());
        }
        let mut outcome = apps::outcome(spec, &app, &case, &live.log);
        let us = live.decision_ns.iter().map(|&ns| ns as f64 / 1e3).sum::<f64>();
        outcome.measured.insert("decision_us".into(), us / live.decision_ns.len().max(1) as f64);
        Ok(outcome)
    }

    fn estimate(&self, spec: &Spec) -> Option<f64> {
        Some(spec.config["seconds"].as_f64()? + PREPARING_S)
    }
}

fn numbers(row: &fidelity::Row) -> BTreeMap<String, f64> {
    let some = [
        ("mean_error", row.mean_error),
        ("p95_error", row.p95_error),
        ("on_time_error", Some(row.on_time_error)),
        ("live_mean_ms", row.live.mean_ms),
        ("emulated_mean_ms", row.emulated.mean_ms),
        ("live_p95_ms", row.live.p95_ms),
        ("emulated_p95_ms", row.emulated.p95_ms),
        ("live_on_time_share", Some(row.live.on_time_share)),
        ("emulated_on_time_share", Some(row.emulated.on_time_share)),
        ("requests", Some(row.live.requests as f64)),
    ];
    some.into_iter().filter_map(|(name, v)| Some((name.to_owned(), v?))).collect()
}

impl Kind for Fidelity {
    fn name(&self) -> &'static str {
        "fidelity"
    }

    fn about(&self) -> &'static str {
        "how far the emulated device is from this machine"
    }

    fn alone(&self) -> bool {
        true
    }

    fn resolve(&self, file: &Path, base: &Value, settings: &Settings) -> Result<Resolved, String> {
        resolve(file, base, settings, false)
    }

    fn run(&self, spec: &Spec, stop: &Arc<AtomicBool>) -> Result<Outcome, String> {
        let app = apps::app(spec)?;
        let session = open(&app)?;
        let plan = session.profile(&app, &mut |_, _, _| {}).map_err(|e| e.to_string())?;
        let case = app.case_of(plan).map_err(|e| e.to_string())?;
        let pair = pair(&session, &app, &case, &spec.policy, options(spec, &app, stop));
        let pair = pair.map_err(|e| e.to_string())?;
        if stop.load(std::sync::atomic::Ordering::Relaxed) {
            return Err("stopped".into());
        }
        let row = |r: &fidelity::Row| Row {
            group: apps::group(&app.name, &spec.settings),
            contender: spec.policy.clone(),
            scenario: app.name.clone(),
            device: "this machine".into(),
            unit: format!("seed {}", spec.seed),
            // The row of all tasks is called as ours is.
            stream: if r.name == "all" { ALL.into() } else { r.name.clone() },
            numbers: numbers(r),
        };
        let measured = BTreeMap::from([("decision_us".to_owned(), pair.decision_us)]);
        Ok(Outcome { rows: pair.rows.iter().map(row).collect(), measured, ..Outcome::default() })
    }

    fn estimate(&self, spec: &Spec) -> Option<f64> {
        Some(spec.config["seconds"].as_f64()? * 1.1 + PREPARING_S)
    }
}
