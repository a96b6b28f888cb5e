//! A heuristic under a restraint: it is shown a world in which what is forbidden cannot be done. It refuses to choose.

use super::Keep;
use crate::board::{drop_of, wait};
use cosched_env::case::{Case, ProcessorId, StreamId, VariantId};
use cosched_env::observation::{Action, Candidate, Observation, RequestView};
use cosched_env::time::Time;
use cosched_env::world::{Decision, Policy};

pub(super) struct Restrained {
    pub inner: Box<dyn Policy>,
    /// As the heuristic sees it.
    pub case: Case,
    pub served: Vec<bool>,
    /// Per stream and variant: whether it can serve the stream.
    pub able: Vec<Vec<bool>>,
    pub only: Vec<Option<VariantId>>,
    pub off: Vec<u64>,
    /// Processors that are kept free.
    pub kept: Vec<Kept>,
    /// Per stream: so much earlier its requests seem to be due.
    pub haste_ns: Vec<i64>,
    /// As the heuristic sees them.
    pub requests: Vec<RequestView>,
    /// What it may choose from, and where that stands among all candidates.
    pub candidates: Vec<Candidate>,
    pub original: Vec<usize>,
}

/// A processor that is kept free for the next request of a stream whose requests come regularly. Times in nanoseconds.
pub(super) struct Kept {
    stream: StreamId,
    processor: ProcessorId,
    period: u64,
    offset: u64,
    /// After the arrival: when launches of others may still end.
    patience: u64,
}

impl Kept {
    pub(super) fn new(case: &Case, stream: StreamId, keep: Keep) -> Kept {
        let table = case.stream(stream);
        let patience = table.deadline.0 / 8 * u64::from(keep.eighths);
        Kept { stream, processor: keep.processor, period: table.period.0, offset: table.offset.0, patience }
    }

    /// Whether a launch of another stream that would end at `end` (nanoseconds since the start of the run) is in the way. Who does not come
    /// within half a period of when he should is not waited for.
    fn forbids(&self, observation: &Observation<'_>, end: f64) -> bool {
        let last = observation.streams[self.stream.0 as usize].last_arrival;
        let next = last.map_or(self.offset, |last| last.0 + self.period);
        observation.now.0 <= next + self.period / 2 && end > (next + self.patience) as f64
    }
}

impl Policy for Restrained {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let unserved = observation.requests.iter().position(|r| !self.served[r.stream.0 as usize]);
        if let Some(index) = unserved {
            return drop_of(observation, index);
        }
        if observation.processors.iter().any(|p| !p.up) {
            return self.inner.decide(observation);
        }
        self.candidates.clear();
        self.original.clear();
        for (choice, candidate) in observation.candidates.iter().enumerate() {
            let mut seen = *candidate;
            if let Action::Launch { request, variant, first, last, processor } = candidate.action {
                let table = self.case.variant(variant);
                let stream = observation.requests[request as usize].stream.0 as usize;
                // What has begun goes on in its variant, whatever was to be.
                let able = first > 0 || self.able[stream][variant.0 as usize];
                let forbidden =
                    table.reach(processor, first).is_none() || table.best_rest_ns(0).is_infinite();
                let end = observation.now.0 as f64 + candidate.expected_ns;
                let in_the_way = |k: &Kept| {
                    k.processor == processor
                        && usize::from(k.stream.0) != stream
                        && k.forbids(observation, end)
                };
                if forbidden
                    || !able
                    || self.off[stream] >> processor.0 & 1 == 1
                    || self.kept.iter().any(in_the_way)
                {
                    continue;
                }
                seen.rest_ns = table.best_rest_ns(last + 1);
                seen.handover_ns = table.handover_ns(processor, last + 1);
            }
            self.candidates.push(seen);
            self.original.push(choice);
        }
        let can_launch = self.candidates.first().is_some_and(|c| matches!(c.action, Action::Launch { .. }));
        if !can_launch {
            return wait(observation);
        }
        self.requests.clear();
        self.requests.extend(observation.requests.iter().map(|request| {
            let stream = request.stream.0 as usize;
            let due = request.deadline.0.saturating_add_signed(-self.haste_ns[stream]);
            RequestView { deadline: Time(due), variant: request.variant.or(self.only[stream]), ..*request }
        }));
        let seen = observation.narrowed(&self.case, &self.requests, &self.candidates);
        let choice = self.inner.decide(&seen);
        Decision(self.original[choice.0])
    }
}
