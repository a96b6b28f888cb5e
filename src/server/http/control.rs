//! Paths that change what is served: Triton's repository extension, and the policy. Where no way to change was given to the server they
//! refuse. They refuse paths and files from callers: what is loaded is what the app file says.

use super::super::Shared;
use super::super::model::VERSION;
use super::super::refusal::Refusal;
use super::good;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

/// Most bytes of a body that names a policy.
const MOST: usize = 4096;

pub(super) fn routes(router: Router<Shared>) -> Router<Shared> {
    router
        .route("/v2/repository/index", post(index))
        .route("/v2/repository/models/{model}/load", post(load))
        .route("/v2/repository/models/{model}/unload", post(unload))
        .route("/cosched/policy", get(policy).post(choose))
        .route("/cosched/reload", post(reload))
}

async fn index(State(shared): State<Shared>) -> Response {
    let model = |(name, state, reason): (String, &str, &str)| json!({ "name": name, "version": VERSION, "state": state, "reason": reason });
    good(&shared.core.index().into_iter().map(model).collect())
}

async fn load(State(shared): State<Shared>, Path(model): Path<String>) -> Result<Response, Refusal> {
    shared.controlled()?.load(&model).await?;
    Ok(good(&json!({})))
}

async fn unload(State(shared): State<Shared>, Path(model): Path<String>) -> Result<Response, Refusal> {
    shared.controlled()?.unload(&model).await?;
    Ok(good(&json!({})))
}

async fn policy(State(shared): State<Shared>) -> Response {
    good(&json!({ "policy": shared.core.catalog().policy }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Chosen {
    policy: String,
}

async fn choose(State(shared): State<Shared>, body: Body) -> Result<Response, Refusal> {
    let body = axum::body::to_bytes(body, MOST).await;
    let body = body.map_err(|e| Refusal::invalid(format!("the body cannot be read: {e}")))?;
    let chosen: Chosen = serde_json::from_slice(&body)
        .map_err(|e| Refusal::invalid(format!("expected {{\"policy\": \"NAME\"}}: {e}")))?;
    shared.controlled()?.choose(&chosen.policy).await?;
    Ok(policy(State(shared)).await)
}

async fn reload(State(shared): State<Shared>) -> Result<Response, Refusal> {
    shared.controlled()?.reload().await?;
    Ok(good(&Value::Object(serde_json::Map::new())))
}
