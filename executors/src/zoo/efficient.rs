//! EfficientNet-B0 (Tan and Le, 2019), ShuffleNetV2 at full width (Ma et al., 2018) and a small U-Net (Ronneberger et al., 2015).
//! They refuse nothing.

use super::builder::{Conv, Name, Net};
use crate::graph::Attr;

/// Rows of EfficientNet-B0: expansion, channels, repeats, stride, kernel.
const STAGES: [[usize; 5]; 7] = [
    [1, 16, 1, 1, 3],
    [6, 24, 2, 2, 3],
    [6, 40, 2, 2, 5],
    [6, 80, 3, 2, 3],
    [6, 112, 3, 1, 5],
    [6, 192, 4, 2, 5],
    [6, 320, 1, 1, 3],
];

pub(super) fn b0(net: &mut Net) {
    let silu = |net: &mut Net| {
        net.silu();
    };
    let mut cin = 32;
    net.conv(Conv::square(3, cin, 3, 2)).batch_norm(cin, 1.0).silu();
    for [expansion, cout, repeats, first, kernel] in STAGES {
        for i in 0..repeats {
            let stride = if i == 0 { first } else { 1 };
            let (shortcut, inner) = (net.at.clone(), cin * expansion);
            if expansion != 1 {
                net.conv(Conv::square(cin, inner, 1, 1)).batch_norm(inner, 1.0).silu();
            }
            net.conv(Conv::filters(inner, kernel, stride)).batch_norm(inner, 1.0).silu();
            net.excite(inner, cin / 4, silu, "Sigmoid");
            let residual = stride == 1 && cin == cout;
            net.conv(Conv::square(inner, cout, 1, 1)).batch_norm(cout, if residual { 0.8 } else { 2.0 });
            if residual {
                net.add(&shortcut);
            }
            cin = cout;
        }
    }
    net.conv(Conv::square(cin, 1280, 1, 1)).batch_norm(1280, 1.0).silu().head(1280, 1000);
}

pub(super) fn shuffle(net: &mut Net, resolution: usize) {
    net.conv(Conv::square(3, 24, 3, 2)).batch_norm(24, 1.0).unary("Relu").max_pool(1);
    let (mut cin, mut side) = (24, resolution / 4);
    for (cout, repeats) in [(116, 4), (232, 8), (464, 4)] {
        side /= 2;
        let half = cout / 2;
        for i in 0..repeats {
            let input = net.at.clone();
            let (left, right) = if i == 0 {
                let left = net.conv(Conv::depthwise(cin, 2)).batch_norm(cin, 1.0);
                let left =
                    left.conv(Conv::square(cin, half, 1, 1)).batch_norm(half, 1.0).unary("Relu").at.clone();
                (left, input)
            } else {
                let sizes = net.ints(&[half as i64; 2]);
                let parts = net.ops("Split", &[&input, &sizes], &[("axis", Attr::Int(1))], 2);
                (parts[0].clone(), parts[1].clone())
            };
            let (from, stride) = if i == 0 { (cin, 2) } else { (half, 1) };
            net.at = right;
            net.conv(Conv::square(from, half, 1, 1)).batch_norm(half, 1.0).unary("Relu");
            net.conv(Conv::depthwise(half, stride)).batch_norm(half, 1.0);
            let right =
                net.conv(Conv::square(half, half, 1, 1)).batch_norm(half, 1.0).unary("Relu").at.clone();
            net.op("Concat", &[&left, &right], &[("axis", Attr::Int(1))]);
            let (c, s) = (half as i64, side as i64);
            net.reshape(&[1, 2, c, s, s]).transpose(&[0, 2, 1, 3, 4]).reshape(&[1, 2 * c, s, s]);
        }
        cin = cout;
    }
    net.conv(Conv::square(cin, 1024, 1, 1)).batch_norm(1024, 1.0).unary("Relu").head(1024, 1000);
}

fn twice(net: &mut Net, cin: usize, cout: usize) -> Name {
    net.conv(Conv::square(cin, cout, 3, 1)).batch_norm(cout, 1.0).unary("Relu");
    net.conv(Conv::square(cout, cout, 3, 1)).batch_norm(cout, 1.0).unary("Relu").at.clone()
}

pub(super) fn unet(net: &mut Net) {
    let widths = [16, 32, 64, 128];
    let (mut cin, mut skips) = (3, Vec::new());
    for width in widths {
        skips.push((width, twice(net, cin, width)));
        cin = width;
        let x = net.at.clone();
        let square = |n| Attr::Ints(vec![n; 2]);
        net.op("MaxPool", &[&x], &[("kernel_shape", square(2)), ("strides", square(2))]);
    }
    twice(net, cin, 256);
    cin = 256;
    for (width, skip) in skips.into_iter().rev() {
        net.double(cin, width);
        let up = net.at.clone();
        net.op("Concat", &[&skip, &up], &[("axis", Attr::Int(1))]);
        twice(net, 2 * width, width);
        cin = width;
    }
    net.conv(Conv { bias: true, ..Conv::square(cin, 4, 1, 1) });
}
