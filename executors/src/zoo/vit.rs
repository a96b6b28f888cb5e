//! Small transformers. BERT's encoder (Devlin et al., post-norm) begins behind the embedding table: its input is f32. A small vision transformer (Dosovitskiy et al.) in the shape in which PyTorch exports one: pre-norm blocks, separate heads by
//! reshape and transpose, GELU by Erf, mean over the tokens. It refuses resolutions that are not multiples of its 16-pixel patches.

use super::builder::{Conv, Name, Net};
use crate::graph::Attr;

/// Side of a patch in pixels.
const PATCH: usize = 16;
const HEADS: usize = 4;
const CLASSES: usize = 100;

pub(super) fn vit(net: &mut Net, resolution: usize, width: usize, blocks: usize) {
    let tokens = (resolution / PATCH) * (resolution / PATCH);
    let patches = Conv { pad: [0, 0], bias: true, ..Conv::square(3, width, PATCH, PATCH) };
    net.conv(patches).reshape(&[1, width as i64, tokens as i64]).transpose(&[0, 2, 1]);
    let position = net.normal(&[1, tokens, width], 0.1);
    net.add(&position);
    for _ in 0..blocks {
        let input = net.at.clone();
        net.layer_norm(width);
        attention(net, tokens, width).add(&input);
        let input = net.at.clone();
        net.layer_norm(width).linear(width, 4 * width, 1.0).gelu().linear(4 * width, width, 0.6).add(&input);
    }
    net.layer_norm(width);
    let x = net.at.clone();
    net.op("ReduceMean", &[&x], &[("axes", Attr::Ints(vec![1])), ("keepdims", Attr::Int(0))]);
    net.gemm(width, CLASSES);
}

pub(super) fn bert(net: &mut Net, tokens: usize, width: usize, blocks: usize) {
    net.layer_norm(width);
    for _ in 0..blocks {
        let input = net.at.clone();
        attention(net, tokens, width).add(&input).layer_norm(width);
        let input = net.at.clone();
        net.linear(width, 4 * width, 1.0).gelu().linear(4 * width, width, 0.6).add(&input).layer_norm(width);
    }
}

/// Multi-head self-attention.
fn attention(net: &mut Net, tokens: usize, width: usize) -> &mut Net {
    let (n, d, h) = (tokens as i64, width as i64, HEADS as i64);
    net.linear(width, 3 * width, 1.5);
    let (qkv, sizes) = (net.at.clone(), net.ints(&[d, d, d]));
    let parts = net.ops("Split", &[&qkv, &sizes], &[("axis", Attr::Int(-1))], 3);
    let mut heads = |part: &Name, order: &[i64]| {
        net.at = part.clone();
        net.reshape(&[1, n, h, d / h]).transpose(order).at.clone()
    };
    let q = heads(&parts[0], &[0, 2, 1, 3]);
    let k = heads(&parts[1], &[0, 2, 3, 1]);
    let v = heads(&parts[2], &[0, 2, 1, 3]);
    let scale = net.scalar((HEADS as f32 / width as f32).sqrt());
    let q = net.op("Mul", &[&q, &scale], &[]);
    let scores = net.op("MatMul", &[&q, &k], &[]);
    let weights = net.op("Softmax", &[&scores], &[("axis", Attr::Int(-1))]);
    net.op("MatMul", &[&weights, &v], &[]);
    net.transpose(&[0, 2, 1, 3]).reshape(&[1, n, d]).linear(width, width, 1.0)
}
