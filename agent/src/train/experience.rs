//! What actors saw and did, as learners take it in. It refuses to pad: rows of all observations lie one after the other.

use crate::features::CONTEXT_FEATURES;

/// What one actor saw, decision by decision.
#[derive(Default)]
pub struct Experience {
    /// Candidate rows of all decisions, one after the other.
    pub rows: Vec<f32>,
    /// Where the rows of each decision begin; one more entry than decisions, in floats.
    pub starts: Vec<usize>,
    /// `[decisions, CONTEXT_FEATURES]`.
    pub context: Vec<f32>,
    /// Candidate chosen.
    pub action: Vec<usize>,
    /// Log-probability of the choice at the time.
    pub log_probability: Vec<f32>,
    /// Value of the state at the time.
    pub value: Vec<f32>,
    /// Reward until the next decision.
    pub reward: Vec<f32>,
    /// Discount over the time until the next decision.
    pub discount: Vec<f32>,
    /// Value of the next state; 0 when the episode finished, the cut-off future's value when it was truncated.
    pub next_value: Vec<f32>,
    /// Whether the next decision belongs to another episode.
    pub last: Vec<bool>,
    /// Utility per request of the episodes that ended, with their number of requests.
    pub episodes: Vec<(f64, usize)>,
    /// The states behind decisions that no decision followed: where an episode was cut off, and where the collection stopped.
    pub ends: Vec<EndState>,
}

/// A state that nothing was decided in.
pub struct EndState {
    /// Index of the decision that it comes after.
    pub after: usize,
    /// `[candidates, CANDIDATE_FEATURES]`.
    pub rows: Vec<f32>,
    /// `[CONTEXT_FEATURES]`.
    pub context: Vec<f32>,
}

impl Experience {
    /// Number of decisions.
    pub fn len(&self) -> usize {
        self.action.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.action.is_empty()
    }

    /// Rows and context of decision `i`.
    pub fn observation(&self, i: usize) -> (&[f32], &[f32]) {
        let context = &self.context[i * CONTEXT_FEATURES..(i + 1) * CONTEXT_FEATURES];
        (&self.rows[self.starts[i]..self.starts[i + 1]], context)
    }
}
