//! What the kinds share whose base is an app file: its keys, `load` and what it is a share of, the files that it hangs on, and rows, curves and a timeline of a run.
//! It refuses to run anything.

use super::axes::Settings;
use super::file::Base;
use super::keys;
use super::kind::{ALL, Curve, Outcome, Resolved, Row, Spec};
use crate::app::App;
use crate::config::ConfigError;
use crate::html::timeline_svg;
use crate::log::RunLog;
use crate::summary::{Requests, Summary};
use cosched_env::capacity::capacity;
use cosched_env::case::Case;
use cosched_env::event::{Ended, Outcome as End};
use cosched_env::time::{Span, Time};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The app file of a base, as data. As [`super::kind::Kind::base`].
///
/// # Errors
/// As [`App::read`]; a base that is no file.
pub fn base(base: &Base, folder: &Path) -> Result<(PathBuf, Value), ConfigError> {
    let Base::File(path) = base else {
        return Err(ConfigError::new(folder, "base: expected the path of an app file"));
    };
    let app = App::read(path)?;
    let value = serde_json::to_value(&app).map_err(|e| ConfigError::new(path, e.to_string()))?;
    Ok((path.clone(), value))
}

/// The app with some keys set. It is not checked.
///
/// # Errors
/// An unknown key or a value of a wrong type.
pub fn with(file: &Path, base: &Value, settings: &Settings) -> Result<App, String> {
    let mut value = base.clone();
    for stream in value["stream"].as_array_mut().into_iter().flatten() {
        // Another trace file has other times; those of this one are read again.
        if stream["trace"].as_str().is_some_and(|trace| !trace.is_empty()) {
            stream["times_ms"] = Value::Array(Vec::new());
        }
    }
    let (mut load, mut of_capacity) = (1.0, false);
    for (key, new) in settings {
        match key.as_str() {
            "load" => {
                load =
                    new.as_f64().filter(|l| l.is_finite() && *l > 0.0).ok_or("expected a number above 0")?;
            }
            "load_of" => of_capacity = is_of_capacity(new)?,
            _ => keys::set(&mut value, key, new)?,
        }
    }
    let mut app = parse(file, value)?;
    app.read_traces("").map_err(|e| e.to_string())?;
    if of_capacity {
        load *= growth(&app)?;
    }
    for stream in &mut app.streams {
        stream.period_ms /= load;
        stream.times_ms.iter_mut().for_each(|t| *t /= load);
    }
    Ok(app)
}

/// What `load` is a share of: the `capacity` of the device, or what the `file` asks for.
fn is_of_capacity(value: &Value) -> Result<bool, String> {
    match value.as_str() {
        Some("capacity") => Ok(true),
        Some("file") => Ok(false),
        _ => Err(format!("expected \"file\" or \"capacity\", got {value}")),
    }
}

/// The factor that brings the rates of an app to the capacity of its device.
fn growth(app: &App) -> Result<f64, String> {
    app.check().map_err(|(key, problem)| format!("{key}: {problem}"))?;
    let case = app.case().map_err(|e| e.to_string())?;
    let factor = capacity(&case, Span::from_ms(app.seconds * 1e3)).factor;
    if !factor.is_finite() {
        return Err(
            "no stream is open during the run, so there is no capacity that `load_of` could tell a share of"
                .into(),
        );
    }
    // Six digits are far more than are proven, and the same on every machine.
    Ok(format!("{factor:.5e}").parse().unwrap_or(factor))
}

fn parse(file: &Path, value: Value) -> Result<App, String> {
    let mut app: App = keys::parse(value)?;
    app.file = file.to_owned();
    Ok(app)
}

/// As [`super::kind::Kind::resolve`]: the inputs are the device file and the plan, where the device is not to be profiled first.
///
/// # Errors
/// As [`with`]; what makes no sense, with its key; a device file that is missing.
pub fn resolve(file: &Path, base: &Value, settings: &Settings) -> Result<Resolved, String> {
    let app = with(file, base, settings)?;
    app.check().map_err(|(key, problem)| format!("{key}: {problem}"))?;
    let mut inputs: Vec<PathBuf> = app.device.iter().map(|d| app.resolve(d)).collect();
    inputs.push(app.plan_path().map_err(|e| e.to_string())?);
    Ok(Resolved { config: serde_json::to_value(&app).map_err(|e| e.to_string())?, inputs })
}

/// As [`super::kind::Kind::check_key`]. A device or a plan that is missing is found out here: no cell could do with it.
///
/// # Errors
/// As [`with`].
pub fn check_key(file: &Path, base: &Value, (key, value): (&str, &Value)) -> Result<(), String> {
    let app = with(file, base, &vec![(key.to_owned(), value.clone())])?;
    if matches!(key, "device" | "plan") {
        let path = app.plan_path().map_err(|e| e.to_string())?;
        if !path.exists() {
            return Err(format!("{}: no such file", path.display()));
        }
    }
    Ok(())
}

/// The app of a resolved cell.
///
/// # Errors
/// Only when the spec is not one of an app.
pub fn app(spec: &Spec) -> Result<App, String> {
    parse(&spec.file, spec.config.clone())
}

/// What the device of an app is called: its file, else its plan's file.
pub fn device_name(app: &App) -> String {
    let path = app.device.clone().or_else(|| app.plan.clone()).unwrap_or_else(|| "plan.json".into());
    path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned())
}

/// The group of a cell: its scenario, and its settings. The base is only named where its scenario is called otherwise.
pub fn group(scenario: &str, settings: &Settings) -> String {
    let base = settings.iter().find(|(key, _)| key == "base").map(|(_, value)| short(value));
    let scenario = match base {
        Some(base) if base != scenario => format!("{scenario} ({base})"),
        _ => scenario.to_owned(),
    };
    let settings = settings.iter().filter(|(key, _)| key != "base");
    let words = settings.map(|(key, value)| format!("{key} {}", short(value)));
    std::iter::once(scenario).chain(words).collect::<Vec<_>>().join(", ")
}

/// A value in few words: of a path only the file's name.
pub fn short(value: &Value) -> String {
    let word = keys::word(value);
    match Path::new(&word).file_stem() {
        Some(stem) if value.is_string() && word.contains('/') => stem.to_string_lossy().into_owned(),
        _ => word,
    }
}

/// What a run of an app gives: a row a stream, latency curves, and a stretch of its timeline.
pub fn outcome(spec: &Spec, app: &App, case: &Arc<Case>, log: &RunLog) -> Outcome {
    let summary = Summary::of(log, case);
    let group = group(&case.scenario.name, &spec.settings);
    let row = |stream: &str, r: &Requests| Row {
        group: group.clone(),
        contender: spec.policy.clone(),
        scenario: case.scenario.name.clone(),
        device: device_name(app),
        unit: format!("seed {}", spec.seed),
        stream: stream.to_owned(),
        numbers: numbers(r),
    };
    let mut rows: Vec<Row> = summary.streams.iter().map(|g| row(&g.name, &g.requests)).collect();
    let mut all = row(ALL, &summary.total);
    all.numbers.insert("fairness".into(), summary.fairness);
    all.numbers.insert("decisions".into(), summary.decisions as f64);
    all.numbers.insert("idle_j".into(), summary.processors.iter().map(|p| p.idle_j).sum());
    rows.push(all);
    let names = summary.streams.iter().map(|g| g.name.clone()).enumerate();
    let named = names.map(|(s, name)| (name, Some(s))).chain([(ALL.to_owned(), None)]);
    let curves = named.map(|(name, stream)| Curve {
        what: "latency".into(),
        group: group.clone(),
        contender: spec.policy.clone(),
        name,
        points: latency(log, stream),
    });
    Outcome {
        rows,
        curves: curves.collect(),
        gantt: Some(gantt(log, case)),
        about: about(app, case),
        measured: BTreeMap::new(),
    }
}

fn numbers(r: &Requests) -> BTreeMap<String, f64> {
    let counts = [
        ("requests", r.requests),
        ("on_time", r.on_time),
        ("late", r.late),
        ("dropped", r.dropped),
        ("expired", r.expired),
        ("failed", r.failed),
        ("open", r.open),
    ];
    let some = [
        ("mean_ms", r.mean_ms),
        ("p50_ms", r.p50_ms),
        ("p95_ms", r.p95_ms),
        ("p99_ms", r.p99_ms),
        ("accuracy", r.accuracy),
        ("utility", Some(r.utility)),
        ("energy_mj", Some(r.energy_mj)),
        ("on_time_share", Some(r.on_time_share())),
    ];
    let counts = counts.map(|(name, n)| (name, Some(n as f64)));
    counts.into_iter().chain(some).filter_map(|(name, v)| Some((name.to_owned(), v?))).collect()
}

/// Latencies are counted at these many places of each power of ten, so that curves of several seeds have the same places.
const PER_DECADE: f64 = 24.0;

/// Share of the requests (of one stream, or of all) that were answered within so many milliseconds, where it changes.
fn latency(log: &RunLog, stream: Option<usize>) -> Vec<(f64, f64)> {
    let of = |s: usize| stream.is_none_or(|wanted| wanted == s);
    let ended = log.ended.iter().filter(|e| of(e.request.stream.0 as usize));
    let answered = |e: &&Ended| matches!(e.outcome, End::Answered | End::Late);
    let open = log.unended.values().filter(|r| of(r.stream.0 as usize)).count();
    let count = ended.clone().count() + open;
    let mut places: BTreeMap<i64, usize> = BTreeMap::new();
    for e in ended.filter(answered) {
        let place = (e.latency().ms().max(1e-3).log10() * PER_DECADE).ceil() as i64;
        *places.entry(place).or_default() += 1;
    }
    let mut sum = 0;
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (place, n) in places {
        sum += n;
        let x = 10_f64.powf(place as f64 / PER_DECADE);
        points.push((rounded(x), rounded(sum as f64 / count.max(1) as f64)));
    }
    points
}

fn rounded(value: f64) -> f64 {
    (value * 1e5).round() / 1e5
}

/// A stretch from the middle of the run, long enough for about a hundred launches.
fn gantt(log: &RunLog, case: &Case) -> String {
    let per_launch = log.end.0 / log.launches.len().max(1) as u64;
    let length = (100 * per_launch).clamp(20_000_000, 5_000_000_000).min(log.end.0.max(1));
    let from = (log.end.0 - length.min(log.end.0)) / 2;
    timeline_svg(log, case, Time(from), Time(from + length))
}

fn about(app: &App, case: &Case) -> BTreeMap<String, String> {
    let mut about: BTreeMap<String, String> =
        case.plan.provenance.iter().map(|(k, v)| (format!("plan: {k}"), v.clone())).collect();
    for p in &case.plan.processors {
        about.insert(format!("processor {} of {}", p.name, device_name(app)), p.device.clone());
    }
    about
}
