//! Lowers MatMul and Gemm to the register tile; constant factors are packed, others are read through strides.
//! It refuses more than three batch axes after merging.

use super::super::kernel::Spec;
use super::super::kernel::elementwise::Binary;
use super::super::kernel::ir::Buf;
use super::super::kernel::tile::{Tile, Walk, Weights};
use super::super::kernel::unary::Unary;
use super::elementwise::{broadcast_strides, emit_binary};
use super::{Args, Group, Lower, Operand, merge, tile_act, tile_for};
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
    let product = Product {
        a,
        b,
        m,
        n,
        k,
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

/// `[tile][k][lane]`; left-over lanes repeat the last column.
fn pack(w: &[f32], k: usize, n: usize, strides: [usize; 2], lanes: usize, factor: f32) -> Vec<f32> {
    let mut packed = Vec::with_capacity(n.div_ceil(lanes) * lanes * k);
    for tile in 0..n.div_ceil(lanes) {
        for row in 0..k {
            for lane in 0..lanes {
                let column = (tile * lanes + lane).min(n - 1);
                packed.push(w[row * strides[0] + column * strides[1]] * factor);
            }
        }
    }
    packed
}

fn emit(lower: &mut Lower<'_>, p: Product) -> Result<(), String> {
    let constant = |id| lower.graph.constant(id).cloned();
    let (a_constant, b_constant) = (constant(p.a), constant(p.b));
    // Lanes run along the columns of B; along the rows of A instead when only A is constant and there is no row of biases.
    let swap = b_constant.is_none() && a_constant.is_some() && p.a_batch == [0; 3] && p.bias.is_none();
    let (lanes_n, pixels_m) = if swap { (p.m, p.n) } else { (p.n, p.m) };
    let (width, chunks, pixels) = tile_for(lower.target, lanes_n, pixels_m);
    let packed = if swap { a_constant } else { b_constant.filter(|_| p.b_batch == [0; 3]) };
    let (x, x_strides, x_batch) =
        if swap { (p.b, [p.b_strides[1], p.b_strides[0]], p.b_batch) } else { (p.a, p.a_strides, p.a_batch) };
    let (w, w_strides) = if swap { (p.a, [p.a_strides[1], p.a_strides[0]]) } else { (p.b, p.b_strides) };
    let lanes = (width * chunks) as usize;
    let tiles_n = lanes_n.div_ceil(lanes);
    let x = lower.operand(x);
    let (alpha, k) = (p.alpha, p.k);
    let (weights, w_operand, w_batch) = match packed {
        Some(tensor) => {
            let fill = move || pack(tensor.as_f32().unwrap_or_default(), k, lanes_n, w_strides, lanes, alpha);
            (Weights::Packed, Operand::Blob(lower.blob(tiles_n * lanes * k, fill)), [0; 3])
        }
        None => {
            let operand = lower.operand(w);
            (Weights::Strided(operand.buf()), operand, p.b_batch)
        }
    };
    let bias = p.bias;
    let bias = lower.blob(tiles_n * lanes, move || match &bias {
        Some((row, beta)) => pack(row.as_f32().unwrap_or_default(), 1, lanes_n, [0, 1], lanes, *beta),
        None => vec![0.0; tiles_n * lanes],
    });
    let x_buf = match x {
        Operand::Slot(_) => Buf::Arena,
        Operand::Blob(_) => Buf::Weights,
    };
    let tile =
        Tile { width, chunks, pixels, walk: Walk::Linear, weights, x: x_buf, single: false, act: p.act.0 };
    let (out_m, out_n) = if swap { (1, p.n) } else { (p.n, 1) };
    let size = (p.m * p.n) as i64;
    let [d0, d1, d2] = p.batch;
    let tiles_m = pixels_m.div_ceil(pixels as usize);
    let args = Args::new()
        .int("m", pixels_m)
        .int("n", lanes_n)
        .int("k", k)
        .int("tiles_m", tiles_m)
        .int("tiles_n", tiles_n)
        .int("d1", d1)
        .int("d2", d2)
        .at("x_at", x)
        .list("x_z", &x_batch)
        .vectors("w_at", w_operand, if weights == Weights::Packed { width } else { 1 })
        .list("w_z", &w_batch)
        .vectors("bias_at", Operand::Blob(bias), width)
        .list("bias_z", &[0, 0, 0])
        .at("out_at", p.out)
        .list("out_z", &[size * (d1 * d2) as i64, size * d2 as i64, size])
        .int("x_m", x_strides[0])
        .int("x_k", x_strides[1])
        .int("w_k", w_strides[0])
        .int("w_n", w_strides[1])
        .int("out_m", out_m)
        .int("out_n", out_n)
        .float("alpha", alpha)
        .act(p.act.1);
    lower.emit(Spec::Tile(tile), args, tiles_m * tiles_n * d0 * d1 * d2);
    Ok(())
}
