//! The summary of one run: per stream, task and processor, and in total. It is added up while the run goes, or from a log.
//! It refuses to weigh anything: utility comes from the scheduler's objective, and here it is only averaged.

use crate::log::RunLog;
use crate::stats::jain;
use crate::table;
use crate::timeline::stream_name;
use cosched_env::case::{Case, ProcessorId, StreamId};
use cosched_env::event::{Completion, Ended, Event, Launch, LaunchId, Outcome};
use cosched_env::observation::Observation;
use cosched_env::time::{Span, Time};
use cosched_env::world::{Decision, Observer};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Requests of a stream, of a task, or of the whole run. `requests = on_time + late + dropped + expired + failed + open`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// Requests that arrived.
    pub requests: u64,
    /// Answered by their deadline.
    pub on_time: u64,
    /// Answered after it.
    pub late: u64,
    /// Given up by the policy.
    pub dropped: u64,
    /// Given up because they expired, or because a newer frame took their place.
    pub expired: u64,
    /// Given up because launches failed.
    pub failed: u64,
    /// Not ended when the run was over.
    pub open: u64,
    /// Mean milliseconds from arrival to answer, of answered requests (late ones included).
    #[serde(default)]
    pub mean_ms: Option<f64>,
    /// Likewise, the median.
    pub p50_ms: Option<f64>,
    /// Likewise, 95th percentile.
    pub p95_ms: Option<f64>,
    /// Likewise, 99th percentile.
    pub p99_ms: Option<f64>,
    /// Mean utility of the requests that ended.
    pub utility: f64,
    /// Mean accuracy of the variants that answered.
    pub accuracy: Option<f64>,
    /// Millijoules of launches per request that ended.
    pub energy_mj: f64,
}

impl Requests {
    /// Share of requests answered by their deadline; 0 of none.
    pub fn on_time_share(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.on_time as f64 / self.requests as f64 }
    }
}

/// What a processor did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessorSummary {
    /// Name.
    pub name: String,
    /// Launches that completed, failed ones included.
    pub launches: u64,
    /// Launches that failed.
    pub failures: u64,
    /// Share of its slots' time that was busy, 0 to 1.
    pub utilisation: f64,
    /// Joules of its launches.
    pub energy_j: f64,
    /// Joules drawn while idle: idle power times the time that its slots were free, on average over the slots.
    pub idle_j: f64,
}

/// A named group of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// The task's name; for a stream, followed by `#` and its number when several streams ask for the task.
    pub name: String,
    /// Its requests.
    #[serde(flatten)]
    pub requests: Requests,
}

/// Summary of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name for reports, usually the policy's.
    pub name: String,
    /// Length of the run in seconds, up to its last event.
    pub seconds: f64,
    /// Decisions taken.
    pub decisions: u64,
    /// Per stream, in scenario order.
    pub streams: Vec<Group>,
    /// Per task that a stream asks for.
    pub tasks: Vec<Group>,
    /// Per processor, in plan order.
    pub processors: Vec<ProcessorSummary>,
    /// All requests.
    pub total: Requests,
    /// Jain's fairness index of the streams' on-time shares.
    pub fairness: f64,
}

impl Summary {
    /// Of a log.
    pub fn of(log: &RunLog, case: &Arc<Case>) -> Summary {
        let mut tally = Tally::new(case.clone());
        tally.decisions = log.decisions;
        for request in log.ended.iter().map(|e| &e.request).chain(log.unended.values()) {
            tally.arrived[request.stream.0 as usize] += 1;
        }
        for record in &log.launches {
            tally.launched(record.at, &record.launch);
            if let Some(completion) = &record.completion {
                tally.complete(completion);
            }
        }
        for ended in &log.ended {
            tally.ended(ended);
        }
        tally.finish(log.name.clone(), log.end)
    }
}

impl fmt::Display for Summary {
    /// Three tables: requests by task, processors, and the run as a whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", table::requests(self))?;
        write!(f, "{}", table::processors(self))
    }
}

/// Adds up one group.
struct Adder {
    requests: Requests,
    latency_us: Histogram<u64>,
    latency_ms: f64,
    utility: f64,
    accuracy: f64,
    energy_mj: f64,
}

impl Adder {
    fn new() -> Adder {
        Adder {
            requests: Requests::default(),
            // Three digits; grows with the values.
            latency_us: Histogram::new(3).expect("3 digits are within hdrhistogram's 0 to 5"),
            latency_ms: 0.0,
            utility: 0.0,
            accuracy: 0.0,
            energy_mj: 0.0,
        }
    }

    fn add(&mut self, ended: &Ended, accuracy: f64) {
        match ended.outcome {
            Outcome::Answered => self.requests.on_time += 1,
            Outcome::Late => self.requests.late += 1,
            Outcome::Dropped => self.requests.dropped += 1,
            Outcome::Expired | Outcome::Replaced => self.requests.expired += 1,
            Outcome::Failed(_) => self.requests.failed += 1,
        }
        if matches!(ended.outcome, Outcome::Answered | Outcome::Late) {
            let us = ended.latency().0.div_ceil(1000);
            // It grows on its own; only a value beyond 2^62 us could be refused, and then it counts as the largest.
            if self.latency_us.record(us.max(1)).is_err() {
                self.latency_us.saturating_record(us);
            }
            self.latency_ms += ended.latency().ms();
            self.accuracy += accuracy;
        }
        self.utility += ended.utility;
        self.energy_mj += ended.energy_mj;
    }

    fn merge(&mut self, other: &Adder) {
        let (a, b) = (&mut self.requests, &other.requests);
        a.on_time += b.on_time;
        a.late += b.late;
        a.dropped += b.dropped;
        a.expired += b.expired;
        a.failed += b.failed;
        self.latency_us.add(&other.latency_us).expect("a histogram that resizes itself takes in any other");
        self.latency_ms += other.latency_ms;
        self.utility += other.utility;
        self.accuracy += other.accuracy;
        self.energy_mj += other.energy_mj;
    }

    fn finish(&self, arrived: u64) -> Requests {
        let mut r = self.requests.clone();
        let ended = r.on_time + r.late + r.dropped + r.expired + r.failed;
        let answers = r.on_time + r.late;
        assert!(ended <= arrived, "{ended} requests ended, but only {arrived} arrived");
        r.requests = arrived;
        r.open = arrived - ended;
        let quantile = |q| (answers > 0).then(|| self.latency_us.value_at_quantile(q) as f64 / 1e3);
        (r.p50_ms, r.p95_ms, r.p99_ms) = (quantile(0.5), quantile(0.95), quantile(0.99));
        r.mean_ms = (answers > 0).then(|| self.latency_ms / answers as f64);
        r.utility = self.utility / ended.max(1) as f64;
        r.energy_mj = self.energy_mj / ended.max(1) as f64;
        r.accuracy = (answers > 0).then(|| self.accuracy / answers as f64);
        r
    }
}

/// An [`Observer`] that adds up a [`Summary`] as the run goes, in memory that does not grow with it.
pub struct Tally {
    case: Arc<Case>,
    decisions: u64,
    arrived: Vec<u64>,
    streams: Vec<Adder>,
    processors: Vec<ProcessorSummary>,
    busy: Vec<Span>,
    open: BTreeMap<LaunchId, ProcessorId>,
}

impl Tally {
    /// Of a run that has not begun.
    pub fn new(case: Arc<Case>) -> Tally {
        let processors = case.plan.processors.iter();
        Tally {
            decisions: 0,
            arrived: vec![0; case.streams.len()],
            streams: case.streams.iter().map(|_| Adder::new()).collect(),
            processors: processors
                .map(|p| ProcessorSummary { name: p.name.clone(), ..ProcessorSummary::default() })
                .collect(),
            busy: vec![Span::ZERO; case.processor_count()],
            open: BTreeMap::new(),
            case,
        }
    }

    fn complete(&mut self, completion: &Completion) {
        let Some(processor) = self.open.remove(&completion.launch) else { return };
        let p = &mut self.processors[processor.0 as usize];
        p.launches += 1;
        p.failures += u64::from(completion.failure.is_some());
        p.energy_j += completion.energy_mj / 1e3;
        self.busy[processor.0 as usize] += completion.finished.since(completion.started);
    }

    /// The summary of a run that ended at `end` (what `drive` returned).
    pub fn finish(self, name: impl Into<String>, end: Time) -> Summary {
        let case = &self.case;
        let seconds = Span(end.0).seconds();
        let mut processors = self.processors;
        for ((p, spec), busy) in processors.iter_mut().zip(&case.plan.processors).zip(&self.busy) {
            let busy = busy.seconds() / f64::from(spec.slots);
            p.utilisation = if seconds > 0.0 { (busy / seconds).min(1.0) } else { 0.0 };
            p.idle_j = spec.idle_watts * (seconds - busy).max(0.0);
        }
        let group = |name: String, members: &[usize]| {
            let mut adder = Adder::new();
            members.iter().for_each(|&s| adder.merge(&self.streams[s]));
            Group { name, requests: adder.finish(members.iter().map(|&s| self.arrived[s]).sum()) }
        };
        let all: Vec<usize> = (0..self.streams.len()).collect();
        let streams: Vec<Group> = all.iter().map(|&s| group(stream_name(case, s), &[s])).collect();
        let members = |t: usize| -> Vec<usize> {
            all.iter().copied().filter(|&s| case.streams[s].task.0 as usize == t).collect()
        };
        let tasks = (0..case.tasks.len())
            .map(|t| (t, members(t)))
            .filter(|(_, members)| !members.is_empty())
            .map(|(t, members)| group(case.tasks[t].name.clone(), &members))
            .collect();
        let shares: Vec<f64> = streams.iter().map(|g| g.requests.on_time_share()).collect();
        let total = group(String::new(), &all).requests;
        let fairness = jain(&shares);
        Summary {
            name: name.into(),
            seconds,
            decisions: self.decisions,
            streams,
            tasks,
            processors,
            total,
            fairness,
        }
    }
}

impl Observer for Tally {
    fn decided(&mut self, _: &Observation<'_>, _: Decision) {
        self.decisions += 1;
    }

    fn launched(&mut self, _: Time, launch: &Launch) {
        self.open.insert(launch.id, launch.processor);
    }

    fn event(&mut self, _: Time, event: &Event) {
        match event {
            Event::Arrived(request) => {
                let StreamId(stream) = request.stream;
                self.arrived[stream as usize] += 1;
            }
            Event::Completed(completion) => self.complete(completion),
            Event::Health { .. } | Event::Withdrawn { .. } | Event::Alarm => {}
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let accuracy = ended.variant.map_or(0.0, |v| self.case.variant(v).accuracy);
        self.streams[ended.request.stream.0 as usize].add(ended, accuracy);
    }
}
