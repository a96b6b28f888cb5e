//! Which nodes share one kernel: batch normalisation is folded into the convolution before it, a bias and an activation ride along.
//! It refuses to fuse over a value that somebody else reads.

use super::super::kernel::unary::Unary;
use super::elementwise;
use super::written::{self, Readers};
use crate::graph::{Graph, Node, ValueId};
use std::collections::{HashMap, HashSet};

/// A node and what is fused behind it.
#[derive(Clone, Debug)]
pub struct Group<'g> {
    /// The node that decides the kernel.
    pub node: &'g Node,
    /// A batch normalisation behind a convolution.
    pub norm: Option<&'g Node>,
    /// A constant row that is added behind a matrix product.
    pub bias: Option<ValueId>,
    /// A tensor in the shape of the result that is added behind a convolution or matrix product.
    pub residual: Option<ValueId>,
    /// A function behind everything, with its constants.
    pub act: Option<(Unary, [f32; 2])>,
    /// The value that the group computes.
    pub out: ValueId,
    /// All nodes of the group, the first one included.
    pub nodes: Vec<&'g Node>,
}

impl<'g> Group<'g> {
    /// A node with nothing fused.
    pub fn alone(node: &'g Node, out: ValueId) -> Self {
        Self { node, norm: None, bias: None, residual: None, act: None, out, nodes: vec![node] }
    }
}

/// Cuts the graph into groups, in an order that can be run.
pub fn groups(graph: &Graph) -> Vec<Group<'_>> {
    let mut readers: HashMap<ValueId, Vec<usize>> = HashMap::new();
    for (n, node) in graph.nodes.iter().enumerate() {
        for id in node.inputs.iter().flatten() {
            readers.entry(*id).or_default().push(n);
        }
    }
    let outputs: HashSet<ValueId> = graph.outputs.iter().copied().collect();
    let of = |id: ValueId| match readers.get(&id) {
        Some(all) if !outputs.contains(&id) => all.as_slice(),
        _ => &[],
    };
    let only_reader = |id: ValueId| match of(id) {
        [n] => Some(*n),
        _ => None,
    };
    let search = Readers { graph, of: &of };
    let mut absorbed = vec![false; graph.nodes.len()];
    let mut all = Vec::new();
    // What is known when a group runs: a tensor that is added must not come later.
    let mut ready: HashSet<ValueId> = graph.inputs.iter().copied().collect();
    for (n, node) in graph.nodes.iter().enumerate() {
        let Some(out) = node.outputs.first().copied().flatten() else { continue };
        if absorbed[n] {
            continue;
        }
        let mut group = Group::alone(node, out);
        loop {
            // A view between a layer and its function does not matter: it is the same elements in the same order.
            let view = only_reader(group.out).filter(|&n| VIEWS.contains(&graph.nodes[n].op.as_str()));
            let viewed = view.and_then(|n| Some((n, graph.nodes[n].outputs.first().copied()??)));
            // Operands that are broadcast must know the shape that they are broadcast to.
            let viewed = viewed.filter(|(_, seen)| {
                !BROADCAST.contains(&node.op.as_str())
                    || graph.value(*seen).shape == graph.value(group.out).shape
            });
            let found = written::function(&search, group.out).or_else(|| {
                let (n, seen) = viewed?;
                let (act, members, out) = written::function(&search, seen)?;
                Some((act, [vec![n], members].concat(), out))
            });
            if let Some((act, members, out)) = found.filter(|_| open(&group)) {
                group.act = Some((act, [0.0; 2]));
                group.out = out;
                group.nodes.extend(members.iter().map(|&n| &graph.nodes[n]));
                members.iter().for_each(|&n| absorbed[n] = true);
            }
            let Some(next) = only_reader(group.out) else { break };
            if !absorb(graph, &mut group, &graph.nodes[next], &ready) {
                break;
            }
            group.nodes.push(&graph.nodes[next]);
            absorbed[next] = true;
        }
        ready.insert(group.out);
        ready.extend(node.outputs.iter().flatten().filter(|_| group.nodes.len() == 1));
        all.push(group);
    }
    all
}

/// Takes `next`, the only reader of the group's output, into the group if it fits.
fn absorb<'g>(graph: &'g Graph, group: &mut Group<'g>, next: &'g Node, ready: &HashSet<ValueId>) -> bool {
    let head = group.node.op.as_str();
    let Some(out) = next.outputs.first().copied().flatten() else { return false };
    if group.act.is_some() || graph.value(out).dtype != crate::tensor::DType::F32 {
        return false;
    }
    let plain = matches!(head, "Conv" | "ConvTranspose") && group.norm.is_none();
    if plain && next.op == "BatchNormalization" && elementwise::norm_constants(graph, next).is_ok() {
        if next.inputs.first() != Some(&Some(group.out)) {
            return false;
        }
        group.norm = Some(next);
        group.out = out;
        return true;
    }
    let adds = next.op == "Add" || next.op == "Sum" && next.inputs.len() == 2;
    if adds && group.residual.is_none() {
        if head == "MatMul"
            && group.bias.is_none()
            && let Some(row) = bias_row(graph, group.out, next)
        {
            group.bias = Some(row);
            group.out = out;
            return true;
        }
        if matches!(head, "Conv" | "ConvTranspose" | "MatMul")
            && let Some(other) = other_operand(group.out, next).filter(|id| ready.contains(id))
            && graph.value(other).shape == graph.value(group.out).shape
            && graph.value(out).shape == graph.value(group.out).shape
            && graph.value(other).dtype == crate::tensor::DType::F32
        {
            group.residual = Some(other);
            group.out = out;
            return true;
        }
    }
    match elementwise::function(graph, next) {
        Ok(act) if open(group) && next.inputs.first() == Some(&Some(group.out)) => {
            group.act = Some(act);
            group.out = out;
            true
        }
        _ => false,
    }
}

/// Heads whose kernels take a function along.
const WITH_FUNCTION: &[&str] =
    &["Conv", "ConvTranspose", "MatMul", "Gemm", "Add", "Sum", "Sub", "Mul", "Div", "BatchNormalization"];

/// Heads whose operands are broadcast.
const BROADCAST: &[&str] = &["Add", "Sum", "Sub", "Mul", "Div"];

/// Nodes that only rename or reshape their first input.
const VIEWS: &[&str] = &["Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"];

/// Whether a function may still come behind the group.
fn open(group: &Group<'_>) -> bool {
    group.act.is_none() && WITH_FUNCTION.contains(&group.node.op.as_str())
}

/// The operand of `add` that is not `one`.
fn other_operand(one: ValueId, add: &Node) -> Option<ValueId> {
    let (a, b) = (add.inputs.first().copied()??, add.inputs.get(1).copied()??);
    if a == one { Some(b) } else { Some(a) }
}

/// The constant operand of `add` when it is one row along the last axis of `product`.
fn bias_row(graph: &Graph, product: ValueId, add: &Node) -> Option<ValueId> {
    let (a, b) = (add.inputs.first().copied()??, add.inputs.get(1).copied()??);
    let row = if a == product { b } else { a };
    let tensor = graph.constant(row)?;
    let columns = *graph.value(product).shape.last()?;
    let one_row =
        tensor.as_f32().is_some() && tensor.len() == columns && tensor.shape.last() == Some(&columns);
    let same_shape = add.outputs.first().copied().flatten().map(|o| &graph.value(o).shape)
        == Some(&graph.value(product).shape);
    (one_row && same_shape).then_some(row)
}
