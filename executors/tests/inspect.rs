//! The report of a model names what cannot run where, why, and what takes over; and says nothing of the kind when all is well.

mod support;

use cosched_executors::graph::{Graph, Node};
use cosched_executors::inspect::inspect;
use cosched_executors::processor::{ExecError, Options, Prepared, Processor};
use cosched_executors::segment::CutOptions;
use cosched_executors::tensor::Tensor;
use cosched_executors::{cpu, onnx, zoo};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A processor without one operator.
struct Without(&'static str);

impl Processor for Without {
    fn name(&self) -> &'static str {
        "poor"
    }
    fn device(&self) -> String {
        "none".to_owned()
    }
    fn supports(&self, _: &Graph, node: &Node) -> Result<(), String> {
        if node.op == self.0 { Err(format!("no kernel for {}", self.0)) } else { Ok(()) }
    }
    fn prepare(&self, segment: &Graph, _: &[Vec<Tensor>]) -> Result<Arc<dyn Prepared>, ExecError> {
        let graph = segment.name.clone();
        Err(ExecError::Failed {
            processor: "poor".to_owned(),
            graph,
            reason: "it is only asked, never run".to_owned(),
        })
    }
}

fn resnet() -> Graph {
    let bytes = zoo::bytes("resnet18", &zoo::Options { seed: 1, resolution: Some(64) }).unwrap();
    onnx::from_bytes("resnet18", &bytes, &BTreeMap::new()).unwrap()
}

#[test]
fn a_missing_operator_is_said_loudly() {
    let cpu = cpu::open(&Options::default()).unwrap();
    let report = inspect(&resnet(), &[cpu.clone(), Arc::new(Without("MaxPool"))], &CutOptions::default());
    assert_eq!(report.fallbacks.len(), 1);
    let text = report.to_string();
    println!("{text}");
    for part in [
        "FALLBACK: `poor` cannot run MaxPool",
        "no kernel for MaxPool",
        "they fall back to cpu",
        "input  input f32[1, 3, 64, 64]",
        "output output f32[1, 1000]",
        "on cpu poor",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    assert!(report.fallbacks[0].share < 0.5, "most of the work stays");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["fallbacks"][0]["op"], "MaxPool");
    assert_eq!(json["parameter_bytes"].as_u64().unwrap() / 1_000_000, 46);
}

#[test]
fn nothing_is_said_when_all_is_well() {
    let cpu = cpu::open(&Options::default()).unwrap();
    let report = inspect(&resnet(), &[cpu], &CutOptions::default());
    assert!(report.fallbacks.is_empty());
    assert!(!report.to_string().contains("FALLBACK"));
}

#[test]
fn a_node_that_nobody_runs_is_said() {
    let report = inspect(&resnet(), &[Arc::new(Without("Gemm"))], &CutOptions::default());
    assert!(report.to_string().contains("NO OTHER PROCESSOR CAN RUN THEM"));
    assert!(report.to_string().contains("NO PROCESSOR"));
}
