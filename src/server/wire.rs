//! The bodies of `infer` over HTTP: JSON first, then binary tensors one after the other; the same way back. It refuses more of anything
//! than a model can have before it allocates, and lengths that do not add up.

use super::engine::Answer;
use super::model::{Model, Port, VERSION, datatype};
use super::refusal::{Kind, Refusal};
use super::request::{Contents, Given, Parameters};
use super::shared_memory::{Part, Regions};
use cosched_executors::remote::numbers;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// Most inputs, and most outputs, that a request may name.
const TENSORS: usize = 64;
/// Most axes of a shape.
const AXES: usize = 16;

/// A list of at most `N`; one more is an error while it is read.
pub struct Few<T, const N: usize>(pub Vec<T>);

impl<T, const N: usize> Default for Few<T, N> {
    fn default() -> Self {
        Few(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Few<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Reader<T, N> {
            type Value = Few<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of at most {N}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(value) = sequence.next_element()? {
                    if list.len() == N {
                        return Err(A::Error::custom(format!("an array of more than {N}")));
                    }
                    list.push(value);
                }
                Ok(Few(list))
            }
        }
        deserializer.deserialize_seq(Reader(PhantomData))
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OfInput {
    binary_data_size: Option<usize>,
    shared_memory_region: Option<Box<str>>,
    shared_memory_offset: u64,
    shared_memory_byte_size: u64,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    shape: Few<i64, AXES>,
    #[serde(default)]
    parameters: OfInput,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OfOutput {
    binary_data: Option<bool>,
    classification: u64,
    shared_memory_region: Option<Box<str>>,
    shared_memory_offset: u64,
    shared_memory_byte_size: u64,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: OfOutput,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(default)]
    parameters: Parameters,
    #[serde(borrow)]
    inputs: Few<Input<'a>, TENSORS>,
    #[serde(borrow, default)]
    outputs: Few<Output<'a>, TENSORS>,
}

/// An output that a caller wants.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its place among the model's outputs.
    pub port: usize,
    /// As binary data, or as JSON.
    pub binary: bool,
    /// In shared memory instead of the body.
    pub part: Option<Part>,
}

/// A body that has been read; its tensors have not.
pub struct Asked<'a> {
    body: Body<'a>,
    blobs: &'a [u8],
}

fn not_built(what: &str) -> Refusal {
    Refusal::new(Kind::NotBuilt, format!("{what} is not supported by this server"))
}

/// Reads a body. `json_bytes` is what the header `Inference-Header-Content-Length` says.
///
/// # Errors
/// What is malformed.
pub fn parse(body: &[u8], json_bytes: Option<usize>) -> Result<Asked<'_>, Refusal> {
    let split = json_bytes.unwrap_or(body.len());
    if split > body.len() {
        let all = body.len();
        return Err(Refusal::invalid(format!(
            "Inference-Header-Content-Length is {split}, the body has {all} bytes"
        )));
    }
    let (json, blobs) = body.split_at(split);
    let body = serde_json::from_slice(json)
        .map_err(|e| Refusal::invalid(format!("failed to parse the request JSON: {e}")))?;
    Ok(Asked { body, blobs })
}

impl<'a> Asked<'a> {
    /// The caller's name for it; may be empty.
    pub fn id(&self) -> &str {
        &self.body.id
    }

    /// Its parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.body.parameters
    }

    /// Its inputs, each with its part of the binary data.
    ///
    /// # Errors
    /// When an input has no data or two kinds of it, or the lengths do not add up.
    pub fn inputs(&self, regions: &Regions) -> Result<Vec<Given<'_>>, Refusal> {
        let mut rest = self.blobs;
        let mut given = Vec::new();
        for input in &self.body.inputs.0 {
            let wrong = |problem: String| {
                Refusal::invalid(format!("input {}: {problem}", super::request::shorten(&input.name)))
            };
            let OfInput { binary_data_size, shared_memory_region, .. } = &input.parameters;
            let contents = match (*binary_data_size, input.data, shared_memory_region) {
                (None, None, Some(name)) => {
                    let OfInput { shared_memory_offset: offset, shared_memory_byte_size: size, .. } =
                        input.parameters;
                    Contents::Shared(regions.part(name, offset, size)?)
                }
                (Some(size), None, None) => {
                    if size > rest.len() {
                        let left = rest.len();
                        return Err(wrong(format!(
                            "binary_data_size is {size}, {left} bytes of binary data are left"
                        )));
                    }
                    let (blob, after) = rest.split_at(size);
                    rest = after;
                    Contents::Raw(blob)
                }
                (None, Some(data), None) => Contents::Json(data),
                (None, None, None) => {
                    return Err(wrong("expected `data` or the parameter `binary_data_size`".into()));
                }
                _ => {
                    let keys = "`data`, and the parameters `binary_data_size` and `shared_memory_region`";
                    return Err(wrong(format!("{keys} exclude each other")));
                }
            };
            let (name, datatype) = (&*input.name, &*input.datatype);
            given.push(Given { name, datatype, shape: &input.shape.0, contents });
        }
        if !rest.is_empty() {
            return Err(Refusal::invalid(format!("{} bytes of binary data belong to no input", rest.len())));
        }
        Ok(given)
    }

    /// The outputs that it wants: all of the model's where it names none.
    ///
    /// # Errors
    /// An output that the model does not have, or that is there twice.
    pub fn outputs(&self, model: &Model, regions: &Regions) -> Result<Vec<Wanted>, Refusal> {
        let usual = self.body.parameters.binary_data_output.unwrap_or(false);
        if self.body.outputs.0.is_empty() {
            let all = 0..model.outputs.len();
            return Ok(all.map(|port| Wanted { port, binary: usual, part: None }).collect());
        }
        let mut wanted: Vec<Wanted> = Vec::new();
        for output in &self.body.outputs.0 {
            if output.parameters.classification > 0 {
                return Err(not_built("classification"));
            }
            let port = port(model, &output.name, wanted.iter().map(|w| w.port))?;
            let OfOutput { shared_memory_offset: offset, shared_memory_byte_size: size, .. } =
                output.parameters;
            let part = match &output.parameters.shared_memory_region {
                Some(name) => Some(room(&model.outputs[port], regions.part(name, offset, size)?)?),
                None => None,
            };
            wanted.push(Wanted { port, binary: output.parameters.binary_data.unwrap_or(usual), part });
        }
        Ok(wanted)
    }
}

/// Shared memory that an output fits in.
///
/// # Errors
/// When it does not.
pub fn room(port: &Port, part: Part) -> Result<Part, Refusal> {
    let (need, size) = (port.bytes(), part.size);
    if size < need {
        let problem = format!("output `{}` is {need} bytes, its shared memory {size}", port.name);
        return Err(Refusal::invalid(problem));
    }
    Ok(part)
}

/// The place of an output of that name, which is not among those that are `wanted` already.
///
/// # Errors
/// When there is none, or it is.
pub fn port(model: &Model, name: &str, mut wanted: impl Iterator<Item = usize>) -> Result<usize, Refusal> {
    let name_of = |text: &str| super::request::shorten(text);
    let Some(port) = model.outputs.iter().position(|p| p.name == name) else {
        let known: Vec<_> = model.outputs.iter().map(|p| p.name.as_str()).collect();
        let (name, known) = (name_of(name), known.join(", "));
        return Err(Refusal::invalid(format!(
            "model `{}` has no output {name}; it has: {known}",
            model.name
        )));
    };
    if wanted.any(|w| w == port) {
        return Err(Refusal::invalid(format!("output {} is there twice", name_of(name))));
    }
    Ok(port)
}

#[derive(Serialize)]
struct Told<'a> {
    variant: &'a str,
    processors: &'a str,
    queue_us: u64,
    compute_us: u64,
    late: bool,
}

fn json(out: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Refusal> {
    serde_json::to_writer(out, value)
        .map_err(|e| Refusal::new(Kind::Failed, format!("the answer cannot be written: {e}")))
}

/// Writes an answer: the body, and how many bytes of it are JSON where binary data follows. Outputs with a part go there.
///
/// # Errors
/// When an output was asked for as JSON that JSON cannot carry.
pub fn write(
    model: &Model,
    answer: &Answer,
    id: &str,
    wanted: &[Wanted],
) -> Result<(Vec<u8>, Option<usize>), Refusal> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"{\"model_name\":");
    json(&mut out, &model.name)?;
    out.extend_from_slice(format!(",\"model_version\":\"{VERSION}\"").as_bytes());
    if !id.is_empty() {
        out.extend_from_slice(b",\"id\":");
        json(&mut out, &id)?;
    }
    out.extend_from_slice(b",\"parameters\":");
    let Answer { variant, processors, queue_us, compute_us, late, .. } = answer;
    let (queue_us, compute_us, late) = (*queue_us, *compute_us, *late);
    json(&mut out, &Told { variant, processors, queue_us, compute_us, late })?;
    out.extend_from_slice(b",\"outputs\":[");
    for (i, w) in wanted.iter().enumerate() {
        let (port, tensor) = (&model.outputs[w.port], &answer.outputs[w.port]);
        out.extend_from_slice(if i > 0 { b",{\"name\":" } else { b"{\"name\":" });
        json(&mut out, &port.name)?;
        out.extend_from_slice(format!(",\"datatype\":\"{}\",\"shape\":", datatype(port.dtype)).as_bytes());
        json(&mut out, &tensor.shape)?;
        if let Some(part) = &w.part {
            part.write(tensor.data.bytes()).map_err(|problem| Refusal::new(Kind::Failed, problem))?;
            out.push(b'}');
        } else if w.binary {
            let size = tensor.data.bytes().len();
            out.extend_from_slice(format!(",\"parameters\":{{\"binary_data_size\":{size}}}}}").as_bytes());
        } else {
            out.extend_from_slice(b",\"data\":");
            numbers::write(&tensor.data, &mut out).map_err(|problem| {
                Refusal::new(Kind::Failed, format!("output `{}`: {problem}", port.name))
            })?;
            out.push(b'}');
        }
    }
    out.extend_from_slice(b"]}");
    let blobs = wanted.iter().filter(|w| w.binary && w.part.is_none());
    let blobs: Vec<&[u8]> = blobs.map(|w| answer.outputs[w.port].data.bytes()).collect();
    if blobs.is_empty() {
        return Ok((out, None));
    }
    let json_bytes = out.len();
    out.reserve_exact(blobs.iter().map(|b| b.len()).sum());
    blobs.into_iter().for_each(|blob| out.extend_from_slice(blob));
    Ok((out, Some(json_bytes)))
}
