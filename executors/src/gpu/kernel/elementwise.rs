//! Kernels that compute each output element from one place of each operand: functions, sums, copies, padding, gathering.
//! They refuse more axes than their specialisation has; the lowering merges axes first.

use super::builder::Builder;
use super::ir::{Buf, Expr, Kernel, i, load, load_row, select, splat};
use super::unary::{self, Unary};

/// A function of two floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    /// `b` where `a` is below 0: PRelu.
    Prelu,
    Pow,
}

impl Binary {
    fn emit(self, k: &mut Builder, a: Expr, b: Expr) -> Expr {
        let (a, b) = (k.let_("a", a), k.let_("b", b));
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            // Comparisons with NaN are false: a NaN in `a` stays, and the second select keeps one in `b`.
            Binary::Max => select(b.eq(b.clone()), select(a.lt(b.clone()), b.clone(), a), b),
            Binary::Min => select(b.eq(b.clone()), select(a.gt(b.clone()), b.clone(), a), b),
            Binary::Prelu => select(a.lt(a.like(0.0)), &a * &b, a),
            Binary::Pow => unary::pow(k, &a, b),
        }
    }
}

fn coordinates(k: &mut Builder, rank: usize, at: Expr) -> Vec<Expr> {
    let mut rest = at;
    let mut all = Vec::new();
    for axis in (1..rank).rev() {
        let extent = k.param(&format!("d{axis}"));
        all.push(k.let_("c", &rest % &extent));
        rest = k.let_("rest", &rest / &extent);
    }
    all.push(rest);
    all.reverse();
    all
}

fn strided(k: &mut Builder, name: &str, coordinates: &[Expr]) -> Expr {
    let mut at = k.param(&format!("{name}_at"));
    for (axis, c) in coordinates.iter().enumerate() {
        at = at + c * k.param(&format!("{name}_s{axis}"));
    }
    k.let_(&format!("{name}_index"), at)
}

/// `out[i] = f(x[i])`.
pub fn unary(unary: Unary) -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let constants = unary::constants(&mut k, unary);
    let x = load(Buf::Arena, k.param("x_at") + &at);
    let y = unary.emit(&mut k, &constants, x);
    let out = k.param("out_at") + &at;
    k.store(out, y);
    k.finish(&format!("unary {unary:?}"))
}

/// `out[i...] = f(a[i...] op b[i...])`, a stride of 0 where an operand is broadcast.
pub fn broadcast(op: Binary, a: Buf, b: Buf, rank: usize, then: Unary) -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let constants = unary::constants(&mut k, then);
    let c = coordinates(&mut k, rank, at.clone());
    let left = load(a, strided(&mut k, "a", &c));
    let right = load(b, strided(&mut k, "b", &c));
    let y = op.emit(&mut k, left, right);
    let y = then.emit(&mut k, &constants, y);
    let out = k.param("out_at") + &at;
    k.store(out, y);
    k.finish(&format!("broadcast {op:?} {a:?} {b:?} {rank} {then:?}"))
}

/// An operand along the last axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Side {
    /// Where it is.
    pub buf: Buf,
    /// It has neighbours for neighbours; else one element for the whole axis.
    pub along: bool,
}

/// What [`across_rows`] is specialised on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AcrossRows {
    /// The first operand.
    pub a: Side,
    /// The operation and the second operand; without them the fused function is all.
    pub b: Option<(Binary, Side)>,
    /// Axes, the last one included.
    pub rank: usize,
    /// Lanes of a vector.
    pub width: u32,
    /// Vectors an invocation.
    pub chunks: u32,
    /// The fused function.
    pub then: Unary,
}

/// As [`broadcast`], by vectors along the last axis, as [`copy_rows`] walks it.
pub fn across_rows(t: AcrossRows) -> Kernel {
    let mut k = Builder::new(t.width);
    let at = k.invocation();
    let (tiles, row) = (k.param("tiles"), k.param("row"));
    let tile = k.let_("tile", &at % &tiles);
    let rest = k.let_("rest", &at / &tiles);
    let constants = unary::constants(&mut k, t.then);
    let out = k.param("out_at") + &rest * &row;
    let out = k.let_("out_row", out);
    let c = if t.rank == 1 { Vec::new() } else { coordinates(&mut k, t.rank - 1, rest) };
    // What is the same along the whole row is loaded once.
    let side = |k: &mut Builder, name: &str, side: Side| {
        let at = strided(k, name, &c);
        let one = (!side.along).then(|| k.let_("one", splat(load(side.buf, &at), t.width)));
        (side.buf, at, one)
    };
    let a = side(&mut k, "a", t.a);
    let b = t.b.map(|(op, b)| (op, side(&mut k, "b", b)));
    let value = |(buf, at, one): &(Buf, Expr, Option<Expr>), q: &Expr| {
        one.clone().unwrap_or_else(|| load_row(*buf, t.width, at + q, 1))
    };
    for chunk in 0..t.chunks as i32 {
        let q = k.let_("q", part([t.width, t.chunks], chunk, &tile, &tiles, &row));
        let x = value(&a, &q);
        let x = match &b {
            Some((op, b)) => op.emit(&mut k, x, value(b, &q)),
            None => x,
        };
        let y = t.then.emit(&mut k, &constants, x);
        let y = k.let_("y", y);
        k.store_row(&out + q, y);
    }
    k.finish(&format!("{t:?}"))
}

/// Where vector `chunk` of tile `tile` begins in a row: vectors lie side by side, the last tile begins earlier; single floats are far apart, so
/// that neighbouring invocations have neighbouring elements.
fn part([width, chunks]: [u32; 2], chunk: i32, tile: &Expr, tiles: &Expr, row: &Expr) -> Expr {
    let span = (width * chunks) as i32;
    match width {
        1 => (tile + tiles * chunk).min_int(row - 1),
        _ => (tile * span).min_int(row - span) + chunk * width as i32,
    }
}

/// `out[o_at + c * o_s] = x[x_at + c * x_s]`; strides may be negative.
pub fn copy(from: Buf, rank: usize) -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let c = coordinates(&mut k, rank, at);
    let x = load(from, strided(&mut k, "x", &c));
    let out = strided(&mut k, "out", &c);
    k.store(out, x);
    k.finish(&format!("copy {from:?} {rank}"))
}

/// As [`copy`], where both sides have a stride of 1 along the last axis. An invocation copies `chunks` vectors of it, see [`part`].
pub fn copy_rows(from: Buf, rank: usize, width: u32, chunks: u32) -> Kernel {
    let mut k = Builder::new(width);
    let at = k.invocation();
    let (tiles, row) = (k.param("tiles"), k.param("row"));
    let tile = k.let_("tile", &at % &tiles);
    let rest = k.let_("rest", &at / &tiles);
    let c = if rank == 1 { Vec::new() } else { coordinates(&mut k, rank - 1, rest) };
    let (x, out) = (strided(&mut k, "x", &c), strided(&mut k, "out", &c));
    for chunk in 0..chunks as i32 {
        let q = k.let_("q", part([width, chunks], chunk, &tile, &tiles, &row));
        let value = k.let_("value", load_row(from, width, &x + &q, 1));
        k.store_row(&out + q, value);
    }
    k.finish(&format!("copy rows {from:?} {rank} {width} {chunks}"))
}

/// As [`copy`], with any strides: an invocation copies `chunks` elements of the last axis, so that coordinates are worked out once for all of
/// them. They are neighbours, or far apart (`spread`) so that neighbouring invocations have neighbouring elements.
pub fn copy_lines(from: Buf, rank: usize, chunks: u32, spread: bool) -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let (tiles, row) = (k.param("tiles"), k.param("row"));
    let tile = k.let_("tile", &at % &tiles);
    let rest = k.let_("rest", &at / &tiles);
    let c = if rank == 1 { Vec::new() } else { coordinates(&mut k, rank - 1, rest) };
    let (x, out) = (strided(&mut k, "x", &c), strided(&mut k, "out", &c));
    let steps = ["x", "out"].map(|name| k.param(&format!("{name}_s{}", rank - 1)));
    for chunk in 0..chunks as i32 {
        let q = match spread {
            true => (&tile + &tiles * chunk).min_int(&row - 1),
            false => (&tile * chunks as i32).min_int(&row - chunks as i32) + chunk,
        };
        let q = k.let_("q", q);
        let value = k.let_("value", load(from, &x + &q * &steps[0]));
        k.store(&out + q * &steps[1], value);
    }
    k.finish(&format!("copy lines {from:?} {rank} {chunks} {spread}"))
}

/// `out[c] = x[c - before]` where that exists, else `value`.
pub fn pad(rank: usize) -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let c = coordinates(&mut k, rank, at.clone());
    let mut index = i(0);
    let mut inside = i(0).eq(0);
    for (axis, c) in c.iter().enumerate() {
        let from = c - k.param(&format!("before{axis}"));
        let from = k.let_("from", from);
        let extent = k.param(&format!("x_d{axis}"));
        inside = k.let_("inside", inside.and(from.ge(0)).and(from.lt(&extent)));
        index = k.let_("index", index * &extent + &from);
    }
    let value = k.param_float("value");
    let index = select(inside.clone(), index, i(0));
    let x = load(Buf::Arena, k.param("x_at") + index);
    let out = k.param("out_at") + &at;
    k.store(out, select(inside, x, value));
    k.finish(&format!("pad {rank}"))
}

/// `out[o][j][q] = x[o][table[j]][q]`; the table holds whole numbers as floats.
pub fn gather(from: Buf) -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let (rows, picked, inner) = (k.param("rows"), k.param("picked"), k.param("inner"));
    let q = k.let_("q", &at % &inner);
    let rest = k.let_("rest", &at / &inner);
    let j = k.let_("j", &rest % &picked);
    let o = k.let_("o", &rest / &picked);
    let row = load(Buf::Weights, k.param("table_at") + &j).to_int();
    let index = (o * &rows + row) * &inner + q;
    let x = load(from, k.param("x_at") + index);
    let out = k.param("out_at") + &at;
    k.store(out, x);
    k.finish(&format!("gather {from:?}"))
}

/// `out[n][c][q] = f(x[n][c][q] * scale[c] + shift[c])`.
pub fn affine(then: Unary) -> Kernel {
    let mut k = Builder::new(1);
    let at = k.invocation();
    let constants = unary::constants(&mut k, then);
    let (channels, inner) = (k.param("channels"), k.param("inner"));
    let c = k.let_("c", &at / &inner % &channels);
    let scale = load(Buf::Weights, k.param("scale_at") + &c);
    let shift = load(Buf::Weights, k.param("shift_at") + &c);
    let x = load(Buf::Arena, k.param("x_at") + &at);
    let y = then.emit(&mut k, &constants, x * scale + shift);
    let out = k.param("out_at") + &at;
    k.store(out, y);
    k.finish(&format!("affine {then:?}"))
}
