//! The shared lowering: a graph becomes a plan of steps that both devices run as they are.
//! It refuses, with a reason, every node that the kernels cannot run exactly, and never falls back in silence.

mod args;
pub mod choice;
mod conv;
mod copy;
mod elementwise;
pub mod fuse;
mod layer;
mod matmul;
mod movement;
mod packing;
mod plan;
mod product;
mod reduce;
mod shapes;
mod slices;
mod spatial;
mod views;
mod window;
mod winograd;
mod written;

use super::kernel::Spec;
use super::kernel::unary::Unary;
use crate::graph::{Graph, Node, Value, ValueId};
use crate::processor::Storage;
use crate::tensor::{DType, Tensor};
use args::{Arg, Args, Operand};
use choice::{Choice, Met};
use fuse::Group;
pub use plan::{Page, Plan, Source, Span, Step};
use shapes::{axis_of, dense, elements, merge};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What the lowering must know of a device.
#[derive(Clone, Debug)]
pub struct Target {
    /// Widest vector of floats that pays.
    pub width: u32,
    /// Whether vectors of neighbouring positions pay: where a vector is the SIMD unit.
    pub rows: bool,
    /// Output positions an invocation.
    pub pixels: u32,
    /// Invocations of a subgroup that may load weights for each other; 0: that does not pay.
    pub share: u32,
    /// The largest buffer that a kernel may see, in bytes.
    pub max_binding: usize,
    /// How numbers are stored.
    pub storage: Storage,
    /// Choices that were measured, by problem.
    pub tuned: Arc<BTreeMap<String, Choice>>,
}

/// The most loop iterations one invocation may make: the software Vulkan of Debian 12 silently stops beyond.
pub const MAX_LOOPS: u64 = 65_534;

/// Lowers one operator; the error is the reason why it cannot.
type LowerOp = fn(&mut Lower<'_>, &Group<'_>) -> Result<(), String>;

/// Every operator: a new one is one line here and one function.
static OPS: &[(&str, LowerOp)] = &[
    ("Add", elementwise::binary),
    ("AveragePool", window::pool),
    ("BatchNormalization", elementwise::batch_norm),
    ("Cast", views::cast),
    ("Concat", movement::concat),
    ("Conv", conv::conv),
    ("ConvTranspose", conv::conv),
    ("Div", elementwise::binary),
    ("Dropout", views::view),
    ("Expand", movement::expand),
    ("Flatten", views::view),
    ("Gather", movement::gather),
    ("Gemm", matmul::gemm),
    ("GlobalAveragePool", reduce::global_pool),
    ("GlobalMaxPool", reduce::global_pool),
    ("Identity", views::view),
    ("LRN", reduce::lrn),
    ("LayerNormalization", reduce::layer_norm),
    ("LogSoftmax", reduce::softmax),
    ("MatMul", matmul::matmul),
    ("Max", elementwise::binary),
    ("MaxPool", window::pool),
    ("Min", elementwise::binary),
    ("Mul", elementwise::binary),
    ("PRelu", elementwise::binary),
    ("Pad", movement::pad),
    ("Pow", elementwise::pow),
    ("ReduceMax", reduce::reduce),
    ("ReduceMean", reduce::reduce),
    ("ReduceMin", reduce::reduce),
    ("ReduceSum", reduce::reduce),
    ("Reshape", views::view),
    ("Resize", window::resize),
    ("Slice", movement::slice),
    ("Softmax", reduce::softmax),
    ("Split", movement::split),
    ("Squeeze", views::view),
    ("Sub", elementwise::binary),
    ("Sum", elementwise::binary),
    ("Transpose", movement::transpose),
    ("Unsqueeze", views::view),
];

/// Names of all operators that some kernel serves.
pub fn operators() -> Vec<&'static str> {
    let mut all: Vec<&str> =
        OPS.iter().map(|(name, _)| *name).chain(elementwise::UNARY.iter().copied()).collect();
    all.sort_unstable();
    all
}

/// Constants of one step before they are packed.
struct Blob<'g> {
    floats: usize,
    fill: Box<dyn Fn() -> Vec<f32> + 'g>,
}

struct Draft {
    node: String,
    spec: Spec,
    args: Args,
    total: usize,
    flops: u64,
}

/// The lowering of one graph in progress.
pub(super) struct Lower<'g> {
    graph: &'g Graph,
    target: &'g Target,
    slots: Vec<usize>,
    places: HashMap<ValueId, usize>,
    raw: HashMap<ValueId, usize>,
    blobs: Vec<Blob<'g>>,
    drafts: Vec<Draft>,
    node: String,
    met: Vec<Met>,
}

impl<'g> Lower<'g> {
    fn new(graph: &'g Graph, target: &'g Target) -> Self {
        Self {
            graph,
            target,
            slots: Vec::new(),
            places: HashMap::new(),
            raw: HashMap::new(),
            blobs: Vec::new(),
            drafts: Vec::new(),
            node: String::new(),
            met: Vec::new(),
        }
    }

    /// The measured choice for a problem, or the best guess. A measured one that is no candidate (any more) does not count.
    fn choose(&mut self, key: String, mut candidates: Vec<Choice>) -> Choice {
        // Its transformed numbers are larger than what comes of them: in 16 bits too much of that is lost.
        if self.target.storage == Storage::F16 {
            candidates.retain(|choice| !matches!(choice, Choice::Winograd { .. }));
        }
        let measured = self.target.tuned.get(&key).filter(|choice| candidates.contains(choice));
        let choice = *measured.unwrap_or(&candidates[0]);
        self.met.push(Met { node: self.node.clone(), key, candidates });
        choice
    }

    /// The `i`-th input of `node`, which must be given, f32 and not empty.
    fn input(&self, node: &Node, i: usize) -> Result<(ValueId, &'g Value), String> {
        let id = node.inputs.get(i).copied().flatten().ok_or_else(|| format!("input {i} is missing"))?;
        let value = self.graph.value(id);
        check(value)?;
        Ok((id, value))
    }

    /// The f32 constant that is the `i`-th input of `node`; `Ok(None)` when that is omitted.
    fn constant(&self, node: &Node, i: usize) -> Result<Option<&'g Arc<Tensor>>, String> {
        let Some(id) = node.inputs.get(i).copied().flatten() else { return Ok(None) };
        let tensor = self.graph.constant(id).ok_or_else(|| format!("input {i} must be constant"))?;
        if tensor.as_f32().is_none() {
            return Err(format!("input {i} is {}, not f32", tensor.dtype()));
        }
        Ok(Some(tensor))
    }

    /// The integers in the constant `i`-th input of `node`; `Ok(None)` when that is omitted.
    fn integers(&self, node: &Node, i: usize) -> Result<Option<Vec<i64>>, String> {
        let Some(id) = node.inputs.get(i).copied().flatten() else { return Ok(None) };
        let tensor = self.graph.constant(id).ok_or_else(|| format!("input {i} must be constant"))?;
        match &tensor.data {
            crate::tensor::Data::I64(v) => Ok(Some(v.clone())),
            crate::tensor::Data::I32(v) => Ok(Some(v.iter().map(|&v| v as i64).collect())),
            _ => Err(format!("input {i} is {}, not an integer list", tensor.dtype())),
        }
    }

    /// Where a value is: in the arena, or among the weights as it is.
    fn operand(&mut self, id: ValueId) -> Operand {
        if let Some(tensor) = self.graph.constant(id) {
            let blob = match self.raw.get(&id) {
                Some(blob) => *blob,
                None => {
                    let tensor = tensor.clone();
                    let floats = tensor.len();
                    let blob = self.blob(floats, move || tensor.as_f32().unwrap_or_default().to_vec());
                    self.raw.insert(id, blob);
                    blob
                }
            };
            return Operand::Blob(blob);
        }
        Operand::Slot(self.slot_of(id))
    }

    fn slot_of(&mut self, id: ValueId) -> usize {
        if let Some(slot) = self.places.get(&id) {
            return *slot;
        }
        let slot = self.scratch(elements(self.graph.value(id)));
        self.places.insert(id, slot);
        slot
    }

    /// Like [`Lower::operand`], but in the arena for certain: constants are copied there.
    fn in_arena(&mut self, id: ValueId) -> Operand {
        match self.operand(id) {
            Operand::Blob(blob) => {
                let floats = elements(self.graph.value(id));
                let slot = Operand::Slot(self.scratch(floats));
                self.copy(Operand::Blob(blob), 0, slot, 0, &[floats], &[1], &[1]).expect("one axis");
                slot
            }
            slot => slot,
        }
    }

    /// A place in the arena for the value `id`.
    fn output(&mut self, id: ValueId) -> Operand {
        Operand::Slot(self.slot_of(id))
    }

    fn scratch(&mut self, floats: usize) -> usize {
        self.slots.push(floats);
        self.slots.len() - 1
    }

    /// `alias` is another view of the elements of `id`.
    fn alias(&mut self, alias: ValueId, id: ValueId) {
        if let Operand::Slot(slot) = self.in_arena(id) {
            self.places.insert(alias, slot);
        }
    }

    fn blob(&mut self, floats: usize, fill: impl Fn() -> Vec<f32> + 'g) -> usize {
        self.blobs.push(Blob { floats, fill: Box::new(fill) });
        self.blobs.len() - 1
    }

    fn emit(&mut self, spec: Spec, args: Args, total: usize) {
        self.emit_work(spec, args, total, 0);
    }

    /// As [`Lower::emit`], for a step of so many multiplications and additions.
    fn emit_work(&mut self, spec: Spec, args: Args, total: usize, flops: usize) {
        let args = args.int("total", total);
        self.drafts.push(Draft { node: self.node.clone(), spec, args, total, flops: flops as u64 });
    }

    fn group(&mut self, group: &Group<'_>) -> Result<(), String> {
        let node = group.node;
        let known = node.domain.is_empty()
            || node.domain == "ai.onnx"
            || (node.domain == "com.microsoft" && node.op == "Gelu");
        let lower = OPS.iter().find(|(name, _)| *name == node.op).map(|(_, f)| *f);
        let lower = lower.or_else(|| {
            elementwise::UNARY.contains(&node.op.as_str()).then_some(elementwise::unary as LowerOp)
        });
        let Some(lower) = lower.filter(|_| known) else {
            return Err(format!("no GPU kernel for operator {}{}", domain(node), node.op));
        };
        for id in node.outputs.iter().flatten() {
            check(self.graph.value(*id))?;
        }
        self.node = node.name.clone();
        lower(self, group)
    }
}

fn domain(node: &Node) -> String {
    if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) }
}

fn check(value: &Value) -> Result<(), String> {
    if value.dtype != DType::F32 {
        return Err(format!("`{}` is {}, and GPU kernels compute f32 only", value.name, value.dtype));
    }
    if elements(value) == 0 {
        return Err(format!("`{}` has no elements", value.name));
    }
    Ok(())
}

/// The fused function as the tile wants it: cutting at infinity stands for none, so that one pipeline serves both.
fn tile_act(group: &Group<'_>) -> (Unary, [f32; 2]) {
    group.act.unwrap_or((Unary::Clip, [f32::NEG_INFINITY, f32::INFINITY]))
}

/// Whether `node` can run on `target`; the error says why not.
pub fn supports(graph: &Graph, node: &Node, target: &Target) -> Result<(), String> {
    let Some(out) = node.outputs.first().copied().flatten() else { return Err("it has no output".into()) };
    let mut lower = Lower::new(graph, target);
    lower.group(&Group::alone(node, out))?;
    lower.check()
}

/// Lowers a whole segment. The error names the node and the reason.
pub fn lower(graph: &Graph, target: &Target) -> Result<Plan, (String, String, String)> {
    let mut lower = Lower::new(graph, target);
    for id in &graph.inputs {
        if graph.value(*id).dtype == DType::F32 {
            lower.slot_of(*id);
        }
    }
    for group in fuse::groups(graph) {
        lower.group(&group).map_err(|why| (group.node.name.clone(), group.node.op.clone(), why))?;
    }
    lower.finish()
}
