//! Rows long enough for vectors of every width, with and without a remainder, and functions that are written out in several nodes.
//! They refuse short rows: other files have those.

use super::{Net, Row};
use cosched_executors::graph::{Attr, ValueId};

pub fn rows() -> Vec<Row> {
    let row = |name, relative, absolute, make| Row { name, relative, absolute, make };
    vec![
        row("binary of long rows", 1e-6, 1e-7, binary),
        row("functions of long rows", 1e-5, 1e-6, unary),
        row("softmax of long rows", 2e-5, 2e-6, softmax),
        row("layer normalisation of long rows", 2e-5, 1e-5, layer_norm),
        row("reduce of long rows", 2e-5, 1e-5, reduce),
        row("lines that turn", 0.0, 0.0, lines),
        row("conv transposed in blocks", 1e-4, 2e-5, blocks),
        row("silu in two nodes", 1e-5, 1e-6, silu),
        row("gelu in five nodes", 1e-5, 1e-6, gelu),
        row("sigmoid and softmax of extremes", 1e-5, 1e-6, extremes),
        row("depthwise of wide rows", 1e-5, 1e-5, depthwise),
        row("conv 3x3 of wide rows", 1e-4, 3e-4, many),
    ]
}

/// A row for vectors of 4, 8 or 16 lanes.
fn length(n: &mut Net) -> usize {
    match n.below(4) {
        0 => n.between(4, 15),
        1 => n.between(16, 80),
        2 => 16 * n.between(1, 20),
        _ => n.between(250, 400),
    }
}

/// Operands that are whole, one row for all, one number a row, one number in all.
fn binary(n: &mut Net) {
    let full = [n.between(1, 3), n.between(1, 4), n.between(1, 3), length(n)];
    let part = |n: &mut Net| full.map(|extent| if n.below(3) == 0 { 1 } else { extent });
    let (mut a, b) = (part(n), part(n));
    for ((a, b), extent) in a.iter_mut().zip(b).zip(full) {
        *a = if b == 1 { extent } else { *a };
    }
    let operand = |n: &mut Net, shape: &[usize]| match n.below(4) {
        0 => n.constant(shape, 0.5, 1.5),
        _ => n.input(shape),
    };
    let x = n.input(&a);
    let y = operand(n, &b);
    let (x, y) = if n.coin() { (x, y) } else { (y, x) };
    let op = ["Add", "Sub", "Mul", "Max", "Min"][n.below(5)];
    let z = n.node(op, &[x, y], &[]);
    n.out("Sigmoid", &[z], &[]);
}

fn unary(n: &mut Net) {
    let shape = [n.between(1, 4), length(n)];
    let x = n.input(&shape);
    let op = ["Sigmoid", "Tanh", "Erf", "HardSwish", "Relu", "Exp", "Abs"][n.below(7)];
    n.opset(14);
    n.out(op, &[x], &[]);
}

fn softmax(n: &mut Net) {
    let shape = [n.between(1, 3), n.between(1, 5), length(n)];
    let data = n.floats(shape.iter().product(), -20.0, 20.0);
    let x = n.input_of(&shape, data);
    let op = ["Softmax", "LogSoftmax"][n.below(2)];
    n.out(op, &[x], &[("axis", Attr::Int(if n.graph.opset < 13 { 2 } else { -1 }))]);
}

fn layer_norm(n: &mut Net) {
    n.opset(17);
    let shape = [n.between(1, 3), n.between(1, 5), length(n)];
    let x = n.input(&shape);
    let scale = n.constant(&shape[2..], 0.5, 1.5);
    let shift = n.constant(&shape[2..], -1.0, 1.0);
    n.out(
        "LayerNormalization",
        &[x, scale, shift],
        &[("axis", Attr::Int(-1)), ("epsilon", Attr::Float(1e-3))],
    );
}

fn reduce(n: &mut Net) {
    n.opset(18);
    let shape = [n.between(1, 3), n.between(1, 4), n.between(1, 4), length(n)];
    let x = n.input(&shape);
    let op = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"][n.below(4)];
    let axes = [&[3][..], &[2, 3], &[1, 3], &[-1]][n.below(4)];
    let axes = n.ints(axes);
    let keep = Attr::Int(n.below(2) as i64);
    n.out(op, &[x, axes], &[("keepdims", keep)]);
}

/// Transposes whose last axis is no row of the input.
fn lines(n: &mut Net) {
    let shape = [n.between(1, 3), n.between(2, 40), n.between(1, 4), n.between(2, 40)];
    let x = n.input(&shape);
    let perm = [[0, 3, 2, 1], [3, 1, 0, 2], [0, 2, 3, 1], [2, 3, 0, 1]][n.below(4)];
    let y = n.node("Transpose", &[x], &[("perm", Attr::Ints(perm.to_vec()))]);
    n.graph.values[y.0 as usize].shape = perm.iter().map(|&a| shape[a as usize]).collect();
    n.graph.outputs.push(y);
}

/// A transposed convolution whose windows do not overlap.
fn blocks(n: &mut Net) {
    let (ins, outs) = (n.between(1, 20), n.between(1, 20));
    let shape = [n.between(1, 2), ins, n.between(1, 9), n.between(1, 40)];
    let side = [n.between(1, 3), n.between(2, 3)];
    let x = n.input(&shape);
    let w = n.constant(&[ins, outs, side[0], side[1]], -1.0, 1.0);
    let mut inputs = vec![x, w];
    if n.coin() {
        inputs.push(n.constant(&[outs], -1.0, 1.0));
    }
    let side = Attr::Ints(side.map(|s| s as i64).to_vec());
    let y = n.node("ConvTranspose", &inputs, &[("kernel_shape", side.clone()), ("strides", side)]);
    match n.below(2) {
        0 => n.graph.outputs.push(y),
        _ => n.out("Relu", &[y], &[]),
    }
}

/// Something that takes a function along.
fn head(n: &mut Net) -> ValueId {
    let shape = [n.between(1, 4), n.between(1, 60)];
    let data = n.floats(shape.iter().product(), -5.0, 5.0);
    let x = n.input_of(&shape, data);
    let y = n.input(&shape);
    n.node("Add", &[x, y], &[])
}

fn silu(n: &mut Net) {
    let x = head(n);
    let gate = n.node("Sigmoid", &[x], &[]);
    let (a, b) = if n.coin() { (x, gate) } else { (gate, x) };
    n.out("Mul", &[a, b], &[]);
}

fn gelu(n: &mut Net) {
    let x = head(n);
    let (one, half, root) = (n.scalar(1.0), n.scalar(0.5), n.scalar(std::f32::consts::SQRT_2));
    let scaled = n.node("Div", &[x, root], &[]);
    let bent = n.node("Erf", &[scaled], &[]);
    let lifted = n.node("Add", &[bent, one], &[]);
    if n.coin() {
        let product = n.node("Mul", &[x, lifted], &[]);
        n.out("Mul", &[product, half], &[]);
    } else {
        let product = n.node("Mul", &[half, x], &[]);
        n.out("Mul", &[product, lifted], &[]);
    }
}

/// Where exponentials end: nothing, something, infinite.
fn extremes(n: &mut Net) {
    let edges = [f32::NEG_INFINITY, -1e9, -104.0, -88.0, -87.1, -86.9, -0.0, 86.9, 88.6, 89.5, 1e9];
    let shape = [n.between(1, 3), n.between(16, 60)];
    let mut data = n.floats(shape[0] * shape[1], -20.0, 20.0);
    edges.iter().enumerate().for_each(|(i, edge)| data[i * 3 / 2] = *edge);
    let x = n.input_of(&shape, data);
    if n.coin() {
        n.out("Softmax", &[x], &[("axis", Attr::Int(1))]);
        return;
    }
    let one = n.constant(&shape[1..], 0.0, 0.01);
    let y = n.node("Add", &[x, one], &[]);
    n.out("Sigmoid", &[y], &[]);
}

fn ints(v: &[usize]) -> Attr {
    Attr::Ints(v.iter().map(|&v| v as i64).collect())
}

/// Planes a little narrower than a vector, or wider than one, and lower or higher than a strip.
fn depthwise(n: &mut Net) {
    let (kernel, stride) = ([3, 5][n.below(2)], n.between(1, 2));
    let (batch, channels) = (n.between(1, 2), n.between(2, 8));
    let side = |n: &mut Net| stride * if n.coin() { n.between(5, 15) } else { n.between(16, 40) };
    let (h, w) = (side(n), side(n));
    let x = n.input(&[batch, channels, h, w]);
    let weights = n.constant(&[channels, 1, kernel, kernel], -0.5, 0.5);
    let bias = n.constant(&[channels], -1.0, 1.0);
    let attrs = [
        ("strides", ints(&[stride; 2])),
        ("pads", ints(&[kernel / 2; 4])),
        ("group", Attr::Int(channels as i64)),
        ("kernel_shape", ints(&[kernel; 2])),
    ];
    let y = n.node("Conv", &[x, weights, bias], &attrs);
    sum_and_function(n, y, &[batch, channels, h.div_ceil(stride), w.div_ceil(stride)]);
}

/// Tiles of Winograd's way for vectors of every width.
fn many(n: &mut Net) {
    let (ins, outs) = (n.between(16, 20), n.between(16, 20));
    let (h, w) = (n.between(5, 14), [n.between(13, 30), n.between(31, 62), n.between(63, 90)][n.below(3)]);
    let x = n.input(&[1, ins, h, w]);
    let weights = n.constant(&[outs, ins, 3, 3], -0.5, 0.5);
    let bias = n.constant(&[outs], -1.0, 1.0);
    let attrs = [("kernel_shape", ints(&[3, 3])), ("pads", ints(&[1; 4]))];
    let y = n.node("Conv", &[x, weights, bias], &attrs);
    sum_and_function(n, y, &[1, outs, h, w]);
}

/// Half of the time a tensor of this shape that is added, then a function.
fn sum_and_function(n: &mut Net, y: ValueId, shape: &[usize]) {
    let mut y = y;
    if n.coin() {
        let other = n.input(shape);
        y = n.node("Add", &[y, other], &[]);
    }
    let op = ["Relu", "Sigmoid"][n.below(2)];
    n.out(op, &[y], &[]);
}
