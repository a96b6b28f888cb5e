//! MobileNetV2 (Sandler et al., 2018) at any width. It refuses nothing.

use super::builder::{Conv, Net};

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

#[cfg(test)]
mod tests {
    #[test]
    fn channels_are_those_of_the_published_half_width_network() {
        let got: Vec<usize> =
            [32, 16, 24, 32, 64, 96, 160, 320].iter().map(|&c| super::channels(c, 0.5)).collect();
        assert_eq!(got, [16, 8, 16, 16, 32, 48, 80, 160]);
    }
}
