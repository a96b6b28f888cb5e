//! The same server over gRPC: its answers are those over HTTP, its refusals have gRPC's codes.

use crate::grpc::{call, infer_request, parameter};
use crate::http;
use crate::rig::{Rig, Way, difference, inputs, options, reference};
use cosched::server::Options;
use cosched::server::proto::health::{HealthCheckRequest, HealthCheckResponse};
use cosched::server::proto::inference::infer_parameter::ParameterChoice;
use cosched::server::proto::inference::*;
use prost::Message;
use serde_json::json;

/// gRPC's codes.
const INVALID: i32 = 3;
const NOT_FOUND: i32 = 5;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
const LATE: i32 = 4;

fn ask<A: Message + Default>(rig: &Rig, method: &str, question: &impl Message) -> Result<A, (i32, String)> {
    call(rig.grpc, &format!("inference.GRPCInferenceService/{method}"), question)
}

fn floats(raw: &[u8]) -> Vec<f32> {
    raw.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
}

#[test]
fn the_server_tells_what_it_is_and_has() {
    let rig = Rig::new("edf");
    let live: ServerLiveResponse = ask(&rig, "ServerLive", &ServerLiveRequest {}).unwrap();
    let ready: ServerReadyResponse = ask(&rig, "ServerReady", &ServerReadyRequest {}).unwrap();
    assert!(live.live && ready.ready);
    let named = |name: &str, version: &str| ModelReadyRequest { name: name.into(), version: version.into() };
    let ready: ModelReadyResponse = ask(&rig, "ModelReady", &named("plain", "1")).unwrap();
    assert!(ready.ready);
    let server: ServerMetadataResponse = ask(&rig, "ServerMetadata", &ServerMetadataRequest {}).unwrap();
    assert_eq!(server.name, "cosched");
    let question = ModelMetadataRequest { name: "keyword".into(), version: String::new() };
    let metadata: ModelMetadataResponse = ask(&rig, "ModelMetadata", &question).unwrap();
    let of =
        |t: &model_metadata_response::TensorMetadata| (t.name.clone(), t.datatype.clone(), t.shape.clone());
    assert_eq!(of(&metadata.inputs[0]), ("input".into(), "FP32".into(), vec![1, 1, 49, 10]));
    assert_eq!(of(&metadata.outputs[0]), ("output".into(), "FP32".into(), vec![1, 12]));
    assert_eq!(metadata.versions, ["1"]);
    let question = ModelConfigRequest { name: "keyword".into(), version: "1".into() };
    let config: ModelConfigResponse = ask(&rig, "ModelConfig", &question).unwrap();
    let input = &config.config.unwrap().input[0];
    assert_eq!((input.data_type, input.dims.as_slice()), (DataType::TypeFp32 as i32, &[1, 1, 49, 10][..]));
    let index: RepositoryIndexResponse =
        ask(&rig, "RepositoryIndex", &RepositoryIndexRequest::default()).unwrap();
    assert_eq!(index.models.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["keyword", "plain"]);
    for service in ["", "inference.GRPCInferenceService"] {
        let question = HealthCheckRequest { service: service.into() };
        let health: HealthCheckResponse = call(rig.grpc, "grpc.health.v1.Health/Check", &question).unwrap();
        assert_eq!(health.status, 1, "SERVING");
    }
    let question = HealthCheckRequest { service: "x".into() };
    let health: Result<HealthCheckResponse, _> = call(rig.grpc, "grpc.health.v1.Health/Check", &question);
    assert_eq!(health.unwrap_err().0, NOT_FOUND);
}

#[test]
fn answers_are_those_over_http() {
    let rig = Rig::new("edf");
    let input = inputs(11);
    let mut question = infer_request("keyword", &input);
    question.parameters.insert("variant".into(), parameter(ParameterChoice::StringParam("kws".into())));
    let raw: ModelInferResponse = ask(&rig, "ModelInfer", &question).unwrap();
    assert_eq!((raw.id.as_str(), raw.model_version.as_str()), ("7", "1"));
    assert_eq!((raw.outputs[0].name.as_str(), &raw.outputs[0].shape), ("output", &vec![1, 12]));
    let got = floats(&raw.raw_output_contents[0]);
    assert!(difference(&got, &reference("kws", &input)) < 1e-5);
    let over_http = http::infer(rig.http, "keyword", &input, json!({"variant": "kws"}));
    assert_eq!(over_http.outputs()[0].1, got);
    assert_eq!(raw.parameters["processors"], parameter(ParameterChoice::StringParam("cpu".into())));
    assert_eq!(raw.parameters["late"], parameter(ParameterChoice::BoolParam(false)));
    // Typed contents are the same tensor; an output may be named.
    let contents = InferTensorContents { fp32_contents: input.clone(), ..InferTensorContents::default() };
    question.raw_input_contents.clear();
    question.inputs[0].contents = Some(contents);
    let output =
        model_infer_request::InferRequestedOutputTensor { name: "output".into(), ..Default::default() };
    question.outputs.push(output);
    let typed: ModelInferResponse = ask(&rig, "ModelInfer", &question).unwrap();
    assert_eq!(typed.raw_output_contents, raw.raw_output_contents);
    let question = ModelStatisticsRequest { name: "keyword".into(), version: String::new() };
    let statistics: ModelStatisticsResponse = ask(&rig, "ModelStatistics", &question).unwrap();
    let stats = statistics.model_stats[0].inference_stats.unwrap();
    let counts = [stats.success, stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output];
    assert_eq!(counts.map(|t| t.unwrap().count), [3; 5]);
    let all: ModelStatisticsResponse =
        ask(&rig, "ModelStatistics", &ModelStatisticsRequest::default()).unwrap();
    assert_eq!(all.model_stats.len(), 2);
}

#[test]
fn wrong_requests_have_their_codes() {
    let rig = Rig::with("edf", &Options { max_body: 20_000, ..options() });
    let good = infer_request("keyword", &inputs(1));
    let refused = |change: &dyn Fn(&mut ModelInferRequest)| {
        let mut question = good.clone();
        change(&mut question);
        ask::<ModelInferResponse>(&rig, "ModelInfer", &question)
    };
    type Change<'a> = &'a dyn Fn(&mut ModelInferRequest);
    let text = |name: &str| parameter(ParameterChoice::StringParam(name.into()));
    let rows: [(Change, i32, &str); 14] = [
        (&|q| q.model_name = "nope".into(), NOT_FOUND, "nope"),
        (&|q| q.model_version = "2".into(), NOT_FOUND, "version"),
        (&|q| q.inputs[0].shape = vec![490], INVALID, "expected shape"),
        (&|q| q.inputs[0].datatype = "FP16".into(), INVALID, "datatype FP32"),
        (&|q| q.inputs[0].name = "x".into(), INVALID, "no input"),
        (&|q| q.inputs.clear(), INVALID, "belong to no input"),
        (&|q| q.raw_input_contents.clear(), INVALID, "expected contents"),
        (&|q| q.raw_input_contents[0] = vec![0; 1959].into(), INVALID, "1960 bytes, got 1959"),
        (&|q| q.inputs[0].contents = Some(Default::default()), INVALID, "exclude each other"),
        (&|q| q.outputs.push(Default::default()), INVALID, "no output"),
        (&|q| drop(q.parameters.insert("variant".into(), text("x"))), INVALID, "no variant"),
        (&|q| drop(q.parameters.insert("timeout".into(), text("x"))), INVALID, "timeout"),
        (
            &|q| drop(q.inputs[0].parameters.insert("shared_memory_region".into(), text("x"))),
            UNIMPLEMENTED,
            "shared-memory",
        ),
        (&|q| q.raw_input_contents[0] = vec![0; 30_000].into(), 11, "too large"),
    ];
    for (change, code, words) in rows {
        let (got, message) = refused(change).unwrap_err();
        assert_eq!(got, code, "{words}: {message}");
        assert!(message.replace("%20", " ").contains(words), "`{words}` is not in: {message}");
    }
    refused(&|_| ()).unwrap();
    let load = RepositoryModelLoadRequest { model_name: "plain".into(), ..Default::default() };
    let load = ask::<RepositoryModelLoadResponse>(&rig, "RepositoryModelLoad", &load);
    assert_eq!(load.unwrap_err().0, UNIMPLEMENTED);
    let other = ask::<ServerLiveResponse>(&rig, "CudaSharedMemoryStatus", &ServerLiveRequest {});
    assert_eq!(other.unwrap_err().0, UNIMPLEMENTED);
    let other = call::<ServerLiveResponse>(rig.grpc, "other.Service/Method", &ServerLiveRequest {});
    assert_eq!(other.unwrap_err().0, UNIMPLEMENTED);
    let ready = ModelReadyRequest { name: "nope".into(), version: String::new() };
    assert!(!ask::<ModelReadyResponse>(&rig, "ModelReady", &ready).unwrap().ready, "as Triton says it");
}

#[test]
fn ends_without_an_answer_have_their_codes() {
    let rig = Rig::with("edf", &Options { queue: 1, ..options() });
    rig.gate.set(Way::Broken);
    let question = infer_request("plain", &inputs(1));
    let (code, message) = ask::<ModelInferResponse>(&rig, "ModelInfer", &question).unwrap_err();
    assert_eq!(code, INTERNAL, "{message}");
    rig.gate.set(Way::Closed);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask::<ModelInferResponse>(&rig, "ModelInfer", &question));
        rig.gate.holds(1);
        let (code, message) = ask::<ModelInferResponse>(&rig, "ModelInfer", &question).unwrap_err();
        assert_eq!(code, UNAVAILABLE, "{message}");
        let mut other = infer_request("keyword", &inputs(1));
        other.parameters.insert("timeout".into(), parameter(ParameterChoice::Int64Param(10_000)));
        let (code, message) = ask::<ModelInferResponse>(&rig, "ModelInfer", &other).unwrap_err();
        assert_eq!(code, LATE, "{message}");
        rig.gate.set(Way::Open);
        first.join().unwrap().unwrap();
    });
}

#[test]
fn connections_that_say_nothing_or_half_do_not_stop_others() {
    use std::io::{Read, Write};
    let rig = Rig::new("edf");
    let connect = || std::net::TcpStream::connect(rig.grpc).unwrap();
    let _silent: Vec<_> = (0..20).map(|_| connect()).collect();
    let mut half = connect();
    half.write_all(b"PRI * HTTP/2.0").unwrap();
    // One that speaks something else is hung up on.
    let mut other = connect();
    other.set_read_timeout(Some(crate::rig::PATIENCE)).unwrap();
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(matches!(other.read(&mut [0; 100]), Ok(0) | Err(_)));
    let live: ServerLiveResponse = ask(&rig, "ServerLive", &ServerLiveRequest {}).unwrap();
    assert!(live.live);
}
