//! When nothing is random, what a look-ahead from a decision sees (a fork of the core in a resumed emulator) is what then happens.

#[path = "../../env/tests/common/mod.rs"]
mod common;

use common::{Setup, ms, random_setup};
use cosched_env::case::Case;
use cosched_env::emulator::{Config, Emulator};
use cosched_env::event::Ended;
use cosched_env::observation::Observation;
use cosched_env::scenario::ArrivalKind;
use cosched_env::scheduler::Scheduler;
use cosched_env::time::Time;
use cosched_env::world::{Decision, Observer, Policy, World, drive};
use cosched_policies::make;
use std::sync::{Arc, Mutex};

/// A random case in which everything follows from the plan: periodic arrivals, no spread, no faults.
fn certain(seed: u64) -> Setup {
    let mut setup = random_setup(seed);
    let (mut plan, mut scenario) = (setup.case.plan.clone(), setup.case.scenario.clone());
    for stream in &mut scenario.streams {
        // A trace or a stream that follows another one has no period of its own.
        let period_ms = if stream.period_ms > 0.0 { stream.period_ms } else { 25.0 };
        (stream.kind, stream.period_ms, stream.jitter_ms) = (ArrivalKind::Periodic, period_ms, 0.0);
        (stream.after, stream.times_ms) = (String::new(), Vec::new());
    }
    for cost in plan.variants.iter_mut().flat_map(|v| &mut v.segments).flat_map(|s| &mut s.costs).flatten() {
        (cost.p50_us, cost.p95_us) = (cost.mean_us, cost.mean_us);
    }
    setup.case = Arc::new(Case::new(plan, scenario).expect("still well-formed"));
    setup.horizon = ms(150.0);
    setup
}

#[derive(Default)]
struct Sum(f64);

impl Observer for Sum {
    fn ended(&mut self, ended: &Ended) {
        self.0 += ended.utility;
    }
}

/// Looks ahead now and then.
struct Foreseer {
    inner: Box<dyn Policy>,
    base: Box<dyn Policy>,
    horizon: Time,
    decisions: usize,
    /// Utility of what has ended.
    so_far: Arc<Mutex<f64>>,
    /// What it will be in the end.
    foreseen: Arc<Mutex<Vec<f64>>>,
}

impl Policy for Foreseer {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let decision = self.inner.decide(observation);
        self.decisions += 1;
        if self.decisions % 7 == 3 {
            let mut core = observation.fork();
            let mut world = Emulator::resume(&core, Config::default(), 99, self.horizon);
            let mut sum = Sum::default();
            world.decided(decision, observation.candidates.len());
            core.decide(decision).expect("it is a candidate");
            drive(&mut core, &mut world, &mut *self.base, &mut sum).expect("the protocol holds");
            let so_far = *self.so_far.lock().expect("one thread");
            self.foreseen.lock().expect("one thread").push(so_far + sum.0);
        }
        decision
    }
}

struct Shared(Arc<Mutex<f64>>);

impl Observer for Shared {
    fn ended(&mut self, ended: &Ended) {
        *self.0.lock().expect("one thread") += ended.utility;
    }
}

/// (looks ahead, how many of them were off by more than a hundredth) over random cases, when the true world is `config` and the
/// emulated one is [`Config::default`].
fn foresee(config: &Config) -> (usize, usize) {
    let (mut looks, mut wrong) = (0, 0);
    for seed in 0..40 {
        let setup = Setup { config: config.clone(), ..certain(seed) };
        for spec in ["edf", "least-slack"] {
            let make = || make(spec, &setup.case).expect("the table makes it");
            let (so_far, foreseen) = (Arc::default(), Arc::default());
            let mut policy = Foreseer {
                inner: make(),
                base: make(),
                horizon: setup.horizon,
                decisions: 0,
                so_far: Arc::clone(&so_far),
                foreseen: Arc::clone(&foreseen),
            };
            let mut emulator = Emulator::new(setup.case.clone(), setup.config.clone(), 1, setup.horizon);
            let mut scheduler = Scheduler::new(setup.case.clone(), setup.options);
            let mut sum = Shared(Arc::clone(&so_far));
            drive(&mut scheduler, &mut emulator, &mut policy, &mut sum).expect("the protocol holds");
            let truth = *so_far.lock().expect("one thread");
            for seen in foreseen.lock().expect("one thread").iter() {
                looks += 1;
                wrong += usize::from((seen - truth).abs() > 0.01 * truth.abs().max(1.0));
            }
        }
    }
    (looks, wrong)
}

#[test]
fn what_is_foreseen_happens() {
    let (looks, wrong) = foresee(&Config::default());
    assert!(looks > 500 && wrong == 0, "{wrong} of {looks} looks ahead were wrong");
}

#[test]
fn a_world_that_is_other_than_emulated_is_found_out() {
    let (looks, wrong) = foresee(&Config { decision_us: 500.0, ..Config::default() });
    assert!(wrong > looks / 4, "only {wrong} of {looks} looks ahead were wrong");
}
