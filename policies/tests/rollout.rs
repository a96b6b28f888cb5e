//! Rollout: small cases in which looking ahead has to win, with the launches worked out by hand; on random cases it is at least as good as
//! its best base policy, and one that takes the worst of what it tried is not.

#[path = "../../env/tests/common/mod.rs"]
mod common;

use common::{Item, Setup, case, ends, exact, ms, plan, processor, random_setup, run, stream, variant};
use cosched_env::case::Case;
use cosched_env::emulator::Config;
use cosched_env::observation::Observation;
use cosched_env::plan::Variant;
use cosched_env::scenario::{ArrivalKind, Stream};
use cosched_env::scheduler::Options;
use cosched_env::streams::rng;
use cosched_env::world::{Decision, Policy};
use cosched_policies::rollout::Rollout;
use cosched_policies::{PolicyError, make};
use rand::RngExt;

/// The policies that rollout goes on with when none is named.
const BASES: [&str; 4] = ["least-slack", "heft", "edf-skip", "eft"];

fn setup(processors: usize, variants: Vec<Variant>, streams: Vec<Stream>) -> Setup {
    let processors = (0..processors).map(|p| processor(&format!("p{p}"))).collect();
    let case = case(plan(processors, 1.0, variants), streams);
    Setup { case, options: Options::default(), config: exact(), seed: 1, horizon: ms(3.0) }
}

/// A task of one variant with one segment; `costs[processor]` in microseconds.
fn task(name: &str, costs: &[Option<f64>]) -> Variant {
    variant(name, name, 0.9, &[costs])
}

/// One request at `offset_ms`.
fn once(task: &str, offset_ms: f64, deadline_ms: f64) -> Stream {
    Stream { offset_ms, expire_ms: 1000.0, ..stream(task, 1000.0, deadline_ms) }
}

/// (task, processor, when in milliseconds) of each launch, and the sum of utilities.
fn played(policy: &mut dyn Policy, setup: &Setup) -> (Vec<(String, u16, f64)>, f64) {
    let log = run(setup, policy).expect("the rules hold");
    let launches = log.iter().filter_map(|item| match item {
        Item::Launched(at, l) => {
            Some((setup.case.variant(l.variant).name.clone(), l.processor.0, at.0 as f64 / 1e6))
        }
        _ => None,
    });
    (launches.collect(), ends(&log).map(|e| e.utility).sum())
}

fn plays(spec: &str, setup: &Setup) -> (Vec<(String, u16, f64)>, f64) {
    played(&mut *make(spec, &setup.case).expect("the table makes it"), setup)
}

/// Rollout launches these, on top of each of the `bases` too, and is worth more than all base policies.
fn wins(setup: &Setup, bases: &[&str], launches: &[(&str, u16, f64)], worth: f64) {
    let launches: Vec<_> = launches.iter().map(|&(name, p, at)| (name.to_owned(), p, at)).collect();
    for base in BASES {
        let (base_launches, base_worth) = plays(base, setup);
        assert!(base_worth < worth - 0.1, "{base} does as well: {base_launches:?}, worth {base_worth}");
    }
    for base in bases {
        let (found, value) = plays(&format!("rollout:{base}"), setup);
        assert_eq!(found, launches, "rollout:{base}");
        assert!((value - worth).abs() < 1e-3, "rollout:{base} is worth {value}, not {worth}");
    }
    assert_eq!(plays("rollout", setup).0, launches);
}

#[test]
fn it_waits_for_an_urgent_frame_before_a_long_launch() {
    let tasks = vec![task("long", &[Some(10e3)]), task("urgent", &[Some(1e3)])];
    let s = setup(1, tasks, vec![once("long", 0.0, 30.0), once("urgent", 1.0, 2.0)]);
    // In order of arrival (eft) nothing is gained by waiting: the long one would be first again.
    wins(&s, &["least-slack", "heft", "edf-skip"], &[("urgent", 0, 1.0), ("long", 0, 2.0)], 2.0);
}

#[test]
fn it_keeps_the_fast_processor_free_for_an_urgent_frame() {
    let tasks = vec![task("long", &[Some(10e3), Some(18e3)]), task("urgent", &[Some(2e3), Some(8e3)])];
    let s = setup(2, tasks, vec![once("long", 0.0, 40.0), once("urgent", 1.0, 5.0)]);
    wins(&s, &BASES, &[("long", 1, 0.0), ("urgent", 0, 1.0)], 2.0);
}

#[test]
fn it_sacrifices_one_request_for_two() {
    // The big one is the most urgent by any rule, and all rules that weigh no priorities start it. It would make the two others late, which weigh more.
    let tasks = vec![task("big", &[Some(10e3)]), task("a", &[Some(5e3)]), task("b", &[Some(5e3)])];
    let weighty = |task: &str, deadline_ms| Stream { priority: 2.0, ..once(task, 0.0, deadline_ms) };
    let s = setup(1, tasks, vec![once("big", 0.0, 10.0), weighty("a", 11.0), weighty("b", 16.0)]);
    // Big comes last, 10 ms late of the 50 at which it is worth nothing, or is dropped by a base policy that does not wait.
    let best = plays("rollout", &s);
    assert_eq!(best.0[..2], [("a".to_owned(), 0, 0.0), ("b".to_owned(), 0, 5.0)], "{best:?}");
    assert!(best.1 > 3.7, "{best:?}");
    // Heft weighs priorities, so it does as well.
    for base in BASES.iter().filter(|b| **b != "heft") {
        assert!(plays(base, &s).1 < 3.3, "{base}: {:?}", plays(base, &s));
        let ahead = plays(&format!("rollout:{base}"), &s);
        assert!(ahead.1 > 3.7, "rollout:{base}: {ahead:?}");
    }
}

#[test]
fn arrivals_that_nobody_can_know_are_not_known() {
    // Poisson arrivals long apart: nothing is worth waiting for, whatever the seed of the true world.
    let tasks = || vec![task("long", &[Some(10e3)]), task("urgent", &[Some(1e3)])];
    let rare = Stream { kind: ArrivalKind::Poisson, period_ms: 20_000.0, ..once("urgent", 0.5, 3.0) };
    for seed in 0..20 {
        let s = Setup { seed, ..setup(1, tasks(), vec![once("long", 0.0, 30.0), rare.clone()]) };
        assert_eq!(plays("rollout", &s).0[0], ("long".to_owned(), 0, 0.0), "seed {seed}");
    }
}

/// Two processors, three models, more load than they can carry; everything follows from the plan.
fn overloaded(seed: u64) -> Setup {
    let rng = &mut rng(seed, "overloaded", 0);
    let mut ms_between = |least: f64, most: f64| rng.random_range(least..most);
    let names = ["a", "b", "c"];
    let tasks = names.map(|name| {
        let mut costs = || [Some(1e3 * ms_between(2.0, 12.0)), Some(1e3 * ms_between(4.0, 16.0))];
        variant(name, name, 0.9, &[&costs(), &costs()])
    });
    let streams = names.map(|name| {
        let period_ms = ms_between(15.0, 30.0);
        let (offset_ms, priority) = (ms_between(0.0, 10.0), ms_between(0.5, 3.0));
        Stream { offset_ms, priority, ..stream(name, period_ms, period_ms * ms_between(1.0, 1.5)) }
    });
    let case = case(plan(vec![processor("p0"), processor("p1")], 1.2, tasks.into()), streams.into());
    Setup { case, options: Options::default(), config: Config::default(), seed, horizon: ms(400.0) }
}

/// Takes what is worst of all that was tried.
struct Worst(Rollout);

impl Policy for Worst {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let gains = self.0.gains(observation);
        let worst =
            gains.iter().min_by(|a, b| a.mean.total_cmp(&b.mean)).expect("the base's choice is there");
        Decision(worst.choice)
    }
}

#[test]
fn on_average_it_is_better_than_every_base_policy() {
    // Mean utility per unit of priority.
    let mean = |maker: &dyn Fn(&Case) -> Box<dyn Policy>| {
        let one = |seed: u64| {
            let setup = overloaded(seed);
            let log = run(&setup, &mut *maker(&setup.case)).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let weight: f64 = ends(&log).map(|e| e.request.priority).sum();
            ends(&log).map(|e| e.utility).sum::<f64>() / weight.max(1e-9)
        };
        (0..CASES).map(one).sum::<f64>() / CASES as f64
    };
    let of = |spec: &str| mean(&|case| make(spec, case).expect("the table makes it"));
    let (all, one) = (of("rollout"), of("rollout:edf"));
    let worst = mean(&|case| Box::new(Worst(Rollout::new(None, case).expect("the bases are there"))));
    println!("rollout {all:.3}, rollout:edf {one:.3}, edf {:.3}, worst {worst:.3}", of("edf"));
    for base in BASES {
        println!("{base} {:.3}", of(base));
        assert!(all > of(base) + 0.05, "rollout {all}, {base} {}", of(base));
        assert!(worst < of(base), "the worst candidates are as good as {base}: {worst}");
    }
    assert!(one > of("edf") + 0.2, "rollout:edf {one}, edf {}", of("edf"));
}

const CASES: u64 = 12;

#[test]
fn it_goes_on_as_what_is_there_and_does_not_search() {
    let setup = random_setup(1);
    let error = |spec| make(spec, &setup.case).err().expect("the specification is wrong");
    assert!(matches!(error("rollout:rollout"), PolicyError::Parameter { .. }));
    let text = error("rollout:edf-skp").to_string();
    assert!(text.contains("no base policy `edf-skp`, did you mean `edf-skip`?"), "{text}");
    assert!(error("rollout:fixed:npu").to_string().contains("fixed"));
    assert!(make("rollout:fixed:p0", &setup.case).is_ok());
}
