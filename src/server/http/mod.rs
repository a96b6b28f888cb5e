//! The protocol over HTTP: paths, methods, health, metadata, statistics. Every answer is JSON, errors too: `{"error":"..."}`. It refuses
//! to touch the file system: a path of a request is looked up in the table of models and nowhere else.

mod control;
mod infer;
mod live;
mod shared_memory;

use super::engine::Catalog;
use super::model::{Model, PLATFORM, Port, VERSION, datatype};
use super::refusal::{Kind, Refusal};
use super::stats::{OfModel, Timed};
use super::{Shared, metrics};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What of the protocol and of Triton's extensions is spoken.
pub fn extensions(shared: &Shared) -> Vec<&'static str> {
    let mut all =
        vec!["binary_tensor_data", "model_configuration", "parameters", "schedule_policy", "statistics"];
    all.extend(shared.control.then_some("model_repository"));
    all.extend(shared.regions.allowed().then_some("system_shared_memory"));
    all
}

/// All paths.
pub fn router(shared: Shared) -> Router {
    let of_model = |path: &str| {
        [format!("/v2/models/{{model}}{path}"), format!("/v2/models/{{model}}/versions/{{version}}{path}")]
    };
    let mut router = Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/stats", get(all_statistics))
        .route("/metrics", get(numbers));
    router = live::routes(control::routes(shared_memory::routes(router)));
    for (path, handler) in [
        ("", get(metadata)),
        ("/ready", get(model_ready)),
        ("/config", get(config)),
        ("/stats", get(statistics)),
        ("/infer", post(infer::infer)),
    ] {
        for whole in of_model(path) {
            router = router.route(&whole, handler.clone());
        }
    }
    router
        .fallback(async || Refusal::unknown("no such path; see GET /v2"))
        .method_not_allowed_fallback(async || Refusal::new(Kind::Method, "this path knows another method"))
        .with_state(shared)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        reply(self.kind.http(), &json!({ "error": self.message }))
    }
}

fn reply(status: u16, value: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn good(value: &Value) -> Response {
    reply(200, value)
}

/// The model that a path names, of what is served at this moment.
struct Target {
    catalog: Arc<Catalog>,
    model: usize,
}

impl Target {
    fn model(&self) -> &Model {
        &self.catalog.models[self.model]
    }
}

impl FromRequestParts<Shared> for Target {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Target, Refusal> {
        let named = Path::<BTreeMap<String, String>>::from_request_parts(parts, shared).await;
        let Path(named) = named.map_err(|e| Refusal::invalid(format!("the path: {e}")))?;
        let word = |key: &str| named.get(key).map_or("", String::as_str);
        let catalog = shared.core.catalog();
        let model = catalog.model(word("model"), word("version"))?;
        Ok(Target { catalog, model })
    }
}

async fn server(State(shared): State<Shared>) -> Response {
    good(
        &json!({ "name": "cosched", "version": env!("CARGO_PKG_VERSION"), "extensions": extensions(&shared) }),
    )
}

async fn live(State(shared): State<Shared>) -> Response {
    let live = shared.core.live();
    reply(if live { 200 } else { 503 }, &json!({ "live": live }))
}

async fn ready(State(shared): State<Shared>) -> Response {
    let ready = shared.core.ready();
    reply(if ready { 200 } else { 503 }, &json!({ "ready": ready }))
}

async fn model_ready(State(shared): State<Shared>, target: Target) -> Response {
    let ready = shared.core.ready();
    let name = &target.model().name;
    reply(if ready { 200 } else { 503 }, &json!({ "name": name, "ready": ready }))
}

async fn metadata(target: Target) -> Response {
    let model = target.model();
    let tensor = |p: &Port| json!({ "name": p.name, "datatype": datatype(p.dtype), "shape": p.shape });
    let tensors = |ports: &[Port]| ports.iter().map(tensor).collect::<Vec<_>>();
    good(&json!({
        "name": model.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": tensors(&model.inputs),
        "outputs": tensors(&model.outputs),
    }))
}

async fn config(target: Target) -> Response {
    let model = target.model();
    let tensor = |p: &Port| json!({ "name": p.name, "data_type": format!("TYPE_{}", datatype(p.dtype)), "dims": p.shape });
    let tensors = |ports: &[Port]| ports.iter().map(tensor).collect::<Vec<_>>();
    let variant = |v: &super::model::Choice| json!({ "name": v.name, "accuracy": v.accuracy });
    good(&json!({
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": 0,
        "input": tensors(&model.inputs),
        "output": tensors(&model.outputs),
        "variants": model.variants.iter().map(variant).collect::<Vec<_>>(),
    }))
}

fn statistics_of(model: &Model, m: &OfModel) -> Value {
    let timed = |t: Timed| json!({ "count": t.count, "ns": t.ns });
    let fail = m
        .failures
        .values()
        .fold(Timed::default(), |a, b| Timed { count: a.count + b.count, ns: a.ns + b.ns });
    json!({
        "name": model.name,
        "version": VERSION,
        "last_inference": m.last_ms,
        "inference_count": m.success.count,
        "execution_count": m.success.count,
        "inference_stats": {
            "success": timed(m.success),
            "fail": timed(fail),
            "queue": timed(m.queue),
            "compute_input": timed(m.compute_input),
            "compute_infer": timed(m.compute_infer),
            "compute_output": timed(m.compute_output),
            "cache_hit": timed(Timed::default()),
            "cache_miss": timed(Timed::default()),
        },
        "batch_stats": [],
    })
}

async fn statistics(State(shared): State<Shared>, target: Target) -> Response {
    let counted = shared.core.stats.read();
    let one = statistics_of(target.model(), &counted.models[target.catalog.slots.models[target.model]]);
    good(&json!({ "model_stats": [one] }))
}

async fn all_statistics(State(shared): State<Shared>) -> Response {
    let (catalog, counted) = (shared.core.catalog(), shared.core.stats.read());
    let of = catalog.models.iter().zip(&catalog.slots.models);
    let all = of.map(|(model, &slot)| statistics_of(model, &counted.models[slot]));
    good(&json!({ "model_stats": all.collect::<Vec<_>>() }))
}

async fn numbers(State(shared): State<Shared>) -> Response {
    let text = metrics::text(&shared.core);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], Body::from(text)).into_response()
}
