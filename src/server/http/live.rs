//! Paths for people who watch: the live page, what it shows, the reason of one decision, and the last seconds as a Chrome trace. It
//! refuses to change anything; the page itself holds no data and takes nothing from other hosts.

use super::super::Shared;
use super::super::live::{explain, state};
use super::super::refusal::Refusal;
use super::super::request::shorten;
use super::super::rolling::{WINDOW, lock};
use super::good;
use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cosched_env::time::Span;
use cosched_experiments::trace::chrome_trace;
use serde_json::Value;

const PAGE: &str = include_str!("live.html");
/// Nothing is taken from elsewhere, and nobody else may show it in a frame.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'";

pub(super) fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/", get(page))
        .route("/live/state", get(now))
        .route("/live/decisions/{number}", get(decision))
        .route("/live/trace", get(trace))
}

async fn page() -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    (headers, PAGE).into_response()
}

/// Milliseconds that are shown.
fn window(query: Option<&str>) -> Result<Span, Refusal> {
    let Some(query) = query else { return Ok(Span::from_ms(10_000.0)) };
    let ms = query.strip_prefix("window_ms=").and_then(|text| text.parse::<f64>().ok());
    let ms = ms.filter(|&ms| ms > 0.0 && ms <= WINDOW.ms());
    let wrong =
        || format!("expected window_ms=, above 0 and at most {}, got {}", WINDOW.ms(), shorten(query));
    ms.map(Span::from_ms).ok_or_else(|| Refusal::invalid(wrong()))
}

fn json(value: &impl serde::Serialize) -> Response {
    good(&serde_json::to_value(value).unwrap_or(Value::Null))
}

async fn now(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let window = window(query.as_deref())?;
    Ok(json(&state(&shared.core.catalog(), &shared.core.stats, window)))
}

async fn decision(State(shared): State<Shared>, Path(number): Path<String>) -> Result<Response, Refusal> {
    let explained = number.parse().ok().and_then(|number| explain(&shared.core.catalog(), number));
    explained
        .map(|e| json(&e))
        .ok_or_else(|| Refusal::unknown(format!("decision {} is not kept (any more)", shorten(&number))))
}

async fn trace(State(shared): State<Shared>) -> Response {
    let catalog = shared.core.catalog();
    let log = lock(&catalog.rolling).log();
    let mut response = good(&chrome_trace(&log, &catalog.case));
    let named = header::HeaderValue::from_static("attachment; filename=\"cosched-trace.json\"");
    response.headers_mut().insert(header::CONTENT_DISPOSITION, named);
    response
}
