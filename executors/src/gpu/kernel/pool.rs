//! Strips of pooling: every invocation computes some rows of neighbouring outputs of one plane, straight from the window.
//! They refuse dilation, and outputs narrower than a strip: `window.rs` has a kernel for those.
//!
//! A strip that would stick out at the right or at the bottom begins earlier: it writes what its neighbour writes.

use super::builder::Builder;
use super::columns::Columns;
use super::ir::{Expr, Kernel, f, i, select, splat};
use super::window::Pool;

/// The specialisation of a strip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolStrip {
    /// What it yields.
    pub kind: Pool,
    /// Lanes of the vector along a row; 1: `across` outputs are floats by themselves.
    pub width: u32,
    /// Vectors (or floats) side by side.
    pub across: u32,
    /// Output rows.
    pub rows: u32,
    /// Height and width of the window.
    pub kernel: [u32; 2],
    /// Its strides; of vectors the second is 1 or 2.
    pub stride: [u32; 2],
    /// Whether some window reaches beyond the input: only then anything is compared.
    pub edges: bool,
}

impl PoolStrip {
    fn columns(&self) -> Columns {
        let ([_, kernel], [_, stride]) = (self.kernel, self.stride);
        Columns { width: self.width, across: self.across, kernel, stride }
    }
}

struct Place {
    /// First element of the input's plane, and of the output.
    x: Expr,
    out: Expr,
    /// First input row and column, which may lie outside.
    top: Expr,
    left: Expr,
}

/// Builds the kernel.
pub fn build(t: PoolStrip) -> Kernel {
    let mut b = Builder::new(t.width);
    let place = place(&mut b, &t);
    let (ih, iw, ow) = (b.param("ih"), b.param("iw"), b.param("ow"));
    let start = if t.kind == Pool::Max { b.param_float("lowest") } else { f(0.0) };
    let vector = splat(start.clone(), t.width);
    let row = |b: &mut Builder| (0..t.across).map(|_| b.var("acc", vector.clone())).collect::<Vec<_>>();
    let all: Vec<Vec<Expr>> = (0..t.rows).map(|_| row(&mut b)).collect();
    let masks = t.edges.then(|| t.columns().masks(&mut b, &place.left, &iw));
    for row in 0..(t.rows - 1) * t.stride[0] + t.kernel[0] {
        let seen = |o: &u32| row.checked_sub(o * t.stride[0]).is_some_and(|tap| tap < t.kernel[0]);
        let seen: Vec<u32> = (0..t.rows).filter(seen).collect();
        if seen.is_empty() {
            continue;
        }
        let y = b.let_("y", &place.top + row as i32);
        let fold_row = |b: &mut Builder| {
            let at = b.let_("at", &place.x + &y * &iw + &place.left);
            let loaded = t.columns().loads(b, &at, masks.as_deref(), &start);
            for o in seen {
                fold(b, &t, &loaded, &all[o as usize]);
            }
        };
        match t.edges {
            true => b.if_(y.ge(0).and(y.lt(&ih)), fold_row),
            false => fold_row(&mut b),
        }
    }
    for (o, row) in all.iter().enumerate() {
        let at = b.let_("out_row", &place.out + &ow * o as i32);
        for (v, acc) in row.iter().enumerate() {
            let value = match t.kind {
                Pool::Max => acc.clone(),
                _ => acc / count(&mut b, &t, &place, o as u32, v as u32),
            };
            let value = b.let_("value", value);
            b.store_row(&at + (v as u32 * t.width) as i32, value);
        }
    }
    b.finish(&format!("pool {t:?}"))
}

fn place(b: &mut Builder, t: &PoolStrip) -> Place {
    let at = b.invocation();
    let (tiles_x, tiles_y) = (b.param("tiles_x"), b.param("tiles_y"));
    let (oh, ow, ih, iw) = (b.param("oh"), b.param("ow"), b.param("ih"), b.param("iw"));
    let rest = b.let_("rest", &at / &tiles_x);
    let plane = b.let_("plane", &rest / &tiles_y);
    let span = t.columns().span() as i32;
    let x0 = b.let_("x0", &at % &tiles_x * span);
    let x0 = b.let_("x0", x0.min_int(&ow - span));
    let y0 = b.let_("y0", &rest % &tiles_y * t.rows as i32);
    let y0 = b.let_("y0", y0.min_int(&oh - t.rows as i32));
    let x = b.param("x_at") + &plane * &ih * &iw;
    let x = b.let_("x_plane", x);
    let out = b.param("out_at") + (&plane * &oh + &y0) * &ow + &x0;
    let out = b.let_("out_first", out);
    let (ph, pw) = (b.param("pad_h"), b.param("pad_w"));
    let top = b.let_("top", &y0 * t.stride[0] as i32 - &ph);
    let left = b.let_("left", &x0 * t.stride[1] as i32 - &pw);
    Place { x, out, top, left }
}

fn fold(b: &mut Builder, t: &PoolStrip, loaded: &[Expr], row: &[Expr]) {
    for s in 0..t.kernel[1] {
        for (v, acc) in row.iter().enumerate() {
            let x = &loaded[t.columns().place(v as u32, s)];
            let next = match t.kind {
                Pool::Max => select(x.gt(acc), x.clone(), acc.clone()),
                _ => acc + x,
            };
            b.set(acc, next);
        }
    }
}

/// How many elements each output of a vector is the average of: rows times columns, both cut at the ends.
fn count(b: &mut Builder, t: &PoolStrip, place: &Place, row: u32, v: u32) -> Expr {
    if !t.edges {
        return splat(f((t.kernel[0] * t.kernel[1]) as f32), t.width);
    }
    let padded = t.kind == Pool::AveragePadded;
    let name = |axis: &str| if padded { format!("end_{axis}") } else { format!("i{axis}") };
    let (end_h, end_w) = (b.param(&name("h")), b.param(&name("w")));
    let top = b.let_("y", &place.top + (row * t.stride[0]) as i32);
    let bottom = (&top + t.kernel[0] as i32).min_int(end_h);
    let rows = bottom - if padded { top } else { top.max_int(i(0)) };
    let rows = b.let_("rows", rows.to_float());
    let (columns, zero) = (t.columns(), splat(f(0.0), t.width));
    let steps = columns.steps(b);
    let first = columns.numbers(b, &steps, &place.left + (v * t.width * t.stride[1]) as i32);
    let behind = b.let_("behind", &first + splat(f(t.kernel[1] as f32), t.width));
    let end = b.let_("end", splat(end_w.to_float(), t.width));
    let behind = select(behind.lt(&end), behind.clone(), end);
    let first = if padded { first } else { select(first.gt(&zero), first.clone(), zero) };
    b.let_("count", (behind - first) * splat(rows, t.width))
}
