//! Learning while serving: an actor decides and sends what it saw, a learner re-estimates the profile, learns, and publishes new
//! weights, and a guard keeps that from making things worse for long. It refuses to delay a decision: between the two are bounded
//! channels that drop, and an atomic pointer. Only [`ppo`] needs libtorch.

pub mod explore;
pub mod guard;
#[cfg(test)]
pub(crate) mod hand;
pub mod learner;
pub mod lens;
pub mod link;
pub mod off_policy;
#[cfg(feature = "train")]
pub mod ppo;
pub mod profile;
pub mod state;
pub mod traffic;

use crate::experience::Experience;
use crate::network::Weights;
use cosched_env::case::Case;
use cosched_env::world::Policy;

/// Turns live experience into new weights.
pub trait Trainer: Send {
    /// Begins from these weights.
    fn set(&mut self, weights: &Weights);

    /// The weights after learning from this. They may be of any quality: the guard looks at them.
    fn learn(&mut self, lesson: Experience) -> Weights;
}

/// A baseline as it did in the emulator.
pub struct Rival {
    /// Its name.
    pub name: String,
    /// Mean utility by priority.
    pub score: f64,
    /// Makes it for a case.
    pub make: Maker,
}

/// Makes a policy for a case.
pub type Maker = Box<dyn Fn(&Case) -> Box<dyn Policy> + Send>;

/// Lets baselines play against each other on a case. Best first.
pub type Arena = Box<dyn Fn(&Case) -> Vec<Rival> + Send>;
