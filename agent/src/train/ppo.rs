//! Proximal policy optimisation (Schulman et al., 2017) with generalised advantage estimation (Schulman et al., 2016) for a
//! semi-Markov process: the discount is a function of the time that passed, not of the number of decisions. And imitation, which goes
//! before. It refuses to collect experience; see `rollout`.

use super::Losses;
use super::adam::Adam;
use super::model::{Input, Model};
use super::recipe::Recipe;
use crate::experience::Experience;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;
use tch::{Kind, Tensor};

/// The clipped surrogate `-mean(min(ratio A, clip(ratio, 1 - c, 1 + c) A))` of log-probabilities `new` and `old` (`[b]` each).
pub fn surrogate(new: &Tensor, old: &Tensor, advantage: &Tensor, clip: f64) -> Tensor {
    let ratio = (new - old).exp();
    let clipped = ratio.clamp(1.0 - clip, 1.0 + clip) * advantage;
    -(ratio * advantage).minimum(&clipped).mean(Kind::Float)
}

/// The value loss `mean(max((v - target)^2, (old + clip(v - old, -c, c) - target)^2))`: a value that has moved further than `clip` from
/// what it was gets no further pull, as the published PPO code has it. `clip = 0`: the plain square.
pub fn value_loss(value: &Tensor, old: &Tensor, target: &Tensor, clip: f64) -> Tensor {
    let plain = (value - target).square();
    if clip <= 0.0 {
        return plain.mean(Kind::Float);
    }
    let clipped = (old + (value - old).clamp(-clip, clip) - target).square();
    plain.maximum(&clipped).mean(Kind::Float)
}

/// The divergence of the new policy from the old one, estimated by `mean(ratio - 1 - ln ratio)` (Schulman, 2020): never negative and
/// of less variance than `mean(-ln ratio)`.
pub fn divergence(new: &Tensor, old: &Tensor) -> f64 {
    let log_ratio = new.detach() - old;
    (log_ratio.exp() - 1.0 - log_ratio).mean(Kind::Double).double_value(&[])
}

/// Learning rate and entropy bonus fall linearly to a tenth: the factor at `progress`, which goes from 0 to 1 over the training.
pub fn fall(progress: f64) -> f64 {
    1.0 - 0.9 * progress.clamp(0.0, 1.0)
}

/// The columns of a minibatch that the loss needs, each `[b]`.
struct Targets {
    action: Tensor,
    /// Log-probability of the action when it was taken.
    old: Tensor,
    /// Value of the state at that time.
    old_value: Tensor,
    advantage: Tensor,
    target: Tensor,
}

/// One PPO update on the experience of all actors.
pub fn update(
    model: &Model,
    adam: &mut Adam,
    recipe: &Recipe,
    experience: &[Experience],
    progress: f64,
    rng: &mut Pcg64Mcg,
) -> Losses {
    let rate = recipe.learning_rate * fall(progress);
    let entropy_weight = recipe.entropy * fall(progress);
    let per_actor: Vec<_> = experience.iter().map(|e| e.advantages(recipe.lambda as f32)).collect();
    let (mean, deviation) = moments(per_actor.iter().flat_map(|(a, _)| a));
    let mut order = everything(experience);
    let mut sum = Losses::default();
    'epochs: for _ in 0..recipe.epochs {
        order.shuffle(rng);
        for part in order.chunks(recipe.minibatch) {
            let input = Input::new(part.iter().map(|&(a, i)| experience[a].observation(i)));
            let column = |f: &dyn Fn(usize, usize) -> f32| {
                Tensor::from_slice(&part.iter().map(|&(a, i)| f(a, i)).collect::<Vec<_>>())
            };
            let targets = Targets {
                action: actions(experience, part),
                old: column(&|a, i| experience[a].log_probability[i]),
                old_value: column(&|a, i| experience[a].value[i]),
                advantage: column(&|a, i| (per_actor[a].0[i] - mean) / deviation),
                target: column(&|a, i| per_actor[a].1[i]),
            };
            let (losses, loss) = loss(model, recipe, entropy_weight, &input, &targets);
            // The policy has left the region in which the surrogate says something about it.
            if recipe.max_divergence > 0.0 && losses.divergence > recipe.max_divergence {
                break 'epochs;
            }
            adam.descend(&loss, rate, recipe.max_gradient);
            sum.add(&losses);
        }
    }
    Losses { learning_rate: rate, ..sum.mean() }
}

/// The parts of the loss as numbers, and the loss to descend.
fn loss(model: &Model, recipe: &Recipe, entropy_weight: f64, input: &Input, t: &Targets) -> (Losses, Tensor) {
    let (log_p, value) = model.forward(input);
    let new = log_p.gather(1, &t.action.unsqueeze(1), false).squeeze_dim(1);
    let policy = surrogate(&new, &t.old, &t.advantage, recipe.clip);
    let value = value_loss(&value, &t.old_value, &t.target, recipe.value_clip);
    let entropy = -(log_p.exp() * &log_p).sum_dim_intlist(1, false, Kind::Float).mean(Kind::Float);
    let guided = input.log_guide(recipe.smoothing);
    let astray = (log_p.exp() * (&log_p - guided)).sum_dim_intlist(1, false, Kind::Float).mean(Kind::Float);
    let losses = Losses {
        policy: policy.double_value(&[]),
        value: value.double_value(&[]),
        entropy: entropy.double_value(&[]),
        divergence: divergence(&new, &t.old),
        ..Losses::default()
    };
    (losses, policy + value * recipe.value_weight - entropy * entropy_weight + astray * recipe.anchor)
}

/// Imitation: cross-entropy to the recorded choices, smoothed over all candidates so that reinforcement still finds something to try out
/// (label smoothing: Szegedy et al., CVPR 2016), and the value head to the returns of the teacher.
pub fn imitate(
    model: &Model,
    adam: &mut Adam,
    recipe: &Recipe,
    experience: &[Experience],
    rng: &mut Pcg64Mcg,
) -> Losses {
    let mut order = everything(experience);
    let returns: Vec<_> = experience.iter().map(|e| e.advantages(1.0).1).collect();
    let mut sum = Losses::default();
    for _ in 0..recipe.epochs {
        order.shuffle(rng);
        for part in order.chunks(recipe.minibatch) {
            let input = Input::new(part.iter().map(|&(a, i)| experience[a].observation(i)));
            let target = Tensor::from_slice(&part.iter().map(|&(a, i)| returns[a][i]).collect::<Vec<_>>());
            let (log_p, value) = model.forward(&input);
            let chosen = log_p.gather(1, &actions(experience, part).unsqueeze(1), false).squeeze_dim(1);
            let even = input.mean_over_candidates(&log_p);
            let smooth: Tensor = chosen * (1.0 - recipe.smoothing) + even * recipe.smoothing;
            let policy = -smooth.mean(Kind::Float);
            let value = (value - target).square().mean(Kind::Float);
            sum.add(&Losses {
                policy: policy.double_value(&[]),
                value: value.double_value(&[]),
                ..Losses::default()
            });
            adam.descend(&(policy + value * recipe.value_weight), recipe.learning_rate, recipe.max_gradient);
        }
    }
    Losses { learning_rate: recipe.learning_rate, ..sum.mean() }
}

/// All decisions as (actor, decision).
fn everything(experience: &[Experience]) -> Vec<(usize, usize)> {
    experience.iter().enumerate().flat_map(|(a, e)| (0..e.len()).map(move |i| (a, i))).collect()
}

/// The choices of a minibatch, `[b]`, i64.
fn actions(experience: &[Experience], part: &[(usize, usize)]) -> Tensor {
    Tensor::from_slice(&part.iter().map(|&(a, i)| experience[a].action[i] as i64).collect::<Vec<_>>())
}

/// Mean and standard deviation (at least 1e-6).
fn moments<'a>(values: impl Iterator<Item = &'a f32> + Clone) -> (f32, f32) {
    let n = values.clone().count().max(1) as f32;
    let mean = values.clone().sum::<f32>() / n;
    let variance = values.map(|v| (v - mean).powi(2)).sum::<f32>() / n;
    (mean, variance.sqrt().max(1e-6))
}
