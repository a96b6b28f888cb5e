//! The last seconds as plain data for people: what the live page and `cosched top` show, and the reason of one decision. It refuses to
//! draw, and to hold the scheduler up while it counts: it works on a copy.

use super::engine::Catalog;
use super::rolling::{Launched, Reason, Rolling, lock};
use super::stats::Stats;
use cosched_agent::online::guard::Acting;
use cosched_agent::online::learner::Report;
use cosched_env::case::Case;
use cosched_env::event::Request;
use cosched_env::observation::{Action, Candidate};
use cosched_env::time::{Span, Time};
use cosched_experiments::timeline::outcome_word;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything of the last seconds; times in milliseconds since the engine was started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct State {
    pub policy: String,
    pub now_ms: f64,
    pub window_ms: f64,
    /// Decisions since the engine was started.
    pub decisions: u64,
    /// Decisions of the fallback since the server was started.
    pub fallbacks: u64,
    /// What the learner is at, where the policy learns.
    #[serde(default)]
    pub learning: Option<String>,
    pub processors: Vec<OfProcessor>,
    pub models: Vec<OfModel>,
    pub launches: Vec<OfLaunch>,
    pub requests: Vec<OfRequest>,
    /// The last decisions, the newest first.
    pub recent: Vec<Brief>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct OfProcessor {
    pub name: String,
    pub up: bool,
    /// Share of the window in which it ran launches.
    pub busy: f64,
    pub launches: usize,
    pub failed: usize,
    pub energy_mj: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct OfModel {
    pub name: String,
    /// Requests that have not ended.
    pub pending: usize,
    /// Ends in the window, by outcome.
    pub outcomes: BTreeMap<String, usize>,
    /// Of answers in the window; 0 where there is none.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct OfLaunch {
    pub id: u64,
    pub decision: u64,
    /// Index into `processors`.
    pub processor: usize,
    /// Index into `models`.
    pub model: usize,
    pub variant: String,
    pub first: u16,
    pub last: u16,
    pub request: u64,
    pub from_ms: f64,
    /// `None`: it still runs.
    pub to_ms: Option<f64>,
    pub failure: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct OfRequest {
    pub id: u64,
    /// Index into `models`.
    pub model: usize,
    pub arrival_ms: f64,
    pub deadline_ms: f64,
    /// `None`: it has not ended.
    pub end_ms: Option<f64>,
    pub outcome: String,
}

/// A decision in a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Brief {
    pub number: u64,
    pub at_ms: f64,
    pub took_us: f64,
    pub candidates: usize,
    pub what: String,
    /// Why the fallback decided, if it did.
    pub fallback: Option<String>,
}

/// A decision with all that it was chosen from.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Explained {
    pub brief: Brief,
    pub policy: String,
    pub candidates: Vec<Choice>,
}

/// A candidate. Times in milliseconds; `None` for drop and wait.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Choice {
    pub chosen: bool,
    pub what: String,
    pub request: Option<u64>,
    pub model: Option<String>,
    /// How long the launch is expected to take.
    pub launch_ms: Option<f64>,
    /// When the answer could be there at the earliest, from the decision.
    pub answer_ms: Option<f64>,
    /// By how much that is before the deadline; negative: after it.
    pub slack_ms: Option<f64>,
    pub energy_mj: Option<f64>,
    /// The policy's own score, where it has such a thing.
    pub score: Option<f64>,
}

fn ms(time: Time) -> f64 {
    time.0 as f64 / 1e6
}

fn model_of(case: &Case, request: &Request) -> usize {
    case.streams[request.stream.0 as usize].task.0 as usize
}

/// The last `window` of a catalog's engine.
pub fn state(catalog: &Catalog, stats: &Stats, window: Span) -> State {
    let rolling = lock(&catalog.rolling).clone();
    let (case, now) = (&catalog.case, rolling.now());
    let from = Time(now.0.saturating_sub(window.0));
    let counted = stats.read();
    let seen = |l: &&Launched| l.record.completion.as_ref().is_none_or(|c| c.finished >= from);
    let launches: Vec<&Launched> = rolling.launches.iter().filter(seen).collect();
    let slots = &catalog.slots.processors;
    let up = |p: usize| counted.processors[slots[p]].up;
    let names = case.plan.processors.iter().map(|p| &p.name).enumerate();
    State {
        policy: catalog.policy.clone(),
        now_ms: ms(now),
        window_ms: window.ms(),
        decisions: rolling.decisions,
        fallbacks: counted.fallbacks.values().sum(),
        learning: counted.online.as_ref().map(learning),
        processors: names.map(|(p, name)| processor(p, name, up(p), &launches, (from, now))).collect(),
        models: models(catalog, &rolling, from),
        launches: launches.iter().map(|l| launch(case, l)).collect(),
        requests: requests(case, &rolling, from),
        recent: rolling.reasons.iter().rev().take(40).map(|r| brief(case, r)).collect(),
    }
}

fn learning(report: &Report) -> String {
    let (c, best) = (&report.counts, &report.baseline);
    let who = match report.acting {
        Acting::Good => "decides by its last good weights".to_owned(),
        Acting::Trial => "tries new weights".to_owned(),
        Acting::Baseline => format!("lets {best} decide"),
    };
    format!("{who}, {} lessons, {} published, {} rolled back", report.lessons, c.published, c.rolled_back)
}

fn processor(
    index: usize,
    name: &str,
    up: bool,
    launches: &[&Launched],
    (from, now): (Time, Time),
) -> OfProcessor {
    let here = launches.iter().filter(|l| l.record.launch.processor.0 as usize == index);
    let mut all = OfProcessor { name: name.into(), up, busy: 0.0, launches: 0, failed: 0, energy_mj: 0.0 };
    let mut busy = Span(0);
    for launched in here {
        let (begun, over) = match &launched.record.completion {
            Some(c) => {
                all.failed += usize::from(c.failure.is_some());
                all.energy_mj += c.energy_mj;
                (c.started, c.finished)
            }
            None => (launched.record.at, now),
        };
        all.launches += 1;
        busy += over.since(begun.max(from));
    }
    all.busy = busy.0 as f64 / now.since(from).0.max(1) as f64;
    all
}

fn models(catalog: &Catalog, rolling: &Rolling, from: Time) -> Vec<OfModel> {
    let mut latencies = vec![Vec::new(); catalog.models.len()];
    let names = catalog.models.iter().map(|m| m.name.clone());
    let mut all: Vec<OfModel> = names
        .map(|name| OfModel { name, pending: 0, outcomes: BTreeMap::new(), p50_ms: 0.0, p99_ms: 0.0 })
        .collect();
    for request in rolling.unended.values() {
        all[model_of(&catalog.case, request)].pending += 1;
    }
    for ended in rolling.ended.iter().filter(|e| e.at >= from) {
        let model = model_of(&catalog.case, &ended.request);
        let word = outcome_word(&ended.outcome);
        *all[model].outcomes.entry(word.to_owned()).or_default() += 1;
        if matches!(word, "on time" | "late") {
            latencies[model].push(ended.latency().ms());
        }
    }
    for (model, mut times) in all.iter_mut().zip(latencies) {
        times.sort_by(f64::total_cmp);
        let at = |q: f64| times.get(((times.len() as f64 * q) as usize).min(times.len().saturating_sub(1)));
        model.p50_ms = at(0.5).copied().unwrap_or(0.0);
        model.p99_ms = at(0.99).copied().unwrap_or(0.0);
    }
    all
}

fn launch(case: &Case, launched: &Launched) -> OfLaunch {
    let (record, order) = (&launched.record, &launched.record.launch);
    let variant = case.variant(order.variant);
    OfLaunch {
        id: order.id.0,
        decision: launched.decision,
        processor: order.processor.0 as usize,
        model: variant.task.0 as usize,
        variant: variant.name.clone(),
        first: order.first,
        last: order.last,
        request: order.request.0,
        from_ms: ms(record.completion.as_ref().map_or(record.at, |c| c.started)),
        to_ms: record.completion.as_ref().map(|c| ms(c.finished)),
        failure: record.completion.as_ref().and_then(|c| c.failure.clone()),
    }
}

fn requests(case: &Case, rolling: &Rolling, from: Time) -> Vec<OfRequest> {
    let one = |request: &Request, end: Option<Time>, outcome: &str| OfRequest {
        id: request.id.0,
        model: model_of(case, request),
        arrival_ms: ms(request.arrival),
        deadline_ms: ms(request.deadline),
        end_ms: end.map(ms),
        outcome: outcome.to_owned(),
    };
    let ended = rolling.ended.iter().filter(|e| e.at >= from);
    let ended = ended.map(|e| one(&e.request, Some(e.at), outcome_word(&e.outcome)));
    ended.chain(rolling.unended.values().map(|r| one(r, None, "open"))).collect()
}

/// What a candidate does, in words.
fn words(case: &Case, reason: &Reason, candidate: &Candidate) -> String {
    match candidate.action {
        Action::Wait => "wait".into(),
        Action::Drop { request } => {
            format!("drop {}", case.tasks[reason.requests[request as usize].task.0 as usize].name)
        }
        Action::Launch { variant, first, last, processor, .. } => {
            let (variant, processor) = (case.variant(variant), &case.processor(processor).name);
            format!("{} {first}-{last} on {processor}", variant.name)
        }
    }
}

fn brief(case: &Case, reason: &Reason) -> Brief {
    let chosen = reason.candidates.get(reason.chosen);
    Brief {
        number: reason.number,
        at_ms: ms(reason.at),
        took_us: reason.took_ns as f64 / 1e3,
        candidates: reason.candidates.len(),
        what: chosen.map_or_else(|| "a candidate that was not kept".into(), |c| words(case, reason, c)),
        fallback: reason.fallback.map(str::to_owned),
    }
}

/// A decision with its candidates, if it is still kept.
pub fn explain(catalog: &Catalog, number: u64) -> Option<Explained> {
    let reason = lock(&catalog.rolling).reason(number)?.clone();
    let case = &catalog.case;
    let option = |(i, candidate): (usize, &Candidate)| {
        let request = match candidate.action {
            Action::Launch { request, .. } | Action::Drop { request } => {
                Some(&reason.requests[request as usize])
            }
            Action::Wait => None,
        };
        let launches = matches!(candidate.action, Action::Launch { .. });
        let answer_ms = launches.then_some((candidate.expected_ns + candidate.rest_ns) / 1e6);
        let slack = |answer: f64| request.map(|r| (r.deadline.0 as f64 - reason.at.0 as f64) / 1e6 - answer);
        Choice {
            chosen: i == reason.chosen,
            what: words(case, &reason, candidate),
            request: request.map(|r| r.id.0),
            model: request.map(|r| case.tasks[r.task.0 as usize].name.clone()),
            launch_ms: launches.then_some(candidate.expected_ns / 1e6),
            answer_ms,
            slack_ms: answer_ms.and_then(slack),
            energy_mj: launches.then_some(candidate.energy_mj),
            score: reason.scores.get(i).map(|&s| f64::from(s)),
        }
    };
    let candidates = reason.candidates.iter().enumerate().map(option).collect();
    Some(Explained { brief: brief(case, &reason), policy: catalog.policy.clone(), candidates })
}
