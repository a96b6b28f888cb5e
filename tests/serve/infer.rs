//! Health, metadata, and answers: the same over JSON and binary data as onnxruntime's own, for one caller and for many at once.

use crate::http::{Answer, get, infer, infer_binary, post, receive, send};
use crate::rig::{Rig, difference, inputs, reference};
use serde_json::{Value, json};

/// Segments on the same cpu: rounding only.
const BOUND: f32 = 1e-5;

#[test]
fn the_server_tells_what_it_is_and_has() {
    let rig = Rig::new("edf");
    let good = |path: &str| {
        let answer = get(rig.http, path);
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
        answer.json()
    };
    assert_eq!(good("/v2/health/live"), json!({"live": true}));
    assert_eq!(good("/v2/health/ready"), json!({"ready": true}));
    let server = good("/v2");
    assert_eq!(server["name"], "cosched");
    assert!(server["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    let tensor = |name: &str, shape: Value| json!([{"name": name, "datatype": "FP32", "shape": shape}]);
    let model = json!({
        "name": "keyword", "versions": ["1"], "platform": "cosched",
        "inputs": tensor("input", json!([1, 1, 49, 10])), "outputs": tensor("output", json!([1, 12])),
    });
    assert_eq!(good("/v2/models/keyword"), model);
    assert_eq!(good("/v2/models/keyword/versions/1"), model);
    assert_eq!(good("/v2/models/plain/ready"), json!({"name": "plain", "ready": true}));
    let config = good("/v2/models/keyword/config");
    assert_eq!(config["input"], json!([{"name": "input", "data_type": "TYPE_FP32", "dims": [1, 1, 49, 10]}]));
    assert_eq!(config["variants"][1], json!({"name": "kws_small", "accuracy": 0.9}));
    let index = post(rig.http, "/v2/repository/index", b"").json();
    assert_eq!(index[1], json!({"name": "plain", "version": "1", "state": "READY", "reason": ""}));
}

/// What the variant that an answer names gives for an input.
fn expected(answer: &Answer, input: &[f32]) -> Vec<f32> {
    let json_bytes = answer.header("inference-header-content-length").map(|n| n.parse::<usize>().unwrap());
    let json: Value =
        serde_json::from_slice(&answer.body[..json_bytes.unwrap_or(answer.body.len())]).unwrap();
    let variant = json["parameters"]["variant"].as_str().unwrap();
    reference(if variant == "other" { "kws_small" } else { variant }, input)
}

#[test]
fn answers_are_those_of_onnxruntime_in_json_and_binary() {
    let rig = Rig::new("least-slack");
    for (seed, model) in [(1, "keyword"), (2, "plain"), (3, "keyword")] {
        let input = inputs(seed);
        let (text, binary) =
            (infer(rig.http, model, &input, json!({})), infer_binary(rig.http, model, &input));
        for answer in [&text, &binary] {
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            let (want, got) = (expected(answer, &input), answer.outputs());
            assert_eq!((got.len(), got[0].0.as_str()), (1, "output"));
            assert!(difference(&got[0].1, &want) < BOUND, "{:?} is not {want:?}", got[0].1);
        }
        assert_eq!(text.header("content-type"), Some("application/json"));
        assert_eq!(binary.header("content-type"), Some("application/octet-stream"));
        assert_eq!(text.json()["id"], "7");
        let told = &text.json()["parameters"];
        assert_eq!((&told["processors"], &told["late"]), (&json!("cpu"), &json!(false)));
        assert!(told["compute_us"].as_u64().unwrap() > 0 && told["queue_us"].is_u64(), "{told}");
    }
    // The saboteur: another input has another answer, far beyond the bound.
    assert!(difference(&reference("kws", &inputs(1)), &reference("kws", &inputs(3))) > 100.0 * BOUND);
}

#[test]
fn outputs_and_variants_are_as_asked() {
    let rig = Rig::new("edf");
    let input = inputs(4);
    for (parameters, variant) in [
        (json!({"variant": "kws_small"}), "kws_small"),
        (json!({"variant": "kws"}), "kws"),
        (json!({"min_accuracy": 0.92}), "kws"),
        (json!({"variant": "kws_small", "stream": "camera", "priority": 1}), "kws_small"),
        (json!({"variant": "kws", "deadline_ms": 20000.5, "timeout": 30_000_000, "custom": [1, {}]}), "kws"),
    ] {
        let answer = infer(rig.http, "keyword/versions/1", &input, parameters.clone());
        assert_eq!(answer.status, 200, "{parameters}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.json()["parameters"]["variant"], variant, "{parameters}");
        assert!(difference(&answer.outputs()[0].1, &reference(variant, &input)) < BOUND, "{parameters}");
    }
    // One output by name and binary, while the request itself is JSON.
    let mut body: Value =
        serde_json::from_slice(&crate::http::body(&input, json!({"variant": "kws"}))).unwrap();
    body["outputs"] = json!([{"name": "output", "parameters": {"binary_data": true}}]);
    let answer = post(rig.http, "/v2/models/keyword/infer", body.to_string().as_bytes());
    assert!(answer.header("inference-header-content-length").is_some(), "{}", answer.head);
    assert!(difference(&answer.outputs()[0].1, &reference("kws", &input)) < BOUND);
    // Nested arrays are the same tensor.
    let rows: Vec<&[f32]> = input.chunks(10).collect();
    body["inputs"][0]["data"] = json!([[rows]]);
    let nested = post(rig.http, "/v2/models/keyword/infer", body.to_string().as_bytes());
    assert_eq!(nested.outputs(), answer.outputs());
}

#[test]
fn many_callers_at_once_all_get_their_own_answers() {
    const CALLERS: u64 = 32;
    const EACH: u64 = 8;
    let rig = Rig::new("edf");
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let http = rig.http;
            scope.spawn(move || {
                for i in 0..EACH {
                    let input = inputs(100 + caller * EACH + i);
                    let variant = if i % 2 == 0 { "kws" } else { "kws_small" };
                    let answer = infer(http, "keyword", &input, json!({ "variant": variant }));
                    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
                    let off = difference(&answer.outputs()[0].1, &reference(variant, &input));
                    assert!(off < BOUND, "caller {caller}, request {i}: off by {off}");
                }
            });
        }
    });
    let statistics = get(rig.http, "/v2/models/keyword/stats").json();
    let stats = &statistics["model_stats"][0]["inference_stats"];
    for key in ["success", "queue", "compute_input", "compute_infer", "compute_output"] {
        assert_eq!(stats[key]["count"], CALLERS * EACH, "{key}: {stats}");
    }
    assert_eq!(stats["fail"]["count"], 0);
    let all = get(rig.http, "/v2/models/stats").json();
    assert_eq!(all["model_stats"].as_array().unwrap().len(), 2);
    check_metrics(&rig, CALLERS * EACH);
}

fn check_metrics(rig: &Rig, answered: u64) {
    let page = get(rig.http, "/metrics");
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4"));
    let text = String::from_utf8(page.body).unwrap();
    let value = |line: &str| -> f64 {
        let found =
            text.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("no {line}:\n{text}"));
        found.trim().parse().unwrap()
    };
    let of = r#"{model="keyword",version="1"}"#;
    assert_eq!(value(&format!("nv_inference_request_success{of}")), answered as f64);
    assert_eq!(value(&format!("nv_inference_count{of}")), answered as f64);
    assert_eq!(value(&format!("nv_inference_pending_request_count{of}")), 0.0);
    assert!(value(&format!("nv_inference_compute_infer_duration_us{of}")) > 0.0);
    assert!(value(r#"nv_energy_consumption{processor="cpu"}"#) > 0.0);
    assert!(value(r#"cosched_launches_total{processor="cpu",outcome="good"}"#) >= answered as f64);
    assert_eq!(value(r#"cosched_request_seconds_bucket{model="keyword",le="+Inf"}"#), answered as f64);
    assert!(value("cosched_decision_seconds_count") >= answered as f64);
    // Each family is told once, before its numbers, and each number once.
    let mut seen = std::collections::BTreeSet::new();
    for line in text.lines().filter(|l| !l.starts_with("# HELP")) {
        let name = line.rsplit_once(' ').unwrap().0;
        assert!(seen.insert(name.to_owned()), "{name} is there twice");
    }
}

#[test]
fn a_connection_serves_one_request_after_another() {
    use std::io::{Read, Write};
    let rig = Rig::new("edf");
    let mut stream = std::net::TcpStream::connect(rig.http).unwrap();
    stream.set_read_timeout(Some(crate::rig::PATIENCE)).unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: t\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.ends_with(b"{\"live\":true}") {
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
    }
    // A head alone is no request; others are served meanwhile.
    let slow = send(rig.http, "POST", "/v2/models/plain/infer", &[("Expect", String::new())], b"");
    assert_eq!(get(rig.http, "/v2/health/ready").status, 200);
    assert_eq!(receive(slow).status, 400);
}
