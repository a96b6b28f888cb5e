//! The live world: real processors on real threads, the system's clock, requests from streams and from callers.
//! Every launch ends in one completion, whatever the driver does: errors, panics, dead and hanging processors are outcomes.
//! It refuses to decide anything.

mod crew;
mod launches;

use crate::affinity::wake_on_time;
use crate::chain::Values;
use crate::deploy::Deployment;
use crate::inject::Injection;
use crate::processor::ExecError;
use crate::submit::{self, Heard, Message, OnReply, Reply, Submission, Submitter};
use crate::tensor::Tensor;
use crate::worker::{Input, Job, Report, Said};
use cosched_env::case::{Case, ProcessorId};
use cosched_env::event::{Completion, Ended, Event, Launch, Outcome, RequestId};
use cosched_env::streams::Arrivals;
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, World};
use crew::Crew;
use crossbeam::channel::{Receiver, after, at, never, select};
use launches::Launches;
pub use launches::TIMES;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What is kept for a request that has not ended.
#[derive(Default)]
struct Kept {
    /// Where it stands after its last good launch; a failed launch is tried again from here.
    values: Option<Values>,
    inputs: Option<Vec<Arc<Tensor>>>,
    reply: Option<OnReply>,
    /// Processors of its good launches, in order, and how long they took together.
    processors: Vec<ProcessorId>,
    compute: Span,
}

/// See the module's text.
pub struct LiveWorld {
    deployment: Arc<Deployment>,
    case: Arc<Case>,
    start: Instant,
    arrivals: Arrivals,
    /// Inputs of each variant for requests of streams.
    samples: Vec<Vec<Vec<Arc<Tensor>>>>,
    crew: Crew,
    submissions: Receiver<Message>,
    unheard: Arc<AtomicUsize>,
    /// Whether the thread that waits here was told to wake on time.
    punctual: bool,
    /// Whether there is a submitter yet.
    open: bool,
    kept: BTreeMap<RequestId, Kept>,
    launches: Launches,
    stop: Arc<AtomicBool>,
    /// Events that did not come through a channel.
    late: VecDeque<Event>,
    deciding: Option<Instant>,
    /// What each decision took, in nanoseconds.
    pub decision_ns: Vec<u64>,
    /// Whether `decision_ns` is filled: not where the world goes on for ever. It is at first.
    pub keep_decision_ns: bool,
}

/// Seconds after which a launch counts as hanging, unless somebody says otherwise.
pub const HANG_SECONDS: u16 = 10;

/// How a live world meets trouble. The default: launches hang after [`HANG_SECONDS`], and it makes no trouble itself.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// A launch that takes longer than this, and longer than [`TIMES`] what the plan says, is given up; its processor is down until it
    /// comes back. `None`: it is waited for as long as it takes.
    pub patience: Option<Duration>,
    /// Faults on purpose.
    pub injections: Vec<Injection>,
}

impl Default for Trouble {
    fn default() -> Trouble {
        Trouble { patience: Some(Duration::from_secs(HANG_SECONDS.into())), injections: Vec::new() }
    }
}

/// How often a waiting world looks whether it was told to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

impl LiveWorld {
    /// Starts a worker per slot of each processor, warms up, and only then starts the clock. Streams send requests until `horizon`
    /// with the arrivals that the emulator gives for the same seed. When `stop` becomes true no further request is made,
    /// and the run goes on until all have ended.
    ///
    /// # Errors
    /// When a processor cannot run what was prepared on it.
    pub fn new(
        deployment: Arc<Deployment>,
        case: Arc<Case>,
        seed: u64,
        horizon: Time,
        stop: Arc<AtomicBool>,
    ) -> Result<(LiveWorld, Submitter), ExecError> {
        LiveWorld::with(deployment, case, seed, horizon, stop, &Trouble::default())
    }

    /// As [`LiveWorld::new`], with a way to meet trouble.
    ///
    /// # Errors
    /// As [`LiveWorld::new`].
    pub fn with(
        deployment: Arc<Deployment>,
        case: Arc<Case>,
        seed: u64,
        horizon: Time,
        stop: Arc<AtomicBool>,
        trouble: &Trouble,
    ) -> Result<(LiveWorld, Submitter), ExecError> {
        let crew = Crew::new(&deployment, &trouble.injections)?;
        let (submitter, Heard { messages: submissions, unheard }) = submit::channel();
        let shared = |sample: &Vec<Tensor>| sample.iter().cloned().map(Arc::new).collect::<Vec<_>>();
        let samples = deployment.variants.iter().map(|v| v.samples.iter().map(shared).collect()).collect();
        let world = LiveWorld {
            arrivals: Arrivals::new(case.clone(), seed, horizon),
            deployment,
            case,
            start: Instant::now(),
            samples,
            crew,
            submissions,
            unheard,
            punctual: false,
            open: true,
            kept: BTreeMap::new(),
            launches: Launches::new(trouble.patience),
            stop,
            late: VecDeque::new(),
            deciding: None,
            decision_ns: Vec::new(),
            keep_decision_ns: true,
        };
        Ok((world, submitter))
    }

    fn time(&self, instant: Instant) -> Time {
        Time(instant.saturating_duration_since(self.start).as_nanos() as u64)
    }

    fn now(&self) -> Time {
        self.time(Instant::now())
    }

    /// What a worker says, as an event, unless it was given up on.
    fn hear(&mut self, said: Said) -> Option<Event> {
        Some(match said {
            Said::Health { processor, up } => self.health(processor, up),
            Said::Done(report) => match self.launches.back(report.launch.id) {
                None => self.completed(report),
                // One that died says itself when it is back.
                Some((processor, alone)) => {
                    let back = alone && !matches!(report.result, Err(ExecError::Died { .. }));
                    back.then(|| self.health(processor, true))?
                }
            },
        })
    }

    fn health(&self, processor: usize, up: bool) -> Event {
        let name = self.deployment.processors[processor].name();
        tracing::warn!("processor {name} is {}", if up { "back" } else { "down" });
        Event::Health { processor: ProcessorId(processor as u16), up }
    }

    /// Gives up a launch that hangs: its processor goes down, and the launch has failed.
    fn give_up(&mut self) -> Option<Event> {
        let now = Instant::now();
        let (launch, started) = self.launches.give_up(now)?;
        let reason = format!("it did not end in {:.1} s", (now - started).as_secs_f64());
        let failed = self.died(launch, started, now, reason);
        self.late.push_back(failed);
        Some(self.health(launch.processor.0 as usize, false))
    }

    /// A launch of which its worker will not say anything any more, as an event.
    fn died(&mut self, launch: Launch, started: Instant, finished: Instant, reason: String) -> Event {
        let processor = self.deployment.processors[launch.processor.0 as usize].name().into();
        self.completed(Report {
            launch,
            started,
            finished,
            result: Err(ExecError::Died { processor, reason }),
        })
    }

    fn completed(&mut self, report: Report) -> Event {
        self.launches.end(report.launch.id);
        let (started, finished) = (self.time(report.started), self.time(report.finished));
        let watts = self.case.processor(report.launch.processor).active_watts;
        let failure = match report.result {
            Ok(values) => {
                if let Some(kept) = self.kept.get_mut(&report.launch.request) {
                    kept.values = Some(values);
                    kept.compute += finished.since(started);
                    if kept.processors.last() != Some(&report.launch.processor) {
                        kept.processors.push(report.launch.processor);
                    }
                }
                None
            }
            Err(error) => {
                let (launch, request) = (report.launch.id.0, report.launch.request.0);
                match error {
                    ExecError::Stopped { .. } => {
                        tracing::debug!("launch {launch} of request {request}: {error}")
                    }
                    _ => tracing::warn!("launch {launch} of request {request}: {error}"),
                }
                Some(error.to_string())
            }
        };
        let energy_mj = watts * finished.since(started).seconds() * 1e3;
        Event::Completed(Completion { launch: report.launch.id, started, finished, energy_mj, failure })
    }

    /// What a caller says, as an event.
    fn told(&mut self, message: Message) -> Option<Event> {
        self.unheard.fetch_sub(1, Ordering::Relaxed);
        match message {
            Message::Ask(submission) => self.submitted(submission),
            Message::Withdraw(request) => {
                self.launches.withdraw(request);
                Some(Event::Withdrawn { request })
            }
        }
    }

    /// The request of a submission. One that names no stream of the case never becomes a request: for the scheduler it would be a
    /// broken world, and one wrong caller must not end the run of all others.
    fn submitted(&mut self, submission: Submission) -> Option<Event> {
        let Submission { id, ask, at, reply } = submission;
        let arrival = self.time(at);
        match ask.request(&self.case, id, arrival) {
            Ok(request) => {
                let kept = Kept { inputs: Some(ask.inputs), reply: Some(reply), ..Kept::default() };
                self.kept.insert(id, kept);
                Some(Event::Arrived(request))
            }
            Err(problem) => {
                tracing::warn!("a caller's request is refused: {problem}");
                None
            }
        }
    }

    /// Waits for whatever comes first; `None` when it is only time to look around again.
    fn listen(&mut self, until: Option<Instant>) -> Option<Event> {
        let pause = after(STOP_CHECK);
        let alarm = until.map_or_else(never, at);
        let (said, submissions) = (self.crew.said.clone(), self.submissions.clone());
        select! {
            recv(said) -> message => message.ok().and_then(|m| self.hear(m)),
            recv(submissions) -> message => match message {
                Ok(message) => self.told(message),
                Err(_) => {
                    // The last submitter is gone: from now on a channel that never says anything.
                    self.submissions = never();
                    self.open = false;
                    None
                }
            },
            recv(alarm) -> _ => None,
            recv(pause) -> _ => None,
        }
    }

    /// Whether anything can still happen by itself.
    fn alive(&mut self) -> bool {
        let stopped = self.stop.load(Ordering::Relaxed);
        let coming = !stopped && (self.arrivals.peek().is_some() || self.open);
        coming || !self.launches.is_empty()
    }
}

impl World for LiveWorld {
    fn launch(&mut self, launch: &Launch) {
        let v = launch.variant.0 as usize;
        let kept = self.kept.entry(launch.request).or_default();
        let input = match (&kept.values, &kept.inputs) {
            (Some(values), _) => Input::Values(values.clone()),
            (None, Some(inputs)) => Input::Fresh(inputs.clone()),
            (None, None) => {
                let pool = &self.samples[v];
                Input::Fresh(pool[launch.request.0 as usize % pool.len()].clone())
            }
        };
        let planned =
            self.case.variant(launch.variant).latency_ns(launch.processor, launch.first, launch.last);
        let stop = self.launches.begin(*launch, planned);
        let job = Job { launch: *launch, input, stop };
        if self.crew.jobs[launch.processor.0 as usize].send(job).is_err() {
            // The worker is gone for good; its launch fails like any other.
            let now = Instant::now();
            let event = self.died(*launch, now, now, "its worker thread ended".into());
            self.late.push_back(event);
        }
    }

    fn wait(&mut self, until: Option<Time>) -> Option<(Time, Event)> {
        if !std::mem::replace(&mut self.punctual, true) {
            wake_on_time();
        }
        loop {
            if let Some(event) = self.late.pop_front() {
                return Some((self.now(), event));
            }
            // What processors say comes before new requests: a slot that is free is better known than not.
            if let Ok(said) = self.crew.said.try_recv() {
                match self.hear(said) {
                    Some(event) => return Some((self.now(), event)),
                    None => continue,
                }
            }
            if let Some(event) = self.give_up() {
                return Some((self.now(), event));
            }
            let stopped = self.stop.load(Ordering::Relaxed);
            let now = self.now();
            let next = if stopped { None } else { self.arrivals.peek() };
            if next.is_some_and(|t| t <= now) {
                let request = self.arrivals.next()?;
                self.kept.insert(request.id, Kept::default());
                return Some((now, Event::Arrived(request)));
            }
            if until.is_some_and(|t| t <= now) {
                return Some((now, Event::Alarm));
            }
            if until.is_none() && !self.alive() {
                return None;
            }
            let soonest = next.into_iter().chain(until).min();
            let soonest = soonest.map(|t| self.start + Duration::from_nanos(t.0));
            if let Some(event) = self.listen(soonest) {
                return Some((self.now(), event));
            }
        }
    }

    fn deciding(&mut self) {
        self.deciding = Some(Instant::now());
    }

    fn decided(&mut self, _: Decision, _: usize) {
        if let Some(start) = self.deciding.take().filter(|_| self.keep_decision_ns) {
            self.decision_ns.push(start.elapsed().as_nanos() as u64);
        }
    }

    fn ended(&mut self, ended: &Ended) {
        self.arrivals.ended(ended);
        let Some(kept) = self.kept.remove(&ended.request.id) else { return };
        let Some(reply) = kept.reply else { return };
        let outputs = match (&ended.outcome, ended.variant, &kept.values) {
            (Outcome::Answered | Outcome::Late, Some(v), Some(values)) => {
                self.deployment.variants[v.0 as usize].chain.shared_outputs(values).ok()
            }
            _ => None,
        };
        let (processors, compute) = (kept.processors, kept.compute);
        reply(Reply { ended: ended.clone(), outputs, processors, compute });
    }
}

impl Drop for LiveWorld {
    fn drop(&mut self) {
        self.crew.dismiss(&self.launches.hung());
    }
}
