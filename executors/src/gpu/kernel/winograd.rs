//! Winograd's 3x3 convolution, stride 1: transforms of input tiles and of products; the products between them are the register tile's.
//! Matrices of Lavin and Gray (2016), F(2x2, 3x3) and F(4x4, 3x3). It refuses other windows.

use super::builder::Builder;
use super::ir::{Buf, Expr, Kernel, f, i, load, select};
use super::unary::{self, Unary};

/// Matrices for `size` outputs a tile and axis: inputs (B transposed), weights (G), outputs (A transposed).
pub struct Matrices {
    /// `[size + 2][size + 2]`.
    pub input: &'static [&'static [f32]],
    /// `[size + 2][3]`.
    pub weights: &'static [&'static [f32]],
    /// `[size][size + 2]`.
    pub output: &'static [&'static [f32]],
}

/// The matrices for 2 or 4 outputs.
pub fn matrices(size: u32) -> Matrices {
    match size {
        2 => Matrices {
            input: &[&[1., 0., -1., 0.], &[0., 1., 1., 0.], &[0., -1., 1., 0.], &[0., 1., 0., -1.]],
            weights: &[&[1., 0., 0.], &[0.5, 0.5, 0.5], &[0.5, -0.5, 0.5], &[0., 0., 1.]],
            output: &[&[1., 1., 1., 0.], &[0., 1., -1., -1.]],
        },
        4 => Matrices {
            input: &[
                &[4., 0., -5., 0., 1., 0.],
                &[0., -4., -4., 1., 1., 0.],
                &[0., 4., -4., -1., 1., 0.],
                &[0., -2., -1., 2., 1., 0.],
                &[0., 2., -1., -2., 1., 0.],
                &[0., 4., 0., -5., 0., 1.],
            ],
            weights: &[
                &[1. / 4., 0., 0.],
                &[-1. / 6., -1. / 6., -1. / 6.],
                &[-1. / 6., 1. / 6., -1. / 6.],
                &[1. / 24., 1. / 12., 1. / 6.],
                &[1. / 24., -1. / 12., 1. / 6.],
                &[0., 0., 1.],
            ],
            output: &[
                &[1., 1., 1., 1., 1., 0.],
                &[0., 1., -1., 2., -2., 0.],
                &[0., 1., 1., 4., 4., 0.],
                &[0., 1., -1., 8., -8., 1.],
            ],
        },
        other => panic!("no Winograd transform with {other} outputs"),
    }
}

/// `matrix * values * matrix^T`, names for every step.
pub(super) fn both(b: &mut Builder, matrix: &[&[f32]], values: &[Vec<Expr>]) -> Vec<Vec<Expr>> {
    let columns = values[0].len();
    let half: Vec<Vec<Expr>> = matrix
        .iter()
        .map(|row| {
            let column = |c: usize| values.iter().map(|v| v[c].clone()).collect::<Vec<_>>();
            (0..columns).map(|c| combine(b, row, &column(c))).collect()
        })
        .collect();
    half.iter().map(|values| matrix.iter().map(|row| combine(b, row, values)).collect()).collect()
}

/// The sum of `values` times `factors`.
pub(super) fn combine(b: &mut Builder, factors: &[f32], values: &[Expr]) -> Expr {
    let mut sum: Option<Expr> = None;
    for (&factor, value) in factors.iter().zip(values).filter(|(factor, _)| **factor != 0.0) {
        let term = if factor.abs() == 1.0 { value.clone() } else { value * f(factor.abs()) };
        sum = Some(match sum {
            Some(sum) if factor < 0.0 => sum - term,
            Some(sum) => sum + term,
            None if factor < 0.0 => -term,
            None => term,
        });
    }
    b.let_("t", sum.unwrap_or_else(|| f(0.0)))
}

/// The invocation's channel and tile: batch, row, column of its first output.
fn tile(b: &mut Builder, size: u32) -> [Expr; 5] {
    let at = b.invocation();
    let extents @ [tiles_x, ..] = &["tiles_x", "tiles_y", "channels"].map(|name| b.param(name));
    let x = b.let_("tile_x", &at % tiles_x);
    let rest = b.let_("rest", &at / tiles_x);
    place(b, size, extents, x, rest)
}

/// Where a tile is that has number `x` of its row; `rest` counts rows of tiles, then channels, then batches, of which there are the `extents`
/// (tiles of a row, rows, channels).
pub(super) fn place(
    b: &mut Builder,
    size: u32,
    [tiles_x, tiles_y, channels]: &[Expr; 3],
    x: Expr,
    rest: Expr,
) -> [Expr; 5] {
    let y = b.let_("tile_y", &rest % tiles_y);
    let rest = b.let_("rest", &rest / tiles_y);
    let channel = b.let_("channel", &rest % channels);
    let batch = b.let_("batch", &rest / channels);
    let tile = b.let_("tile", (&batch * tiles_y + &y) * tiles_x + &x);
    let y = b.let_("y0", y * size as i32);
    let x = b.let_("x0", x * size as i32);
    let plane = b.let_("plane", batch * channels + &channel);
    [channel, plane, tile, y, x]
}

/// `out[xi][channel][tile]`, by strides, from the padded input.
pub fn input(size: u32) -> Kernel {
    let mut b = Builder::new(1);
    let [channel, plane, tile, y, x] = tile(&mut b, size);
    let (ih, iw) = (b.param("ih"), b.param("iw"));
    let (ph, pw) = (b.param("pad_h"), b.param("pad_w"));
    let base = b.param("x_at") + plane * &ih * &iw;
    let base = b.let_("base", base);
    let (top, left) = (b.let_("top", y - &ph), b.let_("left", x - &pw));
    let side = size as i32 + 2;
    let columns: Vec<(Expr, Expr)> = (0..side)
        .map(|s| {
            let x = b.let_("x", &left + s);
            let inside = b.let_("column", x.ge(0).and(x.lt(&iw)));
            (x, inside)
        })
        .collect();
    let values: Vec<Vec<Expr>> = (0..side)
        .map(|r| {
            let y = b.let_("y", &top + r);
            let row = b.let_("row", y.ge(0).and(y.lt(&ih)));
            let first = b.let_("first", &base + &y * &iw);
            let value = |(x, column): &(Expr, Expr)| {
                let inside = row.and(column);
                let at = select(inside.clone(), &first + x, i(0));
                b.let_("d", select(inside, load(Buf::Arena, at), f(0.0)))
            };
            columns.iter().map(value).collect()
        })
        .collect();
    let out = both(&mut b, matrices(size).input, &values);
    let at = b.param("out_at") + channel * b.param("out_c") + tile * b.param("out_t");
    let at = b.let_("out", at);
    let step = b.param("out_xi");
    for (xi, value) in out.into_iter().flatten().enumerate() {
        b.store(&at + &step * xi as i32, value);
    }
    b.finish(&format!("winograd input {size}"))
}

/// The outputs of `x[xi][channel][tile]`, by strides, with bias, another tensor, and a function.
pub fn output(size: u32, residual: bool, act: Unary) -> Kernel {
    let mut b = Builder::new(1);
    let constants = unary::constants(&mut b, act);
    let [channel, plane, tile, y, x] = tile(&mut b, size);
    let at = b.param("x_at") + &channel * b.param("x_c") + tile * b.param("x_t");
    let at = b.let_("from", at);
    let step = b.param("x_xi");
    let side = size as i32 + 2;
    let values: Vec<Vec<Expr>> = (0..side)
        .map(|r| (0..side).map(|c| b.let_("m", load(Buf::Arena, &at + &step * (r * side + c)))).collect())
        .collect();
    let bias = b.param("bias_at") + &channel;
    let bias = b.let_("bias", load(Buf::Weights, bias));
    let out = both(&mut b, matrices(size).output, &values);
    let (oh, ow) = (b.param("oh"), b.param("ow"));
    let first = b.param("out_at") + (plane * &oh + &y) * &ow + &x;
    let first = b.let_("to", first);
    let step = residual.then(|| {
        let step = b.param("res_at") - b.param("out_at");
        b.let_("res_step", step)
    });
    for (r, row) in out.into_iter().enumerate() {
        for (c, value) in row.into_iter().enumerate() {
            let (r, c) = (r as i32, c as i32);
            b.if_((&y + r).lt(&oh).and((&x + c).lt(&ow)), |b| {
                let at = b.let_("at", &first + &ow * r + c);
                let mut value = value + &bias;
                if let Some(step) = &step {
                    value = value + load(Buf::Arena, &at + step);
                }
                let value = act.emit(b, &constants, value);
                b.store(at, value);
            });
        }
    }
    b.finish(&format!("winograd output {size} {residual} {act:?}"))
}
