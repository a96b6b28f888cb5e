//! A plan from ONNX Runtime's profiles (the JSON that `enable_profiling` writes): one file a variant and processor.
//! It refuses files without runs or kernels. Where the processors of a variant ran other kernels (fusions differ), it is one segment.

use super::{Given, Measured, plan};
use crate::config::{ConfigError, read_json};
use cosched_env::plan::Plan;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A profile: what it is of, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Name of the variant, which is also its task's.
    pub variant: String,
    /// Name of the processor.
    pub processor: String,
    /// The file.
    pub file: PathBuf,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
}

/// Kernels in order of their first run, each with its microseconds in each run.
struct Kernels {
    names: Vec<String>,
    us: Vec<Vec<f64>>,
}

/// First runs load and tune; they are left out where there are others.
const COLD: usize = 1;

fn read(file: &Path) -> Result<Kernels, ConfigError> {
    let events: Vec<Event> = read_json(file)?;
    let mut runs: Vec<(f64, f64)> =
        events.iter().filter(|e| e.name == "model_run").map(|e| (e.ts, e.ts + e.dur)).collect();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    if runs.is_empty() {
        return Err(ConfigError::new(file, "expected events `model_run`, as ONNX Runtime's profiles have"));
    }
    let mut kernels = Kernels { names: Vec::new(), us: Vec::new() };
    let mut nodes: Vec<&Event> =
        events.iter().filter(|e| e.cat == "Node" && e.name.ends_with("_kernel_time")).collect();
    nodes.sort_by(|a, b| a.ts.total_cmp(&b.ts));
    for event in nodes {
        let Some(run) = runs.iter().position(|r| r.0 <= event.ts && event.ts <= r.1) else { continue };
        let name = event.name.trim_end_matches("_kernel_time");
        let at = kernels.names.iter().position(|n| n == name).unwrap_or_else(|| {
            kernels.names.push(name.to_owned());
            kernels.us.push(vec![0.0; runs.len()]);
            kernels.names.len() - 1
        });
        kernels.us[at][run] += event.dur;
    }
    if kernels.names.is_empty() {
        return Err(ConfigError::new(file, "expected events `..._kernel_time` within the runs"));
    }
    let cold = COLD.min(runs.len() - 1);
    kernels.us.iter_mut().for_each(|us| drop(us.drain(..cold)));
    Ok(kernels)
}

/// Milliseconds (mean, median, 95th percentile) of some kernels together.
fn together(us: &[Vec<f64>]) -> [f64; 3] {
    let runs = us.first().map_or(0, Vec::len);
    let mut ms: Vec<f64> = (0..runs).map(|r| us.iter().map(|k| k[r]).sum::<f64>() / 1e3).collect();
    ms.sort_by(f64::total_cmp);
    let at = |q: f64| ms[((ms.len() as f64 * q).ceil() as usize).clamp(1, ms.len()) - 1].max(1e-6);
    [crate::stats::mean(&ms).max(1e-6), at(0.5), at(0.95)]
}

/// Ends of at most `most` segments of about the same time each.
fn cuts(us: &[Vec<f64>], most: usize) -> Vec<usize> {
    let time: Vec<f64> = us.iter().map(|k| k.iter().sum()).collect();
    let whole: f64 = time.iter().sum();
    let (mut ends, mut sum) = (Vec::new(), 0.0);
    for (i, t) in time.iter().enumerate() {
        sum += t;
        if i + 1 == time.len() || sum >= whole * (ends.len() + 1) as f64 / most as f64 {
            ends.push(i + 1);
        }
    }
    ends
}

/// Reads profiles. Each variant is cut into at most `segments` segments of about equal time on its first processor.
///
/// # Errors
/// A file that is no profile; one variant twice on a processor.
pub fn import(profiles: &[Profile], segments: usize, given: &Given) -> Result<Plan, ConfigError> {
    let mut processors: Vec<(String, String)> = Vec::new();
    let mut variants: Vec<(String, BTreeMap<String, Kernels>)> = Vec::new();
    for profile in profiles {
        if processors.iter().all(|(name, _)| *name != profile.processor) {
            processors.push((profile.processor.clone(), "profiled by ONNX Runtime".into()));
        }
        let at = variants.iter().position(|(name, _)| *name == profile.variant).unwrap_or_else(|| {
            variants.push((profile.variant.clone(), BTreeMap::new()));
            variants.len() - 1
        });
        if variants[at].1.insert(profile.processor.clone(), read(&profile.file)?).is_some() {
            let problem = format!("{} on {} is there twice", profile.variant, profile.processor);
            return Err(ConfigError::new(&profile.file, problem));
        }
    }
    let measured = |(name, on): (String, BTreeMap<String, Kernels>)| {
        let first = processors.iter().find_map(|(p, _)| on.get(p));
        let names = first.map_or(&[][..], |k| &k.names);
        let alike = on.values().all(|k| k.names == names);
        let ends = match first {
            Some(kernels) if alike => cuts(&kernels.us, segments.max(1)),
            _ => Vec::new(),
        };
        let begins = std::iter::once(0).chain(ends.iter().copied());
        let cost = |range: Option<(usize, usize)>| -> Vec<Option<[f64; 3]>> {
            let one = |k: &Kernels| together(range.map_or(&k.us[..], |(from, to)| &k.us[from..to]));
            processors.iter().map(|(p, _)| on.get(p).map(one)).collect()
        };
        let mut rows: Vec<_> = begins
            .zip(&ends)
            .map(|(from, &to)| (format!("{}..{}", names[from], names[to - 1]), cost(Some((from, to)))))
            .collect();
        if rows.is_empty() {
            rows.push(("all".into(), cost(None)));
        }
        Measured { task: name.clone(), name, segments: rows }
    };
    let models = variants.into_iter().map(measured).collect();
    let file = profiles.first().map_or(Path::new("profiles"), |p| &p.file);
    let source = "profiles of ONNX Runtime, the first run left out".to_owned();
    plan(&processors, models, given, &source).map_err(|problem| ConfigError::new(file, problem))
}
