//! The way of values through the segments of one model: what goes into each, what comes out, what is then done with. Values stay where
//! they were made until somebody wants them elsewhere. It refuses to choose who runs a segment.

use crate::graph::{Graph, Value, ValueId};
use crate::held::Held;
use crate::processor::{ExecError, Instance};
use crate::segment::Segment;
use crate::stop::Stop;
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
    steps: Vec<Step>,
    expected: Vec<Value>,
}

/// The slots of one segment.
#[derive(Clone, Debug, Default)]
struct Step {
    read: Vec<usize>,
    filled: Vec<usize>,
    /// Of those filled, which the caller of the model gets: they go to the host at once.
    home: Vec<bool>,
    /// Nobody needs them after it. What was sent is none of these: it is shared with who sent it, and tells whose NaN it is.
    done: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Output {
    Slot(usize),
    Constant(Arc<Tensor>),
}

/// The values of one request between segments, and what was sent. Those that are no longer needed are dropped.
#[derive(Clone, Debug, Default)]
pub struct Values {
    slots: Vec<Option<Held>>,
}

impl Values {
    /// Whether any value on the host holds NaN: what was sent, what a processor brought there.
    pub fn has_nan(&self) -> bool {
        self.slots.iter().flatten().filter_map(Held::seen).any(|t| t.has_nan())
    }

    /// Becomes the same as `other`, in the memory that it has.
    pub fn copy(&mut self, other: &Values) {
        self.slots.clone_from(&other.slots);
    }

    /// Lets go of all, and keeps the memory of the list.
    pub fn clear(&mut self) {
        self.slots.clear();
    }
}

/// Room for the inputs and outputs of a segment, used again by each.
#[derive(Default)]
pub struct Room {
    inputs: Vec<Held>,
    outputs: Vec<Held>,
}

impl Room {
    /// Lets go of all.
    pub fn clear(&mut self) {
        self.inputs.clear();
        self.outputs.clear();
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
            let part = &segment.graph;
            let read = part.inputs.iter().map(|&id| slot(part, id)).collect();
            let filled = part.outputs.iter().map(|&id| slot(part, id)).collect();
            steps.push(Step { read, filled, ..Step::default() });
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
        let mut seen: BTreeSet<usize> = kept.iter().chain(&inputs).copied().collect();
        for step in steps.iter_mut().rev() {
            step.done.extend(step.read.iter().copied().filter(|s| seen.insert(*s)));
            step.home.extend(step.filled.iter().map(|s| kept.contains(s)));
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
        let inputs: Vec<Held> = inputs.into_iter().map(Held::Host).collect();
        crate::cpu::check_inputs(&self.model, &self.expected, &inputs)?;
        let mut slots = vec![None; self.names.len()];
        for (&slot, held) in self.inputs.iter().zip(inputs) {
            slots[slot] = Some(held);
        }
        Ok(Values { slots })
    }

    fn held<'v>(&self, values: &'v Values, i: usize, slot: usize) -> Result<&'v Held, ExecError> {
        values.slots[slot].as_ref().ok_or_else(|| self.missing(i, slot))
    }

    /// Runs segment `i` on `instance`: what its processor has stays there, and may still be in the making: see [`Instance::advance`].
    ///
    /// # Errors
    /// When the processor fails or is stopped by `stop`, an earlier segment has not been run, or another processor does not give what it
    /// has. The values are as they were then.
    pub fn advance(
        &self,
        values: &mut Values,
        i: usize,
        instance: &mut dyn Instance,
        room: &mut Room,
        stop: &Stop,
    ) -> Result<(), ExecError> {
        let step = &self.steps[i];
        // A panic may have left something there.
        room.clear();
        for &slot in &step.read {
            room.inputs.push(self.held(values, i, slot)?.clone());
        }
        let done = instance.advance(&room.inputs, &step.home, &mut room.outputs, stop);
        room.inputs.clear();
        done?;
        self.fill(values, i, room.outputs.drain(..))
    }

    /// The inputs of segment `i` on the host, in the order of its graph.
    ///
    /// # Errors
    /// [`ExecError::Input`] when an earlier segment has not been finished, or as [`Held::host`].
    pub fn inputs<'v>(&self, values: &'v Values, i: usize) -> Result<Vec<&'v Tensor>, ExecError> {
        let host = |&slot: &usize| Ok(&**self.held(values, i, slot)?.host()?);
        self.steps[i].read.iter().map(host).collect()
    }

    /// The outputs of segment `i`, just run, to be looked at or changed.
    pub fn outputs_of<'v>(
        &self,
        values: &'v mut Values,
        i: usize,
    ) -> impl Iterator<Item = &'v mut Held> + use<'v, '_> {
        let filled = &self.steps[i].filled;
        let slots = values.slots.iter_mut().enumerate();
        slots.filter_map(|(slot, held)| held.as_mut().filter(|_| filled.contains(&slot)))
    }

    /// Takes the outputs of segment `i` from somewhere else and drops what nobody needs any more.
    ///
    /// # Errors
    /// [`ExecError::Failed`] when their number is not that of the segment's graph.
    pub fn finish(&self, values: &mut Values, i: usize, outputs: Vec<Tensor>) -> Result<(), ExecError> {
        self.fill(values, i, outputs.into_iter().map(Held::from))
    }

    fn fill(
        &self,
        values: &mut Values,
        i: usize,
        outputs: impl ExactSizeIterator<Item = Held>,
    ) -> Result<(), ExecError> {
        let Step { filled, done, .. } = &self.steps[i];
        if outputs.len() != filled.len() {
            return Err(ExecError::Failed {
                processor: "any".to_owned(),
                graph: format!("{}#{i}", self.model),
                reason: format!("gave {} outputs instead of {}", outputs.len(), filled.len()),
            });
        }
        for (&slot, held) in filled.iter().zip(outputs) {
            values.slots[slot] = Some(held);
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
            Output::Slot(slot) => self.held(values, self.steps.len(), *slot)?.host().cloned(),
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
