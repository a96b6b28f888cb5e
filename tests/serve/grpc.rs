//! A plain gRPC client over the crate `h2`: frames, trailers and nothing of tonic. It holds no test.

use crate::rig::PATIENCE;
use axum::http::Request;
use cosched::server::proto::inference::model_infer_request::InferInputTensor;
use cosched::server::proto::inference::{
    InferParameter, ModelInferRequest, infer_parameter::ParameterChoice,
};
use prost::Message;
use prost::bytes::{Buf, Bytes};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A code other than 0, and its message.
pub type Refused = (i32, String);

/// Calls a method, e.g. `inference.GRPCInferenceService/ServerLive`.
pub fn call<A: Message + Default>(
    to: SocketAddr,
    method: &str,
    question: &impl Message,
) -> Result<A, Refused> {
    call_as(to, method, question, "")
}

/// Calls a method with an authorization.
pub fn call_as<A: Message + Default>(
    to: SocketAddr,
    method: &str,
    question: &impl Message,
    authorization: &str,
) -> Result<A, Refused> {
    call_over(to, method, question, authorization, None)
}

/// Calls a method inside TLS with `localhost`, where there is a file of certificates to trust.
pub fn call_over<A: Message + Default>(
    to: SocketAddr,
    method: &str,
    question: &impl Message,
    authorization: &str,
    trusted: Option<&Path>,
) -> Result<A, Refused> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let wire: Box<dyn Wire> = match trusted {
            None => Box::new(stream),
            Some(path) => Box::new(inside(stream, path).await),
        };
        let asked = ask(wire, to, method, question.encode_to_vec(), authorization);
        let bytes = tokio::time::timeout(PATIENCE, asked).await.expect("a hang")?;
        Ok(A::decode(&bytes[..]).expect("a message of that type"))
    })
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

async fn inside(stream: TcpStream, trusted: &Path) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

async fn ask(
    stream: Box<dyn Wire>,
    to: SocketAddr,
    method: &str,
    message: Vec<u8>,
    authorization: &str,
) -> Result<Vec<u8>, Refused> {
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    let mut client = client.ready().await.unwrap();
    let request = Request::post(format!("http://{to}/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", authorization)
        .body(())
        .unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    // Who refuses by the head may have closed the stream by now; what it says is in its answer.
    drop(body.send_data(Bytes::from(frame), true));
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200, "gRPC says what is wrong in its own status");
    let status = |headers: &axum::http::HeaderMap| {
        let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        text("grpc-status")
            .map(|code| (code.parse::<i32>().unwrap(), text("grpc-message").unwrap_or_default()))
    };
    // An error may come in the head.
    if let Some(refused) = status(response.headers()).filter(|(code, _)| *code != 0) {
        return Err(refused);
    }
    let mut answer = Vec::new();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        answer.extend(data);
    }
    let trailers = body.trailers().await.unwrap().expect("trailers");
    match status(&trailers).expect("a status") {
        (0, _) => {}
        refused => return Err(refused),
    }
    assert_eq!(answer[0], 0, "not compressed");
    let length = (&answer[1..5]).get_u32() as usize;
    assert_eq!(answer.len(), length + 5, "one message");
    Ok(answer.split_off(5))
}

/// A request to infer with raw contents.
pub fn infer_request(model: &str, input: &[f32]) -> ModelInferRequest {
    let bytes: Vec<u8> = input.iter().flat_map(|x| x.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: model.into(),
        id: "7".into(),
        inputs: vec![InferInputTensor {
            name: "input".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1, 49, 10],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![bytes.into()],
        ..ModelInferRequest::default()
    }
}

/// A parameter.
pub fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}
