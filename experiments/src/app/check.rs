//! What the types of an app file do not say: values that make no sense, alone or beside others.
//! It refuses to repair anything; each check names the key.

use super::{App, Processors};
use crate::config::suggestion;
use cosched_env::case::{Case, CaseError};
use cosched_env::emulator::{Fault, FaultKind};
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant as PlanVariant};
use std::collections::{BTreeMap, BTreeSet};

/// Processors whose storage can be chosen.
const GPUS: [&str; 2] = ["wgpu", "opencl"];

/// A key and what is wrong with it.
pub(super) type Problem = (String, String);

impl App {
    /// Checks what the types do not say.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        if !(self.seconds.is_finite() && self.seconds > 0.0 && self.seconds <= 1e6) {
            return bad(
                "seconds",
                format!("expected a number above 0 and at most 1000000, got {}", self.seconds),
            );
        }
        if self.segments.max == 0 {
            return bad("segments.max", "expected at least 1");
        }
        share("segments.min_share", self.segments.min_share)?;
        share("emulator.failure_rate", self.emulator.failure_rate)?;
        at_least_zero("emulator.decision_us", self.emulator.decision_us)?;
        at_least_zero("emulator.candidate_us", self.emulator.candidate_us)?;
        faults("emulator.faults", &self.emulator.faults)?;
        if self.device.is_some() && self.plan.is_some() {
            return bad("plan", "`device` names the plan already; expected one of the two");
        }
        if self.scheduler.window == 0 {
            return bad("scheduler.window", "expected at least 1");
        }
        if self.scheduler.max_failures == 0 {
            return bad("scheduler.max_failures", "expected at least 1");
        }
        for (name, power) in &self.power {
            for (key, watts) in [("active_watts", power.active_watts), ("idle_watts", power.idle_watts)] {
                at_least_zero(&format!("power.{name}.{key}"), watts.unwrap_or(0.0))?;
            }
        }
        if let Some((name, slots)) = self.slots.iter().find(|(_, slots)| !(1..=64).contains(*slots)) {
            return bad(format!("slots.{name}"), format!("expected a number from 1 to 64, got {slots}"));
        }
        if let Some(name) = self.storage.keys().find(|name| !GPUS.contains(&name.as_str())) {
            return bad(format!("storage.{name}"), "expected `wgpu` or `opencl`, whose kernels are our own");
        }
        if let Processors::Named(names) = &self.processors {
            if names.is_empty() {
                return bad("processors", "expected at least one");
            }
            let mut seen = BTreeSet::new();
            if let Some(i) = names.iter().position(|n| !seen.insert(n)) {
                return bad(format!("processors[{i}]"), format!("`{}` is there twice", names[i]));
            }
        }
        self.dsp.check()?;
        self.check_parts()?;
        self.check_remotes()?;
        self.check_tasks()?;
        self.check_streams()
    }

    fn check_parts(&self) -> Result<(), Problem> {
        let mut names: BTreeSet<&str> = self.remotes.iter().map(|r| r.name.as_str()).collect();
        for (i, part) in self.parts.iter().enumerate() {
            let key = |name: &str| format!("processor[{i}].{name}");
            if !plain(&part.name) || !names.insert(&part.name) {
                let got = &part.name;
                return bad(
                    key("name"),
                    format!("expected a name of letters, digits, - and _ that is there once, got `{got}`"),
                );
            }
            if part.kind != "cpu" {
                return bad(
                    key("kind"),
                    format!("expected `cpu`, the only one that is divided, got `{}`", part.kind),
                );
            }
            let mut seen = BTreeSet::new();
            if let Some(core) = part.cores.iter().find(|&&core| core > 1023 || !seen.insert(core)) {
                return bad(key("cores"), format!("expected core numbers below 1024, each once, got {core}"));
            }
            let most = if part.cores.is_empty() { 256 } else { part.cores.len() };
            if part.threads.is_some_and(|threads| !(1..=most).contains(&threads)) {
                let got = part.threads.unwrap_or_default();
                return bad(
                    key("threads"),
                    format!("expected 1 to {most}, as many as it has cores at most, got {got}"),
                );
            }
        }
        Ok(())
    }

    fn check_remotes(&self) -> Result<(), Problem> {
        let mut names = BTreeSet::new();
        for (i, remote) in self.remotes.iter().enumerate() {
            let key = |name: &str| format!("remote[{i}].{name}");
            if !plain(&remote.name) || !names.insert(&remote.name) {
                let problem = format!(
                    "expected a name of letters, digits, - and _ that is there once, got `{}`",
                    remote.name
                );
                return bad(key("name"), problem);
            }
            let rest = remote.url.strip_prefix("http://").or_else(|| remote.url.strip_prefix("https://"));
            if !rest.is_some_and(|r| {
                r.trim_end_matches('/').contains(':') && !r.trim_end_matches('/').contains('/')
            }) {
                let problem = format!("expected http://HOST:PORT or https://HOST:PORT, got `{}`", remote.url);
                return bad(key("url"), problem);
            }
            if remote.url.starts_with("https://") && remote.trusted.is_none() {
                return bad(
                    key("url"),
                    "https needs `trusted`, a PEM file of the certificates that are trusted",
                );
            }
            if !(remote.timeout_ms > 0.0 && remote.timeout_ms <= 1e6) {
                let problem =
                    format!("expected a number above 0 and at most 1000000, got {}", remote.timeout_ms);
                return bad(key("timeout_ms"), problem);
            }
            let known =
                |name: &String| self.tasks.iter().flat_map(|t| &t.variants).any(|v| v.plan_name() == *name);
            if let Some(name) = remote.models.keys().find(|name| !known(name)) {
                return bad(key("models"), format!("no variant of this file is called `{name}`"));
            }
        }
        Ok(())
    }

    fn check_tasks(&self) -> Result<(), Problem> {
        let (mut tasks, mut variants) = (BTreeSet::new(), BTreeSet::new());
        for (t, task) in self.tasks.iter().enumerate() {
            if task.name.is_empty() || !tasks.insert(task.name.clone()) {
                return bad(format!("task[{t}].name"), format!("`{}` is empty or there twice", task.name));
            }
            if task.variants.is_empty() {
                return bad(format!("task[{t}].name"), format!("`{}` has no [[task.variant]]", task.name));
            }
            for (v, variant) in task.variants.iter().enumerate() {
                let key = |name: &str| format!("task[{t}].variant[{v}].{name}");
                if variant.model.is_empty() || variant.model == "zoo:" {
                    return bad(key("model"), "expected a path of an ONNX file, or zoo:NAME");
                }
                if !(variant.accuracy > 0.0 && variant.accuracy <= 1.0) {
                    let problem =
                        format!("expected a number above 0 and at most 1, got {}", variant.accuracy);
                    return bad(key("accuracy"), problem);
                }
                let name = variant.plan_name();
                if name.is_empty() || !variants.insert(name.clone()) {
                    let key = if variant.name.is_some() { key("name") } else { key("model") };
                    return bad(key, format!("two variants are called `{name}`; give each a `name`"));
                }
            }
        }
        Ok(())
    }

    /// Streams and objective are checked against a stand-in plan, so that a bad deadline is found before anything is profiled.
    fn check_streams(&self) -> Result<(), Problem> {
        let known: Vec<&str> = self.tasks.iter().map(|t| t.name.as_str()).collect();
        for (i, stream) in self.streams.iter().enumerate() {
            if !known.is_empty() && !known.contains(&stream.task.as_str()) {
                let problem = format!(
                    "unknown task `{}`{}",
                    stream.task,
                    suggestion(&stream.task, known.iter().copied())
                );
                return bad(format!("stream[{i}].task"), problem);
            }
        }
        let mut variants: Vec<(String, String, f64)> = Vec::new();
        for task in &self.tasks {
            for v in &task.variants {
                variants.push((v.plan_name(), task.name.clone(), v.accuracy));
            }
        }
        if self.tasks.is_empty() {
            let tasks: BTreeSet<&String> = self.streams.iter().map(|s| &s.task).collect();
            variants.extend(tasks.into_iter().map(|t| (t.clone(), t.clone(), 1.0)));
        }
        if variants.is_empty() {
            return bad("stream", "expected at least one [[stream]]");
        }
        match Case::new(stand_in(variants), self.scenario()) {
            Ok(_) => Ok(()),
            Err(CaseError { key, problem }) => Err((key, problem)),
        }
    }
}

pub(super) fn bad<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, Problem> {
    Err((key.into(), problem.into()))
}

/// Checks the times of faults; `key` is that of their list.
pub(super) fn faults(key: &str, faults: &[Fault]) -> Result<(), Problem> {
    for (i, fault) in faults.iter().enumerate() {
        at_least_zero(&format!("{key}[{i}].from_ms"), fault.from_ms)?;
        at_least_zero(&format!("{key}[{i}].noticed_ms"), fault.noticed_ms)?;
        let slowed = fault.speed > 0.0 && fault.speed < 1.0;
        if fault.kind == FaultKind::Slow && !slowed {
            let problem = format!("expected a share above 0 and below 1 for kind slow, got {}", fault.speed);
            return bad(format!("{key}[{i}].speed"), problem);
        }
        if fault.kind != FaultKind::Slow && fault.speed != 0.0 {
            return bad(format!("{key}[{i}].speed"), "expected none: only faults of kind slow have a speed");
        }
        if fault.to_ms.is_nan() || fault.to_ms <= fault.from_ms {
            return bad(format!("{key}[{i}].to_ms"), "expected a time after from_ms");
        }
    }
    Ok(())
}

pub(super) fn share(key: &str, value: f64) -> Result<(), Problem> {
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        bad(key, format!("expected a number from 0 to 1, got {value}"))
    }
}

pub(super) fn at_least_zero(key: &str, value: f64) -> Result<(), Problem> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        bad(key, format!("expected a number of at least 0, got {value}"))
    }
}

/// A plan with one processor on which each (variant, task, accuracy) is one segment.
fn stand_in(variants: Vec<(String, String, f64)>) -> Plan {
    let cost = Cost { mean_us: 1.0, p50_us: 1.0, p95_us: 1.0, energy_mj: 0.0 };
    let segment = SegmentSpec { costs: vec![Some(cost)], ..SegmentSpec::default() };
    Plan {
        format: PLAN_FORMAT,
        provenance: BTreeMap::new(),
        processors: vec![ProcessorSpec {
            name: "any".into(),
            device: String::new(),
            slots: 1,
            active_watts: 0.0,
            idle_watts: 0.0,
            copy_us: 0.0,
            copy_gbps: 0.0,
            launch_us: 0.0,
            crowd: None,
        }],
        contention: vec![vec![1.0]],
        variants: variants
            .into_iter()
            .map(|(name, task, accuracy)| PlanVariant {
                name,
                task,
                accuracy,
                segments: vec![segment.clone()],
                ..PlanVariant::default()
            })
            .collect(),
    }
}

/// A name that can stand in files and on the command line.
fn plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
