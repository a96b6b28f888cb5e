//! What happened in the last seconds, kept in memory of a fixed size: launches, ends, and decisions with all that they were chosen from. The
//! live page, the terminal and the Chrome trace are drawn from it. It refuses to keep anything for long.

use cosched_env::event::{Ended, Event, Launch, LaunchId, Request, RequestId};
use cosched_env::observation::{Candidate, Observation, RequestView};
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Observer};
use cosched_experiments::log::{HealthRecord, LaunchRecord, RunLog};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How long things are kept.
pub const WINDOW: Span = Span(30_000_000_000);
/// Most launches, and most ends, that are kept.
const RECORDS: usize = 8192;
/// Most decisions that are kept.
const DECISIONS: usize = 1024;
/// Most candidates of a decision that are kept.
const CANDIDATES: usize = 64;

/// A decision with all that it was chosen from.
#[derive(Clone, Debug, Default)]
pub struct Reason {
    /// Counted from the start of the engine.
    pub number: u64,
    /// When.
    pub at: Time,
    /// Nanoseconds that it took.
    pub took_ns: u64,
    /// Why the fallback decided; `None`: the policy did.
    pub fallback: Option<&'static str>,
    /// Index into `candidates`; beyond them where there were too many to keep.
    pub chosen: usize,
    /// The first candidates.
    pub candidates: Vec<Candidate>,
    /// Of each candidate by the policy, where it has such a thing; else empty.
    pub scores: Vec<f32>,
    /// What the candidates are about.
    pub requests: Vec<RequestView>,
}

/// A launch, and the decision that it comes from.
#[derive(Clone, Debug)]
pub struct Launched {
    /// The launch.
    pub record: LaunchRecord,
    /// Number of the decision.
    pub decision: u64,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Rolling {
    policy: String,
    begun: Instant,
    /// Launches in order of going out.
    pub launches: VecDeque<Launched>,
    /// Requests in order of ending.
    pub ended: VecDeque<Ended>,
    /// Requests that have ended so far.
    pub ends: u64,
    /// Requests that have not ended.
    pub unended: BTreeMap<RequestId, Request>,
    /// Processors that went down or came back.
    pub health: VecDeque<HealthRecord>,
    /// Decisions in order of time.
    pub reasons: VecDeque<Reason>,
    /// Decisions so far.
    pub decisions: u64,
}

impl Rolling {
    /// Nothing yet.
    pub fn new(policy: &str) -> Rolling {
        Rolling {
            policy: policy.to_owned(),
            begun: Instant::now(),
            launches: VecDeque::new(),
            ended: VecDeque::new(),
            ends: 0,
            unended: BTreeMap::new(),
            health: VecDeque::new(),
            reasons: VecDeque::new(),
            decisions: 0,
        }
    }

    /// The engine's time, to within the time that it takes to start.
    pub fn now(&self) -> Time {
        Time(self.begun.elapsed().as_nanos() as u64)
    }

    /// A decision was made.
    pub fn decided(
        &mut self,
        observation: &Observation<'_>,
        decision: Decision,
        scores: &[f32],
        took_ns: u64,
        fallback: Option<&'static str>,
    ) {
        self.decisions += 1;
        // The oldest one's lists are filled again: nothing is allocated in the long run.
        let oldest = if self.reasons.len() < DECISIONS { None } else { self.reasons.pop_front() };
        let mut reason = oldest.unwrap_or_default();
        reason.candidates.clear();
        reason.candidates.extend(observation.candidates.iter().take(CANDIDATES));
        reason.scores.clear();
        reason.scores.extend(scores.iter().take(CANDIDATES));
        reason.requests.clear();
        reason.requests.extend(observation.requests);
        let (number, at, chosen) = (self.decisions, observation.now, decision.0);
        self.reasons.push_back(Reason { number, at, took_ns, fallback, chosen, ..reason });
    }

    /// The decision of that number, if it is still there.
    pub fn reason(&self, number: u64) -> Option<&Reason> {
        let first = self.reasons.front()?.number;
        self.reasons.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    fn launched(&mut self, now: Time, launch: &Launch) {
        let record = LaunchRecord { launch: *launch, at: now, completion: None };
        self.launches.push_back(Launched { record, decision: self.decisions });
        let old = |l: &Launched| l.record.completion.as_ref().is_some_and(|c| c.finished + WINDOW < now);
        while self.launches.len() > RECORDS || self.launches.front().is_some_and(old) {
            self.launches.pop_front();
        }
    }

    fn launch(&mut self, id: LaunchId) -> Option<&mut Launched> {
        let index = self.launches.binary_search_by_key(&id, |l| l.record.launch.id).ok()?;
        self.launches.get_mut(index)
    }

    fn event(&mut self, now: Time, event: &Event) {
        match event {
            Event::Arrived(request) => drop(self.unended.insert(request.id, request.clone())),
            Event::Completed(completion) => {
                if let Some(launch) = self.launch(completion.launch) {
                    launch.record.completion = Some(completion.clone());
                }
            }
            Event::Health { processor, up } => {
                self.health.push_back(HealthRecord { at: now, processor: *processor, up: *up });
                if self.health.len() > RECORDS {
                    self.health.pop_front();
                }
            }
            Event::Withdrawn { .. } | Event::Alarm => {}
        }
    }

    fn over(&mut self, ended: &Ended) {
        self.unended.remove(&ended.request.id);
        self.ended.push_back(ended.clone());
        self.ends += 1;
        let old = |e: &Ended| e.at + WINDOW < ended.at;
        while self.ended.len() > RECORDS || self.ended.front().is_some_and(old) {
            self.ended.pop_front();
        }
    }

    /// All of it as a log.
    pub fn log(&self) -> RunLog {
        let mut log = RunLog::new(&self.policy);
        log.end = self.now();
        log.launches = self.launches.iter().map(|l| l.record.clone()).collect();
        log.ended = self.ended.iter().cloned().collect();
        log.unended = self.unended.clone();
        log.health = self.health.iter().copied().collect();
        log
    }
}

/// The rolling log, for a moment.
pub fn lock(rolling: &Mutex<Rolling>) -> MutexGuard<'_, Rolling> {
    rolling.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fills it.
pub struct Watcher(pub Arc<Mutex<Rolling>>);

impl Observer for Watcher {
    fn launched(&mut self, now: Time, launch: &Launch) {
        lock(&self.0).launched(now, launch);
    }
    fn event(&mut self, now: Time, event: &Event) {
        lock(&self.0).event(now, event);
    }
    fn ended(&mut self, ended: &Ended) {
        lock(&self.0).over(ended);
    }
}
