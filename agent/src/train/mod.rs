//! Offline learning over emulated episodes: imitation of a teacher first, then PPO. Needs libtorch (feature `train`).
//! It refuses to write files: the caller saves checkpoints and curves.

pub mod model;
pub mod ppo;
pub mod recipe;
pub mod rollout;

use crate::guide::Scout;
use crate::network::Weights;
use cosched_env::streams::rng;
use model::Model;
use recipe::Recipe;
use rollout::{Crew, Experience, Lead, RolloutError, Source};

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
    /// Experience could not be collected.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
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
    pub losses: ppo::Losses,
}

/// Trains a network from scratch, or from the weights `start`. `scout` finds the guides of each case; `lead` is imitated first. `watch` sees every line of the curve with the weights at that point and says whether to go on.
///
/// # Errors
/// [`TrainError`].
pub fn train(
    sources: &[Source],
    recipe: &Recipe,
    scout: &Scout,
    lead: Lead<'_>,
    start: Option<&Weights>,
    mut watch: impl FnMut(&Progress, &Weights) -> bool,
) -> Result<Weights, TrainError> {
    if sources.is_empty() {
        return Err(TrainError::NoSource);
    }
    // One thread: more of them are no faster at this size and would make sums depend on their number.
    tch::set_num_threads(1);
    let model = Model::new(recipe.hidden, recipe.seed);
    if let Some(weights) = start {
        if weights.hidden() != recipe.hidden {
            return Err(TrainError::Width { start: weights.hidden(), recipe: recipe.hidden });
        }
        model.set_weights(weights);
    }
    let mut optimizer = ppo::optimizer(&model, recipe)?;
    let mut random = rng(recipe.seed, "shuffle", 0);
    let mut crews = Vec::new();
    for first in (0..recipe.actors).step_by(CREW) {
        crews.push(Crew::new(sources, recipe, scout, first as u64, CREW.min(recipe.actors - first))?);
    }
    let mut weights = model.weights();
    let imitation = if matches!(lead, Lead::Network) { 0 } else { recipe.imitation };
    let total = imitation + recipe.decisions;
    let mut done = 0;
    while done < total {
        let imitating = done < imitation;
        let lead = if imitating { lead } else { Lead::Network };
        let experience = collect(&mut crews, sources, recipe, &weights, scout, lead)?;
        done += experience.iter().map(|e| e.len() as u64).sum::<u64>();
        let losses = if imitating {
            let policy = ppo::imitate(&model, &mut optimizer, recipe, &experience, &mut random);
            ppo::Losses { policy, ..ppo::Losses::default() }
        } else {
            let progress = (done - imitation) as f64 / recipe.decisions.max(1) as f64;
            ppo::update(&model, &mut optimizer, recipe, &experience, progress, &mut random)
        };
        weights = model.weights();
        let progress =
            Progress { imitating, decisions: done, total, utility: mean_utility(&experience), losses };
        if !watch(&progress, &weights) {
            break;
        }
    }
    Ok(weights)
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
    scout: &Scout,
    lead: Lead<'_>,
) -> Result<Vec<Experience>, RolloutError> {
    let share = crews.len().div_ceil(recipe.threads.max(1));
    std::thread::scope(|scope| {
        let handles: Vec<_> = crews
            .chunks_mut(share.max(1))
            .map(|part| {
                scope.spawn(move || {
                    part.iter_mut()
                        .map(|crew| crew.collect(sources, recipe, weights, scout, lead))
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
