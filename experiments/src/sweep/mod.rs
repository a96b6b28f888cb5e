//! Sweeps: one file that says which cells there are, a store that keeps what came of each, and a runner that a kill cannot hurt.
//! The schema of the file is [`file::Part`]; what a cell does is its [`kind::Kind`].
//! It refuses keys that the base does not have, axes without values, and to run a cell twice.

pub mod apps;
mod axes;
pub mod emulated;
pub mod estimate;
pub mod file;
pub mod hash;
pub mod keys;
pub mod kind;
#[cfg(feature = "report")]
mod parquet;
pub mod results;
pub mod run;
pub mod store;
pub mod table;
pub mod xr;

pub use crate::about::commit;
pub use axes::Settings;

use crate::bound;
use crate::config::{ConfigError, suggestion};
use file::{Base, Part};
use kind::{Bound, Kind, Spec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A sweep file, read, checked and expanded.
pub struct Sweep<'a> {
    /// Name for results and reports.
    pub name: String,
    /// What was written, includes and subset laid over each other.
    pub part: Part,
    /// Where it was read from.
    pub file: PathBuf,
    /// The subset that was asked for.
    pub subset: Option<String>,
    /// What its cells are.
    pub kind: &'a dyn Kind,
    /// All cells: settings in the order of the grid, then samples, policies and seeds, the last turning fastest.
    pub cells: Vec<Cell>,
    texts: Vec<(PathBuf, String)>,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// Number, from 0.
    pub index: usize,
    /// Hash of all that its result hangs on, but the code.
    pub hash: String,
    /// What it is.
    pub spec: Spec,
    /// Why it cannot be run.
    pub problem: Option<String>,
}

impl Cell {
    /// The cell in one line.
    pub fn title(&self) -> String {
        let mut words: Vec<String> =
            self.spec.settings.iter().map(|(k, v)| format!("{k} = {}", apps::short(v))).collect();
        if !self.spec.policy.is_empty() {
            words.push(self.spec.policy.clone());
        }
        words.push(format!("seed {}", self.spec.seed));
        words.join(", ")
    }
}

/// The bases of a sweep: the value of the axis `base`, where relative paths begin, and the config.
type Bases = Vec<(Option<Value>, PathBuf, Value)>;

impl<'a> Sweep<'a> {
    /// Reads, checks and expands a sweep file. `kinds` are those that the caller can run.
    ///
    /// # Errors
    /// [`ConfigError`]: unreadable files, unknown keys (with the nearest), values of a wrong type, an empty axis.
    pub fn read(path: &Path, subset: Option<&str>, kinds: &[&'a dyn Kind]) -> Result<Sweep<'a>, ConfigError> {
        let file::Read { part, files } = file::read(path, subset)?;
        let stem = path.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        let wanted = part.kind.as_deref().unwrap_or("compare");
        let kind = kinds.iter().copied().find(|k| k.name() == wanted);
        let kind = kind.ok_or_else(|| {
            let near = suggestion(wanted, kinds.iter().map(|k| k.name()).collect::<Vec<_>>());
            let text = files.last().map_or("", |f| &f.1);
            ConfigError::at_key(path, text, "kind", &format!("unknown kind `{wanted}`{near}"))
        })?;
        let mut sweep = Sweep {
            name: part.name.clone().unwrap_or(stem),
            part,
            file: path.to_owned(),
            subset: subset.map(str::to_owned),
            kind,
            cells: Vec::new(),
            texts: files,
        };
        sweep.check()?;
        let bases = sweep.bases()?;
        sweep.check_axes(&bases)?;
        sweep.expand(&bases)?;
        Ok(sweep)
    }

    /// An error about a top-level key, at the file that has it.
    fn at(&self, key: &str, problem: &str) -> ConfigError {
        let errors =
            self.texts.iter().rev().map(|(file, text)| ConfigError::at_key(file, text, key, problem));
        let mut errors = errors.collect::<Vec<_>>().into_iter();
        let first = errors.next();
        let placed = first.clone().into_iter().chain(errors).find(|e| e.place.is_some());
        placed.or(first).unwrap_or_else(|| ConfigError::new(&self.file, format!("{key}: {problem}")))
    }

    /// An error about a dotted key of an axis. It stands in quotes in the file, so it is looked for by its text.
    fn at_axis(&self, what: &str, key: &str, problem: &str) -> ConfigError {
        let table = what.trim_end_matches(" key");
        let problem = format!("{what} `{key}`: {problem}");
        for (file, text) in self.texts.iter().rev() {
            let begins = |l: &str| {
                let rest = l.trim_start().trim_start_matches(['"', '\'']).strip_prefix(key);
                rest.is_some_and(|r| r.trim_start_matches(['"', '\'']).trim_start().starts_with('='))
            };
            // A key of the same name may stand in another table.
            let mut inside = false;
            let mut is_it = |l: &str| {
                if l.trim_start().starts_with('[') {
                    inside = l.contains(table);
                }
                inside && begins(l)
            };
            if let Some(line) = text.lines().position(&mut is_it) {
                return ConfigError { file: file.clone(), place: Some((line + 1, 1)), problem };
            }
        }
        ConfigError::new(&self.file, problem)
    }

    fn check(&mut self) -> Result<(), ConfigError> {
        if self.name.is_empty() || self.name.starts_with('.') || self.name.contains(['/', '\\']) {
            return Err(self.at("name", "expected a word that can name a folder"));
        }
        let policies = self.part.policies.clone().unwrap_or_default();
        match (self.kind.has_policies(), policies.is_empty()) {
            (true, true) => return Err(self.at("policies", "expected at least one")),
            (false, false) => {
                let problem = format!("a sweep of kind `{}` has none", self.kind.name());
                return Err(self.at("policies", &problem));
            }
            _ => {}
        }
        if let Some(i) = (1..policies.len()).find(|&i| policies[..i].contains(&policies[i])) {
            return Err(self.at("policies", &format!("`{}` is there twice", policies[i])));
        }
        let seeds = self.part.seeds.get_or_insert_with(|| (1..=5).collect()).clone();
        if seeds.is_empty() {
            return Err(self.at("seeds", "expected at least one"));
        }
        if let Some(i) = (1..seeds.len()).find(|&i| seeds[..i].contains(&seeds[i])) {
            return Err(self.at("seeds", &format!("{} is there twice", seeds[i])));
        }
        if let Some(seconds) = self.part.seconds {
            if !(seconds > 0.0 && seconds <= 1e6) {
                return Err(self.at("seconds", "expected a number above 0 and at most 1000000"));
            }
            self.part.set.insert("seconds".into(), json!(seconds));
        }
        if let Some(what) = &self.part.load_of {
            if !["file", "capacity"].contains(&what.as_str()) {
                let near = suggestion(what, ["file", "capacity"]);
                return Err(self.at("load_of", &format!("expected `file` or `capacity`, got `{what}`{near}")));
            }
            self.part.set.insert("load_of".into(), json!(what));
        }
        self.check_bound()?;
        match &self.part.reference {
            Some(r) if self.kind.has_policies() && !policies.contains(r) => {
                Err(self.at("reference", &format!("`{r}` is not among the policies")))
            }
            _ => Ok(()),
        }
    }

    fn check_bound(&self) -> Result<(), ConfigError> {
        let Some(evaluations) = self.part.bound else { return Ok(()) };
        if !self.kind.has_bound() {
            return Err(self.at("bound", &format!("a sweep of kind `{}` has none", self.kind.name())));
        }
        if !(1..=MOST_EVALUATIONS).contains(&evaluations) {
            let problem = format!("expected a number of evaluations from 1 to {MOST_EVALUATIONS}");
            return Err(self.at("bound", &problem));
        }
        Ok(())
    }

    fn bases(&self) -> Result<Bases, ConfigError> {
        let folder = self.file.parent().unwrap_or(Path::new(""));
        let read = |axis: Option<Value>, base: &Base| {
            self.kind.base(base, folder).map(|(file, config)| (axis, file, config))
        };
        let Some(axis) = self.part.grid.get("base") else {
            let base = self.part.base.as_ref();
            let base =
                base.ok_or_else(|| ConfigError::new(&self.file, "missing key `base` in the top level"))?;
            return Ok(vec![read(None, base)?]);
        };
        if self.part.base.is_some() {
            return Err(self.at_axis("grid key", "base", "`base` is given already; expected one of the two"));
        }
        let one = |value: &Value| match value.as_str() {
            Some(path) => read(Some(value.clone()), &Base::File(path.into())),
            None => Err(self.at_axis("grid key", "base", "expected paths")),
        };
        axis.iter().map(one).collect()
    }

    /// Alone, each value must name a key and have its type; whether it makes sense beside the others is the cell's affair.
    fn check_axes(&self, bases: &Bases) -> Result<(), ConfigError> {
        let mut axes: Vec<String> = vec!["policy".into(), "seed".into()];
        let try_key = |what: &str, key: &str, value: &Value| {
            bases.iter().try_for_each(|(_, file, config)| {
                let tried = self.kind.check_key(file, config, (key, value));
                tried.map_err(|problem| self.at_axis(what, key, &problem))
            })
        };
        for (key, value) in &self.part.set {
            // `seconds` of the top level stands here too.
            try_key("set key", key, value)?;
        }
        for (key, values) in &self.part.grid {
            axes.push(key.clone());
            if values.is_empty() {
                return Err(self.at_axis("grid key", key, "expected at least one value"));
            }
            if key == "base" {
                continue;
            }
            values.iter().try_for_each(|value| try_key("grid key", key, value))?;
        }
        if let Some(random) = &self.part.random {
            if random.samples == 0 || random.samples > 100_000 {
                return Err(self.at("random.samples", "expected a number from 1 to 100000"));
            }
            for (key, draw) in &random.keys {
                axes.push(key.clone());
                axes::check_draw(draw).map_err(|problem| self.at_axis("random key", key, problem))?;
                if self.part.grid.contains_key(key) {
                    return Err(self.at_axis("random key", key, "is in the grid already"));
                }
            }
            for (key, value) in axes::samples(Some(random)).iter().flatten() {
                try_key("random key", key, value)?;
            }
        }
        for key in self.part.skip.iter().flat_map(BTreeMap::keys) {
            if !axes.contains(key) {
                let near = suggestion(key, axes.iter().map(String::as_str).collect::<Vec<_>>());
                return Err(self.at_axis("skip key", key, &format!("no such axis{near}")));
            }
        }
        Ok(())
    }

    /// What runs with each seed: the policies, and the search for the bound after them.
    fn contenders(&self) -> Vec<(String, Option<Bound>)> {
        let policies = self.part.policies.clone().unwrap_or_else(|| vec![String::new()]);
        let bound = self.part.bound.map(|evaluations| Bound { evaluations, policies: policies.clone() });
        let policies = policies.into_iter().map(|policy| (policy, None));
        policies.chain(bound.map(|bound| (bound::NAME.to_owned(), Some(bound)))).collect()
    }

    fn expand(&mut self, bases: &Bases) -> Result<(), ConfigError> {
        let files = hash::Files::default();
        let contenders = self.contenders();
        let seeds = self.part.seeds.clone().unwrap_or_default();
        let fixed: Settings = self.part.set.clone().into_iter().collect();
        let samples = axes::samples(self.part.random.as_ref());
        let mut cells = Vec::new();
        for settings in axes::grid(&self.part.grid) {
            for sample in &samples {
                let mut settings = settings.clone();
                settings.extend(sample.iter().cloned());
                let chosen = settings.iter().find(|(key, _)| key == "base").map(|(_, v)| v);
                // Every value of the axis is there; without the axis there is one base.
                let Some((_, file, config)) = bases.iter().find(|(axis, ..)| axis.as_ref() == chosen) else {
                    continue;
                };
                let mut changes = fixed.clone();
                changes.extend(settings.iter().filter(|(key, _)| key != "base").cloned());
                let resolved = self.kind.resolve(file, config, &changes);
                for (policy, bound) in &contenders {
                    for &seed in &seeds {
                        if axes::skipped(&self.part.skip, policy, seed, &settings) {
                            continue;
                        }
                        let (config, mut inputs, problem) = match &resolved {
                            Ok(r) => (r.config.clone(), r.inputs.clone(), None),
                            Err(problem) => (json!(changes), Vec::new(), Some(problem.clone())),
                        };
                        let policies =
                            bound.as_ref().map_or(std::slice::from_ref(policy), |b| b.policies.as_slice());
                        inputs.extend(policies.iter().filter_map(|p| checkpoint(p)));
                        let spec = Spec {
                            kind: self.kind.name().to_owned(),
                            policy: policy.clone(),
                            seed,
                            settings: settings.clone(),
                            file: file.clone(),
                            config,
                            inputs,
                            bound: bound.clone(),
                        };
                        cells.push(cell(cells.len(), spec, problem, &files));
                    }
                }
            }
        }
        if cells.is_empty() {
            return Err(self.at("skip", "leaves no cell"));
        }
        self.cells = cells;
        Ok(())
    }
}

/// A search that tries more than this takes hours a cell.
const MOST_EVALUATIONS: u64 = 10_000_000;

/// What stands after the colon of a policy's spec may be a checkpoint.
fn checkpoint(policy: &str) -> Option<PathBuf> {
    policy.split_once(':').map(|(_, p)| PathBuf::from(p)).filter(|p| p.is_file())
}

/// Names a cell by its content. The folder is no part of it, so that a moved checkout keeps its results; axes are, because they stand
/// in the rows.
fn cell(index: usize, spec: Spec, problem: Option<String>, files: &hash::Files) -> Cell {
    let mut problem = problem;
    let mut inputs = Vec::new();
    for path in &spec.inputs {
        match files.of(path) {
            Ok(hash) => inputs.push(hash),
            Err(e) => {
                problem.get_or_insert(e.to_string());
            }
        }
    }
    let settings: Vec<_> = spec.settings.iter().map(|(k, v)| (k, apps::short(v))).collect();
    let mut content = json!({
        "kind": spec.kind,
        "policy": spec.policy,
        "seed": spec.seed,
        "settings": settings,
        "config": spec.config,
        "inputs": inputs,
        "problem": problem,
    });
    // Cells without one keep the names that they had before there was such a thing.
    if let Some(bound) = &spec.bound {
        content["bound"] = json!(bound);
    }
    let hash = hash::of(content.to_string().as_bytes())[..24].to_owned();
    Cell { index, hash, spec, problem }
}
