//! The protocol over gRPC: the same answers as over HTTP in generated messages, and gRPC's own health check. Tensors of answers are always
//! raw, as Triton's are. It refuses to stream.

pub mod infer;

use super::Shared;
use super::http::extensions;
use super::model::{Model, PLATFORM, Port, VERSION, datatype};
use super::proto::health::health_check_response::ServingStatus;
use super::proto::health::health_server::{Health, HealthServer};
use super::proto::health::{HealthCheckRequest, HealthCheckResponse};
use super::proto::inference::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer, SERVICE_NAME,
};
use super::proto::inference::model_metadata_response::TensorMetadata;
use super::proto::inference::repository_index_response::ModelIndex;
use super::proto::inference::system_shared_memory_status_response::RegionStatus;
use super::proto::inference::*;
use super::shared_memory::Region;
use super::stats::{OfModel, Timed};
use axum::Router;
use axum::response::IntoResponse;
use cosched_executors::tensor::DType;
use std::sync::Arc;
use std::time::Instant;
use tonic::{Request, Response, Status};

/// Both services.
pub(super) fn router(shared: &Shared) -> Router {
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
        // A model that is not there is not ready, as Triton says it; over HTTP its clients look at the status.
        let known = self.0.core.catalog().model(name, version).is_ok();
        Ok(Response::new(ModelReadyResponse { ready: known && self.0.core.ready() }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answered<ServerMetadataResponse> {
        Ok(Response::new(ServerMetadataResponse {
            name: "cosched".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: extensions(&self.0).into_iter().map(str::to_owned).collect(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Answered<ModelMetadataResponse> {
        let ModelMetadataRequest { name, version } = request.get_ref();
        let catalog = self.0.core.catalog();
        let model = &catalog.models[catalog.model(name, version)?];
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
        let engine = self.0.core.engine()?;
        let catalog = engine.catalog.clone();
        let index = catalog.model(&request.model_name, &request.model_version)?;
        let model = &catalog.models[index];
        let (ask, wanted) = infer::read(&self.0.regions, model, &request)?;
        let id = request.id.clone();
        // Its bytes are tensors now.
        drop(request);
        let answer = engine.infer(index, ask, begun.elapsed()).await?;
        drop(engine);
        let begun = Instant::now();
        let response = infer::response(model, &answer, id, &wanted)?;
        self.0.core.stats.written(catalog.slots.models[index], begun.elapsed());
        Ok(Response::new(response))
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answered<ModelConfigResponse> {
        let ModelConfigRequest { name, version } = request.get_ref();
        let catalog = self.0.core.catalog();
        let model = &catalog.models[catalog.model(name, version)?];
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
        let (catalog, counted) = (self.0.core.catalog(), self.0.core.stats.read());
        let of = |m: usize| statistics(&catalog.models[m], &counted.models[catalog.slots.models[m]]);
        let model_stats = if name.is_empty() {
            (0..catalog.models.len()).map(of).collect()
        } else {
            vec![of(catalog.model(name, version)?)]
        };
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        _: Request<RepositoryIndexRequest>,
    ) -> Answered<RepositoryIndexResponse> {
        let model = |(name, state, reason): (String, &str, &str)| ModelIndex {
            name,
            version: VERSION.into(),
            state: state.into(),
            reason: reason.into(),
        };
        Ok(Response::new(RepositoryIndexResponse {
            models: self.0.core.index().into_iter().map(model).collect(),
        }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answered<RepositoryModelLoadResponse> {
        self.0.controlled()?.load(&request.get_ref().model_name).await?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answered<RepositoryModelUnloadResponse> {
        self.0.controlled()?.unload(&request.get_ref().model_name).await?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Answered<SystemSharedMemoryStatusResponse> {
        let regions = self.0.regions.status(&request.get_ref().name)?;
        let one = |(name, r): (String, Arc<Region>)| {
            let (key, offset, byte_size) = (r.key.clone(), r.offset, r.byte_size);
            (name.clone(), RegionStatus { name, key, offset, byte_size })
        };
        Ok(Response::new(SystemSharedMemoryStatusResponse {
            regions: regions.into_iter().map(one).collect(),
        }))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Answered<SystemSharedMemoryRegisterResponse> {
        let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request.get_ref();
        self.0.regions.register(name, key, *offset, *byte_size)?;
        Ok(Response::new(SystemSharedMemoryRegisterResponse {}))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Answered<SystemSharedMemoryUnregisterResponse> {
        self.0.regions.unregister(&request.get_ref().name)?;
        Ok(Response::new(SystemSharedMemoryUnregisterResponse {}))
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
