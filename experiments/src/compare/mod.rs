//! Policies side by side in the emulator: the same arrivals for each seed, means with 95 % intervals over seeds, paired differences.
//! It refuses to let the number of threads change a result; only the measured decision time depends on the machine.

mod csv;

pub use csv::CSV_HEADER;
pub(crate) use csv::csv_word;

use crate::app::App;
use crate::bound::BoundRow;
use crate::config::ConfigError;
use crate::stats::{Estimate, holm, mean, paired_p, stars};
use crate::summary::{Summary, Tally};
use crate::{parallel, table};
use cosched_env::case::Case;
use cosched_env::emulator::{self, Emulator};
use cosched_env::observation::Observation;
use cosched_env::scheduler::{Options, ProtocolError, Scheduler};
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Observer, Policy, drive};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Makes a policy from its spec (a name, with a parameter where it has one), or says why not.
pub type Maker<'a> = &'a (dyn Fn(&str, &Case) -> Result<Box<dyn Policy>, String> + Sync);

/// The [`Maker`] of the table of policies.
///
/// # Errors
/// What [`cosched_policies::make`] says.
pub fn from_table(spec: &str, case: &Case) -> Result<Box<dyn Policy>, String> {
    cosched_policies::make(spec, case).map_err(|e| e.to_string())
}

/// What is emulated.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Plan and scenario.
    pub case: Arc<Case>,
    /// Limits of the scheduler.
    pub options: Options,
    /// How the emulated device departs from the plan.
    pub emulator: emulator::Config,
    /// Requests arrive for so long, in seconds; then the run goes on until all have ended.
    pub seconds: f64,
}

impl Setup {
    /// What an app file describes, its device file included.
    ///
    /// # Errors
    /// As [`App::case`] and [`App::emulator_config`].
    pub fn of(app: &App) -> Result<Setup, ConfigError> {
        Ok(Setup {
            case: app.case()?,
            options: app.scheduler,
            emulator: app.emulator_config()?,
            seconds: app.seconds,
        })
    }
}

/// What to compare.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// Specs of the policies, in the order of the rows.
    pub policies: &'a [String],
    /// One run of each policy for each.
    pub seeds: &'a [u64],
    /// The policy to take differences to; by default the best by mean utility among those whose spec does not begin with `learned`.
    pub reference: Option<&'a str>,
    /// Threads; 0: as many as the machine runs at once.
    pub threads: usize,
}

/// Why a comparison cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CompareError {
    /// No policy or no seed is given.
    #[error("nothing to compare: expected at least one {0}")]
    Nothing(&'static str),
    /// A policy cannot be made.
    #[error("{problem}")]
    Policy {
        /// As it was asked for.
        spec: String,
        /// What is wrong, the policy's name included.
        problem: String,
    },
    /// A policy is given twice, or the reference is not among them.
    #[error("policy `{spec}` {problem}")]
    Spec {
        /// As it was asked for.
        spec: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The policy or the emulator broke the protocol: a bug in one of them.
    #[error("policy `{spec}`, seed {seed}: {error}")]
    Protocol {
        /// Which policy.
        spec: String,
        /// Which seed.
        seed: u64,
        /// What was broken.
        error: String,
    },
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Spec of the policy.
    pub policy: String,
    /// Seed of arrivals and device.
    pub seed: u64,
    /// What came of it.
    pub summary: Summary,
    /// Mean microseconds of a decision, measured on this machine.
    pub decision_us: f64,
}

/// Mean utility of a policy less that of the reference, seed by seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Estimate of the difference.
    pub utility: Estimate,
    /// Two-sided p of the paired t-test, corrected by Holm for the number of policies; `None` below two seeds.
    pub p: Option<f64>,
}

impl Difference {
    /// [`stars`] of its p.
    pub fn stars(&self) -> &'static str {
        stars(self.p)
    }
}

/// A policy over all seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Spec of the policy.
    pub policy: String,
    /// Mean utility of a request.
    pub utility: Estimate,
    /// Against the reference; `None` for the reference itself.
    pub difference: Option<Difference>,
    /// Share of requests answered by their deadline.
    pub on_time_share: Estimate,
    /// Share of requests dropped or expired.
    pub drop_share: Estimate,
    /// Share of requests failed.
    pub fail_share: Estimate,
    /// Percentiles of latency in milliseconds; `None` when a seed had no answer.
    pub p50_ms: Option<Estimate>,
    /// Likewise.
    pub p95_ms: Option<Estimate>,
    /// Likewise.
    pub p99_ms: Option<Estimate>,
    /// Mean accuracy of the answers; `None` when a seed had none.
    pub accuracy: Option<Estimate>,
    /// Millijoules of launches per request.
    pub energy_mj: Estimate,
    /// Jain's index of the streams' on-time shares.
    pub fairness: Estimate,
    /// Mean microseconds of a decision, measured on this machine.
    pub decision_us: f64,
}

/// Policies side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Name of the scenario.
    pub scenario: String,
    /// Seeds of the runs.
    pub seeds: Vec<u64>,
    /// Seconds for which requests arrived in each run.
    pub seconds: f64,
    /// The policy that differences are taken to.
    pub reference: String,
    /// One row a policy, in the order asked for.
    pub rows: Vec<Row>,
    /// All runs: policies in order, and for each the seeds in order.
    pub runs: Vec<Run>,
    /// What could be reached by somebody who knows the future, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<BoundRow>,
}

/// Counts what deciding takes.
pub(crate) struct Timed<'a> {
    inner: &'a mut dyn Policy,
    spent: Duration,
    decisions: u64,
}

impl<'a> Timed<'a> {
    pub(crate) fn new(inner: &'a mut dyn Policy) -> Timed<'a> {
        Timed { inner, spent: Duration::ZERO, decisions: 0 }
    }

    /// Mean microseconds of a decision.
    pub(crate) fn mean_us(&self) -> f64 {
        self.spent.as_secs_f64() * 1e6 / self.decisions.max(1) as f64
    }
}

impl Policy for Timed<'_> {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let start = Instant::now();
        let decision = self.inner.decide(observation);
        self.spent += start.elapsed();
        self.decisions += 1;
        decision
    }
}

/// Runs a policy in the emulator until all requests ended. Returns the time of the last event.
///
/// # Errors
/// [`ProtocolError`] when the policy chose what is no candidate.
pub fn emulate(
    setup: &Setup,
    policy: &mut dyn Policy,
    seed: u64,
    observer: &mut dyn Observer,
) -> Result<Time, ProtocolError> {
    let horizon = Time::ZERO + Span::from_ms(setup.seconds * 1e3);
    let mut scheduler = Scheduler::new(setup.case.clone(), setup.options);
    let mut world = Emulator::new(setup.case.clone(), setup.emulator.clone(), seed, horizon);
    drive(&mut scheduler, &mut world, policy, observer)
}

/// One run of one policy, summed up.
///
/// # Errors
/// [`CompareError::Policy`] or [`CompareError::Protocol`].
pub fn run_once(setup: &Setup, spec: &str, seed: u64, make: Maker<'_>) -> Result<Run, CompareError> {
    let mut policy =
        make(spec, &setup.case).map_err(|problem| CompareError::Policy { spec: spec.into(), problem })?;
    let mut timed = Timed::new(policy.as_mut());
    let mut tally = Tally::new(setup.case.clone());
    let end = emulate(setup, &mut timed, seed, &mut tally).map_err(|error| CompareError::Protocol {
        spec: spec.into(),
        seed,
        error: error.to_string(),
    })?;
    let decision_us = timed.mean_us();
    Ok(Run { policy: spec.into(), seed, summary: tally.finish(spec, end), decision_us })
}

/// Runs every policy with every seed. `progress(done, of)` is called after each run, from any thread.
///
/// # Errors
/// The first error in the order of policies and seeds; see [`CompareError`].
pub fn compare(
    setup: &Setup,
    plan: &Plan<'_>,
    make: Maker<'_>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Comparison, CompareError> {
    check(setup, plan, make)?;
    let n = plan.seeds.len();
    let job = |i: usize| run_once(setup, &plan.policies[i / n], plan.seeds[i % n], make);
    let runs = parallel::run(plan.policies.len() * n, plan.threads, job, progress);
    let runs = runs.into_iter().collect::<Result<Vec<Run>, _>>()?;
    Ok(assess(setup, plan, runs))
}

/// Refuses what would fail only after minutes.
fn check(setup: &Setup, plan: &Plan<'_>, make: Maker<'_>) -> Result<(), CompareError> {
    if plan.policies.is_empty() {
        return Err(CompareError::Nothing("policy"));
    }
    if plan.seeds.is_empty() {
        return Err(CompareError::Nothing("seed"));
    }
    for (i, spec) in plan.policies.iter().enumerate() {
        if plan.policies[..i].contains(spec) {
            return Err(CompareError::Spec { spec: spec.clone(), problem: "is there twice" });
        }
        make(spec, &setup.case).map_err(|problem| CompareError::Policy { spec: spec.clone(), problem })?;
    }
    match plan.reference {
        Some(r) if !plan.policies.iter().any(|p| p == r) => {
            Err(CompareError::Spec { spec: r.into(), problem: "is the reference, but is not compared" })
        }
        _ => Ok(()),
    }
}

fn utilities(runs: &[Run]) -> Vec<f64> {
    runs.iter().map(|r| r.summary.total.utility).collect()
}

fn assess(setup: &Setup, plan: &Plan<'_>, runs: Vec<Run>) -> Comparison {
    let n = plan.seeds.len();
    let of = |policy: usize| &runs[policy * n..(policy + 1) * n];
    let reference = reference(plan, &|p| mean(&utilities(of(p))));
    let base = utilities(of(reference));
    let others: Vec<usize> = (0..plan.policies.len()).filter(|&p| p != reference).collect();
    let differences: Vec<Vec<f64>> =
        others.iter().map(|&p| utilities(of(p)).iter().zip(&base).map(|(a, b)| a - b).collect()).collect();
    // All have the same number of seeds: either all have a p-value or none has.
    let p: Option<Vec<f64>> = differences.iter().map(|d| paired_p(d)).collect();
    let p = p.map(|p| holm(&p));
    let mut rows: Vec<Row> = (0..plan.policies.len()).map(|p| row(&plan.policies[p], of(p))).collect();
    for (i, (&other, difference)) in others.iter().zip(&differences).enumerate() {
        let Some(utility) = Estimate::of(difference) else { continue };
        rows[other].difference = Some(Difference { utility, p: p.as_ref().map(|p| p[i]) });
    }
    Comparison {
        scenario: setup.case.scenario.name.clone(),
        seeds: plan.seeds.to_vec(),
        seconds: setup.seconds,
        reference: plan.policies[reference].clone(),
        rows,
        runs,
        bound: None,
    }
}

fn reference(plan: &Plan<'_>, utility: &dyn Fn(usize) -> f64) -> usize {
    if let Some(index) = plan.reference.and_then(|r| plan.policies.iter().position(|p| p == r)) {
        return index;
    }
    let best = |among: &dyn Fn(&str) -> bool| {
        let indices = (0..plan.policies.len()).filter(|&i| among(&plan.policies[i]));
        // Ties: the first.
        indices.rev().max_by(|&a, &b| utility(a).total_cmp(&utility(b)))
    };
    best(&|p| !p.starts_with("learned")).or_else(|| best(&|_| true)).unwrap_or(0)
}

fn row(policy: &str, runs: &[Run]) -> Row {
    let over = |f: &dyn Fn(&Summary) -> f64| {
        let sample: Vec<f64> = runs.iter().map(|r| f(&r.summary)).collect();
        Estimate::of(&sample).unwrap_or(Estimate { mean: 0.0, half95: None })
    };
    let over_some = |f: &dyn Fn(&Summary) -> Option<f64>| {
        let sample: Option<Vec<f64>> = runs.iter().map(|r| f(&r.summary)).collect();
        sample.and_then(|s| Estimate::of(&s))
    };
    let share = |count: u64, s: &Summary| count as f64 / s.total.requests.max(1) as f64;
    Row {
        policy: policy.to_owned(),
        utility: over(&|s| s.total.utility),
        difference: None,
        on_time_share: over(&|s| s.total.on_time_share()),
        drop_share: over(&|s| share(s.total.dropped + s.total.expired, s)),
        fail_share: over(&|s| share(s.total.failed, s)),
        p50_ms: over_some(&|s| s.total.p50_ms),
        p95_ms: over_some(&|s| s.total.p95_ms),
        p99_ms: over_some(&|s| s.total.p99_ms),
        accuracy: over_some(&|s| s.total.accuracy),
        energy_mj: over(&|s| s.total.energy_mj),
        fairness: over(&|s| s.fairness),
        decision_us: mean(&runs.iter().map(|r| r.decision_us).collect::<Vec<_>>()),
    }
}

impl Comparison {
    /// The same with all measured times set to 0: what must not depend on threads or the machine.
    pub fn without_timing(mut self) -> Comparison {
        self.rows.iter_mut().for_each(|r| r.decision_us = 0.0);
        self.runs.iter_mut().for_each(|r| r.decision_us = 0.0);
        self
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.seeds.len();
        let plural = if n == 1 { "" } else { "s" };
        writeln!(
            f,
            "scenario {}, {} s, {n} seed{plural}, reference {}",
            self.scenario, self.seconds, self.reference
        )?;
        writeln!(f, "{}", table::comparison(self))?;
        if let Some(bound) = &self.bound {
            bound.write(f, self)?;
        }
        write!(
            f,
            "± half of the 95 % interval over seeds; * ** ***: paired difference significant at 0.05, 0.01, 0.001 (Holm)"
        )
    }
}
