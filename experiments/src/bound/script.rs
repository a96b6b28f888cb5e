//! A run as the choices that were made in it: noted while a policy plays, and played again. It refuses to choose.

use cosched_env::observation::Observation;
use cosched_env::world::{Decision, Policy};

/// The best run of a seed that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Mean utility of a request.
    pub utility: f64,
    /// What was chosen at each decision, as an index into its candidates.
    pub choices: Vec<usize>,
}

impl Found {
    /// A policy that does the same again: in the same setup and with the same seed the same run comes of it.
    pub fn script(&self) -> impl Policy + use<> {
        Script { choices: self.choices.clone().into_iter() }
    }
}

struct Script {
    choices: std::vec::IntoIter<usize>,
}

impl Policy for Script {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        // Beyond its end, which is never reached in its own run, it waits.
        Decision(self.choices.next().unwrap_or(observation.candidates.len() - 1))
    }
}

/// Notes what another policy chooses.
pub(super) struct Noted {
    pub inner: Box<dyn Policy>,
    pub choices: Vec<usize>,
}

impl Policy for Noted {
    fn decide(&mut self, observation: &Observation<'_>) -> Decision {
        let decision = self.inner.decide(observation);
        self.choices.push(decision.0);
        decision
    }
}
