//! The capacity of a device: by hand, and against every way to spread the work and every set of prices on a grid. Wrong ways to spread
//! must be found out.

mod common;

use common::{case, plan, processor, stream, variant};
use cosched_env::capacity::{Capacity, GAP, capacity, share_out};
use cosched_env::case::Case;
use cosched_env::device::{Device, ProcessorModel};
use cosched_env::plan::{Plan, ProcessorSpec};
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};
use cosched_env::streams::rng;
use cosched_env::time::Span;
use rand::RngExt;
use std::sync::Arc;

const RUN_MS: f64 = 1000.0;

fn of(case: &Case) -> Capacity {
    capacity(case, Span::from_ms(RUN_MS))
}

fn near(found: f64, by_hand: f64) {
    assert!((found / by_hand - 1.0).abs() <= GAP, "{found}, by hand {by_hand}");
}

fn processors(n: usize) -> Vec<ProcessorSpec> {
    (0..n).map(|p| processor(&format!("p{p}"))).collect()
}

/// Tasks `t0`, `t1` and so on of one variant of one segment; `costs_ms[task][processor]`.
fn flat(costs_ms: &[&[Option<f64>]]) -> Plan {
    let one = |(t, row): (usize, &&[Option<f64>])| {
        let row: Vec<_> = row.iter().map(|c| c.map(|ms| ms * 1e3)).collect();
        variant(&format!("v{t}"), &format!("t{t}"), 0.9, &[&row])
    };
    plan(processors(costs_ms[0].len()), 1.0, costs_ms.iter().enumerate().map(one).collect())
}

/// A stream of task `t` every `period_ms` that has all the time it wants.
fn patient(task: &str, period_ms: f64) -> Stream {
    stream(task, period_ms, 1000.0)
}

#[test]
fn by_hand() {
    let two = |a, b| vec![patient("t0", a), patient("t1", b)];
    let table = [
        // 10 ms of every 20.
        (flat(&[&[Some(10.0)]]), vec![patient("t0", 20.0)], 2.0),
        (flat(&[&[Some(10.0), Some(10.0)]]), vec![patient("t0", 20.0)], 4.0),
        // 1/10 and 1/30 of a request in a millisecond.
        (flat(&[&[Some(10.0), Some(30.0)]]), vec![patient("t0", 20.0)], 20.0 * 4.0 / 30.0),
        // Each where it is fast; then the first one alone can go elsewhere: a third of it does.
        (flat(&[&[Some(10.0), Some(20.0)], &[Some(20.0), Some(10.0)]]), two(20.0, 20.0), 2.0),
        (flat(&[&[Some(10.0), Some(20.0)], &[Some(10.0), Some(80.0)]]), two(40.0, 40.0), 3.0),
        // What only one of them can do stays there.
        (flat(&[&[Some(10.0), None], &[Some(10.0), Some(20.0)]]), two(20.0, 40.0), 2.0),
    ];
    for (plan, streams, by_hand) in table {
        let found = of(&case(plan, streams));
        near(found.factor, by_hand);
        near(found.load(), 1.0 / by_hand);
        let most = found.shares.iter().copied().fold(0.0, f64::max);
        assert!((most * found.factor - 1.0).abs() < 1e-9, "{found:?}");
    }
}

#[test]
fn what_counts_of_a_stream() {
    let slow_and_fast = || {
        let variants = vec![
            variant("good", "t0", 0.9, &[&[Some(20e3), Some(40e3)]]),
            variant("fast", "t0", 0.6, &[&[Some(10e3), Some(60e3)]]),
        ];
        plan(processors(2), 1.3, variants)
    };
    let with = |change: &dyn Fn(&mut Stream)| {
        let mut stream = patient("t0", 40.0);
        change(&mut stream);
        of(&case(slow_and_fast(), vec![stream])).factor
    };
    // The fastest variant of each processor: 1/10 and 1/40 in a millisecond. Contention (1.3) is not counted.
    near(with(&|_| {}), 5.0);
    // Only the accurate one: 1/20 and 1/40.
    near(with(&|s| s.min_accuracy = 0.8), 3.0);
    // Late on the second one even alone; late everywhere: then both count again.
    near(with(&|s| s.deadline_ms = 30.0), 4.0);
    near(with(&|s| s.deadline_ms = 5.0), 5.0);
    // Poisson and bursty streams have the same mean rate.
    near(with(&|s| s.kind = ArrivalKind::Poisson), 5.0);
    near(with(&|s| s.kind = ArrivalKind::Bursty), 5.0);
    // A trace: four requests in its 80 ms.
    let traced = |s: &mut Stream| {
        (s.kind, s.period_ms, s.times_ms) = (ArrivalKind::Trace, 0.0, vec![5.0, 10.0, 30.0, 80.0]);
    };
    near(with(&traced), 2.5);
    // Never open during the run: nothing is asked for.
    assert_eq!(with(&|s| s.open_ms = vec![[RUN_MS, RUN_MS + 1.0]]), f64::INFINITY);
}

#[test]
fn the_busiest_moment_and_chains_count() {
    let one = || flat(&[&[Some(10.0)], &[Some(5.0)]]);
    let open = |mut s: Stream, from, to| {
        s.open_ms = vec![[from, to]];
        s
    };
    // 0.25 until 400 ms, 0.75 until 500, 0.5 until the end.
    let streams = vec![open(patient("t0", 40.0), 0.0, 500.0), open(patient("t0", 20.0), 400.0, 900.0)];
    near(of(&case(one(), streams.clone())).load(), 0.75);
    let short = capacity(&case(one(), streams), Span::from_ms(300.0));
    near(short.load(), 0.25);
    // Half of the first one's requests have one of 5 ms behind them, and each of these has another one.
    let mut chain = vec![patient("t0", 40.0), patient("t1", 0.0), patient("t1", 0.0)];
    chain[0].name = "first".into();
    (chain[1].name, chain[1].after, chain[1].probability) = ("second".into(), "first".into(), 0.5);
    chain[2].after = "second".into();
    chain[1..].iter_mut().for_each(|s| s.kind = ArrivalKind::Dependent);
    near(of(&case(one(), chain.clone())).load(), (10.0 + 2.5 + 2.5) / 40.0);
    // Nobody follows one that is closed.
    chain[1].open_ms = vec![[RUN_MS, RUN_MS + 1.0]];
    near(of(&case(one(), chain)).load(), 0.25);
}

#[test]
fn what_counts_of_a_processor() {
    let make = |change: &dyn Fn(&mut Plan)| {
        let mut plan = flat(&[&[Some(10.0)]]);
        change(&mut plan);
        of(&case(plan, vec![patient("t0", 20.0)])).factor
    };
    near(make(&|p| p.processors[0].slots = 3), 6.0);
    near(make(&|p| p.processors[0].launch_us = 2500.0), 1.6);
    near(make(&|p| p.processors[0].copy_us = 6000.0), 1.25);
    // Weights that do not fit into the second one's memory.
    let mut plan = flat(&[&[Some(10.0), Some(10.0)]]);
    plan.variants[0].memory_bytes = 3_000_000;
    let small = ProcessorModel { memory_mb: 2.0, ..ProcessorModel::default() };
    let device = Device { processors: [("p1".to_owned(), small)].into(), ..Device::default() };
    let scenario =
        Scenario { name: "test".into(), streams: vec![patient("t0", 20.0)], objective: Default::default() };
    near(of(&Arc::new(Case::on(plan, device, scenario).unwrap())).factor, 2.0);
    // No processor can do all of it: each segment goes where it can, 10 ms here and 5 ms there.
    let variants = vec![variant("v", "t0", 0.9, &[&[Some(10e3), None], &[None, Some(5e3)]])];
    let halves = of(&case(self::plan(processors(2), 1.0, variants), vec![patient("t0", 40.0)]));
    near(halves.factor, 4.0);
    near(halves.shares[1], 0.125);
}

/// All shares of one piece of work over so many processors, in steps of 1 / `steps`.
fn spreads(processors: usize, steps: usize) -> Vec<Vec<f64>> {
    fn parts(processors: usize, left: usize) -> Vec<Vec<usize>> {
        if processors == 1 {
            return vec![vec![left]];
        }
        let with = |first: usize| {
            let rest = parts(processors - 1, left - first).into_iter();
            rest.map(move |rest| [vec![first], rest].concat())
        };
        (0..=left).flat_map(with).collect()
    }
    let share = |part: usize| part as f64 / steps as f64;
    parts(processors, steps).into_iter().map(|parts| parts.into_iter().map(share).collect()).collect()
}

/// The least largest share over all spreads on a grid: above the optimum, or equal to it.
fn best_on_grid(work: &[Vec<f64>], steps: usize, load: &[f64]) -> f64 {
    let Some((row, rest)) = work.split_first() else { return load.iter().copied().fold(0.0, f64::max) };
    let able = |spread: &&Vec<f64>| spread.iter().zip(row).all(|(x, w)| *x == 0.0 || w.is_finite());
    let all = spreads(row.len(), steps);
    let with = |spread: &Vec<f64>| {
        let share = |p: usize| if spread[p] > 0.0 { spread[p] * row[p] } else { 0.0 };
        let load: Vec<f64> = (0..row.len()).map(|p| load[p] + share(p)).collect();
        best_on_grid(rest, steps, &load)
    };
    all.iter().filter(able).map(with).fold(f64::INFINITY, f64::min)
}

/// What all work costs at the prices of a grid that make it dearest: below the optimum, or equal to it.
fn dearest_on_grid(work: &[Vec<f64>], steps: usize) -> f64 {
    let cheapest = |prices: &Vec<f64>, row: &Vec<f64>| {
        let priced = row.iter().zip(prices).filter(|(w, _)| w.is_finite()).map(|(w, price)| w * price);
        priced.fold(f64::INFINITY, f64::min)
    };
    let paid = |prices: &Vec<f64>| work.iter().map(|row| cheapest(prices, row)).sum::<f64>();
    spreads(work[0].len(), steps).iter().map(paid).fold(0.0, f64::max)
}

fn random_work(seed: u64) -> Vec<Vec<f64>> {
    let mut rng = rng(seed, "work", 0);
    let (pieces, processors) = (rng.random_range(1..=3), rng.random_range(1..=3));
    let mut piece = || {
        let mut row: Vec<f64> = (0..processors).map(|_| 0.05 * 20_f64.powf(rng.random())).collect();
        let keep = rng.random_range(0..processors);
        for (p, share) in row.iter_mut().enumerate() {
            if p != keep && rng.random_bool(0.2) {
                *share = f64::INFINITY;
            }
        }
        row
    };
    (0..pieces).map(|_| piece()).collect()
}

type Spread = dyn Fn(&[Vec<f64>]) -> (f64, Vec<f64>);

/// What is wrong with a way to spread, on random small cases.
fn judge(spread: &Spread) -> Result<(), String> {
    for seed in 0..60 {
        let work = random_work(seed);
        let (most, shares) = spread(&work);
        let processors = work[0].len();
        let (below, above) = (
            dearest_on_grid(&work, 200),
            best_on_grid(&work, if processors < 3 { 60 } else { 10 }, &[0.0; 3]),
        );
        if most > above * (1.0 + GAP) || most < below * (1.0 - 1e-9) {
            return Err(format!("seed {seed}: {most}, and the optimum is from {below} to {above}: {work:?}"));
        }
        if (shares.iter().copied().fold(0.0, f64::max) - most).abs() > 1e-9 {
            return Err(format!("seed {seed}: {most} is not the largest of {shares:?}"));
        }
    }
    Ok(())
}

/// Each piece spread by a rule, whatever the others do: `share(row, p)` is what it takes of processor `p`'s time.
fn each(work: &[Vec<f64>], share: fn(&[f64], usize) -> f64) -> (f64, Vec<f64>) {
    let on = |p: usize| work.iter().map(|row| share(row, p)).sum();
    let load: Vec<f64> = (0..work[0].len()).map(on).collect();
    (load.iter().copied().fold(0.0, f64::max), load)
}

fn where_it_is_fastest(row: &[f64], p: usize) -> f64 {
    let least = row.iter().copied().fold(f64::INFINITY, f64::min);
    if row[p] == least { least } else { 0.0 }
}

/// Each piece makes all processors equally busy.
fn as_if_alone(row: &[f64], p: usize) -> f64 {
    if row[p].is_finite() { 1.0 / row.iter().map(|w| 1.0 / w).sum::<f64>() } else { 0.0 }
}

#[test]
fn the_optimum_is_between_what_grids_find_and_wrong_spreads_are_found_out() {
    judge(&share_out).unwrap();
    let too_little = |work: &[Vec<f64>]| {
        let (most, shares) = share_out(work);
        (0.9 * most, shares.iter().map(|s| 0.9 * s).collect())
    };
    let wrong: [(&str, &Spread); 3] = [
        ("all where it is fastest", &|work| each(work, where_it_is_fastest)),
        ("each as if it were alone", &|work| each(work, as_if_alone)),
        ("too little", &too_little),
    ];
    for (name, spread) in wrong {
        assert!(judge(spread).is_err(), "{name} was not found out");
    }
}

#[test]
fn many_streams_and_processors_are_no_matter() {
    // Eight processors, twenty pieces, costs from 0.05 to 1 of a processor's time: still proven, and not for minutes.
    let mut rng = rng(5, "much", 0);
    let mut piece = || (0..8).map(|_| 0.05 * 20_f64.powf(rng.random())).collect::<Vec<f64>>();
    let work: Vec<_> = (0..20).map(|_| piece()).collect();
    let (most, shares) = share_out(&work);
    let ideal: f64 = work.iter().map(|row| row.iter().copied().fold(f64::INFINITY, f64::min)).sum();
    assert!(most >= ideal / 8.0 && most < ideal, "{most} of {ideal}");
    assert_eq!(shares.len(), 8);
    assert_eq!(share_out(&[]), (0.0, vec![]));
}
