//! Functions of one float, usable alone and fused behind a convolution, a matrix product or a sum.
//! Written with selects, not min and max, so that NaN passes through. They refuse more than two constants.

use super::builder::Builder;
use super::ir::{Expr, Fun, Ty, select, splat};

/// A function of one float; `a` and `b` are the constants that it takes as launch parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Unary {
    Identity,
    /// `a` where below `a`, `b` where above `b`: Relu, Clip, and nothing at all with infinite bounds.
    Clip,
    LeakyRelu,
    /// `a x + b` cut to 0..1.
    HardSigmoid,
    HardSwish,
    Sigmoid,
    Silu,
    Tanh,
    Erf,
    Gelu,
    GeluTanh,
    Sqrt,
    Exp,
    Log,
    Neg,
    Abs,
    Floor,
    Reciprocal,
    Elu,
    Softplus,
    /// `x^a` for any `a`.
    Pow,
    Square,
}

fn sigmoid(x: &Expr) -> Expr {
    // exp overflows to infinity for very negative x, and 1 / inf is 0: right at both ends.
    x.like(1.0) / ((-x.clone()).call(Fun::Exp) + x.like(1.0))
}

fn tanh(x: &Expr) -> Expr {
    x.like(1.0) - x.like(2.0) / ((x * x.like(2.0)).call(Fun::Exp) + x.like(1.0))
}

/// Rational approximation 7.1.26 of Abramowitz and Stegun: absolute error below 1.5e-7 before rounding.
fn erf(b: &mut Builder, x: &Expr) -> Expr {
    let z = b.let_("z", x.call(Fun::Abs));
    let t = b.let_("t", x.like(1.0) / (&z * x.like(0.327_591_1) + x.like(1.0)));
    let mut poly = x.like(1.061_405_4);
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        poly = poly * &t + x.like(c);
    }
    let y = b.let_("y", x.like(1.0) - poly * &t * (-(&z * &z)).call(Fun::Exp));
    let signed = select(x.lt(x.like(0.0)), -y.clone(), y);
    // Near 0 the difference above cancels: the first term of the series is better there.
    select(z.lt(x.like(1e-3)), x * x.like(std::f32::consts::FRAC_2_SQRT_PI), signed)
}

fn cut(x: Expr, low: Expr, high: Expr) -> Expr {
    let x = select(x.lt(low.clone()), low, x);
    select(x.gt(high.clone()), high, x)
}

/// `x^y` for any sign of `x`.
pub fn pow(b: &mut Builder, x: &Expr, y: Expr) -> Expr {
    let size = b.let_("size", x.call(Fun::Abs).pow(y.clone()));
    let half = b.let_("half", (&y * x.like(0.5)).call(Fun::Floor) * x.like(2.0));
    let odd = select(half.eq(y.clone()), x.like(1.0), x.like(-1.0));
    // A negative base: the sign follows an integer exponent; sqrt of a negative number makes the NaN of any other.
    let whole = select(y.call(Fun::Floor).eq(y.clone()), odd, x.call(Fun::Sqrt));
    let signed = select(x.lt(x.like(0.0)), &size * &whole, size.clone());
    select(y.eq(x.like(0.0)), x.like(1.0), signed)
}

impl Unary {
    /// How many of the constants `a`, `b` it takes.
    pub fn constants(self) -> usize {
        match self {
            Unary::Clip | Unary::HardSigmoid => 2,
            Unary::LeakyRelu | Unary::Pow | Unary::Elu => 1,
            _ => 0,
        }
    }

    /// Emits the function of `x`, a float or a vector. Constants are parameters `a` and `b` of the kernel.
    pub fn emit(self, k: &mut Builder, constants: &[Expr], x: Expr) -> Expr {
        let x = k.let_("x", x);
        let wide = |c: &Expr| widen(&x, c);
        let one = || x.like(1.0);
        match self {
            Unary::Identity => x,
            Unary::Clip => {
                let (low, high) = (wide(&constants[0]), wide(&constants[1]));
                cut(x.clone(), low, high)
            }
            Unary::LeakyRelu => select(x.lt(x.like(0.0)), &x * wide(&constants[0]), x.clone()),
            Unary::HardSigmoid => {
                let y = &x * wide(&constants[0]) + wide(&constants[1]);
                let y = k.let_("y", y);
                cut(y, x.like(0.0), one())
            }
            Unary::HardSwish => {
                let y = k.let_("y", &x * x.like(1.0 / 6.0) + x.like(0.5));
                &x * cut(y, x.like(0.0), one())
            }
            Unary::Sigmoid => sigmoid(&x),
            Unary::Silu => &x * sigmoid(&x),
            Unary::Tanh => tanh(&x),
            Unary::Erf => erf(k, &x),
            Unary::Gelu => {
                let y = k.let_("y", &x * x.like(std::f32::consts::FRAC_1_SQRT_2));
                let e = erf(k, &y);
                &x * x.like(0.5) * (e + one())
            }
            Unary::GeluTanh => {
                let cube = &x * &x * &x * x.like(0.044_715);
                let y = k.let_("y", (cube + &x) * x.like(0.797_884_6));
                &x * x.like(0.5) * (tanh(&y) + one())
            }
            Unary::Sqrt => x.call(Fun::Sqrt),
            Unary::Exp => x.call(Fun::Exp),
            Unary::Log => x.call(Fun::Log),
            Unary::Neg => -x,
            Unary::Abs => x.call(Fun::Abs),
            Unary::Floor => x.call(Fun::Floor),
            Unary::Reciprocal => one() / x,
            Unary::Elu => {
                let below = (x.call(Fun::Exp) - one()) * wide(&constants[0]);
                select(x.lt(x.like(0.0)), below, x.clone())
            }
            Unary::Softplus => {
                let small = (-x.call(Fun::Abs)).call(Fun::Exp);
                (small + one()).call(Fun::Log) + select(x.gt(x.like(0.0)), x.clone(), x.like(0.0))
            }
            Unary::Pow => {
                let y = wide(&constants[0]);
                let y = k.let_("y", y);
                pow(k, &x, y)
            }
            Unary::Square => &x * &x,
        }
    }
}

fn widen(x: &Expr, c: &Expr) -> Expr {
    match x.ty {
        Ty::Vec(n) => splat(c.clone(), n),
        _ => c.clone(),
    }
}

/// Declares the constants of `unary` as kernel parameters.
pub fn constants(k: &mut Builder, unary: Unary) -> Vec<Expr> {
    ["a", "b"][..unary.constants()].iter().map(|name| k.param_float(name)).collect()
}
