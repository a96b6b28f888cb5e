//! Models with one odd thing each: they load and compute the right numbers (worked out by hand), or are refused with its name.

mod support;

use cosched_executors::chain::Chain;
use cosched_executors::cpu;
use cosched_executors::graph::Graph;
use cosched_executors::onnx::{self, LoadError};
use cosched_executors::segment::{Segment, split_at};
use cosched_executors::tensor::{Data, Tensor};
use std::collections::BTreeMap;
use support::{data, difference, random_inputs};

fn load(name: &str) -> Result<Graph, LoadError> {
    onnx::load(&data(&format!("odd/{name}.onnx")), &BTreeMap::new())
}

fn row(values: [f32; 4]) -> Tensor {
    Tensor::f32(&[1, 4], values.to_vec())
}

fn run(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    cpu::reference(graph).unwrap().run(&inputs.iter().collect::<Vec<_>>()).unwrap()
}

fn chained(graph: &Graph, segments: &[Segment], inputs: &[Tensor]) -> Vec<Tensor> {
    let chain = Chain::new(graph, segments);
    let mut values = chain.start(inputs.iter().cloned().map(std::sync::Arc::new).collect()).unwrap();
    for (i, segment) in segments.iter().enumerate() {
        let outputs =
            cpu::reference(&segment.graph).unwrap().run(&chain.inputs(&values, i).unwrap()).unwrap();
        chain.finish(&mut values, i, outputs).unwrap();
    }
    chain.outputs(&values).unwrap()
}

const X: [f32; 4] = [-1.0, 2.0, -3.0, 4.0];

#[test]
fn what_cannot_be_carried_is_refused_by_name() {
    for (name, part) in [
        ("if_input", "control flow (node `choose`, operator `If`) is not supported"),
        ("nonzero", "dynamic shape"),
        ("strings", "element type string of input `x`"),
        ("sequence", "tensor `s`, a sequence, map or optional"),
        ("foreign", "node `fancy_one`: unknown operator `Fancy` of domain `com.example`"),
        ("misfit", "sum"),
    ] {
        let error = load(name).unwrap_err().to_string();
        assert!(error.contains(part), "{name}: `{part}` is not in: {error}");
        assert!(error.contains(&format!("odd/{name}.onnx: ")), "{name}: the file is not named: {error}");
    }
}

#[test]
fn what_folds_away_loads() {
    let graph = load("if_constant").unwrap();
    assert_eq!(run(&graph, &[row(X)])[0], row([0.0, 2.0, 0.0, 4.0]));
    assert_eq!(run(&load("function").unwrap(), &[row(X)])[0], row([0.0, 4.0, 0.0, 8.0]));
    let graph = load("shared").unwrap();
    assert_eq!(graph.inputs.len(), 1, "a weight among the inputs is a weight");
    let want: Vec<f32> = (0..4).map(|i| (X[i] + i as f32) * (i as f32).exp() + i as f32).collect();
    assert!(difference(&run(&graph, &[row(X)]), &[Tensor::f32(&[1, 4], want)]) < 1e-6);
    let every: Vec<usize> = (0..graph.nodes.len()).collect();
    for segment in split_at(&graph, &|_| 1, &every) {
        assert_eq!(segment.graph.inputs.len(), 1, "a constant became a boundary of {}", segment.graph.name);
    }
}

#[test]
fn inputs_and_constants_may_be_outputs() {
    let graph = load("passthrough").unwrap();
    let inputs = [row(X), row([9.0; 4])];
    let want = [row([0.0, 2.0, 0.0, 4.0]), row(X), row([1.0; 4])];
    assert_eq!(run(&graph, &inputs), want);
    let every: Vec<usize> = (0..graph.nodes.len()).collect();
    assert_eq!(chained(&graph, &split_at(&graph, &|_| 1, &every), &inputs), want);
    // A graph whose outputs are its input, a constant, and one value twice, without help from Identity nodes.
    let constant = graph.outputs[2];
    let bare = Graph {
        outputs: vec![graph.inputs[0], graph.outputs[0], constant, graph.outputs[0]],
        ..graph.clone()
    };
    assert_eq!(run(&bare, &inputs), [row(X), want[0].clone(), want[2].clone(), want[0].clone()]);
    let nothing = Graph { outputs: vec![graph.inputs[1]], nodes: Vec::new(), ..graph };
    assert_eq!(run(&nothing, &inputs), [row([9.0; 4])]);
}

#[test]
fn every_element_type_crosses_a_boundary() {
    let graph = load("types").unwrap();
    let inputs = [row(X)];
    // max(x, [0, 1, 2, 3]) = [0, 2, 2, 4].
    let want = [
        Tensor { shape: vec![1, 1], data: Data::I64(vec![3]) },
        Tensor { shape: vec![1, 4], data: Data::F16(vec![0, 0x4000, 0x4000, 0x4400]) },
        Tensor { shape: vec![1, 4], data: Data::F64(vec![0.0, 2.0, 2.0, 4.0]) },
        Tensor { shape: vec![1, 4], data: Data::Bool(vec![1, 0, 1, 0]) },
    ];
    assert_eq!(run(&graph, &inputs), want);
    let every: Vec<usize> = (0..graph.nodes.len()).collect();
    let segments = split_at(&graph, &|_| 1, &every);
    assert_eq!(segments.len(), graph.nodes.len());
    assert_eq!(chained(&graph, &segments, &inputs), want);
}

#[test]
fn quantised_networks_are_cut_without_parting_pairs() {
    for name in ["mobile_qdq", "residual_qoperator"] {
        let graph = load(name).unwrap();
        let inputs = random_inputs(&graph, 4);
        let want = run(&graph, &inputs);
        let every: Vec<usize> = (0..graph.nodes.len()).collect();
        let fine = split_at(&graph, &|_| 1, &every);
        let n = graph.nodes.len();
        let coarse = split_at(&graph, &|_| 1, &[n / 3, n / 3 + 1, 2 * n / 3, 2 * n / 3 + 1]);
        println!("{name}: {} nodes, {} and {} segments", graph.nodes.len(), fine.len(), coarse.len());
        for segments in [fine, coarse] {
            for segment in &segments {
                for &id in &segment.graph.outputs {
                    let made = segment.graph.nodes.iter().find(|n| n.outputs.contains(&Some(id))).unwrap();
                    assert!(made.op != "QuantizeLinear", "{name}: a pair is parted after {}", made.name);
                }
                // Weights come along as constants; in this form every other dequantisation follows its quantisation.
                for node in
                    segment.graph.nodes.iter().filter(|n| n.op == "DequantizeLinear" && name == "mobile_qdq")
                {
                    assert!(
                        !segment.graph.inputs.contains(&node.inputs[0].unwrap()),
                        "{name}: {}",
                        node.name
                    );
                }
            }
            // onnxruntime rounds elsewhere when a pair is at the edge, so whole steps of 1/255 differ here and there.
            let worst = difference(&chained(&graph, &segments, &inputs), &want);
            assert!(worst < 0.05, "{name}: {} segments differ by {worst}", segments.len());
        }
    }
}
