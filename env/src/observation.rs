//! The plain-data picture that a policy decides from. It holds borrowed tables and nothing that can be acted on.

use crate::case::{Case, ProcessorId, StreamId, TaskId, VariantId};
use crate::event::RequestId;
use crate::scheduler::Scheduler;
use crate::time::Time;

/// A request that waits for a launch.
#[derive(Clone, Copy, Debug)]
pub struct RequestView {
    /// Number.
    pub id: RequestId,
    /// Stream.
    pub stream: StreamId,
    /// Task.
    pub task: TaskId,
    /// When it arrived.
    pub arrival: Time,
    /// When the first request of its chain arrived.
    pub origin: Time,
    /// When it is due.
    pub deadline: Time,
    /// When it is dropped if it still waits.
    pub expires: Time,
    /// Weight in the objective.
    pub priority: f64,
    /// Least accuracy of a variant that may serve it.
    pub min_accuracy: f64,
    /// Variant that it has to be served by: it asked for no other, or some of its segments are done.
    pub variant: Option<VariantId>,
    /// Next segment to run.
    pub next: u16,
    /// Where its tensors are; `None`: on the host.
    pub location: Option<ProcessorId>,
    /// Failed launches so far.
    pub failures: u32,
}

/// A processor at this moment.
#[derive(Clone, Copy, Debug)]
pub struct ProcessorView {
    /// Whether it takes launches.
    pub up: bool,
    /// Slots that are free.
    pub free: u32,
    /// When a slot is expected to be free: now if one is.
    pub expected_free: Time,
    /// Moving average of actual by expected latency of its launches (1: as planned).
    pub drift: f64,
    /// Factor by which a launch here would slow down because of what runs elsewhere now (1: not at all), pairwise contention only;
    /// shared bandwidth depends on the launch and is in [`Candidate::expected_ns`].
    pub slowdown: f64,
}

/// A stream at this moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamView {
    /// Requests that wait for a launch, the visible ones included.
    pub waiting: u32,
    /// Requests that are running.
    pub running: u32,
    /// Moving average over its ended requests of those answered by their deadline, 0 to 1 (1 at the start).
    pub on_time_share: f64,
    /// When the last request arrived; `None`: there was none yet.
    pub last_arrival: Option<Time>,
}

/// What a candidate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run segments `first..=last` of `variant` for `requests[request]` on `processor`.
    Launch {
        /// Index into [`Observation::requests`].
        request: u16,
        /// Variant.
        variant: VariantId,
        /// First segment.
        first: u16,
        /// Last segment, inclusive.
        last: u16,
        /// Processor; it is up and has a free slot.
        processor: ProcessorId,
    },
    /// Give up `requests[request]`.
    Drop {
        /// Index into [`Observation::requests`].
        request: u16,
    },
    /// Do nothing until the next event.
    Wait,
}

/// One legal choice, with what the plan says of it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// What it does.
    pub action: Action,
    /// Whether the launch goes as far as its processor can; `false` for drop and wait.
    pub farthest: bool,
    /// Expected nanoseconds until the launch ends: loading, transfer, segments, contention and drift. 0 for drop and wait.
    pub expected_ns: f64,
    /// Expected millijoules.
    pub energy_mj: f64,
    /// Least nanoseconds from the end of the launch to the answer (0 when it gives the answer).
    pub rest_ns: f64,
    /// Least nanoseconds to hand its tensors over to another processor that can go on, not in `rest_ns`; infinite: there is none (0
    /// when it gives the answer).
    pub handover_ns: f64,
}

impl Candidate {
    /// One that launches nothing.
    pub(crate) fn without_launch(action: Action) -> Candidate {
        Candidate {
            action,
            farthest: false,
            expected_ns: 0.0,
            energy_mj: 0.0,
            rest_ns: 0.0,
            handover_ns: 0.0,
        }
    }
}

/// Everything that a policy may know.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Now.
    pub now: Time,
    /// Plan and scenario.
    pub case: &'a Case,
    /// Waiting requests that candidates are about: the first few of each stream.
    pub requests: &'a [RequestView],
    /// Processors, in plan order.
    pub processors: &'a [ProcessorView],
    /// Streams, in scenario order.
    pub streams: &'a [StreamView],
    /// The core itself, for [`Observation::fork`] only.
    pub(crate) core: &'a Scheduler,
    /// Legal choices; never empty, the last one is [`Action::Wait`].
    pub candidates: &'a [Candidate],
}

impl Observation<'_> {
    /// A copy of the decision core as it stands at this decision, for searches that look ahead: it takes a choice among `candidates`
    /// and then events from a world of the searcher's own. It knows no more than the observation: what runs, what waits, what is up.
    pub fn fork(&self) -> Scheduler {
        self.core.clone()
    }

    /// The same moment as somebody sees it who has fewer choices and is told other deadlines. `case` and `requests` number everything as this
    /// one's do; `candidates` end with [`Action::Wait`].
    pub fn narrowed<'b>(
        &'b self,
        case: &'b Case,
        requests: &'b [RequestView],
        candidates: &'b [Candidate],
    ) -> Observation<'b> {
        Observation { case, requests, candidates, ..*self }
    }

    /// The request that a candidate is about.
    pub fn request_of(&self, candidate: &Candidate) -> Option<&RequestView> {
        match candidate.action {
            Action::Launch { request, .. } | Action::Drop { request } => {
                Some(&self.requests[request as usize])
            }
            Action::Wait => None,
        }
    }

    /// When the answer would be there at the earliest if this launch candidate were taken.
    pub fn earliest_answer_ns(&self, candidate: &Candidate) -> f64 {
        self.now.0 as f64 + candidate.expected_ns + candidate.rest_ns
    }
}
