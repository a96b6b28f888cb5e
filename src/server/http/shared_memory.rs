//! Paths of the extension for system shared memory. It refuses bodies that are more than a key and two numbers.

use super::super::Shared;
use super::super::refusal::Refusal;
use super::good;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;

/// Most bytes of a body that names a region.
const MOST: usize = 4096;

pub(super) fn routes(router: Router<Shared>) -> Router<Shared> {
    let region = "/v2/systemsharedmemory/region/{region}";
    router
        .route("/v2/systemsharedmemory/status", get(all))
        .route("/v2/systemsharedmemory/unregister", post(forget_all))
        .route(&format!("{region}/status"), get(one))
        .route(&format!("{region}/register"), post(register))
        .route(&format!("{region}/unregister"), post(forget))
}

#[derive(Deserialize)]
struct Named {
    key: String,
    #[serde(default)]
    offset: u64,
    byte_size: u64,
}

fn status(shared: &Shared, name: &str) -> Result<Response, Refusal> {
    let regions = shared.regions.status(name)?;
    let one = regions
        .iter()
        .map(|(name, r)| json!({ "name": name, "key": r.key, "offset": r.offset, "byte_size": r.byte_size }));
    Ok(good(&one.collect()))
}

async fn all(State(shared): State<Shared>) -> Result<Response, Refusal> {
    status(&shared, "")
}

async fn one(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Response, Refusal> {
    status(&shared, &name)
}

async fn register(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let body = axum::body::to_bytes(body, MOST).await;
    let body = body.map_err(|e| Refusal::invalid(format!("the body cannot be read: {e}")))?;
    let named: Result<Named, _> = serde_json::from_slice(&body);
    let Named { key, offset, byte_size } =
        named.map_err(|e| Refusal::invalid(format!("failed to parse the request JSON: {e}")))?;
    shared.regions.register(&name, &key, offset, byte_size)?;
    Ok(good(&json!({})))
}

async fn forget(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Response, Refusal> {
    shared.regions.unregister(&name)?;
    Ok(good(&json!({})))
}

async fn forget_all(State(shared): State<Shared>) -> Result<Response, Refusal> {
    shared.regions.unregister("")?;
    Ok(good(&json!({})))
}
