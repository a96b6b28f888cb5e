//! Rows that pool, or normalise by a window of channels. They refuse shapes that onnxruntime infers and computes differently.

use super::{Net, Row};
use cosched_executors::graph::Attr;

pub fn rows() -> Vec<Row> {
    let row = |name, make| Row { name, relative: 1e-4, absolute: 2e-5, make };
    vec![
        row("max pool", |n| pool(n, "MaxPool", false)),
        row("average pool", |n| pool(n, "AveragePool", false)),
        row("max pool of wide rows", |n| pool(n, "MaxPool", true)),
        row("average pool of wide rows", |n| pool(n, "AveragePool", true)),
        row("global pool", global_pool),
        row("lrn", lrn),
    ]
}

fn ints(values: &[usize]) -> Attr {
    Attr::Ints(values.iter().map(|&v| v as i64).collect())
}

/// A pooling of any kind, or of `wide` rows by small windows and strides: for strips of every width.
fn pool(n: &mut Net, op: &str, wide: bool) {
    let spatial = if wide { 2 } else { n.between(1, 2) };
    let (least, most) = if wide { (2, 5) } else { [(1, 4), (1, 4), (5, 9)][n.below(3)] };
    let kernel: Vec<usize> = (0..spatial).map(|_| n.between(least, most)).collect();
    let automatic = n.below(4) == 0;
    let ceil = n.coin();
    // Where the stride is larger than the kernel onnxruntime refuses automatic pads, and in ceil mode (also where the last
    // window would start in the padding) the shapes that it infers are not those of its results.
    let fastest = if wide { 2 } else { 3 };
    let strides: Vec<usize> = (0..spatial)
        .map(|a| n.between(1, fastest).min(if automatic || ceil { kernel[a] } else { 3 }))
        .collect();
    let mut size: Vec<usize> = (0..spatial).map(|a| 2 * kernel[a] + n.between(0, 8)).collect();
    if wide {
        size[1] += n.between(4, 60);
    }
    let pad = |n: &mut Net, i: usize| n.below(3).min(kernel[i % spatial] - 1);
    let mut pads: Vec<usize> = (0..2 * spatial).map(|i| pad(n, i)).collect();
    if ceil {
        pads[spatial..].fill(0);
    }
    let mut attrs = vec![("kernel_shape", ints(&kernel)), ("strides", ints(&strides))];
    if automatic {
        attrs.push(("auto_pad", Attr::String(["SAME_UPPER", "SAME_LOWER"][n.below(2)].into())));
    } else {
        attrs.push(("pads", ints(&pads)));
        attrs.push(("ceil_mode", Attr::Int(ceil.into())));
    }
    if op == "MaxPool" && !automatic && n.coin() {
        attrs.push(("dilations", ints(&vec![2; spatial])));
    }
    if op == "AveragePool" {
        n.opset(19);
        attrs.push(("count_include_pad", Attr::Int(n.coin().into())));
    }
    let (batch, channels) = (n.between(1, 2), n.between(1, 5));
    let x = n.input(&[&[batch, channels][..], &size].concat());
    n.out(op, &[x], &attrs);
}

fn global_pool(n: &mut Net) {
    let rank = n.between(3, 5);
    let shape = n.shape(rank, 6);
    let x = n.input(&shape);
    let op = ["GlobalAveragePool", "GlobalMaxPool"][n.below(2)];
    n.out(op, &[x], &[]);
}

/// onnxruntime takes odd windows and four axes only; many windows are wider than there are channels on one side or on both.
fn lrn(n: &mut Net) {
    let mut shape = n.shape(4, 6);
    shape[1] = n.between(1, 12);
    let x = n.input(&shape);
    let mut attrs = vec![("size", Attr::Int(2 * n.between(0, 4) as i64 + 1))];
    // As networks have them, and so large that every term counts.
    for (name, low, high) in [("alpha", 0.1, 3.0), ("beta", 0.3, 1.5), ("bias", 0.5, 2.0)] {
        if n.below(4) > 0 {
            attrs.push((name, Attr::Float(n.floats(1, low, high)[0])));
        }
    }
    n.out("LRN", &[x], &attrs);
}
