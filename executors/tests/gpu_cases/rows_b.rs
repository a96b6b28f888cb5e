//! Rows that work element by element or move elements.

use super::{Net, Row};
use cosched_executors::graph::Attr;
use cosched_executors::tensor::Data;

pub fn rows() -> Vec<Row> {
    let row = |name, relative, absolute, make| Row { name, relative, absolute, make };
    vec![
        row("Relu", 0.0, 0.0, |n| unary(n, "Relu", -4.0, 4.0)),
        row("LeakyRelu", 1e-6, 0.0, |n| unary_with(n, "LeakyRelu", &["alpha"])),
        row("Elu", 1e-5, 1e-6, |n| unary_with(n, "Elu", &["alpha"])),
        row("HardSigmoid", 1e-6, 1e-6, |n| unary_with(n, "HardSigmoid", &["alpha", "beta"])),
        row("HardSwish", 1e-6, 1e-6, |n| {
            n.opset(14);
            unary(n, "HardSwish", -5.0, 5.0);
        }),
        row("Sigmoid", 1e-5, 1e-6, |n| special(n, "Sigmoid")),
        row("Tanh", 1e-5, 1e-6, |n| special(n, "Tanh")),
        row("Erf", 1e-5, 1e-6, |n| unary(n, "Erf", -4.0, 4.0)),
        row("Gelu", 1e-5, 2e-6, gelu),
        row("Softplus", 1e-5, 1e-6, |n| unary(n, "Softplus", -20.0, 20.0)),
        row("Sqrt", 1e-6, 0.0, |n| unary(n, "Sqrt", 0.0, 9.0)),
        // Denormal results may become 0.
        row("Exp", 1e-5, 1.2e-38, |n| special(n, "Exp")),
        row("Log", 1e-5, 2e-6, |n| unary(n, "Log", 1e-3, 9.0)),
        row("Neg", 0.0, 0.0, |n| special(n, "Neg")),
        row("Abs", 0.0, 0.0, |n| special(n, "Abs")),
        row("Floor", 0.0, 0.0, |n| unary(n, "Floor", -9.0, 9.0)),
        row("Reciprocal", 1e-6, 0.0, |n| unary(n, "Reciprocal", 0.1, 9.0)),
        row("Clip", 0.0, 0.0, clip),
        row("Pow", 1e-4, 1e-5, pow),
        row("binary", 1e-6, 1e-7, binary),
        row("binary with nan and infinity", 1e-6, 0.0, binary_special),
        row("max and min of several", 0.0, 0.0, several),
        row("PRelu", 1e-6, 0.0, prelu),
        row("sum then activation", 1e-6, 1e-7, residual),
        row("concat", 0.0, 0.0, concat),
        row("slice", 0.0, 0.0, slice),
        row("split", 0.0, 0.0, split),
        row("gather", 0.0, 0.0, gather),
        row("pad", 0.0, 0.0, pad),
        row("transpose", 0.0, 0.0, transpose),
        row("long rows that move", 0.0, 0.0, long_rows),
        row("expand", 0.0, 0.0, expand),
        row("views", 0.0, 0.0, views),
    ]
}

fn unary(n: &mut Net, op: &str, low: f32, high: f32) {
    let rank = n.between(1, 4);
    let shape = n.shape(rank, 9);
    let data = n.floats(shape.iter().product(), low, high);
    let x = n.input_of(&shape, data);
    n.out(op, &[x], &[]);
}

fn unary_with(n: &mut Net, op: &str, names: &[&'static str]) {
    let shape = n.shape(3, 9);
    let data = n.floats(shape.iter().product(), -4.0, 4.0);
    let x = n.input_of(&shape, data);
    let attrs: Vec<_> = names.iter().map(|name| (*name, Attr::Float(n.floats(1, 0.1, 0.9)[0]))).collect();
    n.out(op, &[x], &attrs);
}

fn with_specials(n: &mut Net, count: usize) -> Vec<f32> {
    let mut data = n.floats(count, -6.0, 6.0);
    let specials = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, 88.0, -100.0];
    for (d, s) in data.iter_mut().step_by(3).zip(specials) {
        *d = s;
    }
    data
}

fn special(n: &mut Net, op: &str) {
    let count = n.between(20, 200);
    let data = with_specials(n, count);
    let x = n.input_of(&[count], data);
    n.out(op, &[x], &[]);
}

fn gelu(n: &mut Net) {
    n.opset(20);
    let shape = n.shape(2, 20);
    let data = n.floats(shape.iter().product(), -6.0, 6.0);
    let x = n.input_of(&shape, data);
    let rule = ["none", "tanh"][n.below(2)];
    n.out("Gelu", &[x], &[("approximate", Attr::String(rule.into()))]);
}

fn clip(n: &mut Net) {
    let count = n.between(1, 100);
    let x = n.input(&[count]);
    let (low, high) = (n.scalar(-0.5), n.scalar(0.75));
    let inputs = match n.below(3) {
        0 => vec![Some(x), Some(low)],
        1 => vec![Some(x), None, Some(high)],
        _ => vec![Some(x), Some(low), Some(high)],
    };
    let out = n.nodes("Clip", &inputs, &[], 1)[0];
    n.graph.outputs.push(out);
}

fn pow(n: &mut Net) {
    let shape = n.shape(2, 9);
    match n.below(4) {
        // A fixed exponent, whole numbers with any base.
        0 | 1 => {
            let x = n.input(&shape);
            let y = [2.0, 3.0, 1.0, -2.0][n.below(4)];
            let y = n.scalar(y);
            n.out("Pow", &[x, y], &[]);
        }
        2 => {
            let data = n.floats(shape.iter().product(), 0.1, 4.0);
            let x = n.input_of(&shape, data);
            let y = [0.5, 1.7, -0.3][n.below(3)];
            let y = n.scalar(y);
            n.out("Pow", &[x, y], &[]);
        }
        _ => {
            let data = n.floats(shape.iter().product(), 0.1, 3.0);
            let x = n.input_of(&shape, data);
            let y = n.input(&[shape[1]]);
            n.out("Pow", &[x, y], &[]);
        }
    }
}

/// Two shapes that broadcast against each other.
fn pair(n: &mut Net) -> (Vec<usize>, Vec<usize>) {
    let rank = n.between(1, 5);
    let full: Vec<usize> = (0..rank).map(|_| n.between(2, 6)).collect();
    let (mut a, mut b) = (full.clone(), full);
    if n.below(5) == 0 {
        return (a, b);
    }
    for axis in 0..rank {
        match n.below(6) {
            0 => a[axis] = 1,
            1 => b[axis] = 1,
            _ => {}
        }
    }
    // A missing axis counts as 1.
    let cut = if n.below(3) == 0 { n.below(rank + 1) } else { n.below(rank) / 2 };
    if n.coin() { (a, b.split_off(cut)) } else { (a.split_off(cut), b) }
}

fn binary(n: &mut Net) {
    let (a, b) = pair(n);
    let op = ["Add", "Sub", "Mul", "Div", "Max", "Min"][n.below(6)];
    // Divisors stay away from 0.
    let right = n.floats(b.iter().product(), 0.2, 2.0);
    let (a, b) = match n.below(3) {
        0 => (n.input(&a), n.constant_of(&b, Data::F32(right))),
        1 => (n.constant(&a, -1.0, 1.0), n.input_of(&b, right)),
        _ => (n.input(&a), n.input_of(&b, right)),
    };
    n.out(op, &[a, b], &[]);
}

fn binary_special(n: &mut Net) {
    let count = n.between(20, 60);
    let left = with_specials(n, count);
    let mut right = with_specials(n, count);
    right.reverse();
    let (a, b) = (n.input_of(&[count], left), n.input_of(&[count], right));
    let op = ["Add", "Sub", "Mul", "Div"][n.below(4)];
    n.out(op, &[a, b], &[]);
}

fn several(n: &mut Net) {
    let shape = n.shape(2, 9);
    let count = n.between(1, 4);
    let mut inputs = vec![n.input(&shape)];
    for _ in 1..count {
        inputs.push(n.input(&[shape[1]]));
    }
    let op = ["Max", "Min", "Sum"][n.below(3)];
    n.out(op, &inputs, &[]);
}

fn prelu(n: &mut Net) {
    let shape = n.shape(4, 6);
    let x = n.input(&shape);
    let slope = n.constant(&[shape[1], 1, 1], 0.0, 0.5);
    n.out("PRelu", &[x, slope], &[]);
}

fn residual(n: &mut Net) {
    let shape = n.shape(4, 6);
    let (a, b) = (n.input(&shape), n.input(&shape));
    let y = n.node("Add", &[a, b], &[]);
    let z = n.node("Relu", &[y], &[]);
    if n.coin() {
        n.graph.outputs.push(y);
    }
    n.graph.outputs.push(z);
}

fn concat(n: &mut Net) {
    let rank = n.between(1, 4);
    let shape = n.shape(rank, 6);
    let axis = n.below(rank);
    let mut inputs = Vec::new();
    for _ in 0..n.between(1, 4) {
        let mut own = shape.clone();
        own[axis] = n.between(1, 5);
        inputs.push(if n.below(4) == 0 { n.constant(&own, -1.0, 1.0) } else { n.input(&own) });
    }
    if n.graph.inputs.is_empty() {
        inputs.push(n.input(&shape));
    }
    let axis = axis as i64 - if n.coin() { rank as i64 } else { 0 };
    n.out("Concat", &inputs, &[("axis", Attr::Int(axis))]);
}

fn slice(n: &mut Net) {
    let rank = n.between(1, 4);
    let shape: Vec<usize> = (0..rank).map(|_| n.between(2, 9)).collect();
    let x = n.input(&shape);
    let (mut starts, mut ends, mut axes, mut steps) = (vec![], vec![], vec![], vec![]);
    for (axis, &extent) in shape.iter().enumerate() {
        if axis > 0 && n.coin() {
            continue;
        }
        let (low, step) = (n.below(extent), n.between(1, 3) as i64);
        let high = n.between(low + 1, extent);
        axes.push(axis as i64);
        if n.coin() {
            starts.push(if n.coin() { low as i64 } else { low as i64 - extent as i64 });
            ends.push(if high == extent { i64::MAX } else { high as i64 });
            steps.push(step);
        } else {
            starts.push(if high == extent { i64::from(i32::MAX) } else { high as i64 - 1 });
            ends.push(if low == 0 { i64::MIN + 1 } else { low as i64 - 1 });
            steps.push(-step);
        }
    }
    let lists = [starts, ends, axes, steps].map(|l| n.ints(&l));
    n.out("Slice", &[x, lists[0], lists[1], lists[2], lists[3]], &[]);
}

fn split(n: &mut Net) {
    let rank = n.between(1, 4);
    let axis = n.below(rank);
    let sizes: Vec<i64> = (0..n.between(1, 4)).map(|_| n.between(1, 4) as i64).collect();
    let mut shape = n.shape(rank, 6);
    shape[axis] = sizes.iter().sum::<i64>() as usize;
    let x = n.input(&shape);
    let list = n.ints(&sizes);
    let outs = n.nodes("Split", &[Some(x), Some(list)], &[("axis", Attr::Int(axis as i64))], sizes.len());
    n.graph.outputs.extend(outs);
}

fn gather(n: &mut Net) {
    let rank = n.between(1, 4);
    let shape = n.shape(rank, 6);
    let axis = n.below(rank);
    let extent = shape[axis] as i64;
    let x = if n.below(4) == 0 { n.constant(&shape, -1.0, 1.0) } else { n.input(&shape) };
    let indices: Vec<i64> = (0..6).map(|_| n.below(2 * extent as usize) as i64 - extent).collect();
    let shape = [&[6][..], &[2, 3], &[]][n.below(3)].to_vec();
    let count = shape.iter().product::<usize>();
    let list = n.constant_of(&shape, Data::I64(indices[..count].to_vec()));
    let mut y = n.node("Gather", &[x, list], &[("axis", Attr::Int(axis as i64))]);
    if n.graph.inputs.is_empty() {
        let one = n.input(&[1]);
        y = n.node("Mul", &[y, one], &[]);
    }
    n.graph.outputs.push(y);
}

fn pad(n: &mut Net) {
    let rank = n.between(1, 5);
    let shape: Vec<usize> = (0..rank).map(|_| n.between(2, 5)).collect();
    let x = n.input(&shape);
    // Negative pads cut.
    let pads: Vec<i64> =
        (0..2 * rank).map(|i| n.below(4) as i64 - i64::from(i % 2 == 0 && shape[i % rank] > 3)).collect();
    let pads = n.ints(&pads);
    let mut inputs = vec![x, pads];
    if n.coin() {
        inputs.push(n.scalar(0.5));
    }
    n.out("Pad", &inputs, &[("mode", Attr::String("constant".into()))]);
}

fn transpose(n: &mut Net) {
    let rank = n.between(1, 5);
    let shape = n.shape(rank, 6);
    let x = n.input(&shape);
    let mut order: Vec<i64> = (0..rank as i64).collect();
    for i in (1..rank).rev() {
        let j = n.below(i + 1);
        order.swap(i, j);
    }
    let given = n.below(4) > 0;
    if !given {
        order = (0..rank as i64).rev().collect();
    }
    let result: Vec<usize> = order.iter().map(|&a| shape[a as usize]).collect();
    let attrs = if given { vec![("perm", Attr::Ints(order))] } else { vec![] };
    n.out("Transpose", &[x], &attrs);
    // Before a sum onnxruntime drops it, so that the probe does not learn its shape.
    let out = n.graph.outputs[0];
    n.graph.values[out.0 as usize].shape = result;
}

/// Moves that leave the last axis as it is: rows from shorter than a vector to several vectors.
fn long_rows(n: &mut Net) {
    let row = if n.coin() { n.between(1, 40) } else { n.between(200, 400) };
    let shape = [n.between(2, 4), n.between(2, 4), n.between(1, 3), row];
    let x = n.input(&shape);
    let perm = [[1, 0, 2, 3], [2, 1, 0, 3], [0, 2, 1, 3]][n.below(3)];
    let y = n.node("Transpose", &[x], &[("perm", Attr::Ints(perm.to_vec()))]);
    let moved: Vec<usize> = perm.iter().map(|&a| shape[a as usize]).collect();
    n.graph.values[y.0 as usize].shape = moved.clone();
    let other = n.input(&moved);
    let axis = Attr::Int(n.below(3) as i64);
    let z = n.node("Concat", &[y, other], &[("axis", axis)]);
    let lists = [[0], [i64::MAX], [n.below(3) as i64], [n.between(1, 2) as i64]].map(|l| n.ints(&l));
    n.graph.outputs.push(y);
    n.out("Slice", &[z, lists[0], lists[1], lists[2], lists[3]], &[]);
}

fn expand(n: &mut Net) {
    let rank = n.between(1, 4);
    let mut shape = n.shape(rank, 5);
    let wanted: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    for d in &mut shape {
        if n.coin() {
            *d = 1;
        }
    }
    let x = n.input(&shape);
    let wanted = n.ints(&wanted);
    n.out("Expand", &[x, wanted], &[]);
}

/// A chain of views between two functions, with one view as an output and the input passed on.
fn views(n: &mut Net) {
    let shape = n.shape(3, 6);
    let total: usize = shape.iter().product();
    let x = n.input(&shape);
    let a = n.node("Neg", &[x], &[]);
    let flat = n.ints(&[1, total as i64]);
    let b = n.node("Reshape", &[a, flat], &[]);
    let axis = n.ints(&[0]);
    let c = n.node("Unsqueeze", &[b, axis], &[]);
    let d = n.node("Squeeze", &[c, axis], &[]);
    let e = n.node("Flatten", &[d], &[("axis", Attr::Int(1))]);
    let f = n.node("Identity", &[e], &[]);
    let g = n.node("Abs", &[f], &[]);
    let back = n.ints(&[-1, shape[2] as i64]);
    let h = n.node("Reshape", &[g, back], &[]);
    n.graph.outputs.extend([b, h]);
}
