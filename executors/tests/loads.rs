//! Models come and go: each time the segments are prepared, run, compared and let go of, on every processor, memory stays where it was, that
//! of the DSP's process too. Twenty times; `LOADS=1000` asks for more (`make test-loads`). It refuses a processor that keeps what was unloaded.
#![cfg(target_os = "linux")]

mod dsp_common;
mod support;

use cosched_executors::cpu;
use cosched_executors::graph::Graph;
use cosched_executors::in_segments::even;
use cosched_executors::processor::{Options, Prepared, Processor, row};
use cosched_executors::segment::Segment;
use cosched_executors::tensor::Tensor;
use cosched_executors::{chain::Chain, onnx, zoo};
use dsp_common::dsp;
use std::collections::BTreeMap;
use std::sync::Arc;
use support::memory::{flat, resident_mb};
use support::{difference, random_inputs};

struct Network {
    segments: Vec<Segment>,
    chain: Chain,
    inputs: Vec<Tensor>,
    wanted: Vec<Tensor>,
}

/// Another network than the last time in what it weighs, not in what it is called.
fn network(seed: u64) -> Network {
    let bytes = zoo::bytes("squeezenet1_1", &zoo::Options { seed, resolution: Some(64) }).unwrap();
    let graph: Graph = onnx::from_bytes("squeezenet1_1", &bytes, &BTreeMap::new()).unwrap();
    let (segments, inputs) = (even(&graph, 2), random_inputs(&graph, seed));
    let wanted = cpu::reference(&graph).unwrap().run(&inputs.iter().collect::<Vec<_>>()).unwrap();
    Network { chain: Chain::new(&graph, &segments), segments, inputs, wanted }
}

/// Loads, runs, unloads; how far the answer is off, and what was prepared, for who wants to keep it.
fn once(processor: &dyn Processor, network: &Network) -> (f64, Vec<Arc<dyn Prepared>>) {
    let mut values = network.chain.start(network.inputs.iter().cloned().map(Arc::new).collect()).unwrap();
    let mut kept = Vec::new();
    for (s, segment) in network.segments.iter().enumerate() {
        let inputs: Vec<Tensor> = network.chain.inputs(&values, s).unwrap().into_iter().cloned().collect();
        let prepared = processor.prepare(&segment.graph, std::slice::from_ref(&inputs)).unwrap();
        let outputs = prepared.spawn().unwrap().run(&inputs.iter().collect::<Vec<_>>()).unwrap();
        network.chain.finish(&mut values, s, outputs).unwrap();
        kept.push(prepared);
    }
    (difference(&network.chain.outputs(&values).unwrap(), &network.wanted), kept)
}

/// Memory after each of `times` loads and unloads, that of the process `other` included.
fn loads(processor: &dyn Processor, other: Option<u32>, times: u64, bound: f64, keep: bool) -> Vec<f64> {
    let mut kept = Vec::new();
    let sample = |i: u64| {
        let (off, prepared) = once(processor, &network(i % 3));
        assert!(off < bound, "{}, load {i}: off by {off}", processor.name());
        if keep {
            kept.extend(prepared);
        }
        resident_mb(std::process::id()) + other.map_or(0.0, resident_mb)
    };
    (0..times).map(sample).collect()
}

/// How often each processor loads.
fn times() -> u64 {
    std::env::var("LOADS").ok().and_then(|s| s.parse().ok()).unwrap_or(20)
}

#[test]
fn loading_and_unloading_leaves_memory_flat() {
    // The saboteur: somebody who keeps what was unloaded.
    let open = |name| (row(name).unwrap().open)(&Options::default()).unwrap_or_else(|e| panic!("{e}"));
    flat(&loads(&*open("cpu"), None, 30, 1e-4, true)).unwrap_err();
    for name in ["cpu", "wgpu", "opencl"] {
        let samples = loads(&*open(name), None, times(), 1e-4, false);
        let (before, after) = flat(&samples).unwrap_or_else(|grown| panic!("{name}: memory grows: {grown}"));
        println!(
            "{name}: {} loads, at most {before:.1} MB in the first third, {after:.1} MB in the rest",
            samples.len()
        );
    }
    let dsp = dsp();
    let samples = loads(&dsp, dsp.worker_pid(), times(), 0.2, false);
    let (before, after) = flat(&samples).unwrap_or_else(|grown| panic!("dsp: memory grows: {grown}"));
    println!(
        "dsp: {} loads, at most {before:.1} MB in the first third, {after:.1} MB in the rest",
        samples.len()
    );
    assert_eq!(dsp.restarts(), 0);
}
