//! Every row of the zoo loads, keeps its activations in range, is made the same way twice, and differs by seed.

mod support;

use cosched_executors::{cpu, onnx, zoo};
use std::collections::BTreeMap;
use support::{difference, random_inputs};

#[test]
fn every_model_loads_and_stays_in_range() {
    for row in zoo::TABLE {
        let options = zoo::Options { seed: 7, ..Default::default() };
        let bytes = zoo::bytes(row.name, &options).unwrap();
        assert_eq!(bytes, zoo::bytes(row.name, &options).unwrap(), "{}: not reproducible", row.name);
        let start = std::time::Instant::now();
        let graph = onnx::from_bytes(row.name, &bytes, &BTreeMap::new()).unwrap();
        let loaded = start.elapsed();
        assert_eq!(graph.value(graph.inputs[0]).shape, (row.shape)(row.resolution));
        assert!(graph.nodes.iter().all(|n| n.op != "BatchNormalization"), "{}: not folded", row.name);
        let inputs = random_inputs(&graph, 1);
        let mut run = cpu::reference(&graph).unwrap();
        let refs: Vec<_> = inputs.iter().collect();
        let outputs = run.run(&refs).unwrap();
        let start = std::time::Instant::now();
        for _ in 0..5 {
            run.run(&refs).unwrap();
        }
        let ms = start.elapsed().as_secs_f64() * 200.0;
        let out = outputs[0].as_f32().unwrap();
        let most = out.iter().fold(0f32, |m, v| m.max(v.abs()));
        println!(
            "{}: {} KB, {} nodes, loaded in {loaded:?}, {ms:.2} ms, max {most}",
            row.name,
            bytes.len() / 1024,
            graph.nodes.len()
        );
        assert!(most.is_finite() && most > 1e-3 && most < 1e3, "{}: outputs up to {most}", row.name);
        let distinct = out.iter().map(|v| v.to_bits()).collect::<std::collections::BTreeSet<_>>().len();
        assert!(distinct * 4 > out.len(), "{}: only {distinct} distinct outputs of {}", row.name, out.len());
        let other = zoo::bytes(row.name, &zoo::Options { seed: 8, ..options }).unwrap();
        let other = onnx::from_bytes(row.name, &other, &BTreeMap::new()).unwrap();
        let other = cpu::reference(&other).unwrap().run(&refs).unwrap();
        assert!(difference(&other, &outputs) > 1e-3, "{}: seeds 7 and 8 agree", row.name);
    }
}

#[test]
fn other_resolutions_work_and_impossible_ones_are_refused() {
    for row in zoo::TABLE.iter().filter(|row| row.resolution != 0) {
        let options = zoo::Options { seed: 1, resolution: Some(64) };
        let graph =
            onnx::from_bytes(row.name, &zoo::bytes(row.name, &options).unwrap(), &BTreeMap::new()).unwrap();
        assert_eq!(graph.value(graph.inputs[0]).shape, [1, 3, 64, 64]);
    }
    let at =
        |name, resolution| zoo::bytes(name, &zoo::Options { seed: 1, resolution }).unwrap_err().to_string();
    assert!(at("resnet18", Some(33)).contains("multiple of 32"));
    assert!(at("kws", Some(64)).contains("always [1, 1, 49, 10]"));
    assert!(at("resnet19", None).contains("resnet18"));
}
