//! OpenCL C 1.2. It refuses extensions.
//!
//! The terms of an index are added to a pointer one by one, in the order in which they are written: what does not change in a loop stands first and
//! is added once, and nothing is extended to 64 bits for each load. The compiler does neither with a sum of 32-bit numbers.

use super::{Dialect, Index, Kept};
use crate::gpu::kernel::ir::{Fun, Kernel, Node, Ty};
use crate::processor::Storage;
use std::collections::BTreeMap;

/// What the functions for vectors have in their names; those for 16 bits are in `halves.cl`.
fn half(kept: Storage) -> &'static str {
    if kept == Storage::F16 { "_halves" } else { "" }
}

/// The dialect.
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
            s.push_str(include_str!("../halves.cl"));
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
    fn load(&self, kept: Storage, buf: &str, index: &Index) -> String {
        match kept {
            Storage::F32 => format!("*({buf} + {})", index.0.join(" + ")),
            Storage::F16 => format!("vload_half({}, {buf})", index.sum()),
        }
    }
    fn store(&self, kept: Storage, index: &Index, value: &str) -> String {
        match kept {
            Storage::F32 => format!("*(arena + {}) = {value};", index.0.join(" + ")),
            Storage::F16 => format!("vstore_half({value}, {}, arena);", index.sum()),
        }
    }
    fn load_vec(&self, kept: Storage, width: u32, index: &Index) -> String {
        let terms: Vec<String> = index.0.iter().map(|term| format!("{width} * {term}")).collect();
        format!("vload{}{width}(0, weights + {})", half(kept), terms.join(" + "))
    }
    fn load_row(&self, kept: Storage, buf: &str, width: u32, index: &Index, step: u32) -> String {
        let load = format!("vload{}{width}(0, {buf} + {}", half(kept), index.0.join(" + "));
        match step {
            1 => format!("{load})"),
            _ => format!("((float{width})({load}).even, {load} + {width}).even))"),
        }
    }
    fn store_row(&self, kept: Storage, width: u32, index: &Index, value: &str) -> Vec<String> {
        vec![format!("vstore{}{width}({value}, 0, arena + {});", half(kept), index.0.join(" + "))]
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
    fn function(&self, fun: Fun, width: u32, defined: &mut BTreeMap<String, String>) -> String {
        let name = match fun {
            Fun::Exp if width > 1 => {
                let name = format!("exp_of_{width}");
                defined.entry(name.clone()).or_insert_with(|| exp(width));
                return name;
            }
            Fun::Exp => "exp",
            Fun::Log => "log",
            Fun::Sqrt => "sqrt",
            Fun::Abs => "fabs",
            Fun::Floor => "floor",
            Fun::Pow => "pow",
        };
        name.into()
    }
}

/// The exponential function of a vector, off by less than two units in the last place: `2^k e^r` with whole `k` and `|r| < 0.35`. Shorter
/// than the built-in one of pocl; what is below `e^-87` is 0. NaN stays NaN, and what is too large infinite. Adding 1.5 times 2^23 rounds, and
/// leaves `k` in the lowest bits.
fn exp(width: u32) -> String {
    let v = format!("float{width}");
    let mut s = format!("{v} exp_of_{width}({v} x) {{\n");
    s += &format!("  const {v} y = ((x > ({v})(89.0f)) ? ({v})(89.0f) : x);\n");
    s += &format!("  const {v} t = (y * ({v})(1.442695f) + ({v})(12582912.0f));\n");
    s += &format!("  const {v} k = (t - ({v})(12582912.0f));\n");
    // The logarithm of 2 in two parts: the first times `k` is exact.
    s += &format!("  const {v} r = ((y - k * ({v})(0.693359375f)) + k * ({v})(2.121944e-4f));\n");
    // Least relative error of all such polynomials.
    s += &format!("  {v} p = (({v})(0.0013814467f) * r + ({v})(0.008368781f));\n");
    for c in ["0.041668393f", "0.1666652f", "0.49999994f", "1.0f", "1.0f"] {
        s += &format!("  p = (p * r + ({v})({c}));\n");
    }
    // 2^k itself may be too large: half of it, twice.
    s += &format!("  const {v} scale = as_{v}((as_int{width}(t) << 23) + (int{width})(126 << 23));\n");
    s += &format!("  return ((x < ({v})(-87.0f)) ? ({v})(0.0f) : ((p + p) * scale));\n}}\n");
    s
}
