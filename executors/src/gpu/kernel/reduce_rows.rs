//! The kernels of `reduce.rs` by vectors along rows without gaps, for devices where a vector is the SIMD unit. A row that is no whole number of
//! vectors ends with one that begins earlier, of which only the last lanes count. They refuse rows shorter than a vector.

use super::builder::Builder;
use super::ir::{Buf, Expr, Fun, Kernel, f, lanes, load_row, select, splat};
use super::reduce::Reduction;

/// Runs `body` for each vector of a row of `n`: its first element, and at the end of the row which lanes are new.
fn along(b: &mut Builder, width: u32, n: &Expr, mut body: impl FnMut(&mut Builder, &Expr, Option<&Expr>)) {
    let w = width as i32;
    b.for_step("j", 0, n / w * w, w, |b, j| body(b, &j, None));
    let left = b.let_("left", n % w);
    b.if_(left.gt(0), |b| {
        let numbers = lanes((0..width).map(|l| f(l as f32)).collect());
        let first = splat((-left.clone() + w).to_float(), width);
        let j = b.let_("j", n - w);
        body(b, &j, Some(&numbers.ge(first)));
    });
}

/// All lanes of `x` folded in pairs.
fn fold(b: &mut Builder, x: &Expr, width: u32, two: impl Fn(Expr, Expr) -> Expr) -> Expr {
    let mut all: Vec<Expr> = (0..width).map(|l| x.lane(l)).collect();
    while all.len() > 1 {
        all = all.chunks(2).map(|pair| b.let_("pair", two(pair[0].clone(), pair[1].clone()))).collect();
    }
    all.remove(0)
}

fn larger(a: &Expr, b: Expr) -> Expr {
    select(a.lt(&b), b, a.clone())
}

fn smaller(a: &Expr, b: Expr) -> Expr {
    select(a.gt(&b), b, a.clone())
}

/// `x` in the lanes that count, else 0.
fn counted(x: Expr, mask: Option<&Expr>) -> Expr {
    match mask {
        Some(mask) => select(mask.clone(), x.clone(), x.like(0.0)),
        None => x,
    }
}

/// As [`super::reduce::reduce`], of `r0` rows of `r1` neighbours.
pub fn reduce(kind: Reduction, width: u32) -> Kernel {
    let mut k = Builder::new(width);
    let at = k.invocation();
    let (d1, d2) = (k.param("d1"), k.param("d2"));
    let s = ["x_s0", "x_s1", "x_s2"].map(|n| k.param(n));
    let base = k.param("x_at") + &at / &(&d2 * &d1) * &s[0] + &at / &d2 % &d1 * &s[1] + &at % &d2 * &s[2];
    let base = k.let_("base", base);
    let row = |at: &Expr| load_row(Buf::Arena, width, at, 1);
    let start = match kind {
        Reduction::Sum => splat(f(0.0), width),
        _ => row(&base),
    };
    let acc = k.var("acc", start);
    let (r0, r1, s0) = (k.param("r0"), k.param("r1"), k.param("r0_s"));
    k.for_("i", r0, |k, outer| {
        let first = k.let_("row", &base + &outer * &s0);
        along(k, width, &r1, |k, j, mask| {
            let x = k.let_("x", row(&(&first + j)));
            let next = match kind {
                Reduction::Sum => &acc + counted(x, mask),
                Reduction::Max => larger(&acc, x),
                Reduction::Min => smaller(&acc, x),
            };
            k.set(&acc, next);
        });
    });
    let result = fold(&mut k, &acc, width, |a, b| match kind {
        Reduction::Sum => a + b,
        Reduction::Max => larger(&a, b),
        Reduction::Min => smaller(&a, b),
    });
    let result = match kind {
        Reduction::Sum => result * k.param_float("scale"),
        _ => result,
    };
    let out = k.param("out_at") + &at;
    k.store(out, result);
    k.finish(&format!("reduce rows {kind:?} {width}"))
}

/// The row of an invocation: its length, its first element, and where its results go.
fn own_row(k: &mut Builder) -> (Expr, Expr, Expr) {
    let at = k.invocation();
    let n = k.param("n");
    let x_at = k.param("x_at") + &at * &n;
    let x_at = k.let_("x_first", x_at);
    let out_at = k.param("out_at") + &at * &n;
    let out_at = k.let_("out_first", out_at);
    (n, x_at, out_at)
}

/// As [`super::reduce::softmax`], of rows of `n` neighbours.
pub fn softmax(log: bool, width: u32) -> Kernel {
    let mut k = Builder::new(width);
    let (n, x_at, out_at) = own_row(&mut k);
    let row = |j: &Expr| load_row(Buf::Arena, width, &x_at + j, 1);
    let top = k.var("top", row(&super::ir::i(0)));
    along(&mut k, width, &n, |k, j, _| {
        let x = k.let_("x", row(j));
        k.set(&top, larger(&top, x));
    });
    let top = fold(&mut k, &top, width, |a, b| larger(&a, b));
    let top = k.let_("top", splat(top, width));
    let sum = k.var("sum", top.like(0.0));
    along(&mut k, width, &n, |k, j, mask| {
        let e = k.let_("e", (row(j) - &top).call(Fun::Exp));
        k.set(&sum, &sum + counted(e.clone(), mask));
        if !log && mask.is_none() {
            k.store_row(&out_at + j, e);
        }
    });
    let sum = fold(&mut k, &sum, width, |a, b| a + b);
    let scale = if log { sum.call(Fun::Log) } else { sum.like(1.0) / &sum };
    let scale = k.let_("scale", splat(scale, width));
    along(&mut k, width, &n, |k, j, mask| {
        // What was stored above may have been scaled already where the last vector begins earlier.
        let y = match (log, mask) {
            (true, _) => row(j) - &top - &scale,
            (false, None) => load_row(Buf::Arena, width, &out_at + j, 1) * &scale,
            (false, Some(_)) => (row(j) - &top).call(Fun::Exp) * &scale,
        };
        let y = k.let_("y", y);
        k.store_row(&out_at + j, y);
    });
    k.finish(&format!("softmax rows {log} {width}"))
}

/// As [`super::reduce::layer_norm`].
pub fn layer_norm(width: u32) -> Kernel {
    let mut k = Builder::new(width);
    let (n, x_at, out_at) = own_row(&mut k);
    let (scale_at, shift_at) = (k.param("scale_at"), k.param("shift_at"));
    let epsilon = k.param_float("epsilon");
    let row = |j: &Expr| load_row(Buf::Arena, width, &x_at + j, 1);
    let share = k.let_("share", epsilon.like(1.0) / n.to_float());
    let sum = k.var("sum", splat(f(0.0), width));
    along(&mut k, width, &n, |k, j, mask| k.set(&sum, &sum + counted(row(j), mask)));
    let sum = fold(&mut k, &sum, width, |a, b| a + b);
    let mean = k.let_("mean", splat(sum * &share, width));
    let squares = k.var("squares", splat(f(0.0), width));
    along(&mut k, width, &n, |k, j, mask| {
        let d = k.let_("d", row(j) - &mean);
        k.set(&squares, &squares + counted(&d * &d, mask));
    });
    let squares = fold(&mut k, &squares, width, |a, b| a + b);
    let factor = epsilon.like(1.0) / (squares * &share + &epsilon).call(Fun::Sqrt);
    let factor = k.let_("factor", splat(factor, width));
    along(&mut k, width, &n, |k, j, _| {
        let weights = |at: &Expr| load_row(Buf::Weights, width, at + j, 1);
        let y = (row(j) - &mean) * &factor * weights(&scale_at) + weights(&shift_at);
        let y = k.let_("y", y);
        k.store_row(&out_at + j, y);
    });
    k.finish(&format!("layer norm rows {width}"))
}
