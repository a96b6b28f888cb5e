//! What the tests of the loader, the segments and the processors share. It refuses to compute references itself: they come from
//! PyTorch (files) or onnxruntime.
#![allow(dead_code)]

pub mod memory;

use cosched_executors::graph::{Graph, Value};
use cosched_executors::onnx;
use cosched_executors::tensor::{DType, Data, Tensor};
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The PyTorch-exported networks of `tests/data`.
pub const FIXTURES: &[&str] = &["residual", "mobile", "encoder", "unet", "encoder_dynamo", "mobile_external"];

/// A file of `tests/data`.
pub fn data(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file)
}

/// A fixture as a graph.
pub fn fixture(name: &str) -> Graph {
    onnx::load(&data(&format!("{name}.onnx")), &BTreeMap::new()).unwrap()
}

#[derive(serde::Deserialize)]
struct Named {
    name: String,
    shape: Vec<usize>,
    data: Vec<f32>,
}

#[derive(serde::Deserialize)]
struct Record {
    inputs: Vec<Named>,
    outputs: Vec<Named>,
}

/// PyTorch's input and output of a fixture, checked against the names of the graph.
pub fn recorded(name: &str, graph: &Graph) -> (Vec<Tensor>, Vec<Tensor>) {
    let text = std::fs::read_to_string(data(&format!("{name}.json"))).unwrap();
    let record: Record = serde_json::from_str(&text).unwrap();
    let take = |named: Vec<Named>, ids: &[cosched_executors::graph::ValueId]| {
        let names: Vec<&str> = ids.iter().map(|&id| graph.value(id).name.as_str()).collect();
        assert_eq!(names, named.iter().map(|n| n.name.as_str()).collect::<Vec<_>>());
        named.into_iter().map(|n| Tensor::f32(&n.shape, n.data)).collect()
    };
    (take(record.inputs, &graph.inputs), take(record.outputs, &graph.outputs))
}

/// A random tensor for a graph input: normal-ish f32, small integers.
pub fn random(value: &Value, seed: u64) -> Tensor {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(seed);
    let n: usize = value.shape.iter().product();
    let data = match value.dtype {
        DType::F32 => Data::F32((0..n).map(|_| rng.random_range(-1.5f32..1.5)).collect()),
        DType::I64 => Data::I64((0..n).map(|_| rng.random_range(0..4)).collect()),
        other => panic!("no random {other} for input {}", value.name),
    };
    Tensor { shape: value.shape.clone(), data }
}

/// Random inputs for a graph.
pub fn random_inputs(graph: &Graph, seed: u64) -> Vec<Tensor> {
    graph
        .inputs
        .iter()
        .enumerate()
        .map(|(i, &id)| random(graph.value(id), seed.wrapping_mul(31).wrapping_add(i as u64)))
        .collect()
}

/// Largest difference of two lists of f32 tensors, relative to the largest magnitude of the wanted one; 0 for equal.
/// Other types must be equal. Shapes must be equal. NaN anywhere is infinity.
pub fn difference(got: &[Tensor], want: &[Tensor]) -> f64 {
    assert_eq!(got.len(), want.len(), "number of outputs");
    let mut worst = 0.0f64;
    for (g, w) in got.iter().zip(want) {
        assert_eq!(g.shape, w.shape, "shape");
        match (g.as_f32(), w.as_f32()) {
            (Some(g), Some(w)) => {
                let scale = w.iter().fold(1e-30f64, |m, &v| m.max(f64::from(v.abs())));
                for (&g, &w) in g.iter().zip(w) {
                    let d = (f64::from(g) - f64::from(w)).abs() / scale;
                    worst = worst.max(if d.is_nan() { f64::INFINITY } else { d });
                }
            }
            _ => assert_eq!(g, w),
        }
    }
    worst
}
