//! The one utility formula: training reward, online reward and the score in every report.
//! It refuses to be anywhere else: no other file weighs lateness, accuracy or energy.

use serde::{Deserialize, Serialize};

/// Weights of the utility of one request:
///
/// `u = priority * (a * v - miss) - energy_weight * joules`
///
/// - `a = 1 - accuracy_weight * (1 - accuracy / best accuracy of the task)`
/// - `v = 1` on time; `late_value * max(0, 1 - lateness / late_ms)` when late; `0` when dropped or failed
/// - `miss = 0` when answered or late; `drop_penalty` when dropped; `fail_penalty` when failed
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

impl Objective {
    /// Utility of one request (see the type for the formula). `energy_mj` is what was spent on it, in millijoules.
    pub fn utility(&self, result: Result, priority: f64, energy_mj: f64) -> f64 {
        let worth = match result {
            Result::Answer { lateness_ms, relative_accuracy } => {
                let a = 1.0 - self.accuracy_weight * (1.0 - relative_accuracy);
                let v = if lateness_ms <= 0.0 {
                    1.0
                } else {
                    self.late_value * (1.0 - lateness_ms / self.late_ms).max(0.0)
                };
                a * v
            }
            Result::Dropped => -self.drop_penalty,
            Result::Failed => -self.fail_penalty,
        };
        priority * worth - self.energy_weight * energy_mj / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utility_by_hand() {
        let o = Objective { energy_weight: 0.5, ..Objective::default() };
        let answer = |lateness_ms, relative_accuracy| Result::Answer { lateness_ms, relative_accuracy };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} is not {b}");
        near(o.utility(answer(-3.0, 1.0), 2.0, 100.0), 2.0 - 0.05);
        near(o.utility(answer(25.0, 1.0), 1.0, 0.0), 0.25);
        near(o.utility(answer(80.0, 1.0), 1.0, 0.0), 0.0);
        near(o.utility(answer(0.0, 0.9), 1.0, 0.0), 0.9);
        near(o.utility(Result::Dropped, 3.0, 10.0), -0.6 - 0.005);
        near(o.utility(Result::Failed, 1.0, 0.0), -0.5);
    }
}
