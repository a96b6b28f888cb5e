//! The way of values through the segments of one model: what goes into each, what comes out, what is then done with. It refuses to run
//! anything: whoever launches segments asks it for inputs and hands it outputs.

use crate::graph::{Graph, Value, ValueId};
use crate::processor::ExecError;
use crate::segment::Segment;
use crate::tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Made once a model and shared by its requests.
#[derive(Clone, Debug)]
pub struct Chain {
    model: String,
    names: Vec<String>,
    /// Slots of the model's inputs.
    inputs: Vec<usize>,
    /// The model's outputs.
    outputs: Vec<Output>,
    /// Of each segment: slots that it reads, slots that it fills, slots that nobody needs after it.
    steps: Vec<(Vec<usize>, Vec<usize>, Vec<usize>)>,
    expected: Vec<Value>,
}

#[derive(Clone, Debug)]
enum Output {
    Slot(usize),
    Constant(Arc<Tensor>),
}

/// The values of one request between segments. Those that are no longer needed are dropped.
#[derive(Clone, Debug)]
pub struct Values {
    slots: Vec<Option<Arc<Tensor>>>,
}

impl Values {
    /// Whether any value that a launch could start from holds NaN.
    pub fn has_nan(&self) -> bool {
        self.slots.iter().flatten().any(|t| t.has_nan())
    }
}

impl Chain {
    /// The chain of the segments that [`cut`](crate::segment::cut) made of `graph`.
    pub fn new(graph: &Graph, segments: &[Segment]) -> Self {
        let mut slots: BTreeMap<String, usize> = BTreeMap::new();
        let mut slot = |part: &Graph, id: ValueId| {
            let next = slots.len();
            *slots.entry(part.value(id).name.clone()).or_insert(next)
        };
        let inputs: Vec<usize> = graph.inputs.iter().map(|&id| slot(graph, id)).collect();
        let mut steps = Vec::new();
        for segment in segments {
            let read: Vec<usize> = segment.graph.inputs.iter().map(|&id| slot(&segment.graph, id)).collect();
            let filled: Vec<usize> =
                segment.graph.outputs.iter().map(|&id| slot(&segment.graph, id)).collect();
            steps.push((read, filled, Vec::new()));
        }
        let mut output = |&id: &ValueId| match graph.constant(id) {
            Some(tensor) => Output::Constant(tensor.clone()),
            None => Output::Slot(slot(graph, id)),
        };
        let outputs: Vec<Output> = graph.outputs.iter().map(&mut output).collect();
        let mut names = vec![String::new(); slots.len()];
        for (name, i) in slots {
            names[i] = name;
        }
        let kept: BTreeSet<usize> =
            outputs.iter().filter_map(|o| if let Output::Slot(s) = o { Some(*s) } else { None }).collect();
        let mut seen = kept;
        for (read, _, done) in steps.iter_mut().rev() {
            done.extend(read.iter().copied().filter(|s| seen.insert(*s)));
        }
        let expected = graph.inputs.iter().map(|&id| graph.value(id).clone()).collect();
        Self { model: graph.name.clone(), names, inputs, outputs, steps, expected }
    }

    /// Number of segments.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no segment: the outputs are inputs or constants.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Begins a request with the model's inputs.
    ///
    /// # Errors
    /// [`ExecError::Input`] when number, types or shapes are wrong.
    pub fn start(&self, inputs: Vec<Arc<Tensor>>) -> Result<Values, ExecError> {
        crate::cpu::check_inputs(
            &self.model,
            &self.expected,
            &inputs.iter().map(|t| &**t).collect::<Vec<_>>(),
        )?;
        let mut slots = vec![None; self.names.len()];
        for (&slot, tensor) in self.inputs.iter().zip(inputs) {
            slots[slot] = Some(tensor);
        }
        Ok(Values { slots })
    }

    /// The inputs of segment `i`, in the order of its graph.
    ///
    /// # Errors
    /// [`ExecError::Input`] when an earlier segment has not been finished.
    pub fn inputs<'v>(&self, values: &'v Values, i: usize) -> Result<Vec<&'v Tensor>, ExecError> {
        self.steps[i]
            .0
            .iter()
            .map(|&slot| values.slots[slot].as_deref().ok_or_else(|| self.missing(i, slot)))
            .collect()
    }

    /// Takes the outputs of segment `i` and drops what nobody needs any more.
    ///
    /// # Errors
    /// [`ExecError::Failed`] when their number is not that of the segment's graph.
    pub fn finish(&self, values: &mut Values, i: usize, outputs: Vec<Tensor>) -> Result<(), ExecError> {
        let (_, filled, done) = &self.steps[i];
        if outputs.len() != filled.len() {
            return Err(ExecError::Failed {
                processor: "any".to_owned(),
                graph: format!("{}#{i}", self.model),
                reason: format!("gave {} outputs instead of {}", outputs.len(), filled.len()),
            });
        }
        for (&slot, tensor) in filled.iter().zip(outputs) {
            values.slots[slot] = Some(Arc::new(tensor));
        }
        for &slot in done {
            values.slots[slot] = None;
        }
        Ok(())
    }

    /// The model's outputs, after the last segment.
    ///
    /// # Errors
    /// [`ExecError::Input`] when a segment has not been finished.
    pub fn outputs(&self, values: &Values) -> Result<Vec<Tensor>, ExecError> {
        Ok(self.shared_outputs(values)?.iter().map(|t| Tensor::clone(t)).collect())
    }

    /// As [`Chain::outputs`], without a copy.
    ///
    /// # Errors
    /// As [`Chain::outputs`].
    pub fn shared_outputs(&self, values: &Values) -> Result<Vec<Arc<Tensor>>, ExecError> {
        let get = |output: &Output| match output {
            Output::Constant(tensor) => Ok(tensor.clone()),
            Output::Slot(slot) => {
                values.slots[*slot].clone().ok_or_else(|| self.missing(self.steps.len(), *slot))
            }
        };
        self.outputs.iter().map(get).collect()
    }

    fn missing(&self, i: usize, slot: usize) -> ExecError {
        ExecError::Input {
            graph: format!("{}#{i}", self.model),
            input: self.names[slot].clone(),
            expected: "the output of an earlier segment".to_owned(),
            got: "nothing: that segment has not been run".to_owned(),
        }
    }
}
