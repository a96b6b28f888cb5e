//! The kernel language: typed expressions, loads, stores, loops and ifs, built once and printed by every dialect.
//! It refuses anything that WGSL and OpenCL C do not both have (pointers, recursion, implicit conversions); integers are i32.

use std::sync::Arc;

/// The type of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    /// A truth value.
    Bool,
    /// A signed 32-bit integer: indices, extents, coordinates.
    Int,
    /// A 32-bit float.
    Float,
    /// A vector of 32-bit floats with so many lanes.
    Vec(u32),
    /// A truth value for each of so many lanes.
    Mask(u32),
}

/// The buffers that a kernel sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Buf {
    /// Activations: read and written, elements are f32.
    Arena,
    /// Packed constants: read only, elements are f32.
    Weights,
}

/// Two-operand operators; comparisons give [`Ty::Bool`], of vectors a [`Ty::Mask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    And,
    Or,
}

/// Built-in functions that both dialects have, on floats or vectors of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fun {
    Exp,
    Log,
    Sqrt,
    Abs,
    Floor,
    /// Power of a non-negative base.
    Pow,
}

/// What an expression is.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Node {
    Int(i32),
    Float(f32),
    Var(String),
    /// A launch parameter, by its index in [`Kernel::params`].
    Param(usize, String),
    /// The number of this invocation in the grid.
    Invocation,
    Binary(Op, Expr, Expr),
    Neg(Expr),
    Call(Fun, Vec<Expr>),
    /// Condition, value where true, value where false.
    Select(Expr, Expr, Expr),
    /// One f32 at an element index.
    Load(Buf, Expr),
    /// A whole vector from the weights; the index counts vectors.
    LoadVec(Expr),
    /// A vector from elements at an index, an index plus the step (1 or 2), and so on.
    LoadRow(Buf, Expr, u32),
    /// The number of this invocation in its subgroup.
    Neighbour,
    /// What neighbour number `.1` of the subgroup has for the expression.
    FromNeighbour(Expr, u32),
    /// The same float in all lanes.
    Splat(Expr),
    /// A vector from its lanes.
    Lanes(Vec<Expr>),
    /// One lane of a vector.
    Lane(Expr, u32),
    /// Int to float.
    ToFloat(Expr),
    /// Float to int, towards zero.
    ToInt(Expr),
    /// The float whose bits are this int.
    BitsToFloat(Expr),
}

/// A typed expression; cheap to clone.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Its type.
    pub ty: Ty,
    /// Its definition.
    pub node: Arc<Node>,
}

impl Expr {
    pub(super) fn new(ty: Ty, node: Node) -> Self {
        Self { ty, node: Arc::new(node) }
    }

    fn binary(op: Op, a: Expr, b: Expr) -> Self {
        // A bare float literal beside a vector becomes a vector, so that formulas read the same at every width.
        let (a, b) = match (a.ty, b.ty) {
            (Ty::Vec(n), Ty::Float) => (a, splat(b, n)),
            (Ty::Float, Ty::Vec(n)) => (splat(a, n), b),
            _ => (a, b),
        };
        assert_eq!(a.ty, b.ty, "operands of {op:?} differ in type: {a:?} and {b:?}");
        let ty = match op {
            Op::Lt | Op::Le | Op::Gt | Op::Ge | Op::Eq => match a.ty {
                Ty::Vec(n) => Ty::Mask(n),
                _ => Ty::Bool,
            },
            _ => a.ty,
        };
        Self::new(ty, Node::Binary(op, a, b))
    }

    /// `self < other`.
    pub fn lt(&self, other: impl Into<Expr>) -> Expr {
        Self::binary(Op::Lt, self.clone(), other.into())
    }
    /// `self <= other`.
    pub fn le(&self, other: impl Into<Expr>) -> Expr {
        Self::binary(Op::Le, self.clone(), other.into())
    }
    /// `self > other`.
    pub fn gt(&self, other: impl Into<Expr>) -> Expr {
        Self::binary(Op::Gt, self.clone(), other.into())
    }
    /// `self >= other`.
    pub fn ge(&self, other: impl Into<Expr>) -> Expr {
        Self::binary(Op::Ge, self.clone(), other.into())
    }
    /// `self == other`.
    pub fn eq(&self, other: impl Into<Expr>) -> Expr {
        Self::binary(Op::Eq, self.clone(), other.into())
    }
    /// Both true.
    pub fn and(&self, other: impl Into<Expr>) -> Expr {
        Self::binary(Op::And, self.clone(), other.into())
    }
    /// The smaller of two integers.
    pub fn min_int(&self, other: impl Into<Expr>) -> Expr {
        let other = other.into();
        select(self.lt(other.clone()), self.clone(), other)
    }
    /// The larger of two integers.
    pub fn max_int(&self, other: impl Into<Expr>) -> Expr {
        let other = other.into();
        select(self.gt(other.clone()), self.clone(), other)
    }
    /// Lane `i` of a vector, or the float itself for lane 0 of a scalar.
    pub fn lane(&self, i: u32) -> Expr {
        match self.ty {
            Ty::Vec(n) => {
                assert!(i < n, "lane {i} of {n}");
                Self::new(Ty::Float, Node::Lane(self.clone(), i))
            }
            _ => self.clone(),
        }
    }
    /// Lanes of a vector; 1 of anything else.
    pub fn width(&self) -> u32 {
        match self.ty {
            Ty::Vec(n) | Ty::Mask(n) => n,
            _ => 1,
        }
    }
    /// Int to float.
    pub fn to_float(&self) -> Expr {
        assert_eq!(self.ty, Ty::Int);
        Self::new(Ty::Float, Node::ToFloat(self.clone()))
    }
    /// Float to int, towards zero.
    pub fn to_int(&self) -> Expr {
        assert_eq!(self.ty, Ty::Float);
        Self::new(Ty::Int, Node::ToInt(self.clone()))
    }
    /// A float literal or splat with the type of `self`.
    pub fn like(&self, v: f32) -> Expr {
        match self.ty {
            Ty::Vec(n) => splat(f(v), n),
            _ => f(v),
        }
    }
    /// Calls a one-operand built-in.
    pub fn call(&self, fun: Fun) -> Expr {
        Self::new(self.ty, Node::Call(fun, vec![self.clone()]))
    }
    /// `self` to the power `other`; `self` must not be negative.
    pub fn pow(&self, other: Expr) -> Expr {
        Self::new(self.ty, Node::Call(Fun::Pow, vec![self.clone(), other]))
    }
}

impl From<i32> for Expr {
    fn from(v: i32) -> Self {
        Expr::new(Ty::Int, Node::Int(v))
    }
}
impl From<&Expr> for Expr {
    fn from(v: &Expr) -> Self {
        v.clone()
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $op:expr) => {
        impl<T: Into<Expr>> std::ops::$trait<T> for Expr {
            type Output = Expr;
            fn $method(self, other: T) -> Expr {
                Expr::binary($op, self, other.into())
            }
        }
        impl<T: Into<Expr>> std::ops::$trait<T> for &Expr {
            type Output = Expr;
            fn $method(self, other: T) -> Expr {
                Expr::binary($op, self.clone(), other.into())
            }
        }
    };
}
operator!(Add, add, Op::Add);
operator!(Sub, sub, Op::Sub);
operator!(Mul, mul, Op::Mul);
operator!(Div, div, Op::Div);
operator!(Rem, rem, Op::Rem);

impl std::ops::Neg for Expr {
    type Output = Expr;
    fn neg(self) -> Expr {
        Expr::new(self.ty, Node::Neg(self))
    }
}

/// An integer literal.
pub fn i(v: i32) -> Expr {
    v.into()
}
/// A finite float literal.
pub fn f(v: f32) -> Expr {
    assert!(v.is_finite(), "only finite float literals print in both dialects");
    Expr::new(Ty::Float, Node::Float(v))
}
/// A float in all of `n` lanes (`n` = 1: the float itself).
pub fn splat(e: Expr, n: u32) -> Expr {
    assert_eq!(e.ty, Ty::Float);
    if n == 1 { e } else { Expr::new(Ty::Vec(n), Node::Splat(e)) }
}
/// A vector from its lanes (one lane: the float itself).
pub fn lanes(mut all: Vec<Expr>) -> Expr {
    match all.len() {
        1 => all.remove(0),
        n => Expr::new(Ty::Vec(n as u32), Node::Lanes(all)),
    }
}
/// `yes` where `condition` holds, else `no`; both are evaluated.
pub fn select(condition: Expr, yes: impl Into<Expr>, no: impl Into<Expr>) -> Expr {
    let (yes, no) = (yes.into(), no.into());
    assert_eq!(yes.ty, no.ty);
    Expr::new(yes.ty, Node::Select(condition, yes, no))
}
/// The f32 at element `index`.
pub fn load(buf: Buf, index: impl Into<Expr>) -> Expr {
    Expr::new(Ty::Float, Node::Load(buf, index.into()))
}
/// Vector number `index` of `width` lanes from the weights.
pub fn load_vec(width: u32, index: impl Into<Expr>) -> Expr {
    let index = index.into();
    if width == 1 { load(Buf::Weights, index) } else { Expr::new(Ty::Vec(width), Node::LoadVec(index)) }
}

/// The floats at `index`, `index + step`, ... in the lanes of a vector (one lane: a float). The step is 1 or 2.
pub fn load_row(buf: Buf, width: u32, index: impl Into<Expr>, step: u32) -> Expr {
    assert!(matches!(step, 1 | 2), "rows are read with a step of 1 or 2, not {step}");
    let index = index.into();
    if width == 1 { load(buf, index) } else { Expr::new(Ty::Vec(width), Node::LoadRow(buf, index, step)) }
}
/// The number of this invocation in its subgroup.
pub fn neighbour() -> Expr {
    Expr::new(Ty::Int, Node::Neighbour)
}
/// The float that neighbour `number` of the subgroup has in `value`, a name. All of the subgroup must come here.
pub fn from_neighbour(value: &Expr, number: u32) -> Expr {
    assert_eq!(value.ty, Ty::Float);
    Expr::new(Ty::Float, Node::FromNeighbour(value.clone(), number))
}

/// A statement.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Stmt {
    Let(String, Expr),
    Var(String, Expr),
    Set(String, Expr),
    Store(Expr, Expr),
    /// A vector to neighbouring elements from an index on.
    StoreRow(Expr, Expr),
    For {
        var: String,
        from: Expr,
        to: Expr,
        step: i32,
        body: Vec<Stmt>,
    },
    If(Expr, Vec<Stmt>),
}

/// A finished kernel: printed by a dialect, its loops counted for given parameters.
#[derive(Debug)]
pub struct Kernel {
    /// Name, for the text and for messages.
    pub name: String,
    /// Names of the parameters in the order in which they are passed. Each is one 32-bit word.
    pub params: Vec<String>,
    /// The body; it runs once for each invocation with a number below the parameter `total`.
    pub body: Vec<Stmt>,
    /// Lanes of the vectors that it loads, if any.
    pub width: u32,
    /// Whether invocations of a subgroup work together.
    pub together: bool,
}

/// The most parameters that one launch can carry (one 256-byte slot).
pub const MAX_PARAMS: usize = 64;

impl Kernel {
    /// The most loop iterations that one invocation can make with these parameters: all loops, nested and in sequence, together.
    /// `None` when a bound is not made of literals and parameters.
    pub fn loop_bound(&self, params: &[u32]) -> Option<u64> {
        count(&self.body, params)
    }
}

fn count(body: &[Stmt], params: &[u32]) -> Option<u64> {
    let mut sum = 0u64;
    for s in body {
        match s {
            Stmt::For { from, to, step, body, .. } => {
                let span = (value(to, params)? - value(from, params)?).max(0) as u64;
                let trips = span.div_ceil(*step as u64);
                sum = sum.saturating_add(trips.saturating_mul(1 + count(body, params)?));
            }
            Stmt::If(_, body) => sum = sum.saturating_add(count(body, params)?),
            _ => {}
        }
    }
    Some(sum)
}

fn value(e: &Expr, params: &[u32]) -> Option<i64> {
    Some(match &*e.node {
        Node::Int(v) => *v as i64,
        Node::Param(p, _) => params[*p] as i32 as i64,
        Node::Binary(op, a, b) => {
            let (a, b) = (value(a, params)?, value(b, params)?);
            match op {
                Op::Add => a + b,
                Op::Sub => a - b,
                Op::Mul => a * b,
                Op::Div => a.checked_div(b)?,
                Op::Rem => a.checked_rem(b)?,
                _ => return None,
            }
        }
        _ => return None,
    })
}
