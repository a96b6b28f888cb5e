//! Rows that multiply and sum: convolutions, matrix products, reductions, normalisation.

use super::{Net, Row};
use cosched_executors::graph::{Attr, ValueId};
use cosched_executors::tensor::Data;

pub fn rows() -> Vec<Row> {
    let row = |name, make| Row { name, relative: 1e-4, absolute: 2e-5, make };
    vec![
        row("conv", |n| conv(n, Kind::General, 2)),
        row("conv 1x1", |n| conv(n, Kind::Pointwise, 2)),
        row("conv depthwise", |n| conv(n, Kind::Depthwise, 2)),
        row("conv grouped", |n| conv(n, Kind::Grouped, 2)),
        row("conv 1d", |n| conv(n, Kind::General, 1)),
        row("conv automatic pads", |n| conv(n, Kind::Auto, 2)),
        row("conv with normalisation and activation", |n| conv(n, Kind::Fused, 2)),
        Row { absolute: 3e-4, ..row("conv 3x3 with many channels", many) },
        // Winograd, too.
        Row { absolute: 3e-4, ..row("conv and a sum", conv_sum) },
        row("conv transposed", conv_transpose),
        row("conv with nan and infinity", conv_special),
        row("matmul", matmul),
        row("matmul batched", matmul_batched),
        row("matmul by a constant, biased", matmul_constant),
        row("gemm", gemm),
        row("reduce", reduce),
        row("softmax", softmax),
        row("layer normalisation", layer_norm),
        row("batch normalisation", batch_norm),
        row("resize", resize),
    ]
}

enum Kind {
    General,
    Pointwise,
    Depthwise,
    Grouped,
    Auto,
    Fused,
}

fn ints(v: &[usize]) -> Attr {
    Attr::Ints(v.iter().map(|&v| v as i64).collect())
}

fn conv(n: &mut Net, kind: Kind, spatial: usize) {
    let one = matches!(kind, Kind::Pointwise);
    let kernel: Vec<usize> = (0..spatial).map(|_| if one { 1 } else { n.between(1, 4) }).collect();
    let strides: Vec<usize> =
        (0..spatial).map(|_| n.between(1, 3).min(if one { 1 + n.below(4) / 3 } else { 3 })).collect();
    let dilations: Vec<usize> = (0..spatial).map(|_| if one { 1 } else { 1 + n.below(3) / 2 }).collect();
    let mut pads = n.shape(2 * spatial, 3).iter().map(|p| if one { 0 } else { p - 1 }).collect::<Vec<_>>();
    let automatic = match kind {
        Kind::Auto => Some(["SAME_UPPER", "SAME_LOWER", "VALID"][n.below(3)]),
        _ => None,
    };
    if automatic.is_some() {
        pads = vec![0; 2 * spatial];
    }
    let size: Vec<usize> = (0..spatial).map(|a| (kernel[a] - 1) * dilations[a] + n.between(1, 9)).collect();
    let (groups, ins, outs) = match kind {
        Kind::Depthwise => (n.between(2, 20), 1, n.between(1, 2)),
        Kind::Grouped => (n.between(2, 3), n.between(1, 4), n.between(1, 10)),
        _ => (1, n.between(1, 20), n.between(1, 40)),
    };
    let batch = n.between(1, 2);
    let x = n.input(&[&[batch, groups * ins][..], &size].concat());
    let w = n.constant(&[&[groups * outs, ins][..], &kernel].concat(), -0.5, 0.5);
    let mut inputs = vec![x, w];
    if n.coin() {
        inputs.push(n.constant(&[groups * outs], -1.0, 1.0));
    }
    let mut attrs = vec![
        ("strides", ints(&strides)),
        ("dilations", ints(&dilations)),
        ("group", Attr::Int(groups as i64)),
        ("kernel_shape", ints(&kernel)),
    ];
    match automatic {
        Some(rule) => {
            attrs.push(("auto_pad", Attr::String(rule.into())));
            if rule != "VALID" {
                attrs[1] = ("dilations", ints(&vec![1; spatial]));
            }
        }
        None => attrs.push(("pads", ints(&pads))),
    }
    let mut y = n.node("Conv", &inputs, &attrs);
    if matches!(kind, Kind::Fused) {
        if n.coin() {
            y = norm(n, y, outs);
        }
        y = activation(n, y);
    }
    n.graph.outputs.push(y);
}

/// Enough channels for Winograd's way, half of the time with a tensor that is added. Sums of up to 216 products of numbers near 1.
fn many(n: &mut Net) {
    let (batch, ins, outs) = (n.between(1, 2), n.between(16, 24), n.between(16, 40));
    let (h, w, pad) = (n.between(3, 14), n.between(3, 14), n.below(2));
    let x = n.input(&[batch, ins, h, w]);
    let weights = n.constant(&[outs, ins, 3, 3], -0.5, 0.5);
    let bias = n.constant(&[outs], -1.0, 1.0);
    let attrs = [("kernel_shape", ints(&[3, 3])), ("pads", ints(&[pad; 4]))];
    let y = n.node("Conv", &[x, weights, bias], &attrs);
    let (h, w) = (h + 2 * pad - 2, w + 2 * pad - 2);
    let y = if n.coin() { plus(n, y, &[batch, outs, h, w]) } else { y };
    let y = activation(n, y);
    n.graph.outputs.push(y);
}

fn plus(n: &mut Net, y: ValueId, shape: &[usize]) -> ValueId {
    let other = n.input(shape);
    let order = if n.coin() { [y, other] } else { [other, y] };
    n.node("Add", &order, &[])
}

/// A convolution of any way, a tensor in its shape that is added, and an activation.
fn conv_sum(n: &mut Net) {
    let (batch, h, w) = (n.between(1, 2), n.between(3, 20), n.between(3, 20));
    let (kernel, groups) = (n.below(2) * 2 + 1, n.below(2));
    let (ins, outs) = (n.between(2, 20), n.between(1, 30));
    let (group, outs) = if groups == 1 { (ins, ins) } else { (1, outs) };
    let x = n.input(&[batch, ins, h, w]);
    let weights = n.constant(&[outs, ins / group, kernel, kernel], -0.5, 0.5);
    let attrs = [
        ("kernel_shape", ints(&[kernel, kernel])),
        ("pads", ints(&[kernel / 2; 4])),
        ("group", Attr::Int(group as i64)),
    ];
    let y = n.node("Conv", &[x, weights], &attrs);
    let y = plus(n, y, &[batch, outs, h, w]);
    let y = if n.coin() { activation(n, y) } else { y };
    n.graph.outputs.push(y);
}

fn norm(n: &mut Net, x: ValueId, channels: usize) -> ValueId {
    let scale = n.constant(&[channels], 0.5, 1.5);
    let bias = n.constant(&[channels], -0.5, 0.5);
    let mean = n.constant(&[channels], -0.5, 0.5);
    let variance = n.constant(&[channels], 0.2, 2.0);
    n.node("BatchNormalization", &[x, scale, bias, mean, variance], &[("epsilon", Attr::Float(1e-3))])
}

fn activation(n: &mut Net, x: ValueId) -> ValueId {
    match n.below(4) {
        0 => n.node("Relu", &[x], &[]),
        1 => {
            let (low, high) = (n.scalar(-0.25), n.scalar(0.75));
            n.node("Clip", &[x, low, high], &[])
        }
        2 => {
            n.opset(14);
            n.node("HardSwish", &[x], &[])
        }
        _ => n.node("Sigmoid", &[x], &[]),
    }
}

fn conv_transpose(n: &mut Net) {
    let kernel = n.shape(2, 4);
    let strides = n.shape(2, 3);
    let dilations: Vec<usize> = (0..2).map(|_| 1 + n.below(3) / 2).collect();
    let pads: Vec<usize> = (0..4).map(|i| n.below(2).min((kernel[i % 2] - 1) * dilations[i % 2])).collect();
    let extra: Vec<usize> = (0..2).map(|a| n.below(strides[a].min(2))).collect();
    let (groups, ins, outs) = if n.coin() {
        (1, n.between(1, 12), n.between(1, 20))
    } else {
        (2, n.between(1, 3), n.between(1, 4))
    };
    let (h, w, batch) = (n.between(2, 6), n.between(2, 6), n.between(1, 2));
    let x = n.input(&[batch, groups * ins, h, w]);
    let weights = n.constant(&[groups * ins, outs, kernel[0], kernel[1]], -0.5, 0.5);
    let mut inputs = vec![x, weights];
    if n.coin() {
        inputs.push(n.constant(&[groups * outs], -1.0, 1.0));
    }
    let attrs = [
        ("strides", ints(&strides)),
        ("dilations", ints(&dilations)),
        ("group", Attr::Int(groups as i64)),
        ("pads", ints(&pads)),
        ("output_padding", ints(&extra)),
    ];
    n.out("ConvTranspose", &inputs, &attrs);
}

fn conv_special(n: &mut Net) {
    let mut data = n.floats(3 * 64, -1.0, 1.0);
    data[70] = f32::NAN;
    data[20] = f32::INFINITY;
    data[140] = f32::NEG_INFINITY;
    let x = n.input_of(&[1, 3, 8, 8], data);
    let w = n.constant(&[5, 3, 3, 3], -0.5, 0.5);
    n.out("Conv", &[x, w], &[("pads", Attr::Ints(vec![1; 4]))]);
}

fn matmul(n: &mut Net) {
    let (m, k, c) = (n.between(1, 20), n.between(1, 30), n.between(1, 40));
    let (a, b) = match n.below(4) {
        0 => (n.input(&[m, k]), n.input(&[k, c])),
        1 => (n.constant(&[m, k], -1.0, 1.0), n.input(&[k, c])),
        2 => (n.input(&[k]), n.input(&[k, c])),
        _ => (n.input(&[2, m, k]), n.input(&[k])),
    };
    n.out("MatMul", &[a, b], &[]);
}

fn matmul_batched(n: &mut Net) {
    let (m, k, c) = (n.between(1, 12), n.between(1, 20), n.between(1, 20));
    let batch = n.shape(2, 3);
    let (a, b): (Vec<usize>, Vec<usize>) = match n.below(4) {
        0 => (batch.clone(), batch.clone()),
        1 => (vec![batch[0], 1], vec![1, batch[1]]),
        2 => (vec![batch[0], 1, 2], vec![batch[1], 1]),
        _ => (vec![], batch.clone()),
    };
    let (a, b) = ([&a[..], &[m, k]].concat(), [&b[..], &[k, c]].concat());
    let a = n.input(&a);
    let b = if n.below(4) == 0 { n.constant(&b, -1.0, 1.0) } else { n.input(&b) };
    n.out("MatMul", &[a, b], &[]);
}

fn matmul_constant(n: &mut Net) {
    let (m, k, c, batch) = (n.between(1, 20), n.between(1, 30), n.between(1, 40), n.between(1, 3));
    let a = n.input(&[batch, m, k]);
    let b = n.constant(&[k, c], -1.0, 1.0);
    let mut y = n.node("MatMul", &[a, b], &[]);
    if n.coin() {
        let row = n.constant(&[c], -1.0, 1.0);
        let both = if n.coin() { [y, row] } else { [row, y] };
        y = n.node("Add", &both, &[]);
    }
    if n.coin() {
        y = activation(n, y);
    }
    n.graph.outputs.push(y);
}

fn gemm(n: &mut Net) {
    let (m, k, c) = (n.between(1, 20), n.between(1, 30), n.between(1, 40));
    let (ta, tb) = (n.coin(), n.coin());
    let a = n.input(&if ta { [k, m] } else { [m, k] });
    let shape = if tb { [c, k] } else { [k, c] };
    let b = if n.below(3) > 0 { n.constant(&shape, -1.0, 1.0) } else { n.input(&shape) };
    let mut inputs = vec![a, b];
    let row = [&[c][..], &[1, c], &[m, 1], &[m, c], &[]][n.below(5)].to_vec();
    match n.below(3) {
        0 => {}
        1 => inputs.push(n.constant(&row, -1.0, 1.0)),
        _ => inputs.push(n.input(&row)),
    }
    let alpha = [1.0, 0.5][n.below(2)];
    let beta = [1.0, 0.25][n.below(2)];
    let attrs = [
        ("transA", Attr::Int(ta.into())),
        ("transB", Attr::Int(tb.into())),
        ("alpha", Attr::Float(alpha)),
        ("beta", Attr::Float(beta)),
    ];
    let mut y = n.node("Gemm", &inputs, &attrs);
    if n.coin() {
        y = n.node("Relu", &[y], &[]);
    }
    n.graph.outputs.push(y);
}

fn reduce(n: &mut Net) {
    let rank = n.between(1, 4);
    let shape = n.shape(rank, 7);
    let x = n.input(&shape);
    let op = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"][n.below(4)];
    let mut axes: Vec<i64> = (0..rank as i64).filter(|_| n.coin()).collect();
    if n.coin() {
        axes.iter_mut().for_each(|a| *a -= rank as i64);
    }
    let mut attrs = vec![("keepdims", Attr::Int(n.coin().into()))];
    let as_input = n.graph.opset >= 18 || op == "ReduceSum";
    if axes.is_empty() {
        n.out(op, &[x], &attrs);
    } else if as_input {
        let axes = n.ints(&axes);
        n.out(op, &[x, axes], &attrs);
    } else {
        attrs.push(("axes", Attr::Ints(axes)));
        n.out(op, &[x], &attrs);
    }
}

fn softmax(n: &mut Net) {
    let rank = n.between(1, 4);
    let shape = n.shape(rank, 9);
    let data = n.floats(shape.iter().product(), -20.0, 20.0);
    let x = n.input_of(&shape, data);
    if n.below(3) == 0 {
        n.graph.opset = 11;
    }
    let axis = n.below(rank) as i64 - if n.coin() { rank as i64 } else { 0 };
    let op = ["Softmax", "LogSoftmax"][n.below(4) / 3];
    n.out(op, &[x], &[("axis", Attr::Int(axis))]);
}

fn layer_norm(n: &mut Net) {
    n.opset(17);
    let rank = n.between(2, 4);
    let shape = n.shape(rank, 9);
    let axis = n.between(1, rank - 1);
    let x = n.input(&shape);
    let mut inputs = vec![x, n.constant(&shape[axis..], 0.5, 1.5)];
    if n.coin() {
        inputs.push(n.constant(&shape[axis..], -1.0, 1.0));
    }
    let axis = axis as i64 - if n.coin() { rank as i64 } else { 0 };
    n.out("LayerNormalization", &inputs, &[("axis", Attr::Int(axis)), ("epsilon", Attr::Float(1e-3))]);
}

fn batch_norm(n: &mut Net) {
    let rank = n.between(2, 4);
    let shape = n.shape(rank, 9);
    let x = n.input(&shape);
    let mut y = norm(n, x, shape[1]);
    if n.coin() {
        y = n.node("Relu", &[y], &[]);
    }
    n.graph.outputs.push(y);
}

fn resize(n: &mut Net) {
    let (h, w) = (n.between(1, 7), n.between(1, 7));
    let (batch, channels) = (n.between(1, 2), n.between(1, 3));
    let x = n.input(&[batch, channels, h, w]);
    let mode = ["nearest", "linear"][n.below(2)];
    let rule = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"][n.below(4)];
    let mut attrs = vec![
        ("mode", Attr::String(mode.into())),
        ("coordinate_transformation_mode", Attr::String(rule.into())),
    ];
    if mode == "nearest" {
        let rounding = ["round_prefer_floor", "floor", "round_prefer_ceil", "ceil"][n.below(4)];
        attrs.push(("nearest_mode", Attr::String(rounding.into())));
    }
    let inputs = if n.coin() {
        // Powers of two: the coordinates are exact, so that no rounding is a matter of the last bit.
        let scales = [0.5f32, 1.0, 2.0, 4.0];
        let pick = |n: &mut Net, extent: usize| scales[n.below(4)].max(if extent == 1 { 1.0 } else { 0.5 });
        let (a, b) = (pick(n, h), pick(n, w));
        let scales = n.constant_of(&[4], Data::F32(vec![1.0, 1.0, a, b]));
        vec![Some(x), None, Some(scales)]
    } else {
        let (a, b) = (n.between(1, 4), n.between(1, 4));
        let sizes = n.ints(&[batch as i64, channels as i64, (h * a) as i64, (w * b) as i64]);
        vec![Some(x), None, None, Some(sizes)]
    };
    let out = n.nodes("Resize", &inputs, &attrs, 1)[0];
    n.graph.outputs.push(out);
}
