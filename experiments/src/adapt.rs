//! How fast who adapts: emulated runs in which a processor slows down half way, under the learned policy frozen, the same one learning
//! online, and baselines, beside what is to be had by who knew of it beforehand. It refuses to train; the trainer is given.

use crate::compare::{Setup, from_table};
use cosched_agent::network::Weights;
use cosched_agent::online::learner::{Classroom, Report, Settings, Subject, start};
use cosched_agent::online::lesson::Lesson;
use cosched_agent::online::state::State;
use cosched_agent::online::{Arena, Trainer};
use cosched_env::case::{Case, CaseError};
use cosched_env::emulator::{Emulator, Fault, FaultKind};
use cosched_env::event::Ended;
use cosched_env::scheduler::{ProtocolError, Scheduler};
use cosched_env::time::{Span, Time};
use cosched_env::world::{Observer, Policy, drive};
use cosched_policies::learned::Learned;
use cosched_policies::tournament::{Budget, scout, tournament};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// What happens to the device.
#[derive(Clone, Debug, Serialize)]
pub struct SlowDown {
    /// Which processor.
    pub processor: String,
    /// How many times as long launches take there from the middle of the run on; above 1.
    pub factor: f64,
    /// Seconds of a window in which utility is averaged.
    pub window_s: f64,
}

/// Why it cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// The processor is not there, or a number is out of range.
    #[error("{0}")]
    Bad(String),
    /// A policy cannot be made.
    #[error("{0}")]
    Policy(String),
    /// The slowed device is no case.
    #[error("the slowed device: {0}")]
    Case(#[from] CaseError),
    /// A bug in a policy or the emulator.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

/// One contestant: mean utility per request over seeds.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Who.
    pub name: String,
    /// Per window of time.
    pub windows: Vec<f64>,
    /// Before and after the slow-down.
    pub before: f64,
    /// See `before`.
    pub after: f64,
    /// In the last quarter of the run.
    pub settled: f64,
    /// Requests after the slow-down until a window reaches 95 % of the reference's mean after it; `None`: never.
    pub back_after: Option<f64>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Adaptation {
    /// What happened.
    pub slow_down: SlowDown,
    /// Seeds of the runs.
    pub seeds: Vec<u64>,
    /// Requests that arrive in a window, on average.
    pub window_requests: f64,
    /// The reference first, then the online policy, the frozen one, and the baselines.
    pub lines: Vec<Line>,
    /// What the learner of each seed says.
    pub reports: Vec<Report>,
}

/// Name of the line of what is to be had on the slowed device by who knew of it: the better of the policy with guides found there and
/// the best heuristic there.
pub const REFERENCE: &str = "known beforehand";
/// Share of the reference at which a policy counts as back.
const BACK: f64 = 0.95;

/// Who takes part.
pub struct Contest<'a> {
    /// The network.
    pub weights: &'a Weights,
    /// Specs of the baselines.
    pub baselines: &'a [String],
    /// How heuristics are found before a run.
    pub budget: Budget,
    /// How online learning goes.
    pub settings: Settings,
    /// Makes the trainer of a run.
    pub trainer: &'a dyn Fn() -> Result<Box<dyn Trainer>, String>,
    /// Makes the arena of a run.
    pub arena: &'a dyn Fn() -> Arena,
    /// What online learning goes on from.
    pub state: Option<State>,
}

/// Runs everybody on every seed.
///
/// # Errors
/// [`AdaptError`].
pub fn adapt(
    setup: &Setup,
    slow_down: &SlowDown,
    seeds: &[u64],
    contest: &Contest<'_>,
) -> Result<Adaptation, AdaptError> {
    let slowed = slowed_case(setup, slow_down)?;
    let fault = Fault {
        processor: slow_down.processor.clone(),
        kind: FaultKind::Slow,
        from_ms: 500.0 * setup.seconds,
        to_ms: f64::INFINITY,
        speed: 1.0 / slow_down.factor,
        ..Fault::default()
    };
    let mut real = setup.clone();
    real.emulator.faults.push(fault);
    let there = Setup { case: Arc::new(slowed), ..setup.clone() };
    let mut reports = Vec::new();
    let mut rows: Vec<(String, Vec<Vec<Ended>>)> = Vec::new();
    let mut add = |name: &str, runs: Vec<Vec<Ended>>| rows.push((name.to_owned(), runs));
    add("online", online_runs(&real, seeds, contest, &mut reports)?);
    let squad = scout(&setup.case, &contest.budget);
    let frozen = || Learned::with(contest.weights, &setup.case, &squad, &contest.budget);
    add("frozen", each(seeds, |seed| play(&real, seed, &mut frozen(), &mut ()))?);
    for spec in contest.baselines {
        let make = || from_table(spec, &setup.case).map_err(AdaptError::Policy);
        add(spec, each(seeds, |seed| play(&real, seed, make()?.as_mut(), &mut ()))?);
    }
    let knowing = scout(&there.case, &contest.budget);
    let known = || Learned::with(contest.weights, &there.case, &knowing, &contest.budget);
    let learned = each(seeds, |seed| play(&there, seed, &mut known(), &mut ()))?;
    let best = tournament(&there.case, &contest.budget);
    let heuristic = each(seeds, |seed| play(&there, seed, best[0].policy(&there.case).as_mut(), &mut ()))?;
    let reference = if total(&heuristic) > total(&learned) { heuristic } else { learned };
    let mut lines = vec![line(REFERENCE, &reference, setup, slow_down, None)];
    for (name, runs) in &rows {
        let after = lines[0].after;
        lines.push(line(name, runs, setup, slow_down, Some(after)));
    }
    let requests = reference.iter().map(Vec::len).sum::<usize>() as f64 / seeds.len().max(1) as f64;
    let window_requests = requests * slow_down.window_s / setup.seconds;
    Ok(Adaptation { slow_down: slow_down.clone(), seeds: seeds.to_vec(), window_requests, lines, reports })
}

/// The case as who knew of the slow-down would have measured it.
fn slowed_case(setup: &Setup, slow_down: &SlowDown) -> Result<Case, AdaptError> {
    let case = &setup.case;
    let known: Vec<_> = case.plan.processors.iter().map(|p| p.name.as_str()).collect();
    let Some(index) = known.iter().position(|&name| name == slow_down.processor) else {
        let (name, known) = (&slow_down.processor, known.join(", "));
        return Err(AdaptError::Bad(format!("no processor `{name}`; processors: {known}")));
    };
    if !(slow_down.factor > 1.0 && slow_down.factor <= 100.0) {
        return Err(AdaptError::Bad(format!(
            "expected a factor above 1 and at most 100, got {}",
            slow_down.factor
        )));
    }
    if !(slow_down.window_s > 0.0 && slow_down.window_s <= 0.25 * setup.seconds) {
        let most = 0.25 * setup.seconds;
        return Err(AdaptError::Bad(format!("expected a window of at most a quarter of the run, {most} s")));
    }
    let mut plan = case.plan.clone();
    for segment in plan.variants.iter_mut().flat_map(|v| &mut v.segments) {
        if let Some(cost) = &mut segment.costs[index] {
            for number in [&mut cost.mean_us, &mut cost.p50_us, &mut cost.p95_us, &mut cost.energy_mj] {
                *number *= slow_down.factor;
            }
        }
    }
    Ok(Case::on(plan, case.device.clone(), case.scenario.clone())?)
}

fn online_runs(
    real: &Setup,
    seeds: &[u64],
    contest: &Contest<'_>,
    reports: &mut Vec<Report>,
) -> Result<Vec<Vec<Ended>>, AdaptError> {
    each(seeds, |seed| {
        let subject =
            Subject { case: real.case.clone(), options: real.options, emulator: real.emulator.clone() };
        let mut settings = contest.settings.clone();
        settings.exploration.seed = seed;
        let trainer = (contest.trainer)().map_err(AdaptError::Policy)?;
        let state = contest.state.clone();
        let (mut actor, ear, learner) =
            start(subject, contest.weights, state, settings, trainer, (contest.arena)());
        let mut nothing = ();
        let mut classroom =
            Classroom { ear, learner, every: Span::from_ms(100.0), next: Time::ZERO, log: &mut nothing };
        let ended = play(real, seed, &mut actor, &mut classroom)?;
        let Classroom { mut learner, .. } = classroom;
        learner.step();
        learner.save().map_err(|e| AdaptError::Bad(e.to_string()))?;
        reports.push(learner.report());
        Ok(ended)
    })
}

fn each<T>(seeds: &[u64], run: impl FnMut(u64) -> Result<T, AdaptError>) -> Result<Vec<T>, AdaptError> {
    seeds.iter().copied().map(run).collect()
}

/// Keeps how requests ended, and passes everything on.
struct Ends<'a> {
    ended: Vec<Ended>,
    next: &'a mut dyn Observer,
}

impl Observer for Ends<'_> {
    fn launched(&mut self, now: Time, launch: &cosched_env::event::Launch) {
        self.next.launched(now, launch);
    }

    fn event(&mut self, now: Time, event: &cosched_env::event::Event) {
        self.next.event(now, event);
    }

    fn ended(&mut self, ended: &Ended) {
        self.ended.push(ended.clone());
        self.next.ended(ended);
    }
}

fn play(
    setup: &Setup,
    seed: u64,
    policy: &mut dyn Policy,
    observer: &mut dyn Observer,
) -> Result<Vec<Ended>, AdaptError> {
    let horizon = Time::ZERO + Span::from_ms(1e3 * setup.seconds);
    let mut emulator = Emulator::new(setup.case.clone(), setup.emulator.clone(), seed, horizon);
    let mut scheduler = Scheduler::new(setup.case.clone(), setup.options);
    let mut ends = Ends { ended: Vec::new(), next: observer };
    drive(&mut scheduler, &mut emulator, policy, &mut ends)?;
    Ok(ends.ended)
}

fn total(runs: &[Vec<Ended>]) -> f64 {
    runs.iter().flatten().map(|e| e.utility).sum()
}

/// Mean utility of the requests of all runs that arrived in a span of seconds, and how many in each run.
fn mean_in(runs: &[Vec<Ended>], from_s: f64, to_s: f64) -> (f64, f64) {
    let arrived = |e: &&Ended| {
        let at = e.request.arrival.ms_after(Time::ZERO) / 1e3;
        from_s <= at && at < to_s
    };
    let (sum, n) =
        runs.iter().flatten().filter(arrived).fold((0.0, 0.0), |(s, n), e| (s + e.utility, n + 1.0));
    (sum / f64::max(n, 1.0), n / runs.len().max(1) as f64)
}

fn line(
    name: &str,
    runs: &[Vec<Ended>],
    setup: &Setup,
    slow_down: &SlowDown,
    reference: Option<f64>,
) -> Line {
    let (window, end) = (slow_down.window_s, setup.seconds);
    let half = end / 2.0;
    let windows: Vec<f64> = (0..(end / window).floor() as usize)
        .map(|w| mean_in(runs, w as f64 * window, (w + 1) as f64 * window).0)
        .collect();
    // Windows from the slow-down on, however the others lie.
    let mut from = half;
    let mut back_after = None;
    while back_after.is_none() && from + window <= end {
        let reached = reference.is_some_and(|r| mean_in(runs, from, from + window).0 >= BACK * r);
        if reached {
            back_after = Some(mean_in(runs, half, from).1);
        }
        from += window;
    }
    Line {
        name: name.to_owned(),
        windows,
        before: mean_in(runs, 0.0, half).0,
        after: mean_in(runs, half, end).0,
        settled: mean_in(runs, 0.75 * end, end).0,
        back_after: back_after.filter(|_| reference.is_some()),
    }
}

impl fmt::Display for Adaptation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SlowDown { processor, factor, window_s } = &self.slow_down;
        writeln!(
            f,
            "{processor} {factor} times slower from the middle on, {} seeds; {:.0} requests in a window of {window_s} s",
            self.seeds.len(),
            self.window_requests
        )?;
        writeln!(
            f,
            "{:<18} {:>8} {:>8} {:>8}  back above {:.0} % of `{REFERENCE}`",
            "",
            "before",
            "after",
            "settled",
            100.0 * BACK
        )?;
        for line in &self.lines {
            let back = match line.back_after {
                _ if line.name == REFERENCE => String::new(),
                Some(requests) => format!("after {requests:.0} requests"),
                None => "never".to_owned(),
            };
            let Line { name, before, after, settled, .. } = line;
            writeln!(f, "{name:<18} {before:>8.4} {after:>8.4} {settled:>8.4}  {back}")?;
        }
        for (report, seed) in self.reports.iter().zip(&self.seeds) {
            let c = report.counts;
            writeln!(
                f,
                "seed {seed}: {} decisions learned from, {} published, {} refused, {} rolled back, {} handed over; shadow {:.3}, {} {:.3}",
                report.decisions,
                c.published,
                c.refused,
                c.rolled_back,
                c.handed_over,
                report.shadow.good,
                report.baseline,
                report.shadow.baseline
            )?;
        }
        Ok(())
    }
}

/// A trainer that spoils one lesson: its weights come out negated. To show what the guard is for.
pub struct Spoiled {
    /// Who really trains.
    pub trainer: Box<dyn Trainer>,
    /// Lessons until the spoiled one.
    pub left: u32,
}

impl Trainer for Spoiled {
    fn set(&mut self, weights: &Weights) {
        self.trainer.set(weights);
    }

    fn learn(&mut self, lesson: &Lesson) -> Weights {
        let learned = self.trainer.learn(lesson);
        let spoils = self.left == 1;
        self.left = self.left.saturating_sub(1);
        if spoils { negated(&learned) } else { learned }
    }
}

/// The same network with its last layer's signs turned round: what was best is worst.
pub fn negated(weights: &Weights) -> Weights {
    let mut weights = weights.clone();
    let logit = &mut weights.logit;
    logit.weight.iter_mut().chain(&mut logit.bias).for_each(|w| *w = -*w);
    weights
}

/// A trainer that has nothing to teach: the weights stay. What adapts then are the guides.
pub struct Still(pub Weights);

impl Trainer for Still {
    fn set(&mut self, weights: &Weights) {
        self.0 = weights.clone();
    }

    fn learn(&mut self, _: &Lesson) -> Weights {
        self.0.clone()
    }
}
