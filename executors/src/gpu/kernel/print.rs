//! Prints a kernel as text. What differs between the languages is in [`Dialect`]; it refuses to know any kernel.

use super::ir::{Buf, Expr, Fun, Kernel, Node, Op, Stmt, Ty};
use crate::processor::Storage;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write;

mod opencl;
mod wgsl;

pub use opencl::OpenClC;
pub use wgsl::Wgsl;

/// Invocations in one workgroup.
pub const WORKGROUP: u32 = 64;

/// How the numbers lie in the buffers of a kernel. It computes in f32 whatever this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kept {
    /// Of [`Buf::Arena`].
    pub arena: Storage,
    /// Of [`Buf::Weights`].
    pub weights: Storage,
}

impl Kept {
    fn of(self, buf: Buf) -> Storage {
        match buf {
            Buf::Arena => self.arena,
            Buf::Weights => self.weights,
        }
    }
}

/// The terms of a sum that is an index: one at least.
pub struct Index(Vec<String>);

impl Index {
    /// As one number.
    fn sum(&self) -> String {
        let (first, rest) = self.0.split_first().expect("an index has a term");
        rest.iter().fold(first.clone(), |sum, term| format!("({sum} + {term})"))
    }
}

/// A kernel language.
pub trait Dialect: Send + Sync {
    /// Everything before the parameters: buffers and the opening of the entry function, which defines `invocation`.
    fn open(&self, kernel: &Kernel, kept: Kept) -> String;
    /// The text of parameter `index`.
    fn param(&self, index: usize) -> String;
    /// The name of a type.
    fn ty(&self, ty: Ty) -> String;
    /// Declares `name`; `fixed` says that it is never assigned again.
    fn declare(&self, fixed: bool, ty: Ty, name: &str, value: &str) -> String;
    /// A choice between two values of type `ty`.
    fn select(&self, condition: &str, yes: &str, no: &str) -> String;
    /// The float at `index` of `buf`, whose numbers are stored as `kept`.
    fn load(&self, kept: Storage, buf: &str, index: &Index) -> String;
    /// Stores a float in the arena.
    fn store(&self, kept: Storage, index: &Index, value: &str) -> String;
    /// Vector number `index` of the weights.
    fn load_vec(&self, kept: Storage, width: u32, index: &Index) -> String;
    /// `width` floats of `buf` from `index` on, with a step of 1 or 2.
    fn load_row(&self, kept: Storage, buf: &str, width: u32, index: &Index, step: u32) -> String;
    /// Stores `width` floats in the arena from `index` on; `value` is a name.
    fn store_row(&self, kept: Storage, width: u32, index: &Index, value: &str) -> Vec<String>;
    /// What neighbour `number` of the subgroup has in `value`.
    fn told_by(&self, value: &str, number: u32) -> String;
    /// A vector from one or `width` texts.
    fn vector(&self, width: u32, parts: &[String]) -> String;
    /// The suffix that picks a lane.
    fn lane(&self, lane: u32) -> String;
    /// Int to float, float to int, int bits to float.
    fn convert(&self, node: &Node, inner: &str) -> String;
    /// The name of a function of `width` lanes; what is not built in is written to `defined`, once for each name.
    fn function(&self, fun: Fun, width: u32, defined: &mut BTreeMap<String, String>) -> String;
}

/// The text of `kernel` in `dialect`, for buffers of such numbers.
pub fn print(kernel: &Kernel, dialect: &dyn Dialect, kept: Kept) -> String {
    let out = dialect.open(kernel, kept);
    let mut p = Printer { dialect, kept, out, indent: 1, defined: RefCell::default() };
    for (i, name) in kernel.params.iter().enumerate() {
        let line = dialect.declare(true, Ty::Int, &format!("p_{name}"), &dialect.param(i));
        p.line(&line);
    }
    p.line("if (invocation >= p_total) { return; }");
    p.block(&kernel.body);
    p.out.push_str("}\n");
    let defined = p.defined.into_inner();
    defined.into_values().chain([p.out]).collect()
}

struct Printer<'d> {
    dialect: &'d dyn Dialect,
    kept: Kept,
    out: String,
    indent: usize,
    /// Functions that the text needs, by name.
    defined: RefCell<BTreeMap<String, String>>,
}

impl Printer<'_> {
    fn line(&mut self, text: &str) {
        writeln!(self.out, "{:1$}{text}", "", self.indent * 2).expect("writing to a string");
    }

    fn nested(&mut self, body: &[Stmt]) {
        self.indent += 1;
        self.block(body);
        self.indent -= 1;
        self.line("}");
    }

    fn block(&mut self, body: &[Stmt]) {
        for s in body {
            match s {
                Stmt::Let(name, e) => {
                    let line = self.dialect.declare(true, e.ty, name, &self.expr(e));
                    self.line(&line);
                }
                Stmt::Var(name, e) => {
                    let line = self.dialect.declare(false, e.ty, name, &self.expr(e));
                    self.line(&line);
                }
                Stmt::Set(name, e) => self.line(&format!("{name} = {};", self.expr(e))),
                Stmt::Store(at, e) => {
                    let line = self.dialect.store(self.kept.arena, &self.index(at), &self.expr(e));
                    self.line(&line);
                }
                Stmt::StoreRow(at, e) => {
                    let (at, value) = (self.index(at), self.expr(e));
                    for line in self.dialect.store_row(self.kept.arena, width(e.ty), &at, &value) {
                        self.line(&line);
                    }
                }
                Stmt::For { var, from, to, step, body } => {
                    let first = self.dialect.declare(false, Ty::Int, var, &self.expr(from));
                    let to = self.expr(to);
                    self.line(&format!("for ({first} {var} < {to}; {var} += {step}) {{"));
                    self.nested(body);
                }
                Stmt::If(condition, body) => {
                    self.line(&format!("if ({}) {{", self.expr(condition)));
                    self.nested(body);
                }
            }
        }
    }

    fn index(&self, e: &Expr) -> Index {
        match &*e.node {
            Node::Binary(Op::Add, a, b) => {
                let mut index = self.index(a);
                index.0.push(self.expr(b));
                index
            }
            _ => Index(vec![self.expr(e)]),
        }
    }

    fn expr(&self, e: &Expr) -> String {
        let d = self.dialect;
        match &*e.node {
            Node::Int(v) if *v < 0 => format!("({v})"),
            Node::Int(v) => v.to_string(),
            // The shortest text that reads back as the same float is valid in both languages.
            Node::Float(v) if *v < 0.0 => format!("({v:?}f)"),
            Node::Float(v) => format!("{v:?}f"),
            Node::Var(name) => name.clone(),
            Node::Param(_, name) => format!("p_{name}"),
            Node::Invocation => "invocation".to_string(),
            Node::Binary(Op::And, a, b) if matches!(e.ty, Ty::Mask(_)) => {
                format!("({} & {})", self.expr(a), self.expr(b))
            }
            Node::Binary(op, a, b) => format!("({} {} {})", self.expr(a), symbol(*op), self.expr(b)),
            Node::Neg(a) => format!("(-{})", self.expr(a)),
            Node::Call(fun, args) => {
                let args: Vec<String> = args.iter().map(|a| self.expr(a)).collect();
                let name = d.function(*fun, width(e.ty), &mut self.defined.borrow_mut());
                format!("{name}({})", args.join(", "))
            }
            Node::Select(c, yes, no) => d.select(&self.expr(c), &self.expr(yes), &self.expr(no)),
            Node::Load(buf, at) => d.load(self.kept.of(*buf), name(*buf), &self.index(at)),
            Node::LoadRow(buf, at, step) => {
                d.load_row(self.kept.of(*buf), name(*buf), width(e.ty), &self.index(at), *step)
            }
            Node::Neighbour => "neighbour".to_string(),
            Node::FromNeighbour(a, number) => d.told_by(&self.expr(a), *number),
            Node::LoadVec(at) => d.load_vec(self.kept.weights, width(e.ty), &self.index(at)),
            Node::Splat(a) => d.vector(width(e.ty), &[self.expr(a)]),
            Node::Lanes(all) => {
                let parts: Vec<String> = all.iter().map(|a| self.expr(a)).collect();
                d.vector(width(e.ty), &parts)
            }
            Node::Lane(a, lane) => format!("{}{}", self.expr(a), d.lane(*lane)),
            Node::ToFloat(a) | Node::ToInt(a) | Node::BitsToFloat(a) => d.convert(&e.node, &self.expr(a)),
        }
    }
}

fn name(buf: Buf) -> &'static str {
    match buf {
        Buf::Arena => "arena",
        Buf::Weights => "weights",
    }
}

fn width(ty: Ty) -> u32 {
    match ty {
        Ty::Vec(n) | Ty::Mask(n) => n,
        _ => 1,
    }
}

fn symbol(op: Op) -> &'static str {
    match op {
        Op::Add => "+",
        Op::Sub => "-",
        Op::Mul => "*",
        Op::Div => "/",
        Op::Rem => "%",
        Op::Lt => "<",
        Op::Le => "<=",
        Op::Gt => ">",
        Op::Ge => ">=",
        Op::Eq => "==",
        Op::And => "&&",
        Op::Or => "||",
    }
}
