//! The scheduler's thread, and the way of a request into it and back, the same for all protocols: a place in the queue of its model, the
//! wait for its end, the withdrawal when its caller goes away. It refuses to block anybody: callers wait without a thread, and the
//! scheduler hands over ends without waiting for callers.

use super::model::{Model, VERSION, models};
use super::refusal::{Kind, Refusal};
use super::stats::{Spent, Stats, reason};
use super::watched::{Guarded, Watched};
use crate::session::SessionError;
use cosched_env::case::Case;
use cosched_env::event::{Outcome, RequestId};
use cosched_env::scheduler::{self, Scheduler};
use cosched_env::time::Time;
use cosched_env::world::drive;
use cosched_executors::deploy::Deployment;
use cosched_executors::live::LiveWorld;
use cosched_executors::submit::{Ask, Refused, Reply, Submitter};
use cosched_executors::tensor::Tensor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// The policy that decides where the chosen one panics.
const FALLBACK: &str = "edf";

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
pub struct Core {
    /// What is served, in the order of the case's tasks.
    pub models: Vec<Model>,
    /// What is counted.
    pub stats: Arc<Stats>,
    case: Arc<Case>,
    places: Vec<Arc<Semaphore>>,
    queue: usize,
    /// Gone as soon as no more requests are taken.
    submitter: Mutex<Option<Submitter>>,
    /// Whether the scheduler's thread is there.
    alive: Arc<AtomicBool>,
    /// True when nobody waits any longer.
    given_up: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
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
    model: usize,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stats.pending(self.model, false);
    }
}

impl Core {
    /// Starts the scheduler's thread. Each model takes `queue` requests that have not ended, at most.
    ///
    /// # Errors
    /// When the policy cannot be made, a processor cannot run what was prepared, or a task cannot be served.
    pub fn start(
        deployment: &Arc<Deployment>,
        case: Arc<Case>,
        options: scheduler::Options,
        policy: &str,
        queue: usize,
    ) -> Result<Core, SessionError> {
        let models = models(deployment, &case).map_err(SessionError::Unserved)?;
        let stats = Arc::new(Stats::new(&case));
        let policy = cosched_policies::make(policy, &case)?;
        let fallback = cosched_policies::make(FALLBACK, &case)?;
        let mut policy = Guarded::new(policy, fallback, stats.clone());
        let never = Arc::new(AtomicBool::new(false));
        // Streams send nothing: time zero is their horizon.
        let (mut world, submitter) = LiveWorld::new(deployment.clone(), case.clone(), 0, Time::ZERO, never)?;
        world.keep_decision_ns = false;
        let mut world = Watched::new(world, stats.clone());
        let mut scheduler = Scheduler::new(case.clone(), options);
        let alive = Arc::new(AtomicBool::new(true));
        let guard = Alive(alive.clone());
        let run = move || {
            let _guard = guard;
            if let Err(error) = drive(&mut scheduler, &mut world, &mut policy, &mut ()) {
                tracing::error!("the scheduler ended: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("scheduler".into()).spawn(run);
        let thread =
            thread.map_err(|e| SessionError::Unserved(format!("no thread for the scheduler: {e}")))?;
        Ok(Core {
            places: models.iter().map(|_| Arc::new(Semaphore::new(queue))).collect(),
            models,
            stats,
            case,
            queue,
            submitter: Mutex::new(Some(submitter)),
            alive,
            given_up: watch::channel(false).0,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// What is scheduled.
    pub fn case(&self) -> &Case {
        &self.case
    }

    /// Whether the scheduler is there.
    pub fn live(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Whether requests are taken.
    pub fn ready(&self) -> bool {
        self.live() && self.submitter.lock().unwrap_or_else(PoisonError::into_inner).is_some()
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

    fn place(&self, model: usize) -> Result<Place, Refusal> {
        let Ok(permit) = self.places[model].clone().try_acquire_owned() else {
            self.stats.failed(model, "REJECTED", 0);
            let (name, queue) = (&self.models[model].name, self.queue);
            return Err(Refusal::unavailable(format!(
                "the queue of model `{name}` is full: {queue} requests have not ended"
            )));
        };
        self.stats.pending(model, true);
        Ok(Place { stats: self.stats.clone(), model, _permit: permit })
    }

    /// Asks the scheduler and waits for the end. Dropping the future withdraws the request. `input` is what its tensors took to read.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn infer(&self, model: usize, ask: Ask, input: Duration) -> Result<Answer, Refusal> {
        let closing = || Refusal::unavailable("the server is shutting down");
        let submitter =
            self.submitter.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closing)?;
        let place = self.place(model)?;
        let (tell, told) = oneshot::channel();
        let (stats, case, input) = (self.stats.clone(), self.case.clone(), input.as_nanos() as u64);
        let withdrawn = Arc::new(AtomicBool::new(false));
        let gone = withdrawn.clone();
        // Runs on the scheduler's thread. Counted there: a caller that went away ends too.
        let reply = Box::new(move |reply: Reply| {
            count(&stats, &case, model, &reply, input, gone.load(Ordering::Relaxed));
            drop(place);
            drop(tell.send(reply));
        });
        let request = submitter.ask(ask, reply).map_err(|refused| match refused {
            Refused::Full => Refusal::unavailable(refused.to_string()),
            Refused::Gone => Refusal::unavailable("the scheduler has ended; see the server's log"),
        })?;
        let mut waiting = Waiting { submitter, request, withdrawn, over: false };
        let mut given_up = self.given_up.subscribe();
        let reply = tokio::select! {
            reply = told => reply,
            _ = given_up.wait_for(|&over| over) => return Err(closing()),
        };
        waiting.over = true;
        match reply {
            Ok(reply) => self.answer(reply),
            Err(_) => {
                Err(Refusal::unavailable("the scheduler ended before the request did; see the server's log"))
            }
        }
    }

    fn answer(&self, reply: Reply) -> Result<Answer, Refusal> {
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
        let names: Vec<_> = processors.iter().map(|&p| self.case.processor(p).name.as_str()).collect();
        Ok(Answer {
            outputs,
            variant: ended.variant.map_or_else(String::new, |v| self.case.variant(v).name.clone()),
            processors: names.join(","),
            queue_us: total.saturating_sub(compute.0) / 1000,
            compute_us: compute.0 / 1000,
            late,
        })
    }

    /// Takes no more requests; those that are there still end.
    pub fn close(&self) {
        drop(self.submitter.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whoever still waits is told that the server is shutting down; what they wait for is withdrawn.
    pub fn give_up(&self) {
        self.given_up.send_replace(true);
    }

    /// Waits until the last request has ended, after [`Core::close`]. Blocks.
    pub fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the scheduler's thread panicked");
        }
    }
}

fn count(stats: &Stats, case: &Case, model: usize, reply: &Reply, input: u64, withdrawn: bool) {
    let (ended, total) = (&reply.ended, reply.ended.latency().0);
    match (&ended.outcome, ended.variant) {
        (Outcome::Answered | Outcome::Late, Some(v)) => {
            let late = ended.outcome == Outcome::Late;
            let spent = Spent { total, compute: reply.compute.0, input };
            stats.answered(model, &case.variant(v).name, late, spent);
        }
        (Outcome::Expired, _) if withdrawn => stats.failed(model, "CANCELED", total),
        (outcome, _) => stats.failed(model, reason(outcome), total),
    }
}
