//! A plain HTTP/1.1 client over a socket, that knows nothing of the server's code, and the bodies of `infer`. It holds no test.

use crate::rig::PATIENCE;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {} {}", self.head, String::from_utf8_lossy(&self.body)))
    }

    /// The text of an error body.
    pub fn error(&self) -> String {
        let json = self.json();
        let only = json.as_object().is_some_and(|o| o.len() == 1);
        assert!(only, "an error body has `error` alone: {json}");
        json["error"].as_str().expect("a text").to_owned()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|l| l.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        Some(line[name.len() + 1..].trim())
    }

    /// The tensors of an infer answer by name, from JSON or binary data.
    pub fn outputs(&self) -> Vec<(String, Vec<f32>)> {
        let json_bytes = self.header("inference-header-content-length").map(|n| n.parse::<usize>().unwrap());
        let (json, mut rest) = self.body.split_at(json_bytes.unwrap_or(self.body.len()));
        let json: Value = serde_json::from_slice(json).unwrap();
        let mut outputs = Vec::new();
        for output in json["outputs"].as_array().unwrap() {
            assert_eq!(output["datatype"], "FP32");
            let values = match output["parameters"]["binary_data_size"].as_u64() {
                Some(size) => {
                    let (blob, after) = rest.split_at(size as usize);
                    rest = after;
                    blob.chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
                }
                None => {
                    output["data"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
                }
            };
            outputs.push((output["name"].as_str().unwrap().to_owned(), values));
        }
        assert!(rest.is_empty(), "{} bytes too many", rest.len());
        outputs
    }
}

/// Sends a request and leaves the connection open.
pub fn send(to: SocketAddr, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    if method == "POST" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    // A server that has seen enough may hang up before the whole body is sent.
    let _ = stream.write_all(&[head.as_bytes(), b"\r\n", body].concat());
    stream
}

/// Reads the answer.
pub fn receive(mut stream: TcpStream) -> Answer {
    let mut all = Vec::new();
    if let Err(error) = stream.read_to_end(&mut all) {
        assert!(!all.is_empty(), "no answer: {error}");
    }
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").expect("a whole head");
    let head = String::from_utf8(all[..end].to_vec()).unwrap();
    let status = head[9..12].parse().unwrap();
    Answer { status, head, body: all[end + 4..].to_vec() }
}

pub fn get(to: SocketAddr, path: &str) -> Answer {
    receive(send(to, "GET", path, &[], b""))
}

pub fn post(to: SocketAddr, path: &str, body: &[u8]) -> Answer {
    receive(send(to, "POST", path, &[], body))
}

/// The body of an infer request with its tensor as JSON, and parameters.
pub fn body(input: &[f32], parameters: Value) -> Vec<u8> {
    let tensor = json!({"name": "input", "datatype": "FP32", "shape": [1, 1, 49, 10], "data": input});
    json!({"id": "7", "parameters": parameters, "inputs": [tensor]}).to_string().into_bytes()
}

/// The same with binary data both ways: the body and the length of its JSON.
pub fn binary_body(input: &[f32], parameters: Value) -> (Vec<u8>, usize) {
    let mut parameters = parameters;
    parameters["binary_data_output"] = json!(true);
    let size = json!({"binary_data_size": input.len() * 4});
    let tensor = json!({"name": "input", "datatype": "FP32", "shape": [1, 1, 49, 10], "parameters": size});
    let mut bytes = json!({"parameters": parameters, "inputs": [tensor]}).to_string().into_bytes();
    let json_bytes = bytes.len();
    bytes.extend(input.iter().flat_map(|x| x.to_le_bytes()));
    (bytes, json_bytes)
}

/// Asks with JSON.
pub fn infer(to: SocketAddr, model: &str, input: &[f32], parameters: Value) -> Answer {
    post(to, &format!("/v2/models/{model}/infer"), &body(input, parameters))
}

/// Asks with binary data.
pub fn infer_binary(to: SocketAddr, model: &str, input: &[f32]) -> Answer {
    let (bytes, json_bytes) = binary_body(input, json!({}));
    let length = ("Inference-Header-Content-Length", json_bytes.to_string());
    receive(send(to, "POST", &format!("/v2/models/{model}/infer"), &[length], &bytes))
}
