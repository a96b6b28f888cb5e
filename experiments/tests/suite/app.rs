//! App files: defaults, models, processors, and the case that they make with a plan.

use crate::fixture::{APP, folder, plan};
use cosched_experiments::app::{App, Model, Processors};
use cosched_experiments::compare::{Plan, Setup, compare, from_table};
use std::path::Path;

const TASKS: &str = r#"
[[task]]
name = "see"
[[task.variant]]
model = "models/see-small.onnx"
accuracy = 0.7
[[task]]
name = "hear"
[[task.variant]]
model = "zoo:kws"
name = "hear"
accuracy = 0.95
"#;

fn app(text: &str) -> App {
    App::parse(text, Path::new("folder/small.toml")).unwrap()
}

#[test]
fn the_demo_is_well_formed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/demo.toml");
    let demo = App::read(&path).unwrap();
    let names: Vec<_> = demo.tasks.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["detect", "classify", "keyword", "embed"]);
    assert_eq!(demo.streams.len(), 4);
    assert_eq!(demo.model(&demo.tasks[0].variants[1]), Model::Zoo("mobilenet_v2_050".into()));
    assert_eq!(demo.case().unwrap().processor_count(), 4);
}

/// Runs the shipped emulated device for a while under every policy of its sweep.
#[test]
fn the_shipped_device_runs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let app = App::read(&folder.join("rk3588.toml")).unwrap();
    let setup = Setup::of(&app).unwrap();
    let sweep = crate::sweep::read(&folder.join("rk3588-load.toml")).unwrap().part;
    let (policies, seeds) = (sweep.policies.unwrap(), sweep.seeds.unwrap());
    let plan = Plan { policies: &policies, seeds: &seeds, reference: None, threads: 0 };
    let comparison = compare(&setup, &plan, &from_table, &|_, _| {}).unwrap();
    println!("{comparison}");
    assert!(comparison.rows.iter().any(|row| row.on_time_share.mean > 0.5));
    assert!(comparison.runs.iter().all(|run| run.summary.total.open == 0));
}

#[test]
fn models_and_names() {
    let app = app(&format!("{APP}{TASKS}"));
    let first = &app.tasks[0].variants[0];
    assert_eq!(app.model(first), Model::File("folder/models/see-small.onnx".into()));
    assert_eq!(first.plan_name(), "see-small");
    assert_eq!(app.tasks[1].variants[0].plan_name(), "hear");
}

#[test]
fn the_file_decides_which_variants_and_accuracies_count() {
    let case = app(&format!("{APP}{TASKS}")).case_of(plan()).unwrap();
    let variants: Vec<_> = case.variants.iter().map(|v| (v.name.as_str(), v.accuracy)).collect();
    assert_eq!(variants, [("see-small", 0.7), ("hear", 0.95)]);
    let other = TASKS.replace("see-small", "see-tiny");
    let error = app(&format!("{APP}{other}")).case_of(plan()).unwrap_err().to_string();
    assert!(error.contains("plan.json: lacks variant `see-tiny` of task `see`"), "{error}");
    assert!(error.contains("cosched profile"), "{error}");
}

#[test]
fn processors_are_chosen_and_ordered() {
    let named = APP.replacen("seconds = 5", "processors = ['gpu', 'cpu']", 1);
    let case = app(&named).case_of(plan()).unwrap();
    assert_eq!(case.plan.processors[0].name, "gpu");
    assert_eq!(case.plan.contention, [[1.0, 1.1], [1.2, 1.0]]);
    assert_eq!(case.plan.variants[2].segments[0].costs[1].unwrap().mean_us, 3e3);
    let missing = app(&APP.replacen("seconds = 5", "processors = ['gpuu']", 1)).case_of(plan()).unwrap_err();
    assert!(missing.to_string().contains("has no processor `gpuu`; did you mean `gpu`?"), "{missing}");

    assert_eq!(app(APP).processors, Processors::All);
    assert_eq!(app(APP).choose_processors(&["cpu", "dsp"]).unwrap(), ["cpu", "dsp"]);
    assert_eq!(app(&named).choose_processors(&["cpu", "gpu", "dsp"]).unwrap(), ["gpu", "cpu"]);
    let error =
        app(&format!("{APP}[power.dps]\nidle_watts = 1\n")).choose_processors(&["cpu", "dsp"]).unwrap_err();
    assert!(error.to_string().contains("unknown processor `dps`; did you mean `dsp`?"), "{error}");
    let error = app(&format!("{APP}[slots]\ndps = 2\n")).choose_processors(&["cpu", "dsp"]).unwrap_err();
    assert!(error.to_string().contains("unknown processor `dps`; did you mean `dsp`?"), "{error}");
}

#[test]
fn a_missing_plan_says_how_to_make_it() {
    let folder = folder("missing-plan");
    std::fs::remove_file(folder.join("plan.json")).unwrap();
    std::fs::write(folder.join("app.toml"), format!("{APP}{TASKS}")).unwrap();
    let error = App::read(&folder.join("app.toml")).unwrap().case().unwrap_err().to_string();
    assert!(error.contains("plan.json: no such plan: `cosched profile "), "{error}");
    std::fs::write(folder.join("plan.json"), serde_json::to_string(&plan()).unwrap()).unwrap();
    App::read(&folder.join("app.toml")).unwrap().case().unwrap();
}

#[test]
fn streams_that_do_not_fit_the_plan_point_into_the_app() {
    let folder = folder("misfit");
    let path = folder.join("small.toml");
    std::fs::write(&path, APP.replacen("task = \"see\"", "task = \"sea\"", 1)).unwrap();
    let error = App::read(&path).unwrap().case().unwrap_err().to_string();
    assert!(error.contains("small.toml:7:1: stream[0].task: no variant serves `sea`"), "{error}");
    std::fs::write(&path, format!("{APP}[[emulator.faults]]\nprocessor = \"gpx\"\nfrom_ms = 1\nto_ms = 2\n"))
        .unwrap();
    let error = App::read(&path).unwrap().case().unwrap_err().to_string();
    assert!(error.contains("emulator.faults[0].processor: unknown processor `gpx`"), "{error}");
}

#[test]
fn an_app_survives_a_round_trip() {
    let first = app(&format!("{APP}{TASKS}[power.cpu]\nidle_watts = 1\n[slots]\ncpu = 2\n"));
    let text = toml::to_string(&first).unwrap();
    assert_eq!(app(&text), first);
}
