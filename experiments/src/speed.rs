//! How fast deciding and emulating are: decisions per second of one core, and the latency of one decision, for each policy.
//! It asserts nothing, since timing is not correctness.

use cosched_env::case::{Case, StreamId};
use cosched_env::emulator::{Config, Emulator};
use cosched_env::episode::Episode;
use cosched_env::event::{Completion, Event, Launch, RequestId};
use cosched_env::observation::Observation;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{ArrivalKind, Scenario, Stream};
use cosched_env::scheduler::{Next, Options, ProtocolError, Scheduler};
use cosched_env::streams::rng;
use cosched_env::time::{Span, Time};
use cosched_env::vector::Vector;
use cosched_env::world::{Decision, Policy, drive};
use hdrhistogram::Histogram;
use rand::RngExt;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// One policy's figures.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// Spec of the policy.
    pub policy: String,
    /// Decisions that were taken.
    pub decisions: u64,
    /// Mean candidates of a decision.
    pub candidates: f64,
    /// Emulator, scheduler and policy together, per second of one core: the median of its rounds.
    pub decisions_per_second: f64,
    /// ... of its slowest round.
    pub slowest: f64,
    /// ... of its fastest round.
    pub fastest: f64,
    /// Median latency of a decision in microseconds, features included.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

/// Rounds of a policy: the clock of a shared machine goes up and down by a third from one second to the next.
const ROUNDS: usize = 12;
/// No further round begins after so many seconds of one core.
const ENOUGH_S: f64 = 4.0;

/// Measures a policy over rounds of so many emulated seconds of [`case`]; `make` is called for each. The first one warms up.
///
/// # Errors
/// [`ProtocolError`] when the policy chose what is no candidate.
pub fn speed(spec: &str, make: &dyn Fn() -> Box<dyn Policy>, seconds: f64) -> Result<Speed, ProtocolError> {
    let case = case();
    let (counted, mut total) = run(&case, make(), seconds, false)?;
    let mut rates = vec![counted.decisions as f64 / total];
    while rates.len() <= ROUNDS && total < ENOUGH_S {
        let (counted, taken) = run(&case, make(), seconds, false)?;
        rates.push(counted.decisions as f64 / taken);
        total += taken;
    }
    let measured = if rates.len() > 1 { &mut rates[1..] } else { &mut rates[..] };
    measured.sort_by(f64::total_cmp);
    let (timed, _) = run(&case, make(), seconds / 4.0, true)?;
    let mut histogram = histogram();
    timed.nanoseconds.unwrap_or_default().into_iter().for_each(|ns| histogram.saturating_record(ns));
    Ok(Speed {
        policy: spec.to_owned(),
        decisions: counted.decisions,
        candidates: counted.candidates as f64 / counted.decisions.max(1) as f64,
        decisions_per_second: measured[measured.len() / 2],
        slowest: measured[0],
        fastest: measured[measured.len() - 1],
        p50_us: us(&histogram, 0.5),
        p99_us: us(&histogram, 0.99),
    })
}

/// What a decision costs when so many requests are ready.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ready {
    /// Requests that wait, all of them visible.
    pub requests: usize,
    /// Mean candidates of a decision.
    pub candidates: f64,
    /// Mean nanoseconds of one decision on one core: building the observation, deciding, taking the decision, hearing the completion.
    pub decision_ns: f64,
}

/// Measures decisions with so many ready requests (in up to 10 streams; [`case`] otherwise) under a policy. The queues stay full: for
/// each request that ends another one comes.
///
/// # Errors
/// [`ProtocolError`] when the policy chose what is no candidate.
pub fn ready(requests: usize, policy: &mut dyn Policy, decisions: u64) -> Result<Ready, ProtocolError> {
    let mut scenario = case().scenario.clone();
    let streams = requests.clamp(1, 10);
    let patient = |i: usize| Stream { deadline_ms: 1e9, ..scenario.streams[i % 6].clone() };
    scenario.streams = (0..streams).map(patient).collect();
    let case = Arc::new(Case::new(case().plan.clone(), scenario).expect("the case below is well-formed"));
    let options = Options { window: requests.div_ceil(streams), ..Options::default() };
    let mut scheduler = Scheduler::new(case.clone(), options);
    let (mut now, mut id, mut candidates, mut taken) = (Time::ZERO, 0, 0, 0);
    let mut arrive = |scheduler: &mut Scheduler, now: Time, stream: usize| {
        let stream = StreamId(stream as u16);
        id += 1;
        scheduler.handle(now, Event::Arrived(case.stream(stream).request(RequestId(id), stream, now, now)))
    };
    for i in 0..requests {
        arrive(&mut scheduler, now, i % streams)?;
    }
    let mut running: VecDeque<Launch> = VecDeque::new();
    let start = core_seconds();
    while taken < decisions {
        match scheduler.poll() {
            Next::Decide(observation) => {
                candidates += observation.candidates.len();
                taken += 1;
                let decision = policy.decide(&observation);
                scheduler.decide(decision)?;
            }
            Next::Launch(launch) => running.push_back(launch),
            Next::Ended(ended) => arrive(&mut scheduler, now, ended.request.stream.0 as usize)?,
            Next::Wait(_) => {
                let Some(launch) = running.pop_front() else { break };
                let started = now;
                now = now + Span::from_ms(1.0);
                let completion =
                    Completion { launch: launch.id, started, finished: now, energy_mj: 0.0, failure: None };
                scheduler.handle(now, Event::Completed(completion))?;
            }
        }
    }
    let taken = taken.max(1) as f64;
    let decision_ns = (core_seconds() - start) * 1e9 / taken;
    Ok(Ready { requests, candidates: candidates as f64 / taken, decision_ns })
}

/// How long a policy takes for one decision among so many candidates.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Candidates of each decision.
    pub candidates: usize,
    /// Median in microseconds, features and guides included.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
}

/// Measures decisions at moments of a case at which nothing runs and so many requests of all ages wait, each of which could go to any
/// processor. The clock is that of the machine: whatever else runs is part of the upper percentiles.
///
/// # Errors
/// [`ProtocolError`] when a request that waits cannot be dropped: a bug.
pub fn latency(
    case: &Arc<Case>,
    policy: &mut dyn Policy,
    requests: usize,
    decisions: usize,
) -> Result<Latency, ProtocolError> {
    let options = Options { window: requests, ..Options::default() };
    let mut scheduler = Scheduler::new(case.clone(), options);
    let mut random = rng(1, "latency", 0);
    let (mut now, mut id, mut candidates) = (Time::ZERO, 0, 0);
    let mut times = histogram();
    // The first tenth warms up.
    for round in 0..decisions + decisions / 10 {
        for _ in 0..requests {
            now = now + Span::from_ms(random.random::<f64>() * 8.0 / requests as f64);
            let stream = StreamId(random.random_range(0..case.streams.len() as u16));
            let request = case.stream(stream).request(RequestId(id), stream, now, now);
            id += 1;
            scheduler.handle(now, Event::Arrived(request))?;
        }
        while let Next::Decide(observation) = scheduler.poll() {
            if observation.requests.len() == requests {
                candidates = observation.candidates.len();
                let start = Instant::now();
                std::hint::black_box(policy.decide(&observation));
                if round >= decisions / 10 {
                    times.saturating_record(start.elapsed().as_nanos() as u64);
                }
            }
            // All of them are given up, so that others can come.
            let first_drop = observation.candidates.len() - 1 - observation.requests.len();
            scheduler.decide(Decision(first_drop))?;
            while scheduler.take_ended().is_some() {}
        }
    }
    Ok(Latency { candidates, p50_us: us(&times, 0.5), p99_us: us(&times, 0.99) })
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("these bounds are allowed")
}

fn us(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1e3
}

/// Decisions per second of one core when 64 copies of [`case`] are stepped together, as for a learner, by the first launch candidate.
///
/// # Errors
/// [`ProtocolError`]: a bug in the emulator.
pub fn vector(copies: u64, rounds: u64) -> Result<f64, ProtocolError> {
    let config = Config { decision_us: 0.0, candidate_us: 0.0, ..Config::default() };
    let case = case();
    let far = Time(u64::MAX / 2);
    let episode =
        |seed| Episode::new(case.clone(), Options::default(), config.clone(), seed, far, Time::NEVER);
    let mut vector = Vector::new((0..copies).map(episode).collect())?;
    let decisions = vec![Decision(0); vector.len()];
    let start = core_seconds();
    for _ in 0..rounds {
        vector.step(&decisions)?;
        for i in 0..vector.len() {
            vector.episode(i).take_ended().for_each(drop);
        }
    }
    Ok((copies * rounds) as f64 / (core_seconds() - start))
}

fn processor(p: usize) -> ProcessorSpec {
    ProcessorSpec {
        name: format!("p{p}"),
        device: String::new(),
        slots: 1,
        active_watts: 2.0,
        idle_watts: 0.5,
        copy_us: 20.0,
        copy_gbps: 5.0,
        launch_us: 0.0,
        crowd: None,
    }
}

/// One variant of four segments per task; each of so many processors is fastest for some.
fn variant(task: usize, processors: usize) -> Variant {
    let segments = (0..4).map(|s| SegmentSpec {
        input_bytes: 100_000,
        output_bytes: 100_000,
        costs: (0..processors)
            .map(|p| {
                let mean_us = 300.0 + 150.0 * ((task * 5 + s * 3 + p * 7) % 11) as f64;
                Some(Cost {
                    mean_us,
                    p50_us: 0.97 * mean_us,
                    p95_us: 1.2 * mean_us,
                    energy_mj: mean_us * 2e-3,
                })
            })
            .collect(),
        ..SegmentSpec::default()
    });
    let (name, segments) = (format!("v{task}"), segments.collect());
    Variant { name, task: format!("t{task}"), accuracy: 0.9, segments, ..Variant::default() }
}

/// Four processors, six Poisson streams, no contention.
pub fn case() -> Arc<Case> {
    case_on(4)
}

/// As [`case`], with so many processors.
pub fn case_on(processors: usize) -> Arc<Case> {
    let streams = (0..6).map(|t| Stream {
        task: format!("t{t}"),
        kind: ArrivalKind::Poisson,
        period_ms: 9.0,
        deadline_ms: 12.0,
        ..Stream::default()
    });
    let scenario =
        Scenario { name: "speed".into(), streams: streams.collect(), objective: Default::default() };
    let plan = Plan {
        format: PLAN_FORMAT,
        provenance: BTreeMap::new(),
        processors: (0..processors).map(processor).collect(),
        contention: vec![vec![1.0; processors]; processors],
        variants: (0..6).map(|task| variant(task, processors)).collect(),
    };
    Arc::new(Case::new(plan, scenario).expect("the case above is well-formed"))
}

/// Counts decisions, and times each of them when asked to.
struct Counted {
    policy: Box<dyn Policy>,
    decisions: u64,
    candidates: u64,
    nanoseconds: Option<Vec<u64>>,
}

impl Policy for Counted {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        self.decisions += 1;
        self.candidates += observation.candidates.len() as u64;
        let Some(times) = &mut self.nanoseconds else { return self.policy.decide(observation) };
        let start = Instant::now();
        let decision = self.policy.decide(observation);
        times.push(start.elapsed().as_nanos() as u64);
        decision
    }
}

/// Seconds that this thread has had a core, so that a busy machine does not matter.
#[cfg(target_os = "linux")]
fn core_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Other systems: seconds on the clock.
#[cfg(not(target_os = "linux"))]
fn core_seconds() -> f64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs_f64()
}

fn run(
    case: &Arc<Case>,
    policy: Box<dyn Policy>,
    seconds: f64,
    timed: bool,
) -> Result<(Counted, f64), ProtocolError> {
    let mut counted = Counted { policy, decisions: 0, candidates: 0, nanoseconds: timed.then(Vec::new) };
    let config = Config { decision_us: 0.0, candidate_us: 0.0, ..Config::default() };
    let horizon = Time::ZERO + Span::from_ms(seconds * 1e3);
    let mut emulator = Emulator::new(case.clone(), config, 1, horizon);
    let mut scheduler = Scheduler::new(case.clone(), Options::default());
    let start = core_seconds();
    drive(&mut scheduler, &mut emulator, &mut counted, &mut ())?;
    Ok((counted, core_seconds() - start))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Core seconds and seconds on the clock of a piece of work.
    fn taken(work: impl FnOnce()) -> (f64, f64) {
        let (core, clock) = (core_seconds(), Instant::now());
        work();
        (core_seconds() - core, clock.elapsed().as_secs_f64())
    }

    #[test]
    fn the_core_clock_counts_work_and_no_sleep() {
        let steps = |n: u64| {
            move || {
                (0..n).for_each(|i| {
                    std::hint::black_box(i);
                })
            }
        };
        let (short, _) = taken(steps(10_000_000));
        let (long, clock) = taken(steps(100_000_000));
        assert!(long > 3.0 * short && short > 0.0, "ten times the work took {long} s after {short} s");
        assert!(long < 1.1 * clock + 0.01, "one thread had a core for {long} s of {clock} s");
        let (asleep, clock) = taken(|| std::thread::sleep(Duration::from_millis(200)));
        assert!(asleep < clock / 4.0, "a sleep of {clock} s took {asleep} s of a core");
    }
}
