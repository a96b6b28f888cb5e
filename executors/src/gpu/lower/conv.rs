//! Lowers Conv and ConvTranspose, one and two spatial axes: to the register tile, to strips, or to Winograd's steps.
//! It refuses to judge which of them pays: `layer.rs` guesses, measurements know.

use super::super::kernel::Spec;
use super::super::kernel::ir::Buf;
use super::super::kernel::strip::Strip;
use super::super::kernel::tile::{Tile, Walk, Weights};
use super::super::kernel::unary::Unary;
use super::choice::{Along, Choice, TileShape};
use super::layer::{Layer, layer};
use super::packing::Packing;
use super::product::{Narrow, Product, Wide};
use super::slices::slices;
use super::spatial::Window;
use super::{Args, Group, Lower, Operand, elementwise, tile_act, winograd};
use crate::tensor::Tensor;
use std::ops::Range;
use std::sync::Arc;

pub(super) fn conv(lower: &mut Lower<'_>, group: &Group<'_>) -> Result<(), String> {
    let layer = layer(lower, group.node)?;
    let (scale, shift) = match group.norm {
        Some(norm) => elementwise::norm_constants(lower.graph, norm).map(|(a, b)| (Some(a), Some(b)))?,
        None => (None, None),
    };
    let all_outs = layer.all_outs;
    if scale.as_ref().is_some_and(|s| s.len() != all_outs)
        || layer.bias.as_ref().is_some_and(|b| b.len() != all_outs)
    {
        return Err(format!("bias or normalisation does not have {all_outs} channels"));
    }
    let packing = Packing {
        weights: layer.weights.clone(),
        bias: layer.bias.clone(),
        groups: layer.groups,
        outs: layer.outs(),
        first: 0,
        all: layer.outs(),
        ins: layer.ins(),
        taps: layer.taps(),
        transposed: layer.transposed,
        scale,
        shift,
    };
    let places = Places {
        x: lower.in_arena(layer.id),
        residual: group.residual.map(|id| lower.in_arena(id)),
        out: lower.output(group.out),
        first: 0,
        act: tile_act(group),
    };
    if layer.blocks() && places.residual.is_none() && layer.weights.bytes() <= lower.target.max_binding {
        return blocks(lower, &layer, &packing, places);
    }
    if layer.patches() && layer.weights.bytes() <= lower.target.max_binding {
        return patches(lower, &layer, &packing, places);
    }
    let candidates = layer.candidates(lower.target);
    let choice = lower.choose(layer.key(), candidates);
    let parts: Vec<_> = match layer.batch * layer.groups {
        1 => slice(&layer, choice, lower.target.max_binding),
        // Weights of many small groups are never that large, and slices of a batch do not lie side by side.
        _ => std::iter::once(0..layer.all_outs).collect(),
    };
    for part in parts {
        let places = Places { first: (part.start * layer.positions()) as i64, ..places };
        let layer = Layer { all_outs: part.len(), ..layer.clone() };
        let packing = Arc::new(Packing { first: part.start, outs: layer.outs(), ..packing.clone() });
        match choice {
            Choice::Tile(shape) if layer.pointwise() => pointwise(lower, &layer, packing, places, shape),
            Choice::Tile(shape) => windowed(lower, &layer, packing, places, shape),
            Choice::Strip { width, across, rows, outs } => {
                strip(lower, &layer, packing, places, [width, across, rows, outs]);
            }
            Choice::Winograd { size, tile } => winograd::emit(lower, &layer, packing, places, size, tile),
        }
    }
    Ok(())
}

/// The output channels of each slice of a layer that is computed like this, so that its weights fit a binding of `limit` bytes.
fn slice(layer: &Layer, choice: Choice, limit: usize) -> Vec<Range<usize>> {
    let lanes = |shape: TileShape| match shape.along {
        Along::Positions => shape.pixels as usize,
        Along::Channels => (shape.width * shape.chunks) as usize,
    };
    let (lanes, of_channel, whole) = match choice {
        Choice::Tile(shape) => (lanes(shape), layer.ins() * layer.taps(), false),
        Choice::Strip { outs, .. } => (outs as usize, layer.ins() * layer.taps(), false),
        Choice::Winograd { size, tile } => {
            (lanes(tile), ((size + 2) * (size + 2)) as usize * layer.ins(), tile.along == Along::Channels)
        }
    };
    slices(layer.outs(), lanes, lanes * of_channel, whole, limit).collect()
}

/// Where the tensors of a layer are, and what comes behind it.
#[derive(Clone, Copy)]
pub(super) struct Places {
    pub x: Operand,
    pub residual: Option<Operand>,
    pub out: Operand,
    /// Where a slice of the channels begins in the output, in floats.
    pub first: i64,
    pub act: (Unary, [f32; 2]),
}

fn pointwise(lower: &mut Lower<'_>, layer: &Layer, packing: Arc<Packing>, places: Places, shape: TileShape) {
    let (ins, outs, groups) = (layer.ins(), layer.outs(), layer.groups);
    let (positions, plane) = (layer.positions(), layer.plane());
    let by_position = shape.along == Along::Positions;
    let lanes = if by_position { shape.pixels } else { shape.width * shape.chunks } as usize;
    let tiles = outs.div_ceil(lanes);
    let (weights, biases) = (packing.clone(), packing);
    let packed = lower.blob(groups * tiles * lanes * ins, move || weights.window(lanes));
    let packed_z = [0, 0, (tiles * lanes * ins) as i64];
    let x_z = [0, (layer.channels * plane) as i64, (ins * plane) as i64];
    let bias_lanes = if by_position { 1 } else { lanes };
    let bias_tiles = outs.div_ceil(bias_lanes) * bias_lanes;
    let bias = lower.blob(groups * bias_tiles, move || biases.biases(bias_lanes));
    let (wide, narrow) = match by_position {
        true => (Wide::Loose { at: places.x, k: plane, lane: 1, z: x_z }, Narrow::Packed(packed, packed_z)),
        false => (Wide::Packed(packed, packed_z), Narrow::Loose { at: places.x, row: 1, k: plane, z: x_z }),
    };
    lower.product(Product {
        shape,
        rows: if by_position { outs } else { positions },
        columns: if by_position { positions } else { outs },
        k: ins,
        batch: [1, layer.batch, groups],
        wide,
        narrow,
        bias,
        bias_by_row: by_position,
        bias_z: [0, 0, bias_tiles as i64],
        out: places.out,
        first: places.first,
        out_row: if by_position { positions } else { 1 },
        out_column: if by_position { 1 } else { positions },
        whole: by_position,
        out_z: [0, (layer.all_outs * positions) as i64, (outs * positions) as i64],
        alpha: 1.0,
        residual: places.residual,
        act: places.act,
    });
}

/// A transposed convolution whose windows do not overlap: every position makes a block of its own. One matrix product makes all elements of
/// all blocks, plane by plane, and a copy puts them in their places.
fn blocks(lower: &mut Lower<'_>, layer: &Layer, packing: &Packing, places: Places) -> Result<(), String> {
    let (ins, outs, taps, plane) = (layer.ins(), layer.outs(), layer.taps(), layer.plane());
    let Window { kernel: [kh, kw], input: [ih, iw], .. } = layer.window;
    let weights = (0..outs * taps * ins).map(|i| packing.at(0, i / ins / taps, i % ins, i / ins % taps));
    let bias = (0..outs * taps).map(|i| packing.bias(0, i / taps));
    let window = Window::pointwise(layer.window.input);
    let planes = Layer { transposed: false, window, all_outs: outs * taps, ..layer.clone() };
    let scratch = Operand::Slot(lower.scratch(layer.batch * outs * taps * plane));
    product(lower, &planes, weights.collect(), bias.collect(), Places { out: scratch, ..places });
    let (all, each, wide) = (outs * taps * plane, taps * plane, kw * iw);
    let from = [all, each, kw * plane, plane, iw, 1].map(|n| n as i64);
    let to = [all, each, wide, 1, kh * wide, kw].map(|n| n as i64);
    lower.copy(scratch, 0, places.out, 0, &[layer.batch, outs, kh, kw, ih, iw], &from, &to)
}

/// A convolution whose windows do not overlap: a copy makes a plane of each element of the windows, and one matrix product does the rest.
fn patches(lower: &mut Lower<'_>, layer: &Layer, packing: &Packing, places: Places) -> Result<(), String> {
    let (ins, outs, taps, positions) = (layer.ins(), layer.outs(), layer.taps(), layer.positions());
    let Window { kernel: [kh, kw], output: [oh, ow], .. } = layer.window;
    let (all, each, wide) = (ins * taps * positions, taps * positions, kw * ow);
    let from = [all, each, wide, 1, kh * wide, kw].map(|n| n as i64);
    let to = [all, each, kw * positions, positions, ow, 1].map(|n| n as i64);
    let scratch = Operand::Slot(lower.scratch(layer.batch * all));
    lower.copy(places.x, 0, scratch, 0, &[layer.batch, ins, kh, kw, oh, ow], &from, &to)?;
    let deep = ins * taps;
    let weights = (0..outs * deep).map(|i| packing.at(0, i / deep, i % deep / taps, i % taps));
    let bias = (0..outs).map(|o| packing.bias(0, o));
    let window = Window::pointwise(layer.window.output);
    let planes = Layer { window, channels: deep, ..layer.clone() };
    product(lower, &planes, weights.collect(), bias.collect(), Places { x: scratch, ..places });
    Ok(())
}

/// A 1x1 convolution, shaped as `layer`, with weights `[outs][ins]` of its own.
fn product(lower: &mut Lower<'_>, layer: &Layer, weights: Vec<f32>, bias: Vec<f32>, places: Places) {
    let (ins, outs) = (layer.ins(), layer.outs());
    let Choice::Tile(shape) = lower.choose(layer.key(), layer.candidates(lower.target)) else {
        unreachable!("only tiles were offered")
    };
    let packing = Packing {
        weights: Arc::new(Tensor::f32(&[outs, ins, 1, 1], weights)),
        bias: Some(Arc::new(Tensor::f32(&[outs], bias))),
        groups: 1,
        outs,
        first: 0,
        all: outs,
        ins,
        taps: 1,
        transposed: false,
        scale: None,
        shift: None,
    };
    pointwise(lower, layer, Arc::new(packing), places, shape);
}

fn windowed(lower: &mut Lower<'_>, layer: &Layer, packing: Arc<Packing>, places: Places, shape: TileShape) {
    let (ins, outs, groups, taps) = (layer.ins(), layer.outs(), layer.groups, layer.taps());
    let (positions, plane, w) = (layer.positions(), layer.plane(), &layer.window);
    let TileShape { width, chunks, pixels, share, .. } = shape;
    let tile = Tile {
        width,
        chunks,
        pixels,
        walk: if layer.transposed { Walk::Transposed } else { Walk::Window },
        weights: Weights::Packed,
        x: Buf::Arena,
        x_packed: false,
        bias_m: false,
        rows: false,
        residual: places.residual.is_some(),
        share,
        single: ins == 1,
        spread: !lower.target.rows,
        act: places.act.0,
    };
    let lanes = tile.lanes() as usize;
    let tiles = outs.div_ceil(lanes);
    let unit = if share > 0 { 1 } else { width };
    let per_group = tiles * taps * ins * lanes / unit as usize;
    let (weights, biases) = (packing.clone(), packing);
    let w_blob = lower.blob(groups * tiles * taps * ins * lanes, move || weights.window(lanes));
    let bias_blob = lower.blob(groups * tiles * lanes, move || biases.biases(lanes));
    let tiles_m = positions.div_ceil(pixels as usize);
    let tiles_m = if share > 0 { tiles_m.next_multiple_of(share as usize) } else { tiles_m };
    let mut args = Args::new()
        .int("m", positions)
        .int("n", outs)
        .int("k", ins * taps)
        .int("tiles_m", tiles_m)
        .int("tiles_n", tiles)
        .int("d1", layer.batch)
        .int("d2", groups)
        .at("x_at", places.x)
        .list("x_z", &[0, (layer.channels * plane) as i64, (ins * plane) as i64])
        .vectors("w_at", Operand::Blob(w_blob), unit)
        .list("w_z", &[0, 0, per_group as i64])
        .vectors("bias_at", Operand::Blob(bias_blob), width)
        .list("bias_z", &[0, 0, (tiles * chunks as usize) as i64])
        .at_plus("out_at", places.out, places.first)
        .list("out_z", &[0, (layer.all_outs * positions) as i64, (outs * positions) as i64])
        .int("out_m", 1)
        .int("out_n", positions)
        .int("ic", ins)
        .window(w)
        .act(places.act.1);
    if let Some(residual) = places.residual {
        args = args.at_plus("res_at", residual, places.first);
    }
    let spread = if layer.transposed { w.stride[0] * w.stride[1] } else { 1 };
    let flops = 2 * layer.batch * layer.all_outs * positions * ins * taps / spread;
    lower.emit_work(Spec::Tile(tile), args, tiles_m * tiles * layer.batch * groups, flops);
}

fn strip(lower: &mut Lower<'_>, layer: &Layer, packing: Arc<Packing>, places: Places, size: [u32; 4]) {
    let [width, across, rows, outs] = size;
    let w = &layer.window;
    let strip = Strip {
        width,
        across,
        rows,
        outs,
        kernel: w.kernel.map(|k| k as u32),
        stride: w.stride[0] as u32,
        single: lower.target.rows && layer.ins() == 1 && layer.outs() == 1,
        narrow: width > 1 && w.output[1] < width as usize,
        residual: places.residual.is_some(),
        act: places.act.0,
    };
    let (ins, lanes, taps) = (layer.ins(), outs as usize, layer.taps());
    let tiles = layer.outs().div_ceil(lanes);
    let (weights, biases) = (packing.clone(), packing);
    let w_blob = lower.blob(layer.groups * tiles * lanes * ins * taps, move || weights.strips(lanes));
    let bias_blob = lower.blob(layer.groups * tiles * lanes, move || biases.biases(lanes));
    let tiles_x = w.output[1].div_ceil(strip.span() as usize);
    let tiles_y = w.output[0].div_ceil(rows as usize);
    let mut args = Args::new()
        .int("tiles_x", tiles_x)
        .int("tiles_y", tiles_y)
        .int("tiles_n", tiles)
        .int("n", layer.outs())
        .int("groups", layer.groups)
        .int("ic", ins)
        .window(w)
        .at("x_at", places.x)
        .at("w_at", Operand::Blob(w_blob))
        .at("bias_at", Operand::Blob(bias_blob))
        .at_plus("out_at", places.out, places.first)
        .act(places.act.1);
    if let Some(residual) = places.residual {
        args = args.at_plus("res_at", residual, places.first);
    }
    let flops = 2 * layer.batch * layer.all_outs * layer.positions() * ins * taps;
    let total = tiles_x * tiles_y * tiles * layer.batch * layer.groups;
    lower.emit_work(Spec::Strip(strip), args, total, flops);
}
