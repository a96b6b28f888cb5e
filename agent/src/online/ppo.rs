//! The trainer of online learning: the PPO update of offline training (`train::ppo`) on live transitions, with a small learning rate and a
//! bound on the divergence from the weights that acted. It refuses to judge what comes out; the guard does.
//!
//! Most decisions are the best candidate and not draws: each is weighed as if it had been drawn, which is right to first order where the
//! policy is nearly certain, as a trained one is. The clip bounds what that can cost.

use super::Trainer;
use crate::experience::Experience;
use crate::network::Weights;
use crate::train::adam::Adam;
use crate::train::model::Model;
use crate::train::ppo::update;
use crate::train::recipe::Recipe;
use cosched_env::streams::rng;
use rand_pcg::Pcg64Mcg;

/// The numbers of live lessons; those that only concern how experience is collected mean nothing here.
pub fn live() -> Recipe {
    Recipe {
        learning_rate: 1e-4,
        epochs: 4,
        minibatch: 256,
        entropy: 1e-3,
        anchor: 1e-3,
        max_divergence: 0.02,
        ..Recipe::default()
    }
}

/// See the module's text.
pub struct Ppo {
    recipe: Recipe,
    model: Model,
    adam: Adam,
    random: Pcg64Mcg,
}

impl Ppo {
    /// A trainer that begins from these weights.
    pub fn new(weights: &Weights, recipe: Recipe) -> Ppo {
        // One thread: the others have launches to serve.
        tch::set_num_threads(1);
        let model = Model::new(weights.hidden(), recipe.seed);
        model.set_weights(weights);
        Ppo { random: rng(recipe.seed, "online", 0), adam: Adam::new(model.variables()), recipe, model }
    }
}

impl Trainer for Ppo {
    fn set(&mut self, weights: &Weights) {
        self.model.set_weights(weights);
    }

    fn learn(&mut self, lesson: Experience) -> Weights {
        update(&self.model, &mut self.adam, &self.recipe, &[lesson], 0.0, &mut self.random);
        self.model.weights()
    }
}
