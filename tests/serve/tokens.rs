//! Who has no token gets nothing but health and the empty page, over both protocols.

use crate::grpc::{call, call_as, infer_request};
use crate::http::{body, get, receive, send};
use crate::rig::{Rig, inputs, options};
use cosched::server::Options;
use cosched::server::proto::health::{HealthCheckRequest, HealthCheckResponse};
use cosched::server::proto::inference::ModelInferResponse;
use serde_json::json;

const TOKEN: &str = "0123456789abcdefXYZ";

#[test]
fn who_has_no_token_gets_nothing() {
    let rig =
        Rig::with("edf", &Options { tokens: vec!["another-long-token".into(), TOKEN.into()], ..options() });
    let infer = |header: Option<&str>| {
        let headers: Vec<_> = header.iter().map(|h| ("Authorization", (*h).to_owned())).collect();
        receive(send(rig.http, "POST", "/v2/models/plain/infer", &headers, &body(&inputs(1), json!({}))))
    };
    for wrong in
        [None, Some("Bearer x"), Some("Basic 0123456789abcdefXYZ"), Some("Bearer 0123456789abcdefXY")]
    {
        let answer = infer(wrong);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{wrong:?}");
        assert!(answer.error().contains("Bearer TOKEN") && !answer.error().contains(TOKEN));
    }
    for path in [
        "/v2",
        "/v2/models/plain",
        "/metrics",
        "/live/state",
        "/live/trace",
        "/v2/models/plain/infer",
        "/nothing",
    ] {
        assert_eq!(get(rig.http, path).status, 401, "{path}");
    }
    for path in ["/v2/health/live", "/v2/health/ready", "/"] {
        assert_eq!(get(rig.http, path).status, 200, "{path}");
    }
    assert_eq!(infer(Some(&format!("Bearer {TOKEN}"))).status, 200);
    let method = "inference.GRPCInferenceService/ModelInfer";
    let infer = |authorization: &str| {
        call_as::<ModelInferResponse>(rig.grpc, method, &infer_request("plain", &inputs(1)), authorization)
    };
    assert_eq!(infer("Bearer x").unwrap_err().0, 16, "UNAUTHENTICATED");
    let asked = call::<ModelInferResponse>(rig.grpc, method, &infer_request("plain", &inputs(1)));
    assert_eq!(asked.unwrap_err().0, 16);
    assert_eq!(infer(&format!("Bearer {TOKEN}")).unwrap().model_name, "plain");
    let check = "grpc.health.v1.Health/Check";
    let health: HealthCheckResponse = call(rig.grpc, check, &HealthCheckRequest::default()).unwrap();
    assert_eq!(health.status, 1);
    assert_eq!(rig.server().core().stats.read().models[1].success.count, 2);
}
