//! What is fuzzed, with good inputs to begin from: bodies of `infer` over HTTP, gRPC's message, ONNX files. Shared by the targets of cargo-fuzz
//! and by `tests/serve/fuzz.rs`, which changes the good inputs itself. A target may refuse an input; it may not panic, hang, or let
//! through what does not fit. Nothing here chooses inputs.

use cosched::env::case::{StreamId, VariantId};
use cosched::env::time::Span;
use cosched::executors::onnx;
use cosched::executors::tensor::{DType, Tensor};
use cosched::executors::zoo;
use cosched::server::grpc::infer;
use cosched::server::model::{Choice, Model, Port, Source};
use cosched::server::proto::inference::infer_parameter::ParameterChoice;
use cosched::server::proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use cosched::server::proto::inference::{InferParameter, InferTensorContents, ModelInferRequest};
use cosched::server::shared_memory::Regions;
use cosched::server::{request, wire};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Something that takes bytes of anybody. cargo-fuzz's targets only run; `tests/serve/fuzz.rs` reads the rest.
pub struct Target {
    /// Its name, as cargo-fuzz has it.
    #[allow(dead_code)]
    pub name: &'static str,
    /// Good inputs.
    #[allow(dead_code)]
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Whether an input is let through.
    pub run: fn(&[u8]) -> bool,
}

/// All targets.
pub const TARGETS: [Target; 3] = [
    Target { name: "http", seeds: http_seeds, run: http },
    Target { name: "grpc", seeds: grpc_seeds, run: grpc },
    Target { name: "onnx", seeds: onnx_seeds, run: onnx },
];

/// A model with inputs of several types.
fn model() -> Model {
    let port = |name: &str, dtype, shape: &[usize]| Port { name: name.into(), dtype, shape: shape.to_vec() };
    let (deadline, expire) = (Span::from_ms(10.0), Span::from_ms(20.0));
    Model {
        name: "m".into(),
        sources: vec![Source { name: "s".into(), id: StreamId(0), deadline, expire, min_accuracy: 0.0 }],
        variants: vec![Choice { name: "v".into(), id: VariantId(0), accuracy: 0.9 }],
        inputs: vec![
            port("a", DType::F32, &[2, 3]),
            port("b", DType::I64, &[2]),
            port("c", DType::Bool, &[]),
            port("d", DType::U8, &[3]),
        ],
        outputs: vec![port("o", DType::F32, &[4]), port("p", DType::F16, &[1])],
    }
}

fn check(model: &Model, tensors: &[Arc<Tensor>], wanted: &[wire::Wanted]) {
    assert_eq!(tensors.len(), model.inputs.len());
    for (tensor, port) in tensors.iter().zip(&model.inputs) {
        assert_eq!((tensor.dtype(), &tensor.shape), (port.dtype, &port.shape));
        assert_eq!(tensor.data.bytes().len(), port.bytes());
    }
    assert!(wanted.iter().all(|w| w.port < model.outputs.len()));
}

/// The first two bytes say how long the JSON is, 65535: that there is no binary data.
fn http(data: &[u8]) -> bool {
    let Some((length, body)) = data.split_at_checked(2) else { return false };
    let length = u16::from_le_bytes([length[0], length[1]]);
    let json_bytes = (length != u16::MAX).then_some(usize::from(length));
    let (model, regions) = (model(), Regions::new(true));
    let all = || {
        let asked = wire::parse(body, json_bytes)?;
        let wanted = asked.outputs(&model, &regions)?;
        let ask = asked.parameters().ask(&model, request::tensors(&model, &asked.inputs(&regions)?)?)?;
        check(&model, &ask.inputs, &wanted);
        Ok::<_, cosched::server::refusal::Refusal>(())
    };
    all().is_ok()
}

fn http_seeds() -> Vec<Vec<u8>> {
    let plain = r#"{"id":"1","parameters":{"timeout":5,"priority":1,"deadline_ms":2.5,"min_accuracy":0.5},"inputs":[{"name":"a","datatype":"FP32","shape":[2,3],"data":[[1,-2.5,3e3],[4,5,6]]},{"name":"b","datatype":"INT64","shape":[2],"data":[1,-2]},{"name":"c","datatype":"BOOL","shape":[],"data":[true]},{"name":"d","datatype":"UINT8","shape":[3],"data":[0,1,255]}],"outputs":[{"name":"o"}]}"#;
    let binary = r#"{"parameters":{"variant":"v","stream":"s","binary_data_output":true},"inputs":[{"name":"a","datatype":"FP32","shape":[2,3],"parameters":{"binary_data_size":24}},{"name":"b","datatype":"INT64","shape":[2],"data":[7,8]},{"name":"c","datatype":"BOOL","shape":[],"parameters":{"binary_data_size":1}},{"name":"d","datatype":"UINT8","shape":[3],"parameters":{"binary_data_size":3}}],"outputs":[{"name":"p","parameters":{"binary_data":true}}]}"#;
    let shared = r#"{"inputs":[{"name":"a","datatype":"FP32","shape":[2,3],"parameters":{"shared_memory_region":"r","shared_memory_offset":4,"shared_memory_byte_size":24}}],"outputs":[{"name":"o","parameters":{"classification":2}}]}"#;
    let whole =
        |json: &str, length: u16, blob: &[u8]| [&length.to_le_bytes()[..], json.as_bytes(), blob].concat();
    let blob = [&[7; 24][..], &[1], &[1, 2, 3]].concat();
    vec![whole(plain, u16::MAX, &[]), whole(binary, binary.len() as u16, &blob), whole(shared, u16::MAX, &[])]
}

fn grpc(data: &[u8]) -> bool {
    let Ok(message) = ModelInferRequest::decode(data) else { return false };
    let model = model();
    match infer::read(&Regions::new(true), &model, &message) {
        Ok((ask, wanted)) => {
            check(&model, &ask.inputs, &wanted);
            true
        }
        Err(_) => false,
    }
}

fn grpc_seeds() -> Vec<Vec<u8>> {
    let input = |name: &str, datatype: &str, shape: &[i64]| InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    };
    let inputs = [
        input("a", "FP32", &[2, 3]),
        input("b", "INT64", &[2]),
        input("c", "BOOL", &[]),
        input("d", "UINT8", &[3]),
    ];
    let raw = ModelInferRequest {
        model_name: "m".into(),
        id: "1".into(),
        inputs: inputs.to_vec(),
        raw_input_contents: vec![
            vec![7; 24].into(),
            vec![0; 16].into(),
            vec![1].into(),
            vec![1, 2, 3].into(),
        ],
        outputs: vec![InferRequestedOutputTensor { name: "o".into(), ..Default::default() }],
        parameters: [
            ("timeout", ParameterChoice::Int64Param(5)),
            ("deadline_ms", ParameterChoice::DoubleParam(2.5)),
            ("variant", ParameterChoice::StringParam("v".into())),
            ("priority", ParameterChoice::Uint64Param(1)),
        ]
        .map(|(name, choice)| (name.to_owned(), InferParameter { parameter_choice: Some(choice) }))
        .into(),
        ..ModelInferRequest::default()
    };
    let lists = [
        InferTensorContents { fp32_contents: vec![1.0; 6], ..Default::default() },
        InferTensorContents { int64_contents: vec![1, -2], ..Default::default() },
        InferTensorContents { bool_contents: vec![true], ..Default::default() },
        InferTensorContents { uint_contents: vec![0, 1, 255], ..Default::default() },
    ];
    let typed = inputs.into_iter().zip(lists);
    let typed = typed.map(|(input, list)| InferInputTensor { contents: Some(list), ..input }).collect();
    let typed = ModelInferRequest { inputs: typed, raw_input_contents: Vec::new(), ..raw.clone() };
    vec![raw.encode_to_vec(), typed.encode_to_vec()]
}

fn onnx(data: &[u8]) -> bool {
    onnx::from_bytes("fuzz.onnx", data, &BTreeMap::new()).is_ok()
}

/// The smallest network of the zoo, and hand-made nets of a few nodes: short files change more in a change.
fn onnx_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = SMALL.iter().map(|nodes| small(nodes)).collect();
    seeds.extend(zoo::bytes("kws_small", &zoo::Options::default()));
    seeds
}

/// Operators of a chain, each with what it takes beside the tensor.
const SMALL: [&[&str]; 4] = [
    &["Relu", "Sigmoid"],
    &["Mul", "Relu"],
    &["MatMul", "Add", "Softmax"],
    &["Reshape", "Transpose", "Identity"],
];

/// A model file of a chain of operators over a 2 x 2 tensor, written field by field.
fn small(nodes: &[&str]) -> Vec<u8> {
    fn varint(mut n: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while n >= 0x80 {
            bytes.push(n as u8 | 0x80);
            n >>= 7;
        }
        bytes.push(n as u8);
        bytes
    }
    let number = |field: u64, n: u64| [varint(field << 3), varint(n)].concat();
    let bytes = |field: u64, b: &[u8]| [varint(field << 3 | 2), varint(b.len() as u64), b.to_vec()].concat();
    let extent = bytes(1, &number(1, 2));
    let value = |name: &str| {
        let tensor = [number(1, 1), bytes(2, &[extent.clone(), extent.clone()].concat())].concat();
        [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
    };
    let constant = |name: &str, kind: u64, dims: &[u64], raw: &[u8]| {
        let dims: Vec<u8> = dims.iter().flat_map(|&d| number(1, d)).collect();
        bytes(5, &[dims, number(2, kind), bytes(8, name.as_bytes()), bytes(9, raw)].concat())
    };
    let weights: Vec<u8> = [0.5f32, -1.0, 2.0, 0.25].iter().flat_map(|x| x.to_le_bytes()).collect();
    let shape: Vec<u8> = [2i64, 2].iter().flat_map(|x| x.to_le_bytes()).collect();
    let (mut graph, mut last) = (Vec::new(), "x".to_owned());
    for (i, op) in nodes.iter().enumerate() {
        let next = if i + 1 == nodes.len() { "y".to_owned() } else { format!("t{i}") };
        let second = match *op {
            "Mul" | "MatMul" | "Add" => bytes(1, b"w"),
            "Reshape" => bytes(1, b"s"),
            _ => Vec::new(),
        };
        let names = [bytes(1, last.as_bytes()), second, bytes(2, next.as_bytes())].concat();
        graph.extend(bytes(
            1,
            &[names, bytes(3, format!("n{i}").as_bytes()), bytes(4, op.as_bytes())].concat(),
        ));
        last = next;
    }
    graph.extend(bytes(2, b"g"));
    graph.extend(constant("w", 1, &[2, 2], &weights));
    graph.extend(constant("s", 7, &[2], &shape));
    graph.extend(bytes(11, &value("x")));
    graph.extend(bytes(12, &value("y")));
    [number(1, 8), bytes(7, &graph), bytes(8, &number(2, 17))].concat()
}
