//! A training that was stopped, as bytes: weights, moments of the optimizer, counters, generators, and what the actors did in their
//! running episodes. It refuses to go on with another recipe or other cases, and says what differs.

use super::recipe::Recipe;
use super::rollout::Source;
use crate::checkpoint::{read_text, read_weights, write_bytes};
use crate::features::FEATURE_VERSION;
use crate::network::Weights;
use cosched_env::fnv::{START, fnv1a};
use rand_pcg::Pcg64Mcg;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One actor between two collections. The episode itself follows from its generator and its choices: it is played again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeatState {
    /// Its generator.
    pub rng: Pcg64Mcg,
    /// Its generator before the case was drawn.
    pub born: Pcg64Mcg,
    /// Episodes on that case, the running one included.
    pub left: u32,
    /// Episodes before the running one.
    pub played: u64,
    /// Choices in the running episode.
    pub history: Vec<u32>,
}

/// Everything of a training but its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// [`FEATURE_VERSION`] of the training.
    pub feature_version: u32,
    /// The recipe that it follows.
    pub recipe: Recipe,
    /// The cases that it draws from: name and fingerprint.
    pub sources: Vec<(String, u64)>,
    /// The name of its teacher, as the caller calls it.
    pub teacher: Option<String>,
    /// Time spent on it so far, as the caller measures it.
    pub seconds: f64,
    /// Decisions learned from so far, imitation included.
    pub decisions: u64,
    /// Gradient steps of the optimizer.
    pub adam_steps: u64,
    /// Generator of the learner.
    pub random: Pcg64Mcg,
    /// The actors in their order.
    pub seats: Vec<SeatState>,
}

/// A stopped training.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Counters, generators, actors.
    pub account: Account,
    /// The network.
    pub weights: Weights,
    /// First moments of the optimizer, shaped as the weights.
    pub first: Weights,
    /// Second moments.
    pub second: Weights,
}

/// Why a training cannot go on from a state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The bytes are no state, or one of another build.
    #[error("training state {name}: {problem}")]
    Bad {
        /// File.
        name: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// It is the state of another training.
    #[error("the state is of another training: {}", .0.join("; "))]
    Other(Vec<String>),
}

const KEY: &str = "cosched-training";

impl State {
    /// The state as the bytes of a safetensors file.
    ///
    /// # Errors
    /// [`StateError::Bad`] when it cannot be put into words (it always can).
    pub fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        let bad = |problem| StateError::Bad { name: "(memory)".into(), problem };
        let account = serde_json::to_string(&self.account).map_err(|e| bad(e.to_string()))?;
        let networks = [("", &self.weights), ("first.", &self.first), ("second.", &self.second)];
        write_bytes(&networks, KEY, account).map_err(bad)
    }

    /// Reads a state; `name` is for messages.
    ///
    /// # Errors
    /// [`StateError::Bad`].
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<State, StateError> {
        let bad = |problem| StateError::Bad { name: name.to_owned(), problem };
        let text = read_text(bytes, KEY).map_err(bad)?;
        // The version first: the rest of another version may look different.
        let json: Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if json["feature_version"] != FEATURE_VERSION {
            return Err(bad(format!(
                "made for feature version {}, this build has version {FEATURE_VERSION}; delete it and begin again",
                json["feature_version"]
            )));
        }
        let account: Account =
            serde_json::from_str(&text).map_err(|e| bad(format!("metadata key `{KEY}`: {e}")))?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
        let read = |prefix| read_weights(&tensors, prefix, account.recipe.hidden).map_err(bad);
        let (weights, first, second) = (read("")?, read("first.")?, read("second.")?);
        Ok(State { account, weights, first, second })
    }

    /// Whether a training with this recipe, these cases and this teacher may go on from here.
    ///
    /// # Errors
    /// [`StateError::Other`] lists everything that differs.
    pub fn check(
        &self,
        recipe: &Recipe,
        sources: &[Source],
        teacher: Option<&str>,
    ) -> Result<(), StateError> {
        let mut found = Vec::new();
        let account = &self.account;
        let json = |r: &Recipe| serde_json::to_value(r).unwrap_or_default();
        differences("recipe", &json(&account.recipe), &json(recipe), &mut found);
        let names = |s: &[(String, u64)]| s.iter().map(|(n, _)| n.clone()).collect::<Vec<_>>();
        let now = fingerprints(sources);
        if names(&account.sources) != names(&now) {
            let (was, is) = (names(&account.sources).join(", "), names(&now).join(", "));
            found.push(format!("cases: the state has {was}; now it is {is}"));
        } else {
            let changed = account.sources.iter().zip(&now).filter(|(a, b)| a != b);
            found.extend(changed.map(|((name, _), _)| {
                format!("case {name}: its plan, device or scenario has changed since the state was saved")
            }));
        }
        if account.teacher.as_deref() != teacher {
            let say = |t: Option<&str>| t.unwrap_or("none").to_owned();
            let (was, is) = (say(account.teacher.as_deref()), say(teacher));
            found.push(format!("teacher: the state has {was}; now it is {is}"));
        }
        if account.seats.len() != recipe.actors {
            found.push(format!(
                "actors: the state holds {} of them, not {}",
                account.seats.len(),
                recipe.actors
            ));
        }
        if found.is_empty() { Ok(()) } else { Err(StateError::Other(found)) }
    }
}

/// Name and fingerprint of each source.
pub fn fingerprints(sources: &[Source]) -> Vec<(String, u64)> {
    let of = |s: &Source| {
        let all = (&s.plan, &s.device, &s.scenario, &s.emulator, &s.options);
        let text = serde_json::to_string(&all).unwrap_or_default();
        fnv1a(START, text.bytes())
    };
    sources.iter().map(|s| (s.name.clone(), of(s))).collect()
}

/// Adds one line for each number or word in which two recipes differ. The number of threads may: nothing depends on it.
fn differences(key: &str, was: &Value, is: &Value, found: &mut Vec<String>) {
    match (was, is) {
        _ if was == is || key == "recipe.threads" => {}
        (Value::Object(a), Value::Object(b)) => {
            for (name, value) in a {
                let other = b.get(name).unwrap_or(&Value::Null);
                differences(&format!("{key}.{name}"), value, other, found);
            }
        }
        _ => found.push(format!("{key}: the state has {was}; now it is {is}")),
    }
}
