//! The protocol over gRPC: the same answers as over HTTP in generated messages, and gRPC's own health check. Tensors of answers are always
//! raw, as Triton's are. It refuses a request that mixes typed and raw tensors.

use super::Shared;
use super::http::{EXTENSIONS, NO_CHANGE};
use super::model::{Model, PLATFORM, Port, VERSION, datatype};
use super::proto::health::health_check_response::ServingStatus;
use super::proto::health::health_server::{Health, HealthServer};
use super::proto::health::{HealthCheckRequest, HealthCheckResponse};
use super::proto::inference::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer, SERVICE_NAME,
};
use super::proto::inference::infer_parameter::ParameterChoice;
use super::proto::inference::model_infer_response::InferOutputTensor;
use super::proto::inference::model_metadata_response::TensorMetadata;
use super::proto::inference::repository_index_response::ModelIndex;
use super::proto::inference::*;
use super::refusal::{Kind, Refusal};
use super::request::{self, Contents, Given, Parameters};
use super::stats::{OfModel, Timed};
use super::wire;
use axum::Router;
use axum::response::IntoResponse;
use cosched_executors::submit::Ask;
use cosched_executors::tensor::DType;
use prost::bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Instant;
use tonic::{Request, Response, Status};

/// Both services.
pub fn router(shared: &Shared) -> Router {
    let service = GrpcInferenceServiceServer::new(Service(shared.clone()));
    let service = service.max_decoding_message_size(shared.max_body);
    Router::new()
        .route_service(&format!("/{SERVICE_NAME}/{{*method}}"), service)
        .route_service("/grpc.health.v1.Health/{*method}", HealthServer::new(Service(shared.clone())))
        .fallback(async || {
            Status::unimplemented("no such service").into_http::<tonic::body::Body>().into_response()
        })
}

struct Service(Shared);

type Answered<T> = Result<Response<T>, Status>;

fn parameters(given: &BTreeMap<String, InferParameter>) -> Result<Parameters, Refusal> {
    let choice = |name: &str| given.get(name).and_then(|p| p.parameter_choice.as_ref());
    let wrong =
        |name: &str, expected: &str| Refusal::invalid(format!("parameter {name}: expected {expected}"));
    let whole = |name: &str| match choice(name) {
        None => Ok(None),
        Some(&ParameterChoice::Uint64Param(n)) => Ok(Some(n)),
        Some(&ParameterChoice::Int64Param(n)) if n >= 0 => Ok(Some(n as u64)),
        Some(_) => Err(wrong(name, "a whole number of at least 0")),
    };
    let number = |name: &str| match choice(name) {
        None => Ok(None),
        Some(&ParameterChoice::DoubleParam(x)) => Ok(Some(x)),
        Some(&ParameterChoice::Int64Param(n)) => Ok(Some(n as f64)),
        Some(&ParameterChoice::Uint64Param(n)) => Ok(Some(n as f64)),
        Some(_) => Err(wrong(name, "a number")),
    };
    let word = |name: &str| match choice(name) {
        None => Ok(None),
        Some(ParameterChoice::StringParam(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong(name, "a string")),
    };
    Ok(Parameters {
        timeout: whole("timeout")?,
        deadline_ms: number("deadline_ms")?,
        priority: whole("priority")?,
        min_accuracy: number("min_accuracy")?,
        variant: word("variant")?,
        stream: word("stream")?,
        binary_data_output: None,
    })
}

/// The request's tensors, each with its contents.
fn inputs(request: &ModelInferRequest) -> Result<Vec<Given<'_>>, Refusal> {
    let raw = &request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        let (inputs, raw) = (request.inputs.len(), raw.len());
        return Err(Refusal::invalid(format!("{inputs} inputs, but {raw} entries of raw_input_contents")));
    }
    let mut given = Vec::new();
    for (i, input) in request.inputs.iter().enumerate() {
        let wrong =
            |problem: &str| Refusal::invalid(format!("input {}: {problem}", request::shorten(&input.name)));
        if input.parameters.contains_key("shared_memory_region") {
            return Err(Refusal::new(Kind::NotBuilt, "shared memory is not supported by this server"));
        }
        let contents = match (raw.get(i), &input.contents) {
            (Some(bytes), None) => Contents::Raw(bytes),
            (None, Some(lists)) => Contents::Typed(lists),
            (Some(_), Some(_)) => return Err(wrong("contents and raw_input_contents exclude each other")),
            (None, None) => return Err(wrong("expected contents or raw_input_contents")),
        };
        given.push(Given { name: &input.name, datatype: &input.datatype, shape: &input.shape, contents });
    }
    Ok(given)
}

/// What is asked of the scheduler, and which outputs are wanted.
fn read(model: &Model, request: &ModelInferRequest) -> Result<(Ask, Vec<usize>), Refusal> {
    let mut wanted = Vec::new();
    for output in &request.outputs {
        for (key, what) in [("classification", "classification"), ("shared_memory_region", "shared memory")] {
            if output.parameters.contains_key(key) {
                return Err(Refusal::new(Kind::NotBuilt, format!("{what} is not supported by this server")));
            }
        }
        wanted.push(wire::port(model, &output.name, wanted.iter().copied())?);
    }
    if wanted.is_empty() {
        wanted = (0..model.outputs.len()).collect();
    }
    let parameters = parameters(&request.parameters)?;
    let tensors = request::tensors(model, &inputs(request)?)?;
    Ok((parameters.ask(model, tensors)?, wanted))
}

fn metadata(ports: &[Port]) -> Vec<TensorMetadata> {
    let tensor = |p: &Port| TensorMetadata {
        name: p.name.clone(),
        datatype: datatype(p.dtype).to_owned(),
        shape: p.dims(),
    };
    ports.iter().map(tensor).collect()
}

fn config_type(dtype: DType) -> i32 {
    (match dtype {
        DType::F32 => DataType::TypeFp32,
        DType::F16 => DataType::TypeFp16,
        DType::F64 => DataType::TypeFp64,
        DType::I64 => DataType::TypeInt64,
        DType::I32 => DataType::TypeInt32,
        DType::U8 => DataType::TypeUint8,
        DType::I8 => DataType::TypeInt8,
        DType::Bool => DataType::TypeBool,
    }) as i32
}

fn statistics(model: &Model, m: &OfModel) -> ModelStatistics {
    let timed = |t: Timed| Some(StatisticDuration { count: t.count, ns: t.ns });
    let sum = |a: Timed, b: &Timed| Timed { count: a.count + b.count, ns: a.ns + b.ns };
    ModelStatistics {
        name: model.name.clone(),
        version: VERSION.to_owned(),
        last_inference: m.last_ms,
        inference_count: m.success.count,
        execution_count: m.success.count,
        inference_stats: Some(InferStatistics {
            success: timed(m.success),
            fail: timed(m.failures.values().fold(Timed::default(), sum)),
            queue: timed(m.queue),
            compute_input: timed(m.compute_input),
            compute_infer: timed(m.compute_infer),
            compute_output: timed(m.compute_output),
        }),
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Service {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answered<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: self.0.core.live() }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answered<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.0.core.ready() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answered<ModelReadyResponse> {
        let ModelReadyRequest { name, version } = request.get_ref();
        self.0.core.model(name, version)?;
        Ok(Response::new(ModelReadyResponse { ready: self.0.core.ready() }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answered<ServerMetadataResponse> {
        Ok(Response::new(ServerMetadataResponse {
            name: "cosched".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: EXTENSIONS.map(str::to_owned).into(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Answered<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.get_ref();
        let model = &self.0.core.models[self.0.core.model(name, version)?];
        Ok(Response::new(ModelMetadataResponse {
            name: model.name.clone(),
            versions: vec![VERSION.into()],
            platform: PLATFORM.into(),
            inputs: metadata(&model.inputs),
            outputs: metadata(&model.outputs),
        }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answered<ModelInferResponse> {
        let begun = Instant::now();
        let request = request.into_inner();
        let core = &self.0.core;
        let index = core.model(&request.model_name, &request.model_version)?;
        let model = &core.models[index];
        let (ask, wanted) = read(model, &request)?;
        let id = request.id.clone();
        // Its bytes are tensors now.
        drop(request);
        let answer = core.infer(index, ask, begun.elapsed()).await?;
        let begun = Instant::now();
        let output = |&port: &usize| InferOutputTensor {
            name: model.outputs[port].name.clone(),
            datatype: datatype(model.outputs[port].dtype).to_owned(),
            shape: answer.outputs[port].shape.iter().map(|&d| d as i64).collect(),
            ..InferOutputTensor::default()
        };
        let raw = |&port: &usize| Bytes::copy_from_slice(answer.outputs[port].data.bytes());
        let told = [
            ("variant", ParameterChoice::StringParam(answer.variant.clone())),
            ("processors", ParameterChoice::StringParam(answer.processors.clone())),
            ("queue_us", ParameterChoice::Int64Param(answer.queue_us as i64)),
            ("compute_us", ParameterChoice::Int64Param(answer.compute_us as i64)),
            ("late", ParameterChoice::BoolParam(answer.late)),
        ];
        let told =
            told.map(|(key, choice)| (key.to_owned(), InferParameter { parameter_choice: Some(choice) }));
        let response = ModelInferResponse {
            model_name: model.name.clone(),
            model_version: VERSION.into(),
            id,
            parameters: told.into(),
            outputs: wanted.iter().map(output).collect(),
            raw_output_contents: wanted.iter().map(raw).collect(),
        };
        core.stats.written(index, begun.elapsed());
        Ok(Response::new(response))
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answered<ModelConfigResponse> {
        let ModelConfigRequest { name, version } = request.get_ref();
        let model = &self.0.core.models[self.0.core.model(name, version)?];
        let input =
            |p: &Port| ModelInput { name: p.name.clone(), data_type: config_type(p.dtype), dims: p.dims() };
        let output =
            |p: &Port| ModelOutput { name: p.name.clone(), data_type: config_type(p.dtype), dims: p.dims() };
        let config = ModelConfig {
            name: model.name.clone(),
            platform: PLATFORM.into(),
            max_batch_size: 0,
            input: model.inputs.iter().map(input).collect(),
            output: model.outputs.iter().map(output).collect(),
            backend: PLATFORM.into(),
        };
        Ok(Response::new(ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Answered<ModelStatisticsResponse> {
        let ModelStatisticsRequest { name, version } = request.get_ref();
        let core = &self.0.core;
        let counted = core.stats.read();
        let of = |m: usize| statistics(&core.models[m], &counted.models[m]);
        let model_stats = if name.is_empty() {
            (0..core.models.len()).map(of).collect()
        } else {
            vec![of(core.model(name, version)?)]
        };
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        _: Request<RepositoryIndexRequest>,
    ) -> Answered<RepositoryIndexResponse> {
        let model = |m: &Model| ModelIndex {
            name: m.name.clone(),
            version: VERSION.into(),
            state: "READY".into(),
            reason: String::new(),
        };
        Ok(Response::new(RepositoryIndexResponse { models: self.0.core.models.iter().map(model).collect() }))
    }

    async fn repository_model_load(
        &self,
        _: Request<RepositoryModelLoadRequest>,
    ) -> Answered<RepositoryModelLoadResponse> {
        Err(Status::unimplemented(NO_CHANGE))
    }

    async fn repository_model_unload(
        &self,
        _: Request<RepositoryModelUnloadRequest>,
    ) -> Answered<RepositoryModelUnloadResponse> {
        Err(Status::unimplemented(NO_CHANGE))
    }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Answered<HealthCheckResponse> {
        let service = &request.get_ref().service;
        if !(service.is_empty() || service == SERVICE_NAME) {
            return Err(Status::not_found(format!("no such service; there is {SERVICE_NAME}")));
        }
        let status = if self.0.core.ready() { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }
}
