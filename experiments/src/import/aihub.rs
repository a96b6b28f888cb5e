//! A plan from Qualcomm AI Hub's table as CSV: one device, whose compute units (NPU, GPU, CPU) are its processors.
//! It refuses devices that are not in the table; of several runtimes on one unit the fastest counts.

use super::{Csv, Given, Measured, choose, plan};
use crate::config::ConfigError;
use cosched_env::plan::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The table has one number a model; the 95th percentile is assumed to be this much above it.
const SPREAD: f64 = 1.1;

/// By compute unit.
type Milliseconds = BTreeMap<String, f64>;

/// Reads the table of the device whose name holds `device`. A model of several parts is one variant with a segment a part; precisions
/// are variants of one task.
///
/// # Errors
/// A broken table, no such device or model.
pub fn import(file: &Path, device: &str, given: &Given) -> Result<Plan, ConfigError> {
    let columns = ["model", "component", "precision", "device", "inference_ms", "primary_compute_unit"];
    let csv = Csv::read(file, &columns)?;
    let devices: BTreeSet<&str> = csv.rows.iter().map(|(_, r)| r[3].as_str()).collect();
    let device = choose(file, "device", device, &devices.into_iter().collect::<Vec<_>>())?;
    // (Model, precision) -> part -> milliseconds.
    let mut table: BTreeMap<(String, String), BTreeMap<String, Milliseconds>> = BTreeMap::new();
    for (line, row) in csv.rows.iter().filter(|(_, r)| r[3] == device) {
        let ms = csv.ms(*line, &row[4], "inference_ms")?;
        let parts = table.entry((row[0].clone(), row[2].clone())).or_default();
        let unit = parts.entry(row[1].clone()).or_default().entry(row[5].to_lowercase()).or_insert(ms);
        *unit = unit.min(ms);
    }
    let known: BTreeSet<&str> = table.keys().map(|(model, _)| model.as_str()).collect();
    given.check_models(&known.into_iter().collect::<Vec<_>>(), file)?;
    table.retain(|(model, _), _| given.wants(model));
    let units: BTreeSet<&String> =
        table.values().flat_map(BTreeMap::values).flat_map(BTreeMap::keys).collect();
    let processors: Vec<(String, String)> =
        units.iter().map(|u| ((*u).clone(), format!("{device}, {}", u.to_uppercase()))).collect();
    let precisions = |model: &str| table.keys().filter(|(m, _)| m == model).count();
    let row = |units: &Milliseconds| -> Vec<Option<[f64; 3]>> {
        let ms = |(name, _): &(String, String)| units.get(name).map(|&ms| [ms, ms, ms * SPREAD]);
        processors.iter().map(ms).collect()
    };
    let measured = table.iter().map(|((model, precision), parts)| Measured {
        name: if precisions(model) > 1 { format!("{model}-{precision}") } else { model.clone() },
        task: model.clone(),
        segments: parts.iter().map(|(part, units)| (part.clone(), row(units))).collect(),
    });
    let models = measured.collect();
    let source =
        format!("AI Hub's table ({}), 95th percentile assumed {SPREAD} of the one number", file.display());
    plan(&processors, models, given, &source).map_err(|problem| ConfigError::new(file, problem))
}
