//! The search behind `static`: simulated annealing (`anneal.rs`) over routes.
//! It refuses to know what happens later: it plays the case as it mostly is.

use crate::anneal::{ALL_SEEDS, Space, anneal};
use crate::stage::{Run, Stage};
use crate::static_placement::{Follower, MOST_SPANS, Route, Span, fits};
use cosched_env::case::{Case, ProcessorId, StreamId, VariantId};
use rand::{Rng, RngExt};
use rand_pcg::Pcg64Mcg;

/// Requests that a run should have.
const REQUESTS: f64 = 200.0;

/// The best routes that so many emulated runs find.
pub(crate) fn search(stage: &dyn Stage, runs: usize) -> Vec<Route> {
    let case = stage.case();
    // Where the annealing begins: the best of some obvious routes.
    let starts = [(true, true), (true, false), (false, true), (false, false)];
    let starts = starts.map(|(accurate, spread)| obvious(case, accurate, spread));
    anneal(&Routes { stage, pieces: stage.steady(ALL_SEEDS, REQUESTS) }, &starts, runs, 0)
}

/// All routes of a case.
struct Routes<'a> {
    stage: &'a dyn Stage,
    pieces: Vec<Box<dyn Run + 'a>>,
}

impl Space for Routes<'_> {
    type Point = Vec<Route>;

    fn worth(&self, routes: &Vec<Route>, seed: u64) -> f64 {
        self.pieces[seed as usize].worth(&|_| Box::new(Follower::new(routes.clone())))
    }

    fn is_certain(&self) -> bool {
        self.stage.is_certain()
    }

    fn change(&self, routes: &mut Vec<Route>, rng: &mut Pcg64Mcg) {
        change(self.stage.case(), routes, rng);
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
