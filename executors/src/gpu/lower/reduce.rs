//! Lowers reductions, global pooling, softmax, layer and local response normalisation.
//! It refuses reductions over more than two separate groups of axes, and powers of what may be negative.

use super::super::kernel::Spec;
use super::super::kernel::reduce::Reduction;
use super::copy::rows;
use super::{Args, Group, Lower, Operand, axis_of, dense, elements};
use crate::graph::ValueId;

pub(super) fn reduce(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let node = group.node;
    let (id, value) = lower.input(node, 0)?;
    let rank = value.shape.len();
    let axes = match node.ints("axes") {
        Some(axes) => axes.to_vec(),
        None => lower.integers(node, 1)?.unwrap_or_default(),
    };
    if axes.is_empty() && node.int("noop_with_empty_axes", 0) != 0 {
        lower.alias(group.out, id);
        return Ok(());
    }
    let mut reduced = vec![axes.is_empty(); rank];
    for axis in axes {
        reduced[axis_of(axis, rank)?] = true;
    }
    let (kind, mean) = match node.op.as_str() {
        "ReduceMax" => (Reduction::Max, false),
        "ReduceMin" => (Reduction::Min, false),
        "ReduceMean" => (Reduction::Sum, true),
        _ => (Reduction::Sum, false),
    };
    emit(lower, id, group.out, &reduced, kind, mean)
}

pub(super) fn global_pool(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let (id, value) = lower.input(group.node, 0)?;
    let reduced: Vec<bool> = (0..value.shape.len()).map(|axis| axis >= 2).collect();
    let mean = group.node.op == "GlobalAveragePool";
    emit(lower, id, group.out, &reduced, if mean { Reduction::Sum } else { Reduction::Max }, mean)
}

/// Runs of neighbouring axes that are all kept or all reduced, as (reduced, extent, stride).
fn runs(shape: &[usize], reduced: &[bool]) -> Vec<(bool, usize, i64)> {
    let strides = dense(shape);
    let mut runs: Vec<(bool, usize, i64)> = Vec::new();
    for axis in (0..shape.len()).filter(|&a| shape[a] != 1) {
        match runs.last_mut() {
            Some((r, extent, stride)) if *r == reduced[axis] => {
                *extent *= shape[axis];
                *stride = strides[axis];
            }
            _ => runs.push((reduced[axis], shape[axis], strides[axis])),
        }
    }
    runs
}

fn emit(
    lower: &mut Lower<'_>,
    id: ValueId,
    out: ValueId,
    reduced: &[bool],
    kind: Reduction,
    mean: bool,
) -> Result<(), String> {
    let shape = &lower.graph.value(id).shape;
    let pick = |want: bool, most: usize| {
        let mut all: Vec<(i64, i64)> =
            runs(shape, reduced).into_iter().filter(|r| r.0 == want).map(|(_, e, s)| (e as i64, s)).collect();
        if all.len() > most {
            return Err(format!("{} separate groups of axes, at most {most} are supported", all.len()));
        }
        while all.len() < most {
            all.insert(0, (1, 0));
        }
        Ok(all)
    };
    let (kept, folded) = (pick(false, 3)?, pick(true, 2)?);
    let count: i64 = folded.iter().map(|f| f.0).product();
    let total = elements(lower.graph.value(out));
    let (x, out) = (lower.in_arena(id), lower.output(out));
    let args = Args::new()
        .signed("d1", kept[1].0)
        .signed("d2", kept[2].0)
        .list("x_s", &[kept[0].1, kept[1].1, kept[2].1])
        .at("x_at", x)
        .signed("r0", folded[0].0)
        .signed("r1", folded[1].0)
        .signed("r0_s", folded[0].1)
        .signed("r1_s", folded[1].1)
        .float("scale", if mean { 1.0 / count as f32 } else { 1.0 })
        .at("out_at", out);
    // Rows without gaps may be read as vectors.
    let width = if folded[1].1 == 1 { lower.lanes(folded[1].0 as usize) } else { 1 };
    lower.emit(Spec::Reduce(kind, width), args, total);
    Ok(())
}

impl Lower<'_> {
    /// Lanes of vectors along rows of `n`; 1 where they do not pay.
    fn lanes(&self, n: usize) -> u32 {
        if self.target.rows { rows(self.target, n).map_or(1, |(width, _)| width) } else { 1 }
    }
}

pub(super) fn softmax(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let (id, value) = lower.input(group.node, 0)?;
    let old = lower.graph.opset < 13;
    let axis = axis_of(group.node.int("axis", if old { 1 } else { -1 }), value.shape.len())?;
    // Before opset 13 everything from the axis on was one row.
    let (n, inner) = if old {
        (value.shape[axis..].iter().product::<usize>(), 1)
    } else {
        (value.shape[axis], value.shape[axis + 1..].iter().product())
    };
    let (x, out) = (lower.in_arena(id), lower.output(group.out));
    let args = Args::new().int("n", n).int("inner", inner).at("x_at", x).at("out_at", out);
    let width = if inner == 1 { lower.lanes(n) } else { 1 };
    lower.emit(Spec::Softmax(group.node.op == "LogSoftmax", width), args, elements(value) / n);
    Ok(())
}

pub(super) fn layer_norm(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let node = group.node;
    let (id, value) = lower.input(node, 0)?;
    if node.outputs.iter().skip(1).any(Option::is_some) {
        return Err("mean and deviation as outputs".into());
    }
    let axis = axis_of(node.int("axis", -1), value.shape.len())?;
    let n: usize = value.shape[axis..].iter().product();
    let scale = lower.constant(node, 1)?.ok_or("its scale is missing")?;
    let shift = lower.constant(node, 2)?;
    if scale.len() != n || shift.is_some_and(|s| s.len() != n) {
        return Err(format!("scale or bias does not have the {n} elements of a row"));
    }
    let scale_id = node.inputs[1].ok_or("its scale is missing")?;
    let scale = lower.operand(scale_id);
    let shift = match node.inputs.get(2).copied().flatten() {
        Some(id) => lower.operand(id),
        None => Operand::Blob(lower.blob(n, move || vec![0.0; n])),
    };
    let (x, out) = (lower.in_arena(id), lower.output(group.out));
    let args = Args::new()
        .int("n", n)
        .at("x_at", x)
        .at("out_at", out)
        .at("scale_at", scale)
        .at("shift_at", shift)
        .float("epsilon", node.float("epsilon", 1e-5));
    lower.emit(Spec::LayerNorm(lower.lanes(n)), args, elements(value) / n);
    Ok(())
}

pub(super) fn lrn(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let node = group.node;
    let (id, value) = lower.input(node, 0)?;
    let size = usize::try_from(node.int("size", 0)).ok().filter(|&size| size > 0);
    let size = size.ok_or("its `size` is missing or not positive")?;
    let (alpha, beta, bias) = (node.float("alpha", 1e-4), node.float("beta", 0.75), node.float("bias", 1.0));
    if alpha < 0.0 || bias < 0.0 {
        return Err(format!("alpha {alpha} and bias {bias} may make a negative base of its power"));
    }
    let [_, channels, inner @ ..] = &value.shape[..] else {
        return Err(format!("it normalises channels, and its input has {} axes", value.shape.len()));
    };
    let (x, out) = (lower.in_arena(id), lower.output(group.out));
    let args = Args::new()
        .int("n", *channels)
        .int("inner", inner.iter().product())
        .int("size", size)
        // Where the window is even there is one more behind.
        .int("before", (size - 1) / 2)
        .at("x_at", x)
        .at("out_at", out)
        .float("bias", bias)
        .float("alpha", alpha / size as f32)
        .float("beta", beta);
    lower.emit(Spec::Lrn, args, elements(value));
    Ok(())
}
