//! Memory for weights from end to end: what the scheduler says has to be loaded, and what the emulated device charges for it.

mod common;

use common::rig::{about, die, named};
use common::{Item, Setup, check, exact, ms, plan, run, variant};
use cosched_env::case::{Case, ProcessorId};
use cosched_env::device::{Device, ProcessorModel};
use cosched_env::emulator::{Config, Fault};
use cosched_env::event::Event;
use cosched_env::observation::{Action, Observation};
use cosched_env::plan::{Plan, Variant};
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};
use cosched_env::scheduler::Options;
use cosched_env::world::{Decision, Policy};
use std::collections::BTreeMap;
use std::sync::Arc;

/// 10 MB, a megabyte in a millisecond and 0.1 ms more.
fn small() -> ProcessorModel {
    ProcessorModel { memory_mb: 10.0, load_gbps: 1.0, load_us: 100.0, ..ProcessorModel::default() }
}

/// A variant of a task of the same name that takes a millisecond.
fn of(name: &str, mb: u64, weights: Option<&str>, ms: f64) -> Variant {
    let weights = weights.map(str::to_owned);
    Variant { memory_bytes: mb * 1_000_000, weights, ..variant(name, name, 0.9, &[&[Some(1e3 * ms)]]) }
}

/// Requests for tasks at given times; nobody is in a hurry.
fn setup(plan: Plan, device: Device, requests: &[(&str, f64)], faults: Vec<Fault>) -> Setup {
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    requests.iter().for_each(|&(task, at)| times.entry(task).or_default().push(at));
    let streams = times.into_iter().map(|(task, times_ms)| Stream {
        kind: ArrivalKind::Trace,
        times_ms,
        ..common::stream(task, 0.0, 1000.0)
    });
    let scenario =
        Scenario { name: "memory".into(), streams: streams.collect(), objective: Default::default() };
    let case = Arc::new(Case::on(plan, device, scenario).expect("well-formed"));
    let config = Config { faults, ..exact() };
    Setup { case, options: Options::default(), config, seed: 1, horizon: ms(1e4) }
}

/// Takes the first launch there is; looks at every candidate.
struct First(fn(&Action));

impl Policy for First {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        observation.candidates.iter().for_each(|c| (self.0)(&c.action));
        Decision(0)
    }
}

/// (variant, megabytes loaded, begin and end in milliseconds) of all launches, in order of their begins.
fn launches(setup: &Setup, policy: &mut First) -> Vec<(String, f64, f64, f64)> {
    let log = run(setup, policy).expect("the rules hold");
    check(&setup.case, &log).expect("the rules hold");
    let mut ends = BTreeMap::new();
    for item in &log {
        if let Item::Event(_, Event::Completed(c)) = item {
            ends.insert(c.launch, c.finished);
        }
    }
    let launched = log.iter().filter_map(|item| match item {
        Item::Launched(at, l) => {
            let name = setup.case.variant(l.variant).name.clone();
            Some((name, l.load_bytes as f64 / 1e6, at.0 as f64 / 1e6, ends[&l.id].0 as f64 / 1e6))
        }
        _ => None,
    });
    launched.collect()
}

/// The same on one processor with 10 MB, as (variant, megabytes, milliseconds taken).
fn loads(variants: Vec<Variant>, requests: &[(&str, f64)], faults: Vec<Fault>) -> Vec<(String, f64, f64)> {
    let setup = setup(plan(named(1), 1.0, variants), about([("p0", small())]), requests, faults);
    let all = launches(&setup, &mut First(|_| {}));
    all.into_iter().map(|(name, mb, from, to)| (name, mb, ((to - from) * 1e3).round() / 1e3)).collect()
}

fn expect(got: Vec<(String, f64, f64)>, expected: &[(&str, f64, f64)]) {
    let got: Vec<_> = got.iter().map(|(name, mb, took)| (name.as_str(), *mb, *took)).collect();
    assert_eq!(got, expected);
}

#[test]
fn weights_are_loaded_shared_and_evicted() {
    // Those of s are part of those of a.
    let variants = vec![of("a", 6, Some("w"), 1.0), of("b", 6, None, 1.0), of("s", 4, Some("w"), 1.0)];
    let order = ["a", "a", "s", "b", "s", "b", "a", "b"];
    let requests: Vec<_> = order.iter().enumerate().map(|(i, &task)| (task, 50.0 * i as f64)).collect();
    let expected = [
        ("a", 6.0, 7.1),
        ("a", 0.0, 1.0),
        ("s", 0.0, 1.0),
        // 12 MB are too much: w goes.
        ("b", 6.0, 7.1),
        // 10 MB fit.
        ("s", 4.0, 5.1),
        ("b", 0.0, 1.0),
        // 4 of its 6 MB are there; b goes.
        ("a", 2.0, 3.1),
        ("b", 6.0, 7.1),
    ];
    expect(loads(variants, &requests, Vec::new()), &expected);
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let variants = ["x", "y", "z"].map(|name| of(name, 4, None, 1.0)).to_vec();
    let order = ["x", "y", "x", "z", "x", "y", "x", "z"];
    let requests: Vec<_> = order.iter().enumerate().map(|(i, &task)| (task, 50.0 * i as f64)).collect();
    let got: Vec<f64> = loads(variants, &requests, Vec::new()).iter().map(|l| l.1).collect();
    assert_eq!(got, [4.0, 4.0, 0.0, 4.0, 0.0, 4.0, 0.0, 4.0]);
}

#[test]
fn a_death_loses_what_was_loaded() {
    let requests = [("a", 0.0), ("a", 50.0), ("a", 150.0)];
    let got = loads(vec![of("a", 6, None, 1.0)], &requests, vec![die("p0", 100.0, 110.0)]);
    expect(got, &[("a", 6.0, 7.1), ("a", 0.0, 1.0), ("a", 6.0, 7.1)]);
}

#[test]
fn what_runs_is_not_evicted() {
    let mut two =
        plan(named(1), 1.0, vec![of("a", 6, None, 50.0), of("b", 6, None, 1.0), of("c", 3, None, 1.0)]);
    two.processors[0].slots = 2;
    // b has to wait for a, c fits beside it.
    let requests = [("a", 0.0), ("b", 10.0), ("c", 20.0)];
    let setup = setup(two, about([("p0", small())]), &requests, Vec::new());
    let got = launches(&setup, &mut First(|_| {}));
    let begins: Vec<_> = got.iter().map(|(name, _, from, _)| (name.as_str(), *from)).collect();
    assert_eq!(begins, [("a", 0.0), ("c", 20.0), ("b", 56.1)]);
}

#[test]
fn a_variant_that_is_too_large_is_not_offered() {
    let mut big = of("big", 20, None, 1.0);
    big.segments[0].costs.push(Some(common::cost(9000.0, 1.0)));
    let setup = setup(plan(named(2), 1.0, vec![big]), about([("p0", small())]), &[("big", 0.0)], Vec::new());
    let never = |action: &Action| {
        assert!(!matches!(action, Action::Launch { processor: ProcessorId(0), .. }), "{action:?}");
    };
    // p1 has no limit, so that all is loaded there from the start.
    let got = launches(&setup, &mut First(never));
    assert_eq!(got, [("big".to_owned(), 0.0, 0.0, 9.0)]);
}
