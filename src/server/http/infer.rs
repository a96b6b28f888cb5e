//! `POST .../infer`: the body is read within its limits, made into tensors, answered. Large bodies are worked on beside the threads that
//! speak with callers. It refuses encodings and lengths before it reads anything.

use super::super::Shared;
use super::super::engine::Engine;
use super::super::refusal::{Kind, Refusal};
use super::super::request;
use super::super::wire::{self, Wanted};
use super::Target;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use cosched_executors::submit::Ask;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// How many bytes of a body are JSON, where binary data follows.
const JSON_BYTES: &str = "inference-header-content-length";
const CONTENT_LENGTH: &str = "content-length";
const CONTENT_TYPE: &str = "content-type";
/// Longest time to send a body.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bodies above this are worked on by threads that may be busy for a while.
const LARGE: usize = 256 << 10;

/// A body made into something to ask, and whom to ask.
struct Read {
    engine: Arc<Engine>,
    model: usize,
    ask: Ask,
    id: String,
    wanted: Vec<Wanted>,
    took: Duration,
}

pub(super) async fn infer(
    State(shared): State<Shared>,
    target: Target,
    request: Request,
) -> Result<Response, Refusal> {
    let (length, json_bytes) = check_head(request.headers(), shared.max_body)?;
    // Held until the answer is written: its tensors are as large as its body.
    let _room = room(&shared, length).await?;
    let body = whole(request.into_body(), shared.max_body).await?;
    let large = body.len() > LARGE;
    let there = shared.clone();
    let Read { engine, model, ask, id, wanted, took } =
        work(large, move || read(&there, &target.model().name, &body, json_bytes)).await?;
    let answer = engine.infer(model, ask, took).await?;
    let begun = Instant::now();
    let catalog = engine.catalog.clone();
    // What takes its place while this is written need not wait for it.
    drop(engine);
    let slot = catalog.slots.models[model];
    let large = answer.outputs.iter().map(|t| t.bytes()).sum::<usize>() > LARGE;
    let write = move || wire::write(&catalog.models[model], &answer, &id, &wanted);
    let (body, json_bytes) = work(large, write).await?;
    shared.core.stats.written(slot, begun.elapsed());
    Ok(match json_bytes {
        None => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Some(n) => {
            ([(CONTENT_TYPE, "application/octet-stream".to_owned()), (JSON_BYTES, n.to_string())], body)
                .into_response()
        }
    })
}

/// Waits until there is memory for a large body of that length, or of any that is allowed. Small ones do not wait: connections are few
/// enough, and whoever sends large bodies slowly must not stop them.
async fn room(shared: &Shared, length: Option<usize>) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
    if length.is_some_and(|n| n <= LARGE) {
        return Ok(None);
    }
    let kib = length.unwrap_or(shared.max_body).div_ceil(1024) as u32;
    let room = tokio::time::timeout(PATIENCE, shared.room.clone().acquire_many_owned(kib)).await;
    let permit = room.ok().and_then(Result::ok);
    permit.map(Some).ok_or_else(|| Refusal::unavailable("no memory for the body: too many large requests"))
}

/// The lengths of the body and of its JSON, where the head tells them and promises nothing that is not allowed.
fn check_head(headers: &HeaderMap, max_body: usize) -> Result<(Option<usize>, Option<usize>), Refusal> {
    let number = |name: &str| match headers.get(name) {
        None => Ok(None),
        Some(value) => {
            let number = value.to_str().ok().and_then(|text| text.parse::<usize>().ok());
            number
                .map(Some)
                .ok_or_else(|| Refusal::invalid(format!("header {name}: expected a number of bytes")))
        }
    };
    let length = number(CONTENT_LENGTH)?;
    if length.is_some_and(|n| n > max_body) {
        return Err(too_large(max_body));
    }
    let identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get(header::CONTENT_ENCODING).is_some_and(|value| !identity(value)) {
        return Err(Refusal::new(Kind::Encoding, "compressed bodies are not supported; send it as it is"));
    }
    Ok((length, number(JSON_BYTES)?))
}

fn too_large(max_body: usize) -> Refusal {
    Refusal::new(Kind::TooLarge, format!("the body is larger than {max_body} bytes"))
}

async fn whole(body: Body, max_body: usize) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, max_body)).await {
        Err(_) => Err(Refusal::new(Kind::Slow, format!("the body did not come within {PATIENCE:?}"))),
        Ok(Ok(bytes)) => Ok(bytes),
        // Only one error has a name: the limit. Whoever hung up does not hear the other one.
        Ok(Err(error)) if format!("{error:?}").contains("LengthLimit") => Err(too_large(max_body)),
        Ok(Err(error)) => Err(Refusal::invalid(format!("the body cannot be read: {error}"))),
    }
}

/// The body was perhaps a long time on its way: who is asked is decided now.
fn read(shared: &Shared, model: &str, body: &[u8], json_bytes: Option<usize>) -> Result<Read, Refusal> {
    let begun = Instant::now();
    let engine = shared.core.engine()?;
    let index = engine.catalog.model(model, "")?;
    let model = &engine.catalog.models[index];
    let asked = wire::parse(body, json_bytes)?;
    let wanted = asked.outputs(model, &shared.regions)?;
    let inputs = request::tensors(model, &asked.inputs(&shared.regions)?)?;
    let ask = asked.parameters().ask(model, inputs)?;
    let id = asked.id().to_owned();
    Ok(Read { engine: engine.clone(), model: index, ask, id, wanted, took: begun.elapsed() })
}

/// Runs `task` here, or on a thread of its own kind when it is large.
async fn work<T: Send + 'static>(
    large: bool,
    task: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    if !large {
        return task();
    }
    match tokio::task::spawn_blocking(task).await {
        Ok(result) => result,
        Err(error) => Err(Refusal::new(Kind::Failed, format!("the request could not be worked on: {error}"))),
    }
}
