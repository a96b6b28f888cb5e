//! Running sweeps: the same table whatever the threads, the order and the kills; failures that stay in their cell; a store that loses
//! nothing.

use crate::sweep::{SWEEP, read, write};
use cosched_env::case::Case;
use cosched_env::world::Policy;
use cosched_experiments::compare::from_table;
use cosched_experiments::config::ConfigError;
use cosched_experiments::report::{Report, page};
use cosched_experiments::sweep::emulated::Emulated;
use cosched_experiments::sweep::kind::Row;
use cosched_experiments::sweep::run::{Options, Ran, run};
use cosched_experiments::sweep::store::{Record, Store};
use cosched_experiments::sweep::table::{Table, table};
use cosched_experiments::sweep::{Sweep, hash, results};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn go(sweep: &Sweep<'_>, store: &Path, threads: usize) -> Result<Ran, ConfigError> {
    let stop = Arc::new(AtomicBool::new(false));
    let options = Options { threads, any_code: false, stop: &stop, progress: &|_, _, _| {} };
    run(sweep, &Store::open(store)?, &options)
}

fn csv(ran: &Ran) -> String {
    table(&ran.records).csv()
}

fn fresh(path: &Path, name: &str) -> PathBuf {
    let folder = path.with_file_name(name);
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

#[test]
fn threads_stops_and_stores_do_not_matter() {
    let path = write("sweep-threads", SWEEP);
    let sweep = read(&path).unwrap();
    let one = go(&sweep, &fresh(&path, "one"), 1).unwrap();
    assert_eq!((one.records.len(), one.kept), (32, 0));
    let whole = csv(&one);
    assert_eq!(whole, csv(&go(&sweep, &fresh(&path, "three"), 3).unwrap()));
    // Stopped after five cells, and gone on with.
    let store = fresh(&path, "stopped");
    let stop = Arc::new(AtomicBool::new(false));
    let count = |done: usize, _: usize, _: &str| stop.store(done >= 5, Ordering::Relaxed);
    let options = Options { threads: 1, any_code: false, stop: &stop, progress: &count };
    let part = run(&sweep, &Store::open(&store).unwrap(), &options).unwrap();
    assert_eq!(part.records.len(), 5);
    let rest = go(&sweep, &store, 2).unwrap();
    assert_eq!((rest.kept, csv(&rest)), (5, whole.clone()));
    // Another sweep over the same cells finds them there.
    let half = read(&write("sweep-threads", &SWEEP.replace("seeds = 2", "seeds = [2]"))).unwrap();
    assert_eq!(go(&half, &store, 2).unwrap().kept, 16);
    // 16 settings of a policy and a seed, 2 streams and all of them.
    assert_eq!(whole.lines().count(), 1 + 32 * 3);
    let header = "cell,kind,policy,seed,emulator.failure_rate,load,stream.0.deadline_ms,group,contender,scenario,device,unit,stream,utility,";
    assert!(whole.starts_with(header), "{whole}");
    let columns: Vec<usize> =
        whole.lines().map(|l| l.split('"').step_by(2).map(|p| p.matches(',').count()).sum()).collect();
    assert_eq!(columns, vec![columns[0]; columns.len()]);
}

#[test]
fn results_are_whole_and_say_how_they_were_made() {
    let path = write("sweep-results", &SWEEP.replace("[20, 40]", "[20]"));
    let sweep = read(&path).unwrap();
    let out = fresh(&path, "out");
    let ran = go(&sweep, &out.join("cells"), 2).unwrap();
    results::write(&sweep, &ran.records, &Store::at(&out.join("cells")), &out).unwrap();
    let read_back = results::read(&out).unwrap();
    assert_eq!(read_back.records, ran.records);
    let meta = read_back.meta;
    assert_eq!((meta.name.as_str(), meta.kind.as_str(), meta.cells.len()), ("sweep", "compare", 16));
    assert_eq!(meta.sweep["seeds"], serde_json::json!([1, 2]));
    assert_eq!(meta.devices["processor cpu of plan"], "imagined");
    assert!(!meta.commit.is_empty() && meta.code.len() == 12);
    assert_eq!(std::fs::read_to_string(out.join("table.csv")).unwrap(), csv(&ran));
    // The saboteurs: results of another sweep are not written over; a lost cell is missed.
    let error = results::check_folder(&out, "other", None).unwrap_err().to_string();
    assert!(
        error.ends_with("holds the results of the sweep `sweep`, not of `other`; expected another --out"),
        "{error}"
    );
    results::check_folder(&out, "sweep", None).unwrap();
    assert!(results::check_folder(&out, "sweep", Some("quick")).is_err());
    std::fs::remove_file(Store::at(&out.join("cells")).path(&meta.cells[3].0, &meta.code)).unwrap();
    let error = results::read(&out).map(|r| r.records.len()).unwrap_err().to_string();
    assert!(error.contains("lacks 1 of 16 cells; `cosched sweep "), "{error}");
}

#[cfg(feature = "report")]
#[test]
fn the_parquet_file_has_the_table() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;
    let path = write("sweep-parquet", &SWEEP.replace("[20, 40]", "[0, 20]"));
    let sweep = read(&path).unwrap();
    let out = fresh(&path, "out");
    let ran = go(&sweep, &out.join("cells"), 2).unwrap();
    results::write(&sweep, &ran.records, &Store::at(&out.join("cells")), &out).unwrap();
    let file = std::fs::File::open(out.join("table.parquet")).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let Table { columns, lines } = table(&ran.records);
    assert_eq!(reader.metadata().file_metadata().num_rows() as usize, lines);
    // Written as CSV again, it is the CSV.
    let mut text = columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(",") + "\n";
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        let cells = row.get_column_iter().map(|(_, field)| match field {
            Field::Str(s) if s.contains(',') => format!("\"{s}\""),
            Field::Str(s) => s.clone(),
            Field::Long(n) => n.to_string(),
            Field::Double(x) => x.to_string(),
            Field::Null => String::new(),
            other => panic!("{other:?}"),
        });
        text += &(cells.collect::<Vec<_>>().join(",") + "\n");
    }
    assert_eq!(text, csv(&ran));
}

/// The saboteurs: a value that makes no sense beside the others, and a policy that panics in some cells.
#[test]
fn a_failure_stays_in_its_cell() {
    let path = write("sweep-errors", &SWEEP.replace("[20, 40]", "[0, 40]"));
    let sweep = read(&path).unwrap();
    let store = fresh(&path, "cells");
    let ran = go(&sweep, &store, 2).unwrap();
    let failed: Vec<bool> = ran.records.iter().map(|r| r.outcome.is_err()).collect();
    let expected: Vec<bool> = (0..32).map(|i| (i / 4) % 2 == 0).collect();
    assert_eq!(failed, expected);
    let error = ran.records[0].outcome.as_ref().unwrap_err();
    assert!(error.starts_with("stream[0].deadline_ms: "), "{error}");
    assert!(csv(&ran).lines().nth(1).unwrap().ends_with("\""), "the error stands in its line, in quotes");
    // What failed is tried again, what did not is not.
    assert_eq!(go(&sweep, &store, 2).unwrap().kept, 16);

    let panics = |spec: &str, case: &Case| -> Result<Box<dyn Policy>, String> {
        assert!(case.scenario.streams[0].period_ms < 20.0, "saboteur");
        from_table(spec, case)
    };
    let kind = Emulated { make: &panics };
    let path = write("sweep-panics", SWEEP);
    let sweep = Sweep::read(&path, None, &[&kind]).unwrap();
    let ran = go(&sweep, &fresh(&path, "cells"), 2).unwrap();
    let panicked = |i: usize| ran.records[i].outcome.as_ref().is_err_and(|e| e == "panicked: saboteur");
    assert!((0..32).all(|i| panicked(i) == ((i / 8) % 2 == 0)));
}

#[test]
fn broken_results_are_put_aside_and_made_anew() {
    let path = write("sweep-broken", &SWEEP.replace("[20, 40]", "[20]"));
    let sweep = read(&path).unwrap();
    let folder = fresh(&path, "cells");
    let whole = csv(&go(&sweep, &folder, 2).unwrap());
    let store = Store::open(&folder).unwrap();
    let code = hash::code().unwrap();
    let file = |cell: usize| store.path(&sweep.cells[cell].hash, &code);
    let text = std::fs::read_to_string(file(0)).unwrap();
    std::fs::write(file(0), &text[..text.len() / 2]).unwrap();
    std::fs::write(file(1), text.replacen("\"utility\":", "\"utility\":1", 1)).unwrap();
    std::fs::write(file(2), "").unwrap();
    std::fs::write(file(3), &text).unwrap();
    let ran = go(&sweep, &folder, 2).unwrap();
    assert_eq!((ran.kept, csv(&ran)), (12, whole));
    let said = [
        "is cut off: it has no check sum",
        "its check sum differs",
        "is cut off",
        "expected format 1 and cell",
    ];
    for (note, expected) in ran.notes.iter().zip(said) {
        assert!(note.contains(expected) && note.ends_with(".broken"), "{note}\nexpected {expected}");
    }
    assert_eq!(ran.notes.len(), 4);
    assert_eq!(std::fs::read_to_string(file(0).with_extension("broken")).unwrap(), text[..text.len() / 2]);
    // A file that was being written when a kill came is no result, and in nobody's way.
    std::fs::write(folder.join(format!(".{}.1.0.unfinished", sweep.cells[0].hash)), "{").unwrap();
    assert_eq!(go(&sweep, &folder, 1).unwrap().kept, 16);
}

#[test]
fn a_store_that_cannot_be_written_costs_nothing() {
    let path = write("sweep-readonly", SWEEP);
    let sweep = read(&path).unwrap();
    // Nobody can write there, whoever asks.
    let error = go(&sweep, Path::new("/proc/cosched"), 1).map(|r| r.kept).unwrap_err().to_string();
    assert!(error.starts_with("/proc/cosched: cannot be written: "), "{error}");
    // A store that is lost in the middle ends the sweep with the reason, and what was kept before is there.
    let folder = fresh(&path, "cells");
    let moved = path.with_file_name("moved");
    let _ = std::fs::remove_dir_all(&moved);
    let count = AtomicUsize::new(0);
    let lose = |_: usize, _: usize, _: &str| {
        if count.fetch_add(1, Ordering::Relaxed) == 4 {
            std::fs::rename(&folder, &moved).unwrap();
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    let options = Options { threads: 1, any_code: false, stop: &stop, progress: &lose };
    let error =
        run(&sweep, &Store::open(&folder).unwrap(), &options).map(|r| r.kept).unwrap_err().to_string();
    assert!(error.contains(".json: cannot be written: "), "{error}");
    std::fs::rename(&moved, &folder).unwrap();
    let ran = go(&sweep, &folder, 2).unwrap();
    assert_eq!((ran.kept, ran.records.len()), (4, 32));
}

#[test]
fn the_bound_is_in_the_table_and_in_the_report() {
    let text = SWEEP.replace("seconds = 1", "seconds = 1\nbound = 300").replace("[20, 40]", "[20]");
    let path = write("sweep-bound", &text.replace("\"eft\"]", "\"eft\", \"heft\"]"));
    let sweep = read(&path).unwrap();
    let dry = sweep.dry_run(Path::new("nowhere"), 1, false).unwrap();
    assert!(dry.contains("32 cells of kind compare, 0 of them done; 32 to run, about "), "{dry}");
    let (one, out) = (go(&sweep, &fresh(&path, "one"), 1).unwrap(), fresh(&path, "out"));
    let three = go(&sweep, &out.join("cells"), 3).unwrap();
    assert_eq!(csv(&one), csv(&three));
    let row = |r: &Record| {
        r.outcome.as_ref().unwrap().rows.iter().find(|row| row.stream == "all").cloned().unwrap()
    };
    let rows: Vec<Row> = three.records.iter().map(row).collect();
    let utility = |row: &Row| row.numbers["utility"];
    let mut gained = 0.0;
    for bound in rows.iter().filter(|r| r.contender == "bound") {
        let others = rows.iter().filter(|r| (&r.group, &r.unit) == (&bound.group, &bound.unit));
        let best = others.filter(|r| r.contender != "bound").map(utility).fold(f64::NEG_INFINITY, f64::max);
        assert!(utility(bound) >= best, "{}, {}: {} below {best}", bound.group, bound.unit, utility(bound));
        gained = f64::max(gained, utility(bound) - best);
    }
    assert!(gained > 0.01, "nothing was searched: {gained}");
    results::write(&sweep, &three.records, &Store::at(&out.join("cells")), &out).unwrap();
    let results = results::read(&out).unwrap();
    let report = Report::of(&results);
    assert_eq!(report.groups.len(), 4);
    for group in &report.groups {
        let of = |name: &str| group.contenders.iter().find(|c| c.name == name).unwrap();
        let mean = |name: &str| of(name).mean("utility").unwrap();
        let best = ["heft", "eft", "edf"].into_iter().max_by(|a, b| mean(a).total_cmp(&mean(b))).unwrap();
        assert_eq!(group.reference, best, "the bound is nobody's reference");
        let room = mean("bound") - mean(best);
        for name in ["edf", "eft", "heft", "bound"] {
            let by_hand = (room >= 0.005).then(|| (mean(name) - mean(best)) / room);
            assert_eq!(of(name).mean("closed"), by_hand, "{}: {name}", group.name);
        }
        // It is above the others by its making, so nothing is tested about it, and the others do not pay for a test more.
        assert_eq!(of("bound").difference.unwrap().p, None);
    }
    let page = page(&report, None).unwrap();
    for words in [">to bound %<", "The bound is no policy", "</small>bound<", ">100<"] {
        assert!(page.contains(words), "{words}");
    }
    // Without it none of this is there.
    let plain = read(&write("sweep-no-bound", SWEEP)).unwrap();
    let ran = go(&plain, &fresh(&path, "plain"), 2).unwrap();
    assert!(!csv(&ran).contains("bound"));
}
