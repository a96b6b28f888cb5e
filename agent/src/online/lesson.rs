//! What a learner learns from: live transitions in order, in the units of training. It refuses to learn.

use super::link::Transition;
use crate::features::CONTEXT_FEATURES;
use cosched_env::case::Case;

/// What makes rewards and values of unlike cases alike; the same as in offline training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Units {
    /// Time constant of the discount `exp(-elapsed / horizon)`, in milliseconds.
    pub horizon_ms: f64,
    /// Factor on rewards: one over the priority that arrives within the horizon.
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

/// Transitions whose next state is known. Ragged: rows of all decisions lie one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lesson {
    /// Candidate rows of all decisions.
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
    /// Value of the next state.
    pub next_value: Vec<f32>,
    /// Whether the next decision in the lesson does not follow this one.
    pub last: Vec<bool>,
}

impl Lesson {
    /// Number of decisions.
    pub fn len(&self) -> usize {
        self.action.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.action.is_empty()
    }

    /// Adds a transition whose next state has this value.
    pub fn add(&mut self, transition: &Transition, next_value: f32, units: &Units) {
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        debug_assert_eq!(transition.context.len(), CONTEXT_FEATURES);
        self.rows.extend_from_slice(&transition.rows);
        self.starts.push(self.rows.len());
        self.context.extend_from_slice(&transition.context);
        self.action.push(transition.action);
        self.log_probability.push(transition.log_probability);
        self.value.push(transition.value);
        self.reward.push((transition.reward * units.reward) as f32);
        self.discount.push((-transition.elapsed.ms() / units.horizon_ms).exp() as f32);
        self.next_value.push(next_value);
        self.last.push(false);
    }

    /// What comes next does not follow what came last.
    pub fn cut(&mut self) {
        if let Some(last) = self.last.last_mut() {
            *last = true;
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Lesson::default();
    }
}
