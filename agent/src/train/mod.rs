//! Offline learning over emulated episodes: imitation of a teacher first, then PPO or double DQN. Needs libtorch (feature `train`).
//! It refuses to write files and to read clocks: the caller saves checkpoints, states and curves.

pub mod adam;
pub mod dqn;
mod draw;
pub mod explore;
mod guidance;
pub mod model;
pub mod ppo;
pub mod recipe;
pub mod replay;
pub mod rollout;
pub mod state;

use crate::experience::Experience;
use crate::features::FEATURE_VERSION;
use crate::network::Weights;
use adam::Adam;
use cosched_env::streams::rng;
use dqn::Dqn;
use model::Model;
use rand_pcg::Pcg64Mcg;
use recipe::{LearnerKind, Recipe};
use rollout::{Crew, Guidance, Lead, RolloutError, Source};
use state::{Account, State, StateError};

/// Why a training stopped.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Nothing to train on.
    #[error("training needs at least one source case")]
    NoSource,
    /// The weights to start from are of another width.
    #[error("hidden: the checkpoint to start from has {start}, the recipe says {recipe}")]
    Width {
        /// Width of the checkpoint.
        start: usize,
        /// Width of the recipe.
        recipe: usize,
    },
    /// A number of the recipe makes no sense.
    #[error("recipe.{key}: expected {expected}, got {got}")]
    Recipe {
        /// Key.
        key: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What it is.
        got: f64,
    },
    /// The state to go on from is not one of this training.
    #[error(transparent)]
    State(#[from] StateError),
    /// Experience could not be collected.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
}

/// What the gradient steps of one update did, averaged over them. NaN where a learner has no such number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// PPO: clipped surrogate; DQN: Huber loss of the errors; imitation: cross-entropy.
    pub policy: f64,
    /// Loss of the value head.
    pub value: f64,
    /// Mean entropy of the policy, in nats.
    pub entropy: f64,
    /// Divergence from the policy that collected the experience; see [`ppo::divergence`].
    pub divergence: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Gradient steps.
    pub steps: u32,
}

impl Losses {
    fn add(&mut self, step: &Losses) {
        self.policy += step.policy;
        self.value += step.value;
        self.entropy += step.entropy;
        self.divergence += step.divergence;
        self.steps += 1;
    }

    fn mean(self) -> Losses {
        let each = |x: f64| x / f64::from(self.steps.max(1));
        Losses {
            policy: each(self.policy),
            value: each(self.value),
            entropy: each(self.entropy),
            divergence: each(self.divergence),
            ..self
        }
    }
}

/// One line of the learning curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Whether this is still imitation.
    pub imitating: bool,
    /// Decisions learned from so far, imitation included.
    pub decisions: u64,
    /// Decisions in all.
    pub total: u64,
    /// Mean utility per request of the episodes that ended since the last line; NaN when none did.
    pub utility: f64,
    /// Losses of the last update.
    pub losses: Losses,
}

/// What a training begins with.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    /// Random weights.
    Scratch,
    /// These weights.
    Weights(&'a Weights),
    /// Where another training with the same recipe stopped.
    State(&'a State),
}

/// A training, an update at a time.
pub struct Training<'a> {
    sources: &'a [Source],
    recipe: Recipe,
    guidance: Guidance<'a>,
    crews: Vec<Crew>,
    model: Model,
    adam: Adam,
    /// What the learner `dqn` has beside the network.
    dqn: Option<Dqn>,
    random: Pcg64Mcg,
    weights: Weights,
    decisions: u64,
}

impl<'a> Training<'a> {
    /// A training that has done nothing yet, or what `start` has done.
    ///
    /// # Errors
    /// [`TrainError`].
    pub fn new(
        sources: &'a [Source],
        recipe: &Recipe,
        guidance: Guidance<'a>,
        start: Start<'_>,
    ) -> Result<Training<'a>, TrainError> {
        if sources.is_empty() {
            return Err(TrainError::NoSource);
        }
        recipe.check()?;
        // One thread: more of them are no faster at this size and would make sums depend on their number.
        tch::set_num_threads(1);
        let model = Model::new(recipe.hidden, recipe.seed);
        let mut adam = Adam::new(model.variables());
        let mut random = rng(recipe.seed, "shuffle", 0);
        let mut decisions = 0;
        match start {
            Start::Scratch => {}
            Start::Weights(weights) if weights.hidden() != recipe.hidden => {
                return Err(TrainError::Width { start: weights.hidden(), recipe: recipe.hidden });
            }
            Start::Weights(weights) => model.set_weights(weights),
            Start::State(state) => {
                state.check(recipe, sources, state.account.teacher.as_deref())?;
                model.set_weights(&state.weights);
                model::set(&mut adam.first, &state.first);
                model::set(&mut adam.second, &state.second);
                adam.steps = state.account.adam_steps;
                random = state.account.random.clone();
                decisions = state.account.decisions;
            }
        }
        let mut crews = Vec::new();
        for first in (0..recipe.actors).step_by(CREW) {
            let count = CREW.min(recipe.actors - first);
            crews.push(match start {
                Start::State(state) => {
                    let seats = &state.account.seats[first..first + count];
                    Crew::restore(sources, recipe, guidance.scout, first as u64, seats)?
                }
                _ => Crew::new(sources, recipe, guidance.scout, first as u64, count)?,
            });
        }
        let dqn = (recipe.learner == LearnerKind::Dqn).then(|| Dqn::new(&model, recipe));
        let (weights, recipe) = (model.weights(), *recipe);
        Ok(Training { sources, recipe, guidance, crews, model, adam, dqn, random, weights, decisions })
    }

    /// Collects experience and learns from it once; `None` when all is done.
    ///
    /// # Errors
    /// [`TrainError::Rollout`].
    pub fn step(&mut self) -> Result<Option<Progress>, TrainError> {
        let recipe = &self.recipe;
        let guidance = self.guidance;
        let imitation = if matches!(guidance.lead, Lead::Network) { 0 } else { recipe.imitation };
        let total = imitation + recipe.decisions;
        if self.decisions >= total {
            return Ok(None);
        }
        let imitating = self.decisions < imitation;
        let share = |done: u64| done.saturating_sub(imitation) as f64 / recipe.decisions.max(1) as f64;
        let lead = if imitating { guidance.lead } else { Lead::Network };
        let guidance = Guidance { lead, ..guidance };
        if self.dqn.is_some() {
            let exploration = dqn::exploration(recipe, share(self.decisions));
            self.crews.iter_mut().for_each(|crew| crew.explore(exploration));
        }
        let experience = collect(&mut self.crews, self.sources, recipe, &self.weights, guidance)?;
        self.decisions += experience.iter().map(|e| e.len() as u64).sum::<u64>();
        let (model, adam, random) = (&self.model, &mut self.adam, &mut self.random);
        let progress = share(self.decisions);
        let losses = match &mut self.dqn {
            Some(dqn) => dqn.update(model, adam, recipe, &experience, (imitating, progress), random),
            None if imitating => ppo::imitate(model, adam, recipe, &experience, random),
            None => ppo::update(model, adam, recipe, &experience, progress, random),
        };
        self.weights = self.model.weights();
        let utility = mean_utility(&experience);
        Ok(Some(Progress { imitating, decisions: self.decisions, total, utility, losses }))
    }

    /// The weights as they are now.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Everything that [`Start::State`] needs to go on from here. The learner `dqn` fills its replay anew and copies its target network
    /// anew, so it goes on well but not exactly as it would have; PPO and imitation go on exactly.
    pub fn state(&self) -> State {
        let plain = |tensors| model::to_weights(self.recipe.hidden, tensors);
        State {
            account: Account {
                feature_version: FEATURE_VERSION,
                recipe: self.recipe,
                sources: state::fingerprints(self.sources),
                teacher: None,
                seconds: 0.0,
                decisions: self.decisions,
                adam_steps: self.adam.steps,
                random: self.random.clone(),
                seats: self.crews.iter().flat_map(Crew::states).collect(),
            },
            weights: self.weights.clone(),
            first: plain(&self.adam.first),
            second: plain(&self.adam.second),
        }
    }
}

/// Trains a network from scratch, or from the weights `start`, to the end. `watch` sees every line of the curve with the weights at that
/// point and says whether to go on.
///
/// # Errors
/// [`TrainError`].
pub fn train(
    sources: &[Source],
    recipe: &Recipe,
    guidance: Guidance<'_>,
    start: Option<&Weights>,
    mut watch: impl FnMut(&Progress, &Weights) -> bool,
) -> Result<Weights, TrainError> {
    let start = start.map_or(Start::Scratch, Start::Weights);
    let mut training = Training::new(sources, recipe, guidance, start)?;
    while let Some(progress) = training.step()? {
        if !watch(&progress, &training.weights) {
            break;
        }
    }
    Ok(training.weights)
}

fn mean_utility(experience: &[Experience]) -> f64 {
    let (sum, n) = experience
        .iter()
        .flat_map(|e| &e.episodes)
        .fold((0.0, 0), |(sum, n), (utility, requests)| (sum + utility * *requests as f64, n + requests));
    sum / n as f64
}

/// Episodes that are scored together. A fixed number, so that sums do not depend on the number of threads.
const CREW: usize = 32;

/// All crews collect, on as many threads as the recipe says; the order of the results is that of the actors.
fn collect(
    crews: &mut [Crew],
    sources: &[Source],
    recipe: &Recipe,
    weights: &Weights,
    guidance: Guidance<'_>,
) -> Result<Vec<Experience>, RolloutError> {
    let share = crews.len().div_ceil(recipe.threads.max(1));
    std::thread::scope(|scope| {
        let handles: Vec<_> = crews
            .chunks_mut(share.max(1))
            .map(|part| {
                scope.spawn(move || {
                    part.iter_mut()
                        .map(|crew| crew.collect(sources, recipe, weights, guidance))
                        .collect::<Result<Vec<_>, _>>()
                })
            })
            .collect();
        let mut all = Vec::new();
        for handle in handles {
            match handle.join() {
                Ok(part) => all.extend(part?.into_iter().flatten()),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(all)
    })
}
