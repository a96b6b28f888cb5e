//! Who may ask: bearer tokens, the same for both protocols. Health is told to everybody, so that whoever restarts servers needs no token,
//! and so is the live page, which holds no data. It refuses to tell how far a wrong token was right.

use super::refusal::{Kind, Refusal};
use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Begins the paths that need no token.
const OPEN: [&str; 3] = ["/v2/health/live", "/v2/health/ready", "/grpc.health.v1.Health/Check"];

/// Whether two texts are equal, in a time that depends on their lengths only.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn allowed(tokens: &[String], path: &str, headers: &HeaderMap) -> bool {
    if path == "/" || OPEN.contains(&path) {
        return true;
    }
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let token =
        given.and_then(|v| v.split_at_checked(7)).filter(|(kind, _)| kind.eq_ignore_ascii_case(b"bearer "));
    // Every token is compared, whichever is right.
    token.is_some_and(|(_, token)| tokens.iter().fold(false, |any, t| any | equal(t.as_bytes(), token)))
}

/// The same paths for those who bring one of the tokens; `refuse` says so to the others. Without tokens everybody may ask.
pub fn guard(router: Router, tokens: &[String], refuse: fn(Refusal) -> Response) -> Router {
    if tokens.is_empty() {
        return router;
    }
    let tokens: Arc<[String]> = tokens.into();
    router.layer(from_fn(move |request: Request, next: Next| {
        let tokens = tokens.clone();
        async move {
            if allowed(&tokens, request.uri().path(), request.headers()) {
                return next.run(request).await;
            }
            let refusal = Refusal::new(
                Kind::Unauthenticated,
                "expected `Authorization: Bearer TOKEN` with a known token",
            );
            refuse(refusal)
        }
    }))
}

/// How HTTP says it.
pub fn over_http(refusal: Refusal) -> Response {
    ([(header::WWW_AUTHENTICATE, "Bearer")], refusal).into_response()
}

/// How gRPC says it.
pub fn over_grpc(refusal: Refusal) -> Response {
    tonic::Status::from(refusal).into_http::<tonic::body::Body>().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn only_whole_tokens_open() {
        let tokens = ["0123456789abcdef".to_owned(), "fedcba9876543210".to_owned()];
        let ask = |path: &str, value: &str| {
            let value = HeaderValue::from_str(value).unwrap();
            allowed(&tokens, path, &HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
        };
        assert!(ask("/v2", "Bearer 0123456789abcdef") && ask("/v2", "bearer fedcba9876543210"));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdeff",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
            "Bearer  0123456789abcdef",
        ] {
            assert!(!ask("/v2", wrong), "{wrong}");
            assert!(ask("/v2/health/live", wrong));
        }
        assert!(!allowed(&tokens, "/metrics", &HeaderMap::new()) && allowed(&tokens, "/", &HeaderMap::new()));
        assert!(!allowed(&tokens, "/v2/health/live/x", &HeaderMap::new()));
    }
}
