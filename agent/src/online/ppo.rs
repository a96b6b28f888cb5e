//! The trainer of online learning: a few epochs of the clipped surrogate (see `train::ppo`) on live transitions, with a small learning
//! rate and a bound on the divergence from the weights that acted. It refuses to judge what comes out; the guard does.
//!
//! Most decisions are the best candidate and not draws: each is weighed as if it had been drawn, which is right to first order where the
//! policy is nearly certain, as a trained one is. The clip bounds what that can cost.

use super::Trainer;
use super::lesson::Lesson;
use crate::network::Weights;
use crate::train::model::{Input, Model};
use crate::train::ppo::{advantages, surrogate};
use crate::train::rollout::Experience;
use cosched_env::streams::rng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;
use tch::nn::{self, Optimizer, OptimizerConfig};
use tch::{Kind, Tensor};

/// Numbers of the trainer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// Learning rate of Adam.
    pub learning_rate: f64,
    /// Passes over a lesson.
    pub epochs: usize,
    /// Decisions per gradient step.
    pub minibatch: usize,
    /// PPO's clip range.
    pub clip: f64,
    /// Weight of the value loss.
    pub value_weight: f64,
    /// Weight of the entropy bonus.
    pub entropy: f64,
    /// Lambda of generalised advantage estimation.
    pub lambda: f64,
    /// Largest norm of a gradient.
    pub max_gradient: f64,
    /// Learning stops when the mean of `old - new` log-probability passes this.
    pub divergence: f64,
    /// Seed of the order of decisions.
    pub seed: u64,
}

impl Default for Recipe {
    fn default() -> Recipe {
        Recipe {
            learning_rate: 1e-4,
            epochs: 4,
            minibatch: 256,
            clip: 0.2,
            value_weight: 0.5,
            entropy: 1e-3,
            lambda: 0.95,
            max_gradient: 0.5,
            divergence: 0.02,
            seed: 1,
        }
    }
}

/// See the module's text.
pub struct Ppo {
    recipe: Recipe,
    model: Model,
    optimizer: Optimizer,
    random: Pcg64Mcg,
}

impl Ppo {
    /// A trainer that begins from these weights.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn new(weights: &Weights, recipe: Recipe) -> Result<Ppo, tch::TchError> {
        // One thread: the others have launches to serve.
        tch::set_num_threads(1);
        let model = Model::new(weights.hidden(), recipe.seed);
        model.set_weights(weights);
        let optimizer =
            nn::Adam { eps: 1e-5, ..nn::Adam::default() }.build(&model.store, recipe.learning_rate)?;
        Ok(Ppo { random: rng(recipe.seed, "online", 0), recipe, model, optimizer })
    }

    /// One gradient step on the decisions `part`; how far the policy has moved on them.
    fn step(&mut self, e: &Experience, part: &[usize], advantage: &[f32], target: &[f32]) -> f64 {
        let input = Input::new(part.iter().map(|&i| e.observation(i)));
        let column =
            |values: &[f32]| Tensor::from_slice(&part.iter().map(|&i| values[i]).collect::<Vec<_>>());
        let actions: Vec<i64> = part.iter().map(|&i| e.action[i] as i64).collect();
        let old = column(&e.log_probability);
        let (log_p, value) = self.model.forward(&input);
        let new = log_p.gather(1, &Tensor::from_slice(&actions).unsqueeze(1), false).squeeze_dim(1);
        let policy = surrogate(&new, &old, &column(advantage), self.recipe.clip);
        let value_loss = (value - column(target)).square().mean(Kind::Float);
        let entropy = -(log_p.exp() * &log_p).sum_dim_intlist(1, false, Kind::Float).mean(Kind::Float);
        let loss = policy + value_loss * self.recipe.value_weight - entropy * self.recipe.entropy;
        self.optimizer.zero_grad();
        loss.backward();
        self.optimizer.clip_grad_norm(self.recipe.max_gradient);
        self.optimizer.step();
        (old - new).mean(Kind::Float).double_value(&[])
    }
}

impl Trainer for Ppo {
    fn set(&mut self, weights: &Weights) {
        self.model.set_weights(weights);
    }

    fn learn(&mut self, lesson: &Lesson) -> Weights {
        let e = experience(lesson);
        let (mut advantage, target) = advantages(&e, self.recipe.lambda as f32);
        normalise(&mut advantage);
        let mut order: Vec<usize> = (0..e.len()).collect();
        'epochs: for _ in 0..self.recipe.epochs {
            order.shuffle(&mut self.random);
            for part in order.chunks(self.recipe.minibatch) {
                if self.step(&e, part, &advantage, &target) > self.recipe.divergence {
                    break 'epochs;
                }
            }
        }
        self.model.weights()
    }
}

fn experience(lesson: &Lesson) -> Experience {
    let l = lesson.clone();
    Experience {
        rows: l.rows,
        starts: l.starts,
        context: l.context,
        action: l.action,
        log_probability: l.log_probability,
        value: l.value,
        reward: l.reward,
        discount: l.discount,
        next_value: l.next_value,
        last: l.last,
        ..Experience::default()
    }
}

/// To mean 0 and standard deviation 1.
fn normalise(values: &mut [f32]) {
    let n = values.len().max(1) as f32;
    let mean = values.iter().sum::<f32>() / n;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt().max(1e-6);
    values.iter_mut().for_each(|v| *v = (*v - mean) / deviation);
}
