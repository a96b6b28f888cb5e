//! Lowers a 3x3 convolution of stride 1 to Winograd's three steps. It refuses to say when that pays: measurements do.

use super::super::kernel::Spec;
use super::super::kernel::unary::Unary;
use super::super::kernel::winograd::matrices;
use super::choice::{Along, TileShape};
use super::conv::Places;
use super::layer::Layer;
use super::packing::Packing;
use super::product::{Narrow, Product, Wide, pack};
use super::{Args, Lower, Operand, Target};
use std::sync::Arc;

/// `[xi][tile][in][lane]` of the transformed weights.
fn transformed(packing: &Packing, size: u32, ins: usize, outs: usize, lanes: usize, whole: bool) -> Vec<f32> {
    let g = matrices(size).weights;
    let side = g.len();
    let mut all = vec![0f32; side * side * outs * ins];
    for o in 0..outs {
        for c in 0..ins {
            let tap: [f64; 9] = std::array::from_fn(|t| f64::from(packing.at(0, o, c, t)));
            for (r, row) in g.iter().enumerate() {
                let half: [f64; 3] =
                    std::array::from_fn(|x| (0..3).map(|y| f64::from(row[y]) * tap[3 * y + x]).sum());
                for (s, column) in g.iter().enumerate() {
                    let value: f64 = (0..3).map(|x| half[x] * f64::from(column[x])).sum();
                    all[((r * side + s) * outs + o) * ins + c] = value as f32;
                }
            }
        }
    }
    let each = |xi: usize| {
        let part = &all[xi * outs * ins..(xi + 1) * outs * ins];
        pack(outs, ins, lanes, whole, move |c, o| part[o * ins + c])
    };
    (0..side * side).flat_map(each).collect()
}

pub(super) fn emit(
    lower: &mut Lower<'_>,
    layer: &Layer,
    packing: Arc<Packing>,
    places: Places,
    size: u32,
    shape: TileShape,
) {
    let (ins, outs, w) = (layer.ins(), layer.outs(), layer.window);
    let [tiles_y, tiles_x] = w.output.map(|o| o.div_ceil(size as usize));
    let tiles = layer.batch * tiles_y * tiles_x;
    let all = ((size + 2) * (size + 2)) as usize;
    let by_position = shape.along == Along::Positions;
    let lanes = if by_position { shape.pixels } else { shape.width * shape.chunks } as usize;
    let whole = !by_position && outs >= lanes;
    let per_xi = outs.div_ceil(lanes) * lanes * ins;
    let (for_weights, for_bias) = (packing.clone(), packing);
    let weights = lower.blob(all * per_xi, move || transformed(&for_weights, size, ins, outs, lanes, whole));
    let (from, products) = (lower.scratch(all * ins * tiles), lower.scratch(all * outs * tiles));
    let (from, products) = (Operand::Slot(from), Operand::Slot(products));
    // The side that fills the lanes is contiguous.
    let stride = |channels: usize| if by_position { (tiles, 1) } else { (1, channels) };
    let vector = if by_position { neighbours(lower.target, tiles_x) } else { 1 };
    let groups_x = tiles_x.div_ceil(vector as usize);
    let groups = layer.batch * tiles_y * groups_x;
    let args = |channels: usize| {
        let args = Args::new().int("tiles_x", tiles_x).int("tiles_y", tiles_y).int("channels", channels);
        args.int("groups_x", groups_x).window(&w)
    };
    let (in_c, in_t) = stride(ins);
    let step = args(ins)
        .at("x_at", places.x)
        .at("out_at", from)
        .int("out_c", in_c)
        .int("out_t", in_t)
        .int("out_xi", ins * tiles);
    lower.emit(Spec::WinogradInput(size, vector), step, ins * groups);
    multiply(lower, shape, [ins, outs, tiles, all], (weights, per_xi), [from, products]);
    let bias = lower.blob(outs, move || (0..outs).map(|o| for_bias.bias(0, o)).collect());
    let (out_c, out_t) = stride(outs);
    let mut step = args(outs)
        .at("x_at", products)
        .int("x_c", out_c)
        .int("x_t", out_t)
        .int("x_xi", outs * tiles)
        .at("bias_at", Operand::Blob(bias))
        .at_plus("out_at", places.out, places.first)
        .act(places.act.1);
    if let Some(residual) = places.residual {
        step = step.at_plus("res_at", residual, places.first);
    }
    let spec = Spec::WinogradOutput(size, vector, places.residual.is_some(), places.act.0);
    lower.emit(spec, step, outs * groups);
}

/// Lanes of the vectors of neighbouring tiles that the transforms work on, of so many in a row.
fn neighbours(target: &Target, tiles_x: usize) -> u32 {
    let fits = |v: &u32| target.rows && *v <= target.width && *v as usize <= tiles_x;
    [16, 8, 4].into_iter().find(fits).unwrap_or(1)
}

/// The products between the transforms: one matrix product for each of `all` elements of a tile. `weights`: a blob, and floats of one element.
fn multiply(
    lower: &mut Lower<'_>,
    shape: TileShape,
    [ins, outs, tiles, all]: [usize; 4],
    (weights, per_xi): (usize, usize),
    [from, products]: [Operand; 2],
) {
    let by_position = shape.along == Along::Positions;
    let (x_z, w_z) = ([0, 0, (ins * tiles) as i64], [0, 0, per_xi as i64]);
    let (wide, narrow) = match by_position {
        true => (Wide::Loose { at: from, k: tiles, lane: 1, z: x_z }, Narrow::Packed(weights, w_z)),
        false => (Wide::Packed(weights, w_z), Narrow::Loose { at: from, row: ins, k: 1, z: x_z }),
    };
    let (rows, columns) = if by_position { (outs, tiles) } else { (tiles, outs) };
    let bias = match by_position {
        true => lower.blob(outs, move || vec![0.0; outs]),
        false => lower.lane_bias(outs, &shape, outs >= (shape.width * shape.chunks) as usize, None),
    };
    lower.product(Product {
        shape,
        rows,
        columns,
        k: ins,
        batch: [1, 1, all],
        wide,
        narrow,
        bias,
        bias_by_row: by_position,
        bias_z: [0; 3],
        out: products,
        first: 0,
        out_row: columns,
        out_column: 1,
        whole: true,
        out_z: [0, 0, (outs * tiles) as i64],
        alpha: 1.0,
        residual: None,
        act: (Unary::Clip, [f32::NEG_INFINITY, f32::INFINITY]),
    });
}
