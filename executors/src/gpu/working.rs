//! A prepared segment at work on a GPU: tensors that this device has are taken from there, and those that it makes stay there unless
//! they are wanted on the host. It refuses to allocate once every tensor of a run has been let go of: they are used again.

use super::course::Course;
use super::device::{Device, Fault, Feed, Inside, Output, Place, time_step};
use super::door::Opened;
use super::kernel::Spec;
use super::lower::{Source, Span};
use crate::cpu::check_inputs;
use crate::graph::{Graph, Value};
use crate::held::{Held, Meter, Own, Resident, Shelf};
use crate::processor::{ExecError, Instance, Prepared, StepTime, Storage};
use crate::stop::Stop;
use crate::tensor::{DType, Data, Tensor};
use std::any::Any;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// What all instances of a prepared segment share.
pub(super) struct Shared<D: Device> {
    pub device: Arc<Opened<D>>,
    pub meter: Arc<Meter>,
    pub segment: D::Segment,
    pub graph: String,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
    pub places: Vec<Option<Span>>,
    pub sources: Vec<Source>,
    pub bytes: usize,
    /// How tensors are stored.
    pub storage: Storage,
    /// As [`super::course::work`] has it.
    pub work: Vec<u64>,
    /// What a run takes.
    pub spent: Duration,
    /// Node, kernel and arithmetic of each step.
    pub steps: Vec<(String, Spec, u64)>,
}

/// A segment on a device.
pub(super) struct Made<D: Device> {
    pub shared: Arc<Shared<D>>,
    /// The memory of the first run, for the first caller; others are there to run beside it, and have arenas of their own.
    pub first: Option<D::Memory>,
}

/// Where instances come from: a device that is lost is opened again, and the segment made again there, when one is needed next.
pub(super) struct Origin<D: Device> {
    pub inside: Arc<Inside<D>>,
    pub graph: Graph,
    pub made: Mutex<Made<D>>,
}

impl<D: Device> Origin<D> {
    fn working(self: &Arc<Self>) -> Result<Working<D>, ExecError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.shared.device.lost() {
            *made = self.inside.make(&self.graph)?;
        }
        let shared = made.shared.clone();
        let memory = match made.first.take() {
            Some(memory) => memory,
            None => {
                let memory = shared.device.spawn(&shared.segment, true);
                memory.map_err(|f| shared.device.failed(&shared.graph, f))?
            }
        };
        let shelves = shared.outputs.iter().map(|_| Shelves::default()).collect();
        let running = Vec::with_capacity(shared.outputs.len());
        let targets = Vec::with_capacity(shared.outputs.len());
        Ok(Working { origin: self.clone(), shared, memory, shelves, targets, running })
    }
}

/// A prepared segment.
pub(super) struct Ready<D: Device>(pub Arc<Origin<D>>);

impl<D: Device> Prepared for Ready<D> {
    fn spawn(&self) -> Result<Box<dyn Instance>, ExecError> {
        Ok(Box::new(self.0.working()?))
    }

    fn memory_bytes(&self) -> usize {
        self.0.made.lock().unwrap_or_else(PoisonError::into_inner).shared.bytes
    }
}

/// A tensor on a device.
struct Stay<D: Device> {
    /// Whose meter and device these are.
    shared: Arc<Shared<D>>,
    /// Which output of the segment.
    output: usize,
    /// Nothing while a run writes to it.
    buffer: Option<D::Buffer>,
    seen: OnceLock<Arc<Tensor>>,
}

impl<D: Device> Resident for Stay<D> {
    fn form(&self) -> (DType, &[usize]) {
        let value = &self.shared.outputs[self.output];
        (value.dtype, &value.shape)
    }

    fn seen(&self) -> Option<&Arc<Tensor>> {
        self.seen.get()
    }

    fn host(&self) -> Result<&Arc<Tensor>, ExecError> {
        if let Some(tensor) = self.seen.get() {
            return Ok(tensor);
        }
        let (shared, value) = (&self.shared, &self.shared.outputs[self.output]);
        let mut data = vec![0f32; value.shape.iter().product()];
        let lost = || Fault::Failed("nothing was written".into());
        let read =
            self.buffer.as_ref().ok_or_else(lost).and_then(|buffer| shared.device.read(buffer, &mut data));
        read.map_err(|fault| {
            let reason = match fault {
                Fault::Failed(reason) | Fault::Died(reason) => reason,
                Fault::Stopped => "stopped".to_owned(),
            };
            ExecError::Failed {
                processor: D::NAME.to_string(),
                graph: shared.graph.clone(),
                reason: format!("`{}` was left there and cannot be read: {reason}", value.name),
            }
        })?;
        shared.meter.download(shared.storage.bytes() * data.len());
        Ok(self.seen.get_or_init(|| Arc::new(Tensor { shape: value.shape.clone(), data: Data::F32(data) })))
    }
}

/// What outputs are written to, on the host and on the device.
struct Shelves<D: Device> {
    home: Shelf<Tensor>,
    there: Shelf<Stay<D>>,
}

impl<D: Device> Default for Shelves<D> {
    fn default() -> Self {
        Self { home: Shelf::default(), there: Shelf::default() }
    }
}

/// What an output of the run will be.
enum Target<D: Device> {
    Home(Own<Tensor>),
    There(Own<Stay<D>>),
}

struct Working<D: Device> {
    origin: Arc<Origin<D>>,
    shared: Arc<Shared<D>>,
    memory: D::Memory,
    /// Of each output.
    shelves: Vec<Shelves<D>>,
    /// Those of the run, in the order of the outputs that come from the arena.
    targets: Vec<Target<D>>,
    running: Vec<Output<D::Buffer>>,
}

impl<D: Device> Working<D> {
    /// Takes what the outputs are written to.
    fn begin(&mut self, home: &[bool]) -> Result<(), ExecError> {
        let Working { shared, shelves, targets, running, .. } = self;
        targets.clear();
        running.clear();
        for (i, (source, shelf)) in shared.sources.iter().zip(shelves).enumerate() {
            let Source::Arena(span) = source else { continue };
            if home.get(i).copied().unwrap_or(true) {
                let mut tensor = shelf.home.take(|| Tensor::f32(&[0], Vec::new()));
                let floats = match &mut tensor.get().data {
                    Data::F32(floats) => std::mem::take(floats),
                    _ => Vec::new(),
                };
                running.push((*span, Place::Home(floats)));
                targets.push(Target::Home(tensor));
            } else {
                let none = || Stay { shared: shared.clone(), output: i, buffer: None, seen: OnceLock::new() };
                let mut stay = shelf.there.take(none);
                stay.get().seen.take();
                let buffer = match stay.get().buffer.take() {
                    Some(buffer) => buffer,
                    None => {
                        let buffer = shared.device.buffer(span.floats);
                        buffer.map_err(|f| shared.device.failed(&shared.graph, f))?
                    }
                };
                running.push((*span, Place::There(buffer)));
                targets.push(Target::There(stay));
            }
        }
        Ok(())
    }

    /// Hands on what the run has written.
    fn end(&mut self, inputs: &[Held], outputs: &mut Vec<Held>) {
        let Working { shared, shelves, targets, running, .. } = self;
        let mut written = targets.drain(..).zip(running.drain(..));
        for ((source, value), shelf) in shared.sources.iter().zip(&shared.outputs).zip(shelves) {
            outputs.extend(match source {
                Source::Input(i) => Some(inputs[*i].clone()),
                Source::Constant(tensor) => Some(Held::Host(tensor.clone())),
                Source::Arena(span) => {
                    written.next().and_then(|(target, (_, place))| match (target, place) {
                        (Target::Home(mut tensor), Place::Home(floats)) => {
                            shared.meter.download(shared.storage.bytes() * span.floats);
                            let shape = &mut tensor.get().shape;
                            shape.clone_from(&value.shape);
                            tensor.get().data = Data::F32(floats);
                            Some(Held::Host(shelf.home.lend(tensor)))
                        }
                        (Target::There(mut stay), Place::There(buffer)) => {
                            shared.meter.moved(shared.storage.bytes() * span.floats);
                            stay.get().buffer = Some(buffer);
                            Some(Held::There(shelf.there.lend(stay)))
                        }
                        // They were made in pairs.
                        _ => None,
                    })
                }
            });
        }
    }
}

impl<D: Device> Shared<D> {
    /// The buffer of a tensor that this device has.
    fn mine<'h>(&self, held: &'h Held) -> Option<&'h D::Buffer> {
        let Held::There(resident) = held else { return None };
        let stay = (&**resident as &dyn Any).downcast_ref::<Stay<D>>()?;
        stay.buffer.as_ref().filter(|_| Arc::ptr_eq(&stay.shared.device, &self.device))
    }

    /// What goes into the place of an input, if any kernel reads it. What lies elsewhere must have been brought to the host.
    fn feed<'h>(&self, held: &'h Held, place: Option<Span>) -> Option<(Span, Feed<'h, D::Buffer>)> {
        let span = place?;
        let bytes = self.storage.bytes() * span.floats;
        if let Some(buffer) = self.mine(held) {
            self.meter.moved(bytes);
            return Some((span, Feed::There(buffer)));
        }
        let floats = held.seen()?.as_f32()?;
        self.meter.upload(bytes);
        Some((span, Feed::Host(floats)))
    }
}

impl<D: Device> Instance for Working<D> {
    fn advance(
        &mut self,
        inputs: &[Held],
        home: &[bool],
        outputs: &mut Vec<Held>,
        stop: &Stop,
    ) -> Result<(), ExecError> {
        check_inputs(&self.shared.graph, &self.shared.inputs, inputs)?;
        if self.stale() {
            *self = self.origin.working()?;
        }
        for (held, place) in inputs.iter().zip(&self.shared.places) {
            if place.is_some() && self.shared.mine(held).is_none() {
                held.host()?;
            }
        }
        self.begin(home)?;
        let shared = &*self.shared;
        let mut feeds =
            inputs.iter().zip(&shared.places).filter_map(|(held, place)| shared.feed(held, *place));
        let mut course = Course::new(&shared.work, shared.spent, stop);
        let (memory, running) = (&mut self.memory, &mut self.running);
        let ran = shared.device.run(&shared.segment, memory, &mut feeds, running, &mut course);
        shared.meter.dispatched(course.begun());
        ran.map_err(|f| shared.device.failed(&shared.graph, f))?;
        self.end(inputs, outputs);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ExecError> {
        let shared = &self.shared;
        shared.device.finish().map_err(|f| shared.device.failed(&shared.graph, f))
    }

    fn stale(&self) -> bool {
        self.shared.device.lost()
    }

    fn steps(&mut self) -> Result<Vec<StepTime>, ExecError> {
        let shared = &*self.shared;
        let time = |(i, (node, spec, flops)): (usize, &(String, Spec, u64))| {
            let seconds = time_step(&**shared.device, &shared.segment, &mut self.memory, i);
            let us = 1e6 * seconds.map_err(|f| shared.device.failed(&shared.graph, f))?;
            Ok(StepTime { node: node.clone(), kernel: format!("{spec:?}"), us, flops: *flops })
        };
        shared.steps.iter().enumerate().map(time).collect()
    }
}
