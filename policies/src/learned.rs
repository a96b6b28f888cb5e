//! The learned policy: the candidate with the highest score of a trained network, which hears what the best two heuristics of the case
//! would do (`tournament.rs`). The shipped checkpoint is part of the binary;
//! `learned:FILE` takes another one. It refuses to explore and to learn; it needs no libtorch.

use crate::tournament::{Budget, scout};
use crate::{PolicyError, Row};
use cosched_agent::checkpoint;
use cosched_agent::features::Encoder;
use cosched_agent::guide::Guides;
use cosched_agent::network::{Forward, Weights};
use cosched_env::case::Case;
use cosched_env::observation::Observation;
use cosched_env::world::{Decision, Policy};
use std::path::Path;

/// The row of the table.
pub const ROW: Row = Row {
    name: "learned",
    about: "the trained network (the shipped one, or learned:CHECKPOINT)",
    make,
    searches: false,
};

/// The shipped checkpoint; see `policies/trained/README.md`.
pub const SHIPPED: &[u8] = include_bytes!("../trained/shipped.safetensors");

fn make(parameter: Option<&str>, case: &Case) -> Result<Box<dyn Policy>, PolicyError> {
    let weights = weights(parameter)?;
    Ok(Box::new(Learned::new(&weights, scout(case, &Budget::default())(case))))
}

/// The weights of a checkpoint file, or the shipped ones.
///
/// # Errors
/// [`PolicyError::Unusable`]: the checkpoint cannot be read or is of another network.
pub fn weights(parameter: Option<&str>) -> Result<Weights, PolicyError> {
    let loaded = match parameter {
        None => checkpoint::from_bytes("(shipped)", SHIPPED),
        Some(path) => checkpoint::load(Path::new(path)),
    };
    let unusable = |e: checkpoint::CheckpointError| PolicyError::Unusable {
        policy: ROW.name.to_owned(),
        problem: e.to_string(),
    };
    loaded.map(|(weights, _)| weights).map_err(unusable)
}

/// Takes the best-scored candidate.
pub struct Learned {
    guides: Guides,
    encoder: Encoder,
    forward: Forward,
}

impl Learned {
    /// Decides by these weights, with these guides.
    pub fn new(weights: &Weights, guides: Guides) -> Learned {
        Learned { guides, encoder: Encoder::new(), forward: Forward::new(weights) }
    }
}

impl Policy for Learned {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        self.encoder.encode(observation, self.guides.vote(observation));
        self.forward.run(&self.encoder);
        Decision(self.forward.best())
    }
}
