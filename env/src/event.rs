//! What goes between a scheduler and a world: requests, launches, completions, events, and how requests end.
//! Plain data; it refuses to carry tensors, which are the world's business.

use crate::case::{ProcessorId, StreamId, VariantId};
use crate::time::{Span, Time};
use serde::{Deserialize, Serialize};

/// Number of a request, given by the world, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// Number of a launch, given by the scheduler, never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaunchId(pub u64);

/// One input of a task. What the stream says by default may be set per request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Number.
    pub id: RequestId,
    /// Stream that it belongs to; requests of one stream start in order of arrival.
    pub stream: StreamId,
    /// When it arrived.
    pub arrival: Time,
    /// When the first request of its chain arrived: its own arrival unless its stream depends on another.
    pub origin: Time,
    /// When it is due.
    pub deadline: Time,
    /// When it is dropped if it still waits.
    pub expires: Time,
    /// Weight in the objective.
    pub priority: f64,
    /// Least accuracy of a variant that may serve it.
    pub min_accuracy: f64,
    /// The only variant that may serve it, one of its task; `None`: any that is accurate enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<VariantId>,
}

/// Order to run segments `first..=last` of a variant for a request on a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Number.
    pub id: LaunchId,
    /// For whom.
    pub request: RequestId,
    /// Which variant.
    pub variant: VariantId,
    /// First segment.
    pub first: u16,
    /// Last segment, inclusive.
    pub last: u16,
    /// Where.
    pub processor: ProcessorId,
    /// Where the tensors are that it reads; `None`: on the host.
    pub inputs_on: Option<ProcessorId>,
    /// Bytes of weights that have to be loaded there first; other variants' were evicted to make room.
    pub load_bytes: u64,
}

/// The end of a launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// Which launch.
    pub launch: LaunchId,
    /// When it began to run.
    pub started: Time,
    /// When it ended.
    pub finished: Time,
    /// What it took, in millijoules.
    pub energy_mj: f64,
    /// `None` when it is done, the reason when it failed.
    pub failure: Option<String>,
}

/// What a world tells a scheduler.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A request came in.
    Arrived(Request),
    /// A launch ended.
    Completed(Completion),
    /// A processor went down or came back. Its running launches each get their own completion.
    Health {
        /// Which processor.
        processor: ProcessorId,
        /// Whether it takes launches now.
        up: bool,
    },
    /// Whoever asked does not want the answer any more: the request expires now, or when its launch ends, which a world may bring about
    /// at once: that launch has failed. One that has ended already is not touched: the news crossed its answer.
    Withdrawn {
        /// Which request.
        request: RequestId,
    },
    /// The time that the scheduler asked to be woken at has come.
    Alarm,
}

/// How a request ended. There is no other way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered by its deadline.
    Answered,
    /// Answered after its deadline.
    Late,
    /// Given up by the policy.
    Dropped,
    /// Given up because it still waited when it expired.
    Expired,
    /// Given up because a newer frame of its stream took its place ([`crate::scenario::Queue::Latest`]).
    Replaced,
    /// Given up because launches failed; the last reason.
    Failed(String),
}

/// The end of a request: exactly one per request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// The request as it arrived.
    pub request: Request,
    /// How it ended.
    pub outcome: Outcome,
    /// When.
    pub at: Time,
    /// The variant that served it, if any launch was made.
    pub variant: Option<VariantId>,
    /// Energy spent on it, in millijoules.
    pub energy_mj: f64,
    /// Launches made for it, failed ones included.
    pub launches: u32,
    /// Its utility by the scenario's objective.
    pub utility: f64,
}

impl Ended {
    /// Time from arrival to the end.
    pub fn latency(&self) -> Span {
        self.at.since(self.request.arrival)
    }
}
