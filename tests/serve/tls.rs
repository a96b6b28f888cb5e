//! TLS: both protocols inside it, over a certificate that the client knows; nothing in the clear, nothing for who does not trust it, and
//! wrong files are named. The certificate in `tls/` is of `localhost` and 127.0.0.1, vouches for itself, and is good for a century.

use crate::grpc::{call_over, infer_request};
use crate::http::get;
use crate::rig::{PATIENCE, Rig, inputs, options};
use cosched::load::{Arrivals, Client, Load, Question, run};
use cosched::server::Options;
use cosched::server::proto::inference::ModelInferResponse;
use cosched::server::tls::Files;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/tls").join(name)
}

/// The files of the server.
pub fn files() -> Files {
    Files { certificate: file("certificate.pem"), key: file("key.pem") }
}

/// A client that trusts the server.
pub fn trusting(rig: &Rig) -> Client {
    Client::open(&format!("https://localhost:{}", rig.http.port()), Some(&file("certificate.pem"))).unwrap()
}

#[test]
fn both_protocols_are_spoken_inside() {
    let rig = Rig::with("edf", &Options { tls: Some(files()), ..options() });
    let client = trusting(&rig);
    assert_eq!(client.read("/v2").unwrap()["name"], "cosched");
    let question = Question::prepare(&client, "plain", &json!({}), 1).unwrap();
    let (length, warm_up) = (Duration::from_millis(300), Duration::ZERO);
    let load =
        Load { arrivals: Arrivals::Periodic, rate: 50.0, length, warm_up, seed: 5, patience: PATIENCE };
    let outcome = run(client, question, &load).unwrap();
    assert_eq!((outcome.requests, outcome.answered), (15, 15), "{outcome:?}");
    let method = "inference.GRPCInferenceService/ModelInfer";
    let trusted = file("certificate.pem");
    let over = |trusted: &Path| {
        call_over::<ModelInferResponse>(
            rig.grpc,
            method,
            &infer_request("plain", &inputs(1)),
            "",
            Some(trusted),
        )
    };
    assert_eq!(over(&trusted).unwrap().model_name, "plain");
    assert_eq!(rig.server().core().stats.read().models[1].success.count, 16);
}

#[test]
fn nobody_is_served_outside() {
    let rig = Rig::with("edf", &Options { tls: Some(files()), ..options() });
    for (to, words) in [
        (rig.http, &b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"[..]),
        (rig.grpc, &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]),
    ] {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(words).unwrap();
        let (mut said, begun) = (Vec::new(), Instant::now());
        let _ = stream.read_to_end(&mut said);
        // At most TLS's own alert: it is hung up at once.
        assert!(said.len() < 16 && !said.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&said));
        assert!(begun.elapsed() < PATIENCE / 2);
    }
    // Another name than the certificate's, another certificate, and none.
    let port = rig.http.port();
    let problem = |url: &str, trusted: &str| {
        let client = Client::open(url, Some(&file(trusted)));
        client.and_then(|c| c.read("/v2").map_err(|e| e.to_string())).unwrap_err()
    };
    let told = problem(&format!("https://127.0.0.2:{port}"), "certificate.pem");
    assert!(told.contains("TLS") || told.contains("connect"), "{told}");
    assert!(problem(&format!("https://localhost:{port}"), "key.pem").contains("at least one certificate"));
    assert!(Client::open("https://localhost:1", None).err().unwrap().contains("trusted certificates"));
    // Whoever opens a connection and says nothing does not stop the others.
    let silent: Vec<_> = (0..8).map(|_| TcpStream::connect(rig.http).unwrap()).collect();
    assert_eq!(trusting(&rig).read("/v2/health/live").unwrap()["live"], true);
    drop(silent);
    // The saboteur: a server without a certificate does speak in the clear.
    assert_eq!(get(Rig::new("edf").http, "/v2").status, 200);
}

#[test]
fn wrong_files_are_named() {
    let wrong = |certificate: &str, key: &str| {
        Files { certificate: file(certificate), key: file(key) }.acceptor("h2").err().unwrap()
    };
    for (certificate, key, named, words) in [
        ("missing.pem", "key.pem", "missing.pem", "expected certificates"),
        ("key.pem", "key.pem", "key.pem", "at least one certificate"),
        ("certificate.pem", "certificate.pem", "certificate.pem", "expected a private key"),
        ("certificate.pem", "other-key.pem", "other-key.pem", "no key of"),
    ] {
        let problem = wrong(certificate, key);
        assert!(problem.contains(named) && problem.contains(words), "{problem}");
    }
    assert!(files().acceptor("h2").is_ok());
}
