//! Lowers operators that move elements: concat, slice, split, transpose, expand, gather, pad.
//! It refuses positions that are not known when the graph is loaded, and pad modes other than constant.

use super::super::kernel::Spec;
use super::{Args, Group, Lower, Operand, axis_of, dense, elements, elementwise};
use crate::tensor::Data;

pub(super) fn concat(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let out_shape = lower.graph.value(group.out).shape.clone();
    let axis = axis_of(group.node.int("axis", 0), out_shape.len())?;
    let strides = dense(&out_shape);
    let out = lower.output(group.out);
    let mut at = 0;
    for i in 0..group.node.inputs.len() {
        let Some(id) = group.node.inputs[i] else { continue };
        let extent = lower.graph.value(id).shape.get(axis).copied().unwrap_or(0);
        if elements(lower.graph.value(id)) == 0 {
            continue;
        }
        let (id, value) = lower.input(group.node, i)?;
        let x = lower.operand(id);
        lower.copy(x, 0, out, at as i64 * strides[axis], &value.shape, &dense(&value.shape), &strides)?;
        at += extent;
    }
    Ok(())
}

/// Starts and steps of a slice, one pair for each axis of `shape`.
fn slice_bounds(lower: &Lower<'_>, group: &Group<'_>, shape: &[usize]) -> Result<Vec<(i64, i64)>, String> {
    let node = group.node;
    let (starts, axes, steps) = if node.inputs.len() > 1 {
        (
            lower.integers(node, 1)?.ok_or("its starts are missing")?,
            lower.integers(node, 3)?,
            lower.integers(node, 4)?,
        )
    } else {
        (
            node.ints("starts").ok_or("its starts are missing")?.to_vec(),
            node.ints("axes").map(<[i64]>::to_vec),
            None,
        )
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if axes.len() != starts.len() || steps.len() != starts.len() {
        return Err("starts, axes and steps differ in length".into());
    }
    let mut bounds = vec![(0, 1); shape.len()];
    for ((start, axis), step) in starts.iter().zip(axes).zip(steps) {
        let axis = axis_of(axis, shape.len())?;
        let extent = shape[axis] as i64;
        let start = if *start < 0 { start.saturating_add(extent) } else { *start };
        // Beyond the ends a start is cut to the nearest place from which something can be read.
        let start = start.clamp(0, if step < 0 { extent - 1 } else { extent });
        bounds[axis] = (start, step);
    }
    Ok(bounds)
}

pub(super) fn slice(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let (id, value) = lower.input(group.node, 0)?;
    let out_shape = lower.graph.value(group.out).shape.clone();
    let bounds = slice_bounds(lower, group, &value.shape)?;
    let strides = dense(&value.shape);
    let first: i64 = bounds.iter().zip(&strides).map(|((start, _), s)| start * s).sum();
    let steps: Vec<i64> = bounds.iter().zip(&strides).map(|((_, step), s)| step * s).collect();
    let (x, out) = (lower.operand(id), lower.output(group.out));
    lower.copy(x, first, out, 0, &out_shape, &steps, &dense(&out_shape))
}

pub(super) fn split(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let (id, value) = lower.input(group.node, 0)?;
    let axis = axis_of(group.node.int("axis", 0), value.shape.len())?;
    let strides = dense(&value.shape);
    let x = lower.operand(id);
    // An output that nobody asked for has no shape: the sizes then come from the attribute or the input.
    let sizes = match (lower.integers(group.node, 1)?, group.node.ints("split")) {
        (Some(v), _) => v,
        (None, Some(v)) => v.to_vec(),
        (None, None) => {
            let parts = group.node.outputs.len();
            let part = value.shape[axis].div_ceil(parts) as i64;
            (0..parts as i64).map(|p| part.min(value.shape[axis] as i64 - p * part)).collect()
        }
    };
    let mut at = 0;
    for (out, size) in group.node.outputs.iter().zip(sizes) {
        if let Some(out) = out {
            let shape = lower.graph.value(*out).shape.clone();
            let place = lower.output(*out);
            lower.copy(x, at * strides[axis], place, 0, &shape, &strides, &dense(&shape))?;
        }
        at += size;
    }
    Ok(())
}

pub(super) fn transpose(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let (id, value) = lower.input(group.node, 0)?;
    let rank = value.shape.len();
    let order: Vec<usize> = match group.node.ints("perm") {
        None => (0..rank).rev().collect(),
        Some(perm) => perm.iter().map(|&p| axis_of(p, rank)).collect::<Result<_, _>>()?,
    };
    let mut seen = order.clone();
    seen.sort_unstable();
    if seen != (0..rank).collect::<Vec<_>>() {
        return Err(format!("attribute perm = {order:?} is no order of {rank} axes"));
    }
    let strides = dense(&value.shape);
    let shape: Vec<usize> = order.iter().map(|&a| value.shape[a]).collect();
    let from: Vec<i64> = order.iter().map(|&a| strides[a]).collect();
    let (x, out) = (lower.operand(id), lower.output(group.out));
    lower.copy(x, 0, out, 0, &shape, &from, &dense(&shape))
}

pub(super) fn expand(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let (id, value) = lower.input(group.node, 0)?;
    let shape = lower.graph.value(group.out).shape.clone();
    let strides = elementwise::broadcast_strides(&value.shape, &shape)?;
    let (x, out) = (lower.operand(id), lower.output(group.out));
    lower.copy(x, 0, out, 0, &shape, &strides, &dense(&shape))
}

pub(super) fn gather(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let (id, value) = lower.input(group.node, 0)?;
    let axis = axis_of(group.node.int("axis", 0), value.shape.len())?;
    let rows = value.shape[axis];
    let indices = lower.integers(group.node, 1)?.ok_or("its indices are missing")?;
    let table: Vec<f32> = indices
        .iter()
        .map(|&i| {
            let row = if i < 0 { i + rows as i64 } else { i };
            // Floats hold whole numbers exactly up to 2^24.
            if (0..rows.min(1 << 24) as i64).contains(&row) {
                Ok(row as f32)
            } else {
                Err(format!("index {i} of {rows} rows"))
            }
        })
        .collect::<Result<_, _>>()?;
    let inner: usize = value.shape[axis + 1..].iter().product();
    let picked = table.len();
    let table = Operand::Blob(lower.blob(picked, move || table.clone()));
    let (x, out) = (lower.operand(id), lower.output(group.out));
    let args = Args::new()
        .int("rows", rows)
        .int("picked", picked)
        .int("inner", inner)
        .at("table_at", table)
        .at("x_at", x)
        .at("out_at", out);
    let total = elements(lower.graph.value(group.out));
    lower.emit(Spec::Gather(x.buf()), args, total);
    Ok(())
}

pub(super) fn pad(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let node = group.node;
    let (id, value) = lower.input(node, 0)?;
    let mode = node.str("mode").unwrap_or("constant");
    if mode != "constant" {
        return Err(format!("attribute mode = `{mode}`, only constant is supported"));
    }
    let rank = value.shape.len();
    let pads = match node.ints("pads") {
        Some(pads) => pads.to_vec(),
        None => lower.integers(node, 1)?.ok_or("its pads are missing")?,
    };
    let fill = match node.inputs.get(2).copied().flatten() {
        None => node.float("value", 0.0),
        Some(id) => match lower.graph.constant(id).map(|t| &t.data) {
            Some(Data::F32(v)) if v.len() == 1 => v[0],
            _ => return Err("its value must be one constant f32".into()),
        },
    };
    let axes: Vec<i64> = lower.integers(node, 3)?.unwrap_or_else(|| (0..rank as i64).collect());
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let mut before = vec![0; rank];
    for (i, axis) in axes.iter().enumerate() {
        before[axis_of(*axis, rank)?] = pads[i];
    }
    let out_shape = lower.graph.value(group.out).shape.clone();
    let wide = if rank <= 4 { 4 } else { 6 };
    if rank > wide {
        return Err(format!("{rank} axes; the kernel walks at most 6"));
    }
    let front = |all: Vec<i64>, one: i64| [vec![one; wide - rank], all].concat();
    let extents = |shape: &[usize]| shape.iter().map(|&d| d as i64).collect::<Vec<_>>();
    let (x, out) = (lower.in_arena(id), lower.output(group.out));
    let args = Args::new()
        .list("d", &front(extents(&out_shape), 1))
        .list("x_d", &front(extents(&value.shape), 1))
        .list("before", &front(before, 0))
        .float("value", fill)
        .at("x_at", x)
        .at("out_at", out);
    lower.emit(Spec::Pad(wide), args, out_shape.iter().product());
    Ok(())
}
