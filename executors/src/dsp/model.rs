//! From an f32 graph and sample inputs to its int8 form: folds, observes, chooses ranges, rewrites. One observation serves every
//! [`Method`]. It refuses to work without samples and samples that do not fit.

use super::calibrate::{self, Method, Seen};
use super::{NAME, fold, numbers, ops, quantise};
use crate::graph::{Graph, ValueId};
use crate::processor::ExecError;
use crate::tensor::{DType, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// A graph and what the samples showed of its tensors.
pub struct Calibrated {
    graph: Graph,
    plan: quantise::Plan,
    seen: BTreeMap<ValueId, Seen>,
}

/// Nodes of one operator that stay f32 although the int8 form was asked for.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Left {
    /// The operator.
    pub op: String,
    /// How many nodes.
    pub nodes: usize,
    /// Why.
    pub reason: String,
}

impl Calibrated {
    /// Runs `graph` on the samples, each in the order of its inputs. Operators that the DSP does not run stay f32, see [`Calibrated::left`].
    ///
    /// # Errors
    /// [`ExecError::Failed`] without samples or when onnxruntime fails; [`ExecError::Input`] when a sample does not fit.
    pub fn new(graph: &Graph, samples: &[Vec<Tensor>]) -> Result<Self, ExecError> {
        if samples.is_empty() {
            let reason = "calibration samples are needed: int8 ranges are measured on example inputs, and none were given";
            return Err(failed(graph, reason.into()));
        }
        let ports: Vec<Port> = graph.inputs.iter().map(|id| Port::of(graph, *id)).collect();
        for sample in samples {
            check_inputs(&graph.name, &ports, &sample.iter().collect::<Vec<_>>())?;
        }
        let graph = fold::fold_batch_norm(graph);
        let plan = quantise::Plan::new(&graph);
        let seen = calibrate::observe(&graph, &plan.needed(), samples)?;
        Ok(Self { graph, plan, seen })
    }

    /// The graph in QDQ form, with the same inputs and outputs. What a Softmax gives keeps its whole range whatever the method. `limit` is the
    /// largest weight, see [`numbers::weight_limit`].
    ///
    /// # Errors
    /// [`ExecError::Failed`] when a range is not finite.
    pub fn quantise(&self, method: Method, limit: f32) -> Result<Graph, ExecError> {
        // Of attention the rare large weights count most, and entropy alone would cut them off at a quarter of the range.
        let attention = self.graph.nodes.iter().filter(|n| n.op == "Softmax");
        let whole: BTreeSet<ValueId> = attention.flat_map(|n| n.outputs.iter().flatten().copied()).collect();
        let method_of = |id: &ValueId| if whole.contains(id) { Method::MinMax } else { method };
        let ranges = self.seen.iter().map(|(id, seen)| (*id, seen.range(method_of(id)))).collect();
        quantise::rewrite(&self.graph, &self.plan, &ranges, limit).map_err(|e| failed(&self.graph, e))
    }

    /// Nodes of the graph after folding, and how many of them compute on int8 numbers.
    pub fn nodes(&self) -> (usize, usize) {
        (self.graph.nodes.len(), self.plan.int8_nodes())
    }

    /// What stays f32, and why, by operators.
    pub fn left(&self) -> Vec<Left> {
        let mut left: BTreeMap<(&str, String), usize> = BTreeMap::new();
        for (i, node) in self.graph.nodes.iter().enumerate().filter(|(i, _)| !self.plan.is_int8(*i)) {
            let reason = match ops::supports(&self.graph, node) {
                Err(reason) => reason,
                Ok(()) if self.plan.kind(i) == ops::Kind::Float => "computed in f32 on purpose".to_owned(),
                Ok(()) => "behind an operator that stays f32".to_owned(),
            };
            *left.entry((&node.op, reason)).or_default() += 1;
        }
        left.into_iter().map(|((op, reason), nodes)| Left { op: op.to_owned(), nodes, reason }).collect()
    }
}

/// Calibrates `segment` on `samples` by `method` and rewrites it into QDQ form, with the same inputs and outputs and the weights that this
/// machine multiplies exactly.
///
/// # Errors
/// As [`Calibrated::new`] and [`Calibrated::quantise`]; [`ExecError::Failed`] when an output is made by no node.
pub fn quantise_segment(
    segment: &Graph,
    samples: &[Vec<Tensor>],
    method: Method,
) -> Result<Graph, ExecError> {
    let made = |id: &ValueId| segment.nodes.iter().any(|n| n.outputs.contains(&Some(*id)));
    if let Some(id) = segment.outputs.iter().find(|id| !made(id)) {
        let reason = format!("output `{}` is made by no node of the segment", segment.value(*id).name);
        return Err(failed(segment, reason));
    }
    Calibrated::new(segment, samples)?.quantise(method, numbers::weight_limit())
}

/// An input or output of a graph.
pub(super) struct Port {
    pub name: String,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl Port {
    pub fn of(graph: &Graph, id: ValueId) -> Port {
        let value = graph.value(id).clone();
        Port { name: value.name, dtype: value.dtype, shape: value.shape }
    }

    pub fn bytes(&self) -> usize {
        self.dtype.size() * self.shape.iter().product::<usize>()
    }
}

/// Whether `inputs` are as `ports` say.
pub(super) fn check_inputs(graph: &str, ports: &[Port], inputs: &[&Tensor]) -> Result<(), ExecError> {
    let wrong = |input: &str, expected: String, got: String| {
        Err(ExecError::Input { graph: graph.into(), input: input.into(), expected, got })
    };
    if inputs.len() != ports.len() {
        return wrong("(all)", format!("{} tensors", ports.len()), format!("{} tensors", inputs.len()));
    }
    for (port, tensor) in ports.iter().zip(inputs) {
        if tensor.dtype() != port.dtype || tensor.shape != port.shape {
            let got = format!("{} {:?}", tensor.dtype(), tensor.shape);
            return wrong(&port.name, format!("{} {:?}", port.dtype, port.shape), got);
        }
        if tensor.data.bytes().len() != port.bytes() {
            let expected = format!("{} bytes", port.bytes());
            return wrong(&port.name, expected, format!("{} bytes", tensor.data.bytes().len()));
        }
    }
    Ok(())
}

fn failed(graph: &Graph, reason: String) -> ExecError {
    ExecError::Failed { processor: NAME.into(), graph: graph.name.clone(), reason }
}
