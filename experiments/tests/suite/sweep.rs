//! Sweeps: cells, refusals, determinism, and errors that stay in their cell.

use crate::fixture::folder;
use cosched_env::case::Case;
use cosched_env::world::Policy;
use cosched_experiments::compare::from_table;
use cosched_experiments::sweep::{CellResult, Sweep};
use serde_json::Value;
use std::path::PathBuf;

fn write(name: &str, text: &str) -> PathBuf {
    let path = folder(name).join("sweep.toml");
    std::fs::write(&path, text).unwrap();
    path
}

const SWEEP: &str = r#"
base = "small.toml"
policies = ["edf", "eft"]
seeds = 2
seconds = 1

[grid]
load = [0.5, 1.5]
"emulator.failure_rate" = [0, 0.02]
"stream.0.deadline_ms" = [20, 40]
"#;

fn without_timing(mut results: Vec<CellResult>) -> Vec<CellResult> {
    results.iter_mut().flat_map(|r| &mut r.rows).for_each(|row| row.decision_us = 0.0);
    results
}

#[test]
fn threads_do_not_matter_and_files_are_whole() {
    let path = write("sweep-threads", SWEEP);
    let sweep = Sweep::read(&path).unwrap();
    let run = |threads| without_timing(sweep.run(&from_table, threads, &|_, _| {}).unwrap());
    let results = run(1);
    assert_eq!(results, run(3));
    assert_eq!(results.len(), 8);
    assert!(results.iter().all(|r| r.error.is_none() && r.rows.len() == 2));
    // More load, no more utility.
    let utility = |cell: usize| results[cell].rows[1].utility.mean;
    assert!(utility(0) >= utility(2), "{} {}", utility(0), utility(2));

    let out = path.with_file_name("out");
    sweep.write(&results, &out).unwrap();
    let csv = std::fs::read_to_string(out.join("results.csv")).unwrap();
    let columns: Vec<usize> = csv.lines().map(|l| l.split(',').count()).collect();
    assert_eq!(columns, vec![columns[0]; 17]);
    assert!(csv.starts_with("cell,emulator.failure_rate,load,stream.0.deadline_ms,policy,utility,"), "{csv}");
    let meta: Value = serde_json::from_str(&std::fs::read_to_string(out.join("meta.json")).unwrap()).unwrap();
    assert_eq!(meta["base"]["objective"]["late_ms"], 50.0);
    assert_eq!(meta["sweep"]["seeds"], serde_json::json!([1, 2]));
    assert!(meta["commit"].as_str().is_some_and(|c| !c.is_empty()));
    let json: Vec<CellResult> =
        serde_json::from_str(&std::fs::read_to_string(out.join("results.json")).unwrap()).unwrap();
    assert_eq!(json, results);
}

#[test]
fn the_dry_run_lists_every_cell() {
    let text = Sweep::read(&write("sweep-dry", SWEEP)).unwrap().dry_run().unwrap();
    insta::assert_snapshot!("dry_run", text);
}

#[test]
fn ill_written_sweeps_are_refused() {
    let table = [
        (
            SWEEP.replace("policies =", "polices ="),
            "sweep.toml:3:1: unknown key `polices` in the top level; did you mean `policies`?",
        ),
        (
            SWEEP.replace("failure_rate", "falure_rate"),
            "sweep.toml:9:1: grid key `emulator.falure_rate`: no key `falure_rate`; did you mean `failure_rate`?",
        ),
        (
            SWEEP.replace("stream.0", "stream.2"),
            "grid key `stream.2.deadline_ms`: expected an index below 2 or `*`, got `2`",
        ),
        (
            SWEEP.replace("[20, 40]", "[20, \"long\"]"),
            "grid key `stream.0.deadline_ms`: invalid type: string \"long\", expected f64",
        ),
        (SWEEP.replace("[20, 40]", "[]"), "grid key `stream.0.deadline_ms`: expected at least one value"),
        (
            SWEEP.replace("[0.5, 1.5]", "[0.5, 0]"),
            "sweep.toml:8:1: grid key `load`: expected a number above 0",
        ),
        (
            SWEEP.replace("seeds = 2", "seeds = 0"),
            "sweep.toml:4:9: seeds: invalid value: integer `0`, expected a number of seeds",
        ),
        (SWEEP.replace("[\"edf\", \"eft\"]", "[]"), "sweep.toml:3:1: policies: expected at least one"),
        (SWEEP.replace("small.toml", "smal.toml"), "smal.toml: no such file"),
    ];
    for (text, expected) in table {
        let error = Sweep::read(&write("sweep-refused", &text)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
}

#[test]
fn a_wildcard_sets_all_streams() {
    let text = SWEEP.replace("stream.0.deadline_ms", "stream.*.deadline_ms");
    let cells = Sweep::read(&write("sweep-wildcard", &text)).unwrap().cells().unwrap();
    let app = cells[1].app.as_ref().unwrap();
    assert!(app.streams.iter().all(|s| s.deadline_ms == 40.0));
    assert_eq!(app.streams[0].period_ms, 40.0);
}

/// The saboteurs: a value that makes no sense beside the others, and a policy that panics in some cells.
#[test]
fn an_error_stays_in_its_cell() {
    let text = SWEEP.replace("[20, 40]", "[0, 40]");
    let sweep = Sweep::read(&write("sweep-errors", &text)).unwrap();
    let results = sweep.run(&from_table, 2, &|_, _| {}).unwrap();
    let errors: Vec<bool> = results.iter().map(|r| r.error.is_some()).collect();
    assert_eq!(errors, [true, false, true, false, true, false, true, false]);
    assert!(results[0].error.as_ref().unwrap().starts_with("stream[0].deadline_ms: "));
    // The error has a comma in it and so stands in quotes: what is between quotes is no column.
    let columns =
        |line: &str| line.split('"').step_by(2).map(|part| part.matches(',').count()).sum::<usize>();
    let csv = sweep.csv(&results);
    let counts: Vec<usize> = csv.lines().map(columns).collect();
    assert_eq!(counts, vec![counts[0]; 13]);
    assert!(sweep.dry_run().unwrap().contains("will fail: stream[0].deadline_ms"));

    let make = |spec: &str, case: &Case| -> Result<Box<dyn Policy>, String> {
        assert!(case.scenario.streams[0].period_ms < 20.0, "saboteur");
        from_table(spec, case)
    };
    let results = Sweep::read(&write("sweep-panics", SWEEP)).unwrap().run(&make, 2, &|_, _| {}).unwrap();
    let errors: Vec<bool> =
        results.iter().map(|r| r.error.as_deref() == Some("panicked: saboteur")).collect();
    assert_eq!(errors, [true, true, false, false, true, true, false, false]);
}
