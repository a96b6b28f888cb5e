//! What the best schedule that could be found for a seed is worth, by a search that knows everything of that seed: arrivals, what each
//! launch takes, faults. It is head-room: a policy that knows only the past cannot be asked to reach it. It refuses to be an upper
//! bound: it is "best found", a lower bound of the optimum, and never below the best run of the comparison on that seed.
//!
//! The search goes through the run in windows of the longest deadline and looks three further ahead. In each window it first looks for
//! the best policy of the portfolio and for bans that make it better (a stream stays off a processor, or does without a variant), then
//! changes single decisions by simulated annealing: another candidate at some moment, then the old deeds in their old order, or the
//! policy. Most of the gain is from the bans, which are strategies; single decisions alone end in poor local optima. It knows which
//! launch will be lucky, so part of what it finds is luck that it could foresee.

mod player;
mod script;
mod search;

pub use script::Found;

use crate::compare::{CSV_HEADER, CompareError, Comparison, Maker, Setup, emulate};
use crate::parallel;
use crate::stats::{Estimate, mean};
use crate::summary::Tally;
use cosched_env::episode::Episode;
use cosched_env::scheduler::ProtocolError;
use cosched_env::time::{Span, Time};
use cosched_env::world::Policy;
use script::Noted;
use search::Search;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Instant;

/// What it is called among policies.
pub const NAME: &str = "bound";

/// Where the bound is less than this above the reference there is no way that could be gone: the difference is the luck of single runs.
pub const ROOM: f64 = 0.005;

/// Which share of the way from the reference to the bound somebody goes; `None` where that is less than [`ROOM`].
pub fn closed(utility: f64, reference: f64, bound: f64) -> Option<f64> {
    let room = bound - reference;
    (room >= ROOM).then(|| (utility - reference) / room)
}

/// The best found, over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundRow {
    /// Changes that each seed's search was allowed to try.
    pub evaluations: u64,
    /// Mean utility of a request.
    pub utility: Estimate,
    /// The same for each seed, in the order of the seeds.
    pub seeds: Vec<f64>,
    /// For each row of the comparison: which share of the way from the reference to the bound it goes, over the means of all seeds; see
    /// [`closed`].
    pub closed: Vec<Option<f64>>,
}

impl BoundRow {
    /// A line of [`crate::compare::Comparison::csv`]: the policy `bound` with its utility; all else is empty.
    pub fn csv(&self) -> String {
        let half = self.utility.half95.map_or(String::new(), |h| h.to_string());
        let empty = CSV_HEADER.split(',').count() - 3;
        format!("{NAME},{},{half}{}", self.utility.mean, ",".repeat(empty))
    }

    /// Lines under the table of `comparison`.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, comparison: &Comparison) -> fmt::Result {
        let half = self.utility.half95.map_or(String::new(), |h| format!(" ±{h:.4}"));
        let runs = self.evaluations;
        writeln!(
            f,
            "bound {:.4}{half}: best found with all known, {runs} evaluations a seed",
            self.utility.mean
        )?;
        let mut rows: Vec<_> = comparison.rows.iter().zip(&self.closed).collect();
        rows.sort_by(|a, b| b.0.utility.mean.total_cmp(&a.0.utility.mean));
        let closed = rows.iter().filter(|(row, _)| row.policy != comparison.reference);
        let closed: Vec<String> = closed
            .filter_map(|(row, closed)| Some(format!("{} {:.0} %", row.policy, 100.0 * (**closed)?)))
            .collect();
        if closed.is_empty() {
            return Ok(());
        }
        writeln!(f, "of the way from {} to the bound: {}", comparison.reference, closed.join(", "))
    }
}

/// Searches on every seed of a comparison, with its policies (searches left out) as a portfolio, and puts the result into it.
/// `progress(done, of)` is called after each seed, from any thread.
///
/// # Errors
/// [`CompareError::Policy`] or [`CompareError::Protocol`], of the first seed in order.
pub fn add(
    comparison: &mut Comparison,
    setup: &Setup,
    evaluations: u64,
    make: Maker<'_>,
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<(), CompareError> {
    let specs: Vec<&str> =
        comparison.rows.iter().map(|r| r.policy.as_str()).filter(|spec| !searches(spec)).collect();
    let job = |i: usize| {
        best_found(setup, &specs, comparison.seeds[i], evaluations, make).map(|found| found.utility)
    };
    let found = parallel::run(comparison.seeds.len(), threads, job, progress);
    let mut seeds = found.into_iter().collect::<Result<Vec<f64>, _>>()?;
    for (best, &seed) in seeds.iter_mut().zip(&comparison.seeds) {
        let runs = comparison.runs.iter().filter(|r| r.seed == seed);
        *best = runs.map(|r| r.summary.total.utility).fold(*best, f64::max);
    }
    let Some(utility) = Estimate::of(&seeds) else { return Ok(()) };
    let means = || comparison.rows.iter().map(|r| r.utility.mean);
    let reference = comparison.rows.iter().find(|r| r.policy == comparison.reference);
    let base = reference.map_or(utility.mean, |r| r.utility.mean);
    let closed = means().map(|m| closed(m, base, mean(&seeds))).collect();
    comparison.bound = Some(BoundRow { evaluations, utility, seeds, closed });
    Ok(())
}

/// Whether a policy looks ahead for milliseconds at each decision: too slow to be played thousands of times.
fn searches(spec: &str) -> bool {
    let name = spec.split(':').next().unwrap_or(spec);
    cosched_policies::TABLE.iter().any(|row| row.name == name && row.searches)
}

/// As [`best_found`] from all these policies; those that search by themselves only say what they reach, which counts too.
///
/// # Errors
/// As [`best_found`].
pub fn best_of(
    setup: &Setup,
    specs: &[String],
    seed: u64,
    evaluations: u64,
    make: Maker<'_>,
) -> Result<Found, CompareError> {
    let (slow, quick): (Vec<&str>, Vec<&str>) = specs.iter().map(String::as_str).partition(|s| searches(s));
    let mut best = best_found(setup, &quick, seed, evaluations, make)?;
    for spec in slow {
        let inner = made(setup, spec, make)?;
        let mut noted = Noted { inner, choices: Vec::new() };
        let mut tally = Tally::new(setup.case.clone());
        let end = emulate(setup, &mut noted, seed, &mut tally).map_err(|error| broken(seed, &error))?;
        let utility = tally.finish(spec, end).total.utility;
        if utility > best.utility {
            best = Found { utility, choices: noted.choices };
        }
    }
    Ok(best)
}

/// The best run of a seed that the search finds by trying so many changes; deterministic.
///
/// # Errors
/// [`CompareError::Policy`] or [`CompareError::Protocol`].
pub fn best_found(
    setup: &Setup,
    specs: &[&str],
    seed: u64,
    evaluations: u64,
    make: Maker<'_>,
) -> Result<Found, CompareError> {
    let (mut search, start) = begin(setup, specs, seed, make)?;
    search.best(start, evaluations).map_err(|error| broken(seed, &error))
}

/// About how many seconds [`best_of`] takes on one core at most, by playing a few of its evaluations.
///
/// # Errors
/// As [`best_found`].
pub fn seconds(
    setup: &Setup,
    specs: &[String],
    seed: u64,
    evaluations: u64,
    make: Maker<'_>,
) -> Result<f64, CompareError> {
    let quick: Vec<&str> = specs.iter().map(String::as_str).filter(|s| !searches(s)).collect();
    let (mut search, start) = begin(setup, &quick, seed, make)?;
    let begun = Instant::now();
    let plays = search.rehearse(start).map_err(|error| broken(seed, &error))?;
    let each = begun.elapsed().as_secs_f64() / plays.max(1) as f64;
    Ok(each * search.plays(evaluations, Span::from_ms(setup.seconds * 1e3)))
}

fn made(setup: &Setup, spec: &str, make: Maker<'_>) -> Result<Box<dyn Policy>, CompareError> {
    make(spec, &setup.case).map_err(|problem| CompareError::Policy { spec: spec.into(), problem })
}

fn broken(seed: u64, error: &ProtocolError) -> CompareError {
    CompareError::Protocol { spec: NAME.into(), seed, error: error.to_string() }
}

/// A search with its policies made, and the run before anything has happened.
fn begin(
    setup: &Setup,
    specs: &[&str],
    seed: u64,
    make: Maker<'_>,
) -> Result<(Search, Episode), CompareError> {
    // Somebody has to decide where nothing was found.
    let specs = if specs.is_empty() { &["least-slack"][..] } else { specs };
    let policies = specs.iter().map(|spec| made(setup, spec, make)).collect::<Result<_, _>>()?;
    let horizon = Time::ZERO + Span::from_ms(setup.seconds * 1e3);
    let (case, config) = (setup.case.clone(), setup.emulator.clone());
    let start = Episode::new(case, setup.options, config, seed, horizon, Time::NEVER);
    Ok((Search::new(policies, &setup.case, seed), start))
}
