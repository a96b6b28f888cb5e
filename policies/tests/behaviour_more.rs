//! What the policies that weigh energy, variants and whole placements are for, on cases small enough to work out by hand.
//! It refuses anything that hangs on chance: devices do exactly what their plans say.

#[path = "../../env/tests/common/mod.rs"]
mod common;
mod hand;

use common::{Setup, ms, plan, processor, variant};
use cosched_env::case::Case;
use cosched_env::device::{Device, Link, LinkPhase, ProcessorModel};
use cosched_env::emulator::Fault;
use cosched_env::event::Outcome;
use cosched_env::plan::{Cost, Variant};
use cosched_env::scenario::{Scenario, Stream};
use cosched_policies::{PolicyError, make};
use hand::{all, launches, once, outcomes, queued, setup, task};
use std::sync::Arc;

/// The millijoules of a variant's only segment on each processor.
fn costing(mut variant: Variant, energy_mj: &[f64]) -> Variant {
    for (cost, &mj) in variant.segments[0].costs.iter_mut().zip(energy_mj) {
        cost.as_mut().expect("it runs everywhere").energy_mj = mj;
    }
    variant
}

/// A small and a large variant of a task on one processor: (accuracy, microseconds) of each.
fn two(task: &str, small: (f64, f64), large: (f64, f64)) -> [Variant; 2] {
    let of = |kind: &str, (accuracy, us): (f64, f64)| {
        variant(&format!("{task}-{kind}"), task, accuracy, &[&[Some(us)]])
    };
    [of("small", small), of("large", large)]
}

#[test]
fn shortest_latency_takes_the_largest_first() {
    // `a` is older, due earlier and shorter.
    let tasks = || vec![task("a", &[Some(1e3)]), task("b", &[Some(3e3)])];
    let s = queued(tasks(), vec![once("a", 20.0), once("b", 30.0)]);
    assert_eq!(launches("shortest-latency", &s)[1].0, "b");
    assert_eq!(launches("edf", &s)[1].0, "a");
    // c (4 ms on p1) goes first. Then b has 4 + 1 ms on p1 and 5.5 on p0, so it is next, and waits for p1;
    // a would be third there, so it takes p0.
    let tasks = vec![
        task("a", &[Some(2e3), Some(1.9e3)]),
        task("b", &[Some(5.5e3), Some(1e3)]),
        task("c", &[Some(9e3), Some(4e3)]),
    ];
    let s = setup(2, tasks, vec![once("a", 30.0), once("b", 30.0), once("c", 30.0)]);
    assert_eq!(launches("shortest-latency", &s), all(&[("c", 1, 0.0), ("a", 0, 0.0), ("b", 1, 4.0)]));
}

/// `x` runs on p0 for 2 ms and then on p1 for 2 ms; `y` takes 3 ms on p1 and 4.5 ms on p2.
fn handing_over(priority: f64) -> Setup {
    let x = variant("x", "x", 0.9, &[&[Some(2e3), None, None], &[None, Some(2e3), None]]);
    let y = task("y", &[None, Some(3e3), Some(4.5e3)]);
    setup(3, vec![x, y], vec![Stream { priority, ..once("x", 20.0) }, once("y", 20.0)])
}

#[test]
fn heft_reserve_keeps_what_a_weightier_request_will_need() {
    // y would keep p1 until 3 ms, but x needs it at 2 ms.
    let kept = all(&[("x", 0, 0.0), ("y", 2, 0.0), ("x", 1, 2.0)]);
    let taken = all(&[("x", 0, 0.0), ("y", 1, 0.0), ("x", 1, 3.0)]);
    assert_eq!(launches("heft-reserve", &handing_over(3.0)), kept);
    assert_eq!(launches("heft", &handing_over(3.0)), taken);
    // What is left of x at an equal priority is 2 ms, y is 3.75 ms (its mean): the reservation does not bind y.
    assert_eq!(launches("heft-reserve", &handing_over(1.0)), taken);
}

#[test]
fn energy_greedy_is_as_slow_as_the_deadline_allows() {
    let tasks = || vec![costing(task("a", &[Some(4e3), Some(1e3)]), &[1.0, 5.0])];
    let one = |deadline| setup(2, tasks(), vec![once("a", deadline)]);
    assert_eq!(launches("energy-greedy", &one(10.0)), all(&[("a", 0, 0.0)]));
    assert_eq!(launches("energy-greedy", &one(2.0)), all(&[("a", 1, 0.0)]));
    assert_eq!(launches("eft", &one(10.0)), all(&[("a", 1, 0.0)]));
    // The second one waits for the thrifty processor as long as that is on time.
    let two = |deadline| setup(2, tasks(), vec![once("a", deadline), once("a", deadline)]);
    assert_eq!(launches("energy-greedy", &two(10.0)), all(&[("a", 0, 0.0), ("a", 0, 4.0)]));
    assert_eq!(launches("energy-greedy", &two(7.0)), all(&[("a", 0, 0.0), ("a", 1, 0.0)]));
}

#[test]
fn dream_weighs_urgency_priority_and_energy() {
    let tasks = || vec![task("a", &[Some(1e3)]), task("b", &[Some(1e3)])];
    let s = queued(tasks(), vec![once("a", 30.0), once("b", 10.0)]);
    assert_eq!(launches("dream", &s)[1].0, "b");
    let weighty = Stream { priority: 10.0, ..once("a", 30.0) };
    let s = queued(tasks(), vec![weighty, once("b", 10.0)]);
    assert_eq!(launches("dream", &s)[1].0, "a");
    // As fast here as there, but a tenth of the energy.
    let s = setup(2, vec![costing(task("a", &[Some(1e3), Some(1e3)]), &[10.0, 1.0])], vec![once("a", 30.0)]);
    assert_eq!(launches("dream", &s), all(&[("a", 1, 0.0)]));
}

#[test]
fn dream_switches_to_a_lighter_variant_when_others_would_be_late() {
    let first = |deadline: f64| {
        let mut variants = two("t", (0.6, 1e3), (0.9, 4e3)).to_vec();
        variants.push(task("c", &[Some(2e3)]));
        launches("dream", &queued(variants, vec![once("t", 4.5), once("c", deadline)]))[1].0.clone()
    };
    // t in 4 ms and c in 2 are 6.1 ms: too late for c if it is due at 5.05.
    assert_eq!(first(5.0), "t-small");
    assert_eq!(first(20.0), "t-large");
}

#[test]
fn nestdnn_shares_are_worked_out() {
    // One processor; an answer each 10 ms from both. Large variants need 90 and 40 %, small ones 10 % each.
    let streams =
        vec![Stream { period_ms: 10.0, ..once("a", 10.0) }, Stream { period_ms: 10.0, ..once("b", 10.0) }];
    let variants = [two("a", (0.6, 1e3), (1.0, 9e3)), two("b", (0.7, 1e3), (1.0, 4e3))].concat();
    let s = setup(1, variants, streams);
    let served = |spec: &str| {
        let mut names: Vec<_> = launches(spec, &s).into_iter().map(|l| l.0).collect();
        names.sort();
        names
    };
    // 0.3 more for 30 % beats 0.4 more for 80 %.
    assert_eq!(served("min-total-cost"), ["a-small", "b-large"]);
    // a costs most (0.4 short of its best), so it is raised first, and nothing is left for b.
    assert_eq!(served("min-max-cost"), ["a-large", "b-small"]);
}

#[test]
fn nestdnn_gives_more_to_those_who_are_alone() {
    // b is silent after 20 ms: a has everything to itself from some time on.
    let streams = vec![
        Stream { period_ms: 10.0, ..once("a", 10.0) },
        Stream { period_ms: 10.0, open_ms: vec![[0.0, 20.0]], ..once("b", 10.0) },
    ];
    let variants = [two("a", (0.6, 1e3), (1.0, 9e3)), two("b", (0.7, 1e3), (1.0, 4e3))].concat();
    let s = Setup { horizon: ms(200.0), ..setup(1, variants, streams) };
    let of_a: Vec<_> = launches("min-total-cost", &s).into_iter().filter(|l| l.0.starts_with('a')).collect();
    // b's last request came at 10 ms, ten of its gaps later it counts as gone.
    for (name, _, at) in &of_a {
        assert_eq!(name == "a-large", *at > 110.0, "{of_a:?}");
    }
    assert_eq!(of_a.len(), 20);
}

#[test]
fn mdinference_keeps_a_standard_deviation_back() {
    let mut large = task("t", &[Some(4e3)]);
    large.name = "large".to_owned();
    // sigma = ln(8000 / 3500) / 1.6449 = 0.5026, so the standard deviation is 4 ms * sqrt(e^0.2526 - 1) = 2.14 ms.
    large.segments[0].costs[0] = Some(Cost { mean_us: 4e3, p50_us: 3.5e3, p95_us: 8e3, energy_mj: 1.0 });
    let small = variant("small", "t", 0.5, &[&[Some(1e3)]]);
    let first = |spec: &str, deadline| {
        let s = setup(1, vec![small.clone(), large.clone()], vec![once("t", deadline)]);
        launches(spec, &s)[0].0.clone()
    };
    assert_eq!(first("mdinference", 6.2), "large");
    assert_eq!(first("mdinference", 6.1), "small");
    assert_eq!(first("edf-skip", 6.1), "large");
}

#[test]
fn mdinference_reckons_a_link_at_twice_the_upload() {
    // There: 10 ms round trip, 1 MB up in 80 ms, 5 ms of work: 95 ms, but 175 ms with the upload counted twice. Here: 150 ms.
    let mut variants = vec![task("t", &[Some(150e3), None]), task("t", &[None, Some(5e3)])];
    for (variant, (name, accuracy)) in variants.iter_mut().zip([("here", 0.5), ("there", 0.9)]) {
        variant.name = name.to_owned();
        variant.accuracy = accuracy;
        variant.segments[0].input_bytes = 1_000_000;
        variant.segments[0].output_bytes = 0;
    }
    let phase = LinkPhase { from_ms: 0.0, round_trip_ms: 10.0, mbps: 100.0, loss: 0.0 };
    let link = Link { phases: vec![phase], sigma: 0.0, resend_ms: 1000.0, tries: 3 };
    let model = ProcessorModel { link: Some(link), ..ProcessorModel::default() };
    let device = Device { processors: [("p1".to_owned(), model)].into(), ..Device::default() };
    let plan = plan(vec![processor("p0"), processor("p1")], 1.0, variants.clone());
    let first = |deadline| {
        let streams = vec![once("t", deadline)];
        let scenario =
            Scenario { name: "link".to_owned(), streams: streams.clone(), objective: Default::default() };
        let case = Case::on(plan.clone(), device.clone(), scenario).expect("the case is well-formed");
        let s = Setup { case: Arc::new(case), ..setup(2, variants.clone(), streams) };
        launches("mdinference", &s)[0].0.clone()
    };
    assert_eq!(first(180.0), "there");
    assert_eq!(first(170.0), "here");
}

#[test]
fn static_finds_a_cut() {
    // Whole it takes 25 ms on either processor, cut in the middle 10.
    let v = variant("v", "v", 0.9, &[&[Some(5e3), Some(20e3)], &[Some(20e3), Some(5e3)]]);
    let s = setup(2, vec![v], vec![Stream { period_ms: 10.0, ..once("v", 12.0) }]);
    let s = Setup { horizon: ms(15.0), ..s };
    assert_eq!(
        launches("static:200", &s),
        all(&[("v", 0, 0.0), ("v", 1, 5.0), ("v", 0, 10.0), ("v", 1, 15.0)])
    );
}

#[test]
fn static_puts_what_counts_first_and_leaves_the_rest() {
    // Only one of the two can be on time; b is due later but counts five times as much.
    let tasks = vec![task("a", &[Some(6e3)]), task("b", &[Some(6e3)])];
    let often = |name, deadline| Stream { period_ms: 10.0, expire_ms: 11.0, ..once(name, deadline) };
    let streams = vec![often("a", 8.0), Stream { priority: 5.0, ..often("b", 9.0) }];
    let s = Setup { horizon: ms(500.0), ..setup(1, tasks, streams) };
    let b: Vec<_> = launches("static", &s).into_iter().filter(|l| l.0 == "b").collect();
    assert_eq!(b.len(), 50);
    assert!(b.iter().all(|(_, _, at)| at % 10.0 <= 3.0), "{b:?}");
    assert!(outcomes("edf", &s).iter().filter(|o| **o == Outcome::Answered).count() <= 50);
}

#[test]
fn static_goes_elsewhere_while_its_processor_is_down() {
    let tasks = vec![task("a", &[Some(1e3), Some(2e3)])];
    // Only p0 has it on time.
    let mut s = setup(2, tasks, vec![Stream { period_ms: 5.0, ..once("a", 1.5) }]);
    s.horizon = ms(20.0);
    assert_eq!(
        launches("static:50", &s),
        all(&[("a", 0, 0.0), ("a", 0, 5.0), ("a", 0, 10.0), ("a", 0, 15.0)])
    );
    s.config.faults = vec![Fault { processor: "p0".into(), from_ms: 3.0, to_ms: 12.0, ..Fault::default() }];
    assert_eq!(
        launches("static:50", &s),
        all(&[("a", 0, 0.0), ("a", 1, 5.0), ("a", 1, 10.0), ("a", 0, 15.0)])
    );
}

#[test]
fn static_takes_a_number_of_runs() {
    let s = setup(1, vec![task("a", &[Some(1e3)])], vec![once("a", 4.0)]);
    assert!(make("static:1", &s.case).is_ok());
    for wrong in ["static:0", "static:soon", "static:"] {
        let error = make(wrong, &s.case).err().expect("it is no number of runs");
        assert!(matches!(error, PolicyError::Unusable { .. }), "{error}");
        assert!(
            error.to_string().contains("expected a number of emulated runs from 1 to 1000000"),
            "{error}"
        );
    }
}
