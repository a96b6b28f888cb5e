//! Winograd's transforms by vectors, whose lanes are tiles side by side along a row, of which there must be as many. What [`super::winograd`]
//! does with one tile. It refuses tiles that are not neighbours in the transformed tensors.
//!
//! A row of the image is read and written as it lies, and turned into one vector for each column of the tiles, and back. Vectors that would
//! stick out begin earlier.

use super::builder::Builder;
use super::ir::{Buf, Expr, Kernel, f, i, lanes, load, load_row, select, splat};
use super::unary::{self, Unary};
use super::winograd::{both, combine, matrices, place};

/// The channel, batch times channels plus channel, number of the first tile, and row and column of its first output.
fn tiles(b: &mut Builder, size: u32, width: u32) -> [Expr; 5] {
    let at = b.invocation();
    let groups_x = b.param("groups_x");
    let extents @ [tiles_x, ..] = &["tiles_x", "tiles_y", "channels"].map(|name| b.param(name));
    let x = b.let_("tile_x", &at % &groups_x * width as i32);
    let x = b.let_("tile_x", x.min_int(tiles_x - width as i32));
    let rest = b.let_("rest", &at / &groups_x);
    place(b, size, extents, x, rest)
}

/// `out[xi][channel][tile]` from the padded input, for so many outputs a side.
pub fn input(size: u32, width: u32) -> Kernel {
    let mut b = Builder::new(width);
    let [channel, plane, tile, y, x] = tiles(&mut b, size, width);
    let (ih, iw) = (b.param("ih"), b.param("iw"));
    let (ph, pw) = (b.param("pad_h"), b.param("pad_w"));
    let base = b.param("x_at") + plane * &ih * &iw;
    let base = b.let_("base", base);
    let (top, left) = (b.let_("top", y - &ph), b.let_("left", x - &pw));
    let matrix = matrices(size).input;
    let side = size + 2;
    let zero = b.let_("zero", splat(f(0.0), width));
    // Vectors of a row: the tiles, and one more for the last two columns.
    let end = b.let_("end", splat(iw.to_float(), width));
    let steps = b.let_("steps", lanes((0..width).map(|l| f(l as f32)).collect()));
    let mut masks = Vec::new();
    for part in 0..=size {
        let first = (&left + (part * width) as i32).to_float();
        let x = b.let_("x", &steps + splat(first, width));
        masks.push(b.let_("columns", x.ge(zero.clone()).and(x.lt(&end))));
    }
    let mut values = Vec::new();
    for r in 0..side {
        let y = b.let_("y", &top + r as i32);
        let row = b.let_("row", y.ge(0).and(y.lt(&ih)));
        // Outside the image some row of it is read and thrown away.
        let at = b.let_("at", &base + select(row.clone(), y, i(0)) * &iw + &left);
        let parts = masks.iter().enumerate().map(|(part, mask)| {
            let vector = load_row(Buf::Arena, width, &at + (part as u32 * width) as i32, 1);
            b.let_("d", select(row.clone(), select(mask.clone(), vector, zero.clone()), zero.clone()))
        });
        values.push(parts.collect::<Vec<Expr>>());
    }
    let at = b.param("out_at") + channel * b.param("out_c") + tile;
    let at = b.let_("out", at);
    let step = b.param("out_xi");
    for (r, factors) in matrix.iter().enumerate() {
        let half: Vec<Expr> = (0..=size as usize)
            .map(|part| {
                combine(&mut b, factors, &values.iter().map(|row| row[part].clone()).collect::<Vec<_>>())
            })
            .collect();
        // Column `s` of the tiles.
        let column = |b: &mut Builder, s: u32| {
            let lane = |l: u32| half[((l * size + s) / width) as usize].lane((l * size + s) % width);
            b.let_("column", lanes((0..width).map(lane).collect()))
        };
        let columns: Vec<Expr> = (0..side).map(|s| column(&mut b, s)).collect();
        for (s, factors) in matrix.iter().enumerate() {
            let value = combine(&mut b, factors, &columns);
            b.store_row(&at + &step * (r * side as usize + s) as i32, value);
        }
    }
    b.finish(&format!("winograd input {size} by {width}"))
}

/// The outputs of `x[xi][channel][tile]`, with bias, another tensor, and a function.
pub fn output(size: u32, width: u32, residual: bool, act: Unary) -> Kernel {
    let mut b = Builder::new(width);
    let constants = unary::constants(&mut b, act);
    let [channel, plane, tile, y, x] = tiles(&mut b, size, width);
    let at = b.param("x_at") + &channel * b.param("x_c") + tile;
    let at = b.let_("from", at);
    let step = b.param("x_xi");
    let side = size as i32 + 2;
    let load_xi = |b: &mut Builder, xi: i32| b.let_("m", load_row(Buf::Arena, width, &at + &step * xi, 1));
    let values: Vec<Vec<Expr>> =
        (0..side).map(|r| (0..side).map(|c| load_xi(&mut b, r * side + c)).collect()).collect();
    let bias = b.param("bias_at") + &channel;
    let bias = b.let_("bias", splat(load(Buf::Weights, bias), width));
    let out = both(&mut b, matrices(size).output, &values);
    let (oh, ow) = (b.param("oh"), b.param("ow"));
    let first = b.param("out_at") + (plane * &oh + &y) * &ow + &x;
    let first = b.let_("to", first);
    let step = residual.then(|| {
        let step = b.param("res_at") - b.param("out_at");
        b.let_("res_step", step)
    });
    let end = b.let_("end", &x + (size * width) as i32);
    for (r, columns) in out.into_iter().enumerate() {
        b.if_((&y + r as i32).lt(&oh), |b| {
            for part in 0..size {
                let lane =
                    |l: u32| columns[((part * width + l) % size) as usize].lane((part * width + l) / size);
                let row = b.let_("row", lanes((0..width).map(lane).collect()));
                let at = b.let_("at", &first + &ow * r as i32 + (part * width) as i32);
                let mut value = row + &bias;
                if let Some(step) = &step {
                    value = value + load_row(Buf::Arena, width, &at + step, 1);
                }
                let value = act.emit(b, &constants, value);
                let value = b.let_("value", value);
                match part + 1 < size {
                    true => b.store_row(at, value),
                    false => store_last(b, size, &at, &value, [&ow, &end]),
                }
            }
        });
    }
    b.finish(&format!("winograd output {size} by {width} {residual} {act:?}"))
}

/// Stores the last vector of a row that ends at column `ow`; the tiles end at column `end`, less than a tile behind it.
fn store_last(b: &mut Builder, size: u32, at: &Expr, value: &Expr, [ow, end]: [&Expr; 2]) {
    b.if_(end.le(ow), |b| b.store_row(at.clone(), value.clone()));
    b.if_(end.gt(ow), |b| {
        let width = value.width();
        for l in 0..width {
            let store = |b: &mut Builder| b.store(at + l as i32, value.lane(l));
            match l + size > width {
                true => b.if_((end - (width - l) as i32).lt(ow), store),
                false => store(b),
            }
        }
    });
}
