//! What the suites of this crate and of `policies` share: small and random cases by seed, and runs that cannot hang.
//! It refuses to judge a run; that is for `books`.
#![allow(dead_code, unused_imports)]

mod books;

pub use books::{Item, Logger, check, ends};

use cosched_env::case::Case;
use cosched_env::emulator::{Config, Emulator, Fault, FaultKind};
use cosched_env::event::{Ended, Event, Launch};
use cosched_env::observation::Observation;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};
use cosched_env::scheduler::{Options, Scheduler};
use cosched_env::streams::rng;
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Policy, World, drive};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that a run depends on besides the policy.
#[derive(Clone)]
pub struct Setup {
    pub case: Arc<Case>,
    pub options: Options,
    pub config: Config,
    pub seed: u64,
    pub horizon: Time,
}

pub fn ms(ms: f64) -> Time {
    Time::ZERO + Span::from_ms(ms)
}

pub fn processor(name: &str) -> ProcessorSpec {
    ProcessorSpec {
        name: name.to_owned(),
        device: "made up".to_owned(),
        slots: 1,
        active_watts: 2.0,
        idle_watts: 0.5,
        copy_us: 0.0,
        copy_gbps: 0.0,
        launch_us: 0.0,
    }
}

/// A cost without spread.
pub fn cost(mean_us: f64, energy_mj: f64) -> Cost {
    Cost { mean_us, p50_us: mean_us, p95_us: mean_us, energy_mj }
}

/// A variant whose segments cost `costs[segment][processor]` microseconds.
pub fn variant(name: &str, task: &str, accuracy: f64, costs: &[&[Option<f64>]]) -> Variant {
    let segments = costs.iter().enumerate().map(|(s, row)| SegmentSpec {
        name: format!("s{s}"),
        input_bytes: 1000,
        output_bytes: 1000,
        costs: row.iter().map(|c| c.map(|us| cost(us, 1.0))).collect(),
        ..SegmentSpec::default()
    });
    let segments = segments.collect();
    Variant { name: name.to_owned(), task: task.to_owned(), accuracy, segments, ..Variant::default() }
}

/// A plan with the same contention factor between all processors.
pub fn plan(processors: Vec<ProcessorSpec>, contention: f64, variants: Vec<Variant>) -> Plan {
    let n = processors.len();
    let contention = vec![vec![contention; n]; n];
    Plan { format: PLAN_FORMAT, provenance: BTreeMap::new(), processors, contention, variants }
}

/// A periodic stream.
pub fn stream(task: &str, period_ms: f64, deadline_ms: f64) -> Stream {
    Stream { task: task.to_owned(), period_ms, dwell_ms: 100.0, deadline_ms, ..Stream::default() }
}

pub fn case(plan: Plan, streams: Vec<Stream>) -> Arc<Case> {
    let scenario = Scenario { name: "test".to_owned(), streams, objective: Default::default() };
    Arc::new(Case::new(plan, scenario).expect("the test's own case is well-formed"))
}

/// A device that does exactly what its plan says, at no cost of deciding.
pub fn exact() -> Config {
    Config { spread: false, decision_us: 0.0, candidate_us: 0.0, ..Config::default() }
}

fn random_plan(rng: &mut Pcg64Mcg) -> Plan {
    let n = rng.random_range(1..=5usize);
    let processors = (0..n).map(|p| ProcessorSpec {
        slots: if rng.random_bool(0.2) { 2 } else { 1 },
        copy_us: if rng.random_bool(0.3) { 0.0 } else { rng.random_range(0.0..200.0) },
        copy_gbps: if rng.random_bool(0.3) { 0.0 } else { rng.random_range(0.5..10.0) },
        ..processor(&format!("p{p}"))
    });
    let processors = processors.collect();
    let mut variants = Vec::new();
    for t in 0..rng.random_range(1..=4usize) {
        for v in 0..rng.random_range(1..=3usize) {
            let segments = (0..rng.random_range(1..=6usize)).map(|s| random_segment(rng, s, n)).collect();
            variants.push(Variant {
                name: format!("t{t}v{v}"),
                task: format!("t{t}"),
                accuracy: rng.random_range(0.5..1.0),
                segments,
                ..Variant::default()
            });
        }
    }
    let contention = (0..n).map(|_| (0..n).map(|_| rng.random_range(1.0..1.6)).collect()).collect();
    Plan { format: PLAN_FORMAT, provenance: BTreeMap::new(), processors, contention, variants }
}

fn random_segment(rng: &mut Pcg64Mcg, index: usize, processors: usize) -> SegmentSpec {
    let surely = rng.random_range(0..processors);
    let costs = (0..processors).map(|p| {
        let supported = p == surely || rng.random_bool(0.6);
        let mean_us = 50.0 * 100f64.powf(rng.random());
        let p50_us = mean_us * 0.95;
        let p95_us = p50_us * rng.random_range(1.0..1.8);
        supported.then_some(Cost { mean_us, p50_us, p95_us, energy_mj: mean_us * 2e-3 })
    });
    let costs = costs.collect();
    let bytes = rng.random_range(0..1_000_000);
    let name = format!("s{index}");
    SegmentSpec { name, input_bytes: bytes, output_bytes: bytes, costs, ..SegmentSpec::default() }
}

fn random_scenario(rng: &mut Pcg64Mcg, plan: &Plan) -> Scenario {
    let streams = (0..rng.random_range(1..=6usize)).map(|_| {
        let served = &plan.variants[rng.random_range(0..plan.variants.len())];
        let kinds = [ArrivalKind::Periodic, ArrivalKind::Poisson, ArrivalKind::Bursty];
        let deadline_ms = rng.random_range(1.0..50.0);
        Stream {
            kind: kinds[rng.random_range(0..3usize)],
            offset_ms: rng.random_range(0.0..20.0),
            jitter_ms: if rng.random_bool(0.5) { 0.0 } else { rng.random_range(0.0..30.0) },
            burst: rng.random_range(1.0..=2.0),
            dwell_ms: rng.random_range(1.0..100.0),
            expire_ms: if rng.random_bool(0.5) { 0.0 } else { deadline_ms + rng.random_range(0.0..60.0) },
            priority: rng.random_range(0.5..3.0),
            min_accuracy: if rng.random_bool(0.7) { 0.0 } else { served.accuracy },
            ..stream(&served.task, rng.random_range(3.0..60.0), deadline_ms)
        }
    });
    Scenario { name: "random".to_owned(), streams: streams.collect(), objective: Default::default() }
}

/// A random case with a random device; the same seed gives the same one.
pub fn random_setup(seed: u64) -> Setup {
    let rng = &mut rng(seed, "random case", 0);
    let plan = random_plan(rng);
    let scenario = random_scenario(rng, &plan);
    let horizon_ms = 250.0;
    let faults = (0..rng.random_range(0..=3usize)).map(|_| {
        let from_ms = rng.random_range(0.0..horizon_ms);
        let to_ms = from_ms + rng.random_range(-5.0..60.0);
        let processor = plan.processors[rng.random_range(0..plan.processors.len())].name.clone();
        let kind = if rng.random() { FaultKind::Die } else { FaultKind::Hang };
        Fault { processor, kind, from_ms, to_ms, noticed_ms: if rng.random() { 0.0 } else { 10.0 } }
    });
    let faults = faults.collect();
    let config = Config {
        spread: rng.random(),
        decision_us: if rng.random() { 0.0 } else { 20.0 },
        candidate_us: if rng.random() { 0.0 } else { 1.0 },
        failure_rate: [0.0, 0.02, 0.3][rng.random_range(0..3usize)],
        faults,
    };
    let options = Options { window: rng.random_range(1..=3), max_failures: rng.random_range(1..=3) };
    let case =
        Case::new(plan, scenario).unwrap_or_else(|e| panic!("seed {seed}: the generator is wrong: {e}"));
    Setup { case: Arc::new(case), options, config, seed, horizon: ms(horizon_ms) }
}

/// Chooses any candidate at random, by seed.
pub struct RandomPolicy(pub Pcg64Mcg);

impl Policy for RandomPolicy {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        Decision(self.0.random_range(0..observation.candidates.len()))
    }
}

/// Cuts a run off that would never end.
struct Bounded<'a> {
    world: &'a mut dyn World,
    events: usize,
    decisions: usize,
}

const MOST_EVENTS: usize = 1_000_000;
const MOST_DECISIONS: usize = 10_000;

impl World for Bounded<'_> {
    fn launch(&mut self, launch: &Launch) {
        self.world.launch(launch);
    }
    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        self.events += 1;
        self.decisions = 0;
        if self.events > MOST_EVENTS { None } else { self.world.wait(until) }
    }
    fn ready(&mut self, now: Time) -> Option<Event> {
        self.world.ready(now)
    }
    fn ended(&mut self, ended: &Ended) {
        self.world.ended(ended);
    }
    fn decided(&mut self, decision: Decision, candidates: usize) {
        self.decisions += 1;
        assert!(self.decisions < MOST_DECISIONS, "{MOST_DECISIONS} decisions without an event");
        self.world.decided(decision, candidates);
    }
}

/// Runs a policy in any world and gives the log.
pub fn run_in(
    world: &mut dyn World,
    case: &Arc<Case>,
    options: Options,
    policy: &mut dyn Policy,
) -> Result<Vec<Item>, String> {
    let mut scheduler = Scheduler::new(case.clone(), options);
    let mut log = Logger::default();
    let mut bounded = Bounded { world, events: 0, decisions: 0 };
    drive(&mut scheduler, &mut bounded, policy, &mut log).map_err(|e| e.to_string())?;
    if bounded.events > MOST_EVENTS {
        return Err(format!("the run did not end within {MOST_EVENTS} events"));
    }
    match scheduler.active() {
        0 => Ok(log.0),
        n => Err(format!("{n} requests never ended")),
    }
}

/// Runs a policy on an emulated device and gives the log.
pub fn run(setup: &Setup, policy: &mut dyn Policy) -> Result<Vec<Item>, String> {
    let mut emulator = Emulator::new(setup.case.clone(), setup.config.clone(), setup.seed, setup.horizon);
    run_in(&mut emulator, &setup.case, setup.options, policy)
}
