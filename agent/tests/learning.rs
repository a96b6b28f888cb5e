//! The learner against hand-computed numbers, and end to end on a world that is trivial to master.
#![cfg(feature = "train")]

use cosched_agent::features::{CANDIDATE_FEATURES, CONTEXT_FEATURES};
use cosched_agent::guide::alone;
use cosched_agent::network::Forward;
use cosched_agent::train::model::{Input, Model};
use cosched_agent::train::ppo::{advantages, surrogate};
use cosched_agent::train::recipe::Recipe;
use cosched_agent::train::rollout::{Experience, Lead, Source};
use cosched_agent::train::train;
use cosched_env::objective::Objective;
use cosched_env::plan::{Cost, PLAN_FORMAT, Plan, ProcessorSpec, SegmentSpec, Variant};
use cosched_env::scenario::{Scenario, Stream};
use rand::{RngExt, SeedableRng};
use tch::Tensor;

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
    let (a, target) = advantages(&two_steps(true, 3.0), 0.5);
    assert!((a[1] - 2.9).abs() < 1e-6 && (a[0] - 3.155).abs() < 1e-6, "{a:?}");
    assert!((target[0] - 3.655).abs() < 1e-6 && (target[1] - 4.4).abs() < 1e-6, "{target:?}");
}

#[test]
fn a_truncated_episode_bootstraps_and_a_finished_one_does_not() {
    let finished = advantages(&two_steps(true, 0.0), 0.5).0[1];
    let truncated = advantages(&two_steps(true, 3.0), 0.5).0[1];
    assert!((finished - 0.5).abs() < 1e-6 && (truncated - 2.9).abs() < 1e-6, "{finished} {truncated}");
}

#[test]
fn nothing_leaks_over_the_end_of_an_episode() {
    let mut e = two_steps(false, 0.0);
    e.last[0] = true;
    e.next_value[0] = 0.0;
    let (a, _) = advantages(&e, 0.5);
    assert!((a[0] - 0.5).abs() < 1e-6, "{a:?}");
    // Saboteur: without the boundary the second step does leak into the first.
    e.last[0] = false;
    assert!((advantages(&e, 0.5).0[0] - 0.5).abs() > 0.1);
}

#[test]
fn the_surrogate_is_clipped_on_the_pessimistic_side() {
    // ratios 1.5, 0.5, 1.5, 0.5 with advantages 1, 1, -1, -1 and clip 0.2: min gives 1.2, 0.5, -1.5, -0.8
    let new = Tensor::from_slice(&[1.5_f32.ln(), 0.5_f32.ln(), 1.5_f32.ln(), 0.5_f32.ln()]);
    let old = Tensor::zeros([4], (tch::Kind::Float, tch::Device::Cpu));
    let advantage = Tensor::from_slice(&[1.0_f32, 1.0, -1.0, -1.0]);
    let loss = surrogate(&new, &old, &advantage, 0.2).double_value(&[]);
    assert!((loss - -(1.2 + 0.5 - 1.5 - 0.8) / 4.0).abs() < 1e-6, "{loss}");
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

/// One task on a fast and a slow processor; only the fast one meets the deadline.
fn trivial() -> Source {
    let cost = |ms: f64| Some(Cost { mean_us: ms * 1e3, p50_us: ms * 1e3, p95_us: ms * 1e3, energy_mj: 1.0 });
    let processor = |name: &str| ProcessorSpec {
        name: name.into(),
        device: String::new(),
        slots: 1,
        active_watts: 1.0,
        idle_watts: 0.0,
        copy_us: 0.0,
        copy_gbps: 0.0,
        launch_us: 0.0,
    };
    let segments = vec![SegmentSpec {
        name: "all".into(),
        input_bytes: 0,
        output_bytes: 0,
        costs: vec![cost(50.0), cost(5.0)],
        ..SegmentSpec::default()
    }];
    let variant =
        Variant { name: "v".into(), task: "t".into(), accuracy: 1.0, segments, ..Variant::default() };
    let stream = Stream {
        task: "t".into(),
        period_ms: 20.0,
        jitter_ms: 2.0,
        deadline_ms: 15.0,
        expire_ms: 30.0,
        ..Stream::default()
    };
    Source {
        name: "trivial".into(),
        plan: Plan {
            format: PLAN_FORMAT,
            provenance: Default::default(),
            processors: vec![processor("slow"), processor("fast")],
            contention: vec![vec![1.0; 2]; 2],
            variants: vec![variant],
        },
        device: Default::default(),
        scenario: Scenario { name: "trivial".into(), streams: vec![stream], objective: Objective::default() },
        emulator: Default::default(),
        options: Default::default(),
    }
}

fn quick() -> Recipe {
    Recipe {
        decisions: 20_000,
        imitation: 0,
        actors: 16,
        steps: 64,
        hidden: 16,
        learning_rate: 3e-3,
        ..Recipe::default()
    }
}

#[test]
fn a_trivial_world_is_learned_and_the_same_seed_gives_the_same_weights() {
    let run = |recipe: &Recipe| {
        let (mut first, mut last) = (f64::NAN, f64::NAN);
        let weights = train(&[trivial()], recipe, &alone, Lead::Network, None, |p, _| {
            if first.is_nan() {
                first = p.utility;
            }
            last = if p.utility.is_nan() { last } else { p.utility };
            true
        });
        (weights.unwrap(), first, last)
    };
    let (weights, first, last) = run(&quick());
    assert!(first < 0.6, "an untrained policy already reaches {first}");
    assert!(last > 0.9, "after training the utility is {last}, before it was {first}");
    let again = run(&Recipe { threads: 1, ..quick() }).0;
    assert!(weights == again, "the same seed on another number of threads gave other weights");
    // Saboteur: a learner that does not learn must fail the bound above.
    let (_, _, lazy) = run(&Recipe { learning_rate: 0.0, ..quick() });
    assert!(lazy < 0.8, "without learning the utility is {lazy}: the bound shows nothing");
}

#[test]
fn a_training_goes_on_from_given_weights() {
    let start = Model::new(16, 9).weights();
    let still = Recipe { learning_rate: 0.0, decisions: 1000, ..quick() };
    let same = train(&[trivial()], &still, &alone, Lead::Network, Some(&start), |_, _| true).unwrap();
    assert!(same == start, "without learning the weights must stay as they were given");
    let wide = Model::new(32, 9).weights();
    let error =
        train(&[trivial()], &still, &alone, Lead::Network, Some(&wide), |_, _| true).unwrap_err().to_string();
    assert!(error.contains("32") && error.contains("16"), "{error}");
}
