//! Online learning beside a live run: an actor to decide with, an ear to hear with, and a learner on a thread of its own. It refuses
//! policies that do not learn, and builds without a learner say so.

use crate::session::SessionError;
use cosched_agent::network::Weights;
use cosched_agent::online::Trainer;
use cosched_agent::online::learner::{Learner, Report, Settings, Subject, start};
use cosched_agent::online::link::Ear;
use cosched_agent::online::state::load;
use cosched_env::case::Case;
use cosched_env::world::Policy;
use cosched_experiments::app::App;
use cosched_policies::learned::prepare;
use cosched_policies::online::{LIVE, arena};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// How a live run learns.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where what was learned is kept; it goes on from there when the file is there.
    pub state: Option<PathBuf>,
    /// Minutes after which it is written again; it is also written at the end.
    pub save_minutes: f64,
    /// Everything else.
    pub settings: Settings,
}

impl Default for Options {
    fn default() -> Options {
        Options { state: None, save_minutes: 5.0, settings: Settings::default() }
    }
}

/// What a build without a learner says.
pub const NO_LEARNER: &str =
    "--online: this build has no learner; build it with the feature `train` (it is on by default)";

/// Whether this build can learn.
pub fn can_learn() -> bool {
    cfg!(feature = "train")
}

/// What goes on beside a run.
pub struct Learning {
    /// Hears what happens, for the learner.
    pub ear: Ear,
    over: Arc<AtomicBool>,
    learner: Option<JoinHandle<Learner>>,
}

/// The policy of a run that learns, and what goes on beside it. `policy` is `learned`, `learned:CHECKPOINT` or `learned:@RUNS`, where RUNS is
/// the length of the tournaments that are held beside the run.
///
/// # Errors
/// Another policy, a checkpoint or state that cannot be read, or a build without a learner.
pub fn begin(
    policy: &str,
    case: &Arc<Case>,
    app: &App,
    options: &Options,
) -> Result<(Box<dyn Policy>, Learning), SessionError> {
    let (name, parameter) = match policy.split_once(':') {
        Some((name, parameter)) => (name, Some(parameter)),
        None => (policy, None),
    };
    if name != "learned" {
        let problem = format!("only the policy `learned` learns while it runs, got `{policy}`");
        return Err(SessionError::Online(problem));
    }
    let (weights, budget) = prepare(name, parameter)?;
    let state = match &options.state {
        Some(path) => load(path, case)?,
        None => None,
    };
    let mut settings = options.settings.clone();
    settings.keep = options.state.clone().map(|path| (path, options.save_minutes));
    let from = state.as_ref().map_or(&weights, |s| &s.good);
    let trainer = trainer(from)?;
    let subject = Subject { case: case.clone(), options: app.scheduler, emulator: app.emulator_config()? };
    let (actor, ear, learner) =
        start(subject, &weights, state, settings, trainer, arena(budget.unwrap_or(LIVE)));
    // What cannot be written is found out before the run.
    learner.save()?;
    let over = Arc::new(AtomicBool::new(false));
    let learner = Some(learner.spawn(over.clone()));
    Ok((Box::new(actor), Learning { ear, over, learner }))
}

#[cfg(feature = "train")]
fn trainer(weights: &Weights) -> Result<Box<dyn Trainer>, SessionError> {
    use cosched_agent::online::ppo::{Ppo, live};
    Ok(Box::new(Ppo::new(weights, live())))
}

#[cfg(not(feature = "train"))]
fn trainer(_: &Weights) -> Result<Box<dyn Trainer>, SessionError> {
    Err(SessionError::Online(NO_LEARNER.to_owned()))
}

impl Learning {
    /// Ends the learner, keeps its state, and says what came of it.
    ///
    /// # Errors
    /// When the state cannot be written or the learner panicked.
    pub fn end(mut self) -> Result<Report, SessionError> {
        self.over.store(true, Ordering::Relaxed);
        let gone =
            || SessionError::Online("the learner's thread panicked; decisions went on without it".into());
        let learner = self.learner.take().ok_or_else(gone)?.join().map_err(|_| gone())?;
        learner.save()?;
        Ok(learner.report())
    }
}

impl Drop for Learning {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
