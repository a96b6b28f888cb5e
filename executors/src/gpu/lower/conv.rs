//! Lowers Conv and ConvTranspose, one and two spatial axes, to the register tile.
//! It refuses weights that are not constant, three spatial axes, and output shapes given by attribute.

use super::super::kernel::Spec;
use super::super::kernel::ir::Buf;
use super::super::kernel::tile::{Tile, Walk, Weights};
use super::{Args, Group, Lower, Operand, elementwise, tile_act, tile_for};
use crate::graph::{Node, ValueId};
use crate::tensor::Tensor;
use std::sync::Arc;

/// Extents, strides, dilations and leading pads of a window, always for two axes (height 1 for one).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    pub kernel: [usize; 2],
    pub input: [usize; 2],
    pub output: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Pads before and after; only those before move anything, those after end the padded input.
    pub before: [i64; 2],
    pub after: [i64; 2],
}

/// Two numbers from a list attribute of one or two spatial axes.
fn pair(node: &Node, name: &str, spatial: usize, default: usize) -> Result<[usize; 2], String> {
    let all = match node.ints(name) {
        None => vec![default; spatial],
        Some(v) if v.len() == spatial && v.iter().all(|&v| v >= 1) => v.iter().map(|&v| v as usize).collect(),
        Some(v) => return Err(format!("attribute {name} = {v:?}, expected {spatial} positive numbers")),
    };
    Ok(two(&all))
}

fn two(all: &[usize]) -> [usize; 2] {
    match all {
        [h, w] => [*h, *w],
        [w] => [1, *w],
        _ => [1, 1],
    }
}

/// Reads the window of a convolution or pooling node.
pub(super) fn window(
    node: &Node,
    input: &[usize],
    output: &[usize],
    kernel: &[usize],
) -> Result<Window, String> {
    let spatial = input.len().saturating_sub(2);
    if !(1..=2).contains(&spatial) || kernel.len() != spatial || output.len() != input.len() {
        return Err(format!("{spatial} spatial axes with a kernel {kernel:?}; one or two are supported"));
    }
    let mut w = Window {
        kernel: two(kernel),
        input: two(&input[2..]),
        output: two(&output[2..]),
        stride: pair(node, "strides", spatial, 1)?,
        dilation: pair(node, "dilations", spatial, 1)?,
        before: [0, 0],
        after: [0, 0],
    };
    let auto = node.str("auto_pad").unwrap_or("NOTSET");
    match (auto, node.ints("pads")) {
        ("NOTSET", None) | ("VALID", _) => {}
        ("NOTSET", Some(p)) if p.len() == 2 * spatial && p.iter().all(|&p| p >= 0) => {
            for axis in 0..spatial {
                w.before[2 - spatial + axis] = p[axis];
                w.after[2 - spatial + axis] = p[spatial + axis];
            }
        }
        ("NOTSET", Some(p)) => {
            return Err(format!("attribute pads = {p:?}, expected {} numbers from 0", 2 * spatial));
        }
        ("SAME_UPPER" | "SAME_LOWER", _) => {
            for axis in 2 - spatial..2 {
                let reach = (w.output[axis] as i64 - 1) * w.stride[axis] as i64
                    + (w.kernel[axis] as i64 - 1) * w.dilation[axis] as i64
                    + 1;
                let pad = (reach - w.input[axis] as i64).max(0);
                w.before[axis] = if auto == "SAME_UPPER" { pad / 2 } else { pad - pad / 2 };
                w.after[axis] = pad - w.before[axis];
            }
        }
        (other, _) => return Err(format!("attribute auto_pad = `{other}`")),
    }
    Ok(w)
}

impl Args {
    /// The parameters of a window.
    pub(super) fn window(self, w: &Window) -> Self {
        self.int("kh", w.kernel[0])
            .int("kw", w.kernel[1])
            .int("ih", w.input[0])
            .int("iw", w.input[1])
            .int("oh", w.output[0])
            .int("ow", w.output[1])
            .int("stride_h", w.stride[0])
            .int("stride_w", w.stride[1])
            .int("dilation_h", w.dilation[0])
            .int("dilation_w", w.dilation[1])
            .signed("pad_h", w.before[0])
            .signed("pad_w", w.before[1])
    }
}

/// What is packed: weights and bias with a folded batch normalisation, for all groups.
#[derive(Clone)]
struct Packing {
    groups: usize,
    /// Output channels of one group.
    outs: usize,
    /// Input channels of one group.
    ins: usize,
    taps: usize,
    lanes: usize,
    transposed: bool,
    scale: Option<Vec<f32>>,
}

impl Packing {
    fn tiles(&self) -> usize {
        self.outs.div_ceil(self.lanes)
    }

    /// `[group][tile][tap][in][lane]`; left-over lanes repeat the last channel.
    fn weights(&self, w: &[f32]) -> Vec<f32> {
        let mut packed = Vec::with_capacity(self.groups * self.tiles() * self.taps * self.ins * self.lanes);
        for g in 0..self.groups {
            for tile in 0..self.tiles() {
                for tap in 0..self.taps {
                    for c in 0..self.ins {
                        for lane in 0..self.lanes {
                            let o = (tile * self.lanes + lane).min(self.outs - 1);
                            let at = if self.transposed {
                                ((g * self.ins + c) * self.outs + o) * self.taps + tap
                            } else {
                                ((g * self.outs + o) * self.ins + c) * self.taps + tap
                            };
                            packed.push(w[at] * self.scale.as_ref().map_or(1.0, |s| s[g * self.outs + o]));
                        }
                    }
                }
            }
        }
        packed
    }

    /// `[group][tile][lane]`.
    fn bias(&self, bias: Option<&[f32]>, shift: Option<&[f32]>) -> Vec<f32> {
        let mut packed = Vec::new();
        for g in 0..self.groups {
            for lane in 0..self.tiles() * self.lanes {
                let o = g * self.outs + lane.min(self.outs - 1);
                let bias = bias.map_or(0.0, |b| b[o]) * self.scale.as_ref().map_or(1.0, |s| s[o]);
                packed.push(bias + shift.map_or(0.0, |s| s[o]));
            }
        }
        packed
    }
}

/// A convolution whose shapes were checked.
struct Layer {
    id: ValueId,
    transposed: bool,
    weights: Arc<Tensor>,
    bias: Option<Arc<Tensor>>,
    window: Window,
    batch: usize,
    channels: usize,
    all_outs: usize,
    groups: usize,
}

fn layer(lower: &Lower<'_>, node: &Node) -> Result<Layer, String> {
    let transposed = node.op == "ConvTranspose";
    let (id, x) = lower.input(node, 0)?;
    let weights = lower.constant(node, 1)?.ok_or("input 1 (the weights) is missing")?.clone();
    let bias = lower.constant(node, 2)?.cloned();
    let head_out = node.outputs.first().copied().flatten().ok_or("it has no output")?;
    let out_shape = lower.graph.value(head_out).shape.clone();
    if weights.shape.len() != x.shape.len() || x.shape.len() < 3 {
        return Err(format!("an input of shape {:?} with weights of shape {:?}", x.shape, weights.shape));
    }
    if transposed
        && (node.ints("output_shape").is_some()
            || node.str("auto_pad").is_some_and(|p| p.starts_with("SAME")))
    {
        return Err("output_shape and automatic pads of a transposed convolution".into());
    }
    let window = window(node, &x.shape, &out_shape, &weights.shape[2..])?;
    let groups =
        usize::try_from(node.int("group", 1)).ok().filter(|g| *g >= 1).ok_or("attribute group below 1")?;
    let (batch, channels, all_outs) = (x.shape[0], x.shape[1], out_shape[1]);
    let expected = if transposed { [channels, all_outs / groups] } else { [all_outs, channels / groups] };
    if weights.shape[..2] != expected || channels % groups != 0 || all_outs % groups != 0 {
        return Err(format!(
            "weights of shape {:?} for {channels} channels in {groups} groups",
            weights.shape
        ));
    }
    Ok(Layer { id, transposed, weights, bias, window, batch, channels, all_outs, groups })
}

pub(super) fn conv(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let Layer { id, transposed, weights, bias, window: w, batch, channels, all_outs, groups } =
        layer(lower, group.node)?;
    let (ins, outs) = (channels / groups, all_outs / groups);
    let positions = w.output[0] * w.output[1];
    let (width, chunks, pixels) = tile_for(lower.target, outs, positions);
    let (act, constants) = tile_act(group);
    let pointwise =
        !transposed && w.kernel == [1, 1] && w.stride == [1, 1] && w.before == [0, 0] && w.after == [0, 0];
    let walk = match (transposed, pointwise) {
        (true, _) => Walk::Transposed,
        (_, true) => Walk::Linear,
        _ => Walk::Window,
    };
    let single = ins == 1 && walk != Walk::Linear;
    let tile = Tile { width, chunks, pixels, walk, weights: Weights::Packed, x: Buf::Arena, single, act };

    let (scale, shift) = match group.norm {
        Some(norm) => elementwise::norm_constants(lower.graph, norm).map(|(a, b)| (Some(a), Some(b)))?,
        None => (None, None),
    };
    if scale.as_ref().is_some_and(|s| s.len() != all_outs)
        || bias.as_ref().is_some_and(|b| b.len() != all_outs)
    {
        return Err(format!("bias or normalisation does not have {all_outs} channels"));
    }
    let lanes = tile.lanes() as usize;
    let taps = w.kernel[0] * w.kernel[1];
    let packing = Packing { groups, outs, ins, taps, lanes, transposed, scale };
    let tiles = packing.tiles();
    let per_group = tiles * taps * ins * chunks as usize;
    let for_bias = packing.clone();
    let w_blob = lower.blob(groups * tiles * taps * ins * lanes, move || {
        packing.weights(weights.as_f32().unwrap_or_default())
    });
    let bias_blob = lower.blob(groups * tiles * lanes, move || {
        for_bias.bias(bias.as_ref().and_then(|b| b.as_f32()), shift.as_deref())
    });
    let plane = w.input[0] * w.input[1];
    let (x, out) = (lower.in_arena(id), lower.output(group.out));
    let tiles_m = positions.div_ceil(pixels as usize);
    let args = Args::new()
        .int("m", positions)
        .int("n", outs)
        .int("k", ins * taps)
        .int("tiles_m", tiles_m)
        .int("tiles_n", tiles)
        .int("d1", batch)
        .int("d2", groups)
        .at("x_at", x)
        .list("x_z", &[0, (channels * plane) as i64, (ins * plane) as i64])
        .vectors("w_at", Operand::Blob(w_blob), width)
        .list("w_z", &[0, 0, per_group as i64])
        .vectors("bias_at", Operand::Blob(bias_blob), width)
        .list("bias_z", &[0, 0, (tiles * chunks as usize) as i64])
        .at("out_at", out)
        .list("out_z", &[0, (all_outs * positions) as i64, (outs * positions) as i64])
        .int("x_m", 1)
        .int("x_k", plane)
        .int("out_m", 1)
        .int("out_n", positions)
        .int("ic", ins)
        .window(&w)
        .act(constants);
    lower.emit(Spec::Tile(tile), args, tiles_m * tiles * batch * groups);
    Ok(())
}
