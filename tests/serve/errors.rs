//! What is refused over HTTP: each row has its status and words that name what and where, and the server goes on. The suite's saboteur is
//! the good request that all rows are made from: it must be answered.

use crate::http::{Answer, binary_body, body, get, infer, post, receive, send};
use crate::rig::{Rig, inputs, options};
use cosched::server::Options;
use serde_json::{Value, json};

/// The good body, changed.
fn changed(change: impl Fn(&mut Value)) -> Vec<u8> {
    let mut value = serde_json::from_slice(&body(&inputs(1), json!({}))).unwrap();
    change(&mut value);
    value.to_string().into_bytes()
}

fn check(answer: &Answer, status: u16, words: &[&str]) {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, status, "{words:?}: {text}");
    let error = answer.error();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn wrong_paths_and_methods_are_refused() {
    let rig = Rig::new("edf");
    for (path, status, words) in [
        ("/v2/models/nope", 404, vec!["unknown model", "nope", "keyword, plain"]),
        ("/v2/models/keyword/versions/2", 404, vec!["keyword", "version `2`"]),
        ("/v2/models/nope/stats", 404, vec!["nope"]),
        ("/v2/models/..%2f..%2fetc%2fpasswd/config", 404, vec!["unknown model"]),
        ("/v2/models/%ff", 400, vec!["path"]),
        ("/v2/", 404, vec!["no such path"]),
        ("/etc/passwd", 404, vec!["no such path"]),
        ("/v2/models/keyword/infer", 405, vec!["method"]),
    ] {
        check(&get(rig.http, path), status, &words);
    }
    check(&post(rig.http, "/v2/health/live", b""), 405, &["method"]);
    check(&post(rig.http, "/v2/models/nope/infer", &body(&inputs(1), json!({}))), 404, &["nope"]);
    check(&post(rig.http, "/v2/models/plain/versions/3/infer", b"{}"), 404, &["version `3`"]);
    check(&post(rig.http, "/v2/repository/models/plain/unload", b""), 501, &["loaded or unloaded"]);
    assert_eq!(infer(rig.http, "plain", &inputs(1), json!({})).status, 200);
}

#[test]
fn wrong_tensors_are_refused() {
    let rig = Rig::new("edf");
    let whole = body(&inputs(1), json!({}));
    let rows: Vec<(Vec<u8>, &[&str])> = vec![
        (whole[..whole.len() / 2].to_vec(), &["request JSON"]),
        (b"".to_vec(), &["request JSON"]),
        (b"[]".to_vec(), &["request JSON"]),
        (b"{}".to_vec(), &["inputs"]),
        (b"\xff\xfe".to_vec(), &["request JSON"]),
        (changed(|v| v["inputs"] = json!([])), &["input `input` is missing", "keyword"]),
        (changed(|v| v["inputs"][0]["name"] = json!("inptu")), &["no input `inptu`", "input"]),
        (
            changed(|v| v["inputs"][0]["shape"] = json!([1, 1, 10, 49])),
            &["expected shape [1, 1, 49, 10]", "[1, 1, 10, 49]"],
        ),
        (changed(|v| v["inputs"][0]["shape"] = json!([490])), &["expected shape"]),
        (changed(|v| v["inputs"][0]["shape"] = json!([-1, 1, 49, 10])), &["expected shape"]),
        (changed(|v| v["inputs"][0]["shape"] = json!(vec![1; 17])), &["more than 16"]),
        (changed(|v| v["inputs"][0]["datatype"] = json!("INT64")), &["expected datatype FP32", "INT64"]),
        (changed(|v| v["inputs"][0]["datatype"] = json!("FP33")), &["FP33"]),
        (changed(|v| v["inputs"][0]["data"] = json!([1, 2, 3])), &["holds 490 elements, got 3"]),
        (changed(|v| v["inputs"][0]["data"] = json!(vec![0; 491])), &["more than the 490"]),
        (changed(|v| v["inputs"][0]["data"][7] = json!("x")), &["FP32"]),
        (changed(|v| v["inputs"][0]["data"] = Value::Null), &["expected `data`"]),
        (changed(|v| drop(v["inputs"][0].as_object_mut().unwrap().remove("data"))), &["expected `data`"]),
        (changed(|v| drop(v["inputs"][0].as_object_mut().unwrap().remove("shape"))), &["shape"]),
        (changed(|v| v["inputs"] = json!([v["inputs"][0], v["inputs"][0]])), &["there twice"]),
        (changed(|v| v["inputs"] = json!(vec![v["inputs"][0].clone(); 65])), &["more than 64"]),
        (changed(|v| v["outputs"] = json!([{"name": "outptu"}])), &["no output `outptu`", "output"]),
        (changed(|v| v["outputs"] = json!([{"name": "output"}, {"name": "output"}])), &["there twice"]),
    ];
    for (bytes, words) in rows {
        check(&post(rig.http, "/v2/models/keyword/infer", &bytes), 400, words);
    }
    let shared = |v: &mut Value| v["inputs"][0]["parameters"] = json!({"shared_memory_region": "r"});
    check(&post(rig.http, "/v2/models/keyword/infer", &changed(shared)), 400, &["exclude each other"]);
    let only = changed(|v| {
        shared(v);
        v["inputs"][0].as_object_mut().unwrap().remove("data");
    });
    check(&post(rig.http, "/v2/models/keyword/infer", &only), 501, &["--shared-memory"]);
    check(&get(rig.http, "/v2/systemsharedmemory/status"), 501, &["--shared-memory"]);
    let bytes = changed(|v| v["outputs"] = json!([{"name": "output", "parameters": {"classification": 3}}]));
    check(&post(rig.http, "/v2/models/keyword/infer", &bytes), 501, &["classification"]);
    assert_eq!(post(rig.http, "/v2/models/keyword/infer", &whole).status, 200);
}

#[test]
fn wrong_parameters_are_refused() {
    let rig = Rig::new("edf");
    for (parameters, words) in [
        (json!({"variant": "big"}), vec!["no variant `big`", "kws, kws_small"]),
        (json!({"stream": "x"}), vec!["no stream `x`", "frames, camera"]),
        (json!({"stream": ""}), vec!["no stream"]),
        (json!({"deadline_ms": 0}), vec!["deadline_ms", "above 0"]),
        (json!({"deadline_ms": -5}), vec!["deadline_ms"]),
        (json!({"deadline_ms": 1e12}), vec!["deadline_ms", "at most"]),
        (json!({"timeout": -1}), vec!["u64"]),
        (json!({"timeout": 1e18 as u64}), vec!["timeout", "at most"]),
        (json!({"priority": "high"}), vec!["u64"]),
        (json!({"min_accuracy": 0.99}), vec!["min_accuracy", "0.94"]),
        (json!({"min_accuracy": -1}), vec!["min_accuracy"]),
    ] {
        check(&infer(rig.http, "keyword", &inputs(1), parameters), 400, &words);
    }
}

#[test]
fn wrong_binary_data_is_refused() {
    let rig = Rig::new("edf");
    let (good, json_bytes) = binary_body(&inputs(1), json!({}));
    let ask = |bytes: &[u8], length: &str| {
        let headers = [("Inference-Header-Content-Length", length.to_owned())];
        receive(send(rig.http, "POST", "/v2/models/keyword/infer", &headers, bytes))
    };
    assert_eq!(ask(&good, &json_bytes.to_string()).status, 200);
    let sized = |size: usize| {
        let json = String::from_utf8(good[..json_bytes].to_vec()).unwrap().replace("1960", &size.to_string());
        ([json.as_bytes(), &good[json_bytes..]].concat(), json.len().to_string())
    };
    let (short, short_length) = sized(1956);
    let (long, long_length) = sized(1964);
    let exact = json_bytes.to_string();
    for (bytes, length, words) in [
        (&good[..], "x", vec!["number of bytes"]),
        (&good, "-1", vec!["number of bytes"]),
        (&good, "999999", vec!["999999", "the body has"]),
        (&good, "0", vec!["request JSON"]),
        (&good, "18446744073709551615", vec!["the body has"]),
        (&good[..good.len() - 4], &exact, vec!["1960", "1956 bytes of binary data are left"]),
        (&short, &short_length, vec!["4 bytes of binary data belong to no input"]),
        (&long, &long_length, vec!["binary_data_size is 1964"]),
    ] {
        check(&ask(bytes, length), 400, &words);
    }
    let short = &good[..good.len() - 4];
    let json = String::from_utf8(short[..json_bytes].to_vec()).unwrap().replace("1960", "1956");
    check(
        &ask(&[json.as_bytes(), &short[json_bytes..]].concat(), &json.len().to_string()),
        400,
        &["is 1960 bytes, got 1956"],
    );
}

#[test]
fn large_compressed_and_endless_bodies_are_refused() {
    let rig = Rig::with("edf", &Options { max_body: 20_000, ..options() });
    assert_eq!(infer(rig.http, "keyword", &inputs(1), json!({})).status, 200);
    let path = "/v2/models/keyword/infer";
    check(&post(rig.http, path, &vec![b' '; 20_001]), 413, &["20000 bytes"]);
    // One that does not say its length is stopped on the way.
    let mut chunked = Vec::new();
    for _ in 0..30 {
        chunked.extend_from_slice(b"3e8\r\n");
        chunked.extend_from_slice(&[b' '; 1000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let stream = send(rig.http, "PUT", "/nothing", &[], b"");
    check(&receive(stream), 404, &["no such path"]);
    let mut stream = std::net::TcpStream::connect(rig.http).unwrap();
    use std::io::Write;
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    let _ = stream.write_all(&[head.as_bytes(), &chunked].concat());
    check(&receive(stream), 413, &["20000 bytes"]);
    let gzip = [("Content-Encoding", "gzip".to_owned())];
    check(&receive(send(rig.http, "POST", path, &gzip, b"x")), 415, &["compressed"]);
    assert_eq!(get(rig.http, "/v2/health/ready").status, 200);
}

#[test]
fn requests_that_are_no_http_do_not_stop_others() {
    let rig = Rig::new("edf");
    use std::io::Write;
    for bytes in [
        &b"\x00\x01\x02\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"POST /v2/models/keyword/infer HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v2/models/keyword/infer HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = std::net::TcpStream::connect(rig.http).unwrap();
        stream.write_all(bytes).unwrap();
        assert_ne!(receive_status(stream), Some(200));
    }
    // Connections that say nothing are there meanwhile.
    let _silent: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(rig.http).unwrap()).collect();
    assert_eq!(infer(rig.http, "keyword", &inputs(1), json!({})).status, 200);
}

/// The status of an answer, if any came before the end.
fn receive_status(mut stream: std::net::TcpStream) -> Option<u16> {
    use std::io::Read;
    stream.set_read_timeout(Some(crate::rig::PATIENCE)).unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).get(9..12)?.parse().ok()
}

#[test]
fn more_connections_than_allowed_are_hung_up_on() {
    let rig = Rig::with("edf", &Options { connections: 3, ..options() });
    let held: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(rig.http).unwrap()).collect();
    // Accepted in order, so the fourth is one too many.
    let fourth = send(rig.http, "GET", "/v2/health/live", &[], b"");
    assert_eq!(receive_status(fourth), None);
    drop(held);
    rig.until("a place again", |s| {
        receive_status(send(s.http(), "GET", "/v2/health/live", &[], b"")) == Some(200)
    });
}
