//! A session: the models of an app file deployed on the processors of this machine, to be profiled and run live.
//! It refuses to print; callers watch through callbacks and `tracing`.

mod planning;
mod processors;

pub use processors::{Opened, open_processors};

use crate::online::{self, Begun, Conditions};
use cosched_agent::online::learner::Report;
use cosched_agent::online::link::Ear;
use cosched_agent::online::state::StateError;
use cosched_env::case::Case;
use cosched_env::event::{Ended, Event, Launch};
use cosched_env::observation::Observation;
use cosched_env::recording::{Header, Recorder, RecordingError};
use cosched_env::scheduler::{ProtocolError, Scheduler};
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Observer, drive};
use cosched_executors::deploy::{Deployment, Model};
use cosched_executors::live::LiveWorld;
use cosched_executors::onnx::{self, LoadError};
use cosched_executors::processor::{self, ExecError, Processor};
use cosched_executors::samples;
use cosched_executors::segment::CutOptions;
use cosched_executors::zoo::{self, ZooError};
use cosched_experiments::app::{App, Dsp, Model as Source, Part, Remote, Storage};
use cosched_experiments::config::{ConfigError, suggestion};
use cosched_experiments::log::RunLog;
use cosched_policies::PolicyError;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Why a session cannot be opened, profiled or run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The app file or the plan.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A zoo model cannot be made.
    #[error(transparent)]
    Zoo(#[from] ZooError),
    /// A processor failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The policy cannot be made.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The recording cannot be written.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// A bug in a policy or a world.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The state of online learning cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// Online learning is not to be had.
    #[error("{0}")]
    Online(String),
    /// No processor is there.
    #[error("no processor is available: {0}")]
    NoProcessor(String),
    /// The app file has no models.
    #[error("{0}: expected at least one [[task]] with a [[task.variant]] to run live")]
    NoModel(String),
    /// The app cannot be served.
    #[error("{0}")]
    Unserved(String),
    /// The plan was made for something else.
    #[error(
        "{file}: the plan is not of this deployment: {problem}; bring it up to date with `cosched profile --update`"
    )]
    StalePlan {
        /// The plan's file.
        file: String,
        /// What differs.
        problem: String,
    },
}

/// How a session is opened.
#[derive(Clone, Debug, Default)]
pub struct SessionOptions {
    /// How processors are opened.
    pub processors: processor::Options,
}

/// How a live run goes.
#[derive(Default)]
pub struct RunOptions {
    /// Seed of the arrivals; that of the app file when `None`.
    pub seed: Option<u64>,
    /// Length in seconds; that of the app file when `None`.
    pub seconds: Option<f64>,
    /// Where the run is recorded.
    pub record: Option<Box<dyn Write>>,
    /// Becomes true when the run shall end early: no new requests, those that are there still end.
    pub stop: Arc<AtomicBool>,
    /// Learn while it runs; only for the policy `learned`.
    pub online: Option<online::Options>,
}

/// What a live run gives.
pub struct LiveRun {
    /// Everything that happened.
    pub log: RunLog,
    /// What each decision took, in nanoseconds.
    pub decision_ns: Vec<u64>,
    /// What came of online learning.
    pub online: Option<Report>,
}

/// Progress: (done, of, what is being done).
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize, &str);

/// Models on processors. See the module's text.
pub struct Session {
    /// What is deployed.
    pub deployment: Arc<Deployment>,
    /// Processors that were asked for and are not here, with the reason.
    pub absent: Vec<(String, String)>,
    /// Parts of the CPU and remote servers among the processors, how GPUs store numbers, and how the DSP computes.
    parts: Vec<Part>,
    remotes: Vec<Remote>,
    storage: BTreeMap<String, Storage>,
    dsp: Dsp,
}

/// Samples of a model that are kept: what every segment reads for each of them stays in memory.
const MOST_SAMPLES: usize = 64;

/// A deployment with as many slots as the app says.
fn with_slots(app: &App, mut deployment: Deployment) -> Arc<Deployment> {
    let slots = |p: &Arc<dyn Processor>| app.slots.get(p.name()).copied().unwrap_or(1);
    deployment.slots = deployment.processors.iter().map(slots).collect();
    Arc::new(deployment)
}

fn load_models(app: &App) -> Result<Vec<Model>, SessionError> {
    let mut models = Vec::new();
    for (t, task) in app.tasks.iter().enumerate() {
        for (v, variant) in task.variants.iter().enumerate() {
            let graph = match app.model(variant) {
                Source::Zoo(name) => {
                    let known = zoo::TABLE.iter().map(|row| row.name);
                    if !known.clone().any(|k| k == name) {
                        let hint = suggestion(&name, known);
                        let problem =
                            format!("task[{t}].variant[{v}].model: the zoo has no model `{name}`{hint}");
                        return Err(ConfigError::new(&app.file, problem).into());
                    }
                    let bytes = zoo::bytes(&name, &zoo::Options::default())?;
                    onnx::from_bytes(&name, &bytes, &BTreeMap::new())?
                }
                Source::File(path) => onnx::load(&path, &BTreeMap::new())?,
            };
            let samples = match &variant.samples {
                None => Vec::new(),
                Some(path) => samples::read(&app.resolve(path), &graph, MOST_SAMPLES).map_err(|e| {
                    ConfigError::new(&app.file, format!("task[{t}].variant[{v}].samples: {e}"))
                })?,
            };
            let (name, task) = (variant.plan_name(), task.name.clone());
            models.push(Model { name, task, accuracy: variant.accuracy, graph, samples: Arc::new(samples) });
        }
    }
    if models.is_empty() {
        return Err(SessionError::NoModel(app.file.display().to_string()));
    }
    Ok(models)
}

impl Session {
    /// Opens processors, loads the models, cuts and prepares them.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn open(
        app: &App,
        options: &SessionOptions,
        progress: Progress<'_>,
    ) -> Result<Session, SessionError> {
        let models = load_models(app)?;
        let (processors, absent) = open_processors(app, &options.processors)?;
        let cut = CutOptions { max_segments: app.segments.max, min_share: app.segments.min_share };
        let deployment = with_slots(app, Deployment::new(models, processors, &cut, progress)?);
        let (parts, remotes) = (app.parts.clone(), app.remotes.clone());
        let (storage, dsp) = (app.storage.clone(), app.dsp.clone());
        Ok(Session { deployment, absent, parts, remotes, storage, dsp })
    }

    /// A session for an app that has changed: processors that are open and models that are the same are taken over.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn reopen(&self, app: &App, progress: Progress<'_>) -> Result<Session, SessionError> {
        let models = load_models(app)?;
        let here = |name: &&str| self.deployment.processors.iter().any(|p| p.name() == *name);
        let gone = |name: &&str| self.absent.iter().any(|(absent, _)| absent == name);
        let names = processors::chosen(app)?;
        let unchanged = self.remotes == app.remotes
            && self.parts == app.parts
            && self.storage == app.storage
            && self.dsp == app.dsp
            && names.iter().all(|n| here(n) || gone(n));
        let (processors, absent) = if unchanged {
            let by_name = |n: &&str| self.deployment.processors.iter().find(|p| p.name() == *n).cloned();
            (names.iter().filter_map(by_name).collect(), self.absent.clone())
        } else {
            open_processors(app, &processor::Options::default())?
        };
        let cut = CutOptions { max_segments: app.segments.max, min_share: app.segments.min_share };
        let deployment = Deployment::again(Some(&self.deployment), models, processors, &cut, progress)?;
        let (parts, remotes) = (app.parts.clone(), app.remotes.clone());
        let (storage, dsp) = (app.storage.clone(), app.dsp.clone());
        Ok(Session { deployment: with_slots(app, deployment), absent, parts, remotes, storage, dsp })
    }

    /// Runs the app's streams live under a policy until every request has ended.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn run(
        &self,
        app: &App,
        case: Arc<Case>,
        policy: &str,
        options: RunOptions,
    ) -> Result<LiveRun, SessionError> {
        let (mut decider, ear, learning) = match &options.online {
            None => (cosched_policies::make(policy, &case)?, None, None),
            Some(online) => {
                let conditions = Conditions::of(app)?;
                let Begun { policy, ear, learning } =
                    online::begin(policy, &case, &conditions, online, |_| {})?;
                (policy, Some(ear), Some(learning))
            }
        };
        let seed = options.seed.unwrap_or(app.seed);
        let horizon = Time::ZERO + Span::from_ms(options.seconds.unwrap_or(app.seconds) * 1e3);
        let mut scheduler = Scheduler::new(case.clone(), app.scheduler);
        let (mut world, submitter) =
            LiveWorld::new(self.deployment.clone(), case.clone(), seed, horizon, options.stop)?;
        // Only streams send requests here.
        drop(submitter);
        let mut log = Heard { observer: RunLog::new(policy), ear };
        let end = match options.record {
            None => drive(&mut scheduler, &mut world, decider.as_mut(), &mut log)?,
            Some(sink) => {
                let header = Header::new(policy, &case, app.scheduler);
                let mut recorder = Recorder::new(world, sink, &header)?;
                let end = drive(&mut scheduler, &mut recorder, decider.as_mut(), &mut log)?;
                world = recorder.finish()?;
                end
            }
        };
        let online = learning.map(|l| l.end()).transpose()?;
        let decision_ns = std::mem::take(&mut world.decision_ns);
        Ok(LiveRun { log: log.observer.finish(end), decision_ns, online })
    }
}

/// What observes a run, and what hears of it for a learner.
pub(crate) struct Heard<O> {
    pub observer: O,
    pub ear: Option<Ear>,
}

impl<O: Observer> Observer for Heard<O> {
    fn decided(&mut self, observation: &Observation<'_>, decision: Decision) {
        self.observer.decided(observation, decision);
    }

    fn launched(&mut self, now: Time, launch: &Launch) {
        self.observer.launched(now, launch);
        self.ear.iter_mut().for_each(|e| e.launched(now, launch));
    }

    fn event(&mut self, now: Time, event: &Event) {
        self.observer.event(now, event);
        self.ear.iter_mut().for_each(|e| e.event(now, event));
    }

    fn ended(&mut self, ended: &Ended) {
        self.observer.ended(ended);
        self.ear.iter_mut().for_each(|e| e.ended(ended));
    }
}
