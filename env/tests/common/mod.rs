//! What the suites of this crate and of `policies` share: small cases, random ones by seed, and runs that cannot hang.
//! It refuses to judge a run; that is for `books`.
#![allow(dead_code, unused_imports)]

mod books;
mod random;
pub mod rig;

pub use books::{Item, Logger, check, ends};
pub use random::random_setup;

use cosched_env::case::Case;
use cosched_env::emulator::{Config, Emulator};
use cosched_env::event::{Ended, Event, Launch};
use cosched_env::observation::Observation;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{Scenario, Stream};
use cosched_env::scheduler::{Options, Scheduler};
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
        crowd: None,
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
