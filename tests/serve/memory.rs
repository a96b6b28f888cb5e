//! Tensors in shared memory, over both protocols: the same answers as in bodies, and errors that name the region.

use crate::grpc::{Refused, call, infer_request, parameter};
use crate::http::{Answer, get, post};
use crate::rig::{Rig, difference, inputs, options, reference};
use cosched::server::Options;
use cosched::server::proto::inference::infer_parameter::ParameterChoice;
use cosched::server::proto::inference::*;
use serde_json::{Value, json};

/// An object in `/dev/shm` with the input at 0 and room for the output at 4096; gone afterwards.
struct Object(String);

impl Object {
    fn new(name: &str, input: &[f32]) -> Object {
        let key = format!("/cosched-serve-{}-{name}", std::process::id());
        let mut bytes: Vec<u8> = input.iter().flat_map(|x| x.to_le_bytes()).collect();
        bytes.resize(8192, 0);
        std::fs::write(format!("/dev/shm{key}"), bytes).unwrap();
        Object(key)
    }

    fn output(&self) -> Vec<f32> {
        let bytes = std::fs::read(format!("/dev/shm{}", self.0)).unwrap();
        bytes[4096..4096 + 48].chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(format!("/dev/shm{}", self.0));
    }
}

fn rig() -> Rig {
    Rig::with("edf", &Options { shared_memory: true, ..options() })
}

fn register(rig: &Rig, name: &str, key: &str, offset: u64, byte_size: u64) -> Answer {
    let body = json!({ "key": key, "offset": offset, "byte_size": byte_size }).to_string();
    post(rig.http, &format!("/v2/systemsharedmemory/region/{name}/register"), body.as_bytes())
}

fn place(region: &str, offset: u64, size: u64) -> Value {
    json!({ "shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": size })
}

fn ask(rig: &Rig, given: Value, wanted: Value) -> Answer {
    let tensor = json!({"name": "input", "datatype": "FP32", "shape": [1, 1, 49, 10], "parameters": given});
    let output = json!({"name": "output", "parameters": wanted});
    let body = json!({"parameters": {"variant": "kws"}, "inputs": [tensor], "outputs": [output]}).to_string();
    post(rig.http, "/v2/models/keyword/infer", body.as_bytes())
}

#[test]
fn tensors_go_there_and_back_over_http() {
    let (rig, input) = (rig(), inputs(21));
    let object = Object::new("http", &input);
    assert!(
        get(rig.http, "/v2").json()["extensions"]
            .as_array()
            .unwrap()
            .contains(&json!("system_shared_memory"))
    );
    assert_eq!(register(&rig, "in", &object.0, 0, 1960).status, 200);
    assert_eq!(register(&rig, "out", &object.0, 4000, 200).status, 200);
    let answer = ask(&rig, place("in", 0, 1960), place("out", 96, 48));
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(answer.json()["outputs"], json!([{"name": "output", "datatype": "FP32", "shape": [1, 12]}]));
    assert!(difference(&object.output(), &reference("kws", &input)) < 1e-5);
    let all = get(rig.http, "/v2/systemsharedmemory/status").json();
    assert_eq!(all[0], json!({"name": "in", "key": object.0, "offset": 0, "byte_size": 1960}));
    for (given, wanted, status, words) in [
        (place("nope", 0, 1960), place("out", 96, 48), 404, "no shared memory region `nope`"),
        (place("in", 0, 1956), place("out", 96, 48), 400, "1960 bytes, got 1956"),
        (place("in", 4, 1960), place("out", 96, 48), 400, "1960 bytes, not 1960 from 4"),
        (place("in", 0, 1960), place("out", 0, 47), 400, "48 bytes, its shared memory 47"),
        (place("in", 0, 1960), place("out", 200, 48), 400, "not 48 from 200"),
    ] {
        let answer = ask(&rig, given, wanted);
        assert_eq!(answer.status, status, "{words}");
        assert!(answer.error().contains(words), "`{words}` is not in: {}", answer.error());
    }
    assert_eq!(register(&rig, "x", "/../../etc/passwd", 0, 1).status, 400);
    assert_eq!(register(&rig, "x", &object.0, 0, 8193).status, 400);
    assert_eq!(post(rig.http, "/v2/systemsharedmemory/region/in/unregister", b"").status, 200);
    assert_eq!(get(rig.http, "/v2/systemsharedmemory/region/in/status").status, 404);
    assert_eq!(post(rig.http, "/v2/systemsharedmemory/unregister", b"").status, 200);
    assert_eq!(get(rig.http, "/v2/systemsharedmemory/status").json(), json!([]));
}

#[test]
fn tensors_go_there_and_back_over_grpc() {
    let (rig, input) = (rig(), inputs(22));
    let object = Object::new("grpc", &input);
    let method = |name: &str| format!("inference.GRPCInferenceService/{name}");
    let (name, key) = ("all".to_owned(), object.0.clone());
    let question = SystemSharedMemoryRegisterRequest { name, key, offset: 0, byte_size: 8192 };
    let done: Result<SystemSharedMemoryRegisterResponse, Refused> =
        call(rig.grpc, &method("SystemSharedMemoryRegister"), &question);
    done.unwrap();
    let place = |offset: i64, size: i64| {
        let word = |key: &str, choice| (key.to_owned(), parameter(choice));
        [
            word("shared_memory_region", ParameterChoice::StringParam("all".into())),
            word("shared_memory_offset", ParameterChoice::Int64Param(offset)),
            word("shared_memory_byte_size", ParameterChoice::Int64Param(size)),
        ]
    };
    let mut question = infer_request("plain", &input);
    question.raw_input_contents.clear();
    question.inputs[0].parameters = place(0, 1960).into();
    let (name, parameters) = ("output".to_owned(), place(4096, 48).into());
    question.outputs.push(model_infer_request::InferRequestedOutputTensor { name, parameters });
    let answer: ModelInferResponse = call(rig.grpc, &method("ModelInfer"), &question).unwrap();
    assert_eq!(answer.raw_output_contents, [Vec::<u8>::new()], "an empty entry");
    assert!(difference(&object.output(), &reference("kws_small", &input)) < 1e-5);
    let status: SystemSharedMemoryStatusResponse =
        call(rig.grpc, &method("SystemSharedMemoryStatus"), &SystemSharedMemoryStatusRequest::default())
            .unwrap();
    assert_eq!(status.regions["all"].byte_size, 8192);
    // The object is cut behind the server's back: this request fails, the next ones do not.
    std::fs::write(format!("/dev/shm{}", object.0), [0; 16]).unwrap();
    let cut: Result<ModelInferResponse, Refused> = call(rig.grpc, &method("ModelInfer"), &question);
    assert_eq!(cut.unwrap_err().0, 3, "INVALID_ARGUMENT");
    let whole: ModelInferResponse =
        call(rig.grpc, &method("ModelInfer"), &infer_request("plain", &input)).unwrap();
    assert_eq!(whole.raw_output_contents[0].len(), 48);
}
