//! A remote server of the Open Inference Protocol v2 as a processor: whole models are offloaded to it, and what a launch takes holds the
//! network. A link that fails is a processor that died, until it answers again; what the server refuses is a failed launch. It refuses
//! segments, and models whose tensors differ from those of the server's.

pub mod client;
pub mod numbers;

use crate::cpu::check_inputs;
use crate::graph::{Graph, Node, Value};
use crate::processor::{ExecError, Instance, Prepared, Processor};
use crate::tensor::{DType, Data, Tensor};
use client::Client;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Where a remote server is, and how it is spoken to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Name of the processor.
    pub name: String,
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: String,
    /// A launch that takes longer counts as a link that failed.
    pub patience: Duration,
    /// PEM file of the certificates that are trusted with `https`.
    pub trusted: Option<PathBuf>,
    /// Name of the environment variable that holds the bearer token.
    pub token_variable: Option<String>,
    /// Names there by our variants' names: `MODEL`, or `MODEL:VARIANT` of another cosched. What is not here is looked for by the names of
    /// the variant and of its task.
    pub models: BTreeMap<String, String>,
}

impl Settings {
    fn client(&self) -> Result<Client, String> {
        let token =
            match &self.token_variable {
                None => None,
                Some(name) => Some(std::env::var(name).map_err(|_| {
                    format!("the environment variable `{name}` of `token_variable` is not set")
                })?),
            };
        Ok(Client::open(&self.url, self.trusted.as_deref())?.with_token(token))
    }
}

/// Assumed power on this side while a launch runs there and while none does: the order of magnitude of a phone's Wi-Fi.
pub const RADIO_WATTS: (f64, f64) = (1.0, 0.05);

/// Bare name of the protocol's extension for binary tensors.
const BINARY: &str = "binary_tensor_data";

/// Asks whether the server is there.
///
/// # Errors
/// [`ExecError::Absent`] when it is not, or the settings make no sense.
pub fn open(settings: &Settings) -> Result<Arc<dyn Processor>, ExecError> {
    let absent = |reason: String| ExecError::Absent {
        processor: settings.name.clone(),
        reason,
        hint: "check `url` and the server there".into(),
    };
    let link = Link::new(settings).map_err(absent)?;
    let server = link.get("/v2").map_err(absent)?;
    let binary = server["extensions"].as_array().is_some_and(|all| all.iter().any(|e| e == BINARY));
    let word = |key: &str| server[key].as_str().unwrap_or("?").chars().take(64).collect::<String>();
    let device = format!("{} {} at {}", word("name"), word("version"), settings.url);
    Ok(Arc::new(Remote { settings: settings.clone(), device, binary }))
}

/// One connection with what drives it: a runtime of its own, so that nothing is handed to another thread.
struct Link {
    runtime: Runtime,
    client: Client,
    patience: Duration,
}

impl Link {
    fn new(settings: &Settings) -> Result<Link, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (client, patience) = (settings.client()?, settings.patience);
        Ok(Link { runtime: runtime.map_err(|e| e.to_string())?, client, patience })
    }

    /// As long as the patience lasts. A call that is broken off leaves a connection that nobody uses again.
    fn within<T>(&self, call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let late = || format!("no answer from {} in {:?}", self.client.address(), self.patience);
        let bounded = async { tokio::time::timeout(self.patience, call).await };
        self.runtime.block_on(bounded).unwrap_or_else(|_| Err(late()))
    }

    fn get(&self, path: &str) -> Result<Json, String> {
        self.within(async { self.client.get(path).await.map_err(|e| e.to_string()) })
    }
}

struct Remote {
    settings: Settings,
    device: String,
    binary: bool,
}

/// An element type in the protocol's words.
pub fn datatype(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "FP32",
        DType::F16 => "FP16",
        DType::F64 => "FP64",
        DType::I64 => "INT64",
        DType::I32 => "INT32",
        DType::U8 => "UINT8",
        DType::I8 => "INT8",
        DType::Bool => "BOOL",
    }
}

/// Which of the server's models is ours: its name, its metadata, and the variant that is to be asked for.
type Found = (String, Json, Option<String>);

impl Remote {
    fn failed(&self, graph: &Graph, reason: String) -> ExecError {
        ExecError::Failed { processor: self.settings.name.clone(), graph: graph.name.clone(), reason }
    }

    /// Looks for our variant there: as the settings say, by its own name, or as a variant of a model with the name of its task.
    fn find(&self, link: &Link, task: &str, variant: &str) -> Result<Found, String> {
        let metadata = |model: &str| link.get(&format!("/v2/models/{model}"));
        if let Some(named) = self.settings.models.get(variant) {
            let (model, of) = named.split_once(':').map_or((named.as_str(), None), |(m, v)| (m, Some(v)));
            return Ok((model.to_owned(), metadata(model)?, of.map(str::to_owned)));
        }
        if let Ok(found) = metadata(variant) {
            return Ok((variant.to_owned(), found, None));
        }
        let config = link.get(&format!("/v2/models/{task}/config"))?;
        let known = config["variants"].as_array().is_some_and(|all| all.iter().any(|v| v["name"] == variant));
        if !known {
            return Err(format!(
                "neither a model `{variant}` nor a variant of that name of a model `{task}`"
            ));
        }
        Ok((task.to_owned(), metadata(task)?, Some(variant.to_owned())))
    }
}

/// Whether a tensor of the server's metadata is what `value` is; an extent of -1 is any.
fn same(value: &Value, tensor: &Json) -> bool {
    let dims = tensor["shape"].as_array().map(Vec::as_slice).unwrap_or_default();
    let fits =
        |(&ours, theirs): (&usize, &Json)| theirs.as_i64().is_some_and(|d| d == -1 || d == ours as i64);
    tensor["name"] == value.name.as_str()
        && tensor["datatype"] == datatype(value.dtype)
        && dims.len() == value.shape.len()
        && value.shape.iter().zip(dims).all(fits)
}

/// The first of our tensors that the server's model does not have as it is; `what` is `inputs` or `outputs`.
fn differs(values: &[Value], metadata: &Json, what: &str) -> Option<String> {
    let theirs = metadata[what].as_array().map(Vec::as_slice).unwrap_or_default();
    let missing = values.iter().find(|v| !theirs.iter().any(|t| same(v, t)));
    let wrong = |v: &Value| format!("`{}` ({}{:?}) is not among its {what}", v.name, v.dtype, v.shape);
    let count = || format!("it has {} {what}, expected {}", theirs.len(), values.len());
    // Outputs that we do not ask for do no harm; inputs that we do not send do.
    missing.map(wrong).or_else(|| (what == "inputs" && theirs.len() != values.len()).then(count))
}

impl Processor for Remote {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn device(&self) -> String {
        self.device.clone()
    }

    fn supports(&self, _graph: &Graph, _node: &Node) -> Result<(), String> {
        Err("whole models only".into())
    }

    fn prepare(&self, segment: &Graph, _samples: &[Vec<Tensor>]) -> Result<Arc<dyn Prepared>, ExecError> {
        Err(self.failed(segment, "it takes whole models only".into()))
    }

    fn prepare_whole(
        &self,
        task: &str,
        variant: &str,
        graph: &Graph,
    ) -> Option<Result<Arc<dyn Prepared>, ExecError>> {
        let prepare = || {
            let link = Link::new(&self.settings)?;
            let (model, metadata, variant) = self.find(&link, task, variant)?;
            let values =
                |ids: &[crate::graph::ValueId]| ids.iter().map(|&id| graph.value(id).clone()).collect();
            let (inputs, outputs): (Vec<Value>, Vec<Value>) = (values(&graph.inputs), values(&graph.outputs));
            let problem =
                differs(&inputs, &metadata, "inputs").or_else(|| differs(&outputs, &metadata, "outputs"));
            if let Some(problem) = problem {
                return Err(format!("the server's model `{model}` is another one: {problem}"));
            }
            let path = format!("/v2/models/{model}/infer").into();
            let whole =
                Whole { path, variant, inputs, outputs, graph: graph.name.clone(), binary: self.binary };
            Ok(RemoteModel { settings: self.settings.clone(), whole: Arc::new(whole) })
        };
        let made = prepare().map(|m| Arc::new(m) as Arc<dyn Prepared>);
        Some(made.map_err(|reason| self.failed(graph, reason)))
    }
}

/// A model there, and what goes in and out.
struct Whole {
    path: Box<str>,
    variant: Option<String>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    graph: String,
    binary: bool,
}

struct RemoteModel {
    settings: Settings,
    whole: Arc<Whole>,
}

impl Prepared for RemoteModel {
    fn spawn(&self) -> Result<Box<dyn Instance>, ExecError> {
        let failed = |reason| ExecError::Failed {
            processor: self.settings.name.clone(),
            graph: self.whole.graph.clone(),
            reason,
        };
        let link = Link::new(&self.settings).map_err(failed)?;
        Ok(Box::new(RemoteInstance { name: self.settings.name.clone(), link, whole: self.whole.clone() }))
    }

    /// What it holds is held there.
    fn memory_bytes(&self) -> usize {
        0
    }
}

struct RemoteInstance {
    name: String,
    link: Link,
    whole: Arc<Whole>,
}

impl Instance for RemoteInstance {
    fn run(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, ExecError> {
        let whole = &self.whole;
        check_inputs(&whole.graph, &whole.inputs, inputs)?;
        let died = |reason| ExecError::Died { processor: self.name.clone(), reason };
        let failed = |reason: String| ExecError::Failed {
            processor: self.name.clone(),
            graph: whole.graph.clone(),
            reason,
        };
        let (body, json_bytes) = whole.question(inputs).map_err(failed)?;
        let asked = self.link.client.post(&whole.path, body.into(), json_bytes);
        let answer = self.link.within(asked).map_err(died)?;
        if answer.status != 200 {
            return Err(failed(answer.complaint()));
        }
        whole.answer(&answer.body, answer.json_bytes).map_err(failed)
    }
}

/// A tensor of an answer.
#[derive(Deserialize)]
struct Output<'a> {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    #[serde(default)]
    parameters: OfOutput,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OfOutput {
    binary_data_size: Option<usize>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    outputs: Vec<Output<'a>>,
}

impl Whole {
    /// The body, and how many bytes of it are JSON where binary data follows.
    fn question(&self, inputs: &[&Tensor]) -> Result<(Vec<u8>, Option<usize>), String> {
        let head = |v: &Value, rest: String| {
            format!(
                "{{\"name\":{},\"datatype\":\"{}\",\"shape\":{:?},{rest}}}",
                json!(v.name),
                datatype(v.dtype),
                v.shape
            )
        };
        let mut tensors = Vec::new();
        for (value, tensor) in self.inputs.iter().zip(inputs) {
            let rest = if self.binary {
                format!("\"parameters\":{{\"binary_data_size\":{}}}", tensor.bytes())
            } else {
                let mut data = b"\"data\":".to_vec();
                numbers::write(&tensor.data, &mut data)?;
                String::from_utf8(data).map_err(|e| e.to_string())?
            };
            tensors.push(head(value, rest));
        }
        let output = |v: &Value| json!({ "name": v.name, "parameters": { "binary_data": self.binary } });
        let outputs: Json = self.outputs.iter().map(output).collect();
        let parameters = self.variant.as_ref().map_or(json!({}), |v| json!({ "variant": v }));
        let inputs_json = tensors.join(",");
        let mut body =
            format!("{{\"parameters\":{parameters},\"inputs\":[{inputs_json}],\"outputs\":{outputs}}}")
                .into_bytes();
        if !self.binary {
            return Ok((body, None));
        }
        let json_bytes = body.len();
        inputs.iter().for_each(|tensor| body.extend_from_slice(tensor.data.bytes()));
        Ok((body, Some(json_bytes)))
    }

    /// The tensors of an answer, in the order of our outputs.
    fn answer(&self, body: &[u8], json_bytes: Option<usize>) -> Result<Vec<Tensor>, String> {
        let (json, mut blobs) = body
            .split_at_checked(json_bytes.unwrap_or(body.len()))
            .ok_or("the answer is shorter than its JSON")?;
        let answer: Answer<'_> =
            serde_json::from_slice(json).map_err(|e| format!("expected an answer of the protocol: {e}"))?;
        let mut got = BTreeMap::new();
        for output in answer.outputs {
            let blob = match output.parameters.binary_data_size {
                None => None,
                Some(size) => {
                    let (blob, rest) =
                        blobs.split_at_checked(size).ok_or("the answer is shorter than its tensors")?;
                    blobs = rest;
                    Some(blob)
                }
            };
            got.insert(output.name.clone(), (output, blob));
        }
        let tensor = |value: &Value| {
            let (output, blob) =
                got.get(&value.name).ok_or_else(|| format!("the answer has no output `{}`", value.name))?;
            tensor(value, output, *blob).map_err(|problem| format!("output `{}`: {problem}", value.name))
        };
        self.outputs.iter().map(tensor).collect()
    }
}

fn tensor(value: &Value, output: &Output<'_>, blob: Option<&[u8]>) -> Result<Tensor, String> {
    if output.datatype != datatype(value.dtype) || output.shape != value.shape {
        let (wanted, shape) = (datatype(value.dtype), &value.shape);
        return Err(format!("expected {wanted}{shape:?}, got {}{:?}", output.datatype, output.shape));
    }
    let data = match (blob, output.data) {
        (Some(blob), None) if blob.len() == value.bytes() => Data::from_bytes(value.dtype, blob),
        (None, Some(text)) => numbers::parse(value.dtype, text.get(), value.shape.iter().product())?,
        (blob, _) => {
            let got = blob.map_or("no data".to_owned(), |b| format!("{} bytes", b.len()));
            return Err(format!("expected {} bytes, got {got}", value.bytes()));
        }
    };
    Ok(Tensor { shape: value.shape.clone(), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(binary: bool) -> Whole {
        let value = |name: &str, n: usize| Value { name: name.into(), dtype: DType::F32, shape: vec![1, n] };
        let (inputs, outputs) = (vec![value("x", 2)], vec![value("y", 1), value("z", 2)]);
        Whole { path: "/".into(), variant: Some("v".into()), inputs, outputs, graph: "g".into(), binary }
    }

    #[test]
    fn questions_hold_what_was_asked() {
        let tensor = Tensor::f32(&[1, 2], vec![1.5, -2.0]);
        let (body, json_bytes) = whole(true).question(&[&tensor]).unwrap();
        let (json, blob) = body.split_at(json_bytes.unwrap());
        let json: Json = serde_json::from_slice(json).unwrap();
        assert_eq!(json["inputs"][0]["parameters"]["binary_data_size"], 8);
        assert_eq!((json["parameters"]["variant"].as_str(), blob), (Some("v"), tensor.data.bytes()));
        let (body, json_bytes) = whole(false).question(&[&tensor]).unwrap();
        let json: Json = serde_json::from_slice(&body).unwrap();
        assert_eq!((json_bytes, &json["inputs"][0]["data"]), (None, &json!([1.5, -2.0])));
        assert_eq!(json["outputs"][1]["name"], "z");
    }

    #[test]
    fn answers_come_in_any_order_and_lies_are_found() {
        let of = |name: &str, n: usize, rest: &str| {
            format!("{{\"name\":\"{name}\",\"datatype\":\"FP32\",\"shape\":[1,{n}],{rest}}}")
        };
        let y = of("y", 1, "\"parameters\":{\"binary_data_size\":4}");
        let z = of("z", 2, "\"data\":[2,[3]]");
        let text = format!("{{\"model_name\":\"m\",\"outputs\":[{z},{y}]}}");
        let mut body = text.clone().into_bytes();
        body.extend(7f32.to_le_bytes());
        let got = whole(true).answer(&body, Some(text.len())).unwrap();
        assert_eq!((got[0].as_f32().unwrap(), got[1].as_f32().unwrap()), (&[7.0][..], &[2.0, 3.0][..]));
        for (body, json_bytes, words) in [
            (body[..body.len() - 1].to_vec(), Some(text.len()), "shorter than its tensors"),
            (body.clone(), Some(body.len() + 1), "shorter than its JSON"),
            (b"{}".to_vec(), None, "expected an answer of the protocol"),
            (format!("{{\"outputs\":[{z}]}}").into_bytes(), None, "no output `y`"),
            (text.replace("[1,2]", "[2,1]").into_bytes(), None, "shorter than its tensors"),
            (
                format!("{{\"outputs\":[{z},{}]}}", of("y", 3, "\"data\":[1,2,3]")).into_bytes(),
                None,
                "expected FP32[1, 1]",
            ),
            (
                format!("{{\"outputs\":[{z},{}]}}", of("y", 1, "\"data\":[1,2]")).into_bytes(),
                None,
                "output `y`",
            ),
        ] {
            let problem = whole(true).answer(&body, json_bytes).unwrap_err();
            assert!(problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn models_that_differ_are_seen() {
        let Whole { inputs, .. } = whole(true);
        let there = |name: &str, datatype: &str, shape: Json| json!({ "inputs": [{ "name": name, "datatype": datatype, "shape": shape }] });
        assert_eq!(differs(&inputs, &there("x", "FP32", json!([-1, 2])), "inputs"), None);
        for other in [
            there("w", "FP32", json!([1, 2])),
            there("x", "FP16", json!([1, 2])),
            there("x", "FP32", json!([1, 3])),
            there("x", "FP32", json!([1, 2, 1])),
            json!({}),
            json!({ "inputs": [there("x", "FP32", json!([1, 2]))["inputs"][0], { "name": "more" }] }),
        ] {
            assert!(differs(&inputs, &other, "inputs").is_some(), "{other}");
        }
    }
}
