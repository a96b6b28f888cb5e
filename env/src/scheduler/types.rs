//! What a caller of the scheduler gives and gets: limits, the next thing to do, and how the protocol can be broken.

use crate::event::{Ended, Launch};
use crate::observation::Observation;
use crate::time::Time;

/// Limits of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Waiting requests of each stream that a policy may choose from, oldest first.
    pub window: usize,
    /// Failed launches of one request after which it ends as failed.
    pub max_failures: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { window: 1, max_failures: 3 }
    }
}

/// What the caller has to do next.
#[derive(Debug)]
pub enum Next<'a> {
    /// Ask a policy and hand its choice to [`Scheduler::decide`].
    Decide(Observation<'a>),
    /// Start this launch.
    Launch(Launch),
    /// A request ended.
    Ended(Ended),
    /// Wait for an event, at the latest until this time.
    Wait(Option<Time>),
}

/// A world or a policy broke the protocol. The scheduler is unchanged.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ProtocolError {
    /// A completion came for a launch that is not running: unknown, or completed before.
    #[error("completion of launch {0}, which is not running")]
    UnknownLaunch(u64),
    /// A request names a stream that the scenario does not have.
    #[error("request {request} names stream {stream}, but the scenario has {streams}")]
    UnknownStream {
        /// Request number.
        request: u64,
        /// Stream that it names.
        stream: u16,
        /// Streams that there are.
        streams: usize,
    },
    /// A policy's choice is no candidate.
    #[error("the policy chose candidate {chosen} of {candidates}")]
    NoSuchCandidate {
        /// Index that it returned.
        chosen: usize,
        /// Number of candidates.
        candidates: usize,
    },
}
