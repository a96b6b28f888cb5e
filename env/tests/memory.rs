//! Memory for weights, by hand: what is evicted, what is shared, what is pinned, what never fits, and what loading costs.
//! It refuses random cases; the swarm's rule on memory has those.

mod common;
#[path = "common/hand.rs"]
mod hand;

use common::{ends, exact, ms, plan, processor, run_in, stream, variant};
use cosched_env::case::{Case, CaseError};
use cosched_env::device::{Device, ProcessorModel};
use cosched_env::emulator::Emulator;
use cosched_env::event::Outcome;
use cosched_env::observation::Observation;
use cosched_env::plan::{ProcessorSpec, Variant};
use cosched_env::scenario::Scenario;
use cosched_env::scheduler::Options;
use cosched_env::world::{Decision, Policy};
use hand::Hand;
use std::sync::Arc;

const MB: u64 = 1_000_000;

/// A variant of one segment that takes a millisecond wherever it runs.
fn sized(name: &str, mb: u64, weights: Option<&str>, processors: usize) -> Variant {
    let row = vec![Some(1000.0); processors];
    let weights = weights.map(str::to_owned);
    Variant { memory_bytes: mb * MB, weights, ..variant(name, "t", 0.9, &[&row]) }
}

/// Loading takes 0.1 ms and a millisecond for each MB.
fn limited(memory_mb: f64) -> ProcessorModel {
    ProcessorModel { memory_mb, load_gbps: 1.0, load_us: 100.0, ..ProcessorModel::default() }
}

/// One stream without end; `models[i]` is the memory of the i-th of the processors.
fn device(
    specs: Vec<ProcessorSpec>,
    models: &[ProcessorModel],
    variants: Vec<Variant>,
) -> Result<Case, CaseError> {
    let named = specs.iter().map(|s| s.name.clone()).zip(models.iter().cloned());
    let device = Device { processors: named.collect(), ..Device::default() };
    let streams = vec![stream("t", 1.0, 1e6)];
    let scenario = Scenario { name: "memory".to_owned(), streams, objective: Default::default() };
    Case::on(plan(specs, 1.0, variants), device, scenario)
}

fn hand(specs: Vec<ProcessorSpec>, models: &[ProcessorModel], variants: Vec<Variant>) -> Hand {
    let case = device(specs, models, variants).expect("the test's own case is well-formed");
    let mut hand = Hand::new(Arc::new(case), Options { window: 1, max_failures: 3 });
    for _ in 0..20 {
        hand.arrive(0, ms(0.0));
    }
    hand
}

/// What is loaded, in MB, when these variants run one after another on one processor of so many MB.
fn loads(memory_mb: f64, variants: Vec<Variant>, order: &[u16]) -> Vec<u64> {
    let mut hand = hand(vec![processor("p")], &[limited(memory_mb)], variants);
    let run = |(i, &v): (usize, &u16)| {
        let launch = hand.launch(v, 0);
        hand.done(&launch, ms(i as f64 + 1.0));
        launch.load_bytes / MB
    };
    order.iter().enumerate().map(run).collect()
}

fn three(processors: usize) -> Vec<Variant> {
    ["a", "b", "c"].map(|name| sized(name, 4, None, processors)).into()
}

#[test]
fn what_was_used_longest_ago_is_evicted() {
    let order = [0, 1, 0, 2, 1, 2, 0];
    // a and b fit; c takes the place of b, since a was used again; then b that of a; c is there; a takes the place of b.
    assert_eq!(loads(10.0, three(1), &order), [4, 4, 0, 4, 4, 0, 4]);
    // In order of loading instead of use, c would have taken the place of a and b would be there still.
    let by_loading = [4, 4, 0, 4, 0, 0, 4];
    assert_ne!(loads(10.0, three(1), &order), by_loading);
    // With room for all three nothing is loaded twice; with room for one, all but repeats.
    assert_eq!(loads(12.0, three(1), &order), [4, 4, 0, 4, 0, 0, 0]);
    assert_eq!(loads(7.0, three(1), &[0, 0, 1, 1, 0]), [4, 0, 4, 0, 4]);
    // No limit: all is there from the start.
    assert_eq!(loads(0.0, three(1), &order), [0; 7]);
}

#[test]
fn shared_weights_are_loaded_once() {
    let family = |weights| {
        vec![sized("small", 2, weights, 1), sized("large", 6, weights, 1), sized("other", 5, None, 1)]
    };
    // The larger one needs what the smaller one has not loaded; then the smaller one is part of it.
    assert_eq!(loads(8.0, family(Some("w")), &[0, 1, 0, 1]), [2, 4, 0, 0]);
    // Together they are evicted, and the smaller one alone brings back its own part only.
    assert_eq!(loads(8.0, family(Some("w")), &[1, 2, 0, 1]), [6, 5, 2, 4]);
    // Without a name in common they are strangers.
    assert_eq!(loads(8.0, family(None), &[0, 1, 0, 1]), [2, 6, 0, 0]);
    assert_eq!(loads(7.0, family(None), &[0, 1, 0, 1]), [2, 6, 2, 6]);
}

#[test]
fn what_runs_is_not_evicted() {
    let two = ProcessorSpec { slots: 2, ..processor("p") };
    let variants = vec![sized("a", 6, None, 1), sized("b", 6, None, 1), sized("c", 4, None, 1)];
    let mut hand = hand(vec![two], &[limited(10.0)], variants);
    assert_eq!(hand.choices(), [(0, 0), (1, 0), (2, 0)]);
    let a = hand.launch(0, 0);
    // Beside a there is room for another a and for c, not for b.
    assert_eq!(hand.choices(), [(0, 0), (2, 0)]);
    let c = hand.launch(2, 0);
    assert_eq!((a.load_bytes, c.load_bytes), (6 * MB, 4 * MB));
    hand.done(&a, ms(1.0));
    // a is idle and may go, but c runs: 4 and 6 fit.
    assert_eq!(hand.choices(), [(0, 0), (1, 0), (2, 0)]);
    let b = hand.launch(1, 0);
    assert_eq!(b.load_bytes, 6 * MB);
    hand.done(&b, ms(2.0));
    hand.done(&c, ms(2.0));
    // b took the place of a; c was never touched.
    assert_eq!(hand.launch(2, 0).load_bytes, 0);
    assert_eq!(hand.launch(0, 0).load_bytes, 6 * MB);
}

#[test]
fn a_variant_that_shares_with_what_runs_needs_only_the_rest() {
    let two = ProcessorSpec { slots: 2, ..processor("p") };
    let family = |weights| vec![sized("small", 4, weights, 1), sized("large", 8, weights, 1)];
    let mut shared = hand(vec![two.clone()], &[limited(10.0)], family(Some("w")));
    shared.launch(0, 0);
    assert_eq!(shared.choices(), [(0, 0), (1, 0)]);
    assert_eq!(shared.launch(1, 0).load_bytes, 4 * MB);
    // Strangers of 4 and 8 MB do not fit into 10 beside each other.
    let mut apart = hand(vec![two], &[limited(10.0)], family(None));
    apart.launch(0, 0);
    assert_eq!(apart.choices(), [(0, 0)]);
}

#[test]
fn what_never_fits_is_not_offered() {
    let specs = || vec![processor("small"), processor("large")];
    let variants = || vec![sized("a", 12, None, 2), sized("b", 3, None, 2)];
    let mut hand = hand(specs(), &[limited(10.0), limited(16.0)], variants());
    assert_eq!(hand.choices(), [(0, 1), (1, 0), (1, 1)]);
    let error = device(specs(), &[limited(10.0), limited(11.0)], variants()).expect_err("a fits nowhere");
    assert_eq!(error.key, "variants[0] (`a`).memory_bytes");
    assert!(error.problem.contains("12.0 MB"), "{error}");
}

#[test]
fn what_was_on_a_processor_that_died_is_gone() {
    let mut hand = hand(vec![processor("p")], &[limited(10.0)], three(1));
    let first = hand.launch(0, 0);
    hand.done(&first, ms(1.0));
    hand.health(0, false, ms(1.0));
    assert_eq!(hand.choices(), []);
    hand.health(0, true, ms(2.0));
    assert_eq!(hand.launch(0, 0).load_bytes, 4 * MB);
}

#[test]
fn loading_is_expected() {
    let mut hand = hand(vec![processor("p"), processor("q")], &[limited(10.0), limited(0.0)], three(2));
    // 0.1 ms, 4 ms for 4 MB, 1 ms of work; where there is no limit only the work.
    assert_eq!(hand.find(0, 0).1.expected_ns, 5.1e6);
    assert_eq!(hand.find(0, 1).1.expected_ns, 1e6);
    let first = hand.launch(0, 0);
    hand.done(&first, ms(5.1));
    assert_eq!(hand.find(0, 0).1.expected_ns, 1e6);
    assert_eq!(hand.find(1, 0).1.expected_ns, 5.1e6);
}

/// Runs variant `self.0[i]` for the i-th request.
struct InOrder(Vec<u16>);

impl Policy for InOrder {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        use cosched_env::observation::Action;
        let wanted = self.0[observation.requests[0].id.0 as usize];
        let is = |a: Action| matches!(a, Action::Launch { variant, .. } if variant.0 == wanted);
        Decision(
            observation.candidates.iter().position(|c| is(c.action)).expect("one processor, one request"),
        )
    }
}

#[test]
fn loading_takes_time_in_the_emulator() {
    let order = [0, 0, 1, 0, 2, 1];
    let case = Arc::new(
        device(vec![processor("p")], &[limited(10.0)], three(1)).expect("the test's own case is well-formed"),
    );
    // Six requests, a millisecond apart, and one processor: each begins where the one before ends.
    let mut emulator = Emulator::new(case.clone(), exact(), 1, ms(5.5));
    let mut policy = InOrder(order.to_vec());
    let log = run_in(&mut emulator, &case, Options::default(), &mut policy).expect("the rules hold");
    let mut at = 0.0;
    // a: 5.1, a: 1, b: 5.1, a: 1, c in the place of b: 5.1, b in the place of a: 5.1.
    let expected = [5.1, 1.0, 5.1, 1.0, 5.1, 5.1].map(|took| {
        at += took;
        ms(at)
    });
    let ended: Vec<_> = ends(&log).map(|e| e.at).collect();
    assert!(ends(&log).all(|e| e.outcome == Outcome::Answered));
    let near = |(a, b): (&cosched_env::time::Time, &cosched_env::time::Time)| a.0.abs_diff(b.0) <= 10;
    assert!(ended.len() == 6 && ended.iter().zip(&expected).all(near), "{ended:?}, expected {expected:?}");
}
