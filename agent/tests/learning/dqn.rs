//! Double DQN against hand-computed numbers, and end to end on the trivial world.

use super::worlds::{quick, run, trivial};
use cosched_agent::experience::{EndState, Experience};
use cosched_agent::features::{CANDIDATE_FEATURES, CONTEXT_FEATURES};
use cosched_agent::train::dqn::{double_target, exploration, large_margin, remember};
use cosched_agent::train::explore::Exploration;
use cosched_agent::train::recipe::{DqnRecipe, Explore, LearnerKind, Recipe};
use cosched_agent::train::replay::{Replay, Transition};
use cosched_agent::train::rollout::Guidance;
use cosched_agent::train::train;
use cosched_env::case::Case;
use cosched_env::observation::{Action, Observation};
use cosched_env::world::{Decision, Policy};
use tch::{Kind, Tensor};

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double)).unwrap()
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
}

#[test]
fn targets_by_hand() {
    // The learning network likes candidate 1, then 0; the older one values them 2 and 5. The second episode has finished.
    let online = Tensor::from_slice2(&[[1.0_f32, 3.0, -1e9], [4.0, 0.0, 1.0], [1.0, 2.0, 0.0]]);
    let target = Tensor::from_slice2(&[[9.0_f32, 2.0, -1e9], [5.0, 8.0, 1.0], [6.0, 7.0, 8.0]]);
    let reward = Tensor::from_slice(&[1.0_f32, -1.0, 0.5]);
    let discount = Tensor::from_slice(&[0.5_f32, 0.9, 0.0]);
    let y = numbers(&double_target(&reward, &discount, &online, &target));
    assert!(near(&y, &[1.0 + 0.5 * 2.0, -1.0 + 0.9 * 5.0, 0.5]), "{y:?}");
    // Saboteur: plain DQN, which lets the older network choose too, believes what is overrated.
    let plain = numbers(&double_target(&reward, &discount, &target, &target));
    assert!(near(&plain, &[1.0 + 0.5 * 9.0, -1.0 + 0.9 * 8.0, 0.5]), "{plain:?}");
}

#[test]
fn the_large_margin_by_hand() {
    let scores = Tensor::from_slice2(&[[1.0_f32, 0.8, -1e9], [1.0, 0.8, 0.2]]);
    let taught = Tensor::from_slice(&[0_i64, 2]);
    // The first leads by 0.2 of the 0.3 asked; the second is 0.8 behind and lacks the margin too.
    let loss = numbers(&large_margin(&scores, &taught, 0.3));
    assert!(near(&loss, &[0.1, 1.1]), "{loss:?}");
    assert!(near(&numbers(&large_margin(&scores, &taught, 0.1)), &[0.0, 0.9]));
    // Saboteur: without a margin a lead of nothing is enough.
    assert!(near(&numbers(&large_margin(&scores, &taught, 0.0)), &[0.0, 0.8]));
}

#[test]
fn exploration_falls_over_its_share() {
    let dqn = DqnRecipe { exploration: [1.0, 0.2], exploration_share: 0.5, ..DqnRecipe::default() };
    let mut recipe = Recipe { dqn, ..Recipe::default() };
    let at = |recipe: &Recipe, p| match exploration(recipe, p) {
        Exploration::Epsilon(x) | Exploration::Softmax(x) => x,
    };
    for (progress, expected) in [(0.0, 1.0), (0.25, 0.6), (0.5, 0.2), (1.0, 0.2)] {
        assert!((at(&recipe, progress) - expected).abs() < 1e-6, "{progress}");
    }
    recipe.dqn.explore = Explore::Boltzmann;
    assert_eq!(exploration(&recipe, 0.0), Exploration::Softmax(1.0));
}

/// Five decisions: the second ends a finished episode, the fourth one that is cut off, after the fifth the collection stops.
fn five() -> Experience {
    let rows = |n: usize| vec![n as f32; CANDIDATE_FEATURES];
    let end = |after, n| EndState { after, rows: rows(n), context: vec![n as f32; CONTEXT_FEATURES] };
    Experience {
        rows: (0..5).flat_map(rows).collect(),
        starts: (0..6).map(|i| i * CANDIDATE_FEATURES).collect(),
        context: vec![0.0; 5 * CONTEXT_FEATURES],
        action: vec![0; 5],
        reward: vec![1.0, 2.0, 4.0, 8.0, 16.0],
        discount: vec![0.5, 0.25, 0.5, 0.5, 0.125],
        last: vec![false, true, false, true, false],
        ends: vec![end(3, 30), end(4, 40)],
        ..Experience::default()
    }
}

/// (reward, discount, number of the next state) of each transition, oldest first.
fn remembered(e: &Experience, steps: usize) -> Vec<(f32, f32, Option<f32>)> {
    let mut replay = Replay::new(8, usize::MAX, 0.0);
    remember(&mut replay, e, steps, false);
    let of = |t: &Transition| (t.reward, t.discount, t.next.as_ref().map(|k| k.rows[0]));
    (0..replay.len()).map(|i| of(replay.get(i))).collect()
}

#[test]
fn rewards_add_up_to_the_end_of_the_episode_and_no_further() {
    let one = [
        (1.0, 0.5, Some(1.0)),
        (2.0, 0.25, None),
        (4.0, 0.5, Some(3.0)),
        (8.0, 0.5, Some(30.0)),
        (16.0, 0.125, Some(40.0)),
    ];
    assert_eq!(remembered(&five(), 1), one);
    // 1 + 0.5 * 2 and finished; 4 + 0.5 * 8 and cut off: the cut-off state follows, over 0.5 * 0.5.
    let two = [(2.0, 0.125, None), one[1], (8.0, 0.25, Some(30.0)), one[3], one[4]];
    assert_eq!(remembered(&five(), 2), two);
    assert_eq!(remembered(&five(), 3), two);
    // Saboteur: where ends are not marked, the episodes run into one another.
    let blind = Experience { last: vec![false; 5], ..five() };
    assert_eq!(remembered(&blind, 3)[0], (1.0 + 0.5 * 2.0 + 0.125 * 4.0, 0.0625, Some(3.0)));
}

/// With this seed, untrained weights happen to prefer the wrong processor.
fn dqn() -> Recipe {
    Recipe {
        seed: 5,
        decisions: 10_000,
        learner: LearnerKind::Dqn,
        minibatch: 128,
        steps: 16,
        dqn: DqnRecipe { warm_up: 1000, target_every: 50, ..DqnRecipe::default() },
        ..quick()
    }
}

#[test]
fn dqn_learns_the_trivial_world_and_the_same_seed_gives_the_same_weights() {
    let (weights, first, last) = run(&dqn());
    assert!(first < 0.6, "an untrained policy already reaches {first}");
    assert!(last > 0.9, "after training the utility is {last}, before it was {first}");
    assert!(weights == run(&Recipe { threads: 1, ..dqn() }).0, "the same seed gave other weights");
    let (_, _, boltzmann) = run(&Recipe {
        dqn: DqnRecipe { explore: Explore::Boltzmann, exploration: [0.3, 0.01], ..dqn().dqn },
        ..dqn()
    });
    assert!(boltzmann > 0.9, "with Boltzmann exploration the utility is {boltzmann}");
    // Saboteur: a learner that does not learn must fail the bound above.
    let (other, _, lazy) = run(&Recipe { learning_rate: 0.0, ..dqn() });
    assert!(lazy < 0.8, "without learning the utility is {lazy}: the bound shows nothing");
    assert!(other != weights, "weights that were never moved pass for those that were");
}

/// Takes the fast processor where it can, else waits.
struct Fast;

impl Policy for Fast {
    fn decide(&mut self, o: &Observation<'_>) -> Decision {
        let fast = |a: &Action| matches!(a, Action::Launch { processor, .. } if processor.0 == 1);
        let wait = || o.candidates.iter().position(|c| c.action == Action::Wait);
        let launch = o.candidates.iter().position(|c| fast(&c.action));
        Decision(launch.or_else(wait).unwrap_or(0))
    }
}

#[test]
fn dqn_begins_with_what_a_teacher_does() {
    let teacher = |_: &Case| -> Box<dyn Policy> { Box::new(Fast) };
    // No exploration of its own and hardly any time: what it can, it has from the teacher.
    let utility = |imitation: u64, seed: u64| {
        let dqn = DqnRecipe { exploration: [0.0, 0.0], steps: 1, warm_up: 0, ..dqn().dqn };
        let recipe = Recipe { imitation, decisions: 3_000, dqn, seed, ..self::dqn() };
        let mut last = f64::NAN;
        let watch = |p: &cosched_agent::train::Progress, _: &_| {
            last = if p.imitating || p.utility.is_nan() { last } else { p.utility };
            true
        };
        train(&[trivial()], &recipe, Guidance::taught(&teacher), None, watch).unwrap();
        last
    };
    // Some random weights happen to be right already, and some need longer: one seed alone shows nothing.
    let mean = |imitation| (1..=5).map(|seed| utility(imitation, seed)).sum::<f64>() / 5.0;
    let (taught, untaught) = (mean(8_000), mean(0));
    assert!(taught > 0.85, "{taught}");
    // Saboteur: the same without a teacher.
    assert!(untaught < taught - 0.1, "{untaught}, taught {taught}");
}
