//! Online learning beside a live run: an actor to decide with, an ear to hear with, and a learner on a thread of its own. It refuses
//! policies that do not learn, and builds without a learner say so.

use crate::session::SessionError;
use cosched_agent::network::Weights;
use cosched_agent::online::Trainer;
use cosched_agent::online::learner::{Learner, Report, Settings, Subject, start};
use cosched_agent::online::link::Ear;
use cosched_agent::online::state::{State, StateError, load};
use cosched_env::case::Case;
use cosched_env::world::Policy;
use cosched_env::{emulator, scheduler};
use cosched_experiments::app::App;
use cosched_experiments::config::ConfigError;
use cosched_policies::learned::prepare;
use cosched_policies::online::{LIVE, arena};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a live run learns.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where what was learned is kept; it goes on from there when the file is there.
    pub state: Option<PathBuf>,
    /// A file of another plan is put aside (with `.before` at its end) and not refused: for plans that change while it runs.
    pub renew: bool,
    /// Minutes after which it is written again; it is also written at the end.
    pub save_minutes: f64,
    /// Everything else.
    pub settings: Settings,
}

impl Default for Options {
    fn default() -> Options {
        Options { state: None, renew: false, save_minutes: 5.0, settings: Settings::default() }
    }
}

/// What a build without a learner says.
pub const NO_LEARNER: &str =
    "--online: this build has no learner; build it with the feature `train` (it is on by default)";

/// Whether this build can learn.
pub fn can_learn() -> bool {
    cfg!(feature = "train")
}

/// The learner of a run, on its thread.
pub struct Learning {
    over: Arc<AtomicBool>,
    /// Asks it to write its state now, and where to say what came of that.
    save: Sender<Sender<Result<(), StateError>>>,
    /// Another learner goes on from the state: this one must not write it any more.
    succeeded: Arc<AtomicBool>,
    learner: Mutex<Option<JoinHandle<Learner>>>,
}

/// A run that learns: what decides, what hears of everything for the learner, and the learner.
pub struct Begun {
    /// Decides.
    pub policy: Box<dyn Policy>,
    /// Is to hear what happens.
    pub ear: Ear,
    /// What goes on beside the run.
    pub learning: Learning,
}

/// What is to be learned about beside the case.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Limits of the scheduler.
    pub scheduler: scheduler::Options,
    /// How emulated devices depart from the plan.
    pub emulator: emulator::Config,
}

impl Conditions {
    /// Those of an app.
    ///
    /// # Errors
    /// A device file that cannot be read.
    pub fn of(app: &App) -> Result<Conditions, ConfigError> {
        Ok(Conditions { scheduler: app.scheduler, emulator: app.emulator_config()? })
    }
}

/// How often who looks on is shown a report.
const REPORT: Duration = Duration::from_millis(500);

/// The policy of a run that learns, and what goes on beside it. `policy` is `learned`, `learned:CHECKPOINT` or `learned:@RUNS`, where RUNS is
/// the length of the tournaments that are held beside the run. `told` gets a report twice a second.
///
/// # Errors
/// Another policy, a checkpoint or state that cannot be read, or a build without a learner.
pub fn begin(
    policy: &str,
    case: &Arc<Case>,
    conditions: &Conditions,
    options: &Options,
    mut told: impl FnMut(Report) + Send + 'static,
) -> Result<Begun, SessionError> {
    let (name, parameter) = match policy.split_once(':') {
        Some((name, parameter)) => (name, Some(parameter)),
        None => (policy, None),
    };
    if name != LEARNS {
        let problem = format!("only the policy `{LEARNS}` learns while it runs, got `{policy}`");
        return Err(SessionError::Online(problem));
    }
    let (weights, budget) = prepare(name, parameter)?;
    let state = match &options.state {
        Some(path) => load(path, case).or_else(|error| put_aside(path, options.renew, error))?,
        None => None,
    };
    let mut settings = options.settings.clone();
    settings.keep = options.state.clone().map(|path| (path, options.save_minutes));
    let from = state.as_ref().map_or(&weights, |s| &s.good);
    let trainer = trainer(from)?;
    // Before the run there is as much time as `learned` takes; beside it there is less.
    let arena = arena(budget.unwrap_or_default(), budget.unwrap_or(LIVE));
    let Conditions { scheduler, emulator } = conditions.clone();
    let subject = Subject { case: case.clone(), options: scheduler, emulator };
    let (actor, ear, learner) = start(subject, &weights, state, settings, trainer, arena);
    // What cannot be written is found out before the run.
    learner.save()?;
    told(learner.report());
    let over = Arc::new(AtomicBool::new(false));
    let (save, asked) = channel::<Sender<Result<(), StateError>>>();
    let succeeded = Arc::new(AtomicBool::new(false));
    let (mut next, silent) = (Instant::now(), succeeded.clone());
    let stepped = move |learner: &Learner| {
        asked.try_iter().for_each(|answer| drop(answer.send(learner.save())));
        if Instant::now() >= next && !silent.load(Ordering::Relaxed) {
            next = Instant::now() + REPORT;
            told(learner.report());
        }
    };
    let learner = Mutex::new(Some(learner.spawn(over.clone(), stepped)));
    let learning = Learning { over, save, succeeded, learner };
    Ok(Begun { policy: Box::new(actor), ear, learning })
}

/// Begins anew where that is allowed.
fn put_aside(path: &Path, renew: bool, error: StateError) -> Result<Option<State>, StateError> {
    if !renew || matches!(error, StateError::Io { .. }) {
        return Err(error);
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(".before");
    let failed = |source| StateError::Io { path: path.display().to_string(), source };
    std::fs::rename(path, &aside).map_err(failed)?;
    tracing::warn!("learning begins anew, the old state is {}: {error}", Path::new(&aside).display());
    Ok(None)
}

/// The policy that learns.
pub const LEARNS: &str = "learned";

#[cfg(feature = "train")]
fn trainer(weights: &Weights) -> Result<Box<dyn Trainer>, SessionError> {
    use cosched_agent::online::ppo::{Ppo, live};
    Ok(Box::new(Ppo::new(weights, live())))
}

#[cfg(not(feature = "train"))]
fn trainer(_: &Weights) -> Result<Box<dyn Trainer>, SessionError> {
    Err(SessionError::Online(NO_LEARNER.to_owned()))
}

fn gone() -> SessionError {
    SessionError::Online("the learner's thread panicked; decisions went on without it".into())
}

impl Learning {
    /// Writes the state while the run goes on. Waits for the learner, which may be at a tournament.
    ///
    /// # Errors
    /// When the state cannot be written or the learner panicked.
    pub fn save(&self) -> Result<(), SessionError> {
        let (answer, answered) = channel();
        self.save.send(answer).map_err(|_| gone())?;
        Ok(answered.recv().map_err(|_| gone())??)
    }

    /// From now on (or no longer) another learner has the state, and this one does not write it at its end.
    pub fn succeed(&self, succeeded: bool) {
        self.succeeded.store(succeeded, Ordering::Relaxed);
    }

    /// Ends the learner, keeps its state, and says what came of it.
    ///
    /// # Errors
    /// When the state cannot be written or the learner panicked.
    pub fn end(&self) -> Result<Report, SessionError> {
        self.over.store(true, Ordering::Relaxed);
        let learner = self.learner.lock().unwrap_or_else(PoisonError::into_inner).take();
        let learner = learner.ok_or_else(gone)?.join().map_err(|_| gone())?;
        if !self.succeeded.load(Ordering::Relaxed) {
            learner.save()?;
        }
        Ok(learner.report())
    }
}

impl Drop for Learning {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
