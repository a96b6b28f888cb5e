//! Proximal policy optimisation (Schulman et al., 2017) with generalised advantage estimation (Schulman et al., 2016) for a
//! semi-Markov process: the discount is a function of the time that passed, not of the number of decisions.

use super::model::{Input, Model};
use super::recipe::Recipe;
use super::rollout::Experience;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;
use tch::nn::{Optimizer, OptimizerConfig};
use tch::{Kind, Tensor, nn};

/// What one update did, averaged over its gradient steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Clipped surrogate loss.
    pub policy: f64,
    /// Value loss.
    pub value: f64,
    /// Mean entropy of the policy, in nats.
    pub entropy: f64,
    /// Mean of `old - new` log-probability: an estimate of the divergence.
    pub divergence: f64,
}

/// Advantages and value targets of one actor's experience:
///
/// `delta_t = r_t + d_t V_{t+1} - V_t`, `A_t = delta_t + d_t lambda A_{t+1}` (`A_{t+1} = 0` over the end of an episode),
/// target `A_t + V_t`. `V_{t+1}` is 0 after a finished episode and the value of the cut-off state after a truncated one.
pub fn advantages(e: &Experience, lambda: f32) -> (Vec<f32>, Vec<f32>) {
    let mut advantage = vec![0.0; e.len()];
    let mut next = 0.0;
    for t in (0..e.len()).rev() {
        if e.last[t] {
            next = 0.0;
        }
        let delta = e.reward[t] + e.discount[t] * e.next_value[t] - e.value[t];
        next = delta + e.discount[t] * lambda * next;
        advantage[t] = next;
    }
    let target = advantage.iter().zip(&e.value).map(|(a, v)| a + v).collect();
    (advantage, target)
}

/// Adam for this recipe.
///
/// # Errors
/// When libtorch cannot make it.
pub fn optimizer(model: &Model, recipe: &Recipe) -> Result<Optimizer, tch::TchError> {
    nn::Adam { eps: 1e-5, ..nn::Adam::default() }.build(&model.store, recipe.learning_rate)
}

/// The columns of a minibatch that the loss needs, each `[b]`.
struct Targets {
    action: Tensor,
    old: Tensor,
    advantage: Tensor,
    target: Tensor,
}

/// The clipped surrogate `-mean(min(ratio A, clip(ratio, 1 - c, 1 + c) A))` of log-probabilities `new` and `old` (`[b]` each).
pub fn surrogate(new: &Tensor, old: &Tensor, advantage: &Tensor, clip: f64) -> Tensor {
    let ratio = (new - old).exp();
    let clipped = ratio.clamp(1.0 - clip, 1.0 + clip) * advantage;
    -(ratio * advantage).minimum(&clipped).mean(Kind::Float)
}

/// One PPO update on the experience of all actors. `progress` goes from 0 to 1 over the training.
pub fn update(
    model: &Model,
    optimizer: &mut Optimizer,
    recipe: &Recipe,
    experience: &[Experience],
    progress: f64,
    rng: &mut Pcg64Mcg,
) -> Losses {
    let fall = 1.0 - 0.9 * progress.clamp(0.0, 1.0);
    optimizer.set_lr(recipe.learning_rate * fall);
    let per_actor: Vec<_> = experience.iter().map(|e| advantages(e, recipe.lambda as f32)).collect();
    let (mean, deviation) = moments(per_actor.iter().flat_map(|(a, _)| a));
    let mut order: Vec<(usize, usize)> =
        experience.iter().enumerate().flat_map(|(a, e)| (0..e.len()).map(move |i| (a, i))).collect();
    let (mut sum, mut steps) = (Losses::default(), 0.0);
    for _ in 0..recipe.epochs {
        order.shuffle(rng);
        for part in order.chunks(recipe.minibatch) {
            let input = Input::new(part.iter().map(|&(a, i)| experience[a].observation(i)));
            let column = |f: &dyn Fn(usize, usize) -> f32| {
                Tensor::from_slice(&part.iter().map(|&(a, i)| f(a, i)).collect::<Vec<_>>())
            };
            let actions: Vec<i64> = part.iter().map(|&(a, i)| experience[a].action[i] as i64).collect();
            let targets = Targets {
                action: Tensor::from_slice(&actions),
                old: column(&|a, i| experience[a].log_probability[i]),
                advantage: column(&|a, i| (per_actor[a].0[i] - mean) / deviation),
                target: column(&|a, i| per_actor[a].1[i]),
            };
            let losses = gradient_step(model, optimizer, recipe, recipe.entropy * fall, &input, &targets);
            sum.policy += losses.policy;
            sum.value += losses.value;
            sum.entropy += losses.entropy;
            sum.divergence += losses.divergence;
            steps += 1.0;
        }
    }
    let each = |x: f64| x / f64::max(steps, 1.0);
    Losses {
        policy: each(sum.policy),
        value: each(sum.value),
        entropy: each(sum.entropy),
        divergence: each(sum.divergence),
    }
}

fn gradient_step(
    model: &Model,
    optimizer: &mut Optimizer,
    recipe: &Recipe,
    entropy_weight: f64,
    input: &Input,
    t: &Targets,
) -> Losses {
    let (log_p, value) = model.forward(input);
    let new = log_p.gather(1, &t.action.unsqueeze(1), false).squeeze_dim(1);
    let policy = surrogate(&new, &t.old, &t.advantage, recipe.clip);
    let value_loss = (&value - &t.target).square().mean(Kind::Float);
    let entropy = -(log_p.exp() * &log_p).sum_dim_intlist(1, false, Kind::Float).mean(Kind::Float);
    let guided = input.log_guide(recipe.smoothing);
    let astray = (log_p.exp() * (&log_p - guided)).sum_dim_intlist(1, false, Kind::Float).mean(Kind::Float);
    let loss =
        &policy + &value_loss * recipe.value_weight - &entropy * entropy_weight + &astray * recipe.anchor;
    optimizer.zero_grad();
    loss.backward();
    optimizer.clip_grad_norm(recipe.max_gradient);
    optimizer.step();
    Losses {
        policy: policy.double_value(&[]),
        value: value_loss.double_value(&[]),
        entropy: entropy.double_value(&[]),
        divergence: (&t.old - new).mean(Kind::Float).double_value(&[]),
    }
}

/// One pass of imitation: cross-entropy to the recorded choices, smoothed over all candidates so that reinforcement still finds something
/// to try out (label smoothing: Szegedy et al., CVPR 2016), and the value head to the returns of the teacher.
pub fn imitate(
    model: &Model,
    optimizer: &mut Optimizer,
    recipe: &Recipe,
    experience: &[Experience],
    rng: &mut Pcg64Mcg,
) -> f64 {
    let mut order: Vec<(usize, usize)> =
        experience.iter().enumerate().flat_map(|(a, e)| (0..e.len()).map(move |i| (a, i))).collect();
    let returns: Vec<_> = experience.iter().map(|e| advantages(e, 1.0).1).collect();
    let (mut sum, mut steps) = (0.0, 0.0);
    for _ in 0..recipe.epochs {
        order.shuffle(rng);
        for part in order.chunks(recipe.minibatch) {
            let input = Input::new(part.iter().map(|&(a, i)| experience[a].observation(i)));
            let actions: Vec<i64> = part.iter().map(|&(a, i)| experience[a].action[i] as i64).collect();
            let target = Tensor::from_slice(&part.iter().map(|&(a, i)| returns[a][i]).collect::<Vec<_>>());
            let (log_p, value) = model.forward(&input);
            let chosen = log_p.gather(1, &Tensor::from_slice(&actions).unsqueeze(1), false).squeeze_dim(1);
            let even = input.mean_over_candidates(&log_p);
            let smooth = &chosen * (1.0 - recipe.smoothing) + even * recipe.smoothing;
            let cross_entropy = -smooth.mean(Kind::Float);
            let loss = &cross_entropy + (value - target).square().mean(Kind::Float) * recipe.value_weight;
            optimizer.zero_grad();
            loss.backward();
            optimizer.clip_grad_norm(recipe.max_gradient);
            optimizer.step();
            sum += cross_entropy.double_value(&[]);
            steps += 1.0;
        }
    }
    sum / f64::max(steps, 1.0)
}

/// Mean and standard deviation (at least 1e-6).
fn moments<'a>(values: impl Iterator<Item = &'a f32> + Clone) -> (f32, f32) {
    let n = values.clone().count().max(1) as f32;
    let mean = values.clone().sum::<f32>() / n;
    let variance = values.map(|v| (v - mean).powi(2)).sum::<f32>() / n;
    (mean, variance.sqrt().max(1e-6))
}
