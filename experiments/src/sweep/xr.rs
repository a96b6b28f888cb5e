//! The kind `xrbench`: one policy on all cases of a file of published scores. Its base stands in the sweep file itself.
//! It refuses to judge; whether the published scores came out is in its rows.

use super::axes::Settings;
use super::file::Base;
use super::kind::{ALL, Bound, Kind, Outcome, Resolved, Row, Spec};
use super::{apps, keys};
use crate::config::ConfigError;
use crate::xrbench::bound::best_found;
use crate::xrbench::report::CaseReport;
use crate::xrbench::world::Rules;
use crate::xrbench::{Job, Mode, Settings as Run, StageMaker, XrError, jobs, read, run_case};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// See the module's text.
pub struct Xr<'a> {
    /// Makes the policies.
    pub make: StageMaker<'a>,
}

/// The base: two files, relative to the sweep file, and the mode.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// What each model costs on each accelerator.
    costs: PathBuf,
    /// The cases with their published scores.
    published: PathBuf,
    /// `compat` or `clean`.
    #[serde(default)]
    mode: ModeName,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ModeName {
    #[default]
    Compat,
    Clean,
}

fn read_jobs(file: &Path, config: &Config) -> Result<Vec<Job>, ConfigError> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let published = folder.join(&config.published);
    jobs(&read::costs(&folder.join(&config.costs))?, &published, read::published(&published)?)
}

fn row(case: &CaseReport, spec: &Spec) -> Row {
    let mut numbers = BTreeMap::new();
    let published = case.published.iter().map(|columns| ("published_", columns));
    for (of, columns) in std::iter::once(("", &case.scores)).chain(published) {
        let names = ["realtime", "energy_score", "user_experience", "utility"];
        numbers.extend(names.into_iter().zip(columns.values()).map(|(n, v)| (format!("{of}{n}"), v)));
    }
    if let Some(close) = case.is_close() {
        numbers.insert("as_published".into(), f64::from(u8::from(close)));
    }
    Row {
        group: apps::group("XRBench", &spec.settings),
        contender: spec.policy.clone(),
        scenario: case.scenario.clone(),
        device: case.chip.clone(),
        unit: format!("{} on {}, seed {}", case.scenario, case.chip, spec.seed),
        stream: ALL.into(),
        numbers,
    }
}

/// Evaluations of a search by which the rest of it is estimated.
const FEW: u64 = 1000;

impl Xr<'_> {
    /// A policy on a case, or the best run of it that is found.
    fn case(&self, job: &Job, spec: &Spec, run: &Run<'_>) -> Result<CaseReport, XrError> {
        let Some(Bound { evaluations, policies }) = &spec.bound else { return run_case(job, run, self.make) };
        let frames = best_found(job, run, policies, *evaluations, self.make)?;
        Ok(CaseReport::new(job, &frames, run.is_published()))
    }
}

impl Kind for Xr<'_> {
    fn name(&self) -> &'static str {
        "xrbench"
    }

    fn about(&self) -> &'static str {
        "a policy on the published cases of XRBench"
    }

    fn has_bound(&self) -> bool {
        true
    }

    fn base(&self, base: &Base, folder: &Path) -> Result<(PathBuf, Value), ConfigError> {
        let file = folder.join("sweep.toml");
        let config: Config = keys::inline(base, folder, "{ costs = \"...\", published = \"...\" }")?;
        read_jobs(&file, &config)?;
        Ok((file, serde_json::to_value(config).unwrap_or_default()))
    }

    fn resolve(&self, file: &Path, base: &Value, settings: &Settings) -> Result<Resolved, String> {
        let config: Config = keys::changed(base, settings)?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let inputs = vec![folder.join(&config.costs), folder.join(&config.published)];
        Ok(Resolved { config: serde_json::to_value(config).map_err(|e| e.to_string())?, inputs })
    }

    fn check_key(&self, _: &Path, base: &Value, (key, value): (&str, &Value)) -> Result<(), String> {
        keys::changed(base, &[(key.to_owned(), value.clone())]).map(|_: Config| ())
    }

    fn run(&self, spec: &Spec, _: &Arc<AtomicBool>) -> Result<Outcome, String> {
        let config: Config = keys::parse(spec.config.clone())?;
        let all = read_jobs(&spec.file, &config).map_err(|e| e.to_string())?;
        let reports = all.iter().map(|job| self.case(job, spec, &run(spec, &config)));
        let reports = reports.collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        let rows = reports.iter().map(|case| row(case, spec)).collect();
        Ok(Outcome { rows, ..Outcome::default() })
    }

    fn estimate(&self, spec: &Spec) -> Option<f64> {
        let config: Config = keys::parse(spec.config.clone()).ok()?;
        let all = read_jobs(&spec.file, &config).ok()?;
        let timed = |evaluations| {
            let bound = spec.bound.clone().map(|bound| Bound { evaluations, ..bound });
            let begun = Instant::now();
            self.case(all.first()?, &Spec { bound, ..spec.clone() }, &run(spec, &config)).ok()?;
            Some(begun.elapsed().as_secs_f64())
        };
        let mut each_s = timed(0)?;
        if let Some(bound) = &spec.bound {
            // What policies found when they were made is known now: the rest of the difference is the evaluations'.
            let made_s = timed(0)?;
            let searched_s = (timed(FEW)? - made_s).max(0.0);
            each_s += searched_s * bound.evaluations as f64 / FEW as f64;
        }
        Some(each_s * all.len() as f64)
    }
}

fn run<'a>(spec: &'a Spec, config: &Config) -> Run<'a> {
    let mode = match config.mode {
        ModeName::Compat => Mode::Compat,
        ModeName::Clean => Mode::Clean,
    };
    Run { mode, policy: &spec.policy, seed: spec.seed, rules: Rules::default(), threads: 1 }
}
