//! A remote server of the Open Inference Protocol v2 as a processor: whole models are offloaded to it, and what a launch takes holds the
//! network. A link that fails is a processor that died, until it answers again; what the server refuses is a failed launch. It refuses
//! segments, and models whose tensors differ from those of the server's.

pub mod client;
pub mod numbers;
mod whole;

use crate::cpu::check_inputs;
use crate::graph::{Graph, Node, Value};
use crate::held::{Held, hosts};
use crate::processor::{ExecError, Instance, Prepared, Processor};
use crate::stop::{Halt, Stop};
use crate::tensor::{DType, Tensor};
use client::Client;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use whole::{Whole, differs};

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

/// Ends a call that waits for its answer.
struct HangUp(Notify);

impl Halt for HangUp {
    fn halt(&self) {
        self.0.notify_one();
    }
}

/// Turns that the tasks of a connection get to close it.
const CLOSING: usize = 8;

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

    /// As [`Link::within`]; `None` where `hung_up` comes first: the server then sees its caller go away.
    fn unless<T>(
        &self,
        hung_up: &HangUp,
        call: impl Future<Output = Result<T, String>>,
    ) -> Option<Result<T, String>> {
        self.within(async {
            let answer = tokio::select! {
                answer = call => Some(answer),
                () = hung_up.0.notified() => None,
            };
            if answer.is_none() {
                // The connection closes when its own task runs the next time, which nothing else would bring about now.
                for _ in 0..CLOSING {
                    tokio::task::yield_now().await;
                }
            }
            Ok(answer)
        })
        .unwrap_or_else(|late| Some(Err(late)))
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
    fn advance(
        &mut self,
        inputs: &[Held],
        _: &[bool],
        outputs: &mut Vec<Held>,
        stop: &Stop,
    ) -> Result<(), ExecError> {
        let whole = &self.whole;
        check_inputs(&whole.graph, &whole.inputs, inputs)?;
        let inputs = hosts(inputs)?;
        let died = |reason| ExecError::Died { processor: self.name.clone(), reason };
        let failed = |reason: String| ExecError::Failed {
            processor: self.name.clone(),
            graph: whole.graph.clone(),
            reason,
        };
        let (body, json_bytes) = whole.question(&inputs).map_err(failed)?;
        let asked = self.link.client.post(&whole.path, body.into(), json_bytes);
        let hang_up = Arc::new(HangUp(Notify::new()));
        let answer = stop.during(&hang_up, || self.link.unless(&hang_up, asked)).flatten();
        let answer = answer.ok_or_else(|| ExecError::Stopped { processor: self.name.clone() })?;
        let answer = answer.map_err(died)?;
        if answer.status != 200 {
            return Err(failed(answer.complaint()));
        }
        outputs.extend(
            whole.answer(&answer.body, answer.json_bytes).map_err(failed)?.into_iter().map(Held::from),
        );
        Ok(())
    }
}
