//! The checks of a plan and a scenario; each error names the key. It refuses to repair anything.

use super::{CaseError, ProcessorTable, StreamId, StreamTable, Task, TaskId};
use crate::device::{Device, Link, ProcessorModel};
use crate::objective::Objective;
use crate::plan::{PLAN_FORMAT, Plan};
use crate::scenario::{ArrivalKind, Scenario, Stream};
use crate::time::{Span, Time};

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
            ("launch_us", p.launch_us),
        ] {
            check_number(|| format!("processors[{i}].{key}"), value, 0.0, false)?;
        }
        if let Some(added) = p.crowd.as_ref().map(|c| c.added).filter(|added| !added.is_finite()) {
            return fail(format!("processors[{i}].crowd.added"), format!("expected a number, got {added}"));
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

fn ascending(key: &str, values: impl Iterator<Item = f64>) -> Result<(), CaseError> {
    let mut last = f64::NEG_INFINITY;
    for (i, value) in values.enumerate() {
        check_number(|| format!("{key}[{i}]"), value, 0.0, false)?;
        if value < last {
            return fail(
                format!("{key}[{i}]"),
                format!("expected ascending numbers, got {value} after {last}"),
            );
        }
        last = value;
    }
    Ok(())
}

pub(super) fn device(device: &Device, plan: &Plan) -> Result<(), CaseError> {
    if let Some(bandwidth) = &device.bandwidth {
        for (axis, name) in [(0, "asked for"), (1, "got")] {
            let key = format!("device.bandwidth.curve ({name})");
            ascending(&key, bandwidth.curve.iter().map(|point| point[axis]))?;
        }
        let impossible = |p: &[f64; 2]| p[0] <= 0.0 || p[1] <= 0.0 || p[1] > p[0];
        if let Some(i) = bandwidth.curve.iter().position(impossible) {
            return fail(
                format!("device.bandwidth.curve[{i}]"),
                "expected above 0, and no more got than asked for",
            );
        }
    }
    if let Some(t) = &device.thermal {
        let positive = [("kelvin_per_watt", t.kelvin_per_watt), ("time_constant_s", t.time_constant_s)];
        for (key, value) in positive {
            check_number(|| format!("device.thermal.{key}"), value, 0.0, true)?;
        }
        // A microsecond: shorter ones would round to no time at all, and the governor would look for ever.
        check_number(|| "device.thermal.poll_ms".into(), t.poll_ms, 1e-3, false)?;
        for (key, value) in [("hysteresis_c", t.hysteresis_c), ("base_watts", t.base_watts)] {
            check_number(|| format!("device.thermal.{key}"), value, 0.0, false)?;
        }
        for (key, value) in
            [("ambient_c", t.ambient_c), ("trip_c", t.trip_c), ("start_c", t.start_c.unwrap_or(0.0))]
        {
            check_number(|| format!("device.thermal.{key}"), value, -273.15, false)?;
        }
    }
    device.processors.iter().try_for_each(|(name, model)| {
        if !plan.processors.iter().any(|p| p.name == *name) {
            let known: Vec<_> = plan.processors.iter().map(|p| p.name.as_str()).collect();
            let problem = format!("the plan has no such processor; it has: {}", known.join(", "));
            return fail(format!("device.processor.{name}"), problem);
        }
        check_model(&format!("device.processor.{name}"), model)
    })
}

fn check_model(key: &str, model: &ProcessorModel) -> Result<(), CaseError> {
    for (name, value) in [
        ("peak_gbps", model.peak_gbps),
        ("memory_mb", model.memory_mb),
        ("load_gbps", model.load_gbps),
        ("load_us", model.load_us),
    ] {
        check_number(|| format!("{key}.{name}"), value, 0.0, false)?;
    }
    for (i, f) in model.frequencies.iter().enumerate() {
        for (name, value) in [("speed", f.speed), ("power", f.power)] {
            check_number(|| format!("{key}.frequencies[{i}].{name}"), value, 0.0, true)?;
            if value > 1.0 {
                return fail(
                    format!("{key}.frequencies[{i}].{name}"),
                    format!("expected at most 1, got {value}"),
                );
            }
        }
        if i == 0 && (f.speed != 1.0 || f.power != 1.0) {
            return fail(
                format!("{key}.frequencies[0]"),
                "expected speed 1 and power 1: the step of the plan",
            );
        }
        if i > 0 && f.speed > model.frequencies[i - 1].speed {
            return fail(format!("{key}.frequencies[{i}].speed"), "expected steps from fast to slow");
        }
    }
    model.link.as_ref().map_or(Ok(()), |link| check_link(&format!("{key}.link"), link))
}

fn check_link(key: &str, link: &Link) -> Result<(), CaseError> {
    check_number(|| format!("{key}.sigma"), link.sigma, 0.0, false)?;
    check_number(|| format!("{key}.resend_ms"), link.resend_ms, 0.0, true)?;
    if link.tries == 0 {
        return fail(format!("{key}.tries"), "expected at least 1");
    }
    if link.phases.first().is_none_or(|p| p.from_ms != 0.0) {
        return fail(format!("{key}.phase[0].from_ms"), "expected at least one phase, the first from 0");
    }
    ascending(&format!("{key}.phase.from_ms"), link.phases.iter().map(|p| p.from_ms))?;
    for (i, p) in link.phases.iter().enumerate() {
        check_number(|| format!("{key}.phase[{i}].round_trip_ms"), p.round_trip_ms, 0.0, false)?;
        check_number(|| format!("{key}.phase[{i}].mbps"), p.mbps, 0.0, true)?;
        if !(0.0..=1.0).contains(&p.loss) {
            return fail(format!("{key}.phase[{i}].loss"), format!("expected 0 to 1, got {}", p.loss));
        }
    }
    Ok(())
}

/// Whether each segment can run on some processor that has room for its variant.
pub(super) fn memory(plan: &Plan, processors: &[ProcessorTable]) -> Result<(), CaseError> {
    for (v, variant) in plan.variants.iter().enumerate() {
        let fits = |p: usize| processors[p].capacity.is_none_or(|c| variant.memory_bytes <= c);
        let runs = |costs: &[Option<_>]| costs.iter().enumerate().any(|(p, c)| c.is_some() && fits(p));
        if let Some(s) = variant.segments.iter().position(|s| !runs(&s.costs)) {
            let key = format!("variants[{v}] (`{}`).memory_bytes", variant.name);
            let mb = variant.memory_bytes as f64 / 1e6;
            return fail(
                key,
                format!("no processor that can run segment {s} has memory_mb for its {mb:.1} MB"),
            );
        }
    }
    Ok(())
}

/// What `kind`, `after`, `times_ms` and `open_ms` say, checked: the stream that it follows.
fn check_source(scenario: &Scenario, i: usize) -> Result<Option<StreamId>, CaseError> {
    let s = &scenario.streams[i];
    let key = |rest: &str| format!("stream[{i}].{rest}");
    if !s.name.is_empty() && scenario.streams[..i].iter().any(|t| t.name == s.name) {
        return fail(key("name"), format!("`{}` is there twice", s.name));
    }
    ascending(&key("times_ms"), s.times_ms.iter().copied())?;
    ascending(&key("open_ms"), s.open_ms.iter().flatten().copied())?;
    match (s.kind, s.times_ms.is_empty()) {
        (ArrivalKind::Trace, true) => {
            return fail(key("times_ms"), "a trace needs the times of its requests");
        }
        (ArrivalKind::Trace, false) | (_, true) => {}
        _ => return fail(key("times_ms"), "only a stream of kind `trace` has times"),
    }
    if s.kind != ArrivalKind::Dependent {
        return if s.after.is_empty() {
            Ok(None)
        } else {
            fail(key("after"), "only a stream of kind `dependent` follows another")
        };
    }
    if !(0.0..=1.0).contains(&s.probability) {
        return fail(key("probability"), format!("expected 0 to 1, got {}", s.probability));
    }
    // Streams may only follow those before them, so that chains end.
    let named = |t: &Stream| !t.name.is_empty() && t.name == s.after;
    match scenario.streams[..i].iter().position(named) {
        Some(parent) => Ok(Some(StreamId(parent as u16))),
        None => {
            fail(key("after"), format!("expected the name of a stream above this one, got `{}`", s.after))
        }
    }
}

/// Mean time between requests: as it is said, or what follows from the times of a trace or from the stream that it follows.
fn mean_period_ms(stream: &Stream, parent: Option<&StreamTable>) -> f64 {
    match (stream.kind, parent) {
        (ArrivalKind::Trace, _) => {
            let times = &stream.times_ms;
            let whole = times.last().copied().unwrap_or(0.0);
            (whole / times.len().max(1) as f64).max(1e-3)
        }
        // One that never follows has no period; a day stands for it.
        (ArrivalKind::Dependent, Some(parent)) => (parent.period.ms() / stream.probability).min(8.64e7),
        _ => stream.period_ms,
    }
}

fn objective(o: &Objective) -> Result<(), CaseError> {
    let key = |name: &str| format!("objective.{name}");
    check_number(|| key("late_ms"), o.late_ms, 0.0, true)?;
    for (name, weight) in [
        ("late_value", o.late_value),
        ("drop_penalty", o.drop_penalty),
        ("fail_penalty", o.fail_penalty),
        ("energy_weight", o.energy_weight),
        ("fairness_weight", o.fairness_weight),
    ] {
        check_number(|| key(name), weight, 0.0, false)?;
    }
    for (name, share) in [("accuracy_weight", o.accuracy_weight), ("continuity_weight", o.continuity_weight)]
    {
        if !(0.0..=1.0).contains(&share) {
            return fail(key(name), format!("expected a number from 0 to 1, got {share}"));
        }
    }
    Ok(())
}

pub(super) fn streams(scenario: &Scenario, tasks: &[Task]) -> Result<Vec<StreamTable>, CaseError> {
    if scenario.streams.is_empty() {
        return fail("stream", "expected at least one");
    }
    objective(&scenario.objective)?;
    let mut streams: Vec<StreamTable> = Vec::new();
    for (i, s) in scenario.streams.iter().enumerate() {
        let key = |rest: &str| format!("stream[{i}].{rest}");
        let Some(task) = tasks.iter().position(|t| t.name == s.task) else {
            let known: Vec<_> = tasks.iter().map(|t| t.name.as_str()).collect();
            return fail(key("task"), format!("no variant serves `{}`; tasks: {}", s.task, known.join(", ")));
        };
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
        check_number(|| key("min_accuracy"), s.min_accuracy, 0.0, false)?;
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
        let after = check_source(scenario, i)?;
        let period_ms = mean_period_ms(s, after.map(|parent: StreamId| &streams[parent.0 as usize]));
        // A microsecond: shorter ones would round to no time at all, and requests would never stop coming.
        check_number(|| key("period_ms"), period_ms, 1e-3, false)?;
        let at = |ms: f64| Time::ZERO + Span::from_ms(ms);
        streams.push(StreamTable {
            task: TaskId(task as u16),
            kind: s.kind,
            period: Span::from_ms(period_ms),
            offset: Span::from_ms(s.offset_ms),
            jitter: Span::from_ms(s.jitter_ms),
            burst: s.burst,
            dwell: Span::from_ms(s.dwell_ms),
            times: s.times_ms.iter().map(|&ms| at(ms)).collect(),
            after,
            probability: s.probability,
            open: s.open_ms.iter().map(|w| (at(w[0]), at(w[1]))).collect(),
            queue: s.queue,
            deadline: Span::from_ms(s.deadline_ms),
            expire: Span::from_ms(expire_ms),
            priority: s.priority,
            min_accuracy: s.min_accuracy,
        });
    }
    Ok(streams)
}
