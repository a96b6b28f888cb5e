//! How fast who adapts: emulated runs in which a processor slows down half way, under the learned policy frozen, the same one learning
//! online, and baselines, beside what is to be had by who knew of it beforehand. It refuses to train; trainers are given.

mod line;
mod pupil;

pub use line::{Adaptation, BACK, Back, Line};
pub use pupil::{MakeTrainer, Pupil, Spoiled, Still, negated};

use crate::compare::{Setup, from_table};
use cosched_agent::network::{Weights, highest};
use cosched_agent::online::Arena;
use cosched_agent::online::learner::{Classroom, Report, Subject, start};
use cosched_agent::online::state::State;
use cosched_env::case::{Case, CaseError};
use cosched_env::emulator::{Emulator, Fault, FaultKind};
use cosched_env::event::Ended;
use cosched_env::plan::Plan;
use cosched_env::scheduler::{ProtocolError, Scheduler};
use cosched_env::time::{Span, Time};
use cosched_env::world::{Observer, Policy, drive};
use cosched_policies::learned::Learned;
use cosched_policies::tournament::{Budget, scout, tournament};
use line::{Runs, line};
use serde::Serialize;
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

/// Who takes part.
pub struct Contest<'a> {
    /// The network.
    pub weights: &'a Weights,
    /// One that was trained on the slowed device, where there is one.
    pub retrained: Option<&'a Weights>,
    /// Who learns online, from `weights` on.
    pub pupils: &'a [Pupil<'a>],
    /// Specs of the baselines.
    pub baselines: &'a [String],
    /// How heuristics are found before a run.
    pub budget: Budget,
    /// Makes the arena of a run.
    pub arena: &'a dyn Fn() -> Arena,
    /// What online learning goes on from.
    pub state: Option<State>,
}

/// Names of the lines of those who knew: the network with guides that were found on the slowed device, the best heuristic there, and the
/// network that was trained there.
pub const KNOWING: [&str; 3] = ["knows: learned", "knows: heuristic", "knows: retrained"];
/// Name of the line of the network that knows and learns nothing.
pub const FROZEN: &str = "frozen";

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
    let plan = slowed_plan(setup, slow_down)?;
    let slowed = Arc::new(Case::on(plan, setup.case.device.clone(), setup.case.scenario.clone())?);
    let real = slow_from(setup, slow_down, 500.0 * setup.seconds);
    let mut rows = knowing(&slow_from(setup, slow_down, 0.0), &slowed, seeds, contest)?;
    let sum = |runs: &Runs| runs.iter().flatten().filter(|e| late(e, setup)).map(|e| e.utility).sum::<f64>();
    let best = highest(&rows.iter().map(|row| sum(&row.1)).collect::<Vec<_>>());
    for pupil in contest.pupils {
        let mut reports = Vec::new();
        let runs = each(seeds, |seed| learn(&real, seed, contest, pupil, &mut reports))?;
        rows.push((pupil.name.to_owned(), runs, reports));
    }
    let squad = scout(setup.case.as_ref(), &contest.budget);
    let frozen = || Learned::with(contest.weights, &setup.case, &squad, &contest.budget);
    let runs = each(seeds, |seed| play(&real, &setup.case, seed, &mut frozen(), &mut ()))?;
    rows.push((FROZEN.to_owned(), runs, Vec::new()));
    for spec in contest.baselines {
        let make = || from_table(spec, &setup.case).map_err(AdaptError::Policy);
        let runs = each(seeds, |seed| play(&real, &setup.case, seed, make()?.as_mut(), &mut ()))?;
        rows.push((spec.clone(), runs, Vec::new()));
    }
    let reference = rows[best].1.clone();
    let requests = reference.iter().map(Vec::len).sum::<usize>() as f64 / seeds.len().max(1) as f64;
    let (window, end) = (slow_down.window_s, setup.seconds);
    Ok(Adaptation {
        slow_down: slow_down.clone(),
        seconds: end,
        seeds: seeds.to_vec(),
        window_requests: requests * window / end,
        reference: rows[best].0.clone(),
        lines: rows
            .into_iter()
            .map(|(name, runs, reports)| line(&name, &runs, reports, &reference, window, end))
            .collect(),
    })
}

/// Those who know of the slow-down, on a device that is slow from the start.
fn knowing(
    there: &Setup,
    slowed: &Arc<Case>,
    seeds: &[u64],
    contest: &Contest<'_>,
) -> Result<Vec<(String, Runs, Vec<Report>)>, AdaptError> {
    let squad = scout(slowed.as_ref(), &contest.budget);
    let best = tournament(slowed.as_ref(), &contest.budget);
    let play = |policy: &dyn Fn() -> Box<dyn Policy>| {
        each(seeds, |seed| play(there, slowed, seed, policy().as_mut(), &mut ()))
    };
    let network =
        |weights: &Weights| play(&|| Box::new(Learned::with(weights, slowed, &squad, &contest.budget)));
    let mut rows = vec![
        (KNOWING[0].to_owned(), network(contest.weights)?, Vec::new()),
        (KNOWING[1].to_owned(), play(&|| best[0].policy(slowed))?, Vec::new()),
    ];
    if let Some(weights) = contest.retrained {
        rows.push((KNOWING[2].to_owned(), network(weights)?, Vec::new()));
    }
    Ok(rows)
}

/// Whether a request arrived after the slow-down.
fn late(ended: &Ended, setup: &Setup) -> bool {
    ended.request.arrival.ms_after(Time::ZERO) >= 500.0 * setup.seconds
}

/// The device, slow from some time on.
fn slow_from(setup: &Setup, slow_down: &SlowDown, from_ms: f64) -> Setup {
    let mut slow = setup.clone();
    slow.emulator.faults.push(Fault {
        processor: slow_down.processor.clone(),
        kind: FaultKind::Slow,
        from_ms,
        to_ms: f64::INFINITY,
        speed: 1.0 / slow_down.factor,
        ..Fault::default()
    });
    slow
}

/// The plan as who knew of the slow-down would have measured it.
///
/// # Errors
/// [`AdaptError::Bad`]: there is no such processor, or a number is out of range.
pub fn slowed_plan(setup: &Setup, slow_down: &SlowDown) -> Result<Plan, AdaptError> {
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
    Ok(plan)
}

/// A run in which one learns.
fn learn(
    real: &Setup,
    seed: u64,
    contest: &Contest<'_>,
    pupil: &Pupil<'_>,
    reports: &mut Vec<Report>,
) -> Result<Vec<Ended>, AdaptError> {
    let subject = Subject { case: real.case.clone(), options: real.options, emulator: real.emulator.clone() };
    let mut settings = pupil.settings.clone();
    settings.exploration.seed = seed;
    let trainer = (pupil.trainer)().map_err(AdaptError::Policy)?;
    let (mut actor, ear, learner) =
        start(subject, contest.weights, contest.state.clone(), settings, trainer, (contest.arena)());
    let mut nothing = ();
    let mut classroom =
        Classroom { ear, learner, every: Span::from_ms(100.0), next: Time::ZERO, log: &mut nothing };
    let ended = play(real, &real.case, seed, &mut actor, &mut classroom)?;
    let Classroom { mut learner, .. } = classroom;
    learner.step();
    learner.save().map_err(|e| AdaptError::Bad(e.to_string()))?;
    reports.push(learner.report());
    Ok(ended)
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

/// A run on a device of whom the decision core knows `known`.
fn play(
    real: &Setup,
    known: &Arc<Case>,
    seed: u64,
    policy: &mut dyn Policy,
    observer: &mut dyn Observer,
) -> Result<Vec<Ended>, AdaptError> {
    let horizon = Time::ZERO + Span::from_ms(1e3 * real.seconds);
    let mut emulator = Emulator::new(real.case.clone(), real.emulator.clone(), seed, horizon);
    let mut scheduler = Scheduler::new(known.clone(), real.options);
    let mut ends = Ends { ended: Vec::new(), next: observer };
    drive(&mut scheduler, &mut emulator, policy, &mut ends)?;
    Ok(ends.ended)
}
