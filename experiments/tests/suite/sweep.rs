//! Sweeps: what the file says and which cells come of it. Running and keeping is in `sweep_run.rs`.

use crate::fixture::{APP, folder};
use cosched_env::capacity::capacity;
use cosched_env::time::Span;
use cosched_experiments::compare::from_table;
use cosched_experiments::config::ConfigError;
use cosched_experiments::sweep::apps;
use cosched_experiments::sweep::emulated::Emulated;
use cosched_experiments::sweep::kind::{Kind, Outcome, Spec};
use cosched_experiments::sweep::xr::Xr;
use cosched_experiments::sweep::{Cell, Sweep};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const EMULATED: Emulated<'static> = Emulated { make: &from_table };
const XR: Xr<'static> = Xr { make: &cosched_experiments::xrbench::from_table };

/// A folder with the small app and this sweep file.
pub fn write(name: &str, text: &str) -> PathBuf {
    let path = folder(name).join("sweep.toml");
    std::fs::write(&path, text).unwrap();
    path
}

pub fn read_subset(path: &Path, subset: Option<&str>) -> Result<Sweep<'static>, ConfigError> {
    Sweep::read(path, subset, &[&EMULATED, &XR])
}

pub fn read(path: &Path) -> Result<Sweep<'static>, ConfigError> {
    read_subset(path, None)
}

pub const SWEEP: &str = r#"
base = "small.toml"
policies = ["edf", "eft"]
seeds = 2
seconds = 1

[grid]
load = [0.5, 1.5]
"emulator.failure_rate" = [0, 0.02]
"stream.0.deadline_ms" = [20, 40]
"#;

fn titles(cells: &[Cell]) -> Vec<String> {
    cells.iter().map(Cell::title).collect()
}

#[test]
fn cells_are_the_product_and_keep_their_names() {
    let sweep = read(&write("sweep-cells", SWEEP)).unwrap();
    assert_eq!(sweep.cells.len(), 32);
    let expected = "emulator.failure_rate = 0, load = 0.5, stream.0.deadline_ms = 20, ";
    assert_eq!(sweep.cells[0].title(), format!("{expected}edf, seed 1"));
    assert_eq!(sweep.cells[3].title(), format!("{expected}eft, seed 2"));
    let app = |cell: usize| &sweep.cells[cell].spec.config;
    assert_eq!(app(0)["stream"][0]["deadline_ms"], 20.0);
    assert_eq!(app(0)["stream"][0]["period_ms"], 40.0);
    assert_eq!(app(31)["stream"][1]["period_ms"], 10.0);
    assert_eq!(app(0)["seconds"], 1.0);
    // Names hang on the content: all differ, another folder has the same, one more value of an axis changes none.
    let hashes = |sweep: &Sweep<'_>| sweep.cells.iter().map(|c| c.hash.clone()).collect::<Vec<_>>();
    let own = hashes(&sweep);
    assert_eq!(own.iter().collect::<std::collections::BTreeSet<_>>().len(), 32);
    assert_eq!(own, hashes(&read(&write("sweep-cells-2", SWEEP)).unwrap()));
    let more =
        hashes(&read(&write("sweep-cells-3", &SWEEP.replace("[0.5, 1.5]", "[0.5, 1.5, 2.5]"))).unwrap());
    assert!(own.iter().all(|h| more.contains(h)) && more.len() == 48);
    // The saboteur: another plan is another result, though no word of the sweep changed.
    let path = write("sweep-cells-4", SWEEP);
    let plan = path.with_file_name("plan.json");
    let text = std::fs::read_to_string(&plan).unwrap();
    std::fs::write(&plan, text.replacen("6000.0", "6001.0", 1)).unwrap();
    let other = hashes(&read(&path).unwrap());
    assert!(own.iter().all(|h| !other.contains(h)));
}

#[test]
fn includes_subsets_samples_and_conditions() {
    let path = write(
        "sweep-parts",
        r#"
include = ["common.toml"]
policies = ["edf", "eft", "heft"]
[grid]
load = [0.5, 1.0, 1.5]
[random]
samples = 4
seed = 3
[random.keys]
"stream.*.deadline_ms" = { from = 20, to = 80, log = true }
[[skip]]
policy = "heft"
load = { above = 0.9 }
[[skip]]
seed = [2]
load = 0.5
[subset.quick]
seeds = [1]
grid = { load = [1.0] }
random = { samples = 2, seed = 3, keys = { "stream.*.deadline_ms" = { from = 20, to = 80, log = true } } }
"#,
    );
    let common = "base = \"small.toml\"\nseeds = 2\nseconds = 2\npolicies = [\"edf\"]\nreference = \"edf\"\n";
    std::fs::write(path.with_file_name("common.toml"), common).unwrap();
    let sweep = read(&path).unwrap();
    // Loads 1.0 and 1.5: two policies, two seeds; load 0.5: three policies, one seed; four samples of each.
    assert_eq!(sweep.cells.len(), 4 * (2 * 2 * 2 + 3));
    assert_eq!(sweep.part.reference.as_deref(), Some("edf"));
    let quick = read_subset(&path, Some("quick")).unwrap();
    assert_eq!(quick.cells.len(), 4);
    let all: Vec<&str> = sweep.cells.iter().map(|c| c.hash.as_str()).collect();
    assert!(
        quick.cells.iter().all(|c| all.contains(&c.hash.as_str())),
        "a subset's cells are the sweep's own"
    );
    assert!(
        titles(&quick.cells)[0].starts_with("load = 1.0, stream.*.deadline_ms = "),
        "{:?}",
        titles(&quick.cells)
    );
    let error = read_subset(&path, Some("quik")).map(|s| s.name).unwrap_err().to_string();
    assert!(error.ends_with("no subset `quik`; did you mean `quick`?"), "{error}");
}

/// A kind that has nothing but its name.
struct Plain;

impl Kind for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn about(&self) -> &'static str {
        "nothing"
    }

    fn run(&self, _: &Spec, _: &Arc<AtomicBool>) -> Result<Outcome, String> {
        Err("it never runs".into())
    }

    fn estimate(&self, _: &Spec) -> Option<f64> {
        None
    }
}

#[test]
fn a_kind_without_a_bound_is_not_asked_for_one() {
    let read = |text: &str| Sweep::read(&write("sweep-plain", text), None, &[&Plain]).map(drop);
    let plain = SWEEP.replace("seconds = 1", "kind = \"plain\"");
    read(&plain).unwrap();
    let error = read(&plain.replace("kind =", "bound = 5\nkind =")).unwrap_err().to_string();
    assert!(error.contains("5:1: bound: a sweep of kind `plain` has none"), "{error}");
}

#[test]
fn ill_written_sweeps_are_refused() {
    let change = |old: &str, new: &str| {
        assert!(SWEEP.contains(old), "{old}");
        SWEEP.replace(old, new)
    };
    let add = |text: &str| format!("{SWEEP}{text}");
    let table = [
        (
            change("policies =", "polices ="),
            "3:1: unknown key `polices` in the top level; did you mean `policies`?",
        ),
        (
            change("failure_rate", "falure_rate"),
            "9:1: grid key `emulator.falure_rate`: no key `falure_rate`; did you mean `failure_rate`?",
        ),
        (
            change("stream.0", "stream.2"),
            "10:1: grid key `stream.2.deadline_ms`: expected an index below 2 or `*`, got `2`",
        ),
        (
            change("[20, 40]", "[20, \"long\"]"),
            "10:1: grid key `stream.0.deadline_ms`: invalid type: string \"long\", expected f64",
        ),
        (change("[20, 40]", "[]"), "10:1: grid key `stream.0.deadline_ms`: expected at least one value"),
        (change("[0.5, 1.5]", "[0.5, 0]"), "8:1: grid key `load`: expected a number above 0"),
        (
            change("seconds = 1", "load_of = \"capasity\""),
            "5:1: load_of: expected `file` or `capacity`, got `capasity`; did you mean `capacity`?",
        ),
        (add("[set]\nload_of = 1\n"), "12:1: set key `load_of`: expected \"file\" or \"capacity\", got 1"),
        (
            change("seconds = 1", "bound = 0"),
            "5:1: bound: expected a number of evaluations from 1 to 10000000",
        ),
        (change("seconds = 1", "bound = -5"), "5:9: bound: invalid value: integer `-5`, expected u64"),
        (
            change("seconds = 1", "bound = \"much\""),
            "5:9: bound: invalid type: string \"much\", expected u64",
        ),
        (
            change("seconds = 1", "bond = 5"),
            "5:1: unknown key `bond` in the top level; did you mean `bound`?",
        ),
        (
            change("seeds = 2", "seeds = 0"),
            "4:9: seeds: invalid value: integer `0`, expected a number of seeds",
        ),
        (change("[\"edf\", \"eft\"]", "[]"), "3:1: policies: expected at least one"),
        (change("\"eft\"", "\"edf\""), "3:1: policies: `edf` is there twice"),
        (change("seconds = 1", "seconds = 0"), "5:1: seconds: expected a number above 0 and at most 1000000"),
        (change("seconds = 1", "reference = \"heft\""), "5:1: reference: `heft` is not among the policies"),
        (
            change("seconds = 1", "kind = \"compere\""),
            "5:1: kind: unknown kind `compere`; did you mean `compare`?",
        ),
        (change("seconds = 1", "include = [\"none.toml\"]"), "none.toml"),
        (change("seconds = 1", "include = [\"sweep.toml\"]"), "include[0]: includes itself"),
        (change("small.toml", "smal.toml"), "smal.toml: no such file"),
        (change("base =", "name ="), "missing key `base` in the top level"),
        (add("device = [\"nowhere.toml\"]\n"), "11:1: grid key `device`: "),
        (add("[[skip]]\npolcy = \"edf\"\n"), "12:1: skip key `polcy`: no such axis; did you mean `policy`?"),
        (add("[[skip]]\nseed = [1, 2]\n"), "leaves no cell"),
        (add("[set]\nsecond = 1\n"), "12:1: set key `second`: no key `second`; did you mean `seconds`?"),
        (
            add("[random]\nsamples = 2\n[random.keys]\nload = { from = 1, to = 2 }\n"),
            "random key `load`: is in the grid already",
        ),
        (
            add("[random]\nsamples = 2\n[random.keys]\nseconds = { from = 2, to = 2 }\n"),
            "14:1: random key `seconds`: expected `from` below `to`",
        ),
        (add("[random]\nsample = 2\n"), "12:1: unknown key `sample` in [random]; did you mean `samples`?"),
        (add("[subset.a]\ninclude = [\"b\"]\n"), "subset.a: a subset has no `include` of its own"),
    ];
    for (text, expected) in table {
        let error = match read(&write("sweep-refused", &text)) {
            Ok(sweep) => panic!("{} cells, expected: {expected}\n{text}", sweep.cells.len()),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }
}

#[test]
fn a_wildcard_sets_all_streams() {
    let text = SWEEP.replace("stream.0.deadline_ms", "stream.*.deadline_ms");
    let sweep = read(&write("sweep-wildcard", &text)).unwrap();
    let streams = sweep.cells[4].spec.config["stream"].as_array().unwrap().clone();
    assert!(streams.iter().all(|s| s["deadline_ms"] == 40.0));
}

#[test]
fn the_bound_is_one_more_contender_and_changes_no_other_name() {
    let names = |name: &str, text: &str| -> Vec<(String, String)> {
        let sweep = read(&write(name, text)).unwrap();
        sweep.cells.iter().map(|c| (c.spec.policy.clone(), c.hash.clone())).collect()
    };
    let with = |more: &str| SWEEP.replace("seconds = 1", &format!("seconds = 1\n{more}"));
    let bounds = |all: &[(String, String)]| -> Vec<String> {
        all.iter().filter(|c| c.0 == "bound").map(|c| c.1.clone()).collect()
    };
    let plain = names("sweep-bound-0", SWEEP);
    let bound = names("sweep-bound-1", &with("bound = 500"));
    // Eight settings and two seeds; it comes after the policies.
    assert_eq!((bound.len(), bounds(&bound).len()), (32 + 16, 16));
    let order: Vec<&str> = bound[..6].iter().map(|c| c.0.as_str()).collect();
    assert_eq!(order, ["edf", "edf", "eft", "eft", "bound", "bound"]);
    assert!(plain.iter().all(|cell| bound.contains(cell)));
    // More evaluations, and other policies to begin from, are another result.
    let more = bounds(&names("sweep-bound-2", &with("bound = 501")));
    let other = with("bound = 500").replace("\"eft\"", "\"heft\"");
    let other = bounds(&names("sweep-bound-3", &other));
    assert!(bounds(&bound).iter().all(|hash| !more.contains(hash) && !other.contains(hash)));
    let skipped =
        names("sweep-bound-4", &(with("bound = 500") + "[[skip]]\npolicy = \"bound\"\nload = 0.5\n"));
    assert_eq!(bounds(&skipped).len(), 8);
    // A subset may look for longer or shorter.
    let path = write("sweep-bound-5", &(with("bound = 500") + "[subset.quick]\nbound = 501\n"));
    let quick = read_subset(&path, Some("quick")).unwrap();
    assert!(quick.cells.iter().filter(|c| c.spec.policy == "bound").all(|c| more.contains(&c.hash)));
}

#[test]
fn loads_are_shares_of_the_file_or_of_the_capacity() {
    let load = |sweep: &Sweep<'_>, cell: usize| {
        let app = apps::app(&sweep.cells[cell].spec).unwrap();
        capacity(&app.case().unwrap(), Span::from_ms(app.seconds * 1e3)).load()
    };
    let text = SWEEP.replace("seconds = 1", "load_of = \"capacity\"");
    let sweep = read(&write("sweep-capacity", &text)).unwrap();
    // Load 0.5 in the first four cells of a deadline, 1.5 in those after the second one. The capacity is proven to half a percent.
    for (cell, expected) in [(0, 0.5), (4, 0.5), (8, 1.5), (12, 1.5)] {
        assert!((load(&sweep, cell) / expected - 1.0).abs() < 0.01, "{cell}: {}", load(&sweep, cell));
    }
    // Both streams grow alike.
    let stream =
        |cell: usize, i: usize| sweep.cells[cell].spec.config["stream"][i]["period_ms"].as_f64().unwrap();
    assert!((stream(0, 0) / stream(0, 1) - 20.0 / 15.0).abs() < 1e-9);
    // The saboteur: shares of the file are other loads, and what a sweep says without the key.
    let (file, plain) =
        (text.replace("\"capacity\"", "\"file\""), text.replace("load_of = \"capacity\"", ""));
    let (file, plain) =
        (read(&write("sweep-of-file", &file)).unwrap(), read(&write("sweep-plain", &plain)).unwrap());
    assert!((load(&file, 0) / 0.5 - 1.0).abs() > 0.05, "{}", load(&file, 0));
    assert_eq!(file.cells[0].spec.config, plain.cells[0].spec.config);
    // Without any request there is no capacity to take a share of.
    let path = write("sweep-closed", &text.replace("small.toml", "closed.toml"));
    let closed = APP.replace("deadline_ms", "open_ms = [[100000, 200000]]\ndeadline_ms");
    std::fs::write(path.with_file_name("closed.toml"), closed).unwrap();
    let error = read(&path).map(|s| s.cells.len()).unwrap_err().to_string();
    assert!(error.contains("set key `load_of`: no stream is open during the run"), "{error}");
}
