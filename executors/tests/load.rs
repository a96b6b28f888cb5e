//! Loads PyTorch's files and compares with PyTorch's own numbers; then everything that is wrong with a file must be one clear error.

mod support;

use cosched_executors::cpu;
use support::{FIXTURES, difference, fixture, recorded};

/// PyTorch and onnxruntime sum in other orders; nothing else may differ.
const BOUND: f64 = 2e-5;

#[test]
fn exported_networks_give_the_numbers_of_pytorch() {
    for name in FIXTURES {
        let graph = fixture(name);
        let (inputs, want) = recorded(name, &graph);
        let refs: Vec<_> = inputs.iter().collect();
        let got = cpu::reference(&graph).unwrap().run(&refs).unwrap();
        let worst = difference(&got, &want);
        let mut ops = std::collections::BTreeMap::new();
        for node in &graph.nodes {
            *ops.entry(format!("{}:{}", node.domain, node.op)).or_insert(0) += 1;
        }
        println!("{name}: {} nodes, worst {worst:.1e}, {ops:?}", graph.nodes.len());
        assert!(worst < BOUND, "{name}: {worst:e}");
        // The saboteur: a single changed input element must be seen.
        let mut bad = inputs.clone();
        if let cosched_executors::tensor::Data::F32(v) = &mut bad[0].data {
            v[5] += 1.0;
        }
        let refs: Vec<_> = bad.iter().collect();
        let got = cpu::reference(&graph).unwrap().run(&refs).unwrap();
        assert!(difference(&got, &want) > BOUND, "{name}: a wrong input was not noticed");
    }
}
