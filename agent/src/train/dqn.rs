//! Double DQN (van Hasselt et al., AAAI 2016) with prioritised replay for a semi-Markov process: the discount is a function of the time
//! that passed. The logits of the network are the values of the candidates, so that the greedy policy is that of any checkpoint; its
//! value head learns the value of the best. A teacher's choices are learned from with a large margin (Hester et al., AAAI 2018).
//! It refuses to collect experience; see `rollout`.

use super::Losses;
use super::adam::Adam;
use super::explore::Exploration;
use super::model::{Input, Model};
use super::ppo::fall;
use super::recipe::{Explore, Recipe};
use super::replay::{Kept, Replay, Transition};
use crate::experience::Experience;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use std::rc::Rc;
use tch::{Kind, Reduction, Tensor};

/// What DQN has beside the network.
pub struct Dqn {
    replay: Replay,
    target: Model,
    /// Decisions taken in so far; learning begins once they warm the replay up.
    seen: usize,
}

impl Dqn {
    /// Nothing replayed yet; the target network is a copy of `model`.
    pub fn new(model: &Model, recipe: &Recipe) -> Dqn {
        let target = Model::new(recipe.hidden, recipe.seed);
        target.set_weights(&model.weights());
        let bytes = (recipe.dqn.replay_mb * 1e6) as usize;
        Dqn { replay: Replay::new(recipe.dqn.replay, bytes, recipe.dqn.alpha), target, seen: 0 }
    }

    /// Takes in the experience of all actors and does as many gradient steps as its share of the recipe's. `progress` goes from 0 to 1
    /// over the training.
    pub fn update(
        &mut self,
        model: &Model,
        adam: &mut Adam,
        recipe: &Recipe,
        experience: &[Experience],
        (taught, progress): (bool, f64),
        rng: &mut Pcg64Mcg,
    ) -> Losses {
        for e in experience {
            remember(&mut self.replay, e, recipe.dqn.steps, taught);
        }
        let rate = recipe.learning_rate * fall(progress);
        let beta = recipe.dqn.beta + (1.0 - recipe.dqn.beta) * progress.clamp(0.0, 1.0);
        let new: usize = experience.iter().map(Experience::len).sum();
        let steps = (new as f64 * recipe.dqn.reuse / recipe.minibatch as f64).ceil() as usize;
        let mut sum = Losses { entropy: f64::NAN, divergence: f64::NAN, ..Losses::default() };
        self.seen += new;
        if self.seen < recipe.dqn.warm_up {
            return Losses { learning_rate: rate, ..sum.mean() };
        }
        for _ in 0..steps {
            let draws: Vec<f64> = (0..recipe.minibatch).map(|_| rng.random()).collect();
            let (indices, weights) = self.replay.sample(&draws, beta);
            let (losses, loss, errors) = self.loss(model, recipe, &indices, &weights);
            adam.descend(&loss, rate, recipe.max_gradient);
            sum.add(&losses);
            for (&i, error) in indices.iter().zip(errors) {
                self.replay.set_error(i, error);
            }
            if adam.steps.is_multiple_of(recipe.dqn.target_every.max(1)) {
                self.target.set_weights(&model.weights());
            }
        }
        Losses { learning_rate: rate, ..sum.mean() }
    }

    /// The parts of the loss as numbers, the loss to descend, and the error of each transition.
    fn loss(
        &self,
        model: &Model,
        recipe: &Recipe,
        indices: &[usize],
        weights: &[f32],
    ) -> (Losses, Tensor, Vec<f64>) {
        let batch: Vec<&Transition> = indices.iter().map(|&i| self.replay.get(i)).collect();
        let column = |f: &dyn Fn(&Transition) -> f32| {
            Tensor::from_slice(&batch.iter().map(|t| f(t)).collect::<Vec<_>>())
        };
        let input = Input::new(batch.iter().map(|t| (&*t.state.rows, &*t.state.context)));
        // Behind a finished episode comes nothing: any state will do where the discount is 0.
        let after = |t: &Transition| t.next.as_ref().unwrap_or(&t.state).clone();
        let after: Vec<Rc<Kept>> = batch.iter().map(|t| after(t)).collect();
        let next = Input::new(after.iter().map(|k| (&*k.rows, &*k.context)));
        let discount = column(&|t| if t.next.is_some() { t.discount } else { 0.0 });
        let target = tch::no_grad(|| {
            let (online, target) = (model.scores(&next).0, self.target.scores(&next).0);
            double_target(&column(&|t| t.reward), &discount, &online, &target)
        });
        let actions: Vec<i64> = batch.iter().map(|t| t.action as i64).collect();
        let action = Tensor::from_slice(&actions);
        let (scores, value) = model.scores(&input);
        let chosen = scores.gather(1, &action.unsqueeze(1), false).squeeze_dim(1);
        let errors = Vec::<f64>::try_from((&target - chosen.detach()).to_kind(Kind::Double));
        let each = chosen.huber_loss(&target, Reduction::None, recipe.dqn.huber);
        let policy = (each * Tensor::from_slice(weights)).mean(Kind::Float);
        let value = (value - scores.detach().amax(1, false)).square().mean(Kind::Float);
        let mut loss = &policy + &value * recipe.value_weight;
        if recipe.dqn.margin > 0.0 {
            let taught = column(&|t| f32::from(u8::from(t.taught)));
            let margin = large_margin(&scores, &action, recipe.dqn.margin) * taught;
            loss += margin.mean(Kind::Float) * recipe.dqn.margin_weight;
        }
        let losses = Losses {
            policy: policy.double_value(&[]),
            value: value.double_value(&[]),
            entropy: f64::NAN,
            divergence: f64::NAN,
            ..Losses::default()
        };
        (losses, loss, errors.expect("a vector of doubles"))
    }
}

/// How to explore at `progress`, which goes from 0 to 1 over the training.
pub fn exploration(recipe: &Recipe, progress: f64) -> Exploration {
    let [start, end] = recipe.dqn.exploration;
    let share = (progress / recipe.dqn.exploration_share.max(1e-9)).clamp(0.0, 1.0);
    let now = (start + (end - start) * share) as f32;
    match recipe.dqn.explore {
        Explore::Epsilon => Exploration::Epsilon(now),
        Explore::Boltzmann => Exploration::Softmax(now.max(1e-6)),
    }
}

/// What a choice should be worth, `[b]`: `reward + discount Q_target(s', argmax Q_online(s'))`. The network that learns chooses and the
/// older one values, so that what is overrated by chance is not believed. The scores of the next states are `[b, widest]` each.
pub fn double_target(reward: &Tensor, discount: &Tensor, online: &Tensor, target: &Tensor) -> Tensor {
    let best = online.argmax(1, true);
    reward + discount * target.gather(1, &best, false).squeeze_dim(1)
}

/// `max_a (Q(s, a) + margin [a != taught]) - Q(s, taught)`, `[b]`: 0 where the teacher's choice leads by `margin`.
pub fn large_margin(scores: &Tensor, taught: &Tensor, margin: f64) -> Tensor {
    let taught = taught.unsqueeze(1);
    let own = scores.gather(1, &taught, false);
    let rivals = (scores + margin).scatter(1, &taught, &own);
    rivals.amax(1, false) - own.squeeze_dim(1)
}

/// Puts one actor's experience into the replay. The rewards of up to `steps` decisions are added up, discounted, and the state behind
/// them follows: not over the end of an episode, and not past what was collected.
pub fn remember(replay: &mut Replay, e: &Experience, steps: usize, taught: bool) {
    let states: Vec<Rc<Kept>> = (0..e.len()).map(|i| replay.keep(e.observation(i))).collect();
    let mut ends = vec![None; e.len()];
    for end in &e.ends {
        ends[end.after] = Some(replay.keep((&end.rows, &end.context)));
    }
    for (t, state) in states.iter().enumerate() {
        let (mut reward, mut discount, mut k) = (0.0, 1.0, t);
        loop {
            reward += discount * e.reward[k];
            discount *= e.discount[k];
            if e.last[k] || k + 1 == e.len() || k + 1 - t >= steps {
                break;
            }
            k += 1;
        }
        let open = !e.last[k] && k + 1 < e.len();
        let next = if open { Some(states[k + 1].clone()) } else { ends[k].clone() };
        replay.push(Transition { state: state.clone(), action: e.action[t], reward, discount, next, taught });
    }
}
