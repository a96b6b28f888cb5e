//! `ModelInfer`: from its message to what is asked of the scheduler, and from the answer to its message. It refuses a request that mixes
//! typed and raw tensors.

use super::super::engine::Answer;
use super::super::model::{Model, VERSION, datatype};
use super::super::proto::inference::infer_parameter::ParameterChoice;
use super::super::proto::inference::model_infer_response::InferOutputTensor;
use super::super::proto::inference::{InferParameter, ModelInferRequest, ModelInferResponse};
use super::super::refusal::{Kind, Refusal};
use super::super::request::{self, Contents, Given, Parameters};
use super::super::shared_memory::{Part, Regions};
use super::super::wire::{self, Wanted};
use cosched_executors::submit::Ask;
use prost::bytes::Bytes;
use std::collections::BTreeMap;

/// Parameters by name, read as what they should be.
struct Named<'a>(&'a BTreeMap<String, InferParameter>);

impl Named<'_> {
    fn choice(&self, name: &str) -> Option<&ParameterChoice> {
        self.0.get(name).and_then(|p| p.parameter_choice.as_ref())
    }

    fn whole(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.choice(name) {
            None => Ok(None),
            Some(&ParameterChoice::Uint64Param(n)) => Ok(Some(n)),
            Some(&ParameterChoice::Int64Param(n)) if n >= 0 => Ok(Some(n as u64)),
            Some(_) => Err(wrong(name, "a whole number of at least 0")),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>, Refusal> {
        match self.choice(name) {
            None => Ok(None),
            Some(&ParameterChoice::DoubleParam(x)) => Ok(Some(x)),
            Some(&ParameterChoice::Int64Param(n)) => Ok(Some(n as f64)),
            Some(&ParameterChoice::Uint64Param(n)) => Ok(Some(n as f64)),
            Some(_) => Err(wrong(name, "a number")),
        }
    }

    fn word(&self, name: &str) -> Result<Option<String>, Refusal> {
        match self.choice(name) {
            None => Ok(None),
            Some(ParameterChoice::StringParam(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong(name, "a string")),
        }
    }

    fn request(&self) -> Result<Parameters, Refusal> {
        Ok(Parameters {
            timeout: self.whole("timeout")?,
            deadline_ms: self.number("deadline_ms")?,
            priority: self.whole("priority")?,
            min_accuracy: self.number("min_accuracy")?,
            variant: self.word("variant")?,
            stream: self.word("stream")?,
            binary_data_output: None,
        })
    }

    /// The part of shared memory that a tensor names, if any.
    fn part(&self, regions: &Regions) -> Result<Option<Part>, Refusal> {
        let Some(name) = self.word("shared_memory_region")? else { return Ok(None) };
        let offset = self.whole("shared_memory_offset")?.unwrap_or(0);
        let size = self.whole("shared_memory_byte_size")?.unwrap_or(0);
        regions.part(&name, offset, size).map(Some)
    }
}

fn wrong(name: &str, expected: &str) -> Refusal {
    Refusal::invalid(format!("parameter {name}: expected {expected}"))
}

/// The request's tensors, each with its contents.
fn inputs<'a>(request: &'a ModelInferRequest, regions: &Regions) -> Result<Vec<Given<'a>>, Refusal> {
    let mut raw = request.raw_input_contents.iter();
    let any_raw = !request.raw_input_contents.is_empty();
    let mut given = Vec::new();
    for input in &request.inputs {
        let wrong =
            |problem: &str| Refusal::invalid(format!("input {}: {problem}", request::shorten(&input.name)));
        let contents = match (Named(&input.parameters).part(regions)?, &input.contents) {
            (Some(part), None) => Contents::Shared(part),
            (None, None) => match raw.next() {
                Some(bytes) => Contents::Raw(bytes),
                None => return Err(wrong("expected contents, raw_input_contents or shared memory")),
            },
            (None, Some(lists)) if !any_raw => Contents::Typed(lists),
            _ => return Err(wrong("contents, raw_input_contents and shared memory exclude each other")),
        };
        given.push(Given { name: &input.name, datatype: &input.datatype, shape: &input.shape, contents });
    }
    let left = raw.len();
    if left > 0 {
        return Err(Refusal::invalid(format!("{left} entries of raw_input_contents belong to no input")));
    }
    Ok(given)
}

/// What is asked of the scheduler, and which outputs are wanted.
///
/// # Errors
/// What does not fit the model.
pub fn read(
    regions: &Regions,
    model: &Model,
    request: &ModelInferRequest,
) -> Result<(Ask, Vec<Wanted>), Refusal> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for output in &request.outputs {
        let parameters = Named(&output.parameters);
        if parameters.whole("classification")?.is_some_and(|n| n > 0) {
            return Err(Refusal::new(Kind::NotBuilt, "classification is not supported by this server"));
        }
        let port = wire::port(model, &output.name, wanted.iter().map(|w| w.port))?;
        let part = parameters.part(regions)?;
        let part = part.map(|part| wire::room(&model.outputs[port], part)).transpose()?;
        wanted.push(Wanted { port, binary: true, part });
    }
    if wanted.is_empty() {
        let all = 0..model.outputs.len();
        wanted = all.map(|port| Wanted { port, binary: true, part: None }).collect();
    }
    let parameters = Named(&request.parameters).request()?;
    let tensors = request::tensors(model, &inputs(request, regions)?)?;
    Ok((parameters.ask(model, tensors)?, wanted))
}

/// The answer as a message; outputs with a part of shared memory go there.
///
/// # Errors
/// When shared memory cannot be written.
pub(super) fn response(
    model: &Model,
    answer: &Answer,
    id: String,
    wanted: &[Wanted],
) -> Result<ModelInferResponse, Refusal> {
    let (mut outputs, mut raw) = (Vec::new(), Vec::new());
    for w in wanted {
        let (port, tensor) = (&model.outputs[w.port], &answer.outputs[w.port]);
        outputs.push(InferOutputTensor {
            name: port.name.clone(),
            datatype: datatype(port.dtype).to_owned(),
            shape: tensor.shape.iter().map(|&d| d as i64).collect(),
            ..InferOutputTensor::default()
        });
        let bytes = tensor.data.bytes();
        raw.push(match &w.part {
            // Clients expect an entry for every output.
            Some(part) => part.write(bytes).map(|()| Bytes::new()),
            None => Ok(Bytes::copy_from_slice(bytes)),
        });
    }
    let raw: Result<Vec<Bytes>, String> = raw.into_iter().collect();
    let told = [
        ("variant", ParameterChoice::StringParam(answer.variant.clone())),
        ("processors", ParameterChoice::StringParam(answer.processors.clone())),
        ("queue_us", ParameterChoice::Int64Param(answer.queue_us as i64)),
        ("compute_us", ParameterChoice::Int64Param(answer.compute_us as i64)),
        ("late", ParameterChoice::BoolParam(answer.late)),
    ];
    let told = told.map(|(key, choice)| (key.to_owned(), InferParameter { parameter_choice: Some(choice) }));
    Ok(ModelInferResponse {
        model_name: model.name.clone(),
        model_version: VERSION.into(),
        id,
        parameters: told.into(),
        outputs,
        raw_output_contents: raw.map_err(|problem| Refusal::new(Kind::Failed, problem))?,
    })
}
