//! Comparisons: the same whatever the threads, paired by seed, refused when ill-asked.

use crate::fixture::setup;
use cosched_env::case::Case;
use cosched_env::observation::Observation;
use cosched_env::world::{Decision, Policy};
use cosched_experiments::compare::{
    CSV_HEADER, CompareError, Comparison, Difference, Plan, Row, compare, from_table,
};
use cosched_experiments::stats::Estimate;
use std::sync::atomic::{AtomicUsize, Ordering};

fn specs(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

#[test]
fn threads_do_not_matter() {
    let (setup, policies) = (setup(), specs(&["edf", "eft", "round-robin", "fixed:gpu"]));
    let calls = AtomicUsize::new(0);
    let run = |threads| {
        let plan = Plan { policies: &policies, seeds: &[1, 2, 3], reference: None, threads };
        let progress = |_: usize, of: usize| {
            assert_eq!(of, 12);
            calls.fetch_add(1, Ordering::Relaxed);
        };
        compare(&setup, &plan, &from_table, &progress).unwrap().without_timing()
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(5));
    assert_eq!(calls.load(Ordering::Relaxed), 36);
    // Same arrivals for each seed, others for another.
    let requests = |i: usize| one.runs[i].summary.total.requests;
    assert!((0..3).all(|s| requests(s) == requests(3 + s) && requests(s) == requests(9 + s)));
    assert!(one.runs[0].summary != one.runs[1].summary);
}

#[test]
fn the_csv_and_the_json_are_whole() {
    let (setup, policies) = (setup(), specs(&["edf", "eft", "fixed:gpu"]));
    let plan = Plan { policies: &policies, seeds: &[1, 2, 3, 4, 5], reference: None, threads: 2 };
    let comparison = compare(&setup, &plan, &from_table, &|_, _| {}).unwrap().without_timing();
    let csv = comparison.csv();
    let columns: Vec<_> = csv.lines().map(|l| l.split(',').count()).collect();
    assert_eq!(columns, [CSV_HEADER.split(',').count(); 4]);
    let json = serde_json::to_string(&comparison).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&json).unwrap(), comparison);
}

/// Numbers made up, and not from a policy: a policy that gets better must not break this.
#[test]
fn the_table_as_printed() {
    let estimate = |mean: f64| Estimate { mean, half95: Some(0.01 * mean.abs()) };
    let row = |policy: &str, utility: f64, difference: Option<(f64, f64)>| Row {
        policy: policy.into(),
        utility: estimate(utility),
        difference: difference.map(|(mean, p)| Difference { utility: estimate(mean), p: Some(p) }),
        on_time_share: estimate(0.5 * utility),
        drop_share: estimate(0.1),
        fail_share: estimate(0.0),
        p50_ms: Some(estimate(12.0)),
        p95_ms: Some(estimate(40.0)),
        p99_ms: None,
        accuracy: Some(estimate(0.9)),
        energy_mj: estimate(30.0),
        fairness: estimate(0.95),
        decision_us: 4.5,
    };
    let comparison = Comparison {
        scenario: "made up".into(),
        seeds: vec![1, 2, 3],
        seconds: 20.0,
        reference: "edf".into(),
        rows: vec![
            row("edf", 1.2, None),
            row("learned:x", 1.4, Some((0.2, 0.002))),
            row("fixed:gpu", 0.6, Some((-0.6, 0.0001))),
            row("heft", 1.19, Some((-0.01, 0.4))),
        ],
        runs: Vec::new(),
        bound: None,
    };
    insta::assert_snapshot!("comparison", comparison);
}

#[test]
fn differences_are_to_the_best_baseline_or_to_the_one_named() {
    let (setup, policies) = (setup(), specs(&["fixed:gpu", "edf", "eft"]));
    let run = |reference| {
        let plan = Plan { policies: &policies, seeds: &[1, 2, 3], reference, threads: 0 };
        compare(&setup, &plan, &from_table, &|_, _| {}).unwrap()
    };
    let best = run(None);
    let top = best.rows.iter().max_by(|a, b| a.utility.mean.total_cmp(&b.utility.mean)).unwrap();
    assert_eq!(best.reference, top.policy);
    assert!(top.difference.is_none());
    let named = run(Some("fixed:gpu"));
    assert_eq!(named.reference, "fixed:gpu");
    let (fixed, edf) = (&named.rows[0], &named.rows[1]);
    let difference = edf.difference.as_ref().unwrap();
    assert!((difference.utility.mean - (edf.utility.mean - fixed.utility.mean)).abs() < 1e-12);
}

#[test]
fn one_seed_gives_no_interval_and_no_test() {
    let (setup, policies) = (setup(), specs(&["edf", "eft"]));
    let plan = Plan { policies: &policies, seeds: &[1], reference: None, threads: 1 };
    let comparison = compare(&setup, &plan, &from_table, &|_, _| {}).unwrap();
    assert!(comparison.rows.iter().all(|r| r.utility.half95.is_none()));
    assert!(comparison.rows.iter().filter_map(|r| r.difference.as_ref()).all(|d| d.p.is_none()));
    assert!(!comparison.to_string().contains("NaN"), "{comparison}");
}

#[test]
fn ill_asked_comparisons_are_refused_at_once() {
    let setup = setup();
    let ask = |policies: &[&str], seeds: &[u64], reference| {
        let policies = specs(policies);
        let plan = Plan { policies: &policies, seeds, reference, threads: 1 };
        compare(&setup, &plan, &from_table, &|_, _| {}).unwrap_err().to_string()
    };
    assert_eq!(ask(&[], &[1], None), "nothing to compare: expected at least one policy");
    assert_eq!(ask(&["edf"], &[], None), "nothing to compare: expected at least one seed");
    assert_eq!(ask(&["edf", "edf"], &[1], None), "policy `edf` is there twice");
    assert_eq!(ask(&["edf"], &[1], Some("eft")), "policy `eft` is the reference, but is not compared");
    assert!(ask(&["edff"], &[1], None).contains("did you mean `edf`?"));
}

/// The saboteur: a policy that chooses what is no candidate.
struct Astray;
impl Policy for Astray {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        Decision(observation.candidates.len())
    }
}

#[test]
fn a_policy_that_goes_astray_is_named() {
    let (setup, policies) = (setup(), specs(&["astray"]));
    let make = |_: &str, _: &Case| -> Result<Box<dyn Policy>, String> { Ok(Box::new(Astray)) };
    let plan = Plan { policies: &policies, seeds: &[7], reference: None, threads: 1 };
    let error = compare(&setup, &plan, &make, &|_, _| {}).unwrap_err();
    assert!(matches!(&error, CompareError::Protocol { spec, seed: 7, .. } if spec == "astray"), "{error}");
}
