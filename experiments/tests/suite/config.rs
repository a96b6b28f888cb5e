//! Every error of a file names the file, the line, the key, and what was meant.

use crate::fixture::{APP, folder};
use cosched_env::plan::Plan;
use cosched_experiments::app::App;
use cosched_experiments::config::{nearest, read_json, read_text};
use std::path::Path;

fn error(text: &str) -> String {
    match App::parse(text, Path::new("x.toml")) {
        Ok(_) => panic!("this was accepted:\n{text}"),
        Err(e) => e.to_string(),
    }
}

/// The app with one line replaced.
fn with(old: &str, new: &str) -> String {
    assert!(APP.contains(old), "the fixture has no `{old}`");
    APP.replacen(old, new, 1)
}

#[test]
fn typos_are_named_with_the_nearest_key() {
    let table = [
        (
            with("period_ms = 20", "perod_ms = 20"),
            "x.toml:8:1: unknown key `perod_ms` in [[stream]]; did you mean `period_ms`?",
        ),
        (
            with("deadline_ms = 30", "dedline_ms = 30"),
            "x.toml:16:1: unknown key `dedline_ms` in [[stream]]; did you mean `deadline_ms`?",
        ),
        (
            with("seconds = 5", "second = 5"),
            "x.toml:4:1: unknown key `second` in the top level; did you mean `seconds`?",
        ),
        (
            format!("{APP}[objectiv]\nlate_ms = 3\n"),
            "x.toml:18:2: unknown key `objectiv` in the top level; did you mean `objective`?",
        ),
        (
            format!("{APP}[objective]\nlatems = 3\n"),
            "x.toml:19:1: unknown key `latems` in [objective]; did you mean `late_ms`?",
        ),
        (
            format!("{APP}[emulator]\nfailure = 0.1\n"),
            "x.toml:19:1: unknown key `failure` in [emulator]; known: spread, decision_us, candidate_us, failure_rate, faults",
        ),
        (
            format!("{APP}[power.cpu]\nactive_wats = 1\n"),
            "x.toml:19:1: unknown key `active_wats` in [power.cpu]; did you mean `active_watts`?",
        ),
        (
            format!(
                "{APP}[[emulator.faults]]\nprocessor = \"cpu\"\nkind = 'slow'\nfrom_ms = 5\nto_ms = 6\nspeed = 1.5\n"
            ),
            "x.toml:23:1: emulator.faults[0].speed: expected a share above 0 and below 1 for kind slow, got 1.5",
        ),
        (
            format!("{APP}[[emulator.faults]]\nprocessor = \"cpu\"\nfrom_ms = 5\nto_ms = 6\nspeed = 0.5\n"),
            "x.toml:22:1: emulator.faults[0].speed: expected none: only faults of kind slow have a speed",
        ),
        (
            format!("{APP}[[task]]\nname = 'see'\n[[task.variant]]\nmodl = 'a.onnx'\naccuracy = 1\n"),
            "x.toml:21:1: unknown key `modl` in [[task.variant]]; did you mean `model`?",
        ),
        (
            format!("{APP}[[emulator.faults]]\nprocesor = 1\n"),
            "x.toml:19:1: unknown key `procesor` in [[emulator.faults]]; did you mean `processor`?",
        ),
        (
            with("kind = \"poisson\"", "kind = \"poison\""),
            "x.toml:14:8: unknown value `poison` in [[stream]]; did you mean `poisson`?",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(error(&text), expected);
    }
}

#[test]
fn wrong_types_and_gaps_are_named() {
    let table = [
        (
            with("period_ms = 20", "period_ms = \"fast\""),
            "x.toml:8:13: stream[0].period_ms: invalid type: string \"fast\", expected f64",
        ),
        (
            with("period_ms = 20\n", ""),
            "x.toml:6:1: stream[0].period_ms: expected a number of at least 0.001, got 0",
        ),
        (with("name = \"small\"\n", ""), "x.toml:1:1: missing key `name` in the file"),
        (with("seconds = 5", "seconds = 5\nseconds = 6"), "x.toml:5:1: key `seconds` is there twice"),
        (
            with("seconds = 5", "processors = \"some\""),
            "x.toml:4:14: processors: invalid value: string \"some\", expected \"all\" or a list of processor names",
        ),
        (
            with("seconds = 5", "seconds = "),
            "x.toml:4:11: seconds: string values must be quoted, expected literal string",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(error(&text), expected);
    }
}

#[test]
fn impossible_values_are_named() {
    let table = [
        (with("deadline_ms = 25", "deadline_ms = 0"), "x.toml:10:1: stream[0].deadline_ms: "),
        (with("period_ms = 15", "period_ms = nan"), "x.toml:15:1: stream[1].period_ms: "),
        (with("seconds = 5", "seconds = 0"), "x.toml:4:1: seconds: expected a number above 0"),
        (with("seconds = 5", "processors = []"), "x.toml:4:1: processors: expected at least one"),
        (
            with("seconds = 5", "processors = ['cpu', 'cpu']"),
            "x.toml:4:22: processors[1]: `cpu` is there twice",
        ),
        (format!("{APP}[scheduler]\nwindow = 0\n"), "x.toml:19:1: scheduler.window: expected at least 1"),
        (
            format!("{APP}[segments]\nmin_share = 1.5\n"),
            "x.toml:19:1: segments.min_share: expected a number from 0 to 1",
        ),
        (
            format!("{APP}[power.cpu]\nidle_watts = -1\n"),
            "x.toml:19:1: power.cpu.idle_watts: expected a number of at least 0",
        ),
        (
            format!("{APP}[[emulator.faults]]\nprocessor = \"cpu\"\nfrom_ms = 5\nto_ms = 5\n"),
            "x.toml:21:1: emulator.faults[0].to_ms: expected a time after",
        ),
        (
            format!("{APP}[[task]]\nname = 'see'\n[[task.variant]]\nmodel = 'a.onnx'\naccuracy = 1.5\n"),
            "x.toml:22:1: task[0].variant[0].accuracy: expected",
        ),
        (
            format!("{APP}[[task]]\nname = 'see'\n"),
            "x.toml:19:1: task[0].name: `see` has no [[task.variant]]",
        ),
        (
            format!("{APP}[[task]]\nname = 'sea'\n[[task.variant]]\nmodel = 'a.onnx'\naccuracy = 1\n"),
            "x.toml:7:1: stream[0].task: unknown task `see`; did you mean `sea`?",
        ),
        ("name = 'x'\n".to_owned(), "x.toml: stream: expected at least one"),
        (
            format!("{APP}[objective]\nlate_value = nan\n"),
            "x.toml:19:1: objective.late_value: expected a number of at least 0, got NaN",
        ),
        (
            format!("{APP}[objective]\nfairness_weight = nan\n"),
            "x.toml:19:1: objective.fairness_weight: expected a number of at least 0, got NaN",
        ),
        (
            format!("{APP}[objective]\nenergy_weight = inf\n"),
            "x.toml:19:1: objective.energy_weight: expected a number of at least 0, got inf",
        ),
        (
            format!("{APP}[objective]\naccuracy_weight = nan\n"),
            "x.toml:19:1: objective.accuracy_weight: expected a number from 0 to 1, got NaN",
        ),
        (
            format!("{APP}[objective]\ncontinuity_weight = 1.5\n"),
            "x.toml:19:1: objective.continuity_weight: expected a number from 0 to 1, got 1.5",
        ),
    ];
    for (text, expected) in table {
        let error = error(&text);
        assert!(error.starts_with(expected), "{error}\nexpected {expected}");
    }
}

#[test]
fn unreadable_files_are_named() {
    let folder = folder("unreadable");
    let path = folder.join("latin1.toml");
    std::fs::write(&path, b"name = \"caf\xe9\"").unwrap();
    let text = |p: &Path| read_text(p).unwrap_err().to_string();
    assert!(
        text(&path).ends_with("latin1.toml: is not UTF-8 text (first bad byte at offset 11)"),
        "{}",
        text(&path)
    );
    assert!(text(&folder.join("none.toml")).ends_with("none.toml: no such file"));
    assert!(text(&folder).ends_with(": is a folder, expected a file"));
    let plan = folder.join("broken.json");
    std::fs::write(&plan, "{\"format\": 1,\n \"provenence\": {}}").unwrap();
    let error = read_json::<Plan>(&plan).unwrap_err().to_string();
    assert!(
        error.ends_with("broken.json:2:13: unknown key `provenence`; did you mean `provenance`?"),
        "{error}"
    );
    std::fs::write(&plan, "{\"format\": 1").unwrap();
    assert!(read_json::<Plan>(&plan).unwrap_err().to_string().contains("broken.json:1:12: EOF"));
}

#[test]
fn nothing_is_suggested_for_what_is_not_near() {
    assert_eq!(nearest("zebra", ["period_ms", "task"]), None);
    assert_eq!(nearest("tsk", ["period_ms", "task"]), Some("task"));
    assert_eq!(nearest("x", []), None);
}

/// The saboteur: a typo must not be taken for a default.
#[test]
fn the_unchanged_app_is_accepted() {
    App::parse(APP, Path::new("x.toml")).unwrap();
}
