//! A case: one plan and one scenario, checked against each other and turned into index-based tables that never change during a run.
//! It refuses anything ill-formed with an error that names the file's key; after that nothing has to be checked again.

use crate::objective::Objective;
use crate::plan::{PLAN_FORMAT, Plan, ProcessorSpec};
use crate::scenario::{ArrivalKind, Scenario};
use crate::time::Span;
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

fn fail<T>(key: impl Into<String>, problem: impl Into<String>) -> Result<T, CaseError> {
    Err(CaseError { key: key.into(), problem: problem.into() })
}

fn check_number(key: impl Fn() -> String, value: f64, least: f64, open: bool) -> Result<(), CaseError> {
    let fits = value.is_finite() && if open { value > least } else { value >= least };
    if fits {
        return Ok(());
    }
    fail(
        key(),
        format!("expected a number {} {least}, got {value}", if open { "above" } else { "of at least" }),
    )
}

impl Case {
    /// Checks a plan and a scenario and builds the tables.
    ///
    /// # Errors
    /// [`CaseError`] names the first key that does not fit.
    pub fn new(plan: Plan, scenario: Scenario) -> Result<Case, CaseError> {
        check_plan(&plan)?;
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
        let streams = check_streams(&scenario, &tasks)?;
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

fn check_plan(plan: &Plan) -> Result<(), CaseError> {
    if plan.format != PLAN_FORMAT {
        return fail("format", format!("expected plan format {PLAN_FORMAT}, got {}", plan.format));
    }
    let n = plan.processors.len();
    if n == 0 || n > 64 {
        return fail("processors", format!("expected 1 to 64 processors, got {n}"));
    }
    for (i, p) in plan.processors.iter().enumerate() {
        if plan.processors[..i].iter().any(|q| q.name == p.name) {
            return fail(format!("processors[{i}].name"), format!("`{}` is there twice", p.name));
        }
        if p.slots == 0 {
            return fail(format!("processors[{i}].slots"), "expected at least 1");
        }
        for (key, value) in [
            ("active_watts", p.active_watts),
            ("idle_watts", p.idle_watts),
            ("copy_us", p.copy_us),
            ("copy_gbps", p.copy_gbps),
        ] {
            check_number(|| format!("processors[{i}].{key}"), value, 0.0, false)?;
        }
    }
    if plan.contention.len() != n || plan.contention.iter().any(|row| row.len() != n) {
        return fail("contention", format!("expected {n} rows of {n} factors"));
    }
    for (i, row) in plan.contention.iter().enumerate() {
        for (j, &factor) in row.iter().enumerate() {
            check_number(|| format!("contention[{i}][{j}]"), factor, 1.0, false)?;
        }
    }
    if plan.variants.is_empty() {
        return fail("variants", "expected at least one");
    }
    plan.variants.iter().enumerate().try_for_each(|(v, _)| check_variant(plan, v))
}

fn check_variant(plan: &Plan, v: usize) -> Result<(), CaseError> {
    let variant = &plan.variants[v];
    let key = |rest: &str| format!("variants[{v}] (`{}`).{rest}", variant.name);
    check_number(|| key("accuracy"), variant.accuracy, 0.0, true)?;
    if variant.accuracy > 1.0 {
        return fail(key("accuracy"), format!("expected at most 1, got {}", variant.accuracy));
    }
    if variant.segments.is_empty() || variant.segments.len() > 1000 {
        return fail(key("segments"), format!("expected 1 to 1000, got {}", variant.segments.len()));
    }
    for (s, segment) in variant.segments.iter().enumerate() {
        if segment.costs.len() != plan.processors.len() {
            let expected = plan.processors.len();
            return fail(key(&format!("segments[{s}].costs")), format!("expected {expected} entries"));
        }
        if segment.costs.iter().all(Option::is_none) {
            return fail(key(&format!("segments[{s}].costs")), "no processor can run this segment");
        }
        for cost in segment.costs.iter().flatten() {
            check_number(|| key(&format!("segments[{s}].costs.mean_us")), cost.mean_us, 0.0, true)?;
            check_number(|| key(&format!("segments[{s}].costs.energy_mj")), cost.energy_mj, 0.0, false)?;
        }
    }
    Ok(())
}

fn check_streams(scenario: &Scenario, tasks: &[Task]) -> Result<Vec<StreamTable>, CaseError> {
    if scenario.streams.is_empty() {
        return fail("stream", "expected at least one");
    }
    check_number(|| "objective.late_ms".into(), scenario.objective.late_ms, 0.0, true)?;
    let mut streams = Vec::new();
    for (i, s) in scenario.streams.iter().enumerate() {
        let key = |rest: &str| format!("stream[{i}].{rest}");
        let Some(task) = tasks.iter().position(|t| t.name == s.task) else {
            let known: Vec<_> = tasks.iter().map(|t| t.name.as_str()).collect();
            return fail(key("task"), format!("no variant serves `{}`; tasks: {}", s.task, known.join(", ")));
        };
        // A microsecond: shorter ones would round to no time at all, and requests would never stop coming.
        check_number(|| key("period_ms"), s.period_ms, 1e-3, false)?;
        check_number(|| key("deadline_ms"), s.deadline_ms, 0.0, true)?;
        check_number(|| key("priority"), s.priority, 0.0, true)?;
        check_number(|| key("dwell_ms"), s.dwell_ms, 0.0, true)?;
        check_number(|| key("burst"), s.burst, 1.0, false)?;
        if s.burst > 2.0 {
            return fail(
                key("burst"),
                format!("expected at most 2 (the quiet state's rate is 2 - burst), got {}", s.burst),
            );
        }
        for (name, value) in
            [("offset_ms", s.offset_ms), ("jitter_ms", s.jitter_ms), ("expire_ms", s.expire_ms)]
        {
            check_number(|| key(name), value, 0.0, false)?;
        }
        let expire_ms = if s.expire_ms == 0.0 { 2.0 * s.deadline_ms } else { s.expire_ms };
        if expire_ms < s.deadline_ms {
            return fail(key("expire_ms"), format!("expected at least deadline_ms ({})", s.deadline_ms));
        }
        if s.min_accuracy > tasks[task].best_accuracy {
            let best = tasks[task].best_accuracy;
            return fail(
                key("min_accuracy"),
                format!("no variant of `{}` reaches it; the best has {best}", s.task),
            );
        }
        streams.push(StreamTable {
            task: TaskId(task as u16),
            kind: s.kind,
            period: Span::from_ms(s.period_ms),
            offset: Span::from_ms(s.offset_ms),
            jitter: Span::from_ms(s.jitter_ms),
            burst: s.burst,
            dwell: Span::from_ms(s.dwell_ms),
            deadline: Span::from_ms(s.deadline_ms),
            expire: Span::from_ms(expire_ms),
            priority: s.priority,
            min_accuracy: s.min_accuracy,
        });
    }
    Ok(streams)
}
