//! What a load asks: a request with random tensors that fit a model, made once and sent again and again. It refuses models with strings.

use cosched_env::streams::rng;
use cosched_executors::remote::client::{Client, ClientError};
use hyper::body::Bytes;
use rand::RngExt;
use serde_json::{Value, json};

/// A request that is sent again and again.
pub struct Question {
    path: String,
    body: Bytes,
    /// Where binary data follows: how many bytes of the body are JSON.
    json_bytes: Option<usize>,
}

impl Question {
    /// Asks the server what `model` takes, and makes a request with random tensors of that kind (axes without an extent get 1) and
    /// these `parameters`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn prepare(
        client: &Client,
        model: &str,
        parameters: &Value,
        seed: u64,
    ) -> Result<Question, ClientError> {
        let path = format!("/v2/models/{model}");
        let (server, metadata) = (client.read("/v2")?, client.read(&path)?);
        let spoken = |e: &Value| e == "binary_tensor_data";
        let binary = server["extensions"].as_array().is_some_and(|all| all.iter().any(spoken));
        let question = question(&format!("{path}/infer"), &metadata, parameters, binary, seed);
        let address = || client.address().to_owned();
        question.map_err(|problem| ClientError::Unexpected { address: address(), path, problem })
    }

    /// Asks; good when the status of the answer is 200.
    pub(super) async fn ask(&self, client: &Client) -> Result<(), Refused> {
        match client.post(&self.path, self.body.clone(), self.json_bytes).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(Refused { what: answer.status.to_string(), words: answer.complaint() }),
            Err(problem) => Err(Refused { what: problem.clone(), words: problem }),
        }
    }
}

/// Why a request was not answered.
pub(super) struct Refused {
    /// The status, or what went wrong with the connection.
    pub what: String,
    /// With the server's words where it said any.
    pub words: String,
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
