//! Lowers functions of one and two operands and batch normalisation that stands alone.
//! It refuses constants that are not known when the graph is loaded.

use super::super::kernel::Spec;
use super::super::kernel::elementwise::{AcrossRows, Binary, Side};
use super::super::kernel::unary::Unary;
use super::copy::rows;
use super::{Args, Group, Lower, Operand, axis_of, dense, elements, merge};
use crate::graph::{Graph, Node, ValueId};

/// Operators that are a function of one float.
pub static UNARY: &[&str] = &[
    "Abs",
    "Clip",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "Neg",
    "Reciprocal",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Sqrt",
    "Tanh",
];

/// The function that `node` applies to its first input, with its constants.
pub fn function(graph: &Graph, node: &Node) -> Result<(Unary, [f32; 2]), String> {
    let plain = |unary| Ok((unary, [0.0; 2]));
    match node.op.as_str() {
        "Abs" => plain(Unary::Abs),
        "Clip" => Ok((
            Unary::Clip,
            [bound(graph, node, 1, f32::NEG_INFINITY)?, bound(graph, node, 2, f32::INFINITY)?],
        )),
        "Elu" => Ok((Unary::Elu, [node.float("alpha", 1.0), 0.0])),
        "Erf" => plain(Unary::Erf),
        "Exp" => plain(Unary::Exp),
        "Floor" => plain(Unary::Floor),
        "Gelu" => match node.str("approximate").unwrap_or("none") {
            "none" => plain(Unary::Gelu),
            "tanh" => plain(Unary::GeluTanh),
            other => Err(format!("attribute approximate = `{other}`, expected none or tanh")),
        },
        "HardSigmoid" => Ok((Unary::HardSigmoid, [node.float("alpha", 0.2), node.float("beta", 0.5)])),
        "HardSwish" => plain(Unary::HardSwish),
        "LeakyRelu" => Ok((Unary::LeakyRelu, [node.float("alpha", 0.01), 0.0])),
        "Log" => plain(Unary::Log),
        "Neg" => plain(Unary::Neg),
        "Reciprocal" => plain(Unary::Reciprocal),
        "Relu" => Ok((Unary::Clip, [0.0, f32::INFINITY])),
        "Sigmoid" => plain(Unary::Sigmoid),
        "Softplus" => plain(Unary::Softplus),
        "Sqrt" => plain(Unary::Sqrt),
        "Tanh" => plain(Unary::Tanh),
        other => Err(format!("{other} is not a function of one operand")),
    }
}

/// A bound of Clip: an attribute before opset 11, an optional scalar input since.
fn bound(graph: &Graph, node: &Node, i: usize, default: f32) -> Result<f32, String> {
    let name = if i == 1 { "min" } else { "max" };
    if node.inputs.get(i).copied().flatten().is_none() {
        return Ok(node.float(name, default));
    }
    let tensor = graph.constant_input(node, i).ok_or_else(|| format!("its {name} must be constant"))?;
    match tensor.as_f32() {
        Some([v]) => Ok(*v),
        _ => Err(format!("its {name} must be one f32")),
    }
}

pub(super) fn unary(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let (id, value) = lower.input(group.node, 0)?;
    let (unary, constants) = function(lower.graph, group.node)?;
    emit_unary(lower, id, elements(value), unary, constants, group.out);
    Ok(())
}

fn emit_unary(
    lower: &mut Lower<'_>,
    x: ValueId,
    total: usize,
    unary: Unary,
    constants: [f32; 2],
    out: ValueId,
) {
    let (x, out) = (lower.in_arena(x), lower.output(out));
    if let Some((width, chunks)) = rows(lower.target, total) {
        let a = Side { buf: x.buf(), along: true };
        let args = Args::new().at("a_at", x).at("out_at", out).act(constants);
        let rows = AcrossRows { a, b: None, rank: 1, width, chunks, then: unary };
        emit_rows(lower, rows, args, total, total);
        return;
    }
    let args = Args::new().at("x_at", x).at("out_at", out).act(constants);
    lower.emit(Spec::Unary(unary), args, total);
}

pub(super) fn binary(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let node = group.node;
    let op = match node.op.as_str() {
        "Add" | "Sum" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        _ => Binary::Prelu,
    };
    // Max, Min and Sum take any number of operands: one kernel after another.
    let (first, _) = lower.input(node, 0)?;
    let mut left = lower.operand(first);
    let mut left_shape = lower.graph.value(first).shape.clone();
    let out_shape = lower.graph.value(group.out).shape.clone();
    if node.inputs.len() == 1 {
        let (unary, constants) = group.act.unwrap_or((Unary::Identity, [0.0; 2]));
        emit_unary(lower, first, out_shape.iter().product(), unary, constants, group.out);
        return Ok(());
    }
    for i in 1..node.inputs.len() {
        let (id, value) = lower.input(node, i)?;
        let right = lower.operand(id);
        let last = i + 1 == node.inputs.len();
        let out = if last {
            lower.output(group.out)
        } else {
            Operand::Slot(lower.scratch(out_shape.iter().product()))
        };
        let act = group.act.filter(|_| last);
        emit_binary(lower, op, (left, &left_shape), (right, &value.shape), (out, &out_shape), act)?;
        (left, left_shape) = (out, out_shape.clone());
    }
    Ok(())
}

/// Strides of an operand of shape `shape` inside `out`: 0 along broadcast axes.
pub(super) fn broadcast_strides(shape: &[usize], out: &[usize]) -> Result<Vec<i64>, String> {
    let missing = out.len().checked_sub(shape.len()).ok_or("an operand has more axes than the result")?;
    let own = dense(shape);
    (0..out.len())
        .map(|axis| match axis.checked_sub(missing) {
            None => Ok(0),
            Some(a) if shape[a] == 1 && out[axis] != 1 => Ok(0),
            Some(a) if shape[a] == out[axis] => Ok(own[a]),
            Some(a) => Err(format!("extent {} does not broadcast to {}", shape[a], out[axis])),
        })
        .collect()
}

type At<'s> = (Operand, &'s [usize]);

pub(super) fn emit_binary(
    lower: &mut Lower<'_>,
    op: Binary,
    (a, a_shape): (Operand, &Vec<usize>),
    (b, b_shape): At<'_>,
    (out, out_shape): At<'_>,
    act: Option<(Unary, [f32; 2])>,
) -> Result<(), String> {
    let (then, constants) = act.unwrap_or((Unary::Identity, [0.0; 2]));
    let total: usize = out_shape.iter().product();
    let a_strides = broadcast_strides(a_shape, out_shape)?;
    let b_strides = broadcast_strides(b_shape, out_shape)?;
    let (dims, strides) = merge(out_shape, &[&a_strides, &b_strides])?;
    let args = Args::new()
        .list("d", &dims)
        .at("a_at", a)
        .list("a_s", &strides[0])
        .at("b_at", b)
        .list("b_s", &strides[1])
        .at("out_at", out)
        .act(constants);
    let last = dims.len() - 1;
    let side = |operand: Operand, strides: &[i64]| Side { buf: operand.buf(), along: strides[last] == 1 };
    // Along an axis that was not broadcast on one side, operands that are dense have neighbours.
    if strides.iter().all(|s| matches!(s[last], 0 | 1))
        && let Some((width, chunks)) = rows(lower.target, dims[last] as usize)
    {
        let (a, b) = (side(a, &strides[0]), side(b, &strides[1]));
        let rows = AcrossRows { a, b: Some((op, b)), rank: dims.len(), width, chunks, then };
        emit_rows(lower, rows, args, total, dims[last] as usize);
        return Ok(());
    }
    lower.emit(Spec::Broadcast(op, a.buf(), b.buf(), dims.len(), then), args, total);
    Ok(())
}

/// A step over `total` elements in rows of `row`.
fn emit_rows(lower: &mut Lower<'_>, rows: AcrossRows, args: Args, total: usize, row: usize) {
    let tiles = row.div_ceil((rows.width * rows.chunks) as usize);
    lower.emit(Spec::AcrossRows(rows), args.int("tiles", tiles).int("row", row), total / row * tiles);
}

pub(super) fn pow(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let node = group.node;
    let (id, value) = lower.input(node, 0)?;
    let (exponent, exponent_value) = lower.input(node, 1)?;
    let total = elements(lower.graph.value(group.out));
    if let Some([y]) = lower.graph.constant(exponent).and_then(|t| t.as_f32())
        && elements(value) == total
    {
        let unary = match *y {
            2.0 => Unary::Square,
            0.5 => Unary::Sqrt,
            1.0 => Unary::Identity,
            -1.0 => Unary::Reciprocal,
            _ => Unary::Pow,
        };
        emit_unary(lower, id, total, unary, [*y, 0.0], group.out);
        return Ok(());
    }
    let (a, b, out) = (lower.operand(id), lower.operand(exponent), lower.output(group.out));
    let out_shape = lower.graph.value(group.out).shape.clone();
    emit_binary(lower, Binary::Pow, (a, &value.shape), (b, &exponent_value.shape), (out, &out_shape), None)
}

/// Scale and shift that a batch normalisation amounts to, per channel.
pub fn norm_constants(graph: &Graph, node: &Node) -> Result<(Vec<f32>, Vec<f32>), String> {
    if node.int("training_mode", 0) != 0 || node.outputs.iter().skip(1).any(Option::is_some) {
        return Err("training mode".into());
    }
    let list = |i: usize, what: &str| {
        let tensor = graph.constant_input(node, i).ok_or_else(|| format!("its {what} must be constant"))?;
        tensor.as_f32().ok_or_else(|| format!("its {what} is {}, not f32", tensor.dtype()))
    };
    let (gamma, beta) = (list(1, "scale")?, list(2, "bias")?);
    let (mean, variance) = (list(3, "mean")?, list(4, "variance")?);
    if [beta.len(), mean.len(), variance.len()] != [gamma.len(); 3] {
        return Err("its constants differ in length".into());
    }
    let epsilon = node.float("epsilon", 1e-5) as f64;
    let scale: Vec<f64> =
        gamma.iter().zip(variance).map(|(&g, &v)| g as f64 / (v as f64 + epsilon).sqrt()).collect();
    let shift = (0..scale.len()).map(|c| (beta[c] as f64 - mean[c] as f64 * scale[c]) as f32).collect();
    Ok((scale.into_iter().map(|s| s as f32).collect(), shift))
}

pub(super) fn batch_norm(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let (id, value) = lower.input(group.node, 0)?;
    let (scale, shift) = norm_constants(lower.graph, group.node)?;
    let channels = value.shape[axis_of(1, value.shape.len())?];
    if scale.len() != channels {
        return Err(format!("{} constants for {channels} channels", scale.len()));
    }
    let (then, constants) = group.act.unwrap_or((Unary::Identity, [0.0; 2]));
    let (x, out) = (lower.in_arena(id), lower.output(group.out));
    let scale = Operand::Blob(lower.blob(channels, move || scale.clone()));
    let shift = Operand::Blob(lower.blob(channels, move || shift.clone()));
    let args = Args::new()
        .int("channels", channels)
        .int("inner", value.shape[2..].iter().product())
        .at("scale_at", scale)
        .at("shift_at", shift)
        .at("x_at", x)
        .at("out_at", out)
        .act(constants);
    lower.emit(Spec::Affine(then), args, elements(value));
    Ok(())
}
