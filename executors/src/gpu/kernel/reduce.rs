//! Kernels that fold many elements into one or normalise rows: reductions, softmax, layer and local response normalisation.
//! They refuse cooperation between invocations: one invocation folds one row.

use super::builder::Builder;
use super::ir::{Buf, Expr, Fun, Kernel, f, load, select};

/// How a reduction folds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Reduction {
    /// Sum times the parameter `scale`: sum and mean.
    Sum,
    Max,
    Min,
}

fn larger(acc: &Expr, x: Expr) -> Expr {
    select(acc.lt(&x), x, acc.clone())
}

/// Folds `x[kept...][r0, r1]` over `r0` and `r1`; up to three kept groups of axes and two reduced ones, by strides.
pub fn reduce(kind: Reduction) -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let (d1, d2) = (k.param("d1"), k.param("d2"));
    let s = ["x_s0", "x_s1", "x_s2"].map(|n| k.param(n));
    let base = k.param("x_at") + &at / &(&d2 * &d1) * &s[0] + &at / &d2 % &d1 * &s[1] + &at % &d2 * &s[2];
    let base = k.let_("base", base);
    let start = match kind {
        Reduction::Sum => f(0.0),
        _ => load(Buf::Arena, &base),
    };
    let acc = k.var("acc", start);
    let (r0, r1, s0, s1) = (k.param("r0"), k.param("r1"), k.param("r0_s"), k.param("r1_s"));
    k.for_("i", r0, |k, outer| {
        let row = k.let_("row", &base + &outer * &s0);
        k.for_unrolled("j", r1.clone(), 4, |k, inner| {
            let x = k.let_("x", load(Buf::Arena, &row + &inner * &s1));
            let next = match kind {
                Reduction::Sum => &acc + &x,
                Reduction::Max => larger(&acc, x),
                Reduction::Min => select(acc.gt(&x), x, acc.clone()),
            };
            k.set(&acc, next);
        });
    });
    let result = match kind {
        Reduction::Sum => &acc * k.param_float("scale"),
        _ => acc,
    };
    let out = k.param("out_at") + &at;
    k.store(out, result);
    k.finish(&format!("reduce {kind:?}"))
}

/// Softmax of `x[outer][n][inner]` along `n`, or its logarithm.
pub fn softmax(log: bool) -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let (n, inner) = (k.param("n"), k.param("inner"));
    let first = k.let_("first", &at / &inner * &n * &inner + &at % &inner);
    let x_at = k.param("x_at") + &first;
    let x_at = k.let_("x_first", x_at);
    let out_at = k.param("out_at") + &first;
    let out_at = k.let_("out_first", out_at);
    let top = k.var("top", load(Buf::Arena, &x_at));
    k.for_("j", n.clone(), |k, j| {
        let x = k.let_("x", load(Buf::Arena, &x_at + &j * &inner));
        k.set(&top, larger(&top, x));
    });
    let sum = k.var("sum", top.like(0.0));
    k.for_("j", n.clone(), |k, j| {
        let e = k.let_("e", (load(Buf::Arena, &x_at + &j * &inner) - &top).call(Fun::Exp));
        k.set(&sum, &sum + &e);
        if !log {
            k.store(&out_at + &j * &inner, e);
        }
    });
    let scale = if log { sum.call(Fun::Log) } else { top.like(1.0) / &sum };
    let scale = k.let_("scale", scale);
    k.for_("j", n, |k, j| {
        let y = if log {
            load(Buf::Arena, &x_at + &j * &inner) - &top - &scale
        } else {
            load(Buf::Arena, &out_at + &j * &inner) * &scale
        };
        k.store(&out_at + &j * &inner, y);
    });
    k.finish(if log { "log softmax" } else { "softmax" })
}

/// `out[r][j] = (x[r][j] - mean) / sqrt(variance + epsilon) * scale[j] + shift[j]` over rows of `n`.
pub fn layer_norm() -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let n = k.param("n");
    let x_at = k.param("x_at") + &(&at * &n);
    let x_at = k.let_("x_first", x_at);
    let out_at = k.param("out_at") + &(&at * &n);
    let out_at = k.let_("out_first", out_at);
    let (scale_at, shift_at) = (k.param("scale_at"), k.param("shift_at"));
    let epsilon = k.param_float("epsilon");
    let share = k.let_("share", epsilon.like(1.0) / n.to_float());
    let sum = k.var("sum", epsilon.like(0.0));
    k.for_unrolled("j", n.clone(), 4, |k, j| k.set(&sum, &sum + load(Buf::Arena, &x_at + &j)));
    let mean = k.let_("mean", &sum * &share);
    let squares = k.var("squares", epsilon.like(0.0));
    k.for_unrolled("j", n.clone(), 4, |k, j| {
        let d = k.let_("d", load(Buf::Arena, &x_at + &j) - &mean);
        k.set(&squares, &squares + &d * &d);
    });
    let factor = k.let_("factor", epsilon.like(1.0) / (&squares * &share + &epsilon).call(Fun::Sqrt));
    k.for_("j", n, |k, j| {
        let normal = (load(Buf::Arena, &x_at + &j) - &mean) * &factor;
        let y = normal * load(Buf::Weights, &scale_at + &j) + load(Buf::Weights, &shift_at + &j);
        k.store(&out_at + &j, y);
    });
    k.finish("layer norm")
}

/// `out[o][c][i] = x[o][c][i] / (bias + alpha * sum of x[o][c + d][i]^2)^beta` over `d` from `-before` to `size - 1 - before`, as far as there
/// are channels: `n` of them, each of `inner` elements.
pub fn lrn() -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let (n, inner, size, before) = (k.param("n"), k.param("inner"), k.param("size"), k.param("before"));
    let first = k.let_("first", &at / &inner % &n - &before);
    let x_at = k.param("x_at") + &at;
    let x_at = k.let_("x_here", x_at);
    let x_first = k.let_("x_first", &x_at - &before * &inner);
    let (bias, alpha, beta) = (k.param_float("bias"), k.param_float("alpha"), k.param_float("beta"));
    let sum = k.var("sum", bias.like(0.0));
    k.for_("j", size, |k, j| {
        let channel = k.let_("channel", &first + &j);
        k.if_(channel.ge(0).and(channel.lt(&n)), |k| {
            let x = k.let_("x", load(Buf::Arena, &x_first + &j * &inner));
            k.set(&sum, &sum + &x * &x);
        });
    });
    let scale = k.let_("scale", (&bias + &alpha * &sum).pow(beta));
    let out = k.param("out_at") + &at;
    k.store(out, load(Buf::Arena, x_at) / scale);
    k.finish("local response normalisation")
}
