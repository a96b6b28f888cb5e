//! Sweeps: a grid over the keys of an app file, each cell a comparison of policies in the emulator, run in parallel.
//! It refuses keys that the app does not have; a cell that fails is recorded with its error and stops no other.

use crate::app::App;
use crate::compare::{CSV_HEADER, Maker, Plan, Row, Setup, compare, csv_word};
use crate::config::{ConfigError, parse_toml, read_text, suggestion};
use crate::parallel;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// A sweep file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// The app or case file that every cell starts from, relative to the sweep file.
    pub base: PathBuf,
    /// Specs of the policies that each cell compares.
    pub policies: Vec<String>,
    /// A number `n` for the seeds 1 to n, or a list of seeds.
    #[serde(default = "five", deserialize_with = "seeds")]
    pub seeds: Vec<u64>,
    /// Length of each run in seconds; by default the base file's.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// The policy that differences are taken to; by default the best baseline of each cell.
    #[serde(default)]
    pub reference: Option<String>,
    /// Dotted keys of the app file (`stream.0.period_ms`, `stream.*.deadline_ms`, `emulator.failure_rate`) with the values that each
    /// takes; `load` divides the periods of all streams and the times of traces.
    #[serde(default)]
    pub grid: BTreeMap<String, Vec<Value>>,
    /// Where it was read from.
    #[serde(skip)]
    pub file: PathBuf,
}

fn five() -> Vec<u64> {
    (1..=5).collect()
}

fn seeds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<u64>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a number of seeds from 1 to 10000, or a list of seeds")
        }
        fn visit_u64<E: de::Error>(self, count: u64) -> Result<Vec<u64>, E> {
            if (1..=10_000).contains(&count) {
                return Ok((1..=count).collect());
            }
            Err(E::invalid_value(de::Unexpected::Unsigned(count), &self))
        }
        fn visit_i64<E: de::Error>(self, count: i64) -> Result<Vec<u64>, E> {
            let unsigned = u64::try_from(count);
            unsigned
                .map_err(|_| E::invalid_value(de::Unexpected::Signed(count), &self))
                .and_then(|c| self.visit_u64(c))
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
            let mut seeds = Vec::new();
            while let Some(seed) = seq.next_element()? {
                seeds.push(seed);
            }
            Ok(seeds)
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// One combination of the grid's values.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Number, from 0.
    pub index: usize,
    /// Key and value, in the order of the keys.
    pub settings: Vec<(String, Value)>,
    /// The app that comes of it, or why it is none.
    #[serde(skip)]
    pub app: Result<App, String>,
}

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellResult {
    /// Number of the cell.
    pub cell: usize,
    /// Key and value, in the order of the keys.
    pub settings: Vec<(String, Value)>,
    /// The policy that differences are taken to, if the cell ran.
    pub reference: Option<String>,
    /// One row a policy; empty when the cell failed.
    pub rows: Vec<Row>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Sweep {
    /// Reads and checks a sweep file and its base file.
    ///
    /// # Errors
    /// [`ConfigError`]: unreadable files, unknown keys (with the nearest), values of a wrong type, an empty list.
    pub fn read(path: &Path) -> Result<Sweep, ConfigError> {
        let text = read_text(path)?;
        let mut sweep: Sweep = parse_toml(&text, path)?;
        sweep.file = path.to_owned();
        let fail = |key: &str, problem: &str| Err(ConfigError::at_key(path, &text, key, problem));
        if sweep.policies.is_empty() {
            return fail("policies", "expected at least one");
        }
        if sweep.seeds.is_empty() {
            return fail("seeds", "expected at least one");
        }
        if sweep.seconds.is_some_and(|s| !(s > 0.0 && s <= 1e6)) {
            return fail("seconds", "expected a number above 0 and at most 1000000");
        }
        let base = sweep.base()?;
        for (key, values) in &sweep.grid {
            if values.is_empty() {
                return Err(sweep.at_grid(&text, key, "expected at least one value"));
            }
            for value in values {
                // Alone, each must name a key and have its type; whether it makes sense beside the others is the cell's affair.
                with(&base, &[(key.clone(), value.clone())])
                    .map_err(|problem| sweep.at_grid(&text, key, &problem))?;
            }
        }
        Ok(sweep)
    }

    fn at_grid(&self, text: &str, key: &str, problem: &str) -> ConfigError {
        // Dotted keys stand in quotes in the file, so they are looked for by their text.
        let line = text.lines().position(|l| l.trim_start().trim_start_matches(['"', '\'']).starts_with(key));
        let place = line.map(|l| (l + 1, 1));
        ConfigError { file: self.file.clone(), place, problem: format!("grid key `{key}`: {problem}") }
    }

    /// The base file.
    ///
    /// # Errors
    /// As [`App::read`].
    pub fn base(&self) -> Result<App, ConfigError> {
        let mut app = App::read(&self.file.parent().unwrap_or(Path::new("")).join(&self.base))?;
        app.seconds = self.seconds.unwrap_or(app.seconds);
        Ok(app)
    }

    /// All cells: the cartesian product of the grid, the last key turning fastest.
    ///
    /// # Errors
    /// As [`App::read`] for the base file.
    pub fn cells(&self) -> Result<Vec<Cell>, ConfigError> {
        let base = self.base()?;
        let mut combinations: Vec<Vec<(String, Value)>> = vec![Vec::new()];
        for (key, values) in &self.grid {
            let extend = |done: &Vec<(String, Value)>| {
                let done = done.clone();
                values
                    .iter()
                    .map(move |v| {
                        let mut next = done.clone();
                        next.push((key.clone(), v.clone()));
                        next
                    })
                    .collect::<Vec<_>>()
            };
            combinations = combinations.iter().flat_map(extend).collect();
        }
        let cell = |(index, settings): (usize, Vec<(String, Value)>)| {
            let app = with(&base, &settings).and_then(|app| match app.check() {
                Ok(()) => Ok(app),
                Err((key, problem)) => Err(format!("{key}: {problem}")),
            });
            Cell { index, settings, app }
        };
        Ok(combinations.into_iter().enumerate().map(cell).collect())
    }

    /// What [`Sweep::run`] would do, one line a cell.
    ///
    /// # Errors
    /// As [`Sweep::cells`].
    pub fn dry_run(&self) -> Result<String, ConfigError> {
        let cells = self.cells()?;
        let runs = cells.len() * self.policies.len() * self.seeds.len();
        let mut text = format!(
            "{} cells x {} policies ({}) x {} seeds = {runs} runs\n",
            cells.len(),
            self.policies.len(),
            self.policies.join(", "),
            self.seeds.len()
        );
        for cell in &cells {
            let settings: Vec<_> = cell.settings.iter().map(|(k, v)| format!("{k} = {v}")).collect();
            let problem = cell.app.as_ref().err().map_or(String::new(), |e| format!("  will fail: {e}"));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:>5}  {}{problem}", cell.index, settings.join(", "));
        }
        Ok(text)
    }

    /// Runs all cells on `threads` threads (0: as many as the machine runs at once). `progress(done, of)` is called after each cell.
    ///
    /// # Errors
    /// As [`Sweep::cells`]; what goes wrong in a cell is in its result.
    pub fn run(
        &self,
        make: Maker<'_>,
        threads: usize,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Vec<CellResult>, ConfigError> {
        let cells = self.cells()?;
        Ok(parallel::run(cells.len(), threads, |i| self.run_cell(&cells[i], make), progress))
    }

    fn run_cell(&self, cell: &Cell, make: Maker<'_>) -> CellResult {
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let app = cell.app.clone()?;
            let setup = Setup::of(&app).map_err(|e| e.to_string())?;
            let reference = self.reference.as_deref();
            let plan = Plan { policies: &self.policies, seeds: &self.seeds, reference, threads: 1 };
            compare(&setup, &plan, make, &|_, _| {}).map_err(|e| e.to_string())
        }));
        let outcome = attempt.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        });
        let (cell, settings) = (cell.index, cell.settings.clone());
        match outcome {
            Ok(c) => CellResult { cell, settings, reference: Some(c.reference), rows: c.rows, error: None },
            Err(e) => CellResult { cell, settings, reference: None, rows: Vec::new(), error: Some(e) },
        }
    }

    /// The results as CSV: one line a cell and policy, or one for a cell that failed.
    pub fn csv(&self, results: &[CellResult]) -> String {
        let keys: Vec<String> = self.grid.keys().map(|k| csv_word(k)).collect();
        let mut text =
            format!("cell,{}{CSV_HEADER},error\n", keys.iter().fold(String::new(), |a, k| a + k + ","));
        for result in results {
            let mut head = result.cell.to_string();
            for (_, value) in &result.settings {
                let word = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let _ = write!(head, ",{}", csv_word(&word));
            }
            for row in &result.rows {
                let _ = writeln!(text, "{head},{},", row.csv());
            }
            if let Some(error) = &result.error {
                let empty = ",".repeat(CSV_HEADER.matches(',').count());
                let _ = writeln!(text, "{head},{empty},{}", csv_word(error));
            }
        }
        text
    }

    /// Writes `results.csv`, `results.json` and `meta.json` (the sweep and its base as resolved, commit, versions) into `folder`.
    ///
    /// # Errors
    /// When a file cannot be written; none is left half written.
    pub fn write(&self, results: &[CellResult], folder: &Path) -> Result<(), ConfigError> {
        let fail = |e: std::io::Error| ConfigError::new(folder, format!("cannot be written: {e}"));
        std::fs::create_dir_all(folder).map_err(fail)?;
        let meta = json!({
            "sweep": self,
            "sweep_file": self.file,
            "base": self.base()?,
            "plan": self.base()?.plan_path()?,
            "cells": results.len(),
            "failed_cells": results.iter().filter(|r| r.error.is_some()).count(),
            "commit": commit(),
            "version": env!("CARGO_PKG_VERSION"),
            "machine": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
            "written_unix_s": std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        });
        let pretty = |v: &Value| serde_json::to_string_pretty(v).unwrap_or_default() + "\n";
        for (name, text) in [
            ("results.csv", self.csv(results)),
            ("results.json", pretty(&json!(results))),
            ("meta.json", pretty(&meta)),
        ] {
            let unfinished = folder.join(format!(".{name}.unfinished"));
            std::fs::write(&unfinished, text).map_err(fail)?;
            std::fs::rename(&unfinished, folder.join(name)).map_err(fail)?;
        }
        Ok(())
    }
}

/// The commit of the working folder's repository, with `+` when it has changes; `unknown` outside one.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match git(&["rev-parse", "HEAD"]) {
        Some(hash) => {
            let changed = git(&["status", "--porcelain"]).is_some_and(|s| !s.is_empty());
            if changed { hash + "+" } else { hash }
        }
        None => "unknown".into(),
    }
}

/// The app with some keys set. It is not checked.
fn with(base: &App, settings: &[(String, Value)]) -> Result<App, String> {
    let mut base = base.clone();
    // Another trace file has other times; those of this one are read again.
    base.streams.iter_mut().filter(|s| !s.trace.is_empty()).for_each(|s| s.times_ms.clear());
    let mut value = serde_json::to_value(&base).map_err(|e| e.to_string())?;
    let mut load = 1.0;
    for (key, new) in settings {
        if key == "load" {
            load = new.as_f64().filter(|l| l.is_finite() && *l > 0.0).ok_or("expected a number above 0")?;
        } else {
            let parts: Vec<&str> = key.split('.').collect();
            set(&mut value, &parts, new)?;
        }
    }
    let mut app: App = serde_json::from_value(value)
        .map_err(|e| crate::config::unknown_key(&e.to_string(), "").unwrap_or_else(|| e.to_string()))?;
    app.file = base.file;
    app.read_traces("").map_err(|e| e.to_string())?;
    for stream in &mut app.streams {
        stream.period_ms /= load;
        stream.times_ms.iter_mut().for_each(|t| *t /= load);
    }
    Ok(app)
}

fn set(value: &mut Value, path: &[&str], new: &Value) -> Result<(), String> {
    let Some((&part, rest)) = path.split_first() else {
        *value = new.clone();
        return Ok(());
    };
    match value {
        Value::Object(map) => {
            let known: Vec<String> = map.keys().cloned().collect();
            let Some(inner) = map.get_mut(part) else {
                return Err(format!("no key `{part}`{}", suggestion(part, known.iter().map(String::as_str))));
            };
            set(inner, rest, new)
        }
        Value::Array(items) if part == "*" => items.iter_mut().try_for_each(|item| set(item, rest, new)),
        Value::Array(items) => {
            let count = items.len();
            let item = part.parse::<usize>().ok().and_then(|i| items.get_mut(i));
            set(item.ok_or(format!("expected an index below {count} or `*`, got `{part}`"))?, rest, new)
        }
        _ => Err(format!("`{part}` is looked for in what is a plain value")),
    }
}
