//! Latencies of segments on one processor: runs until the mean is known well enough. It refuses to hide how well it is known.

use super::{Options, instance, run_once};
use crate::chain::Room;
use crate::deploy::{Deployed, Deployment};
use crate::held::Traffic;
use crate::processor::{ExecError, Instance, Processor};
use crate::stop::Stop;
use cosched_env::plan::{Cost, Measured};
use crossbeam::channel::{bounded, unbounded};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What was measured on one processor.
#[derive(Default)]
pub(super) struct Timed {
    /// By (variant, segment), without energy.
    pub costs: BTreeMap<(usize, usize), Cost>,
    /// By variant.
    pub measured: BTreeMap<usize, Measured>,
    /// By variant: microseconds that all its segments take less in a row, where tensors stay on the processor in between, than one by
    /// one. Of those only that have several segments and run all of them on a processor that keeps tensors.
    pub saved: BTreeMap<usize, f64>,
}

/// Before each variant: a processor that is never left alone is throttled by some systems and seldom met live, and one that has slept for a
/// while is slower at first.
const PAUSE: Duration = Duration::from_millis(5);

/// A segment that is being measured.
struct Part<'a> {
    at: (usize, usize),
    variant: &'a Deployed,
    instance: Box<dyn Instance>,
    /// Milliseconds to make the instance and to run it for the first time.
    begin_ms: f64,
    /// Whether its times are wanted; others only run in between.
    wanted: bool,
    times: Vec<f64>,
    spread: Spread,
}

/// Costs of the `wanted` variants on one processor. All their segments run in turn, as they do live, and not each one many times: a small
/// segment that only ever follows itself finds its weights in the caches and seems two or three times as fast as it will be. So that
/// this also holds where few are wanted, the one with the most weights of the others runs in between.
pub(super) fn measure(
    deployment: &Deployment,
    p: usize,
    wanted: &[usize],
    options: &Options,
    progress: &mut dyn FnMut(f64),
) -> Result<Timed, ExecError> {
    if wanted.is_empty() {
        return Ok(Timed::default());
    }
    let mut parts = Vec::new();
    let weights = |v: &usize| deployment.variants[*v].model.graph.constant_bytes();
    let others = (0..deployment.variants.len()).filter(|v| !wanted.contains(v));
    for v in wanted.iter().copied().chain(others.max_by_key(weights)) {
        let variant = &deployment.variants[v];
        for s in 0..variant.segments.len() {
            let begun = Instant::now();
            if let Some(instance) = instance(variant, s, p)? {
                let begin_ms = begun.elapsed().as_secs_f64() * 1e3;
                let (times, spread, wanted) = (Vec::new(), Spread::default(), wanted.contains(&v));
                parts.push(Part { at: (v, s), variant, instance, begin_ms, wanted, times, spread });
            }
        }
    }
    let rows = rounds(&mut parts, options, &*deployment.processors[p], progress)?;
    let mut timed = Timed::default();
    for &v in wanted {
        let of: Vec<&Part<'_>> = parts.iter().filter(|part| part.at.0 == v).collect();
        timed.saved.extend(rows.get(&v).map(|row| (v, saved(&sums(&of), row))));
        timed.costs.extend(of.iter().map(|part| (part.at, cost(part.times.clone()))));
        if !of.is_empty() {
            timed.measured.insert(v, measured(&deployment.variants[v], p, &of));
        }
    }
    Ok(timed)
}

/// Microseconds of rows of segments, by variant.
type Rows = BTreeMap<usize, Vec<f64>>;

/// Runs all parts in turn until each wanted one is known well enough, or the time is up.
fn rounds(
    parts: &mut [Part<'_>],
    options: &Options,
    processor: &dyn Processor,
    progress: &mut dyn FnMut(f64),
) -> Result<Rows, ExecError> {
    let mut rows = Rows::new();
    let budget = options.budget * parts.len() as u32;
    let mut begun = Instant::now();
    for round in 0..options.warm_up + options.most_runs {
        if round == options.warm_up {
            begun = Instant::now();
        }
        let spent = begun.elapsed();
        let runs = round.saturating_sub(options.warm_up);
        let known = || parts.iter().all(|part| !part.wanted || part.spread.within() <= options.within);
        if runs >= options.least_runs && (spent >= budget || known()) {
            break;
        }
        let share = runs as f64 / options.most_runs.max(1) as f64;
        progress(share.max(spent.as_secs_f64() / budget.as_secs_f64().max(1e-9)).min(1.0));
        let mut last = None;
        for part in parts.iter_mut() {
            let (v, s) = part.at;
            if last.replace(v) != Some(v) {
                std::thread::sleep(PAUSE);
            }
            let us = run_once(part.variant, s, part.instance.as_mut(), round)?;
            if round == 0 {
                part.begin_ms += us / 1e3;
            }
            if round >= options.warm_up {
                part.times.push(us);
                part.spread.add(us);
            }
        }
        // Who counts tensors that come and go is who keeps them.
        if processor.traffic() != Traffic::default() {
            in_rows(parts, round, (round >= options.warm_up).then_some(&mut rows))?;
        }
    }
    Ok(rows)
}

/// Runs the segments of each wanted variant in a row, as a launch does, where all of several run here.
fn in_rows(parts: &mut [Part<'_>], round: usize, mut rows: Option<&mut Rows>) -> Result<(), ExecError> {
    for parts in parts.chunk_by_mut(|a, b| a.at.0 == b.at.0) {
        let (v, variant) = (parts[0].at.0, parts[0].variant);
        if !parts[0].wanted || parts.len() < 2 || parts.len() < variant.segments.len() {
            continue;
        }
        let sample = &variant.samples[round % variant.samples.len()];
        let mut values = variant.chain.start(sample.iter().cloned().map(Arc::new).collect())?;
        let (mut room, stop) = (Room::default(), Stop::default());
        let begun = Instant::now();
        for (s, part) in parts.iter_mut().enumerate() {
            variant.chain.advance(&mut values, s, part.instance.as_mut(), &mut room, &stop)?;
        }
        let us = begun.elapsed().as_secs_f64() * 1e6;
        if let Some(rows) = rows.as_deref_mut() {
            rows.entry(v).or_default().push(us);
        }
    }
    Ok(())
}

/// What is told of a variant whose parts on processor `p` are these.
fn measured(variant: &Deployed, p: usize, parts: &[&Part<'_>]) -> Measured {
    let runs = parts[0].times.len();
    let whole = parts.len() == variant.segments.len();
    let quantiles_us = whole.then(|| {
        let mut sums = sums(parts);
        sums.sort_by(f64::total_cmp);
        [0.5, 0.95, 0.99].map(|share| quantile(&sums, share))
    });
    let held = variant.prepared.iter().filter_map(|row| row[p].as_ref().ok()).map(|made| made.memory_bytes());
    let prepared = variant.prepare_ms.iter().map(|row| row[p]).sum::<f64>();
    Measured {
        runs: runs as u32,
        within: parts.iter().map(|part| part.spread.within()).fold(0.0, f64::max),
        quantiles_us,
        load_ms: prepared + parts.iter().map(|part| part.begin_ms).sum::<f64>(),
        memory_bytes: held.sum::<usize>() as u64,
    }
}

/// What all parts took in each run.
fn sums(parts: &[&Part<'_>]) -> Vec<f64> {
    let runs = 0..parts[0].times.len();
    runs.map(|run| parts.iter().map(|part| part.times[run]).sum()).collect()
}

/// How much less rows took than the sums of the same rounds: the median, since whatever else the machine does falls on one of the two.
fn saved(sums: &[f64], rows: &[f64]) -> f64 {
    let mut less: Vec<f64> = sums.iter().zip(rows).map(|(sum, row)| sum - row).collect();
    less.sort_by(f64::total_cmp);
    quantile(&less, 0.5)
}

/// Count, mean and squared deviations of what was added (Welford's recurrence, Technometrics 1962).
#[derive(Default)]
struct Spread {
    n: f64,
    mean: f64,
    squares: f64,
}

impl Spread {
    fn add(&mut self, value: f64) {
        self.n += 1.0;
        let off = value - self.mean;
        self.mean += off / self.n;
        self.squares += off * (value - self.mean);
    }

    /// Half the width of the mean's 95 % confidence interval by the mean; 1 where that cannot be said.
    fn within(&self) -> f64 {
        if self.n < 2.0 || self.mean <= 0.0 {
            return 1.0;
        }
        let freedom = self.n - 1.0;
        student(freedom) * (self.squares / freedom / self.n).sqrt() / self.mean
    }
}

/// The 97.5 % point of Student's t: the first terms of its expansion around the normal's (Abramowitz and Stegun, 26.7.5). Within a
/// hundredth from 5 degrees of freedom on.
fn student(freedom: f64) -> f64 {
    const Z: f64 = 1.959_964;
    let (z3, z5, z7) = (Z.powi(3), Z.powi(5), Z.powi(7));
    let first = (z3 + Z) / 4.0;
    let second = (5.0 * z5 + 16.0 * z3 + 3.0 * Z) / 96.0;
    let third = (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * Z) / 384.0;
    Z + first / freedom + second / freedom.powi(2) + third / freedom.powi(3)
}

/// The value at a share of ascending values (at least one), the nearest.
fn quantile(ascending: &[f64], share: f64) -> f64 {
    ascending[((ascending.len() - 1) as f64 * share).round() as usize]
}

/// Sums up latencies in microseconds (at least one). Energy is added by who knows the power.
fn cost(mut times: Vec<f64>) -> Cost {
    times.sort_by(f64::total_cmp);
    let mean_us = times.iter().sum::<f64>() / times.len() as f64;
    Cost { mean_us, p50_us: quantile(&times, 0.5), p95_us: quantile(&times, 0.95), energy_mj: 0.0 }
}

/// Median microseconds until work that is handed to a sleeping thread is known to be done: what a live launch costs beside its segments.
pub(super) fn hand_over_us() -> f64 {
    const TIMES: usize = 51;
    let (job, jobs) = bounded::<()>(1);
    let (say, said) = unbounded::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || jobs.iter().try_for_each(|()| say.send(())));
        let once = |_| {
            // Both sides sleep for a while before, as they do between frames: a core that has just been busy wakes up sooner.
            std::thread::sleep(PAUSE);
            let start = Instant::now();
            let _ = job.send(());
            let _ = said.recv();
            start.elapsed().as_secs_f64() * 1e6
        };
        let mut times: Vec<f64> = (0..TIMES).map(once).collect();
        drop(job);
        times.sort_by(f64::total_cmp);
        times[TIMES / 2]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_by_hand() {
        let c = cost((1..=21).rev().map(f64::from).collect());
        assert_eq!((c.mean_us, c.p50_us, c.p95_us, c.energy_mj), (11.0, 11.0, 20.0, 0.0));
    }

    #[test]
    fn the_confidence_interval_by_hand() {
        // 4, 5, 6 have mean 5 and variance 1; five of each the same mean and 10 / 14.
        let mut spread = Spread::default();
        assert_eq!(spread.within(), 1.0);
        (0..5).flat_map(|_| [4.0, 5.0, 6.0]).for_each(|v| spread.add(v));
        // Student's t at 14 degrees of freedom: 2.1448.
        let want = 2.1448 * (10.0_f64 / 14.0 / 15.0).sqrt() / 5.0;
        assert!((spread.within() - want).abs() < 1e-4, "{} and {want}", spread.within());
        // The saboteur: with the normal's 1.96 it would be a tenth narrower, which is more than the tolerance.
        assert!(want - 1.96 / 2.1448 * want > 1e-4);
        // Tables: 2.5706 at 5, 2.2622 at 9, 2.0452 at 29.
        for (freedom, t) in [(5.0, 2.5706), (9.0, 2.2622), (29.0, 2.0452), (1e9, 1.96)] {
            assert!((student(freedom) - t).abs() < 0.01, "{freedom}: {}", student(freedom));
        }
    }
}
