//! Strips of rows: every invocation computes some rows of neighbouring positions for some output channels, straight from the window.
//! For depthwise convolutions and few input channels. It refuses dilation.
//!
//! A strip that would stick out at the right or at the bottom begins earlier: it writes what its neighbour writes. Where a plane is narrower than
//! a vector one invocation computes all of it: each row writes beyond its end, and the next one puts that right.

use super::builder::Builder;
use super::columns::Columns;
use super::ir::{Buf, Expr, Kernel, f, i, lanes, load, load_row, select, splat};
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
    /// One input channel and one output channel a group (depthwise): no loop over channels, and a row is stored as soon as it is complete.
    pub single: bool,
    /// The output has fewer columns than the one vector, more than half as many, and as many rows as the strip.
    pub narrow: bool,
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
    let in_rows = (t.rows - 1) * t.stride + t.kernel[0];
    let input_row = |b: &mut Builder, row: u32, plane: &Expr, weights: &dyn Fn(u32) -> Expr| {
        let y = b.let_("y", &place.top + row as i32);
        let inside = b.let_("inside", y.ge(0).and(y.lt(&ih)));
        b.if_(inside, |b| {
            let at = b.let_("at", plane + &y * &iw + &place.left);
            let loaded = t.columns().loads(b, &at, Some(&masks), &f(0.0));
            for out_row in 0..t.rows {
                let Some(tap) = row.checked_sub(out_row * t.stride).filter(|tap| *tap < t.kernel[0]) else {
                    continue;
                };
                multiply(b, &t, weights, tap, &loaded, &sums, out_row as usize);
            }
        });
    };
    if t.single {
        assert_eq!(t.outs, 1, "a depthwise strip has one channel");
        let all: Vec<Expr> = (0..t.kernel[0] * t.kernel[1])
            .map(|tap| b.let_("w", load(Buf::Weights, &place.w + tap as i32)))
            .collect();
        let ending = ending(&mut b, &t, &place);
        for row in 0..in_rows {
            input_row(&mut b, row, &place.x, &|at| all[at as usize].clone());
            // The last input row that this output row needs.
            if row + 1 >= t.kernel[0] && (row + 1 - t.kernel[0]).is_multiple_of(t.stride) {
                finish(&mut b, &t, &ending, &sums, ((row + 1 - t.kernel[0]) / t.stride) as usize);
            }
        }
        return b.finish(&format!("strip {t:?}"));
    }
    b.for_("c", ins, |b, c| {
        let plane = b.let_("x_plane", &place.x + &c * &place.plane);
        let taps = (t.kernel[0] * t.kernel[1] * t.outs) as i32;
        let w = b.let_("w_plane", &place.w + &c * taps);
        for row in 0..in_rows {
            input_row(b, row, &plane, &|at| load(Buf::Weights, &w + at as i32));
        }
    });
    let ending = ending(&mut b, &t, &place);
    for row in 0..t.rows {
        finish(&mut b, &t, &ending, &sums, row as usize);
    }
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
    let x0 = if t.narrow { x0 } else { b.let_("x0", x0.min_int(&ow - t.span() as i32)) };
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
    weights: &dyn Fn(u32) -> Expr,
    tap: u32,
    loaded: &[Expr],
    sums: &[Vec<Vec<Expr>>],
    row: usize,
) {
    for s in 0..t.kernel[1] {
        for (o, sums) in sums.iter().enumerate() {
            let weight = weights((tap * t.kernel[1] + s) * t.outs + o as u32);
            let weight = if t.single { weight } else { b.let_("w", weight) };
            for (v, sum) in sums[row].iter().enumerate() {
                let x = &loaded[t.columns().place(v as u32, s)];
                b.set(sum, sum + splat(weight.clone(), t.width) * x);
            }
        }
    }
}

/// What rows need when they are stored.
struct Ending {
    constants: Vec<Expr>,
    ow: Expr,
    /// From an element of the output to that of the tensor that is added.
    residual: Option<Expr>,
    /// Bias and first output element of each channel.
    channels: Vec<(Expr, Expr)>,
}

fn ending(b: &mut Builder, t: &Strip, place: &Place) -> Ending {
    let constants = unary::constants(b, t.act);
    let (oh, ow, n) = (b.param("oh"), b.param("ow"), b.param("n"));
    let tiles_n = b.param("tiles_n");
    let size = b.let_("size", &oh * &ow);
    let residual = t.residual.then(|| {
        let step = b.param("res_at") - b.param("out_at");
        b.let_("res_step", step)
    });
    let mut channels = Vec::new();
    for o in 0..t.outs {
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
        channels.push((bias, plane));
    }
    Ending { constants, ow, residual, channels }
}

/// Stores output row `row` of all channels.
fn finish(b: &mut Builder, t: &Strip, ending: &Ending, sums: &[Vec<Vec<Expr>>], row: usize) {
    let Ending { constants, ow, residual, channels } = ending;
    for ((bias, plane), sums) in channels.iter().zip(sums) {
        for (v, sum) in sums[row].iter().enumerate() {
            let at = b.let_("at", plane + ow * row as i32 + v as i32 * t.width as i32);
            let mut value = sum + splat(bias.clone(), t.width);
            if let Some(step) = residual {
                value = value + load_row(Buf::Arena, t.width, &at + step, 1);
            }
            let value = t.act.emit(b, constants, value);
            let value = b.let_("value", value);
            match t.narrow && row + 1 == t.rows as usize {
                true => store_some(b, t, &at, ow, &value),
                false => b.store_row(at, value),
            }
        }
    }
}

/// Stores the first `ow` lanes only: behind the last row another plane begins.
fn store_some(b: &mut Builder, t: &Strip, at: &Expr, ow: &Expr, value: &Expr) {
    let half = t.width / 2;
    let first = b.let_("value", lanes((0..half).map(|l| value.lane(l)).collect()));
    b.store_row(at.clone(), first);
    for l in half..t.width {
        b.if_(ow.gt(l as i32), |b| b.store(at + l as i32, value.lane(l)));
    }
}
