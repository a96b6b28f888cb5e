//! One scheduler at work: its thread, its world, and the way of a request into it and back, the same for all protocols: a place in the
//! queue of its model, the wait for its end, the withdrawal when its caller goes away. An engine goes on until the last request that holds
//! it has ended, so another one can take its place at any moment. It refuses to block anybody: callers wait without a thread, and the
//! scheduler hands over ends without waiting for callers.

use super::model::{Model, VERSION, models};
use super::refusal::{Kind, Refusal};
use super::rolling::{Rolling, Watcher};
use super::stats::{Slots, Spent, Stats, reason};
use super::watched::{Guarded, Troubled, Watched};
use crate::online::{self, Begun, Conditions, Learning};
use crate::session::{Heard, SessionError};
use cosched_agent::online::link::Ear;
use cosched_env::case::Case;
use cosched_env::event::{Outcome, RequestId};
use cosched_env::scheduler::{self, Scheduler};
use cosched_env::time::Time;
use cosched_env::world::{Policy, drive};
use cosched_executors::deploy::Deployment;
use cosched_executors::inject::{POLICY, Striker};
use cosched_executors::live::{LiveWorld, Trouble};
use cosched_executors::submit::{Ask, Refused, Reply, Submitter};
use cosched_executors::tensor::Tensor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// The policy that decides where the chosen one panics.
const FALLBACK: &str = "edf";

/// What an engine serves, and how.
#[derive(Clone)]
pub struct Setup {
    /// Models on processors.
    pub deployment: Arc<Deployment>,
    /// What is scheduled, of an app made by [`serving`](super::model::serving).
    pub case: Arc<Case>,
    /// Limits of the scheduler.
    pub scheduler: scheduler::Options,
    /// The policy, e.g. `learned`.
    pub policy: String,
    /// How it learns from what it serves, if it does.
    pub online: Option<(online::Options, Conditions)>,
}

/// What an engine may not exceed.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most requests of a model that have not ended.
    pub queue: usize,
    /// Longest time that a decision may take before the fallback decides instead.
    pub decision: Duration,
    /// When launches count as hanging, and faults on purpose.
    pub trouble: Trouble,
}

/// What is known of an engine, also when it takes no more requests.
pub struct Catalog {
    /// What is served, in the order of the case's tasks.
    pub models: Vec<Model>,
    /// What is scheduled.
    pub case: Arc<Case>,
    /// The policy's name.
    pub policy: String,
    /// Where its models and processors are counted.
    pub slots: Slots,
    /// What happened in the last seconds.
    pub rolling: Arc<Mutex<Rolling>>,
    /// Whether the scheduler's thread is there.
    alive: Arc<AtomicBool>,
}

impl Catalog {
    /// Whether the scheduler is there.
    pub fn live(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// The model of that name and version (empty: any).
    ///
    /// # Errors
    /// When there is none.
    pub fn model(&self, name: &str, version: &str) -> Result<usize, Refusal> {
        let index = self.models.iter().position(|m| m.name == name);
        let index = index.ok_or_else(|| {
            let known: Vec<_> = self.models.iter().map(|m| m.name.as_str()).collect();
            let (name, known) = (super::request::shorten(name), known.join(", "));
            Refusal::unknown(format!("Request for unknown model: {name} is not found; models: {known}"))
        })?;
        if version.is_empty() || version == VERSION {
            return Ok(index);
        }
        let version = super::request::shorten(version);
        Err(Refusal::unknown(format!(
            "Request for unknown model: `{name}` has no version {version}, only {VERSION}"
        )))
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// In the order of the model's outputs.
    pub outputs: Vec<Arc<Tensor>>,
    /// Name of the variant that served it.
    pub variant: String,
    /// Names of the processors that it ran on, in order, with commas.
    pub processors: String,
    /// Microseconds without a launch.
    pub queue_us: u64,
    /// Microseconds of its launches.
    pub compute_us: u64,
    /// Whether it came after its deadline.
    pub late: bool,
}

/// See the module's text.
pub struct Engine {
    /// What it serves.
    pub catalog: Arc<Catalog>,
    stats: Arc<Stats>,
    places: Vec<Arc<Semaphore>>,
    queue: usize,
    submitter: Submitter,
    /// What learns beside it.
    pub learning: Option<Arc<Learning>>,
    /// True when nobody waits any longer.
    given_up: watch::Receiver<bool>,
}

/// Says that the scheduler's thread has ended, however it did.
struct Alive(Arc<AtomicBool>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Withdraws a request whose caller stops waiting.
struct Waiting {
    submitter: Submitter,
    request: RequestId,
    withdrawn: Arc<AtomicBool>,
    over: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.over {
            self.withdrawn.store(true, Ordering::Relaxed);
            self.submitter.withdraw(self.request);
        }
    }
}

/// A place in the queue of a model; free again when the request has ended.
struct Place {
    stats: Arc<Stats>,
    slot: usize,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stats.pending(self.slot, false);
    }
}

impl Engine {
    /// Starts the scheduler's thread. It ends by itself when the engine is dropped and the last request has ended.
    ///
    /// # Errors
    /// When the policy cannot be made, a processor cannot run what was prepared, or a task cannot be served.
    pub fn start(
        setup: &Setup,
        stats: &Arc<Stats>,
        limits: &Limits,
        given_up: watch::Receiver<bool>,
    ) -> Result<(Engine, JoinHandle<()>), SessionError> {
        let Setup { deployment, case, policy, .. } = setup;
        let models = models(deployment, case).map_err(SessionError::Unserved)?;
        let slots = stats.slots(case);
        let (mut chosen, ear, learning) = decider(setup, stats)?;
        if limits.trouble.injections.iter().any(|i| i.what == POLICY) {
            chosen = Box::new(Troubled(chosen, Striker::new(&limits.trouble.injections, POLICY)));
        }
        let fallback = cosched_policies::make(FALLBACK, case)?;
        let never = Arc::new(AtomicBool::new(false));
        // Streams send nothing: time zero is their horizon.
        let (mut world, submitter) =
            LiveWorld::with(deployment.clone(), case.clone(), 0, Time::ZERO, never, &limits.trouble)?;
        world.keep_decision_ns = false;
        // Now, and not before the processors were warmed up: its clock is to be that of the world.
        let rolling = Arc::new(Mutex::new(Rolling::new(policy)));
        let mut decider = Guarded::new(chosen, fallback, limits.decision, stats.clone(), rolling.clone());
        let mut world = Watched::new(world, stats.clone(), slots.processors.clone());
        let mut scheduler = Scheduler::new(case.clone(), setup.scheduler);
        let alive = Arc::new(AtomicBool::new(true));
        let guard = Alive(alive.clone());
        let mut watcher = Heard { observer: Watcher(rolling.clone()), ear };
        let learns = learning.clone();
        let run = move || {
            let _guard = guard;
            if let Err(error) = drive(&mut scheduler, &mut world, &mut decider, &mut watcher) {
                tracing::error!("the scheduler ended: {error}");
            }
            // The state is kept before the thread ends, so that whoever waits for it finds the file whole.
            if let Some(Err(error)) = learns.map(|l| l.end()) {
                tracing::error!("what was learned is lost: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("scheduler".into()).spawn(run);
        let thread =
            thread.map_err(|e| SessionError::Unserved(format!("no thread for the scheduler: {e}")))?;
        let queue = limits.queue;
        let places = models.iter().map(|_| Arc::new(Semaphore::new(queue))).collect();
        let (case, policy) = (case.clone(), policy.clone());
        let catalog = Arc::new(Catalog { models, case, policy, slots, rolling, alive });
        let stats = stats.clone();
        Ok((Engine { catalog, stats, places, queue, submitter, learning, given_up }, thread))
    }

    fn place(&self, model: usize) -> Result<Place, Refusal> {
        let slot = self.catalog.slots.models[model];
        let Ok(permit) = self.places[model].clone().try_acquire_owned() else {
            self.stats.failed(slot, "REJECTED", 0);
            let (name, queue) = (&self.catalog.models[model].name, self.queue);
            return Err(Refusal::unavailable(format!(
                "the queue of model `{name}` is full: {queue} requests have not ended"
            )));
        };
        self.stats.pending(slot, true);
        Ok(Place { stats: self.stats.clone(), slot, _permit: permit })
    }

    /// Asks the scheduler and waits for the end. Dropping the future withdraws the request. `input` is what its tensors took to read.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn infer(&self, model: usize, ask: Ask, input: Duration) -> Result<Answer, Refusal> {
        let place = self.place(model)?;
        let (tell, told) = oneshot::channel();
        let (stats, catalog, input) = (self.stats.clone(), self.catalog.clone(), input.as_nanos() as u64);
        let withdrawn = Arc::new(AtomicBool::new(false));
        let gone = withdrawn.clone();
        // Runs on the scheduler's thread. Counted there: a caller that went away ends too.
        let reply = Box::new(move |reply: Reply| {
            count(&stats, &catalog, model, &reply, input, gone.load(Ordering::Relaxed));
            drop(place);
            drop(tell.send(reply));
        });
        let submitter = self.submitter.clone();
        let request = submitter.ask(ask, reply).map_err(|refused| match refused {
            Refused::Full => Refusal::unavailable(refused.to_string()),
            Refused::Gone => Refusal::unavailable("the scheduler has ended; see the server's log"),
        })?;
        let mut waiting = Waiting { submitter, request, withdrawn, over: false };
        let mut given_up = self.given_up.clone();
        let reply = tokio::select! {
            reply = told => reply,
            _ = given_up.wait_for(|&over| over) => return Err(super::core::closing()),
        };
        waiting.over = true;
        match reply {
            Ok(reply) => answer(&self.catalog.case, reply),
            Err(_) => {
                Err(Refusal::unavailable("the scheduler ended before the request did; see the server's log"))
            }
        }
    }
}

/// The policy, and what learns beside it.
type Decider = (Box<dyn Policy>, Option<Ear>, Option<Arc<Learning>>);

fn decider(setup: &Setup, stats: &Arc<Stats>) -> Result<Decider, SessionError> {
    let Setup { case, policy, online, .. } = setup;
    let Some((options, conditions)) = online else {
        stats.lock().online = None;
        return Ok((cosched_policies::make(policy, case)?, None, None));
    };
    let told = stats.clone();
    let told = move |report| told.lock().online = Some(report);
    let Begun { policy, ear, learning } = online::begin(policy, case, conditions, options, told)?;
    Ok((policy, Some(ear), Some(Arc::new(learning))))
}

fn answer(case: &Case, reply: Reply) -> Result<Answer, Refusal> {
    let Reply { ended, outputs, processors, compute } = reply;
    let (ms, total) = (ended.latency().ms(), ended.latency().0);
    let (outputs, late) = match (ended.outcome, outputs) {
        (Outcome::Answered, Some(outputs)) => (outputs, false),
        (Outcome::Late, Some(outputs)) => (outputs, true),
        (Outcome::Answered | Outcome::Late, None) => {
            return Err(Refusal::new(Kind::Failed, "the answer was lost; see the server's log"));
        }
        (Outcome::Dropped, _) => {
            return Err(Refusal::unavailable(format!(
                "dropped by the policy after {ms:.3} ms: the deadline cannot be met"
            )));
        }
        (Outcome::Expired, _) => {
            return Err(Refusal::new(Kind::Expired, format!("expired after {ms:.3} ms in the queue")));
        }
        (Outcome::Replaced, _) => {
            return Err(Refusal::unavailable(format!(
                "replaced after {ms:.3} ms by a newer request of its stream"
            )));
        }
        (Outcome::Failed(reason), _) => return Err(Refusal::new(Kind::Failed, reason)),
    };
    let names: Vec<_> = processors.iter().map(|&p| case.processor(p).name.as_str()).collect();
    Ok(Answer {
        outputs,
        variant: ended.variant.map_or_else(String::new, |v| case.variant(v).name.clone()),
        processors: names.join(","),
        queue_us: total.saturating_sub(compute.0) / 1000,
        compute_us: compute.0 / 1000,
        late,
    })
}

fn count(stats: &Stats, catalog: &Catalog, model: usize, reply: &Reply, input: u64, withdrawn: bool) {
    let (ended, total, slot) = (&reply.ended, reply.ended.latency().0, catalog.slots.models[model]);
    match (&ended.outcome, ended.variant) {
        (Outcome::Answered | Outcome::Late, Some(v)) => {
            let late = ended.outcome == Outcome::Late;
            let spent = Spent { total, compute: reply.compute.0, input };
            stats.answered(slot, &catalog.case.variant(v).name, late, spent);
        }
        (Outcome::Expired, _) if withdrawn => stats.failed(slot, "CANCELED", total),
        (outcome, _) => stats.failed(slot, reason(outcome), total),
    }
}
