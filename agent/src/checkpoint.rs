//! Checkpoints: weights in a safetensors file that plain Rust, tch and Python read, with what one must know of them.
//! It refuses weights of another feature version, shape or type with an error that says what was expected.

use crate::features::{CANDIDATE_FEATURES, CONTEXT_FEATURES, FEATURE_VERSION};
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
    let (_, metadata) =
        SafeTensors::read_metadata(bytes).map_err(|e| bad(format!("not a safetensors file ({e})")))?;
    let text = metadata.metadata().as_ref().and_then(|m| m.get(ABOUT_KEY));
    let text = text
        .ok_or_else(|| bad(format!("the metadata key `{ABOUT_KEY}` is missing: not written by cosched")))?;
    let about: About =
        serde_json::from_str(text).map_err(|e| bad(format!("metadata key `{ABOUT_KEY}`: {e}")))?;
    if about.feature_version != FEATURE_VERSION {
        return Err(bad(format!(
            "made for feature version {}, this build has version {FEATURE_VERSION}; train it again with `{}`",
            about.feature_version, about.command
        )));
    }
    if about.hidden == 0 || about.hidden > 4096 {
        return Err(bad(format!("expected a hidden width of 1 to 4096, got {}", about.hidden)));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
    let weights = Weights::build(about.hidden, |layer, inputs, outputs, bias| {
        let weight = floats(&tensors, &format!("{layer}.weight"), &[outputs, inputs]).map_err(bad)?;
        let bias = if bias {
            floats(&tensors, &format!("{layer}.bias"), &[outputs]).map_err(bad)?
        } else {
            Vec::new()
        };
        Ok(Linear { weight, bias, inputs, outputs })
    })?;
    Ok((weights, about))
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
    let mut blobs: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for ((name, inputs, outputs, _), layer) in layers(weights.hidden()).into_iter().zip(weights.each()) {
        let bytes = |v: &[f32]| v.iter().flat_map(|x| x.to_le_bytes()).collect();
        blobs.push((format!("{name}.weight"), vec![outputs, inputs], bytes(&layer.weight)));
        if !layer.bias.is_empty() {
            blobs.push((format!("{name}.bias"), vec![outputs], bytes(&layer.bias)));
        }
    }
    let views: Result<Vec<_>, _> = blobs
        .iter()
        .map(|(name, shape, data)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), data)?)))
        .collect();
    let views = views.map_err(|e: safetensors::SafeTensorError| bad(e.to_string()))?;
    let about = serde_json::to_string(about).map_err(|e| bad(e.to_string()))?;
    let metadata = HashMap::from([(ABOUT_KEY.to_owned(), about)]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| bad(e.to_string()))
}

/// Writes a checkpoint file through a temporary one beside it, so that a reader never sees half of it.
///
/// # Errors
/// [`CheckpointError::Io`] names the file.
pub fn save(path: &Path, weights: &Weights, about: &About) -> Result<(), CheckpointError> {
    let bytes = to_bytes(weights, about)?;
    let temporary = path.with_extension("safetensors.part");
    let io = |source| CheckpointError::Io { path: path.display().to_string(), source };
    std::fs::write(&temporary, bytes).map_err(io)?;
    std::fs::rename(&temporary, path).map_err(io)
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
