//! The one utility formula: training reward, online reward and the score in every report.
//! It refuses to be anywhere else: no other file weighs lateness, accuracy or energy.

use serde::{Deserialize, Serialize};

/// Weights of the utility of one request:
///
/// `u = priority * (a * v * c - miss - fairness_weight * gap) - energy_weight * joules`
///
/// - `a = 1 - accuracy_weight * (1 - accuracy / best accuracy of the task)`
/// - `v = 1` on time; `late_value * max(0, 1 - lateness / late_ms)` when late; `0` when dropped or failed
/// - `c = 1 - continuity_weight * (1 - share)`, `share` being the stream's on-time share so far (see [`Shares`]): an answer now and then is
///   worth less than one of many. With a weight of 1 a stream that is served half earns a quarter, as in XRBench's quality of
///   experience (Kwon et al., MLSys 2023), so that it is better to serve one of two streams than half of each
/// - `miss = 0` when answered or late; `drop_penalty` when dropped; `fail_penalty` when failed
/// - `gap = 0` on time; else how far the on-time share of its stream lies below that of the best served stream (see [`Shares`]): a
///   miss costs more where others are served already
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objective {
    /// Value of an answer that is late by next to nothing, as a share of one on time.
    pub late_value: f64,
    /// Lateness in milliseconds at which an answer is worth nothing.
    pub late_ms: f64,
    /// Loss for a dropped request.
    pub drop_penalty: f64,
    /// Loss for a failed request.
    pub fail_penalty: f64,
    /// How much relative accuracy counts, 0 (not at all) to 1 (in proportion).
    pub accuracy_weight: f64,
    /// Utility per joule.
    pub energy_weight: f64,
    /// How much a miss costs on top where other streams are served better.
    pub fairness_weight: f64,
    /// How much less an answer is worth in a stream that misses, 0 (no less) to 1 (in proportion to its on-time share).
    pub continuity_weight: f64,
}

impl Default for Objective {
    fn default() -> Self {
        Self {
            late_value: 0.5,
            late_ms: 50.0,
            drop_penalty: 0.2,
            fail_penalty: 0.5,
            accuracy_weight: 1.0,
            energy_weight: 0.02,
            fairness_weight: 0.0,
            continuity_weight: 0.0,
        }
    }
}

/// How a request ended, as far as its value goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Result {
    /// An answer, `lateness_ms` after the deadline (zero or less: on time), of this accuracy relative to the task's best variant.
    Answer {
        /// Milliseconds after the deadline.
        lateness_ms: f64,
        /// Accuracy divided by that of the best variant of the task.
        relative_accuracy: f64,
    },
    /// No answer, because someone gave it up.
    Dropped,
    /// No answer, because launches failed.
    Failed,
}

impl Result {
    /// Whether it is an answer that is not late.
    pub fn on_time(&self) -> bool {
        matches!(self, Result::Answer { lateness_ms, .. } if *lateness_ms <= 0.0)
    }
}

/// How the stream of a request was served before the request ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Service {
    /// [`Shares::of`].
    pub share: f64,
    /// [`Shares::gap`].
    pub gap: f64,
}

impl Service {
    /// All on time so far.
    pub const FULL: Service = Service { share: 1.0, gap: 0.0 };
}

/// Moving averages of the streams' on-time shares, for the fairness and the continuity term.
#[derive(Clone, Debug)]
pub struct Shares(Vec<f64>);

/// Weight of the newest request in its stream's share.
const SHARE_WEIGHT: f64 = 0.05;

impl Shares {
    /// All streams served fully so far.
    pub fn new(streams: usize) -> Shares {
        Shares(vec![1.0; streams])
    }

    /// Streams that have been served so for long: the on-time share of each, 0 to 1.
    pub fn settled(shares: Vec<f64>) -> Shares {
        Shares(shares)
    }

    /// The share of a stream, 0 to 1.
    pub fn of(&self, stream: usize) -> f64 {
        self.0[stream]
    }

    /// How far the share of a stream lies below the best one, 0 to 1.
    pub fn gap(&self, stream: usize) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max) - self.0[stream]
    }

    /// Both of a stream.
    pub fn service(&self, stream: usize) -> Service {
        Service { share: self.of(stream), gap: self.gap(stream) }
    }

    /// A request of the stream ended.
    pub fn note(&mut self, stream: usize, on_time: bool) {
        let share = &mut self.0[stream];
        *share += SHARE_WEIGHT * (f64::from(u8::from(on_time)) - *share);
    }
}

impl Objective {
    /// Utility of one request (see the type for the formula). `energy_mj` is what was spent on it, in millijoules; `service` is how its
    /// stream was served before it ended.
    pub fn utility(&self, result: Result, priority: f64, energy_mj: f64, service: Service) -> f64 {
        let worth = match result {
            Result::Answer { lateness_ms, relative_accuracy } => {
                let a = 1.0 - self.accuracy_weight * (1.0 - relative_accuracy);
                let v = if lateness_ms <= 0.0 {
                    1.0
                } else {
                    self.late_value * (1.0 - lateness_ms / self.late_ms).max(0.0)
                };
                a * v * (1.0 - self.continuity_weight * (1.0 - service.share))
            }
            Result::Dropped => -self.drop_penalty,
            Result::Failed => -self.fail_penalty,
        };
        let unfair = if result.on_time() { 0.0 } else { self.fairness_weight * service.gap };
        priority * (worth - unfair) - self.energy_weight * energy_mj / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utility_by_hand() {
        let o = Objective { energy_weight: 0.5, fairness_weight: 0.4, ..Objective::default() };
        let answer = |lateness_ms, relative_accuracy| Result::Answer { lateness_ms, relative_accuracy };
        let gap = |gap| Service { gap, share: 1.0 };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} is not {b}");
        near(o.utility(answer(-3.0, 1.0), 2.0, 100.0, gap(0.5)), 2.0 - 0.05);
        near(o.utility(answer(25.0, 1.0), 1.0, 0.0, gap(0.0)), 0.25);
        near(o.utility(answer(80.0, 1.0), 1.0, 0.0, gap(0.5)), -0.2);
        near(o.utility(answer(0.0, 0.9), 1.0, 0.0, gap(1.0)), 0.9);
        near(o.utility(Result::Dropped, 3.0, 10.0, gap(0.25)), -0.6 - 0.3 - 0.005);
        near(o.utility(Result::Failed, 1.0, 0.0, gap(0.0)), -0.5);
        let o = Objective { continuity_weight: 0.5, ..o };
        let half = Service { gap: 0.0, share: 0.5 };
        near(o.utility(answer(0.0, 0.9), 2.0, 0.0, half), 2.0 * 0.9 * 0.75);
        near(o.utility(Result::Dropped, 2.0, 0.0, half), -0.4);
    }

    #[test]
    fn shares_follow_what_is_served() {
        let mut shares = Shares::new(2);
        assert_eq!(shares.gap(1), 0.0);
        shares.note(1, false);
        shares.note(1, false);
        assert!((shares.of(1) - 0.95 * 0.95).abs() < 1e-12);
        assert!((shares.gap(1) - (1.0 - 0.95 * 0.95)).abs() < 1e-12);
        assert_eq!(shares.gap(0), 0.0);
    }
}
