//! Runs the cells that the store does not have, on all cores, and keeps each result at once.
//! It refuses to let one cell's failure, or the number of threads, be seen in another cell's result.

use super::kind::Kind;
use super::store::{Found, Record, Store};
use super::{Cell, Sweep, hash};
use crate::about::commit;
use crate::config::ConfigError;
use crate::parallel;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// How to run.
pub struct Options<'a> {
    /// Cells at once; 0: as many as the machine runs at once. A kind that needs the machine for itself gets one.
    pub threads: usize,
    /// Whether results that other builds of cosched made count too.
    pub any_code: bool,
    /// Becomes true when no further cell is to be begun.
    pub stop: &'a Arc<AtomicBool>,
    /// Called with (done, of, what is known of it) after each cell, from any thread.
    pub progress: &'a (dyn Fn(usize, usize, &str) + Sync),
}

/// What came of a sweep.
pub struct Ran {
    /// Records in order of the cells; fewer than cells when it was stopped.
    pub records: Vec<Record>,
    /// How many of them were in the store before.
    pub kept: usize,
    /// What was noticed on the way: broken results that were put aside.
    pub notes: Vec<String>,
}

/// What the store has of each cell, and notes about what was broken.
///
/// # Errors
/// A result that is there and cannot be read.
pub fn look(
    cells: &[Cell],
    store: &Store,
    any_code: bool,
) -> Result<(Vec<Option<Record>>, Vec<String>), ConfigError> {
    let own = hash::code()?;
    let mut notes = Vec::new();
    let mut one = |cell: &Cell| {
        let mut code = own.clone();
        if any_code && !store.path(&cell.hash, &code).exists() {
            code = store.any_code(&cell.hash).unwrap_or(code);
        }
        Ok(match store.get(&cell.hash, &code)? {
            Found::Done(record) => Some(*record),
            Found::Broken(path, problem) => {
                notes.push(format!("a stored result {problem}: put aside as {}", path.display()));
                None
            }
            Found::Failed(_) | Found::Nothing => None,
        })
    };
    let found = cells.iter().map(&mut one).collect::<Result<Vec<_>, ConfigError>>()?;
    // Rows carry names and labels of the sweep that made them; labels are part of the hash, so they are the same.
    Ok((found, notes))
}

/// Runs all cells that are missing.
///
/// # Errors
/// A store that cannot be read or written any more. What goes wrong in a cell is in its record.
pub fn run(sweep: &Sweep<'_>, store: &Store, options: &Options<'_>) -> Result<Ran, ConfigError> {
    let (mut found, notes) = look(&sweep.cells, store, options.any_code)?;
    let (code, commit) = (hash::code()?, commit());
    let missing: Vec<usize> = (0..found.len()).filter(|&i| found[i].is_none()).collect();
    let kept = found.len() - missing.len();
    let full: Mutex<Option<ConfigError>> = Mutex::new(None);
    let threads = if sweep.kind.alone() { 1 } else { options.threads };
    let titles = |i: usize| missing.get(i).map_or(String::new(), |&c| sweep.cells[c].title());
    let job = |i: usize| {
        let cell = &sweep.cells[missing[i]];
        let lost = || full.lock().unwrap_or_else(|e| e.into_inner());
        if options.stop.load(Ordering::Relaxed) || lost().is_some() {
            return None;
        }
        let record = run_cell(sweep.kind, cell, &code, &commit, options.stop);
        if record.outcome.is_err() && options.stop.load(Ordering::Relaxed) {
            // It was told to give up: that is no failure of the cell.
            return None;
        }
        match store.put(&record) {
            Ok(()) => Some(record),
            Err(e) => {
                lost().get_or_insert(e);
                None
            }
        }
    };
    let all = found.len();
    let shown = |done: usize, _: usize| (options.progress)(kept + done, all, &titles(done));
    (options.progress)(kept, all, &titles(0));
    let records = parallel::run(missing.len(), threads, job, &shown);
    if let Some(e) = full.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(e);
    }
    for (index, record) in missing.into_iter().zip(records) {
        found[index] = record;
    }
    Ok(Ran { records: found.into_iter().flatten().collect(), kept, notes })
}

/// Runs one cell; a panic is a failure like any other.
pub fn run_cell(kind: &dyn Kind, cell: &Cell, code: &str, commit: &str, stop: &Arc<AtomicBool>) -> Record {
    let begun = Instant::now();
    let outcome = match &cell.problem {
        Some(problem) => Err(problem.clone()),
        None => catch_unwind(AssertUnwindSafe(|| kind.run(&cell.spec, stop))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }),
    };
    Record::new(cell, code, commit, begun.elapsed().as_secs_f64(), outcome)
}
