//! Simulated annealing (Kirkpatrick, Gelatt and Vecchi, Science 1983) over ways to serve a case. A way is worth what
//! a short emulated run of the case earns under it; each sees the same arrivals. The best few are compared once more on
//! arrivals that the annealing has not seen. Deterministic: the budget is a number of runs, not a time.
//! It refuses to know what a way is.

use cosched_env::streams::rng;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;

/// Temperature at the beginning and at the end, as a share of the most that can be earned.
const HOT: f64 = 0.05;
const COLD: f64 = 0.001;
/// Runs that a point is judged by, each with other arrivals.
const SEEDS: usize = 3;
/// How much worse than needed a point may be on the first seeds to be run on the others, as a multiple of what is needed.
const EARLY: f64 = 1.0;
/// How many of the best are compared once more, and on how many seeds at most.
const FINALISTS: usize = 8;
const FINAL_SEEDS: usize = 8;
/// A point is run on the seeds from 0 to this one, exclusive.
pub(crate) const ALL_SEEDS: usize = SEEDS + FINAL_SEEDS;

/// What is searched.
pub(crate) trait Space {
    /// A way to serve the case.
    type Point: Clone + PartialEq + Default;
    /// What it earns in a short run, as a share of what could be earned; the same seed has the same arrivals.
    fn worth(&self, point: &Self::Point, seed: u64) -> f64;
    /// Whether the seed makes no difference: one run says all.
    fn is_certain(&self) -> bool {
        false
    }
    /// Changes one thing, or nothing when what came out would not do.
    fn change(&self, point: &mut Self::Point, rng: &mut Pcg64Mcg);
}

/// The best point that so many emulated runs find, begun at the best of `starts`. Another `attempt` draws other changes.
pub(crate) fn anneal<S: Space>(space: &S, starts: &[S::Point], runs: usize, attempt: u64) -> S::Point {
    let seeds = if space.is_certain() { 1 } else { SEEDS };
    let mut search = Search { finalists: Vec::new(), runs: 0, seeds, space };
    let rng = &mut rng(1, "anneal", attempt);
    let final_seeds = if space.is_certain() { 0 } else { (runs / 100).min(FINAL_SEEDS) };
    let steps = runs.saturating_sub(FINALISTS * final_seeds);
    let mut at = search.start(starts, steps);
    let from = search.runs;
    let mut tries = 0;
    while search.runs < steps && tries < 10 * runs {
        tries += 1;
        let done = (search.runs - from) as f64 / (steps - from) as f64;
        let temperature = HOT * (COLD / HOT).powf(done);
        let mut point = at.point.clone();
        space.change(&mut point, rng);
        if point == at.point {
            continue;
        }
        // Drawn before the run, so that hopeless runs can stop early.
        let least_gain = temperature * rng.random::<f64>().ln();
        if let Some(found) = search.try_out(&point, &at, least_gain) {
            at = found;
        }
    }
    search.finish(final_seeds)
}

/// A point and what it is worth on each of the seeds that it is judged by.
#[derive(Clone, Debug)]
struct Found<P> {
    values: Vec<f64>,
    point: P,
}

impl<P> Found<P> {
    fn sum(&self) -> f64 {
        self.values.iter().sum()
    }
}

struct Search<'a, S: Space> {
    space: &'a S,
    /// The best so far, best first.
    finalists: Vec<Found<S::Point>>,
    runs: usize,
    /// Runs that a point is judged by.
    seeds: usize,
}

impl<S: Space> Search<'_, S> {
    fn run(&mut self, point: &S::Point, seed: u64) -> f64 {
        self.runs += 1;
        self.space.worth(point, seed)
    }

    /// Runs a point on all seeds; `None`: it is not worth `least_gain` more than `than`, as far as was looked.
    fn try_out(
        &mut self,
        point: &S::Point,
        than: &Found<S::Point>,
        least_gain: f64,
    ) -> Option<Found<S::Point>> {
        let mut values = Vec::with_capacity(self.seeds);
        let mut gain = 0.0;
        for (seed, base) in than.values.iter().enumerate() {
            let value = self.run(point, seed as u64);
            values.push(value);
            gain += value - base;
            // What is clearly worse on the first seeds is not looked at on the others.
            if gain / (seed + 1) as f64 + EARLY * least_gain.abs() < least_gain {
                return None;
            }
        }
        if gain < self.seeds as f64 * least_gain {
            return None;
        }
        let found = Found { values, point: point.clone() };
        self.note(&found);
        Some(found)
    }

    fn note(&mut self, found: &Found<S::Point>) {
        let place = self.finalists.partition_point(|f| f.sum() > found.sum());
        if self.finalists.iter().all(|f| f.point != found.point) {
            self.finalists.insert(place, found.clone());
            self.finalists.truncate(FINALISTS);
        }
    }

    fn start(&mut self, starts: &[S::Point], most_runs: usize) -> Found<S::Point> {
        let mut best: Option<Found<S::Point>> = None;
        for point in starts {
            if self.runs > 0 && self.runs >= most_runs {
                break;
            }
            let values = (0..self.seeds).map(|seed| self.run(point, seed as u64)).collect();
            let found = Found { values, point: point.clone() };
            self.note(&found);
            if best.as_ref().is_none_or(|b| found.sum() > b.sum()) {
                best = Some(found);
            }
        }
        best.unwrap_or(Found { values: vec![0.0; self.seeds], point: S::Point::default() })
    }

    /// The finalist with the best mean over the seeds so far and so many new ones.
    fn finish(mut self, seeds: usize) -> S::Point {
        let mut winner: Option<(f64, S::Point)> = None;
        for found in std::mem::take(&mut self.finalists) {
            let unseen: f64 = (0..seeds).map(|seed| self.run(&found.point, (self.seeds + seed) as u64)).sum();
            let value = found.sum() + unseen;
            if winner.as_ref().is_none_or(|w| value > w.0) {
                winner = Some((value, found.point));
            }
        }
        winner.map(|w| w.1).unwrap_or_default()
    }
}
