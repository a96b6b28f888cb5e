//! The log of one run: everything that happened, as plain vectors with times, for reports that need the whole story.
//! It refuses to interpret: totals are [`crate::summary`]'s business.

use cosched_env::case::ProcessorId;
use cosched_env::event::{Completion, Ended, Event, Launch, LaunchId, Request, RequestId};
use cosched_env::observation::Observation;
use cosched_env::time::Time;
use cosched_env::world::{Decision, Observer};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A launch and how it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchRecord {
    /// The order.
    pub launch: Launch,
    /// When it went out.
    pub at: Time,
    /// How it ended; `None` when the run was over before.
    pub completion: Option<Completion>,
}

/// A processor went down or came back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthRecord {
    /// When.
    pub at: Time,
    /// Which.
    pub processor: ProcessorId,
    /// Whether it takes launches from now on.
    pub up: bool,
}

/// An [`Observer`] that keeps everything. Give it to `env::world::drive`, then call [`RunLog::finish`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunLog {
    /// Name for reports, usually the policy's.
    pub name: String,
    /// Time of the last event.
    pub end: Time,
    /// Decisions taken.
    pub decisions: u64,
    /// Candidates over all decisions, summed.
    pub candidates: u64,
    /// Requests that arrived and have not ended; empty after a run that was not cut off.
    pub unended: BTreeMap<RequestId, Request>,
    /// Launches in order of going out.
    pub launches: Vec<LaunchRecord>,
    /// Requests in order of ending.
    pub ended: Vec<Ended>,
    /// Changes of health in order of time.
    pub health: Vec<HealthRecord>,
    /// Where the launches stand that have not completed.
    #[serde(skip)]
    open: BTreeMap<LaunchId, usize>,
}

impl RunLog {
    /// An empty log.
    pub fn new(name: impl Into<String>) -> RunLog {
        RunLog { name: name.into(), ..RunLog::default() }
    }

    /// Sets the end of the run: what `drive` returned.
    pub fn finish(mut self, end: Time) -> RunLog {
        self.end = self.end.max(end);
        self
    }

    /// Requests that arrived.
    pub fn arrived(&self) -> usize {
        self.ended.len() + self.unended.len()
    }
}

impl Observer for RunLog {
    fn decided(&mut self, observation: &Observation<'_>, _: Decision) {
        self.decisions += 1;
        self.candidates += observation.candidates.len() as u64;
    }

    fn launched(&mut self, now: Time, launch: &Launch) {
        self.open.insert(launch.id, self.launches.len());
        self.launches.push(LaunchRecord { launch: *launch, at: now, completion: None });
    }

    fn event(&mut self, now: Time, event: &Event) {
        self.end = self.end.max(now);
        match event {
            Event::Arrived(request) => drop(self.unended.insert(request.id, request.clone())),
            Event::Completed(completion) => {
                if let Some(index) = self.open.remove(&completion.launch) {
                    self.launches[index].completion = Some(completion.clone());
                }
            }
            Event::Health { processor, up } => {
                self.health.push(HealthRecord { at: now, processor: *processor, up: *up });
            }
            Event::Withdrawn { .. } | Event::Alarm => {}
        }
    }

    fn ended(&mut self, ended: &Ended) {
        self.unended.remove(&ended.request.id);
        self.ended.push(ended.clone());
    }
}
