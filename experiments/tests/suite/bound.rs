//! The bound: finds what is known to be best, never lies below a policy, is the same whatever the threads; and it is the search that finds.

use crate::fixture::setup;
use cosched_env::case::Case;
use cosched_env::emulator::Config;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{Scenario, Stream};
use cosched_env::world::Policy;
use cosched_experiments::bound::{add, best_found, best_of};
use cosched_experiments::compare::{self, CSV_HEADER, Comparison, Setup, compare, emulate, from_table};
use cosched_experiments::summary::Tally;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A variant of one segment on one processor.
fn variant(task: &str, mean_us: f64) -> Variant {
    let cost = Cost { mean_us, p50_us: mean_us, p95_us: mean_us, energy_mj: 0.0 };
    Variant {
        name: task.into(),
        task: task.into(),
        accuracy: 0.9,
        segments: vec![SegmentSpec { costs: vec![Some(cost)], ..SegmentSpec::default() }],
        ..Variant::default()
    }
}

/// A long launch, and 1 ms after it could start an urgent frame, twenty times: who waits for the frame has all on time.
fn patience() -> Setup {
    let processor = ProcessorSpec {
        name: "only".into(),
        device: "imagined".into(),
        slots: 1,
        active_watts: 1.0,
        idle_watts: 0.0,
        copy_us: 0.0,
        copy_gbps: 0.0,
        launch_us: 0.0,
        crowd: None,
    };
    let plan = Plan {
        format: PLAN_FORMAT,
        provenance: BTreeMap::new(),
        processors: vec![processor],
        contention: vec![vec![1.0]],
        variants: vec![variant("long", 10e3), variant("urgent", 1e3)],
    };
    let stream = |task: &str, offset_ms, deadline_ms| Stream {
        task: task.into(),
        period_ms: 50.0,
        offset_ms,
        deadline_ms,
        expire_ms: 100.0,
        ..Stream::default()
    };
    let streams = vec![stream("long", 0.0, 30.0), stream("urgent", 1.0, 2.0)];
    let scenario = Scenario { name: "patience".into(), streams, objective: Default::default() };
    Setup {
        case: Arc::new(Case::new(plan, scenario).unwrap()),
        options: Default::default(),
        emulator: Config { spread: false, decision_us: 0.0, candidate_us: 0.0, ..Config::default() },
        seconds: 1.0,
    }
}

#[test]
fn it_finds_the_best_there_is_and_without_searching_it_does_not() {
    let setup = patience();
    let found =
        |evaluations| best_found(&setup, &["edf", "least-slack"], 1, evaluations, &from_table).unwrap();
    let find = |evaluations| found(evaluations).utility;
    let (searched, not) = (find(20_000), find(0));
    // All on time is 1; each urgent frame behind a long launch is 8 ms late of 50, which is 0.42.
    assert!(searched > 0.99 && searched < 1.0 + 1e-9, "{searched}");
    assert!((not - 0.71).abs() < 1e-3, "{not}");
    assert_eq!(searched, find(20_000));
}

/// Mean utility of a request when a policy plays; `None` when it chooses what cannot be chosen.
fn played(setup: &Setup, policy: &mut dyn Policy, seed: u64) -> Option<f64> {
    let mut tally = Tally::new(setup.case.clone());
    let end = emulate(setup, policy, seed, &mut tally).ok()?;
    Some(tally.finish("script", end).total.utility)
}

#[test]
fn what_it_finds_is_a_run_that_can_be_made_again() {
    // With spread and failures, so that whatever is random has to come out alike.
    let mut setup = Setup { seconds: 2.0, ..setup() };
    setup.emulator.failure_rate = 0.05;
    let find = |specs: &[&str], seed, evaluations| {
        let specs: Vec<String> = specs.iter().map(|spec| (*spec).to_owned()).collect();
        best_of(&setup, &specs, seed, evaluations, &from_table).unwrap()
    };
    let of = |spec, seed| played(&setup, from_table(spec, &setup.case).unwrap().as_mut(), seed).unwrap();
    for seed in [3, 4] {
        let found = find(&["edf", "eft", "rollout"], seed, 400);
        let again = played(&setup, &mut found.script(), seed).unwrap();
        assert!((again - found.utility).abs() < 1e-9, "{again} for {}", found.utility);
        assert!(["edf", "eft", "rollout"].iter().all(|spec| found.utility >= of(spec, seed) - 1e-9));
        // The saboteur: on another seed the same choices make another run, if they can be made at all.
        let other = played(&setup, &mut found.script(), seed + 10);
        assert!(other.is_none_or(|other| (other - found.utility).abs() > 1e-9));
    }
    // One that searches by itself is the best here, and its own run is what was found.
    let found = find(&["fixed:cpu", "rollout"], 3, 1);
    assert!((found.utility - of("rollout", 3)).abs() < 1e-9 && found.utility > of("fixed:cpu", 3) + 0.01);
    assert_eq!(played(&setup, &mut found.script(), 3), Some(of("rollout", 3)));
}

fn compared(setup: &Setup, policies: &[&str], threads: usize) -> Comparison {
    let policies: Vec<String> = policies.iter().map(|p| (*p).to_owned()).collect();
    let plan = compare::Plan { policies: &policies, seeds: &[1, 2, 3], reference: Some("edf"), threads };
    let mut comparison = compare(setup, &plan, &from_table, &|_, _| {}).unwrap().without_timing();
    add(&mut comparison, setup, 1000, &from_table, threads, &|_, _| {}).unwrap();
    comparison
}

#[test]
fn it_is_never_below_a_policy_and_threads_do_not_matter() {
    let setup = Setup { seconds: 2.0, ..setup() };
    let one = compared(&setup, &["edf", "eft", "heft"], 1);
    let bound = one.bound.as_ref().unwrap();
    for run in &one.runs {
        let place = one.seeds.iter().position(|&s| s == run.seed).unwrap();
        assert!(bound.seeds[place] >= run.summary.total.utility, "{}, seed {}", run.policy, run.seed);
    }
    assert!(bound.seeds.iter().zip(&one.runs).any(|(b, edf)| *b > edf.summary.total.utility + 0.01));
    assert_eq!(one, compared(&setup, &["edf", "eft", "heft"], 3));
    // The reference goes nothing of the way, and nobody more than all of it.
    assert_eq!(bound.closed[0], Some(0.0));
    assert!(bound.closed.iter().flatten().all(|&c| c <= 1.0 + 1e-12), "{:?}", bound.closed);
}

#[test]
fn it_is_in_the_table_the_csv_and_the_json() {
    let comparison = compared(&patience(), &["edf", "least-slack"], 2);
    let text = comparison.to_string();
    assert!(text.contains("best found with all known, 1000 evaluations a seed"), "{text}");
    assert!(text.contains("of the way from edf to the bound: least-slack 0 %"), "{text}");
    let csv = comparison.csv();
    let columns: Vec<_> = csv.lines().map(|l| l.split(',').count()).collect();
    assert_eq!(columns, [CSV_HEADER.split(',').count(); 4]);
    assert!(csv.lines().last().unwrap().starts_with("bound,"), "{csv}");
    let json = serde_json::to_string(&comparison).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&json).unwrap(), comparison);
}
