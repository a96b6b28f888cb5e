//! A case: one plan and one scenario, checked against each other and turned into index-based tables that never change during a run.
//! It refuses anything ill-formed with an error that names the file's key; after that nothing has to be checked again.

mod check;

use crate::event::{Request, RequestId};
use crate::objective::Objective;
use crate::plan::{Plan, ProcessorSpec};
use crate::scenario::{ArrivalKind, Scenario};
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
    pub deadline: Span,
    pub expire: Span,
    pub priority: f64,
    pub min_accuracy: f64,
}

/// What a segment costs on a processor: sums over all segments before it (unsupported ones count nothing), so that a span costs one
/// subtraction, and what bringing its inputs costs. Side by side because a decision reads them together.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    latency_ns: f64,
    energy_mj: f64,
    /// Log-normal sigma weighted by latency.
    sigma_ns: f64,
    /// Nanoseconds to bring the inputs of this segment here from elsewhere.
    fetch_ns: f64,
}

/// In place of a segment: there is none.
const NO_SEGMENT: u16 = u16::MAX;

impl StreamTable {
    /// A request of this stream with the stream's deadline, expiry, priority and minimum accuracy.
    pub fn request(&self, id: RequestId, stream: StreamId, arrival: Time) -> Request {
        Request {
            id,
            stream,
            arrival,
            deadline: arrival + self.deadline,
            expires: arrival + self.expire,
            priority: self.priority,
            min_accuracy: self.min_accuracy,
        }
    }
}

/// Cost tables of one variant.
#[derive(Clone, Debug)]
pub struct VariantTable {
    /// Name.
    pub name: String,
    /// Task that it serves.
    pub task: TaskId,
    /// Accuracy in (0, 1].
    pub accuracy: f64,
    /// Accuracy divided by that of the task's best variant.
    pub relative_accuracy: f64,
    /// Number of segments.
    pub segments: u16,
    /// Bytes that each segment reads.
    pub input_bytes: Vec<u64>,
    /// `[processor * (segments + 1) + segment]`.
    rows: Vec<Row>,
    /// Same index: last segment of the supported run that holds this one, or [`NO_SEGMENT`].
    run_end: Vec<u16>,
    /// `[segment]`: nanoseconds from this segment to the end when each runs where it is fastest.
    best_rest: Vec<f64>,
}

/// One plan and one scenario, ready to run.
#[derive(Clone, Debug)]
pub struct Case {
    /// The plan as given.
    pub plan: Plan,
    /// The scenario as given.
    pub scenario: Scenario,
    /// Tasks that a stream asks for or a variant serves.
    pub tasks: Vec<Task>,
    /// Variants, in plan order.
    pub variants: Vec<VariantTable>,
    /// Streams, in scenario order.
    pub streams: Vec<StreamTable>,
}

impl Case {
    /// Checks a plan and a scenario and builds the tables.
    ///
    /// # Errors
    /// [`CaseError`] names the first key that does not fit.
    pub fn new(plan: Plan, scenario: Scenario) -> Result<Case, CaseError> {
        check::plan(&plan)?;
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
        let variants = (0..plan.variants.len()).map(|v| VariantTable::new(&plan, v, &tasks)).collect();
        let streams = check::streams(&scenario, &tasks)?;
        Ok(Case { plan, scenario, tasks, variants, streams })
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
        let table = self.variant(variant);
        table.rows[table.at(to, segment as usize)].fetch_ns
    }

    /// Factor by which a launch on `on` slows while launches run on the `others`: `1 + sum of (contention - 1)`,
    /// the linear superposition of pairwise slow-downs (as in PCCS, MICRO 2021, below saturation).
    pub fn slowdown(&self, on: ProcessorId, others: impl Iterator<Item = ProcessorId>) -> f64 {
        let row = &self.plan.contention[on.0 as usize];
        1.0 + others.filter(|&o| o != on).map(|o| row[o.0 as usize] - 1.0).sum::<f64>()
    }
}

impl VariantTable {
    fn new(plan: &Plan, index: usize, tasks: &[Task]) -> VariantTable {
        let variant = &plan.variants[index];
        let n = variant.segments.len();
        let mut rows = Vec::with_capacity(plan.processors.len() * (n + 1));
        let mut run_end = vec![NO_SEGMENT; plan.processors.len() * (n + 1)];
        for (p, spec) in plan.processors.iter().enumerate() {
            let mut sum = Row::default();
            for segment in &variant.segments {
                let copying_ns =
                    if spec.copy_gbps > 0.0 { segment.input_bytes as f64 / spec.copy_gbps } else { 0.0 };
                sum.fetch_ns = spec.copy_us * 1e3 + copying_ns;
                rows.push(sum);
                if let Some(cost) = &segment.costs[p] {
                    let ns = cost.mean_us * 1e3;
                    sum.latency_ns += ns;
                    sum.energy_mj += cost.energy_mj;
                    sum.sigma_ns += cost.log_sigma() * ns;
                }
            }
            rows.push(Row { fetch_ns: 0.0, ..sum });
            for s in (0..n).rev() {
                let at = p * (n + 1) + s;
                if variant.segments[s].costs[p].is_some() {
                    run_end[at] = if run_end[at + 1] == NO_SEGMENT { s as u16 } else { run_end[at + 1] };
                }
            }
        }
        let mut best_rest = vec![0.0; n + 1];
        for s in (0..n).rev() {
            let best = variant.segments[s].costs.iter().flatten().map(|c| c.mean_us * 1e3);
            best_rest[s] = best_rest[s + 1] + best.fold(f64::INFINITY, f64::min);
        }
        let task = tasks.iter().position(|t| t.name == variant.task).unwrap_or(0);
        VariantTable {
            name: variant.name.clone(),
            task: TaskId(task as u16),
            accuracy: variant.accuracy,
            relative_accuracy: variant.accuracy / tasks[task].best_accuracy,
            segments: n as u16,
            input_bytes: variant.segments.iter().map(|s| s.input_bytes).collect(),
            rows,
            run_end,
            best_rest,
        }
    }

    fn at(&self, on: ProcessorId, segment: usize) -> usize {
        on.0 as usize * (self.segments as usize + 1) + segment
    }

    /// The rows of `first` and of the segment after `last`.
    fn around(&self, on: ProcessorId, first: u16, last: u16) -> (&Row, &Row) {
        (&self.rows[self.at(on, first as usize)], &self.rows[self.at(on, last as usize + 1)])
    }

    /// Mean nanoseconds of segments `first..=last` on `on` alone; all must be supported there.
    pub fn latency_ns(&self, on: ProcessorId, first: u16, last: u16) -> f64 {
        let (before, after) = self.around(on, first, last);
        after.latency_ns - before.latency_ns
    }

    /// Millijoules of segments `first..=last` on `on`.
    pub fn energy_mj(&self, on: ProcessorId, first: u16, last: u16) -> f64 {
        let (before, after) = self.around(on, first, last);
        after.energy_mj - before.energy_mj
    }

    /// Log-normal sigma of the latency of `first..=last` on `on`: the latency-weighted mean of the segments'
    /// (segments of one launch share their disturbance).
    pub fn log_sigma(&self, on: ProcessorId, first: u16, last: u16) -> f64 {
        let (before, after) = self.around(on, first, last);
        let latency_ns = after.latency_ns - before.latency_ns;
        if latency_ns > 0.0 { (after.sigma_ns - before.sigma_ns) / latency_ns } else { 0.0 }
    }

    /// The last segment that `on` can reach in one launch from `first`; `None` when it cannot run `first`.
    pub fn reach(&self, on: ProcessorId, first: u16) -> Option<u16> {
        match self.run_end[self.at(on, first as usize)] {
            NO_SEGMENT => None,
            last => Some(last),
        }
    }

    /// Nanoseconds from segment `first` to the end when each segment runs where it is fastest, alone: a lower bound.
    /// `first` may equal the number of segments (then 0).
    pub fn best_rest_ns(&self, first: u16) -> f64 {
        self.best_rest[first as usize]
    }
}
