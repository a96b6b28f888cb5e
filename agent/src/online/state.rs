//! What is kept of online learning between runs, as one file: the weights, the guard's memory, the profile and the arrivals. It is a
//! safetensors file whose metadata says the rest. It refuses what was made for another network, other features or another plan.

use super::guard::Memory;
use super::profile::Profile;
use super::traffic::Traffic;
use crate::features::FEATURE_VERSION;
use crate::file::write_whole;
use crate::network::{Linear, Weights, layers};
use cosched_env::case::Case;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// Everything that goes on in the next run.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The last good weights.
    pub good: Weights,
    /// The weights that acted last; those on trial when the run ended in a trial.
    pub latest: Weights,
    /// The guard's memory.
    pub guard: Memory,
    /// The profile as it was estimated.
    pub profile: Profile,
    /// The arrivals as they were observed.
    pub traffic: Traffic,
}

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read or written.
    #[error("learn state {path}: {source}")]
    Io {
        /// File.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no learn state, or not one of this run.
    #[error("learn state {path}: {problem}")]
    Bad {
        /// File.
        path: String,
        /// What is wrong and what was expected.
        problem: String,
    },
}

/// The metadata.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    feature_version: u32,
    hidden: usize,
    /// Names of processors and variants, in order.
    plan: Vec<String>,
    guard: Memory,
    profile: Profile,
    traffic: Traffic,
}

const KEY: &str = "cosched-online";

fn names(case: &Case) -> Vec<String> {
    let processors = case.plan.processors.iter().map(|p| p.name.clone());
    processors.chain(case.plan.variants.iter().map(|v| v.name.clone())).collect()
}

/// The state as bytes.
///
/// # Errors
/// In words, when it cannot be put into bytes (it always can).
pub fn to_bytes(state: &State, case: &Case) -> Result<Vec<u8>, String> {
    let mut blobs: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (whose, weights) in [("good", &state.good), ("latest", &state.latest)] {
        for ((name, inputs, outputs, _), layer) in layers(weights.hidden()).into_iter().zip(weights.each()) {
            let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect();
            blobs.push((format!("{whose}.{name}.weight"), vec![outputs, inputs], bytes(&layer.weight)));
            if !layer.bias.is_empty() {
                blobs.push((format!("{whose}.{name}.bias"), vec![outputs], bytes(&layer.bias)));
            }
        }
    }
    let views: Result<Vec<_>, _> = blobs
        .iter()
        .map(|(name, shape, data)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect();
    let views = views.map_err(|e: safetensors::SafeTensorError| e.to_string())?;
    let head = Head {
        feature_version: FEATURE_VERSION,
        hidden: state.good.hidden(),
        plan: names(case),
        guard: state.guard,
        profile: state.profile.clone(),
        traffic: state.traffic.clone(),
    };
    let head = serde_json::to_string(&head).map_err(|e| e.to_string())?;
    safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), head)]))).map_err(|e| e.to_string())
}

/// The state of a case from bytes.
///
/// # Errors
/// In words: what is wrong and what was expected.
pub fn from_bytes(bytes: &[u8], case: &Case) -> Result<State, String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|e| format!("it is truncated or no learn state (safetensors: {e})"))?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get(KEY));
    let text =
        text.ok_or_else(|| format!("no learn state: the metadata key `{KEY}` is missing (a checkpoint is given as --policy learned:FILE)"))?;
    let head: Head = serde_json::from_str(text).map_err(|e| format!("metadata key `{KEY}`: {e}"))?;
    if head.feature_version != FEATURE_VERSION {
        return Err(format!(
            "made for feature version {}, this build has version {FEATURE_VERSION}; delete it to begin anew",
            head.feature_version
        ));
    }
    if head.hidden == 0 || head.hidden > 4096 {
        return Err(format!("expected a hidden width of 1 to 4096, got {}", head.hidden));
    }
    let here = names(case);
    if head.plan != here || !head.profile.fits(&case.plan) || !head.traffic.fits(case) {
        let (there, here) = (head.plan.join(", "), here.join(", "));
        return Err(format!(
            "made for another plan or scenario: processors and variants are {there}, here they are {here}; the segments and streams must be as many, too"
        ));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let weights = |whose: &str| {
        Weights::build(head.hidden, |layer, inputs, outputs, bias| {
            let weight = floats(&tensors, &format!("{whose}.{layer}.weight"), &[outputs, inputs])?;
            let name = format!("{whose}.{layer}.bias");
            let bias = if bias { floats(&tensors, &name, &[outputs])? } else { Vec::new() };
            Ok::<_, String>(Linear { weight, bias, inputs, outputs })
        })
    };
    let (good, latest) = (weights("good")?, weights("latest")?);
    let Head { guard, profile, traffic, .. } = head;
    Ok(State { good, latest, guard, profile, traffic })
}

fn floats(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let view = tensors.tensor(name).map_err(|_| format!("tensor `{name}` is missing"))?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        let (got, dtype) = (view.shape(), view.dtype());
        return Err(format!("tensor `{name}`: expected F32 {shape:?}, got {dtype:?} {got:?}"));
    }
    let values: Vec<f32> = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    match values.iter().find(|v| !v.is_finite()) {
        Some(v) => Err(format!("tensor `{name}` holds {v}")),
        None => Ok(values),
    }
}

/// Reads a state; `None`: there is no such file yet.
///
/// # Errors
/// [`StateError`] names the file.
pub fn load(path: &Path, case: &Case) -> Result<Option<State>, StateError> {
    let name = || path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => {
            from_bytes(&bytes, case).map(Some).map_err(|problem| StateError::Bad { path: name(), problem })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { path: name(), source }),
    }
}

/// Writes a state through a temporary file beside it, so that a reader never sees half of it and a crash leaves the one before.
///
/// # Errors
/// [`StateError`] names the file.
pub fn save(path: &Path, state: &State, case: &Case) -> Result<(), StateError> {
    let name = || path.display().to_string();
    let bytes = to_bytes(state, case).map_err(|problem| StateError::Bad { path: name(), problem })?;
    write_whole(path, &bytes).map_err(|source| StateError::Io { path: name(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::online::guard::{Guard, Rules};
    use crate::online::hand::{even, two_processors};

    fn sample(case: &Case) -> State {
        let profile = Profile::new(&case.plan);
        let (guard, traffic) = (Guard::new(Rules::default()).memory(), Traffic::new(case));
        State { good: even(0.25), latest: even(-0.5), guard, profile, traffic }
    }

    #[test]
    fn comes_back_as_it_went() {
        let case = two_processors();
        let state = sample(&case);
        assert_eq!(from_bytes(&to_bytes(&state, &case).unwrap(), &case).unwrap(), state);
    }

    #[test]
    fn what_is_truncated_or_foreign_is_a_clear_error() {
        let case = two_processors();
        let bytes = to_bytes(&sample(&case), &case).unwrap();
        for n in 0..bytes.len() {
            assert!(from_bytes(&bytes[..n], &case).is_err(), "{n} of {} bytes were accepted", bytes.len());
        }
        assert!(from_bytes(b"PK\x03\x04 something else", &case).unwrap_err().contains("no learn state"));
        let mut plan = case.plan.clone();
        plan.processors[1].name = "gpu".into();
        let other = Case::new(plan, case.scenario.clone()).unwrap();
        let error = from_bytes(&bytes, &other).unwrap_err();
        assert!(error.contains("p0, p1, a, b") && error.contains("p0, gpu, a, b"), "{error}");
        let mut broken = sample(&case);
        broken.good.mix.weight[1] = f32::NAN;
        assert!(
            from_bytes(&to_bytes(&broken, &case).unwrap(), &case).unwrap_err().contains("good.mix.weight")
        );
    }
}
