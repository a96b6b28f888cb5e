//! A plan from ncnn's benchmark table as CSV: one device, whose settings (threads, cores, GPU or not) are its processors.
//! It refuses devices that are not in the table; a setting is chosen by what it says, else the fastest on the CPU and on the GPU.

use super::{Csv, Given, Measured, choose, plan};
use crate::config::ConfigError;
use cosched_env::plan::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Threads, powersave (which cores), GPU (-1: the CPU), as ncnn's `benchncnn` takes them.
pub type Setting = (u32, u32, i32);

/// Setting -> model -> milliseconds (mean, median, 95th percentile).
type Table = BTreeMap<Setting, BTreeMap<String, [f64; 3]>>;

/// Reads the table of the device whose name holds `device`. `processors` names settings; empty: `cpu` and `gpu`, the settings with the
/// least sum over the models that all settings of the kind have.
///
/// # Errors
/// A broken table, no such device, setting or model.
pub fn import(
    file: &Path,
    device: &str,
    processors: &[(String, Setting)],
    given: &Given,
) -> Result<Plan, ConfigError> {
    let columns = ["device", "num_threads", "powersave", "gpu_device", "model", "max_ms", "avg_ms"];
    let csv = Csv::read(file, &columns)?;
    let devices: BTreeSet<&str> = csv.rows.iter().map(|(_, r)| r[0].as_str()).collect();
    let device = choose(file, "device", device, &devices.into_iter().collect::<Vec<_>>())?;
    let mut table = Table::new();
    for (line, row) in csv.rows.iter().filter(|(_, r)| r[0] == device) {
        let whole = |i: usize| {
            let bad = || ConfigError {
                file: file.into(),
                place: Some((*line, 1)),
                problem: format!("{}: expected a whole number, got `{}`", columns[i], row[i]),
            };
            row[i].parse::<i32>().map_err(|_| bad())
        };
        let (most, mean) = (csv.ms(*line, &row[5], "max_ms")?, csv.ms(*line, &row[6], "avg_ms")?);
        let setting = (whole(1)?.unsigned_abs(), whole(2)?.unsigned_abs(), whole(3)?);
        // The slowest of 4 to 64 runs counts as the 95th percentile, the mean as the median.
        table.entry(setting).or_default().insert(row[4].clone(), [mean, mean, most.max(mean)]);
    }
    let chosen = settings(file, &table, processors)?;
    let all: BTreeSet<&str> = chosen.iter().flat_map(|(_, s)| table[s].keys().map(String::as_str)).collect();
    given.check_models(&all.iter().copied().collect::<Vec<_>>(), file)?;
    let model = |name: &&str| Measured {
        name: (*name).to_owned(),
        // Quantised twins serve the same task.
        task: name.trim_end_matches("_int8").to_owned(),
        segments: vec![("all".into(), chosen.iter().map(|(_, s)| table[s].get(*name).copied()).collect())],
    };
    let models = all.iter().filter(|m| given.wants(m)).map(model).collect();
    let describe = |(name, s): &(String, Setting)| {
        let kind = if s.2 < 0 { "CPU" } else { "Vulkan GPU" };
        (name.clone(), format!("{device}, {kind}, {} threads, powersave {}", s.0, s.1))
    };
    let processors: Vec<(String, String)> = chosen.iter().map(describe).collect();
    let source = format!("ncnn's benchmark table ({}), the slowest run as 95th percentile", file.display());
    plan(&processors, models, given, &source).map_err(|problem| ConfigError::new(file, problem))
}

fn settings(
    file: &Path,
    table: &Table,
    wanted: &[(String, Setting)],
) -> Result<Vec<(String, Setting)>, ConfigError> {
    if let Some((name, s)) = wanted.iter().find(|(_, s)| !table.contains_key(s)) {
        let word = |s: &Setting| format!("{}/{}/{}", s.0, s.1, s.2);
        let known: Vec<String> = table.keys().map(word).collect();
        let problem = format!("{name}: no setting {}; known: {}", word(s), known.join(", "));
        return Err(ConfigError::new(file, problem));
    }
    if !wanted.is_empty() {
        return Ok(wanted.to_vec());
    }
    let best = |gpu: bool| {
        let of: Vec<_> = table.iter().filter(|(s, _)| (s.2 >= 0) == gpu).collect();
        let common = |m: &String| of.iter().all(|(_, models)| models.contains_key(m));
        let sum = |models: &BTreeMap<String, [f64; 3]>| -> f64 {
            models.iter().filter(|(m, _)| common(m)).map(|(_, ms)| ms[0]).sum()
        };
        of.iter().min_by(|a, b| sum(a.1).total_cmp(&sum(b.1))).map(|(s, _)| **s)
    };
    let named = [("cpu", best(false)), ("gpu", best(true))];
    Ok(named.into_iter().filter_map(|(name, s)| Some((name.to_owned(), s?))).collect())
}
