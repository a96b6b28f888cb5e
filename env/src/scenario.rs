//! The scenario: which streams ask for which tasks, when, how urgently, and what an answer is worth. Plain data as it stands in a file.
//! It refuses nothing itself: [`crate::case::Case`] checks it against a plan.

use crate::objective::Objective;
use serde::{Deserialize, Serialize};

/// Streams and the objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name for reports.
    pub name: String,
    /// Sources of requests.
    #[serde(rename = "stream")]
    pub streams: Vec<Stream>,
    /// What an answer is worth.
    #[serde(default)]
    pub objective: Objective,
}

/// How requests of a stream arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArrivalKind {
    /// Every `period_ms`, shifted by `offset_ms`, each moved by up to `jitter_ms` to either side.
    Periodic,
    /// Exponential gaps with mean `period_ms`.
    Poisson,
    /// Poisson gaps whose rate switches between `burst` times the mean rate and a rate that keeps the mean
    /// (a two-state Markov-modulated Poisson process with dwell times of `dwell_ms` on average).
    Bursty,
    /// At the times of `times_ms`.
    Trace,
    /// When a request of the stream `after` is answered (late or not), with `probability`. Its deadline and expiry count from the
    /// arrival of the first request of the chain: what matters is the time from the sensor to the last answer.
    Dependent,
}

/// What becomes of requests that wait when another one of their stream arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// They go on waiting; requests start in order of arrival.
    #[default]
    Fifo,
    /// Those that have not started are replaced: only the latest frame counts.
    Latest,
}

/// A source of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Name, unique in the scenario; needed only for [`Stream::after`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The task that each request asks for.
    pub task: String,
    /// How requests arrive.
    #[serde(default = "periodic")]
    pub kind: ArrivalKind,
    /// Mean time between requests, in milliseconds. Not for a trace or a dependent stream: theirs follows from the rest.
    #[serde(default)]
    pub period_ms: f64,
    /// Time of the first request of a periodic stream, in milliseconds.
    #[serde(default)]
    pub offset_ms: f64,
    /// Largest shift of a periodic arrival, in milliseconds.
    #[serde(default)]
    pub jitter_ms: f64,
    /// Rate in a burst as a multiple of the mean rate (bursty only).
    #[serde(default = "two")]
    pub burst: f64,
    /// Mean time in each of the two states, in milliseconds (bursty only).
    #[serde(default = "second")]
    pub dwell_ms: f64,
    /// Arrivals in milliseconds, ascending (trace only).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub times_ms: Vec<f64>,
    /// File with the arrivals of a trace, relative to the file that this stands in. Whoever reads that file fills `times_ms` from it;
    /// here it is only a name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace: String,
    /// Name of the stream whose answers this one follows (dependent only).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,
    /// Probability that a request follows (dependent only).
    #[serde(default = "one")]
    pub probability: f64,
    /// Times `[from, to)` in milliseconds at which the stream is open, ascending; empty: always. Requests outside never come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open_ms: Vec<[f64; 2]>,
    /// What becomes of waiting requests when another one arrives.
    #[serde(default)]
    pub queue: Queue,
    /// Time from arrival to deadline, in milliseconds.
    pub deadline_ms: f64,
    /// Time from arrival after which a waiting request is dropped, in milliseconds; 0 means twice the deadline.
    #[serde(default)]
    pub expire_ms: f64,
    /// Weight of this stream's requests in the objective.
    #[serde(default = "one")]
    pub priority: f64,
    /// Least accuracy of a variant that may serve it.
    #[serde(default)]
    pub min_accuracy: f64,
}

impl Default for Stream {
    /// A periodic stream without a task.
    fn default() -> Stream {
        Stream {
            name: String::new(),
            task: String::new(),
            kind: ArrivalKind::Periodic,
            period_ms: 1000.0,
            offset_ms: 0.0,
            jitter_ms: 0.0,
            burst: 2.0,
            dwell_ms: 1000.0,
            times_ms: Vec::new(),
            trace: String::new(),
            after: String::new(),
            probability: 1.0,
            open_ms: Vec::new(),
            queue: Queue::Fifo,
            deadline_ms: 1000.0,
            expire_ms: 0.0,
            priority: 1.0,
            min_accuracy: 0.0,
        }
    }
}

fn periodic() -> ArrivalKind {
    ArrivalKind::Periodic
}
fn one() -> f64 {
    1.0
}
fn two() -> f64 {
    2.0
}
fn second() -> f64 {
    1000.0
}
