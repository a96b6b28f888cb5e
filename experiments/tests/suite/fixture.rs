//! A small device and app, built in code, that the whole suite shares.

use cosched_env::case::Case;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_experiments::app::App;
use cosched_experiments::compare::{Setup, emulate, from_table};
use cosched_experiments::log::RunLog;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Two tasks on two streams each within reach of two processors, at a load where policies differ.
pub const APP: &str = r#"
name = "small"
plan = "plan.json"
seconds = 5

[[stream]]
task = "see"
period_ms = 20
jitter_ms = 2
deadline_ms = 25

[[stream]]
task = "hear"
kind = "poisson"
period_ms = 15
deadline_ms = 30
priority = 2.0
"#;

fn processor(name: &str, slots: u32, active_watts: f64, copy_us: f64) -> ProcessorSpec {
    ProcessorSpec {
        name: name.into(),
        device: "imagined".into(),
        slots,
        active_watts,
        idle_watts: 0.5,
        copy_us,
        copy_gbps: 4.0,
        launch_us: 0.0,
        crowd: None,
    }
}

fn variant(name: &str, task: &str, accuracy: f64, costs_us: &[[f64; 2]]) -> Variant {
    let cost = |us: f64, watts: f64| {
        Some(Cost { mean_us: us, p50_us: us, p95_us: 1.3 * us, energy_mj: us * watts / 1e3 })
    };
    let segments = costs_us.iter().enumerate().map(|(i, c)| SegmentSpec {
        name: format!("{name}/{i}"),
        input_bytes: 100_000,
        output_bytes: 50_000,
        costs: vec![cost(c[0], 5.0), cost(c[1], 3.0)],
        ..SegmentSpec::default()
    });
    Variant {
        name: name.into(),
        task: task.into(),
        accuracy,
        memory_bytes: 1 << 20,
        segments: segments.collect(),
        ..Variant::default()
    }
}

/// `cpu` with two slots and `gpu` with one; `see` in two variants of three segments, `hear` in one of two.
pub fn plan() -> Plan {
    Plan {
        format: PLAN_FORMAT,
        provenance: BTreeMap::from([("source".to_owned(), "tests".to_owned())]),
        processors: vec![processor("cpu", 1, 5.0, 5.0), processor("gpu", 1, 3.0, 50.0)],
        contention: vec![vec![1.0, 1.2], vec![1.1, 1.0]],
        variants: vec![
            variant("see-large", "see", 0.9, &[[6e3, 3e3], [8e3, 4e3], [4e3, 5e3]]),
            variant("see-small", "see", 0.8, &[[3e3, 2e3], [4e3, 2e3], [2e3, 2e3]]),
            variant("hear", "hear", 0.95, &[[3e3, 6e3], [2e3, 5e3]]),
        ],
    }
}

/// The app of [`APP`] with the plan in memory.
pub fn case() -> Arc<Case> {
    App::parse(APP, Path::new("small.toml")).unwrap().case_of(plan()).unwrap()
}

/// Five seconds of it with the defaults.
pub fn setup() -> Setup {
    Setup { case: case(), options: Default::default(), emulator: Default::default(), seconds: 5.0 }
}

/// The log of a run.
pub fn log(setup: &Setup, spec: &str, seed: u64) -> RunLog {
    let mut policy = from_table(spec, &setup.case).unwrap();
    let mut log = RunLog::new(spec);
    let end = emulate(setup, policy.as_mut(), seed, &mut log).unwrap();
    log.finish(end)
}

/// A new folder with `small.toml` and `plan.json`.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("small.toml"), APP).unwrap();
    std::fs::write(folder.join("plan.json"), serde_json::to_string(&plan()).unwrap()).unwrap();
    folder
}
