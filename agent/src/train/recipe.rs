//! The training recipe: every number that a training depends on, as it stands in a train file.

use super::TrainError;
use crate::randomize::Ranges;
use serde::{Deserialize, Serialize};

/// See the fields; the defaults are those of the shipped checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Seed of everything.
    pub seed: u64,
    /// What learns once imitation is over.
    pub learner: LearnerKind,
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
    /// How far PPO may move a value from what it was when the experience was collected; 0: as far as it likes.
    pub value_clip: f64,
    /// PPO ends the passes over its experience when the divergence from the policy that collected it is above this; 0: never.
    pub max_divergence: f64,
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
    /// What only the learner `dqn` needs.
    pub dqn: DqnRecipe,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            seed: 1,
            learner: LearnerKind::Ppo,
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
            value_clip: 0.0,
            max_divergence: 0.0,
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
            dqn: DqnRecipe::default(),
        }
    }
}

impl Recipe {
    /// Refuses numbers with which a training would never end or never learn.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] names the key.
    pub fn check(&self) -> Result<(), TrainError> {
        let d = &self.dqn;
        let positive = [
            ("hidden", self.hidden as f64),
            ("actors", self.actors as f64),
            ("steps", self.steps as f64),
            ("minibatch", self.minibatch as f64),
            ("horizon", self.horizon),
            ("episode_ms", self.episode_ms),
            ("max_gradient", self.max_gradient),
            ("dqn.replay", d.replay as f64),
            ("dqn.replay_mb", d.replay_mb),
            ("dqn.huber", d.huber),
            ("dqn.steps", d.steps as f64),
        ];
        let not_negative = [
            ("learning_rate", self.learning_rate),
            ("clip", self.clip),
            ("value_clip", self.value_clip),
            ("max_divergence", self.max_divergence),
            ("dqn.reuse", d.reuse),
            ("dqn.alpha", d.alpha),
            ("dqn.beta", d.beta),
            ("dqn.exploration", d.exploration[0].min(d.exploration[1])),
            ("dqn.margin", d.margin),
        ];
        let bad = |key, expected, got| Err(TrainError::Recipe { key, expected, got });
        if let Some(&(key, got)) = positive.iter().find(|(_, v)| v.is_nan() || *v <= 0.0) {
            return bad(key, "a number above 0", got);
        }
        if let Some(&(key, got)) = not_negative.iter().find(|(_, v)| v.is_nan() || *v < 0.0) {
            return bad(key, "a number not below 0", got);
        }
        Ok(())
    }
}

/// A learner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LearnerKind {
    /// See [`super::ppo`].
    Ppo,
    /// See [`super::dqn`].
    Dqn,
}

/// How DQN explores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Explore {
    /// Any candidate with probability `exploration`, else the best.
    Epsilon,
    /// Softmax of the values over the temperature `exploration`.
    Boltzmann,
}

/// Double DQN with prioritised replay: the table `[recipe.dqn]`. `minibatch`, `learning_rate`, `max_gradient`, `horizon` and the like
/// are those of the recipe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DqnRecipe {
    /// Most decisions that the replay holds.
    pub replay: usize,
    /// Most megabytes of observations that the replay holds; the oldest decisions go first.
    pub replay_mb: f64,
    /// Decisions to collect before anything is learned.
    pub warm_up: usize,
    /// How often a decision is learned from, on average.
    pub reuse: f64,
    /// Decisions whose rewards are added up before the value of the state behind them is asked (1: the target of the paper).
    pub steps: usize,
    /// Gradient steps between copies of the network to the target network.
    pub target_every: u64,
    /// Where the Huber loss turns from a parabola into a line.
    pub huber: f64,
    /// Exponent of the priorities; 0: all decisions alike.
    pub alpha: f64,
    /// Exponent of the importance weights at the start; it rises linearly to 1.
    pub beta: f64,
    /// How to explore.
    pub explore: Explore,
    /// Probability or temperature of exploration at the start and at the end.
    pub exploration: [f64; 2],
    /// Share of the decisions over which exploration falls linearly to its end.
    pub exploration_share: f64,
    /// By how much the teacher's choice should be worth more than any other (large-margin loss); 0: no such loss.
    pub margin: f64,
    /// Weight of the large-margin loss.
    pub margin_weight: f64,
}

impl Default for DqnRecipe {
    fn default() -> Self {
        Self {
            replay: 100_000,
            replay_mb: 500.0,
            warm_up: 5_000,
            reuse: 4.0,
            steps: 3,
            target_every: 200,
            huber: 1.0,
            alpha: 0.6,
            beta: 0.4,
            explore: Explore::Epsilon,
            exploration: [1.0, 0.02],
            exploration_share: 0.3,
            margin: 0.05,
            margin_weight: 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Recipe, String> {
        let recipe: Recipe = serde_json::from_str(json).map_err(|e| e.to_string())?;
        recipe.check().map(|()| recipe).map_err(|e| e.to_string())
    }

    #[test]
    fn wrong_keys_and_numbers_are_refused_by_name() {
        let wrong = [
            (r#"{"value_clap": 1.0}"#, "value_clap"),
            (r#"{"dqn": {"alpah": 1.0}}"#, "alpah"),
            (r#"{"learner": "sarsa"}"#, "sarsa"),
            (r#"{"minibatch": 0}"#, "recipe.minibatch: expected a number above 0, got 0"),
            (r#"{"dqn": {"steps": 0}}"#, "recipe.dqn.steps"),
            (r#"{"max_divergence": -0.1}"#, "recipe.max_divergence: expected a number not below 0, got -0.1"),
        ];
        for (json, part) in wrong {
            let error = read(json).unwrap_err();
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
        // The saboteur of the list: what is right passes.
        let right = r#"{"learner": "dqn", "value_clip": 0.2, "dqn": {"alpha": 0.5, "explore": "boltzmann"}}"#;
        let recipe = read(right).unwrap();
        assert!(recipe.learner == LearnerKind::Dqn && recipe.dqn.explore == Explore::Boltzmann);
    }
}
