//! What a device can do at most of what a scenario asks for: the factor by which all rates could grow until requests can no longer be
//! spread over the processors so that none of them has more work than time. Loads of a scenario are told as shares of it.
//!
//! With `x[s][p]` the share of the requests of stream `s` that processor `p` serves, it is 1 / U of the linear program
//!
//! ```text
//! minimise U,  sum over p of x[s][p] = 1,  x >= 0,  sum over s of rate[s] * cost[s][p] * x[s][p] <= U * slots[p]
//! ```
//!
//! This is the program that bounds the throughput of flexible servers of unlike speeds (Andradóttir, Ayhan and Down, Operations Research
//! 51(6), 2003). `cost` is the time of a whole request, alone, with its input brought there, in the fastest variant that is accurate
//! enough. A processor that would be late even so does not count for that stream (Lenstra, Shmoys and Tardos, Mathematical Programming
//! 46, 1990, leave out such pairs), unless all are. It refuses to count contention, heat, loading of weights and the time of deciding:
//! what can be served on time is less than this says, and less again where arrivals are uneven.

use crate::case::{Case, ProcessorId, StreamTable};
use crate::time::{Span, Time};

/// See the module's text.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// By so much all rates could grow, within [`GAP`]; infinite when no request ever comes.
    pub factor: f64,
    /// Share of the time that each processor works, in plan order, when requests are spread so at the rates of the scenario; the
    /// largest is 1 / `factor`.
    pub shares: Vec<f64>,
}

impl Capacity {
    /// What the scenario asks for as a share of the capacity: 1 is all that the device can do.
    pub fn load(&self) -> f64 {
        1.0 / self.factor
    }
}

/// What is found is proven to lie so near the optimum, as a share of it.
pub const GAP: f64 = 0.005;

/// The capacity of a case at the busiest moment of a run: streams open and close (`open_ms`), and what counts is when most is asked for.
pub fn capacity(case: &Case, run: Span) -> Capacity {
    let end = Time::ZERO + run;
    let changes = case.streams.iter().flat_map(|s| &s.open).flat_map(|&(from, to)| [from, to]);
    let mut moments: Vec<Time> = changes.filter(|at| *at < end).chain([Time::ZERO]).collect();
    moments.sort_unstable();
    moments.dedup();
    let costs: Vec<Vec<Vec<f64>>> = case.streams.iter().map(|s| costs(case, s)).collect();
    let at = |moment: &Time| share_out(&work(case, &costs, *moment));
    let found = moments.iter().map(at).max_by(|a, b| a.0.total_cmp(&b.0));
    let (most, mut shares) = found.unwrap_or_default();
    // Without any work there is nobody to share it out to.
    shares.resize(case.processor_count(), 0.0);
    Capacity { factor: 1.0 / most, shares }
}

/// Requests of each stream in a nanosecond at a moment, when every request is answered.
fn rates(case: &Case, at: Time) -> Vec<f64> {
    let mut rates: Vec<f64> = Vec::new();
    for stream in &case.streams {
        let rate = match stream.after {
            // It stands above this one.
            Some(parent) => rates[parent.0 as usize] * stream.probability,
            None => 1.0 / stream.period.0.max(1) as f64,
        };
        rates.push(if stream.is_open(at) { rate } else { 0.0 });
    }
    rates
}

/// Shares of each processor's time that everything asked for at a moment would take there, all of it; see [`share_out`].
fn work(case: &Case, costs: &[Vec<Vec<f64>>], at: Time) -> Vec<Vec<f64>> {
    let slots = |p: usize| f64::from(case.plan.processors[p].slots.max(1));
    let mut work = Vec::new();
    for (rate, costs) in rates(case, at).into_iter().zip(costs) {
        for row in costs.iter().filter(|row| rate > 0.0 && row.iter().any(|ns| ns.is_finite())) {
            work.push(row.iter().enumerate().map(|(p, ns)| rate * ns / slots(p)).collect());
        }
    }
    work
}

/// Nanoseconds of a request of a stream on each processor, infinite where it cannot be served. One row; a row a segment where no
/// processor can run any variant as a whole.
fn costs(case: &Case, stream: &StreamTable) -> Vec<Vec<f64>> {
    let variants = || case.tasks[stream.task.0 as usize].variants.iter().map(|&v| case.variant(v));
    let allowed = || variants().filter(|v| v.accuracy >= stream.min_accuracy);
    let processors = || (0..case.processor_count() as u16).map(ProcessorId);
    let whole = |p: ProcessorId| {
        let able = allowed().filter(|v| v.reach(p, 0) == Some(v.segments - 1));
        able.map(|v| v.fetch_ns(p, 0) + v.latency_ns(p, 0, v.segments - 1)).fold(f64::INFINITY, f64::min)
    };
    let mut row: Vec<f64> = processors().map(whole).collect();
    let deadline = stream.deadline.0 as f64;
    if row.iter().any(|ns| *ns <= deadline) {
        row.iter_mut().filter(|ns| **ns > deadline).for_each(|ns| *ns = f64::INFINITY);
    }
    if row.iter().any(|ns| ns.is_finite()) {
        return vec![row];
    }
    let fastest = allowed().min_by(|a, b| a.best_rest_ns(0).total_cmp(&b.best_rest_ns(0)));
    let part = |segment: u16| {
        let on = |p: ProcessorId| match fastest {
            Some(v) if v.reach(p, segment).is_some() => {
                v.fetch_ns(p, segment) + v.latency_ns(p, segment, segment)
            }
            _ => f64::INFINITY,
        };
        processors().map(on).collect()
    };
    (0..fastest.map_or(0, |v| v.segments)).map(part).collect()
}

/// Spreads work over processors: `work[i][p]` is the share of processor `p`'s time that all of piece `i` would take there (infinite:
/// it cannot go there; somewhere it can). Returns the least largest share, within [`GAP`], and the shares of all processors.
///
/// It is a game: one side spreads the work where it is cheapest, the other raises the prices of processors that have much of it, by
/// multiplicative weights (Freund and Schapire, Games and Economic Behavior 29, 1999). What the first side pays at any prices is a lower
/// bound, the mean of what it did is an answer; it ends when the two meet. Steps are halved, as their size bounds how near that is.
pub fn share_out(work: &[Vec<f64>]) -> (f64, Vec<f64>) {
    let processors = work.first().map_or(0, Vec::len);
    let mut prices = vec![1.0 / processors.max(1) as f64; processors];
    let (mut bound, mut best) = (0.0, (f64::INFINITY, vec![0.0; processors]));
    if work.is_empty() {
        return (0.0, best.1);
    }
    for halving in 1..=HALVINGS {
        let step = 0.5_f64.powi(halving);
        // The mean begins anew: what was done at prices that were far off counts no more.
        let (mut sum, mut weight) = (vec![0.0; processors], 0.0);
        for _ in 0..(8.0 / (step * step)) as u64 {
            let (paid, load) = answer(work, &prices);
            bound = f64::max(bound, paid);
            let most = load.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            weight += 1.0 / most;
            for p in 0..processors {
                sum[p] += load[p] / most;
                prices[p] *= 1.0 + step * load[p] / most;
            }
            let all: f64 = prices.iter().sum();
            prices.iter_mut().for_each(|price| *price /= all);
            let largest = sum.iter().copied().fold(0.0, f64::max) / weight;
            if largest < best.0 {
                best = (largest, sum.iter().map(|s| s / weight).collect());
            }
            if best.0 <= bound * (1.0 + GAP) {
                return best;
            }
        }
    }
    best
}

/// Far more than is needed: each halving takes four times as long, and the gap becomes about half.
const HALVINGS: i32 = 10;

/// What all work costs where it is cheapest at these prices, and the share of each processor's time that it takes there.
fn answer(work: &[Vec<f64>], prices: &[f64]) -> (f64, Vec<f64>) {
    let mut load = vec![0.0; prices.len()];
    let mut paid = 0.0;
    for row in work {
        let price = |p: usize| if row[p].is_finite() { prices[p] * row[p] } else { f64::INFINITY };
        let Some(cheapest) = (0..row.len()).min_by(|&a, &b| price(a).total_cmp(&price(b))) else { continue };
        load[cheapest] += row[cheapest];
        paid += price(cheapest);
    }
    (paid, load)
}
