//! A training that is stopped and goes on is the training that was not stopped.

use super::worlds::{quick, short, trivial};
use cosched_agent::network::Weights;
use cosched_agent::train::recipe::{DqnRecipe, LearnerKind, Recipe};
use cosched_agent::train::rollout::{Guidance, Source};
use cosched_agent::train::state::State;
use cosched_agent::train::{Progress, Start, Training};
use cosched_env::case::Case;
use cosched_env::observation::Observation;
use cosched_env::world::{Decision, Policy};

/// Takes the last candidate: enough of a teacher.
struct Last;

impl Policy for Last {
    fn decide(&mut self, o: &Observation<'_>) -> Decision {
        Decision(o.candidates.len() - 1)
    }
}

fn recipe() -> Recipe {
    // Episodes of 500 ms end, are cut off and are half way at every update.
    let (imitation, decisions) = (4_000, 8_000);
    Recipe {
        decisions,
        imitation,
        epochs: 2,
        actors: 40,
        steps: 32,
        episode_ms: 500.0,
        threads: 1,
        value_clip: 0.2,
        ..quick()
    }
}

fn sources() -> [Source; 2] {
    [trivial(), short()]
}

fn words(p: &Progress) -> String {
    format!("{p:?}")
}

/// A change of a state.
type Spoil = fn(&mut State);

/// The curve and the weights, stopped after `stop` updates and resumed from bytes that `spoil` may change.
fn interrupted(recipe: &Recipe, stop: usize, spoil: Spoil) -> (Vec<String>, Weights) {
    let teacher = |_: &Case| -> Box<dyn Policy> { Box::new(Last) };
    let guidance = Guidance::taught(&teacher);
    let (sources, mut curve) = (sources(), Vec::new());
    let mut training = Training::new(&sources, recipe, guidance, Start::Scratch).unwrap();
    for _ in 0..stop {
        curve.extend(training.step().unwrap().as_ref().map(words));
    }
    if stop > 0 {
        let bytes = training.state().to_bytes().unwrap();
        drop(training);
        let mut state = State::from_bytes("x", &bytes).unwrap();
        spoil(&mut state);
        training = Training::new(&sources, recipe, guidance, Start::State(&state)).unwrap();
    }
    while let Some(p) = training.step().unwrap() {
        curve.push(words(&p));
    }
    (curve, training.weights().clone())
}

#[test]
fn a_stopped_training_goes_on_exactly() {
    let whole = interrupted(&recipe(), 0, |_| {});
    assert!(whole.0.len() == 10, "{} updates", whole.0.len());
    // While it imitates, at the turn, and while it learns by itself.
    for stop in [2, 4, 7] {
        assert!(
            interrupted(&recipe(), stop, |_| {}) == whole,
            "stopped after {stop} updates it went another way"
        );
    }
    // Saboteurs: each part of the state matters.
    let spoilers: [(&str, Spoil); 6] = [
        ("moments", |s| s.first.logit.bias[0] += 1e-3),
        ("steps of the optimizer", |s| s.account.adam_steps += 1),
        ("generator of the learner", |s| s.account.random = s.account.seats[0].rng.clone()),
        ("generator of an actor", |s| s.account.seats[0].rng = s.account.seats[1].rng.clone()),
        ("episode of an actor", |s| s.account.seats[3].history.clear()),
        ("weights", |s| s.weights.mix.weight[0] += 1e-3),
    ];
    for (what, spoil) in spoilers {
        assert!(interrupted(&recipe(), 7, spoil) != whole, "a change of the {what} went unnoticed");
    }
}

#[test]
fn dqn_goes_on_with_a_new_replay() {
    let dqn = DqnRecipe { warm_up: 500, ..DqnRecipe::default() };
    let recipe = Recipe { learner: LearnerKind::Dqn, imitation: 0, decisions: 6_000, dqn, ..recipe() };
    let (curve, _) = interrupted(&recipe, 2, |_| {});
    assert_eq!(curve.len(), interrupted(&recipe, 0, |_| {}).0.len());
    assert!(curve.last().unwrap().contains("decisions: 6400"), "{curve:?}");
}

#[test]
fn the_state_of_another_training_is_refused_and_what_differs_is_named() {
    let sources = sources();
    let training = Training::new(&sources, &recipe(), Guidance::NONE, Start::Scratch).unwrap();
    let mut state = State::from_bytes("x", &training.state().to_bytes().unwrap()).unwrap();
    state.account.teacher = Some("edf".to_owned());
    assert!(state == State { account: state.account.clone(), ..training.state() });
    let check = |recipe: &Recipe, sources: &[Source], teacher: Option<&str>| {
        state.check(recipe, sources, teacher).map_err(|e| e.to_string())
    };
    // The saboteur of what follows: nothing differs, and the number of threads may.
    check(&recipe(), &sources, Some("edf")).unwrap();
    check(&Recipe { threads: 7, ..recipe() }, &sources, Some("edf")).unwrap();
    let mut other = Recipe { learning_rate: 0.25, ..recipe() };
    other.dqn.alpha = 0.125;
    let mut changed = self::sources();
    changed[1].plan.variants[0].segments[0].costs[0].as_mut().unwrap().mean_us += 1.0;
    let wrong = [
        (
            check(&other, &sources, Some("edf")),
            vec!["recipe.learning_rate", "0.003", "0.25", "recipe.dqn.alpha"],
        ),
        (check(&recipe(), &changed, Some("edf")), vec!["case trivial", "has changed"]),
        (check(&recipe(), &sources[..1], Some("edf")), vec!["cases", "trivial, trivial"]),
        (check(&recipe(), &sources, None), vec!["teacher", "edf", "none"]),
    ];
    for (outcome, parts) in wrong {
        let error = outcome.unwrap_err();
        assert!(parts.iter().all(|p| error.contains(p)), "{parts:?} is not in: {error}");
    }
    let error =
        Training::new(&sources, &other, Guidance::NONE, Start::State(&state)).err().unwrap().to_string();
    assert!(error.contains("recipe.learning_rate"), "{error}");
}

#[test]
fn bytes_that_are_no_state_are_refused() {
    let sources = sources();
    let bytes = Training::new(&sources, &recipe(), Guidance::NONE, Start::Scratch)
        .unwrap()
        .state()
        .to_bytes()
        .unwrap();
    let refused = |bytes: &[u8]| State::from_bytes("my.state", bytes).unwrap_err().to_string();
    let text = |from: &str, to: &str| {
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[at..at + from.len()].copy_from_slice(to.as_bytes());
        changed
    };
    let wrong = [
        (bytes[..bytes.len() / 2].to_vec(), "safetensors"),
        (b"hello".to_vec(), "safetensors"),
        (text("cosched-training", "cosched-tralning"), "`cosched-training` is missing"),
        (text("feature_version\\\":", "feature_versiom\\\":"), "feature version null"),
    ];
    for (bytes, part) in wrong {
        let error = refused(&bytes);
        assert!(error.contains("my.state") && error.contains(part), "`{part}` is not in: {error}");
    }
}
