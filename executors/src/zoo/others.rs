//! SqueezeNet 1.1 (Iandola et al.), ResNet-18 (He et al.) and DS-CNN (Zhang et al., "Hello Edge"). It refuses nothing.

use super::builder::{Conv, Net};
use crate::graph::Attr;

pub(super) fn squeezenet(net: &mut Net) {
    net.conv(Conv { pad: [0, 0], bias: true, ..Conv::square(3, 64, 3, 2) }).unary("Relu").max_pool(0);
    let mut cin = 64;
    for (i, (squeeze, expand)) in
        [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
            .into_iter()
            .enumerate()
    {
        if i == 2 || i == 4 {
            net.max_pool(0);
        }
        fire(net, cin, squeeze, expand);
        cin = 2 * expand;
    }
    net.conv(Conv { bias: true, ..Conv::square(cin, 1000, 1, 1) }).unary("Relu").unary("GlobalAveragePool");
    let x = net.at.clone();
    net.op("Flatten", &[&x], &[("axis", Attr::Int(1))]);
}

/// Squeeze to few channels, expand by 1x1 and by 3x3, concatenate.
fn fire(net: &mut Net, cin: usize, squeeze: usize, expand: usize) {
    net.conv(Conv { bias: true, ..Conv::square(cin, squeeze, 1, 1) }).unary("Relu");
    let squeezed = net.at.clone();
    let one = net.conv(Conv { bias: true, ..Conv::square(squeeze, expand, 1, 1) }).unary("Relu").at.clone();
    net.at = squeezed;
    let three = net.conv(Conv { bias: true, ..Conv::square(squeeze, expand, 3, 1) }).unary("Relu").at.clone();
    net.op("Concat", &[&one, &three], &[("axis", Attr::Int(1))]);
}

pub(super) fn resnet18(net: &mut Net) {
    net.conv(Conv::square(3, 64, 7, 2)).batch_norm(64, 1.0).unary("Relu").max_pool(1);
    let mut cin = 64;
    for (cout, stride) in [(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)] {
        basic(net, cin, cout, stride);
        cin = cout;
    }
    net.head(cin, 1000);
}

/// Two 3x3 convolutions and a shortcut, itself a 1x1 convolution where shapes change.
fn basic(net: &mut Net, cin: usize, cout: usize, stride: usize) {
    let input = net.at.clone();
    net.conv(Conv::square(cin, cout, 3, stride)).batch_norm(cout, 1.0).unary("Relu");
    let main = net.conv(Conv::square(cout, cout, 3, 1)).batch_norm(cout, 0.4).at.clone();
    net.at = input;
    if stride != 1 || cin != cout {
        net.conv(Conv::square(cin, cout, 1, stride)).batch_norm(cout, 0.8);
    }
    net.add(&main).unary("Relu");
}

/// A 10x4 convolution over the spectrogram, four depthwise-separable layers, a softmax.
pub(super) fn kws(net: &mut Net, channels: usize) {
    net.conv(Conv { kernel: [10, 4], pad: [5, 1], ..Conv::square(1, channels, 3, 2) });
    net.batch_norm(channels, 1.0).unary("Relu");
    for _ in 0..4 {
        net.conv(Conv::depthwise(channels, 1)).batch_norm(channels, 1.0).unary("Relu");
        net.conv(Conv::square(channels, channels, 1, 1)).batch_norm(channels, 1.0).unary("Relu");
    }
    net.head(channels, 12);
    let x = net.at.clone();
    net.op("Softmax", &[&x], &[("axis", Attr::Int(-1))]);
}
