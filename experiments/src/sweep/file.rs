//! The sweep file as it is written: included files, the file itself and a named subset, laid over each other key by key.
//! It refuses unknown keys (with the nearest known one), circles of includes, and subsets that nobody defined; it expands nothing.

use crate::config::{ConfigError, parse_toml, read_text, suggestion};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a sweep starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Base {
    /// A file, relative to the file that names it.
    File(PathBuf),
    /// The config itself, for kinds that have no file of their own.
    Inline(serde_json::Map<String, Value>),
}

/// Values that are drawn instead of listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draw {
    /// Least value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<f64>,
    /// Largest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<f64>,
    /// Whether the logarithm is drawn evenly instead of the value.
    #[serde(default)]
    pub log: bool,
    /// Whether only whole numbers are drawn, both ends included.
    #[serde(default)]
    pub whole: bool,
    /// One of these instead of a number between two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub among: Vec<Value>,
}

/// Random axes. Each sample draws a value for every key; a value depends on the seed, the number of the sample and the key only, so
/// that more samples add cells and change none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Random {
    /// How many samples.
    pub samples: u64,
    /// Seed of the draws.
    #[serde(default)]
    pub seed: u64,
    /// What is drawn for each key.
    pub keys: BTreeMap<String, Draw>,
}

/// What a value of an axis is held against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Match {
    /// One of these. It comes before `Between`, because serde would take a list of two for that.
    Among(Vec<Value>),
    /// A number above the one and below the other; either may be absent.
    Between(Between),
    /// This.
    Is(Value),
}

/// See [`Match::Between`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Between {
    /// Larger than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// Smaller than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
}

/// One sweep file, or one subset of it: every key may be absent. This is the schema; see `experiments/sweeps/README.md`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Part {
    /// Sweep files whose keys this one takes over where it says nothing itself, relative to this file.
    pub include: Vec<PathBuf>,
    /// Name for results and reports; by default the file's.
    pub name: Option<String>,
    /// The question that the sweep answers, for its report.
    pub about: Option<String>,
    /// What a cell is; `compare` when absent.
    pub kind: Option<String>,
    /// What every cell starts from.
    pub base: Option<Base>,
    /// Specs of the policies, an axis of its own.
    pub policies: Option<Vec<String>>,
    /// A number `n` for the seeds 1 to n, or a list of seeds; an axis of its own.
    #[serde(deserialize_with = "seeds")]
    pub seeds: Option<Vec<u64>>,
    /// Length of each run in seconds: short for `seconds` in `[set]`.
    pub seconds: Option<f64>,
    /// What `load` is a share of, `file` or `capacity`: short for `load_of` in `[set]`. `file`, the default: of the rates in the base;
    /// `capacity`: of the largest rates that the device could serve, see [`cosched_env::capacity`].
    pub load_of: Option<String>,
    /// So many evaluations a seed look for the best run that somebody could make who knows the future, with the policies to begin
    /// from: one more contender of each group, `bound`. See [`crate::bound`].
    pub bound: Option<u64>,
    /// The policy that differences are taken to; by default the best of each group that is not learned.
    pub reference: Option<String>,
    /// Keys of the base that all cells change.
    pub set: BTreeMap<String, Value>,
    /// Axes: dotted keys of the base (`stream.0.period_ms`, `stream.*.deadline_ms`, `emulator.failure_rate`) with the values that
    /// each takes; `base` for several bases; `load` divides the periods of all streams and the times of traces.
    pub grid: BTreeMap<String, Vec<Value>>,
    /// Random axes.
    pub random: Option<Random>,
    /// Cells for which every key of one of these tables matches are left out.
    pub skip: Vec<BTreeMap<String, Match>>,
    /// Named changes of all this, chosen with `--subset`; a subset's grid replaces values of the axes that it names.
    pub subset: BTreeMap<String, Part>,
}

/// A number of seeds, or their list.
fn seeds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u64>>, D::Error> {
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
    deserializer.deserialize_any(Visitor).map(Some)
}

impl Part {
    /// Lays `over` on top: what it says counts, tables key by key.
    fn lay(&mut self, over: Part) {
        let take = |mine: &mut Option<String>, its: Option<String>| *mine = its.or(mine.take());
        take(&mut self.name, over.name);
        take(&mut self.about, over.about);
        take(&mut self.kind, over.kind);
        take(&mut self.reference, over.reference);
        take(&mut self.load_of, over.load_of);
        self.base = over.base.or(self.base.take());
        self.policies = over.policies.or(self.policies.take());
        self.seeds = over.seeds.or(self.seeds.take());
        self.seconds = over.seconds.or(self.seconds);
        self.bound = over.bound.or(self.bound);
        self.random = over.random.or(self.random.take());
        self.set.extend(over.set);
        self.grid.extend(over.grid);
        self.skip.extend(over.skip);
        self.subset.extend(over.subset);
    }

    /// Paths of the file at `path` are told from its folder; those of axes and inline bases too.
    fn resolve(&mut self, path: &Path) {
        let folder = path.parent().unwrap_or(Path::new(""));
        if let Some(Base::File(file)) = &mut self.base {
            *file = folder.join(&file);
        }
        for value in self.grid.get_mut("base").into_iter().flatten() {
            if let Value::String(text) = value {
                *text = folder.join(&text).to_string_lossy().into_owned();
            }
        }
        self.subset.values_mut().for_each(|subset| subset.resolve(path));
    }
}

/// All that was read, laid over each other.
#[derive(Debug)]
pub(super) struct Read {
    pub part: Part,
    /// Path and text of every file, the one that was asked for last.
    pub files: Vec<(PathBuf, String)>,
}

/// Reads a sweep file with its includes, and lays the subset over it.
pub(super) fn read(path: &Path, subset: Option<&str>) -> Result<Read, ConfigError> {
    let mut files = Vec::new();
    let mut part = read_one(path, &mut files, &mut Vec::new())?;
    if let Some(name) = subset {
        let known: Vec<String> = part.subset.keys().cloned().collect();
        let Some(chosen) = part.subset.remove(name) else {
            let hint = match known.len() {
                0 => "; the file has none".to_owned(),
                _ => suggestion(name, known.iter().map(String::as_str)),
            };
            return Err(ConfigError::new(path, format!("no subset `{name}`{hint}")));
        };
        part.lay(chosen);
    }
    part.subset.clear();
    part.include.clear();
    Ok(Read { part, files })
}

fn read_one(
    path: &Path,
    files: &mut Vec<(PathBuf, String)>,
    above: &mut Vec<PathBuf>,
) -> Result<Part, ConfigError> {
    let text = read_text(path)?;
    let mut part: Part = parse_toml(&text, path)?;
    part.resolve(path);
    for (name, subset) in &part.subset {
        let inner = if subset.include.is_empty() { "subset" } else { "include" };
        if !subset.include.is_empty() || !subset.subset.is_empty() {
            let problem = format!("a subset has no `{inner}` of its own");
            return Err(ConfigError::at_key(path, &text, &format!("subset.{name}"), &problem));
        }
    }
    let identity = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    above.push(identity);
    let mut all = Part::default();
    for (i, include) in part.include.iter().enumerate() {
        let file = path.parent().unwrap_or(Path::new("")).join(include);
        let at = |problem: &str| ConfigError::at_key(path, &text, &format!("include[{i}]"), problem);
        if !file.is_file() {
            return Err(at(&format!("no such file: {}", file.display())));
        }
        if above.contains(&file.canonicalize().unwrap_or_else(|_| file.clone())) {
            return Err(at("includes itself, directly or by another file"));
        }
        all.lay(read_one(&file, files, above)?);
    }
    above.pop();
    all.lay(part);
    files.push((path.to_owned(), text));
    Ok(all)
}
