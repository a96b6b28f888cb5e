//! A case: one plan and one scenario, checked against each other and turned into index-based tables that never change during a run.
//! It refuses anything ill-formed with an error that names the file's key; after that nothing has to be checked again.

mod check;

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

/// What a segment costs on a processor: sums over all segments before it (unsupported ones count nothing), so that a span costs one
/// subtraction, and what bringing its inputs costs. Side by side because a decision reads them together.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    latency_ns: f64,
    energy_mj: f64,
    traffic_bytes: f64,
    /// Log-normal sigma weighted by latency.
    sigma_ns: f64,
    /// Nanoseconds to bring the inputs of this segment here from elsewhere.
    fetch_ns: f64,
    /// Nanoseconds of any launch beside its segments.
    launch_ns: f64,
}

/// In place of a segment: there is none.
const NO_SEGMENT: u16 = u16::MAX;

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
    /// Bytes that each segment leaves.
    pub output_bytes: Vec<u64>,
    /// Bytes of its weights.
    pub memory_bytes: u64,
    /// Variants of the same number share weights ([`crate::plan::Variant::weights`]).
    pub weights: u16,
    /// `[processor * (segments + 1) + segment]`.
    rows: Vec<Row>,
    /// Same index: last segment of the supported run that holds this one, or [`NO_SEGMENT`].
    run_end: Vec<u16>,
    /// `[segment]`: nanoseconds from this segment to the end when each runs where it is fastest.
    best_rest: Vec<f64>,
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
        Ok(Case { plan, device, processors, scenario, tasks, variants, streams })
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

    /// Factor by which a launch on `on` slows while launches run on the `others`: `1 + sum of (contention - 1)`,
    /// the linear superposition of pairwise slow-downs (as in PCCS, MICRO 2021, below saturation).
    pub fn slowdown(&self, on: ProcessorId, others: impl Iterator<Item = ProcessorId>) -> f64 {
        let row = &self.plan.contention[on.0 as usize];
        1.0 + others.filter(|&o| o != on).map(|o| row[o.0 as usize] - 1.0).sum::<f64>()
    }
}

impl VariantTable {
    fn new(plan: &Plan, processors: &[ProcessorTable], index: usize, tasks: &[Task]) -> VariantTable {
        let variant = &plan.variants[index];
        let n = variant.segments.len();
        let fits = |p: usize| processors[p].capacity.is_none_or(|c| variant.memory_bytes <= c);
        let mut rows = Vec::with_capacity(plan.processors.len() * (n + 1));
        let mut run_end = vec![NO_SEGMENT; plan.processors.len() * (n + 1)];
        for (p, spec) in plan.processors.iter().enumerate() {
            let mut sum = Row { launch_ns: spec.launch_us * 1e3, ..Row::default() };
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
                    // What is behind a link has a memory of its own.
                    if processors[p].model.link.is_none() {
                        sum.traffic_bytes += segment.traffic_bytes as f64;
                    }
                }
            }
            rows.push(Row { fetch_ns: 0.0, ..sum });
            for s in (0..n).rev() {
                let at = p * (n + 1) + s;
                if variant.segments[s].costs[p].is_some() && fits(p) {
                    run_end[at] = if run_end[at + 1] == NO_SEGMENT { s as u16 } else { run_end[at + 1] };
                }
            }
        }
        for (p, table) in processors.iter().enumerate() {
            if let Some(link) = &table.model.link {
                let phase = link.phases[0];
                for s in 0..n {
                    let at = p * (n + 1) + s;
                    let end = if run_end[at] == NO_SEGMENT { s } else { run_end[at] as usize };
                    let bytes = variant.segments[s].input_bytes + variant.segments[end].output_bytes;
                    rows[at].fetch_ns = phase.transfer_ns(bytes);
                }
            }
        }
        let mut best_rest = vec![0.0; n + 1];
        for s in (0..n).rev() {
            let costs = variant.segments[s].costs.iter().enumerate();
            let best = costs.filter(|&(p, _)| fits(p)).filter_map(|(_, c)| c.map(|c| c.mean_us * 1e3));
            best_rest[s] = best_rest[s + 1] + best.fold(f64::INFINITY, f64::min);
        }
        let same = |v: &crate::plan::Variant| v.weights.is_some() && v.weights == variant.weights;
        let weights = plan.variants.iter().position(same).unwrap_or(index) as u16;
        let task = tasks.iter().position(|t| t.name == variant.task).unwrap_or(0);
        VariantTable {
            name: variant.name.clone(),
            task: TaskId(task as u16),
            accuracy: variant.accuracy,
            relative_accuracy: variant.accuracy / tasks[task].best_accuracy,
            segments: n as u16,
            input_bytes: variant.segments.iter().map(|s| s.input_bytes).collect(),
            output_bytes: variant.segments.iter().map(|s| s.output_bytes).collect(),
            memory_bytes: variant.memory_bytes,
            weights,
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

    /// Mean nanoseconds of a launch of segments `first..=last` on `on` alone, its own cost included; all must be supported there.
    pub fn latency_ns(&self, on: ProcessorId, first: u16, last: u16) -> f64 {
        let (before, after) = self.around(on, first, last);
        before.launch_ns + (after.latency_ns - before.latency_ns)
    }

    /// Millijoules of segments `first..=last` on `on`.
    pub fn energy_mj(&self, on: ProcessorId, first: u16, last: u16) -> f64 {
        let (before, after) = self.around(on, first, last);
        after.energy_mj - before.energy_mj
    }

    /// Memory bandwidth that segments `first..=last` ask for on `on` at full speed, in GB/s; 0 behind a link.
    pub fn demand_gbps(&self, on: ProcessorId, first: u16, last: u16) -> f64 {
        let (before, after) = self.around(on, first, last);
        let latency_ns = after.latency_ns - before.latency_ns;
        if latency_ns > 0.0 { (after.traffic_bytes - before.traffic_bytes) / latency_ns } else { 0.0 }
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
