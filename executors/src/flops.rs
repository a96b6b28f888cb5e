//! How much arithmetic a node is: an estimate for cutting and for people. It refuses to be a latency model; that is the profiler's work.

use crate::graph::{Graph, Node, Value};

/// Elements of a value.
fn elements(value: &Value) -> u64 {
    value.shape.iter().map(|&d| d as u64).product()
}

/// Operators that compute nothing: their output is their input, seen or stored in another way.
const MOVES: &[&str] = &[
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Transpose",
    "Concat",
    "Slice",
    "Split",
    "Gather",
    "Pad",
    "Expand",
    "Tile",
    "Shape",
    "Cast",
    "DepthToSpace",
    "SpaceToDepth",
    "Dropout",
];

/// Floating-point operations of one run of `node`; a multiply-add counts as two, everything elementwise as one an element
/// (five for softmax and normalisation), moving data as none.
pub fn flops(graph: &Graph, node: &Node) -> u64 {
    let out = graph.output(node, 0).map_or(0, |(_, v)| elements(v));
    let all = |i: usize| graph.input(node, i).map_or(0, |(_, v)| elements(v));
    let dim = |i: usize, axis: usize| {
        graph.input(node, i).and_then(|(_, v)| v.shape.get(axis).copied()).unwrap_or(1) as u64
    };
    // Weights [out, in / groups, kernel...]: the work for one output element.
    let taps = |weights: usize| 2 * all(weights) / dim(weights, 0).max(1);
    let last = |i: usize| graph.input(node, i).and_then(|(_, v)| v.shape.last().copied()).unwrap_or(1) as u64;
    let kernel = || node.ints("kernel_shape").map_or(1, |k| k.iter().product::<i64>().max(1) as u64);
    match node.op.as_str() {
        "Conv" | "ConvInteger" | "FusedConv" => out * taps(1),
        "QLinearConv" => out * taps(3),
        "ConvTranspose" => all(0) * taps(1),
        "MatMul" | "MatMulInteger" | "FusedMatMul" | "QLinearMatMul" => 2 * out * last(0),
        "Gemm" => 2 * out * dim(0, if node.int("transA", 0) == 0 { 1 } else { 0 }),
        "MaxPool" | "AveragePool" | "LpPool" => out * kernel(),
        "GlobalAveragePool" | "GlobalMaxPool" => all(0),
        op if op.starts_with("Reduce") => all(0),
        "Softmax" | "LogSoftmax" | "LayerNormalization" | "InstanceNormalization" | "GroupNormalization" => {
            5 * out
        }
        op if MOVES.contains(&op) => 0,
        _ => out,
    }
}

/// What a node costs when cuts are balanced: its arithmetic, and each element that it reads and writes as one operation more.
/// Views are free.
pub(crate) fn weight(graph: &Graph, node: &Node) -> u64 {
    if matches!(node.op.as_str(), "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Identity") {
        return 0;
    }
    let moved = node.inputs.iter().chain(&node.outputs).flatten().filter(|&&id| graph.constant(id).is_none());
    flops(graph, node) + moved.map(|&id| elements(graph.value(id))).sum::<u64>()
}

/// Sum over all nodes.
pub fn total(graph: &Graph) -> u64 {
    graph.nodes.iter().map(|node| flops(graph, node)).sum()
}
