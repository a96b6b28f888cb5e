//! XRBench (Kwon et al., MLSys 2023): its scenarios on its chips under any policy, beside the scores that its authors published.
//! It refuses to tune anything to those scores: costs come from a file, rules from the published runtime, formulas from the paper.

pub mod bound;
pub mod chips;
pub mod read;
pub mod report;
pub mod scenarios;
pub mod score;
pub mod stage;
pub mod workload;
pub mod world;

use crate::config::{ConfigError, suggestion};
use crate::parallel;
use cosched_env::case::{Case, StreamId};
use cosched_env::emulator::{Config, Emulator};
use cosched_env::event::Ended;
use cosched_env::scheduler::{Options, ProtocolError, Scheduler};
use cosched_env::streams::follows;
use cosched_env::time::Time;
use cosched_env::world::{Observer, Policy, drive};
use cosched_policies::stage::Stage;
use read::{Costs, Published};
use report::{CaseReport, Report};
use scenarios::Usage;
use score::Frame;
use serde::Serialize;
use stage::Rehearsal;
use std::sync::Arc;
use workload::Workload;
use world::{Rules, Runtime};

/// The policy behind the published scores.
pub const PUBLISHED_POLICY: &str = "greedy";

/// How frames come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As in the published runtime, quirks included: [`world::Runtime`].
    Compat,
    /// As in the ordinary emulator: frames come at their times, a dependent one when its own parent is answered, and all end.
    Clean,
}

/// Why a table cannot be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum XrError {
    /// A file is wrong.
    #[error("{0}")]
    File(#[from] ConfigError),
    /// The policy cannot be made.
    #[error("{0}")]
    Policy(String),
    /// The policy chose what is no candidate, or a world has a bug.
    #[error("{case}: {error}")]
    Protocol {
        /// Scenario and chip.
        case: String,
        /// What was broken.
        error: String,
    },
}

/// Makes the policy of a spec for a stage. Errors are for people.
pub type StageMaker<'a> = &'a (dyn Fn(&str, &dyn Stage) -> Result<Box<dyn Policy>, String> + Sync);

/// The [`StageMaker`] of the table of policies.
///
/// # Errors
/// What [`cosched_policies::make_on`] says.
pub fn from_table(spec: &str, stage: &dyn Stage) -> Result<Box<dyn Policy>, String> {
    cosched_policies::make_on(spec, stage).map_err(|e| e.to_string())
}

/// A case of a file of scores, ready to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// As it was published.
    pub published: Published,
    /// Its scenario.
    pub usage: &'static Usage,
    /// Its case.
    pub workload: Workload,
}

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// How frames come and go.
    pub mode: Mode,
    /// The policy.
    pub policy: &'a str,
    /// Seed of the random scenarios.
    pub seed: u64,
    /// Quirks of the mode [`Mode::Compat`].
    pub rules: Rules,
    /// Threads; 0: as many as the machine runs at once.
    pub threads: usize,
}

impl<'a> Settings<'a> {
    /// One of the modes with the published rules.
    pub fn new(mode: Mode, policy: &'a str) -> Settings<'a> {
        Settings { mode, policy, seed: 1, rules: Rules::default(), threads: 0 }
    }

    /// Whether the published scores are to come out.
    pub fn is_published(&self) -> bool {
        self.mode == Mode::Compat && self.policy == PUBLISHED_POLICY
    }
}

/// Makes the cases of a file of scores.
///
/// # Errors
/// [`ConfigError`] at the scenario or chip that is unknown, or whose costs are missing.
pub fn jobs(
    costs: &Costs,
    file: &std::path::Path,
    published: Vec<Published>,
) -> Result<Vec<Job>, ConfigError> {
    let job = |published: Published| {
        let (line, columns) = published.place;
        let at = |field: usize, problem: String| ConfigError {
            file: file.into(),
            place: Some((line, columns[field])),
            problem: format!("{}: {problem}", ["scenario", "hw_dataflow"][field]),
        };
        let usage = scenarios::find(&published.scenario).ok_or_else(|| {
            let known = scenarios::TABLE.iter().map(|u| u.name);
            let hint = suggestion(&published.scenario, known);
            at(0, format!("expected a scenario of XRBench, got `{}`{hint}", published.scenario))
        })?;
        let chip = chips::parse(&published.chip).map_err(|problem| at(1, problem))?;
        let workload =
            workload::case(usage, &published.chip, &chip, costs).map_err(|problem| at(1, problem))?;
        Ok(Job { published, usage, workload })
    };
    published.into_iter().map(job).collect()
}

/// The frames that are logged when a policy runs a case.
///
/// # Errors
/// [`ProtocolError`] when the policy chose what is no candidate.
pub fn frames(
    workload: &Workload,
    settings: &Settings<'_>,
    policy: &mut dyn Policy,
) -> Result<Vec<Frame>, ProtocolError> {
    let case = &workload.case;
    let mut scheduler = Scheduler::new(case.clone(), Options::default());
    match settings.mode {
        Mode::Compat => {
            let mut world = Runtime::new(case.clone(), &workload.frames, settings.rules, settings.seed);
            drive(&mut scheduler, &mut world, policy, &mut ())?;
            Ok(world.log())
        }
        Mode::Clean => {
            let exact = Config { spread: false, decision_us: 0.0, candidate_us: 0.0, ..Config::default() };
            let mut world = Emulator::new(case.clone(), exact, settings.seed, workload::horizon());
            let mut log = CleanLog { case: case.clone(), seed: settings.seed, frames: Vec::new() };
            drive(&mut scheduler, &mut world, policy, &mut log)?;
            Ok(log.frames)
        }
    }
}

/// Logs what ends. A frame whose parent was given up never comes, but it counts as dropped, as in the published runtime: otherwise
/// giving up a parent would raise the score of its child.
struct CleanLog {
    case: Arc<Case>,
    seed: u64,
    frames: Vec<Frame>,
}

impl CleanLog {
    fn lost(&mut self, parent: StreamId, origin: Time) {
        for s in 0..self.case.streams.len() {
            let (id, stream) = (StreamId(s as u16), &self.case.streams[s]);
            if stream.after == Some(parent) && follows(self.seed, id, origin, stream.probability) {
                let deadline = origin + stream.deadline;
                self.frames.push(Frame { stream: id, deadline, answer: None, energy_mj: 0.0 });
                self.lost(id, origin);
            }
        }
    }
}

impl Observer for CleanLog {
    fn ended(&mut self, ended: &Ended) {
        let frame = Frame::of(ended);
        self.frames.push(frame);
        if frame.answer.is_none() {
            self.lost(frame.stream, ended.request.origin);
        }
    }
}

/// Runs one case.
///
/// # Errors
/// [`XrError::Policy`] and [`XrError::Protocol`].
pub fn run_case(job: &Job, settings: &Settings<'_>, make: StageMaker<'_>) -> Result<CaseReport, XrError> {
    let stage = Rehearsal::new(&job.workload, settings);
    let mut policy = make(settings.policy, &stage).map_err(XrError::Policy)?;
    let frames = frames(&job.workload, settings, policy.as_mut()).map_err(|error| broken(job, &error))?;
    Ok(CaseReport::new(job, &frames, settings.is_published()))
}

fn broken(job: &Job, error: &ProtocolError) -> XrError {
    XrError::Protocol { case: job.workload.case.scenario.name.clone(), error: error.to_string() }
}

/// Runs all cases. `progress(done, of)` is called after each, from any thread.
///
/// # Errors
/// As [`run_case`], of the first case that fails.
pub fn run(
    jobs: &[Job],
    settings: &Settings<'_>,
    make: StageMaker<'_>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Report, XrError> {
    let one = |i: usize| run_case(&jobs[i], settings, make);
    let cases = parallel::run(jobs.len(), settings.threads, one, progress);
    Ok(Report::new(settings, cases.into_iter().collect::<Result<_, _>>()?))
}
