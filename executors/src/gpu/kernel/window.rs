//! Pooling windows and resizing. They refuse to know padding modes and coordinate rules: the lowering turns those into numbers.

use super::builder::Builder;
use super::ir::{Buf, Kernel, f, i, load, select};

/// What a window yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Pool {
    Max,
    /// The sum divided by the number of elements inside the input.
    Average,
    /// The sum divided by the number of elements inside the padded input.
    AveragePadded,
}

/// `out[p][oh][ow]` from the window of `x[p]`, for every plane `p`.
pub fn pool(kind: Pool) -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let names = [
        "kh",
        "kw",
        "ih",
        "iw",
        "oh",
        "ow",
        "stride_h",
        "stride_w",
        "dilation_h",
        "dilation_w",
        "pad_h",
        "pad_w",
    ];
    let [kh, kw, ih, iw, oh, ow, sh, sw, dh, dw, ph, pw] = names.map(|n| k.param(n));
    let (end_h, end_w) = (k.param("end_h"), k.param("end_w"));
    let x0 = k.let_("x0", &at % &ow * &sw - &pw);
    let rest = k.let_("rest", &at / &ow);
    let y0 = k.let_("y0", &rest % &oh * &sh - &ph);
    let plane = k.param("x_at") + &rest / &oh * &ih * &iw;
    let plane = k.let_("plane", plane);
    let start = if kind == Pool::Max { k.param_float("lowest") } else { f(0.0) };
    let acc = k.var("acc", start);
    let count = k.var("count", f(0.0));
    k.for_("r", kh, |k, r| {
        let y = k.let_("y", &y0 + &r * &dh);
        k.for_("s", kw, |k, s| {
            let x = k.let_("x", &x0 + &s * &dw);
            let inside = y.ge(0).and(x.ge(0)).and(y.lt(&ih)).and(x.lt(&iw));
            let inside = k.let_("inside", inside);
            let value = load(Buf::Arena, &plane + select(inside.clone(), &y * &iw + &x, i(0)));
            let value = k.let_("value", value);
            if kind == Pool::Max {
                let next = select(inside.and(value.gt(&acc)), value, acc.clone());
                k.set(&acc, next);
                return;
            }
            k.set(&acc, &acc + select(inside.clone(), value, f(0.0)));
            // The padded input ends at `end`: a window that ceil mode pushes beyond it counts less.
            let counted = if kind == Pool::Average { inside } else { y.lt(&end_h).and(x.lt(&end_w)) };
            k.set(&count, &count + select(counted, f(1.0), f(0.0)));
        });
    });
    let result = if kind == Pool::Max { acc } else { acc / &count };
    let out = k.param("out_at") + &at;
    k.store(out, result);
    k.finish(&format!("pool {kind:?}"))
}

/// `out[p][y][x]` between rows `y0[y]`, `y1[y]` with weight `wy[y]` for the second, and columns likewise.
pub fn resize() -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let names = ["ih", "iw", "oh", "ow", "rows_at", "columns_at"];
    let [ih, iw, oh, ow, rows_at, columns_at] = names.map(|n| k.param(n));
    let x = k.let_("x", &at % &ow);
    let rest = k.let_("rest", &at / &ow);
    let y = k.let_("y", &rest % &oh);
    let plane = k.param("x_at") + &rest / &oh * &ih * &iw;
    let plane = k.let_("plane", plane);
    // Tables of triples: first index, second index, weight of the second.
    let row = k.let_("row", &rows_at + &y * 3);
    let column = k.let_("column", &columns_at + &x * 3);
    let word = |at: &super::ir::Expr, j: i32| load(Buf::Weights, at + j);
    let y0 = k.let_("y0", &plane + word(&row, 0).to_int() * &iw);
    let y1 = k.let_("y1", &plane + word(&row, 1).to_int() * &iw);
    let (x0, x1) = (word(&column, 0).to_int(), word(&column, 1).to_int());
    let (x0, x1) = (k.let_("left", x0), k.let_("right", x1));
    let (wy, wx) = (word(&row, 2), word(&column, 2));
    let (wy, wx) = (k.let_("wy", wy), k.let_("wx", wx));
    let mix = |a: super::ir::Expr, b: super::ir::Expr, w: &super::ir::Expr| {
        // A weight of 0 must not let an infinity of the other element in.
        select(w.eq(f(0.0)), a.clone(), &a * (f(1.0) - w.clone()) + b * w)
    };
    let top = mix(load(Buf::Arena, &y0 + &x0), load(Buf::Arena, &y0 + &x1), &wx);
    let top = k.let_("top", top);
    let bottom = mix(load(Buf::Arena, &y1 + &x0), load(Buf::Arena, &y1 + &x1), &wx);
    let bottom = k.let_("bottom", bottom);
    let out = k.param("out_at") + &at;
    k.store(out, mix(top, bottom, &wy));
    k.finish("resize")
}
