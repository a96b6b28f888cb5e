//! A model in onnxruntime as it stands in its file: inputs and outputs by name, of whatever shapes it takes at each run. For checking
//! files that we write. It refuses to be scheduled: segments need shapes that are known before; see `onnx::load` and `cpu`.

use crate::cpu::{input, output};
use crate::runtime::{self, SessionError};
use crate::tensor::Tensor;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;

/// Why a model did not run.
#[derive(Debug, thiserror::Error)]
pub enum BareError {
    /// There is no onnxruntime.
    #[error(transparent)]
    Absent(#[from] runtime::RuntimeError),
    /// onnxruntime refuses the model or the inputs.
    #[error("onnxruntime: {0}")]
    Refused(String),
}

impl From<ort::Error> for BareError {
    fn from(error: ort::Error) -> Self {
        BareError::Refused(error.to_string())
    }
}

/// An open model.
pub struct Bare(Session);

impl Bare {
    /// Opens an ONNX file from memory, on one thread.
    ///
    /// # Errors
    /// [`BareError`].
    pub fn open(bytes: &[u8]) -> Result<Bare, BareError> {
        let session = runtime::session(bytes, 1, GraphOptimizationLevel::All, Ok);
        session.map(Bare).map_err(|error| match error {
            SessionError::Absent(error) => BareError::Absent(error),
            SessionError::Refused(reason) => BareError::Refused(reason),
        })
    }

    /// Gives the named outputs for named inputs.
    ///
    /// # Errors
    /// [`BareError::Refused`].
    pub fn run(&mut self, inputs: &[(&str, &Tensor)], outputs: &[&str]) -> Result<Vec<Tensor>, BareError> {
        let mut values = Vec::new();
        for &(name, tensor) in inputs {
            values.push((name, input(&self.0, tensor)?));
        }
        let made = self.0.run(values)?;
        let missing = |name: &str| BareError::Refused(format!("the model has no output `{name}`"));
        outputs
            .iter()
            .map(|&name| output(made.get(name).ok_or_else(|| missing(name))?).map_err(BareError::Refused))
            .collect()
    }

    /// A note in the metadata of the file.
    ///
    /// # Errors
    /// [`BareError::Refused`].
    pub fn note(&self, key: &str) -> Result<Option<String>, BareError> {
        Ok(self.0.metadata()?.custom(key))
    }
}
