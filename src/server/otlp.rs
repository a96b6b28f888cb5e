//! Traces for OpenTelemetry: once a second the requests that have ended go to a collector, each a span with its launches as children, in
//! OTLP's JSON form over HTTP (`POST /v1/traces`), which needs no library. It works on copies of what the live page shows, so the scheduler
//! never waits for it. It refuses to keep what a collector did not take, and to continue traces of callers.

use super::core::Core;
use super::engine::Catalog;
use super::rolling::{Launched, lock};
use cosched_env::case::Case;
use cosched_env::event::{Ended, RequestId};
use cosched_env::time::Time;
use cosched_executors::remote::client::Client;
use cosched_experiments::timeline::outcome_word;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often.
pub const EVERY: Duration = Duration::from_secs(1);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module's text.
pub struct Exporter {
    client: Client,
    core: Arc<Core>,
    /// Engines whose requests may still end, with how many ends of each were sent.
    seen: Vec<(Arc<Catalog>, u64)>,
    /// The first half of every trace's number: of this start of the server.
    start: u64,
    engines: u64,
    troubled: bool,
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

impl Exporter {
    /// To the collector at a URL, e.g. `http://localhost:4318`.
    ///
    /// # Errors
    /// When it is no URL, in words.
    pub fn new(url: &str, core: Arc<Core>) -> Result<Exporter, String> {
        let client = Client::open(url, None)?;
        Ok(Exporter { client, core, seen: Vec::new(), start: unix_ns(), engines: 0, troubled: false })
    }

    /// Sends what has ended since the last time.
    pub async fn step(&mut self) {
        let now = self.core.catalog();
        if self.seen.last().is_none_or(|(last, _)| !Arc::ptr_eq(last, &now)) {
            self.seen.push((now.clone(), 0));
            self.engines += 1;
        }
        let mut spans = Vec::new();
        let first = self.engines - self.seen.len() as u64;
        for (i, (catalog, sent)) in self.seen.iter_mut().enumerate() {
            *sent = spans_of(catalog, *sent, (self.start, first + i as u64), &mut spans);
        }
        self.seen.retain(|(catalog, _)| catalog.live() || Arc::ptr_eq(catalog, &now));
        if !spans.is_empty() {
            self.send(spans).await;
        }
    }

    async fn send(&mut self, spans: Vec<Value>) {
        let count = spans.len();
        let name = json!([{ "key": "service.name", "value": { "stringValue": "cosched" } }]);
        let scope = json!({ "name": "cosched", "version": env!("CARGO_PKG_VERSION") });
        let body = json!({ "resourceSpans": [{
            "resource": { "attributes": name },
            "scopeSpans": [{ "scope": scope, "spans": spans }],
        }] });
        let asked = self.client.post("/v1/traces", body.to_string().into(), None);
        let problem = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) if (200..300).contains(&answer.status) => None,
            Ok(Ok(answer)) => Some(answer.complaint()),
            Ok(Err(problem)) => Some(problem),
            Err(_) => Some(format!("no answer in {PATIENCE:?}")),
        };
        // Once, until it is well again: a collector that is away must not fill the log.
        match &problem {
            Some(problem) if !self.troubled => {
                tracing::warn!("{count} spans are lost, {} takes none: {problem}", self.client.address());
            }
            _ => {}
        }
        self.troubled = problem.is_some();
    }
}

/// Adds the spans of all ends after the first `sent`; how many there are now.
fn spans_of(catalog: &Catalog, sent: u64, of: (u64, u64), spans: &mut Vec<Value>) -> u64 {
    let rolling = lock(&catalog.rolling);
    let fresh = (rolling.ends - sent).min(rolling.ended.len() as u64) as usize;
    let mut ended: BTreeMap<RequestId, (Ended, Vec<Launched>)> = BTreeMap::new();
    for end in rolling.ended.iter().skip(rolling.ended.len() - fresh) {
        ended.insert(end.request.id, (end.clone(), Vec::new()));
    }
    for launched in &rolling.launches {
        if let Some((_, launches)) = ended.get_mut(&launched.record.launch.request) {
            launches.push(launched.clone());
        }
    }
    let (ends, now) = (rolling.ends, rolling.now());
    // What is written now takes time; the scheduler may go on.
    drop(rolling);
    let zero = unix_ns().saturating_sub(now.0);
    for (end, launches) in ended.values() {
        request(&catalog.case, end, launches, (zero, of), spans);
    }
    ends
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// The spans of a request; `zero` is the engine's time zero in nanoseconds since 1970.
fn request(
    case: &Case,
    ended: &Ended,
    launches: &[Launched],
    (zero, (start, engine)): (u64, (u64, u64)),
    spans: &mut Vec<Value>,
) {
    let at = |time: Time| (zero + time.0).to_string();
    let (request, kind) = (&ended.request, |failed: bool| if failed { 2 } else { 1 });
    // The number of a request is unique in its engine, that of an engine in this start of the server.
    let trace = format!("{start:016x}{:016x}", request.id.0 ^ (engine << 56));
    let root = format!("{:016x}", request.id.0 ^ start);
    let outcome = outcome_word(&ended.outcome);
    let task = &case.tasks[case.streams[request.stream.0 as usize].task.0 as usize].name;
    let mut attributes = vec![
        attribute("cosched.model", task),
        attribute("cosched.outcome", outcome),
        json!({ "key": "cosched.deadline_ms", "value": { "doubleValue": request.deadline.ms_after(request.arrival) } }),
    ];
    attributes.extend(ended.variant.map(|v| attribute("cosched.variant", &case.variant(v).name)));
    spans.push(json!({
        "traceId": trace, "spanId": root, "name": format!("infer {task}"), "kind": 2,
        "startTimeUnixNano": at(request.arrival), "endTimeUnixNano": at(ended.at),
        "attributes": attributes, "status": { "code": kind(!matches!(outcome, "on time" | "late")) },
    }));
    for Launched { record, decision } in launches {
        let (launch, Some(completion)) = (&record.launch, &record.completion) else { continue };
        let failure = completion.failure.as_deref();
        let attributes = [
            attribute("cosched.processor", &case.processor(launch.processor).name),
            attribute("cosched.variant", &case.variant(launch.variant).name),
            attribute("cosched.segments", &format!("{}-{}", launch.first, launch.last)),
            attribute("cosched.decision", &decision.to_string()),
        ];
        spans.push(json!({
            "traceId": trace, "spanId": format!("{:016x}", (launch.id.0 + 1) ^ start.rotate_left(32)), "parentSpanId": root,
            "name": format!("launch on {}", case.processor(launch.processor).name), "kind": 1,
            "startTimeUnixNano": at(completion.started), "endTimeUnixNano": at(completion.finished),
            "attributes": attributes, "status": { "code": kind(failure.is_some()), "message": failure.unwrap_or("") },
        }));
    }
}
