//! What actors saw and did, as learners take it in, offline and online, and its units. It refuses to learn, and to pad: rows of all
//! observations lie one after the other.

use crate::features::CONTEXT_FEATURES;
use cosched_env::case::Case;

/// What makes rewards and values of unlike cases alike, so that one value head serves them all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Units {
    /// Time constant of the discount `exp(-elapsed / horizon)`, in milliseconds: time counts, not the number of decisions in it.
    pub horizon_ms: f64,
    /// Factor on rewards: one over the priority that arrives within the horizon, so that values stay near 1.
    pub reward: f64,
}

impl Units {
    /// Of a case, with a horizon of so many mean deadlines.
    pub fn of(case: &Case, horizon: f64) -> Units {
        let n = case.streams.len() as f64;
        let horizon_ms = horizon * case.streams.iter().map(|s| s.deadline.ms()).sum::<f64>() / n;
        let arriving: f64 = case.streams.iter().map(|s| s.priority * horizon_ms / s.period.ms()).sum();
        Units { horizon_ms, reward: 1.0 / arriving.max(1.0) }
    }
}

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
    /// Whether the next decision does not follow this one: it belongs to another episode, or some were lost in between.
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
    /// Nothing yet.
    pub fn new() -> Experience {
        Experience { starts: vec![0], ..Experience::default() }
    }

    /// Number of decisions.
    pub fn len(&self) -> usize {
        self.action.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.action.is_empty()
    }

    /// What comes next does not follow what came last.
    pub fn cut(&mut self) {
        if let Some(last) = self.last.last_mut() {
            *last = true;
        }
    }

    /// Advantages and value targets:
    ///
    /// `delta_t = r_t + d_t V_{t+1} - V_t`, `A_t = delta_t + d_t lambda A_{t+1}` (`A_{t+1} = 0` over the end of an episode),
    /// target `A_t + V_t`. `V_{t+1}` is 0 after a finished episode and the value of the cut-off state after a truncated one.
    /// (Generalised advantage estimation: Schulman et al., 2016; the discount is that of the time that passed.)
    pub fn advantages(&self, lambda: f32) -> (Vec<f32>, Vec<f32>) {
        let mut advantage = vec![0.0; self.len()];
        let mut next = 0.0;
        for t in (0..self.len()).rev() {
            if self.last[t] {
                next = 0.0;
            }
            let delta = self.reward[t] + self.discount[t] * self.next_value[t] - self.value[t];
            next = delta + self.discount[t] * lambda * next;
            advantage[t] = next;
        }
        let target = advantage.iter().zip(&self.value).map(|(a, v)| a + v).collect();
        (advantage, target)
    }

    /// Rows and context of decision `i`.
    pub fn observation(&self, i: usize) -> (&[f32], &[f32]) {
        let context = &self.context[i * CONTEXT_FEATURES..(i + 1) * CONTEXT_FEATURES];
        (&self.rows[self.starts[i]..self.starts[i + 1]], context)
    }
}
