//! The decision core: told what happened, asked what next. One and the same core steps in training, emulation and serving.
//! It never waits, reads no clock, draws no random number, and ends every request exactly once.

mod candidates;
mod drift;
mod ends;
mod memory;
mod progress;
mod types;

pub use types::{Next, Options, ProtocolError};

use crate::case::{Case, ProcessorId, StreamId, VariantId};
use crate::event::{Completion, Ended, Event, Launch, LaunchId, Outcome, Request};
use crate::objective::Shares;
use crate::observation::{Action, Candidate, Observation, ProcessorView, RequestView, StreamView};
use crate::scenario::Queue;
use crate::time::Time;
use crate::world::Decision;
use drift::Drifts;
use memory::Memory;
use progress::{Progress, re_pace};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

/// A request that has not ended.
#[derive(Clone, Debug)]
struct Active {
    request: Request,
    running: bool,
    variant: Option<VariantId>,
    next: u16,
    location: Option<ProcessorId>,
    failures: u32,
    launches: u32,
    energy_mj: f64,
    /// Nobody wants its answer any more: its launch may fail for that.
    withdrawn: bool,
}

/// A launch that has not completed.
#[derive(Clone, Debug)]
struct Running {
    launch: Launch,
    slot: usize,
    started: Time,
    base_ns: f64,
    demand_gbps: f64,
    expected_end: Time,
    progress: Progress,
}

/// See the module's text. A clone is a core of its own: searches step one ahead of time.
#[derive(Clone)]
pub struct Scheduler {
    case: Arc<Case>,
    options: Options,
    now: Time,
    /// Whether the policy has said `Wait` (or there was nothing to decide) since the last event.
    settled: bool,
    slots: Vec<Option<Active>>,
    free_slots: Vec<usize>,
    /// Per stream: slots of its requests in order of arrival.
    queues: Vec<VecDeque<usize>>,
    /// Per stream: how many of them are running.
    running_of: Vec<u32>,
    /// Per stream: when its last request arrived.
    last_arrival: Vec<Option<Time>>,
    shares: Shares,
    running: Vec<Running>,
    /// Per processor: how many of them are on it.
    launches_on: Vec<u32>,
    /// Per processor: whether it takes launches.
    up: Vec<bool>,
    drifts: Drifts,
    memory: Memory,
    /// (expiry, request number, slot) of requests; stale entries are skipped.
    expiries: BinaryHeap<Reverse<(Time, u64, usize)>>,
    next_launch: u64,
    /// Whether `views` show the present state.
    fresh: bool,
    pending_launch: Option<Launch>,
    pending_ended: VecDeque<Ended>,
    views: Views,
}

/// Reused buffers behind an observation.
#[derive(Clone, Default)]
struct Views {
    requests: Vec<RequestView>,
    request_slots: Vec<usize>,
    processors: Vec<ProcessorView>,
    streams: Vec<StreamView>,
    /// Bandwidth that all running launches ask for, in GB/s.
    demand_gbps: f64,
    candidates: Vec<Candidate>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (now, active, running) = (self.now, self.active(), self.running.len());
        write!(f, "Scheduler {{ now: {now:?}, active: {active}, running: {running} }}")
    }
}

impl Scheduler {
    /// A scheduler at time zero with nothing to do.
    pub fn new(case: Arc<Case>, options: Options) -> Scheduler {
        let processors = case.processor_count();
        let queues = case.streams.iter().map(|_| VecDeque::new()).collect();
        let streams = case.streams.len();
        let unknown =
            ProcessorView { up: true, free: 0, expected_free: Time::NEVER, drift: 1.0, slowdown: 1.0 };
        let idle = StreamView { waiting: 0, running: 0, on_time_share: 1.0, last_arrival: None };
        Scheduler {
            case,
            options,
            now: Time::ZERO,
            settled: false,
            slots: Vec::new(),
            free_slots: Vec::new(),
            queues,
            running_of: vec![0; streams],
            last_arrival: vec![None; streams],
            shares: Shares::new(streams),
            running: Vec::new(),
            launches_on: vec![0; processors],
            up: vec![true; processors],
            drifts: Drifts::new(processors),
            memory: Memory::new(processors),
            expiries: BinaryHeap::new(),
            next_launch: 0,
            fresh: false,
            pending_launch: None,
            pending_ended: VecDeque::new(),
            views: Views {
                streams: vec![idle; streams],
                processors: vec![unknown; processors],
                ..Views::default()
            },
        }
    }

    /// As if the streams had been served so before.
    ///
    /// # Panics
    /// When there are not as many shares as streams.
    #[must_use]
    pub fn after(mut self, shares: Shares) -> Scheduler {
        self.shares = shares;
        (0..self.queues.len()).for_each(|stream| self.view_stream(stream));
        self
    }

    /// The case that it schedules.
    pub fn case(&self) -> &Arc<Case> {
        &self.case
    }

    /// The time of the last event.
    pub fn now(&self) -> Time {
        self.now
    }

    /// When the last request of a stream arrived; `None`: there was none yet.
    pub fn last_arrival(&self, stream: StreamId) -> Option<Time> {
        self.last_arrival[stream.0 as usize]
    }

    /// Actual by planned latency of a processor's launches, as far as is known by now (1: as planned).
    pub fn drift(&self, processor: ProcessorId) -> f64 {
        self.drifts.at(processor, self.now)
    }

    /// Whether a processor takes launches.
    pub fn is_up(&self, processor: ProcessorId) -> bool {
        self.up[processor.0 as usize]
    }

    /// Requests that have arrived and not ended.
    pub fn active(&self) -> usize {
        self.slots.len() - self.free_slots.len()
    }

    /// Takes in an event. A time before the last one counts as the last one.
    ///
    /// # Errors
    /// [`ProtocolError`] when the event cannot be true; nothing has changed then.
    pub fn handle(&mut self, now: Time, event: Event) -> Result<(), ProtocolError> {
        match event {
            Event::Arrived(request) => self.arrived(request)?,
            Event::Completed(completion) => self.completed(completion)?,
            Event::Health { processor, up } => {
                if let Some(known) = self.up.get_mut(processor.0 as usize) {
                    *known = up;
                    if !up {
                        self.memory.forget(processor);
                    }
                }
            }
            Event::Withdrawn { request } => self.withdrawn(request, now),
            Event::Alarm => {}
        }
        self.now = self.now.max(now);
        self.settled = false;
        self.fresh = false;
        self.expire();
        Ok(())
    }

    /// A request that ended and was not taken yet; [`Scheduler::poll`] gives the same ones.
    pub fn take_ended(&mut self) -> Option<Ended> {
        self.pending_ended.pop_front()
    }

    /// What to do next. Call it until it says [`Next::Wait`].
    pub fn poll(&mut self) -> Next<'_> {
        if let Some(ended) = self.pending_ended.pop_front() {
            return Next::Ended(ended);
        }
        if let Some(launch) = self.pending_launch.take() {
            return Next::Launch(launch);
        }
        if !self.settled {
            if !self.fresh {
                self.build_views();
                self.fresh = true;
            }
            // The last candidate is Wait and drops stand before it: a decision is due only when something can start.
            let can_launch =
                self.views.candidates.first().is_some_and(|c| matches!(c.action, Action::Launch { .. }));
            if can_launch {
                return Next::Decide(Observation {
                    now: self.now,
                    case: &self.case,
                    core: self,
                    requests: &self.views.requests,
                    processors: &self.views.processors,
                    streams: &self.views.streams,
                    candidates: &self.views.candidates,
                });
            }
            self.settled = true;
        }
        Next::Wait(self.next_alarm())
    }

    /// Takes the choice for the observation that [`Scheduler::poll`] gave last.
    ///
    /// # Errors
    /// [`ProtocolError::NoSuchCandidate`]; the observation can be asked for again.
    pub fn decide(&mut self, decision: Decision) -> Result<(), ProtocolError> {
        let Some(&candidate) = self.views.candidates.get(decision.0) else {
            let candidates = self.views.candidates.len();
            return Err(ProtocolError::NoSuchCandidate { chosen: decision.0, candidates });
        };
        match candidate.action {
            Action::Wait => self.settled = true,
            Action::Drop { request } => {
                let slot = self.views.request_slots[request as usize];
                self.end(slot, Outcome::Dropped, self.now);
            }
            Action::Launch { request, variant, first, last, processor } => {
                let slot = self.views.request_slots[request as usize];
                self.start(slot, variant, first, last, processor, candidate.expected_ns);
            }
        }
        // An old choice must not be taken twice.
        self.views.candidates.clear();
        self.fresh = false;
        Ok(())
    }

    fn arrived(&mut self, request: Request) -> Result<(), ProtocolError> {
        let stream = request.stream.0 as usize;
        let Some(table) = self.case.streams.get(stream) else {
            return Err(ProtocolError::UnknownStream {
                request: request.id.0,
                stream: request.stream.0,
                streams: self.queues.len(),
            });
        };
        if table.queue == Queue::Latest {
            self.replace_waiting(stream, request.arrival);
        }
        self.last_arrival[stream] = Some(request.arrival);
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.queues[stream].push_back(slot);
        self.view_stream(stream);
        self.expiries.push(Reverse((request.expires, request.id.0, slot)));
        self.slots[slot] = Some(Active {
            request,
            running: false,
            variant: None,
            next: 0,
            location: None,
            failures: 0,
            launches: 0,
            energy_mj: 0.0,
            withdrawn: false,
        });
        Ok(())
    }

    fn start(
        &mut self,
        slot: usize,
        variant: VariantId,
        first: u16,
        last: u16,
        on: ProcessorId,
        expected_ns: f64,
    ) {
        let active = self.slots[slot].as_mut().expect("a visible request is active");
        assert!(!active.running, "request {} would run twice", active.request.id.0);
        active.running = true;
        let stream = active.request.stream.0 as usize;
        self.running_of[stream] += 1;
        active.variant = Some(variant);
        active.launches += 1;
        let running = self.running.iter().map(|r| &r.launch);
        // A candidate is only offered when there is room.
        let load_bytes = self.memory.missing(&self.case, on, variant, running.clone()).unwrap_or(0);
        self.memory.load(&self.case, on, variant, running);
        let launch = Launch {
            id: LaunchId(self.next_launch),
            request: active.request.id,
            variant,
            first,
            last,
            processor: on,
            inputs_on: active.location,
            load_bytes,
        };
        self.next_launch += 1;
        self.launches_on[on.0 as usize] += 1;
        // As it was when the choice was made.
        let drift = self.views.processors[on.0 as usize].drift;
        self.running.push(Running {
            launch,
            slot,
            started: self.now,
            base_ns: expected_ns / drift,
            demand_gbps: self.case.variant(variant).demand_gbps(on, first, last),
            expected_end: self.now + crate::time::Span::from_ns(expected_ns),
            progress: Progress::new(&self.case, &launch, self.now),
        });
        re_pace(&self.case, &mut self.running, self.now);
        self.view_stream(stream);
        self.pending_launch = Some(launch);
    }

    fn completed(&mut self, completion: Completion) -> Result<(), ProtocolError> {
        let Some(index) = self.running.iter().position(|r| r.launch.id == completion.launch) else {
            return Err(ProtocolError::UnknownLaunch(completion.launch.0));
        };
        let Running { launch, slot, started, base_ns, .. } = self.running.swap_remove(index);
        self.launches_on[launch.processor.0 as usize] -= 1;
        re_pace(&self.case, &mut self.running, completion.finished.max(self.now));
        let active = self.slots[slot].as_mut().expect("a running request is active");
        active.running = false;
        let stream = active.request.stream.0 as usize;
        self.running_of[stream] -= 1;
        active.energy_mj += completion.energy_mj;
        if let Some(reason) = completion.failure {
            active.failures += 1;
            if active.failures >= self.options.max_failures && !active.withdrawn {
                self.end(slot, Outcome::Failed(reason), completion.finished);
            } else {
                self.expire_after_run(slot, completion.finished);
            }
            return Ok(());
        }
        active.next = launch.last + 1;
        // What comes back over a link is on the host.
        let remote = self.case.processors[launch.processor.0 as usize].model.link.is_some();
        active.location = (!remote).then_some(launch.processor);
        let answered = active.next == self.case.variant(launch.variant).segments;
        let deadline = active.request.deadline;
        let actual = completion.finished.since(completion.started.min(started)).0 as f64;
        self.drifts.measure(launch.processor, base_ns.max(1.0), actual, completion.finished);
        if answered {
            let late = completion.finished > deadline;
            self.end(slot, if late { Outcome::Late } else { Outcome::Answered }, completion.finished);
        } else {
            self.expire_after_run(slot, completion.finished);
        }
        Ok(())
    }
}
