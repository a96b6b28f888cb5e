//! Lowers MatMul and Gemm to the register tile; constant factors are packed, others are read through strides.
//! It refuses more than three batch axes after merging.

use super::super::kernel::elementwise::Binary;
use super::super::kernel::unary::Unary;
use super::choice::{Along, Choice, Room, tiles};
use super::elementwise::{broadcast_strides, emit_binary};
use super::product::{self, Narrow, Wide, pack};
use super::slices::slices;
use super::{Group, Lower, Operand, merge, tile_act};
use crate::graph::ValueId;
use crate::tensor::Tensor;
use std::sync::Arc;

/// One matrix product `out[z] = alpha * A[z] B[z] + bias`, with element strides of both factors.
struct Product {
    a: ValueId,
    b: ValueId,
    m: usize,
    n: usize,
    k: usize,
    a_strides: [usize; 2],
    b_strides: [usize; 2],
    /// Extents of the three batch axes and their strides in A and B.
    batch: [usize; 3],
    a_batch: [i64; 3],
    b_batch: [i64; 3],
    alpha: f32,
    /// A row of `n` that is added, times the factor.
    bias: Option<(Arc<Tensor>, f32)>,
    out: Operand,
    /// Another tensor in the shape of the result that is added.
    residual: Option<Operand>,
    act: (Unary, [f32; 2]),
}

pub(super) fn matmul(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let (a, a_value) = lower.input(group.node, 0)?;
    let (b, b_value) = lower.input(group.node, 1)?;
    let (mut a_shape, mut b_shape) = (a_value.shape.clone(), b_value.shape.clone());
    if a_shape.is_empty() || b_shape.is_empty() {
        return Err("a scalar factor".into());
    }
    // A vector is a matrix with one row (left) or one column (right).
    if a_shape.len() == 1 {
        a_shape.insert(0, 1);
    }
    if b_shape.len() == 1 {
        b_shape.push(1);
    }
    let (ar, br) = (a_shape.len(), b_shape.len());
    let (mut m, k, n) = (a_shape[ar - 2], a_shape[ar - 1], b_shape[br - 1]);
    if b_shape[br - 2] != k {
        return Err(format!("factors of shapes {a_shape:?} and {b_shape:?}"));
    }
    let rank = ar.max(br) - 2;
    let extent = |shape: &[usize], axis: usize| match (axis + shape.len()).checked_sub(rank + 2) {
        Some(a) => shape[a],
        None => 1,
    };
    let mut batch: Vec<usize> = (0..rank).map(|x| extent(&a_shape, x).max(extent(&b_shape, x))).collect();
    let mut strides =
        [broadcast_strides(&a_shape[..ar - 2], &batch)?, broadcast_strides(&b_shape[..br - 2], &batch)?];
    strides[0].iter_mut().for_each(|s| *s *= (m * k) as i64);
    strides[1].iter_mut().for_each(|s| *s *= (k * n) as i64);
    if strides[1].iter().all(|s| *s == 0) && a_shape[..ar - 2] == batch[..] {
        // One B for the whole batch: the batch is nothing but more rows of A.
        m *= batch.iter().product::<usize>();
        (batch, strides) = (Vec::new(), [Vec::new(), Vec::new()]);
    }
    let (batch, [a_batch, b_batch]) = batch_axes(&batch, &strides)?;
    let bias = group.bias.and_then(|id| lower.graph.constant(id)).map(|t| (t.clone(), 1.0));
    let out = lower.output(group.out);
    let residual = group.residual.map(|id| lower.in_arena(id));
    let product = Product {
        a,
        b,
        m,
        n,
        k,
        residual,
        a_strides: [k, 1],
        b_strides: [n, 1],
        batch,
        a_batch,
        b_batch,
        alpha: 1.0,
        bias,
        out,
        act: tile_act(group),
    };
    emit(lower, product)
}

type Batch = ([usize; 3], [[i64; 3]; 2]);

fn batch_axes(batch: &[usize], strides: &[Vec<i64>; 2]) -> Result<Batch, String> {
    let (dims, merged) = merge(batch, &[&strides[0], &strides[1]])?;
    let used = dims.iter().position(|d| *d != 1).map_or(0, |first| dims.len() - first);
    if used > 3 {
        return Err(format!("{used} separate batch axes; at most 3 are supported"));
    }
    let mut out = ([1; 3], [[0; 3]; 2]);
    for axis in 0..used {
        let (from, to) = (dims.len() - used + axis, 3 - used + axis);
        out.0[to] = dims[from] as usize;
        out.1[0][to] = merged[0][from];
        out.1[1][to] = merged[1][from];
    }
    Ok(out)
}

pub(super) fn gemm(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let node = group.node;
    let (a, a_value) = lower.input(node, 0)?;
    let (b, b_value) = lower.input(node, 1)?;
    let (trans_a, trans_b) = (node.int("transA", 0) != 0, node.int("transB", 0) != 0);
    let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
    let ([a0, a1], [b0, b1]) = (&a_value.shape[..], &b_value.shape[..]) else {
        return Err(format!("factors of shapes {:?} and {:?}", a_value.shape, b_value.shape));
    };
    let (m, k) = if trans_a { (*a1, *a0) } else { (*a0, *a1) };
    let (n, inner) = if trans_b { (*b0, *b1) } else { (*b1, *b0) };
    if inner != k {
        return Err(format!("factors of shapes {:?} and {:?}", a_value.shape, b_value.shape));
    }
    let c = node.inputs.get(2).copied().flatten().filter(|_| beta != 0.0);
    let row = match c.and_then(|id| lower.graph.constant(id)) {
        Some(t) if t.as_f32().is_some() && t.len() == n && t.shape.last() == Some(&n) => Some(t.clone()),
        _ => None,
    };
    // Anything but a constant row is added by its own kernel, and takes the fused function along.
    let separate = c.filter(|_| row.is_none());
    let out = lower.output(group.out);
    let product_out = if separate.is_some() { Operand::Slot(lower.scratch(m * n)) } else { out };
    let none = (Unary::Clip, [f32::NEG_INFINITY, f32::INFINITY]);
    let product = Product {
        a,
        b,
        m,
        n,
        k,
        a_strides: if trans_a { [1, m] } else { [k, 1] },
        b_strides: if trans_b { [1, k] } else { [n, 1] },
        batch: [1; 3],
        a_batch: [0; 3],
        b_batch: [0; 3],
        alpha,
        bias: row.map(|t| (t, beta)),
        out: product_out,
        residual: None,
        act: if separate.is_some() { none } else { tile_act(group) },
    };
    emit(lower, product)?;
    let Some(c) = separate else { return Ok(()) };
    let (c, c_value) = (lower.operand(c), lower.graph.value(c));
    super::check(c_value)?;
    let mut term = (c, c_value.shape.clone());
    if beta != 1.0 {
        let factor = Operand::Blob(lower.blob(1, move || vec![beta]));
        let scaled = Operand::Slot(lower.scratch(term.1.iter().product()));
        let shape = term.1.clone();
        emit_binary(lower, Binary::Mul, (term.0, &shape), (factor, &[]), (scaled, &shape), None)?;
        term.0 = scaled;
    }
    emit_binary(lower, Binary::Add, (product_out, &vec![m, n]), (term.0, &term.1), (out, &[m, n]), group.act)
}

/// What makes two products equal work.
fn key(p: &Product, a_constant: bool, b_constant: bool) -> String {
    let constant = |is: bool| if is { "constant" } else { "computed" };
    format!(
        "product {:?} x {}x{} {} strides {:?} by {}x{} {} strides {:?}",
        p.batch,
        p.m,
        p.k,
        constant(a_constant),
        p.a_strides,
        p.k,
        p.n,
        constant(b_constant),
        p.b_strides
    )
}

fn emit(lower: &mut Lower<'_>, p: Product) -> Result<(), String> {
    let constant = |id| lower.graph.constant(id).cloned();
    let (a_constant, b_constant) = (constant(p.a), constant(p.b));
    let a_constant = a_constant.filter(|_| p.a_batch == [0; 3]);
    let b_constant = b_constant.filter(|_| p.b_batch == [0; 3]);
    // Lanes run along the columns of B; along the rows of A when only A is constant, the columns of B are no neighbours, and there is
    // no row of biases.
    let swap = b_constant.is_none() && a_constant.is_some() && p.b_strides[1] != 1 && p.bias.is_none();
    let (columns, rows) = if swap { (p.m, p.n) } else { (p.n, p.m) };
    let packed = if swap { a_constant.clone() } else { b_constant.clone() };
    let whole = !swap && (packed.is_some() || p.b_strides[1] == 1);
    let along = Along::Channels;
    let room = Room { along, columns, rows, whole, packed: packed.is_some() };
    let candidates = tiles(lower.target, room).into_iter().map(Choice::Tile).collect();
    let key = key(&p, a_constant.is_some(), b_constant.is_some());
    let Choice::Tile(shape) = lower.choose(key, candidates) else { unreachable!("only tiles were offered") };
    let lanes = (shape.width * shape.chunks) as usize;
    let whole = whole && columns >= lanes;
    let (alpha, k) = (p.alpha, p.k);
    let (w, w_strides, w_z) = match swap {
        true => (p.a, [p.a_strides[1], p.a_strides[0]], p.a_batch),
        false => (p.b, p.b_strides, p.b_batch),
    };
    let (limit, tile) = (lower.target.max_binding, if packed.is_some() { lanes * k } else { 0 });
    let row: Option<Vec<f32>> = p
        .bias
        .as_ref()
        .map(|(row, beta)| row.as_f32().unwrap_or_default().iter().map(|v| v * beta).collect());
    let narrow = match swap {
        true => {
            Narrow::Loose { at: lower.operand(p.b), row: p.b_strides[1], k: p.b_strides[0], z: p.b_batch }
        }
        false => {
            Narrow::Loose { at: lower.operand(p.a), row: p.a_strides[0], k: p.a_strides[1], z: p.a_batch }
        }
    };
    let size = (p.m * p.n) as i64;
    let [_, d1, d2] = p.batch;
    let out_column = if swap { p.n } else { 1 };
    for part in slices(columns, lanes, tile, whole, limit) {
        let wide = match packed.clone() {
            Some(tensor) => {
                let (first, count) = (part.start, part.len());
                let at = move |row: usize, column: usize| {
                    let from = row * w_strides[0] + (first + column) * w_strides[1];
                    tensor.as_f32().map_or(0.0, |w| w[from] * alpha)
                };
                let fill = move || pack(count, k, lanes, whole, &at);
                Wide::Packed(lower.blob(count.div_ceil(lanes) * lanes * k, fill), [0; 3])
            }
            None => Wide::Loose { at: lower.operand(w), k: w_strides[0], lane: w_strides[1], z: w_z },
        };
        let biases = row.as_ref().map(|row| row[part.clone()].to_vec());
        let bias = lower.lane_bias(part.len(), &shape, whole, biases);
        lower.product(product::Product {
            shape,
            rows,
            columns: part.len(),
            k,
            batch: p.batch,
            wide,
            narrow,
            bias,
            bias_by_row: false,
            bias_z: [0; 3],
            out: p.out,
            first: (part.start * out_column) as i64,
            out_row: if swap { 1 } else { p.n },
            out_column,
            whole,
            out_z: [size * (d1 * d2) as i64, size * d2 as i64, size],
            alpha,
            residual: p.residual,
            act: p.act,
        });
    }
    Ok(())
}
