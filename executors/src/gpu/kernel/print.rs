//! Prints a kernel as text. What differs between the languages is in [`Dialect`]; it refuses to know any kernel.

use super::ir::{Buf, Expr, Fun, Kernel, Node, Op, Stmt, Ty};
use crate::processor::Storage;
use std::fmt::Write;

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
    fn load(&self, kept: Storage, buf: &str, index: &str) -> String;
    /// Stores a float in the arena.
    fn store(&self, kept: Storage, index: &str, value: &str) -> String;
    /// Vector number `index` of the weights.
    fn load_vec(&self, kept: Storage, width: u32, index: &str) -> String;
    /// `width` floats of `buf` from `index` on, with a step of 1 or 2.
    fn load_row(&self, kept: Storage, buf: &str, width: u32, index: &str, step: u32) -> String;
    /// Stores `width` floats in the arena from `index` on; `value` is a name.
    fn store_row(&self, kept: Storage, width: u32, index: &str, value: &str) -> Vec<String>;
    /// What neighbour `number` of the subgroup has in `value`.
    fn told_by(&self, value: &str, number: u32) -> String;
    /// A vector from one or `width` texts.
    fn vector(&self, width: u32, parts: &[String]) -> String;
    /// The suffix that picks a lane.
    fn lane(&self, lane: u32) -> String;
    /// Int to float, float to int, int bits to float.
    fn convert(&self, node: &Node, inner: &str) -> String;
    /// The name of a built-in function.
    fn function(&self, fun: Fun) -> &'static str;
}

/// The text of `kernel` in `dialect`, for buffers of such numbers.
pub fn print(kernel: &Kernel, dialect: &dyn Dialect, kept: Kept) -> String {
    let mut p = Printer { dialect, kept, out: dialect.open(kernel, kept), indent: 1 };
    for (i, name) in kernel.params.iter().enumerate() {
        let line = dialect.declare(true, Ty::Int, &format!("p_{name}"), &dialect.param(i));
        p.line(&line);
    }
    p.line("if (invocation >= p_total) { return; }");
    p.block(&kernel.body);
    p.out.push_str("}\n");
    p.out
}

struct Printer<'d> {
    dialect: &'d dyn Dialect,
    kept: Kept,
    out: String,
    indent: usize,
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
                    let line = self.dialect.store(self.kept.arena, &self.expr(at), &self.expr(e));
                    self.line(&line);
                }
                Stmt::StoreRow(at, e) => {
                    let (at, value) = (self.expr(at), self.expr(e));
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
                format!("{}({})", d.function(*fun), args.join(", "))
            }
            Node::Select(c, yes, no) => d.select(&self.expr(c), &self.expr(yes), &self.expr(no)),
            Node::Load(buf, at) => d.load(self.kept.of(*buf), name(*buf), &self.expr(at)),
            Node::LoadRow(buf, at, step) => {
                d.load_row(self.kept.of(*buf), name(*buf), width(e.ty), &self.expr(at), *step)
            }
            Node::Neighbour => "neighbour".to_string(),
            Node::FromNeighbour(a, number) => d.told_by(&self.expr(a), *number),
            Node::LoadVec(at) => d.load_vec(self.kept.weights, width(e.ty), &self.expr(at)),
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

/// WGSL, for wgpu.
#[derive(Debug)]
pub struct Wgsl;

impl Dialect for Wgsl {
    fn open(&self, kernel: &Kernel, kept: Kept) -> String {
        // naga knows subgroups without, and not with, the line `enable subgroups;`.
        let mut s = format!("// {}\n", kernel.name);
        if [kept.arena, kept.weights].contains(&Storage::F16) {
            s.insert_str(0, "enable f16;\n");
        }
        let (arena, weights) = (kept.arena.name(), kept.weights.name());
        s.push_str("struct Params { words: array<vec4<i32>, 16> }\n");
        s.push_str("@group(0) @binding(0) var<uniform> params: Params;\n");
        s += &format!("@group(0) @binding(1) var<storage, read_write> arena: array<{arena}>;\n");
        s += &format!("@group(0) @binding(2) var<storage, read> weights: array<{weights}>;\n");
        s += &format!("@group(0) @binding(3) var<storage, read> weights4: array<vec4<{weights}>>;\n");
        s.push_str("@compute @workgroup_size(64)\nfn entry(@builtin(workgroup_id) group: vec3<u32>, ");
        s.push_str("@builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32");
        let (more, number) = match kernel.together {
            true => {
                (", @builtin(subgroup_invocation_id) subgroup: u32", "  let neighbour = i32(subgroup);\n")
            }
            false => ("", ""),
        };
        s.push_str(more);
        s.push_str(") {\n");
        s.push_str(number);
        s.push_str("  let invocation = i32((group.y * groups.x + group.x) * 64u + local);\n");
        s
    }
    fn param(&self, index: usize) -> String {
        format!("params.words[{}].{}", index / 4, ["x", "y", "z", "w"][index % 4])
    }
    fn ty(&self, ty: Ty) -> String {
        match ty {
            Ty::Bool => "bool".into(),
            Ty::Int => "i32".into(),
            Ty::Float => "f32".into(),
            Ty::Vec(n) => format!("vec{n}<f32>"),
            Ty::Mask(n) => format!("vec{n}<bool>"),
        }
    }
    fn declare(&self, fixed: bool, ty: Ty, name: &str, value: &str) -> String {
        format!("{} {name}: {} = {value};", if fixed { "let" } else { "var" }, self.ty(ty))
    }
    fn select(&self, condition: &str, yes: &str, no: &str) -> String {
        format!("select({no}, {yes}, {condition})")
    }
    fn load(&self, kept: Storage, buf: &str, index: &str) -> String {
        match kept {
            Storage::F32 => format!("{buf}[{index}]"),
            Storage::F16 => format!("f32({buf}[{index}])"),
        }
    }
    fn store(&self, kept: Storage, index: &str, value: &str) -> String {
        match kept {
            Storage::F32 => format!("arena[{index}] = {value};"),
            Storage::F16 => format!("arena[{index}] = f16({value});"),
        }
    }
    fn load_vec(&self, kept: Storage, width: u32, index: &str) -> String {
        assert_eq!(width, 4, "WGSL vectors have at most four lanes");
        match kept {
            Storage::F32 => format!("weights4[{index}]"),
            Storage::F16 => format!("vec4<f32>(weights4[{index}])"),
        }
    }
    fn load_row(&self, kept: Storage, buf: &str, width: u32, index: &str, step: u32) -> String {
        let part = |l| self.load(kept, buf, &format!("{index} + {}", l * step));
        let parts: Vec<String> = (0..width).map(part).collect();
        self.vector(width, &parts)
    }
    fn store_row(&self, kept: Storage, width: u32, index: &str, value: &str) -> Vec<String> {
        let lane = |l| self.store(kept, &format!("{index} + {l}"), &format!("{value}{}", self.lane(l)));
        (0..width).map(lane).collect()
    }
    fn told_by(&self, value: &str, number: u32) -> String {
        format!("subgroupBroadcast({value}, {number}u)")
    }
    fn vector(&self, width: u32, parts: &[String]) -> String {
        format!("vec{width}<f32>({})", parts.join(", "))
    }
    fn lane(&self, lane: u32) -> String {
        format!(".{}", ["x", "y", "z", "w"][lane as usize])
    }
    fn convert(&self, node: &Node, inner: &str) -> String {
        match node {
            Node::ToFloat(_) => format!("f32({inner})"),
            Node::ToInt(_) => format!("i32({inner})"),
            _ => format!("bitcast<f32>({inner})"),
        }
    }
    fn function(&self, fun: Fun) -> &'static str {
        match fun {
            Fun::Exp => "exp",
            Fun::Log => "log",
            Fun::Sqrt => "sqrt",
            Fun::Abs => "abs",
            Fun::Floor => "floor",
            Fun::Pow => "pow",
        }
    }
}

/// What the functions for vectors have in their names; those for 16 bits are in `halves.cl`.
fn half(kept: Storage) -> &'static str {
    if kept == Storage::F16 { "_halves" } else { "" }
}

/// OpenCL C 1.2.
#[derive(Debug)]
pub struct OpenClC;

impl Dialect for OpenClC {
    fn open(&self, kernel: &Kernel, kept: Kept) -> String {
        let of = |kept| match kept {
            Storage::F32 => "float",
            // A pointer to it needs no extension, nor do the functions that load and store through it.
            Storage::F16 => "half",
        };
        let (arena, weights) = (of(kept.arena), of(kept.weights));
        let mut s = format!("// {}\n", kernel.name);
        if [kept.arena, kept.weights].contains(&Storage::F16) {
            s.push_str(include_str!("halves.cl"));
        }
        s.push_str("__kernel void entry(__global const int *params, const int slot, ");
        s += &format!("__global {arena} *arena, __global const {weights} *weights) {{\n");
        s.push_str("  const int invocation = (int)get_global_id(0);\n");
        s
    }
    fn param(&self, index: usize) -> String {
        format!("params[slot + {index}]")
    }
    fn ty(&self, ty: Ty) -> String {
        match ty {
            Ty::Bool | Ty::Int => "int".into(),
            Ty::Float => "float".into(),
            Ty::Vec(n) => format!("float{n}"),
            Ty::Mask(n) => format!("int{n}"),
        }
    }
    fn declare(&self, fixed: bool, ty: Ty, name: &str, value: &str) -> String {
        format!("{}{} {name} = {value};", if fixed { "const " } else { "" }, self.ty(ty))
    }
    fn select(&self, condition: &str, yes: &str, no: &str) -> String {
        format!("({condition} ? {yes} : {no})")
    }
    fn load(&self, kept: Storage, buf: &str, index: &str) -> String {
        match kept {
            Storage::F32 => format!("{buf}[{index}]"),
            Storage::F16 => format!("vload_half({index}, {buf})"),
        }
    }
    fn store(&self, kept: Storage, index: &str, value: &str) -> String {
        match kept {
            Storage::F32 => format!("arena[{index}] = {value};"),
            Storage::F16 => format!("vstore_half({value}, {index}, arena);"),
        }
    }
    fn load_vec(&self, kept: Storage, width: u32, index: &str) -> String {
        format!("vload{}{width}({index}, weights)", half(kept))
    }
    fn load_row(&self, kept: Storage, buf: &str, width: u32, index: &str, step: u32) -> String {
        let load = format!("vload{}{width}(0, {buf} + {index}", half(kept));
        match step {
            1 => format!("{load})"),
            _ => format!("((float{width})({load}).even, {load} + {width}).even))"),
        }
    }
    fn store_row(&self, kept: Storage, width: u32, index: &str, value: &str) -> Vec<String> {
        vec![format!("vstore{}{width}({value}, 0, arena + {index});", half(kept))]
    }
    fn told_by(&self, _: &str, _: u32) -> String {
        unreachable!("the lowering gives subgroups to WGSL only")
    }
    fn vector(&self, width: u32, parts: &[String]) -> String {
        format!("((float{width})({}))", parts.join(", "))
    }
    fn lane(&self, lane: u32) -> String {
        format!(".s{lane:x}")
    }
    fn convert(&self, node: &Node, inner: &str) -> String {
        match node {
            Node::ToFloat(_) => format!("convert_float({inner})"),
            Node::ToInt(_) => format!("convert_int({inner})"),
            _ => format!("as_float({inner})"),
        }
    }
    fn function(&self, fun: Fun) -> &'static str {
        match fun {
            Fun::Exp => "exp",
            Fun::Log => "log",
            Fun::Sqrt => "sqrt",
            Fun::Abs => "fabs",
            Fun::Floor => "floor",
            Fun::Pow => "pow",
        }
    }
}
