//! Prints a kernel as text. What differs between the languages is in [`Dialect`]; it refuses to know any kernel.

use super::ir::{Buf, Expr, Fun, Kernel, Node, Op, Stmt, Ty};
use std::fmt::Write;

/// Invocations in one workgroup.
pub const WORKGROUP: u32 = 64;

/// A kernel language.
pub trait Dialect: Send + Sync {
    /// Everything before the parameters: buffers and the opening of the entry function, which defines `invocation`.
    fn open(&self, kernel: &Kernel) -> String;
    /// The text of parameter `index`.
    fn param(&self, index: usize) -> String;
    /// The name of a type.
    fn ty(&self, ty: Ty) -> String;
    /// Declares `name`; `fixed` says that it is never assigned again.
    fn declare(&self, fixed: bool, ty: Ty, name: &str, value: &str) -> String;
    /// A choice between two values of type `ty`.
    fn select(&self, condition: &str, yes: &str, no: &str) -> String;
    /// Vector number `index` of the weights.
    fn load_vec(&self, width: u32, index: &str) -> String;
    /// `width` floats of `buf` from `index` on, with a step of 1 or 2.
    fn load_row(&self, buf: &str, width: u32, index: &str, step: u32) -> String;
    /// Stores `width` floats in the arena from `index` on; `value` is a name.
    fn store_row(&self, width: u32, index: &str, value: &str) -> Vec<String>;
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

/// The text of `kernel` in `dialect`.
pub fn print(kernel: &Kernel, dialect: &dyn Dialect) -> String {
    let mut p = Printer { dialect, out: dialect.open(kernel), indent: 1 };
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
                Stmt::Store(at, e) => self.line(&format!("arena[{}] = {};", self.expr(at), self.expr(e))),
                Stmt::StoreRow(at, e) => {
                    for line in self.dialect.store_row(width(e.ty), &self.expr(at), &self.expr(e)) {
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
            Node::Load(buf, at) => format!("{}[{}]", name(*buf), self.expr(at)),
            Node::LoadRow(buf, at, step) => d.load_row(name(*buf), width(e.ty), &self.expr(at), *step),
            Node::Neighbour => "neighbour".to_string(),
            Node::FromNeighbour(a, number) => d.told_by(&self.expr(a), *number),
            Node::LoadVec(at) => d.load_vec(width(e.ty), &self.expr(at)),
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
    fn open(&self, kernel: &Kernel) -> String {
        // naga knows subgroups without, and not with, the line `enable subgroups;`.
        let mut s = format!("// {}\n", kernel.name);
        s.push_str("struct Params { words: array<vec4<i32>, 16> }\n");
        s.push_str("@group(0) @binding(0) var<uniform> params: Params;\n");
        s.push_str("@group(0) @binding(1) var<storage, read_write> arena: array<f32>;\n");
        s.push_str("@group(0) @binding(2) var<storage, read> weights: array<f32>;\n");
        s.push_str("@group(0) @binding(3) var<storage, read> weights4: array<vec4<f32>>;\n");
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
    fn load_vec(&self, width: u32, index: &str) -> String {
        assert_eq!(width, 4, "WGSL vectors have at most four lanes");
        format!("weights4[{index}]")
    }
    fn load_row(&self, buf: &str, width: u32, index: &str, step: u32) -> String {
        let parts: Vec<String> = (0..width).map(|l| format!("{buf}[{index} + {}]", l * step)).collect();
        self.vector(width, &parts)
    }
    fn store_row(&self, width: u32, index: &str, value: &str) -> Vec<String> {
        (0..width).map(|l| format!("arena[{index} + {l}] = {value}{};", self.lane(l))).collect()
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

/// OpenCL C 1.2.
#[derive(Debug)]
pub struct OpenClC;

impl Dialect for OpenClC {
    fn open(&self, kernel: &Kernel) -> String {
        let mut s = format!("// {}\n", kernel.name);
        s.push_str("__kernel void entry(__global const int *params, const int slot, ");
        s.push_str("__global float *arena, __global const float *weights) {\n");
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
    fn load_vec(&self, width: u32, index: &str) -> String {
        format!("vload{width}({index}, weights)")
    }
    fn load_row(&self, buf: &str, width: u32, index: &str, step: u32) -> String {
        match step {
            1 => format!("vload{width}(0, {buf} + {index})"),
            _ => format!(
                "((float{width})(vload{width}(0, {buf} + {index}).even, vload{width}(0, {buf} + {index} + {width}).even))"
            ),
        }
    }
    fn store_row(&self, width: u32, index: &str, value: &str) -> Vec<String> {
        vec![format!("vstore{width}({value}, 0, arena + {index});")]
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
