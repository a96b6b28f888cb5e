//! The register tile: `lanes` output channels times `pixels` output positions an invocation, for every convolution and
//! matrix product. It refuses shared memory and transforms: those are other kernels.
//!
//! `out[z][n][m] = act(alpha * sum_k w[z][k][n] * x[z][k][m] + bias[n])`. Lanes run along `n`, pixels along `m`.
//! What `n` and `m` are is the lowering's choice: channels and positions, or the other way round where a row of positions is a vector.
//! Packed weights repeat the last channel in the lanes that are left over (the last tile of whole rows begins earlier), and left-over
//! pixels repeat the last pixel: all write the same value to the same place again, so that no store needs a guard.

use super::builder::Builder;
use super::ir::{
    Buf, Expr, Kernel, f, from_neighbour, i, lanes, load, load_row, load_vec, neighbour, select, splat,
};
use super::unary::{self, Unary};

/// How `k` and `m` walk through the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Walk {
    /// By two strides: matrix products and 1x1 convolutions without padding.
    Linear,
    /// A window with stride, dilation and padding.
    Window,
    /// The same for a transposed convolution.
    Transposed,
}

/// Where the weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Weights {
    /// Packed at load: all lanes of one `k` side by side.
    Packed,
    /// Computed at run time or in no special order: read through strides.
    Strided(Buf),
    /// The lanes of one `k` are neighbours: read as whole vectors.
    Rows(Buf),
}

/// The specialisation of the tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Lanes of one vector.
    pub width: u32,
    /// Vectors an invocation.
    pub chunks: u32,
    /// Output positions an invocation.
    pub pixels: u32,
    /// How the input is walked.
    pub walk: Walk,
    /// Where the weights are.
    pub weights: Weights,
    /// Where the input is.
    pub x: Buf,
    /// The input is packed: all pixels of one `k` side by side.
    pub x_packed: bool,
    /// The bias belongs to the pixels and not to the lanes.
    pub bias_m: bool,
    /// Lanes are neighbours in the output: it is stored as whole vectors.
    pub rows: bool,
    /// Another tensor in the shape of the output is added before the function.
    pub residual: bool,
    /// So many invocations of a subgroup load packed weights for each other; 0: each for itself.
    pub share: u32,
    /// One input channel a group (depthwise): no loop over channels.
    pub single: bool,
    /// Neighbouring invocations have neighbouring positions, and each one's positions are far apart: so a GPU reads and writes whole lines.
    pub spread: bool,
    /// The fused function.
    pub act: Unary,
}

impl Tile {
    /// Output channels an invocation.
    pub fn lanes(&self) -> u32 {
        self.width * self.chunks
    }
}

/// Where an invocation works, in elements (weights and bias in vectors).
struct Place {
    x: Expr,
    w: Expr,
    bias: Expr,
    out: Expr,
    first_n: Expr,
    m: Vec<Expr>,
}

/// Builds the kernel.
pub fn build(t: Tile) -> Kernel {
    let mut b = Builder::new(t.width);
    if t.share > 0 {
        b.together();
    }
    let place = place(&mut b, &t);
    let zero = splat(f(0.0), t.width);
    let sums: Vec<Vec<Expr>> = place
        .m
        .iter()
        .map(|_| (0..t.chunks).map(|_| b.var("sum", zero.clone())).collect::<Vec<_>>())
        .collect();
    match t.walk {
        Walk::Linear => linear(&mut b, &t, &place, &sums),
        _ => window(&mut b, &t, &place, &sums),
    }
    finish(&mut b, &t, &place, &sums);
    b.finish(&format!("tile {t:?}"))
}

fn place(b: &mut Builder, t: &Tile) -> Place {
    let m = b.param("m");
    let (tiles_m, tiles_n) = (b.param("tiles_m"), b.param("tiles_n"));
    let at = b.invocation();
    let tile_m = b.let_("tile_m", &at % &tiles_m);
    let rest = b.let_("rest", &at / &tiles_m);
    let tile_n = b.let_("tile_n", &rest % &tiles_n);
    let z = b.let_("z", &rest / &tiles_n);
    // Up to three batch axes (batch and group for a convolution), each with its own strides.
    let (d1, d2) = (b.param("d1"), b.param("d2"));
    let z2 = b.let_("z2", &z % &d2);
    let z1 = b.let_("z1", &z / &d2 % &d1);
    let z0 = b.let_("z0", &z / &(&d2 * &d1));
    let offset = |b: &mut Builder, name: &str| {
        let base = b.param(&format!("{name}_at"));
        let s = [0, 1, 2].map(|axis| b.param(&format!("{name}_z{axis}")));
        base + &z0 * &s[0] + &z1 * &s[1] + &z2 * &s[2]
    };
    let x = offset(b, "x");
    let w = offset(b, "w");
    let bias = offset(b, "bias");
    let bias = if t.bias_m { bias } else { bias + &tile_n * t.chunks as i32 };
    let out = offset(b, "out");
    let x = b.let_("x_base", x);
    let w = b.let_("w_base", w);
    let bias = b.let_("bias_base", bias);
    let out = b.let_("out_base", out);
    let mut first_n = &tile_n * t.lanes() as i32;
    if t.rows || matches!(t.weights, Weights::Rows(_)) {
        let n = b.param("n");
        first_n = b.let_("tile_first", first_n).min_int(&n - t.lanes() as i32);
    }
    let first_n = b.let_("first_n", first_n);
    let k = b.param("k");
    let w = match t.weights {
        Weights::Packed => {
            let unit = if t.share > 0 { t.lanes() } else { t.chunks };
            let own = if t.share > 0 { neighbour() } else { i(0) };
            b.let_("w_tile", w + &tile_n * &k * unit as i32 + own)
        }
        Weights::Strided(_) => w,
        Weights::Rows(_) => b.let_("w_tile", w + &first_n),
    };
    let x = if t.x_packed { b.let_("x_tile", x + &tile_m * &k * t.pixels as i32) } else { x };
    let m = (0..t.pixels)
        .map(|p| {
            let pixel = match t.spread {
                true => &tile_m + &tiles_m * p as i32,
                false => &tile_m * t.pixels as i32 + p as i32,
            };
            b.let_("m", pixel.min_int(&m - 1))
        })
        .collect();
    Place { x, w, bias, out, first_n, m }
}

/// The weights of index `k`, one vector a chunk.
fn weights(b: &mut Builder, t: &Tile, place: &Place, columns: &[Expr], k: &Expr) -> Vec<Expr> {
    if t.share > 0 {
        return shared(b, t, place, k);
    }
    let row = match t.weights {
        Weights::Packed => None,
        _ => {
            let row = k * b.param("w_k");
            Some(b.let_("row", row))
        }
    };
    (0..t.chunks)
        .map(|c| {
            let w = match (t.weights, &row) {
                (Weights::Strided(buf), Some(row)) => {
                    let first = (c * t.width) as usize;
                    lanes(
                        columns[first..first + t.width as usize].iter().map(|n| load(buf, n + row)).collect(),
                    )
                }
                (Weights::Rows(buf), Some(row)) => {
                    load_row(buf, t.width, &place.w + row + (c * t.width) as i32, 1)
                }
                _ => load_vec(t.width, &place.w + k * t.chunks as i32 + c as i32),
            };
            b.let_("w", w)
        })
        .collect()
}

/// As [`weights`]: each invocation of a subgroup loads one float in so many, and all tell each other.
fn shared(b: &mut Builder, t: &Tile, place: &Place, k: &Expr) -> Vec<Expr> {
    let at = b.let_("w_at", &place.w + k * t.lanes() as i32);
    let parts: Vec<Expr> = (0..t.lanes() / t.share)
        .map(|q| b.let_("part", load(Buf::Weights, &at + (q * t.share) as i32)))
        .collect();
    let lane = |l: u32| from_neighbour(&parts[(l / t.share) as usize], l % t.share);
    (0..t.chunks)
        .map(|c| {
            let all = (c * t.width..(c + 1) * t.width).map(lane).collect();
            b.let_("w", lanes(all))
        })
        .collect()
}

fn add(b: &mut Builder, sums: &[Expr], w: &[Expr], x: &Expr, width: u32) {
    let x = splat(x.clone(), width);
    for (sum, w) in sums.iter().zip(w) {
        b.set(sum, sum + w * &x);
    }
}

fn linear(b: &mut Builder, t: &Tile, place: &Place, sums: &[Vec<Expr>]) {
    let (x_m, x_k, k_end) = (b.param("x_m"), b.param("x_k"), b.param("k"));
    let rows: Vec<Expr> = match t.x_packed {
        true => (0..t.pixels).map(|p| &place.x + p as i32).collect(),
        false => place.m.iter().map(|m| b.let_("x_row", &place.x + m * &x_m)).collect(),
    };
    let columns: Vec<Expr> = match t.weights {
        Weights::Packed | Weights::Rows(_) => Vec::new(),
        Weights::Strided(_) => {
            let (w_n, n) = (b.param("w_n"), b.param("n"));
            let column = |l: u32| (&place.first_n + l as i32).min_int(&n - 1) * &w_n + &place.w;
            (0..t.lanes()).map(|l| b.let_("column", column(l))).collect()
        }
    };
    b.for_("k", k_end, |b, k| {
        let w = weights(b, t, place, &columns, &k);
        let step = b.let_("x_step", &k * &x_k);
        for (row, sums) in rows.iter().zip(sums) {
            let x = b.let_("x", load(t.x, row + &step));
            add(b, sums, &w, &x, t.width);
        }
    });
}

fn window(b: &mut Builder, t: &Tile, place: &Place, sums: &[Vec<Expr>]) {
    let names = [
        "kh",
        "kw",
        "ic",
        "ih",
        "iw",
        "ow",
        "stride_h",
        "stride_w",
        "dilation_h",
        "dilation_w",
        "pad_h",
        "pad_w",
    ];
    let [kh_end, kw_end, channels, ih, iw, ow, sh, sw, dh, dw, ph, pw] = names.map(|n| b.param(n));
    let plane = b.let_("plane", &ih * &iw);
    let starts: Vec<(Expr, Expr)> = place
        .m
        .iter()
        .map(|m| match t.walk {
            Walk::Transposed => (b.let_("y0", m / &ow + &ph), b.let_("x0", m % &ow + &pw)),
            _ => (b.let_("y0", m / &ow * &sh - &ph), b.let_("x0", m % &ow * &sw - &pw)),
        })
        .collect();
    b.for_("r", kh_end, |b, r| {
        b.for_("s", kw_end.clone(), |b, s| {
            let mut taps = Vec::new();
            for (y0, x0) in &starts {
                let (y, x, inside) = match t.walk {
                    Walk::Transposed => {
                        let y = b.let_("y_up", y0 - &r * &dh);
                        let x = b.let_("x_up", x0 - &s * &dw);
                        let whole = y.ge(0).and(x.ge(0)).and((&y % &sh).eq(0)).and((&x % &sw).eq(0));
                        (y / &sh, x / &sw, whole)
                    }
                    _ => {
                        let y = y0 + &r * &dh;
                        let x = x0 + &s * &dw;
                        (y.clone(), x.clone(), y.ge(0).and(x.ge(0)))
                    }
                };
                let (y, x) = (b.let_("y", y), b.let_("x", x));
                let inside = b.let_("inside", inside.and(y.lt(&ih)).and(x.lt(&iw)));
                // Outside the input some valid element is read and thrown away.
                let at = b.let_("at", &place.x + select(inside.clone(), &y * &iw + &x, i(0)));
                taps.push((at, inside));
            }
            let tap = b.let_("tap", (&r * &kw_end + &s) * &channels);
            let body = |b: &mut Builder, c: Expr| {
                let w = weights(b, t, place, &[], &(&tap + &c));
                let step = b.let_("x_step", &c * &plane);
                for ((at, inside), sums) in taps.iter().zip(sums) {
                    let x = b.let_("x", select(inside.clone(), load(t.x, at + &step), f(0.0)));
                    add(b, sums, &w, &x, t.width);
                }
            };
            if t.single { body(b, i(0)) } else { b.for_("c", channels.clone(), body) }
        });
    });
}

fn finish(b: &mut Builder, t: &Tile, place: &Place, sums: &[Vec<Expr>]) {
    let (out_m, out_n, n) = (b.param("out_m"), b.param("out_n"), b.param("n"));
    let constants = unary::constants(b, t.act);
    let alpha = (!matches!(t.weights, Weights::Packed) && !t.x_packed).then(|| b.param_float("alpha"));
    let residual = t.residual.then(|| {
        let step = b.param("res_at") - b.param("out_at");
        b.let_("res_step", step)
    });
    for c in 0..t.chunks {
        let first = c * t.width;
        let bias = (!t.bias_m).then(|| b.let_("bias", load_vec(t.width, &place.bias + c as i32)));
        let rows: Vec<Expr> = match t.rows {
            true => vec![b.let_("out_row", &place.out + &place.first_n + first as i32)],
            false => (first..first + t.width)
                .map(|l| {
                    let row = (&place.first_n + l as i32).min_int(&n - 1) * &out_n + &place.out;
                    b.let_("out_row", row)
                })
                .collect(),
        };
        for (m, sums) in place.m.iter().zip(sums) {
            let column = b.let_("out_m", m * &out_m);
            let at: Vec<Expr> = rows.iter().map(|row| b.let_("at", row + &column)).collect();
            let bias = match &bias {
                Some(bias) => bias.clone(),
                None => splat(load(Buf::Weights, &place.bias + m), t.width),
            };
            let sum = &sums[c as usize];
            let mut value = match &alpha {
                Some(alpha) => sum * splat(alpha.clone(), t.width) + &bias,
                None => sum + &bias,
            };
            if let Some(step) = &residual {
                let other = match t.rows {
                    true => load_row(Buf::Arena, t.width, &at[0] + step, 1),
                    false => lanes(at.iter().map(|at| load(Buf::Arena, at + step)).collect()),
                };
                value = value + other;
            }
            let value = t.act.emit(b, &constants, value);
            let value = b.let_("value", value);
            if t.rows {
                b.store_row(at[0].clone(), value);
                continue;
            }
            for (l, at) in at.iter().enumerate() {
                b.store(at.clone(), value.lane(l as u32));
            }
        }
    }
}
