//! The graph that every part of the executors works on: ONNX nodes with all shapes and types known, constants folded.
//! A whole model and a segment of it are both a `Graph`. It refuses dynamic shapes, subgraphs (If, Loop) and dangling values:
//! the loader turns those into errors.

use crate::tensor::{DType, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Index into [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// A tensor that flows along an edge: its ONNX name, type and static shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// ONNX tensor name, unique in the graph.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Static shape, outermost axis first.
    pub shape: Vec<usize>,
}

impl Value {
    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// An ONNX attribute.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Attr {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
    Floats(Vec<f32>),
    String(String),
    Strings(Vec<String>),
    Tensor(Tensor),
}

/// One operator application.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Node name (made up when the file has none).
    pub name: String,
    /// Operator, e.g. `Conv`.
    pub op: String,
    /// Operator set domain; empty for the standard one.
    pub domain: String,
    /// Inputs in ONNX order; `None` is an omitted optional input.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs in ONNX order; `None` is an output that nobody asked for.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes by name.
    pub attrs: BTreeMap<String, Attr>,
}

impl Node {
    /// The integer attribute `name`, or `default` when it is absent.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        match self.attrs.get(name) {
            Some(Attr::Int(v)) => *v,
            _ => default,
        }
    }

    /// The float attribute `name`, or `default` when it is absent.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        match self.attrs.get(name) {
            Some(Attr::Float(v)) => *v,
            _ => default,
        }
    }

    /// The integer-list attribute `name`, if present.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attrs.get(name) {
            Some(Attr::Ints(v)) => Some(v),
            _ => None,
        }
    }

    /// The string attribute `name`, if present.
    pub fn str(&self, name: &str) -> Option<&str> {
        match self.attrs.get(name) {
            Some(Attr::String(v)) => Some(v),
            _ => None,
        }
    }
}

/// A directed acyclic graph of nodes in topological order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Name, for messages.
    pub name: String,
    /// ONNX opset version of the standard domain.
    pub opset: i64,
    /// Opset versions of other domains (`com.microsoft`, ...).
    pub other_opsets: BTreeMap<String, i64>,
    /// All values: inputs, constants and node outputs.
    pub values: Vec<Value>,
    /// The values whose contents are known.
    pub constants: BTreeMap<ValueId, Arc<Tensor>>,
    /// Nodes; each reads only inputs, constants and outputs of earlier nodes.
    pub nodes: Vec<Node>,
    /// Graph inputs (never constants).
    pub inputs: Vec<ValueId>,
    /// Graph outputs.
    pub outputs: Vec<ValueId>,
}

impl Graph {
    /// The value behind an id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// The contents of a constant value.
    pub fn constant(&self, id: ValueId) -> Option<&Arc<Tensor>> {
        self.constants.get(&id)
    }

    /// The `i`-th input of `node`, or `None` when it is omitted.
    pub fn input<'g>(&'g self, node: &Node, i: usize) -> Option<(ValueId, &'g Value)> {
        let id = node.inputs.get(i).copied().flatten()?;
        Some((id, self.value(id)))
    }

    /// The constant contents of the `i`-th input of `node`, if it is given and constant.
    pub fn constant_input<'g>(&'g self, node: &Node, i: usize) -> Option<&'g Tensor> {
        let id = node.inputs.get(i).copied().flatten()?;
        self.constant(id).map(|t| &**t)
    }

    /// The `i`-th output of `node`, or `None` when nobody asked for it.
    pub fn output<'g>(&'g self, node: &Node, i: usize) -> Option<(ValueId, &'g Value)> {
        let id = node.outputs.get(i).copied().flatten()?;
        Some((id, self.value(id)))
    }

    /// Bytes of all constants (weights).
    pub fn constant_bytes(&self) -> usize {
        self.constants.values().map(|t| t.bytes()).sum()
    }
}
