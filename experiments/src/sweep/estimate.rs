//! What a sweep would do: its cells, which of them the store has, and about how long the rest takes.
//! It refuses to run a cell; it tries at most a little of one cell a policy.

use super::hash;
use super::store::Store;
use super::{Cell, Sweep, run};
use crate::config::ConfigError;
use crate::parallel::default_threads;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Seconds of a cell's run, where its config says so: cells of one policy take about as long as they are.
fn weight(cell: &Cell) -> f64 {
    cell.spec.config["seconds"].as_f64().filter(|s| *s > 0.0).unwrap_or(1.0)
}

/// `90 s`, `15 min`, `3.5 h`.
pub fn duration(seconds: f64) -> String {
    if seconds < 1.0 {
        "under 1 s".into()
    } else if seconds < 100.0 {
        format!("{seconds:.0} s")
    } else if seconds < 5400.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

impl Sweep<'_> {
    /// One line a cell, and the time that what is missing would take on so many threads. `store` is looked into if it is there.
    ///
    /// # Errors
    /// A result that is there and cannot be read.
    pub fn dry_run(&self, store: &Path, threads: usize, any_code: bool) -> Result<String, ConfigError> {
        let store = Store::at(store);
        let code = hash::code()?;
        let there =
            |c: &Cell| store.path(&c.hash, &code).exists() || (any_code && store.any_code(&c.hash).is_some());
        let done: Vec<bool> = self.cells.iter().map(there).collect();
        let mut text = String::new();
        for (cell, &done) in self.cells.iter().zip(&done) {
            let mark = match &cell.problem {
                Some(problem) => format!("  will fail: {problem}"),
                None if done => "  done".into(),
                None => String::new(),
            };
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(text, "{:>5}  {}  {}{mark}", cell.index, cell.hash, cell.title());
        }
        let missing: Vec<&Cell> = self
            .cells
            .iter()
            .zip(&done)
            .filter(|(c, done)| !**done && c.problem.is_none())
            .map(|(c, _)| c)
            .collect();
        let kept = done.iter().filter(|d| **d).count();
        let _ = write!(
            text,
            "{} cells of kind {}, {kept} of them done; {} to run",
            self.cells.len(),
            self.kind.name(),
            missing.len()
        );
        let threads = match (self.kind.alone(), threads) {
            (true, _) => 1,
            (_, 0) => default_threads(),
            (_, n) => n,
        };
        match self.seconds(&missing, &store, any_code)? {
            Some(seconds) if !missing.is_empty() => {
                let threads_used = threads.min(missing.len());
                let each = seconds / threads_used as f64;
                let _ = writeln!(text, ", about {} on {threads_used} of {threads} threads", duration(each));
            }
            None => text.push_str("; how long that takes is not known\n"),
            Some(_) => text.push('\n'),
        }
        Ok(text)
    }

    /// Seconds of all these cells on one thread: as long as cells of the same policy took before, or as a try says.
    fn seconds(&self, missing: &[&Cell], store: &Store, any_code: bool) -> Result<Option<f64>, ConfigError> {
        let mut known: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        let (found, _) = run::look(&self.cells, store, any_code)?;
        for (cell, record) in self.cells.iter().zip(&found) {
            if let Some(record) = record {
                let sum = known.entry(&cell.spec.policy).or_default();
                *sum = (sum.0 + record.wall_s, sum.1 + weight(cell));
            }
        }
        let mut all = 0.0;
        for cell in missing {
            let policy = cell.spec.policy.as_str();
            if !known.contains_key(policy) {
                // A cell that cannot be tried will fail, and soon; another of the same policy may do.
                let Some(seconds) = self.kind.estimate(&cell.spec) else { continue };
                known.insert(policy, (seconds, weight(cell)));
            }
            let (seconds, of) = known[policy];
            all += seconds / of * weight(cell);
        }
        Ok((!known.is_empty()).then_some(all))
    }
}
