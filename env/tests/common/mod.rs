//! What the suites of this crate and of `policies` share: random cases by seed, a log of a whole run, and the rules that every log has to keep.
//! It refuses to ask the scheduler whether it was right: all rules are checked from what crossed its boundary.
#![allow(dead_code)]

use cosched_env::case::{Case, ProcessorId, VariantId};
use cosched_env::emulator::{Config, Emulator, Outage};
use cosched_env::event::{Ended, Event, Launch, LaunchId, Outcome, Request, RequestId};
use cosched_env::objective;
use cosched_env::observation::Observation;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};
use cosched_env::scheduler::{Options, Scheduler};
use cosched_env::streams::rng;
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Observer, Policy, World, drive};
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
    });
    let segments = segments.collect();
    Variant { name: name.to_owned(), task: task.to_owned(), accuracy, memory_bytes: 1, segments }
}

/// A plan with the same contention factor between all processors.
pub fn plan(processors: Vec<ProcessorSpec>, contention: f64, variants: Vec<Variant>) -> Plan {
    let n = processors.len();
    let contention = vec![vec![contention; n]; n];
    Plan { format: PLAN_FORMAT, provenance: BTreeMap::new(), processors, contention, variants }
}

/// A periodic stream.
pub fn stream(task: &str, period_ms: f64, deadline_ms: f64) -> Stream {
    Stream {
        task: task.to_owned(),
        kind: ArrivalKind::Periodic,
        period_ms,
        offset_ms: 0.0,
        jitter_ms: 0.0,
        burst: 2.0,
        dwell_ms: 100.0,
        deadline_ms,
        expire_ms: 0.0,
        priority: 1.0,
        min_accuracy: 0.0,
    }
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
                memory_bytes: 1,
                segments,
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
    SegmentSpec { name: format!("s{index}"), input_bytes: bytes, output_bytes: bytes, costs }
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
    let outages = (0..rng.random_range(0..=3usize)).map(|_| {
        let from_ms = rng.random_range(0.0..horizon_ms);
        let to_ms = from_ms + rng.random_range(-5.0..60.0);
        Outage { processor: rng.random_range(0..plan.processors.len() as u16), from_ms, to_ms }
    });
    let outages = outages.collect();
    let config = Config {
        spread: rng.random(),
        decision_us: if rng.random() { 0.0 } else { 20.0 },
        candidate_us: if rng.random() { 0.0 } else { 1.0 },
        failure_rate: [0.0, 0.02, 0.3][rng.random_range(0..3usize)],
        outages,
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

/// One thing that crossed the scheduler's boundary.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Decided(usize, usize),
    Launched(Time, Launch),
    Event(Time, Event),
    Ended(Ended),
}

#[derive(Default)]
struct Logger(Vec<Item>);

impl Observer for Logger {
    fn decided(&mut self, observation: &Observation<'_>, decision: Decision) {
        self.0.push(Item::Decided(decision.0, observation.candidates.len()));
    }
    fn launched(&mut self, now: Time, launch: &Launch) {
        self.0.push(Item::Launched(now, *launch));
    }
    fn event(&mut self, now: Time, event: &Event) {
        self.0.push(Item::Event(now, event.clone()));
    }
    fn ended(&mut self, ended: &Ended) {
        self.0.push(Item::Ended(ended.clone()));
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

macro_rules! ensure {
    ($holds:expr, $($why:tt)*) => {{
        let holds: bool = $holds;
        if !holds {
            return Err(format!($($why)*));
        }
    }};
}

struct Progress {
    request: Request,
    running: Option<LaunchId>,
    variant: Option<VariantId>,
    next: u16,
    finished: Time,
    failures: u32,
    energy_mj: f64,
    launches: u32,
    ended: bool,
}

/// The books that are kept over a log.
struct Books<'a> {
    case: &'a Case,
    now: Time,
    requests: BTreeMap<RequestId, Progress>,
    running: BTreeMap<LaunchId, (Launch, Time)>,
    next_launch: u64,
    up: Vec<bool>,
    decisions_since_event: usize,
    launched_mj: f64,
    ended_mj: f64,
}

/// Checks every rule that a run has to keep; the text says which was broken.
pub fn check(case: &Case, log: &[Item]) -> Result<(), String> {
    let mut books = Books {
        case,
        now: Time::ZERO,
        requests: BTreeMap::new(),
        running: BTreeMap::new(),
        next_launch: 0,
        up: vec![true; case.processor_count()],
        decisions_since_event: 0,
        launched_mj: 0.0,
        ended_mj: 0.0,
    };
    for (index, item) in log.iter().enumerate() {
        books.enter(item).map_err(|why| format!("item {index}, {item:?}: {why}"))?;
    }
    books.close()
}

impl Books<'_> {
    fn enter(&mut self, item: &Item) -> Result<(), String> {
        match item {
            Item::Decided(choice, of) => self.decided(*choice, *of),
            Item::Launched(now, launch) => self.launched(*now, launch),
            Item::Event(now, event) => self.event(*now, event),
            Item::Ended(ended) => self.ended(ended),
        }
    }

    fn decided(&mut self, choice: usize, of: usize) -> Result<(), String> {
        ensure!(choice < of, "no such candidate");
        self.decisions_since_event += 1;
        let slots: u32 = self.case.plan.processors.iter().map(|p| p.slots).sum();
        let open = self.requests.values().filter(|r| !r.ended).count();
        // Each decision launches, drops or waits; a dropped request may have been reported as ended already.
        let most = slots as usize + self.requests.len().min(open + self.decisions_since_event) + 1;
        ensure!(self.decisions_since_event <= most, "more decisions than there is to decide");
        Ok(())
    }

    fn launched(&mut self, now: Time, launch: &Launch) -> Result<(), String> {
        ensure!(now == self.now, "launched at {now}, but it is {}", self.now);
        ensure!(launch.id.0 == self.next_launch, "expected launch {}", self.next_launch);
        self.next_launch += 1;
        let Some(request) = self.requests.get_mut(&launch.request) else {
            return Err("no such request".to_owned());
        };
        ensure!(!request.ended, "the request has ended");
        ensure!(request.running.is_none(), "the request is running");
        ensure!(launch.first == request.next, "expected segment {}", request.next);
        let table = self.case.variant(launch.variant);
        match request.variant {
            Some(variant) => ensure!(variant == launch.variant, "the variant changed half way"),
            None => ensure!(table.accuracy >= request.request.min_accuracy, "not accurate enough"),
        }
        ensure!(table.task == self.case.stream(request.request.stream).task, "another task's variant");
        let reach = table.reach(launch.processor, launch.first);
        ensure!(
            launch.last >= launch.first && reach.is_some_and(|r| launch.last <= r),
            "{:?} cannot run these segments",
            launch.processor
        );
        ensure!(self.up[launch.processor.0 as usize], "the processor is down");
        request.running = Some(launch.id);
        request.launches += 1;
        self.running.insert(launch.id, (*launch, now));
        let here = self.running.values().filter(|r| r.0.processor == launch.processor).count();
        ensure!(here <= self.case.processor(launch.processor).slots as usize, "{here} launches run there");
        Ok(())
    }

    fn event(&mut self, now: Time, event: &Event) -> Result<(), String> {
        ensure!(now >= self.now, "time went back from {}", self.now);
        self.now = now;
        self.decisions_since_event = 0;
        match event {
            Event::Arrived(request) => {
                ensure!(request.arrival <= now, "it comes from the future");
                let progress = Progress {
                    request: request.clone(),
                    running: None,
                    variant: None,
                    next: 0,
                    finished: Time::ZERO,
                    failures: 0,
                    energy_mj: 0.0,
                    launches: 0,
                    ended: false,
                };
                ensure!(self.requests.insert(request.id, progress).is_none(), "the number was used before");
            }
            Event::Completed(c) => {
                let Some((launch, at)) = self.running.remove(&c.launch) else {
                    return Err("the launch is not running".to_owned());
                };
                ensure!(
                    c.started >= at && c.finished >= c.started && c.finished <= now,
                    "wrong order of times"
                );
                ensure!(c.energy_mj >= 0.0 && c.energy_mj.is_finite(), "wrong energy");
                self.launched_mj += c.energy_mj;
                let Some(request) = self.requests.get_mut(&launch.request) else {
                    return Err("no such request".to_owned());
                };
                ensure!(request.running == Some(c.launch), "the request does not run this launch");
                request.running = None;
                request.energy_mj += c.energy_mj;
                request.finished = c.finished;
                if c.failure.is_some() {
                    request.failures += 1;
                } else {
                    request.variant = Some(launch.variant);
                    request.next = launch.last + 1;
                }
            }
            Event::Health { processor: ProcessorId(p), up } => self.up[*p as usize] = *up,
            Event::Alarm => {}
        }
        Ok(())
    }

    fn ended(&mut self, ended: &Ended) -> Result<(), String> {
        let Some(request) = self.requests.get_mut(&ended.request.id) else {
            return Err("it never arrived".to_owned());
        };
        ensure!(!request.ended, "it ended before");
        ensure!(request.running.is_none(), "it is running");
        request.ended = true;
        ensure!(ended.request == request.request, "the request changed");
        ensure!(ended.launches == request.launches, "expected {} launches", request.launches);
        ensure!((ended.energy_mj - request.energy_mj).abs() < 1e-9, "expected {} mJ", request.energy_mj);
        self.ended_mj += ended.energy_mj;
        let done = request.variant.is_some_and(|v| request.next == self.case.variant(v).segments);
        let answered = matches!(ended.outcome, Outcome::Answered | Outcome::Late);
        ensure!(done == answered, "answered and done must go together");
        let result = match (&ended.outcome, request.variant) {
            (Outcome::Answered | Outcome::Late, Some(variant)) => {
                ensure!(ended.at == request.finished, "answered at another time than the last launch");
                let on_time = ended.at <= request.request.deadline;
                ensure!(on_time == (ended.outcome == Outcome::Answered), "on time or late?");
                objective::Result::Answer {
                    lateness_ms: ended.at.ms_after(request.request.deadline),
                    relative_accuracy: self.case.variant(variant).relative_accuracy,
                }
            }
            (Outcome::Failed(_), _) => {
                ensure!(request.failures > 0, "nothing failed");
                objective::Result::Failed
            }
            (Outcome::Expired, _) => {
                ensure!(ended.at >= request.request.expires, "it was not over");
                objective::Result::Dropped
            }
            _ => objective::Result::Dropped,
        };
        let utility = self.case.objective().utility(result, request.request.priority, request.energy_mj);
        ensure!((ended.utility - utility).abs() < 1e-9, "expected a utility of {utility}");
        Ok(())
    }

    fn close(self) -> Result<(), String> {
        let open = self.requests.values().filter(|r| !r.ended).count();
        ensure!(open == 0, "{open} of {} requests never ended", self.requests.len());
        ensure!(self.running.is_empty(), "{} launches never completed", self.running.len());
        let (a, b) = (self.launched_mj, self.ended_mj);
        ensure!((a - b).abs() <= 1e-9 * (1.0 + a), "launches took {a} mJ, requests {b}");
        Ok(())
    }
}

/// The requests' ends in a log.
pub fn ends(log: &[Item]) -> impl Iterator<Item = &Ended> {
    log.iter().filter_map(|item| match item {
        Item::Ended(ended) => Some(ended),
        _ => None,
    })
}
