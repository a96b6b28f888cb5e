//! A request to infer as both protocols bring it, checked against its model before anything is allocated for its tensors: names, types,
//! shapes, lengths, parameters. It refuses everything that the model does not have; it converts nothing in silence.

use super::model::{Model, Port, datatype};
use super::proto::inference::InferTensorContents;
use super::refusal::Refusal;
use super::shared_memory::Part;
use cosched_env::time::Span;
use cosched_executors::remote::numbers;
use cosched_executors::submit::Ask;
use cosched_executors::tensor::{DType, Data, Tensor};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// Longest deadline and timeout that a request may ask for, in seconds.
pub const LONGEST_S: f64 = 3600.0;

/// Parameters of a request that mean something here; others are let through, as the protocol has it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Parameters {
    /// Microseconds after which it is given up if it still waits; 0: as the stream says.
    pub timeout: Option<u64>,
    /// Milliseconds until it is due; by default as the stream says.
    pub deadline_ms: Option<f64>,
    /// 1 is the highest, 0 or nothing what the stream says: the weight in the objective is 2 / priority.
    pub priority: Option<u64>,
    /// Least accuracy of a variant that may serve it.
    pub min_accuracy: Option<f64>,
    /// The only variant that may serve it.
    pub variant: Option<String>,
    /// The stream of the app file whose defaults it has; by default the first of the task.
    pub stream: Option<String>,
    /// Whether outputs that do not say otherwise come back as binary data (HTTP only).
    pub binary_data_output: Option<bool>,
}

/// Where the elements of an input are.
pub enum Contents<'a> {
    /// Little-endian bytes, row-major.
    Raw(&'a [u8]),
    /// A JSON array, perhaps of arrays.
    Json(&'a RawValue),
    /// One of gRPC's lists.
    Typed(&'a InferTensorContents),
    /// Little-endian bytes in shared memory, row-major.
    Shared(Part),
}

/// An input as it was sent.
pub struct Given<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type in the protocol's words.
    pub datatype: &'a str,
    /// Its shape.
    pub shape: &'a [i64],
    /// Its elements.
    pub contents: Contents<'a>,
}

/// The tensors of a request in the order of the model's inputs.
///
/// # Errors
/// What does not fit the model; nothing was allocated for a tensor that does not.
pub fn tensors(model: &Model, given: &[Given<'_>]) -> Result<Vec<Arc<Tensor>>, Refusal> {
    let names = || model.inputs.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(", ");
    for (i, input) in given.iter().enumerate() {
        if !model.inputs.iter().any(|p| p.name == input.name) {
            let name = shorten(input.name);
            let problem = format!("model `{}` has no input {name}; it has: {}", model.name, names());
            return Err(Refusal::invalid(problem));
        }
        if given[..i].iter().any(|other| other.name == input.name) {
            return Err(Refusal::invalid(format!("input {} is there twice", shorten(input.name))));
        }
    }
    let tensor = |port: &Port| {
        let Some(input) = given.iter().find(|g| g.name == port.name) else {
            let problem =
                format!("input `{}` is missing; model `{}` takes: {}", port.name, model.name, names());
            return Err(Refusal::invalid(problem));
        };
        let data = elements(port, input).map_err(|problem| {
            Refusal::invalid(format!("input `{}` of model `{}`: {problem}", port.name, model.name))
        })?;
        Ok(Arc::new(Tensor { shape: port.shape.clone(), data }))
    };
    model.inputs.iter().map(tensor).collect()
}

fn elements(port: &Port, input: &Given<'_>) -> Result<Data, String> {
    let (wanted, dims) = (datatype(port.dtype), port.dims());
    if input.datatype != wanted {
        return Err(format!("expected datatype {wanted}, got {}", shorten(input.datatype)));
    }
    if input.shape != dims {
        let shown = &input.shape[..input.shape.len().min(16)];
        return Err(format!("expected shape {dims:?}, got {shown:?}"));
    }
    let raw = |got: usize| {
        let all = port.bytes();
        if got == all { Ok(()) } else { Err(format!("{wanted} of shape {dims:?} is {all} bytes, got {got}")) }
    };
    match &input.contents {
        Contents::Raw(bytes) => {
            raw(bytes.len())?;
            from_bytes(port.dtype, bytes)
        }
        Contents::Shared(part) => {
            raw(part.size)?;
            from_bytes(port.dtype, &part.read()?)
        }
        Contents::Json(text) => numbers::parse(port.dtype, text.get(), port.elements()),
        Contents::Typed(lists) => {
            let data = typed(port.dtype, lists)?;
            let (got, all) = (data.bytes().len() / port.dtype.size(), port.elements());
            if got == all { Ok(data) } else { Err(format!("shape {dims:?} holds {all} elements, got {got}")) }
        }
    }
}

fn from_bytes(dtype: DType, bytes: &[u8]) -> Result<Data, String> {
    match bytes.iter().find(|&&b| b > 1).filter(|_| dtype == DType::Bool) {
        Some(byte) => Err(format!("expected bytes 0 and 1 of BOOL, got {byte}")),
        None => Ok(Data::from_bytes(dtype, bytes)),
    }
}

/// At most so many characters of what a caller sent, for a message.
pub fn shorten(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    if short.len() < text.len() { format!("`{short}...`") } else { format!("`{short}`") }
}

/// The elements of one of gRPC's lists, as many as there are: the list is in memory already, so a copy cannot be a surprise.
fn typed(dtype: DType, lists: &InferTensorContents) -> Result<Data, String> {
    fn narrow<T: Copy + std::fmt::Display, U: TryFrom<T>>(list: &[T]) -> Result<Vec<U>, String> {
        let whole = |&v: &T| U::try_from(v).map_err(|_| format!("{v} is out of the range of its datatype"));
        list.iter().map(whole).collect()
    }
    Ok(match dtype {
        DType::F32 => Data::F32(lists.fp32_contents.clone()),
        DType::F64 => Data::F64(lists.fp64_contents.clone()),
        DType::I64 => Data::I64(lists.int64_contents.clone()),
        DType::I32 => Data::I32(lists.int_contents.clone()),
        DType::I8 => Data::I8(narrow(&lists.int_contents)?),
        DType::U8 => Data::U8(narrow(&lists.uint_contents)?),
        DType::Bool => Data::Bool(lists.bool_contents.iter().map(|&b| u8::from(b)).collect()),
        DType::F16 => return Err("FP16 has no list of its own: send it in raw_input_contents".into()),
    })
}

impl Parameters {
    /// What is asked of the scheduler for tensors that fit the model.
    ///
    /// # Errors
    /// A parameter that is out of range, or names what the model does not have.
    pub fn ask(&self, model: &Model, inputs: Vec<Arc<Tensor>>) -> Result<Ask, Refusal> {
        let source = model.source(self.stream.as_deref())?;
        let mut ask = Ask::new(source.id, inputs);
        if let Some(ms) = self.deadline_ms {
            if !(ms > 0.0 && ms <= LONGEST_S * 1e3) {
                let problem = format!(
                    "parameter deadline_ms: expected above 0 and at most {}, got {ms}",
                    LONGEST_S * 1e3
                );
                return Err(Refusal::invalid(problem));
            }
            ask.deadline = Some(Span::from_ms(ms));
            // As streams do that do not say when their requests expire.
            ask.expire = Some(Span::from_ms(2.0 * ms));
        }
        if let Some(us) = self.timeout.filter(|&us| us > 0) {
            if us as f64 > LONGEST_S * 1e6 {
                let most = LONGEST_S * 1e6;
                return Err(Refusal::invalid(format!(
                    "parameter timeout: expected at most {most} (us), got {us}"
                )));
            }
            let timeout = Span(us * 1000);
            ask.expire = Some(timeout);
            ask.deadline = Some(ask.deadline.unwrap_or(source.deadline).min(timeout));
        }
        if let Some(priority) = self.priority.filter(|&p| p > 0) {
            ask.priority = Some(2.0 / priority as f64);
        }
        if let Some(name) = &self.variant {
            ask.variant = Some(model.variant(name)?.id);
        }
        if let Some(least) = self.min_accuracy {
            let best = model.best_accuracy();
            if !(0.0..=best).contains(&least) {
                let problem = format!(
                    "parameter min_accuracy: expected 0 to {best} (the best variant of `{}`), got {least}",
                    model.name
                );
                return Err(Refusal::invalid(problem));
            }
            ask.min_accuracy = Some(least);
        }
        // Who names a variant gets it, whatever the stream's own least accuracy is.
        if ask.variant.is_some() {
            ask.min_accuracy = Some(0.0);
        }
        Ok(ask)
    }
}
