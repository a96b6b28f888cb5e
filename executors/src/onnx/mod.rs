//! ONNX in and out: files become a [`Graph`] with every shape known and constants folded, and a graph becomes bytes for onnxruntime.
//! It refuses dynamic shapes (except a leading batch, which becomes 1), control flow, strings and operators that onnxruntime does not know.

pub(crate) mod convert;
pub mod draft;
mod external;
mod inputs;
mod load;
#[rustfmt::skip]
pub(crate) mod proto;
mod save;

pub use load::{from_bytes, load};
pub use save::to_onnx;

use crate::runtime::RuntimeError;

#[allow(unused_imports)]
use crate::graph::Graph;

/// Why a model could not be loaded. Every message begins with the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error("{file}: cannot read: {source}")]
    Read {
        /// Path.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are not (wholly) an ONNX model.
    #[error("{file}: not an ONNX model, or a truncated one: {reason}")]
    NotOnnx {
        /// Path or name.
        file: String,
        /// What was wrong.
        reason: String,
    },
    /// Weights outside the file are missing or unusable.
    #[error("{file}: external data of tensor `{tensor}`: {reason}")]
    External {
        /// Path or name.
        file: String,
        /// Initializer.
        tensor: String,
        /// What was wrong.
        reason: String,
    },
    /// An operator that onnxruntime does not know or has no kernel for.
    #[error("{file}: node `{node}`: unknown operator `{op}` of domain `{domain}`: {reason}")]
    UnknownOp {
        /// Path or name.
        file: String,
        /// Node name, or its first output where it has none.
        node: String,
        /// Operator.
        op: String,
        /// Domain; `ai.onnx` is the standard one.
        domain: String,
        /// What onnxruntime said.
        reason: String,
    },
    /// A shape is not known before the run.
    #[error("{file}: `{value}` has a dynamic shape ({shape}): {hint}")]
    Dynamic {
        /// Path or name.
        file: String,
        /// Input or inner tensor.
        value: String,
        /// The shape as far as it is known.
        shape: String,
        /// What the user can do.
        hint: String,
    },
    /// Something that cosched does not carry: control flow, sequences, strings, sparse or exotic types.
    #[error("{file}: {what} is not supported: {hint}")]
    Unsupported {
        /// Path or name.
        file: String,
        /// The node, tensor or attribute.
        what: String,
        /// Why, or what to do instead.
        hint: String,
    },
    /// The model is well formed but wrong: onnxruntime refused it.
    #[error("{file}: invalid model: {reason}")]
    Invalid {
        /// Path or name.
        file: String,
        /// What was wrong.
        reason: String,
    },
    /// onnxruntime itself is missing.
    #[error("{file}: cannot be loaded: {source}")]
    Runtime {
        /// Path or name.
        file: String,
        /// Why.
        source: RuntimeError,
    },
}
