//! A whole network in segments on one processor, one after the other: what cutting costs beside running it whole. It refuses to mix
//! processors.

use crate::chain::{Chain, Room};
use crate::graph::Graph;
use crate::measure::Engine;
use crate::processor::{ExecError, Instance, Processor};
use crate::segment::{Segment, split_at};
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
        for (s, instance) in self.instances.iter_mut().enumerate() {
            self.chain.advance(&mut values, s, &mut **instance, &mut self.room)?;
        }
        self.chain.shared_outputs(&values)
    }
}

/// Price of each further tensor that crosses a cut, as a share of the work by which segments may be uneven instead.
const TENSOR: f64 = 0.02;

/// `graph` in so many segments of about the same work, fewer where it has not as many places to cut. Unlike
/// [`cut`](crate::segment::cut) it does not ask whether that pays.
pub fn even(graph: &Graph, most: usize) -> Vec<Segment> {
    let places: Vec<usize> = (1..graph.nodes.len()).collect();
    let fine = split_at(graph, &|_| u64::MAX, &places);
    let total: f64 = fine.iter().map(|s| s.flops.max(1) as f64).sum();
    let (mut done, mut cuts) = (0.0, Vec::new());
    for (i, segment) in fine.iter().enumerate().take(fine.len().saturating_sub(1)) {
        done += segment.flops.max(1) as f64 / total;
        cuts.push((fine[i + 1].nodes.start, done, crossing(&fine, i)));
    }
    let mut positions: Vec<usize> = Vec::new();
    for part in 1..most {
        let wanted = part as f64 / most as f64;
        let price =
            |&&(_, done, tensors): &&(usize, f64, usize)| (done - wanted).abs() + TENSOR * tensors as f64;
        let later = cuts.iter().filter(|(at, ..)| positions.last().is_none_or(|last| at > last));
        let best = later.min_by(|a, b| price(a).total_cmp(&price(b)));
        positions.extend(best.map(|&(at, ..)| at));
    }
    split_at(graph, &|_| u64::MAX, &positions)
}

/// Tensors that are made up to segment `i` and read after it.
fn crossing(fine: &[Segment], i: usize) -> usize {
    let (before, after) = fine.split_at(i + 1);
    let name = |s: &Segment, id: &crate::graph::ValueId| s.graph.value(*id).name.clone();
    let made: BTreeSet<String> = before
        .iter()
        .flat_map(|s| s.graph.outputs.iter().map(|id| name(s, id)).collect::<Vec<_>>())
        .collect();
    let read: BTreeSet<String> =
        after.iter().flat_map(|s| s.graph.inputs.iter().map(|id| name(s, id)).collect::<Vec<_>>()).collect();
    made.intersection(&read).count()
}
