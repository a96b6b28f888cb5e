//! The checks of a plan and a scenario; each error names the key. It refuses to repair anything.

use super::{CaseError, StreamTable, Task, TaskId};
use crate::plan::{PLAN_FORMAT, Plan};
use crate::scenario::Scenario;
use crate::time::Span;

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

pub(super) fn plan(plan: &Plan) -> Result<(), CaseError> {
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

pub(super) fn streams(scenario: &Scenario, tasks: &[Task]) -> Result<Vec<StreamTable>, CaseError> {
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
