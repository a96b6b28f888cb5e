//! A whole network in segments on one processor, one after the other: what cutting costs beside running it whole. It refuses to mix
//! processors.

use crate::chain::{Chain, Room};
use crate::graph::Graph;
use crate::measure::Engine;
use crate::processor::{ExecError, Instance, Processor};
use crate::segment::{Segment, parted, split_at};
use crate::stop::Stop;
use crate::tensor::Tensor;
use std::collections::BTreeSet;
use std::sync::Arc;

/// See the module's text.
pub struct InSegments {
    chain: Chain,
    instances: Vec<Box<dyn Instance>>,
    inputs: Vec<Arc<Tensor>>,
    room: Room,
}

impl InSegments {
    /// Cuts `graph` as [`even`] does and prepares the segments.
    ///
    /// # Errors
    /// When the processor refuses one.
    pub fn new(
        graph: &Graph,
        processor: &dyn Processor,
        most: usize,
        inputs: &[Tensor],
    ) -> Result<InSegments, ExecError> {
        let segments = even(graph, most);
        let mut instances = Vec::new();
        for segment in &segments {
            instances.push(processor.prepare(&segment.graph, &[])?.spawn()?);
        }
        let inputs = inputs.iter().cloned().map(Arc::new).collect();
        Ok(InSegments { chain: Chain::new(graph, &segments), instances, inputs, room: Room::default() })
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.instances.len()
    }
}

impl Engine for InSegments {
    fn run(&mut self) -> Result<Vec<Arc<Tensor>>, ExecError> {
        let mut values = self.chain.start(self.inputs.clone())?;
        let stop = Stop::default();
        for (s, instance) in self.instances.iter_mut().enumerate() {
            self.chain.advance(&mut values, s, &mut **instance, &mut self.room, &stop)?;
        }
        self.chain.shared_outputs(&values)
    }
}

/// Price of each tensor that crosses a cut, of the widest cut of all, and of a cut between nodes that share a kernel, as shares of the work
/// by which segments may be uneven instead.
const TENSOR: f64 = 0.02;
const WIDEST: f64 = 0.2;
const PARTED: f64 = 0.1;

/// `graph` in so many segments of about the same work, cut at narrow places, fewer where it has not as many places to cut. Unlike
/// [`cut`](crate::segment::cut) it does not ask whether that pays.
pub fn even(graph: &Graph, most: usize) -> Vec<Segment> {
    let places: Vec<usize> = (1..graph.nodes.len()).collect();
    let fine = split_at(graph, &|_| u64::MAX, &places);
    let total: f64 = fine.iter().map(|s| s.flops.max(1) as f64).sum();
    let crossing: Vec<(usize, usize)> = (1..fine.len()).map(|i| crossing(&fine, i)).collect();
    let widest = crossing.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0).max(1) as f64;
    let parted = parted(graph);
    let mut done = 0.0;
    let mut cuts = Vec::new();
    for (i, &(tensors, bytes)) in crossing.iter().enumerate() {
        done += fine[i].flops.max(1) as f64 / total;
        let at = fine[i + 1].nodes.start;
        let price = TENSOR * tensors as f64 + WIDEST * bytes as f64 / widest + PARTED * f64::from(parted[at]);
        cuts.push((at, done, price));
    }
    let mut positions: Vec<usize> = Vec::new();
    for part in 1..most {
        let wanted = part as f64 / most as f64;
        let price = |&&(_, done, price): &&(usize, f64, f64)| (done - wanted).abs() + price;
        // The last ones must leave places for those that follow.
        let left = cuts.len().saturating_sub(most - 1 - part);
        let later = cuts[..left].iter().filter(|(at, ..)| positions.last().is_none_or(|last| at > last));
        let best = later.min_by(|a, b| price(a).total_cmp(&price(b)));
        positions.extend(best.map(|&(at, ..)| at));
    }
    split_at(graph, &|_| u64::MAX, &positions)
}

/// Tensors, and their bytes, that are made before segment `i` and read from there on.
fn crossing(fine: &[Segment], i: usize) -> (usize, usize) {
    let (before, after) = fine.split_at(i);
    let read: BTreeSet<&str> =
        after.iter().flat_map(|s| s.graph.inputs.iter().map(|id| s.graph.value(*id).name.as_str())).collect();
    let made = before.iter().flat_map(|s| s.graph.outputs.iter().map(|id| s.graph.value(*id)));
    let bytes: Vec<usize> = made.filter(|v| read.contains(v.name.as_str())).map(|v| v.bytes()).collect();
    (bytes.len(), bytes.iter().sum())
}
