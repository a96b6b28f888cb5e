//! What is to be expected: of each stream its requests to come, of each waiting request the work that is left and its earliest finish.
//! It refuses to look at candidates.

use cosched_env::case::{Case, ProcessorId, StreamTable, VariantId};
use cosched_env::observation::{Observation, ProcessorView, RequestView};

/// What is to be expected of a stream: its requests to come. Times in nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Flow {
    /// Where its requests run fastest, of the processors that are up.
    pub home: ProcessorId,
    /// How long they take there, alone.
    pub work: f64,
    /// Share of one processor that it needs.
    pub load: f64,
    /// From now to its next request, as far as one can tell.
    pub next: f64,
    /// From a request's arrival to its deadline, and one over it.
    pub unit: f64,
    pub per_unit: f64,
    pub priority: f64,
}

/// What the launches on one processor have in common.
#[derive(Clone, Copy)]
pub(super) struct OnProcessor {
    pub log_drift: f32,
    /// By how much more a launch takes because of what runs elsewhere, as a share.
    pub slowdown: f32,
    /// Load of the streams that run fastest here.
    pub load: f64,
    /// Requests that would be answered first here.
    pub wanted: u32,
}

impl OnProcessor {
    /// Before streams and requests have been looked at.
    pub(super) fn of(view: &ProcessorView) -> OnProcessor {
        let (log_drift, slowdown) = (view.drift.ln() as f32, (view.slowdown - 1.0) as f32);
        OnProcessor { log_drift, slowdown, load: 0.0, wanted: 0 }
    }
}

/// What a waiting request needs, before looking at any one candidate. Times in nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Need {
    /// Deadline minus arrival: the unit of time for this request; and one over it.
    pub unit: f64,
    pub per_unit: f64,
    /// Time until the deadline; negative when it has passed.
    pub left: f64,
    /// Least work to the answer, each segment where it is fastest, in the fastest variant allowed.
    pub work: f64,
    /// Earliest finish over all processors, waiting for busy ones included.
    pub earliest: f64,
    /// The processor of `earliest`.
    pub wants: ProcessorId,
    /// Requests seen with an earlier deadline.
    pub rank: f64,
    /// Accuracy of the best variant still possible, and of the task's best.
    pub best_accuracy: f64,
    pub accuracy_unit: f64,
}

/// The variants in which a request may go on.
pub(super) fn variants<'a>(case: &'a Case, request: &RequestView) -> impl Iterator<Item = VariantId> + 'a {
    let (chosen, least) = (request.variant, request.min_accuracy);
    let all = &case.tasks[request.task.0 as usize].variants;
    all.iter().copied().filter(move |&v| match chosen {
        Some(chosen) => chosen == v,
        None => case.variant(v).accuracy >= least,
    })
}

/// Least nanoseconds of a whole request of a stream on one processor that is up, alone, and that processor.
pub(super) fn fastest(observation: &Observation<'_>, stream: &StreamTable) -> (f64, ProcessorId) {
    let case = observation.case;
    let mut best = (f64::INFINITY, ProcessorId(0));
    for &v in &case.tasks[stream.task.0 as usize].variants {
        let table = case.variant(v);
        if table.accuracy < stream.min_accuracy {
            continue;
        }
        for (p, view) in observation.processors.iter().enumerate() {
            let id = ProcessorId(p as u16);
            let Some(reach) = table.reach(id, 0).filter(|_| view.up) else { continue };
            let work = table.latency_ns(id, 0, reach) * view.drift + table.best_rest_ns(reach + 1);
            if work < best.0 {
                best = (work, id);
            }
        }
    }
    // No processor that is up can begin; a large finite number keeps the features finite.
    if best.0.is_finite() { best } else { (1e12, ProcessorId(0)) }
}

/// Accuracy of the best variant in which a request may go on.
pub(super) fn best_accuracy(case: &Case, request: &RequestView) -> f64 {
    variants(case, request).map(|v| case.variant(v).accuracy).fold(0.0, f64::max)
}

pub(super) fn least_work(case: &Case, request: &RequestView) -> f64 {
    variants(case, request).map(|v| case.variant(v).best_rest_ns(request.next)).fold(f64::INFINITY, f64::min)
}

/// Earliest finish (nanoseconds from now) and its processor, over all processors that are up, waiting for busy ones included.
pub(super) fn earliest_finish(observation: &Observation<'_>, request: &RequestView) -> (f64, ProcessorId) {
    let mut best = (f64::INFINITY, ProcessorId(0));
    for variant in variants(observation.case, request) {
        let table = observation.case.variant(variant);
        for (p, view) in observation.processors.iter().enumerate() {
            let id = ProcessorId(p as u16);
            let Some(reach) = table.reach(id, request.next) else { continue };
            if !view.up {
                continue;
            }
            let wait = view.expected_free.since(observation.now).0 as f64;
            let run = table.latency_ns(id, request.next, reach) * view.slowdown * view.drift;
            let finish = wait + run + table.best_rest_ns(reach + 1);
            if finish < best.0 {
                best = (finish, id);
            }
        }
    }
    // No processor is up: nothing can start; a large finite number keeps the features finite.
    if best.0.is_finite() { best } else { (1e12, ProcessorId(0)) }
}
