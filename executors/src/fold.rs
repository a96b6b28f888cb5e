//! Tidies a freshly loaded graph: constants that onnxruntime left as nodes are computed, dead nodes and values go, and nodes that
//! depend on constants alone stand right before their first reader. It refuses to fold dequantised weights: int8 kernels need the pair.

use crate::cpu;
use crate::graph::{Graph, Node, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Operators whose result differs from run to run.
const RANDOM: &[&str] =
    &["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"];

/// For each node, whether it depends on constants alone. After [`tidy`] these are dequantised weights and what follows from
/// them; such nodes belong to whichever segment reads them, and their outputs are never a boundary.
pub(crate) fn constant_nodes(graph: &Graph) -> Vec<bool> {
    let mut known: BTreeSet<ValueId> = graph.constants.keys().copied().collect();
    let mut constant = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let yes =
            !RANDOM.contains(&node.op.as_str()) && node.inputs.iter().flatten().all(|id| known.contains(id));
        if yes {
            known.extend(node.outputs.iter().flatten());
        }
        constant.push(yes);
    }
    constant
}

/// Everything that the first lines of this file say.
///
/// # Errors
/// When nodes form a cycle or a constant part cannot be computed.
pub(crate) fn tidy(graph: Graph) -> Result<Graph, String> {
    let graph = sorted(graph)?;
    let graph = computed(graph)?;
    let graph = late_constants(graph);
    Ok(pruned(graph))
}

/// Nodes in topological order, stable: onnxruntime writes them so, but a file need not be written by it.
fn sorted(mut graph: Graph) -> Result<Graph, String> {
    let mut known: BTreeSet<ValueId> = graph.constants.keys().chain(&graph.inputs).copied().collect();
    let mut waiting = std::mem::take(&mut graph.nodes);
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut rest = Vec::new();
        for node in waiting {
            if node.inputs.iter().flatten().all(|id| known.contains(id)) {
                known.extend(node.outputs.iter().flatten());
                graph.nodes.push(node);
            } else {
                rest.push(node);
            }
        }
        if rest.len() == before {
            return Err(format!("node `{}` waits for itself: the graph has a cycle", rest[0].name));
        }
        waiting = rest;
    }
    Ok(graph)
}

/// Computes what depends on constants alone, except dequantised weights and what follows from them (unless it is an output).
fn computed(mut graph: Graph) -> Result<Graph, String> {
    let constant = constant_nodes(&graph);
    let outputs: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
    let is_output = |node: &Node| node.outputs.iter().flatten().any(|id| outputs.contains(id));
    let mut kept: BTreeSet<ValueId> = BTreeSet::new();
    let mut wanted = BTreeSet::new();
    let mut nodes = Vec::new();
    for (node, _) in graph.nodes.iter().zip(&constant).filter(|(_, constant)| **constant) {
        let weights =
            node.op == "DequantizeLinear" || node.inputs.iter().flatten().any(|id| kept.contains(id));
        if weights {
            kept.extend(node.outputs.iter().flatten());
        }
        if !weights || is_output(node) {
            wanted.extend(node.outputs.iter().flatten().copied());
        }
        nodes.push(node.clone());
    }
    if wanted.is_empty() {
        return Ok(graph);
    }
    let part = Graph {
        name: format!("constants of {}", graph.name),
        opset: graph.opset,
        other_opsets: graph.other_opsets.clone(),
        values: graph.values.clone(),
        constants: graph.constants.clone(),
        nodes,
        inputs: Vec::new(),
        outputs: wanted.iter().copied().collect(),
    };
    let values = cpu::reference(&part).and_then(|mut run| run.run(&[])).map_err(|e| e.to_string())?;
    graph.constants.extend(wanted.iter().copied().zip(values.into_iter().map(Arc::new)));
    graph.nodes.retain(|node| !node.outputs.iter().flatten().all(|id| wanted.contains(id)));
    Ok(graph)
}

/// Moves each constant node right before the first node that reads it.
fn late_constants(mut graph: Graph) -> Graph {
    let constant = constant_nodes(&graph);
    let mut waiting: BTreeMap<usize, Node> = BTreeMap::new();
    let mut producer: BTreeMap<ValueId, usize> = BTreeMap::new();
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for (i, node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        if constant[i] {
            producer.extend(node.outputs.iter().flatten().map(|&id| (id, i)));
            waiting.insert(i, node);
            continue;
        }
        // The needed constant nodes, and what they need, in their old order.
        let mut needed = BTreeSet::new();
        let mut open: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        while let Some(id) = open.pop() {
            if let Some(&p) = producer.get(&id)
                && let Some(n) = waiting.get(&p)
                && needed.insert(p)
            {
                open.extend(n.inputs.iter().flatten());
            }
        }
        nodes.extend(needed.into_iter().filter_map(|p| waiting.remove(&p)));
        nodes.push(node);
    }
    // What is left is read by nobody, or is an output that `computed` has made a constant.
    graph.nodes = nodes;
    graph
}

/// Drops nodes whose results nobody reads and values that nobody mentions.
fn pruned(mut graph: Graph) -> Graph {
    let mut needed: BTreeSet<ValueId> = graph.outputs.iter().copied().collect();
    let mut live = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        if node.outputs.iter().flatten().any(|id| needed.contains(id)) {
            live[i] = true;
            needed.extend(node.inputs.iter().flatten());
        }
    }
    let mut live = live.into_iter();
    graph.nodes.retain(|_| live.next().unwrap_or(false));
    for node in &mut graph.nodes {
        for output in &mut node.outputs {
            *output = output.filter(|id| needed.contains(id));
        }
    }
    graph.constants.retain(|id, _| needed.contains(id));
    restricted(graph)
}

/// Renumbers the values so that only those that are mentioned remain, in their old order.
pub(crate) fn restricted(mut graph: Graph) -> Graph {
    let mut used: BTreeSet<ValueId> = graph.inputs.iter().chain(&graph.outputs).copied().collect();
    used.extend(graph.constants.keys());
    used.extend(graph.nodes.iter().flat_map(|n| n.inputs.iter().chain(&n.outputs).flatten()));
    let new: BTreeMap<ValueId, ValueId> =
        used.iter().enumerate().map(|(i, &old)| (old, ValueId(i as u32))).collect();
    graph.values = used.iter().map(|&id| graph.value(id).clone()).collect();
    graph.constants = std::mem::take(&mut graph.constants).into_iter().map(|(id, t)| (new[&id], t)).collect();
    for id in graph.inputs.iter_mut().chain(&mut graph.outputs) {
        *id = new[id];
    }
    for node in &mut graph.nodes {
        for id in node.inputs.iter_mut().chain(&mut node.outputs).flatten() {
            *id = new[id];
        }
    }
    graph
}
