//! The search behind `static`: simulated annealing (Kirkpatrick, Gelatt and Vecchi, Science 1983) over routes. A set of routes is worth the
//! mean utility of a short emulated run of the case under them; each run sees the same arrivals. The best few are compared once more on
//! arrivals that the annealing has not seen. Deterministic: the budget is a number of runs, not a time.
//! It refuses to know what happens later: streams that open and close count as open, traces as periodic with full jitter.

use crate::short_run::{horizon, short_run};
use crate::static_placement::{Follower, MOST_SPANS, Route, Span, fits};
use cosched_env::case::{Case, ProcessorId, StreamId, VariantId};
use cosched_env::scenario::{ArrivalKind, Scenario};
use cosched_env::streams::rng;
use cosched_env::time::Time;
use rand::{Rng, RngExt};
use std::sync::Arc;

/// Requests that a run should have.
const REQUESTS: f64 = 200.0;
/// Temperature at the beginning and at the end, as a share of the mean priority.
const HOT: f64 = 0.05;
const COLD: f64 = 0.001;
/// Runs that routes are judged by, each with other arrivals.
const SEEDS: usize = 3;
/// How much worse than needed routes may be on the first seeds to be run on the others, as a multiple of what is needed.
const EARLY: f64 = 1.0;
/// How many of the best are compared once more, and on how many seeds at most.
const FINALISTS: usize = 8;
const FINAL_SEEDS: usize = 8;

/// The best routes that so many emulated runs find.
pub(crate) fn search(case: &Case, runs: usize) -> Vec<Route> {
    let case = Arc::new(nominal(case));
    let priority = case.streams.iter().map(|s| s.priority).sum::<f64>() / case.streams.len() as f64;
    let mut search = Search { horizon: horizon(&case, REQUESTS), finalists: Vec::new(), runs: 0, case };
    let rng = &mut rng(1, "placement", 0);
    let final_seeds = (runs / 100).min(FINAL_SEEDS);
    let anneal = runs.saturating_sub(FINALISTS * final_seeds);
    let mut at = search.start(anneal);
    let from = search.runs;
    while search.runs < anneal {
        let done = (search.runs - from) as f64 / (anneal - from) as f64;
        let temperature = priority * HOT * (COLD / HOT).powf(done);
        let mut routes = at.routes.clone();
        change(&search.case, &mut routes, rng);
        if routes == at.routes {
            continue;
        }
        // Drawn before the run, so that hopeless runs can stop early.
        let least_gain = temperature * rng.random::<f64>().ln();
        if let Some(found) = search.try_out(&routes, &at, least_gain) {
            at = found;
        }
    }
    search.finish(final_seeds)
}

/// The case as it mostly is.
fn nominal(case: &Case) -> Case {
    let mut streams = case.scenario.streams.clone();
    for (stream, table) in streams.iter_mut().zip(&case.streams) {
        stream.open_ms.clear();
        if stream.kind == ArrivalKind::Trace {
            stream.kind = ArrivalKind::Periodic;
            stream.period_ms = table.period.ms();
            stream.jitter_ms = stream.period_ms / 2.0;
            stream.times_ms.clear();
        }
        if stream.kind != ArrivalKind::Dependent {
            stream.offset_ms %= stream.period_ms;
        }
    }
    let scenario = Scenario { streams, ..case.scenario.clone() };
    Case::on(case.plan.clone(), case.device.clone(), scenario).unwrap_or_else(|_| case.clone())
}

/// Routes and what they are worth on each of the seeds.
#[derive(Clone, Debug)]
struct Found {
    values: [f64; SEEDS],
    routes: Vec<Route>,
}

impl Found {
    fn sum(&self) -> f64 {
        self.values.iter().sum()
    }
}

struct Search {
    case: Arc<Case>,
    horizon: Time,
    /// The best so far, best first.
    finalists: Vec<Found>,
    runs: usize,
}

impl Search {
    fn run(&mut self, routes: &[Route], seed: u64) -> f64 {
        self.runs += 1;
        let mut policy = Follower::new(routes.to_vec());
        short_run(&self.case, &mut policy, seed, self.horizon)
            .map_or(f64::NEG_INFINITY, |sums| sums.utility / sums.requests)
    }

    /// Runs routes on all seeds; `None`: they are not worth `least_gain` more than `than`, as far as was looked.
    fn try_out(&mut self, routes: &[Route], than: &Found, least_gain: f64) -> Option<Found> {
        let mut values = [0.0; SEEDS];
        let mut gain = 0.0;
        for (seed, (value, base)) in values.iter_mut().zip(than.values).enumerate() {
            *value = self.run(routes, seed as u64);
            gain += *value - base;
            // What is clearly worse on the first seeds is not looked at on the others.
            if gain / (seed + 1) as f64 + EARLY * least_gain.abs() < least_gain {
                return None;
            }
        }
        if gain < SEEDS as f64 * least_gain {
            return None;
        }
        let found = Found { values, routes: routes.to_vec() };
        self.note(&found);
        Some(found)
    }

    fn note(&mut self, found: &Found) {
        let place = self.finalists.partition_point(|f| f.sum() > found.sum());
        if self.finalists.iter().all(|f| f.routes != found.routes) {
            self.finalists.insert(place, found.clone());
            self.finalists.truncate(FINALISTS);
        }
    }

    /// Where the annealing begins: the best of some obvious routes.
    fn start(&mut self, most_runs: usize) -> Found {
        let mut best: Option<Found> = None;
        for (accurate, spread) in [(true, true), (true, false), (false, true), (false, false)] {
            if self.runs > 0 && self.runs >= most_runs {
                break;
            }
            let routes = obvious(&self.case, accurate, spread);
            let values = std::array::from_fn(|seed| self.run(&routes, seed as u64));
            let found = Found { values, routes };
            self.note(&found);
            if best.as_ref().is_none_or(|b| found.sum() > b.sum()) {
                best = Some(found);
            }
        }
        best.unwrap_or(Found { values: [0.0; SEEDS], routes: Vec::new() })
    }

    /// The finalist with the best mean over the seeds so far and so many new ones.
    fn finish(mut self, seeds: usize) -> Vec<Route> {
        let mut winner: Option<(f64, Vec<Route>)> = None;
        for found in std::mem::take(&mut self.finalists) {
            let unseen: f64 = (0..seeds).map(|seed| self.run(&found.routes, (SEEDS + seed) as u64)).sum();
            let value = found.sum() + unseen;
            if winner.as_ref().is_none_or(|w| value > w.0) {
                winner = Some((value, found.routes));
            }
        }
        winner.map(|w| w.1).unwrap_or_default()
    }
}

/// Variants that may serve a stream.
fn variants(case: &Case, stream: usize) -> impl Iterator<Item = VariantId> + '_ {
    let table = case.stream(StreamId(stream as u16));
    let task = &case.tasks[table.task.0 as usize];
    task.variants.iter().copied().filter(|&v| case.variant(v).accuracy >= table.min_accuracy)
}

/// A variant on one processor as far as that goes, the rest where it takes least time; `None`: that takes too many spans.
fn mostly_on(case: &Case, variant: VariantId, home: ProcessorId) -> Option<[Span; MOST_SPANS]> {
    let table = case.variant(variant);
    let mut spans = [Span { last: table.segments - 1, processor: home }; MOST_SPANS];
    let mut first = 0;
    for span in &mut spans {
        if first == table.segments {
            break;
        }
        *span = match table.reach(home, first) {
            Some(last) => Span { last, processor: home },
            None => {
                // Up to where home can take over again, as far as the other goes.
                let back = (first..table.segments).find(|&s| table.reach(home, s).is_some());
                let limit = back.map_or(table.segments - 1, |s| s - 1);
                let others = (0..case.processor_count() as u16).map(ProcessorId);
                let able = others.filter_map(|p| Some((table.reach(p, first)?.min(limit), p)));
                let per_segment = |&(last, p): &(u16, ProcessorId)| {
                    table.latency_ns(p, first, last) / f64::from(last - first + 1)
                };
                let (last, processor) = able.min_by(|a, b| per_segment(a).total_cmp(&per_segment(b)))?;
                Span { last, processor }
            }
        };
        first = span.last + 1;
    }
    fits(table, &spans).then_some(spans)
}

/// Nanoseconds of spans one after the other.
fn length_ns(case: &Case, variant: VariantId, spans: &[Span; MOST_SPANS]) -> f64 {
    let table = case.variant(variant);
    let (mut first, mut total) = (0, 0.0);
    for span in spans {
        if first == table.segments {
            break;
        }
        total += table.latency_ns(span.processor, first, span.last);
        first = span.last + 1;
    }
    total
}

/// Routes without a cut of choice: the most (or least) accurate variant of each stream, on its fastest processor or `spread` so that the
/// busiest processor is least busy.
fn obvious(case: &Case, accurate: bool, spread: bool) -> Vec<Route> {
    let mut busy = vec![0.0; case.processor_count()];
    let routes = (0..case.streams.len()).map(|s| {
        let by_accuracy =
            |a: &VariantId, b: &VariantId| case.variant(*a).accuracy.total_cmp(&case.variant(*b).accuracy);
        let variant = if accurate {
            variants(case, s).max_by(by_accuracy)
        } else {
            variants(case, s).min_by(by_accuracy)
        };
        // A stream that no variant may serve is refused by the case.
        let variant = variant.unwrap_or(VariantId(0));
        let period = case.streams[s].period.0 as f64;
        let homes = (0..case.processor_count()).filter_map(|p| {
            let spans = mostly_on(case, variant, ProcessorId(p as u16))?;
            let load = length_ns(case, variant, &spans) / period;
            Some((load + if spread { busy[p] } else { 0.0 }, load, p, spans))
        });
        let best = homes.min_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((_, load, p, _)) = best {
            busy[p] += load;
        }
        Route { variant, spans: best.map(|b| b.3), rank: 0, firm: true, served: true }
    });
    routes.collect()
}

/// Changes one thing.
fn change(case: &Case, routes: &mut [Route], rng: &mut impl Rng) {
    let streams = routes.len();
    let s = rng.random_range(0..streams);
    let processor = |rng: &mut dyn Rng| ProcessorId(rng.random_range(0..case.processor_count() as u16));
    match rng.random_range(0..12u32) {
        // Another home, perhaps in another variant.
        0..=4 => {
            let count = variants(case, s).count();
            let pick = rng.random_range(0..count);
            let variant = if rng.random() {
                routes[s].variant
            } else {
                variants(case, s).nth(pick).unwrap_or(routes[s].variant)
            };
            if let Some(spans) = mostly_on(case, variant, processor(rng)) {
                routes[s].variant = variant;
                routes[s].spans = Some(spans);
            }
        }
        // Another cut.
        5..=7 => {
            let Some(before) = routes[s].spans else { return };
            // Some combinations cannot run.
            for _ in 0..8 {
                let spans = cut(case, routes[s].variant, before, rng);
                if fits(case.variant(routes[s].variant), &spans) && spans != before {
                    routes[s].spans = Some(spans);
                    return;
                }
            }
        }
        8 | 9 => routes[s].rank = rng.random_range(0..streams.min(20)) as u8,
        10 => routes[s].firm = !routes[s].firm,
        _ => routes[s].served = !routes[s].served,
    }
}

/// A new cut, or one that differs in one span.
fn cut(
    case: &Case,
    variant: VariantId,
    mut spans: [Span; MOST_SPANS],
    rng: &mut impl Rng,
) -> [Span; MOST_SPANS] {
    let segments = case.variant(variant).segments;
    let anew: bool = rng.random();
    let only = rng.random_range(0..MOST_SPANS);
    for (i, span) in spans.iter_mut().enumerate() {
        if anew || i == only {
            span.processor = ProcessorId(rng.random_range(0..case.processor_count() as u16));
            if anew || rng.random() {
                span.last = rng.random_range(0..segments);
            }
        }
    }
    spans.sort_by_key(|span| span.last);
    // Where two end together the second one is empty: all after the end are alike, so that equal routes compare equal.
    let mut kept = spans;
    let mut count = 0;
    for span in spans {
        if count == 0 || span.last > kept[count - 1].last {
            kept[count] = span;
            count += 1;
        }
    }
    kept[count - 1].last = segments - 1;
    let end = kept[count - 1];
    kept[count..].fill(end);
    kept
}
