//! Segments run one after another give the whole model: over all fixtures and zoo models, with random cuts and random support.

mod support;

use cosched_executors::chain::Chain;
use cosched_executors::graph::{Graph, Node};
use cosched_executors::processor::{ExecError, Options};
use cosched_executors::segment::{CutOptions, Segment, cut, split_at};
use cosched_executors::tensor::{Data, Tensor};
use cosched_executors::{cpu, onnx, zoo};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use support::{FIXTURES, difference, fixture, random_inputs};

/// Cutting changes which operators onnxruntime fuses, hence the last bits.
const BOUND: f64 = 1e-5;

/// Fixtures and the small zoo.
fn graphs() -> &'static [Graph] {
    static GRAPHS: std::sync::OnceLock<Vec<Graph>> = std::sync::OnceLock::new();
    GRAPHS.get_or_init(|| {
        let mut graphs: Vec<Graph> = FIXTURES.iter().map(|name| fixture(name)).collect();
        for row in zoo::TABLE.iter().filter(|row| row.name != "resnet18" && row.name != "mobilenet_v2") {
            let resolution = if row.resolution == 0 { None } else { Some(64) };
            let bytes = zoo::bytes(row.name, &zoo::Options { seed: 3, resolution }).unwrap();
            graphs.push(onnx::from_bytes(row.name, &bytes, &BTreeMap::new()).unwrap());
        }
        graphs
    })
}

/// Runs the segments on the `cpu` processor, through the chain.
fn chained(graph: &Graph, segments: &[Segment], inputs: &[Tensor]) -> Result<Vec<Tensor>, ExecError> {
    let processor = cpu::open(&Options::default())?;
    let chain = Chain::new(graph, segments);
    let mut values = chain.start(inputs.iter().cloned().map(Arc::new).collect())?;
    for (i, segment) in segments.iter().enumerate() {
        let mut instance = processor.prepare(&segment.graph, &[])?.spawn()?;
        let outputs = instance.run(&chain.inputs(&values, i)?)?;
        chain.finish(&mut values, i, outputs)?;
    }
    chain.outputs(&values)
}

/// What must hold of any cut.
fn check(graph: &Graph, segments: &[Segment]) {
    assert!(!segments.is_empty());
    assert_eq!(segments[0].nodes.start, 0);
    assert_eq!(segments[segments.len() - 1].nodes.end, graph.nodes.len());
    for pair in segments.windows(2) {
        assert_eq!(pair[0].nodes.end, pair[1].nodes.start);
    }
    for segment in segments {
        let g = &segment.graph;
        assert!(!g.outputs.is_empty() && !g.nodes.is_empty(), "{}: an empty segment", g.name);
        let ins: BTreeSet<_> = g.inputs.iter().collect();
        assert!(g.outputs.iter().all(|o| !ins.contains(o)), "{}: a tensor passes straight through", g.name);
        assert!(g.inputs.iter().all(|i| g.constant(*i).is_none()), "{}: a constant is a boundary", g.name);
    }
}

fn whole(graph: &Graph, inputs: &[Tensor]) -> Vec<Tensor> {
    cpu::reference(graph).unwrap().run(&inputs.iter().collect::<Vec<_>>()).unwrap()
}

/// Support by a hash of the operator, so that changes fall anywhere; bit 0 (the CPU) always.
fn hashed(node: &Node, salt: u64) -> u64 {
    let hash = node
        .op
        .bytes()
        .chain(node.name.bytes().take((salt % 3) as usize * 8))
        .fold(salt, |h, b| (h ^ u64::from(b)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23));
    1 | (hash & 0b110)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_cut_gives_the_whole(
        which in 0usize..64,
        salt in any::<u64>(),
        max_segments in 1usize..14,
        min_share in 0.0f64..0.3,
        positions in prop::collection::vec(0usize..140, 0..12),
        chosen in any::<bool>(),
    ) {
        let graph = &graphs()[which % graphs().len()];
        let supports = |node: &Node| hashed(node, salt);
        let segments = if chosen {
            cut(graph, &supports, &CutOptions { max_segments, min_share })
        } else {
            split_at(graph, &supports, &positions)
        };
        check(graph, &segments);
        if chosen {
            prop_assert!(segments.len() <= max_segments);
        }
        let inputs = random_inputs(graph, salt);
        let worst = difference(&chained(graph, &segments, &inputs).unwrap(), &whole(graph, &inputs));
        prop_assert!(worst < BOUND, "{}: {} segments differ by {worst:e}", graph.name, segments.len());
    }
}

#[test]
fn every_node_a_segment_of_its_own_gives_the_whole() {
    for graph in graphs() {
        let all: Vec<usize> = (0..graph.nodes.len()).collect();
        let segments = split_at(graph, &|_| 1, &all);
        check(graph, &segments);
        assert!(
            segments.len() * 10 > graph.nodes.len() * 9,
            "{}: only {} segments",
            graph.name,
            segments.len()
        );
        let inputs = random_inputs(graph, 5);
        let worst = difference(&chained(graph, &segments, &inputs).unwrap(), &whole(graph, &inputs));
        assert!(worst < BOUND, "{}: {worst:e}", graph.name);
    }
}

#[test]
fn a_spoilt_boundary_is_noticed() {
    // The saboteur: one element of one value between segments is changed; a segment is left out.
    let graph = fixture("residual");
    let mut segments = split_at(&graph, &|_| 1, &[4, 9]);
    assert_eq!(segments.len(), 3);
    let inputs = random_inputs(&graph, 9);
    let want = whole(&graph, &inputs);
    let chain = Chain::new(&graph, &segments);
    let mut values = chain.start(inputs.iter().cloned().map(Arc::new).collect()).unwrap();
    let missing = chain.inputs(&values, 1).unwrap_err().to_string();
    assert!(missing.contains("has not been run"), "{missing}");
    for (i, segment) in segments.iter().enumerate() {
        let mut outputs =
            cpu::reference(&segment.graph).unwrap().run(&chain.inputs(&values, i).unwrap()).unwrap();
        if i == 0
            && let Data::F32(v) = &mut outputs[0].data
        {
            v[0] += 1.0;
        }
        chain.finish(&mut values, i, outputs).unwrap();
    }
    assert!(difference(&chain.outputs(&values).unwrap(), &want) > BOUND);
    segments.pop();
    assert!(chained(&graph, &segments, &inputs).is_err());
}

#[test]
fn the_default_cut_is_few_meaningful_segments() {
    for row in zoo::TABLE {
        let bytes = zoo::bytes(row.name, &zoo::Options::default()).unwrap();
        let graph = onnx::from_bytes(row.name, &bytes, &BTreeMap::new()).unwrap();
        let segments = cut(&graph, &|_| 0b111, &CutOptions::default());
        check(&graph, &segments);
        let total: u64 = segments.iter().map(|s| s.flops).sum();
        println!("{}: {:.1} MFLOP", row.name, total as f64 / 1e6);
        for s in &segments {
            let (share, ins) = (s.flops as f64 / total as f64, s.graph.inputs.len());
            println!(
                "  {:?} {:.0} % in {ins} x {} KB, out {} x {} KB",
                s.nodes,
                share * 100.0,
                s.input_bytes / 1024,
                s.graph.outputs.len(),
                s.output_bytes / 1024
            );
            assert!(share > 0.03, "{}: a segment of {share}", row.name);
            // The skips of a U-Net cross every cut.
            let most = if row.name == "unet" { 4 } else { 1 };
            assert!(ins.max(s.graph.outputs.len()) <= most, "{}: a cut is not narrow", row.name);
        }
        // Below about 5 MFLOP a second launch costs more than it frees.
        let fewest = if total > 5_000_000 { 2 } else { 1 };
        assert!((fewest..=6).contains(&segments.len()), "{}: {} segments", row.name, segments.len());
        // An operator that only the first processor has: its segments say so, and the rest stays with the others.
        let segments = cut(
            &graph,
            &|n: &Node| if n.op == "Gemm" || n.op == "Concat" { 1 } else { 0b111 },
            &CutOptions::default(),
        );
        check(&graph, &segments);
        // onnxruntime makes a Gemm of every product in BERT, so that no segment is without.
        assert!(
            row.name == "bert_mini" || segments.iter().any(|s| s.supported & 0b111 == 0b111),
            "{}: nothing is left to the others",
            row.name
        );
        for s in &segments {
            let needs_first = s.graph.nodes.iter().any(|n| n.op == "Gemm" || n.op == "Concat");
            assert_eq!(s.supported & 0b111 == 1, needs_first);
        }
    }
}
