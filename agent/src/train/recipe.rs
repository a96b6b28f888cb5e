//! The training recipe: every number that a training depends on, as it stands in a train file.

use crate::randomize::Ranges;
use serde::{Deserialize, Serialize};

/// See the fields; the defaults are those of the shipped checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Seed of everything.
    pub seed: u64,
    /// Hidden width of the network.
    pub hidden: usize,
    /// Decisions to learn from by reinforcement.
    pub decisions: u64,
    /// Teacher's decisions to imitate first; 0: none.
    pub imitation: u64,
    /// Share of the imitated probability that is spread over all candidates.
    pub smoothing: f64,
    /// Episodes side by side.
    pub actors: usize,
    /// Decisions of each actor between updates.
    pub steps: usize,
    /// Passes over the experience of one update.
    pub epochs: usize,
    /// Decisions per gradient step.
    pub minibatch: usize,
    /// Learning rate of Adam at the start; falls linearly to a tenth.
    pub learning_rate: f64,
    /// PPO's clip range.
    pub clip: f64,
    /// Weight of the value loss.
    pub value_weight: f64,
    /// Weight of the entropy bonus at the start; falls linearly to a tenth.
    pub entropy: f64,
    /// Weight of the divergence from the first guide's (smoothed) choices: a choice of one's own has to be worth it. Such an anchor
    /// is usual where a policy that works is fine-tuned (Ziegler et al., 2019).
    pub anchor: f64,
    /// Lambda of generalised advantage estimation.
    pub lambda: f64,
    /// Time constant of the discount, in mean deadlines of the case.
    pub horizon: f64,
    /// Largest norm of a gradient.
    pub max_gradient: f64,
    /// Length of an episode, in milliseconds.
    pub episode_ms: f64,
    /// Episodes on a case before another one is drawn: finding its guides takes as long as some episodes.
    pub repeats: u32,
    /// Threads that collect experience (the result does not depend on it).
    pub threads: usize,
    /// How far training cases depart from their sources.
    pub ranges: Ranges,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            seed: 1,
            hidden: 64,
            decisions: 2_000_000,
            imitation: 100_000,
            smoothing: 0.1,
            actors: 64,
            steps: 64,
            epochs: 4,
            minibatch: 512,
            learning_rate: 5e-4,
            clip: 0.2,
            value_weight: 0.5,
            entropy: 0.0,
            anchor: 0.02,
            lambda: 0.95,
            horizon: 5.0,
            max_gradient: 0.5,
            episode_ms: 3000.0,
            repeats: 12,
            threads: 2,
            ranges: Ranges::default(),
        }
    }
}
