//! What the guard is told and what it says: its limits, who decides, orders, scores, and what is kept of it between runs. It refuses to
//! decide anything; `guard` does.

use crate::online::off_policy::Gain;
use serde::{Deserialize, Serialize};

/// Limits of the guard.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// Requests in the sliding window.
    pub window: usize,
    /// Requests before a window says anything.
    pub least: usize,
    /// How far behind is behind, in score.
    pub tolerance: f64,
    /// A fall of the live score that is not waited out.
    pub crash: f64,
    /// Requests after which a trial has ended well.
    pub proof: usize,
    /// Checks in a row that must say the same before the baseline takes over.
    pub checks: u32,
    /// First rest before the learned policy gets another chance, in seconds, and the longest.
    pub rest_s: f64,
    /// See `rest_s`.
    pub longest_rest_s: f64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            window: 300,
            least: 80,
            tolerance: 0.02,
            crash: 0.15,
            proof: 300,
            checks: 2,
            rest_s: 5.0,
            longest_rest_s: 600.0,
        }
    }
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acting {
    /// The last good weights.
    Good,
    /// New weights on trial.
    Trial,
    /// The best baseline.
    Baseline,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Nothing.
    Stay,
    /// The weights on trial are the last good ones from now on.
    Proven,
    /// The last good weights act again, and why.
    RollBack(String),
    /// The baseline acts, and why.
    HandOver(String),
    /// The last good weights get another chance, and why.
    TryAgain(String),
}

/// Scores on the same seeds of the emulator as it is seeded now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    /// Of the weights on trial; of the last good ones when none are.
    pub trial: f64,
    /// Of the last good weights.
    pub good: f64,
    /// Of the best baseline.
    pub baseline: f64,
    /// Share of live decisions in which the network and the baseline would do the same.
    pub agreement: f64,
    /// By how much the baseline would be better than what acts, from live decisions alone; `None`: too few were seen.
    pub gain: Option<Gain>,
}

impl Shadow {
    /// Whether live decisions alone show that the baseline would be better than what acts by more than `tolerance`.
    pub(super) fn outdone(&self, tolerance: f64) -> bool {
        self.gain.is_some_and(|gain| gain.mean - super::ERRORS * gain.error > tolerance)
    }

    /// What live decisions say, in words.
    pub(super) fn live_text(&self) -> String {
        let Some(Gain { mean, error }) = self.gain else { return "say nothing yet".to_owned() };
        format!("give the baseline {mean:+.3} (standard error {error:.3})")
    }
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counts {
    /// Weights that went on trial.
    pub published: u32,
    /// Weights that were worse in the shadow.
    pub refused: u32,
    /// Trials that ended well.
    pub proven: u32,
    /// Trials that ended badly.
    pub rolled_back: u32,
    /// Requests that ended during the longest of those.
    pub longest_bad_trial: u32,
    /// Times that the baseline took over.
    pub handed_over: u32,
    /// Times that the learned policy got another chance.
    pub tried_again: u32,
}

/// What is kept of a guard between runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Live score of the last good weights.
    pub reference: Option<f64>,
    /// See the module's text.
    pub bias: Option<f64>,
    /// Seconds of the next rest.
    pub rest_s: f64,
    /// Whether the baseline acts.
    pub baseline_acts: bool,
    /// How often what happened.
    pub counts: Counts,
}
