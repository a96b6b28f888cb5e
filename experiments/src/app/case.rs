//! From an app file to a case: plan, device and streams brought together, and errors pointed at the file that they come from.
//! It refuses to repair a plan that does not fit.

use super::{App, Processors, read_plan};
use crate::config::{ConfigError, read_text, suggestion};
use cosched_env::case::{Case, CaseError};
use cosched_env::device::Device;
use cosched_env::plan::{Plan, Variant as PlanVariant};
use std::sync::Arc;

impl App {
    /// Reads the plan and makes the case. The file decides which tasks, variants, accuracies and processors count; the plan
    /// what they cost.
    ///
    /// # Errors
    /// A plan or device file that is missing or ill-formed, that lacks a variant or a processor of this file, or does not fit its
    /// streams.
    pub fn case(&self) -> Result<Arc<Case>, ConfigError> {
        let path = self.plan_path()?;
        if !path.exists() {
            let how = if self.tasks.is_empty() || self.device.is_some() {
                String::new()
            } else {
                format!(": `cosched profile {}` makes it", self.file.display())
            };
            return Err(ConfigError::new(path, format!("no such plan{how}")));
        }
        self.case_of(read_plan(&path)?)
    }

    /// As [`App::case`] with a plan in memory.
    ///
    /// # Errors
    /// As [`App::case`].
    pub fn case_of(&self, mut plan: Plan) -> Result<Arc<Case>, ConfigError> {
        let device_file = self.device_file()?;
        let plan_path = self.plan_path()?;
        let of_plan = |problem: String| ConfigError::new(&plan_path, problem);
        let mut device = Device::default();
        if let Some(file) = &device_file {
            file.check_names(&plan)?;
            device = file.device();
        }
        self.choose_variants(&mut plan).map_err(of_plan)?;
        if let Processors::Named(names) = &self.processors {
            choose_columns(&mut plan, names).map_err(of_plan)?;
            device.processors.retain(|name, _| names.contains(name));
        }
        let known: Vec<&str> = plan.processors.iter().map(|p| p.name.as_str()).collect();
        for (i, fault) in self.emulator.faults.iter().enumerate() {
            if !known.contains(&fault.processor.as_str()) {
                let near = suggestion(&fault.processor, known.iter().copied());
                let problem = format!("unknown processor `{}`{near}", fault.processor);
                return Err(self.at(&format!("emulator.faults[{i}].processor"), &problem));
            }
        }
        Case::on(plan, device, self.scenario()).map(Arc::new).map_err(|CaseError { key, problem }| {
            match (key.strip_prefix("device."), &device_file) {
                (Some(key), Some(file)) => file.at(key, &problem),
                _ if key.starts_with("stream") || key.starts_with("objective") => self.at(&key, &problem),
                _ => of_plan(format!("{key}: {problem}")),
            }
        })
    }

    fn at(&self, key: &str, problem: &str) -> ConfigError {
        ConfigError::at_key(&self.file, &read_text(&self.file).unwrap_or_default(), key, problem)
    }

    /// Keeps the file's variants, with the file's accuracies; `Err` when the plan lacks one.
    fn choose_variants(&self, plan: &mut Plan) -> Result<(), String> {
        if self.tasks.is_empty() {
            return Ok(());
        }
        let mut chosen = Vec::new();
        for task in &self.tasks {
            for variant in &task.variants {
                let name = variant.plan_name();
                let found = plan.variants.iter().find(|p| p.name == name && p.task == task.name);
                let Some(found) = found else {
                    let file = self.file.display();
                    return Err(format!(
                        "lacks variant `{name}` of task `{}`, which {file} names; `cosched profile {file}` makes the plan anew",
                        task.name
                    ));
                };
                chosen.push(PlanVariant { accuracy: variant.accuracy, ..found.clone() });
            }
        }
        // Whole models on remote servers, as the profile found them there: in the order of models, then of processors.
        for variant in self.tasks.iter().flat_map(|t| &t.variants) {
            for processor in &plan.processors {
                let name = format!("{}@{}", variant.plan_name(), processor.name);
                let found = plan.variants.iter().find(|p| p.name == name);
                if let Some(found) = found.filter(|_| self.chosen_remotes().any(|r| r.name == processor.name))
                {
                    chosen.push(PlanVariant { accuracy: variant.accuracy, ..found.clone() });
                }
            }
        }
        plan.variants = chosen;
        Ok(())
    }
}

/// Keeps the named processors of a plan, in the order of `names`.
fn choose_columns(plan: &mut Plan, names: &[String]) -> Result<(), String> {
    let known: Vec<&str> = plan.processors.iter().map(|p| p.name.as_str()).collect();
    let mut columns = Vec::new();
    for name in names {
        let column = known.iter().position(|k| k == name);
        columns.push(column.ok_or_else(|| {
            format!("has no processor `{name}`{}", suggestion(name, known.iter().copied()))
        })?);
    }
    // Rows may be too short in a broken plan; `Case::new` says so better than an index out of range.
    let pick = |row: &[f64]| columns.iter().filter_map(|&c| row.get(c).copied()).collect::<Vec<_>>();
    plan.contention = columns.iter().filter_map(|&c| plan.contention.get(c).map(|row| pick(row))).collect();
    plan.processors = columns.iter().map(|&c| plan.processors[c].clone()).collect();
    for variant in plan.variants.iter_mut().filter(|v| !v.measured.is_empty()) {
        variant.measured = columns.iter().filter_map(|&c| variant.measured.get(c).copied()).collect();
    }
    for segment in plan.variants.iter_mut().flat_map(|v| &mut v.segments) {
        segment.costs = columns.iter().filter_map(|&c| segment.costs.get(c).copied()).collect();
    }
    Ok(())
}
