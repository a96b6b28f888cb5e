//! Strips of rows: every invocation computes some rows of neighbouring positions for some output channels, straight from the window.
//! For depthwise convolutions and few input channels. It refuses dilation, and outputs narrower than a strip.
//!
//! A strip that would stick out at the right or at the bottom begins earlier: it writes what its neighbour writes.

use super::builder::Builder;
use super::columns::Columns;
use super::ir::{Buf, Expr, Kernel, f, i, load, load_row, select, splat};
use super::unary::{self, Unary};

/// The specialisation of a strip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Strip {
    /// Lanes of the vector along a row; 1: `across` positions are floats by themselves.
    pub width: u32,
    /// Vectors (or floats) side by side.
    pub across: u32,
    /// Output rows.
    pub rows: u32,
    /// Output channels.
    pub outs: u32,
    /// Height and width of the window.
    pub kernel: [u32; 2],
    /// Its stride on both axes, 1 or 2.
    pub stride: u32,
    /// Another tensor in the shape of the output is added before the function.
    pub residual: bool,
    /// The fused function.
    pub act: Unary,
}

impl Strip {
    /// Positions side by side.
    pub fn span(&self) -> u32 {
        self.columns().span()
    }

    fn columns(&self) -> Columns {
        Columns { width: self.width, across: self.across, kernel: self.kernel[1], stride: self.stride }
    }
}

struct Place {
    /// First element of the input's plane, and the plane's size.
    x: Expr,
    plane: Expr,
    /// First weight, bias and output element.
    w: Expr,
    bias: Expr,
    out: Expr,
    /// First input row and column, which may lie outside.
    top: Expr,
    left: Expr,
}

/// Builds the kernel.
pub fn build(t: Strip) -> Kernel {
    let mut b = Builder::new(t.width);
    let place = place(&mut b, &t);
    let zero = splat(f(0.0), t.width);
    let mut sums: Vec<Vec<Vec<Expr>>> = Vec::new();
    for _ in 0..t.outs {
        let row = |b: &mut Builder| (0..t.across).map(|_| b.var("sum", zero.clone())).collect();
        sums.push((0..t.rows).map(|_| row(&mut b)).collect());
    }
    let ins = b.param("ic");
    let (ih, iw) = (b.param("ih"), b.param("iw"));
    let masks = t.columns().masks(&mut b, &place.left, &iw);
    b.for_("c", ins, |b, c| {
        let plane = b.let_("x_plane", &place.x + &c * &place.plane);
        let taps = (t.kernel[0] * t.kernel[1] * t.outs) as i32;
        let w = b.let_("w_plane", &place.w + &c * taps);
        for row in 0..(t.rows - 1) * t.stride + t.kernel[0] {
            let y = b.let_("y", &place.top + row as i32);
            let inside = b.let_("inside", y.ge(0).and(y.lt(&ih)));
            b.if_(inside, |b| {
                let at = b.let_("at", &plane + &y * &iw + &place.left);
                let loaded = t.columns().loads(b, &at, Some(&masks), &f(0.0));
                for out_row in 0..t.rows {
                    let Some(tap) = row.checked_sub(out_row * t.stride).filter(|tap| *tap < t.kernel[0])
                    else {
                        continue;
                    };
                    multiply(b, &t, &w, tap, &loaded, &sums, out_row as usize);
                }
            });
        }
    });
    finish(&mut b, &t, &place, &sums);
    b.finish(&format!("strip {t:?}"))
}

fn place(b: &mut Builder, t: &Strip) -> Place {
    let at = b.invocation();
    let (tiles_x, tiles_y, tiles_n) = (b.param("tiles_x"), b.param("tiles_y"), b.param("tiles_n"));
    let (oh, ow, n, groups) = (b.param("oh"), b.param("ow"), b.param("n"), b.param("groups"));
    let tile_x = b.let_("tile_x", &at % &tiles_x);
    let rest = b.let_("rest", &at / &tiles_x);
    let tile_y = b.let_("tile_y", &rest % &tiles_y);
    let rest = b.let_("rest", &rest / &tiles_y);
    let tile_n = b.let_("tile_n", &rest % &tiles_n);
    let z = b.let_("z", &rest / &tiles_n);
    let group = b.let_("group", &z % &groups);
    let x0 = b.let_("x0", &tile_x * t.span() as i32);
    let x0 = b.let_("x0", x0.min_int(&ow - t.span() as i32));
    let y0 = b.let_("y0", &tile_y * t.rows as i32);
    let y0 = b.let_("y0", y0.min_int(&oh - t.rows as i32));
    let (ic, ih, iw) = (b.param("ic"), b.param("ih"), b.param("iw"));
    let plane = b.let_("plane", &ih * &iw);
    let x = b.param("x_at") + &z * &ic * &plane;
    let x = b.let_("x_base", x);
    let tile = b.let_("tile", &group * &tiles_n + &tile_n);
    let taps = (t.kernel[0] * t.kernel[1] * t.outs) as i32;
    let w = b.param("w_at") + &tile * &ic * taps;
    let w = b.let_("w_base", w);
    let bias = b.param("bias_at") + &tile * t.outs as i32;
    let bias = b.let_("bias_base", bias);
    // The channel of a lane that is left over is the last one again; its weights are packed so.
    let first = b.let_("first_n", &z * &n + &tile_n * t.outs as i32);
    let out = b.param("out_at") + (&first * &oh + &y0) * &ow + &x0;
    let out = b.let_("out_base", out);
    let (ph, pw) = (b.param("pad_h"), b.param("pad_w"));
    let top = b.let_("top", &y0 * t.stride as i32 - &ph);
    let left = b.let_("left", &x0 * t.stride as i32 - &pw);
    Place { x, plane, w, bias, out, top, left }
}

fn multiply(
    b: &mut Builder,
    t: &Strip,
    w: &Expr,
    tap: u32,
    loaded: &[Expr],
    sums: &[Vec<Vec<Expr>>],
    row: usize,
) {
    for s in 0..t.kernel[1] {
        for (o, sums) in sums.iter().enumerate() {
            let at = ((tap * t.kernel[1] + s) * t.outs) as i32 + o as i32;
            let weight = b.let_("w", load(Buf::Weights, w + at));
            for (v, sum) in sums[row].iter().enumerate() {
                let x = &loaded[t.columns().place(v as u32, s)];
                b.set(sum, sum + splat(weight.clone(), t.width) * x);
            }
        }
    }
}

fn finish(b: &mut Builder, t: &Strip, place: &Place, sums: &[Vec<Vec<Expr>>]) {
    let constants = unary::constants(b, t.act);
    let (oh, ow, n) = (b.param("oh"), b.param("ow"), b.param("n"));
    let tiles_n = b.param("tiles_n");
    let size = b.let_("size", &oh * &ow);
    let residual = t.residual.then(|| {
        let step = b.param("res_at") - b.param("out_at");
        b.let_("res_step", step)
    });
    for (o, sums) in sums.iter().enumerate() {
        let bias = b.let_("bias", load(Buf::Weights, &place.bias + o as i32));
        let channel = match o {
            0 => i(0),
            // Left-over channels of the last tile repeat the last one.
            _ => (i(o as i32)).min_int(&n - 1 - (&tiles_n - 1) * t.outs as i32).max_int(i(0)),
        };
        let last = match t.outs {
            1 => channel,
            _ => {
                let (tiles_x, tiles_y) = (b.param("tiles_x"), b.param("tiles_y"));
                let tile_n = b.invocation() / (&tiles_x * &tiles_y) % &tiles_n;
                select(tile_n.eq(&tiles_n - 1), channel, i(o as i32))
            }
        };
        let plane = b.let_("out_plane", &place.out + last * &size);
        for (row, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let at = b.let_("at", &plane + &ow * row as i32 + v as i32 * t.width as i32);
                let mut value = sum + splat(bias.clone(), t.width);
                if let Some(step) = &residual {
                    value = value + load_row(Buf::Arena, t.width, &at + step, 1);
                }
                let value = t.act.emit(b, &constants, value);
                let value = b.let_("value", value);
                b.store_row(at, value);
            }
        }
    }
}
