//! Cuts a model into segments: runs of consecutive nodes, each a [`Graph`] of its own. Run one after another, on any processors, they
//! give the whole model's output. The keys between segments are value names: an input of a segment has the name of the graph
//! input or of the earlier segment's output that it is. A segment never passes a tensor straight through: what a later one needs
//! stays in the caller's [`Values`](crate::chain::Values).
//! It refuses to cut between a quantisation and its dequantisation, and to make segments too small to be worth a launch.

use crate::flops;
use crate::fold;
use crate::gpu::lower::fuse::groups;
use crate::graph::{Graph, Node, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// How finely a model is cut.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct CutOptions {
    /// At most this many segments (at least 1).
    pub max_segments: usize,
    /// A segment has at least this share (0 to 1) of the model's work, unless all of it is between changes of operator support.
    pub min_share: f64,
}

impl Default for CutOptions {
    fn default() -> Self {
        Self { max_segments: 6, min_share: 0.05 }
    }
}

/// A run of consecutive nodes.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The nodes as a graph: inputs are the values needed from before, outputs those needed later or by the user; both are in the
    /// order of the model's values and carry its names. Constants are shared with the model.
    pub graph: Graph,
    /// Which nodes of the model. Dequantisations of weights may also be copied in from earlier nodes.
    pub nodes: Range<usize>,
    /// Floating-point operations (see [`flops::flops`]).
    pub flops: u64,
    /// Bytes of all inputs.
    pub input_bytes: usize,
    /// Bytes of all outputs.
    pub output_bytes: usize,
    /// Bit p is set when processor p supports every node.
    pub supported: u64,
}

/// Price of each tensor that crosses a cut, as a share of the model: below it, more even segments are not worth another launch, and
/// a cut through one tensor is better than an evener one through two.
const CUT: f64 = 0.01;
/// Price, as a share, of the widest cut of the model; narrower ones cost their part of it.
const WIDTH: f64 = 0.02;
/// Price, as a share, of a cut between two nodes that one kernel would compute: what was a detail of it becomes a pass over a tensor.
const PARTED: f64 = 0.02;
/// Price of moving one tensor between processors, in operations: about 50 microseconds of one core.
const TENSOR: f64 = 1e6;
/// Price of moving one byte, in operations.
const BYTE: f64 = 10.0;
/// Price, as a share, of work that a processor supports but cannot take, because its segment holds a node that it does not support.
const LOST: f64 = 0.5;

/// Cuts where few bytes cross, where support changes, and into shares of like work. `supports` gives for a node the set of processors
/// that can run it, a bit each.
pub fn cut(graph: &Graph, supports: &dyn Fn(&Node) -> u64, options: &CutOptions) -> Vec<Segment> {
    let units = Units::new(graph, supports);
    split(graph, &units, &units.best(options))
}

/// Cuts before the nodes with these indices, as far as that is legal: positions inside a quantisation pair, at the ends, or that leave a
/// segment with nothing to compute are passed over.
pub fn split_at(graph: &Graph, supports: &dyn Fn(&Node) -> u64, positions: &[usize]) -> Vec<Segment> {
    let units = Units::new(graph, supports);
    let wanted: BTreeSet<usize> = positions.iter().copied().collect();
    let legal: Vec<usize> = units.places.iter().map(|p| p.position).filter(|p| wanted.contains(p)).collect();
    split(graph, &units, &legal)
}

/// A place where cutting is legal.
struct Place {
    /// Index of the first node after the cut.
    position: usize,
    /// Price as a share of the model's work.
    price: f64,
    /// Whether operator support differs on the two sides.
    change: bool,
    /// Number of units before it.
    unit: usize,
}

/// The nodes that compute at run time, with what cutting wants to know of them.
struct Units {
    /// For each node of the graph, whether it depends on constants alone.
    constant: Vec<bool>,
    /// For each node, which processors support it and the constant nodes that it needs.
    mask: Vec<u64>,
    /// Supporting processors, a unit each.
    masks: Vec<u64>,
    /// Share of the work before each unit; one more than units.
    before: Vec<f64>,
    /// The same of the work that each processor supports, for those that support some but not all.
    supported_before: Vec<(u64, Vec<f64>)>,
    places: Vec<Place>,
}

impl Units {
    fn new(graph: &Graph, supports: &dyn Fn(&Node) -> u64) -> Self {
        let constant = fold::constant_nodes(graph);
        let mask = effective_masks(graph, supports);
        let members: Vec<usize> = (0..graph.nodes.len()).filter(|&i| !constant[i]).collect();
        let weights: Vec<f64> =
            members.iter().map(|&i| flops::weight(graph, &graph.nodes[i]) as f64).collect();
        let total = weights.iter().sum::<f64>().max(1.0);
        let mut before = vec![0.0];
        for weight in &weights {
            before.push(before[before.len() - 1] + weight / total);
        }
        let masks: Vec<u64> = members.iter().map(|&i| mask[i]).collect();
        let (any, every) = masks.iter().fold((0, u64::MAX), |(any, every), &m| (any | m, every & m));
        let partial = (0..64).map(|p| 1u64 << p).filter(|bit| any & !every & bit != 0);
        let supported_before = partial.map(|bit| {
            let mut sum = vec![0.0];
            for (unit, mask) in masks.iter().enumerate() {
                let share = if mask & bit != 0 { before[unit + 1] - before[unit] } else { 0.0 };
                sum.push(sum[unit] + share);
            }
            (bit, sum)
        });
        let supported_before = supported_before.collect();
        let crossing = Crossing::new(graph, &constant);
        // A cut comes right after a unit, so that constant nodes stay with the unit that follows and reads them.
        let places = (1..members.len())
            .map(|unit| (unit, members[unit - 1] + 1))
            .filter(|&(_, p)| !crossing.quantised[p]);
        let widest = crossing.bytes.iter().copied().max().unwrap_or(0).max(1) as f64;
        let price = |tensors: f64, bytes: f64| {
            CUT * tensors.max(1.0) + WIDTH * bytes / widest + (TENSOR * tensors + BYTE * bytes) / total
        };
        let parted = parted(graph);
        let places = places.map(|(unit, position)| Place {
            position,
            price: price(crossing.tensors[position] as f64, crossing.bytes[position] as f64)
                + PARTED * f64::from(parted[position]),
            change: masks[unit - 1] != masks[unit],
            unit,
        });
        let places = places.collect();
        Self { constant, mask, masks, before, supported_before, places }
    }

    /// The positions whose cuts, together, are cheapest: dynamic programming over legal places and numbers of segments.
    fn best(&self, options: &CutOptions) -> Vec<usize> {
        let end = Place { position: usize::MAX, price: 0.0, change: true, unit: self.masks.len() };
        let start = Place { position: 0, price: 0.0, change: true, unit: 0 };
        let places: Vec<&Place> = std::iter::once(&start).chain(&self.places).chain([&end]).collect();
        let (n, most) = (places.len(), options.max_segments.max(1));
        // best[k][j]: cheapest way to cover everything before place j with k segments, and the place where the last one begins.
        let mut best = vec![vec![(f64::INFINITY, 0usize); n]; most + 1];
        best[0][0].0 = 0.0;
        for j in 1..n {
            let mut mask = u64::MAX;
            let mut reached = places[j].unit;
            for i in (0..j).rev() {
                for unit in places[i].unit..reached {
                    mask &= self.masks[unit];
                }
                reached = places[i].unit;
                let Some(price) = self.price(places[i], places[j], mask, options.min_share) else { continue };
                for k in 1..=most {
                    let sum = best[k - 1][i].0 + price;
                    if sum < best[k][j].0 {
                        best[k][j] = (sum, i);
                    }
                }
            }
        }
        let mut k = (1..=most).min_by(|&a, &b| best[a][n - 1].0.total_cmp(&best[b][n - 1].0)).unwrap_or(1);
        let (mut j, mut cuts) = (n - 1, Vec::new());
        while k > 1 {
            j = best[k][j].1;
            k -= 1;
            cuts.push(places[j].position);
        }
        cuts.reverse();
        cuts
    }

    /// What a segment between two places costs, its first cut included; `None` when it would be too small.
    fn price(&self, from: &Place, to: &Place, mask: u64, min_share: f64) -> Option<f64> {
        let share = self.before[to.unit] - self.before[from.unit];
        let whole = from.unit == 0 && to.unit == self.masks.len();
        if share < min_share && !(from.change && to.change) && !whole {
            return None;
        }
        // Work that a processor supports but cannot take, since it does not support the whole segment.
        let untaken = self.supported_before.iter().filter(|(bit, _)| mask & bit == 0);
        let lost: f64 = untaken.map(|(_, sum)| sum[to.unit] - sum[from.unit]).sum();
        let nowhere = if mask == 0 { 10.0 } else { 0.0 };
        Some(share * share + LOST * lost + nowhere + from.price)
    }
}

/// For each node, the processors that support it and every constant node that has to come along.
fn effective_masks(graph: &Graph, supports: &dyn Fn(&Node) -> u64) -> Vec<u64> {
    let constant = fold::constant_nodes(graph);
    let mut of_value: BTreeMap<ValueId, u64> = BTreeMap::new();
    let mut masks = Vec::with_capacity(graph.nodes.len());
    for (node, constant) in graph.nodes.iter().zip(constant) {
        let needed = node.inputs.iter().flatten().filter_map(|id| of_value.get(id));
        let mask = needed.fold(supports(node), |mask, more| mask & more);
        if constant {
            of_value.extend(node.outputs.iter().flatten().map(|&id| (id, mask)));
        }
        masks.push(mask);
    }
    masks
}

/// For each position, how many groups of nodes that our kernels compute at once (onnxruntime fuses much the same) lie on both sides of it.
pub(crate) fn parted(graph: &Graph) -> Vec<u32> {
    let at: BTreeMap<*const Node, usize> = graph.nodes.iter().enumerate().map(|(i, n)| (n as _, i)).collect();
    let mut parted = vec![0; graph.nodes.len() + 1];
    for group in groups(graph) {
        let members = group.nodes.iter().map(|&node| at[&(node as *const Node)]);
        let (first, last) = members.fold((usize::MAX, 0), |(first, last), i| (first.min(i), last.max(i)));
        parted[first + 1..=last].iter_mut().for_each(|n| *n += 1);
    }
    parted
}

/// What crosses each position: values made before it and read after it. Graph inputs do not count, they are there anyway.
struct Crossing {
    tensors: Vec<usize>,
    bytes: Vec<usize>,
    /// Whether a freshly quantised value crosses, whose dequantisation comes after.
    quantised: Vec<bool>,
}

impl Crossing {
    fn new(graph: &Graph, constant: &[bool]) -> Self {
        let n = graph.nodes.len() + 1;
        let mut last: BTreeMap<ValueId, usize> = BTreeMap::new();
        for (i, node) in graph.nodes.iter().enumerate() {
            last.extend(node.inputs.iter().flatten().map(|&id| (id, i)));
        }
        let mut crossing = Self { tensors: vec![0; n], bytes: vec![0; n], quantised: vec![false; n] };
        for (i, node) in graph.nodes.iter().enumerate().filter(|(i, _)| !constant[*i]) {
            for &id in node.outputs.iter().flatten() {
                for p in i + 1..=last.get(&id).copied().unwrap_or(0) {
                    crossing.tensors[p] += 1;
                    crossing.bytes[p] += graph.value(id).bytes();
                    crossing.quantised[p] |= node.op == "QuantizeLinear";
                }
            }
        }
        crossing
    }
}

/// Builds the segments between these (legal, increasing) positions.
fn split(graph: &Graph, units: &Units, positions: &[usize]) -> Vec<Segment> {
    let mut last: BTreeMap<ValueId, usize> = BTreeMap::new();
    let mut producer: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        last.extend(node.inputs.iter().flatten().map(|&id| (id, i)));
        producer.extend(node.outputs.iter().flatten().map(|&id| (id, i)));
    }
    for &id in &graph.outputs {
        last.insert(id, usize::MAX);
    }
    let ends = positions.iter().copied().chain([graph.nodes.len()]);
    let starts = std::iter::once(0).chain(positions.iter().copied());
    let ranges = starts.zip(ends).map(|(start, end)| start..end);
    ranges.enumerate().map(|(i, range)| extract(graph, units, &last, &producer, i, range)).collect()
}

/// One segment.
fn extract(
    graph: &Graph,
    units: &Units,
    last: &BTreeMap<ValueId, usize>,
    producer: &BTreeMap<ValueId, usize>,
    index: usize,
    range: Range<usize>,
) -> Segment {
    // The computing nodes of the range, and every constant node that they need, wherever it stands.
    let mut members: BTreeSet<usize> = range.clone().filter(|&i| !units.constant[i]).collect();
    let mut open: Vec<usize> = members.iter().copied().collect();
    while let Some(i) = open.pop() {
        let needed = graph.nodes[i].inputs.iter().flatten().filter_map(|id| producer.get(id).copied());
        open.extend(needed.filter(|&p| units.constant[p] && members.insert(p)));
    }
    let (mut inputs, mut outputs) = (BTreeSet::new(), BTreeSet::new());
    for &i in &members {
        for &id in graph.nodes[i].inputs.iter().flatten() {
            let inside = producer.get(&id).is_some_and(|p| members.contains(p));
            if !inside && graph.constant(id).is_none() {
                inputs.insert(id);
            }
        }
        if !units.constant[i] {
            let later = |id: &ValueId| last.get(id).is_some_and(|&reader| reader >= range.end);
            outputs.extend(graph.nodes[i].outputs.iter().flatten().copied().filter(later));
        }
    }
    let nodes: Vec<Node> = members.iter().map(|&i| graph.nodes[i].clone()).collect();
    let read: BTreeSet<ValueId> = nodes.iter().flat_map(|n| n.inputs.iter().flatten().copied()).collect();
    let bytes = |ids: &BTreeSet<ValueId>| ids.iter().map(|&id| graph.value(id).bytes()).sum();
    let (input_bytes, output_bytes) = (bytes(&inputs), bytes(&outputs));
    let part = Graph {
        name: format!("{}#{index}", graph.name),
        opset: graph.opset,
        other_opsets: graph.other_opsets.clone(),
        values: graph.values.clone(),
        constants: graph
            .constants
            .iter()
            .filter(|(id, _)| read.contains(id))
            .map(|(&id, t)| (id, t.clone()))
            .collect(),
        nodes,
        inputs: inputs.into_iter().collect(),
        outputs: outputs.into_iter().collect(),
    };
    Segment {
        flops: members.iter().map(|&i| flops::flops(graph, &graph.nodes[i])).sum(),
        supported: members.iter().fold(u64::MAX, |mask, &i| mask & units.mask[i]),
        graph: fold::restricted(part),
        nodes: range,
        input_bytes,
        output_bytes,
    }
}
