//! Folds a batch normalisation into the convolution before it, so that the pair becomes one int8 operator.
//! onnxruntime has done it already in most graphs; a batch normalisation that follows something else stays.

use crate::graph::{Graph, Node, Value, ValueId};
use crate::tensor::Tensor;
use std::sync::Arc;

/// The graph with every `Conv` + `BatchNormalization` pair made one `Conv` (where the convolution has no other reader). Values keep
/// their ids; new constants are appended.
pub fn fold_batch_norm(graph: &Graph) -> Graph {
    let mut out = graph.clone();
    let mut gone = vec![false; out.nodes.len()];
    for (bn, gone) in gone.iter_mut().enumerate() {
        if let Some((conv, w, b)) = pair(graph, bn) {
            let node = &graph.nodes[conv];
            let name = node.name.clone();
            let w = constant(&mut out, &format!("{name}/folded_w"), w);
            let b = constant(&mut out, &format!("{name}/folded_b"), b);
            out.nodes[conv].inputs = vec![node.inputs[0], Some(w), Some(b)];
            out.nodes[conv].outputs = graph.nodes[bn].outputs[..1].to_vec();
            *gone = true;
        }
    }
    let mut i = 0;
    out.nodes.retain(|_| {
        i += 1;
        !gone[i - 1]
    });
    out
}

fn constant(graph: &mut Graph, name: &str, tensor: Tensor) -> ValueId {
    let id = ValueId(graph.values.len() as u32);
    let name = format!("{name}{}", id.0);
    graph.values.push(Value { name, dtype: tensor.dtype(), shape: tensor.shape.clone() });
    graph.constants.insert(id, Arc::new(tensor));
    id
}

/// The convolution before batch normalisation `bn`, with the weights and the bias that do both.
fn pair(graph: &Graph, bn: usize) -> Option<(usize, Tensor, Tensor)> {
    let node = graph.nodes.get(bn).filter(|n| n.op == "BatchNormalization" && n.domain.is_empty())?;
    let (x, _) = graph.input(node, 0)?;
    let reads = |n: &Node| n.inputs.iter().filter(|i| **i == Some(x)).count();
    if graph.nodes.iter().map(reads).sum::<usize>() != 1 || graph.outputs.contains(&x) {
        return None;
    }
    let conv =
        graph.nodes[..bn].iter().position(|n| n.op == "Conv" && n.outputs.first() == Some(&Some(x)))?;
    let w = graph.constant_input(&graph.nodes[conv], 1)?;
    let channels = *w.shape.first()?;
    let parameter = |i: usize| graph.constant_input(node, i)?.as_f32().filter(|p| p.len() == channels);
    let (gamma, beta, mean, var) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
    let bias = match graph.nodes[conv].inputs.get(2).copied().flatten() {
        Some(id) => graph.constant(id)?.as_f32().filter(|b| b.len() == channels)?.to_vec(),
        None => vec![0.0; channels],
    };
    let epsilon = node.float("epsilon", 1e-5);
    let factor: Vec<f32> = (0..channels).map(|c| gamma[c] / (var[c] + epsilon).sqrt()).collect();
    let old = w.as_f32()?;
    let inner = (old.len() / channels.max(1)).max(1);
    let new_w = old.iter().enumerate().map(|(i, x)| x * factor[i / inner]).collect();
    let new_b = (0..channels).map(|c| (bias[c] - mean[c]) * factor[c] + beta[c]).collect();
    Some((conv, Tensor::f32(&w.shape, new_w), Tensor::f32(&[channels], new_b)))
}
