//! Traces: a collector of plain sockets gets a span of each request and of each launch, those of the last moment too; one that is away
//! does no harm.

use crate::http::infer;
use crate::rig::{PATIENCE, Rig, Way, inputs, options};
use cosched::server::Options;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A collector that hands on what is posted to it.
fn collector() -> (SocketAddr, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                loop {
                    let (mut line, mut length) = (String::new(), 0);
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    assert_eq!(line, "POST /v1/traces HTTP/1.1\r\n");
                    while line != "\r\n" {
                        line.clear();
                        reader.read_line(&mut line).unwrap();
                        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                            length = n.trim().parse().unwrap();
                        }
                    }
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    tell.send(serde_json::from_slice(&body).unwrap()).unwrap();
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
                    reader.get_mut().write_all(answer).unwrap();
                }
            });
        }
    });
    (address, told)
}

fn spans(told: &Value) -> Vec<Value> {
    let resource = &told["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "cosched");
    resource["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

fn is_root(span: &Value) -> bool {
    span["parentSpanId"].is_null()
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a str {
    let all = span["attributes"].as_array().unwrap();
    all.iter().find(|a| a["key"] == key).unwrap()["value"]["stringValue"].as_str().unwrap()
}

fn ns(span: &Value, key: &str) -> u64 {
    span[key].as_str().unwrap().parse().unwrap()
}

#[test]
fn every_request_is_a_trace() {
    let (address, told) = collector();
    let mut rig = Rig::with("edf", &Options { otlp: Some(format!("http://{address}")), ..options() });
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert_eq!(infer(rig.http, "keyword", &inputs(1), json!({"variant": "kws"})).status, 200);
    let mut all = Vec::new();
    while !all.iter().any(is_root) {
        all.extend(spans(&told.recv_timeout(PATIENCE).unwrap()));
    }
    rig.gate.set(Way::Broken);
    assert_eq!(infer(rig.http, "plain", &inputs(2), json!({})).status, 500);
    // What ended at the last moment is sent before the server ends.
    rig.server.take().unwrap().shutdown();
    let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    all.extend(told.try_iter().flat_map(|t| spans(&t)));
    let roots: Vec<_> = all.iter().filter(|s| is_root(s)).collect();
    assert_eq!(roots.len(), 2, "{roots:?}");
    let second = Duration::from_secs(1).as_nanos() as u64;
    for (root, (model, outcome, code)) in
        roots.iter().zip([("keyword", "on time", 1), ("plain", "failed", 2)])
    {
        assert_eq!((attribute(root, "cosched.model"), attribute(root, "cosched.outcome")), (model, outcome));
        assert_eq!(root["status"]["code"], code);
        assert_eq!(
            (root["traceId"].as_str().unwrap().len(), root["spanId"].as_str().unwrap().len()),
            (32, 16)
        );
        let of: Vec<_> = all.iter().filter(|s| s["traceId"] == root["traceId"] && !is_root(s)).collect();
        assert!(!of.is_empty(), "no launch of {model}");
        for launch in of {
            assert_eq!(launch["parentSpanId"], root["spanId"]);
            assert_eq!(
                (attribute(launch, "cosched.processor"), launch["status"]["code"].as_u64()),
                ("cpu", Some(code))
            );
            let inside = ns(root, "startTimeUnixNano") <= ns(launch, "startTimeUnixNano")
                && ns(launch, "endTimeUnixNano") <= ns(root, "endTimeUnixNano");
            assert!(inside, "a launch is not within its request");
        }
        // The two clocks are read one after the other.
        assert!(
            ns(root, "startTimeUnixNano") + second > before && ns(root, "endTimeUnixNano") < after + second
        );
    }
    let mut numbers: Vec<_> = all.iter().map(|s| s["spanId"].as_str().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), all.len(), "two spans have one number");
    assert_ne!(roots[0]["traceId"], roots[1]["traceId"], "two requests have one trace");
}

#[test]
fn a_collector_that_is_away_does_no_harm() {
    let rig = Rig::with("edf", &Options { otlp: Some("http://127.0.0.1:1".into()), ..options() });
    for seed in 0..5 {
        assert_eq!(infer(rig.http, "plain", &inputs(seed), json!({})).status, 200);
        std::thread::sleep(Duration::from_millis(300));
    }
    let setup_fails = cosched::server::otlp::Exporter::new("nonsense", rig.server().core().clone());
    assert!(setup_fails.err().unwrap().contains("expected http://HOST:PORT"));
}
