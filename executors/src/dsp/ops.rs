//! The one table of operators that the DSP runs, and how each is treated by the quantiser. What is not here (Gather, Einsum, ...) is
//! refused with a reason and runs elsewhere.

use crate::graph::{Graph, Node, ValueId};
use crate::tensor::{DType, Tensor};

/// How the quantiser treats an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// int8 arithmetic with constant s8 weights (per output channel) and an i32 bias.
    Weighted,
    /// int8 arithmetic; the output has a scale of its own.
    Quantised,
    /// Moves or picks elements: the output has the scale of the input. Stays f32 behind an f32 producer.
    SameScale,
    /// Clamps: dropped where the requantisation of its producer saturates in the same way, else as `SameScale`, with a scale
    /// of its own.
    Clamp,
    /// Computed in f32 between dequantise and quantise: int8 would lose too much (or onnxruntime has no int8 kernel).
    Float,
}

/// One operator.
pub struct OpRow {
    /// ONNX name, standard domain.
    pub op: &'static str,
    /// Treatment.
    pub kind: Kind,
    /// Further conditions; the error says what is wrong.
    check: fn(&Graph, &Node) -> Result<(), String>,
}

const fn row(op: &'static str, kind: Kind, check: fn(&Graph, &Node) -> Result<(), String>) -> OpRow {
    OpRow { op, kind, check }
}

/// Every operator that the DSP runs.
pub static OPS: &[OpRow] = &[
    row("Conv", Kind::Weighted, conv),
    row("Gemm", Kind::Weighted, gemm),
    row("ConvTranspose", Kind::Weighted, conv_transpose),
    row("MatMul", Kind::Weighted, matmul),
    row("Add", Kind::Quantised, any),
    row("Mul", Kind::Quantised, any),
    row("Concat", Kind::Quantised, any),
    row("AveragePool", Kind::Quantised, any),
    row("GlobalAveragePool", Kind::Quantised, any),
    row("MaxPool", Kind::SameScale, one_output),
    row("Reshape", Kind::SameScale, any),
    row("Flatten", Kind::SameScale, any),
    row("Transpose", Kind::SameScale, any),
    row("Squeeze", Kind::SameScale, any),
    row("Unsqueeze", Kind::SameScale, any),
    row("Slice", Kind::SameScale, any),
    row("Split", Kind::SameScale, any),
    row("Identity", Kind::SameScale, any),
    row("Dropout", Kind::SameScale, one_output),
    row("Pad", Kind::SameScale, pad),
    row("Resize", Kind::SameScale, resize),
    row("Relu", Kind::Clamp, any),
    row("Clip", Kind::Clamp, clip),
    row("Sub", Kind::Float, any),
    row("Div", Kind::Float, any),
    row("LeakyRelu", Kind::Float, any),
    row("PRelu", Kind::Float, any),
    row("HardSwish", Kind::Float, any),
    row("HardSigmoid", Kind::Float, any),
    row("Sigmoid", Kind::Float, any),
    row("Tanh", Kind::Float, any),
    row("Softmax", Kind::Float, any),
    row("Erf", Kind::Float, any),
    row("Gelu", Kind::Float, any),
    row("Exp", Kind::Float, any),
    row("Sqrt", Kind::Float, any),
    row("Pow", Kind::Float, any),
    row("ReduceMean", Kind::Float, any),
    row("ReduceSum", Kind::Float, any),
    row("LayerNormalization", Kind::Float, one_output),
    row("BatchNormalization", Kind::Float, batch_norm),
];

/// The row of an operator.
pub fn find(node: &Node) -> Option<&'static OpRow> {
    OPS.iter().find(|row| row.op == node.op && (node.domain.is_empty() || node.domain == "ai.onnx"))
}

/// How the quantiser treats `node`, whose row is known: a product of two tensors that are computed has no weights.
pub fn kind(graph: &Graph, node: &Node, row: &OpRow) -> Kind {
    let computed = |id: &ValueId| graph.constant(*id).is_none();
    if row.op == "MatMul" && node.inputs.get(1).copied().flatten().is_some_and(|id| computed(&id)) {
        return Kind::Quantised;
    }
    row.kind
}

/// Whether the DSP runs `node`; the error says why not.
///
/// # Errors
/// A reason for people: unknown operator, element type, weights that are not constant, an unusual attribute.
pub fn supports(graph: &Graph, node: &Node) -> Result<(), String> {
    let row = find(node).ok_or_else(|| {
        let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
        format!("operator {domain}{} is not one that the DSP runs", node.op)
    })?;
    for id in node.inputs.iter().flatten().filter(|id| graph.constant(**id).is_none()) {
        let value = graph.value(*id);
        if value.dtype != DType::F32 {
            return Err(format!(
                "input `{}` is {}, the DSP takes f32 activations only",
                value.name, value.dtype
            ));
        }
    }
    for id in node.outputs.iter().flatten() {
        let value = graph.value(*id);
        if value.dtype != DType::F32 {
            return Err(format!("output `{}` is {}, expected f32", value.name, value.dtype));
        }
    }
    let may_be_constant = matches!(kind(graph, node, row), Kind::Quantised | Kind::Float);
    let first = node.inputs.first().copied().flatten();
    if first.is_none_or(|id| !may_be_constant && graph.constant(id).is_some()) {
        return Err("its first input is missing or constant".into());
    }
    (row.check)(graph, node)
}

fn any(_: &Graph, _: &Node) -> Result<(), String> {
    Ok(())
}

fn one_output(_: &Graph, node: &Node) -> Result<(), String> {
    let used = node.outputs.iter().flatten().count();
    if used == 1 { Ok(()) } else { Err(format!("{used} of its outputs are used, the DSP gives one")) }
}

/// The constant f32 weights that are input 1, of at least `rank` axes.
fn weights<'g>(graph: &'g Graph, node: &Node, rank: usize) -> Result<&'g Tensor, String> {
    let w = graph.constant_input(node, 1).ok_or("its weights are not constant")?;
    match w.as_f32() {
        None => Err(format!("its weights are {}, expected f32", w.dtype())),
        Some(_) if w.shape.len() < rank || w.is_empty() => {
            Err(format!("its weights have shape {:?}, expected at least {rank} axes", w.shape))
        }
        Some(_) => Ok(w),
    }
}

/// The bias that is input 2, if given: constant f32 that is one row of `channels` (or one number).
fn bias(graph: &Graph, node: &Node, channels: usize) -> Result<(), String> {
    if node.inputs.get(2).copied().flatten().is_none() {
        return Ok(());
    }
    let b = graph.constant_input(node, 2).ok_or("its bias is not constant")?;
    let row = b.shape.last().is_none_or(|n| *n == b.len()) && (b.len() == channels || b.len() == 1);
    if b.as_f32().is_some() && row {
        Ok(())
    } else {
        Err(format!("its bias is {} {:?}, expected f32 [{channels}]", b.dtype(), b.shape))
    }
}

fn conv(graph: &Graph, node: &Node) -> Result<(), String> {
    let w = weights(graph, node, 3)?;
    bias(graph, node, w.shape[0])
}

fn gemm(graph: &Graph, node: &Node) -> Result<(), String> {
    let w = weights(graph, node, 2)?;
    if node.int("transA", 0) != 0 {
        return Err("transA is not supported".into());
    }
    bias(graph, node, w.shape[usize::from(node.int("transB", 0) == 0)])
}

/// Weights are [channels in, channels out, kernel...]; with groups a scale would belong to several channels.
fn conv_transpose(graph: &Graph, node: &Node) -> Result<(), String> {
    let w = weights(graph, node, 3)?;
    if node.int("group", 1) != 1 {
        return Err("it has groups".into());
    }
    bias(graph, node, w.shape[1])
}

fn matmul(graph: &Graph, node: &Node) -> Result<(), String> {
    if graph.input(node, 1).is_some() && graph.constant_input(node, 1).is_none() {
        return Ok(());
    }
    weights(graph, node, 2).map(drop)
}

fn pad(graph: &Graph, node: &Node) -> Result<(), String> {
    if !matches!(node.str("mode"), None | Some("constant")) {
        return Ok(());
    }
    let given = node.inputs.get(2).copied().flatten().is_some();
    let zero = match graph.constant_input(node, 2) {
        Some(value) => value.as_f32().is_some_and(|v| v.iter().all(|v| *v == 0.0)),
        None => !given && node.float("value", 0.0) == 0.0,
    };
    if zero { Ok(()) } else { Err("it pads with something else than zero".into()) }
}

fn resize(_: &Graph, node: &Node) -> Result<(), String> {
    match node.str("mode") {
        None | Some("nearest" | "linear") => Ok(()),
        Some(mode) => Err(format!("mode `{mode}` overshoots the range of its input")),
    }
}

fn clip(graph: &Graph, node: &Node) -> Result<(), String> {
    clip_range(graph, node).map(drop).ok_or("its limits are not constant f32 numbers".into())
}

/// The limits of a `Relu` or `Clip`, when they are known.
pub fn clip_range(graph: &Graph, node: &Node) -> Option<(f32, f32)> {
    if node.op == "Relu" {
        return Some((0.0, f32::INFINITY));
    }
    let limit = |i: usize, name: &str, default: f32| match node.inputs.get(i).copied().flatten() {
        None => Some(node.float(name, default)),
        Some(id) => graph.constant(id).and_then(|t| t.as_f32()).and_then(|v| v.first().copied()),
    };
    Some((limit(1, "min", f32::NEG_INFINITY)?, limit(2, "max", f32::INFINITY)?))
}

fn batch_norm(graph: &Graph, node: &Node) -> Result<(), String> {
    match (1..5).all(|i| graph.constant_input(node, i).is_some_and(|t| t.as_f32().is_some())) {
        true => one_output(graph, node),
        false => Err("its scale, bias, mean and variance are not all constant f32".into()),
    }
}
