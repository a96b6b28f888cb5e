//! What a model is and where its parts can run, for people and as JSON. It refuses to be quiet about a node that a processor cannot
//! run: each kind is a line that says what, why, and where it runs instead.

use crate::flops;
use crate::graph::{Graph, Node, Value, ValueId};
use crate::processor::Processor;
use crate::segment::{CutOptions, cut};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The whole picture of a model.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model's name.
    pub name: String,
    /// Opset version of the standard operators.
    pub opset: i64,
    /// Inputs.
    pub inputs: Vec<Port>,
    /// Outputs.
    pub outputs: Vec<Port>,
    /// Number of nodes of each operator, after folding.
    pub operators: BTreeMap<String, usize>,
    /// Bytes of weights.
    pub parameter_bytes: usize,
    /// Floating-point operations of one run.
    pub flops: u64,
    /// Names of the processors, in the order in which they were given.
    pub processors: Vec<String>,
    /// The segments, in order.
    pub segments: Vec<SegmentReport>,
    /// What cannot run where.
    pub fallbacks: Vec<Fallback>,
}

/// An input or output.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// Tensor name.
    pub name: String,
    /// Element type, e.g. `f32`.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<usize>,
}

/// A segment in short.
#[derive(Clone, Debug, Serialize)]
pub struct SegmentReport {
    /// Number of nodes.
    pub nodes: usize,
    /// First and last node.
    pub first: String,
    /// Last node.
    pub last: String,
    /// Floating-point operations of one run.
    pub flops: u64,
    /// Bytes of inputs.
    pub input_bytes: usize,
    /// Bytes of outputs.
    pub output_bytes: usize,
    /// Processors that can run all of it.
    pub processors: Vec<String>,
}

/// Nodes of one operator that one processor cannot run for one reason.
#[derive(Clone, Debug, Serialize)]
pub struct Fallback {
    /// The processor that cannot.
    pub processor: String,
    /// The operator.
    pub op: String,
    /// Why not.
    pub reason: String,
    /// Which nodes.
    pub nodes: Vec<String>,
    /// Segments (from 0) that the processor cannot take because of them.
    pub segments: Vec<usize>,
    /// Share (0 to 1) of the model's floating-point operations that lies in those segments.
    pub share: f64,
    /// Processors that run those segments instead; empty when none can.
    pub instead: Vec<String>,
}

/// For each node, by name, the reason of each processor that cannot run it.
type Refusals = BTreeMap<String, BTreeMap<usize, String>>;

/// Looks at the model: cuts it for these processors (at most 64) and asks each about every node.
pub fn inspect(graph: &Graph, processors: &[Arc<dyn Processor>], options: &CutOptions) -> Report {
    let names: Vec<String> = processors.iter().map(|p| p.name().to_owned()).collect();
    let refusals: Refusals =
        graph.nodes.iter().map(|node| (node.name.clone(), refusals(graph, node, processors))).collect();
    let all = if processors.len() >= 64 { u64::MAX } else { (1 << processors.len()) - 1 };
    let supports = |node: &Node| {
        let refused = refusals.get(&node.name);
        refused.map_or(all, |r| r.keys().filter(|&&p| p < 64).fold(all, |mask, &p| mask & !(1 << p)))
    };
    let segments = cut(graph, &supports, options);
    let able = |mask: u64| -> Vec<String> {
        names
            .iter()
            .take(64)
            .enumerate()
            .filter(|(p, _)| mask >> p & 1 == 1)
            .map(|(_, name)| name.clone())
            .collect()
    };
    let mut operators = BTreeMap::new();
    for node in &graph.nodes {
        *operators.entry(operator(node)).or_insert(0) += 1;
    }
    let name_of = |node: Option<&Node>| node.map_or_else(String::new, |n| n.name.clone());
    let total = flops::total(graph);
    let mut report = Report {
        name: graph.name.clone(),
        opset: graph.opset,
        inputs: graph.inputs.iter().map(|&id| port(graph, id)).collect(),
        outputs: graph.outputs.iter().map(|&id| port(graph, id)).collect(),
        operators,
        parameter_bytes: graph.constant_bytes(),
        flops: total,
        processors: names.clone(),
        segments: Vec::new(),
        fallbacks: Vec::new(),
    };
    let mut groups: BTreeMap<(usize, String, String), Fallback> = BTreeMap::new();
    for (i, segment) in segments.iter().enumerate() {
        let nodes = &segment.graph.nodes;
        report.segments.push(SegmentReport {
            nodes: nodes.len(),
            first: name_of(nodes.first()),
            last: name_of(nodes.last()),
            flops: segment.flops,
            input_bytes: segment.input_bytes,
            output_bytes: segment.output_bytes,
            processors: able(segment.supported),
        });
        for node in nodes {
            for (&p, reason) in refusals.get(&node.name).into_iter().flatten() {
                let fallback =
                    groups.entry((p, operator(node), reason.clone())).or_insert_with(|| Fallback {
                        processor: names[p].clone(),
                        op: operator(node),
                        reason: reason.clone(),
                        nodes: Vec::new(),
                        segments: Vec::new(),
                        share: 0.0,
                        instead: Vec::new(),
                    });
                fallback.nodes.push(node.name.clone());
                if !fallback.segments.contains(&i) {
                    fallback.segments.push(i);
                    fallback.share += segment.flops as f64 / total.max(1) as f64;
                    let new: Vec<String> = able(segment.supported)
                        .into_iter()
                        .filter(|n| !fallback.instead.contains(n))
                        .collect();
                    fallback.instead.extend(new);
                }
            }
        }
    }
    report.fallbacks = groups.into_values().collect();
    report
}

/// Operator with its domain, where that is not the standard one.
fn operator(node: &Node) -> String {
    if node.domain.is_empty() { node.op.clone() } else { format!("{}.{}", node.domain, node.op) }
}

/// Which processors cannot run the node, and why.
fn refusals(graph: &Graph, node: &Node, processors: &[Arc<dyn Processor>]) -> BTreeMap<usize, String> {
    processors
        .iter()
        .enumerate()
        .filter_map(|(p, processor)| Some((p, processor.supports(graph, node).err()?)))
        .collect()
}

fn port(graph: &Graph, id: ValueId) -> Port {
    let Value { name, dtype, shape } = graph.value(id).clone();
    Port { name, dtype: dtype.to_string(), shape }
}

/// A count of bytes for people.
fn size(bytes: usize) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// A count of operations for people.
fn work(flops: u64) -> String {
    match flops {
        0..100_000 => format!("{flops} FLOP"),
        100_000..1_000_000_000 => format!("{:.1} MFLOP", flops as f64 / 1e6),
        _ => format!("{:.2} GFLOP", flops as f64 / 1e9),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: usize = self.operators.values().sum();
        writeln!(
            f,
            "{}: {nodes} nodes, opset {}, {} a run, weights {}",
            self.name,
            self.opset,
            work(self.flops),
            size(self.parameter_bytes)
        )?;
        for (what, ports) in [("input", &self.inputs), ("output", &self.outputs)] {
            for port in ports {
                writeln!(f, "  {what:<6} {} {}{:?}", port.name, port.dtype, port.shape)?;
            }
        }
        let operators: Vec<String> = self.operators.iter().map(|(op, n)| format!("{op} {n}")).collect();
        writeln!(f, "  operators: {}", operators.join(", "))?;
        writeln!(f, "{} segments:", self.segments.len())?;
        for (i, s) in self.segments.iter().enumerate() {
            let share = 100.0 * s.flops as f64 / self.flops.max(1) as f64;
            let on = if s.processors.is_empty() { "NO PROCESSOR".to_owned() } else { s.processors.join(" ") };
            writeln!(
                f,
                "  {i}: {:>4} nodes {:>12} ({share:>4.1} %)  in {:>9}  out {:>9}  on {on}   [{} .. {}]",
                s.nodes,
                work(s.flops),
                size(s.input_bytes),
                size(s.output_bytes),
                s.first,
                s.last
            )?;
        }
        for fallback in &self.fallbacks {
            writeln!(f, "{fallback}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.nodes.iter().take(3).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let more =
            if self.nodes.len() > 3 { format!(" and {} more", self.nodes.len() - 3) } else { String::new() };
        let instead = match self.instead.as_slice() {
            [] => "NO OTHER PROCESSOR CAN RUN THEM".to_owned(),
            list => format!("they fall back to {}", list.join(" or ")),
        };
        let segments: Vec<String> = self.segments.iter().map(usize::to_string).collect();
        write!(
            f,
            "FALLBACK: `{}` cannot run {} ({shown}{more}): {}; segment(s) {} ({:.1} % of the work): {instead}",
            self.processor,
            self.op,
            self.reason,
            segments.join(", "),
            100.0 * self.share
        )
    }
}
