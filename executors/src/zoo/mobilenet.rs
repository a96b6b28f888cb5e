//! MobileNetV2 (Sandler et al., 2018) at any width and MobileNetV3-small (Howard et al., 2019). They refuse nothing.

use super::builder::{Conv, Net};
use crate::graph::Attr;

/// Rows of the paper's table: expansion, channels, repeats, stride.
const STAGES: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

/// Channels at this width: a multiple of 8 that is not more than a tenth too small.
fn channels(base: usize, width: f64) -> usize {
    let wanted = base as f64 * width;
    let rounded = (((wanted + 4.0) / 8.0) as usize * 8).max(8);
    if (rounded as f64) < 0.9 * wanted { rounded + 8 } else { rounded }
}

pub(super) fn v2(net: &mut Net, width: f64) {
    let mut cin = channels(32, width);
    net.conv(Conv::square(3, cin, 3, 2)).batch_norm(cin, 1.0).relu6();
    for [expansion, base, repeats, stride] in STAGES {
        let cout = channels(base, width);
        for i in 0..repeats {
            block(net, cin, cout, expansion, if i == 0 { stride } else { 1 });
            cin = cout;
        }
    }
    let last = channels(1280, width.max(1.0));
    net.conv(Conv::square(cin, last, 1, 1)).batch_norm(last, 1.0).relu6().head(last, 1000);
}

/// An inverted residual: expand, depthwise, project; added to its input where shapes agree.
fn block(net: &mut Net, cin: usize, cout: usize, expansion: usize, stride: usize) {
    let shortcut = net.at.clone();
    let inner = cin * expansion;
    if expansion != 1 {
        net.conv(Conv::square(cin, inner, 1, 1)).batch_norm(inner, 1.0).relu6();
    }
    net.conv(Conv::depthwise(inner, stride)).batch_norm(inner, 1.0).relu6();
    let residual = stride == 1 && cin == cout;
    net.conv(Conv::square(inner, cout, 1, 1)).batch_norm(cout, if residual { 0.4 } else { 1.0 });
    if residual {
        net.add(&shortcut);
    }
}

/// Rows of MobileNetV3-small: kernel, expanded channels, channels, squeeze and excitation, HardSwish (else ReLU), stride.
const SMALL: [(usize, usize, usize, bool, bool, usize); 11] = [
    (3, 16, 16, true, false, 2),
    (3, 72, 24, false, false, 2),
    (3, 88, 24, false, false, 1),
    (5, 96, 40, true, true, 2),
    (5, 240, 40, true, true, 1),
    (5, 240, 40, true, true, 1),
    (5, 120, 48, true, true, 1),
    (5, 144, 48, true, true, 1),
    (5, 288, 96, true, true, 2),
    (5, 576, 96, true, true, 1),
    (5, 576, 96, true, true, 1),
];

pub(super) fn v3_small(net: &mut Net) {
    net.conv(Conv::square(3, 16, 3, 2)).batch_norm(16, 1.0).unary("HardSwish");
    let mut cin = 16;
    for (kernel, inner, cout, squeezed, swish, stride) in SMALL {
        let shortcut = net.at.clone();
        let act = if swish { "HardSwish" } else { "Relu" };
        if inner != cin {
            net.conv(Conv::square(cin, inner, 1, 1)).batch_norm(inner, 1.0).unary(act);
        }
        net.conv(Conv::filters(inner, kernel, stride)).batch_norm(inner, 1.0).unary(act);
        if squeezed {
            let relu = |net: &mut Net| {
                net.unary("Relu");
            };
            net.excite(inner, channels(inner, 0.25), relu, "HardSigmoid");
        }
        let residual = stride == 1 && cin == cout;
        net.conv(Conv::square(inner, cout, 1, 1)).batch_norm(cout, if residual { 0.4 } else { 1.0 });
        if residual {
            net.add(&shortcut);
        }
        cin = cout;
    }
    net.conv(Conv::square(cin, 576, 1, 1)).batch_norm(576, 1.0).unary("HardSwish").unary("GlobalAveragePool");
    let x = net.at.clone();
    net.op("Flatten", &[&x], &[("axis", Attr::Int(1))]);
    net.gemm(576, 1024).unary("HardSwish").gemm(1024, 1000);
}

#[cfg(test)]
mod tests {
    #[test]
    fn channels_are_those_of_the_published_half_width_network() {
        let got: Vec<usize> =
            [32, 16, 24, 32, 64, 96, 160, 320].iter().map(|&c| super::channels(c, 0.5)).collect();
        assert_eq!(got, [16, 8, 16, 16, 32, 48, 80, 160]);
    }
}
