//! The learners against hand-computed numbers, and end to end on worlds that are trivial to master.
#![cfg(feature = "train")]

#[path = "learning/dqn.rs"]
mod dqn;
#[path = "learning/replay.rs"]
mod replay;
#[path = "learning/resume.rs"]
mod resume;
#[path = "learning/worlds.rs"]
mod worlds;

use cosched_agent::experience::Experience;
use cosched_agent::features::{CANDIDATE_FEATURES, CONTEXT_FEATURES};
use cosched_agent::guide::alone;
use cosched_agent::network::Forward;
use cosched_agent::randomize::Ranges;
use cosched_agent::train::adam::Adam;
use cosched_agent::train::model::{Input, Model};
use cosched_agent::train::ppo::{divergence, fall, surrogate, value_loss};
use cosched_agent::train::recipe::Recipe;
use cosched_agent::train::rollout::{Crew, Guidance, Source};
use cosched_agent::train::{Start, Training, train};
use rand::{RngExt, SeedableRng};
use tch::nn::{Init, OptimizerConfig, VarStore};
use tch::{Kind, Tensor};
use worlds::{constant, quick, run, short, trivial};

fn two_steps(last: bool, next_value: f32) -> Experience {
    Experience {
        action: vec![0, 0],
        reward: vec![1.0, 2.0],
        discount: vec![0.9, 0.8],
        value: vec![0.5, 1.5],
        next_value: vec![1.5, next_value],
        last: vec![false, last],
        ..Experience::default()
    }
}

#[test]
fn advantages_by_hand() {
    // delta_1 = 2 + 0.8*3 - 1.5 = 2.9; delta_0 = 1 + 0.9*1.5 - 0.5 = 1.85; A_0 = 1.85 + 0.9*0.5*2.9 = 3.155
    let (a, target) = two_steps(true, 3.0).advantages(0.5);
    assert!((a[1] - 2.9).abs() < 1e-6 && (a[0] - 3.155).abs() < 1e-6, "{a:?}");
    assert!((target[0] - 3.655).abs() < 1e-6 && (target[1] - 4.4).abs() < 1e-6, "{target:?}");
    // Saboteur: another lambda gives other numbers.
    assert!((two_steps(true, 3.0).advantages(0.9).0[0] - 3.155).abs() > 0.1);
}

#[test]
fn a_truncated_episode_bootstraps_and_a_finished_one_does_not() {
    let finished = two_steps(true, 0.0).advantages(0.5).0[1];
    let truncated = two_steps(true, 3.0).advantages(0.5).0[1];
    assert!((finished - 0.5).abs() < 1e-6 && (truncated - 2.9).abs() < 1e-6, "{finished} {truncated}");
}

/// What collected experience holds behind the ends of episodes, for a network that values every state at 7.
fn behind_ends(source: Source) -> Vec<f32> {
    let recipe = Recipe { episode_ms: 300.0, steps: 120, actors: 4, ..quick() };
    let sources = [source];
    let mut crew = Crew::new(&sources, &recipe, &alone, 0, 4).unwrap();
    let experience = crew.collect(&sources, &recipe, &constant(7.0), Guidance::NONE).unwrap();
    for e in &experience {
        // Every state behind a decision is the next decision's, or is kept apart, or there is none.
        assert!(
            e.ends.iter().all(|end| (e.last[end.after] || end.after + 1 == e.len()) && end.rows.len() > 1)
        );
        let open: Vec<usize> = (0..e.len()).filter(|&t| e.last[t] && e.next_value[t] != 0.0).collect();
        assert!(open.iter().all(|&t| e.ends.iter().any(|end| end.after == t)), "{open:?}");
    }
    experience.iter().flat_map(|e| (0..e.len()).filter(|&t| e.last[t]).map(|t| e.next_value[t])).collect()
}

#[test]
fn collected_experience_tells_truncated_from_finished() {
    let (truncated, finished) = (behind_ends(trivial()), behind_ends(short()));
    let enough = |ends: &[f32]| ends.len() >= 4;
    assert!(enough(&truncated) && truncated.iter().all(|v| *v == 7.0), "{truncated:?}");
    // The saboteur is the other world: a rule that gives every end the same value fails one of the two.
    assert!(enough(&finished) && finished.iter().all(|v| *v == 0.0), "{finished:?}");
}

#[test]
fn nothing_leaks_over_the_end_of_an_episode() {
    let mut e = two_steps(false, 0.0);
    e.last[0] = true;
    e.next_value[0] = 0.0;
    let (a, _) = e.advantages(0.5);
    assert!((a[0] - 0.5).abs() < 1e-6, "{a:?}");
    // Saboteur: without the boundary the second step does leak into the first.
    e.last[0] = false;
    assert!((e.advantages(0.5).0[0] - 0.5).abs() > 0.1);
}

#[test]
fn the_discount_is_that_of_the_time_that_passed() {
    // Five deadlines of 15 ms are the time constant; episodes are 300 ms long, however many decisions that takes.
    let ranges = Ranges { deadline: 1.0, ..Ranges::default() };
    let recipe = Recipe { episode_ms: 300.0, steps: 400, actors: 4, ranges, ..quick() };
    let sources = [trivial()];
    let mut crew = Crew::new(&sources, &recipe, &alone, 0, 4).unwrap();
    let experience = crew.collect(&sources, &recipe, &constant(0.0), Guidance::NONE).unwrap();
    let (mut times, mut decisions) = (Vec::new(), Vec::new());
    for e in &experience {
        let ends: Vec<usize> = (0..e.len()).filter(|&t| e.last[t]).collect();
        for pair in ends.windows(2) {
            let discounts = &e.discount[pair[0] + 1..=pair[1]];
            times.push(-75.0 * discounts.iter().map(|d| f64::from(d.ln())).sum::<f64>());
            decisions.push(discounts.len() as f64);
        }
    }
    // From the first decision, which comes with the first request, to the first one due after the end.
    assert!(times.len() > 8 && times.iter().all(|t| (240.0..380.0).contains(t)), "{times:?}");
    // Saboteur: a discount for each decision would not be as even.
    let ratio = |x: &[f64]| x.iter().copied().fold(0.0, f64::max) / x.iter().copied().fold(1e9, f64::min);
    assert!(ratio(&decisions) > 1.2 * ratio(&times) && ratio(&times) < 1.5, "{decisions:?} {times:?}");
}

#[test]
fn the_surrogate_is_clipped_on_the_pessimistic_side() {
    // ratios 1.5, 0.5, 1.5, 0.5 with advantages 1, 1, -1, -1 and clip 0.2: min gives 1.2, 0.5, -1.5, -0.8
    let new = Tensor::from_slice(&[1.5_f32.ln(), 0.5_f32.ln(), 1.5_f32.ln(), 0.5_f32.ln()]);
    let old = Tensor::zeros([4], (tch::Kind::Float, tch::Device::Cpu));
    let advantage = Tensor::from_slice(&[1.0_f32, 1.0, -1.0, -1.0]);
    let loss = |clip| surrogate(&new, &old, &advantage, clip).double_value(&[]);
    assert!((loss(0.2) - -(1.2 + 0.5 - 1.5 - 0.8) / 4.0).abs() < 1e-6, "{}", loss(0.2));
    // Saboteur: without the clip the gains and losses cancel.
    assert!(loss(10.0).abs() < 1e-6, "{}", loss(10.0));
}

#[test]
fn a_value_is_not_pulled_further_than_the_clip() {
    // Moved from 0.5 by 0.5, 1.5 and -0.5, cut to 0.2: 0.7, 0.7, 0.3. The larger square of each: 1.69, 4, 1.
    let value = Tensor::from_slice(&[1.0_f32, 2.0, 0.0]).set_requires_grad(true);
    let old = Tensor::from_slice(&[0.5_f32; 3]);
    let target = Tensor::from_slice(&[2.0_f32, 0.0, 1.0]);
    let pull = |clip| {
        let loss = value_loss(&value, &old, &target, clip);
        let pulls = Tensor::run_backward(&[&loss], &[&value], false, false);
        (loss.double_value(&[]), Vec::<f32>::try_from(&pulls[0]).unwrap())
    };
    let (loss, pulls) = pull(0.2);
    assert!((loss - (1.69 + 4.0 + 1.0) / 3.0).abs() < 1e-6, "{loss}");
    // The first is on its way to the target and has gone far enough; the others go back.
    assert!(pulls[0] == 0.0 && (pulls[1] - 4.0 / 3.0).abs() < 1e-6 && (pulls[2] + 2.0 / 3.0).abs() < 1e-6);
    // Saboteur: without the clip the first is pulled on.
    let (loss, pulls) = pull(0.0);
    assert!((loss - 2.0).abs() < 1e-6 && (pulls[0] + 2.0 / 3.0).abs() < 1e-6, "{loss} {pulls:?}");
}

#[test]
fn the_divergence_by_hand() {
    // Ratios 1.5 and 2: (0.5 - ln 1.5 + 1 - ln 2) / 2.
    let new = Tensor::from_slice(&[1.5_f32.ln(), 2.0_f32.ln()]);
    let old = Tensor::zeros([2], (Kind::Float, tch::Device::Cpu));
    let expected = (1.5 - 1.5_f64.ln() - 2.0_f64.ln()) / 2.0;
    assert!((divergence(&new, &old) - expected).abs() < 1e-6);
    // Saboteur: the mean of `-ln ratio` would be negative here, and stop nothing.
    assert!((&old - &new).mean(Kind::Double).double_value(&[]) < 0.0);
}

#[test]
fn the_passes_end_when_the_policy_has_moved_far_enough() {
    let steps = |max_divergence| {
        let recipe = Recipe { max_divergence, minibatch: 256, ..quick() };
        let sources = [trivial()];
        let mut training = Training::new(&sources, &recipe, Guidance::NONE, Start::Scratch).unwrap();
        training.step().unwrap().unwrap().losses.steps
    };
    let (free, bounded, never) = (steps(0.0), steps(1e-4), steps(1e9));
    // 16 actors, 64 steps, 4 passes in minibatches of 256. The saboteur is a bound that nothing reaches.
    assert!(free == 16 && never == 16, "{free} {never}");
    assert!((1..16).contains(&bounded), "{bounded}");
}

#[test]
fn the_learning_rate_falls_to_a_tenth() {
    assert!((fall(0.0), fall(2.0)) == (1.0, fall(1.0)) && (fall(0.5) - 0.55).abs() < 1e-12);
    let recipe = Recipe { decisions: 4 * 16 * 64, ..quick() };
    let mut rates = Vec::new();
    train(&[trivial()], &recipe, Guidance::NONE, None, |p, _| {
        rates.push(p.losses.learning_rate / recipe.learning_rate);
        true
    })
    .unwrap();
    let expected = [0.775, 0.55, 0.325, 0.1];
    assert!(rates.len() == 4 && rates.iter().zip(expected).all(|(r, e)| (r - e).abs() < 1e-12), "{rates:?}");
}

#[test]
fn adam_takes_the_steps_of_libtorch() {
    let variables = |seed: f32| {
        let store = VarStore::new(tch::Device::Cpu);
        let a = store.root().var("a", &[3, 2], Init::Const(f64::from(seed)));
        let b = store.root().var("b", &[2], Init::Const(-0.5));
        (store, a, b)
    };
    // Gradients of unlike size, some above the norm where they are cut.
    let loss = |a: &Tensor, b: &Tensor, t: i32| {
        let x = Tensor::from_slice(&[1.0_f32, -2.0, 0.5 + t as f32 / 10.0]);
        (x.unsqueeze(0).matmul(a) + b - 1.0).square().sum(Kind::Float) * if t % 3 == 0 { 10.0 } else { 0.01 }
    };
    let distance = |forgets: bool| {
        let ((theirs, a1, b1), (_ours, a2, b2)) = (variables(0.3), variables(0.3));
        let settings = tch::nn::Adam { eps: 1e-5, ..tch::nn::Adam::default() };
        let mut libtorch = settings.build(&theirs, 0.03).unwrap();
        let mut adam = Adam::new(vec![a2.shallow_clone(), b2.shallow_clone()]);
        for t in 0..80 {
            libtorch.zero_grad();
            loss(&a1, &b1, t).backward();
            libtorch.clip_grad_norm(0.5);
            libtorch.step();
            adam.descend(&loss(&a2, &b2, t), 0.03, 0.5);
            if forgets && t == 40 {
                adam = Adam::new(vec![a2.shallow_clone(), b2.shallow_clone()]);
            }
        }
        assert!((&a1 - 0.3).abs().max().double_value(&[]) > 0.1, "nothing was learned");
        f64::max((a1 - a2).abs().max().double_value(&[]), (b1 - b2).abs().max().double_value(&[]))
    };
    assert!(distance(false) < 1e-6, "{}", distance(false));
    // Saboteur: an optimizer that forgets its moments half way ends elsewhere.
    assert!(distance(true) > 1e-4, "{}", distance(true));
}

#[test]
fn the_plain_forward_pass_equals_tch() {
    let model = Model::new(64, 3);
    let weights = model.weights();
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(7);
    let observations: Vec<(Vec<f32>, Vec<f32>)> = (0..200)
        .map(|_| {
            let n = rng.random_range(1..80);
            let mut random = |n| (0..n).map(|_| rng.random_range(-1.0..1.0_f32)).collect::<Vec<_>>();
            (random(n * CANDIDATE_FEATURES), random(CONTEXT_FEATURES))
        })
        .collect();
    let input = Input::new(observations.iter().map(|(r, c)| (r.as_slice(), c.as_slice())));
    let (log_p, value) = tch::no_grad(|| model.forward(&input));
    let mut forward = Forward::new(&weights);
    for (i, (rows, context)) in observations.iter().enumerate() {
        let v = forward.run_on(rows, context);
        assert!((f64::from(v) - value.double_value(&[i as i64])).abs() < 1e-5);
        let log_sum = forward.logits.iter().map(|l| l.exp()).sum::<f32>().ln();
        for (j, l) in forward.logits.iter().enumerate() {
            let expected = log_p.double_value(&[i as i64, j as i64]);
            assert!((f64::from(l - log_sum) - expected).abs() < 1e-5, "observation {i} candidate {j}");
        }
    }
    // Weights that go out and come back are the same.
    let other = Model::new(64, 4);
    assert!(other.weights() != weights, "two seeds gave the same weights");
    other.set_weights(&weights);
    assert!(other.weights() == weights);
}

#[test]
fn a_trivial_world_is_learned_and_the_same_seed_gives_the_same_weights() {
    let (weights, first, last) = run(&quick());
    assert!(first < 0.6, "an untrained policy already reaches {first}");
    assert!(last > 0.9, "after training the utility is {last}, before it was {first}");
    let again = run(&Recipe { threads: 1, ..quick() }).0;
    assert!(weights == again, "the same seed on another number of threads gave other weights");
    // Saboteur: a learner that does not learn must fail the bound above.
    let (other, _, lazy) = run(&Recipe { learning_rate: 0.0, ..quick() });
    assert!(lazy < 0.8, "without learning the utility is {lazy}: the bound shows nothing");
    assert!(other != weights, "weights that were never moved pass for those that were");
}

#[test]
fn a_training_goes_on_from_given_weights() {
    let start = Model::new(16, 9).weights();
    let still = Recipe { learning_rate: 0.0, decisions: 1000, ..quick() };
    let same = train(&[trivial()], &still, Guidance::NONE, Some(&start), |_, _| true).unwrap();
    assert!(same == start, "without learning the weights must stay as they were given");
    let wide = Model::new(32, 9).weights();
    let error =
        train(&[trivial()], &still, Guidance::NONE, Some(&wide), |_, _| true).unwrap_err().to_string();
    assert!(error.contains("32") && error.contains("16"), "{error}");
}
