//! A client of the protocol over HTTP/1.1 with connections that are used again. It asks a server what its model takes, and speaks binary
//! tensors where the server says that it understands them, JSON elsewhere. It refuses models with strings.

use axum::body::Body;
use axum::http::request::Builder;
use axum::http::{Request, header};
use cosched_env::streams::rng;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rand::RngExt;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use tokio::net::TcpStream;

/// Why a server cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached, or does not answer.
    #[error("{address}: {problem}")]
    Unreachable {
        /// Where.
        address: String,
        /// What went wrong.
        problem: String,
    },
    /// It answers, but not what the protocol says.
    #[error("{address}{path}: {problem}")]
    Unexpected {
        /// Where.
        address: String,
        /// Which path.
        path: String,
        /// What it said and what was expected.
        problem: String,
    },
    /// There is no runtime to be had.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A request that is sent again and again.
pub struct Question {
    path: String,
    body: axum::body::Bytes,
    /// Where binary data follows: how many bytes of the body are JSON.
    json_bytes: Option<usize>,
}

/// See the module's text.
pub struct Client {
    /// `host:port`.
    address: String,
    /// The value of the header `Authorization`.
    authorization: Option<String>,
    idle: Mutex<Vec<SendRequest<Body>>>,
}

/// Largest answer that is read, in bytes.
const MOST: usize = 1 << 30;

impl Client {
    /// For a server at `host:port`.
    pub fn new(address: &str) -> Client {
        Client { address: address.to_owned(), authorization: None, idle: Mutex::new(Vec::new()) }
    }

    /// The same with a bearer token in every request, where there is one.
    pub fn with_token(self, token: Option<String>) -> Client {
        Client { authorization: token.map(|token| format!("Bearer {token}")), ..self }
    }

    fn with_head(&self, request: Builder) -> Builder {
        let request = request.header(header::HOST, &self.address);
        match &self.authorization {
            Some(value) => request.header(header::AUTHORIZATION, value),
            None => request,
        }
    }

    /// What a path says, as JSON. Blocks.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn read(&self, path: &str) -> Result<Value, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let value = runtime.block_on(self.get(path));
        // What was opened here belongs to this runtime.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        value
    }

    async fn connection(&self) -> Result<SendRequest<Body>, String> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(mut idle) = idle else { break };
            // One that the server has closed meanwhile is no use.
            if idle.ready().await.is_ok() {
                return Ok(idle);
            }
        }
        let stream = TcpStream::connect(&self.address).await.map_err(|e| format!("connect: {}", e.kind()))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let (send, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        tokio::spawn(async move { drop(connection.await) });
        Ok(send)
    }

    async fn send(&self, request: Request<Body>) -> Result<(u16, Vec<u8>), String> {
        let mut connection = self.connection().await?;
        let response = connection.send_request(request).await.map_err(|e| format!("send: {e}"))?;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(Body::new(response.into_body()), MOST).await;
        let body = body.map_err(|e| format!("receive: {e}"))?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok((status, body.into()))
    }

    /// Asks and gives the status of the answer, or what went wrong with the connection.
    pub(super) async fn ask(&self, question: &Question) -> Result<u16, String> {
        let mut request = self.with_head(Request::post(&question.path));
        request = match question.json_bytes {
            Some(n) => request
                .header(header::CONTENT_TYPE, "application/octet-stream")
                .header("Inference-Header-Content-Length", n),
            None => request.header(header::CONTENT_TYPE, "application/json"),
        };
        let request = request.body(Body::from(question.body.clone())).map_err(|e| e.to_string())?;
        self.send(request).await.map(|(status, _)| status)
    }

    async fn get(&self, path: &str) -> Result<Value, ClientError> {
        let address = || self.address.clone();
        let unreachable = |problem| ClientError::Unreachable { address: address(), problem };
        let unexpected =
            |problem| ClientError::Unexpected { address: address(), path: path.to_owned(), problem };
        let request = self.with_head(Request::get(path)).body(Body::empty());
        let request = request.map_err(|e| unexpected(e.to_string()))?;
        let (status, body) = self.send(request).await.map_err(unreachable)?;
        let text = String::from_utf8_lossy(&body);
        if status != 200 {
            let text: String = text.chars().take(200).collect();
            return Err(unexpected(format!("expected status 200, got {status}: {text}")));
        }
        serde_json::from_slice(&body).map_err(|e| unexpected(format!("expected JSON: {e}")))
    }

    /// Asks the server what `model` takes, and makes a request with random tensors of that kind (axes without an extent get 1) and
    /// these `parameters`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn prepare(&self, model: &str, parameters: &Value, seed: u64) -> Result<Question, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let path = format!("/v2/models/{model}");
        let (server, metadata) = runtime.block_on(async {
            let server = self.get("/v2").await?;
            Ok::<_, ClientError>((server, self.get(&path).await?))
        })?;
        // What was opened here belongs to this runtime.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let spoken = |e: &Value| e == "binary_tensor_data";
        let binary = server["extensions"].as_array().is_some_and(|all| all.iter().any(spoken));
        let question = question(&format!("{path}/infer"), &metadata, parameters, binary, seed);
        question.map_err(|problem| ClientError::Unexpected { address: self.address.clone(), path, problem })
    }
}

fn question(
    path: &str,
    metadata: &Value,
    parameters: &Value,
    binary: bool,
    seed: u64,
) -> Result<Question, String> {
    let inputs = metadata["inputs"].as_array().ok_or("expected `inputs` in the metadata")?;
    let mut random = rng(seed, "load tensors", 0);
    let (mut blobs, mut tensors) = (Vec::new(), Vec::new());
    for input in inputs {
        let (name, datatype) = (&input["name"], input["datatype"].as_str().unwrap_or_default());
        let dims = input["shape"].as_array().ok_or_else(|| format!("input {name}: expected a shape"))?;
        let shape: Vec<i64> = dims.iter().map(|d| d.as_i64().unwrap_or(1).max(1)).collect();
        let elements: i64 = shape.iter().product();
        let size = match datatype {
            "FP64" | "INT64" | "UINT64" => 8,
            "FP32" | "INT32" | "UINT32" => 4,
            "FP16" | "BF16" | "INT16" | "UINT16" => 2,
            "INT8" | "UINT8" | "BOOL" => 1,
            other => return Err(format!("input {name}: datatype {other} is not supported")),
        };
        let mut tensor = json!({ "name": name, "datatype": datatype, "shape": shape });
        if binary {
            let begin = blobs.len();
            for _ in 0..elements {
                match datatype {
                    "FP32" => blobs.extend(random.random::<f32>().to_le_bytes()),
                    "FP64" => blobs.extend(random.random::<f64>().to_le_bytes()),
                    // Small whole numbers, and zeros for half floats: whatever they are, they are in range.
                    "FP16" | "BF16" => blobs.extend([0, 0]),
                    _ => blobs.extend(random.random_range(0..2_u64).to_le_bytes().iter().take(size)),
                }
            }
            tensor["parameters"] = json!({ "binary_data_size": blobs.len() - begin });
        } else {
            let one = |random: &mut rand_pcg::Pcg64Mcg| match datatype {
                "FP32" | "FP64" | "FP16" | "BF16" => json!(random.random::<f32>()),
                "BOOL" => json!(random.random_bool(0.5)),
                _ => json!(random.random_range(0..2)),
            };
            tensor["data"] = (0..elements).map(|_| one(&mut random)).collect();
        }
        tensors.push(tensor);
    }
    let mut parameters = parameters.clone();
    if binary {
        parameters["binary_data_output"] = json!(true);
    }
    let mut body = json!({ "parameters": parameters, "inputs": tensors }).to_string().into_bytes();
    let json_bytes = binary.then_some(body.len());
    body.extend(blobs);
    Ok(Question { path: path.to_owned(), body: body.into(), json_bytes })
}
