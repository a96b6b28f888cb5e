//! WGSL, for wgpu. It refuses vectors of more than four lanes.

use super::{Dialect, Index, Kept};
use crate::gpu::kernel::ir::{Fun, Kernel, Node, Ty};
use crate::processor::Storage;
use std::collections::BTreeMap;

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
    fn load(&self, kept: Storage, buf: &str, index: &Index) -> String {
        match kept {
            Storage::F32 => format!("{buf}[{}]", index.sum()),
            Storage::F16 => format!("f32({buf}[{}])", index.sum()),
        }
    }
    fn store(&self, kept: Storage, index: &Index, value: &str) -> String {
        match kept {
            Storage::F32 => format!("arena[{}] = {value};", index.sum()),
            Storage::F16 => format!("arena[{}] = f16({value});", index.sum()),
        }
    }
    fn load_vec(&self, kept: Storage, width: u32, index: &Index) -> String {
        assert_eq!(width, 4, "WGSL vectors have at most four lanes");
        match kept {
            Storage::F32 => format!("weights4[{}]", index.sum()),
            Storage::F16 => format!("vec4<f32>(weights4[{}])", index.sum()),
        }
    }
    fn load_row(&self, kept: Storage, buf: &str, width: u32, index: &Index, step: u32) -> String {
        let part = |l| self.load(kept, buf, &lane_at(index, l * step));
        let parts: Vec<String> = (0..width).map(part).collect();
        self.vector(width, &parts)
    }
    fn store_row(&self, kept: Storage, width: u32, index: &Index, value: &str) -> Vec<String> {
        let lane = |l| self.store(kept, &lane_at(index, l), &format!("{value}{}", self.lane(l)));
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
    fn function(&self, fun: Fun, _: u32, _: &mut BTreeMap<String, String>) -> String {
        let name = match fun {
            Fun::Exp => "exp",
            Fun::Log => "log",
            Fun::Sqrt => "sqrt",
            Fun::Abs => "abs",
            Fun::Floor => "floor",
            Fun::Pow => "pow",
        };
        name.into()
    }
}

/// So many elements further on.
fn lane_at(index: &Index, further: u32) -> Index {
    Index(vec![format!("{} + {further}", index.sum())])
}
