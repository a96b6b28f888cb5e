//! The parameters of a register tile that multiplies matrices, whatever they stand for. It refuses to choose the tile.

use super::super::kernel::Spec;
use super::super::kernel::tile::{Tile, Walk, Weights};
use super::super::kernel::unary::Unary;
use super::choice::TileShape;
use super::{Args, Lower, Operand};

/// The factor whose elements fill the lanes.
pub(super) enum Wide {
    /// A blob that [`pack`] made, with `z` strides in floats.
    Packed(usize, [i64; 3]),
    /// Somewhere, by strides of `k` and of the lanes; `z` strides in floats.
    Loose { at: Operand, k: usize, lane: usize, z: [i64; 3] },
}

/// The factor of which one float at a time meets a vector.
#[derive(Clone, Copy)]
pub(super) enum Narrow {
    /// A blob that [`pack`] made (with `pixels` for lanes).
    Packed(usize, [i64; 3]),
    /// Somewhere, by strides.
    Loose { at: Operand, row: usize, k: usize, z: [i64; 3] },
}

/// `out[z][row][column] = act(alpha * sum_k narrow[z][row][k] * wide[z][k][column] + bias + residual)`.
pub(super) struct Product {
    pub shape: TileShape,
    pub rows: usize,
    pub columns: usize,
    pub k: usize,
    pub batch: [usize; 3],
    pub wide: Wide,
    pub narrow: Narrow,
    /// A blob: by row (one float each), or by column (packed as the lanes are).
    pub bias: usize,
    pub bias_by_row: bool,
    pub bias_z: [i64; 3],
    pub out: Operand,
    /// Where its first column and row are in the output, in floats: not at 0 where it is a slice.
    pub first: i64,
    pub out_row: usize,
    pub out_column: usize,
    /// Columns are neighbours in the output, and packed as such: where there are enough, whole vectors are stored.
    pub whole: bool,
    pub out_z: [i64; 3],
    pub alpha: f32,
    pub residual: Option<Operand>,
    pub act: (Unary, [f32; 2]),
}

/// Where lane `lane` of tile `tile` is: whole tiles begin earlier at the end, others repeat the last column.
pub(super) fn column(tile: usize, lane: usize, lanes: usize, columns: usize, whole: bool) -> usize {
    match whole {
        true => (tile * lanes).min(columns - lanes) + lane,
        false => (tile * lanes + lane).min(columns - 1),
    }
}

/// `[tile][k][lane]` of `at(k, column)`.
pub(super) fn pack(
    columns: usize,
    k: usize,
    lanes: usize,
    whole: bool,
    at: impl Fn(usize, usize) -> f32,
) -> Vec<f32> {
    let tiles = columns.div_ceil(lanes);
    let mut packed = Vec::with_capacity(tiles * lanes * k);
    for tile in 0..tiles {
        for row in 0..k {
            packed.extend((0..lanes).map(|lane| at(row, column(tile, lane, lanes, columns, whole))));
        }
    }
    packed
}

impl Lower<'_> {
    pub(super) fn product(&mut self, p: Product) {
        let TileShape { width, chunks, pixels, share, .. } = p.shape;
        let lanes = (width * chunks) as usize;
        let rows = p.whole && p.columns >= lanes;
        let weights = match &p.wide {
            Wide::Packed(..) => Weights::Packed,
            Wide::Loose { at, lane: 1, .. } if rows => Weights::Rows(at.buf()),
            Wide::Loose { at, .. } => Weights::Strided(at.buf()),
        };
        // A subgroup shares packed weights only, and counts them in floats.
        let share = if weights == Weights::Packed { share } else { 0 };
        let unit = if share > 0 || weights != Weights::Packed { 1 } else { width };
        let scaled = |z: [i64; 3], unit: u32| z.map(|z| z / i64::from(unit));
        let (w, w_z, w_k, w_n) = match p.wide {
            Wide::Packed(blob, z) => (Operand::Blob(blob), scaled(z, unit), 0, 0),
            Wide::Loose { at, k, lane, z } => (at, z, k, lane),
        };
        let (x, x_z, x_m, x_k, x_packed) = match p.narrow {
            Narrow::Packed(blob, z) => (Operand::Blob(blob), z, 0, pixels as usize, true),
            Narrow::Loose { at, row, k, z } => (at, z, row, k, false),
        };
        let tile = Tile {
            width,
            chunks,
            pixels,
            walk: Walk::Linear,
            weights,
            x: x.buf(),
            x_packed,
            bias_m: p.bias_by_row,
            rows,
            residual: p.residual.is_some(),
            share,
            single: false,
            spread: !x_packed && !self.target.rows,
            act: p.act.0,
        };
        let (tiles_m, tiles_n) = (p.rows.div_ceil(pixels as usize), p.columns.div_ceil(lanes));
        let tiles_m = if share > 0 { tiles_m.next_multiple_of(share as usize) } else { tiles_m };
        let [d0, d1, d2] = p.batch;
        let bias_unit = if p.bias_by_row { 1 } else { width };
        let mut args = Args::new()
            .int("m", p.rows)
            .int("n", p.columns)
            .int("k", p.k)
            .int("tiles_m", tiles_m)
            .int("tiles_n", tiles_n)
            .int("d1", d1)
            .int("d2", d2)
            .at("x_at", x)
            .list("x_z", &x_z)
            .vectors("w_at", w, unit)
            .list("w_z", &w_z)
            .vectors("bias_at", Operand::Blob(p.bias), bias_unit)
            .list("bias_z", &scaled(p.bias_z, bias_unit))
            .at_plus("out_at", p.out, p.first)
            .list("out_z", &p.out_z)
            .int("x_m", x_m)
            .int("x_k", x_k)
            .int("w_k", w_k)
            .int("w_n", w_n)
            .int("out_m", p.out_row)
            .int("out_n", p.out_column)
            .float("alpha", p.alpha)
            .act(p.act.1);
        if let Some(residual) = p.residual {
            args = args.at_plus("res_at", residual, p.first);
        }
        let flops = 2 * p.rows * p.columns * p.k * d0 * d1 * d2;
        self.emit_work(Spec::Tile(tile), args, tiles_m * tiles_n * d0 * d1 * d2, flops);
    }

    /// A bias of zeros, or `at(column)`, packed for the lanes of `shape`; by row when `rows` are given.
    pub(super) fn lane_bias(
        &mut self,
        columns: usize,
        shape: &TileShape,
        whole: bool,
        row: Option<Vec<f32>>,
    ) -> usize {
        let lanes = (shape.width * shape.chunks) as usize;
        let floats = columns.div_ceil(lanes) * lanes;
        self.blob(floats, move || match &row {
            Some(row) => pack(columns, 1, lanes, whole, |_, column| row[column]),
            None => vec![0.0; floats],
        })
    }
}
