//! Checkpoints: weights in a safetensors file that plain Rust, tch and Python read, with what one must know of them.
//! It refuses weights of another feature version, shape or type with an error that says what was expected.

use crate::features::{CANDIDATE_FEATURES, CONTEXT_FEATURES, FEATURE_VERSION};
use crate::file::write_whole;
use crate::network::{Linear, Weights, layers};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// What a checkpoint says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// [`FEATURE_VERSION`] at the time of training.
    pub feature_version: u32,
    /// Hidden width.
    pub hidden: usize,
    /// Scenarios that it was trained on.
    pub scenarios: Vec<String>,
    /// Training seed.
    pub seed: u64,
    /// Commit of the code that trained it.
    pub commit: String,
    /// The command that trains it again.
    pub command: String,
    /// Decisions that it learned from.
    pub decisions: u64,
    /// Mean utility per request, by scenario, as measured at the end of training.
    pub scores: Vec<(String, f64)>,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error("checkpoint {path}: {source}")]
    Io {
        /// File.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are no checkpoint, or not one of this network.
    #[error("checkpoint {path}: {problem}")]
    Bad {
        /// File.
        path: String,
        /// What is wrong and what was expected.
        problem: String,
    },
}

const ABOUT_KEY: &str = "cosched";

/// Reads a checkpoint file.
///
/// # Errors
/// [`CheckpointError`] names the file and what was expected.
pub fn load(path: &Path) -> Result<(Weights, About), CheckpointError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| CheckpointError::Io { path: name.clone(), source })?;
    from_bytes(&name, &bytes)
}

/// Reads a checkpoint from memory; `name` is for messages.
///
/// # Errors
/// [`CheckpointError::Bad`].
pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<(Weights, About), CheckpointError> {
    let bad = |problem: String| CheckpointError::Bad { path: name.to_owned(), problem };
    let about = about(name, bytes)?;
    if about.feature_version != FEATURE_VERSION {
        return Err(bad(format!(
            "made for feature version {}, this build has version {FEATURE_VERSION}; train it again with `{}`",
            about.feature_version, about.command
        )));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
    Ok((read_weights(&tensors, "", about.hidden).map_err(bad)?, about))
}

/// What a checkpoint in memory says about itself, whatever its feature version; `name` is for messages.
///
/// # Errors
/// [`CheckpointError::Bad`].
pub fn about(name: &str, bytes: &[u8]) -> Result<About, CheckpointError> {
    let bad = |problem: String| CheckpointError::Bad { path: name.to_owned(), problem };
    let text = read_text(bytes, ABOUT_KEY).map_err(bad)?;
    serde_json::from_str(&text).map_err(|e| bad(format!("metadata key `{ABOUT_KEY}`: {e}")))
}

/// The metadata under a key of a safetensors file.
pub(crate) fn read_text(bytes: &[u8], key: &str) -> Result<String, String> {
    let (_, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| format!("not a safetensors file ({e})"))?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get(key)).cloned();
    text.ok_or_else(|| format!("the metadata key `{key}` is missing: not written by cosched"))
}

/// The tensors of a network of this width whose names begin with `prefix`.
pub(crate) fn read_weights(
    tensors: &SafeTensors<'_>,
    prefix: &str,
    hidden: usize,
) -> Result<Weights, String> {
    if hidden == 0 || hidden > 4096 {
        return Err(format!("expected a hidden width of 1 to 4096, got {hidden}"));
    }
    Weights::build(hidden, |layer, inputs, outputs, bias| {
        let weight = floats(tensors, &format!("{prefix}{layer}.weight"), &[outputs, inputs])?;
        let bias = match bias {
            true => floats(tensors, &format!("{prefix}{layer}.bias"), &[outputs])?,
            false => Vec::new(),
        };
        Ok(Linear { weight, bias, inputs, outputs })
    })
}

fn floats(tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let view = tensors.tensor(name).map_err(|_| format!("tensor `{name}` is missing"))?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        return Err(format!(
            "tensor `{name}`: expected F32 {shape:?} ({CANDIDATE_FEATURES} candidate and {CONTEXT_FEATURES} context features), got {:?} {:?}",
            view.dtype(),
            view.shape()
        ));
    }
    let values: Vec<f32> = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    match values.iter().find(|v| !v.is_finite()) {
        Some(v) => Err(format!("tensor `{name}` holds {v}")),
        None => Ok(values),
    }
}

/// The checkpoint as bytes.
///
/// # Errors
/// [`CheckpointError::Bad`] when it cannot be put into words (it always can).
pub fn to_bytes(weights: &Weights, about: &About) -> Result<Vec<u8>, CheckpointError> {
    let bad = |problem: String| CheckpointError::Bad { path: "(memory)".into(), problem };
    let about = serde_json::to_string(about).map_err(|e| bad(e.to_string()))?;
    write_bytes(&[("", weights)], ABOUT_KEY, about).map_err(bad)
}

/// A safetensors file of networks, the tensors of each named with its prefix, with one text in the metadata.
pub(crate) fn write_bytes(networks: &[(&str, &Weights)], key: &str, text: String) -> Result<Vec<u8>, String> {
    let mut blobs: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (prefix, weights) in networks {
        for ((name, inputs, outputs, _), layer) in layers(weights.hidden()).into_iter().zip(weights.each()) {
            let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect();
            blobs.push((format!("{prefix}{name}.weight"), vec![outputs, inputs], bytes(&layer.weight)));
            if !layer.bias.is_empty() {
                blobs.push((format!("{prefix}{name}.bias"), vec![outputs], bytes(&layer.bias)));
            }
        }
    }
    let views: Result<Vec<_>, _> = blobs
        .iter()
        .map(|(name, shape, data)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect();
    let views = views.map_err(|e: safetensors::SafeTensorError| e.to_string())?;
    let metadata = HashMap::from([(key.to_owned(), text)]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| e.to_string())
}

/// Writes a checkpoint file so that a reader never sees half of it.
///
/// # Errors
/// [`CheckpointError::Io`] names the file.
pub fn save(path: &Path, weights: &Weights, about: &About) -> Result<(), CheckpointError> {
    write_whole(path, &to_bytes(weights, about)?)
        .map_err(|source| CheckpointError::Io { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Weights, About) {
        let weights = Weights::build(8, |_, inputs, outputs, bias| {
            let weight = (0..inputs * outputs).map(|i| i as f32 * 0.01).collect();
            Ok::<_, ()>(Linear { weight, bias: vec![0.5; if bias { outputs } else { 0 }], inputs, outputs })
        });
        let about = About {
            feature_version: FEATURE_VERSION,
            hidden: 8,
            scenarios: vec!["s".into()],
            seed: 1,
            commit: "c".into(),
            command: "cosched train train.toml".into(),
            decisions: 10,
            scores: vec![("s".into(), 0.5)],
        };
        (weights.unwrap(), about)
    }

    #[test]
    fn comes_back_as_it_went() {
        let (weights, about) = sample();
        let bytes = to_bytes(&weights, &about).unwrap();
        assert_eq!(from_bytes("x", &bytes).unwrap(), (weights, about));
    }

    #[test]
    fn another_feature_version_is_refused_with_both_numbers() {
        let (weights, mut about) = sample();
        about.feature_version = FEATURE_VERSION + 7;
        let error =
            from_bytes("x.safetensors", &to_bytes(&weights, &about).unwrap()).unwrap_err().to_string();
        assert!(
            error.contains("x.safetensors") && error.contains(&format!("version {}", FEATURE_VERSION + 7)),
            "{error}"
        );
        assert!(error.contains(&format!("version {FEATURE_VERSION}")), "{error}");
    }

    #[test]
    fn every_truncation_is_an_error_and_no_panic() {
        let (weights, about) = sample();
        let bytes = to_bytes(&weights, &about).unwrap();
        for n in 0..bytes.len() {
            assert!(from_bytes("x", &bytes[..n]).is_err(), "{n} of {} bytes were accepted", bytes.len());
        }
    }

    #[test]
    fn a_weight_that_is_not_a_number_is_refused() {
        let (mut weights, about) = sample();
        weights.mix.weight[3] = f32::NAN;
        let error = from_bytes("x", &to_bytes(&weights, &about).unwrap()).unwrap_err().to_string();
        assert!(error.contains("mix.weight"), "{error}");
    }
}
