//! A case: one plan and one scenario, checked against each other and turned into index-based tables that never change during a run.
//! It refuses anything ill-formed with an error that names the file's key; after that nothing has to be checked again.

mod check;
mod variant;

pub use variant::{Ending, VariantTable};

use crate::crowd::additive;
use crate::device::{Device, ProcessorModel};
use crate::event::{Request, RequestId};
use crate::objective::Objective;
use crate::plan::{Plan, ProcessorSpec};
use crate::scenario::{ArrivalKind, Queue, Scenario};
use crate::time::{Span, Time};
use serde::{Deserialize, Serialize};

/// Index of a processor in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessorId(pub u16);

/// Index of a task in [`Case::tasks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(pub u16);

/// Index of a variant in the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VariantId(pub u16);

/// Index of a stream in the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u16);

/// Why a plan and a scenario do not make a case. The text names the key.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct CaseError {
    /// Where, e.g. `stream[2].deadline_ms`.
    pub key: String,
    /// What is wrong and what was expected.
    pub problem: String,
}

/// A task with the variants that serve it.
#[derive(Clone, Debug)]
pub struct Task {
    /// Name.
    pub name: String,
    /// Its variants, in plan order.
    pub variants: Vec<VariantId>,
    /// Accuracy of the most accurate of them.
    pub best_accuracy: f64,
}

/// A stream with its times resolved to nanoseconds; see [`crate::scenario::Stream`].
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct StreamTable {
    pub task: TaskId,
    pub kind: ArrivalKind,
    pub period: Span,
    pub offset: Span,
    pub jitter: Span,
    pub burst: f64,
    pub dwell: Span,
    /// Arrivals of a trace.
    pub times: Vec<Time>,
    /// The stream whose answers this one follows.
    pub after: Option<StreamId>,
    pub probability: f64,
    pub open: Vec<(Time, Time)>,
    pub queue: Queue,
    pub deadline: Span,
    pub expire: Span,
    pub priority: f64,
    pub min_accuracy: f64,
}

impl StreamTable {
    /// Whether requests come at this time.
    pub fn is_open(&self, at: Time) -> bool {
        self.open.is_empty() || self.open.iter().any(|&(from, to)| from <= at && at < to)
    }

    /// A request of this stream with the stream's deadline, expiry, priority and minimum accuracy. `origin` is when the first request
    /// of its chain arrived: its own arrival unless the stream depends on another.
    pub fn request(&self, id: RequestId, stream: StreamId, arrival: Time, origin: Time) -> Request {
        Request {
            id,
            stream,
            arrival,
            origin,
            deadline: origin + self.deadline,
            expires: origin + self.expire,
            priority: self.priority,
            min_accuracy: self.min_accuracy,
            variant: None,
        }
    }
}

/// What the device file says of a processor, resolved.
#[derive(Clone, Debug, Default)]
pub struct ProcessorTable {
    /// The file's words; empty for a processor that it does not name.
    pub model: ProcessorModel,
    /// Bytes of weights that fit; `None`: no limit.
    pub capacity: Option<u64>,
}

/// One plan, one device and one scenario, ready to run.
#[derive(Clone, Debug)]
pub struct Case {
    /// The plan as given.
    pub plan: Plan,
    /// The device beyond the plan, as given.
    pub device: Device,
    /// Processors, in plan order.
    pub processors: Vec<ProcessorTable>,
    /// The scenario as given.
    pub scenario: Scenario,
    /// Tasks that a stream asks for or a variant serves.
    pub tasks: Vec<Task>,
    /// Variants, in plan order.
    pub variants: Vec<VariantTable>,
    /// Streams, in scenario order.
    pub streams: Vec<StreamTable>,
    /// Whether launches can slow each other at all, pairwise, in a crowd or through shared bandwidth.
    pub disturbing: bool,
}

impl Case {
    /// Checks a plan and a scenario and builds the tables, for a device that is no more than its plan.
    ///
    /// # Errors
    /// [`CaseError`] names the first key that does not fit.
    pub fn new(plan: Plan, scenario: Scenario) -> Result<Case, CaseError> {
        Case::on(plan, Device::default(), scenario)
    }

    /// As [`Case::new`], with what the device does beyond its plan.
    ///
    /// # Errors
    /// As [`Case::new`]; keys of the device begin with `device.`.
    pub fn on(plan: Plan, device: Device, scenario: Scenario) -> Result<Case, CaseError> {
        check::plan(&plan)?;
        check::device(&device, &plan)?;
        let processors: Vec<ProcessorTable> = plan
            .processors
            .iter()
            .map(|spec| {
                let model = device.processors.get(&spec.name).cloned().unwrap_or_default();
                let capacity = (model.memory_mb > 0.0).then_some((model.memory_mb * 1e6) as u64);
                ProcessorTable { model, capacity }
            })
            .collect();
        let mut tasks: Vec<Task> = Vec::new();
        for (v, variant) in plan.variants.iter().enumerate() {
            let id = VariantId(v as u16);
            match tasks.iter_mut().find(|t| t.name == variant.task) {
                Some(task) => {
                    task.variants.push(id);
                    task.best_accuracy = task.best_accuracy.max(variant.accuracy);
                }
                None => tasks.push(Task {
                    name: variant.task.clone(),
                    variants: vec![id],
                    best_accuracy: variant.accuracy,
                }),
            }
        }
        check::memory(&plan, &processors)?;
        let variants =
            (0..plan.variants.len()).map(|v| VariantTable::new(&plan, &processors, v, &tasks)).collect();
        let streams = check::streams(&scenario, &tasks)?;
        let contention = plan.contention.iter().enumerate();
        let pairwise = contention
            .flat_map(|(i, row)| row.iter().enumerate().filter(move |&(j, _)| j != i))
            .any(|(_, &factor)| factor != 1.0);
        let crowded = plan.processors.iter().any(|p| p.crowd.is_some());
        let disturbing = pairwise || crowded || device.bandwidth.is_some();
        Ok(Case { plan, device, processors, scenario, tasks, variants, streams, disturbing })
    }

    /// The case as somebody sees it who may not use some variants on some processors. Identifiers stay as they are; a task loses the
    /// variants of which no allowed processor can run some segment, which may leave it without any.
    #[must_use]
    pub fn restricted(&self, allowed: impl Fn(VariantId, ProcessorId) -> bool) -> Case {
        let mut case = self.clone();
        for (v, variant) in case.plan.variants.iter_mut().enumerate() {
            for (p, cost) in variant.segments.iter_mut().flat_map(|s| s.costs.iter_mut().enumerate()) {
                if !allowed(VariantId(v as u16), ProcessorId(p as u16)) {
                    *cost = None;
                }
            }
        }
        let table = |v: usize| VariantTable::new(&case.plan, &case.processors, v, &case.tasks);
        case.variants = (0..case.variants.len()).map(table).collect();
        for task in &mut case.tasks {
            task.variants.retain(|v| case.variants[v.0 as usize].best_rest_ns(0).is_finite());
        }
        case
    }

    /// The objective.
    pub fn objective(&self) -> &Objective {
        &self.scenario.objective
    }

    /// Number of processors.
    pub fn processor_count(&self) -> usize {
        self.plan.processors.len()
    }

    /// A processor of the plan.
    pub fn processor(&self, id: ProcessorId) -> &ProcessorSpec {
        &self.plan.processors[id.0 as usize]
    }

    /// The tables of a variant.
    pub fn variant(&self, id: VariantId) -> &VariantTable {
        &self.variants[id.0 as usize]
    }

    /// The tables of a stream.
    pub fn stream(&self, id: StreamId) -> &StreamTable {
        &self.streams[id.0 as usize]
    }

    /// Cost in nanoseconds of bringing the inputs of `segment` to `to` when they lie on `from` (`None`: on the host).
    pub fn transfer_ns(
        &self,
        variant: VariantId,
        segment: u16,
        from: Option<ProcessorId>,
        to: ProcessorId,
    ) -> f64 {
        if from == Some(to) {
            return 0.0;
        }
        self.variant(variant).fetch_ns(to, segment)
    }

    /// Nanoseconds to load so many bytes of weights on a processor.
    pub fn load_ns(&self, on: ProcessorId, bytes: u64) -> f64 {
        if bytes == 0 {
            return 0.0;
        }
        let model = &self.processors[on.0 as usize].model;
        let loading = if model.load_gbps > 0.0 { bytes as f64 / model.load_gbps } else { 0.0 };
        model.load_us * 1e3 + loading
    }

    /// Factor by which a launch on `on` that asks for `own_gbps` slows while all running launches, itself included, ask for
    /// `all_gbps`; see [`crate::device::Bandwidth`].
    pub fn bandwidth_slowdown(&self, on: ProcessorId, own_gbps: f64, all_gbps: f64) -> f64 {
        let Some(bandwidth) = &self.device.bandwidth else { return 1.0 };
        if own_gbps <= 0.0 {
            return 1.0;
        }
        let peak = self.processors[on.0 as usize].model.peak_gbps;
        let share = if peak > 0.0 { (own_gbps / peak).min(1.0) } else { 1.0 };
        // Alone it is as slow as it was measured.
        let alone = own_gbps / bandwidth.achieved(own_gbps);
        1.0 + share * (all_gbps / bandwidth.achieved(all_gbps) / alone - 1.0).max(0.0)
    }

    /// Factor by which a launch on `on` slows while launches run on the `others`: what pairwise slow-downs add up to, or what
    /// [`crate::crowd::Crowd`] makes of them.
    pub fn slowdown(&self, on: ProcessorId, others: impl Iterator<Item = ProcessorId>) -> f64 {
        let row = &self.plan.contention[on.0 as usize];
        let factors = others.filter(|&o| o != on).map(|o| row[o.0 as usize]);
        match &self.processor(on).crowd {
            None => additive(factors),
            Some(crowd) => crowd.slowdown(factors),
        }
    }

    /// Factor by which a launch on `on` that asks for `own_gbps` slows while the `others` run (itself among them or not) and all,
    /// itself included, ask for `all_gbps`: pairwise and shared bandwidth together.
    pub fn disturbance(
        &self,
        on: ProcessorId,
        own_gbps: f64,
        others: impl Iterator<Item = ProcessorId>,
        all_gbps: f64,
    ) -> f64 {
        self.slowdown(on, others) * self.bandwidth_slowdown(on, own_gbps, all_gbps)
    }
}
